"""Realistic bugs in `lessons`, one at a time: do the tests see them? `make mutants`, or for some of them
`python -m tests.mutants --only probe`.

Each runs in a copy of the repository under the temporary folder; the working tree stays as it is. First the tests have
to pass there without any bug, so that a failure means something. A bug is killed by a test that fails: tests that
have no end, or cannot even be collected, say nothing about it and are reported as that. Exit code 1 where a bug
survives, 2 where tests fail without a bug, 3 where no bug survives but one of them was not put to the test.
"""

import argparse
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[1]
COPIED = ("lessons", "tests", "pyproject.toml")
PATIENCE = 900  # seconds for the tests of one bug: a bug may also be a loop without end

# Stands in the copy: the environment also knows the working tree, by an editable install, and that has no bug in it.
CONFTEST = """from pathlib import Path

import lessons

found = Path(lessons.__file__).resolve()
assert found.is_relative_to(Path(__file__).resolve().parent), f"not the copy: {found}"
"""


@dataclass(frozen=True)
class Outcome:
    """How tests ended: `kind` is "passed", "failed" (`test` is the first that did), "collection" (`test` is the file
    that could not be collected) or "no end"."""

    kind: str
    test: str = ""

    def __str__(self) -> str:
        said = {"passed": "passed", "failed": self.test, "collection": f"{self.test} could not be collected"}
        return said.get(self.kind, f"no end after {PATIENCE} s")


@dataclass(frozen=True)
class Mutant:
    """One bug: in lessons/`file` the text `old`, which stands there exactly once, becomes `new`. `tests` names the
    files that should see it, "probes" for tests/test_probes.py."""

    name: str
    file: str
    tests: str
    old: str
    new: str

    def written_in(self, text: str) -> str:
        """The text of the file with the bug in it. Raises ValueError unless `old` occurs exactly once."""
        if (count := text.count(self.old)) != 1:
            raise ValueError(f"{self.name}: expected {self.old!r} once in lessons/{self.file}, found it {count} times.")
        return text.replace(self.old, self.new)


# fmt: off
MUTANTS = (
    # Probes: what is chosen where, and what is counted
    Mutant("knn-bank-not-normalised", "probes.py", "probes",
           "bank = F.normalize(full(bank), dim=1)",
           "bank = full(bank)"),
    Mutant("knn-temperature-multiplied", "probes.py", "probes",
           "((cosine - 1) / tau).exp()",
           "((cosine - 1) * tau).exp()"),
    Mutant("linear-probe-chooses-on-test", "probes.py", "probes",
           "probe.score(scaled[1], targets[1])",
           "probe.score(scaled[2], targets[2])"),
    Mutant("linear-probe-standardises-with-test", "probes.py", "probes",
           "mean, deviation = parts[0].mean(0), parts[0].std(0) + 1e-6",
           "mean, deviation = parts[2].mean(0), parts[2].std(0) + 1e-6"),
    Mutant("ridge-probe-chooses-on-test", "probes.py", "probes",
           "max(shares, key=lambda pair: pair[0])[1]",
           "max(shares, key=lambda pair: pair[1])[1]"),
    Mutant("ridge-probe-standardises-each-part-by-itself", "probes.py", "simclr",
           "x, *others = ((part - mean) / deviation for part in parts)",
           "x, *others = ((part - part.mean(0)) / (part.std(0, correction=0) + 1e-6) for part in parts)"),
    Mutant("ridge-probe-penalty-without-n", "probes.py", "simclr",
           "weight = torch.linalg.solve(system + strength * identity, right)",
           "weight = torch.linalg.solve(system + strength / len(x) * identity, right)"),
    Mutant("shots-are-the-first-of-each-class", "probes.py", "zeroshot",
           "order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))",
           "order = torch.arange(len(labels))"),
    Mutant("few-shot-probe-chooses-on-test", "probes.py", "probes",
           "probe.score(parts[1], targets[1])",
           "probe.score(parts[2], targets[2])"),
    Mutant("few-shot-probe-chooses-on-train", "probes.py", "probes",
           "probe.score(parts[1], targets[1])",
           "probe.score(parts[0], targets[0])"),
    Mutant("dense-probe-chooses-on-test", "probes.py", "dinov2",
           "score(predict(val[0], weight), val[1])",
           "score(predict(test, weight), val[1])"),
    Mutant("dense-probe-chooses-on-train", "probes.py", "dinov2",
           "score(predict(val[0], weight), val[1])",
           "score(predict(tokens, weight), maps)"),
    Mutant("dense-probe-standardises-each-part-by-itself", "probes.py", "dinov2",
           "- mean) / deviation) @ weight + centre",
           "- part.mean((0, 1)).to(x)) / deviation) @ weight + centre"),
    Mutant("calibration-bins-off-by-one-edge", "probes.py", "zeroshot",
           "torch.bucketize(confidence, edges)",
           "torch.bucketize(confidence, edges, right=True)"),
    Mutant("calibration-bins-by-rounding", "probes.py", "zeroshot",
           "torch.bucketize(confidence, edges)",
           "(confidence * bins).ceil().long().clamp(1, bins) - 1"),
    Mutant("recall-counts-ties-as-hits", "probes.py", "probes",
           "(~(similarity < best) & ~positives)",
           "((similarity > best) & ~positives)"),
    Mutant("recall-at-k-plus-one", "probes.py", "probes",
           "(better < k)",
           "(better <= k)"),
    Mutant("mean-iou-counts-the-overlap-twice", "probes.py", "dinov2",
           "(table.sum(0) + table.sum(1) - both)",
           "(table.sum(0) + table.sum(1))"),
    Mutant("crossing-linear-in-k", "probes.py", "zeroshot",
           "math.exp((1 - share) * math.log(k) + share * math.log(more))",
           "(1 - share) * k + share * more"),

    # Losses and their targets
    Mutant("mae-loss-mask-inverted", "objectives.py", "mae",
           "(error * hidden).sum() / hidden.sum()",
           "(error * ~hidden).sum() / (~hidden).sum()"),
    Mutant("mae-loss-over-all-patches", "objectives.py", "mae",
           "(error * hidden).sum() / hidden.sum()",
           "(error * hidden).mean()"),
    Mutant("patches-normalised-over-the-wrong-axis", "objectives.py", "mae",
           "patches.mean(-1, keepdim=True), patches.var(-1, keepdim=True)",
           "patches.mean(-2, keepdim=True), patches.var(-2, keepdim=True)"),
    Mutant("semi-hard-takes-hard-ones-too", "objectives.py", "objectives",
           "& (gap > 0) & (gap < margin)",
           "& (gap < margin)"),
    Mutant("info-nce-temperature-multiplied", "objectives.py", "objectives",
           "_cosines(q, k) / tau, own",
           "_cosines(q, k) * tau, own"),
    Mutant("symmetric-info-nce-one-way", "objectives.py", "objectives",
           "info_nce(b, a, tau, same=back)) / 2",
           "info_nce(a, b, tau, same=same)) / 2"),
    Mutant("equal-captions-not-turned-for-the-way-back", "objectives.py", "objectives",
           "None if same is None else same.T",
           "same"),
    Mutant("nt-xent-counts-itself", "objectives.py", "objectives",
           "(_cosines(z, z) / tau).masked_fill(itself, -torch.inf)",
           "_cosines(z, z) / tau"),
    Mutant("nt-xent-wrong-partner", "objectives.py", "objectives",
           ".roll(len(a)))",
           ".roll(1))"),
    Mutant("uniformity-counts-itself", "objectives.py", "objectives",
           "torch.triu_indices(len(z), len(z), 1, ",
           "torch.triu_indices(len(z), len(z), 0, "),
    Mutant("dino-teacher-without-stop-gradient", "objectives.py", "dino",
           "(full(teacher.detach()) - centre)",
           "(full(teacher) - centre)"),
    Mutant("dino-centre-updated-before-the-loss", "objectives.py", "dino",
           "(full(teacher.detach()) - centre)",
           "(full(teacher.detach()) - 0.9 * centre - 0.1 * teacher.detach().flatten(0, -2).mean(0))"),
    Mutant("dino-softmax-over-pictures", "objectives.py", "dino",
           "- centre) / tau).softmax(-1)",
           "- centre) / tau).softmax(-2)"),
    Mutant("dino-pairs-of-the-same-view", "objectives.py", "dino",
           "costs.masked_fill(same, 0).sum() / (T * V - T)",
           "costs.mean()"),
    Mutant("dino-averaged-twice", "objectives.py", "dino",
           "sum() / (T * V - T)",
           "mean() / (T * V - T)"),
    Mutant("dino-centre-momentum-swapped", "objectives.py", "dino",
           ", 1 - momentum)",
           ", momentum)"),
    Mutant("koleo-nearest-is-itself", "objectives.py", "dinov2",
           ".fill_diagonal_(-2).argmax(1)",
           ".argmax(1)"),
    Mutant("sinkhorn-rows-twice", "objectives.py", "dinov2",
           "q = q - q.logsumexp(0, keepdim=True)",
           "q = q - q.logsumexp(1, keepdim=True)"),
    Mutant("ibot-mean-over-patches", "objectives.py", "dinov2",
           "(costs * share.expand(hidden.shape)[hidden].to(costs.device)).sum() / len(hidden)",
           "costs.mean()"),
    Mutant("clip-loss-one-way", "objectives.py", "clip",
           '(losses["pictures"]() + losses["texts"]()) / 2',
           '(losses["pictures"]() + losses["pictures"]()) / 2'),
    Mutant("clip-scale-divides", "objectives.py", "clip",
           "logits = scale * _cosines(_unit(pictures), _unit(texts))  # (B, B)",
           "logits = _cosines(_unit(pictures), _unit(texts)) / scale  # (B, B)"),
    Mutant("clip-targets-not-normalised-for-the-way-back", "objectives.py", "clip",
           "F.normalize(target.to(logits.dtype), p=1, dim=0).T",
           "target.to(logits.dtype).T"),
    Mutant("siglip-averaged-twice", "objectives.py", "clip",
           "-F.logsigmoid(sign * logits).sum() / len(logits)",
           "-F.logsigmoid(sign * logits).mean() / len(logits)"),
    Mutant("answer-loss-without-shift", "objectives.py", "fusion",
           "labels[..., 1:].flatten()",
           "labels[..., :-1].flatten()"),
    Mutant("z-loss-counts-padding", "objectives.py", "fusion",
           "logits.logsumexp(1)[labels != IGNORED].square()",
           "logits.logsumexp(1).square()"),
    Mutant("winoground-ties-count", "objectives.py", "fusion",
           "text = (own > scores",
           "text = (own >= scores"),

    # Training
    Mutant("ema-momentum-swapped", "training.py", "training",
           "mean.lerp_(new.detach(), 1 - self.momentum)",
           "mean.lerp_(new.detach(), self.momentum)"),
    Mutant("ema-trains-its-batch-norm", "training.py", "training",
           "copy.deepcopy(model).requires_grad_(False).eval()",
           "copy.deepcopy(model).requires_grad_(False).train()"),
    Mutant("ema-forgets-batch-norm", "training.py", "training",
           "mean.copy_(new)",
           "mean.copy_(mean)"),
    Mutant("weight-decay-on-biases", "training.py", "training",
           '{"params": others, "weight_decay": 0.0}',
           '{"params": others, "weight_decay": weight_decay}'),
    Mutant("schedule-without-warm-up", "training.py", "training",
           "rising = round(steps * warmup)",
           "rising = 0"),
    Mutant("warm-up-begins-at-zero", "training.py", "training",
           "return (step + 1) / rising",
           "return step / rising"),
    Mutant("gradients-add-up", "training.py", "training",
           "scaler.step()\n                optimizer.zero_grad(set_to_none=True)",
           "scaler.step()"),
    Mutant("same-order-in-every-pass", "training.py", "training",
           "torch.randperm(len(pictures), generator=order)",
           "torch.randperm(len(pictures), generator=order.manual_seed(seed))"),
    Mutant("pictures-not-divided-by-255", "training.py", "training",
           "images = pictures.images[index].float() / 255",
           "images = pictures.images[index].float()"),
    Mutant("predict-in-train-mode", "training.py", "training",
           "    model.eval()\n    try:",
           "    try:"),
    Mutant("emulated-bfloat16-on-a-t4", "session.py", "session",
           "torch.bfloat16 if major >= 8 else",
           "torch.bfloat16 if major >= 7 else"),
    Mutant("a-skipped-first-step-leaves-its-momentum", "precision.py", "precision",
           '["momentum_buffer"] = torch.zeros_like(parameter)',
           '["momentum_buffer"] = torch.full_like(parameter, 1e6)'),
    Mutant("gradients-clipped-while-scaled", "training.py", "precision",
           "                    scaler.unscale()\n",
           ""),
    Mutant("weights-remembered-whatever-the-settings", "training.py", "training",
           "known = [settings, shapes, ",
           "known = [shapes, "),

    # Augmentations
    Mutant("flip-without-the-mask", "augment.py", "augment",
           "torch.where(mirrored[:, None], forwards.flip(0), forwards)",
           "forwards.flip(0).expand(len(x), -1)"),
    Mutant("one-coin-for-the-whole-batch", "augment.py", "augment",
           "mirrored = _uniform(x, 0, 1, generator) < p",
           "mirrored = (_uniform(x, 0, 1, generator) < p)[:1].expand(len(x))"),
    Mutant("probability-inverted", "augment.py", "augment",
           "return (_uniform(x, 0, 1, generator) < p).nonzero()[:, 0]",
           "return (_uniform(x, 0, 1, generator) > p).nonzero()[:, 0]"),
    Mutant("aspect-not-in-the-logarithm", "augment.py", "augment",
           "_uniform(x, math.log(ratio[0]), math.log(ratio[1]), generator, tries=10).exp()",
           "_uniform(x, *ratio, generator, tries=10)"),
    Mutant("crop-never-at-the-far-edge", "augment.py", "augment",
           "torch.randint(windows.shape[2], ",
           "torch.randint(max(windows.shape[2] - 1, 1), "),
    Mutant("resize-without-antialias", "augment.py", "augment",
           ".div_(step.clamp_min(1))",
           ".div_(1)"),
    Mutant("two-views-are-one", "augment.py", "augment",
           "return augment(x, generator=generator, **settings), augment(x, generator=generator, **settings)",
           "return (augment(x, generator=generator, **settings),) * 2"),
    Mutant("simclr-blurs-every-view", "augment.py", "augment",
           "partial(gaussian_blur, kernel_size=blur, p=0.5)",
           "partial(gaussian_blur, kernel_size=blur)"),
    Mutant("dino-blurs-both-large-views", "augment.py", "augment dino",
           "second = view(size, global_scale, 0.1, ",
           "second = view(size, global_scale, 1.0, "),
    Mutant("dino-solarises-the-first-view", "augment.py", "augment dino",
           "first = view(size, global_scale, 1.0)",
           "first = view(size, global_scale, 1.0, partial(random_solarize, p=solarize))"),
    Mutant("dino-small-views-of-large-crops", "augment.py", "augment dino",
           "view(local_size, local_scale, 0.5)",
           "view(local_size, global_scale, 0.5)"),

    # Networks
    Mutant("resnet-relu-before-the-sum", "nets/resnet.py", "resnet",
           "change + self.shortcut(x))",
           "F.relu(change) + self.shortcut(x))"),
    Mutant("resnet-fan-in", "nets/resnet.py", "resnet",
           'mode="fan_out"',
           'mode="fan_in"'),
    Mutant("vit-softmax-over-queries", "nets/vit.py", "vit",
           "scores.softmax(-1)",
           "scores.softmax(-2)"),
    Mutant("vit-scores-not-scaled", "nets/vit.py", "vit",
           "(q * q.shape[-1] ** -0.5) @ k",
           "q @ k"),
    Mutant("vit-attends-to-padding", "nets/vit.py", "vit",
           "return self.with_map(x, mask)[0]",
           "return self.with_map(x)[0]"),
    Mutant("vit-mask-inverted", "nets/vit.py", "vit",
           "scores.masked_fill(~mask, -torch.inf)",
           "scores.masked_fill(mask, -torch.inf)"),
    Mutant("vit-causal-mask-off-by-one", "nets/vit.py", "vit",
           "device=device).tril()",
           "device=device).tril(1)"),
    Mutant("vit-layer-norm-epsilon", "nets/vit.py", "vit",
           "self.norm2 = nn.LayerNorm(width, eps=1e-6)",
           "self.norm2 = nn.LayerNorm(width)"),
    Mutant("vit-positions-added-twice", "nets/vit.py", "vit",
           "x = x + position[extra:]",
           "x = x + 2 * position[extra:]"),
    Mutant("vit-class-token-without-position", "nets/vit.py", "vit",
           "first = self.class_token + position[:1]",
           "first = self.class_token"),
    Mutant("sincos-rows-first", "nets/vit.py", "vit",
           "[x.sin(), x.cos(), y.sin(), y.cos()]",
           "[y.sin(), y.cos(), x.sin(), x.cos()]"),
    Mutant("mae-mask-inverted", "nets/mae.py", "mae",
           "restore >= count",
           "restore < count"),
    Mutant("mae-patches-not-put-back", "nets/mae.py", "mae",
           "x = x.gather(1, mask.restore[..., None].expand_as(x))",
           "x = x.clone()"),
    Mutant("mae-decoder-positions-twice", "nets/mae.py", "mae",
           "self.decoder(x + self.position)",
           "self.decoder(x + self.position + self.position)"),
    Mutant("queue-advances-by-one", "nets/contrastive.py", "contrastive",
           "(self.pointer + len(keys))",
           "(self.pointer + 1)"),
    Mutant("queue-keys-not-normalised", "nets/contrastive.py", "contrastive",
           "F.normalize(keys.detach().to(self.keys.dtype), dim=1)",
           "keys.detach().to(self.keys.dtype)"),
    Mutant("simclr-head-is-linear", "nets/simclr.py", "simclr",
           "[nn.ReLU()] if layers else []",
           "[]"),
    Mutant("dino-prototypes-not-normalised", "nets/dino.py", "dino",
           "z @ F.normalize(self.prototypes, dim=-1).T",
           "z @ self.prototypes.T"),
    Mutant("dino-momentum-runs-backwards", "nets/dino.py", "dino",
           "lambda step: end - (end - start) *",
           "lambda step: start + (end - start) *"),
    Mutant("dinov2-mask-inverted", "nets/dinov2.py", "dinov2",
           "torch.where(hidden[..., None], self.mask_token",
           "torch.where(~hidden[..., None], self.mask_token"),
    Mutant("clip-reads-the-last-token", "nets/clip.py", "clip",
           "[torch.arange(len(tokens), device=tokens.device), ends.int().argmax(1)]",
           "[:, -1]"),
    Mutant("text-tower-reads-ahead", "nets/clip.py", "clip",
           "return self.encoder(x, causal_mask(tokens.shape[1], tokens.device))",
           "return self.encoder(x)"),
    Mutant("clip-scale-clamped-without-logarithm", "nets/clip.py", "clip",
           "clamp_(max=math.log(LARGEST_SCALE))",
           "clamp_(max=LARGEST_SCALE)"),
    Mutant("captions-count-padding", "nets/clip.py", "clip",
           "[..., 0] * (tokens[:, 1:] != 0)",
           "[..., 0]"),
    Mutant("long-captions-score-per-token", "nets/clip.py", "clip",
           "prompt.expand(len(seen), -1)).sum(1)",
           "prompt.expand(len(seen), -1)).mean(1)"),
    Mutant("locked-tower-moves-its-batch-norm", "nets/clip.py", "clip",
           "return self.tower.eval()(images)",
           "return self.tower(images)"),
    Mutant("words-of-a-prompt-with-its-end", "nets/clip.py", "clip",
           "word = (prompts > 2)",
           "word = (prompts > 0)"),
    Mutant("log-mel-of-magnitudes", "nets/audio.py", "audio",
           ".abs().square()",
           ".abs()"),
    Mutant("zero-shot-long-prompts-count-more", "nets/zeroshot.py", "zeroshot",
           "F.normalize(F.normalize(full(prompts), dim=2).mean(1), dim=1)",
           "F.normalize(full(prompts).mean(1), dim=1)"),
    Mutant("zero-shot-normalised-over-pictures", "nets/zeroshot.py", "zeroshot",
           "F.normalize(full(pictures), dim=1) @ self.weight.T",
           "F.normalize(full(pictures), dim=0) @ self.weight.T"),
    Mutant("interpolation-runs-backwards", "nets/zeroshot.py", "zeroshot",
           "torch.lerp(value, last[name], amount)",
           "torch.lerp(last[name], value, amount)"),
    Mutant("picture-tokens-see-words", "nets/fusion.py", "fusion",
           "mask[:, :pictures] = True",
           "mask[:, :pictures] = mask[:pictures] = True"),
    Mutant("cache-position-off-by-one", "nets/fusion.py", "fusion",
           "tokens[:, None, start:], start)",
           "tokens[:, None, start:], max(start - 1, 0))"),
    Mutant("qk-norm-forgets-the-keys", "nets/fusion.py", "fusion",
           "return self.norm_q(q), self.norm_k(k), v",
           "return self.norm_q(q), k, v"),
    Mutant("gates-without-tanh", "nets/fusion.py", "fusion",
           "self.gates.tanh()",
           "self.gates"),
    Mutant("bag-counts-padding", "nets/fusion.py", "fusion",
           "(tokens > 2)[..., None]",
           "(tokens >= 0)[..., None]"),
    Mutant("places-row-by-column", "nets/fusion.py", "fusion",
           "(self.row + self.column).flatten(0, 1)",
           "(self.row + self.column).transpose(0, 1).flatten(0, 1)"),
    Mutant("map-standardised-upon-standardised", "nets/fusion.py", "fusion",
           "tokens = self.eval()(images) * self.spread + self.centre",
           "tokens = self.eval()(images)"),

    # The shape of a shared space
    Mutant("csls-forgets-the-items", "geometry.py", "geometry",
           "2 * similarity - of_queries - of_items",
           "2 * similarity - of_queries"),
    Mutant("inverted-softmax-without-the-bank", "geometry.py", "geometry",
           "(beta * bank).logsumexp(0)",
           "(beta * similarity).logsumexp(0)"),
    Mutant("cone-counts-itself", "geometry.py", "geometry",
           "((total - n) / (n * (n - 1)))",
           "(total / n**2)"),
    Mutant("hubs-count-themselves", "geometry.py", "geometry",
           "similarity.clone().fill_diagonal_(-torch.inf)",
           "similarity.clone()"),
    Mutant("centred-by-its-own-mean", "geometry.py", "geometry",
           "(x.mean(0) if mean is None else mean)",
           "x.mean(0)"),

    # Verdicts
    Mutant("normal-interval-for-few-seeds", "claims.py", "claims",
           "t.ppf(0.975, len(values) - 1)",
           "1.96"),
    Mutant("one-sided-interval", "claims.py", "claims",
           "t.ppf(0.975, ",
           "t.ppf(0.95, "),
    Mutant("deviation-instead-of-standard-error", "claims.py", "claims",
           "math.sqrt(variance / len(values))",
           "math.sqrt(variance)"),
    Mutant("one-standard-error-for-one-value", "claims.py", "claims",
           "half = 2 * error",
           "half = error"),
    Mutant("variance-over-n", "claims.py", "claims",
           "for value in values) / (len(values) - 1)",
           "for value in values) / len(values)"),
    Mutant("share-error-without-root", "claims.py", "claims",
           "return math.sqrt(max(share * (1 - share), 1 / n) / n)",
           "return max(share * (1 - share), 1 / n) / n"),

    # Data
    Mutant("val-leaks-into-train", "data/__init__.py", "data",
           '{"train": pool[len(val) :], ',
           '{"train": pool, '),
    Mutant("test-leaks-into-train", "data/__init__.py", "data audio",
           "pool = pool[len(test) :]",
           "pool = pool[:]"),
    Mutant("val-scenes-begin-within-train", "data/__init__.py", "data",
           '"val": 10_000_000',
           '"val": 0'),
    Mutant("captions-of-the-wrong-picture", "data/__init__.py", "data",
           "return [values[row] for row in index.tolist()]",
           "return [values[row] for row in range(len(index))]"),
    Mutant("lists-keep-their-order-under-an-index", "data/rows.py", "data",
           "[value[row] for row in rows.tolist()]",
           "value[: len(rows)]"),
    Mutant("coarse-labels", "data/tables.py", "data",
           "image, label = spec.columns[:2]",
           "image, *_, label = spec.columns"),
    Mutant("pictures-turned-over-the-diagonal", "data/tables.py", "data",
           "torch.from_numpy(pixels).permute(0, 3, 1, 2)",
           "torch.from_numpy(pixels).permute(0, 3, 2, 1)"),
    Mutant("square-from-the-corner", "data/tables.py", "data",
           "left, top = (width - side) / 2, (height - side) / 2",
           "left, top = 0, 0"),
    Mutant("stream-test-rows-in-train", "data/hub.py", "data",
           "others = [row % 10 != 0 ",
           "others = [row >= 0 "),
    Mutant("stream-resumes-one-row-late", "data/hub.py", "data faults",
           ".skip(done) if done",
           ".skip(done + 1) if done"),
    Mutant("esc50-test-is-the-first-fold", "data/hub.py", "audio",
           "fold == max(folds)",
           "fold == min(folds)"),
    Mutant("cut-captions-lose-their-end", "data/tokenizer.py", "clip",
           "[BOS, *found.ids[: self.length - 2], EOS]",
           "[BOS, *found.ids, EOS][: self.length]"),
    Mutant("left-and-right-exchanged", "data/language.py", "scenes",
           'RELATIONS["left"][:: 1 if a.x < b.x else -1]',
           'RELATIONS["left"][:: 1 if a.x > b.x else -1]'),
    Mutant("count-one-too-many", "data/language.py", "scenes",
           "return (text, NUMBERS[len(objects) - 1], ",
           "return (text, NUMBERS[len(objects)], "),
    Mutant("yes-and-no-exchanged", "data/language.py", "scenes",
           "thing.shape if answer == 'yes' else other.shape",
           "thing.shape if answer == 'no' else other.shape"),
    Mutant("far-objects-drawn-last", "data/scenes.py", "scenes",
           "for k in reversed(range(world.objects[1])):",
           "for k in range(world.objects[1]):"),
    Mutant("main-object-may-be-absent", "data/scenes.py", "scenes",
           "self.size.where(self.present, self.size.new_tensor(-1)).argmax(1)",
           "self.size.argmax(1)"),
    Mutant("combinations-numbered-by-colours", "data/scenes.py", "scenes",
           'self.labels("colour") * len(SHAPES)',
           'self.labels("colour") * len(COLOURS)'),
    Mutant("hidden-objects-count-as-visible", "data/scenes.py", "scenes",
           'found["visible"] = seen / area',
           'found["visible"] = (seen > 0).float()'),
    Mutant("held-out-only-where-all-are", "data/scenes.py", "scenes",
           "free = ~banned[colour, shape].any(-1)",
           "free = ~banned[colour, shape].all(-1)"),
    Mutant("pitch-of-the-shape", "data/sounds.py", "scenes",
           "device=device)[scenes.colour[here, slot], None]",
           "device=device)[shape, None]"),
    Mutant("loud-mixtures-are-cut-off", "data/sounds.py", "scenes",
           "0.9 * mixture / loud.clamp(min=1)",
           "0.9 * mixture"),
    Mutant("two-seeds-sound-alike", "data/sounds.py", "scenes",
           "takes = uniform(scenes.seed * 1_000_003 + seed, ",
           "takes = uniform(seed, "),
    Mutant("partials-beyond-hearing-fold-back", "data/sounds.py", "scenes",
           "strength * (ratio * pitch < 0.45 * rate)",
           "strength * (ratio * pitch < 10 * rate)"),
)
# fmt: on


def copy_to(folder: Path) -> Path:
    """A copy of the repository that imports itself and nothing of the working tree."""
    skip = shutil.ignore_patterns("__pycache__", "*.egg-info", ".*")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=skip)
        else:
            shutil.copy(source, folder / name)
    (folder / "conftest.py").write_text(CONFTEST, encoding="utf-8")
    return folder


def outcome(folder: Path, tests: Sequence[str]) -> Outcome:
    """How these files of tests end in the copy `folder`. Raises RuntimeError where they cannot run at all."""
    # Bytecode is known by size and second of its source: a bug written at once could be run without being there.
    # The tests need no plugin, and to load all that are installed takes seconds each time.
    env = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    env |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    files = [f"tests/test_{name}.py" for name in tests]
    try:
        run = subprocess.run(command + files, cwd=folder, env=env, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return Outcome("no end")
    if run.returncode == 0:
        return Outcome("passed")
    found = re.search(r"^(?:FAILED|ERROR) tests/(\S+)", run.stdout, re.MULTILINE)
    if not found:
        raise RuntimeError(f"{' '.join(files)} could not run in {folder}:\n{run.stdout[-3000:]}{run.stderr[-3000:]}")
    return Outcome("failed" if "::" in found[1] else "collection", found[1])


def with_bug(folder: Path, mutant: Mutant) -> Outcome:
    """How the tests of a bug end while it is there; the copy is whole again afterwards."""
    path = folder / "lessons" / mutant.file
    text = path.read_text(encoding="utf-8")
    path.write_text(mutant.written_in(text), encoding="utf-8")
    try:
        return outcome(folder, mutant.tests.split())
    finally:
        path.write_text(text, encoding="utf-8")


def spread(
    work: Callable[[Path, T], Outcome], items: Sequence[T], copies: Sequence[Path]
) -> Iterator[tuple[T, Outcome]]:
    """(item, work(copy, item)) for all items as they end, one at a time in each copy."""
    free: queue.Queue[Path] = queue.Queue()
    for copy in copies:
        free.put(copy)

    def one(item: T) -> Outcome:
        copy = free.get()
        try:
            return work(copy, item)
        finally:
            free.put(copy)

    with ThreadPoolExecutor(len(copies)) as pool:
        runs = {pool.submit(one, item): item for item in items}
        try:
            for run in as_completed(runs):
                yield runs[run], run.result()
        except BaseException:  # Ctrl-C as well: what has not begun is not begun any more
            pool.shutdown(cancel_futures=True)
            raise


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="", metavar="NAME", help="the bugs whose name contains this")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="how many run side by side (2)")
    asked = parser.parse_args(arguments)
    chosen = [mutant for mutant in MUTANTS if asked.only in mutant.name]
    if not chosen or asked.jobs < 1:
        names = ", ".join(mutant.name for mutant in MUTANTS)
        parser.error(f"no bug named {asked.only!r}, or fewer than one job. The bugs are: {names}.")
    files = sorted({name for mutant in chosen for name in mutant.tests.split()})

    with tempfile.TemporaryDirectory(prefix="mutants-") as place:
        copies = [copy_to(Path(place) / str(number)) for number in range(asked.jobs)]
        print(f"{len(chosen)} bugs. First the tests without any: {len(files)} files ...", flush=True)
        ends = spread(lambda copy, name: outcome(copy, [name]), files, copies)
        red = [str(end) for _, end in ends if end.kind != "passed"]
        if red:
            print(f"These fail without a bug: {', '.join(red)}. Mend them first.")
            return 2
        start, found = time.monotonic(), {}
        for done, (mutant, end) in enumerate(spread(with_bug, chosen, copies), 1):
            found[mutant] = end
            left = (time.monotonic() - start) / done * (len(chosen) - done) / 60
            known = {"failed": f"killed by {end}", "passed": f"SURVIVED {mutant.tests}"}
            said = known.get(end.kind, f"UNTESTED, {end}")
            print(f"[{done}/{len(chosen)}, {left:.0f} min left] {mutant.name}: {said}", flush=True)
    return summary(found)


def summary(found: dict[Mutant, Outcome]) -> int:
    """Print how many bugs are seen, and what to do about each of the others; returns the exit code."""
    kinds = [end.kind for end in found.values()]
    print(f"{kinds.count('failed')} of {len(kinds)} bugs are seen ({kinds.count('failed') / len(kinds):.0%}).")
    for mutant, end in sorted(found.items(), key=lambda pair: pair[0].name):
        if end.kind == "passed":
            print(f"  {mutant.name} survives: add a test that fails when lessons/{mutant.file} says\n    {mutant.new}")
        elif end.kind != "failed":
            print(f"  {mutant.name} was not put to the test ({end}): choose a bug with which the tests run to the end")
    return 1 if "passed" in kinds else 0 if set(kinds) == {"failed"} else 3


if __name__ == "__main__":
    sys.exit(main())

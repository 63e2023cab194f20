"""Lesson 11: questions about pictures, the encoder that reads them, and how answers are judged."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import objectives, training
from ..data import Captioned, language
from ..data.rows import Rows
from ..data.scenes import SHAPES, WORLDS, Scenes, render
from ..data.tokenizer import BOS, PAD, Tokenizer
from ..errors import SettingError
from ..nets.clip import DualEncoder
from ..nets.fusion import MapTower, Namer
from ..session import Run
from .captions import caption_tokens

FUSION_WORLD = replace(
    WORLDS["columns"],
    objects=(2, 3),
    size=(0.24, 0.3),
    y=(-0.14, 0.14),  # one row: what is left and right is clear, above and below is not asked
    tilt=0.1,
    shapes=("circle", "square", "triangle", "cross", "ring"),
    colours=("red", "green", "blue", "yellow", "purple"),
    patterns=("plain",),
)
ASKED = ("colour", "shape", "count", "existence", "binding", "where", "relation")
TEXTS = (*ASKED, "list")  # the kinds of text about a picture


@dataclass
class Dialogues(Rows):
    """N pictures with S texts about each, a question and its answer or a prompt and a caption. The labels are the
    tokens of the answer, IGNORED elsewhere; `kinds` is a place in TEXTS, -1 where a picture has fewer texts."""

    images: Tensor  # uint8 (N, 3, H, W)
    tokens: Tensor  # int64 (N, S, T)
    labels: Tensor  # int64 (N, S, T)
    kinds: Tensor  # int64 (N, S)


def dialogue(tokenizer: Tokenizer, prompts: list[str], answers: list[str]) -> tuple[Tensor, Tensor]:
    """Tokens (M, T) of [BOS] prompt answer [EOS], and their labels: the answer and [EOS], IGNORED elsewhere. The
    prompt keeps its place, so that the tokens of the answer are those that were cut off. T is the tokenizer's length.
    """
    tokens = tokenizer([f"{prompt} {answer}" for prompt, answer in zip(prompts, answers, strict=True)])
    lengths = {prompt: len(tokenizer.tokens(prompt)) for prompt in set(prompts)}
    first = torch.tensor([1 + lengths[prompt] for prompt in prompts])  # the place of the answer's first token
    learned = (torch.arange(tokens.shape[1]) >= first[:, None]) & (tokens != PAD)
    return tokens, tokens.where(learned, objectives.IGNORED)


def asked_about(scenes: Scenes, count: int) -> list[list[tuple[str, str, str]]]:
    """For each picture up to `count` questions and one list of what is there: (kind, prompt, answer)."""
    texts: list[list[tuple[str, str, str]]] = [[] for _ in range(len(scenes))]
    for question in language.questions(scenes, count, ASKED):
        texts[question.picture].append((question.kind, question.text, question.answer))
    for found, line in zip(texts, language.listed(scenes), strict=True):
        found.append(("list", "there is", line))
    return texts


def dialogues(scenes: Scenes, tokenizer: Tokenizer, count: int = 12) -> Dialogues:
    """The texts of `asked_about` as tokens, on the device of the scenes."""
    texts = asked_about(scenes, count)
    flat = [text for found in texts for text in found]
    unique = {pair: number for number, pair in enumerate(dict.fromkeys((prompt, answer) for _, prompt, answer in flat))}
    rows, labels = dialogue(tokenizer, *map(list, zip(*unique, strict=True)))
    which = torch.tensor([unique[prompt, answer] for _, prompt, answer in flat])
    at = torch.tensor([(i, s) for i, found in enumerate(texts) for s in range(len(found))])
    shape = (len(scenes), count + 1)
    kinds = torch.full(shape, -1)
    kinds[at[:, 0], at[:, 1]] = torch.tensor([TEXTS.index(kind) for kind, _, _ in flat])
    tokens = torch.full((*shape, tokenizer.length), PAD)
    targets = torch.full_like(tokens, objectives.IGNORED)
    tokens[at[:, 0], at[:, 1]], targets[at[:, 0], at[:, 1]] = rows[which], labels[which]
    device = scenes.images.device
    return Dialogues(scenes.images, tokens.to(device), targets.to(device), kinds.to(device))


def naming_tower(run: Run) -> MapTower:
    """A picture encoder that has learned to name single objects of FUSION_WORLD, in eval mode and frozen: the stand-in
    for the towers trained elsewhere that LLaVA and Flamingo start from. Ten seconds at cpu scale, or from the cache."""
    sizes = run.pick(smoke=(4, 600, 4, 32), cpu=(16, 6_000, 110, 32), gpu=(64, 60_000, 1_000, 64))
    width, count, steps, pixels = sizes
    world = replace(FUSION_WORLD, objects=(1, 1), layout="free", x=(-0.7, 0.7), y=(-0.3, 0.3))
    pictures = render(world, count, seed=9, size=pixels, device=run.device).pictures("combination")
    used, labels = pictures.labels.unique(return_inverse=True)
    pictures = replace(pictures, labels=labels, classes=tuple(pictures.classes[k] for k in used.tolist()))
    torch.manual_seed(run.seed)
    namer = run.place(Namer(MapTower(width), len(used)), "conv")

    def train() -> training.History:
        optimizer = torch.optim.AdamW(training.parameter_groups(namer, 0.05), lr=3e-3)
        batches = training.batches(pictures, min(128, count), seed=run.seed)
        history = training.fit(
            namer,
            training.cross_entropy,
            batches,
            steps=steps,
            optimizer=optimizer,
            precision=run.precision("conv"),
            title="tower",
        )
        scenes = render(FUSION_WORLD, min(count, 500), seed=9, size=pixels, device=run.device)
        namer.tower.standardise(training.to_input(scenes.images))
        return history

    known = {"count": count, "steps": steps, "pixels": pixels, "seed": run.seed}
    known["precision"] = str(run.precision("conv"))
    training.remember("naming-tower", namer, known, train)
    return namer.tower.eval().requires_grad_(False)


@torch.no_grad()
def see(tower: MapTower, images: Tensor, batch: int = 500) -> Tensor:
    """What the tower sees in uint8 pictures (N, 3, H, W): (N, places, F), in eval mode and without gradient."""
    was_training = tower.training
    try:
        return torch.cat([tower.eval()(training.to_input(part)).float() for part in images.split(batch)])
    finally:
        tower.train(was_training)


@torch.no_grad()
def answered(model: nn.Module, seen: Tensor | None, told: Dialogues, batch: int = 250) -> Tensor:
    """Which of the texts a model completes without a mistake: bool (N, S). Each labelled token must be the most likely
    one behind those before it, which is the same as writing the answer greedily. seen (N, P, F), or None."""
    was_training, right = model.training, []
    model.eval()
    for number, part in enumerate(told.tokens.split(batch)):
        logits = model(None if seen is None else seen.split(batch)[number], part)
        labels = told.labels.split(batch)[number][..., 1:]
        right.append(((logits[..., :-1, :].argmax(-1) == labels) | (labels == objectives.IGNORED)).all(-1))
    model.train(was_training)
    return torch.cat(right) & (told.kinds >= 0)


@torch.no_grad()
def text_likelihoods(model: nn.Module, seen: Tensor, tokens: Tensor, labels: Tensor, batch: int = 4) -> Tensor:
    """How likely each text is for its picture, log p (N, S): seen (N, P, F), tokens and labels (N, S, T). A few
    pictures at a time: the logits of all of them, over a large vocabulary, would fill the memory."""
    parts = zip(seen.split(batch), tokens.split(batch), labels.split(batch), strict=True)
    return torch.cat([objectives.text_log_probability(model(look, text), label) for look, text, label in parts])


def by_kind(right: Tensor, told: Dialogues) -> dict[str, float]:
    """The share of right texts of each kind that occurs."""
    return {
        kind: right[told.kinds == k].float().mean().item() for k, kind in enumerate(TEXTS) if (told.kinds == k).any()
    }


def colour_claims(tokenizer: Tokenizer, pairs: list[tuple[str, str]]) -> tuple[Tensor, Tensor]:
    """Questions that tell the two pictures of `language.exchanged` apart: for each pair four texts, "what colour is the
    ring?" about both objects that exchanged their colours, answered as in the first picture, then as in the second.
    Tokens and labels (N, 4, T)."""
    prompts, answers = [], []
    for both in pairs:
        first, second = ([thing.split() for thing in text.split(", ")] for text in both)
        differ = [k for k, (a, b) in enumerate(zip(first, second, strict=True)) if a != b]
        for things in (first, second):
            prompts += [f"what colour is the {things[k][1]}?" for k in differ]
            answers += [things[k][0] for k in differ]
    tokens, labels = dialogue(tokenizer, prompts, answers)
    return tokens.view(len(pairs), 4, -1), labels.view(len(pairs), 4, -1)


def numbers(total: int, size: int, seed: int = 0) -> Iterator[Tensor]:
    """Endless batches of `size` numbers out of 0 to total - 1, (size,) int64, each once per pass, in an order that
    depends on `seed` only. Raises SettingError for a batch larger than `total`."""
    if not 1 <= size <= total:
        raise SettingError(f"The batch size is {size}, but there are {total} to draw from.")
    order = torch.Generator().manual_seed(seed)
    while True:
        yield from torch.randperm(total, generator=order)[: total // size * size].split(size)


def captioned(tokenizer: Tokenizer, part: Captioned) -> tuple[Tensor, Tensor]:
    """All captions of the pictures as tokens and labels (N, C, T), on the device of the pictures: everything but [BOS]
    and padding is to be predicted."""
    tokens = caption_tokens(tokenizer, part.captions).to(part.images.device)
    return tokens, tokens.where((tokens != PAD) & (tokens != BOS), objectives.IGNORED)


@dataclass
class Pointed(Rows):
    """Q questions that name an object: the number of the picture and of the text, the place of the noun (the question
    mark stands behind it), and the area (Q, P) that the named object and all objects take up at each of P places."""

    picture: Tensor
    text: Tensor
    noun: Tensor
    named: Tensor
    things: Tensor


def pointed(scenes: Scenes, told: Dialogues, tokenizer: Tokenizer, grid: tuple[int, int]) -> Pointed:
    """The questions "what colour is the ring?" of `told` about `scenes`, and where the ring is, on a grid of places."""
    most = scenes.present.shape[1]
    seen = torch.stack([(scenes.instances == k + 1).float() for k in range(most)], 1)
    area = F.adaptive_avg_pool2d(seen, grid).flatten(2)  # (N, M, P)
    found = (told.kinds == TEXTS.index("colour")).nonzero()
    columns: list[list] = [[] for _ in range(5)]
    for n, s in found.tolist():
        noun = tokenizer.decode(told.tokens[n, s]).split("?")[0].split()[-1]
        k = scenes.shape[n].tolist().index(SHAPES.index(noun))
        mark = int((told.labels[n, s] != objectives.IGNORED).int().argmax()) - 1
        for column, value in zip(columns, (n, s, mark - 1, area[n, k], area[n].sum(0)), strict=True):
            column.append(value)
    device = scenes.images.device
    places = [torch.tensor(column, device=device) for column in columns[:3]]
    return Pointed(*places, torch.stack(columns[3]), torch.stack(columns[4]))


@torch.no_grad()
def looked_at(
    model: nn.Module, seen: Tensor, told: Dialogues, asked: Pointed, batch: int = 250
) -> tuple[Tensor, Tensor]:
    """Which share of the attention that falls on objects falls on the named one, in each layer, mean over heads: of the
    noun and of the question mark, each (Q, L)."""
    parts = zip(seen.split(batch), told.tokens.split(batch), strict=True)
    maps = torch.cat([model.eval().with_maps(*part)[1].mean(2) for part in parts])  # (N, L, S, T, P + T)
    shares = []
    for place in (asked.noun, asked.noun + 1):
        look = maps[asked.picture, :, asked.text, place, : seen.shape[1]]  # (Q, L, P)
        shares.append((look * asked.named[:, None]).sum(2) / (look * asked.things[:, None]).sum(2))
    return shares[0], shares[1]


def texts_of_pairs(tokenizer: Tokenizer, pairs: list[tuple[str, str]], answer: str) -> tuple[Tensor, Tensor]:
    """The captions of the pairs of `language.exchanged` as questions, "red ring, blue star? yes": tokens and labels
    (N, 2, T), the label being the answer."""
    flat = [f"{text}?" for pair in pairs for text in pair]
    tokens, labels = dialogue(tokenizer, flat, [answer] * len(flat))
    return tokens.view(len(pairs), 2, -1), labels.view(len(pairs), 2, -1)


@torch.no_grad()
def match_scores(
    model: nn.Module, seen: Tensor, tokenizer: Tokenizer, pairs: list[tuple[str, str]], digits: int = 4
) -> Tensor:
    """How well both pictures of each pair fit both captions: (N, 2, 2), [n, i, c] of picture i with caption c. seen
    (2 N, P, F), pairs as in `language.exchanged`. A DualEncoder gives cosines; any other model is asked behind the
    caption, and gives log p("yes") - log p("no"). Rounded to `digits`, so that equal sums in another order are ties."""
    model.eval()
    if isinstance(model, DualEncoder):
        u = model.encode_pictures(seen).view(len(pairs), 2, -1)
        flat = tokenizer([text for pair in pairs for text in pair]).to(seen.device)
        scores = u @ model.encode_texts(flat).view(len(pairs), 2, -1).transpose(1, 2)
    else:
        likely = {}
        for answer in ("yes", "no"):
            rows = texts_of_pairs(tokenizer, pairs, answer)
            tokens, labels = (part.to(seen.device).repeat_interleave(2, 0) for part in rows)
            likely[answer] = objectives.text_log_probability(model(seen, tokens), labels).view(len(pairs), 2, 2)
        scores = likely["yes"] - likely["no"]
    return scores.round(decimals=digits)

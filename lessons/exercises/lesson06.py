"""Lesson 06, DINO: six exercises, an experiment, and an open one."""

import copy
import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from .engine import Exercise, Wrong
from .expect import call, expect_equal, expect_tensor, require, seeded

# 6.1


def view_pairs(n_local):
    """The comparisons of DINO with two global crops, numbers 0 and 1, and n_local local ones: a list of pairs
    (teacher view, student view) of ints, sorted."""
    return [(a, b) for a in range(2) for b in range(2 + n_local) if a != b]


def check_view_pairs(candidate):
    for n_local in (2, 4, 0, 6):
        V = 2 + n_local
        causes = {
            "a view is not compared with itself: leave (0, 0) and (1, 1) out": [
                (a, b) for a in range(2) for b in range(V)
            ],
            "the teacher sees the two global crops only": [(a, b) for a in range(V) for b in range(V) if a != b],
            "the student's global crops count, too: each is compared with the teacher's other one": [
                (a, b) for a in range(2) for b in range(2, V)
            ],
            "each pair is (teacher view, student view), in this order": sorted(
                (b, a) for a in range(2) for b in range(V) if a != b
            ),
            "(0, 1) and (1, 0) are two comparisons: teacher and student are different networks": [
                (a, b) for a in range(2) for b in range(V) if a < b
            ],
            "views are counted from 0": [(a + 1, b + 1) for a, b in view_pairs(n_local)],
            "n_local counts the local crops alone; the student sees two more": [
                (a, b) for a in range(2) for b in range(n_local) if a != b
            ],
            "the list is to be sorted, by teacher view first": lambda got, n=n_local: (
                isinstance(got, list) and got != view_pairs(n) and sorted(got) == view_pairs(n)
            ),
        }
        expect_equal(call(candidate, n_local), view_pairs(n_local), f"view_pairs({n_local})", causes=causes)


# 6.2


def teacher_weights(momentum, steps):
    """What the teacher is made of after `steps` updates with this momentum: a tensor (steps + 1,), float32, first the
    share of its beginning, then that of the student after step 1, 2, ..., the latest last. They sum to 1."""
    age = torch.arange(steps - 1, -1, -1, dtype=torch.float32)
    return torch.cat([torch.tensor([float(momentum) ** steps]), (1 - momentum) * momentum**age])


def _weights_by_loop(momentum, steps):
    weights = [1.0]
    for _ in range(steps):
        weights = [momentum * w for w in weights] + [1 - momentum]
    return torch.tensor(weights)


def check_teacher_weights(candidate):
    for momentum, steps in ((0.75, 4), (0.9, 1), (0.99, 60), (0.5, 7)):
        right, m = _weights_by_loop(momentum, steps), momentum
        later = right[1:]
        causes = {
            "the momentum is what the teacher KEEPS; this gives it to the student": _weights_by_loop(1 - m, steps),
            "the beginning fades, too: its share is momentum ** steps": torch.cat([torch.ones(1), later]),
            "the share of the beginning is missing: there are steps + 1 entries": later,
            "the latest student stands last, and weighs most": right.flip(0),
            "the latest student stands last: only the first entry is in place": torch.cat([right[:1], later.flip(0)]),
            "the factor 1 - momentum is missing from the students' shares": torch.cat([right[:1], later / (1 - m)]),
            "the latest student has not faded yet: its share is 1 - momentum": torch.cat([right[:1], later * m]),
            "the beginning has no factor 1 - momentum: it was the teacher": torch.cat([right[:1] * (1 - m), later]),
            "this is a plain average; an EMA forgets": torch.full((steps + 1,), 1 / (steps + 1)),
        }
        what = f"teacher_weights({momentum}, {steps})"
        expect_tensor(call(candidate, momentum, steps), right, what, causes=causes, atol=1e-6)


# 6.3


def next_centre(centre, teacher, momentum):
    """The centre after this batch: momentum * centre + (1 - momentum) * mean of the teacher's raw scores. centre (K,),
    teacher (T, B, K) -> (K,), no gradient; the old centre is left as it is."""
    return momentum * centre + (1 - momentum) * teacher.detach().mean((0, 1))


def check_next_centre(candidate):
    for T, B, K, momentum in ((2, 3, 5, 0.9), (2, 4, 4, 0.5), (3, 2, 6, 0.99)):
        centre, teacher = seeded(K, seed=K), seeded(T, B, K, seed=B, scale=2.0) + seeded(K, seed=9)
        mean = torch.stack([teacher[a, b] for a in range(T) for b in range(B)]).sum(0) / (T * B)
        m = momentum
        causes = {
            "the momentum is the share of the OLD centre": (1 - m) * centre + m * mean,
            "the mean is of raw scores, not of probabilities": m * centre + (1 - m) * teacher.softmax(-1).mean((0, 1)),
            "the scores were centred before their mean was taken; it is of the raw ones": m * centre
            + (1 - m) * (mean - centre),
            "only the first view went in; the mean runs over all views": m * centre + (1 - m) * teacher[0].mean(0),
            "each view (or picture) got a centre of its own: average over both": lambda got, K=K: (
                got.ndim > 1 and got.shape[-1] == K
            ),
            "this is the sum over the batch, not the mean": m * centre + (1 - m) * mean * B,
            "this is the sum over views; take their mean": m * centre + (1 - m) * mean * T,
            "this is the mean of this batch alone; the centre moves slowly": mean,
            "there is one mean per prototype: do not average over K": m * centre + (1 - m) * teacher.mean(),
            "the centre did not move": centre,
        }
        what = f"next_centre of {T} views, {B} pictures, {K} prototypes"
        got = call(candidate, centre, teacher, momentum)
        expect_tensor(got, m * centre + (1 - m) * mean, what, causes=causes)
    leaf = seeded(2, 3, 5, seed=1).requires_grad_()
    got = call(candidate, seeded(5, seed=2), leaf, 0.9)
    message = "The centre carries a gradient: nothing is learned through it, and the graphs of all steps would pile up."
    require(not got.requires_grad, message, cause="detach the teacher's scores", hint=3)


# 6.4


def loss_parts(t, s, centre, tau_t, tau_s):
    """The loss for one pair of views and its two parts, each a mean over the batch, in nats: (cross entropy,
    entropy of the target, KL divergence from the target to the student). t, s (B, K) scores, centre (K,).
    Cross entropy = entropy + KL; gradient flows to s only."""
    log_t = ((t.detach() - centre) / tau_t).log_softmax(1)
    log_s = (s / tau_s).log_softmax(1)
    entropy = -(log_t.exp() * log_t).sum(1).mean()
    cross = -(log_t.exp() * log_s).sum(1).mean()
    return cross, entropy, cross - entropy


FIXTURE = (
    torch.tensor([[0.10, 0.02, -0.03], [0.0, 0.06, 0.01]]),
    torch.tensor([[0.12, 0.05, -0.05], [0.02, 0.08, -0.01]]),
    torch.tensor([0.05, 0.04, -0.01]),
    0.04,
    0.1,
)


def _softmax(x):
    """Row by row, without torch's own: (B, K) -> (B, K)."""
    powers = [[math.exp(v - max(row)) for v in row] for row in x.detach().double().tolist()]
    return torch.tensor([[p / sum(row) for p in row] for row in powers], dtype=torch.float64)


def _parts(p, q):
    """(cross entropy, entropy, KL) of targets p and predictions q (B, K), means over the rows."""
    cross, entropy = -(p * q.log()).sum(1).mean().float(), -(p * p.log()).sum(1).mean().float()
    return cross, entropy, cross - entropy


def _wrong_parts(kind):
    def parts(t, s, centre, tau_t, tau_s):
        if kind == "swapped":
            tau_t, tau_s = tau_s, tau_t
        x = {
            "uncentred": t / tau_t,
            "added": (t + centre) / tau_t,
            "late": t / tau_t - centre,
            "student": t / tau_t,
        }.get(kind, (t - centre) / tau_t)
        y = (s - centre if kind == "student" else s) / tau_s
        log_p, log_q = (x if kind == "leak" else x.detach()).log_softmax(1), y.log_softmax(1)
        if kind == "reversed":
            log_p, log_q = log_q, log_p
        cross, entropy = -(log_p.exp() * log_q).sum(1), -(log_p.exp() * log_p).sum(1)
        if kind == "mean over K":
            cross, entropy = cross / t.shape[1], entropy / t.shape[1]
        cross, entropy = (cross.sum(), entropy.sum()) if kind == "sum" else (cross.mean(), entropy.mean())
        if kind == "bits":
            cross, entropy = cross / math.log(2), entropy / math.log(2)
        return cross, entropy, cross - entropy

    return parts


LOSS_CAUSES = {
    "swapped": "the temperatures are swapped: tau_t belongs to the teacher",
    "uncentred": "the centre is not subtracted from the teacher's scores",
    "added": "the centre is added; it is to be subtracted",
    "late": "the centre is subtracted after the division by tau_t; it belongs before",
    "student": "the centre is subtracted from the student's scores; it belongs to the teacher's",
    "reversed": "the roles are reversed: the teacher's distribution is the target, outside the logarithm",
    "mean over K": "this is a mean over the K prototypes; a cross entropy is their sum",
    "sum": "this is the sum over the batch; asked is its mean",
    "bits": "this is in bits; nats use the natural logarithm",
}


def check_loss_parts(candidate):
    larger = (
        seeded(5, 4, seed=1, scale=0.1),
        seeded(5, 4, seed=2, scale=0.15),
        seeded(4, seed=3, scale=0.1),
        0.05,
        0.2,
    )
    for case in (FIXTURE, larger):
        t, s, centre, tau_t, tau_s = case
        right = _parts(_softmax((t - centre) / tau_t), _softmax(s / tau_s))
        got = call(candidate, *case)
        if not isinstance(got, (tuple, list)) or len(got) != 3:
            raise Wrong(f"loss_parts must return (cross entropy, entropy, KL); came {type(got).__name__}.")
        names = ("the cross entropy", "the entropy of the target", "the KL divergence")
        for position, name in enumerate(names):
            causes = {LOSS_CAUSES[kind]: _wrong_parts(kind)(*case)[position] for kind in LOSS_CAUSES}
            causes |= {
                f"this is {names[i]}: the order is cross entropy, entropy, KL": right[i]
                for i in range(3)
                if i != position
            }
            causes["the sign is turned"] = -right[position]
            causes["this is the entropy of the mean target; asked is the mean of the entropies"] = _parts(
                *[_softmax((t - centre) / tau_t).mean(0, keepdim=True)] * 2
            )[0]
            causes["this is the entropy of the student's distribution"] = _parts(*[_softmax(s / tau_s)] * 2)[0]
            expect_tensor(got[position], right[position], name, causes=causes)
    leaves = [x.clone().requires_grad_() for x in FIXTURE[:2]]
    cross = call(candidate, *leaves, *FIXTURE[2:])[0]
    require(cross.requires_grad, "The cross entropy carries no gradient: the student could not learn from it.", hint=3)
    cross.backward()
    message = "Gradient flows into the teacher's scores; the teacher follows by its average alone."
    require(leaves[0].grad is None or not leaves[0].grad.any(), message, cause="detach the teacher's scores", hint=3)
    p, q = _softmax((FIXTURE[0] - FIXTURE[2]) / 0.04), _softmax(FIXTURE[1] / 0.1)
    expect_tensor(leaves[1].grad, ((q - p) / (0.1 * len(p))).float(), "the gradient of the cross entropy for s", hint=3)


# 6.5


def attention_mask(maps, grid, patch, share):
    """What the last layer's [CLS] token looks at, averaged over heads, as a mask: maps (L, H, 1 + N, 1 + N), [CLS]
    first, grid (rows, columns), patch in pixels -> bool (rows * patch, columns * patch), True on the smallest set of
    patches that holds at least `share` of the attention to patches."""
    a = maps[-1, :, 0, 1:].mean(0)
    values, order = a.sort(descending=True)
    before = values.cumsum(0) - values
    keep = torch.zeros_like(a, dtype=torch.bool)
    keep[order[before < share * a.sum()]] = True
    return keep.view(grid).repeat_interleave(patch, 0).repeat_interleave(patch, 1)


def _kept(a, share):
    """bool (N,): patches taken from the largest down until they hold the share, one by one."""
    keep, total = torch.zeros(len(a), dtype=torch.bool), 0.0
    for i in sorted(range(len(a)), key=lambda i: -a[i].item()):
        if total >= share * a.sum().item() - 1e-9:
            break
        keep[i], total = True, total + a[i].item()
    return keep


def _enlarged(keep, grid, patch):
    rows, columns = grid
    return torch.tensor(
        [[bool(keep[(i // patch) * columns + j // patch]) for j in range(columns * patch)] for i in range(rows * patch)]
    )


def _wrong_mask(kind):
    def mask(maps, grid, patch, share):
        layer = maps[0] if kind == "first layer" else maps.mean(0) if kind == "layers" else maps[-1]
        a = layer[:, 1:, 0] if kind == "column" else layer[:, 0, 1:]
        if kind == "rows":
            a = layer[:, 1:, 1:].mean(1)
        heads, a = a, a.mean(0)
        if kind == "first head":
            a = heads[0]
        keep = _kept(a, share)
        if kind == "with cls":
            full = layer[:, 0].mean(0)
            keep = _kept(full, share)[1:]
        if kind == "vote":
            keep = torch.stack([_kept(one, share) for one in heads]).float().mean(0) > 0.5
        if kind == "number":
            keep = a >= a.sort(descending=True).values[max(1, round(share * len(a))) - 1]
        if kind == "maximum":
            keep = a > share * a.max()
        if kind == "smallest":
            keep = _kept(-a + a.max() + a.min(), share)
        if kind == "inverted":
            keep = ~keep
        if kind == "other share":
            keep = _kept(a, 1 - share)
        if kind == "one less":
            keep = keep & (a != a[keep].min())
        if kind == "transposed":
            keep = keep.view(grid[1], grid[0]).T.flatten()
        big = _enlarged(keep, grid, patch)
        return keep.view(grid).repeat(patch, patch) if kind == "tiled" else keep.view(grid) if kind == "small" else big

    return mask


MASK_CAUSES = {
    "first layer": "this is the first layer; the last is maps[-1]",
    "layers": "the layers were averaged; asked is the last one",
    "column": "this is how much the patches look at [CLS], a column; asked is its row",
    "rows": "this is what the patches look at; asked is the row of [CLS]",
    "first head": "this is head 0 alone; average over heads first",
    "with cls": "[CLS]'s look at itself was counted; the share is of the attention to patches",
    "vote": "each head got a mask of its own; average the maps first, then threshold once",
    "number": "this keeps a share of the patches; keep as many as hold that share of the attention",
    "maximum": "this compares with a share of the maximum; sum the largest up instead",
    "smallest": "the smallest values were taken; start from the largest",
    "inverted": "True and False are exchanged",
    "other share": "this is the set that holds 1 - share; start from the largest and stop at the share",
    "one less": "the patch that completes the share is missing",
    "transposed": "the grid is filled row by row: rows first, then columns",
    "tiled": "the map was repeated as a tile; each patch becomes a block of patch x patch pixels",
    "small": "the mask is in patches; asked is one value per pixel",
}


def check_attention_mask(candidate):
    for L, H, grid, patch, share in ((3, 4, (4, 6), 2, 0.6), (2, 3, (2, 4), 3, 0.6), (2, 2, (3, 5), 4, 0.8)):
        N = grid[0] * grid[1]
        maps = (1.5 * seeded(L, H, 1 + N, 1 + N, seed=5)).softmax(-1)  # here every mistake gives a mask of its own
        maps[..., 0, 0] += 0.6
        maps = maps / maps.sum(-1, keepdim=True)
        causes = {sentence: _wrong_mask(kind)(maps, grid, patch, share) for kind, sentence in MASK_CAUSES.items()}
        right = _enlarged(_kept(maps[-1, :, 0, 1:].mean(0), share), grid, patch)
        what = f"attention_mask on a grid of {grid[0]} x {grid[1]}, share {share}"
        expect_tensor(call(candidate, maps, grid, patch, share), right, what, causes=causes)


# 6.6


def report_heads(val, test):
    """What may be reported of H heads whose IoU is known for each val picture (N, H) and test picture (M, H), as a dict
    of floats, all on test: "best", the head that is best on val; "mean", heads on average; "flattered", the number that
    one would get by choosing the head on test."""
    on_test = test.mean(0)
    return {
        "best": on_test[val.mean(0).argmax()].item(),
        "mean": on_test.mean().item(),
        "flattered": on_test.max().item(),
    }


def _wrong_report(kind):
    def report(val, test):
        v, t = val.mean(0), test.mean(0)
        right = {"best": t[v.argmax()].item(), "mean": t.mean().item(), "flattered": t.max().item()}
        return (
            right
            | {
                "on test": {"best": t.max().item()},
                "val value": {"best": v.max().item()},
                "val mean": {"mean": v.mean().item()},
                "per picture": {"flattered": test.max(1).values.mean().item()},
                "per picture best": {"best": test.max(1).values.mean().item()},
                "position": {"best": int(v.argmax())},
                "val flattered": {"flattered": v.max().item()},
                "single picture": {"best": test[:, int(val.max(0).values.argmax())].mean().item()},
            }[kind]
        )

    return report


REPORT_CAUSES = {
    "on test": ("best", "the head was chosen on test; choose it on val"),
    "val value": ("best", "this is its IoU on val; report the same head's IoU on test"),
    "per picture best": ("best", "each picture got a head of its own; one head is chosen for all"),
    "single picture": ("best", "the head was chosen by its best single picture; take its mean over val"),
    "val mean": ("mean", "this is the mean on val; report test"),
    "per picture": ("flattered", "each picture got a head of its own; choose one head by its mean"),
    "val flattered": ("flattered", "this was measured on val; it is the best mean on test"),
}


def check_report_heads(candidate):
    for N, M, H, seed in ((6, 5, 3, 1), (4, 7, 4, 5), (9, 3, 5, 8)):
        val, test = seeded(N, H, seed=seed).sigmoid(), seeded(M, H, seed=seed + 40).sigmoid()
        heads = range(H)
        by_val = max(heads, key=lambda h: sum(val[:, h].tolist()))
        means = [sum(test[:, h].tolist()) / M for h in heads]
        right = {"best": means[by_val], "mean": sum(means) / H, "flattered": max(means)}
        got = call(candidate, val, test)
        if not isinstance(got, dict) or set(got) != set(right):
            came = f"a dict with the keys {list(got)}" if isinstance(got, dict) else type(got).__name__
            raise Wrong(f"report_heads must return a dict with the keys {list(right)}; came {came}.")
        for key, value in right.items():
            causes = {
                text: _wrong_report(kind)(val, test)[key]
                for kind, (where, text) in REPORT_CAUSES.items()
                if where == key
            }
            causes["this is the number of the head; report its IoU on test"] = by_val if key == "best" else "none"
            expect_equal(got[key], value, f'"{key}" of {H} heads', causes=causes)


# 6.7


def distil_once(student, teacher, batches, centring, tau_t, momentum):
    """Experiment: train `student` by SGD (lr 1.0) against `teacher`, its average, on a list of pairs of views (B, D).
    Each step: targets from both views with the centre so far (it begins at 0) and tau_t; the mean of both cross
    comparisons, student's tau 0.1; step; teacher = momentum * teacher + (1 - momentum) * student; if `centring`,
    centre = 0.9 * centre + 0.1 * mean of the teacher's raw scores of this step. Returns a dict of three lists of
    floats, one per step: "loss", "used", the entropy of the mean target, "unsure", the mean entropy of the targets."""
    optimizer, centre = torch.optim.SGD(student.parameters(), lr=1.0), 0.0
    log = {"loss": [], "used": [], "unsure": []}
    entropy = lambda p: -torch.xlogy(p, p).sum(-1)  # noqa: E731
    for views in batches:
        with torch.no_grad():
            scores = [teacher(view) for view in views]
        targets = [((t - centre) / tau_t).softmax(-1) for t in scores]
        predicted = [(student(view) / 0.1).log_softmax(-1) for view in views]
        loss = -sum((targets[a] * predicted[1 - a]).sum(-1).mean() for a in (0, 1)) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for old, new in zip(teacher.parameters(), student.parameters(), strict=True):
                old.copy_(momentum * old + (1 - momentum) * new)
        if centring:
            centre = 0.9 * centre + 0.1 * torch.cat(scores).mean(0)
        both = torch.cat(targets)
        for key, value in (("loss", loss), ("used", entropy(both.mean(0))), ("unsure", entropy(both).mean())):
            log[key].append(value.item())
    return log


class _Prototypes(nn.Module):
    """Cosines with K prototypes of a hidden layer: (B, D) -> (B, K)."""

    def __init__(self, D, K):
        super().__init__()
        self.hidden, self.prototypes = nn.Linear(D, 16), nn.Parameter(torch.empty(K, 8))
        self.out = nn.Linear(16, 8)

    def forward(self, x):
        z = F.normalize(self.out(torch.tanh(self.hidden(x))), dim=1)
        return z @ F.normalize(self.prototypes, dim=1).T


def _toy(steps, seed=6):
    """Two equal networks of 16 prototypes, and `steps` pairs of noisy views of points from eight clusters. The clusters
    lie close together, so that an untrained network tells them hardly apart and a missing centre shows."""
    student = _Prototypes(6, 16)
    for i, parameter in enumerate(student.parameters()):
        parameter.data = seeded(*parameter.shape, seed=seed + i, scale=0.6)
    chance = torch.Generator().manual_seed(seed)
    middles = 0.3 * torch.randn(8, 6, generator=chance)
    batches = []
    for _ in range(steps):
        x = middles[torch.randint(8, (24,), generator=chance)]
        batches.append(tuple(x + 0.05 * torch.randn(24, 6, generator=chance) for _ in range(2)))
    return student, copy.deepcopy(student), batches


def _wrong_distil(kind):
    """The experiment with one mistake in it."""

    def distil(student, teacher, batches, centring, tau_t, momentum):
        rate = 0.1 if kind == "rate" else 1.0
        optimizer, centre = torch.optim.SGD(student.parameters(), lr=rate), 0.0
        log, tau_s = {"loss": [], "used": [], "unsure": []}, 0.1
        if kind == "swapped":
            tau_t, tau_s = tau_s, tau_t
        kept = 1 - momentum if kind == "ema" else momentum
        entropy = lambda p: -torch.xlogy(p, p).sum(-1)  # noqa: E731

        def follow():
            with torch.no_grad():
                for old, new in zip(teacher.parameters(), student.parameters(), strict=True):
                    old.copy_(kept * old + (1 - kept) * new)

        for views in batches:
            with torch.no_grad():
                scores = [teacher(view) for view in views]
                moved = 0.9 * centre + 0.1 * torch.cat(scores).mean(0)
                if kind == "student centre":
                    moved = 0.9 * centre + 0.1 * torch.cat([student(view) for view in views]).mean(0)
                if kind == "new centre":
                    moved = torch.cat(scores).mean(0)
                if kind == "early" and centring:
                    centre = moved
            targets = [((t + centre if kind == "added" else t - centre) / tau_t).softmax(-1) for t in scores]
            predicted = [(student(view) / tau_s).log_softmax(-1) for view in views]
            pairs = (
                ((0, 0), (1, 1)) if kind == "itself" else ((0, 1), (0, 1)) if kind == "one way" else ((0, 1), (1, 0))
            )
            loss = -sum((targets[a] * predicted[b]).sum(-1).mean() for a, b in pairs) / (1 if kind == "sum" else 2)
            optimizer.zero_grad()
            loss.backward()
            if kind == "before":
                follow()
            optimizer.step()
            if kind not in ("before", "frozen"):
                follow()
            if (centring or kind == "always") and kind != "early":
                centre = moved
            both = torch.cat(targets)
            used, unsure = entropy(both.mean(0)), entropy(both).mean()
            used, unsure = (unsure, used) if kind == "exchanged" else (used, unsure)
            for key, value in (("loss", loss), ("used", used), ("unsure", unsure)):
                log[key].append(value.item())
        return log

    return distil


DISTIL_CAUSES = {
    "swapped": "the temperatures are swapped: tau_t belongs to the teacher, 0.1 to the student",
    "added": "the centre is added to the teacher's scores; subtract it",
    "early": "the centre was moved before it was used; this step's loss takes the old one",
    "student centre": "the centre is the mean of the student's scores; it is the teacher's",
    "new centre": "the centre jumps to the mean of each batch; nine tenths of the old one stay",
    "always": "the centre moves although centring is off",
    "ema": "the average runs the wrong way round: momentum is what the teacher keeps",
    "before": "the teacher follows before the student's step; it follows after it",
    "frozen": "the teacher never moves",
    "itself": "each view is compared with itself; the student sees the other one",
    "one way": "one direction is counted twice; the targets of the second view are missing",
    "sum": "this is the sum of both comparisons; the loss is their mean",
    "rate": "the learning rate is not 1.0",
    "exchanged": "the two entropies are exchanged: `used` is the entropy of the mean target",
}


def _first_steps(kind, key, setting):
    return _wrong_distil(kind)(*_toy(4, seed=3), *setting)[key]


def check_distil_once(candidate):
    for centring, tau_t, momentum in ((True, 0.05, 0.8), (False, 0.04, 0.9)):
        setting = (centring, tau_t, momentum)
        ours, theirs = _toy(4, seed=3), _toy(4, seed=3)
        got = call(candidate, *ours, *setting)
        right = distil_once(*theirs, *setting)
        lists = isinstance(got, dict) and set(got) == set(right) and all(isinstance(v, list) for v in got.values())
        if not lists or any(len(got[key]) != 4 for key in right):
            came = (
                {key: type(value).__name__ for key, value in got.items()}
                if isinstance(got, dict)
                else type(got).__name__
            )
            message = 'distil_once must return {"loss", "used", "unsure"}, lists of four numbers each for four steps.'
            raise Wrong(message, details=f"came: {came}")
        for key in right:
            causes = {text: partial(_first_steps, kind, key, setting) for kind, text in DISTIL_CAUSES.items()}
            what = f'"{key}" of the first four steps, centring {centring}, tau_t {tau_t}, momentum {momentum}'
            expect_equal(got[key], right[key], what, atol=2e-4, causes=causes)
        for position, name in enumerate(("student", "teacher")):
            mine, wanted, other = (
                net(ours[2][0][0]).detach() for net in (ours[position], theirs[position], theirs[1 - position])
            )
            causes = {"student and teacher are exchanged: the optimiser trains the student": other}
            expect_tensor(mine, wanted, f"the output of the {name} after four steps", atol=1e-3, causes=causes, hint=3)
    for centring, tau_t, outcome, holds in (
        (True, 0.04, "the mean target has an entropy of about 1, each target of about 0", lambda u, s: u - s > 0.5),
        (False, 0.04, "one prototype wins: both entropies are 0", lambda u, s: u < 0.1),
        (
            True,
            0.3,
            f"the targets are uniform: both entropies are near ln 16 = {math.log(16):.2f}",
            lambda u, s: s > 2.6,
        ),
    ):
        log = call(candidate, *_toy(50), centring, tau_t, 0.9)
        message = f"After 50 steps with centring {centring} and tau_t {tau_t} {outcome}. Came: "
        message += f"used {log['used'][-1]:.2f}, unsure {log['unsure'][-1]:.2f}."
        require(holds(log["used"][-1], log["unsure"][-1]), message, cause="something goes wrong in longer runs", hint=3)


EXERCISES = (
    Exercise(
        id="6.1",
        title="Who is compared with whom?",
        minutes=5,
        difficulty=1,
        contract="`view_pairs(n_local)`: int -> list of (teacher view, student view), sorted, the two global crops being 0 and 1.",
        hints=(
            "Which crops does the teacher see, and which one may the student not be compared with?",
            "teacher view in {0, 1}, student view in {0, ..., 1 + n_local}, and they differ: 2 (2 + n_local) - 2 pairs.",
            "two nested loops, teacher outside; skip equal numbers; collect pairs",
        ),
        solution=view_pairs,
        check=check_view_pairs,
        covers="no, two, four and six local crops",
        wrong=(
            (lambda n_local: [(a, b) for a in range(2) for b in range(2 + n_local)], "not compared with itself"),
            (
                lambda n_local: [(a, b) for a in range(2 + n_local) for b in range(2 + n_local) if a != b],
                "two global crops only",
            ),
            (lambda n_local: [(a, b) for a in range(2) for b in range(2, 2 + n_local)], "global crops count, too"),
            (lambda n_local: sorted((b, a) for a, b in view_pairs(n_local)), "in this order"),
            (lambda n_local: [(a, b) for a, b in view_pairs(n_local) if a < b], "two comparisons"),
            (lambda n_local: [(a + 1, b + 1) for a, b in view_pairs(n_local)], "counted from 0"),
            (lambda n_local: [(a, b) for a in range(2) for b in range(n_local) if a != b], "sees two more"),
            (lambda n_local: view_pairs(n_local)[::-1], "sorted"),
        ),
    ),
    Exercise(
        id="6.2",
        title="How old is the teacher?",
        minutes=10,
        difficulty=2,
        contract="`teacher_weights(momentum, steps)`: -> (steps + 1,) float32, the share of its beginning, then of each student, the latest last.",
        hints=(
            "After one update, what is the teacher made of? And what does the second update do to these shares?",
            "The beginning: momentum ** steps. The student of step i: (1 - momentum) * momentum ** (steps - i).",
            "ages from steps - 1 down to 0; (1 - momentum) times momentum to the age; in front the beginning",
        ),
        solution=teacher_weights,
        check=check_teacher_weights,
        covers="one step and many, four momenta",
        wrong=(
            (lambda momentum, steps: _weights_by_loop(1 - momentum, steps), "teacher KEEPS"),
            (
                lambda momentum, steps: torch.cat([torch.ones(1), _weights_by_loop(momentum, steps)[1:]]),
                "beginning fades",
            ),
            (lambda momentum, steps: _weights_by_loop(momentum, steps)[1:], "beginning is missing"),
            (lambda momentum, steps: _weights_by_loop(momentum, steps).flip(0), "latest student stands last"),
            (
                lambda momentum, steps: (
                    _weights_by_loop(momentum, steps) / torch.tensor([1.0] + [1 - momentum] * steps)
                ),
                "1 - momentum is missing",
            ),
            (
                lambda momentum, steps: _weights_by_loop(momentum, steps) * torch.tensor([1.0] + [momentum] * steps),
                "not faded yet",
            ),
            (lambda momentum, steps: torch.full((steps + 1,), 1 / (steps + 1)), "an EMA forgets"),
        ),
    ),
    Exercise(
        id="6.3",
        title="The centre moves",
        minutes=10,
        difficulty=2,
        contract="`next_centre(centre, teacher, momentum)`: centre (K,), teacher's raw scores (T, B, K) -> (K,), without gradient.",
        hints=(
            "Over which axes is the mean, and what has been done to the scores before?",
            "momentum * centre + (1 - momentum) * mean over views and pictures of the raw scores.",
            "detach; mean over the first two axes; mix with the old centre, most of which stays",
        ),
        solution=next_centre,
        check=check_next_centre,
        covers="three shapes and momenta, gradient, the old centre untouched",
        wrong=(
            (lambda centre, teacher, momentum: next_centre(centre, teacher, 1 - momentum), "share of the OLD"),
            (lambda centre, teacher, momentum: next_centre(centre, teacher.softmax(-1), momentum), "raw scores"),
            (lambda centre, teacher, momentum: next_centre(centre, teacher - centre, momentum), "centred before"),
            (lambda centre, teacher, momentum: next_centre(centre, teacher[:1], momentum), "only the first view"),
            (
                lambda centre, teacher, momentum: momentum * centre + (1 - momentum) * teacher.mean(0),
                "centre of its own",
            ),
            (
                lambda centre, teacher, momentum: momentum * centre + (1 - momentum) * teacher.mean(0).sum(0),
                "sum over the batch",
            ),
            (lambda centre, teacher, momentum: teacher.mean((0, 1)), "moves slowly"),
            (
                lambda centre, teacher, momentum: momentum * centre + (1 - momentum) * teacher.mean(),
                "one mean per prototype",
            ),
            (
                lambda centre, teacher, momentum: momentum * centre + (1 - momentum) * teacher.mean((0, 1)),
                "carries a gradient",
            ),
            (lambda centre, teacher, momentum: centre.clone(), "did not move"),
        ),
    ),
    Exercise(
        id="6.4",
        title="The loss, taken apart",
        minutes=20,
        difficulty=3,
        contract="`loss_parts(t, s, centre, tau_t, tau_s)`: scores (B, K) twice, centre (K,) -> (cross entropy, entropy of the target, KL), three scalars in nats.",
        hints=(
            "Which of the two distributions is the target, and what happens to its scores before the softmax?",
            "H(P_t, P_s) = h(P_t) + KL(P_t, P_s), with P_t = softmax((t - c) / tau_t) and P_s = softmax(s / tau_s).",
            "two log-softmaxes, the teacher's detached and centred; minus the sum over K of target times each; mean over the batch; the KL is the difference",
        ),
        solution=loss_parts,
        check=check_loss_parts,
        covers="the values of two cases, gradient to the student alone",
        wrong=(
            (_wrong_parts("swapped"), "temperatures are swapped"),
            (_wrong_parts("uncentred"), "not subtracted"),
            (_wrong_parts("added"), "centre is added"),
            (_wrong_parts("late"), "after the division"),
            (_wrong_parts("student"), "belongs to the teacher's"),
            (_wrong_parts("reversed"), "roles are reversed"),
            (_wrong_parts("mean over K"), "their sum"),
            (_wrong_parts("sum"), "asked is its mean"),
            (_wrong_parts("bits"), "in bits"),
            (_wrong_parts("leak"), "into the teacher"),
            (lambda t, s, centre, tau_t, tau_s: loss_parts(t, s, centre, tau_t, tau_s)[::-1], "the order is"),
            (lambda t, s, centre, tau_t, tau_s: loss_parts(t, s.detach(), centre, tau_t, tau_s), "no gradient"),
        ),
    ),
    Exercise(
        id="6.5",
        title="From attention to a mask",
        minutes=20,
        difficulty=3,
        contract="`attention_mask(maps, grid, patch, share)`: (L, H, 1 + N, 1 + N), [CLS] first -> bool (rows * patch, columns * patch), the smallest set of patches that holds the share.",
        hints=(
            "Which layer, which row and which columns of the maps do I need, and when do I average over heads?",
            "a = maps[-1, :, 0, 1:], averaged to (N,). Going down from the largest, keep patches until they hold share * a.sum().",
            "sort descending; a patch stays if the sum BEFORE it is below the share; put True back at its place; view as the grid; repeat each entry patch times both ways",
        ),
        solution=attention_mask,
        check=check_attention_mask,
        covers="oblong grids, several layers and heads, a [CLS] that looks at itself",
        wrong=tuple((_wrong_mask(kind), text.split(";")[0].split(":")[0]) for kind, text in MASK_CAUSES.items()),
    ),
    Exercise(
        id="6.6",
        title="The best head, honestly",
        minutes=10,
        difficulty=2,
        contract='`report_heads(val, test)`: IoU (N, H) and (M, H) -> {"best", "mean", "flattered"}, floats on test.',
        hints=(
            "Which pictures may decide which head I report?",
            "best: test.mean(0) at the argmax of val.mean(0); mean: of test; flattered: the maximum of test.mean(0).",
            "mean over pictures for both; argmax of the first; look up in the second; item()",
        ),
        solution=report_heads,
        check=check_report_heads,
        covers="three to five heads, val and test that disagree",
        wrong=tuple(
            (_wrong_report(kind), text.split(";")[0].split(":")[0]) for kind, (_, text) in REPORT_CAUSES.items()
        )
        + ((_wrong_report("position"), "number of the head"),),
    ),
    Exercise(
        id="6.7",
        title="Experiment: collapse on purpose",
        minutes=30,
        difficulty=4,
        contract='`distil_once(student, teacher, batches, centring, tau_t, momentum)`: two networks, a list of pairs of views -> {"loss", "used", "unsure"}, lists of floats, one per step.',
        hints=(
            "In which order do target, loss, step, average and centre come, and which centre does the loss see?",
            "loss = (H(P_t(a), P_s(b)) + H(P_t(b), P_s(a))) / 2 with the old centre; SGD step; teacher; then the centre from the scores of this step.",
            "no_grad: scores of both views; softmax((scores - centre) / tau_t); student's log softmax at 0.1; cross over; backward, step; mix the parameters in place under no_grad; move the centre; note the three numbers",
        ),
        solution=distil_once,
        check=check_distil_once,
        covers="four steps number by number, then a healthy run and both collapses over 50",
        seconds=20.0,
        wrong=tuple((_wrong_distil(kind), text.split(";")[0].split(":")[0]) for kind, text in DISTIL_CAUSES.items())
        + ((lambda student, teacher, *rest: distil_once(teacher, student, *rest), "are exchanged"),),
    ),
    Exercise(
        id="6.8",
        title="Your own cue",
        minutes=60,
        difficulty=5,
        open=True,
        contract="Make DINO learn the shape: a world and crops in which colour does not help; measure shape by neighbours against an untrained ViT, with three seeds.",
        hints=(
            "Which cue is the cheapest that is left when colour is gone: pattern, brightness, place?",
            "Watch both entropies: without any cue that survives the crops the targets become uniform.",
            "Begin with one colour and plain objects, crops that keep most of the object, and no local crops.",
        ),
        self_check=(
            "Did you write down beforehand which cue would be learned instead?",
            "Is the untrained ViT's shape accuracy subtracted, and the spread over three seeds shown?",
            "Did the runs stay clear of both collapses?",
            "Does a ViT with shape labels learn it at all in as many steps?",
        ),
    ),
)

"""Lesson 03, MAE: seven exercises and an open one."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from ..nets.vit import Encoder
from .engine import Exercise, Wrong
from .expect import call, describe, expect_close_grad, expect_equal, expect_tensor, require, seeded

# 3.1


def visible_count(n, ratio):
    """How many of n patches stay visible when the share `ratio` is hidden, rounded down (int); ValueError for a ratio
    outside [0, 1) and where no patch would be left."""
    count = int(n * (1 - ratio))
    if not 0 <= ratio < 1 or count < 1:
        raise ValueError(f"a ratio of {ratio} leaves none of {n} patches")
    return count


def check_visible_count(candidate):
    for n, ratio, want in (
        (64, 0.75, 16),
        (64, 0.6, 25),
        (196, 0.75, 49),
        (36, 0.7, 10),
        (64, 0.9, 6),
        (4, 0.75, 1),
        (16, 0.0, 16),
    ):
        causes = {
            "this is the number of hidden patches": int(n * ratio),
            "`/` or a product gives a float; a number of patches is an int": lambda got: isinstance(got, float),
            "the number is rounded down, as int() does": lambda got, n=n, r=ratio: (
                type(got) is int and got in (round(n * (1 - r)), math.ceil(n * (1 - r)))
            ),
        }
        expect_equal(call(candidate, n, ratio), want, f"visible_count({n}, {ratio})", causes=causes)
    for n, ratio, why in (
        (64, 1.0, "hiding all leaves nothing to see"),
        (16, -0.25, "a share lies between 0 and 1"),
        (4, 0.9, "less than one patch would be left"),
    ):
        try:
            got = call(candidate, n, ratio)
        except ValueError:
            continue
        raise Wrong(f"visible_count({n}, {ratio}) must raise ValueError, but returned {got!r}.", cause=why, hint=3)


# 3.2


def mask_with_class(x, noise, ratio):
    """Hide patches, never [CLS]: x (B, 1 + N, D) with [CLS] in front, noise (B, N). The patches with the lowest noise
    stay: (visible (B, 1 + K, D), [CLS] first, then patches in the order of the noise; hidden (B, N) bool; restore
    (B, N) int64, the place of each patch in [kept, hidden], [CLS] not counted), K = int(N (1 - ratio))."""
    first, patches = x[:, :1], x[:, 1:]
    keep = int(patches.shape[1] * (1 - ratio))
    order = noise.argsort(dim=1)
    restore = order.argsort(dim=1)
    visible = patches.gather(1, order[:, :keep, None].expand(-1, -1, x.shape[2]))
    return torch.cat([first, visible], dim=1), restore >= keep, restore


def _mask_loops(x, noise, ratio):
    B, N, keep = len(x), noise.shape[1], int(noise.shape[1] * (1 - ratio))
    visible, hidden, restore = [], torch.ones(B, N, dtype=torch.bool), torch.zeros(B, N, dtype=torch.int64)
    for b in range(B):
        ranked = sorted(range(N), key=lambda n, b=b: noise[b, n].item())
        visible.append(torch.stack([x[b, 0], *(x[b, 1 + n] for n in ranked[:keep])]))
        for place, n in enumerate(ranked):
            restore[b, n], hidden[b, n] = place, place >= keep
    return torch.stack(visible), hidden, restore


def _mask_with(kind):
    """Masking with one mistake."""

    def mask_with_class_wrong(x, noise, ratio):
        N = noise.shape[1]
        if kind in ("one mask", "highest"):
            noise = noise[:1].expand_as(noise) if kind == "one mask" else -noise
        keep = int({"count": N * ratio, "counted": (N + 1) * (1 - ratio)}.get(kind, N * (1 - ratio)))
        order = noise.argsort(1)
        restore = order.argsort(1)
        hidden = (torch.arange(N) >= keep).expand_as(noise).clone() if kind == "shuffled mask" else restore >= keep
        kept = order[:, :keep].sort(1).values if kind == "sorted" else order[:, :keep]
        visible = x[:, kind != "off by one" :].gather(1, kept[..., None].expand(-1, -1, x.shape[2]))
        if kind != "no class":
            visible = torch.cat([visible, x[:, :1]] if kind == "last" else [x[:, :1], visible], dim=1)
        visible = visible.detach() if kind == "detached" else visible
        return visible, ~hidden if kind == "inverted" else hidden, order if kind == "restore" else restore

    return mask_with_class_wrong


MASK_MISTAKES = {
    "the mask is inverted: True means hidden": "inverted",
    "the patches with the lowest noise stay; here those with the highest did": "highest",
    "restore is the order itself; it must undo the order, so take argsort once more": "restore",
    "the mask is still in the order of the noise; each entry belongs at the place of its patch": "shuffled mask",
    "every picture has its own noise, so its own mask": "one mask",
    "the visible patches stand in the order of the picture; restore expects the order of the noise": "sorted",
    "N times ratio is the number of hidden patches": "count",
    "[CLS] is missing: it is never hidden, and stands in front": "no class",
    "[CLS] belongs in front, not at the end": "last",
    "patch n is row 1 + n of x; take [CLS] off before the patches are chosen": "off by one",
    "[CLS] was counted among the patches; K comes from N": "counted",
}


def _equal(a, b):
    return a.shape == b.shape and torch.equal(a, b)


def check_mask_with_class(candidate):
    toy = torch.tensor([[0.7, 0.1, 0.9, 0.3], [0.2, 0.8, 0.6, 0.4]])
    cases = [("four patches at ratio 0.5", seeded(2, 5, 3, seed=1), toy, 0.5)]
    for B, N, D, ratio in ((3, 16, 5, 0.75), (2, 9, 4, 0.6), (4, 7, 2, 0.3)):
        noise = torch.rand(B, N, generator=torch.Generator().manual_seed(N))
        cases.append((f"{N} patches at ratio {ratio}", seeded(B, 1 + N, D, seed=N), noise, ratio))
    for name, x, noise, ratio in cases:
        want = _mask_loops(x, noise, ratio)
        got = call(candidate, x, noise, ratio)
        three = isinstance(got, (tuple, list)) and len(got) == 3
        require(three, "mask_with_class must return three things: visible, hidden, restore.")
        others = {text: _mask_with(kind)(x, noise, ratio) for text, kind in MASK_MISTAKES.items()}
        for i, part in enumerate(("visible", "hidden", "restore")):
            causes = {text: other[i] for text, other in others.items() if not _equal(other[i], want[i])}
            causes["[CLS] is not counted in hidden and restore: they have N columns, beginning with 0"] = (
                lambda got, i=i, want=want: (
                    i and (got.shape[1] == want[i].shape[1] + 1 or torch.equal(got, want[i] + 1))
                )
            )
            expect_tensor(got[i], want[i], f"`{part}` of {name}", causes=causes)
    _, x, noise, ratio = cases[1]
    expect_close_grad(
        lambda t: call(candidate, t, noise, ratio)[0],
        lambda t: mask_with_class(t, noise, ratio)[0],
        x,
        what="visible",
    )


# 3.3


def fill_gaps(visible, mask_token, keep, n):
    """The decoder's sequence from the numbers of the kept patches alone: row j of visible (B, K, D) is patch
    keep[:, j], keep (B, K) int64; the mask_token (D,) stands at all other of the n places -> (B, n, D)."""
    B, K, D = visible.shape
    return mask_token.expand(B, n, D).scatter(1, keep[..., None].expand(-1, -1, D), visible)


def _fill_gaps_loops(visible, mask_token, keep, n):
    rows = []
    for b in range(len(visible)):
        found = {place: visible[b, j] for j, place in enumerate(keep[b].tolist())}
        rows.append(torch.stack([found.get(place, mask_token) for place in range(n)]))
    return torch.stack(rows)


def _fill_with(kind):
    def fill_gaps_wrong(visible, mask_token, keep, n):
        B, K, D = visible.shape
        if kind == "front":
            return torch.cat([visible, mask_token.expand(B, n - K, D)], dim=1)
        index = keep[:1].expand_as(keep) if kind == "one" else keep.sort(1).values if kind == "sorted" else keep
        start = (mask_token * (kind != "zeros")).expand(B, n, D)
        index = (index + 1) % n if kind == "off by one" else index
        result = start.scatter(1, index[..., None].expand(-1, -1, D), visible)
        return mask_token.expand(B, n, D) + result if kind == "added" else result

    return fill_gaps_wrong


FILL_MISTAKES = {
    "nothing was moved: the visible patches still stand in front": "front",
    "the gaps are filled with zeros; they get the mask token, which is learned": "zeros",
    "every picture has its own keep": "one",
    "keep was sorted, but visible was not: row j belongs to patch keep[:, j]": "sorted",
    "the mask token was added to the visible patches, too": "added",
    "all patches stand one place too far: keep counts from 0, and there is no [CLS]": "off by one",
}


def check_fill_gaps(candidate):
    for B, n, D, K in ((1, 4, 3, 2), (3, 16, 5, 4), (2, 9, 4, 6)):
        keep = torch.rand(B, n, generator=torch.Generator().manual_seed(n)).argsort(1)[:, :K]
        keep[:, :2] = keep[:, :2].sort(1, descending=True).values  # never sorted already
        visible, token = seeded(B, K, D, seed=n + 1), seeded(D, seed=n + 2)
        want = _fill_gaps_loops(visible, token, keep, n)
        causes = {
            text: other
            for text, kind in FILL_MISTAKES.items()
            if not torch.equal(other := _fill_with(kind)(visible, token, keep, n), want)
        }
        expect_tensor(call(candidate, visible, token, keep, n), want, f"the sequence of {n} places", causes=causes)
        expect_close_grad(
            lambda v, t, keep=keep, n=n: call(candidate, v, t, keep, n),
            lambda v, t, keep=keep, n=n: _fill_gaps_loops(v, t, keep, n),
            visible,
            token,
            what="the decoder's sequence",
        )


# 3.4


def paste(prediction, patches, hidden, eps=1e-6):
    """What to show of an MAE with normalised targets: the visible patches as they are, and for each hidden one the
    prediction times the root of (its unbiased variance + eps), plus its mean. (B, N, numbers) each, hidden bool
    (B, N)."""
    mean, variance = patches.mean(-1, keepdim=True), patches.var(-1, keepdim=True)
    painted = prediction * (variance + eps).sqrt() + mean
    return torch.where(hidden[..., None], painted, patches)


def _paste_loops(prediction, patches, hidden, eps=1e-6):
    result = patches.clone()
    for b, n in hidden.nonzero().tolist():
        mean = patches[b, n].sum() / patches.shape[2]
        variance = (patches[b, n] - mean).square().sum() / (patches.shape[2] - 1)
        result[b, n] = prediction[b, n] * (variance + eps).sqrt() + mean
    return result


def _paste_with(kind):
    def paste_wrong(prediction, patches, hidden, eps=1e-6):
        dim = (1, 2) if kind == "picture" else -1
        mean = patches.mean(dim, keepdim=True)
        variance = patches.var(dim, keepdim=True, unbiased=kind != "biased")
        scale = {"variance": variance + eps, "outside": variance.sqrt() + eps, "no eps": (variance + 1e-6).sqrt()}
        scale = scale.get(kind, (variance + eps).sqrt())
        painted = {
            "raw": prediction,
            "again": (prediction - mean) / scale,
            "no mean": prediction * scale,
        }.get(kind, prediction * scale + mean)
        if kind == "everything":
            return painted
        return torch.where((~hidden if kind == "inverted" else hidden)[..., None], painted, patches)

    return paste_wrong


PASTE_MISTAKES = {
    "the visible patches were painted over: they are known, so show them as they are": "everything",
    "True means hidden: here the visible patches were painted and the hidden ones shown": "inverted",
    "the prediction is still normalised: multiply by the deviation of its patch and add its mean": "raw",
    "this normalises once more; the way back multiplies, then adds": "again",
    "the mean of each patch is missing": "no mean",
    "multiplied by the variance; it is its root": "variance",
    "the statistics are those of the whole picture; each patch has its own": "picture",
    "the variance is biased: divide by the number of values minus one, as torch's var does": "biased",
    "eps stands outside the root; it belongs under it": "outside",
    "the eps that is handed in is not used": "no eps",
}


def check_paste(candidate):
    for seed, shape, eps in ((1, (2, 4, 12), 0.2), (2, (3, 5, 8), 0.05)):
        patches = 0.3 + seeded(*shape, seed=seed) * torch.linspace(0.2, 2, shape[1])[:, None]
        prediction = seeded(*shape, seed=seed + 5)
        hidden = torch.arange(shape[0] * shape[1]).reshape(shape[:2]) % 3 != seed % 3
        want = _paste_loops(prediction, patches, hidden, eps)
        causes = {text: _paste_with(kind)(prediction, patches, hidden, eps) for text, kind in PASTE_MISTAKES.items()}
        causes["mean and deviation are those of the prediction; they come from the true patch"] = _paste_loops(
            prediction, prediction, hidden, eps
        ).where(hidden[..., None], patches)
        got = call(candidate, prediction, patches, hidden, eps)
        expect_tensor(got, want, f"paste with eps {eps}", causes=causes)
    hidden = torch.tensor([[True, False, True]])
    expect_close_grad(
        lambda p, x: call(candidate, p, x, hidden),
        lambda p, x: _paste_loops(p, x, hidden),
        seeded(1, 3, 6, seed=3),
        seeded(1, 3, 6, seed=4),
        what="paste",
    )


# 3.5


def sincos_2d(width, rows, columns):
    """Fixed positions (rows * columns, width), patches row by row. Four quarters of the width: sin and cos of
    column * f, then sin and cos of row * f, with the frequencies f_i = 10000 ** (-i / (width / 4)), i = 0, 1, ...;
    ValueError unless 4 divides width."""
    if width % 4:
        raise ValueError(f"4 does not divide {width}")
    f = 10_000.0 ** (-torch.arange(width // 4) / (width // 4))
    row = torch.arange(rows).repeat_interleave(columns)[:, None] * f
    column = torch.arange(columns).repeat(rows)[:, None] * f
    return torch.cat([column.sin(), column.cos(), row.sin(), row.cos()], dim=1)


def _sincos_loops(width, rows, columns):
    quarter = width // 4
    table = []
    for r in range(rows):
        for c in range(columns):
            f = [10_000 ** (-i / quarter) for i in range(quarter)]
            line = [math.sin(c * x) for x in f] + [math.cos(c * x) for x in f]
            table.append(line + [math.sin(r * x) for x in f] + [math.cos(r * x) for x in f])
    return torch.tensor(table)


def _sincos_with(kind):
    def sincos_2d_wrong(width, rows, columns):
        if kind == "turned":
            return sincos_2d(width, columns, rows)
        n = width // 4
        power = {"half": torch.arange(n) / (2 * n), "ends": torch.arange(n) / max(n - 1, 1)}.get(
            kind, torch.arange(n) / n
        )
        f = (1_000.0 if kind == "base" else 10_000.0) ** (power if kind == "growing" else -power)
        row = torch.arange(rows).repeat_interleave(columns)[:, None] * f
        column = torch.arange(columns).repeat(rows)[:, None] * f
        if kind == "by column":
            row = torch.arange(rows).repeat(columns)[:, None] * f
            column = torch.arange(columns).repeat_interleave(rows)[:, None] * f
        if kind == "one number":
            place = torch.arange(rows * columns)[:, None] * f
            row = column = place
        parts = [column.sin(), column.cos(), row.sin(), row.cos()]
        if kind == "swapped":
            parts = parts[2:] + parts[:2]
        if kind == "sorted":
            parts = [parts[i] for i in (0, 2, 1, 3)]
        if kind == "interleaved":
            return torch.cat([torch.stack(parts[i : i + 2], dim=2).flatten(1) for i in (0, 2)], dim=1)
        return torch.cat(parts, dim=1)

    return sincos_2d_wrong


SINCOS_MISTAKES = {
    "rows and columns are exchanged: the first half tells the column": "swapped",
    "the frequencies grow; the exponent is negative": "growing",
    "i is divided by width / 4, the number of frequencies": "half",
    "the last frequency is not 1 / 10000: i / (width / 4) stays below 1": "ends",
    "the base is 10000": "base",
    "sin and cos alternate here; the four quarters stand one after the other": "interleaved",
    "the order is sin, cos of the column, then sin, cos of the row": "sorted",
    "the grid has `rows` rows of `columns` patches; here it is the other way round": "turned",
    "this numbers the patches in one row; each has a row and a column": "one number",
    "the patches come row by row; this lists them column by column": "by column",
}


def check_sincos_2d(candidate):
    for width, rows, columns in ((8, 2, 3), (16, 4, 4), (12, 3, 5)):
        want = _sincos_loops(width, rows, columns)
        causes = {
            text: other
            for text, kind in SINCOS_MISTAKES.items()
            if not torch.allclose(other := _sincos_with(kind)(width, rows, columns), want)
        }
        expect_tensor(
            call(candidate, width, rows, columns), want, f"sincos_2d({width}, {rows}, {columns})", causes=causes
        )
    for width in (6, 10):
        try:
            got = call(candidate, width, 2, 2)
        except ValueError:
            continue
        came = f"a tensor of shape {tuple(got.shape)}" if isinstance(got, torch.Tensor) else repr(got)
        raise Wrong(
            f"sincos_2d({width}, 2, 2) must raise ValueError, but returned {came}.",
            cause="4 must divide the width",
            hint=3,
        )


def _sincos_any_width(width, rows, columns):
    return sincos_2d(width - width % 4, rows, columns)


# 3.6


def mae_cost(n, ratio, width, depth, decoder_width, decoder_depth):
    """Multiply-adds of the transformer blocks of an MAE for one picture of n patches without [CLS], as the pair of ints
    (encoder, decoder). The encoder reads int(n (1 - ratio)) tokens, the decoder all n; a block on N tokens of width D
    costs 12 N D^2 for its matrices and 2 N^2 D for attention."""

    def blocks(N, D, depth):
        return depth * (12 * N * D**2 + 2 * N**2 * D)

    return blocks(int(n * (1 - ratio)), width, depth), blocks(n, decoder_width, decoder_depth)


def _counted(N, D, depth):
    """The same from the network itself: its matrices, each applied to N tokens, and N x N scores used twice."""
    with torch.device("meta"):
        layers = Encoder(D, depth, 1).modules()
    matrices = sum(layer.in_features * layer.out_features for layer in layers if isinstance(layer, nn.Linear))
    return N * matrices + depth * 2 * N * N * D


def _cost_with(block, seen=lambda n, r: int(n * (1 - r)), decoded=lambda n, r: n, finish=lambda e, d: (e, d)):
    def mae_cost_wrong(n, ratio, width, depth, decoder_width, decoder_depth):
        encoder = block(seen(n, ratio), width, depth)
        return finish(encoder, block(decoded(n, ratio), decoder_width, decoder_depth))

    return mae_cost_wrong


def _right_block(N, D, depth):
    return depth * (12 * N * D**2 + 2 * N**2 * D)


COST_MISTAKES = {
    "the encoder reads the visible patches only": _cost_with(_right_block, seen=lambda n, r: n),
    "these are the hidden patches; the encoder reads the visible ones": _cost_with(
        _right_block, seen=lambda n, r: int(n * r)
    ),
    "the decoder reads all n places, mask tokens included": _cost_with(
        _right_block, decoded=lambda n, r: int(n * (1 - r))
    ),
    "attention is missing: 2 N^2 D": _cost_with(lambda N, D, L: L * 12 * N * D**2),
    "attention has two products of N x N x D, q with k and the weights with v": _cost_with(
        lambda N, D, L: L * (12 * N * D**2 + N**2 * D)
    ),
    "one block is counted; there are depth of them": _cost_with(lambda N, D, L: _right_block(N, D, 1)),
    "multiplications and additions were counted apart; a multiply-add is one": _cost_with(
        lambda N, D, L: 2 * _right_block(N, D, L)
    ),
    "the matrices: 4 D^2 for attention and 8 D^2 for the MLP": _cost_with(
        lambda N, D, L: L * (8 * N * D**2 + 2 * N**2 * D)
    ),
    "the order is (encoder, decoder)": _cost_with(_right_block, finish=lambda e, d: (d, e)),
}


def check_mae_cost(candidate):
    for n, ratio, width, depth, decoder_width, decoder_depth in (
        (64, 0.75, 24, 3, 16, 2),
        (36, 0.6, 16, 2, 8, 1),
        (16, 0.0, 8, 4, 12, 3),
    ):
        sizes = (n, ratio, width, depth, decoder_width, decoder_depth)
        want = (_counted(int(n * (1 - ratio)), width, depth), _counted(n, decoder_width, decoder_depth))
        causes = {text: other for text, way in COST_MISTAKES.items() if (other := way(*sizes)) != want}
        causes["the decoder has a depth of its own"] = (want[0], _counted(n, decoder_width, depth))
        causes["the decoder has a width of its own"] = (want[0], _counted(n, width, decoder_depth))
        expect_equal(call(candidate, *sizes), want, f"mae_cost{sizes}", causes=causes)


# 3.7


def neighbours_tell(maps, ratio, seed=0):
    """Experiment: which share of the variance of hidden places do their visible neighbours explain? maps (B, H, W).
    Hide each place with probability `ratio`. Predict a hidden place as the mean of the visible ones among its eight
    neighbours, or of all visible places where there is none. -> 1 - squared error / squared distance from that overall
    mean, both summed over the hidden places (float)"""
    hidden = torch.rand(maps.shape, generator=torch.Generator().manual_seed(seed)) < ratio
    visible = (~hidden).float()
    around = torch.ones(1, 1, 3, 3)
    around[..., 1, 1] = 0
    total = F.conv2d((maps * visible)[:, None], around, padding=1)[:, 0]
    count = F.conv2d(visible[:, None], around, padding=1)[:, 0]
    overall = maps[~hidden].mean()
    guess = torch.where(count > 0, total / count.clamp(min=1), overall)
    error, spread = (maps - guess)[hidden].square().sum(), (maps - overall)[hidden].square().sum()
    return (1 - error / spread).item()


def _tell_with(kind):
    """The experiment with one mistake."""

    def neighbours_tell_wrong(maps, ratio, seed=0):
        share = 1 - ratio if kind == "ratio" else ratio
        hidden = torch.rand(maps.shape, generator=torch.Generator().manual_seed(seed)) < share
        visible = torch.ones_like(maps) if kind == "all known" else (~hidden).float()
        around = torch.ones(1, 1, 3, 3)
        if kind != "itself":
            around[..., 1, 1] = 0
        if kind == "four":
            around = torch.tensor([[[[0.0, 1, 0], [1, 0, 1], [0, 1, 0]]]])
        known = torch.ones_like(maps) if kind == "itself" else visible
        total = F.conv2d((maps * known)[:, None], around, padding=1)[:, 0]
        count = F.conv2d(known[:, None], around, padding=1)[:, 0]
        overall = maps[~hidden].mean()
        guess = total / 8 if kind == "eight" else torch.where(count > 0, total / count.clamp(min=1), overall)
        error, spread = (maps - guess)[hidden].square().sum(), (maps - overall)[hidden].square().sum()
        if kind == "error":
            return (error / hidden.sum()).item()
        return (error / spread if kind == "rest" else 1 - error / spread).item()

    return neighbours_tell_wrong


TELL_MISTAKES = {
    "this is the share that is left; the share explained is 1 minus it": "rest",
    "a hidden place was among its own neighbours: leave the middle out, and all that is hidden": "itself",
    "hidden neighbours were used, too": "all known",
    "hidden neighbours count as zeros in the mean; divide by the number of visible ones": "eight",
    "the share was hidden the wrong way round: a place is hidden with probability `ratio`": "ratio",
    "four neighbours; with the diagonals there are eight": "four",
    "this is the error itself; divide by the squared distance from the overall mean": "error",
}


def _smooth(seed):
    """Maps (100, 16, 16) with neighbours that are alike, around a mean that is not zero."""
    noise = seeded(100, 1, 24, 24, seed=seed)
    smooth = F.avg_pool2d(F.avg_pool2d(noise, 5, 1), 5, 1)[:, 0]
    return 1.5 + 2 * smooth / smooth.std()


def check_neighbours_tell(candidate):
    cases = {"smooth maps": _smooth(1), "maps of noise": 1.5 + 2 * seeded(100, 16, 16, seed=2)}
    for name, maps in cases.items():
        for ratio in (0.2, 0.75):
            want = sum(neighbours_tell(maps, ratio, seed) for seed in (11, 12, 13)) / 3
            got = call(candidate, maps, ratio)
            require(
                isinstance(got, (int, float)) and not isinstance(got, bool) and math.isfinite(got),
                f"neighbours_tell must return a finite number (a float), but came {describe(got)}.",
            )
            if abs(got - want) <= 0.02:
                continue
            others = {text: _tell_with(kind)(maps, ratio, 11) for text, kind in TELL_MISTAKES.items()}
            near = {text: abs(got - other) for text, other in others.items() if abs(got - other) < 0.02}
            message = f"{name}, ratio {ratio}: expected about {want:.2f} (three other seeds), came {got:.2f}."
            raise Wrong(message, cause=min(near, key=near.get) if near else "", hint=3)


def _phrases(mistakes, make):
    """Wrong answers with the beginning of the sentence that explains each."""
    return tuple((make(kind), text.split(";")[0].split(":")[0]) for text, kind in mistakes.items())


EXERCISES = (
    Exercise(
        id="3.1",
        title="How much is left?",
        minutes=5,
        difficulty=1,
        contract="`visible_count(n, ratio)`: number of patches (int), share hidden (float) -> number that stays (int); ValueError where none would.",
        hints=(
            "What share stays when `ratio` is hidden, and what if that is no whole number?",
            "K = n (1 - ratio), rounded down.",
            "compute n times (1 - ratio), cut off what follows the point; raise ValueError unless 0 <= ratio < 1 and K >= 1",
        ),
        solution=visible_count,
        check=check_visible_count,
        covers="six ratios, and three that must be refused",
        wrong=(
            (lambda n, ratio: int(n * ratio), "number of hidden patches"),
            (lambda n, ratio: n * (1 - ratio), "gives a float"),
            (lambda n, ratio: round(n * (1 - ratio)), "rounded down"),
            (lambda n, ratio: math.ceil(n * (1 - ratio)), "rounded down"),
            (lambda n, ratio: n - int(n * ratio), "rounded down"),
            (lambda n, ratio: int(n * (1 - ratio)), "must raise ValueError"),
            (lambda n, ratio: max(1, int(n * (1 - ratio))), "must raise ValueError"),
        ),
    ),
    Exercise(
        id="3.2",
        title="Masking beside [CLS]",
        minutes=20,
        difficulty=3,
        contract="`mask_with_class(x, noise, ratio)`: x (B, 1 + N, D), noise (B, N) -> visible (B, 1 + K, D), hidden bool (B, N), restore int64 (B, N).",
        hints=(
            "Which row of x is patch 0, and may the noise ever decide about [CLS]?",
            "order = argsort(noise); restore = argsort(order), the inverse permutation; patch n is hidden when restore[n] >= K.",
            "split [CLS] off; order the patches by noise; gather the first K along dim 1; put [CLS] in front; argsort the order; compare it with K",
        ),
        solution=mask_with_class,
        check=check_mask_with_class,
        covers="four shapes and ratios, [CLS] in its place, gradients",
        wrong=(*_phrases(MASK_MISTAKES, _mask_with), (_mask_with("detached"), "gradient")),
    ),
    Exercise(
        id="3.3",
        title="Fill the gaps",
        minutes=15,
        difficulty=3,
        contract="`fill_gaps(visible, mask_token, keep, n)`: (B, K, D), (D,), int64 (B, K), int -> (B, n, D).",
        hints=(
            "If mask tokens stood at all n places, where would each visible patch be written over one?",
            "scatter along dim 1 writes row j of the source to the place index[:, j]; the index needs the shape (B, K, D).",
            "expand the token to (B, n, D); expand keep to (B, K, D); scatter the visible rows into the copy, not in place",
        ),
        solution=fill_gaps,
        check=check_fill_gaps,
        covers="three shapes, patches in any order, gradients to both inputs",
        wrong=(
            *_phrases(FILL_MISTAKES, _fill_with),
            (lambda visible, mask_token, keep, n: fill_gaps(visible, mask_token.detach(), keep, n), "gradient"),
        ),
    ),
    Exercise(
        id="3.4",
        title="Show what it painted",
        minutes=10,
        difficulty=2,
        contract="`paste(prediction, patches, hidden, eps=1e-6)`: (B, N, numbers) twice, bool (B, N) -> (B, N, numbers).",
        hints=(
            "What was done to each patch to make it a target, and which patches need no painting at all?",
            "prediction * sqrt(variance + eps) + mean where hidden, else the patch; mean and unbiased variance of each true patch.",
            "mean and var along the last dim with keepdim; undo the normalisation; torch.where with hidden as (B, N, 1)",
        ),
        solution=paste,
        check=check_paste,
        covers="two shapes and values of eps, gradients to both inputs",
        wrong=(
            *_phrases(PASTE_MISTAKES, _paste_with),
            (
                lambda prediction, patches, hidden, eps=1e-6: paste(prediction.detach(), patches, hidden, eps),
                "gradient",
            ),
        ),
    ),
    Exercise(
        id="3.5",
        title="Places in two dimensions",
        minutes=15,
        difficulty=3,
        contract="`sincos_2d(width, rows, columns)`: ints -> (rows * columns, width) float32; ValueError unless 4 divides width.",
        hints=(
            "Which row and which column has patch number n, if they come row by row?",
            "f_i = 10000^(-i / (width / 4)); quarters: sin(column f), cos(column f), sin(row f), cos(row f).",
            "make the frequencies; row and column of each patch, (N, 1); multiply with f: (N, width / 4); sin and cos of both, side by side",
        ),
        solution=sincos_2d,
        check=check_sincos_2d,
        covers="a square and two oblong grids, and widths that must be refused",
        wrong=(*_phrases(SINCOS_MISTAKES, _sincos_with), (_sincos_any_width, "must raise ValueError")),
    ),
    Exercise(
        id="3.6",
        title="What hiding saves",
        minutes=15,
        difficulty=3,
        contract="`mae_cost(n, ratio, width, depth, decoder_width, decoder_depth)`: -> (encoder, decoder), multiply-adds of the blocks (ints).",
        hints=(
            "Which of the two ever sees a mask token, and how many tokens does each read?",
            "A block: 12 N D^2 (four matrices of attention, two of the MLP) and 2 N^2 D; N = K in the encoder, n in the decoder.",
            "write a helper for `depth` blocks on N tokens of width D; call it with the visible count, and with n",
        ),
        solution=mae_cost,
        check=check_mae_cost,
        covers="three sizes, against the layers of the network",
        wrong=_phrases(COST_MISTAKES, lambda way: way),
    ),
    Exercise(
        id="3.7",
        title="Experiment: what do neighbours tell?",
        minutes=25,
        difficulty=4,
        contract="`neighbours_tell(maps, ratio, seed=0)`: maps (B, H, W) -> the share of the hidden variance that visible neighbours explain (float).",
        hints=(
            "How do I get, at all places at once, the sum and the number of the visible ones among the eight neighbours?",
            "A 3 x 3 convolution with ones and a zero in the middle, once over maps * visible, once over visible; 1 - SSE / SST over hidden places.",
            "draw which places are hidden; two convolutions with padding 1; divide where the count is above zero, else take the mean of all visible; compare errors on the hidden places",
        ),
        solution=neighbours_tell,
        check=check_neighbours_tell,
        covers="smooth maps and noise, two ratios, within the spread of three other seeds",
        wrong=_phrases(TELL_MISTAKES, _tell_with),
    ),
    Exercise(
        id="3.8",
        title="Your own mask",
        minutes=45,
        difficulty=5,
        open=True,
        contract="Write noise of your own (hide what is easy, hide the object, hide rows, change the ratio during training) and find out whether the encoder gets better at equal time.",
        hints=(
            "What must the network know to fill the gaps that my mask makes?",
            "A mask is a ranking: return noise (B, N), the highest values are hidden. On scenes `render(...).masks` tells where the object is.",
        ),
        self_check=(
            "Did you write down beforehand which patches would become harder to predict?",
            "Did you judge by fine-tuning or a probe, and not by the loss, which your mask has changed?",
            "Did both masks get the same time, and the same number of visible patches?",
            "Is the difference larger than its spread over three seeds?",
        ),
    ),
)

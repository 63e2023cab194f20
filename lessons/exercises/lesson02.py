"""Lesson 02, ViT: seven exercises and an open one."""

import math

import torch
import torch.nn.functional as F

from ..nets.vit import Encoder, ViT
from .engine import Exercise, Wrong
from .expect import call, expect_close_grad, expect_equal, expect_tensor, randomise, seeded

# 2.1


def count_tokens(height, width, patch, class_token=True):
    """Length of the sequence that a ViT reads from a picture of height x width pixels, the [CLS] token counted if
    there is one; ValueError where squares of `patch` pixels do not fill the picture."""
    if height % patch or width % patch:
        raise ValueError(f"{height} x {width} pixels cannot be cut into patches of {patch}")
    return (height // patch) * (width // patch) + class_token


def check_count_tokens(candidate):
    for height, width, patch, extra in (
        (224, 224, 16, True),
        (224, 384, 32, False),
        (48, 32, 8, True),
        (32, 32, 4, True),
        (14, 28, 14, False),
    ):
        grid = (height // patch) * (width // patch)
        causes = {
            "the [CLS] token is one more token in the sequence": grid if extra else "none",
            "with class_token=False there is no [CLS] token to count": grid + 1 if not extra else "none",
            "`/` gives a float; a number of tokens is an int, so divide with `//`": float(grid + extra),
            "this is one side of the grid; there are rows times columns patches": lambda got, a=height // patch: (
                type(got) is int and abs(got - a) <= 1
            ),
            "the picture need not be square: rows from the height, columns from the width": lambda got, h=height, w=width, p=patch, e=extra: (
                h != w and got - e in ((h // p) ** 2, (w // p) ** 2)
            ),
            "rows and columns were added; a grid has rows times columns places": height // patch
            + width // patch
            + extra,
            "one patch covers patch x patch pixels: divide by the square": height * width // patch + extra,
        }
        what = f"count_tokens({height}, {width}, {patch}, {extra})"
        expect_equal(call(candidate, height, width, patch, extra), grid + extra, what, causes=causes)
    for height, width, patch in ((32, 30, 4), (30, 32, 4), (18, 16, 12)):
        try:
            got = call(candidate, height, width, patch)
        except ValueError:
            continue
        raise Wrong(
            f"count_tokens({height}, {width}, {patch}) must raise ValueError, but returned {got!r}.",
            cause=f"{patch} does not divide both sides; test the remainder of each, not of the area",
            hint=3,
        )


def _tokens_by_area(height, width, patch, class_token=True):
    if height * width % patch**2:
        raise ValueError
    return height * width // patch**2 + class_token


# 2.2


def unpatchify(patches, patch, height, width):
    """Put patches back together: (B, N, C P P) -> (B, C, height, width), patches row by row, each in the order
    (C, P, P)."""
    rows, columns = height // patch, width // patch
    x = patches.reshape(len(patches), rows, columns, -1, patch, patch)
    x = x.permute(0, 3, 1, 4, 2, 5)
    return x.reshape(len(patches), -1, height, width)


def _unpatchify_loops(patches, patch, height, width):
    C = patches.shape[2] // patch**2
    images = patches.new_zeros(len(patches), C, height, width)
    for n in range(patches.shape[1]):
        i, j = divmod(n, width // patch)
        square = patches[:, n].reshape(-1, C, patch, patch)
        images[:, :, i * patch : (i + 1) * patch, j * patch : (j + 1) * patch] = square
    return images


def _bare_reshape(patches, patch, height, width):
    return patches.reshape(len(patches), -1, height, width)


def _channels_last(patches, patch, height, width):
    C = patches.shape[2] // patch**2
    x = patches.reshape(*patches.shape[:2], patch, patch, C).permute(0, 1, 4, 2, 3).flatten(2)
    return _unpatchify_loops(x, patch, height, width)


def _column_by_column(patches, patch, height, width):
    order = torch.arange(patches.shape[1]).reshape(width // patch, height // patch).T.flatten()
    return _unpatchify_loops(patches[:, order], patch, height, width)


def _patches_transposed(patches, patch, height, width):
    x = patches.reshape(*patches.shape[:2], -1, patch, patch).transpose(3, 4).flatten(2)
    return _unpatchify_loops(x, patch, height, width)


def _not_interleaved(patches, patch, height, width):
    rows, columns = height // patch, width // patch
    x = patches.reshape(len(patches), rows, columns, -1, patch, patch)
    return x.permute(0, 3, 1, 2, 4, 5).reshape(len(patches), -1, height, width)


def _one_channel_first(patches, patch, height, width):
    return unpatchify(patches, patch, height, width).flip(1)


def check_unpatchify(candidate):
    for B, C, height, width, P in ((2, 3, 8, 12, 4), (3, 1, 6, 4, 2), (1, 2, 9, 9, 3), (2, 3, 4, 4, 4)):
        patches = seeded(B, (height // P) * (width // P), C * P * P, seed=height + P)
        want = _unpatchify_loops(patches, P, height, width)
        ways = {
            "a bare reshape keeps the order of the numbers, so patches become rows of pixels": _bare_reshape,
            "each patch is stored channel first, (C, P, P); this reads (P, P, C)": _channels_last,
            "the patches come row by row; this lays them out column by column": _column_by_column,
            "rows and columns inside each patch are exchanged": _patches_transposed,
            "the axes are not in the order (B, C, rows, P, columns, P): a patch's rows must follow the row of patches": _not_interleaved,
            "the channels come out in reverse order": _one_channel_first,
        }
        causes = {
            text: other for text, way in ways.items() if not torch.equal(other := way(patches, P, height, width), want)
        }
        got = call(candidate, patches, P, height, width)
        expect_tensor(got, want, f"a picture of {C} x {height} x {width} from patches of {P}", causes=causes)
    x = seeded(2, 6, 12, seed=3)
    expect_close_grad(lambda t: call(candidate, t, 2, 4, 6), lambda t: unpatchify(t, 2, 4, 6), x, what="unpatchify")


# 2.3


def masked_attention(q, k, v, mask=None):
    """softmax(q k^T / sqrt(D_h)) v, each query over the keys it may look at: q (..., N, D_h), k (..., M, D_h),
    v (..., M, D_v), mask bool (N, M), True where query n may look at key m -> (..., N, D_v)."""
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    return scores.softmax(-1) @ v


def _attention_loops(q, k, v, mask=None):
    rows = []
    for n in range(q.shape[-2]):
        keys = [m for m in range(k.shape[-2]) if mask is None or mask[n, m]]
        scores = torch.stack([(q[..., n, :] * k[..., m, :]).sum(-1) for m in keys], -1) / math.sqrt(q.shape[-1])
        weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
        rows.append(sum(weights[..., i, None] * v[..., m, :] for i, m in enumerate(keys)))
    return torch.stack(rows, -2)


def _attention_variant(scale=lambda q, k: q.shape[-1] ** -0.5, mask_as=None, dim=-1):
    """Attention with one thing changed: the scale, what the mask does, the axis of the softmax."""

    def masked_attention_wrong(q, k, v, mask=None):
        scores = q @ k.transpose(-2, -1) * scale(q, k)
        if mask is not None and mask_as != "ignored":
            if mask_as == "added":
                scores, mask = scores + mask, torch.ones_like(mask)
            if mask_as == "after":
                return scores.softmax(dim).masked_fill(~mask, 0.0) @ v
            fill = 0.0 if mask_as == "zero" else -1e30
            scores = scores.masked_fill(mask if mask_as == "inverted" else ~mask, fill)
        return scores.softmax(dim) @ v

    return masked_attention_wrong


ATTENTION_MISTAKES = {
    "the scores are divided by D_h; it is the square root of D_h": _attention_variant(lambda q, k: 1 / q.shape[-1]),
    "the scores are not scaled: divide by the square root of D_h": _attention_variant(lambda q, k: 1.0),
    "the scores are scaled by the number of keys; it is D_h, the width of a head": _attention_variant(
        lambda q, k: k.shape[-2] ** -0.5
    ),
    "the softmax runs over the queries; each query spreads its attention over the keys, the last axis": _attention_variant(
        dim=-2
    ),
    "the mask came after the softmax, so the rows no longer sum to 1": _attention_variant(mask_as="after"),
    "the mask is upside down: True means that the query may look": _attention_variant(mask_as="inverted"),
    "a masked score of 0 still gets a share of exp(0) = 1; it must be minus infinity": _attention_variant(
        mask_as="zero"
    ),
    "True and False were added to the scores as 1 and 0; a forbidden key needs minus infinity": _attention_variant(
        mask_as="added"
    ),
    "the mask is not used": _attention_variant(mask_as="ignored"),
}


def check_masked_attention(candidate):
    causal = torch.ones(5, 5, dtype=torch.bool).tril()
    some = torch.tensor([[1, 0, 1], [0, 1, 1], [1, 1, 1], [0, 0, 1]], dtype=torch.bool)
    cases = {
        "two heads, a causal mask": (*(seeded(3, 2, 5, 4, seed=s) for s in (1, 2, 3)), causal),
        "four queries, three keys, a mask": (seeded(2, 4, 6, seed=4), seeded(2, 3, 6, seed=5), seeded(2, 3, 5, seed=6), some),
        "no mask": (seeded(3, 4, seed=7), seeded(6, 4, seed=8), seeded(6, 2, seed=9), None),
    }  # fmt: skip
    for name, (q, k, v, mask) in cases.items():
        want = _attention_loops(q, k, v, mask)
        causes = {
            text: other
            for text, way in ATTENTION_MISTAKES.items()
            if not torch.allclose(other := way(q, k, v, mask), want)
        }
        expect_tensor(call(candidate, q, k, v, mask), want, f"masked_attention with {name}", causes=causes)
        expect_close_grad(
            lambda *qkv, mask=mask: call(candidate, *qkv, mask),
            lambda *qkv, mask=mask: _attention_loops(*qkv, mask),
            q, k, v, what=f"masked_attention with {name}",
        )  # fmt: skip
    large = 60 * seeded(4, 8, seed=10)
    want = masked_attention(large, large, large)
    expect_tensor(
        call(candidate, large, large, large),
        want,
        "masked_attention of large numbers",
        causes={"exp of a large score is infinite; F.softmax takes the maximum off first": lambda got: got.isnan().any()},
    )  # fmt: skip


def _attention_overflows(q, k, v, mask=None):
    weights = (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).exp()
    if mask is not None:
        weights = weights.masked_fill(~mask, 0.0)
    return weights / weights.sum(-1, keepdim=True) @ v


# 2.4


def vit_parameters(image, patch, width, depth, classes):
    """Trainable numbers of a ViT for square pictures with 3 channels: patch embedding, [CLS] token, learned positions,
    `depth` pre-norm blocks with an MLP four times as wide, last norm, linear head; biases everywhere."""
    tokens = (image // patch) ** 2 + 1
    embedding = 3 * patch**2 * width + width + width + tokens * width
    attention = 4 * (width * width + width)
    mlp = 2 * 4 * width * width + 4 * width + width
    return embedding + depth * (attention + mlp + 2 * 2 * width) + 2 * width + width * classes + classes


def check_vit_parameters(candidate):
    for image, patch, width, depth, classes in (
        (224, 16, 768, 12, 1000),
        (32, 4, 96, 4, 10),
        (32, 8, 64, 2, 100),
        (48, 16, 24, 3, 7),
    ):
        with torch.device("meta"):
            net = ViT(image=image, patch=patch, width=width, depth=depth, heads=2, classes=classes)
        want = sum(p.numel() for p in net.parameters())
        D = width
        causes = {
            "one vector is missing: the [CLS] token, its position of its own, or the patch embedding's bias": want - D,
            "two vectors are missing: the last norm's weight and bias, or the [CLS] token and its position": want - 2 * D,
            "the biases of query, key and value are missing": want - depth * 3 * D,
            "attention has four matrices: query, key, value, and the output projection": want - depth * (D * D + D),
            "each block has two layer norms, each with a weight and a bias per channel": want - depth * 2 * D,
            "the layer norms are missing: two in each block and one at the end": want - depth * 4 * D - 2 * D,
            "the head's bias is missing": want - classes,
            "the MLP is four times as wide inside: D x 4D and 4D x D": want - depth * (6 * D * D + 3 * D),
            "the MLP has two biases, of 4D and of D": want - depth * 5 * D,
            "a patch has 3 colour channels: 3 P^2 numbers": want - 2 * patch**2 * D,
            "the positions are missing: one vector of the width for each token": want - ((image // patch) ** 2 + 1) * D,
            "the blocks are counted once; there are `depth` of them": lambda got, want=want, d=depth: got < want / d + want / 3,
        }  # fmt: skip
        got = call(candidate, image, patch, width, depth, classes)
        expect_equal(got, want, f"vit_parameters({image}, {patch}, {width}, {depth}, {classes})", causes=causes)


def _parameters_less(change):
    """A wrong count: the right one, with something taken away."""

    def vit_parameters_wrong(image, patch, width, depth, classes):
        return vit_parameters(image, patch, width, depth, classes) - change(image, patch, width, depth, classes)

    return vit_parameters_wrong


# 2.5


def interpolate_positions(positions, old, new):
    """Positions (1 + N, D), the first for [CLS], of a grid `old` = (rows, columns) on a grid `new`: bilinear in 2-D
    with half-pixel centres -> (1 + N', D); the first row stays as it is."""
    grid = positions[1:].T.reshape(1, -1, *old)
    grid = F.interpolate(grid, size=new, mode="bilinear", align_corners=False)
    return torch.cat([positions[:1], grid[0].flatten(1).T])


def _interpolate_loops(positions, old, new):
    grid = positions[1:].reshape(*old, -1)

    def places(n_old, n_new):
        for i in range(n_new):
            at = min(max((i + 0.5) * n_old / n_new - 0.5, 0), n_old - 1)
            yield int(at), min(int(at) + 1, n_old - 1), at - int(at)

    rows = [positions[0]]
    for top, bottom, a in places(old[0], new[0]):
        for left, right, b in places(old[1], new[1]):
            upper = (1 - b) * grid[top, left] + b * grid[top, right]
            lower = (1 - b) * grid[bottom, left] + b * grid[bottom, right]
            rows.append((1 - a) * upper + a * lower)
    return torch.stack(rows)


def _interpolate_with(swap=False, bare=False, **settings):
    """2-D interpolation with other settings, the grid's sides exchanged, or a reshape instead of a transpose."""

    def interpolate_positions_wrong(positions, old, new):
        h, w = reversed(old) if swap else old
        places = positions[1:].reshape(1, -1, h, w) if bare else positions[1:].T.reshape(1, -1, h, w)
        grid = F.interpolate(places, size=tuple(reversed(new)) if swap else new, **settings)
        back = grid.reshape(-1, positions.shape[1]) if bare else grid[0].flatten(1).T
        return torch.cat([positions[:1], back])

    return interpolate_positions_wrong


def _interpolate_all_rows(positions, old, new):
    rows = F.interpolate(positions.T[None], size=1 + new[0] * new[1], mode="linear", align_corners=False)
    return rows[0].T


def _interpolate_in_1d(positions, old, new):
    rows = F.interpolate(positions[1:].T[None], size=new[0] * new[1], mode="linear", align_corners=False)
    return torch.cat([positions[:1], rows[0].T])


def _interpolate_zero_class(positions, old, new):
    right = interpolate_positions(positions, old, new)
    return torch.cat([torch.zeros_like(positions[:1]), right[1:]])


BILINEAR = {"mode": "bilinear", "align_corners": False}
POSITION_MISTAKES = {
    "align_corners=True pins the corners; with half-pixel centres it is False": _interpolate_with(
        mode="bilinear", align_corners=True
    ),
    "rows and columns of the grid are exchanged": _interpolate_with(swap=True, **BILINEAR),
    "a reshape cannot exchange axes: transpose (N, D) to (D, N) before it becomes (1, D, rows, columns)": _interpolate_with(
        bare=True, **BILINEAR
    ),
    "nearest neighbours are not bilinear": _interpolate_with(mode="nearest"),
    "bicubic is what DINO uses; asked for is bilinear": _interpolate_with(mode="bicubic", align_corners=False),
    "the [CLS] row was interpolated with the others; take it off first": _interpolate_all_rows,
    "the patches were interpolated along the sequence; neighbours above and below count, too": _interpolate_in_1d,
    "the [CLS] row must stay as it was": _interpolate_zero_class,
}


def check_interpolate_positions(candidate):
    for old, new in (((4, 4), (6, 6)), ((2, 3), (4, 5)), ((4, 6), (2, 3)), ((3, 3), (3, 3)), ((2, 4), (4, 2))):
        positions = seeded(1 + old[0] * old[1], 6, seed=old[0] + new[1])
        want = _interpolate_loops(positions, old, new)
        causes = {
            "the [CLS] row is gone": want[1:],
            "the [CLS] row belongs to the front": torch.cat([want[1:], want[:1]]),
            "nothing was interpolated: the number of rows is that of the old grid": lambda got, p=positions, o=old, n=new: o != n and got.shape == p.shape and torch.equal(got, p),
        }  # fmt: skip
        for text, way in POSITION_MISTAKES.items():
            if (other := way(positions, old, new)).shape != want.shape or not torch.allclose(other, want, atol=1e-5):
                causes[text] = other
        expect_tensor(call(candidate, positions, old, new), want, f"positions of {old} on a grid {new}", causes=causes)
    x = seeded(1 + 6, 5, seed=9)
    expect_close_grad(
        lambda p: call(candidate, p, (2, 3), (3, 4)),
        lambda p: _interpolate_loops(p, (2, 3), (3, 4)),
        x,
        what="the interpolated positions",
    )


# 2.6


def attention_rollout(maps):
    """Which input token each output token draws on, through all layers: maps (L, N, N), first layer first, rows sum
    to 1 -> (N, N), the product of (A + I) / 2, the last layer leftmost (Abnar & Zuidema 2020)."""
    rollout = torch.eye(maps.shape[1], dtype=maps.dtype, device=maps.device)
    for attention in maps:
        rollout = (attention + torch.eye(maps.shape[1], dtype=maps.dtype, device=maps.device)) / 2 @ rollout
    return rollout


def _rollout_loops(maps):
    """By following every path: the share of token j in token i, one layer after the other."""
    L, N, _ = maps.shape
    share = [[float(i == j) for j in range(N)] for i in range(N)]
    for layer in maps.tolist():
        share = [
            [0.5 * share[i][j] + 0.5 * sum(layer[i][m] * share[m][j] for m in range(N)) for j in range(N)]
            for i in range(N)
        ]
    return torch.tensor(share, dtype=maps.dtype)


def _rollout_with(order="last leftmost", mix=lambda A, eye: (A + eye) / 2):
    """Rollout with one thing changed: the order of the product, or how the residual connection is put in."""

    def attention_rollout_wrong(maps):
        eye = torch.eye(maps.shape[1], dtype=maps.dtype)
        result = eye
        for attention in maps:
            one = mix(attention, eye)
            result = result @ one if order == "first leftmost" else one @ result
        return result

    return attention_rollout_wrong


ROLLOUT_MISTAKES = {
    "the product is in reverse order: the last layer stands on the left": _rollout_with("first leftmost"),
    "the residual connection is missing: each token also keeps itself, so mix in the identity": _rollout_with(
        mix=lambda A, eye: A
    ),
    "A + I has rows that sum to 2; halve it": _rollout_with(mix=lambda A, eye: A + eye),
    "the maps are averaged or added; information passes through one layer after the other, so multiply": lambda maps: (
        (maps.mean(0) + torch.eye(maps.shape[1], dtype=maps.dtype)) / 2
    ),
    "only the last layer is used": lambda maps: (maps[-1] + torch.eye(maps.shape[1], dtype=maps.dtype)) / 2,
    "these are products entry by entry; paths add up in a matrix product": lambda maps: (
        (maps + torch.eye(maps.shape[1], dtype=maps.dtype)) / 2
    ).prod(0),
    "rows and columns are exchanged: row i tells what output i draws on": lambda maps: attention_rollout(maps).T,
}


def check_attention_rollout(candidate):
    toy = torch.tensor([[[0.5, 0.5], [0.2, 0.8]], [[0.9, 0.1], [0.4, 0.6]]])
    cases = {"two layers, two tokens": toy}
    cases |= {f"{L} layers, {N} tokens": (2 * seeded(L, N, N, seed=L)).softmax(-1) for L, N in ((3, 5), (5, 4), (1, 3))}
    for name, maps in cases.items():
        want = _rollout_loops(maps)
        causes = {text: other for text, way in ROLLOUT_MISTAKES.items() if not torch.allclose(other := way(maps), want)}
        expect_tensor(call(candidate, maps), want, f"the rollout of {name}", causes=causes, atol=1e-6)


# 2.7


def order_matters(encoder, x, positions, order):
    """Experiment: the largest absolute change of [CLS]'s output, encoder(...)[:, 0], when the patches of x
    (B, 1 + N, D) are put in `order` (N,), [CLS] staying in front, as a dict of four floats. "bag": without positions
    (1 + N, D); "fixed": they are added after the shuffle; "moved": before it; "causal": as "fixed", causal mask."""
    rows = torch.cat([order.new_zeros(1), 1 + order])
    causal = torch.ones(len(rows), len(rows), dtype=torch.bool, device=x.device).tril()

    def change(before, after, mask=None):
        return (encoder(before, mask)[:, 0] - encoder(after, mask)[:, 0]).abs().max().item()

    placed = x + positions
    return {
        "bag": change(x, x[:, rows]),
        "fixed": change(placed, x[:, rows] + positions),
        "moved": change(placed, placed[:, rows]),
        "causal": change(placed, x[:, rows] + positions, causal),
    }


def _order_variant(rows=None, read=lambda y: y[:, 0], size=lambda d: d.abs().max(), exchange=False, mask=torch.tril):
    """The experiment with one thing changed."""

    def order_matters_wrong(encoder, x, positions, order):
        index = rows(order) if rows else torch.cat([order.new_zeros(1), 1 + order])
        causal = mask(torch.ones(x.shape[1], x.shape[1], dtype=torch.bool))

        def change(before, after, seen=None):
            return size(read(encoder(before, seen)) - read(encoder(after, seen))).item()

        placed = x + positions
        fixed, moved = x[:, index] + positions, placed[:, index]
        if exchange:
            fixed, moved = moved, fixed
        return {
            "bag": change(x, x[:, index]),
            "fixed": change(placed, fixed),
            "moved": change(placed, moved),
            "causal": change(placed, fixed, causal),
        }

    return order_matters_wrong


def _order_all_rows(order):
    return torch.cat([1 + order, order.new_zeros(1)])


ORDER_MISTAKES = {
    "[CLS] was shuffled, too: row 0 stays in front, and the patches are rows 1 to N": _order_variant(_order_all_rows),
    "all tokens were compared; asked for is the output of [CLS]: row 0": _order_variant(read=lambda y: y),
    "the output was averaged over the tokens; asked for is [CLS]: row 0": _order_variant(read=lambda y: y.mean(1)),
    "this is the mean change; asked for is the largest": _order_variant(size=lambda d: d.abs().mean()),
    "the change was not made positive: take the absolute value": _order_variant(size=lambda d: d.max()),
    "'fixed' and 'moved' are exchanged: in 'fixed' position 1 stays with whatever stands first": _order_variant(
        exchange=True
    ),
    "the causal mask is upside down: a token may look at itself and at what came before": _order_variant(
        mask=torch.triu
    ),
    "the causal mask is not used": _order_variant(mask=torch.ones_like),
}


def check_order_matters(candidate):
    for seed, N in ((0, 6), (1, 9)):
        encoder = randomise(Encoder(16, 2, 4), seed).eval()
        x, positions = seeded(3, 1 + N, 16, seed=seed + 2), seeded(1 + N, 16, seed=seed + 3)
        order = torch.arange(N).roll(2)
        order = torch.cat([order[:3].flip(0), order[3:]])
        with torch.no_grad():
            want = order_matters(encoder, x, positions, order)
            causes = {text: way(encoder, x, positions, order) for text, way in ORDER_MISTAKES.items()}
        got = call(candidate, encoder, x, positions, order)
        expect_equal(got, want, "order_matters", atol=1e-4, causes=causes, hint=3)


EXERCISES = (
    Exercise(
        id="2.1",
        title="How long is the sequence?",
        minutes=5,
        difficulty=1,
        contract="`count_tokens(height, width, patch, class_token=True)`: ints -> number of tokens (int); ValueError where patches do not fill the picture.",
        hints=(
            "How many squares fit into one row, and how many rows are there?",
            "N = (H / P) (W / P), and one more for [CLS].",
            "if either side leaves a remainder by patch: raise ValueError; else rows times columns, plus 1 if class_token",
        ),
        solution=count_tokens,
        check=check_count_tokens,
        covers="five pictures, square or not, with and without [CLS], and three that cannot be cut",
        wrong=(
            (lambda height, width, patch, class_token=True: (height // patch) * (width // patch), "one more token"),
            (
                lambda height, width, patch, class_token=True: (height // patch) * (width // patch) + 1,
                "no [CLS] token to count",
            ),
            (
                lambda height, width, patch, class_token=True: height / patch * (width / patch) + class_token,
                "`/` gives a float",
            ),
            (lambda height, width, patch, class_token=True: height // patch + class_token, "one side of the grid"),
            (lambda height, width, patch, class_token=True: (height // patch) ** 2 + class_token, "need not be square"),
            (
                lambda height, width, patch, class_token=True: height * width // patch + class_token,
                "divide by the square",
            ),
            (_tokens_by_area, "must raise ValueError"),
            (
                lambda height, width, patch, class_token=True: (height // patch) * (width // patch) + class_token,
                "must raise ValueError",
            ),
        ),
    ),
    Exercise(
        id="2.2",
        title="Back to a picture",
        minutes=15,
        difficulty=3,
        contract="`unpatchify(patches, patch, height, width)`: (B, N, C P P) -> (B, C, height, width), the inverse of `patchify`.",
        hints=(
            "If I write down the shape of patchify's tensor before its last reshape, can I go back from there?",
            "(B, N, C P P) -> (B, rows, columns, C, P, P) -> (B, C, rows, P, columns, P) -> (B, C, H, W).",
            "rows = height over patch, columns = width over patch; reshape to six axes; permute to 0, 3, 1, 4, 2, 5; reshape to four",
        ),
        solution=unpatchify,
        check=check_unpatchify,
        covers="square and oblong pictures, one to three channels, one single patch, gradients",
        wrong=(
            (_bare_reshape, "bare reshape"),
            (_channels_last, "channel first"),
            (_column_by_column, "column by column"),
            (_patches_transposed, "inside each patch"),
            (_not_interleaved, "must follow the row of patches"),
            (_one_channel_first, "reverse order"),
            (lambda patches, patch, height, width: unpatchify(patches, patch, height, width).detach(), "gradient"),
        ),
    ),
    Exercise(
        id="2.3",
        title="Attention with a mask",
        minutes=15,
        difficulty=3,
        contract="`masked_attention(q, k, v, mask=None)`: q (..., N, D_h), k (..., M, D_h), v (..., M, D_v), mask bool (N, M), True = may look -> (..., N, D_v).",
        hints=(
            "What score must a forbidden key have, so that nothing of it is left after the softmax?",
            "softmax over the last axis of q k^T / sqrt(D_h), with minus infinity where the mask is False; then times v.",
            "scores = q times k with its last two axes exchanged, divided by the root of q's last size; masked_fill where not mask; softmax(-1); times v",
        ),
        solution=masked_attention,
        check=check_masked_attention,
        covers="batches and heads, a causal mask, more keys than queries, large numbers, gradients",
        wrong=(
            *((way, text) for text, way in ((t.split(";")[0].split(":")[0], w) for t, w in ATTENTION_MISTAKES.items())),
            (_attention_overflows, "exp of a large score"),
            (lambda q, k, v, mask=None: masked_attention(q, k, v, mask).detach(), "gradient"),
        ),
    ),
    Exercise(
        id="2.4",
        title="Counting a ViT",
        minutes=15,
        difficulty=3,
        contract="`vit_parameters(image, patch, width, depth, classes)`: trainable numbers (int); for ViT-B/16 at 224 pixels and 1000 classes 86,567,656.",
        hints=(
            "What does one block hold, and what stands before the first and after the last?",
            "Attention 4 (D D + D), MLP 8 D D + 5 D, two norms 4 D; around them 3 P P D + D, D for [CLS], (N + 1) D, 2 D, D K + K.",
            "add the patch embedding, the [CLS] token, N + 1 positions, depth times one block, the last norm, the head",
        ),
        solution=vit_parameters,
        check=check_vit_parameters,
        covers="ViT-B/16 and three small ones",
        wrong=(
            (_parameters_less(lambda i, p, D, L, K: D), "position of its own"),
            (_parameters_less(lambda i, p, D, L, K: L * 3 * D), "biases of query"),
            (_parameters_less(lambda i, p, D, L, K: L * (D * D + D)), "four matrices"),
            (_parameters_less(lambda i, p, D, L, K: 2 * D), "last norm's weight and bias"),
            (_parameters_less(lambda i, p, D, L, K: L * 4 * D + 2 * D), "layer norms are missing"),
            (_parameters_less(lambda i, p, D, L, K: K), "head's bias"),
            (_parameters_less(lambda i, p, D, L, K: L * (6 * D * D + 3 * D)), "four times as wide"),
            (_parameters_less(lambda i, p, D, L, K: ((i // p) ** 2 + 1) * D), "positions are missing"),
            (
                lambda image, patch, width, depth, classes: vit_parameters(image, patch, width, 1, classes),
                "counted once",
            ),
        ),
    ),
    Exercise(
        id="2.5",
        title="Positions for another size",
        minutes=20,
        difficulty=4,
        contract="`interpolate_positions(positions, old, new)`: (1 + N, D) with [CLS] first, grids (rows, columns) -> (1 + N', D), bilinear, half-pixel centres.",
        hints=(
            "Which row has no place in the grid, and what shape does F.interpolate want for the others?",
            "(N, D) -> (D, N) -> (1, D, rows, columns), F.interpolate, and back the same way; the first row in front again.",
            "take off row 0; transpose and reshape to (1, D, *old); F.interpolate(size=new, mode='bilinear', align_corners=False); flatten, transpose, put row 0 in front",
        ),
        solution=interpolate_positions,
        check=check_interpolate_positions,
        covers="larger, smaller, oblong and equal grids, gradients",
        wrong=(
            *((way, text.split(";")[0].split(":")[0]) for text, way in POSITION_MISTAKES.items()),
            (lambda positions, old, new: interpolate_positions(positions, old, new)[1:], "row is gone"),
            (lambda positions, old, new: interpolate_positions(positions, old, new).detach(), "gradient"),
        ),
    ),
    Exercise(
        id="2.6",
        title="Attention rollout",
        minutes=10,
        difficulty=3,
        contract="`attention_rollout(maps)`: (L, N, N), first layer first -> (N, N), how much of each input token is in each output token.",
        hints=(
            "If layer 2 draws on layer 1's tokens, which matrix acts first, and where does it stand in the product?",
            "R = A'_L ... A'_2 A'_1 with A' = (A + I) / 2: half of a token is what it was, half what it heard.",
            "begin with the identity; for each map from the first layer on: result = (map + identity) / 2 matrix-times result",
        ),
        solution=attention_rollout,
        check=check_attention_rollout,
        covers="one to five layers, maps that are not symmetric",
        wrong=tuple((way, text.split(";")[0].split(":")[0]) for text, way in ROLLOUT_MISTAKES.items()),
    ),
    Exercise(
        id="2.7",
        title="Experiment: who notices the order?",
        minutes=20,
        difficulty=3,
        contract='`order_matters(encoder, x, positions, order)`: x (B, 1 + N, D), positions (1 + N, D), order (N,) -> {"bag", "fixed", "moved", "causal"}: the largest change of [CLS]\'s output (float).',
        hints=(
            "In which of the four does each patch keep its own position, and what can [CLS] see when it stands first and may only look back?",
            "The shuffled rows are 0, 1 + order[0], 1 + order[1], ...; compare encoder(before, mask)[:, 0] with encoder(after, mask)[:, 0].",
            "rows = 0 and then 1 + order; bag: x against x[:, rows]; fixed: x + positions against x[:, rows] + positions; moved: (x + positions)[:, rows]; causal: as fixed with a lower triangle of True; take max of abs",
        ),
        solution=order_matters,
        check=check_order_matters,
        covers="two encoders, six and nine patches, an order that is not its own inverse",
        wrong=tuple((way, text.split(";")[0].split(":")[0]) for text, way in ORDER_MISTAKES.items()),
    ),
    Exercise(
        id="2.8",
        title="Your own way in",
        minutes=45,
        difficulty=5,
        open=True,
        contract="Change how the picture becomes tokens, at equal steps and with three seeds: two strided convolutions instead of one, overlapping patches, or fixed sin-cos positions. Does the gap to the ResNet at few pictures close?",
        hints=(
            "What does the ResNet know at the start that my tokens do not tell?",
            "Count the multiplications again: a stem of convolutions costs more than one linear layer.",
            "Replace net.embed by your own module (B, 3, H, W) -> (B, N, D), keep N the same, train with job(...) and compare three seeds",
        ),
        self_check=(
            "Is the compute still matched? What does FlopCounterMode say?",
            "Is the difference larger than its spread over three seeds?",
            "Does the shuffled control still cost the ViT nothing, and should it?",
            "Which part of the inductive bias did you put back: locality, or sharing of weights?",
        ),
    ),
)

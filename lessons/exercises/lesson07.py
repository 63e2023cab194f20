"""Lesson 07, DINOv2: six exercises, an experiment, and an open one."""

import torch
import torch.nn.functional as F

from .engine import Exercise, Wrong
from .expect import call, expect_close_grad, expect_equal, expect_shape, expect_tensor, require, seeded

# 7.1


def koleo(x):
    """How crowded a batch is: minus the mean logarithm of each vector's distance to its nearest other. x (B, D), each
    vector brought to length 1 first; 1e-8 is added to each distance. A scalar with a gradient."""
    z = F.normalize(x, dim=1)
    with torch.no_grad():
        nearest = (z @ z.T).fill_diagonal_(-2).argmax(1)
    return -((z - z[nearest]).norm(dim=1) + 1e-8).log().mean()


def _koleo_by_loop(kind=""):
    def oracle(x):
        z = [row if kind == "raw" else row / row.norm() for row in x]
        terms = []
        for i, a in enumerate(z):
            gaps = [(a - b).square().sum() for j, b in enumerate(z) if i != j or kind == "self"]
            gap = torch.stack(gaps).max() if kind == "farthest" else torch.stack(gaps).min()
            if kind == "all pairs":
                gap = torch.stack(gaps).sqrt().mean() ** 2
            distance = gap.clamp_min(1e-30).sqrt()
            terms.append(distance if kind == "late log" else (distance + 1e-8).log() * (2 if kind == "squared" else 1))
        total = torch.stack(terms)
        if kind == "late log":
            return -total.mean().log()
        total = total.sum() if kind == "sum" else total.mean()
        return total if kind == "sign" else -total

    return oracle


KOLEO_CAUSES = {
    "self": "every vector is its own nearest neighbour here: leave i out of its own search",
    "raw": "the vectors are not brought to length 1 before they are compared",
    "squared": "this is the logarithm of the squared distance, twice too large",
    "sign": "the sign is turned: this would pull neighbours together",
    "farthest": "this is the distance to the farthest one; take the nearest",
    "all pairs": "this averages over all others; only the nearest counts",
    "late log": "the logarithm comes before the mean",
    "sum": "this is the sum over the batch; asked is its mean",
}


def check_koleo(candidate):
    fixture = torch.tensor([[3.0, 0.0], [0.0, 2.0], [1.0, 1.0], [-1.0, 0.0]])
    causes = {text: _koleo_by_loop(kind) for kind, text in KOLEO_CAUSES.items()}
    for x in (fixture, 3 * seeded(7, 5, seed=1), seeded(2, 3, seed=2)):
        what = f"koleo of {len(x)} vectors"
        expect_tensor(call(candidate, x), _koleo_by_loop()(x), what, causes={k: f(x) for k, f in causes.items()})
    expect_close_grad(lambda x: call(candidate, x), _koleo_by_loop(), seeded(6, 4, seed=3), causes=causes)
    twins = torch.tensor([[1.0, 2.0], [1.0, 2.0], [-1.0, 0.5]])
    value = call(candidate, twins)
    message = f"Two equal vectors give {float(value):.3g}; the logarithm of zero must not come up."
    require(bool(torch.isfinite(value)), message, cause="add 1e-8 to the distance before the logarithm", hint=3)


# 7.2


def sinkhorn(scores, tau, iterations):
    """Targets that share the prototypes evenly: exp(scores / tau), then `iterations` times: every column (prototype)
    divided by its sum, and every row (picture) by its own. scores (B, K) -> (B, K), rows sum to 1, no gradient; large
    scores must not overflow."""
    q = scores.detach() / tau  # logarithms to the end: exp would lose a prototype whose scores are all far below
    for _ in range(iterations):
        q = q - q.logsumexp(0, keepdim=True)
        q = q - q.logsumexp(1, keepdim=True)
    return q.exp()


def _sinkhorn_by_loop(scores, tau, iterations, kind=""):
    """In float64, entry by entry of lists."""
    x = scores.detach().double() / (1 if kind == "tau" else tau)
    q = (x - x.max()).exp()
    B, K = q.shape
    for number in range(1 if kind == "once" else iterations):
        if kind == "rows first" or (kind == "softmax" and number == 0):
            q = torch.stack([row / row.sum() for row in q])
        if kind != "rows":
            q = torch.stack([q[:, k] / q[:, k].sum() for k in range(K)], 1)
        if kind not in ("columns", "rows first"):
            q = torch.stack([row / row.sum() for row in q])
    return (q / B if kind == "share" else q).float()


SINKHORN_CAUSES = {
    "rows": "only the rows were normalised, which is a softmax: the columns come first",
    "columns": "only the columns were normalised: each column, then each row, in every round",
    "rows first": "the columns came last; rows come last, so that each is a distribution",
    "tau": "the scores are not divided by tau",
    "once": "this is one round; asked are `iterations`",
    "softmax": "this begins with a softmax over prototypes: the first division is of the columns, on exp(scores / tau)",
    "share": "the rows sum to 1 / B here; each is to sum to 1",
}


def check_sinkhorn(candidate):
    fixture = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.5, 0.0], [1.0, 0.0, 0.5], [1.0, 0.2, 0.1]])
    for scores, tau, rounds in ((fixture, 0.5, 3), (fixture, 0.1, 3), (seeded(7, 5, seed=1, scale=0.3), 0.2, 4)):
        causes = {text: _sinkhorn_by_loop(scores, tau, rounds, kind) for kind, text in SINKHORN_CAUSES.items()}
        causes["a tempered softmax alone does not look at the other pictures"] = (scores / tau).softmax(1)
        right = _sinkhorn_by_loop(scores, tau, rounds)
        what = f"sinkhorn of {len(scores)} pictures at tau {tau}"
        expect_tensor(call(candidate, scores, tau, rounds), right, what, causes=causes)
    got = call(candidate, torch.tensor([[90.0, 0.0], [0.0, 90.0], [60.0, 30.0]]), 0.5, 3)
    cause = "exp overflows at 90 / 0.5: subtract the largest score first, which changes nothing else"
    require(bool(torch.isfinite(got).all()), "Scores of 90 give what is not a number.", cause=cause, hint=3)
    got = call(candidate, seeded(3, 4).requires_grad_(), 0.1, 3)
    require(not got.requires_grad, "The targets carry a gradient: the teacher is not trained by them.", hint=3)


# 7.3


def patch_loss(targets, student, hidden, tau):
    """iBOT's loss: the cross entropy -sum_k P_t log P_s of every hidden patch, with P_s = softmax(student / tau), as a
    mean over the hidden patches of each picture, then over the pictures that have any. targets, student (B, N, K),
    hidden (B, N) bool -> scalar."""
    costs = -(targets * (student / tau).log_softmax(-1)).sum(-1)
    counts = hidden.sum(1)
    return ((costs * hidden).sum(1)[counts > 0] / counts[counts > 0]).mean()


def _patch_loss_by_loop(kind=""):
    def oracle(targets, student, hidden, tau):
        if kind == "visible":
            hidden = ~hidden
        if kind == "all":
            hidden = torch.ones_like(hidden)
        means, every = [], []
        for P, s, places in zip(targets, student, hidden, strict=True):
            q = s / (1 if kind == "tau" else tau)
            log_q = q - q.exp().sum(-1, keepdim=True).log()
            costs = -(P * log_q).mean(-1) if kind == "mean over K" else -(P * log_q).sum(-1)
            if kind == "reversed":
                costs = -(log_q.exp() * P.log()).sum(-1)
            every += list(costs[places])
            if places.any():
                means.append(costs[places].sum() if kind == "sum" else costs[places].mean())
            elif kind == "all pictures":
                means.append(costs.sum() * 0)
        return torch.stack(every if kind == "flat" else means).mean()

    return oracle


PATCH_CAUSES = {
    "flat": "this is one mean over all hidden patches; average within each picture first, then over pictures",
    "all": "all patches were counted; only the hidden ones are to be guessed",
    "visible": "the visible patches were counted; the hidden ones are to be guessed",
    "all pictures": "pictures without a hidden patch were counted as 0; leave them out of the mean",
    "tau": "the student's scores are not divided by tau",
    "mean over K": "this is a mean over the K prototypes; a cross entropy is their sum",
    "sum": "the costs of a picture were summed; take their mean",
    "reversed": "the roles are reversed: the teacher's distribution stands outside the logarithm",
}


def check_patch_loss(candidate):
    causes = {text: _patch_loss_by_loop(kind) for kind, text in PATCH_CAUSES.items()}
    ragged = torch.tensor([[1, 1, 1, 0, 1], [0, 0, 0, 0, 0], [0, 1, 0, 0, 0]]).bool()
    other = seeded(4, 6, seed=5) > 0.2
    for hidden, K, tau in ((ragged, 3, 0.1), (other, 5, 0.3)):
        targets = (2 * seeded(*hidden.shape, K, seed=K)).softmax(-1)
        student = seeded(*hidden.shape, K, seed=K + 1, scale=0.2)
        rest = {text: f(targets, student, hidden, tau) for text, f in causes.items()}
        right = _patch_loss_by_loop()(targets, student, hidden, tau)
        expect_tensor(call(candidate, targets, student, hidden, tau), right, "the loss", causes=rest)
        expect_close_grad(
            lambda s, a=(targets, hidden, tau): call(candidate, a[0], s, a[1], a[2]),
            lambda s, a=(targets, hidden, tau): _patch_loss_by_loop()(a[0], s, a[1], a[2]),
            student,
            what="the loss as a function of the student's scores",
        )


# 7.4


def feature_map(tokens, grid, registers):
    """The patch tokens as a picture of features: tokens (B, 1 + registers + N, D), first [CLS], then registers, then
    the patches row by row; grid (rows, columns) with N = rows * columns -> (B, D, rows, columns)."""
    patches = tokens[:, 1 + registers :]
    return patches.transpose(1, 2).reshape(len(tokens), -1, *grid)


def _wrong_map(kind):
    def wrong(tokens, grid, registers):
        B, T, D = tokens.shape
        rows, columns = grid
        N = rows * columns
        first = {"cls": 0, "registers": 1, "cls only": registers}.get(kind, T - N)
        patches = tokens[:, first : first + N]
        if kind == "reshape":
            return patches.reshape(B, D, rows, columns)
        if kind == "columns":
            return patches.transpose(1, 2).reshape(B, D, columns, rows).transpose(2, 3)
        image = patches.transpose(1, 2).reshape(B, D, rows, columns)
        return {"last": image.permute(0, 2, 3, 1), "grid": image.transpose(2, 3)}.get(kind, image)

    return wrong


MAP_CAUSES = {
    "cls": "[CLS] is still there: it stands in front and is no patch",
    "registers": "the registers are still there: skip 1 + registers tokens",
    "cls only": "one token too many is kept: skip [CLS] as well as the registers",
    "reshape": "a reshape alone mixes features and places: move D in front of N first",
    "columns": "the patches were laid out column by column; they come row by row",
    "last": "the features come last; asked is (B, D, rows, columns)",
    "grid": "rows and columns are exchanged",
}


def check_feature_map(candidate):
    for B, D, grid, registers in ((2, 3, (2, 4), 4), (1, 5, (3, 2), 0), (3, 4, (2, 3), 1)):
        T = 1 + registers + grid[0] * grid[1]
        tokens = seeded(B, T, D, seed=T)
        right = torch.empty(B, D, *grid)
        for r in range(grid[0]):
            for c in range(grid[1]):
                right[:, :, r, c] = tokens[:, 1 + registers + r * grid[1] + c]
        causes = {text: _wrong_map(kind)(tokens, grid, registers) for kind, text in MAP_CAUSES.items()}
        what = f"feature_map on a grid of {grid[0]} x {grid[1]} with {registers} registers"
        got = call(candidate, tokens, grid, registers)
        if isinstance(got, torch.Tensor) and got.shape != right.shape:
            shapes = {
                text: tuple(value.shape) for text, value in causes.items() if value.shape == got.shape != right.shape
            }
            expect_shape(got, tuple(right.shape), what, causes=shapes)
        expect_tensor(got, right, what, causes=causes)


# 7.5


def ridge_head(x, y, strength):
    """A linear head in closed form: the weight (D, C) and bias (C,) that make mean over rows of |x w + b - y|^2 +
    strength * |w|^2 smallest; the bias is not held small. x (M, D), y (M, C), strength > 0 -> (weight, bias)."""
    x_mean, y_mean = x.mean(0), y.mean(0)
    a, b = x - x_mean, y - y_mean
    system = a.T @ a / len(x) + strength * torch.eye(x.shape[1])
    weight = torch.linalg.solve(system, a.T @ b / len(x))
    return weight, y_mean - x_mean @ weight


def _ridge_by_descent(x, y, strength, kind=""):
    """The normal equations of [x, 1] in float64, the penalty on each row its own."""
    x, y = x.double(), y.double()
    M, D = x.shape
    ones = torch.ones(M, 1, dtype=x.dtype) * (0 if kind == "no bias" else 1)
    design = torch.cat([x, ones], 1)
    penalty = torch.full((D + 1,), float(strength), dtype=x.dtype)
    if kind != "bias held":
        penalty[D] = 1e-12
    system = design.T @ design / (1 if kind == "sum" else M)
    if kind == "squared":
        penalty[:D] = strength**2
    if kind == "times M":
        penalty[:D] = strength * M
    solved = torch.linalg.solve(system + penalty.diag(), design.T @ y / (1 if kind == "sum" else M))
    return solved[:D].float(), solved[D].float()


RIDGE_CAUSES = {
    "no bias": "there is no bias: centre x and y first, or add a column of ones",
    "bias held": "the bias is held small, too; the penalty belongs to the weight alone",
    "sum": "the error is summed over rows here; with a mean the penalty weighs M times as much",
    "squared": "the strength went in squared",
    "times M": "the penalty was multiplied by the number of rows; the error is a mean already",
}


def check_ridge_head(candidate):
    for M, D, C, strength in ((30, 4, 3, 0.3), (9, 6, 2, 2.0), (5, 8, 1, 0.1)):
        x, y = seeded(M, D, seed=M) * 2 + 1.5, seeded(M, C, seed=D) + 3
        right = _ridge_by_descent(x, y, strength)
        got = call(candidate, x, y, strength)
        if not isinstance(got, (tuple, list)) or len(got) != 2:
            raise Wrong(f"ridge_head must return (weight, bias); came {type(got).__name__}.")
        for place, name in enumerate(("the weight", "the bias")):
            causes = {text: _ridge_by_descent(x, y, strength, kind)[place] for kind, text in RIDGE_CAUSES.items()}
            causes["the bias is the mean of y; take x_mean w off it"] = y.mean(0) if place else right[1]
            causes["the penalty is missing"] = lambda got, x=x, y=y, place=place: torch.allclose(
                got, _ridge_by_descent(x, y, 1e-9)[place], atol=1e-3
            )
            what = f"{name} of {M} rows of {D} numbers"
            expect_tensor(got[place], right[place], what, causes=causes, atol=1e-4, rtol=1e-3)


# 7.6


def curate(pool, seeds, k, twin):
    """The data engine on unit-free features pool (M, D), seeds (S, D); similarity is the cosine. First go through the
    pool in order and drop every picture whose similarity to an earlier KEPT one is `twin` or more. Then each seed
    takes its k most similar kept pictures (the lower number where two are equal). Returns the sorted numbers, in the
    pool, of all that were taken, int64, each once."""
    pool, seeds = F.normalize(pool, dim=1), F.normalize(seeds, dim=1)
    kept = []
    for i in range(len(pool)):
        if not kept or (pool[kept] @ pool[i]).max() < twin:
            kept.append(i)
    kept = torch.tensor(kept)
    order = (seeds @ pool[kept].T).sort(dim=1, descending=True, stable=True).indices
    return kept[order[:, :k]].unique()


def _curate_by_loop(pool, seeds, k, twin, kind=""):
    if kind != "length":
        pool, seeds = (F.normalize(x.double(), dim=1) for x in (pool, seeds))
    like = (pool @ pool.T).tolist()
    M = len(pool)
    if kind == "both":
        kept = [i for i in range(M) if not any(like[i][j] >= twin for j in range(M) if j != i)]
    elif kind == "any earlier":
        kept = [i for i in range(M) if not any(like[i][j] >= twin for j in range(i))]
    elif kind == "last":
        kept = []
        for i in reversed(range(M)):
            if not any(like[i][j] >= twin for j in kept):
                kept.append(i)
        kept.sort()
    else:
        kept = []
        for i in range(M):
            if kind in ("no dedup", "late") or not any(like[i][j] >= twin for j in kept):
                kept.append(i)
    near = (seeds @ pool[kept].T).tolist()
    sign = 1 if kind == "farthest" else -1
    if kind == "in total":
        best = sorted(range(len(kept)), key=lambda j: -max(row[j] for row in near))[:k]
        return torch.tensor(sorted(kept[j] for j in best))
    taken = [sorted(range(len(kept)), key=lambda j, row=row: sign * row[j])[:k] for row in near]
    numbers = [j if kind == "position" else kept[j] for row in taken for j in row]
    if kind == "late":
        numbers = sorted(set(numbers))
        numbers = [i for n, i in enumerate(numbers) if not any(like[i][j] >= twin for j in numbers[:n])]
    return torch.tensor(sorted(numbers) if kind == "repeated" else sorted(set(numbers)))


CURATE_CAUSES = {
    "no dedup": "near-duplicates are still in: drop them before anything is retrieved",
    "both": "of two twins both were dropped; the first one stays",
    "any earlier": "a picture counts as a twin of KEPT ones only; here dropped ones still drop others",
    "last": "of two twins the later one was kept; keep the first",
    "late": "twins were dropped after the retrieval, so seeds got fewer than k; drop them before",
    "length": "this compares by the plain product; bring all vectors to length 1",
    "farthest": "the least similar pictures were taken",
    "in total": "this takes k pictures in all; each seed takes k",
    "position": "these are places in the list of kept pictures; return numbers in the pool",
    "repeated": "a picture that two seeds take is listed twice",
}


def check_curate(candidate):
    angles = torch.tensor([0.0, 20.0, 31.0, 90.0, 101.0, 180.0, 45.0, 60.0, 270.0, 75.0, 200.0]) * torch.pi / 180
    fan = torch.stack([angles.cos(), angles.sin()], 1) * torch.linspace(1, 4, len(angles))[:, None]
    seeds = torch.tensor([[3.0, 0.3], [0.1, 1.0], [0.5, 1.0]])
    wide = seeded(40, 6, seed=1) * (1 + seeded(40, 1, seed=2).abs())
    wide = torch.cat([wide, wide[5:15] * 1.5 + 0.1 * seeded(10, 6, seed=3)])
    axes = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 3.0], [-1.0, 0.0]])  # cosines of exactly 1
    for pool, asked, k, twin in (
        (wide, seeded(5, 6, seed=4), 4, 0.95),
        (fan, seeds, 3, 0.97),
        (fan, seeds, 2, 0.9),
        (axes, torch.tensor([[1.0, 1.0]]), 2, 1.0),
    ):
        right = _curate_by_loop(pool, asked, k, twin)
        causes = {"a similarity of exactly `twin` makes a twin, too": _curate_by_loop(pool, asked, k, twin + 1e-4)}
        causes |= {text: _curate_by_loop(pool, asked, k, twin, kind) for kind, text in CURATE_CAUSES.items()}
        causes["the numbers are right, but not sorted"] = lambda got, right=right: torch.equal(got.sort().values, right)
        what = f"the pictures that {len(asked)} seeds take from {len(pool)}, k = {k}, twins from {twin}"
        got = call(candidate, pool, asked, k, twin)
        if isinstance(got, torch.Tensor) and got.shape != right.shape:
            found = next((text for text, value in causes.items() if _equals(got, value)), "")
            shown = f"{got.tolist()}" if got.numel() < 20 else f"{got.numel()} numbers"
            raise Wrong(f"{what}: {len(right)} are right, came {shown}.", cause=found)
        expect_tensor(got, right, what, causes=causes)


def _equals(got, value):
    return isinstance(value, torch.Tensor) and got.shape == value.shape and bool((got == value).all())


# 7.7


def leak(bank, bank_labels, test, test_labels, twin):
    """Experiment: what near-duplicates of test pictures in the training bank do to a nearest-neighbour score. Features
    bank (M, D), test (N, D), labels int64; similarity is the cosine; a test picture takes the label of its most similar
    bank picture. Returns a dict of floats: "as it is", the accuracy with the whole bank; "cleaned", the accuracy after
    all bank pictures with similarity `twin` or more to ANY test picture are dropped; "twins", the share of test
    pictures that had one."""
    similar = F.normalize(test, dim=1) @ F.normalize(bank, dim=1).T
    close = similar >= twin
    cleaned = similar.masked_fill(close.any(0), -torch.inf)
    accuracy = lambda s: (bank_labels[s.argmax(1)] == test_labels).float().mean().item()  # noqa: E731
    return {"as it is": accuracy(similar), "cleaned": accuracy(cleaned), "twins": close.any(1).float().mean().item()}


def _leak_by_loop(bank, bank_labels, test, test_labels, twin, kind=""):
    if kind != "length":
        bank, test = (F.normalize(x.double(), dim=1) for x in (bank, test))
    s = (test @ bank.T).tolist()
    N, M = len(test), len(bank)
    close = [[value >= twin for value in row] for row in s]
    away = {j for j in range(M) if any(close[i][j] for i in range(N))}
    if kind == "other side":
        away = set(range(M)) - away
    right = lambda i, allowed: bool(  # noqa: E731
        bank_labels[max(allowed, key=lambda j: s[i][j])] == test_labels[i]
    )
    every = list(range(M))
    cleaned = [j for j in every if j not in away] or every
    own = [[j for j in every if not close[i][j]] for i in range(N)]
    tests = [i for i in range(N) if not any(close[i])] if kind == "tests dropped" else range(N)
    hits = [right(i, own[i] if kind == "own twins" else cleaned) for i in tests]
    result = {
        "as it is": sum(right(i, every) for i in range(N)) / N,
        "cleaned": sum(hits) / max(len(hits), 1),
        "twins": sum(any(row) for row in close) / N,
    }
    if kind == "bank share":
        result["twins"] = len(away) / M
    if kind == "count":
        result["twins"] = float(sum(any(row) for row in close))
    if kind == "exchanged":
        result["as it is"], result["cleaned"] = result["cleaned"], result["as it is"]
    if kind == "percent":
        result = {key: 100 * value for key, value in result.items()}
    return result


LEAK_CAUSES = {
    "other side": "the twins were kept and the others dropped",
    "tests dropped": "the test pictures with twins were dropped; drop bank pictures, and keep the test as it is",
    "own twins": "a bank picture was dropped for its own test picture only; drop it for all of them",
    "bank share": "this is the share of bank pictures; asked is the share of test pictures that had a twin",
    "count": "this is a number of pictures; asked is a share",
    "length": "this compares by the plain product; bring all vectors to length 1",
    "exchanged": "both accuracies are exchanged",
    "percent": "these are percents; asked are shares between 0 and 1",
}


def _crowd(copies, seed):
    """30 test and 60 bank vectors with labels that nothing tells, and `copies` near-duplicates of test pictures in the
    bank, with their labels."""
    test, labels = seeded(30, 8, seed=seed), seeded(30, seed=seed + 1, high=5)
    bank, others = seeded(60, 8, seed=seed + 2), seeded(60, seed=seed + 3, high=5)
    scale = 0.4 + 2 * seeded(copies, 1, seed=seed + 5).abs()
    bank = torch.cat([bank, (test[:copies] + 0.05 * seeded(copies, 8, seed=seed + 4)) * scale])
    return bank, torch.cat([others, labels[:copies]]), test, labels


def check_leak(candidate):
    few = (
        torch.tensor([[0.0, 1.0, 1.0], [2.0, 0.0, 0.0], [0.0, 5.0, 1.0], [1.0, 0.0, 1.0]]),
        torch.tensor([0, 1, 1, 2]),
    )
    exact = (*few, torch.eye(3)[:2], torch.tensor([1, 0]), 1.0)  # one twin, with a cosine of exactly 1
    for copies, case in (
        (24, (*_crowd(24, 0), 0.97)),
        (0, (*_crowd(0, 20), 0.97)),
        (12, (*_crowd(12, 40), 0.8)),
        (1, exact),
    ):
        right = _leak_by_loop(*case)
        got = call(candidate, *case)
        if not isinstance(got, dict) or set(got) != set(right):
            came = f"a dict with the keys {list(got)}" if isinstance(got, dict) else type(got).__name__
            raise Wrong(f"leak must return a dict with the keys {list(right)}; came {came}.")
        for key, value in right.items():
            causes = {"a similarity of exactly `twin` makes a twin, too": _leak_by_loop(*case[:4], case[4] + 1e-6)[key]}
            causes |= {text: _leak_by_loop(*case, kind)[key] for kind, text in LEAK_CAUSES.items()}
            expect_equal(got[key], value, f'"{key}" with {copies} copies in the bank', causes=causes, atol=1e-5)
        if copies == 24:  # the labels are drawn by chance: whatever is above 1 in 5 is leaked
            message = f"With 24 twins the score is {got['as it is']:.2f} and cleaned {got['cleaned']:.2f}."
            require(got["as it is"] > got["cleaned"] + 0.3, message, cause="the twins did not help", hint=3)


EXERCISES = (
    Exercise(
        id="7.1",
        title="Keep your distance",
        minutes=10,
        difficulty=2,
        contract="`koleo(x)`: (B, D) -> minus the mean log distance of each vector (of length 1) to its nearest other, a scalar.",
        hints=(
            "Who is the nearest neighbour of a vector if I do not leave the vector itself out?",
            "z = x / |x|; -(1/B) sum over i of log(min over j != i of |z_i - z_j| + 1e-8).",
            "normalise; cosines; put -2 on the diagonal; argmax; norm of the difference, plus 1e-8; log, mean, minus",
        ),
        solution=koleo,
        check=check_koleo,
        covers="three batches, the gradient, two equal vectors",
        wrong=tuple((_koleo_by_loop(kind), text.split(";")[0].split(":")[0]) for kind, text in KOLEO_CAUSES.items()),
    ),
    Exercise(
        id="7.2",
        title="Fair shares",
        minutes=15,
        difficulty=2,
        contract="`sinkhorn(scores, tau, iterations)`: teacher scores (B, K) -> targets (B, K) whose rows sum to 1 and whose columns sum to nearly B / K.",
        hints=(
            "What is equal for all prototypes at the end, what for all pictures, and which of the two is exact?",
            "q = exp(scores / tau); each round: q / q.sum over pictures, then q / q.sum over prototypes.",
            "detach; divide; subtract the maximum; exp; a loop with two divisions, columns first, keepdim (in logarithms: subtract logsumexp, and exp at the end)",
        ),
        solution=sinkhorn,
        check=check_sinkhorn,
        covers="three score tables, large scores, no gradient",
        wrong=tuple(
            (lambda scores, tau, iterations, kind=kind: _sinkhorn_by_loop(scores, tau, iterations, kind), phrase)
            for kind, phrase in (
                ("rows", "which is a softmax"),
                ("columns", "only the columns"),
                ("rows first", "rows come last"),
                ("tau", "not divided by tau"),
                ("once", "one round"),
                ("softmax", "begins with a softmax"),
                ("share", "1 / B"),
            )
        )
        + (
            (lambda scores, tau, iterations: _overflowing(scores, tau, iterations), "not a number"),
            (lambda scores, tau, iterations: sinkhorn(scores, tau, iterations) + 0 * scores, "carry a gradient"),
        ),
    ),
    Exercise(
        id="7.3",
        title="Guess the hidden patches",
        minutes=15,
        difficulty=3,
        contract="`patch_loss(targets, student, hidden, tau)`: targets and scores (B, N, K), hidden (B, N) bool -> scalar, every picture with hidden patches counting alike.",
        hints=(
            "Over what do I average first, if a picture with one hidden patch is to count as much as one with ten?",
            "cost (B, N) = -sum_k P_t log softmax(s / tau); per picture: sum over hidden / number hidden; then the mean.",
            "log_softmax of the scores over tau; sum over K; times the mask; sum over N by the counts; only rows with a count",
        ),
        solution=patch_loss,
        check=check_patch_loss,
        covers="two ragged masks, one with an untouched picture, and the gradient",
        wrong=tuple(
            (_patch_loss_by_loop(kind), text.split(";")[0].split(":")[0]) for kind, text in PATCH_CAUSES.items()
        ),
    ),
    Exercise(
        id="7.4",
        title="From tokens to a map",
        minutes=10,
        difficulty=2,
        contract="`feature_map(tokens, grid, registers)`: (B, 1 + registers + N, D) -> (B, D, rows, columns).",
        hints=(
            "Which tokens stand in front of the patches, and how many?",
            "Skip 1 + registers; (B, N, D) -> (B, D, N) -> (B, D, rows, columns).",
            "slice, swap the last two axes, reshape: a reshape without the swap would cut features into places",
        ),
        solution=feature_map,
        check=check_feature_map,
        covers="oblong grids, with four registers, one and none",
        wrong=tuple((_wrong_map(kind), text.split(";")[0].split(":")[0]) for kind, text in MAP_CAUSES.items()),
    ),
    Exercise(
        id="7.5",
        title="A head without training",
        minutes=20,
        difficulty=3,
        contract="`ridge_head(x, y, strength)`: features (M, D), targets (M, C) -> weight (D, C), bias (C,), the best in closed form.",
        hints=(
            "How do I get rid of the bias before I solve for the weight?",
            "With x and y centred: (x'x / M + strength I) w = x'y / M; then b = mean(y) - mean(x) w.",
            "subtract both means; torch.linalg.solve with the penalised system; the bias from the means",
        ),
        solution=ridge_head,
        check=check_ridge_head,
        covers="more rows than columns and fewer, features far from zero mean",
        wrong=tuple(
            (
                lambda x, y, strength, kind=kind: _ridge_by_descent(x, y, strength, kind),
                text.split(";")[0].split(":")[0],
            )
            for kind, text in RIDGE_CAUSES.items()
        )
        + (
            (lambda x, y, strength: (ridge_head(x, y, strength)[0], y.mean(0)), "take x_mean w off"),
            (lambda x, y, strength: _ridge_by_descent(x, y, 1e-9), "the penalty is missing"),
        ),
    ),
    Exercise(
        id="7.6",
        title="The data engine",
        minutes=25,
        difficulty=4,
        contract="`curate(pool, seeds, k, twin)`: features (M, D), (S, D) -> sorted int64 numbers of the pool's pictures that the seeds take after near-duplicates are dropped.",
        hints=(
            "If B is a twin of A and C a twin of B, but not of A: which of the three stay?",
            "kept grows in order: i joins if its largest cosine with kept ones is below twin. Then top k of seeds x kept.",
            "normalise; a loop over the pool with a list; cosines of seeds and kept; stable sort, descending; first k columns; back to numbers of the pool; unique",
        ),
        solution=curate,
        check=check_curate,
        covers="chains of twins, vectors of other lengths, pictures that several seeds want",
        wrong=tuple(
            (lambda pool, seeds, k, twin, kind=kind: _curate_by_loop(pool, seeds, k, twin, kind), phrase)
            for kind, phrase in (
                ("no dedup", "still in"),
                ("both", "the first one stays"),
                ("any earlier", "of KEPT ones only"),
                ("last", "keep the first"),
                ("late", "after the retrieval"),
                ("length", "plain product"),
                ("farthest", "least similar"),
                ("in total", "k pictures in all"),
                ("position", "numbers in the pool"),
                ("repeated", "listed twice"),
            )
        )
        + ((lambda pool, seeds, k, twin: _curate_by_loop(pool, seeds, k, twin + 1e-6), "exactly `twin`"),),
    ),
    Exercise(
        id="7.7",
        title="Experiment: the leak",
        minutes=25,
        difficulty=3,
        contract='`leak(bank, bank_labels, test, test_labels, twin)`: -> {"as it is", "cleaned", "twins"}, floats: nearest-neighbour accuracy with and without near-duplicates of the test in the bank.',
        hints=(
            "From which of the two sets do I drop pictures, and may a dropped one still answer for another test picture?",
            "similar (N, M); a column goes if any entry is `twin` or more; accuracy before and after; rows with such an entry.",
            "normalise both; cosines; mask columns with minus infinity; argmax per row; compare labels; means as floats",
        ),
        solution=leak,
        check=check_leak,
        covers="many twins, none, and a loose threshold; labels that nothing but a leak can tell",
        wrong=tuple(
            (
                lambda bank, bank_labels, test, test_labels, twin, kind=kind: _leak_by_loop(
                    bank, bank_labels, test, test_labels, twin, kind
                ),
                text.split(";")[0].split(":")[0],
            )
            for kind, text in LEAK_CAUSES.items()
        )
        + (
            (
                lambda bank, labels, test, answers, twin: leak(bank, labels, test, answers, twin + 1e-6),
                "exactly `twin`",
            ),
        ),
    ),
    Exercise(
        id="7.8",
        title="Registers",
        minutes=60,
        difficulty=5,
        open=True,
        contract="Give the ViT four register tokens that are thrown away at the end, train it as here, and hold its patch tokens against those without: norms, segmentation, depth, over three seeds.",
        hints=(
            "Where do the registers enter, and do they get a position?",
            "A parameter (R, D) behind [CLS], without positions; everything that reads patches skips 1 + R tokens.",
            "Look at the norms of the patch tokens first: the artefacts of large models may not exist at this size.",
        ),
        self_check=(
            "Did you write down beforehand whether a model this small has artefacts to cure?",
            "Does every reader of patch tokens skip the registers as well as [CLS]?",
            "Is the difference larger than the spread over three seeds?",
            "Do the registers attend to something that [CLS] does not?",
        ),
    ),
)


def _overflowing(scores, tau, iterations):
    q = (scores.detach() / tau).exp()
    for _ in range(iterations):
        q = q / q.sum(0, keepdim=True)
        q = q / q.sum(1, keepdim=True)
    return q

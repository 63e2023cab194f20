"""Lesson 04, contrastive learning: six exercises, an experiment, and an open one."""

import math
from functools import partial

import torch
import torch.nn.functional as F

from .engine import Exercise, Wrong
from .expect import call, expect_close_grad, expect_tensor, seeded


def _unit_by_loops(x):
    return torch.stack([row / math.sqrt(sum(v * v for v in row.tolist())) for row in x])


# 4.1


def semi_hard_mask(d_positive, d_negative, margin):
    """Which negatives are semi-hard: farther than the positive, by less than the margin. d_positive (M,), d_negative
    (M, K), squared distances -> bool (M, K)"""
    gap = d_negative - d_positive[:, None]
    return (gap > 0) & (gap < margin)


def _semi_hard_by_loops(d_positive, d_negative, margin):
    return torch.tensor(
        [[0 < n - p < margin for n in row] for p, row in zip(d_positive.tolist(), d_negative.tolist(), strict=True)]
    )


def _semi_hard_across(d_positive, d_negative, margin):
    gap = d_negative - d_positive  # broadcasts only where K is M
    return (gap > 0) & (gap < margin)


def check_semi_hard_mask(candidate):
    for M, K, margin in ((7, 9, 0.3), (4, 4, 0.5), (5, 6, 1.0)):
        d_positive = seeded(M, seed=M).abs()
        d_negative = (d_positive[:, None] + seeded(M, K, seed=K, scale=0.6)).abs()
        d_negative[0, 0] = d_positive[0] / 2
        gap = d_negative - d_positive[:, None]
        causes = {
            "these are all violated triplets; the hard ones, nearer than the positive, are to be left out": gap
            < margin,
            "these are the hard negatives, nearer than the positive": gap < 0,
            "these are the easy ones, beyond the margin": gap > margin,
            "the lower bound is there, the margin is not": gap > 0,
            "the sign is turned: these lie within the margin on the near side": (gap < 0) & (gap > -margin),
            "the margin was compared with the absolute gap: hard negatives came in": (gap != 0) & (gap.abs() < margin),
            "the distance itself was compared with the margin; what counts is the gap to the positive": (gap > 0)
            & (d_negative < margin),
            "column j was compared with positive j; each row has its own positive: d_positive[:, None]": (
                partial(_semi_hard_across, d_positive, d_negative, margin)
            ),
            "the distances were squared again": _semi_hard_by_loops(d_positive**2, d_negative**2, margin),
        }
        what = f"semi_hard_mask for {M} anchors with {K} negatives, margin {margin}"
        got = call(candidate, d_positive, d_negative, margin)
        expect_tensor(got, _semi_hard_by_loops(d_positive, d_negative, margin), what, causes=causes)
    tie = call(candidate, torch.tensor([0.25]), torch.tensor([[0.25, 0.5, 0.375]]), 0.25)
    cause = {
        "with equal distances, or at the margin itself, a negative is not semi-hard: use < and >": lambda got: True
    }
    expect_tensor(tie, torch.tensor([[False, False, True]]), "semi_hard_mask at the two borders", causes=cause)


# 4.2


def queue_loss(q, k, queue, tau):
    """InfoNCE with a queue: the positive of q_i is k_i, the negatives are the rows of the queue. All are unit vectors;
    q, k (B, D), queue (K, D) -> scalar. No gradient reaches k or the queue."""
    positive = (q * k.detach()).sum(1, keepdim=True)
    negative = q @ queue.detach().T
    logits = torch.cat([positive, negative], dim=1) / tau
    return F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.int64, device=q.device))


def _queue_terms(q, k, queue, tau, scale=lambda s, tau: s / tau):
    """Per row the positive's logit (B,) and the negatives' (B, K)."""
    return scale((q * k).sum(1), tau), scale(q @ queue.T, tau)


def _queue_wrong(kind):
    def loss(q, k, queue, tau):
        scale = (lambda s, tau: s * tau) if kind == "multiplied" else (lambda s, tau: s / tau)
        positive, negative = _queue_terms(q, k, queue, tau, scale)
        if kind == "missing":
            return (negative.logsumexp(1) - positive).mean()
        if kind == "batch":
            negative = torch.cat([q @ k.T / tau, negative], 1)
            return F.cross_entropy(negative, torch.arange(len(q)))
        logits = torch.cat([positive[:, None], negative], 1)
        if kind == "late":
            return -logits.softmax(1)[:, 0].mean().log()
        if kind == "last":
            return F.cross_entropy(logits, torch.full((len(q),), logits.shape[1] - 1))
        total = (logits.logsumexp(1) - positive).sum()
        return total if kind == "sum" else total / logits.numel() if kind == "all" else total / len(q)

    return loss


def _leaking(q, k, queue):
    return _queue_wrong("leak")(q, k, queue, 0.2)


def check_queue_loss(candidate):
    for B, D, K, tau in ((1, 2, 3, 0.07), (4, 3, 6, 0.2), (3, 5, 8, 0.5)):
        q, k, queue = (F.normalize(seeded(n, D, seed=B + s), dim=1) for n, s in ((B, 1), (B, 2), (K, 3)))
        k = F.normalize(k + q, dim=1)
        if B == 1:
            q, k = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.8, 0.6]])
            queue = torch.tensor([[0.0, 1.0], [-1.0, 0.0], [0.6, -0.8]])
        rows = []
        for i in range(B):
            scores = [math.exp(float(q[i] @ v) / tau) for v in (k[i], *queue)]
            rows.append(-math.log(scores[0] / sum(scores)))
        causes = {
            "tau multiplies here; the cosine is divided by it": _queue_wrong("multiplied")(q, k, queue, tau),
            "the positive is missing from the denominator": _queue_wrong("missing")(q, k, queue, tau),
            "the other keys of the batch count as negatives too; here only the queue does": _queue_wrong("batch")(
                q, k, queue, tau
            ),
            "the positive stands in column 0, so every label is 0": _queue_wrong("last")(q, k, queue, tau),
            "this is the sum over the batch; the loss is the mean": _queue_wrong("sum")(q, k, queue, tau),
            "first the logarithm of each row's share, then the mean": _queue_wrong("late")(q, k, queue, tau),
            "this is a mean over the whole matrix; cross entropy has one value per row": _queue_wrong("all")(
                q, k, queue, tau
            ),
        }
        what = f"queue_loss with {B} queries, {K} in the queue, tau {tau}"
        expect_tensor(call(candidate, q, k, queue, tau), torch.tensor(rows).mean(), what, causes=causes)
    leak = {"gradient flows into the keys: they come from the slow encoder and must be detached": _leaking}
    expect_close_grad(
        lambda q, k, queue: call(candidate, q, k, queue, 0.2),
        lambda q, k, queue: queue_loss(q, k, queue, 0.2),
        q,
        k,
        queue,
        what="queue_loss",
        causes=leak,
    )


# 4.3


def nt_xent_interleaved(z, tau):
    """NT-Xent of z (2B, D), where rows 0 and 1 are the two views of one picture, rows 2 and 3 those of the next, and
    so on; the vectors have any length and are normalised here. -> scalar"""
    z = F.normalize(z, dim=1)
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    logits = (z @ z.T / tau).masked_fill(itself, -torch.inf)
    partner = torch.arange(len(z), device=z.device) ^ 1
    return F.cross_entropy(logits, partner)


def _nt_xent_by_loops(z, tau):
    z, total = _unit_by_loops(z.double()), 0.0
    for i in range(len(z)):
        partner = i + 1 if i % 2 == 0 else i - 1
        scores = {j: math.exp(float(z[i] @ z[j]) / tau) for j in range(len(z)) if j != i}
        total -= math.log(scores[partner] / sum(scores.values()))
    return torch.tensor(total / len(z), dtype=torch.float32)


def _nt_xent_wrong(kind):
    def loss(z, tau):
        n = len(z)
        z = z if kind == "raw" else F.normalize(z, dim=0) if kind == "columns" else F.normalize(z, dim=1)
        scores = z @ z.T * tau if kind == "multiplied" else z @ z.T / tau
        fill = {"unmasked": None, "zero": 0.0}.get(kind, -torch.inf)
        itself = torch.eye(n, dtype=torch.bool)
        scores = scores if fill is None else scores.masked_fill(itself, fill)
        target = torch.arange(n).roll(n // 2) if kind == "stacked" else torch.arange(n) ^ 1
        if kind == "half":
            return F.cross_entropy(scores[::2], target[::2])
        return F.cross_entropy(scores, target, reduction="sum" if kind == "sum" else "mean")

    return loss


def check_nt_xent_interleaved(candidate):
    for n, D, tau in ((6, 3, 0.5), (10, 4, 0.1), (8, 5, 0.2)):
        z = seeded(n, D, seed=n) + 0.5 * seeded(n // 2, D, seed=n + 1).repeat_interleave(2, 0)
        z = z * torch.linspace(0.5, 3, n)[:, None]
        cause = {
            "unmasked": "each vector meets itself: the diagonal is not masked",
            "zero": "the diagonal is set to 0, and e^0 = 1 still counts; -inf takes it out",
            "stacked": "these partners are i and i + B, as in a stacked batch; here 2i and 2i + 1 belong together",
            "raw": "the vectors are not normalised: a long one would win by its length",
            "columns": "the columns were normalised (dim 0); each vector is a row",
            "multiplied": "tau multiplies here; the cosine is divided by it",
            "half": "only every second row asks; both views of each picture do",
            "sum": "this is the sum over the rows; the loss is the mean",
        }
        causes = {sentence: _nt_xent_wrong(kind)(z, tau) for kind, sentence in cause.items()}
        what = f"nt_xent_interleaved of {n} vectors at tau {tau}"
        expect_tensor(call(candidate, z, tau), _nt_xent_by_loops(z, tau), what, causes=causes)
    expect_close_grad(
        lambda t: call(candidate, t, 0.2), lambda t: nt_xent_interleaved(t, 0.2), z, what="nt_xent_interleaved"
    )


# 4.4


def query_gradient(q, k, tau):
    """The gradient of InfoNCE with respect to the queries, without autograd: for each row (sum_j p_j k_j - k_i) / tau,
    divided by B because the loss is a mean. q, k (B, D), scores are q @ k.T / tau -> (B, D)"""
    p = (q @ k.T / tau).softmax(dim=1)
    return (p @ k - k) / (tau * len(q))


def _gradient_wrong(kind):
    def gradient(q, k, tau):
        scores = q @ k.T * tau if kind == "multiplied" else q @ k.T / tau
        p = scores.softmax(0 if kind == "columns" else 1)
        if kind == "negatives":
            p = p - torch.diag(p.diagonal())
        pushed = p.T @ k if kind == "transposed" else p @ k
        result = (k - pushed if kind == "sign" else pushed - k) / (tau * len(q))
        return result * len(q) if kind == "sum" else result * tau if kind == "tau" else result

    return gradient


def check_query_gradient(candidate):
    for B, D, tau in ((3, 4, 0.5), (5, 5, 0.2), (6, 2, 0.3)):
        q, k = seeded(B, D, seed=B), seeded(B, D, seed=D + 9)
        leaf = q.clone().requires_grad_()
        F.cross_entropy(leaf @ k.T / tau, torch.arange(B)).backward()
        cause = {
            "sign": "the sign is turned: this is the direction of descent, not the gradient",
            "tau": "the factor 1 / tau in front is missing",
            "sum": "the loss is a mean over B rows, so each row's gradient is divided by B",
            "columns": "the softmax runs over the candidates of one query: dim 1",
            "multiplied": "tau multiplies the scores here; they are divided by it",
            "negatives": "the positive has a share, too: the sum runs over all j, the partner included",
            "transposed": "row i of p weighs the keys of query i: p @ k, not p.T @ k",
        }
        causes = {sentence: _gradient_wrong(kind)(q, k, tau) for kind, sentence in cause.items()}
        causes["the pull is missing: subtract the own key"] = (q @ k.T / tau).softmax(1) @ k / (tau * B)
        what = f"query_gradient for {B} queries at tau {tau}"
        expect_tensor(call(candidate, q, k, tau), leaf.grad, what, causes=causes)


# 4.5


def align_uniform(a, b, t=2.0):
    """(alignment, uniformity) as two scalars: the mean of |a_i - b_i|^2, and log of the mean of exp(-t |a_i - a_j|^2)
    over the pairs i < j; a, b (B, D) are normalised first."""
    a, b = F.normalize(a, dim=1), F.normalize(b, dim=1)
    alignment = (a - b).square().sum(1).mean()
    uniformity = torch.pdist(a).square().mul(-t).exp().mean().log()
    return alignment, uniformity


def _uniform_from(a, t, kind=""):
    a = a if kind == "raw" else F.normalize(a, dim=1)
    squared = (a[:, None] - a).square().sum(2)
    if kind == "distance":
        squared = squared.clamp_min(1e-12).sqrt()
    distinct = ~torch.eye(len(a), dtype=torch.bool) if kind != "diagonal" else torch.ones_like(squared, dtype=bool)
    values = -t * squared[distinct]
    return (
        values.mean()
        if kind == "inside"
        else -values.exp().mean().log()
        if kind == "sign"
        else values.exp().mean().log()
    )


def _align_from(a, b, kind=""):
    if kind != "raw":
        a, b = F.normalize(a, dim=1), F.normalize(b, dim=1)
    squared = (a - b).square()
    return (
        squared.mean()
        if kind == "entries"
        else squared.sum(1).sqrt().mean()
        if kind == "distance"
        else squared.sum(1).mean()
    )


def check_align_uniform(candidate):
    fixture = torch.tensor([[1.0, 2, 2], [2, -1, 0], [0, 0, 3]]), torch.tensor([[2.0, 1, 2], [1, -2, 1], [0, 1, 1]])
    cases = ((fixture, 2.0), ((seeded(7, 4, seed=1) * 3, seeded(7, 4, seed=2)), 1.0), (fixture[::-1], 3.0))
    for (a, b), t in cases:
        got = call(candidate, a, b, t)
        if not isinstance(got, (tuple, list)) or len(got) != 2:
            raise Wrong(f"align_uniform must return two scalars (alignment, uniformity); came {type(got).__name__}.")
        causes = {
            "the vectors are not normalised": _align_from(a, b, "raw"),
            "this is the distance; alignment takes its square": _align_from(a, b, "distance"),
            "the mean runs over all entries; sum over the D entries of a pair first": _align_from(a, b, "entries"),
            "the order is (alignment, uniformity)": _uniform_from(a, t),
        }
        expect_tensor(got[0], _align_from(a, b), f"the alignment of {len(a)} pairs", causes=causes)
        causes = {
            "each vector was compared with itself, too: leave the diagonal out": _uniform_from(a, t, "diagonal"),
            "the logarithm belongs outside: first the mean of the exponentials": _uniform_from(a, t, "inside"),
            "this is the distance in the exponent; it takes the square": _uniform_from(a, t, "distance"),
            "the vectors are not normalised": _uniform_from(a, t, "raw"),
            "the sign is turned: spread out is negative": _uniform_from(a, t, "sign"),
            "uniformity is asked of a alone": lambda got, a=a, b=b, t=t: any(
                torch.isclose(got, _uniform_from(x, t), atol=1e-5) for x in (b, torch.cat([a, b]))
            ),
            "t is not used": _uniform_from(a, 2.0) if t != 2 else "none",
        }
        expect_tensor(got[1], _uniform_from(a, t), f"the uniformity with t={t:g}", causes=causes)
    for part in (0, 1):
        fn = lambda a, b, part=part: call(candidate, a, b)[part]  # noqa: E731
        oracle = lambda a, b, part=part: (_align_from(a, b), _uniform_from(a, 2.0) + 0 * b.sum())[part]  # noqa: E731
        expect_close_grad(fn, oracle, *cases[1][0], what=("the alignment", "the uniformity")[part])


# 4.6


def masked_info_nce(a, b, meanings, tau):
    """InfoNCE of a against b where equal meanings are no negatives: entry (i, j) with meanings[i] == meanings[j] and
    i != j is left out. a, b (B, D) unit vectors, meanings (B,) int64 -> scalar"""
    same = meanings[:, None] == meanings
    partner = torch.eye(len(a), dtype=torch.bool, device=a.device)
    logits = (a @ b.T / tau).masked_fill(same & ~partner, -torch.inf)
    return F.cross_entropy(logits, torch.arange(len(a), device=a.device))


def _masked_wrong(kind):
    def loss(a, b, meanings, tau):
        same, partner = meanings[:, None] == meanings, torch.eye(len(a), dtype=torch.bool)
        logits, own = a @ b.T * (tau if kind == "multiplied" else 1 / tau), torch.arange(len(a))
        if kind == "all":
            return (logits.exp().masked_fill(same, 0).sum(1).log() - logits.diagonal()).mean()
        if kind == "soft":
            return F.cross_entropy(logits, same.float() / same.sum(1, keepdim=True))
        if kind == "mutual":
            return F.cross_entropy(logits.masked_fill(~same, -torch.inf), own)
        fill = 0.0 if kind == "zero" else -torch.inf
        logits = logits if kind == "plain" else logits.masked_fill(same & ~partner, fill)
        return F.cross_entropy(logits.T if kind == "turned" else logits, own)

    return loss


def check_masked_info_nce(candidate):
    for meanings, D, tau in (([0, 1, 0, 2, 1], 3, 0.2), ([4, 4, 4, 7], 4, 0.5), ([3, 1, 2], 2, 0.3)):
        B, meanings = len(meanings), torch.tensor(meanings)
        a, b = F.normalize(seeded(B, D, seed=B), dim=1), F.normalize(seeded(B, D, seed=B + 30), dim=1)
        rows = []
        for i in range(B):
            scores = {j: math.exp(float(a[i] @ b[j]) / tau) for j in range(B) if j == i or meanings[j] != meanings[i]}
            rows.append(-math.log(scores[i] / sum(scores.values())))
        cause = {
            "plain": "equal meanings are still pushed apart: the mask is missing",
            "all": "the partner was masked, too; it must stay in the denominator",
            "zero": "a score of 0 still counts as e^0 = 1; fill in -inf",
            "soft": "these are shared targets, another remedy; here equal meanings are left out and the target stays i",
            "mutual": "the mask is the wrong way round: this leaves out the true negatives",
            "turned": "this asks b for its a; asked is a for its b",
            "multiplied": "tau multiplies here; the cosine is divided by it",
        }
        causes = {sentence: _masked_wrong(kind)(a, b, meanings, tau) for kind, sentence in cause.items()}
        what = f"masked_info_nce with meanings {meanings.tolist()}"
        expect_tensor(call(candidate, a, b, meanings, tau), torch.tensor(rows).mean(), what, causes=causes)
    meanings = torch.tensor([0, 1, 0, 2])
    a, b = F.normalize(seeded(4, 3, seed=1), dim=1), F.normalize(seeded(4, 3, seed=2), dim=1)
    expect_close_grad(
        lambda x, y: call(candidate, x, y, meanings, 0.2),
        lambda x, y: masked_info_nce(x, y, meanings, 0.2),
        a,
        b,
        what="masked_info_nce",
    )


# 4.7


def information_bounds(correlation, dims, sizes, seed=0):
    """Experiment: for each N in sizes, ln N - InfoNCE in nats between q (M, dims) normal and k = r q + sqrt(1 - r^2)
    noise, r the correlation, with the best score ln p(k|q) - ln p(k); about 4,000 queries each -> {N: float}"""
    generator, estimates = torch.Generator().manual_seed(seed), {}
    for N in sizes:
        batches = max(1, 4_000 // N)
        q, noise = torch.randn(2, batches, N, dims, generator=generator)
        k = correlation * q + math.sqrt(1 - correlation**2) * noise
        distance = torch.cdist(correlation * q, k).square()
        scores = k.square().sum(2)[:, None] / 2 - distance / (2 * (1 - correlation**2))
        loss = F.cross_entropy(scores.flatten(0, 1), torch.arange(N).repeat(batches))
        estimates[N] = math.log(N) - loss.item()
    return estimates


def check_information_bounds(candidate):
    for correlation, dims, sizes in ((0.6, 10, (8, 64)), (0.9, 12, (4, 32))):
        trials = [information_bounds(correlation, dims, sizes, seed) for seed in (11, 12, 13)]
        truth = -dims / 2 * math.log(1 - correlation**2)
        got = call(candidate, correlation, dims, sizes)
        if not isinstance(got, dict) or set(got) != set(sizes):
            came = f"a dict with the keys {list(got)}" if isinstance(got, dict) else type(got).__name__
            raise Wrong(f"information_bounds must return a dict with the keys {list(sizes)}; came {came}.")
        for N in sizes:
            value, ours = sum(trial[N] for trial in trials) / 3, got[N]
            if not isinstance(ours, (int, float)) or not math.isfinite(ours):
                raise Wrong(f"The estimate for N = {N} must be a finite number, but is {ours!r}.")
            if abs(ours - value) > 0.12:
                message = f"N = {N}, r = {correlation}, {dims} dimensions: expected about {value:.2f} (three other seeds), came {ours:.2f}."
                raise Wrong(message, cause=_cause_of_bound(ours, value, N, truth), hint=3)


def _cause_of_bound(ours, value, N, truth):
    """The likely cause of a wrong estimate `ours` where `value` was expected."""
    if abs(ours - math.log(N)) < 1e-6:
        return "this is ln N, the most the estimate can say; the loss is to be subtracted"
    if abs(ours - (math.log(N) - value)) < 0.12:
        return "this is the loss itself; the estimate is ln N minus it"
    if abs(ours - value / math.log(2)) < 0.15:
        return "this is in bits; nats use the natural logarithm"
    if abs(ours - truth) < 0.12:
        return "this is the true information by its formula; the experiment is to estimate it from InfoNCE"
    if abs(ours - (value - math.log(N) + math.log(max(N - 1, 1)))) < 0.02 or abs(ours - value + math.log(N)) < 0.12:
        return "the N counts all candidates, the positive included: add ln N"
    if ours > math.log(N) + 0.01:
        return "no estimate of this kind can exceed ln N: is the positive among the candidates?"
    return "the score is not the best one: ln p(k|q) - ln p(k), with p(k|q) normal around r q with variance 1 - r^2"


def _bounds_with(score=None, change=lambda value, N: value):
    """A wrong experiment: another score, or the right estimate changed."""

    def information_bounds_wrong(correlation, dims, sizes, seed=0):
        if score is None:
            right = information_bounds(correlation, dims, sizes, seed)
            return {N: change(value, N) for N, value in right.items()}
        generator, estimates = torch.Generator().manual_seed(seed), {}
        for N in sizes:
            q, noise = torch.randn(2, max(1, 4_000 // N), N, dims, generator=generator)
            k = correlation * q + math.sqrt(1 - correlation**2) * noise
            loss = F.cross_entropy(score(q, k, correlation).flatten(0, 1), torch.arange(N).repeat(len(q)))
            estimates[N] = math.log(N) - loss.item()
        return estimates

    return information_bounds_wrong


EXERCISES = (
    Exercise(
        id="4.1",
        title="Semi-hard negatives",
        minutes=5,
        difficulty=1,
        contract="`semi_hard_mask(d_positive, d_negative, margin)`: (M,), (M, K) -> bool (M, K).",
        hints=(
            "Farther than what, and by how much at most?",
            "0 < d_negative - d_positive < margin, where row i is compared with d_positive[i].",
            "give d_positive a second dimension; subtract; two comparisons joined with &",
        ),
        solution=semi_hard_mask,
        check=check_semi_hard_mask,
        covers="square and other shapes, hard, semi-hard and easy negatives, ties",
        wrong=(
            (lambda p, n, margin: n - p[:, None] < margin, "all violated triplets"),
            (lambda p, n, margin: n < p[:, None], "these are the hard negatives"),
            (lambda p, n, margin: n - p[:, None] > margin, "easy ones"),
            (lambda p, n, margin: n > p[:, None], "the margin is not"),
            (lambda p, n, margin: (n < p[:, None]) & (n > p[:, None] - margin), "sign is turned"),
            (lambda p, n, margin: (n >= p[:, None]) & (n - p[:, None] <= margin), "use < and >"),
            (lambda p, n, margin: semi_hard_mask(p**2, n**2, margin), "squared again"),
            (
                lambda p, n, margin: (
                    semi_hard_mask(p, n.T, margin).T if len(p) == n.shape[1] else semi_hard_mask(p, n, margin)
                ),
                "each row has its own positive",
            ),
        ),
    ),
    Exercise(
        id="4.2",
        title="The loss with a queue",
        minutes=10,
        difficulty=2,
        contract="`queue_loss(q, k, queue, tau)`: q, k (B, D), queue (K, D), unit vectors -> InfoNCE, a scalar; no gradient to k or queue.",
        hints=(
            "How do I put one positive and K negatives into one row of logits, and which label is right then?",
            "logits (B, 1 + K) = [q_i . k_i, q_i . queue_j] / tau; the label of every row is 0.",
            "row-wise product of q and the detached k, summed; q times the transposed detached queue; concatenate; divide by tau; cross entropy with zeros",
        ),
        solution=queue_loss,
        check=check_queue_loss,
        covers="three shapes and temperatures, gradients to q alone",
        wrong=(
            (_queue_wrong("multiplied"), "tau multiplies"),
            (_queue_wrong("missing"), "missing from the denominator"),
            (_queue_wrong("batch"), "other keys of the batch"),
            (_queue_wrong("last"), "every label is 0"),
            (_queue_wrong("sum"), "the loss is the mean"),
            (_queue_wrong("all"), "whole matrix"),
            (_queue_wrong("late"), "then the mean"),
            (_queue_wrong("leak"), "must be detached"),
        ),
    ),
    Exercise(
        id="4.3",
        title="NT-Xent, views side by side",
        minutes=15,
        difficulty=3,
        contract="`nt_xent_interleaved(z, tau)`: (2B, D), rows 2i and 2i + 1 are partners, any lengths -> scalar.",
        hints=(
            "Who is the partner of row 4, and who is the partner of row 5?",
            "The partner of i is i + 1 for even i and i - 1 for odd i. The diagonal must be worth e^-inf = 0.",
            "normalise the rows; all cosines over tau; put -inf on the diagonal; cross entropy with the partners' numbers as labels",
        ),
        solution=nt_xent_interleaved,
        check=check_nt_xent_interleaved,
        covers="vectors of different lengths, three temperatures, gradients",
        wrong=tuple(
            (_nt_xent_wrong(kind), phrase)
            for kind, phrase in (
                ("unmasked", "meets itself"),
                ("zero", "e^0 = 1"),
                ("stacked", "stacked batch"),
                ("raw", "not normalised"),
                ("columns", "dim 0"),
                ("multiplied", "tau multiplies"),
                ("half", "every second row"),
                ("sum", "the loss is the mean"),
            )
        ),
    ),
    Exercise(
        id="4.4",
        title="The gradient, without autograd",
        minutes=20,
        difficulty=3,
        contract="`query_gradient(q, k, tau)`: (B, D) twice, scores q @ k.T / tau -> gradient of the mean InfoNCE with respect to q, (B, D).",
        hints=(
            "Section 3 has the formula for one query. What changes when the loss is a mean over B of them?",
            "With p = softmax over the candidates, row i is (sum_j p_ij k_j - k_i) / (tau B).",
            "scores over tau; softmax along dim 1; shares times keys; minus the own key; divided by tau and by B",
        ),
        solution=query_gradient,
        check=check_query_gradient,
        covers="three shapes and temperatures, against autograd",
        wrong=tuple(
            (_gradient_wrong(kind), phrase)
            for kind, phrase in (
                ("sign", "sign is turned"),
                ("tau", "1 / tau"),
                ("sum", "divided by B"),
                ("columns", "dim 1"),
                ("multiplied", "tau multiplies"),
                ("negatives", "the partner included"),
                ("transposed", "not p.T @ k"),
            )
        ),
    ),
    Exercise(
        id="4.5",
        title="Alignment and uniformity",
        minutes=15,
        difficulty=2,
        contract="`align_uniform(a, b, t=2.0)`: (B, D) twice -> (alignment, uniformity), two scalars.",
        hints=(
            "Which pairs does uniformity compare: may a vector meet itself?",
            "torch.pdist gives the distances of the pairs i < j. Uniformity: square, times -t, exp, mean, log, in this order.",
            "normalise both; mean of the summed squared differences; pdist of a, squared, times -t, exp, mean, log; return both",
        ),
        solution=align_uniform,
        check=check_align_uniform,
        covers="vectors of different lengths, three values of t, gradients",
        wrong=(
            (lambda a, b, t=2.0: (_align_from(a, b), _uniform_from(a, t, "diagonal")), "leave the diagonal out"),
            (lambda a, b, t=2.0: (_align_from(a, b), _uniform_from(a, t, "inside")), "logarithm belongs outside"),
            (lambda a, b, t=2.0: (_align_from(a, b), _uniform_from(a, t, "distance")), "in the exponent"),
            (lambda a, b, t=2.0: (_align_from(a, b), _uniform_from(a, t, "sign")), "sign is turned"),
            (lambda a, b, t=2.0: (_align_from(a, b), _uniform_from(a, 2.0)), "t is not used"),
            (lambda a, b, t=2.0: (_align_from(a, b, "raw"), _uniform_from(a, t, "raw")), "not normalised"),
            (lambda a, b, t=2.0: (_align_from(a, b, "entries"), _uniform_from(a, t)), "all entries"),
            (lambda a, b, t=2.0: (_align_from(a, b, "distance"), _uniform_from(a, t)), "takes its square"),
            (lambda a, b, t=2.0: align_uniform(a, b, t)[::-1], "the order is"),
        ),
    ),
    Exercise(
        id="4.6",
        title="No false negatives",
        minutes=15,
        difficulty=3,
        contract="`masked_info_nce(a, b, meanings, tau)`: (B, D) twice, unit vectors, meanings (B,) -> InfoNCE without equal meanings as negatives.",
        hints=(
            "Which entries of the B x B table are false negatives, and which one of them must stay?",
            "Left out: meanings[i] == meanings[j] with i != j. A logit of -inf has a share of 0.",
            "compare meanings with themselves, all pairs; take the diagonal out of that mask; fill the logits with -inf there; cross entropy with 0, 1, 2, ...",
        ),
        solution=masked_info_nce,
        check=check_masked_info_nce,
        covers="several equal meanings, none, gradients without NaN",
        wrong=tuple(
            (_masked_wrong(kind), phrase)
            for kind, phrase in (
                ("plain", "the mask is missing"),
                ("all", "the partner was masked"),
                ("zero", "e^0 = 1"),
                ("soft", "shared targets"),
                ("mutual", "wrong way round"),
                ("turned", "asked is a for its b"),
                ("multiplied", "tau multiplies"),
            )
        ),
    ),
    Exercise(
        id="4.7",
        title="Experiment: how much can a batch tell?",
        minutes=25,
        difficulty=4,
        contract="`information_bounds(correlation, dims, sizes, seed=0)`: ln N - InfoNCE in nats for Gaussian pairs, as {N: float}.",
        hints=(
            "Which score would a critic give that knows both distributions?",
            "Up to a constant ln p(k|q) - ln p(k) = |k|^2 / 2 - |k - r q|^2 / (2 (1 - r^2)); the estimate is ln N - loss.",
            "for each N: draw batches of N pairs; scores of all pairs within a batch; cross entropy with the diagonal; ln N minus its mean",
        ),
        solution=information_bounds,
        check=check_information_bounds,
        covers="two correlations, four sizes, within the spread of three other seeds",
        wrong=(
            (_bounds_with(change=lambda value, N: math.log(N) - value), "the loss itself"),
            (_bounds_with(change=lambda value, N: value / math.log(2)), "in bits"),
            (
                lambda correlation, dims, sizes, seed=0: {N: -dims / 2 * math.log(1 - correlation**2) for N in sizes},
                "by its formula",
            ),
            (_bounds_with(change=lambda value, N: value - math.log(N)), "add ln N"),
            (_bounds_with(lambda q, k, r: q @ k.mT), "not the best one"),
            (_bounds_with(lambda q, k, r: -torch.cdist(q, k).square()), "not the best one"),
            (lambda correlation, dims, sizes, seed=0: {"N": 1.0}, "must return a dict with the keys"),
        ),
    ),
    Exercise(
        id="4.8",
        title="Your own pairs",
        minutes=45,
        difficulty=5,
        open=True,
        contract="Make positives in a third way (two crops of different size, neighbouring frames, two captions of one picture) and find out what the space learns.",
        hints=(
            "What do my partners share, and what differs between them? The first is kept, the second is lost.",
            "Equal steps, equal pictures; the neighbours' agreement on colour, shape and pattern, as in section 6.",
        ),
        self_check=(
            "Did you write down beforehand which attribute would be kept and which lost?",
            "Is there a control with broken pairs, and does it fail?",
            "Is the difference larger than its standard error, or the spread over three seeds?",
            "Did you compare spaces by what they can do, not by their losses?",
        ),
    ),
)

"""Lesson 08, CLIP: six exercises, an experiment, and an open one."""

import math

import torch
import torch.nn.functional as F

from .engine import Exercise, Wrong
from .expect import call, expect_close_grad, expect_equal, expect_tensor, seeded

# 8.1


def scaled_logits(cosine, t, largest=100.0):
    """Logits of CLIP: cosines (B, B) times exp(t), t a learned scalar tensor; the factor is at most `largest`."""
    return cosine * t.clamp(max=math.log(largest)).exp()


def check_scaled_logits(candidate):
    for B, t, largest in ((3, 2.659260, 100.0), (4, 5.2, 3.0), (2, -0.5, 100.0), (5, 5.2, 100.0)):
        cosine, t = seeded(B, B, seed=B).tanh(), torch.tensor(t)
        factor = min(math.exp(t.item()), largest)
        causes = {
            "the exponential is missing: what is learned is t, and the factor is exp(t)": cosine * t,
            "the cosines are divided by exp(t); it is 1 / tau already, so it multiplies": cosine / factor,
            "nothing holds the factor at `largest`": cosine * t.exp(),
            "exp(t) is to stay below `largest`, so t is to stay below its logarithm": cosine
            * t.clamp(max=largest).exp(),
            "`largest` is not used: it may be another number than 100": cosine * min(math.exp(t.item()), 100.0),
            "the factor was pushed up to `largest`; it is an upper bound": cosine * max(math.exp(t.item()), largest),
            "a factor below 1 is allowed: only the upper side is bounded": cosine * max(factor, 1.0),
            "the logits were clamped, not the factor": (cosine * t.exp()).clamp(max=largest),
        }
        what = f"scaled_logits for t = {t.item():.4g}, largest = {largest:g}"
        expect_tensor(call(candidate, cosine, t, largest), cosine * factor, what, causes=causes)
    cosine = seeded(3, 3, seed=9).tanh()
    expect_close_grad(
        lambda c, t: call(candidate, c, t), scaled_logits, cosine, torch.tensor(2.0), what="scaled_logits"
    )


# 8.2


def pad_captions(rows, length, bos, eos, pad):
    """Lists of token ids, one per caption -> (B, length) int64: each row is bos, the ids, eos, then pad up to `length`;
    of a caption that is too long the first ids are kept, so that its row still ends in eos."""
    filled = []
    for ids in rows:
        row = [bos, *ids[: length - 2], eos]
        filled.append(row + [pad] * (length - len(row)))
    return torch.tensor(filled)


def _padded(kind, rows, length, bos, eos, pad):
    filled = []
    for ids in rows:
        ids = list(ids)
        kept = ids[-(length - 2) :] if kind == "tail" else ids[: length - 2]
        row = [bos, *kept, eos]
        if kind == "cut":
            row = [bos, *ids, eos][:length]
        if kind == "nobos":
            row = [*ids[: length - 1], eos]
        if kind == "noeos":
            row = [bos, *ids[: length - 1]]
        if kind == "short":
            row = [bos, *ids[: length - 3], eos]
        rest = [{"zero": 0, "eos": eos}.get(kind, pad)] * (length - len(row))
        if kind == "left":
            row = rest + row
        elif kind == "late":
            row = row[:-1] + rest + [eos]
        else:
            row = row + rest
        filled.append(row)
    return torch.tensor(filled)


def _padding(kind):
    return lambda rows, length, bos, eos, pad: _padded(kind, rows, length, bos, eos, pad)


_PAD_CAUSES = {
    "cut": "a caption that is too long was cut after eos had been added: its row has no eos, and nothing to read it at",
    "noeos": "eos is missing: the text tower reads the caption there",
    "nobos": "bos is missing at the beginning",
    "zero": "`pad` is not used: it may be another number than 0",
    "eos": "the rest of the row is filled with eos; it has a token of its own, `pad`",
    "left": "the padding stands in front; under a causal mask every token would see it",
    "late": "eos stands at the end of the padding; it follows the last id of the caption",
    "tail": "of a long caption the beginning is kept, not the end",
    "short": "one place is given away: bos and eos take two",
}


def check_pad_captions(candidate):
    rows = [[5, 6, 7], [8], [9, 10, 11, 12, 13, 14, 15, 16], [4, 5, 6, 7], []]
    for length, bos, eos, pad in ((6, 1, 2, 3), (7, 2, 1, 0), (12, 30, 31, 31)):
        want = _padded("", rows, length, bos, eos, pad)
        causes = {sentence: _padded(kind, rows, length, bos, eos, pad) for kind, sentence in _PAD_CAUSES.items()}
        causes["the rows are as long as the longest caption; they are to have `length` places"] = lambda got, n=length: (
            got.ndim == 2 and got.shape[1] != n
        )
        what = f"pad_captions to length {length} with bos {bos}, eos {eos}, pad {pad}"
        expect_tensor(call(candidate, [list(row) for row in rows], length, bos, eos, pad), want, what, causes=causes)


# 8.3


def scale_gradient(u, v, t):
    """The derivative of CLIP's loss with respect to t, without autograd; the logits are exp(t) * cosine of u, v (B, D),
    unit vectors, the loss is the mean over rows and over columns. t a scalar tensor -> scalar"""
    cosine, scale = u @ v.T, t.exp()
    slopes = []
    for table in (cosine, cosine.T):
        share = (scale * table).softmax(1)
        slopes.append(((share * table).sum(1) - table.diagonal()).mean())
    return scale * (slopes[0] + slopes[1]) / 2


def _slope(kind):
    def gradient(u, v, t):
        cosine, scale = u @ v.T, t.exp()
        factor = torch.ones(()) if kind == "s" else t if kind == "t" else -scale if kind == "sign" else scale
        slopes = []
        for table in (cosine, cosine.T):
            share = (table if kind == "cosine" else scale * table).softmax(1)
            own = torch.zeros(len(u)) if kind == "pull" else table.diagonal()
            if kind == "negatives":
                share = share - torch.diag(share.diagonal())
            slopes.append((share * table).sum(1) - own)
        if kind == "sum":
            return factor * (slopes[0] + slopes[1]).sum() / 2
        means = [slope.mean() for slope in slopes]
        if kind == "matrix":
            return factor * sum(means) / (2 * len(u))
        return factor * {"rows": means[0], "columns": means[1], "both": sum(means)}.get(kind, sum(means) / 2)

    return gradient


_SLOPE_CAUSES = {
    "s": "this is the derivative with respect to the scale; s = exp(t) brings one more factor s",
    "sign": "the sign is turned: where partners are nearest the loss falls with t, so the derivative is negative",
    "rows": "only the pictures ask; the loss has the columns, too",
    "columns": "only the captions ask; the loss has the rows, too",
    "both": "this is the sum of both directions; the loss is their mean",
    "matrix": "this is a mean over the whole B x B table; each row is one question, so sum over j and divide by B",
    "sum": "the loss is a mean over B rows: divide by B",
    "cosine": "the shares are the softmax of the scaled cosines",
    "negatives": "the sum runs over all j, the partner included",
    "pull": "the partner's own cosine is to be subtracted",
}


def check_scale_gradient(candidate):
    for B, D, t in ((3, 4, 1.0), (5, 3, 2.66), (6, 6, 0.3)):
        u = F.normalize(seeded(B, D, seed=B), dim=1)
        v = F.normalize(u + 0.8 * seeded(B, D, seed=B + 40), dim=1)
        leaf, own = torch.tensor(t, requires_grad=True), torch.arange(B)
        logits = leaf.exp() * u @ v.T
        ((F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2).backward()
        causes = {sentence: _slope(kind)(u, v, torch.tensor(t)) for kind, sentence in _SLOPE_CAUSES.items()}
        what = f"scale_gradient of {B} pairs at t = {t:g}"
        expect_tensor(call(candidate, u, v, torch.tensor(t)), leaf.grad, what, causes=causes)


# 8.4


def recall_both_ways(similarity, owner, k):
    """Recall@k with several captions per picture: similarity (P, C), owner (C,) int64, the picture of each caption ->
    (share of pictures with one of their captions among their k most similar, share of captions with their picture
    among theirs), floats."""
    right = owner == torch.arange(len(similarity), device=owner.device)[:, None]
    found = right.gather(1, similarity.topk(k, dim=1).indices).any(1)
    back = right.T.gather(1, similarity.T.topk(k, dim=1).indices).any(1)
    return found.float().mean().item(), back.float().mean().item()


def _recall_by_loops(similarity, owner, k, mode=""):
    P, C = similarity.shape
    best = lambda values, n: sorted(range(len(values)), key=lambda j: values[j], reverse=mode != "ascending")[:n]  # noqa: E731
    rows, owner = similarity.tolist(), owner.tolist()
    if mode == "diagonal":
        hits = [i in best(rows[i], k) for i in range(P)]
    elif mode == "share":
        hits = [sum(owner[j] == i for j in best(rows[i], k)) / owner.count(i) for i in range(P)]
    elif mode == "all":
        hits = [all(j in best(rows[i], k) for j in range(C) if owner[j] == i) for i in range(P)]
    elif mode == "precision":
        hits = [sum(owner[j] == i for j in best(rows[i], k)) / k for i in range(P)]
    else:
        hits = [any(owner[j] == i for j in best(rows[i], k)) for i in range(P)]
    back = [owner[j] in best([row[j] for row in rows], k) for j in range(C)]
    return sum(hits) / P, sum(back) / C


def _recall_wrong(mode):
    return lambda similarity, owner, k: _recall_by_loops(similarity, owner, k, mode)


def check_recall_both_ways(candidate):
    owners = ([0, 0, 1, 1, 2, 2, 3, 3], [2, 0, 1, 0, 2, 1, 0, 3, 4, 2, 4], [3, 2, 0, 1, 2, 0])
    for number, (owner, k) in enumerate(zip(owners, (1, 3, 2), strict=True)):
        owner, P = torch.tensor(owner), max(owner) + 1
        similarity = seeded(P, len(owner), seed=number + 7) + 0.7 * (owner == torch.arange(P)[:, None])
        there, back = _recall_by_loops(similarity, owner, k)
        causes = {
            "the smallest similarities were taken": _recall_by_loops(similarity, owner, k, "ascending"),
            "caption i was taken for the only right one of picture i: look at `owner`": _recall_by_loops(
                similarity, owner, k, "diagonal"
            ),
            "this counts which share of its captions a picture finds; one of them is enough": _recall_by_loops(
                similarity, owner, k, "share"
            ),
            "this asks for all captions of a picture; one of them is enough": _recall_by_loops(
                similarity, owner, k, "all"
            ),
            "this is the precision, hits divided by k; recall asks whether there is a hit": _recall_by_loops(
                similarity, owner, k, "precision"
            ),
            "the order is (pictures find captions, captions find pictures)": (back, there),
            "both directions were counted on the same side": (there, there),
            "k is not used": _recall_by_loops(similarity, owner, 1),
        }
        got = call(candidate, similarity, owner, k)
        what = f"recall_both_ways for {P} pictures, {len(owner)} captions, k = {k}"
        expect_equal(got, (there, back), what, causes=causes)


# 8.5


def shared_target_loss(u, v, scale, meanings):
    """CLIP's loss where captions repeat: u, v (B, D) unit vectors, logits scale * u @ v.T, meanings (B,) int64. The
    target of row i is shared equally among all j with meanings[j] == meanings[i]; the mean of both directions -> scalar
    """
    logits = scale * u @ v.T
    same = (meanings[:, None] == meanings).float()
    target = same / same.sum(1, keepdim=True)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def _shared_by_loops(u, v, scale, meanings):
    logits, total = scale * u @ v.T, 0.0
    for table in (logits, logits.T):
        for i in range(len(u)):
            right = [j for j in range(len(u)) if meanings[j] == meanings[i]]
            total = total - table[i].log_softmax(0)[right].mean()
    return total / (2 * len(u))


def _shared_wrong(kind):
    def loss(u, v, scale, meanings):
        logits, own = (1 / scale if kind == "divided" else scale) * u @ v.T, torch.arange(len(u))
        same = (meanings[:, None] == meanings).float()
        target = same / same.sum(1, keepdim=True)
        if kind == "plain":
            return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
        if kind == "masked":
            spare = (same > 0) & ~torch.eye(len(u), dtype=torch.bool)
            rows = [F.cross_entropy(table.masked_fill(spare, -torch.inf), own) for table in (logits, logits.T)]
            return sum(rows) / 2
        if kind == "group":
            rows = [
                (table.logsumexp(1) - table.masked_fill(same == 0, -torch.inf).logsumexp(1)).mean()
                for table in (logits, logits.T)
            ]
            return sum(rows) / 2
        target = same if kind == "counted" else same / len(u) if kind == "batch" else target
        there, back = F.cross_entropy(logits, target), F.cross_entropy(logits.T, target)
        return {"one": there, "sum": there + back}.get(kind, (there + back) / 2)

    return loss


_SHARED_CAUSES = {
    "plain": "the targets are still the diagonal: `meanings` is not used",
    "counted": "the rows of the target must sum to 1: divide by the number of equal meanings in each row",
    "batch": "the target was divided by B; each row by its own number of equal meanings",
    "masked": "equal meanings were left out of the denominator, lesson 04's remedy; here they share the target",
    "group": "this takes the logarithm of the group's whole share; the shared target takes the mean of the logarithms",
    "one": "only the pictures ask; the mean of both directions is wanted",
    "sum": "this is the sum of both directions; the loss is their mean",
    "divided": "the cosines are divided by `scale`; it is 1 / tau already, so it multiplies",
}


def check_shared_target_loss(candidate):
    for meanings, D, scale in (([0, 1, 0, 2, 1], 3, 5.0), ([4, 4, 4, 7], 4, 2.0), ([3, 1, 2], 2, 9.0)):
        B, meanings = len(meanings), torch.tensor(meanings)
        u, v = (F.normalize(seeded(B, D, seed=B + s), dim=1) for s in (0, 30))
        causes = {sentence: _shared_wrong(kind)(u, v, scale, meanings) for kind, sentence in _SHARED_CAUSES.items()}
        what = f"shared_target_loss with meanings {meanings.tolist()}"
        want = _shared_by_loops(u, v, scale, meanings)
        expect_tensor(call(candidate, u, v, scale, meanings), want, what, causes=causes)
    meanings = torch.tensor([0, 1, 0, 2])
    u, v = (F.normalize(seeded(4, 3, seed=s), dim=1) for s in (1, 2))
    expect_close_grad(
        lambda a, b: call(candidate, F.normalize(a, dim=1), F.normalize(b, dim=1), 4.0, meanings),
        lambda a, b: _shared_by_loops(F.normalize(a, dim=1), F.normalize(b, dim=1), 4.0, meanings),
        2 * u,
        3 * v,
        what="shared_target_loss",
    )


# 8.6


def siglip_loss(u, v, scale, bias):
    """SigLIP's loss: for each of the B * B pairs log(1 + exp(-z (scale * u_i . v_j + bias))), z = 1 for partners
    (i = j) and -1 for all others; summed, divided by B. u, v (B, D) unit vectors -> scalar"""
    z = 2 * torch.eye(len(u), device=u.device) - 1
    logits = scale * u @ v.T + bias
    return F.softplus(-z * logits).sum() / len(u)


def _siglip_by_loops(u, v, scale, bias):
    total = 0.0
    for i in range(len(u)):
        for j in range(len(v)):
            z = 1 if i == j else -1
            total += math.log1p(math.exp(-z * (scale * float(u[i] @ v[j]) + bias)))
    return torch.tensor(total / len(u))


def _siglip_wrong(kind):
    def loss(u, v, scale, bias):
        partner = torch.eye(len(u))
        z = 2 * partner - 1
        z = partner if kind == "zeros" else -z if kind == "sign" else z
        product = u @ v.T
        logits = {"nobias": scale * product, "inside": scale * (product + bias)}.get(kind, scale * product + bias)
        terms = F.softplus(-z * logits)
        if kind == "partners":
            return terms.diagonal().sum() / len(u)
        if kind == "softmax":
            return F.cross_entropy(logits, torch.arange(len(u)))
        return terms.sum() if kind == "sum" else terms.mean() if kind == "pairs" else terms.sum() / len(u)

    return loss


_SIGLIP_CAUSES = {
    "zeros": "z is -1 for strangers, not 0: with 0 each of them costs ln 2 whatever its cosine",
    "sign": "the sign is turned: this rewards strangers and punishes partners",
    "nobias": "the bias is missing: with one partner among B it starts the answer at no",
    "inside": "the bias was scaled, too; it is added after the scale",
    "partners": "only the partners are counted; every stranger is a question, too",
    "softmax": "this is the cross entropy over rows; here every pair is a yes or no of its own",
    "sum": "the sum over all pairs is to be divided by B",
    "pairs": "the sum was divided by B * B; SigLIP divides by B",
}


def check_siglip_loss(candidate):
    for B, D, scale, bias in ((3, 4, 10.0, -10.0), (5, 3, 3.0, -1.0), (4, 2, 2.0, 0.5)):
        u, v = (F.normalize(seeded(B, D, seed=B + s), dim=1) for s in (0, 20))
        causes = {sentence: _siglip_wrong(kind)(u, v, scale, bias) for kind, sentence in _SIGLIP_CAUSES.items()}
        what = f"siglip_loss of {B} pairs, scale {scale:g}, bias {bias:g}"
        expect_tensor(call(candidate, u, v, scale, bias), _siglip_by_loops(u, v, scale, bias), what, causes=causes)
    unit = lambda fn: lambda a, b, *more: fn(F.normalize(a, dim=1), F.normalize(b, dim=1), *more)  # noqa: E731
    inputs = (2 * u, 3 * v, torch.tensor(4.0), torch.tensor(-2.0))
    expect_close_grad(unit(lambda *x: call(candidate, *x)), unit(siglip_loss), *inputs, what="siglip_loss")


# 8.7


def learned_scale(u, v, largest=100.0):
    """Experiment: which scale would be learned for these pairs? Start at 1 / 0.07 and lower CLIP's symmetric loss of
    u, v (B, D), unit vectors that stay as they are, over t alone, scale = exp(t); clamp the scale at `largest` -> float
    """
    cosine, own = u @ v.T, torch.arange(len(u))
    t = torch.tensor(math.log(1 / 0.07), requires_grad=True)
    optimizer = torch.optim.Adam([t], lr=0.1)
    for _ in range(120):
        logits = t.exp() * cosine
        loss = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            t.clamp_(max=math.log(largest))
    return t.exp().item()


def _loss_over_scales(u, v, largest, direction="both"):
    """A fine grid of scales and the loss at each."""
    scales = torch.logspace(-1, math.log10(largest), 300, dtype=torch.float64)
    cosine = (u @ v.T).double()
    shares = []
    for table in (cosine, cosine.T):
        total = (scales[:, None, None] * table).logsumexp(2).mean(1) - scales * table.diagonal().mean()
        shares.append(total)
    loss = {"both": (shares[0] + shares[1]) / 2, "rows": shares[0], "columns": shares[1]}[direction]
    return scales, loss


def _best_scale(u, v, largest, direction="both"):
    scales, loss = _loss_over_scales(u, v, largest, direction)
    return scales[loss.argmin()].item()


def noisy_pairs(B, D, noise, seed):
    u = F.normalize(seeded(B, D, seed=seed), dim=1)
    return u, F.normalize(u + noise * seeded(B, D, seed=seed + 1) / math.sqrt(D), dim=1)


def check_learned_scale(candidate):
    for noise, largest in ((1.0, 100.0), (2.0, 100.0), (0.5, 25.0)):
        u, v = noisy_pairs(16, 12, noise, int(10 * noise))
        if noise == 1.0:
            v = v + 0.8 * v.mean(0) + 0.3 * seeded(12, seed=3)  # captions crowd to one side: directions differ
            v = F.normalize(v, dim=1)
        want = _best_scale(u, v, largest)
        got = call(candidate, u, v, largest)
        what = f"The scale for 16 pairs with noise {noise:g}"
        if not isinstance(got, (int, float)) or isinstance(got, bool) or not math.isfinite(got):
            raise Wrong(f"{what} must be a finite number (float), but is {type(got).__name__}: {str(got)[:40]}.")
        if abs(got - want) > 0.05 * want:
            raise Wrong(
                f"{what}: the loss is lowest at {want:.1f}; came {got:.4g}.",
                cause=_scale_cause(got, want, u, v, largest),
                hint=3,
            )


def _scale_cause(got, want, u, v, largest):
    near = lambda value, other: abs(value - other) <= 0.05 * abs(other)  # noqa: E731
    if near(got, math.log(want)):
        return "this is t; the scale is exp(t)"
    if near(got, 1 / want):
        return "this is the temperature; the scale is 1 / tau"
    if abs(got - 1 / 0.07) < 0.01:
        return "this is where it starts: t has not been changed"
    if got > largest * 1.001:
        return "nothing holds the scale at `largest`: clamp t at ln(largest) after each step"
    for direction, asks in (("rows", "pictures"), ("columns", "captions")):
        if near(got, _best_scale(u, v, largest, direction)):
            return f"this is the best scale when only the {asks} ask; the loss has both directions"
    if near(got, largest):
        return "the loss was raised, not lowered, or the clamp forces the scale up to `largest`"
    return "is it trained to the end? The loss over t is convex: more steps, or a larger learning rate"


def _learned_with(direction="both", steps=120, result=lambda t: t.exp().item(), clamp=True, lr=0.1):
    """A wrong experiment."""

    def learned_scale_wrong(u, v, largest=100.0):
        cosine, own = u @ v.T, torch.arange(len(u))
        t = torch.tensor(math.log(1 / 0.07), requires_grad=True)
        optimizer = torch.optim.Adam([t], lr=lr)
        for _ in range(steps):
            logits = t.exp() * cosine
            there, back = F.cross_entropy(logits, own), F.cross_entropy(logits.T, own)
            loss = {"both": (there + back) / 2, "rows": there, "columns": back, "up": -(there + back)}[direction]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if clamp:
                t.data.clamp_(max=math.log(largest))
        return result(t.detach())

    return learned_scale_wrong


EXERCISES = (
    Exercise(
        id="8.1",
        title="The learned scale",
        minutes=5,
        difficulty=1,
        contract="`scaled_logits(cosine, t, largest=100.0)`: (B, B), scalar tensor t -> logits (B, B), the factor exp(t) at most `largest`.",
        hints=(
            "What is learned, and what multiplies the cosines?",
            "factor = exp(t) and factor <= largest, so t <= ln(largest).",
            "clamp t from above at math.log(largest); exponentiate; multiply",
        ),
        solution=scaled_logits,
        check=check_scaled_logits,
        covers="factors below 1, usual ones and too large ones, two bounds, gradients",
        wrong=(
            (lambda cosine, t, largest=100.0: cosine * t, "exponential is missing"),
            (lambda cosine, t, largest=100.0: cosine / t.clamp(max=math.log(largest)).exp(), "divided by exp(t)"),
            (lambda cosine, t, largest=100.0: cosine * t.exp(), "nothing holds the factor"),
            (lambda cosine, t, largest=100.0: cosine * t.clamp(max=largest).exp(), "its logarithm"),
            (lambda cosine, t, largest=100.0: cosine * t.clamp(max=math.log(100.0)).exp(), "is not used"),
            (lambda cosine, t, largest=100.0: cosine * t.clamp(min=math.log(largest)).exp(), "upper bound"),
            (lambda cosine, t, largest=100.0: cosine * t.clamp(0, math.log(largest)).exp(), "only the upper side"),
        ),
    ),
    Exercise(
        id="8.2",
        title="Rows of one length",
        minutes=10,
        difficulty=2,
        contract="`pad_captions(rows, length, bos, eos, pad)`: B lists of ints -> (B, length) int64, every row with bos and eos.",
        hints=(
            "What must not be lost when a caption is longer than its row?",
            "A row holds bos, at most length - 2 ids, eos, and pads for the rest.",
            "for each list: keep the first length - 2; put bos before and eos after; add pads up to length; make a tensor of all",
        ),
        solution=pad_captions,
        check=check_pad_captions,
        covers="short, empty and too long captions, special tokens with any number",
        wrong=tuple(
            (
                _padding(kind),
                phrase,
            )
            for kind, phrase in (
                ("cut", "cut after eos"),
                ("noeos", "eos is missing"),
                ("nobos", "bos is missing"),
                ("zero", "`pad` is not used"),
                ("eos", "token of its own"),
                ("left", "stands in front"),
                ("late", "end of the padding"),
                ("tail", "beginning is kept"),
                ("short", "given away"),
            )
        )
        + (
            (
                lambda rows, length, bos, eos, pad: pad_captions(rows, 2 + max(map(len, rows)), bos, eos, pad),
                "longest caption",
            ),
        ),
    ),
    Exercise(
        id="8.3",
        title="What moves the temperature",
        minutes=20,
        difficulty=4,
        contract="`scale_gradient(u, v, t)`: (B, D) twice, unit vectors, scalar tensor t -> dL/dt of CLIP's loss, a scalar.",
        hints=(
            "What is the derivative of one row, logsumexp(s c) - s c_own, with respect to s? And of s = exp(t) with respect to t?",
            "Per row s * (sum_j p_j c_j - c_own), p the softmax of s c; the mean over rows, and the same over columns.",
            "cosines; for the table and its transpose: softmax of the scaled rows, times the cosines, summed, minus the diagonal, mean; average of both; times exp(t)",
        ),
        solution=scale_gradient,
        check=check_scale_gradient,
        covers="three shapes and temperatures, against autograd",
        wrong=tuple(
            (_slope(kind), phrase)
            for kind, phrase in (
                ("s", "one more factor s"),
                ("sign", "sign is turned"),
                ("rows", "only the pictures ask"),
                ("columns", "only the captions ask"),
                ("both", "sum of both"),
                ("sum", "divide by B"),
                ("cosine", "softmax of the scaled"),
                ("matrix", "whole B x B table"),
                ("negatives", "partner included"),
                ("pull", "to be subtracted"),
            )
        ),
    ),
    Exercise(
        id="8.4",
        title="Recall with several captions",
        minutes=15,
        difficulty=3,
        contract="`recall_both_ways(similarity, owner, k)`: (P, C), (C,) int64, int -> (pictures find a caption, captions find their picture), floats.",
        hints=(
            "When has a picture with five captions found what it was looking for?",
            "right[i, j] = (owner[j] == i) is (P, C); topk gives the columns to look at; the way back works on the transpose.",
            "table of right answers; topk along dim 1; gather from the table; any; mean; the same with both transposed; .item()",
        ),
        solution=recall_both_ways,
        check=check_recall_both_ways,
        covers="different numbers of captions per picture in any order, three values of k",
        wrong=tuple(
            (_recall_wrong(mode), phrase)
            for mode, phrase in (
                ("ascending", "smallest similarities"),
                ("diagonal", "look at `owner`"),
                ("share", "share of its captions"),
                ("all", "all captions of a picture"),
                ("precision", "divided by k"),
            )
        )
        + (
            (lambda similarity, owner, k: recall_both_ways(similarity, owner, k)[::-1], "the order is"),
            (lambda similarity, owner, k: (recall_both_ways(similarity, owner, k)[0],) * 2, "same side"),
            (lambda similarity, owner, k: recall_both_ways(similarity, owner, 1), "k is not used"),
        ),
    ),
    Exercise(
        id="8.5",
        title="When captions repeat",
        minutes=15,
        difficulty=3,
        contract="`shared_target_loss(u, v, scale, meanings)`: (B, D) twice, unit vectors, float, (B,) int64 -> scalar.",
        hints=(
            "Three pictures of the batch have the caption “a red ring”. What should the softmax of each of their rows look like?",
            "target[i, j] = 1 / n_i where meanings[j] == meanings[i], n_i being how many there are; rows sum to 1. F.cross_entropy takes such a table.",
            "compare meanings with themselves; divide each row by its sum; cross entropy of the logits and of their transpose with it; their mean",
        ),
        solution=shared_target_loss,
        check=check_shared_target_loss,
        covers="several repeats, none, gradients",
        wrong=tuple(
            (_shared_wrong(kind), phrase)
            for kind, phrase in (
                ("plain", "still the diagonal"),
                ("counted", "must sum to 1"),
                ("batch", "divided by B"),
                ("masked", "lesson 04's remedy"),
                ("group", "mean of the logarithms"),
                ("divided", "it multiplies"),
                ("one", "only the pictures ask"),
                ("sum", "sum of both"),
            )
        ),
    ),
    Exercise(
        id="8.6",
        title="A yes or no for every pair",
        minutes=15,
        difficulty=3,
        contract="`siglip_loss(u, v, scale, bias)`: (B, D) twice, unit vectors, two scalars -> scalar.",
        hints=(
            "How many questions does a batch of B pairs hold if each pair of a picture and a caption is one?",
            "z is +1 on the diagonal, -1 elsewhere; each of the B * B terms is softplus(-z * logit); the sum is divided by B.",
            "2 * eye - 1; logits = scale * u v^T + bias; softplus of minus their product; sum; divide by B",
        ),
        solution=siglip_loss,
        check=check_siglip_loss,
        covers="three shapes, negative and positive bias, gradients for scale and bias",
        wrong=tuple(
            (_siglip_wrong(kind), phrase)
            for kind, phrase in (
                ("zeros", "not 0"),
                ("sign", "sign is turned"),
                ("nobias", "bias is missing"),
                ("inside", "after the scale"),
                ("partners", "only the partners"),
                ("softmax", "of its own"),
                ("sum", "divided by B"),
                ("pairs", "B * B"),
            )
        ),
    ),
    Exercise(
        id="8.7",
        title="Experiment: what does the temperature learn?",
        minutes=25,
        difficulty=4,
        contract="`learned_scale(u, v, largest=100.0)`: (B, D) twice, unit vectors that stay fixed -> the scale with the lowest symmetric loss (float).",
        hints=(
            "Only t is trained here. What does the loss gain from a larger scale when partners are clearly nearest, and what does it pay when some are not?",
            "A parameter t that starts at ln(1 / 0.07); the loss of section 3 on fixed vectors; after each step t <= ln(largest); the answer is exp(t).",
            "cosines once; t with requires_grad; Adam with lr 0.1 on [t]; 120 times: loss, backward, step, clamp; return t.exp().item()",
        ),
        solution=learned_scale,
        check=check_learned_scale,
        covers="clean and noisy pairs, two bounds, against a fine grid of scales",
        seconds=15.0,
        wrong=(
            (_learned_with(result=lambda t: t.item()), "this is t"),
            (_learned_with(result=lambda t: (-t).exp().item()), "this is the temperature"),
            (_learned_with(steps=0), "where it starts"),
            (_learned_with("rows"), "only the pictures ask"),
            (_learned_with("columns"), "only the captions ask"),
            (_learned_with(clamp=False), "nothing holds the scale"),
            (_learned_with(steps=4), "trained to the end"),
            (lambda u, v, largest=100.0: largest, "up to `largest`"),
        ),
    ),
    Exercise(
        id="8.8",
        title="Your own captions",
        minutes=45,
        difficulty=5,
        open=True,
        contract="Change what the captions say (only colours, only places, wrong in one of ten, twice as long) and find out what the space learns.",
        hints=(
            "Which property of a picture does no caption mention any more? Ask the picture tower's neighbours for it.",
            "Equal steps, equal pictures, recall on captions of the old kind, and a control with shuffled captions.",
        ),
        self_check=(
            "Did you write down beforehand what would be kept and what lost?",
            "Is there a control with shuffled captions, and does it stay at ln B?",
            "Is the difference larger than its standard error, or the spread over three seeds?",
            "Did you count equal captions as right answers?",
        ),
    ),
)

"""Lesson 11, early fusion: six exercises, an experiment, and an open one."""

import copy
import math

import torch
import torch.nn.functional as F

from ..nets.fusion import GatedCrossAttention
from .engine import Exercise, Wrong
from .expect import call, expect_close_grad, expect_equal, expect_tensor, randomise, seeded

# 11.1


def splice(tokens, labels, image, patches):
    """Make room for pictures: lists of ints tokens and labels of one length, `image` the token that stands for a
    picture -> (tokens, labels, positions), three lists of one length: each `image` repeated `patches` times, with
    the label -100; positions count 0, 1, 2 ... through the whole sequence."""
    longer, learned = [], []
    for token, label in zip(tokens, labels, strict=True):
        copies = patches if token == image else 1
        longer += [token] * copies
        learned += [-100 if token == image else label] * copies
    return longer, learned, list(range(len(longer)))


def _spliced(kind):
    def answer(tokens, labels, image, patches):
        longer, learned, positions, seen = [], [], [], False
        for place, (token, label) in enumerate(zip(tokens, labels, strict=True)):
            picture = token == image and not (kind == "first" and seen)
            seen = seen or token == image
            copies = patches + (kind == "kept") if picture else 1
            longer += [token] * copies
            ignored = {"zero": 0, "token": token, "label": label}.get(kind, -100)
            learned += [ignored if picture else label] * (1 if kind == "short" else copies)
            positions += [place] * copies if kind == "place" else []
            if kind == "restart":
                positions += list(range(copies)) if picture else [len(positions)]
        if kind == "text":
            positions = [-1 if token == image else 0 for token in longer]
            words = iter(range(len(longer)))
            positions = [p if p < 0 else next(words) for p in positions]
        return longer, learned, positions or list(range(len(longer)))

    return answer


_SPLICE_CAUSES = {
    "first": "only the first picture got its places; a text may hold several",
    "kept": "the token `image` itself is still there: it becomes `patches` places, not one more",
    "zero": "the label of a picture's place is -100; 0 is a token like any other, and would be learned",
    "token": "the places of a picture carry a label: nothing there is to be predicted, so -100",
    "label": "the places of a picture got the label that stood at the token; nothing there is to be predicted, so -100",
    "short": "the labels were not lengthened with the tokens: from the picture on each stands at the wrong place",
    "place": "the positions are those before the pictures were put in; count anew through the longer sequence",
    "restart": "the positions start again inside a picture; they count through the whole sequence",
    "text": "the positions count the words only; a picture's places are positions, too",
}


def check_splice(candidate):
    cases = (
        ([1, 9, 5, 6, 2], [-100, -100, -100, 6, 2], 9, 3),
        ([-200, 4, 7, -200, 8, 2], [-100, -100, 7, -100, 8, 2], -200, 4),
        ([3, 9, 5, 2], [-100, 9, 5, 2], 9, 1),
        ([4, 5], [4, 5], 9, 2),
    )
    for tokens, labels, image, patches in cases:
        want = splice(tokens, labels, image, patches)
        causes = {sentence: _spliced(kind)(tokens, labels, image, patches) for kind, sentence in _SPLICE_CAUSES.items()}
        got = call(candidate, list(tokens), list(labels), image, patches)
        what = f"splice({tokens}, {labels}, {image}, {patches})"
        expect_equal(got, want, what, causes={s: value for s, value in causes.items() if value != want})


# 11.2


def padded_prefix_mask(pictures, lengths, longest):
    """Who may look at whom, bool (B, N, N), True = may; N = pictures + longest, one text per picture with lengths (B,)
    int64 words of `longest`. Pictures see all picture tokens and no word, words see the picture and the words up to
    their own; nobody sees padding."""
    N = pictures + longest
    place = torch.arange(N)
    allowed = (place < pictures) | ((place <= place[:, None]) & (place[:, None] >= pictures))
    there = place < pictures + lengths[:, None]
    return allowed & there[:, None]


def _masked(kind):
    def mask(pictures, lengths, longest):
        N, allowed = pictures + longest, []
        for length in lengths.tolist():
            end = length if kind == "short" else pictures + length
            table = torch.zeros(N, N, dtype=torch.bool)
            for q in range(N):
                for k in range(N):
                    if q < pictures:
                        see = k < pictures if kind != "causal" else k <= q
                        see = see or kind == "leak"
                    else:
                        see = k < pictures or k <= q if kind != "strict" else k < pictures or k < q
                        see = see or kind == "future"
                        if kind == "apart":
                            see = see and k >= pictures
                    table[q, k] = see and (k < end or kind == "padding") and (q < end or kind != "rows")
            allowed.append(table)
        table = torch.stack(allowed)
        return {"polarity": ~table, "number": table.float(), "turned": table.transpose(1, 2)}.get(kind, table)

    return mask


_MASK_CAUSES = {
    "causal": "the picture tokens see only earlier ones; within the prefix everyone sees everyone",
    "leak": "the picture tokens see words: the answer would leak backwards",
    "future": "the words see later words; what is to be predicted must stay hidden",
    "strict": "a word does not see itself: k <= q, not k < q",
    "padding": "padding can be seen: columns from pictures + length on are False",
    "rows": "whole rows are False; the softmax of such a row is not a number. Only the columns of padding are hidden",
    "short": "`lengths` counts words; the picture tokens stand before them",
    "apart": "the words do not see the picture",
    "polarity": "True means that one may look, not that it is hidden",
    "turned": "rows and columns are exchanged: row q says what token q may look at",
}


def check_padded_prefix_mask(candidate):
    for pictures, lengths, longest in ((2, [3, 1], 3), (3, [2, 4, 1], 5), (1, [4], 4)):
        lengths = torch.tensor(lengths)
        want = _masked("")(pictures, lengths, longest)
        causes = {sentence: _masked(kind)(pictures, lengths, longest) for kind, sentence in _MASK_CAUSES.items()}
        causes["a mask holds bool, not numbers"] = lambda got: got.dtype != torch.bool
        what = f"padded_prefix_mask({pictures}, lengths {lengths.tolist()}, {longest})"
        expect_tensor(call(candidate, pictures, lengths, longest), want, what, causes=causes)


# 11.3


def answer_loss(logits, labels, z=0.0):
    """Next-token loss on the labelled positions: logits (B, T, V) of the token after each, labels (B, T) int64 aligned
    with the tokens, -100 where nothing is learned. Mean cross entropy over all labelled tokens of the batch together,
    plus z times the mean of (log Z)^2 over the same positions, Z = sum_v exp(logit v) -> scalar"""
    logits, labels = logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
    learned = labels != -100
    log_z = logits[learned].logsumexp(1)
    return F.cross_entropy(logits[learned], labels[learned]) + z * log_z.square().mean()


def _loss_wrong(kind):
    def loss(logits, labels, z=0.0):
        ahead = {"same": 0, "twice": 2}.get(kind, 1)
        pairs, every = [], []
        for b in range(len(logits)):
            row = []
            for t in range(logits.shape[1] - ahead):
                label = int(labels[b, t + ahead])
                every.append(logits[b, t].logsumexp(0))
                if label != -100:
                    row.append((logits[b, t].logsumexp(0) - logits[b, t, label], logits[b, t]))
            pairs.append(row)
        flat = [pair for row in pairs for pair in row]
        costs = torch.stack([cost for cost, _ in flat])
        kept = torch.stack([row for _, row in flat])
        log_z = kept.logsumexp(1)
        cross = costs.mean()
        if kind == "all":
            cross = costs.sum() / len(every)
        if kind == "texts":
            cross = torch.stack([torch.stack([c for c, _ in row]).mean() for row in pairs if row]).mean()
        if kind == "sum":
            cross = costs.sum()
        extra = {
            "max": kept.amax(1).square().mean(),
            "linear": log_z.mean(),
            "outside": log_z.mean().square(),
            "everywhere": torch.stack(every).square().mean(),
            "no": torch.zeros(()),
        }.get(kind, log_z.square().mean())
        return cross + z * extra

    return loss


_LOSS_CAUSES = {
    "same": "the logits at t predict the token after it: shift the labels by one, labels[:, 1:] against logits[:, :-1]",
    "twice": "the labels are shifted by two: shift once",
    "all": "the sum was divided by all positions; divide by the labelled ones",
    "texts": "this is a mean of the texts' means; all labelled tokens of the batch count alike",
    "sum": "this is the sum over the labelled tokens; the mean is wanted",
    "max": "log Z is the logsumexp of the logits, not their maximum",
    "linear": "log Z is squared in the z-loss",
    "outside": "each log Z is squared before the mean is taken",
    "everywhere": "the z-loss counts the labelled positions only, as the cross entropy does",
    "no": "`z` is not used",
}


def check_answer_loss(candidate):
    cases = (
        ([[-100, -100, 3, 2, -100], [-100, 4, 1, 0, 2]], 5, 0.0),
        ([[-100, 1, 0, 2], [-100, -100, -100, 2], [1, -100, 2, 0]], 3, 0.1),
        ([[0, 3, -100, 1, 1, -100]], 4, 0.5),
    )
    for number, (labels, V, z) in enumerate(cases):
        labels = torch.tensor(labels)
        logits = 2 * seeded(*labels.shape, V, seed=number + 3) + 1.5
        causes = {sentence: _loss_wrong(kind)(logits, labels, z) for kind, sentence in _LOSS_CAUSES.items()}
        causes["positions without a label (-100) were counted as token 0"] = _loss_wrong("")(
            logits, labels.clamp(min=0), z
        )
        what = f"answer_loss for labels {tuple(labels.shape)}, z = {z:g}"
        expect_tensor(call(candidate, logits, labels, z), _loss_wrong("")(logits, labels, z), what, causes=causes)
    labels = torch.tensor([[-100, 2, -100, 1]])
    fixed = lambda loss: lambda logits: loss(logits, labels, 0.2)  # noqa: E731
    expect_close_grad(
        lambda logits: call(candidate, logits, labels, 0.2),
        fixed(_loss_wrong("")),
        seeded(1, 4, 3, seed=8),
        what="answer_loss",
    )


# 11.4


def qk_norm_scores(q, k, eps=1e-6):
    """Attention scores with QK-norm, before the softmax: q, k (B, H, N, D_h) -> (B, H, N, N). The queries and the keys
    of each head are brought to mean 0 and variance 1 over their D_h numbers (eps is added to the variance), then
    multiplied and divided by sqrt(D_h)."""
    q, k = (F.layer_norm(x, x.shape[-1:], eps=eps) for x in (q, k))
    return q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])


def _qk_wrong(kind):
    def scores(q, k, eps=1e-6):
        def norm(x):
            if kind == "length":
                return F.normalize(x, dim=-1)
            if kind == "width":
                mean = x.mean((1, 3), keepdim=True)
                return (x - mean) / (x.var((1, 3), unbiased=False, keepdim=True) + eps).sqrt()
            if kind == "tokens":
                return (x - x.mean(2, keepdim=True)) / (x.var(2, unbiased=False, keepdim=True) + eps).sqrt()
            centred = x if kind == "rms" else x - x.mean(-1, keepdim=True)
            spread = (x if kind == "rms" else centred).square().mean(-1, keepdim=True)
            if kind == "sample":
                spread = x.var(-1, keepdim=True)
            return centred / (spread.sqrt() + eps if kind == "outside" else (spread + eps).sqrt())

        D = q.shape[-1]
        left = q if kind in ("keys", "neither") else norm(q)
        right = k if kind in ("queries", "neither") else norm(k)
        product = left @ right.transpose(-2, -1)
        factor = {"unscaled": 1.0, "mean": D, "heads": math.sqrt(D * q.shape[1])}.get(kind, math.sqrt(D))
        return product.softmax(-1) if kind == "softmax" else product / factor

    return scores


_QK_CAUSES = {
    "width": "the norm runs over all heads together; each head has its own",
    "tokens": "the norm runs over the tokens; it runs over the D_h numbers of each query and key",
    "length": "queries and keys were brought to length 1; layer norm gives them length sqrt(D_h)",
    "rms": "the mean was not taken away: layer norm centres, RMS norm does not",
    "sample": "the variance divides by D_h, not by D_h - 1",
    "keys": "the queries were not normalised",
    "queries": "the keys were not normalised",
    "neither": "nothing was normalised: these are the plain scores",
    "unscaled": "the division by sqrt(D_h) is missing",
    "mean": "the scores were divided by D_h; divide by its square root",
    "heads": "the scores were divided by the square root of the whole width; each head has D_h numbers",
    "softmax": "this is after the softmax; the scores before it are wanted",
}


def check_qk_norm_scores(candidate):
    for B, H, N, D, size, eps in ((2, 3, 4, 5, 3.0, 1e-6), (1, 2, 3, 8, 40.0, 1e-6), (2, 2, 3, 4, 0.5, 0.1)):
        q, k = (size * seeded(B, H, N, D, seed=B + D + s) + s for s in (0, 1))
        causes = {sentence: _qk_wrong(kind)(q, k, eps) for kind, sentence in _QK_CAUSES.items()}
        causes["eps is added to the variance, under the root"] = _qk_wrong("outside")(q, k, eps)
        causes["`eps` is not used: it may be another number than 1e-6"] = _qk_wrong("")(q, k, 1e-6)
        want = _qk_wrong("")(q, k, eps)
        causes = {s: value for s, value in causes.items() if not torch.allclose(value, want, atol=1e-5, rtol=1e-4)}
        what = f"qk_norm_scores of ({B}, {H}, {N}, {D})"
        expect_tensor(call(candidate, q, k, eps), want, what, causes=causes)
    q, k = seeded(1, 2, 3, 4, seed=1), seeded(1, 2, 3, 4, seed=2)
    expect_close_grad(lambda a, b: call(candidate, a, b), _qk_wrong(""), q, k, what="qk_norm_scores")


# 11.5


def gated_attention(x, seen, wq, wk, wv, gate):
    """One head of gated cross-attention: words x (B, T, D) read a picture seen (B, P, D), wq, wk, wv (D, D), gate a
    scalar tensor -> x + tanh(gate) * softmax(q k^T / sqrt(D)) v with q = x wq, k = seen wk, v = seen wv, (B, T, D)."""
    q, k, v = x @ wq, seen @ wk, seen @ wv
    attention = (q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])).softmax(-1)
    return x + gate.tanh() * (attention @ v)


def _gated_wrong(kind):
    def layer(x, seen, wq, wk, wv, gate):
        q, k, v = x @ wq, seen @ wk, seen @ wv
        if kind == "own":
            k, v = x @ wk, x @ wv
        if kind == "both":
            k, v = (torch.cat([seen, x], 1) @ w for w in (wk, wv))
        if kind == "values":
            v = seen @ wk
        scores = q @ k.transpose(1, 2) / (1 if kind == "scale" else math.sqrt(q.shape[-1]))
        read = scores.softmax(1 if kind == "dim" else -1) @ v
        factor = {"sigmoid": gate.sigmoid(), "plain": gate, "open": torch.ones(())}.get(kind, gate.tanh())
        if kind == "mix":
            return (1 - factor) * x + factor * read
        if kind == "around":
            return factor * (x + read)
        return factor * read if kind == "residual" else x + factor * read

    return layer


_GATED_CAUSES = {
    "own": "keys and values come from the words; the words ask, the picture answers",
    "both": "the words look at themselves as well; in cross-attention only the picture is looked at",
    "values": "the values are made with wk; they have a matrix of their own, wv",
    "scale": "the division by sqrt(D) is missing",
    "dim": "the softmax runs over the words; for each word it runs over the P places of the picture",
    "sigmoid": "a sigmoid is 0.5 at gate 0; tanh is 0 there, so that nothing is disturbed at the start",
    "plain": "tanh is missing: the factor must stay between -1 and 1",
    "open": "`gate` is not used",
    "mix": "what was there before stays as it is: x + ..., not (1 - g) x + ...",
    "around": "the gate stands before what was read, not before x",
    "residual": "x itself is missing in the sum",
}


def check_gated_attention(candidate):
    for B, T, P, D, gate in ((2, 3, 4, 5, 0.8), (1, 4, 2, 3, -1.5), (3, 2, 5, 4, 0.0)):
        x, seen = seeded(B, T, D, seed=B), seeded(B, P, D, seed=B + 7)
        matrices = [seeded(D, D, seed=s, scale=0.8) for s in (1, 2, 3)]
        gate = torch.tensor(gate)
        want = _gated_wrong("")(x, seen, *matrices, gate)
        causes = {sentence: _gated_wrong(kind)(x, seen, *matrices, gate) for kind, sentence in _GATED_CAUSES.items()}
        causes = {s: v for s, v in causes.items() if v.shape != want.shape or not torch.allclose(v, want, atol=1e-5)}
        what = f"gated_attention at gate {gate.item():g}"
        expect_tensor(call(candidate, x, seen, *matrices, gate), want, what, causes=causes)
    inputs = (seeded(1, 3, 4, seed=1), seeded(1, 2, 4, seed=2), *(seeded(4, 4, seed=s) for s in (3, 4, 5)))
    expect_close_grad(
        lambda *given: call(candidate, *given), _gated_wrong(""), *inputs, torch.tensor(0.3), what="gated_attention"
    )


# 11.6


def winoground_scores(scores):
    """Shares of N pairs that are told apart: scores (N, 2, 2), scores[n, i, c] of picture i with caption c, own ones on
    the diagonal -> {"text", "image", "group"}, floats. text: both pictures prefer their own caption; image: both
    captions prefer their own picture; group: text and image. A tie is no preference."""
    own = torch.stack([scores[:, 0, 0], scores[:, 1, 1]], 1)
    other_caption = torch.stack([scores[:, 0, 1], scores[:, 1, 0]], 1)
    text = (own > other_caption).all(1)
    image = (own > other_caption.flip(1)).all(1)
    found = {"text": text, "image": image, "group": text & image}
    return {name: right.float().mean().item() for name, right in found.items()}


def _wino_wrong(kind):
    def shares(scores):
        better = (lambda a, b: a >= b) if kind == "ties" else (lambda a, b: a < b) if kind == "less" else torch.gt
        (a, b), (c, d) = scores[:, 0].unbind(1), scores[:, 1].unbind(1)
        text = [better(a, b), better(d, c)]
        image = [better(a, c), better(d, b)]
        if kind == "half":
            join = lambda pair: sum(p.float() for p in pair) / 2  # noqa: E731
        elif kind == "either":
            join = lambda pair: (pair[0] | pair[1]).float()  # noqa: E731
        elif kind == "first":
            join = lambda pair: pair[0].float()  # noqa: E731
        elif kind == "sum":
            join = lambda pair: better(a + d, b + c).float()  # noqa: E731
        else:
            join = lambda pair: (pair[0] & pair[1]).float()  # noqa: E731
        text, image = join(text), join(image)
        group = text * image
        result = {"text": text.mean(), "image": image.mean(), "group": group.mean()}
        if kind == "mean":
            result["group"] = (result["text"] + result["image"]) / 2
        if kind == "product":
            result["group"] = result["text"] * result["image"]
        if kind == "turned":
            result["text"], result["image"] = result["image"], result["text"]
        return {name: value.item() for name, value in result.items()}

    return shares


_WINO_CAUSES = {
    "ties": "a tie was counted as right: a model that gives every pair the same score would be perfect",
    "less": "the smaller score was preferred",
    "half": "both of the two comparisons have to be right; a half is not counted",
    "either": "one right comparison was enough; both have to be right",
    "first": "only the first picture (or caption) was asked; both have to be right",
    "sum": "the sums over both were compared; each picture, and each caption, has to be right by itself",
    "mean": "group is not the mean of text and image: both have to be right for the same pair",
    "product": "group is not the product of the two shares: count the pairs that have both",
    "turned": "text and image are exchanged: in the text score a picture chooses between two captions",
}


def check_winoground_scores(candidate):
    tie = torch.tensor([[[0.5, 0.5], [0.2, 0.9]], [[0.9, 0.1], [0.1, 0.1]], [[1.0, 0.0], [0.0, 1.0]]])
    for number, scores in enumerate((seeded(40, 2, 2, seed=3) + torch.eye(2), seeded(25, 2, 2, seed=4), tie)):
        want = _wino_wrong("")(scores)
        causes = {sentence: _wino_wrong(kind)(scores) for kind, sentence in _WINO_CAUSES.items()}
        causes = {s: v for s, v in causes.items() if any(abs(v[name] - want[name]) > 1e-6 for name in want)}
        what = f"winoground_scores of {len(scores)} pairs" + (", two of them with a tie" if number == 2 else "")
        expect_equal(call(candidate, scores), want, what, causes=causes)


# 11.7


def first_movers(layer, x, seen, target, steps=3, rate=0.1):
    """Experiment: which parameters of a gated cross-attention layer move, and when? Train a copy of layer(x, seen)
    towards `target` by `steps` steps of plain gradient descent on the mean squared error -> for each step the sorted
    list of the names of the parameters that this step changed. The layer itself stays as it is."""
    layer, moved = copy.deepcopy(layer), []
    for _ in range(steps):
        layer.zero_grad()
        F.mse_loss(layer(x, seen), target).backward()
        changed = []
        with torch.no_grad():
            for name, parameter in layer.named_parameters():
                before = parameter.clone()
                parameter -= rate * parameter.grad
                if not torch.equal(before, parameter):
                    changed.append(name)
        moved.append(sorted(changed))
    return moved


def _movers_wrong(kind):
    def experiment(layer, x, seen, target, steps=3, rate=0.1):
        trained, moved = copy.deepcopy(layer), []
        for _ in range(1 if kind == "once" else steps):
            trained.zero_grad()
            F.mse_loss(trained(x, seen), target).backward()
            before = {name: p.detach().clone() for name, p in trained.named_parameters()}
            with torch.no_grad():
                for p in trained.parameters():
                    p -= 0.0 if kind == "frozen" else rate * p.grad
            changed = [name for name, p in trained.named_parameters() if not torch.equal(before[name], p)]
            if kind == "grads":
                changed = [name for name, p in trained.named_parameters() if p.grad is not None]
            if kind == "still":
                changed = [name for name, p in trained.named_parameters() if torch.equal(before[name], p)]
            moved.append(sorted(changed))
        if kind == "union":
            return sorted(set().union(*map(set, moved)))
        return moved

    return experiment


_MOVERS_CAUSES = {
    "once": "there is one list for each of the `steps` steps",
    "frozen": "nothing moved: subtract rate times the gradient from each parameter",
    "grads": "having a gradient is not moving: a gradient of zeros changes nothing",
    "still": "these are the parameters that stayed",
    "union": "this is one list for all steps; one for each step is wanted",
}


def check_first_movers(candidate):
    for seed, gates, steps in ((0, (0.0, 0.0), 3), (1, (0.4, 0.0), 2), (2, (0.3, -0.6), 1)):
        layer = randomise(GatedCrossAttention(8, 2), seed)
        with torch.no_grad():
            layer.gates.copy_(torch.tensor(gates))
        x, seen, target = (seeded(2, n, 8, seed=seed + number) for number, n in enumerate((3, 5, 3)))
        given = copy.deepcopy(layer.state_dict())
        want = _movers_wrong("")(layer, x, seen, target, steps)
        causes = {
            sentence: _movers_wrong(kind)(layer, x, seen, target, steps) for kind, sentence in _MOVERS_CAUSES.items()
        }
        got = call(candidate, layer, x, seen, target, *([] if steps == 3 else [steps]))  # 3 is the default
        if any(not torch.equal(value, given[name]) for name, value in layer.state_dict().items()):
            raise Wrong("The layer that was given has other weights now.", cause="train a copy: copy.deepcopy(layer)")
        what = f"first_movers with gates {gates}, {steps} step{'s' * (steps > 1)}"
        expect_equal(got, want, what, causes={s: value for s, value in causes.items() if value != want})


def _trained_in_place(layer, x, seen, target, steps=3, rate=0.1):
    moved = first_movers(layer, x, seen, target, steps, rate)
    with torch.no_grad():
        layer.out.weight.mul_(0.9)
    return moved


def _wrong(make, *pairs):
    return tuple((make(kind), phrase) for kind, phrase in pairs)


EXERCISES = (
    Exercise(
        id="11.1",
        title="Room for a picture",
        minutes=10,
        difficulty=2,
        contract="`splice(tokens, labels, image, patches)`: two lists of ints, the token that stands for a picture, int -> three lists of one length: tokens, labels, positions.",
        hints=(
            "The text says “here is a picture” with one token. How many places will the picture's patches take, and what is to be predicted there?",
            "Each `image` becomes `patches` entries in all three lists, its labels -100; the positions are 0 to length - 1 of the longer list.",
            "two empty lists; for each token and label: copies = patches if it is the picture, else 1; extend both; positions = list(range(...))",
        ),
        solution=splice,
        check=check_splice,
        covers="one picture, two, none, a picture of one patch",
        wrong=_wrong(
            _spliced,
            ("first", "may hold several"),
            ("kept", "not one more"),
            ("zero", "would be learned"),
            ("token", "carry a label"),
            ("short", "not lengthened"),
            ("place", "count anew"),
            ("restart", "start again"),
            ("text", "count the words only"),
        ),
    ),
    Exercise(
        id="11.2",
        title="A mask for texts of different lengths",
        minutes=15,
        difficulty=3,
        contract="`padded_prefix_mask(pictures, lengths, longest)`: int, (B,) int64, int -> (B, N, N) bool, N = pictures + longest.",
        hints=(
            "Draw the table for two picture tokens and three words. Which columns must be hidden from everybody when the last word is padding?",
            "place = arange(N): a key is allowed where it is a picture, or where the query is a word and the key is no later; and where the key lies before pictures + length.",
            "allowed (N, N) from comparisons of place with place[:, None]; there (B, N) from lengths[:, None]; allowed & there[:, None]",
        ),
        solution=padded_prefix_mask,
        check=check_padded_prefix_mask,
        covers="three sizes, different lengths in one batch",
        wrong=_wrong(
            _masked,
            ("causal", "everyone sees everyone"),
            ("leak", "leak backwards"),
            ("future", "must stay hidden"),
            ("strict", "does not see itself"),
            ("padding", "padding can be seen"),
            ("rows", "not a number"),
            ("short", "stand before them"),
            ("polarity", "may look"),
            ("turned", "exchanged"),
        ),
    ),
    Exercise(
        id="11.3",
        title="Loss on the answer, and a leash for the logits",
        minutes=15,
        difficulty=3,
        contract="`answer_loss(logits, labels, z=0.0)`: (B, T, V), (B, T) int64 with -100 where nothing is learned, float -> scalar.",
        hints=(
            "Which logits predict the first token of the answer: those at its own place, or those before it?",
            "logits[:, :-1] belong to labels[:, 1:]; keep the places whose label is not -100; log Z is their logsumexp over V.",
            "shift; flatten both; learned = labels != -100; F.cross_entropy on those rows + z * (logsumexp of those rows squared).mean()",
        ),
        solution=answer_loss,
        check=check_answer_loss,
        covers="texts with different numbers of labels, with and without z, gradients",
        wrong=_wrong(
            _loss_wrong,
            ("same", "token after it"),
            ("twice", "shift once"),
            ("all", "divided by all positions"),
            ("texts", "texts' means"),
            ("sum", "mean is wanted"),
            ("max", "not their maximum"),
            ("linear", "squared in the z-loss"),
            ("everywhere", "labelled positions only"),
            ("no", "`z` is not used"),
        ),
    ),
    Exercise(
        id="11.4",
        title="QK-norm",
        minutes=10,
        difficulty=2,
        contract="`qk_norm_scores(q, k, eps=1e-6)`: (B, H, N, D_h) twice, float -> (B, H, N, N), the scores before the softmax.",
        hints=(
            "How large can a score become if every query and every key has mean 0 and variance 1?",
            "Layer norm over the last dimension, no weights, each head by itself: then |q| = |k| = sqrt(D_h), and no score exceeds sqrt(D_h).",
            "F.layer_norm(x, x.shape[-1:], eps=eps) for both; q @ k.transpose(-2, -1); divide by sqrt(D_h)",
        ),
        solution=qk_norm_scores,
        check=check_qk_norm_scores,
        covers="three shapes, small and large queries, two eps, gradients",
        wrong=_wrong(
            _qk_wrong,
            ("width", "over all heads"),
            ("tokens", "over the tokens"),
            ("length", "length 1"),
            ("rms", "rms norm does not"),
            ("sample", "D_h - 1"),
            ("keys", "queries were not normalised"),
            ("queries", "keys were not normalised"),
            ("unscaled", "division by sqrt(D_h) is missing"),
            ("mean", "its square root"),
            ("softmax", "before it are wanted"),
            ("outside", "under the root"),
        ),
    ),
    Exercise(
        id="11.5",
        title="Gated cross-attention",
        minutes=15,
        difficulty=3,
        contract="`gated_attention(x, seen, wq, wk, wv, gate)`: (B, T, D), (B, P, D), three (D, D), scalar tensor -> (B, T, D).",
        hints=(
            "Who asks, and who is asked? How many numbers does the softmax of one word run over?",
            "q (B, T, D) from the words, k and v (B, P, D) from the picture; scores (B, T, P); x stays in the sum, tanh(gate) times the rest.",
            "three products; scores = q k^T / sqrt(D); softmax over the last dimension; x + gate.tanh() * (attention @ v)",
        ),
        solution=gated_attention,
        check=check_gated_attention,
        covers="three shapes, gates above, below and at zero, gradients",
        wrong=_wrong(
            _gated_wrong,
            ("own", "the picture answers"),
            ("both", "only the picture is looked at"),
            ("values", "matrix of their own"),
            ("scale", "division by sqrt(D) is missing"),
            ("dim", "runs over the words"),
            ("sigmoid", "0.5 at gate 0"),
            ("plain", "tanh is missing"),
            ("mix", "stays as it is"),
            ("residual", "missing in the sum"),
        ),
    ),
    Exercise(
        id="11.6",
        title="Text, image and group",
        minutes=15,
        difficulty=3,
        contract="`winoground_scores(scores)`: (N, 2, 2), scores[n, i, c] of picture i with caption c -> a dict with the shares “text”, “image” and “group”.",
        hints=(
            "Four scores, four comparisons. Which two of them does a picture make, and which two a caption?",
            "text compares along the captions, image along the pictures; each needs both of its comparisons, strictly larger; group needs all four in the same pair.",
            "own = the diagonal (N, 2); others = the two off it; text = (own > others).all(1); image = (own > others turned round).all(1); group = text & image; means",
        ),
        solution=winoground_scores,
        check=check_winoground_scores,
        covers="random scores with and without an advantage, ties",
        wrong=_wrong(
            _wino_wrong,
            ("ties", "a tie was counted"),
            ("less", "smaller score"),
            ("half", "a half is not counted"),
            ("either", "one right comparison"),
            ("first", "only the first"),
            ("sum", "by itself"),
            ("mean", "not the mean"),
            ("product", "not the product"),
            ("turned", "exchanged"),
        ),
    ),
    Exercise(
        id="11.7",
        title="Experiment: a closed gate learns",
        minutes=25,
        difficulty=4,
        contract="`first_movers(layer, x, seen, target, steps=3, rate=0.1)`: a layer called as layer(x, seen), (B, T, D), (B, P, D), (B, T, D) -> for each step the sorted names of the parameters that it changed.",
        hints=(
            "The output does not depend on the attention while tanh(gate) is 0. Which gradients are zero then, and which one is not?",
            "Plain gradient descent on F.mse_loss(layer(x, seen), target), on a copy; compare each parameter with its own value just before the step.",
            "copy.deepcopy; for each step: zero_grad, backward, for name, p in named_parameters(): before = p.clone(), p -= rate * p.grad under no_grad, keep the name if they differ; sort",
        ),
        solution=first_movers,
        check=check_first_movers,
        covers="both gates closed, one open, both open",
        seconds=15.0,
        wrong=_wrong(
            _movers_wrong,
            ("once", "one list for each"),
            ("frozen", "nothing moved"),
            ("grads", "a gradient of zeros"),
            ("still", "that stayed"),
            ("union", "one for each step"),
        )
        + ((_trained_in_place, "train a copy"),),
    ),
    Exercise(
        id="11.8",
        title="Your own question",
        minutes=60,
        difficulty=5,
        open=True,
        contract="Invent a kind of question that `lessons.data.language` does not ask (which is larger? are two of the same shape? what is between?), and find out which of the designs learns to answer it.",
        hints=(
            "What is the best answer of somebody who reads the question but sees no picture? Make it worthless before you train.",
            "Equal steps and equal parameters, a text-only control, new pictures for the test, and a swapped picture for those that seem to answer.",
        ),
        self_check=(
            "Did the text-only control stay at chance?",
            "Does a swapped picture change the answers?",
            "Is the difference larger than its standard error?",
            "Did you change the training signal, or only the architecture?",
        ),
    ),
)

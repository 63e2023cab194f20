"""The losses that the lessons build, in their tested form. B pairs, K negatives, width D, temperature tau."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import SettingError
from .precision import full

# Lesson 03, MAE


def normalise_patches(patches: Tensor, eps: float = 1e-6) -> Tensor:
    """Each patch (..., numbers) minus its own mean, over the root of its own unbiased variance plus `eps`: the target
    of MAE with norm_pix (He et al. 2021, arXiv 2111.06377, section 3). A flat patch becomes zero."""
    mean, variance = patches.mean(-1, keepdim=True), patches.var(-1, keepdim=True)
    return (patches - mean) / (variance + eps).sqrt()


def masked_mse(prediction: Tensor, target: Tensor, hidden: Tensor) -> Tensor:
    """Mean squared error over the hidden patches: prediction and target (B, N, numbers), `hidden` (B, N) bool. The mean
    runs over the numbers of a patch, then over all hidden patches of the batch (He et al. 2021, section 3). Raises
    SettingError for shapes that differ; with no hidden patch the result is not a number."""
    if prediction.shape != target.shape or prediction.shape[:2] != hidden.shape:
        shapes = f"{tuple(prediction.shape)}, {tuple(target.shape)} and {tuple(hidden.shape)}"
        raise SettingError(f"Expected prediction and target (B, N, numbers) and hidden (B, N), got {shapes}.")
    error = (full(prediction) - full(target)).square().mean(2)  # (B, N)
    return (error * hidden).sum() / hidden.sum()


# Lesson 04, contrastive learning


def pair_loss(a: Tensor, b: Tensor, same: Tensor, margin: float = 1.0) -> Tensor:
    """Pull equal pairs together, push others at least `margin` apart: the mean of d^2 / 2 where `same`, else of
    max(0, margin - d)^2 / 2, with d the Euclidean distance. a, b (B, D), same (B,) bool. Hadsell, Chopra & LeCun 2006,
    equation 4. Raises SettingError for shapes that differ."""
    _same_shape(a, b)
    distance = (a - b).square().sum(1).clamp_min(1e-12).sqrt()  # the root has no slope at zero
    return torch.where(same, distance.square(), (margin - distance).clamp_min(0).square()).mean() / 2


def triplet_loss(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 0.2) -> Tensor:
    """Mean of max(0, |a - p|^2 - |a - n|^2 + margin) over unit vectors; (B, D) each, normalised here. Schroff,
    Kalenichenko & Philbin 2015 (FaceNet, arXiv 1503.03832), equation 3. Raises SettingError for shapes that differ."""
    _same_shape(anchor, positive)
    _same_shape(anchor, negative)
    a, p, n = (_unit(x) for x in (anchor, positive, negative))
    return ((a - p).square().sum(1) - (a - n).square().sum(1) + margin).clamp_min(0).mean()


def semi_hard(distances: Tensor, labels: Tensor, margin: float = 0.2) -> tuple[Tensor, Tensor, Tensor]:
    """Anchors, positives and negatives, as numbers (M,) each, of all semi-hard triplets: the negative is farther than
    the positive, but by less than `margin` (FaceNet, section 3.2). distances (N, N), labels (N,) int64."""
    alike = labels[:, None] == labels
    positive = alike & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    gap = distances[:, None, :] - distances[:, :, None]  # (N, N, N): anchor, positive, negative
    fits = positive[:, :, None] & ~alike[:, None, :] & (gap > 0) & (gap < margin)
    return tuple(fits.nonzero().unbind(1))


def semi_hard_triplet_loss(z: Tensor, labels: Tensor, margin: float = 0.2) -> Tensor:
    """Mean triplet loss over the semi-hard triplets of a batch, on squared distances of unit vectors; zero, with a
    gradient of zero, where there is none. z (N, D), labels (N,) int64. FaceNet, sections 3.1 and 3.2."""
    z = _unit(z)
    distances = 2 - 2 * _cosines(z, z)
    anchor, positive, negative = semi_hard(distances.detach(), labels, margin)
    violations = distances[anchor, positive] - distances[anchor, negative] + margin
    return violations.sum() / max(len(anchor), 1)


def info_nce(
    queries: Tensor,
    keys: Tensor,
    tau: float | Tensor = 0.1,
    *,
    negatives: Tensor | None = None,
    same: Tensor | None = None,
) -> Tensor:
    """Cross entropy of finding each query's own key by cosine similarity / tau; all vectors are normalised here.

    queries, keys (B, D), row i of one belonging to row i of the other. Without `negatives` the other B - 1 keys are
    the wrong answers (van den Oord et al. 2018, arXiv 1807.03748, equation 4); with negatives (K, D), a queue, those
    are, and the right answer is column 0 (MoCo, arXiv 1911.05722, algorithm 1). `same` (B, B) or (B, K) bool marks
    wrong answers that are none, such as equal captions: they are left out. tau may be learnt. Raises SettingError for
    shapes that differ and a tau that is not above 0.
    """
    _same_shape(queries, keys)
    _above_zero(tau)
    q, k = _unit(queries), _unit(keys)
    own = torch.arange(len(q), device=q.device)
    if negatives is None:
        logits, target = _cosines(q, k) / tau, own  # (B, B), the diagonal is right
        spared = same & (own[:, None] != own) if same is not None else None
    else:
        right = (q * k).sum(1, keepdim=True)  # (B, 1)
        logits, target = torch.cat([right, _cosines(q, _unit(negatives))], 1) / tau, torch.zeros_like(own)
        spared = F.pad(same, (1, 0)) if same is not None else None  # column 0 stays
    if spared is not None:
        logits = logits.masked_fill(spared, -torch.inf)
    return F.cross_entropy(logits, target)


def symmetric_info_nce(a: Tensor, b: Tensor, tau: float | Tensor = 0.1, *, same: Tensor | None = None) -> Tensor:
    """Mean of both directions, a finds its b and b its a: the loss for two views or two kinds of input (CLIP,
    arXiv 2103.00020, figure 3). a, b (B, D), `same` (B, B) bool as in `info_nce`, entry (i, j) about a_i and b_j."""
    back = None if same is None else same.T
    return (info_nce(a, b, tau, same=same) + info_nce(b, a, tau, same=back)) / 2


def nt_xent(a: Tensor, b: Tensor, tau: float | Tensor = 0.5) -> Tensor:
    """InfoNCE where both views form one set of 2B vectors: each finds its partner among all others, itself left out.

    a, b (B, D), normalised here. Equal vectors give ln(2B - 1). Chen et al. 2020 (SimCLR, arXiv 2002.05709),
    equation 1. Raises SettingError for shapes that differ and a tau that is not above 0.
    """
    _same_shape(a, b)
    _above_zero(tau)
    z = _unit(torch.cat([a, b]))  # (2B, D)
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    logits = (_cosines(z, z) / tau).masked_fill(itself, -torch.inf)  # (2B, 2B)
    return F.cross_entropy(logits, torch.arange(len(z), device=z.device).roll(len(a)))


def alignment(a: Tensor, b: Tensor, alpha: float = 2.0) -> Tensor:
    """Mean of |a - b|^alpha over positive pairs (B, D) of unit vectors: 0 where partners coincide. Wang & Isola 2020,
    arXiv 2005.10242, section 4.1.1. The vectors are normalised here."""
    _same_shape(a, b)
    squared = (_unit(a) - _unit(b)).square().sum(1)
    return (squared if alpha == 2 else squared.clamp_min(1e-12).pow(alpha / 2)).mean()


def uniformity(z: Tensor, t: float = 2.0) -> Tensor:
    """log of the mean of exp(-t |z_i - z_j|^2) over distinct pairs of unit vectors z (N, D): 0 where all coincide,
    towards -2t where they spread over a sphere of many dimensions. Wang & Isola 2020, section 4.1.2; normalised
    here. Raises SettingError for fewer than two vectors."""
    if len(z) < 2:
        raise SettingError(f"uniformity compares pairs, but got {len(z)} vector{'' if len(z) == 1 else 's'}.")
    z = _unit(z)
    rows, columns = torch.triu_indices(len(z), len(z), 1, device=z.device)
    exponents = -t * (2 - 2 * _cosines(z, z)[rows, columns])
    return exponents.logsumexp(0) - torch.tensor(float(len(rows)), dtype=exponents.dtype, device=z.device).log()


# Lesson 06, DINO


def dino_targets(teacher: Tensor, centre: Tensor | float = 0.0, tau: float = 0.04) -> Tensor:
    """What the student has to predict: softmax((teacher - centre) / tau) over the last axis, without gradient. Logits
    (..., K), centre (K,). A small tau sharpens, the centre keeps one prototype from winning everywhere. Caron et al.
    2021 (DINO, arXiv 2104.14294), section 3.1. Raises SettingError for a tau that is not above 0."""
    _above_zero(tau)
    return ((full(teacher.detach()) - centre) / tau).softmax(-1)


def cross_view_entropy(targets: Tensor, student: Tensor, tau: float = 0.1) -> Tensor:
    """Mean of -sum_k P_t log P_s over all pairs of different views: targets (T, B, K) sum to 1, student logits
    (V, B, K), the first T student views being those of the targets; T V - T pairs (DINO, equation 3). Uniform
    predictions cost ln K. Raises SettingError for other shapes, for fewer than two views, and for a tau not above 0."""
    _above_zero(tau)
    T, V = len(targets), len(student)
    if targets.ndim != 3 or targets.shape[1:] != student.shape[1:] or not T <= V or V < 2:
        raise SettingError(
            "Expected targets (T, B, K) and student logits (V, B, K) of V >= T views, V at least 2; "
            f"got {tuple(targets.shape)} and {tuple(student.shape)}."
        )
    predicted = (full(student) / tau).log_softmax(-1)
    costs = -torch.einsum("tbk,vbk->tv", targets.to(predicted.dtype), predicted) / targets.shape[1]  # (T, V)
    same = torch.eye(T, V, dtype=torch.bool, device=costs.device)
    return costs.masked_fill(same, 0).sum() / (T * V - T)


def moved_centre(centre: Tensor, teacher: Tensor, momentum: float = 0.9) -> Tensor:
    """m c + (1 - m) mean of the teacher's raw logits over views and pictures: (K,) and (..., K) -> (K,). It is for the
    next step: the loss of this one uses the old centre (DINO, equation 4)."""
    return centre.lerp(full(teacher.detach()).flatten(0, -2).mean(0).to(centre.dtype), 1 - momentum)


def target_entropies(targets: Tensor) -> tuple[Tensor, Tensor]:
    """(H of the mean target, mean H of the targets) in nats, for targets (..., K) that sum to 1. Their difference is
    the information that prototypes carry about pictures: 0 in both collapses, one prototype for all (0, 0) or all
    prototypes for each (ln K, ln K) (DINO, section 5.3 and figure 7)."""
    rows = targets.flatten(0, -2)
    entropy = lambda p: -torch.xlogy(p, p).sum(-1)  # noqa: E731
    return entropy(rows.mean(0)), entropy(rows).mean()


# Lesson 07, DINOv2


def koleo(x: Tensor, eps: float = 1e-8) -> Tensor:
    """-mean log of the distance from each vector of x (B, D) to its nearest other, all brought to length 1 first: low
    where a batch spreads evenly over the sphere. Sablayrolles et al. 2019 (arXiv 1806.03198), as in DINOv2 (Oquab et
    al. 2024, arXiv 2304.07193, section 4). `eps` keeps the logarithm finite where two coincide; such a pair has no
    direction to part in, and no gradient. Raises SettingError for fewer than two vectors."""
    if x.ndim != 2 or len(x) < 2:
        raise SettingError(f"koleo compares neighbours: expected (B, D) with at least two rows, got {tuple(x.shape)}.")
    x = _unit(x)
    nearest = _cosines(x.detach(), x.detach()).fill_diagonal_(-2).argmax(1)  # nobody is their own neighbour
    return -((x - x[nearest]).norm(dim=1) + eps).log().mean()


def sinkhorn_targets(teacher: Tensor, tau: float = 0.04, iterations: int = 3) -> Tensor:
    """Targets (..., K) that sum to 1 and use all prototypes alike over the whole batch: exp(teacher / tau), its columns
    and its rows brought to equal sums in turn, `iterations` times, without gradient. Cuturi 2013, in SwAV (arXiv
    2006.09882, section 3.1) and DINOv2. Rows are exact at the end, columns nearly. Raises SettingError for a tau not
    above 0."""
    _above_zero(tau)
    q = full(teacher.detach()).flatten(0, -2) / tau  # (N, K), as logarithms: exp would lose a prototype far below
    q = q - q.max()
    for _ in range(iterations):
        q = q - q.logsumexp(0, keepdim=True)  # each prototype the same share
        q = q - q.logsumexp(1, keepdim=True)  # each row a distribution
    return q.exp().view(teacher.shape)


def masked_patch_entropy(targets: Tensor, student: Tensor, hidden: Tensor, tau: float = 0.1) -> Tensor:
    """iBOT's loss: -sum_k P_t log P_s of every hidden patch, a mean over the hidden patches of each picture, then over
    all B pictures, those without a mask counting as 0 (as in DINOv2's code). targets and student logits (M, K) belong
    to the M True places of `hidden` (B, N), in order; a mask on the CPU need not be waited for. Zhou et al. 2022 (arXiv
    2111.07832), equation 2. Raises SettingError for shapes that do not fit and a tau not above 0."""
    _above_zero(tau)
    if targets.shape != student.shape or targets.ndim != 2 or len(targets) != int(hidden.sum()):
        raise SettingError(
            f"Expected targets and student logits (M, K) for the {int(hidden.sum())} hidden patches, got "
            f"{tuple(targets.shape)} and {tuple(student.shape)}."
        )
    costs = -(targets * (full(student) / tau).log_softmax(-1)).sum(-1)  # (M,)
    share = 1 / hidden.sum(1, keepdim=True).clamp(min=1).to(costs.dtype)  # (B, 1)
    return (costs * share.expand(hidden.shape)[hidden].to(costs.device)).sum() / len(hidden)


# Lesson 08, CLIP


def clip_loss(
    pictures: Tensor, texts: Tensor, scale: float | Tensor, *, target: Tensor | None = None, direction: str = "both"
) -> Tensor:
    """Symmetric cross entropy of the logits scale * cosine: each picture finds its caption, each caption its picture.

    pictures, texts (B, D), row i of one belonging to row i of the other, normalised here; `scale` is exp(t) = 1/tau.
    `target` (B, B), rows summing to 1, says which captions are right for each picture, where there are several (see
    `shared_target`); by default the diagonal. For the way back its columns count, each brought to sum to 1.
    `direction` "both", "pictures" (each picture asks) or "texts". Radford et al. 2021 (CLIP, arXiv 2103.00020),
    figure 3. Raises SettingError for shapes that differ, a scale not above 0, another direction.
    """
    _same_shape(pictures, texts)
    _above_zero(scale)
    if direction not in ("both", "pictures", "texts"):
        raise SettingError(f"direction is {direction!r}; expected 'both', 'pictures' or 'texts'.")
    logits = scale * _cosines(_unit(pictures), _unit(texts))  # (B, B)
    if target is None:
        there = back = torch.arange(len(logits), device=logits.device)
    else:
        there, back = target.to(logits.dtype), F.normalize(target.to(logits.dtype), p=1, dim=0).T
    losses = {"pictures": lambda: F.cross_entropy(logits, there), "texts": lambda: F.cross_entropy(logits.T, back)}
    return (losses["pictures"]() + losses["texts"]()) / 2 if direction == "both" else losses[direction]()


def shared_target(meanings: Tensor) -> Tensor:
    """Targets for a batch in which captions repeat: meanings (B,) int64 -> (B, B), rows that sum to 1, each shared
    equally among all captions that say the same. Without repeats the identity."""
    same = (meanings[:, None] == meanings).to(torch.get_default_dtype())
    return same / same.sum(1, keepdim=True)


def siglip_loss(pictures: Tensor, texts: Tensor, scale: float | Tensor, bias: float | Tensor) -> Tensor:
    """A yes or no for every pair instead of one choice out of B: the sum over all B^2 pairs of
    log(1 + exp(-z (scale * cosine + bias))), z = 1 on the diagonal and -1 elsewhere, divided by B. (B, D) twice,
    normalised here. Zhai et al. 2023 (SigLIP, arXiv 2303.15343), section 3.2. Raises SettingError for shapes that
    differ and a scale not above 0."""
    _same_shape(pictures, texts)
    _above_zero(scale)
    logits = scale * _cosines(_unit(pictures), _unit(texts)) + bias  # (B, B)
    sign = 2 * torch.eye(len(logits), device=logits.device) - 1
    return -F.logsigmoid(sign * logits).sum() / len(logits)


# Lesson 11, early fusion

IGNORED = -100  # the label of a position that the loss leaves out, as in PyTorch's cross entropy


def answer_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy of the next token, over the positions that have a label: -log p(label t + 1 | tokens to t).

    logits (..., T, V) of the token after each one, labels (..., T) int64 aligned with the tokens: the token itself
    where it is to be learned (the answer and its end), IGNORED elsewhere (pictures, question, padding). The shift by
    one happens here, not before. LLaVA (Liu et al. 2023, arXiv 2304.08485), section 4.2. Raises SettingError for
    shapes that do not fit, and on a CPU where no position has a label.
    """
    return F.cross_entropy(*_next_tokens(logits, labels), ignore_index=IGNORED)


def z_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean of (log Z)^2 over the positions that answer_loss counts, Z = sum_v exp(logit v). The cross entropy does not
    feel a constant added to all logits, and this keeps it small; Chameleon (arXiv 2405.09818, section 2.3) adds
    1e-5 of it. Shapes and errors as in answer_loss."""
    logits, labels = _next_tokens(logits, labels)
    return logits.logsumexp(1)[labels != IGNORED].square().mean()


def text_log_probability(logits: Tensor, labels: Tensor) -> Tensor:
    """How likely the labelled tokens of each text are together: log p, the sum over its positions that have a label.
    logits (..., T, V), labels (..., T) as in answer_loss -> (...)."""
    likely = full(logits[..., :-1, :]).log_softmax(-1)
    wanted = labels[..., 1:]
    found = likely.gather(-1, wanted.clamp(min=0)[..., None])[..., 0]
    return found.masked_fill(wanted == IGNORED, 0.0).sum(-1)


def _next_tokens(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (M, V) and the label (M,) that each of them is to predict: that of the position after it."""
    if logits.shape[:-1] != labels.shape or labels.shape[-1] < 2:
        raise SettingError(
            f"Expected logits (..., T, V) and labels (..., T) with T of at least 2, got {tuple(logits.shape)} and "
            f"{tuple(labels.shape)}."
        )
    logits, labels = full(logits[..., :-1, :].flatten(0, -2)), labels[..., 1:].flatten()
    if labels.device.type == "cpu" and not (labels != IGNORED).any():
        raise SettingError(f"No position behind the first has a label: all are {IGNORED}, nothing could be learned.")
    return logits, labels


def winoground(scores: Tensor) -> dict[str, Tensor]:
    """Which of N pairs are told apart: {"text", "image", "group"} -> bool (N,). scores[n, i, c] (N, 2, 2) says how well
    caption c fits picture i. text: each picture prefers its own caption; image: each caption prefers its own picture;
    group: both. A tie is no preference. Guessing gives 1/4, 1/4 and 1/6. Thrush et al. 2022 (arXiv 2204.03162). Raises
    SettingError for another shape."""
    if scores.ndim != 3 or scores.shape[1:] != (2, 2):
        raise SettingError(f"Expected scores (N, 2, 2), two pictures by two captions, got {tuple(scores.shape)}.")
    own = scores.diagonal(dim1=1, dim2=2)  # (N, 2)
    text = (own > scores.flip(2).diagonal(dim1=1, dim2=2)).all(1)  # picture i with the other caption
    image = (own > scores.flip(1).diagonal(dim1=1, dim2=2)).all(1)  # caption i with the other picture
    return {"text": text, "image": image, "group": text & image}


def _unit(x: Tensor) -> Tensor:
    """Rows of length 1, in at least float32: two cosines that bfloat16 cannot tell apart differ by 20 % at tau .02."""
    return F.normalize(full(x), dim=1)


def _cosines(a: Tensor, b: Tensor) -> Tensor:
    """a (N, D), b (M, D) of unit length -> (N, M), in full precision also where autocast would lower it."""
    with torch.autocast(a.device.type, enabled=False):
        return a @ b.T


def _same_shape(a: Tensor, b: Tensor) -> None:
    if a.ndim != 2 or a.shape != b.shape:
        raise SettingError(
            f"Expected two sets of vectors of one shape (B, D), got {tuple(a.shape)} and {tuple(b.shape)}."
        )


def _above_zero(tau: float | Tensor) -> None:
    if not isinstance(tau, Tensor) and not tau > 0:  # a tensor would have to be read off its device
        raise SettingError(f"The temperature tau must be above 0, got {tau}.")

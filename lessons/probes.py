"""What a frozen network knows, measured from its features: nearest neighbours, a linear probe, patches, retrieval."""

import math
import warnings
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from .compat import float64
from .errors import SettingError
from .precision import full


def knn_accuracy(
    bank: Tensor,
    bank_labels: Tensor,
    queries: Tensor,
    labels: Tensor,
    *,
    k: int = 20,
    tau: float = 0.07,
    chunk: int = 1000,
) -> float:
    """Share of queries whose k nearest neighbours in the bank, by cosine, vote for the right label.

    Features (N, D) and (M, D), labels int64. Votes weigh exp(cosine / tau) (Wu et al. 2018, arXiv 1805.01978,
    section 3.4, as in DINO's evaluation). Raises SettingError when k exceeds the bank.
    """
    if not 1 <= k <= len(bank):
        raise SettingError(f"k is {k}, but the bank holds {len(bank)} features.")
    bank = F.normalize(full(bank), dim=1)
    classes = int(max(bank_labels.max(), labels.max())) + 1
    right = 0
    for part, truth in zip(queries.split(chunk), labels.split(chunk), strict=True):
        cosine, index = (F.normalize(part.to(bank.dtype), dim=1) @ bank.T).topk(k)  # (B, k)
        votes = torch.zeros(len(part), classes, dtype=bank.dtype, device=part.device)
        votes.scatter_add_(1, bank_labels[index], ((cosine - 1) / tau).exp())  # minus 1: the same votes, no overflow
        right += (votes.argmax(1) == truth).sum().item()
    return right / len(queries)


def linear_probe(
    train: Tensor,
    train_labels: Tensor,
    val: Tensor,
    val_labels: Tensor,
    test: Tensor,
    test_labels: Tensor,
    *,
    strengths: tuple[float, ...] = (0.01, 0.1, 1.0),
) -> float:
    """Test accuracy of multinomial logistic regression on frozen features (N, D).

    Features are standardised with the training set's mean and deviation; the inverse L2 strength C is chosen among
    `strengths` on val; test is used once.
    """
    from sklearn.linear_model import LogisticRegression

    parts = [full(part.detach()) for part in (train, val, test)]
    mean, deviation = parts[0].mean(0), parts[0].std(0) + 1e-6
    scaled = [((part - mean) / deviation).cpu().numpy() for part in parts]
    targets = [part.cpu().numpy() for part in (train_labels, val_labels, test_labels)]
    probes = [LogisticRegression(C=c, max_iter=300).fit(scaled[0], targets[0]) for c in strengths]
    best = max(probes, key=lambda probe: probe.score(scaled[1], targets[1]))
    return float(best.score(scaled[2], targets[2]))


def ridge_probe(
    train: Tensor,
    train_labels: Tensor,
    val: Tensor,
    val_labels: Tensor,
    test: Tensor,
    test_labels: Tensor,
    *,
    strengths: tuple[float, ...] = (0.001, 0.01, 0.1, 1.0),
) -> float:
    """Test accuracy of a ridge classifier on frozen features (N, D): least squares onto one-hot labels, closed form.

    Like `linear_probe`, but in milliseconds and on the device of the features, for experiments with dozens of probes.
    Features are standardised with the training set's mean and deviation; the L2 penalty per example is chosen among
    `strengths` on val; test is used once. scikit-learn's RidgeClassifier with alpha = N * strength. Raises
    SettingError where there is no strength to choose from.
    """
    if not strengths:
        raise SettingError("strengths is empty: name at least one L2 penalty.")
    parts = [float64(part.detach()) for part in (train, val, test)]
    mean, deviation = parts[0].mean(0), parts[0].std(0, correction=0) + 1e-6
    x, *others = ((part - mean) / deviation for part in parts)
    train_labels, val_labels, test_labels = (labels.to(x.device) for labels in (train_labels, val_labels, test_labels))
    targets = F.one_hot(train_labels).double()
    centre = targets.mean(0)
    system, right = x.T @ x / len(x), x.T @ (targets - centre) / len(x)
    identity = torch.eye(len(system), dtype=x.dtype, device=x.device)
    shares = []
    for strength in strengths:
        weight = torch.linalg.solve(system + strength * identity, right)
        guesses = ((part @ weight + centre).argmax(1) for part in others)
        truths = (val_labels, test_labels)
        shares.append([(a == b).double().mean().item() for a, b in zip(guesses, truths, strict=True)])
    return max(shares, key=lambda pair: pair[0])[1]


def draw_shots(labels: Tensor, k: int, seed: int = 0) -> Tensor:
    """Numbers of k randomly drawn examples of each class, labels (N,) int64 -> int64 (K * k,): the examples of k-shot
    learning. Raises SettingError where a class has fewer than k."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed)).to(labels.device)
    counts = torch.bincount(labels)
    if not 1 <= k <= int(counts.min()):
        raise SettingError(f"k is {k}, but the rarest of {len(counts)} classes has {int(counts.min())} examples.")
    return torch.cat([order[labels[order] == c][:k] for c in range(len(counts))])


def few_shot_probe(
    train: Tensor,
    train_labels: Tensor,
    val: Tensor,
    val_labels: Tensor,
    test: Tensor,
    test_labels: Tensor,
    k: int,
    *,
    seed: int = 0,
    strengths: tuple[float, ...] = (1.0, 10.0, 100.0),
) -> float:
    """Test accuracy of multinomial logistic regression on k examples of each class, drawn by `seed` from train.

    Features (N, D) are brought to length 1 and not standardised: few examples make a bad estimate of a deviation. The
    inverse L2 strength C is chosen among `strengths` on val, which is more than k-shot learning has, so the probe
    is flattered. scikit-learn's LogisticRegression. Raises SettingError as `draw_shots` does.
    """
    from sklearn.linear_model import LogisticRegression

    chosen = draw_shots(train_labels, k, seed)
    parts = [F.normalize(full(part.detach()), dim=1).cpu().numpy() for part in (train[chosen], val, test)]
    targets = [part.cpu().numpy() for part in (train_labels[chosen], val_labels, test_labels)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*number of unique classes.*")  # one example of each is the point
        fits = [LogisticRegression(C=c, max_iter=300).fit(parts[0], targets[0]) for c in strengths]
    best = max(fits, key=lambda probe: probe.score(parts[1], targets[1]))
    return float(best.score(parts[2], targets[2]))


def crossing_point(shots: Sequence[float], accuracies: Sequence[float], level: float) -> float:
    """How many examples per class a probe needs to reach `level`: its first crossing, interpolated linearly over log k
    between measured accuracies. Below the first number of shots it is that number ("at most"), and infinite where the
    probe never gets there. Radford et al. 2021 (CLIP), section 3.1.5. Raises SettingError for shots that do not rise
    or another number of accuracies."""
    if len(shots) != len(accuracies) or not shots or any(b <= a for a, b in zip(shots, shots[1:], strict=False)):
        raise SettingError(f"Expected rising shots with an accuracy each, got {list(shots)} and {list(accuracies)}.")
    if accuracies[0] >= level:
        return float(shots[0])
    for (k, below), (more, above) in pairwise(zip(shots, accuracies, strict=True)):
        if above >= level:
            share = (level - below) / (above - below)
            return math.exp((1 - share) * math.log(k) + share * math.log(more))
    return math.inf


def calibration_error(probabilities: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Expected calibration error: predictions sorted into `bins` equal intervals (low, high] of confidence, the gaps
    between mean confidence and accuracy averaged with the number of predictions as weights. probabilities (N, K),
    labels (N,) -> 0 to 1. Guo et al. 2017 (arXiv 1706.04599), equation 3. Raises SettingError for fewer than one bin.
    """
    if bins < 1:
        raise SettingError(f"bins is {bins}; expected at least 1.")
    confidence, guess = full(probabilities).max(1)
    edges = torch.arange(1, bins, dtype=confidence.dtype, device=confidence.device) / bins
    place = torch.bucketize(confidence, edges)  # confidence * bins, rounded, may lie above k where it is k / bins
    sums = torch.zeros(2, bins, dtype=confidence.dtype, device=confidence.device)
    sums[0].scatter_add_(0, place, confidence)
    sums[1].scatter_add_(0, place, (guess == labels).to(confidence.dtype))
    return ((sums[0] - sums[1]).abs().sum() / len(labels)).item()


def recall_at(similarity: Tensor, k: int = 1, positives: Tensor | None = None) -> float:
    """Share of queries (rows of `similarity` (M, N)) with a right answer among the k most similar columns.

    `positives` (M, N) bool says which columns are right; the diagonal by default. A tie counts against the right
    answer, so that a constant similarity has no recall; so does one that is not a number.
    """
    if positives is None:
        if similarity.shape[0] > similarity.shape[1]:
            raise SettingError(f"similarity is {tuple(similarity.shape)}: say which columns are right with positives=.")
        positives = torch.eye(*similarity.shape, dtype=torch.bool, device=similarity.device)
    best = similarity.masked_fill(~positives, -torch.inf).amax(1, keepdim=True)
    better = (~(similarity < best) & ~positives).sum(1)  # wrong columns at least as similar as the best right one
    return (better < k).float().mean().item()


def mask_iou(prediction: Tensor, truth: Tensor) -> Tensor:
    """Intersection over union of bool masks (N, H, W), one value in [0, 1] per picture; two empty masks agree (1)."""
    both = (prediction & truth).flatten(1).sum(1).float()
    either = (prediction | truth).flatten(1).sum(1).float()
    return torch.where(either > 0, both / either.clamp(min=1), torch.ones_like(both))


def patch_labels(masks: Tensor, patch: int) -> Tensor:
    """Class of each patch from a map of pixel classes (N, H, W) int64: the most frequent one; (N, H/P, W/P)."""
    if masks.shape[1] % patch or masks.shape[2] % patch:
        raise SettingError(f"Masks of {tuple(masks.shape[1:])} pixels cannot be cut into patches of {patch}.")
    tiles = masks.unfold(1, patch, patch).unfold(2, patch, patch).flatten(3)  # (N, H/P, W/P, P*P)
    return F.one_hot(tiles.long()).sum(3).argmax(-1)


def dense_probe(
    train: tuple[Tensor, Tensor],
    val: tuple[Tensor, Tensor],
    test: Tensor,
    score: Callable[[Tensor, Tensor], float],
    *,
    strengths: tuple[float, ...] = (0.001, 0.01, 0.1, 1.0),
) -> Tensor:
    """What one linear layer on frozen patch tokens says of every pixel: maps (N, C, H, W) for the test pictures.

    `train` and `val` are (patch tokens (N, P, D) of a square grid, true maps (N, C, H, W)): one-hot classes, depth, or
    both. Ridge regression, in closed form, from standardised tokens onto the mean of the maps over each patch; its
    answer is enlarged bilinearly, as in DINOv2's linear segmentation (arXiv 2304.07193, section 7). The L2 penalty
    per patch is chosen among `strengths` on val by `score(maps, truth)`, larger being better. Raises SettingError for
    tokens that form no square grid, or maps that the grid does not divide.
    """
    tokens, maps = train
    side = math.isqrt(tokens.shape[1])
    if side**2 != tokens.shape[1] or maps.shape[-2] % side or maps.shape[-1] % side or len(maps) != len(tokens):
        raise SettingError(
            f"Expected patch tokens (N, P, D), P a square, and maps (N, C, H, W) that it divides; got "
            f"{tuple(tokens.shape)} and {tuple(maps.shape)}."
        )
    maps = full(maps)
    x = float64(tokens.detach().flatten(0, 1))  # (N P, D)
    y = float64(F.adaptive_avg_pool2d(maps, side).flatten(2).mT.flatten(0, 1)).to(x.device)  # (N P, C)
    mean, deviation, centre = x.mean(0), x.std(0, correction=0) + 1e-6, y.mean(0)
    z = (x - mean) / deviation
    system, right = z.T @ z / len(z), z.T @ (y - centre) / len(z)
    identity = torch.eye(len(system), dtype=x.dtype, device=x.device)

    def predict(part: Tensor, weight: Tensor) -> Tensor:
        answer = ((float64(part.detach()).to(x.device) - mean) / deviation) @ weight + centre  # (N, P, C)
        small = answer.to(maps).mT.unflatten(2, (side, side))
        return F.interpolate(small, size=maps.shape[-2:], mode="bilinear", align_corners=False)

    weights = [torch.linalg.solve(system + strength * identity, right) for strength in strengths]
    return predict(test, max(weights, key=lambda weight: score(predict(val[0], weight), val[1])))


def mean_iou(prediction: Tensor, truth: Tensor, classes: int) -> Tensor:
    """IoU of each class (classes,), over the pixels of all pictures together, for class maps (N, H, W) int64; NaN for a
    class that neither has. Its mean is the mIoU of segmentation benchmarks."""
    flat = (truth * classes + prediction).flatten()
    table = torch.bincount(flat, minlength=classes**2).view(classes, classes).float()  # rows: truth
    both = table.diagonal()
    return both / (table.sum(0) + table.sum(1) - both)

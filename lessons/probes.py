"""What a frozen network knows, measured from its features: nearest neighbours, a linear probe, patches, retrieval."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import SettingError


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
    bank = F.normalize(bank.float(), dim=1)
    classes = int(max(bank_labels.max(), labels.max())) + 1
    right = 0
    for part, truth in zip(queries.split(chunk), labels.split(chunk), strict=True):
        cosine, index = (F.normalize(part.float(), dim=1) @ bank.T).topk(k)  # (B, k)
        votes = torch.zeros(len(part), classes, device=part.device)
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

    parts = [part.detach().float() for part in (train, val, test)]
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
    exact = torch.float32 if train.device.type == "mps" else torch.float64
    parts = [part.detach().to(exact) for part in (train, val, test)]
    mean, deviation = parts[0].mean(0), parts[0].std(0, correction=0) + 1e-6
    x, *others = ((part - mean) / deviation for part in parts)
    targets = F.one_hot(train_labels).to(exact)
    centre = targets.mean(0)
    system, right = x.T @ x / len(x), x.T @ (targets - centre) / len(x)
    identity = torch.eye(len(system), dtype=exact, device=x.device)
    shares = []
    for strength in strengths:
        weight = torch.linalg.solve(system + strength * identity, right)
        guesses = ((part @ weight + centre).argmax(1) for part in others)
        truths = (val_labels, test_labels)
        shares.append([(a == b).double().mean().item() for a, b in zip(guesses, truths, strict=True)])
    return max(shares, key=lambda pair: pair[0])[1]


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

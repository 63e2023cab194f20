"""The shape of a shared space: how far two kinds of input lie apart, which vectors are hubs, and the cures."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import SettingError
from .precision import full


def modality_gap(a: Tensor, b: Tensor) -> float:
    """Distance between the mean of the unit vectors a (N, D) and that of b (M, D): 0 to 2. Normalised here. Liang et
    al. 2022 (Mind the Gap, arXiv 2203.02053). Compare it with `gap_of_chance`."""
    return (_unit(a).mean(0) - _unit(b).mean(0)).norm().item()


def gap_of_chance(n: int, m: int) -> float:
    """The gap that n and m independent vectors show although they come from one uniform law: about sqrt(1/n + 1/m)."""
    return math.sqrt(1 / n + 1 / m)


def shift_gap(a: Tensor, b: Tensor, amount: float) -> tuple[Tensor, Tensor]:
    """Move two sets of unit vectors (N, D), (M, D) towards each other: a - amount * gap, b + amount * gap, both of unit
    length again. At 0.5 the means meet, but for the normalisation; a negative amount widens the gap (Liang et al.
    2022)."""
    a, b = _unit(a), _unit(b)
    gap = a.mean(0) - b.mean(0)
    return _unit(a - amount * gap), _unit(b + amount * gap)


def centred(x: Tensor, mean: Tensor | None = None) -> Tensor:
    """Unit vectors (N, D) without their common part: minus `mean` (D,), of unit length again. Take the mean from other
    vectors of the same kind (a bank, the training set); by default it is that of x itself."""
    x = _unit(x)
    return _unit(x - (x.mean(0) if mean is None else mean))


def cone_cosine(x: Tensor) -> float:
    """Mean cosine of two different vectors of x (N, D): 0 where they point everywhere, near 1 in a narrow cone.

    From |sum of u|^2 = N + sum of the cosines of all ordered pairs, so without N^2 memory. Raises SettingError for
    fewer than two vectors.
    """
    n = len(x)
    if n < 2:
        raise SettingError(f"A cosine needs two vectors; got {n}.")
    total = _unit(x).sum(0).cpu().double().square().sum()  # on the CPU: not every accelerator has float64
    return ((total - n) / (n * (n - 1))).item()


def hub_counts(similarity: Tensor, k: int = 10, *, same: bool = False) -> Tensor:
    """N_k: how many queries (rows) have each item (column) among their k most similar; (Q, G) -> int64 (G,).

    Its mean is Q k / G. `same` leaves the diagonal out, where queries and items are one set. Radovanovic et al. 2010
    (Hubs in Space, JMLR 11). Raises SettingError for a k beyond the number of items.
    """
    items = similarity.shape[1]
    if not 1 <= k <= items - same:
        raise SettingError(f"k is {k}, but a query has {items - same} items to choose from.")
    if same:
        similarity = similarity.clone().fill_diagonal_(-torch.inf)
    return torch.bincount(similarity.topk(k, dim=1).indices.flatten(), minlength=items)


def skewness(values: Tensor) -> float:
    """Third central moment over the cube of the standard deviation (biased, as scipy.stats.skew): 0 for a symmetric
    distribution, large and positive where a few items are chosen by many; NaN where all values are equal."""
    values = values.cpu().double()
    centre = values - values.mean()
    return (centre.pow(3).mean() / centre.square().mean().pow(1.5)).item()


def csls(similarity: Tensor, k: int = 10) -> Tensor:
    """Cross-domain similarity local scaling of cosines (Q, G): 2 s - r(q) - r(g), where r is the mean of the k largest
    cosines of a query (row) and of an item (column). Who is near to everybody is marked down. Conneau et al. 2018
    (arXiv 1710.04087), section 2.3. Raises SettingError for a k beyond either number."""
    if not 1 <= k <= min(similarity.shape):
        raise SettingError(
            f"k is {k}; expected 1 to {min(similarity.shape)} for similarities {tuple(similarity.shape)}."
        )
    of_queries = similarity.topk(k, dim=1).values.mean(1, keepdim=True)  # (Q, 1)
    of_items = similarity.topk(k, dim=0).values.mean(0, keepdim=True)  # (1, G)
    return 2 * similarity - of_queries - of_items


def inverted_softmax(similarity: Tensor, bank: Tensor, beta: float = 20.0) -> Tensor:
    """log of e^(beta s(q, g)) / sum over q' of e^(beta s(q', g)): similarities (Q, G) divided by how much each item is
    asked for by a bank of other queries, with cosines `bank` (R, G). Bogolin et al. 2022 (QB-Norm, arXiv 2112.12777),
    as a logarithm, which orders alike and cannot overflow. Raises SettingError where the items differ or
    beta is not above 0."""
    if bank.shape[1] != similarity.shape[1] or not beta > 0:
        raise SettingError(
            f"Expected a bank about the same {similarity.shape[1]} items and beta above 0; got {tuple(bank.shape)} and "
            f"{beta}."
        )
    return beta * similarity - (beta * bank).logsumexp(0)


def _unit(x: Tensor) -> Tensor:
    return F.normalize(full(x), dim=1)

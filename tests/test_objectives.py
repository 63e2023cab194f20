"""The losses: against loops, against the libraries that others rely on, and at the values that the lessons quote."""

import math

import pytest
import torch
import torch.nn.functional as F
from parity import agree, in_float32, in_float64

from lessons import objectives
from lessons.compat import import_torchvision
from lessons.errors import SettingError

pytestmark = in_float64

ZA = torch.tensor([[1.0, 2, 2], [2, -1, 0], [0, 0, 3]], dtype=torch.float64)
ZB = torch.tensor([[2.0, 1, 2], [1, -2, 1], [0, 1, 1]], dtype=torch.float64)


def vectors(*shape: int, seed: int = 0) -> torch.Tensor:
    """Vectors of very different lengths: whoever forgets to normalise gets other numbers."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return x * torch.logspace(-1, 1, shape[0])[:, None]


def value_and_gradients(loss, *inputs: torch.Tensor) -> list[torch.Tensor]:
    leaves = [x.clone().requires_grad_() for x in inputs]
    value = loss(*leaves)
    return [value.detach(), *torch.autograd.grad(value, leaves)]


def assert_same(ours, theirs, *inputs: torch.Tensor) -> None:
    agree(value_and_gradients(ours, *inputs), value_and_gradients(theirs, *inputs))


def info_nce_by_loops(q, k, tau, spared=lambda i, j: False):
    q, k = F.normalize(q, dim=1), F.normalize(k, dim=1)
    rows = []
    for i in range(len(q)):
        terms = [(q[i] @ k[j] / tau).exp() for j in range(len(k)) if j == i or not spared(i, j)]
        rows.append(-((q[i] @ k[i] / tau).exp() / sum(terms)).log())
    return sum(rows) / len(rows)


# InfoNCE


@pytest.mark.parametrize(("B", "D", "tau"), [(5, 3, 0.2), (7, 4, 0.1), (4, 9, 0.5)])
def test_info_nce_equals_the_formula(B, D, tau):
    q, k = vectors(B, D), vectors(B, D, seed=1)
    assert_same(lambda q, k: objectives.info_nce(q, k, tau), lambda q, k: info_nce_by_loops(q, k, tau), q, k)


@pytest.mark.parametrize("scale", [1 / 0.07, 5.0])
def test_symmetric_info_nce_equals_open_clip(scale):
    import_torchvision()
    from open_clip.loss import ClipLoss

    def peer(a, b):
        return ClipLoss()(F.normalize(a, dim=1), F.normalize(b, dim=1), scale)

    for B, D in ((6, 4), (9, 3)):
        a, b = vectors(B, D), vectors(B, D, seed=2)
        assert_same(lambda a, b: objectives.symmetric_info_nce(a, b, 1 / scale), peer, a, b)


def test_symmetric_info_nce_is_the_mean_of_two_different_directions():
    forth, back = (objectives.info_nce(a, b, 0.07).item() for a, b in ((ZA, ZB), (ZB, ZA)))
    assert forth == pytest.approx(0.540810, abs=2e-6) and back == pytest.approx(1.151261, abs=2e-6)
    assert objectives.symmetric_info_nce(ZA, ZB, 0.07).item() == pytest.approx((forth + back) / 2)


def test_info_nce_with_a_queue():
    q, k, queue = torch.tensor([[1.0, 0]]), torch.tensor([[0.8, 0.6]]), torch.tensor([[0.0, 1], [-1, 0], [0.6, -0.8]])
    for tau, value in ((0.07, 0.055854), (0.2, 0.326652)):
        assert objectives.info_nce(q, k, tau, negatives=queue).item() == pytest.approx(value, abs=2e-6)
        assert objectives.info_nce(3 * q, 2 * k, tau, negatives=5 * queue).item() == pytest.approx(value, abs=2e-6)


def test_info_nce_with_a_queue_equals_lightly():
    import_torchvision()
    from lightly.loss import NTXentLoss

    peer = NTXentLoss(temperature=0.2, memory_bank_size=(11, 4)).double()
    q, k = vectors(6, 4), vectors(6, 4, seed=3)
    peer(q, k)  # the first call fills its bank
    queue = F.normalize(peer.memory_bank.bank, dim=1)  # it begins with vectors of length 1 in float32
    peer.memory_bank.bank.copy_(queue)
    assert queue.shape == (11, 4)
    theirs = peer(q, k)  # q carries no gradient: the bank stays as it is
    agree(objectives.info_nce(q, k, 0.2, negatives=queue), theirs)


def test_equal_items_are_left_out():
    meanings = torch.tensor([0, 1, 0, 2, 1])
    same = meanings[:, None] == meanings
    a, b = vectors(5, 3), vectors(5, 3, seed=4)
    spared = lambda i, j: bool(same[i, j])  # noqa: E731
    assert_same(
        lambda a, b: objectives.info_nce(a, b, 0.2, same=same), lambda a, b: info_nce_by_loops(a, b, 0.2, spared), a, b
    )
    both = objectives.symmetric_info_nce(a, b, 0.2, same=same)
    one, other = objectives.info_nce(a, b, 0.2, same=same), objectives.info_nce(b, a, 0.2, same=same.T)
    agree(both, (one + other) / 2)
    everyone = torch.ones(5, 5, dtype=torch.bool)
    assert objectives.info_nce(a, b, 0.2, same=everyone).item() == 0  # the partner itself is never left out


def test_a_one_sided_table_is_turned_for_the_way_back():
    a, b = vectors(4, 3), vectors(4, 3, seed=5)
    same = torch.zeros(4, 4, dtype=torch.bool)
    same[0, 1] = True
    back = info_nce_by_loops(b, a, 0.2, lambda i, j: (i, j) == (1, 0))
    forth = info_nce_by_loops(a, b, 0.2, lambda i, j: (i, j) == (0, 1))
    agree(objectives.symmetric_info_nce(a, b, 0.2, same=same), (forth + back) / 2)


def test_equal_items_of_a_queue_are_left_out():
    q, k, queue = vectors(3, 4), vectors(3, 4, seed=1), vectors(5, 4, seed=2)
    same = torch.zeros(3, 5, dtype=torch.bool)
    same[:, 2:] = True
    got = objectives.info_nce(q, k, 0.2, negatives=queue, same=same)
    agree(got, objectives.info_nce(q, k, 0.2, negatives=queue[:2]))


def test_a_learnt_temperature_gets_a_gradient():
    scale = torch.tensor(math.log(1 / 0.07), requires_grad=True)
    objectives.symmetric_info_nce(ZA, ZB, 1 / scale.exp()).backward()
    assert scale.grad.abs() > 1e-3


@pytest.mark.parametrize("loss", [objectives.info_nce, objectives.symmetric_info_nce, objectives.nt_xent])
def test_bad_arguments_are_named(loss):
    with pytest.raises(SettingError, match=r"\(3, 3\) and \(2, 3\)"):
        loss(ZA, ZB[:2], 0.1)
    for tau in (0.0, -0.1, math.nan):
        with pytest.raises(SettingError, match="above 0"):
            loss(ZA, ZB, tau)


@in_float32
@pytest.mark.parametrize("loss", [objectives.info_nce, objectives.nt_xent])
def test_autocast_does_not_coarsen_the_cosines(loss):
    """In bfloat16 two cosines near 1 become equal; divided by a small temperature that would be seen."""
    z = F.normalize(1 + 0.05 * torch.randn(16, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    exact = loss(z, z.roll(1, 1), 0.02)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(loss(z, z.roll(1, 1), 0.02), exact)
        assert loss(z.bfloat16(), z.roll(1, 1).bfloat16(), 0.02).dtype == torch.float32


# NT-Xent


@pytest.mark.parametrize(("tau", "value"), [(0.5, 1.073874), (0.1, 0.799398), (1.0, 1.283646)])
def test_nt_xent_at_known_values(tau, value):
    assert objectives.nt_xent(ZA, ZB, tau).item() == pytest.approx(value, abs=2e-6)


@pytest.mark.parametrize("tau", [0.5, 0.1])
def test_nt_xent_equals_lightly(tau):
    import_torchvision()
    from lightly.loss import NTXentLoss

    for B, D in ((5, 3), (8, 16)):
        a, b = vectors(B, D), vectors(B, D, seed=1)
        assert_same(lambda a, b: objectives.nt_xent(a, b, tau), NTXentLoss(temperature=tau), a, b)


@pytest.mark.parametrize("tau", [0.05, 0.5, 2.0])
def test_collapsed_vectors_cost_the_logarithm_of_the_candidates(tau):
    z = torch.ones(64, 8)
    assert objectives.info_nce(z, z, tau).item() == pytest.approx(math.log(64), abs=1e-5)
    assert objectives.symmetric_info_nce(z, z, tau).item() == pytest.approx(math.log(64), abs=1e-5)
    assert objectives.nt_xent(z, z, tau).item() == pytest.approx(math.log(127), abs=1e-5)
    assert objectives.info_nce(z, z, tau, negatives=z[:9]).item() == pytest.approx(math.log(10), abs=1e-5)


@pytest.mark.parametrize(("tau", "value"), [(0.1, 0.0229), (0.2, 1.4898), (0.5, 4.2488)])
def test_perfect_vectors_do_not_cost_zero(tau, value):
    z = torch.eye(256)
    assert objectives.nt_xent(z, z, tau).item() == pytest.approx(value, abs=1e-4)


# Two and three vectors at a time


def test_pair_loss():
    from pytorch_metric_learning.distances import LpDistance
    from pytorch_metric_learning.losses import ContrastiveLoss
    from pytorch_metric_learning.reducers import SumReducer

    a, b = vectors(6, 4), vectors(6, 4, seed=1)
    same = torch.tensor([True, False, True, False, False, False])
    peer = ContrastiveLoss(0, 2.5, distance=LpDistance(normalize_embeddings=False), reducer=SumReducer())
    # Its distances are not squared: pair by pair, as only the loss of one pair can be squared.
    rows = []
    for i in range(6):
        z, labels = torch.stack([a[i], b[i]]), torch.tensor([0, 0 if same[i] else 1])
        rows.append((peer(z, labels) / 2).square() / 2)  # each pair is counted from both ends
    agree(objectives.pair_loss(a, b, same, margin=2.5), torch.stack(rows).mean())
    equal = a.clone().requires_grad_()
    objectives.pair_loss(equal, a, torch.zeros(6, dtype=torch.bool)).backward()
    assert equal.grad.isfinite().all()  # the root has no slope at distance zero


def test_triplet_loss_takes_squared_distances_of_unit_vectors():
    a, p, n = torch.tensor([[1.0, 0]]), torch.tensor([[0.6, 0.8]]), torch.tensor([[0.8, 0.6]])
    assert objectives.triplet_loss(a, p, n).item() == pytest.approx(0.6, abs=1e-6)
    assert objectives.triplet_loss(2 * a, 3 * p, 4 * n).item() == pytest.approx(0.6, abs=1e-6)
    assert objectives.triplet_loss(a, n, -a).item() == 0
    a, p, n = vectors(7, 3), vectors(7, 3, seed=1), vectors(7, 3, seed=2)
    unit = lambda x: F.normalize(x, dim=1)  # noqa: E731
    distance = lambda x, y: (x - y).square().sum(1)  # noqa: E731
    peer = torch.nn.TripletMarginWithDistanceLoss(distance_function=distance, margin=0.2)
    assert_same(objectives.triplet_loss, lambda a, p, n: peer(unit(a), unit(p), unit(n)), a, p, n)


@pytest.mark.parametrize("margin", [0.2, 0.7])
def test_semi_hard_mining_equals_pytorch_metric_learning(margin):
    from pytorch_metric_learning.distances import LpDistance
    from pytorch_metric_learning.losses import TripletMarginLoss
    from pytorch_metric_learning.miners import TripletMarginMiner
    from pytorch_metric_learning.reducers import MeanReducer

    squared = LpDistance(normalize_embeddings=True, p=2, power=2)
    miner = TripletMarginMiner(margin, type_of_triplets="semihard", distance=squared)
    loss = TripletMarginLoss(margin, distance=squared, reducer=MeanReducer())
    z, labels = vectors(17, 3, seed=4), torch.tensor([0, 1, 2, 0, 1, 2, 0, 0, 1, 3, 2, 2, 1, 0, 1, 2, 0])
    unit = F.normalize(z, dim=1)
    distances = (unit[:, None] - unit).square().sum(2)
    ours = set(zip(*(part.tolist() for part in objectives.semi_hard(distances, labels, margin)), strict=True))
    theirs = set(zip(*(part.tolist() for part in miner(z, labels)), strict=True))
    assert ours == theirs and len(ours) > 20
    assert_same(
        lambda z: objectives.semi_hard_triplet_loss(z, labels, margin), lambda z: loss(z, labels, miner(z, labels)), z
    )


def test_a_batch_without_semi_hard_triplets_costs_nothing():
    z = torch.tensor([[1.0, 0], [1, 0.01], [-1, 0], [-1, 0.01]], requires_grad=True)
    loss = objectives.semi_hard_triplet_loss(z, torch.tensor([0, 0, 1, 1]))
    loss.backward()
    assert loss.item() == 0 and torch.equal(z.grad, torch.zeros_like(z))


# Alignment and uniformity


def test_alignment_and_uniformity_at_known_values():
    assert objectives.alignment(ZA, ZB).item() == pytest.approx(0.449138, abs=2e-6)
    assert objectives.uniformity(ZA).item() == pytest.approx(-2.301824, abs=2e-6)
    assert objectives.alignment(ZA, 3 * ZA).item() == pytest.approx(0, abs=1e-6)
    assert objectives.uniformity(torch.ones(5, 4)).item() == pytest.approx(0, abs=1e-5)


def test_alignment_and_uniformity_equal_the_authors_code():
    """As published in github.com/SsnL/align_uniform, which normalises before the call."""
    a, b = vectors(9, 5), vectors(9, 5, seed=1)
    unit = lambda x: F.normalize(x, dim=1)  # noqa: E731
    for alpha in (1, 2, 3.0):
        peer = lambda a, b, alpha=alpha: (unit(a) - unit(b)).norm(p=2, dim=1).pow(alpha).mean()  # noqa: E731
        assert_same(lambda a, b, alpha=alpha: objectives.alignment(a, b, alpha), peer, a, b)
    for t in (2, 0.5):
        peer = lambda z, t=t: torch.pdist(unit(z), p=2).pow(2).mul(-t).exp().mean().log()  # noqa: E731
        assert_same(lambda z, t=t: objectives.uniformity(z, t), peer, a)


def test_uniformity_of_a_uniform_law():
    for D, value in ((2, -1.575027), (16, -3.513036), (128, -3.937530)):
        z = torch.randn(3000, D, generator=torch.Generator().manual_seed(D))
        assert objectives.uniformity(z).item() == pytest.approx(value, abs=0.02)


def test_uniformity_needs_two_vectors():
    with pytest.raises(SettingError, match="1 vector"):
        objectives.uniformity(ZA[:1])

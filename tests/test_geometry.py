"""The shape of a shared space: gap, cone, hubs and cures, held to plain loops, scipy, scikit-learn and faiss."""

import math

import pytest
import torch
import torch.nn.functional as F
from parity import agree, in_float64

from lessons import geometry, probes
from lessons.errors import SettingError

pytestmark = in_float64


def unit(*shape, seed=0, away=None):
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return F.normalize(x if away is None else x + away, dim=1)


# Gap and cone


def test_gap_of_one_cloud_is_about_its_null_value_and_of_two_is_not():
    a, b = unit(1000, 64, seed=1), unit(1000, 64, seed=2)
    assert geometry.gap_of_chance(1000, 1000) == pytest.approx(0.0447, abs=1e-4)
    assert geometry.modality_gap(a, b) == pytest.approx(geometry.gap_of_chance(1000, 1000), rel=0.25)
    assert geometry.modality_gap(a, -a + 2 * a.mean(0)) < 0.2
    apart = torch.eye(64)[0] * 8
    assert geometry.modality_gap(unit(200, 64, away=apart), unit(300, 64, seed=5, away=-apart)) > 1
    assert geometry.modality_gap(3 * a, b) == pytest.approx(geometry.modality_gap(a, b)), "lengths do not count"


def test_shift_closes_and_widens_and_gives_unit_vectors():
    away = torch.eye(16)[2]
    a, b = unit(300, 16, seed=1, away=away), unit(200, 16, seed=2, away=-away)
    gap = geometry.modality_gap(a, b)
    left, right = geometry.shift_gap(a, b, 0.5)
    agree(left.norm(dim=1), torch.ones(300))
    assert geometry.modality_gap(left, right) < 0.35 * gap, "they meet, but for the normalisation"
    assert geometry.modality_gap(*geometry.shift_gap(a, b, -0.5)) > gap
    for moved, same in zip(geometry.shift_gap(a, b, 0.0), (a, b), strict=True):
        agree(moved, same)


def test_centring_takes_the_mean_of_the_bank_it_is_given():
    bank, x = unit(400, 8, seed=1, away=torch.ones(8)), unit(50, 8, seed=2, away=torch.ones(8))
    ours = geometry.centred(x, bank.mean(0))
    agree(ours, F.normalize(x - bank.mean(0), dim=1))
    assert geometry.cone_cosine(ours) < 0.1 < geometry.cone_cosine(x)
    agree(geometry.centred(x), geometry.centred(x, x.mean(0)))


@pytest.mark.parametrize("n", [2, 3, 40])
def test_cone_cosine_is_the_mean_over_pairs(n):
    x = torch.randn(n, 5, generator=torch.Generator().manual_seed(n)) + 0.7
    table = F.normalize(x, dim=1) @ F.normalize(x, dim=1).T
    assert geometry.cone_cosine(x) == pytest.approx(table[~torch.eye(n, dtype=torch.bool)].mean().item(), abs=1e-5)
    with pytest.raises(SettingError, match="two vectors"):
        geometry.cone_cosine(x[:1])


# Hubs


def test_hub_counts_against_scikit_learn_and_loops():
    from sklearn.neighbors import NearestNeighbors

    queries, items = unit(60, 12, seed=1), unit(45, 12, seed=2)
    nearest = NearestNeighbors(n_neighbors=7, metric="cosine").fit(items.numpy()).kneighbors(queries.numpy())[1]
    counts = geometry.hub_counts(queries @ items.T, 7)
    assert counts.tolist() == [int((nearest == item).sum()) for item in range(45)]
    assert counts.sum() == 60 * 7
    own = geometry.hub_counts(items @ items.T, 3, same=True)
    nearest = NearestNeighbors(n_neighbors=3, metric="cosine").fit(items.numpy()).kneighbors()[1]
    assert own.tolist() == [int((nearest == item).sum()) for item in range(45)], "without itself"
    with pytest.raises(SettingError, match="44 items"):
        geometry.hub_counts(items @ items.T, 45, same=True)


def test_skewness_is_scipys():
    from scipy.stats import skew

    values = torch.tensor([0, 1, 1, 2, 30, 4, 0, 0])
    assert geometry.skewness(values) == pytest.approx(skew(values.numpy()))
    assert geometry.skewness(torch.tensor([1.0, 2.0, 3.0])) == pytest.approx(0)
    assert math.isnan(geometry.skewness(torch.ones(4)))


def test_random_unit_vectors_have_no_hubs_but_a_common_mean_makes_them():
    def skew_of(away):
        a, b = unit(1000, 64, seed=1, away=away), unit(1000, 64, seed=2, away=away)
        return geometry.skewness(geometry.hub_counts(a @ b.T, 10))

    assert skew_of(None) < 0.6
    assert skew_of(0.5 * torch.ones(64)) > 1.5


# Cures


def test_csls_on_the_known_table():
    S = torch.tensor([[0.9, 0.6, 0.2], [0.8, 0.78, 0.1], [0.7, 0.2, 0.66]])
    want = torch.tensor([[0.20, -0.24, -0.78], [-0.04, 0.08, -1.02], [-0.13, -0.97, 0.21]])
    agree(geometry.csls(S, 2), want)
    assert S.argmax(1).tolist() == [0, 0, 0] and geometry.csls(S, 2).argmax(1).tolist() == [0, 1, 2]
    with pytest.raises(SettingError, match="expected 1 to 3"):
        geometry.csls(S, 4)


def test_inverted_softmax_is_its_formula():
    S, bank = unit(4, 6, seed=1), unit(9, 6, seed=2)
    want = (5 * S).exp() / (5 * bank).exp().sum(0)
    agree(geometry.inverted_softmax(S, bank, 5.0).exp(), want)
    assert geometry.inverted_softmax(100 * S, 100 * bank, 100.0).isfinite().all(), "as a logarithm it cannot overflow"
    with pytest.raises(SettingError, match="same 6 items"):
        geometry.inverted_softmax(S, bank[:, :5])
    with pytest.raises(SettingError, match="beta above 0"):
        geometry.inverted_softmax(S, bank, 0.0)


def test_every_cure_repairs_a_search_across_a_gap():
    """A shift of both sides makes hubs and costs recall; each cure brings most of it back."""
    meaning, away = unit(800, 64, seed=1), torch.eye(64)[0]
    noise = [0.9 * unit(800, 64, seed=seed) for seed in (2, 3)]
    x, y = F.normalize(meaning + noise[0] + 1.5 * away, dim=1), F.normalize(meaning + noise[1] - 1.5 * away, dim=1)
    asked = F.normalize(unit(800, 64, seed=7) + 0.9 * unit(800, 64, seed=8) + 1.5 * away, dim=1)  # other queries
    S = x @ y.T
    before = probes.recall_at(S)
    cures = {
        "centred": geometry.centred(x, asked.mean(0)) @ geometry.centred(y).T,
        "csls": geometry.csls(S, 10),
        "inverted softmax": geometry.inverted_softmax(S, asked @ y.T, 20.0),
    }
    for name, table in cures.items():
        assert probes.recall_at(table) > before + 0.05, name
    assert geometry.skewness(geometry.hub_counts(S)) > 2 * geometry.skewness(geometry.hub_counts(cures["centred"]))


# Exact search


def test_a_product_and_a_sort_find_what_faiss_and_scikit_learn_find():
    import faiss
    from sklearn.neighbors import NearestNeighbors

    faiss.omp_set_num_threads(1)
    bank, queries = unit(700, 24, seed=1), unit(40, 24, seed=2)
    values, ours = (queries @ bank.T).topk(10)
    index = faiss.IndexFlatIP(24)
    index.add(bank.numpy())
    cosines, theirs = index.search(queries.numpy(), 10)
    assert torch.equal(ours, torch.from_numpy(theirs))
    agree(values, torch.from_numpy(cosines).double(), rtol=0, atol=5e-5)  # faiss computes in float32
    distance, others = NearestNeighbors(n_neighbors=10, metric="cosine").fit(bank.numpy()).kneighbors(queries.numpy())
    assert torch.equal(ours, torch.from_numpy(others))
    agree(1 - values, torch.from_numpy(distance))

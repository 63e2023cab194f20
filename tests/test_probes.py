"""Probes: the same numbers as scikit-learn or plain loops; ties, empty masks and NaN never flatter a network."""

from functools import partial

import numpy as np
import pytest
import torch
from parity import in_float64

from lessons.errors import SettingError
from lessons.probes import few_shot_probe, knn_accuracy, linear_probe, mask_iou, patch_labels, recall_at, ridge_probe

pytestmark = in_float64


def clusters(n: int, classes: int = 4, width: int = 12, noise: float = 1.5, seed: int = 0):
    """Features (n, width) scattered around one centre per class, on scales that differ by column; and the labels."""
    chance = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, width, generator=torch.Generator().manual_seed(99))
    labels = torch.randint(classes, (n,), generator=chance)
    features = centres[labels] + noise * torch.randn(n, width, generator=chance)
    return features * torch.linspace(0.2, 5, width) + 1, labels


# Nearest neighbours


@pytest.mark.parametrize(("k", "tau"), [(1, 0.07), (5, 0.07), (20, 0.07), (20, 1.0), (60, 0.02)])
def test_knn_equals_scikit_learn(k, tau):
    from sklearn.neighbors import KNeighborsClassifier

    bank, bank_labels = clusters(300)
    queries, labels = clusters(150, seed=1)
    peer = KNeighborsClassifier(k, metric="cosine", weights=lambda distance: np.exp(-distance / tau))
    expected = peer.fit(bank.numpy(), bank_labels.numpy()).score(queries.numpy(), labels.numpy())
    assert 0.3 < expected < 0.95
    assert knn_accuracy(bank, bank_labels, queries, labels, k=k, tau=tau) == pytest.approx(expected, abs=1e-9)


def test_knn_does_not_depend_on_chunks_lengths_or_precision():
    bank, bank_labels = clusters(200)
    queries, labels = clusters(90, seed=1)
    whole = knn_accuracy(bank, bank_labels, queries, labels)
    assert knn_accuracy(bank, bank_labels, queries, labels, chunk=7) == whole
    lengths = torch.rand(200, 1) * 100 + 0.1  # cosine: the length of a feature says nothing
    assert knn_accuracy(bank * lengths, bank_labels, queries * 1e-3, labels) == whole
    assert knn_accuracy(bank.double(), bank_labels, queries.bfloat16(), labels) == pytest.approx(whole, abs=0.05)


def test_knn_near_neighbours_outvote_many_far_ones():
    bank = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    labels = torch.tensor([0, 1, 1, 1])
    query = torch.tensor([[1.0, 0.1]])
    assert knn_accuracy(bank, labels, query, torch.tensor([0]), k=4) == 1
    assert knn_accuracy(bank, labels, query, torch.tensor([0]), k=4, tau=100.0) == 0  # equal votes: three against one


def test_knn_takes_a_small_temperature_and_a_class_the_bank_lacks():
    bank, labels = torch.eye(3), torch.arange(3)
    assert knn_accuracy(bank, labels, bank, labels, k=3, tau=0.001) == 1
    near = torch.tensor([[1.0, 0.2], [1.0, 0.0]])  # exp(1 / 0.001) would be infinite for both
    assert knn_accuracy(near, torch.tensor([0, 1]), near[1:], torch.tensor([1]), k=2, tau=0.001) == 1
    assert knn_accuracy(bank, labels, bank, torch.tensor([0, 1, 7]), k=1) == pytest.approx(2 / 3)


@pytest.mark.parametrize("k", [0, -1, 11])
def test_knn_with_more_neighbours_than_features(k):
    bank, labels = clusters(10)
    with pytest.raises(SettingError, match=rf"k is {k}.* 10 "):
        knn_accuracy(bank, labels, bank, labels, k=k)


# Linear probe


def split(seed: int = 0):
    return [part for i, n in enumerate((200, 80, 120)) for part in clusters(n, seed=10 * seed + i)]


def peer_probe(parts, strength: float):
    """scikit-learn's pipeline, and a function that scores it on one part."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=300))
    model.fit(parts[0].numpy(), parts[1].numpy())
    return lambda at: model.score(parts[at].numpy(), parts[at + 1].numpy())


@pytest.mark.parametrize("strength", [0.01, 1.0])
def test_linear_probe_equals_scikit_learn(strength):
    parts = split()
    expected = peer_probe(parts, strength)(4)
    assert 0.5 < expected < 1
    assert linear_probe(*parts, strengths=(strength,)) == pytest.approx(expected, abs=0.01)


def test_linear_probe_chooses_on_val_and_reports_test():
    strengths = (0.0001, 0.01, 1.0, 100.0)
    for seed in range(4):
        parts = split(seed)
        scores = [(peer_probe(parts, strength)(2), peer_probe(parts, strength)(4)) for strength in strengths]
        best = max(scores, key=lambda score: score[0])
        assert linear_probe(*parts, strengths=strengths) == pytest.approx(best[1], abs=0.01)


def test_linear_probe_standardises_with_the_training_set_alone():
    parts = split()
    plain = linear_probe(*parts)
    moved = [part * 1000 + 7 if part.is_floating_point() else part for part in parts]
    assert linear_probe(*moved) == pytest.approx(plain, abs=0.01)
    shifted = [*parts[:4], parts[4] + 50, parts[5]]  # a shift of the test set alone must show
    assert linear_probe(*shifted) < plain - 0.1


def test_linear_probe_takes_features_as_networks_give_them():
    parts = split()
    plain = linear_probe(*parts)
    constant = [torch.cat([p, torch.ones(len(p), 1)], 1) if p.is_floating_point() else p for p in parts]
    assert linear_probe(*constant) == pytest.approx(plain, abs=0.01)  # a dead unit divides by nothing
    half = [part.bfloat16().requires_grad_() if part.is_floating_point() else part for part in parts]
    assert linear_probe(*half) == pytest.approx(plain, abs=0.05)


@pytest.mark.parametrize(
    ("probe", "strengths"),
    [
        (linear_probe, (1e-5, 1e-3, 1e-1, 10.0)),
        (ridge_probe, (1e-3, 1.0, 30.0, 1e3)),
        (partial(few_shot_probe, k=3), (1e-3, 1.0, 30.0, 1e3)),
    ],
    ids=["linear", "ridge", "few shots"],
)
def test_probes_choose_on_val_where_train_and_test_would_choose_otherwise(probe, strengths):
    others = {"train": 0, "test": 0}
    for seed in range(6):
        few_and_noisy = (clusters(n, noise=3.0, seed=10 * seed + i) for i, n in enumerate((40, 60, 60)))
        train, val, test = few_and_noisy
        shares = {
            name: [probe(*train, *part, *part, strengths=(strength,)) for strength in strengths]
            for name, part in (("train", train), ("val", val), ("test", test))
        }
        chosen = {name: shares["test"][row.index(max(row))] for name, row in shares.items()}
        assert probe(*train, *val, *test, strengths=strengths) == pytest.approx(chosen["val"], abs=1e-9)
        others = {name: others[name] + (chosen[name] != chosen["val"]) for name in others}
    assert min(others.values()) > 0, "these data cannot tell where a probe chooses"


def test_ridge_probe_standardises_with_the_training_set_alone():
    parts = split()
    plain = ridge_probe(*parts)
    moved = [part * 1000 + 7 if part.is_floating_point() else part for part in parts]
    assert ridge_probe(*moved) == pytest.approx(plain, abs=0.01)
    assert ridge_probe(*parts[:4], parts[4] + 50, parts[5]) < plain - 0.1  # a shift of the test set alone must show


# Retrieval


def test_recall_of_a_matrix_small_enough_to_check_by_eye():
    similarity = torch.tensor(
        [
            [0.9, 0.1, 0.2, 0.3],  # right column is first
            [0.8, 0.5, 0.1, 0.0],  # second
            [0.4, 0.3, 0.2, 0.1],  # third
            [0.4, 0.3, 0.2, 0.1],  # last
        ]
    )
    assert [recall_at(similarity, k) for k in (1, 2, 3, 4)] == [0.25, 0.5, 0.75, 1.0]
    assert recall_at(similarity.T) == 0.5  # columns as queries: two first, two tied with wrong ones
    assert recall_at(similarity[:2]) == 0.5  # more columns than queries


def test_recall_with_several_right_answers_counts_the_best_of_them():
    similarity = torch.tensor([[0.9, 0.8, 0.1, 0.2], [0.9, 0.8, 0.7, 0.6]])
    positives = torch.tensor([[False, True, True, False], [False, False, True, True]])
    assert [recall_at(similarity, k, positives) for k in (1, 2, 3)] == [0.0, 0.5, 1.0]
    positives[0, 0] = True  # now the best column is right, and the other right one stays out of its way
    assert recall_at(similarity, 1, positives) == 0.5
    tied = torch.tensor([[0.9, 0.9, 0.1]])  # with each other, not with a wrong one
    assert recall_at(tied, 1, torch.tensor([[True, True, False]])) == 1


def test_recall_equals_a_loop():
    chance = torch.Generator().manual_seed(0)
    similarity = (torch.randn(30, 50, generator=chance) * 4).round()  # many ties
    positives = torch.rand(30, 50, generator=chance) < 0.1
    positives[torch.arange(30), torch.arange(30)] = True
    for k in (1, 3, 10):
        right = 0
        for row, is_right in zip(similarity.tolist(), positives.tolist(), strict=True):
            best = max(value for value, yes in zip(row, is_right, strict=True) if yes)
            right += sum(value >= best for value, yes in zip(row, is_right, strict=True) if not yes) < k
        assert recall_at(similarity, k, positives) == pytest.approx(right / 30)


@pytest.mark.parametrize("value", [0.0, 1.0, -torch.inf, torch.nan])
def test_a_collapsed_similarity_has_no_recall(value):
    similarity = torch.full((8, 8), value)
    assert recall_at(similarity, 1) == recall_at(similarity, 7) == 0


def test_a_query_without_a_right_answer_is_missed():
    positives = torch.tensor([[True, False], [False, False]])
    assert recall_at(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), 1, positives) == 0.5


def test_more_queries_than_columns_need_positives():
    with pytest.raises(SettingError, match=r"\(5, 3\).*positives"):
        recall_at(torch.rand(5, 3))


# Masks and patches


def test_mask_iou_by_loops_and_at_its_ends():
    chance = torch.Generator().manual_seed(0)
    prediction, truth = (torch.rand(6, 5, 7, generator=chance) < 0.4 for _ in range(2))
    prediction[0], truth[0] = False, False  # two empty masks agree
    prediction[1] = False  # an empty one against something: none
    truth[2] = prediction[2]  # equal
    truth[3] = ~prediction[3]  # disjoint
    for iou, one, other in zip(mask_iou(prediction, truth), prediction, truth, strict=True):
        pairs = list(zip(one.flatten().tolist(), other.flatten().tolist(), strict=True))
        either = sum(a or b for a, b in pairs)
        assert iou.item() == pytest.approx(sum(a and b for a, b in pairs) / either if either else 1)
    assert mask_iou(prediction, truth)[:4].tolist() == [1, 0, 1, 0]
    assert torch.equal(mask_iou(prediction, truth), mask_iou(truth, prediction))


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_patch_labels_equal_loops(patch):
    masks = torch.randint(5, (3, 8, 12), generator=torch.Generator().manual_seed(0))
    labels = patch_labels(masks, patch)
    assert labels.shape == (3, 8 // patch, 12 // patch) and labels.dtype == torch.int64
    for n in range(3):
        for row in range(8 // patch):
            for column in range(12 // patch):
                tile = masks[n, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch].flatten()
                counts = torch.bincount(tile, minlength=5)
                assert counts[labels[n, row, column]] == counts.max()


def test_patch_labels_take_masks_of_one_object():
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[0, :2, :2] = mask[0, 0, 2] = mask[0, 2:, 0] = mask[0, 3, 1] = True
    assert patch_labels(mask, 2).tolist() == [[[1, 0], [1, 0]]]


@pytest.mark.parametrize(("height", "width"), [(9, 8), (8, 9)])
def test_masks_that_cannot_be_cut(height, width):
    with pytest.raises(SettingError, match=rf"\({height}, {width}\).* 4"):
        patch_labels(torch.zeros(1, height, width, dtype=torch.int64), 4)

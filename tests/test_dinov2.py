"""Lesson 07: KoLeo, Sinkhorn, the masked-patch loss and the masked network, held to lightly's, to loops and to known
values."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from parity import agree, in_float32, in_float64

from lessons.compat import import_torchvision

import_torchvision()
from lightly.loss import IBOTPatchLoss, KoLeoLoss  # noqa: E402
from lightly.loss.swav_loss import sinkhorn  # noqa: E402

from lessons import objectives, probes, recipes  # noqa: E402
from lessons.data.scenes import render  # noqa: E402
from lessons.errors import SettingError  # noqa: E402
from lessons.exercises import lesson07  # noqa: E402
from lessons.nets.dino import DINOHead  # noqa: E402
from lessons.nets.dinov2 import DINOv2Network, block_masks  # noqa: E402
from lessons.nets.vit import ViT  # noqa: E402

pytestmark = in_float64


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# KoLeo


@pytest.mark.parametrize(("B", "D"), [(2, 3), (7, 5), (33, 16)])
def test_koleo_and_its_gradient_are_lightlys(B, D):
    ours, theirs = (normal(B, D, seed=B, scale=3).requires_grad_() for _ in range(2))
    loss, peer = objectives.koleo(ours), KoLeoLoss()(theirs)
    agree(loss, peer)
    loss.backward(), peer.backward()
    agree(ours.grad, theirs.grad)


@pytest.mark.parametrize(
    ("x", "value"),
    [
        ([[3.0, 0.0], [0.0, 2.0], [1.0, 1.0], [-1.0, 0.0]], 0.113907),
        ([[1.0, 0.0], [-1.0, 0.0]], -math.log(2)),  # as far apart as two can be
        (torch.eye(4).tolist(), -math.log(2) / 2),
        ([[1.0, 0.0], [1.0, 0.0]], -math.log(1e-8)),  # one and the same
    ],
)
def test_koleo_has_the_known_values(x, value):
    assert objectives.koleo(torch.tensor(x)).item() == pytest.approx(value, abs=1e-5)


def test_koleo_pushes_neighbours_apart_and_stands_duplicates():
    x = torch.tensor([[1.0, 0.05], [1.0, -0.05], [-1.0, 0.0]], requires_grad=True)
    objectives.koleo(x).backward()
    assert x.grad[0, 1] < 0 < x.grad[1, 1]  # a step against the gradient parts them
    twins = torch.ones(3, 4, requires_grad=True)
    objectives.koleo(twins).backward()
    assert torch.isfinite(twins.grad).all()


@in_float32
def test_koleo_is_exact_under_autocast():
    x = F.normalize(normal(64, 32), dim=1) + 4  # a narrow cone, where bfloat16 sees no difference
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert objectives.koleo(x).item() == pytest.approx(objectives.koleo(x.double()).item(), rel=1e-3)


def test_koleo_needs_a_neighbour():
    for bad in (normal(1, 4), normal(4), normal(2, 3, 4)):
        with pytest.raises(SettingError, match="neighbours"):
            objectives.koleo(bad)


# Sinkhorn

T = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.5, 0.0], [1.0, 0.0, 0.5], [1.0, 0.2, 0.1]], dtype=torch.float64)


def test_sinkhorn_has_the_known_values():
    q = objectives.sinkhorn_targets(T, 0.5)
    agree(q[0], torch.tensor([0.421127, 0.281762, 0.297111]), atol=1e-5, rtol=0)
    agree(q.sum(0), torch.tensor([1.333343, 1.333370, 1.333287]), atol=1e-5, rtol=0)
    sharp = objectives.sinkhorn_targets(T, 0.1).sum(0)  # three rounds are not enough for a low temperature
    agree(sharp, torch.tensor([1.515034, 1.307388, 1.177578]), atol=1e-5, rtol=0)
    many = objectives.sinkhorn_targets(T, 0.1, iterations=300)
    agree(many.sum(0), torch.full((3,), 4 / 3), atol=1e-4, rtol=0)


@pytest.mark.parametrize("tau", [0.04, 0.3])
def test_sinkhorn_is_lightlys(tau):
    scores = normal(24, 9, seed=3, scale=0.2)
    agree(objectives.sinkhorn_targets(scores, tau), sinkhorn(scores, iterations=3, epsilon=tau))


def test_sinkhorn_takes_views_together_stands_large_scores_and_gives_no_gradient():
    scores = normal(2, 6, 5, seed=4, scale=0.1).requires_grad_()
    together = objectives.sinkhorn_targets(scores, 0.1)
    agree(together.flatten(0, 1), objectives.sinkhorn_targets(scores.flatten(0, 1), 0.1))
    assert not together.requires_grad
    large = objectives.sinkhorn_targets(torch.tensor([[500.0, 0.0], [0.0, 500.0], [400.0, 300.0]]), 1.0)
    assert torch.isfinite(large).all()
    with pytest.raises(SettingError, match="above 0"):
        objectives.sinkhorn_targets(T, 0.0)


@pytest.mark.parametrize("targets", [objectives.sinkhorn_targets, partial(lesson07.sinkhorn, iterations=3)])
def test_sinkhorn_loses_no_prototype_however_far_below(targets):
    far = torch.tensor([[90.0, 0.0], [95.0, 1.0], [80.0, 2.0]], dtype=torch.float32)
    q = ((far - far.amax(0)).double() / 0.5).exp()  # the factor of a column does not count
    for _ in range(3):
        q = q / q.sum(0)
        q = q / q.sum(1, keepdim=True)
    torch.testing.assert_close(targets(far, tau=0.5).double(), q, atol=1e-5, rtol=0)
    q = targets(T, tau=0.5)
    torch.testing.assert_close(targets(T + torch.tensor([0.0, 900.0, -900.0]), tau=0.5), q)


# Masked patches


def test_masked_patch_loss_and_its_gradient_are_lightlys():
    hidden = torch.tensor([[1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0], [1, 1, 0, 1, 0, 1]]).bool()
    teacher = normal(int(hidden.sum()), 7, seed=1, scale=0.1)
    ours, theirs = (normal(*teacher.shape, seed=2, scale=0.1).requires_grad_() for _ in range(2))
    loss = objectives.masked_patch_entropy(objectives.dino_targets(teacher, 0.0, 0.05), ours, hidden, 0.2)
    peer = IBOTPatchLoss(7, teacher_temp=0.05, student_temp=0.2)(teacher, theirs, hidden.view(4, 2, 3))
    agree(loss, peer)
    loss.backward(), peer.backward()
    agree(ours.grad, theirs.grad)


def test_masked_patch_loss_counts_each_picture_alike():
    hidden = torch.tensor([[True, True, True], [True, False, False]])
    targets = torch.eye(2)[[0, 0, 0, 1]]
    student = torch.tensor([[0.3, 0.1], [0.2, 0.1], [0.1, 0.1], [0.3, 0.1]])
    costs = -(targets * (student / 0.1).log_softmax(1)).sum(1)
    right = (costs[:3].mean() + costs[3]) / 2
    agree(objectives.masked_patch_entropy(targets, student, hidden), right)
    assert objectives.masked_patch_entropy(torch.empty(0, 2), torch.empty(0, 2), torch.zeros(2, 3).bool()) == 0


def test_masked_patch_loss_rejects_what_does_not_fit():
    with pytest.raises(SettingError, match="for the 2 hidden patches"):
        objectives.masked_patch_entropy(torch.ones(3, 4), torch.ones(3, 4), torch.tensor([[True, True, False]]))


# Masks


def test_block_masks_hide_one_block_in_the_asked_share_of_pictures():
    masks = block_masks(40, (8, 8), share=0.5, ratio=(0.1, 0.5), generator=torch.Generator().manual_seed(1))
    counts = masks.sum(1)
    assert masks.shape == (40, 64) and masks.dtype == torch.bool
    assert (counts > 0).sum() == 20 and counts[counts > 0].min() >= 6 and counts.max() <= 32
    for mask in masks[counts > 0].view(-1, 8, 8):
        rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
        assert len(rows) == rows[-1] - rows[0] + 1 and len(columns) == columns[-1] - columns[0] + 1  # no gap
    same = block_masks(40, (8, 8), generator=torch.Generator().manual_seed(1))
    assert torch.equal(masks, same)


def test_block_masks_take_other_grids_and_the_limits():
    assert not block_masks(5, (2, 3), share=0.0).any() and block_masks(5, (2, 3), share=1.0, ratio=(1, 1)).all()
    assert block_masks(6, (3, 5), share=1.0, ratio=(0.4, 0.4)).sum(1).tolist() == [6] * 6
    for bad in ({"share": 1.5}, {"ratio": (0.5, 0.1)}, {"ratio": (0.1, 2)}):
        with pytest.raises(SettingError, match="within 0 and 1"):
            block_masks(4, (4, 4), **bad)


# The network


def network(**settings) -> DINOv2Network:
    torch.manual_seed(0)
    vit = ViT(image=16, patch=4, width=16, depth=2, heads=2, classes=0, **settings)
    return DINOv2Network(vit, DINOHead(16, 8), DINOHead(16, 6))


def test_network_without_a_mask_is_the_vit_and_views_may_differ_in_size():
    net = network()
    views = [normal(3, 3, 16, 16, seed=1), normal(3, 3, 16, 16, seed=2), normal(3, 3, 8, 8, seed=3)]
    cls, patches = net.encode(views)
    assert cls.shape == (3, 3, 16) and patches.shape == (2, 3, 16, 16)
    for view, one in zip(views, cls, strict=True):
        agree(one, net.backbone(view))
    agree(patches[1], net.backbone.encode(views[1])[:, 1:])
    assert net.head(cls).shape == (3, 3, 8) and net.patch_head(patches).shape == (2, 3, 16, 6)


def test_a_hidden_patch_cannot_be_seen_but_its_place_can():
    net, hidden = network(), torch.zeros(2, 16, dtype=torch.bool)
    hidden[0, 5] = True
    images = normal(2, 3, 16, 16, seed=4)
    other = images.clone()
    other[0, :, 4:8, 4:8] = 9.0  # patch 5 is row 1, column 1
    agree(net.tokens(images, hidden), net.tokens(other, hidden))
    agree(net.tokens(images, hidden)[1], net.backbone.encode(images)[1])
    moved = torch.zeros_like(hidden)
    moved[0, 6] = True
    both = torch.zeros(1, 3, 16, 16)
    assert not torch.allclose(net.tokens(both, hidden[:1])[0, 6], net.tokens(both, moved[:1])[0, 7])


def test_the_mask_token_learns_and_only_through_hidden_patches():
    for share, learns in ((1.0, True), (0.0, False)):
        net = network()
        hidden = torch.full((2, 16), bool(share))
        net.tokens(normal(2, 3, 16, 16), hidden).square().sum().backward()
        assert bool(net.mask_token.grad.abs().sum() > 0) == learns


def test_network_says_what_it_needs():
    with pytest.raises(SettingError, match="CLS"):
        network(pool="mean")
    with pytest.raises(SettingError, match="mask of 2 x 16 patches"):
        network().tokens(normal(2, 3, 16, 16), torch.zeros(2, 9).bool())
    with pytest.raises(SettingError, match="fill the grid"):
        network().tokens(normal(2, 3, 8, 8), torch.zeros(2, 4).bool())


# Dense probes


def test_dense_probe_reads_a_linear_map_exactly_and_chooses_on_val():
    tokens, weight = normal(30, 16, 5, seed=1), normal(5, 2, seed=2)
    small = (tokens @ weight + 0.3).mT.unflatten(2, (4, 4))
    maps = F.interpolate(small, size=(8, 8))  # each patch of one value: its mean is exact
    score = lambda a, b: -(a - b).square().mean().item()  # noqa: E731
    asked = []

    def watched(a, b):
        asked.append(a.shape)
        return score(a, b)

    got = probes.dense_probe(
        (tokens[:20], maps[:20]), (tokens[20:25], maps[20:25]), tokens[25:], watched, strengths=(1e-9, 10.0)
    )
    want = F.interpolate(small[25:], size=(8, 8), mode="bilinear")
    agree(got, want, rtol=0, atol=1e-6)  # but for the penalty of 1e-9
    assert asked == [(5, 2, 8, 8)] * 2


def test_dense_probe_is_scikit_learns_ridge():
    from sklearn.linear_model import Ridge

    x, y = normal(6, 4, 3, seed=3), normal(6, 1, 2, 2, seed=4)
    got = probes.dense_probe((x, y), (x, y), x, lambda a, b: 0.0, strengths=(0.2,))
    flat = x.flatten(0, 1)
    z = (flat - flat.mean(0)) / (flat.std(0, correction=0) + 1e-6)
    peer = Ridge(alpha=0.2 * len(z)).fit(z.numpy(), y.flatten().numpy())
    agree(got.flatten(), torch.from_numpy(peer.predict(z.numpy())))


def test_dense_probe_rejects_what_is_no_grid():
    with pytest.raises(SettingError, match="P a square"):
        probes.dense_probe((normal(2, 5, 3), normal(2, 1, 4, 4)), None, None, None)
    with pytest.raises(SettingError, match="P a square"):
        probes.dense_probe((normal(2, 9, 3), normal(2, 1, 4, 4)), None, None, None)


def test_mean_iou_by_hand():
    truth = torch.tensor([[[0, 0], [1, 1]], [[0, 1], [1, 1]]])
    guess = torch.tensor([[[0, 1], [1, 1]], [[0, 0], [1, 1]]])
    got = probes.mean_iou(guess, truth, 3)
    agree(got[:2], torch.tensor([2 / 4, 4 / 6], dtype=got.dtype))
    assert got[2].isnan()


# Recipes


@in_float32  # scenes are drawn in it
def test_ground_truth_has_one_class_per_pixel_and_the_depth():
    scenes = render(recipes.MEADOW, 6, seed=3, size=24)
    maps = recipes.ground_truth(scenes)
    assert maps.shape == (6, 4, 24, 24) and torch.equal(maps[:, :3].sum(1), torch.ones(6, 24, 24))
    assert torch.equal(maps[:, 0] > 0, scenes.masks()) and torch.equal(maps[:, 3], scenes.depth)
    sky = maps[:, 2] > 0
    assert sky.any() and (scenes.depth[sky] == 1).all() and (maps[:, 1, -1] + maps[:, 0, -1] == 1).all()


@in_float32  # scenes are drawn in it
def test_uncurated_pool_holds_what_it_says():
    images = render(recipes.MEADOW, 60, seed=3, size=24).images
    pool, kind, own = recipes.uncurated_pool(images, 100, sources=5, seed=1)
    assert pool.shape == (100, 3, 24, 24) and pool.dtype == torch.uint8
    assert torch.bincount(kind).tolist() == [15, 35, 10, 40]
    assert torch.equal(pool[kind == 0], images[own[kind == 0]]) and own[kind == 1].max() < 5
    near = lambda a, b: (a.float() - b.float()).abs().flatten(1).mean(1)  # noqa: E731
    copies = pool[kind == 1]
    assert (near(copies, images[own[kind == 1]]) < near(copies, images[(own[kind == 1] + 7) % 60])).float().mean() > 0.9
    mixed = pool[kind == 2].flatten(2).sort(2).values
    assert torch.equal(mixed, images[own[kind == 2]].flatten(2).sort(2).values)  # the same pixels in other places
    again = recipes.uncurated_pool(images, 100, sources=5, seed=1)
    assert all(torch.equal(a, b) for a, b in zip((pool, kind, own), again, strict=True))
    with pytest.raises(SettingError, match="A pool of 1000 takes"):
        recipes.uncurated_pool(images, 1000)


@in_float32  # scenes are drawn in it
def test_rivals_learn_in_place():
    scenes = render(recipes.MEADOW, 24, seed=3, size=16)
    views = lambda x, n_local, generator: [x]  # noqa: E731
    for kind in ("painting", "labelling"):
        net = network().backbone
        before = net.embed.linear.weight.clone()
        settings = {"batch": 8, "rate": 1e-3, "precision": None}
        if kind == "painting":
            job = recipes.painting(net, scenes.images, 3, **settings)
        else:
            answers = [scenes.labels("colour"), scenes.labels("shape")]
            job = recipes.labelling(net, scenes.images, answers, 3, views=views, **settings)
        assert len(job().loss) == 3 and not torch.equal(before, net.embed.linear.weight)

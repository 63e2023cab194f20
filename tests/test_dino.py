"""Lesson 06: DINO's loss, centre, head, views and schedules, held to lightly's, to loops and to known values."""

import math

import pytest
import torch
import torch.nn.functional as F
from parity import agree, in_float32, in_float64

from lessons.compat import import_torchvision

import_torchvision()
from lightly.loss import DINOLoss  # noqa: E402
from lightly.models.modules import DINOProjectionHead  # noqa: E402
from lightly.utils.scheduler import cosine_schedule  # noqa: E402

from lessons import augment, objectives, training  # noqa: E402
from lessons.errors import SettingError  # noqa: E402
from lessons.nets import dino  # noqa: E402
from lessons.nets.vit import ViT  # noqa: E402

pytestmark = in_float64


def normal(*shape: int, seed: int = 0, scale: float = 0.1) -> torch.Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# The loss


@pytest.mark.parametrize(("views", "tau_t", "tau_s"), [(2, 0.04, 0.1), (3, 0.07, 0.1), (6, 0.04, 0.2)])
def test_loss_centre_and_gradient_are_lightlys(views, tau_t, tau_s):
    K, B = 7, 5
    peer = DINOLoss(
        output_dim=K, teacher_temp=tau_t, warmup_teacher_temp=tau_t, student_temp=tau_s, center_momentum=0.8
    )
    centre = torch.zeros(K)
    for step in range(3):
        teacher = normal(2, B, K, seed=step) + normal(K, seed=9)
        ours, theirs = (normal(views, B, K, seed=10 + step).requires_grad_() for _ in range(2))
        loss = objectives.cross_view_entropy(objectives.dino_targets(teacher, centre, tau_t), ours, tau_s)
        peer_loss = peer(list(teacher), list(theirs))
        agree(loss, peer_loss)
        loss.backward(), peer_loss.backward()
        agree(ours.grad, theirs.grad)
        centre = objectives.moved_centre(centre, teacher, 0.8)
        agree(centre, peer.center.flatten())


T = torch.tensor([[0.10, 0.02, -0.03], [0.0, 0.06, 0.01]], dtype=torch.float64)
S = torch.tensor([[0.12, 0.05, -0.05], [0.02, 0.08, -0.01]], dtype=torch.float64)
C = torch.tensor([0.05, 0.04, -0.01], dtype=torch.float64)


def one_pair(t, s, c, tau_t=0.04, tau_s=0.1) -> float:
    """The loss of one comparison: two teacher views would be two, so the second student view meets the first target."""
    targets = objectives.dino_targets(t[None], c, tau_t)
    return objectives.cross_view_entropy(targets, torch.stack([torch.zeros_like(s), s]), tau_s).item()


def test_loss_has_the_known_value_and_the_known_mistakes_have_others():
    assert one_pair(T, S, C) == pytest.approx(0.980214, abs=1e-6)
    mistakes = {
        "temperatures swapped": (one_pair(T, S, C, 0.1, 0.04), 1.575413),
        "no centring": (one_pair(T, S, 0 * C), 0.792630),
        "centre added": (one_pair(T, S, -C), 0.723979),
        "centre after the division": (one_pair(T, S, 0.04 * C), 0.797388),
        "centre on the student": (one_pair(T, S - C, 0 * C), 0.845165),
        "roles reversed": (one_pair(S, T - C, 0 * C, 0.1, 0.04), 1.136899),
    }
    for name, (value, known) in mistakes.items():
        assert value == pytest.approx(known, abs=1e-6), name


def test_loss_gives_the_teacher_no_gradient():
    t, s = normal(2, 3, 4, seed=1).requires_grad_(), normal(4, 3, 4, seed=2).requires_grad_()
    objectives.cross_view_entropy(objectives.dino_targets(t, 0.0), s).backward()
    assert t.grad is None and s.grad.abs().sum() > 0
    centre = objectives.moved_centre(torch.zeros(4), t)
    assert not centre.requires_grad


@pytest.mark.parametrize("K", [256, 4096])
def test_a_student_without_any_idea_pays_ln_k(K):
    targets = objectives.dino_targets(normal(2, 3, K), 0.0)
    assert objectives.cross_view_entropy(targets, torch.zeros(4, 3, K)).item() == pytest.approx(math.log(K), abs=1e-5)


def test_loss_is_the_mean_over_pairs_of_different_views():
    targets, s = objectives.dino_targets(normal(2, 3, 5, seed=1), normal(5, seed=2)), normal(4, 3, 5, seed=3)
    costs = []
    for a in range(2):
        for b in range(4):
            if a != b:
                costs.append(-(targets[a] * F.log_softmax(s[b] / 0.1, -1)).sum(-1).mean())
    assert len(costs) == 6
    agree(objectives.cross_view_entropy(targets, s), torch.stack(costs).mean())


def test_the_centre_of_this_step_is_for_the_next():
    centre, t = normal(4, seed=1), normal(2, 3, 4, seed=2)
    before = centre.clone()
    moved = objectives.moved_centre(centre, t, 0.75)
    assert torch.equal(centre, before)
    agree(moved, 0.75 * centre + 0.25 * t.mean((0, 1)))


def test_entropies_tell_both_collapses_from_a_healthy_run():
    K = 8
    healthy = torch.eye(K)[None]
    one = torch.zeros(2, 3, K).index_fill_(2, torch.tensor(1), 1.0)
    uniform = torch.full((2, 3, K), 1 / K)
    for targets, used, unsure in ((healthy, math.log(K), 0), (one, 0, 0), (uniform, math.log(K), math.log(K))):
        got = objectives.target_entropies(targets)
        agree(torch.stack(got), torch.tensor([float(used), float(unsure)]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: objectives.dino_targets(T, C, 0.0), "above 0"),
        (lambda: objectives.cross_view_entropy(T[None], S[None], -1.0), "above 0"),
        (lambda: objectives.cross_view_entropy(T[None], S[None]), "at least 2"),
        (lambda: objectives.cross_view_entropy(T, S), "Expected targets"),
        (lambda: objectives.cross_view_entropy(normal(3, 2, 4), normal(2, 2, 4)), "Expected targets"),
        (lambda: objectives.cross_view_entropy(normal(2, 2, 4), normal(2, 2, 5)), "Expected targets"),
    ],
)
def test_loss_names_what_it_cannot_take(call, message):
    with pytest.raises(SettingError, match=message):
        call()


# The head


def test_head_is_lightlys_on_the_same_weights():
    torch.manual_seed(0)
    ours, theirs = dino.DINOHead(10, 12, hidden=9, bottleneck=6), DINOProjectionHead(10, 9, 6, 12)
    with torch.no_grad():
        for mine, other in zip(ours.mlp[::2], (theirs.layers[0], theirs.layers[2], theirs.layers[4]), strict=True):
            mine.weight.copy_(20 * other.weight), other.weight.mul_(20)
            mine.bias.copy_(normal(len(other.bias), seed=3)), other.bias.copy_(mine.bias)
        ours.prototypes.copy_(theirs.last_layer.weight_v)
    a, b = (normal(5, 10, seed=4, scale=1.0).requires_grad_() for _ in range(2))
    agree(ours(a), theirs(b))
    ours(a).square().sum().backward(), theirs(b).square().sum().backward()
    agree(a.grad, b.grad)
    agree(ours.prototypes.grad, theirs.last_layer.weight_v.grad)
    agree(ours.mlp[0].weight.grad, theirs.layers[0].weight.grad)


def test_head_gives_cosines_that_no_prototype_wins_by_length():
    torch.manual_seed(0)
    head = dino.DINOHead(8, 16)
    x, before = normal(4, 8, scale=1.0), None
    before = head(x)
    with torch.no_grad():
        head.prototypes[3] *= 100
    agree(head(x), before)
    assert before.shape == (4, 16) and before.abs().max() <= 1 + 1e-6
    assert [p.ndim for name, p in head.named_parameters() if name == "prototypes"] == [2]
    assert sum(p.numel() for p in head.parameters()) == (8 * 256 + 256) + (256 * 256 + 256) + (256 * 64 + 64) + 16 * 64


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_head_of_other_depths(layers):
    assert dino.DINOHead(6, 5, hidden=7, bottleneck=3, layers=layers)(normal(2, 6)).shape == (2, 5)


def test_head_needs_a_layer():
    with pytest.raises(SettingError, match="at least one layer"):
        dino.DINOHead(6, 5, layers=0)


@in_float32
def test_head_computes_its_cosines_in_full_precision():
    head, x = dino.DINOHead(8, 16), normal(3, 8, scale=1.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert head(x).dtype == torch.float32


# Views


def network() -> dino.DINONetwork:
    torch.manual_seed(0)
    return dino.DINONetwork(ViT(image=16, patch=4, width=12, depth=1, heads=2, classes=0), dino.DINOHead(12, 9)).eval()


def test_network_gives_every_view_its_scores_in_order():
    net, views = network(), [normal(3, 3, side, side, seed=i, scale=1.0) for i, side in enumerate((16, 16, 8, 8, 8))]
    got = net(views)
    assert got.shape == (5, 3, 9)
    for view, scores in zip(views, got, strict=True):
        agree(scores, net.head(net.backbone(view)))


def test_views_of_one_size_run_as_one_batch():
    net, seen = network(), []
    net.backbone.register_forward_hook(lambda module, args, result: seen.append(tuple(args[0].shape)))
    net([normal(2, 3, side, side) for side in (16, 16, 8, 8, 8)])
    assert seen == [(4, 3, 16, 16), (6, 3, 8, 8)]


@pytest.mark.parametrize("views", [[], torch.zeros(2, 3, 16, 16), [torch.zeros(2, 3, 16, 16), torch.zeros(3, 3, 8, 8)]])
def test_network_names_views_it_cannot_take(views):
    with pytest.raises(SettingError, match="list of views"):
        network()(views)


def test_weaker_crops_leave_the_colours_alone():
    x = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    plain = {"jitter": (0.0, 0.0, 0.0, 0.0), "grayscale": 0.0, "blur": False, "solarize": 0.0}
    chance = torch.Generator().manual_seed(1)
    views = augment.dino_crops(x, 2, generator=chance, global_scale=(1.0, 1.0), **plain)
    for view in views[:2]:  # the whole picture, perhaps mirrored
        same = [
            torch.allclose(a, b, atol=1e-4) or torch.allclose(a, b.flip(2), atol=1e-4)
            for a, b in zip(view, x, strict=True)
        ]
        assert sum(same) >= 1
        agree(view.mean((2, 3)), x.mean((2, 3)), atol=0.1, rtol=0.2)
    assert [view.shape[-1] for view in views] == [16, 16, 8, 8]


# Schedules and a whole training


@pytest.mark.parametrize("steps", [10, 31])
def test_momentum_follows_lightlys_cosine(steps):
    at = dino.momentum_schedule(steps - 1, 0.996, 1.0)
    for step in range(steps):
        assert at(step) == pytest.approx(cosine_schedule(step, steps, 0.996, 1.0), abs=1e-9)
    assert dino.momentum_schedule(1000)(500) == pytest.approx(0.998)
    assert dino.momentum_schedule(10, 0.99, 0.99)(3) == pytest.approx(0.99)


def test_temperature_rises_in_a_straight_line_and_stays():
    at = dino.temperature_schedule(30)
    assert [round(at(step), 4) for step in (0, 10, 30, 400)] == [0.04, 0.05, 0.07, 0.07]
    assert dino.temperature_schedule(0, 0.04, 0.06)(0) == 0.06


@pytest.mark.parametrize("call", [lambda: dino.momentum_schedule(5, 1.2), lambda: dino.temperature_schedule(5, 0.0)])
def test_schedules_name_numbers_out_of_range(call):
    with pytest.raises(SettingError, match=r"within 0 and 1|above 0"):
        call()


def test_a_few_steps_teach_student_and_teacher_without_a_gradient_in_the_teacher():
    torch.manual_seed(0)
    student = network().train()
    teacher, centre = training.EMA(student, 0.9), torch.zeros(9)
    x = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    start = [p.clone() for p in teacher.network.parameters()]

    def loss(net, views):
        targets = objectives.dino_targets(teacher.network(views[:2]), centre)
        return objectives.cross_view_entropy(targets, net(views))

    batches = (
        [training.to_input(view) for view in augment.dino_crops(x, 2, generator=torch.Generator())] for _ in range(3)
    )
    history = training.fit(
        student,
        loss,
        batches,
        steps=3,
        optimizer=torch.optim.AdamW(student.parameters(), lr=1e-2),
        after_step=lambda step: teacher.update(student),
    )
    assert len(history.loss) == 3 and all(math.isfinite(value) for value in history.loss)
    assert all(p.grad is None for p in teacher.network.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(start, teacher.network.parameters(), strict=True))

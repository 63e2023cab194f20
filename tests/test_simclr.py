"""Lesson 05: its networks against torchvision's and lightly's on the same weights, its views against lightly's."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from parity import agree, in_float64
from scipy.stats import ks_2samp
from torch import nn

from lessons import augment, objectives, probes
from lessons.compat import import_torchvision
from lessons.errors import SettingError
from lessons.exercises import lesson05
from lessons.exercises.expect import randomise, seeded
from lessons.nets.resnet import FastResNet
from lessons.nets.simclr import HEADS, ProjectionHead, ResNet18, SimCLR, SmallEncoder

pytestmark = in_float64


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return seeded(*shape, seed=seed, dtype=torch.float64)


def same_numbers(ours: nn.Module, peer: nn.Module, x: torch.Tensor) -> None:
    """Values, running statistics and gradients agree, in train and in eval mode; weights are matched by their order."""
    for mode in (True, False):
        results = []
        for module in (ours.train(mode), peer.train(mode)):
            leaf = x.clone().requires_grad_()
            out = module(leaf)
            module.zero_grad()
            (out * normal(*out.shape, seed=3)).sum().backward()
            results.append([out, leaf.grad, *(p.grad for p in module.parameters()), *module.buffers()])
        agree(*results)


# Heads


@pytest.mark.parametrize("norm", [True, False])
def test_mlp_head_equals_lightly(norm):
    import_torchvision()
    from lightly.models.modules.heads import SimCLRProjectionHead

    ours = randomise(ProjectionHead(12, "mlp", hidden=20, out=7, norm=norm))
    peer = SimCLRProjectionHead(12, 20, 7, batch_norm=norm)
    peer.load_state_dict(dict(zip(peer.state_dict(), ours.state_dict().values(), strict=True)))
    same_numbers(ours, peer, normal(9, 12, seed=1))


def test_the_three_heads():
    h = normal(5, 8)
    none, linear, mlp = (ProjectionHead(8, kind, hidden=6, out=4) for kind in HEADS)
    assert none(h) is h and none.out_features == 8 and not list(none.parameters())
    agree(linear(h), h @ linear[0].weight.T + linear[0].bias)
    agree(mlp(h), F.relu(h @ mlp[0].weight.T + mlp[0].bias) @ mlp[2].weight.T + mlp[2].bias)
    assert linear.out_features == mlp.out_features == 4
    assert [type(layer) for layer in ProjectionHead(8, "linear", norm=True)] == [nn.Linear, nn.BatchNorm1d]
    assert ProjectionHead(8)[0].out_features == 8, "as wide as h where nothing else is asked for"
    with pytest.raises(SettingError, match="none, linear, mlp"):
        ProjectionHead(8, "cubic")


# Encoders


def test_resnet18_equals_torchvisions_with_the_stem_for_small_pictures():
    import_torchvision()
    from torchvision.models import resnet18

    peer = resnet18()
    peer.conv1, peer.maxpool, peer.fc = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity(), nn.Identity()
    ours = randomise(ResNet18())
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in peer.parameters()) == 11_168_832
    peer.load_state_dict(dict(zip(peer.state_dict(), ours.state_dict().values(), strict=True)))
    same_numbers(ours, peer, normal(3, 3, 12, 12))
    assert ours.out_features == 512


@pytest.mark.parametrize("kind", [SmallEncoder, ResNet18])
def test_encoders_give_what_they_promise(kind):
    encoder = kind(4)
    assert encoder(normal(2, 3, 16, 16)).shape == (2, encoder.out_features) == (2, 32)


def test_small_encoder_is_the_body_of_lesson_01():
    body, ours = FastResNet(width=4), SmallEncoder(4)
    ours.features.load_state_dict(body.features.state_dict())
    x = normal(6, 3, 16, 16)
    agree(0.125 * body.fc(ours(x)), body(x))


def test_simclr_is_head_of_encoder():
    net, x = randomise(SimCLR(SmallEncoder(4), "linear", out=5)), normal(6, 3, 16, 16)
    agree(net(x), net.head(net.encoder(x)))
    assert net(x).shape == (6, 5)
    assert SimCLR(SmallEncoder(4), "none")(x).shape == (6, 32)


# The loss, where lesson 04's tests do not go: in bfloat16, and in a training step of both


def test_a_training_step_equals_one_with_lightlys_loss_and_head():
    import_torchvision()
    from lightly.loss import NTXentLoss
    from lightly.models.modules.heads import SimCLRProjectionHead

    ours = randomise(SimCLR(SmallEncoder(4), hidden=16, out=8))
    peer = nn.Sequential(SmallEncoder(4), SimCLRProjectionHead(32, 16, 8, batch_norm=False))
    peer.load_state_dict(dict(zip(peer.state_dict(), ours.state_dict().values(), strict=True)))
    x, loss = normal(12, 3, 16, 16), NTXentLoss(temperature=0.2)
    losses = []
    for net, objective in ((ours, partial(objectives.nt_xent, tau=0.2)), (peer, loss)):
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for _ in range(3):
            value = objective(*net(x).chunk(2))
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
        losses.append(value.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)
    weights = [torch.cat([p.detach().flatten() for p in net.parameters()]) for net in (ours, peer)]
    agree(*weights)


# The whole recipe; test_augment.py holds its parts one by one


def measures(x: torch.Tensor) -> torch.Tensor:
    """Brightness, contrast, colourfulness and hue of each view (n, 3, H, W), and how far it is from its mirror."""
    grey, colour = x.mean(1), x.mean((2, 3))
    hue = torch.atan2(3**0.5 * (colour[:, 1] - colour[:, 2]), 2 * colour[:, 0] - colour[:, 1] - colour[:, 2])
    chroma = (x.amax(1) - x.amin(1)).mean((1, 2))
    slope = (x[..., 8:] - x[..., :8]).mean((1, 2, 3))
    return torch.stack([grey.mean((1, 2)), grey.std((1, 2)), chroma, hue, slope], 1)


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_views_have_the_distribution_of_lightlys_simclr_transform(strength):
    import_torchvision()
    from lightly.transforms.simclr_transform import SimCLRViewTransform
    from torchvision.transforms.v2.functional import to_pil_image

    count = 1500
    base = F.interpolate(seeded(1, 3, 4, 4, seed=2).sigmoid(), (16, 16), mode="bilinear")
    peer = SimCLRViewTransform(input_size=16, cj_strength=strength, gaussian_blur=0.0, normalize=None)
    picture = to_pil_image(base[0])
    torch.manual_seed(3)
    theirs = measures(torch.stack([peer(picture) for _ in range(count)]))
    ours = augment.simclr(base.expand(count, -1, -1, -1), strength=strength, generator=torch.Generator().manual_seed(4))
    grey = [(m[:, 2] < 0.5 / 255).float().mean().item() for m in (measures(ours), theirs)]
    assert all(abs(share - 0.2) < 0.045 for share in grey), "a fifth of the views is grey"
    mine = measures((ours * 255).round() / 255)  # their pictures are made of whole grey levels
    coloured = [m[m[:, 2] > 2 / 255] for m in (mine, theirs)]  # grey has no hue
    assert all(ks_2samp(a, b).pvalue > 1e-3 for a, b in zip(*(m.T.numpy() for m in coloured), strict=True))


# The probe


def test_ridge_probe_equals_scikit_learn():
    import numpy as np
    from sklearn.linear_model import RidgeClassifier
    from sklearn.preprocessing import StandardScaler

    parts, labels = [], []
    for seed, n in enumerate((90, 40, 300)):
        y = seeded(n, seed=seed + 7, high=4)
        parts.append(normal(n, 6, seed=seed) * torch.linspace(0.2, 5, 6) + F.one_hot(y, 6) * 2 + 1)
        labels.append(y)
    scaler = StandardScaler().fit(parts[0].numpy())
    x = [scaler.transform(part.numpy()) for part in parts]
    for strength in (0.01, 1.0, 30.0):
        peer = RidgeClassifier(alpha=strength * 90).fit(x[0], labels[0].numpy())
        right = float(np.mean(peer.predict(x[2]) == labels[2].numpy()))
        triples = [value for pair in zip(parts, labels, strict=True) for value in pair]
        assert probes.ridge_probe(*triples, strengths=(strength,)) == pytest.approx(right, abs=1e-6)


def test_ridge_probe_chooses_on_val_and_survives_constant_features():
    train, labels = normal(60, 5), torch.arange(60) % 3
    train = torch.cat([train + 3 * F.one_hot(labels, 5), torch.ones(60, 2)], 1)
    test = train.clone()
    assert probes.ridge_probe(train, labels, train, labels, test, labels) > 0.9
    assert probes.ridge_probe(train.requires_grad_(), labels, train, labels, test, labels) > 0.9
    blind = probes.ridge_probe(train, labels, train, labels, torch.ones(60, 7), labels, strengths=(1e6,))
    assert blind == pytest.approx(1 / 3)
    with pytest.raises(SettingError, match="strengths"):
        probes.ridge_probe(train, labels, train, labels, test, labels, strengths=())


def test_exercise_5_5_agrees_with_the_package():
    train, test, labels = normal(40, 5), normal(30, 5, seed=1), torch.arange(40) % 4
    truth = seeded(30, seed=2, high=4)
    scores = lesson05.ridge_probe(train, labels, test, 0.1)
    right = (scores.argmax(1) == truth).float().mean().item()
    got = probes.ridge_probe(train, labels, train, labels, test, truth, strengths=(0.1,))
    assert got == pytest.approx(right, abs=1e-6)

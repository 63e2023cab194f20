"""The networks of lesson 01: counted as in the literature, equal to torchvision's block on the same weights."""

import math

import pytest
import torch
import torch.nn.functional as F
from parity import agree, in_float64
from torch import nn

from lessons.compat import import_torchvision
from lessons.errors import SettingError
from lessons.nets.resnet import (
    BasicBlock,
    CifarResNet,
    FastResNet,
    ProjectionShortcut,
    ZeroPadShortcut,
    blocks_per_stage,
)

pytestmark = in_float64

PARAMETERS = {  # depth: option A, option B; affine parameters of batch norm counted
    8: (75_290, 78_042),
    14: (172_506, 175_258),
    20: (269_722, 272_474),
    32: (464_154, 466_906),
    44: (658_586, 661_338),
    56: (853_018, 855_770),
    110: (1_727_962, 1_730_714),
}


def count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def scramble(net: nn.Module, seed: int = 0) -> nn.Module:
    """Every weight, bias, gamma, beta and running statistic away from its default, so that none can be forgotten."""
    chance = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in net.state_dict().items():
            if value.is_floating_point():
                noise = torch.randn(value.shape, generator=chance)
                value.copy_(noise.abs() + 0.5 if name.endswith("running_var") else 0.3 * noise + (value.ndim == 1))
    return net


def torchvision_block(c_in: int, c_out: int, stride: int) -> nn.Module:
    import_torchvision()
    from torchvision.models.resnet import BasicBlock as Peer

    same = stride == 1 and c_in == c_out
    shortcut = None if same else nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))
    return Peer(c_in, c_out, stride, shortcut)


def same_weights(ours: nn.Module, peer: nn.Module) -> None:
    """Copy by position: both define convolution, norm, convolution, norm, shortcut in this order."""
    weights = scramble(ours).state_dict().values()
    peer.load_state_dict(dict(zip(peer.state_dict(), weights, strict=True)))


def assert_equal_in_value_and_gradient(ours: nn.Module, peer: nn.Module, shape: tuple[int, ...], train: bool) -> None:
    ours, peer = ours.double().train(train), peer.double().train(train)
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    inputs = [x.clone().requires_grad_(), x.clone().requires_grad_()]
    outputs = [net(given) for net, given in zip((ours, peer), inputs, strict=True)]
    weight = torch.linspace(-1, 1, outputs[0].numel(), dtype=torch.float64).view_as(outputs[0])
    for output in outputs:
        (output * weight).sum().backward()
    agree(*outputs)
    agree(inputs[0].grad, inputs[1].grad)
    for own, other in zip(ours.parameters(), peer.parameters(), strict=True):
        agree(own.grad, other.grad)
    for own, other in zip(ours.buffers(), peer.buffers(), strict=True):
        agree(own, other)  # train mode has moved the running statistics of both


# Counts


@pytest.mark.parametrize("depth", PARAMETERS)
def test_parameter_counts(depth):
    a, b = PARAMETERS[depth]
    assert (count(CifarResNet(depth)), count(CifarResNet(depth, shortcut="B"))) == (a, b)
    assert count(CifarResNet(depth, shortcut=None)) == a  # neither the identity nor option A has parameters


@pytest.mark.parametrize("depth", [20, 56])
def test_depth_counts_the_layers_with_weights(depth):
    layers = [m for m in CifarResNet(depth).modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert len(layers) == depth and blocks_per_stage(depth) == (depth - 2) // 6


@pytest.mark.parametrize("depth", [-4, 0, 2, 7, 18, 21, 34])
def test_a_depth_outside_the_family(depth):
    with pytest.raises(SettingError, match=rf"depth is {depth}.*6n \+ 2.*20"):
        CifarResNet(depth)


@pytest.mark.parametrize("shortcut", ["a", "C", True, ""])
def test_a_shortcut_that_does_not_exist(shortcut):
    with pytest.raises(SettingError, match="'A' .*'B' .*None"):
        BasicBlock(4, 4, shortcut=shortcut)
    with pytest.raises(SettingError):
        CifarResNet(8, shortcut=shortcut)


# Parity


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize(("c_in", "c_out", "stride"), [(6, 6, 1), (6, 12, 2), (6, 10, 1), (6, 6, 2)])
def test_block_equals_torchvisions(c_in, c_out, stride, train):
    ours, peer = BasicBlock(c_in, c_out, stride, shortcut="B"), torchvision_block(c_in, c_out, stride)
    same_weights(ours, peer)
    assert_equal_in_value_and_gradient(ours, peer, (3, c_in, 9, 8), train)


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
def test_whole_network_equals_one_assembled_from_torchvisions_blocks(train):
    width, n = 4, 2
    blocks, c_in = [], width
    for c_out in (width, 2 * width, 4 * width):
        for _ in range(n):
            blocks.append(torchvision_block(c_in, c_out, 2 if c_out > c_in else 1))
            c_in = c_out
    stem = (nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
    peer = nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c_in, 7))
    ours = CifarResNet(6 * n + 2, classes=7, width=width, shortcut="B")
    same_weights(ours, peer)
    assert_equal_in_value_and_gradient(ours, peer, (2, 3, 16, 16), train)


@pytest.mark.parametrize("size", [8, 7])
def test_option_a_keeps_every_second_pixel_and_appends_zeros(size):
    x = torch.randn(2, 3, size, size)
    y = ZeroPadShortcut(8, 2)(x)
    half = -(-size // 2)
    assert y.shape == (2, 8, half, half)
    for row in range(half):
        for column in range(half):
            assert torch.equal(y[:, :3, row, column], x[:, :, 2 * row, 2 * column])
    assert not y[:, 3:].any()
    block = scramble(BasicBlock(3, 8, 2, shortcut="A")).eval()
    agree(block(x), F.relu(block.branch(x) + y))


def test_the_plain_block_has_no_shortcut_of_any_kind():
    block = scramble(BasicBlock(4, 4, shortcut=None)).eval()
    x = torch.randn(2, 4, 6, 6)
    agree(block(x), F.relu(block.branch(x)))
    plain = CifarResNet(20, shortcut=None)
    assert not any("shortcut" in name for name in plain.state_dict())
    assert not any(isinstance(m, (ZeroPadShortcut, ProjectionShortcut)) for m in plain.modules())


# Shapes and initial values


@pytest.mark.parametrize("shortcut", ["A", "B", None])
def test_shapes(shortcut):
    net = CifarResNet(14, classes=5, width=4, shortcut=shortcut)
    assert net(torch.randn(2, 3, 32, 32)).shape == (2, 5)
    assert net(torch.randn(2, 3, 16, 16)).shape == (2, 5)
    x, sizes = F.relu(net.bn1(net.conv1(torch.randn(2, 3, 32, 32)))), []
    for block in net.blocks:
        x = block(x)
        sizes.append(tuple(x.shape[1:]))
    assert sizes == [(4, 32, 32)] * 2 + [(8, 16, 16)] * 2 + [(16, 8, 8)] * 2


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
def test_zero_init_makes_a_stage_the_identity_bit_for_bit(train):
    torch.manual_seed(0)
    net = CifarResNet(32, zero_init=True).train(train)
    x = F.relu(net.bn1(net.conv1(torch.randn(4, 3, 16, 16))))
    assert torch.equal(net.blocks[:5](x), x)  # the first stage, all shapes agree
    ends = net.blocks[:6](x)
    assert torch.equal(net.blocks[6:10](ends), ends)  # the second, after its strided block
    assert not torch.equal(CifarResNet(32).train(train).blocks[:5](x), x)


def test_a_zero_initialised_network_still_learns():
    net = CifarResNet(8, width=4, zero_init=True)
    net(torch.randn(4, 3, 8, 8)).square().sum().backward()
    assert all(block.bn2.weight.grad.any() for block in net.blocks)


def test_without_norm_there_are_biases_instead():
    net = CifarResNet(8, width=4, norm=False, shortcut="B")
    assert not any(isinstance(m, nn.BatchNorm2d) for m in net.modules())
    three = [m for m in net.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert len(three) == 7 and all(m.bias is not None and not m.bias.any() for m in three)
    x = torch.randn(4, 3, 8, 8)
    agree(net.train()(x)[:2], net.eval()(x[:2]))  # no statistics of a batch are left anywhere
    assert all(m.bias is None for m in CifarResNet(8).modules() if isinstance(m, nn.Conv2d))


def test_he_initialisation():
    torch.manual_seed(0)
    for norm in (True, False):
        for layer in CifarResNet(20, norm=norm).modules():
            if isinstance(layer, nn.Conv2d) and layer.in_channels > 3:
                weight, expected = layer.weight.detach(), math.sqrt(2 / (layer.out_channels * 9))
                spread = 4 / math.sqrt(2 * weight.numel())  # four standard errors of a deviation
                assert weight.std().item() == pytest.approx(expected, rel=spread)
                assert abs(weight.mean().item()) < 4 * expected / math.sqrt(weight.numel())
                assert weight.abs().max() > 2.5 * expected  # normal, not uniform: that ends at 1.7 deviations


def test_he_initialisation_keeps_the_signal_through_a_deep_plain_network():
    torch.manual_seed(0)
    net, x = CifarResNet(56, shortcut=None, norm=False), torch.randn(8, 16, 16, 16)
    blocks = [block for block in net.blocks if block.conv1.stride == (1, 1) and block.conv1.in_channels == 16]
    for block in blocks:
        x = block(x)
    assert 0.01 < x.std() < 10


# The fast network


@pytest.mark.parametrize("size", [32, 16])
def test_fast_network_shapes_and_output_scale(size):
    torch.manual_seed(0)
    net, x = FastResNet(classes=7, width=4).eval(), torch.randn(2, 3, size, size)
    features = net.features(x)
    assert net(x).shape == (2, 7) and features.shape == (2, 32, size // 8, size // 8)
    agree(net(x), net.fc(features.flatten(2).max(2).values) / 8)
    assert net.fc.bias is None


def test_fast_network_sizes():
    convolutions = [(1, 2), (2, 2), (2, 2), (2, 4), (4, 8), (8, 8), (8, 8)]  # channels after the first, in widths
    for width in (16, 64):
        kernels = 27 * width + sum(9 * a * b * width**2 for a, b in convolutions)
        norms = 2 * width * (1 + sum(b for _, b in convolutions))
        assert count(FastResNet(width=width)) == kernels + norms + 80 * width
    assert count(FastResNet()) == 6_573_120


def test_residual_pairs_of_the_fast_network_add_their_input():
    net = scramble(FastResNet(width=4)).eval()
    x = torch.randn(2, 8, 4, 4)
    agree(net.features[2](x), x + net.features[2].branch(x))

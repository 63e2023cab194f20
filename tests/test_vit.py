"""The networks of lesson 02: counted as in the literature, equal to timm's and PyTorch's on the same weights."""

import math

import pytest
import torch
import torch.nn.functional as F
from parity import agree, in_float64
from torch import nn

from lessons.compat import import_torchvision
from lessons.errors import SettingError
from lessons.nets.vit import (
    Attention,
    Block,
    Encoder,
    PatchEmbedding,
    ViT,
    causal_mask,
    patchify,
    resize_positions,
    sincos_positions,
    unpatchify,
)

import_torchvision()  # timm imports torchvision, which needs help beside a CPU build of torch

from timm.layers import resample_abs_pos_embed  # noqa: E402
from timm.layers.pos_embed_sincos import build_sincos2d_pos_embed  # noqa: E402
from timm.models.vision_transformer import VisionTransformer  # noqa: E402

pytestmark = in_float64

SIZES = {  # at 224 pixels with 1000 classes: patch, width, depth, heads, parameters
    "S/16": (16, 384, 12, 6, 22_050_664),
    "B/16": (16, 768, 12, 12, 86_567_656),
    "B/32": (32, 768, 12, 12, 88_224_232),
    "L/16": (16, 1024, 24, 16, 304_326_632),
    "H/14": (14, 1280, 32, 16, 632_045_800),
}


def count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def scramble(net: nn.Module, seed: int = 0) -> nn.Module:
    """Every parameter away from its default, so that none can be forgotten."""
    chance = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in net.parameters():
            value.copy_(0.3 * torch.randn(value.shape, generator=chance) + (value.ndim == 1))
    return net


def noise(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def to_timm(state: dict) -> dict:
    """Our weights under timm's names and in its shapes."""
    names = (
        ("class_token", "cls_token"), ("position", "pos_embed"), ("embed.linear", "patch_embed.proj"),
        ("encoder.", ""), ("attention.qkv", "attn.qkv"), ("attention.out", "attn.proj"),
        ("mlp.0", "mlp.fc1"), ("mlp.2", "mlp.fc2"),
    )  # fmt: skip
    new = {}
    for key, value in state.items():
        for ours, theirs in names:
            key = key.replace(ours, theirs)
        if key == "pos_embed":
            value = value[None]
        if key == "patch_embed.proj.weight":
            side = math.isqrt(value.shape[1] // 3)
            value = value.reshape(-1, 3, side, side)
        new[key] = value
    return new


def pair(**changes) -> tuple[ViT, VisionTransformer]:
    """A ViT with scrambled weights and timm's with the same, in double precision."""
    ours = scramble(ViT(image=16, patch=4, width=24, depth=3, heads=3, classes=5, **changes)).double()
    mean = changes.get("pool") == "mean"
    pooling = {"global_pool": "avg", "class_token": False, "fc_norm": False} if mean else {}
    peer = VisionTransformer(
        img_size=16, patch_size=4, embed_dim=24, depth=3, num_heads=3, num_classes=5, dynamic_img_size=True, **pooling
    )
    peer.load_state_dict(to_timm(ours.state_dict()))
    return ours, peer.double()


# Parity


@pytest.mark.parametrize("pool", ["class", "mean"])
def test_equals_timm_in_value_and_gradient(pool):
    ours, peer = pair(pool=pool)
    inputs = [noise(3, 3, 16, 16).requires_grad_() for _ in range(2)]
    outputs = [net(x) for net, x in zip((ours, peer), inputs, strict=True)]
    weight = torch.linspace(-1, 1, 15, dtype=torch.float64).view(3, 5)
    for output in outputs:
        (output * weight).sum().backward()
    agree(*outputs)
    agree(*(x.grad for x in inputs))
    theirs = dict(peer.named_parameters())
    for key, gradient in to_timm({name: p.grad for name, p in ours.named_parameters()}).items():
        agree(gradient, theirs[key].grad)
    agree(ours.features(inputs[0]), peer.forward_head(peer.forward_features(inputs[0]), True))


@pytest.mark.parametrize("size", [(24, 24), (8, 12)])
def test_other_picture_sizes_equal_timm(size):
    ours, peer = pair()
    x = noise(2, 3, *size)
    agree(ours(x), peer(x), rtol=0, atol=2e-5)  # timm interpolates positions in float32


@pytest.mark.parametrize(("old", "new"), [((4, 4), (7, 7)), ((2, 3), (5, 4)), ((6, 6), (3, 2))])
def test_resized_positions_equal_timms(old, new):
    position = noise(1 + old[0] * old[1], 8)
    mine = resize_positions(position, old, new)
    theirs = resample_abs_pos_embed(position[None], list(new), list(old))[0]
    agree(mine, theirs, rtol=0, atol=2e-4)  # timm interpolates in float32
    assert torch.equal(mine[0], position[0])
    constant = torch.full_like(position, 0.7)
    agree(resize_positions(constant, old, new), torch.full_like(mine, 0.7))
    assert resize_positions(position, old, old) is position


@pytest.mark.parametrize("grid", [(4, 4), (3, 5)])
def test_sincos_positions_equal_timms(grid):
    """Quarters of the width: timm writes sin y, sin x, cos y, cos x; ours, as in MAE, sin x, cos x, sin y, cos y."""
    theirs = build_sincos2d_pos_embed(list(grid), 16, dtype=torch.float64)
    theirs = theirs.view(-1, 2, 2, 4).transpose(1, 2).flip(1).flatten(1)  # (N, sin or cos, y or x, D / 4) before
    agree(sincos_positions(16, grid), theirs, rtol=0, atol=5e-6)  # timm's frequencies are float32


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attention_equals_pytorchs(heads):
    ours, peer = scramble(Attention(16, heads)).double(), nn.MultiheadAttention(16, heads, batch_first=True).double()
    state = ours.state_dict()
    peer.load_state_dict({
        "in_proj_weight": state["qkv.weight"], "in_proj_bias": state["qkv.bias"],
        "out_proj.weight": state["out.weight"], "out_proj.bias": state["out.bias"],
    })  # fmt: skip
    x = noise(3, 5, 16)
    for mask in (None, causal_mask(5)):
        out, maps = peer(x, x, x, attn_mask=None if mask is None else ~mask, average_attn_weights=False)
        mine, attention = ours.with_map(x, mask)
        agree(mine, out)
        agree(attention, maps)
        agree(ours(x, mask), out)
        fused = ours.merge(F.scaled_dot_product_attention(*ours.split(x), attn_mask=mask))  # what a GPU computes
        agree(fused, out)


def test_block_equals_pytorchs_pre_norm_layer():
    peer = nn.TransformerEncoderLayer(
        16, 4, 64, dropout=0, activation="gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
    ).double()
    ours, state = scramble(Block(16, 4)).double(), {}
    for key, value in ours.state_dict().items():
        for old, new in (
            ("attention.qkv.", "self_attn.in_proj_"), ("attention.out", "self_attn.out_proj"),
            ("mlp.0", "linear1"), ("mlp.2", "linear2"),
        ):  # fmt: skip
            key = key.replace(old, new)
        state[key] = value
    peer.load_state_dict(state)
    x = noise(2, 6, 16)
    agree(ours(x), peer(x))
    agree(ours(x, causal_mask(6)), peer(x, src_mask=~causal_mask(6)))


@pytest.mark.parametrize("name", SIZES)
def test_parameter_counts(name):
    patch, width, depth, heads, parameters = SIZES[name]
    with torch.device("meta"):
        assert count(ViT(image=224, patch=patch, width=width, depth=depth, heads=heads, classes=1000)) == parameters


def test_parameter_counts_of_small_ones():
    assert count(ViT(width=192, depth=6)) == 2_693_578
    assert count(ViT(width=128, depth=4, heads=4)) == 809_354


# Patches


def test_patches_are_squares_in_reading_order():
    picture = torch.arange(16).view(1, 1, 4, 4)
    want = [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    assert patchify(picture, 2)[0].tolist() == want
    assert patchify(picture.to(torch.uint8), 4).dtype == torch.uint8


@pytest.mark.parametrize(("shape", "patch"), [((2, 3, 8, 8), 4), ((1, 1, 6, 9), 3), ((3, 2, 4, 4), 1)])
def test_patches_go_back_to_the_same_picture(shape, patch):
    x = noise(*shape)
    grid = (shape[2] // patch, shape[3] // patch)
    assert torch.equal(unpatchify(patchify(x, patch), patch, grid), x)
    if shape[2] == shape[3]:
        assert torch.equal(unpatchify(patchify(x, patch), patch), x)


def test_patch_embedding_is_a_convolution_with_stride_and_kernel_of_a_patch():
    embed, x = scramble(PatchEmbedding(4, 10)).double(), noise(2, 3, 8, 12)
    want = F.conv2d(x, embed.linear.weight.view(10, 3, 4, 4), embed.linear.bias, stride=4)
    agree(embed(x), want.flatten(2).transpose(1, 2))


# Tokens


def test_kept_patches_bring_their_own_positions():
    net, x = scramble(ViT(image=16, patch=4, width=24, depth=1)).double(), noise(2, 3, 16, 16)
    keep = torch.tensor([[3, 0, 9], [15, 4, 5]])
    whole, some = net.tokens(x), net.tokens(x, keep)
    assert some.shape == (2, 4, 24)
    agree(some[:, 0], whole[:, 0])
    for row in range(2):
        agree(some[row, 1:], whole[row, 1 + keep[row]])
    everything = torch.arange(16).expand(2, -1)
    agree(net.encode(x, everything), net.encode(x))


@pytest.mark.parametrize(
    ("positions", "trained"), [("learned", 17 * 24), ("sincos", 0), (None, 0)], ids=["learned", "sincos", "none"]
)
def test_only_learned_positions_are_trained(positions, trained):
    net = ViT(image=16, patch=4, width=24, depth=1, positions=positions)
    assert sum(p.numel() for name, p in net.named_parameters() if name == "position") == trained
    assert net.position.shape == (17, 24) and "position" in net.state_dict()
    assert net.position.any() == (positions is not None)


@torch.no_grad()
def test_without_positions_the_order_of_patches_does_not_count():
    order = torch.tensor([3, 1, 0, 2])
    x = noise(2, 3, 8, 8)
    moved = unpatchify(patchify(x, 4)[:, order], 4)
    bag = scramble(ViT(image=8, patch=4, width=24, depth=2, positions=None)).double()
    agree(bag(x), bag(moved))
    agree(bag.encode(x)[:, 1:][:, order], bag.encode(moved)[:, 1:])
    net = scramble(ViT(image=8, patch=4, width=24, depth=2)).double()
    assert (net(x) - net(moved)).abs().max() > 1e-3
    want = net(x)
    net.position[1:] = net.position[1:][order].clone()
    agree(net(moved), want)


@torch.no_grad()
def test_pictures_of_a_batch_do_not_see_each_other():
    net, x = scramble(ViT(image=8, patch=4, width=24, depth=2)).double(), noise(3, 3, 8, 8)
    agree(net(x)[1:2], net(x[1:2]))


# The encoder


@torch.no_grad()
def test_causal_mask_hides_what_comes_later():
    encoder, x = scramble(Encoder(16, 3, 2)).double(), noise(2, 6, 16)
    changed = x.clone()
    changed[:, 4:] = noise(2, 2, 16, seed=2)
    before, after = (encoder(given, causal_mask(6)) for given in (x, changed))
    agree(before[:, :4], after[:, :4])
    assert (before[:, 4:] - after[:, 4:]).abs().amax(-1).min() > 1e-3
    agree(encoder(x[:, :3], causal_mask(3)), before[:, :3])


@torch.no_grad()
def test_padding_mask_makes_a_batch_of_different_lengths():
    encoder, x = scramble(Encoder(16, 2, 4)).double(), noise(2, 6, 16)
    real = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    together = encoder(x, real[:, None, None, :])
    agree(together[1, :4], encoder(x[1:, :4])[0])


@torch.no_grad()
def test_maps_of_all_layers_and_heads():
    net, x = scramble(ViT(image=8, patch=4, width=24, depth=2)).double(), noise(2, 3, 8, 8)
    maps = net.attention_maps(x)
    assert maps.shape == (2, 2, 3, 5, 5)
    agree(maps.sum(-1), torch.ones(2, 2, 3, 5, dtype=torch.float64))
    tokens = net.tokens(x)
    output, again = net.encoder.with_maps(tokens)
    agree(output, net.encoder(tokens))
    agree(maps, again)
    causal = net.encoder.with_maps(tokens, causal_mask(5))[1]
    assert not causal.triu(1).any() and causal[..., 0, 0].eq(1).all()


def test_weights_begin_with_xavier_and_zero_biases():
    torch.manual_seed(0)
    net = ViT(width=64, heads=2)
    for name, layer in net.named_modules():
        if isinstance(layer, nn.Linear):
            assert not layer.bias.any()
            for part in layer.weight.detach().chunk(3 if name.endswith("qkv") else 1):
                limit = math.sqrt(6 / sum(part.shape))
                assert 0.9 * limit < part.abs().max() <= limit, name
    ratio = net.position.std() / net.embed(torch.randn(8, 3, 32, 32)).std()
    assert 0.2 < ratio < 2  # a position is as loud as a patch from the start


def test_shapes():
    assert ViT(classes=0, image=16)(torch.randn(2, 3, 16, 16)).shape == (2, 96)
    assert ViT(channels=1, image=16, patch=8, classes=7)(torch.randn(2, 1, 16, 16)).shape == (2, 7)
    assert ViT(pool="mean", image=16).encode(torch.randn(2, 3, 16, 16)).shape == (2, 16, 96)
    assert ViT(positions="sincos", image=16)(torch.randn(2, 3, 24, 24)).shape == (2, 10)


# Settings that cannot be


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ViT(image=30, patch=4), "30 pixels cannot be cut into patches of 4"),
        (lambda: ViT(positions="sinusoidal"), "'sinusoidal'; expected 'learned', 'sincos' or None"),
        (lambda: ViT(pool="max"), "'max'; expected 'class' or 'mean'"),
        (lambda: ViT(width=96, heads=5), "width of 96 cannot be divided among 5 heads"),
        (lambda: patchify(torch.zeros(1, 3, 8, 10), 4), "8 x 10 pixels cannot be cut into patches of 4"),
        (lambda: unpatchify(torch.zeros(1, 5, 12), 2), "5 patches"),
        (lambda: unpatchify(torch.zeros(1, 6, 12), 2, (2, 2)), "no grid 2 x 2"),
        (lambda: sincos_positions(18, (2, 2)), "that 4 divides, not 18"),
        (lambda: ViT(image=16)(torch.zeros(1, 3, 18, 16)), "cannot be cut"),
    ],
)
def test_what_cannot_be_is_said(make, message):
    with pytest.raises(SettingError, match=message):
        make()

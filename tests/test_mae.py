"""Lesson 03's masks, autoencoder and loss: exact on small cases, and equal to transformers' ViTMAE."""

import pytest
import torch
from parity import agree, in_float64

from lessons.compat import import_torchvision
from lessons.errors import SettingError
from lessons.nets.mae import MAE, block_noise, grid_noise, masking, visible_count
from lessons.nets.vit import ViT, patchify
from lessons.objectives import masked_mse, normalise_patches

pytestmark = in_float64

NOISE = torch.tensor([[0.7, 0.1, 0.9, 0.3]])


def uniform(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def autoencoder(seed: int = 0, pool: str = "mean", **changes) -> MAE:
    torch.manual_seed(seed)
    encoder = ViT(image=16, patch=4, width=24, depth=2, heads=2, classes=0, positions="sincos", pool=pool)
    return MAE(encoder, width=16, depth=1, heads=2, **changes)


# Masks


def test_mask_of_four_patches_by_hand():
    keep, hidden, restore = masking(NOISE, 0.5)
    assert keep.tolist() == [[1, 3]]
    assert hidden.tolist() == [[True, False, True, False]]
    assert restore.tolist() == [[2, 0, 3, 1]]


@pytest.mark.parametrize("n, ratio, count", [(64, 0.75, 16), (64, 0.9, 6), (196, 0.75, 49), (16, 0.0, 16), (5, 0.5, 2)])
def test_count_is_rounded_down_and_the_mask_has_exactly_that_many(n, ratio, count):
    assert visible_count(n, ratio) == count
    keep, hidden, restore = masking(uniform(7, n), ratio)
    assert keep.shape == (7, count) and (~hidden).sum(1).eq(count).all()
    assert not hidden.gather(1, keep).any()
    assert torch.equal(restore.sort(1).values, torch.arange(n).expand(7, n))


def test_restore_undoes_the_order_of_any_sequence():
    x, noise = torch.randn(3, 16, 5), uniform(3, 16)
    keep, hidden, restore = masking(noise, 0.6)
    index = noise.argsort(1)[..., None].expand_as(x)
    shuffled = x.gather(1, index)
    assert torch.equal(shuffled[:, : keep.shape[1]], x.gather(1, keep[..., None].expand(-1, -1, 5)))
    assert torch.equal(shuffled.gather(1, restore[..., None].expand_as(x)), x)


@pytest.mark.parametrize("ratio", [-0.1, 1.0, 0.99, float("nan")])
def test_ratio_that_leaves_nothing_is_refused(ratio):
    with pytest.raises(SettingError, match="leaves none of 16 patches"):
        masking(uniform(2, 16), ratio)


@pytest.mark.parametrize("grid", [(8, 8), (4, 6)])
def test_block_mask_is_one_compact_piece(grid):
    mask = masking(block_noise(uniform(50, grid[0] * grid[1]), grid), 0.5)
    assert (mask.hidden.sum(1) == grid[0] * grid[1] // 2).all()
    scattered = masking(uniform(50, grid[0] * grid[1]), 0.5)
    assert neighbours(mask.hidden, grid) > 1.4 * neighbours(scattered.hidden, grid)
    assert len({tuple(row.tolist()) for row in mask.hidden}) > 5, "blocks lie at different places"


def neighbours(hidden: torch.Tensor, grid: tuple[int, int]) -> int:
    """How many pairs of hidden patches touch."""
    hidden = hidden.view(-1, *grid)
    return int((hidden[:, 1:] & hidden[:, :-1]).sum() + (hidden[:, :, 1:] & hidden[:, :, :-1]).sum())


def test_grid_mask_keeps_one_of_every_two_by_two():
    hidden = masking(grid_noise(uniform(5, 48), (6, 8)), 0.75).hidden.view(5, 6, 8)
    kept = ~hidden
    assert kept.view(5, 3, 2, 4, 2).sum((2, 4)).eq(1).all()
    assert torch.equal(kept, kept[:1].expand_as(kept))


@pytest.mark.parametrize("make", [block_noise, grid_noise])
def test_noise_of_another_grid_is_refused(make):
    with pytest.raises(SettingError, match="does not fit a grid of 4 x 4"):
        make(uniform(2, 15), (4, 4))


# Loss


def test_patches_are_normalised_each_by_itself():
    patches = torch.stack([torch.tensor([1.0, 2.0, 3.0, 6.0]), torch.full((4,), 5.0)])
    result = normalise_patches(patches)
    agree(result[0], (patches[0] - 3) / (14 / 3 + 1e-6) ** 0.5)
    assert torch.equal(result[1], torch.zeros(4)), "a flat patch becomes zero, not NaN"


@pytest.mark.parametrize("numbers", [12, 48, 192])
def test_predicting_zero_costs_d_minus_one_over_d(numbers):
    target = normalise_patches(torch.randn(8, 16, numbers))
    hidden = masking(uniform(8, 16), 0.75).hidden
    assert masked_mse(torch.zeros_like(target), target, hidden).item() == pytest.approx((numbers - 1) / numbers, 1e-4)


def test_loss_counts_hidden_patches_only_and_each_once():
    prediction, target = torch.zeros(2, 3, 2), torch.zeros(2, 3, 2)
    target[0, 0], target[0, 2], target[1, 1] = 1.0, 5.0, 3.0
    hidden = torch.tensor([[True, False, False], [False, True, True]])
    assert masked_mse(prediction, target, hidden).item() == pytest.approx((1 + 9 + 0) / 3)
    with pytest.raises(SettingError, match="hidden"):
        masked_mse(prediction, target, hidden[:, :2])


def test_visible_patches_get_no_gradient_and_hidden_ones_do():
    prediction = torch.randn(2, 8, 6, requires_grad=True)
    hidden = masking(uniform(2, 8), 0.5).hidden
    masked_mse(prediction, torch.randn(2, 8, 6), hidden).backward()
    assert prediction.grad[hidden].abs().min() > 0
    assert prediction.grad[~hidden].abs().max() == 0


# Network


@pytest.mark.parametrize("pool", ["mean", "class"])
@pytest.mark.parametrize("mask_tokens", ["decoder", "encoder"])
def test_prediction_does_not_depend_on_hidden_pixels(pool, mask_tokens):
    net, images = autoencoder(pool=pool, mask_tokens=mask_tokens), torch.randn(2, 3, 16, 16)
    mask = masking(uniform(2, 16), 0.75)
    other = patchify(images, 4)
    other[mask.hidden] = torch.randn_like(other[mask.hidden])
    rows = other.reshape(2, 4, 4, 3, 4, 4).permute(0, 3, 1, 4, 2, 5).reshape(2, 3, 16, 16)
    assert net(images, mask).shape == (2, 16, 48)
    agree(net(images, mask), net(rows, mask))


def test_mask_tokens_differ_by_their_place_alone():
    """Two hidden patches exchange their noise: nothing that the decoder knows has changed."""
    net, images = autoencoder(), torch.randn(1, 3, 16, 16)
    noise = uniform(1, 16)
    mask = masking(noise, 0.75)
    a, b = mask.hidden[0].nonzero()[:2, 0]
    exchanged = noise.clone()
    exchanged[0, a], exchanged[0, b] = noise[0, b], noise[0, a]
    agree(net(images, mask), net(images, masking(exchanged, 0.75)))
    predicted = net(images, mask)
    assert not torch.allclose(predicted[0, a], predicted[0, b]), "the places differ, so the predictions do"


def test_every_parameter_learns():
    net = autoencoder(pool="class")
    images, mask = torch.randn(4, 3, 16, 16), masking(uniform(4, 16), 0.75)
    masked_mse(net(images, mask), normalise_patches(patchify(images, 4)), mask.hidden).backward()
    silent = [name for name, value in net.named_parameters() if value.grad is None or not value.grad.any()]
    assert silent == ["encoder.encoder.norm.bias"] or not silent


def test_encoder_sees_whole_pictures_afterwards():
    net, images = autoencoder(), torch.randn(2, 3, 16, 16)
    everything = masking(uniform(2, 16), 0.0)
    shuffled = net.encode(images, everything)
    assert net.encoder.features(images).shape == (2, 24)
    agree(shuffled.mean(1), net.encoder.features(images))


def test_pictures_and_masks_that_do_not_fit_are_refused():
    net, images = autoencoder(), torch.randn(2, 3, 16, 16)
    for pictures, mask in (
        (torch.randn(2, 3, 32, 32), masking(uniform(2, 64), 0.5)),
        (images, masking(uniform(3, 16), 0.5)),
    ):
        with pytest.raises(SettingError, match="Expected pictures of 16 x 16 pixels and a mask of 2 x 16"):
            net(pictures, mask)


def test_mask_tokens_go_to_one_of_two_places():
    with pytest.raises(SettingError, match="expected 'decoder' or 'encoder'"):
        autoencoder(mask_tokens="both")


# Parity


def vitmae(norm: bool):
    """A tiny ViTMAE of transformers with weights that are no defaults."""
    import_torchvision()
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    config = ViTMAEConfig(
        image_size=16, patch_size=4, hidden_size=24, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=96, decoder_hidden_size=16, decoder_num_hidden_layers=1, decoder_num_attention_heads=2,
        decoder_intermediate_size=64, mask_ratio=0.75, norm_pix_loss=norm, layer_norm_eps=1e-6,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    peer = ViTMAEForPreTraining(config).eval()
    if not peer.decoder.decoder_pos_embed.any():  # made without pre-trained weights, some versions leave zeros here
        peer.vit.embeddings.initialize_weights()
        peer.decoder.initialize_weights(16)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, value in peer.named_parameters():
            if "position" not in name and "pos_embed" not in name:
                value.add_(0.1 * torch.randn(value.shape, generator=generator))
    return peer


RENAMED = (  # names of transformers 4 -> those of 5
    ("vit.encoder.layer.", "vit.layers."), ("attention.attention.query", "attention.q_proj"),
    ("attention.attention.key", "attention.k_proj"), ("attention.attention.value", "attention.v_proj"),
    ("attention.output.dense", "attention.o_proj"), ("intermediate.dense", "mlp.fc1"), ("output.dense", "mlp.fc2"),
)  # fmt: skip
OURS = (  # names of transformers 5 -> ours
    ("vit.embeddings.cls_token", "encoder.class_token"), ("vit.embeddings.position_embeddings", "encoder.position"),
    ("vit.embeddings.patch_embeddings.projection", "encoder.embed.linear"), ("vit.layers.", "encoder.encoder.blocks."),
    ("vit.layernorm", "encoder.encoder.norm"), ("decoder.mask_token", "mask_token"),
    ("decoder.decoder_pos_embed", "position"), ("decoder.decoder_embed", "into_decoder"),
    ("decoder.decoder_layers.", "decoder.blocks."), ("decoder.decoder_norm", "decoder.norm"),
    ("decoder.decoder_pred", "predict"), ("o_proj", "out"), ("layernorm_before", "norm1"),
    ("layernorm_after", "norm2"), ("fc1", "0"), ("fc2", "2"),
)  # fmt: skip


def in_our_names(theirs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The peer's values or gradients under our names, in our shapes: query, key and value as one matrix, and the
    numbers of a patch in the order (C, P, P), where the peer has (P, P, C)."""
    found = {}
    for name, value in theirs.items():
        for old, new in (*RENAMED, *OURS):
            name = name.replace(old, new)
        if name.startswith("predict"):
            value = value.reshape(4, 4, 3, *value.shape[1:]).movedim(2, 0).flatten(0, 2)
        found[name] = value
    for name in [name for name in found if "q_proj" in name]:
        parts = [found.pop(name.replace("q_proj", f"{one}_proj")) for one in "qkv"]
        found[name.replace("q_proj", "qkv")] = torch.cat(parts)
    return found


@pytest.mark.parametrize("norm", [True, False])
def test_equal_to_vitmae_of_transformers(norm):
    peer, net = vitmae(norm), autoencoder(pool="class")
    shapes = {name: value.shape for name, value in net.state_dict().items()}
    state = in_our_names(peer.state_dict())
    assert state.keys() == shapes.keys()
    agree(state["position"][0], net.position, rtol=0, atol=1e-5)  # the same sin-cos table, in float32 there
    net.load_state_dict({name: value.reshape(shapes[name]) for name, value in state.items()})
    images, noise = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(5)), uniform(3, 16, seed=6)
    theirs = peer(images, noise=noise)
    mask = masking(noise, 0.75)
    prediction, target = net(images, mask), patchify(images, 4)
    loss = masked_mse(prediction, normalise_patches(target) if norm else target, mask.hidden)
    assert torch.equal(mask.hidden.float(), theirs.mask)
    assert torch.equal(mask.restore, theirs.ids_restore)
    in_our_order = theirs.logits.unflatten(2, (4, 4, 3)).movedim(4, 2).flatten(2)
    agree(prediction, in_our_order)
    agree(loss, theirs.loss)
    loss.backward()
    theirs.loss.backward()
    wanted = in_our_names({name: value.grad for name, value in peer.named_parameters() if value.grad is not None})
    learned = {name for name, value in net.named_parameters() if value.grad is not None}
    assert learned == wanted.keys()
    for name, value in net.named_parameters():
        agree(value.grad, wanted[name].reshape(value.shape), msg=name)

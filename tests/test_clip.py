"""Lesson 08: tokenizer, towers and losses; held to open_clip's losses and transformers' CLIPModel on equal weights."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from parity import agree, in_float32, in_float64

import lessons
from lessons import compat, objectives, recipes
from lessons.data.tokenizer import BOS, EOS, PAD, UNKNOWN, Tokenizer
from lessons.errors import SettingError
from lessons.nets.clip import (
    CaptionWriter,
    ConvTower,
    DualEncoder,
    LockedTower,
    TextTower,
    ViTTower,
    WordPredictor,
)

compat.import_torchvision()

pytestmark = in_float64

CAPTIONS = ["a red ring", "a blue ring left of a red star", "there is a red star", "two stars, one of them red"] * 3


# The tokenizer


def test_tokens_begin_with_bos_end_with_eos_and_are_padded():
    tokenizer = Tokenizer.train(CAPTIONS, 60, length=12)
    rows = tokenizer(["a red ring", "a blue ring left of a red star"])
    assert rows.shape == (2, 12) and rows.dtype == torch.int64
    assert rows[:, 0].tolist() == [BOS, BOS]
    for row in rows:
        end = row.tolist().index(EOS)
        assert (row[end + 1 :] == PAD).all() and not (row[:end] == PAD).any()
    assert rows.max() < len(tokenizer)


def test_text_comes_back_in_lower_case():
    tokenizer = Tokenizer.train(CAPTIONS, 60)
    assert tokenizer.decode(tokenizer(["A Red RING"])[0]) == "a red ring"
    assert tokenizer.tokens("a red ring") == ["▁a", "▁red", "▁ring"]
    assert UNKNOWN in tokenizer(["a red Ω"])[0]


def test_a_long_caption_is_cut_and_still_ends():
    rows = Tokenizer.train(CAPTIONS, 60, length=6)(["a blue ring left of a red star", "a red ring"])
    assert rows[0, -1] == EOS and (rows == EOS).sum(1).tolist() == [1, 1]


def test_the_same_captions_give_the_same_tokenizer_and_it_can_be_kept_as_text():
    first, second = (Tokenizer.train(CAPTIONS, 40, length=12) for _ in range(2))
    assert first.text() == second.text()
    kept = Tokenizer(first.text(), length=12)
    assert torch.equal(kept(CAPTIONS), first(CAPTIONS)) and len(kept) == len(first) <= 40


def test_merges_are_the_frequent_pairs_first():
    small, large = (Tokenizer.train(["low low low lower lowest"], size) for size in (15, 60))
    assert len(small.tokens("low")) >= len(large.tokens("low")) == 1


def test_what_a_tokenizer_cannot_take():
    tokenizer = Tokenizer.train(CAPTIONS, 60)
    with pytest.raises(SettingError, match="list of captions"):
        tokenizer("a red ring")
    with pytest.raises(SettingError, match="at least one token"):
        Tokenizer(tokenizer.text(), length=2)


# The towers


def text_tower(**changes):
    torch.manual_seed(0)
    return TextTower(**({"vocabulary": 20, "length": 9, "width": 12, "depth": 2, "heads": 3, "eos": EOS} | changes))


def test_what_follows_the_end_changes_nothing():
    tower = text_tower()
    short, long = torch.tensor([[BOS, 5, 6, EOS]]), torch.tensor([[BOS, 5, 6, EOS, PAD, 9, EOS, PAD]])
    agree(tower(short), tower(long))
    assert not torch.allclose(tower(short), tower(torch.tensor([[BOS, 6, 5, EOS]])))  # order matters


def test_each_state_depends_on_earlier_tokens_only():
    tower, row = text_tower(), torch.tensor([[BOS, 5, 6, 7, EOS]])
    other = row.clone()
    other[0, 3] = 11
    before, after = tower.states(row), tower.states(other)
    agree(before[:, :3], after[:, :3])
    assert (before[:, 3:] - after[:, 3:]).abs().amin(1).max() > 0


def test_captions_that_cannot_be_read():
    with pytest.raises(SettingError, match="at most 9"):
        text_tower()(torch.full((1, 10), EOS))
    with pytest.raises(SettingError, match="end token 2"):
        text_tower()(torch.tensor([[BOS, 5, EOS], [BOS, 5, 6]]))


@pytest.mark.parametrize("size", [32, 64])
def test_conv_tower_keeps_places_apart(size):
    torch.manual_seed(0)
    tower, x = ConvTower(width=2, places=6).eval(), torch.randn(2, 3, size, size)
    assert tower(x).shape == (2, tower.out_features) == (2, 22)
    assert not torch.allclose(tower(x), tower(x.flip(3)), atol=1e-3)


def dual(scale=None):
    torch.manual_seed(0)
    sizes = {"image": 16, "patch": 4, "width": 16, "depth": 2, "heads": 2}
    model = DualEncoder(ViTTower(**sizes), text_tower(), out=8)
    if scale:
        model.log_scale.data.fill_(math.log(scale))
    return model


def test_vectors_have_length_one_and_the_scale_begins_at_the_papers():
    model, images, tokens = dual(), torch.randn(3, 3, 16, 16), torch.tensor([[BOS, 5, EOS]] * 3)
    u, v, scale = model(images, tokens)
    assert u.shape == v.shape == (3, 8)
    agree(u.norm(dim=1), torch.ones(3))
    agree(v.norm(dim=1), torch.ones(3))
    assert scale.item() == pytest.approx(1 / 0.07)
    assert model.log_scale.item() == pytest.approx(2.659260)


def test_scale_is_clamped_from_above_only():
    for before, after in ((300.0, 100.0), (40.0, 40.0), (0.5, 0.5)):
        model = dual(before)
        model.clamp_scale()
        assert model.log_scale.exp().item() == pytest.approx(after, rel=1e-5)


# What CLIP is compared with


def test_a_locked_tower_does_not_move_while_the_rest_trains():
    torch.manual_seed(0)
    model = DualEncoder(LockedTower(ConvTower(2, places=4)), text_tower(), out=8).train()
    before = {name: value.clone() for name, value in model.pictures.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    images, tokens = torch.randn(3, 3, 32, 32), torch.tensor([[BOS, k, EOS] for k in (5, 6, 7)])
    objectives.clip_loss(*model(images, tokens)).backward()
    optimizer.step()
    for name, value in model.pictures.state_dict().items():
        agree(value, before[name])
    assert model.picture_projection.weight.grad.abs().max() > 0


def test_word_predictor_asks_for_every_token_of_the_vocabulary():
    torch.manual_seed(0)
    net = WordPredictor(ConvTower(2, places=4), 12).eval()
    images, tokens = torch.randn(2, 3, 32, 32), torch.tensor([[BOS, 5, 7, EOS, PAD], [BOS, 5, EOS, PAD, PAD]])
    logits, total = net(images), 0.0
    for row, present in zip(logits, ({0, 1, 2, 5, 7}, {0, 1, 2, 5}), strict=True):
        total -= sum(F.logsigmoid(row[k] if k in present else -row[k]) for k in range(12))
    agree(net.loss(images, tokens), total / 24)
    want = torch.stack([F.logsigmoid(logits[:, [5, 7]]).mean(1), F.logsigmoid(logits[:, 5])], 1)
    agree(net.scores(images, tokens), want)


def test_caption_writer_gives_the_probability_of_each_token_and_sees_the_picture():
    torch.manual_seed(0)
    net = CaptionWriter(ConvTower(2, places=4), text_tower()).eval()
    images, tokens = torch.randn(2, 3, 32, 32), torch.tensor([[BOS, 5, 7, EOS, PAD], [BOS, 6, EOS, PAD, PAD]])
    found = net(images, tokens)
    assert found.shape == (2, 4) and (found <= 0).all() and (found[1, 2:] == 0).all()
    every = torch.tensor([[BOS, k] for k in range(1, 20)])  # all that may follow [BOS]; padding counts as nothing
    share = torch.cat([net(images[:1], row[None]) for row in every]).exp().sum()
    assert 0.9 < share < 1
    agree(net.loss(images, tokens), -found.sum() / 5)
    agree(net.scores(images, tokens)[0, 0], found[0].sum())
    assert not torch.allclose(net(images.flip(0), tokens), found, atol=1e-4)


# The losses


def pairs(B=6, D=5, seed=0):
    torch.manual_seed(seed)
    return [(3 * torch.randn(B, D)).requires_grad_() for _ in range(2)]


@pytest.mark.parametrize("scale", [1 / 0.07, 3.0, 100.0])
def test_clip_loss_equals_open_clips_values_and_gradients(scale):
    from open_clip.loss import ClipLoss

    a, b = pairs()
    t = torch.tensor(math.log(scale), requires_grad=True)
    ours = objectives.clip_loss(a, b, t.exp())
    theirs = ClipLoss()(F.normalize(a, dim=1), F.normalize(b, dim=1), t.exp())
    agree(ours, theirs)
    for mine, peer in zip(*(torch.autograd.grad(loss, (a, b, t)) for loss in (ours, theirs)), strict=True):
        agree(mine, peer)


@pytest.mark.parametrize("scale, bias", [(10.0, -10.0), (3.0, 0.5)])
def test_siglip_loss_equals_open_clips(scale, bias):
    from open_clip.loss import SigLipLoss

    a, b = pairs()
    s, c = torch.tensor(scale, requires_grad=True), torch.tensor(bias, requires_grad=True)
    ours = objectives.siglip_loss(a, b, s, c)
    theirs = SigLipLoss()(F.normalize(a, dim=1), F.normalize(b, dim=1), s, c)
    agree(ours, theirs)
    for mine, peer in zip(*(torch.autograd.grad(loss, (a, b, s, c)) for loss in (ours, theirs)), strict=True):
        agree(mine, peer)


def test_known_values():
    a = torch.tensor([[1.0, 2, 2], [2, -1, 0], [0, 0, 3]])
    b = torch.tensor([[2.0, 1, 2], [1, -2, 1], [0, 1, 1]])
    loss = objectives.clip_loss
    assert loss(a, b, 1 / 0.07, direction="pictures").item() == pytest.approx(0.540810, abs=1e-5)
    assert loss(a, b, 1 / 0.07, direction="texts").item() == pytest.approx(1.151261, abs=1e-5)
    for scale, value in ((1 / 0.07, 0.846036), (10.0, 0.699592), (1.0, 0.873562), (100.0, 4.830693)):
        assert loss(a, b, scale).item() == pytest.approx(value, abs=1e-5)


def test_clip_loss_is_the_symmetric_info_nce_of_lesson_04():
    a, b = pairs()
    agree(objectives.clip_loss(a, b, 5.0), objectives.symmetric_info_nce(a, b, 0.2))


def test_shared_targets_lift_the_floor_of_repeated_captions():
    meanings = torch.tensor([0, 0, 1, 2, 2, 2])
    target = objectives.shared_target(meanings)
    agree(target.sum(1), torch.ones(6))
    agree(target[3], torch.tensor([0, 0, 0, 1 / 3, 1 / 3, 1 / 3]))
    perfect = torch.eye(3)[meanings]  # equal meanings coincide, others are at right angles
    plain = objectives.clip_loss(perfect, perfect, 100.0)
    floor = sum(math.log(n) * n for n in (2, 1, 3)) / 6
    assert plain.item() == pytest.approx(floor, abs=1e-4)
    shared = objectives.clip_loss(perfect, perfect, 100.0, target=target)
    assert shared.item() == pytest.approx(floor, abs=1e-4)  # the entropy of the target itself ...
    pushed = perfect.clone().requires_grad_()
    objectives.clip_loss(pushed, perfect, 100.0, target=target).backward()
    assert pushed.grad.abs().max() < 1e-4  # ... but nothing is pushed any more


def test_shared_targets_without_repeats_are_the_plain_loss():
    a, b = pairs()
    target = objectives.shared_target(torch.arange(6))
    agree(objectives.clip_loss(a, b, 7.0, target=target), objectives.clip_loss(a, b, 7.0))


@pytest.mark.parametrize("direction", ["both", "pictures", "texts"])
def test_shared_targets_by_loops(direction):
    a, b = pairs(5)
    meanings = torch.tensor([3, 1, 3, 3, 0])
    cosine = F.normalize(a, dim=1) @ F.normalize(b, dim=1).T
    rows = {"pictures": 4.0 * cosine, "texts": 4.0 * cosine.T}
    want = {}
    for name, logits in rows.items():
        total = 0.0
        for i in range(5):
            right = [j for j in range(5) if meanings[j] == meanings[i]]
            total -= sum(logits[i].log_softmax(0)[j] for j in right) / len(right)
        want[name] = total / 5
    want["both"] = (want["pictures"] + want["texts"]) / 2
    got = objectives.clip_loss(a, b, 4.0, target=objectives.shared_target(meanings), direction=direction)
    agree(got, want[direction])


def test_the_way_back_takes_the_columns_of_a_target_each_brought_to_one():
    a, b = pairs(3)
    target = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.0, 0.25, 0.75]])  # no two columns weigh alike
    likely = (4.0 * F.normalize(a, dim=1) @ F.normalize(b, dim=1).T).log_softmax(0)  # of the pictures, for each text
    want = -(target / target.sum(0) * likely).sum() / 3
    agree(objectives.clip_loss(a, b, 4.0, target=target, direction="texts"), want)


def test_settings_that_make_no_sense():
    a, b = pairs()
    with pytest.raises(SettingError, match="one shape"):
        objectives.clip_loss(a, b[:4], 1.0)
    with pytest.raises(SettingError, match="above 0"):
        objectives.clip_loss(a, b, 0.0)
    with pytest.raises(SettingError, match="'pictures' or 'texts'"):
        objectives.clip_loss(a, b, 1.0, direction="i2t")
    with pytest.raises(SettingError, match="one shape"):
        objectives.siglip_loss(a, b[:4], 1.0, 0.0)


# Against transformers' CLIP


def peer_of(model: DualEncoder):
    """transformers' CLIPModel with a tiny configuration and the weights of `model`; what it lacks, our bias of the
    patch embedding, is set to zero in both."""
    from transformers import CLIPConfig, CLIPModel

    common = {"num_hidden_layers": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-6, "attention_dropout": 0.0}
    text = {"vocab_size": 20, "hidden_size": 12, "intermediate_size": 48, "num_attention_heads": 3, **common}
    text |= {"max_position_embeddings": 9, "bos_token_id": 1, "eos_token_id": 19, "pad_token_id": 0}
    vision = {"hidden_size": 16, "intermediate_size": 64, "num_attention_heads": 2, "image_size": 16, "patch_size": 4}
    peer = CLIPModel(CLIPConfig(text_config=text, vision_config=vision | common, projection_dim=8)).train()
    with torch.no_grad():
        model.pictures.embed.linear.bias.zero_()
        state = {name: translated(name, value, model) for name, value in peer.state_dict().items()}
    peer.load_state_dict(state)
    return peer


ENDS = {
    "logit_scale": "log_scale",
    "visual_projection.weight": "picture_projection.weight",
    "text_projection.weight": "text_projection.weight",
    "text_model.embeddings.token_embedding.weight": "texts.embedding.weight",
    "text_model.embeddings.position_embedding.weight": "texts.position",
    "vision_model.embeddings.class_embedding": "pictures.class_token",
    "vision_model.embeddings.patch_embedding.weight": "pictures.embed.linear.weight",
    "vision_model.embeddings.position_embedding.weight": "pictures.position",
    "vision_model.pre_layrnorm": "pictures.pre_norm",
    "vision_model.post_layernorm": "pictures.encoder.norm",
    "text_model.final_layer_norm": "texts.encoder.norm",
    "vision_model.encoder.layers.": "pictures.encoder.blocks.",
    "text_model.encoder.layers.": "texts.encoder.blocks.",
    "self_attn.out_proj": "attention.out",
    "layer_norm1": "norm1",
    "layer_norm2": "norm2",
    "mlp.fc1": "mlp.0",
    "mlp.fc2": "mlp.2",
}


def translated(name: str, like, model: DualEncoder, of=lambda parameter: parameter):
    """The value of ours (or `of` it) that peer parameter `name` must have, in the peer's shape."""
    ours, part = name, None
    for old, new in ENDS.items():
        ours = ours.replace(old, new)
    for number, letter in enumerate("qkv"):
        if f"self_attn.{letter}_proj" in ours:
            ours, part = ours.replace(f"self_attn.{letter}_proj", "attention.qkv"), number
    value = of(model.get_parameter(ours))
    return (value.chunk(3)[part] if part is not None else value).reshape(like.shape)


def test_transformers_clip_gives_the_same_logits_loss_and_gradients():
    model = dual()
    model.texts.eos = 19
    peer = peer_of(model)
    assert sum(p.numel() for p in peer.parameters()) == sum(p.numel() for p in model.parameters()) - 16  # the bias
    torch.manual_seed(1)
    images = torch.randn(4, 3, 16, 16)
    tokens = torch.tensor([[1, 5, 6, 19, 0, 0], [1, 7, 19, 0, 0, 0], [1, 8, 9, 10, 11, 19], [1, 6, 5, 19, 0, 0]])
    out = peer(input_ids=tokens, pixel_values=images, return_loss=True)
    u, v, scale = model(images, tokens)
    agree(u, out.image_embeds)
    agree(v, out.text_embeds)
    agree(scale * u @ v.T, out.logits_per_image)
    loss = objectives.clip_loss(u, v, scale)
    agree(loss, out.loss)
    loss.backward()
    out.loss.backward()
    for name, parameter in peer.named_parameters():
        mine = translated(name, parameter, model, of=lambda p: p.grad)
        agree(mine, parameter.grad, msg=lambda text, n=name: f"{n}: {text}")


# The model that lessons 09 to 11 start from


def smoke_run(monkeypatch):
    monkeypatch.setenv("LESSONS_SCALE", "smoke")
    monkeypatch.setenv("LESSONS_DATA", "scenes")
    return lessons.start(8)


@in_float32  # scenes are drawn in it
def test_caption_model_is_trained_once_and_then_taken_from_the_cache(monkeypatch, capsys):
    run = smoke_run(monkeypatch)
    first, tokenizer, history = recipes.caption_model(run)
    again, same, loaded = recipes.caption_model(run)
    assert "loaded from an earlier run" in capsys.readouterr().out
    assert tokenizer.text() == same.text() and loaded.loss == history.loss
    assert len(history.loss) == recipes.caption_settings(run, "scenes").steps == len(history.metrics["scale"])
    pairs = recipes.caption_pairs(run)
    tokens = recipes.caption_tokens(tokenizer, pairs.test.captions)
    assert tokens.shape[:2] == (len(pairs.test), 4)
    one, other = (recipes.embed(model, pairs.test.images, tokens[:, 0]) for model in (first, again))
    torch.testing.assert_close(one, other)
    torch.testing.assert_close(one[0].norm(dim=1), torch.ones(len(pairs.test)))


@in_float32  # scenes are drawn in it
def test_it_learns_its_training_batch(monkeypatch):
    run = smoke_run(monkeypatch)
    settings = dataclasses.replace(recipes.caption_settings(run, "scenes"), steps=60, learning_rate=3e-3)
    pairs = recipes.caption_scenes(16)
    tokenizer = Tokenizer.train([text for texts in pairs.captions for text in texts], 200, 24)
    model = recipes.dual_encoder(settings, len(tokenizer), run)
    batch = next(recipes.caption_batches(pairs.images, recipes.caption_tokens(tokenizer, pairs.captions)[:, :1], 16))
    history = recipes.fit_clip(run, model, [batch] * 60, settings)
    assert history.loss[0] > 0.8 * math.log(16) and history.loss[-1] < 0.5


@in_float32  # scenes are drawn in it
def test_held_out_combinations_are_never_shown_or_named():
    pairs = recipes.caption_scenes(600)
    combinations = {tuple(word.split()) for text in sum(pairs.captions, []) for word in _noun_phrases(text)}
    assert not combinations & set(recipes.HELD_OUT)
    assert len(combinations) == 36 - 4
    everything = recipes.caption_scenes(600, world=dataclasses.replace(recipes.CAPTION_WORLD, held_out=()))
    combinations = {tuple(word.split()) for text in sum(everything.captions, []) for word in _noun_phrases(text)}
    assert combinations >= set(recipes.HELD_OUT)


def _noun_phrases(text: str) -> list[str]:
    """Every "colour shape" of a caption, patterns between them left out."""
    words = [word for word in text.replace(",", "").split() if word not in ("striped", "dotted")]
    pairs = zip(words, words[1:], strict=False)
    return [f"{a} {b}" for a, b in pairs if a in recipes.CAPTION_WORLD.colours and b in recipes.CAPTION_WORLD.shapes]


@in_float32  # scenes are drawn in it
def test_batches_hold_a_picture_and_one_of_its_captions():
    images = torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1).expand(10, 3, 4, 4)
    tokens = torch.zeros(10, 2, 6, dtype=torch.int64)
    tokens[:, :, 0], tokens[:, 0, 1], tokens[:, 1, 1] = 1, 50, 60
    tokens[:, :, 2] = torch.arange(10)[:, None] + 100
    for shift in (0, 3):
        x, texts, index = next(recipes.caption_batches(images, tokens, 4, seed=1, shift=shift))
        assert x.shape == (4, 3, 4, 4) and texts.shape == (4, 3)
        assert torch.equal(texts.amax(1) - 100, (index + shift) % 10)
        agree(x[:, 0, 0, 0], (index / 255 - 0.5) / 0.25)
    with pytest.raises(SettingError, match="10 pictures"):
        next(recipes.caption_batches(images, tokens, 11))
    again = next(recipes.caption_batches(images, tokens, 4, seed=1, shift=3))
    assert torch.equal(again[1], texts)


def test_every_scale_has_settings_whose_networks_fit_together(monkeypatch):
    for scale in ("smoke", "cpu", "gpu"):
        monkeypatch.setenv("LESSONS_SCALE", scale)
        monkeypatch.setenv("LESSONS_DATA", "scenes")
        run = lessons.start(8)
        for source in ("scenes", "real"):
            settings = recipes.caption_settings(run, source)
            with torch.device("meta"):
                model = recipes.dual_encoder(settings, 100, dataclasses.replace(run, device=torch.device("meta")))
                images = torch.zeros(2, 3, settings.pixels, settings.pixels)
                u, v, _ = model(images, torch.full((2, settings.length), EOS))
            assert u.shape == v.shape == (2, settings.out)

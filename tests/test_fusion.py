"""Lesson 11: masks, cache, losses and data of early fusion; held to transformers' GPT-2, timm's attention with QK-norm,
and PyTorch's attention, on equal weights."""

from functools import partial

import matplotlib
import pytest
import torch
import torch.nn.functional as F
from parity import agree, in_float32, in_float64
from torch import nn

import lessons
from lessons import figures, objectives, recipes
from lessons.compat import import_torchvision
from lessons.data import language
from lessons.data.scenes import render
from lessons.data.tokenizer import BOS, EOS, PAD, Tokenizer
from lessons.errors import SettingError
from lessons.exercises.expect import randomise
from lessons.nets import fusion
from lessons.nets.clip import DualEncoder, TextTower
from lessons.nets.vit import Block, causal_mask

matplotlib.use("Agg")
import_torchvision()  # timm and transformers import torchvision, which needs help beside a CPU build of torch

from timm.models.vision_transformer import Attention as TimmAttention  # noqa: E402
from transformers import GPT2Config, GPT2LMHeadModel  # noqa: E402

pytestmark = in_float64


def joint(**more) -> fusion.JointTransformer:
    return randomise(fusion.JointTransformer(30, 12, (2, 2), 9, 24, 3, 3, **more), seed=1).eval()


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(0)
    seen = torch.randn(2, 4, 12, generator=generator)
    return seen, torch.randint(4, 30, (2, 3, 6), generator=generator)


@pytest.fixture(scope="module")
def told():
    """A few pictures with their texts, and the tokenizer."""
    scenes = render(recipes.FUSION_WORLD, 40, seed=5)
    texts = [f"{prompt} {answer}" for found in recipes.asked_about(scenes, 8) for _, prompt, answer in found]
    tokenizer = Tokenizer.train(texts, 400, 13)
    return scenes, recipes.dialogues(scenes, tokenizer, 8), tokenizer


# Masks


def test_the_prefix_mask_is_the_one_of_the_papers():
    assert ["".join(map(str, row)) for row in fusion.prefix_mask(2, 3).int().tolist()] == [
        "11000", "11000", "11100", "11110", "11111",
    ]  # fmt: skip
    assert torch.equal(fusion.prefix_mask(0, 4), causal_mask(4))


def test_packed_segments_see_the_picture_and_themselves():
    mask = fusion.prefix_mask(2, 3, 2)
    assert mask.shape == (8, 8) and mask[:, :2].all() and not mask[:2, 2:].any()
    assert torch.equal(mask[2:5, 2:5], causal_mask(3)) and torch.equal(mask[5:, 5:], causal_mask(3))
    assert not mask[2:5, 5:].any() and not mask[5:, 2:5].any()


# The joint transformer


def test_packed_attention_equals_the_masked_one(inputs):
    model, (seen, tokens) = joint(), inputs
    x = model.sequence(seen, tokens)
    for block in model.blocks:
        x = block(x, fusion.prefix_mask(4, 6, 3))
    agree(model(seen, tokens), model.head(model.norm(x))[:, 4:].view(2, 3, 6, -1))


def test_packed_texts_equal_texts_alone(inputs):
    model, (seen, tokens) = joint(), inputs
    alone = torch.cat([model(seen, tokens[:, s : s + 1]) for s in range(3)], 1)
    agree(model(seen, tokens), alone)


def test_attention_agrees_with_pytorchs(inputs):
    model, (seen, tokens) = joint(), inputs
    x = model.blocks[0].norm1(model.sequence(seen, tokens))
    attention = model.blocks[0].attention
    want = attention.merge(F.scaled_dot_product_attention(*attention.split(x), attn_mask=fusion.prefix_mask(4, 6, 3)))
    agree(attention.packed(x, 4, 3, fusion.prefix_mask(4, 6)[4:])[0], want)


def test_no_word_looks_ahead_and_no_picture_token_sees_a_word(inputs):
    model, (seen, tokens) = joint(), inputs
    other = tokens.clone()
    other[:, 1, 4] = (other[:, 1, 4] + 1) % 26 + 4
    before, after = model.with_maps(seen, tokens)[0], model.with_maps(seen, other)[0]
    changed = (before - after).abs().amax((0, 2)) > 1e-6
    assert changed.nonzero().flatten().tolist() == [4 + 6 + 4, 4 + 6 + 5]


def test_maps_are_attention_and_the_picture_can_be_shut_out(inputs):
    seen, tokens = inputs
    maps = joint(fuse_from=2).with_maps(seen, tokens)[1]
    assert maps.shape == (2, 3, 3, 3, 6, 10)
    agree(maps.sum(-1), torch.ones(2, 3, 3, 3, 6))
    assert (maps[:, :2, ..., :4] == 0).all() and (maps[:, 2, ..., :4] > 0).all()
    with pytest.raises(SettingError, match="0 to 2"):
        joint(fuse_from=3)


def test_without_a_picture_it_is_a_language_model(inputs):
    model, tokens = joint(), inputs[1]
    assert model(None, tokens).shape == (2, 3, 6, 30)
    with pytest.raises(SettingError, match="at most 9"):
        model(None, torch.randint(4, 30, (1, 1, 10)))


@pytest.mark.parametrize("more", [{}, {"fuse_from": 2}, {"qk_norm": True}])
def test_the_cache_changes_no_token(inputs, more):
    model, (seen, tokens) = joint(**more), inputs
    for given in (seen, None):
        written = model.write(given, tokens[:, 0, :3], 6)
        assert torch.equal(written, model.write(given, tokens[:, 0, :3], 6, cache=False))
        again = torch.cat([tokens[:, 0, :3], written], 1)[:, None]
        assert torch.equal(model(given, again)[:, 0, 2:-1].argmax(-1), written)


def test_the_cache_knows_the_position_of_every_word():
    torch.manual_seed(0)
    model = fusion.JointTransformer(30, 12, (2, 2), 9, 24, 3, 3).eval()  # random biases would say one word for ever
    seen, prompts = torch.randn(60, 4, 12), torch.randint(4, 30, (60, 3))
    for given in (seen, None):
        written = model.write(given, prompts, 6, stop=-1)
        assert len(written.unique()) > 9
        assert torch.equal(written, model.write(given, prompts, 6, stop=-1, cache=False))


def test_writing_ends_at_the_stop_token(inputs):
    model, (seen, tokens) = joint(), inputs
    free = model.write(seen, tokens[:, 0, :3], 6, stop=-1)
    stop = int(free[0, 1])
    written = model.write(seen, tokens[:, 0, :3], 6, stop=stop)
    place = free[0].tolist().index(stop)
    assert torch.equal(written[0, : place + 1], free[0, : place + 1]) and (written[0, place + 1 :] == PAD).all()


def gpt2_like(model: fusion.JointTransformer) -> GPT2LMHeadModel:
    """transformers' GPT-2 with the weights of a joint transformer that reads words only."""
    config = GPT2Config(
        vocab_size=30, n_positions=9, n_embd=24, n_layer=3, n_head=3, activation_function="gelu",
        layer_norm_epsilon=1e-6, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, tie_word_embeddings=False,
        bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD,
    )  # fmt: skip
    peer = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        peer.transformer.wte.weight.copy_(model.embedding.weight + model.kind[1])
        peer.transformer.wpe.weight.copy_(model.position)
        for mine, theirs in zip(model.blocks, peer.transformer.h, strict=True):
            pairs = (
                (mine.norm1, theirs.ln_1), (mine.norm2, theirs.ln_2), (mine.attention.qkv, theirs.attn.c_attn),
                (mine.attention.out, theirs.attn.c_proj), (mine.mlp[0], theirs.mlp.c_fc),
                (mine.mlp[2], theirs.mlp.c_proj),
            )  # fmt: skip
            for a, b in pairs:
                b.weight.copy_(a.weight.T if isinstance(a, nn.Linear) else a.weight)
                b.bias.copy_(a.bias)
        peer.transformer.ln_f.load_state_dict(model.norm.state_dict())
        model.head.bias.zero_()
        peer.lm_head.weight.copy_(model.head.weight)
    return peer


def test_words_loss_and_cache_agree_with_gpt2(inputs):
    model, tokens = joint(), inputs[1][:, 0]
    peer = gpt2_like(model)
    labels = tokens.masked_fill(torch.arange(6) < 3, objectives.IGNORED)
    theirs = peer(input_ids=tokens, labels=labels)
    ours = model(None, tokens[:, None])
    agree(ours[:, 0], theirs.logits)
    loss = objectives.answer_loss(ours, labels[:, None])
    agree(loss, theirs.loss.double(), rtol=2e-5, atol=0)  # transformers takes the loss in float32
    loss.backward()
    objectives.answer_loss(theirs.logits[:, None], labels[:, None]).backward()
    agree(model.blocks[1].mlp[0].weight.grad, peer.transformer.h[1].mlp.c_fc.weight.grad.T)
    agree(model.position.grad, peer.transformer.wpe.weight.grad)
    written = peer.generate(tokens[:, :3], max_new_tokens=6, do_sample=False, use_cache=True, attention_mask=None)
    assert torch.equal(model.write(None, tokens[:, :3], 6)[:, : written.shape[1] - 3], written[:, 3:])


# QK-norm


def test_qk_norm_agrees_with_timm():
    ours = randomise(fusion.FusionAttention(24, 3, qk_norm=True), seed=2)
    peer = TimmAttention(24, 3, qkv_bias=True, qk_norm=True, norm_layer=partial(nn.LayerNorm, eps=1e-6))
    state = {"q_norm": "norm_q", "k_norm": "norm_k", "proj": "out", "qkv": "qkv"}
    peer.load_state_dict({name: ours.state_dict()[".".join((state[name.split(".")[0]], name.split(".")[1]))]
                          for name in peer.state_dict()})  # fmt: skip
    x = torch.randn(2, 5, 24)
    agree(ours(x), peer(x))
    ours(x).square().sum().backward()
    peer(x).square().sum().backward()
    agree(ours.qkv.weight.grad, peer.qkv.weight.grad)
    agree(ours.norm_q.weight.grad, peer.q_norm.weight.grad)


def test_qk_norm_bounds_the_scores(inputs):
    plain, normed = joint(), fusion.JointTransformer(30, 12, (2, 2), 9, 24, 3, 3, qk_norm=True)
    seen, tokens = inputs
    with torch.no_grad():
        for model in (plain, normed):
            for block in model.blocks:
                block.attention.qkv.weight.mul_(50)
    assert (normed.largest_scores(seen, tokens) <= 8**0.5 + 1e-4).all()
    assert plain.largest_scores(seen, tokens).max() > 100


# Cross-attention and the other neighbours


def test_closed_gates_leave_the_language_model_as_it_is(inputs):
    seen, tokens = inputs
    model = fusion.CrossAttentionModel(30, 12, (2, 2), 9, 24, 2, 3)
    agree(model(seen, tokens), model(None, tokens))
    opened = fusion.CrossAttentionModel(30, 12, (2, 2), 9, 24, 2, 3, gate=0.5)
    assert not torch.allclose(opened(seen, tokens), opened(None, tokens), atol=1e-3)


def test_gated_cross_attention_agrees_with_pytorchs_attention():
    layer = randomise(fusion.GatedCrossAttention(24, 3), seed=3)
    peer = nn.MultiheadAttention(24, 3, batch_first=True)
    with torch.no_grad():
        peer.in_proj_weight.copy_(torch.cat([layer.q.weight, layer.kv.weight]))
        peer.in_proj_bias.copy_(torch.cat([layer.q.bias, layer.kv.bias]))
        peer.out_proj.load_state_dict(layer.out.state_dict())
    x, seen = torch.randn(2, 5, 24, requires_grad=True), torch.randn(2, 4, 24)
    pictures = layer.norm_seen(seen)
    read, looked = peer(layer.norm1(x), pictures, pictures, average_attn_weights=False)
    y = x + layer.gates[0].tanh() * read
    want = y + layer.gates[1].tanh() * layer.mlp(layer.norm2(y))
    got, attention = layer.with_map(x, seen)
    agree(got, want)
    agree(attention, looked)
    for output in (got, want):
        output.square().sum().backward(retain_graph=True)
    first, second = (torch.autograd.grad(output.square().sum(), x, retain_graph=True)[0] for output in (got, want))
    agree(first, second)


@pytest.mark.parametrize("kind", [fusion.CrossAttentionModel, fusion.LateFusion])
def test_the_neighbours_keep_texts_apart_and_look_at_the_picture(inputs, kind):
    seen, tokens = inputs
    model = randomise(kind(30, 12, (2, 2), 9, 24, 2, 3), seed=4).eval()
    alone = torch.cat([model(seen, tokens[:, s : s + 1]) for s in range(3)], 1)
    agree(model(seen, tokens), alone)
    other = tokens.clone()
    other[..., -1] = 4
    agree(model(seen, tokens)[:, :, :-1], model(seen, other)[:, :, :-1])
    assert not torch.allclose(model(seen, tokens), model(seen.flip(0), tokens), atol=1e-3)


def test_rivals_have_about_the_same_size():
    sizes = [sum(p.numel() for p in model.parameters()) for model in (
        fusion.JointTransformer(130, 128, (4, 4), 13), fusion.CrossAttentionModel(130, 128, (4, 4), 13),
        fusion.LateFusion(130, 128, (4, 4), 13))]  # fmt: skip
    assert max(sizes) < 1.15 * min(sizes)


def test_a_bag_of_words_cannot_tell_an_order():
    bag = fusion.BagTower(20, 8)
    rows = torch.tensor([[BOS, 5, 6, 7, EOS, PAD], [BOS, 7, 6, 5, EOS, PAD], [BOS, 7, 6, 6, EOS, PAD]])
    first, second, third = bag(rows)
    agree(first, second)
    assert not torch.allclose(first, third)
    agree(bag(rows[:1, 1:4])[0], first)  # neither the marks around a caption nor padding count
    model = DualEncoder(fusion.PooledMap(4, 12), TextTower(20, 6, 8, 1, 1), 4)
    assert model.encode_pictures(torch.randn(3, 4, 12)).shape == (3, 4)


def test_a_tower_and_a_joint_model_train_as_one():
    tower = fusion.MapTower(2)
    model = fusion.FromPixels(tower, fusion.JointTransformer(30, 16, (4, 4), 6, 8, 1, 1))
    images, tokens = torch.randn(3, 3, 32, 32), torch.randint(4, 30, (3, 2, 5))
    objectives.answer_loss(model(images, tokens), tokens).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in tower.parameters())
    tower.standardise(images)
    standard = tower.eval()(images).detach()
    agree(standard.mean((0, 1)), torch.zeros(16))
    assert standard.std().item() == pytest.approx(1, abs=1e-3) and tower.body.training is False
    tower.standardise(images)
    agree(tower(images), standard)  # measured once more, on the same pictures


def test_places_of_one_row_share_its_vector_in_a_grid_that_is_no_square():
    places = fusion.Places((2, 3), 5)
    moved = places(torch.zeros(1, 6, 5))[0].unflatten(0, (2, 3))  # row by row
    for r in range(2):
        for c in range(3):
            agree(moved[r, c], places.row[r, 0] + places.column[c])


# Losses and scores


def test_answer_loss_and_z_loss_in_numbers():
    logits = torch.tensor([[[2.0, 0, 0, -1], [0, 1, 3, 0], [1, 1, 1, 1], [5, 5, 5, 5]]])
    labels = torch.tensor([[objectives.IGNORED, 0, 2, 1]])
    assert objectives.answer_loss(logits, labels).item() == pytest.approx(0.625090, abs=1e-6)
    assert objectives.z_loss(logits, labels).item() == pytest.approx(7.064697, abs=1e-5)
    assert objectives.answer_loss(logits + 10, labels).item() == pytest.approx(0.625090, abs=1e-5)
    assert objectives.z_loss(logits + 10, labels).item() == pytest.approx(159.566500, abs=1e-3)
    fewer = torch.tensor([[objectives.IGNORED, 0, objectives.IGNORED, 1]])
    assert objectives.answer_loss(logits, fewer).item() == pytest.approx((0.277978 + 1.386294) / 2, abs=1e-5)
    assert objectives.text_log_probability(logits, labels).item() == pytest.approx(-3 * 0.625090, abs=1e-5)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_likelihoods_do_not_depend_on_how_many_pictures_are_read_at_once(batch):
    generator = torch.Generator().manual_seed(2)
    seen, tokens = torch.randn(5, 4, 12, generator=generator), torch.randint(4, 30, (5, 3, 6), generator=generator)
    labels = tokens.where(torch.arange(6) > 1, objectives.IGNORED)
    model = joint()
    found = recipes.text_likelihoods(model, seen, tokens, labels, batch=batch)
    assert found.shape == (5, 3) and not found.requires_grad
    agree(found, objectives.text_log_probability(model(seen, tokens), labels).detach())
    moved = recipes.text_likelihoods(model, seen.roll(1, 0), tokens, labels)
    assert (found - moved).abs().min() > 1e-6, "each text is asked for its own picture"


def test_ignored_positions_get_no_gradient():
    logits = torch.randn(2, 5, 7, requires_grad=True)
    labels = torch.full((2, 5), objectives.IGNORED)
    labels[0, 3], labels[1, 4] = 2, 6
    (objectives.answer_loss(logits, labels) + objectives.z_loss(logits, labels)).backward()
    assert (logits.grad.abs().sum(2) > 0).nonzero().tolist() == [[0, 2], [1, 3]]


def test_losses_refuse_what_cannot_be_learned():
    with pytest.raises(SettingError, match="No position"):
        objectives.answer_loss(torch.randn(1, 3, 4), torch.full((1, 3), objectives.IGNORED))
    with pytest.raises(SettingError, match=r"\(\.\.\., T, V\)"):
        objectives.answer_loss(torch.randn(1, 3, 4), torch.zeros(1, 2, dtype=torch.long))
    with pytest.raises(SettingError, match="two pictures"):
        objectives.winoground(torch.randn(3, 2))


def test_winoground_scores_pairs():
    scores = torch.tensor([
        [[0.9, 0.2], [0.3, 0.8]], [[0.9, 0.8], [0.3, 0.5]], [[0.9, 0.2], [0.95, 0.97]], [[0.5, 0.5], [0.5, 0.5]],
    ])  # fmt: skip
    found = objectives.winoground(scores)
    assert found["text"].tolist() == [True, True, True, False]
    assert found["image"].tolist() == [True, False, False, False]
    assert found["group"].tolist() == [True, False, False, False]
    chance = objectives.winoground(torch.rand(40_000, 2, 2, generator=torch.Generator().manual_seed(0)))
    shares = [chance[name].float().mean().item() for name in ("text", "image", "group")]
    assert shares == pytest.approx([0.25, 0.25, 1 / 6], abs=0.01)


# Scenes and texts


def test_lists_say_what_is_there_from_left_to_right(told):
    scenes = told[0]
    for i, text in enumerate(language.listed(scenes)):
        row = sorted(language.things(scenes)[i], key=lambda thing: thing.x)
        assert text == ", ".join(f"{thing.colour} {thing.shape}" for thing in row)
    shuffled = language.listed(scenes, shuffled=True)
    assert all(
        sorted(a.split(", ")) == sorted(b.split(", ")) for a, b in zip(shuffled, language.listed(scenes), strict=True)
    )
    assert shuffled != language.listed(scenes)


@in_float32  # scenes are drawn in it
def test_exchanged_pictures_differ_in_two_colours_only():
    images, texts = language.exchanged(recipes.FUSION_WORLD, 70, seed=3)
    assert images.shape == (70, 2, 3, 32, 32) and len(texts) == 70
    for pair, (first, second) in zip(images, texts, strict=True):
        assert sorted(first.replace(",", "").split()) == sorted(second.replace(",", "").split())
        assert sum(a != b for a, b in zip(first.split(", "), second.split(", "), strict=True)) == 2
        same = (pair[0] == pair[1]).all(0).float().mean().item()
        assert 0.6 < same < 0.99  # the ground and one object
    with pytest.raises(SettingError, match="two objects"):
        language.exchanged(lessons.data.scenes.WORLDS["big"], 4)


def test_labels_are_the_answer_and_its_end(told):
    tokenizer = told[2]
    tokens, labels = recipes.dialogue(
        tokenizer, ["what colour is the ring?", "there is"], ["red", "red ring, blue star"]
    )
    for row, answer in zip(range(2), ("red", "red ring, blue star"), strict=True):
        kept = labels[row][labels[row] != objectives.IGNORED]
        assert kept[-1] == EOS and tokenizer.decode(kept) == answer
        assert torch.equal(kept, tokens[row][labels[row] != objectives.IGNORED])


def test_dialogues_hold_every_text_once(told):
    scenes, dialogues, tokenizer = told
    texts = recipes.asked_about(scenes, 8)
    assert dialogues.tokens.shape == (40, 9, 13) and len(dialogues[:5]) == 5
    for i in range(40):
        kinds = [recipes.TEXTS[k] for k in dialogues.kinds[i].tolist() if k >= 0]
        assert kinds == [kind for kind, _, _ in texts[i]] and kinds[-1] == "list"
        for s, (_, prompt, answer) in enumerate(texts[i]):
            assert tokenizer.decode(dialogues.tokens[i, s]) == f"{prompt} {answer}"
    assert (dialogues.tokens[dialogues.kinds < 0] == PAD).all()
    assert not (dialogues.tokens[..., -1] > EOS).any(), "a text was cut"


def test_a_text_is_right_when_every_labelled_token_is(told):
    _, dialogues, tokenizer = told

    class Oracle(nn.Module):
        def forward(self, seen, tokens):
            following = tokens.roll(-1, -1)
            wrong = torch.zeros_like(following)
            wrong[:, 0, 9] = 1
            return F.one_hot((following + wrong) % len(tokenizer), len(tokenizer)).float()

    right = recipes.answered(Oracle(), None, dialogues, batch=7)
    assert torch.equal(right[:, 1:], dialogues.kinds[:, 1:] >= 0)
    assert recipes.by_kind(right, dialogues)["list"] == 1.0


def test_colour_claims_ask_about_the_two_that_changed(told):
    tokens, labels = recipes.colour_claims(
        told[2], [("red ring, blue star, green cross", "red ring, green star, blue cross")]
    )
    texts = [told[2].decode(row) for row in tokens[0]]
    assert texts == [
        "what colour is the star? blue", "what colour is the cross? green",
        "what colour is the star? green", "what colour is the cross? blue",
    ]  # fmt: skip
    assert (labels[0] != objectives.IGNORED).sum(1).tolist() == [2, 2, 2, 2]


def test_pairs_are_scored_by_towers_and_by_one_sequence(told):
    tokenizer = told[2]
    pairs = [("red ring, blue star", "blue ring, red star"), ("red cross, green ring", "green cross, red ring")]
    seen = torch.randn(4, 16, 6)
    towers = DualEncoder(fusion.PooledMap(16, 6), fusion.BagTower(len(tokenizer), 8), 4)
    scores = recipes.match_scores(towers, seen, tokenizer, pairs)
    assert scores.shape == (2, 2, 2) and torch.equal(scores[..., 0], scores[..., 1])  # a bag: ties
    assert not objectives.winoground(scores)["group"].any()
    model = fusion.JointTransformer(len(tokenizer), 6, (4, 4), 13, 12, 2, 1)
    scores = recipes.match_scores(model, seen, tokenizer, pairs)
    odds = 0.0
    for sign, answer in ((1, "yes"), (-1, "no")):
        tokens, labels = recipes.texts_of_pairs(tokenizer, pairs, answer)
        assert tokenizer.decode(tokens[0, 1]) == f"blue ring, red star? {answer}"
        one = model(seen[3:4], tokens[1:, :1])
        odds += sign * objectives.text_log_probability(one, labels[1:, :1]).item()
    assert scores[1, 1, 0].item() == pytest.approx(odds, abs=1e-3)


def test_attention_is_counted_on_the_named_object(told):
    scenes, dialogues, tokenizer = told
    asked = recipes.pointed(scenes, dialogues, tokenizer, (4, 4))
    model = fusion.JointTransformer(len(tokenizer), 6, (4, 4), 13, 12, 2, 1)
    noun, mark = recipes.looked_at(model, torch.randn(40, 16, 6), dialogues, asked, batch=9)
    assert noun.shape == mark.shape == (len(asked), 2) and ((noun >= 0) & (noun <= 1)).all()
    for k in range(len(asked)):
        words = dialogues.tokens[asked.picture[k], asked.text[k]]
        assert tokenizer.decode(words[asked.noun[k] : asked.noun[k] + 2]).endswith("?")
    assert (asked.named <= asked.things + 1e-6).all() and (asked.named.sum(1) > 0).all()


@in_float32  # scenes are drawn in it
def test_the_naming_tower_is_frozen_and_sees_a_map(monkeypatch):
    monkeypatch.setenv("LESSONS_SCALE", "smoke")
    monkeypatch.setenv("LESSONS_DATA", "scenes")
    run = lessons.start(11)
    tower = recipes.naming_tower(run)
    assert not tower.training and not any(p.requires_grad for p in tower.parameters())
    images = render(recipes.FUSION_WORLD, 6, seed=1).images
    seen = recipes.see(tower, images, batch=4)
    assert seen.shape == (6, 16, tower.out_features)
    agree(seen, recipes.see(recipes.naming_tower(run), images))


def test_numbers_go_through_all_once_per_pass():
    stream = recipes.numbers(10, 4, seed=1)
    first = torch.cat([next(stream), next(stream)])
    assert len(set(first.tolist())) == 8 and torch.equal(first[:4], next(recipes.numbers(10, 4, seed=1)))
    with pytest.raises(SettingError, match="10 to draw from"):
        next(recipes.numbers(10, 11))


def test_the_block_without_qk_norm_is_that_of_lesson_02():
    ours, plain = fusion.FusionBlock(12, 3), Block(12, 3)
    plain.load_state_dict(ours.state_dict())
    x = torch.randn(2, 5, 12)
    agree(ours(x, causal_mask(5)), plain(x, causal_mask(5)))


# Figures


def test_a_table_shows_each_share_and_leaves_gaps():
    axis = figures.table({"a": {"x": 0.5, "y": 1.0}, "b": {"x": 0.0}}, title="T", controls=["b"])
    assert sorted(text.get_text() for text in axis.texts) == ["0", "100", "50"]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a", "b"]
    assert axis.get_yticklabels()[1].get_color() == figures.GREY


def test_a_row_of_tokens_and_a_page_of_steps_draw_all_they_are_given():
    axes = figures.token_row(torch.rand(3, 3, 4, 4), ["what", "?", "red"], answer=1, title="T")
    assert len(axes) == 6 and [axis.texts[0].get_text() for axis in axes[3:]] == ["what", "?", "red"]
    colours = [axis.patches[0].get_facecolor() for axis in axes[3:]]
    assert colours[0] == colours[1] != colours[2]
    axis = figures.steps([("01", "One", "adds this", "found that"), ("02", "Two", "adds more", "")], title="Path")
    shown = [text.get_text() for text in axis.texts]
    assert all(text in shown for text in ("01", "One", "adds this", "found that", "02", "Two", "adds more"))

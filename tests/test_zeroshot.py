"""Lesson 10: the classifier written in words beside open_clip's, its probes beside scikit-learn, labels in pictures,
and real CLIP weights that are left out without a network."""

import math
import sys
import types

import pytest
import torch
import torch.nn.functional as F
from parity import agree, in_float32, in_float64
from torch import nn

from lessons import figures, probes, recipes, training
from lessons.compat import import_torchvision
from lessons.data import hub, lettering
from lessons.data.tokenizer import Tokenizer
from lessons.errors import SettingError
from lessons.nets.clip import ConvTower, DualEncoder, TextTower
from lessons.nets.zeroshot import (
    PictureClassifier,
    ZeroShotHead,
    interpolated,
    render_prompts,
    zero_shot_weights,
)

pytestmark = in_float64

NAMES = ("red ring", "blue star", "green cross", "turquoise moon", "red star")
TEMPLATES = ("a {}", "there is a {} and another {}", "{}")


@pytest.fixture(scope="module")
def towers():
    """A small CLIP with weights of all sizes, and its tokenizer."""
    torch.manual_seed(0)
    tokenizer = Tokenizer.train([f"a {name}" for name in NAMES] * 3, 80, 24)
    text = TextTower(len(tokenizer), 24, width=24, depth=2, heads=2)
    model = DualEncoder(ConvTower(4), text, out=8).eval()
    for parameter in model.parameters():
        parameter.data.mul_(1.3).add_(0.01 * torch.randn_like(parameter))
    return model.double().requires_grad_(False), tokenizer


def reader(towers):
    model, tokenizer = towers
    return lambda sentences: model.encode_texts(tokenizer(sentences))


def pictures(n=6, size=32, seed=1):
    return torch.randint(0, 256, (n, 3, size, size), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def to_input(images):
    return training.to_input(images).double()


# The classifier


def test_prompts_stand_name_by_name():
    assert render_prompts(("cat", "dog"), ("a {}", "{} and {}")) == ["a cat", "cat and cat", "a dog", "dog and dog"]


@pytest.mark.parametrize(
    ("names", "templates"), [("cat", ["a {}"]), (["cat"], "a {}"), ([], ["a {}"]), (["cat"], []), (["cat"], ["a cat"])]
)
def test_prompts_that_cannot_be_made(names, templates):
    with pytest.raises(SettingError):
        render_prompts(names, templates)


def test_each_prompt_counts_alike_whatever_its_length():
    prompts = torch.tensor([[[10.0, 0.0], [0.0, 1.0]], [[1.0, 0.2], [1.0, 0.2]]])
    weights = zero_shot_weights(prompts)
    assert torch.allclose(weights[0], torch.tensor([0.7071, 0.7071]), atol=1e-4)
    assert ZeroShotHead(weights).predict(torch.tensor([[0.6, 0.8]])).item() == 0
    wrong = F.normalize(prompts.mean(1), dim=1)
    assert torch.allclose(wrong[0], torch.tensor([0.9950, 0.0995]), atol=1e-4)
    assert ZeroShotHead(wrong).predict(torch.tensor([[0.6, 0.8]])).item() == 1


@pytest.mark.parametrize("shape", [(3, 4), (2, 0, 4), (4,)])
def test_weights_need_classes_prompts_and_a_width(shape):
    with pytest.raises(SettingError, match="K, P, D"):
        zero_shot_weights(torch.zeros(shape))


@pytest.mark.parametrize("per_batch", [None, 2])
@pytest.mark.parametrize("templates", [TEMPLATES, TEMPLATES[:1]])
def test_weights_equal_open_clips_on_the_same_towers(towers, templates, per_batch):
    import_torchvision()
    import open_clip

    class Adapter:
        def encode_text(self, tokens, normalize):
            vectors = towers[0].text_projection(towers[0].texts(tokens))
            return F.normalize(vectors, dim=-1) if normalize else vectors

    peer = open_clip.build_zero_shot_classifier(
        Adapter(), towers[1], NAMES, [t.replace("{}", "{0}") for t in templates], num_classes_per_batch=per_batch
    )
    ours = ZeroShotHead.from_names(reader(towers), NAMES, templates)
    agree(ours.weight.data, peer.T)
    u = towers[0].encode_pictures(to_input(pictures()))
    agree(ours(u).data, 100 * u @ peer)


def test_it_is_a_linear_layer_and_the_scale_changes_no_answer(towers):
    head = ZeroShotHead.from_names(reader(towers), NAMES, TEMPLATES, scale=7.0)
    layer = nn.Linear(8, len(NAMES), bias=False)
    layer.weight.data = 7.0 * head.weight
    u = F.normalize(torch.randn(9, 8, generator=torch.Generator().manual_seed(3)), dim=1)
    agree(head(u), layer(u))
    agree(head(5 * u), head(u), msg="vectors are normalised here")
    assert torch.equal(head.predict(u), ZeroShotHead(head.weight, 0.1).predict(u))
    assert head.accuracy(u, head.predict(u)) == 1.0
    assert not head.weight.requires_grad


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan])
def test_a_scale_that_is_none(scale):
    with pytest.raises(SettingError):
        ZeroShotHead(torch.eye(3), scale)


def test_a_picture_classifier_starts_as_zero_shot_and_leaves_the_model_alone(towers):
    model, _ = towers
    head = ZeroShotHead.from_names(reader(towers), NAMES, TEMPLATES, 5.0)
    net = PictureClassifier(model, head).eval()
    images = to_input(pictures())
    agree(net(images).data, head(model.encode_pictures(images)))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    net.train()(images).square().sum().backward()
    torch.optim.SGD(net.parameters(), lr=0.1).step()
    assert all(parameter.grad is not None for parameter in net.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not torch.equal(net.head.weight, head.weight)


def test_interpolated_weights_meet_both_ends_and_the_middle(towers):
    head = ZeroShotHead.from_names(reader(towers), NAMES)
    ends = [PictureClassifier(towers[0], head) for _ in range(2)]
    for parameter in ends[1].parameters():
        parameter.data.add_(torch.randn_like(parameter))
    ends[1].train()(to_input(pictures()))  # moves the batch-norm statistics
    states = [net.state_dict() for net in ends]
    for amount in (0.0, 0.3, 1.0):
        found = interpolated(*ends, amount).state_dict()
        for name, value in found.items():
            want = (1 - amount) * states[0][name] + amount * states[1][name]
            assert not value.is_floating_point() or torch.allclose(value, want, rtol=1e-9)
    with pytest.raises(SettingError, match="amount"):
        interpolated(*ends, 1.2)
    with pytest.raises(SettingError, match="architecture"):
        interpolated(nn.Linear(2, 3), nn.Linear(3, 2), 0.5)


# Few shots, crossing, calibration


def clusters(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 4
    return torch.randn(4, 10, generator=torch.Generator().manual_seed(9))[labels] + 1.3 * torch.randn(
        n, 10, generator=generator
    ), labels


def test_shots_are_k_of_each_class_and_depend_on_the_seed():
    labels = torch.tensor([0, 1, 2, 1, 0, 2, 2, 1, 0, 0])
    chosen = probes.draw_shots(labels, 3, seed=1)
    assert labels[chosen].tolist() == [0] * 3 + [1] * 3 + [2] * 3 and len(set(chosen.tolist())) == 9
    assert torch.equal(chosen, probes.draw_shots(labels, 3, seed=1))
    assert any(not torch.equal(chosen, probes.draw_shots(labels, 3, seed=seed)) for seed in (2, 3))
    for k in (0, 4):
        with pytest.raises(SettingError, match="rarest of 3 classes has 3"):
            probes.draw_shots(labels, k)


def test_few_shot_probe_equals_scikit_learn_and_chooses_on_val():
    from sklearn.linear_model import LogisticRegression

    parts = [value for seed, n in ((0, 200), (1, 80), (2, 120)) for value in clusters(n, seed)]
    for k, seed in ((1, 0), (5, 2)):
        chosen = probes.draw_shots(parts[1], k, seed)
        unit = [F.normalize(x, dim=1).numpy() for x in (parts[0][chosen], parts[2], parts[4])]
        fits = [LogisticRegression(C=c, max_iter=300).fit(unit[0], parts[1][chosen].numpy()) for c in (0.01, 10.0)]
        best = max(fits, key=lambda fit: fit.score(unit[1], parts[3].numpy()))
        want = best.score(unit[2], parts[5].numpy())
        assert probes.few_shot_probe(*parts, k, seed=seed, strengths=(0.01, 10.0)) == pytest.approx(want)


def test_few_shot_probe_ignores_lengths_and_warns_of_nothing(recwarn):
    parts = [value for seed in (0, 1, 2) for value in clusters(60, seed)]
    longer = [part * (torch.arange(1, 61)[:, None] if part.ndim == 2 else 1) for part in parts]
    assert probes.few_shot_probe(*parts, 1) == probes.few_shot_probe(*longer, 1)
    assert not recwarn.list


@pytest.mark.parametrize(
    ("level", "want"), [(0.5, 2.0), (0.6, 2 * math.sqrt(2)), (0.2, 1.0), (0.3, 1.0), (0.9, math.inf), (0.8, 8.0)]
)
def test_crossing_is_linear_in_the_logarithm_of_k(level, want):
    assert probes.crossing_point((1, 2, 4, 8), (0.3, 0.5, 0.7, 0.8), level) == pytest.approx(want)


def test_crossing_takes_the_first_of_several():
    assert probes.crossing_point((1, 2, 4, 8), (0.1, 0.5, 0.3, 0.9), 0.5) == pytest.approx(2.0)


@pytest.mark.parametrize(("shots", "accuracies"), [((), ()), ((1, 2), (0.5,)), ((2, 1), (0.1, 0.2)), ((1, 1), (0, 1))])
def test_crossing_of_what_is_no_curve(shots, accuracies):
    with pytest.raises(SettingError):
        probes.crossing_point(shots, accuracies, 0.5)


def test_calibration_error_by_hand():
    # Two predictions with confidence .9 (one right), two with .6 (both right), one quite sure and right.
    table = torch.tensor([[0.9, 0.1], [0.1, 0.9], [0.6, 0.4], [0.4, 0.6], [1.0, 0.0]])
    labels = torch.tensor([0, 0, 0, 1, 0])
    assert probes.calibration_error(table, labels, 5) == pytest.approx(
        3 / 5 * abs(2.8 / 3 - 2 / 3) + 2 / 5 * 0.4, abs=1e-6
    )
    assert probes.calibration_error(table, labels, 1) == pytest.approx(abs(4.0 / 5 - 4 / 5), abs=1e-6)
    assert probes.calibration_error(table, labels, 10) == pytest.approx(2 / 5 * 0.4 + 2 / 5 * 0.4, abs=1e-6)
    with pytest.raises(SettingError):
        probes.calibration_error(table, labels, 0)


@pytest.mark.parametrize("bins", [10, 13, 15, 19, 21, 23, 25, 26, 27])
def test_a_confidence_on_an_edge_belongs_below_it(bins):
    for k in range(bins // 2 + 2, bins + 1):
        edge_and_middle = [k / bins, (k - 0.5) / bins]  # of one interval
        confidence = torch.tensor(edge_and_middle, dtype=torch.float32)
        table = torch.stack([confidence, 1 - confidence], 1)
        error = probes.calibration_error(table, torch.tensor([0, 1]), bins)  # one is right, one is wrong
        assert error == pytest.approx(abs(confidence.sum().item() - 1) / 2, abs=1e-6), k


# Words in pictures


def test_a_label_can_be_read():
    dots = lettering.label("it")
    rows = ["".join(".#"[int(not dot)] for dot in row) for row in dots]
    assert rows == [".........", ".###.###.", "..#...#..", "..#...#..", "..#...#..", ".###..#..", "........."]


def test_writing_leaves_the_rest_of_the_picture_and_its_argument():
    images = torch.full((4, 3, 32, 32), 7, dtype=torch.uint8)
    words = ["ring", "", "triangle", "Star"]
    out = lettering.write(images, words, [True, True, False, False], seed=3)
    assert (images == 7).all()
    assert (out[1] == 7).all() and (out[0, :, 7:] == 7).all() and (out[2, :, :25] == 7).all()
    for picture, rows, word in ((out[0], slice(0, 7), "ring"), (out[3], slice(25, 32), "star")):
        columns = (picture[0] != 7).any(0).nonzero()[:, 0]
        assert torch.equal(picture[0, rows, columns] == 255, lettering.label(word))
    assert torch.equal(out, lettering.write(images, words, torch.tensor([True, True, False, False]), seed=3))


def test_larger_pictures_get_larger_labels():
    out = lettering.write(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), ["moon"], [True])
    assert int((out[0, 0] == 255).any(1).sum()) == 14


@pytest.mark.parametrize("word", ["two words", "7", "é"])
def test_signs_that_cannot_be_written(word):
    with pytest.raises(SettingError, match="letters a to z"):
        lettering.write(pictures(1), [word], [True])


def test_as_many_words_as_pictures():
    with pytest.raises(SettingError, match="as many"):
        lettering.write(pictures(2), ["ring"], [True, False])


@in_float32  # pictures are drawn in it
def test_signs_hold_a_word_and_nothing_else():
    made = lettering.signs(["ring", "star", ""], seed=5)
    bare = lettering.signs(["", "", ""], seed=5)
    assert made.shape == (3, 3, 32, 32) and made.dtype == torch.uint8
    changed = (made != bare).any(1)
    assert changed[0].any() and not changed[2].any()
    assert all(not changed[i, 7:25].any() for i in range(3))
    assert torch.equal(made, lettering.signs(["ring", "star", ""], seed=5))


# A plot of points


def test_dots_place_every_value_and_explain_every_name():
    rows = {"noise": {"zero-shot": 0.4, "chance": 0.1}, "grey": {"zero-shot": 0.5, "probe": 0.7, "chance": 0.1}}
    axis = figures.dots(rows, title="A title", errors={"grey": {"probe": 0.05}})
    assert [label.get_text() for label in axis.get_yticklabels()] == ["noise", "grey"]
    assert {text.get_text() for text in axis.get_legend().get_texts()} == {"zero-shot", "probe", "chance"}
    drawn = sorted(tuple(point) for line in axis.lines for point in zip(*line.get_data(), strict=True))
    assert {(0.4, 0), (0.5, 1), (0.7, 1), (0.1, 0), (0.1, 1)} <= {(float(x), int(y)) for x, y in drawn}
    figures.pyplot().close("all")


# Real CLIP weights


def test_real_clip_is_skipped_with_one_line_without_open_clip(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert recipes.real_clip(fetch=True) is None
    assert capsys.readouterr().out.splitlines() == [
        "Real CLIP weights: skipped, because open_clip is not installed (pip install open_clip_torch)."
    ]


def test_real_clip_asks_nobody_unless_told_to(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda repo, file: None)
    monkeypatch.setattr(hub, "unreachable", lambda *args, **more: pytest.fail("the hub was asked"))
    assert recipes.real_clip() is None
    assert capsys.readouterr().out.count("\n") == 1


def test_real_clip_is_skipped_when_the_hub_is_silent(monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda repo, file: None)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert recipes.real_clip(fetch=True) is None
    assert capsys.readouterr().out == "Real CLIP weights: skipped, because switched off by HF_HUB_OFFLINE.\n"


def test_real_clip_survives_a_broken_download(monkeypatch, capsys):
    def broken(repo, file):
        raise OSError("half of it came\nand then nothing")

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda repo, file: None)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", broken)
    monkeypatch.setattr(hub, "unreachable", lambda *args, **more: None)
    assert recipes.real_clip(fetch=True) is None
    assert capsys.readouterr().out == "Real CLIP weights: skipped, because OSError: half of it came.\n"


@in_float32  # pictures come in it
def test_real_clip_reads_pictures_of_any_size_and_sentences(monkeypatch):
    """A stand-in for open_clip with its interface: the adapter resizes, standardises, cuts into parts, normalises."""

    class Peer(nn.Module):
        def __init__(self):
            super().__init__()
            self.visual = types.SimpleNamespace(image_size=(48, 48))
            self.logit_scale = torch.tensor(math.log(50.0))

        def encode_image(self, images, normalize):
            assert images.shape[1:] == (3, 48, 48) and normalize
            return F.normalize(images.mean((2, 3)), dim=1)

        def encode_text(self, tokens, normalize):
            return F.normalize(tokens.float(), dim=1)

    asked = []
    fake = types.ModuleType("open_clip")
    fake.create_model = lambda name, pretrained, device: asked.append((name, pretrained)) or Peer()
    fake.get_tokenizer = lambda name: lambda texts: torch.tensor([[len(text), 1, 2] for text in texts])
    monkeypatch.setitem(sys.modules, "open_clip", fake)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda repo, file: "/somewhere/weights")
    see, read, scale = recipes.real_clip()
    assert scale == pytest.approx(50.0) and asked == [("ViT-B-32-quickgelu", "/somewhere/weights")]
    flat = torch.full((150, 3, 32, 32), 128, dtype=torch.uint8)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])
    deviation = torch.tensor([0.26862954, 0.26130258, 0.27577711])
    want = F.normalize((128 / 255 - mean) / deviation, dim=0)
    assert torch.allclose(see(flat), want.expand(150, 3), atol=1e-4)
    assert read(["a"] * 450).shape == (450, 3)

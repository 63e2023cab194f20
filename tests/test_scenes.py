"""The built-in scenes: what is said of a picture must be true of its pixels, and stay so wherever and however it is
drawn."""

import re
from collections import Counter, defaultdict
from dataclasses import replace

import pytest
import torch

from lessons.data import language, sounds
from lessons.data.drawing import COLOURS, PATTERNS, RGB, SHAPES, uniform
from lessons.data.scenes import WORLDS, classes, render
from lessons.errors import SettingError

ALL = sorted(WORLDS)


@pytest.fixture(scope="module")
def drawn():
    return {name: render(name, 300, seed=5) for name in ALL}


@pytest.mark.parametrize("name", ALL)
def test_picture_depends_on_seed_and_number_only(name, drawn):
    part = render(name, 5, seed=5, first=126)
    assert torch.equal(part.images, drawn[name].images[126:131])
    assert torch.equal(part.instances, drawn[name].instances[126:131])
    large = render(name, 5, seed=5, first=126, size=64)
    for key in ("present", "shape", "colour", "pattern", "x", "y", "size", "distance", "tilt"):
        assert torch.equal(getattr(part, key), getattr(large, key))
    assert large.images.shape == (5, 3, 64, 64) and large.images.dtype == torch.uint8
    assert not torch.equal(part.images, render(name, 5, seed=6, first=126).images)


def test_random_numbers_are_uniform_and_unrelated():
    u = uniform(3, torch.arange(20_000), "test", 4)
    assert 0 <= u.min() and u.max() < 1
    assert (u.mean(0) - 0.5).abs().max() < 0.01 and (u.var(0) - 1 / 12).abs().max() < 0.002
    assert (torch.corrcoef(u.T) - torch.eye(4)).abs().max() < 0.03
    assert not torch.equal(u, uniform(3, torch.arange(20_000), "other", 4))
    assert len(torch.unique(u[:, 0])) > 19_900


@pytest.mark.parametrize("name", ALL)
def test_every_object_can_be_seen(name, drawn):
    s = drawn[name]
    for seen in (s, render(name, 100, seed=5, size=64)):
        assert seen.visible[seen.present].min() >= 0.25
        for k in range(seen.present.shape[1]):
            pixels = (seen.instances == k + 1).sum((1, 2))
            assert (pixels[seen.present[:, k]] > 0).all() and (pixels[~seen.present[:, k]] == 0).all()
    low, high = s.world.objects
    count = s.present.sum(1)
    assert count.min() >= 1 and count.max() <= high
    if name in ("things", "big", "mosaic", "shortcut", "pairs", "columns", "far_pair"):
        assert count.min() >= low
    assert torch.equal(s.masks(), s.instances > 0)


@pytest.mark.parametrize("name", ["big", "pairs", "columns", "far_pair", "crowd"])
def test_masks_lie_on_the_colours_they_name(name):
    s = render(replace(WORLDS[name], patterns=("plain",)), 200, size=32)
    right = total = 0
    for k in range(s.present.shape[1]):
        mask = (s.instances == k + 1)[:, None]
        mean = (s.images * mask).sum((2, 3)) / mask.sum((2, 3)).clamp(min=1) / 255
        named = torch.cdist(mean, RGB).argmin(1)
        right += int((named == s.colour[:, k])[s.present[:, k]].sum())
        total += int(s.present[:, k].sum())
    assert right / total > 0.99


def test_objects_are_where_the_table_says():
    s = render(replace(WORLDS["big"], shapes=("circle",), x=(-0.3, 0.3), y=(-0.3, 0.3)), 50, size=64)
    steps = (torch.arange(64) + 0.5) / 32 - 1
    mask = s.masks().float()
    x = (mask * steps).sum((1, 2)) / mask.sum((1, 2))
    y = (mask * steps[:, None]).sum((1, 2)) / mask.sum((1, 2))
    assert (x - s.x[:, 0]).abs().max() < 0.02 and (y - s.y[:, 0]).abs().max() < 0.02
    area = mask.mean((1, 2)) * 4
    assert ((area / (torch.pi * (0.86 * s.size[:, 0]) ** 2)) - 1).abs().max() < 0.03


def test_main_object_is_the_largest(drawn):
    s = drawn["things"]
    size = s.size.where(s.present, torch.tensor(0.0))
    largest = size.gather(1, s.main[:, None])
    assert torch.equal(largest[:, 0], size.max(1).values)
    others = size.scatter(1, s.main[:, None], 0.0).max(1).values
    assert (others <= 0.751 * largest[:, 0]).all()
    assert torch.equal(s.labels(), s.shape[torch.arange(300), s.main])
    assert len(s.labels().unique()) == 10


@pytest.mark.parametrize("name", ["pairs", "crowd"])
def test_an_object_that_was_left_out_is_never_the_main_one(name, drawn):
    s = drawn[name]
    assert (s.size.argmax(1) != s.main).any(), "some that were left out would have been the largest"
    assert s.present.gather(1, s.main[:, None]).all()


def test_depth_of_a_landscape(drawn):
    s = drawn["landscape"]
    depth = s.depth
    assert depth.shape == s.instances.shape and depth.min() >= 0 and depth.max() <= 1
    top = depth[:, 0][~s.masks()[:, 0]]
    assert (top == 1).all()  # the sky
    ground = depth.masked_fill(s.masks(), 2)
    down = torch.where(s.masks()[:, 1:] | s.masks()[:, :-1], ground[:, :-1], ground[:, 1:])
    assert (down <= ground[:, :-1] + 1e-6).all()  # comes nearer down the picture
    for k in range(s.present.shape[1]):
        here = s.instances == k + 1
        expected = s.distance[:, k, None, None].expand_as(depth)
        assert torch.equal(depth[here], expected[here])
    near, far, both = s.distance[:, 0], s.distance[:, 1], s.present[:, 1]
    assert (near <= far)[both].all()  # listed from near to far
    assert (drawn["big"].depth[~drawn["big"].masks()] == 1).all()


def test_nearer_objects_hide_farther_ones(drawn):
    s = render(WORLDS["landscape"], 400, seed=1)
    hidden = (s.visible < 0.95) & s.present
    assert hidden.float().sum() > 40
    assert (s.visible[:, 0] == 1).all()  # nothing is in front of the nearest


def test_layouts(drawn):
    s = drawn["columns"]
    assert s.present.all()
    assert ((s.x.sort(1).values - torch.tensor([-0.64, 0, 0.64])).abs() <= 0.061).all()
    for values in (s.shape, s.colour):
        assert all(len(set(row)) == 3 for row in values.tolist())
    s = drawn["far_pair"]
    assert torch.hypot(s.x[:, 0] - s.x[:, 1], s.y[:, 0] - s.y[:, 1]).min() > 0.95
    assert 0.4 < s.labels("same_shape").float().mean() < 0.6
    assert set((drawn["crowd"].labels("count") + 1).tolist()) == {1, 2, 3, 4, 5, 6}


def test_backgrounds_of_the_two_mosaics(drawn):
    def spread(s):
        ground = (~s.masks())[:, None] * s.images.float()
        return (ground.sum((2, 3)) / (~s.masks()).sum((1, 2))[:, None]).std(0).mean()

    assert spread(drawn["mosaic"]) < 0.5 * spread(drawn["shortcut"])


def test_a_world_of_ones_own():
    world = replace(WORLDS["crowd"], held_out=(("red", "circle"), ("blue", "star")), colours=("red", "blue", "green"))
    s = render(world, 300)
    columns = (s.colour[s.present].tolist(), s.shape[s.present].tolist())
    pairs = {(COLOURS[c], SHAPES[k]) for c, k in zip(*columns, strict=True)}
    assert len(pairs) == 28 and not pairs & set(world.held_out)
    empty = replace(WORLDS["big"], clutter=0.0, noise=0.0)
    busy = replace(empty, clutter=2.0)
    roughness = [render(w, 20).images.float().diff(dim=-1).abs().mean() for w in (empty, busy)]
    assert roughness[0] < roughness[1]


def test_slices_labels_and_pictures(drawn):
    s = drawn["pairs"]
    part = s[10:20]
    assert len(part) == 10 and torch.equal(part.images, s.images[10:20])
    assert torch.equal(s[torch.tensor([3, 1])].index, torch.tensor([3, 1]))
    assert len(s[s.labels("count") == 1]) == int((s.present.sum(1) == 2).sum())
    for attribute in ("shape", "colour", "pattern", "combination", "count", "same_shape"):
        labels = s.labels(attribute)
        assert labels.dtype == torch.int64 and labels.shape == (300,)
        assert 0 <= labels.min() and labels.max() < len(classes(attribute))
    both = zip(s.labels("colour").tolist(), s.labels("shape").tolist(), strict=True)
    named = [classes("combination")[label] for label in s.labels("combination").tolist()]
    assert named == [f"{COLOURS[colour]} {SHAPES[shape]}" for colour, shape in both]
    assert torch.equal(s.to("cpu").depth, s.depth) and len(render("crowd", 3, size=20)) == 3
    pictures = s.pictures("colour")
    assert pictures.classes == COLOURS and pictures.source == "built-in scenes"
    assert torch.equal(pictures.images, s.images) and torch.equal(pictures.labels, s.labels("colour"))


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: render("cats", 4), "things"),
        (lambda: render("things", 0), "n >= 1"),
        (lambda: render("things", 4, size=4), "size >= 8"),
        (lambda: render(replace(WORLDS["big"], shapes=("blob",)), 4), "blob"),
        (lambda: render(replace(WORLDS["big"], objects=(2, 9)), 4), "between 1 and 8"),
        (lambda: render(replace(WORLDS["big"], layout="ground"), 4), "sky_ground"),
        (lambda: render(replace(WORLDS["columns"], colours=("red", "blue")), 4), "distinct"),
        (
            lambda: render(replace(WORLDS["big"], colours=("red",), shapes=("star",), held_out=(("red", "star"),)), 4),
            "held",
        ),
        (lambda: render("big", 4).labels("weight"), "attribute"),
        (lambda: render("big", 4)[2], "slice"),
        (lambda: language.captions(render("big", 4), style="poem"), "relation"),
        (lambda: language.questions(render("big", 4), kinds=("why",)), "binding"),
        (lambda: render("big", 4).sounds(rate=1000), "rate"),
    ],
)
def test_impossible_wishes_are_explained(call, says):
    with pytest.raises(SettingError, match=says):
        call()


def test_worlds_are_described():
    assert all(world.description and "\n" not in world.description for world in WORLDS.values())


# Language: an independent reader holds each sentence against the table of objects.

NOUN = rf"an? (?:(small|large) )?({'|'.join(COLOURS)}) (?:({'|'.join(PATTERNS)}) )?({'|'.join(SHAPES)})"
SIDES = {"left": lambda a, b: a.x < b.x - 0.25, "right": lambda a, b: a.x > b.x + 0.25,
         "above": lambda a, b: a.y < b.y - 0.25, "below": lambda a, b: a.y > b.y + 0.25,
         "in front": lambda a, b: a.distance < b.distance, "behind": lambda a, b: a.distance > b.distance}  # fmt: skip


def matching(objects, size, colour, pattern, shape):
    return [t for t in objects if t.colour == colour and t.shape == shape and pattern in ("", t.pattern)
            and {"": True, "small": t.size < 0.25, "large": t.size > 0.33}[size]]  # fmt: skip


def is_true(text, objects):
    nouns = re.findall(NOUN, text)
    found = [matching(objects, *noun) for noun in nouns]
    if not all(found):
        return False
    for word in SIDES:
        if re.search(rf"\b{word}\b.* an? ", text) and len(nouns) == 2:
            return any(SIDES[word](a, b) for a in found[0] for b in found[1])
    place = re.search(r"(?:at the|on the|in the|close by).*$", text)
    checks = {"left": lambda t: t.x < -0.3, "right": lambda t: t.x > 0.3, "top": lambda t: t.y < -0.3,
              "bottom": lambda t: t.y > 0.3, "distance": lambda t: t.distance > 0.4, "close": lambda t: t.distance < .2,
              "middle": lambda t: abs(t.x) < 0.3 and abs(t.y) < 0.3}  # fmt: skip
    if place:
        return any(all(checks[w](t) for w in place[0].split() if w in checks) for t in found[0])
    for k, number in enumerate(language.NUMBERS):
        if re.search(rf"\b{number} (?:things|objects)", text):
            return len(objects) == k + 1
    return len(nouns) <= len(objects)


@pytest.mark.parametrize("name", ALL)
def test_captions_are_true(name, drawn):
    s = drawn[name]
    texts, objects = s.captions(6), language.things(s)
    wrong = [(t, o) for lines, o in zip(texts, objects, strict=True) for t in lines if not is_true(t, o)]
    assert not wrong, wrong[:3]
    assert all(set(language.words(t)) <= set(language.VOCABULARY) for lines in texts for t in lines)


def test_caption_styles_and_paraphrases(drawn):
    s = drawn["columns"]
    styles = {style: [lines[0] for lines in language.captions(s, 1, style)] for style in language.STYLES}
    assert all(len(re.findall(NOUN, t)) == 2 for t in styles["relation"])
    assert all(len(re.findall(NOUN, t)) == 3 for t in styles["all"])
    assert all("three" in t for t in styles["count"])
    assert language.caption(s, 7, "relation", 3) == language.captions(s, 5, "relation")[7][3]
    assert language.captions(s[40:50], 3) == language.captions(s, 3)[40:50]
    assert len({language.caption(s, 0, "relation", k) for k in range(20)}) > 8
    assert all("striped" not in t and "small" not in t for lines in language.captions(s, 2, detail=0.0) for t in lines)


def test_swapped_captions_are_false(drawn):
    assert language.swapped("a red ring left of an orange square") == "an orange ring left of a red square"
    assert language.swapped("a red ring left of a red square") is None
    assert language.swapped("a large red striped ring") is None
    s = drawn["columns"]
    for (text,), objects in zip(language.captions(s, 1, "relation"), language.things(s), strict=True):
        other = language.swapped(text)
        assert language.swapped(other) == text and not is_true(other, objects)


def test_vocabulary_holds_exactly_the_words_used():
    used = set()
    for name in ("landscape", "crowd", "pairs", "columns"):
        s = render(name, 600)
        used |= {w for lines in s.captions(6) for t in lines for w in language.words(t)}
        used |= {w for q in s.questions(9) for t in (q.text, *q.choices) for w in language.words(t)}
    assert used == set(language.VOCABULARY) - {"seven", "eight"}
    assert list(language.VOCABULARY) == sorted(language.VOCABULARY)


# Questions


def referred(text, objects):
    """The objects that "red thing", "ring" or "red ring" fits."""
    words = text.split()
    return [t for t in objects if all(w in ("thing", t.colour, t.shape) for w in words)]


def answer(question, objects):
    text = question.text.rstrip("?")
    if m := re.match(r"what (?:colour|shape) is the thing just (left|right) of the (\w+)", text):
        (it,) = referred(m[2], objects)
        beyond = [t for t in objects if (t.x < it.x if m[1] == "left" else t.x > it.x)]
        return min(beyond, key=lambda t: abs(t.x - it.x)).colour
    if m := re.match(r"what (colour|shape) is the (.+)", text):
        (it,) = referred(m[2], objects)
        return getattr(it, m[1])
    if m := re.match(r"is the (.+) plain, striped or dotted", text):
        (it,) = referred(m[1], objects)
        return it.pattern
    if text.startswith("how many"):
        return language.NUMBERS[len(objects) - 1]
    if m := re.match(r"where is the (.+)", text):
        (it,) = referred(m[1], objects)
        return "left" if it.x < -1 / 3 else "right" if it.x > 1 / 3 else "middle"
    if m := re.match(r"is there an? (.+)", text):
        return "yes" if referred(m[1], objects) else "no"
    if m := re.match(r"is the (\w+ thing) an? (\w+)", text):
        (it,) = referred(m[1], objects)
        return "yes" if it.shape == m[2] else "no"
    m = re.match(r"is the (.+) (left of|right of|above|below|in front of|behind) the (.+)", text)
    (a,), (b,) = referred(m[1], objects), referred(m[3], objects)
    word = m[2].removesuffix(" of")
    assert SIDES[word](a, b) != SIDES[word](b, a)  # one of them, clearly
    return "yes" if SIDES[word](a, b) else "no"


@pytest.mark.parametrize("name", ["things", "landscape", "pairs", "columns", "crowd", "far_pair"])
def test_answers_are_true_and_questions_unambiguous(name, drawn):
    s = drawn[name]
    objects = language.things(s)
    asked = s.questions(9)
    assert len({q.kind for q in asked}) >= 8
    for q in asked:
        assert q.answer == answer(q, objects[q.picture]), (q, objects[q.picture])
        assert q.answer in q.choices and set(language.words(q.text)) <= set(language.VOCABULARY)
    assert len({(q.picture, q.text) for q in asked}) == len(asked)


@pytest.mark.parametrize("name", ["columns", "pairs", "crowd"])
def test_the_question_alone_does_not_give_the_answer(name):
    """A guesser who knows the most frequent answer to each wording, learnt on one half, stays near chance on the
    other."""
    s = render(name, 2000, seed=1)
    known, hits, total, chance = defaultdict(Counter), Counter(), Counter(), {}
    for q in s.questions(9):
        if q.picture < 1000:
            known[q.text][q.answer] += 1
            known[q.kind][q.answer] += 1
        else:
            guess = (known[q.text] + Counter()) or known[q.kind]
            hits[q.kind] += guess.most_common(1)[0][0] == q.answer
            total[q.kind] += 1
            chance[q.kind] = 1 / len(q.choices)
    for kind in total:
        assert hits[kind] / total[kind] < chance[kind] + 0.11, (kind, hits[kind] / total[kind])


def test_a_binding_question_names_what_is_in_the_picture(drawn):
    s = drawn["columns"]
    objects = language.things(s)
    asked = s.questions(4, kinds=("binding",))
    assert {q.answer for q in asked} == {"yes", "no"} and len(asked) > 900
    assert all(set(language.words(q.text)) & {t.shape for t in objects[q.picture]} for q in asked)


# Sounds


def test_sounds_have_the_pitch_of_the_colour():
    s = render("big", 300, seed=2)
    heard = s.sounds()
    assert heard.shape == (300, 8192) and heard.dtype == torch.float32 and heard.abs().max() <= 1
    peak = torch.fft.rfft(heard).abs().argmax(1) / 1.024
    octaves = torch.log2(peak[:, None] / torch.tensor(sounds.PITCHES)).abs()
    assert (octaves.argmin(1) == s.colour[:, 0]).float().mean() > 0.97


def test_partials_that_a_rate_cannot_carry_are_left_out():
    s = render(replace(WORLDS["big"], shapes=("square",), colours=(COLOURS[-1],)), 30, seed=2)

    def share_of_the_pitch(rate):
        power = torch.fft.rfft(s.sounds(rate=rate)).abs().square()
        hertz = torch.arange(power.shape[1]) / 1.024
        return power[:, (hertz / sounds.PITCHES[-1] - 1).abs() < 0.07].sum(1) / power.sum(1)

    assert share_of_the_pitch(8000).min() > 0.95  # the third partial, 5070 Hz, would come back as 2930 Hz
    assert share_of_the_pitch(16_000).mean() < 0.9  # where there is room for it, it sounds


def test_takes_differ_and_repeat(drawn):
    s = drawn["pairs"][:40]
    heard = s.sounds()
    assert torch.equal(heard, s.sounds())
    assert torch.allclose(heard[30:34], s[30:34].sounds(), atol=1e-6)
    assert not torch.allclose(heard, s.sounds(seed=1), atol=0.05)
    assert not torch.allclose(heard, replace(s, seed=s.seed + 1).sounds(), atol=0.05)
    assert s.sounds(rate=16_000, seconds=0.5).shape == (40, 8000)


def test_loud_mixtures_are_scaled_down_and_not_cut_off(drawn):
    assert drawn["crowd"][:60].sounds().abs().max() < 0.95  # .9 and a little noise


def test_shapes_can_be_told_apart_by_rhythm_and_timbre():
    """Nearest mean of a coarse loudness curve and the partials' strengths names the shape far above chance."""
    s = render(replace(WORLDS["big"], colours=("red", "orange", "yellow")), 600, seed=4)
    loud = s.sounds().view(600, 64, 128).square().mean(-1).sqrt()
    loud = loud / loud.norm(dim=1, keepdim=True)
    spectrum = torch.fft.rfft(s.sounds()).abs()[:, :4096].view(600, 64, 64).mean(-1)
    features = torch.cat((loud, spectrum / spectrum.norm(dim=1, keepdim=True)), 1)
    means = torch.stack([features[:400][s.labels()[:400] == k].mean(0) for k in range(10)])
    guess = torch.cdist(features[400:], means).argmin(1)
    assert (guess == s.labels()[400:]).float().mean() > 0.6

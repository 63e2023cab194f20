"""Sentences and questions about scenes, true by construction.

Every sentence is built from what is known of a picture, and says only what is clear to the eye: "left of" needs a
gap, a size is named where it is plainly small or large. Sentences depend on (seed, picture, style, paraphrase) and on
nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import SettingError
from .drawing import COLOURS, PATTERNS, SHAPES, uniform
from .scenes import Scenes, render
from .worlds import World

NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight")
STYLES = ("object", "all", "position", "relation", "count")
SMALL, LARGE = 0.24, 0.34  # radii as seen: "small" below the first, "large" above the second, no word between
MARGIN = 0.3  # how far apart two centres must be, along an axis, for left, right, above, below
SIDE, MIDDLE = 0.36, 0.24  # |x| above the first is left or right, below the second the middle, between them unnamed

# What may be said of a pair, with its opposite.
RELATIONS = {"left": ("left of", "right of"), "above": ("above", "below"), "front": ("in front of", "behind")}
LONGER = {"left of": "to the left of", "right of": "to the right of"}


class Thing(NamedTuple):
    """One object of a picture, in words and numbers."""

    shape: str
    colour: str
    pattern: str
    size: float
    x: float
    y: float
    distance: float


@dataclass(frozen=True)
class Question:
    """A question about picture number `picture` (its place in the Scenes that were asked about), and its only true
    answer."""

    picture: int
    text: str
    answer: str
    kind: str
    choices: tuple[str, ...]


def words(text: str) -> list[str]:
    """The words of a sentence, without punctuation."""
    return text.replace(",", " ").replace("?", " ").split()


def swapped(caption: str) -> str | None:
    """The same sentence with its first two colours exchanged: the smallest change that makes a true sentence about
    two objects false. None where there are no two colours, or where they are the same."""
    parts = caption.split()
    at = [k for k, word in enumerate(parts) if word.strip(",") in COLOURS][:2]
    if len(at) < 2 or parts[at[0]] == parts[at[1]]:
        return None
    parts[at[0]], parts[at[1]] = parts[at[1]], parts[at[0]]
    for k in at:
        if k and parts[k - 1] in ("a", "an"):
            parts[k - 1] = "an" if parts[k][0] in "aeiou" else "a"
    return " ".join(parts)


def things(scenes: Scenes) -> list[list[Thing]]:
    """The objects of each picture, the largest first."""
    columns = (scenes.shape, scenes.colour, scenes.pattern, scenes.size, scenes.x, scenes.y, scenes.distance)
    rows = zip(scenes.present.tolist(), *(t.tolist() for t in columns), strict=True)
    lists = []
    for present, *columns_of_one in rows:
        objects = [Thing(SHAPES[s], COLOURS[c], PATTERNS[p], *rest)
                   for here, s, c, p, *rest in zip(present, *columns_of_one, strict=True) if here]  # fmt: skip
        lists.append(sorted(objects, key=lambda t: -t.size))
    return lists


class Dice:
    """Random numbers of one picture for one purpose, used up one after the other."""

    def __init__(self, numbers: Sequence[float]):
        self.numbers = iter(numbers)

    def pick(self, options: Sequence):
        return options[int(next(self.numbers) * len(options))]

    def shuffled(self, options: Sequence) -> list:
        keys = [next(self.numbers) for _ in options]
        return [option for _, _, option in sorted(zip(keys, range(len(keys)), options, strict=True))]


def _dice(scenes: Scenes, purpose: str, count: int) -> list[Dice]:
    return [Dice(row) for row in uniform(scenes.seed, scenes.index, purpose, count).tolist()]


# Captions


def _a(phrase: str) -> str:
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def _noun(thing: Thing, dice: Dice, detail: float) -> str:
    """ "a large red striped ring": colour and shape always, size and pattern each with probability `detail`."""
    size = "small" if thing.size < SMALL else "large" if thing.size > LARGE else ""
    keep = [next(dice.numbers) < detail for _ in range(2)]
    pattern = thing.pattern if thing.pattern != "plain" else ""
    parts = (size if keep[0] else "", thing.colour, pattern if keep[1] else "", thing.shape)
    return _a(" ".join(part for part in parts if part))


def _place(thing: Thing, world: World) -> str | None:
    """ "at the top left", "on the right", "in the distance" ..., None where it is not clear."""
    across = "left" if thing.x < -SIDE else "right" if thing.x > SIDE else "" if abs(thing.x) < MIDDLE else None
    if world.layout == "ground":
        depth = "in the distance" if thing.distance > 0.42 else "close by" if thing.distance < 0.12 else ""
        side = f"on the {across}" if across else ""
        return f"{depth} {side}".strip() or None
    upright = "top" if thing.y < -SIDE else "bottom" if thing.y > SIDE else "" if abs(thing.y) < MIDDLE else None
    if across is None or upright is None:
        return None
    if not across and not upright:
        return "in the middle"
    return f"at the {upright} {across}".strip() if upright else f"on the {across}"


def _relations(a: Thing, b: Thing, world: World) -> list[tuple[str, str]]:
    """What is clearly true of a towards b, each with its opposite (true of b towards a)."""
    found = []
    if abs(a.x - b.x) >= MARGIN:
        found.append(RELATIONS["left"][:: 1 if a.x < b.x else -1])
    if world.layout == "ground":
        if abs(a.distance - b.distance) >= 0.12:
            found.append(RELATIONS["front"][:: 1 if a.distance < b.distance else -1])
    elif abs(a.y - b.y) >= MARGIN:
        found.append(RELATIONS["above"][:: 1 if a.y < b.y else -1])
    return found


def _list(nouns: list[str]) -> str:
    return nouns[0] if len(nouns) == 1 else ", ".join(nouns[:-1]) + " and " + nouns[-1]


def _caption(objects: list[Thing], world: World, style: str, dice: Dice, detail: float) -> str:
    opening = dice.pick(("", "", "there is ", "a picture of "))
    if style == "relation":
        pairs = [(a, b, r) for a, b in permutations(objects[:3], 2) for r in _relations(a, b, world)]
        if pairs:
            a, b, (relation, _) = dice.pick(pairs)
            longer = dice.pick((True, False))
            relation = LONGER.get(relation, relation) if longer else relation
            return f"{opening}{_noun(a, dice, detail)} {relation} {_noun(b, dice, detail)}"
        style = "position"  # one object, or no clear relation
    if style == "position":
        clear = [(t, place) for t in objects[:3] if (place := _place(t, world))]
        if clear:
            thing, place = dice.pick(clear)
            return f"{opening}{_noun(thing, dice, detail)} {place}"
        style = "object"
    if style == "count" and len(objects) > 1:
        noun = dice.pick(("objects", "things"))
        start = f"{'there are ' if opening else ''}{NUMBERS[len(objects) - 1]} {noun}"
        return f"{start}, one of them {_noun(dice.pick(objects), dice, detail)}"
    if style == "all":
        order = dice.shuffled(objects)
        return opening + _list([_noun(t, dice, detail if len(objects) < 3 else 0) for t in order])
    only = "only " if style == "count" and len(objects) == 1 and "picture" not in opening else ""
    return f"{opening}{only}{_noun(objects[0], dice, detail)}"


def caption(scenes: Scenes, i: int, style: str = "any", paraphrase: int = 0, detail: float = 0.4) -> str:
    """One true sentence about picture i. Styles: "object" (the largest one), "all" (every object), "position" (one
    object and where), "relation" (two objects), "count", "any"; where a style has nothing clear to say, the next
    simpler one speaks. `detail` is the probability that a size or a pattern is named. Raises SettingError for another
    style."""
    i = range(len(scenes))[i]
    return captions(scenes[i : i + 1], 1, style, detail, paraphrase)[0][0]


def captions(
    scenes: Scenes, per_picture: int = 5, style: str = "any", detail: float = 0.4, first: int = 0
) -> list[list[str]]:
    """Paraphrases number `first` onwards, `per_picture` of them, for each picture: a list of N lists. See `caption`."""
    if style != "any" and style not in STYLES:
        raise SettingError(f"There is no caption style {style!r}. Choose one of: any, {', '.join(STYLES)}.")
    result: list[list[str]] = [[] for _ in range(len(scenes))]
    everything = things(scenes)
    for k in range(first, first + per_picture):
        # "any" goes through all styles, in an order of the picture's own.
        for i, (objects, dice) in enumerate(zip(everything, _dice(scenes, f"caption {k}", 32), strict=True)):
            chosen = STYLES[(k + int(scenes.index[i])) % len(STYLES)] if style == "any" else style
            result[i].append(_caption(objects, scenes.world, chosen, dice, detail))
    return result


def listed(scenes: Scenes, shuffled: bool = False) -> list[str]:
    """The objects of each picture by colour and shape, "red ring, blue star, green cross": from left to right, or
    `shuffled`, so that the order says nothing."""
    rows = [sorted(objects, key=lambda t: t.x) for objects in things(scenes)]
    if shuffled:
        rows = [dice.shuffled(row) for row, dice in zip(rows, _dice(scenes, "list", 8), strict=True)]
    return [", ".join(f"{t.colour} {t.shape}" for t in row) for row in rows]


def exchanged(
    world: World, count: int, *, seed: int = 0, size: int = 32, device: torch.device | str = "cpu"
) -> tuple[Tensor, list[tuple[str, str]]]:
    """`count` pairs of pictures that differ in one thing only: two objects have each other's colour.

    (uint8 (count, 2, 3, size, size), for each pair the two lists of what there is, shuffled as in `listed`, both in the
    same order). Every picture shows as many objects as the world allows, at least two, of different shapes and colours:
    pairs that no caption could tell apart do not occur. Raises SettingError for a world with fewer than two objects or
    colours.
    """
    most = world.objects[1]
    if most < 2 or len(world.colours) < most:
        raise SettingError(f"Exchanging colours takes two objects and {max(most, 2)} colours; see World.objects.")
    images, texts, first = [], [], 0
    triples = list(permutations(world.colours, most))
    for number, colours in enumerate(triples):
        n = count * (number + 1) // len(triples) - first
        if n:
            # The order of a world's colours says who wears which: turned round, everything else stays the same.
            for_each = [colours, (colours[1], colours[0], *colours[2:])]
            worlds = [replace(world, objects=(most, most), distinct=True, colours=c) for c in for_each]
            a, b = (render(w, n, seed=seed, first=first, size=size, device=device) for w in worlds)
            images.append(torch.stack([a.images, b.images], 1))
            texts += zip(listed(a, shuffled=True), listed(b, shuffled=True), strict=True)
            first += n
    return torch.cat(images), texts


# Questions


def _unique(thing: Thing, objects: list[Thing], dice: Dice) -> str | None:
    """The shortest name that fits this object and no other: "ring", "red thing" or "red ring"; None where there is
    none."""
    shape = sum(t.shape == thing.shape for t in objects) == 1
    colour = sum(t.colour == thing.colour for t in objects) == 1
    names = [thing.shape] * shape + [f"{thing.colour} thing"] * colour
    if not names and sum((t.shape, t.colour) == (thing.shape, thing.colour) for t in objects) == 1:
        names = [f"{thing.colour} {thing.shape}"]
    return dice.pick(names) if names else None


Draft = tuple[str, str, tuple[str, ...]]  # text, answer, choices
NO_YES = ("no", "yes")


def _ask_colour(objects: list[Thing], world: World, dice: Dice) -> Draft | None:
    clear = [t for t in objects if sum(o.shape == t.shape for o in objects) == 1]
    return (f"what colour is the {(t := dice.pick(clear)).shape}?", t.colour, world.colours) if clear else None


def _ask_shape(objects: list[Thing], world: World, dice: Dice) -> Draft | None:
    clear = [t for t in objects if sum(o.colour == t.colour for o in objects) == 1]
    return (f"what shape is the {(t := dice.pick(clear)).colour} thing?", t.shape, world.shapes) if clear else None


def _ask_pattern(objects: list[Thing], world: World, dice: Dice) -> Draft | None:
    thing = dice.pick(objects)
    name = _unique(thing, objects, dice)
    *some, last = world.patterns
    return (f"is the {name} {', '.join(some)} or {last}?", thing.pattern, world.patterns) if name and some else None


def _ask_count(objects: list[Thing], world: World, dice: Dice) -> Draft | None:
    low, high = world.objects
    text = f"how many {dice.pick(('things', 'objects'))} are there?"
    return (text, NUMBERS[len(objects) - 1], NUMBERS[low - 1 : high]) if low < high else None


def _ask_existence(objects: list[Thing], world: World, dice: Dice) -> Draft | None:
    present = {(t.colour, t.shape) for t in objects}
    never = present | set(world.held_out)
    absent = [pair for c in world.colours for s in world.shapes if (pair := (c, s)) not in never]
    exchanged = [pair for a in objects for b in objects if (pair := (a.colour, b.shape)) not in never]
    if not absent:
        return None
    answer = dice.pick(NO_YES)
    hard = exchanged and dice.pick((True, False))  # the colour of one object with the shape of another
    colour, shape = dice.pick(sorted(present) if answer == "yes" else exchanged if hard else absent)
    return f"is there {_a(f'{colour} {shape}')}?", answer, NO_YES


def _ask_relation(objects: list[Thing], world: World, dice: Dice) -> Draft | None:
    named = [(t, name) for t in objects if (name := _unique(t, objects, dice))]
    pairs = [(a, b, r) for (s, a), (t, b) in permutations(named, 2) for r in _relations(s, t, world)]
    if not pairs:
        return None
    a, b, (true, false) = dice.pick(pairs)
    answer = dice.pick(NO_YES)
    return f"is the {a} {true if answer == 'yes' else false} the {b}?", answer, NO_YES


def _ask_neighbour(objects: list[Thing], world: World, dice: Dice) -> Draft | None:
    row = sorted(objects, key=lambda t: t.x)
    if any(b.x - a.x < MARGIN for a, b in zip(row, row[1:], strict=False)):
        return None  # it must be plain who stands next to whom
    pairs = [(row[k], row[k + d], side) for k in range(len(row)) for d, side in ((-1, "left"), (1, "right"))
             if 0 <= k + d < len(row)]  # fmt: skip
    pairs = [p for p in pairs if sum(o.shape == p[0].shape for o in objects) == 1]
    if not pairs:
        return None
    thing, neighbour, side = dice.pick(pairs)
    return f"what colour is the thing just {side} of the {thing.shape}?", neighbour.colour, world.colours


def _ask_binding(objects: list[Thing], world: World, dice: Dice) -> Draft | None:
    pairs = [(a, b) for a, b in permutations(objects, 2)
             if a.shape != b.shape and sum(o.colour == a.colour for o in objects) == 1]  # fmt: skip
    if not pairs:
        return None
    thing, other = dice.pick(pairs)
    answer = dice.pick(NO_YES)  # "no" names the shape of another object of the picture
    return f"is the {thing.colour} thing {_a(thing.shape if answer == 'yes' else other.shape)}?", answer, NO_YES


def _ask_where(objects: list[Thing], world: World, dice: Dice) -> Draft | None:
    sides = ("left", "middle", "right")
    answer = dice.pick(sides)  # the answer first: else most would be "middle"
    within = {"left": (-9, -SIDE), "middle": (-MIDDLE, MIDDLE), "right": (SIDE, 9)}[answer]
    there = [t for t in objects if within[0] < t.x < within[1]]
    name = _unique(dice.pick(there), objects, dice) if there else None
    return (f"where is the {name}?", answer, sides) if name else None


MAKERS: dict[str, Callable[[list[Thing], World, Dice], Draft | None]] = {
    "colour": _ask_colour,
    "shape": _ask_shape,
    "pattern": _ask_pattern,
    "count": _ask_count,
    "existence": _ask_existence,
    "relation": _ask_relation,
    "neighbour": _ask_neighbour,
    "binding": _ask_binding,
    "where": _ask_where,
}
KINDS = tuple(MAKERS)


def questions(scenes: Scenes, per_picture: int = 4, kinds: tuple[str, ...] | None = None) -> list[Question]:
    """Up to `per_picture` different questions about each picture, of the given kinds (default: all of KINDS) in an
    order of its own. Where a picture allows no unambiguous question of a kind, there is one less. "No" is as frequent
    as "yes", and what a "no" names is in the picture where it can be, so that reading the question alone does not
    help. Raises SettingError for an unknown kind."""
    kinds = tuple(kinds or KINDS)
    for kind in kinds:
        if kind not in KINDS:
            raise SettingError(f"There is no kind of question {kind!r}. Choose from: {', '.join(KINDS)}.")
    asked = []
    for i, (objects, dice) in enumerate(
        zip(things(scenes), _dice(scenes, "questions", 40 * per_picture + 40), strict=True)
    ):
        texts: set[str] = set()
        order = dice.shuffled(kinds)
        # The kinds are fixed before it is known what can be asked: else those with few objects were counted more often.
        for k in range(per_picture):
            kind = order[k % len(order)]
            for _ in range(1 if k < len(order) else 4):  # later rounds may hit on the same question again
                draft = MAKERS[kind](objects, scenes.world, dice)
                if draft and draft[0] not in texts:
                    texts.add(draft[0])
                    asked.append(Question(i, draft[0], draft[1], kind, draft[2]))
                    break
    return asked


_SENTENCES = """a an and there is are a picture of of them objects things only small large thing to the left of right in
 front of behind above below at top bottom on middle distance close by or what colour shape how many where just"""
VOCABULARY: tuple[str, ...] = tuple(
    sorted({*SHAPES, *COLOURS, *PATTERNS, *NUMBERS, *NO_YES, *_SENTENCES.split()})
)  # every word of captions, questions and answers

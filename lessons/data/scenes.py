"""Built-in pictures of a small world, drawn on the spot, about which everything is known.

`render("things", 20_000)` gives pictures with the label, shape, colour, pattern, size and place of every object,
masks, depth, captions, questions and sounds. Picture i of a seed is always the same one. `WORLDS` names the worlds;
derive your own with `dataclasses.replace(WORLDS["things"], clutter=1.5)`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import SettingError
from . import drawing
from .drawing import COLOURS, PATTERNS, RGB, SHAPES, uniform
from .worlds import WORLDS, World, check, validate

if TYPE_CHECKING:
    from .language import Question
    from .rows import Pictures

CHUNK = 128  # pictures drawn at a time: larger ones fall out of the processor's cache


@dataclass
class Scenes:
    """Pictures and all that is true of them. N pictures of S x S pixels, M the largest number of objects, listed from
    near to far; entries where `present` is False mean nothing. `instances` is 0 for the background and k + 1 where
    object k is what one sees. Places and sizes are in half-widths, y is DOWNWARD; `tilt` is in radians, clockwise."""

    images: Tensor  # uint8 (N, 3, S, S)
    instances: Tensor  # uint8 (N, S, S)
    present: Tensor  # bool (N, M)
    shape: Tensor  # int64 (N, M), a place in SHAPES
    colour: Tensor  # int64 (N, M), in COLOURS
    pattern: Tensor  # int64 (N, M), in PATTERNS
    size: Tensor  # float32 (N, M), the radius as seen
    x: Tensor  # float32 (N, M)
    y: Tensor  # float32 (N, M)
    distance: Tensor  # float32 (N, M), 0 near .. 1 far
    tilt: Tensor  # float32 (N, M)
    visible: Tensor  # float32 (N, M), share of the object's pixels that no other object hides
    horizon: Tensor  # float32 (N,), y of the horizon; 1 where there is none
    index: Tensor  # int64 (N,), the number of each picture in its seed
    world: World
    seed: int

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, which: slice | Tensor) -> Scenes:
        """The chosen pictures (a slice, or a tensor of numbers or of bool), as Scenes."""
        if isinstance(which, int):
            raise SettingError(
                f"Scenes take a slice or a tensor, not the number {which}; write scenes[{which}:{which + 1}]."
            )
        cut = {f.name: getattr(self, f.name) for f in fields(self)}
        return Scenes(**{k: v[which] if isinstance(v, Tensor) else v for k, v in cut.items()})

    def to(self, device: torch.device | str) -> Scenes:
        """The same with all tensors on another device."""
        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        return Scenes(**{k: v.to(device) if isinstance(v, Tensor) else v for k, v in moved.items()})

    @property
    def main(self) -> Tensor:
        """The number (N,) of the largest object of each picture."""
        return self.size.where(self.present, self.size.new_tensor(-1)).argmax(1)

    @property
    def depth(self) -> Tensor:
        """float32 (N, S, S), 0 nearest, 1 the sky or a wall: 1 - (nearest distance) / (distance), so that it falls
        linearly down the ground. All of an object is as far as its foot."""
        y = drawing.grid(self.images.shape[-1], self.images.device)[1]
        h = self.horizon.view(-1, 1, 1)
        ground = (1 - (y - h) / (FOOT - h).clamp(min=1e-3)).clamp(0, 1).where(h < 1, 1.0)
        table = torch.cat((self.distance.new_zeros(len(self), 1), self.distance), 1)
        seen = self.instances.long()
        return torch.where(seen > 0, table.gather(1, seen.flatten(1)).view(seen.shape), ground)

    def masks(self) -> Tensor:
        """bool (N, S, S): an object, any, is seen here."""
        return self.instances > 0

    @property
    def same_shape(self) -> Tensor:
        """bool (N,): the first two objects have the same shape (for the world "far_pair")."""
        return (self.shape[:, 0] == self.shape[:, 1]) & self.present[:, 1]

    def labels(self, attribute: str = "shape") -> Tensor:
        """int64 (N,), a number into `classes(attribute)`: shape, colour, pattern or combination (colour and shape) of
        the main object, the count of objects (minus one), or same_shape. Raises SettingError for any other name."""
        if attribute in ("shape", "colour", "pattern"):
            return getattr(self, attribute).gather(1, self.main[:, None])[:, 0]
        if attribute == "combination":
            return self.labels("colour") * len(SHAPES) + self.labels("shape")
        if attribute == "count":
            return self.present.sum(1) - 1
        check(attribute, ATTRIBUTES, "attribute")
        return self.same_shape.long()

    def pictures(self, attribute: str = "shape") -> Pictures:
        """The pictures with one label each, in the form all lessons take."""
        from .rows import Pictures

        return Pictures(self.images, self.labels(attribute), classes(attribute), "scenes", "built-in scenes")

    def captions(self, per_picture: int = 5, style: str = "any") -> list[list[str]]:
        """Several true sentences for each picture; see lessons.data.language."""
        from . import language

        return language.captions(self, per_picture, style)

    def questions(self, per_picture: int = 4, kinds: tuple[str, ...] | None = None) -> list[Question]:
        """Questions with one true answer each; see lessons.data.language."""
        from . import language

        return language.questions(self, per_picture, kinds)

    def sounds(self, **settings: float) -> Tensor:
        """A sound (N, T) for each picture, the sum of its objects' sounds; see lessons.data.sounds."""
        from . import sounds

        return sounds.sounds(self, **settings)


FOOT = 0.92  # y where an object at distance 0 stands
ATTRIBUTES = ("shape", "colour", "pattern", "combination", "count", "same_shape")


def classes(attribute: str = "shape") -> tuple[str, ...]:
    """The names of the classes behind `Scenes.labels(attribute)`."""
    check(attribute, ATTRIBUTES, "attribute")
    return {
        "shape": SHAPES, "colour": COLOURS, "pattern": PATTERNS,
        "combination": tuple(f"{c} {s}" for c in COLOURS for s in SHAPES),
        "count": ("one", "two", "three", "four", "five", "six", "seven", "eight"),
        "same_shape": ("different", "same"),
    }[attribute]  # fmt: skip


def _span(u: Tensor, limits: tuple[float, float]) -> Tensor:
    return limits[0] + u * (limits[1] - limits[0])


def _attributes(world: World, seed: int, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Shape, colour and pattern numbers, (N, M) each. With held-out combinations the first of 32 draws free of them
    counts."""
    most, tries = world.objects[1], 32 if world.held_out else 1
    shapes = torch.tensor([SHAPES.index(s) for s in world.shapes], device=index.device)
    colours = torch.tensor([COLOURS.index(c) for c in world.colours], device=index.device)
    patterns = torch.tensor([PATTERNS.index(p) for p in world.patterns], device=index.device)
    u = uniform(seed, index, "kinds", 3, tries, most)
    if world.distinct:
        a = uniform(seed, index, "order of shapes", tries, len(shapes)).argsort(-1)[..., :most]
        b = uniform(seed, index, "order of colours", tries, len(colours)).argsort(-1)[..., :most]
    else:
        a, b = (u[:, 0] * len(shapes)).long(), (u[:, 1] * len(colours)).long()
    if world.layout == "far_pair":  # the same shape in half of the pictures
        v = uniform(seed, index, "same", 2, tries)
        other = (a[..., 0] + 1 + (v[:, 1] * (len(shapes) - 1)).long()) % len(shapes)
        a[..., 1] = torch.where(v[:, 0] < 0.5, a[..., 0], other)
    shape, colour = shapes[a], colours[b]
    banned = torch.zeros(len(COLOURS), len(SHAPES), dtype=torch.bool, device=index.device)
    for c, s in world.held_out:
        banned[COLOURS.index(c), SHAPES.index(s)] = True
    free = ~banned[colour, shape].any(-1)
    if not free.any(1).all():
        raise SettingError(
            "Too many combinations are held out: no picture of this world could be filled. Hold out fewer."
        )
    first = free.int().argmax(1).view(-1, 1, 1).expand(-1, 1, most)
    return shape.gather(1, first)[:, 0], colour.gather(1, first)[:, 0], patterns[(u[:, 2, 0] * len(patterns)).long()]


def _candidates(world: World, k: int, u: Tensor, shape: Tensor, horizon: Tensor, largest: Tensor) -> tuple[Tensor, ...]:
    """Places (N, C) that object k could take: x, y, radius, distance, from random numbers u (N, C, 4). `largest` (N,)
    is the radius of the first object."""
    first = k == 0
    size = _span(u[:, :1, 3], world.size if first else world.rest_size or world.size).expand(-1, u.shape[1])
    x, y = _span(u[..., 0], world.x), _span(u[..., 1], world.y)
    limit = 0.75 * largest[:, None] if world.rest_size and not first else 9.0
    distance = 0.15 + 0.7 * (k + u[..., 2]) / world.objects[1]
    if world.layout == "ground":
        distance = _span(u[..., 2], world.distance if first else world.rest_distance or world.distance)
        size = (size * (1 - distance)).clamp(max=limit)
        foot = drawing.FEET.to(u.device)[shape[:, k], None]
        y = horizon[:, None] + (FOOT - horizon[:, None]) * (1 - distance) - foot * size
    elif world.layout == "columns":
        x = x + (2 * k - world.objects[1] + 1) * 0.64 / max(world.objects[1] - 1, 1)
    elif world.layout == "far_pair":  # opposite corners or sides; the second is where the first is not
        way = (u[:, :1, 2] * 4).long()
        sign = 1 - 2 * k
        x = sign * torch.where(way == 1, 0.8 * u[..., 0] - 0.4, 0.5 + 0.2 * u[..., 0])
        y = sign * torch.where(way == 0, 0.8 * u[..., 1] - 0.4, (0.5 + 0.2 * u[..., 1]) * torch.where(way == 3, -1, 1))
    return x, y, size.clamp(max=limit), distance


def _arrange(world: World, seed: int, index: Tensor) -> dict[str, Tensor]:
    """All properties of the objects of the pictures `index` (N,). Each object takes the first of 24 places where it
    neither hides nor is hidden too much; it is left out where there is none."""
    most, n = world.objects[1], len(index)
    shape, colour, pattern = _attributes(world, seed, index)
    u = uniform(seed, index, "scene", 2)
    horizon = _span(u[:, 0], world.horizon) if world.background == "sky_ground" else torch.ones(n, device=index.device)
    count = world.objects[0] + (u[:, 1] * (most - world.objects[0] + 1)).long()
    places = uniform(seed, index, "places", most, 24, 4)
    if world.layout == "far_pair":
        places[:, 1, :, 2] = places[:, 0, :, 2]
    table = torch.zeros(n, most, 4, device=index.device)
    present = torch.zeros(n, most, dtype=torch.bool, device=index.device)
    for k in range(most):
        options = torch.stack(_candidates(world, k, places[:, k], shape, horizon, table[:, 0, 2]), -1)  # (N, 24, 4)
        good = torch.ones(n, options.shape[1], dtype=torch.bool, device=index.device)
        for j in range(k):
            other = table[:, j, None]
            nearer = options[..., 3] < other[..., 3]
            front, back = other[..., 2], options[..., 2]
            room = torch.where(nearer, back + (1 - world.overlap) * front, front + (1 - world.overlap) * back)
            apart = torch.hypot(options[..., 0] - other[..., 0], options[..., 1] - other[..., 1])
            good &= (apart >= room) | ~present[:, j, None]
        present[:, k] = good.any(1) & (k < count)
        table[:, k] = options[torch.arange(n, device=index.device), good.int().argmax(1)]
    v = uniform(seed, index, "looks", most, 4)
    x, y, size, distance = table.unbind(-1)
    found = dict(present=present, shape=shape, colour=colour, pattern=pattern, x=x, y=y, size=size, distance=distance)
    found["tilt"] = (2 * v[..., 0] - 1) * world.tilt
    found["rgb"] = (RGB.to(index.device)[colour] + (2 * v[..., 1:] - 1) * world.colour_jitter).clamp(0, 1)
    order = torch.where(present, distance, 9.0).argsort(dim=1, stable=True)  # from near to far, absent ones last
    found = {key: torch.take_along_dim(t, order if t.dim() == 2 else order[..., None], 1) for key, t in found.items()}
    return found | {"horizon": horizon}


def _background(world: World, seed: int, index: Tensor, size: int, horizon: Tensor) -> tuple[Tensor, Tensor]:
    haze = torch.full((len(index), 3), 0.85, device=index.device)
    if world.background == "sky_ground":
        picture, haze = drawing.landscape(seed, index, size, world.clutter, horizon)
    elif world.background == "mosaic":
        picture = drawing.mosaic(seed, index, size, world.cells, RGB[[COLOURS.index(c) for c in world.colours]])
    else:
        picture = drawing.plain_ground(seed, index, size, world.clutter)
    grey = picture.mean(1, keepdim=True)
    picture = grey + (picture - grey) * world.ground_saturation
    if world.contrast is not None or world.mean_spread != 1:
        mean = picture.mean((2, 3), keepdim=True)
        scale = 1 if world.contrast is None else world.contrast / picture.std((1, 2, 3), keepdim=True)
        picture = (picture - mean) * scale + 0.5 + (mean - 0.5) * world.mean_spread
    return picture, haze


def _shade(canvas: Tensor, world: World, sd: Tensor, o: dict[str, Tensor]) -> Tensor:
    """The canvas (K, 3, S, S) with the shadows of K objects: at their feet on the ground, else on the wall behind
    them."""
    size = canvas.shape[-1]
    r = o["size"].view(-1, 1, 1)
    if world.layout == "ground":
        x, y = drawing.grid(size, canvas.device)
        foot = o["y"].view(-1, 1, 1) + drawing.FEET.to(canvas.device)[o["shape"]].view(-1, 1, 1) * r
        dark = torch.exp(
            -((x - o["x"].view(-1, 1, 1) - 0.12 * r) / r).square() * 1.3 - ((y - foot) / (0.24 * r)).square()
        )
    else:
        step = max(size // 20, 1)
        moved = torch.nn.functional.pad(sd[:, None], (step, 0, step, 0), mode="replicate")[:, 0, :size, :size]
        dark = (0.7 - moved / (0.36 * r)).clamp(0, 1).square()
    return canvas * (1 - world.shadow * dark)[:, None]


def _draw(world: World, seed: int, index: Tensor, size: int) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Images (B, 3, S, S) and instances (B, S, S), uint8, and the objects' properties of the pictures `index` (B,)."""
    found = _arrange(world, seed, index)
    canvas, haze = _background(world, seed, index, size, found["horizon"])
    rows, slots = found["present"].nonzero(as_tuple=True)
    o = {key: t[rows, slots] for key, t in found.items() if key != "horizon"}
    sd, u, v = drawing.silhouettes(o["shape"], o["x"], o["y"], o["size"], o["tilt"], size)
    rgb = 0.5 + (o["rgb"] - 0.5) * world.object_saturation
    if world.background == "sky_ground":
        rgb = torch.lerp(rgb, haze[rows], (world.haze * o["distance"].pow(1.3))[:, None])
    instances = torch.zeros(len(index), size, size, dtype=torch.uint8, device=index.device)
    area = torch.ones(found["present"].shape, device=index.device)
    for k in reversed(range(world.objects[1])):  # far to near: the nearer one is painted over the farther
        at = (slots == k).nonzero()[:, 0]
        if not len(at):
            continue
        here, r = rows[at], o["size"][at].view(-1, 1, 1)
        part = canvas[here]
        if world.shadow:
            part = _shade(part, world, sd[at], {key: t[at] for key, t in o.items()})
        skin = drawing.surface(
            rgb[at], o["pattern"][at], u[at], v[at], -sd[at] / r, o["tilt"][at], world.pattern_strength, world.relief
        )
        canvas[here] = torch.lerp(part, skin, (0.5 - sd[at] * (size / 2)).clamp(0, 1)[:, None])
        inside = sd[at] < 0
        instances[here] = instances[here].masked_fill(inside, k + 1)
        area[here, k] = inside.sum((1, 2)).float().clamp(min=1)
    seen = torch.stack([(instances == k + 1).sum((1, 2)) for k in range(world.objects[1])], 1)
    found["visible"] = seen / area
    light = _span(uniform(seed, index, "light", 1, 1, 1), world.light)
    canvas = canvas * light + world.noise * drawing.grain(seed, index, size)
    return (canvas * 255 + 0.5).clamp(0, 255).to(torch.uint8), instances, found


def render(
    world: str | World, n: int, *, seed: int = 0, size: int = 32, first: int = 0, device: str | torch.device = "cpu"
) -> Scenes:
    """Draw pictures first .. first + n - 1 of a seed, `size` x `size` pixels, on `device`. Picture i is the same
    whatever n, first and size are (its objects, exactly; its pixels, for one size), and on every device up to
    rounding. Raises SettingError for an unknown world (see WORLDS) or impossible settings."""
    if isinstance(world, str):
        check(world, tuple(WORLDS), "world")
        world = WORLDS[world]
    validate(world)
    if n < 1 or size < 8 or first < 0:
        raise SettingError(f"render needs n >= 1, size >= 8 and first >= 0, not n={n}, size={size}, first={first}.")
    images = torch.empty(n, 3, size, size, dtype=torch.uint8, device=device)
    instances = torch.empty(n, size, size, dtype=torch.uint8, device=device)
    index = torch.arange(first, first + n, device=device)
    tables = []
    with torch.no_grad():
        for part in index.split(CHUNK):
            at = slice(int(part[0]) - first, int(part[-1]) + 1 - first)
            images[at], instances[at], table = _draw(world, seed, part, size)
            tables.append(table)
    table = {key: torch.cat([t[key] for t in tables]) for key in tables[0] if key != "rgb"}
    return Scenes(images, instances, index=index, world=world, seed=seed, **table)

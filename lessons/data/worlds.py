"""The worlds that the built-in scenes can show, each a set of knobs with a name."""

from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import SettingError
from .drawing import COLOURS, PATTERNS, SHAPES


@dataclass(frozen=True)
class World:
    """What the pictures of a world have in common. Lengths are in half-widths of the picture (its sides are 2 long),
    x runs to the right and y DOWNWARD, both from -1 to 1; ranges are (lowest, highest)."""

    description: str
    objects: tuple[int, int] = (1, 1)  # how many
    size: tuple[float, float] = (0.3, 0.5)  # radius of the main object (at distance 0 where there is a ground)
    rest_size: tuple[float, float] | None = None  # of all others, at most .75 times as large; None: as the main one
    layout: str = "free"  # free | ground (stand on it, farther is higher and smaller) | columns | far_pair
    x: tuple[float, float] = (-0.6, 0.6)  # where centres may lie
    y: tuple[float, float] = (-0.6, 0.6)  # (the ground decides itself)
    distance: tuple[float, float] = (0.0, 0.55)  # of the main object on the ground: 0 near, 1 the horizon
    rest_distance: tuple[float, float] | None = None
    overlap: float = -0.15  # share of its radius by which a farther object may reach behind a nearer one; < 0: a gap
    background: str = "plain"  # plain | sky_ground | mosaic
    cells: int = 12  # of the mosaic, per side
    clutter: float = 0.5  # strength of the background's texture
    horizon: tuple[float, float] = (-0.4, 0.0)
    ground_saturation: float = 1.0
    object_saturation: float = 1.0
    mean_spread: float = 1.0  # how much of its own mean colour a background keeps; 0: all have the same
    contrast: float | None = None  # standard deviation given to each background; None: as it is drawn
    noise: float = 0.012  # standard deviation of the grain
    haze: float = 0.5  # how much of the haze's colour an object at the horizon takes on
    light: tuple[float, float] = (1.0, 1.0)  # brightness of the whole picture
    shadow: float = 0.5
    relief: float = 1.0  # how much objects are shaded; 0: flat
    tilt: float = 0.2  # largest, in radians
    colour_jitter: float = 0.04
    pattern_strength: float = 0.5
    shapes: tuple[str, ...] = SHAPES
    colours: tuple[str, ...] = COLOURS
    patterns: tuple[str, ...] = PATTERNS
    distinct: bool = False  # no two objects of a picture share their shape or colour
    held_out: tuple[tuple[str, str], ...] = ()  # (colour, shape) combinations that never occur


WORLDS: dict[str, World] = {
    "things": World(
        "one object on the ground before a few small ones; its shape is the label (stands in for CIFAR-10)",
        objects=(1, 4), size=(.33, .62), rest_size=(.26, .46), layout="ground", x=(-.65, .65), distance=(.02, .42),
        rest_distance=(0., .55), overlap=.6, background="sky_ground", clutter=1., horizon=(-.5, .1), tilt=.9,
        light=(.8, 1.08), colour_jitter=.08, noise=.014,
    ),
    "close_ups": World(
        "the same seen from near: one large object, for small pictures and short trainings",
        objects=(1, 2), size=(.6, .85), rest_size=(.26, .46), layout="ground", x=(-.65, .65), distance=(0., .2),
        rest_distance=(0., .55), overlap=.6, background="sky_ground", clutter=1., horizon=(-.5, .1), tilt=.4,
        light=(.8, 1.08), colour_jitter=.08, noise=.014,
    ),
    "landscape": World(
        "two to five objects standing in a landscape, with depth, shadow and occlusion",
        objects=(2, 5), size=(.34, .54), layout="ground", x=(-.82, .82), distance=(0., .58), overlap=.85,
        background="sky_ground", clutter=.7, horizon=(-.45, -.1), tilt=.15,
    ),
    "big": World(
        "one big shape on a quiet ground", size=(.45, .70), x=(-.35, .35), y=(-.35, .35), clutter=.5, tilt=.45,
    ),
    "mosaic": World(
        "one big pale object on a fine colour mosaic: finding it takes more than its colour",
        size=(.46, .73), x=(-.55, .55), y=(-.55, .55), background="mosaic", cells=12, mean_spread=.5, contrast=.2,
        noise=.05, shadow=0., tilt=.45, colour_jitter=.08, object_saturation=.7, pattern_strength=.35, relief=0.,
        shapes=("circle", "square", "triangle", "cross", "ring"),
        colours=("red", "green", "blue", "yellow", "purple", "turquoise"),
    ),
    "shortcut": World(
        "the same on large colour cells: the background alone tells the pictures apart",
        size=(.46, .73), x=(-.55, .55), y=(-.55, .55), background="mosaic", cells=6, noise=.05, shadow=0., tilt=.45,
        colour_jitter=.08, object_saturation=.7, pattern_strength=.35, relief=0.,
        shapes=("circle", "square", "triangle", "cross", "ring"),
        colours=("red", "green", "blue", "yellow", "purple", "turquoise"),
    ),
    "pairs": World(
        "one or two objects, well apart, for captions with relations",
        objects=(1, 2), size=(.25, .38), x=(-.68, .68), y=(-.68, .68), clutter=.5, distinct=True,
    ),
    "columns": World(
        "three objects side by side, of different shapes and colours, for questions about relations",
        objects=(3, 3), size=(.22, .28), layout="columns", x=(-.06, .06), y=(-.5, .5), clutter=.3, distinct=True,
    ),
    "far_pair": World(
        "two objects at opposite ends of the picture, the same shape or not",
        objects=(2, 2), size=(.22, .30), layout="far_pair", clutter=.4,
    ),
    "crowd": World(
        "one to six objects, for counting",
        objects=(1, 6), size=(.17, .27), x=(-.76, .76), y=(-.76, .76), clutter=.4,
    ),
}  # fmt: skip


def check(name: str, allowed: Iterable[str], what: str) -> None:
    """Raise a SettingError that lists the allowed names unless `name` is one of them."""
    if name not in allowed:
        raise SettingError(f"There is no {what} {name!r}. Choose one of: {', '.join(allowed)}.")


def validate(world: World) -> None:
    """Raise a SettingError where the knobs of a world name what there is not, or contradict each other."""
    names = {"shape": list(world.shapes), "colour": list(world.colours), "pattern": list(world.patterns)}
    for colour, shape in world.held_out:
        names["colour"].append(colour)
        names["shape"].append(shape)
    for what, allowed in (("shape", SHAPES), ("colour", COLOURS), ("pattern", PATTERNS)):
        for name in names[what]:
            check(name, allowed, what)
    check(world.layout, ("free", "ground", "columns", "far_pair"), "layout")
    check(world.background, ("plain", "sky_ground", "mosaic"), "background")
    low, high = world.objects
    if not 1 <= low <= high <= 8:
        raise SettingError(f"objects=(fewest, most) must lie between 1 and 8, not {world.objects}.")
    if world.distinct and high > min(len(world.shapes), len(world.colours)):
        raise SettingError(
            f"{high} distinct objects need as many shapes and colours to choose from; allow more of them."
        )
    if world.layout == "ground" and world.background != "sky_ground":
        raise SettingError('layout="ground" needs background="sky_ground": objects stand below the horizon.')

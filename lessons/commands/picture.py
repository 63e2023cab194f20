"""README's picture: the path in eleven steps, drawn from the built-in scenes. What looks like a result in it (masks,
depth, the right class) is ground truth of the scenes; nothing here was trained."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import augment, course, figures, store
from ..data.drawing import SHAPES
from ..data.scenes import WORLDS, Scenes, render
from ..figures import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, RED, SKY

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Lengths are in pixels of the finished picture (1680 wide at 140 dpi), y runs downwards.
WIDTH, HEIGHT, DPI = 1680, 910, 140
TILE, GAP, EDGE = 240, 36, 30
ROWS = (40, 500)  # where the line of each row runs
PAPER = "#FFFFFF"
FAINT = "#DADDE2"
GLOSS = (
    "add the input back",
    "a picture as a sequence",
    "hide 3/4, paint it back",
    "pull pairs together,\npush others apart",
    "two views, one network",
    "find the object,\nwithout labels",
    "one backbone: depth,\nmasks, classes",
    "each picture finds\nits caption",
    "picture, words, sound:\none space",
    "class names become\nthe classifier",
    "patches and words in one sequence,\nfrom the first layer on",
)


@dataclass
class Cast:
    """Who appears: one landscape in most steps, and single things."""

    scene: Scenes  # one picture of 192 px
    things: Scenes  # pictures of 96 px, one thing in each


def cast() -> Cast:
    """The scenes of the picture, always the same ones."""
    wide = replace(
        WORLDS["landscape"], objects=(3, 3), size=(0.5, 0.66), distance=(0.0, 0.6), x=(-0.7, 0.7), overlap=0.75,
        noise=0.0, distinct=True,
    )  # fmt: skip
    near = replace(WORLDS["big"], noise=0.0, size=(0.6, 0.7), x=(-0.1, 0.1), y=(-0.1, 0.1), clutter=0.3)
    chosen = torch.tensor([0, 16, 14, 9, 22])
    return Cast(render(wide, 1, seed=11, size=192, first=165), render(near, 24, seed=1, size=96)[chosen])


def picture(path: Path, dpi: int = DPI) -> None:
    """Draw the path to a PNG file, 12 inches wide. Raises StorageError where the file cannot be written."""
    from PIL import Image

    figure, axis = _canvas()
    _line(axis)
    people = cast()
    for number, (step, gloss) in enumerate(zip(course.LESSONS, GLOSS, strict=True)):
        x, y = _corner(number)
        _station(axis, step, x, y - 84)
        width = TILE if number < 10 else 2 * TILE + GAP
        TILES[number](Tile(axis, x, y, width), people)
        for row, line in enumerate(gloss.splitlines()):
            _text(axis, x, y + TILE + 36 + 25 * row, line, 18, color="#555555")
    _legend(axis)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=dpi, facecolor=PAPER, format="png")
    figures.pyplot().close(figure)
    # Colours in steps of 5: nobody sees it, and the file is a third smaller.
    drawn = Image.open(buffer).convert("RGB").point(lambda value: 5 * round(value / 5))
    with store.atomic(path) as partial:
        drawn.save(partial, format="PNG", optimize=True)


def _canvas():
    plt = figures.pyplot()
    with plt.rc_context({"figure.constrained_layout.use": False}):
        figure = plt.figure(figsize=(WIDTH / DPI, HEIGHT / DPI))
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(0, WIDTH), ylim=(HEIGHT, 0))
    axis.axis("off")
    return figure, axis


def _corner(number: int) -> tuple[int, int]:
    """Top left corner of a tile."""
    row, column = divmod(number, 6)
    return EDGE + column * (TILE + GAP), ROWS[row] + 84


def _legend(axis) -> None:
    x, y = _corner(10)[0] + 2 * TILE + GAP, ROWS[1]
    _text(axis, x, y, "filled: a stop of the short path too", 18, color="#555555", ha="right", va="center")


def _text(axis, x: float, y: float, text: str, pixels: float, **look):
    return axis.text(x, y, text, fontsize=pixels * 72 / DPI, **look)


def _line(axis) -> None:
    """The line through all stations: along row one, around two bends, along row two."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path as Curve

    (top, low), bend, right, left = ROWS, 22, WIDTH - 12, 12
    middle = low - 48
    corners = [(right, top), (right, middle), (left, middle), (left, low)]
    points, codes = [(EDGE, top)], [Curve.MOVETO]
    before = points[0]
    for corner, after in zip(corners, [*corners[1:], (WIDTH - EDGE - TILE, low)], strict=True):
        into, out = (_towards(corner, other, bend) for other in (before, after))
        points += [into, corner, out]
        codes += [Curve.LINETO, Curve.CURVE3, Curve.CURVE3]
        before = corner
    points.append((_corner(10)[0], low))
    codes.append(Curve.LINETO)
    axis.add_patch(PathPatch(Curve(points, codes), fill=False, edgecolor=FAINT, linewidth=3.2, capstyle="round"))


def _towards(start: tuple[float, float], end: tuple[float, float], length: float) -> tuple[float, float]:
    """The point `length` away from start, on the way to end."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    whole = (dx * dx + dy * dy) ** 0.5
    return start[0] + dx / whole * length, start[1] + dy / whole * length


def _station(axis, step: course.Lesson, x: float, y: float) -> None:
    """A stop on the line with its number, and the title below; filled where the short path stops too."""
    from matplotlib.patches import Circle

    face, ink = (BLUE, PAPER) if step.short_path else (PAPER, BLUE)
    axis.add_patch(Circle((x + 23, y), 23, facecolor=face, edgecolor=BLUE, linewidth=2, zorder=3))
    _text(axis, x + 23, y + 1, f"{step.number:02d}", 19, color=ink, ha="center", va="center", weight="bold", zorder=4)
    _text(axis, x, y + 54, step.title, 18.5, weight="bold", va="center")


@dataclass
class Tile:
    """A place to draw in: its top left corner, and its width; TILE high."""

    axis: Axes
    x: float
    y: float
    width: float

    def image(self, picture: Tensor, x: float, y: float, width: float, height: float = 0, clip=None, **look) -> None:
        """A picture (3, H, W) or map (H, W) at (x, y) of this tile; `height` 0 makes it square."""
        left, top = self.x + x, self.y + y
        extent = (left, left + width, top + (height or width), top)
        shown = self.axis.imshow(figures.to_image(picture), extent=extent, aspect="auto", zorder=2, **look)
        if clip is not None:
            shown.set_clip_path(clip)

    def round_image(self, picture: Tensor, x: float, y: float, radius: float, colour: str) -> None:
        """A picture in a ring around (x, y)."""
        from matplotlib.patches import Circle

        place = (self.x + x, self.y + y)
        clip = Circle(place, radius, transform=self.axis.transData)
        self.image(picture, x - radius, y - radius, 2 * radius, clip=clip)
        self.axis.add_patch(Circle(place, radius, fill=False, edgecolor=colour, linewidth=2, zorder=4))

    def box(self, x: float, y: float, width: float, height: float, colour: str, text: str = "", **look) -> None:
        """A filled box with rounded corners and a text in its middle."""
        from matplotlib.patches import FancyBboxPatch

        style = f"round,pad=0,rounding_size={min(8, height / 2)}"
        place = (self.x + x, self.y + y)
        self.axis.add_patch(
            FancyBboxPatch(place, width, height, boxstyle=style, facecolor=colour, edgecolor="none", zorder=2)
        )
        self.text(x + width / 2, y + height / 2, text, **({"ha": "center", "color": PAPER, "zorder": 5} | look))

    def text(self, x: float, y: float, text: str, pixels: float = 18, **look) -> None:
        _text(self.axis, self.x + x, self.y + y, text, pixels, **({"va": "center"} | look))

    def join(
        self, start: tuple[float, float], end: tuple[float, float], colour: str, width: float = 1.5, **look
    ) -> None:
        """A straight line between two points of this tile."""
        xs, ys = [self.x + start[0], self.x + end[0]], [self.y + start[1], self.y + end[1]]
        self.axis.plot(xs, ys, color=colour, linewidth=width, solid_capstyle="round", **({"zorder": 1} | look))


def _patches(picture: Tensor, per_side: int) -> Tensor:
    """(3, S, S) -> (per_side ** 2, 3, S / per_side, S / per_side), row by row."""
    side = picture.shape[-1] // per_side
    return picture.unfold(1, side, side).unfold(2, side, side).permute(1, 2, 0, 3, 4).flatten(0, 1)


def _resnet(tile: Tile, people: Cast) -> None:
    """The picture, plus what one filter finds in it."""
    image = people.scene.images[0].float() / 255
    smooth = F.avg_pool2d(F.pad(image.mean(0)[None, None], (2, 2, 2, 2), mode="replicate"), 5, 1)[0, 0]
    change = image.mean(0) - smooth
    half = image.shape[-1] // 2
    tile.image(image[:, :, :half], 0, 0, TILE / 2 - 3, TILE)
    tile.image(change[:, half:], TILE / 2 + 3, 0, TILE / 2 - 3, TILE, cmap="PuOr", vmin=-0.08, vmax=0.08)
    tile.box(TILE / 2 - 24, TILE / 2 - 24, 48, 48, PAPER, "+", pixels=36, color=INK, weight="bold")
    tile.text(14, TILE - 24, "x", 26, color=PAPER, style="italic", weight="bold", zorder=5)
    tile.text(TILE - 14, TILE - 24, "F(x)", 26, color=INK, style="italic", ha="right", zorder=5)


def _vit(tile: Tile, people: Cast) -> None:
    side, step = 54, 62
    for number, patch in enumerate(_patches(people.scene.images[0], 4)):
        row, column = divmod(number, 4)
        tile.image(patch, column * step, row * step, side)


def _mae(tile: Tile, people: Cast) -> None:
    patches = _patches(people.scene.images[0], 8)
    kept = torch.randperm(64, generator=torch.Generator().manual_seed(255))[:16].tolist()
    for number, patch in enumerate(patches):
        row, column = divmod(number, 8)
        shown = patch if number in kept else torch.full_like(patch, 222)
        tile.image(shown, column * 30.2, row * 30.2, 28.6)


def _contrastive(tile: Tile, people: Cast) -> None:
    """Four pairs of views on a circle: near to each other, far from the rest."""
    from matplotlib.patches import Circle

    centre, radius = TILE / 2, 88
    tile.axis.add_patch(Circle((tile.x + centre, tile.y + centre), radius, fill=False, edgecolor=FAINT, linewidth=2))
    chance = torch.Generator().manual_seed(4)
    views = augment.two_views(people.things.images[:4], generator=chance, scale=(0.5, 0.9), strength=0.15)
    for number, colour in enumerate((ORANGE, BLUE, GREEN, RED)):
        middle = torch.pi / 4 + number * torch.pi / 2
        for view, offset in zip(views, (-0.33, 0.33), strict=True):
            angle = torch.tensor(middle + offset)
            x, y = centre + radius * angle.cos().item(), centre + radius * angle.sin().item()
            tile.round_image(view[number], x, y, 27, colour)
            tile.join((centre, centre), (x, y), FAINT, 1.2)
    tile.box(centre - 5, centre - 5, 10, 10, GREY)


def _simclr(tile: Tile, people: Cast) -> None:
    chance = torch.Generator().manual_seed(14)
    views = augment.two_views(people.scene.images, generator=chance, size=192, scale=(0.3, 0.55), strength=0.5)
    for view, place in zip(views, (0, 84), strict=True):
        tile.box(place - 4, place - 4, 164, 164, PAPER)
        tile.image(view[0], place, place, 156)


def _dino(tile: Tile, people: Cast) -> None:
    image, seen = people.scene.images[0].float() / 255, people.scene.masks()[0]
    dark = 0.22 * image.mean(0, keepdim=True) + 0.05 * image
    soft = F.avg_pool2d(seen[None, None].float(), 3, 1, 1)[0]
    tile.image(torch.lerp(dark, image, soft), 0, 0, TILE)


def _dinov2(tile: Tile, people: Cast) -> None:
    scene, side, step = people.scene, 116, 124
    tile.image(scene.images[0], 0, 0, side)
    tile.image(scene.depth[0], step, 0, side, cmap="magma_r", vmin=-0.1, vmax=1.1)
    colours = torch.tensor([[0.91, 0.92, 0.93], *(_rgb(name) for name in (ORANGE, BLUE, GREEN))])
    tile.image(colours[scene.instances[0].long()].permute(2, 0, 1), 0, step, side)
    tile.box(step, step, side, side, "#F0F1F3", SHAPES[scene.labels()[0]], pixels=24, color=INK, weight="bold")


def _rgb(colour: str) -> tuple[float, float, float]:
    from matplotlib.colors import to_rgb

    return to_rgb(colour)


def _clip(tile: Tile, people: Cast) -> None:
    captions = _short_captions(people.things[:3])
    for row, (image, caption) in enumerate(zip(people.things.images, captions, strict=False)):
        for other in range(3):
            own = row == other
            tile.join((72, 34 + 86 * row), (112, 34 + 86 * other), BLUE if own else FAINT, 3 if own else 1.4)
        tile.image(image, 0, 86 * row, 68)
        tile.text(118, 34 + 86 * row, "\n".join(caption.rsplit(" ", 1)), 18, linespacing=1.3)


def _short_captions(scenes: Scenes) -> list[str]:
    """For each picture the shortest of its paraphrases."""
    return [min(rows, key=len) for rows in scenes.captions(8, "object")]


def _embeddings(tile: Tile, people: Cast) -> None:
    """A picture, its words and its sound, joined to one point."""
    thing, meeting = people.things[3:4], (TILE / 2, 128)
    words = _short_captions(thing)[0]
    for end in ((48, 48), (176, 66), (TILE / 2, 205)):
        tile.join(end, meeting, FAINT, 3)
    tile.round_image(thing.images[0], 48, 48, 46, BLUE)
    tile.text(176, 36, "\n".join(words.rsplit(" ", 1)), 18, ha="center", linespacing=1.3)
    wave = thing.sounds()[0].unfold(0, 80, 80).abs().amax(1)[:100]
    wave = (wave / wave.max() * 34).numpy()
    xs = (tile.x + torch.linspace(0, TILE, len(wave))).numpy()
    tile.axis.vlines(xs, tile.y + 205 - wave, tile.y + 205 + wave, color=PURPLE, linewidth=1.2, zorder=3)
    tile.box(meeting[0] - 9, meeting[1] - 9, 18, 18, BLUE)


def _zero_shot(tile: Tile, people: Cast) -> None:
    thing = people.things[4:5]
    tile.image(thing.images[0], 0, 0, 112)
    tile.text(0, 146, "a picture\nof a …", 18, va="top", linespacing=1.3, color="#555555")
    truth = SHAPES[thing.labels()[0]]
    names = [name for name in SHAPES if name != truth][2:7]
    names.insert(2, truth)
    for row, name in enumerate(names):
        y = 20 + 40 * row
        if name == truth:
            tile.box(128, y - 17, 112, 34, BLUE, name, weight="bold")
        else:
            tile.text(184, y, name, ha="center", color=GREY)


def _fusion(tile: Tile, people: Cast) -> None:
    """All patches and a question as one sequence; the answer looks at the patches that show the thing asked about."""
    scene, step, side = people.scene, 66, 54
    question = next(q for q in scene.questions(12, ("colour",)) if "star" in q.text)
    words = [*question.text.rstrip("?").split(), "?"]
    star = scene.shape[0].tolist().index(SHAPES.index("star"))
    shares = _patches((scene.instances == star + 1).float(), 4).mean((1, 2, 3))
    for number, patch in enumerate(_patches(scene.images[0], 4)):
        row, column = divmod(number, 8)
        tile.image(patch, column * step, row * step, side)
    x = 0.0
    for word in words:
        width = 24 + 11.2 * len(word)
        tile.box(x, 186, width, 42, SKY, word, color=INK)
        x += width + 8
    tile.box(x, 186, 92, 42, ORANGE, question.answer, weight="bold", color=INK)
    for number in shares.topk(4).indices.tolist():
        row, column = divmod(number, 8)
        tile.join((x + 46, 186), (column * step + side / 2, row * step + side), ORANGE, 2, zorder=3)


TILES: tuple[Callable[[Tile, Cast], None], ...] = (
    _resnet, _vit, _mae, _contrastive, _simclr, _dino, _dinov2, _clip, _embeddings, _zero_shot, _fusion,
)  # fmt: skip

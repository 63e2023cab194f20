"""Every picture of the lessons, in one style: direct labels, a palette that colour-blind readers can tell apart,
a title that says the finding. Functions draw with matplotlib and return the figure's axes."""

import math
import os
from collections.abc import Callable, Mapping, Sequence

import torch
from numpy import ndarray
from torch import Tensor

from . import explorer
from .errors import SettingError
from .kernel import in_kernel

# Okabe & Ito (2008), without yellow, which is hard to see on white.
BLUE, ORANGE, GREEN, RED, PURPLE, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"
GREY, INK = "#8C8C8C", "#222222"
PALETTE = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY)

STYLE = {
    "figure.dpi": 100,
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "lines.linewidth": 2,
    "text.color": INK,
    "axes.labelcolor": INK,
    "image.interpolation": "nearest",
}


def pyplot():
    """matplotlib.pyplot with the style of the lessons."""
    import matplotlib.pyplot as plt
    from cycler import cycler

    plt.rcParams.update(STYLE | {"axes.prop_cycle": cycler(color=PALETTE)})
    return plt


def to_image(picture: Tensor) -> ndarray:
    """(3, H, W) or (H, W), uint8 or float in [0, 1] -> the array (H, W, 3) or (H, W) that matplotlib shows."""
    picture = picture.detach().cpu()
    if picture.dtype != torch.uint8:
        picture = picture.float().clamp(0, 1)
    return (picture.permute(1, 2, 0) if picture.ndim == 3 else picture).numpy()


def panels(rows: int, columns: int, width: float = 1.1, height: float | None = None):
    """A grid of `rows` x `columns` axes without ticks, each `width` inches wide; (figure, flat list of axes)."""
    plt = pyplot()
    figure, grid = plt.subplots(rows, columns, figsize=(columns * width, rows * (height or width)), squeeze=False)
    for axis in grid.flat:
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
        axis.spines[:].set_visible(False)
    return figure, list(grid.flat)


def grid(pictures: Tensor, titles: Sequence[str] = (), *, columns: int = 8, width: float = 1.1, title: str = ""):
    """Pictures (N, 3, H, W) or maps (N, H, W) side by side, each with its title if there are titles."""
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    figure, axes = panels(rows, columns, width, width * (1.25 if titles else 1.05))
    for axis, picture in zip(axes, pictures, strict=False):
        axis.imshow(to_image(picture), cmap="gray")
    for axis, text in zip(axes, titles, strict=False):
        axis.set_title(text, fontsize=8, fontweight="normal", loc="center", pad=3)
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    return axes


def maps(values: Tensor, titles: Sequence[str] = (), *, columns: int = 8, width: float = 1.1, signed: bool = False):
    """Number maps (N, H, W) as heat maps on one common scale; `signed` centres the colours on zero."""
    columns = min(columns, len(values))
    rows = -(-len(values) // columns)
    _, axes = panels(rows, columns, width, width * (1.25 if titles else 1.05))
    top = values.abs().max().item() or 1.0
    limits = {"vmin": -top, "vmax": top, "cmap": "PuOr"} if signed else {"vmin": 0, "vmax": top, "cmap": "viridis"}
    for axis, value in zip(axes, values, strict=False):
        axis.imshow(value.detach().float().cpu().numpy(), **limits)
    for axis, text in zip(axes, titles, strict=False):
        axis.set_title(text, fontsize=8, fontweight="normal", loc="center", pad=3)
    return axes


def curves(
    lines: Mapping[str, Sequence[float] | tuple[Sequence[float], Sequence[float]]],
    *,
    title: str,
    x: str = "step",
    y: str = "training loss",
    baselines: Mapping[str, float] | None = None,
    styles: Mapping[str, dict] | None = None,
    axis=None,
    size: tuple[float, float] = (7.2, 3.6),
):
    """Lines, each labelled at its end; a value is y alone, or (x, y). `baselines` are dashed horizontal lines, such
    as ln K for "has learned nothing"; `styles` gives matplotlib arguments per line."""
    axis = axis or pyplot().subplots(figsize=size)[1]
    ends = []
    for number, (label, line) in enumerate(lines.items()):
        xs, ys = line if isinstance(line, tuple) else (range(1, len(line) + 1), line)
        look = {"color": PALETTE[number % len(PALETTE)]} | dict((styles or {}).get(label, {}))
        axis.plot(xs, ys, **look)
        drawn = [point for point in zip(xs, ys, strict=True) if math.isfinite(point[1])]
        if drawn:
            ends.append([label, *drawn[-1], look["color"]])
    for label, value in (baselines or {}).items():
        axis.axhline(value, color=GREY, linestyle="--", linewidth=1)
        axis.annotate(
            label, (0.99, value), xycoords=("axes fraction", "data"), ha="right", va="bottom", color=GREY, fontsize=9
        )
    _label_ends(axis, ends)
    axis.set(title=title, xlabel=x, ylabel=y)
    return axis


def _label_ends(axis, ends: list[list]) -> None:
    """Write each label right of its line's end, moved up where two would overlap."""
    low, high = axis.get_ylim()
    height = axis.get_window_extent().height * 72 / axis.figure.dpi  # in points
    share = axis.transData + axis.transAxes.inverted()  # places as shares of the axes, so that logarithms work too
    places = sorted(
        (share.transform((x, min(max(y, low), high)))[1], x, y, label, color) for label, x, y, color in ends
    )
    lowest = -1.0
    for place, x, y, label, color in places:
        lowest = max(place, lowest + 14 / height)
        axis.annotate(
            label,
            (x, min(max(y, low), high)),
            (6, (lowest - place) * height),
            textcoords="offset points",
            color=color,
            fontsize=9,
            va="center",
            annotation_clip=False,
        )


def bars(
    values: Mapping[str, float],
    *,
    title: str,
    x: str = "accuracy",
    errors: Mapping[str, float] | None = None,
    marks: Mapping[str, float] | None = None,
    controls: Sequence[str] = (),
    percent: bool = True,
    axis=None,
):
    """Horizontal bars with their numbers; `controls` (what must fail) are grey, `marks` are dashed lines (chance)."""
    axis = axis or pyplot().subplots(figsize=(7.2, 0.5 + 0.42 * len(values)))[1]
    form = (lambda v: f"{100 * v:.1f} %") if percent else (lambda v: f"{v:.3g}")
    for row, (label, value) in enumerate(values.items()):
        error = (errors or {}).get(label)
        axis.barh(
            row, value, xerr=error, color=GREY if label in controls else BLUE, height=0.7, error_kw={"ecolor": INK}
        )
        axis.annotate(
            form(value), (value + (error or 0), row), (4, 0), textcoords="offset points", va="center", fontsize=9
        )
    for label, value in (marks or {}).items():
        axis.axvline(value, color=INK, linestyle="--", linewidth=1)
        axis.annotate(label, (value, len(values) - 0.3), (3, 0), textcoords="offset points", fontsize=8, va="center")
    axis.set_yticks(range(len(values)), list(values))
    axis.set_ylim(len(values) - (0.0 if marks else 0.4), -0.6)
    axis.grid(axis="y", visible=False)
    if percent:
        axis.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    axis.margins(x=0.12)
    axis.set(title=title, xlabel=x)
    return axis


def dots(
    rows: Mapping[str, Mapping[str, float]],
    *,
    title: str,
    x: str = "accuracy",
    errors: Mapping[str, Mapping[str, float]] | None = None,
    percent: bool = True,
    axis=None,
):
    """One line per row with a point for each of its named values, such as {"noise": {"zero-shot": 0.4, "chance":
    0.1}}; a name has one colour in all rows ("chance" is a grey tick), explained in a legend below. `errors` as `rows`,
    drawn as bars to both sides."""
    axis = axis or pyplot().subplots(figsize=(7.2, 1.1 + 0.3 * len(rows)))[1]
    names = sorted(dict.fromkeys(name for row in rows.values() for name in row), key=lambda name: name == "chance")
    colours = dict(zip([name for name in names if name != "chance"], PALETTE, strict=False)) | {"chance": GREY}
    for name in names:
        places = [place for place, row in enumerate(rows.values()) if name in row]
        values = [row[name] for row in rows.values() if name in row]
        spread = [(errors or {}).get(label, {}).get(name, 0.0) for label, row in rows.items() if name in row]
        look = {"marker": "|", "markersize": 13} if name == "chance" else {"marker": "o", "markersize": 6}
        bar = spread if any(spread) else None
        axis.errorbar(values, places, xerr=bar, linestyle="", color=colours[name], label=name, elinewidth=1.2, **look)
    axis.set_yticks(range(len(rows)), list(rows))
    axis.set_ylim(len(rows) - 0.5, -0.5)
    if percent:
        axis.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    axis.set(title=title, xlabel=x)
    if len(names) > 1:
        axis.legend(
            frameon=False,
            ncols=len(names),
            fontsize=9,
            loc="upper center",
            bbox_to_anchor=(0.45, -0.3 / (0.2 * len(rows))),
        )
    return axis


def token_row(patches: Tensor, words: Sequence[str], *, answer: int = 0, title: str = ""):
    """A sequence as a model reads it: picture tokens (N, 3, P, P) and then words, each in a box; the last `answer` of
    them, which are to be predicted, in another colour."""
    figure, axes = panels(1, len(patches) + len(words), 0.62, 0.95)
    for axis, patch in zip(axes, patches, strict=False):
        axis.imshow(to_image(patch))
    for place, (axis, word) in enumerate(zip(axes[len(patches) :], words, strict=True)):
        colour = ORANGE if place >= len(words) - answer else SKY
        axis.set(xlim=(0, 1), ylim=(0, 1))
        axis.set_aspect("equal")
        axis.add_patch(pyplot().Rectangle((0, 0), 1, 1, color=colour, alpha=0.35))
        axis.text(0.5, 0.5, word, ha="center", va="center", fontsize=8)
    for number, axis in enumerate(axes):
        axis.set_xlabel(str(number), fontsize=7, color=GREY, labelpad=1)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    return axes


def table(values: Mapping[str, Mapping[str, float]], *, title: str, axis=None, controls: Sequence[str] = ()):
    """Shares in [0, 1] as a coloured table, {row: {column: share}}: darker is higher, the number in each cell. Rows in
    `controls` (what must fail) are named in grey; a missing value leaves its cell empty."""
    columns = list(dict.fromkeys(column for row in values.values() for column in row))
    axis = axis or pyplot().subplots(figsize=(1.8 + 0.82 * len(columns), 0.7 + 0.36 * len(values)))[1]
    cells = [[row.get(column, math.nan) for column in columns] for row in values.values()]
    axis.imshow(cells, cmap="Blues", vmin=0, vmax=1.15, aspect="auto")
    for y, row in enumerate(cells):
        for x, share in enumerate(row):
            if math.isfinite(share):
                colour = "white" if share > 0.7 else INK
                axis.text(x, y, f"{100 * share:.0f}", ha="center", va="center", fontsize=9, color=colour)
    axis.set_xticks(range(len(columns)), columns)
    axis.set_yticks(range(len(values)), list(values))
    axis.tick_params(length=0, labeltop=True, labelbottom=False)
    axis.spines[:].set_visible(False)
    axis.grid(False)
    for label in axis.get_yticklabels():
        label.set_color(GREY if label.get_text() in controls else INK)
    axis.set_title(f"{title} (in %)", pad=10)
    return axis


def steps(rows: Sequence[tuple[str, str, str, str]], *, title: str):
    """A page that tells a path: for each row a number in a circle, a name, what it added, and what was measured, on one
    line down the left."""
    import textwrap

    lines = [
        (number, name, added, textwrap.wrap(found, 92, max_lines=2, placeholder=" …"))
        for number, name, added, found in rows
    ]
    axis = pyplot().subplots(figsize=(11.5, 0.62 * len(rows) + 0.5))[1]
    axis.plot([0, 0], [0, len(rows) - 1], color=GREY, linewidth=2, zorder=1)
    for y, (number, name, added, found) in enumerate(lines):
        axis.scatter([0], [y], s=480, color=BLUE, zorder=2)
        axis.text(0, y, number, color="white", ha="center", va="center", fontweight="bold")
        axis.text(0.035, y - 0.12, name, fontweight="bold", va="bottom")
        axis.text(0.035, y + 0.02, added, fontsize=9, va="top")
        axis.text(0.47, y, "\n".join(found), fontsize=8.5, va="center", color=INK if found else GREY)
    axis.set(xlim=(-0.03, 1.1), ylim=(len(rows) - 0.4, -0.7), title=title)
    axis.axis("off")
    return axis


def explore(draw: Callable[..., object], **controls):
    """Let the reader turn `draw(**values)`: (low, high) or (low, high, step) is a slider, a list of numbers a slider
    over them in order, another list a menu, a bool a box to tick, a text a field. Each begins with the middle of its
    range, the first of its list, or the value itself. A saved notebook keeps the last picture. Where controls cannot
    move (a headless run, a terminal, no ipywidgets) draws the first setting once."""
    if empty := [name for name, control in controls.items() if isinstance(control, (list, range)) and not len(control)]:
        raise SettingError(f"{empty[0]} is an empty list: name at least one value to choose.")
    first = {name: _first(control) for name, control in controls.items()}
    if os.environ.get("LESSONS_HEADLESS") == "1" or not in_kernel():
        draw(**first)
        return
    try:
        explorer.explore(draw, controls, first)
    except ModuleNotFoundError as error:
        if error.name != "ipywidgets":
            raise
        draw(**first)
        print("To turn this yourself: pip install ipywidgets, then restart the kernel.")


def _first(control):
    """What a control begins with: the middle of a range, the first of a list, the value itself."""
    if isinstance(control, tuple) and len(control) >= 2 and all(isinstance(end, (int, float)) for end in control):
        middle = control[0] + (control[1] - control[0]) / 2
        return int(middle) if all(isinstance(end, int) for end in control) else middle
    if isinstance(control, Mapping):
        return next(iter(control.values()))
    return control[0] if isinstance(control, (list, tuple, range)) else getattr(control, "value", control)

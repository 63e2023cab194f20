"""Every picture of the lessons: draws without a display, labels that can be read, sliders only where they can move."""

import math

import matplotlib
import numpy as np
import pytest
import torch

matplotlib.use("Agg")

from matplotlib import pyplot as plt  # noqa: E402

from lessons import figures  # noqa: E402
from tests.kernels import WIDGET, errors, kernel, outputs, printed  # noqa: E402


@pytest.fixture(autouse=True)
def closed():
    """Figures of one test do not stay for the next; the style goes back to matplotlib's."""
    with matplotlib.rc_context():
        yield
    plt.close("all")


def drawn(axis):
    """The figure of an axis, laid out and drawn, so that positions are final."""
    axis.figure.canvas.draw()
    return axis.figure


def boxes(axis, labels):
    """Extent in pixels of the annotations with these texts."""
    renderer = drawn(axis).canvas.get_renderer()
    found = {text.get_text(): text.get_window_extent(renderer) for text in axis.texts}
    return [found[label] for label in labels]


def assert_readable(axis, labels):
    """No label lies on another, all lie in the figure and right of the last point they name."""
    extents = boxes(axis, labels)
    for i, one in enumerate(extents):
        assert not any(one.overlaps(other) for other in extents[i + 1 :]), labels[i]
        assert axis.figure.bbox.x0 <= one.x0 and one.x1 <= axis.figure.bbox.x1 + 1, labels[i]
    return extents


# Pictures


def test_to_image_of_what_tensors_hold():
    colour = torch.randint(256, (3, 4, 5), dtype=torch.uint8)
    assert (figures.to_image(colour) == colour.permute(1, 2, 0).numpy()).all()
    assert figures.to_image(colour[0]).shape == (4, 5)
    floats = torch.tensor([-0.5, 0.25, 1.5]).view(3, 1, 1).requires_grad_()
    shown = figures.to_image(floats)
    assert shown.flatten().tolist() == [0, 0.25, 1]
    assert figures.to_image(torch.rand(2, 2).half()).dtype == "float32"


@pytest.mark.parametrize(
    "pictures",
    [torch.randint(256, (10, 3, 8, 8), dtype=torch.uint8), torch.rand(10, 3, 8, 8), torch.rand(10, 8, 8)],
    ids=["uint8", "float", "grey"],
)
def test_grid(pictures):
    axes = figures.grid(pictures, [f"n {i}" for i in range(10)], columns=4, title="Ten")
    assert len(axes) == 12 and [axis.get_title() for axis in axes[:10]] == [f"n {i}" for i in range(10)]
    assert [len(axis.images) for axis in axes] == [1] * 10 + [0, 0]
    assert drawn(axes[0]).get_suptitle() == "Ten"
    assert not any(len(axis.get_xticks()) for axis in axes)


def test_grid_of_fewer_pictures_than_columns_and_without_titles():
    axes = figures.grid(torch.rand(3, 3, 8, 8))
    assert len(axes) == 3 and not any(axis.get_title() for axis in axes)


def test_maps_share_one_scale():
    values = torch.tensor([1.0, -4.0, 2.0]).view(3, 1, 1).expand(3, 5, 5)
    limits = {axis.images[0].get_clim() for axis in figures.maps(values, signed=True)}
    assert limits == {(-4, 4)}  # zero is in the middle of the colours
    assert {axis.images[0].get_clim() for axis in figures.maps(values.abs(), ["a", "b", "c"])} == {(0, 4)}
    drawn(figures.maps(torch.zeros(2, 5, 5, requires_grad=True))[0])


def test_panels():
    figure, axes = figures.panels(2, 3, width=1.5, height=2)
    assert len(axes) == 6 and figure.get_size_inches().tolist() == [4.5, 4]
    drawn(axes[0])


# Curves


def test_curves_draw_each_line_with_its_label_in_its_colour():
    axis = figures.curves(
        {"counted": [3, 2, 1], "placed": ([10, 20], [2.5, 2])},
        title="It falls",
        baselines={"guessing": 2.3},
        styles={"placed": {"color": figures.GREY, "linestyle": ":"}},
    )
    counted, placed, baseline = axis.lines
    assert counted.get_xydata().tolist() == [[1, 3], [2, 2], [3, 1]]
    assert placed.get_xydata().tolist() == [[10, 2.5], [20, 2]] and placed.get_linestyle() == ":"
    assert baseline.get_ydata()[0] == 2.3 and baseline.get_linestyle() == "--"
    assert {text.get_text(): text.get_color() for text in axis.texts} == {
        "counted": figures.BLUE,
        "placed": figures.GREY,
        "guessing": figures.GREY,
    }
    assert (axis.get_title(loc="left"), axis.get_xlabel(), axis.get_ylabel()) == ("It falls", "step", "training loss")
    drawn(axis)


@pytest.mark.parametrize("scale", ["linear", "log"])
@pytest.mark.parametrize("ends", [[1.0] * 5, [1.0, 1.01, 1.02, 3.0, 3.01], [0.1, 0.11, 5, 9.9, 10]])
def test_labels_at_line_ends_do_not_overlap(scale, ends):
    axis = figures.pyplot().subplots(figsize=(7.2, 3.6))[1]
    axis.set_yscale(scale)
    lines = {f"a long label {i}": [10.0, 0.1, end] for i, end in enumerate(ends)}
    figures.curves(lines, title="Many", axis=axis)
    extents = assert_readable(axis, list(lines))
    middles = [(box.y0 + box.y1) / 2 for box in extents]
    assert middles == sorted(middles), "labels stand in the order of their lines"
    last = axis.transData.transform((3, 1))[0]
    assert all(last < box.x0 < last + 20 for box in extents)


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_a_label_with_room_stands_at_the_height_of_its_end(scale):
    axis = figures.pyplot().subplots(figsize=(7.2, 3.6))[1]
    axis.set_yscale(scale)
    figures.curves({"low": [10.0, 0.1], "high": [1, 8.0]}, title="Two", axis=axis)
    for box, end in zip(boxes(axis, ["low", "high"]), (0.1, 8), strict=True):
        assert (box.y0 + box.y1) / 2 == pytest.approx(axis.transData.transform((2, end))[1], abs=4)


def test_two_panels_in_one_figure_keep_their_labels_apart():
    _, axes = figures.pyplot().subplots(1, 2, figsize=(9, 3.2), sharey=True)
    for axis in axes:
        figures.curves({"20 layers": [2.3, 1.50], "56 layers": [2.3, 1.52]}, title="x", axis=axis)
    for axis in axes:
        assert_readable(axis, ["20 layers", "56 layers"])


@pytest.mark.parametrize("values", [torch.tensor([3.0, 2.0]), np.array([3.0, 2.0])])
def test_curves_take_tensors_and_arrays(values):
    drawn(figures.curves({"a": values, "b": (values, values)}, title="t"))


def test_lines_that_were_interrupted_or_diverged_are_still_drawn():
    axis = figures.curves({"empty": [], "diverged": [2.0, 1.0, math.nan], "whole": [2.0, 1.5, 1.2]}, title="t")
    assert_readable(axis, ["diverged", "whole"])
    assert {text.get_text() for text in axis.texts} == {"diverged", "whole"}
    drawn(figures.curves({"empty": []}, title="nothing at all"))


# Bars


def test_bars_carry_their_numbers_controls_are_grey_and_marks_dashed():
    values = {"ours": 0.823, "pixels": 0.35, "shuffled": 0.101}
    axis = figures.bars(values, title="Ours wins", errors={"ours": 0.01}, marks={"chance": 0.1}, controls=["shuffled"])
    colours = [matplotlib.colors.to_hex(bar.get_facecolor()).upper() for bar in axis.patches]
    assert colours == [figures.BLUE.upper(), figures.BLUE.upper(), figures.GREY.upper()]
    assert [bar.get_width() for bar in axis.patches] == list(values.values())
    assert [text.get_text() for text in axis.texts] == ["82.3 %", "35.0 %", "10.1 %", "chance"]
    assert [label.get_text() for label in axis.get_yticklabels()] == list(values)
    first, last = (axis.transData.transform((0, row))[1] for row in (0, 2))
    assert first > last  # the first bar is on top
    drawn(axis)
    assert all(tick.get_text().endswith("%") for tick in axis.get_xticklabels())


def test_bars_of_plain_numbers():
    axis = figures.bars({"a": 12.3456, "b": -3}, title="t", x="loss", percent=False)
    assert [text.get_text() for text in axis.texts] == ["12.3", "-3"] and axis.get_xlabel() == "loss"
    drawn(axis)


def test_colours_differ_for_colour_blind_readers():
    """Lightness alone, which every reader sees, tells the first two colours apart, and light from dark blue."""
    assert len(set(figures.PALETTE)) == len(figures.PALETTE) == 6
    dark, orange, sky = (
        np.dot(matplotlib.colors.to_rgb(colour), [0.2126, 0.7152, 0.0722])
        for colour in (figures.BLUE, figures.ORANGE, figures.SKY)
    )
    assert min(orange, sky) - dark > 0.15


# Sliders


@pytest.mark.parametrize(
    ("control", "first"),
    [((3, 40), 21), ((0.0, 1.0), 0.5), ((0, 10, 2), 5), ([6, 1, 2], 6), (True, True), ("text", "text"), (0.3, 0.3)],
)
def test_a_headless_run_draws_the_first_setting_once(monkeypatch, control, first):
    monkeypatch.setenv("LESSONS_HEADLESS", "1")
    calls = []
    figures.explore(lambda **values: calls.append(values), a=control)
    assert calls == [{"a": first}] and type(calls[0]["a"]) is type(first)


def test_where_there_is_no_notebook_the_first_setting_is_drawn_once():
    calls = []
    figures.explore(lambda **values: calls.append(values), a=(3, 40), b=["x", "y"])
    assert calls == [{"a": 21, "b": "x"}]


# Sliders in a real kernel: `turn` moves one, as the browser does

SETUP = """
import ipywidgets
from IPython.display import HTML, display
from lessons import figures

plt = figures.pyplot()

controls = {}  # of the last call

class Box(ipywidgets.VBox):
    def __init__(self, children):
        super().__init__(children)
        controls.clear()
        controls.update({one.description: one for one in children})

ipywidgets.VBox = Box

def turn(name, value):
    controls[name].value = value

def kind(one):
    print(type(one).__name__, getattr(one, "options", ""), one.value, getattr(one, "continuous_update", ""))
"""


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    with kernel(LESSONS_CACHE_DIR=str(tmp_path_factory.mktemp("cache"))) as one:
        assert not errors(one.run(SETUP))
        yield one


def updates(messages):
    """What a move puts in the place of the earlier outputs, those that stay empty left out."""
    assert not [kind for kind, _ in messages if kind == "display_data"], "nothing may be added to another cell"
    return [
        content["data"] for kind, content in messages if kind == "update_display_data" and any(content["data"].values())
    ]


def test_the_picture_is_an_ordinary_output_that_a_move_replaces(live):
    shown = live.run("""
plt.subplots(figsize=(1, 1))[1].set_title("drawn before")
def draw(tau):
    plt.subplots(figsize=(2, tau))
figures.explore(draw, tau=[2, 1, 3])""")
    before, controls, picture, *spare = outputs(shown)
    assert "image/png" in before and WIDGET in controls and "image/png" in picture and WIDGET not in picture
    assert not any(value for data in spare for value in data.values())
    ids = {content["transient"].get("display_id") for kind, content in shown if kind == "display_data"}
    moved = live.run("turn('tau', 3)")
    (other,) = updates(moved)
    assert "image/png" in other and other["image/png"] != picture["image/png"]
    assert {content["transient"]["display_id"] for kind, content in moved if kind.startswith("update")} <= ids
    sizes = [
        c["metadata"]["image/png"] for kind, c in shown + moved if c.get("metadata") and "image/png" in c["metadata"]
    ]
    assert len(sizes) == 2 and sizes[0]["height"] < sizes[1]["height"]
    (back,) = updates(live.run("turn('tau', 2)"))
    assert back["image/png"] == picture["image/png"]


def test_text_sounds_and_html_are_replaced_like_pictures(live):
    shown = live.run("""
def search(words, sound):
    if not words:
        return print("Ask for something.")
    plt.subplots(figsize=(1, 1))
    if sound:
        display(HTML("<audio></audio>"))
    plt.show()
figures.explore(search, words="ring", sound=["", "star"])""")
    assert [sorted(data)[0] for data in outputs(shown)[1:2]] == ["image/png"]
    assert ["text/html" in data for data in updates(live.run("turn('sound', 'star')"))] == [True, False]
    assert updates(live.run("turn('words', '')")) == [{"text/plain": "Ask for something."}]
    assert len(updates(live.run("turn('words', 'cross')"))) == 2


def test_an_error_of_the_first_setting_is_raised_and_of_a_later_one_shown(live):
    assert "ZeroDivisionError" in errors(live.run("figures.explore(lambda bad: 1 / bad, bad=[0, 1])"))[0][-1]
    shown = live.run("""
def half(share):
    plt.subplots(figsize=(1, 1))
    1 / (share - 3)
figures.explore(half, share=[1, 2, 3])""")
    assert len(outputs(shown)) > 1 and not errors(shown)
    failed = live.run("turn('share', 3)")
    assert updates(failed) == [{"text/plain": "ZeroDivisionError: division by zero"}] and not errors(failed)
    (picture,) = updates(live.run("turn('share', 2)"))
    assert "image/png" in picture


def test_more_outputs_than_there_is_room_for_are_named(live):
    live.run("figures.explore(lambda rows: [display(HTML(str(row))) for row in range(rows)], rows=[1, 2, 6])")
    *_, last = updates(live.run("turn('rows', 6)"))
    assert last == {"text/plain": "There is no room here for 4 more outputs."}


@pytest.mark.parametrize(
    ("control", "made"),
    [
        ("[0.5, 0.1, 2, 0.1]", "SelectionSlider (0.1, 0.5, 2) 0.5 False"),
        ("range(3)", "SelectionSlider (0, 1, 2) 0 False"),
        ("(3, 40)", "IntSlider  21 False"),
        ("(0.0, 1.0)", "FloatSlider  0.5 False"),
        ("['b', 'a']", "Dropdown ('b', 'a') b "),
        ("[True, False]", "Dropdown (True, False) True "),
        ("{'one': 1, 'two': 2}", "Dropdown {'one': 1, 'two': 2} 1 "),
        ("True", "Checkbox  True "),
        ("'ring'", "Text  ring False"),
        ("ipywidgets.IntText(4)", "IntText  4 False"),
    ],
)
def test_a_control_fits_its_values_and_begins_with_the_first(live, control, made):
    assert not errors(live.run(f"figures.explore(lambda x: None, x={control})"))
    assert printed(live.run("kind(controls['x'])")) == made + "\n"


def test_a_control_that_cannot_be_made_is_an_error_with_the_choices(live):
    ((*_, last),) = errors(live.run("figures.explore(lambda x: None, x=None)"))
    assert "No control can be made of x=None. Expected (low, high), a list" in last


def test_without_ipywidgets_the_still_picture_and_how_to_get_the_controls(tmp_path):
    with kernel(LESSONS_CACHE_DIR=str(tmp_path)) as one:
        one.run("import sys; sys.modules['ipywidgets'] = None\nfrom lessons import figures")
        shown = one.run("figures.explore(lambda a: figures.pyplot().subplots(figsize=(1, a)), a=[2, 1])")
        assert not errors(shown) and ["image/png" in data for data in outputs(shown)] == [True]
        assert printed(shown) == "To turn this yourself: pip install ipywidgets, then restart the kernel.\n"

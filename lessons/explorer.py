"""Controls above a picture. The controls are widgets; the picture is an ordinary output that is replaced in place, so
that a saved notebook keeps the last one."""

import base64
import struct
from collections.abc import Callable, Mapping
from typing import Any

from .errors import SettingError

Bundle = tuple[dict[str, Any], dict[str, Any]]  # what a notebook shows, by MIME type, and its metadata
SPARE = 2  # outputs kept free below the picture: a setting may show more than the first one did


def explore(draw: Callable[..., object], controls: Mapping[str, Any], first: Mapping[str, Any]) -> None:
    """Show a widget for each of `controls`, set to its value in `first`, and below them what `draw(**values)` shows:
    figures, sounds, HTML, printed text. An error of the first call is raised, a later one is shown in the output.
    Raises ImportError where there is no ipywidgets, SettingError for a control that no widget fits."""
    import ipywidgets
    from IPython.display import display

    widgets = {name: _widget(name, control, first[name]) for name, control in controls.items()}
    shown = _shown(draw, first)
    again = ipywidgets.HTML("<small>In a notebook opened anew, run this cell again to turn these.</small>")
    display(ipywidgets.VBox([*widgets.values(), again]))
    handles = [
        display(data, metadata=metadata, raw=True, display_id=True) for data, metadata in shown + [_text("")] * SPARE
    ]

    def redraw(_: object) -> None:
        try:
            new = _shown(draw, {name: widget.value for name, widget in widgets.items()})
        except Exception as error:
            new = [_text(f"{type(error).__name__}: {error}")]
        if len(new) > len(handles):
            new[len(handles) - 1 :] = [_text(f"There is no room here for {len(new) - len(handles) + 1} more outputs.")]
        for handle, (data, metadata) in zip(handles, new + [_text("")] * (len(handles) - len(new)), strict=True):
            handle.update(data, metadata=metadata, raw=True)

    for widget in widgets.values():
        widget.observe(redraw, "value")


def _widget(name: str, control: Any, value: Any) -> Any:
    """A widget for one control: numbers in a list become a slider over them in order, the rest what ipywidgets makes of
    it. It reports a value when it is let go, not on the way."""
    import ipywidgets

    numbers = isinstance(control, (list, range)) and all(type(option) in (int, float) for option in control)
    if numbers:
        widget = ipywidgets.SelectionSlider(options=sorted(set(control)))
    elif isinstance(control, list) and any(isinstance(option, tuple) for option in control):  # no (label, value) pairs
        widget = ipywidgets.Dropdown(options=[(str(option), option) for option in control])
    else:
        widget = ipywidgets.interactive.widget_from_abbrev(control)
    if widget is None:
        raise SettingError(
            f"No control can be made of {name}={control!r}. Expected (low, high), a list, a bool, a number, a text or "
            "a widget."
        )
    widget.value = value
    widget.description = widget.description or name
    if widget.has_trait("continuous_update"):
        widget.continuous_update = False
    return widget


def _shown(draw: Callable[..., object], values: Mapping[str, Any]) -> list[Bundle]:
    """What `draw(**values)` shows: its printed text first, then the rest in order."""
    from IPython.utils.capture import capture_output
    from matplotlib import pyplot
    from matplotlib_inline.backend_inline import flush_figures

    flush_figures()  # what the cell has drawn before stands above, and is not part of this
    before = pyplot.get_fignums()
    try:
        with capture_output(stderr=False) as captured:
            draw(**values)
            flush_figures()
    except BaseException:
        for number in set(pyplot.get_fignums()) - set(before):  # half a figure would come with the next one
            pyplot.close(number)
        raise
    text = [_text(captured.stdout.rstrip())] if captured.stdout.strip() else []
    return text + [_sized(output.data, output.metadata or {}) for output in captured.outputs]


def _text(text: str) -> Bundle:
    return {"text/plain": text}, {}


def _sized(data: dict[str, Any], metadata: dict[str, Any]) -> Bundle:
    """The same, where it is a PNG with its size beside it: the page then leaves room before the picture is decoded, and
    does not jump."""
    if "image/png" in data and "image/png" not in metadata:
        header = base64.b64decode(data["image/png"][:32])  # 24 bytes, the last 8 of them the size
        width, height = struct.unpack(">II", header[16:])
        metadata = metadata | {"image/png": {"width": width, "height": height}}
    return data, metadata

"""Progress bars: text in a terminal, a line of HTML in a notebook, which leaves nothing behind when it is done."""

import html
import os
from typing import Any

from tqdm import tqdm

from .kernel import in_kernel


def bar(*arguments: Any, **options: Any) -> tqdm:
    """A progress bar with tqdm's arguments; off in headless runs, whose output is kept."""
    headless = os.environ.get("LESSONS_HEADLESS") == "1"
    return (NotebookBar if in_kernel() and not headless else tqdm)(*arguments, disable=headless, **options)


class NotebookBar(tqdm):
    """A bar drawn as an ordinary output and not as a widget, so that a saved notebook shows no broken one. All bars of
    a cell share one output (see `_Board`). Redrawn at most four times a second."""

    def __init__(self, *arguments: Any, **options: Any):
        self.board = _board()
        shown_here = {"gui": True, "mininterval": 0.25, "miniters": 1, "ncols": 100, "ascii": " #"}
        super().__init__(*arguments, **shown_here, **options)
        if self.delay <= 0:
            self.refresh()

    def refresh(self, *_: Any, **__: Any) -> None:
        """Draw it now. Interrupting lets go of the lock here, unlike in tqdm, so that other threads can go on."""
        if not self.disable:
            with self.get_lock():
                self.display()

    def display(self, *_: Any, **__: Any) -> None:
        """Draw what is done, the loss (or what else was set as postfix) and the time left."""
        numbers = self.format_dict
        left = (self.total - self.n) / numbers["rate"] if self.total and numbers["rate"] else None
        parts = [f"{self.n:,} of {self.total:,}{self.unit}" if self.total else f"{self.n:,}{self.unit}"]
        parts += [self.postfix.replace("=", " ")] if self.postfix else []
        parts += [] if left is None else [f"{self.format_interval(left)} left"]
        share = f'value="{self.n}" max="{self.total}"' if self.total else ""
        title, text = html.escape(self.desc), html.escape(", ".join(parts))
        self.board.show(id(self), str(self), f"<div>{title} <progress {share}></progress> {text}</div>")

    def close(self) -> None:
        """Take it away."""
        if not getattr(self, "disable", True):
            super().close()
            with self.get_lock():
                self.board.remove(id(self))


class _Board:
    """The one output of a cell in which its bars stand below each other; emptied when the last of them is closed."""

    def __init__(self, cell: int):
        self.cell = cell
        self.rows: dict[int, tuple[str, str]] = {}
        self.handle: Any = None

    def show(self, name: int, plain: str, rich: str) -> None:
        self.rows[name] = plain, rich
        self._draw()

    def remove(self, name: int) -> None:
        if self.rows.pop(name, None):
            self._draw()

    def _draw(self) -> None:
        from IPython.display import display

        plain, rich = ("\n".join(row[kind] for row in self.rows.values()) for kind in (0, 1))
        bundle = {"text/plain": plain, "text/html": rich}
        if self.handle is None:
            self.handle = display(bundle, raw=True, display_id=True)
        else:
            self.handle.update(bundle, raw=True)


_latest = _Board(-1)


def _board() -> _Board:
    """The board of the cell that is running."""
    global _latest
    from IPython import get_ipython

    with tqdm.get_lock():
        if _latest.cell != get_ipython().execution_count:
            _latest = _Board(get_ipython().execution_count)
        return _latest

"""What a notebook's kernel does for its reader. Imported when a kernel starts, so nothing heavy is imported here."""

import dis
import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

CONFIGURATION = """\
# Written by `make lab`: a name whose cell has not run yet is explained below the error.
c = get_config()
c.InteractiveShellApp.extensions.append("lessons.kernel")
"""


def in_kernel() -> bool:
    """Whether this process is the kernel of a notebook (not a terminal, and not IPython in one)."""
    return "IPython" in sys.modules and hasattr(sys.modules["IPython"].get_ipython(), "kernel")


def install(prefix: Path | str) -> Path:
    """Let every kernel of the environment at `prefix` load this module when it starts; returns the file that says so.

    What else stands in that file stays. IPython only warns where an extension cannot be loaded, so a kernel starts in
    any case. Raises StorageError where the file cannot be written.
    """
    from . import store

    path = Path(prefix) / "etc" / "ipython" / "ipython_kernel_config.py"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if CONFIGURATION not in text:
        with store.atomic(path) as partial:
            partial.write_text(f"{text}\n{CONFIGURATION}" if text else CONFIGURATION, encoding="utf-8")
    return path


def explain_missing_names() -> None:
    """In a kernel, explain from now on each NameError, see `explain`; does nothing elsewhere."""
    if in_kernel():
        load_ipython_extension(sys.modules["IPython"].get_ipython())


def load_ipython_extension(shell: Any) -> None:
    """What IPython calls for an extension; a second call changes nothing."""
    if explain not in shell.events.callbacks["post_run_cell"]:
        shell.events.register("post_run_cell", explain)


def explain(result: Any) -> None:
    """Below a NameError, one line where the name is made in a cell further up that has not run. Nothing for a name
    that no such cell makes, and nothing where the notebook cannot be read: the error itself has been shown."""
    error = result.error_in_exec
    if type(error) is not NameError or not _in_a_cell(error):
        return
    shell = sys.modules["IPython"].get_ipython()
    for cells in _notebooks(shell.user_ns):
        above = _above(cells, getattr(result.info, "cell_id", None), result.info.raw_cell)
        if above is not None:
            if error.name in _made(shell.transform_cell(_source(cell)) for cell in above):
                print(
                    f"`{error.name}` is made in a cell further up that has not run to its end in this kernel. "
                    "Choose Run > Run All Above Selected Cell, then run this cell again."
                )
            return


def _in_a_cell(error: NameError) -> bool:
    """Whether the name was missing in the notebook's own code, and not in a module that it called."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_globals.get("__name__") == "__main__"


def _notebooks(names: dict[str, Any]) -> Iterator[list[dict]]:
    """The code cells of the notebook that runs here, where the server (or VS Code) names it; else those of each
    published notebook, if this is a checkout."""
    told = os.environ.get("JPY_SESSION_NAME") or names.get("__vsc_ipynb_file__")
    published = Path(__file__).parents[1] / "notebooks"
    for path in [Path(told)] if told else sorted(published.glob("*.ipynb")):
        try:
            cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
            yield [cell for cell in cells if cell["cell_type"] == "code"]
        except (OSError, ValueError, KeyError, TypeError):
            continue


def _above(cells: list[dict], cell_id: str | None, text: str) -> list[dict] | None:
    """The cells above the one with this id, or, where no cell has it, above the one with this text; None where there
    is neither."""
    for same in (lambda cell: cell_id and cell.get("id") == cell_id, lambda cell: _source(cell) == text):
        for place, cell in enumerate(cells):
            if same(cell):
                return cells[:place]
    return None


def _source(cell: dict) -> str:
    return "".join(cell["source"])  # a string, or a list of lines


def _made(cells: Iterable[str]) -> set[str]:
    """The names that these cells define, assign or import at their top level."""
    names: set[str] = set()
    for code in cells:
        with suppress(SyntaxError, ValueError):
            stored = dis.get_instructions(compile(code, "cell", "exec"))
            names |= {step.argval for step in stored if step.opname == "STORE_NAME"}
    return names

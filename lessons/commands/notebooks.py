"""Notebooks as files: one form for all of them, in step with their sources, and their solved variants."""

import ast
import hashlib
import json
from collections.abc import Iterable
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from .. import course, exercises, store
from ..errors import LessonError
from . import checkout, chosen, notebook

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
WIDGET = "application/vnd.jupyter.widget-view+json"
SOLVED_TAGS = {"setup", "exercise", "check"}


def read(path: Path) -> Any:
    """The notebook (nbformat 4) in an .ipynb or a percent-format .py file; LessonError where it cannot be read."""
    import nbformat

    try:
        if path.suffix == ".py":
            return _jupytext().read(path)
        return nbformat.read(path, as_version=4)
    except (OSError, ValueError, nbformat.ValidationError) as error:
        raise LessonError(f"{path} cannot be read as a notebook: {error}") from error


def _jupytext() -> Any:
    try:
        import jupytext
    except ImportError as error:
        raise LessonError("jupytext is not installed. Run `make setup`, or pip install 'jupytext>=1.16'.") from error
    return jupytext


def write(notebook: Any, path: Path) -> None:
    """Write a notebook as every tool here does: JSON with one blank of indentation, atomically."""
    text = json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    with store.atomic(path) as partial:
        partial.write_text(text, encoding="utf-8")


def normalise(notebook: Any) -> Any:
    """The notebook in the form that is committed, changed in place: the same metadata everywhere, no times, no widget
    state, and cell ids that stay, so that the next run changes only what it measured."""
    notebook.metadata = {"kernelspec": dict(KERNEL), "language_info": {"name": "python"}}
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    taken: set[str] = set()
    for cell in notebook.cells:
        tags = cell.metadata.get("tags")
        cell.metadata = {"tags": list(tags)} if tags else {}
        cell["id"] = _identity(cell, taken)
        cell.pop("attachments", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]
            for output in cell.outputs:
                if "execution_count" in output:
                    output["execution_count"] = cell.execution_count
    return notebook


def _identity(cell: Any, taken: set[str]) -> str:
    """The id the cell has, or, for a new cell, one made from its text; unique in either case."""
    wanted = cell.get("id") or hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:8]
    name, number = wanted, 2
    while name in taken:
        name, number = f"{wanted}-{number}", number + 1
    taken.add(name)
    return name


def carry_over(source: Any, old: Any | None) -> Any:
    """The cells of `source` with the outputs and ids of `old`: a cell with the same text keeps both, one whose text was
    changed in place keeps its id."""
    for cell in source.cells:
        cell.pop("id", None)
    if old is not None:
        texts = [[(cell.cell_type, cell.source) for cell in book.cells] for book in (old, source)]
        for kind, a, a_end, b, b_end in SequenceMatcher(None, *texts, autojunk=False).get_opcodes():
            if kind == "equal" or (kind == "replace" and a_end - a == b_end - b):
                _inherit(old.cells[a:a_end], source.cells[b:b_end])
    return normalise(source)


def _inherit(before: Iterable[Any], after: Iterable[Any]) -> None:
    for old, new in zip(before, after, strict=True):
        if old.cell_type != new.cell_type:
            continue
        if "id" in old:
            new["id"] = old["id"]
        if old.cell_type == "code" and old.source == new.source:
            new.outputs, new.execution_count = old.outputs, old.execution_count


def sync() -> list[Path]:
    """Carry every notebooks/source/*.py over to its notebook; returns the notebooks that changed."""
    root, changed = checkout(), []
    for source in sorted((root / "notebooks" / "source").glob("*.py")):
        target = root / "notebooks" / f"{source.stem}.ipynb"
        before = target.read_text(encoding="utf-8") if target.is_file() else None
        write(carry_over(read(source), read(target) if before else None), target)
        if target.read_text(encoding="utf-8") != before:
            changed.append(target)
            print(f"{target.relative_to(root)}: {'updated' if before else 'new; run it to get its outputs'}")
    return changed


def checked_ids(source: str) -> set[str]:
    """The exercise ids in the calls check("...") of a cell's code."""
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    return {
        call.args[0].value
        for call in calls
        if getattr(call.func, "attr", getattr(call.func, "id", "")) == "check"
        and call.args
        and isinstance(call.args[0], ast.Constant)
    }


def solve(which: str, out: Path) -> list[Path]:
    """Write the solved exercise section of each chosen lesson to `out`: its cells tagged setup, exercise or check, in
    order, with every stub replaced by the solution. Raises LessonError where an exercise is never checked."""
    root, written = checkout(), []
    for lesson in chosen(which, root):
        path = out / f"{lesson.stem}.ipynb"
        write(solved(read(notebook(lesson, root)), lesson), path)
        written.append(path)
    for path in out.glob("*.ipynb") if which == "all" else ():
        if path not in written:
            path.unlink()
    return written


def solved(book: Any, lesson: course.Lesson) -> Any:
    """The solved variant of one notebook (changed in place)."""
    known = exercises.load(lesson.number)
    book.cells = [cell for cell in book.cells if SOLVED_TAGS & set(cell.metadata.get("tags", ()))]
    checked: set[str] = set()
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.source = exercises.solved_source(cell.source, known)
            cell.outputs, cell.execution_count = [], None
            checked |= checked_ids(cell.source)
    missing = [exercise.id for exercise in known if exercise.id not in checked and not exercise.open]
    if missing:
        raise LessonError(f"{lesson.stem}: no cell tagged `check` calls check(...) for exercise {', '.join(missing)}.")
    return normalise(book)

"""Notebooks as files: one form for all of them, in step with their sources, their solved variants and their cuts."""

import ast
import hashlib
import json
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from .. import course, exercises, store
from ..errors import LessonError
from . import checkout, chosen, committed, mine, notebook

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
WIDGET = "application/vnd.jupyter.widget-view+json"
SOLVED_TAGS = {"setup", "exercise", "check"}
EMPTY = hashlib.sha256(b"").hexdigest()[:16]  # a cell without text is nobody's work


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
    with store.atomic(path) as partial:
        partial.write_text(_form(notebook), encoding="utf-8")


def _form(notebook: Any) -> str:
    return json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


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
    """Carry every notebooks/source/*.py over to its notebook; returns the notebooks that changed. A notebook with cells
    of a reader's own is kept in notebooks/mine first."""
    root, changed, carried = checkout(), [], {}
    for source in sorted((root / "notebooks" / "source").glob("*.py")):
        target = root / "notebooks" / f"{source.stem}.ipynb"
        before = target.read_text(encoding="utf-8") if target.is_file() else None
        new, old = read(source), _published(target, root) if before else None
        carried[source.stem] = sorted(_texts(new))
        if old is not None and own_cells(old, new, target):
            kept = mine.keep(target, root)
            print(f"{target.relative_to(root)}: your own work in it is kept as {kept.relative_to(root)}")
        write(carry_over(new, old), target)
        if target.read_text(encoding="utf-8") != before:
            changed.append(target)
            print(f"{target.relative_to(root)}: {'updated' if before else 'new; run it to get its outputs'}")
    if store.read_json(_carried(root), None) != carried:
        store.write_json(_carried(root), carried)
    return changed


def _published(path: Path, root: Path) -> Any:
    try:
        return read(path)
    except LessonError as error:
        raise LessonError(
            f"{path.relative_to(root)} is damaged: it holds no whole notebook. "
            f"`python -m lessons mine {path.stem[:2]} --rescue` keeps it as it is and restores the published one."
        ) from error


def own_cells(book: Any, source: Any, path: Path) -> list[int]:
    """Numbers (from 1) of the cells of `book`, the notebook at `path`, that a reader wrote: their text is neither in
    `source`, nor what `sync` carried over the last time, nor committed. Without git the first two must do."""
    texts = [_digest(cell) for cell in book.cells]
    known = _texts(source) | set((store.read_json(_carried(path.parents[1]), None) or {}).get(path.stem, ()))
    if not known.issuperset(texts) and (published := _committed(path)):
        known |= _texts(published)
    return [number for number, text in enumerate(texts, 1) if text not in known]


def _texts(book: Any) -> set[str]:
    return {_digest(cell) for cell in book.cells} | {EMPTY}


def _digest(cell: Any) -> str:
    return hashlib.sha256(cell.source.strip().encode()).hexdigest()[:16]


def _carried(root: Path) -> Path:
    """What `sync` carried over the last time: a contributor's second edit of a source is no reader's work."""
    return root / "build" / "sync.json"


def _committed(path: Path) -> Any | None:
    """The notebook as committed, None where git has none that can be read."""
    import nbformat

    with suppress(ValueError):
        return nbformat.reads(committed(path) or "", as_version=4)
    return None


def difference(path: Path, root: Path) -> str:
    """How the notebook at `path` differs from its source, and what to do; an empty string where it does not."""
    here, there = (
        [(cell.cell_type, cell.source, sorted(cell.metadata.get("tags", ()))) for cell in book.cells]
        for book in (read(path), read(_source(path)))
    )
    if here == there:
        return ""
    return own_work(path, root) or f"{path.relative_to(root)} is not in step with its source: run `make notebooks`."


def own_work(path: Path, root: Path) -> str:
    """The sentence that says that the notebook at `path` holds a reader's work, and where to move it, else nothing."""
    own = own_cells(read(path), read(_source(path)), path)
    if not own:
        return ""
    return (
        f"{path.relative_to(root)} holds your own work (cell {', '.join(map(str, own))}): move it to notebooks/mine "
        f"with `python -m lessons mine {path.stem[:2]} --rescue`, which restores the published notebook."
    )


def _source(path: Path) -> Path:
    return path.parent / "source" / f"{path.stem}.py"


def rescue(which: str) -> list[Path]:
    """Keep every chosen notebook that a reader worked in as a copy in notebooks/mine, and restore the published one:
    its cells from the source, its outputs as committed where git has them. Returns the copies."""
    root, copies = checkout(), []
    for lesson in chosen(which, root):
        path = notebook(lesson, root)
        source = read(_source(path))
        if not _worked_in(path, source):
            continue
        copies.append(mine.keep(path, root))
        published = _committed(path)
        write(carry_over(source, published or _readable(path)), path)
        outputs = "" if published else " (without its outputs where yours differs: git has none)"
        print(
            f"{path.relative_to(root)}: yours is kept as {copies[-1].relative_to(root)}, "
            f"the published one restored{outputs}"
        )
    return copies


def _worked_in(path: Path, source: Any) -> bool:
    """Whether a notebook holds a reader's cells, or was saved by another tool than ours, or is damaged."""
    book = _readable(path)
    if book is None or own_cells(book, source, path):
        return True
    return path.read_text(encoding="utf-8") != _form(normalise(book))


def _readable(path: Path) -> Any | None:
    try:
        return read(path)
    except LessonError:
        return None


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
    return _write_each(which, out, solved)


def _write_each(which: str, out: Path, variant: Callable[[Any, course.Lesson], Any]) -> list[Path]:
    """Write a variant of each chosen notebook to `out`; with "all", notebooks that are not among them are removed.
    Raises LessonError, before anything is written, where one of those in the way has been run."""
    root = checkout()
    lessons = {out / f"{lesson.stem}.ipynb": lesson for lesson in chosen(which, root)}
    there = sorted(out.glob("*.ipynb")) if which == "all" else [path for path in lessons if path.is_file()]
    if run := [path for path in there if _was_run(path)]:
        raise LessonError(
            f"{run[0]} has been run, so it may hold somebody's work. Move it away, or give --out another folder."
        )
    for path, lesson in lessons.items():
        write(variant(read(notebook(lesson, root)), lesson), path)
    for path in set(there) - set(lessons):
        path.unlink()
    return list(lessons)


def _was_run(path: Path) -> bool:
    book = _readable(path)
    return book is not None and any(cell.get("outputs") or cell.get("execution_count") for cell in book.cells)


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


def cut(which: str, out: Path) -> list[Path]:
    """Write the 45-minute cut of each chosen lesson to `out`, as a notebook that runs alone. Raises LessonError where a
    lesson has no cell tagged workshop."""
    return _write_each(which, out, cut_of)


def cut_of(book: Any, lesson: course.Lesson) -> Any:
    """The 45-minute cut of one notebook (changed in place): its cells tagged workshop, without outputs. Of a text that
    closes one section and opens the next, only the part whose code is in the cut stays."""
    taken = [_in_cut(cell) for cell in book.cells if cell.cell_type == "code"]
    if not any(taken):
        raise LessonError(f"{lesson.stem}: no code is tagged `workshop`, so there is no cut to write.")
    seen = 0  # how many cells of code came before
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count, seen = [], None, seen + 1
        else:
            before, after = seen == 0 or taken[seen - 1], seen == len(taken) or taken[seen]
            cell.source = _of_the_cut(cell.source, before=before, after=after)
    book.cells = [cell for cell in book.cells if _in_cut(cell)]
    return normalise(book)


def _in_cut(cell: Any) -> bool:
    return "workshop" in cell.metadata.get("tags", ())


def _of_the_cut(text: str, *, before: bool, after: bool) -> str:
    """A text that holds the heading of a new section, without what belongs to code that the cut leaves out: the part
    above its first heading to the code before, the part under its last heading to the code after."""
    parts = re.split(r"^(?=## )", text, flags=re.M)
    if len(parts) > 1 and parts[0] and not after:
        parts.pop()
    if len(parts) > 1 and parts[0] and not before:
        parts.pop(0)
    return "".join(parts).strip()

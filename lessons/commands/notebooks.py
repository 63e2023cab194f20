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
from ..errors import LessonError, SettingError
from . import checkout, chosen, committed, mine, notebook

OUT = "give --out another folder"  # the way out where one cannot be written
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
WIDGET = "application/vnd.jupyter.widget-view+json"
SOLVED_TAGS = {"setup", "exercise", "check"}
EMPTY = hashlib.sha256(b"").hexdigest()[:16]  # a cell without text is nobody's work


def read(path: Path) -> Any:
    """The notebook (nbformat 4) in an .ipynb or a percent-format .py file; LessonError where it cannot be read."""
    try:
        return _jupytext().read(path) if path.suffix == ".py" else _parsed(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LessonError(f"{path} cannot be read as a notebook: {error}") from error


def _parsed(text: str) -> Any:
    """The notebook in the text of an .ipynb; ValueError where it holds none, or one that lacks a part."""
    import nbformat

    faults: dict[str, Exception] = {}
    try:
        raw = json.loads(text)
        if not isinstance(raw, dict) or "nbformat" not in raw:  # read as version 1, without what is newer
            raise ValueError("it is JSON of another kind, without the version of its format (nbformat)")
        book = nbformat.reads(text, as_version=4, capture_validation_error=faults)
        if faults:
            raise faults["ValidationError"]
        return book
    except Exception as error:  # nbformat takes much for granted: each kind of damage is another exception
        raise ValueError(str(error).partition("\n")[0]) from error


def _jupytext() -> Any:
    try:
        import jupytext
    except ImportError as error:
        raise LessonError("jupytext is not installed. Run `make setup`, or pip install 'jupytext>=1.16'.") from error
    return jupytext


def write(notebook: Any, path: Path, elsewhere: str = mine.ELSEWHERE) -> None:
    """Write a notebook as every tool here does: JSON with one blank of indentation, atomically. `elsewhere` is as in
    `store.atomic`."""
    with store.atomic(path, elsewhere) as partial:
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
        before = target.read_bytes() if target.is_file() else None
        new, old = read(source), _published(target, root) if before else None
        carried[source.stem] = sorted(_texts(new))
        if old is not None and own_cells(old, target, new):
            kept = mine.keep(target, mine.folder(root))
            print(f"{target.relative_to(root)}: your own work in it is kept as {kept.relative_to(root)}")
        write(carry_over(new, old), target)
        if target.read_bytes() != before:
            changed.append(target)
            print(f"{target.relative_to(root)}: {'updated' if before else 'new; run it to get its outputs'}")
    if store.read_json(_carried(root), None) != carried:
        store.write_json(_carried(root), carried, mine.ELSEWHERE)
    return changed


def _published(path: Path, root: Path) -> Any:
    try:
        return read(path)
    except LessonError as error:
        raise LessonError(
            f"{path.relative_to(root)} is damaged: it holds no whole notebook. "
            f"`python -m lessons mine {path.stem[:2]} --rescue` keeps it as it is and restores the published one."
        ) from error


def own_cells(book: Any, path: Path, *sources: Any) -> list[int]:
    """Numbers (from 1) of the cells of `book`, a form of the notebook at `path`, that a reader wrote: their text is
    neither in `sources`, nor what `sync` carried over the last time, nor committed. Without git the first two must
    do."""
    texts = [_digest(cell) for cell in book.cells]
    carried = (store.read_json(_carried(path.parents[1]), None) or {}).get(path.stem, ())
    known = {EMPTY, *carried}.union(*map(_texts, sources))
    if not known.issuperset(texts) and (published := _committed(path)):
        known |= _texts(published)
    return [number for number, text in enumerate(texts, 1) if text not in known]


def _texts(book: Any) -> set[str]:
    return {_digest(cell) for cell in book.cells}


def _digest(cell: Any) -> str:
    return hashlib.sha256(cell.source.strip().encode()).hexdigest()[:16]


def _carried(root: Path) -> Path:
    """What `sync` carried over the last time: a contributor's second edit of a source is no reader's work."""
    return root / "build" / "sync.json"


def _committed(path: Path) -> Any | None:
    """The notebook as committed, None where git has none that can be read."""
    with suppress(ValueError):
        return _parsed(committed(path) or "")
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
    """The sentence that says that the notebook at `path` holds a reader's work, and where to move it, else nothing.
    LessonError where it is damaged."""
    own = own_cells(_published(path, root), path, read(_source(path)))
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
        if not worked_in(path, path, source):
            continue
        copies.append(mine.keep(path, mine.folder(root)))
        published = _committed(path)
        write(carry_over(source, published or readable(path)), path)
        outputs = "" if published else " (without its outputs where yours differs: git has none)"
        print(
            f"{path.relative_to(root)}: yours is kept as {copies[-1].relative_to(root)}, "
            f"the published one restored{outputs}"
        )
    return copies


def worked_in(file: Path, path: Path, *sources: Any) -> bool:
    """Whether `file`, a form of the notebook at `path`, holds a reader's cells (as `own_cells` tells them), or was
    saved by another tool than ours, or is damaged."""
    book = readable(file)
    if book is None or own_cells(book, path, *sources):
        return True
    return file.read_text(encoding="utf-8") != _form(normalise(book))


def readable(path: Path) -> Any | None:
    """The notebook in a file, None where it cannot be read."""
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
    """Write a variant of each chosen notebook to `out`; with "all", lessons that have no notebook any more are removed
    there. Raises LessonError, before anything is written, where a file in the way may hold somebody's work, and
    SettingError where `out` is the folder of the published notebooks or of one's own copies."""
    root = checkout()
    if out.resolve() in (path.resolve() for path in (root / "notebooks", mine.folder(root))):
        raise SettingError(f"--out is {out}: the notebooks there are not to be written over. Name another folder.")
    new = {lesson: variant(read(notebook(lesson, root)), lesson) for lesson in chosen(which, root)}
    paths = {lesson: out / f"{lesson.stem}.ipynb" for lesson in (course.LESSONS if which == "all" else new)}
    there = {lesson: path for lesson, path in paths.items() if path.exists()}
    for lesson, path in there.items():
        if why := _work_in(path, notebook(lesson, root), new.get(lesson)):
            raise LessonError(
                f"{path} {why}, so it may hold somebody's work. Nothing was written. "
                "Move it away, or give --out another folder."
            )
    for lesson, book in new.items():
        write(book, paths[lesson], OUT)
    for lesson in there.keys() - new.keys():
        paths[lesson].unlink()
    return [paths[lesson] for lesson in new]


def _work_in(path: Path, published: Path, new: Any | None) -> str:
    """Why the file at `path`, where `new` is about to be written, may be somebody's work; empty where it is none."""
    book = readable(path)
    if book is None:
        return "cannot be read as a notebook"
    if any(cell.get("outputs") or cell.get("execution_count") for cell in book.cells):
        return "has been run"
    own = own_cells(book, published, *filter(None, (new, readable(published))))
    return f"holds text that the lesson does not have now (cell {', '.join(map(str, own))})" if own else ""


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

"""A learner's own copies of the notebooks, in notebooks/mine: git ignores them, and nothing here writes over one."""

import hashlib
import itertools
import json
import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path

from .. import __version__, course, store
from ..errors import LessonError
from . import checkout, notebook

ELSEWHERE = "put the checkout on a disk and in a folder that you can write to"


def folder(root: Path) -> Path:
    """Where one's own copies lie."""
    return root / "notebooks" / "mine"


def copies(lesson: course.Lesson, root: Path) -> list[Path]:
    """One's own copies of a lesson, the newest last: first what was kept aside with its date, then what `lab` made."""
    name = re.compile(rf"{lesson.stem}(?:\.(\d{{4}}-\d\d-\d\d))?(?:-(\d+))?\.ipynb")
    found = {path: name.fullmatch(path.name) for path in folder(root).glob("*.ipynb")}
    order = {path: (match[1] is None, match[1] or "", int(match[2] or 1)) for path, match in found.items() if match}
    return sorted(order, key=order.__getitem__)


def show(which: str) -> None:
    """Print one's own copies of the chosen lessons, and which of them were made from an older version; then the other
    notebooks in the folder, of one lesson those whose names begin as its does."""
    root = checkout()
    lessons = course.LESSONS if which == "all" else (course.lesson(which),)
    found = [(lesson, copy) for lesson in lessons for copy in copies(lesson, root)]
    start = "" if which == "all" else lessons[0].stem
    others = sorted(set(folder(root).glob(f"{start}*.ipynb")) - {copy for _, copy in found})
    for lesson, copy in found:
        try:
            about = news(copy, lesson, root)
        except LessonError as error:
            about = str(error)
        print(copy.relative_to(root), *[about] * bool(about), sep="  ")
    for other in others:
        print(other.relative_to(root), "under a name of your own: open it in JupyterLab", sep="  ")
    if not found and not others:
        print("You have no copies yet; `make lab LESSON=01` makes the first.")


def fetch(lesson: course.Lesson, root: Path, *, new: bool = False) -> Path:
    """The newest copy of one's own; where there is none, or with `new`, one made from the published notebook, outputs
    included. LessonError where a notebook cannot be read, StorageError where the folder cannot be written."""
    there = copies(lesson, root)
    if there and not new:
        return there[-1]
    book = _published(lesson, root)
    book["metadata"]["lessons"] = {"version": __version__, "cells": fingerprint(book)}
    content = (json.dumps(book, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
    made = [match for path in there if (match := re.fullmatch(rf"{lesson.stem}(?:-(\d+))?", path.stem))]
    highest = max((int(match[1] or 1) for match in made), default=0)  # a gap below it is not filled: the newest is last
    for path in itertools.islice(_names(folder(root) / lesson.stem), highest, None):
        if store.create(path, content, ELSEWHERE) or not new:  # another call may have been first, and made the same
            return path


def keep(path: Path, place: Path, elsewhere: str = ELSEWHERE) -> Path:
    """Keep a file as it is, byte by byte, in a copy in the folder `place` with the date in its name; returns the copy.
    `elsewhere` is as in `store.atomic`."""
    content = path.read_bytes()
    for kept in _names(place / f"{path.stem}.{today()}", path.suffix):
        if store.create(kept, content, elsewhere) or (kept.is_file() and kept.read_bytes() == content):
            return kept


def today() -> str:
    """The date as it stands in names."""
    return date.today().isoformat()


def _names(start: Path, suffix: str = ".ipynb") -> Iterator[Path]:
    """start.ipynb, start-2.ipynb, start-3.ipynb, ..."""
    yield start.with_name(f"{start.name}{suffix}")
    yield from (start.with_name(f"{start.name}-{number}{suffix}") for number in itertools.count(2))


def load(path: Path) -> dict:
    """The notebook in a file, as JSON; LessonError where it cannot be read or is none."""
    try:
        book = json.loads(path.read_text(encoding="utf-8"))
        fingerprint(book)
        book["metadata"] = dict(book.get("metadata", {}))
        return book
    except OSError as error:
        raise LessonError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LessonError(f"{path} is damaged: it holds no whole notebook.") from error


def _published(lesson: course.Lesson, root: Path) -> dict:
    try:
        return load(notebook(lesson, root))
    except LessonError as error:
        rescue = f"`python -m lessons mine {lesson.number:02d} --rescue` keeps it so and restores the published one."
        raise LessonError(f"{error} {rescue}") from error


def fingerprint(book: dict) -> str:
    """What a notebook says, without outputs and metadata, as 16 hex digits."""
    cells = [[cell["cell_type"], "".join(cell["source"])] for cell in book["cells"]]
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()[:16]


def news(copy: Path, lesson: course.Lesson, root: Path) -> str:
    """A line where the published notebook is no longer the one that `copy` was made from, else an empty string.
    LessonError where the copy is damaged."""
    made_from = load(copy)["metadata"].get("lessons")
    if not isinstance(made_from, dict) or not notebook(lesson, root).is_file():
        return ""
    try:
        now = fingerprint(_published(lesson, root))
    except LessonError as error:
        return str(error)
    if made_from.get("cells") == now:
        return ""
    return (
        f"Lesson {lesson.number:02d} has changed since your copy was made, from version {made_from.get('version')}. "
        f"`make lab LESSON={lesson.number:02d} NEW=1` makes a copy of what is published now, and leaves yours as it is."
    )

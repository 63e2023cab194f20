"""Exercises with checks that say what is wrong: `check("1.2", fn)`, `hint("1.2")`, `solution("1.2")`, `progress()`.

One file per lesson, `lessonNN.py`, holds its `EXERCISES`. With the environment variable LESSONS_STRICT=1 (for solved
notebooks under test) `check` raises AssertionError unless the exercise is passed or open.
"""

import difflib
import importlib
import os
import pkgutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..course import LESSONS
from ..errors import Interrupted, SettingError
from . import display, record
from .engine import MISSING, NOT_ATTEMPTED, OPEN, PASSED, Exercise, Verdict, judge
from .source import solved_source, source_of

__all__ = ["all_exercises", "check", "hint", "listing", "load", "progress", "solution", "solved_source", "written"]


def written() -> list[int]:
    """The numbers of the lessons that have an exercise file."""
    names = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(int(name[6:]) for name in names if name.startswith("lesson") and name[6:].isdigit())


def load(lesson: int) -> tuple[Exercise, ...]:
    """The exercises of one lesson; SettingError where it has none (yet)."""
    if lesson not in written():
        raise SettingError(f"Lesson {lesson} has no exercises yet. Lessons with exercises: {written() or 'none'}.")
    return importlib.import_module(f"{__name__}.lesson{lesson:02d}").EXERCISES


def all_exercises() -> tuple[Exercise, ...]:
    """The exercises of all lessons, in order."""
    return tuple(exercise for lesson in written() for exercise in load(lesson))


def check(exercise_id: str, candidate: Any = MISSING, *, seconds: float | None = None) -> Verdict:
    """Judge your function or class for an exercise; shows the verdict and returns it (true when passed).

    `seconds` is the time limit (default 5); float("inf") sets none and runs your code so that a debugger works.
    Pressing Stop ends your code, raises Interrupted and is not counted as a try.
    """
    try:
        exercise = _find(exercise_id)
        found = judge(exercise, candidate, seconds)
    except SettingError as error:
        found = Verdict(NOT_ATTEMPTED, "nothing to check", str(error))
    except KeyboardInterrupt:
        raise Interrupted(f"The check of {exercise_id} was interrupted; it is not counted as a try.") from None
    if found.status != NOT_ATTEMPTED:
        found = replace(found, note=record.update(exercise.id, passed=bool(found), tries=1))
    display.verdict(found)
    if os.environ.get("LESSONS_STRICT", "0") not in ("", "0") and found.status not in (PASSED, OPEN):
        raise AssertionError(found.text)
    return found


def hint(exercise_id: str, number: int | None = None) -> None:
    """Show the next hint of an exercise (remembered between sessions), or the one with this number."""
    try:
        exercise = _find(exercise_id)
        total = len(exercise.hints)
        seen = record.read().get(exercise.id, {}).get("hints", 0)
        number = min(seen + 1, total) if number is None else number
        if not isinstance(number, int) or not 1 <= number <= total:
            raise SettingError(f"Exercise {exercise.id} has the hints 1 to {total}, not {number!r}.")
    except SettingError as error:
        return display.hint("○ No hint to show", str(error), "")
    note = record.update(exercise.id, hints=number)
    more = f'hint("{exercise.id}", {number + 1})' if number < total else f'solution("{exercise.id}")'
    after = f"Still stuck: {more}.{' ' + note if note else ''}"
    display.hint(f"{exercise.id} {exercise.title}: hint {number} of {total}", exercise.hints[number - 1], after)


def solution(exercise_id: str) -> None:
    """Show the source of an exercise's solution; the progress remembers that it was seen."""
    try:
        exercise = _find(exercise_id)
    except SettingError as error:
        return display.hint("○ No solution to show", str(error), "")
    title = f"{exercise.id} {exercise.title}: "
    if exercise.solution is None:
        questions = "\n".join(f"- {question}" for question in exercise.self_check)
        return display.hint(f"{title}open, there is no one solution. Ask your own:", questions, "")
    note = record.update(exercise.id, solution=True)
    display.solution(f"{title}one solution{'. ' + note if note else ''}", source_of(exercise.solution))


def progress(*, export: str | os.PathLike | None = None, merge: str | os.PathLike | None = None) -> None:
    """Show what is passed of each of the eleven lessons, and where that is kept; open exercises do not count.

    `export` names a new file to take the progress along in, `merge` such a file to merge into the progress here.
    LessonError says why a file cannot be written or read; the progress is then as before.
    """
    if "" in (export, merge):
        raise SettingError("The name of the file is empty. Expected a path such as progress.json.")
    notes = [] if merge is None else [_merged(Path(merge).expanduser())]
    if export is not None:
        target = Path(export).expanduser()
        notes.append(f"Exported to {target}: {record.export(target)} exercises.")
    entries, steps = record.read(), []
    there = written()
    for lesson in LESSONS:
        counted = [e for e in load(lesson.number) if not e.open] if lesson.number in there else None
        passed = sum(bool(entries.get(e.id, {}).get("passed")) for e in counted or ())
        steps.append((lesson.number, lesson.title, passed, None if counted is None else len(counted)))
    seen = sum(bool(entry.get("passed") and entry.get("solution")) for entry in entries.values())
    notes += [f"{seen} passed with the solution seen."] * bool(seen) + [f"Kept in {record.place()}"]
    display.strip(steps, notes)


def _merged(path: Path) -> str:
    """Merge an exported file, and say what it held."""
    entries = record.merge(path)
    unknown = sorted(entries.keys() - {exercise.id for exercise in all_exercises()})
    kept = f" No exercises of this version, kept all the same: {', '.join(unknown)}." if unknown else ""
    return f"Merged from {path}: {len(entries)} exercises.{kept}"


def listing() -> list[dict[str, Any]]:
    """All exercises as plain data: id, lesson, title, minutes, difficulty, hints and wrong answers (counts), open."""
    return [
        {
            "id": e.id,
            "lesson": e.lesson,
            "title": e.title,
            "minutes": e.minutes,
            "difficulty": e.difficulty,
            "hints": len(e.hints),
            "wrong_answers": len(e.wrong),
            "open": e.open,
        }
        for e in all_exercises()
    ]


def _find(exercise_id: Any) -> Exercise:
    """The exercise with this id; SettingError names the nearest ids."""
    if not isinstance(exercise_id, str):
        given = exercise_id if isinstance(exercise_id, (int, float)) else "1.2"
        raise SettingError(f'An exercise is named by its id in quotes, such as "{given}", as the first argument.')
    lesson = exercise_id.strip().partition(".")[0]
    pool = load(int(lesson)) if lesson.isdecimal() and int(lesson) in written() else all_exercises()
    known = {exercise.id: exercise for exercise in pool}
    if exercise_id.strip() in known:
        return known[exercise_id.strip()]
    nearest = difflib.get_close_matches(exercise_id, known, n=3, cutoff=0.0)
    missing = any(lesson == str(step.number) for step in LESSONS) and int(lesson) not in written()
    why = f"Lesson {lesson} has no exercises yet." if missing else f'There is no exercise "{exercise_id}".'
    raise SettingError(f"{why} The nearest: {', '.join(nearest) or 'none, as no lesson has exercises yet'}.")

"""Reference records: list them, accept new ones, and write README's table of lessons from them."""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .. import claims, course, store
from ..errors import LessonError
from . import checkout, links, notebook

BEGIN, END = "<!-- lessons:begin -->", "<!-- lessons:end -->"
FIELDS = {
    "lesson": int,
    "scale": str,
    "data": str,
    "data_name": str,
    "device": str,
    "hardware": str,
    "seconds": (int, float),
    "seed": int,
    "versions": dict,
    "claims": list,
    "numbers": dict,
    "cell_seconds": list,
}
ROW = {"key", "claim", "paper", "here", "verdict"}


def problems(record: Any) -> list[str]:
    """What makes a record unusable, in words; empty when it is whole: every field is there, at least one claim, and
    every number finite."""
    if not isinstance(record, dict):
        return ["it is no JSON object"]
    wrong = [name for name, kind in FIELDS.items() if not isinstance(record.get(name), kind)]
    found = [f"fields missing or of the wrong type: {', '.join(wrong)}"] if wrong else []
    rows = record.get("claims")
    if not rows or not isinstance(rows, list):
        found.append("it holds no claim")
    elif not all(isinstance(row, dict) and row.keys() >= ROW and row["verdict"] in claims.MARKS for row in rows):
        found.append(f"a claim lacks one of {', '.join(sorted(ROW))}, or has an unknown verdict")
    odd = [place for place, value in _leaves(record) if not _finite(value)]
    if odd:
        found.append(f"numbers that are not finite: {', '.join(odd)}")
    return found


def _leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if pairs is None:
        yield place, value
        return
    for key, inner in pairs:
        yield from _leaves(inner, f"{place}.{key}".lstrip("."))


def _finite(value: Any) -> bool:
    """A claim's text may hold a number too: "accuracy nan" is as bad as a NaN."""
    if isinstance(value, str):
        return not re.search(r"(?<![\w])(nan|inf)(?![\w])", value)
    return not isinstance(value, float) or math.isfinite(value)


def show() -> None:
    """Print one line per reference record."""
    records = claims.references()
    if not records:
        print("No reference records yet. `make run LESSON=01` writes one to build/results; accept it with --accept.")
    for record in records:
        holding = sum(row["verdict"] == claims.HOLDS for row in record["claims"])
        judged = f"{holding} of {len(record['claims'])} claims hold"
        print(f"{record['lesson']:02d}  {claims.title(record)}: {record['seconds']:.0f} s, {judged}")


def accept(files: list[Path]) -> list[Path]:
    """Copy records of runs into the package, all of them or none; LessonError says what is wrong with which."""
    folder, records = checkout() / "lessons" / "results", []
    for file in files:
        if not file.is_file():
            raise LessonError(f"{file} is no file. The records of your runs are in build/results.")
        record = store.read_json(file, None)
        found = problems(record)
        if not found and record["scale"] == "smoke":
            found = ["it was made at smoke scale, which claims nothing"]
        if not found and record.get("rehearsal"):
            found = ["it is a rehearsal (LESSONS_REHEARSAL), which claims nothing"]
        if found:
            raise LessonError(f"{file} is not accepted: {'; '.join(found)}.")
        records.append(record)
    paths = [folder / claims.record_name(record) for record in records]
    for path, record in zip(paths, records, strict=True):
        store.write_json(path, record)
        print(f"accepted {path.name}")
    return paths


def readme() -> bool:
    """Write the table of lessons anew between the two markers in README.md; True when it changed."""
    root = checkout()
    path = root / "README.md"
    old = path.read_text(encoding="utf-8") if path.is_file() else ""
    new = with_table(old, root)
    if new != old:
        with store.atomic(path) as partial:
            partial.write_text(new, encoding="utf-8")
    print("README.md: " + ("table of lessons written" if new != old else "up to date"))
    return new != old


def with_table(text: str, root: Path) -> str:
    """The text of README.md with the table of lessons between the markers; LessonError where they are missing."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise LessonError(f"README.md needs a line {BEGIN} and below it a line {END}: the table goes between them.")
    return f"{before}{BEGIN}\n{table(root)}\n{END}{after}"


def table(root: Path) -> str:
    """The table of the eleven lessons in Markdown. A lesson without a notebook has no link and no badge, and is said to
    be on the way."""
    address, ref = links.address(root), links.current_ref(root)
    lines = ["| | Lesson | What you will have shown | Measured time | |", "|---|---|---|---|---|"]
    for lesson in course.LESSONS:
        there = notebook(lesson, root).is_file()
        title = f"[{lesson.title}](notebooks/{lesson.stem}.ipynb)" if there else lesson.title
        number = f"{lesson.number:02d}{' ★' if lesson.short_path else ''}"
        badge = links.badge(address, ref, lesson) if there else ""
        times = _times(lesson) if there else "on the way"
        lines.append(f"| {number} | {title} | {lesson.promise} | {times} | {badge} |")
    return "\n".join(lines)


def _times(lesson: course.Lesson) -> str:
    parts = [
        f"{record['seconds'] / 60:.1f} min ({record['scale']} scale, {record['data_name']}, {record['hardware']})"
        for record in claims.references(lesson.number)
    ]
    return "<br>".join(parts) or "no reference run yet"

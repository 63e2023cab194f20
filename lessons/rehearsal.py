"""A rehearsal: every line of a scale in minutes, with trainings of a few steps on few rows. For maintainers.

LESSONS_REHEARSAL=3 cuts every training to 3 steps; LESSONS_REHEARSAL=3,500,32 names steps, rows and batch. The results
mean nothing; what shows is whether the code of that scale runs, its shapes, its memory and what a step costs.
"""

import os
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import pairwise
from typing import TypeVar

from .errors import SettingError

T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """Most steps of a training, rows of a set of data, and rows of a batch."""

    steps: int
    rows: int = 500
    batch: int = 32


def limits() -> Limits | None:
    """What LESSONS_REHEARSAL asks for, None where it is not set. Raises SettingError for anything but one to three
    whole numbers above zero."""
    text = os.environ.get("LESSONS_REHEARSAL", "").strip()
    if not text:
        return None
    numbers = text.split(",")
    if len(numbers) > 3 or not all(number.strip().isdecimal() and int(number) > 0 for number in numbers):
        expected = "steps, or steps,rows,batch, such as 3 or 3,500,32"
        raise SettingError(f"LESSONS_REHEARSAL is {text!r}. Expected {expected}.")
    return Limits(*map(int, numbers))


def fewer(value: T) -> T:
    """A value of `run.pick` with every whole number above the most rows brought down to it; tuples, lists, dataclasses
    and the values of dicts are searched. A rising series, such as sizes to compare, stays one and ends at the most rows
    of a batch. Everything else stays."""
    found = limits()
    if found is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return min(value, found.rows)
    if type(value) is tuple and len(value) > 2 and _rises(value):
        last = len(value) - 1
        return tuple(min(part, max(1, found.batch - last + place)) for place, part in enumerate(value))
    if type(value) in (tuple, list):
        return type(value)(fewer(part) for part in value)
    if type(value) is dict:
        return {key: fewer(part) for key, part in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: fewer(getattr(value, field.name)) for field in fields(value)})
    return value


def _rises(values: tuple) -> bool:
    return all(type(value) is int for value in values) and all(a < b for a, b in pairwise(values))


def rows(count: int | None) -> int | None:
    """A number of rows, capped; None, which means all, becomes the cap."""
    found = limits()
    return count if found is None else min(found.rows, found.rows if count is None else count)


def steps(count: int) -> int:
    """A number of steps, capped."""
    found = limits()
    return count if found is None else min(found.steps, count)


def batch(size: int) -> int:
    """The size of a batch, capped."""
    found = limits()
    return size if found is None else min(found.batch, size)


def announce() -> None:
    """Say in one line that this is a rehearsal; silent where it is none."""
    if found := limits():
        print(f"A rehearsal: trainings of {found.steps} steps, {found.rows:,} rows, batches of {found.batch}.")

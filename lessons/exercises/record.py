"""A learner's progress, kept in the cache. Nothing here may break a check: what cannot be saved is said in one line."""

import json
from pathlib import Path

from ..errors import SettingError, StorageError
from ..store import cache_dir, create, locked, read_json, set_aside, write_json

Entry = dict[str, int]  # passed 0 or 1, tries, hints (highest seen), solution 0 or 1
FIELDS = ("passed", "tries", "hints", "solution")
WAIT = 5.0


def place() -> Path:
    """The file that holds the progress."""
    return cache_dir("progress.json")


def read() -> dict[str, Entry]:
    """What was reached so far, by exercise id; empty where nothing can be read."""
    try:
        return _entries()
    except (StorageError, OSError):
        return {}


def _entries() -> dict[str, Entry]:
    """What was reached so far; StorageError where the file may not be read. A damaged file is set aside."""
    entries = read_json(place(), {})
    if not _valid(entries):
        set_aside(place(), "it holds something else than progress")
        return {}
    return entries


def update(exercise_id: str, *, passed: bool = False, tries: int = 0, hints: int = 0, solution: bool = False) -> str:
    """Merge this into the progress, under a lock, so that two kernels lose nothing.

    Returns an empty string, or the line to show where it cannot be saved.
    """
    path = place()
    try:
        with locked(path, wait=WAIT):
            entries = _entries()
            old = entries.get(exercise_id, {})
            entries[exercise_id] = {
                "passed": max(old.get("passed", 0), int(passed)),
                "tries": old.get("tries", 0) + tries,
                "hints": max(old.get("hints", 0), hints),
                "solution": max(old.get("solution", 0), int(solution)),
            }
            write_json(path, entries)
    except (StorageError, OSError) as error:
        return f"(Your progress could not be saved: {error})"
    return ""


def export(path: Path) -> int:
    """Write the progress to a new file and return how many exercises it holds. SettingError where `path` is there
    already (it stays as it is), where no file can have that name, or where there is no progress yet; StorageError where
    nothing can be written."""
    entries = _entries()
    if not entries:
        raise SettingError(f"There is no progress yet: {place()} does not exist or is empty. Nothing was written.")
    text = json.dumps(entries, indent=2, ensure_ascii=False) + "\n"
    try:
        new = create(path, text.encode(), elsewhere="name a file in another folder")
    except StorageError:
        raise
    except OSError as error:  # a name that is too long, a folder that cannot be made
        raise SettingError(f"{path} cannot be written ({error.strerror}). Name another file.") from error
    if not new:
        raise SettingError(f"{path} is there already and stays as it is. Name another file.")
    return len(entries)


def merge(path: Path) -> dict[str, Entry]:
    """Merge the progress in an exported file into the one here, and return what the file holds. Of each value the
    larger stays: passed stays passed, and a second time changes nothing. SettingError where the file holds something
    else, StorageError where nothing can be written; the progress here is then as before."""
    new = _exported(path)
    with locked(place(), wait=WAIT):
        entries = _entries()
        for exercise_id, entry in new.items():
            old = entries.get(exercise_id, {})
            entries[exercise_id] = {key: max(old.get(key, 0), entry.get(key, 0)) for key in {**old, **entry}}
        write_json(place(), entries)
    return new


def _exported(path: Path) -> dict[str, Entry]:
    """The progress in a file of another machine. Unlike our own file it is never moved aside."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8-sig"))  # some editors put a mark before the text
    except OSError as error:
        raise SettingError(f"{path} cannot be read ({error.strerror}). Your progress is as before.") from error
    except (ValueError, RecursionError):
        entries = None
    if not entries or not _valid(entries) or not all(_whole(entry) for entry in entries.values()):
        raise SettingError(
            f"{path} holds no progress. Expected a file that `python -m lessons progress --export FILE` wrote. "
            "Your progress is as before."
        )
    return entries


def _whole(entry: Entry) -> bool:
    """Whether an entry has every field, with values that can be."""
    flags = all(entry.get(key) in (0, 1) for key in ("passed", "solution"))
    return flags and all(key in entry for key in FIELDS) and all(value >= 0 for value in entry.values())


def _valid(entries: object) -> bool:
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        return False
    return all(isinstance(value, int) for entry in entries.values() for value in entry.values())

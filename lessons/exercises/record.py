"""A learner's progress, kept in the cache. Nothing here may break a check: what cannot be saved is said in one line."""

from ..errors import StorageError
from ..store import cache_dir, locked, read_json, set_aside, write_json

Entry = dict[str, int]  # passed 0 or 1, tries, hints (highest seen), solution 0 or 1
WAIT = 5.0


def read() -> dict[str, Entry]:
    """What was reached so far, by exercise id; empty where nothing can be read."""
    path = cache_dir("progress.json")
    try:
        entries = read_json(path, {})
        if not _valid(entries):
            set_aside(path, "it holds something else than progress")
            return {}
        return entries
    except (StorageError, OSError):
        return {}


def update(exercise_id: str, *, passed: bool = False, tries: int = 0, hints: int = 0, solution: bool = False) -> str:
    """Merge this into the progress, under a lock, so that two kernels lose nothing.

    Returns an empty string, or the line to show where it cannot be saved.
    """
    path = cache_dir("progress.json")
    try:
        with locked(path, wait=WAIT):
            entries = read()
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


def _valid(entries: object) -> bool:
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        return False
    return all(isinstance(value, int) for entry in entries.values() for value in entry.values())

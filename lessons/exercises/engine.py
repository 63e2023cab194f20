"""The checking engine: what an exercise is, and how a learner's code is judged. No display, no files."""

import inspect
import sysconfig
import textwrap
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import SettingError
from .expect import Wrong, describe
from .limit import TimedOut, run_limited
from .source import stub_in

__all__ = ["Exercise", "Verdict", "Wrong", "judge"]

MISSING = object()
NOT_ATTEMPTED, PASSED, WRONG, RAISED, OPEN = "not attempted", "passed", "wrong", "raised", "open"


@dataclass(frozen=True, kw_only=True)
class Exercise:
    """One exercise; lesson files hold a tuple of them.

    `check(candidate)` raises Wrong, or returns when the candidate is right. `wrong` pairs plausible wrong answers with
    a phrase that their message must contain. `seconds` limits the whole check. An `open` exercise has no check but
    questions to ask one's own result, `self_check`.
    """

    id: str
    title: str
    minutes: int
    difficulty: int
    contract: str
    hints: tuple[str, ...]
    solution: Callable | type | None = None
    check: Callable[[Any], None] | None = None
    wrong: tuple[tuple[Callable | type, str], ...] = ()
    covers: str = ""
    seconds: float = 5.0
    open: bool = False
    self_check: tuple[str, ...] = ()

    @property
    def lesson(self) -> int:
        return int(self.id.partition(".")[0])

    @property
    def name(self) -> str:
        """What the learner's function or class is called."""
        return self.solution.__name__ if self.solution else "my_answer"


@dataclass(frozen=True, repr=False)
class Verdict:
    """What a check found. True only when passed; `text` is all of it in plain text."""

    status: str
    title: str
    message: str = ""
    details: str = ""
    cause: str = ""
    next: str = ""
    note: str = ""

    @property
    def mark(self) -> str:
        return {PASSED: "✓", WRONG: "✗", RAISED: "!"}.get(self.status, "○")

    @property
    def text(self) -> str:
        parts = (f"{self.mark} {self.title}", self.message, textwrap.indent(self.details, "    "))
        cause = f"Likely cause: {self.cause}" if self.cause else ""
        return "\n".join(part for part in (*parts, cause, self.next, self.note) if part)

    def __bool__(self) -> bool:
        return self.status == PASSED

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"<{self.title}>"

    def _ipython_display_(self) -> None:
        """Nothing: `check` has shown it already, and would show it twice as the last line of a cell."""


def judge(exercise: Exercise, candidate: Any = MISSING, seconds: float | None = None) -> Verdict:
    """Judge a learner's function or class; never raises because of what the learner wrote, except on Ctrl-C.

    The check runs in a thread of its own for at most `seconds` (default: the exercise's); math.inf runs it in this
    thread, without a limit, so that a debugger works. The global random generator is seeded for the check and given
    back afterwards. Raises SettingError for `seconds` that are no number above 0.
    """
    title = f"{exercise.id} {exercise.title}"
    limit = exercise.seconds if seconds is None else seconds
    if not isinstance(limit, (int, float)) or not limit > 0:
        raise SettingError(f"`seconds` is the time limit, a number above 0, not {seconds!r}.")
    if exercise.open:
        questions = "\n".join(f"- {question}" for question in exercise.self_check)
        return Verdict(OPEN, f"{title}: open, so you are the judge", questions)
    if problem := _misuse(exercise, candidate):
        return Verdict(NOT_ATTEMPTED, f"{title}: nothing to check", problem)
    if where := stub_in(candidate):
        return _not_attempted(exercise, f"{where} is still the stub.")
    try:
        _same_signature(exercise, candidate)
        error = run_limited(lambda: exercise.check(candidate), limit)
    except Wrong as wrong:
        error = wrong
    return _verdict(exercise, error, limit)


def _verdict(exercise: Exercise, error: BaseException | None, limit: float) -> Verdict:
    title, ask = f"{exercise.id} {exercise.title}", f'hint("{exercise.id}", %d) helps.'
    if error is None:
        return Verdict(PASSED, f"{title}: passed", exercise.covers and f"Checked: {exercise.covers}.")
    if isinstance(error, Wrong):
        return Verdict(WRONG, f"{title}: not right yet", error.message, error.details, error.cause, ask % error.hint)
    if isinstance(error, TimedOut):
        message = f"`{exercise.name}` did not return within {limit:g} s; the solution needs far less than one."
        patience = f'On a very busy machine: check("{exercise.id}", {exercise.name}, seconds={6 * limit:g}).'
        still = " It could not be stopped and still runs: restart the kernel if all becomes slow." if error.args else ""
        return Verdict(WRONG, f"{title}: no answer", message + still, cause="a loop that never ends", next=patience)
    frames = traceback.extract_tb(error.__traceback__)
    ours = getattr(getattr(exercise.check, "__code__", None), "co_filename", "")
    own = [frame for frame in frames if frame.filename != ours and not _internal(frame.filename)]
    if isinstance(error, NotImplementedError) and own and frames[-1] == own[-1]:
        where = f"Line {own[-1].lineno} still raises NotImplementedError"
        return _not_attempted(exercise, f"{where}: remove it when yours is complete.")
    details = [f"{_place(frame)}, in {frame.name}:\n    {frame.line}".rstrip() for frame in own[-3:]]
    text = str(error).strip().splitlines()[:4]
    details.append(f"{type(error).__name__}: {chr(10).join(text)}"[:600])
    details += getattr(error, "__notes__", [])[:1]
    message = "" if own else f"It arose while the check used what you gave it. Expected: {exercise.contract}"
    return Verdict(RAISED, f"{title}: your code raised an error", message, "\n".join(details), next=ask % 3)


def _not_attempted(exercise: Exercise, message: str) -> Verdict:
    ask = f'hint("{exercise.id}") gives a first hint.'
    return Verdict(NOT_ATTEMPTED, f"{exercise.id} {exercise.title}: not attempted yet", message, next=ask)


def _misuse(exercise: Exercise, candidate: Any) -> str:
    """What is wrong with the call of check itself, or an empty string."""
    kind = "class" if isinstance(exercise.solution, type) else "function"
    right = f'check("{exercise.id}", {exercise.name})'
    if candidate is MISSING:
        return f"Give your {kind} as the second argument: `{right}`."
    if isinstance(exercise.solution, type) and not isinstance(candidate, type):
        return f"`check` takes the class itself, not {describe(candidate)}: `{right}`, without calling it."
    if not callable(candidate):
        came = f"what it returns ({describe(candidate)})"
        return f"`check` takes the {kind} itself, not {came}: `{right}`, without calling it."
    if kind == "function" and isinstance(candidate, type):
        return f"A function was expected, but `{candidate.__name__}` is a class: `{right}`."
    return ""


def _same_signature(exercise: Exercise, candidate: Any) -> None:
    """Wrong where the candidate cannot take the arguments that the solution takes."""
    try:
        want, got = inspect.signature(exercise.solution), inspect.signature(candidate)
    except (TypeError, ValueError):
        return
    plain = [p for p in want.parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    named = {p.name: None for p in want.parameters.values() if p.kind is p.KEYWORD_ONLY}
    try:
        got.bind(*plain, **named)
    except TypeError:
        name = getattr(candidate, "__name__", exercise.name)
        message = f"The check calls `{exercise.name}{want}`; yours is `{name}{got}`."
        raise Wrong(message, cause="an argument too many, too few, or with another name", hint=1) from None


_INTERNAL = (str(Path(__file__).parents[1]), sysconfig.get_path("stdlib"), "<frozen", "<string>")


def _internal(filename: str) -> bool:
    return filename.startswith(_INTERNAL) or "site-packages" in filename or "dist-packages" in filename


def _place(frame: traceback.FrameSummary) -> str:
    """A file by its name, a notebook cell as such: the name of its temporary file says nothing."""
    path = Path(frame.filename)
    return f"{path.name}, line {frame.lineno}" if path.is_file() else f"line {frame.lineno} of your cell"

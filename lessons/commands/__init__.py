"""What `python -m lessons` does: one module per command, none of them imported by a notebook."""

import subprocess
from pathlib import Path

from .. import course
from ..errors import SettingError

# What a kernel must find in its environment, since torch reads it when it is imported: idle threads sleep, so that two
# kernels share the cores; and what Apple's GPUs cannot do, backward passes included, is done on the CPU.
KERNELS = {"OMP_WAIT_POLICY": "PASSIVE", "PYTORCH_ENABLE_MPS_FALLBACK": "1"}


def checkout() -> Path:
    """The root of the checkout this package lies in; SettingError where it was installed without one."""
    root = Path(__file__).resolve().parents[2]
    if (root / "pyproject.toml").is_file() and (root / "notebooks").is_dir():
        return root
    raise SettingError(
        "This command works on the notebooks of a checkout, and the package is installed without one. "
        f"Run `git clone {course.repository()}`, then `make setup` in it."
    )


def chosen(which: str, root: Path) -> list[course.Lesson]:
    """The lessons that `which` names ("01", "1" or "all") and that have a notebook; SettingError when none has."""
    wanted = course.LESSONS if which == "all" else (course.lesson(which),)
    found = [lesson for lesson in wanted if notebook(lesson, root).is_file()]
    if not found:
        missing = "no notebooks" if which == "all" else f"no notebook of lesson {wanted[0].number:02d}"
        there = ", ".join(path.name for path in sorted((root / "notebooks").glob("*.ipynb"))) or "nothing"
        raise SettingError(f"There is {missing} in {root / 'notebooks'}; it holds {there}.")
    return found


def committed(path: Path) -> str | None:
    """What git has committed of a file (HEAD); None without git, outside a repository, or where it has no such file."""
    try:
        done = subprocess.run(["git", "-C", str(path.parent), "show", f"HEAD:./{path.name}"], capture_output=True)
    except OSError:
        return None
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None


def notebook(lesson: course.Lesson, root: Path) -> Path:
    """Where the notebook of a lesson lies."""
    return root / "notebooks" / f"{lesson.stem}.ipynb"

"""JupyterLab on a copy of one's own: the published notebook stays as it is, whatever happens in the copy."""

import importlib.util
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from .. import course, kernel
from ..errors import LessonError, SettingError, StorageError
from . import KERNELS, checkout, chosen, mine

# Defaults of JupyterLab for the course: no question about news at the first start, and widgets that survive saving.
# What the reader sets in JupyterLab goes before them.
DEFAULTS = Path(__file__).with_name("jupyter")


def lab(which: str, *, new: bool, arguments: list[str]) -> int:
    """Open the newest copy of one's own of a lesson, made first where there is none (or with `new`), in JupyterLab,
    which gets the further `arguments`. LessonError says what is wrong; then nothing was started and nothing lost."""
    root, lesson = checkout(), course.lesson(which)
    if not mine.copies(lesson, root):
        chosen(which, root)  # says which notebooks are there where this one is not
    copy = mine.fetch(lesson, root, new=new)
    try:
        line = mine.news(copy, lesson, root)
    except LessonError as error:
        again = f"`make lab LESSON={lesson.number:02d} NEW=1` makes a new copy and leaves this one where it is."
        raise LessonError(f"{error} {again}") from error
    print(f"Your copy: {copy.relative_to(root)}", flush=True)
    if line:
        print(line, flush=True)
    return start(copy, root, arguments)


def start(copy: Path, root: Path, arguments: list[str]) -> int:
    """Start JupyterLab on this machine's own address, with an address that opens `copy`."""
    if importlib.util.find_spec("jupyterlab") is None:
        raise SettingError("JupyterLab is not installed. Run `make setup`, or pip install -e '.[lab]'.")
    address = f"/lab/tree/{quote(copy.relative_to(root).as_posix())}"
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={root}", f"--LabApp.default_url={address}"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:  # usual in a container; Jupyter then does not start unless told
        command.append("--allow-root")
    with suppress(StorageError):  # an environment of somebody else's: its kernels do without
        kernel.install(sys.prefix)
    settings = os.pathsep.join(filter(None, (str(DEFAULTS), os.environ.get("JUPYTER_CONFIG_PATH"))))
    environment = {**KERNELS, **os.environ, "JUPYTER_CONFIG_PATH": settings}
    return _become(command + arguments, environment)


def _become(command: list[str], environment: dict[str, str]) -> int:
    """Run `command` in the place of this process, so that Ctrl-C and signals reach it; Windows cannot, and waits."""
    sys.stdout.flush()
    if os.name == "posix":
        os.execve(command[0], command, environment)
    return subprocess.run(command, env=environment).returncode

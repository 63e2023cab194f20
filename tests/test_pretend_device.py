"""The lessons on an accelerator, pretended where there is none: no devices mixed, no wait in a loop, nothing missing.

Needs a C++ compiler and ninja; without them these tests are skipped.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lessons import course

ROOT = Path(__file__).resolve().parents[1]
CHECKS = re.findall(r"^def (\w+)\(\) -> None:", (ROOT / "tests/pretend_device/checks.py").read_text(), re.M)
QUICK = {7, 11}  # transformers, probes, convolutions, sequences; `make test-long` runs all eleven


def python(*arguments: str, **switches: str) -> subprocess.CompletedProcess:
    """`python -m ...` from the checkout, with the tools that lie beside Python on the path."""
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    env = os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"} | switches
    return subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, env=env, text=True, capture_output=True)


@pytest.fixture(scope="module")
def compiled() -> None:
    """The pretend device, compiled once."""
    tools = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    missing = [name for name in ("c++", "ninja") if not shutil.which(name, path=tools)]
    if missing or sys.platform == "win32":
        pytest.skip(f"no {' and no '.join(missing) or 'POSIX system'} to compile the pretend device with")
    done = python("tests.pretend_device.simdevice")
    if "Python.h: No such file" in done.stderr:
        pytest.skip("no headers of Python to compile the pretend device with")
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("check", CHECKS)
def test_on_the_pretend_accelerator(compiled, check):
    done = python("tests.pretend_device.checks", check)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize(
    "number",
    [pytest.param(one.number, marks=[] if one.number in QUICK else pytest.mark.long) for one in course.LESSONS],
)
def test_the_lesson_runs_there(compiled, number):
    """In the precision of a T4, the usual GPU of a free notebook."""
    done = python("tests.pretend_device", f"{number:02d}", LESSONS_PRECISION="float16")
    assert done.returncode == 0, done.stdout[-3000:]

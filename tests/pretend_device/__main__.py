"""Run lessons on the pretend accelerator: `python -m tests.pretend_device 01 02`, or without numbers all eleven.

At smoke scale on built-in scenes, unless the LESSONS_* switches say otherwise, such as LESSONS_SCALE=gpu with
LESSONS_REHEARSAL=3. A lesson that mixes devices, or asks a device for an array, ends with an error here as it would on
a GPU.
"""

import os
import runpy
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SWITCHES = {"LESSONS_SCALE": "smoke", "LESSONS_DATA": "scenes", "LESSONS_HEADLESS": "1", "HF_HUB_OFFLINE": "1"}


def run_here(source: str) -> None:
    """In the child: one lesson as a script."""
    from tests.pretend_device import simdevice

    runpy.run_path(source, run_name="__main__")
    print(f"{simdevice.operations():,} operations, {simdevice.waits():,} waits")


def main(numbers: list[str]) -> int:
    """Run the lessons one after another; the number of those that failed."""
    sources = sorted((ROOT / "notebooks" / "source").glob("*.py"))
    chosen = [path for path in sources if not numbers or path.name[:2] in numbers]
    tools = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])  # ninja lies beside Python
    env = SWITCHES | {"MPLBACKEND": "Agg", "PYTHONPATH": str(ROOT)} | os.environ | {"PATH": tools}
    failed = 0
    for path in chosen:
        began = time.perf_counter()
        command = [sys.executable, "-m", "tests.pretend_device", "--child", str(path)]
        done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True)
        tail = (done.stderr if done.returncode else done.stdout).strip().splitlines()[-12 if done.returncode else -1 :]
        state = "failed" if done.returncode else "ok"
        print(f"{path.stem}: {state} in {time.perf_counter() - began:.0f} s", *tail, sep="\n   ", flush=True)
        failed += done.returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(run_here(sys.argv[2]) if sys.argv[1:2] == ["--child"] else main(sys.argv[1:]) > 0)

"""The bundle for a workshop without network: wheels, notebooks, data, and scripts that install and start."""

import filecmp
import shutil
import subprocess
import sys
import tomllib
import urllib.request
from pathlib import Path

import torch

from .. import data, store
from ..errors import DataError, LessonError, StorageError
from . import KERNELS, checkout, chosen, notebook
from .mine import keep
from .notebooks import OUT, own_work, read, worked_in

WHEELS_MB = {"cpu": 700, "gpu": 4500}  # what the wheels of JupyterLab, PyTorch and the rest take, rounded up
CPU_WHEELS = "https://download.pytorch.org/whl/cpu"

INSTALL_SH = """#!/bin/sh
# Installs the course into this folder, without network.
set -eu
cd "$(dirname "$0")"
python="${PYTHON:-python3}"
"$python" -c 'import sys; sys.exit(sys.version_info[:2] != (MAJOR, MINOR))' || {
    echo "These wheels need Python MAJOR.MINOR: PYTHON=/path/to/pythonMAJOR.MINOR ./install.sh" >&2; exit 1; }
"$python" -m venv environment
environment/bin/python -m pip install --no-index --find-links wheels "vision-to-language[lab]"
echo "Installed. Start with ./start.sh"
"""
EXPORTS = "\n".join(f"export {name}={value}" for name, value in KERNELS.items())
START_SH = f"""#!/bin/sh
# Opens the course in the browser.
set -eu
cd "$(dirname "$0")"
if [ -d data ]; then LESSONS_DATA_DIR="$PWD/data"; export LESSONS_DATA_DIR; fi
{EXPORTS}
exec environment/bin/python -m jupyterlab notebooks
"""
INSTALL_BAT = """@echo off
rem Installs the course into this folder, without network.
cd /d "%~dp0"
py -MAJOR.MINOR -m venv environment || (echo These wheels need Python MAJOR.MINOR & exit /b 1)
environment\\Scripts\\python -m pip install --no-index --find-links wheels "vision-to-language[lab]" || exit /b 1
echo Installed. Start with start.bat
"""
SETTINGS = "\n".join(f"set {name}={value}" for name, value in KERNELS.items())
START_BAT = f"""@echo off
rem Opens the course in the browser.
cd /d "%~dp0"
if exist data set LESSONS_DATA_DIR=%~dp0data
{SETTINGS}
environment\\Scripts\\python -m jupyterlab notebooks
"""


def pack(out: Path, folder: Path | None = None, wheels: bool = True) -> None:
    """Write the bundle to `out`: wheels for this kind of machine and this Python, the notebooks, the data sets found in
    `folder`. What is there already is kept, so a call that was cut off goes on: a notebook that somebody worked in and
    a script with other content under another name, with the date in it. The install scripts come last, so a folder that
    has them is whole. Raises StorageError before the first byte where the disk is too small, DataError where `folder`
    holds no known set, LessonError where a published notebook is damaged or holds own work, or where pip fails."""
    root = checkout()
    files = {path: out / "notebooks" / path.name for path in _notebooks(root)}
    files |= {path: out / "data" / path.relative_to(folder) for path in _data_files(folder)} if folder else {}
    files = {path: target for path, target in files.items() if not _same(path, target)}
    _check_room(out, list(files), wheels)
    scripts = {out / name: text for name, text in _scripts().items()}
    _keep([script for script, text in scripts.items() if script.is_file() and script.read_bytes() != text])
    there = {path: target for path, target in files.items() if path.suffix == ".ipynb" and target.is_file()}
    _keep([target for path, target in there.items() if worked_in(target, path, read(path))])
    for script in ("install.sh", "install.bat"):
        (out / script).unlink(missing_ok=True)
    for number, (path, target) in enumerate(files.items(), 1):
        print(f"[{number}/{len(files)}] {target.relative_to(out)}", flush=True)
        with store.atomic(target, OUT) as partial:
            shutil.copyfile(path, partial)
            shutil.copystat(path, partial)
    if wheels:
        _wheels(root, out / "wheels")
    for script, text in scripts.items():
        with store.atomic(script, OUT) as partial:
            partial.write_bytes(text)
            partial.chmod(0o755)
    print(f"The bundle is in {out}. On each machine: ./install.sh (Windows: install.bat), then ./start.sh.")


def _notebooks(root: Path) -> list[Path]:
    """The published notebooks of the lessons; LessonError where one is damaged or holds somebody's own work."""
    paths = [notebook(lesson, root) for lesson in chosen("all", root)]
    for path in paths:
        if work := own_work(path, root):
            raise LessonError(f"Nothing was packed: {work}")
    if others := sorted({path.name for path in root.glob("notebooks/*.ipynb")} - {path.name for path in paths}):
        print(f"Left out, since they are no lessons of the course: {', '.join(others)}", file=sys.stderr)
    return paths


def _keep(paths: list[Path]) -> None:
    """Keep what is about to be written over in a copy beside it, and say so."""
    for path in paths:
        print(f"{path} was there already; it is kept as {keep(path, path.parent, OUT).name}.", file=sys.stderr)


def _data_files(folder: Path) -> list[Path]:
    """All files of the known sets in `folder`."""
    names = {name for spec in data.SETS.values() for name in spec.folders}
    sets = [folder / name for name in sorted(names) if (folder / name).is_dir()]
    if not sets:
        raise DataError(f"{folder} holds none of the known sets. Expected one or more of: {', '.join(sorted(names))}.")
    return [path for part in sets for path in sorted(part.rglob("*")) if path.is_file()]


def _same(path: Path, target: Path) -> bool:
    return target.is_file() and filecmp.cmp(path, target)


def _check_room(out: Path, files: list[Path], wheels: bool) -> None:
    """StorageError when the disk of `out` cannot take what is still to be written, with a tenth to spare."""
    there = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    needed = sum(path.stat().st_size for path in files) / 2**20
    if wheels:
        kept = sum(path.stat().st_size for path in (out / "wheels").glob("*.whl")) / 2**20
        needed += max(WHEELS_MB["gpu" if torch.version.cuda else "cpu"] - kept, 0)
    free = shutil.disk_usage(there).free / 2**20
    if free < 1.1 * needed:
        raise StorageError(
            f"The bundle needs about {1.1 * needed:,.0f} MB more, and {there} has {free:,.0f} MB free. "
            "Free some space, or give --out a folder on another disk."
        )


def _wheels(root: Path, folder: Path) -> None:
    """Download the wheels of the constraints' lab set, and build ours. pip skips what is there already."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["lab"]]
    common = ["--only-binary", ":all:", "--constraint", str(root / "constraints.txt"), "--dest", str(folder)]
    folder.mkdir(parents=True, exist_ok=True)
    _pip("download", *common, *_cpu_index(), *wanted)
    _pip("wheel", "--no-deps", "--wheel-dir", str(folder), str(root))


def _cpu_index() -> list[str]:
    """pip's option for the CPU build of torch on Linux, where the ordinary index has the one for CUDA. None where its
    host does not answer: pip would ask it for every package, and wait each time."""
    if torch.version.cuda or sys.platform != "linux":
        return []
    try:
        with urllib.request.urlopen(f"{CPU_WHEELS}/torch/", timeout=3):
            return ["--extra-index-url", CPU_WHEELS]
    except OSError:
        print(f"{CPU_WHEELS} does not answer: pip takes torch from its ordinary index.", file=sys.stderr)
        return []


def _pip(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", "pip", *arguments])
    if done.returncode:
        raise LessonError(f"pip {arguments[0]} failed; its reason stands above. The same command goes on from here.")


def _scripts() -> dict[str, bytes]:
    """The content of the scripts, by name; the install scripts last."""
    scripts = {"start.sh": START_SH, "start.bat": START_BAT, "install.bat": INSTALL_BAT, "install.sh": INSTALL_SH}
    major, minor = sys.version_info[:2]
    for name, text in scripts.items():
        text = text.replace("MAJOR", str(major)).replace("MINOR", str(minor))
        scripts[name] = (text.replace("\n", "\r\n") if name.endswith(".bat") else text).encode()
    return scripts

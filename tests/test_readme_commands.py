"""Every command in README is executed, with the smallest substitution that keeps a test away from the network.

`HOW` says for each command how. A command in README without an entry fails, and so does an entry without a command.
"""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
import yaml
from checkouts import ROOT, Server, copied, environment, git, program, ready
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from lessons import course
from lessons.commands import links, pack

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="README's commands are those of a POSIX shell")

NAME = "vision-to-language"
PROGRAM = re.compile(r"(?:make|python3?|pip|conda|git|cd|sh|bash|source|jupyter|docker|curl)\s|\.\s|\./|\S+\.bat$")
HOW: dict[str, Callable[["Shell"], None]] = {}
LONG: set[str] = set()


class Shell:
    """A reader's shell in a checkout of one's own: `run` executes a command and fails where it fails."""

    def __init__(self, origin: Path, folder: Path):
        self.origin, self.above = origin, folder
        self.root = folder / NAME
        self.env = environment(folder / "home", LESSONS_CACHE_DIR=str(folder / "cache"), OMP_NUM_THREADS="1")
        self.env["PATH"] = f"{self.root / '.venv' / 'bin'}{os.pathsep}{self.env['PATH']}"
        self.run(f"git clone --quiet {shlex.quote(str(origin))}", folder)
        ready(self.root)

    def run(self, command: str, folder: Path | None = None) -> str:
        options = {"cwd": folder or self.root, "env": self.env, "stdin": subprocess.DEVNULL}
        done = subprocess.run(command, shell=True, capture_output=True, text=True, **options)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def serve(self, command: str, path: str) -> None:
        """Start a server, and open the address it prints: it must be that of `path`."""
        with Server(command, self.root, self.env) as server:
            assert server.path == f"/lab/tree/{path}"
            assert f'"treePath": "{path}"' in server.page()
            assert server.call(f"api/contents/{path}")["type"] == "notebook"


@pytest.fixture(scope="module")
def origin(tmp_path_factory) -> Path:
    """What stands for the repository on GitHub: this working tree, committed."""
    target = copied(tmp_path_factory.mktemp("origin") / NAME)
    git(target, "init", "--quiet")
    git(target, "add", "--all")
    git(target, "commit", "--quiet", "--message", "all")
    return target


@pytest.fixture
def shell(origin, tmp_path) -> Shell:
    return Shell(origin, tmp_path)


def readme_commands() -> list[str]:
    """Every command in README: the lines of its code blocks that are no Python, and the `spans` that call a program."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = [match[0] for match in re.finditer(r"(?:^ {4}.*\n|^\n(?= {4}))+", text, re.M)]
    lines = [line for block in blocks if not is_python(block) for line in block.splitlines()]
    prose = re.sub(r"^ {4}.*$", "", text, flags=re.M)
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]
    found = [line.partition(" #")[0].strip() for line in lines] + [span for span in spans if PROGRAM.match(span)]
    return list(dict.fromkeys(command for command in found if command))


def is_python(block: str) -> bool:
    try:
        ast.parse(textwrap.dedent(block))
    except SyntaxError:
        return False
    return True


def how(command: str, long: bool = False) -> Callable:
    """Enter a function as the way in which a command is executed; `long` where that takes more than ten seconds."""

    def enter(function: Callable[[Shell], None]) -> Callable[[Shell], None]:
        HOW[command] = function
        LONG.update([command] * long)
        return function

    return enter


def test_every_command_of_readme_has_an_entry_and_every_entry_a_command():
    named = readme_commands()
    assert {"make lab", "make test"} <= set(named)
    assert [one for one in named if one not in HOW] == [], "commands in README that no test executes: add an entry"
    assert [one for one in HOW if one not in named] == [], "entries for commands that README no longer names"


# Two commands


@how(f"git clone {links.address(ROOT)}")
def clone(shell: Shell) -> None:
    assert (shell.root / "README.md").is_file() and (shell.root / "notebooks" / "01_resnet.ipynb").is_file()


@how(f"cd {NAME}")
def enter(shell: Shell) -> None:
    assert shell.run(f"cd {NAME} && pwd", shell.above).strip() == str(shell.root)


@how("make lab")
def make_lab(shell: Shell) -> None:
    shell.serve("make lab", "notebooks/mine/01_resnet.ipynb")


@how("make test")
def make_test(shell: Shell) -> None:
    """It cannot run in a test of its own; what it would run is read instead."""
    planned = shell.run("make -n test")
    for part in ("-m pytest -n 2 --dist loadfile tests", "--nbval-lax", "lessons solve all", "LESSONS_STRICT=1"):
        assert part in planned


@how("make help")
def make_help(shell: Shell) -> None:
    listed = re.findall(r"^ +make ([\w-]+)", shell.run("make help"), re.M)
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.M)
    assert listed == targets and {"lab", "test", "run"} <= set(listed)


@how(". .venv/bin/activate")
def activate(shell: Shell) -> None:
    script = Path(sys.prefix) / "bin" / "activate"
    if not script.is_file():
        pytest.skip("these tests run outside a virtual environment")
    found = shell.run(f". {shlex.quote(str(script))} && command -v python").strip()
    assert Path(found).samefile(sys.executable)


# On your own


@how('make lab LESSON=01 ARGS="--no-browser"')
def make_lab_without_a_screen(shell: Shell) -> None:
    shell.serve('make lab LESSON=01 ARGS="--no-browser"', "notebooks/mine/01_resnet.ipynb")


@how("make lab LESSON=01 NEW=1")
def make_lab_new(shell: Shell) -> None:
    mine = shell.root / "notebooks" / "mine"
    mine.mkdir()
    (mine / "01_resnet.ipynb").write_text("my work")
    shell.serve("make lab LESSON=01 NEW=1", "notebooks/mine/01_resnet-2.ipynb")
    assert (mine / "01_resnet.ipynb").read_text() == "my work"


@how("python -m lessons lab 01")
def lab_without_make(shell: Shell) -> None:
    shell.serve("python -m lessons lab 01", "notebooks/mine/01_resnet.ipynb")


@how("python -m lessons mine --rescue")
def rescue(shell: Shell) -> None:
    path = shell.root / "notebooks" / "01_resnet.ipynb"
    book = nbformat.read(path, as_version=4)
    book.cells[-1].source += "\nmy answer"
    nbformat.write(book, path)
    shell.run("python -m lessons mine --rescue")
    (kept,) = (shell.root / "notebooks" / "mine").glob("01_resnet.*.ipynb")
    assert "my answer" in kept.read_text()
    assert git(shell.root, "status", "--porcelain") == ""


@how("python -m lessons exercises")
def exercises(shell: Shell) -> None:
    listed = shell.run("python -m lessons exercises").splitlines()
    assert listed[0].startswith("1.1 ") and len(listed) > 50


@how("python -m lessons progress --export progress.json")
def export_progress(shell: Shell) -> None:
    shell.run("""python -c 'from lessons.exercises import hint; hint("1.1")'""")
    assert "1 exercises." in shell.run("python -m lessons progress --export progress.json")
    assert json.loads((shell.root / "progress.json").read_text())["1.1"]["hints"] == 1


@how("python -m lessons progress --import progress.json")
def import_progress(shell: Shell) -> None:
    entry = {"passed": 1, "tries": 2, "hints": 0, "solution": 0}
    (shell.root / "progress.json").write_text(json.dumps({"1.1": entry}))
    shown = shell.run("python -m lessons progress --import progress.json")
    assert re.search(r"^01  ResNet .* 1 / \d+$", shown, re.M)
    assert json.loads((shell.above / "cache" / "progress.json").read_text()) == {"1.1": entry}


@how('pip install -e ".[lab]"')
def pip_install(shell: Shell) -> None:
    """Without network: pip resolves it against what is installed, and stops before it would write."""
    offline = "--dry-run --no-index --no-build-isolation --disable-pip-version-check"
    assert f"Would install {NAME}" in shell.run(f'python -m pip install {offline} -e ".[lab]"')


@how("conda env create -f environment.yml")
def conda(shell: Shell) -> None:
    """conda needs a network; the file must be what conda reads, with the packages of pyproject.toml."""
    made = yaml.safe_load((shell.root / "environment.yml").read_text())
    assert made["name"] == NAME and made["channels"] == ["conda-forge"]
    named = {Requirement(line).name for line in made["dependencies"] if isinstance(line, str)}
    project = tomllib.loads((shell.root / "pyproject.toml").read_text())["project"]
    wanted = [Requirement(line).name for line in project["dependencies"] + project["optional-dependencies"]["lab"]]
    conda_names = {"torch": "pytorch"}
    assert {canonicalize_name(conda_names.get(name, name)) for name in wanted} | {"python", "pip"} == named
    assert made["dependencies"][-1] == {"pip": ["--editable .[lab]"]}


# In a workshop


@how("python -m lessons doctor", long=True)
def doctor(shell: Shell) -> None:
    assert "The lessons can run here." in shell.run("python -m lessons doctor")


@how("python -m lessons pack --out build/bundle")
def bundle(shell: Shell) -> None:
    """The wheels come from the network."""
    shell.run("python -m lessons pack --out build/bundle --no-wheels")
    packed = {path.name for path in (shell.root / "build" / "bundle" / "notebooks").glob("*.ipynb")}
    assert packed == {f"{lesson.stem}.ipynb" for lesson in course.LESSONS}


@how("python -m lessons pack --out build/bundle --data FOLDER")
def bundle_with_data(shell: Shell) -> None:
    (shell.above / "sets" / "cifar10").mkdir(parents=True)
    (shell.above / "sets" / "cifar10" / "train.parquet").write_bytes(b"pictures")
    shell.run("python -m lessons pack --out build/bundle --data ../sets --no-wheels")
    assert (shell.root / "build" / "bundle" / "data" / "cifar10" / "train.parquet").read_bytes() == b"pictures"


@how("python -m lessons cut")
def cut(shell: Shell) -> None:
    shell.run("python -m lessons cut")
    assert len(list((shell.root / "build" / "cut").glob("*.ipynb"))) == len(course.LESSONS)


@how("python -m lessons cut all --out build/bundle/notebooks/cut")
def cut_into_the_bundle(shell: Shell) -> None:
    shell.run("python -m lessons cut all --out build/bundle/notebooks/cut")
    written = (shell.root / "build" / "bundle" / "notebooks" / "cut").glob("*.ipynb")
    assert {path.name[:2] for path in written} == {f"{lesson.number:02d}" for lesson in course.LESSONS}


@how("./install.sh", long=True)
def install(shell: Shell) -> None:
    """With one empty wheel instead of hundreds of megabytes."""
    shell.run("python -m lessons pack --out build/bundle --no-wheels")
    folder = shell.root / "build" / "bundle"
    (folder / "wheels").mkdir()
    about = f"{NAME.replace('-', '_')}-0.dist-info"
    with zipfile.ZipFile(folder / "wheels" / f"{NAME.replace('-', '_')}-0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 0\nProvides-Extra: lab\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")
    shell.env["PYTHON"] = sys.executable
    shell.run("./install.sh", folder)
    assert NAME in shell.run("environment/bin/python -m pip list", folder)


@how("./start.sh")
def start(shell: Shell) -> None:
    """With the Python of these tests where the bundle has its own."""
    shell.run("python -m lessons pack --out build/bundle --no-wheels")
    folder = shell.root / "build" / "bundle"
    (folder / "environment" / "bin").mkdir(parents=True)
    shutil.copy(shell.root / ".venv" / "bin" / "python", folder / "environment" / "bin" / "python")
    with Server("./start.sh", folder, shell.env) as server:
        assert "JupyterLab" in server.page()
        listed = {one["name"] for one in server.call("api/contents")["content"]}
        assert {f"{lesson.stem}.ipynb" for lesson in course.LESSONS} <= listed


@how("install.bat")
@how("start.bat")
def windows(shell: Shell) -> None:
    """Nothing here runs a .bat; it must call the same program as its twin, with the same arguments."""
    shell.run("python -m lessons pack --out build/bundle --no-wheels")
    folder = shell.root / "build" / "bundle"
    for name in ("install", "start"):
        posix = (folder / f"{name}.sh").read_text().replace("\\\n", " ")
        batch = (folder / f"{name}.bat").read_bytes().decode()
        assert batch.startswith("@echo off\r\n") and batch.count("\n") == batch.count("\r\n")
        calls = [set(re.findall(r"python -m ((?!venv)\w[^&|\r\n]*[^&|\r\n ])", text)) for text in (posix, batch)]
        assert calls[0] and calls[0] == calls[1]
    assert {"install.bat", "start.bat"} == {path.name for path in folder.glob("*.bat")}
    assert "environment\\Scripts\\python" in pack.START_BAT


# On Colab


@how("python -m lessons links --repo OWNER/NAME --ref main")
def relink(shell: Shell) -> None:
    shell.run("python -m lessons links --repo OWNER/NAME --ref main")
    assert links.address(shell.root) == "https://github.com/OWNER/NAME"
    left = links.owner_and_name(links.address(ROOT))
    assert not [p for p in shell.root.glob("notebooks/*.ipynb") if f"github.com/{left}" in p.read_text()]


# In CI, how results are measured


@how(
    "LESSONS_SCALE=smoke LESSONS_DATA=scenes LESSONS_HEADLESS=1 "
    "python -m pytest --nbval-lax --nbval-current-env notebooks/*.ipynb",
    long=True,
)
def nbval(shell: Shell) -> None:
    """One notebook; `make test` runs all."""
    for path in shell.root.glob("notebooks/*.ipynb"):
        if not path.name.startswith("01"):
            path.unlink()
    command = next(command for command, function in HOW.items() if function is nbval)
    assert re.search(r"\d+ passed", shell.run(command))


@how("make claims DATA=scenes", long=True)
def make_claims(shell: Shell) -> None:
    """One lesson at smoke scale: all of them at cpu scale take most of an hour."""
    (planned,) = [line for line in shell.run("make -n claims DATA=scenes").splitlines() if "lessons run" in line]
    assert "run all --scale cpu --data scenes --hold" in planned
    shown = shell.run(planned.replace("run all --scale cpu", "run 01 --scale smoke"))
    assert "nothing to hold" in shown


@how("make run LESSON=01 SCALE=cpu", long=True)
def make_run(shell: Shell) -> None:
    """At smoke scale, on scenes."""
    shell.run("make run LESSON=01 SCALE=smoke DATA=scenes")
    assert (shell.root / "build" / "01_resnet.ipynb").is_file()
    assert list((shell.root / "build" / "results").glob("01-smoke-scenes-*.json"))


@how("python -m lessons results")
def results(shell: Shell) -> None:
    assert re.search(r"^01  cpu, ", shell.run("python -m lessons results"), re.M)


@how("python -m lessons picture")
def picture(shell: Shell) -> None:
    drawn = shell.above / "path.png"
    shell.run(f"python -m lessons picture --out {drawn}")
    assert drawn.read_bytes().startswith(b"\x89PNG")


MARKED = [pytest.param(command, marks=pytest.mark.long) if command in LONG else command for command in HOW]


@pytest.mark.parametrize("command", MARKED)
def test_the_command_does_what_readme_says(command, shell):
    if command.startswith("make "):
        program("make")
    HOW[command](shell)

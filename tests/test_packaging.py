"""One product from many files: what is declared, pinned, imported and automated agrees."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from checkouts import program
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from lessons import course
from lessons.commands import links

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
CONDA_NAMES = {"pytorch": "torch"}
# Modules whose distribution has another name, or that a declared one brings along.
MODULES = {
    "PIL": "pillow",
    "sklearn": "scikit-learn",
    "IPython": "ipython",
    "jupyter_client": "ipykernel",
    "cycler": "matplotlib",
    "matplotlib_inline": "ipython",
}


def parsed(lines: list[str]) -> dict[str, Requirement]:
    wanted = [Requirement(line) for line in lines if not line.startswith(PROJECT["name"])]
    return {canonicalize_name(one.name): one for one in wanted}


CORE = parsed(PROJECT["dependencies"])
LAB, DEV, BENCH = (parsed(EXTRAS[extra]) for extra in ("lab", "dev", "bench"))


def constraints() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line.strip()]
    assert all(len(pair) == 2 for pair in pairs), "constraints.txt holds exact versions only: name==version"
    return {canonicalize_name(name): Version(version) for name, version in pairs}


# Dependencies


def test_constraints_lie_within_the_declared_ranges():
    pinned = constraints()
    for name, wanted in (CORE | LAB | DEV | BENCH).items():
        assert wanted.specifier.contains(pinned[name]), f"{name} {pinned[name]} is outside {wanted.specifier}"
    assert (str(pinned["torch"]), str(pinned["torchvision"])) == ("2.13.0", "0.28.0")
    assert not [name for name, version in pinned.items() if version.local], "a local tag (+cpu) binds one platform"


@pytest.mark.skipif(bool(os.environ.get("FRESH")), reason="this run takes the newest releases instead")
def test_constraints_name_every_package_the_dev_extra_installs_at_its_version():
    pinned, todo, seen = constraints(), [(PROJECT["name"], "dev")], set()
    while todo:
        name, extra = todo.pop()
        for line in metadata.requires(name) or ():
            wanted = Requirement(line)
            key = canonicalize_name(wanted.name)
            if wanted.marker and not any(wanted.marker.evaluate({"extra": e}) for e in ("", extra)):
                continue
            for inner in wanted.extras or {""}:
                if (key, inner) not in seen:
                    seen.add((key, inner))
                    todo.append((wanted.name, inner))
    names = {key for key, _ in seen} - {PROJECT["name"], "pip"}
    cuda = {name for name in names if name.startswith(("nvidia-", "cuda-", "triton"))}  # only the GPU build of torch
    assert not names - cuda - pinned.keys(), "constraints.txt lacks them"
    other = {n: metadata.version(n) for n in names - cuda if Version(metadata.version(n)).public != str(pinned[n])}
    assert not other, "installed at other versions than constraints.txt says; run `make setup`"


def test_no_range_has_an_upper_bound():
    """Colab brings its own torch and numpy: a bound would replace them under a running kernel."""
    for name, wanted in (CORE | LAB).items():
        operators = {one.operator for one in wanted.specifier}
        assert operators == {">="}, f"{name}: {wanted.specifier}; expected a lower bound only"


def test_environment_yml_agrees_with_pyproject():
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())
    by_pip = next(entry["pip"] for entry in listed["dependencies"] if isinstance(entry, dict))
    names = [Requirement(entry) for entry in listed["dependencies"] if isinstance(entry, str)]
    conda = {CONDA_NAMES.get(one.name, one.name): str(one.specifier) for one in names}
    assert conda.pop("python") == PROJECT["requires-python"]
    assert "pip" in conda and by_pip == ["--editable .[lab]"]
    conda.pop("pip")
    assert conda == {name: str(one.specifier) for name, one in (CORE | LAB).items()}


def imported(path: Path) -> Iterator[tuple[str, int]]:
    """Absolute imports of a file that must succeed: not those under try, or under suppress(ImportError)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    guards = [node for node in ast.walk(tree) if isinstance(node, ast.Try) and node.handlers]
    blocks = [node for node in ast.walk(tree) if isinstance(node, ast.With)]
    guards += [block for block in blocks if "suppress(ImportError" in ast.unparse(block.items[0])]
    optional = {id(node) for guard in guards for node in ast.walk(guard)}
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
        for name in names if id(node) not in optional else ():
            yield name.partition(".")[0], node.lineno


@pytest.mark.parametrize("path", sorted((ROOT / "lessons").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_every_third_party_import_is_a_declared_dependency(path):
    declared = CORE | LAB if path.parent.name == "commands" else CORE
    for name, line in imported(path):
        if name not in sys.stdlib_module_names and name != "lessons":
            assert canonicalize_name(MODULES.get(name, name)) in declared, f"line {line}: {name} is not declared"


# The house: imports go downwards

FLOORS = (
    ("errors", "compat", "precision"),
    ("course", "rehearsal"),
    ("store",),
    ("kernel",),
    ("bars", "explorer"),
    ("data", "nets", "objectives"),
    ("session",),
    ("augment", "training", "probes", "geometry", "figures", "claims"),
    ("recipes",),
    ("exercises",),
    ("commands",),
    ("__main__",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def rooms_used(path: Path) -> Iterator[tuple[str, int]]:
    """The rooms of the package (its top-level modules) that a file imports."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    package = parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        found: list[tuple[str, ...]] = []
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            base += tuple(node.module.split(".")) if node.module else ()
            found = [(*base, alias.name) for alias in node.names] if base == ("lessons",) else [base]
        elif isinstance(node, ast.Import):
            found = [tuple(alias.name.split(".")) for alias in node.names]
        for target in found:
            if target[:1] == ("lessons",) and len(target) > 1 and not target[1].startswith("__version"):
                yield target[1], node.lineno


@pytest.mark.parametrize("path", sorted((ROOT / "lessons").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_modules_import_only_from_the_floors_below(path):
    room = path.relative_to(ROOT / "lessons").with_suffix("").parts[0]
    if room == "__init__":
        return  # the front door may name every room
    assert room in FLOOR, f"{room} has no floor yet: add it to FLOORS"
    for used, line in rooms_used(path):
        assert used in FLOOR, f"line {line}: lessons.{used} has no floor"
        assert used == room or FLOOR[used] < FLOOR[room], f"line {line}: {room} must not import {used}"


# Automation


def targets() -> set[str]:
    text = (ROOT / "Makefile").read_text()
    return set(re.search(r"^\.PHONY: (help .*)$", text, re.M)[1].split())


def test_make_help_lists_every_target():
    command = [program("make"), "--no-print-directory"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {line.split()[1] for line in shown.splitlines()} == targets()
    assert {"setup", "lab", "test", "run", "claims", "bench", "format", "notebooks", "clean"} < targets()


def test_ci_calls_make_test_and_nothing_clever():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    lines = [line for line in script.read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "set -eu" and lines[-1] == "make test" and len(lines) <= 3


def test_workflow_runs_make_test_on_all_supported_versions():
    text = (ROOT / ".github/workflows/test.yml").read_text()
    jobs = yaml.safe_load(text)["jobs"]
    assert jobs["test"]["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]
    assert jobs["test"]["steps"][-1]["run"] == "make test"
    assert jobs["fresh"]["steps"][-1]["run"] == "make test FRESH=1"
    used = re.findall(r"uses: (\S+)", text)
    assert used and all(re.fullmatch(r"[\w-]+/[\w-]+@v\d+", one) for one in used), "pin actions to a major"


def test_pre_commit_uses_the_same_ruff():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    ruff = next(repo for repo in hooks if "ruff" in repo["repo"])
    assert ruff["rev"] == f"v{constraints()['ruff']}"


# Links


def test_the_installed_package_knows_the_address_in_pyproject():
    assert course.repository() == links.address(ROOT), "run `make setup`: the address in pyproject.toml has changed"
    assert re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", course.repository())


def test_the_setup_cell_is_three_lines_and_touches_nothing_but_the_package():
    cell = links.setup_cell("https://github.com/owner/name", "v1.0")
    assert len(cell.splitlines()) == 3
    ast.parse(cell)
    assert '"git+https://github.com/owner/name@v1.0"' in cell
    assert not re.search(r"torch|numpy|drive|^[%!]|upgrade|force", cell, re.M)
    exec(compile(cell, "setup", "exec"), {})  # the package is here, so nothing is installed


def repository_files() -> list[Path]:
    """Tracked and new files, without what git ignores; everything outside the usual heaps where there is no git."""
    try:
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
        return [ROOT / name for name in listed if (ROOT / name).is_file()]
    except (OSError, subprocess.CalledProcessError):
        heaps = {".venv", "build", ".git", "data", "__pycache__", ".pytest_cache", ".ruff_cache"}
        files = (path for path in ROOT.rglob("*") if path.is_file())
        return [path for path in files if not heaps & set(path.relative_to(ROOT).parts)]


def test_no_file_names_a_place_on_somebodys_machine():
    place = re.compile(rb"(?<![\w.+/=-])(?:/(?:home|root|work|tmp|Users)/\w|[A-Z]:\\\\?Users)")
    found = []
    for path in repository_files():
        for number, line in enumerate(path.read_bytes().splitlines(), 1):
            if place.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}")
    assert not found

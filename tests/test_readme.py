"""What README and CONTRIBUTING promise: commands that exist, links that lead somewhere, a picture that the code draws.

That README's table agrees with the records is tested in test_notebooks.
"""

import re
import shlex
import tomllib
from functools import cache
from pathlib import Path

import pytest
from PIL import Image

import lessons
from lessons import course
from lessons.__main__ import COMMANDS, main, parser
from lessons.commands.picture import DPI, HEIGHT, WIDTH, picture

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "CONTRIBUTING.md")
PICTURE = ROOT / "docs" / "path.png"

each_page = pytest.mark.parametrize("page", PAGES)


@cache
def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str) -> list[str]:
    """The indented code blocks of a page."""
    found = re.findall(r"(?:^(?: {4}| {7})(?! *[-*\d]).*\n|^\n(?= {4}))+", text(page), re.M)
    return [block for block in found if block.strip()]


def commands(page: str) -> list[str]:
    """Every line of code that calls make or `python -m lessons`, in blocks and in `spans`, without its comment."""
    spans = re.findall(r"`([^`]+)`", text(page))
    lines = [line for block in blocks(page) for line in block.splitlines()] + spans
    bare = [" ".join(line.split("#")[0].split()) for line in lines]
    return [line for line in bare if re.match(r"(?:make|python -m lessons) \w", line)]


# Commands


@each_page
def test_every_make_target_and_setting_exists(page):
    makefile = text("Makefile")
    called = [shlex.split(line)[1:] for line in commands(page) if line.startswith("make ")]
    assert called
    for target, *settings in called:
        assert re.search(rf"^{target}:", makefile, re.M), f"no target: make {target}"
        for setting in settings:
            assert f"$({setting.partition('=')[0]})" in makefile or f"$(if $({setting.partition('=')[0]}" in makefile


@each_page
def test_every_command_is_one_that_the_command_line_takes(page):
    called = [line.removeprefix("python -m lessons ") for line in commands(page) if line.startswith("python")]
    assert called
    for line in called:
        try:
            parser().parse_args(shlex.split(line))
        except SystemExit:
            pytest.fail(f"{page} names a command that does not exist: python -m lessons {line}")


def test_readme_names_the_two_commands_and_contributing_every_maintainers_command():
    assert {"make lab", "make test"} <= set(commands("README.md"))
    named = {line.split()[3] for page in PAGES for line in commands(page) if line.startswith("python")}
    assert set(COMMANDS) - named <= {"sync"}, "`make notebooks` stands for sync; all others must be named"


@each_page
def test_every_switch_is_read_somewhere(page):
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "lessons").rglob("*.py"))
    for name in set(re.findall(r"LESSONS_[A-Z_]+", text(page))):
        assert f'"{name}"' in code, f"nothing reads {name}"


def test_the_python_in_readme_runs():
    shown = next(block for block in blocks("README.md") if "import render" in block)
    space: dict = {}
    exec("\n".join(line.strip() for line in shown.splitlines()), space)
    assert len(space["scenes"]) == 100


# Links and names


@pytest.mark.parametrize("page", [*PAGES, "CHANGELOG.md", "data/README.md"])
def test_relative_links_lead_to_files_and_headings(page):
    headings = re.findall(r"^#+ (.+)$", text(page), re.M)
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    for target in re.findall(r"\]\(([^)\s]+)\)", text(page)):
        if target.startswith("#"):
            assert target[1:] in anchors, target
        elif not re.match(r"https://", target):
            assert (ROOT / page).parent.joinpath(target.partition("#")[0]).exists(), target


@each_page
def test_files_named_in_code_exist(page):
    for span in re.findall(r"`([^`\s]+)`", text(page)):
        if re.fullmatch(r"(?:lessons|tests|notebooks|docs|data)/[\w./]+", span) and "NN" not in span:
            later = span in (
                "lessons/results",
                "lessons/results/",
                "lessons/objectives.py",
                "notebooks/mine",
                "notebooks/mine/",
            )  # made by the first run, lesson
            assert later or (ROOT / span).exists(), span


def test_contributing_names_test_files_that_exist():
    files = {path.stem for path in (ROOT / "tests").glob("test_*.py")}
    named = set(re.findall(r"`(test_\w+)`", text("CONTRIBUTING.md")))
    assert named and named <= files


def test_the_short_path_is_the_one_of_the_course():
    wanted = ", ".join(f"{one.number:02d}" for one in course.LESSONS if one.short_path)
    assert f"know convolutions: {wanted}." in " ".join(text("README.md").split())


def test_readme_promises_only_lessons_that_are_there():
    there = [one for one in course.LESSONS if (ROOT / "notebooks" / f"{one.stem}.ipynb").is_file()]
    assert ("are on the way" in text("README.md")) == (len(there) < len(course.LESSONS))


# Licence and version


def test_licence_is_the_same_everywhere():
    project = tomllib.loads(text("pyproject.toml"))["project"]
    assert project["license"] == "MIT AND CC-BY-4.0" and project["license-files"] == ["LICENSE"]
    for part in ("MIT License", "Permission is hereby granted", "https://creativecommons.org/licenses/by/4.0/"):
        assert part in text("LICENSE")


def test_the_newest_entry_of_the_changelog_is_this_version():
    newest = re.search(r"^## \[(\d[^\]]*)\]", text("CHANGELOG.md"), re.M)
    assert newest and newest[1] == lessons.__version__


# The picture


def test_the_committed_picture_is_small_and_shown():
    assert "](docs/path.png)" in text("README.md")
    assert PICTURE.stat().st_size < 250_000
    with Image.open(PICTURE) as image:
        assert image.format == "PNG" and image.size == (WIDTH, HEIGHT)


def coarse(image: Image.Image) -> bytes:
    """The colours of 21 x 11 cells: the place of every tile counts, the edges of letters do not."""
    return image.convert("RGB").resize((21, 11), Image.Resampling.BOX).tobytes()


def test_the_code_draws_the_picture(tmp_path, capsys):
    small = tmp_path / "small.png"
    picture(small, dpi=DPI // 2)
    with Image.open(small) as drawn, Image.open(PICTURE) as committed:
        assert drawn.size == (WIDTH // 2, HEIGHT // 2)
        old, new = (coarse(image) for image in (committed, drawn))
    apart = max(abs(a - b) for a, b in zip(old, new, strict=True))
    assert apart < 20, "the committed picture is another one; draw it anew with `python -m lessons picture`"
    assert main(["picture", "--out", str(tmp_path)]) == 2, "a folder is no file"
    assert "error:" in capsys.readouterr().err

"""Every notebook as shipped: in step with its source, in the form of a lesson, every link and formula whole.

That the cells run is another test: `make test` executes all of them through nbval.
"""

import builtins
import copy
import dis
import json
import re
from functools import cache
from pathlib import Path
from types import CodeType
from typing import Any

import nbformat
import pytest

from lessons import course, exercises
from lessons.commands import links, notebooks, results

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SOURCES = sorted((ROOT / "notebooks" / "source").glob("*.py"))
TAGS = {"setup", "exercise", "check", "workshop", "slide", "nbval-check-output"}

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@cache
def book(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def cells(path: Path, kind: str) -> list[Any]:
    return [cell for cell in book(path).cells if cell.cell_type == kind]


def outputs(path: Path) -> list[tuple[int, Any]]:
    """Every output, with the execution count of its cell."""
    return [(cell.execution_count, output) for cell in cells(path, "code") for output in cell.outputs]


def lesson(path: Path) -> course.Lesson:
    return course.lesson(path.stem[:2])


def tags(cell: Any) -> set[str]:
    return set(cell.metadata.get("tags", ()))


# The set of notebooks


def test_every_written_lesson_has_a_notebook_and_a_source():
    """A lesson whose notebook is missing would otherwise be skipped without a word."""
    stems = {course.lesson(number).stem for number in exercises.written()}
    assert stems <= {path.stem for path in NOTEBOOKS}, "lessons with exercises and without a notebook"
    assert {path.stem for path in NOTEBOOKS} == {path.stem for path in SOURCES}
    assert {path.stem for path in NOTEBOOKS} <= {one.stem for one in course.LESSONS}
    assert len(SOURCES) >= len(stems)


@each_notebook
def test_notebook_and_source_hold_the_same_cells(path):
    differs = notebooks.difference(path, ROOT)
    assert not differs, differs


# The form of the file


@each_notebook
def test_file_is_valid_and_in_the_form_that_tools_write(path):
    """Stable ids and no stray metadata: then a new run changes only what it measured."""
    nbformat.validate(book(path))
    identities = [cell["id"] for cell in book(path).cells]
    assert len(set(identities)) == len(identities)
    normal = notebooks.normalise(copy.deepcopy(book(path)))
    form = json.dumps(normal, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    assert path.read_text(encoding="utf-8") == form, "run `make notebooks`, which brings it into form"
    assert path.stat().st_size < 1.5 * 2**20


@each_notebook
def test_outputs_are_complete_and_clean(path):
    counts = [cell.execution_count for cell in cells(path, "code")]
    assert counts == list(range(1, len(counts) + 1)), "not executed from top to bottom; run it with --update"
    for count, output in outputs(path):
        assert output.output_type != "error", f"[{count}] failed"
        assert output.get("name") != "stderr", f"[{count}] wrote to stderr: {output.text[:200]}"
        data = output.get("data", {})
        assert not [kind for kind in data if "widget" in kind or kind == "image/svg+xml"], f"[{count}]: {list(data)}"
        shown = "".join([output.get("text", ""), data.get("text/plain", "")])
        assert not re.search(r"\bat 0x[0-9a-f]{6,}", shown), f"[{count}] shows an address of memory"
        assert "\r" not in shown and "%|" not in shown, f"[{count}] shows a progress bar"
    assert sum("image/png" in output.get("data", {}) for _, output in outputs(path)) >= 5, "at least five figures"


@each_notebook
def test_outputs_come_from_the_built_in_scenes(path):
    """Downloaded pictures are never committed; the line that `start` prints says where the pictures came from."""
    printed = "".join(output.get("text", "") for _, output in outputs(path))
    begins = rf"^Lesson {lesson(path).number:02d} .*: (cpu|gpu) scale on .*; built-in scenes, .*; seed \d+\.$"
    assert re.search(begins, printed, re.M), "run it with --update --data scenes"


# The lesson contract, as far as a program can read it


@each_notebook
def test_size_of_the_lesson(path):
    assert 45 <= len(book(path).cells) <= 70
    for cell in cells(path, "code"):
        assert len(cell.source.splitlines()) <= 40, cell.source[:80]
        if "setup" not in tags(cell):  # an address cannot be broken
            wide = [line for line in cell.source.splitlines() if len(line) > 120]
            assert not wide, f"lines that a reader has to scroll sideways for (120 characters at most): {wide}"


@each_notebook
def test_first_code_cell_is_the_setup_cell(path):
    first = cells(path, "code")[0]
    assert first.source == links.setup_cell(links.address(ROOT), links.current_ref(ROOT))
    assert "setup" in tags(first)


@each_notebook
def test_tags_are_known(path):
    for cell in book(path).cells:
        assert tags(cell) <= TAGS, cell.source[:80]


@each_notebook
def test_every_exercise_of_the_lesson_is_checked_in_a_cell_tagged_check(path):
    asked = {id for cell in cells(path, "code") if "check" in tags(cell) for id in notebooks.checked_ids(cell.source)}
    assert asked == {exercise.id for exercise in exercises.load(lesson(path).number)}


# The 45-minute cut


def names(source: str) -> tuple[set[str], set[str]]:
    """The names that a cell defines, and those that it or a function in it takes from elsewhere."""
    parts, stored, loaded = [compile(source, "cell", "exec")], [], []
    for code in parts:
        parts += [inner for inner in code.co_consts if isinstance(inner, CodeType)]
        stored.append(set())
        for step in dis.get_instructions(code):
            if step.opname == "STORE_NAME":
                stored[-1].add(step.argval)
            elif step.opname.startswith(("LOAD_NAME", "LOAD_GLOBAL", "LOAD_FROM_DICT")):
                known = stored[-1] if code is parts[0] else stored[0] | stored[-1]
                loaded += [step.argval] * (step.argval not in known)
    return stored[0], {name for name in loaded if not name.startswith("__")}


def test_names_are_told_apart():
    source = """
import math
total = sum(start for _ in range(3)) + math.pi

def twice(x, factor=two):
    return x * factor * later + scale

class Net(Base):
    width = 8
    depth = width + extra

later = twice(total)
"""
    defined, needed = names(source)
    assert defined == {"math", "total", "twice", "Net", "later"}
    assert needed - set(dir(builtins)) == {"start", "two", "scale", "Base", "extra"}
    assert names("y = x\nx = 1")[1] == {"x"}, "defined too late"


@each_notebook
def test_cut_needs_no_other_cell(path):
    """That the cuts run is another test, see `make test`; this one names the missing cell in a second."""
    cut = notebooks.cut_of(copy.deepcopy(book(path)), lesson(path))
    known = set(dir(builtins))
    for cell in cut.cells:
        if cell.cell_type == "code":
            defined, needed = names(cell.source)
            assert needed <= known, f"tag the cells that define {sorted(needed - known)}, for:\n{cell.source[:200]}"
            known |= defined


@each_notebook
def test_first_cell_says_which_sections_are_in_the_cut(path):
    opening, *rest = book(path).cells
    said = {row[1]: bool(row[2].strip()) for row in re.finditer(r"^\| (\d+) .*\|([^|]*)\|$", opening.source, re.M)}
    section, found = "1", dict.fromkeys(said, False)
    for cell in rest:
        if cell.cell_type == "markdown":
            section = ([section] + re.findall(r"^## (\d+) ", cell.source, re.M))[-1]
        elif "setup" not in tags(cell) and "workshop" in tags(cell):
            found[section] = True
    assert "workshop" in tags(opening) and said == found


def test_cut_writes_all_lessons(tmp_path):
    written = notebooks.cut("all", tmp_path)
    assert [path.name for path in written] == [path.name for path in NOTEBOOKS]
    for path in written:
        cut = nbformat.read(path, as_version=4)
        nbformat.validate(cut)
        assert all("workshop" in tags(cell) for cell in cut.cells)
        assert not [cell for cell in cut.cells if cell.cell_type == "code" and (cell.outputs or cell.execution_count)]
        form = json.dumps(notebooks.normalise(cut), indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        assert path.read_text(encoding="utf-8") == form


# Prose: links, images, formulas


def prose(path: Path) -> str:
    """The Markdown of a notebook or of a .md file, without code."""
    text = path.read_text(encoding="utf-8") if path.suffix == ".md" else _markdown(path)
    text = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
    return re.sub(r"`[^`\n]*`", "", text)


def _markdown(path: Path) -> str:
    return "\n\n".join(cell.source for cell in cells(path, "markdown"))


def link_targets(text: str) -> list[str]:
    """Targets of links and images, in Markdown and in HTML."""
    found = re.findall(r"\]\(\s*<?([^)\s>]+)", re.sub(r"\$[^$\n]*\$", "", text))
    return found + re.findall(r"""<(?:img|a)\b[^>]*?(?:src|href)=["']([^"']+)""", text)


@each_notebook
def test_links_are_absolute_and_safe(path):
    """A copied notebook has no neighbours: relative links and images lead nowhere."""
    text = prose(path)
    for target in link_targets(text):
        assert target.startswith(("https://", "#")), f"{target}: write an absolute https address"
    assert not any(cell.get("attachments") for cell in book(path).cells)
    assert "http://" not in text


@each_notebook
def test_badge_opens_this_notebook(path):
    badge = links.badge(links.address(ROOT), links.current_ref(ROOT), lesson(path))
    assert badge in cells(path, "markdown")[0].source, f"expected in the first cell: {badge}"


@pytest.mark.parametrize("path", [*NOTEBOOKS, *sorted(ROOT.glob("*.md"))], ids=lambda path: path.name)
def test_links_into_the_repository_lead_to_files(path):
    own, ref = links.owner_and_name(links.address(ROOT)), links.current_ref(ROOT)
    for target in link_targets(prose(path)):
        colab = re.match(rf"{re.escape(links.COLAB)}/github/([^/]+/[^/]+)/blob/([^/]+)/(.+)", target)
        hub = re.match(rf"https://github\.com/({re.escape(own)})/(?:blob|tree|raw)/([^/]+)/([^#]+)", target)
        if found := colab or hub:
            assert (found[1], found[2]) == (own, ref), f"{target}: run python -m lessons links --repo {own} --ref {ref}"
            assert (ROOT / found[3]).exists(), f"{target}: there is no such file"
        elif path.suffix == ".md" and not re.match(r"https://|#|mailto:", target):
            assert not target.startswith("http:"), target
            assert (ROOT / target.partition("#")[0]).exists(), f"{target}: there is no such file"


@pytest.mark.parametrize("path", [*NOTEBOOKS, *sorted(ROOT.glob("*.md"))], ids=lambda path: path.name)
def test_formulas_are_whole(path):
    parts = [prose(path)] if path.suffix == ".md" else [cell.source for cell in cells(path, "markdown")]
    for part in parts:
        text = re.sub(r"^```.*?^```|`[^`\n]*`|\\\$", "", part, flags=re.S | re.M)
        formulas = re.findall(r"\$\$(.+?)\$\$", text, re.S)
        text = re.sub(r"\$\$.+?\$\$", "", text, flags=re.S)
        formulas += re.findall(r"\$([^$\n]+)\$", text)
        assert "$" not in re.sub(r"\$[^$\n]+\$", "", text), f"a lone $ in: {part[:80]}"
        for formula in formulas:
            bare = re.sub(r"\\[{}]", "", formula)
            assert bare.count("{") == bare.count("}"), formula
            pair = [len(re.findall(rf"\\{side}(?![a-z])", formula)) for side in ("left", "right")]
            assert pair[0] == pair[1], formula
            assert not re.search(r"\\(?:new|renew)command|\\def\b", formula), f"no macros of our own: {formula}"


def test_readme_holds_the_table_made_from_the_records():
    readme = ROOT / "README.md"
    if not readme.is_file() or results.BEGIN not in readme.read_text(encoding="utf-8"):
        pytest.skip("README.md has no table of lessons yet")
    text = readme.read_text(encoding="utf-8")
    assert results.with_table(text, ROOT) == text, "run `python -m lessons results --readme`"

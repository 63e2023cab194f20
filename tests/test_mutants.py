"""The table of bugs keeps up with the code, and a bug is called seen only where a test failed because of it."""

from pathlib import Path

import mutants
import pytest
from mutants import MUTANTS, ROOT, Mutant

TOY = Mutant("sum-of-differences", "sums.py", "sums", "a + b", "a - b")


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_bug_can_still_be_written(mutant):
    """Where code has moved or been rewritten, the row of the table gets its new text."""
    changed = mutant.written_in((ROOT / "lessons" / mutant.file).read_text(encoding="utf-8"))
    compile(changed, mutant.file, "exec")  # what does not even load is no bug that a test has to see
    assert mutant.new != mutant.old
    assert all((ROOT / "tests" / f"test_{name}.py").is_file() for name in mutant.tests.split())


def test_no_bug_stands_there_twice():
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    assert len({(mutant.file, mutant.old, mutant.new) for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize("text", ["a * b", "a + b, a + b"])
def test_a_text_that_is_not_there_once_is_named(text):
    with pytest.raises(ValueError, match="sum-of-differences: expected 'a [+] b' once"):
        TOY.written_in(text)


@pytest.fixture
def toy(tmp_path, monkeypatch) -> Path:
    """A repository of one function and two tests, the second of which sees nothing."""
    files = {
        "lessons/__init__.py": "",
        "lessons/sums.py": "def add(a, b):\n    return a + b\n",
        "tests/test_sums.py": "from lessons.sums import add\n\ndef test_sum():\n    assert add(1, 2) == 3\n",
        "tests/test_zero.py": "from lessons.sums import add\n\ndef test_zero():\n    assert add(1, 0) == 1\n",
    }
    for name, text in files.items():
        (tmp_path / "toy" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "toy" / name).write_text(text, encoding="utf-8")
    monkeypatch.setattr(mutants, "ROOT", tmp_path / "toy")
    monkeypatch.setattr(mutants, "COPIED", ("lessons", "tests"))
    return tmp_path / "toy"


def test_a_bug_is_killed_or_survives_and_the_tree_stays_as_it_was(toy, monkeypatch, capsys):
    before = {path: path.read_bytes() for path in toy.rglob("*") if path.is_file()}
    blind = Mutant("unseen", "sums.py", "zero", "a + b", "a - b")
    monkeypatch.setattr(mutants, "MUTANTS", (TOY, blind))
    assert mutants.main(["--jobs", "1"]) == 1
    said = capsys.readouterr().out
    assert "sum-of-differences: killed by test_sums.py::test_sum" in said and "unseen: SURVIVED" in said
    assert "1 of 2 bugs are seen (50%)." in said
    assert mutants.main(["--jobs", "1", "--only", "differences"]) == 0
    assert {path: path.read_bytes() for path in toy.rglob("*") if path.is_file()} == before


def test_what_cannot_be_collected_or_has_no_end_is_not_killed(toy, monkeypatch, capsys):
    broken = Mutant("cannot-be-imported", "sums.py", "sums", "def add", "def sub")
    endless = Mutant("endless", "sums.py", "sums", "return a + b", "while True: pass")
    monkeypatch.setattr(mutants, "MUTANTS", (broken, TOY))
    assert mutants.main(["--jobs", "1"]) == 3
    said = capsys.readouterr().out
    assert "cannot-be-imported: UNTESTED, test_sums.py could not be collected" in said
    assert "1 of 2 bugs are seen (50%)." in said and "cannot-be-imported was not put to the test" in said

    copy = mutants.copy_to(toy.parent / "copy")
    monkeypatch.setattr(mutants, "PATIENCE", 1)
    assert mutants.with_bug(copy, endless) == mutants.Outcome("no end")
    survives = {TOY: mutants.Outcome("passed"), endless: mutants.Outcome("no end")}
    assert mutants.summary(survives) == 1
    assert "endless was not put to the test (no end after 1 s)" in capsys.readouterr().out


def test_tests_that_fail_by_themselves_and_an_unknown_name_stop_it(toy, monkeypatch, capsys):
    monkeypatch.setattr(mutants, "MUTANTS", (TOY,))
    (toy / "lessons" / "sums.py").write_text("def add(a, b):\n    return a + b + 1\n", encoding="utf-8")
    assert mutants.main(["--jobs", "1"]) == 2
    assert "fail without a bug: test_sums.py::test_sum" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        mutants.main(["--only", "nobody"])
    assert "The bugs are: sum-of-differences" in capsys.readouterr().err


def test_another_package_of_the_same_name_is_refused(toy):
    copy = mutants.copy_to(toy.parent / "copy")
    (copy / "conftest.py").write_text(
        (copy / "conftest.py").read_text().replace("import lessons", "import json as lessons")
    )
    with pytest.raises(RuntimeError, match="not the copy: .*json"):
        mutants.outcome(copy, ["sums"])

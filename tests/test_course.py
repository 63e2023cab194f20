"""The table of lessons, and the one place where the repository's address stands."""

import tomllib
from pathlib import Path

import pytest

from lessons import course
from lessons.errors import SettingError

ROOT = Path(__file__).resolve().parents[1]


def test_eleven_lessons_in_order_and_six_on_the_short_path():
    assert [lesson.number for lesson in course.LESSONS] == list(range(1, 12))
    assert [lesson.number for lesson in course.LESSONS if lesson.short_path] == [2, 4, 8, 9, 10, 11]
    assert len({lesson.stem for lesson in course.LESSONS}) == 11


def test_a_lesson_by_number_or_by_its_two_digits():
    assert course.lesson(1).stem == course.lesson("01").stem == "01_resnet"
    assert course.lesson("11").title == "Early fusion"


@pytest.mark.parametrize("number", [0, 12, -1, "", "resnet", None])
def test_there_is_no_other_lesson(number):
    with pytest.raises(SettingError, match="numbered 1 to 11"):
        course.lesson(number)


@pytest.mark.parametrize("pattern", ["*.ipynb", "source/*.py"])
def test_notebooks_have_the_names_of_the_table(pattern):
    stems = {lesson.stem for lesson in course.LESSONS}
    files = [file for file in (ROOT / "notebooks").glob(pattern)]
    assert files and {file.stem for file in files} <= stems


def test_the_address_is_that_of_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert course.repository() == project["urls"]["Repository"]
    assert course.repository().startswith("https://") and not course.repository().endswith("/")


def test_a_package_without_an_address_says_what_to_do(monkeypatch):
    from email.message import Message

    monkeypatch.setattr(course.metadata, "metadata", lambda name: Message())
    with pytest.raises(SettingError, match="make setup"):
        course.repository()

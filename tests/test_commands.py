"""`python -m lessons`, command by command, on a small checkout of its own."""

import errno
import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import checkouts
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from lessons import claims, course, exercises
from lessons.__main__ import COMMANDS, main
from lessons.commands import KERNELS, doctor, lab, links, mine, notebooks, pack, results, run
from lessons.errors import LessonError, SettingError
from lessons.exercises.engine import Exercise

ADDRESS = "https://github.com/vision-to-language/vision-to-language"
RECORD = {
    "lesson": 1,
    "scale": "cpu",
    "data": "scenes",
    "data_name": "scenes",
    "device": "cpu",
    "hardware": "2 CPU cores",
    "seconds": 90.0,
    "seed": 0,
    "versions": {"lessons": "0.1.0"},
    "claims": [{"key": "deep", "claim": "deeper is better", "paper": "yes", "here": "0.91", "verdict": claims.HOLDS}],
    "numbers": {"accuracy": 0.91},
    "cell_seconds": [0.1, 0.2, 3.0],
}
WRITES_RECORD = """import json, os, pathlib
record = json.loads('''RECORD''')
folder = pathlib.Path(os.environ["LESSONS_RESULTS"])
folder.mkdir(parents=True, exist_ok=True)
(folder / "01-cpu-scenes-cpu.json").write_text(json.dumps(record))"""


def cells_of_lesson(record: dict = RECORD) -> list:
    """A lesson without torch, so that its kernel starts at once."""
    without_times = {key: value for key, value in record.items() if key != "cell_seconds"}
    return [
        new_markdown_cell(f"# ResNet\n\n{links.badge(ADDRESS, 'main', course.LESSONS[0])}"),
        new_code_cell(links.setup_cell(ADDRESS), metadata={"tags": ["setup"]}),
        new_markdown_cell("## Train\n\nLook at the switches."),
        new_code_cell('import os\nprint(os.environ["LESSONS_SCALE"], os.environ["LESSONS_HEADLESS"])'),
        new_markdown_cell("## Claims"),
        new_code_cell(WRITES_RECORD.replace("RECORD''", json.dumps(without_times) + "''", 1)),
    ]


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A checkout with lesson 01; `write(cells)` on it changes the notebook."""
    root = tmp_path / "checkout"
    (root / "notebooks" / "source").mkdir(parents=True)
    (root / "lessons" / "results").mkdir(parents=True)
    (root / "pyproject.toml").write_text(f'[project]\nname = "x"\n[project.urls]\nRepository = "{ADDRESS}"\n')
    save(root, cells_of_lesson())
    for module in (links, notebooks, pack, results, run, lab, mine):
        monkeypatch.setattr(module, "checkout", lambda: root)
    monkeypatch.setattr(claims, "references", lambda lesson=None: [])
    monkeypatch.setattr(doctor, "training_speed", lambda seconds: 100.0)
    monkeypatch.chdir(tmp_path)
    return root


def save(root: Path, cells: list) -> None:
    book = notebooks.normalise(new_notebook(cells=cells))
    notebooks.write(book, root / "notebooks" / "01_resnet.ipynb")
    percent = "\n\n".join(_percent(cell) for cell in cells)
    (root / "notebooks" / "source" / "01_resnet.py").write_text(percent + "\n")


def _percent(cell) -> str:
    if cell.cell_type == "markdown":
        return "# %% [markdown]\n" + "\n".join(f"# {line}".rstrip() for line in cell.source.splitlines())
    tags = cell.metadata.get("tags")
    return f"# %%{' tags=' + json.dumps(tags) if tags else ''}\n{cell.source}"


def load(path: Path):
    return nbformat.read(path, as_version=4)


# The command line


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as ending:
        main([command, "--help"])
    assert ending.value.code == 0 and "usage:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run", "99"], "numbered 1 to 11"),
        (["run", "07"], "no notebook of lesson 07"),
        (["run", "01", "--update"], "--update needs --data scenes"),
        (["run", "01", "--update", "--data", "scenes", "--scale", "smoke"], "a scale other than smoke"),
        (["cut", "99"], "numbered 1 to 11"),
        (["cut", "07"], "no notebook of lesson 07"),
        (["cut", "01"], "no code is tagged `workshop`"),
        (["links", "--repo", "nonsense"], "Expected owner/name"),
        (["links", "--repo", "ada/course", "--ref", "a b"], "Expected a branch or tag"),
        (["exercises", "--lesson", "12"], "numbered 1 to 11"),
        (["results", "--accept", "nowhere.json"], "is no file"),
        (["results", "--readme"], "README.md needs a line"),
        (["pack", "--out", "bundle", "--data", "notebooks"], "holds none of the known sets"),
        (["progress", "--import", "nowhere.json"], "nowhere.json cannot be read"),
        (["progress", "--import", ""], "The name of the file is empty"),
        (["progress", "--export", ""], "The name of the file is empty"),
        (["progress", "--export", "progress.json"], "There is no progress yet"),
    ],
)
def test_an_error_is_one_clear_line_and_exit_code_2(root, capsys, arguments, expected):
    assert main(arguments) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ") and expected in shown and "Traceback" not in shown
    assert len(shown.strip().splitlines()) == 1


def test_it_starts_as_a_module():
    done = subprocess.run([sys.executable, "-m", "lessons", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and all(command in done.stdout for command in COMMANDS)


# run


def test_run_executes_prints_claims_and_completes_the_record(root, capsys):
    stale = root / "out" / "results" / "01-gpu-scenes-cuda.json"
    stale.parent.mkdir(parents=True)
    stale.write_text("{}")  # the record of another run is not taken for this one's
    assert main(["run", "01", "--scale", "cpu", "--data", "scenes", "--out", str(root / "out")]) == 0
    shown = capsys.readouterr()
    assert "deeper is better" in shown.out and "✓ 0.91 (holds)" in shown.out
    assert "2/3 cells" in shown.err and "Train" in shown.err
    record = json.loads((root / "out" / "results" / "01-cpu-scenes-cpu.json").read_text())
    assert len(record["cell_seconds"]) == 3 and record["seconds"] == pytest.approx(sum(record["cell_seconds"]), abs=0.1)
    assert record["pictures_per_second"] == 100.0
    executed = load(root / "out" / "01_resnet.ipynb")
    assert executed.cells[3].outputs[0].text == "cpu 1\n"
    assert not load(root / "notebooks" / "01_resnet.ipynb").cells[3].outputs, "shipped notebook untouched"


def test_a_failing_cell_is_named_and_the_notebook_is_kept(root, capsys):
    cells = cells_of_lesson()
    cells[3].source = 'print("before")\nraise ValueError("the loss is odd")'
    save(root, cells)
    assert main(["run", "1", "--scale", "smoke", "--out", "out"]) == 2
    assert "Lesson 01, cell 4 (“Train”) failed: ValueError: the loss is odd" in capsys.readouterr().err
    outputs = load(Path("out/01_resnet.ipynb")).cells[3].outputs
    assert [output.output_type for output in outputs] == ["stream", "error"]


@pytest.mark.parametrize(
    ("last_cell", "expected"),
    [
        ("pass", "wrote 0 records"),
        (cells_of_lesson(RECORD | {"numbers": {"accuracy": float("nan")}})[5].source, "not finite: numbers.accuracy"),
    ],
)
def test_a_run_without_a_whole_record_fails(root, capsys, last_cell, expected):
    cells = cells_of_lesson()
    cells[5].source = last_cell
    save(root, cells)
    assert main(["run", "01", "--scale", "smoke", "--out", "out"]) == 2
    assert expected in capsys.readouterr().err


def test_update_puts_the_outputs_into_the_notebook_and_a_second_run_changes_nothing(root):
    path = root / "notebooks" / "01_resnet.ipynb"
    before = [cell.id for cell in load(path).cells]
    arguments = ["run", "01", "--scale", "cpu", "--data", "scenes", "--out", "out", "--update"]
    assert main(arguments) == 0
    first = path.read_bytes()
    book = load(path)
    assert book.cells[3].outputs[0].text == "cpu 1\n" and [cell.id for cell in book.cells] == before
    assert set(book.metadata) == {"kernelspec", "language_info"}
    assert all(set(cell.metadata) <= {"tags"} for cell in book.cells)
    assert main(arguments) == 0
    assert path.read_bytes() == first


def test_update_refuses_what_did_not_run_on_scenes(root, capsys):
    save(root, cells_of_lesson(RECORD | {"data": "real", "data_name": "CIFAR-10"}))
    before = (root / "notebooks" / "01_resnet.ipynb").read_bytes()
    assert main(["run", "01", "--scale", "cpu", "--data", "scenes", "--out", "out", "--update"]) == 2
    assert "it ran on CIFAR-10" in capsys.readouterr().err
    assert (root / "notebooks" / "01_resnet.ipynb").read_bytes() == before


def test_interrupting_ends_the_run_and_keeps_the_notebook(root, monkeypatch, capsys):
    def interrupted(book, folder, switches, bar):
        book.cells[1].outputs = [new_output("stream", text="so far")]
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "_execute", interrupted)
    assert main(["run", "01", "--scale", "smoke", "--out", "out"]) == 130
    assert load(Path("out/01_resnet.ipynb")).cells[1].outputs[0].text == "so far"


@pytest.mark.parametrize("out", ["notebooks", "notebooks/mine", "lessons/../notebooks/runs"])
def test_where_notebooks_lie_no_run_is_written(root, capsys, out):
    before = (root / PUBLISHED).read_bytes()
    assert main(["run", "01", "--scale", "smoke", "--out", str(root / out)]) == 2
    assert "Name another folder" in capsys.readouterr().err
    assert (root / PUBLISHED).read_bytes() == before and not list((root / "notebooks").glob("*/*.ipynb"))


@pytest.fixture
def executed(root, dated, capsys) -> Path:
    """The notebook that a whole run of lesson 01 wrote."""
    assert main(["run", "01", "--scale", "smoke", "--out", "out"]) == 0
    capsys.readouterr()
    return Path("out/01_resnet.ipynb")


@pytest.mark.parametrize("work", ["a note", "saved elsewhere", "damaged"])
def test_a_run_keeps_what_somebody_did_in_an_executed_notebook(executed, capsys, work):
    book = load(executed)
    if work == "a note":
        notebooks.write(new_notebook(cells=[*book.cells, new_markdown_cell("Odd: look again.")]), executed)
    elif work == "saved elsewhere":
        nbformat.write(book, executed)
        executed.write_text(executed.read_text().replace("smoke 1", "mine 1"))
    else:
        executed.write_text("{half a noteb")
    before = executed.read_bytes()
    assert main(["run", "01", "--scale", "smoke", "--out", "out"]) == 0
    said = f"{executed.resolve()} was there already; it is kept as 01_resnet.2026-11-27.ipynb"
    assert said in capsys.readouterr().err
    assert Path("out/01_resnet.2026-11-27.ipynb").read_bytes() == before
    assert main(["run", "01", "--scale", "smoke", "--out", "out"]) == 0
    assert len(list(Path("out").glob("*.ipynb"))) == 2, "what a run wrote is nobody's work"


def test_an_interrupted_run_leaves_a_whole_notebook_as_it_is(root, executed, capsys, monkeypatch):
    def interrupted(book, *_):
        book.cells[3].outputs = [new_output("stream", text="so far")]
        raise KeyboardInterrupt

    before = executed.read_bytes()
    monkeypatch.setattr(run, "_execute", interrupted)
    assert main(["run", "01", "--scale", "smoke", "--out", "out"]) == 130
    assert "from a run that went to its end, and stays" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in Path("out").glob("*.ipynb")} == {executed: before}


def test_a_run_that_fails_keeps_a_whole_notebook_under_another_name(root, executed, capsys):
    before, cells = executed.read_bytes(), cells_of_lesson()
    cells[3].source = 'raise ValueError("the loss is odd")'
    save(root, cells)
    for _ in range(2):
        assert main(["run", "01", "--scale", "smoke", "--out", "out"]) == 2
    assert load(executed).cells[3].outputs[0].ename == "ValueError", "as the error says"
    assert {path.name for path in Path("out").glob("*.ipynb")} == {executed.name, "01_resnet.2026-11-27.ipynb"}
    assert Path("out/01_resnet.2026-11-27.ipynb").read_bytes() == before


def with_verdict(verdict: str, **changes) -> dict:
    return RECORD | {"claims": [RECORD["claims"][0] | {"verdict": verdict}]} | changes


@pytest.mark.parametrize(
    ("reference", "here", "lost"),
    [
        (with_verdict(claims.HOLDS), with_verdict(claims.HOLDS), False),
        (with_verdict(claims.HOLDS), with_verdict(claims.FAILS), True),
        (with_verdict(claims.HOLDS), with_verdict(claims.UNCLEAR), True),
        (with_verdict(claims.HOLDS), RECORD | {"claims": []}, True),
        (with_verdict(claims.FAILS), with_verdict(claims.FAILS), False),
        (with_verdict(claims.HOLDS, scale="gpu"), with_verdict(claims.FAILS), False),
    ],
)
def test_hold_compares_with_the_reference_of_the_same_scale_and_data(root, monkeypatch, reference, here, lost):
    monkeypatch.setattr(claims, "references", lambda lesson=None: [reference])
    monkeypatch.setattr(run, "run_lesson", lambda *arguments: here)
    code = main(["run", "all", "--scale", "cpu", "--hold"])
    assert code == (2 if lost else 0)


def test_time_left_comes_from_the_reference_and_follows_this_machine(root, monkeypatch):
    book = load(root / "notebooks" / "01_resnet.ipynb")
    monkeypatch.setattr(claims, "references", lambda lesson=None: [RECORD | {"cell_seconds": [10.0, 20.0, 60.0]}])
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(run, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    expected = run.expected_seconds(course.LESSONS[0], "cpu", "scenes", [None] * 3)
    bar = run.Bar(book, course.LESSONS[0], expected)
    assert bar.left() == 90
    with bar.cell(bar.index):
        clock.now += 4
        assert bar.left() == 86
        clock.now += 16  # the first cell took twice as long as in the reference
    assert bar.seconds == [20]
    bar.began = clock.now
    assert bar.left() == 160
    assert "1/3 cells, about 2:40 left" in bar.line()
    assert run.expected_seconds(course.LESSONS[0], "cpu", "scenes", [None] * 4) is None
    bar.expected = None
    assert bar.left() == 40
    bar.close()


# sync, solve, cut


def test_sync_keeps_outputs_of_unchanged_cells_and_all_ids(root, capsys):
    path, source = root / "notebooks" / "01_resnet.ipynb", root / "notebooks" / "source" / "01_resnet.py"
    book = load(path)
    for count, index in enumerate((1, 3, 5), 1):
        book.cells[index].outputs = [new_output("stream", text=f"output {count}\n")]
        book.cells[index].execution_count = count
    notebooks.write(notebooks.normalise(book), path)
    ids = [cell.id for cell in book.cells]
    assert main(["sync"]) == 0
    assert "in step" in capsys.readouterr().out

    text = source.read_text().replace("LESSONS_SCALE", "LESSONS_DATA")
    source.write_text(text.replace("# %% [markdown]\n# ## Train", "# %%\nnew = 1\n\n# %% [markdown]\n# ## Train"))
    main(["sync"])
    after = load(path)
    assert "updated" in capsys.readouterr().out
    kept = {cell.id: cell for cell in after.cells}
    assert [cell.id for cell in after.cells if cell.source != "new = 1"] == ids
    assert kept[ids[1]].outputs[0].text == "output 1\n" and kept[ids[5]].outputs[0].text == "output 3\n"
    changed = kept[ids[3]]
    assert "LESSONS_DATA" in changed.source and changed.outputs == [] and changed.execution_count is None


def test_sync_makes_a_new_notebook_the_same_on_every_machine(root):
    path = root / "notebooks" / "01_resnet.ipynb"
    path.unlink()
    main(["sync"])
    first = path.read_bytes()
    path.unlink()
    main(["sync"])
    assert path.read_bytes() == first
    assert load(path).cells[1].metadata.tags == ["setup"]


# A reader's work in the published notebooks


PUBLISHED, MINE = Path("notebooks/01_resnet.ipynb"), Path("notebooks/mine")


@pytest.fixture
def dated(monkeypatch) -> None:
    monkeypatch.setattr(mine, "today", lambda: "2026-11-27")


@pytest.fixture(params=["git", "no git"])
def history(request, root, dated) -> bool:
    """Whether the checkout is a committed repository; `sync` ran in it once."""
    assert main(["sync"]) == 0
    if request.param == "git":
        (root / ".gitignore").write_text("build/\nnotebooks/mine/\n")
        commit(root)
    return request.param == "git"


def commit(root: Path) -> None:
    checkouts.git(root, "init", "--quiet")
    checkouts.git(root, "add", "--all")
    checkouts.git(root, "commit", "--quiet", "--message", "published")


def answer(root: Path, text: str = "my_answer = 42") -> bytes:
    """What a reader does: another text in a cell, its output, and a new cell, saved as JupyterLab saves."""
    book = load(root / PUBLISHED)
    book.cells[3].source, book.cells[3].outputs = text, [new_output("stream", text="42\n")]
    book.cells.append(new_markdown_cell(f"A note: {text}"))
    nbformat.write(book, root / PUBLISHED)
    return (root / PUBLISHED).read_bytes()


def edit_source(root: Path, before: str, after: str) -> None:
    source = _source(root)
    assert before in source.read_text()
    source.write_text(source.read_text().replace(before, after))


def kept(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (root / MINE).glob("*")}


def test_sync_keeps_a_readers_work_before_it_carries_over(root, history, capsys):
    first = answer(root)
    assert main(["sync"]) == 0
    shown = capsys.readouterr().out
    assert f"{PUBLISHED}: your own work in it is kept as {MINE / '01_resnet.2026-11-27.ipynb'}" in shown
    assert kept(root) == {"01_resnet.2026-11-27.ipynb": first}
    assert "my_answer" not in (root / PUBLISHED).read_text()

    second = answer(root, "my_answer = 43")
    main(["sync"])
    assert kept(root) == {"01_resnet.2026-11-27.ipynb": first, "01_resnet.2026-11-27-2.ipynb": second}
    main(["sync"])
    assert len(kept(root)) == 2, "nothing of the reader's is left to keep"


def test_sync_keeps_work_also_where_nothing_was_ever_carried_over_or_committed(root, dated, monkeypatch):
    monkeypatch.setenv("PATH", "")  # not even git
    work = answer(root)
    main(["sync"])
    assert kept(root) == {"01_resnet.2026-11-27.ipynb": work}


def test_sync_leaves_the_work_where_no_copy_can_be_kept(root, history, monkeypatch, capsys):
    work = answer(root)
    (root / MINE).write_text("a file where the folder should be")
    assert main(["sync"]) == 2
    assert "a file stands where a folder is needed" in capsys.readouterr().err
    assert (root / PUBLISHED).read_bytes() == work


@pytest.mark.parametrize("command", [["sync"], ["cut", "01", "--out", "out"]])
def test_a_full_disk_is_said_with_the_way_out_of_this_command(root, monkeypatch, capsys, command):
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    save(root, [new_code_cell("x = 1", metadata={"tags": ["workshop"]})])
    before = (root / PUBLISHED).read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    assert main(command) == 2
    shown = capsys.readouterr().err
    assert "Disk full" in shown and "LESSONS_CACHE_DIR" not in shown
    assert ("put the checkout on a disk" if command == ["sync"] else "give --out another folder") in shown
    assert (root / PUBLISHED).read_bytes() == before


def test_a_contributors_edits_make_no_copies(root, history):
    edit_source(root, "Look at the switches.", "Look at these switches.")
    main(["sync"])
    edit_source(root, "Look at these switches.", "Look at all switches.")  # neither in the source now nor committed
    main(["sync"])
    edit_source(root, "# %% [markdown]\n# ## Train", "# %% [markdown]\n# ## Training")
    main(["sync"])
    assert not kept(root) and "## Training" in (root / PUBLISHED).read_text()


def test_the_copy_is_made_also_when_the_source_changed_meanwhile(root, history):
    edit_source(root, "Look at the switches.", "Look at these switches.")
    work = answer(root)
    main(["sync"])
    assert kept(root) == {"01_resnet.2026-11-27.ipynb": work}
    assert "these switches" in (root / PUBLISHED).read_text()


def test_the_difference_tells_a_readers_work_from_a_stale_notebook(root, history):
    path = root / PUBLISHED
    assert notebooks.difference(path, root) == ""
    edit_source(root, "Look at the switches.", "Look at these switches.")
    stale = notebooks.difference(path, root)
    assert "run `make notebooks`" in stale and "your own work" not in stale
    answer(root)
    work = notebooks.difference(path, root)
    assert "holds your own work (cell 4, 7)" in work and "`python -m lessons mine 01 --rescue`" in work


def test_rescue_moves_the_work_and_restores_what_is_published(root, history, capsys):
    published = (root / PUBLISHED).read_bytes()
    work = answer(root)
    assert main(["mine", "01", "--rescue"]) == 0
    assert f"{PUBLISHED}: yours is kept as {MINE / '01_resnet.2026-11-27.ipynb'}" in capsys.readouterr().out
    assert kept(root) == {"01_resnet.2026-11-27.ipynb": work}
    assert notebooks.difference(root / PUBLISHED, root) == ""
    assert (root / PUBLISHED).read_bytes() == published
    assert main(["mine", "--rescue"]) == 0
    assert "hold nothing of yours" in capsys.readouterr().out and len(kept(root)) == 1
    assert not history or not checkouts.git(root, "status", "--porcelain"), "git sees no change"


def test_rescue_takes_a_damaged_notebook_too(root, history, capsys):
    published = (root / PUBLISHED).read_bytes()
    (root / PUBLISHED).write_text("{half a noteb")
    assert main(["sync"]) == 2
    assert "`python -m lessons mine 01 --rescue`" in capsys.readouterr().err
    assert main(["mine", "--rescue"]) == 0
    assert kept(root) == {"01_resnet.2026-11-27.ipynb": b"{half a noteb"}
    assert [cell.source for cell in load(root / PUBLISHED).cells] == [cell.source for cell in cells_of_lesson()]
    assert not history or (root / PUBLISHED).read_bytes() == published


@pytest.mark.parametrize(
    "damage",
    [
        b"[]",
        b"null",
        b'"x"',
        b'{"cells": 3}',
        b'{"cells": [{"cell_type": "code", "source": "x = 1"}]}',
        b'{"cells": [], "metadata": {}, "nbformat": [4], "nbformat_minor": 5}',
        b'{"cells": [{"cell_type": "code", "source": "x = 1", "metadata": {}}], "metadata": {}, "nbformat": 4}',
        b"[" * 100_000,
        b"\xff\xfe",
    ],
    ids=lambda damage: damage[:20].decode("latin-1") + str(len(damage)),
)
def test_whatever_stands_where_the_notebook_should_be_is_kept(root, dated, capsys, damage):
    (root / PUBLISHED).write_bytes(damage)
    assert main(["sync"]) == 2
    assert "`python -m lessons mine 01 --rescue`" in capsys.readouterr().err and not kept(root)
    assert main(["mine", "--rescue"]) == 0
    assert kept(root) == {"01_resnet.2026-11-27.ipynb": damage}
    assert [cell.source for cell in load(root / PUBLISHED).cells] == [cell.source for cell in cells_of_lesson()]


def test_a_committed_notebook_that_is_damaged_is_as_good_as_none(root, dated):
    (root / PUBLISHED).write_text("[]")
    commit(root)
    main(["mine", "--rescue"])
    answer(root)
    assert main(["sync"]) == 0 and len(kept(root)) == 2


def test_outputs_of_a_readers_run_are_rescued_and_the_committed_ones_restored(root, dated):
    book = load(root / PUBLISHED)
    book.cells[3].outputs = [new_output("stream", text="published\n")]
    notebooks.write(notebooks.normalise(book), root / PUBLISHED)
    commit(root)
    published = (root / PUBLISHED).read_bytes()
    book.cells[3].outputs = [new_output("stream", text="run here\n")]
    book.metadata["language_info"]["version"] = "3.12.1"  # as JupyterLab saves it
    nbformat.write(book, root / PUBLISHED)
    main(["mine", "--rescue"])
    assert (root / PUBLISHED).read_bytes() == published
    assert b"run here" in kept(root)["01_resnet.2026-11-27.ipynb"]


def test_update_refuses_to_publish_a_readers_work(root, history, capsys):
    work = answer(root)
    assert main(["run", "01", "--scale", "cpu", "--data", "scenes", "--out", "out", "--update"]) == 2
    assert "`python -m lessons mine 01 --rescue`" in capsys.readouterr().err
    assert (root / PUBLISHED).read_bytes() == work and not Path("out").exists()


def double(x):
    """Twice x."""
    return 2 * x


def never_wrong(candidate):
    """A check."""


@pytest.fixture
def one_exercise(monkeypatch):
    texts = {"title": "Double", "contract": "number to number", "hints": ("a", "b", "c")}
    made = Exercise(id="1.1", minutes=1, difficulty=1, solution=double, check=never_wrong, **texts)
    monkeypatch.setattr(exercises, "load", lambda number: (made,))


def exercise_cells(asked: str = "1.1") -> list:
    return [
        new_markdown_cell("## Exercises"),
        new_code_cell(
            'def double(x):\n    """Twice x."""\n    raise NotImplementedError', metadata={"tags": ["exercise"]}
        ),
        new_code_cell(f'check("{asked}", double)', metadata={"tags": ["check"]}),
    ]


def test_solve_keeps_setup_and_exercises_and_fills_the_stubs(root, one_exercise):
    save(root, cells_of_lesson() + exercise_cells())
    assert main(["solve", "all", "--out", "out"]) == main(["solve", "all", "--out", "out"]) == 0
    assert [path.name for path in Path("out").iterdir()] == ["01_resnet.ipynb"]
    sources = [cell.source for cell in load(Path("out/01_resnet.ipynb")).cells]
    assert len(sources) == 3 and "find_spec" in sources[0]
    assert "return 2 * x" in sources[1] and "NotImplementedError" not in sources[1]
    assert sources[2] == 'check("1.1", double)'


def test_solve_fails_where_an_exercise_is_never_checked(root, one_exercise, capsys):
    save(root, cells_of_lesson() + exercise_cells(asked="1.2"))
    assert main(["solve", "01", "--out", "out"]) == 2
    assert "calls check(...) for exercise 1.1" in capsys.readouterr().err


def test_cut_keeps_what_is_tagged_and_of_a_text_only_what_its_code_shows(root, capsys):
    shown, hidden = {"tags": ["workshop"]}, {}
    cells = [
        new_markdown_cell("# ResNet", metadata=shown),
        new_code_cell("x = 1", metadata=shown, execution_count=1, outputs=[new_output("stream", text="1\n")]),
        new_markdown_cell("About x.\n\n## 2 Not today\n\nAbout y.", metadata=shown),
        new_code_cell("y = 2", metadata=hidden),
        new_markdown_cell("More about y.\n\n## 3 Today again\n\nAbout z.", metadata=shown),
        new_code_cell("z = x", metadata=shown),
        new_markdown_cell("About z.\n\n## 4 The end\n\nWhat x taught.", metadata=shown),
        new_markdown_cell("Left out.", metadata=hidden),
    ]
    save(root, cells)
    assert main(["cut", "all", "--out", "out"]) == 0
    assert [path.name for path in Path("out").iterdir()] == ["01_resnet.ipynb"]
    assert capsys.readouterr().out == f"{Path('out/01_resnet.ipynb')}\n"
    book = load(Path("out/01_resnet.ipynb"))
    assert [cell.source for cell in book.cells] == [
        "# ResNet",
        "x = 1",
        "About x.",
        "## 3 Today again\n\nAbout z.",
        "z = x",
        "About z.\n\n## 4 The end\n\nWhat x taught.",
    ]
    assert book.cells[1].outputs == [] and book.cells[1].execution_count is None
    assert load(root / "notebooks" / "01_resnet.ipynb").cells[1].outputs, "the lesson itself stays as it is"


@pytest.fixture
def cuts(root) -> dict[Path, bytes]:
    """What lies in out/ after a cut: the cut of lesson 01, and files that are none of the course's."""
    save(root, [new_code_cell("x = 1", metadata={"tags": ["workshop"]}), new_code_cell("y = x")])
    assert main(["cut", "all", "--out", "out"]) == 0
    Path("out/my_notes.ipynb").write_text("{half a noteb")
    nbformat.write(new_notebook(cells=[new_code_cell("mine = 1")]), "out/01_resnet copy.ipynb")
    return {path: path.read_bytes() for path in Path("out").iterdir()}


def test_cut_removes_only_lessons_that_are_gone(root, cuts):
    notebooks.write(notebooks.normalise(new_notebook()), Path("out/09_multimodal_embeddings.ipynb"))
    assert main(["cut", "all", "--out", "out"]) == 0
    assert {path: path.read_bytes() for path in Path("out").iterdir()} == cuts


@pytest.mark.parametrize("which", ["01", "all"])
@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (new_notebook(cells=[new_code_cell("x = 1", execution_count=1)]), "has been run"),
        (new_notebook(cells=[new_code_cell("x = 1"), new_code_cell("x = 2")]), "does not have now (cell 2)"),
        (new_notebook(cells=[new_markdown_cell("A note.")]), "does not have now (cell 1)"),
        (None, "cannot be read as a notebook"),
    ],
    ids=["run", "edited", "noted", "damaged"],
)
def test_cut_leaves_a_notebook_that_may_hold_work(root, capsys, cuts, which, changed, expected):
    path = Path("out/01_resnet.ipynb")
    path.write_text(nbformat.writes(changed) if changed else "{half a noteb")
    before = path.read_bytes()
    assert main(["cut", which, "--out", "out"]) == 2
    shown = capsys.readouterr().err
    assert str(path) in shown and expected in shown and "Move it away, or give --out another folder" in shown
    assert {one: one.read_bytes() for one in Path("out").iterdir()} == cuts | {path: before}


def test_cut_writes_nothing_where_a_later_lesson_is_refused(root, capsys, cuts):
    Path("out/01_resnet.ipynb").unlink()
    other = Path("out/09_multimodal_embeddings.ipynb")
    nbformat.write(new_notebook(cells=[new_code_cell("mine = 1")]), other)
    assert main(["cut", "all", "--out", "out"]) == 2
    assert str(other) in capsys.readouterr().err
    assert other.is_file() and not Path("out/01_resnet.ipynb").exists()


def test_cut_writes_over_what_is_published_or_committed(root, cuts):
    """A copy of the whole lesson, as published now or as committed, is nobody's work."""
    shutil.copy(root / PUBLISHED, "out/01_resnet.ipynb")
    assert main(["cut", "all", "--out", "out"]) == 0
    commit(root)
    save(root, [new_code_cell("x = 2", metadata={"tags": ["workshop"]})])
    assert main(["cut", "all", "--out", "out"]) == 0
    assert [cell.source for cell in load(Path("out/01_resnet.ipynb")).cells] == ["x = 2"]


@pytest.mark.parametrize("command", ["cut", "solve"])
@pytest.mark.parametrize("out", ["notebooks", "notebooks/mine", "lessons/../notebooks"])
def test_where_notebooks_lie_no_variant_is_written(root, cuts, capsys, command, out):
    before = (root / PUBLISHED).read_bytes()
    assert main([command, "01", "--out", str(root / out)]) == 2
    assert "Name another folder" in capsys.readouterr().err
    assert (root / PUBLISHED).read_bytes() == before and not (root / MINE).exists()


def test_exercises_lists_as_json(capsys):
    assert main(["exercises", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == exercises.listing()


# links


def test_links_rewrites_every_address_for_a_fork(root, capsys):
    colab = links.badge(ADDRESS, "main", course.LESSONS[0])
    other = "https://github.com/vision-to-language/vision-to-language-slides"
    (root / "README.md").write_text(f"{colab}\n[issues]({ADDRESS}/issues), {other}, git clone {ADDRESS}.git\n")
    assert main(["links", "--repo", "ada/course", "--ref", "v1.0"]) == 0
    readme = (root / "README.md").read_text()
    assert "github/ada/course/blob/v1.0/notebooks/01_resnet.ipynb" in readme
    assert "https://github.com/ada/course/issues" in readme and "https://github.com/ada/course.git" in readme
    assert other in readme, "a repository with a longer name is another one"
    assert links.address(root) == "https://github.com/ada/course" and links.current_ref(root) == "v1.0"
    for cells in (load(root / "notebooks" / "01_resnet.ipynb").cells, notebooks.read(_source(root)).cells):
        assert cells[1].source == links.setup_cell("https://github.com/ada/course", "v1.0")
        assert links.badge("https://github.com/ada/course", "v1.0", course.LESSONS[0]) in cells[0].source
    assert main(["links", "--repo", "ada/course", "--ref", "v1.0"]) == 0
    assert "0 of 4 files changed" in capsys.readouterr().out


def test_links_names_a_file_that_is_no_text_and_rewrites_nothing(root, capsys):
    before = (root / PUBLISHED).read_bytes()
    other = root / "notebooks" / "99_notes.ipynb"
    other.write_bytes("é".encode("latin-1"))
    assert main(["links", "--repo", "ada/course"]) == 2
    assert f"{other} is no text in UTF-8" in capsys.readouterr().err
    assert (root / PUBLISHED).read_bytes() == before


def _source(root: Path) -> Path:
    return root / "notebooks" / "source" / "01_resnet.py"


# results


def test_accept_copies_whole_records(root, capsys):
    Path("record.json").write_text(json.dumps(RECORD))
    assert main(["results", "--accept", "record.json"]) == 0
    kept = json.loads((root / "lessons" / "results" / "01-cpu-scenes-cpu.json").read_text())
    assert kept == RECORD


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"scale": "smoke"}, "smoke scale"),
        ({"numbers": {"loss": float("inf")}}, "not finite: numbers.loss"),
        ({"cell_seconds": [1.0, float("nan")]}, "not finite: cell_seconds.1"),
        ({"claims": [RECORD["claims"][0] | {"here": "accuracy nan"}]}, "not finite: claims.0.here"),
        ({"claims": []}, "no claim"),
        ({"claims": [{"key": "deep"}]}, "lacks one of"),
        ({"hardware": None}, "missing or of the wrong type: hardware"),
    ],
)
def test_accept_refuses_and_then_copies_none(root, capsys, change, reason):
    Path("good.json").write_text(json.dumps(RECORD))
    Path("bad.json").write_text(json.dumps(RECORD | change))
    assert main(["results", "--accept", "good.json", "bad.json"]) == 2
    assert reason in capsys.readouterr().err
    assert not list((root / "lessons" / "results").iterdir())


def test_readme_table_comes_from_lessons_and_records(root, monkeypatch):
    monkeypatch.setattr(claims, "references", lambda lesson=None: [RECORD] if lesson == 1 else [])
    (root / "README.md").write_text(f"# Title\n{results.BEGIN}\nold\n{results.END}\nrest\n")
    assert main(["results", "--readme"]) == 0
    text = (root / "README.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("|")][2:]
    assert len(rows) == 11 and text.endswith(f"{results.END}\nrest\n") and "old" not in text
    assert "[ResNet](notebooks/01_resnet.ipynb)" in rows[0] and "1.5 min (cpu scale, scenes, 2 CPU cores)" in rows[0]
    assert "colab-badge" in rows[0] and "colab-badge" not in rows[1], "no badge for a notebook that is not there"
    assert [row.split("|")[1].strip() for row in rows] == [
        f"{n:02d} ★" if n in (2, 4, 8, 9, 10, 11) else f"{n:02d}" for n in range(1, 12)
    ]
    before = (root / "README.md").stat().st_mtime_ns
    main(["results", "--readme"])
    assert (root / "README.md").stat().st_mtime_ns == before


def test_results_lists_records(root, monkeypatch, capsys):
    monkeypatch.setattr(claims, "references", lambda lesson=None: [RECORD])
    main(["results"])
    assert "01  cpu, scenes, 2 CPU cores: 90 s, 1 of 1 claims hold" in capsys.readouterr().out


# pack


@pytest.fixture
def data_folder(tmp_path) -> Path:
    folder = tmp_path / "sets"
    (folder / "cifar10").mkdir(parents=True)
    (folder / "cifar10" / "train.parquet").write_bytes(b"x" * 1000)
    (folder / "private").mkdir()
    (folder / "private" / "letters.txt").write_text("not a set")
    return folder


def test_pack_takes_notebooks_and_known_sets_and_goes_on_where_it_stopped(root, data_folder, capsys, monkeypatch):
    arguments = ["pack", "--out", "bundle", "--data", str(data_folder), "--no-wheels"]
    copy = shutil.copyfile

    def full(source, target):
        if str(source).endswith(".parquet"):
            raise OSError(28, "No space left on device")
        return copy(source, target)

    monkeypatch.setattr(shutil, "copyfile", full)
    assert main(arguments) == 2 and "Disk full" in capsys.readouterr().err
    assert not Path("bundle/install.sh").exists() and not list(Path("bundle/data").rglob("*.parquet"))
    monkeypatch.setattr(shutil, "copyfile", copy)
    assert main(arguments) == 0
    assert "[1/1] data/cifar10/train.parquet" in capsys.readouterr().out, "the notebook was there already"
    assert Path("bundle/data/cifar10/train.parquet").read_bytes() == b"x" * 1000
    assert not Path("bundle/data/private").exists()
    assert Path("bundle/notebooks/01_resnet.ipynb").is_file()
    for name in ("install.sh", "start.sh"):
        assert Path("bundle", name).stat().st_mode & stat.S_IXUSR
        subprocess.run(["sh", "-n", f"bundle/{name}"], check=True)
    assert "--no-index" in Path("bundle/install.bat").read_text()
    assert not list(Path("bundle").rglob("*.partial*"))


def test_start_scripts_set_what_a_kernel_must_find(root):
    assert main(["pack", "--out", "bundle", "--no-wheels"]) == 0
    python = Path("bundle/environment/bin/python")
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\nenv\n")
    python.chmod(0o755)
    settings = {f"{name}={value}" for name, value in KERNELS.items()}
    assert len(settings) == 2
    if sys.platform != "win32":
        env = {name: value for name, value in os.environ.items() if name not in KERNELS}
        found = subprocess.run(["sh", "bundle/start.sh"], env=env, capture_output=True, text=True, check=True).stdout
        assert settings <= set(found.splitlines())
    assert {f"set {one}" for one in settings} <= set(Path("bundle/start.bat").read_text().splitlines())


def test_pack_again_keeps_what_somebody_did_in_the_bundle(root, dated, capsys):
    arguments = ["pack", "--out", "bundle", "--no-wheels"]
    assert main(arguments) == 0
    notebook, script = Path("bundle/notebooks/01_resnet.ipynb"), Path("bundle/install.sh")
    book = load(notebook)
    notebooks.write(new_notebook(cells=[*book.cells, new_code_cell("my_answer = 42")]), notebook)
    script.write_text("#!/bin/sh\necho mine\n")
    work, own_script = notebook.read_bytes(), script.read_bytes()
    capsys.readouterr()
    assert main(arguments) == 0
    shown = capsys.readouterr().err
    assert f"{notebook} was there already; it is kept as 01_resnet.2026-11-27.ipynb" in shown
    assert f"{script} was there already; it is kept as install.2026-11-27.sh" in shown
    assert Path("bundle/notebooks/01_resnet.2026-11-27.ipynb").read_bytes() == work
    assert Path("bundle/install.2026-11-27.sh").read_bytes() == own_script
    assert notebook.read_bytes() == (root / PUBLISHED).read_bytes() and "--no-index" in script.read_text()

    published = load(root / PUBLISHED)
    published.cells[3].outputs = [new_output("stream", text="measured again\n")]
    notebooks.write(published, root / PUBLISHED)
    assert main(arguments) == 0
    assert not capsys.readouterr().err and len(list(Path("bundle").rglob("*.2026*"))) == 2, "nobody worked in these"


@pytest.mark.parametrize("work", ["an answer", "damaged"])
def test_pack_refuses_a_published_notebook_that_is_not_as_published(root, capsys, work):
    if work == "an answer":
        answer(root)
    else:
        (root / PUBLISHED).write_text("{half a noteb")
    assert main(["pack", "--out", "bundle", "--no-wheels"]) == 2
    assert "`python -m lessons mine 01 --rescue`" in capsys.readouterr().err and not Path("bundle").exists()


def test_pack_takes_lessons_only_and_names_the_rest(root, capsys):
    (root / "notebooks" / "my exam.ipynb").write_text("the answers")
    assert main(["pack", "--out", "bundle", "--no-wheels"]) == 0
    assert "Left out, since they are no lessons of the course: my exam.ipynb" in capsys.readouterr().err
    assert [path.name for path in Path("bundle/notebooks").iterdir()] == ["01_resnet.ipynb"]


def test_pack_refuses_a_disk_that_is_too_small_before_it_writes(root, data_folder, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10 * 2**20))
    assert main(["pack", "--out", "bundle", "--data", str(data_folder)]) == 2
    assert "needs about" in capsys.readouterr().err and not Path("bundle").exists()


def test_pack_asks_pip_for_the_pinned_lab_set_and_reports_its_failure(root, monkeypatch, capsys):
    project = 'name = "x"\ndependencies = ["torch>=2.4"]\noptional-dependencies.lab = ["jupyterlab>=4.2"]\n'
    (root / "pyproject.toml").write_text(f"[project]\n{project}")
    calls = []
    monkeypatch.setattr(pack, "CPU_WHEELS", "http://127.0.0.1:9")  # nobody answers there
    monkeypatch.setattr(pack.subprocess, "run", lambda command: calls.append(command) or SimpleNamespace(returncode=0))
    assert main(["pack", "--out", "bundle"]) == 0
    download, wheel = calls
    assert {"torch>=2.4", "jupyterlab>=4.2", "--only-binary", str(root / "constraints.txt")} <= set(download)
    assert "wheel" in wheel and "--no-deps" in wheel and str(root) in wheel
    monkeypatch.setattr(pack.subprocess, "run", lambda command: SimpleNamespace(returncode=1))
    assert main(["pack", "--out", "bundle"]) == 2
    assert "pip download failed" in capsys.readouterr().err
    assert not Path("bundle/install.sh").exists(), "a bundle with its install script is whole"


# doctor


def test_doctor_finds_this_machine_fine(root, capsys, monkeypatch):
    monkeypatch.setattr(doctor.data, "available", lambda name: "folder" if name == "cifar10" else None)
    monkeypatch.setattr(claims, "references", lambda lesson=None: [RECORD | {"pictures_per_second": 200.0}])
    monkeypatch.setenv("LESSONS_SCALE", "cpu")
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert "✗" not in shown and shown.endswith("The lessons can run here.\n")
    assert "CIFAR-10 (cifar10) in LESSONS_DATA_DIR" in shown and "not here: cifar100" in shown
    assert "100 pictures of 32 px per second" in shown
    assert "estimated from the reference runs: 01 3" in shown, "half as fast as the reference: 90 s become 3 minutes"


def test_doctor_says_what_to_do_and_goes_on_after_each_fault(root, capsys, monkeypatch, tmp_path):
    def unreadable(name):
        raise LessonError("LESSONS_DATA_DIR is 'x', which is no folder. Correct it, or unset it.")

    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LESSONS_CACHE_DIR", str(tmp_path / "file" / "cache"))
    monkeypatch.setenv("LESSONS_SCALE", "huge")
    monkeypatch.setattr(doctor.data, "available", unreadable)
    assert main(["doctor"]) == 1
    shown = capsys.readouterr().out
    bad = [line for line in shown.splitlines() if line.startswith("✗")]
    assert any("Cannot write" in line for line in bad)
    assert any("LESSONS_SCALE is 'huge'. Allowed: smoke, cpu, gpu" in line for line in bad)
    assert any("which is no folder" in line for line in bad)
    assert "✓ Python" in shown and "Mend what is marked ✗ first." in shown
    assert "LESSONS_DATA" not in os.environ


def test_short_training_gives_a_speed():
    assert doctor.training_speed(seconds=0.0) > 0


def test_commands_that_need_a_checkout_say_so_without_one(monkeypatch, tmp_path):
    from lessons import commands

    monkeypatch.setattr(commands, "__file__", str(tmp_path / "site-packages" / "lessons" / "commands" / "__init__.py"))
    with pytest.raises(SettingError, match="git clone https://github.com/"):
        commands.checkout()

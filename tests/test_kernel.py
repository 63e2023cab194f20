"""What a notebook's kernel says: a name whose cell has not run yet, and Stop."""

import json
import os
import site
import subprocess
import sys
from pathlib import Path

import pytest

from lessons import kernel as module
from tests.kernels import Kernel, errors, kernel, outputs, printed

ROOT = Path(__file__).resolve().parents[1]
CELLS = (
    "import math\nfrom os import path as way\n%precision 3",
    "def patchify(x):\n    return inside_only\nfor step in range(3):\n    total = step",
    "patchify(1), nothing_of_this_name",
    "below = 1",
)
LINE = (
    "`{}` is made in a cell further up that has not run to its end in this kernel. "
    "Choose Run > Run All Above Selected Cell, then run this cell again.\n"
)


@pytest.fixture
def notebook(tmp_path):
    """A notebook of these cells with text between them, as a file."""
    cells = [{"cell_type": "code", "id": f"cell-{n}", "source": source} for n, source in enumerate(CELLS)]
    cells.insert(1, {"cell_type": "markdown", "id": "text", "source": ["in_text = 1\n", "more"]})
    path = tmp_path / "mine.ipynb"
    path.write_text(json.dumps({"cells": cells}))
    return path


# Names


def test_a_name_made_further_up_is_explained_and_no_other(notebook, tmp_path):
    with kernel(JPY_SESSION_NAME=str(notebook), LESSONS_CACHE_DIR=str(tmp_path)) as one:
        one.run("%load_ext lessons.kernel\n%load_ext lessons.kernel")
        first = one.run(CELLS[2], "cell-2")
        assert printed(first) == LINE.format("patchify")
        ((*_, last),) = errors(first)
        assert "NameError" in last and "patchify" in last  # the error itself is shown as ever
        for name in ("math", "way", "step", "total"):
            assert printed(one.run(f"{name}\n", "cell-2")) == LINE.format(name)
        for name in ("below", "inside_only", "in_text", "typo", "x"):
            failed = one.run(f"{name}\n", "cell-2")
            assert errors(failed) and printed(failed) == ""
        one.run(CELLS[1], "cell-1")
        second = one.run(CELLS[2], "cell-2")
        assert "inside_only" in errors(second)[0][-1] and printed(second) == ""
        assert printed(one.run("import decimal; decimal.Decimal.f = lambda: 0; step", "cell-2")) == ""  # it is there


def test_a_cell_is_found_by_its_text_where_the_server_sends_no_id(notebook):
    with kernel(JPY_SESSION_NAME=str(notebook)) as one:
        one.run("%load_ext lessons.kernel")
        assert printed(one.run(CELLS[2])) == LINE.format("patchify")
        assert printed(one.run("patchify\n")) == ""  # not a cell of this notebook: where it stands is not known


@pytest.mark.parametrize("content", [None, "", "[1]", '{"cells": [{}]}'])
def test_a_notebook_that_cannot_be_read_leaves_the_error_as_it_is(tmp_path, content):
    path = tmp_path / "broken.ipynb"
    if content is not None:
        path.write_text(content)
    with kernel(JPY_SESSION_NAME=str(path)) as one:
        one.run("%load_ext lessons.kernel")
        failed = one.run(CELLS[2])
        assert len(errors(failed)) == 1 and printed(failed) == ""


def test_without_a_server_the_published_notebook_with_this_cell_is_read():
    cells = json.loads((ROOT / "notebooks" / "02_vit.ipynb").read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    asks = next(source for source in sources if "patchify(images, 8)" in source)
    with kernel() as one:
        one.run("%load_ext lessons.kernel")
        assert printed(one.run(asks)) == LINE.format("training")


def test_start_explains_names_too(notebook, tmp_path):
    with kernel(JPY_SESSION_NAME=str(notebook), LESSONS_CACHE_DIR=str(tmp_path), LESSONS_DATA="scenes") as one:
        assert "Lesson 01" in printed(one.run("import lessons\nrun = lessons.start(1)"))
        assert printed(one.run(CELLS[2], "cell-2")) == LINE.format("patchify")


def test_kernels_of_an_environment_load_it_by_themselves_and_without_torch(notebook, tmp_path):
    home = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    python = next(path for path in (home / "bin" / "python", home / "Scripts" / "python.exe") if path.exists())
    paths = os.pathsep.join([str(ROOT), *site.getsitepackages()])
    file = module.install(home)
    before = file.read_text()
    file.write_text("c = get_config()\nc.IPKernelApp.matplotlib = None\n" + before)
    assert module.install(home) == file and file.read_text().count("lessons.kernel") == 1
    with kernel(str(python), JPY_SESSION_NAME=str(notebook), PYTHONPATH=paths) as one:
        assert printed(one.run(CELLS[2], "cell-2")) == LINE.format("patchify")
        assert printed(one.run("import sys; print(sys.prefix, 'torch' in sys.modules)")) == f"{home} False\n"


def test_installing_keeps_what_somebody_else_configured(tmp_path):
    file = tmp_path / "etc" / "ipython" / "ipython_kernel_config.py"
    file.parent.mkdir(parents=True)
    file.write_text("c.Own.setting = 1\n")
    assert module.install(tmp_path) == file
    text = file.read_text()
    assert text.startswith("c.Own.setting = 1\n") and text.endswith(module.CONFIGURATION)
    module.install(tmp_path)
    assert file.read_text() == text


def test_an_extension_that_cannot_be_loaded_does_not_stop_a_kernel(tmp_path):
    folder = tmp_path / "profile_default"
    folder.mkdir()
    (folder / "ipython_kernel_config.py").write_text(module.CONFIGURATION.replace("lessons.", "removed."))
    with kernel(IPYTHONDIR=str(tmp_path)) as one:
        assert printed(one.run("print(1 + 1)")) == "2\n"


# Stop

SETUP = """
import torch, lessons
from functools import partial
from torch import nn
from lessons import training
from lessons.exercises import check, record

torch.set_num_threads(2)

def job(title, steps):
    net = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    data = iter(lambda: (torch.ones(2, 4),), None)
    loss = lambda net, batch: net(batch[0]).square().mean()
    return net, partial(lessons.fit, net, loss, data, steps=steps, optimizer=optimizer, title=title)
"""
LONG = 50_000_000


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    """One kernel with a network to train, for the tests below."""
    with kernel(LESSONS_CACHE_DIR=str(tmp_path_factory.mktemp("cache")), LESSONS_HEADLESS="") as one:
        assert not errors(one.run(SETUP))
        yield one


def moving(kind: str, content: dict) -> bool:
    """A bar that has moved: at least one step is done."""
    text = content["data"]["text/html"] if kind == "update_display_data" else ""
    return "loss" in text


def line(messages: list[tuple]) -> str:
    """The error of a cell, which is one line, and nothing is printed beside it."""
    (lines,) = errors(messages)
    (text,) = lines
    assert "\n" not in text and printed(messages) == ""
    return text


def test_stopping_a_training_ends_the_cell_with_one_line(live):
    cell = f"net, train = job('net', {LONG})\nbefore = net.weight.clone()\nhistory = train()\nprint('went on')"
    text = line(stopped := live.stop(cell, moving))
    assert text.startswith("net: interrupted after ") and f" of {LONG} steps. To start over, run the cell" in text
    assert set(outputs(stopped)[0].values()) == {""}  # its bar is gone
    after = live.run(
        "print('history' in globals(), torch.equal(before, net.weight))\nprint(len(job('net', 3)[1]().loss))"
    )
    assert printed(after) == "False False\n3\n"


def test_stopping_trainings_side_by_side_gives_one_line_for_all(live):
    cell = (
        "whole = [job('first', 2)[1]]\n"
        f"rest = [job(f'net {{n}}', {LONG})[1] for n in range(3)]\n"
        "histories = training.side_by_side(whole + rest, torch.device('cpu'))\nprint('went on')"
    )
    both = lambda kind, content: moving(kind, content) and content["data"]["text/html"].count("loss") == 2  # noqa: E731
    text = line(live.stop(cell, both))
    assert text.startswith("Interrupted: 1 of 4 trainings ended, 2 were cut short after ")
    assert f" of {LONG} steps, 1 had not begun." in text and "first" not in text
    again = live.run("print([len(h.loss) for h in training.side_by_side([job('n', 4)[1]] * 2, torch.device('cpu'))])")
    assert printed(again) == "[4, 4]\n"


def test_stopping_a_kept_training_keeps_nothing(live):
    cell = f"net, train = job('kept', {LONG})\ntraining.remember('kept', net, {{}}, train)"
    assert line(live.stop(cell, moving)).startswith("kept: interrupted")
    again = live.run("net, train = job('kept', 2)\nprint(len(training.remember('kept', net, {}, train).loss))")
    assert printed(again) == "2\n"


def test_stopping_a_check_is_one_line_and_not_a_try(live):
    endless = "def receptive_field(*layers):\n    print('in')\n    while True: pass"
    cell = f"{endless}\ncheck('1.2', receptive_field, seconds=9e9)"
    sent = live.send(cell)
    live.read(sent, lambda kind, content: kind == "stream")
    live.manager.interrupt_kernel()
    assert line(live.read(sent)) == "The check of 1.2 was interrupted; it is not counted as a try."
    assert printed(live.run("print(record.read().get('1.2'))")) == "None\n"


def test_run_all_stops_at_the_interrupted_cell(live: Kernel):
    """Cells that the notebook has sent already are not run after an error."""
    sent = live.send(f"job('net', {LONG})[1]()")
    following = live.send("print('ran')")
    live.read(sent, moving)
    live.manager.interrupt_kernel()
    assert errors(live.read(sent))
    assert printed(live.read(following)) == ""

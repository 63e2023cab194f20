"""A reader's own copies: `make lab` with a real server, notebooks/mine, and what is never lost."""

import errno
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import nbformat
import psutil
import pytest
from checkouts import Server, copied, environment, git, program, ready
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from lessons import __version__
from lessons.__main__ import main
from lessons.commands import lab, mine, notebooks

posix = pytest.mark.skipif(sys.platform == "win32", reason="make and limits of file sizes are those of POSIX")


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A checkout with lesson 03; JupyterLab is not started, `started` holds what would have been."""
    root = tmp_path / "checkout"
    publish(root, "print(1)")
    for module in (lab, mine):
        monkeypatch.setattr(module, "checkout", lambda: root)
    return root


@pytest.fixture
def started(monkeypatch) -> list[tuple[list[str], dict[str, str]]]:
    calls: list = []
    monkeypatch.setattr(lab, "_become", lambda *call: calls.append(call) or 0)
    return calls


def publish(root: Path, code: str) -> Path:
    """Lesson 03 with this code cell, and an output."""
    book = new_notebook(cells=[new_markdown_cell("# MAE"), new_code_cell(code, execution_count=1)])
    book.cells[1].outputs = [new_output("stream", text="published\n")]
    path = root / "notebooks" / "03_mae.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    notebooks.write(notebooks.normalise(book), path)
    return path


def own(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "notebooks" / "mine").iterdir())


# The copy


def test_the_first_call_makes_a_copy_with_outputs_and_no_call_touches_it_again(root, started, capsys):
    before = (root / "notebooks" / "03_mae.ipynb").read_bytes()
    assert main(["lab", "03"]) == 0
    copy = root / "notebooks" / "mine" / "03_mae.ipynb"
    book = nbformat.read(copy, as_version=4)
    assert book.cells[1].outputs[0].text == "published\n"
    assert book.metadata.lessons.version == __version__ and len(book.metadata.lessons.cells) == 16
    assert capsys.readouterr().out == f"Your copy: {Path('notebooks/mine/03_mae.ipynb')}\n"

    copy.write_text(copy.read_text().replace("print(1)", "my answer"))
    mine_now = copy.read_bytes()
    assert main(["lab", "3"]) == 0
    assert copy.read_bytes() == mine_now and own(root) == ["03_mae.ipynb"]
    assert (root / "notebooks" / "03_mae.ipynb").read_bytes() == before


def test_a_newer_lesson_is_said_and_both_copies_stay(root, started, capsys):
    main(["lab", "03"])
    publish(root, "print(2)")
    capsys.readouterr()
    main(["lab", "03"])
    line = capsys.readouterr().out.splitlines()[1]
    assert f"from version {__version__}" in line and "`make lab LESSON=03 NEW=1`" in line
    main(["mine"])
    assert line in capsys.readouterr().out

    main(["lab", "03", "--new"])
    assert own(root) == ["03_mae-2.ipynb", "03_mae.ipynb"]
    assert "print(1)" in (root / "notebooks" / "mine" / "03_mae.ipynb").read_text()
    capsys.readouterr()
    main(["lab", "03"])
    assert capsys.readouterr().out == f"Your copy: {Path('notebooks/mine/03_mae-2.ipynb')}\n", "the newest, and no line"
    assert started[-1][0][4].endswith("/lab/tree/notebooks/mine/03_mae-2.ipynb")


def test_outputs_alone_make_no_newer_lesson(root, started, capsys):
    main(["lab", "03"])
    path = root / "notebooks" / "03_mae.ipynb"
    path.write_text(path.read_text().replace("published", "measured again"))
    capsys.readouterr()
    main(["lab", "03"])
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_copies_are_in_the_order_of_their_numbers_and_a_kept_one_is_opened_where_it_is_the_only_one(root, started):
    folder = root / "notebooks" / "mine"
    folder.mkdir()
    names = ["03_mae.2026-02-01.ipynb", "03_mae.2026-02-01-2.ipynb", "03_mae.2026-11-30.ipynb"]
    for name in [*names, "notes.ipynb", "03_mae copy.ipynb", "03_maestro.ipynb"]:
        (folder / name).write_text('{"cells": []}')
    main(["lab", "03"])
    assert started[-1][0][4].endswith("/03_mae.2026-11-30.ipynb") and len(own(root)) == 6
    names += ["03_mae.ipynb", "03_mae-2.ipynb", "03_mae-10.ipynb"]
    for name in names[3:]:
        (folder / name).write_text('{"cells": []}')
    lesson = lab.course.lesson(3)
    assert [path.name for path in mine.copies(lesson, root)] == names


def test_a_new_copy_is_above_all_there_were(root, started):
    for _ in range(3):
        main(["lab", "03", "--new"])
    (root / "notebooks" / "mine" / "03_mae-2.ipynb").unlink()
    main(["lab", "03", "--new"])
    assert own(root) == ["03_mae-3.ipynb", "03_mae-4.ipynb", "03_mae.ipynb"]
    assert started[-1][0][4].endswith("/03_mae-4.ipynb"), "the newest is the one that opens"


def test_mine_lists_every_notebook_in_the_folder(root, started, capsys):
    main(["mine"])
    assert "You have no copies yet" in capsys.readouterr().out
    main(["lab", "03"])
    for name in ("my_mae.ipynb", "03_mae-Copy1.ipynb", "notes.txt"):
        (root / "notebooks" / "mine" / name).write_text("mine")
    capsys.readouterr()
    main(["mine"])
    folder, other = Path("notebooks/mine"), "under a name of your own: open it in JupyterLab"
    copies = [f"{folder / '03_mae.ipynb'}", f"{folder / '03_mae-Copy1.ipynb'}  {other}"]
    assert capsys.readouterr().out.splitlines() == [*copies, f"{folder / 'my_mae.ipynb'}  {other}"]
    main(["mine", "03"])
    assert capsys.readouterr().out.splitlines() == copies


def at_once(number: int, work) -> list:
    """What `number` threads that start together return."""
    gate, found = threading.Barrier(number), []

    def run() -> None:
        gate.wait()
        found.append(work())

    threads = [threading.Thread(target=run) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_calls_at_once_share_one_copy_and_new_ones_get_a_name_each(root):
    lesson = lab.course.lesson(3)
    assert {path.name for path in at_once(8, lambda: mine.fetch(lesson, root))} == {"03_mae.ipynb"}
    new = at_once(8, lambda: mine.fetch(lesson, root, new=True))
    assert sorted(path.name for path in new) == sorted(f"03_mae-{number}.ipynb" for number in range(2, 10))
    assert all(mine.load(path)["cells"] for path in new) and len(own(root)) == 9, "whole, and nothing left over"


# What goes wrong


@pytest.mark.parametrize("content", ["", '{"cells": [', "[]", '{"cells": 3}', '{"cells": [], "metadata": [1]}', '"x"'])
def test_a_damaged_copy_is_named_and_stays(root, started, capsys, content):
    copy = root / "notebooks" / "mine" / "03_mae.ipynb"
    copy.parent.mkdir()
    copy.write_text(content)
    assert main(["lab", "03"]) == 2 and not started
    shown = capsys.readouterr().err
    assert f"{copy} is damaged" in shown and "`make lab LESSON=03 NEW=1` makes a new copy" in shown
    assert main(["lab", "03", "--new"]) == 0 and copy.read_text() == content
    assert own(root) == ["03_mae-2.ipynb", "03_mae.ipynb"]


def test_a_damaged_published_notebook_keeps_nobody_from_a_copy(root, started, capsys):
    main(["lab", "03"])
    (root / "notebooks" / "03_mae.ipynb").write_text("{half")
    assert main(["lab", "03"]) == 0
    assert "`python -m lessons mine 03 --rescue`" in capsys.readouterr().out
    assert main(["lab", "03", "--new"]) == 2 and own(root) == ["03_mae.ipynb"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["lab", "12"], "numbered 1 to 11"),
        (["lab", "all"], "There is no lesson 'all'"),
        (["lab", "04"], "no notebook of lesson 04"),
        (["mine", "99"], "numbered 1 to 11"),
        (["mine", "--", "--no-browser"], "Only `lab` takes arguments after --"),
    ],
)
def test_an_error_is_one_clear_line(root, started, capsys, arguments, expected):
    assert main(arguments) == 2 and not started
    shown = capsys.readouterr().err
    assert shown.startswith("error: ") and expected in shown and len(shown.splitlines()) == 1


def test_a_file_where_the_folder_should_be_is_said(root, started, capsys):
    (root / "notebooks" / "mine").write_text("mine")
    assert main(["lab", "03"]) == 2 and not started
    assert "a file stands where a folder is needed" in capsys.readouterr().err
    assert (root / "notebooks" / "mine").read_text() == "mine"


@pytest.mark.parametrize(
    ("code", "expected"), [(errno.EACCES, "No permission"), (errno.EROFS, "No permission"), (errno.ENOSPC, "Disk full")]
)
def test_a_folder_that_cannot_be_written_is_said_with_a_way_out(root, started, capsys, monkeypatch, code, expected):
    def refused(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refused)
    assert main(["lab", "03"]) == 2 and not started
    shown = capsys.readouterr().err
    assert expected in shown and "put the checkout on a disk" in shown and "LESSONS_CACHE_DIR" not in shown
    assert own(root) == [], "no half copy"


@posix
def test_a_disk_that_is_really_full_leaves_no_half_copy(root):
    code = (
        "import resource, sys, pathlib; from lessons.commands import lab, mine; from lessons.__main__ import main\n"
        f"lab.checkout = lambda: pathlib.Path({str(root)!r})\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)); sys.exit(main(['lab', '03']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2 and "Disk full or quota reached" in done.stderr, done.stderr
    assert own(root) == []


def test_a_file_system_without_hard_links_will_do(root, started, monkeypatch):
    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    main(["lab", "03"])
    copy = root / "notebooks" / "mine" / "03_mae.ipynb"
    copy.write_text(copy.read_text().replace("print(1)", "my answer"))
    main(["lab", "03", "--new"])
    assert "my answer" in copy.read_text() and own(root) == ["03_mae-2.ipynb", "03_mae.ipynb"]


# What is started


def test_jupyterlab_gets_the_address_the_root_and_further_arguments(root, started, monkeypatch):
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", "/elsewhere")
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 0, raising=False)
    main(["lab", "03", "--", "--no-browser", "--port=8890"])
    monkeypatch.setattr(os, "geteuid", lambda: 1000, raising=False)
    main(["lab", "03"])
    (as_root, variables), (as_user, _) = started
    assert as_root[:3] == [sys.executable, "-m", "jupyterlab"] and f"--ServerApp.root_dir={root}" in as_root
    assert as_root[-3:] == ["--allow-root", "--no-browser", "--port=8890"] and "--allow-root" not in as_user
    assert variables["OMP_WAIT_POLICY"] == "PASSIVE"
    assert variables["JUPYTER_CONFIG_PATH"].split(os.pathsep) == [str(lab.DEFAULTS), "/elsewhere"]


def test_without_jupyterlab_it_says_how_to_get_it(root, started, monkeypatch, capsys):
    monkeypatch.setattr(lab.importlib.util, "find_spec", lambda name: None)
    assert main(["lab", "03"]) == 2 and not started
    assert "JupyterLab is not installed" in capsys.readouterr().err


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy of this checkout, committed."""
    target = copied(tmp_path_factory.mktemp("lab") / "a checkout")
    git(target, "init", "--quiet")
    git(target, "add", "--all")
    git(target, "commit", "--quiet", "--message", "all")
    return target


def connections(process: psutil.Process) -> list:
    """The connections of a process, in psutil of any age."""
    return process.net_connections() if hasattr(process, "net_connections") else process.connections()


@posix
def test_the_address_that_make_lab_prints_opens_the_copy(checkout, tmp_path):
    command = [program("make"), "lab", "LESSON=01", "ARGS=--no-browser"]
    with Server(command, checkout, environment(tmp_path / "home")) as server:
        assert server.path == "/lab/tree/notebooks/mine/01_resnet.ipynb"
        assert '"treePath": "notebooks/mine/01_resnet.ipynb"' in server.page()
        processes = psutil.Process(server.process.pid).children(recursive=True)
        ports = [one for process in processes for one in connections(process) if one.status == "LISTEN"]
        assert {one.laddr.ip for one in ports} in ({"127.0.0.1"}, {"127.0.0.1", "::1"}), "this machine only"

        answer = server.call("lab/api/settings/@jupyterlab/apputils-extension:notification")
        assert answer["schema"]["properties"]["fetchNews"]["default"] == "false", "no question at the first start"
        answer = server.call("lab/api/settings/@jupyter-widgets/jupyterlab-manager:plugin")
        assert answer["schema"]["properties"]["saveState"]["default"] is True

        # Saved as JupyterLab saves: the copy keeps what it remembers, and no file but the notebook is written.
        for place in ("notebooks/mine/01_resnet.ipynb", "notebooks/02_vit.ipynb"):
            model = server.call(f"api/contents/{place}")
            model["content"]["cells"][0]["source"] += "\nmy words"
            server.call(f"api/contents/{place}", {key: model[key] for key in ("type", "format", "content")})
    copy = json.loads((checkout / "notebooks" / "mine" / "01_resnet.ipynb").read_text())
    assert copy["metadata"]["lessons"]["version"] == __version__ and "my words" in "".join(copy["cells"][0]["source"])
    changed = git(checkout, "status", "--porcelain", "--untracked-files=all").splitlines()
    assert [line for line in changed if "server.log" not in line] == [" M notebooks/02_vit.ipynb"]
    git(checkout, "checkout", "notebooks/02_vit.ipynb")


def test_connections_are_read_with_an_old_and_a_new_psutil():
    assert connections(SimpleNamespace(connections=lambda: ["5.9"])) == ["5.9"]
    assert connections(SimpleNamespace(net_connections=lambda: ["7"])) == ["7"]


def test_a_program_that_is_missing_skips_the_test_that_asks_for_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(pytest.skip.Exception, match="git is not installed"):
        git(tmp_path, "status")


@posix
def test_nothing_that_make_does_touches_the_folder(checkout, tmp_path):
    make, folder = program("make"), checkout / "notebooks" / "mine"
    (folder / "__pycache__").mkdir(parents=True)
    files = {folder / "03_mae.ipynb": "not even a notebook", folder / "__pycache__" / "helper.txt": "mine"}
    for path, text in files.items():
        path.write_text(text)
    run = checkout / "build" / "01_resnet.ipynb"
    run.parent.mkdir(exist_ok=True)
    run.write_text("an hour of work")
    git(checkout, "stash", "--include-untracked")
    for target in ("notebooks", "clean"):
        done = subprocess.run([make, target], cwd=checkout, env=environment(tmp_path / "home"), capture_output=True)
        assert done.returncode == 0, done.stderr
    ready(checkout)  # `make clean` took it away
    git(checkout, "checkout", "--quiet", ".")
    assert {path: path.read_text() for path in files} == files
    assert run.read_text() == "an hour of work"
    for new, asked in {"NEW=1": True, "NEW=0": False, "NEW=": False}.items():
        planned = subprocess.run([make, "-n", "lab", new], cwd=checkout, capture_output=True, text=True).stdout
        assert ("--new" in planned) == asked, new
    listed = subprocess.run([make, "-n", "test"], cwd=checkout, capture_output=True, text=True).stdout
    assert "notebooks/*.ipynb" in listed and "notebooks " not in listed.replace("notebooks yet", "")


def test_a_kernel_in_the_folder_finds_the_package(checkout, monkeypatch):
    folder = checkout / "notebooks" / "mine"
    folder.mkdir(exist_ok=True)
    monkeypatch.setenv("PYTHONPATH", str(checkout))
    book = new_notebook(cells=[new_code_cell("import os, lessons\nprint(os.getcwd(), lessons.__file__, sep='\\n')")])
    NotebookClient(book, resources={"metadata": {"path": str(folder)}}).execute()
    assert book.cells[0].outputs[0].text.splitlines() == [str(folder), str(checkout / "lessons" / "__init__.py")]


def test_the_address_is_quoted(root, started):
    lab.start(root / "notebooks" / "mine" / "a b.ipynb", root, [])
    assert urlsplit(started[0][0][4].partition("=")[2]).path == "/lab/tree/notebooks/mine/a%20b.ipynb"

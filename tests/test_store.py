"""The cache: where it lies, that it is never half written, that damage is noticed, and what a person is told."""

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import save_file

from lessons import store
from lessons.errors import StorageError

HALF = torch.ones(2, dtype=torch.bfloat16)
TENSORS = {"weight": torch.arange(12.0).reshape(3, 4), "steps": torch.tensor(7), "half": HALF}


def test_cache_dir_obeys_the_variable_and_creates_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("LESSONS_CACHE_DIR", str(tmp_path / "elsewhere"))
    assert store.cache_dir("models", "a") == tmp_path / "elsewhere" / "models" / "a"
    assert not (tmp_path / "elsewhere").exists()


def test_cache_dir_of_a_checkout_and_of_an_installed_package(tmp_path, monkeypatch):
    monkeypatch.delenv("LESSONS_CACHE_DIR")
    for checkout in (True, False):
        root = tmp_path / ("checkout" if checkout else "site-packages")
        (root / "lessons").mkdir(parents=True)
        if checkout:
            (root / "pyproject.toml").touch()
            (root / "notebooks").mkdir()
        monkeypatch.setattr(store, "__file__", str(root / "lessons" / "store.py"))
        if checkout:
            assert store.cache_dir("x") == root / "data" / "x"
        else:
            assert "vision-to-language" in str(store.cache_dir("x")) and root not in store.cache_dir("x").parents


@pytest.mark.parametrize("checkout", [True, False])
def test_a_relative_folder_is_the_same_from_every_working_folder(tmp_path, monkeypatch, checkout):
    root = tmp_path / "course"
    (root / "notebooks").mkdir(parents=True)
    if checkout:
        (root / "pyproject.toml").touch()
    monkeypatch.setattr(store, "__file__", str(root / "lessons" / "store.py"))
    monkeypatch.setenv("LESSONS_CACHE_DIR", "my cache")
    monkeypatch.chdir(root / "notebooks")
    assert store.cache_dir("x") == (root if checkout else Path()) / "my cache" / "x"
    assert store.named_folder("~/sets") == Path.home() / "sets"


def test_atomic_writes_all_or_nothing(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with store.atomic(path) as partial:
        assert partial.parent == path.parent and partial.suffix == ".txt"
        partial.write_text("first")
        assert not path.exists()
    with pytest.raises(RuntimeError), store.atomic(path) as partial:
        partial.write_text("seco")
        raise RuntimeError("crash")
    assert path.read_text() == "first"
    assert os.listdir(path.parent) == ["file.txt"]


@pytest.mark.parametrize("links", [True, False], ids=["hard links", "no hard links"])
def test_create_makes_a_new_file_whole_and_writes_over_none(tmp_path, monkeypatch, links):
    def refused(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    if not links:
        monkeypatch.setattr(os, "link", refused)
    path = tmp_path / "new" / "file.txt"
    assert store.create(path, b"first") and not store.create(path, b"second")
    assert path.read_bytes() == b"first" and os.listdir(path.parent) == ["file.txt"]
    (path.parent / "nowhere.txt").symlink_to(tmp_path / "missing")
    assert not store.create(path.parent / "nowhere.txt", b"a link that leads nowhere is something too")


@pytest.mark.parametrize("links", [True, False], ids=["hard links", "no hard links"])
def test_create_leaves_nothing_where_the_disk_is_full(tmp_path, monkeypatch, links):
    calls = []

    def full(*_: object) -> None:
        calls.append(1)
        if links or len(calls) > 1:  # without links the file is written a second time, under its own name
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store.os, "fsync", full)
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "no links")))
    with pytest.raises(StorageError, match="Disk full.*or take the other stick"):
        store.create(tmp_path / "file.txt", b"content", elsewhere="take the other stick")
    assert os.listdir(tmp_path) == []


def test_create_closes_its_file_before_it_removes_it(tmp_path, monkeypatch):
    """Windows, where such a file system is at home, refuses to remove an open file; here psutil says what is open."""
    path, unlink, synced = tmp_path / "file.txt", Path.unlink, []

    def full(*_: object) -> None:
        synced.append(1)
        if len(synced) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")

    def as_on_windows(self: Path, missing_ok: bool = False) -> None:
        if str(self) in {file.path for file in psutil.Process().open_files()}:
            raise OSError(errno.EACCES, "The process cannot access the file because it is being used")
        unlink(self, missing_ok)

    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "no links")))
    monkeypatch.setattr(store.os, "fsync", full)
    monkeypatch.setattr(Path, "unlink", as_on_windows)
    with pytest.raises(StorageError, match="Disk full"):
        store.create(path, b"content")
    assert os.listdir(tmp_path) == []


def test_atomic_removes_what_killed_processes_left(tmp_path):
    old, fresh = tmp_path / ".a.1-ff.partial.json", tmp_path / ".a.2-ff.partial.json"
    old.touch()
    fresh.touch()
    os.utime(old, (0, 0))
    store.write_json(tmp_path / "a.json", {})
    assert not old.exists() and fresh.exists()


def test_json_round_trip_default_and_damage(tmp_path, capsys):
    path = tmp_path / "progress.json"
    assert store.read_json(path, {"done": []}) == {"done": []}
    store.write_json(path, {"done": ["1.1", "colour ☑"]})
    assert store.read_json(path, None) == {"done": ["1.1", "colour ☑"]}
    path.write_bytes(b'{"done": ["1.')
    assert store.read_json(path, "default") == "default"
    assert (tmp_path / "progress.json.damaged").read_bytes() == b'{"done": ["1.'
    message = capsys.readouterr().err
    assert "progress.json is damaged" in message and message.count("\n") == 1
    path.write_bytes(b"\xff\xfe\x00")
    assert store.read_json(path, 3) == 3


def test_every_damaged_file_is_kept(tmp_path):
    damaged = [f"{{half of file {number}" for number in range(3)]
    for text in damaged:
        (tmp_path / "progress.json").write_text(text)
        assert store.read_json(tmp_path / "progress.json", None) is None
    names = ("progress.json.damaged", "progress.json.damaged-2", "progress.json.damaged-3")
    assert [(tmp_path / name).read_text() for name in names] == damaged


def test_tensors_round_trip(tmp_path):
    path = tmp_path / "deep" / "model.safetensors"
    assert store.load_tensors(path) is None
    shared = torch.randn(4, 4)
    tensors = TENSORS | {"tied": shared, "tied too": shared, "view": shared.T, "empty": torch.zeros(0, 3)}
    store.save_tensors(path, tensors, {"settings": {"lr": 0.1, "name": "größe"}, "list": [1, None]})
    loaded, meta = store.load_tensors(path)
    assert meta == {"settings": {"lr": 0.1, "name": "größe"}, "list": [1, None]}
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(loaded[name], tensor) and loaded[name].dtype == tensor.dtype


def test_tensors_of_parameters_lose_their_gradient(tmp_path):
    net = torch.nn.Linear(3, 2)
    store.save_tensors(tmp_path / "a.safetensors", dict(net.named_parameters()), {})
    assert not store.load_tensors(tmp_path / "a.safetensors")[0]["weight"].requires_grad


@pytest.mark.skipif(os.name == "nt", reason="permission bits are those of POSIX")
def test_a_shared_cache_can_be_read_by_others(tmp_path):
    store.save_tensors(tmp_path / "a.safetensors", TENSORS, {})
    store.write_json(tmp_path / "a.json", {})
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "a.json").stat().st_mode


def flip(path):
    raw = bytearray(path.read_bytes())
    raw[-9] ^= 0x10
    path.write_bytes(raw)


@pytest.mark.parametrize(
    "damage",
    [
        flip,
        lambda path: path.write_bytes(path.read_bytes()[:-5]),
        lambda path: path.write_bytes(path.read_bytes()[:3]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\x80\x04\x95" + b"pickle" * 50),
        lambda path: save_file({"weight": torch.zeros(2)}, path),  # safetensors, but not written by us
    ],
    ids=["flipped bit", "cut off", "header cut off", "empty", "pickle", "foreign"],
)
def test_damaged_tensors_are_set_aside_never_returned(tmp_path, capsys, damage):
    path = tmp_path / "model.safetensors"
    store.save_tensors(path, TENSORS, {"a": 1})
    damage(path)
    assert store.load_tensors(path) is None
    assert not path.exists() and (tmp_path / "model.safetensors.damaged").exists()
    message = capsys.readouterr().err
    assert message.startswith("model.safetensors is damaged") and message.count("\n") == 1
    store.save_tensors(path, TENSORS, {"a": 2})
    assert store.load_tensors(path)[1] == {"a": 2}


@pytest.mark.parametrize(
    "code, phrase",
    [
        (errno.ENOSPC, "Disk full"),
        (errno.EDQUOT, "quota"),
        (errno.EACCES, "No permission"),
        (errno.EROFS, "No permission"),
    ],
)
def test_system_errors_become_advice_and_keep_the_old_file(tmp_path, monkeypatch, code, phrase):
    path = tmp_path / "a.json"
    store.write_json(path, "old")

    def refuse(*args):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(store.os, "fsync", refuse)
    for write in (lambda: store.write_json(path, "new"), lambda: store.save_tensors(path, TENSORS, {})):
        with pytest.raises(StorageError, match=phrase) as caught:
            write()
        assert str(path) in str(caught.value) and "LESSONS_CACHE_DIR" in str(caught.value)
    assert store.read_json(path, None) == "old" and os.listdir(tmp_path) == ["a.json"]


def test_a_full_disk_reported_by_safetensors_is_a_full_disk(tmp_path, monkeypatch):
    import safetensors.torch

    def full(*args, **kwargs):
        raise safetensors.SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(StorageError, match="Disk full"):
        store.save_tensors(tmp_path / "a.safetensors", TENSORS, {})
    assert os.listdir(tmp_path) == []


def test_other_errors_pass_unchanged(tmp_path):
    with pytest.raises(TypeError):
        store.write_json(tmp_path / "a.json", {1, 2})
    with pytest.raises(FileNotFoundError), store.atomic(tmp_path / "a"):
        pass  # nothing was written


def test_a_file_in_the_way_of_the_cache_is_named(tmp_path):
    (tmp_path / "cache").touch()
    with pytest.raises(StorageError, match="a file stands where a folder is needed"):
        store.write_json(tmp_path / "cache" / "a.json", {})


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_really_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="No permission"):
        store.write_json(tmp_path / "a.json", {})
    tmp_path.chmod(0o700)


def test_a_held_lock_is_named_and_then_free_again(tmp_path):
    path = tmp_path / "a.json"
    with store.locked(path):
        with pytest.raises(StorageError, match="a.json.lock"), store.locked(path, wait=0.05):
            pass
    with store.locked(path, wait=0.05):
        pass


def test_locked_sections_of_threads_do_not_mix(tmp_path):
    path = tmp_path / "count.json"
    store.write_json(path, 0)

    def work():
        for _ in range(10):
            with store.locked(path):
                store.write_json(path, store.read_json(path, None) + 1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert store.read_json(path, None) == 40


def test_a_file_system_without_locks_is_explained(tmp_path, monkeypatch):
    import filelock

    def none(self, *args, **kwargs):
        raise NotImplementedError("no flock")

    monkeypatch.setattr(filelock.FileLock, "acquire", none)
    with pytest.raises(StorageError, match="no file locks"), store.locked(tmp_path / "a"):
        pass


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    code = (
        "import os, sys; from lessons import store\n"
        "with store.locked(sys.argv[1]):\n    print('held', flush=True); os.kill(os.getpid(), 9)"
    )
    process = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")], capture_output=True, text=True)
    assert process.stdout == "held\n" and process.returncode != 0
    with store.locked(tmp_path / "a", wait=0.05):
        pass

"""Each fault is caused for real where that is possible: a clear error or a clean recovery, never a damaged cache."""

import errno
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from test_data import IMAGE, coco, encoded, fake_cifar, folder, online, picture, write, write_captions, write_cifar

from lessons import data, store
from lessons.data import hub, tables
from lessons.errors import DataError, StorageError

__all__ = ["folder", "online"]  # fixtures
COUNTS = {"train": 30, "val": 6, "test": 4}


def only(splits) -> str:
    return splits.train.source


# Files that are not what they should be


def test_wrong_columns_in_a_folder_name_what_was_expected_and_what_came(folder):
    images = pa.array([encoded(picture(i)) for i in range(4)], IMAGE)
    write(folder / "cifar10", "train-00000-of-00001.parquet", {"image": images, "label": [0, 1, 2, 3]})
    for source in ("auto", "real"):  # a folder was named: it is not passed over in silence
        with pytest.raises(DataError, match="Expected: img, label. Found: image, label. Missing: img"):
            data.pictures(source=source)


def test_wrong_contents_of_right_columns(folder):
    write(folder / "cifar10", "train.parquet", {"img": ["a", "b"], "label": [0, 1]})
    with pytest.raises(DataError, match="'img'.*type string.*Expected pictures"):
        data.pictures()
    images = pa.array([encoded(picture(i)) for i in range(2)], IMAGE)
    write(folder / "cifar10", "train.parquet", {"img": images, "label": [0, 10]})
    with pytest.raises(DataError, match="labels from 0 to 10. Expected 0 to 9"):
        data.pictures()
    write(folder / "cifar10", "train.parquet", {"img": images, "label": ["cat", "dog"]})
    with pytest.raises(DataError, match="'label'.*holds string. Expected whole numbers"):
        data.pictures()
    write(folder / "cifar10", "train.parquet", {"img": images.slice(0, 0), "label": pa.array([], pa.int64())})
    with pytest.raises(DataError, match="no rows"):
        data.pictures()
    write(folder / "coco-captions", "train.parquet", {"image": images, "captions": [["a"], []], "image_id": [1, 2]})
    with pytest.raises(DataError, match="Row 1 of COCO captions"):
        data.captions()


def test_a_half_written_parquet_file(folder):
    write_cifar(folder, train=600)
    file = folder / "cifar10" / "train-00000-of-00002.parquet"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(DataError, match="train-00000-of-00002.parquet is damaged or only half written.*Copy"):
        data.pictures()
    assert not list(store.cache_dir("pictures").glob("*.safetensors"))


def test_a_missing_file_of_a_folder(folder):
    write_cifar(folder)
    (folder / "cifar10" / "train-00001-of-00002.parquet").unlink()
    with pytest.raises(DataError, match="1 of 2 files train-"):
        data.pictures()


@pytest.mark.parametrize("codec", ["none", "snappy"])
def test_parquet_with_bytes_flipped_in_the_middle(folder, codec):
    write_cifar(folder, files=1)
    file = folder / "cifar10" / "train-00000-of-00001.parquet"
    pq.write_table(pq.read_table(file), file, compression=codec, use_dictionary=False)
    raw = bytearray(file.read_bytes())
    middle = slice(len(raw) // 4, len(raw) // 2)
    raw[middle] = bytes(byte ^ 0xFF for byte in raw[middle])
    file.write_bytes(raw)
    with pytest.raises(DataError, match="damaged"):
        data.pictures()
    assert not list(store.cache_dir("pictures").glob("*.safetensors"))


def test_a_damaged_cache_is_rebuilt(folder, capsys):
    write_cifar(folder)
    first = data.pictures(val=10)
    (path,) = store.cache_dir("pictures").glob("*.safetensors")
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    again = data.pictures(val=10)
    assert torch.equal(again.train.images, first.train.images) and only(again) == "folder"
    assert "is damaged" in capsys.readouterr().err
    data.pictures(val=10)
    assert "damaged" not in capsys.readouterr().err


def test_a_damaged_cache_and_no_source_left_falls_back_or_says_so(folder, monkeypatch):
    write_cifar(folder)
    data.pictures(val=10)
    (path,) = store.cache_dir("pictures").glob("*.safetensors")
    monkeypatch.delenv("LESSONS_DATA_DIR")
    path.write_bytes(path.read_bytes()[:-100])
    assert only(data.pictures(train=3, val=2, test=2)) == "built-in scenes"
    with pytest.raises(DataError, match="not found"):
        data.pictures(source="real")


# A cache that cannot be written


def test_a_full_disk_costs_the_cache_not_the_data(folder, monkeypatch, capsys):
    write_cifar(folder)

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store.os, "fsync", full)
    assert len(data.pictures(val=10).train) == 50
    assert "Not kept for the next start: Disk full" in capsys.readouterr().err
    assert [file.suffix for file in store.cache_dir("pictures").iterdir()] == [".lock"]


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are those of POSIX")
def test_a_write_that_the_system_really_refuses(folder):
    write_cifar(folder, train=300)
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))\n"
        "from lessons import data; print(len(data.pictures(val=10).train))"
    )
    done = python(code)
    assert done.stdout == "290\n" and "Not kept for the next start: Disk full or quota reached" in done.stderr
    assert not list(store.cache_dir("pictures").glob("*safetensors"))


def test_a_cache_without_permission_costs_the_cache_not_the_data(folder, monkeypatch, capsys):
    write_cifar(folder)
    monkeypatch.setattr(
        Path, "mkdir", lambda *args, **kwargs: (_ for _ in ()).throw(PermissionError(errno.EACCES, "no"))
    )
    assert len(data.pictures(val=10).train) == 50
    assert "Not kept for the next start: No permission" in capsys.readouterr().err


def test_a_cache_of_another_person_is_passed_over(folder, monkeypatch, capsys):
    write_cifar(folder)
    data.pictures(val=10)

    def forbidden(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("safetensors.safe_open", forbidden)
    assert len(data.pictures(val=10).train) == 50
    assert "No permission for" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read and write anything")
def test_files_that_really_may_not_be_read(folder):
    write_cifar(folder)
    (folder / "cifar10" / "train-00000-of-00002.parquet").chmod(0)
    with pytest.raises(DataError, match="No permission to read"):
        data.pictures()


def test_files_that_may_not_be_read(folder, monkeypatch):
    write_cifar(folder)

    def forbidden(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(pq, "ParquetFile", forbidden)
    with pytest.raises(DataError, match="No permission to read"):
        data.pictures()


# Several processes, and processes that die


def python(code: str, wait: bool = True):
    """Run code in a fresh interpreter that sees the same cache and folder."""
    root = Path(data.__file__).parents[2]
    env = os.environ | {"PYTHONPATH": str(root)}
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    if not wait:
        return process
    out, err = process.communicate(timeout=600)
    return subprocess.CompletedProcess(code, process.returncode, out, err)


def test_two_processes_build_one_cache_once(folder, tmp_path):
    write_cifar(folder)
    code = f"""
import os, time
from pathlib import Path
import filelock
from lessons import data
from lessons.data import tables
here, decode, acquire = Path({str(tmp_path)!r}), tables.decode, filelock.FileLock.acquire
def arriving(*args, **kwargs):
    (here / f"{{os.getpid()}}.arrived").touch()
    return acquire(*args, **kwargs)
def decoding(*args, **kwargs):
    with open(here / "log", "a") as file:
        file.write("decoded\\n")
    while len(list(here.glob("*.arrived"))) < 2:  # the other one stands at the lock by now
        time.sleep(0.01)
    return decode(*args, **kwargs)
filelock.FileLock.acquire, tables.decode = arriving, decoding
splits = data.pictures(source="real", val=10)
print(len(splits.train), int(splits.train.images.sum()), int(splits.test.labels.sum()))
"""
    both = [python(code, wait=False) for _ in range(2)]
    answers = [process.communicate(timeout=600) for process in both]
    assert answers[0][0] == answers[1][0] != "", answers
    assert (tmp_path / "log").read_text().count("decoded") == 2, "train and test, by one process only"


@pytest.mark.skipif(sys.platform == "win32", reason="signals are those of POSIX")
@pytest.mark.parametrize("moment", ["half of the file", "before the move"])
def test_a_process_killed_while_writing_leaves_no_damaged_cache(folder, moment):
    write_cifar(folder)
    kill = "os.kill(os.getpid(), 9)"
    patch = {
        "half of the file": f"safetensors.torch.save_file = lambda t, p, **k: (p.write_bytes(b'x' * 999), {kill})",
        "before the move": f"store.os.replace = lambda *args: {kill}",
    }[moment]
    done = python(
        f"import os, safetensors.torch; from lessons import data, store\n{patch}\ndata.pictures(val=10)\nprint('alive')"
    )
    assert done.returncode == -signal.SIGKILL and done.stdout == ""
    assert not list(store.cache_dir("pictures").glob("cifar10*.safetensors"))
    assert len(data.pictures(val=10).train) == 50
    assert list(store.cache_dir("pictures").glob("cifar10*.safetensors"))


# The hub


@pytest.fixture
def dead_hub(request, monkeypatch):
    """A local address that refuses, accepts and stays silent, or answers one byte at a time."""
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    # A refusal is waited for; the others never come to an answer.
    monkeypatch.setattr(hub, "ANSWER_SECONDS", 60 if request.param == "refuse" else 0.25)
    hub._refusal.cache_clear()
    held = []

    def accept():
        while True:
            try:
                held.append(server.accept()[0])
            except OSError:
                return
            if request.param == "drip":
                threading.Thread(target=drip, args=(held[-1],), daemon=True).start()

    def drip(connection):
        stop = threading.Event()
        for byte in b"HTTP/1.1 200 OK and then some":
            if stop.wait(0.1):
                return
            try:
                connection.send(bytes([byte]))
            except OSError:
                return

    if request.param == "refuse":
        server.close()
    else:
        server.listen()
        threading.Thread(target=accept, daemon=True).start()
    yield request.param
    server.close()
    for connection in held:
        connection.close()


def test_the_hub_is_given_up_in_less_than_the_promised_time():
    assert hub.ANSWER_SECONDS <= 2.5


@pytest.mark.parametrize("dead_hub", ["refuse", "silent", "drip"], indirect=True)
def test_a_dead_hub_is_given_up(dead_hub, capsys):
    assert data.available("cifar10") is None
    assert only(data.pictures(train=3, val=2, test=2)) == "built-in scenes"
    assert only(data.captions(train=3, val=2, test=2)) == "built-in scenes"
    reason = "cannot be reached" if dead_hub == "refuse" else "(no answer|cannot be reached)"
    with pytest.raises(DataError, match=f"(?s)the hub: .*127.0.0.1.*{reason}"):
        data.pictures(source="real")


def test_cifar_lost_on_the_way(online, capsys):
    error = RuntimeError("An error occurred while generating the dataset")
    error.__cause__ = ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
    online["uoft-cs/cifar10"] = error
    with pytest.raises(DataError, match="uoft-cs/cifar10 did not arrive.*Check the connection") as caught:
        data.pictures(source="real")
    assert "LESSONS_DATA_DIR is not set" in str(caught.value) and "the cache: " in str(caught.value)
    assert only(data.pictures(train=3, val=2, test=2)) == "built-in scenes"
    message = capsys.readouterr().err
    assert "did not arrive" in message and "built-in scenes" in message
    online["uoft-cs/cifar10"] = fake_cifar()
    assert only(data.pictures(val=5)) == "hub"


def test_cifar_from_a_hub_that_falls_silent(online, monkeypatch, capsys, request):
    silent, over = threading.Event(), threading.Event()
    request.addfinalizer(over.set)

    def load_dataset(repo):
        silent.set()
        over.wait()

    monkeypatch.setattr(hub, "load_dataset", load_dataset)
    monkeypatch.setattr(hub, "PROBE", 0.05)
    monkeypatch.setattr(hub, "unreachable", lambda repos, again=False: "no answer" if silent.is_set() else None)
    assert only(data.pictures(train=3, val=2, test=2)) == "built-in scenes"
    assert "nothing arrived for" in capsys.readouterr().err


def test_a_disk_that_fills_up_while_downloading(online):
    error = RuntimeError("An error occurred while generating the dataset")
    error.__context__ = OSError(errno.ENOSPC, "No space left on device")
    online["uoft-cs/cifar10"] = error
    with pytest.raises(StorageError, match="Disk full while downloading.*HF_HOME"):
        data.pictures(source="real")
    assert only(data.pictures(train=3, val=2, test=2)) == "built-in scenes"


def test_wrong_columns_or_splits_on_the_hub(online, capsys):
    online["uoft-cs/cifar10"] = fake_cifar().rename_column("img", "image")
    with pytest.raises(DataError, match="uoft-cs/cifar10, split train, .*Expected: img, label. Found: image, label"):
        data.pictures(source="real")
    online["uoft-cs/cifar10"] = {"train": fake_cifar()["train"]}
    with pytest.raises(DataError, match="Expected: train, test. Found: train"):
        data.pictures(source="real")
    online["uoft-cs/cifar10"] = fake_cifar(names=sorted(tables.CIFAR10, reverse=True))
    with pytest.raises(DataError, match="Expected, in order: airplane"):
        data.pictures(source="real")
    assert only(data.pictures(train=3, val=2, test=2)) == "built-in scenes"
    assert "Expected, in order" in capsys.readouterr().err


def test_wrong_columns_of_every_captions_repository_are_all_named(online):
    first, second, third = data.SETS["captions"].hub
    online[first] = {"val": coco()["val"].rename_column("answer", "captions")}
    online[second] = {"other": coco()["val"]}
    online[third] = {"validation": [{"image": "a.jpg", "caption": "text", "cocoid": 1}] * 3}
    with pytest.raises(DataError) as caught:
        data.captions(source="real", **COUNTS)
    text = str(caught.value)
    assert f"{first}, split val, has other columns" in text and "Missing: answer" in text
    assert f"{second} has the splits other" in text and f"{third} holds str. Expected pictures" in text


def test_the_next_repository_is_taken_when_one_has_changed(online):
    first, second, _ = data.SETS["captions"].hub
    online[first] = {"val": coco()["val"].rename_column("answer", "captions")}
    online[second] = {"test": [{"jpg": picture(i), "txt": f"picture {i}"} for i in range(60)]}
    assert only(data.captions(source="real", **COUNTS)) == "hub"


class Broken:
    """A stream that goes wrong at row `at`: raises `error`, or falls silent until the test is over."""

    silent, over = threading.Event(), threading.Event()  # small_shards gives each test its own

    def __init__(self, at: int, error: BaseException | None, first: int = 0):
        self.at, self.error, self.first, self.given = at, error, first, []

    def skip(self, rows: int):
        self.first = rows
        return self

    def __iter__(self):
        for number in range(self.first, 60):
            if number == self.at:
                if self.error is None:
                    self.silent.set()
                    self.over.wait()
                raise self.error or AssertionError("given up long ago")
            self.given.append(number)
            yield {"image": picture(number), "answer": [f"picture {number}"]}


class Box(queue.Queue):
    """A queue without a clock: to wait is in vain only when the stream has fallen silent."""

    def get(self, timeout: float):
        while True:
            silent = Broken.silent.is_set()  # asked first: what came before the silence is in the queue by then
            try:
                return super().get(timeout=0.01)
            except queue.Empty:
                if silent:
                    raise


@pytest.fixture
def small_shards(monkeypatch):
    over = threading.Event()
    monkeypatch.setattr(hub, "SHARD", 8)
    monkeypatch.setattr(hub, "queue", SimpleNamespace(Queue=Box, Empty=queue.Empty, Full=queue.Full))
    monkeypatch.setattr(Broken, "silent", threading.Event())
    monkeypatch.setattr(Broken, "over", over)
    yield
    over.set()


@pytest.mark.parametrize("error", [ConnectionError("Connection lost"), None], ids=["lost", "hangs"])
def test_a_stream_that_breaks_keeps_what_came_and_goes_on_later(online, small_shards, capsys, error):
    repo = data.SETS["captions"].hub[0]
    online[repo] = {"val": Broken(21, error)}
    assert only(data.captions(train=27, val=9, test=4, size=32)) == "built-in scenes"
    message = capsys.readouterr().err
    assert f"{repo} did not arrive" in message and ("Connection lost" if error else "nothing arrived for") in message
    rest = Broken(-1, None)
    online[repo] = {"val": rest}
    splits = data.captions(source="real", train=27, val=9, test=4, size=32)
    assert "Going on with 21 pictures" in capsys.readouterr().err and rest.given[0] == 21
    texts = sorted(int(texts[0].split()[1]) for part in splits for texts in part.captions)
    assert texts == list(range(40))


def test_an_interrupted_stream_is_kept(online, small_shards):
    repo = data.SETS["captions"].hub[0]
    online[repo] = {"val": Broken(13, KeyboardInterrupt())}
    with pytest.raises(KeyboardInterrupt):
        data.captions(**COUNTS)
    rest = Broken(-1, None)
    online[repo] = {"val": rest}
    assert only(data.captions(**COUNTS)) == "hub" and rest.given[0] == 13


def test_a_damaged_part_of_a_download_comes_anew(online, small_shards, capsys):
    repo = data.SETS["captions"].hub[0]
    online[repo] = {"val": Broken(21, ConnectionError("lost"))}
    data.captions(**COUNTS)
    files = sorted(store.cache_dir("captions").rglob("train-*.parquet"))
    assert len(files) == 3
    raw = bytearray(files[1].read_bytes())
    raw[len(raw) // 2] ^= 1
    files[1].write_bytes(raw)
    rest = Broken(-1, None)
    online[repo] = {"val": rest}
    splits = data.captions(source="real", **COUNTS)
    assert rest.given[0] == 8 and "is damaged" in capsys.readouterr().err
    assert len({texts[0] for part in splits for texts in part.captions}) == 40


def test_a_damaged_list_of_parts_starts_anew(online, small_shards):
    repo = data.SETS["captions"].hub[0]
    online[repo] = {"val": Broken(21, ConnectionError("lost"))}
    data.captions(**COUNTS)
    (state,) = store.cache_dir("captions").rglob("state.json")
    state.write_text('{"shards": [')
    rest = Broken(-1, None)
    online[repo] = {"val": rest}
    assert only(data.captions(source="real", **COUNTS)) == "hub" and rest.given[0] == 0


def test_a_full_disk_in_the_middle_of_a_stream(online, small_shards, monkeypatch):
    repo = data.SETS["captions"].hub[0]
    online[repo] = {"val": Broken(-1, None)}

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pq, "write_table", full)
        with pytest.raises(StorageError, match="Disk full"):
            data.captions(source="real", **COUNTS)
        assert only(data.captions(**COUNTS)) == "built-in scenes"
    assert only(data.captions(**COUNTS)) == "hub"


def test_without_a_connection_a_smaller_copy_in_the_cache_serves(online, monkeypatch, capsys):
    online[data.SETS["captions"].hub[0]] = {"val": Broken(-1, None)}
    data.captions(**COUNTS)
    monkeypatch.setattr(hub, "unreachable", lambda repos, again=False: "no answer")
    splits = data.captions(source="real", train=1000, val=6, test=4)
    assert only(splits) == "cache" and "30 train instead of 1,000" in splits.note


def test_captions_of_a_folder_with_a_broken_picture(folder):
    write_captions(folder)
    file = folder / "flickr8k-captions" / "train-00000-of-00001.parquet"
    rows = pq.read_table(file).to_pydict()
    rows["image"][7]["bytes"] = rows["image"][7]["bytes"][:60]
    write(file.parent, file.name, rows | {"image": pa.array(rows["image"], IMAGE)})
    with pytest.raises(DataError, match="Picture 7 of Flickr8k captions, train is damaged"):
        data.captions(size=32)

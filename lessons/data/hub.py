"""Public sets from the hub through `datasets`: CIFAR in one piece, captioned pictures as a resumable stream."""

import io
import math
import os
import queue
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from .. import bars, store
from ..errors import DataError, StorageError
from .tables import (
    PAIRS,
    SETS,
    PublicSet,
    Raw,
    blobs_of,
    check_columns,
    read_table,
    short_clip,
    square,
    to_raw,
)

ANSWER_SECONDS = 2.5  # for the hub to answer at all, name resolution included
PATIENCE = 90.0  # seconds without one new row after which a stream is given up; a block of rows may be 50 MB
PROBE, MISSES = 10.0, 2  # while nothing arrives the hub is asked every 10 s; two refusals in a row: connection lost
SHARD = 250  # pictures per file of a partial download
STORED = 128  # pixels of the short side as kept; smaller pictures are made from these
WAIT = 900.0  # seconds to wait for another process that is downloading the same


@dataclass(frozen=True)
class Stream:
    """A repository with captioned pictures: its splits (first one there is taken), the columns of picture and text, and
    the column that tells which rows show the same picture where there is one row per caption."""

    repo: str
    splits: tuple[str, ...]
    image: str
    text: str
    same: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.image, self.text, *([self.same] if self.same else []))


ESC50 = ("filename", "fold", "category", "audio")  # columns of ashraq/esc50 that are read
ESC50_NAMES = {"chirping_birds": "bird"}  # classes that other sets call by another name

STREAMS = {
    stream.repo: stream
    for stream in (
        Stream("lmms-lab/COCO-Caption2017", ("val", "validation"), "image", "answer"),
        Stream("clip-benchmark/wds_mscoco_captions", ("test", "train"), "jpg", "txt"),
        Stream("jxie/coco_captions", ("validation", "test", "train"), "image", "caption", "cocoid"),
    )
}


def load_dataset(*args: Any, **kwargs: Any) -> Any:
    """`datasets.load_dataset`, imported when it is needed (the import costs a second)."""
    import datasets

    return datasets.load_dataset(*args, **kwargs)


def endpoint() -> str:
    """Address of the hub: HF_ENDPOINT, as huggingface_hub reads it, or the public one."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"


def unreachable(repos: Sequence[str], again: bool = False) -> str | None:
    """None when the hub answers for one of these repositories, else the reason in words. One request each, given up
    after 2.5 s and remembered for the process; `again` asks anew."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        if os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE"):
            return f"switched off by {name}"
    if again:
        _refusal.cache_clear()
    reasons = []
    for repo in repos:
        reason = _refusal(endpoint(), repo)
        if reason is None:
            return None
        reasons.append(reason)
        if "answers" not in reason:  # no hub at all: the other repositories would only cost more time
            break
    return "; ".join(reasons)


@cache
def _refusal(address: str, repo: str) -> str | None:
    """Why `repo` cannot be had from the hub at `address`, or None. Asked in a thread, since neither name resolution nor
    a server that sends one byte a second respects a socket's time limit."""
    answer: queue.Queue[str | None] = queue.Queue()
    url = f"{address}/datasets/{repo}/resolve/main/README.md"  # what huggingface_hub itself asks for first

    def ask() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": "vision-to-language"})
            with urllib.request.urlopen(request, timeout=ANSWER_SECONDS, context=_certificates()):
                answer.put(None)
        except urllib.error.HTTPError as error:
            answer.put(f"{address} answers {error.code} for {repo}")
        except Exception as error:  # sockets, TLS, malformed answers: all mean no
            answer.put(f"{address} cannot be reached ({getattr(error, 'reason', None) or error})")

    threading.Thread(target=ask, daemon=True).start()
    try:
        return answer.get(timeout=ANSWER_SECONDS)
    except queue.Empty:
        return f"{address} gave no answer within {ANSWER_SECONDS:g} s"


def _certificates() -> ssl.SSLContext:
    """The system's certificates and certifi's: on macOS a fresh Python knows none of its own."""
    context = ssl.create_default_context()
    with suppress(ImportError):
        import certifi

        context.load_verify_locations(certifi.where())
    return context


def fetch(name: str, size: int, need: int) -> Raw:
    """The set `name`, decoded at `size` pixels; of captioned pictures at least `need` where there are so many. Raises
    DataError (lost connection, other columns) and StorageError (disk full); what has arrived is kept."""
    spec = SETS[name]
    if spec.kind == "captions":
        return _captioned(spec, size, need)
    if spec.kind == "sounds":
        return _esc50(spec)
    repo = spec.hub[0]
    store.say(f"Downloading {spec.title} from {endpoint()}/datasets/{repo} (once) ...")
    with _border(repo):
        whole = (load_dataset(name) for name in (repo,))  # a stream of one row, however long it takes
        loaded = next(_patiently(whole, repo, math.inf))
        check_columns(list(loaded), ("train", "test"), f"The list of splits of {repo}")
        parts = {}
        for part in ("train", "test"):
            check_columns(loaded[part].column_names, spec.columns, f"{repo}, split {part},")
            parts[part] = loaded[part].with_format("arrow")[:]
    return to_raw(spec, spec.title, parts, size)


def _esc50(spec: PublicSet) -> Raw:
    """ESC-50, its clips cut to two seconds at 16 kHz. The fifth fold is the test part: its authors cut the folds so
    that clips from one recording lie in one of them."""
    import pyarrow as pa
    import pyarrow.compute

    repo = spec.hub[0]
    store.say(f"Downloading {spec.title} from {endpoint()}/datasets/{repo} (once, almost a gigabyte) ...")
    with _border(repo):
        whole = (load_dataset(name) for name in (repo,))
        loaded = next(_patiently(whole, repo, math.inf))
        check_columns(list(loaded), ("train",), f"The list of splits of {repo}")
        check_columns(loaded["train"].column_names, ESC50, f"{repo}, split train,")
        table = loaded["train"].with_format("arrow")[:].select(list(ESC50))
        names, folds, categories = (table.column(key).to_pylist() for key in ESC50[:3])
        blobs = blobs_of(table, "audio", repo)
        shown = bars.bar(blobs, desc="ESC-50", unit=" clips")
        clips = [short_clip(clip, f"Clip {name} of {repo}") for clip, name in zip(shown, names, strict=True)]
        labels = [ESC50_NAMES.get(name, name.replace("_", " ")) for name in categories]
        made = pa.table({"audio_bytes": clips, "label": labels, "clip_id": names})
        last = pa.array([fold == max(folds) for fold in folds])
        parts = {"train": made.filter(pa.compute.invert(last)), "test": made.filter(last)}
    return to_raw(spec, spec.title, parts, 0)


@contextmanager
def _border(repo: str) -> Iterator[None]:
    """Turn whatever the libraries beyond raise into DataError or, for a full disk, StorageError."""
    try:
        yield
    except (DataError, StorageError):
        raise
    except Exception as error:
        chain, link = [], error
        while link and link not in chain:
            chain.append(link)
            link = link.__cause__ or link.__context__
        if any(isinstance(link, OSError) and link.errno in store.FULL for link in chain):
            raise StorageError(
                f"Disk full while downloading {repo}. Free some space, or set HF_HOME (downloads) and "
                "LESSONS_CACHE_DIR (the decoded copy) to folders on another disk."
            ) from error
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:240]
        raise DataError(
            f"{repo} did not arrive from {endpoint()} ({reason}). Check the connection and run this again, or set "
            "LESSONS_DATA=scenes to go on with the built-in scenes."
        ) from error


def _captioned(spec: PublicSet, size: int, need: int) -> Raw:
    """Captioned pictures from the first repository that gives them. Every tenth row is the test part, so that a longer
    download never moves a picture from test to train."""
    import pyarrow as pa

    problems = []
    for repo in spec.hub:
        try:
            table, complete = _download(STREAMS[repo], need)
            tenth = [row % 10 == 0 for row in range(len(table))]
            others = [row % 10 != 0 for row in range(len(table))]
            parts = {"train": table.filter(pa.array(others)), "test": table.filter(pa.array(tenth))}
            tensors, meta = to_raw(spec, spec.title, parts, size)
            return tensors, meta | {"rows": len(table), "complete": complete}
        except DataError as error:
            problems.append(str(error))
            if unreachable((repo,), again=True):  # the connection is lost: the others would fail likewise, slowly
                break
    raise DataError("\n".join(problems))


def _download(stream: Stream, need: int):
    """(table of at least `need` pictures where there are so many, whether it is all there is). What an earlier, broken
    run has brought is taken up; state.json names the whole shards and how far each reaches into the stream."""
    import pyarrow as pa

    folder = store.cache_dir("captions", f"coco-{STORED}", stream.repo.replace("/", "--"))
    with store.locked(folder / "state.json", wait=WAIT):
        state = store.read_json(folder / "state.json", {"shards": [], "complete": False})
        tables = []
        for entry in state["shards"]:
            try:
                tables.append(read_table(folder / entry["file"], PAIRS))
            except DataError as error:  # this shard and what follows it come anew
                store.set_aside(folder / entry["file"], str(error))
                state = {"shards": state["shards"][: len(tables)], "complete": False}
                break
        have = sum(map(len, tables))
        if have < need and not state["complete"]:
            if have:
                store.say(f"Going on with {have:,} pictures of {stream.repo} that are already here.")
            tables += _fill(stream, folder, state, have, need)
        if not sum(map(len, tables)):
            raise DataError(f"{stream.repo} gave no pictures.")
        return pa.concat_tables(tables), state["complete"]


def _fill(stream: Stream, folder: Path, state: dict[str, Any], have: int, need: int) -> list[Any]:
    """Stream on until `need` pictures are there; each full shard, and on any error the last broken one, is kept."""
    new: list[Any] = []
    pending: list[tuple[bytes, list[str], str, int]] = []

    def keep() -> None:
        if pending:
            new.append(_write_shard(folder, state, pending))
            pending.clear()

    done = state["shards"][-1]["seen"] if state["shards"] else 0
    rows = _patiently(_pictures(stream, done), stream.repo, PATIENCE)
    with _border(stream.repo), bars.bar(total=need, initial=have, desc="COCO captions", unit=" pictures") as bar:
        try:
            for row in rows:
                pending.append(row)
                bar.update()
                if len(pending) == SHARD:
                    keep()
                if bar.n >= need:
                    break
            else:
                state["complete"] = True
        finally:
            rows.close()
            keep()
            if state["shards"]:
                store.write_json(folder / "state.json", state)
    return new


def _write_shard(folder: Path, state: dict[str, Any], rows: list[tuple[bytes, list[str], str, int]]):
    """Write rows (JPEG, captions, id, rows of the stream seen) as one Parquet file and enter it in the state."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    images, captions, ids, seen = zip(*rows, strict=True)
    table = pa.table({"image": pa.array(images, pa.binary()), "captions": list(captions), "image_id": list(ids)})
    name = f"train-{len(state['shards']):05d}.parquet"
    with store.atomic(folder / name) as partial:
        pq.write_table(table, partial, write_page_checksum=True)
    state["shards"].append({"file": name, "rows": len(rows), "seen": seen[-1]})
    store.write_json(folder / "state.json", state)
    return table


def _pictures(stream: Stream, done: int) -> Iterator[tuple[bytes, list[str], str, int]]:
    """(JPEG, captions, id, rows of the stream seen) for each picture after the first `done` rows of the stream."""
    splits = load_dataset(stream.repo, streaming=True)
    split = next((name for name in stream.splits if name in splits), None)
    if split is None:
        raise DataError(
            f"{stream.repo} has the splits {', '.join(splits)}. Expected one of {', '.join(stream.splits)}."
        )
    waiting: tuple[Any, list[str], str] | None = None  # a picture whose further captions may still follow
    seen = done
    for row in splits[split].skip(done) if done else splits[split]:
        check_columns(list(row), stream.columns, f"{stream.repo}, split {split},")
        image, texts = row[stream.image], _sentences(row[stream.text], stream)
        if stream.same is None:
            yield _jpeg(image, stream), texts, str(seen), seen + 1
        elif waiting and waiting[2] == str(row[stream.same]):
            waiting[1].extend(texts)
        else:
            if waiting:
                yield _jpeg(waiting[0], stream), waiting[1], waiting[2], seen
            waiting = (image, texts, str(row[stream.same]))
        seen += 1
    if waiting:
        yield _jpeg(waiting[0], stream), waiting[1], waiting[2], seen


def _sentences(value: Any, stream: Stream) -> list[str]:
    """The captions in a cell: a list of strings, or one string with a caption per line."""
    lines = value.splitlines() if isinstance(value, str) else value
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise DataError(f"Column {stream.text!r} of {stream.repo} holds {str(value)[:60]!r}. Expected captions.")
    return [line.strip() for line in lines if line.strip()]


def _jpeg(picture: Any, stream: Stream) -> bytes:
    """A picture as JPEG, its short side scaled to STORED pixels and its centre cut out."""
    from PIL import Image

    if not isinstance(picture, Image.Image):
        raise DataError(f"Column {stream.image!r} of {stream.repo} holds {type(picture).__name__}. Expected pictures.")
    buffer = io.BytesIO()
    square(picture.convert("RGB"), STORED).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def _patiently(rows: Iterator[Any], repo: str, patience: float) -> Iterator[Any]:
    """The same rows, read ahead in a thread. TimeoutError when `patience` seconds pass without one, or when the hub
    stops answering: the libraries beyond go on trying for many minutes. Errors of the reader are raised here."""
    box: queue.Queue[tuple[str, Any]] = queue.Queue(maxsize=16)
    stop = threading.Event()

    def put(kind: str, value: Any = None) -> None:
        while not stop.is_set():
            with suppress(queue.Full):
                return box.put((kind, value), timeout=0.2)

    def read() -> None:
        try:
            for row in rows:
                put("row", row)
                if stop.is_set():
                    return
            put("end")
        except BaseException as error:
            put("error", error)

    threading.Thread(target=read, daemon=True).start()
    waited, misses = 0.0, 0
    try:
        while True:
            try:
                kind, value = box.get(timeout=min(PROBE, patience))
                waited, misses = 0.0, 0
            except queue.Empty:
                waited += min(PROBE, patience)
                misses = misses + 1 if unreachable((repo,), again=True) else 0
                if misses == MISSES or waited >= patience:
                    raise TimeoutError(f"nothing arrived for {waited:.0f} s") from None
                continue
            if kind == "error":
                raise value
            if kind == "end":
                return
            yield value
    finally:
        stop.set()

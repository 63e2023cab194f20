"""Public sets as Parquet tables: which there are, where a folder keeps them, and how their rows become tensors."""

import hashlib
import io
import json
import math
import os
import re
import wave
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import bars, store
from ..errors import DataError

Raw = tuple[dict[str, torch.Tensor], dict[str, Any]]  # tensors and lists of a whole set, as the cache keeps them

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
RATE = 16_000  # samples per second of every recording
CLIP_SECONDS = 2


@dataclass(frozen=True)
class PublicSet:
    """One data set: `title` for people, `kind` of its rows, the sub-folders of LESSONS_DATA_DIR that may hold it (first
    one wins), the columns it must have, the repositories of the hub that hold it, and its classes where they are known
    beforehand."""

    title: str
    kind: str
    folders: tuple[str, ...]
    columns: tuple[str, ...]
    hub: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()


PAIRS = ("image", "captions", "image_id")
CLIPS = ("audio_bytes", "label", "clip_id")
SETS = {
    "cifar10": PublicSet("CIFAR-10", "pictures", ("cifar10",), ("img", "label"), ("uoft-cs/cifar10",), CIFAR10),
    "cifar100": PublicSet(
        "CIFAR-100", "pictures", ("cifar100",), ("img", "fine_label", "coarse_label"), ("uoft-cs/cifar100",)
    ),
    "captions": PublicSet(
        "COCO captions",
        "captions",
        ("flickr8k-captions", "coco-captions"),
        PAIRS,
        ("lmms-lab/COCO-Caption2017", "clip-benchmark/wds_mscoco_captions", "jxie/coco_captions"),
    ),
    "flickr8k-captions": PublicSet("Flickr8k captions", "captions", ("flickr8k-captions",), PAIRS),
    "coco-captions": PublicSet("COCO captions", "captions", ("coco-captions",), PAIRS),
    "masks": PublicSet("COCO masks", "masks", ("coco-segmentation",), ("image", "mask", "objects", "image_id")),
    "sounds": PublicSet("animal and everyday sounds", "sounds", ("sounds",), CLIPS),
    "esc50": PublicSet("ESC-50 (CC BY-NC)", "sounds", ("esc50",), CLIPS, ("ashraq/esc50",)),
}


def data_dir() -> Path | None:
    """The folder LESSONS_DATA_DIR names, None when it is not set; a relative one counts from the root of the checkout.
    Raises DataError when it is set but is no folder or holds none of the sets."""
    named = os.environ.get("LESSONS_DATA_DIR", "").strip()
    if not named:
        return None
    root = store.named_folder(named)
    known = sorted({folder for spec in SETS.values() for folder in spec.folders})
    if root.is_dir() and not os.access(root, os.R_OK | os.X_OK):
        raise DataError(
            f"LESSONS_DATA_DIR is {named!r}, which may not be read. Make it readable, or unset the variable."
        )
    if not root.is_dir():
        where = "" if Path(named).is_absolute() else f" ({root})"
        raise DataError(f"LESSONS_DATA_DIR is {named!r}, which is no folder{where}. Correct it, or unset it.")
    if not any((root / folder).is_dir() for folder in known):
        holds = ", ".join(sorted(entry.name for entry in root.iterdir())[:8]) or "nothing"
        hint = " Name the folder above it." if root.name in known else ""
        hint = f" Name its sub-folder {root / 'data'}." if any((root / "data" / f).is_dir() for f in known) else hint
        raise DataError(
            f"LESSONS_DATA_DIR is {named!r}, which holds none of the known sets. Expected one or more of the folders "
            f"{', '.join(known)}; found: {holds}.{hint} Correct it, or unset it."
        )
    return root


def locate(spec: PublicSet) -> Path | None:
    """The folder of this set inside LESSONS_DATA_DIR, or None. Raises DataError as data_dir does."""
    root = data_dir()
    return next((root / name for name in spec.folders if (root / name).is_dir()), None) if root else None


def parquet_files(folder: Path) -> dict[str, list[Path]]:
    """The Parquet files of the parts "train" and "test" ("validation" counts as test), in order. Raises DataError when
    there is no training file or when a numbered file (`-00001-of-00002`) is missing."""
    parts: dict[str, list[Path]] = {}
    for part, prefixes in {"train": ("train",), "test": ("test", "validation")}.items():
        for prefix in prefixes:
            found = sorted([*folder.glob(f"{prefix}-*.parquet"), *folder.glob(f"{prefix}.parquet")])
            if found:
                parts[part] = found
                break
    for files in parts.values():
        counts = [re.search(r"-of-(\d+)\.parquet$", file.name) for file in files]
        expected = max((int(count[1]) for count in counts if count), default=len(files))
        if len(files) < expected:
            raise DataError(
                f"{folder} is incomplete: {len(files)} of {expected} files {files[0].name.split('-')[0]}-*.parquet are "
                "there. Copy the whole folder again."
            )
    if "train" not in parts:
        raise DataError(f"{folder} holds no train-*.parquet. Copy the folder again, or take it out of the way.")
    return parts


def signature(folder: Path, size: int) -> str:
    """A key that changes when a source file changes (name, size or time) or another size is asked for."""
    files = [file for files in parquet_files(folder).values() for file in files]
    facts = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(json.dumps([facts, size, 1]).encode()).hexdigest()[:16]


def check_columns(found: Sequence[str], expected: Sequence[str], where: str) -> None:
    """Raises DataError that names the expected and the found columns when one is missing."""
    if missing := [name for name in expected if name not in found]:
        raise DataError(
            f"{where} has other columns than expected. Expected: {', '.join(expected)}. Found: {', '.join(found)}. "
            f"Missing: {', '.join(missing)}. The set may have changed its layout, or it is another set; "
            "LESSONS_DATA=scenes goes on with the built-in pictures."
        )


def read_table(file: Path, columns: Sequence[str]):
    """One Parquet file as a pyarrow table of these columns. Raises DataError when it has other columns, is damaged or
    may not be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file, page_checksum_verification=True) as parquet:
            check_columns(parquet.schema_arrow.names, columns, str(file))
            return parquet.read(columns=list(columns))
    except PermissionError as error:
        raise DataError(f"No permission to read {file}. Make it readable (chmod a+r), or copy it.") from error
    except (pa.ArrowException, OSError) as error:
        raise damaged(file, error) from error


def damaged(place: object, error: object) -> DataError:
    """The error for a file that cannot be decoded."""
    reason = " ".join(str(error).split())[:160]
    return DataError(
        f"{place} is damaged or only half written ({reason}). Copy or download it again; LESSONS_DATA=scenes goes on "
        "with the built-in pictures meanwhile."
    )


def read_folder(spec: PublicSet, folder: Path) -> dict[str, Any]:
    """The parts "train" and, where there is one, "test" as pyarrow tables. Raises DataError as read_table does."""
    import pyarrow as pa

    parts = {}
    for part, files in parquet_files(folder).items():
        tables = [read_table(file, spec.columns) for file in files]
        try:
            parts[part] = pa.concat_tables(tables)
        except pa.ArrowException as error:
            raise damaged(f"{folder}/{part}-*.parquet", error) from error
        if not len(parts[part]):
            raise DataError(f"{folder}/{part}-*.parquet hold no rows. Copy the folder again.")
    return parts


def square(picture, size: int, nearest: bool = False):
    """A PIL picture scaled so that its short side is `size`, cut to the centre square (one resampling step)."""
    from PIL import Image

    if picture.size == (size, size):
        return picture
    width, height = picture.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    method = Image.Resampling.NEAREST if nearest else Image.Resampling.BICUBIC
    return picture.resize((size, size), method, box=(left, top, left + side, top + side))


def decode(blobs: Sequence[bytes], size: int, what: str, mode: str = "RGB") -> torch.Tensor:
    """Encoded pictures (JPEG, PNG) to uint8 (N, C, size, size), C = 3 for "RGB" and 1 for "L" (masks: nearest pixel).
    Threads share the work, since PIL decodes outside the interpreter lock. Raises DataError naming the picture that
    cannot be decoded."""
    from PIL import Image

    pixels = np.empty((len(blobs), size, size, len(mode)), dtype=np.uint8)

    def work(rows: range) -> int:
        for row in rows:
            try:
                with Image.open(io.BytesIO(blobs[row])) as picture:
                    small = square(picture.convert(mode), size, nearest=mode == "L")
                    pixels[row] = np.asarray(small).reshape(size, size, -1)
            except (OSError, ValueError, TypeError, SyntaxError, Image.DecompressionBombError) as error:
                raise damaged(f"Picture {row} of {what}", error) from error
        return len(rows)

    chunks = [range(start, min(start + 256, len(blobs))) for start in range(0, len(blobs), 256)]
    with (
        bars.bar(total=len(blobs), desc=f"Decoding {what}", unit=" pictures", delay=1, leave=False) as bar,
        ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool,
    ):
        try:
            for done in pool.map(work, chunks):
                bar.update(done)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


def blobs_of(table, column: str, where: str) -> list[bytes]:
    """The encoded pictures of an image column: struct<bytes, path> as `datasets` writes it, or plain binary."""
    import pyarrow.types as types

    kind = table.schema.field(column).type
    if types.is_struct(kind) and "bytes" in [kind.field(i).name for i in range(kind.num_fields)]:
        return [row["bytes"] if row else None for row in table.column(column).to_pylist()]
    if types.is_binary(kind) or types.is_large_binary(kind):
        return table.column(column).to_pylist()
    raise DataError(f"Column {column!r} of {where} has type {kind}. Expected pictures: struct<bytes, path> or binary.")


def class_names(table, column: str) -> tuple[str, ...]:
    """The names `datasets` stored for a ClassLabel column; empty when the table has none."""
    info = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
    feature = info.get("info", {}).get("features", {}).get(column, {})
    return tuple(feature.get("names", ())) if isinstance(feature, dict) else ()


def to_raw(spec: PublicSet, title: str, parts: dict[str, Any], size: int) -> Raw:
    """Tables of one set as tensors "<part>.images", "<part>.labels", ... and lists under the same kind of names in the
    meta, ready for the cache. Raises DataError when a row does not fit what the set should hold."""
    fill = {"pictures": _labelled, "captions": _captioned, "masks": _masked, "sounds": _recorded}[spec.kind]
    tensors: dict[str, torch.Tensor] = {}
    meta: dict[str, Any] = {"title": title, "lists": {}}
    fill(spec, title, parts, size, tensors, meta)
    return tensors, meta


def _labelled(spec, title, parts, size, tensors, meta) -> None:
    import pyarrow as pa

    image, label = spec.columns[:2]
    names = class_names(parts["train"], label)
    if spec.classes and names and names != spec.classes:
        raise DataError(f"{title} has the classes {', '.join(names)}. Expected, in order: {', '.join(spec.classes)}.")
    for table in parts.values():
        if not pa.types.is_integer(table.schema.field(label).type) or table.column(label).null_count:
            raise DataError(
                f"Column {label!r} of {title} holds {table.schema.field(label).type}. Expected whole numbers."
            )
    columns = {part: table.column(label).to_numpy().astype(np.int64) for part, table in parts.items()}
    low, high = min(map(np.min, columns.values())), max(map(np.max, columns.values()))
    meta["classes"] = spec.classes or names or tuple(f"class {k}" for k in range(high + 1))
    if low < 0 or high >= len(meta["classes"]):
        raise DataError(f"{title} has labels from {low} to {high}. Expected 0 to {len(meta['classes']) - 1}.")
    for part, table in parts.items():
        blobs = blobs_of(table, image, title)
        if blobs[0] and blobs[0][:2] == b"\xff\xd8" and "JPEG" not in meta["title"]:
            meta["title"] += " (JPEG copy)"  # the originals are lossless: results differ, so the name says it
        tensors[f"{part}.images"] = decode(blobs, size, f"{title}, {part}")
        tensors[f"{part}.labels"] = torch.from_numpy(columns[part])


def _captioned(spec, title, parts, size, tensors, meta) -> None:
    for part, table in parts.items():
        captions = table.column("captions").to_pylist()
        bad = next((i for i, row in enumerate(captions) if not isinstance(row, list) or not any(row)), None)
        if bad is not None:
            raise DataError(f"Row {bad} of {title}, {part}, has the captions {captions[bad]!r}. Expected strings.")
        tensors[f"{part}.images"] = decode(blobs_of(table, "image", title), size, f"{title}, {part}")
        meta["lists"][f"{part}.captions"] = [[text.strip() for text in row if text] for row in captions]
        meta["lists"][f"{part}.ids"] = [str(value) for value in table.column("image_id").to_pylist()]


def _masked(spec, title, parts, size, tensors, meta) -> None:
    for part, table in parts.items():
        masks = decode(blobs_of(table, "mask", title), size, f"{title}, masks", mode="L")
        tensors[f"{part}.images"] = decode(blobs_of(table, "image", title), size, f"{title}, {part}")
        tensors[f"{part}.masks"] = masks[:, 0] > 127
        objects = table.column("objects").to_pylist()
        meta["lists"][f"{part}.objects"] = [[thing["category"] for thing in row or ()] for row in objects]
        meta["lists"][f"{part}.ids"] = [str(value) for value in table.column("image_id").to_pylist()]


def _recorded(spec, title, parts, size, tensors, meta) -> None:
    labels = {part: table.column("label").to_pylist() for part, table in parts.items()}
    meta["classes"] = sorted({name for names in labels.values() for name in names})
    for part, table in parts.items():
        clips = table.column("audio_bytes").to_pylist()
        tensors[f"{part}.waves"] = torch.zeros(len(clips), RATE * CLIP_SECONDS)
        tensors[f"{part}.lengths"] = torch.zeros(len(clips), dtype=torch.int64)
        for row, clip in enumerate(clips):
            samples = _samples(clip, f"Clip {row} of {title}, {part}")[: RATE * CLIP_SECONDS]
            tensors[f"{part}.waves"][row, : len(samples)] = samples
            tensors[f"{part}.lengths"][row] = len(samples)
        tensors[f"{part}.labels"] = torch.tensor([meta["classes"].index(name) for name in labels[part]])
        meta["lists"][f"{part}.ids"] = [str(value) for value in table.column("clip_id").to_pylist()]


def short_clip(clip: bytes, what: str) -> bytes:
    """Any 16-bit WAV file as this package keeps sounds: 16 kHz, mono, the two seconds with most energy, the peak at
    0.9. Raises DataError where it is none."""
    from scipy.signal import resample_poly

    try:
        with wave.open(io.BytesIO(clip)) as file:
            rate, channels, bits = file.getframerate(), file.getnchannels(), 8 * file.getsampwidth()
            frames = file.readframes(file.getnframes())
    except (wave.Error, EOFError, TypeError) as error:
        raise damaged(what, error) from error
    if bits != 16 or not frames:
        raise DataError(f"{what} has {bits} bit and {len(frames)} bytes of sound. Expected 16 bit, and some sound.")
    samples = np.frombuffer(frames, "<i2").reshape(-1, channels).mean(1) / 32768
    common = math.gcd(rate, RATE)
    samples = resample_poly(samples, RATE // common, rate // common)
    length = RATE * CLIP_SECONDS
    if len(samples) > length:
        energy = np.concatenate(([0.0], np.cumsum(samples**2)))
        start = int(np.argmax(energy[length:] - energy[:-length]))
        samples = samples[start : start + length]
    samples = samples * (0.9 / max(np.abs(samples).max(), 1e-9))
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, RATE, len(samples), "NONE", ""))
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return buffer.getvalue()


def _samples(clip: bytes, what: str) -> torch.Tensor:
    """A WAV file (16 kHz, mono, 16 bit) as float32 in [-1, 1]."""
    try:
        with wave.open(io.BytesIO(clip)) as file:
            form = (file.getframerate(), file.getnchannels(), 8 * file.getsampwidth())
            frames = file.readframes(file.getnframes())
    except (wave.Error, EOFError, TypeError) as error:
        raise damaged(what, error) from error
    if form != (RATE, 1, 16):
        raise DataError(f"{what} has {form[0]} Hz, {form[1]} channels, {form[2]} bit. Expected {RATE} Hz, 1, 16 bit.")
    return torch.from_numpy(np.frombuffer(frames, "<i2") / np.float32(32768))

"""One door to data: real sets from a folder, the cache or the hub, and the built-in scenes when there are none."""

import re
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import torch

from .. import rehearsal, store
from ..errors import DataError, SettingError, StorageError
from . import hub, tables
from .rows import Captioned, Masked, Pictures, R, Recordings, Splits
from .tables import SETS, Raw

__all__ = [
    "SETS",
    "Captioned",
    "Masked",
    "Pictures",
    "Recordings",
    "Splits",
    "available",
    "captions",
    "how_to_get",
    "masks",
    "pictures",
    "recordings",
    "title",
]

SOURCES = ("auto", "real", "scenes")
BUILT_IN = "built-in scenes"
SCENES = {"train": 20_000, "val": 5_000, "test": 5_000}  # pictures rendered where no number is asked for
STREAM = 4_000  # captioned pictures taken from the hub where no number is asked for
WAIT = 900.0  # seconds that one process waits while another downloads or decodes


def pictures(
    name: str = "cifar10",
    *,
    source: str = "auto",
    train: int | None = None,
    val: int = 5000,
    test: int | None = None,
    size: int = 32,
    seed: int = 0,
    world: str = "things",
    device: torch.device | str = "cpu",
) -> Splits[Pictures]:
    """Labelled pictures of `size` pixels: `name` "cifar10" or "cifar100", or scenes of `world`. `train`, `val`, `test`
    are numbers of pictures, None for all; val is cut from the training part by `seed` and does not depend on `train`.
    Less comes where there is less: one line says so and Splits.note keeps it. source "auto" takes the first of
    LESSONS_DATA_DIR, cache, hub, scenes; "real" never takes scenes; "scenes" takes nothing else. Raises SettingError
    (an argument) and DataError (nothing found with "real"; a folder that is damaged or has other columns)."""
    counts = _checked(name, "pictures", source, size, train=train, val=val, test=test)
    found = _find(name, size=32, source=source)
    if found is None:
        return _scenes(counts, seed, lambda n, first: _render(world, n, seed, size, first, device).pictures())
    raw, place = found

    def rows(part: str, index: torch.Tensor) -> Pictures:
        images = _resized(raw[0][f"{part}.images"][index], size)
        classes = tuple(raw[1]["classes"])
        return Pictures(images, raw[0][f"{part}.labels"][index], classes, raw[1]["title"], place).to(device)

    return _split(raw, counts, seed, rows)


def captions(
    name: str = "captions",
    *,
    source: str = "auto",
    train: int | None = None,
    val: int = 500,
    test: int | None = None,
    size: int = 64,
    seed: int = 0,
    world: str = "pairs",
    device: torch.device | str = "cpu",
) -> Splits[Captioned]:
    """Pictures with several captions each: COCO from the hub, or Flickr8k or COCO from a folder (`name` "captions"
    takes what is there, "flickr8k-captions" and "coco-captions" insist), or scenes of `world`. The short side becomes
    `size`, the centre is kept. The other arguments, what happens where there is less, and errors: as in `pictures`."""
    counts = _checked(name, "captions", source, size, train=train, val=val, test=test)
    found = _find(name, size=size, source=source, need=_streamed(counts))
    if found is None:

        def draw(n: int, first: int) -> Captioned:
            made = _render(world, n, seed, size, first, device)
            ids = [f"scene-{seed}-{first + i}" for i in range(n)]
            return Captioned(made.images, made.captions(), ids, "scenes", BUILT_IN)

        return _scenes(counts, seed, draw)
    raw, place = found

    def rows(part: str, index: torch.Tensor) -> Captioned:
        texts, ids = (_listed(raw, part, key, index) for key in ("captions", "ids"))
        images = _resized(raw[0][f"{part}.images"][index], size)
        return Captioned(images, texts, ids, raw[1]["title"], place).to(device)

    return _split(raw, counts, seed, rows)


def masks(
    *,
    train: int | None = None,
    val: int = 50,
    test: int = 50,
    size: int = 64,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Splits[Masked]:
    """COCO pictures with the mask of all annotated objects, from a folder or the cache. There is no stand-in: scenes
    know their own masks exactly (`Scenes.masks`). Arguments and errors as in `pictures` with source "real"."""
    counts = _checked("masks", "masks", "real", size, train=train, val=val, test=test)
    raw, place = _find("masks", size=size, source="real")

    def rows(part: str, index: torch.Tensor) -> Masked:
        names, ids = (_listed(raw, part, key, index) for key in ("objects", "ids"))
        images = _resized(raw[0][f"{part}.images"][index], size)
        covered = _resized(raw[0][f"{part}.masks"][index].to(torch.uint8)[:, None] * 255, size)[:, 0] > 127
        return Masked(images, covered, names, ids, raw[1]["title"], place).to(device)

    return _split(raw, counts, seed, rows)


def recordings(
    name: str = "sounds",
    *,
    source: str = "real",
    train: int | None = None,
    val: int = 50,
    test: int | None = None,
    seed: int = 0,
    world: str = "big",
    device: torch.device | str = "cpu",
) -> Splits[Recordings]:
    """Short sounds with the name of what makes them: `name` "sounds" from a folder or the cache, or "esc50" (ESC-50,
    50 classes, non-commercial use only; almost a gigabyte) also from the hub. Scenes of `world` stand in with the
    sounds of their objects, named by shape, where `source` allows it; by default only recordings will do. The other
    arguments and errors as in `pictures`."""
    counts = _checked(name, "sounds", source, 32, train=train, val=val, test=test)
    found = _find(name, size=0, source=source)
    if found is None:
        counts = {part: 500 if count is None else count for part, count in counts.items()}
        return _scenes(counts, seed, lambda n, first: _sung(world, n, seed, first).to(device))
    raw, place = found

    def rows(part: str, index: torch.Tensor) -> Recordings:
        columns = [raw[0][f"{part}.{key}"][index] for key in ("waves", "lengths", "labels")]
        ids = _listed(raw, part, "ids", index)
        return Recordings(*columns, tuple(raw[1]["classes"]), ids, raw[1]["title"], place).to(device)

    return _split(raw, counts, seed, rows)


def _sung(world: str, n: int, seed: int, first: int) -> Recordings:
    """The sounds of n scenes in the form of recordings: two seconds at 16 kHz, silent after the object has ended."""
    from .scenes import classes

    made = _render(world, n, seed, 8, first, "cpu")
    sounds = made.sounds(rate=tables.RATE)
    waves = torch.nn.functional.pad(sounds, (0, tables.RATE * tables.CLIP_SECONDS - sounds.shape[1]))
    ids = [f"scene-{seed}-{first + i}" for i in range(n)]
    lengths = torch.full((n,), sounds.shape[1])
    return Recordings(waves, lengths, made.labels("shape"), classes("shape"), ids, "scenes", BUILT_IN)


def available(name: str) -> str | None:
    """Where the set `name` of SETS can be had now: "folder", "cache", "hub", or None. Takes three seconds at most;
    whether the hub answers is asked once per process. Raises SettingError for an unknown name, DataError for a
    LESSONS_DATA_DIR that is no folder or holds no known set."""
    spec = _spec(name)
    if tables.locate(spec):
        return "folder"
    if any(path.is_file() for path in _cached_files(name)):
        return "cache"
    return "hub" if spec.hub and hub.unreachable(spec.hub) is None else None


def title(name: str) -> str:
    """What the set `name` of SETS is called here: a folder may hold another set of its kind (Flickr8k for COCO)."""
    spec = _spec(name)
    folder = tables.locate(spec)
    return SETS[folder.name].title if folder and folder.name in SETS else spec.title


def how_to_get(name: str) -> str:
    """A message for a human: each place that was tried for the set `name`, and what to do."""
    spec = _spec(name)
    return _places(name, (hub.unreachable(spec.hub) or "answers") if spec.hub else "this set is not fetched from it")


def _places(name: str, asked: str) -> str:
    """Each place that was tried, `asked` being what the hub said, and what to do."""
    spec = SETS[name]
    named = tables.data_dir()
    missing = f"{named} has no folder {' or '.join(spec.folders)}" if named else "LESSONS_DATA_DIR is not set"
    connect = "Connect to the internet, or put" if spec.hub else "Put"
    return (
        f"{spec.title}: not found. Tried\n"
        f"  the folder: {missing}\n"
        f"  the cache:  nothing in {store.cache_dir(spec.kind)}\n"
        f"  the hub:    {asked}\n"
        f"{connect} the folder {spec.folders[0]}/ with its Parquet files into some folder and name that folder in "
        "LESSONS_DATA_DIR, or set LESSONS_DATA=scenes to go on with the built-in scenes."
    )


def _spec(name: str, kind: str | None = None) -> tables.PublicSet:
    allowed = [key for key, spec in SETS.items() if kind in (None, spec.kind)]
    if name not in allowed:
        raise SettingError(f"There is no set {name!r} here. Choose one of: {', '.join(allowed)}.")
    return SETS[name]


def _checked(name: str, kind: str, source: str, size: int, **counts: int | None) -> dict[str, int | None]:
    """The counts, after every argument was held against what is allowed."""
    _spec(name, kind)
    if source not in SOURCES:
        raise SettingError(f"source is {source!r}. Choose one of: {', '.join(SOURCES)}.")
    if size < 8 or size > 512:
        raise SettingError(f"size is {size}. Expected 8 to 512 pixels.")
    counts = {part: rehearsal.rows(count) if part in ("train", "test") else count for part, count in counts.items()}
    for part, count in counts.items():
        if (count is None and part == "val") or (count is not None and count < (part == "train")):
            raise SettingError(
                f"{part} is {count}. Expected a number of rows{'' if part == 'val' else ', or None for all'}."
            )
    return counts


def _cached_files(name: str, size: int | None = None) -> list[Path]:
    """Decoded copies of a set in the cache. Those of this size come first, then larger before smaller; at one size, the
    copy made from the hub, which has the originals, before the one made from a folder."""
    spec = SETS[name]
    stems = [f"{name}-*.safetensors", *(f"{folder}-*-folder.safetensors" for folder in spec.folders)]
    files = [file for stem in stems for file in store.cache_dir(spec.kind).glob(stem)]

    def rank(file: Path) -> tuple[bool, int, bool]:
        stored = int(re.search(r"-(\d+)(-folder)?$", file.stem)[1])
        return stored != size, -stored, file.stem.endswith("-folder")

    return sorted({file for file in files if re.search(r"-\d+(-folder)?$", file.stem)}, key=rank)


def _find(name: str, *, size: int, source: str, need: int = 0) -> tuple[Raw, str] | None:
    """The whole set, decoded, and its place; None for the scenes. Raises DataError where there has to be a real one."""
    if source == "scenes":
        return None
    spec = SETS[name]
    if folder := tables.locate(spec):
        return _from_folder(spec, folder, size), "folder"

    def enough(meta: dict) -> bool:
        return meta.get("complete", True) or meta["rows"] >= need

    kept = next((raw for file in _cached_files(name, size) if (raw := _read(file))), None)
    if kept and enough(kept[1]):
        return kept, "cache"
    if spec.hub and hub.unreachable(spec.hub, again=source == "real") is None:
        path = store.cache_dir(spec.kind, f"{name}-{size}.safetensors")
        try:
            return _kept(path, lambda: hub.fetch(name, size, need), enough), "hub"
        except (DataError, StorageError) as error:
            if source == "real" and not kept:
                raise type(error)(_places(name, str(error))) from error
            store.say(str(error))
    if kept:
        return kept, "cache"
    if source == "real":
        raise DataError(how_to_get(name))
    store.say(f"{spec.title}: not in LESSONS_DATA_DIR, not in the cache, not from the hub; taking the built-in scenes.")
    return None


def _from_folder(spec: tables.PublicSet, folder: Path, size: int) -> Raw:
    name = SETS[folder.name].title if folder.name in SETS else spec.title
    key = tables.signature(folder, size)

    def build() -> Raw:
        tensors, meta = tables.to_raw(spec, name, tables.read_folder(spec, folder), size)
        return tensors, meta | {"key": key}

    path = store.cache_dir(spec.kind, f"{folder.name}-{size}-folder.safetensors")
    return _kept(path, build, lambda meta: meta.get("key") == key)


def _read(path: Path) -> Raw | None:
    """What the cache holds; a file that may not be read (another person's) counts as none, with a line that says so."""
    try:
        return store.load_tensors(path)
    except StorageError as error:
        store.say(str(error))
        return None


def _kept(path: Path, build: Callable[[], Raw], valid: Callable[[dict], bool]) -> Raw:
    """What the cache holds at `path` if it is valid, else what `build` makes, kept there. One process builds, others
    wait; where the cache cannot be written, the data is used all the same and one line says that it is not kept."""
    if (raw := _read(path)) and valid(raw[1]):
        return raw
    with ExitStack() as stack:
        try:
            stack.enter_context(store.locked(path, wait=WAIT))
        except StorageError as error:
            store.say(f"Not kept for the next start: {error}")
            return build()
        if (raw := _read(path)) and valid(raw[1]):  # another process was faster
            return raw
        raw = build()
        try:
            store.save_tensors(path, *raw)
        except StorageError as error:
            store.say(f"Not kept for the next start: {error}")
        return raw


def _split(raw: Raw, counts: dict[str, int | None], seed: int, rows: Callable[[str, torch.Tensor], R]) -> Splits[R]:
    """Cut a set into three. test: its own part, in stored order, or, where it has none, up to a quarter of the training
    part. val: cut from what is left of the training part, at most half of it. train: the rest."""
    have = {key.split(".")[0]: len(value) for key, value in raw[0].items()}
    pool = torch.randperm(have["train"], generator=torch.Generator().manual_seed(seed))
    if test_part := "test" if have.get("test") else "":
        test = torch.arange(have["test"])
    else:
        test = pool[: len(pool) // 4][: counts["test"]]
        pool = pool[len(test) :]
    val = pool[: len(pool) // 2][: counts["val"]]
    whole = {"train": pool[len(val) :], "val": val, "test": test}
    index = {part: rows_of[: counts[part]] for part, rows_of in whole.items()}
    short = [f"{len(index[p]):,} {p} instead of {n:,}" for p, n in counts.items() if len(index[p]) < (n or 0)]
    note = f"{raw[1]['title']}: this copy gives {', '.join(short)}." if short else ""
    if note:
        store.say(note)
    parts = {"train": "train", "val": "train", "test": test_part or "train"}
    return Splits(**{part: rows(parts[part], index[part]) for part in parts}, note=note)


def _listed(raw: Raw, part: str, key: str, index: torch.Tensor) -> list:
    values = raw[1]["lists"][f"{part}.{key}"]
    return [values[row] for row in index.tolist()]


def _resized(images: torch.Tensor, size: int) -> torch.Tensor:
    """uint8 (N, 3, H, H) to (N, 3, size, size): bicubic, antialiased, a chunk at a time."""
    if not len(images) or images.shape[-1] == size:
        return images
    scale = torch.nn.functional.interpolate
    chunks = (scale(part.float(), (size, size), mode="bicubic", antialias=True) for part in images.split(1024))
    return torch.cat([part.round().clamp(0, 255).to(torch.uint8) for part in chunks])


def _streamed(counts: dict[str, int | None]) -> int:
    """Rows to take from the hub so that nine tenths hold train and val, and one tenth test."""
    train = STREAM if counts["train"] is None else counts["train"]
    return max(-(-(train + (counts["val"] or 0)) * 10 // 9), 10 * (counts["test"] or 0))


def _render(world: str, n: int, seed: int, size: int, first: int, device: torch.device | str):
    from .scenes import render

    return render(world, n, seed=seed, size=size, first=first, device=device)


def _scenes(counts: dict[str, int | None], seed: int, draw: Callable[[int, int], R]) -> Splits[R]:
    """Three ranges of one endless sequence, far apart, so that test is the same for every number of training rows."""
    wanted = {part: SCENES[part] if count is None else count for part, count in counts.items()}
    starts = {"train": 0, "val": 10_000_000, "test": 20_000_000}
    return Splits(**{part: draw(wanted[part], starts[part]) for part in starts})

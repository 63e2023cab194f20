"""The one door to data: folder, cache, hub, scenes; three disjoint splits; honest names. All pictures are generated."""

import io
import os
import threading
import wave
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from lessons import data, store
from lessons.data import hub, tables
from lessons.errors import DataError, SettingError

REAL_FOLDER = os.environ.get("LESSONS_DATA_DIR")  # read before the fixture hides it
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def picture(number: int, size=(32, 32)) -> Image.Image:
    """A flat picture whose colour is its number, so that every row can be told from every other."""
    return Image.new("RGB", size, (number % 256, number // 256, 40))


def encoded(image: Image.Image, form: str = "PNG") -> dict:
    buffer = io.BytesIO()
    image.save(buffer, form)
    return {"bytes": buffer.getvalue(), "path": None}


def numbers(images: torch.Tensor) -> list[int]:
    """The numbers of flat pictures."""
    corner = images[:, :, 0, 0].long()
    return (corner[:, 0] + 256 * corner[:, 1]).tolist()


def write(folder, name: str, columns: dict) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), folder / name)


def write_cifar(root, train=60, test=20, form="PNG", files=2):
    """cifar10/ with `files` training files; row i is picture i and has label i % 10, test rows go on counting."""
    per = train // files
    parts = [(f"train-{k:05d}-of-{files:05d}.parquet", range(k * per, (k + 1) * per)) for k in range(files)]
    for name, rows in [*parts, ("test-00000-of-00001.parquet", range(train, train + test))]:
        images = pa.array([encoded(picture(i), form) for i in rows], IMAGE)
        write(root / "cifar10", name, {"img": images, "label": [i % 10 for i in rows]})
    return root


def write_captions(root, folder="flickr8k-captions", train=30, validation=10, size=(48, 32)):
    for part, rows in (("train", range(train)), ("validation", range(train, train + validation))):
        columns = {
            "image": pa.array([encoded(picture(i, size)) for i in rows], IMAGE),
            "captions": [[f"picture {i}", f"number {i} "] for i in rows],
            "image_id": [f"id-{i}" for i in rows],
        }
        write(root / folder, f"{part}-00000-of-00001.parquet", columns)
    return root


def wav(value: int, samples: int = 800, rate: int = 16_000) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, rate, samples, "NONE", ""))
        file.writeframes(np.full(samples, value, "<i2").tobytes())
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder that LESSONS_DATA_DIR names."""
    root = tmp_path / "sets"
    root.mkdir()
    monkeypatch.setenv("LESSONS_DATA_DIR", str(root))
    return root


def test_pictures_of_a_folder(folder):
    splits = data.pictures(source="real", val=10) if write_cifar(folder) else None
    train, val, test = splits
    assert (len(train), len(val), len(test)) == (50, 10, 20)
    assert train.images.dtype == torch.uint8 and train.images.shape == (50, 3, 32, 32) and train.images.is_contiguous()
    assert train.labels.dtype == torch.int64 and splits.note == ""
    assert train.classes == ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    assert train.source == "folder" and train.name == "CIFAR-10"
    every = [numbers(part.images) for part in splits]
    assert sorted(sum(every, [])) == list(range(80)), "each row in exactly one split"
    assert every[2] == list(range(60, 80)), "test keeps its own rows and order"
    assert [number % 10 for number in every[0]] == train.labels.tolist()


def test_val_depends_on_the_seed_alone(folder):
    write_cifar(folder)
    a, b = data.pictures(val=10, train=7), data.pictures(val=10, test=3)
    assert torch.equal(a.val.images, b.val.images) and torch.equal(a.train.images, b.train.images[:7])
    assert torch.equal(b.test.images, a.test.images[:3])
    other = data.pictures(val=10, seed=1)
    assert set(numbers(other.val.images)) != set(numbers(a.val.images))
    assert torch.equal(other.test.images, a.test.images)


def test_asking_for_more_than_there_is_gives_all_and_says_so(folder, capsys):
    write_cifar(folder)
    splits = data.pictures(train=45_000, val=10, test=10_000)
    assert (len(splits.train), len(splits.val), len(splits.test)) == (50, 10, 20)
    assert splits.note == "CIFAR-10: this copy gives 50 train instead of 45,000, 20 test instead of 10,000."
    assert splits.note in capsys.readouterr().err
    tiny = data.pictures()  # val = 5000 would leave nothing to train on: at most half is cut off
    assert (len(tiny.train), len(tiny.val)) == (30, 30) and "30 val instead of 5,000" in tiny.note


def test_nothing_may_be_asked_of_val_or_test(folder):
    write_cifar(folder)
    splits = data.pictures(train=5, val=0, test=0)
    assert [len(part) for part in splits] == [5, 0, 0] and splits.val.images.shape == (0, 3, 32, 32)


def test_a_jpeg_copy_is_called_one(folder):
    write_cifar(folder, form="JPEG")
    assert data.pictures(val=5).train.name == "CIFAR-10 (JPEG copy)"


@pytest.mark.parametrize("size", [16, 32, 64])
def test_sizes(folder, size):
    write_cifar(folder)
    images = data.pictures(val=5, size=size).test.images
    assert images.shape == (20, 3, size, size) and numbers(images) == list(range(60, 80))


def test_rows_are_indexed_like_a_tensor_and_move(folder):
    write_captions(folder)
    train = data.captions(val=5, size=32).train
    assert len(train) == 25 and len(train[:4]) == 4 and len(train[torch.tensor([3, 1])]) == 2 and len(train[7]) == 1
    chosen = train[torch.tensor([3, 1])]
    assert chosen.ids == [train.ids[3], train.ids[1]] and torch.equal(chosen.images[1], train.images[1])
    assert len(train[torch.arange(25) < 3]) == 3 and len([row for row in train]) == 25
    assert chosen.name == train.name and chosen.source == "folder"
    assert train.to("meta").images.device.type == "meta" and train.to("meta").ids == train.ids
    with pytest.raises(IndexError):
        train[25]


def test_captions_of_a_folder_are_cut_square(folder):
    write_captions(folder)
    splits = data.captions(source="real", val=5, size=32)
    assert splits.train.images.shape == (25, 3, 32, 32) and len(splits.test) == 10
    for part in splits:
        for number, texts, identity in zip(numbers(part.images), part.captions, part.ids, strict=True):
            assert texts == [f"picture {number}", f"number {number}"] and identity == f"id-{number}"
    assert splits.train.name == "Flickr8k captions"


def test_the_middle_of_a_picture_is_kept(folder):
    wide = Image.new("RGB", (64, 32), "red")
    wide.paste("blue", (16, 0, 48, 32))
    pictures = [encoded(wide), encoded(wide.rotate(90, expand=True))] * 2
    for part in ("train", "validation"):
        columns = {"image": pa.array(pictures, IMAGE), "captions": [["blue"]] * 4, "image_id": list("abcd")}
        write(folder / "flickr8k-captions", f"{part}-00000-of-00001.parquet", columns)
    images = data.captions(source="real", val=1, size=32).train.images
    assert (images == torch.tensor([0, 0, 255])[:, None, None]).all()


def test_captions_prefer_the_larger_folder_and_can_insist(folder):
    write_captions(folder)
    write_captions(folder, "coco-captions", train=12, validation=4)
    assert data.captions(val=2, size=32).train.name == "Flickr8k captions"
    assert len(data.captions("coco-captions", val=2, size=32).test) == 4
    assert data.captions("coco-captions", val=2, size=32).train.name == "COCO captions"


def test_masks_of_a_folder(folder):
    mask = Image.new("L", (32, 48))
    mask.paste(255, (0, 0, 16, 48))
    columns = {
        "image": pa.array([encoded(picture(i, (32, 48))) for i in range(20)], IMAGE),
        "mask": pa.array([encoded(mask)] * 20, IMAGE),
        "objects": [[{"category": "dog", "bbox": [0.0, 0.0, 1.0, 1.0]}]] * 20,
        "image_id": list(range(20)),
    }
    write(folder / "coco-segmentation", "train-00000-of-00001.parquet", columns)
    splits = data.masks(val=4, test=5, size=32)
    assert [len(part) for part in splits] == [11, 4, 5]
    assert sorted(sum([numbers(part.images) for part in splits], [])) == list(range(20))
    masks = splits.val.masks
    assert masks.dtype == torch.bool and masks[0, :, :16].all() and not masks[0, :, 16:].any()
    assert splits.val.objects[0] == ["dog"]


def test_recordings_of_a_folder(folder):
    for part, names in (("train", ["dog", "cat"] * 5), ("validation", ["cat", "dog"])):
        clips = [wav(16_384 if name == "dog" else -16_384) for name in names]
        columns = {"audio_bytes": clips, "label": names, "clip_id": [f"{part}-{i}" for i in range(len(names))]}
        write(folder / "sounds", f"{part}-00000-of-00001.parquet", columns)
    splits = data.recordings(val=2)
    assert [len(part) for part in splits] == [8, 2, 2] and splits.train.classes == ("cat", "dog")
    assert splits.test.waves.shape == (2, 32_000) and splits.test.waves[:, 0].tolist() == [-0.5, 0.5]
    assert splits.test.lengths.tolist() == [800, 800] and not splits.test.waves[:, 800:].any()
    write(folder / "sounds", "train-00000-of-00001.parquet", columns | {"audio_bytes": [wav(1, rate=8000)] * 2})
    with pytest.raises(DataError, match="8000 Hz.*Expected 16000 Hz"):
        data.recordings()


def test_the_second_start_decodes_nothing(folder, monkeypatch):
    write_cifar(folder)
    first = data.pictures(val=10)
    monkeypatch.setattr(tables, "decode", None)
    assert torch.equal(data.pictures(val=10).train.images, first.train.images)
    monkeypatch.delenv("LESSONS_DATA_DIR")  # the folder is gone, the cache serves
    again = data.pictures(source="real", val=10)
    assert torch.equal(again.train.images, first.train.images)
    assert again.train.source == "cache" and data.available("cifar10") == "cache"


def test_a_changed_folder_is_decoded_anew(folder):
    write_cifar(folder)
    assert len(data.pictures(val=10).test) == 20
    write_cifar(folder, train=40, test=12)
    splits = data.pictures(val=10)
    assert (len(splits.train), len(splits.test)) == (30, 12)


def test_another_size_is_made_from_what_the_cache_has(folder, monkeypatch):
    write_captions(folder)
    data.captions(val=5, size=64)
    monkeypatch.delenv("LESSONS_DATA_DIR")
    splits = data.captions(source="real", val=5, size=32)
    assert splits.train.images.shape == (25, 3, 32, 32) and splits.train.source == "cache"


def test_scenes_are_disjoint_deterministic_and_asked_for_by_number():
    a = data.pictures(source="scenes", train=6, val=3, test=4)
    b = data.pictures(source="scenes", train=9, val=3, test=4)
    assert [len(part) for part in a] == [6, 3, 4] and a.train.images.shape == (6, 3, 32, 32)
    assert torch.equal(a.train.images, b.train.images[:6]) and torch.equal(a.test.images, b.test.images)
    assert not any(torch.equal(x, y) for x in a.train.images for y in a.test.images)
    assert not any(torch.equal(x, y) for x in a.val.images for y in (*a.train.images, *a.test.images))
    assert a.train.source == "built-in scenes" and a.train.images.dtype == torch.uint8
    assert not torch.equal(data.pictures(source="scenes", train=6, val=3, test=4, seed=1).train.images, a.train.images)


def test_scenes_have_captions():
    train = data.captions(source="scenes", train=3, val=2, test=2, size=32).train
    assert len(train.captions) == 3 and all(texts and all(texts) for texts in train.captions)
    assert train.images.shape == (3, 3, 32, 32) and len(set(train.ids)) == 3


def test_auto_falls_back_with_one_line_and_real_never_does(capsys):
    splits = data.pictures(train=3, val=2, test=2)
    assert splits.train.source == "built-in scenes"
    message = capsys.readouterr().err
    assert "CIFAR-10" in message and "built-in scenes" in message and message.count("\n") == 1
    with pytest.raises(DataError) as caught:
        data.pictures(source="real")
    text = str(caught.value)
    assert "LESSONS_DATA_DIR is not set" in text and str(store.cache_dir("pictures")) in text
    assert "HF_HUB_OFFLINE" in text and "cifar10/" in text and "LESSONS_DATA=scenes" in text
    assert text == data.how_to_get("cifar10")


@pytest.mark.parametrize("call", [data.masks, data.recordings])
def test_sets_without_a_stand_in_say_where_they_were_sought(call):
    with pytest.raises(DataError, match="the hub:    this set is not fetched from it"):
        call()


@pytest.mark.parametrize(
    "call, phrase",
    [
        (lambda: data.pictures("cifar11"), "cifar10, cifar100"),
        (lambda: data.pictures("captions"), "cifar10, cifar100"),
        (lambda: data.available("imagenet"), "captions"),
        (lambda: data.pictures(source="folder"), "auto, real, scenes"),
        (lambda: data.pictures(val=-1), "val is -1"),
        (lambda: data.pictures(train=0), "train is 0"),
        (lambda: data.pictures(val=None), "val is None"),
        (lambda: data.pictures(size=4), "8 to 512"),
    ],
)
def test_wrong_arguments_are_named_with_what_is_allowed(call, phrase):
    with pytest.raises(SettingError, match=phrase):
        call()


def test_a_wrong_data_dir_is_never_silent(tmp_path, monkeypatch):
    monkeypatch.setenv("LESSONS_DATA_DIR", str(tmp_path / "nowhere"))
    for call in (lambda: data.available("cifar10"), lambda: data.pictures(train=3), lambda: data.how_to_get("cifar10")):
        with pytest.raises(DataError, match="nowhere.*which is no folder"):
            call()
    (tmp_path / "holiday").mkdir()
    monkeypatch.setenv("LESSONS_DATA_DIR", str(tmp_path / "holiday"))
    with pytest.raises(DataError, match="none of the known sets.*cifar10.*found: nothing"):
        data.available("cifar10")
    write_cifar(tmp_path / "data")
    monkeypatch.setenv("LESSONS_DATA_DIR", str(tmp_path / "data" / "cifar10"))
    with pytest.raises(DataError, match="Name the folder above it"):
        data.available("cifar10")
    monkeypatch.setenv("LESSONS_DATA_DIR", str(tmp_path))
    with pytest.raises(DataError, match="Name its sub-folder"):
        data.available("cifar10")
    monkeypatch.setenv("LESSONS_DATA_DIR", str(tmp_path / "data"))
    assert data.available("cifar10") == "folder" and data.available("captions") is None


def test_a_relative_data_dir_counts_from_the_checkout(tmp_path, monkeypatch):
    write_cifar(tmp_path / "sets")
    (tmp_path / "notebooks" / "mine").mkdir(parents=True)
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.setattr(store, "__file__", str(tmp_path / "lessons" / "store.py"))
    monkeypatch.setenv("LESSONS_DATA_DIR", "sets")
    monkeypatch.chdir(tmp_path / "notebooks" / "mine")
    assert data.available("cifar10") == "folder"
    monkeypatch.setenv("LESSONS_DATA_DIR", "elsewhere")
    with pytest.raises(DataError, match=r"'elsewhere', which is no folder \(.*elsewhere\)"):
        data.available("cifar10")


# The hub, as it would answer: sets in memory with the very column layout of the public ones.


def fake_cifar(train=40, test=10, name="label", names=tables.CIFAR10, **more):
    import datasets

    columns = {"img": datasets.Image(), name: datasets.ClassLabel(names=list(names))}
    features = datasets.Features(columns | {key: datasets.Value("int64") for key in more})

    def part(rows):
        values = {"img": [picture(i) for i in rows], name: [i % len(names) for i in rows]}
        return datasets.Dataset.from_dict(values | {key: [0] * len(rows) for key in more}, features=features)

    return datasets.DatasetDict(train=part(range(train)), test=part(range(train, train + test)))


def fake_stream(split: str, columns: dict, images: str):
    """A streamed split with these columns, pictures decoded on access, as `datasets` gives it."""
    import datasets

    made = datasets.Dataset.from_dict(columns).cast_column(images, datasets.Image())
    return {split: made.to_iterable_dataset()}


def coco(n=60, split="val"):
    columns = {
        "question_id": [str(i) for i in range(n)],
        "image": [encoded(picture(i, (160, 128))) for i in range(n)],
        "question": ["Describe"] * n,
        "answer": [[f"picture {i}", f"number {i}\n"] for i in range(n)],
    }
    return fake_stream(split, columns, "image")


def wds(n=60):
    texts = [f"picture {i}\nnumber {i}" for i in range(n)]
    return fake_stream("test", {"jpg": [encoded(picture(i, (128, 160))) for i in range(n)], "txt": texts}, "jpg")


def per_caption(n=60):
    columns = {
        "image": [encoded(picture(i // 2, (128, 128))) for i in range(2 * n)],
        "caption": [f"{'number' if i % 2 else 'picture'} {i // 2}" for i in range(2 * n)],
        "cocoid": [9000 + i // 2 for i in range(2 * n)],
    }
    return fake_stream("validation", columns, "image")


@pytest.fixture
def online(monkeypatch):
    """A hub that answers; `online["repo"] = set` (or an exception) is what load_dataset gives for a repository."""
    shelf, calls = {}, []

    def load_dataset(repo, **options):
        calls.append(repo)
        value = shelf.get(repo, ConnectionError(f"Couldn't reach {repo}"))
        if isinstance(value, BaseException):
            raise value
        return value

    monkeypatch.setattr(hub, "load_dataset", load_dataset)
    monkeypatch.setattr(hub, "unreachable", lambda repos, again=False: None)
    shelf["calls"] = calls
    return shelf


def near(images: torch.Tensor) -> list[int]:
    """Numbers of flat pictures that went through JPEG: the numbers are below 64, so red tells them, nearly."""
    return [int(value) for value in images[:, 0].float().mean((1, 2)).round()]


def test_cifar_from_the_hub_then_from_the_cache(online, monkeypatch):
    online["uoft-cs/cifar10"] = fake_cifar()
    assert data.available("cifar10") == "hub"
    splits = data.pictures(source="real", val=10)
    assert [len(part) for part in splits] == [30, 10, 10] and splits.train.source == "hub"
    assert splits.train.name == "CIFAR-10"
    assert sorted(sum([numbers(part.images) for part in splits], [])) == list(range(50))
    assert [number % 10 for number in numbers(splits.train.images)] == splits.train.labels.tolist()
    again = data.pictures(val=10)
    assert torch.equal(again.train.images, splits.train.images) and again.train.source == "cache"
    assert online["calls"] == ["uoft-cs/cifar10"] and data.available("cifar10") == "cache"


def test_cifar100_takes_the_fine_labels_and_their_names(online):
    names = tuple(f"thing {i}" for i in range(100))
    online["uoft-cs/cifar100"] = fake_cifar(name="fine_label", names=names, coarse_label=True)
    splits = data.pictures("cifar100", val=10)
    assert splits.train.classes == names and splits.train.labels.tolist() == numbers(splits.train.images)
    assert splits.train.name == "CIFAR-100"


@pytest.mark.parametrize("repo, make", list(zip(data.SETS["captions"].hub, (coco, wds, per_caption), strict=True)))
def test_captions_are_streamed_from_whichever_repository_answers(online, repo, make):
    online[repo] = make()
    splits = data.captions(source="real", train=27, val=9, test=4, size=32)
    assert [len(part) for part in splits] == [27, 9, 4] and splits.note == ""
    assert splits.train.source == "hub" and splits.train.name == "COCO captions"
    seen = []
    for part in splits:
        assert part.images.shape[1:] == (3, 32, 32)
        for red, texts in zip(near(part.images), part.captions, strict=True):
            number = int(texts[0].split()[1])
            assert texts == [f"picture {number}", f"number {number}"] and abs(red - number) <= 2
            seen.append(number)
    assert len(set(seen)) == 40
    assert data.captions(train=27, val=9, test=4, size=32).train.source == "cache"


def test_a_larger_number_continues_the_stream_and_keeps_the_test_part(online, monkeypatch):
    monkeypatch.setattr(hub, "SHARD", 8)
    online["lmms-lab/COCO-Caption2017"] = coco()
    first = data.captions(train=15, val=3, test=2, size=32)
    more = data.captions(train=30, val=6, test=4, size=32)
    assert [len(part) for part in more] == [30, 6, 4] and more.test.ids[:2] == first.test.ids
    assert set(more.test.ids).isdisjoint(more.train.ids + more.val.ids + first.train.ids + first.val.ids)
    every = data.captions(val=6, size=32)  # 4,000 are asked for where there are 60
    assert len(every.train) == 48 and len(every.test) == 6
    count = len(online["calls"])
    assert len(data.captions(train=100, val=6, test=4, size=32).train) == 48 and len(online["calls"]) == count


class Hub(BaseHTTPRequestHandler):
    status = 200

    def do_HEAD(self):
        self.send_response(self.status if "missing" not in self.path else 404)
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture
def local_hub(monkeypatch):
    server = HTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    hub._refusal.cache_clear()
    yield server
    server.shutdown()
    server.server_close()


def test_a_hub_that_answers_is_available_and_asked_once(local_hub, monkeypatch):
    assert data.available("cifar10") == "hub" and data.available("masks") is None
    local_hub.shutdown()
    local_hub.server_close()
    assert data.available("cifar10") == "hub", "remembered"
    assert "cannot be reached" in hub.unreachable(("uoft-cs/cifar10",), again=True)


def test_a_repository_that_is_gone_is_told_from_a_hub_that_is_gone(local_hub):
    assert hub.unreachable(("missing/set",)).endswith("answers 404 for missing/set")
    assert hub.unreachable(("missing/set", "there/is")) is None


def test_offline_switches_are_respected_without_asking(monkeypatch):
    monkeypatch.setattr(hub, "_refusal", None)
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.setenv(name, "1")
        assert name in hub.unreachable(("uoft-cs/cifar10",))
        monkeypatch.delenv(name)


@pytest.mark.skipif(not REAL_FOLDER, reason="LESSONS_DATA_DIR is not set: no real folder to load")
def test_the_real_folder(monkeypatch):
    monkeypatch.setenv("LESSONS_DATA_DIR", REAL_FOLDER)
    for name in data.SETS:
        if data.available(name) != "folder":
            continue
        call = {"pictures": data.pictures, "captions": data.captions}.get(data.SETS[name].kind)
        if call:
            splits = call(name, source="real")
            assert splits.train.images.float().std() > 20 and splits.train.source == "folder"
        else:
            splits = {"masks": data.masks, "sounds": data.recordings}[name]()
        assert all(len(part) for part in splits), name
        if name == "cifar10":
            assert set(splits.test.labels.tolist()) == set(range(10))
            assert splits.train.images.shape[1:] == (3, 32, 32)

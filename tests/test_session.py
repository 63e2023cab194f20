"""How a notebook starts: three switches, what is chosen without them, one line that says so."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import lessons
from lessons import compat, data, session
from lessons.errors import DataError, SettingError


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch):
    """The tests mean a machine without an accelerator, wherever they run."""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)


def with_accelerator(monkeypatch, kind: str, **module) -> None:
    """Let torch find an accelerator of this kind, with these functions in its module."""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda *_: torch.device(kind, 0))
    monkeypatch.setattr(torch, "get_device_module", lambda device: SimpleNamespace(**module))
    monkeypatch.setattr(compat, "do_missing_on_cpu", lambda device: None)


@pytest.mark.parametrize(
    ("switch", "value", "allowed"),
    [
        ("LESSONS_SCALE", "huge", ("smoke", "cpu", "gpu")),
        ("LESSONS_DATA", "cifar", ("auto", "real", "scenes")),
        ("LESSONS_PRECISION", "fp8", ("float32", "bfloat16", "float16")),
    ],
)
def test_a_wrong_value_of_a_switch_lists_the_allowed_ones(monkeypatch, switch, value, allowed):
    monkeypatch.setenv(switch, value)
    with pytest.raises(SettingError) as raised:
        lessons.start(1)
    assert all(word in str(raised.value) for word in (switch, repr(value), *allowed))


@pytest.mark.parametrize("number", [0, 12, -1, "vit", None])
def test_a_lesson_that_does_not_exist(number):
    with pytest.raises(SettingError, match="1 to 11"):
        lessons.start(number)


def test_without_switches_and_accelerator_everything_is_chosen_and_said_in_one_line(capsys):
    run = lessons.start(1)
    assert (run.device, run.scale, run.source, run.seed) == (torch.device("cpu"), "cpu", "scenes", 0)
    out, err = capsys.readouterr()
    assert out.count("\n") == 1 and not err
    for part in (
        "Lesson 01 ResNet",
        "cpu scale",
        "CPU core",
        "built-in scenes",
        "CIFAR-10",
        "LESSONS_DATA_DIR",
        "seed 0",
    ):
        assert part in out


@pytest.mark.parametrize("kind", ["cuda", "xpu", "mps"])
def test_an_accelerator_of_any_kind_means_gpu_scale(monkeypatch, kind):
    with_accelerator(monkeypatch, kind, get_device_name=lambda device: "Test 3000")
    run = lessons.start(1)
    assert (run.device, run.scale) == (torch.device(kind), "gpu")
    assert run.hardware().startswith("Apple GPU" if kind == "mps" else "Test 3000")


def test_the_scale_switch_decides_and_blanks_and_capitals_do_not_matter(monkeypatch):
    monkeypatch.setenv("LESSONS_SCALE", " Smoke ")
    assert lessons.start(1).scale == "smoke"
    monkeypatch.setenv("LESSONS_SCALE", "")
    assert lessons.start(1).scale == "cpu"


# Data


def test_scenes_asks_no_one(monkeypatch, capsys):
    monkeypatch.setenv("LESSONS_DATA", "scenes")
    monkeypatch.setattr(data, "available", lambda name: pytest.fail("asked for real data"))
    assert lessons.start(1).source == "scenes"
    assert "LESSONS_DATA=scenes" in capsys.readouterr().out


@pytest.mark.parametrize(("number", "folder"), [(1, "cifar10"), (8, "captions")])
def test_real_without_any_place_is_an_error_that_names_each(monkeypatch, number, folder):
    monkeypatch.setenv("LESSONS_DATA", "real")
    with pytest.raises(DataError) as raised:
        lessons.start(number)
    for part in ("LESSONS_DATA_DIR", "cache", "hub", "HF_HUB_OFFLINE", folder, "LESSONS_DATA=scenes"):
        assert part in str(raised.value)


@pytest.mark.parametrize("wanted", ["", "auto", "real"])
def test_a_folder_is_taken(monkeypatch, tmp_path, capsys, wanted):
    (tmp_path / "pictures" / "cifar10").mkdir(parents=True)
    monkeypatch.setenv("LESSONS_DATA", wanted)
    monkeypatch.setenv("LESSONS_DATA_DIR", str(tmp_path / "pictures"))
    assert lessons.start(1).source == "real"
    assert "CIFAR-10 from the folder" in capsys.readouterr().out


def test_the_line_names_the_set_that_the_folder_holds(monkeypatch, tmp_path, capsys):
    (tmp_path / "pictures" / "flickr8k-captions").mkdir(parents=True)
    monkeypatch.setenv("LESSONS_DATA_DIR", str(tmp_path / "pictures"))
    lessons.start(8)
    assert "Flickr8k captions from the folder" in capsys.readouterr().out


def test_a_folder_without_this_lessons_set_falls_back(monkeypatch, tmp_path):
    (tmp_path / "pictures" / "sounds").mkdir(parents=True)
    monkeypatch.setenv("LESSONS_DATA_DIR", str(tmp_path / "pictures"))
    assert lessons.start(1).source == "scenes"


def test_a_folder_that_does_not_exist_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setenv("LESSONS_DATA_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="nowhere"):
        lessons.start(1)


@pytest.mark.parametrize(
    ("place", "wanted", "source"),
    # A download may still fail: only the reader who insists gets an error then.
    [("hub", "auto", "auto"), ("hub", "real", "real"), ("cache", "auto", "real"), ("cache", "real", "real")],
)
def test_where_the_data_is_decides_what_is_asked_for(monkeypatch, capsys, place, wanted, source):
    asked = []
    monkeypatch.setattr(data, "available", lambda name: asked.append(name) or place)
    monkeypatch.setenv("LESSONS_DATA", wanted)
    assert lessons.start(1).source == source and lessons.start(8).source == source
    assert asked == ["cifar10", "captions"]
    out = capsys.readouterr().out
    assert out.count("\n") == 2 and out.count(f"from the {place}") == 2


# Seed, pick, precision, place


def test_the_seed_makes_two_starts_draw_the_same_numbers():
    draws = []
    for seed in (3, 3, 4):
        run = lessons.start(1, seed=seed)
        draws.append(torch.rand(5))
        assert run.seed == seed
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


@pytest.mark.parametrize(("scale", "value"), [("smoke", 1), ("cpu", 2), ("gpu", None)])
def test_pick_gives_the_value_of_the_scale(monkeypatch, scale, value):
    monkeypatch.setenv("LESSONS_SCALE", scale)
    assert lessons.start(1).pick(smoke=1, cpu=2, gpu=None) == value


def test_pick_needs_all_three_scales():
    with pytest.raises(TypeError):
        lessons.start(1).pick(smoke=1, cpu=2)


@pytest.mark.parametrize(
    ("device", "tiles", "capability", "expected"),
    [
        ("cpu", True, None, torch.bfloat16),
        ("cpu", False, None, None),
        ("mps", True, None, None),
        ("xpu", False, None, torch.bfloat16),
        ("cuda", False, (9, 0), torch.bfloat16),  # H100
        ("cuda", False, (8, 0), torch.bfloat16),  # A100
        ("cuda", False, (7, 5), torch.float16),  # T4, the usual GPU of a free notebook: bfloat16 is emulated there
        ("cuda", False, (7, 0), torch.float16),  # V100
        ("cuda", True, (6, 1), None),  # GTX 1080: half precision is slower there
    ],
)
def test_half_precision_only_where_it_is_native(monkeypatch, device, tiles, capability, expected):
    monkeypatch.setattr(session, "_has_amx", lambda: tiles)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)  # true on a T4 as well
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    run = lessons.start(1)
    run.device = torch.device(device)
    assert run.precision("conv") == run.precision("transformer") == expected
    with pytest.raises(SettingError, match="'conv' or 'transformer'"):
        run.precision("convolution")


@pytest.mark.parametrize("tiles", [True, False])
@pytest.mark.parametrize(
    ("asked", "expected"), [("float32", None), ("bfloat16", torch.bfloat16), (" Float16 ", torch.float16)]
)
def test_the_precision_switch_decides_and_is_said(monkeypatch, capsys, tiles, asked, expected):
    monkeypatch.setattr(session, "_has_amx", lambda: tiles)
    monkeypatch.setenv("LESSONS_PRECISION", asked)
    run = lessons.start(1)
    assert run.precision("conv") == run.precision("transformer") == expected
    assert f"; {asked.strip().lower()}, as LESSONS_PRECISION asks; " in capsys.readouterr().out
    with run.autocast("conv"):
        assert nn.Conv2d(3, 2, 3)(torch.rand(1, 3, 5, 5)).dtype == (expected or torch.float32)


def test_the_processor_is_named_with_its_instructions(monkeypatch):
    session.processor.cache_clear()
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert torch.backends.cpu.get_cpu_capability() in session.processor()
    assert "ONEDNN_MAX_CPU_ISA=AVX2" in session.processor()
    session.processor.cache_clear()


@pytest.mark.parametrize(("tiles", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_autocast_computes_in_that_precision(monkeypatch, tiles, dtype):
    monkeypatch.setattr(session, "_has_amx", lambda: tiles)
    run, layer = lessons.start(1), nn.Conv2d(3, 2, 3)
    for family in ("conv", "transformer"):
        with run.autocast(family):
            assert layer(torch.rand(1, 3, 5, 5)).dtype == dtype


def test_place_changes_the_layout_of_convolutions_and_no_number():
    run, x = lessons.start(1), torch.rand(2, 3, 8, 8)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
    before = net(x)
    assert run.place(net, "transformer") is net and net[0].weight.is_contiguous()
    assert run.place(net, "conv") is net
    assert net[0].weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(net(x), before)

"""What a run says beforehand: from records where there are any, else from what its trainings compute."""

import pytest
import torch

from lessons import course
from lessons.commands import forecast
from lessons.commands.forecast import EFFICIENCY, LAUNCH, OVERHEAD

PLAN = {
    "01": {"trainings": 3, "steps": 4_000, "teraflop": 100.0, "million_operations": 2.0, "peak_GiB": 1.5},
    "02": {"trainings": 9, "steps": 9_000, "teraflop": 900.0, "million_operations": 5.0, "peak_GiB": 3.0},
}
RECORD = {"lesson": 1, "scale": "gpu", "data": "real", "device": "cuda", "hardware": "NVIDIA Test", "seconds": 240.0}

shipped = forecast.planned


@pytest.fixture(autouse=True)
def planned(monkeypatch):
    monkeypatch.setattr(forecast, "planned", lambda: PLAN)
    monkeypatch.setattr(forecast.claims, "references", lambda number: [])


def ask(number: int, scale="gpu", data="real", device="cuda", flops=1e13) -> forecast.Forecast:
    return forecast.forecast(course.lesson(number), scale, data, torch.device(device), flops)


def test_gpu_scale_is_estimated_from_what_its_trainings_compute():
    found = ask(1)
    assert found.seconds == pytest.approx(OVERHEAD * (100e12 / (EFFICIENCY * 1e13) + 2e6 * LAUNCH))
    assert found.memory == 1.5 and found.basis == "estimated from 4,000 steps in 3 trainings"
    assert ask(1, flops=1e12).seconds > 5 * found.seconds
    assert ask(1, device="cpu").seconds == pytest.approx(OVERHEAD * 100e12 / (EFFICIENCY * 1e13)), (
        "nothing is launched there"
    )


def test_a_record_of_this_scale_and_device_is_better(monkeypatch):
    scenes = RECORD | {"data": "scenes", "seconds": 200.0}
    monkeypatch.setattr(forecast.claims, "references", lambda number: [scenes, RECORD, RECORD | {"device": "cpu"}])
    assert ask(1) == forecast.Forecast(240.0, 1.5, "as recorded on NVIDIA Test")
    assert ask(1, data="scenes").seconds == 200.0
    assert ask(1, device="mps").basis.startswith("estimated")
    assert ask(1, scale="cpu", device="cpu") == forecast.Forecast(None, None, "no run is recorded")


def test_all_is_said_beforehand_with_a_sum(monkeypatch, capsys):
    monkeypatch.setattr(forecast, "matrix_flops", lambda device: 1e13)
    monkeypatch.setattr(forecast.session, "find_device", lambda: torch.device("cuda"))
    forecast.announce([course.lesson(n) for n in (1, 2, 3)], "gpu", "real")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "01 ResNet                   about 1 min, 1.5 GiB (estimated from 4,000 steps in 3 trainings)"
    assert lines[1].startswith("02 ViT ") and "about 11 min, 3.0 GiB" in lines[1]
    assert lines[2].startswith("03 MAE ") and "time unknown" in lines[2]
    assert lines[3] == "Together about 12 min, without 1 of them."


def test_the_speed_of_matrix_products_is_measured_here():
    assert 1e8 < forecast.matrix_flops(torch.device("cpu")) < 1e16


def test_what_was_rehearsed_fits_a_small_gpu():
    plan = shipped()
    assert plan and plan.keys() <= {f"{lesson.number:02d}" for lesson in course.LESSONS}
    assert all(one["peak_GiB"] < 12 for one in plan.values()), "a T4 has 15 GiB"
    assert all(one["steps"] > 0 and one["teraflop"] > 0 for one in plan.values())

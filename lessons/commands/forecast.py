"""What a run will take, said beforehand: from reference runs, or, at gpu scale, from what its trainings compute."""

import json
import time
from dataclasses import dataclass
from importlib import resources

import torch

from .. import claims, course, session
from .doctor import run_here

# Assumptions, used only until a run of this scale is recorded on this kind of device: the share of a large matrix
# product's speed that small networks reach, seconds to launch one operation on a GPU, and what evaluation, drawing and
# loading add to the trainings.
EFFICIENCY, LAUNCH, OVERHEAD = 0.25, 8e-6, 1.6


@dataclass(frozen=True)
class Forecast:
    """What one lesson will take: seconds and GiB (None where nothing is known), and where that is from. The memory is
    the peak of a rehearsal on a CPU, in float32 and with full batches, Python and torch included."""

    seconds: float | None
    memory: float | None
    basis: str


def forecast(lesson: course.Lesson, scale: str, data: str, device: torch.device, flops: float) -> Forecast:
    """The forecast for one lesson on `device`, which multiplies matrices at `flops` operations per second."""
    plan = planned().get(f"{lesson.number:02d}") if scale == "gpu" else None
    memory = plan and plan["peak_GiB"]
    kind = "scenes" if data == "scenes" else "real"
    alike = [r for r in claims.references(lesson.number) if (r["scale"], r["device"]) == (scale, device.type)]
    alike.sort(key=lambda record: record["data"] != kind)
    if alike:
        return Forecast(alike[0]["seconds"], memory, f"as recorded on {alike[0]['hardware']}")
    if plan is None:
        return Forecast(None, memory, "no run is recorded")
    launch = LAUNCH if device.type != "cpu" else 0.0
    work = plan["teraflop"] * 1e12 / (EFFICIENCY * flops) + plan["million_operations"] * 1e6 * launch
    return Forecast(OVERHEAD * work, memory, f"estimated from {plan['steps']:,} steps in {plan['trainings']} trainings")


def planned() -> dict[str, dict]:
    """What gpu scale computes, by lesson: written by tests/rehearse.py."""
    file = resources.files(__package__) / "gpu_plan.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def announce(lessons: list[course.Lesson], scale: str, data: str) -> None:
    """Print what each lesson will take here, and all together."""
    device = session.find_device()
    flops = matrix_flops(device) if scale == "gpu" else 0.0
    found = {lesson: forecast(lesson, scale, data, device, flops) for lesson in lessons}
    for lesson, one in found.items():
        parts = [
            "time unknown" if one.seconds is None else f"about {_clock(one.seconds)}",
            *([f"{one.memory:.1f} GiB"] if one.memory else []),
        ]
        print(f"{lesson.number:02d} {lesson.title:<24} {', '.join(parts)} ({one.basis})")
    known = [one.seconds for one in found.values() if one.seconds is not None]
    if len(found) > 1 and known:
        unknown = f", without {len(found) - len(known)} of them" if len(known) < len(found) else ""
        print(f"Together about {_clock(sum(known))}{unknown}.")
    print(flush=True)


def matrix_flops(device: torch.device) -> float:
    """Floating-point operations per second in large matrix products, in the precision that lessons use there. Takes
    about a second."""
    run = run_here()
    side = 4096 if device.type != "cpu" else 1024
    a = torch.ones(side, side, device=device, dtype=run.precision("transformer") or torch.float32)
    count, start = 0, None
    while start is None or time.perf_counter() - start < 0.5:
        for _ in range(4):
            b = a @ a
        b[0, 0].item()  # waits until it is done
        if start is None:  # the first round loads kernels
            start = time.perf_counter()
        else:
            count += 4
    return 2 * side**3 * count / (time.perf_counter() - start)


def _clock(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 5400 else f"{max(1, round(seconds / 60))} min"

"""What gpu scale asks for, counted on a CPU: `python -m tests.rehearse 01 02`, or without numbers all eleven.

Each lesson runs at gpu scale with every training cut to three steps of their full batches. What a step multiplies and
launches is counted, and the whole follows from the steps that were asked for. Writes lessons/commands/gpu_plan.json,
from which `python -m lessons run --scale gpu` says beforehand what it will take. Several minutes a lesson; the data is
that of LESSONS_DATA and LESSONS_DATA_DIR.
"""

import json
import os
import resource
import runpy
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PLAN = ROOT / "lessons" / "commands" / "gpu_plan.json"
SWITCHES = {"LESSONS_SCALE": "gpu", "LESSONS_REHEARSAL": "3,2048,2048", "LESSONS_HEADLESS": "1", "MPLBACKEND": "Agg"}


def count_here(source: str, report: Path) -> None:
    """In the child: run one lesson with every call of `fit` counted, and write what it would take."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import flop_registry

    from lessons import rehearsal, training

    class Fewer(int):
        """A number that was capped, and what it was."""

        asked: int

    cap = rehearsal.fewer

    def fewer(value: Any) -> Any:
        capped = cap(value)
        if type(value) is int and capped != value:
            capped = Fewer(capped)
            capped.asked = value
        return capped

    class Counter(TorchDispatchMode):
        """Operations, and multiplications and additions in those that multiply matrices."""

        operations = flops = 0

        def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
            out = function(*args, **(kwargs or {}))
            self.operations += 1
            if count := flop_registry.get(function._overloadpacket):
                self.flops += count(*args, **(kwargs or {}), out_val=out)
            return out

    fit, trainings, lock = training.fit, [], threading.Lock()

    def counted(model, loss_function, data, *, steps, after_step=None, **settings):
        counter, seen = Counter(), []

        def loss(*inputs):  # the second step: the first one sets up memory and optimiser
            seen.append(1)
            if len(seen) == 2:
                counter.__enter__()
            return loss_function(*inputs)

        def after(step: int) -> None:
            if after_step is not None:
                after_step(step)
            if step == 1:
                counter.__exit__(None, None, None)

        history = fit(model, loss, data, steps=steps, after_step=after, **settings)
        with lock:
            trainings.append(
                [
                    getattr(steps, "asked", steps),
                    counter.flops,
                    counter.operations,
                    history.seconds / max(1, len(history.loss)),
                ]
            )
        return history

    training.fit, rehearsal.fewer = counted, fewer
    began = time.perf_counter()
    runpy.run_path(source, run_name="__main__")
    in_steps = sum(3 * seconds for *_, seconds in trainings) / min(len(trainings), torch.get_num_threads())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    found = {
        "trainings": len(trainings),
        "steps": sum(steps for steps, *_ in trainings),
        "teraflop": round(sum(steps * flops for steps, flops, *_ in trainings) / 1e12, 1),
        "million_operations": round(sum(steps * operations for steps, _, operations, _ in trainings) / 1e6, 2),
        "peak_GiB": round(peak, 2),
        "rehearsed_seconds": round(time.perf_counter() - began),
        "of_them_in_steps": round(in_steps),
    }
    report.write_text(json.dumps(found))


def main(numbers: list[str]) -> int:
    """Count the lessons one after another, renewing the plan after each; the number of those that failed."""
    sources = sorted((ROOT / "notebooks" / "source").glob("*.py"))
    chosen = [path for path in sources if not numbers or path.name[:2] in numbers]
    env, failed = SWITCHES | {"PYTHONPATH": str(ROOT)} | os.environ, 0
    for path in chosen:
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder, "report.json")
            command = [sys.executable, "-m", "tests.rehearse", "--child", str(path), str(report)]
            done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True)
            if done.returncode:
                print(f"{path.stem}: failed", *done.stderr.strip().splitlines()[-12:], sep="\n   ", flush=True)
                failed += 1
                continue
            plan = json.loads(PLAN.read_text()) if PLAN.is_file() else {}
            plan[path.stem[:2]] = json.loads(report.read_text())
        print(f"{path.stem}: {plan[path.stem[:2]]}", flush=True)
        PLAN.write_text(json.dumps(dict(sorted(plan.items())), indent=1) + "\n")
    return failed


if __name__ == "__main__":
    sys.exit(count_here(sys.argv[2], Path(sys.argv[3])) if sys.argv[1:2] == ["--child"] else main(sys.argv[1:]) > 0)

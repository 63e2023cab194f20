"""What gpu scale asks for, counted on a CPU: `python -m tests.rehearse 01 02`, or without numbers all eleven.

Each lesson runs at gpu scale with every training cut to two steps of their full batches. What a step multiplies and
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
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PLAN = ROOT / "lessons" / "commands" / "gpu_plan.json"
SWITCHES = {"LESSONS_SCALE": "gpu", "LESSONS_REHEARSAL": "2,600,600", "LESSONS_HEADLESS": "1", "MPLBACKEND": "Agg"}


def _carried(operation: str) -> Callable:
    """An operation on numbers that were capped, done on what they were as well."""

    def both(self: Any, *others: Any) -> Any:
        base = float if isinstance(self, float) else int
        shown = getattr(base(self), operation)(*others)
        if shown is NotImplemented:  # int * float
            return getattr(Capped(float(self), float(self.asked)), operation)(*others)
        asked = getattr(base(self.asked), operation)(*(getattr(other, "asked", other) for other in others))
        return (Capped if isinstance(shown, float) else Fewer)(shown, asked)

    return both


class _Asked:
    """A number that was capped, and what it was (`asked`); what is computed from it knows both."""

    def __new__(cls, shown: Any, asked: Any) -> Any:
        made = super().__new__(cls, shown)
        made.asked = asked
        return made

    def __deepcopy__(self, memo: dict) -> Any:
        return self


class Fewer(_Asked, int):
    """A whole number."""


class Capped(_Asked, float):
    """A fraction."""


for kind in (Fewer, Capped):
    for name in ("add", "radd", "sub", "mul", "rmul", "truediv", "floordiv", "round"):
        setattr(kind, f"__{name}__", _carried(f"__{name}__"))


def count_here(source: str, report: Path) -> None:
    """In the child: run one lesson with every call of `fit` counted, and write what it would take."""
    from torch import Tensor
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves
    from torch.utils.flop_counter import flop_registry

    from lessons import rehearsal, training

    cap = rehearsal.fewer

    def fewer(value: Any) -> Any:
        capped = cap(value)
        return Fewer(capped, value) if type(value) is int and capped != value else capped

    class Counter(TorchDispatchMode):
        """Operations, and multiplications and additions in those that multiply matrices."""

        operations = flops = 0

        def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
            out = function(*args, **(kwargs or {}))
            self.operations += 1
            if count := flop_registry.get(function._overloadpacket):
                self.flops += count(*args, **(kwargs or {}), out_val=out)
            return out

    fit, trainings, counts, lock = training.fit, [], {}, threading.Lock()

    def counted(model, loss_function, data, *, steps, after_step=None, **settings):
        data = iter(data)
        first = next(data)
        kind = [tuple(part.shape) for part in (*model.parameters(), *tree_leaves(first)) if isinstance(part, Tensor)]
        counter, seen, known = Counter(), [], str((type(model), kind))

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

        # A network of known sizes on batches of known sizes needs no second step: it would be counted again.
        few = 1 if known in counts else steps
        history = fit(model, loss, chain([first], data), steps=few, after_step=after, **settings)
        with lock:
            flops, operations = counts.setdefault(known, (counter.flops, counter.operations))
            trainings.append((getattr(steps, "asked", steps), flops, operations, history.seconds))
        return history

    training.fit, rehearsal.fewer = counted, fewer
    began = time.perf_counter()
    runpy.run_path(source, run_name="__main__")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    found = {
        "trainings": len(trainings),
        "steps": sum(steps for steps, *_ in trainings),
        "teraflop": round(sum(steps * flops for steps, flops, *_ in trainings) / 1e12, 1),
        "million_operations": round(sum(steps * operations for steps, _, operations, _ in trainings) / 1e6, 2),
        "peak_GiB": round(peak, 2),
    }
    inside = sum(seconds for *_, seconds in trainings)
    print(f"rehearsed in {time.perf_counter() - began:.0f} s, {inside:.0f} of them in steps of trainings")
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
        print(f"{path.stem}: {plan[path.stem[:2]]}, {done.stdout.splitlines()[-1]}", flush=True)
        PLAN.write_text(json.dumps(dict(sorted(plan.items())), indent=1) + "\n")
    return failed


if __name__ == "__main__":
    sys.exit(count_here(sys.argv[2], Path(sys.argv[3])) if sys.argv[1:2] == ["--child"] else main(sys.argv[1:]) > 0)

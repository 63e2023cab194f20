"""The same tests on other processors, threads, seeds and orders, and beside busy processes: each row has to pass.

`make test-long` runs all rows, `python -m tests.matrix --only order-1` one of them. What pytest said stands in
build/matrix. Exit code 1 where a row failed.
"""

import argparse
import os
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
LOGS = ROOT / "build" / "matrix"
BUSY = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass"  # none outlives this script


@dataclass(frozen=True)
class Row:
    """One run of all tests: what it adds to the environment and to pytest's options, and how many processes compute
    beside it."""

    name: str
    env: dict[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    busy: int = 0


ROWS = (
    Row("native"),  # one thread, seed 0, the order of the files
    Row("default", {"ATEN_CPU_CAPABILITY": "default"}),
    Row("avx2", {"ATEN_CPU_CAPABILITY": "avx2"}),
    Row("onednn-avx2", {"ONEDNN_MAX_CPU_ISA": "AVX2"}),
    Row("threads-2", {"OMP_NUM_THREADS": "2"}),
    *(Row(f"seed-{seed}", options=("--global-seed", seed)) for seed in "12"),
    *(Row(f"order-{seed}", options=("--random-order", "--random-order-seed", seed)) for seed in "123"),
    Row("busy", busy=4),
)


@dataclass(frozen=True)
class Result:
    """How a row ended; `failed` counts errors too, and a run that broke off as one."""

    name: str
    passed: int
    failed: int
    seconds: float


@contextmanager
def beside(count: int) -> Iterator[None]:
    """That many processes compute in the meantime."""
    busy = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def run(row: Row, progress: Callable[[int], object]) -> Result:
    """Run the tests as `row` says; `progress` is told the percentages on the way."""
    report = LOGS / f"{row.name}.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadfile", f"--junitxml={report}", *row.options]
    env = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONUNBUFFERED": "1"} | row.env
    start = time.monotonic()
    with beside(row.busy), (LOGS / f"{row.name}.txt").open("w", buffering=1) as log:
        with subprocess.Popen(
            [*command, "tests"], cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            for line in process.stdout:
                log.write(line)
                if found := re.search(r"\[ *(\d+)%\]$", line.rstrip()):
                    progress(int(found[1]))
    passed, failed = counts(report)
    return Result(row.name, passed, max(failed, int(process.returncode != 0)), time.monotonic() - start)


def counts(report: Path) -> tuple[int, int]:
    """Tests that passed and that failed, from pytest's report; none where it did not get that far."""
    if not report.exists():
        return 0, 0
    suite = ET.parse(report).getroot().find("testsuite")
    total, failures, errors, skipped = (int(suite.get(key)) for key in ("tests", "failures", "errors", "skipped"))
    return total - failures - errors - skipped, failures + errors


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.matrix", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", metavar="NAME", choices=[row.name for row in ROWS], help="run this row alone")
    only = parser.parse_args(arguments).only
    rows = [row for row in ROWS if only in (None, row.name)]
    LOGS.mkdir(parents=True, exist_ok=True)
    results = []
    with tqdm(total=100 * len(rows), bar_format="{desc} |{bar}| {elapsed}, {remaining} left") as bar:
        for number, row in enumerate(rows):
            bar.set_description(f"{row.name} ({number + 1}/{len(rows)})")
            results.append(run(row, lambda percent, base=100 * number: bar.update(base + percent - bar.n)))
            bar.update(100 * (number + 1) - bar.n)
    print(f"{'setting':<12} {'passed':>7} {'failed':>7} {'seconds':>8}")
    for result in results:
        print(f"{result.name:<12} {result.passed:>7} {result.failed:>7} {result.seconds:>8.0f}")
    failed = [result.name for result in results if result.failed]
    if failed:
        print("\nWhat failed:", *(f"  {LOGS.relative_to(ROOT) / name}.txt" for name in failed), sep="\n")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())

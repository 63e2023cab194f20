"""Run a lesson without a browser: a fresh kernel, a bar with the time left, and the record of what was measured."""

import os
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch

from .. import claims, course, rehearsal, store
from ..errors import LessonError, SettingError
from . import KERNELS, checkout, chosen, forecast, mine, notebook
from .notebooks import OUT, normalise, own_work, read, readable, worked_in, write
from .results import problems


def run(which: str, *, scale: str | None, data: str | None, out: Path, update: bool, hold: bool) -> None:
    """Run the chosen lessons and print their claims tables. A lesson that fails does not keep the others from running;
    at the end LessonError names all that failed. `hold` also fails a lesson in which a claim that holds in the
    reference record does not hold here; `update` puts the outputs into notebooks/."""
    scale = scale or os.environ.get("LESSONS_SCALE") or _usual_scale()
    data = data or os.environ.get("LESSONS_DATA") or "auto"
    if update and (data != "scenes" or scale == "smoke" or rehearsal.limits()):
        raise SettingError(
            "--update needs --data scenes, a scale other than smoke, and no LESSONS_REHEARSAL: committed outputs show "
            "the built-in scenes, never downloaded pictures, and numbers that mean something. This run has data "
            f"{data} and scale {scale}."
        )
    root, failed = checkout(), []
    if out.resolve().is_relative_to((root / "notebooks").resolve()):
        raise SettingError(f"--out is {out}: nothing in notebooks/ is to be written over. Name another folder.")
    lessons = chosen(which, root)
    if scale != "smoke" and not rehearsal.limits():
        forecast.announce(lessons, scale, data)
    for lesson in lessons:
        try:
            record = run_lesson(lesson, root, scale, data, out.resolve(), update)
            print(claims.Table(record, _references(record)))
            if hold:
                _hold(record)
        except LessonError as error:
            if len(lessons) == 1:
                raise
            print(f"{error}\n", file=sys.stderr)
            failed.append(f"{lesson.number:02d}")
    if failed:
        raise LessonError(f"{len(failed)} of {len(lessons)} lessons failed: {', '.join(failed)} (reasons above).")


def run_lesson(lesson: course.Lesson, root: Path, scale: str, data: str, out: Path, update: bool) -> dict:
    """Execute one notebook, write it to `out` (also when a cell fails), and return its record, completed."""
    path, results = notebook(lesson, root), out / "results"
    if update and (work := own_work(path, root)):
        raise LessonError(work)
    book = read(path)
    before = _stamps(results, lesson)
    speed = None if scale == "smoke" else _speed()
    bar = Bar(book, lesson, expected_seconds(lesson, scale, data, _code(book)))
    switches = {"LESSONS_SCALE": scale, "LESSONS_DATA": data, "LESSONS_HEADLESS": "1", "LESSONS_RESULTS": str(results)}
    fault: BaseException | None = None
    try:
        _execute(book, path.parent, switches, bar)
    except BaseException as error:
        fault = error
        raise
    finally:
        bar.close()
        _put(normalise(book), out / path.name, path, fault)
    record = _fresh_record(results, lesson, before)
    record |= {"seconds": round(sum(bar.seconds), 1), "cell_seconds": [round(value, 2) for value in bar.seconds]}
    if speed:
        record["pictures_per_second"] = speed
    if found := problems(record):
        raise LessonError(f"The record of lesson {lesson.number:02d} is not usable: {'; '.join(found)}.")
    store.write_json(results / claims.record_name(record), record, OUT)
    if update:
        _update(path, book, record)
    return record


def _execute(book: Any, folder: Path, switches: dict[str, str], bar: "Bar") -> None:
    """Run all code cells in a fresh kernel of this very Python; LessonError names the cell that failed."""
    from ipykernel.kernelspec import RESOURCES, get_kernel_dict
    from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, DeadKernelError

    class ThisPython(KernelSpecManager):
        """Whatever kernels the user has installed, the notebook runs in this environment."""

        def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
            return KernelSpec(resource_dir=str(RESOURCES), **get_kernel_dict())

    environment = {**KERNELS, **os.environ, **switches}
    manager = AsyncKernelManager(kernel_spec_manager=ThisPython())
    quiet = ["--IPKernelApp.log_level=50"]
    options = {"timeout": None, "record_timing": False, "coalesce_streams": True, "extra_arguments": quiet}
    client = NotebookClient(book, km=manager, resources={"metadata": {"path": str(folder)}}, **options)
    for cell in _code(book):
        cell.outputs, cell.execution_count = [], None
    try:
        with client.setup_kernel(cleanup_kc=True, env=environment, cwd=str(folder)):
            for index, cell in enumerate(book.cells):
                if cell.cell_type == "code":
                    with bar.cell(index):
                        client.execute_cell(cell, index)
    except CellExecutionError as error:
        reason = f"{error.ename}: {error.evalue}".strip().splitlines()
        raise LessonError(f"{bar.where()} failed: {' '.join(reason[:3])} (see the executed notebook).") from error
    except DeadKernelError as error:
        raise LessonError(f"{bar.where()}: the kernel died, most often for lack of memory.") from error


def _put(book: Any, target: Path, published: Path, fault: BaseException | None) -> None:
    """Write the executed notebook. What stands in its way is kept first, with the date in its name, where somebody
    worked in it, or where it ran to its end and this one did not. An interrupted run leaves such a one as it is."""
    there = readable(target)
    whole = fault is not None and there is not None and _ran(there)
    if whole and isinstance(fault, KeyboardInterrupt):
        store.say(f"{target} is from a run that went to its end, and stays. The notebook of this one is not written.")
        return
    if target.is_file() and (whole or worked_in(target, published, book)):
        store.say(f"{target} was there already; it is kept as {mine.keep(target, target.parent, OUT).name}.")
    write(book, target, OUT)


def _ran(book: Any) -> bool:
    """Whether every cell of code has run, and none has failed."""
    return all(
        cell.execution_count and not any(output.output_type == "error" for output in cell.outputs)
        for cell in _code(book)
        if cell.source.strip()
    )


def _code(book: Any) -> list[Any]:
    return [cell for cell in book.cells if cell.cell_type == "code"]


def _stamps(results: Path, lesson: course.Lesson) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in results.glob(f"{lesson.number:02d}-*.json")}


def _fresh_record(results: Path, lesson: course.Lesson, before: dict[Path, int]) -> dict:
    """The record that this run wrote. A notebook that ends without one has not shown what it promises."""
    fresh = [path for path, stamp in _stamps(results, lesson).items() if before.get(path) != stamp]
    record = store.read_json(fresh[0], None) if len(fresh) == 1 else None
    if not isinstance(record, dict):
        raise LessonError(
            f"Lesson {lesson.number:02d} ran to its end and wrote {len(fresh)} records to {results} instead of one. "
            "Its claims table, the cell that ends with claims.show(), writes it."
        )
    return record


def _update(path: Path, book: Any, record: dict) -> None:
    if record["data"] != "scenes":
        raise LessonError(f"{path.name} is left as it was: it ran on {record['data_name']}, not on built-in scenes.")
    now = [(cell.cell_type, cell.source) for cell in read(path).cells]
    if now != [(cell.cell_type, cell.source) for cell in book.cells]:
        raise LessonError(f"{path.name} was edited while it ran; its outputs are not updated. Run it again.")
    write(book, path)


def _references(record: dict) -> list[dict]:
    name = claims.record_name(record)
    return [other for other in claims.references(record["lesson"]) if claims.record_name(other) != name]


def _hold(record: dict) -> None:
    """LessonError when a claim that holds in the reference record of this scale and data does not hold here."""
    same = ("scale", "data")
    alike = [r for r in claims.references(record["lesson"]) if all(r[key] == record[key] for key in same)]
    if not alike:
        print(f"No reference record of lesson {record['lesson']:02d} at this scale on this data: nothing to hold.\n")
        return
    reference = min(alike, key=lambda other: other["device"] != record["device"])
    here = {row["key"]: row["verdict"] for row in record["claims"]}
    kept = [row for row in reference["claims"] if row["verdict"] == claims.HOLDS]
    lost = [row for row in kept if here.get(row["key"]) != claims.HOLDS]
    if lost:
        named = "; ".join(f"“{row['claim']}” ({here.get(row['key'], 'missing')})" for row in lost)
        where = f"held in the reference ({claims.title(reference)}), not here"
        raise LessonError(f"Lesson {record['lesson']:02d}: {where}: {named}.")
    print(f"All {len(kept)} claims that hold in the reference hold here.\n")


def _usual_scale() -> str:
    return "gpu" if torch.accelerator.is_available() else "cpu"


def _speed() -> float:
    from .doctor import training_speed

    return training_speed(seconds=2.0)


def expected_seconds(lesson: course.Lesson, scale: str, data: str, cells: list[Any]) -> list[float] | None:
    """Seconds per code cell in the reference record most like this run, None where there is none."""
    alike = [
        record
        for record in claims.references(lesson.number)
        if record["scale"] == scale and len(record.get("cell_seconds", ())) == len(cells)
    ]
    alike.sort(key=lambda record: record["data"] != ("scenes" if data == "scenes" else "real"))
    return alike[0]["cell_seconds"] if alike else None


class Bar:
    """A line on stderr: cells done, time left, the section that runs. Without a terminal, one line per section."""

    def __init__(self, book: Any, lesson: course.Lesson, expected: list[float] | None):
        self.lesson, self.expected = lesson, expected
        self.sections = _sections(book)
        self.total = len(self.sections)
        self.seconds: list[float] = []
        self.index = next(iter(self.sections), 0)
        self.shown, self.began, self.ticker = "", time.perf_counter(), None
        self.over = threading.Event()
        if sys.stderr.isatty():
            self.ticker = threading.Thread(target=self._tick, daemon=True)
            self.ticker.start()

    def cell(self, index: int) -> "Bar":
        """Context manager around the execution of the cell at this index of the notebook."""
        self.index = index
        return self

    def __enter__(self) -> None:
        self.began = time.perf_counter()
        section = self.sections[self.index]
        if self.ticker is None and section != self.shown:
            print(self.line(), file=sys.stderr, flush=True)
        self.shown = section

    def __exit__(self, *_: object) -> None:
        self.seconds.append(time.perf_counter() - self.began)

    def where(self) -> str:
        """The running cell in words."""
        return f"Lesson {self.lesson.number:02d}, cell {self.index + 1} (“{self.sections[self.index]}”)"

    def left(self) -> float | None:
        """Seconds left: from the reference run, corrected by how fast this machine is; else from the cells done."""
        done = len(self.seconds)
        inside = time.perf_counter() - self.began
        if self.expected is None:
            return sum(self.seconds) / done * (self.total - done) if done else None
        known = sum(self.expected[:done])
        factor = min(max(sum(self.seconds) / known, 0.2), 5.0) if known > 5 else 1.0
        rest = [seconds * factor for seconds in self.expected[done:]]
        return max(rest[0] - inside, 0.0) + sum(rest[1:]) if rest else 0.0

    def line(self) -> str:
        """The bar as text."""
        done, left = len(self.seconds), self.left()
        bar = "#" * round(20 * done / max(self.total, 1))
        rest = "" if left is None else f", about {int(left) // 60}:{int(left) % 60:02d} left"
        section = self.sections.get(self.index, "")
        return f"{self.lesson.number:02d} {self.lesson.title} [{bar:<20}] {done}/{self.total} cells{rest}: {section}"

    def _tick(self) -> None:
        while not self.over.wait(0.5):
            width = max(shutil.get_terminal_size().columns - 1, 20)
            print(f"\r{self.line()[:width]:<{width}}", end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        self.over.set()
        if self.ticker is not None:
            self.ticker.join()
            print(file=sys.stderr)


def _sections(book: Any) -> dict[int, str]:
    """For each code cell, by its index, the heading it stands under."""
    heading, sections = "start", {}
    for index, cell in enumerate(book.cells):
        if cell.cell_type == "markdown":
            titles = [line.lstrip("# ").strip() for line in cell.source.splitlines() if line.startswith("#")]
            heading = titles[-1] if titles else heading
        elif cell.cell_type == "code":
            sections[index] = heading
    return sections

"""What the paper says beside what was measured here, with a verdict computed from the numbers."""

import html
import json
import math
import os
import platform
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path

import torch

from . import __version__, rehearsal, store
from .errors import SettingError
from .session import FAMILIES, Run, processor

HOLDS, FAILS, UNCLEAR, UNJUDGED = "holds", "does not hold", "too small to tell", "not judged"
MARKS = {HOLDS: "✓", FAILS: "✗", UNCLEAR: "○", UNJUDGED: "–"}


def verdict(effects: Sequence[float] | float, *, error: float | None = None, at_least: float = 0.0) -> str:
    """Whether an effect (positive in the claimed direction) exceeds `at_least`, judged by its spread.

    Several values (one per seed) give a 95 % interval by Student's t; a single value needs `error`, one standard
    error, and gets plus or minus two of them. The claim holds when the interval lies above `at_least`, does not hold
    when it lies below, and is too small to tell when it contains it.
    """
    values = [float(effects)] if isinstance(effects, (int, float)) else [float(value) for value in effects]
    if not values:
        raise SettingError("There are no values to judge.")
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        if error is None:
            raise SettingError("One value has no spread: give its standard error, or the values of several seeds.")
        half = 2 * error
    else:
        from scipy.stats import t

        variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
        half = t.ppf(0.975, len(values) - 1) * math.sqrt(variance / len(values))
    if not math.isfinite(mean + half):
        return UNCLEAR
    return HOLDS if mean - half > at_least else FAILS if mean + half < at_least else UNCLEAR


def share_error(share: float, n: int) -> float:
    """Standard error of a share (an accuracy in [0, 1]) measured on `n` independent pictures."""
    return math.sqrt(max(share * (1 - share), 1 / n) / n)


@dataclass
class Claim:
    """One row: a claim, the paper's figure for it, ours, and the verdict."""

    key: str
    claim: str
    paper: str
    here: str
    verdict: str


@dataclass
class Claims:
    """The table at the end of a lesson, and the record of its run. `data` names the pictures it was measured on."""

    run: Run
    data: str
    rows: list[Claim] = field(default_factory=list)
    numbers: dict[str, float] = field(default_factory=dict)

    def add(self, key: str, claim: str, *, paper: str, here: str, verdict: str | bool) -> None:
        """Add a row. `verdict` comes from `verdict(...)`, or is a bool where the statement is exact."""
        if isinstance(verdict, bool):
            verdict = HOLDS if verdict else FAILS
        if verdict not in MARKS:
            raise SettingError(f"verdict is {verdict!r}; expected a bool or one of {', '.join(MARKS)}.")
        if self.run.scale == "smoke" or rehearsal.limits():
            verdict = UNJUDGED
        place = next((i for i, row in enumerate(self.rows) if row.key == key), len(self.rows))  # a cell may run twice
        self.rows[place : place + 1] = [Claim(key, claim, paper, here, verdict)]

    def number(self, key: str, value: float) -> None:
        """Record a further measured number, such as an accuracy or the seconds of a training."""
        self.numbers[key] = round(float(value), 6)

    def record(self) -> dict:
        """Everything a later reader needs to compare: claims, numbers, seconds, versions, seed."""
        run = self.run
        return {
            "lesson": run.lesson.number,
            "scale": run.scale,
            "data": "scenes" if self.data == "scenes" else "real",
            "data_name": self.data,
            "device": run.device.type,
            "hardware": run.hardware(),
            "processor": processor(),
            "precision": {family: str(run.precision(family) or torch.float32)[6:] for family in FAMILIES},
            "seconds": round(run.seconds(), 1),
            "seed": run.seed,
            "rehearsal": rehearsal.limits() is not None,
            "versions": {"lessons": __version__, "torch": torch.__version__, "python": platform.python_version()},
            "claims": [asdict(row) for row in self.rows],
            "numbers": dict(self.numbers),
        }

    def show(self) -> "Table":
        """The table: here and now beside the reference runs that ship with the package. Saves the record where a
        headless run asks for it (LESSONS_RESULTS, a folder)."""
        record = self.record()
        folder = os.environ.get("LESSONS_RESULTS")
        if folder:
            store.write_json(Path(folder) / record_name(record), record)
        others = [other for other in references(record["lesson"]) if record_name(other) != record_name(record)]
        return Table(record, others)


def record_name(record: dict) -> str:
    """File name of a record: one per lesson, scale, data source and kind of device."""
    return f"{record['lesson']:02d}-{record['scale']}-{record['data']}-{record['device']}.json"


def references(lesson: int | None = None) -> list[dict]:
    """The reference records in the package, of one lesson or of all, ordered by file name."""
    folder = resources.files("lessons") / "results"
    if not folder.is_dir():
        return []
    files = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".json")), key=lambda entry: entry.name)
    records = [json.loads(entry.read_text(encoding="utf-8")) for entry in files]
    return [record for record in records if lesson is None or record["lesson"] == lesson]


def title(record: dict) -> str:
    """A record in a few words: scale, data, hardware."""
    return f"{record['scale']}, {record['data_name']}, {record['hardware']}"


def reference_times(lesson: int) -> str:
    """How long the recorded runs of a lesson took, one line each."""
    lines = [f"Took {record['seconds'] / 60:.1f} minutes on {title(record)}." for record in references(lesson)]
    return "\n".join(lines) or "No reference run is recorded yet."


class Table:
    """Claims as a table: HTML in a notebook, text in a terminal."""

    def __init__(self, record: dict, references: list[dict]):
        self.record, self.references = record, references

    def _rows(self) -> list[list[str]]:
        rows = []
        for row in self.record["claims"]:
            cells = [row["claim"], row["paper"], f"{MARKS[row['verdict']]} {row['here']} ({row['verdict']})"]
            for other in self.references:
                match = next((claim for claim in other["claims"] if claim["key"] == row["key"]), None)
                cells.append(f"{MARKS[match['verdict']]} {match['here']}" if match else "")
            rows.append(cells)
        return rows

    def _header(self) -> list[str]:
        own = f"here: {title(self.record)}"
        return ["claim", "the paper", own] + [f"reference: {title(other)}" for other in self.references]

    def _repr_html_(self) -> str:
        cell = 'style="text-align:left;vertical-align:top;padding:4px 10px"'
        head = "".join(f"<th {cell}>{html.escape(text)}</th>" for text in self._header())
        body = "".join(
            "<tr>" + "".join(f"<td {cell}>{html.escape(text)}</td>" for text in row) + "</tr>" for row in self._rows()
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def __repr__(self) -> str:
        lines = [title(self.record), ""]
        header = self._header()
        for row in self._rows():
            lines += textwrap.wrap(row[0], 100)
            for name, text in zip(header[1:], row[1:], strict=True):
                if text:
                    lines += textwrap.wrap(f"{name}: {text}", 100, initial_indent="    ", subsequent_indent="      ")
            lines.append("")
        return "\n".join(lines)

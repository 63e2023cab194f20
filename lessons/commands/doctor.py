"""The pre-flight check: one line each for what is fine, what is not, and what to do then."""

import contextlib
import io
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from importlib import metadata

import psutil
import torch
from torch.nn import functional as F

from .. import claims, data, session, store, training
from ..data import scenes
from ..errors import LessonError
from ..nets.resnet import CifarResNet

Finding = tuple[str, str]  # a mark and a sentence
FINE, WARN, BAD = "✓", "!", "✗"
DISTRIBUTION = "vision-to-language"
BATCH = 128


def doctor() -> bool:
    """Print the findings as they come; True when the lessons can run here."""
    checks = (python, packages, switches_and_device, memory, disk, sources, widgets, waiting, speed)
    marks = []
    for check in checks:
        for mark, sentence in _attempt(check):
            print(f"{mark} {sentence}", flush=True)
            marks.append(mark)
    bad = marks.count(BAD)
    print(f"Mend what is marked {BAD} first." if bad else "The lessons can run here.")
    return not bad


def _attempt(check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """The findings of one check; an error is a finding too, and the other checks go on."""
    try:
        yield from check()
    except LessonError as error:
        yield BAD, " ".join(str(error).split())
    except Exception as error:  # whatever is wrong with this machine, the reader gets all lines
        yield BAD, f"{check.__name__}: {type(error).__name__}: {error}"


def python() -> Iterator[Finding]:
    """The interpreter and the system."""
    yield FINE, f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"


def packages() -> Iterator[Finding]:
    """What is installed against the ranges that the package declares."""
    from packaging.requirements import Requirement

    names = []
    for line in metadata.requires(DISTRIBUTION) or ():
        wanted = Requirement(line)
        if wanted.marker and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            version = "missing"
        if version != "missing" and wanted.specifier.contains(version, prereleases=True):
            names.append(f"{wanted.name} {version}")
        else:
            remedy = f"Run `make setup`, or pip install '{wanted.name}{wanted.specifier}'."
            yield BAD, f"{wanted.name} is {version}; the lessons need {wanted.specifier}. {remedy}"
    yield FINE, f"Packages: {', '.join(names)}"


def run_here() -> session.Run:
    """How a lesson would start here, without what it prints and without asking for data."""
    asked = os.environ.get("LESSONS_DATA")
    os.environ["LESSONS_DATA"] = "scenes"
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return session.start(1)
    finally:
        os.environ.pop("LESSONS_DATA") if asked is None else os.environ.update(LESSONS_DATA=asked)


def switches_and_device() -> Iterator[Finding]:
    """The device a lesson would take, its memory, and the precision it computes in."""
    run = run_here()
    why = "as LESSONS_PRECISION asks" if run.asked else "half precision is not native or not faster here"
    half = run.precision("transformer")
    precision = str(half)[6:] if half else f"float32 ({why})"
    room = ""
    if run.device.type == "cuda":
        free, total = torch.cuda.mem_get_info(run.device)
        room = f", {free / 2**30:.0f} of {total / 2**30:.0f} GiB free"
    yield FINE, f"Device: {run.hardware()}{room}; {precision}; lessons run at {run.scale} scale"
    if run.device.type == "cpu" and shutil.which("nvidia-smi"):
        yield WARN, "An NVIDIA driver is here, but this torch cannot use it. See https://pytorch.org/get-started"


def memory() -> Iterator[Finding]:
    """Main memory."""
    room = psutil.virtual_memory()
    available = room.available / 2**30
    line = f"Memory: {available:.1f} of {room.total / 2**30:.1f} GiB free, {os.cpu_count()} logical cores"
    if available < 1.5:
        yield BAD, f"{line}. A lesson needs about 2: close other programs or shut down other kernels."
    else:
        yield (FINE, line) if available >= 3 else (WARN, f"{line}: enough for one lesson at a time")


def disk() -> Iterator[Finding]:
    """Room in the cache, and whether it can be written."""
    folder = store.cache_dir()
    probe = folder / "doctor.json"
    store.write_json(probe, {"written": True})
    probe.unlink()
    free = shutil.disk_usage(folder).free / 2**30
    line = f"Cache: {folder}, writable, {free:.1f} GiB free"
    if free < 0.5:
        yield BAD, f"{line}. Free some space, or set LESSONS_CACHE_DIR to a folder on another disk."
    else:
        yield (FINE, line) if free >= 3 else (WARN, f"{line}: enough for scenes, tight for downloads")


def sources() -> Iterator[Finding]:
    """Where each data set can be had."""
    words = {"folder": "in LESSONS_DATA_DIR", "cache": "in the cache", "hub": "on the hub (one download)"}
    missing = []
    for name, spec in data.SETS.items():
        place = data.available(name)
        if place:
            yield FINE, f"Data: {spec.title} ({name}) {words[place]}"
        else:
            missing.append(name)
    if missing:
        advice = "connect to the hub, or name a folder in LESSONS_DATA_DIR, to have them"
        yield WARN, f"Data: not here: {', '.join(missing)}. Lessons use the built-in scenes instead; {advice}."


def widgets() -> Iterator[Finding]:
    """Jupyter and its widgets."""
    missing = []
    for name in ("jupyterlab", "ipywidgets", "jupyterlab_widgets"):
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        remedy = f"Still figures stand in for widgets; pip install {' '.join(missing)} to have them."
        yield WARN, f"Jupyter: {', '.join(missing)} not installed. {remedy}"
    else:
        yield FINE, f"JupyterLab {metadata.version('jupyterlab')} with widgets {metadata.version('ipywidgets')}"


def waiting() -> Iterator[Finding]:
    """Whether two kernels at once would fight over the cores."""
    if os.environ.get("OMP_WAIT_POLICY", "").upper() == "PASSIVE":
        yield FINE, "Idle threads sleep (OMP_WAIT_POLICY=PASSIVE), so two kernels share the cores"
    else:
        remedy = "`make lab` sets it; elsewhere set it before Jupyter starts."
        yield WARN, f"OMP_WAIT_POLICY is not PASSIVE: two kernels that train at once slow each other down. {remedy}"


def speed() -> Iterator[Finding]:
    """Ten seconds of training, and what they say about the time of the lessons."""
    here = training_speed(seconds=10.0)
    yield FINE, f"Training: {here:,.0f} pictures of 32 px per second through a small ResNet"
    scale = run_here().scale
    alike = [r for r in claims.references() if r["scale"] == scale and r.get("pictures_per_second")]
    if alike:
        minutes = {r["lesson"]: r["seconds"] * r["pictures_per_second"] / here / 60 for r in alike}
        listed = ", ".join(f"{lesson:02d} {value:.0f}" for lesson, value in sorted(minutes.items()))
        yield FINE, f"Minutes per lesson at {scale} scale, estimated from the reference runs: {listed}"


def training_speed(seconds: float) -> float:
    """Pictures per second of a small ResNet that learns shapes in scenes, on the device a lesson would take. Raises
    LessonError when its loss is not a number: then this machine computes wrongly."""
    run = run_here()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pictures = scenes.render("things", 8 * BATCH, size=32).pictures().to(run.device)
        network = CifarResNet(8, classes=len(pictures.classes)).to(run.device)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
        step, loss, start = 0, torch.zeros(()), time.perf_counter()
        while step < 3 or time.perf_counter() - start < seconds:
            part = slice(step % 8 * BATCH, (step % 8 + 1) * BATCH)
            loss = F.cross_entropy(network(training.to_input(pictures.images[part])), pictures.labels[part])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            if step == 2:  # the first steps load kernels and set up memory
                loss.item()
                start = time.perf_counter()
        if not torch.isfinite(loss).item():
            raise LessonError(f"A short training on {run.hardware()} ended with loss {loss.item()}: reinstall torch.")
        return round((step - 2) * BATCH / (time.perf_counter() - start), 1)

"""How a notebook runs here: which device, which scale, which data, which seed."""

import os
import platform
import time
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TypeVar

import torch
from torch.nn import Module

from . import compat, course, data, kernel, rehearsal
from .errors import DataError, SettingError

SCALES = ("smoke", "cpu", "gpu")
SOURCES = ("auto", "real", "scenes")
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
FAMILIES = ("conv", "transformer")
T = TypeVar("T")


@dataclass
class Run:
    """What `start` decided. `device`: where tensors live; `scale`: "smoke", "cpu" or "gpu"; `source`: what to ask
    `lessons.data` for, "real" or "scenes" ("auto" when the hub has yet to deliver); `seed`: the one seed of the
    notebook; `asked`: the precision that LESSONS_PRECISION names, if any."""

    lesson: course.Lesson
    device: torch.device
    scale: str
    source: str
    seed: int = 0
    asked: str | None = None
    started: float = field(default_factory=time.perf_counter)

    def pick(self, *, smoke: T, cpu: T, gpu: T) -> T:
        """The value for this scale: the only place where a notebook's code depends on it."""
        return rehearsal.fewer({"smoke": smoke, "cpu": cpu, "gpu": gpu}[self.scale])

    def precision(self, family: str) -> torch.dtype | None:
        """What autocast computes in for this family of networks ("conv" or "transformer"); None for float32.

        What LESSONS_PRECISION names, else bfloat16 or float16 where the hardware computes in it natively. On a CPU both
        families gain about twofold from bfloat16 where the AMX instructions exist, provided attention is written out
        as in nets/vit.py (the fused one has a slow bfloat16 backward pass there), and lose elsewhere.
        """
        if family not in FAMILIES:
            raise SettingError(f"family is {family!r}; expected 'conv' or 'transformer'.")
        if self.asked:
            return PRECISIONS[self.asked]
        if self.device.type == "cuda":
            return _native_half(self.device)
        if self.device.type == "xpu":
            return torch.bfloat16
        return torch.bfloat16 if self.device.type == "cpu" and _has_amx() else None

    def autocast(self, family: str):
        """Context manager that computes in `precision(family)`; does nothing where that is None."""
        dtype = self.precision(family)
        return torch.autocast(self.device.type, dtype=dtype) if dtype else nullcontext()

    def place(self, network: Module, family: str) -> Module:
        """`network` on the device; convolutional ones with channels last in memory, which is faster on CPU and CUDA."""
        if family == "conv" and self.device.type in ("cpu", "cuda"):
            return network.to(self.device, memory_format=torch.channels_last)
        return network.to(self.device)

    def seconds(self) -> float:
        """Wall-clock seconds since `start`."""
        return time.perf_counter() - self.started

    def hardware(self) -> str:
        """The device in words, such as "2 CPU cores" or "NVIDIA H100"."""
        if self.device.type == "mps":
            return f"Apple GPU ({platform.machine()})"
        if self.device.type != "cpu":
            module = torch.get_device_module(self.device)
            return module.get_device_name(self.device) if hasattr(module, "get_device_name") else str(self.device)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return f"{cores} CPU core{'s' if cores != 1 else ''}"


def start(lesson: int, *, seed: int = 0) -> Run:
    """Prepare lesson `lesson` (1 to 11): read the switches, choose the rest, seed, and say so in one line.

    LESSONS_SCALE (smoke, cpu, gpu; by itself gpu where there is an accelerator, else cpu), LESSONS_DATA (auto,
    real, scenes; auto takes the real data when it can be had), LESSONS_DATA_DIR (a folder that holds it) and
    LESSONS_PRECISION (float32, bfloat16, float16; by itself what the hardware computes in natively).
    Raises SettingError for a value that is not allowed, DataError when LESSONS_DATA=real and there is none.
    """
    step = course.lesson(lesson)
    scale = _switch("LESSONS_SCALE", SCALES, None)
    wanted = _switch("LESSONS_DATA", SOURCES, "auto")
    asked = _switch("LESSONS_PRECISION", tuple(PRECISIONS), None)
    device = find_device()
    compat.do_missing_on_cpu(device)
    scale = scale or ("cpu" if device.type == "cpu" else "gpu")
    source, reason = _source(step.data, wanted)
    torch.manual_seed(seed)
    kernel.explain_missing_names()
    run = Run(step, device, scale, source, seed, asked)
    words = [f"{scale} scale on {run.hardware()}", *([f"{asked}, as LESSONS_PRECISION asks"] if asked else []), reason]
    print(f"Lesson {step.number:02d} {step.title}: {'; '.join(words)}; seed {seed}.")
    rehearsal.announce()
    return run


def _switch(name: str, allowed: tuple[str, ...], default: str | None) -> str | None:
    value = os.environ.get(name, "").strip().lower()
    if value and value not in allowed:
        raise SettingError(f"{name} is {value!r}. Allowed: {', '.join(allowed)}. Unset it to let the notebook choose.")
    return value or default


def find_device() -> torch.device:
    """The accelerator that torch found (CUDA, MPS, XPU, ...), else the CPU."""
    if not torch.accelerator.is_available():
        return torch.device("cpu")
    return torch.device(torch.accelerator.current_accelerator().type)


def _native_half(device: torch.device) -> torch.dtype | None:
    """The half precision that this CUDA device computes in natively: bfloat16 from compute capability 8 (Ampere) on,
    float16 from 7 (Volta, the T4) on. `torch.cuda.is_bf16_supported()` does not tell: it is also true where bfloat16 is
    emulated, slower than float32."""
    major = torch.cuda.get_device_capability(device)[0]
    return torch.bfloat16 if major >= 8 else torch.float16 if major == 7 else None


def _source(name: str, wanted: str) -> tuple[str, str]:
    """(what to ask lessons.data for, a phrase for the reader). Data that is wanted but missing is an error here."""
    if wanted == "scenes":
        return "scenes", "built-in scenes, as LESSONS_DATA=scenes asks"
    place = data.available(name)
    if place:
        where = {"folder": "the folder LESSONS_DATA_DIR", "cache": "the cache", "hub": "the hub (one download)"}[place]
        # A download may fail halfway: then "auto" still ends in the scenes, unless the reader insisted.
        return ("auto" if place == "hub" and wanted == "auto" else "real"), f"{data.title(name)} from {where}"
    if wanted == "real":
        raise DataError(data.how_to_get(name))
    return "scenes", (
        f"built-in scenes, because {data.SETS[name].title} is neither in LESSONS_DATA_DIR nor in the cache and "
        "the hub does not answer (connect, or name a folder in LESSONS_DATA_DIR, to change that)"
    )


@cache
def _has_amx() -> bool:
    """Whether the CPU has bfloat16 matrix tiles. Only Linux tells; elsewhere float32 is the safe choice."""
    try:
        return "amx_bf16" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


@cache
def processor() -> str:
    """The CPU by its name and the instructions that torch uses on it, such as "AMD EPYC (AVX512)"."""
    name = platform.processor() or platform.machine()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    ceiling = os.environ.get("ONEDNN_MAX_CPU_ISA", "")
    tiles = "AMX" if _has_amx() else ""
    found = (torch.backends.cpu.get_cpu_capability(), tiles, ceiling and f"ONEDNN_MAX_CPU_ISA={ceiling}")
    return f"{name} ({', '.join(part for part in found if part)})"

"""Work-arounds for combinations of versions that exist in the wild, each in one place."""

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

# torchvision's import describes the shapes of these two compiled operators to torch, and fails where they are missing.
_MISSING_OPERATORS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_declared: list[torch.library.Library] = []  # a declaration lives as long as its Library object


def import_torchvision() -> ModuleType:
    """Import torchvision, also where its compiled part was built for another torch, and return the module.

    A CPU build of torch beside a CUDA build of torchvision (or the reverse) makes `import torchvision` fail with
    "operator torchvision::nms does not exist". Its transforms and networks are plain Python on top of torch and need no
    compiled operator, so declaring the missing operators' signatures is enough for them; calling
    torchvision.ops.nms itself still fails, with torch's own message. Raises what the import raises otherwise
    (ImportError: not installed).
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
    library = torch.library.Library("torchvision", "FRAGMENT")
    _declared.append(library)
    for name, schema in _MISSING_OPERATORS.items():
        if not hasattr(torch.ops.torchvision, name):
            library.define(schema)
    # The failed import left half-loaded modules behind, which a second import would take for whole ones.
    for module in [name for name in sys.modules if name == "torchvision" or name.startswith("torchvision.")]:
        del sys.modules[module]
    return importlib.import_module("torchvision")


def float64(tensor: Tensor) -> Tensor:
    """The tensor in float64, on its own device where that computes in float64, else on the CPU (Apple's GPUs and some
    of Intel's do not)."""
    try:
        return tensor.double()
    except (TypeError, RuntimeError):
        return tensor.cpu().double()


class _OnTheCPU(TorchFunctionMode):
    """Repeats on the CPU what torch says this device cannot do, with gradients, and says so once per operation."""

    def __init__(self, device: torch.device):
        super().__init__()
        self.kind, self.said = device.type, set()

    def __torch_function__(self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        try:
            return function(*args, **kwargs)
        except NotImplementedError:
            if function in _BACKWARD:  # the backward of an operation: its forward would have to be repeated
                raise
            return self._repeat(function, args, kwargs)

    def _repeat(self, function: Callable, args: tuple, kwargs: dict) -> Any:
        moved: list[tuple[Tensor, Tensor, int]] = []

        def to_cpu(tensor: Tensor) -> Tensor:
            if tensor.device.type != self.kind:
                return tensor
            copy = tensor.cpu()
            moved.append((tensor, copy, copy._version))
            return copy

        (args, kwargs), place = tree_map_only(Tensor, to_cpu, (args, kwargs)), None
        if not moved:
            return function(*args, **kwargs)  # raises again: no tensor of this device takes part
        result = function(*args, **kwargs)
        name = getattr(function, "__name__", str(function))
        if name not in self.said:
            self.said.add(name)
            print(f"{name} is not available on this {self.kind} device; it is computed on the CPU, which is slower.")
        changed = {id(copy): tensor.copy_(copy) for tensor, copy, version in moved if copy._version != version}
        place = moved[0][0].device
        return tree_map_only(Tensor, lambda t: changed.get(id(t), t.to(place)), result)


_BACKWARD = (Tensor.backward, torch.autograd.backward, torch.autograd.grad)
_helping: list[_OnTheCPU] = []  # one mode for the whole session, however often `start` is called


def help_out(device: torch.device) -> None:
    """From now on, do on the CPU what this device cannot do, with one line that says so. CPU and CUDA lack nothing."""
    if device.type in ("cpu", "cuda") or _helping:
        return
    _helping.append(_OnTheCPU(device))
    _helping[0].__enter__()

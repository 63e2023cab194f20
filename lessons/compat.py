"""Work-arounds for combinations of versions that exist in the wild, each in one place."""

import importlib
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
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
        except NotImplementedError as missing:
            if function in _BACKWARD:  # of an operation whose forward pass is over
                raise
            try:
                return self._repeat(function, args, kwargs)
            except RuntimeError:  # its other arguments belong to the device too, or torch cannot do it anywhere
                raise missing from None

    def _repeat(self, function: Callable, args: tuple, kwargs: dict) -> Any:
        moved: list[tuple[Tensor, Tensor, Tensor]] = []  # a tensor of the device, its copy, and the copy as it was

        def to_cpu(tensor: Tensor) -> Tensor:
            if tensor.device.type != self.kind:
                return tensor
            copy = tensor.cpu()
            moved.append((tensor, copy, copy.detach().clone()))
            return copy

        args, kwargs = tree_map_only(Tensor, to_cpu, (args, kwargs))
        if not moved:
            raise RuntimeError("no tensor of this device takes part")
        result = function(*args, **kwargs)
        name = getattr(function, "__name__", str(function))
        if name not in self.said:
            self.said.add(name)
            print(f"{name} is not available on this {self.kind} device; it is computed on the CPU, which is slower.")
        # By content: fused steps, for one, change tensors in place without counting it as a new version.
        changed = {id(copy): tensor.copy_(copy) for tensor, copy, old in moved if not torch.equal(copy.detach(), old)}
        place = moved[0][0].device
        return tree_map_only(Tensor, lambda t: changed.get(id(t), t.to(place)), result)


_BACKWARD = (Tensor.backward, torch.autograd.backward, torch.autograd.grad)
_mode: _OnTheCPU | None = None


def do_missing_on_cpu(device: torch.device) -> None:
    """From now on, do on the CPU what this device cannot do, with a line that says so. CPU and CUDA lack nothing. Holds
    for the thread that calls; see `helped`."""
    global _mode
    if device.type not in ("cpu", "cuda") and _mode is None:
        _mode = _OnTheCPU(device)
        _mode.__enter__()


def helped() -> AbstractContextManager:
    """Context manager for another thread: what `do_missing_on_cpu` promised holds there too."""
    return _mode or nullcontext()

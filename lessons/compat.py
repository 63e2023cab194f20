"""Work-arounds for combinations of versions that exist in the wild, each in one place."""

import importlib
import sys
from types import ModuleType

import torch

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

"""A pretend accelerator for torch: importing this module makes the device "sim", and torch.accelerator finds it.

Compiled once, beside torch's other extensions. Needs a C++ compiler and ninja; raises what torch's loader raises where
one is missing. `operations()` and `waits()` count; `lack({"aten::linalg_eigh"})` makes operations missing.
"""

import types
from pathlib import Path

import torch
from torch.utils.cpp_extension import load

_sim = load("lessons_pretend_device", [str(Path(__file__).with_name("sim.cpp"))], extra_cflags=["-O1"])
operations, waits, lack = _sim.operations, _sim.waits, _sim.lack


def _module() -> types.ModuleType:
    """What torch asks a device's Python module for."""
    module, generator = types.ModuleType("torch.sim"), _sim.default_generator()
    module.is_available = lambda: True
    module.is_initialized = lambda: True
    module._is_in_bad_fork = lambda: False
    module.device_count = lambda: 1
    module.current_device = lambda: 0
    module.get_device_name = lambda device=None: "pretend accelerator"
    module.get_amp_supported_dtype = lambda: [torch.bfloat16, torch.float16]
    module.manual_seed = module.manual_seed_all = generator.manual_seed
    module.get_rng_state = lambda device=0: generator.get_state()
    module.set_rng_state = lambda state, device=0: generator.set_state(state)
    module.synchronize = module.set_device = lambda *_: None
    module.empty_cache = lambda: None
    return module


def _deepcopy(tensor: torch.Tensor, memo: dict) -> torch.Tensor:
    """A storage of this device cannot be copied by Python; the tensor can."""
    if tensor.device.type != "sim":
        return _usual_deepcopy(tensor, memo)
    if id(tensor) not in memo:
        copy = tensor.detach().clone().requires_grad_(tensor.requires_grad)
        memo[id(tensor)] = torch.nn.Parameter(copy) if isinstance(tensor, torch.nn.Parameter) else copy
    return memo[id(tensor)]


torch.utils.rename_privateuse1_backend("sim")
torch._register_device_module("sim", _module())
_sim.init()
torch.utils.generate_methods_for_privateuse1_backend(unsupported_dtype=None)
_usual_deepcopy, torch.Tensor.__deepcopy__ = torch.Tensor.__deepcopy__, _deepcopy

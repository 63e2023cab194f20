"""How exactly losses, cosines and scores are computed."""

import torch
from torch import Tensor


def full(x: Tensor) -> Tensor:
    """x in float32 where it is coarser (bfloat16, float16, whole numbers); float32 and float64 stay as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class LossScaler:
    """torch's GradScaler for one optimiser, and a count of the steps it skipped. Does nothing unless `precision` is
    float16.

    Gradients below 6e-8 are zero in float16, and numbers above 65,504 infinite. So the loss is multiplied by a large
    number before the backward pass and the gradient divided by it afterwards; where it overflowed, the step is left
    out and the number halved (Micikevicius et al. 2018, Mixed Precision Training, arXiv 1710.03740, section 3.2).
    """

    def __init__(self, optimizer: torch.optim.Optimizer, device: torch.device, precision: torch.dtype | None):
        self.optimizer, self.enabled = optimizer, precision == torch.float16
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.enabled)
        self.unit, self.skips = torch.ones((), device=device), torch.zeros((), device=device)
        if self.enabled:
            _decide_on_device(optimizer, device)

    def scale(self, loss: Tensor) -> Tensor:
        """The loss to call backward() on."""
        return self.scaler.scale(loss)

    def unscale(self) -> None:
        """Give the gradients their true size, before they are clipped."""
        self.scaler.unscale_(self.optimizer)

    def step(self) -> None:
        """Update the weights, unless the gradient overflowed; nothing here waits for the device."""
        before = self.scaler.scale(self.unit) if self.enabled else None
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.enabled:
            self.skips += self.scaler.scale(self.unit) < before

    def skipped(self) -> int:
        """How many steps were skipped so far."""
        return int(self.skips) if self.enabled else 0


def _decide_on_device(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Let a fresh SGD or Adam leave out a step by itself, as its argument `fused=True` does: otherwise GradScaler asks
    the device before each step whether the gradient overflowed, and waits for the answer."""
    groups = optimizer.param_groups
    if type(optimizer) not in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW):
        return
    # Apple's fused steps ignored the scale in older versions of torch; dampening would change SGD's first step below.
    fits = device.type != "mps" and not any(group.get("dampening") for group in groups)
    if fits and not optimizer.state:
        for group in groups:
            group.update(fused=True, foreach=False)
            if group.get("momentum"):  # fused SGD leaves its memory uninitialised where it skips the very first step
                for parameter in group["params"]:
                    optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    optimizer._step_supports_amp_scaling = fits and all(group.get("fused") for group in groups)

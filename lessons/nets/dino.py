"""Lesson 06: a head of prototypes, multi-crop, and schedules (Caron et al. 2021, DINO, arXiv 2104.14294)."""

import math
from collections.abc import Callable, Sequence
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import SettingError
from ..precision import full


class DINOHead(nn.Module):
    """Projection head: features (B, D) -> logits (B, K), one per prototype, each in [-1, 1].

    `layers` linear layers with GELU between, `hidden` wide, the last of them giving `bottleneck` numbers; these are
    normalised to length 1 and compared with K unit vectors, so a logit is a cosine. That is the authors' last layer
    with weight normalisation and its gain fixed at 1 (section 3.1 and appendix C); their sizes are hidden=2048,
    bottleneck=256, K=65536. Neither batch norm nor, in the last layer, bias.
    """

    def __init__(self, width: int, K: int = 256, *, hidden: int = 256, bottleneck: int = 64, layers: int = 3):
        super().__init__()
        if layers < 1:
            raise SettingError(f"A head has at least one layer, not {layers}.")
        sizes = [width] + [hidden] * (layers - 1) + [bottleneck]
        steps = [step for a, b in zip(sizes, sizes[1:], strict=False) for step in (nn.Linear(a, b), nn.GELU())]
        self.mlp = nn.Sequential(*steps[:-1])
        self.prototypes = nn.Parameter(torch.empty(K, bottleneck))
        for layer in self.mlp[::2]:
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        nn.init.kaiming_uniform_(self.prototypes, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        z = F.normalize(full(self.mlp(x)), dim=-1)  # (B, bottleneck), on the sphere
        with torch.autocast(x.device.type, enabled=False):  # temperatures of .04 would blow up the rounding of bfloat16
            return z @ F.normalize(self.prototypes, dim=-1).T


class DINONetwork(nn.Module):
    """A backbone (B, 3, H, W) -> (B, D) under a head (B, D) -> (B, K): what student and teacher both are.

    Called with a list of V views of one batch, which may differ in size, it gives their logits (V, B, K), in order.
    Views of one size that follow each other run through the backbone as one batch. Raises SettingError for no view,
    and for views of different numbers of pictures.
    """

    def __init__(self, backbone: nn.Module, head: nn.Module):
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, views: Sequence[Tensor]) -> Tensor:
        if isinstance(views, Tensor) or not len(views) or len({len(view) for view in views}) > 1:
            came = tuple(views.shape) if isinstance(views, Tensor) else [tuple(view.shape) for view in views]
            raise SettingError(f"Expected a list of views (B, 3, H, W) of the same B pictures, got {came}.")
        sizes = groupby(views, key=lambda view: view.shape[-2:])
        features = torch.cat([self.backbone(torch.cat(list(same))) for _, same in sizes])  # (V B, D)
        return self.head(features).unflatten(0, (len(views), -1))  # (V, B, K)


def momentum_schedule(steps: int, start: float = 0.996, end: float = 1.0) -> Callable[[int], float]:
    """The teacher's momentum at each step, from `start` to `end` along half a cosine (section 3.1); the middle is the
    mean of both. Raises SettingError for numbers outside [0, 1]."""
    if not (0 <= start <= 1 and 0 <= end <= 1):
        raise SettingError(f"A momentum lies within 0 and 1; got {start} and {end}.")
    return lambda step: end - (end - start) * (1 + math.cos(math.pi * min(step, steps) / max(1, steps))) / 2


def temperature_schedule(warmup: int, start: float = 0.04, end: float = 0.07) -> Callable[[int], float]:
    """The teacher's temperature at each step: from `start` to `end` in a straight line over `warmup` steps, then
    constant (the paper warms up for 30 epochs). Raises SettingError unless both are above 0."""
    if min(start, end) <= 0:
        raise SettingError(f"A temperature is above 0; got {start} and {end}.")
    return lambda step: start + (end - start) * min(1.0, step / warmup) if warmup > 0 else end

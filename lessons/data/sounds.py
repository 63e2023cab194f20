"""A sound for every scene: each object sings its colour, shape and size, and a picture is heard as the sum of its
objects.

Pitch is the colour, timbre and rhythm are the shape, loudness and length are the size. The random phase, vibrato,
tempo, onset, level and noise of each sound belong to (seed, picture), so that no two takes of an object are the same
samples.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import SettingError
from .drawing import COLOURS, SHAPES, uniform

if TYPE_CHECKING:
    from .scenes import Scenes

PITCHES = tuple(220 * 2 ** (0.42 * k) for k in range(len(COLOURS)))  # Hz, 220 to 1690

# Per shape: sixteen steps of loudness (digits 0 to 9), the strengths of the partials 1, 2, 3 (or others) and a glide in
# octaves from beginning to end.
VOICES = {
    "circle": ("9999999999999999", (1.0, 0.0, 0.0), 0.0),  # a pure tone, held
    "square": ("9999000099990000", (1.0, 0.0, 0.6), 0.0),  # two hollow notes
    "triangle": ("5667778888999999", (1.0, 0.2, 0.1), 0.36),  # rises
    "diamond": ("9999998888777665", (1.0, 0.2, 0.1), -0.36),  # falls
    "cross": ("9090909090909090", (1.0, 0.5, 0.3), 0.0),  # a fast rattle
    "ring": ("9876543322211110", (1.0, 0.8, 0.0), 0.0),  # a struck bell, see RATIOS
    "star": ("9300930093009300", (1.0, 0.75, 0.0), 0.0),  # four bright plucks
    "heart": ("9900990000000000", (1.0, 0.4, 0.0), 0.0),  # a heartbeat
    "moon": ("0011223344566789", (1.0, 0.0, 0.2), 0.0),  # swells
    "arrow": ("9000000900090909", (1.0, 0.6, 0.4), 0.0),  # faster and faster
}
STEP = 32  # samples between points of the slow curves: loudness, glide, vibrato
RATIOS = {"ring": (1.0, 2.76, 5.4)}  # a bell's partials are no multiples; all others: 1, 2, 3


def sounds(scenes: Scenes, *, seed: int = 0, rate: int = 8000, seconds: float = 1.024) -> Tensor:
    """The sounds of N scenes, float32 (N, T) in [-1, 1] with T = rate * seconds samples. Another `seed` gives other
    takes (phase, vibrato, tempo +-15 %, onset, level, noise) of the same objects; partials above .45 * rate are left
    out. Raises SettingError for a rate below 4000 (the highest pitch is 1690 Hz) or no duration."""
    if rate < 4000 or seconds <= 0:
        raise SettingError(f"sounds need rate >= 4000 Hz and seconds > 0, not rate={rate}, seconds={seconds}.")
    length = round(rate * seconds)
    result = torch.empty(len(scenes), length, device=scenes.index.device)
    with torch.no_grad():
        for rows in torch.arange(len(scenes), device=scenes.index.device).split(32):
            part = scenes[rows]
            takes = uniform(scenes.seed * 1_000_003 + seed, part.index, "sounds", part.present.shape[1], 8)
            here, slot = part.present.nonzero(as_tuple=True)
            mixture = torch.zeros(len(part), length, device=result.device)
            mixture.index_add_(0, here, _sing(part, here, slot, takes[here, slot], rate, length))
            result[rows] = _finish(mixture, scenes.seed * 1_000_003 + seed, part.index)
    return result


def _sing(scenes: Scenes, here: Tensor, slot: Tensor, take: Tensor, rate: int, length: int) -> Tensor:
    """K sounds (K, T) of the objects (here, slot), with eight random numbers each, take (K, 8)."""
    device = here.device
    shape, size = scenes.shape[here, slot], scenes.size[here, slot]
    take = take.T[:, :, None]  # (8, K, 1)
    pitch = torch.tensor(PITCHES, device=device)[scenes.colour[here, slot], None] * 2 ** ((take[0] - 0.5) * 0.06)
    # Loudness and deviations of pitch change slowly: they are computed at few points and interpolated.
    time = torch.linspace(0, length / rate, max(length // STEP, 2), device=device)
    tempo, onset = 1 + 0.3 * (take[1] - 0.5), 0.08 * take[2]
    beat = ((time - onset) * tempo).clamp(min=0)  # the object's own time
    level = (0.45 + 1.1 * size).clamp(max=1)[:, None] * (0.8 + 0.2 * take[6])
    fade = torch.exp(-beat * (1.6 - 2.5 * size).clamp(min=0.1)[:, None])  # small things die away sooner
    loudness = level * fade * _rhythm(shape, beat) * (time >= onset)
    glide = torch.tensor([VOICES[s][2] for s in SHAPES], device=device)[shape, None] * math.log(2)
    rate_of_vibrato = 2 * math.pi * (4 + 3 * take[3])
    bend = (glide / 2) * beat * (beat - 1) - 0.01 * take[4] * torch.cos(rate_of_vibrato * beat) / rate_of_vibrato
    curves = torch.stack((loudness, bend * pitch / tempo + take[5]), 1)
    loudness, bend = torch.nn.functional.interpolate(curves, length, mode="linear", align_corners=True).unbind(1)
    phase = (bend + pitch * (torch.arange(length, device=device) / rate)) * (2 * math.pi)

    strength = torch.tensor([VOICES[s][1] for s in SHAPES], device=device)[shape]
    ratio = torch.tensor([RATIOS.get(s, (1.0, 2.0, 3.0)) for s in SHAPES], device=device)[shape]
    strength = strength * (ratio * pitch < 0.45 * rate)
    strength = strength / strength.sum(1, keepdim=True)
    wave = strength[:, :1] * torch.sin(phase)
    for k in (1, 2):
        rows = (strength[:, k] > 0).nonzero()[:, 0]  # many voices have silent partials
        wave[rows] += strength[rows, k : k + 1] * torch.sin(ratio[rows, k : k + 1] * phase[rows])
    return wave * loudness


def _rhythm(shape: Tensor, beat: Tensor) -> Tensor:
    """Loudness (K, P) at the moments beat (K, P), in seconds, from the sixteen steps of each shape; silent after the
    last."""
    steps = torch.tensor([[int(c) / 9 for c in VOICES[s][0]] + [0.0, 0.0] for s in SHAPES], device=shape.device)[shape]
    at = (beat * (16 / 0.9)).clamp(max=16.999)
    low = at.long()
    f = ((at - low) * 4 - 3).clamp(min=0)  # hold for three quarters of a step, then go over to the next
    now, then = steps.gather(1, low), steps.gather(1, low + 1)
    return now + (then - now) * f


def _finish(mixture: Tensor, seed: int, index: Tensor) -> Tensor:
    """Add noise and keep within [-1, 1]: loud mixtures are scaled down as a whole."""
    length = mixture.shape[1]
    loud = mixture.abs().amax(1, keepdim=True)
    tape = uniform(seed, index.new_zeros(1), "hiss", length + 4096)[0] - 0.5  # one tape of noise, started anywhere
    start = (uniform(seed, index, "hiss start", 1) * 4096).long()
    level = 0.01 + 0.03 * uniform(seed, index, "hiss level", 1)
    noise = tape.unfold(0, length, 1)[start[:, 0]]
    return (0.9 * mixture / loud.clamp(min=1) + level * noise).clamp(-1, 1)

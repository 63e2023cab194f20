"""Lesson 09: sounds as pictures of their frequencies, and a small tower that reads them."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import SettingError
from ..precision import full

FLOOR = 1e-6  # power below which all is silence: the logarithm of nothing would be minus infinity


def to_mel(hertz: Tensor) -> Tensor:
    """Hertz to mel, the scale on which equal steps sound equally far apart: 2595 log10(1 + f / 700), the HTK form."""
    return 2595 * torch.log10(1 + hertz / 700)


def to_hertz(mel: Tensor) -> Tensor:
    """Mel to hertz, the inverse of `to_mel`."""
    return 700 * (10 ** (mel / 2595) - 1)


def mel_filters(bands: int, size: int, rate: int, low: float = 0.0, high: float | None = None) -> Tensor:
    """Triangles that gather the size // 2 + 1 frequencies of a Fourier transform into `bands`: (1 + size // 2, bands).

    The triangles stand at equal steps in mel between `low` and `high` Hz (rate / 2 by default); each begins and ends
    where its neighbours peak, with height 1. Equal to transformers.audio_utils.mel_filter_bank with mel_scale="htk"
    and norm=None. Raises SettingError for limits that leave no range below rate / 2, and where there are so many bands
    that one of them would hear nothing.
    """
    high = rate / 2 if high is None else high
    if not 0 <= low < high <= rate / 2 or bands < 1:
        raise SettingError(f"Expected 0 <= low < high <= {rate / 2:g} Hz and bands >= 1; got {low}, {high}, {bands}.")
    frequencies = torch.linspace(0, rate / 2, size // 2 + 1, dtype=torch.float64)
    limits = to_mel(torch.tensor([low, high], dtype=torch.float64)).tolist()
    corners = to_hertz(torch.linspace(*limits, bands + 2, dtype=torch.float64))
    slopes = corners[None] - frequencies[:, None]  # (bins, bands + 2), in Hz
    width = corners.diff()  # (bands + 1,)
    rising, falling = -slopes[:, :-2] / width[:-1], slopes[:, 2:] / width[1:]
    filters = torch.minimum(rising, falling).clamp(min=0).to(torch.get_default_dtype())
    if empty := int((filters.sum(0) == 0).sum()):
        raise SettingError(
            f"{empty} of {bands} mel bands fall between two frequencies of a transform of {size} samples at {rate} Hz. "
            "Take fewer bands, or a longer frame."
        )
    return filters


class LogMel(nn.Module):
    """Waves (B, T) float at `rate` Hz -> log-mel spectrogram (B, bands, frames) with 1 + T // hop frames.

    Frames of `size` samples every `hop`, centred on their moment (the ends are mirrored); a periodic Hann window; the
    squared magnitude of the Fourier transform; `mel_filters`; the natural logarithm of what exceeds `floor`. Equal to
    transformers.audio_utils.spectrogram with power=2 and log_mel="log". Raises SettingError for waves shorter than
    half a frame, which cannot be mirrored.
    """

    def __init__(
        self,
        rate: int = 8000,
        size: int = 512,
        hop: int = 170,
        bands: int = 64,
        low: float = 60.0,
        floor: float = FLOOR,
    ):
        super().__init__()
        self.rate, self.size, self.hop, self.floor = rate, size, hop, floor
        self.register_buffer("window", torch.hann_window(size), persistent=False)
        self.register_buffer("filters", mel_filters(bands, size, rate, low), persistent=False)

    def frames(self, waves: Tensor) -> Tensor:
        """Overlapping pieces of the waves: (B, T) -> (B, frames, size)."""
        half = self.size // 2
        if waves.shape[1] <= half:
            raise SettingError(f"Sounds of {waves.shape[1]} samples; a frame of {self.size} needs more than {half}.")
        return F.pad(waves[:, None], (half, half), mode="reflect")[:, 0].unfold(1, self.size, self.hop)

    @torch.no_grad()
    def forward(self, waves: Tensor) -> Tensor:
        power = torch.fft.rfft(self.frames(waves) * self.window).abs().square()  # (B, frames, 1 + size // 2)
        return (power @ self.filters).clamp(min=self.floor).log().transpose(1, 2)


def standardised(spectrograms: Tensor) -> Tensor:
    """Log-mel values as networks read them, about zero mean and unit variance; the constants are fixed."""
    return (spectrograms + 3.0) / 4.0


class SoundTower(nn.Module):
    """A log-mel spectrogram (B, bands, frames), `bands` a multiple of 16 -> a unit vector (B, out).

    Four convolutions, each halving both axes, bring it to a sixteenth of the bands. Then the mean and the maximum over
    time: when a sound happens does not matter, how high it is does, so the axis of pitch stays. Two linear layers.
    `log_scale` is the logarithm of the scale 1/tau that its loss learns, ln(1/0.07) at first, as in CLIP. Raises
    SettingError for another number of bands.
    """

    def __init__(self, bands: int = 64, width: int = 16, out: int = 64):
        super().__init__()
        if bands % 16:
            raise SettingError(f"{bands} mel bands; this tower halves them four times, so take a multiple of 16.")
        sizes = (1, width, 2 * width, 4 * width, 4 * width)
        stages = [self._stage(a, b, first=a == 1) for a, b in zip(sizes, sizes[1:], strict=False)]
        self.body = nn.Sequential(*stages)
        self.head = nn.Sequential(nn.Linear(2 * 4 * width * bands // 16, 192), nn.ReLU(), nn.Linear(192, out))
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    @staticmethod
    def _stage(before: int, after: int, first: bool) -> nn.Module:
        """Half the height and width: the first one by its stride, which is cheap, the others by maxima."""
        kernel = nn.Conv2d(before, after, 3, stride=2 if first else 1, padding=1, bias=False)
        layers = [kernel, nn.BatchNorm2d(after), nn.ReLU()]
        return nn.Sequential(*layers) if first else nn.Sequential(*layers, nn.MaxPool2d(2, ceil_mode=True))

    def forward(self, spectrograms: Tensor) -> Tensor:
        maps = self.body(standardised(spectrograms)[:, None])  # (B, 4 width, bands / 16, frames / 16)
        heard = torch.cat([maps.mean(3), maps.amax(3)], 1)  # (B, 8 width, bands / 16)
        return F.normalize(full(self.head(heard.flatten(1))), dim=1)

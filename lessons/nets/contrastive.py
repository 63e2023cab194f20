"""Lesson 04: an encoder with a head, a reader of captions, and a queue of keys (He et al. 2020, arXiv 1911.05722)."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import SettingError
from .resnet import FastResNet


class PictureEncoder(nn.Module):
    """A small convolutional encoder and a head: (B, 3, H, W) -> vectors (B, out), not yet normalised.

    `features(x)` are the (B, 8 width) numbers below the head: the encoder of lesson 01's FastResNet and the maximum
    over its map. The head is two linear layers with a ReLU between them.
    """

    def __init__(self, width: int = 16, hidden: int = 128, out: int = 64):
        super().__init__()
        self.encoder = FastResNet(width=width).features
        self.head = nn.Sequential(nn.Linear(8 * width, hidden), nn.ReLU(), nn.Linear(hidden, out))

    def features(self, x: Tensor) -> Tensor:
        """What is used downstream when the head is thrown away: (B, 8 width)."""
        return self.encoder(x).amax((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class WordBag(nn.Module):
    """The simplest reader of captions: the mean of its words' vectors, and a head. A list of B sentences -> (B, out).

    The order of the words is lost. Words outside `vocabulary` share one vector, number 0.
    """

    def __init__(self, vocabulary: Iterable[str], width: int = 64, out: int = 64):
        super().__init__()
        self.numbers = {word: i for i, word in enumerate(sorted(set(vocabulary)), 1)}
        self.embedding = nn.EmbeddingBag(len(self.numbers) + 1, width, mode="mean")
        self.head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, out))

    def forward(self, captions: list[str]) -> Tensor:
        rows = [
            [self.numbers.get(word, 0) for word in caption.replace(",", " ").split()] or [0] for caption in captions
        ]
        device = self.embedding.weight.device
        starts = torch.tensor([0, *(len(row) for row in rows[:-1])], device=device).cumsum(0)
        return self.head(self.embedding(torch.tensor(sum(rows, []), device=device), starts))


class KeyQueue(nn.Module):
    """The last `size` keys, first in, first out (MoCo, algorithm 1): a ring of unit vectors (K, D) without gradient.

    It starts with random unit vectors. `age` (K,) int64 counts pushes since a key came in; -1 marks a random one.
    """

    def __init__(self, size: int, width: int, seed: int = 0):
        super().__init__()
        start = torch.randn(size, width, generator=torch.Generator().manual_seed(seed))
        self.register_buffer("keys", F.normalize(start, dim=1))
        self.register_buffer("age", torch.full((size,), -1))
        self.register_buffer("pointer", torch.tensor(0))

    @torch.no_grad()
    def push(self, keys: Tensor) -> Tensor:
        """Replace the oldest by `keys` (B, D), normalised here; returns the places (B,) that they took. Raises
        SettingError for more keys than the queue holds, or of another width."""
        if keys.ndim != 2 or len(keys) > len(self.keys) or keys.shape[1] != self.keys.shape[1]:
            raise SettingError(f"A queue {tuple(self.keys.shape)} cannot take keys {tuple(keys.shape)}.")
        places = (self.pointer + torch.arange(len(keys), device=keys.device)) % len(self.keys)
        self.age += (self.age >= 0).long()
        self.keys[places] = F.normalize(keys.detach().to(self.keys.dtype), dim=1)
        self.age[places] = 0
        self.pointer.copy_((self.pointer + len(keys)) % len(self.keys))
        return places

"""Words written into pictures: white labels with letters of 3 x 5 pixels, for the typographic attack of lesson 10."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import SettingError
from . import drawing

# Rows of three dots each, from top to bottom, a to z.
_DOTS = (
    "010101111101101 110101110101110 011100100100011 110101101101110 111100110100111 111100110100100 011100101101011 "
    "101101111101101 111010010010111 001001001101010 101101110101101 100100100100111 101111111101101 110101101101101 "
    "010101101101010 110101110100100 010101101011001 110101110101101 011100010001110 111010010010010 101101101101111 "
    "101101101101010 101101111111101 101101010101101 101101010010010 111001010100111"
).split()
_LETTERS = {chr(97 + i): torch.tensor([int(dot) for dot in dots]).view(5, 3) for i, dots in enumerate(_DOTS)}
_HEIGHT = 7  # of a label, in dots


def label(word: str) -> Tensor:
    """The label of a word as dots, True where it is white: bool (7, 4 * letters + 1). Raises SettingError for anything
    but letters a to z."""
    if not word or any(letter not in _LETTERS for letter in word.lower()):
        raise SettingError(f"Only letters a to z can be written, not {word!r}.")
    dots = torch.zeros(_HEIGHT, 4 * len(word) + 1, dtype=torch.bool)
    for place, letter in enumerate(word.lower()):
        dots[1:6, 1 + 4 * place : 4 + 4 * place] = _LETTERS[letter].bool()
    return ~dots


def write(images: Tensor, words: Sequence[str], top: Sequence[bool] | Tensor, *, seed: int = 0) -> Tensor:
    """A copy of uint8 pictures (N, 3, H, W), H and W at least 32, each with a label that bears its word, at the upper
    edge where `top` says so, else at the lower one, and anywhere along it. An empty word leaves a picture as it is;
    dots are H // 32 pixels wide. What does not fit is cut (8 letters do). Raises SettingError for another number of
    words and for other signs than letters."""
    if not len(images) == len(words) == len(top):
        raise SettingError(
            f"{len(images)} pictures, {len(words)} words and {len(top)} places: expected as many of each."
        )
    written, (height, width) = images.clone(), images.shape[2:]
    size = height // 32
    chance = torch.rand(len(words), generator=torch.Generator().manual_seed(seed)).tolist()
    for picture, word, above, share in zip(written, words, top, chance, strict=True):
        if not word:
            continue
        dots = label(word).repeat_interleave(size, 0).repeat_interleave(size, 1)[:, :width]
        x, y = int(share * (width - dots.shape[1] + 1)), 0 if above else height - dots.shape[0]
        picture[:, y : y + dots.shape[0], x : x + dots.shape[1]] = dots.to(picture.device, torch.uint8) * 255
    return written


def signs(words: Sequence[str], *, seed: int = 0, size: int = 32, device: torch.device | str = "cpu") -> Tensor:
    """Pictures without any object, only a quiet ground and a label with a word each: uint8 (N, 3, size, size). Raises
    SettingError as `label` does."""
    index = torch.arange(len(words), device=device)
    ground = [drawing.plain_ground(seed, part, size, 0.5) for part in index.split(500)]
    images = (torch.cat(ground).clamp(0, 1) * 255).to(torch.uint8)
    top = torch.rand(len(words), generator=torch.Generator().manual_seed(seed)) < 0.5
    return write(images, words, top.tolist(), seed=seed)

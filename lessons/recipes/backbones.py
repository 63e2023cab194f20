"""Lesson 07: pictures with three kinds of truth, a pool to be curated, and the rivals of the backbone."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import augment, objectives, training
from ..data.scenes import WORLDS, Scenes, render
from ..errors import SettingError
from ..nets.mae import MAE, masking
from ..nets.vit import ViT, patchify

MEADOW = replace(
    WORLDS["landscape"],
    objects=(1, 3),
    size=(0.55, 0.85),
    rest_size=(0.3, 0.5),
    x=(-0.65, 0.65),
    distance=(0.0, 0.35),
    rest_distance=(0.0, 0.6),
    overlap=0.6,
    horizon=(-0.6, 0.1),
    clutter=1.2,
    contrast=0.17,  # a picture's own tone of sky and ground would be the cheapest way to tell it from others
    mean_spread=0.2,
    noise=0.03,
    haze=0.2,
    colour_jitter=0.08,
    tilt=0.4,
    shapes=("circle", "square", "triangle", "cross", "ring"),
    colours=("red", "green", "blue", "yellow", "purple", "turquoise"),
)
POOL_KINDS = ("unique", "copy", "scrambled", "texture")  # what `uncurated_pool` is made of


def ground_truth(scenes: Scenes) -> Tensor:
    """Maps (N, 4, S, S) of what is seen where: object, ground and sky as 0 or 1, then the depth in [0, 1]."""
    side = scenes.images.shape[-1]
    y = ((torch.arange(side, device=scenes.images.device) + 0.5) / side * 2 - 1).view(1, -1, 1)
    kind = (y < scenes.horizon.view(-1, 1, 1)).long().expand(-1, side, side) + 1  # 1 ground, 2 sky
    kind = kind.masked_fill(scenes.masks(), 0)
    return torch.cat([F.one_hot(kind, 3).permute(0, 3, 1, 2).float(), scenes.depth[:, None]], 1)


def uncurated_pool(
    images: Tensor, count: int, *, unique: float = 0.15, copies: float = 0.35, sources: int = 30, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """A pool as one finds it: (pictures uint8 (count, 3, S, S), kind (count,), a place in POOL_KINDS, and the number
    (count,) of the picture shown). The share `unique` are pictures of `images`; `copies` are near-duplicates of
    `sources` of them, cropped a little and lit otherwise; the rest are pictures whose tiles were shuffled, and textures
    (mosaics, walls, coloured noise). Raises SettingError for fewer `images` than that takes."""
    first, second = int(unique * count), int(copies * count)
    junk = count - first - second
    mixed, side, device = junk // 5, images.shape[-1], images.device
    if not 1 <= sources <= first or len(images) < first + mixed:
        raise SettingError(
            f"A pool of {count} takes {first + mixed} pictures, {sources} of them copied; came {len(images)}."
        )
    chance = torch.Generator(device).manual_seed(seed)
    source = torch.randint(sources, (second,), device=device, generator=chance)
    twins = augment.random_resized_crop(
        images[source].float() / 255, size=side, scale=(0.85, 1), ratio=(0.95, 1.05), generator=chance
    )
    twins = augment.color_jitter(twins, 0.1, 0.1, 0.1, generator=chance)
    parts = [images[:first], (twins * 255).to(torch.uint8), _shuffled(images[first : first + mixed], chance)]
    parts.append(_textures(junk - mixed, side, chance, seed))
    kind = torch.cat([torch.full((len(part),), k, device=device) for k, part in enumerate(parts)])
    own = torch.cat([torch.arange(first, device=device), source, torch.arange(first, first + junk, device=device)])
    order = torch.randperm(count, device=device, generator=chance)
    return torch.cat(parts)[order], kind[order], own[order]


def _shuffled(images: Tensor, chance: torch.Generator, tiles: int = 6) -> Tensor:
    """The pictures (N, 3, S, S) with their tiles in random order: the same colours, nothing where it belongs."""
    N, _, side, _ = images.shape
    size = side // tiles
    cut = images[..., : size * tiles, : size * tiles].unfold(2, size, size).unfold(3, size, size).flatten(2, 3)
    order = torch.rand(N, tiles**2, device=images.device, generator=chance).argsort(1)
    mixed = cut.gather(2, order[:, None, :, None, None].expand_as(cut)).unflatten(2, (tiles, tiles))
    whole = mixed.permute(0, 1, 2, 4, 3, 5).reshape(N, 3, size * tiles, size * tiles)
    return F.pad(whole.float(), (0, side - size * tiles) * 2, mode="replicate").to(torch.uint8)


def _textures(count: int, side: int, chance: torch.Generator, seed: int) -> Tensor:
    """Mosaics, walls with many small things, and soft coloured noise, uint8 (count, 3, side, side)."""
    third = max(1, count // 3)
    drawn = [render(world, third, seed=seed, size=side, device=chance.device).images for world in ("mosaic", "crowd")]
    left = max(0, count - 2 * third)
    soft = torch.rand(left, 3, 6, 6, device=chance.device, generator=chance)
    soft = F.interpolate(soft, size=(side, side), mode="bicubic").clamp(0, 1)
    grain = torch.rand(left, 3, side, side, device=chance.device, generator=chance)
    share = torch.rand(left, 1, 1, 1, device=chance.device, generator=chance)
    return torch.cat([*drawn, (255 * soft.lerp(grain, share)).to(torch.uint8)])[:count]


def _random_batches(images: Tensor, batch: int, seed: int, change: Callable) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless (input (B, 3, H, W), numbers of the pictures (B,)), drawn with replacement."""
    chance = torch.Generator(images.device).manual_seed(seed)
    while True:
        index = torch.randint(len(images), (batch,), device=images.device, generator=chance)
        yield training.to_input(change(images[index].float() / 255, generator=chance)), index


def painting(net: ViT, images: Tensor, steps: int, *, batch: int, rate: float, precision, seed: int = 0) -> Callable:
    """The job of pre-training the ViT `net` (classes=0) as lesson 03 does: three quarters of the patches hidden, their
    plain pixels painted back, on random crops and mirrored pictures. `job()` gives the history."""
    torch.manual_seed(seed)
    model = MAE(net).to(images.device)
    chance = torch.Generator(images.device).manual_seed(seed)
    crop = partial(augment.random_resized_crop, size=images.shape[-1], scale=(0.5, 1))

    def loss(model: MAE, batch: tuple[Tensor, Tensor]) -> Tensor:
        mask = masking(torch.rand(len(batch[0]), math.prod(net.grid), device=images.device, generator=chance), 0.75)
        return objectives.masked_mse(model(batch[0], mask), patchify(batch[0], net.embed.patch), mask.hidden)

    optimizer = torch.optim.AdamW(training.parameter_groups(model, 0.05), lr=rate, betas=(0.9, 0.95))
    batches = _random_batches(images, batch, seed, augment.compose(crop, augment.random_flip))
    settings = {"steps": steps, "optimizer": optimizer, "clip": 1.0, "precision": precision, "title": "MAE"}
    return partial(training.fit, model, loss, batches, **settings)


def labelling(
    net: ViT, images: Tensor, answers: list[Tensor], steps: int, *, views, batch: int, rate: float, precision, seed=0
) -> Callable:
    """The job of training the ViT `net` (classes=0) with labels, one linear layer per kind of label in `answers`
    (each (N,) int64), on the first of `views(pictures, n_local=0, generator=...)`. `job()` gives the history."""
    torch.manual_seed(seed)
    sizes = [int(one.max()) + 1 for one in answers]
    model = nn.Sequential(net, nn.Linear(net.position.shape[1], sum(sizes))).to(images.device)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        guesses = model(batch[0]).split(sizes, 1)
        return sum(F.cross_entropy(part, one[batch[1]]) for part, one in zip(guesses, answers, strict=True))

    optimizer = torch.optim.AdamW(training.parameter_groups(model, 0.04), lr=rate)
    batches = _random_batches(images, batch, seed, lambda x, generator: views(x, n_local=0, generator=generator)[0])
    settings = {"steps": steps, "optimizer": optimizer, "clip": 1.0, "precision": precision, "title": "labels"}
    return partial(training.fit, model, loss, batches, **settings)

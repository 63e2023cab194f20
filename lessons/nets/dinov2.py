"""Lesson 07: a student that sees masked views, with a head for pictures and one for patches (Oquab et al. 2024,
DINOv2, arXiv 2304.07193; the masked patches are iBOT's, Zhou et al. 2022, arXiv 2111.07832)."""

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Generator, Tensor, nn

from ..errors import SettingError
from .mae import block_noise
from .vit import ViT


def block_masks(
    count: int,
    grid: tuple[int, int],
    *,
    share: float = 0.5,
    ratio: tuple[float, float] = (0.1, 0.5),
    generator: Generator | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Which patches are hidden: bool (count, N) for a grid of (rows, columns). The share `share` of the pictures, drawn
    at random, lose one block of `ratio` (lowest, highest) of their patches; the others lose none. The authors hide
    several blocks (their code). Raises SettingError for shares that are none or reversed."""
    low, high = ratio
    if not (0 <= share <= 1 and 0 <= low <= high <= 1):
        raise SettingError(f"share and ratio lie within 0 and 1, lowest first; got {share} and {ratio}.")
    device = device or (generator.device if generator is not None else None)
    N = grid[0] * grid[1]
    noise = torch.rand(count, N, device=device, generator=generator)
    drawn = torch.rand(2, count, device=device, generator=generator)
    hidden = ((low + drawn[0] * (high - low)) * N).round()  # (B,) patches
    chosen = drawn[1].argsort().argsort() < round(share * count)
    rank = block_noise(noise, grid).argsort(1).argsort(1)  # the highest are hidden
    return rank >= N - (hidden * chosen).long()[:, None]


class DINOv2Network(nn.Module):
    """What student and teacher are: a ViT with a [CLS] token, a `head` for pictures, a `patch_head` for patches (two
    heads of their own: "untied", section 4), and the token that stands for a hidden patch.

    `encode` gives features, which `head` (..., D) -> (..., K) and `patch_head` turn into logits; after training only
    the backbone is kept. Raises SettingError for a ViT without a [CLS] token.
    """

    def __init__(self, backbone: ViT, head: nn.Module, patch_head: nn.Module):
        super().__init__()
        if backbone.class_token is None:
            raise SettingError("DINOv2 needs a ViT with a [CLS] token: make it with pool='class'.")
        self.backbone, self.head, self.patch_head = backbone, head, patch_head
        self.mask_token = nn.Parameter(torch.zeros(backbone.position.shape[1]))

    def tokens(self, images: Tensor, hidden: Tensor | None = None) -> Tensor:
        """All tokens after the encoder, (B, 1 + N, D). Where `hidden` (B, N) is True the patch is replaced by the mask
        token before positions are added, so the student knows where something is missing, not what."""
        net = self.backbone
        if hidden is None:
            return net.encode(images)
        x = net.embed(images)  # (B, N, D)
        if hidden.shape != x.shape[:2] or len(net.position) != 1 + x.shape[1]:
            raise SettingError(
                f"Expected a mask of {len(x)} x {x.shape[1]} patches and pictures that fill the grid {net.grid}; got "
                f"{tuple(hidden.shape)} for pictures of {tuple(images.shape[-2:])} pixels."
            )
        x = torch.where(hidden[..., None], self.mask_token.to(x.dtype), x) + net.position[1:]
        first = (net.class_token + net.position[:1]).expand(len(x), -1, -1)  # never masked
        return net.encoder(torch.cat([first.to(x.dtype), x], dim=1))

    def encode(self, views: Sequence[Tensor], hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """[CLS] of V views (V, B, D), and the patch tokens (T, B, N, D) of the first T of one size, the global ones.
        `hidden` (T B, N) masks these, view after view."""
        groups = [torch.cat(list(same)) for _, same in groupby(views, key=lambda view: view.shape[-2:])]
        globals_ = self.tokens(groups[0], hidden)
        cls = torch.cat([globals_[:, 0], *(self.tokens(group)[:, 0] for group in groups[1:])])
        B = len(views[0])
        return cls.unflatten(0, (-1, B)), globals_[:, 1:].unflatten(0, (-1, B))

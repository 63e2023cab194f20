"""Lesson 03: masked autoencoders (He et al. 2021, arXiv 2111.06377). A mask is a ranking: noise (B, N) puts the
patches of each picture in order, the lowest stay visible, the others are hidden."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..errors import SettingError
from .vit import Encoder, ViT, initialise, sincos_positions


class Masking(NamedTuple):
    """Which patches an encoder sees. `keep` (B, K) int64: their numbers, in the order of the noise. `hidden` (B, N)
    bool: True where a patch is hidden. `restore` (B, N) int64: where each patch stands in [kept, hidden]."""

    keep: Tensor
    hidden: Tensor
    restore: Tensor


def visible_count(n: int, ratio: float) -> int:
    """How many of `n` patches stay when the share `ratio` is hidden: n (1 - ratio), rounded down, as in the paper's
    code. Raises SettingError unless 0 <= ratio < 1 and at least one patch stays."""
    count = int(n * (1 - ratio)) if 0 <= ratio < 1 else 0
    if count < 1:
        raise SettingError(f"A mask ratio of {ratio} leaves none of {n} patches. Choose one in [0, {1 - 1 / n:.3g}].")
    return count


def masking(noise: Tensor, ratio: float) -> Masking:
    """Hide the share `ratio` of the patches of each picture, those with the highest `noise` (B, N) (appendix A.1 and
    the paper's code). Raises SettingError as `visible_count` does."""
    count = visible_count(noise.shape[1], ratio)
    order = noise.argsort(dim=1)  # (B, N) the kept ones first
    restore = order.argsort(dim=1)  # (B, N) the inverse permutation
    return Masking(order[:, :count], restore >= count, restore)


def block_noise(noise: Tensor, grid: tuple[int, int]) -> Tensor:
    """Noise (B, N) whose highest values lie together: hidden is one block, grown around a random place of the picture
    (figure 6, middle; there it is several blocks). `noise` is uniform in [0, 1), `grid` is (rows, columns)."""
    _check_grid(noise, grid)
    places = _places(grid, noise.device)  # (N, 2)
    size = torch.tensor(grid, device=noise.device)
    centre = noise[:, :2] * (size - 1)  # (B, 2)
    distance = (places[None] - centre[:, None]).abs().amax(2)  # (B, N) a square around the centre
    return noise / 1e3 - distance


def grid_noise(noise: Tensor, grid: tuple[int, int]) -> Tensor:
    """Noise (B, N) that keeps patches at regular distances: at a ratio of 0.75 one of every 2 x 2, the same in all
    pictures (figure 6, right). `noise` is uniform in [0, 1) and decides between equals at other ratios."""
    _check_grid(noise, grid)
    rows, columns = _places(grid, noise.device).long().unbind(1)
    rank = torch.tensor([[0, 2], [3, 1]], device=noise.device)[rows % 2, columns % 2]  # (N,) the order in each 2 x 2
    return rank + noise


class MAE(nn.Module):
    """Masked autoencoder around the ViT `encoder` (made with classes=0): the encoder sees the visible patches only, a
    light decoder gets them back with mask tokens in the gaps and predicts the pixels of every patch.

    `width`, `depth` and `heads` are the decoder's; its positions are 2-D sin-cos. With `mask_tokens="encoder"` the
    hidden patches are replaced before the encoder instead, which then reads N tokens (the ablation of table 1c).
    """

    def __init__(self, encoder: ViT, *, width: int = 64, depth: int = 1, heads: int = 2, mask_tokens: str = "decoder"):
        super().__init__()
        if mask_tokens not in ("decoder", "encoder"):
            raise SettingError(f"mask_tokens is {mask_tokens!r}; expected 'decoder' or 'encoder'.")
        self.encoder, self.mask_tokens = encoder, mask_tokens
        linear = encoder.embed.linear  # C P^2 numbers -> D
        self.extra = 0 if encoder.class_token is None else 1
        self.into_decoder = nn.Linear(linear.out_features, width)
        self.mask_token = nn.Parameter(0.02 * torch.randn(width if mask_tokens == "decoder" else linear.out_features))
        places = sincos_positions(width, encoder.grid)
        self.register_buffer("position", torch.cat([places.new_zeros(self.extra, width), places]))
        self.decoder = Encoder(width, depth, heads)
        self.predict = nn.Linear(width, linear.in_features)
        initialise(self.into_decoder)
        initialise(self.predict)

    def encode(self, images: Tensor, mask: Masking) -> Tensor:
        """What the encoder makes of the visible patches: (B, K, D), or (B, 1 + K, D) with a [CLS] token."""
        return self.encoder.encode(images, mask.keep)

    def decode(self, seen: Tensor, mask: Masking) -> Tensor:
        """The encoder's output (B, K, D) -> predicted patches (B, N, C P^2), [CLS] dropped."""
        x = self.into_decoder(seen)  # (B, extra + K, W)
        first, x = x[:, : self.extra], x[:, self.extra :]
        gaps = self.mask_token.to(x.dtype).expand(len(x), mask.restore.shape[1] - x.shape[1], -1)
        x = torch.cat([x, gaps], dim=1)  # (B, N, W) in the order of the noise
        x = x.gather(1, mask.restore[..., None].expand_as(x))  # (B, N, W) each at its own place
        return self._predicted(torch.cat([first, x], dim=1))

    def forward(self, images: Tensor, mask: Masking) -> Tensor:
        """Predicted patches (B, N, C P^2) of pictures (B, C, H, W), hidden and visible ones. Raises SettingError for
        pictures of another size than the encoder's, and for a mask of other pictures."""
        rows, columns = self.encoder.grid
        size = (rows * self.encoder.embed.patch, columns * self.encoder.embed.patch)
        if tuple(images.shape[-2:]) != size or mask.hidden.shape != (len(images), rows * columns):
            raise SettingError(
                f"Expected pictures of {size[0]} x {size[1]} pixels and a mask of {len(images)} x {rows * columns} "
                f"patches, got {tuple(images.shape[-2:])} and {tuple(mask.hidden.shape)}."
            )
        if self.mask_tokens == "decoder":
            return self.decode(self.encode(images, mask), mask)
        x = self.encoder.embed(images)  # (B, N, D)
        x = torch.where(mask.hidden[..., None], self.mask_token.to(x.dtype), x) + self.encoder.position[self.extra :]
        if self.extra:
            first = self.encoder.class_token + self.encoder.position[:1]
            x = torch.cat([first.expand(len(x), -1, -1), x], dim=1)
        return self._predicted(self.into_decoder(self.encoder.encoder(x)))

    def _predicted(self, x: Tensor) -> Tensor:
        return self.predict(self.decoder(x + self.position))[:, self.extra :]


def _places(grid: tuple[int, int], device: torch.device) -> Tensor:
    """Row and column of each patch, (N, 2)."""
    rows, columns = (torch.arange(length, device=device).float() for length in grid)
    return torch.cartesian_prod(rows, columns)


def _check_grid(noise: Tensor, grid: tuple[int, int]) -> None:
    if noise.ndim != 2 or noise.shape[1] != grid[0] * grid[1]:
        raise SettingError(f"Noise of shape {tuple(noise.shape)} does not fit a grid of {grid[0]} x {grid[1]} patches.")

"""Lesson 02: the encoder that reads patches and words alike (Dosovitskiy et al. 2021, arXiv 2010.11929)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import SettingError
from ..precision import full


def patchify(images: Tensor, patch: int) -> Tensor:
    """Cut pictures (B, C, H, W) into squares: (B, N, C P^2), row by row, each flattened in the order (C, P, P), that
    of a convolution's kernel. Raises SettingError where squares of `patch` pixels do not fill the picture."""
    B, C, H, W = images.shape
    if patch < 1 or H % patch or W % patch:
        raise SettingError(f"Pictures of {H} x {W} pixels cannot be cut into patches of {patch}.")
    rows, columns = H // patch, W // patch
    squares = images.reshape(B, C, rows, patch, columns, patch).permute(0, 2, 4, 1, 3, 5)  # (B, rows, columns, C, P, P)
    return squares.reshape(B, rows * columns, C * patch * patch)


def unpatchify(patches: Tensor, patch: int, grid: tuple[int, int] | None = None) -> Tensor:
    """The way back: (B, N, C P^2) -> (B, C, H, W). `grid` is (rows, columns); by default the picture is square."""
    B, N, numbers = patches.shape
    rows, columns = grid or (math.isqrt(N), math.isqrt(N))
    if rows * columns != N or numbers % patch**2:
        raise SettingError(f"{N} patches of {numbers} numbers are no grid {rows} x {columns} of patch size {patch}.")
    squares = patches.reshape(B, rows, columns, -1, patch, patch).permute(
        0, 3, 1, 4, 2, 5
    )  # (B, C, rows, P, columns, P)
    return squares.reshape(B, -1, rows * patch, columns * patch)


class PatchEmbedding(nn.Module):
    """One linear layer on flattened patches: (B, C, H, W) -> (B, N, D), the same as a convolution with kernel and
    stride P (section 3.1). Raises SettingError as `patchify` does."""

    def __init__(self, patch: int, width: int, channels: int = 3):
        super().__init__()
        self.patch = patch
        self.linear = nn.Linear(channels * patch**2, width)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(patchify(images, self.patch))


class Attention(nn.Module):
    """Multi-head self-attention, softmax(q k^T / sqrt(D_h)) v with D_h = D / H: (B, N, D) -> (B, N, D) (appendix A).

    `mask` is bool and True where a query (row) may look at a key (column), broadcast to (B, H, N, N): (N, N) for a
    causal mask, (B, 1, 1, N) for padding. Every query must be allowed at least one key. On a GPU the fused kernel
    computes it; on a CPU the written-out form is as fast, and twice as fast in bfloat16.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        if heads < 1 or width % heads:
            raise SettingError(f"A width of {width} cannot be divided among {heads} heads.")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (B, H, N, D_h)."""
        B, N, D = x.shape
        return self.qkv(x).view(B, N, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4).unbind(0)

    def merge(self, values: Tensor) -> Tensor:
        """(B, H, N, D_h) -> (B, N, D), heads side by side, then the output projection."""
        return self.out(values.transpose(1, 2).flatten(2))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if x.device.type == "cpu":
            return self.with_map(x, mask)[0]
        return self.merge(F.scaled_dot_product_attention(*self.split(x), attn_mask=mask))

    def with_map(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The output (B, N, D), and who looked at whom: (B, H, N, N), rows sum to 1."""
        q, k, v = self.split(x)
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)  # (B, H, N, N)
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        attention = scores.softmax(-1)
        return self.merge(attention @ v), attention


class Block(nn.Module):
    """Pre-norm transformer block: z' = MSA(LN(z)) + z, then MLP(LN(z')) + z' (equations 2 and 3); (B, N, D) -> same.

    The MLP has two layers with GELU (the exact one) between, `ratio` times as wide inside."""

    def __init__(self, width: int, heads: int, ratio: int = 4):
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width, eps=1e-6), Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(width, ratio * width), nn.GELU(), nn.Linear(ratio * width, width))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = x + self.attention(self.norm1(x), mask)
        return x + self.mlp(self.norm2(x))

    def with_map(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The output, and the attention map (B, H, N, N)."""
        change, attention = self.attention.with_map(self.norm1(x), mask)
        x = x + change
        return x + self.mlp(self.norm2(x)), attention


class Encoder(nn.Module):
    """`depth` pre-norm blocks and a last layer norm: a sequence of vectors (B, N, D) -> (B, N, D).

    It knows neither pictures nor words nor order: whoever makes the sequence adds the positions. `mask` as in
    Attention. Weights begin as Xavier uniform, biases at zero.
    """

    def __init__(self, width: int, depth: int, heads: int, ratio: int = 4):
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, heads, ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        initialise(self)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        for block in self.blocks:
            x = block(x, mask)
        return self.norm(x)

    def with_maps(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The output (B, N, D), and the attention maps of all layers and heads (B, L, H, N, N)."""
        maps = []
        for block in self.blocks:
            x, attention = block.with_map(x, mask)
            maps.append(attention)
        return self.norm(x), torch.stack(maps, 1)


def initialise(module: nn.Module) -> None:
    """Xavier uniform weights (query, key and value each as a matrix of its own) and zero biases, in place."""
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Linear):
            parts = 3 if name.endswith("qkv") else 1
            for part in layer.weight.chunk(parts):
                nn.init.xavier_uniform_(part)
            nn.init.zeros_(layer.bias)


def causal_mask(n: int, device: torch.device | str | None = None) -> Tensor:
    """bool (n, n): token i may look at tokens 0 to i. What makes the encoder a language model's."""
    return torch.ones(n, n, dtype=torch.bool, device=device).tril()


def sincos_positions(width: int, grid: tuple[int, int], base: float = 10_000.0) -> Tensor:
    """Fixed 2-D positions (rows * columns, D): a quarter of the width each for sin and cos of the column, then of the
    row, at frequencies from 1 down to 1/base (MAE, appendix A.1). Raises SettingError unless 4 divides `width`."""
    if width % 4:
        raise SettingError(f"2-D sin-cos positions need a width that 4 divides, not {width}.")
    frequency = base ** -(torch.arange(width // 4) / (width // 4))  # (D/4,)
    rows, columns = (torch.arange(length, dtype=frequency.dtype) for length in grid)
    y, x = (place.flatten()[:, None] * frequency for place in torch.meshgrid(rows, columns, indexing="ij"))
    return torch.cat([x.sin(), x.cos(), y.sin(), y.cos()], dim=1)


def resize_positions(position: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Positions (T + N, D) of a grid `old` (rows, columns), T of them for extra tokens in front, on a grid `new`:
    bicubic in 2-D, and the extra tokens keep theirs (section 3.2)."""
    extra, places = position.split([len(position) - old[0] * old[1], old[0] * old[1]])
    if old == new:
        return position
    image = places.T.reshape(1, -1, *old)  # (1, D, rows, columns)
    image = F.interpolate(full(image), size=new, mode="bicubic", antialias=True).to(position.dtype)
    return torch.cat([extra, image.flatten(2)[0].T])


class ViT(nn.Module):
    """Vision transformer: (B, 3, H, W) -> logits (B, classes); with classes=0 the features (B, D).

    Patches of `patch` pixels -> linear layer -> [CLS] token in front -> positions -> Encoder -> linear layer on the
    [CLS] token. `image` is the usual height and width; other sizes work, the positions are interpolated. `positions`:
    "learned", "sincos" or None. `pool`: "class", or "mean" over the patches without a [CLS] token (appendix D.3).
    """

    def __init__(
        self,
        *,
        image: int = 32,
        patch: int = 4,
        width: int = 96,
        depth: int = 4,
        heads: int = 3,
        classes: int = 10,
        channels: int = 3,
        positions: str | None = "learned",
        pool: str = "class",
    ):
        super().__init__()
        if positions not in ("learned", "sincos", None):
            raise SettingError(f"positions is {positions!r}; expected 'learned', 'sincos' or None.")
        if pool not in ("class", "mean"):
            raise SettingError(f"pool is {pool!r}; expected 'class' or 'mean'.")
        if image % patch:
            raise SettingError(f"Pictures of {image} pixels cannot be cut into patches of {patch}.")
        self.grid = (image // patch, image // patch)
        self.embed = PatchEmbedding(patch, width, channels)
        self.class_token = nn.Parameter(0.02 * torch.randn(1, 1, width)) if pool == "class" else None
        extra = 1 if pool == "class" else 0
        if positions == "learned":
            self.position = nn.Parameter(0.5 * torch.randn(extra + self.grid[0] * self.grid[1], width))
        else:
            fixed = sincos_positions(width, self.grid) if positions else torch.zeros(self.grid[0] * self.grid[1], width)
            self.register_buffer("position", torch.cat([torch.zeros(extra, width), fixed]))
        self.encoder = Encoder(width, depth, heads)
        self.head = nn.Linear(width, classes) if classes else nn.Identity()
        initialise(self.embed)
        initialise(self.head)

    def tokens(self, images: Tensor, keep: Tensor | None = None) -> Tensor:
        """z_0, what the encoder reads: (B, 1 + N, D), positions added. `keep` (B, K), int64, are the numbers of the
        patches that stay: (B, 1 + K, D), each with the position of its place."""
        patch = self.embed.patch
        position = resize_positions(self.position, self.grid, (images.shape[-2] // patch, images.shape[-1] // patch))
        x = self.embed(images)  # (B, N, D)
        extra = len(position) - x.shape[1]
        x = x + position[extra:]
        if keep is not None:
            x = x.gather(1, keep[..., None].expand(-1, -1, x.shape[2]))  # (B, K, D)
        if self.class_token is None:
            return x
        first = self.class_token + position[:1]  # (1, 1, D)
        return torch.cat([first.expand(len(x), -1, -1), x], dim=1)  # (B, 1 + N, D)

    def encode(self, images: Tensor, keep: Tensor | None = None) -> Tensor:
        """All tokens after the encoder and its last norm: (B, 1 + N, D), or (B, 1 + K, D) with `keep`."""
        return self.encoder(self.tokens(images, keep))

    def features(self, images: Tensor) -> Tensor:
        """One vector per picture (B, D): the [CLS] token, or the mean over the patches."""
        x = self.encode(images)
        return x.mean(1) if self.class_token is None else x[:, 0]

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))

    @torch.no_grad()
    def attention_maps(self, images: Tensor) -> Tensor:
        """Who looks at whom, in every layer and head: (B, L, H, 1 + N, 1 + N); row and column 0 are the [CLS] token."""
        return self.encoder.with_maps(self.tokens(images))[1]

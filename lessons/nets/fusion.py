"""Lesson 11: where pictures and words meet. One sequence for both (ViLT, arXiv 2102.03334; Fuyu; LLaVA, 2304.08485),
gated cross-attention (Flamingo, 2204.14198), and two streams that meet at the end.

All models are called in the same way: `model(seen, tokens)`, seen (B, P, F) being P patches or places of a map with F
numbers each, and tokens (B, S, T) S texts about each picture, none of which sees the others, -> logits (B, S, T, V) of
the token that follows each one.
"""

import torch
from torch import Tensor, nn

from ..errors import SettingError
from .resnet import FastResNet
from .vit import Attention, Block, Encoder, causal_mask, initialise


def prefix_mask(pictures: int, texts: int, segments: int = 1, device: torch.device | str | None = None) -> Tensor:
    """bool (N, N), True where a token (row) may look at a token (column), N = pictures + segments * texts.

    The picture tokens come first and see each other in full, and no word. The words see the picture and the words
    before them; with several `segments`, only those of their own: each segment is then read as if it stood alone behind
    the picture."""
    n = pictures + segments * texts
    mask = torch.zeros(n, n, dtype=torch.bool, device=device)
    mask[:, :pictures] = True
    mask[pictures:, pictures:] = torch.block_diag(*[causal_mask(texts, device)] * segments).bool()
    return mask


class MapTower(nn.Module):
    """The convolutional body of lessons 01 and 08 without pooling: (B, 3, H, W) -> one token for each place of its map,
    (B, H W / 64, 8 width), row by row. `standardise(images)` brings the tokens to mean zero (each feature) and
    deviation one (all together), as measured on these pictures."""

    def __init__(self, width: int = 16):
        super().__init__()
        self.out_features = 8 * width
        self.body = FastResNet(width=width).features
        self.register_buffer("centre", torch.zeros(8 * width))
        self.register_buffer("spread", torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        return (self.body(images).flatten(2).transpose(1, 2) - self.centre) / self.spread

    @torch.no_grad()
    def standardise(self, images: Tensor) -> None:
        """Measure mean and deviation on pictures (B, 3, H, W), in eval mode."""
        was_training = self.training
        tokens = self.eval()(images) * self.spread + self.centre
        self.centre.copy_(tokens.mean((0, 1)))
        self.spread.copy_((tokens - self.centre).std())
        self.train(was_training)


class Namer(nn.Module):
    """A MapTower with a classifier on the maximum over its places: (B, 3, H, W) -> logits (B, classes)."""

    def __init__(self, tower: MapTower, classes: int):
        super().__init__()
        self.tower, self.head = tower, nn.Linear(tower.out_features, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.tower(images).amax(1))


class Cache:
    """Keys and values (B, H, N, D_h) of every token read so far, layer by layer: what later tokens will look at."""

    def __init__(self):
        self.kept: dict[int, tuple[Tensor, Tensor]] = {}

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append the keys and values of new tokens; all of this layer, old and new."""
        if layer in self.kept:
            keys, values = (torch.cat(pair, 2) for pair in zip(self.kept[layer], (keys, values), strict=True))
        self.kept[layer] = keys, values
        return keys, values

    def __len__(self) -> int:
        return self.kept[0][0].shape[2] if self.kept else 0


class FusionAttention(Attention):
    """The attention of lesson 02 with two additions. `qk_norm`: layer norm over each head's queries and keys, which
    bounds the scores (Dehghani et al. 2023, arXiv 2302.05442; Chameleon, 2405.09818). `cached`: new tokens look back at
    those of a Cache."""

    def __init__(self, width: int, heads: int, qk_norm: bool = False):
        super().__init__(width, heads)
        norm = (lambda: nn.LayerNorm(width // heads, eps=1e-6)) if qk_norm else nn.Identity
        self.norm_q, self.norm_k = norm(), norm()

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (B, H, N, D_h), queries and keys normalised where asked for."""
        q, k, v = super().split(x)
        return self.norm_q(q), self.norm_k(k), v

    def scores(self, x: Tensor) -> Tensor:
        """What the softmax gets, without a mask: (B, H, N, N)."""
        q, k, _ = self.split(x)
        return (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)

    def packed(self, x: Tensor, places: int, segments: int, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Attention over `places` picture tokens and then `segments` texts of T words, without computing what a packed
        prefix mask forbids: x (B, places + segments * T, D) -> the same, and the words' attention (B, H, segments, T,
        places + T). `mask` (T, places + T) says what the words of a segment may look at."""
        q, k, v = self.split(x)  # (B, H, N, D_h)
        q = q * q.shape[-1] ** -0.5
        first = lambda t: t[:, :, :places]  # noqa: E731
        own = lambda t: t[:, :, places:].unflatten(2, (segments, -1))  # noqa: E731  (B, H, S, T, D_h)
        spread = lambda t: first(t)[:, :, None].expand(-1, -1, segments, -1, -1)  # noqa: E731
        picture = (first(q) @ first(k).transpose(-2, -1)).softmax(-1) @ first(v)
        keys, values = (torch.cat([spread(t), own(t)], 3) for t in (k, v))  # (B, H, S, places + T, D_h)
        attention = (own(q) @ keys.transpose(-2, -1)).masked_fill(~mask, -torch.inf).softmax(-1)
        words = (attention @ values).flatten(2, 3)
        return self.merge(torch.cat([picture, words], 2)), attention

    def cached(self, x: Tensor, cache: Cache, layer: int, mask: Tensor | None = None) -> Tensor:
        """The output for new tokens x (B, M, D) that look at the tokens in the cache and at themselves, whose keys and
        values are added to it; `mask` (M, kept + M)."""
        q, k, v = self.split(x)
        k, v = cache.extend(layer, k, v)
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        return self.merge(scores.softmax(-1) @ v)


class FusionBlock(Block):
    """The block of lesson 02 around a FusionAttention."""

    def __init__(self, width: int, heads: int, ratio: int = 4, qk_norm: bool = False):
        super().__init__(width, heads, ratio)
        self.attention = FusionAttention(width, heads, qk_norm)

    def packed(self, x: Tensor, places: int, segments: int, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The output and the words' attention; see FusionAttention.packed."""
        change, attention = self.attention.packed(self.norm1(x), places, segments, mask)
        x = x + change
        return x + self.mlp(self.norm2(x)), attention

    def cached(self, x: Tensor, cache: Cache, layer: int, mask: Tensor | None = None) -> Tensor:
        """The same for new tokens behind those in the cache."""
        x = x + self.attention.cached(self.norm1(x), cache, layer, mask)
        return x + self.mlp(self.norm2(x))


class Places(nn.Module):
    """Adds to each picture token a learned vector of its row and one of its column: (B, rows * columns, D) -> same.
    Tokens of one column then share what says "left", which a short training has to learn only once."""

    def __init__(self, grid: tuple[int, int], width: int):
        super().__init__()
        self.row = nn.Parameter(0.5 * torch.randn(grid[0], 1, width))
        self.column = nn.Parameter(0.5 * torch.randn(grid[1], width))

    def forward(self, x: Tensor) -> Tensor:
        return x + (self.row + self.column).flatten(0, 1)


class JointTransformer(nn.Module):
    """One sequence, one transformer: picture tokens, then words, every layer shared.

    seen (B, P, F) goes through one linear layer (flattened patches: ViLT, Fuyu; features of a trained encoder: LLaVA)
    and gets the vectors of its place and of its kind; tokens (B, S, T) get those of their position and kind. Position
    0 is the first word of each text. `seen` may be None: a language model. `grid` is (rows, columns) of the picture
    tokens, `length` the largest T. `fuse_from`: the first layer in which words may look at the picture (0: in all).
    """

    def __init__(
        self,
        vocabulary: int,
        features: int,
        grid: tuple[int, int],
        length: int,
        width: int = 96,
        depth: int = 4,
        heads: int = 3,
        *,
        qk_norm: bool = False,
        fuse_from: int = 0,
    ):
        super().__init__()
        if not 0 <= fuse_from < depth:
            raise SettingError(f"fuse_from is {fuse_from}; it names one of the layers 0 to {depth - 1}.")
        self.fuse_from = fuse_from
        self.project = nn.Linear(features, width)
        self.place = Places(grid, width)
        self.embedding = nn.Embedding(vocabulary, width)
        self.position = nn.Parameter(0.5 * torch.randn(length, width))
        self.kind = nn.Parameter(0.5 * torch.randn(2, width))
        self.blocks = nn.ModuleList(FusionBlock(width, heads, qk_norm=qk_norm) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, vocabulary)
        _begin(self)

    def sequence(self, seen: Tensor | None, tokens: Tensor, start: int = 0) -> Tensor:
        """What the first layer reads: (B, P + S T, D), the first word of each text being at position `start`."""
        T = tokens.shape[2]
        if start + T > len(self.position):
            raise SettingError(f"Texts of {start + T} tokens; this model reads at most {len(self.position)}.")
        words = self.embedding(tokens) + self.position[start : start + T] + self.kind[1]  # (B, S, T, D)
        words = words.flatten(1, 2)
        return words if seen is None else torch.cat([self.place(self.project(seen)) + self.kind[0], words], 1)

    def mask(self, layer: int, places: int, texts: int, device: torch.device | str | None = None) -> Tensor:
        """What one text behind a picture may look at in this layer: bool (places + texts, places + texts)."""
        mask = prefix_mask(places, texts, device=device)
        if layer < self.fuse_from:
            mask[places:, :places] = False
        return mask

    def with_maps(self, seen: Tensor | None, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """States after the last norm (B, P + S T, D), and what the words of each text looked at, picture first, then
        their own text: (B, L, H, S, T, P + T)."""
        _, S, T = tokens.shape
        x, maps = self.sequence(seen, tokens), []
        P = x.shape[1] - S * T
        for layer, block in enumerate(self.blocks):
            x, attention = block.packed(x, P, S, self.mask(layer, P, T, x.device)[P:])
            maps.append(attention)
        return self.norm(x), torch.stack(maps, 1)

    def forward(self, seen: Tensor | None, tokens: Tensor) -> Tensor:
        B, S, T = tokens.shape
        x = self.sequence(seen, tokens)
        P = x.shape[1] - S * T
        for layer, block in enumerate(self.blocks):
            x, _ = block.packed(x, P, S, self.mask(layer, P, T, x.device)[P:])
        return self.head(self.norm(x[:, P:])).view(B, S, T, -1)

    @torch.no_grad()
    def largest_scores(self, seen: Tensor | None, tokens: Tensor) -> Tensor:
        """The largest size of an attention score before the softmax, in each layer, pairs that the mask forbids
        included: (L,)."""
        x, largest = self.sequence(seen, tokens), []
        P = x.shape[1] - tokens[0].numel()
        for layer, block in enumerate(self.blocks):
            largest.append(block.attention.scores(block.norm1(x)).abs().max())
            x, _ = block.packed(x, P, tokens.shape[1], self.mask(layer, P, tokens.shape[2], x.device)[P:])
        return torch.stack(largest)

    @torch.no_grad()
    def write(
        self, seen: Tensor | None, prompt: Tensor, most: int, *, stop: int = 2, pad: int = 0, cache: bool = True
    ) -> Tensor:
        """The most likely next tokens behind prompts (B, T0), one after the other, at most `most`: (B, most), `pad`
        after a `stop`. With the cache each token is read once; without it the whole sequence is read again for each
        new one, to the same result."""
        tokens, kept, ended = prompt, Cache(), torch.zeros(len(prompt), dtype=torch.bool, device=prompt.device)
        for step in range(most):
            fresh = step == 0 or not cache
            start = 0 if fresh else tokens.shape[1] - 1
            x = self.sequence(seen if fresh else None, tokens[:, None, start:], start)
            kept = kept if cache else Cache()
            places = 0 if seen is None else seen.shape[1]
            for layer, block in enumerate(self.blocks):
                mask = self.mask(layer, places, tokens.shape[1], x.device)[-x.shape[1] :]
                x = block.cached(x, kept, layer, mask)
            following = self.head(self.norm(x[:, -1])).argmax(-1).masked_fill(ended, pad)
            ended = ended | (following == stop)
            tokens = torch.cat([tokens, following[:, None]], 1)
            if ended.all():
                break
        written = tokens[:, prompt.shape[1] :]
        return nn.functional.pad(written, (0, most - written.shape[1]), value=pad)


class GatedCrossAttention(nn.Module):
    """Flamingo's inserted layer: x + tanh(a) XAttn(x, seen), then x + tanh(f) MLP(x). Both gates begin
    at zero, so that the language model around it begins as it was. x (B, M, D), seen (B, P, D) -> (B, M, D)."""

    def __init__(self, width: int, heads: int, ratio: int = 4):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm_seen = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.q, self.kv, self.out = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(width, ratio * width), nn.GELU(), nn.Linear(ratio * width, width))
        self.gates = nn.Parameter(torch.zeros(2))  # a and f

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        return self.with_map(x, seen)[0]

    def with_map(self, x: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """The output, and what each word looked at: (B, H, M, P)."""
        apart = lambda t: t.unflatten(2, (self.heads, -1)).transpose(1, 2)  # noqa: E731  (B, H, M or P, D_h)
        q, (k, v) = apart(self.q(self.norm1(x))), map(apart, self.kv(self.norm_seen(seen)).chunk(2, -1))
        attention = ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)).softmax(-1)
        a, f = self.gates.tanh()
        x = x + a * self.out((attention @ v).transpose(1, 2).flatten(2))
        return x + f * self.mlp(self.norm2(x)), attention


class CrossAttentionModel(nn.Module):
    """Flamingo in small: a causal language model of `depth` blocks, and before each a GatedCrossAttention that reads
    the picture. The picture's tokens themselves pass through no layer but the projection. Arguments and shapes as in
    JointTransformer; a block with its inserted layer has as many parameters as two joint blocks. `gate` is where the
    gates begin: 0 keeps a trained language model as it was; one that is trained along learns faster from 0.5."""

    def __init__(
        self,
        vocabulary: int,
        features: int,
        grid: tuple[int, int],
        length: int,
        width: int = 96,
        depth: int = 2,
        heads: int = 3,
        *,
        gate: float = 0.0,
    ):
        super().__init__()
        self.project = nn.Linear(features, width)
        self.place = Places(grid, width)
        self.embedding = nn.Embedding(vocabulary, width)
        self.position = nn.Parameter(0.5 * torch.randn(length, width))
        self.readers = nn.ModuleList(GatedCrossAttention(width, heads) for _ in range(depth))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, vocabulary)
        _begin(self)
        for reader in self.readers:
            nn.init.constant_(reader.gates, gate)

    def forward(self, seen: Tensor | None, tokens: Tensor) -> Tensor:
        """Logits; without a picture (seen=None) those of the language model alone."""
        B, S, T = tokens.shape
        x = (self.embedding(tokens) + self.position[:T]).flatten(0, 1)  # (B S, T, D)
        pictures = None if seen is None else self.place(self.project(seen))
        mask = causal_mask(T, tokens.device)
        for reader, block in zip(self.readers, self.blocks, strict=True):
            if pictures is not None:
                x = reader(x.view(B, S * T, -1), pictures).view(B * S, T, -1)
            x = block(x, mask)
        return self.head(self.norm(x)).view(B, S, T, -1)


class LateFusion(nn.Module):
    """Two streams that meet at the end: the picture as one vector (a linear layer on all its places, so it knows where
    things are), a causal transformer over the words, and a head with a hidden layer that reads both. Arguments and
    shapes as in JointTransformer."""

    def __init__(
        self,
        vocabulary: int,
        features: int,
        grid: tuple[int, int],
        length: int,
        width: int = 96,
        depth: int = 2,
        heads: int = 3,
    ):
        super().__init__()
        self.pool = nn.Linear(grid[0] * grid[1] * features, width)
        self.embedding = nn.Embedding(vocabulary, width)
        self.position = nn.Parameter(0.5 * torch.randn(length, width))
        self.encoder = Encoder(width, depth, heads)
        self.head = nn.Sequential(nn.Linear(2 * width, 4 * width), nn.GELU(), nn.Linear(4 * width, vocabulary))
        _begin(self)

    def forward(self, seen: Tensor, tokens: Tensor) -> Tensor:
        B, S, T = tokens.shape
        x = (self.embedding(tokens) + self.position[:T]).flatten(0, 1)
        words = self.encoder(x, causal_mask(T, tokens.device)).view(B, S, T, -1)
        picture = self.pool(seen.flatten(1))[:, None, None].expand(-1, S, T, -1)
        return self.head(torch.cat([words, picture], -1))


class PooledMap(nn.Sequential):
    """What is seen as one vector, for a tower of lesson 08's DualEncoder: (B, P, F) -> (B, out_features), two linear
    layers on all places side by side, so that it can know where things are."""

    def __init__(self, places: int, features: int, out: int = 128):
        super().__init__(nn.Flatten(1), nn.Linear(places * features, 2 * out), nn.GELU(), nn.Linear(2 * out, out))
        self.out_features = out


class BagTower(nn.Module):
    """A text tower that knows which tokens a caption holds and not their order: tokens (B, T) -> (B, width), an MLP on
    the sum of their vectors. The first three tokens ([PAD], [BOS], [EOS]) do not count."""

    def __init__(self, vocabulary: int, width: int = 96):
        super().__init__()
        self.out_features = width
        self.embedding = nn.Embedding(vocabulary, width)
        self.mix = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.mix((self.embedding(tokens) * (tokens > 2)[..., None]).sum(1))


class FromPixels(nn.Module):
    """A MapTower and a fusion model trained as one: pictures (B, 3, H, W) and tokens (B, S, T) -> logits."""

    def __init__(self, tower: MapTower, model: nn.Module):
        super().__init__()
        self.tower, self.model = tower, model

    def forward(self, images: Tensor, tokens: Tensor) -> Tensor:
        return self.model(self.tower(images), tokens)


def _begin(model: nn.Module) -> None:
    """First weights of a model with a table of words."""
    initialise(model)
    nn.init.normal_(model.embedding.weight, std=0.5)

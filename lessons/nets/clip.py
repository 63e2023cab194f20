"""Lesson 08: two towers that meet in one space (Radford et al. 2021, CLIP, arXiv 2103.00020, section 2.4)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import SettingError
from ..precision import full
from .resnet import FastResNet
from .vit import Encoder, ViT, causal_mask

FIRST_SCALE, LARGEST_SCALE = 1 / 0.07, 100.0  # what the cosines are multiplied by, at first and at most (section 2.5)


class TextTower(nn.Module):
    """A causal transformer that reads a caption: tokens (B, T) int64 -> features (B, D).

    One row of a table per token, plus a learned position, then the Encoder of lesson 02 under a causal mask. The
    feature is the state at the first `eos`, the only token that has seen the whole caption; what follows it is padding
    and changes nothing. T may be shorter than `length`. Raises SettingError for longer captions and for a row without
    an `eos`.
    """

    def __init__(
        self, vocabulary: int, length: int = 32, width: int = 96, depth: int = 2, heads: int = 3, eos: int = 2
    ):
        super().__init__()
        self.eos, self.out_features = eos, width
        self.embedding = nn.Embedding(vocabulary, width)
        self.position = nn.Parameter(0.5 * torch.randn(length, width))
        self.encoder = Encoder(width, depth, heads)
        nn.init.normal_(self.embedding.weight, std=0.5)

    def states(self, tokens: Tensor) -> Tensor:
        """The state after every token: (B, T) -> (B, T, D)."""
        if tokens.shape[1] > len(self.position):
            raise SettingError(f"Captions of {tokens.shape[1]} tokens; this tower reads at most {len(self.position)}.")
        x = self.embedding(tokens) + self.position[: tokens.shape[1]]
        return self.encoder(x, causal_mask(tokens.shape[1], tokens.device))

    def forward(self, tokens: Tensor) -> Tensor:
        ends = tokens == self.eos
        if tokens.device.type == "cpu" and not ends.any(1).all():  # on a GPU asking would make it wait
            raise SettingError(f"Every caption must hold the end token {self.eos}; a tokenizer adds it.")
        return self.states(tokens)[torch.arange(len(tokens), device=tokens.device), ends.int().argmax(1)]


class ConvTower(nn.Module):
    """A small convolutional picture tower: (B, 3, H, W), H and W at least 32 -> features (B, 8 width + places).

    The body of lesson 01's FastResNet. The maximum over its map says what is there, wherever it is; `places` numbers,
    one linear layer on the map brought to 4 x 4, say where, because captions speak of that too. `out_features` is the
    number of features.
    """

    def __init__(self, width: int = 16, places: int = 64):
        super().__init__()
        self.out_features = 8 * width + places
        self.body = FastResNet(width=width).features
        self.places = nn.Linear(8 * width * 16, places)

    def forward(self, images: Tensor) -> Tensor:
        x = self.body(images)  # (B, 8 width, H/8, W/8)
        where = self.places(F.adaptive_max_pool2d(x, 4).flatten(1))  # (B, places)
        return torch.cat([x.amax((2, 3)), where], dim=1)


class ViTTower(ViT):
    """The ViT of lesson 02 as a picture tower: (B, 3, H, W) -> the [CLS] token (B, D). As in CLIP, one more layer norm
    follows the positions. Keywords as in ViT, without `classes`; `out_features` is D."""

    def __init__(self, **sizes):
        super().__init__(**sizes, classes=0)
        self.out_features = self.position.shape[1]
        self.pre_norm = nn.LayerNorm(self.encoder.norm.normalized_shape, eps=1e-6)

    def tokens(self, images: Tensor, keep: Tensor | None = None) -> Tensor:
        """z_0 after the extra layer norm: (B, 1 + N, D), or (B, 1 + K, D) with `keep`."""
        return self.pre_norm(super().tokens(images, keep))


class DualEncoder(nn.Module):
    """CLIP: a picture tower, a text tower, a linear projection without bias for each, one learned scale.

    The towers give features (B, `out_features`). `encode_pictures(images)` and `encode_texts(tokens)` give unit vectors
    (B, out) in at least float32; a forward pass gives both and the scale exp(t) = 1/tau. `log_scale` is t, ln(1/0.07)
    at first. Call `clamp_scale()` after each update: the scale stays at or below 100.
    """

    def __init__(self, pictures: nn.Module, texts: nn.Module, out: int = 64):
        super().__init__()
        self.pictures, self.texts = pictures, texts
        self.picture_projection = nn.Linear(pictures.out_features, out, bias=False)
        self.text_projection = nn.Linear(texts.out_features, out, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(math.log(FIRST_SCALE)))
        for projection in (self.picture_projection, self.text_projection):
            nn.init.normal_(projection.weight, std=projection.in_features**-0.5)

    def encode_pictures(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> unit vectors (B, out)."""
        return F.normalize(full(self.picture_projection(self.pictures(images))), dim=1)

    def encode_texts(self, tokens: Tensor) -> Tensor:
        """(B, T) -> unit vectors (B, out)."""
        return F.normalize(full(self.text_projection(self.texts(tokens))), dim=1)

    def forward(self, images: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.encode_pictures(images), self.encode_texts(tokens), self.log_scale.exp()

    @torch.no_grad()
    def clamp_scale(self) -> None:
        """Keep the scale at or below 100, in place (section 2.5: it "prevents scaling the logits by more than 100")."""
        self.log_scale.clamp_(max=math.log(LARGEST_SCALE))


class LockedTower(nn.Module):
    """A picture tower that stays as it is (LiT, Zhai et al. 2022, arXiv 2111.07991): no gradient, and batch norm with
    its stored statistics also while the model around it trains. (B, 3, H, W) -> features (B, D)."""

    def __init__(self, tower: nn.Module):
        super().__init__()
        self.tower, self.out_features = tower.requires_grad_(False), tower.out_features

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            return self.tower.eval()(images)


class WordPredictor(nn.Module):
    """The bag-of-words model that CLIP is compared with (section 2.3): which tokens does the caption of a picture hold?
    (B, 3, H, W) -> one logit per token of the vocabulary (B, V)."""

    def __init__(self, tower: nn.Module, vocabulary: int):
        super().__init__()
        self.tower, self.head = tower, nn.Linear(tower.out_features, vocabulary)

    def forward(self, images: Tensor) -> Tensor:
        return full(self.head(self.tower(images)))

    def loss(self, images: Tensor, tokens: Tensor) -> Tensor:
        """A yes or no for every token of the vocabulary: mean binary cross entropy. tokens (B, T)."""
        logits = self(images)
        return F.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits).scatter_(1, tokens, 1.0))

    def scores(self, images: Tensor, prompts: Tensor) -> Tensor:
        """Mean log probability of the tokens of each prompt (K, T), those up to `eos` (2) left out: (B, K)."""
        word = (prompts > 2).float()
        return (F.logsigmoid(self(images))[:, prompts] * word).sum(2) / word.sum(1)


class CaptionWriter(nn.Module):
    """The captioning model that CLIP is compared with (section 2.3): a causal transformer writes the caption, and the
    picture is added to its first token. (B, 3, H, W) and tokens (B, T) -> log probability of each token after the
    first, (B, T - 1), zero where it is padding (0)."""

    def __init__(self, tower: nn.Module, text: TextTower):
        super().__init__()
        self.tower, self.text = tower, text
        self.prefix = nn.Linear(tower.out_features, text.out_features)

    def forward(self, images: Tensor, tokens: Tensor) -> Tensor:
        return self.read(self.prefix(self.tower(images)), tokens)

    def read(self, seen: Tensor, tokens: Tensor) -> Tensor:
        """The same from what the tower saw, seen (B, D)."""
        x = self.text.embedding(tokens) + self.text.position[: tokens.shape[1]]
        x = torch.cat([x[:, :1] + seen[:, None], x[:, 1:]], dim=1)  # (B, T, D)
        states = self.text.encoder(x, causal_mask(tokens.shape[1], tokens.device))
        table = full(states[:, :-1] @ self.text.embedding.weight.T).log_softmax(2)  # (B, T - 1, V)
        return table.gather(2, tokens[:, 1:, None])[..., 0] * (tokens[:, 1:] != 0)

    def loss(self, images: Tensor, tokens: Tensor) -> Tensor:
        """Mean cross entropy of the next token, padding left out."""
        return -self(images, tokens).sum() / (tokens[:, 1:] != 0).sum()

    def scores(self, images: Tensor, prompts: Tensor) -> Tensor:
        """Log probability of writing each prompt (K, T): (B, K)."""
        seen = self.prefix(self.tower(images))
        prompts = prompts[:, : int((prompts != 0).sum(1).max())]
        return torch.stack([self.read(seen, prompt.expand(len(seen), -1)).sum(1) for prompt in prompts], dim=1)

"""Lesson 10: class names as a classifier (Radford et al. 2021, CLIP, arXiv 2103.00020, section 3.1)."""

import copy
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import SettingError
from ..precision import full
from .clip import DualEncoder

Reader = Callable[[list[str]], Tensor]  # sentences -> unit vectors (N, D)


def render_prompts(names: Sequence[str], templates: Sequence[str]) -> list[str]:
    """K names in P templates such as "a photo of a {}" -> K * P sentences, all of the first name first. Raises
    SettingError where there is no name or no template, for a template without {}, and for a single string."""
    if isinstance(names, str) or isinstance(templates, str) or not names or not templates:
        raise SettingError(f"Expected a list of names and a list of templates, got {names!r} and {templates!r}.")
    for template in templates:
        if "{}" not in template:
            raise SettingError(f"The template {template!r} has no place for the name; write {{}} there.")
    return [template.replace("{}", name) for name in names for template in templates]


def zero_shot_weights(prompts: Tensor) -> Tensor:
    """Vectors of P prompts for each of K classes, (K, P, D) of any length -> the classifier's weights, (K, D) of length
    1: each prompt is normalised, then their mean is. An ensemble in embedding space, made once and kept, so that a
    prediction costs the same for 1 and for 80 templates (section 3.1.4). Raises SettingError for another shape."""
    if prompts.ndim != 3 or not prompts.shape[1]:
        raise SettingError(f"Expected prompts (K, P, D) with P at least 1, got {tuple(prompts.shape)}.")
    return F.normalize(F.normalize(full(prompts), dim=2).mean(1), dim=1)


class ZeroShotHead(nn.Module):
    """A linear layer without bias whose rows are class weights (K, D): vectors of pictures (B, D) of any length ->
    logits (B, K), scale * cosine while the rows have length 1. `weight` is frozen until `requires_grad_()`; `scale`,
    1 / tau, changes confidence and never the prediction. Raises SettingError for a scale not above 0."""

    def __init__(self, weight: Tensor, scale: float = 100.0):
        super().__init__()
        if weight.ndim != 2 or not scale > 0:
            raise SettingError(f"Expected weights (K, D) and a scale above 0, got {tuple(weight.shape)} and {scale}.")
        self.weight, self.scale = nn.Parameter(weight.detach().clone(), requires_grad=False), float(scale)

    @classmethod
    @torch.no_grad()
    def from_names(
        cls, read: Reader, names: Sequence[str], templates: Sequence[str] = ("a photo of a {}",), scale: float = 100.0
    ) -> "ZeroShotHead":
        """The classifier of K names in P templates; `read(sentences)` gives vectors (N, D). Class k is `names[k]`: they
        must stand in the order of the labels. Raises SettingError as `render_prompts` does."""
        vectors = read(render_prompts(names, templates))
        return cls(zero_shot_weights(vectors.view(len(names), len(templates), -1)), scale)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.scale * F.normalize(full(pictures), dim=1) @ self.weight.T

    @torch.no_grad()
    def predict(self, pictures: Tensor) -> Tensor:
        """Number of the nearest class for each vector (B, D): int64 (B,)."""
        return self(pictures).argmax(1)

    @torch.no_grad()
    def accuracy(self, pictures: Tensor, labels: Tensor) -> float:
        """Share of vectors (N, D) whose nearest class is their label (N,)."""
        return (self.predict(pictures) == labels).float().mean().item()


class PictureClassifier(nn.Module):
    """A copy of the picture side of `model` with a zero-shot head on top: (B, 3, H, W) -> logits (B, K). Training it
    leaves `model` as it is. Wortsman et al. 2021 (WiSE-FT, arXiv 2109.01903) fine-tune such a network end to end."""

    def __init__(self, model: DualEncoder, head: ZeroShotHead):
        super().__init__()
        self.tower, self.projection = copy.deepcopy(model.pictures), copy.deepcopy(model.picture_projection)
        self.head = copy.deepcopy(head)
        self.requires_grad_(True)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.projection(self.tower(images)))


def interpolated(start: nn.Module, end: nn.Module, amount: float) -> nn.Module:
    """A new network with the weights (1 - amount) * start + amount * end, batch-norm statistics included; what is no
    floating-point number is that of `end` (WiSE-FT, section 3). Raises SettingError where the two differ in names or
    shapes, and for an amount outside [0, 1]."""
    first, last = start.state_dict(), end.state_dict()
    shapes = [{name: value.shape for name, value in state.items()} for state in (first, last)]
    if shapes[0] != shapes[1]:
        raise SettingError("Only networks of one architecture can be interpolated; these differ in names or shapes.")
    if not 0 <= amount <= 1:
        raise SettingError(f"amount is {amount}; expected 0 (the start) to 1 (the end).")
    between = copy.deepcopy(end)
    between.load_state_dict(
        {
            name: torch.lerp(value, last[name], amount) if value.is_floating_point() else last[name]
            for name, value in first.items()
        }
    )
    return between

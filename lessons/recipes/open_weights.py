"""CLIP's own weights for whoever has them, lesson 10."""

import importlib.util
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import compat, data
from ..data import hub

CLIP_FILE = "open_clip_model.safetensors"  # what the hub calls the weights of an open_clip model


def real_clip(
    fetch: bool = False,
    *,
    name: str = "ViT-B-32-quickgelu",
    repo: str = "timm/vit_base_patch32_clip_224.openai",
    device: torch.device | str = "cpu",
) -> tuple[Callable[[Tensor], Tensor], Callable[[list[str]], Tensor], float] | None:
    """OpenAI's CLIP through open_clip: (see, read, scale), or None with one line that says why not.

    see(uint8 pictures (N, 3, H, W)) and read(sentences) give unit vectors (N, D); `scale` is the learned 1 / tau. The
    weights (about 600 MB for the default) come from the local cache of the hub and, with `fetch`, from the hub itself,
    which has 2.5 s to answer. Nothing is raised for want of open_clip, network or weights.
    """
    if importlib.util.find_spec("open_clip") is None:
        return _skipped("open_clip is not installed (pip install open_clip_torch)")
    try:
        from huggingface_hub import hf_hub_download, try_to_load_from_cache

        path = try_to_load_from_cache(repo, CLIP_FILE)
        if not isinstance(path, str):
            if not fetch:
                return _skipped("the weights are not in the cache of the hub, and nothing was to be fetched")
            if reason := hub.unreachable(data.SETS["captions"].hub, again=True):
                return _skipped(reason)
            path = hf_hub_download(repo, CLIP_FILE)
        compat.import_torchvision()
        import open_clip

        model = open_clip.create_model(name, pretrained=path, device=device).eval()
        see, read = _clip_readers(model, open_clip.get_tokenizer(name), device)
        return see, read, model.logit_scale.exp().item()
    except Exception as problem:  # a download can fail in many ways, and the lesson goes on without it
        return _skipped(f"{type(problem).__name__}: {(str(problem).splitlines() or ['no message'])[0]}")


def _skipped(reason: str) -> None:
    print(f"Real CLIP weights: skipped, because {reason}.")


def _clip_readers(model, tokenizer, device) -> tuple[Callable, Callable]:
    """see and read of `real_clip` for an open_clip model: pictures get the size it reads, and OpenAI's constants."""
    side = model.visual.image_size
    size = tuple(side) if isinstance(side, (tuple, list)) else (side, side)
    mean, deviation = (
        torch.tensor(values, device=device).view(3, 1, 1)
        for values in ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
    )

    @torch.no_grad()
    def see(images: Tensor) -> Tensor:
        vectors = []
        for part in images.to(device).split(100):
            large = F.interpolate(part.float() / 255, size, mode="bicubic", antialias=True).clamp(0, 1)
            vectors.append(model.encode_image((large - mean) / deviation, normalize=True).float())
        return torch.cat(vectors)

    @torch.no_grad()
    def read(sentences: list[str]) -> Tensor:
        parts = [sentences[i : i + 200] for i in range(0, len(sentences), 200)]
        return torch.cat([model.encode_text(tokenizer(part).to(device), normalize=True).float() for part in parts])

    return see, read

"""Lesson 08's caption model, from which lessons 09 and 10 start, and what it is trained on."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial

import torch
from torch import Tensor

from .. import augment, data, objectives, rehearsal, training
from ..data import Captioned, Splits, language
from ..data.scenes import WORLDS, World, render
from ..data.tokenizer import Tokenizer
from ..errors import SettingError
from ..nets.clip import ConvTower, DualEncoder, TextTower, ViTTower
from ..session import Run

HELD_OUT = (("red", "cross"), ("green", "star"), ("blue", "ring"), ("yellow", "square"))  # kept for lesson 10
CAPTION_WORLD = replace(
    WORLDS["pairs"],
    size=(0.34, 0.48),
    x=(-0.6, 0.6),
    y=(-0.6, 0.6),
    shapes=("circle", "square", "triangle", "cross", "ring", "star"),
    colours=("red", "green", "blue", "yellow", "purple", "turquoise"),
    held_out=HELD_OUT,
)
STYLES = ("relation", "all")  # each names every object; the first one says where things are as well


@dataclass(frozen=True)
class CaptionSettings:
    """Everything that decides how the caption model is trained. `tower` is "conv" or "vit"; `pixels` the side of a
    picture, `length` the tokens of a caption, `vocabulary` the largest number of tokens."""

    tower: str
    pixels: int
    pictures: int
    vocabulary: int
    length: int
    tower_width: int
    text_width: int
    text_depth: int
    out: int
    batch: int
    steps: int
    learning_rate: float
    crop: float  # smallest share of a picture that a random crop keeps; 1: no crops
    weight_decay: float = 0.05


def caption_settings(run: Run, source: str) -> CaptionSettings:
    """The settings of `caption_model` at the scale of `run`, for "scenes" or for real captions (any other source)."""
    scenes = source == "scenes"
    smoke = CaptionSettings("conv", 32, 400, 400, 24, 4, 48, 1, 32, 32, 6, 1e-3, 1.0)
    cpu = CaptionSettings("conv", 32, 16_000, 400, 24, 16, 96, 2, 64, 128, 400, 1e-3, 1.0)
    gpu = CaptionSettings("vit", 64, 60_000, 400, 24, 256, 256, 4, 256, 512, 6_000, 5e-4, 1.0)
    if not scenes:
        smoke = replace(smoke, crop=0.5)
        cpu = replace(cpu, vocabulary=2_000, length=32, crop=0.5, batch=256, steps=300, learning_rate=2e-3)
        gpu = replace(gpu, vocabulary=8_000, length=40, crop=0.5)
    return run.pick(smoke=smoke, cpu=cpu, gpu=gpu)


def caption_scenes(
    count: int, *, first: int = 0, seed: int = 0, size: int = 32, world: World = CAPTION_WORLD, device="cpu"
) -> Captioned:
    """`count` pictures of one or two objects with four captions each, none of a HELD_OUT combination unless `world`
    allows it. Captions 0 and 2 say where things are ("relation", or "position" of a single one), 1 and 3 list them."""
    scenes = render(world, count, seed=seed, first=first, size=size, device=device)
    columns = [language.captions(scenes, 1, style, first=k) for k, style in enumerate(2 * STYLES)]
    texts = [[column[i][0] for column in columns] for i in range(count)]
    ids = [f"scene-{seed}-{first + i}" for i in range(count)]
    return Captioned(scenes.images, texts, ids, "scenes", "built-in scenes")


def caption_pairs(run: Run, source: str | None = None) -> Splits[Captioned]:
    """Pictures with captions for lessons 08 to 11, on the device: train, val, test. `source` as in lessons.data, that
    of the run by default. The scenes never show a HELD_OUT combination. Raises DataError as `data.captions` does."""
    source = source or run.source
    settings = caption_settings(run, source)
    held = run.pick(smoke=60, cpu=500, gpu=1_000)
    if source != "scenes":
        splits = data.captions(source=source, val=held, test=held, size=settings.pixels, device=run.device)
        if splits.train.source != "built-in scenes":
            return splits
    draw = lambda count, first: caption_scenes(  # noqa: E731
        count, first=first, size=settings.pixels, device=run.device
    )
    return Splits(draw(settings.pictures, 0), draw(held, 10_000_000), draw(held, 20_000_000))


def caption_tokens(tokenizer: Tokenizer, captions: list[list[str]]) -> Tensor:
    """Tokens (N, C, T) of C captions for each of N pictures, C being the smallest number that any of them has."""
    count = min(len(texts) for texts in captions)
    return tokenizer([text for texts in captions for text in texts[:count]]).view(len(captions), count, -1)


def caption_batches(
    images: Tensor,
    tokens: Tensor,
    size: int,
    *,
    seed: int = 0,
    shift: int = 0,
    change: Callable[..., Tensor] | None = None,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Endless batches (input (B, 3, H, W), tokens (B, T), numbers of the pictures (B,)), one of its captions drawn for
    each picture, T being the longest of them. images uint8 (N, 3, H, W), tokens (N, C, T), both on one device.
    `change(images, generator=...)` augments pictures in [0, 1]; `shift` pairs picture i with a caption of picture
    i + shift: the control. The order depends on `seed` only. Raises SettingError for a batch larger than the set."""
    size = rehearsal.batch(size)
    if not 1 <= size <= len(images):
        raise SettingError(f"The batch size is {size}, but there are {len(images)} pictures to draw from.")
    lengths = (tokens != 0).sum(2).cpu()  # (N, C), here once: to ask the device at each step would make it wait
    order, chance = torch.Generator().manual_seed(seed), torch.Generator(images.device).manual_seed(seed)
    while True:
        for index in torch.randperm(len(images), generator=order)[: len(images) // size * size].split(size):
            which, owner = torch.randint(tokens.shape[1], (size,), generator=order), (index + shift) % len(images)
            longest = int(lengths[owner, which].max())
            index = index.to(images.device)
            texts = tokens[owner.to(images.device), which.to(images.device), :longest]
            pixels = images[index].float() / 255
            pixels = change(pixels, generator=chance) if change else pixels
            yield training.to_input(pixels), texts, index


def dual_encoder(settings: CaptionSettings, vocabulary: int, run: Run) -> DualEncoder:
    """An untrained CLIP with these settings, on the device, its weights from the seed of the run."""
    torch.manual_seed(run.seed)
    s = settings
    if s.tower == "conv":
        tower = run.place(ConvTower(s.tower_width), "conv")
    else:
        heads = max(1, s.tower_width // 64)
        tower = ViTTower(image=s.pixels, patch=s.pixels // 8, width=s.tower_width, depth=6, heads=heads)
    text = TextTower(vocabulary, s.length, s.text_width, s.text_depth, heads=max(1, s.text_width // 32))
    return DualEncoder(tower, text, s.out).to(run.device)


def clip_step(model: DualEncoder, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss function of CLIP for `lessons.fit`; it records the scale."""
    u, v, scale = model(batch[0], batch[1])
    return objectives.clip_loss(u, v, scale), {"scale": scale}


def fit_clip(
    run: Run, model: DualEncoder, batches: Iterator[tuple], settings: CaptionSettings, *, title: str = "CLIP"
) -> training.History:
    """Train `model` on `batches` by the settings: AdamW, warm-up, cosine, gradient norm at most 1, the scale clamped
    after every step. The model is changed in place."""
    groups = training.parameter_groups(model, settings.weight_decay)
    return training.fit(
        model,
        clip_step,
        batches,
        steps=settings.steps,
        optimizer=torch.optim.AdamW(groups, lr=settings.learning_rate),
        clip=1.0,
        precision=run.precision("conv" if settings.tower == "conv" else "transformer"),
        after_step=lambda step: model.clamp_scale(),
        title=title,
    )


@torch.no_grad()
def embed(model: DualEncoder, images: Tensor, tokens: Tensor, batch: int = 250) -> tuple[Tensor, Tensor]:
    """Unit vectors of uint8 pictures (N, 3, H, W) and of captions' tokens (M, T), in eval mode: (N, D), (M, D)."""
    was_training = model.training
    model.eval()
    try:
        pictures = [model.encode_pictures(training.to_input(part)) for part in images.split(batch)]
        texts = [model.encode_texts(part) for part in tokens.split(batch)]
        return torch.cat(pictures), torch.cat(texts)
    finally:
        model.train(was_training)


def caption_model(
    run: Run, source: str | None = None, pairs: Splits[Captioned] | None = None
) -> tuple[DualEncoder, Tokenizer, training.History]:
    """Lesson 08's model, from which lessons 09 to 11 start: (model in eval mode, tokenizer, history).

    Trained on `caption_pairs(run, source).train` (or `pairs`, the same drawn before) with `caption_settings`. At cpu
    scale that takes a minute on scenes and a minute and a half on real captions, or a moment when the cache has it.
    HELD_OUT combinations of colour and shape occur in none of its scenes. Raises DataError as `data.captions` does.
    """
    source = source or run.source
    pairs = pairs or caption_pairs(run, source)
    settings = caption_settings(run, pairs.train.name if pairs.train.name == "scenes" else source)
    texts = [text for captions in pairs.train.captions for text in captions]
    tokenizer = Tokenizer.train(texts, settings.vocabulary, settings.length)
    model = dual_encoder(settings, len(tokenizer), run)

    def train() -> training.History:
        tokens = caption_tokens(tokenizer, pairs.train.captions).to(run.device)
        crop = partial(augment.random_resized_crop, size=settings.pixels, scale=(settings.crop, 1))
        batch = min(settings.batch, len(pairs.train))
        batches = caption_batches(
            pairs.train.images, tokens, batch, seed=run.seed, change=crop if settings.crop < 1 else None
        )
        return fit_clip(run, model, batches, settings, title="caption model")

    fingerprint = hashlib.sha256((tokenizer.text() + "".join(texts[:1000])).encode()).hexdigest()
    precision = str(run.precision("conv" if settings.tower == "conv" else "transformer"))
    known = asdict(settings) | {"captions": fingerprint, "seed": run.seed, "precision": precision}
    history = training.remember("caption-model", model, known, train)
    return model.eval(), tokenizer, history

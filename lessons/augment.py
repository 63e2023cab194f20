"""Random augmentations of a whole batch at once, on the device where the batch lies.

A pipeline in the usual style augments one picture at a time in worker processes. The functions here take a batch
x of shape (B, 3, H, W), float, pixels in [0, 1], and draw every parameter B times, once per picture, so that no two
pictures share a crop or a colour. They return a new batch and leave x as it was. All randomness comes from `generator`
(a torch.Generator on the device of the batch; None: torch's global one), so the same seed gives the same views.

Names, settings and distributions are those of torchvision.transforms.v2 where the same thing exists there. Two ideas
make it fast without changing the result:

- Resizing a crop and blurring are linear and treat rows and columns alike: out = R x C^T, with a matrix R for the rows
  and C for the columns. With one pair of matrices per picture both become two batched matrix products.
- A random choice (blur half of the pictures; change the hue first, or last) splits the batch into groups. Each group
  is taken out, changed as one batch, and put back.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from lessons.errors import SettingError

__all__ = [
    "color_jitter",
    "compose",
    "crop_flip",
    "dino_crops",
    "gaussian_blur",
    "random_crop",
    "random_flip",
    "random_grayscale",
    "random_resized_crop",
    "random_solarize",
    "simclr",
    "two_views",
]

Step = Callable[..., Tensor]  # step(x, generator=...) -> batch


# Geometry


def random_crop(x: Tensor, padding: int = 4, mode: str = "reflect", generator: Generator | None = None) -> Tensor:
    """Pad each side by `padding` pixels and cut out (H, W) at a random place: (B, 3, H, W) -> (B, 3, H, W).

    `mode` says what the border is filled with: "reflect", "edge" (the last pixel) or "constant" (black, as in ResNet,
    section 4.2). Same as torchvision's RandomCrop(size, padding, padding_mode=mode). Raises SettingError for another
    mode, a negative padding, or a reflection as wide as the picture.
    """
    _check(x, generator)
    height, width = x.shape[-2:]
    modes = {"reflect": "reflect", "edge": "replicate", "constant": "constant"}
    _require(mode in modes, f"mode must be one of {', '.join(modes)}, got {mode!r}.")
    widest = min(height, width) - 1 if mode == "reflect" else math.inf
    _require(0 <= padding <= widest, f"padding must be 0 to {widest} for {height}x{width} pictures, got {padding}.")
    padded = F.pad(x, (padding,) * 4, mode=modes[mode])
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # every possible crop, as a view: nothing is copied
    top = torch.randint(windows.shape[2], (len(x),), device=x.device, generator=generator)
    left = torch.randint(windows.shape[3], (len(x),), device=x.device, generator=generator)
    return windows[torch.arange(len(x), device=x.device), :, top, left]


def random_resized_crop(
    x: Tensor,
    size: int | tuple[int, int],
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    generator: Generator | None = None,
) -> Tensor:
    """Cut a random box out of each picture and resize it: (B, 3, H, W) -> (B, 3, size, size) or (B, 3, *size).

    The box covers a share of the area drawn from `scale`, its width / height is drawn from `ratio` (uniformly in the
    logarithm), its place is uniform. At 32 px a share of .08 is a box of 9 x 9 pixels, so SimCLR's (.08, 1), made for
    ImageNet, is severe. Same as torchvision's RandomResizedCrop, bilinear with antialiasing. Raises SettingError for
    ranges that are reversed or outside 0 < scale <= 1, 0 < ratio.
    """
    _check(x, generator)
    _check_range("scale", scale, low=0, high=1)
    _check_range("ratio", ratio, low=0)
    return resized_crop(x, *_random_boxes(x, scale, ratio, generator), size)


def _random_boxes(
    x: Tensor, scale: tuple[float, float], ratio: tuple[float, float], generator: Generator | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Top, left, height, width of one box per picture, in whole pixels, each (B,)."""
    H, W = x.shape[-2:]
    # A long box may not fit. torchvision tries ten times; here all ten are drawn and the first that fits is taken.
    area = H * W * _uniform(x, *scale, generator, tries=10)
    aspect = _uniform(x, math.log(ratio[0]), math.log(ratio[1]), generator, tries=10).exp()
    width, height = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    fits = (width > 0) & (width <= W) & (height > 0) & (height <= H)
    first = fits.int().argmax(dim=1, keepdim=True)
    # None of the ten fits: the largest central box whose aspect lies within `ratio`.
    found = fits.any(dim=1)
    height = torch.where(found, height.gather(1, first)[:, 0], min(H, round(W / ratio[0])))
    width = torch.where(found, width.gather(1, first)[:, 0], min(W, round(H * ratio[1])))
    top = torch.where(found, _uniform(x, 0, 1, generator) * (H - height + 1), (H - height) / 2).floor()
    left = torch.where(found, _uniform(x, 0, 1, generator) * (W - width + 1), (W - width) / 2).floor()
    # A product such as .99999997 * 33 may round up to 33, one pixel outside.
    return torch.minimum(top, H - height), torch.minimum(left, W - width), height, width


def resized_crop(
    x: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor, size: int | tuple[int, int]
) -> Tensor:
    """Resize one given box per picture (pixels, each (B,)) to `size`: torchvision's resized_crop, a box per picture."""
    out_height, out_width = (size, size) if isinstance(size, int) else size
    _require(out_height >= 1 and out_width >= 1, f"size must be at least 1 pixel, got {size}.")
    rows = _resize_matrix(top, height, x.shape[-2], out_height)
    columns = _resize_matrix(left, width, x.shape[-1], out_width)
    return _rows_and_columns(x, rows, columns)


def _resize_matrix(start: Tensor, length: Tensor, size: int, out_size: int) -> Tensor:
    """Weights (B, out_size, size): how much each input pixel adds to each output pixel, for boxes along one axis."""
    step = (length / out_size)[:, None, None]  # input pixels per output pixel
    start, length = start[:, None, None], length[:, None, None]
    centre = start + step * (torch.arange(out_size, device=start.device) + 0.5)[:, None]
    pixel = torch.arange(size, device=start.device) + 0.5
    # Bilinear: a triangle around the centre, one pixel wide on each side when enlarging. When shrinking it grows with
    # the step, so that no input pixel is skipped: that is antialiasing. Pixels outside the box have no say.
    weight = (pixel - centre).abs_().div_(step.clamp_min(1)).neg_().add_(1).clamp_min_(0)
    weight *= ((pixel > start) & (pixel < start + length)).float()
    return weight / weight.sum(dim=-1, keepdim=True)


def _rows_and_columns(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """R x C^T for each channel: x (B, 3, H, W), rows (B, h, H), columns (B, w, W) -> (B, 3, h, w), within [0, 1]."""
    batch, channels, height, width = x.shape
    with torch.autocast(x.device.type, enabled=False):  # bf16 would be half a grey level off
        x = torch.bmm(x.reshape(batch, channels * height, width), columns.to(x.dtype).mT)
        x = rows.to(x.dtype)[:, None] @ x.view(batch, channels, height, columns.shape[1])
    return x.clamp_(0, 1)


def random_flip(x: Tensor, p: float = 0.5, generator: Generator | None = None) -> Tensor:
    """Mirror each picture left-right with probability p (torchvision's RandomHorizontalFlip): (B, 3, H, W) -> same."""
    _check(x, generator)
    _check_probability(p)
    mirrored = _uniform(x, 0, 1, generator) < p
    forwards = torch.arange(x.shape[-1], device=x.device)
    columns = torch.where(mirrored[:, None], forwards.flip(0), forwards)  # the order in which to read them, (B, W)
    return x.gather(3, columns[:, None, None].expand_as(x))


# Colour


def color_jitter(
    x: Tensor,
    brightness: float | tuple[float, float] = 0.0,
    contrast: float | tuple[float, float] = 0.0,
    saturation: float | tuple[float, float] = 0.0,
    hue: float | tuple[float, float] = 0.0,
    p: float = 1.0,
    generator: Generator | None = None,
) -> Tensor:
    """Change brightness, contrast, saturation and hue, in an order drawn per picture: (B, 3, H, W) -> same shape.

    A number b stands for factors uniform in [max(0, 1 - b), 1 + b], a pair for [low, high]; hue h for a turn of the
    colour wheel uniform in [-h, h], at most half a turn (.5). With probability 1 - p a picture stays as it is. Each of
    the four ends by clamping to [0, 1], which is why their order matters. Same as torchvision's ColorJitter inside
    RandomApply(p). Raises SettingError for a negative number, a reversed pair or a hue beyond .5.
    """
    _check(x, generator)
    ranges = [_around_one("brightness", brightness), _around_one("contrast", contrast)]
    ranges.append(_around_one("saturation", saturation))
    factors = torch.stack([_uniform(x, *range_, generator) for range_ in ranges], dim=1)
    turns = _uniform(x, *_around_zero("hue", hue), generator)
    # A random order of four is a random order of the first three, with hue before one of them or at the end.
    order = torch.rand(len(x), 3, device=x.device, generator=generator).argsort(dim=1)
    hue_place = torch.randint(4, (len(x),), device=x.device, generator=generator)
    matrix, share = _blends(x, order, factors.gather(1, order))
    chosen = _choose(x, p, generator)

    out = x.clone()
    for place in range(4):
        group = chosen[hue_place[chosen] == place]
        some = x[group]
        for step in range(4):
            if step == place:
                some = _turn_hue(some, turns[group])
            if step < 3:
                some = _blend(some, matrix[group, step], share[group, step])
        out[group] = some
    return out


def _luminance(x: Tensor) -> Tensor:
    """Weights (3,) of red, green and blue in grey: ITU-R BT.601, in torchvision's rounding."""
    return torch.tensor([0.2989, 0.587, 0.114], device=x.device, dtype=x.dtype)


def _blends(x: Tensor, kind: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
    """What each blend does to a colour: a matrix (B, n, 3, 3) on it, and a share (B, n, 1, 3) of the mean colour.

    Brightness, contrast and saturation all mean factor * picture + (1 - factor) * other; the other is black
    (brightness, kind 0), the picture's mean grey (contrast, 1) or its grey version (saturation, 2). Both (B, n).
    """
    kind, factor = kind[..., None, None], factor.to(x.dtype)[..., None, None]
    luminance = _luminance(x)
    matrix = factor * torch.eye(3, device=x.device, dtype=x.dtype) + (1 - factor) * (kind == 2) * luminance
    return matrix, (1 - factor) * (kind == 1) * luminance


def _blend(x: Tensor, matrix: Tensor, share: Tensor) -> Tensor:
    """One blend of each picture, clamped to [0, 1]: matrix (B, 3, 3), share (B, 1, 3)."""
    colours = x.flatten(2)
    with torch.autocast(x.device.type, enabled=False):
        constant = torch.bmm(share, colours.mean(dim=2, keepdim=True))  # (B, 1, 1)
        return torch.baddbmm(constant, matrix, colours).clamp_(0, 1).view_as(x)


def _turn_hue(x: Tensor, turn: Tensor) -> Tensor:
    """Turn each picture's colours around the wheel by `turn` (B,) of a full turn, in HSV: value and saturation stay."""
    red, green, blue = x.split(1, dim=1)
    low = torch.minimum(torch.minimum(red, green), blue)
    chroma = torch.maximum(torch.maximum(red, green), blue) - low
    # The hue is an angle, here in turns: red at 0, green at 1/3, blue at 2/3. Its distance from red shows in r, the
    # share of red, and in y, a sixth of the share of green less that of blue, whose sign tells the side. The distance
    # is |y| where r = 1, (2 - r) / 6 where |y| = 1/6, and 1/2 - |y| where r = 0; one formula says all three.
    # Grey has no hue; any will do, as it is multiplied by the chroma, 0, in the end.
    scale = chroma.clamp_min(torch.finfo(x.dtype).tiny)
    r, y = (red - low).div_(scale), (green - blue).div_(6 * scale)
    distance = (0.25 - y.abs()).mul_(1 - 2 * r).add_(0.25)
    hue = torch.copysign(distance, y).add_(turn.to(x.dtype)[:, None, None, None])
    # Back: a channel is full within 1/6 of its own colour, gone beyond 2/6, and linear in between.
    distance = hue - torch.tensor([0, 1 / 3, 2 / 3], device=x.device, dtype=x.dtype)[:, None, None]
    distance = distance.sub_(distance.round()).abs_()  # the shorter way around the wheel
    return distance.mul_(-6).add_(2).clamp_(0, 1).mul_(chroma).add_(low)


def random_grayscale(x: Tensor, p: float = 0.1, generator: Generator | None = None) -> Tensor:
    """Take the colour from a picture with probability p, all three channels alike then: (B, 3, H, W) -> same shape."""
    _check(x, generator)
    _check_probability(p)
    grey = (_uniform(x, 0, 1, generator) < p)[:, None, None]
    matrix = torch.where(grey, _luminance(x), torch.eye(3, device=x.device, dtype=x.dtype))  # (B, 3, 3), on the colours
    with torch.autocast(x.device.type, enabled=False):
        return torch.bmm(matrix, x.flatten(2)).view_as(x)


def random_solarize(x: Tensor, threshold: float = 0.5, p: float = 0.5, generator: Generator | None = None) -> Tensor:
    """With probability p invert a picture's pixels at or above `threshold` (0 to 1): (B, 3, H, W) -> same shape."""
    _check(x, generator)
    _require(0 <= threshold <= 1, f"threshold must be within [0, 1], got {threshold}.")
    return _change(x, _choose(x, p, generator), lambda some: torch.where(some >= threshold, 1 - some, some))


def gaussian_blur(
    x: Tensor,
    kernel_size: int,
    sigma: tuple[float, float] = (0.1, 2.0),
    p: float = 1.0,
    generator: Generator | None = None,
) -> Tensor:
    """Blur a picture with probability p, with a standard deviation drawn from `sigma` (pixels): (B, 3, H, W) -> same.

    The Gaussian is cut to `kernel_size` pixels (odd), and the picture reflected at its border. Same as torchvision's
    GaussianBlur inside RandomApply(p). SimCLR (appendix A): a tenth of the picture's side as kernel size, p .5. Raises
    SettingError for an even kernel size, one too wide for the picture, or a sigma reversed or not positive.
    """
    _check(x, generator)
    _require(kernel_size >= 1 and kernel_size % 2 == 1, f"kernel_size must be odd and positive, got {kernel_size}.")
    widest = 2 * min(x.shape[-2:]) - 1
    _require(kernel_size <= widest, f"kernel_size must be at most {widest} for this picture, got {kernel_size}.")
    _check_range("sigma", sigma, low=0)
    sigmas = _uniform(x, *sigma, generator)
    chosen = _choose(x, p, generator)
    offsets = torch.arange(kernel_size, device=x.device) - kernel_size // 2
    taps = torch.softmax(-((offsets / sigmas[chosen, None]) ** 2) / 2, dim=1)  # softmax: exp, then sum to one
    rows, columns = _blur_matrix(taps, x.shape[-2]), _blur_matrix(taps, x.shape[-1])
    return _change(x, chosen, lambda some: _rows_and_columns(some, rows, columns))


def _blur_matrix(taps: Tensor, size: int) -> Tensor:
    """Weights (B, size, size) of a convolution along one axis with taps (B, k), reflected at both ends."""
    reach = taps.shape[1] // 2
    identity = torch.eye(size, device=taps.device)
    padded = F.pad(identity[None], (0, 0, reach, reach), mode="reflect")[0] if reach else identity
    shifts = padded.unfold(0, size, 1).mT  # (k, size, size): for each tap, which input pixel an output pixel takes
    with torch.autocast(taps.device.type, enabled=False):
        return (taps @ shifts.flatten(1)).view(-1, size, size)


# Composition and recipes


def compose(*steps: Step) -> Step:
    """One augmentation out of several: augment(x, generator=None) applies the steps in order.

    Each step is called as step(x, generator=...); settings go in with functools.partial, for example
    compose(partial(random_resized_crop, size=32), random_flip). The result takes pictures (B, 3, H, W) as uint8 in
    0..255 or float in [0, 1] and returns float in [0, 1].
    """

    def augment(x: Tensor, generator: Generator | None = None) -> Tensor:
        x = x.float().div_(255) if x.dtype == torch.uint8 else x
        for step in steps:
            x = step(x, generator=generator)
        return x

    return augment


def two_views(
    x: Tensor, augment: Step | None = None, generator: Generator | None = None, **settings
) -> tuple[Tensor, Tensor]:
    """Two independent views of each picture, row i of both from picture i: augment(x, **settings), called twice.

    `augment` is a recipe such as simclr (the default) or the result of compose.
    """
    augment = augment or simclr
    return augment(x, generator=generator, **settings), augment(x, generator=generator, **settings)


def crop_flip(x: Tensor, padding: int = 4, mode: str = "reflect", generator: Generator | None = None) -> Tensor:
    """The usual augmentation for supervised training on CIFAR: random crop out of a padded picture, random flip.

    x (B, 3, H, W), uint8 or float in [0, 1] -> float, same shape. ResNet, section 4.2, with mode="constant".
    """
    return compose(partial(random_crop, padding=padding, mode=mode), random_flip)(x, generator)


def simclr(
    x: Tensor,
    size: int | None = None,
    strength: float = 0.5,
    scale: tuple[float, float] = (0.08, 1.0),
    blur: int = 0,
    generator: Generator | None = None,
) -> Tensor:
    """One view for SimCLR: resized crop, flip, colour jitter, grey, and blur with a kernel of `blur` pixels (0: none).

    x (B, 3, H, W), uint8 or float in [0, 1] -> float (B, 3, size, size); size None: the height of x. `strength` s
    scales the jitter: (.8s, .8s, .8s, .2s) with probability .8. SimCLR, appendix A: s = 1 and blur for ImageNet;
    appendix B.9: s = .5 and no blur for CIFAR-10. With scale=(.2, 1) the crops of small pictures are less severe.
    """
    _require(0 <= strength <= 2.5, f"strength must be 0 to 2.5 (hue turns at most half a wheel), got {strength}.")
    amount = 0.8 * strength
    steps = [
        partial(random_resized_crop, size=size or x.shape[-2], scale=scale),
        random_flip,
        partial(color_jitter, brightness=amount, contrast=amount, saturation=amount, hue=amount / 4, p=0.8),
        partial(random_grayscale, p=0.2),
    ]
    if blur:
        steps.append(partial(gaussian_blur, kernel_size=blur, p=0.5))
    return compose(*steps)(x, generator)


def dino_crops(
    x: Tensor,
    n_local: int = 6,
    size: int | None = None,
    local_size: int | None = None,
    global_scale: tuple[float, float] = (0.4, 1.0),
    local_scale: tuple[float, float] = (0.05, 0.4),
    generator: Generator | None = None,
    *,
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1),
    grayscale: float = 0.2,
    blur: bool = True,
    solarize: float = 0.2,
) -> list[Tensor]:
    """Multi-crop for DINO: two large views of each picture and n_local small ones, in this order.

    x (B, 3, H, W), uint8 or float in [0, 1] -> two float batches (B, 3, size, size), then n_local batches
    (B, 3, local_size, local_size); size None: the height of x; local_size None: half of size. The views differ in
    blur (always in the first, .1 in the second, .5 in the local ones) and solarisation (.2, second only). DINO,
    section 3.1 and the authors' code, which resizes bicubically where this is bilinear. The blur's kernel is a tenth
    of the view's side, at least 3. `jitter` (brightness, contrast, saturation, hue; p = .8), `grayscale`, `blur` and
    `solarize` weaken or switch off what small pictures do not bear.
    """
    _require(n_local >= 0, f"n_local must not be negative, got {n_local}.")
    size = size or x.shape[-2]
    local_size = local_size or max(size // 2, 2)

    brightness, contrast, saturation, hue = jitter

    def view(side: int, scale: tuple[float, float], blurred: float, *last: Step) -> Tensor:
        kernel_size = max(3, side // 10 | 1)  # | 1: the odd number at or above
        steps = [
            partial(random_resized_crop, size=side, scale=scale),
            random_flip,
            partial(color_jitter, brightness=brightness, contrast=contrast, saturation=saturation, hue=hue, p=0.8),
            partial(random_grayscale, p=grayscale),
        ]
        if blur:
            steps.append(partial(gaussian_blur, kernel_size=kernel_size, p=blurred))
        return compose(*steps, *last)(x, generator)

    first = view(size, global_scale, 1.0)
    second = view(size, global_scale, 0.1, partial(random_solarize, p=solarize))
    return [first, second] + [view(local_size, local_scale, 0.5) for _ in range(n_local)]


# Drawing, choosing, checking


def _uniform(x: Tensor, low: float, high: float, generator: Generator | None, tries: int | None = None) -> Tensor:
    """Uniform numbers in [low, high), one per picture: (B,), or (B, tries)."""
    shape = (len(x),) if tries is None else (len(x), tries)
    return torch.rand(shape, device=x.device, generator=generator) * (high - low) + low


def _choose(x: Tensor, p: float, generator: Generator | None) -> Tensor:
    """Indices of the pictures that a coin with probability p picks."""
    _check_probability(p)
    return (_uniform(x, 0, 1, generator) < p).nonzero()[:, 0]


def _change(x: Tensor, chosen: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """A copy of x in which the chosen pictures are changed."""
    out = x.clone()
    out[chosen] = change(x[chosen])
    return out


def _around_one(name: str, value: float | tuple[float, float]) -> tuple[float, float]:
    if isinstance(value, int | float):
        _require(value >= 0, f"{name} must not be negative, got {value}.")
        return max(0.0, 1.0 - value), 1.0 + value
    _require(0 <= value[0] <= value[1], f"{name} must be a pair 0 <= low <= high, got {value}.")
    return value


def _around_zero(name: str, value: float | tuple[float, float]) -> tuple[float, float]:
    low, high = (-value, value) if isinstance(value, int | float) else value
    _require(-0.5 <= low <= high <= 0.5, f"{name} must be within 0 and .5 (half a turn), got {value}.")
    return low, high


_looked_at: set[tuple[torch.device, torch.Size]] = set()  # on other devices the first batch of each shape tells


def _check(x: Tensor, generator: Generator | None) -> None:
    """Raise SettingError unless x is a float batch (B, 3, H, W) in [0, 1] on the generator's device."""
    _require(isinstance(x, Tensor), f"Expected a tensor of pictures (B, 3, H, W), got {type(x).__name__}.")
    what = f"{tuple(x.shape)} {str(x.dtype).removeprefix('torch.')}"
    hint = " Make one picture a batch with picture[None]." if x.ndim == 3 else ""
    _require(x.ndim == 4 and x.shape[1] == 3 and x.numel() > 0, f"Expected pictures (B, 3, H, W), got {what}.{hint}")
    hint = "Divide by 255, or use compose() or a recipe such as simclr(), which do it for you."
    _require(x.is_floating_point(), f"Expected float pictures in [0, 1], got {what}. {hint}")
    kind = (x.device, x.shape)
    if x.device.type == "cpu" or kind not in _looked_at:  # to look at a value makes other devices wait
        low, high = (value.item() for value in x[0].aminmax())  # one picture tells, and costs nothing on a CPU
        hint = "Augment before you normalise; if the range is 0 to 255, divide by 255."
        _require(low > -0.01 and high < 1.01, f"Expected pixels in [0, 1], got {low:.3g} to {high:.3g}. {hint}")
        _looked_at.add(kind)
    if generator is not None and generator.device.type != x.device.type:
        hint = f'Make it with torch.Generator("{x.device}").'
        raise SettingError(f"The batch lies on {x.device}, its generator on {generator.device}. {hint}")


def _check_probability(p: float) -> None:
    _require(0 <= p <= 1, f"p is a probability and must be within [0, 1], got {p}.")


def _check_range(name: str, value: tuple[float, float], low: float, high: float = math.inf) -> None:
    """Raise SettingError unless low < value[0] <= value[1] <= high."""
    limit = "" if high == math.inf else f" <= {high}"
    fine = len(value) == 2 and low < value[0] <= value[1] <= high
    _require(fine, f"{name} must be a pair (smallest, largest) with {low} < smallest <= largest{limit}, got {value}.")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise SettingError(message)

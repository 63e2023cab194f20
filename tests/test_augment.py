"""Augmentations: the same pictures and the same distributions as torchvision's, drawn per picture."""

from functools import partial
from itertools import permutations
from types import SimpleNamespace

import pytest
import torch
from parity import agree, in_float64
from scipy.stats import chisquare, ks_2samp

from lessons import augment as A
from lessons.compat import import_torchvision
from lessons.errors import SettingError

N = 2000


@pytest.fixture(scope="module")
def v2():
    import_torchvision()
    from torchvision.transforms import v2

    return v2


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(n=8, height=32, width=32, seed=0):
    """Smooth colours with some noise, and as the last ones the hard cases: black, white, grey, pure colours."""
    x = torch.nn.functional.interpolate(torch.rand(n, 3, 4, 4, generator=generator(seed)), (height, width))
    x = (0.9 * x + 0.1 * torch.rand(x.shape, generator=generator(seed + 1))).clamp(0, 1)
    if n >= 8:
        x[-1], x[-2], x[-3], x[-4] = 0, 1, 0.5, (x[-4] > 0.5).float()
    return x


RANDOM = {  # every augmentation with settings that always change a picture of the kind above
    "random_crop": A.random_crop,
    "random_resized_crop": partial(A.random_resized_crop, size=24),
    "random_flip": A.random_flip,
    "color_jitter": partial(A.color_jitter, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1),
    "random_grayscale": partial(A.random_grayscale, p=0.5),
    "gaussian_blur": partial(A.gaussian_blur, kernel_size=5),
    "random_solarize": A.random_solarize,
    "crop_flip": A.crop_flip,
    "simclr": partial(A.simclr, size=24, blur=3),
}


# The same picture as torchvision for the same parameters


@in_float64
@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
@pytest.mark.parametrize("factor", [0.0, 0.4, 1.0, 1.7])
def test_blends_equal_torchvision(v2, name, factor):
    x = pictures(height=33, width=20)
    ours = A.color_jitter(x, **{name: (factor, factor)}, generator=generator())
    theirs = getattr(v2.functional, f"adjust_{name}")(x, factor)
    agree(ours, theirs)


@in_float64
@pytest.mark.parametrize("turn", [-0.5, -0.2, 0.0, 0.1, 0.5])
def test_hue_equals_torchvision(v2, turn):
    x = pictures(height=33, width=20)
    ours = A.color_jitter(x, hue=(turn, turn), generator=generator())
    agree(ours, v2.functional.adjust_hue(x, turn), rtol=0, atol=1.1e-4)  # torchvision turns the hue in float32


@in_float64
@pytest.mark.parametrize("kernel_size", [1, 3, 9, 23])
@pytest.mark.parametrize("sigma", [0.1, 0.8, 2.0])
def test_blur_equals_torchvision(v2, kernel_size, sigma):
    x = pictures(height=33, width=20)
    ours = A.gaussian_blur(x, kernel_size, sigma=(sigma, sigma), generator=generator())
    theirs = v2.functional.gaussian_blur(x, [kernel_size] * 2, [sigma] * 2)
    agree(ours, theirs)


@in_float64
@pytest.mark.parametrize("box", [(0, 0, 33, 20), (3, 5, 9, 9), (32, 19, 1, 1), (1, 2, 30, 7)])
@pytest.mark.parametrize("size", [32, 8, (5, 40)])
def test_resized_crop_equals_torchvision_with_antialias(v2, box, size):
    x = pictures(height=33, width=20)
    ours = A.resized_crop(x, *(torch.full((len(x),), float(number)) for number in box), size)
    size = [size, size] if isinstance(size, int) else list(size)
    agree(ours, v2.functional.resized_crop(x, *box, size, antialias=True))


@in_float64
def test_grey_flip_and_solarize_equal_torchvision(v2):
    x = pictures(height=33, width=20)
    agree(A.random_grayscale(x, p=1), v2.functional.rgb_to_grayscale(x, num_output_channels=3))
    agree(A.random_flip(x, p=1), v2.functional.horizontal_flip(x))
    agree(A.random_solarize(x, threshold=0.4, p=1), v2.functional.solarize(x, 0.4))


@in_float64
def test_each_picture_gets_its_own_box(v2):
    x = pictures(3)
    boxes = torch.tensor([[0, 0, 32, 32], [4, 9, 8, 20], [20, 2, 12, 12]])
    ours = A.resized_crop(x, *boxes.float().T, 16)
    for row, box in enumerate(boxes.tolist()):
        theirs = v2.functional.resized_crop(x[row], *box, [16, 16], antialias=True)
        agree(ours[row], theirs)


@in_float64
def test_all_orders_of_the_jitter_occur_equally_often(v2):
    """With fixed factors the outcome tells the order; clamping makes the 24 outcomes differ."""
    F = v2.functional
    operations = [
        lambda x: F.adjust_brightness(x, 1.8),
        lambda x: F.adjust_contrast(x, 0.4),
        lambda x: F.adjust_saturation(x, 2.0),
        lambda x: F.adjust_hue(x, 0.2),
    ]
    picture = pictures(1, 8, 8)
    outcomes = []
    for order in permutations(operations):
        outcome = picture
        for operation in order:
            outcome = operation(outcome)
        outcomes.append(outcome.flatten())
    settings = {"brightness": (1.8, 1.8), "contrast": (0.4, 0.4), "saturation": (2.0, 2.0), "hue": (0.2, 0.2)}
    ours = A.color_jitter(picture.expand(2400, -1, -1, -1), **settings, generator=generator())
    distance = (ours.flatten(1)[:, None] - torch.stack(outcomes)).abs().amax(dim=2)
    smallest, which = distance.min(dim=1)
    assert smallest.max() < 1e-4, "each outcome is one of torchvision's 24"
    assert chisquare(which.bincount(minlength=24)).pvalue > 1e-3


# The same distributions as torchvision


def same_distribution(ours, theirs):
    """Every column of measurements (n, k) passes a two-sample Kolmogorov-Smirnov test."""
    return [ks_2samp(a, b).pvalue > 1e-3 for a, b in zip(ours.T.numpy(), theirs.T.numpy(), strict=True)]


def one_by_one(transform, picture, n=N):
    torch.manual_seed(1)
    return torch.stack([transform(picture) for _ in range(n)])


def colour_measures(x):
    """Brightness, contrast, saturation, hue and two single pixels."""
    grey = x.mean(dim=1)
    colour = x.mean(dim=(2, 3))
    hue = torch.atan2(3**0.5 * (colour[:, 1] - colour[:, 2]), 2 * colour[:, 0] - colour[:, 1] - colour[:, 2])
    chroma = (x.amax(1) - x.amin(1)).mean(dim=(1, 2))
    return torch.stack([grey.mean((1, 2)), grey.std((1, 2)), chroma, hue, x[:, 0, 3, 3], x[:, 2, 9, 4]], dim=1)


@pytest.mark.parametrize(
    "settings", [(0.4, 0.4, 0.4, 0.1), (0.8, 0.2, 1.5, 0.5), ((0.5, 0.7), 0.3, (0.0, 2.0), (0, 0.2))]
)
def test_jitter_has_torchvisions_distribution(v2, settings):
    picture = pictures(1, 12, 12, seed=3)
    ours = A.color_jitter(picture.expand(N, -1, -1, -1), *settings, generator=generator())
    theirs = one_by_one(v2.ColorJitter(*settings), picture[0])
    assert all(same_distribution(colour_measures(ours), colour_measures(theirs)))


def test_the_comparison_sees_a_wrong_setting(v2):
    picture = pictures(1, 12, 12, seed=3)
    ours = A.color_jitter(picture.expand(N, -1, -1, -1), 0.4, 0.4, 0.4, 0.1, generator=generator())
    theirs = one_by_one(v2.ColorJitter(0.3, 0.4, 0.4, 0.1), picture[0])
    assert not all(same_distribution(colour_measures(ours), colour_measures(theirs)))


def box_measures(x):
    """Centre, area and aspect of a crop out of a picture whose channels hold the row and the column."""
    rows, columns = x[:, 0].mean(dim=2), x[:, 1].mean(dim=1)
    height, width = rows[:, -3] - rows[:, 2], columns[:, -3] - columns[:, 2]
    aspect = torch.log(width.clamp_min(1e-3) / height.clamp_min(1e-3))
    return torch.stack([rows.mean(1), columns.mean(1), height * width, aspect], dim=1)


@pytest.mark.parametrize(
    ("shape", "settings"),
    [
        ((32, 32), {}),
        ((32, 32), {"scale": (0.05, 0.4)}),
        ((24, 40), {"scale": (0.3, 1.0), "ratio": (0.5, 2.0)}),
        ((8, 64), {"scale": (0.4, 1.0)}),  # hardly ever fits: the central box
        ((64, 8), {"scale": (0.2, 0.3)}),
    ],
)
def test_crop_boxes_have_torchvisions_distribution(v2, shape, settings):
    rows, columns = torch.meshgrid(*(torch.arange(side) / 64 for side in shape), indexing="ij")
    picture = torch.stack([rows, columns, rows])
    ours = A.random_resized_crop(picture.expand(N, -1, -1, -1), 16, **settings, generator=generator())
    theirs = one_by_one(v2.RandomResizedCrop(16, **settings), picture)
    # Boxes are whole pixels: equal ones must not differ by rounding.
    measures = [box_measures(x).mul(1e3).round() for x in (ours, theirs)]
    assert all(same_distribution(*measures))


def test_blur_strength_has_torchvisions_distribution(v2):
    picture = torch.rand(3, 16, 16, generator=generator())
    ours = A.gaussian_blur(picture.expand(N, -1, -1, -1), 5, generator=generator())
    theirs = one_by_one(v2.GaussianBlur(5), picture)
    assert all(same_distribution(ours.flatten(1).std(1, keepdim=True), theirs.flatten(1).std(1, keepdim=True)))


@pytest.mark.parametrize("mode", ["reflect", "edge", "constant"])
def test_random_crop_takes_each_window_equally_often(v2, mode):
    picture = pictures(1, 6, 9)
    padded = v2.functional.pad(picture[0], [2, 2, 2, 2], padding_mode=mode)
    windows = torch.stack([padded[:, top : top + 6, left : left + 9] for top in range(5) for left in range(5)])
    ours = A.random_crop(picture.expand(N, -1, -1, -1), padding=2, mode=mode, generator=generator())
    distance = (ours.flatten(1)[:, None] - windows.flatten(1)).abs().amax(dim=2)
    smallest, which = distance.min(dim=1)
    assert smallest.max() == 0
    assert chisquare(which.bincount(minlength=25)).pvalue > 1e-3


@pytest.mark.parametrize(
    "augment",
    [
        A.random_flip,
        A.random_grayscale,
        A.random_solarize,
        partial(A.gaussian_blur, kernel_size=3, sigma=(1.0, 2.0)),
        partial(A.color_jitter, brightness=(0.5, 0.6)),
    ],
)
@pytest.mark.parametrize("p", [0.0, 0.2, 0.8, 1.0])
def test_share_of_changed_pictures_is_p(augment, p):
    x = pictures(1, 8, 8).expand(N, -1, -1, -1)
    changed = (augment(x, p=p, generator=generator()) - x).abs().amax(dim=(1, 2, 3)) > 1e-3
    assert abs(changed.float().mean().item() - p) <= 4 * (p * (1 - p) / N) ** 0.5


# Batches and randomness


@pytest.mark.parametrize("name", RANDOM)
def test_parameters_are_drawn_per_picture_per_call_and_from_the_generator(name):
    x = pictures(1).expand(64, -1, -1, -1)
    first = RANDOM[name](x, generator=generator(5))
    second_generator = generator(5)
    torch.testing.assert_close(RANDOM[name](x, generator=second_generator), first, rtol=0, atol=0)
    assert not torch.equal(RANDOM[name](x, generator=second_generator), first), "a second call draws anew"
    assert len(first.flatten(1).unique(dim=0)) > 1, "pictures of one batch differ"
    torch.manual_seed(0)
    assert not torch.equal(RANDOM[name](x), RANDOM[name](x)), "without a generator torch's global one is used"


@pytest.mark.parametrize("name", RANDOM)
@pytest.mark.parametrize("shape", [(1, 32, 32), (2, 17, 40), (9, 31, 7)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_batch_gives_pictures_and_stays_as_it_was(name, shape, dtype):
    x = pictures(*shape).to(dtype)
    before = x.clone()
    for seed in range(5):
        out = RANDOM[name](x, generator=generator(seed))
        assert out.dtype == dtype and len(out) == len(x) and out.isfinite().all()
        assert 0 <= out.min() and out.max() <= 1
        out.fill_(0)
    assert torch.equal(x, before)


def test_autocast_costs_no_precision():
    x = pictures(16)
    plain = A.simclr(x, 24, blur=3, generator=generator())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = A.simclr(x, 24, blur=3, generator=generator())
    torch.testing.assert_close(mixed, plain, atol=1e-6, rtol=0)


# Composition and recipes


def test_compose_takes_uint8_and_float_and_applies_in_order():
    x = (pictures(6) * 255).round().byte()
    augment = A.compose(partial(A.random_resized_crop, size=16), partial(A.random_grayscale, p=1))
    out = augment(x, generator=generator())
    assert out.shape == (6, 3, 16, 16) and out.dtype == torch.float32
    torch.testing.assert_close(out, augment(x / 255, generator=generator()))
    torch.testing.assert_close(out[:, 0], out[:, 2])
    assert torch.equal(A.compose()(x), x / 255)


def test_two_views_are_independent_views_of_the_same_pictures():
    x = pictures(32)
    first, second = A.two_views(x, generator=generator(), size=16, blur=3)
    assert first.shape == second.shape == (32, 3, 16, 16)
    assert ((first - second).abs().amax(dim=(1, 2, 3)) > 1e-3).sum() >= 29, "all but the plain ones at the end"
    crops = A.two_views(x, A.compose(A.random_crop), generator())
    assert not torch.equal(*crops)
    mean = [view.mean(dim=(2, 3)) for view in crops]
    assert (mean[0] - mean[1]).abs().max() < 0.3, "row i of both shows picture i"


def test_recipes_give_the_sizes_they_promise():
    x = (pictures(4, 40, 48) * 255).byte()
    assert A.crop_flip(x).shape == (4, 3, 40, 48)
    assert A.simclr(x).shape == (4, 3, 40, 40)
    assert A.simclr(x, 32, strength=1.0, blur=3).shape == (4, 3, 32, 32)
    crops = A.dino_crops(x, n_local=3, size=32, local_size=12, generator=generator())
    assert [crop.shape[-2:] for crop in crops] == [(32, 32)] * 2 + [(12, 12)] * 3
    assert [crop.shape[-1] for crop in A.dino_crops(x, n_local=1)] == [40, 40, 20]
    assert all(0 <= crop.min() and crop.max() <= 1 for crop in crops)


def test_recipes_blur_as_many_views_as_they_say():
    x = torch.rand(600, 1, 16, 16, generator=generator()).expand(-1, 3, -1, -1)  # of a grey picture no colour is taken

    def blurred(view):
        kept = [(view - whole).abs().amax((1, 2, 3)) < 0.01 for whole in (x, x.flip(3))]
        return 1 - (kept[0] | kept[1]).float().mean().item()

    whole, plain = (1.0, 1.0), {"jitter": (0.0,) * 4, "solarize": 0.0, "local_size": 16}
    views = A.dino_crops(x, 1, generator=generator(), global_scale=whole, local_scale=whole, **plain)
    views.append(A.simclr(x, strength=0.0, scale=whole, blur=3, generator=generator()))
    # The smallest deviations, a tenth of those drawn, leave a picture as it is.
    assert [blurred(view) for view in views] == pytest.approx([0.9, 0.09, 0.45, 0.45], abs=0.08)


def test_dino_solarises_the_second_view_alone_and_crops_local_ones_smaller():
    ramps = torch.linspace(0.2, 0.8, 32).expand(60, 1, 32, 32)
    x = torch.cat([ramps, ramps.mT, ramps], 1)  # red says the column, green the row
    plain = {"jitter": (0.0,) * 4, "grayscale": 0.0, "blur": False}
    views = A.dino_crops(x, 2, generator=generator(), solarize=0.0, **plain)
    spans = [(view.amax((2, 3)) - view.amin((2, 3)))[:, :2] / 0.6 for view in views]
    areas = [span.prod(1) for span in spans]
    assert min(area.min() for area in areas[:2]) > 0.3 and max(area.max() for area in areas[2:]) < 0.45
    bright = torch.full((20, 3, 16, 16), 0.9)
    means = [view.mean().item() for view in A.dino_crops(bright, 1, generator=generator(), solarize=1.0, **plain)]
    assert means == pytest.approx([0.9, 0.1, 0.9], abs=1e-3)


# Bad input


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: A.random_flip((x * 255).byte()), r"float.*uint8.*255"),
        (lambda x: A.random_flip(x[0]), r"picture\[None\]"),
        (lambda x: A.random_flip(x[:, :1]), r"\(B, 3, H, W\), got \(8, 1, 32, 32\)"),
        (lambda x: A.random_flip(x[:0]), r"got \(0, 3"),
        (lambda x: A.random_flip(x.numpy()), "ndarray"),
        (lambda x: A.color_jitter(x * 4 - 2, 0.4), "normalise"),
        (lambda x: A.color_jitter(x * 255, 0.4), "divide by 255"),
        (lambda x: A.color_jitter(x * float("nan"), 0.4), "nan"),
        (lambda x: A.random_flip(x, p=1.5), "probability"),
        (lambda x: A.random_flip(x, generator=SimpleNamespace(device=torch.device("cuda"))), "Generator"),
        (lambda x: A.random_crop(x, padding=-1), "padding"),
        (lambda x: A.random_crop(x, padding=32), "0 to 31"),
        (lambda x: A.random_crop(x, mode="zeros"), "reflect, edge, constant"),
        (lambda x: A.random_resized_crop(x, 16, scale=(1.0, 0.08)), "scale"),
        (lambda x: A.random_resized_crop(x, 16, scale=(0.0, 1.0)), "scale"),
        (lambda x: A.random_resized_crop(x, 16, scale=(0.2, 1.5)), "scale"),
        (lambda x: A.random_resized_crop(x, 16, ratio=(2.0, 1.0)), "ratio"),
        (lambda x: A.random_resized_crop(x, 0), "size"),
        (lambda x: A.color_jitter(x, brightness=-0.1), "brightness"),
        (lambda x: A.color_jitter(x, saturation=(1.2, 0.8)), "saturation"),
        (lambda x: A.color_jitter(x, hue=0.6), "hue"),
        (lambda x: A.color_jitter(x, p=-0.1), "probability"),
        (lambda x: A.gaussian_blur(x, 4), "odd"),
        (lambda x: A.gaussian_blur(x, 65), "at most 63"),
        (lambda x: A.gaussian_blur(x, 3, sigma=(0.0, 1.0)), "sigma"),
        (lambda x: A.random_solarize(x, threshold=128), "threshold"),
        (lambda x: A.simclr(x, strength=3.0), "strength"),
        (lambda x: A.dino_crops(x, n_local=-1), "n_local"),
    ],
)
def test_bad_input_says_what_to_do(call, message):
    with pytest.raises(SettingError, match=message):
        call(pictures())

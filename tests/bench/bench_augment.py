"""Views per CPU-second of SimCLR's augmentations at 32 px, side by side: python -m tests.bench.bench_augment.

All do the same: resized crop, flip, colour jitter (.4, .4, .4, .1) with p .8, grey with p .2, blur with p .5 and a
kernel of 3. CPU-seconds count this process and its workers, one thread each, so other work disturbs them little.
The batch is that of SimCLR's own single-GPU recipe for CIFAR-10; batched pipelines lose a little with smaller ones.
"""

import os
from collections.abc import Callable, Iterable
from functools import partial
from statistics import median

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from lessons import augment
from lessons.compat import import_torchvision

SIZE, BATCH, ROUNDS = 32, 512, 3
TARGETS = {"DataLoader": 12.0, "kornia": 2.5}  # at least this many times their views per CPU-second


class PilViews(Dataset):
    """Pictures kept as PIL images, one augmented view per item: how a DataLoader is usually fed."""

    def __init__(self, pictures: Tensor, version: str) -> None:
        from PIL import Image

        import_torchvision()
        self.pictures = [Image.fromarray(picture.permute(1, 2, 0).numpy()) for picture in pictures]
        self.augment = _torchvision_v2() if version == "v2" else _torchvision_v1()

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Tensor:
        return self.augment(self.pictures[index])


def _torchvision_v1() -> Callable:
    from torchvision import transforms as T

    return T.Compose([*_torchvision_steps(T), T.ToTensor()])


def _torchvision_v2() -> Callable:
    from torchvision.transforms import v2 as T

    return T.Compose([*_torchvision_steps(T), T.ToImage(), T.ToDtype(torch.float32, scale=True)])


def _torchvision_steps(T) -> list:
    return [
        T.RandomResizedCrop(SIZE),
        T.RandomHorizontalFlip(),
        T.RandomApply([T.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
        T.RandomGrayscale(p=0.2),
        T.RandomApply([T.GaussianBlur(3)], p=0.5),
    ]


def _kornia(cropping_mode: str) -> Callable[[Tensor], Tensor] | None:
    try:
        import kornia.augmentation as K
    except ImportError:
        return None
    steps = K.AugmentationSequential(
        K.RandomResizedCrop((SIZE, SIZE), cropping_mode=cropping_mode),
        K.RandomHorizontalFlip(),
        K.ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8),
        K.RandomGrayscale(p=0.2),
        K.RandomGaussianBlur((3, 3), (0.1, 2.0), p=0.5),
    )
    return lambda x: steps(x / 255)


def _views_per_cpu_second(batches: Callable[[], Iterable[Tensor]]) -> float:
    before = sum(os.times()[:4])  # this process and its finished children, user and system
    views = sum(len(batch) for batch in batches())
    return views / (sum(os.times()[:4]) - before)


def _pipelines(pictures: Tensor) -> dict[str, Callable[[], Iterable[Tensor]]]:
    """Name -> a function that makes one pass over some of the pictures."""

    def in_batches(augment: Callable[[Tensor], Tensor], passes: int) -> Iterable[Tensor]:
        return (augment(batch) for _ in range(passes) for batch in pictures.split(BATCH))

    few = pictures[:2048]
    pipelines = {
        f"DataLoader, PIL {version}, {workers} workers": partial(
            DataLoader, PilViews(few, version), batch_size=BATCH, num_workers=workers
        )
        for version in ("v1", "v2")
        for workers in (0, 2)
    }
    for mode in ("slice", "resample"):
        if steps := _kornia(mode):
            pipelines[f"kornia, crop by {mode}"] = partial(in_batches, steps, 1)
    ours = partial(augment.simclr, size=SIZE, strength=0.5, blur=3)
    pipelines["lessons.augment"] = partial(in_batches, ours, 4)
    return pipelines


def _train_one_step() -> None:
    """What stands around every augmentation in use; after it, C's memory allocator keeps freed memory for reuse.

    Without it the kernel hands out and takes back each large tensor's pages, which slows all batched pipelines.
    """
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.Flatten())
    net(torch.rand(BATCH, 3, SIZE, SIZE)).mean().backward()


def main() -> None:
    torch.set_num_threads(1)
    _train_one_step()
    pictures = torch.randint(256, (4096, 3, SIZE, SIZE), dtype=torch.uint8)
    pipelines = _pipelines(pictures)
    rounds = []
    for _ in range(ROUNDS):  # interleaved, so that a slow minute of the machine hits all of them
        rounds.append({name: _views_per_cpu_second(batches) for name, batches in pipelines.items()})
    speeds = {name: median(speeds[name] for speeds in rounds) for name in pipelines}
    ours = speeds["lessons.augment"]
    print(f"{f'SimCLR views, {SIZE} px, batch {BATCH}':32s} views per CPU-s    lessons.augment is faster by    target")
    for name, speed in speeds.items():
        target = next((f"{times:g}x" for start, times in TARGETS.items() if name.startswith(start)), "")
        print(f"{name:32s} {speed:15.0f}    {ours / speed:26.1f}x    {target:>6s}")
    if not any(name.startswith("kornia") for name in speeds):
        print("kornia is not installed: pip install 'vision-to-language[bench]' for its rows.")


if __name__ == "__main__":
    main()

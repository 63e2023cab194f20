"""What lessons.fit costs on top of the loop it stands for: python -m tests.bench.bench_fit.

The same steps, batches and schedule, once through lessons.fit with its progress bar, once written out. CPU-seconds of
this process, one thread, rounds interleaved, the order changing from round to round; the ratio of the medians counts.
The tiny network is a limit that no lesson reaches: there a step costs less than half a millisecond.
"""

import copy
import time
from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F
from torch import nn

from lessons import training
from lessons.data import Pictures
from lessons.nets.resnet import CifarResNet

ROUNDS = 11
TARGET = 1.02  # at most this many times the CPU-seconds of the loop written out


def by_hand(net: nn.Module, data, steps: int, optimizer: torch.optim.Optimizer) -> list[float]:
    """The loop of lesson 01, with the schedule that fit has by default."""
    factor = training.schedule("cosine", steps)
    losses = []
    net.train()
    for step in range(steps):
        images, labels = next(data)
        optimizer.param_groups[0]["lr"] = 0.01 * factor(step)
        loss = F.cross_entropy(net(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def by_fit(net: nn.Module, data, steps: int, optimizer: torch.optim.Optimizer) -> list[float]:
    return training.fit(net, training.cross_entropy, data, steps=steps, optimizer=optimizer).loss


def milliseconds(
    train: Callable, net: nn.Module, pictures: Pictures, size: int, steps: int
) -> tuple[float, list[float]]:
    """CPU-milliseconds per step, and the losses, from a fresh copy of `net`."""
    net = copy.deepcopy(net)
    data = training.batches(pictures, size)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    before = time.process_time()
    losses = train(net, data, steps, optimizer)
    return 1000 * (time.process_time() - before) / steps, losses


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    cases = {  # name: network, pixels, batch size, steps per round
        "one linear layer, 8 px, batch 16": (nn.Sequential(nn.Flatten(), nn.Linear(192, 10)), 8, 16, 600),
        "small: ResNet-8, width 8, 16 px, batch 32": (CifarResNet(8, width=8), 16, 32, 60),
        "medium: ResNet-20, width 8, 16 px, batch 128": (CifarResNet(20, width=8), 16, 128, 10),
    }
    head = f"{'CPU-milliseconds per step':46s} by hand    lessons.fit    ratio    target"
    print(head)
    for name, (net, pixels, size, steps) in cases.items():
        images = torch.randint(256, (512, 3, pixels, pixels), dtype=torch.uint8)
        pictures = Pictures(images, torch.randint(10, (512,)), tuple("0123456789"), "noise", "built-in scenes")
        times: dict[Callable, list[float]] = {by_hand: [], by_fit: []}
        for number in range(-1, ROUNDS):  # round -1 warms up
            losses = {}
            for train in (by_hand, by_fit)[:: 1 if number % 2 else -1]:
                cost, losses[train] = milliseconds(train, net, pictures, size, steps)
                times[train] += [cost] * (number >= 0)
            assert losses[by_hand] == losses[by_fit], "the two loops do not compute the same"
        hand, fit = (median(times[train]) for train in (by_hand, by_fit))
        target = f"{TARGET:.2f}" if not name.startswith("one") else "none"
        print(f"{name:46s} {hand:7.3f}    {fit:11.3f}    {fit / hand:5.3f}    {target:>6s}")


if __name__ == "__main__":
    main()

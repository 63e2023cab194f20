"""Half precision: what overflows is skipped and counted, and costs nothing else."""

import pytest
import torch
from torch import nn

from lessons import precision, training

OPTIMIZERS = {
    "SGD": lambda net: torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True),
    "SGD with dampening": lambda net: torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, dampening=0.5),
    "AdamW": lambda net: torch.optim.AdamW(net.parameters(), lr=0.01),
    "RMSprop": lambda net: torch.optim.RMSprop(net.parameters(), lr=0.01),
}
each_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4))


def batch(seed: int, weight: float = 1.0) -> tuple:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(32, 8, generator=generator), torch.randint(4, (32,), generator=generator), weight


def weighted(net: nn.Module, batch: tuple) -> torch.Tensor:
    return nn.functional.cross_entropy(net(batch[0]), batch[1]) * batch[2]


def trained(name: str, data: list, dtype: torch.dtype | None, clip: float | None = None):
    net = network()
    options = {"shape": "constant", "warmup": 0.0, "precision": dtype, "clip": clip}
    history = training.fit(net, weighted, data, steps=len(data), optimizer=OPTIMIZERS[name](net), **options)
    return torch.cat([p.detach().flatten() for p in net.parameters()]), history


@each_optimizer
@pytest.mark.parametrize("clip", [None, 0.5])
def test_steps_that_overflow_are_as_good_as_never_taken(name, clip):
    """The first one too: an optimiser that had started its memory with it would carry it on for ever."""
    usual = [batch(seed) for seed in range(6)]
    huge = batch(9, weight=1e5)  # its loss is finite, its scaled gradient is not
    reference, history = trained(name, usual, torch.float16, clip)
    assert history.skipped == 0
    weights, history = trained(name, [huge, *usual[:3], huge, *usual[3:]], torch.float16, clip)
    assert history.skipped == 2 and len(history.loss) == 8
    torch.testing.assert_close(weights, reference, rtol=1e-2, atol=1e-3)
    far, _ = trained(name, usual[:5], torch.float16, clip)
    assert (weights - reference).abs().max() < 0.1 * (far - reference).abs().max(), "one step more or less would show"


@each_optimizer
def test_float16_learns_what_float32_learns(name):
    data = [batch(seed) for seed in range(30)]
    single, _ = trained(name, data, None)
    half, history = trained(name, data, torch.float16)
    start = torch.cat([p.detach().flatten() for p in network().parameters()])
    assert (half - single).norm() < 0.02 * (single - start).norm()
    assert history.skipped == 0


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_other_precisions_are_not_scaled(dtype):
    net = network()
    optimizer = OPTIMIZERS["SGD"](net)
    scaler = precision.LossScaler(optimizer, torch.device("cpu"), dtype)
    loss = net(batch(0)[0]).sum()
    assert scaler.scale(loss) is loss
    scaler.scale(loss).backward()
    with torch.no_grad():
        net[0].weight.grad.fill_(torch.inf)
    scaler.step()
    assert not net[0].weight.isfinite().all(), "no step is left out: a loss that is no number shall be seen"
    assert scaler.skipped() == 0 and not optimizer.param_groups[0]["fused"]


def test_full_keeps_what_is_exact_enough():
    for dtype in (torch.float16, torch.bfloat16, torch.uint8, torch.int64):
        assert precision.full(torch.ones(2, dtype=dtype)).dtype == torch.float32
    for dtype in (torch.float32, torch.float64):
        x = torch.ones(2, dtype=dtype)
        assert precision.full(x) is x

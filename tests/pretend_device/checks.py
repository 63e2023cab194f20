"""What must be true on an accelerator, each as a function: run by test_pretend_device.py in a process of its own, since
a device once registered stays. `python -m tests.pretend_device.checks NAME`."""

import contextlib
import io
import os
import sys

import torch
from torch import nn

import lessons
from lessons import augment, compat, data, probes, session, training
from lessons.data import scenes
from lessons.exercises.limit import run_limited
from tests.pretend_device import simdevice

os.environ |= {"LESSONS_DATA": "scenes", "LESSONS_HEADLESS": "1"}


def start() -> tuple[session.Run, str]:
    """A lesson started here, and what it said."""
    with contextlib.redirect_stdout(io.StringIO()) as said:
        run = lessons.start(1)
    return run, said.getvalue()


def found() -> None:
    """torch.accelerator finds the device, and the first line names it."""
    run, said = start()
    assert run.device.type == "sim" and run.scale == "gpu"
    assert "gpu scale on pretend accelerator" in said


def mixing() -> None:
    """Mixing devices is an error here as on a GPU; without that the other checks would show nothing."""
    here, there = torch.ones(3, device="sim"), torch.ones(3)
    for mixture in (
        lambda: here + there,
        lambda: torch.cat([here, there]),
        lambda: here.numpy(),
        lambda: torch.rand(3, device="sim", generator=torch.Generator()),
    ):
        try:
            mixture()
        except (RuntimeError, TypeError):
            continue
        raise AssertionError("devices were mixed without an error")


def waits() -> None:
    """A training waits for the device once in 25 steps, in every precision, with metrics, clipping and averages."""
    run, _ = start()
    pictures = scenes.render("things", 256, size=16, device=run.device).pictures()

    def loss(net: nn.Module, batch: tuple) -> tuple:
        value = training.cross_entropy(net, batch)
        return value, {"double": value * 2, "constant": 1.0}

    for dtype in (None, torch.bfloat16, torch.float16):
        for optimizer in (torch.optim.AdamW, torch.optim.SGD):
            torch.manual_seed(0)
            net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 14 * 14, 10))
            net = net.to(run.device)
            average = training.EMA(net)
            options = {"lr": 1e-3} | ({"momentum": 0.9} if optimizer is torch.optim.SGD else {})
            batches = training.batches(pictures, 64, augment=augment.random_flip)
            next(batches)
            before = simdevice.waits()
            history = training.fit(
                net, loss, batches, steps=200, optimizer=optimizer(net.parameters(), **options), precision=dtype,
                clip=1.0, after_step=lambda _, net=net, average=average: average.update(net),
            )  # fmt: skip
            waited = simdevice.waits() - before
            assert len(history.loss) == 200 and history.loss[-1] < history.loss[0]
            # One per 25 steps, one at the end, and one per pass for the order that the CPU drew.
            assert waited <= 200 // 25 + 2, f"{waited} waits in 200 steps of {optimizer.__name__} in {dtype}"


def skipping() -> None:
    """A step whose gradient overflows in float16 changes nothing, and is counted."""
    run, _ = start()
    x = torch.ones(4, 8, device=run.device)
    for optimizer in (torch.optim.AdamW, torch.optim.SGD):
        net = nn.Linear(8, 1).to(run.device)
        before = net.weight.detach().clone()

        def loss(net: nn.Module, batch: tuple) -> torch.Tensor:
            return net(batch[0]).float().mean() * batch[1]

        history = training.fit(
            net, loss, [(x, 1e6), (x, 1e6), (x, 1.0)], steps=3, optimizer=optimizer(net.parameters(), lr=0.1),
            shape="constant", warmup=0.0, precision=torch.float16,
        )  # fmt: skip
        assert history.skipped == 2 and len(history.loss) == 3
        moved = (net.weight - before).abs()
        assert 0.09 < moved.min().item() and moved.max().item() < 0.13, f"one step of {optimizer.__name__}, not three"


def lacking() -> None:
    """What the device cannot do is done on the CPU, with the same numbers and gradients, and said once."""
    start()
    x = torch.randn(5, 5, generator=torch.Generator().manual_seed(0))
    x = x @ x.T + torch.eye(5)
    here, there = (x.clone().to(device).requires_grad_() for device in ("sim", "cpu"))
    simdevice.lack({"aten::linalg_eigh", "aten::_linalg_eigh", "aten::linalg_cholesky_ex", "aten::cumsum"})
    with contextlib.redirect_stdout(io.StringIO()) as said:
        for tensor in (here, there):
            for _ in range(2):
                values, vectors = torch.linalg.eigh(tensor)
                factor = torch.linalg.cholesky(tensor)
            (values.square().sum() + vectors[0].abs().sum() + factor.sum()).backward()
        assert values.device.type == "cpu" and here.grad.device.type == "sim"
        torch.testing.assert_close(here.grad.cpu(), there.grad)
        summed = torch.ones(4, device="sim")
        alias = summed.cumsum_(0)
    lines = said.getvalue().splitlines()
    assert alias is summed and summed.tolist() == [1, 2, 3, 4], "changed in place, as asked"
    assert len(lines) == 3 and all("not available on this sim device; it is computed on the CPU" in x for x in lines)
    simdevice.lack({"aten::native_batch_norm", "aten::_fused_adamw_"})  # they change tensors without counting it
    norms = [nn.BatchNorm1d(5).to(device) for device in ("sim", "cpu")]
    weights = [torch.ones(4, device=device, requires_grad=True) for device in ("sim", "cpu")]
    with contextlib.redirect_stdout(io.StringIO()):
        for norm, weight, device in zip(norms, weights, ("sim", "cpu"), strict=True):
            with torch.no_grad():
                norm(x.to(device))
            weight.grad = torch.ones_like(weight)
            torch.optim.AdamW([weight], lr=0.1, fused=True).step()
    torch.testing.assert_close(norms[0].running_mean.cpu(), norms[1].running_mean)
    torch.testing.assert_close(weights[0].detach().cpu(), weights[1].detach())
    simdevice.lack({"aten::_linalg_eigh"})
    with contextlib.redirect_stdout(io.StringIO()):
        error = run_limited(lambda: torch.linalg.eigh(here.detach()), 60.0)
    assert error is None, "in the thread of a check too"
    simdevice.lack(set())
    try:
        torch.arange(4, device="cpu").softmax(0)  # torch cannot do this anywhere: the error must stay
    except (NotImplementedError, RuntimeError):
        return
    raise AssertionError("an error of torch's was swallowed")


def probing() -> None:
    """Features on the device give the CPU's numbers."""
    start()
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(300, 6, generator=generator), torch.randint(3, (300,), generator=generator)
    features += nn.functional.one_hot(labels, 6)
    found, exact = {}, compat.float64
    for device, double in (("sim", exact), ("sim", lambda x: x.cpu().double()), ("cpu", exact)):
        probes.float64 = double  # the second one as on a device that lacks it
        x, y = features.to(device), labels.to(device)
        six = (x[:100], y[:100], x[100:200], y[100:200], x[200:], y[200:])
        tokens, maps = x[:64].view(4, 16, 6), x[:64, :3].reshape(4, 3, 4, 4)
        dense = probes.dense_probe((tokens, maps), (tokens, maps), tokens, lambda a, b: -(a - b).square().mean().item())
        assert dense.device.type == device
        here = found.setdefault(device, [])
        here.append((
            probes.ridge_probe(*six), probes.linear_probe(*six), probes.few_shot_probe(*six, 5),
            probes.knn_accuracy(x[:200], y[:200], x[200:], y[200:]), probes.recall_at(x[:50] @ x[:50].T),
            probes.calibration_error(x.softmax(1)[:, :3], y), round(dense.cpu().sum().item(), 3),
        ))  # fmt: skip
    for numbers in found["sim"]:
        torch.testing.assert_close(torch.tensor(numbers), torch.tensor(found["cpu"][0]), rtol=1e-5, atol=1e-6)


def keeping() -> None:
    """A model trained on the device is kept and loaded again."""
    run, _ = start()
    os.environ["LESSONS_HEADLESS"] = "0"
    nets = [nn.Linear(4, 2).to(run.device) for _ in range(2)]
    with contextlib.redirect_stdout(io.StringIO()) as said:
        for net in nets:
            training.remember("kept", net, {"a": 1}, lambda: training.History(loss=[1.0]))
    assert "loaded from an earlier run" in said.getvalue()
    assert torch.equal(nets[0].weight, nets[1].weight) and nets[1].weight.device.type == "sim"


def worlds() -> None:
    """Scenes drawn on the device are the same scenes."""
    here, there = (data.pictures(source="scenes", train=40, val=4, test=4, device=d) for d in ("sim", "cpu"))
    assert torch.equal(here.train.labels.cpu(), there.train.labels)
    assert (here.train.images.cpu().int() - there.train.images.int()).abs().max() <= 1


CHECKS = {check.__name__: check for check in (found, mixing, waits, skipping, lacking, probing, keeping, worlds)}

if __name__ == "__main__":
    CHECKS[sys.argv[1]]()

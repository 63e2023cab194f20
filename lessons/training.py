"""The training loop of the lessons. Lesson 01 writes it out; from then on `fit` is that loop."""

import contextvars
import copy
import hashlib
import inspect
import json
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from . import bars, rehearsal, store
from .data import Pictures
from .errors import Interrupted, LessonError, SettingError
from .kernel import in_kernel
from .precision import LossScaler, full

T = TypeVar("T")
LossFunction = Callable[[nn.Module, tuple], Tensor | tuple[Tensor, dict[str, Tensor]]]


class TrainingDiverged(LessonError):
    """The loss is not a number any more. `history` holds what was measured before."""

    def __init__(self, message: str, history: "History"):
        super().__init__(message)
        self.history = history


class TrainingInterrupted(Interrupted):
    """A training was cut short; its network keeps what it learned. `history` holds what was measured, of `steps`."""

    def __init__(self, title: str, history: "History", steps: int):
        super().__init__(
            f"{title}: interrupted after {len(history.loss)} of {steps} steps. To start over, run the cell that builds "
            "the network, and then those below it."
        )
        self.history, self.steps = history, steps


@dataclass
class History:
    """What a training left behind: one loss (and learning rate) per step, further metrics, seconds on the clock."""

    loss: list[float] = field(default_factory=list)
    learning_rate: list[float] = field(default_factory=list)
    metrics: dict[str, list[float]] = field(default_factory=dict)
    seconds: float = 0.0
    interrupted: bool = False
    skipped: int = 0  # steps in float16 whose gradient overflowed: they changed nothing

    def smooth(self, window: int = 20) -> list[float]:
        """Mean of the last `window` losses at each step (fewer at the beginning)."""
        total, means = 0.0, []
        for step, loss in enumerate(self.loss):
            total += loss - (self.loss[step - window] if step >= window else 0.0)
            means.append(total / min(step + 1, window))
        return means

    def last(self, steps: int = 50) -> float:
        """Mean loss of the last `steps` steps: the figure to compare runs of equal length by."""
        tail = self.loss[-steps:]
        return sum(tail) / len(tail) if tail else math.nan


def to_input(images: Tensor) -> Tensor:
    """Pictures as networks read them: uint8 in [0, 255] or float in [0, 1], (B, 3, H, W) -> float, about zero mean
    and unit variance. The constants are fixed (natural pictures have mean 0.47 and deviation 0.25), so that nothing
    of the test set leaks into them."""
    scaled = images.float() / 255 if images.dtype == torch.uint8 else images
    return (scaled - 0.5) / 0.25


def batches(
    pictures: Pictures, size: int, *, seed: int = 0, augment: Callable[..., Tensor] | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches (input (B, 3, H, W) float, labels (B,) int64), reshuffled after each pass; the incomplete last
    batch of a pass is left out. `augment(images, generator=...)` gets floats in [0, 1]. The order depends on `seed`
    only, so two networks can be shown exactly the same pictures."""
    size = rehearsal.batch(size)
    if not 1 <= size <= len(pictures):
        raise SettingError(f"The batch size is {size}, but there are {len(pictures)} pictures to draw from.")
    order = torch.Generator().manual_seed(seed)
    device = pictures.images.device
    chance = torch.Generator(device).manual_seed(seed)
    while True:
        shuffled = torch.randperm(len(pictures), generator=order).to(device)
        for index in shuffled[: len(pictures) // size * size].split(size):
            images = pictures.images[index].float() / 255
            yield to_input(augment(images, generator=chance) if augment else images), pictures.labels[index]


def cross_entropy(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """The loss function of plain classification, for `fit`."""
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def schedule(name: str, steps: int, warmup: float = 0.1) -> Callable[[int], float]:
    """Factor on the learning rate at each step: rises linearly over the first `warmup` share of `steps`, then
    "constant", "linear" to zero, "cosine" to zero (SGDR, Loshchilov & Hutter 2017, without restarts), or "step":
    divided by 10 after 60 % and 85 % of the steps (He et al. 2016 divide at 50 % and 75 %)."""
    shapes = {
        "constant": lambda part: 1.0,
        "linear": lambda part: 1 - part,
        "cosine": lambda part: (1 + math.cos(math.pi * part)) / 2,
        "step": lambda part: 0.1 ** ((part >= 0.6) + (part >= 0.85)),
    }
    if name not in shapes:
        raise SettingError(f"schedule is {name!r}. Allowed: {', '.join(shapes)}.")
    rising = round(steps * warmup)

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        return shapes[name]((step - rising) / max(1, steps - rising))

    return factor


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Two groups for an optimiser. The matrices and kernels that layers multiply with (two or more dimensions, named
    `weight`) decay; biases, normalisation, position embeddings, class and mask tokens and temperatures do not: they
    are added, not multiplied, and a pull to zero would only erase them (as timm and the code of MAE leave them out)."""
    trained = [(name.rpartition(".")[2], p) for name, p in model.named_parameters() if p.requires_grad]
    decays = [p for name, p in trained if p.ndim > 1 and name.endswith("weight")]
    others = [p for name, p in trained if p.ndim <= 1 or not name.endswith("weight")]
    return [{"params": decays, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def fit(
    model: nn.Module,
    loss_function: LossFunction,
    data: Iterable[tuple],
    *,
    steps: int,
    optimizer: torch.optim.Optimizer,
    shape: str = "cosine",
    warmup: float = 0.1,
    clip: float | None = None,
    precision: torch.dtype | None = None,
    after_step: Callable[[int], None] | None = None,
    title: str = "training",
) -> History:
    """Train `model` for `steps` batches of `data` and return the history; the model is changed in place.

    `loss_function(model, batch)` gives a scalar, or a scalar and a dict of scalars to record. The learning rates of
    `optimizer` are multiplied by `schedule(shape, steps, warmup)`; `clip` bounds the norm of the gradient of all its
    parameters together; `precision` is the autocast type (`run.precision(...)`; in float16 the loss is scaled, and
    steps whose gradient overflows are skipped and counted); `after_step(step)` runs after each update (moving
    averages, probes). Data that ends early ends the training, with a line that says so. Raises TrainingInterrupted
    when the reader presses Stop, with what was trained so far kept, and TrainingDiverged when the loss is not a number.
    """
    steps, device = rehearsal.steps(steps), next(model.parameters()).device
    factor = schedule(shape, steps, warmup)
    base = [group["lr"] for group in optimizer.param_groups]
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    history, pending, start = History(), [], time.perf_counter()
    check_every = 1 if device.type == "cpu" else 25  # reading a number off a GPU makes it wait
    scaler = LossScaler(optimizer, device, precision)
    model.train()
    optimizer.zero_grad(set_to_none=True)  # what an earlier backward pass left would count as part of the first step
    with _progress(steps, title) as bar:
        try:
            for step, batch in enumerate(islice(data, steps)):
                if _stop.is_set():
                    raise KeyboardInterrupt
                for group, rate in zip(optimizer.param_groups, base, strict=True):
                    group["lr"] = rate * factor(step)
                # The cache of casts is one for all threads: with it, jobs side by side disturb each other's rounding.
                with torch.autocast(device.type, precision, enabled=precision is not None, cache_enabled=False):
                    result = loss_function(model, batch)
                loss, measured = _measured(result)
                scaler.scale(loss).backward()
                if clip is not None:
                    scaler.unscale()
                    nn.utils.clip_grad_norm_(trained, clip)
                scaler.step()
                optimizer.zero_grad(set_to_none=True)
                history.learning_rate.append(optimizer.param_groups[0]["lr"])
                pending.append(measured)
                if after_step is not None:
                    after_step(step)
                if (step + 1) % check_every == 0:
                    _record(history, pending, title)
                    bar.update(len(history.loss) - bar.n)
                    bar.set_postfix(loss=f"{history.loss[-1]:.3f}", refresh=False)
            _record(history, pending, title)
            if len(history.loss) < steps:
                print(f"{title}: the data ended after {len(history.loss)} of {steps} steps.")
        except KeyboardInterrupt:
            if _together.is_set():
                _stop.set()
            _record(history, pending, title)
            history.interrupted = True
            raise TrainingInterrupted(title, history, steps) from None
        finally:
            for group, rate in zip(optimizer.param_groups, base, strict=True):
                group["lr"] = rate
            history.skipped = scaler.skipped()
            history.seconds = time.perf_counter() - start
    return history


_together = threading.Event()  # set while trainings run side by side
_stop = threading.Event()  # set when the reader interrupts one of those, to end them all


def side_by_side(jobs: Sequence[Callable[[], T]], device: torch.device) -> list[T]:
    """Results of `jobs`, run as many at a time as there are CPU cores, each with one thread; on a GPU one by one.

    A small network cannot feed two cores, but two small networks can: the four-network experiment of lesson 01 takes
    about half the time. A job must not draw from torch's global generator, or its result depends on the others: build
    the networks before. When the reader presses Stop all trainings end, and one Interrupted says how far they came;
    their networks keep what they learned.
    """
    threads = torch.get_num_threads()
    workers = threads if device.type == "cpu" else 1
    _together.set()
    try:
        torch.set_num_threads(1 if workers > 1 else threads)
        outcomes = _in_threads(jobs, workers) if workers > 1 else _one_by_one(jobs)
    finally:
        stopped = _stop.is_set()
        _together.clear()
        _stop.clear()
        torch.set_num_threads(threads)
    errors = [outcome.error for outcome in outcomes if outcome.error]
    for error in errors:
        if not isinstance(error, KeyboardInterrupt):
            raise error
    if stopped or errors:
        raise Interrupted(_how_far(outcomes, len(jobs)))
    return [outcome.result for outcome in outcomes]


@dataclass
class _Outcome:
    """What became of a job that began: its result, or the error that ended it."""

    result: Any = None
    error: BaseException | None = None


def _outcome(job: Callable[[], T]) -> _Outcome:
    try:
        return _Outcome(job())
    except BaseException as error:
        return _Outcome(error=error)


def _one_by_one(jobs: Sequence[Callable[[], T]]) -> list[_Outcome]:
    """The outcomes of the jobs, up to the first that fails."""
    outcomes: list[_Outcome] = []
    for job in jobs:
        outcomes.append(_outcome(job))
        if outcomes[-1].error:
            break
    return outcomes


def _in_threads(jobs: Sequence[Callable[[], T]], workers: int) -> list[_Outcome]:
    """The outcomes of the jobs that began. Their threads work in a copy of this one's context, so that what they show
    appears below the cell that called."""
    with ThreadPoolExecutor(workers) as pool:
        futures, waiting = [], iter(jobs)
        while True:
            try:
                for job in waiting:
                    futures.append(pool.submit(contextvars.copy_context().run, _outcome, job))
                while wait(futures, 0.1).not_done:  # short waits: on Windows a long one cannot be interrupted
                    if any(future.done() and not future.cancelled() and future.result().error for future in futures):
                        _stop.set()  # what the others learn would be thrown away
                        for future in futures:
                            future.cancel()
                return [future.result() for future in futures if not future.cancelled()]
            except KeyboardInterrupt:
                _stop.set()
                waiting = iter(())
                for future in futures:
                    future.cancel()


def _how_far(outcomes: list[_Outcome], jobs: int) -> str:
    """One line about trainings that were interrupted together."""
    ended = sum(outcome.error is None for outcome in outcomes)
    cut = [outcome.error for outcome in outcomes if outcome.error]
    cut = [error for error in cut if not isinstance(error, TrainingInterrupted) or error.history.loss]
    parts = [f"{ended} of {jobs} trainings ended"]
    if cut:
        steps = [f"{len(e.history.loss)} of {e.steps}" for e in cut if isinstance(e, TrainingInterrupted)]
        after = f" after {' and '.join(steps)} steps" if steps else ""
        parts.append(f"{len(cut)} {'was' if len(cut) == 1 else 'were'} cut short{after}")
    if waiting := jobs - ended - len(cut):
        parts.append(f"{waiting} had not begun")
    return (
        f"Interrupted: {', '.join(parts)}. To start over, run the cell that builds the networks, and then those "
        "below it."
    )


def _measured(result: Tensor | tuple[Tensor, dict]) -> tuple[Tensor, tuple[Tensor, dict]]:
    """The loss to differentiate, and (loss, metrics) as they are now: a metric may be a parameter that the update is
    about to change, or hang on a graph that would keep its memory."""
    loss, metrics = result if isinstance(result, tuple) else (result, {})
    return loss, (loss.detach(), {k: v.detach().clone() if isinstance(v, Tensor) else v for k, v in metrics.items()})


def _record(history: History, pending: list, title: str) -> None:
    """Move the pending losses into the history, and stop at the first that is not a number."""
    found = _numbers([value for loss, metrics in pending for value in (loss, *metrics.values())])
    while pending:
        metrics = pending[0][1]
        value, *measured = found[: 1 + len(metrics)]
        del found[: 1 + len(metrics)]
        if not math.isfinite(value):
            step, rate = len(history.loss), history.learning_rate[len(history.loss)]
            before = f"The loss before it was {history.loss[-1]:.3g}. " if history.loss else ""
            pending.clear()
            del history.learning_rate[step:]
            raise TrainingDiverged(
                f"{title}: the loss became {value} at step {step}, at learning rate {rate:.2g}. {before}"
                "Try a smaller learning rate, a longer warm-up or gradient clipping (clip=1.0), and look for a "
                "logarithm or a division of zero in the loss.",
                history,
            )
        del pending[0]
        history.loss.append(value)
        for name, number in zip(metrics, measured, strict=True):
            history.metrics.setdefault(name, []).append(number)
    del history.learning_rate[len(history.loss) :]


def _numbers(values: list[Tensor | float]) -> list[float]:
    """Plain numbers and tensors of one number each as floats, with one wait for a device instead of one per tensor."""
    away = [value.detach().float().reshape(()) for value in values if _away(value)]
    fetched = iter(torch.stack(away).tolist() if away else ())
    return [next(fetched) if _away(value) else float(value) for value in values]


def _away(value: Tensor | float) -> bool:
    return isinstance(value, Tensor) and value.device.type != "cpu"


def _progress(total: int, title: str):
    """A bar with the time left, removed when done. Off in headless runs, whose output is kept."""
    return bars.bar(total=total, desc=title, unit=" steps", leave=False)


class EMA:
    """Exponential moving average of a network's weights: `network` follows with factor `momentum` per `update`.

    Buffers (batch-norm statistics) are copied. Half of the weight is younger than ln 2 / -ln(momentum) steps.
    """

    def __init__(self, model: nn.Module, momentum: float = 0.99):
        self.momentum = momentum
        self.network = copy.deepcopy(model).requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """theta_average <- momentum * theta_average + (1 - momentum) * theta."""
        for mean, new in zip(self.network.parameters(), model.parameters(), strict=True):
            mean.lerp_(new.detach(), 1 - self.momentum)
        for mean, new in zip(self.network.buffers(), model.buffers(), strict=True):
            mean.copy_(new)


@torch.no_grad()
def predict(model: nn.Module, images: Tensor, batch: int = 500) -> Tensor:
    """Outputs of `model` in eval mode for uint8 pictures (N, 3, H, W), computed in batches; the mode is put back."""
    was_training = model.training
    model.eval()
    try:
        return torch.cat([full(model(to_input(part))) for part in images.split(batch)])
    finally:
        model.train(was_training)


def accuracy(model: nn.Module, pictures: Pictures) -> float:
    """Share of pictures, in [0, 1], whose largest logit is at the label."""
    return (predict(model, pictures.images).argmax(1) == pictures.labels).float().mean().item()


def remember(name: str, model: nn.Module, settings: dict, train: Callable[[], History]) -> History:
    """Train `model` by calling `train()`, or load the weights of an earlier training with the same settings.

    Kept in the cache as safetensors under a name made of `settings` (anything JSON can write), the parameter names and
    shapes, and how `train` trains, as far as it shows (see `_recipe`): who changes the learning rate, the loss or the
    running cell trains again, as does who has a damaged file. A training that raises (interrupted, diverged) is not
    kept, nor is a rehearsal.
    """
    if rehearsal.limits():
        return train()
    shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
    ours = inspect.isfunction(train) and train.__module__.startswith("lessons.")  # several lessons share its model
    known = [settings, shapes, _recipe(train), "" if ours else _running_cell()]
    key = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:16]
    path = store.cache_dir("models") / f"{name}-{key}.safetensors"
    kept = None if os.environ.get("LESSONS_HEADLESS") == "1" else store.load_tensors(path)
    if kept is not None:
        tensors, meta = kept
        model.load_state_dict(tensors)
        history = History(**meta["history"])
        print(f"{name}: loaded from an earlier run of {history.seconds:.0f} s; delete {path.name} to train again.")
        return history
    history = train()
    tensors = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    try:
        store.save_tensors(path, tensors, {"settings": settings, "history": asdict(history)})
    except store.StorageError as problem:
        print(f"{name}: trained, but not kept for next time. {problem}")
    return history


def _recipe(value: Any) -> Any:
    """What a training is made of, as far as it can be read off, in a form that JSON can write: numbers and texts, the
    source of functions, the arguments of partials, the settings of optimisers; of anything else its type."""
    if isinstance(value, partial):
        return [_recipe(part) for part in (value.func, *value.args)], {k: _recipe(v) for k, v in value.keywords.items()}
    if isinstance(value, torch.optim.Optimizer):
        groups = [{k: _recipe(v) for k, v in group.items() if k != "params"} for group in value.param_groups]
        return type(value).__name__, groups
    if isinstance(value, (list, tuple)):
        return [_recipe(part) for part in value]
    if inspect.isgenerator(value) and value.gi_frame is not None:  # batches: their size, seed and augmentation
        return value.__name__, {k: _recipe(v) for k, v in value.gi_frame.f_locals.items()}
    if inspect.isfunction(value):
        try:
            return inspect.getsource(value)
        except (OSError, TypeError):
            return value.__qualname__
    plain = value is None or isinstance(value, (bool, int, float, str, torch.dtype))
    return str(value) if plain else type(value).__name__


def _running_cell() -> str:
    """The source of the notebook cell that is running; empty elsewhere."""
    if not in_kernel():
        return ""
    cells = sys.modules["IPython"].get_ipython().user_ns.get("In") or [""]
    return cells[-1]

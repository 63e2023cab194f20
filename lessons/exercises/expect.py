"""What checks are written with: each helper raises `Wrong` with what was expected, what came, and the likely cause."""

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

Causes = Mapping[str, Any]  # a sentence -> the value that this mistake gives, a function that makes it, or a predicate


class Wrong(Exception):
    """Not right yet: a `message` for a human, `details` in monospace, the likely `cause`, the `hint` that helps."""

    def __init__(self, message: str, *, details: str = "", cause: str = "", hint: int = 2):
        message = f"T{message[1:]}" if message.startswith("the ") else message  # "the result ..." begins the sentence
        super().__init__(message)
        self.message, self.details, self.cause, self.hint = message, details, cause, hint


def require(condition: bool, message: str, *, details: str = "", cause: str = "", hint: int = 2) -> None:
    """Raise `Wrong` with this message unless the condition holds."""
    if not condition:
        raise Wrong(message, details=details, cause=cause, hint=hint)


def call(fn: Callable, *args: Any, **kwargs: Any) -> Any:
    """Call the learner's code and return its result; Wrong for None and for argument tensors changed in place.

    An error of the learner's code passes through, with a note that says what the arguments were.
    """
    given = list(_tensors((args, kwargs)))
    before = [tensor.detach().clone() for tensor in given]
    try:
        result = fn(*args, **kwargs)
    except Exception as error:
        error.add_note(f"called with {_arguments(fn, args, kwargs)}")
        raise
    name = getattr(fn, "__name__", type(fn).__name__)
    if result is None:
        raise Wrong(f"`{name}` returned None.", cause="the result is computed, but there is no `return`", hint=3)
    for old, new in zip(before, given, strict=True):
        if old.shape != new.shape or not ((old == new) | ((old != old) & (new != new))).all():
            raise Wrong(
                f"`{name}` changed {describe(new)} that it was given; the caller still needs it.",
                cause="an in-place operation (`x += ...`, `x[...] = ...`, `relu_`, `inplace=True`): make a new tensor",
            )
    return result


def expect_tensor(
    got: Any,
    want: Tensor,
    what: str = "the result",
    *,
    atol: float = 1e-5,
    rtol: float = 1e-4,
    causes: Causes | None = None,
    grad: bool = False,
    hint: int = 2,
) -> None:
    """Wrong unless `got` has the type, dtype, device, shape and values of `want`; with `grad` it must carry gradient.

    `causes` maps a sentence to the value of this mistake, to a function that makes it, or to a predicate of `got`.
    """
    _explained(lambda want: _compare_tensor(got, want, what, atol, rtol), got, want, causes, hint)
    if grad and not got.requires_grad:
        raise Wrong(
            f"{what} carries no gradient: nothing could be learned through it.",
            cause="`.detach()`, `.item()`, `torch.no_grad()` or `torch.tensor(...)` cuts the graph",
            hint=hint,
        )


def expect_equal(
    got: Any, want: Any, what: str = "the result", *, atol: float = 1e-6, causes: Causes | None = None, hint: int = 2
) -> None:
    """Wrong unless `got` equals `want`: numbers (floats to `atol`), text, lists, dicts, tensors, and so on inside."""
    _explained(lambda want: _compare(got, want, what, atol), got, want, causes, hint)


def expect_shape(
    got: Any, shape: tuple[int, ...], what: str = "the result", *, causes: Causes | None = None, hint: int = 2
) -> None:
    """Wrong unless `got` is a tensor of this shape; a cause's value is then a shape, too."""
    _explained(lambda shape: _compare_shape(got, tuple(shape), what), got, shape, causes, hint)


def expect_close_grad(
    fn: Callable,
    oracle: Callable,
    *inputs: Any,
    what: str = "the result",
    atol: float = 1e-5,
    rtol: float = 1e-4,
    causes: Mapping[str, Callable] | None = None,
    hint: int = 3,
) -> None:
    """Wrong unless fn has the values of oracle on these inputs, and the same gradients for every floating input.

    Gradients are those of a fixed weighted sum of the result. `causes` maps a sentence to the oracle of that mistake.
    """
    want, want_grads = _with_grads(oracle, inputs)
    wrong_ways = {sentence: _with_grads(other, inputs) for sentence, other in (causes or {}).items()}

    def compared(*leaves: Any) -> Tensor:
        result = call(fn, *leaves)
        values = {sentence: value for sentence, (value, _) in wrong_ways.items()}
        expect_tensor(result, want, what, atol=atol, rtol=rtol, causes=values, grad=True, hint=hint)
        return result

    _, got_grads = _with_grads(compared, inputs)
    for i, (mine, theirs) in enumerate(zip(got_grads, want_grads, strict=True)):
        alternatives = {sentence: grads[i] for sentence, (_, grads) in wrong_ways.items()}
        label = f"the gradient of {what} with respect to input {i + 1}"
        expect_tensor(mine, theirs, label, atol=atol, rtol=rtol, causes=alternatives, hint=hint)


def seeded(
    *shape: int, seed: int = 0, scale: float = 1.0, high: int | None = None, dtype: torch.dtype | None = None
) -> Tensor:
    """Normal values times `scale`, or with `high` integers in [0, high); from a generator of its own."""
    generator = torch.Generator().manual_seed(seed)
    if high is not None:
        return torch.randint(high, shape, generator=generator, dtype=dtype or torch.int64)
    return (torch.randn(shape, generator=generator) * scale).to(dtype or torch.float32)


@torch.no_grad()
def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Give every parameter and running statistic a seeded value that is no default (weight 1, bias 0), in place."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        values = torch.randn(parameter.shape, generator=generator)
        parameter.copy_(values / math.sqrt(parameter[0].numel()) if parameter.ndim > 1 else 0.7 + 0.3 * values)
    for name, buffer in module.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    return module


def load_weights(module: nn.Module, state: Mapping[str, Tensor], what: str = "your module") -> None:
    """Load these weights by name, to compare on the same weights; Wrong lists what is missing, extra or mis-shaped."""
    mine = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    theirs = {name: tuple(value.shape) for name, value in state.items()}
    lines = [f"missing: {name} {theirs[name]}" for name in theirs if name not in mine]
    lines += [f"not expected: {name} {mine[name]}" for name in mine if name not in theirs]
    lines += [
        f"{name}: expected {theirs[name]}, came {mine[name]}"
        for name in mine
        if name in theirs and mine[name] != theirs[name]
    ]
    if lines:
        message = f"{what} holds other weights than expected (the names count, too)."
        raise Wrong(message, details="\n".join(lines[:8] + ["..."] * (len(lines) > 8)))
    module.load_state_dict(dict(state))


def describe(value: Any) -> str:
    """A value in a few words, such as `a tensor (2, 3) float32`."""
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)} {_short(value.dtype)}"
    if type(value).__module__ == "numpy" and hasattr(value, "shape"):
        return f"a NumPy array {tuple(value.shape)}"
    if isinstance(value, nn.Module):
        return f"a module {type(value).__name__}"
    if value is None or isinstance(value, (bool, int, float, str)):
        text = repr(value)
        return f"{text[:60]}..." if len(text) > 60 else text
    return f"a {type(value).__name__}"


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _tensors(part)


def _arguments(fn: Callable, args: tuple, kwargs: dict) -> str:
    try:
        names = list(inspect.signature(fn.forward if isinstance(fn, nn.Module) else fn).parameters)
    except (TypeError, ValueError):
        names = []
    labelled = [f"{names[i]}: {describe(arg)}" if i < len(names) else describe(arg) for i, arg in enumerate(args)]
    return ", ".join(labelled + [f"{name}: {describe(arg)}" for name, arg in kwargs.items()]) or "no arguments"


def _explained(compare: Callable[[Any], None], got: Any, want: Any, causes: Causes | None, hint: int) -> None:
    """Compare; when wrong, look for the first cause whose value `got` agrees with."""
    try:
        compare(want)
    except Wrong as wrong:
        wrong.hint = hint
        for sentence, alternative in (causes or {}).items():
            if _matches(compare, got, alternative):
                wrong.cause = sentence
                break
        raise


def _matches(compare: Callable[[Any], None], got: Any, alternative: Any) -> bool:
    try:
        if callable(alternative):
            if inspect.signature(alternative).parameters:
                return bool(alternative(got))
            alternative = alternative()
        compare(alternative)
    except Exception:  # a predicate may stumble over whatever the learner returned: then it is not this cause
        return False
    return True


def _compare(got: Any, want: Any, what: str, atol: float) -> None:
    """Raise Wrong at the first difference between two plain values."""
    if isinstance(want, Tensor):
        _compare_tensor(got, want, what, atol, 1e-5)
    elif isinstance(want, dict):
        require(isinstance(got, dict), f"{what} is {describe(got)}; expected a dict with the keys {list(want)}.")
        missing, extra = [key for key in want if key not in got], [key for key in got if key not in want]
        require(not missing, f"{what} lacks the key {missing[:1]!r}; it has {list(got)}.")
        require(not extra, f"{what} has a key too many: {extra[:1]!r}; expected {list(want)}.")
        for key in want:
            _compare(got[key], want[key], f"{what}[{key!r}]", atol)
    elif isinstance(want, (list, tuple)):
        kind = f"a {'list' if isinstance(want, list) else 'tuple'} of {len(want)}"
        require(isinstance(got, (list, tuple)), f"{what} is {describe(got)}; expected {kind}.")
        require(len(got) == len(want), f"{what} has {len(got)} entries; expected {len(want)}.")
        for i, (mine, theirs) in enumerate(zip(got, want, strict=True)):
            _compare(mine, theirs, f"{what}[{i}]", atol)
    else:
        _compare_scalar(got, want, what, atol)


def _compare_scalar(got: Any, want: Any, what: str, atol: float) -> None:
    shown = f"{want:.6g}" if isinstance(want, float) else describe(want)
    if isinstance(got, Tensor):
        cause = "`.item()` makes a Python number of a tensor with one element" if got.numel() == 1 else ""
        raise Wrong(f"{what} is {describe(got)}; expected the plain value {shown}.", cause=cause)
    number = isinstance(want, float) and isinstance(got, (int, float)) and not isinstance(got, bool)
    if not number and type(got) is not type(want):
        kinds = type(got).__name__, type(want).__name__
        raise Wrong(f"{what} is {describe(got)}, of type {kinds[0]}; expected {shown}, of type {kinds[1]}.")
    if number and not math.isfinite(got) and math.isfinite(want):
        raise Wrong(f"{what} is {got}, not a finite number; expected {shown}.", cause=_NOT_FINITE)
    equal = math.isclose(got, want, rel_tol=1e-6, abs_tol=atol) if number else got == want
    require(equal, f"{what} is {f'{got:.6g}' if number else describe(got)}; expected {shown}.")


_NOT_FINITE = "a division by zero, the logarithm of zero, or exp of a large number"


def _compare_tensor(got: Any, want: Tensor, what: str, atol: float, rtol: float) -> None:
    """Raise Wrong at the first of: not a tensor, dtype, device, shape, NaN or infinity, values."""
    if not isinstance(got, Tensor):
        number = isinstance(got, (int, float))
        cause = "`.item()` or float() leaves the graph: return the tensor" if number else ""
        raise Wrong(f"{what} is {describe(got)}; expected {describe(want)}.", cause=cause)
    if got.dtype != want.dtype:
        raise Wrong(f"{what} has the dtype {_short(got.dtype)}; expected {_short(want.dtype)}.")
    if got.device.type != want.device.type:
        message = f"{what} lies on the device {got.device.type}; expected {want.device.type}, where the input is."
        raise Wrong(message, cause="a tensor made inside needs `device=x.device`")
    _compare_shape(got, tuple(want.shape), what)
    mine, theirs = got.detach().double(), want.detach().double()
    broken = ~mine.isfinite() & (mine != theirs) & ~(mine.isnan() & theirs.isnan())
    if broken.any():
        index = broken.nonzero()[0].tolist()
        message = f"{what} holds {int(broken.sum())} values that are NaN or infinite, the first at {index}."
        raise Wrong(message, cause=_NOT_FINITE)
    close = torch.isclose(mine, theirs, atol=atol, rtol=rtol, equal_nan=True)
    if not close.all():
        _raise_values(mine, theirs, close, what)


def _compare_shape(got: Any, shape: tuple[int, ...], what: str) -> None:
    require(isinstance(got, Tensor), f"{what} is {describe(got)}; expected a tensor {shape}.")
    require(tuple(got.shape) == shape, f"{what} has the shape {tuple(got.shape)}; expected {shape}.")


def _raise_values(got: Tensor, want: Tensor, close: Tensor, what: str) -> None:
    first = tuple((~close).nonzero()[0].tolist())
    count = f"{int((~close).sum())} of {close.numel()} values differ"
    at = f", the first at {list(first)}" if first else ""
    worst = (got - want).abs()[~close].max().item()
    if got.ndim > 2 or got.numel() > 30:  # too much to read: a few values from the first difference on
        row, start = first[:-1], first[-1]
        got, want = got[row][start : start + 6], want[row][start : start + 6]
    details = f"expected {_show(want)}\ncame     {_show(got)}"
    count += f"{at} (largest difference {worst:.3g})"
    raise Wrong(f"{what} has the right shape but other values: {count}.", details=details)


def _show(tensor: Tensor) -> str:
    if tensor.ndim == 0:
        return f"{tensor.item():.4g}"
    if tensor.ndim == 1:
        return "[" + ", ".join(f"{value:.4g}" for value in tensor.tolist()) + "]"
    return "[" + (",\n" + " " * 10).join(_show(row) for row in tensor) + "]"


def _with_grads(fn: Callable, inputs: tuple) -> tuple[Tensor, list[Tensor]]:
    """fn's value, and the gradients of its weighted sum with respect to the floating inputs."""
    leaves = [x.detach().clone().requires_grad_() if _floating(x) else x for x in inputs]
    result = fn(*leaves)
    total = (result * seeded(*result.shape, seed=1, dtype=result.dtype)).sum()
    wanted = [x for x in leaves if _floating(x)]
    grads = torch.autograd.grad(total, wanted, allow_unused=True)
    return result.detach(), [torch.zeros_like(x) if g is None else g for x, g in zip(wanted, grads, strict=True)]


def _floating(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()

"""Lesson 01, ResNet: seven exercises and an open one."""

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from ..nets.resnet import CifarResNet
from .engine import Exercise, Wrong
from .expect import call, expect_close_grad, expect_equal, expect_tensor, randomise, seeded

# 1.1


def depth_to_n(depth):
    """The n of a network with depth = 6n + 2 layers; ValueError for a depth that is not of this form."""
    if depth < 8 or (depth - 2) % 6:
        raise ValueError(f"depth {depth} is not 6n + 2 with n >= 1")
    return (depth - 2) // 6


def check_depth_to_n(candidate):
    for depth, n in ((8, 1), (20, 3), (44, 7), (56, 9), (110, 18)):
        causes = {
            "a block holds two convolutions, so a stage of n blocks has 2n layers and three stages 6n": (depth - 2)
            // 3,
            "`/` gives a float; the number of blocks is an int, so divide with `//`": (depth - 2) / 6,
            "two layers stand outside the stages: the first convolution and the linear layer": depth // 6
            if depth // 6 != n
            else "none",
            "only one layer was taken off; the first convolution and the linear layer are two": (depth - 1) // 6
            if (depth - 1) // 6 != n
            else "none",
            "this is the number of blocks in all three stages, not in one": (depth - 2) // 2,
        }
        expect_equal(call(candidate, depth), n, f"depth_to_n({depth})", causes=causes)
    for depth in (21, 18, 52, 2):
        try:
            got = call(candidate, depth)
        except ValueError:
            continue
        raise Wrong(
            f"depth_to_n({depth}) must raise ValueError, but returned {got!r}.",
            cause=f"{depth} - 2 = {depth - 2} is not a positive multiple of 6; test the remainder before dividing",
            hint=3,
        )


def depth_raises_only_for_remainder(depth):
    if (depth - 2) % 6:
        raise ValueError
    return (depth - 2) // 6


# 1.2


def receptive_field(layers):
    """Width in pixels of the input region that one output value of a stack of convolutions sees.

    layers: list of (kernel, stride), from the input to the output.
    """
    field, step = 1, 1
    for kernel, stride in layers:
        field = field + (kernel - 1) * step
        step = step * stride
    return field


def receptive_field_by_tracing(layers):
    """The same, found by following one output position back to the input."""
    low, high = 0, 0
    for kernel, stride in reversed(layers):
        low, high = low * stride, high * stride + kernel - 1
    return high - low + 1


RESNET_20 = [(3, 1)] * 7 + [(3, 2)] + [(3, 1)] * 5 + [(3, 2)] + [(3, 1)] * 5


def check_receptive_field(candidate):
    cases = {
        "one 3x3 layer": [(3, 1)],
        "two 3x3 layers": [(3, 1), (3, 1)],
        "a 3x3 layer of stride 2, then a 3x3 layer": [(3, 2), (3, 1)],
        "a 3x3 layer, then one of stride 2": [(3, 1), (3, 2)],
        "a 1x1 layer of stride 2 between two 5x5 layers": [(5, 1), (1, 2), (5, 1)],
        "no layer at all": [],
        "ResNet-20": RESNET_20,
    }
    for name, layers in cases.items():
        before = [sum(k - 1 for k, _ in layers) + 1]
        causes = {
            "strides are not taken into account: after a stride of 2 each further step covers two pixels": before[0],
            "a layer's own stride acts on the layers after it, not on itself: multiply after adding": _stride_first(
                layers
            ),
            "a kernel of width k adds k - 1 pixels, not k": _adds_kernel(layers),
            "the field starts at 1 pixel, before any layer": receptive_field_by_tracing(layers) - 1,
            "strides multiply: two of them make a step of 4, not of 3 or of 2": _adds_strides(layers),
        }
        want = receptive_field_by_tracing(layers)
        expect_equal(call(candidate, layers), want, f"the receptive field of {name}", causes=causes)


def _stride_first(layers):
    field, step = 1, 1
    for kernel, stride in layers:
        step *= stride
        field += (kernel - 1) * step
    return field


def _adds_kernel(layers):
    field, step = 1, 1
    for kernel, stride in layers:
        field += kernel * step
        step *= stride
    return field


def _adds_strides(layers):
    field, step = 1, 1
    for kernel, stride in layers:
        field += (kernel - 1) * step
        step += stride - 1
    return field


def _last_stride_only(layers):
    field, step = 1, 1
    for kernel, stride in layers:
        field += (kernel - 1) * step
        step = stride
    return field


# 1.3


def zero_pad_shortcut(x, c_out, stride=2):
    """Option A: keep every `stride`-th row and column, append zero channels. (B, C, H, W) -> (B, c_out, ...)."""
    x = x[:, :, ::stride, ::stride]
    zeros = x.new_zeros(x.shape[0], c_out - x.shape[1], x.shape[2], x.shape[3])
    return torch.cat([x, zeros], dim=1)


def _shortcut_by_loops(x, c_out, stride=2):
    B, C, H, W = x.shape
    rows, columns = range(0, H, stride), range(0, W, stride)
    y = torch.zeros(B, c_out, len(rows), len(columns), dtype=x.dtype)
    for c in range(C):
        for i, row in enumerate(rows):
            for j, column in enumerate(columns):
                y[:, c, i, j] = x[:, c, row, column]
    return y


def _shortcut_centred(x, c_out, stride=2):
    x, extra = x[:, :, ::stride, ::stride], c_out - x.shape[1]
    return F.pad(x, (0, 0, 0, 0, extra // 2, extra - extra // 2))


def _shortcut_front(x, c_out, stride=2):
    x = x[:, :, ::stride, ::stride]
    return F.pad(x, (0, 0, 0, 0, c_out - x.shape[1], 0))


def _shortcut_pooled(x, c_out, stride=2):
    x = F.avg_pool2d(x, stride, ceil_mode=True)
    return F.pad(x, (0, 0, 0, 0, 0, c_out - x.shape[1]))


def _shortcut_offset(x, c_out, stride=2):
    x = x[:, :, stride - 1 :: stride, stride - 1 :: stride]
    return F.pad(x, (0, 0, 0, 0, 0, c_out - x.shape[1]))


def _shortcut_repeats(x, c_out, stride=2):
    x = x[:, :, ::stride, ::stride]
    return x.repeat(1, -(-c_out // x.shape[1]), 1, 1)[:, :c_out]


def _one_side_left(thinned, got):
    return (
        got.ndim == 4
        and [got.shape[2], got.shape[3]].count(0) == 0
        and bool(thinned)
        and ((got.shape[2] == thinned["rows"]) != (got.shape[3] == thinned["columns"]))
    )


def check_zero_pad_shortcut(candidate):
    for shape, c_out, stride in (
        ((2, 4, 6, 8), 8, 2),
        ((3, 2, 5, 7), 7, 2),
        ((1, 3, 6, 6), 6, 3),
        ((2, 4, 4, 4), 4, 1),
    ):
        x = seeded(*shape, seed=c_out) + 2.0
        thinned = {"rows": x.shape[2], "columns": x.shape[3]} if stride > 1 else {}
        causes = {
            "the zeros come after the old channels; here they stand on both sides of them": _shortcut_centred(
                x, c_out, stride
            ),
            "the zeros come after the old channels; here they come before": _shortcut_front(x, c_out, stride),
            "average pooling mixes pixels; option A keeps every stride-th pixel as it is": _shortcut_pooled(
                x, c_out, stride
            ),
            "the first pixel kept is number 0: start the slice at the beginning": _shortcut_offset(x, c_out, stride),
            "the new channels must be zero; here the old ones are repeated": _shortcut_repeats(x, c_out, stride),
            "only one of rows and columns is thinned out": partial(_one_side_left, thinned),
        }
        got = call(candidate, x, c_out, stride)
        what = f"zero_pad_shortcut of {shape} with c_out={c_out}, stride={stride}"
        expect_tensor(got, _shortcut_by_loops(x, c_out, stride), what, causes=causes)
    x = seeded(2, 3, 6, 6, seed=5)
    expect_close_grad(
        lambda t: call(candidate, t, 6, 2), lambda t: zero_pad_shortcut(t, 6, 2), x, what="zero_pad_shortcut"
    )


# 1.4


def residual_block(x, branch, shortcut):
    """y = ReLU(branch(x) + shortcut(x)); branch and shortcut map (B, C, H, W) to tensors of one shape."""
    return F.relu(branch(x) + shortcut(x))


def _block_in_place(x, branch, shortcut):
    return branch(x).add_(shortcut(x)).relu_()


def check_residual_block(candidate):
    torch.manual_seed(0)
    branch = randomise(nn.Sequential(nn.Conv2d(4, 6, 3, 2, 1), nn.BatchNorm2d(6)), seed=1).eval()
    projection = randomise(nn.Sequential(nn.Conv2d(4, 6, 1, 2), nn.BatchNorm2d(6)), seed=2).eval()
    same = randomise(nn.Conv2d(4, 4, 3, 1, 1), seed=3).eval()
    inplace = nn.Sequential(nn.ReLU(inplace=False), same)
    cases = {
        "a projection shortcut": (seeded(3, 4, 6, 8, seed=4), branch, projection),
        "an identity shortcut": (seeded(2, 4, 5, 5, seed=5), inplace, nn.Identity()),
        "a branch that is negative everywhere": (
            seeded(2, 4, 5, 5, seed=6).abs() + 0.5,
            lambda x: -0.5 * x - 0.1,
            nn.Identity(),
        ),
    }
    for name, (x, change, skip) in cases.items():
        with torch.no_grad():
            want = torch.clamp(change(x) + skip(x), min=0.0)
            causes = {
                "ReLU was applied to the branch before the addition, so the block can only add, never take away": F.relu(
                    change(x)
                )
                + skip(x),
                "the branch got a ReLU of its own before the addition; then it can only add": F.relu(
                    F.relu(change(x)) + skip(x)
                ),
                "there is no ReLU after the addition": change(x) + skip(x),
                "the shortcut is missing": F.relu(change(x)),
                "the shortcut got a ReLU of its own": F.relu(change(x) + F.relu(skip(x)))
                if not torch.equal(F.relu(skip(x)), skip(x))
                else "none",
                "the sum is halved; the block adds, it does not average": F.relu((change(x) + skip(x)) / 2),
                "x was added as it is; where shapes change the shortcut has to be applied to it": lambda got, x=x: (
                    got.shape == x.shape
                ),
            }
            expect_tensor(
                call(candidate, x, change, skip), want, f"residual_block with {name}", causes=causes, atol=1e-5
            )
    x = seeded(2, 4, 5, 5, seed=7)
    expect_close_grad(
        lambda t: call(candidate, t, inplace, nn.Identity()),
        lambda t: residual_block(t, inplace, nn.Identity()),
        x,
        what="residual_block",
        causes={
            "the skip path carries no gradient: was it detached?": lambda t: residual_block(
                t, inplace, lambda v: v.detach()
            )
        },
    )


# 1.5


def count_parameters(n, option, width=16, classes=10):
    """Trainable numbers in the 6n + 2 layer residual network: convolutions without bias, batch norm with gamma and
    beta after each, one linear layer with bias; option "A" (zero padding) or "B" (1x1 projections with batch norm)."""
    total = 3 * width * 9 + 2 * width
    c_in = width
    for c_out in (width, 2 * width, 4 * width):
        for position in range(n):
            first = c_in if position == 0 else c_out
            total += first * c_out * 9 + c_out * c_out * 9 + 4 * c_out
            if option == "B" and first != c_out:
                total += first * c_out + 2 * c_out
        c_in = c_out
    return total + c_in * classes + classes


def check_count_parameters(candidate):
    for n, option, width, classes in (
        (3, "A", 16, 10),
        (3, "B", 16, 10),
        (9, "A", 16, 10),
        (1, "B", 8, 7),
        (2, "A", 12, 100),
    ):
        net = CifarResNet(6 * n + 2, classes, width, shortcut=option)
        want = sum(p.numel() for p in net.parameters())
        convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
        norms = sum(2 * m.num_features for m in net.modules() if isinstance(m, nn.BatchNorm2d))
        projections = 3 * 2 * width * width + 2 * 2 * width + 2 * 4 * width + 7 * width * width
        projections = width * 2 * width + 4 * width + 2 * width * 4 * width + 8 * width
        causes = {
            "the convolutions have no bias here: batch norm's beta does that work": want
            + sum(m.out_channels for m in convs),
            "batch norm's parameters are missing: gamma and beta, two per channel": want - norms,
            "batch norm has two parameters per channel, gamma and beta; running mean and variance are not trained": want
            + norms,
            "the linear layer's bias is missing": want - classes,
            "only one 3x3 convolution per block was counted": lambda got, want=want: got < 0.7 * want,
            "option B's projections (a 1x1 convolution and its batch norm, twice) are missing": want - projections
            if option == "B"
            else "none",
            "option A has no parameters; projections were counted": want + projections if option == "A" else "none",
            "the batch norm after each projection is missing": want - 12 * width if option == "B" else "none",
            "the first convolution reads 3 colour channels, not `width`": want + (width - 3) * width * 9,
        }
        what = f"count_parameters({n}, {option!r}, {width}, {classes})"
        expect_equal(call(candidate, n, option, width, classes), want, what, causes=causes)


def _count_from(change):
    """A wrong count: the right one, changed."""

    def count_parameters_wrong(n, option, width=16, classes=10):
        return change(count_parameters(n, option, width, classes), n, option, width, classes)

    return count_parameters_wrong


def _norm_parameters(n, option, width):
    return 2 * width + 4 * n * (width + 2 * width + 4 * width) + (12 * width if option == "B" else 0)


# 1.6


def learning_rate(step, deep=False):
    """The paper's CIFAR schedule: 0.1, divided by 10 from step 32,000 and again from step 48,000 on. A very deep
    network (deep=True) starts with 0.01 for its first 400 steps."""
    if deep and step < 400:
        return 0.01
    return 0.1 if step < 32_000 else 0.01 if step < 48_000 else 0.001


def _cause_of_rate(got, step, deep, before):
    """The likely cause of a wrong rate at `step`; `before` is the answer one step earlier."""
    if deep and step < 400:
        return "with deep=True the first 400 steps run at 0.01"
    if step < 400:
        return "only a very deep network warms up; with deep=False the rate is 0.1 from the start"
    if step in (400, 32_000, 48_000) and got == before:
        return "the new rate begins at the drop itself: compare with `<`, not `<=`"
    if step < 32_000:
        return "the drops belong at steps 32,000 and 48,000; these look like epochs"
    if step < 48_000:
        return "divide by 10, do not halve" if abs(got - 0.05) < 1e-9 else ""
    return "at the second drop the rate is divided by 10 once more, to 0.001"


def check_learning_rate(candidate):
    for deep in (False, True):
        for step in (5_000, 0, 399, 400, 31_999, 32_000, 47_999, 63_999, 48_000):
            want = 0.01 if deep and step < 400 else 0.1 * 0.1 ** sum(step >= drop for drop in (32_000, 48_000))
            got = call(candidate, step, deep)
            cause = ""
            if isinstance(got, float) and abs(got - want) > 1e-9:
                cause = _cause_of_rate(got, step, deep, call(candidate, step - 1, deep) if step else None)
            causes = {cause: lambda got: True} if cause else None
            expect_equal(got, want, f"learning_rate({step}, deep={deep})", atol=1e-9, causes=causes)


# 1.7


def gradient_norms(net, x, y):
    """L2 norm of the cross-entropy gradient of each 3x3 convolution's weight, from the input to the output: (L,)."""
    net.zero_grad()
    F.cross_entropy(net(x), y).backward()
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    return torch.stack([m.weight.grad.norm() for m in convolutions])


def _norms(net, x, y, loss=F.cross_entropy, measure=torch.norm, keep=None):
    weights = [
        m.weight for m in net.modules() if isinstance(m, nn.Conv2d) and (keep or (lambda k: k == (3, 3)))(m.kernel_size)
    ]
    return torch.stack([measure(g) for g in torch.autograd.grad(loss(net(x), y), weights)])


def _after_softmax(logits, labels):
    return F.cross_entropy(logits.softmax(1), labels)


def _mean_absolute(gradient):
    return gradient.abs().mean()


def check_gradient_norms(candidate):
    for depth, shortcut, norm in ((8, "B", True), (14, None, False), (8, "A", False)):
        torch.manual_seed(depth)
        net = CifarResNet(depth, classes=5, width=4, shortcut=shortcut, norm=norm).eval()
        x, y = seeded(6, 3, 12, 12, seed=depth), seeded(6, seed=1, high=5)
        want = _norms(net, x, y)
        for parameter in net.parameters():  # what an earlier backward pass would have left behind
            parameter.grad = torch.full_like(parameter, 0.3)
        left = torch.stack(
            [
                (g + 0.3).norm()
                for g in torch.autograd.grad(
                    F.cross_entropy(net(x), y),
                    [m.weight for m in net.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)],
                )
            ]
        )
        causes = {
            "gradients of an earlier backward pass were still there: call net.zero_grad() first": left,
            "the order is from the input to the output; this is the reverse": want.flip(0),
            "these are squared norms; take the root": want**2,
            "cross_entropy wants logits; a softmax before it shrinks the gradients": _norms(
                net, x, y, loss=_after_softmax
            ),
            "the loss is summed over the batch; cross entropy takes the mean": want * len(x),
            "these are mean absolute values; asked for is the L2 norm of the whole tensor": _norms(
                net, x, y, measure=_mean_absolute
            ),
            "1x1 convolutions (the projections) were counted too": lambda got, want=want: (
                got.ndim == 1 and len(got) > len(want)
            ),
            "this is the norm of the weights, not of their gradients": torch.stack(
                [
                    m.weight.detach().norm()
                    for m in net.modules()
                    if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)
                ]
            ),
        }
        got = call(candidate, net, x, y)
        what = f"the gradient norms of a {'plain' if shortcut is None else 'residual'} network of depth {depth}"
        expect_tensor(got, want, what, causes=causes, atol=1e-6, rtol=1e-3)


def _accumulates(net, x, y):
    F.cross_entropy(net(x), y).backward()
    return torch.stack(
        [m.weight.grad.norm() for m in net.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    )


# 1.8


def gradient_reach(x, y, seed=0):
    """Experiment: log10 of (gradient norm of the first convolution / of the last) at the start of training, in plain
    20-layer networks of width 8 and their cures: {"default": ..., "he": ..., "norm": ..., "shortcut": ...}."""
    changes = {
        "default": {"shortcut": None, "norm": False},
        "he": {"shortcut": None, "norm": False},
        "norm": {"shortcut": None, "norm": True},
        "shortcut": {"shortcut": "A", "norm": False},
    }
    reach = {}
    for name, change in changes.items():
        torch.manual_seed(seed)
        net = CifarResNet(20, width=8, **change)  # starts with He initialisation
        if name != "he":
            for module in net.modules():
                if isinstance(module, nn.Conv2d):
                    module.reset_parameters()  # back to PyTorch's default
        norms = gradient_norms(net, x, y)
        reach[name] = math.log10(norms[0] / norms[-1])
    return reach


def check_gradient_reach(candidate):
    x, y = seeded(16, 3, 12, 12, seed=3), seeded(16, seed=4, high=10)
    trials = [gradient_reach(x, y, seed) for seed in (11, 12, 13)]
    want = {name: sum(trial[name] for trial in trials) / len(trials) for name in trials[0]}
    got = call(candidate, x, y)
    if not isinstance(got, dict) or set(got) != set(want):
        came = f"a dict with the keys {sorted(got)}" if isinstance(got, dict) else f"{type(got).__name__}"
        raise Wrong(f"gradient_reach must return a dict with the keys {sorted(want)}; came {came}.", hint=2)
    for name, value in want.items():
        ours = got[name]
        if not isinstance(ours, (int, float)) or not math.isfinite(ours):
            raise Wrong(
                f"{name!r} must be a finite number, but is {ours!r}.", cause="take math.log10 of the ratio as a float"
            )
        room = max(1.0, 0.35 * abs(value))
        if abs(ours - value) <= room:
            continue
        message = f"{name!r}: expected about {value:.1f} (three other seeds, room for {room:.1f}), came {ours:.1f}."
        raise Wrong(message, cause=_cause_of_reach(name, ours, value, room), hint=3)


def _cause_of_reach(name, ours, value, room):
    """The likely cause of a wrong logarithm `ours` where `value` was expected."""
    if abs(ours + value) <= room:
        return "the ratio is upside down: first convolution over last"
    if 0 < ours < 1e-3 and abs(math.log10(ours) - value) <= room:
        return "this is the ratio itself; take its log10"
    if abs(ours - value * math.log(10)) <= room:
        return "this is the natural logarithm; asked for is log10"
    if name == "default" and abs(ours) < 2:
        return "'default' needs two things: norm=False, and reset_parameters() on each convolution, since CifarResNet starts with He initialisation"
    return "one setting differs from the contract: width 8, depth 20, the whole batch, gradients at the start"


def _reach_he_everywhere(x, y, seed=0):
    reach = gradient_reach(x, y, seed)
    return reach | {"default": reach["he"]}


EXERCISES = (
    Exercise(
        id="1.1",
        title="From depth to n",
        minutes=5,
        difficulty=1,
        contract="`depth_to_n(depth)`: an int depth -> the int n with depth = 6n + 2; ValueError where there is none.",
        hints=(
            "Which layers do not belong to the three stages, and how many layers does one stage of n blocks have?",
            "depth = 1 + 3 * 2n + 1, so n = (depth - 2) / 6, and only when that is a whole number of at least 1.",
            "if depth is below 8 or (depth - 2) leaves a remainder by 6: raise ValueError; return (depth - 2) divided by 6 as an int",
        ),
        solution=depth_to_n,
        check=check_depth_to_n,
        covers="five depths, and four that do not exist",
        wrong=(
            (lambda depth: (depth - 2) // 3, "a block holds two convolutions"),
            (lambda depth: (depth - 2) / 6, "`/` gives a float"),
            (lambda depth: (depth - 2) // 6, "must raise ValueError"),
            (lambda depth: depth // 6, "must raise ValueError"),
            (lambda depth: (depth - 2) // 2, "all three stages"),
            (depth_raises_only_for_remainder, "depth_to_n(2) must raise ValueError"),
        ),
    ),
    Exercise(
        id="1.2",
        title="Receptive field",
        minutes=10,
        difficulty=3,
        contract="`receptive_field(layers)`: a list of (kernel, stride), input first -> width in pixels that one output sees (int).",
        hints=(
            "If neighbouring outputs of the layer before lie 4 input pixels apart, how far does a 3x3 kernel reach?",
            "Two numbers travel along: the field, starting at 1, and the distance of neighbours in input pixels, starting at 1.",
            "for each layer: field grows by (kernel - 1) times the distance; afterwards the distance is multiplied by the stride",
        ),
        solution=receptive_field,
        check=check_receptive_field,
        covers="stride before and after, 1x1 layers, no layer, ResNet-20",
        wrong=(
            (lambda layers: sum(k - 1 for k, _ in layers) + 1, "strides are not taken into account"),
            (_stride_first, "acts on the layers after it"),
            (_adds_kernel, "adds k - 1 pixels"),
            (lambda layers: receptive_field_by_tracing(layers) - 1, "starts at 1 pixel"),
            (_adds_strides, "strides multiply"),
            (_last_stride_only, "the receptive field of"),
        ),
    ),
    Exercise(
        id="1.3",
        title="The shortcut without parameters",
        minutes=10,
        difficulty=2,
        contract="`zero_pad_shortcut(x, c_out, stride=2)`: (B, C, H, W) -> (B, c_out, ceil(H/stride), ceil(W/stride)); zeros last.",
        hints=(
            "How do I take every second row and column without touching any number?",
            "x[:, :, ::stride, ::stride] has the right height and width; c_out - C channels of zeros are missing.",
            "thin out rows and columns by slicing; make zeros of shape (B, c_out - C, h, w) like x; concatenate along dim 1",
        ),
        solution=zero_pad_shortcut,
        check=check_zero_pad_shortcut,
        covers="odd sizes, strides 1, 2 and 3, odd numbers of channels, gradients",
        wrong=(
            (_shortcut_centred, "on both sides"),
            (_shortcut_front, "here they come before"),
            (_shortcut_pooled, "average pooling mixes pixels"),
            (_shortcut_offset, "number 0"),
            (_shortcut_repeats, "old ones are repeated"),
            (
                lambda x, c_out, stride=2: F.pad(x[:, :, ::stride], (0, 0, 0, 0, 0, c_out - x.shape[1])),
                "only one of rows and columns",
            ),
            (lambda x, c_out, stride=2: zero_pad_shortcut(x, c_out, stride).detach(), "gradient"),
        ),
    ),
    Exercise(
        id="1.4",
        title="The residual block",
        minutes=5,
        difficulty=2,
        contract="`residual_block(x, branch, shortcut)`: (B, C, H, W) and two callables -> ReLU(branch(x) + shortcut(x)).",
        hints=(
            "Where does the ReLU go, if the branch is to be able to take something away from x?",
            "y = ReLU(F(x) + shortcut(x)): one addition, one ReLU after it, nothing in between.",
            "compute the change from x; compute the skip from the same x; add; clamp the negatives to zero; leave x alone",
        ),
        solution=residual_block,
        check=check_residual_block,
        covers="projection, identity, a negative branch, gradients through both paths",
        wrong=(
            (lambda x, branch, shortcut: F.relu(branch(x)) + shortcut(x), "only add"),
            (lambda x, branch, shortcut: F.relu(F.relu(branch(x)) + shortcut(x)), "ReLU of its own"),
            (lambda x, branch, shortcut: branch(x) + shortcut(x), "no ReLU after the addition"),
            (lambda x, branch, shortcut: F.relu(branch(x)), "the shortcut is missing"),
            (lambda x, branch, shortcut: F.relu((branch(x) + shortcut(x)) / 2), "does not average"),
            (lambda x, branch, shortcut: F.relu(branch(x) + F.relu(shortcut(x))), "shortcut got a ReLU"),
            (lambda x, branch, shortcut: F.relu(branch(x) + shortcut(x).detach()), "detached"),
            (lambda x, branch, shortcut: F.relu(branch(x) + shortcut(x.relu_())), "changed"),
        ),
    ),
    Exercise(
        id="1.5",
        title="Counting parameters",
        minutes=15,
        difficulty=3,
        contract="`count_parameters(n, option, width=16, classes=10)`: the trainable numbers of the 6n + 2 network with option A or B (int).",
        hints=(
            "Which parameters does a 3x3 convolution without bias have, and which the batch norm after it?",
            "A convolution has c_in * c_out * k * k, a batch norm 2 * c_out, the linear layer 4 * width * classes + classes. n=3, A: 269,722.",
            "start with the first convolution and its norm; for each stage and block add two convolutions and two norms (the first "
            "block of stages 2 and 3 reads fewer channels); option B adds a 1x1 convolution and a norm there; add the linear layer",
        ),
        solution=count_parameters,
        check=check_count_parameters,
        covers="both options, three widths, other numbers of classes",
        wrong=(
            (
                _count_from(lambda t, n, o, w, c: t + w + 2 * n * 7 * w + (6 * w if o == "B" else 0)),
                "have no bias here",
            ),
            (_count_from(lambda t, n, o, w, c: t - _norm_parameters(n, o, w)), "batch norm's parameters are missing"),
            (_count_from(lambda t, n, o, w, c: t + _norm_parameters(n, o, w)), "running mean and variance"),
            (_count_from(lambda t, n, o, w, c: t - c), "linear layer's bias is missing"),
            (_count_from(lambda t, n, o, w, c: count_parameters(n, "A", w, c)), "option B's projections"),
            (_count_from(lambda t, n, o, w, c: count_parameters(n, "B", w, c)), "option A has no parameters"),
            (_count_from(lambda t, n, o, w, c: t - (12 * w if o == "B" else 0)), "after each projection"),
            (_count_from(lambda t, n, o, w, c: t + (w - 3) * w * 9), "3 colour channels"),
            (_count_from(lambda t, n, o, w, c: count_parameters((n + 1) // 2, o, w, c)), "count_parameters("),
        ),
    ),
    Exercise(
        id="1.6",
        title="The learning-rate schedule",
        minutes=5,
        difficulty=1,
        contract="`learning_rate(step, deep=False)`: step (int, from 0) -> 0.1, 0.01 or 0.001 as in the paper; deep warms up for 400 steps.",
        hints=(
            "At exactly step 32,000: is that still the old rate or already the new one?",
            "Three plateaus, 0.1, 0.01, 0.001, with the new value from steps 32,000 and 48,000 on; deep has 0.01 before step 400.",
            "if deep and step < 400: 0.01; else 0.1 before 32,000, 0.01 before 48,000, 0.001 after",
        ),
        solution=learning_rate,
        check=check_learning_rate,
        covers="both sides of every change, with and without warm-up",
        wrong=(
            (lambda step, deep=False: 0.1 if step < 82 else 0.01 if step < 123 else 0.001, "look like epochs"),
            (
                lambda step, deep=False: (
                    0.01 if deep and step < 400 else 0.1 if step <= 32_000 else 0.01 if step <= 48_000 else 0.001
                ),
                "compare with `<`",
            ),
            (
                lambda step, deep=False: 0.01 if deep and step < 400 else 0.1 if step < 32_000 else 0.01,
                "divided by 10 once more",
            ),
            (lambda step, deep=False: 0.01 if step < 400 else learning_rate(step), "only a very deep network"),
            (lambda step, deep=False: learning_rate(step), "first 400 steps run at 0.01"),
            (
                lambda step, deep=False: (
                    0.01 if deep and step < 400 else 0.1 / 2 ** sum(step >= s for s in (32_000, 48_000))
                ),
                "do not halve",
            ),
        ),
    ),
    Exercise(
        id="1.7",
        title="How much gradient arrives?",
        minutes=15,
        difficulty=3,
        contract="`gradient_norms(net, x, y)`: L2 norm of the cross-entropy gradient of each 3x3 convolution's weight, input first: (L,).",
        hints=(
            "What is left in .grad from a backward pass before, and what does backward() do with it?",
            "After backward() each weight has a .grad of its own shape; net.modules() visits the layers from input to output.",
            "clear the gradients; backward of the mean cross entropy of the logits; collect weight.grad.norm() of each 3x3 Conv2d; stack",
        ),
        solution=gradient_norms,
        check=check_gradient_norms,
        covers="plain and residual networks, with and without batch norm, gradients left from before",
        wrong=(
            (_accumulates, "net.zero_grad()"),
            (lambda net, x, y: gradient_norms(net, x, y).flip(0), "this is the reverse"),
            (lambda net, x, y: gradient_norms(net, x, y) ** 2, "squared norms"),
            (lambda net, x, y: _norms(net, x, y, loss=lambda z, t: F.cross_entropy(z.softmax(1), t)), "wants logits"),
            (lambda net, x, y: gradient_norms(net, x, y) * len(x), "summed over the batch"),
            (lambda net, x, y: _norms(net, x, y, measure=lambda g: g.abs().mean()), "mean absolute values"),
            (lambda net, x, y: _norms(net, x, y, keep=lambda k: True), "1x1 convolutions"),
        ),
    ),
    Exercise(
        id="1.8",
        title="Experiment: three cures for vanishing gradients",
        minutes=20,
        difficulty=4,
        contract="`gradient_reach(x, y, seed=0)`: log10 of the first over the last convolution's gradient norm, as a dict of four floats.",
        hints=(
            "CifarResNet starts with He initialisation. How do I get a layer back to PyTorch's own?",
            "module.reset_parameters() redraws a layer in PyTorch's default; norm= and shortcut= choose the rest; log10(first / last).",
            "for each of default, he, norm, shortcut: build the network; unless it is he, reset every Conv2d; gradient norms; log10 of first over last",
        ),
        solution=gradient_reach,
        check=check_gradient_reach,
        covers="all four networks, within the spread of three other seeds",
        wrong=(
            (lambda x, y, seed=0: {k: -v for k, v in gradient_reach(x, y, seed).items()}, "upside down"),
            (
                lambda x, y, seed=0: {k: v * math.log(10) for k, v in gradient_reach(x, y, seed).items()},
                "natural logarithm",
            ),
            (lambda x, y, seed=0: {k: 10**v for k, v in gradient_reach(x, y, seed).items()}, "the ratio itself"),
            (_reach_he_everywhere, "reset_parameters()"),
            (
                lambda x, y, seed=0: gradient_reach(x, y, seed) | {"default": gradient_reach(x, y, seed)["norm"]},
                "expected about",
            ),
            (lambda x, y, seed=0: {"default": -7.0}, "must return a dict with the keys"),
        ),
    ),
    Exercise(
        id="1.9",
        title="Your own block",
        minutes=45,
        difficulty=5,
        open=True,
        contract="Change one thing in the block (pre-activation, a scale on the branch, dropout on the skip) and find out whether it helps.",
        hints=(
            "What would have to be true for my change to help, and which curve would show it?",
            "Equal steps, equal pictures, three seeds; train loss for optimisation, val accuracy for the rest.",
        ),
        self_check=(
            "Did both networks see the same batches, and do they have nearly the same number of parameters?",
            "Is the difference larger than the spread over three seeds?",
            "Did you choose on val, and use test once?",
            "Which sentence of the paper by He et al. (2016, arXiv 1603.05027) agrees or disagrees with your result?",
        ),
    ),
)

"""Lesson 01: plain and residual networks for small pictures (He et al. 2016, arXiv 1512.03385, section 4.2)."""

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import SettingError


class ZeroPadShortcut(nn.Module):
    """Option A: every second pixel, new channels filled with zeros; (B, C, H, W) -> (B, c_out, H/2, W/2).

    No parameters. The zeros come after the old channels (some implementations put half of them before).
    """

    def __init__(self, c_out: int, stride: int):
        super().__init__()
        self.c_out, self.stride = c_out, stride

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, 0, self.c_out - x.shape[1]))


class ProjectionShortcut(nn.Sequential):
    """Option B: a strided 1x1 convolution and batch norm; (B, c_in, H, W) -> (B, c_out, H/stride, W/stride)."""

    def __init__(self, c_in: int, c_out: int, stride: int, norm: bool = True):
        super().__init__(
            nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out) if norm else nn.Identity()
        )


class BasicBlock(nn.Module):
    """y = ReLU(F(x) + shortcut(x)) with F two 3x3 convolutions, each followed by batch norm (section 3.1).

    (B, c_in, H, W) -> (B, c_out, H/stride, W/stride). `shortcut`: "A", "B" or None, which leaves the plain pair of
    convolutions. `norm=False` drops batch norm. `zero_init` starts the last gamma at 0, so that a block whose shapes
    agree begins as ReLU(x) (Goyal et al. 2017, arXiv 1706.02677, section 5.1).
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        stride: int = 1,
        shortcut: str | None = "A",
        norm: bool = True,
        zero_init: bool = False,
    ):
        super().__init__()
        if shortcut not in ("A", "B", None):
            raise SettingError(f"shortcut is {shortcut!r}; expected 'A' (zero padding), 'B' (projection) or None.")
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=not norm)
        self.bn1 = nn.BatchNorm2d(c_out) if norm else nn.Identity()
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1, bias=not norm)
        self.bn2 = nn.BatchNorm2d(c_out) if norm else nn.Identity()
        if shortcut is None:
            self.shortcut = None
        elif stride == 1 and c_in == c_out:
            self.shortcut = nn.Identity()
        elif shortcut == "A":
            self.shortcut = ZeroPadShortcut(c_out, stride)
        else:
            self.shortcut = ProjectionShortcut(c_in, c_out, stride, norm)
        if zero_init and norm:
            nn.init.zeros_(self.bn2.weight)

    def branch(self, x: Tensor) -> Tensor:
        """F(x): what the block adds to its input."""
        return self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))

    def forward(self, x: Tensor) -> Tensor:
        change = self.branch(x)
        return F.relu(change if self.shortcut is None else change + self.shortcut(x))


def blocks_per_stage(depth: int) -> int:
    """n in depth = 6n + 2: three stages of n blocks of two convolutions, one convolution before, one linear layer
    after. Raises SettingError for a depth that is not of this form."""
    if depth < 8 or (depth - 2) % 6:
        raise SettingError(f"depth is {depth}; a network of this family has 6n + 2 layers: 8, 14, 20, 32, 44, 56, 110.")
    return (depth - 2) // 6


class CifarResNet(nn.Module):
    """The 6n+2 layer network for small pictures: (B, 3, H, W) -> logits (B, classes).

    `width`, 2`width`, 4`width` channels in three stages (16, 32, 64 in the paper); `shortcut=None` gives the plain
    network of the same depth. He initialisation (arXiv 1502.01852).
    """

    def __init__(
        self,
        depth: int = 20,
        classes: int = 10,
        width: int = 16,
        shortcut: str | None = "A",
        norm: bool = True,
        zero_init: bool = False,
    ):
        super().__init__()
        n = blocks_per_stage(depth)
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=not norm)
        self.bn1 = nn.BatchNorm2d(width) if norm else nn.Identity()
        blocks, c_in = [], width
        for stage, c_out in enumerate((width, 2 * width, 4 * width)):
            for position in range(n):
                stride = 2 if stage > 0 and position == 0 else 1
                blocks.append(BasicBlock(c_in, c_out, stride, shortcut, norm, zero_init))
                c_in = c_out
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(c_in, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))  # (B, width, H, W)
        x = self.blocks(x)  # (B, 4 width, H/4, W/4)
        return self.fc(x.mean((2, 3)))  # (B, classes)


class FastResNet(nn.Module):
    """A shallow residual network that learns much per second: (B, 3, 32, 32) -> logits (B, classes).

    Four convolutions that widen and pool, two residual pairs between them, the maximum over the map, one linear
    layer with a fixed output scale (the shape of D. Page's "How to train your ResNet", 2018). `width` 64 is the
    GPU size, 16 the CPU size.
    """

    def __init__(self, classes: int = 10, width: int = 64):
        super().__init__()
        w = width
        self.features = nn.Sequential(
            _conv(3, w),
            _conv(w, 2 * w, pool=True),
            _Residual(2 * w),
            _conv(2 * w, 4 * w, pool=True),
            _conv(4 * w, 8 * w, pool=True),
            _Residual(8 * w),
        )
        self.fc = nn.Linear(8 * w, classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return 0.125 * self.fc(self.features(x).amax((2, 3)))


def _conv(c_in: int, c_out: int, pool: bool = False) -> nn.Sequential:
    layers = [nn.Conv2d(c_in, c_out, 3, padding=1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU()]
    return nn.Sequential(*layers[:1], *([nn.MaxPool2d(2)] if pool else []), *layers[1:])


class _Residual(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.branch = nn.Sequential(_conv(width, width), _conv(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)

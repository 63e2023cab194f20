"""Lesson 05: encoders, projection heads, and both together (Chen et al. 2020, arXiv 2002.05709)."""

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import SettingError
from .resnet import BasicBlock, FastResNet

HEADS = ("none", "linear", "mlp")


class SmallEncoder(nn.Module):
    """The body of lesson 01's FastResNet and the maximum over its map: (B, 3, H, W) -> h (B, 8 width).

    `out_features` is the length of h.
    """

    def __init__(self, width: int = 16):
        super().__init__()
        self.features = FastResNet(width=width).features
        self.out_features = 8 * width

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x).amax((2, 3))


class ResNet18(nn.Module):
    """ResNet-18 for small pictures: (B, 3, H, W) -> h (B, 8 width), the mean over the last map.

    The stem is one 3x3 convolution with stride 1 and there is no max-pooling (SimCLR, appendix B.9); then come four
    stages of two blocks, `width` to 8 `width` channels, shortcuts of option B. No classifier. `out_features` is the
    length of h.
    """

    def __init__(self, width: int = 64):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        blocks, c_in = [], width
        for stage in range(4):
            c_out = width * 2**stage
            blocks += [BasicBlock(c_in, c_out, 1 if stage == 0 else 2, "B"), BasicBlock(c_out, c_out, 1, "B")]
            c_in = c_out
        self.blocks = nn.Sequential(*blocks)
        self.out_features = c_in
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(F.relu(self.bn1(self.conv1(x)))).mean((2, 3))


class ProjectionHead(nn.Sequential):
    """The head g of z = g(h): (B, width) -> (B, out), not yet normalised.

    `kind` "none": z = h, and `out` is ignored; "linear": z = W h + b; "mlp": z = W2 ReLU(W1 h + b1) + b2 with `hidden`
    numbers between (section 2.1; the comparison of the three is figure 8). `norm` puts batch norm behind each linear
    layer, which then has no bias, as the authors' code does. `out_features` is the length of z. Raises SettingError
    for another kind.
    """

    def __init__(self, width: int, kind: str = "mlp", hidden: int | None = None, out: int = 64, norm: bool = False):
        if kind not in HEADS:
            raise SettingError(f"kind is {kind!r}; expected one of {', '.join(HEADS)}.")
        hidden = hidden or width
        sizes = {"none": [], "linear": [(width, out)], "mlp": [(width, hidden), (hidden, out)]}[kind]
        layers: list[nn.Module] = []
        for c_in, c_out in sizes:
            layers += [nn.ReLU()] if layers else []
            layers += [nn.Linear(c_in, c_out, bias=not norm)] + ([nn.BatchNorm1d(c_out)] if norm else [])
        super().__init__(*layers)
        self.out_features = out if layers else width


class SimCLR(nn.Module):
    """An encoder f and a head g: (B, 3, H, W) -> z = g(f(x)), (B, out), which the loss normalises.

    `encoder` is a module (B, 3, H, W) -> h (B, encoder.out_features), and what is kept; the other arguments are those
    of ProjectionHead.
    """

    def __init__(
        self, encoder: nn.Module, head: str = "mlp", hidden: int | None = None, out: int = 64, norm: bool = False
    ):
        super().__init__()
        self.encoder = encoder
        self.head = ProjectionHead(encoder.out_features, head, hidden, out, norm)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x))

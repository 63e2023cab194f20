# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["workshop", "slide"]
# # 01 · ResNet: how adding the input back cured depth
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/vision-to-language/vision-to-language/blob/main/notebooks/01_resnet.ipynb)
#
# **The claim.** Stack more layers on a plain convolutional network and it fits its own *training* data worse. Let each pair of layers learn only the *change* to its input, and the damage is gone. (He, Zhang, Ren & Sun, 2016, [arXiv 1512.03385](https://arxiv.org/abs/1512.03385))
#
# **What you will have at the end.** A residual network built from a toy tensor, equal to torchvision's to the last digit; four networks of 20 and 56 layers trained side by side on your machine; and an experiment that shows what it costs a convolutional network to see far, which is why lesson 02 exists.
#
# **Where we are.** This is the first of eleven lessons. Next: 02, ViT. You need Python and a first acquaintance with PyTorch.
#
# | section | minutes of reading | in the 45-minute cut |
# |---|---|---|
# | 1 Pictures and convolutions | 12 | the pictures |
# | 2 The block, in four passes | 15 | passes 1 and 4 |
# | 3 Deeper and worse, deeper and cured | 15 | yes |
# | 4 Why? | 12 | |
# | 5 Train well | 8 | |
# | 6 Look inside, and where it falls short | 15 | the last part |
# | 7 Claims and exercises | 10, then 60 to 120 of practice | exercise 1.4 |

# %% tags=["setup", "workshop"]
import importlib.util, subprocess, sys
if importlib.util.find_spec("lessons") is None:
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "git+https://github.com/vision-to-language/vision-to-language@main"], check=True)

# %% tags=["setup", "workshop"]
import math
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

import lessons
from lessons import augment, claims, data, figures, probes, training
from lessons.exercises import check, hint, solution

run = lessons.start(1)
print(claims.reference_times(1))

# %% [markdown] tags=["workshop"]
# ## 1 Pictures and convolutions
#
# Look at the data before any definition. Each picture is three grids of numbers between 0 and 255: red, green, blue. The name above it is what the network has to say. Would you manage at this size?

# %% tags=["workshop"]
pictures = data.pictures(
    source=run.source, world="things", device=run.device,
    train=run.pick(smoke=1_000, cpu=30_000, gpu=None), val=run.pick(smoke=200, cpu=2_000, gpu=5_000),
    test=run.pick(smoke=200, cpu=2_000, gpu=None),
)
names = pictures.train.classes
print(f"{len(pictures.train):,} to train on, {len(pictures.val):,} to choose by, {len(pictures.test):,} for the final "
      f"number")
figures.grid(pictures.train.images[:16], [names[k] for k in pictures.train.labels[:16]], columns=8);

# %% [markdown]
# A **convolution** slides one small table of weights over the picture. At each place it multiplies, adds up, and writes one number. With $w$ the kernel and $x$ the picture:
#
# $$y_{i,j} = \sum_{a,b} w_{a,b}\; x_{i+a,\,j+b}$$
#
# Take a picture small enough to check by eye: dark on the left, bright on the right. The kernel asks "is it brighter to my right than to my left?"

# %%
toy = torch.tensor([[0., 0., 0., 1., 1., 1.]] * 4)   # four equal rows: three dark pixels, then three bright ones
kernel = torch.tensor([[-1., 0., 1.]] * 3)           # three equal rows: right minus left
by_hand = (kernel * toy[0:3, 1:4]).sum()  # the window around row 1, column 2
print("one output value:", by_hand.item(), "= 3 bright pixels on its right, none on its left")


# %%
def convolve(x, w):
    """The sum above as plain loops: x (H, W), w (k, k) -> (H - k + 1, W - k + 1)."""
    k = len(w)
    y = torch.zeros(x.shape[0] - k + 1, x.shape[1] - k + 1)
    for i in range(y.shape[0]):
        for j in range(y.shape[1]):
            y[i, j] = (w * x[i : i + k, j : j + k]).sum()
    return y


looped = convolve(toy, kernel)
vectorised = F.conv2d(toy[None, None], kernel[None, None])[0, 0]  # (1, 1, H, W) in, (1, 1, H-2, W-2) out
print(looped)
print("loops and F.conv2d agree:", torch.equal(looped, vectorised))

# %% [markdown]
# The answer is large at the edge and zero elsewhere. The same nine weights looked everywhere: that is the **inductive bias** of a convolution, local and the same at every place.
#
# Local also means short-sighted. How much of the picture does one output value see after several layers? Ask the gradient: every input pixel that can change the output has a non-zero derivative.
#
# *Predict first:* each 3×3 layer adds how many pixels to the width of that window?
#
# <details><summary>Answer</summary>Two, one on each side: 3, 5, 9 and 17 pixels after 1, 2, 4 and 8 layers. A stride of 2 doubles the step of every layer after it, which is how ResNet-20 comes to see 81 pixels.</details>

# %%
def window(*strides):
    """Which pixels of a 33 x 33 input can change the central output of 3x3 layers: (33, 33), 0 or 1."""
    x = torch.zeros(1, 1, 33, 33, requires_grad=True)
    y = x
    for stride in strides:
        y = F.conv2d(y, torch.ones(1, 1, 3, 3), stride=stride, padding=1)
    y[0, 0, y.shape[2] // 2, y.shape[3] // 2].backward()
    return (x.grad[0, 0] != 0).float()


stacks = {"1 layer": [1], "2 layers": [1] * 2, "4 layers": [1] * 4, "8 layers": [1] * 8, "4, one strided": [1, 2, 1, 1]}
seen = torch.stack([window(*strides) for strides in stacks.values()])
figures.maps(seen, [f"{name}: {int(view.any(0).sum())} px" for name, view in zip(stacks, seen)], columns=5, width=1.4);

# %% [markdown] tags=["workshop"]
# Depth buys reach. So does a stride: the last map has four layers and sees as far as six would. Remember the short reach of shallow networks; section 6 comes back to it.
#
# ## 2 The block, in four passes
#
# A plain pair of layers computes $y = \mathrm{ReLU}(F(x))$. The residual block adds its input back:
#
# $$y = \mathrm{ReLU}\big(F(x) + x\big), \qquad F(x) = W_2\,\mathrm{ReLU}(W_1 x)$$
#
# $F$ no longer has to produce the whole output. It has to produce the *change*. If the best change is none, weights of zero will do; a plain pair would have to learn the identity.
#
# **Pass 1, by hand.** One position, three channels that have names.

# %% tags=["workshop"]
x = torch.tensor([2.0, 0.5, 1.0])        # edge, corner, dot: what the block receives
change = torch.tensor([-0.5, 1.0, 0.0])  # F(x): a little less edge, a corner found, dot untouched
print("plain:   ", F.relu(change).tolist(), "  the edge is lost, the dot is lost")
print("residual:", F.relu(change + x).tolist(), "  the edge is still there, corrected downwards")

# %% [markdown]
# The branch was negative at the edge and could take something away. Put a ReLU on the branch *before* the addition, a popular mistake, and a block can only ever add.
#
# **Pass 2, as plain loops** over channels, with the `convolve` from above. Batch norm comes in pass 4.

# %%
def block_loops(x, w1, w2):
    """y = ReLU(F(x) + x) for one picture: x (C, H, W), w1 and w2 (C, C, 3, 3) -> (C, H, W)."""
    def layer(x, w):
        padded = F.pad(x, (1, 1, 1, 1))
        return torch.stack([sum(convolve(padded[c], w[o, c]) for c in range(len(x))) for o in range(len(w))])

    change = layer(layer(x, w1).clamp(min=0), w2)  # (C, H, W)
    return (change + x).clamp(min=0)


# %% [markdown]
# **Pass 3, vectorised.** The same equation in one line, read from the inside out. Then both on the same numbers.

# %%
def block(x, w1, w2):
    """The same for a batch: x (B, C, H, W)."""
    return F.relu(F.conv2d(F.relu(F.conv2d(x, w1, padding=1)), w2, padding=1) + x)


x = torch.randn(2, 5, 6)                              # (C, H, W)
w1, w2 = torch.randn(2, 2, 2, 3, 3)                   # (C, C, 3, 3) each
print("largest difference:", f"{(block_loops(x, w1, w2) - block(x[None], w1, w2)[0]).abs().max():.0e}")
print("the same:", torch.allclose(block_loops(x, w1, w2), block(x[None], w1, w2)[0], atol=1e-5))

# %% [markdown] tags=["workshop"]
# **Pass 4, as a module.** Three things join. *Batch norm* after each convolution keeps the numbers in range. A *stride* of 2 halves the picture at the start of a stage, while the channels double. Then $x$ and $F(x)$ differ in shape, so the **shortcut** has to change too: option A takes every second pixel and fills the new channels with zeros, option B projects with a 1×1 convolution.

# %% tags=["workshop"]
class Block(nn.Module):
    """(B, c_in, H, W) -> (B, c_out, H/stride, W/stride). option "A", "B", or None for the plain pair."""

    def __init__(self, c_in, c_out, stride=1, option="A"):
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False)  # no bias: batch norm has one
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.option, self.stride, self.extra = option, stride, c_out - c_in
        if option == "B" and (stride > 1 or self.extra):
            self.shortcut = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))

    def skip(self, x):
        if hasattr(self, "shortcut"):
            return self.shortcut(x)                                      # option B
        x = x[:, :, :: self.stride, :: self.stride]                      # option A: every second pixel
        return F.pad(x, (0, 0, 0, 0, 0, self.extra))                     # (B, c_out, H/stride, W/stride)

    def forward(self, x):
        change = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))   # F(x)
        return F.relu(change if self.option is None else change + self.skip(x))


# %% [markdown] tags=["workshop"]
# Is it right? Others rely on torchvision's block. Give both the same weights, move batch norm away from its defaults, and compare in training mode and in evaluation mode.

# %% tags=["workshop", "nbval-check-output"]
from lessons.compat import import_torchvision

torchvision = import_torchvision()
Peer = torchvision.models.resnet.BasicBlock
for c_in, c_out, stride in ((4, 4, 1), (4, 8, 2)):
    ours = Block(c_in, c_out, stride, option="B")
    for parameter in ours.parameters():
        nn.init.normal_(parameter, 0.5)
    projection = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))
    peer = Peer(c_in, c_out, stride, projection if stride > 1 else None)
    peer.load_state_dict({key.replace("shortcut", "downsample"): value for key, value in ours.state_dict().items()})
    x = torch.randn(3, c_in, 8, 8)
    same = [torch.allclose(ours.train(mode)(x), peer.train(mode)(x), atol=1e-6) for mode in (True, False)]
    print(f"{c_in} -> {c_out} channels: equal to torchvision in train mode {same[0]}, in eval mode {same[1]}")

# %% [markdown] tags=["workshop"]
# The network is the block, repeated. One convolution, three **stages** of $n$ blocks at full, half and quarter size, the average over the map, one linear layer: $6n+2$ layers with weights. The tested form of it is `CifarResNet` in `lessons/nets/resnet.py`, about as long as what you just read. Its blocks and ours give the same numbers, and its parameter counts are the paper's.

# %% tags=["workshop", "nbval-check-output"]
from lessons.nets.resnet import BasicBlock, CifarResNet, FastResNet

for option in ("A", "B", None):
    ours, tested = Block(4, 8, 2, option), BasicBlock(4, 8, 2, option)
    tested.load_state_dict(ours.state_dict())
    x = torch.randn(2, 4, 8, 8)
    print(f"option {option}: the notebook's block equals the package's:", torch.equal(ours(x), tested(x)))

for depth in (20, 32, 56, 110):
    a, b = (sum(p.numel() for p in CifarResNet(depth, shortcut=option).parameters()) for option in "AB")
    print(f"ResNet-{depth:<3} n = {(depth - 2) // 6:2}   option A {a:9,} parameters   option B {b:9,}")

# %% [markdown] tags=["workshop"]
# ## 3 Deeper and worse, deeper and cured
#
# Before a long training, a short one: can the network learn 64 pictures by heart? If not, no amount of data will help. Here is the whole training loop, once, in the open. From then on `lessons.fit` is this loop, with a progress bar, a learning-rate schedule and a stop button. Nothing else is hidden in it: from the same weights it takes the same steps.

# %% tags=["workshop"]
def small_network():
    torch.manual_seed(run.seed)
    net = CifarResNet(8, classes=len(names), width=8).to(run.device)
    return net, torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)


images, labels = training.to_input(pictures.train.images[:64]), pictures.train.labels[:64]   # (64, 3, 32, 32), (64,)
net, optimizer = small_network()
losses = []
for step in range(run.pick(smoke=10, cpu=80, gpu=80)):
    loss = F.cross_entropy(net(images), labels)  # how surprised is the network by the right answers?
    loss.backward()                              # which way does each weight have to go?
    optimizer.step()                             # go a little that way
    optimizer.zero_grad()
    losses.append(loss.item())
print(f"guessing costs ln {len(names)} = {math.log(len(names)):.2f}; loss at first {losses[0]:.2f}, at last "
      f"{losses[-1]:.3f}")

net, optimizer = small_network()
repeated = [(images, labels)] * 5
history = lessons.fit(net, training.cross_entropy, repeated, steps=5, optimizer=optimizer, shape="constant", warmup=0)
print("lessons.fit takes the same first five steps:", all(abs(a - b) < 1e-3 for a, b in zip(history.loss, losses)))

# %% [markdown] tags=["workshop", "slide"]
# Now the experiment of the paper, made small enough for this machine. Four networks: 20 and 56 layers, plain and residual. Each sees exactly the same batches. We compare the **training** loss, because that is the point: a deeper network that merely overfits would have a *lower* one.
#
# *Predict first:* the 56-layer plain network contains the 20-layer one; set 36 layers to the identity and they are equal. So its training loss should be...
#
# <details><summary>Answer</summary>...at least as low, if the optimiser could find that solution. It does not find it. He et al. call this <b>degradation</b>. It is a failure of optimisation, not of capacity and not of generalisation.</details>

# %% tags=["workshop"]
def shrink(split):
    """The same pictures at half the width and height, to train four networks in a minute or two."""
    return replace(split, images=F.avg_pool2d(split.images.float(), 2).round().to(torch.uint8))  # (N, 3, 16, 16)


near = data.pictures(
    source=run.source, world="close_ups", device=run.device, seed=1, val=200,
    train=run.pick(smoke=1_000, cpu=20_000, gpu=None), test=200,
)
train_set = run.pick(smoke=shrink, cpu=shrink, gpu=lambda split: split)(near.train)


# %% tags=["workshop"]
KINDS = {"plain-20": (20, None), "plain-56": (56, None), "ResNet-20": (20, "A"), "ResNet-56": (56, "A")}
STEPS, SEEDS = run.pick(smoke=6, cpu=200, gpu=2_000), run.pick(smoke=(0,), cpu=(0, 1, 2), gpu=(0, 1, 2))


def prepare(depth, shortcut, seed, width, pictures, steps, title, lr, shape):
    """A fresh network, and the job of training it on `pictures`."""
    torch.manual_seed(seed)
    net = CifarResNet(depth, classes=len(pictures.classes), width=width, shortcut=shortcut)
    net = run.place(net, "conv")
    optimizer = torch.optim.SGD(training.parameter_groups(net, 1e-4), lr=lr, momentum=0.9)
    settings = {"steps": steps, "optimizer": optimizer, "shape": shape, "precision": run.precision("conv"),
                "title": title}
    return net, partial(lessons.fit, net, training.cross_entropy, training.batches(pictures, 128, seed=seed),
                        **settings)


runs = [(kind, seed) for seed in SEEDS for kind in KINDS]
width = run.pick(smoke=8, cpu=8, gpu=16)
pairs = [prepare(*KINDS[kind], seed, width, train_set, STEPS, f"{kind}, seed {seed}", 0.05, "step")
         for kind, seed in runs]
histories = dict(zip(runs, training.side_by_side([job for _, job in pairs], run.device)))
nets = {key: net for key, (net, _) in zip(runs, pairs)}
final = {kind: [histories[kind, seed].last(min(30, STEPS)) for seed in SEEDS] for kind in KINDS}
print("training loss of the last 30 steps, one value per seed")
for kind, values in final.items():
    print(f"{kind:10}", "  ".join(f"{value:.2f}" for value in values))

# %% [markdown] tags=["workshop"]
# Watch the two dark lines, the 56-layer networks, against the two light ones. On the left nothing is added back; on the right it is.

# %% tags=["workshop", "slide"]
plt = figures.pyplot()
_, axes = plt.subplots(1, 2, figsize=(9.6, 3.8), sharey=True)
look = {"20 layers": {"color": figures.SKY}, "56 layers": {"color": figures.BLUE}}
for axis, family in zip(axes, ("plain", "ResNet")):
    mean = lambda kind: torch.tensor([histories[kind, seed].smooth(20) for seed in SEEDS]).mean(0).tolist()
    rise = (torch.tensor(final[f"{family}-56"]) - torch.tensor(final[f"{family}-20"])).mean()    # what depth costs
    title = {"plain": "Plain: the deeper network fits worse", "ResNet": "Residual: depth does little harm"}[family]
    title = title if (rise > 0.2) == (family == "plain") else f"{family}: depth changes the loss by {rise:+.2f}"
    lines = {"20 layers": mean(f"{family}-20"), "56 layers": mean(f"{family}-56")}
    figures.curves(lines, title=title, baselines={"guessing": math.log(len(names))}, styles=look, axis=axis)

# %% [markdown] tags=["workshop"]
# The plain 56-layer network has hardly left the line of guessing, while 20 layers of the same kind learn. With shortcuts both learn. Same depth, same parameters, same batches; the only difference is one addition per block.
#
# Be exact about what this shows. In so few steps the shortcut takes away the *harm* of depth. That ResNet-56 also ends *below* ResNet-20, the other half of the paper, needs tens of epochs. The table in section 7 says what held here.

# %% [markdown]
# ## 4 Why? Two phenomena that are often mixed up
#
# "Residual connections let the gradient flow." Is that it? Look at the gradient of each convolution at the very start of training, from the input (left) to the output (right), in plain networks of 56 layers: with PyTorch's default initialisation, with He initialisation, and with batch norm.
#
# *Predict first:* in which of them does the gradient vanish on its way back to the first layer?

# %%
def gradient_sizes(norm, option=None, he=True):
    """Gradient norm of each convolution of a fresh 56-layer network, input first, after one backward pass."""
    torch.manual_seed(run.seed)
    net = CifarResNet(56, classes=len(names), width=8, shortcut=option, norm=norm).to(run.device)
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    for layer in [] if he else convolutions:
        layer.reset_parameters()  # PyTorch's default, smaller than He et al.'s
    F.cross_entropy(net(images), labels).backward()
    return [layer.weight.grad.norm().clamp(min=1e-30).item() for layer in convolutions]


images, labels = training.to_input(train_set.images[:128]), train_set.labels[:128]
sizes = {
    "plain, default init": gradient_sizes(norm=False, he=False),
    "plain, He init": gradient_sizes(norm=False),
    "plain, batch norm": gradient_sizes(norm=True),
    "residual, batch norm": gradient_sizes(norm=True, option="A"),
}
_, axis = plt.subplots(figsize=(7.6, 3.8))
axis.set(yscale="log", ylim=(1e-16, 1e4))
lost = [name for name, norms in sizes.items() if min(norms) < 1e-6 * max(norms)]
title = "Only the default initialisation loses the gradient"
title = title if lost == ["plain, default init"] else f"The gradient is lost in {len(lost)} of {len(sizes)} networks"
figures.curves(sizes, title=title, x="convolution, from input to output", y="gradient norm (log scale)", axis=axis);

# %% [markdown]
# In the default initialisation the gradient falls below what float32 can hold. He initialisation alone repairs that, and batch norm does too: in the very network that failed in section 3, gradients do **not** vanish. They even *grow* towards the input, an effect of batch norm in deep plain stacks (Yang et al., 2019, [arXiv 1902.08129](https://arxiv.org/abs/1902.08129)). With shortcuts they are level.
#
# So **vanishing gradients** are one phenomenon, cured by initialisation and normalisation. **Degradation** is another. The paper itself argues that vanishing is unlikely to be its cause; the "gradient highway" is the reading of the follow-up ([arXiv 1603.05027](https://arxiv.org/abs/1603.05027)).
#
# What the shortcut does give is a good place to start. Set the last batch-norm weight of each branch to zero: then $F(x) = 0$, and a block is exactly its input, because that input has just been through a ReLU.

# %% tags=["nbval-check-output"]
torch.manual_seed(0)
start = CifarResNet(56, width=8, zero_init=True).to(run.device)
x = F.relu(start.bn1(start.conv1(images)))                       # (128, 8, H, W), what the first stage receives
print("nine blocks later, bit for bit the same:", torch.equal(start.blocks[:9](x), x))
plain = CifarResNet(56, width=8, shortcut=None).to(run.device)
print("nine plain pairs later, the same:       ", torch.equal(plain.blocks[:9](x), x))

# %% [markdown]
# A network of 56 layers can begin as a shallow one and grow into its depth. After training, do the branches stay small? Measure the deviation of $F(x)$ relative to that of $x$, block by block.

# %%
@torch.no_grad()
def branch_sizes(net, images):
    """std F(x) / std x of each block, in evaluation mode."""
    net.eval()
    x, ratios = F.relu(net.bn1(net.conv1(images))), []
    for one in net.blocks:
        ratios.append((one.branch(x).std() / x.std()).item())
        x = one(x)
    return ratios


branch, lines = {}, {}
for kind in ("ResNet-20", "ResNet-56"):
    branch[kind] = torch.tensor([branch_sizes(nets[kind, seed], images) for seed in SEEDS])  # (seeds, blocks)
    lines[kind] = (torch.linspace(0, 1, branch[kind].shape[1]).tolist(), branch[kind].mean(0).tolist())
dots = {kind: {"marker": "o", "markersize": 4} for kind in lines}
less = branch["ResNet-56"].mean() < branch["ResNet-20"].mean()
title = "Each block of the deeper network changes less" if less else "A block of the deeper network changes as much"
figures.curves(lines, title=title, x="depth, from first block (0) to last (1)", y="std F(x) / std x", styles=dots);

# %% [markdown]
# Within a stage the stream $x$ grows with every addition, so each further branch matters less; the peaks are the two strided blocks, where the stage changes. With three times as many blocks, each does a smaller part of the work.
#
# ## 5 Train well
#
# Depth is not the only way to use a residual connection. `FastResNet` is shallow and wide: four convolutions, two residual pairs, the maximum over the map. Random crops and flips, a warm-up and a linear decay make the most of a short training. The weaker baseline is a vote of the nearest training pictures, pixel by pixel; the control is the same network on shuffled labels, which has nothing to learn.

# %%
def train_fast(split, title, steps):
    torch.manual_seed(run.seed)
    net = run.place(FastResNet(len(names), width=run.pick(smoke=4, cpu=16, gpu=64)), "conv")
    size = run.pick(smoke=64, cpu=128, gpu=512)
    optimizer = torch.optim.SGD(training.parameter_groups(net, 5e-4), lr=0.4, momentum=0.9, nesterov=True)
    batches = training.batches(split, size, seed=run.seed, augment=augment.crop_flip)
    loss = lambda net, batch: F.cross_entropy(net(batch[0]), batch[1], label_smoothing=0.1)
    settings = {"steps": steps, "shape": "linear", "warmup": 0.2, "title": title}
    train = partial(lessons.fit, net, loss, batches, optimizer=optimizer, precision=run.precision("conv"), **settings)
    settings |= {"data": split.name, "pictures": len(split), "batch": size, "seed": run.seed}
    return net, training.remember(f"01-{title}", net, settings, train)  # a second run loads it instead


best, best_history = train_fast(pictures.train, "fast", run.pick(smoke=6, cpu=800, gpu=2_400))
val, test = training.accuracy(best, pictures.val), training.accuracy(best, pictures.test)
print(f"FastResNet: test {100 * test:.1f} %, val {100 * val:.1f} %, trained in {best_history.seconds:.0f} s")

# %%
bank = pictures.train[: run.pick(smoke=500, cpu=10_000, gpu=50_000)]
flat = lambda part: training.to_input(part.images).flatten(1)                       # (N, 3 * 32 * 32)
pixels = probes.knn_accuracy(flat(bank), bank.labels, flat(pictures.test), pictures.test.labels)
shuffled = replace(pictures.train, labels=pictures.train.labels.roll(1))  # every picture gets its neighbour's label
control, _ = train_fast(shuffled, "control", run.pick(smoke=6, cpu=150, gpu=600))
scores = {"FastResNet": test, "nearest neighbours of pixels": pixels,
          "shuffled labels": training.accuracy(control, pictures.test)}
title = f"Test accuracy on {pictures.train.name}"
figures.bars(scores, title=title, controls=["shuffled labels"], marks={"chance": 1 / len(names)});

# %% [markdown]
# The control stays at chance, so nothing leaks from the labels into the score. What the paper calls a good network and what fits into minutes are different things; the reference runs in section 7 say how far each scale gets.
#
# ## 6 Look inside, and where it falls short
#
# What did it learn? The first layer's filters are small enough to look at. Further in, weights say little; activations say more. Turn the two controls: early maps keep the outline of the picture, later ones keep only *where something important is*.

# %%
filters = best.features[0][0].weight.detach().float().cpu()                        # (width, 3, 3, 3)
low, high = filters.amin((1, 2, 3), keepdim=True), filters.amax((1, 2, 3), keepdim=True)
title = "Filters of the first layer: edges and colour differences"
figures.grid(((filters - low) / (high - low))[:16], columns=16, width=0.6, title=title)


@torch.no_grad()
def show_maps(picture=3, stage=1):
    """One picture and the six strongest channels after one of the six stages of the network."""
    image = pictures.test.images[picture : picture + 1]
    maps = best.eval().features[:stage](training.to_input(image))[0].float().cpu()   # (C, H, W)
    strongest = maps.amax((1, 2)).topk(min(6, len(maps))).indices
    _, axes = figures.panels(1, 7, width=1.2, height=1.4)
    axes[0].imshow(figures.to_image(image[0]))
    axes[0].set_title(names[pictures.test.labels[picture]], fontsize=9)
    for axis, channel in zip(axes[1:], strongest.tolist()):
        axis.imshow(maps[channel])
        axis.set_title(f"stage {stage}, {channel}", fontsize=8, fontweight="normal", loc="center")
    plt.show()


show_maps(stage=1)
show_maps(stage=4)
figures.explore(show_maps, picture=(3, 40), stage=[6, 1, 2, 3, 4, 5])

# %% [markdown]
# A convolution treats all places alike, so a shifted picture should give a shifted map: **equivariance**. The popular sentence stops there. Test it, with its limits.

# %% tags=["nbval-check-output"]
def commutes(layer, shift):
    """Does shifting the input by `shift` pixels only shift the output?"""
    x = torch.randn(1, 3, 16, 16)
    stride = layer.stride[0]
    ours = layer(x.roll(shift, 3)).roll(-(shift // stride), 3)
    return torch.allclose(ours, layer(x), atol=1e-5)


circular = dict(padding=1, padding_mode="circular")
print("stride 1, border wraps around, shift 1:", commutes(nn.Conv2d(3, 4, 3, **circular), 1))
print("stride 2, border wraps around, shift 2:", commutes(nn.Conv2d(3, 4, 3, 2, **circular), 2))
print("stride 2, border wraps around, shift 1:", commutes(nn.Conv2d(3, 4, 3, 2, **circular), 1))
print("stride 1, zeros at the border, shift 1:", commutes(nn.Conv2d(3, 4, 3, padding=1), 1))

# %% [markdown]
# Exact in the first two cases, broken by stride and by the border in the others. Equivariance is a property of the layer, not quite of the network.

# %% [markdown] tags=["workshop"]
# **Where it falls short.** Ask a question about two places at once: are the two objects of the same colour? Each colour is easy, wherever it is. The *relation* needs both in one view. We train two residual networks, one that sees 25 pixels and one that sees 81, and sort their mistakes by the distance of the objects.
#
# *Predict first:* what does the short-sighted one do when the objects are far apart?

# %% tags=["workshop"]
from lessons.data.scenes import WORLDS, render

count = run.pick(smoke=600, cpu=12_000, gpu=40_000)
two = replace(WORLDS["pairs"], objects=(2, 2), colours=("red", "blue"), patterns=("plain",), distinct=False,
              size=(0.17, 0.22), x=(-0.78, 0.78), y=(-0.78, 0.78))
scenes = render(two, count + run.pick(smoke=400, cpu=4_000, gpu=4_000), seed=2, device=run.device)
same = (scenes.colour[:, 0] == scenes.colour[:, 1]).long()                          # (N,) 1: the same colour
across, down = scenes.x[:, 0] - scenes.x[:, 1], scenes.y[:, 0] - scenes.y[:, 1]
distance = 16 * torch.hypot(across, down)                                           # (N,) in pixels
relation = data.Pictures(scenes.images, same, ("different", "same"), "scenes", "built-in scenes")
figures.grid(relation.images[:8], [relation.classes[k] for k in same[:8]], columns=8);

# %% tags=["workshop"]
width, steps = run.pick(smoke=4, cpu=8, gpu=16), run.pick(smoke=6, cpu=300, gpu=1_000)
readers = {"ResNet-8, sees 25 px": 8, "ResNet-20, sees 81 px": 20}
pairs = [prepare(depth, "A", run.seed, width, relation[:count], steps, name, 0.1, "linear")
         for name, depth in readers.items()]
training.side_by_side([job for _, job in pairs], run.device)
right = {}
for name, (net, _) in zip(readers, pairs):
    right[name] = (training.predict(net, relation.images[count:]).argmax(1) == same[count:]).cpu()

far = distance[count:].cpu()
edges = [6, 9, 12, 15, 18, 21, 30]
bins = [(far >= low) & (far < high) for low, high in zip(edges, edges[1:])]
middle = [(low + high) / 2 for low, high in zip(edges, edges[1:])]
lines = {name: (middle, [100 * hits[part].float().mean().item() for part in bins]) for name, hits in right.items()}
title, dots = "The shorter the view, the nearer two objects must be", {name: {"marker": "o"} for name in right}
x, y = "distance of the two objects (pixels)", "right answers (%)"
figures.curves(lines, title=title, x=x, y=y, baselines={"guessing": 50}, styles=dots);

# %% [markdown] tags=["workshop"]
# The short-sighted network is good at neighbours and loses its way with distance; the deep one is not. So a convolutional network *can* relate distant places, but it has to buy the reach with layers, each of them local. Lesson 02 starts from the other end: a layer in which every place sees every other from the first.
#
# ## 7 What the paper says, what we measured
#
# The verdicts are computed from the numbers above: an effect counts when it exceeds its spread over three seeds (95 % interval), or twice its standard error where there is one run. "Too small to tell" is a verdict too. Our setting differs from the paper's. At cpu scale the four networks have half its width, pictures of half the size, and a few hundred steps instead of 64,000. Compare directions, not figures.

# %%
table = claims.Claims(run, data=pictures.train.name)
mean = lambda values: sum(values) / len(values)
gap = lambda a, b: [x - y for x, y in zip(final[a], final[b])]                      # one difference per seed
judge = lambda effects: claims.verdict(effects) if len(SEEDS) > 1 else claims.UNJUDGED
both = lambda a, b: f"{a} {mean(final[a]):.2f}, {b} {mean(final[b]):.2f} after {STEPS:,} steps"
plain, residual = gap("plain-56", "plain-20"), gap("ResNet-56", "ResNet-20")
table.add(
    "degradation", "A deeper plain network has a higher training loss.",
    paper="plain-56 above plain-20 on CIFAR-10, training error too (Fig. 1; curves, no table)",
    here=both("plain-56", "plain-20"), verdict=judge(plain),
)
table.add(
    "cure", "At 56 layers, shortcuts lower the training loss.",
    paper="plain-56 above ResNet-56 (Fig. 6; curves)",
    here=both("plain-56", "ResNet-56"), verdict=judge(gap("plain-56", "ResNet-56")),
)
table.add(
    "gap", "Depth costs a residual network less than a plain one.",
    paper="the order is reversed: test error 6.97 % at 56 layers, 8.75 % at 20",
    here=f"56 against 20 layers: plain {mean(plain):+.2f}, residual {mean(residual):+.2f}",
    verdict=judge([a - b for a, b in zip(plain, residual)]),
)
table.add(
    "deeper", "The deeper residual network is also the better one.",
    paper="6.97 % against 8.75 % test error after 64,000 steps",
    here=both("ResNet-56", "ResNet-20"), verdict=judge([-cost for cost in residual]),
)

# %%
at20, at56 = branch["ResNet-20"].mean(1), branch["ResNet-56"].mean(1)               # (seeds,) each
table.add(
    "branches", "Blocks of the deeper network change their input less.",
    paper="smaller responses with more layers (Fig. 7)",
    here=f"mean std F(x) / std x: {at56.mean():.2f} at 56 layers, {at20.mean():.2f} at 20",
    verdict=judge((at20 - at56).tolist()),
)
ratio = sizes["plain, batch norm"][0] / sizes["plain, batch norm"][-1]
table.add(
    "gradients", "With batch norm, the plain network's gradients do not vanish.",
    paper="vanishing gradients are an unlikely cause (section 4.1)",
    here=f"plain-56 at the start: the first layer's gradient is {ratio:.0f} times the last layer's",
    verdict=ratio > 0.1,
)
error = lambda *shares: math.hypot(*(claims.share_error(*share) for share in shares))
table.add(
    "accuracy", "A residual network classifies better than its pixels do.",
    paper="ResNet-20 91.25 %, ResNet-110 93.57 % on CIFAR-10",
    here=f"{100 * test:.1f} % against {100 * pixels:.1f} %, after {best_history.seconds:.0f} s of training",
    verdict=claims.verdict(test - pixels, error=error((test, len(pictures.test)), (pixels, len(pictures.test)))),
)
short, deep = ([(hits[part].float().mean().item(), int(part.sum())) for part in (bins[0], bins[-1])]
               for hits in right.values())
table.add(
    "reach", "A network relates two objects only within its view.",
    paper="not in the paper; an experiment on scenes",
    here=f"25 px of view: {100 * short[0][0]:.0f} % near, {100 * short[1][0]:.0f} % far; 81 px: {100 * deep[1][0]:.0f} "
         f"% far",
    verdict=claims.verdict(short[0][0] - short[1][0], error=error(*short)),
)
numbers = {kind: mean(values) for kind, values in final.items()}
for name, value in (numbers | {"accuracy": test, "val accuracy": val, "fast seconds": best_history.seconds}).items():
    table.number(name, value)
table.show()

# %% [markdown] tags=["workshop"]
# ## Exercises
#
# Write the function, run the check, read what it says. `hint("1.1")` gives three hints, one more each time; `solution("1.1")` shows one way. Nothing is lost when the kernel dies: `lessons.progress()` remembers.

# %% [markdown]
# **1.1 From depth to n** · 5 minutes · difficulty 1 of 5
#
# `depth_to_n(depth)`: an int depth → the int n with depth = 6n + 2; ValueError where there is none.

# %% tags=["exercise", "check", "nbval-check-output"]
def depth_to_n(depth):
    """The n of a network with depth = 6n + 2 layers; ValueError for a depth that is not of this form."""
    raise NotImplementedError


check("1.1", depth_to_n)

# %% [markdown]
# **1.2 Receptive field** · 10 minutes · difficulty 3 of 5
#
# `receptive_field(layers)`: a list of (kernel, stride), input first → the width in pixels that one output value sees (int). ResNet-20 sees 81.

# %% tags=["exercise", "check", "nbval-check-output"]
def receptive_field(layers):
    """Width in pixels of the input region that one output value of a stack of convolutions sees.

    layers: list of (kernel, stride), from the input to the output.
    """
    raise NotImplementedError


check("1.2", receptive_field)

# %% [markdown]
# **1.3 The shortcut without parameters** · 10 minutes · difficulty 2 of 5
#
# `zero_pad_shortcut(x, c_out, stride=2)`: (B, C, H, W) → (B, c_out, ⌈H/stride⌉, ⌈W/stride⌉), the zeros after the old channels.

# %% tags=["exercise", "check", "nbval-check-output"]
def zero_pad_shortcut(x, c_out, stride=2):
    """Option A: keep every `stride`-th row and column, append zero channels. (B, C, H, W) -> (B, c_out, ...)."""
    raise NotImplementedError


check("1.3", zero_pad_shortcut)

# %% [markdown] tags=["workshop"]
# **1.4 The residual block** · 5 minutes · difficulty 2 of 5
#
# `residual_block(x, branch, shortcut)`: x of (B, C, H, W) and two callables → ReLU(branch(x) + shortcut(x)).

# %% tags=["exercise", "check", "workshop", "nbval-check-output"]
def residual_block(x, branch, shortcut):
    """y = ReLU(branch(x) + shortcut(x)); branch and shortcut map (B, C, H, W) to tensors of one shape."""
    raise NotImplementedError


check("1.4", residual_block)

# %% [markdown]
# **1.5 Counting parameters** · 15 minutes · difficulty 3 of 5
#
# `count_parameters(n, option, width=16, classes=10)`: the trainable numbers of the network (int). For n = 3 and option A: 269,722.

# %% tags=["exercise", "check", "nbval-check-output"]
def count_parameters(n, option, width=16, classes=10):
    """Trainable numbers in the 6n + 2 layer residual network: convolutions without bias, batch norm with gamma and
    beta after each, one linear layer with bias; option "A" (zero padding) or "B" (1x1 projections with batch norm)."""
    raise NotImplementedError


check("1.5", count_parameters)

# %% [markdown]
# **1.6 The learning-rate schedule** · 5 minutes · difficulty 1 of 5
#
# `learning_rate(step, deep=False)`: step (int, from 0) → 0.1, 0.01 or 0.001 as in the paper.

# %% tags=["exercise", "check", "nbval-check-output"]
def learning_rate(step, deep=False):
    """The paper's CIFAR schedule: 0.1, divided by 10 from step 32,000 and again from step 48,000 on. A very deep
    network (deep=True) starts with 0.01 for its first 400 steps."""
    raise NotImplementedError


check("1.6", learning_rate)

# %% [markdown]
# **1.7 How much gradient arrives?** · 15 minutes · difficulty 3 of 5
#
# `gradient_norms(net, x, y)`: the L2 norm of the cross-entropy gradient of each 3×3 convolution's weight, input first → (L,).

# %% tags=["exercise", "check", "nbval-check-output"]
def gradient_norms(net, x, y):
    """L2 norm of the cross-entropy gradient of each 3x3 convolution's weight, from the input to the output: (L,)."""
    raise NotImplementedError


check("1.7", gradient_norms)

# %% [markdown]
# **1.8 Experiment: three cures for vanishing gradients** · 20 minutes · difficulty 4 of 5
#
# `gradient_reach(x, y, seed=0)`: log10 of the first over the last convolution's gradient norm in four plain networks, as a dict of four floats. "default" has PyTorch's initialisation, no batch norm, no shortcut; each of the others changes one of these. Your result is held against three other seeds.

# %% tags=["exercise", "check", "nbval-check-output"]
from lessons.nets.resnet import CifarResNet


def gradient_reach(x, y, seed=0):
    """Experiment: log10 of (gradient norm of the first convolution / of the last) at the start of training, in plain
    20-layer networks of width 8 and their cures: {"default": ..., "he": ..., "norm": ..., "shortcut": ...}."""
    raise NotImplementedError


check("1.8", gradient_reach)

# %% [markdown]
# **1.9 Your own block** · 45 minutes · difficulty 5 of 5 · open
#
# Change one thing in the block: ReLU and batch norm *before* the convolutions, a learned scale on the branch, dropout on the skip. Equal steps, equal batches, three seeds. Does it help, and what does [arXiv 1603.05027](https://arxiv.org/abs/1603.05027) say about it? `solution("1.9")` asks you four questions.

# %% tags=["check", "nbval-check-output"]
check("1.9")

# %% [markdown] tags=["workshop"]
# ## What you can now claim
#
# - Depth alone hurts a plain network *on its training data*, and you have the curves; the cure is one addition per block.
# - Vanishing gradients and degradation are two things. You have seen a network whose gradients arrive and which still does not learn.
# - A convolution is local and the same everywhere. That makes it efficient, equivariant with limits, and short-sighted.
#
# **Read on.** He et al. 2016, [Deep Residual Learning](https://arxiv.org/abs/1512.03385): sections 3 and 4.2 are this lesson. He et al. 2016, [Identity Mappings](https://arxiv.org/abs/1603.05027): what the skip must not contain. Veit et al. 2016, [Residual Networks Behave Like Ensembles](https://arxiv.org/abs/1605.06431): another reading of the same sum. Yang et al. 2019, [A Mean Field Theory of Batch Normalization](https://arxiv.org/abs/1902.08129): why the gradient grows in section 4.
#
# **Next: 02 ViT.** Cut the picture into patches, let every patch look at every other, and drop the idea that near is more important than far. What does that cost, and when does it pay?

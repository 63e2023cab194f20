# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["workshop", "slide"]
# # 02 · ViT: a picture is a sequence
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/vision-to-language/vision-to-language/blob/main/notebooks/02_vit.ipynb)
#
# **The claim.** Cut a picture into patches, treat each patch as a word, and a nearly standard transformer classifies it. With little data it loses to convolutions; with enough it wins. (Dosovitskiy et al., 2021, [arXiv 2010.11929](https://arxiv.org/abs/2010.11929))
#
# **What you will have at the end.** A vision transformer built from a toy tensor, equal to PyTorch's layers; its accuracy beside a ResNet's at equal compute, for four sizes of the training set; and one encoder that reads a caption and a picture, the fact on which lessons 08 to 11 stand.
#
# **Where we are.** Before: 01, ResNet, which saw only what was near. Next: 03, MAE, which trains this network without labels.
#
# | section | minutes of reading | in the 45-minute cut |
# |---|---|---|
# | 1 A picture as a sequence | 10 | yes |
# | 2 Attention, in four passes | 20 | yes |
# | 3 One encoder for pictures and words | 7 | |
# | 4 Against a ResNet, at equal compute | 15 | yes |
# | 5 What positions and patch size do | 10 | |
# | 6 Look inside, what it gains, where it falls short | 15 | |
# | 7 Claims and exercises | 10, then 60 to 120 of practice | exercise 2.1 |

# %% tags=["setup", "workshop"]
import importlib.util, subprocess, sys
if importlib.util.find_spec("lessons") is None:
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "git+https://github.com/vision-to-language/vision-to-language@main"], check=True)

# %% tags=["setup", "workshop"]
import math
import time
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

import lessons
from lessons import claims, data, figures, training
from lessons.data.scenes import WORLDS, render
from lessons.exercises import check, hint, solution

run = lessons.start(2)
print(claims.reference_times(2))
plt = figures.pyplot()

# %% [markdown] tags=["workshop"]
# ## 1 A picture as a sequence
#
# Before any definition, look at a picture in the form in which the model will see it: on the left whole, on the right cut into squares and laid out in a row, like the words of a sentence. Could you still name what it shows?

# %% tags=["workshop"]
SIZES = run.pick(smoke=(100, 400), cpu=(300, 1_000, 4_000, 16_000), gpu=(500, 2_500, 10_000, 45_000))
pictures = data.pictures(source=run.source, world="big", device=run.device, train=SIZES[-1],
                         val=run.pick(smoke=200, cpu=1_000, gpu=5_000), test=run.pick(smoke=200, cpu=2_000, gpu=None))
names = pictures.train.classes
figure, axes = plt.subplots(3, 17, figsize=(11.5, 2.9), width_ratios=[3] + [1] * 16)
for row, one in zip(axes, pictures.train.images):
    squares = one.unfold(1, 8, 8).unfold(2, 8, 8).flatten(1, 2).transpose(0, 1)     # (16, 3, 8, 8)
    for axis, part in zip(row, [one, *squares]):
        axis.imshow(figures.to_image(part))
        axis.axis("off")

# %% [markdown]
# Each patch has $P = 8$ pixels a side, so a picture of $H \times W$ pixels gives $N = HW/P^2$ of them. The paper's title says 16×16; $P$ is a choice (14, 16, 32 there).
#
# Cutting is where the first mistake waits. Take a picture of 4×4 pixels, numbered from 0 to 15, and $P = 2$. Which pixels belong to the first patch?

# %% tags=["nbval-check-output"]
toy = torch.arange(16).reshape(4, 4)  # one channel; the first row is 0 1 2 3
print(toy)
print("a bare reshape takes rows:  ", toy.reshape(4, 4)[0].tolist())
print("a patch is a square:        ", toy[0:2, 0:2].flatten().tolist())

# %% [markdown]
# A reshape to $N$ rows of $P^2$ numbers runs, has the right shape, and is wrong. Nothing warns you: a network trains on it all the same. The right way in plain loops, then vectorised:

# %% tags=["workshop", "nbval-check-output"]
def patchify_loops(images, P):
    """(B, C, H, W) -> (B, N, C P P): row by row, each square flattened channel first."""
    corners = [(i, j) for i in range(0, images.shape[2], P) for j in range(0, images.shape[3], P)]
    return torch.stack([images[:, :, i : i + P, j : j + P].flatten(1) for i, j in corners], dim=1)


def patchify(images, P):
    B, C, H, W = images.shape
    x = images.reshape(B, C, H // P, P, W // P, P)            # cut both sides
    x = x.permute(0, 2, 4, 1, 3, 5)                           # (B, rows, columns, C, P, P)
    return x.reshape(B, (H // P) * (W // P), C * P * P)       # (B, N, C P P)


images = training.to_input(pictures.train.images[:64])        # (64, 3, 32, 32)
print("loops and vectorised agree:", torch.equal(patchify_loops(images, 8), patchify(images, 8)))
conv = nn.Conv2d(3, 64, kernel_size=8, stride=8).to(run.device)
linear = nn.Linear(3 * 8 * 8, 64).to(run.device)
linear.load_state_dict({"weight": conv.weight.flatten(1), "bias": conv.bias})  # the same numbers
by_conv = conv(images).flatten(2).transpose(1, 2)             # (B, N, D)
print("a linear layer on patches is a convolution with kernel = stride = P:",
      torch.allclose(linear(patchify(images, 8)), by_conv, atol=1e-5))

# %% [markdown] tags=["workshop"]
# So "no convolutions" is not quite exact: the patch embedding *is* one, the only one. What is gone is the stack of local layers.
#
# ## 2 Attention, in four passes
#
# In a convolution a place hears its neighbours. In **self-attention** every token hears every other, and decides how much. Each token sends a **query** (what am I looking for?), offers a **key** (what am I?) and a **value** (what do I pass on?):
#
# $$\mathrm{Attention}(q, k, v) = A\,v, \qquad A = \mathrm{softmax}\!\left(\frac{q\,k^\top}{\sqrt{D_h}}\right)$$
#
# **Pass 1, by hand.** Three tokens with names. Each looks for something of its own colour.

# %% tags=["workshop"]
tokens = ["red corner", "red edge", "blue sky"]
#                   red  blue
q = torch.tensor([[2.0, 0.0], [2.0, 0.0], [0.0, 2.0]])    # what each looks for
k = torch.tensor([[1.5, 0.0], [1.0, 0.0], [0.0, 1.5]])    # what each is
v = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])    # what each passes on: (a corner here, an edge here)
scores = torch.tensor([[sum(q[i, d] * k[j, d] for d in range(2)) for j in range(3)] for i in range(3)]) / math.sqrt(2)
A = scores.exp() / scores.exp().sum(dim=1, keepdim=True)  # softmax over the keys: each row sums to 1
for i, name in enumerate(tokens):
    heard = ", ".join(f"{100 * A[i, j]:.0f} % {tokens[j]}" for j in range(3))
    print(f"{name:10} hears {heard:51} and becomes {[round(x, 2) for x in (A @ v)[i].tolist()]}")

# %% [markdown] tags=["workshop"]
# The two red tokens exchange what they know, so each comes out as "corner and edge". Nothing in the computation asked how far apart they were.
#
# **Pass 2, plain loops, and pass 3, vectorised.** One more idea joins: **heads**. The width $D$ is split into $H$ parts of $D_h = D/H$ and each looks for something of its own. The scale is $\sqrt{D_h}$, not $\sqrt{D}$.

# %% tags=["workshop", "nbval-check-output"]
def attention_loops(x, w_qkv, w_out, heads):
    """x (N, D), w_qkv (3 D, D), w_out (D, D) -> (N, D), one query, one head at a time."""
    q, k, v = (x @ w_qkv.T).chunk(3, dim=1)                                   # (N, D) each
    D_h, y = x.shape[1] // heads, torch.zeros_like(x)
    for h in range(heads):
        part = slice(h * D_h, (h + 1) * D_h)
        for i in range(len(x)):
            scores = torch.stack([q[i, part] @ k[j, part] for j in range(len(x))]) / math.sqrt(D_h)
            y[i, part] = sum(a * v[j, part] for j, a in enumerate(scores.softmax(0)))
    return y @ w_out.T


def attention(x, w_qkv, w_out, heads):
    """The same for a batch: x (B, N, D)."""
    B, N, D = x.shape
    q, k, v = (x @ w_qkv.T).view(B, N, 3, heads, D // heads).permute(2, 0, 3, 1, 4)   # (B, H, N, D_h) each
    A = (q @ k.transpose(-2, -1) / math.sqrt(D // heads)).softmax(dim=-1)             # (B, H, N, N)
    return (A @ v).transpose(1, 2).flatten(2) @ w_out.T                               # (B, N, D)


torch.manual_seed(0)
x, w_qkv, w_out = torch.randn(2, 5, 12), 0.3 * torch.randn(36, 12), 0.3 * torch.randn(12, 12)
looped = torch.stack([attention_loops(one, w_qkv, w_out, heads=3) for one in x])
print("loops and vectorised agree:     ", torch.allclose(looped, attention(x, w_qkv, w_out, 3), atol=1e-5))
peer = nn.MultiheadAttention(12, 3, bias=False, batch_first=True)
peer.load_state_dict({"in_proj_weight": w_qkv, "out_proj.weight": w_out})
print("equal to nn.MultiheadAttention: ", torch.allclose(attention(x, w_qkv, w_out, 3), peer(x, x, x)[0], atol=1e-5))

# %% [markdown] tags=["workshop"]
# **Pass 4, as a module.** Attention moves information *between* tokens; a small MLP then works on each token *alone*. Both are branches of a residual sum, the idea of lesson 01. The layer norm (LN) stands *before* each branch, not after it as in the first transformers:
#
# $$z' = \mathrm{MSA}(\mathrm{LN}(z)) + z, \qquad z_{\text{next}} = \mathrm{MLP}(\mathrm{LN}(z')) + z'$$

# %% tags=["workshop"]
class Block(nn.Module):
    """Pre-norm transformer block: (B, N, D) -> (B, N, D)."""

    def __init__(self, D, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.qkv, self.out = nn.LayerNorm(D, eps=1e-6), nn.Linear(D, 3 * D), nn.Linear(D, D)
        self.norm2 = nn.LayerNorm(D, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(D, 4 * D), nn.GELU(), nn.Linear(4 * D, D))

    def msa(self, x):
        B, N, D = x.shape
        q, k, v = self.qkv(x).view(B, N, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        A = (q @ k.transpose(-2, -1) / math.sqrt(D // self.heads)).softmax(dim=-1)   # (B, H, N, N)
        return self.out((A @ v).transpose(1, 2).flatten(2))                          # (B, N, D)

    def forward(self, z):
        z = self.msa(self.norm1(z)) + z
        return self.mlp(self.norm2(z)) + z


# %% [markdown] tags=["workshop"]
# Three things are still missing. Attention does not know where a patch was, so a learned **position** is added to each. Something has to answer for the whole picture: a learned **class token** [CLS] goes in front, with a position of its own. And after the last block comes one more LN:
#
# $$z_0 = [x_{\mathrm{cls}};\; x_p^1 E;\; \dots;\; x_p^N E] + E_{\mathrm{pos}}, \qquad y = \mathrm{LN}(z_L^0)$$

# %% tags=["workshop"]
class TinyViT(nn.Module):
    """(B, 3, size, size) -> logits (B, K)."""

    def __init__(self, size, P, D, depth, heads, K):
        super().__init__()
        self.P, N = P, (size // P) ** 2
        self.E = nn.Linear(3 * P * P, D)
        self.x_cls = nn.Parameter(0.02 * torch.randn(1, 1, D))
        self.E_pos = nn.Parameter(0.5 * torch.randn(N + 1, D))     # one row more than there are patches
        self.blocks = nn.Sequential(*(Block(D, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(D, eps=1e-6), nn.Linear(D, K)

    def forward(self, images):
        patches = self.E(patchify(images, self.P))                 # (B, N, D)
        cls = self.x_cls.expand(len(images), -1, -1)               # (B, 1, D)
        z = torch.cat([cls, patches], dim=1) + self.E_pos          # (B, 1 + N, D)
        return self.head(self.norm(self.blocks(z))[:, 0])          # (B, K), read at [CLS]


# %% [markdown]
# Is it right? PyTorch's own encoder layer serves as the judge of the block. The tested form of the network is `ViT` in `lessons/nets/vit.py`; there `timm`'s VisionTransformer is the judge. All later lessons build on it. Given our weights it must give our numbers, and its parameter counts must be the known ones.

# %% tags=["workshop", "nbval-check-output"]
from lessons.nets.vit import Attention, Encoder, ViT, causal_mask, sincos_positions, unpatchify

ours, peer = Block(12, 3), nn.TransformerEncoderLayer(12, 3, 48, dropout=0, activation="gelu", layer_norm_eps=1e-6,
                                                      batch_first=True, norm_first=True)
state = {}
for key, value in ours.state_dict().items():
    for old, new in (("qkv.", "self_attn.in_proj_"), ("out.", "self_attn.out_proj."), ("mlp.0", "linear1"),
                     ("mlp.2", "linear2")):
        key = key.replace(old, new)
    state[key] = value
peer.load_state_dict(state)
print("block equal to nn.TransformerEncoderLayer:", torch.allclose(ours(x), peer(x), atol=1e-5))
tiny, tested = TinyViT(32, 8, 24, 2, 3, 10), ViT(image=32, patch=8, width=24, depth=2, heads=3, classes=10)
# both list their weights in one order
tested.load_state_dict(dict(zip(tested.state_dict(), tiny.state_dict().values())))
print("our ViT equal to lessons.nets.vit.ViT:    ", torch.allclose(tiny(images.cpu()), tested(images.cpu()), atol=1e-5))
with torch.device("meta"):
    for name, patch, width, heads in (("S/16", 16, 384, 6), ("B/16", 16, 768, 12)):
        big = ViT(image=224, patch=patch, width=width, depth=12, heads=heads, classes=1000)
        print(f"ViT-{name}: {sum(p.numel() for p in big.parameters()):,} parameters")

# %% [markdown]
# ## 3 One encoder for pictures and words
#
# Look back at `Block`: it has never heard of pictures. It takes vectors of width $D$. A sentence is such a sequence too: each word is looked up in a table with one row per word. So give the very same encoder, the same weights, a picture and then its caption.

# %% tags=["nbval-check-output"]
from lessons.data.language import VOCABULARY, words

scene = render(replace(WORLDS["pairs"], objects=(2, 2)), 1, seed=5)
caption = words(scene.captions(1, "relation")[0][0])
torch.manual_seed(0)
encoder = Encoder(width=64, depth=2, heads=2)
patch_embedding, word_embedding = nn.Linear(3 * 8 * 8, 64), nn.Embedding(len(VOCABULARY), 64)
picture_tokens = patch_embedding(patchify(training.to_input(scene.images), 8))                 # (1, N, D)
word_tokens = word_embedding(torch.tensor([[VOCABULARY.index(word) for word in caption]]))          # (1, T, D)
print("caption:", " ".join(caption))
for name, sequence, mask in (("picture", picture_tokens, None), ("caption", word_tokens, None),
                             ("caption, causal", word_tokens, causal_mask(len(caption))),
                             ("both in one sequence", torch.cat([picture_tokens, word_tokens], dim=1), None)):
    print(f"{name:21} in {tuple(sequence.shape)}  out {tuple(encoder(sequence, mask).shape)}")

# %% [markdown]
# What does each token look at? Three maps of who looks at whom in the first layer: a row is the token that looks. The causal mask lets a word see only itself and what came before it; lesson 08 reads captions that way.

# %%
_, axes = plt.subplots(1, 4, figsize=(11, 3), width_ratios=[0.8, 1, 1, 1])
axes[0].imshow(figures.to_image(scene.images[0]))
axes[0].set(title="16 patches", xticks=[], yticks=[])
views = (("picture", picture_tokens, None), ("caption, causal", word_tokens, causal_mask(len(caption))),
         ("one sequence", torch.cat([picture_tokens, word_tokens], dim=1), None))
for axis, (name, sequence, mask) in zip(axes[1:], views):
    axis.imshow(encoder.with_maps(sequence, mask)[1][0, 0, 0].detach(), cmap="viridis")
    axis.set(title=name, xticks=[], yticks=[])
    axis.grid(False)
for side in ("h", "v"):
    getattr(axes[3], f"ax{side}line")(15.5, color="white", linewidth=1)
axes[2].set_yticks(range(len(caption)), caption, fontsize=7);

# %% [markdown] tags=["workshop"]
# In the last map patches look at words and words at patches, from the first layer on. No line of the encoder had to change.
#
# **What this does not mean.** Same shape is not same meaning. A word is one row out of a table; a patch is a projection of pixels, with no vocabulary behind it. And the encoder is untrained: "red" and a red patch have nothing to do with each other yet. A shared sequence makes fusion *possible*; only training aligns the two. That is the rest of the path.
#
# ## 4 Against a ResNet, at equal compute
#
# First, as always: can it learn 64 pictures by heart? `lessons.fit` is the loop of lesson 01. Transformers want three more things: AdamW, a warm-up of the learning rate, and a bound on the gradient (`clip`).

# %% tags=["workshop"]
from lessons.nets.resnet import CifarResNet, FastResNet

K, PATCH = len(names), run.pick(smoke=8, cpu=8, gpu=4)
BATCH = run.pick(smoke=32, cpu=64, gpu=256)


def make_vit(seed=0, classes=K, **changes):
    torch.manual_seed(seed)
    sizes = {"patch": PATCH, "width": run.pick(smoke=32, cpu=64, gpu=192), "depth": run.pick(smoke=2, cpu=4, gpu=6),
             "heads": run.pick(smoke=2, cpu=2, gpu=3)}
    return ViT(**(sizes | {"classes": classes} | changes)).to(run.device)


def make_resnet(seed=0, classes=K):
    torch.manual_seed(seed)
    return run.place(FastResNet(classes, width=run.pick(smoke=4, cpu=6, gpu=44)), "conv")


def job(net, split, steps, seed=0, title="training"):
    """The training of one network, ready to start; each family gets the recipe that suits it."""
    if any(isinstance(module, Attention) for module in net.modules()):
        family, rate, optimizer = "transformer", run.pick(smoke=2e-3, cpu=2e-3, gpu=1e-3), torch.optim.AdamW
        settings = {"shape": "cosine", "clip": 1.0}
        optimizer = optimizer(training.parameter_groups(net, 0.05), lr=rate)
    else:
        family, settings = "conv", {"shape": "linear"}
        optimizer = torch.optim.SGD(training.parameter_groups(net, 5e-4), lr=0.1, momentum=0.9, nesterov=True)
    return partial(lessons.fit, net, training.cross_entropy, training.batches(split, min(BATCH, len(split)), seed=seed),
                   steps=steps,
                   optimizer=optimizer, warmup=0.15, precision=run.precision(family), title=title, **settings)


few = pictures.train[:BATCH]
history = job(make_vit(), few, run.pick(smoke=10, cpu=80, gpu=80), title="by heart")()
print(f"loss at first {history.loss[0]:.2f} (guessing costs ln {len(names)} = {math.log(len(names)):.2f}), at last "
      f"{history.loss[-1]:.3f}")

# %% [markdown]
# A fair match needs equal compute. We count multiplications with PyTorch's own counter, choose the width of the ResNet so that both need about the same per picture, and give both the same batches for the same number of steps. Parameters are not matched: a convolution uses each of its weights at many places.

# %%
from torch.utils.flop_counter import FlopCounterMode


def multiplications(net):
    """Multiply-adds in millions for one picture of 32 x 32."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.eval()(training.to_input(pictures.train.images[:1]))
    return counter.get_total_flops() / 2e6


compute = {name: multiplications(net) for name, net in (("ViT", make_vit()), ("ResNet", make_resnet()))}
for name, net in (("ViT", make_vit()), ("ResNet", make_resnet())):
    print(f"{name:7} {compute[name]:6.2f} million multiply-adds per picture, "
          f"{sum(p.numel() for p in net.parameters()):9,} parameters")

# %% [markdown] tags=["workshop", "slide"]
# And a control that separates the two ideas. Shuffle the patches of every picture by *one fixed* permutation, the same in training and test. No pixel is lost. What a convolution builds on, that neighbours belong together, is.
#
# *Predict first:* who minds, and why?
#
# <details><summary>Answer</summary>The ViT cannot mind: each patch still has its own place, and the learned positions start as random vectors anyway. The ResNet loses every pattern that crosses a patch's border. Inside the patches it is as good as before.</details>

# %% tags=["workshop"]
ORDER = torch.randperm((32 // PATCH) ** 2, generator=torch.Generator().manual_seed(1)).to(run.device)


def shuffled(split):
    """The same pictures with their patches in another, fixed order."""
    return replace(split, images=unpatchify(patchify(split.images, PATCH)[:, ORDER], PATCH))


parts = {"": pictures, " shuffled": replace(pictures, train=shuffled(pictures.train), test=shuffled(pictures.test))}
figures.grid(torch.cat([parts[kind].test.images[:8] for kind in parts]), [names[k] for k in pictures.test.labels[:8]],
             columns=8);

# %% [markdown] tags=["workshop"]
# Now the experiment of the paper in small: both families, straight and shuffled, on growing parts of the training set. At the largest size each runs three times.

# %% tags=["workshop"]
STEPS, SEEDS = run.pick(smoke=6, cpu=300, gpu=2_000), run.pick(smoke=(0,), cpu=(0, 1, 2), gpu=(0, 1, 2))
KINDS = ("ViT", "ViT shuffled", "ResNet", "ResNet shuffled")
runs = [(kind, size, seed) for seed in SEEDS for size in SIZES for kind in KINDS if seed == 0 or size == SIZES[-1]]
nets = {key: (make_vit if key[0].startswith("ViT") else make_resnet)(seed=key[2]) for key in runs}
split_of = lambda kind: parts[" shuffled" if "shuffled" in kind else ""]
jobs = [job(nets[kind, size, seed], split_of(kind).train[:size], STEPS, seed, f"{kind}, {size:,} pictures")
        for kind, size, seed in runs]
histories = dict(zip(runs, training.side_by_side(jobs, run.device)))
scores = {key: training.accuracy(nets[key], split_of(key[0]).test) for key in runs}
largest = {kind: [scores[kind, SIZES[-1], seed] for seed in SEEDS] for kind in KINDS}
for kind in KINDS:
    seconds = sum(histories[kind, SIZES[-1], seed].seconds for seed in SEEDS) / len(SEEDS)
    print(f"{kind:16}", "  ".join(f"{size:,}: {100 * scores[kind, size, 0]:.1f} %" for size in SIZES),
          f"  {seconds:.0f} s per training")
print("ViT, training loss at the end:", "  ".join(f"{size:,}: {histories['ViT', size, 0].last(30):.2f}"
                                                  for size in SIZES))

# %% [markdown] tags=["workshop"]
# Look at two things: the distance between blue (ViT) and red (ResNet), and what shuffling (dashed) does to each.

# %% tags=["workshop", "slide"]
mean = lambda values: sum(values) / len(values)
look = {"ViT": {"color": figures.BLUE, "marker": "o"},
        "ViT shuffled": {"color": figures.SKY, "linestyle": "--", "marker": "o"},
        "ResNet": {"color": figures.RED, "marker": "o"},
        "ResNet shuffled": {"color": figures.ORANGE, "linestyle": "--", "marker": "o"}}
lines = {kind: (SIZES, [100 * mean([scores[kind, size, seed] for seed in SEEDS if (kind, size, seed) in scores])
                        for size in SIZES]) for kind in KINDS}
ahead = sum(scores["ResNet", size, 0] > scores["ViT", size, 0] for size in SIZES)
where = "every size" if ahead == len(SIZES) else f"{ahead} of {len(SIZES)} sizes"
loss_of = {kind: mean(largest[kind]) - mean(largest[kind + " shuffled"]) for kind in ("ViT", "ResNet")}
_, axis = plt.subplots(figsize=(7.6, 4.2))
axis.set_xscale("log")
figures.curves(lines,
               title=f"The ResNet is ahead at {where}; shuffling costs it "
                     f"{100 * loss_of['ResNet']:.1f} points, the ViT {100 * loss_of['ViT']:.1f}",
               x=f"training pictures (log scale); {STEPS:,} steps each", y="test accuracy (%)",
               baselines={"chance": 100 / len(names)}, styles=look, axis=axis);

# %% [markdown] tags=["workshop"]
# Same compute, same pictures, and the convolution is ahead: it need not learn that neighbours belong together, or that a shape is the same shape elsewhere. That knowledge is its **inductive bias**; the ViT has to find it in the data.
#
# More pictures help while a network overfits, that is, while its training loss is near zero. Once the loss stays up, as the last printed line shows for the ViT at the larger sizes, steps are the limit and not pictures. The paper had both: its ViTs lose to ResNets when pre-trained on 1.3 million pictures, draw at 14 million and lead at 303 million. That end of the curve is out of reach here.
#
# The control shows what the bias is made of. For the ViT nothing is lost at all: permute the rows of $E_{\mathrm{pos}}$ along with the patches, and each output is the same. Exercise 2.7 measures it.

# %% [markdown]
# ## 5 What positions and patch size do
#
# Take the positions away, and the encoder reads a *bag* of patches. Two questions about scenes with one object: in which quarter of the picture is it, and what colour has it?
#
# *Predict first:* which of the two survives?
#
# <details><summary>Answer</summary>Colour. A bag of patches still holds a red one. The quarter cannot be told: every arrangement of the same patches gives the same output. The paper measured 61.4 % without and 64.2 % with learned positions on ImageNet (5-shot): objects can mostly be recognised from their parts.</details>

# %%
count = run.pick(smoke=300, cpu=6_000, gpu=20_000)
world = replace(WORLDS["big"], size=(0.3, 0.45), x=(-0.55, 0.55), y=(-0.55, 0.55))
placed = render(world, count + run.pick(smoke=100, cpu=1_000, gpu=2_000), seed=4, device=run.device)
quarter = (placed.x[:, 0] > 0).long() + 2 * (placed.y[:, 0] > 0).long()
tasks = {"which quarter?": (quarter, ("top left", "top right", "bottom left", "bottom right")),
         "what colour?": (placed.labels("colour"), WORLDS["big"].colours)}
questions = {(task, positions): data.Pictures(placed.images, labels, classes, "scenes", "built-in scenes")
             for task, (labels, classes) in tasks.items() for positions in ("learned", None, "faint")}
bags = {(task, positions): make_vit(classes=len(split.classes), depth=2, positions=positions and "learned")
        for (task, positions), split in questions.items()}
for task in tasks:
    bags[task, "faint"].position.data *= 0.04                # 0.5 becomes 0.02, the customary start
begin = bags["which quarter?", "learned"].position.detach().clone()
training.side_by_side([job(bags[key], split[:count], run.pick(smoke=6, cpu=150, gpu=600))
                       for key, split in questions.items()], run.device)
asked, answers = len(placed) - count, {key: training.accuracy(bags[key], split[count:])
                                       for key, split in questions.items()}
words_for = {"learned": "with positions", None: "without positions", "faint": "positions started at 0.02"}
bars = {f"{task} {words_for[positions]}": value for (task, positions), value in answers.items()}
survives = answers["what colour?", None] > max(0.5, answers["what colour?", "learned"] - 0.05)
title = "Without positions, colour survives and place does not"
title = title if survives and answers["which quarter?", None] < 0.35 else "What is told with and without positions"
figures.bars(bars, title=title,
             controls=[label for label in bars if "without" in label], marks={"chance of a quarter": 0.25});

# %% [markdown]
# So order enters in one place only, by one addition. It also has to be loud enough: our positions start about as large as a patch's vector. The third bar is the customary start at 0.02; in a training this short the network has hardly noticed them yet.
#
# Next, the patch size. Halve $P$ and there are four times as many tokens. The MLP then costs four times as much, and the attention matrix has sixteen times as many entries. Watch the slopes: time for one layer against $N$.

# %%
def milliseconds(layer, N, D=64):
    """Median time of a forward pass of one layer over N tokens of one picture."""
    x, times = torch.randn(1, N, D, device=run.device), []
    with torch.no_grad():
        for _ in range(7):
            start = time.perf_counter()
            layer(x).sum().item()
            times.append(1000 * (time.perf_counter() - start))
    return sorted(times)[3]


lengths = run.pick(smoke=(64, 256), cpu=(64, 128, 256, 512, 1024, 2048, 4096), gpu=(256, 1024, 4096, 8192, 16384))
layers = {"attention": Attention(64, 2).to(run.device),
          "MLP": nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64)).to(run.device)}
cost = {name: [milliseconds(layer, N) for N in lengths] for name, layer in layers.items()}
growth = {name: math.log2(values[-1] / values[-2]) / math.log2(lengths[-1] / lengths[-2])
          for name, values in cost.items()}
_, axis = plt.subplots(figsize=(6.4, 3.4))
axis.set(xscale="log", yscale="log")
figures.curves({name: (lengths, values) for name, values in cost.items()},
               title=f"At the end attention grows as N to the power {growth['attention']:.1f}, the MLP as N to the "
                     f"{growth['MLP']:.1f}",
               x="tokens N (log scale)", y="milliseconds (log scale)",
               styles={name: {"marker": "o"} for name in cost}, axis=axis);

# %% [markdown]
# With few tokens the two cost about the same; with thousands, attention is what one pays for. (A power above 2 means that the $N \times N$ matrix has outgrown the processor's cache.) What do small patches buy? Same network, same steps, three patch sizes, compared on the validation pictures.

# %%
sizes = run.pick(smoke=(16, 8), cpu=(16, 8, 4), gpu=(16, 8, 4, 2))
by_patch = {patch: make_vit(patch=patch) for patch in sizes}
trained = training.side_by_side([job(by_patch[patch], pictures.train, STEPS, title=f"patch {patch}")
                                 for patch in reversed(sizes)], run.device)
spent = {patch: history.seconds for patch, history in zip(reversed(sizes), trained)}
fine = {patch: training.accuracy(net, pictures.val) for patch, net in by_patch.items()}
figures.bars({f"P = {patch}: {(32 // patch) ** 2} tokens, {spent[patch]:.0f} s": fine[patch] for patch in sizes},
             title=f"From P = {sizes[0]} to P = {sizes[-1]}: {100 * (fine[sizes[-1]] - fine[sizes[0]]):+.1f} points, "
                   f"{spent[sizes[-1]] / spent[sizes[0]]:.1f} times the time",
             x="accuracy on val", marks={"chance": 1 / len(names)});

# %% [markdown]
# Smaller patches need no more parameters, only more tokens. Whatever they gain is bought with time, not with size.
#
# ## 6 Look inside, what it gains, where it falls short
#
# Is the grid in the positions? A fixed choice puts it there: sines and cosines of row and column. The learned ones begin as noise, so look at what training *added* to them in the network that had to name the quarter. Each panel compares every place with every other, sorted by quarter: four blocks on the diagonal.

# %%
net = bags["which quarter?", "learned"]
side, N = net.grid[0], net.grid[0] ** 2
place = torch.arange(N)
quarter_of = 2 * (place // side >= side // 2).long() + (place % side >= side // 2).long()
learned = {"sin-cos": sincos_positions(64, net.grid, base=10), "learned, at the start": begin[1:].cpu(),
           "what training added": (net.position.detach() - begin)[1:].cpu()}
_, axes = figures.panels(1, 3, width=3, height=3.4)
for axis, (name, rows) in zip(axes, learned.items()):
    rows = F.normalize(rows - rows.mean(0), dim=1)[quarter_of.argsort(stable=True)]  # (N, D), quarter by quarter
    cosine, one = rows @ rows.T, torch.block_diag(*[torch.ones(N // 4, N // 4)] * 4) > 0     # (N, N) each
    axis.imshow(cosine, cmap="PuOr", vmin=-1, vmax=1)
    within, across = cosine[one & ~torch.eye(N, dtype=torch.bool)].mean().item(), cosine[~one].mean().item()
    axis.set_title(f"{name}\nwithin a quarter {within:+.2f}, across {across:+.2f}", fontsize=9)

# %% [markdown]
# The network was told neither rows nor columns. From answers alone it wrote down as much geometry as the question needs: two places of one quarter were moved the same way.
#
# How far do heads look? The **attention distance** is the mean distance between a patch and the patches it looks at, weighted by attention, in pixels. In a 3×3 convolution it cannot exceed $\sqrt 2$. The grey dots are the same network untrained.

# %%
@torch.no_grad()
def attention_distance(net, images):
    """Mean distance in pixels from each patch to what it looks at: (L, H)."""
    A = net.attention_maps(images)[..., 1:, 1:]                                   # (B, L, H, N, N), patches only
    A = (A / A.sum(-1, keepdim=True)).mean(0)                                     # (L, H, N, N)
    rows, columns = torch.meshgrid(*(torch.arange(n, device=A.device).float() for n in net.grid), indexing="ij")
    places = net.embed.patch * torch.stack([rows.flatten(), columns.flatten()], dim=1)
    return (A * torch.cdist(places, places)).sum(-1).mean(-1).cpu()               # (L, H)


finest = by_patch[sizes[-1]].eval()
look_at = training.to_input(pictures.test.images[:64])
reach, fresh = attention_distance(finest, look_at), attention_distance(make_vit(patch=sizes[-1]), look_at)
_, axis = plt.subplots(figsize=(6, 3.2))
for values, colour, shift in ((fresh, figures.GREY, -0.1), (reach, figures.BLUE, 0.1)):
    for layer, heads in enumerate(values):
        axis.plot([layer + 1 + shift] * len(heads), heads, "o", color=colour)
axis.set(title=f"Trained heads look {reach.min():.0f} to {reach.max():.0f} pixels far, untrained ones "
               f"{fresh.min():.0f} to {fresh.max():.0f}",
         xlabel="layer", ylabel="attention distance (pixels)", xticks=range(1, len(reach) + 1),
         ylim=(0, 1.15 * max(reach.max(), fresh.max()).item()));

# %% [markdown]
# Even the first layer looks across the picture. In the paper's large models some heads of the low layers look near and others far (Fig. 7). A range here as narrow as the untrained one means that these heads have not specialised yet: locality has to be learned, and that takes longer.
#
# And what does [CLS] look at when it decides? Each map shows one head. Turn the controls. Attention shows where information was fetched, not why an answer was given; lesson 06 will get far cleaner maps without any labels.

# %%
def show_attention(picture=5, layer=1):
    """A test picture and the attention from [CLS] to its patches, one map per head of a layer."""
    image = pictures.test.images[picture : picture + 1]
    maps = finest.attention_maps(training.to_input(image))[0, layer - 1, :, 0, 1:].cpu()          # (H, N)
    _, axes = figures.panels(1, 1 + len(maps), width=1.7)
    axes[0].imshow(figures.to_image(image[0]))
    axes[0].set_title(names[pictures.test.labels[picture]], fontsize=9)
    for head, (axis, values) in enumerate(zip(axes[1:], maps.reshape(len(maps), *finest.grid)), 1):
        axis.imshow(values)
        axis.set_title(f"layer {layer}, head {head}", fontsize=9, fontweight="normal")
    plt.show()


show_attention(layer=len(finest.encoder.blocks))
figures.explore(show_attention, picture=(3, 40), layer=(1, len(finest.encoder.blocks)))

# %% [markdown]
# **What it gains.** Lesson 01 ended with a question about two places at once: are the two objects of the same colour? A network that saw 25 pixels lost its way with distance. In a ViT every patch sees every other in the first layer.
#
# *Predict first:* how does its curve look?
#
# <details><summary>Answer</summary>Level. The first layer compares any two patches, so distance costs nothing. What can hurt is a patch so coarse that an object becomes a part of one.</details>

# %%
count = run.pick(smoke=600, cpu=12_000, gpu=40_000)
two = replace(WORLDS["pairs"], objects=(2, 2), colours=("red", "blue"), patterns=("plain",), distinct=False,
              size=(0.17, 0.22), x=(-0.78, 0.78), y=(-0.78, 0.78))
scenes = render(two, count + run.pick(smoke=400, cpu=4_000, gpu=4_000), seed=2, device=run.device)
same = (scenes.colour[:, 0] == scenes.colour[:, 1]).long()  # (N,) 1: the same colour
distance = 16 * torch.hypot(scenes.x[:, 0] - scenes.x[:, 1], scenes.y[:, 0] - scenes.y[:, 1])         # (N,) pixels
relation = data.Pictures(scenes.images, same, ("different", "same"), "scenes", "built-in scenes")
torch.manual_seed(run.seed)
readers = {
    "ViT, 2 layers, P = 4": make_vit(classes=2, patch=4, depth=2),
    "ResNet-8, sees 25 px": run.place(CifarResNet(8, classes=2, width=run.pick(smoke=4, cpu=8, gpu=16)), "conv"),
}
training.side_by_side([job(net, relation[:count], run.pick(smoke=6, cpu=400, gpu=1_000), title=name)
                       for name, net in readers.items()], run.device)
right = {name: (training.predict(net, relation.images[count:]).argmax(1) == same[count:]).cpu()
         for name, net in readers.items()}
far = distance[count:].cpu()
edges = [6, 9, 12, 15, 18, 21, 30]
bins = [(far >= low) & (far < high) for low, high in zip(edges, edges[1:])]
middle = [(low + high) / 2 for low, high in zip(edges, edges[1:])]
lines = {name: (middle, [100 * hits[part].float().mean().item() for part in bins]) for name, hits in right.items()}
near, *_, farthest = lines["ViT, 2 layers, P = 4"][1]
level = near > 60 and farthest > near - 3
figures.curves(
    lines, title="For the ViT, far is not harder than near" if level else "Right answers by distance",
    x="distance of the two objects (pixels)", y="right answers (%)",
    baselines={"guessing": 50}, styles={name: {"marker": "o"} for name in right},
);

# %% [markdown]
# Two layers are enough to relate any two places. This is what patches and words will need of each other later.
#
# **Where it falls short.** What a convolution knows by construction, the ViT must be *shown*. Train both to name shapes that lie only in the left half of the picture. Then test in the right half.

# %%
SHAPES = ("circle", "triangle", "cross", "ring")


def half(low, high, number, first):
    """Scenes with one object whose centre lies between x = low and x = high (the picture runs from -1 to 1)."""
    made = render(replace(WORLDS["big"], size=(0.3, 0.42), x=(low, high), y=(-0.5, 0.5), shapes=SHAPES), number, seed=3,
                  first=first, device=run.device)
    return data.Pictures(made.images, made.labels("shape").unique(return_inverse=True)[1], SHAPES, "scenes",
                         "built-in scenes")


number = run.pick(smoke=100, cpu=1_000, gpu=2_000)
left = half(-0.55, -0.15, 8 * number, 0)
halves = {"left": half(-0.55, -0.15, number, 10**6), "right": half(0.15, 0.55, number, 2 * 10**6)}
movers = {(name, seed): make(seed=seed, classes=len(SHAPES))
          for name, make in (("ViT", make_vit), ("ResNet", make_resnet)) for seed in SEEDS}
training.side_by_side([job(net, left, run.pick(smoke=6, cpu=300, gpu=1_500), seed, name)
                       for (name, seed), net in movers.items()], run.device)
moved = {name: {place: [training.accuracy(movers[name, seed], split) for seed in SEEDS]
                for place, split in halves.items()} for name in ("ViT", "ResNet")}
drop = {name: [a - b for a, b in zip(found["left"], found["right"])] for name, found in moved.items()}
bars = {f"{name}, tested on the {place}": mean(found[place]) for name, found in moved.items() for place in found}
figures.bars(bars,
             title=f"Trained on the left: moving right costs the ViT {100 * mean(drop['ViT']):.0f} points, the ResNet "
                   f"{100 * mean(drop['ResNet']):.0f}",
             controls=[label for label in bars if "right" in label], marks={"chance": 1 / len(SHAPES)});

# %% [markdown]
# The ResNet answers as well where it has never seen an object. The ViT has to learn each shape at each place, from labelled pictures. So it needs many, and labels are expensive. Lesson 03 gets rid of them.
#
# ## 7 What the paper says, what we measured
#
# The verdicts are computed: an effect counts when it exceeds its spread over three seeds (95 % interval), or twice its standard error where there is one run. Our networks are hundreds of times smaller than the paper's and see far fewer pictures; compare directions, not figures.

# %%
table = claims.Claims(run, data=pictures.train.name)
percent = lambda values: f"{100 * mean(values if isinstance(values, list) else [values]):.1f} %"
judge = lambda effects, **more: claims.verdict(effects, **more) if len(SEEDS) > 1 else claims.UNJUDGED
pairs = lambda a, b: [x - y for x, y in zip(a, b)]
error = lambda *shares: math.sqrt(sum(claims.share_error(share, n) ** 2 for share, n in shares))
n = len(pictures.test)
small, large = SIZES[0], SIZES[-1]
table.add("bias", "On a small data set a ResNet beats a ViT at equal compute.",
          paper="B/32 far below ResNet50 at 9 million JFT pictures (Fig. 4)",
          here=f"{large:,} pictures: ResNet {percent(largest['ResNet'])}, ViT {percent(largest['ViT'])}; "
               f"{compute['ResNet']:.1f} and {compute['ViT']:.1f} million multiply-adds",
          verdict=judge(pairs(largest["ResNet"], largest["ViT"])))
gain = lambda kind: scores[kind, large, 0] - scores[kind, small, 0]
table.add("data", "More pictures help the ViT more than the ResNet.",
          paper="ViT ahead from 90 million pictures on (Fig. 4)",
          here=f"from {small:,} to {large:,} pictures: ViT {100 * gain('ViT'):+.1f} points, ResNet "
               f"{100 * gain('ResNet'):+.1f}",
          verdict=claims.verdict(gain("ViT") - gain("ResNet"),
                                 error=error(*((scores[kind, size, 0], n) for kind in ("ViT", "ResNet")
                                               for size in (small, large)))))
table.add("shuffle-cnn", "Shuffling patches by one permutation hurts the ResNet.",
          paper="not in the paper; the control",
          here=f"{percent(largest['ResNet'])} straight, {percent(largest['ResNet shuffled'])} shuffled",
          verdict=judge(pairs(largest["ResNet"], largest["ResNet shuffled"])))
table.add("shuffle-vit", "It hurts the ResNet more than the ViT.", paper="not in the paper; the control",
          here=f"ViT {percent(largest['ViT'])} straight, {percent(largest['ViT shuffled'])} shuffled",
          verdict=judge(pairs(pairs(largest["ResNet"], largest["ResNet shuffled"]),
                              pairs(largest["ViT"], largest["ViT shuffled"]))))
for key, task, claim in (("place", "which quarter?", "Without positions a ViT cannot tell where things are."),
                         ("colour", "what colour?", "A question without places survives.")):
    a, b = answers[task, "learned"], answers[task, None]
    effect = a - b if key == "place" else 0.05 - (a - b)  # survives: loses less than 5 points
    table.add(key, claim, paper="61.4 % without, 64.2 % with positions (5-shot ImageNet, Table 8)",
              here=f"{task} {percent(a)} with, {percent(b)} without",
              verdict=claims.verdict(effect, error=error((a, asked), (b, asked))))

# %%
coarse, finer = sizes[0], sizes[-1]
table.add("patch", "Smaller patches help, at the price of time.",
          paper="B/16 77.91 %, B/32 73.38 % on ImageNet, pre-trained on it",
          here=", ".join(f"P = {patch}: {percent(fine[patch])} in {spent[patch]:.0f} s" for patch in sizes),
          verdict=claims.verdict(fine[finer] - fine[coarse],
                                 error=error((fine[finer], len(pictures.val)), (fine[coarse], len(pictures.val)))))
table.add("quadratic", "Attention's cost grows faster with the tokens than the MLP's.",
          paper="quadratic in N by construction",
          here=f"N to the power {growth['attention']:.1f} against {growth['MLP']:.1f} at {lengths[-1]:,} tokens",
          verdict=growth["attention"] > growth["MLP"] + 0.3)
table.add("half", "Moved to the unseen half, a ViT loses more than a ResNet.",
          paper="not in the paper; an experiment on scenes",
          here=f"left to right: ViT {percent(moved['ViT']['left'])} to {percent(moved['ViT']['right'])}, ResNet "
               f"{percent(moved['ResNet']['left'])} to {percent(moved['ResNet']['right'])}",
          verdict=judge(pairs(drop["ViT"], drop["ResNet"])))
(_, vit_far), (_, res_far) = ((hits[bins[0]].float().mean().item(), hits[bins[-1]].float().mean().item())
                              for hits in right.values())
n_far = int(bins[-1].sum())
table.add("reach", "Far apart, a two-layer ViT relates what a short-sighted ResNet cannot.",
          paper="some heads look globally in the lowest layers (Fig. 7)",
          here=f"far pairs: ViT {percent(vit_far)}, ResNet-8 {percent(res_far)}",
          verdict=claims.verdict(vit_far - res_far, error=error((vit_far, n_far), (res_far, n_far))))
for (kind, size, seed), value in scores.items():
    table.number(f"{kind}, {size}, seed {seed}", value)
table.show()

# %% [markdown] tags=["workshop"]
# ## Exercises
#
# Write the function, run the check, read what it says. `hint("2.1")` gives three hints, one more each time; `solution("2.1")` shows one way.
#
# **2.1 How long is the sequence?** · 5 minutes · difficulty 1 of 5
#
# `count_tokens(height, width, patch, class_token=True)`: ints → number of tokens (int); ValueError where patches do not fill the picture.

# %% tags=["exercise", "check", "workshop", "nbval-check-output"]
def count_tokens(height, width, patch, class_token=True):
    """Length of the sequence that a ViT reads from a picture of height x width pixels, the [CLS] token counted if
    there is one; ValueError where squares of `patch` pixels do not fill the picture."""
    raise NotImplementedError


check("2.1", count_tokens);

# %% [markdown]
# **2.2 Back to a picture** · 15 minutes · difficulty 3 of 5
#
# `unpatchify(patches, patch, height, width)`: (B, N, C P P) → (B, C, height, width), the inverse of `patchify`.

# %% tags=["exercise", "check", "nbval-check-output"]
def unpatchify(patches, patch, height, width):
    """Put patches back together: (B, N, C P P) -> (B, C, height, width), patches row by row, each in the order
    (C, P, P)."""
    raise NotImplementedError


check("2.2", unpatchify);

# %% [markdown]
# **2.3 Attention with a mask** · 15 minutes · difficulty 3 of 5
#
# `masked_attention(q, k, v, mask=None)`: q (..., N, D_h), k (..., M, D_h), v (..., M, D_v), mask bool (N, M), True = may look → (..., N, D_v).

# %% tags=["exercise", "check", "nbval-check-output"]
def masked_attention(q, k, v, mask=None):
    """softmax(q k^T / sqrt(D_h)) v, each query over the keys it may look at: q (..., N, D_h), k (..., M, D_h),
    v (..., M, D_v), mask bool (N, M), True where query n may look at key m -> (..., N, D_v)."""
    raise NotImplementedError


check("2.3", masked_attention);

# %% [markdown]
# **2.4 Counting a ViT** · 15 minutes · difficulty 3 of 5
#
# `vit_parameters(image, patch, width, depth, classes)`: trainable numbers (int); for ViT-B/16 at 224 pixels and 1000 classes 86,567,656.

# %% tags=["exercise", "check", "nbval-check-output"]
def vit_parameters(image, patch, width, depth, classes):
    """Trainable numbers of a ViT for square pictures with 3 channels: patch embedding, [CLS] token, learned positions,
    `depth` pre-norm blocks with an MLP four times as wide, last norm, linear head; biases everywhere."""
    raise NotImplementedError


check("2.4", vit_parameters);

# %% [markdown]
# **2.5 Positions for another size** · 20 minutes · difficulty 4 of 5
#
# `interpolate_positions(positions, old, new)`: (1 + N, D) with [CLS] first, grids (rows, columns) → (1 + N', D), bilinear, half-pixel centres.

# %% tags=["exercise", "check", "nbval-check-output"]
def interpolate_positions(positions, old, new):
    """Positions (1 + N, D), the first for [CLS], of a grid `old` = (rows, columns) on a grid `new`: bilinear in 2-D
    with half-pixel centres -> (1 + N', D); the first row stays as it is."""
    raise NotImplementedError


check("2.5", interpolate_positions);

# %% [markdown]
# **2.6 Attention rollout** · 10 minutes · difficulty 3 of 5
#
# `attention_rollout(maps)`: (L, N, N), first layer first → (N, N), how much of each input token is in each output token.

# %% tags=["exercise", "check", "nbval-check-output"]
def attention_rollout(maps):
    """Which input token each output token draws on, through all layers: maps (L, N, N), first layer first, rows sum
    to 1 -> (N, N), the product of (A + I) / 2, the last layer leftmost (Abnar & Zuidema 2020)."""
    raise NotImplementedError


check("2.6", attention_rollout);

# %% [markdown]
# **2.7 Experiment: who notices the order?** · 20 minutes · difficulty 3 of 5
#
# `order_matters(encoder, x, positions, order)`: x (B, 1 + N, D), positions (1 + N, D), order (N,) → {"bag", "fixed", "moved", "causal"}: the largest change of [CLS]'s output (float).

# %% tags=["exercise", "check", "nbval-check-output"]
def order_matters(encoder, x, positions, order):
    """Experiment: the largest absolute change of [CLS]'s output, encoder(...)[:, 0], when the patches of x
    (B, 1 + N, D) are put in `order` (N,), [CLS] staying in front, as a dict of four floats. "bag": without positions
    (1 + N, D); "fixed": they are added after the shuffle; "moved": before it; "causal": as "fixed", causal mask."""
    raise NotImplementedError


check("2.7", order_matters);

# %% [markdown]
# **2.8 Your own way in** · 45 minutes · difficulty 5 of 5 · open
#
# Change how the picture becomes tokens, at equal steps and with three seeds: two strided convolutions instead of one, overlapping patches, or fixed sin-cos positions. Does the gap to the ResNet at few pictures close? `solution("2.8")` asks you four questions.

# %% tags=["check", "nbval-check-output"]
check("2.8");

# %% [markdown] tags=["workshop"]
# ## What you can now claim
#
# - A picture is a sequence of patches, and the encoder that reads it reads words as well. Sharing a sequence makes fusion possible; training makes it mean something.
# - Attention relates any two places in one layer, and pays for it with the square of the number of tokens.
# - A ViT starts with less knowledge than a CNN. Shuffled patches and an unseen half of the picture show what is missing; data have to replace it.
#
# **Read on.** Dosovitskiy et al. 2021, [An Image is Worth 16x16 Words](https://arxiv.org/abs/2010.11929): section 4.3 for data against bias, appendix D for positions. Vaswani et al. 2017, [Attention Is All You Need](https://arxiv.org/abs/1706.03762): where the block comes from. Touvron et al. 2021, [DeiT](https://arxiv.org/abs/2012.12877): how far a better recipe takes a ViT on ImageNet alone. Raghu et al. 2021, [Do Vision Transformers See Like Convolutional Neural Networks?](https://arxiv.org/abs/2108.08810): attention distances at scale.
#
# **Next: 03 MAE.** Labels are what a ViT needs most and what we have least. Hide three quarters of the picture and let it guess the rest.

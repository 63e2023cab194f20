# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["workshop", "slide"]
# # 05 · SimCLR: two views, one network, a head that is thrown away
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/vision-to-language/vision-to-language/blob/main/notebooks/05_simclr.ipynb)
#
# **The claim.** No memory bank, no special architecture: two random augmentations of each picture, one encoder, a small head and a contrastive loss are enough to learn features without labels. What matters is *which* augmentations, and where the head stands. (Chen, Kornblith, Norouzi & Hinton, 2020, [arXiv 2002.05709](https://arxiv.org/abs/2002.05709))
#
# **What you will have at the end.** Augmentations of whole batches, built and timed; SimCLR in ten lines; a curve that shows how far it gets with 10, 50 and 500 labels per class, beside the same network trained from scratch and a random one; and one small experiment for each part of the recipe.
#
# **Where we are.** Before: 04, contrastive learning, where the loss comes from. Next: 06, DINO, which does without negatives. You need `lessons.fit` (lesson 01) and NT-Xent (lesson 04).
#
# | section | minutes of reading | in the 45-minute cut |
# |---|---|---|
# | 1 Views | 15 | the first part |
# | 2 Encoder, head, loss | 8 | yes |
# | 3 The colour shortcut | 12 | yes |
# | 4 How many labels does it save? | 10 | yes |
# | 5 The head that is thrown away | 12 | |
# | 6 Batch size and temperature | 12 | |
# | 7 Where it falls short | 8 | |
# | 8 Claims and exercises | 10, then 60 to 120 of practice | exercise 5.1 |

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
from lessons import augment, claims, data, figures, objectives, probes, training
from lessons.exercises import check, hint, solution

run = lessons.start(5)
print(claims.reference_times(5))
plt = figures.pyplot()

# %% [markdown] tags=["workshop"]
# ## 1 Views
#
# SimCLR sees a picture only through random changes. Here is one picture eight times under each of them, alone, and at last under all together. Look along a row: what changes, and what never does?

# %% tags=["workshop"]
splits = data.pictures(
    source=run.source, world="big", device=run.device, train=run.pick(smoke=1_000, cpu=20_000, gpu=None),
    val=run.pick(smoke=200, cpu=2_000, gpu=5_000), test=run.pick(smoke=300, cpu=2_000, gpu=None),
)
AREA = run.pick(smoke=(0.5, 1), cpu=(0.5, 1), gpu=(0.2, 1))              # how much of a picture a crop keeps
alone = {
    "crop": partial(augment.random_resized_crop, size=32, scale=AREA),
    "flip": augment.random_flip,
    "jitter": partial(augment.color_jitter, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, p=0.8),
    "grey": partial(augment.random_grayscale, p=0.2),
    "blur": partial(augment.gaussian_blur, kernel_size=3, p=0.5),
    "all": partial(augment.simclr, scale=AREA, blur=3),
}
chance = torch.Generator(run.device).manual_seed(run.seed)
eight = splits.train.images[1].expand(8, -1, -1, -1).float() / 255       # (8, 3, 32, 32), the same picture
_, axes = figures.panels(len(alone), 9, width=0.95)
for row, (name, change) in enumerate(alone.items()):
    for column, picture in enumerate([eight[0], *change(eight, generator=chance)]):
        axes[9 * row + column].imshow(figures.to_image(picture))
    axes[9 * row].set_ylabel(name, rotation=0, ha="right", va="center")
axes[0].set_title("original", fontsize=8, fontweight="normal", loc="center");

# %% [markdown] tags=["workshop"]
# Each picture of a batch gets its own crop, its own colours. One draw per *batch* is a common mistake, and so is the same draw for both views. The paper's crops keep 8 % to 100 % of the area, on pictures of 224 pixels; at 32 pixels 8 % are nine pixels a side, so ours keep more. As in the paper's CIFAR-10 runs, blur is left out of the recipe from here on.

# %% [markdown]
# How can one call crop each picture differently? Cropping and resizing are *linear*, so a crop is a matrix. **Pass 1, by hand:** a row of four pixels with names; keep the middle two, enlarge them to four again.

# %% tags=["nbval-check-output"]
pixels = {"sky": 10.0, "roof": 20.0, "wall": 30.0, "grass": 40.0}
centres = [1 + 2 / 4 * (i + 0.5) for i in range(4)]  # where the new pixels lie: 1.25, 1.75, 2.25, 2.75
for centre in centres:
    # a triangle; outside the box: nothing
    weights = [max(0, 1 - abs(j + 0.5 - centre)) if 1 <= j < 3 else 0 for j in range(4)]
    weights = [w / sum(weights) for w in weights]
    value = sum(w * v for w, v in zip(weights, pixels.values()))
    print(f"new pixel at {centre}: " + " + ".join(f"{w:.2f} {name}" for w, name in zip(weights, pixels) if w)
          + f" = {value:.1f}")

# %% [markdown]
# The weights are a matrix $R$, new pixels × old pixels. Rows and columns are treated alike, so a crop of a picture $x$ is $R\,x\,C^\top$, with one pair of matrices per picture. **Pass 2, as a loop** that crops one picture after the other, and **pass 3, vectorised.**

# %% tags=["nbval-check-output"]
def crops_loop(x, top, left, height, width, size):
    """x (B, 3, H, W), a box per picture in whole pixels -> (B, 3, size, size), one picture at a time."""
    boxes = zip(x, top.int(), left.int(), height.int(), width.int())
    return torch.cat([F.interpolate(p[None, :, t : t + h, l : l + w], (size, size), mode="bilinear", antialias=True)
                      for p, t, l, h, w in boxes])


def crop_matrix(start, length, old, new):
    """Weights (B, new, old) along one axis, for boxes from start (B,) of length (B,)."""
    start, length = start[:, None, None], length[:, None, None]
    centre = start + length / new * (torch.arange(new, device=start.device) + 0.5)[:, None]   # (B, new, 1)
    pixel = torch.arange(old, device=start.device) + 0.5
    weight = (1 - (pixel - centre).abs() / (length / new).clamp(min=1)).clamp(min=0)          # wider when shrinking
    weight = weight * ((pixel > start) & (pixel < start + length))
    return weight / weight.sum(2, keepdim=True)


def crops(x, top, left, height, width, size):
    R, C = crop_matrix(top, height, x.shape[2], size), crop_matrix(left, width, x.shape[3], size)
    return R[:, None] @ x @ C[:, None].mT                                # (B, 3, size, size)


x = splits.train.images[:6].float() / 255
box = torch.tensor([[3.0, 9, 20, 14], [0, 0, 32, 32], [10, 2, 9, 9], [8, 8, 24, 20], [1, 20, 31, 12], [5, 4, 10, 28]],
                   device=run.device).T
print("loop and matrices agree:", torch.allclose(crops_loop(x, *box, 32), crops(x, *box, 32), atol=1e-4))
print("equal to the package's: ", torch.allclose(crops(x, *box, 32), augment.resized_crop(x, *box, 32), atol=1e-4))

# %% [markdown]
# **Pass 4** is `augment.simclr`: a chain of such steps, each drawing its numbers once per picture. The usual way is different: a `DataLoader` whose workers take one PIL picture after another. Same distributions (the package's tests compare the two), another speed.
#
# *Predict first:* how many times as many views per second, on one core (or on your GPU)?
#
# <details><summary>Answer</summary>The printed lines say it for your machine. One picture at a time costs a few calls of Python per picture and step; a batch costs them once, and the work itself is matrix products.</details>

# %%
from torch.utils.data import DataLoader

from lessons.compat import import_torchvision

import_torchvision()
from torchvision.transforms import v2

one_by_one = v2.Compose([v2.RandomResizedCrop(32, scale=AREA), v2.RandomHorizontalFlip(),
                         v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
                         v2.RandomGrayscale(0.2), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
count = run.pick(smoke=64, cpu=1_024, gpu=2_048)
files = [v2.functional.to_pil_image(picture) for picture in splits.train.images[:count].cpu()]
loader = DataLoader(files, 128, collate_fn=lambda batch: torch.stack([one_by_one(p) for p in batch for _ in range(2)]))


def views_per_second(batches):
    """Goes through the batches of views twice and times the second pass."""
    for _ in range(2):
        start = time.perf_counter()
        total = sum(len(views) for views in batches())
    return total / (time.perf_counter() - start)


recipe = partial(augment.simclr, scale=AREA)
on_device = lambda: ((views := torch.cat(augment.two_views(part, recipe)), views[-1, 0, 0, 0].item())[0]
                     for part in splits.train.images[:count].split(128))
speeds = [training.side_by_side([partial(views_per_second, batches)], run.device)[0]
          for batches in (lambda: loader, on_device)]
for name, speed in zip(("PIL in a DataLoader", f"batches on {run.device.type}"), speeds):
    print(f"{name:20} {speed:8,.0f} views per second, {speed / speeds[0]:4.1f} times the first line")

# %% [markdown] tags=["workshop"]
# More workers multiply the first line, at most by the number of cores, which the training wants as well. A GPU waits for them all the same. Keep this in mind when somebody says contrastive learning is slow: often it is the loader.
#
# ## 2 Encoder, head, loss
#
# The rest is short. An encoder $f$ gives $h=f(x)$; a head $g$ with one hidden layer gives $z$; the loss pulls the two $z$ of a picture together and pushes all others away:
#
# $$h=f(x)\qquad z=W_2\,\mathrm{ReLU}(W_1 h)\qquad \ell_{i,j}=-\log\frac{\exp(\mathrm{sim}(z_i,z_j)/\tau)}{\sum_{k\ne i}\exp(\mathrm{sim}(z_i,z_k)/\tau)}$$
#
# This is NT-Xent from lesson 04, now on $2B$ views. After training the head is thrown away and $h$ is used. Why one would train a head to throw it away is section 5.

# %% tags=["workshop", "nbval-check-output"]
from lessons.nets import simclr


class SimCLR(nn.Module):
    """(B, 3, H, W) -> z (B, out). What is kept afterwards is the encoder."""

    def __init__(self, encoder, out=64):
        super().__init__()
        D = encoder.out_features
        self.encoder = encoder                                           # f: (B, 3, H, W) -> (B, D)
        self.head = nn.Sequential(nn.Linear(D, D), nn.ReLU(), nn.Linear(D, out))   # g: W_1, ReLU, W_2

    def forward(self, x):
        return self.head(self.encoder(x))


ours, tested = SimCLR(simclr.SmallEncoder(8)), simclr.SimCLR(simclr.SmallEncoder(8))
tested.load_state_dict(ours.state_dict())
x = torch.randn(6, 3, 16, 16)
print("equal to the package's:", torch.equal(ours(x), tested(x)))
z = F.normalize(ours(x).detach(), dim=1)  # rows 0..2: first views, rows 3..5: second views
others = [[math.exp(z[i] @ z[k] / 0.5) for k in range(6) if k != i] for i in range(6)]
by_hand = sum(-math.log(math.exp(z[i] @ z[(i + 3) % 6] / 0.5) / sum(others[i])) for i in range(6)) / 6
print("the formula in loops equals objectives.nt_xent:",
      math.isclose(by_hand, objectives.nt_xent(*ours(x).chunk(2), 0.5).item(), rel_tol=1e-4))

# %% [markdown] tags=["workshop"]
# As always, one batch by heart first. An untrained network guesses among the $2B-1$ other views, so the loss should fall from about $\ln(2B-1)$.
#
# To keep a few dozen trainings within minutes, pictures shrink to 16 pixels on a CPU, and the encoder is the convolutional body of lesson 01. The paper used a ResNet-50, batches of 4096 and the optimiser LARS; LARS is for batches of thousands, and AdamW will do here.

# %% tags=["workshop"]
def shrink(split):
    """Half the width and height: (N, 3, 16, 16)."""
    return replace(split, images=F.avg_pool2d(split.images.float(), 2).round().to(torch.uint8))


smaller = run.pick(smoke=shrink, cpu=shrink, gpu=lambda split: split)
train_set, val_set, test_set = (smaller(split) for split in splits)
SIZE = train_set.images.shape[-1]
B, STEPS = run.pick(smoke=32, cpu=128, gpu=512), run.pick(smoke=4, cpu=150, gpu=900)
cropping = [partial(augment.random_resized_crop, size=SIZE, scale=AREA), augment.random_flip]
colouring = [partial(augment.color_jitter, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, p=0.8),
             partial(augment.random_grayscale, p=0.2)]
RECIPES = {"crop": augment.compose(*cropping), "colour": augment.compose(*colouring),
           "crop + colour": augment.compose(*cropping, *colouring)}


def small():
    return simclr.SmallEncoder(run.pick(smoke=4, cpu=16, gpu=32))


def adamw(net, batch):
    return torch.optim.AdamW(training.parameter_groups(net, 1e-4), lr=3e-3 * math.sqrt(batch / 128))


# %% [markdown] tags=["workshop"]
# One function prepares every SimCLR of this lesson: a fresh network, and the job of training it.

# %% tags=["workshop"]
def prepare(recipe="crop + colour", head="mlp", tau=0.1, seed=0, steps=STEPS, batch=B, pictures=train_set,
            objective=objectives.nt_xent, encoder=small, optimizer=adamw, title="SimCLR", **more):
    """A fresh network, and the job of training it on two views of each picture."""
    torch.manual_seed(seed)
    net = run.place(simclr.SimCLR(encoder(), head, **more), "conv")
    views = lambda x, generator: torch.cat(augment.two_views(x, RECIPES[recipe], generator=generator))   # (2B, 3, H, W)
    loss = lambda net, batch: objective(*net(batch[0]).chunk(2), tau)
    batches = training.batches(pictures, batch, seed=seed, augment=views)
    return net, partial(lessons.fit, net, loss, batches, steps=steps, optimizer=optimizer(net, batch),
                        precision=run.precision("conv"), title=title)


net, _ = prepare()
two = augment.two_views(train_set.images[:32], RECIPES["crop + colour"], generator=chance)
pair = training.to_input(torch.cat(two))                                 # (64, 3, H, W)
by_heart = partial(lessons.fit, net, lambda net, x: objectives.nt_xent(*net(x).chunk(2), 0.1), [pair] * 60,
                   steps=run.pick(smoke=5, cpu=60, gpu=60), optimizer=adamw(net, 128), title="one batch")
history, = training.side_by_side([by_heart], run.device)
print(f"loss at first {history.loss[0]:.2f} (ln 63 = {math.log(63):.2f}), at last {history.loss[-1]:.3f}")

# %% [markdown] tags=["workshop"]
# ## 3 The colour shortcut
#
# Before any training: two crops of one picture share their colours. So take a *colour histogram*, which counts how often each of 64 colours occurs and knows nothing of where. Among 256 pictures, how often does the histogram of one view find the other view of its picture?
#
# *Predict first:* for crops alone, and for crops with changed colours.
#
# <details><summary>Answer</summary>Crops of one picture share most of their colours, so counting them finds many partners. Once the colours change, hardly any.</details>

# %% tags=["workshop"]
def histogram(x, bins=4):
    """How often each of bins³ colours occurs: x (B, 3, H, W) in [0, 1] -> (B, bins³)."""
    part = (x * bins).long().clamp(max=bins - 1)                         # (B, 3, H, W)
    colour = ((part[:, 0] * bins + part[:, 1]) * bins + part[:, 2]).flatten(1)   # (B, H W), a number per pixel
    counts = torch.zeros(len(x), bins**3, device=x.device)
    return counts.scatter_add_(1, colour, torch.ones_like(colour, dtype=counts.dtype))


def finds_its_partner(describe, recipe, group=256):
    """Share of views that find the other view of their picture among `group` pictures, by cosine."""
    same_draws = torch.Generator(run.device).manual_seed(1)
    views = augment.two_views(test_set.images[:1_792], RECIPES[recipe], generator=same_draws)
    a, b = (F.normalize(describe(view), dim=1) for view in views)
    return sum(probes.recall_at(p @ q.T) * len(p) for p, q in zip(a.split(group), b.split(group))) / len(a)


by_colour = {name: finds_its_partner(histogram, name) for name in ("crop", "crop + colour")}
found = "finds" if by_colour["crop"] > 0.5 else "rarely finds"
figures.bars(by_colour, title=f"A histogram of colours {found} the other crop", x="right partner among 256 pictures",
             marks={"guessing": 1 / 256});

# %% [markdown] tags=["workshop"]
# So there is a way to solve the task of section 2 without looking at any shape, and a network takes the easy way. Train three encoders: on crops alone, on changed colours alone, on both. For each, two questions: how well does it solve its own task (**contrastive accuracy**), and how good are its features $h$ for naming what the picture shows (a **linear probe**: one linear layer on frozen features, here by least squares)?
#
# These trainings differ in nothing but the recipe. Along with them, so that no core is idle, train the long one that section 4 needs, and other heads for section 5.

# %% tags=["workshop"]
def sgd(net, batch):
    """As in lightly's CIFAR-10 benchmark: for the long training on a GPU."""
    return torch.optim.SGD(training.parameter_groups(net, 5e-4), lr=0.06 * batch / 128, momentum=0.9)


LONG = run.pick(smoke={"steps": 6}, cpu={"steps": 500},
                gpu={"steps": 8_800, "tau": 0.2, "encoder": simclr.ResNet18, "optimizer": sgd, "out": 128,
                     "norm": True})
main, job = prepare(**LONG, title="the long one")
kept = {"steps": LONG["steps"], "batch": B, "pictures": len(train_set), "data": train_set.name, "area": AREA,
        "tau": LONG.get("tau", 0.1)}
jobs = [partial(training.remember, "05-simclr", main, kept, job)]
LENGTHS = run.pick(smoke=(4, 6), cpu=(150, 500), gpu=(900, 3_600))
plans = {("mlp", LENGTHS[1]): {"steps": LENGTHS[1]}} if LENGTHS[1] != LONG["steps"] else {}
plans |= {(head, steps): {"head": head, "steps": steps} for steps in reversed(LENGTHS) for head in simclr.HEADS
          if (head, steps) != ("mlp", LENGTHS[1])}
plans |= {("colour", steps): {"recipe": "colour", "steps": steps} for steps in reversed(LENGTHS)}
plans |= {("crop", LENGTHS[0]): {"recipe": "crop"}}
nets = {("mlp", LENGTHS[1]): main}
for name, settings in plans.items():
    nets[name], job = prepare(**settings, title=str(name))
    jobs.append(job)
history, *_ = training.side_by_side(jobs, run.device)
nets |= {("crop + colour", steps): nets["mlp", steps] for steps in LENGTHS}
print(f"the long training: {LONG['steps']:,} steps of {B} pictures, {history.seconds:.0f} s")

# %% tags=["workshop", "slide"]
labelled = train_set[: run.pick(smoke=300, cpu=5_000, gpu=45_000)]


def probe(encoder, known=labelled, val=val_set, test=test_set):
    """Test accuracy of a linear layer on frozen features, fitted to the labels of `known`."""
    parts = [(training.predict(encoder, split.images), split.labels) for split in (known, val, test)]
    return probes.ridge_probe(*(tensor for part in parts for tensor in part), strengths=(0.001, 0.01, 0.1, 1, 10))


torch.manual_seed(run.seed)
random_encoder = run.place(small(), "conv")
shown = [(recipe, steps) for steps in LENGTHS for recipe in RECIPES if (recipe, steps) in nets]
label = lambda recipe, steps: recipe if steps == LENGTHS[0] else f"{recipe}, {steps:,} steps"
own_task = {label(*key): finds_its_partner(partial(training.predict, nets[key]), key[0]) for key in shown}
useful = {label(*key): probe(nets[key].encoder) for key in shown} | {"random encoder": probe(random_encoder)}
_, (left, right) = plt.subplots(1, 2, figsize=(10, 2.9))
figures.bars(own_task, title=f"Its own task: {max(own_task, key=own_task.get)} is easiest",
             x="contrastive accuracy, 256 pictures", axis=left)
figures.bars(useful, title=f"Naming it: {max(useful, key=useful.get)} is best",
             x="accuracy of a probe on h", controls=["random encoder"], axis=right,
             marks={"guessing": 1 / len(train_set.classes)});

# %% [markdown] tags=["workshop"]
# The encoder that finds its partners most surely is not the one that knows most. Contrastive accuracy, and the loss, say how easy the task was, not how much was learned. A task that is solved early has nothing more to teach, and a hard one takes time: compare the two longer trainings.
#
# The popular summary is “colour matters most”. In the paper it is the *composition*: crops alone reach 33.1 %, colour alone 18.8 %, both together 56.3 % (figure 5). Compare with the bars. In our scenes each object stands elsewhere, and once its colour changes only the outline is left to go by. In photographs the layout gives the picture away, and colour alone teaches less. The views decide what is learned, and the data decide what the views give away.
#
# The same encoders, answering with pictures: each column is a test picture and, below it, its three nearest pictures of the training set. Look for what neighbours have in common.

# %% tags=["workshop"]
def show_neighbours(recipe="crop + colour"):
    """Eight test pictures and their three nearest in the space of h."""
    longest = max((key for key in shown if key[0] == recipe), key=lambda key: key[1])
    encoder = nets[longest].encoder
    h, stored = (F.normalize(training.predict(encoder, images), dim=1)
                 for images in (test_set.images[:8], labelled.images))
    nearest = (h @ stored.T).topk(3).indices                             # (8, 3)
    figures.grid(torch.cat([splits.test.images[:8], *splits.train.images[nearest.T]]), columns=8, width=0.7,
                 title=f"{recipe}: a picture and its nearest")
    plt.show()


show_neighbours("crop")
figures.explore(show_neighbours, recipe=["crop + colour", "colour", "crop"])

# %% [markdown] tags=["workshop"]
# ## 4 How many labels does it save?
#
# The promise of learning without labels is that a few labels then suffice. Take 10, 50 or 500 labelled pictures per class, drawn three times, and compare:
#
# - a **linear probe** on the $h$ of the long SimCLR training, encoder frozen;
# - the same encoder **fine-tuned**, as the paper does with 1 % and 10 % of ImageNet's labels;
# - the same network **from scratch**, as usual with light augmentation (small shifts, mirroring);
# - once more from scratch, with SimCLR's augmentations and the same steps: a harder baseline, which has everything but the pictures without labels;
# - the control: a linear probe on a **random encoder**.
#
# *Predict first:* who is ahead at 10, and who at 500?
#
# <details><summary>Answer</summary>At 10, whoever has seen many pictures, labelled or not. At 500 the labels themselves say nearly all there is to say, and a frozen encoder is a handicap.</details>

# %% tags=["workshop"]
# how many labels per class, and how many steps with them
FEW = run.pick(smoke={2: 3, 5: 3}, cpu={10: 250, 50: 250, 500: 250}, gpu={10: 500, 50: 1_000, 500: 3_000})
SEEDS = run.pick(smoke=(0, 1), cpu=(0, 1, 2), gpu=(0, 1, 2))
kind_of = LONG.get("encoder", small)


def subset(count, seed):
    """`count` training pictures of each class."""
    order = torch.randperm(len(train_set), generator=torch.Generator().manual_seed(seed)).to(run.device)
    return train_set[torch.cat([order[train_set.labels[order] == k][:count] for k in range(len(train_set.classes))])]


def prepare_classifier(few, steps, seed, start=None, recipe=RECIPES["crop + colour"]):
    """A classifier and the job of training all of it; `start` is the encoder whose weights it begins with."""
    torch.manual_seed(seed)
    encoder = kind_of()
    net = run.place(nn.Sequential(encoder, nn.Linear(encoder.out_features, len(train_set.classes))), "conv")
    if start is not None:
        encoder.load_state_dict(start.state_dict())
    optimizer = torch.optim.AdamW(training.parameter_groups(net, 0.05), lr=3e-3 if start is None else 1e-3)
    batches = training.batches(few, min(64, len(few)), seed=seed, augment=recipe)
    return net, partial(lessons.fit, net, training.cross_entropy, batches, steps=steps, optimizer=optimizer,
                        precision=run.precision("conv"))


light = partial(augment.crop_flip, padding=2)
plans = {("fine-tuned", count, seed): {"start": main.encoder} for count in FEW for seed in SEEDS}
plans |= {("from scratch", count, seed): {} for count in FEW for seed in SEEDS}
plans |= {("scratch, light augmentation", count, 0): {"recipe": light} for count in FEW}
ready = {key: prepare_classifier(subset(key[1], key[2]), FEW[key[1]], key[2], **settings) for key,
         settings in plans.items()}
training.side_by_side([job for _, job in ready.values()], run.device)
scores = {key: training.accuracy(net, test_set) for key, (net, _) in ready.items()}
torch.manual_seed(run.seed)
untrained = run.place(kind_of(), "conv")
for count in FEW:
    for seed in SEEDS:
        scores["SimCLR, probe", count, seed] = probe(main.encoder, subset(count, seed))
        scores["random, probe", count, seed] = probe(untrained, subset(count, seed))

# %% tags=["workshop", "slide"]
kinds = {"fine-tuned": figures.GREEN, "SimCLR, probe": figures.BLUE, "from scratch": figures.RED,
         "scratch, light augmentation": figures.ORANGE, "random, probe": figures.GREY}
drawn = {kind: {count: [scores[kind, count, seed] for seed in SEEDS if (kind, count, seed) in scores]
                for count in FEW} for kind in kinds}
mean = lambda values: sum(values) / len(values)
fewest = min(FEW)
at = {kind: f"{100 * mean(drawn[kind][fewest]):.0f} %" for kind in kinds}
title = (f"{fewest} labels per class: {at['scratch, light augmentation']} from scratch, "
         f"{at['from scratch']} with SimCLR's views, {at['fine-tuned']} from its weights")
_, axis = plt.subplots(figsize=(8.4, 4.2))
axis.set(xscale="log", ylim=(0, 112), yticks=range(0, 101, 20))
lines = {kind: (list(FEW), [100 * mean(drawn[kind][count]) for count in FEW]) for kind in kinds}
looks = {kind: {"color": kinds[kind], "marker": "o", "linestyle": "--" if "light" in kind else "-"} for kind in kinds}
figures.curves(lines, title=title, x="labelled pictures per class", y="test accuracy (%)", styles=looks, axis=axis,
               baselines={"guessing": 100 / len(train_set.classes)})
for kind, color in kinds.items():
    for count in FEW:
        axis.vlines(count, *(100 * end(drawn[kind][count]) for end in (min, max)), color=color, linewidth=5, alpha=0.35)
axis.set_xticks(list(FEW), [str(count) for count in FEW])
axis.minorticks_off()

# %% [markdown] tags=["workshop"]
# The bars show the spread over three draws of the labels. The random encoder is what a convolution gives for nothing. The two lines from scratch differ only in their augmentations: part of what SimCLR is praised for lies there, in knowledge that somebody put into the recipe. What lies above both comes from pictures without labels.
#
# With many labels the frozen encoder stops improving, and a network that may change all its weights catches up. On scenes fine-tuning keeps the early lead, until labels leave nothing to gain. On CIFAR-10 these few hundred steps give no lead that can be told from chance; the trainings behind published figures are more than a hundred times as long. The paper's figures are of this kind: with 1 % and 10 % of the labels 75.5 % and 87.8 % (top-5, fine-tuned) against 48.4 % and 80.4 % from scratch.
#
# ## 5 The head that is thrown away
#
# The loss compares $z$, yet $h$ is kept. The paper: a head with a hidden layer is about 3 points better than a linear one, and more than 10 better than none; and $h$ is more than 10 points better than $z$.
#
# *Predict first:* of the six numbers per training, three heads times $h$ and $z$, which are equal by construction?
#
# <details><summary>Answer</summary>Without a head z is h.</details>

# %%
by_head = {(head, steps, layer): probe(nets[head, steps].encoder if layer == "h" else nets[head, steps])
           for steps in LENGTHS for head in simclr.HEADS for layer in "hz"}
_, axes = plt.subplots(1, 2, figsize=(10, 2.6), sharey=True)
for axis, steps in zip(axes, LENGTHS):
    values = {f"{head} head, {layer}".replace("none", "no"): by_head[head, steps, layer] for head in simclr.HEADS
              for layer in "hz"}
    figures.bars(values, title=f"After {steps:,} steps", x="accuracy of a probe",
                 controls=[name for name in values
                           if name.endswith("z")], marks={"random": useful["random encoder"]}, axis=axis)

# %% [markdown]
# Look at $h$ against $z$ first, then at the two panels: a head is one more thing to train, and what it brings takes time.
#
# Why should $h$ be better than $z$? The loss asks $z$ to be the *same* for two views, so whatever the augmentations change is a disturbance to it. The head can throw that away, and $h$ need not. Test it: change test pictures in known ways, and let a probe on $h$ or on $z$ tell what was done. Turned means by 0, 90, 180 or 270 degrees, so guessing is right in a quarter of the cases; the other three are questions of yes or no.

# %%
def changed(split, kind):
    """The pictures, some of them changed by `kind`; the label says how."""
    x = split.images.float() / 255
    other = {"turned": [x.rot90(k, (2, 3)) for k in (1, 2, 3)], "grey": [augment.random_grayscale(x, p=1)],
             "half as bright": [x / 2], "blurred": [augment.gaussian_blur(x, 3, (1, 1))]}[kind]
    label = torch.arange(len(x), device=x.device) % (1 + len(other))     # 0: as it was
    for k, new in enumerate(other, 1):
        x = torch.where((label == k)[:, None, None, None], new, x)
    return replace(split, images=(255 * x).round().to(torch.uint8), labels=label)


SOME = run.pick(smoke=200, cpu=3_000, gpu=20_000)
KINDS = ("turned", "grey", "half as bright", "blurred")
tells = {}
for kind in KINDS:
    parts = [changed(split, kind) for split in (labelled[:SOME], val_set, test_set)]
    tells |= {f"{kind}: h": probe(main.encoder, *parts), f"{kind}: z": probe(main, *parts)}
figures.bars(tells, title="What was done to the picture? Asked of h and of z",
             controls=[name for name in tells if name.endswith("z")]);

# %% [markdown]
# $z$ keeps what helps to find partners and lets go of the rest, quarter turns included; one layer earlier more of it is still there. In the paper: rotation 67.6 % from $h$ and 25.6 % from $z$ (chance 25 %), grey or coloured 99.3 % and 97.4 %. Whoever searches or indexes by $z$ loses this for nothing.
#
# And which properties of the *object* lead? Here are scenes whose every attribute we know, drawn on the spot whatever data you trained on. Ask the 20 nearest neighbours for shape and for colour.
#
# *Predict first:* in which space do neighbours share their colour, in which their shape?
#
# <details><summary>Answer</summary>They share what two views share: the colour after crops alone; the shape, once colours are changed.</details>

# %%
from lessons.data.scenes import render

scenes = render("big", run.pick(smoke=600, cpu=5_000, gpu=20_000), seed=9, device=run.device)
objects = smaller(scenes.pictures())
asked = len(objects) // 5
orders = {"random encoder": random_encoder, "crop: h": nets["crop", LENGTHS[0]].encoder,
          "crop + colour, no head: h": nets["none", LENGTHS[1]], "crop + colour: h": main.encoder,
          "crop + colour: z": main}
knows = {}
for attribute in ("shape", "colour"):
    labels = scenes.labels(attribute)
    for name, net in orders.items():
        features = training.predict(net, objects.images)
        knows[attribute, name] = probes.knn_accuracy(features[asked:], labels[asked:], features[:asked], labels[:asked])
_, axes = plt.subplots(1, 2, figsize=(10, 2.6), sharey=True)
for axis, attribute in zip(axes, ("shape", "colour")):
    figures.bars({name: knows[attribute, name] for name in orders}, title=f"Neighbours tell the {attribute}",
                 x="accuracy of 20 neighbours", controls=["random encoder"], axis=axis)

# %% [markdown]
# A space is ordered by what the views of a picture had in common. Neither order is “the right one”. (Colour does not vanish: the hue turns by a tenth of the wheel at most.)

# %% [markdown]
# ## 6 Batch size and temperature
#
# “SimCLR needs huge batches” is the sentence people remember. The paper's table says it with a condition, ImageNet accuracy by batch and epochs:
#
# | batch | 100 epochs | 800 epochs |
# |---|---|---|
# | 256 | 57.5 % | 66.6 % |
# | 4096 | 64.6 % | 68.9 % |
#
# Two things change with the batch: the number of negatives, and, at equal epochs, the number of updates. To separate them, train a small grid on part of the pictures, batches × epochs, and draw the same numbers twice: against epochs, and against updates. The learning rate grows with the square root of the batch (with a linear rule the small batches of the paper do worse, and part of the gap is that).

# %%
POOL, EPOCHS = run.pick(smoke=128, cpu=5_000, gpu=20_000), run.pick(smoke=(1, 2), cpu=(1, 4), gpu=(4, 16))
BATCHES = run.pick(smoke=(16, 32, 64), cpu=(32, 128, 512), gpu=(128, 512, 2_048))


def raw(a, b, tau):
    """NT-Xent of vectors that keep their lengths."""
    z = torch.cat([a, b]).float()
    return F.cross_entropy((z @ z.T / tau).fill_diagonal_(-torch.inf),
                           torch.arange(len(z), device=z.device).roll(len(a)))


grid = {(batch, epochs): prepare(batch=batch, steps=POOL * epochs // batch, pictures=train_set[:POOL],
                                 title=f"batch {batch}") for epochs in reversed(EPOCHS) for batch in BATCHES}
hot = {"not normalised, tau 10": prepare(tau=10.0, objective=raw, title="not normalised")}
training.side_by_side([job for _, job in (grid | hot).values()], run.device)
reached = {key: probe(net.encoder) for key, (net, _) in grid.items()}
_, (left, right) = plt.subplots(1, 2, figsize=(10, 3.2), sharey=True)
for axis, x, unit in ((left, lambda batch, epochs: epochs, "epochs"),
                      (right, lambda batch, epochs: POOL * epochs // batch, "updates")):
    axis.set_xscale("log")
    lines = {f"batch {batch}": ([x(batch, e) for e in EPOCHS], [100 * reached[batch, e] for e in EPOCHS])
             for batch in BATCHES}
    figures.curves(lines, title=f"By {unit}", x=f"{unit} (log scale)", y="accuracy of a probe on h (%)",
                   styles={name: {"marker": "o"} for name in lines}, axis=axis)
    axis.minorticks_off()
left.set_xticks(EPOCHS, [str(e) for e in EPOCHS]);

# %% [markdown]
# Left, at equal epochs, a small batch makes more updates; right, at equal updates, a large batch sees more negatives and more pictures. Our trainings are short, so updates count; the paper's shortest is a hundred passes over 1.3 million pictures, and there the negatives decide, less and less as it gets longer. “Larger is better” means nothing before it is said what is held equal.
#
# Lesson 04 went through the temperatures. One more reading of them: normalise $z$ or not? In the paper the network without normalisation solves its own task *better* (contrastive accuracy about 92 % against 87.8 % at $\tau=0.1$), and its features are worse (57 % against 64.4 %).

# %%
hot = {"tau 0.1": nets["mlp", LENGTHS[0]]} | {name: net for name, (net, _) in hot.items()}
solves = {name: finds_its_partner(partial(training.predict, net), "crop + colour") for name, net in hot.items()}
names_it = {name: probe(net.encoder) for name, net in hot.items()}
_, (left, right) = plt.subplots(1, 2, figsize=(10, 1.9))
figures.bars(solves, title="Its own task", x="contrastive accuracy by cosine, 256 pictures", axis=left)
figures.bars(names_it, title="Naming what is shown", x="accuracy of a probe on h", axis=right);

# %% [markdown]
# Partners are found by cosine in both. The paper trained for a hundred epochs and more; what these short trainings can say about it is in section 8.

# %% [markdown]
# ## 7 Where it falls short
#
# **Invariance is a choice**, and somebody makes it before the task is known. Who sorts birds wants colours, who reads handwriting does not; the last figure of section 5 shows that the recipe has decided for both. Captions, in lesson 08, move this decision to whoever wrote them.
#
# The second weakness is the push. All other pictures of a batch are pushed away, the nearest ones hardest (lesson 04). Who are they?

# %%
z = F.normalize(training.predict(main, test_set.images[:1_000]), dim=1)
hardest = (z @ z.T).fill_diagonal_(-1).argmax(1)
same_kind = (test_set.labels[hardest] == test_set.labels[: len(z)]).float().mean().item()
print(f"the hardest negative of a picture is of its own class in {100 * same_kind:.0f} % of all cases; "
      f"a random one in {100 / len(train_set.classes):.0f} %")

# %% [markdown]
# The better the space, the more often the strongest push goes to a picture that should be near: a false negative. And a batch has to hold enough others for any push at all. Could one do without negatives? Then nothing would keep the space from collapsing. That is the question of lesson 06.
#
# ## 8 What the paper says, what we measured
#
# Verdicts are computed: from three seeds where there are three, else an effect counts when it exceeds twice its standard error on the test pictures. Our setting: small pictures, a small encoder, minutes instead of days.

# %%
table = claims.Claims(run, data=test_set.name)
percent = lambda *values: ", ".join(f"{100 * value:.1f} %" for value in values)
deviation = lambda n, *shares: math.hypot(*(claims.share_error(share, n) for share in shares))
better = lambda a, b, n=None: claims.verdict(a - b, error=deviation(n or len(test_set), a, b))
ahead = lambda kind, other, count: [a - b for a, b in zip(drawn[kind][count], drawn[other][count])]
line = lambda kind: f"{kind} " + percent(*(mean(drawn[kind][count]) for count in FEW))
most, lead_of = max(FEW), partial(ahead, "fine-tuned", "from scratch")
table.add("labels", f"At {fewest} labels per class, SimCLR's weights beat random ones, with the same views.",
          paper="1 % of ImageNet's labels: 75.5 % (top-5, ResNet-50, fine-tuned), 48.4 % from scratch",
          here=f"{', '.join(map(str, FEW))} per class: {line('fine-tuned')}; {line('from scratch')}",
          verdict=claims.verdict(lead_of(fewest)))
plain = "scratch, light augmentation"
table.add("probe", f"At {fewest} per class a probe on frozen features beats the usual training from scratch.",
          paper="STL-10 in the UvA tutorial, 500 per class: 81.3 % against 73.3 %",
          here=f"{line('SimCLR, probe')}; {line(plain)}",
          verdict=better(mean(drawn["SimCLR, probe"][fewest]), mean(drawn[plain][fewest])))
table.add("shrinks", "The lead shrinks as labels grow.", paper="27.1 points at 1 %, 7.4 at 10 % of the labels (top-5)",
          here=", ".join(f"{100 * mean(lead_of(count)):.1f} points at {count}" for count in FEW),
          verdict=claims.verdict([a - b for a, b in zip(lead_of(fewest), lead_of(most))]))
table.add("random", "The features are learned, not given by the architecture.", paper="a control, not in the paper",
          here=line("random, probe"), verdict=claims.verdict(ahead("SimCLR, probe", "random, probe", most)))

# %%
easier = own_task["crop"] > own_task["crop + colour"]
table.add("shortcut", "With crops alone the task gets easier and the features worse.",
          paper="probe: crop 33.1 %, crop + colour 56.3 % (figure 5)",
          here="; ".join(f"{name}: own task {percent(own_task[name])}, probe {percent(useful[name])}"
                         for name in ("crop", "crop + colour")),
          verdict=better(useful["crop + colour"], useful["crop"]) if easier else False)
both_lengths = f"after {' and '.join(map(str, LENGTHS))} steps:"
both, colour = ([useful[label(recipe, steps)] for steps in LENGTHS] for recipe in ("crop + colour", "colour"))
table.add("composition", "Crop and colour together beat colour alone.", paper="56.3 % and 18.8 % (figure 5)",
          here=f"{both_lengths} both {percent(*both)}; colour {percent(*colour)}",
          verdict=better(both[1], colour[1]))
h_of = {head: [by_head[head, steps, "h"] for steps in LENGTHS] for head in simclr.HEADS}
table.add("head", "A head with a hidden layer gives a better h than no head.",
          paper="more than 10 points (section 4.2)",
          here=f"{both_lengths} mlp {percent(*h_of['mlp'])}; none {percent(*h_of['none'])}",
          verdict=better(h_of["mlp"][1], h_of["none"][1]))
table.add("linear", "It is better than a linear head.", paper="about 3 points (section 4.2)",
          here=f"linear {percent(*h_of['linear'])}", verdict=better(h_of["mlp"][1], h_of["linear"][1]))
layers = [by_head["mlp", LENGTHS[1], layer] for layer in "hz"]
table.add("layer", "h is better than z.", paper="more than 10 points (section 4.2)", here=percent(*layers),
          verdict=better(*layers))
table.add("knows", "h knows more than z about what was done to a picture.",
          paper="rotation 67.6 % and 25.6 %; grey or coloured 99.3 % and 97.4 %",
          here="; ".join(f"{kind} {percent(tells[kind + ': h'], tells[kind + ': z'])}" for kind in KINDS),
          verdict=better(*(mean([tells[f"{kind}: {layer}"] for kind in KINDS]) for layer in "hz")))

# %%
least, middle, largest, (short, long) = *BATCHES, EPOCHS
table.add("epochs", "At equal, few epochs a larger batch is better.",
          paper="ImageNet, 100 epochs: 57.5 % at 256, 64.6 % at 4096 (figure 9)",
          here="; ".join(f"epochs {epochs}: {percent(*(reached[b, epochs] for b in BATCHES))}" for epochs in EPOCHS)
               + f" (batch {', '.join(map(str, BATCHES))})",
          verdict=better(reached[largest, short], reached[least, short]))
table.add("updates", "At equal updates a larger batch is better.", paper="not compared at equal updates",
          here=f"{POOL * short // least} updates: {percent(reached[middle, long])} at {middle}, "
               f"{percent(reached[least, short])} at {least}",
          verdict=better(reached[middle, long], reached[least, short]))
raw_value, unit_value = names_it["not normalised, tau 10"], names_it["tau 0.1"]
table.add("normalise", "Without normalising z the features are worse.", paper="57.2 % (tau 10) and 64.4 % (tau 0.1)",
          here=percent(raw_value, unit_value), verdict=better(unit_value, raw_value))
kept_colour = [knows["colour", name] for name in ("crop: h", "crop + colour: h", "crop + colour: z")]
table.add("invariance", "What the views do not share is lost: colour.",
          paper="not in the paper; an experiment on scenes",
          here=f"colour by neighbours: crop {percent(kept_colour[0])}; both {percent(*kept_colour[1:])} (h, z)",
          verdict=better(*kept_colour[:2], asked))
features = [training.predict(main.encoder, split.images) for split in (labelled, test_set)]
neighbours = probes.knn_accuracy(features[0], labelled.labels, features[1], test_set.labels)
goal = run.pick(smoke=claims.UNJUDGED, cpu=claims.UNJUDGED, gpu=neighbours >= 0.8 and history.seconds < 600)
table.add("speed", "On one GPU, neighbours reach 80 % within ten minutes.",
          paper="ResNet-18: 84.8 % in about 88 minutes (200 epochs, lightly); linear 90.7 % (1000 epochs, solo-learn)",
          here=f"{percent(neighbours)} after {history.seconds:.0f} s", verdict=goal)
measured = {f"{kind}, {count}": mean(drawn[kind][count]) for kind in kinds for count in FEW}
measured |= {"neighbours": neighbours, "hardest negative of its class": same_kind}
measured |= {"views per second, PIL": speeds[0], "views per second, device": speeds[1]}
for name, value in measured.items():
    table.number(name, value)
table.show()

# %% [markdown] tags=["workshop"]
# ## Exercises
#
# Write the function, run the check, read what it says. `hint("5.1")` gives three hints, one more each time; `solution("5.1")` shows one way. `lessons.progress()` remembers.

# %% [markdown] tags=["workshop"]
# **5.1 A colour histogram** · 10 minutes · difficulty 1 of 5
#
# `colour_histogram(images, bins)`: uint8 (N, 3, H, W) → share of each of bins ** 3 colours, float (N, bins ** 3).

# %% tags=["exercise", "check", "workshop", "nbval-check-output"]
def colour_histogram(images, bins):
    """The share of each colour in each picture. images uint8 (N, 3, H, W); 0..255 is cut into `bins` equal parts per
    channel, and the colour in parts (r, g, b) has the number (r * bins + g) * bins + b -> float (N, bins ** 3)"""
    raise NotImplementedError


check("5.1", colour_histogram);

# %% [markdown]
# **5.2 The learning rate and the batch** · 10 minutes · difficulty 1 of 5
#
# `learning_rate(step, steps, warmup, batch, rule)`: linear warm-up to a peak that depends on the batch, then half a cosine → float.

# %% tags=["exercise", "check", "nbval-check-output"]
def learning_rate(step, steps, warmup, batch, rule):
    """SimCLR's learning rate at a step (0 .. steps - 1): the peak is 0.3 * batch / 256 (rule "linear") or 0.075 *
    sqrt(batch) ("sqrt"), else ValueError; it rises as (step + 1) / warmup over the first `warmup` steps, then falls
    along half a cosine that begins at the peak at step `warmup` and would reach 0 at step `steps` -> float"""
    raise NotImplementedError


check("5.2", learning_rate);

# %% [markdown]
# **5.3 Jitter, per picture** · 15 minutes · difficulty 2 of 5
#
# `jitter(x, brightness, contrast)`: pictures (B, 3, H, W) in [0, 1], factors (B,) → the changed pictures, (B, 3, H, W).

# %% tags=["exercise", "check", "nbval-check-output"]
def jitter(x, brightness, contrast):
    """First brightness, then contrast, of each picture by its own factor, clamped to [0, 1] after each. x (B, 3, H, W)
    in [0, 1], factors (B,). Brightness f: f * x; contrast f: f * x + (1 - f) * mean grey of this picture, with grey =
    0.2989 red + 0.587 green + 0.114 blue -> (B, 3, H, W)"""
    raise NotImplementedError


check("5.3", jitter);

# %% [markdown]
# **5.4 Contrastive accuracy** · 10 minutes · difficulty 2 of 5
#
# `contrastive_accuracy(a, b)`: two views (B, D) each → share of the 2B views whose nearest other view is their partner, a float.

# %% tags=["exercise", "check", "nbval-check-output"]
def contrastive_accuracy(a, b):
    """Share of the 2B views that have their partner as the nearest of all other views, by cosine: a, b (B, D) of any
    length, row i of both from picture i -> float in [0, 1]"""
    raise NotImplementedError


check("5.4", contrastive_accuracy);

# %% [markdown]
# **5.5 A probe in closed form** · 20 minutes · difficulty 3 of 5
#
# `ridge_probe(train, labels, test, strength)`: features (n, D), int64 (n,), (m, D) → scores (m, K), without gradient to the features.

# %% tags=["exercise", "check", "nbval-check-output"]
def ridge_probe(train, labels, test, strength):
    """Scores of a linear classifier on frozen features, in closed form. Standardise both sets by mean and deviation
    (torch.std) of train (n, D); targets are one-hot labels minus their mean; W = (X'X / n + strength I)^-1 X'Y / n;
    the scores of test (m, D) are X W plus that mean. No gradient to the features -> (m, K), K = largest label + 1"""
    raise NotImplementedError


check("5.5", ridge_probe);

# %% [markdown]
# **5.6 Blur a whole batch, each picture differently** · 25 minutes · difficulty 4 of 5
#
# `blur_each(x, sigmas, kernel_size)`: pictures (B, 3, H, W), one standard deviation per picture (B,) → (B, 3, H, W), without a loop.

# %% tags=["exercise", "check", "nbval-check-output"]
def blur_each(x, sigmas, kernel_size):
    """Blur each picture by its own standard deviation. x (B, 3, H, W), sigmas (B,), pixels; the Gaussian
    exp(-d^2 / (2 sigma^2)) is cut to kernel_size taps (odd) that sum to one, and used along rows and along columns;
    the picture is reflected at its border -> (B, 3, H, W)"""
    raise NotImplementedError


check("5.6", blur_each);

# %% [markdown]
# **5.7 Experiment: what survives is what the views share** · 30 minutes · difficulty 4 of 5
#
# `what_survives(shared_colour, seed=0)`: a linear SimCLR on a toy world → how much neighbours differ in colour and in shape, 1 meaning like strangers.

# %% tags=["exercise", "check", "nbval-check-output"]
def what_survives(shared_colour, seed=0):
    """Experiment: a picture is [colour, shape] @ mixing, with colour and shape (4,) and a fixed mixing (8, 16), all
    normal. The views of a pair share their shape, and with shared_colour their colour, too; else each draws its own.
    Train a linear map 16 -> 8 with InfoNCE at tau 0.2: 100 steps of 128 pairs, Adam, learning rate 0.03. Then, for
    1,000 new pictures: squared difference to the nearest neighbour by cosine, divided by that of two strangers
    -> {"colour": float, "shape": float}"""
    raise NotImplementedError


check("5.7", what_survives);

# %% [markdown]
# **5.8 Your own invariance** · 45 minutes · difficulty 5 of 5 · open
#
# Add an augmentation (quarter turns, a shuffle of the channels, cut-out) and predict, for colour, shape, pattern and orientation, what the features keep. `solution("5.8")` asks you four questions.

# %% tags=["check", "nbval-check-output"]
check("5.8");

# %% [markdown] tags=["workshop"]
# ## What you can now claim
#
# - SimCLR is two random views, one encoder, a small head and a loss you already knew. You have built each part, and the augmentations as matrix products that leave a loader of single pictures far behind.
# - What is learned is what the views share. Crops alone share their colours, so the network counts colours; the recipe decides what the features know.
# - Where labels are few, pictures without labels are worth most; where they are many, hardly anything. The head takes the loss's side, so that $h$ need not; and “larger batches” is a sentence with a condition.
#
# **Read on.** Chen et al. 2020, [SimCLR](https://arxiv.org/abs/2002.05709): section 3 for the augmentations, section 4.2 for the head. Chen et al. 2020, [SimCLRv2](https://arxiv.org/abs/2006.10029): larger networks and few labels. Chen, Luo & Li 2021, [Intriguing properties of contrastive losses](https://arxiv.org/abs/2011.02803): easy features that suppress others. Tian et al. 2020, [What makes for good views](https://arxiv.org/abs/2005.10243): how much two views should share. The [benchmarks of lightly](https://docs.lightly.ai/self-supervised-learning/getting_started/benchmarks.html): what a GPU hour buys.
#
# **Next: 06 DINO**, which keeps the two views and drops the negatives.

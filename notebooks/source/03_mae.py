# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["workshop", "slide"]
# # 03 · MAE: hide three quarters, paint them back
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/vision-to-language/vision-to-language/blob/main/notebooks/03_mae.ipynb)
#
# **The claim.** Hide 75 % of a picture's patches, let a ViT see the rest, and train it to paint back what is missing. No label is needed, and the encoder that is left fine-tunes better than one trained from scratch. (He et al., 2021, [arXiv 2111.06377](https://arxiv.org/abs/2111.06377))
#
# **What you will have at the end.** A masked autoencoder, from four named patches to the tested network; its pictures beside cheap ways of filling gaps; a curve that shows what it is worth when labels are few, with scratch at equal compute as control; and a measured answer to the question why pictures need 75 % where BERT hides 15 % of its words.
#
# **Where we are.** Before: 02, ViT, which wants more labels than we have. Next: 04, contrastive learning, the other way to do without them. You need the ViT of lesson 02 (`lessons.nets.vit`).
#
# | section | minutes of reading | in the 45-minute cut |
# |---|---|---|
# | 1 The picture, three quarters hidden | 3 | yes |
# | 2 Masking, in four passes | 20 | yes |
# | 3 Train | 8 | yes |
# | 4 What it paints | 10 | yes |
# | 5 What it is worth: few labels | 10 | |
# | 6 What matters: ratio, mask, loss, tokens | 12 | |
# | 7 Why 75 %, and BERT 15 % | 8 | |
# | 8 Where it falls short | 5 | |
# | 9 Claims and exercises | 10, then 60 to 120 of practice | exercise 3.1 |

# %% tags=["setup", "workshop"]
import importlib.util, subprocess, sys
if importlib.util.find_spec("lessons") is None:
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "git+https://github.com/vision-to-language/vision-to-language@main"], check=True)

# %% tags=["setup", "workshop"]
import math
import time
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

import lessons
from lessons import augment, claims, data, figures, probes, training
from lessons.exercises import check, hint, solution
from lessons.nets.vit import Encoder, ViT, patchify, sincos_positions, unpatchify

run = lessons.start(3)
print(claims.reference_times(3))
plt = figures.pyplot()

# %% [markdown] tags=["workshop"]
# ## 1 The picture, three quarters hidden
#
# This is all that the network will get to see: 16 of 64 patches, chosen at random in each picture. Could you name what is there? Could you draw the rest?

# %% tags=["workshop"]
P, N = 4, 64                                                       # 32 x 32 pixels make 8 x 8 patches
pictures = data.pictures(source=run.source, world="close_ups", device=run.device,
                         train=run.pick(smoke=600, cpu=20_000, gpu=None), val=run.pick(smoke=200, cpu=1_000, gpu=5_000),
                         test=run.pick(smoke=300, cpu=2_000, gpu=None))
names, K = pictures.train.classes, len(pictures.train.classes)


def covered(images, hidden):
    """uint8 pictures (B, 3, H, W) with the hidden patches (B, N) in light grey, in [0, 1]."""
    patches = patchify(images, P).float() / 255                    # (B, N, 3 P P)
    return unpatchify(torch.where(hidden[..., None], 0.85, patches), P)


shown = pictures.test.images[:8]
noise = torch.rand(8, N, generator=torch.Generator().manual_seed(2)).to(run.device)
figures.grid(covered(shown, noise.argsort(1).argsort(1) >= 16), columns=8);

# %% [markdown] tags=["workshop"]
# To fill a gap well one has to guess what stands there: its shape, where its edge goes on, how the light falls. A network that learns to guess this must have learned something about things. That is the bet.
#
# ## 2 Masking, in four passes
#
# **Pass 1, by hand.** Four patches with names. Each gets a random number, its noise. The lowest stay, the others are hidden: shuffling by sorting. After the encoder somebody must put everything back at its place, so we keep the way back, `restore`.

# %% tags=["workshop", "nbval-check-output"]
patch_names, toy = ["sky", "roof", "wall", "door"], torch.tensor([0.7, 0.1, 0.9, 0.3])
order = toy.argsort()                                              # patch numbers, lowest noise first
restore = order.argsort()                                          # the inverse: where in that order each patch stands
in_order = [patch_names[i] for i in order]
print("order  ", order.tolist(), in_order, "  visible:", in_order[:2])
print("restore", restore.tolist(), "->", [in_order[i] for i in restore])
print("hidden ", (restore >= 2).tolist(), "for", patch_names)
print("putting back with `order` instead:", [in_order[i] for i in order])

# %% [markdown] tags=["workshop"]
# The last line is the classic mistake. It raises no error: the network trains, with the sky where the door was. **Pass 2, as plain loops, and pass 3, vectorised**, for a batch. Every picture has its own mask.

# %% tags=["workshop", "nbval-check-output"]
def masking_loops(noise, ratio):
    """noise (B, N) -> keep (B, K), hidden (B, N), restore (B, N), as lists."""
    keep, hidden, restore = [], [], []
    for row in noise.tolist():
        ranked = sorted(range(len(row)), key=lambda n: row[n])
        count = int(len(row) * (1 - ratio))                        # rounded down, as in the paper's code
        keep.append(ranked[:count])
        hidden.append([n not in ranked[:count] for n in range(len(row))])
        restore.append([ranked.index(n) for n in range(len(row))])
    return keep, hidden, restore


def masking(noise, ratio):
    order = noise.argsort(dim=1)                                   # (B, N)
    restore = order.argsort(dim=1)                                 # (B, N) the inverse permutation
    count = int(noise.shape[1] * (1 - ratio))                      # K
    return order[:, :count], restore >= count, restore


from lessons import objectives
from lessons.nets import mae

looped, ours, tested = masking_loops(noise, 0.75), masking(noise, 0.75), mae.masking(noise, 0.75)
print("loops and vectorised agree:", all(a == b.tolist() for a, b in zip(looped, ours)))
print("equal to the package's:    ", all(torch.equal(a, b) for a, b in zip(ours, tested)))
print("visible in each picture:   ", (~ours[1]).sum(1).tolist())

# %% [markdown]
# A patch that is taken out of the row no longer knows where it stood. So positions are added *before* anything is dropped. MAE fixes them: sines and cosines of the column in one half of the vector, of the row in the other, from fast to slow (exercise 3.5). Each map shows how similar the position of one patch is to all others. Where is that patch?

# %%
table = sincos_positions(64, (8, 8))                               # (N, D)
places = {"row 1, column 1": 9, "row 3, column 4": 28, "row 6, column 7": 55}
figures.maps((table @ table.T)[list(places.values())].view(3, 8, 8), list(places), width=1.5);

# %% [markdown] tags=["workshop"]
# The positions are fixed sines and cosines: near places have similar vectors, so the grid is known before training starts.
#
# **Pass 4, as a module.** The design has one asymmetry, and it is the point. The *encoder* gets the visible patches only, no placeholder for the others. A small *decoder* gets the encoder's output back at its places, with one learned vector, the **mask token**, in every gap. Mask tokens differ by their positions alone. After training the decoder is thrown away.

# %% tags=["workshop"]
class TinyMAE(nn.Module):
    """Pictures (B, 3, H, W) and noise (B, N) -> predicted patches (B, N, 3 P P) and which were hidden (B, N)."""

    def __init__(self, vit, W):
        super().__init__()
        D, numbers = vit.embed.linear.out_features, vit.embed.linear.in_features
        self.vit, self.into, self.token = vit, nn.Linear(D, W), nn.Parameter(0.02 * torch.randn(W))
        self.register_buffer("position", sincos_positions(W, vit.grid))
        self.decoder, self.predict = Encoder(W, depth=1, heads=2), nn.Linear(W, numbers)

    def forward(self, images, noise, ratio=0.75):
        keep, hidden, restore = masking(noise, ratio)
        x = self.vit.embed(images) + self.vit.position                       # (B, N, D) positions first
        x = x.gather(1, keep[..., None].expand(-1, -1, x.shape[2]))          # (B, K, D) then drop
        z = self.into(self.vit.encoder(x))                                   # (B, K, W)
        gaps = self.token.expand(len(z), hidden.shape[1] - z.shape[1], -1)   # (B, N - K, W)
        z = torch.cat([z, gaps], dim=1)                                      # (B, N, W) in the order of the noise
        z = z.gather(1, restore[..., None].expand_as(z))                     # (B, N, W) each at its place
        return self.predict(self.decoder(z + self.position)), hidden         # (B, N, 3 P P)


# %% [markdown] tags=["workshop"]
# The loss is the mean squared error of the *hidden* patches, the set $M$. Each target patch $\tilde x_i$ is normalised by its own mean and deviation:
#
# $$\mathcal L=\frac1{|M|}\sum_{i\in M}\frac1{3P^2}\lVert\hat x_i-\tilde x_i\rVert^2,\qquad \tilde x_i=\frac{x_i-\mu_i}{\sqrt{\sigma_i^2+10^{-6}}}$$
#
# Mean and contrast of a patch can often be guessed from its neighbours; normalising leaves the part that cannot. It also fixes the value of having learned nothing: predicting zero costs $(n-1)/n$ with $n=3P^2$ numbers per patch, since the variance is the unbiased one.

# %% tags=["workshop", "nbval-check-output"]
def normalise(patches):
    mean, variance = patches.mean(-1, keepdim=True), patches.var(-1, keepdim=True)
    return (patches - mean) / (variance + 1e-6).sqrt()                       # a flat patch becomes zero, not NaN


def masked_mse(prediction, target, hidden):
    error = (prediction - target).square().mean(dim=2)                       # (B, N) per patch
    return (error * hidden).sum() / hidden.sum()                             # over |M|, not over B N


images, hidden = training.to_input(pictures.train.images[:32]), ours[1].repeat(4, 1)
target = normalise(patchify(images, P))
guess = torch.randn_like(target)
by_loop = sum((guess[b, i] - target[b, i]).square().mean() for b, i in hidden.nonzero()) / hidden.sum()
print("loop and vectorised agree:    ", torch.allclose(masked_mse(guess, target, hidden), by_loop, rtol=1e-4))
theirs = objectives.masked_mse(guess, objectives.normalise_patches(patchify(images, P)), hidden)
print("equal to the package's:       ", torch.allclose(masked_mse(guess, target, hidden), theirs))
print(f"predicting zero costs {masked_mse(torch.zeros_like(target), target, hidden):.3f}, (n - 1) / n = {47 / 48:.3f}")
torch.manual_seed(0)
small = lambda: ViT(patch=4, width=24, depth=2, heads=2, classes=0, positions="sincos", pool="mean")
tiny, peer = TinyMAE(small(), 16), mae.MAE(small(), width=16)
peer.load_state_dict(dict(zip(peer.state_dict(), tiny.state_dict().values())))  # both list their weights in one order
one, rank = images[:8].cpu(), noise.cpu()
same = torch.allclose(tiny(one, rank)[0], peer(one, mae.masking(rank, 0.75)), atol=1e-5)
print("our MAE equal to the package's:", same)

# %% [markdown] tags=["workshop"]
# In its tests the package's form is held to `ViTMAEForPreTraining` of transformers: same weights and noise, same loss, pictures and gradients.
#
# ## 3 Train
#
# First one batch by heart, always with the same mask. The loss should fall far below the value of knowing nothing.

# %% tags=["workshop"]
D, DEPTH, HEADS, WIDTH = run.pick(smoke=(24, 1, 2, 16), cpu=(64, 2, 2, 32), gpu=(192, 6, 3, 96))
recipe = augment.compose(partial(augment.random_resized_crop, size=32, scale=(0.4, 1)), augment.random_flip)
B, STEPS = run.pick(smoke=32, cpu=64, gpu=512), run.pick(smoke=6, cpu=1_400, gpu=10_000)
RATE = run.pick(smoke=2e-3, cpu=2e-3, gpu=1e-3)


def make_vit(classes=0, seed=run.seed):
    torch.manual_seed(seed)
    return ViT(image=32, patch=P, width=D, depth=DEPTH, heads=HEADS, classes=classes,
               positions="sincos", pool="mean").to(run.device)


def make_mae(**changes):
    return mae.MAE(make_vit(), width=WIDTH, **changes).to(run.device)


def pretraining(net, steps, *, ratio=0.75, rank=lambda noise: noise, normalised=True, everywhere=False,
                batches=None, title="MAE"):
    """The job of pre-training `net`; `rank` may turn the noise into that of another kind of mask."""
    chance = torch.Generator(run.device).manual_seed(run.seed)

    def loss(net, batch):
        mask = mae.masking(rank(torch.rand(len(batch[0]), N, generator=chance, device=run.device)), ratio)
        target = patchify(batch[0], P)                             # (B, N, 3 P P)
        target = objectives.normalise_patches(target) if normalised else target
        counted = torch.ones_like(mask.hidden) if everywhere else mask.hidden
        return objectives.masked_mse(net(batch[0], mask), target, counted)

    optimizer = torch.optim.AdamW(training.parameter_groups(net, 0.05), lr=RATE, betas=(0.9, 0.95))
    batches = batches or training.batches(pictures.train, B, seed=run.seed, augment=recipe)
    return partial(lessons.fit, net, loss, batches, steps=steps, optimizer=optimizer, clip=1.0,
                   precision=run.precision("transformer"), title=title)


fixed = torch.rand(32, N, generator=torch.Generator().manual_seed(0)).to(run.device)
by_heart = pretraining(make_mae(), run.pick(smoke=5, cpu=150, gpu=150), rank=lambda noise: fixed,
                       batches=[(images,)] * 150, title="by heart")
history, = training.side_by_side([by_heart], run.device)
print(f"loss at first {history.loss[0]:.3f}, at last {history.loss[-1]:.3f}; predicting zero costs {47 / 48:.3f}")

# %% [markdown] tags=["workshop"]
# Now the real training. Beside it `plain` learns the pixels themselves, not normalised, so that we can look at its pictures. `remember` keeps the trained network: a second run loads it, and so does lesson 07.

# %% tags=["workshop"]
net, plain = make_mae(), make_mae()
settings = {"steps": STEPS, "rate": RATE, "ratio": 0.75, "batch": B, "data": pictures.train.name,
            "pictures": len(pictures.train), "seed": run.seed}
kept = partial(training.remember, "03-mae", net, settings, pretraining(net, STEPS))
pixels = pretraining(plain, STEPS // 2, normalised=False, title="plain pixels")
history, plain_history = training.side_by_side([kept, pixels], run.device)
print(f"loss of the MAE at the end {history.last():.3f}; of the network on plain pixels {plain_history.last():.3f}")

# %% [markdown] tags=["workshop"]
# Does it learn? Look at the distance to the dashed line, the cost of predicting zero.

# %% tags=["workshop"]
explained = 100 * (1 - history.last() * 48 / 47)
figures.curves({"MAE": history.smooth(50)}, title=f"{explained:.0f} % of what varies in hidden patches is explained",
               y="loss on hidden patches", baselines={"predicting zero": 47 / 48}, size=(6.8, 3));

# %% [markdown] tags=["workshop"]
# ## 4 What it paints
#
# *Predict first:* which part of a hidden picture will be painted well, and which will not?
#
# <details><summary>Answer</summary>Surfaces, gradients and edges that go on. Fine texture cannot be known; for the squared error the best guess among many possible textures is their mean, so it comes out blurred.</details>
#
# To judge it we need rivals. The first paints the mean colour of the visible pixels. The second is harder: a **smooth fill**, each pixel a weighted mean of the visible ones, the nearer the heavier; its width is chosen on validation pictures. It never saw a training picture. All see the same visible patches of test pictures, and are judged on hidden pixels only.

# %% tags=["workshop"]
def smooth_fill(x, hidden, width):
    """Pictures (B, 3, H, W) with each hidden pixel a Gaussian mean of the visible ones; `width` in pixels."""
    seen = unpatchify((~hidden)[..., None].float().expand(-1, -1, P * P), P)                  # (B, 1, H, W)
    line = torch.exp(-torch.arange(-15.0, 16.0, device=x.device).square() / (2 * width**2))
    across, down = line.view(1, 1, 1, -1), line.view(1, 1, -1, 1)
    blur = lambda t: F.conv2d(F.conv2d(t, across, padding=(0, 15)), down, padding=(15, 0))
    total, weight = blur((x * seen).flatten(0, 1)[:, None]).view_as(x), blur(seen)
    return torch.where(seen > 0, x, total / weight.clamp(min=1e-12))


@torch.no_grad()
def paint(x, mask, net):
    """Pictures as `net` (plain pixels) paints them, the visible patches pasted in."""
    return unpatchify(torch.where(mask.hidden[..., None], net.eval()(x, mask).float(), patchify(x, P)), P)


def hidden_error(x, mask, filled):
    return objectives.masked_mse(patchify(filled, P), patchify(x, P), mask.hidden).item()


ranks = torch.rand(1_000, N, generator=torch.Generator().manual_seed(3)).to(run.device)
x_val, x_test = (training.to_input(part.images[:1_000]) for part in (pictures.val, pictures.test))
judge_at = lambda x, ratio: (x, mae.masking(ranks[: len(x)], ratio))
widths = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
x, mask = judge_at(x_val, 0.75)
best_width = min(widths, key=lambda width: hidden_error(x, mask, smooth_fill(x, mask.hidden, width)))
x, mask = judge_at(x_test, 0.75)
rivals = {"mean of the visible": smooth_fill(x, mask.hidden, 1e3),
          "smooth fill": smooth_fill(x, mask.hidden, best_width), "MAE": paint(x, mask, plain)}
errors = {name: hidden_error(x, mask, filled) for name, filled in rivals.items()}
print(f"width of the smooth fill: {best_width:g} pixels; variance of all pixels {x.var():.2f}")
print("mean squared error on hidden pixels:", ", ".join(f"{name} {value:.3f}" for name, value in errors.items()))

# %% [markdown] tags=["workshop"]
# The same eight pictures as in section 1, from what was seen to what was there. Compare the third row with the second: where does the MAE know more than a blur can?

# %% tags=["workshop", "slide"]
x, mask = training.to_input(shown), mae.masking(noise, 0.75)
shades = lambda x: x / 4 + 0.5                                     # the way back from `to_input`
rows = {"seen": covered(shown, mask.hidden), "smooth fill": shades(smooth_fill(x, mask.hidden, best_width)),
        "MAE": shades(paint(x, mask, plain)), "truth": shown.float() / 255}
_, axes = figures.panels(4, 8, width=1.1)
for place, (axis, image) in enumerate(zip(axes, torch.cat(list(rows.values())))):
    axis.imshow(figures.to_image(image))
    axis.set_ylabel(list(rows)[place // 8] if place % 8 == 0 else "")
    title = names[pictures.test.labels[place]] if place < 8 else ""
    axis.set_title(title, fontsize=8, fontweight="normal", loc="center", pad=3)

# %% [markdown] tags=["workshop"]
# A blur knows only that neighbours are alike. An MAE can also know how things go on: that an outline closes, that one side continues the other. Where nothing visible hints at a thing, it paints the ground, as the best guess. The printed errors say how far it got here; on real pictures a blur is a hard rival for a small network in a short training.
#
# Now turn it yourself: another picture, more or less hidden, other kinds of mask (section 6 asks what they do). The network was trained at 75 % with random masks only.

# %% tags=["workshop"]
KINDS = {"random": lambda noise: noise, "block": partial(mae.block_noise, grid=(8, 8)),
         "grid": partial(mae.grid_noise, grid=(8, 8))}


def show_painting(ratio=0.75, picture=11, kind="random"):
    """A test picture: seen, filled, painted, true, with the errors on hidden pixels."""
    image = pictures.test.images[picture : picture + 1]
    x, mask = training.to_input(image), mae.masking(KINDS[kind](ranks[picture : picture + 1]), ratio)
    filled = {"smooth fill": smooth_fill(x, mask.hidden, best_width), "MAE": paint(x, mask, plain)}
    parts = [covered(image, mask.hidden), *(shades(one) for one in filled.values()), image.float() / 255]
    titles = ["seen", *(f"{name}, error {hidden_error(x, mask, one):.2f}" for name, one in filled.items()), "truth"]
    figures.grid(torch.cat(parts), titles, columns=4, width=1.7, title=f"{kind} mask, {100 * ratio:.0f} % hidden")
    plt.show()


show_painting(0.5)
figures.explore(show_painting, ratio=[0.75, 0.25, 0.5, 0.85, 0.9, 0.95], picture=[11, *range(40)], kind=list(KINDS))

# %% [markdown] tags=["workshop"]
# With little hidden a blur is good enough, and there is little to learn. With almost all hidden nothing can be known. A task worth learning lies between.
#
# ## 5 What it is worth: few labels
#
# Painting is only the pretext. Throw the decoder away, show the encoder whole pictures, put a new head on it, and **fine-tune** all of it with a few labels. (The head first normalises each feature over the batch, as the paper does for its linear probes: the features of an MAE lie close together.)
#
# The rivals are the same network with the same head and recipe, from scratch: once for as many steps as fine-tuning takes, and once for as much *compute* as pre-training and fine-tuning take together. PyTorch counts the multiplications.

# %%
FEW, TUNE = run.pick(smoke=(5, 10), cpu=(10, 40, 160), gpu=(10, 40, 160)), run.pick(smoke=4, cpu=300, gpu=500)


def few(count, seed=0):
    """`count` training pictures of each class."""
    chance = torch.Generator().manual_seed(seed)
    rows = [(pictures.train.labels == k).nonzero()[:, 0].cpu() for k in range(K)]
    return pictures.train[torch.cat([row[torch.randperm(len(row), generator=chance)[:count]] for row in rows])]


def classifier(encoder=None, seed=0):
    """A ViT with a new head; with the weights of a pre-trained `encoder` where there is one."""
    net = make_vit(K, seed)
    net.head = nn.Sequential(nn.BatchNorm1d(D, affine=False), nn.Linear(D, K)).to(run.device)
    if encoder is not None:
        net.load_state_dict(encoder.state_dict(), strict=False)    # all but the head
    return net


def tuning(net, split, steps=TUNE, seed=0, title="fine-tuning"):
    """The job of training a classifier on few labels."""
    optimizer = torch.optim.AdamW(training.parameter_groups(net, 0.05), lr=run.pick(smoke=3e-3, cpu=3e-3, gpu=1e-3))
    batches = training.batches(split, min(B, len(split)), seed=seed, augment=augment.crop_flip)
    return partial(lessons.fit, net, training.cross_entropy, batches, steps=steps, optimizer=optimizer, clip=1.0,
                   precision=run.precision("transformer"), title=title)


# %%
from torch.utils.flop_counter import FlopCounterMode


def multiplications(net, *inputs):
    """Multiply-adds in millions of one forward pass."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.eval()(*inputs)
    return counter.get_total_flops() / 2e6


x, mask = images[:1], mae.masking(fixed[:1], 0.75)
seen, everything = (net.encoder.tokens(x, keep) for keep in (mask.keep, None))
cost = {"MAE": multiplications(net, x, mask), "encoder on the visible": multiplications(net.encoder.encoder, seen),
        "encoder on all": multiplications(net.encoder.encoder, everything),
        "classifier": multiplications(classifier(), x)}
equal = TUNE + round(STEPS * cost["MAE"] / cost["classifier"])     # steps of the classifier that cost as much
print("multiply-adds per picture, in millions:", ", ".join(f"{name} {value:.2f}" for name, value in cost.items()))
print(f"{STEPS:,} steps of pre-training and {TUNE} of fine-tuning cost as much as {equal:,} from scratch")

# %% [markdown]
# *Predict first:* where is pre-training worth most, at few or at many labels? And who wins at equal compute?
#
# <details><summary>Answer</summary>At equal steps pre-training wins wherever there are labels enough to turn it into answers. At equal compute it is a race: more steps on few labels mostly learn those by heart, but with many labels each of those steps teaches more than painting does.</details>

# %%
SEEDS = run.pick(smoke=(0,), cpu=(0, 1, 2), gpu=(0, 1, 2))
most, middle = FEW[-1], FEW[len(FEW) // 2]
starts = {"MAE, fine-tuned": (net.encoder, TUNE), "from scratch": (None, TUNE), "scratch, equal compute": (None, equal)}
plan = [(name, count, seed) for seed in SEEDS for count in FEW for name in starts
        if seed == 0 or count == middle]
plan.sort(key=lambda key: -starts[key[0]][1])                      # the long ones first
tuned = {key: classifier(starts[key[0]][0], seed=key[2]) for key in plan}
jobs = [tuning(tuned[name, count, seed], few(count, seed), starts[name][1], seed, f"{name}, {count} labels")
        for name, count, seed in plan]
training.side_by_side(jobs, run.device)
jobs = [partial(training.accuracy, tuned[key], pictures.test) for key in plan]
scores = dict(zip(plan, training.side_by_side(jobs, run.device)))


class Features(nn.Module):
    """The frozen encoder: pictures -> the mean of its tokens (B, D)."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, x):
        return self.encoder.encode(x).mean(1)


def probe(encoder, count=most, draws=(0,)):
    """Test accuracy of a linear classifier on frozen features, all patches visible, for each draw of labels."""
    def table(part):
        return training.predict(Features(encoder), part.images), part.labels

    held = *table(pictures.val), *table(pictures.test)
    return [probes.linear_probe(*table(few(count, seed)), *held, strengths=(0.01, 0.1)) for seed in draws]


still = {"MAE, frozen": net.encoder, "random, frozen": make_vit()}
jobs = [partial(probe, encoder, count) for count in FEW for encoder in still.values()]
results = iter(training.side_by_side(jobs, run.device))
frozen = {(name, count): next(results)[0] for count in FEW for name in still}

# %% [markdown]
# Blue against red and orange is the question; small dots are two more seeds with labelled pictures of their own. Dashed: only a linear classifier is trained, on the frozen MAE and, as the control, on an encoder that never learned anything.

# %% tags=["slide"]
mean = lambda values: sum(values) / len(values)
by_seed = lambda name, count: [scores[key] for key in plan if key[:2] == (name, count)]
colours = dict(zip([*starts, *still], (figures.BLUE, figures.RED, figures.ORANGE, figures.SKY, figures.GREY)))
look = {name: {"color": colours[name], "marker": "o"} for name in starts}
look |= {name: {"color": colours[name], "linestyle": "--"} for name in still}
lines = {name: (FEW, [100 * mean(by_seed(name, count)) for count in FEW]) for name in starts}
lines |= {name: (FEW, [100 * frozen[name, count] for count in FEW]) for name in still}
ahead = {name: 100 * (mean(by_seed("MAE, fine-tuned", middle)) - mean(by_seed(name, middle))) for name in starts}
at_steps, at_compute = ahead["from scratch"], ahead["scratch, equal compute"]
_, axis = plt.subplots(figsize=(7.8, 4.2))
axis.set(xscale="log")
figures.curves(lines, x="labels per class (log scale)", y="test accuracy (%)", baselines={"chance": 100 / K},
               styles=look, axis=axis, title=f"{middle} labels per class: MAE {at_steps:+.0f} points at equal steps, "
                                             f"{at_compute:+.0f} at equal compute")
for name, count, seed in plan:
    axis.plot(count, 100 * scores[name, count, seed], ".", color=colours[name], alpha=0.5)
axis.set_xticks(FEW, FEW)
axis.minorticks_off();

# %% [markdown]
# Orange is the serious rival. More steps on a few labels mostly learn those by heart; pre-training brings what they cannot. The more labels there are, the more each supervised step teaches, and the rival comes nearer, or passes. Pre-training pays where pictures are many and labels few.
#
# The frozen encoder (dashed) is the honest line: “strong features without labels” is half true. MAE's well-known figures are those *after* fine-tuning with labels. Frozen, the paper's ViT-L reaches 73.5 %, fine-tuned 84.9 %.
#
# ## 6 What matters: ratio, mask, loss, tokens
#
# Now change one thing at a time, in shorter trainings of equal steps. The paper's findings: hide a lot; hide at random, not in blocks or on a grid; count hidden patches only; keep mask tokens out of the encoder.
#
# *Predict first:* which ratio ends with the lowest loss, and is that the best encoder? Which mask has the lowest loss at 75 %?
#
# <details><summary>Answer</summary>The lowest ratio: with many neighbours in sight every gap is easy. The same holds for the grid, where each hidden patch has a visible neighbour. A low loss says that the task was easy, not that much was learned. Losses of different tasks cannot be compared.</details>

# %%
SHORT = run.pick(smoke=4, cpu=250, gpu=2_500)
variants = {"random, 75 %": {}, "25 % hidden": {"ratio": 0.25}, "50 % hidden": {"ratio": 0.5},
            "90 % hidden": {"ratio": 0.9}, "block, 75 %": {"rank": KINDS["block"]},
            "grid, 75 %": {"rank": KINDS["grid"]}, "loss on all patches": {"everywhere": True},
            "plain pixels": {"normalised": False}, "mask tokens in encoder": {}}
changed = {name: make_mae(mask_tokens="encoder" if "tokens" in name else "decoder")
           for name in ["random encoder", *variants]}
jobs = [pretraining(changed[name], SHORT, title=name, **change) for name, change in variants.items()]
ended = {name: history.last() for name, history in zip(variants, training.side_by_side(jobs, run.device))}
jobs = [partial(probe, one.encoder, draws=SEEDS) for one in changed.values()]
probed = dict(zip(changed, training.side_by_side(jobs, run.device)))                # three draws of labels for each
ratios = {0.25: "25 % hidden", 0.5: "50 % hidden", 0.75: "random, 75 %", 0.9: "90 % hidden"}
heads = {name: classifier(changed[name].encoder) for name in ratios.values()}
jobs = [tuning(head, few(most), TUNE // 2, title=f"{name}, fine-tuned") for name, head in heads.items()]
training.side_by_side(jobs, run.device)
fine = {name: training.accuracy(head, pictures.test) for name, head in heads.items()}

# %% [markdown]
# First the ratio. Left the loss, each on its own task; right what the encoder is worth, fine-tuned and frozen (the mean of three draws of labels). Do the two panels agree about the best ratio?

# %%
on_loss, on_fine = ([values[name] for name in ratios.values()] for values in (ended, fine))
on_probe = [mean(probed[name]) for name in ratios.values()]
best_loss, best_fine = list(ratios)[on_loss.index(min(on_loss))], list(ratios)[on_fine.index(max(on_fine))]
percents = [100 * ratio for ratio in ratios]
_, (left, right) = plt.subplots(1, 2, figsize=(10, 3.2), width_ratios=(4, 5))
figures.curves({"loss": (percents, on_loss)}, title=f"The loss is lowest at {100 * best_loss:.0f} % hidden",
               x="hidden (%)", y="loss on hidden patches", styles={"loss": {"marker": "o"}}, axis=left)
ways = {name: (percents, [100 * value for value in on]) for name, on in (("fine-tuned", on_fine), ("probe", on_probe))}
figures.curves(ways, title=f"Fine-tuned it is best at {100 * best_fine:.0f} %", x="hidden (%)", y="test accuracy (%)",
               styles={"fine-tuned": {"marker": "o"}, "probe": {"marker": "o", "color": figures.SKY}}, axis=right);

# %% [markdown]
# Never choose the ratio by the loss. The best ratio depends on the setting, too: the paper's large model on large pictures gains up to 75 %, while a small network in a short training can be better off with an easier task. What 75 % always buys is speed.
#
# Next the other choices, judged by the probe, which takes less time than fine-tuning. Longer is better; grey is the control, an encoder that was never pre-trained.

# %%
order = ["random, 75 %", "block, 75 %", "grid, 75 %", "loss on all patches", "plain pixels", "mask tokens in encoder",
         "random encoder"]
sure = lambda share: claims.share_error(share, len(pictures.test))
shares = {name: mean(probed[name]) for name in order}
figures.bars(shares, errors={name: sure(share) for name, share in shares.items()}, x="test accuracy of a linear probe",
             title=f"One change at a time, {SHORT} steps each", controls=["random encoder"]);

# %% [markdown]
# The block asks for a whole object out of nothing, the grid for little more than interpolation; the bars say which of the two harms more here. With mask tokens inside, the encoder spends its training on an input that it never meets again: whole pictures have no mask tokens. The loss over all patches is lower, because copying what is visible is easy.
#
# And the price? The encoder's work falls to a quarter or less; but the decoder reads all places either way. So measure a whole training step.

# %%
def step_time(net):
    """Median milliseconds of forward and backward pass for one batch."""
    x, mask, times = images.repeat(2, 1, 1, 1), mae.masking(torch.cat([fixed, fixed]), 0.75), []
    for _ in range(run.pick(smoke=3, cpu=9, gpu=20)):
        start = time.perf_counter()
        with run.autocast("transformer"):
            loss = net(x, mask).float().square().mean()
        loss.backward()
        loss.item()
        times.append(1000 * (time.perf_counter() - start))
    return sorted(times)[len(times) // 2]


labels = {"visible patches only": "random, 75 %", "mask tokens in encoder": "mask tokens in encoder"}
step = {label: step_time(changed[name]) for label, name in labels.items()}
saved = cost["encoder on all"] / cost["encoder on the visible"]
faster = step["mask tokens in encoder"] / step["visible patches only"]
figures.bars(step, title=f"Encoder {saved:.1f} times cheaper, step {faster:.1f} times faster",
             x="milliseconds per step of 64 pictures", percent=False);

# %% [markdown]
# ## 7 Why 75 %, and BERT 15 %
#
# BERT, the model from which the idea comes, hides 15 % of the words. Why so much more here? The paper says: pictures are redundant, words are not. That can be measured. Hide a share of all patches, or of all words of a caption, and predict one hidden piece from the visible pieces around it, with the plainest predictor there is, linear regression. A patch is its pixels, a word a one in a row of zeros. For both the same yardstick: the share of the squared error around the mean that the neighbours remove. 1 means that they tell everything, 0 that they tell nothing.
#
# *Predict first:* with 15 % hidden, how much do neighbours tell of a patch, and how much of a word?

# %%
def around(values, exists, reach, seed):
    """A random piece of each grid (B, rows, columns, D): the neighbours within `reach` of it (B, J, D), which of them
    exist (B, J), and itself (B, D)."""
    (r, c), every = reach, torch.arange(len(values))
    place = torch.multinomial(exists.flatten(1).float(), 1, generator=torch.Generator().manual_seed(seed))[:, 0]
    i, j = place // values.shape[2], place % values.shape[2]
    values, exists = F.pad(values, (0, 0, c, c, r, r)), F.pad(exists, (c, c, r, r))
    steps = [(a, b) for a in range(2 * r + 1) for b in range(2 * c + 1) if (a, b) != (r, c)]
    pick = lambda x: torch.stack([x[every, i + a, j + b] for a, b in steps], dim=1)
    return pick(values), pick(exists), values[every, i + r, j + c]


def told(train, test, ratio, seed, asked=slice(None)):
    """The share of the squared error of `test` that ridge regression on the visible neighbours removes."""
    chance = torch.Generator().manual_seed(seed)

    def rows(neighbours, exists):
        seen = exists & (torch.rand(exists.shape, generator=chance) >= ratio)                     # (B, J)
        return torch.cat([(neighbours * seen[..., None]).flatten(1), seen.float()], dim=1)        # (B, J D + J)

    A, C, mean = rows(*train[:2]), rows(*test[:2]), train[2].mean(0)
    A, C = A - A.mean(0), C - A.mean(0)
    W = torch.linalg.solve(A.T @ A + 30 * torch.eye(A.shape[1]), A.T @ (train[2] - mean))
    return 1 - ((C @ W + mean - test[2])[asked].square().sum() / (test[2] - mean)[asked].square().sum()).item()


# %% [markdown]
# The pieces: patches with the 24 around them, and words with the four before and the four behind. Words that carry the grammar of a sentence can be guessed without knowing what it is about, so words of content are counted apart as well.

# %%
from collections import Counter

from lessons.data.language import words

GRAMMAR = set("a an the of to in on at is are there and one them with by its his her it that this for from as while up "
              "down out or near picture only".split())
texts = data.captions(source="scenes" if run.source == "scenes" else "auto", val=50,
                      train=run.pick(smoke=300, cpu=5_000, gpu=5_000), test=run.pick(smoke=100, cpu=500, gpu=500))
clean = lambda text: [word for part in words(text.lower()) if (word := part.strip(".!\"';:"))]
sentences = {part: [clean(text) for several in getattr(texts, part).captions for text in several]
             for part in ("train", "test")}
counts = Counter(word for sentence in sentences["train"] for word in sentence)
common = [word for word, _ in counts.most_common(run.pick(smoke=30, cpu=119, gpu=499))]
number = {word: i for i, word in enumerate(common, 1)}                                            # 0: all rarer words


def word_rows(part, limit, seed, longest=20):
    """`around` for sentences: a sentence is a grid with one row."""
    picked = torch.randperm(len(sentences[part]), generator=torch.Generator().manual_seed(seed))[:limit]
    chosen = [sentences[part][i][:longest] for i in picked.tolist()]
    ids = [[number.get(word, 0) for word in line] + [0] * (longest - len(line)) for line in chosen]
    exists = torch.tensor([[k < len(line) for k in range(longest)] for line in chosen])[:, None]
    near, exists, piece = around(torch.tensor(ids).float()[:, None, :, None], exists, (0, 4), seed)
    one_hot = lambda t: F.one_hot(t[..., 0].long(), len(common) + 1).float()
    return one_hot(near), exists, one_hot(piece)


def patch_rows(part, limit, seed):
    x = patchify(training.to_input(getattr(pictures, part).images[:limit].cpu()), P)
    return around(x.view(-1, 8, 8, 48), torch.ones(len(x), 8, 8, dtype=torch.bool), (2, 2), seed)


# %%
SHARES, limit = (0.15, 0.3, 0.5, 0.75, 0.9), run.pick(smoke=200, cpu=6_000, gpu=20_000)
content = torch.tensor([True] + [word not in GRAMMAR for word in common])
told_of = {"patches": [], "all words": [], "words of content": []}
for seed in SEEDS:
    patch, word = ([rows(part, limit, seed) for part in ("train", "test")] for rows in (patch_rows, word_rows))
    meant = content[word[1][2].argmax(1)]
    told_of["patches"].append([told(*patch, share, seed) for share in SHARES])
    told_of["all words"].append([told(*word, share, seed) for share in SHARES])
    told_of["words of content"].append([told(*word, share, seed, meant) for share in SHARES])
average = {name: [mean(column) for column in zip(*values)] for name, values in told_of.items()}
many, fifteen = average["patches"][SHARES.index(0.75)], average["all words"][0]
axis = figures.curves({name: ([100 * share for share in SHARES], values) for name, values in average.items()},
                      title=f"75 % of patches hidden: {many:.2f} told; 15 % of words hidden: {fifteen:.2f} told",
                      x="hidden (%)", y="share told by visible neighbours", size=(7.6, 3.6),
                      styles={name: {"marker": "o"} for name in average})
axis.plot([75, 15], [many, fifteen], "o", markersize=13, fillstyle="none", color=figures.INK)
axis.set_ylim(bottom=min(0, axis.get_ylim()[0]))
print(f"captions: {texts.train.name}, such as “{' '.join(sentences['train'][0])}”; pictures: {pictures.train.name}")

# %% [markdown]
# With 15 % hidden, a weighted sum of neighbours already gives most of a patch: nothing there would force a network to understand. At 75 % they tell much less, and the rest has to come from knowing what things look like. Words are hard from the start, and most of what is easy about them is grammar. The two rings say it: patches with three quarters hidden are told as much by their neighbours as words with 15 % hidden, or more. A better predictor would lift both lines; neither ratio is a law of nature.
#
# ## 8 Where it falls short
#
# Take the encoder as it is, without any training on labels, and ask for the nearest neighbours of a test picture. Under each picture stand the two training pictures that the MAE finds most alike. What do they share?

# %%
bank = few(most)
spaces = {"MAE": net.encoder, "random encoder": make_vit()}
parts = bank, pictures.test
vectors = {name: [training.predict(Features(one), part.images) for part in parts] for name, one in spaces.items()}
vectors["pixels"] = [training.to_input(part.images).flatten(1) for part in parts]
voted = {}
for name, (stored, asked) in vectors.items():
    stored, asked = stored - stored.mean(0), asked - stored.mean(0)     # cosines around the mean
    voted[name], vectors[name] = probes.knn_accuracy(stored, bank.labels, asked, pictures.test.labels), (stored, asked)
stored, asked = (F.normalize(part, dim=1) for part in vectors["MAE"])
nearest = (asked[:8] @ stored.T).topk(2).indices                                                  # (8, 2)
figures.grid(torch.cat([shown, bank.images[nearest[:, 0]], bank.images[nearest[:, 1]]]), columns=8, width=0.9)
worth = {f"neighbours of {name}": value for name, value in voted.items()}
worth |= {"MAE, linear probe": frozen["MAE, frozen", most], "MAE, fine-tuned": mean(by_seed("MAE, fine-tuned", most))}
figures.bars(worth, title="The same encoder, asked in three ways", marks={"chance": 1 / K},
             controls=["neighbours of random encoder", "neighbours of pixels"]);

# %% [markdown]
# All bars had the same labels. The neighbours agree in what painting needs, colours and where light and dark lie, more than in what the thing is; even raw pixels are a rival to be taken seriously. What a thing is, is in there, or fine-tuning could not get it out so fast. But nothing in the loss asked for like things to lie near each other. A loss that asks for it from the start is the subject of lesson 04.
#
# ## 9 What the paper says, what we measured
#
# Verdicts are computed: an effect counts when it exceeds its spread over three seeds (95 % interval) where there are three runs of each, else twice its standard error, from the number of test pictures and from the spread over three draws of labels. Each network was pre-trained once. Ours are hundreds of times smaller than the paper's and see small pictures for minutes; compare directions, not figures.

# %%
claim_table = claims.Claims(run, data=pictures.train.name)
percent = lambda value: f"{100 * value:.1f} %"
better = lambda a, b, spread=0.0: claims.verdict(a - b, error=math.hypot(sure(a), sure(b), spread))
judge = lambda effects: claims.verdict(effects) if len(SEEDS) > 1 else claims.UNJUDGED
several = torch.tensor(by_seed("MAE, fine-tuned", middle))
spread = (1 + 1 / len(SEEDS)) ** 0.5 * several.std().item() if len(SEEDS) > 1 else 0.0     # of their mean and one more
ft, scratch, longer = ({count: mean(by_seed(name, count)) for count in FEW} for name in starts)
gaps = lambda rival: [a - b for a, b in zip(several.tolist(), by_seed(rival, middle))]     # same labels, same seed
beside = lambda rival: ", ".join(f"{count}: {percent(ft[count])} and {percent(rival[count])}" for count in FEW)
linear, linear_random = (frozen[name, most] for name in still)
claim_table.add("labels", f"With {middle} labels per class an MAE fine-tunes better than a ViT trains from scratch.",
                paper="ViT-L: 84.9 % against 82.5 % (strong recipe), all labels",
                here=f"labels per class: {beside(scratch)}", verdict=judge(gaps("from scratch")))
claim_table.add("compute", f"With {middle} labels per class it does so at equal compute.",
                paper="not in the paper; the control", here=f"scratch for {equal:,} steps: {beside(longer)}",
                verdict=judge(gaps("scratch, equal compute")))
claim_table.add("random", "The frozen features are learned, not a gift of the architecture.",
                paper="not in the paper; the control", verdict=better(linear, linear_random),
                here=f"linear probe {percent(linear)}, random encoder {percent(linear_random)}")
claim_table.add("linear", "Fine-tuning gets far more out of it than a linear probe.", paper="84.9 % against 73.5 %",
                here=f"{percent(ft[most])} against {percent(linear)}", verdict=better(ft[most], linear, spread))
claim_table.add("neighbours", "Its neighbours are worth less than a linear probe.",
                paper="B/16, 100 epochs: 11.2 % against 46.0 % (lightly's benchmark)",
                here=f"20 neighbours {percent(voted['MAE'])}, probe {percent(linear)}",
                verdict=better(linear, voted["MAE"]))

# %%
x, mask = judge_at(x_test, 0.75)
each = lambda name: (patchify(rivals[name] - x, P).square().mean(2) * mask.hidden).sum(1) / mask.hidden.sum(1)
won = each("smooth fill") - each("MAE")                                 # (1000,) per picture
reference = "random, 75 %"


def against(name):
    """The verdict about random masks at 75 % against a variant, over the draws of labels."""
    effects = [x - y for x, y in zip(probed[reference], probed[name])]
    more = torch.tensor(effects).std().item() / len(SEEDS) ** 0.5 if len(SEEDS) > 1 else 0.0
    return better(mean(probed[reference]), mean(probed[name]), more)


claim_table.add("paint", "It paints hidden pixels better than a smooth fill.",
                paper="shown as pictures (figures 2 to 4)",
                here="squared error: " + ", ".join(f"{name} {value:.3f}" for name, value in errors.items()),
                verdict=claims.verdict(won.mean().item(), error=won.std().item() / math.sqrt(len(won))))
claim_table.add("zero", "The normalised loss falls below that of predicting zero.", paper="(n - 1)/n by construction",
                here=f"{history.last():.3f} against {47 / 48:.3f}", verdict=history.last() < 47 / 48)
claim_table.add("ratio", "Hiding 75 % gives a better encoder than hiding 25 %.",
                paper="linear: 54.6 % at the low end, 73.5 % at 75 %; fine-tuned flat from 40 to 80 % (figure 5)",
                here="; ".join(f"{100 * ratio:.0f} %: probe {percent(mean(probed[name]))}, "
                               f"fine-tuned {percent(fine[name])}, loss {ended[name]:.2f}"
                               for ratio, name in ratios.items()),
                verdict=against("25 % hidden"))

# %%
for key, name, claim, paper in (
    ("block", "block, 75 %", "Random masks beat one block.", "linear 73.5 % against 63.9 %"),
    ("grid", "grid, 75 %", "Random masks beat a grid.", "linear 73.5 % against 66.0 %"),
    ("all", "loss on all patches", "Counting hidden patches only makes it better.", "about 0.5 points (fine-tuned)"),
    ("tokens", "mask tokens in encoder", "Mask tokens in the encoder make it worse.", "linear 73.5 % against 59.6 %"),
    ("norm", "plain pixels", "Normalised targets beat plain pixels.", "linear 73.9 % against 73.5 %"),
):
    claim_table.add(key, claim, paper=paper, verdict=against(name), here=f"probe {percent(mean(probed[reference]))}, "
                    f"{name} {percent(mean(probed[name]))} (loss {ended[reference]:.2f} and {ended[name]:.2f})")
claim_table.add("speed", "Encoding only what is visible makes training faster.", verdict=faster > 1.15,
                paper="3.3 times fewer FLOPs; 2.8 times faster with ViT-L",
                here=f"encoder {saved:.1f} times cheaper, a step {faster:.1f} times faster")
claim_table.add("redundant", "Neighbours tell more of a patch than of a word, both with 15 % hidden.",
                paper="an argument there, not a measurement (section 1)",
                here=", ".join(f"{name} {values[0]:.2f}" for name, values in average.items()),
                verdict=judge([a[0] - b[0] for a, b in zip(told_of["patches"], told_of["all words"])]))
claim_table.add("match", "They tell as much of a patch with 75 % hidden as of a word with 15 % hidden, or more.",
                paper="the two ratios, side by side (section 1)", here=f"patches {many:.2f}, words {fifteen:.2f}",
                verdict=judge([a[SHARES.index(0.75)] - b[0] for a, b in zip(told_of["patches"], told_of["all words"])]))
for name, count, seed in plan:
    claim_table.number(f"{name}, {count} labels, seed {seed}", scores[name, count, seed])
claim_table.show()

# %% [markdown] tags=["workshop"]
# ## Exercises
#
# Write the function, run the check, read what it says. `hint("3.1")` gives three hints, one more each time; `solution("3.1")` shows one way.
#
# **3.1 How much is left?** · 5 minutes · difficulty 1 of 5
#
# `visible_count(n, ratio)`: number of patches (int), share hidden → number that stays (int); ValueError where none would.

# %% tags=["exercise", "check", "workshop", "nbval-check-output"]
def visible_count(n, ratio):
    """How many of n patches stay visible when the share `ratio` is hidden, rounded down (int); ValueError for a ratio
    outside [0, 1) and where no patch would be left."""
    raise NotImplementedError


check("3.1", visible_count);

# %% [markdown]
# **3.2 Masking beside [CLS]** · 20 minutes · difficulty 3 of 5
#
# `mask_with_class(x, noise, ratio)`: x (B, 1 + N, D), noise (B, N) → visible (B, 1 + K, D), hidden bool (B, N), restore (B, N).

# %% tags=["exercise", "check", "nbval-check-output"]
def mask_with_class(x, noise, ratio):
    """Hide patches, never [CLS]: x (B, 1 + N, D) with [CLS] in front, noise (B, N). The patches with the lowest noise
    stay: (visible (B, 1 + K, D), [CLS] first, then patches in the order of the noise; hidden (B, N) bool; restore
    (B, N) int64, the place of each patch in [kept, hidden], [CLS] not counted), K = int(N (1 - ratio))."""
    raise NotImplementedError


check("3.2", mask_with_class);

# %% [markdown]
# **3.3 Fill the gaps** · 15 minutes · difficulty 3 of 5
#
# `fill_gaps(visible, mask_token, keep, n)`: (B, K, D), (D,), (B, K), int → (B, n, D), without `restore`.

# %% tags=["exercise", "check", "nbval-check-output"]
def fill_gaps(visible, mask_token, keep, n):
    """The decoder's sequence from the numbers of the kept patches alone: row j of visible (B, K, D) is patch
    keep[:, j], keep (B, K) int64; the mask_token (D,) stands at all other of the n places -> (B, n, D)."""
    raise NotImplementedError


check("3.3", fill_gaps);

# %% [markdown]
# **3.4 Show what it painted** · 10 minutes · difficulty 2 of 5
#
# `paste(prediction, patches, hidden, eps=1e-6)`: (B, N, numbers) twice, bool (B, N) → (B, N, numbers), a normalised prediction made visible.

# %% tags=["exercise", "check", "nbval-check-output"]
def paste(prediction, patches, hidden, eps=1e-6):
    """What to show of an MAE with normalised targets: the visible patches as they are, and for each hidden one the
    prediction times the root of (its unbiased variance + eps), plus its mean. (B, N, numbers) each, hidden bool
    (B, N)."""
    raise NotImplementedError


check("3.4", paste);

# %% [markdown]
# **3.5 Places in two dimensions** · 15 minutes · difficulty 3 of 5
#
# `sincos_2d(width, rows, columns)`: ints → (rows · columns, width); ValueError unless 4 divides width.

# %% tags=["exercise", "check", "nbval-check-output"]
def sincos_2d(width, rows, columns):
    """Fixed positions (rows * columns, width), patches row by row. Four quarters of the width: sin and cos of
    column * f, then sin and cos of row * f, with the frequencies f_i = 10000 ** (-i / (width / 4)), i = 0, 1, ...;
    ValueError unless 4 divides width."""
    raise NotImplementedError


check("3.5", sincos_2d);

# %% [markdown]
# **3.6 What hiding saves** · 15 minutes · difficulty 3 of 5
#
# `mae_cost(n, ratio, width, depth, decoder_width, decoder_depth)`: → (encoder, decoder), multiply-adds of the blocks (ints).

# %% tags=["exercise", "check", "nbval-check-output"]
def mae_cost(n, ratio, width, depth, decoder_width, decoder_depth):
    """Multiply-adds of the transformer blocks of an MAE for one picture of n patches without [CLS], as the pair of ints
    (encoder, decoder). The encoder reads int(n (1 - ratio)) tokens, the decoder all n; a block on N tokens of width D
    costs 12 N D^2 for its matrices and 2 N^2 D for attention."""
    raise NotImplementedError


check("3.6", mae_cost);

# %% [markdown]
# **3.7 Experiment: what do neighbours tell?** · 25 minutes · difficulty 4 of 5
#
# `neighbours_tell(maps, ratio, seed=0)`: maps (B, H, W) → the share of the hidden variance that visible neighbours explain (float).

# %% tags=["exercise", "check", "nbval-check-output"]
def neighbours_tell(maps, ratio, seed=0):
    """Experiment: which share of the variance of hidden places do their visible neighbours explain? maps (B, H, W).
    Hide each place with probability `ratio`. Predict a hidden place as the mean of the visible ones among its eight
    neighbours, or of all visible places where there is none. -> 1 - squared error / squared distance from that overall
    mean, both summed over the hidden places (float)"""
    raise NotImplementedError


check("3.7", neighbours_tell);

# %% [markdown]
# **3.8 Your own mask** · 45 minutes · difficulty 5 of 5 · open
#
# Write noise of your own (hide what is easy, hide the object, hide rows, change the ratio during training) and find out whether the encoder gets better at equal time. `solution("3.8")` asks you four questions.

# %% tags=["check", "nbval-check-output"]
check("3.8");

# %% [markdown] tags=["workshop"]
# ## What you can now claim
#
# - A mask is a ranking. The encoder sees what is visible and nothing else; mask tokens, positions and a small decoder do the rest, and are thrown away.
# - Painting hidden patches teaches an encoder things that few labels can then turn into answers, beyond what the same compute reaches from scratch. The loss of the task does not tell how good the encoder is.
# - Pictures are redundant and words are not: you have measured how much neighbours tell of each.
#
# **Read on.** He et al. 2021, [Masked Autoencoders Are Scalable Vision Learners](https://arxiv.org/abs/2111.06377): table 1 is section 6, figure 5 the ratio. Devlin et al. 2018, [BERT](https://arxiv.org/abs/1810.04805): the 15 %, and what is done with them. Bao et al. 2021, [BEiT](https://arxiv.org/abs/2106.08254): hidden patches as visual words, and block masks. The [authors' code](https://github.com/facebookresearch/mae): `models_mae.py` is two pages, and you can now read it.
#
# **Next: 04 Contrastive learning.** Painting asks how a thing looks. The next loss asks which things belong together.

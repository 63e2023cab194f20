# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["workshop", "slide"]
# # 04 · Contrastive learning: “which one belongs to me?”
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/vision-to-language/vision-to-language/blob/main/notebooks/04_contrastive.ipynb)
#
# **The claim.** A network that only learns to pick the partner of each picture out of a crowd ends up with a space in which like lies near like. No label is needed; the supervision lies in the pairing. (InfoNCE: van den Oord, Li & Vinyals, 2018, [arXiv 1807.03748](https://arxiv.org/abs/1807.03748))
#
# **What you will have at the end.** The loss in four passes, equal to the tested one; encoders trained at several temperatures, placed in one plane together with a random and a collapsed one; a queue of negatives; and the same loss between pictures and captions, the training method behind CLIP.
#
# **Where we are.** Before: 02, ViT, or 03, MAE; nothing from 03 is needed. On the full path 05, SimCLR, comes next; on the short path 08, CLIP. You need the training loop of lesson 01, `lessons.fit`.
#
# | section | minutes of reading | in the 45-minute cut |
# |---|---|---|
# | 1 Pairs | 8 | the first part |
# | 2 The loss, in four passes | 15 | yes |
# | 3 What each negative gets | 8 | yes |
# | 4 Train, and look at the space | 15 | yes |
# | 5 Negatives: how many, how fresh | 15 | |
# | 6 A picture and its caption | 10 | |
# | 7 Where it falls short | 5 | |
# | 8 Claims and exercises | 10, then 60 to 120 of practice | exercise 4.1 |

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

run = lessons.start(4)
print(claims.reference_times(4))

# %% [markdown] tags=["workshop"]
# ## 1 Pairs
#
# Each column shows one picture, changed twice at random: cropped, mirrored, recoloured. Cover the upper row. Could you tell which of the lower pictures belongs to which upper one? That is the whole task.

# %% tags=["workshop"]
def shrink(split):
    """The same pictures at half the width and height: a dozen trainings have to fit into minutes."""
    return replace(split, images=F.avg_pool2d(split.images.float(), 2).round().to(torch.uint8))  # (N, 3, 16, 16)


splits = data.pictures(
    source=run.source, world="big", device=run.device, train=run.pick(smoke=1_000, cpu=20_000, gpu=None),
    val=run.pick(smoke=200, cpu=2_000, gpu=5_000), test=run.pick(smoke=300, cpu=2_000, gpu=None),
)
smaller = run.pick(smoke=shrink, cpu=shrink, gpu=lambda split: split)
train_set, val_set, test_set = (smaller(split) for split in splits)
recipe = partial(augment.simclr, scale=(0.5, 1))  # lesson 05 asks what each part of it does
chance = torch.Generator(run.device).manual_seed(run.seed)
figures.grid(torch.cat(augment.two_views(splits.train.images[:10], recipe, generator=chance)), columns=10, width=0.9);

# %% [markdown] tags=["workshop"]
# The two views in a column are a **positive** pair. Every other picture of the batch serves as a **negative**. Nobody looked at what is in them: positives are made *by construction*, not found by meaning.
#
# The popular summary, "contrastive learning pulls *similar* things together", is not quite right. It pulls *partners* together and pushes everything else apart, similar or not. Two pictures of a red ring in one batch are a **false negative**: pushed apart although they mean the same. Keep that in mind until section 6.

# %% [markdown]
# There is a second way to make pairs: take a picture and the sentence that stands next to it. Here are scenes with captions; whatever data you chose, this lesson draws its captioned pictures itself, because later it must know which captions say the same.

# %%
from lessons.data import language
from lessons.data.scenes import WORLDS, render

world = replace(WORLDS["big"], shapes=("circle", "square", "triangle", "cross", "ring"),
                colours=("red", "green", "blue", "yellow", "purple", "pink"))
scenes = render(world, run.pick(smoke=700, cpu=9_000, gpu=33_000), seed=3, device=run.device)
sentences = [texts[0] for texts in language.captions(scenes, 1, "object", detail=0)]
figures.grid(scenes.images[:6], sentences[:6], columns=6, width=1.6);
meanings = scenes.labels("combination")                                  # (N,) which colour and shape the caption names
print(f"{len(meanings.unique())} different meanings: a batch of 128 holds every one of them about "
      f"{128 / len(meanings.unique()):.0f} times")

# %% [markdown] tags=["workshop"]
# ## 2 The loss, in four passes
#
# The first losses of this family looked at two or three vectors at a time. The **pair loss** (Hadsell, Chopra & LeCun, 2006) pulls partners together, and pushes others until they are a margin away. The **triplet loss** (FaceNet, 2015, [arXiv 1503.03832](https://arxiv.org/abs/1503.03832)) asks only for an order, the partner $p$ of the anchor $a$ before the stranger $n$, by a margin $\alpha$:
#
# $$\max\big(0,\; \lVert a-p\rVert^2-\lVert a-n\rVert^2+\alpha\big)$$
#
# Take a table of five vectors of length 1 in the plane, with names and angles. The anchor is a red ring at 0°. *Predict first:* with $\alpha = 0.2$, which of the four strangers still cost something?

# %% tags=["workshop"]
def arrow(degrees):
    angle = torch.tensor(degrees).deg2rad()
    return torch.stack([angle.cos(), angle.sin()], -1)


names = ["its other view", "another red ring", "red star", "blue ring", "green square"]
anchor, others = arrow(0.0), arrow([25.0, 15.0, 35.0, 75.0, 160.0])      # (2,), (5, 2)
cosine, squared = others @ anchor, (others - anchor).square().sum(1)  # (5,), (5,); on the sphere |u - v|² = 2 - 2 u·v
triplet = (squared[0] - squared + 0.2).clamp(min=0)                      # (5,), number 0 is the partner itself
for name, c, d, loss in zip(names, cosine, squared, triplet):
    kind = ("the partner" if name == names[0] else "hard: nearer than the partner" if d < squared[0] else
            "semi-hard: within the margin" if loss > 0 else "easy: nothing to learn")
    print(f"{name:17} cosine {c:5.2f}   squared distance {d:.2f}   triplet loss {loss:.2f}   {kind}")

# %% [markdown] tags=["workshop"]
# Easy triplets teach nothing, so somebody has to search for useful ones. And look which negative is the hardest: the other red ring, a false one. FaceNet therefore mines **semi-hard** negatives.
#
# **InfoNCE** needs no search. It scores *all* candidates at once and asks for the partner, as a classifier would. (In SimCLR's comparison, table 4, semi-hard triplets reach 57.5 %, this kind of loss 63.9 %.) With $s$ the cosine and $\tau$ the **temperature**:
#
# $$\mathcal L=-\log\frac{e^{s(q,k^+)/\tau}}{e^{s(q,k^+)/\tau}+\sum_{j=1}^{K}e^{s(q,k_j)/\tau}}$$
#
# **Pass 1, by hand**, on the table above, with $\tau = 0.5$.

# %% tags=["workshop"]
tau = 0.5
weights = (cosine / tau).exp()                   # e^{s/τ}, one per candidate; the partner is number 0
share = weights / weights.sum()
for name, w, p in zip(names, weights, share):
    print(f"{name:17} e^(s/tau) {w:5.2f}   share {p:.2f}")
print(f"loss = -log {share[0]:.2f} = {-share[0].log():.2f}; guessing among five would cost ln 5 = {math.log(5):.2f}")

# %% [markdown] tags=["workshop"]
# **Pass 2, as plain loops** over a batch: row $i$ of `q` belongs to row $i$ of `k`, the other rows of `k` are its negatives. **Pass 3, vectorised:** all scores are one matrix product, and the right answer of row $i$ is column $i$. So the loss is the cross entropy that you know from classification, with the labels $0, 1, 2, \dots$: the classes are the pictures of this very batch.
#
# For two views there is a variant with *one* set of $2B$ vectors, **NT-Xent** (SimCLR). Each looks for its partner among all others. Itself it must not see, so the diagonal is masked with $-\infty$, whose exponential is 0.

# %% tags=["workshop", "nbval-check-output"]
def info_nce_loops(q, k, tau):
    """Mean over i of -log( e^{q_i·k_i/τ} / Σ_j e^{q_i·k_j/τ} ): q, k (B, D) of unit length."""
    total = 0.0
    for i in range(len(q)):
        scores = [math.exp(float(q[i] @ k[j]) / tau) for j in range(len(k))]
        total += -math.log(scores[i] / sum(scores))
    return total / len(q)


def info_nce(q, k, tau):
    q, k = F.normalize(q, dim=1), F.normalize(k, dim=1)                  # rows of length 1: the product is the cosine
    return F.cross_entropy(q @ k.T / tau, torch.arange(len(q), device=q.device))  # (B, B) scores, the diagonal is right


def nt_xent(a, b, tau):
    z = F.normalize(torch.cat([a, b]), dim=1)                            # (2B, D)
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    logits = (z @ z.T / tau).masked_fill(itself, -torch.inf)             # (2B, 2B)
    return F.cross_entropy(logits, torch.arange(len(z), device=z.device).roll(len(a)))  # i belongs to i + B, and back


from lessons import objectives

a, b = torch.randn(5, 3), torch.randn(5, 3)
loops = info_nce_loops(F.normalize(a, dim=1), F.normalize(b, dim=1), 0.2)
print("loops and matrix product agree:", math.isclose(loops, info_nce(a, b, 0.2).item(), rel_tol=1e-5))
print("equal to the package's InfoNCE:", torch.allclose(info_nce(a, b, 0.2), objectives.info_nce(a, b, 0.2)))
print("equal to the package's NT-Xent:", torch.allclose(nt_xent(a, b, 0.2), objectives.nt_xent(a, b, 0.2)))

# %% [markdown]
# The package's forms are held to lightly, open_clip and pytorch-metric-learning in its tests. `objectives.symmetric_info_nce` is the mean of both directions, $q$ finds $k$ and $k$ finds $q$.
#
# Which values mean what? *Predict first:* what does the loss cost when all vectors are equal? And when partners coincide and all others are at right angles?
#
# <details><summary>Answer</summary>All equal: every candidate has the same share, so ln N for InfoNCE with N candidates and ln(2N - 1) for NT-Xent, at any temperature. The perfect case is not zero: at a temperature of 0.5 the many negatives together still outweigh the partner.</details>

# %%
N = 256
equal, right_angles = torch.ones(N, 64), torch.eye(N)
print(f"ln {N} = {math.log(N):.4f}, ln {2 * N - 1} = {math.log(2 * N - 1):.4f}")
for tau in (0.1, 0.5):
    values = {f"{name}, {kind}": loss(z, z, tau).item() for name, loss in (("InfoNCE", info_nce), ("NT-Xent", nt_xent))
              for kind, z in (("all equal", equal), ("perfect", right_angles))}
    print(f"tau {tau}:  " + "   ".join(f"{name} {value:.4f}" for name, value in values.items()))

# %% [markdown] tags=["workshop"]
# A loss has no meaning without its $N$ and $\tau$. Never compare losses across either; compare what the space can do.
#
# **Pass 4, as a module.** An encoder, here the convolutional body of lesson 01's `FastResNet`, and a small head. The loss normalises what comes out.

# %% tags=["workshop", "nbval-check-output"]
from lessons.nets import contrastive
from lessons.nets.resnet import FastResNet


class PictureEncoder(nn.Module):
    """(B, 3, H, W) -> (B, out): a vector per picture, not yet of length 1."""

    def __init__(self, width=16, hidden=128, out=64):
        super().__init__()
        self.encoder = FastResNet(width=width).features                  # (B, 8 width, H/8, W/8)
        self.head = nn.Sequential(nn.Linear(8 * width, hidden), nn.ReLU(), nn.Linear(hidden, out))

    def forward(self, x):
        return self.head(self.encoder(x).amax((2, 3)))                   # the maximum over the map, then the head


ours, tested = PictureEncoder(), contrastive.PictureEncoder()
tested.load_state_dict(ours.state_dict())
print("equal to the package's:", torch.equal(ours(x := torch.randn(4, 3, 16, 16)), tested(x)))

# %% [markdown] tags=["workshop"]
# ## 3 What each negative gets
#
# Differentiate InfoNCE with respect to the query. With $p_j$ the share of candidate $j$:
#
# $$\frac{\partial\mathcal L}{\partial q}=\frac1\tau\Big(\sum_j p_j\,k_j-k^+\Big)$$
#
# A step downhill moves the query towards its partner, and away from each negative by that negative's share. Hard negatives are found by the softmax itself; exercise 4.4 holds the formula against autograd.
#
# Now turn the temperature. Each bar is the part of the whole push that one negative of the toy table receives.

# %% tags=["workshop"]
plt = figures.pyplot()


def show_push(*taus):
    """For each temperature, the share of the push that each negative of the toy table receives."""
    _, axes = plt.subplots(1, len(taus), figsize=(3.2 * len(taus) + 1, 2.2), sharey=True, squeeze=False)
    for axis, tau in zip(axes[0], taus):
        p = (cosine / tau).softmax(0)
        axis.barh(names[1:], p[1:] / p[1:].sum(), color=[figures.RED, figures.BLUE, figures.BLUE, figures.BLUE])
        axis.set(title=f"tau {tau:g}: total push {(1 - p[0]) / tau:.2g}", xlim=(0, 1), xlabel="share of the push")
    axes[0, 0].invert_yaxis()
    plt.show()


show_push(0.02, 0.2, 2.0)
figures.explore(lambda tau: show_push(tau), tau=[0.1, 0.02, 0.05, 0.2, 0.5, 1.0, 2.0])

# %% [markdown] tags=["workshop"]
# A low temperature sees only the nearest negative, and here that is the false one (red). A high temperature pushes all alike and hardly at all. Wang & Liu (2021, [arXiv 2012.09740](https://arxiv.org/abs/2012.09740)) call this the **uniformity-tolerance dilemma**: separate everything, or leave like things together.
#
# ## 4 Train, and look at the space
#
# First, one batch by heart. The loss should fall from about $\ln N$, where an untrained network guesses, to almost nothing.

# %% tags=["workshop"]
B, WIDTH = run.pick(smoke=32, cpu=128, gpu=512), run.pick(smoke=4, cpu=16, gpu=64)
STEPS = run.pick(smoke=4, cpu=300, gpu=3_000)


def views(x, generator):
    return torch.cat(augment.two_views(x, recipe, generator=generator))  # (B, 3, H, W) -> (2B, 3, H, W)


def fitting(net, loss, batches, title, steps=STEPS, **more):
    """The job of training a network with AdamW."""
    optimizer = torch.optim.AdamW(training.parameter_groups(net, 1e-4), lr=3e-3)
    return partial(lessons.fit, net, loss, batches, steps=steps, optimizer=optimizer, precision=run.precision("conv"),
                   title=title, **more)


def encoder():
    torch.manual_seed(run.seed)
    return run.place(contrastive.PictureEncoder(WIDTH), "conv")


def prepare(objective, title, steps=STEPS, views=views, pictures=train_set):
    """A fresh encoder, and the job of training it with objective(a, b) on two views of each picture."""
    def loss(net, batch):
        a, b = net(batch[0]).chunk(2)                                    # (B, 64) each
        return objective(a, b), {"uniformity": objectives.uniformity(a.detach())}

    net = encoder()
    return net, fitting(net, loss, training.batches(pictures, B, seed=run.seed, augment=views), title, steps)


x = training.to_input(views(train_set.images[:32], chance))              # (64, 3, H, W)
by_heart = fitting(encoder(), lambda net, x: info_nce(*net(x).chunk(2), 0.1), [x] * 60, "one batch",
                   steps=run.pick(smoke=5, cpu=60, gpu=60))
history, = training.side_by_side([by_heart], run.device)                 # one thread: enough for a network this small
print(f"loss at first {history.loss[0]:.2f} (ln 32 = {math.log(32):.2f}), at last {history.loss[-1]:.3f}")

# %% [markdown] tags=["workshop"]
# A good space has two properties (Wang & Isola, 2020, [arXiv 2005.10242](https://arxiv.org/abs/2005.10242)). **Alignment**: partners are near each other. **Uniformity**: the vectors spread over the sphere and so keep information. Both are better when lower:
#
# $$\text{alignment}=\mathbb E\,\lVert f(x)-f(x^+)\rVert^2\qquad \text{uniformity}=\log\mathbb E\, e^{-2\lVert f(x)-f(y)\rVert^2}$$
#
# Now encoders that differ in nothing but the temperature, and one more that gets only half of the idea: *pull* partners together, push nobody away.
#
# *Predict first:* where does that last one end, and what is its InfoNCE loss?
#
# <details><summary>Answer</summary>All vectors become equal: perfect alignment, no information. This is <b>collapse</b>. Every candidate is then as good as any other, so the loss is exactly ln N.</details>

# %% tags=["workshop"]
TAUS = run.pick(smoke=(0.1, 0.2, 0.5), cpu=(0.02, 0.05, 0.1, 0.2, 0.5, 2.0), gpu=(0.02, 0.05, 0.1, 0.2, 0.5, 2.0))
plans = {f"tau {tau:g}": partial(objectives.symmetric_info_nce, tau=tau) for tau in TAUS}
plans["pull only"] = objectives.alignment
nets, jobs = zip(*(prepare(objective, name, steps=STEPS // 2 if name == "pull only" else STEPS)
                   for name, objective in plans.items()))
histories = dict(zip(plans, training.side_by_side(jobs, run.device)))
spaces = {"random": encoder(), "constant": encoder()} | dict(zip(plans, nets))
nn.init.zeros_(spaces["constant"].head[2].weight);                       # the end of collapse: the same vector for all

# %% [markdown] tags=["workshop"]
# Where did each one end? In the plane, the lower left corner is where one wants to be. Colour is the accuracy of a vote of the 20 nearest neighbours, with labels that the training never saw.

# %% tags=["workshop", "slide"]
bank = train_set[: run.pick(smoke=500, cpu=5_000, gpu=50_000)]
pairs = augment.two_views(test_set.images[:1_000], recipe, generator=torch.Generator(run.device).manual_seed(1))


def knn(net, recorded=bank, asked=test_set):
    """Accuracy of the vote of the 20 nearest vectors."""
    return probes.knn_accuracy(training.predict(net, recorded.images), recorded.labels,
                               training.predict(net, asked.images), asked.labels)


def place(net):
    """Alignment and uniformity on test pictures, InfoNCE minus ln N at tau 0.2, and the accuracy of the neighbours."""
    a, b = (training.predict(net, view) for view in pairs)               # (1000, D) each
    excess = objectives.info_nce(a[:256], b[:256], 0.2).item() - math.log(len(a[:256]))
    return objectives.alignment(a, b).item(), objectives.uniformity(a).item(), excess, knn(net)


placed = {name: place(net) for name, net in spaces.items()}
pixels = probes.knn_accuracy(training.to_input(bank.images).flatten(1), bank.labels,
                             training.to_input(test_set.images).flatten(1), test_set.labels)
print(f"neighbours of pixels {100 * pixels:.1f} %, guessing {100 / len(test_set.classes):.0f} %; loss - ln N:",
      ", ".join(f"{name} {placed[name][2]:+.4f}" for name in ("random", "pull only", "constant")))

_, axis = plt.subplots(figsize=(7.6, 4.2))
align, uniform, _, accuracy = zip(*placed.values())
dots = axis.scatter(uniform, align, c=[100 * value for value in accuracy], s=170, cmap="viridis", edgecolor=figures.INK,
                    zorder=3)
for name, x, y in zip(placed, uniform, align):
    # a dot is in the way
    below = any(abs(x - other) < 0.4 and 0 < height - y < 0.08 for other, height in zip(uniform, align))
    axis.annotate(name, (x, y), (-58 if name == "pull only" else 9, -15 if below else 8), textcoords="offset points",
                  fontsize=9)
axis.figure.colorbar(dots, label="accuracy of 20 neighbours (%)")
axis.margins(0.14)
pulled, best = placed["pull only"], max(placed.values(), key=lambda one: one[3])
cheap = pulled[0] < best[0] and pulled[1] > best[1]                 # nearer to its partners, and less spread out
title = "Alignment alone is cheap; the best space is spread out as well"
axis.set(title=title if cheap else "Alignment, uniformity, and what neighbours tell",
         xlabel="uniformity (lower: more spread out)", ylabel="alignment (lower: partners nearer)");

# %% [markdown] tags=["workshop"]
# The random, the collapsed and the constant encoder have the best alignment of all, because everything lies on one spot. The constant one is the control: its loss is exactly $\ln N$, and its neighbours are guesses. (“Pull only” is on its way there; what its neighbours still get right hides in the last digits of nearly equal vectors.) The push spreads the space out; the pull keeps partners together. A very high temperature hardly tells negatives apart, and one that is too low spends its force on the nearest few.

# %% [markdown]
# Wang & Liu found that a lower temperature gives a more uniform space. In the plane above the lowest one is not the lowest. Watch the uniformity during training, and the accuracy at the end.

# %%
_, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), width_ratios=(3, 2))
smooth = lambda values: training.History(loss=values).smooth(20)
figures.curves({name: smooth(histories[name].metrics["uniformity"]) for name in plans},
               title="How fast the cloud opens, by temperature", y="uniformity of a batch",
               styles={"pull only": {"color": figures.GREY}}, axis=left)
right.plot(TAUS, [100 * placed[f"tau {tau:g}"][3] for tau in TAUS], marker="o")
right.axhline(100 * pixels, color=figures.GREY, linestyle="--", linewidth=1)
right.annotate("pixels", (TAUS[-1], 100 * pixels), ha="right", va="bottom", fontsize=9, color=figures.GREY)
right.set(xscale="log", title="Accuracy by temperature", xlabel="temperature", ylabel="accuracy of neighbours (%)",
          xticks=TAUS, xticklabels=[f"{tau:g}" for tau in TAUS])
right.minorticks_off()
print("training loss at the end:", {name: round(histories[name].last(20), 2) for name in plans if name != "pull only"})

# %% [markdown]
# All encoders start as one tight cloud. At a low temperature each step pushes only the nearest few, so the cloud opens slowly, and the steps run out before it is open. Whether the paper's order would come with many more steps, these curves cannot say. And the loss in the printed line does not tell which space is best.
#
# ## 5 Negatives: how many, how fresh
#
# More candidates make a harder question. Same batches, same steps; we only forbid most of the negatives, by cutting each batch into groups that do not see each other.

# %%
def grouped(a, b, size):
    """InfoNCE in which each picture meets only the size - 1 others of its own group."""
    group = torch.arange(len(a), device=a.device) // size
    return objectives.symmetric_info_nce(a, b, 0.1, same=group[:, None] != group)


sizes = run.pick(smoke=(2,), cpu=(2, 8, 32), gpu=(2, 8, 32, 128))
nets, jobs = zip(*(prepare(partial(grouped, size=size), f"{size - 1} negatives") for size in sizes))
crops = augment.compose(partial(augment.random_resized_crop, size=train_set.images.shape[-1], scale=(0.5, 1)),
                        augment.random_flip)
cropped, crop_job = prepare(partial(objectives.symmetric_info_nce, tau=0.1), "crops alone",   # for section 7
                            views=lambda x, generator: torch.cat(augment.two_views(x, crops, generator=generator)))
training.side_by_side([*jobs, crop_job], run.device)
crowd = {size - 1: knn(net) for size, net in zip(sizes, nets)} | {B - 1: placed["tau 0.1"][3]}
figures.bars({f"{count} negative{'s' * (count > 1)}": value for count, value in crowd.items()},
             title="Accuracy of neighbours by number of negatives, equal steps",
             marks={"random encoder": placed["random"][3]});

# %% [markdown]
# The first few negatives bring most, the last ones little. Why should the number matter at all? Seen as information: a question with $N$ candidates can reveal at most $\ln N$ nats. InfoNCE bounds the **mutual information** of the pair from below (CPC; Poole et al., 2019, [arXiv 1905.06922](https://arxiv.org/abs/1905.06922)):
#
# $$I(q;k)\;\ge\;\ln N-\mathcal L$$
#
# Test it where the truth is known: two Gaussian vectors with correlation $\rho$ in each of 20 dimensions, $I=-10\ln(1-\rho^2)$, and the best possible score, $\ln p(k\mid q)/p(k)$.
#
# *Predict first:* the true information is 8 nats, and there are 64 candidates. What does the bound say?
#
# <details><summary>Answer</summary>At most ln 64, about 4.2. The loss is as good as zero and cannot say more.</details>

# %%
def bound(information, N, batches=20, dims=20):
    """ln N minus InfoNCE in nats, with the best possible score, for Gaussian pairs of known information."""
    rho2 = 1 - math.exp(-2 * information / dims)
    chance = torch.Generator().manual_seed(run.seed)
    q, noise = torch.randn(2, batches, N, dims, generator=chance)
    k = math.sqrt(rho2) * q + math.sqrt(1 - rho2) * noise
    # (batches, N, N)
    scores = k.square().sum(2)[:, None] / 2 - torch.cdist(math.sqrt(rho2) * q, k).square() / (2 * (1 - rho2))
    return math.log(N) - F.cross_entropy(scores.flatten(0, 1), torch.arange(N).repeat(batches)).item()


truth = [0.5 * step for step in range(1, 21)]
estimates = {f"N = {N}": (truth, [bound(value, N) for value in truth]) for N in (16, 64, 256)}
axis = figures.curves({"the truth": (truth, truth)} | estimates, title="The bound cannot rise above ln N",
                      x="true mutual information (nats)", y="ln N - loss (nats)",
                      styles={"the truth": {"color": figures.GREY, "linestyle": "--"}}, size=(6.6, 3.4))
axis.hlines([math.log(N) for N in (16, 64, 256)], 0, 10, color=figures.GREY, linewidth=0.6);

# %% [markdown]
# So the number of negatives is the resolution of the question. But all of them in one batch need memory. **MoCo** (He et al., 2020, [arXiv 1911.05722](https://arxiv.org/abs/1911.05722)) keeps the vectors of earlier batches in a queue: first in, first out, no gradient through them.

# %% tags=["nbval-check-output"]
class KeyQueue:
    """A ring of the last K keys: (K, D). New ones overwrite the oldest."""

    def __init__(self, keys):
        self.keys, self.pointer = keys, 0

    def push(self, new):                                                 # new (B, D)
        places = (self.pointer + torch.arange(len(new))) % len(self.keys)  # wraps around at the end
        self.keys[places] = F.normalize(new, dim=1)
        self.pointer = (self.pointer + len(new)) % len(self.keys)


tested = contrastive.KeyQueue(7, 3)
ours = KeyQueue(tested.keys.clone())
for size in (3, 3, 3):
    new = torch.randn(size, 3)
    ours.push(new), tested.push(new)
print("after nine keys into seven places, equal to the package's:", torch.equal(ours.keys, tested.keys))

# %% [markdown]
# A queue brings a new problem. Its keys were made by *earlier* versions of the encoder. MoCo's cure is to make the keys with a slow copy, $\theta_k\leftarrow m\,\theta_k+(1-m)\,\theta_q$ with **momentum** $m$. At $m=0$ the copy is the encoder itself. To keep it short, we train on from the encoder of section 4 at $\tau=0.1$.
#
# *Predict first:* halfway we ask the key encoder to redo all keys in the queue. How far have the old ones drifted, and what happens to the accuracy?

# %%
@torch.no_grad()
def drift(slow, queue, pictures, size):
    """How far each key lies from the same key made now, by age: (steps, squared distance / that of two strangers)."""
    with run.autocast("conv"):
        again = F.normalize(torch.cat([slow.network(part) for part in pictures.split(size)]).float(), dim=1)  # (K, D)
    strangers = (again - again.roll(1, 0)).square().sum(1).mean()
    moved = (again - queue.keys).square().sum(1) / strangers             # (K,) 0: as fresh, 1: as far off as a stranger
    ages = queue.age[queue.age >= 0].unique()
    return ages.tolist(), [moved[queue.age == age].mean().item() for age in ages]


def with_queue(momentum, size=B // 2):
    """An encoder trained with a queue of keys from its slow copy; its drift in the middle of training; and the job."""
    net, drifted = encoder(), []
    net.load_state_dict(spaces["tau 0.1"].state_dict())
    slow, queue = training.EMA(net, momentum), contrastive.KeyQueue(QUEUE, 64).to(run.device)
    slow.network.train()                                                 # batch norm by the batch, as in the encoder
    pictures = torch.zeros(QUEUE, *train_set.images.shape[1:], device=run.device)  # what the keys were made of

    def loss(net, batch):
        x, y = batch[0].chunk(2)
        with torch.no_grad():
            keys = slow.network(y)                                       # no gradient through the keys
        value = objectives.info_nce(net(x), keys, 0.1, negatives=queue.keys.clone())
        pictures[queue.push(keys)] = y  # only after the loss: no key is its own negative
        return value

    def after(step):
        slow.update(net)
        if step == LONGER // 2:
            drifted.append(drift(slow, queue, pictures, size))

    batches = training.batches(train_set, size, seed=run.seed, augment=views)
    return net, drifted, fitting(net, loss, batches, f"momentum {momentum:g}", LONGER, after_step=after)


# %%
QUEUE, LONGER = run.pick(smoke=64, cpu=2_048, gpu=16_384), run.pick(smoke=4, cpu=150, gpu=1_000)
moco = {momentum: with_queue(momentum) for momentum in (0.0, 0.9, 0.99)}
training.side_by_side([job for _, _, job in moco.values()], run.device)
ages = {f"momentum {momentum:g}": drifted[0] for momentum, (_, drifted, _) in moco.items() if drifted}
queued = {momentum: knn(net) for momentum, (net, _, _) in moco.items()}
_, axis = plt.subplots(figsize=(7.2, 3.4))
axis.set_yscale("log")
oldest = [moved[-1] for _, moved in ages.values()]
slowly = "A slow key encoder lets keys age slowly" if oldest == sorted(oldest, reverse=True) else "How keys age"
figures.curves({name: (steps[1:], moved[1:]) for name, (steps, moved) in ages.items()}, title=slowly,
               x="age of the key (steps)", y="drift (1: as far as a stranger)", axis=axis)
axis.axhline(1, color=figures.GREY, linestyle="--", linewidth=1)
print(f"neighbours before: {100 * placed['tau 0.1'][3]:.1f} %, after:",
      ", ".join(f"{100 * value:.1f} % with m = {momentum:g}" for momentum, value in queued.items()))

# %% [markdown]
# Without momentum the encoder runs away from its own queue: old keys soon say nothing about the network that has to beat them. The paper found that training fails at $m=0$; the printed line says what it did here to an encoder that was already good.
#
# ## 6 A picture and its caption
#
# Now the second kind of pair. The loss does not change at all. One encoder reads pictures, the other reads sentences, and row $i$ of one belongs to row $i$ of the other. Our reader is the simplest there is: the mean of the vectors of a sentence's words.

# %% tags=["nbval-check-output"]
class WordBag(nn.Module):
    """A list of B sentences -> (B, out): the mean of the words' vectors, then a head. The order of words is lost."""

    def __init__(self, vocabulary, width=64, out=64):
        super().__init__()
        self.numbers = {word: i for i, word in enumerate(sorted(set(vocabulary)), 1)}    # 0: a word never seen
        self.embedding = nn.EmbeddingBag(len(self.numbers) + 1, width, mode="mean")
        self.head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, out))

    def forward(self, sentences):
        rows = [[self.numbers.get(word, 0) for word in sentence.split()] for sentence in sentences]
        starts = torch.tensor([0, *(len(row) for row in rows[:-1])]).cumsum(0)           # where each sentence begins
        device = self.embedding.weight.device
        return self.head(self.embedding(torch.tensor(sum(rows, []), device=device), starts.to(device)))


ours, tested = WordBag(["a", "red", "ring"]), contrastive.WordBag(["a", "red", "ring"])
tested.load_state_dict(ours.state_dict())
print("equal to the package's:", torch.equal(ours(["a red ring", "a blue one"]), tested(["a red ring", "a blue one"])))

# %% [markdown]
# Remember the false negatives: a batch holds more captions than there are meanings. The tested losses take a table `same` that marks pairs which are no negatives; they are masked like the diagonal of NT-Xent. So we train three times: plainly, with equal captions masked, and, as the control that must fail, with the captions of *other* pictures. Beside them stands an encoder that got two views of the very same pictures and no caption.

# %%
shown = smaller(scenes.pictures("combination"))
held = len(shown) - min(run.pick(smoke=200, cpu=1_000, gpu=3_000), len(shown) // 3)    # the last ones are for the test


def caption_batches(size, shift=0):
    """Endless (pictures, sentences, meanings); shift pairs each picture with the caption of another one."""
    order, chance = torch.Generator().manual_seed(run.seed), torch.Generator(run.device).manual_seed(run.seed)
    while True:
        for index in torch.randperm(held, generator=order)[: held // size * size].split(size):
            other = (index + shift) % held
            images = augment.random_resized_crop(shown.images[index].float() / 255, shown.images.shape[-1],
                                                 scale=(0.7, 1), generator=chance)
            yield training.to_input(images), [sentences[i] for i in other.tolist()], meanings[other]


def prepare_captions(masked=False, shift=0, title=""):
    towers = nn.ModuleList([encoder(), WordBag(" ".join(sentences).split()).to(run.device)])

    def loss(towers, batch):
        images, texts, meaning = batch
        same = meaning[:, None] == meaning if masked else None                # (B, B) True: says the same, no negative
        return objectives.symmetric_info_nce(towers[0](images), towers[1](texts), 0.1, same=same)

    return towers, fitting(towers, loss, caption_batches(B, shift), title, steps=run.pick(smoke=4, cpu=250, gpu=1_500))


towers, jobs = zip(prepare_captions(title="plain"), prepare_captions(masked=True, title="masked"),
                   prepare_captions(shift=1, title="shuffled"))
viewer, view_job = prepare(partial(objectives.symmetric_info_nce, tau=0.1), "two views", pictures=shown[:held])
_, *told = training.side_by_side([view_job, *jobs], run.device)
print(f"ln({B} / {len(meanings.unique())}) = {math.log(B / len(meanings.unique())):.2f}; training loss at the end: "
      f"plain {told[0].last(20):.2f}, equal captions masked {told[1].last(20):.2f}, captions of other pictures "
      f"{told[2].last(20):.2f}")

# %% [markdown]
# Ask each pair of towers: which of all possible sentences belongs to this new picture? No label was ever used, only sentences.

# %%
@torch.no_grad()
def choices(pair, questions):
    """Cosine of each held-out picture with each question: (n, Q)."""
    words = F.normalize(pair[1].eval()(questions), dim=1)
    return F.normalize(training.predict(pair[0], shown.images[held:]), dim=1) @ words.T


known = meanings.unique().tolist()
questions = ["a " + shown.classes[number] for number in known]
answer = torch.tensor([known.index(number) for number in meanings[held:].tolist()], device=run.device)
kinds = ("captions", "equal captions masked", "captions of other pictures")
found = {name: choices(pair, questions) for name, pair in zip(kinds, towers)}
named = {name: (scores.argmax(1) == answer).float().mean().item() for name, scores in found.items()}
figures.bars(named, title="Picking the right sentence for a new picture", controls=["captions of other pictures"],
             marks={"chance": 1 / len(known)});

# %% [markdown]
# The pairing is all the supervision there is: break it, and nothing is left. The false negatives show in the printed lines. Without the mask the loss can hardly fall below the logarithm of the number of equal captions, since nobody can tell which of them is *the* partner; with it, it can. What that is worth in right answers is in section 8.
#
# What did each kind of pair teach the *picture* encoder? Ask its nearest neighbours about three attributes. The captions name colour and shape, and say nothing about the pattern.

# %%
taught = {}
for label, net in (("random", encoder()), ("two views", viewer), ("captions", towers[0][0])):
    for attribute in ("colour", "shape", "pattern"):
        labelled = replace(shown, labels=scenes.labels(attribute))
        taught[f"{attribute}: {label}"] = knn(net, labelled[: min(held, 5_000)], labelled[held:])
order = [f"{attribute}: {label}" for attribute in ("colour", "shape", "pattern")
         for label in ("random", "two views", "captions")]
gain = lambda attribute, label: taught[f"{attribute}: {label}"] - taught[f"{attribute}: random"]
told = min(gain("colour", "captions"), gain("shape", "captions")) > 0 >= gain("pattern", "captions")
survives = min(gain(attribute, "two views") for attribute in ("colour", "shape", "pattern")) > 0
title = "Captions teach what they name, two views what survives the changes"
figures.bars({key: taught[key] for key in order},
             title=title if told and survives else "What each kind of pair taught the picture encoder",
             controls=[key for key in order if "random" in key]);

# %% [markdown]
# The caption encoder knows what captions speak of. Two views ask for whatever survives the changes, named or not. Neither is “the meaning” of a picture; each is what the pairing keeps.
#
# Finally the space itself. Type a sentence; it is a point among the pictures. These are its nearest ones, never seen in training.

# %%
def show_nearest(sentence="a red ring"):
    """The six test pictures whose vectors are nearest to the sentence."""
    nearest = choices(towers[1], [sentence])[:, 0].topk(6).indices
    figures.grid(scenes.images[held:][nearest], columns=6, width=1.0, title=f"nearest to “{sentence}”")
    plt.show()


show_nearest("a blue cross")
show_nearest("a yellow triangle")
figures.explore(show_nearest, sentence=["a ring", *questions])

# %% [markdown]
# Near the sentence lie pictures of what it names, and nobody ever sorted them.
#
# ## 7 Where it falls short
#
# A contrastive loss learns whatever tells partners from strangers, and the cheapest such thing first. Here the two views were only cropped and mirrored; their colours stayed the same. Under each picture stand its nearest neighbours, for this encoder and for the one with colour changes.

# %%
def neighbours(net, count=3):
    """Numbers (n, count) of the nearest bank pictures of each test picture."""
    z, stored = (F.normalize(training.predict(net, part.images), dim=1) for part in (test_set, bank))
    return (z @ stored.T).topk(count).indices


tints = [part.images.float().mean((2, 3)) / 255 for part in (test_set, bank)]            # mean colours, (n, 3)
difference = lambda nearest: (tints[0][:, None] - tints[1][nearest]).norm(dim=2).mean().item()
strangers = difference(torch.randint(len(bank), (len(test_set), 1)))
rows = {"with colour changes": spaces["tau 0.1"], "crops alone": cropped}
for name, net in rows.items():
    nearest = neighbours(net)
    print(f"{name}: mean colour differs from the neighbours by {difference(nearest) / strangers:.2f} of the difference "
          f"between strangers; accuracy {100 * knn(net):.1f} %")
    figures.grid(torch.cat([splits.test.images[:8], *(splits.train.images[nearest[:8, rank]] for rank in range(2))]),
                 columns=8, width=0.8, title=f"{name}: a picture, and its two nearest")

# %% [markdown]
# Crops of one picture have the same colours, and comparing colours is easier than recognising things. So the two views are not a detail: they *are* the task. Which changes to make, and why the head is thrown away afterwards, is lesson 05. With captions this choice is made by whoever wrote them, which is where lesson 08 starts.
#
# ## 8 What the paper says, what we measured
#
# Verdicts are computed: an effect counts when it exceeds twice its standard error on the test pictures. “Too small to tell” is a verdict. Our setting: small pictures, a small network, one seed, minutes instead of days.

# %%
table = claims.Claims(run, data=test_set.name)
percent = lambda value: f"{100 * value:.1f} %"
tests, asked = len(test_set), len(shown) - held
better = lambda a, b, n=tests: claims.verdict(a - b, error=math.hypot(claims.share_error(a, n),
                                                                      claims.share_error(b, n)))
quality = {tau: placed[f"tau {tau:g}"][3] for tau in TAUS}
spread = [placed[f"tau {tau:g}"][1] for tau in TAUS]
on_val = {tau: knn(spaces[f"tau {tau:g}"], asked=val_set) for tau in TAUS}
best, inner = max(TAUS, key=on_val.get), max(TAUS[1:-1], key=on_val.get)   # chosen on val, reported on test
slow_drift, fast_drift = ages["momentum 0.99"][1], ages["momentum 0"][1]
table.add("transfer", "Pairs alone, without a label, give a space in which like lies near like.",
          paper="MoCo, linear probe on ImageNet: 60.6 % (ResNet-50; v2: 71.1 %)",
          here=f"neighbours {percent(quality[best])}; pixels {percent(pixels)}, random encoder "
               f"{percent(placed['random'][3])}",
          verdict=better(quality[best], max(pixels, placed["random"][3])))
table.add("collapse", "Without negatives the encoder collapses, and InfoNCE is ln N.", paper="follows from the formula",
          here=f"loss - ln 256 = {placed['pull only'][2]:+.4f}, neighbours {percent(placed['pull only'][3])}; a "
               f"constant encoder {placed['constant'][2]:+.4f}, {percent(placed['constant'][3])}",
          verdict=abs(placed["pull only"][2]) < 0.01 and better(quality[best], placed["pull only"][3]) == claims.HOLDS)
table.add("uniform", "The lower the temperature, the more uniform the space.", paper="Wang & Liu 2021 (curves)",
          here=", ".join(f"{value:.2f} at {tau:g}" for tau, value in zip(TAUS, spread)),
          verdict=all(low < high for low, high in zip(spread, spread[1:])))
ends = max(quality[TAUS[0]], quality[TAUS[-1]])
table.add("middle", "Neither the lowest nor the highest temperature is best.",
          paper="SimCLR: 59.7 % at 0.05, 64.4 % at 0.1, 60.7 % at 0.5, 58.0 % at 1 (table 5)",
          here=", ".join(f"{percent(value)} at {tau:g}" for tau, value in quality.items()),
          verdict=better(quality[inner], ends))
table.add("crowd", "More negatives give a better space.", paper="MoCo: more is better up to K = 65,536 (figure 3)",
          here=", ".join(f"{count}: {percent(value)}" for count, value in crowd.items()),
          verdict=better(crowd[max(crowd)], crowd[min(crowd)]))

# %%
highest = {N: max(estimates[f"N = {N}"][1]) for N in (16, 64, 256)}
table.add("bound", "The bound on mutual information saturates at ln N.", paper="CPC, Poole et al. 2019",
          here=", ".join(f"N {N}: at most {value:.2f} (ln N {math.log(N):.2f})"
                         for N, value in highest.items()) + " of 10 nats",
          verdict=all(0.9 * math.log(N) < value <= math.log(N) for N, value in highest.items()))
table.add("stale", "A slow key encoder keeps the queue consistent.",
          paper="the reason given for m = 0.999 (section 3.2)",
          here=f"drift of the oldest keys {slow_drift[-1]:.2f} at m = 0.99, {fast_drift[-1]:.1f} at m = 0 (1: as far "
               f"as a stranger)", verdict=slow_drift[-1] < fast_drift[-1])
table.add("momentum", "Without momentum the training with a queue suffers.",
          paper="m = 0 fails; a large momentum works best (section 4.1)",
          here=f"neighbours {percent(placed['tau 0.1'][3])} before, then "
               + ", ".join(f"{percent(value)} at m = {momentum:g}" for momentum, value in queued.items()),
          verdict=better(queued[0.99], queued[0.0]))
plain, masked, broken = named.values()
table.add("captions", "The same loss ties pictures to sentences.", paper="ConVIRT 2020, CLIP 2021",
          here=f"right sentence of {len(known)}: {percent(max(plain, masked))}; shuffled captions {percent(broken)}",
          verdict=better(max(plain, masked), broken, asked))
table.add("mask", "Masking equal captions names more pictures rightly.",
          paper="not in the paper; an experiment on scenes",
          here=f"{percent(masked)} with the mask, {percent(plain)} without", verdict=better(masked, plain, asked))
colours = {kind: knn(net) for kind, net in rows.items()}
table.add("shortcut", "Without colour changes the space is worse.",
          paper="SimCLR: crop alone 33.1 %, crop and colour 56.3 % (figure 5)",
          here=f"neighbours {percent(colours['crops alone'])} with crops alone, "
               f"{percent(colours['with colour changes'])} with colour changes",
          verdict=better(colours["with colour changes"], colours["crops alone"]))
for name, value in ({"pixels": pixels} | {name: values[3] for name, values in placed.items()} | named).items():
    table.number(name, value)
table.show()

# %% [markdown] tags=["workshop"]
# ## Exercises
#
# Write the function, run the check, read what it says. `hint("4.1")` gives three hints, one more each time; `solution("4.1")` shows one way. `lessons.progress()` remembers.
#
# **4.1 Semi-hard negatives** · 5 minutes · difficulty 1 of 5
#
# `semi_hard_mask(d_positive, d_negative, margin)`: (M,), (M, K) → bool (M, K).

# %% tags=["exercise", "check", "workshop", "nbval-check-output"]
def semi_hard_mask(d_positive, d_negative, margin):
    """Which negatives are semi-hard: farther than the positive, by less than the margin. d_positive (M,), d_negative
    (M, K), squared distances -> bool (M, K)"""
    raise NotImplementedError


check("4.1", semi_hard_mask);

# %% [markdown]
# **4.2 The loss with a queue** · 10 minutes · difficulty 2 of 5
#
# `queue_loss(q, k, queue, tau)`: q, k (B, D), queue (K, D), unit vectors → InfoNCE, a scalar; no gradient to k or queue.

# %% tags=["exercise", "check", "nbval-check-output"]
def queue_loss(q, k, queue, tau):
    """InfoNCE with a queue: the positive of q_i is k_i, the negatives are the rows of the queue. All are unit vectors;
    q, k (B, D), queue (K, D) -> scalar. No gradient reaches k or the queue."""
    raise NotImplementedError


check("4.2", queue_loss);

# %% [markdown]
# **4.3 NT-Xent, views side by side** · 15 minutes · difficulty 3 of 5
#
# `nt_xent_interleaved(z, tau)`: (2B, D), rows 2i and 2i + 1 are partners, any lengths → scalar.

# %% tags=["exercise", "check", "nbval-check-output"]
def nt_xent_interleaved(z, tau):
    """NT-Xent of z (2B, D), where rows 0 and 1 are the two views of one picture, rows 2 and 3 those of the next, and
    so on; the vectors have any length and are normalised here. -> scalar"""
    raise NotImplementedError


check("4.3", nt_xent_interleaved);

# %% [markdown]
# **4.4 The gradient, without autograd** · 20 minutes · difficulty 3 of 5
#
# `query_gradient(q, k, tau)`: (B, D) twice, scores q @ k.T / tau → gradient of the mean InfoNCE with respect to q, (B, D).

# %% tags=["exercise", "check", "nbval-check-output"]
def query_gradient(q, k, tau):
    """The gradient of InfoNCE with respect to the queries, without autograd: for each row (sum_j p_j k_j - k_i) / tau,
    divided by B because the loss is a mean. q, k (B, D), scores are q @ k.T / tau -> (B, D)"""
    raise NotImplementedError


check("4.4", query_gradient);

# %% [markdown]
# **4.5 Alignment and uniformity** · 15 minutes · difficulty 2 of 5
#
# `align_uniform(a, b, t=2.0)`: (B, D) twice → (alignment, uniformity), two scalars.

# %% tags=["exercise", "check", "nbval-check-output"]
def align_uniform(a, b, t=2.0):
    """(alignment, uniformity) as two scalars: the mean of |a_i - b_i|^2, and log of the mean of exp(-t |a_i - a_j|^2)
    over the pairs i < j; a, b (B, D) are normalised first."""
    raise NotImplementedError


check("4.5", align_uniform);

# %% [markdown]
# **4.6 No false negatives** · 15 minutes · difficulty 3 of 5
#
# `masked_info_nce(a, b, meanings, tau)`: (B, D) twice, unit vectors, meanings (B,) → InfoNCE without equal meanings as negatives.

# %% tags=["exercise", "check", "nbval-check-output"]
def masked_info_nce(a, b, meanings, tau):
    """InfoNCE of a against b where equal meanings are no negatives: entry (i, j) with meanings[i] == meanings[j] and
    i != j is left out. a, b (B, D) unit vectors, meanings (B,) int64 -> scalar"""
    raise NotImplementedError


check("4.6", masked_info_nce);

# %% [markdown]
# **4.7 Experiment: how much can a batch tell?** · 25 minutes · difficulty 4 of 5
#
# `information_bounds(correlation, dims, sizes, seed=0)`: ln N - InfoNCE in nats for Gaussian pairs, as {N: float}.

# %% tags=["exercise", "check", "nbval-check-output"]
def information_bounds(correlation, dims, sizes, seed=0):
    """Experiment: for each N in sizes, ln N - InfoNCE in nats between q (M, dims) normal and k = r q + sqrt(1 - r^2)
    noise, r the correlation, with the best score ln p(k|q) - ln p(k); about 4,000 queries each -> {N: float}"""
    raise NotImplementedError


check("4.7", information_bounds);

# %% [markdown]
# **4.8 Your own pairs** · 45 minutes · difficulty 5 of 5 · open
#
# Make positives in a third way (two crops of different size, neighbouring frames, two captions of one picture) and find out what the space learns. `solution("4.8")` asks you four questions.

# %% tags=["check", "nbval-check-output"]
check("4.8");

# %% [markdown] tags=["workshop"]
# ## What you can now claim
#
# - A pair is all the supervision there is: a partner to find, and a crowd to find it in. The loss is a classifier whose classes are the pictures of the batch.
# - You have seen what it does to a space: pull without push collapses, and the temperature decides which negatives are pushed. A loss means nothing without its $N$ and $\tau$.
# - The same loss ties pictures to sentences, and the space keeps what the pairing keeps, false negatives included.
#
# **Read on.** Van den Oord et al. 2018, [CPC](https://arxiv.org/abs/1807.03748): section 2.3 for the bound. He et al. 2020, [MoCo](https://arxiv.org/abs/1911.05722): algorithm 1 is section 5 in a page. Wang & Isola 2020, [Alignment and Uniformity](https://arxiv.org/abs/2005.10242): the plane. Wang & Liu 2021, [the behaviour of contrastive loss](https://arxiv.org/abs/2012.09740): the temperature. Schroff et al. 2015, [FaceNet](https://arxiv.org/abs/1503.03832): where mining was an art.
#
# **Next: 05 SimCLR**, which asks what each part of the recipe is worth. On the short path **08 CLIP**: the two towers of section 6, grown up.

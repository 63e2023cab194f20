# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["workshop", "slide"]
# # 07 · DINOv2: from a method to a backbone
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/vision-to-language/vision-to-language/blob/main/notebooks/07_dinov2.ipynb)
#
# **The claim.** One network, trained without labels and then frozen, serves classification, segmentation and depth alike: a linear layer on top is enough. What it takes beside lesson 06 is more terms in the loss, curated data, and distillation of a large model into small ones. (Oquab et al., 2024, [arXiv 2304.07193](https://arxiv.org/abs/2304.07193))
#
# **What you will have at the end.** KoLeo, Sinkhorn-Knopp and the masked-patch loss, equal to the implementations that the field uses; one frozen backbone under three linear heads, beside four rivals and two controls; a data engine that finds the useful pictures in a pool of junk; and a small student of a frozen teacher.
#
# **Where we are.** Before: 06, DINO, whose loss stays. You need the ViT of lesson 02. Next: 08, CLIP, which brings in words.
#
# | section | minutes of reading | in the 45-minute cut |
# |---|---|---|
# | 1 One picture, three questions | 5 | yes |
# | 2 What DINO does not have | 20 | yes |
# | 3 Train: from DINO to DINOv2 | 10 | yes |
# | 4 One frozen backbone | 10 | yes |
# | 5 Each term off | 8 | |
# | 6 Look at the patches | 7 | |
# | 7 The data engine | 10 | |
# | 8 Small models from a large one | 5 | |
# | 9 Where it falls short, claims, exercises | 10, then 60 to 120 of practice | |

# %% tags=["setup", "workshop"]
import importlib.util, subprocess, sys
if importlib.util.find_spec("lessons") is None:
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "git+https://github.com/vision-to-language/vision-to-language@main"], check=True)

# %% tags=["setup", "workshop"]
import math
from functools import cache, partial
from statistics import mean, stdev

import faiss
import torch
import torch.nn.functional as F
from torch import nn

import lessons
from lessons import augment, claims, data, figures, objectives, probes, recipes, training
from lessons.data.scenes import render
from lessons.exercises import check, hint, solution
from lessons.nets.dino import DINOHead
from lessons.nets.vit import ViT

run = lessons.start(7)
print(claims.reference_times(7))
plt = figures.pyplot()

# %% [markdown] tags=["workshop"]
# ## 1 One picture, three questions
#
# What colour is the largest object? Which pixels are object, ground, sky? How far is each? The built-in pictures know all three answers exactly. (CIFAR-10 knows classes only. The masks are then those of COCO photographs, two kinds of pixels, and depth is left out: there is none.)

# %% tags=["workshop"]
SIZE, COUNT = run.pick(smoke=48, cpu=48, gpu=64), run.pick(smoke=400, cpu=12_000, gpu=60_000)
LABELLED, VAL, TEST = run.pick(smoke=20, cpu=50, gpu=50), run.pick(smoke=20, cpu=200, gpu=500), run.pick(
    smoke=30, cpu=600, gpu=2_000)  # few labels for the heads; val for every choice, test for the number
scenes = run.source == "scenes" or data.available("masks") is None


def draw_scenes(number, first):
    return render(recipes.MEADOW, number, seed=run.seed, size=SIZE, first=first * 10**6, device=run.device)


def one_hot(labels, classes):
    return F.one_hot(labels, classes).float()[..., None, None]  # (N, K, 1, 1): a map of one pixel


if scenes:
    made = draw_scenes(COUNT, 0)
    train, name, kinds = made.images, "scenes", ("object", "ground", "sky")
    answers = [made.labels(kind) for kind in ("colour", "shape", "pattern")]  # for the rival with labels only
    held = [draw_scenes(number, part) for part, number in enumerate((LABELLED, VAL, TEST), 1)]
    maps = [recipes.ground_truth(one) for one in held]  # (N, 4, H, W): three kinds, then depth
    dense = [(one.images, truth[:, :3]) for one, truth in zip(held, maps)]
    depth = [(one.images, truth[:, 3:]) for one, truth in zip(held, maps)]
    classed = [(one.images, one_hot(one.labels("colour"), 10)) for one in held]
else:
    real = data.pictures(source="real", size=SIZE, train=COUNT, val=VAL, test=TEST, device=run.device)
    train, name, kinds = real.train.images, real.train.name, ("object", "background")
    answers, few, depth = [real.train.labels], run.pick(smoke=40, cpu=500, gpu=1_000), []
    classed = [(p.images, one_hot(p.labels, 10)) for p in (real.train[torch.arange(few)], real.val, real.test)]
    rows = data.masks(val=60, test=80, size=SIZE, device=run.device)
    whole = [(part.images, part.masks[:, None].float()) for part in (rows.train, rows.val, rows.test)]
    dense = [(images, torch.cat([m, 1 - m], 1)) for images, m in whole]
print(f"{len(train):,} pictures without labels; for the heads {len(classed[0][0])} with a class,", end=" ")
print(f"{len(dense[0][0])} with masks; tested on {len(classed[2][0])} and {len(dense[2][0])}")

# %% tags=["workshop"]
def draw_truth(number=9):
    shown = {"picture": dense[2][0][:number], "kind": dense[2][1][:number].argmax(1).float()}
    shown |= {"depth": 1 - depth[2][1][:number, 0]} if depth else {}
    _, axes = figures.panels(len(shown), number, width=1.15)
    for row, (title, values) in enumerate(shown.items()):
        for axis, one in zip(axes[number * row :], values):
            axis.imshow(figures.to_image(one) if row == 0 else one.cpu().numpy(), cmap="viridis" if row < 2 else "gray")
        axes[number * row].set_ylabel(title, fontsize=9)


draw_truth()

# %% [markdown] tags=["workshop"]
# Light is near, dark is far. Colour alone tells neither: objects and grounds share colours, and the tone of a picture says little about it.
#
# **The rule of this lesson: the backbone is frozen.** Each question gets one *linear* layer, fitted in closed form on a few labelled pictures. For the class it reads the [CLS] token beside the mean patch token, for the others each patch token alone. The answer of a patch is enlarged to pixels bilinearly. The head has a bias for each place, so that nobody gets points for knowing that the sky is up.

# %% tags=["workshop"]
@torch.no_grad()
def tokens(net, pictures):
    """Frozen: [CLS] and patch tokens (N, 1 + P, D)."""
    return torch.cat([net.eval().encode(training.to_input(part)).float() for part in pictures.split(250)])


def vector(t):
    return torch.cat([t[:, 0], t[:, 1:].mean(1)], 1)  # (N, 2 D): what stands for the whole picture


def placed(t):
    return torch.cat([t[:, 1:], torch.eye(t.shape[1] - 1, device=t.device).expand(len(t), -1, -1)], 2)  # (N, P, D + P)


def head(read, parts, score):
    """The linear head's maps (N, C, H, W) for test; `read` makes of pictures what it sees."""
    seen = [read(images) for images, _ in parts]
    return probes.dense_probe((seen[0], parts[0][1]), (seen[1], parts[1][1]), seen[2], score)


# %% tags=["workshop"]
def agree(a, b):
    return (a.argmax(1) == b.argmax(1)).float().flatten(1).mean(1)  # (N,)


def object_iou(a, b):
    return probes.mask_iou(a.argmax(1) == 0, b.argmax(1) == 0)  # (N,)


def rmse(a, b):
    return (a - b).square().mean((1, 2, 3)).sqrt()  # (N,)


def ask(read_tokens, place=placed):
    """Per test picture: is the class right, the IoU of the objects, the error of the depth."""
    read_tokens = cache(read_tokens)  # several questions are about the same pictures
    read = lambda pictures: place(read_tokens(pictures))
    score = lambda rule, sign=1: lambda a, b: sign * rule(a, b).mean().item()
    one = lambda pictures: vector(read_tokens(pictures))[:, None]
    results = {"class": agree(head(one, classed, score(agree)), classed[2][1])}
    results["objects"] = object_iou(head(read, dense, score(object_iou)), dense[2][1])
    if depth:
        results["depth"] = rmse(head(read, depth, score(rmse, -1)), depth[2][1])
    return results

# %% [markdown] tags=["workshop"]
# Two controls come first. One knows the mean colour of each patch, and nothing else. The other is a ViT that never learned anything; each of its tokens has looked at all others, in a random way.
#
# *Predict first:* which of the two is better at finding objects?
#
# <details><summary>Answer</summary>The untrained ViT. Its tokens hold many random functions of the patch and of its surroundings, and a linear layer picks from them. A control has to be strong, or beating it means nothing.</details>

# %% tags=["workshop"]
PATCH, WIDTH, DEPTH, HEADS = run.pick(smoke=(8, 16, 1, 1), cpu=(8, 64, 3, 2), gpu=(8, 192, 6, 6))


def make_vit(seed=0, width=WIDTH, depth_=DEPTH, heads=HEADS):
    torch.manual_seed(seed)
    return ViT(image=SIZE, patch=PATCH, width=width, depth=depth_, heads=heads, classes=0).to(run.device)


def colours(pictures):
    patches = F.avg_pool2d(pictures.float() / 255, PATCH).flatten(2).mT  # (N, P, 3)
    return torch.cat([patches.mean(1, keepdim=True), patches], 1)


scores = {"mean colours": ask(colours), "untrained": ask(partial(tokens, make_vit()))}


def say(scores):
    for title, row in scores.items():
        print(f"{title:26}" + "   ".join(f"{task} {values.mean():.3f}" for task, values in row.items()))


print("share of classes right, IoU of objects, error of depth (0 near to 1 far; small is good):")
say(scores)

# %% [markdown] tags=["workshop"]
# ## 2 What DINO does not have
#
# $$\mathcal L=\mathcal L_{\mathrm{DINO}}+\mathcal L_{\mathrm{iBOT}}+0.1\,\mathcal L_{\mathrm{KoLeo}}$$
#
# The first term is lesson 06. There is *no* instance-discrimination or contrastive term: one often reads that, and it is wrong. And there is no text.
#
# **KoLeo** keeps the features of a batch apart. Each vector looks for its nearest neighbour and pays minus the logarithm of the distance: halving a small distance costs as much as halving a large one.
#
# $$\mathcal L_{\mathrm{KoLeo}}=-\frac1B\sum_{i=1}^{B}\log\min_{j\ne i}\lVert z_i-z_j\rVert\qquad z=\frac{x}{\lVert x\rVert}$$
#
# **Pass 1, by hand; pass 2, plain loops; pass 3, vectorised.** *Predict first:* four vectors, three of them in one quarter of the circle. Who pays?

# %% tags=["workshop", "nbval-check-output"]
rows, x = ("east", "north", "north-east", "west"), torch.tensor([[3.0, 0.0], [0.0, 2.0], [1.0, 1.0], [-1.0, 0.0]])
z = x / x.norm(dim=1, keepdim=True)
for i, row in enumerate(rows):
    distance, j = min(((z[i] - z[j]).norm(), j) for j in range(4) if j != i)
    print(f"{row:10} nearest {rows[j]:10} at {distance:.3f}, pays {-distance.log():+.3f}")


def koleo_loops(x):
    z, total = [row / row.norm() for row in x], 0.0
    for i in range(len(z)):
        total -= min((z[i] - z[j]).norm() for j in range(len(z)) if j != i).log()
    return total / len(z)


def koleo_loss(x, eps=1e-8):
    z = F.normalize(x, dim=1)  # (B, D)
    nearest = (z @ z.T).detach().fill_diagonal_(-2).argmax(1)  # (B,) never oneself
    return -((z - z[nearest]).norm(dim=1) + eps).log().mean()


batch = torch.randn(9, 5)
print(f"mean {koleo_loss(x):.6f}; two opposite vectors: {koleo_loss(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])):.6f}")
print("loops and vectorised agree:", torch.allclose(koleo_loops(batch), koleo_loss(batch), atol=1e-6))
print("equal to the package's:    ", torch.allclose(objectives.koleo(batch), koleo_loss(batch), atol=1e-6))

# %% [markdown] tags=["workshop"]
# The three that crowd together pay, the one in the west gets something back. In DINOv2 $x$ is the student's [CLS] token *before* the head, and each of the two global crops is a batch of its own: between two crops of one picture the term would fight the loss of lesson 06.
#
# What does the term do on its own? Twelve points on a circle, pushed by KoLeo alone.

# %% tags=["workshop"]
torch.manual_seed(run.seed)
points = F.normalize(torch.tensor([1.0, 0.3]) + 0.25 * torch.randn(12, 2), dim=1)
_, axes = figures.panels(1, 3, width=2.2)
for step in range(401):
    if step in (0, 10, 400):
        axis, value = axes[(0, 10, 400).index(step)], koleo_loss(points)
        axis.add_patch(plt.Circle((0, 0), 1, fill=False, color=figures.GREY))
        axis.scatter(*points.T, color=figures.BLUE, zorder=3)
        axis.set(xlim=(-1.2, 1.2), ylim=(-1.2, 1.2), aspect="equal")
        axis.set_title(f"step {step}: {value:.3f}", fontsize=10, fontweight="normal", loc="center")
    force = torch.func.grad(koleo_loss)(points)
    points = F.normalize(points - 0.3 * 0.985**step * force, dim=1)
print(f"twelve points at equal distances would pay {-math.log(2 * math.sin(math.pi / 12)):.3f}")

# %% [markdown] tags=["workshop"]
# They spread until all distances are equal. The closest pairs move first: only nearest neighbours feel a force.
#
# **Sinkhorn-Knopp** replaces centring. It takes the scores of the whole batch and asks for two things at once: each picture's target is a distribution, and all prototypes are used alike. Divide each column by its sum, then each row by its own, and repeat three times.

# %% tags=["workshop", "nbval-check-output"]
def sinkhorn(scores, tau=0.04, rounds=3):
    q = ((scores - scores.max()) / tau).exp()  # (B, K); without the maximum exp would overflow
    for _ in range(rounds):
        q = q / q.sum(0, keepdim=True)  # each prototype gets the same share ...
        q = q / q.sum(1, keepdim=True)  # ... and each row is a distribution
    return q


T = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.5, 0.0], [1.0, 0.0, 0.5], [1.0, 0.2, 0.1]])  # prototype A wins everywhere
tables = {"softmax": (T / 0.5).softmax(1), "Sinkhorn": sinkhorn(T, 0.5), "same, tau 0.1": sinkhorn(T, 0.1)}
for title, q in tables.items():
    print(f"{title:14} first row {q[0].numpy().round(3)}   share of each prototype {(q.sum(0) / 4).numpy().round(3)}")
print("equal to the package's:", torch.allclose(sinkhorn(T, 0.5), objectives.sinkhorn_targets(T, 0.5)))

# %% [markdown] tags=["workshop"]
# A third each, although A had the highest score in every row. At the low temperature of training three rounds come near, not all the way.
#
# **The masked-patch loss, iBOT.** A block of patches is hidden from the student: a learned *mask token* stands in its place. The teacher sees everything. For each hidden patch the student has to name the prototype that the teacher gives it, from a second head with prototypes of its own. So it is MAE's task with another answer: not pixels, but what a network makes of them.
#
# $$\mathcal L_{\mathrm{iBOT}}=\frac1B\sum_{b=1}^{B}\frac1{|M_b|}\sum_{i\in M_b}-P_t^{(b,i)}\cdot\log P_s^{(b,i)}$$
#
# Half of the pictures lose a block of 10 to 50 % of their patches. This is what the student sees:

# %% tags=["workshop"]
from lessons.nets.dinov2 import DINOv2Network, block_masks

GRID = (SIZE // PATCH, SIZE // PATCH)
hidden = block_masks(9, GRID, generator=torch.Generator().manual_seed(run.seed + 1))  # bool (9, N)
veil = hidden.view(-1, 1, *GRID).repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3).to(run.device)
figures.grid(torch.where(veil, 128, dense[2][0][:9]), [f"{int(m.sum())} hidden" for m in hidden], columns=9);

# %% tags=["nbval-check-output"]
def patch_loss(targets, student, hidden, tau=0.1):
    """targets and student's scores (M, K) of the M hidden patches of `hidden` (B, N), in order."""
    costs = -(targets * (student / tau).log_softmax(-1)).sum(-1)  # (M,)
    weight = (1 / hidden.sum(1, keepdim=True).clamp(min=1)).expand(hidden.shape)[hidden]  # (M,) one over |M_b|
    return (costs * weight).sum() / len(hidden)


some = torch.tensor([[1, 1, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]]).bool()  # three patches, one, none
targets, guesses = (2 * torch.randn(4, 5)).softmax(-1), 0.1 * torch.randn(4, 5)
costs = [-(p * (s / 0.1).log_softmax(0)).sum() for p, s in zip(targets, guesses)]
value, right = patch_loss(targets, guesses, some), ((costs[0] + costs[1] + costs[2]) / 3 + costs[3]) / 3
print("by hand and vectorised agree:", torch.allclose(value, right, atol=1e-6))
print("equal to the package's:      ", torch.allclose(objectives.masked_patch_entropy(targets, guesses, some), value))

# %% [markdown] tags=["workshop"]
# Each picture counts alike, however many of its patches are hidden. Here as in the authors' code, a picture without a hidden patch counts as 0. The package's forms are held to lightly's `KoLeoLoss`, `IBOTPatchLoss` and `sinkhorn` in its tests, values and gradients.
#
# **Pass 4, as a module.** `DINOv2Network` is a ViT under two heads, with the mask token. Its `encode(views, hidden)` gives the [CLS] tokens of all views (V, B, D) and the patch tokens of the global ones (2, B, N, D). A hidden patch is replaced *before* the positions are added: the student knows where something is missing.
#
# ## 3 Train: from DINO to DINOv2
#
# The paper trains everything from the start, for days. We have a minute. So DINO comes first, as in lesson 06, and the terms join when its teacher has something to say. *Predict first:* why would they do little good, or harm, in the first steps?
#
# <details><summary>Answer</summary>The patch targets of a random teacher are little more than colours. And KoLeo spreads whatever there is: in the beginning that is the tone of the picture.</details>

# %% tags=["workshop"]
BATCH, K, MOMENTUM = run.pick(smoke=12, cpu=48, gpu=256), run.pick(smoke=32, cpu=256, gpu=2_048), run.pick(
    smoke=0.9, cpu=0.99, gpu=0.996)
RATE, LATER = run.pick(smoke=2e-3, cpu=2e-3, gpu=1e-3), run.pick(smoke=1e-3, cpu=1e-3, gpu=5e-4)
views = partial(augment.dino_crops, n_local=2, global_scale=(0.5, 1.0), local_scale=(0.15, 0.5),
                jitter=(0.3, 0.3, 0.3, 0.02), grayscale=0.0, blur=False, solarize=0.0)


def make_network(backbone=None):
    backbone = backbone or make_vit()
    D = backbone.position.shape[1]
    return DINOv2Network(backbone, DINOHead(D, K), DINOHead(D, K)).to(run.device)  # two heads: "untied"


def draw(pictures, seed):
    chance = torch.Generator(run.device).manual_seed(seed)
    while True:
        index = torch.randint(len(pictures), (BATCH,), device=run.device, generator=chance)
        yield [training.to_input(view) for view in views(pictures[index], generator=chance)]


def target_maker(even):
    """Scores -> targets: by Sinkhorn if `even`, else centred, each kind of scores with a centre of its own."""
    centres = {}

    def targets(scores, kind):
        if even:
            return objectives.sinkhorn_targets(scores)
        if kind not in centres:
            centres[kind] = scores.flatten(0, -2).mean(0)
        P = objectives.dino_targets(scores, centres[kind])
        centres[kind] = objectives.moved_centre(centres[kind], scores)  # for the next step
        return P

    return targets

# %% tags=["workshop"]
def self_distil(pictures, steps, seed=0, *, ibot=0.0, koleo=0.0, even=False, begin=None, student=None, frozen=None,
                title="DINO"):
    """The average of the student, and the job of training both. `begin`: the network to go on from; `frozen`: a teacher
    that stays as it is, in place of that average."""
    torch.manual_seed(seed + 100)
    student = student or make_network()
    if begin is not None:
        student.backbone.load_state_dict(begin.backbone.state_dict())
        student.head.load_state_dict(begin.head.state_dict())  # the patch head starts anew
    average = training.EMA(student, MOMENTUM)
    teacher, targets = frozen or average.network, target_maker(even)
    chance = torch.Generator().manual_seed(seed)  # masks are drawn on the CPU: a GPU would have to be asked how many

    def loss(student, crops):
        hidden = block_masks(2 * BATCH, GRID, share=0.5 if ibot and frozen is None else 0.0, generator=chance)
        asked = torch.ones_like(hidden) if frozen is not None else hidden  # a frozen teacher is asked about all patches
        places = asked.flatten().nonzero()[:, 0].to(run.device)  # (M,)
        with torch.no_grad():
            t_cls, t_patches = teacher.encode(crops[:2])  # (2, B, D), (2, B, N, D)
            P = targets(teacher.head(t_cls), "pictures")
        s_cls, s_patches = student.encode(crops, hidden.to(run.device) if hidden.any() else None)  # (V, B, D) ...
        total = objectives.cross_view_entropy(P, student.head(s_cls))
        used, unsure = objectives.target_entropies(P)
        apart = sum(map(objectives.koleo, s_cls[:2]))  # each crop a batch of its own
        log = {"dino": total, "used": used, "unsure": unsure, "koleo": apart / 2}
        if ibot:
            with torch.no_grad():
                P = targets(teacher.patch_head(t_patches.flatten(0, 2)[places]), "patches")  # (M, K)
            guesses = student.patch_head(s_patches.flatten(0, 2)[places])
            log["ibot"] = objectives.masked_patch_entropy(P, guesses, asked)
            total = total + ibot * log["ibot"]
        return total + koleo * apart if koleo else total, log

    optimizer = torch.optim.AdamW(training.parameter_groups(student, 0.04), lr=LATER if begin else RATE)
    settings = {"clip": 3.0, "precision": run.precision("transformer"), "title": title}
    follow = lambda step: average.update(student)
    return average.network, partial(lessons.fit, student, loss, draw(pictures, seed), steps=steps, optimizer=optimizer,
                                    after_step=follow, **settings)

# %% [markdown] tags=["workshop"]
# Four trainings come first: DINO on our pictures; the two rivals on the same pictures and for as many steps as DINOv2 gets in all, MAE of lesson 03 and a ViT with labels (on scenes three kinds of them: colour, shape and pattern); and DINO on the messy pool of section 7. Equal steps are not equal compute: the seconds below tell.

# %% tags=["workshop"]
FIRST, MORE = run.pick(smoke=4, cpu=350, gpu=6_000), run.pick(smoke=4, cpu=80, gpu=3_000)
POOL = run.pick(smoke=300, cpu=6_000, gpu=40_000)
fresh = draw_scenes(POOL, 5).images if scenes else train
copied = min(run.pick(smoke=5, cpu=30, gpu=100), POOL // 10)
pool, pool_kind, pool_source = recipes.uncurated_pool(fresh, POOL, sources=copied)
POOL_STEPS = run.pick(smoke=4, cpu=200, gpu=4_000)

dino, dino_job = self_distil(train, FIRST)
messy, messy_job = self_distil(pool, POOL_STEPS, title="all of the pool")
mae, taught = make_vit(), make_vit()
shared = {"batch": BATCH, "rate": RATE, "precision": run.precision("transformer")}
kept = {"steps": FIRST, "batch": BATCH, "K": K, "size": SIZE, "data": name, "pictures": len(train), "heads": HEADS,
        "seed": run.seed, "rate": RATE, "momentum": MOMENTUM}
histories = training.side_by_side([
    partial(training.remember, "07-dino", dino, kept, dino_job),
    recipes.labelling(taught, train, answers, FIRST + MORE, views=views, **shared),
    messy_job,
    recipes.painting(mae, train, FIRST + MORE, **shared),
], run.device)
print(", ".join(f"{title} {h.seconds:.0f} s" for title, h in zip(("DINO", "labels", "pool", "MAE"), histories)))

# %% [markdown] tags=["workshop"]
# Now DINO goes on, in branches that all begin from the same network and have equal steps: with everything, with nothing new (both from three orders of the pictures), and with one thing left out at a time.

# %% tags=["workshop"]
FULL = {"ibot": 1.0, "koleo": 0.1, "even": True}
plans = {"DINOv2": FULL, "DINO, longer": {}, "no iBOT": FULL | {"ibot": 0.0}, "no KoLeo": FULL | {"koleo": 0.0},
         "centring": FULL | {"even": False}}
SEEDS = run.pick(smoke=(1,), cpu=(1, 2, 3), gpu=(1, 2, 3))
branches = {(plan, seed): self_distil(train, MORE, seed, begin=dino, title=plan, **terms)
            for plan, terms in plans.items() for seed in (SEEDS if plan in ("DINOv2", "DINO, longer") else SEEDS[:1])}
logs = dict(zip(branches, training.side_by_side([job for _, job in branches.values()], run.device)))
nets = {key: net.backbone for key, (net, _) in branches.items()}
main = branches["DINOv2", SEEDS[0]][0]
print(f"a branch took {logs['DINOv2', SEEDS[0]].seconds:.0f} s with all terms", end=", ")
print(f"{logs['DINO, longer', SEEDS[0]].seconds:.0f} s with those of DINO")

# %% [markdown]
# What do the terms do to what they are made for? Left: the distance of a [CLS] token to its nearest neighbour in the batch. Right: the entropy of the mean target; at $\ln K$ all prototypes are in use.

# %% tags=["slide"]
smooth = lambda values, window=10: training.History(loss=list(values)).smooth(window)
seed = SEEDS[0]
_, axes = plt.subplots(1, 2, figsize=(12, 3.2))
far = {plan: [math.exp(-v) for v in smooth(logs[plan, seed].metrics["koleo"])] for plan in ("DINOv2", "no KoLeo")}
figures.curves(far, title="KoLeo: how far the nearest neighbour is", y="distance (geometric mean)", axis=axes[0])
figures.curves({plan: smooth(logs[plan, seed].metrics["used"]) for plan in ("DINOv2", "centring")},
               title=f"Are all prototypes in use? (dashed: ln {K})", y="entropy of the mean target (nats)",
               baselines={"": math.log(K)}, axis=axes[1]);

# %% [markdown] tags=["workshop"]
# Both do their job, Sinkhorn at once and KoLeo after a few dozen steps. Whether the features get better for it, only the heads can tell.
#
# ## 4 One frozen backbone
#
# *Predict first:* MAE, the ViT with labels, DINO and DINOv2, all with equal steps, all frozen: who wins which question?
#
# <details><summary>Answer</summary>No one wins all. MAE has to know shapes and places to paint, so it is good at depth. Labels teach what they name. The self-distilled ones are good at "what is it" from few labels, and their patches know the objects.</details>

# %% tags=["workshop", "slide"]
scores |= {"MAE (03)": ask(partial(tokens, mae)), "labels": ask(partial(tokens, taught))}
runs = {key: ask(partial(tokens, net)) for key, net in nets.items()}
over = lambda runs, plan: {task: torch.stack([r[task] for (p, _), r in runs.items() if p == plan]).mean(0)
                           for task in scores["labels"]}
scores |= {"DINO (06)": over(runs, "DINO, longer"), "DINOv2": over(runs, "DINOv2")}
say(scores)
tasks = {"class": "share right", "objects": "IoU of the objects", "depth": "error (less is better)"}
order = ("DINOv2", "DINO (06)", "MAE (03)", "labels", "untrained", "mean colours")
tasks = {task: unit for task, unit in tasks.items() if task in scores["labels"]}
_, axes = plt.subplots(1, len(tasks), figsize=(4.4 * len(tasks), 2.9))
for axis, (task, unit) in zip(axes, tasks.items()):
    values = {title: scores[title][task].mean().item() for title in order}
    best = (min if task == "depth" else max)(values, key=values.get)
    figures.bars(values, controls=order[4:], percent=False, x=unit, title=f"{task}: {best} first", axis=axis)

# %% [markdown] tags=["workshop"]
# Read the panels together, each network across all of them. A frozen network, a few labelled pictures and a linear layer: that is enough for answers which colours, or an untrained network, cannot give. How far the lead goes depends on the question. MAE, cheap and strong on pixels and places, is the rival to respect; on scenes it says least about *what* it sees as long as labels are few. That a single frozen network serves for everything, although nobody asked these questions when it was trained, is the point of a backbone. (On CIFAR-10 a minute is far too short: there the untrained one is hard to beat.)
#
# The paper's claim is about linear heads, and about self-supervised rivals: its frozen ViT-g is the best of those, and on par with or slightly above OpenCLIP (86.5 % on ImageNet with a linear layer). 
#
# ## 5 Each term off
#
# One thing left out at a time. Beside the heads as above, a harder one for the depth: *without* the bias for each place, so that a patch token has to know by itself where it is. The last two lines look at the patch prototypes, the targets of iBOT.

# %%
alone = {plan: ask(partial(tokens, nets[plan, SEEDS[0]]), place=lambda t: t[:, 1:]) for plan in plans}
last = "depth" if depth else "objects"
print(f"{'':14}" + "".join(f"{task:>10}" for task in tasks) + f"   {last} without place   neighbour at")
gaps = {}
for (plan, seed), row in runs.items():
    z = F.normalize(training.predict(nets[plan, seed], classed[2][0]), dim=1)
    gaps[plan, seed] = (2 - 2 * (z @ z.T).fill_diagonal_(-1).amax(1)).clamp(min=0).sqrt()  # (N,) to the nearest
    if seed == SEEDS[0]:
        print(f"{plan:14}" + "".join(f"{row[task].mean():10.3f}" for task in tasks), end="")
        print(f"{alone[plan][last].mean():12.3f}{gaps[plan, seed].mean():20.3f}")


@torch.no_grad()
def told(names, values):
    """The share of the variance of values (M, C) that the names (M,) explain."""
    groups = F.one_hot(names, K).float()
    means = groups.T @ values / groups.sum(0)[:, None].clamp(min=1)
    return 1 - ((values - means[names]).square().sum() / (values - values.mean(0)).square().sum()).item()


images, truth = dense[2]
raw = tokens(make_vit(), images)[:, 1:].flatten(0, 1)  # (N P, D) of an untrained ViT
raw = F.normalize(raw - raw.mean(0), dim=1)
names = {"the patch prototypes": main.patch_head(tokens(main.backbone, images)[:, 1:]).argmax(-1).flatten(),
         f"{K} tokens of an untrained ViT": (raw @ raw[torch.randperm(len(raw))[:K]].T).argmax(1)}
patch_kinds = F.adaptive_avg_pool2d(truth, GRID[0]).flatten(2).mT.flatten(0, 1)  # (N P, kinds), shares
patch_colours = colours(images)[:, 1:].flatten(0, 1)
for title, one in names.items():
    share_of_colour, share_of_kind = (100 * told(one, values) for values in (patch_colours, patch_kinds))
    print(f"named by {title}: {share_of_colour:.0f} % of the mean colour, {share_of_kind:.0f} % of the kind told")

# %% [markdown]
# KoLeo spreads, Sinkhorn fills the prototypes, and the three questions gain or cost little. Why does iBOT not do more? The last two lines say how much of a patch's mean colour, and of its kind, is known once one knows the name of its prototype; beside it, names that nobody learned, the nearest of some arbitrary tokens of the untrained ViT. A target is worth what it tells. Where learned names tell no more than arbitrary ones, guessing them teaches little: our patch head is less than a minute old. (Long trainings on photographs end with prototypes for parts of things; the iBOT paper draws them.)
#
# The paper's ablations are not large either, and differ by task: KoLeo takes retrieval on Oxford from 55.6 to 63.9 (mAP), ImageNet from 85.3 to 85.8 %, segmentation from 47.2 to 47.1. iBOT takes segmentation from 44.2 to 47.1. Sinkhorn in place of centring changes nothing at all (81.7 and 84.7 % before and after).
#
# ## 6 Look at the patches
#
# A frozen backbone's patch tokens can be shown without any head. Take the three main directions in which the tokens of these pictures differ from the rest of their picture (PCA), and show them as red, green and blue. Equal colours mean that the network holds two places for alike, in one picture or in two.

# %% tags=["slide"]
FINE = (2 * GRID[0], 2 * GRID[1])


def within(net, pictures):
    """Patch tokens (N, 4 P, D) less the mean of their picture. Each picture is read four times, moved by half a patch,
    so that the map is twice as fine."""
    half, side = PATCH // 2, pictures.shape[-1]
    padded = F.pad(pictures.float() / 255, (0, half, 0, half), mode="replicate")
    reads = [tokens(net, padded[..., y : y + side, x : x + side])[:, 1:] for y in (0, half) for x in (0, half)]
    t = torch.stack(reads).view(2, 2, len(pictures), *GRID, -1).permute(2, 3, 0, 4, 1, 5)  # (N, rows, 2, columns, 2, D)
    t = t.flatten(1, 4)
    return t - t.mean(1, keepdim=True)


def colour_by_pca(net, pictures):
    """(N, 3, rows, columns) in [0, 1]: the first three principal components of the patch tokens."""
    flat = within(net, pictures).flatten(0, 1)
    parts = flat @ torch.linalg.svd(flat, full_matrices=False).Vh[:3].T  # (N P, 3); signs are arbitrary
    low, high = parts.quantile(0.02, 0), parts.quantile(0.98, 0)
    return ((parts - low) / (high - low)).clamp(0, 1).view(-1, *FINE, 3).permute(0, 3, 1, 2)


few = dense[2][0][:10]
shown = {"DINOv2": main.backbone, "MAE": mae, "untrained": make_vit()}
_, axes = figures.panels(1 + len(shown), len(few), width=1.1)
pictures_of = {"picture": few} | {title: colour_by_pca(net, few) for title, net in shown.items()}
for row, (title, pictures) in enumerate(pictures_of.items()):
    for axis, one in zip(axes[len(few) * row :], pictures):
        axis.imshow(figures.to_image(one), extent=(0, 1, 0, 1))
    axes[len(few) * row].set_ylabel(title, fontsize=9)

# %% [markdown]
# Nobody drew a mask. The untrained network shows objects, too, as far as their colours differ from the ground; look where the trained ones are calmer, or tell object from ground across pictures. Turn the control: choose a patch of the first picture (white frame), and see which patches of the others lie nearest to it.


# %%
START = FINE[1] * (FINE[0] * 2 // 3) + FINE[1] // 2


def nearest_patches(patch=START):
    """How similar each patch of ten pictures is to one patch of the first."""
    z = F.normalize(within(main.backbone, few), dim=-1)  # (N, 4 P, D)
    likeness = (z @ z[0, patch]).view(-1, *FINE).cpu()
    row, column = divmod(patch, FINE[1])
    _, axes = figures.panels(2, len(few), width=1.1)
    for i, (picture, one) in enumerate(zip(few, likeness)):
        axes[i].imshow(figures.to_image(picture), extent=(0, FINE[1], FINE[0], 0))
        axes[len(few) + i].imshow(one, extent=(0, FINE[1], FINE[0], 0), vmin=0, vmax=1)
    axes[0].add_patch(plt.Rectangle((column, row), 2, 2, fill=False, edgecolor="white", linewidth=2))
    plt.show()


figures.explore(nearest_patches, patch=[START, *range(FINE[0] * FINE[1])])

# %% [markdown]
# ## 7 The data engine
#
# DINOv2's data were not "filtered for quality". 1.2 billion pictures from the web, duplicates removed, were embedded by a self-supervised ViT. Then each picture of some trusted, *curated* sets fetched its nearest neighbours. 142 million were left, chosen without labels, texts or metadata.
#
# Here is such a pool. Look for the useful ones.

# %%
counts = torch.bincount(pool_kind, minlength=4).tolist()
print(f"{len(pool):,} pictures:", ", ".join(f"{n} {kind}" for n, kind in zip(counts, recipes.POOL_KINDS)))
figures.grid(pool[60:82], columns=11, width=0.95);

# %% [markdown]
# Some are of the kind we want. More are near-duplicates of a few of them, and half is junk: pictures with their tiles shuffled, textures, noise. We own a small curated set, without labels. The embedding comes from a DINO that was trained on this very pool, junk and all.
#
# Two steps. **Deduplicate:** go through the pool; drop what is too similar to something kept. **Retrieve:** each curated picture fetches its nearest neighbours. faiss does the search.
#
# *Predict first:* why deduplicate first, and not last?
#
# <details><summary>Answer</summary>A copied picture fills all the places among the neighbours of whoever is near to it.</details>

# %%
CURATED, NEIGHBOURS, TWIN = run.pick(smoke=10, cpu=60, gpu=400), run.pick(smoke=10, cpu=20, gpu=20), 0.98
curated = draw_scenes(CURATED, 7).images if scenes else real.train.images[-CURATED:]


def embed(net, pictures):
    return F.normalize(vector(tokens(net, pictures)), dim=1).cpu()  # (N, 2 D), as cosines


def unique(z, twin=TWIN):
    """Numbers of the pictures that are kept: none is too similar to one kept before."""
    kept = torch.ones(len(z), dtype=torch.bool)
    for i in range(len(z)):
        if kept[i]:
            kept[i + 1 :] &= z[i + 1 :] @ z[i] < twin
    return kept.nonzero()[:, 0]


def retrieve(z, queries, numbers):
    """Numbers of the pictures among `numbers` that are near to some query."""
    index = faiss.IndexFlatIP(z.shape[1])  # inner product of unit vectors: the cosine
    index.add(z[numbers].numpy())
    found = index.search(queries.numpy(), min(NEIGHBOURS, len(numbers)))[1]
    return numbers[torch.from_numpy(found).flatten().unique()]


def composition(numbers):
    kinds, sources = pool_kind[numbers], pool_source[numbers]
    own = kinds.cpu() < 2
    return {"pictures": len(numbers), "wanted": own.float().mean().item(),
            "different": len(sources[own.to(sources.device)].unique()) / len(numbers)}


# %%
faiss.omp_set_num_threads(1)  # torch brings threads of its own
everything, found = torch.arange(len(pool)), {}
readers = {"trained on the pool": partial(embed, messy.backbone), "untrained ViT": partial(embed, make_vit()),
           "mean colours": lambda pictures: F.normalize(vector(colours(pictures)), dim=1).cpu()}
for title, reader in readers.items():
    z, queries = reader(pool), reader(curated)
    found[title] = {"whole pool": everything, "retrieved": retrieve(z, queries, everything)}
    kept_numbers = unique(z)
    found[title] |= {"deduplicated": kept_numbers, "both": retrieve(z, queries, kept_numbers)}
    for step, numbers in found[title].items():
        c = composition(numbers)
        print(f"{title:20} {step:13} {c['pictures']:5} pictures, wanted {100 * c['wanted']:5.1f} %,", end=" ")
        print(f"different wanted ones {100 * c['different']:5.1f} %")

# %% [markdown]
# "Wanted" are pictures of our kind and their copies; "different" counts each of them once. Retrieval alone brings the copies along; only both steps together give many *different* wanted pictures. The kind alone is easy: an untrained ViT finds it, too, but takes fewer copies for copies. (A threshold belongs to its embedding: mean colours all point nearly one way, so almost everything is a twin.)
#
# Does it matter? Train DINO on the curated pictures, and on as many drawn at random from the pool, three times each. One more, on the whole pool, was trained above. All have equal steps.

# %%
chosen = found["trained on the pool"]["both"].to(run.device)
chance = torch.Generator().manual_seed(run.seed)
drawn = {("curated", seed): chosen for seed in SEEDS}
drawn |= {("as many at random", seed): torch.randperm(len(pool), generator=chance)[: len(chosen)].to(run.device)
          for seed in SEEDS}
picked = {(title, seed): self_distil(pool[numbers], POOL_STEPS, seed, title=title)
          for (title, seed), numbers in drawn.items()}
training.side_by_side([job for _, job in picked.values()], run.device)
diets = {key: ask(partial(tokens, net.backbone)) for key, (net, _) in picked.items()}
engine = {title: over(diets, title) for title in ("curated", "as many at random")}
engine["all of the pool"] = ask(partial(tokens, messy.backbone))
say(engine)

# %% tags=["slide"]
_, axes = plt.subplots(1, len(tasks), figsize=(4.4 * len(tasks), 1.9))
for axis, (task, unit) in zip(axes, tasks.items()):
    values = {title: row[task].mean().item() for title, row in (engine | {"untrained": scores["untrained"]}).items()}
    best = (min if task == "depth" else max)(values, key=values.get)
    figures.bars(values, controls=["untrained"], percent=False, x=unit, title=f"{task}: {best} first", axis=axis)

# %% [markdown]
# The engine found what it was asked for; that the backbone gets better for it does not follow (section 9 judges by the spread). A few hundred steps are too few to run out of variety, colours can be learned from junk, and a mosaic or a shuffled picture may teach patches as much as a landscape does.
#
# The paper's runs are thousands of times longer (ViT-g, equal iterations): ImageNet 85.8 % on the curated 142 million, 83.3 % on as many uncurated ones, iNaturalist 82.3 and 68.0 %. But in segmentation the uncurated ones were *best*, 48.5 against 47.7.
#
# ## 8 Small models from a large one
#
# The ViT-S, B and L that everybody uses were not trained in this way. They are *distilled* from the frozen ViT-g: the same loop, with that teacher in place of the average, and without masks. (ViT-g itself has no larger teacher.) We do the same with a network of half the width: with our DINOv2 as frozen teacher, and on its own, at equal steps, three times each.

# %%
STUDENT_STEPS = run.pick(smoke=4, cpu=160, gpu=4_000)
tiny = partial(make_vit, width=WIDTH // 2, depth_=max(1, DEPTH - 1), heads=1)
main.requires_grad_(False).eval()
students = {}
for seed in SEEDS:
    more = {"student": make_network(tiny(seed)), "frozen": main, "ibot": 1.0, "even": True, "title": "distilled"}
    students["distilled", seed] = self_distil(train, STUDENT_STEPS, seed, **more)
    more = {"student": make_network(tiny(seed)), "title": "on its own"}
    students["on its own", seed] = self_distil(train, STUDENT_STEPS, seed, **more)
training.side_by_side([job for _, job in students.values()], run.device)
numbers = lambda net: sum(p.numel() for p in net.parameters())
print(f"teacher {numbers(main.backbone):,} parameters, student {numbers(tiny()):,}")
grown = {key: ask(partial(tokens, net.backbone)) for key, (net, _) in students.items()}
small = {title: over(grown, title) for title in ("distilled", "on its own")}
small |= {"untrained": ask(partial(tokens, tiny())), "its teacher": scores["DINOv2"]}
say(small)

# %% [markdown]
# (In the paper, ImageNet with a linear layer: ViT-L from scratch 84.5 %, distilled 86.3 %.) For so small a student the luck of its start can weigh as much as its teacher: section 9 judges over three.
#
# ## 9 Where it falls short
#
# What the crops and colour changes leave alone is learned; what they wash out, or what no view needs, is not. Ask the same frozen [CLS] for the *shape* and the *pattern* of the object. (On CIFAR-10: for two classes that differ in form more than in colour, cat and dog.)

# %%
if scenes:
    bank = draw_scenes(run.pick(smoke=60, cpu=1_500, gpu=5_000), 4)  # none of them is in test
    topics = {kind: [one.labels(kind) for one in (bank, held[1], held[2])] for kind in ("colour", "shape", "pattern")}
    seen = [bank.images, held[1].images, held[2].images]
else:
    pairs = [p[(p.labels == 3) | (p.labels == 5)] for p in (real.train, real.val, real.test)]
    seen, topics = [p.images for p in pairs], {"cat or dog": [(p.labels == 5).long() for p in pairs]}
blind = {}
for title, net in {"DINOv2": main.backbone, "labels": taught, "untrained": make_vit()}.items():
    a, b, c = (vector(tokens(net, images)) for images in seen)
    blind[title] = {kind: probes.ridge_probe(a, x, b, y, c, z) for kind, (x, y, z) in topics.items()}
    print(f"{title:10}" + "   ".join(f"{kind} {100 * value:.1f} %" for kind, value in blind[title].items()))

# %% [markdown]
# On scenes the colour is known. Of shape and pattern it knows far less than the network that was told. More data and steps push this limit, they do not remove it: the features know what the training's views have in common. And nobody can *ask* this space anything, except through a head with labels. Lesson 08 puts words beside the pictures.
#
# ## What the paper says, what we measured
#
# Verdicts: over three orders of the pictures where there are three (95 % interval), else over the test pictures, paired (two standard errors; that does not count the luck of a training).

# %%
table = claims.Claims(run, data=name)
better = lambda a, b, task: (b[task] - a[task]) if task == "depth" else (a[task] - b[task])  # (N,) how much a is better
paired = lambda gain: claims.verdict(gain.mean().item(), error=(gain.std() / math.sqrt(len(gain))).item())
show = lambda task, **rows: ", ".join(f"{title} {row[task].mean():.3f}" for title, row in rows.items())


def compare(key, claim, task, rows, paper):
    (_, a), (_, b) = rows.items()
    table.add(key, claim, paper=paper, here=show(task, **rows), verdict=paired(better(a, b, task)))


words = {"class": "the class", "objects": "objects", "depth": "depth"}
for task in tasks:
    compare(f"untrained-{task}", f"Frozen DINOv2 is better than an untrained ViT: {words[task]}.", task,
            {"DINOv2": scores["DINOv2"], "untrained": scores["untrained"]}, "not in the paper; the control")
for task, (rival, paper) in {
    "class": ("MAE (03)", "ImageNet, linear head: 86.5 % (ViT-g)"),
    "objects": ("labels", "no such rival in the paper"),
    "depth": ("labels", "no such rival in the paper"),
}.items():
    if task in tasks:
        whom = rival.replace("labels", "the ViT with labels")
        compare(f"{rival[:3]}-{task}", f"Better than {whom}: {words[task]}.", task,
                {"DINOv2": scores["DINOv2"], rival: scores[rival]}, paper)
for task in list(tasks)[1:]:
    paper = {"objects": "ViT-g: 53.0 mIoU (ADE20k)", "depth": "ViT-g: RMSE 0.298 (NYUd)"}[task]
    compare(f"mae-{task}", f"Better than MAE: {words[task]}.", task,
            {"DINOv2": scores["DINOv2"], "MAE": scores["MAE (03)"]}, paper)

# %%
several = lambda effects: claims.verdict(effects) if len(effects) > 1 else claims.UNJUDGED
for task in tasks:
    gains = [better(runs["DINOv2", s], runs["DINO, longer", s], task).mean().item() for s in SEEDS]
    table.add(f"terms-{task}", f"All new terms together help: {words[task]}.",
              paper="k-NN 74.5 to 82.0 %, ten changes in all (Table 1)", verdict=several(gains),
              here=show(task, DINOv2=scores["DINOv2"], DINO=scores["DINO (06)"]))
first = SEEDS[0]
spread = gaps["DINOv2", first] - gaps["no KoLeo", first]
table.add("koleo", "KoLeo moves nearest neighbours apart.", paper="its purpose (section 4)", verdict=paired(spread),
          here=f"distance {gaps['DINOv2', first].mean():.3f}, without {gaps['no KoLeo', first].mean():.3f}")
used = {plan: mean(logs[plan, first].metrics["used"][-20:]) / math.log(K) for plan in ("DINOv2", "centring")}
table.add("sinkhorn", "Sinkhorn uses all prototypes (over 95 % of ln K), centring does not.", paper="its purpose",
          here=f"{100 * used['DINOv2']:.0f} % and {100 * used['centring']:.0f} % of ln {K}",
          verdict=used["DINOv2"] > 0.95 > used["centring"])
gain = better(runs["DINOv2", first], runs["centring", first], "class")
table.add("sinkhorn-class", "Yet the class is told as well with centring (within 3 points).",
          paper="81.7 and 84.7 %, both times",
          here=show("class", Sinkhorn=runs["DINOv2", first], centring=runs["centring", first]),
          verdict=claims.verdict(-gain.mean().item(), error=(gain.std() / math.sqrt(len(gain))).item(), at_least=-0.03))
rows = {"with": alone["DINOv2"], "without": alone["no iBOT"]}
compare("ibot", f"iBOT helps the patch tokens ({words[last]}, head without place).", last, rows, "ADE20k 44.2 to 47.1")

# %%
share, base = (composition(found["trained on the pool"][step])["different"] for step in ("both", "whole pool"))
error = math.hypot(claims.share_error(share, len(chosen)), 2 * claims.share_error(base, len(pool)))
table.add("retrieval", "Deduplication and retrieval give more than twice the share of different, wanted pictures.",
          paper="not measured in the paper", here=f"{100 * share:.0f} % of the curated, {100 * base:.0f} % of the pool",
          verdict=claims.verdict(share - 2 * base, error=error))
ahead = lambda task: [better(diets["curated", s], diets["as many at random", s], task).mean().item() for s in SEEDS]
two = {"curated": engine["curated"], "random": engine["as many at random"]}
table.add("curated-class", "Curated pictures train better than as many at random: the class.",
          paper="ImageNet 85.8, 83.3 %; ImageNet-A 73.9, 59.4 %", verdict=several(ahead("class")),
          here=show("class", **two))
table.add("curated-objects", "For pixels random ones are better: objects.", paper="ADE20k 48.5 (uncurated), 47.7",
          verdict=several([-gain for gain in ahead("objects")]), here=show("objects", **two))
for task in tasks:
    gains = [better(grown["distilled", s], grown["on its own", s], task).mean().item() for s in SEEDS]
    table.add(f"distilled-{task}", f"Distilled is better than on its own, at equal steps: {words[task]}.",
              paper="ViT-L on ImageNet: 86.3, 84.5 %", verdict=several(gains),
              here=show(task, distilled=small["distilled"], alone=small["on its own"]))
for title, row in scores.items():
    for task, values in row.items():
        table.number(f"{task}, {title}", values.mean())
table.show()

# %% [markdown]
# ## Exercises
#
# Write the function, run the check, read what it says. `hint("7.1")` gives three hints, one more each time; `solution("7.1")` shows one way.
#
# **7.1 Keep your distance** · 10 minutes · difficulty 2 of 5
#
# `koleo(x)`: (B, D) → scalar.

# %% tags=["exercise", "check", "nbval-check-output"]
def koleo(x):
    """How crowded a batch is: minus the mean logarithm of each vector's distance to its nearest other. x (B, D), each
    vector brought to length 1 first; 1e-8 is added to each distance. A scalar with a gradient."""
    raise NotImplementedError


check("7.1", koleo);

# %% [markdown]
# **7.2 Fair shares** · 15 minutes · difficulty 2 of 5
#
# `sinkhorn(scores, tau, iterations)`: (B, K) → (B, K), rows that sum to 1.

# %% tags=["exercise", "check", "nbval-check-output"]
def sinkhorn(scores, tau, iterations):
    """Targets that share the prototypes evenly: exp(scores / tau), then `iterations` times: every column (prototype)
    divided by its sum, and every row (picture) by its own. scores (B, K) -> (B, K), rows sum to 1, no gradient; large
    scores must not overflow."""
    raise NotImplementedError


check("7.2", sinkhorn);

# %% [markdown]
# **7.3 Guess the hidden patches** · 15 minutes · difficulty 3 of 5
#
# `patch_loss(targets, student, hidden, tau)`: (B, N, K) twice and (B, N) bool → scalar. Here pictures without a hidden patch are left out.

# %% tags=["exercise", "check", "nbval-check-output"]
def patch_loss(targets, student, hidden, tau):
    """iBOT's loss: the cross entropy -sum_k P_t log P_s of every hidden patch, with P_s = softmax(student / tau), as a
    mean over the hidden patches of each picture, then over the pictures that have any. targets, student (B, N, K),
    hidden (B, N) bool -> scalar."""
    raise NotImplementedError


check("7.3", patch_loss);

# %% [markdown]
# **7.4 From tokens to a map** · 10 minutes · difficulty 2 of 5
#
# `feature_map(tokens, grid, registers)`: (B, 1 + registers + N, D) → (B, D, rows, columns).

# %% tags=["exercise", "check", "nbval-check-output"]
def feature_map(tokens, grid, registers):
    """The patch tokens as a picture of features: tokens (B, 1 + registers + N, D), first [CLS], then registers, then
    the patches row by row; grid (rows, columns) with N = rows * columns -> (B, D, rows, columns)."""
    raise NotImplementedError


check("7.4", feature_map);

# %% [markdown]
# **7.5 A head without training** · 20 minutes · difficulty 3 of 5
#
# `ridge_head(x, y, strength)`: (M, D), (M, C) → weight (D, C), bias (C,).

# %% tags=["exercise", "check", "nbval-check-output"]
def ridge_head(x, y, strength):
    """A linear head in closed form: the weight (D, C) and bias (C,) that make mean over rows of |x w + b - y|^2 +
    strength * |w|^2 smallest; the bias is not held small. x (M, D), y (M, C), strength > 0 -> (weight, bias)."""
    raise NotImplementedError


check("7.5", ridge_head);

# %% [markdown]
# **7.6 The data engine** · 25 minutes · difficulty 4 of 5
#
# `curate(pool, seeds, k, twin)`: (M, D), (S, D) → the numbers of the pictures that are taken.

# %% tags=["exercise", "check", "nbval-check-output"]
def curate(pool, seeds, k, twin):
    """The data engine on unit-free features pool (M, D), seeds (S, D); similarity is the cosine. First go through the
    pool in order and drop every picture whose similarity to an earlier KEPT one is `twin` or more. Then each seed
    takes its k most similar kept pictures (the lower number where two are equal). Returns the sorted numbers, in the
    pool, of all that were taken, int64, each once."""
    raise NotImplementedError


check("7.6", curate);

# %% [markdown]
# **7.7 Experiment: the leak** · 25 minutes · difficulty 3 of 5
#
# `leak(bank, bank_labels, test, test_labels, twin)` → {"as it is", "cleaned", "twins"}.

# %% tags=["exercise", "check", "nbval-check-output"]
def leak(bank, bank_labels, test, test_labels, twin):
    """Experiment: what near-duplicates of test pictures in the training bank do to a nearest-neighbour score. Features
    bank (M, D), test (N, D), labels int64; similarity is the cosine; a test picture takes the label of its most similar
    bank picture. Returns a dict of floats: "as it is", the accuracy with the whole bank; "cleaned", the accuracy after
    all bank pictures with similarity `twin` or more to ANY test picture are dropped; "twins", the share of test
    pictures that had one."""
    raise NotImplementedError


check("7.7", leak);

# %% [markdown]
# **7.8 Registers** · 60 minutes · difficulty 5 of 5 · open
#
# Give the ViT four *register* tokens that are thrown away at the end (Darcet et al. 2024), and hold its patch tokens against those without. `solution("7.8")` asks you four questions.

# %% tags=["check", "nbval-check-output"]
check("7.8");

# %% [markdown] tags=["workshop"]
# ## What you can now claim
#
# - A self-supervised backbone can be frozen: linear layers on a few labelled pictures then answer questions about the picture, its pixels and its depth, better than an untrained network or colours allow.
# - DINOv2 is DINO, masked patches and a spreading term, and no contrastive loss. Each term does what it is made for; at this size the heads hardly notice, in the paper many small gains add up.
# - Similarity to a small curated set, in feature space, finds the wanted pictures of a pool and drops their copies, without a label. What better data and a larger teacher are worth takes longer trainings, and more than one.
#
# **Read on.** Oquab et al. 2024, [DINOv2](https://arxiv.org/abs/2304.07193): sections 3 and 4, then the ablations. Zhou et al. 2022, [iBOT](https://arxiv.org/abs/2111.07832): why masked patches, and why there one head for both. Darcet et al. 2024, [Registers](https://arxiv.org/abs/2309.16588): what goes wrong in the patch tokens of large models. Sablayrolles et al. 2019, [Spreading vectors](https://arxiv.org/abs/1806.03198): where KoLeo comes from.
#
# **Next: 08 CLIP.** Language models that see mostly take CLIP's or SigLIP's encoder; DINOv2's stands beside it where pixels count. What CLIP adds is a space that has words in it.

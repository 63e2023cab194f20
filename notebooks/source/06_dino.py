# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["workshop", "slide"]
# # 06 · DINO: a network that teaches itself
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/vision-to-language/vision-to-language/blob/main/notebooks/06_dino.ipynb)
#
# **The claim.** A network learns without labels and without negatives, by agreeing with its own slow average. When it is a ViT, its attention finds the object, and nobody told it that there are objects. (Caron et al., 2021, [arXiv 2104.14294](https://arxiv.org/abs/2104.14294))
#
# **What you will have at the end.** The loss in four passes; both ways in which it collapses, seen in two entropies; a small ViT trained on it; and its attention held against true masks, beside the same ViT with labels, an untrained one, and guesses that need no network.
#
# **Where we are.** Before: 05, SimCLR, which needs negatives; you need the ViT of lesson 02. Next: 07, DINOv2, which starts from the network that this lesson trains.
#
# | section | minutes of reading | in the 45-minute cut |
# |---|---|---|
# | 1 A picture and its crops | 5 | yes |
# | 2 The loss, in four passes | 15 | yes |
# | 3 Two ways to collapse | 10 | yes |
# | 4 Train, and watch | 10 | the training |
# | 5 What the attention found | 15 | the maps |
# | 6 What it did not learn | 10 | |
# | 7 What each part is for | 8 | |
# | 8 Claims and exercises | 10, then 60 to 120 of practice | exercise 6.1 |

# %% tags=["setup", "workshop"]
import importlib.util, subprocess, sys
if importlib.util.find_spec("lessons") is None:
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "git+https://github.com/vision-to-language/vision-to-language@main"], check=True)

# %% tags=["setup", "workshop"]
import math
from functools import partial
from statistics import mean, stdev

import torch
import torch.nn.functional as F
from torch import nn

import lessons
from lessons import augment, claims, data, figures, probes, training
from lessons.data.scenes import render
from lessons.exercises import check, hint, solution

run = lessons.start(6)
print(claims.reference_times(6))
plt = figures.pyplot()

# %% [markdown] tags=["workshop"]
# ## 1 A picture and its crops
#
# The pictures come first, with the masks that we keep to ourselves: the network will never see one. Before you look at the lower row: where is the object?

# %% tags=["workshop"]
SIZE, COUNT = run.pick(smoke=32, cpu=32, gpu=48), run.pick(smoke=300, cpu=16_000, gpu=40_000)
NUMBERS = run.pick(smoke=(40, 60), cpu=(500, 1_000), gpu=(1_000, 2_000))  # val for every choice, test for the number
own_masks = run.source == "scenes" or data.available("masks") is None  # scenes know their masks, CIFAR-10 has none


def scenes(world, number, first=0):
    return render(world, number, seed=run.seed, size=SIZE, first=first, device=run.device)


def scene_parts(world):
    """Pictures to learn from, and {"val", "test"} with (images, masks)."""
    val, test = scenes(world, NUMBERS[0], 10**6), scenes(world, NUMBERS[1], 2 * 10**6)
    return scenes(world, COUNT), {part: (one.images, one.instances > 0) for part, one in (("val", val), ("test", test))}


if own_masks:
    made, held = scene_parts("mosaic")
    train, name = made.images, "scenes"
    labels = {
        "one label": [made.labels("colour")],
        "three labels": [made.labels(kind) for kind in ("colour", "pattern", "shape")],
    }
else:
    real = data.pictures(source="real", size=SIZE, train=COUNT, device=run.device).train
    train, name, labels = real.images, real.name, {"its ten classes": [real.labels]}
    rows = data.masks(val=130, test=80, size=SIZE, device=run.device)  # COCO photographs, made small
    # pictures with one to three objects
    few = [part[[i for i, kinds in enumerate(part.objects) if len(kinds) <= 3]] for part in rows]
    held = {
        "val": (few[1].images, few[1].masks),
        "test": (torch.cat([few[0].images, few[2].images]), torch.cat([few[0].masks, few[2].masks])),
    }
# %% tags=["workshop"]
(val_images, val_masks), (test_images, test_masks) = held["val"], held["test"]
figures.grid(
    torch.cat([test_images[:10], test_masks[:10, None].expand(-1, 3, -1, -1) * 255]).to(torch.uint8),
    columns=10,
    width=0.95,
)
print(
    f"{len(train):,} pictures to learn from; {len(val_masks)} and {len(test_masks)} with masks;",
    f"objects cover {100 * test_masks.float().mean():.0f} % of a picture",
)

# %% [markdown] tags=["workshop"]
# The built-in pictures are camouflage: a pale object on a mosaic of the same colours. Neither the most colourful nor the smoothest places are the object, so a good map will not come for free. (With CIFAR-10, the masks are those of COCO photographs with one to three objects, made as small.)
#
# **Multi-crop.** From each picture come two large views, the *global* crops, and several small ones, the *local* crops. All of them go to the **student**. The **teacher** gets the global ones only. So a local crop has to tell what the whole picture is like.

# %% tags=["workshop"]
crops = partial(
    augment.dino_crops,
    global_scale=(0.5, 1.0),
    local_scale=(0.15, 0.5),
    jitter=(0.3, 0.3, 0.3, 0.02),
    grayscale=0.0,
    blur=False,
    solarize=0.0,
)
shown = crops(test_images[:3], n_local=4, generator=torch.Generator(run.device).manual_seed(run.seed))  # 6 batches
_, axes = figures.panels(3, 7, width=1.15)
for row in range(3):
    for axis, view, title in zip(
        axes[7 * row :],
        [test_images, *shown],
        ["picture", "global 1", "global 2", *(f"local {i}" for i in range(1, 5))],
    ):
        axis.imshow(figures.to_image(view[row]))
        if row == 0:
            axis.set_title(title, fontsize=9, fontweight="normal", loc="center")

# %% [markdown] tags=["workshop"]
# The colour changes are milder here than in the paper, and there is no grey, blur or solarisation: on so small pictures they would wash out most of what there is.
#
# ## 2 The loss, in four passes
#
# Student and teacher have the same form: a ViT, and a head that scores each view against $K$ **prototypes**. Nobody names the prototypes, and they start at random. The scores become two distributions:
#
# $$P_t=\mathrm{softmax}\Big(\frac{g_t(x)-c}{\tau_t}\Big)\qquad P_s=\mathrm{softmax}\Big(\frac{g_s(x')}{\tau_s}\Big)\qquad \mathcal L=-\sum_{k=1}^{K}P_t^{(k)}\log P_s^{(k)}$$
#
# The centre $c$ is the running mean of the teacher's scores. The teacher's temperature is low, which makes its answer *sharper* than the student's.
#
# **Pass 1, by hand.** Three pictures, three prototypes, scores of the teacher. *Predict first:* prototype A wins everywhere. What is left after the mean is subtracted?

# %% tags=["workshop"]
rows, tau_s, tau_t = ("blue ring", "blue disc", "red star"), 0.1, 0.04
t = torch.tensor([[0.30, 0.10, 0.02], [0.28, 0.14, 0.01], [0.29, 0.03, 0.09]])  # the teacher's scores, (3, K)
s = torch.tensor([[0.18, 0.16, 0.08], [0.10, 0.20, 0.06], [0.12, 0.04, 0.20]])  # the student's, for another view
c = t.mean(0)  # (K,)
P_plain, P_t, P_s = (t / tau_t).softmax(1), ((t - c) / tau_t).softmax(1), (s / tau_s).softmax(1)
for i, row in enumerate(rows):
    cost = -sum(P_t[i, k] * P_s[i, k].log() for k in range(3))
    answers = [p[i].numpy().round(2) for p in (P_plain, P_t, P_s)]
    print(f"{row:10} plain {answers[0]}   centred {answers[1]}   student {answers[2]}   cost {cost:.2f}")
print(f"a student that has no idea pays ln 3 = {math.log(3):.2f}")

# %% [markdown] tags=["workshop"]
# Without the centre all three pictures get the same answer, A. With it, the answer says how a picture *differs from the average picture*. That is information.
#
# **Pass 2, plain loops; pass 3, vectorised.** With $T = 2$ teacher views and $V$ student views each teacher view is compared with every student view but itself: $TV - T$ terms.

# %% tags=["workshop", "nbval-check-output"]
def dino_loss_loops(teacher, student, c, tau_t, tau_s):
    """teacher: T views (B, K), student: V views (B, K), the first T being the same crops."""
    total, terms = 0.0, 0
    for a, view in enumerate(teacher):
        for b, other in enumerate(student):
            if a != b:  # never a view with itself
                for t, s in zip(view, other):
                    P_t, P_s = ((t - c) / tau_t).softmax(0), (s / tau_s).softmax(0)
                    total = total - (P_t * P_s.log()).sum() / len(view)
                terms += 1
    return total / terms


def dino_loss(teacher, student, c, tau_t=0.04, tau_s=0.1):
    P_t = ((teacher.detach() - c) / tau_t).softmax(-1)  # (T, B, K), no gradient to the teacher
    log_P_s = (student / tau_s).log_softmax(-1)  # (V, B, K)
    costs = -torch.einsum("tbk,vbk->tv", P_t, log_P_s) / P_t.shape[1]  # (T, V), a mean over the batch
    T, V = costs.shape
    return costs.masked_fill(torch.eye(T, V, dtype=torch.bool, device=costs.device), 0).sum() / (T * V - T)


from lessons import objectives

torch.manual_seed(0)
teacher, student, c = 0.1 * torch.randn(2, 3, 5), 0.1 * torch.randn(6, 3, 5), 0.1 * torch.randn(5)
value = dino_loss(teacher, student, c)
print("loops and vectorised agree:", torch.allclose(dino_loss_loops(teacher, student, c, 0.04, 0.1), value))
tested = objectives.cross_view_entropy(objectives.dino_targets(teacher, c, 0.04), student, 0.1)
print("equal to the package's:    ", torch.allclose(tested, value))
print("terms with 0, 2 and 4 local crops:", [2 * (2 + local) - 2 for local in (0, 2, 4)])

# %% [markdown] tags=["workshop"]
# The package's form is held to lightly's `DINOLoss` in its tests: values, gradients, and the centre after its update.
#
# **Pass 4, as a module.** The head is an MLP. Its output is brought to length 1, and then compared with $K$ unit vectors, the prototypes. So every score is a cosine, and no prototype can win by being long. There is no batch norm anywhere.

# %% tags=["workshop", "nbval-check-output"]
from lessons.nets import dino
from lessons.nets.vit import ViT


class Head(nn.Module):
    """(B, D) -> (B, K), cosines with K prototypes."""

    def __init__(self, D, K, hidden=256, bottleneck=64):
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(D, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bottleneck)
        )
        self.prototypes = nn.Parameter(torch.randn(K, bottleneck))

    def forward(self, x):
        z = F.normalize(self.mlp(x), dim=-1)  # (B, bottleneck), on the sphere
        return z @ F.normalize(self.prototypes, dim=-1).T  # (B, K)


ours, tested = Head(8, 16), dino.DINOHead(8, 16)
tested.load_state_dict(ours.state_dict())
print("equal to the package's head:", torch.allclose(ours(x := torch.randn(4, 8)), tested(x), atol=1e-6))

# %% [markdown] tags=["workshop"]
# **The teacher** is not trained. After each step of the student, $\theta_t\leftarrow\lambda\theta_t+(1-\lambda)\theta_s$. It is the student's slow average.

# %% [markdown]
# *Predict first:* after 300 steps with $\lambda=0.996$, the paper's value, how much of the teacher is still its random beginning?

# %% tags=["nbval-check-output"]
for momentum in (0.9, 0.99, 0.996, 0.999):
    half, left = math.log(2) / -math.log(momentum), 100 * momentum**300
    print(f"momentum {momentum:5}: half of the teacher is younger than {half:4.0f} steps;", end=" ")
    print(f"after 300 steps {left:4.1f} % is its beginning")

# %% [markdown] tags=["workshop"]
# The paper trains for hundreds of thousands of steps, and raises $\lambda$ from 0.996 to 1 along a cosine. Our runs have hundreds of steps, so we take 0.99.
#
# ## 3 Two ways to collapse
#
# What prevents the two from agreeing on nothing? Two settings: the centre, and the sharp temperature. Switch them off, one by one.
#
# *Predict first:* each has its own way to fail. Which failure belongs to which? And which run gets the lowest loss?
#
# <details><summary>Answer</summary>Without the centre one prototype wins for every picture: the target's entropy falls to 0, and so does the loss. Without sharpening every prototype gets the same share: the entropy rises to ln K, and so does the loss. The lowest loss belongs to a useless network.</details>

# %% tags=["workshop"]
WIDTH, DEPTH, HEADS, PATCH = run.pick(smoke=(32, 2, 2, 8), cpu=(64, 2, 4, 4), gpu=(128, 4, 4, 4))
K, BATCH, RATE = (
    run.pick(smoke=64, cpu=256, gpu=1024),
    run.pick(smoke=16, cpu=48, gpu=256),
    run.pick(smoke=2e-3, cpu=2e-3, gpu=1e-3),
)
MOMENTUM = run.pick(smoke=(0.9, 0.9), cpu=(0.99, 0.99), gpu=(0.996, 1.0))


def make_vit(seed=0, patch=PATCH):
    torch.manual_seed(seed)
    return ViT(image=SIZE, patch=patch, width=WIDTH, depth=DEPTH, heads=HEADS, classes=0).to(run.device)


def make_student(seed=0, patch=PATCH):
    backbone = make_vit(seed, patch)
    return dino.DINONetwork(backbone, dino.DINOHead(WIDTH, K)).to(run.device)  # a list of V views -> (V, B, K)


def draw(pictures, seed, views):
    """Endless batches: a list of views of BATCH random pictures, as networks read them."""
    chance = torch.Generator(run.device).manual_seed(seed)
    while True:
        index = torch.randint(len(pictures), (BATCH,), device=run.device, generator=chance)
        yield [training.to_input(view) for view in views(pictures[index], generator=chance)]


def optimizer(net):
    return torch.optim.AdamW(training.parameter_groups(net, 0.04), lr=RATE)


settings = {"warmup": 0.1, "clip": 3.0, "precision": run.precision("transformer")}

# %% [markdown] tags=["workshop"]
# Now one training. Read the loss function line by line: this is all of DINO. We record two entropies of the targets: of their *mean* (are all prototypes in use?) and the *mean* entropy (how sure is one answer?).

# %% tags=["workshop"]
def distil(
    pictures, steps, seed=0, *, centring=True, tau_t=0.04, momentum=MOMENTUM, n_local=4, patch=PATCH, title="DINO"
):
    """A student, its teacher, and the job of training both."""
    student = make_student(seed, patch)
    teacher, c = training.EMA(student, momentum[0]), torch.zeros(K, device=run.device)
    momentum_at = dino.momentum_schedule(steps, *momentum)

    def loss(student, views):
        nonlocal c
        with torch.no_grad():
            scores = teacher.network(views[:2])  # (2, B, K), global crops only
        P_t = objectives.dino_targets(scores, c, tau_t)  # with the centre as it was
        if centring:
            c = objectives.moved_centre(c, scores)  # for the next step
        used, unsure = objectives.target_entropies(P_t)
        return objectives.cross_view_entropy(P_t, student(views)), {
            "used": used,
            "unsure": unsure,
            "spread": scores[0].std(0).mean(),
        }

    def follow(step):
        teacher.momentum = momentum_at(step)
        teacher.update(student)  # after the optimiser's step

    job = partial(
        lessons.fit,
        student,
        loss,
        draw(pictures, seed, partial(crops, n_local=n_local)),
        steps=steps,
        optimizer=optimizer(student),
        after_step=follow,
        title=title,
        **settings,
    )
    return student, teacher.network, job

# %% tags=["workshop"]
SHORT, HASTY = run.pick(smoke=5, cpu=75, gpu=300), (0.97, 0.97)  # a quicker teacher: the runs are short
plans = {
    "centre and sharpening": {},
    "no centre": {"centring": False},
    "no sharpening": {"tau_t": 0.1},
    "neither": {"centring": False, "tau_t": 0.1},
}
*_, jobs = zip(
    *(distil(train, SHORT, title=plan, **({"momentum": HASTY} | changes)) for plan, changes in plans.items())
)
collapse = dict(zip(plans, training.side_by_side(jobs, run.device)))

# %% [markdown] tags=["workshop", "slide"]
# Look at the difference of the two entropies, on the right. It is the information, in nats, that the prototype carries about the picture. A network that says the same of every picture has none, whether it is sure of it or not.

# %% tags=["workshop", "slide"]
smooth = lambda values, window=10: training.History(loss=list(values)).smooth(window)
_, axes = plt.subplots(1, 3, figsize=(12.5, 3.4))
ln_K = {f"ln {K}": math.log(K)}
told = {plan: [a - b for a, b in zip(h.metrics["used"], h.metrics["unsure"])] for plan, h in collapse.items()}
figures.curves(
    {plan: h.loss for plan, h in collapse.items()}, title="The loss", y="loss (nats)", baselines=ln_K, axis=axes[0]
)
figures.curves(
    {plan: h.metrics["unsure"] for plan, h in collapse.items()},
    title="Mean entropy of a target",
    y="nats",
    baselines=ln_K,
    axis=axes[1],
)
figures.curves(
    {plan: smooth(values) for plan, values in told.items()},
    title="What the target tells about the picture",
    y="nats",
    axis=axes[2],
);

# %% [markdown] tags=["workshop"]
# Both failures are there. (On photographs the run without a centre may stop at a handful of prototypes instead of one.) The loss is a bad witness for either: a loss near 0 in the first steps means one prototype for all, a loss stuck at $\ln K$ means all prototypes alike. In both the student agrees with its teacher perfectly. The centre pushes towards uniform, sharpening towards one; only together they balance.
#
# ## 4 Train, and watch
#
# Now the real runs: DINO from three random beginnings. Beside them the *same* ViT, trained with labels on the same pictures, also from three beginnings. On scenes it gets either one label, the object's colour, or three, colour, pattern and shape.

# %% tags=["workshop"]
STEPS, SEEDS = run.pick(smoke=5, cpu=350, gpu=5_000), run.pick(smoke=(0,), cpu=(0, 1, 2), gpu=(0, 1, 2))


def learn(pictures, answers, seed, title):
    """The same ViT under one linear layer per kind of label, and the job of training it."""
    sizes = [int(one.max()) + 1 for one in answers]
    backbone = make_vit(seed)
    net = nn.Sequential(backbone, nn.Linear(WIDTH, sum(sizes))).to(run.device)
    row_numbers = torch.arange(len(pictures), device=run.device)
    numbered = data.Pictures(pictures, row_numbers, (), name, "")
    view = lambda x, generator: crops(x, n_local=0, generator=generator)[0]  # one global crop

    def loss(net, batch):
        return sum(F.cross_entropy(part, one[batch[1]]) for part, one in zip(net(batch[0]).split(sizes, 1), answers))

    return backbone, partial(
        lessons.fit,
        net,
        loss,
        training.batches(numbered, BATCH, seed=seed, augment=view),
        steps=STEPS,
        optimizer=optimizer(net),
        title=title,
        **settings,
    )

# %% tags=["workshop"]
dinos = {seed: distil(train, STEPS, seed, title=f"DINO {seed}") for seed in SEEDS}
taught = {
    (kind, seed): learn(train, answers, seed, f"{kind} {seed}") for kind, answers in labels.items() for seed in SEEDS
}
kept = {"steps": STEPS, "batch": BATCH, "K": K, "size": SIZE, "data": name, "pictures": len(train)}
kept |= {"heads": HEADS, "patch": PATCH, "momentum": MOMENTUM, "rate": RATE, "seed": run.seed}
pair = nn.ModuleDict({"student": dinos[0][0], "teacher": dinos[0][1]})
jobs = (
    [partial(training.remember, "06-dino", pair, kept, dinos[0][2])]
    + [job for seed, (*_, job) in dinos.items() if seed]
    + [job for _, job in taught.values()]
)
histories = training.side_by_side(jobs, run.device)
print(f"one DINO training took {histories[0].seconds:.0f} s, one with labels {histories[-1].seconds:.0f} s")

# %% [markdown]
# A practitioner never watches the loss alone. Left: the loss, with the line that means "has learned nothing". Middle: both entropies; they should stay apart. Right: how much the teacher's scores differ from picture to picture; zero is collapse.

# %%
watched = histories[0]
_, axes = plt.subplots(1, 3, figsize=(12.5, 3.2))
figures.curves({"loss": watched.smooth(10)}, title="The loss", y="loss (nats)", baselines=ln_K, axis=axes[0])
figures.curves(
    {"of the mean": smooth(watched.metrics["used"]), "mean": smooth(watched.metrics["unsure"])},
    title="The entropies of the targets",
    y="nats",
    baselines=ln_K,
    axis=axes[1],
)
figures.curves(
    {"spread": smooth(watched.metrics["spread"])},
    title="Spread of the teacher's scores",
    y="deviation of a score",
    axis=axes[2],
)
last = {key: mean(values[-20:]) for key, values in watched.metrics.items()}
in_use, named = math.exp(last["used"]), math.exp(last["unsure"])
print(f"at the end about {in_use:.0f} of {K} prototypes are in use, and a target names one of about {named:.0f}")

# %% [markdown] tags=["workshop"]
# The loss need not fall from the first step on. Student and teacher begin as twins and agree on some easy answer; then the centre takes that answer away. Nor can a loss be compared with that of another $K$, temperature or number of crops. How good the features are, only probes can say.
#
# ## 5 What the attention found
#
# The last layer's [CLS] token collects from the patches what it passes on. How much from each is one map per head. To hold a map against a mask we keep the smallest set of patches that holds a given share of the attention. The share is a choice, so it is made on val, for each method apart, and reported on test.

# %% tags=["workshop"]
@torch.no_grad()
def cls_attention(net, pictures):
    """What [CLS] looks at in the last layer: (N, H, patches); its look at itself is left out."""
    return torch.cat([net.attention_maps(training.to_input(part))[:, -1, :, 0, 1:] for part in pictures.split(250)])


def keep(attention, share):
    """The smallest set of patches that holds this share of the attention: (N, patches) -> bool (N, SIZE, SIZE)."""
    values, order = attention.sort(dim=1)  # ascending
    inside = values.cumsum(1) > (1 - share) * values.sum(1, keepdim=True)
    side = math.isqrt(attention.shape[1])
    small = torch.zeros_like(inside).scatter(1, order, inside).view(-1, 1, side, side)
    return F.interpolate(small.float(), size=(SIZE, SIZE))[:, 0] > 0.5

# %%
SHARES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)


def best_share(maps, masks):
    """The highest mean IoU of maps (N, patches), and the share of attention that gives it."""
    return max((probes.mask_iou(keep(maps, share), masks).mean().item(), share) for share in SHARES)


def judge_maps(val, test, held):
    """IoU per test picture (M,) of one map per picture, the share chosen on val."""
    return probes.mask_iou(keep(test, best_share(val, held["val"][1])[1]), held["test"][1])


def judge_net(net, held=held):
    """IoU per test picture (M,): of the average over heads, of the best head on val, of single heads on average."""
    val, test = (cls_attention(net, held[part][0]) for part in ("val", "test"))  # (N, H, patches)
    best = max(range(val.shape[1]), key=lambda h: best_share(val[:, h], held["val"][1]))
    single = [judge_maps(val[:, h], test[:, h], held) for h in range(val.shape[1])]
    return {
        "average over heads": judge_maps(val.mean(1), test.mean(1), held),
        "best head": single[best],
        "mean of heads": torch.stack(single).mean(0),
    }


print(
    "keep 60 % of [.4, .3, .2, .1]:",
    (keep(torch.tensor([[0.4, 0.3, 0.2, 0.1]]), 0.6)[0, :: SIZE // 2, :: SIZE // 2] * 1).flatten().tolist(),
)

# %% [markdown]
# What does a number mean? A random network attends somewhere, too, and a box in the middle is right more often than one thinks. So there are four guesses without any training: an untrained ViT, the best centred box (its size chosen on val), the most colourful patches, and the smoothest.
#
# *Predict first:* put DINO, the ViTs with labels, the untrained one, and the box in order.
#
# <details><summary>Answer</summary>On the mosaic the trained networks lie close together and far above the untrained one. The box is only just behind them, although it never looks: that is why it belongs in every such table. On small photographs the box can be ahead of all.</details>

# %%
def by_patch(x):
    return F.avg_pool2d(x, PATCH).flatten(1)  # (N, 1, H, W) -> (N, patches)


def colourful(x):
    x = x.float() / 255
    return by_patch(x.amax(1, keepdim=True) - x.amin(1, keepdim=True))


def smoothness(x):
    x = x.float() / 255
    rough = sum((by_patch(x[:, i : i + 1] ** 2) - by_patch(x[:, i : i + 1]) ** 2).clamp(min=0) for i in range(3)).sqrt()
    return rough.amax(1, keepdim=True) - rough


ruler = ((torch.arange(SIZE, device=run.device) + 0.5) / SIZE * 2 - 1).abs()
boxes = {half: torch.maximum(ruler[:, None], ruler) < half for half in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)}
half = max(boxes, key=lambda half: probes.mask_iou(boxes[half].expand_as(val_masks), val_masks).mean())
guesses = {"centre box": probes.mask_iou(boxes[half].expand_as(test_masks), test_masks)}
guesses |= {
    title: judge_maps(f(val_images), f(test_images), held)
    for title, f in (("most colourful", colourful), ("smoothest", smoothness))
}
found = {("DINO", seed): judge_net(teacher.backbone) for seed, (_, teacher, _) in dinos.items()}
found |= {(f"ViT, {kind}", seed): judge_net(net) for (kind, seed), (net, _) in taught.items()} | {
    ("untrained", seed): judge_net(make_vit(seed)) for seed in SEEDS
}
readings, methods = ("average over heads", "best head", "mean of heads"), list(dict.fromkeys(kind for kind, _ in found))
iou = {
    (kind, reading): [found[kind, seed][reading].mean().item() for seed in SEEDS]
    for kind in methods
    for reading in readings
}
print(f"{'IoU on test, mean of the runs':30}" + "".join(f"{reading:>20}" for reading in readings))
for kind in methods:
    print(f"{kind:30}" + "".join(f"{mean(iou[kind, reading]):20.3f}" for reading in readings))
for guess, values in guesses.items():
    print(f"{guess:30}{values.mean():20.3f}")

# %% tags=["slide"]
average = {kind: iou[kind, readings[0]] for kind in methods}
order = sorted(methods, key=lambda kind: -mean(average[kind]))
bars = {kind: mean(average[kind]) for kind in order} | {
    guess: values.mean().item() for guess, values in guesses.items()
}
spread = {kind: stdev(values) for kind, values in average.items() if len(values) > 1}
figures.bars(
    bars,
    errors=spread,
    controls=["untrained", *guesses],
    percent=False,
    x="IoU of [CLS] attention with the mask (line: deviation over runs)",
    title=f"DINO {bars['DINO']:.2f}, untrained {bars['untrained']:.2f}, centre box {bars['centre box']:.2f}",
);

# %% [markdown]
# The box has an advantage that no network needs: objects tend to lie near the middle. Count only the pictures whose object does not.


# %%
def centre_of(mask):
    """How far the middle of each mask (N, H, W) is from the picture's: the larger of both axes, 0 to 1."""
    places = (torch.arange(SIZE, device=mask.device) + 0.5) / SIZE * 2 - 1
    weight = mask.float() / mask.float().sum((1, 2), keepdim=True).clamp(min=1)
    return torch.maximum((weight.sum(1) * places).sum(1).abs(), (weight.sum(2) * places).sum(1).abs())


off = centre_of(test_masks) > centre_of(test_masks).median()
aside = {kind: [found[kind, seed][readings[0]][off].mean().item() for seed in SEEDS] for kind in methods}
print(f"IoU on the {int(off.sum())} test pictures whose object lies farther from the middle:")
print(
    ", ".join(f"{kind} {mean(values):.3f}" for kind, values in aside.items())
    + f", centre box {guesses['centre box'][off].mean():.3f}"
)

# %% [markdown] tags=["workshop"]
# Now the maps themselves. The white line is the true outline; the maps are averages over heads, as they come out, without a threshold. The pictures are the first of the test set, not the best.

# %% tags=["workshop", "slide"]
def draw_maps(nets, held, title, number=8):
    """The first test pictures, and below them the map of each network, averaged over heads, with the true outline."""
    images, masks = (part[:number] for part in held["test"])
    side, places = SIZE // PATCH, torch.arange(SIZE) + 0.5
    rows = {"picture": images} | {
        kind: cls_attention(net, images).mean(1).view(-1, side, side) for kind, net in nets.items()
    }
    figure, axes = figures.panels(len(rows), number, width=1.15)
    for row, (kind, values) in enumerate(rows.items()):
        for axis, one, mask in zip(axes[number * row :], values, masks):
            axis.imshow(figures.to_image(one) if row == 0 else one.cpu().numpy(), extent=(0, SIZE, SIZE, 0))
            axis.contour(places, places, mask.cpu().float(), levels=[0.5], colors="white", linewidths=1)
        axes[number * row].set_ylabel(kind.replace(", ", ",\n"), fontsize=9)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")


nets = (
    {"DINO": dinos[0][1].backbone}
    | {f"ViT, {kind}": taught[kind, 0][0] for kind in labels}
    | {"untrained": make_vit(0)}
)
draw_maps(nets, held, "What [CLS] looks at, and the true outline")

# %% [markdown] tags=["workshop"]
# On the mosaic DINO's map follows the object. The maps with labels follow it, too; the table in section 8 says whether the difference counts. So "labels cannot do this" would be wrong. All these questions are about the object: the labels by construction; DINO's own, "which picture is this crop from?", because the ground says so little. What DINO adds is that nobody has to ask.
#
# **What this is not.** It is no segmentation, and no words are involved: it is one row of an attention matrix, thresholded. And it is not DINO's alone. On VOC 2012 the paper's ViT-S/16 scores 45.9 with DINO, 27.3 with ImageNet labels, 22.0 untrained (Jaccard, in percent). Its appendix D has MoCo-v2 at 46.3, SwAV at 46.8, BYOL at 47.8. It is a property of self-supervised ViTs.

# %% [markdown]
# Turn the controls: heads differ, and so does what a threshold keeps.


# %%
def show_mask(picture=3, head=0, share=0.6):
    """A test picture, one head's map (0: the average), and what the threshold keeps."""
    a = cls_attention(dinos[0][1].backbone, test_images[picture : picture + 1])  # (1, H, patches)
    a = a.mean(1) if head == 0 else a[:, head - 1]
    kept_mask, truth = keep(a, share).cpu(), test_masks[picture : picture + 1].cpu()
    _, axes = figures.panels(1, 4, width=1.7)
    titles = (
        "picture",
        "average over heads" if head == 0 else f"head {head}",
        f"holds {100 * share:.0f} %: IoU {probes.mask_iou(kept_mask, truth).item():.2f}",
        "true mask",
    )
    for axis, one, title in zip(
        axes, (figures.to_image(test_images[picture]), a.view(SIZE // PATCH, -1).cpu(), kept_mask[0], truth[0]), titles
    ):
        axis.imshow(one)
        axis.set_title(title, fontsize=9, fontweight="normal", loc="center")
    plt.show()


figures.explore(show_mask, picture=(0, 10), head=list(range(HEADS + 1)), share=[0.6, 0.3, 0.4, 0.5, 0.7, 0.8])

# %% [markdown]
# ## 6 What it did not learn
#
# A good map is not a good feature. Take the [CLS] vector, frozen, and ask what it knows: once by a vote of the 20 nearest neighbours, once by a linear probe. Compare with the *untrained* ViT, not with chance: random features of a coloured patch are coloured, too.

# %%
if own_masks:
    three = [
        scenes("mosaic", number, first)
        for number, first in zip((run.pick(smoke=200, cpu=2_000, gpu=10_000), *NUMBERS), (3 * 10**6, 10**6, 2 * 10**6))
    ]
    seen, topics = (
        [one.images for one in three],
        {kind: [one.labels(kind) for one in three] for kind in ("colour", "pattern", "shape")},
    )
else:
    three = data.pictures(source="real", size=SIZE, train=2_000, val=500, test=1_000, device=run.device)
    seen, topics = [one.images for one in three], {"class": [one.labels for one in three]}


def knows(net):
    """Accuracy of neighbours and of the linear probe on test, per topic."""
    bank, val, test = (training.predict(net, part) for part in seen)
    return {
        topic: (
            probes.knn_accuracy(bank, a, test, c),
            probes.linear_probe(bank, a, val, b, test, c, strengths=(0.001, 0.01, 0.1)),
        )
        for topic, (a, b, c) in topics.items()
    }


known = {
    "DINO": knows(dinos[0][1].backbone),
    "DINO's student": knows(dinos[0][0].backbone),
    "untrained": knows(make_vit(0)),
}
for kind, rows_of in known.items():
    print(
        f"{kind:15}"
        + "   ".join(
            f"{topic}: neighbours {100 * knn:.1f} %, linear {100 * linear:.1f} %"
            for topic, (knn, linear) in rows_of.items()
        )
    )
print("chance         " + "   ".join(f"{topic}: {100 / len(a.unique()):.1f} %" for topic, (a, *_) in topics.items()))

# %% [markdown]
# DINO takes the cheapest cue that survives the crops and the colour changes. On the mosaic the ground has all colours everywhere, so it says little about *which* picture this is, and the object has to answer. What if the ground can answer, too?
#
# *Predict first:* the same objects, but the cells of the mosaic are twice as large, and each ground keeps a mean colour of its own. Where will DINO look now? And the ViT with three labels, whose answers are still on the object? (This experiment is drawn from scenes whatever data you chose.)

# %%
LESS = run.pick(smoke=5, cpu=250, gpu=3_000)
made_twin, held_twin = scene_parts("shortcut")
twin_labels = [made_twin.labels(kind) for kind in ("colour", "pattern", "shape")]
_, twin, twin_job = distil(made_twin.images, LESS, title="DINO, telling ground")
twin_taught, taught_job = learn(made_twin.images, twin_labels, 0, "labels, telling ground")
training.side_by_side([twin_job, taught_job], run.device)
nets = {"DINO": twin.backbone, "ViT, three labels": twin_taught, "untrained": make_vit(0)}
telling = {kind: judge_net(net, held_twin)["average over heads"] for kind, net in nets.items()}
draw_maps(
    nets,
    held_twin,
    f"The ground tells the picture: DINO {telling['DINO'].mean():.2f}, "
    f"three labels {telling['ViT, three labels'].mean():.2f}",
)
bank, asked = made_twin[: NUMBERS[1]], scenes("shortcut", NUMBERS[1], 2 * 10**6)
for kind, net in nets.items():
    right = probes.knn_accuracy(
        training.predict(net, bank.images),
        bank.labels("colour"),
        training.predict(net, asked.images),
        asked.labels("colour"),
    )
    print(f"where the ground tells the picture: {kind:18} IoU {telling[kind].mean():.3f},", end=" ")
    print(f"the object's colour by neighbours {100 * right:.1f} %")

# %% [markdown]
# Compare with the numbers above: same objects, same network, same loss. Where the ground is the cheaper answer, DINO keeps little of its lead over the untrained ViT, in the map as in what it knows of the object. Photographs are full of such grounds: sky, grass, water. So do not expect the map to fit on CIFAR-10 at this size; the paper had a million pictures with one large subject each, stronger colour changes, and days. Lesson 07 takes up from here.
#
# ## 7 What each part is for
#
# Three more runs, each with one thing changed, at equal steps: no local crops; no momentum, so that the teacher is a copy of the student; patches twice as large.
#
# *Predict first:* which of the three changes most?

# %%
changes = {
    "no local crops": {"n_local": 0},
    "teacher = student": {"momentum": (0.0, 0.0)},
    f"patches of {2 * PATCH}": {"patch": 2 * PATCH},
}
_, changed, jobs = zip(*(distil(train, STEPS, 0, title=title, **change) for title, change in changes.items()))
logs = {"as above": histories[0]} | dict(zip(changes, training.side_by_side(jobs[::-1], run.device)[::-1]))
parts_of = {"as above": mean(average["DINO"])} | {
    title: judge_net(teacher.backbone)["average over heads"].mean().item() for title, teacher in zip(changes, changed)
}
tells = {
    title: round(mean(log.metrics["used"][-20:]) - mean(log.metrics["unsure"][-20:]), 2) for title, log in logs.items()
}
_, axes = plt.subplots(1, 2, figsize=(11, 2.8))
figures.bars(
    parts_of | {"untrained": bars["untrained"]},
    controls=["untrained"],
    title="IoU of the average map",
    x="IoU with the mask",
    percent=False,
    axis=axes[0],
)
figures.bars(tells, title="What a target tells about the picture", x="nats", percent=False, axis=axes[1]);

# %% [markdown]
# One run each, so small differences mean nothing; the table below judges them by the spread of the three runs above. (In the paper, k-NN accuracy falls from 72.8 to 0.1 % without momentum, and from 72.8 to 67.9 % without multi-crop; on the masks multi-crop hardly matters there, 45.9 against 45.1. k-NN also falls to 0.1 % with a copy of the *previous iteration*, yet a teacher of the previous *epoch* works, 66.6 %: what matters is that it is slow.)
#
# ## 8 What the paper says, what we measured
#
# Verdicts are computed: over three runs where there are three (95 % interval), else a single run against the spread of those three.

# %%
table = claims.Claims(run, data=name)
three = lambda effects, **more: claims.verdict(effects, **more) if len(effects) > 1 else claims.UNJUDGED
apart = lambda kind: [a - b for a, b in zip(average["DINO"], average[kind])]
single = lambda effect: (
    claims.verdict(effect, error=spread["DINO"] * math.sqrt(1 + 1 / len(SEEDS))) if spread else claims.UNJUDGED
)
text = lambda *kinds: ", ".join(f"{kind} {bars[kind]:.3f}" for kind in kinds)
end = {
    plan: (mean(h.metrics["used"][-10:]), mean(h.metrics["unsure"][-10:]), h.last(10)) for plan, h in collapse.items()
}
entropies = lambda plan: (
    f"entropy of the mean {end[plan][0]:.2f}, mean entropy {end[plan][1]:.2f} of ln {K} = {math.log(K):.2f}"
)
table.add(
    "no-centre",
    "Without centring one prototype takes all.",
    paper="entropy 0 (Fig. 7)",
    here=entropies("no centre"),
    verdict=end["no centre"][0] < 0.1 * math.log(K),
)
table.add(
    "no-sharpening",
    "Without sharpening the targets become uniform.",
    paper="entropy ln K (Fig. 7)",
    here=entropies("no sharpening"),
    verdict=end["no sharpening"][1] > 0.98 * math.log(K),
)
table.add(
    "loss",
    "The lowest loss belongs to a collapsed run.",
    paper="the KL term goes to 0 in both collapses (Fig. 7)",
    here=", ".join(f"{plan} {values[2]:.2f}" for plan, values in end.items()),
    verdict=min(end, key=lambda plan: end[plan][2]) == "no centre",
)

# %%
table.add(
    "untrained",
    "DINO's attention fits objects better than an untrained ViT's.",
    paper="45.9 against 22.0 (Jaccard, VOC 2012)",
    here=text("DINO", "untrained"),
    verdict=three(apart("untrained")),
)
for number, kind in enumerate(labels):
    table.add(
        f"labels {number + 1}",
        f"Better than the same ViT trained with {kind}.",
        paper="45.9 against 27.3 with ImageNet labels",
        here=text("DINO", f"ViT, {kind}"),
        verdict=three(apart(f"ViT, {kind}")),
    )
table.add(
    "box",
    "Better than the best centred box.",
    paper="not in the paper",
    here=text("DINO", "centre box"),
    verdict=three([value - bars["centre box"] for value in average["DINO"]]),
)
table.add(
    "off",
    "The same, on pictures whose object is off the middle.",
    paper="not in the paper",
    here=f"DINO {mean(aside['DINO']):.3f}, centre box {guesses['centre box'][off].mean():.3f}",
    verdict=three([value - guesses["centre box"][off].mean().item() for value in aside["DINO"]]),
)

# %%
topic = next(iter(topics))
(knn, linear), (student_knn, _) = known["DINO"][topic], known["DINO's student"][topic]
error = math.sqrt(2) * claims.share_error(knn, len(seen[2]))
table.add(
    "knn",
    "Neighbours are nearly as good as a linear probe (within 5 points).",
    paper="74.5 and 77.0 % (ViT-S/16, ImageNet)",
    here=f"{topic}: {100 * knn:.1f} and {100 * linear:.1f} %",
    verdict=claims.verdict(knn - linear, error=error, at_least=-0.05),
)
table.add(
    "teacher",
    "The teacher is better than its student.",
    paper="all through training (Fig. 6)",
    here=f"{topic}, neighbours: {100 * knn:.1f} and {100 * student_knn:.1f} %",
    verdict=claims.verdict(knn - student_knn, error=error),
)
for key, title, claim, paper in (
    ("local", "no local crops", "Local crops help.", "k-NN 72.8, without 67.9 %; masks 45.9 and 45.1"),
    ("momentum", "teacher = student", "The teacher has to be slow.", "k-NN 72.8, copy 0.1 %"),
    ("patch", f"patches of {2 * PATCH}", "Smaller patches help.", "S/8 78.3, S/16 74.5 % (k-NN)"),
):
    table.add(
        key,
        claim,
        paper=paper,
        here=f"IoU {parts_of['as above']:.3f}, {title} {parts_of[title]:.3f}",
        verdict=single(parts_of["as above"] - parts_of[title]),
    )
for (kind, reading), values in iou.items():
    table.number(f"IoU, {kind}, {reading}", mean(values))
table.show()

# %% [markdown] tags=["workshop"]
# ## Exercises
#
# Write the function, run the check, read what it says. `hint("6.1")` gives three hints, one more each time; `solution("6.1")` shows one way.
#
# **6.1 Who is compared with whom?** · 5 minutes · difficulty 1 of 5
#
# `view_pairs(n_local)`: int → list of (teacher view, student view), both counted with the two global crops first.

# %% tags=["exercise", "check", "workshop", "nbval-check-output"]
def view_pairs(n_local):
    """The comparisons of DINO with two global crops, numbers 0 and 1, and n_local local ones: a list of pairs
    (teacher view, student view) of ints, sorted."""
    raise NotImplementedError


check("6.1", view_pairs);

# %% [markdown]
# **6.2 How old is the teacher?** · 10 minutes · difficulty 2 of 5
#
# `teacher_weights(momentum, steps)`: → (steps + 1,) float, how much of the teacher is its beginning, and each student since.

# %% tags=["exercise", "check", "nbval-check-output"]
def teacher_weights(momentum, steps):
    """What the teacher is made of after `steps` updates with this momentum: a tensor (steps + 1,), float32, first the
    share of its beginning, then that of the student after step 1, 2, ..., the latest last. They sum to 1."""
    raise NotImplementedError


check("6.2", teacher_weights);

# %% [markdown]
# **6.3 The centre moves** · 10 minutes · difficulty 2 of 5
#
# `next_centre(centre, teacher, momentum)`: centre (K,), teacher scores (T, B, K) → (K,), without gradient.

# %% tags=["exercise", "check", "nbval-check-output"]
def next_centre(centre, teacher, momentum):
    """The centre after this batch: momentum * centre + (1 - momentum) * mean of the teacher's raw scores. centre (K,),
    teacher (T, B, K) -> (K,), no gradient; the old centre is left as it is."""
    raise NotImplementedError


check("6.3", next_centre);

# %% [markdown]
# **6.4 The loss, taken apart** · 20 minutes · difficulty 3 of 5
#
# `loss_parts(t, s, centre, tau_t, tau_s)`: scores (B, K) twice, centre (K,) → (cross entropy, entropy of the target, KL), three scalars.

# %% tags=["exercise", "check", "nbval-check-output"]
def loss_parts(t, s, centre, tau_t, tau_s):
    """The loss for one pair of views and its two parts, each a mean over the batch, in nats: (cross entropy,
    entropy of the target, KL divergence from the target to the student). t, s (B, K) scores, centre (K,).
    Cross entropy = entropy + KL; gradient flows to s only."""
    raise NotImplementedError


check("6.4", loss_parts);

# %% [markdown]
# **6.5 From attention to a mask** · 20 minutes · difficulty 3 of 5
#
# `attention_mask(maps, grid, patch, share)`: maps (L, H, 1 + N, 1 + N) of one picture → bool (rows · patch, columns · patch).

# %% tags=["exercise", "check", "nbval-check-output"]
def attention_mask(maps, grid, patch, share):
    """What the last layer's [CLS] token looks at, averaged over heads, as a mask: maps (L, H, 1 + N, 1 + N), [CLS]
    first, grid (rows, columns), patch in pixels -> bool (rows * patch, columns * patch), True on the smallest set of
    patches that holds at least `share` of the attention to patches."""
    raise NotImplementedError


check("6.5", attention_mask);

# %% [markdown]
# **6.6 The best head, honestly** · 10 minutes · difficulty 2 of 5
#
# `report_heads(val, test)`: IoU (N, H) and (M, H), one column per head → {"best", "mean", "flattered"}, floats.

# %% tags=["exercise", "check", "nbval-check-output"]
def report_heads(val, test):
    """What may be reported of H heads whose IoU is known for each val picture (N, H) and test picture (M, H), as a dict
    of floats, all on test: "best", the head that is best on val; "mean", heads on average; "flattered", the number that
    one would get by choosing the head on test."""
    raise NotImplementedError


check("6.6", report_heads);

# %% [markdown]
# **6.7 Experiment: collapse on purpose** · 30 minutes · difficulty 4 of 5
#
# `distil_once(student, teacher, batches, centring, tau_t, momentum)`: two nn.Linear-like networks, a list of pairs of views → {"loss", "used", "unsure"}, lists of floats, one per step.

# %% tags=["exercise", "check", "nbval-check-output"]
def distil_once(student, teacher, batches, centring, tau_t, momentum):
    """Experiment: train `student` by SGD (lr 1.0) against `teacher`, its average, on a list of pairs of views (B, D).
    Each step: targets from both views with the centre so far (it begins at 0) and tau_t; the mean of both cross
    comparisons, student's tau 0.1; step; teacher = momentum * teacher + (1 - momentum) * student; if `centring`,
    centre = 0.9 * centre + 0.1 * mean of the teacher's raw scores of this step. Returns a dict of three lists of
    floats, one per step: "loss", "used", the entropy of the mean target, "unsure", the mean entropy of the targets."""
    raise NotImplementedError


check("6.7", distil_once);

# %% [markdown]
# **6.8 Your own cue** · 60 minutes · difficulty 5 of 5 · open
#
# Make DINO learn the *shape*. Take a world (`replace(WORLDS["mosaic"], ...)`) and crops in which colour does not help, and measure shape by neighbours against an untrained ViT, with three seeds. `solution("6.8")` asks you four questions.

# %% tags=["check", "nbval-check-output"]
check("6.8");

# %% [markdown] tags=["workshop"]
# ## What you can now claim
#
# - A student that predicts its own slow average learns without labels or negatives. Centring and sharpening pull in opposite directions and keep it from collapse; two entropies show it, the loss does not.
# - The [CLS] attention of such a ViT can find objects that nobody pointed out: where the object is the cheapest answer to "which picture is this?". Where the ground is cheaper, it looks at the ground.
# - A map without a baseline says nothing: hold it against an untrained network, a centred box, and the same network with labels.
#
# **Read on.** Caron et al. 2021, [Emerging Properties in Self-Supervised Vision Transformers](https://arxiv.org/abs/2104.14294): section 5.3 for collapse, appendix D for the other methods' maps. Grill et al. 2020, [BYOL](https://arxiv.org/abs/2006.07733): a slow teacher without prototypes. Caron et al. 2020, [SwAV](https://arxiv.org/abs/2006.09882): prototypes and multi-crop before DINO. Darcet et al. 2024, [Vision Transformers Need Registers](https://arxiv.org/abs/2309.16588): why the maps of larger models become noisy again.
#
# **Next: 07 DINOv2.** The loss stays, and gets company: masked patches, a term that spreads features out, and data chosen with care.

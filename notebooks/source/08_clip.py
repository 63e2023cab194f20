# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["workshop", "slide"]
# # 08 · CLIP: each picture finds its own caption
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/vision-to-language/vision-to-language/blob/main/notebooks/08_clip.ipynb)
#
# **The claim.** Train a picture tower and a text tower so that, within a batch, each picture picks its own caption and each caption its own picture. 400 million pairs from the web then give a space that serves for tasks nobody trained it for. (Radford et al., 2021, [arXiv 2103.00020](https://arxiv.org/abs/2103.00020))
#
# **What you will have at the end.** A tokenizer, a text transformer and the symmetric loss with a learned temperature, equal to the implementations that the field uses; a model that retrieves captions of unseen pictures, beside two controls that fail; and measurements of what matters in the recipe.
#
# **Where we are.** Before: 07, DINOv2; on the short path 04, contrastive learning. Needed are 02 (the encoder) and 04 (InfoNCE), nothing else. Next: 09, which asks what the shared space is like. Lessons 09 to 11 start from the model trained here.
#
# | section | minutes of reading | in the 45-minute cut |
# |---|---|---|
# | 1 Captions as tokens | 10 | the second part |
# | 2 A tower that reads | 10 | the first part |
# | 3 The loss, in four passes | 15 | yes |
# | 4 Train, and look | 15 | yes |
# | 5 What matters in the recipe | 20 | |
# | 6 Why not predict the words? | 8 | |
# | 7 Other picture towers | 8 | |
# | 8 Where it falls short, claims, exercises | 15, then 60 to 120 of practice | exercise 8.1 |

# %% tags=["setup", "workshop"]
import importlib.util, subprocess, sys
if importlib.util.find_spec("lessons") is None:
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "git+https://github.com/vision-to-language/vision-to-language@main"], check=True)

# %% tags=["setup", "workshop"]
import math
import textwrap
from collections import Counter
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

import lessons
from lessons import augment, claims, figures, objectives, probes, recipes, training
from lessons.data import language
from lessons.data.scenes import classes, render
from lessons.data.tokenizer import BOS, EOS, PAD, Tokenizer
from lessons.exercises import check, hint, solution

run = lessons.start(8)
print(claims.reference_times(8))
plt = figures.pyplot()

# %% [markdown] tags=["workshop"]
# ## 1 Captions as tokens
#
# Lesson 04 made pairs in two ways: two views of one picture, or a picture and the sentence beside it. From here on it is the second. Look at the pairs as a person would: is each caption true, and what does it leave out?

# %% tags=["workshop"]
pairs = recipes.caption_pairs(run)
train_set, val_set, test_set = pairs
print(f"{train_set.name}: {len(train_set):,} training pictures, {len(test_set):,} test pictures")
wrapped = [textwrap.fill(texts[0], 22, max_lines=3, placeholder=" …") for texts in train_set.captions[:7]]
axes = figures.grid(train_set.images[:7], wrapped, columns=7, width=1.6)

# %% [markdown]
# A caption names a few things out of many; what it names is all that this lesson can teach. Unlike a label, it comes from an open vocabulary. So first, words have to become numbers.
#
# A table with one row per *word* breaks at the first unknown word; one row per *letter* makes long sequences. **Byte-pair encoding** (BPE) lies between: start with letters, join the most frequent pair of neighbours, repeat. By hand, on three words:

# %%
def merge_once(words):
    """words {pieces: how often}: join the most frequent pair of neighbours everywhere -> (the pair, new words)."""
    pairs = Counter()
    for pieces, times in words.items():
        for pair in zip(pieces, pieces[1:]):
            pairs[pair] += times
    first, second = max(pairs, key=pairs.get)
    joined = {}
    for pieces, times in words.items():
        text = "\0".join(pieces).replace(f"{first}\0{second}", first + second)  # \0 stands between two pieces
        joined[tuple(text.split("\0"))] = times
    return (first, second), joined


words = {tuple("▁ring"): 5, tuple("▁string"): 2, tuple("▁red"): 4}  # ▁ stands for the space before a word
for step in range(5):
    pair, words = merge_once(words)
    print(f"join {pair[0]:>3} + {pair[1]:<4}", "   ".join(" ".join(pieces) for pieces in words))

# %% [markdown] tags=["workshop"]
# With **byte-pair encoding** frequent words become one token, rare ones a few. In practice a library does the merging, trained on the captions of the training set alone. Three tokens come in by hand: [BOS] begins a caption, [EOS] ends it, and [PAD] fills the rows of a batch up to one length. This is a caption in the form in which the model sees it:

# %% tags=["workshop"]
settings = recipes.caption_settings(run, train_set.name)
said = [text for texts in train_set.captions for text in texts]
tokenizer = Tokenizer.train(said, settings.vocabulary, settings.length)
tokens = recipes.caption_tokens(tokenizer, train_set.captions).to(run.device)  # (pictures, captions of each, T)
example = train_set.captions[0][0]
print(f"{len(tokenizer)} tokens; {example!r} is cut into", " ".join(tokenizer.tokens(example)))
print(tokens[0, 0].tolist())
print("and back:", tokenizer.decode(tokens[0, 0]))
length = (tokens != PAD).sum(2).float()
print(f"a caption takes {length.mean():.1f} tokens on average, at most {int(length.max())} of {settings.length}")

# %% [markdown] tags=["workshop"]
# ## 2 A tower that reads
#
# The encoder of lesson 02 reads words as well as patches. CLIP's text tower is such an encoder with a **causal mask**: each token sees itself and what came before. Only one position has then seen the whole caption and no padding: [EOS]. Its state stands for the caption.

# %% tags=["workshop", "nbval-check-output"]
from lessons.nets import clip
from lessons.nets.vit import Encoder, causal_mask


class TextTower(nn.Module):
    """Tokens (B, T) -> features (B, D), the state at the first [EOS]."""

    def __init__(self, vocabulary, length, width, depth, heads):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)                   # one row per token
        self.position = nn.Parameter(0.5 * torch.randn(length, width))
        self.encoder = Encoder(width, depth, heads)                        # lesson 02

    def states(self, tokens):
        x = self.embedding(tokens) + self.position[: tokens.shape[1]]      # (B, T, D)
        return self.encoder(x, causal_mask(tokens.shape[1], tokens.device))

    def forward(self, tokens):
        end = (tokens == EOS).int().argmax(1)                              # (B,) the first [EOS]
        return self.states(tokens)[torch.arange(len(tokens), device=tokens.device), end]


torch.manual_seed(0)
ours, tested = TextTower(20, 8, 24, 2, 3), clip.TextTower(20, 8, 24, 2, 3)
tested.load_state_dict(ours.state_dict())
toy = torch.tensor([[BOS, 5, 9, 7, EOS, PAD, PAD], [BOS, 6, EOS, PAD, PAD, PAD, PAD]])
print("equal to the package's:", torch.equal(ours(toy), tested(toy)))

# %% [markdown]
# *Predict first:* replace token 2 of the toy caption by another one. Which states change? And does the caption's feature change when one more [PAD] follows?
#
# <details><summary>Answer</summary>States 2, 3, 4 and the padding behind them; 0 and 1 came before and cannot know. The feature does not change, because no token looks to the right.</details>

# %% tags=["nbval-check-output"]
other = toy.clone()
other[0, 2] = 11
changed = (ours.states(toy)[0] - ours.states(other)[0]).abs().amax(1) > 1e-4
print("states that change:", changed.nonzero().flatten().tolist(), "of 0 to 6")
print("the feature ignores padding:", torch.allclose(ours(toy), ours(F.pad(toy, (0, 1), value=PAD)), atol=1e-6))
last, earlier = ours.states(toy)[:, -1], ours.states(toy[:, :-1])[:, -1]
print("the last position, a usual mistake, does:", torch.allclose(last, earlier, atol=1e-3))

# %% [markdown] tags=["workshop"]
# The mask is not needed for this task; the authors kept it so that language modelling could be added later. In their code [EOS] is found as the *largest* token id of a row. That works because there it is the largest, and fails with any other numbering.
#
# ## 3 The loss, in four passes
#
# **Pass 1, by hand.** Three pictures, three captions, and all their cosines. Each *row* asks: which caption is mine? Each *column* asks: which picture is mine? The cosines are small numbers, so they are multiplied by a scale $s = 1/\tau$ before the softmax.

# %% tags=["workshop"]
pictures = ["red ring", "red star", "blue ring"]
captions = ["a ring in red", "one red star", "a blue ring"]
cosine = torch.tensor([[0.8, 0.5, 0.6], [0.7, 0.6, 0.0], [0.5, 0.0, 0.7]])  # rows: pictures, columns: captions
s = 10.0
by_row, by_column = (s * cosine).softmax(1), (s * cosine).softmax(0)
for i, name in enumerate(pictures):
    print(f"the {name:9} picks its caption with probability {by_row[i, i]:.2f}")
for j, name in enumerate(captions):
    print(f"“{name}”{' ' * (14 - len(name))}picks its picture with probability {by_column[j, j]:.2f}")
costs = [-part.diagonal().log().mean() for part in (by_row, by_column)]
print(f"pictures ask: {costs[0]:.3f}   captions ask: {costs[1]:.3f}   loss: {sum(costs) / 2:.3f}")

# %% [markdown] tags=["workshop"]
# The two directions differ: the red star finds “a ring in red” more likely than its own caption, while “one red star” finds its picture. So CLIP takes both. With unit vectors $u_i$ of pictures, $v_j$ of captions, and $s = e^{t}$:
#
# $$\mathcal L=\frac12\Big[\frac1B\sum_i-\log\frac{e^{s\,u_i^\top v_i}}{\sum_j e^{s\,u_i^\top v_j}}+\frac1B\sum_i-\log\frac{e^{s\,u_i^\top v_i}}{\sum_j e^{s\,u_j^\top v_i}}\Big]$$
#
# What is learned is $t$, not $\tau$: it starts at $\ln(1/0.07)=2.66$ and is kept below $\ln 100$. Pass 2 in plain loops, pass 3 vectorised:

# %% tags=["workshop", "nbval-check-output"]
def clip_loss_loops(u, v, t):
    s, total = math.exp(t), 0.0
    for i in range(len(u)):
        own = math.exp(s * float(u[i] @ v[i]))
        row = sum(math.exp(s * float(u[i] @ v[j])) for j in range(len(v)))  # picture i asks all captions
        column = sum(math.exp(s * float(u[j] @ v[i])) for j in range(len(u)))  # caption i asks all pictures
        total += -math.log(own / row) - math.log(own / column)
    return total / (2 * len(u))


def clip_loss(u, v, t):
    logits = t.exp() * u @ v.T  # (B, B)
    own = torch.arange(len(u), device=u.device)  # the diagonal is right
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


u, v = (F.normalize(torch.randn(5, 3), dim=1) for _ in range(2))
t = torch.tensor(math.log(1 / 0.07))
loss = clip_loss(u, v, t)
print("loops and matrix product agree: ", math.isclose(clip_loss_loops(u, v, t), loss.item(), rel_tol=1e-5))
print("equal to the package's loss:    ", torch.allclose(loss, objectives.clip_loss(u, v, t.exp())))
print("equal to lesson 04's, both ways:", torch.allclose(loss, objectives.symmetric_info_nce(u, v, 0.07)))

# %% [markdown] tags=["workshop"]
# Nothing new since lesson 04 but the learned temperature. The package's form is held to open_clip's `ClipLoss` in its tests.
#
# **Pass 4, as a module.** Two towers that share no weight, and after each *one linear layer*, no bias. (SimCLR's head with a hidden layer is not used here: the paper saw no difference.) Then length 1.

# %% tags=["workshop", "nbval-check-output"]
class DualEncoder(nn.Module):
    def __init__(self, pictures, texts, out):
        super().__init__()
        self.pictures, self.texts = pictures, texts
        self.picture_projection = nn.Linear(pictures.out_features, out, bias=False)
        self.text_projection = nn.Linear(texts.out_features, out, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))    # t

    def forward(self, images, tokens):
        u = F.normalize(self.picture_projection(self.pictures(images)), dim=1)   # (B, out)
        v = F.normalize(self.text_projection(self.texts(tokens)), dim=1)         # (B, out)
        return u, v, self.log_scale.exp()


towers = clip.ConvTower(4), tested
ours, tested = (kind(*towers, out=8).eval() for kind in (DualEncoder, clip.DualEncoder))
tested.load_state_dict(ours.state_dict())
images = training.to_input(train_set.images[:2].cpu())
same = [torch.allclose(a, b, atol=1e-6) for a, b in zip(ours(images, toy), tested(images, toy))]
print("vectors and scale equal to the package's:", same)

# %% [markdown] tags=["workshop"]
# In the tests the package's `DualEncoder` with a ViT gets the weights of transformers' `CLIPModel`, and gives its logits, its loss and its gradients.
#
# Which picture tower? CLIP had ResNets and ViTs, and found ViTs about three times as efficient, at 400 million pairs. Small data favour convolutions (lesson 02); section 7 compares the two. On a CPU we take the small convolutional body of lesson 01, on a GPU the ViT. First the usual question: can it learn one batch by heart?

# %% tags=["workshop"]
def clip_step(model, batch):
    u, v, scale = model(batch[0], batch[1])
    return objectives.clip_loss(u, v, scale), {"scale": scale}


def fitting(model, batches, steps, title, rate=settings.learning_rate, loss=clip_step, tower=settings.tower, look=None):
    """The job of training a model, as in recipes.fit_clip; `look(step)` may watch."""
    optimizer = torch.optim.AdamW(training.parameter_groups(model, settings.weight_decay), lr=rate)

    def after(step):
        if hasattr(model, "clamp_scale"):
            model.clamp_scale()                                            # t <= ln 100
        if look:
            look(step)

    precision = run.precision("conv" if tower == "conv" else "transformer")
    return partial(lessons.fit, model, loss, batches, steps=steps, optimizer=optimizer, clip=1.0, precision=precision,
                   after_step=after, title=title)


B = min(settings.batch, len(train_set))
untrained, learner = (recipes.dual_encoder(settings, len(tokenizer), run) for _ in range(2))
batch = next(recipes.caption_batches(train_set.images, tokens, 32))
heart = fitting(learner, [batch] * 80, run.pick(smoke=5, cpu=60, gpu=80), "one batch")()
print(f"picture tower: {settings.tower}; {sum(p.numel() for p in untrained.parameters()):,} parameters")
print(f"loss at first {heart.loss[0]:.2f} (ln 32 = {math.log(32):.2f}), at last {heart.loss[-1]:.3f}")

# %% [markdown] tags=["workshop"]
# ## 4 Train, and look
#
# Now the whole training, with the settings printed below: AdamW, warm-up and cosine, no weight decay on $t$, and one caption per picture drawn anew at each visit. `recipes.caption_model` runs exactly the loop above and keeps the result for lessons 09 to 11. (On scenes four combinations of colour and shape are never shown. Lesson 10 will ask for them.)
#
# Beside it the control: the same network, batches and steps, but each picture gets the caption of another one.
#
# *Predict first:* to what value does the control's loss fall?
#
# <details><summary>Answer</summary>To ln B. Nothing in a picture tells its caption any more, so the best answer is to hold all captions equally likely. Lower it can only get by learning single pairs by heart.</details>

# %% tags=["workshop"]
print(settings)
crop = partial(augment.random_resized_crop, size=settings.pixels, scale=(settings.crop, 1))
shuffled = recipes.dual_encoder(settings, len(tokenizer), run)
wrong = recipes.caption_batches(train_set.images, tokens, B, shift=len(train_set) // 2,
                                change=crop if settings.crop < 1 else None)
jobs = [partial(recipes.caption_model, run, pairs=pairs), fitting(shuffled, wrong, settings.steps, "shuffled captions")]
(model, _, history), control = training.side_by_side(jobs, run.device)
print(f"{history.seconds:.0f} s; loss of the last steps {history.last(20):.2f}, of the control {control.last(20):.2f}")

# %%
_, (left, right) = plt.subplots(1, 2, figsize=(10.5, 3.4), width_ratios=(3, 2))
smooth = {"true captions": history.smooth(20), "shuffled": control.smooth(20)}
stays = abs(control.last(20) - math.log(B)) < 0.1
title = "With shuffled captions the loss stays at ln B" if stays else "The loss with true and with shuffled captions"
figures.curves(smooth, title=title, axis=left)
left.axhline(math.log(B), color=figures.GREY, linestyle="--", linewidth=1)
left.annotate(f"ln {B}: nothing learned", (0.5, math.log(B)), xycoords=("axes fraction", "data"), va="bottom",
              color=figures.GREY)
scales = {"true": history.metrics["scale"], "shuffled": control.metrics["scale"]}
figures.curves(scales, title="The learned scale 1/τ", y="scale", baselines={"1/0.07": 1 / 0.07}, axis=right);

# %% [markdown]
# Both begin a little above $\ln B$, since a scale of 14 makes random differences count. The control comes down to it and stays there. At first both scales fall: while pairs cannot be told apart, confidence only costs. Once most of them can, the scale rises; on real captions that takes longer than we train here.

# %% [markdown] tags=["workshop"]
# Now pictures and captions that no training step has seen. **Recall@k**: for which share of the queries is a right answer among the k most similar? With equal texts in the test set, each of them counts as right. Left, eight test pictures against eight captions; right, the whole test set.

# %% tags=["workshop", "slide"]
test_tokens = recipes.caption_tokens(tokenizer, test_set.captions).to(run.device)     # (n, captions of each, T)
first = [texts[0] for texts in test_set.captions]
right_texts = torch.tensor([[a == b for b in first] for a in first], device=run.device)   # (n, n)


def similarities(model):
    """Cosines (n, n) of all test pictures with the first caption of each."""
    u, v = recipes.embed(model, test_set.images, test_tokens[:, 0])
    return u @ v.T


models = {"trained": model, "shuffled captions": shuffled, "untrained": untrained}
tables = {name: similarities(net) for name, net in models.items()}
KS = (1, 5, 10)
recalls = {name: [[probes.recall_at(x, k, y) for k in KS] for x, y in ((S, right_texts), (S.T, right_texts.T))]
           for name, S in tables.items()}
chance = [[1 - (1 - y.float().mean().item()) ** k for k in KS] for y in (right_texts, right_texts.T)]
for number, way in enumerate(("picture finds caption", "caption finds picture")):
    print(f"{way}, of {len(first)}:", *(f"R@{k}" for k in KS))
    for name, values in (*((name, found[number]) for name, found in recalls.items()), ("chance", chance[number])):
        print(f"{name:>22}", *(f"{100 * value:5.1f} %" for value in values))

# %% tags=["workshop", "slide"]
chosen = [first.index(text) for text in list(dict.fromkeys(first))[:8]]    # eight different captions
part = tables["trained"][chosen][:, chosen].cpu()
figure, (heat, axis) = plt.subplots(1, 2, figsize=(12, 4.6), width_ratios=(4, 3))
thumbnails = heat.inset_axes([-0.1, 0, 0.09, 1])
thumbnails.imshow(torch.cat([torch.from_numpy(figures.to_image(test_set.images[i])) for i in chosen]), aspect="auto")
thumbnails.axis("off")
heat.imshow(part, cmap="viridis", aspect="auto")
for i in range(8):
    for j in range(8):
        colour = "white" if part[i, j] < 0.6 * part.max() else "black"
        heat.text(j, i, f"{part[i, j]:.2f}", ha="center", va="center", fontsize=8, color=colour)
labels = [textwrap.fill(first[j], 30, max_lines=2, placeholder=" …") for j in chosen]
heat.set_xticks(range(8), labels, rotation=35, ha="right", fontsize=7)
heat.set(yticks=[], title="Cosines of test pictures and captions")
heat.grid(False)
looks = {"trained": figures.BLUE, "shuffled captions": figures.ORANGE, "untrained": figures.PURPLE}
lines = {name: (KS, [100 * value for value in found[0]]) for name, found in recalls.items()}
lines["chance"] = (KS, [100 * value for value in chance[0]])
styles = {name: {"color": colour, "marker": "o"} for name, colour in looks.items()}
styles["chance"] = {"color": figures.GREY, "linestyle": "--"}
top = [100 * value for value in recalls["trained"][0]]
figures.curves(lines, title=f"Own caption first: {top[0]:.1f} %, among ten: {top[2]:.1f} %", styles=styles,
               x=f"k, of {len(first)} captions", y="recall@k, picture to caption (%)", axis=axis)
axis.set_xticks(KS);

# %% [markdown] tags=["workshop"]
# The diagonal holds the right pairs. Where a number beside it is high, read both captions: what do they share? Untrained and shuffled models guess. Even a perfect model would miss some: a caption leaves much out, so several of the test set can be true of one picture.
#
# Any sentence can be a query. Type one, and look along the row: when does the order of the words begin to be ignored?

# %% tags=["workshop"]
def show_ranked(sentence):
    """The eight test pictures nearest to a sentence."""
    u, v = recipes.embed(model, test_set.images, tokenizer([sentence]).to(run.device))
    cosines, nearest = (u @ v[0]).topk(8)
    figures.grid(test_set.images[nearest], [f"{c:.2f}" for c in cosines.tolist()], width=1.1, title=f"“{sentence}”")
    plt.show()


asked = {"scenes": ["a green ring", "a yellow circle to the left of a purple star"]}
for sentence in asked.get(test_set.name, ["a dog runs through grass", "people in the snow"]):
    show_ranked(sentence)
figures.explore(show_ranked, sentence=[first[0], first[1], first[2]])

# %% [markdown]
# ## 5 What matters in the recipe
#
# Now the experiments for which the truth must be known: which captions say the same, what is left of what. So this section draws its own scenes, whatever data you chose, and trains many small models for a short time. Each differs from the first one, the reference, in one thing. We compare recall@5, the mean of both directions, on scenes none of them has seen; two standard errors are drawn.

# %%
POOL, SHORT = run.pick(smoke=300, cpu=8_000, gpu=30_000), run.pick(smoke=4, cpu=100, gpu=800)
SIZE = run.pick(smoke=32, cpu=128, gpu=256)
small = replace(recipes.caption_settings(run, "scenes"), tower="conv", pixels=32, batch=SIZE,
                tower_width=run.pick(smoke=4, cpu=8, gpu=32))
scenes = recipes.caption_scenes(POOL, device=run.device)
judged = recipes.caption_scenes(500, first=30_000_000, device=run.device)
speech = Tokenizer.train([text for texts in scenes.captions for text in texts], small.vocabulary, small.length)
spoken, spoken_test = (recipes.caption_tokens(speech, part.captions).to(run.device) for part in (scenes, judged))
texts = [one[0] for one in judged.captions]
equal = torch.tensor([[a == b for b in texts] for a in texts], device=run.device)


# %%
def variant(title, loss=clip_step, net=None, tower="conv", look=None, images=scenes.images, texts=spoken, **more):
    """A small model, and the job of training it with one thing changed."""
    net = net or recipes.dual_encoder(small, len(speech), run)
    batches = recipes.caption_batches(images, texts, SIZE, **more)
    return net, fitting(net, batches, SHORT, title, 2e-3, loss, tower, look)


def judge(net, k=5):
    """Recall@k on the judged scenes: (picture finds caption, caption finds picture)."""
    u, v = recipes.embed(net, judged.images, spoken_test[:, 0])
    return [probes.recall_at(S, k, equal) for S in (u @ v.T, v @ u.T)]


def grouped(net, batch, size):
    """The same batch cut into groups that do not see each other: the mean of the groups' losses."""
    u, v, scale = net(batch[0], batch[1])
    losses = [objectives.clip_loss(a, b, scale) for a, b in zip(u.split(size), v.split(size))]
    return torch.stack(losses).mean()


def one_way(net, batch, direction):
    return objectives.clip_loss(*net(batch[0], batch[1]), direction=direction)


def fixed(net, batch, tau):
    u, v, _ = net(batch[0], batch[1])
    return objectives.clip_loss(u, v, 1 / tau)

# %% [markdown]
# **Batch size.** CLIP used 32,768 pairs per step. What does the batch buy, more samples or more *negatives*? Keep the samples and the steps, and cut each batch into groups that do not see each other. (This is what happens when gradients are accumulated over small batches: the negatives do not grow.)
#
# **Direction.** Only pictures ask, or only captions. **Temperature.** Fixed at 1/100, the paper's limit, or at 1/2, instead of learned.
#
# **Augmentation.** The only augmentation in CLIP's training is a random crop. Look what SimCLR's changes would do to captions that name colours and sides:

# %%
flip = partial(augment.random_flip, p=0.5)
jitter = partial(augment.color_jitter, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.2)
dice = torch.Generator(run.device).manual_seed(1)
told = [i for i, text in enumerate(scenes.captions) if "left" in text[0]][:4]
shown = scenes.images[told].float() / 255
rows = [shown, augment.random_flip(shown, p=1.0), jitter(shown, generator=dice)]
names = [textwrap.fill(scenes.captions[i][0], 24) for i in told]
axes = figures.grid(torch.cat(rows), names, columns=4, width=1.4)
for row, name in enumerate(("as it is", "mirrored", "recoloured")):
    axes[4 * row].set_ylabel(name)

# %% [markdown]
# In the lower rows the caption can be wrong, and the model would be trained on it. *Predict first:* rank the changes by what they cost. Which one costs least?
#
# <details><summary>Answer</summary>The bars tell. Few negatives and a wrong temperature spoil every question, recolouring every caption. Mirroring spoils only the sides, and it can cost no more than the model has learned of sides by then.</details>

# %%
plans = {"reference": {}} | {f"groups of {size}": {"loss": partial(grouped, size=size)} for size in (4, 16)}
plans |= {f"only {who} ask": {"loss": partial(one_way, direction=way)}
          for who, way in (("pictures", "pictures"), ("captions", "texts"))}
plans |= {f"temperature fixed at {tau:g}": {"loss": partial(fixed, tau=tau)} for tau in (0.01, 0.5)}
plans |= {"mirrored": {"change": flip}, "recoloured": {"change": jitter}}
nets, jobs = zip(*(variant(name, **plan) for name, plan in plans.items()))
histories = dict(zip(plans, training.side_by_side(jobs, run.device)))
reached = dict(zip(plans, map(judge, nets)))
average = {name: sum(found) / 2 for name, found in reached.items()}
spread = {name: 2 * claims.share_error(value, len(judged)) for name, value in average.items()}
figures.bars(average, errors=spread, title="A small model, and one thing changed at a time", x="recall@5",
             marks={"chance": 1 - (1 - equal.float().mean().item()) ** 5})
for name in ("reference", "only pictures ask", "only captions ask"):
    there, back = (100 * value for value in reached[name])
    print(f"{name:18} picture finds caption {there:.1f} %, caption finds picture {back:.1f} %")

# %% [markdown]
# Few negatives make an easy question, and an easy question teaches less. A direction that is not trained is answered worse. A temperature of 1/2 hardly tells captions apart, and one of 1/100 looks only at the nearest few. Recolouring destroys the words that captions are made of.
#
# And mirroring? It cannot cost more than the model has learned of sides, and colours and shapes come first. So give it a world in which sides matter: one ring, red or green, and captions that say where it is.

# %%
SIDES = {"left": "right", "right": "left"}
turned = lambda text, swaps: " ".join(swaps.get(word, word) for word in text.split())
ring_world = replace(recipes.CAPTION_WORLD, objects=(1, 1), shapes=("ring",), colours=("red", "green"), x=(-0.65, 0.65))
rings = render(ring_world, POOL // 2 + 500, seed=8, device=run.device)
where = [one[0] for one in language.captions(rings, 1, "position", detail=0.0)]
placed = recipes.caption_tokens(speech, [[text] for text in where[:-500]]).to(run.device)
sided = [i for i in range(len(where) - 500, len(where)) if turned(where[i], SIDES) != where[i]]
both = speech([text for side in ({}, SIDES) for text in (turned(where[i], side) for i in sided)]).to(run.device)
flips = {"reference": None, "mirrored": flip}
nets, jobs = zip(*(variant(name, images=rings.images[:-500], texts=placed, change=flips[name]) for name in flips))
training.side_by_side(jobs, run.device)
side = {}
for name, net in zip(flips, nets):
    u, v = recipes.embed(net, rings.images[sided], both)
    right, wrong = v.chunk(2)
    side[name] = ((u * right).sum(1) > (u * wrong).sum(1)).float().mean().item()
    print(f"{name}: own caption nearer than the one with left and right exchanged for {100 * side[name]:.1f} %")

# %% [markdown]
# An augmentation tells the network what must not matter. If captions speak of it, the two contradict each other, and the captions lose.
#
# **Captions that repeat.** Web captions repeat, and scene captions more so: a batch of 128 one-object scenes holds each of 32 meanings about four times. Then no model can tell which of four “a red ring” is *the* one. The loss has a floor, the logarithm of the multiplicity. Two remedies: *mask* equal captions (lesson 04), or *share* the target among them. Try all three on perfect vectors:

# %% tags=["nbval-check-output"]
meaning = torch.arange(32).repeat_interleave(4)
perfect = torch.eye(32)[meaning]  # equal meanings coincide, others are at right angles
equal_meaning = meaning[:, None] == meaning
print(f"ln 4 = {math.log(4):.3f}")
print(f"plain  {objectives.clip_loss(perfect, perfect, 100.0):.3f}")
print(f"shared {objectives.clip_loss(perfect, perfect, 100.0, target=objectives.shared_target(meaning)):.3f}")
print(f"masked {objectives.symmetric_info_nce(perfect, perfect, 0.01, same=equal_meaning):.3f}")

a, b = torch.randn(128, 8), torch.randn(32, 8)[meaning]  # any pictures; equal captions, equal vectors
losses = [objectives.clip_loss(a, b, 5.0, target=target) for target in (None, objectives.shared_target(meaning))]
print("on equal strings sharing changes nothing:", torch.allclose(*losses))

# %% [markdown]
# The last line is worth a pause. If repeated captions are the same *string*, they have the same vector, and the shared target gives the same loss as the plain one: sum the rows of equal captions and the terms agree. Sharing can only help where the same meaning is said in different words; then it says so. Masking removes the floor. Does either matter to what is learned? One-object scenes, each caption drawn from four wordings:

# %%
single_world = replace(recipes.CAPTION_WORLD, objects=(1, 1))
made = render(single_world, POOL + 1_000, seed=5, device=run.device)
meanings = made.labels("combination")
columns = [language.captions(made[:POOL], 1, "object", detail=0.0, first=k) for k in range(4)]
worded = recipes.caption_tokens(speech, [[column[i][0] for column in columns] for i in range(POOL)]).to(run.device)
kinds = sorted(set(meanings.tolist()))
prompts = speech([f"a {classes('combination')[k]}" for k in kinds]).to(run.device)
answers = torch.tensor([kinds.index(k) for k in meanings[POOL:].tolist()], device=run.device)


def repeating(net, batch, way):
    u, v, scale = net(batch[0], batch[1])
    labels = meanings[batch[2]]
    if way == "masked":
        return objectives.symmetric_info_nce(u, v, 1 / scale, same=labels[:, None] == labels)
    return objectives.clip_loss(u, v, scale, target=objectives.shared_target(labels) if way == "shared" else None)


def naming(net):
    """Share of new one-object pictures for which the right one of all prompts “a red ring” is nearest."""
    u, v = recipes.embed(net, made.images[POOL:], prompts)
    return ((u @ v.T).argmax(1) == answers).float().mean().item()


ways = ("plain", "shared", "masked")
nets, jobs = zip(*(variant(way, partial(repeating, way=way), images=made.images[:POOL], texts=worded) for way in ways))
ended = [history.last(20) for history in training.side_by_side(jobs, run.device)]
named = {way: naming(net) for way, net in zip(ways, nets)}
print(f"the floor is about ln({SIZE} / {len(kinds)}) = {math.log(SIZE / len(kinds)):.2f}")
for way, loss in zip(ways, ended):
    print(f"{way:7} loss at the end {loss:.2f}, right name of {len(kinds)}: {100 * named[way]:.1f} %")

# %% [markdown]
# ## 6 Why not predict the words?
#
# CLIP began with another idea: a transformer that *writes* the caption. A simpler model that only predicts *which words* occur learned three times as fast, and the contrastive one was four times faster still (figure 2 of the paper). All three can name an object: the contrastive model by the nearest prompt, the word predictor by the prompt's words, the writer by the probability of writing the prompt.

# %%
torch.manual_seed(run.seed)
eyes = [clip.ConvTower(small.tower_width) for _ in range(3)]
readers = [clip.TextTower(len(speech), small.length, small.text_width, small.text_depth) for _ in range(2)]
learners = {"contrastive": clip.DualEncoder(eyes[0], readers[0], small.out),
            "which words": clip.WordPredictor(eyes[1], len(speech)), "writing": clip.CaptionWriter(eyes[2], readers[1])}
asked_images, asked_answers = training.to_input(made.images[POOL : POOL + 400]), answers[:400]
grown = {name: ([], []) for name in learners}


def watch(step, name):
    """Five times during the training: which share of pictures gets its right name?"""
    if (step + 1) % max(1, SHORT // 5):
        return
    net = learners[name].eval()
    with torch.no_grad():
        if name == "contrastive":
            scores = net.encode_pictures(asked_images) @ net.encode_texts(prompts).T       # (B, K)
        else:
            scores = net.scores(asked_images, prompts)
    net.train()
    grown[name][0].append(step + 1)
    grown[name][1].append(100 * (scores.argmax(1) == asked_answers).float().mean().item())


def training_of(name):
    loss = clip_step if name == "contrastive" else lambda net, batch: net.loss(batch[0], batch[1])
    return variant(name, loss, net=learners[name].to(run.device), look=partial(watch, name=name))[1]


training.side_by_side([training_of(name) for name in learners], run.device)
final = {name: values[-1] / 100 for name, (_, values) in grown.items()}
title = "Naming new objects: " + ", ".join(f"{name} {100 * value:.0f} %" for name, value in final.items())
figures.curves(grown, title=title, y=f"right name of {len(kinds)} (%)", baselines={"chance": 100 / len(kinds)},
               styles={name: {"marker": "o"} for name in grown});

# %% [markdown]
# The paper's explanation: the exact words of a caption are hard to predict, since one picture can be described in many ways. Which caption *as a whole* belongs to it is an easier question. Ours know a few dozen words and are short, the web's are not, so compare the order and not the factors.
#
# ## 7 Other picture towers
#
# Two questions about the tower. Is a **ViT** as quick as a convolution here? And must the tower be trained along at all? **Locked-image tuning** (LiT, Zhai et al., 2022, [arXiv 2111.07991](https://arxiv.org/abs/2111.07991)) freezes a picture tower that already sees, and trains only the reader. Ours learns to see on the spot: from labels, the colour and shape of single objects. The control is a frozen tower that learned nothing.

# %%
def with_tower(tower):
    torch.manual_seed(run.seed)
    text = clip.TextTower(len(speech), small.length, small.text_width, small.text_depth)
    return clip.DualEncoder(tower, text, small.out).to(run.device)


torch.manual_seed(run.seed)
seeing, blind = (run.place(clip.ConvTower(small.tower_width), "conv") for _ in range(2))
namer = nn.Sequential(seeing, nn.Linear(seeing.out_features, 100)).to(run.device)      # lesson 01's task
labelled = made.pictures("combination")[:POOL]
labels = training.batches(labelled, SIZE, seed=run.seed)
pretrain = fitting(namer, labels, SHORT, "labels", 2e-3, training.cross_entropy, "conv")
vit = clip.ViTTower(image=32, patch=4, width=64, depth=run.pick(smoke=1, cpu=4, gpu=6), heads=2)
vit_net, vit_job = variant("ViT", net=with_tower(vit), tower="vit")
_, vit_history = training.side_by_side([pretrain, vit_job], run.device)
tuned = {"locked": with_tower(clip.LockedTower(seeing)), "locked, untrained": with_tower(clip.LockedTower(blind))}
_, jobs = zip(*(variant(name, net=net) for name, net in tuned.items()))
seconds = dict(zip(tuned, (past.seconds for past in training.side_by_side(jobs, run.device))))
seconds |= {"from scratch": histories["reference"].seconds, "ViT, from scratch": vit_history.seconds}
judgements = {"from scratch": reached["reference"], "ViT, from scratch": judge(vit_net)}
judgements |= {name: judge(net) for name, net in tuned.items()}
towers = {name: sum(found) / 2 for name, found in judgements.items()}
shown = {f"{name} ({seconds[name]:.0f} s)": value for name, value in towers.items()}
errors = {name: 2 * claims.share_error(value, len(judged)) for name, value in shown.items()}
figures.bars(shown, errors=errors, title=f"Recall@5 after {SHORT} steps, by picture tower", x="recall@5",
             controls=[name for name in shown if "untrained" in name]);

# %% [markdown]
# A ViT has first to find out that neighbouring patches belong together (lesson 02). A locked tower can give only what it has. It was taught what single objects are, not where they are; LiT's largest tower came from three billion labelled pictures.
#
# ## 8 Where it falls short
#
# Back to the full model (on real data: the one trained on scenes). Two questions. Can it name combinations of colour and shape that it never saw together, such as a red cross? And has it *understood* a caption? Change a true caption of two objects in the smallest way that makes it false, and ask which of the two is nearer to the picture.
#
# *Predict first:* what is the share of right answers if colours change places, “a red ring left of a blue star” against “a blue ring left of a red star”?
#
# <details><summary>Answer</summary>Near chance would mean: the model knows which words belong to the picture, not how they belong together. In the batches that it was trained on, a caption with the same words in another order hardly ever occurs. So nothing asked for the order.</details>

# %%
speaker, its_tokens = (model, tokenizer) if train_set.name == "scenes" else recipes.caption_model(run, "scenes")[:2]
count = run.pick(smoke=100, cpu=1_500, gpu=4_000)
draw = partial(render, size=recipes.caption_settings(run, "scenes").pixels, device=run.device)
two = draw(replace(recipes.CAPTION_WORLD, objects=(2, 2)), count, seed=6)
true = [one[0] for one in language.captions(two, 1, "relation", detail=0.0)]
OPPOSITE = SIDES | {"above": "below", "below": "above"}


def recoloured(caption, rank):
    """The caption with its first colour replaced by one that it does not name."""
    named = [word for word in caption.split() if word in recipes.CAPTION_WORLD.colours]
    others = [colour for colour in recipes.CAPTION_WORLD.colours if colour not in named]
    return caption.replace(named[0], others[rank % len(others)], 1)


false = {
    "a colour replaced": [recoloured(text, i) for i, text in enumerate(true)],
    "the relation turned round": [turned(text, OPPOSITE) for text in true],
    "the colours exchanged": [language.swapped(text) for text in true],
}
held = [" ".join(pair) for pair in recipes.HELD_OUT]      # no false caption names what the model has never read
fair = lambda text, other: other and other != text and not any(name in other for name in held)
usable = [i for i, text in enumerate(true) if all(fair(text, other[i]) for other in false.values())]
noticed = {}
for name, other in false.items():
    asked = its_tokens([texts[i] for texts in (true, other) for i in usable]).to(run.device)
    u, v = recipes.embed(speaker, two.images[usable], asked)
    right, wrong = v.chunk(2)
    noticed[name] = ((u * right).sum(1) > (u * wrong).sum(1)).float().mean().item()

# %% tags=["slide"]
every = draw(replace(recipes.CAPTION_WORLD, objects=(1, 1), held_out=()), 2 * count, seed=7)
names = [(colour, shape) for colour in recipes.CAPTION_WORLD.colours for shape in recipes.CAPTION_WORLD.shapes]
asked = its_tokens([f"a {colour} {shape}" for colour, shape in names]).to(run.device)
u, v = recipes.embed(speaker, every.images, asked)
truth = [tuple(classes("combination")[k].split()) for k in every.labels("combination").tolist()]
hits = torch.tensor([names[guess] == pair for guess, pair in zip((u @ v.T).argmax(1).tolist(), truth)]).float()
unseen = torch.tensor([pair in recipes.HELD_OUT for pair in truth])
combined = {"seen combinations": hits[~unseen].mean().item(), "unseen combinations": hits[unseen].mean().item()}
_, (left, right) = plt.subplots(1, 2, figsize=(11.5, 2.6), width_ratios=(1, 1))
figures.bars(combined, title=f"Naming one object, {len(names)} names", axis=left, marks={"chance": 1 / len(names)})
figures.bars(noticed, title="True caption nearer than false", x="right answers", axis=right, marks={"chance": 0.5});

# %% [markdown]
# A wrong word is noticed. Right words in the wrong places are noticed far less often: much of the caption is read as a bag of words. Nothing in the batch asks for more, since its other captions hardly ever use the same words. Large models show the same weakness (Yuksekgonul et al., 2023, [arXiv 2210.01936](https://arxiv.org/abs/2210.01936)). Two vectors that meet in one product have little room for it; in lesson 11 picture and words meet earlier.
#
# ## What the paper says, what we measured
#
# Verdicts are computed: an effect counts when it exceeds twice its standard error on the test pictures; one seed. Our pairs are tens of thousands of times fewer than CLIP's. Compare directions.

# %%
table = claims.Claims(run, data=test_set.name)
percent = lambda value: f"{100 * value:.1f} %"
listed = lambda values: ", ".join(f"{name} {percent(value)}" for name, value in values.items())
error = lambda a, b, n: math.hypot(claims.share_error(a, n), claims.share_error(b, n))
better = lambda a, b, n=500: claims.verdict(a - b, error=error(a, b, n))   # 500 judged scenes
(r1, _, r10), (t1, _, t10) = recalls["trained"]
table.add("retrieval", "New pictures find their captions, and captions their pictures.",
          paper="zero-shot on Flickr30k and MSCOCO (table 13)",
          here=f"of {len(first)}: R@1 {percent(r1)} and {percent(t1)}, R@10 {percent(r10)} and {percent(t10)}; chance "
               f"{percent(chance[0][0])} and {percent(chance[0][2])}",
          verdict=better((r10 + t10) / 2, chance[0][2], len(first)))
table.add("control", "With shuffled captions the loss stays at ln B.", paper="not in the paper; the control",
          here=f"{control.last(20):.2f}, ln {B} is {math.log(B):.2f}; "
               f"R@10 {percent(recalls['shuffled captions'][0][2])}",
          verdict=abs(control.last(20) - math.log(B)) < 0.1)
pick = lambda *keys: {name: average[name] for name in average if any(key in name for key in ("reference", *keys))}
base = average["reference"]
table.add("negatives", "More negatives teach more, at equal samples and steps.", paper="batch of 32,768 (section 2.5)",
          here=listed(pick("groups")), verdict=better(base, average["groups of 4"]))
backwards = {name: reached[name][1] for name in ("reference", "only pictures ask", "only captions ask")}
table.add("symmetric", "The direction that is not trained suffers.", paper="symmetric from the start (figure 3)",
          here="caption finds picture: " + listed(backwards), verdict=better(base, backwards["only pictures ask"]))
table.add("temperature", "A badly chosen fixed temperature costs; a learned one need not be chosen.",
          paper="learned, to avoid a hyper-parameter (section 2.3)", here=listed(pick("fixed")),
          verdict=better(base, min(average[name] for name in average if "fixed" in name)))
table.add("scale", "The scale rises above where it starts.", paper="from 1/0.07, limited to 100",
          here=f"{1 / 0.07:.1f} to {history.metrics['scale'][-1]:.1f}", verdict=history.metrics["scale"][-1] > 1 / 0.07)
crops = "random crops only (section 2.3)"
table.add("recoloured", "Recoloured pictures spoil captions that name colours.", paper=crops,
          here=listed(pick("recoloured")), verdict=better(base, average["recoloured"]))
table.add("mirrored", "Mirrored pictures spoil captions that name sides.", paper=crops, here="sides: " + listed(side),
          verdict=better(side["reference"], side["mirrored"], len(sided)))

# %%
best = max(value for way, value in named.items() if way != "plain")
table.add("repeats", "Masking or sharing repeated captions names more pictures.", paper="an experiment on scenes",
          here=listed(named), verdict=better(best, named["plain"], len(answers)))
ahead = lambda a, b: better(final[a], final[b], len(asked_answers))
table.add("words", "Contrastive learning is ahead of predicting which words.", paper="4 times as efficient (figure 2)",
          here=listed(final), verdict=ahead("contrastive", "which words"))
table.add("writing", "Predicting which words is ahead of writing them.", paper="3 times as efficient (figure 2)",
          here=listed(final), verdict=ahead("which words", "writing"))
table.add("vit", "A ViT tower is ahead of a convolutional one.", paper="about 3 times as efficient (section 3.2)",
          here=listed({f"{name} ({seconds[name]:.0f} s)": towers[name] for name in list(towers)[:2]}),
          verdict=better(towers["ViT, from scratch"], towers["from scratch"]))
table.add("locked", "A locked tower that sees already is better than one from scratch.",
          paper="LiT 2022, ImageNet zero-shot: 85.2 % (ViT-g)",
          here=listed({name: towers[name] for name in ("from scratch", *tuned)}),
          verdict=better(towers["locked"], towers["from scratch"]))
by_chance = 1 / len(names)
table.add("unseen", "Unseen combinations of seen words are named.", paper="an experiment on scenes",
          here=listed(combined) + f"; chance {percent(by_chance)}",
          verdict=better(combined["unseen combinations"], by_chance, int(unseen.sum())))
table.add("binding", "Exchanged colours are noticed less often than a wrong one.", paper="Yuksekgonul et al. 2023",
          here=listed(noticed),
          verdict=better(noticed["a colour replaced"], noticed["the colours exchanged"], len(usable)))
for name, value in (average | towers | named | final | combined | noticed).items():
    table.number(name, value)
for name, found in recalls.items():
    for way, values in zip(("pictures", "captions"), found):
        for k, value in zip(KS, values):
            table.number(f"{name}, {way}, R@{k}", value)
table.show()

# %% [markdown] tags=["workshop"]
# ## Exercises
#
# Write the function, run the check, read what it says. `hint("8.1")` gives three hints, one more each time; `solution("8.1")` shows one way. `lessons.progress()` remembers.
#
# **8.1 The learned scale** · 5 minutes · difficulty 1 of 5
#
# `scaled_logits(cosine, t, largest=100.0)`: (B, B), scalar tensor t → logits (B, B), the factor exp(t) at most `largest`.

# %% tags=["exercise", "check", "workshop", "nbval-check-output"]
def scaled_logits(cosine, t, largest=100.0):
    """Logits of CLIP: cosines (B, B) times exp(t), t a learned scalar tensor; the factor is at most `largest`."""
    raise NotImplementedError


check("8.1", scaled_logits);

# %% [markdown]
# **8.2 Rows of one length** · 10 minutes · difficulty 2 of 5
#
# `pad_captions(rows, length, bos, eos, pad)`: B lists of ints → (B, length) int64, every row with bos and eos.

# %% tags=["exercise", "check", "nbval-check-output"]
def pad_captions(rows, length, bos, eos, pad):
    """Lists of token ids, one per caption -> (B, length) int64: each row is bos, the ids, eos, then pad up to `length`;
    of a caption that is too long the first ids are kept, so that its row still ends in eos."""
    raise NotImplementedError


check("8.2", pad_captions);

# %% [markdown]
# **8.3 What moves the temperature** · 20 minutes · difficulty 4 of 5
#
# `scale_gradient(u, v, t)`: (B, D) twice, unit vectors, scalar tensor t → dL/dt of CLIP's loss, a scalar.

# %% tags=["exercise", "check", "nbval-check-output"]
def scale_gradient(u, v, t):
    """The derivative of CLIP's loss with respect to t, without autograd; the logits are exp(t) * cosine of u, v (B, D),
    unit vectors, the loss is the mean over rows and over columns. t a scalar tensor -> scalar"""
    raise NotImplementedError


check("8.3", scale_gradient);

# %% [markdown]
# **8.4 Recall with several captions** · 15 minutes · difficulty 3 of 5
#
# `recall_both_ways(similarity, owner, k)`: (P, C), (C,) int64, int → (pictures find a caption, captions find their picture), floats.

# %% tags=["exercise", "check", "nbval-check-output"]
def recall_both_ways(similarity, owner, k):
    """Recall@k with several captions per picture: similarity (P, C), owner (C,) int64, the picture of each caption ->
    (share of pictures with one of their captions among their k most similar, share of captions with their picture
    among theirs), floats."""
    raise NotImplementedError


check("8.4", recall_both_ways);

# %% [markdown]
# **8.5 When captions repeat** · 15 minutes · difficulty 3 of 5
#
# `shared_target_loss(u, v, scale, meanings)`: (B, D) twice, unit vectors, float, (B,) int64 → scalar.

# %% tags=["exercise", "check", "nbval-check-output"]
def shared_target_loss(u, v, scale, meanings):
    """CLIP's loss where captions repeat: u, v (B, D) unit vectors, logits scale * u @ v.T, meanings (B,) int64. The
    target of row i is shared equally among all j with meanings[j] == meanings[i]; the mean of both directions -> scalar
    """
    raise NotImplementedError


check("8.5", shared_target_loss);

# %% [markdown]
# **8.6 A yes or no for every pair** · 15 minutes · difficulty 3 of 5
#
# `siglip_loss(u, v, scale, bias)`: (B, D) twice, unit vectors, two scalars → scalar.

# %% tags=["exercise", "check", "nbval-check-output"]
def siglip_loss(u, v, scale, bias):
    """SigLIP's loss: for each of the B * B pairs log(1 + exp(-z (scale * u_i . v_j + bias))), z = 1 for partners
    (i = j) and -1 for all others; summed, divided by B. u, v (B, D) unit vectors -> scalar"""
    raise NotImplementedError


check("8.6", siglip_loss);

# %% [markdown]
# **8.7 Experiment: what does the temperature learn?** · 25 minutes · difficulty 4 of 5
#
# `learned_scale(u, v, largest=100.0)`: (B, D) twice, unit vectors that stay fixed → the scale with the lowest symmetric loss (float).

# %% tags=["exercise", "check", "nbval-check-output"]
def learned_scale(u, v, largest=100.0):
    """Experiment: which scale would be learned for these pairs? Start at 1 / 0.07 and lower CLIP's symmetric loss of
    u, v (B, D), unit vectors that stay as they are, over t alone, scale = exp(t); clamp the scale at `largest` -> float
    """
    raise NotImplementedError


check("8.7", learned_scale);

# %% [markdown]
# **8.8 Your own captions** · 45 minutes · difficulty 5 of 5 · open
#
# Change what the captions say (only colours, only places, wrong in one of ten, twice as long) and find out what the space learns. `solution("8.8")` asks you four questions.

# %% tags=["check", "nbval-check-output"]
check("8.8");

# %% [markdown] tags=["workshop"]
# ## What you can now claim
#
# - CLIP is lesson 04's loss between two towers: a causal transformer read at [EOS], a picture tower, a linear layer each, and a temperature that is learned. Yours agrees with the field's implementations.
# - All supervision lies in the pairing. Shuffle the captions and nothing is learned; use an augmentation that contradicts them and you train on lies.
# - The space keeps what captions name, also in combinations never seen. Of which word belongs to which object it keeps much less.
#
# **Read on.** Radford et al. 2021, [CLIP](https://arxiv.org/abs/2103.00020): section 2 is short and is this lesson. Zhai et al. 2022, [LiT](https://arxiv.org/abs/2111.07991): locked towers. Zhai et al. 2023, [SigLIP](https://arxiv.org/abs/2303.15343): exercise 8.6 at scale. Cherti et al. 2022, [scaling laws](https://arxiv.org/abs/2212.07143): the same training in the open. Yuksekgonul et al. 2023, [bags of words](https://arxiv.org/abs/2210.01936): section 8 on large models.
#
# **Next: 09 Multimodal embeddings.** Two clouds of vectors now share one space. How far apart do they lie, are all neighbours honest, and can sound join them?

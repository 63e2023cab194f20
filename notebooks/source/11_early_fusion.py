# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["workshop", "slide"]
# # 11 · Early fusion: ask the picture
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/vision-to-language/vision-to-language/blob/main/notebooks/11_early_fusion.ipynb)
#
# **The claim.** Put picture patches and words into one sequence and let one transformer read both: then a word can look at a place in the picture, in every layer. (ViLT: Kim et al., 2021, [arXiv 2102.03334](https://arxiv.org/abs/2102.03334); VisualBERT: Li et al., 2019, [1908.03557](https://arxiv.org/abs/1908.03557))
#
# **What you will have at the end.** One transformer that answers questions about pictures; beside it, at equal size and steps, gated cross-attention, fusion at the end, and a control that sees nothing; and an experiment that parts what an architecture *permits* from what a training signal *teaches*.
#
# **Where we are.** Before: 10, zero-shot transfer. Needed are 02 (the encoder) and 08 (two towers). This is the last step; the notebook ends with the whole path on one page.
#
# | section | minutes of reading | in the 45-minute cut |
# |---|---|---|
# | 1 One sequence | 8 | yes |
# | 2 Who may look at whom, and what is learned | 20 | yes |
# | 3 Neighbours of the idea | 8 | |
# | 4 Train, and ask | 15 | yes |
# | 5 Who has which colour? | 12 | |
# | 6 Look inside | 10 | |
# | 7 Writing, and staying stable | 12 | |
# | 8 Captions from pixels, claims, the path | 15, then 60 to 120 of practice | |

# %% tags=["setup", "workshop"]
import importlib.util, subprocess, sys
if importlib.util.find_spec("lessons") is None:
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "git+https://github.com/vision-to-language/vision-to-language@main"], check=True)

# %% tags=["setup", "workshop"]
import copy
import math
import textwrap
import time
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

import lessons
from lessons import claims, course, figures, objectives, recipes, training
from lessons.data import language
from lessons.data.scenes import render
from lessons.data.tokenizer import PAD, Tokenizer
from lessons.exercises import check, hint, solution

run = lessons.start(11)
plt = figures.pyplot()
print(claims.reference_times(11))

# %% [markdown] tags=["workshop"]
# ## 1 One sequence
#
# Two towers compare a picture with a caption; they cannot write an answer. The questions below are about the fourth picture. It is a built-in scene, whatever data you chose, because there every answer is known. (Your captions come in section 8.) Which of the questions need two looks?

# %% tags=["workshop"]
pixels = run.pick(smoke=32, cpu=32, gpu=64)
draw = partial(render, recipes.FUSION_WORLD, seed=3, size=pixels, device=run.device)
count, held = run.pick(smoke=200, cpu=12_000, gpu=40_000), run.pick(smoke=60, cpu=1_000, gpu=2_000)
train_scenes, test_scenes = draw(count), draw(held, first=20_000_000)
for kind, prompt, answer in recipes.asked_about(test_scenes[3:4], 8)[0]:
    print(f"{kind:>9}: {prompt} → {answer}")
named = [text.replace(", ", "\n") for text in language.listed(test_scenes[:8])]
axes = figures.grid(test_scenes.images[:8], named, columns=8, width=1.45)

# %% [markdown] tags=["workshop"]
# “No” is as frequent as “yes”, and names what the picture holds elsewhere. So words alone do not help.
#
# Now the form in which a model sees this: a row of vectors. First the picture, cut into patches as in lesson 02; then the words. Each token gets two vectors added: where it stands, and of which kind it is.

# %% tags=["workshop"]
from lessons.nets.vit import patchify, unpatchify

texts = [f"{prompt} {answer}" for found in recipes.asked_about(train_scenes[:2_000], 12) for _, prompt, answer in found]
tokenizer = Tokenizer.train(texts, 400, 13)
train, test = (recipes.dialogues(scenes, tokenizer) for scenes in (train_scenes, test_scenes))
V, T = len(tokenizer), tokenizer.length
patch = 8                                                     # as far apart as the places of the encoder's map
patches = patchify(test_scenes.images[3:4], patch)[0, :, None]                           # (N, 1, 3 P P)
asked, answer = next((q, a) for kind, q, a in recipes.asked_about(test_scenes[3:4], 12)[0] if kind == "colour")
middle = len(patches) // 2
row = ["[BOS]", *language.words(asked), "?", answer, "[EOS]"]
figures.token_row(unpatchify(patches, patch)[middle - 4 : middle + 4], row, answer=2,
                  title=f"Eight of {len(patches)} patches, then words; orange is to be predicted")
print(f"{V} tokens; {train.tokens.shape[1]} texts of at most {T} tokens about each of {len(train):,} pictures")

# %% [markdown] tags=["workshop"]
# Where do the two kinds first exchange information? Sort the designs by that; their names mislead.
#
# | they meet | design | what is trained with it |
# |---|---|---|
# | at the end, in a product | CLIP, two towers | both towers |
# | in inserted layers that read the picture | Flamingo, [2204.14198](https://arxiv.org/abs/2204.14198) | these layers; picture encoder and language model are frozen |
# | from layer 0 of the language model, after a picture encoder of its own | LLaVA, [2304.08485](https://arxiv.org/abs/2304.08485): CLIP's patch features through one linear layer | that layer first, then also the language model |
# | from layer 0, as raw patches | ViLT; Fuyu-8B (Adept, 2023), a decoder | everything |
# | from layer 0, as discrete picture tokens that are also written | Chameleon, [2405.09818](https://arxiv.org/abs/2405.09818) | everything |
#
# **Early fusion** in the narrow sense is the last two rows (and VisualBERT, whose picture tokens came from a detector). LLaVA and Flamingo are often called so and are not. GPT-4V fits no row: its report says that it gives no details of the architecture.
#
# ## 2 Who may look at whom, and what is learned
#
# The picture is there as a whole; the text is written word by word. So picture tokens see each other in full, and words see the picture and the words before them: a **prefix mask**. (LLaVA, Fuyu and Chameleon do without, and are causal throughout.)
#
# *Predict first:* two picture tokens, three words. Which entries of the 5 × 5 table are True?
#
# <details><summary>Answer</summary>Rows 0 and 1 (picture): 11000. Rows 2 to 4 (words): 11100, 11110, 11111. A causal mask differs in one place only, the first row: 10000.</details>

# %% tags=["workshop", "nbval-check-output"]
from lessons.nets import fusion
from lessons.nets.vit import Block, causal_mask


def prefix_mask_loops(pictures, words):
    n = pictures + words
    mask = torch.zeros(n, n, dtype=torch.bool)
    for q in range(n):                                        # who looks
        for k in range(n):                                    # at whom
            mask[q, k] = k < pictures or (q >= pictures and k <= q)
    return mask


def prefix_mask(pictures, words, segments=1):
    """bool (N, N), N = pictures + segments * words; each segment sees the picture and itself, no other segment."""
    mask = torch.zeros(pictures + segments * words, pictures + segments * words, dtype=torch.bool)
    mask[:, :pictures] = True
    mask[pictures:, pictures:] = torch.block_diag(*[causal_mask(words)] * segments).bool()
    return mask


print(prefix_mask_loops(2, 3).int())
print("loops and blocks agree:", torch.equal(prefix_mask_loops(2, 3), prefix_mask(2, 3)))
print("equal to the package's:", torch.equal(prefix_mask(4, 3, 2), fusion.prefix_mask(4, 3, 2)))

# %% [markdown] tags=["workshop"]
# The argument `segments` saves much work: twelve questions about one picture need not be twelve sequences. The picture stands once, and the mask keeps the questions apart. The result is the same, as a cell below shows.

# %% tags=["workshop"]
_, axes = figures.panels(1, 3, width=2.3)
shown = {"causal": causal_mask(10), "prefix": prefix_mask(4, 6), "packed: two texts, one picture": prefix_mask(4, 3, 2)}
for axis, (name, mask) in zip(axes, shown.items()):
    axis.imshow(mask, cmap="Blues", vmin=0, vmax=1.4)
    axis.axhline(3.5, color=figures.ORANGE)
    axis.axvline(3.5, color=figures.ORANGE)
    axis.set_title(name, fontsize=9, fontweight="normal", loc="center")
    axis.set(xlabel="looked at")
axes[0].set_ylabel("looks");

# %% [markdown] tags=["workshop"]
# Blue: may look. Left of and above the orange lines is the picture. Under the prefix mask everybody reads it in full, and no word leaks back into it.
#
# **What is learned.** The question is given; only the answer is to be predicted. With $x$ the tokens, $v$ the picture and $A$ the places of the answer and its end:
#
# $$\mathcal L=-\frac1{|A|}\sum_{t\in A}\log p(x_t\mid v,x_{<t})$$
#
# Two mistakes are common: to count the question, and to compare the output at $t$ with token $t$, which stands there to be read. By hand, on a toy with four possible tokens; the label −100 means “left out”:

# %% tags=["workshop", "nbval-check-output"]
toy_tokens = ["what", "colour", "?", "red", "[EOS]"]
toy_labels = torch.tensor([-100, -100, -100, 2, 3])          # red is token 2, [EOS] is token 3
toy_logits = torch.tensor([[0., 0, 0, 0], [0, 0, 0, 0], [1, 0, 3, 0], [0, 0, 1, 4], [9, 9, 9, 9]])
for t in range(1, 5):
    if toy_labels[t] != -100:
        p = toy_logits[t - 1].softmax(0)[toy_labels[t]]
        print(f"{toy_tokens[t]:>6} is predicted after “{toy_tokens[t - 1]}” with probability {p:.3f}")


def answer_loss_loops(logits, labels):
    costs = [-logits[t - 1].log_softmax(0)[labels[t]] for t in range(1, len(labels)) if labels[t] != -100]
    return sum(costs) / len(costs)


def answer_loss(logits, labels):
    """logits (..., T, V) of the token after each, labels (..., T) aligned with the tokens -> scalar"""
    return F.cross_entropy(logits[..., :-1, :].flatten(0, -2), labels[..., 1:].flatten(), ignore_index=-100)


print(f"loops {answer_loss_loops(toy_logits, toy_labels):.4f}, vectorised {answer_loss(toy_logits, toy_labels):.4f}")
print("equal to the package's:", torch.equal(answer_loss(toy_logits, toy_labels),
                                             objectives.answer_loss(toy_logits, toy_labels)))

# %% [markdown] tags=["workshop"]
# **The module.** Everything from lesson 02 stays: the blocks, pre-norm, attention. New is only what makes the sequence.

# %% tags=["workshop", "nbval-check-output"]
class JointTransformer(nn.Module):
    """seen (B, P, F) and S texts about each picture, tokens (B, S, T) -> logits of the next tokens (B, S, T, V)."""

    def __init__(self, vocabulary, features, grid, length, width=96, depth=4, heads=3):
        super().__init__()
        self.project = nn.Linear(features, width)                                  # patches -> tokens
        self.place = fusion.Places(grid, width)                                    # + a vector per row and per column
        self.embedding = nn.Embedding(vocabulary, width)
        self.position = nn.Parameter(0.5 * torch.randn(length, width))
        self.kind = nn.Parameter(0.5 * torch.randn(2, width))                      # picture or word
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))     # lesson 02
        self.norm, self.head = nn.LayerNorm(width, eps=1e-6), nn.Linear(width, vocabulary)

    def forward(self, seen, tokens):
        B, S, T = tokens.shape
        picture = self.place(self.project(seen)) + self.kind[0]                    # (B, P, D)
        words = self.embedding(tokens) + self.position[:T] + self.kind[1]          # (B, S, T, D)
        x = torch.cat([picture, words.flatten(1, 2)], 1)                           # (B, P + S T, D)
        mask = prefix_mask(picture.shape[1], T, S)
        for block in self.blocks:
            x = block(x, mask)
        return self.head(self.norm(x[:, picture.shape[1]:])).view(B, S, T, -1)


torch.manual_seed(0)
ours, tested = (kind(30, 12, (2, 2), 8, 24, 2, 3).eval() for kind in (JointTransformer, fusion.JointTransformer))
tested.load_state_dict(ours.state_dict())
seen, tokens = torch.randn(2, 4, 12), torch.randint(4, 30, (2, 3, 6))
alone = torch.cat([ours(seen, tokens[:, s:s + 1]) for s in range(3)], 1)           # one sequence per text
print("packed texts equal texts alone:", torch.allclose(ours(seen, tokens), alone, atol=1e-5))
print("equal to the package's:        ", torch.allclose(ours(seen, tokens), tested(seen, tokens), atol=1e-5))

# %% [markdown]
# The package's form skips the products that the mask forbids.
#
# ## 3 Neighbours of the idea
#
# **Gated cross-attention** (Flamingo) keeps the language model as it is and inserts layers in which words ask and the picture answers. In front of each inserted branch stands $\tanh$ of a learned gate $\alpha$:
#
# $$y=x+\tanh(\alpha_a)\,\mathrm{XAttn}(x,v)\qquad z=y+\tanh(\alpha_f)\,\mathrm{MLP}(y)$$
#
# With both gates at zero the new model *is* the old one. Queries come from the words, keys and values from the picture.

# %% tags=["nbval-check-output"]
class GatedCrossAttention(fusion.GatedCrossAttention):        # takes the layers from the package, not the computation
    def forward(self, x, seen):
        heads = lambda t: t.unflatten(2, (self.heads, -1)).transpose(1, 2)          # (B, H, M or P, D_h)
        q = heads(self.q(self.norm1(x)))                                            # words ask
        k, v = map(heads, self.kv(self.norm_seen(seen)).chunk(2, -1))               # the picture answers
        attention = (q @ k.transpose(2, 3) / math.sqrt(q.shape[3])).softmax(3)      # (B, H, M, P)
        x = x + self.gates[0].tanh() * self.out((attention @ v).transpose(1, 2).flatten(2))
        return x + self.gates[1].tanh() * self.mlp(self.norm2(x))


layer, x, seen = GatedCrossAttention(24, 3), torch.randn(2, 5, 24), torch.randn(2, 4, 24)
print("gates at zero change nothing:", torch.equal(layer(x, seen), x))
nn.init.constant_(layer.gates, 0.5)
tested = fusion.GatedCrossAttention.forward(layer, x, seen)
print("equal to the package's:      ", torch.allclose(layer(x, seen), tested, atol=1e-6))

# %% [markdown] tags=["workshop"]
# Flamingo's gates protect a trained language model. Ours is trained along, so its gates begin at 0.5.
#
# **Late fusion** reads the picture into one vector and the question into another, and a small network sees both. The vector is made from all places, so it can know where things are. `fusion.LateFusion` is that; `fusion.CrossAttentionModel` puts the layer above before each of two blocks.
#
# ## 4 Train, and ask
#
# All rivals get the same questions, steps and about the same parameters (only the control gets a third of the steps: its loss has stopped falling by then). Three of them read the same picture tokens: the map of a small convolutional encoder that has learned, in advance, to name single objects. It stands in for LLaVA's CLIP tower, and stays frozen. “One sequence, raw patches” gets linear patches and has to learn to see on its own.
#
# First, can the joint model learn one batch by heart?

# %% tags=["workshop"]
tower = recipes.naming_tower(run)
seen, seen_test = recipes.see(tower, train.images), recipes.see(tower, test.images)   # (N, 16, F)
raw, raw_test = (patchify(training.to_input(part.images), patch) for part in (train, test))
P, features = seen.shape[1:]
grid = (math.isqrt(P), math.isqrt(P))
width, depth, heads, steps, B = run.pick(smoke=(24, 2, 1, 4, 8), cpu=(96, 4, 3, 480, 24), gpu=(256, 6, 8, 6_000, 64))


def batches(told, seen, size, seed=0):
    """Endless batches (picture tokens or None, tokens, labels)."""
    for index in recipes.numbers(len(told), size, seed):
        yield None if seen is None else seen[index], told.tokens[index], told.labels[index]


def answer_step(model, batch):
    return objectives.answer_loss(model(batch[0], batch[1]), batch[2])


def fitting(model, data, steps=steps, rate=2e-3, title="training", loss=answer_step, **more):
    """The job of training a model: AdamW, warm-up, cosine, gradient norm at most 1."""
    optimizer = torch.optim.AdamW(training.parameter_groups(model, 0.02), lr=rate, betas=(0.9, 0.98))
    return partial(lessons.fit, model, loss, data, steps=steps, optimizer=optimizer, warmup=0.05, title=title,
                   precision=run.precision("transformer"), **{"clip": 1.0} | more)


def joint(features=features, **more):
    torch.manual_seed(run.seed)
    return fusion.JointTransformer(V, features, grid, T, width, depth, heads, **more).to(run.device)


batch = next(batches(train, seen, 8))
heart = fitting(joint(), iter([batch] * 80), run.pick(smoke=3, cpu=60, gpu=80), title="one batch")()
print(f"loss at first {heart.loss[0]:.2f} (ln {V} = {math.log(V):.2f}), at last {heart.loss[-1]:.3f}")

# %% [markdown] tags=["workshop"]
# *Predict first:* colour, shape, count, existence, binding, where, relation, and a list from left to right. Which of them will fusion at the end get right, with one vector for all places?
#
# <details><summary>Answer</summary>What can be said without the question: how many, and the list in a fixed order. “What colour is the ring?” has to find the ring first, then read its colour. One vector would need an answer ready for every question.</details>

# %% tags=["workshop"]
def neighbour(kind, **more):
    torch.manual_seed(run.seed)
    return kind(V, features, grid, T, width, depth // 2, heads, **more).to(run.device)


rivals = {
    "one sequence, trained encoder": (joint(), seen, seen_test),
    "one sequence, raw patches": (joint(raw.shape[2]), raw, raw_test),
    "cross-attention": (neighbour(fusion.CrossAttentionModel, gate=0.5), seen, seen_test),
    "fusion at the end": (neighbour(fusion.LateFusion), seen, seen_test),
    "text only": (joint(), None, None),
}
histories = training.side_by_side(
    [fitting(model, batches(train, given, B), steps // (3 if given is None else 1), title=name)
     for name, (model, given, _) in rivals.items()], run.device)
histories = dict(zip(rivals, histories))
right = {}
for name, (model, _, given) in rivals.items():
    with run.autocast("transformer"):
        right[name] = recipes.answered(model, given, test)                             # (N, S) bool
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{name:30} {parameters:>9,} parameters, {histories[name].seconds:4.0f} s, loss {histories[name].last():.3f}")

# %% [markdown] tags=["workshop"]
# An answer counts when each of its tokens is the most likely one, as in greedy writing. One more column, *pairs*, is about two pictures that differ only in who has which colour; both must be told apart (section 5 says how).

# %% tags=["workshop", "slide"]
pair_images, pair_texts = language.exchanged(recipes.FUSION_WORLD, run.pick(smoke=60, cpu=500, gpu=1_000), seed=22,
                                             size=pixels, device=run.device)
seen_pairs = recipes.see(tower, pair_images.flatten(0, 1))                             # (2N, P, F)
raw_pairs = patchify(training.to_input(pair_images.flatten(0, 1)), patch)
claimed, claimed_labels = (part.to(run.device) for part in recipes.colour_claims(tokenizer, pair_texts))


@torch.no_grad()
def pair_scores(model, given):
    """How likely each picture makes each statement about who has which colour: (N, 2, 2), picture by statement."""
    tokens, labels = (part.repeat_interleave(2, 0) for part in (claimed, claimed_labels))   # (2N, 4, T)
    likely = objectives.text_log_probability(model.eval()(given, tokens), labels)          # (2N, 4)
    return likely.view(-1, 2, 2, 2).sum(3)


table = {}
for name, (model, _, given) in rivals.items():
    given = None if given is None else raw_pairs if "raw" in name else seen_pairs
    pairs_right = objectives.winoground(pair_scores(model, given))["group"]
    table[name] = recipes.by_kind(right[name], test) | {"pairs": pairs_right.float().mean().item()}
figures.table(table, title="Answers to new pictures", controls=["text only"]);

# %% [markdown] tags=["workshop"]
# Read the table by columns; a pure guess is at 20 in *colour* and *shape*, 33 in *where*, 50 in the yes-or-no kinds. *Count* and *list* say what is there whatever is asked, and fusion at the end does that, too. But *colour* and *shape* have to be looked up. Fusion at the end knows what is there, and has to guess which is meant, or learn an answer for every question. Where words reach the picture's places, they find it.
#
# The raw patches show the price of early fusion in the narrow sense: it has to learn to see from the same answers. ViLT, too, began from a trained ViT.
#
# *Existence*, *binding* and *relation* want more: find something, and then compare it. A yes or no teaches little about how, so these come last and suddenly, and when they come differs from seed to seed. Cross-attention tends to get there first: its words look at nothing but the picture, while in one sequence the same softmax also serves the other words.

# %% [markdown]
# **What it costs.** Two towers encode $N$ pictures and $M$ texts once, and compare them by a product. A model that reads both at once must read all $N\cdot M$ pairs. ViLT's repository logs 35 hours for retrieval on COCO (5,000 × 5,000).

# %%
from lessons.nets.clip import DualEncoder, TextTower

torch.manual_seed(run.seed)
towers = DualEncoder(fusion.PooledMap(P, features), TextTower(V, T, width, depth, heads), 64).to(run.device)
towers, both = towers.eval(), rivals["one sequence, trained encoder"][0].eval()
captions = tokenizer(language.listed(test_scenes, shuffled=True)).to(run.device)
numbers = [n for n in run.pick(smoke=(4, 8), cpu=(8, 16, 32, 64, 128), gpu=(32, 64, 128, 256, 512)) if n <= held]
cost = {"two towers": [], "one sequence": []}
with torch.no_grad():
    for n in numbers:
        for name in cost:
            start = time.perf_counter()
            if name == "two towers":
                towers.encode_pictures(seen_test[:n]) @ towers.encode_texts(captions[:n]).T
            else:
                for one in seen_test[:n]:                                # the picture once, n texts packed behind it
                    both(one[None], captions[None, :n])
            if run.device.type == "cuda":
                torch.cuda.synchronize()
            cost[name].append(time.perf_counter() - start)
growth = {name: seconds[-1] / seconds[0] for name, seconds in cost.items()}
dearer = growth["one sequence"] > 2 * growth["two towers"]
title = "Reading pairs together costs the product" if dearer else "Seconds to compare all pictures with all texts"
axes = figures.curves({name: (numbers, values) for name, values in cost.items()}, x="pictures, and as many texts",
                      y="seconds", title=title, size=(6, 2.8))
axes.set(xscale="log", yscale="log")
print(f"{numbers[-1]} × {numbers[-1]}: {cost['one sequence'][-1]:.2f} s against {cost['two towers'][-1]:.3f} s")

# %% [markdown]
# So search uses towers, and a joint model at most sorts the best hundred anew.
#
# ## 5 Who has which colour?
#
# Lesson 08 ended with a weakness: exchanged colours were noticed less often than a wrong one. It is tempting to say: two towers cannot bind, one sequence can. **That is not so.** In Winoground (Thrush et al., 2022, [2204.03162](https://arxiv.org/abs/2204.03162)), a test made for it, CLIP has a group score of 8.0 and ViLT, one sequence, 9.25; chance is 16.7, people reach 85.5.
#
# Here is such a pair. With $s(c,i)$ the score of caption $c$ for picture $i$: **text** is right when each picture prefers its own caption, **image** when each caption prefers its own picture, **group** when both. A tie is no preference.

# %%
shown = pair_images[:: len(pair_images) // 4][:4].flatten(0, 1)
figures.grid(shown, [text.replace(", ", "\n") for pair in pair_texts[:: len(pair_texts) // 4][:4] for text in pair],
             columns=8, width=1.45)
scores = torch.tensor([[[0.9, 0.2], [0.3, 0.8]],              # all right: text, image, group
                       [[0.9, 0.8], [0.3, 0.5]],              # each picture is right; caption 1 prefers picture 0
                       [[0.5, 0.5], [0.5, 0.5]]])             # ties: a bag of words
print({name: found.tolist() for name, found in objectives.winoground(scores).items()})

# %% [markdown]
# Now change one thing at a time. Captions list the objects in random order, so that only the binding tells a pair apart.
#
# - two towers, the text tower a **bag of words**, without and with hard negatives (captions with two colours exchanged in the batch: NegCLIP's idea, Yuksekgonul et al., 2023, [2210.01936](https://arxiv.org/abs/2210.01936));
# - two towers with a **transformer**: a small batch, a large batch, a small batch with hard negatives;
# - **one sequence** that answers “does this caption fit? yes or no”, much as ViLT was trained; with random captions as false ones, and with exchanged ones.
#
# *Predict first:* which of these seven bind?

# %%
lists = language.listed(train_scenes, shuffled=True)
exchanged = [language.swapped(text) for text in lists]
own, swapped = (tokenizer(found).to(run.device) for found in (lists, exchanged))
matched = {}                                                   # "red ring, blue star? yes": tokens and labels
for name, found, answer in (("fits", lists, "yes"), ("random", lists, "no"), ("swapped", exchanged, "no")):
    rows = recipes.dialogue(tokenizer, [f"{text}?" for text in found], [answer] * len(found))
    matched[name] = [part.to(run.device) for part in rows]


def towers_step(hard, model, index):
    """CLIP's loss; with `hard` every picture also meets its caption with two colours exchanged."""
    u, texts = model.encode_pictures(seen[index]), own[index]
    v = model.encode_texts(torch.cat([texts, swapped[index]]) if hard else texts)
    logits, right = model.log_scale.exp() * u @ v.T, torch.arange(len(u), device=u.device)
    return (F.cross_entropy(logits, right) + F.cross_entropy(logits[:, :len(u)].T, right)) / 2


def matching_step(hard, model, index):
    """Each picture with its own caption and with a false one: that of the next picture, or its own, exchanged."""
    (fits, yes), (false, no) = matched["fits"], matched["swapped" if hard else "random"]
    other = index if hard else index.roll(1)
    tokens, labels = torch.stack([fits[index], false[other]], 1), torch.stack([yes[index], no[other]], 1)
    return objectives.answer_loss(model(seen[index], tokens), labels)

# %%
large, short, long = run.pick(smoke=(32, 4, 4), cpu=(128, 300, 600), gpu=(512, 3_000, 6_000))
plans = {                                                      # text tower, or None: one sequence; hard; batch; steps
    "two towers, bag of words": ("bag", False, 32, short),
    "the same, hard negatives": ("bag", True, 32, short),
    "two towers, batch 16": ("order", False, 16, short),
    f"the same, batch {large}": ("order", False, large, short),
    "batch 16, hard negatives": ("order", True, 16, short),
    "one sequence, random negatives": (None, False, 32, long),
    "one sequence, hard negatives": (None, True, 32, long),
}
jobs, models = [], {}
for name, (kind, hard, size, until) in plans.items():
    torch.manual_seed(run.seed)
    text = kind and (fusion.BagTower(V, width) if kind == "bag" else TextTower(V, T, width, 2, heads))
    models[name] = DualEncoder(fusion.PooledMap(P, features), text, 64).to(run.device) if kind else joint()
    step = partial(towers_step if kind else matching_step, hard)
    jobs.append(fitting(models[name], recipes.numbers(len(lists), size), until, 1e-3 if kind else 2e-3, name, step))
training.side_by_side(jobs, run.device)
bound = {name: objectives.winoground(recipes.match_scores(model, seen_pairs, tokenizer, pair_texts))
         for name, model in models.items()}
shares = {name: {score: found.float().mean().item() for score, found in row.items()} for name, row in bound.items()}
figures.table({"chance": {"text": 0.25, "image": 0.25, "group": 1 / 6}} | shares, title="Who has which colour?",
              controls=["chance"]);

# %% [markdown]
# **The architecture permits, the training signal decides.** The bag of words *cannot*: both captions are the same bag, every score is a tie, and no negative changes that. Two towers with a transformer *can*; how far they get depends on how often a batch asks for the binding, so a large batch or exchanged captions help. And one sequence, which could do most, learns next to nothing about binding from random captions: the words alone tell those from the true one. With exchanged captions it has to look closer, and begins to. (It sees two captions per picture and step, where two towers see the whole batch.)
#
# Why, then, did the joint model of section 4 tell such pairs apart? Writing is full of hard negatives: after “what colour is the ring?” every colour of the picture competes with the right one.
#
# ## 6 Look inside
#
# Does the word *ring* look at the ring? Take the questions about colour, and in each layer the attention of the noun and of the question mark. The true mask of each object is known. Of the attention that falls on objects, which share lands on the one that is meant?

# %%
asked = recipes.pointed(test_scenes, test, tokenizer, grid)                               # questions about colour
looks = {}                                                                                # (questions, layers)
for name, model in (("trained", both), ("untrained", joint())):
    for word, part in zip(("the noun", "the question mark"), recipes.looked_at(model, seen_test, test, asked)):
        looks[f"{word}, {name}"] = part
chance = (asked.named.sum(1) / asked.things.sum(1)).mean().item()
lines = {name: (range(depth), part.mean(0).tolist()) for name, part in looks.items()}
axes = figures.curves(lines, x="layer", y="share on the right object", title="Where the words look, layer by layer",
                      size=(6, 3), baselines={"attention spread evenly": chance})
axes.set_xticks(range(depth));

# %% [markdown]
# Each place of the encoder's map has seen its surroundings. So attention shows where information was fetched, not all that was known there.
#
# One question, all layers. The first picture is what was asked about; brighter means more attention of the question mark.

# %%
def ask(number=3, question="what colour is the ring?"):
    """The joint model's answer, and where the question mark looks in each layer."""
    tokens = tokenizer([question])
    prompt = tokens[:, : int((tokens != PAD).sum()) - 1].to(run.device)                    # without [EOS]
    given = seen_test[number : number + 1]
    answer = tokenizer.decode(both.write(given, prompt, T - prompt.shape[1])[0])
    with torch.no_grad():
        look = both.with_maps(given, prompt[:, None])[1][0].mean(1)[:, 0, -1, :P]         # (L, P)
    _, axes = figures.panels(1, 1 + len(look), width=1.7, height=2.0)
    axes[0].imshow(figures.to_image(test_scenes.images[number]))
    for layer, (axis, weights) in enumerate(zip(axes[1:], look)):
        mask = F.interpolate(weights.view(1, 1, *grid).cpu(), (pixels, pixels), mode="bilinear")[0, 0]
        axis.imshow(figures.to_image((test_scenes.images[number].cpu() / 255 * mask / mask.max()).clamp(0, 1)))
        axis.set_title(f"layer {layer}", fontsize=9, fontweight="normal", loc="center")
    axes[0].set_title(f"{question} {answer}", fontsize=9, fontweight="normal", loc="left")


first_shape = language.listed(test_scenes[3:4])[0].split(", ")[0].split()[1]
asking = [f"what colour is the {first_shape}?", "how many things are there?", "there is"]
asking += [prompt for _, prompt, _ in recipes.asked_about(test_scenes[3:4], 12)[0][:6]]
figures.explore(ask, number=(0, 6), question=asking)

# %% [markdown]
# Does it use the picture at all, or answer from habit? Give it another picture, or none.

# %%
with run.autocast("transformer"):
    without = {
        "its own picture": recipes.by_kind(right["one sequence, trained encoder"], test),
        "another picture": recipes.by_kind(recipes.answered(both, seen_test.roll(1, 0), test), test),
        "no picture": recipes.by_kind(recipes.answered(both, None, test), test),
    }
figures.table(without, title="The same model, other pictures", controls=["another picture", "no picture"]);

# %% [markdown]
# What is left with the wrong picture is habit and luck.
#
# ## 7 Writing, and staying stable
#
# To write, the model appends the most likely token and reads on. Done naively, the whole sequence passes through the network again for each token. But the keys and values of what stands there never change, since nothing looks ahead. A **cache** keeps them, and each step reads one token.
#
# *Predict first:* does the cache also work if picture tokens could see the words?
#
# <details><summary>Answer</summary>No. Each new word would change what the picture tokens are, and with them all keys and values after the first layer. The prefix mask makes the cache exact.</details>

# %%
prompt = tokenizer(["there is"])[:, :3].to(run.device).expand(min(64, held), -1)          # [BOS] there is
written, took = {}, {}
for cache in (False, True):
    start = time.perf_counter()
    written[cache] = both.eval().write(seen_test[: len(prompt)], prompt, T - 3, cache=cache)
    took[cache] = time.perf_counter() - start
print("the same tokens:", torch.equal(written[True], written[False]))
print(f"{len(prompt)} lists: {took[False]:.2f} s without the cache, {took[True]:.2f} s with it")
for n in range(3):
    print(f"{tokenizer.decode(written[True][n]):40} true: {language.listed(test_scenes[n:n + 1])[0]}")

# %% [markdown]
# **Staying stable.** Chameleon writes pictures too, with one softmax over words and picture tokens. Its authors saw norms grow slowly until training broke down late; without picture *generation* it did not. Two of their cures fit in a line each:
#
# - **QK-norm**: layer norm on the queries and keys of each head. Without learned weights no score can then exceed $\sqrt{D_h}$ (exercise 11.4).
# - **z-loss**: add $10^{-5}\log^2 Z$, $Z=\sum_v e^{x_v}$. Cross entropy does not feel a constant added to all logits; this does.
#
# Our models are too small to break down by themselves, so we drive one too fast: a learning rate fifteen times as high.

# %%
speed = {}
for name, norm in (("plain", False), ("QK-norm", True)):
    model, largest = joint(qk_norm=norm), []

    def watch(step, model=model, largest=largest):
        if step % 5 == 0:
            largest.append(model.largest_scores(seen_test[:8], test.tokens[:8]).max().item())

    try:
        history = fitting(model, batches(train, seen, B // 2), run.pick(smoke=4, cpu=100, gpu=600), 3e-2, name,
                          after_step=watch, shape="constant")()
    except training.TrainingDiverged as stop:
        history = stop.history
    speed[name] = (history, largest)
_, (left, middle) = plt.subplots(1, 2, figsize=(10, 2.9))
figures.curves({name: history.smooth(10) for name, (history, _) in speed.items()}, title="Loss at a rate far too high",
               axis=left).set(ylim=(0, 4))
figures.curves({name: (range(0, 5 * len(values), 5), values) for name, (_, values) in speed.items()}, axis=middle,
               title="Largest attention score", y="score").set(yscale="log");

# %% [markdown]
# Without the norm the scores grow by orders of magnitude: the softmax becomes a hard choice that can hardly be unlearned. With it they stay small.
#
# ## 8 Captions from pixels
#
# Now the whole model, convolutional stem and all, learns from pixels to write the captions of *your* data, all captions of a picture packed behind it. (With Flickr8k or COCO, 32 pixels and a minute of training: expect habits of language, and a little sight.)

# %%
pairs = recipes.caption_pairs(run)
settings = recipes.caption_settings(run, pairs.train.name)
said = [text for texts in pairs.train.captions for text in texts]
speech = Tokenizer.train(said, settings.vocabulary, settings.length)


tokens, labels = recipes.captioned(speech, pairs.train)
side = pairs.train.images.shape[-1] // 8
torch.manual_seed(run.seed)
body = fusion.MapTower(run.pick(smoke=4, cpu=16, gpu=64))
writer = fusion.FromPixels(body, fusion.JointTransformer(len(speech), body.out_features, (side, side), settings.length,
                                                         width, depth, heads)).to(run.device)


def pixel_batches(size):
    for index in recipes.numbers(len(tokens), size, run.seed):
        yield training.to_input(pairs.train.images[index]), tokens[index], labels[index]


told_story = fitting(writer, pixel_batches(run.pick(smoke=8, cpu=24, gpu=64)), run.pick(smoke=4, cpu=260, gpu=12_000),
                     title="captions")()
print(f"loss per token {told_story.last():.2f}; ln {len(speech)} = {math.log(len(speech)):.2f}")

# %% [markdown]
# Four judgements on new pictures. **Loss** with the right and with another picture: the gap is what sight is worth. **chrF** (Popović, 2015, by sacrebleu) compares the letters of a written caption with those that people gave, 100 being equal; the control is the caption written for another picture. **Retrieval by likelihood**: which of the pictures makes this caption most likely? And your own eyes.

# %%
from sacrebleu.metrics import CHRF

few = min(run.pick(smoke=12, cpu=60, gpu=200), len(pairs.test))
told, told_labels = recipes.captioned(speech, pairs.test[:few])
opening = told[:, 0, :1]                                                                    # [BOS]
with torch.no_grad():
    looked = writer.eval().tower(training.to_input(pairs.test.images[:few]))                # (few, P, F)
    costs = {name: -recipes.text_likelihoods(writer.model, given, told, told_labels).sum(1)
             for name, given in (("right picture", looked), ("another picture", looked.roll(1, 0)))}
    length = (told_labels != objectives.IGNORED).sum((1, 2))
    losses = {name: cost / length for name, cost in costs.items()}                          # per token, of each picture
    first, first_labels = told[:, 0].expand(few, -1, -1), told_labels[:, 0].expand(few, -1, -1)
    likely = recipes.text_likelihoods(writer.model, looked, first, first_labels)            # (pictures, captions)
written = [speech.decode(row) for row in writer.model.write(looked, opening, settings.length - 1)]
chrf = {}
for name, lines in (("its own", written), ("another's", written[1:] + written[:1])):
    chrf[name] = [CHRF().sentence_score(line, texts).score for line, texts in zip(lines, pairs.test.captions)]
rank = (likely > likely.diagonal()).sum(0)                            # pictures before the right one
found = {k: (rank < k).float().mean().item() for k in (1, few // 10 or 1)}
print("loss per token:", ", ".join(f"{name} {value.mean():.3f}" for name, value in losses.items()))
print("chrF:", ", ".join(f"{name} {sum(values) / few:.1f}" for name, values in chrf.items()))
for k, share in found.items():
    print(f"{100 * share:.1f} % of {few} captions have their picture among the first {k}; chance {100 * k / few:.1f} %")

# %%
order = sorted(range(few), key=lambda i: -chrf["its own"][i])
shown = order[:4] + order[-4:]
lines = ["\n".join(textwrap.wrap(written[i], 24, max_lines=3)) for i in shown]
figures.grid(pairs.test.images[shown], lines, columns=8, width=1.55,
             title="Written: the four best and the four worst by chrF");

# %% [markdown]
# **Where it falls short.** The joint model knows this small world only, and learns seeing and asking from scratch. It always answers, also where there is no picture. And each pair costs a pass. Large models face the same three things, with better numbers.
#
# ## What the papers say, what we measured
#
# Verdicts are computed: an effect counts when it exceeds twice its standard error over the test pictures; one seed.

# %%
results = claims.Claims(run, data=pairs.test.name)
percent = lambda value: f"{100 * value:.1f} %"
listed = lambda values: ", ".join(f"{name} {percent(value)}" for name, value in values.items())
chosen = lambda kind: {name: table[name][kind] for name in table}
mean = lambda *kinds: {name: sum(row[kind] for kind in kinds) / len(kinds) for name, row in table.items()}
lookups, compared = mean("colour", "shape", "where"), mean("existence", "binding", "relation")
error = lambda a, b, n=held: math.hypot(claims.share_error(a, n), claims.share_error(b, n))
above = lambda a, b, n=held: claims.verdict(a - b, error=error(a, b, n))
one, raw_one, cross, late, blind = (lookups[name] for name in rivals)
guess = (1 / 5 + 1 / 5 + 1 / 3) / 3                                          # five colours, five shapes, three sides
n_pairs = len(pair_texts)
results.add("lookup", "Where words reach the picture's places, look-ups are better than with fusion at the end.",
            paper="VisualBERT with / without early fusion: VQA 70.8 / 68.2 (Li et al. 2019)",
            here="colour, shape, where: " + listed(lookups), verdict=above(one, late))
results.add("list", "Fusion at the end lists the picture, but its look-ups lag behind.", paper="an experiment",
            here=f"list {percent(table['fusion at the end']['list'])}, look-ups {percent(late)}",
            verdict=above(table["fusion at the end"]["list"], late))
results.add("control", "Without a picture, look-ups are no better than a guess (within 5 points).", paper="the control",
            here=percent(blind), verdict=claims.verdict(guess + 0.05 - blind, error=claims.share_error(blind, held)))
results.add("see", "At equal steps a trained encoder in front beats raw patches.",
            paper="ViLT starts from a trained ViT-B/32", here=listed({"encoder": one, "raw patches": raw_one}),
            verdict=above(one, raw_one))
results.add("compare", "At equal steps cross-attention is ahead of one sequence in comparing.",
            paper="not compared at this size", here="existence, binding, relation: " + listed(compared),
            verdict=above(compared["cross-attention"], compared["one sequence, trained encoder"]))
asked_pairs = chosen("pairs")
results.add("pairs", "Questions about exchanged colours: one sequence beats fusion at the end.",
            paper="Winoground: CLIP 8.0, ViLT 9.25, chance 16.7 (group)", here=listed(asked_pairs),
            verdict=above(asked_pairs["one sequence, trained encoder"], asked_pairs["fusion at the end"], n_pairs))
results.add("cost", "Reading pairs together costs more than the two towers, the more the more pairs.",
            paper="COCO retrieval in ViLT's repository: 35 hours", here=f"{numbers[-1]} × {numbers[-1]}: "
            f"{cost['one sequence'][-1]:.2f} s and {cost['two towers'][-1]:.3f} s",
            verdict=cost["one sequence"][-1] / cost["two towers"][-1] > cost["one sequence"][0] / cost["two towers"][0])

# %%
group = {name: row["group"] for name, row in shares.items()}
bag, hard_bag, small, big, hard_small, random_one, hard_one = group.values()
results.add("bag", "A bag of words cannot bind, not even with hard negatives.", paper="by construction",
            here=listed({"without": bag, "with": hard_bag}), verdict=bag == hard_bag == 0)
results.add("batch", "Two towers bind better with a larger batch.", paper="not in a paper",
            here=listed({"batch 16": small, f"batch {large}": big}), verdict=above(big, small, n_pairs))
results.add("hard towers", "Hard negatives teach two towers to bind.", paper="NegCLIP (Yuksekgonul et al. 2023)",
            here=listed({"random": small, "hard": hard_small}), verdict=above(hard_small, small, n_pairs))
results.add("hard sequence", "They teach one sequence, which random negatives do not.",
            paper="ViLT, random false captions: group 9.25", here=listed({"random": random_one, "hard": hard_one}),
            verdict=above(hard_one, random_one, n_pairs))
mark = looks["the question mark, trained"]
best = mark[1::2, mark[::2].mean(0).argmax()].mean().item()       # the layer chosen on one half, judged on the other
results.add("look", "Words look at the object that is meant.", paper="not measured there",
            here=f"{percent(best)} in the best layer, spread evenly {percent(chance)}", verdict=above(best, chance))
results.add("sight", "With another picture the answers are lost.", paper="not in a paper; the control",
            here="colour: " + listed({name: row["colour"] for name, row in without.items()}),
            verdict=above(without["its own picture"]["colour"], without["another picture"]["colour"]))
results.add("cache", "The cache changes no token.", paper="exact", here="compared on lists of the test pictures",
            verdict=torch.equal(both.write(seen_test[: len(prompt)], prompt, T - 3, cache=False),
                                both.write(seen_test[: len(prompt)], prompt, T - 3)))
peaks = {name: max(values) for name, (_, values) in speed.items()}
results.add("qk", "QK-norm keeps the attention scores small at a learning rate far too high.",
            paper="Chameleon-7B diverges without it", here=", ".join(f"{k}: {v:.0f}" for k, v in peaks.items()),
            verdict=peaks["QK-norm"] < peaks["plain"] / 5)
gap = losses["another picture"] - losses["right picture"]
results.add("gap", "Captions of your data cost less with their own picture than with another.", paper="the control",
            here=f"loss per token {losses['right picture'].mean():.3f} and {losses['another picture'].mean():.3f}",
            verdict=claims.verdict(gap.mean().item(), error=gap.std().item() / math.sqrt(few)))
top = max(found)
results.add("captions", "They find their picture by likelihood.", paper="ViLT ranks by a match score",
            here=", ".join(f"R@{k} {percent(share)}" for k, share in found.items()) + f" of {few}, chance "
            f"{percent(1 / few)} and {percent(top / few)}", verdict=above(found[top], top / few, few))
for name, row in table.items():
    for kind, value in row.items():
        results.number(f"{name}, {kind}", value)
for name, value in (group | {f"chrF, {name}": sum(values) / few for name, values in chrf.items()}).items():
    results.number(name, value)
results.show()

# %% [markdown] tags=["slide"]
# ## The path on one page
#
# On the right stands a claim with its verdict, read from the records of the lessons' own runs. Cover the page, and draw it from memory: what did each step add?

# %% tags=["slide"]
ADDED = {1: ("add the input back: depth stops hurting", "cure"),             # step: what it added, key of its claim
         2: ("patches as tokens: read pictures like text", "data"),
         3: ("hide most, paint it back: no labels", "labels"),
         4: ("which one belongs to me? pairs teach", "transfer"),
         5: ("two views of one picture make the pair", "labels"),
         6: ("agree with your own average; maps appear", "untrained"),
         7: ("more terms, better data: a backbone", "untrained-class"),
         8: ("pairs of picture and caption: one space", "retrieval"),
         9: ("the space has a shape, and more senses", "emergent"), 10: ("class names become a classifier", "unseen"),
         11: ("words look at places: ask the picture", "lookup")}
kind = "scenes" if pairs.test.name == "scenes" else "real"
page = []
for step in course.LESSONS:
    added, key = ADDED[step.number]
    kept = [record["claims"] for record in claims.references(step.number) if record["data"] == kind]
    rows = [vars(row) for row in results.rows] if step.number == 11 else [row for part in kept for row in part]
    row = next((row for row in rows if row["key"] == key), rows[0] if rows else None)
    measured = row and f"{claims.MARKS[row['verdict']]} {row['claim']} {row['here']}"
    page.append((f"{step.number:02d}", step.title, added, measured or "no record of this lesson on such data yet"))
figures.steps(page, title="From pixels to answers");

# %% [markdown]
# ## Exercises
#
# Write the function, run the check, read what it says. `hint("11.1")` gives three hints, one more each time; `solution("11.1")` shows one way. `lessons.progress()` remembers.

# %% [markdown]
# **11.1 Room for a picture** · 10 minutes · difficulty 2 of 5
#
# `splice(tokens, labels, image, patches)`: two lists of ints, the token that stands for a picture, int → three lists of one length: tokens, labels, positions.

# %% tags=["exercise", "check", "nbval-check-output"]
def splice(tokens, labels, image, patches):
    """Make room for pictures: lists of ints tokens and labels of one length, `image` the token that stands for a
    picture -> (tokens, labels, positions), three lists of one length: each `image` repeated `patches` times, with
    the label -100; positions count 0, 1, 2 ... through the whole sequence."""
    raise NotImplementedError


check("11.1", splice);

# %% [markdown]
# **11.2 A mask for texts of different lengths** · 15 minutes · difficulty 3 of 5
#
# `padded_prefix_mask(pictures, lengths, longest)`: int, (B,) int64, int → (B, N, N) bool, N = pictures + longest.

# %% tags=["exercise", "check", "nbval-check-output"]
def padded_prefix_mask(pictures, lengths, longest):
    """Who may look at whom, bool (B, N, N), True = may; N = pictures + longest, one text per picture with lengths (B,)
    int64 words of `longest`. Pictures see all picture tokens and no word, words see the picture and the words up to
    their own; nobody sees padding."""
    raise NotImplementedError


check("11.2", padded_prefix_mask);

# %% [markdown]
# **11.3 Loss on the answer, and a leash for the logits** · 15 minutes · difficulty 3 of 5
#
# `answer_loss(logits, labels, z=0.0)`: (B, T, V), (B, T) int64 with -100 where nothing is learned, float → scalar.

# %% tags=["exercise", "check", "nbval-check-output"]
def answer_loss(logits, labels, z=0.0):
    """Next-token loss on the labelled positions: logits (B, T, V) of the token after each, labels (B, T) int64 aligned
    with the tokens, -100 where nothing is learned. Mean cross entropy over all labelled tokens of the batch together,
    plus z times the mean of (log Z)^2 over the same positions, Z = sum_v exp(logit v) -> scalar"""
    raise NotImplementedError


check("11.3", answer_loss);

# %% [markdown]
# **11.4 QK-norm** · 10 minutes · difficulty 2 of 5
#
# `qk_norm_scores(q, k, eps=1e-6)`: (B, H, N, D_h) twice, float → (B, H, N, N), the scores before the softmax.

# %% tags=["exercise", "check", "nbval-check-output"]
def qk_norm_scores(q, k, eps=1e-6):
    """Attention scores with QK-norm, before the softmax: q, k (B, H, N, D_h) -> (B, H, N, N). The queries and the keys
    of each head are brought to mean 0 and variance 1 over their D_h numbers (eps is added to the variance), then
    multiplied and divided by sqrt(D_h)."""
    raise NotImplementedError


check("11.4", qk_norm_scores);

# %% [markdown]
# **11.5 Gated cross-attention** · 15 minutes · difficulty 3 of 5
#
# `gated_attention(x, seen, wq, wk, wv, gate)`: (B, T, D), (B, P, D), three (D, D), scalar tensor → (B, T, D).

# %% tags=["exercise", "check", "nbval-check-output"]
def gated_attention(x, seen, wq, wk, wv, gate):
    """One head of gated cross-attention: words x (B, T, D) read a picture seen (B, P, D), wq, wk, wv (D, D), gate a
    scalar tensor -> x + tanh(gate) * softmax(q k^T / sqrt(D)) v with q = x wq, k = seen wk, v = seen wv, (B, T, D)."""
    raise NotImplementedError


check("11.5", gated_attention);

# %% [markdown]
# **11.6 Text, image and group** · 15 minutes · difficulty 3 of 5
#
# `winoground_scores(scores)`: (N, 2, 2), scores[n, i, c] of picture i with caption c → a dict with the shares “text”, “image” and “group”.

# %% tags=["exercise", "check", "nbval-check-output"]
def winoground_scores(scores):
    """Shares of N pairs that are told apart: scores (N, 2, 2), scores[n, i, c] of picture i with caption c, own ones on
    the diagonal -> {"text", "image", "group"}, floats. text: both pictures prefer their own caption; image: both
    captions prefer their own picture; group: text and image. A tie is no preference."""
    raise NotImplementedError


check("11.6", winoground_scores);

# %% [markdown]
# **11.7 Experiment: a closed gate learns** · 25 minutes · difficulty 4 of 5
#
# `first_movers(layer, x, seen, target, steps=3, rate=0.1)`: a layer called as layer(x, seen), (B, T, D), (B, P, D), (B, T, D) → for each step the sorted names of the parameters that it changed.

# %% tags=["exercise", "check", "nbval-check-output"]
def first_movers(layer, x, seen, target, steps=3, rate=0.1):
    """Experiment: which parameters of a gated cross-attention layer move, and when? Train a copy of layer(x, seen)
    towards `target` by `steps` steps of plain gradient descent on the mean squared error -> for each step the sorted
    list of the names of the parameters that this step changed. The layer itself stays as it is."""
    raise NotImplementedError


check("11.7", first_movers);

# %% [markdown]
# **11.8 Your own question** · 60 minutes · difficulty 5 of 5 · open
#
# Invent a kind of question that `lessons.data.language` does not ask (which is larger? are two of the same shape? what is between?), and find out which of the designs learns to answer it.

# %% tags=["check", "nbval-check-output"]
check("11.8");

# %% [markdown] tags=["workshop"]
# ## What you can now claim
#
# - One sequence of patches and words, a prefix mask, a loss on the answer: that is the core of early fusion. Yours equals its tested form, packed, cached and alone.
# - Where words can reach the picture's places they look things up. Fusion at the end knows what is there, and is slow to find what was asked.
# - The architecture permits, the training signal decides. You have seen two towers bind, and one sequence fail to, by the captions they were trained against.
#
# **Read on.** Kim et al. 2021, [ViLT](https://arxiv.org/abs/2102.03334): section 3 is short. Alayrac et al. 2022, [Flamingo](https://arxiv.org/abs/2204.14198): the gates and their ablation. Liu et al. 2023, [LLaVA](https://arxiv.org/abs/2304.08485): how little has to be added to a language model. Chameleon Team 2024, [Chameleon](https://arxiv.org/abs/2405.09818): section 2.3 on stability. Thrush et al. 2022, [Winoground](https://arxiv.org/abs/2204.03162). Wadekar et al. 2024, [a taxonomy](https://arxiv.org/abs/2405.17927): where the modalities meet.
#
# **This was the last step.** You have built, from a residual block to a model that answers questions about a picture, every idea of the path, and measured each against a control.

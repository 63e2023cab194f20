"""Lesson 10, zero-shot transfer: six exercises, an experiment, and an open one."""

import math
from functools import partial

import torch
import torch.nn.functional as F

from .engine import Exercise, Wrong
from .expect import call, expect_equal, expect_tensor, seeded

# 10.1


def prompts(names, templates):
    """K names and P templates such as "a photo of a {}" -> K * P sentences, all of the first name first; underscores of
    a name become spaces."""
    return [template.replace("{}", name.replace("_", " ")) for name in names for template in templates]


def _prompts_wrong(kind):
    def wrong(names, templates):
        spoken = [name if kind == "raw" else name.replace("_", " ") for name in names]
        if kind == "order":
            return [template.replace("{}", name) for template in templates for name in spoken]
        if kind == "nested":
            return [[template.replace("{}", name) for template in templates] for name in spoken]
        if kind == "first":
            return [templates[0].replace("{}", name) for name in spoken]
        if kind == "paired":
            return [template.replace("{}", name) for name, template in zip(spoken, templates, strict=False)]
        if kind == "glued":
            return [name.replace("_", "").replace(" ", "") for name in names for _ in templates]
        if kind == "unique":
            return [template.replace("{}", name) for name in dict.fromkeys(spoken) for template in templates]
        if kind == "lower":
            return [template.replace("{}", name).lower() for name in spoken for template in templates]
        if kind == "sorted":
            return [template.replace("{}", name) for name in sorted(spoken) for template in templates]
        return [name for name in spoken for _ in templates]

    return wrong


_PROMPT_CAUSES = {
    "order": "the templates are the outer loop; all sentences of one name stand together, so names are the outer one",
    "nested": "this is a list of lists; one flat list is wanted, ready for a tokenizer",
    "first": "only the first template is used",
    "paired": "names and templates were paired; every name goes into every template",
    "raw": "underscores are still there: nobody writes them in a caption",
    "sorted": "the names were sorted; class k must stay names[k], or every label is wrong",
    "bare": "the names stand alone, without their templates",
    "unique": "a name that occurs twice lost its second place; class k must stay names[k], also where two share a name",
    "lower": "capital letters were lost; leave them to the tokenizer",
}


def check_prompts(candidate):
    cases = (
        (["tabby_cat", "ring", "airplane"], ["a photo of a {}", "{}, drawn"]),
        (["red_deer", "ant"], ["a {} or so", "the {}", "{}"]),
        (["b"], ["one {}"]),
        (["crane", "NASA_rocket", "crane"], ["A {} at night", "the {}"]),  # ImageNet has two cranes
    )
    for names, templates in cases:
        causes = {sentence: _prompts_wrong(kind)(names, templates) for kind, sentence in _PROMPT_CAUSES.items()}
        got = call(candidate, list(names), list(templates))
        expect_equal(got, prompts(names, templates), f"prompts for {len(names)} names", causes=causes)


# 10.2


def class_probabilities(pictures, prompts, scale):
    """Pictures (B, D) and P prompts for each of K classes (K, P, D), all of any length -> probabilities (B, K): unit
    vectors of the prompts, the unit vector of their mean, cosines times `scale`, softmax over the classes."""
    weights = F.normalize(F.normalize(prompts, dim=2).mean(1), dim=1)  # (K, D)
    return (scale * F.normalize(pictures, dim=1) @ weights.T).softmax(1)


def _probabilities_wrong(kind):
    def wrong(pictures, prompts, scale):
        unit = prompts if kind == "early" else F.normalize(prompts, dim=2)
        weights = unit.mean(1)
        if kind == "first":
            weights = unit[:, 0]
        if kind != "short":
            weights = F.normalize(weights, dim=1)
        seen = pictures if kind == "long" else F.normalize(pictures, dim=1)
        if kind == "average":
            return (scale * torch.einsum("bd,kpd->bpk", seen, unit)).softmax(2).mean(1)
        cosine = seen @ weights.T
        if kind == "cosine":
            return cosine
        if kind == "logits":
            return scale * cosine
        if kind == "divided":
            return (cosine / scale).softmax(1)
        if kind == "unscaled":
            return cosine.softmax(1)
        return (scale * cosine).softmax(0 if kind == "pictures" else 1)

    return wrong


_PROBABILITY_CAUSES = {
    "early": "the prompts were averaged before each had length 1: a long vector then outvotes the others",
    "short": "the mean of unit vectors is shorter than 1: bring it back to length 1, or classes with diverse prompts lose",
    "long": "the pictures' vectors have lengths of their own: normalise them, too",
    "average": "probabilities were averaged over the prompts; the ensemble is made of the vectors",
    "first": "only the first prompt of each class is used",
    "unscaled": "`scale` is missing: bare cosines give nearly equal probabilities",
    "divided": "the cosines are divided by `scale`; it is 1 / tau already, so it multiplies",
    "pictures": "the softmax runs over the pictures; each picture chooses among the classes",
    "logits": "these are logits; the softmax is missing",
    "cosine": "these are cosines; scale and softmax are missing",
}


def check_class_probabilities(candidate):
    lengths = torch.tensor([0.2, 5.0, 1.0])[:, None]
    for B, K, P, D, scale in ((4, 3, 3, 5, 6.0), (2, 5, 2, 3, 0.5), (1, 2, 1, 4, 20.0), (6, 2, 4, 3, 3.0)):
        pictures = 3 * seeded(B, D, seed=B)
        vectors = seeded(K, P, D, seed=K + 10) * lengths.repeat(2, 1)[:P]
        causes = {
            sentence: _probabilities_wrong(kind)(pictures, vectors, scale)
            for kind, sentence in _PROBABILITY_CAUSES.items()
        }
        what = f"class_probabilities of {B} pictures, {K} classes, {P} prompts each, scale {scale:g}"
        got = call(candidate, pictures, vectors, scale)
        expect_tensor(got, class_probabilities(pictures, vectors, scale), what, causes=causes)


# 10.3


def top_k(scores, labels, k):
    """Scores (N, K), labels (N,) int64 -> (share of pictures whose label is among their k largest scores, the mean of
    that share over the classes that occur in labels), floats; there are no ties."""
    hit = (scores.topk(k, dim=1).indices == labels[:, None]).any(1).float()
    by_class = [hit[labels == c].mean() for c in labels.unique()]
    return hit.mean().item(), torch.stack(by_class).mean().item()


def _top_k_by_loops(scores, labels, k, mode=""):
    hits, classes = [], {}
    for row, label in zip(scores.tolist(), labels.tolist(), strict=True):
        order = sorted(range(len(row)), key=lambda c: row[c], reverse=mode != "ascending")
        hit = label == order[k - 1] if mode == "exactly" else label in order[:k]
        hits.append(hit)
        classes.setdefault(label, []).append(hit)
    micro = sum(hits) / len(hits)
    shares = [sum(found) / len(found) for found in classes.values()]
    macro = sum(shares) / (scores.shape[1] if mode == "all" else len(shares))
    if mode == "micro":
        return micro, micro
    if mode == "macro":
        return macro, macro
    if mode == "count":
        return float(sum(hits)), macro
    return (macro, micro) if mode == "swapped" else (micro, macro)


def _top_k_wrong(mode):
    return lambda scores, labels, k: _top_k_by_loops(scores, labels, 1 if mode == "one" else k, mode)


_TOP_K_CAUSES = {
    "ascending": "the smallest scores were taken",
    "one": "k is not used: this is the share of first places",
    "exactly": "this asks for place k exactly; any of the first k will do",
    "all": "the mean over classes runs over all K; a class that does not occur has no share",
    "micro": "both numbers are shares of pictures; the second weighs every class alike",
    "macro": "both numbers are means over classes; the first counts pictures",
    "swapped": "the order is (share of pictures, mean over classes)",
    "count": "this is a number of pictures, not their share",
}


def check_top_k(candidate):
    labels = ([0, 0, 0, 0, 2, 2, 4], [1, 1, 1, 3, 3, 0], [2, 2, 2, 2, 2, 1, 1, 0])
    for number, (truth, K, k) in enumerate(zip(labels, (6, 4, 3), (2, 1, 2), strict=True)):
        truth = torch.tensor(truth)
        scores = seeded(len(truth), K, seed=number + 20)
        want = _top_k_by_loops(scores, truth, k)
        causes = {text: _top_k_wrong(mode)(scores, truth, k) for mode, text in _TOP_K_CAUSES.items()}
        what = f"top_k of {len(truth)} pictures, {K} classes, k = {k}"
        expect_equal(call(candidate, scores, truth, k), want, what, causes=causes)


# 10.4


def group_scores(scores, groups):
    """Scores of S fine names (N, S) and the group of each, (S,) int64 in 0 ... G - 1 -> (N, G): a group scores as its
    best name does."""
    count = int(groups.max()) + 1
    return torch.stack([scores[:, groups == g].amax(1) for g in range(count)], dim=1)


def _group_wrong(kind):
    def wrong(scores, groups):
        parts = [scores[:, groups == g] for g in range(int(groups.max()) + 1)]
        reduced = {
            "mean": lambda part: part.mean(1),
            "sum": lambda part: part.sum(1),
            "smallest": lambda part: part.amin(1),
            "smooth": lambda part: part.logsumexp(1),
            "first": lambda part: part[:, 0],
            "zero": lambda part: part.amax(1).clamp(min=0),
            "share": lambda part: scores.softmax(1)[:, [scores[0].tolist().index(v) for v in part[0].tolist()]].sum(1),
        }
        return torch.stack([reduced[kind](part) for part in parts], dim=1)

    return wrong


_GROUP_CAUSES = {
    "mean": "this is the mean; one name that fits is enough, however badly the others fit",
    "sum": "this is the sum: it favours groups with many names",
    "smallest": "this is the worst name of each group",
    "smooth": "this is log-sum-exp, a soft maximum, which also favours groups with many names",
    "first": "only the first name of each group counts",
    "zero": "the maximum was taken together with zeros; scores may be negative",
    "share": "these are summed probabilities; here a group scores as its best name does",
}


def check_group_scores(candidate):
    for groups, N in (([0, 1, 0, 2, 1, 0], 3), ([2, 2, 0, 1], 4), ([0, 0, 1, 1, 1, 1, 1], 2)):
        groups = torch.tensor(groups)
        scores = seeded(N, len(groups), seed=N) - 0.8
        causes = {sentence: _group_wrong(kind)(scores, groups) for kind, sentence in _GROUP_CAUSES.items()}
        want = torch.tensor(
            [
                [
                    max(v for v, g in zip(row, groups.tolist(), strict=True) if g == group)
                    for group in range(max(groups) + 1)
                ]
                for row in scores.tolist()
            ]
        )
        what = f"group_scores of {N} pictures, groups {groups.tolist()}"
        expect_tensor(call(candidate, scores, groups), want, what, causes=causes)


# 10.5


def crossing(shots, accuracies, level):
    """The first k at which a probe reaches `level`: shots k rise, accuracies belong to them; between two neighbours the
    accuracy is linear in log k. Reached at the first k: that k; never: math.inf. -> float"""
    if accuracies[0] >= level:
        return float(shots[0])
    for i in range(1, len(shots)):
        if accuracies[i] >= level:
            share = (level - accuracies[i - 1]) / (accuracies[i] - accuracies[i - 1])
            return shots[i - 1] * (shots[i] / shots[i - 1]) ** share
    return math.inf


def _crossing_wrong(kind):
    def wrong(shots, accuracies, level):
        if accuracies[0] >= level:
            return math.inf if kind == "first" else float(shots[0])
        steps = range(1, len(shots))
        for i in reversed(steps) if kind == "last" else steps:
            low, high = accuracies[i - 1], accuracies[i]
            if high >= level and (kind != "last" or low < level):
                share = (level - low) / (high - low)
                if kind == "linear":
                    return shots[i - 1] + share * (shots[i] - shots[i - 1])
                if kind == "measured":
                    return float(shots[i])
                if kind == "log":
                    return math.log(shots[i - 1]) + share * math.log(shots[i] / shots[i - 1])
                share = 1 - share if kind == "turned" else 0.5 if kind == "middle" else share
                return shots[i - 1] * (shots[i] / shots[i - 1]) ** share
        return float(shots[-1]) if kind == "never" else math.inf

    return wrong


_CROSSING_CAUSES = {
    "linear": "this interpolates over k; accuracies grow with the logarithm of k",
    "measured": "this is the first k that was measured above the level; the crossing lies before it",
    "log": "this is the logarithm of the answer",
    "turned": "the share is turned round: near the lower accuracy means near the smaller k",
    "middle": "this is the middle of the two k, wherever the level lies between the accuracies",
    "last": "this is the last crossing; the curve may dip again, the first one is asked for",
    "never": "the level is never reached: that is math.inf, not the largest k",
    "first": "the level is reached at the first k already: return that k",
}


def check_crossing(candidate):
    shots = [1, 2, 4, 8, 16]
    cases = (
        (shots, [0.30, 0.45, 0.61, 0.70, 0.82], 0.64),
        (shots, [0.30, 0.52, 0.47, 0.55, 0.60], 0.50),
        ([1, 4, 16], [0.2, 0.3, 0.9], 0.45),
        (shots, [0.30, 0.45, 0.61, 0.70, 0.82], 0.25),
        (shots, [0.30, 0.45, 0.61, 0.70, 0.82], 0.95),
        (shots, [0.30, 0.45, 0.61, 0.70, 0.75], 0.75),
        ([2, 8, 50], [0.1, 0.5, 0.7], 0.62),
        (shots, [0.30, 0.52, 0.41, 0.45, 0.48], 0.50),  # np.interp finds no first crossing where accuracies fall
        ([1, 2, 4], [0.50, 0.40, 0.60], 0.50),  # reached exactly at the first k, and lost again
    )
    for ks, values, level in cases:
        want = crossing(ks, values, level)
        causes = {sentence: _crossing_wrong(kind)(ks, values, level) for kind, sentence in _CROSSING_CAUSES.items()}
        what = f"crossing for k = {ks}, accuracies {values}, level {level}"
        got = call(candidate, list(ks), list(values), level)
        expect_equal(
            float(got) if isinstance(got, int) and not isinstance(got, bool) else got, want, what, causes=causes
        )


# 10.6


def calibration_error(probabilities, labels, bins):
    """Expected calibration error: probabilities (N, K), labels (N,) int64. A prediction belongs to the interval
    (b / bins, (b + 1) / bins] that holds its largest probability; the sum over intervals of (its share of the N
    predictions) times |mean largest probability - share of right predictions|. -> float"""
    confidence, guess = probabilities.max(1)
    right = (guess == labels).float()
    error = 0.0
    for b in range(bins):
        inside = (confidence > b / bins) & (confidence <= (b + 1) / bins)
        if inside.any():
            error += inside.float().mean().item() * abs((confidence[inside].mean() - right[inside].mean()).item())
    return error


def _calibration_wrong(kind):
    def wrong(probabilities, labels, bins):
        confidence, guess = probabilities.max(1)
        right = (guess == labels).float()
        if kind == "whole":
            return abs((confidence.mean() - right.mean()).item())
        if kind == "single":
            return (confidence - right).abs().mean().item()
        if kind == "brier":
            return (confidence - right).square().mean().item()
        if kind == "label":
            confidence = probabilities.gather(1, labels[:, None])[:, 0]
        gaps, weights = [], []
        for b in range(bins):
            inside = (confidence > b / bins) & (confidence <= (b + 1) / bins)
            if kind == "left":
                inside = (confidence >= b / bins) & (confidence < (b + 1) / bins)
            if inside.any():
                gaps.append((confidence[inside].mean() - right[inside].mean()).item())
                weights.append(inside.float().mean().item())
        if kind == "signed":
            return abs(sum(w * g for w, g in zip(weights, gaps, strict=True)))
        gaps = [gap * gap if kind == "squared" else abs(gap) for gap in gaps]
        if kind == "worst":
            return max(gaps)
        if kind == "equal":
            return sum(gaps) / len(gaps)
        if kind == "empty":
            return sum(gaps) / bins
        return sum(w * g for w, g in zip(weights, gaps, strict=True))

    return wrong


_CALIBRATION_CAUSES = {
    "whole": "over- and underconfidence cancel here, as in a comparison of two overall means; take each interval's absolute gap",
    "single": "this takes the gap of each prediction; average inside an interval first, then take the gap",
    "brier": "this is a squared error of single predictions; average inside an interval first",
    "equal": "every interval weighs the same; its weight is its share of the predictions",
    "empty": "this is divided by the number of intervals; the weight of each is its share of the predictions",
    "worst": "this is the largest gap; the weighted mean is wanted",
    "squared": "the gaps are squared; their absolute value is wanted",
    "label": "confidence is the probability of the guess, not that of the label",
    "left": "an interval holds its upper end, not its lower one: a probability of 1 belongs to the last",
}


def check_calibration_error(candidate):
    for N, K, bins, scale in ((40, 4, 5, 2.0), (25, 3, 10, 4.0), (30, 2, 4, 1.0)):
        logits = scale * seeded(N, K, seed=N)
        labels = torch.where(seeded(N, seed=K) > 0.1, logits.argmax(1), seeded(N, seed=K + 5, high=K))
        probabilities = logits.softmax(1)
        probabilities[: N // 5] = torch.eye(K)[logits.argmax(1)[: N // 5]]  # quite sure, and not always right
        probabilities[N // 5 : N // 3] = torch.tensor([0.75, 0.25, 0.0, 0.0])[:K]  # on the edge of an interval
        want = calibration_error(probabilities, labels, bins)
        causes = {
            sentence: _calibration_wrong(kind)(probabilities, labels, bins)
            for kind, sentence in _CALIBRATION_CAUSES.items()
        }
        what = f"calibration_error of {N} predictions in {bins} intervals"
        expect_equal(call(candidate, probabilities, labels, bins), want, what, atol=1e-5, causes=causes)


# 10.7


def probe_from_words(weights, pictures, labels, scale, pull):
    """Experiment: a few-shot probe that starts from words. Find the W (K, D) with the lowest
    cross entropy (mean) of scale * pictures @ W.T + pull * sum of (W - weights)^2,
    for unit vectors weights (K, D), pictures (N, D), labels (N,) int64. -> W, without gradient"""
    W = weights.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([W], max_iter=200, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        value = F.cross_entropy(scale * pictures @ W.T, labels) + pull * (W - weights).square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return W.detach()


def _probe_with(pull_to="words", steps=200, scaled=True, reduction="mean", pulled=True, give=lambda W, start: W):
    """A wrong experiment."""

    def probe_from_words_wrong(weights, pictures, labels, scale, pull):
        W = weights.clone().requires_grad_()
        target = weights if pull_to == "words" else torch.zeros_like(weights)
        optimizer = torch.optim.LBFGS([W], max_iter=steps, line_search_fn="strong_wolfe")

        def loss():
            optimizer.zero_grad()
            logits = (scale if scaled else 1.0) * pictures @ W.T
            distance = (W - target).square()
            penalty = pull * (distance.mean() if pulled == "mean" else distance.sum()) if pulled else 0.0 * W.sum()
            value = F.cross_entropy(logits, labels, reduction=reduction) + penalty
            value.backward()
            return value

        if steps:
            optimizer.step(loss)
        return give(W.detach(), weights)

    return probe_from_words_wrong


_PROBE_WRONG = {
    "the pull goes to zero: that is an ordinary probe, which has forgotten the words": _probe_with(pull_to="zero"),
    "nothing pulls: a start at the words alone does not keep them, a long training forgets it": _probe_with(
        pulled=False
    ),
    "these are the words unchanged": _probe_with(steps=0),
    "the training stopped early: the loss has one minimum, go down to it": _probe_with(steps=3),
    "`scale` is missing from the logits": _probe_with(scaled=False),
    "the cross entropy was summed; its mean over the pictures is wanted": _probe_with(reduction="sum"),
    "the squares of the pull were averaged; their sum is wanted": _probe_with(pulled="mean"),
    "the rows were brought back to length 1 afterwards: then they are not the minimum any more": _probe_with(
        give=lambda W, start: F.normalize(W, dim=1)
    ),
    "this is the change W - weights, not W": _probe_with(give=lambda W, start: W - start),
}


def shots(K, D, n, noise, seed):
    """Words that are nearly right, a few pictures of each class, many for the test."""
    true = F.normalize(seeded(K, D, seed=seed), dim=1)
    words = F.normalize(true + 0.9 * seeded(K, D, seed=seed + 1) / math.sqrt(D), dim=1)
    labels = torch.arange(K).repeat(n)
    pictures = F.normalize(true[labels] + noise * seeded(len(labels), D, seed=seed + 2) / math.sqrt(D), dim=1)
    return words, pictures, labels, true


def check_probe_from_words(candidate):
    for K, D, n, scale, pull in ((5, 12, 2, 8.0, 0.05), (3, 6, 4, 5.0, 0.2)):
        words, pictures, labels, true = shots(K, D, n, 1.6, K)
        want = probe_from_words(words, pictures, labels, scale, pull)
        what = f"probe_from_words for {K} classes, {n} pictures each, pull {pull:g}"
        args = (words, pictures, labels, scale, pull)
        causes = {text: partial(f, *args) for text, f in _PROBE_WRONG.items()}
        got = call(candidate, words, pictures, labels, scale, pull)
        expect_tensor(got, want, what, atol=5e-3, rtol=1e-2, causes=causes, hint=3)
        if got.requires_grad:
            raise Wrong(f"{what}: W still requires a gradient.", cause="return W.detach()", hint=3)


EXERCISES = (
    Exercise(
        id="10.1",
        title="From names to sentences",
        minutes=5,
        difficulty=1,
        contract="`prompts(names, templates)`: K names, P templates with {} -> list of K * P sentences, name by name.",
        hints=(
            "Two loops. Which one is the outer one, if all sentences of one name are to stand together?",
            'A template has its {} replaced by the name, and "tabby_cat" is spoken "tabby cat".',
            "for each name: for each template: template.replace('{}', name without underscores)",
        ),
        solution=prompts,
        check=check_prompts,
        covers="four lists of names, underscores, capitals, two classes of one name, the name at any place of a template",
        wrong=tuple(
            (_prompts_wrong(kind), phrase)
            for kind, phrase in (
                ("order", "outer loop"),
                ("nested", "list of lists"),
                ("first", "only the first template"),
                ("paired", "every name goes into every template"),
                ("raw", "underscores"),
                ("sorted", "class k must stay"),
                ("bare", "stand alone"),
                ("unique", "second place"),
                ("lower", "capital letters"),
            )
        ),
    ),
    Exercise(
        id="10.2",
        title="An ensemble that is not outvoted",
        minutes=10,
        difficulty=2,
        contract="`class_probabilities(pictures, prompts, scale)`: (B, D), (K, P, D) of any lengths -> (B, K).",
        hints=(
            "How many times is something brought to length 1 here? Three things need it.",
            "Each prompt (dim 2), then their mean (dim 1), and each picture; softmax of scale * cosine over the classes.",
            "w = normalise(normalise(prompts).mean(1)); softmax(scale * normalise(pictures) @ w.T, dim=1)",
        ),
        solution=class_probabilities,
        check=check_class_probabilities,
        covers="four shapes, prompts and pictures of very different lengths, three scales",
        wrong=tuple(
            (_probabilities_wrong(kind), phrase)
            for kind, phrase in (
                ("early", "averaged before"),
                ("short", "shorter than 1"),
                ("long", "lengths of their own"),
                ("average", "probabilities were averaged"),
                ("first", "only the first prompt"),
                ("unscaled", "`scale` is missing"),
                ("divided", "multiplies"),
                ("pictures", "over the pictures"),
                ("logits", "softmax is missing"),
            )
        ),
    ),
    Exercise(
        id="10.3",
        title="Pictures or classes?",
        minutes=10,
        difficulty=2,
        contract="`top_k(scores, labels, k)`: (N, K), (N,) int64, int -> (share of pictures, mean over classes), floats.",
        hints=(
            "Of 100 pictures 95 show dogs. Which of the two numbers rises when I always say dog?",
            "hit (N,) bool: the label is among the k largest scores. First number: its mean. Second: the mean of its means per class that occurs.",
            "scores.topk(k).indices == labels[:, None], any over dim 1; for c in labels.unique(): hit[labels == c].mean()",
        ),
        solution=top_k,
        check=check_top_k,
        covers="three unbalanced sets, classes that never occur, k of 1 and 2, against plain loops",
        wrong=tuple(
            (_top_k_wrong(mode), phrase)
            for mode, phrase in (
                ("ascending", "smallest scores"),
                ("one", "k is not used"),
                ("exactly", "any of the first k"),
                ("all", "does not occur"),
                ("micro", "weighs every class alike"),
                ("macro", "counts pictures"),
                ("swapped", "the order is"),
                ("count", "not their share"),
            )
        ),
    ),
    Exercise(
        id="10.4",
        title="Many names for one class",
        minutes=10,
        difficulty=2,
        contract="`group_scores(scores, groups)`: (N, S) for S fine names, (S,) int64 -> (N, G), the best name of each group.",
        hints=(
            "A picture of a poodle is a dog, though “terrier” does not fit. Which of the dog names should count?",
            "For group g take the columns with groups == g, and their maximum over dim 1.",
            "stack([scores[:, groups == g].amax(1) for g in range(G)], dim=1), with G = groups.max() + 1",
        ),
        solution=group_scores,
        check=check_group_scores,
        covers="groups of different sizes in any order, negative scores",
        wrong=tuple(
            (_group_wrong(kind), phrase)
            for kind, phrase in (
                ("mean", "this is the mean"),
                ("sum", "this is the sum"),
                ("smallest", "worst name"),
                ("smooth", "soft maximum"),
                ("first", "only the first name"),
                ("zero", "may be negative"),
                ("share", "summed probabilities"),
            )
        ),
    ),
    Exercise(
        id="10.5",
        title="What is a sentence worth?",
        minutes=15,
        difficulty=3,
        contract="`crossing(shots, accuracies, level)`: rising k, an accuracy each, the zero-shot level -> k at the first crossing, a float.",
        hints=(
            "Between 4 and 8 examples the accuracy passes the level a third of the way up. A third of the way from 4 to 8 on which axis?",
            "share = (level - lower) / (upper - lower); k = k0 * (k1 / k0) ** share. First k above already: that k. Never: math.inf.",
            "check the first; loop over neighbours and return at the first whose upper accuracy reaches the level; after the loop math.inf",
        ),
        solution=crossing,
        check=check_crossing,
        covers="unequal steps, a curve that dips, a level below the first and above the last accuracy",
        wrong=tuple(
            (_crossing_wrong(kind), phrase)
            for kind, phrase in (
                ("linear", "logarithm of k"),
                ("measured", "lies before it"),
                ("log", "logarithm of the answer"),
                ("turned", "turned round"),
                ("middle", "middle of the two"),
                ("last", "first one is asked for"),
                ("never", "never reached"),
                ("first", "at the first k already"),
            )
        ),
    ),
    Exercise(
        id="10.6",
        title="Sure, or right?",
        minutes=20,
        difficulty=3,
        contract="`calibration_error(probabilities, labels, bins)`: (N, K), (N,) int64, int -> expected calibration error, a float.",
        hints=(
            "Of all predictions made with about 70 % confidence, how many should be right?",
            "confidence, guess = probabilities.max(1). For each interval: its share of N times |mean confidence - share right|. Empty ones add nothing.",
            "for b in range(bins): inside = (conf > b / bins) & (conf <= (b + 1) / bins); add inside.mean() * |conf[inside].mean() - right[inside].mean()|",
        ),
        solution=calibration_error,
        check=check_calibration_error,
        covers="three numbers of intervals, empty intervals, probabilities of exactly 1",
        wrong=tuple(
            (_calibration_wrong(kind), phrase)
            for kind, phrase in (
                ("whole", "cancel here"),
                ("signed", "absolute gap"),
                ("single", "average inside an interval first"),
                ("equal", "weighs the same"),
                ("empty", "number of intervals"),
                ("worst", "largest gap"),
                ("squared", "are squared"),
                ("label", "probability of the guess"),
                ("left", "upper end"),
            )
        ),
    ),
    Exercise(
        id="10.7",
        title="Experiment: a probe that starts from words",
        minutes=25,
        difficulty=4,
        contract="`probe_from_words(weights, pictures, labels, scale, pull)`: (K, D), (N, D), (N,) int64, two floats -> the best W (K, D).",
        hints=(
            "With two pictures per class a probe fits them and forgets what the words said. What would hold it back?",
            "Minimise mean cross entropy of scale * pictures @ W.T plus pull * ((W - weights) ** 2).sum() over W; convex, so there is one minimum.",
            "W = weights.clone().requires_grad_(); LBFGS([W], max_iter=200, line_search_fn='strong_wolfe'); step(closure); return W.detach()",
        ),
        solution=probe_from_words,
        check=check_probe_from_words,
        covers="two settings, against the minimum",
        seconds=15.0,
        wrong=(
            (_probe_with(pull_to="zero"), "goes to zero"),
            (_probe_with(pulled=False), "nothing pulls"),
            (_probe_with(steps=0), "words unchanged"),
            (_probe_with(steps=3), "stopped early"),
            (_probe_with(scaled=False), "`scale` is missing"),
            (_probe_with(reduction="sum"), "was summed"),
            (_probe_with(pulled="mean"), "averaged; their sum"),
            (_probe_with(give=lambda W, start: F.normalize(W, dim=1)), "back to length 1"),
            (_probe_with(give=lambda W, start: W - start), "the change"),
        ),
    ),
    Exercise(
        id="10.8",
        title="Your own label set",
        minutes=45,
        difficulty=5,
        open=True,
        contract="Choose pictures and a list of names the model was never tuned for; write prompts, choose them on one part, report on another.",
        hints=(
            "Which names does the training text use for your classes, and which never occur in it?",
            "A greedy choice: start with the best template on val, add the one that helps the ensemble most, stop when none does.",
        ),
        self_check=(
            "Did the test pictures take part in any choice, of a word, a template or a threshold?",
            "Are there controls with permuted names and with chance, and do they fail?",
            "How many examples per class does a probe on the same vectors need to do as well?",
            "What does the classifier answer for a picture that is none of your classes?",
        ),
    ),
)

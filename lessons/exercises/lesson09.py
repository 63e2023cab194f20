"""Lesson 09, multimodal embeddings: six exercises, an experiment, and an open one."""

import math
from functools import partial

import torch
import torch.nn.functional as F

from .engine import Exercise, Wrong
from .expect import call, expect_equal, expect_tensor, seeded


def _unit_by_loops(x):
    return torch.stack([row / math.sqrt(sum(v * v for v in row.tolist())) for row in x])


def _two_clouds(n, m, D, distance, seed=0):
    """Vectors of very different lengths whose directions form two clouds."""
    away = F.normalize(seeded(D, seed=seed), dim=0) * distance
    a = (seeded(n, D, seed=seed + 1) + away) * torch.linspace(0.2, 5, n)[:, None]
    b = (seeded(m, D, seed=seed + 2) - away) * torch.linspace(3, 0.5, m)[:, None]
    return a, b


# 9.1


def modality_gap(a, b):
    """(gap, null): the distance between the mean unit vectors of a (N, D) and b (M, D), and the gap that chance alone
    would show, sqrt(1 / N + 1 / M); the vectors have any length and are normalised first. -> two floats"""
    gap = (F.normalize(a, dim=1).mean(0) - F.normalize(b, dim=1).mean(0)).norm().item()
    return gap, math.sqrt(1 / len(a) + 1 / len(b))


def _gap_wrong(kind):
    def gap(a, b):
        n, m = len(a), len(b)
        u, v = F.normalize(a, dim=1), F.normalize(b, dim=1)
        null = math.sqrt(1 / n + 1 / m)
        if kind == "raw":
            return (a.mean(0) - b.mean(0)).norm().item(), null
        if kind == "after":
            return (F.normalize(a.mean(0), dim=0) - F.normalize(b.mean(0), dim=0)).norm().item(), null
        if kind == "pairs":
            return torch.cdist(u, v).mean().item(), null
        if kind == "columns":
            return (F.normalize(a, dim=0).mean(0) - F.normalize(b, dim=0).mean(0)).norm().item(), null
        value = (u.mean(0) - v.mean(0)).norm().item()
        squared = value**2 if kind == "squared" else value
        nulls = {"equal": math.sqrt(2 / n), "root": 1 / n + 1 / m, "sum": math.sqrt(1 / (n + m))}
        return squared, nulls.get(kind, null)

    return gap


def check_modality_gap(candidate):
    for n, m, D, distance in ((40, 25, 6, 0.8), (12, 30, 3, 0.0), (7, 9, 16, 2.0)):
        a, b = _two_clouds(n, m, D, distance, seed=n)
        got = call(candidate, a, b)
        if not isinstance(got, (tuple, list)) or len(got) != 2:
            raise Wrong(f"modality_gap must return two floats (gap, null); came {type(got).__name__}.")
        u, v = _unit_by_loops(a), _unit_by_loops(b)
        want = math.sqrt(sum((float(u[:, d].sum()) / n - float(v[:, d].sum()) / m) ** 2 for d in range(D)))
        null = math.sqrt(1 / n + 1 / m)
        sentences = {
            "raw": "the vectors were not normalised: the long ones decide where the mean lies",
            "after": "each vector is normalised before the mean is taken, not the mean itself",
            "pairs": "this is the mean distance between pairs; the gap is the distance between the two means",
            "columns": "the columns were normalised (dim 0); each vector is a row",
            "squared": "this is the squared distance",
        }
        causes = {sentence: _gap_wrong(kind)(a, b)[0] for kind, sentence in sentences.items()}
        causes["the order is (gap, null)"] = null
        expect_equal(got[0], want, f"the gap of {n} and {m} vectors", atol=1e-5, causes=causes)
        causes = {
            "this is right for two sets of one size; here there are N and M": math.sqrt(2 / n),
            "the square root is missing": 1 / n + 1 / m,
            "variances of two means add up: 1 / N + 1 / M, not 1 / (N + M)": math.sqrt(1 / (n + m)),
        }
        expect_equal(got[1], null, f"the null value for {n} and {m} vectors", causes=causes)


# 9.2


def shift_gap(a, b, amount):
    """Move two sets of unit vectors a (N, D), b (M, D) towards each other by `amount` times the gap vector
    mean(a) - mean(b), a against it and b along it, and bring them back to length 1. -> (N, D), (M, D)"""
    gap = a.mean(0) - b.mean(0)
    return F.normalize(a - amount * gap, dim=1), F.normalize(b + amount * gap, dim=1)


def _shift_wrong(kind):
    def shift(a, b, amount):
        gap = a.mean(0) - b.mean(0)
        if kind == "direction":
            gap = F.normalize(gap, dim=0)
        left, right = a - amount * gap, b + amount * gap
        if kind == "away":
            left, right = a + amount * gap, b - amount * gap
        if kind == "same":
            right = b - amount * gap
        if kind == "one":
            right = b
        if kind == "half":
            left, right = a - amount / 2 * gap, b + amount / 2 * gap
        if kind == "step":  # the second set is moved by what is left of the gap after the first
            right = b + amount * (left.mean(0) - b.mean(0))
        return (left, right) if kind == "long" else (F.normalize(left, dim=1), F.normalize(right, dim=1))

    return shift


def check_shift_gap(candidate):
    for n, m, D, amount in ((8, 12, 3, 0.3), (30, 20, 5, 0.5), (15, 15, 8, -0.4)):
        a, b = (F.normalize(x, dim=1) for x in _two_clouds(n, m, D, 0.9, seed=D))
        gap = [float(a[:, d].sum()) / n - float(b[:, d].sum()) / m for d in range(D)]
        move = lambda x, sign, gap=gap, amount=amount: torch.stack(  # noqa: E731
            [torch.tensor([v + sign * amount * g for v, g in zip(row, gap, strict=True)]) for row in x.tolist()]
        )
        want = _unit_by_loops(move(a, -1)), _unit_by_loops(move(b, 1))
        got = call(candidate, a, b, amount)
        if not isinstance(got, (tuple, list)) or len(got) != 2:
            raise Wrong(f"shift_gap must return both sets, (N, D) and (M, D); came {type(got).__name__}.")
        sentences = {
            "long": "the shifted vectors are not of length 1 any more: normalise them again",
            "away": "the sign is turned: this widens the gap",
            "same": "both sets moved the same way: the gap stays as it is",
            "one": "both sets move, each by `amount` times the gap",
            "half": "`amount` counts for each side: at 0.5 the means meet half-way",
            "direction": "the gap vector was brought to length 1; its length says how far to go",
            "step": "the gap is measured once, before anything moves",
        }
        for part, name in ((0, "a"), (1, "b")):
            ways = [kind for kind in sentences if part == 0 or kind != "away"]  # a has moved the right way by now
            causes = {sentences[kind]: _shift_wrong(kind)(a, b, amount)[part] for kind in ways}
            expect_tensor(got[part], want[part], f"{name} after shift_gap(a, b, {amount})", causes=causes)


# 9.3


def hub_skew(similarity, k):
    """(N_k, skewness): for similarities (Q, G), how many queries (rows) have each item (column) among their k most
    similar, int64 (G,), and the skewness of these counts: the mean of (c - mean)^3 over std^3, std without
    correction, a float."""
    nearest = similarity.topk(k, dim=1).indices
    counts = torch.bincount(nearest.flatten(), minlength=similarity.shape[1])
    c = counts.double() - counts.double().mean()
    return counts, (c.pow(3).mean() / c.square().mean().pow(1.5)).item()


def _hubs_wrong(kind):
    def hubs(similarity, k):
        S = similarity.T if kind == "turned" else similarity
        nearest = S.topk(min(k, S.shape[1]), dim=1, largest=kind != "smallest").indices
        if kind == "first":
            nearest = S.argmax(1)
        counts = torch.bincount(nearest.flatten(), minlength=0 if kind == "short" else S.shape[1])
        if kind == "share":
            return counts / len(S), hub_skew(similarity, k)[1]
        c = counts.double() - counts.double().mean()
        spread = c.square().sum() / (len(c) - 1) if kind == "corrected" else c.square().mean()
        skew = (c.pow(3).mean() / spread.pow(1.5)).item()
        if kind == "unscaled":
            skew = c.pow(3).mean().item()
        return counts, skew

    return hubs


def _hub_fixture(Q, G, D, seed):
    """Cosines of queries with items, one of which nobody chooses, the last, and some that everybody likes."""
    q, g = F.normalize(seeded(Q, D, seed=seed) + 0.6, dim=1), F.normalize(seeded(G, D, seed=seed + 1), dim=1)
    g[-1] = -F.normalize(q.mean(0), dim=0)
    return q @ g.T


def check_hub_skew(candidate):
    for Q, G, k in ((20, 12, 3), (9, 15, 2), (14, 14, 5)):
        S = _hub_fixture(Q, G, 6, seed=Q)
        counts = [0] * G
        for row in S.tolist():
            for item in sorted(range(G), key=lambda j, row=row: -row[j])[:k]:
                counts[item] += 1
        mean = sum(counts) / G
        spread = math.sqrt(sum((c - mean) ** 2 for c in counts) / G)
        skew = sum((c - mean) ** 3 for c in counts) / G / spread**3
        got = call(candidate, S, k)
        if not isinstance(got, (tuple, list)) or len(got) != 2:
            raise Wrong(f"hub_skew must return (N_k, skewness); came {type(got).__name__}.")
        sentences = {
            "turned": "the queries are the rows: take the k largest of each row, not of each column",
            "smallest": "these are the k least similar items",
            "first": "only the nearest item was counted; each query names k of them",
            "short": "items that nobody chooses are missing at the end: bincount needs minlength=G",
            "share": "N_k is a count; it was divided by the number of queries",
        }
        causes = {text: _hubs_wrong(kind)(S, k)[0] for kind, text in sentences.items()}
        expect_tensor(got[0], torch.tensor(counts), f"N_{k} of {G} items for {Q} queries", causes=causes)
        causes = {
            "the standard deviation was taken with N - 1": _hubs_wrong("corrected")(S, k)[1],
            "the third moment must be divided by the cube of the standard deviation": _hubs_wrong("unscaled")(S, k)[1],
            "this is the skewness of the similarities, not of N_k": _skew_of(S.flatten()),
        }
        expect_equal(got[1], skew, f"the skewness of N_{k}", atol=1e-4, causes=causes)


def _skew_of(values):
    c = values.double() - values.double().mean()
    return (c.pow(3).mean() / c.square().mean().pow(1.5)).item()


# 9.4


def csls(similarity, k):
    """2 s(q, g) - r(q) - r(g) for cosines (Q, G): r(q) is the mean of the k largest cosines of row q, r(g) that of
    column g. -> (Q, G)"""
    of_queries = similarity.topk(k, dim=1).values.mean(dim=1, keepdim=True)
    of_items = similarity.topk(k, dim=0).values.mean(dim=0, keepdim=True)
    return 2 * similarity - of_queries - of_items


def _csls_wrong(kind):
    def scaled(similarity, k):
        S = similarity
        q = S.topk(k, dim=1, largest=kind != "smallest").values.mean(1, keepdim=True)
        g = S.topk(k, dim=0, largest=kind != "smallest").values.mean(0, keepdim=True)
        if kind == "all":
            q, g = S.mean(1, keepdim=True), S.mean(0, keepdim=True)
        if kind == "sum":
            q, g = q * k, g * k
        if kind == "largest":
            q, g = S.amax(1, keepdim=True), S.amax(0, keepdim=True)
        if kind == "queries":
            return 2 * S - q
        if kind == "once":
            return S - q - g
        if kind == "plus":
            return 2 * S + q + g
        if kind == "swapped":  # falls over where Q is not G, as it should
            return 2 * S - q.T - g.T if S.shape[0] == S.shape[1] else 2 * S - q - g
        return 2 * S - q - g

    return scaled


def check_csls(candidate):
    fixture = torch.tensor([[0.9, 0.6, 0.2], [0.8, 0.78, 0.1], [0.7, 0.2, 0.66]])
    for S, k in ((fixture, 2), (_hub_fixture(5, 8, 4, seed=3), 3), (_hub_fixture(9, 6, 4, seed=5), 4)):
        rows = S.tolist()
        q = [sum(sorted(row)[-k:]) / k for row in rows]
        g = [sum(sorted(row[j] for row in rows)[-k:]) / k for j in range(len(rows[0]))]
        want = torch.tensor([[2 * s - q[i] - g[j] for j, s in enumerate(row)] for i, row in enumerate(rows)])
        sentences = {
            "smallest": "r is the mean of the k smallest here; it takes the largest",
            "all": "r is the mean over everything here; only the k largest count",
            "sum": "r is a sum here; it is the mean of the k largest",
            "largest": "r is the largest cosine alone here; it is the mean of the k largest",
            "queries": "the items' own term is missing, and that is the one that takes hubs down",
            "once": "the cosine counts twice: 2 s - r(q) - r(g)",
            "plus": "the signs are turned: who is near to everybody is marked down",
            "swapped": "r(q) and r(g) are exchanged: r(q) belongs to the row",
        }
        causes = {text: _csls_wrong(kind)(S, k) for kind, text in sentences.items()}
        what = f"csls of {len(rows)} queries with {len(rows[0])} items, k {k}"
        expect_tensor(call(candidate, S, k), want, what, causes=causes)


# 9.5


def mean_cosine(x):
    """Mean cosine of two different vectors of x (N, D), of any length, without the N x N table of cosines: the squared
    length of the sum of the unit vectors is N plus the sum over all ordered pairs. -> float"""
    n = len(x)
    total = F.normalize(x, dim=1).sum(0).square().sum().item()
    return (total - n) / (n * (n - 1))


def _cone_wrong(kind):
    def cone(x):
        n, u = len(x), F.normalize(x, dim=1)
        total = (x if kind == "raw" else u).sum(0).square().sum().item()
        return {
            "raw": (total - n) / (n * (n - 1)),
            "diagonal": total / n**2,
            "half": (total - n) / (n * (n - 1) / 2),
            "denominator": (total - n) / n**2,
            "root": (math.sqrt(total) - n) / (n * (n - 1)),
            "length": u.mean(0).norm().item(),
        }[kind]

    return cone


def check_mean_cosine(candidate):
    for n, D, offset in ((6, 4, 0.5), (15, 3, 2.0), (2, 5, 0.0)):
        x = (seeded(n, D, seed=n) + offset) * torch.linspace(0.3, 4, n)[:, None]
        u = _unit_by_loops(x).tolist()
        cosines = [sum(p * q for p, q in zip(u[i], u[j], strict=True)) for i in range(n) for j in range(n) if i != j]
        sentences = {
            "raw": "the vectors were not normalised: these are no cosines",
            "diagonal": "each vector was compared with itself, too: take N off, and divide by N (N - 1)",
            "half": "the square of the sum holds each pair twice, so divide by N (N - 1), not by half of it",
            "denominator": "there are N (N - 1) ordered pairs, not N^2",
            "root": "it is the square of the length of the sum that is N plus the cosines",
            "length": "this is the length of the mean vector; the mean cosine is close to its square",
        }
        causes = {text: _cone_wrong(kind)(x) for kind, text in sentences.items()}
        expect_equal(call(candidate, x), sum(cosines) / len(cosines), f"mean_cosine of {n}", atol=1e-5, causes=causes)


# 9.6


def log_mel(frames, window, filters, floor=1e-6):
    """frames (F, N) of a sound, window (N,), filters (1 + N // 2, M) -> log-mel spectrogram (M, F): window, real
    Fourier transform, squared magnitude, filters, natural logarithm of at least `floor`."""
    power = torch.fft.rfft(frames * window).abs().square()
    return (power @ filters).clamp(min=floor).log().T


def _mel_wrong(kind):
    def mel(frames, window, filters, floor=1e-6):
        spectrum = torch.fft.rfft(frames if kind == "window" else frames * window)
        power = spectrum.abs() if kind == "amplitude" else spectrum.abs().square()
        if kind == "real":
            power = spectrum.real.square()
        if kind == "early":
            return (power.clamp(min=floor).log() @ filters).T
        mel = power @ filters
        if kind == "linear":
            return mel.T
        if kind == "silence":
            return mel.log().T
        if kind == "plus":
            return (mel + 1).log().T
        if kind == "decibel":
            return (10 * mel.clamp(min=floor).log10()).T
        result = mel.clamp(min=floor).log()
        return result if kind == "time" else result.T

    return mel


def _tones(count, size, seed):
    """Frames with a tone each, of different pitch and loudness; the last one is silent."""
    time = torch.arange(size) / size
    pitch = torch.linspace(1.3, size / 2 - 2, count)[:, None]
    frames = torch.linspace(2, 0.1, count)[:, None] * torch.sin(2 * math.pi * pitch * time + seed)
    frames[-1] = 0
    return frames


def check_log_mel(candidate):
    for count, size, bands, floor in ((5, 16, 4, 1e-6), (4, 32, 6, 1e-4), (6, 24, 3, 1e-5)):
        frames, window = _tones(count, size, 0.4), torch.hann_window(size)
        filters = seeded(1 + size // 2, bands, seed=bands).abs()
        rows = []
        for frame in (frames.double() * window.double()).tolist():
            power = []
            for f in range(1 + size // 2):
                angles = [2 * math.pi * f * t / size for t in range(size)]
                real = sum(x * math.cos(a) for x, a in zip(frame, angles, strict=True))
                imaginary = sum(x * math.sin(a) for x, a in zip(frame, angles, strict=True))
                power.append(real**2 + imaginary**2)
            mel = [sum(p * w for p, w in zip(power, column, strict=True)) for column in filters.T.tolist()]
            rows.append([math.log(max(m, floor)) for m in mel])
        sentences = {
            "window": "the window is missing: the cut ends of a frame sound like a click",
            "amplitude": "this is the magnitude; the power is its square",
            "real": "the real part alone depends on where in its swing the tone begins: take the magnitude",
            "early": "the logarithm comes after the filters: they add up powers",
            "linear": "the logarithm is missing",
            "silence": "silence has no logarithm: take at least `floor`",
            "plus": "at least `floor`, not plus one: quiet sounds would drown",
            "decibel": "these are decibels; the natural logarithm was asked for",
            "time": "time runs along the second axis: (M, F)",
        }
        args = frames, window, filters, floor
        causes = {text: partial(_mel_wrong(kind), *args) for kind, text in sentences.items()}
        causes["`floor` is given by the caller; here another one was used"] = partial(log_mel, frames, window, filters)
        what = f"log_mel of {count} frames of {size} samples in {bands} bands"
        expect_tensor(call(candidate, *args), torch.tensor(rows).T, what, atol=1e-3, rtol=1e-3, causes=causes)


# 9.7


def centring_experiment(shifts, n=1000, dims=64, noise=0.5, seed=0):
    """Experiment: what a gap costs. For each s in shifts: unit vectors m (n, dims) of normal numbers are meanings;
    x = m + noise * e + s * c and y = m + noise * f - s * c, brought to length 1, with e, f (n, dims) normal numbers
    over sqrt(dims) and one unit vector c. Row i of x asks for row i of y. -> {s: (R@1, R@1 after centring x and y,
    each with its own mean and normalised again)}, floats"""
    results = {}
    for s in shifts:
        generator = torch.Generator().manual_seed(seed)
        m, e, f = torch.randn(3, n, dims, generator=generator)
        c = F.normalize(torch.randn(dims, generator=generator), dim=0)
        m, e, f = F.normalize(m, dim=1), e / math.sqrt(dims), f / math.sqrt(dims)
        x, y = F.normalize(m + noise * e + s * c, dim=1), F.normalize(m + noise * f - s * c, dim=1)
        recall = []
        for a, b in ((x, y), (F.normalize(x - x.mean(0), dim=1), F.normalize(y - y.mean(0), dim=1))):
            recall.append((((a @ b.T).argmax(1)) == torch.arange(n)).float().mean().item())
        results[s] = tuple(recall)
    return results


def _experiment_wrong(kind):
    def experiment(shifts, n=1000, dims=64, noise=0.5, seed=0):
        results = {}
        for s in shifts:
            generator = torch.Generator().manual_seed(seed)
            m, e, f = torch.randn(3, n, dims, generator=generator)
            c = F.normalize(torch.randn(dims, generator=generator), dim=0)
            m, e, f = F.normalize(m, dim=1), e / math.sqrt(dims), f / math.sqrt(dims)
            other = s if kind == "same" else -s
            e, f = (e * math.sqrt(dims), f * math.sqrt(dims)) if kind == "loud" else (e, f)
            f = e if kind == "noise" else f
            x, y = m + noise * e + s * c, m + noise * f + other * c
            if kind != "long":
                x, y = F.normalize(x, dim=1), F.normalize(y, dim=1)
            mean = torch.cat([x, y]).mean(0)
            means = (mean, mean) if kind == "common" else (x.mean(0), y.mean(0))
            pairs = [(x, y), tuple(F.normalize(v - w, dim=1) for v, w in zip((x, y), means, strict=True))]
            if kind == "swapped":
                pairs = pairs[::-1]
            results[s] = tuple(((a @ b.T).argmax(1) == torch.arange(n)).float().mean().item() for a, b in pairs)
        return results

    return experiment


def check_centring_experiment(candidate):
    shifts, settings = (0.0, 1.0, 2.0), dict(n=800, dims=48, noise=0.9)
    names = ("same", "loud", "noise", "long", "common", "swapped")
    trials = [centring_experiment(shifts, **settings, seed=seed) for seed in (11, 12, 13)]
    got = call(candidate, shifts, *settings.values())
    if not isinstance(got, dict) or set(got) != set(shifts):
        came = f"a dict with the keys {list(got)}" if isinstance(got, dict) else type(got).__name__
        raise Wrong(f"centring_experiment must return a dict with the keys {list(shifts)}; came {came}.")
    for s in reversed(shifts):
        if not isinstance(got[s], (tuple, list)) or len(got[s]) != 2:
            raise Wrong(f"The entry for s = {s} must be (R@1, R@1 after centring), but is {got[s]!r}.")
        for part, what in ((0, "R@1"), (1, "R@1 after centring")):
            value, ours = sum(trial[s][part] for trial in trials) / 3, got[s][part]
            if not isinstance(ours, (int, float)) or not math.isfinite(ours):
                raise Wrong(f"{what} at s = {s} must be a finite number, but is {ours!r}.")
            if abs(ours - value) > 0.06:
                message = f"{what} at s = {s}: expected about {value:.2f} (three other seeds), came {ours:.2f}."
                others = {name: _experiment_wrong(name)(shifts, **settings) for name in names}
                raise Wrong(message, cause=_cause_of_recall(got, others), hint=3)


def _cause_of_recall(got, others):
    """The sentence for the mistake whose numbers are nearest to `got`, if they are near."""
    sentences = {
        "same": "both sides were moved the same way, so that there is no gap between them: x by +s c, y by -s c",
        "loud": "the noise is too loud: divide it by sqrt(dims), so that a noise vector has about length 1",
        "noise": "x and y carry the same noise, which makes partners easy to know again: draw e and f",
        "long": "x and y are not of length 1: then long items win by their length",
        "common": "each side is centred with its own mean; a common one leaves the gap as it is",
        "swapped": "the order is (R@1, R@1 after centring)",
    }

    def distance(name):
        values = [got[s][part] - others[name][s][part] for s in got for part in (0, 1)]
        return max(map(abs, values))

    try:
        best = min(sentences, key=distance)
        return (
            sentences[best] if distance(best) < 0.06 else "each row i of x asks for row i of y, by the largest cosine"
        )
    except (TypeError, KeyError, IndexError):
        return ""


def _phrased(make, *pairs):
    return tuple((make(kind), phrase) for kind, phrase in pairs)


EXERCISES = (
    Exercise(
        id="9.1",
        title="The gap, and its null value",
        minutes=10,
        difficulty=1,
        contract="`modality_gap(a, b)`: (N, D), (M, D) of any lengths -> (gap, null), two floats.",
        hints=(
            "What do I do first: bring the vectors to length 1, or take the mean?",
            "gap = | mean of a / |a| - mean of b / |b| |; null = sqrt(1 / N + 1 / M).",
            "normalise the rows of both; mean over dim 0; norm of the difference, as a Python number; the null value beside it",
        ),
        solution=modality_gap,
        check=check_modality_gap,
        covers="sets of different sizes, vectors of very different lengths, with and without a gap",
        wrong=_phrased(
            _gap_wrong,
            ("raw", "not normalised"),
            ("after", "before the mean"),
            ("pairs", "distance between the two means"),
            ("columns", "dim 0"),
            ("squared", "squared distance"),
            ("equal", "two sets of one size"),
            ("root", "square root is missing"),
            ("sum", "variances of two means"),
        ),
    ),
    Exercise(
        id="9.2",
        title="Shift the gap",
        minutes=10,
        difficulty=2,
        contract="`shift_gap(a, b, amount)`: unit vectors (N, D), (M, D) -> both, moved along the gap by `amount` and normalised again.",
        hints=(
            "Which way does a have to go, and which way b?",
            "a - amount * gap and b + amount * gap, with gap = mean(a) - mean(b), each row brought to length 1.",
            "the gap once, from the vectors as they came; subtract from a, add to b; normalise the rows of both; return both",
        ),
        solution=shift_gap,
        check=check_shift_gap,
        covers="sets of different sizes, closing half-way and part of the way, and widening",
        wrong=_phrased(
            _shift_wrong,
            ("long", "not of length 1"),
            ("away", "widens the gap"),
            ("same", "moved the same way"),
            ("one", "both sets move"),
            ("half", "counts for each side"),
            ("direction", "its length says"),
            ("step", "measured once"),
        ),
    ),
    Exercise(
        id="9.3",
        title="Count the hubs",
        minutes=15,
        difficulty=2,
        contract="`hub_skew(similarity, k)`: (Q, G) -> (N_k int64 (G,), skewness of N_k, a float).",
        hints=(
            "Who chooses whom: do the rows choose columns, or the columns rows? And what of an item that nobody chooses?",
            "N_k counts in how many rows a column is among the k largest. Its mean is always Q k / G. Skewness: E (c - mean)^3 / std^3.",
            "topk along dim 1, indices; flatten; bincount with minlength G; centre the counts; mean of cubes over (mean of squares)^1.5",
        ),
        solution=hub_skew,
        check=check_hub_skew,
        covers="more queries than items, fewer, as many, and an item that nobody chooses",
        wrong=_phrased(
            _hubs_wrong,
            ("turned", "the queries are the rows"),
            ("smallest", "least similar"),
            ("first", "names k of them"),
            ("short", "minlength"),
            ("share", "is a count"),
            ("corrected", "N - 1"),
            ("unscaled", "cube of the standard deviation"),
        ),
    ),
    Exercise(
        id="9.4",
        title="CSLS",
        minutes=15,
        difficulty=3,
        contract="`csls(similarity, k)`: cosines (Q, G) -> 2 s - r(q) - r(g), (Q, G).",
        hints=(
            "Which axis belongs to the query, and which to the item?",
            "r(q): mean of the k largest of a row, (Q, 1). r(g): mean of the k largest of a column, (1, G).",
            "topk along dim 1, mean, keepdim; topk along dim 0, mean, keepdim; twice the cosines minus both",
        ),
        solution=csls,
        check=check_csls,
        covers="a square table and two others, a hub that wins every row before",
        wrong=_phrased(
            _csls_wrong,
            ("smallest", "takes the largest"),
            ("all", "only the k largest count"),
            ("sum", "it is the mean"),
            ("largest", "the largest cosine alone"),
            ("queries", "items' own term"),
            ("once", "counts twice"),
            ("plus", "signs are turned"),
            ("swapped", "exchanged"),
        ),
    ),
    Exercise(
        id="9.5",
        title="How narrow is the cone?",
        minutes=15,
        difficulty=3,
        contract="`mean_cosine(x)`: (N, D) of any lengths -> mean cosine of two different vectors, a float, without an N x N table.",
        hints=(
            "A million vectors would have a million million cosines. Can I have their sum without them?",
            "|u_1 + ... + u_N|^2 = N + the sum of u_i . u_j over all ordered pairs i != j.",
            "normalise the rows; sum over dim 0; squared length; minus N; divided by N (N - 1)",
        ),
        solution=mean_cosine,
        check=check_mean_cosine,
        covers="two vectors and more, wide and narrow cones, different lengths",
        wrong=_phrased(
            _cone_wrong,
            ("raw", "no cosines"),
            ("diagonal", "compared with itself"),
            ("half", "each pair twice"),
            ("denominator", "ordered pairs"),
            ("root", "square of the length"),
            ("length", "length of the mean vector"),
        ),
    ),
    Exercise(
        id="9.6",
        title="Log-mel",
        minutes=20,
        difficulty=3,
        contract="`log_mel(frames, window, filters, floor=1e-6)`: (F, N), (N,), (1 + N // 2, M) -> (M, F).",
        hints=(
            "In which order: window, transform, power, filters, logarithm? And what is the logarithm of silence?",
            "rfft of (F, N) gives complex (F, 1 + N // 2); its squared magnitude times the filters is (F, M).",
            "frames times window; rfft; abs; square; matrix product with the filters; clamp from below; log; transpose",
        ),
        solution=log_mel,
        check=check_log_mel,
        covers="three sizes, tones of different loudness, and silence, against sums of cosines and sines",
        wrong=_phrased(
            _mel_wrong,
            ("window", "the window is missing"),
            ("amplitude", "the power is its square"),
            ("real", "real part alone"),
            ("early", "after the filters"),
            ("linear", "logarithm is missing"),
            ("plus", "not plus one"),
            ("decibel", "decibels"),
            ("time", "second axis"),
        ),
    ),
    Exercise(
        id="9.7",
        title="Experiment: what a gap costs",
        minutes=25,
        difficulty=4,
        contract="`centring_experiment(shifts, n=1000, dims=64, noise=0.5, seed=0)` -> {s: (R@1, R@1 after centring)}.",
        hints=(
            "If all x move one way and all y the other, does the order of the cosines change at all?",
            "x = m + noise e + s c, y = m + noise f - s c, both of length 1. It is the normalisation that makes hubs of those y that lie least far off.",
            "draw m, e, f, c; divide e and f by sqrt(dims); build x and y for each s; share of rows whose largest cosine is on the diagonal; again with x and y minus their own means, normalised",
        ),
        solution=centring_experiment,
        check=check_centring_experiment,
        covers="three shifts, within the spread of three other seeds",
        wrong=(
            *_phrased(
                _experiment_wrong,
                ("same", "moved the same way"),
                ("loud", "noise is too loud"),
                ("noise", "same noise"),
                ("common", "with its own mean"),
                ("swapped", "the order is"),
            ),
            (lambda shifts, n=1000, dims=64, noise=0.5, seed=0: {"s": (1.0, 1.0)}, "must return a dict with the keys"),
        ),
    ),
    Exercise(
        id="9.8",
        title="A fourth sense",
        minutes=45,
        difficulty=5,
        open=True,
        contract="Bind another view of the scenes to pictures alone, such as `Scenes.depth` or the outlines of `Scenes.masks()`, and ask with words.",
        hints=(
            "Which of the things that sentences name can my sense perceive at all, and which can it not?",
            "A small tower, unit vectors, the loss against frozen picture vectors, as in section 4. Depth knows no colour: ask for shapes alone.",
        ),
        self_check=(
            "Did you write down beforehand what your sense will know and what it cannot know?",
            "Is there a control with shuffled pairs, and does it fail?",
            "Were the tested pairs, and their captions, kept out of every training?",
            "Does sound now find your sense, although nobody ever paired the two?",
        ),
    ),
)

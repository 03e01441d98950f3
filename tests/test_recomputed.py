"""Numbers of the toy run's tables and figures, computed again from its stored predictions without the library."""

import json
import re
from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats

MODELS = ["toy-random", "toy-simclr", "toy-supervised"]
PAIRS = [("toy-random", "toy-simclr"), ("toy-random", "toy-supervised"), ("toy-simclr", "toy-supervised")]
NORMAL = stats.norm.ppf(0.975)
POINTS = {"1-per-class": 10, "2-per-class": 20, "all": 1000}
"""Points of the label-efficiency curves, and the labelled images of each."""


class Run:
    """Files of the toy run, as anybody would read them."""

    def __init__(self, folder):
        self.results, self.suite = folder / "results", folder / "results" / "toy"
        self.scores = self.table("scores")

    def table(self, name):
        numbers = {column: [""] for column in ("low", "high", "p", "p_adjusted", "pearson", "n")}
        return pd.read_csv(self.suite / "tables" / f"{name}.csv", keep_default_na=False, na_values=numbers)

    def reported(self, model, protocol, dataset="digits", setting="", metric=None):
        wanted = {"model": model, "protocol": protocol, "dataset": dataset, "setting": setting}
        wanted |= {"metric": metric} if metric else {}
        (row,) = self.scores[(self.scores[list(wanted)] == list(wanted.values())).all(axis=1)].to_dict("records")
        return row

    def score(self, protocol, model):
        return json.loads((self.results / "scores" / protocol / model / "digits.json").read_text())

    def predictions(self, protocol, model, dataset="digits"):
        return np.load(self.results / "predictions" / protocol / model / f"{dataset}.npz")

    def right(self, protocol, model, dataset="digits"):
        found = self.predictions(protocol, model, dataset)
        return found["test_scores"].argmax(axis=1) == found["test_labels"], found["test_labels"]

    def features(self, model):
        (path,) = (self.results / "features" / model / "digits").glob("*.npy")
        return np.load(path).astype(float)

    def images(self):
        """Labels of all images of digits, and the rows of training and of test images."""
        index = pd.read_parquet(self.results / "datasets" / "digits" / "index.parquet")
        test = index["split"].eq("test").to_numpy()
        return index["label"].to_numpy(), np.flatnonzero(~test), np.flatnonzero(test)

    def pairs(self, protocol):
        """Rows of the table of pairs of models on digits under a protocol, by model and other model."""
        found = self.table("pairs")
        found = found[found["protocol"].eq(protocol) & found["dataset"].eq("digits")]
        return {(row["model"], row["other"]): row for row in found.to_dict("records")}


@pytest.fixture(scope="module")
def run(finished):
    return Run(finished)


def wilson(share, n):
    """Ends of Wilson's interval: the proportions that a score test at 5 % just does not reject."""
    return sorted(np.roots([1 + NORMAL**2 / n, -2 * share - NORMAL**2 / n, share**2]).real)


def holm(p):
    """Adjusted p-values from the definition: a pair is told apart only if all with smaller p-values are."""
    order = sorted(range(len(p)), key=p.__getitem__)
    steps = [min(1, (len(p) - place) * p[i]) for place, i in enumerate(order)]
    return [max(steps[: order.index(i) + 1]) for i in range(len(p))]


def softmax(logits):
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def calibration_error(logits, labels):
    probabilities = softmax(logits)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = [(confidence > b / 15) & (confidence <= (b + 1) / 15) for b in range(15)]
    return 100 * sum(abs(right[own].sum() - confidence[own].sum()) for own in bins) / len(labels)


def temperature(logits, labels):
    """Minimum of the log-loss of softmax(logits / T), where its slope is 0; else the nearer end of 0.001 to 1000."""

    def slope(log):
        return np.mean(np.sum(softmax(logits / np.exp(log)) * logits, axis=1) - logits[np.arange(len(labels)), labels])

    ends = np.log([1e-3, 1e3])
    if slope(ends[0]) * slope(ends[1]) < 0:
        return np.exp(optimize.brentq(slope, *ends, xtol=1e-12))
    return 1e-3 if slope(ends[0]) <= 0 else 1e3


def vote(features, labels, pool, queries, k):
    """Classes that the k nearest images of the pool vote for, by exp(cosine / 0.07); no image votes for itself."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    similar = unit[queries] @ unit[pool].T
    similar[queries[:, None] == pool] = -np.inf
    nearest = np.argsort(-similar, axis=1, kind="stable")[:, :k]
    every, shares = np.arange(len(queries)), np.zeros((len(queries), labels.max() + 1))
    for place in nearest.T:
        shares[every, labels[pool][place]] += np.exp(similar[every, place] / 0.07)
    return shares.argmax(axis=1)


def curve(run, model, prefix=""):
    """Points of a label-efficiency curve: images, mean over draws, and the ends of Student's t interval over draws."""
    draws, points = run.score("toy-labels", model)["details"]["draws"], []
    for setting in ("1-per-class", "2-per-class"):
        values = np.array(draws[prefix + setting])
        half = stats.t.ppf(0.975, 2) * values.std(ddof=1) / np.sqrt(3)
        points.append((POINTS[setting], values.mean(), max(values.mean() - half, 0), values.mean() + half))
    if not prefix:
        right, _ = run.right("toy-linear", model)
        points.append((POINTS["all"], *(100 * np.array([right.mean(), *wilson(right.mean(), len(right))]))))
    return np.array(points)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("protocol", ["toy-linear", "toy-finetune"])
def test_accuracy_and_its_interval(run, protocol, model):
    row, (right, _) = run.reported(model, protocol), run.right(protocol, model)
    assert len(right) == 797 and row["value"] == pytest.approx(100 * right.mean())
    assert [row["low"], row["high"]] == pytest.approx([100 * end for end in wilson(right.mean(), 797)])


@pytest.mark.parametrize("model", MODELS)
def test_mean_per_class(run, model):
    row, (right, labels) = run.reported(model, "toy-linear", "textures"), run.right("toy-linear", model, "textures")
    classes = [right[labels == c] for c in np.unique(labels)]
    assert row["value"] == pytest.approx(100 * np.mean([own.mean() for own in classes]))
    generator = np.random.default_rng(1)
    means = [np.mean([own[generator.integers(len(own), size=len(own))].mean() for own in classes]) for _ in range(2000)]
    assert row["high"] - row["low"] == pytest.approx(2 * NORMAL * 100 * np.std(means), rel=0.1)
    assert row["low"] < row["value"] < row["high"]


@pytest.mark.parametrize("model", MODELS)
def test_nearest_neighbours(run, model):
    labels, pool, test = run.images()
    for k in (5, 20):
        row = run.reported(model, "toy-knn", setting=f"{k}-nn", metric="top1")
        assert row["value"] == pytest.approx(
            100 * np.mean(vote(run.features(model), labels, pool, test, k) == labels[test])
        )


@pytest.mark.parametrize("model", MODELS)
def test_few_shot_mean_and_interval(run, model):
    row, episodes = run.reported(model, "toy-fewshot", setting="5-shot"), run.score("toy-fewshot", model)["episodes"]
    accuracies = 100 * np.array(episodes["5-shot"]["correct"]) / (5 * 15)
    mean, half = accuracies.mean(), 1.96 * accuracies.std() / np.sqrt(50)
    assert len(accuracies) == 50
    assert [row["low"], row["value"], row["high"]] == pytest.approx([mean - half, mean, mean + half])


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("kind", ["linear", "finetune"])
def test_calibration_errors(run, kind, model):
    protocol = {"linear": "toy-calibration", "finetune": "toy-finetune-calibration"}[kind]
    found = run.predictions(f"toy-{kind}", model)
    logits, labels = found["test_scores"].astype(float), found["test_labels"]
    of_validation = temperature(found["validation_scores"].astype(float), found["validation_labels"])
    # The official code fits on one fifth of the test images and measures on the others.
    fifths, errors = np.random.RandomState(0).permutation(797)[:795].reshape(5, 159), []
    for number, own in enumerate(fifths):
        rest = np.delete(fifths, number, axis=0).ravel()
        errors.append(calibration_error(logits[rest] / temperature(logits[own], labels[own]), labels[rest]))
    expected = {
        kind: calibration_error(logits, labels),
        f"{kind}-scaled": np.mean(errors),
        f"{kind}-scaled-validation": calibration_error(logits / of_validation, labels),
    }
    reported = {setting: run.reported(model, protocol, setting=setting)["value"] for setting in expected}
    assert reported == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("model", MODELS)
def test_label_efficiency(run, model):
    for prefix in ("", "knn-"):
        for setting, (_, *expected) in zip(POINTS, curve(run, model, prefix), strict=False):
            row = run.reported(model, "toy-labels", setting=prefix + setting)
            assert [row["value"], row["low"], row["high"]] == pytest.approx(expected)
    images, heights = np.log2(list(POINTS.values())), curve(run, model)[:, 1]
    area = np.sum(np.diff(images) * (heights[1:] + heights[:-1]) / 2) / np.ptp(images)
    assert run.reported(model, "toy-labels", setting="area")["value"] == pytest.approx(area)


def log_evidence(features, target):
    """Highest log evidence per image of a Bayesian linear model, searched over both precisions."""
    left, singular, _ = np.linalg.svd(features, full_matrices=False)
    kept = singular > 1e-6 * singular[0]
    projected, squares, n = left[:, kept].T @ target, singular[kept] ** 2, len(target)

    def loss(logs):
        alpha, beta = np.exp(logs)
        weights = beta * projected * np.sqrt(squares) / (alpha + beta * squares)
        missed = target @ target - projected @ projected + np.sum((projected - np.sqrt(squares) * weights) ** 2)
        evidence = len(squares) * logs[0] + n * logs[1] - beta * missed - alpha * weights @ weights
        return -(evidence - np.log(alpha + beta * squares).sum() - n * np.log(2 * np.pi)) / 2

    search = {"method": "Nelder-Mead", "options": {"xatol": 1e-10, "fatol": 1e-10, "maxiter": 5000}}
    return -min(optimize.minimize(loss, start, **search).fun for start in ((0, 2), (6, 2), (-4, 2))) / n


@pytest.mark.parametrize("model", MODELS)
def test_estimators(run, model):
    labels, pool, _ = run.images()
    features, labels = run.features(model)[pool], labels[pool]
    one_hot, n = np.eye(10)[labels], len(pool)
    centred = features - features.mean(axis=0)
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    left = left[:, singular > 1e-6 * singular[0]]
    targets = np.linalg.svd(one_hot - one_hot.mean(axis=0), full_matrices=False)[0][:, :9]
    spectrum = np.linalg.svd(features, compute_uv=False)
    shares = spectrum / spectrum.sum() + 1e-7
    sums = one_hot.T @ features
    alone = [
        np.argmin(
            [np.sum((x - (sums[c] - x * (c == own)) / (np.sum(labels == c) - (c == own))) ** 2) for c in range(10)]
        )
        for x, own in zip(features, labels, strict=True)
    ]
    seed = np.sort(np.random.RandomState(0).permutation(n)[:300])  # images of the leave-one-out vote
    expected = {
        "h-score": np.linalg.norm(left.T @ targets) ** 2 - 9 * left.shape[1] / (n - 1),
        "log-me": np.mean([log_evidence(features, target) for target in one_hot.T]),
        "rank-me": np.exp(-np.sum(shares * np.log(shares))),
        "stable-rank": np.sum(singular**2) / singular[0] ** 2,
        "ncm": 100 * np.mean(alone == labels),
        "knn-loo": 100 * np.mean(vote(features, labels, seed, seed, 20) == labels[seed]),
    }
    reported = {metric: run.reported(model, "toy-estimators", metric=metric)["value"] for metric in expected}
    assert reported == pytest.approx(expected, rel=1e-4)


def unbiased_hsic(first, second):
    """Song et al. (2012), equation 5, from the n x n matrices of inner products."""
    n, k, m = len(first), first @ first.T, second @ second.T
    np.fill_diagonal(k, 0)
    np.fill_diagonal(m, 0)
    return (np.sum(k * m) + k.sum() * m.sum() / (n - 1) / (n - 2) - 2 / (n - 2) * k.sum(0) @ m.sum(0)) / (n * (n - 3))


@pytest.mark.parametrize(("model", "other"), PAIRS)
def test_similarity(run, model, other):
    _, _, test = run.images()
    a, b = run.features(model)[test], run.features(other)[test]
    found = run.table("similarity-toy-estimators-digits").set_index(["model", "other"]).loc[model, other]
    assert found["value"] == pytest.approx(
        unbiased_hsic(a, b) / np.sqrt(unbiased_hsic(a, a) * unbiased_hsic(b, b)), 1e-5
    )
    assert found["low"] <= found["value"] <= found["high"]


@pytest.mark.parametrize("protocol", ["toy-linear", "toy-finetune"])
def test_pairs_of_classifiers(run, protocol):
    """McNemar's exact test with Holm's adjustment, and Tango's interval as the values that his test does not reject."""
    found, right = run.pairs(protocol), {model: run.right(protocol, model)[0] for model in MODELS}
    counts = {(a, b): (np.sum(right[a] & ~right[b]), np.sum(right[b] & ~right[a])) for a, b in PAIRS}
    p = [stats.binomtest(int(b), int(b + c)).pvalue for b, c in counts.values()]
    assert list(found) == PAIRS
    for (pair, (b, c)), own, adjusted in zip(counts.items(), p, holm(p), strict=True):
        row = found[pair]
        assert row["difference"] == pytest.approx(100 * (b - c) / 797)
        assert [row["p"], row["p_adjusted"]] == pytest.approx([own, adjusted])
        assert row["better"] == ("" if adjusted >= 0.05 else pair[0] if b > c else pair[1])
        for end in ("low", "high"):
            assert abs(tango(b, c, 797, row[end] / 100)) == pytest.approx(NORMAL, rel=1e-5)


def tango(b, c, n, difference):
    """Tango's statistic: the distance of a difference from the observed one, in its standard errors under it.

    The discordant share is at its maximum likelihood, which is searched for.
    """

    def loss(q):  # q: share of images that only the second model has right
        return -(b * np.log(q + difference) + c * np.log(q) + (n - b - c) * np.log(1 - 2 * q - difference))

    ends = (max(0, -difference) + 1e-12, (1 - difference) / 2 - 1e-12)
    q = optimize.minimize_scalar(loss, bounds=ends, method="bounded", options={"xatol": 1e-12}).x
    return (b - c - n * difference) / np.sqrt(n * (2 * q + difference * (1 - difference)))


def test_pairs_over_episodes(run):
    found = run.pairs("toy-fewshot")
    shares = {m: np.array(run.score("toy-fewshot", m)["episodes"]["5-shot"]["correct"]) / 0.75 for m in MODELS}
    tests = [stats.ttest_rel(shares[a], shares[b]) for a, b in PAIRS]
    assert list(found) == PAIRS
    for pair, test, adjusted in zip(PAIRS, tests, holm([test.pvalue for test in tests]), strict=True):
        row, ends = found[pair], test.confidence_interval()
        assert [row["p"], row["p_adjusted"], row["low"], row["high"]] == pytest.approx([test.pvalue, adjusted, *ends])


def test_ranks_and_correlations(run):
    """Digits are the source, so that linear textures are the only task: its ranks, and all permutations of 3 models."""
    source = {model: 100 * run.right("toy-linear", model)[0].mean() for model in MODELS}
    score = {model: run.reported(model, "toy-linear", "textures")["value"] for model in MODELS}
    ranks = run.table("mean-ranks").set_index("model")["mean_rank"]
    assert ranks.to_dict() == (-pd.Series(score)).rank().to_dict()
    x, y = (np.log(np.array(list(v.values())) / (100 - np.array(list(v.values())))) for v in (source, score))
    table = run.table("correlations")
    (row,) = table[table["protocol"].eq("toy-linear") & table["dataset"].eq("textures")].to_dict("records")
    for name, function in (("pearson", stats.pearsonr), ("spearman", stats.spearmanr), ("kendall", stats.kendalltau)):
        r = function(x, y).statistic
        p = np.mean([abs(function(x[list(order)], y).statistic) >= abs(r) - 1e-9 for order in permutations(range(3))])
        assert [float(row[name]), float(row[f"{name}_p"])] == pytest.approx([r, p])
    assert row["note"] == "3 models: no interval"


def drawn(svg, name):
    """Points of the lines of a figure, in its units, by the ids of their groups."""
    found = re.findall(rf'<g id="{name}_\d+">\s*<path d="([^"]*)" clip-path', svg)
    return [np.array(re.findall(r"[ML] ([-\d.]+) ([-\d.]+)", line), float) for line in found]


def test_figure_of_label_efficiency(run):
    """Every point and every interval that is drawn, up to the scale of the axes."""
    svg = (run.suite / "figures" / "label-efficiency.svg").read_text()
    curves = [curve(run, model, prefix)[:, :2] for prefix in ("", "knn-") for model in MODELS]
    intervals = [[(x, low), (x, high)] for model in MODELS for x, _, low, high in curve(run, model)]
    groups = re.findall(r'<g id="LineCollection_\d+">.*?</g>', svg, re.DOTALL)
    bars = [np.array(re.findall(r"[ML] ([-\d.]+) ([-\d.]+)", line), float)
            for group in groups for line in re.findall(r'<path d="([^"]*)"', group)]  # fmt: skip
    for lines, own in ((drawn(svg, "line2d"), curves), (bars, intervals)):
        own = sorted((np.array(points) for points in own), key=lambda points: (len(points), points[0, 0], points[0, 1]))
        lines = sorted(lines, key=lambda line: (len(line), line[0, 0], -line[0, 1]))  # y grows downwards
        assert [len(line) for line in lines] == [len(points) for points in own]
        (x, y), (images, values) = np.concatenate(lines).T, np.concatenate(own).T
        for place, value in ((x, np.log2(images)), (y, values)):
            slope, start = np.polyfit(value, place, 1)
            assert start + slope * value == pytest.approx(place, abs=1e-3)


def test_captions_name_the_units_of_the_intervals_that_are_drawn(run):
    captions = json.loads((run.suite / "figures" / "captions.json").read_text())
    units = {"transfer": "test images", "scatter-linear": "test images", "calibration": "test images"}
    units |= {"label-efficiency": "draws of the labelled images, over test images"}
    for name, over in units.items():
        assert f"Thin lines: 95 % intervals over {over}" in captions[name]
    shown = [name for name in captions if name.startswith("predictors-transfer-")]
    assert shown and all("Thin lines: 95 % intervals over test images" in captions[name] for name in shown)
    assert "mAP" not in " ".join(captions.values())


def test_data_of_the_interactive_scatter(run):
    """Log-odds of linear textures against digits, with the ends of the intervals."""
    data = json.loads((run.suite / "figures" / "explorer.json").read_text())
    (view,) = (view for view in data["views"] if view["label"] == "Many-shot linear · Textures")

    def log_odds(percent):
        return np.log(percent / (100 - percent))

    assert [model["label"] for model in data["models"]] == ["Random", "SimCLR", "Supervised"]
    for number, model in enumerate(MODELS):
        row, right = run.reported(model, "toy-linear", "textures"), run.right("toy-linear", model)[0]
        place, y, low, high, _ = view["points"][number]
        assert place == number
        assert [y, low, high] == pytest.approx([log_odds(row[end]) for end in ("value", "low", "high")], abs=1e-4)
        assert view["predictors"][0]["points"][number][1] == pytest.approx(log_odds(100 * right.mean()), abs=1e-4)

"""Coverage and error rates of the comparisons of models, by simulation; prints the table of `coverage_pairs.md`.

    uv run python benchmarks/coverage_pairs.py > benchmarks/coverage_pairs.md

Takes some minutes on one core. Models of a simulation have equal or slightly different abilities and err on the same
hard images, as real ones do. "Error of one test" is the share of p-values below 0.05 where two models are equal, "error
of any test" that of simulations in which any of all pairs of equal models is called better.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy.special import expit
from scipy.stats import binom

from ssltransfer.analysis.pairs import compare_models
from ssltransfer.analysis.ranking import datasets_like_these, mean_ranks, these_datasets
from ssltransfer.results.outcome_file import Outcome
from ssltransfer.results.scores import Task

MODELS = 6
PAIRS = MODELS * (MODELS - 1) // 2


def probabilities(rng, images: int, spread: float, abilities: np.ndarray, level: float) -> np.ndarray:
    """Chance of each model (rows) to get each image right; `spread` is that of the images' difficulty."""
    return expit(level + abilities[:, None] + spread * rng.normal(size=images))


def outcome(values: np.ndarray, **more) -> Outcome:
    """Outcome of answers (by class with `strata`), or of whatever `more` says instead."""
    if "strata" in more:
        value = 100 * np.mean([values[more["strata"] == c].mean() for c in np.unique(more["strata"])])
    else:
        value = more["value"] if "value" in more else more.get("scale", 100.0) * values.mean()
    settings = {"metric": "top1", "setting": "", "units": "test images", "identity": "", "scale": 100.0}
    return Outcome(**settings | {"value": float(value), "values": values} | more)


def summarise(name: str, simulate: Callable, runs: int) -> str:
    """One row: coverage of the intervals of differences, and errors of one and of any test."""
    covered, one, many, width = [], [], [], []
    for run in range(runs):
        found, truth = simulate(np.random.default_rng([run, 7]))
        pairs = found.pairs
        covered.append(((pairs["low"] <= truth) & (truth <= pairs["high"])).mean())
        width.append((pairs["high"] - pairs["low"]).mean() / 2)
        equal = np.abs(truth) < 1e-9
        one.append((pairs["p"][equal] < 0.05).sum() / max(1, equal.sum()))
        many.append((pairs["p_adjusted"][equal] < 0.05).any())
    errors = f"{np.mean(one):.3f} | {np.mean(many):.3f}" if equal.any() else "– | –"
    return f"| {name} | {np.mean(covered):.3f} | {np.mean(width):.2f} | {errors} | {runs} |"


def pairs_of(values: np.ndarray) -> np.ndarray:
    i, j = np.triu_indices(len(values), 1)
    return values[i] - values[j]


def top1(images: int, spread: float, level: float) -> Callable:
    def simulate(rng):
        p = probabilities(rng, images, spread, np.zeros(MODELS), level)
        right = rng.random(p.shape) < p
        return compare_models({f"m{i}": outcome(own) for i, own in enumerate(right)}), np.zeros(PAIRS)

    return simulate


def per_class(sizes: np.ndarray, spread: float, level: float, gap: float = 0.0) -> Callable:
    strata = np.repeat(np.arange(len(sizes)), sizes)
    abilities = gap * np.arange(MODELS)

    def simulate(rng):
        by_class = level + rng.normal(size=len(sizes))
        hard = spread * rng.normal(size=(len(strata), 1))
        p = expit(by_class[strata][:, None] + hard + abilities).T
        nodes, weights = np.polynomial.hermite_e.hermegauss(30)
        mean = expit(by_class[:, None, None] + spread * nodes[:, None] + abilities)
        truth = 100 * (mean * (weights / weights.sum())[:, None]).sum(1).mean(0)
        right = rng.random(p.shape) < p
        return compare_models({f"m{i}": outcome(own, strata=strata) for i, own in enumerate(right)}), pairs_of(truth)

    return simulate


def episodes(count: int) -> Callable:
    def simulate(rng):
        p = probabilities(rng, count, 0.5, np.zeros(MODELS), 1.0)
        correct = rng.binomial(75, p)
        scale = 100 / 75
        found = compare_models({f"m{i}": outcome(own, scale=scale) for i, own in enumerate(correct)})
        return found, np.zeros(PAIRS)

    return simulate


def average_precision(order: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """11-point interpolated AP of a ranking on resamples; `weights` has shape (resamples, images)."""
    w = weights[:, order]
    hits = np.cumsum(w * truth[order], axis=1)
    precision = hits / np.maximum(np.cumsum(w, axis=1), 1)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    recall = hits / np.maximum(hits[:, -1:], 1)
    points = [best[np.arange(len(w)), np.minimum((recall < r).sum(1), w.shape[1] - 1)] for r in np.linspace(0, 1, 11)]
    return 100 * np.mean(points, axis=0)


def bootstrap(images: int, resamples: int, models: int = 4) -> Callable:
    """11-point AP of one class with a fifth of positives; equal models, so that the true differences are 0."""

    def simulate(rng):
        truth = (rng.random(images) < 0.2).astype(float)
        shared = rng.normal(size=images)
        weights = np.random.default_rng(0).multinomial(images, np.full(images, 1 / images), resamples)
        outcomes = {}
        for i in range(models):
            order = np.argsort(-(2 * truth + 0.8 * shared + 0.6 * rng.normal(size=images)))
            value = average_precision(order, truth, np.ones((1, images)))[0]
            replicates = average_precision(order, truth, weights)
            outcomes[f"m{i}"] = outcome(np.empty(0), value=float(value), replicates=replicates, metric="map11")
        return compare_models(outcomes), np.zeros(models * (models - 1) // 2)

    return simulate


def mid_p(images: int, spread: float, level: float, runs: int) -> str:
    """Error of McNemar's test, exact and mid-p, at 0.05 and at the first threshold of Holm for 91 pairs."""
    rates = {}
    for run in range(runs):
        rng = np.random.default_rng([run, 3])
        p = probabilities(rng, images, spread, np.zeros(MODELS), level)
        right = rng.random(p.shape) < p
        i, j = np.triu_indices(MODELS, 1)
        b, c = (right[i] & ~right[j]).sum(1), (right[j] & ~right[i]).sum(1)
        exact = np.minimum(1, 2 * binom.cdf(np.minimum(b, c), b + c, 0.5))
        mid = exact - np.where(b == c, 0.5, 1) * binom.pmf(np.minimum(b, c), b + c, 0.5)
        for name, values in (("exact", exact), ("mid-p", mid)):
            for limit in (0.05, 0.05 / 91):
                rates.setdefault((name, limit), []).append((values < limit).mean())
    texts = [f"{np.mean(rates[name, limit]):.2g}" for name in ("exact", "mid-p") for limit in (0.05, 0.05 / 91)]
    return f"| {images}, level {level} | {' | '.join(texts)} |"


def matrix(values: np.ndarray, metric: str = "top1") -> pd.DataFrame:
    tasks = [Task("p", "linear", f"d{i}", "", metric) for i in range(values.shape[1])]
    names = [f"m{i}" for i in range(len(values))]
    return pd.DataFrame(values, names, pd.MultiIndex.from_tuples(tasks))


def ranks(datasets: int, models: int, runs: int) -> str:
    """Datasets like these: coverage of mean ranks by t and percentiles, and of all rank sets together."""
    abilities = np.linspace(0, 1, models)
    draw = np.random.default_rng(5)
    many = abilities + draw.normal(size=(20000, models))
    truth = models + 1 - (np.argsort(np.argsort(many, axis=1), axis=1) + 1)
    truth, by_t, by_percentile, sets = truth.mean(0), [], [], []
    for run in range(runs):
        rng = np.random.default_rng([run, 11])
        values = matrix((abilities + rng.normal(size=(datasets, models))).T)
        found = mean_ranks(values).reindex(values.index)
        by_t.append(((found["low"] <= truth) & (truth <= found["high"])).mean())
        own = values.rank(ascending=False).to_numpy()
        drawn = own[:, rng.integers(0, datasets, (500, datasets))].mean(2)
        low, high = np.percentile(drawn, [2.5, 97.5], axis=1)
        by_percentile.append(((low <= truth) & (truth <= high)).mean())
        order = datasets_like_these(values).rank_sets()
        true_rank = models - np.arange(models)
        sets.append(((order["low"] <= true_rank) & (true_rank <= order["high"])).all())
    return f"| {datasets}, {models} models | {np.mean(by_percentile):.3f} | {np.mean(by_t):.3f} | {np.mean(sets):.3f} |"


def these(datasets: int, models: int, runs: int) -> str:
    """These datasets: share of simulations of nearly equal models in which all rank sets hold the true ranks."""
    held = []
    for run in range(runs):
        rng = np.random.default_rng([run, 13])
        truth = rng.normal(size=(models, datasets)) + 0.02 * np.arange(models)[:, None]
        error = rng.uniform(0.05, 0.2, datasets)
        values = matrix(truth + error * rng.normal(size=truth.shape))
        noise = {
            Task(*task): pd.DataFrame(np.eye(models) * own**2, values.index, values.index)
            for task, own in zip(values, error, strict=True)
        }
        found = these_datasets(values, noise).rank_sets()
        rank = models + 1 - (np.argsort(np.argsort(truth.mean(1))) + 1)
        held.append(((found["low"] <= rank) & (rank <= found["high"])).all())
    return f"| {datasets}, {models} models | {np.mean(held):.3f} |"


def main() -> None:
    print("# Comparison of models: coverage and error rates\n")
    print("Written by `benchmarks/coverage_pairs.py`. Nominal: coverage 0.95, errors at most 0.05.\n")
    print(
        "| Outcomes | Coverage | Half width | Error of one test | Error of any test | Runs |\n|---|---|---|---|---|---|"
    )
    few = np.full(40, 20)
    uneven = np.r_[np.ones(10, int), np.full(20, 5), np.full(20, 30)]
    rows = (
        ("top-1, 800 images, 73 % right", top1(800, 2.0, 1.5), 400),
        ("top-1, 800 images, 97 % right", top1(800, 1.0, 4.0), 400),
        ("top-1, 100 images, 90 % right", top1(100, 1.0, 2.5), 400),
        ("mean per class, 40 classes of 20", per_class(few, 2.0, 1.0), 300),
        ("mean per class, 50 classes of 1, 5 and 30", per_class(uneven, 2.0, 1.0), 300),
        ("the same, models that differ", per_class(uneven, 2.0, 1.0, 0.3), 300),
        ("mean per class, 97 % right", per_class(uneven, 1.0, 4.5), 1500),
        ("600 episodes", episodes(600), 400),
        ("6 images, paired t", episodes(6), 400),
        ("11-point AP, 1,000 images, 1,000 resamples", bootstrap(1000, 1000), 200),
        ("11-point AP, 300 images, 1,000 resamples", bootstrap(300, 1000), 300),
    )
    for name, simulate, runs in rows:
        print(summarise(name, simulate, runs), flush=True)
    print("\n## McNemar's test: error of one test\n")
    print("| Images | exact, 0.05 | exact, 0.05 / 91 | mid-p, 0.05 | mid-p, 0.05 / 91 |\n|---|---|---|---|---|")
    for images, spread, level in ((800, 2.0, 1.5), (800, 1.0, 4.0), (100, 1.0, 2.5)):
        print(mid_p(images, spread, level, 4000), flush=True)
    print("\n## Data sets like these\n")
    print("| Data sets | Mean rank, percentiles | Mean rank, t | All rank sets |\n|---|---|---|---|")
    for datasets in (5, 11, 18):
        print(ranks(datasets, 8, 400), flush=True)
    print("\n## These data sets\n\n| Data sets | All rank sets |\n|---|---|")
    for datasets in (2, 11):
        print(these(datasets, 8, 1000), flush=True)


if __name__ == "__main__":
    main()

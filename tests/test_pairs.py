import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from ssltransfer.analysis import paired_tests
from ssltransfer.analysis.cell_outcomes import NO_OUTCOMES, STALE, cell_outcomes
from ssltransfer.analysis.paired_tests import holm, max_t, tango_lower
from ssltransfer.analysis.pairs import COLUMNS, compare_cells, compare_models, count_wins, read_better, same_images
from ssltransfer.errors import InputError
from ssltransfer.results.outcome_file import Outcome, save_outcomes
from ssltransfer.results.outcome_header import outcome_path
from ssltransfer.results.scores import Task, tidy

TASK = Task("p", "linear", "d", "", "top1")


def outcome(values=(), strata=(), replicates=(), **more):
    values, strata = np.asarray(values), np.asarray(strata, int)
    if "value" not in more:
        groups = [values[strata == c].mean() for c in np.unique(strata)] if strata.size else [values.mean()]
        more["value"] = float(100 * np.mean(groups))
    fixed = {"metric": "top1", "setting": "", "units": "test images", "identity": "a", "scale": 100.0}
    return Outcome(**fixed | more, values=values, strata=strata, replicates=np.asarray(replicates, np.float32))


def answers(models, images, seed=0, level=0.0, spread=1.5):
    """Right or wrong answers of equal models that err on the same images."""
    rng = np.random.default_rng(seed)
    chance = 1 / (1 + np.exp(-level - spread * rng.normal(size=images)))
    return rng.random((models, images)) < chance


def named(rows, **more):
    return {f"m{i}": outcome(row, **more) for i, row in enumerate(rows)}


def classes(images, count):
    return np.arange(images) % count


def test_top1_is_compared_by_the_exact_test_of_mcnemar():
    right = answers(4, 300)
    found = compare_models(named(right)).pairs
    for row, (a, b) in zip(found.itertuples(), itertools.combinations(right, 2), strict=True):
        only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
        assert row.p == pytest.approx(stats.binomtest(only_a, only_a + only_b).pvalue)
        assert row.difference == pytest.approx(100 * (a.mean() - b.mean()))
        assert row.low < row.difference < row.high
    assert found["p_adjusted"].to_numpy() == pytest.approx(holm(found["p"]))


def test_test_images_that_have_two_names_are_found():
    """And other ones of the same labels are not, nor those on which models make too few errors to tell."""
    right, other, easy = answers(3, 60), answers(3, 60, seed=1), np.ones((3, 60), bool)
    easy[:, 0] = False
    cells = {"a": right, "b": other, "copy-of-a": right[:2], "easy": easy, "easy-too": easy}
    twins = compare_cells((TASK._replace(dataset=name), named(rows)) for name, rows in cells.items()).twins
    assert twins == [("a", "copy-of-a")]
    assert same_images({TASK: {"m": 1}, TASK._replace(dataset="e", protocol="q"): {"m": 1}}) == []


def score_of_tango(delta, b, c, n):
    """Score statistic of a difference of paired proportions, with the nuisance parameter maximised numerically."""

    def minus_likelihood(q):
        p = q + delta
        both = 1 - p - q
        return -sum(k * np.log(max(x, 1e-300)) for k, x in ((b, p), (c, q), (n - b - c, both)))

    low, high = max(0, -delta), (1 - delta) / 2
    q = optimize.minimize_scalar(minus_likelihood, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
    return (b - c - n * delta) / np.sqrt(n * (2 * q + delta - delta**2))


@pytest.mark.parametrize(("b", "c", "n"), [(1, 7, 21), (30, 12, 200), (3, 40, 90)])
def test_score_interval_inverts_the_score_test(b, c, n):
    low, high = tango_lower(np.array([b]), np.array([c]), n)[0], -tango_lower(np.array([c]), np.array([b]), n)[0]
    assert score_of_tango(low, b, c, n) == pytest.approx(1.959964, abs=1e-3)
    assert score_of_tango(high, b, c, n) == pytest.approx(-1.959964, abs=1e-3)


def test_score_interval_of_a_published_example():
    """Hyperresponsive airways before and after transplantation (Fagerland, Lydersen and Laake 2014): 1, 7 of 21."""
    assert tango_lower(np.array([1]), np.array([7]), 21)[0] == pytest.approx(-0.517, abs=5e-4)
    assert -tango_lower(np.array([7]), np.array([1]), 21)[0] == pytest.approx(-0.026, abs=5e-4)


def test_mean_per_class_is_compared_by_class():
    right, strata = answers(3, 240, level=1.0), np.r_[0, np.full(9, 1), 2 + classes(230, 20)]
    found = compare_models(named(right, strata=strata))
    values = [100 * np.mean([row[strata == c].mean() for c in range(22)]) for row in right]
    for row, (a, b) in zip(found.pairs.itertuples(), itertools.combinations(values, 2), strict=True):
        assert row.difference == pytest.approx(a - b)
    # One class is top-1; its noise is that of the binomial up to the pseudo-images.
    one = compare_models(named(right, strata=np.zeros(240, int)))
    p = right.mean(axis=1)
    assert np.diagonal(one.covariance) == pytest.approx(1e4 * p * (1 - p) / 240, rel=0.05)
    flat = compare_models(named(right)).pairs
    assert one.pairs["low"].to_numpy() == pytest.approx(flat["low"].to_numpy(), abs=0.7)
    assert one.pairs["p"].to_numpy() == pytest.approx(flat["p"].to_numpy(), abs=0.06)


def test_noise_of_a_class_with_one_image_is_borrowed_from_the_others():
    strata = np.r_[np.arange(10), 10 + classes(200, 10)]
    right = answers(2, 210, level=1.0)
    found = compare_models(named(right, strata=strata))
    p = right.mean()
    assert np.diagonal(found.covariance).mean() > 0.5 * 1e4 * p * (1 - p) * 10 / 20**2


@pytest.mark.parametrize("discordant", [3, 8, 12])
def test_flips_of_few_images_are_enumerated(discordant):
    strata = np.repeat([0, 1, 2], [5, 15, 20])
    a, b = np.ones(40, bool), np.ones(40, bool)
    rng = np.random.default_rng(discordant)
    changed = rng.choice(40, discordant, replace=False)
    a[changed[:2]], b[changed[2:]] = False, False
    found = compare_models({"a": outcome(a, strata), "b": outcome(b, strata)}).pairs.iloc[0]
    parts = ((a * 1.0 - b) / np.array([5, 15, 20])[strata])[changed]
    flips = np.array(list(itertools.product((-1, 1), repeat=discordant))) @ parts
    exact = np.mean(np.abs(flips) >= abs(parts.sum()) - 1e-9)
    assert found["p"] == pytest.approx(exact, abs=1e-9 if discordant <= paired_tests.ENUMERATED else 0.03)


def test_episodes_are_compared_by_the_paired_t_test():
    rng = np.random.default_rng(0)
    hard = rng.integers(20, 70, 200)
    rows = [hard + rng.integers(0, 5, 200) for _ in range(3)]
    scale = 100 / 75
    outcomes = {f"m{i}": outcome(row, scale=scale, value=scale * row.mean()) for i, row in enumerate(rows)}
    found = compare_models(outcomes).pairs
    for row, (a, b) in zip(found.itertuples(), itertools.combinations(rows, 2), strict=True):
        expected = stats.ttest_rel(a * scale, b * scale)
        interval = expected.confidence_interval(0.95)
        assert row.p == pytest.approx(expected.pvalue)
        assert (row.low, row.high) == pytest.approx((interval.low, interval.high))
        assert row.difference == pytest.approx(scale * (a - b).mean())


def replicated(images=200, models=3, resamples=2000, shift=0.0):
    """Means of per-image values as bootstrap replicates, so that the t test is an independent check."""
    rng = np.random.default_rng(4)
    values = rng.normal(size=images) + 0.5 * rng.normal(size=(models, images)) + shift * np.arange(models)[:, None]
    weights = rng.multinomial(images, np.full(images, 1 / images), resamples)
    rows = [{"value": float(row.mean()), "replicates": weights @ row / images} for row in values]
    return values, {f"m{i}": outcome(**row, metric="map11") for i, row in enumerate(rows)}


def test_replicates_are_compared_by_the_paired_bootstrap():
    values, outcomes = replicated(shift=0.05)
    comparison = compare_models(outcomes)
    for row, (a, b) in zip(comparison.pairs.itertuples(), itertools.combinations(values, 2), strict=True):
        expected = stats.ttest_rel(a, b)
        interval = expected.confidence_interval(0.95)
        width = interval.high - interval.low
        assert (row.low, row.high) == pytest.approx((interval.low, interval.high), abs=0.06 * width)
        assert row.p == pytest.approx(expected.pvalue, abs=0.03)
        assert row.p_adjusted >= row.p
        assert (row.p < 0.05) == (not row.low <= 0 <= row.high)
    assert np.diagonal(comparison.covariance) == pytest.approx(values.var(axis=1, ddof=1) / 200, rel=0.1)


def test_basic_interval_reflects_the_replicates():
    draws = np.random.default_rng(0).exponential(size=999)
    found = compare_models(
        {"a": outcome(value=2.0, replicates=draws), "b": outcome(value=1.0, replicates=np.zeros(999))}
    ).pairs.iloc[0]
    low, high = 2 * 1.0 - np.percentile(draws.astype(np.float32), [97.5, 2.5])
    assert (found["difference"], found["low"], found["high"]) == pytest.approx((1.0, low, high), rel=1e-5)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]).size == 0


def test_max_t_steps_down():
    """Against the definition of Romano and Wolf, one pair after the other."""
    rng = np.random.default_rng(0)
    drawn = rng.normal(size=(4, 400))
    i, j = np.triu_indices(4, 1)
    difference, error = np.array([3.0, 0.1, -2.5, 0.0, 1.0, 4.0]), np.full(6, np.sqrt(2))
    p, adjusted = max_t(difference, error, drawn, joint=True)
    statistics = np.abs(drawn[i] - drawn[j]) / error[:, None]
    observed = np.abs(difference) / error
    worst, order = 0.0, np.argsort(-observed)
    for step, pair in enumerate(order):
        assert p[pair] == pytest.approx((1 + (statistics[pair] >= observed[pair]).sum()) / 401)
        largest = statistics[order[step:]].max(axis=0)
        worst = max(worst, (1 + (largest >= observed[pair]).sum()) / 401)
        assert adjusted[pair] == pytest.approx(worst)


def test_max_t_of_independent_pairs_is_that_of_sidak():
    rng = np.random.default_rng(0)
    drawn, error = rng.normal(size=(5, 20000)).astype(np.float32), np.full(10, np.sqrt(2))
    difference = np.linspace(1, 5, 10)
    p, adjusted = max_t(difference, error, drawn, joint=False)
    own = 2 * stats.norm.sf(difference / error)
    sidak = np.maximum.accumulate((1 - (1 - own) ** np.arange(1, 11))[::-1])[::-1]
    assert p == pytest.approx(own, abs=0.01) and adjusted == pytest.approx(sidak, abs=0.015)
    assert (max_t(difference, error, drawn, joint=True)[1] <= adjusted + 0.01).all()


FORMS = {
    "top1": lambda: named(answers(4, 120)),
    "per class": lambda: named(answers(4, 120), strata=classes(120, 7)),
    "episodes": lambda: named(answers(4, 120).reshape(4, 40, 3).sum(2)),
    "replicates": lambda: replicated(models=4, resamples=500)[1],
}


@pytest.mark.parametrize("form", FORMS)
def test_swapped_models_have_opposite_differences(form):
    outcomes = FORMS[form]()
    forth = compare_models(outcomes).pairs.set_index(["model", "other"])
    back = compare_models(dict(reversed(outcomes.items()))).pairs.set_index(["other", "model"]).loc[forth.index]
    assert back["difference"].to_numpy() == pytest.approx(-forth["difference"].to_numpy())
    assert back["low"].to_numpy() == pytest.approx(-forth["high"].to_numpy(), abs=1e-5)
    assert back["high"].to_numpy() == pytest.approx(-forth["low"].to_numpy(), abs=1e-5)
    for name in ("p", "p_adjusted"):
        tolerance = 0.05 if form == "per class" else 1e-9  # which flips are combined depends on the order of models
        assert back[name].to_numpy() == pytest.approx(forth[name].to_numpy(), abs=tolerance)
    assert (back["better"] == forth["better"]).all()


@given(st.integers(0, 500), st.sampled_from(["top1", "episodes", "per class"]))
def test_the_order_of_images_does_not_matter(seed, form):
    order = np.random.default_rng(seed).permutation(90)
    right, strata = answers(3, 90, seed), classes(90, 5) if form == "per class" else np.empty(0, int)
    rows = right.astype(int) * 3 if form == "episodes" else right
    found = compare_models(named(rows, strata=strata)).pairs
    moved = compare_models(named(rows[:, order], strata=strata[order] if strata.size else strata)).pairs
    for name in ("difference", "low", "high", "p", "p_adjusted"):
        tolerance = 0.08 if form == "per class" and name.startswith("p") else 1e-6
        assert moved[name].to_numpy() == pytest.approx(found[name].to_numpy(), abs=tolerance)


@pytest.mark.parametrize(("form", "strata"), [("top1", []), ("per class", classes(150, 25))])
def test_equal_models_are_rarely_called_better(form, strata, monkeypatch):
    monkeypatch.setattr(paired_tests, "FLIPS", 399)
    runs, alone, any_pair = 300, [], []
    for seed in range(runs):
        found = compare_models(named(answers(5, 150, seed, level=1.0), strata=strata)).pairs
        alone.append((found["p"] <= 0.05).mean())
        any_pair.append(found["better"].ne("").any())
    assert np.mean(alone) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / runs) / 2
    assert np.mean(any_pair) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / runs)


def test_the_direction_of_the_metric_decides_who_is_better():
    low, high = np.zeros(100), np.r_[np.ones(80), np.zeros(20)]
    for metric, better in (("psnr", "high"), ("mse-red", "low"), ("attentive-diffusion", "")):
        outcomes = {"low": outcome(low, metric=metric), "high": outcome(high, metric=metric)}
        assert compare_models(outcomes).pairs["better"].tolist() == [better]


@pytest.mark.parametrize("form", FORMS)
def test_two_identical_models_do_not_differ(form):
    first = next(iter(FORMS[form]().values()))
    row = compare_models({"a": first, "b": first}).pairs.iloc[0]
    assert (row["difference"], row["p"], row["p_adjusted"], row["better"]) == (0, 1, 1, "")
    assert row["low"] <= 0 <= row["high"]


@pytest.mark.parametrize("strata", [[], [0]])
def test_one_test_image_decides_nothing(strata):
    found = compare_models({"a": outcome([True], strata), "b": outcome([False], strata)})
    row = found.pairs.iloc[0]
    assert (row["p"], row["better"]) == (1, "")
    assert row["low"] <= 0 <= row["high"] and np.isnan(found.covariance).all()
    row = compare_models({"a": outcome([3]), "b": outcome([5])}).pairs.iloc[0]
    assert (row["p"], row["better"]) == (1, "") and np.isnan([row["low"], row["high"]]).all()


@pytest.mark.parametrize("form", FORMS)
def test_one_model_has_no_pairs(form):
    first = next(iter(FORMS[form]().items()))
    assert compare_models(dict([first])).pairs.empty


@pytest.mark.parametrize(
    "other",
    [
        outcome([True] * 9),
        outcome([True] * 10, identity="b"),
        outcome([2] * 10),
        outcome([True] * 10, strata=[0] * 10),
        outcome(value=1.0, replicates=np.ones(10)),
        outcome([True] * 10, metric="mean-per-class"),
    ],
)
def test_different_units_are_refused(other):
    with pytest.raises(InputError, match="linear cars top1: first and second"):
        compare_models({"first": outcome([True] * 10), "second": other}, "linear cars")


def test_outcomes_that_are_not_finite_are_not_compared():
    good = outcome(np.arange(5.0), metric="psnr")
    for numbers in ({"values": [np.inf, 1, 2, 3, 4]}, {"replicates": [np.nan, 1.0]}, {"replicates": []}):
        bad = outcome(value=1.0, metric="psnr", **numbers)
        with pytest.raises(InputError, match="inversion photographs: the outcomes of bad"):
            compare_models({"good": good, "bad": bad}, "inversion photographs")
        assert "bad" in compare_cells([(TASK, {"good": good, "bad": bad})]).missing[TASK]


def test_a_cell_that_cannot_be_compared_costs_itself_alone():
    good = named(answers(3, 50))
    bad = good | {"m1": replace(good["m1"], identity="other")}
    some = good | {"m2": "no outcomes", "m3": outcome(value=1.0, note="no median")}
    other = TASK._replace(dataset="e"), TASK._replace(dataset="f"), TASK._replace(dataset="g")
    found = compare_cells([(TASK, bad), (other[0], good), (other[1], some), (other[2], {"m0": "why", "m1": "why"})])
    assert found.pairs["dataset"].tolist() == [TASK.dataset] + ["e"] * 3 + ["f"]
    assert found.pairs.loc[0, ["model", "other"]].tolist() == ["m0", "m2"]
    assert list(found.pairs) == COLUMNS and set(found.covariances) == {TASK, *other[:2]}
    assert found.missing[TASK].startswith("m1: ")
    assert found.missing[other[1]] == "m2: no outcomes; m3: no median" and found.missing[other[2]] == "why"
    assert other[0] not in found.missing
    assert compare_cells([]).pairs.empty and list(compare_cells([]).pairs) == COLUMNS


@pytest.mark.parametrize(
    ("metric", "replicates"),
    [("map11", np.full((2, 9), [[50.0], [60.0]])), ("ece", np.random.default_rng(0).random((2, 9)))],
)
def test_resamples_that_tell_nothing_decide_nothing(metric, replicates):
    models = {"a": replicates[0], "b": replicates[1]}
    found = compare_cells(
        [(TASK, {name: outcome(value=own[0], replicates=own, metric=metric) for name, own in models.items()})]
    )
    assert found.pairs.empty and not found.covariances and found.missing[TASK]


def test_equal_differences_do_not_tell_their_scatter():
    row = compare_models({"a": outcome([0.1, 0.4, 0.3]), "b": outcome([0.2, 0.5, 0.4])}).pairs.iloc[0]
    assert (row["p"], row["better"]) == (1, "") and np.isnan([row["low"], row["high"]]).all()


def test_wins_are_counted_over_cells():
    rows = [("1", "a", "b", "a"), ("2", "a", "b", "b"), ("3", "a", "b", "a"), ("3", "a", "c", ""), ("4", "b", "z", "b")]
    rows.append(("3", "b", "c", "c"))
    pairs = pd.DataFrame(rows, columns=["dataset", "model", "other", "better"])
    pairs[[name for name in TASK._fields if name != "dataset"]] = ""
    wins, compared = count_wins(read_better(pairs).values(), ["c", "a", "b"])
    assert wins.to_numpy().tolist() == [[0, 0, 1], [0, 0, 2], [0, 1, 0]]
    assert compared.to_numpy().tolist() == [[0, 1, 1], [1, 0, 3], [1, 3, 0]]


def test_outcomes_are_read_with_the_scores_that_they_belong_to(tmp_path):
    files = {model: tmp_path / "scores/p" / model / "d.json" for model in "abcde"}
    rows = [TASK._asdict() | {"model": model, "value": 50.0, "source": "measured"} for model in files]
    rows.append(rows[0] | {"model": "printed", "source": "published-v1"})
    right = outcome([True, False])
    for model, own in (("a", right), ("b", replace(right, value=49.0)), ("d", replace(right, metric="accuracy"))):
        save_outcomes(outcome_path(files[model]), [own])
    outcome_path(files["e"]).parent.mkdir(parents=True)
    outcome_path(files["e"]).write_text("no outcomes")
    ((task, found),) = cell_outcomes(tidy(rows), list(files.values()))
    assert task == TASK and list(found) == list(files)
    assert found["a"].values.tolist() == [True, False]
    assert (found["b"], found["c"], found["d"]) == (STALE, NO_OUTCOMES, NO_OUTCOMES)
    assert str(outcome_path(files["e"])) in found["e"]

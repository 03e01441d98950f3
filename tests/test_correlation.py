import itertools
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from synthetic_suite import MODELS, suite

from ssltransfer.analysis.correlation import (
    COEFFICIENTS,
    EXACT_MODELS,
    correlate,
    correlation_interval,
    correlations,
    family_correlations,
    kendall,
    pearson,
    permutation_indices,
    permutation_p_value,
    spearman,
)
from ssltransfer.analysis.published import LABELS, published_models, published_scores
from ssltransfer.analysis.scale import CLIP, logit, to_analysis_scale
from ssltransfer.analysis.suite_results import suite_results
from ssltransfer.analysis.tasks import CONVENTIONS, TaskScores, panels, task_matrix, tasks_of
from ssltransfer.report.labels import suite_labels
from ssltransfer.report.statistics_tables import family_correlation_table
from ssltransfer.results.scores import tidy

vectors = st.integers(4, 12).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(-20, 20), min_size=n, max_size=n)] * 2).filter(
        lambda pair: min(np.ptp(pair[0]), np.ptp(pair[1])) > 0
    )
)


@given(st.floats(0.001, 0.999))
def test_logit_is_odd_and_inverts(p):
    assert logit(p) == pytest.approx(-logit(1 - p), abs=1e-9)
    assert 1 / (1 + math.exp(-logit(p))) == pytest.approx(p)


def test_logit_of_0_and_100_percent_is_that_of_half_a_printed_digit():
    assert logit([0.0, 1.0]).tolist() == pytest.approx([math.log(CLIP / (1 - CLIP)), math.log((1 - CLIP) / CLIP)])
    assert np.isnan(logit(np.nan))
    with pytest.raises(ValueError, match="from 0 to 1"):
        logit(1.5)


def test_analysis_scale_follows_the_metric():
    assert to_analysis_scale(50.0, "top1") == 0
    assert to_analysis_scale(0.5, "mean-iou") == 0
    assert to_analysis_scale(33.0, "mean-angle") == 33.0
    assert to_analysis_scale(50.0, "top1", raw=True) == 50.0


@given(vectors)
def test_coefficients_agree_with_scipy(pair):
    x, y = pair
    assert pearson(x, y) == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-9)
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-9)
    assert kendall(x, y) == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-9)


@given(vectors)
def test_ranks_ignore_monotone_transforms_and_order_of_models(pair):
    x, y = map(np.array, pair)
    assert spearman(x, np.exp(y / 10)) == pytest.approx(spearman(x, y))
    assert kendall(x, y**3) == pytest.approx(kendall(x, y))
    order = np.random.default_rng(0).permutation(len(x))
    for function in (pearson, spearman, kendall):
        assert function(x[order], y[order]) == pytest.approx(function(x, y))
        assert function(y, x) == pytest.approx(function(x, y))


def test_vectorised_over_leading_axes():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 7, 9))
    for function in (pearson, spearman, kendall):
        assert function(x, y) == pytest.approx([function(a, b) for a, b in zip(x, y, strict=True)])


def test_resampling_is_seeded_and_bounded():
    rng = np.random.default_rng(1)
    x = rng.normal(size=14)
    y = x + rng.normal(size=14)
    first, again = correlate(x, y), correlate(x, y)
    assert first == again
    for name in ("pearson", "spearman", "kendall"):
        assert -1 <= first[f"{name}_low"] <= first[name] <= first[f"{name}_high"] <= 1
        assert first[f"{name}_loo_low"] <= first[name] <= first[f"{name}_loo_high"]
        assert 0 < first[f"{name}_p"] <= 1
    assert first["pearson_p"] < 0.1


def test_leave_one_out_names_the_model():
    x = np.array([0, 1, 2, 3, 10.0])
    y = np.array([1, 0, 1, 0, 10.0])
    result = correlate(x, y)
    assert result["pearson_loo_low_without"] == 4
    assert result["pearson_loo_low"] == pytest.approx(stats.pearsonr(x[:4], y[:4]).statistic)


def test_few_models_have_exact_permutation_p_values():
    result = correlate([1, 2, 3, 4], [1, 2, 3, 4])
    assert result["pearson_p"] == pytest.approx(2 / 24)
    assert sorted(permutation_indices(14)[7]) == list(range(14))


def test_p_value_agrees_with_scipy():
    rng = np.random.default_rng(3)
    x = rng.normal(size=14)
    y = 0.5 * x + rng.normal(size=14)
    assert correlate(x, y)["pearson_p"] == pytest.approx(stats.pearsonr(x, y).pvalue, abs=0.02)


def test_pearson_interval_agrees_with_scipy():
    rng = np.random.default_rng(4)
    x = rng.normal(size=14)
    y = x + rng.normal(size=14)
    result = correlate(x, y)
    theirs = stats.pearsonr(x, y).confidence_interval(0.95)
    assert (result["pearson_low"], result["pearson_high"]) == pytest.approx(theirs, abs=1e-12)


def test_rank_intervals_by_hand():
    low, high = correlation_interval("spearman", 0.5, 10)
    below, above = 0.5 - 12 / 990, 0.5 + 12 / 990
    assert low == pytest.approx(np.tanh(np.arctanh(below) - 1.959964 * np.sqrt((1 + below**2 / 2) / 7)))
    assert high == pytest.approx(np.tanh(np.arctanh(above) + 1.959964 * np.sqrt((1 + above**2 / 2) / 7)))
    low, high = correlation_interval("kendall", -0.2, 10)
    assert low == pytest.approx(np.tanh(np.arctanh(-0.2 - 4 / 90) - 1.959964 * np.sqrt(0.437 / 6)))
    assert high == pytest.approx(np.tanh(np.arctanh(-0.2 + 4 / 90) + 1.959964 * np.sqrt(0.437 / 6)))


@given(st.sampled_from(sorted(COEFFICIENTS)), st.floats(-1, 1), st.integers(5, 200))
def test_intervals_contain_the_coefficient_and_are_symmetric(name, r, n):
    low, high = correlation_interval(name, r, n)
    assert -1 <= low <= r + 1e-9
    assert r - 1e-9 <= high <= 1
    assert correlation_interval(name, -r, n) == pytest.approx((-high, -low))


@pytest.mark.parametrize("name", ["spearman", "kendall"])
def test_a_perfect_rank_correlation_of_few_models_is_not_certain(name):
    low, high = correlation_interval(name, 1.0, 5)
    assert low < 0.1
    assert high == 1


def test_models_on_a_line_have_a_point_as_interval_and_a_note():
    result = correlate([1, 2, 3, 4, 6], [3, 5, 7, 9, 13])
    assert (result["pearson_low"], result["pearson_high"]) == pytest.approx((1, 1))
    assert "point" in result["note"]
    assert result["spearman_low"] < result["spearman_high"] == 1


@pytest.mark.parametrize("name", sorted(COEFFICIENTS))
@pytest.mark.parametrize("n", [5, 11])
def test_intervals_cover(name, n):
    rng = np.random.default_rng(0)
    rho = 0.8
    x, noise = rng.normal(size=(2, 4000, n))
    truth = {"pearson": rho, "spearman": 6 / np.pi * np.arcsin(rho / 2), "kendall": 2 / np.pi * np.arcsin(rho)}[name]
    low, high = correlation_interval(name, COEFFICIENTS[name](x, rho * x + np.sqrt(1 - rho**2) * noise), n)
    assert ((low <= truth) & (truth <= high)).mean() > 0.94


def test_all_permutations_are_enumerated_up_to_nine_models():
    x, y = np.array([1.0, 2, 2, 4, 7, 5]), np.array([2.0, 1, 3, 3, 6, 9])
    for name, theirs in (
        ("pearson", lambda a, b: stats.pearsonr(a, b).statistic),
        ("spearman", lambda a, b: stats.spearmanr(a, b).statistic),
        ("kendall", lambda a, b: stats.kendalltau(a, b).statistic),
    ):
        rs = np.abs([theirs(list(order), y) for order in itertools.permutations(x)])
        assert permutation_p_value(name, x, y) == pytest.approx((rs >= abs(theirs(x, y)) - 1e-9).mean())
    assert len(permutation_indices(EXACT_MODELS)) == math.factorial(EXACT_MODELS)


def test_random_permutations_never_give_zero():
    x = np.arange(30.0)
    p = permutation_p_value("pearson", x, x)
    assert p == 1 / (1 + len(permutation_indices(30)))


def test_p_values_are_uniform_without_correlation():
    rng = np.random.default_rng(5)
    x = rng.normal(size=7)
    p = np.array([permutation_p_value("spearman", x, rng.normal(size=7)) for _ in range(2000)])
    assert (p <= 0.05).mean() <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 2000)
    assert (p <= 0.5).mean() == pytest.approx(0.5, abs=0.04)


def test_leave_one_family_out_names_the_family():
    x = np.array([0, 1, 2, 3, 10, 11.0])
    y = np.array([1, 0, 1, 0, 10, 12.0])
    families = ["a", "a", "b", "c", "large", "large"]
    result = correlate(x, y, families)
    assert result["families"] == 4
    assert result["pearson_lofo_low_without"] == "large"
    assert result["pearson_lofo_low"] == pytest.approx(stats.pearsonr(x[:4], y[:4]).statistic)
    assert result["pearson_loo_low"] > result["pearson_lofo_low"]


def test_a_family_of_all_models_but_two_is_not_left_out():
    x, y = np.arange(6.0), np.array([1, 0, 3, 2, 5, 4.0])
    result = correlate(x, y, ["a", "a", "a", "a", "b", "c"])
    assert {result["pearson_lofo_low_without"], result["pearson_lofo_high_without"]} <= {"b", "c"}
    assert "pearson_lofo_low" not in correlate(x, y, ["a"] * 6)


def test_models_without_a_family_are_their_own():
    results = suite()
    families = {"supervised": "", "simclr": "contrastive", "simclr-textures": "contrastive"}
    row = correlations(results.tasks, families).iloc[0]
    assert row["families"] == 4
    named = {row[f"pearson_lofo_{end}_without"] for end in ("low", "high")}
    assert named <= {"random", "supervised", "contrastive", "swav"}
    assert results.correlations["families"].eq(4).all()


@pytest.mark.parametrize(
    ("x", "y", "note"),
    [
        ([1.0, 2.0], [1.0, 2.0], "fewer than 3 models"),
        ([1.0, 2.0, np.nan], [1.0, 2.0, 3.0], "fewer than 3 models, 1 without a source accuracy"),
        ([np.nan, np.nan], [1.0, np.nan], "fewer than 3 models, 1 without a source accuracy"),
        ([1.0, 2.0, 3.0], [0.1, 0.1, 0.1], "constant"),
        ([5.0, 5.0, 5.0], [1.0, 2.0, 3.0], "constant"),
    ],
)
def test_undefined_correlations_say_why(x, y, note):
    result = correlate(x, y)
    assert note in result["note"]
    assert "pearson" not in result


def test_models_without_the_cell_are_left_out():
    full = correlate([1, 2, 3, 5], [2, 1, 4, 5])
    gap = correlate([1, 2, 3, 5, np.nan], [2, 1, 4, 5, 9])
    assert gap == full
    assert correlate([np.nan, 1, 2, 3, 5, 6], [9, 2, 1, 4, 5, 7])["pearson_loo_low_without"] == 5


def test_few_models_have_no_intervals():
    found = [correlate(np.arange(n), np.arange(n) ** 2 % 5) for n in (3, 4, 5)]
    assert [result["note"] for result in found] == ["3 models: no interval", "4 models: no interval", ""]
    assert ["pearson_low" in result for result in found] == [False, False, True]
    assert all("pearson_p" in result for result in found)


def found(kind, task_rows, conventions="v2"):
    rows = [
        {"model": m, "protocol": kind, "kind": kind, "source": "measured"} | dict(zip(names, values, strict=True))
        for m in ("a", "b", "c")
        for names, values in [(("dataset", "setting", "metric", "value"), (*t, 50.0)) for t in task_rows]
    ]
    matrix = task_matrix(tidy(rows), ["a", "b", "c"])
    return panels(tasks_of(matrix.columns), CONVENTIONS[conventions])


def test_headline_metric_of_surface_normals_depends_on_the_version():
    tasks = [("nyuv2", "", "mean-angle"), ("nyuv2", "", "within-11.25")]
    assert [panel.tasks[0].metric for panel in found("normals", tasks)] == ["within-11.25"]
    assert [panel.tasks[0].metric for panel in found("normals", tasks, "v1")] == ["mean-angle"]


def test_few_shot_panels_split_by_benchmark_and_shot():
    tasks = [(d, f"{k}-shot", "accuracy") for d in ("cars", "isic") for k in (5, 20)]
    assert [panel.name for panel in found("fewshot", tasks)] == [
        "fewshot-5-shot", "fewshot-20-shot", "fewshot-cd-fsl-5-shot", "fewshot-cd-fsl-20-shot",
    ]  # fmt: skip
    assert [(panel.name, panel.benchmark) for panel in found("fewshot", tasks[2:], "v1")] == [("fewshot", "")]


def test_source_data_set_is_no_target():
    results = suite()
    assert results.leave_out == ("shapes",)
    rows = results.correlations
    assert set(rows["dataset"]) == {"digits", "textures", "average"}
    assert rows["n"].eq(len(MODELS)).all()
    assert rows["pearson"].notna().all()


def test_averages_are_averages_of_logits():
    results = suite()
    rows = results.correlations
    row = rows[(rows["kind"] == "linear") & (rows["dataset"] == "average")].iloc[0]
    linear = results.scores[results.scores["kind"] == "linear"].pivot(index="model", columns="dataset", values="value")
    mean = (logit(linear["digits"] / 100) + logit(linear["textures"] / 100)) / 2
    assert row["pearson"] == pytest.approx(stats.pearsonr(mean, logit(linear["shapes"] / 100)).statistic)


def test_a_missing_cell_is_left_out_of_its_task_and_its_average():
    results = suite()
    matrix = results.tasks.matrix.copy()
    matrix.iloc[0, 0] = np.nan
    rows = correlations(replace(results.tasks, matrix=matrix))
    assert rows.iloc[0]["n"] == len(MODELS) - 1
    average = rows[(rows["kind"] == "linear") & (rows["dataset"] == "average")].iloc[0]
    assert average["n"] == len(MODELS) - 1


def test_a_perfect_score_is_noted():
    results = suite()
    matrix = results.tasks.matrix.copy()
    matrix.iloc[1, 0] = 100.0
    rows = correlations(replace(results.tasks, matrix=matrix))
    assert rows.iloc[0]["note"] == "logit clipped for supervised"
    assert np.isfinite(rows.iloc[0]["pearson"])


def test_properties_are_averaged_over_data_sets_before_the_transform():
    rows = [
        {"model": m, "protocol": "calibration", "kind": "calibration", "dataset": d, "setting": "linear",
         "metric": "ece", "value": v, "source": "measured"}
        for m, values in (("a", (2.0, 4.0)), ("b", (3.0, 9.0)), ("c", (1.0, 2.0)))
        for d, v in zip(("digits", "shapes"), values, strict=True)
    ]  # fmt: skip
    matrix = task_matrix(tidy(rows), ["a", "b", "c"])
    assert matrix.iloc[:, 0].tolist() == [3.0, 6.0, 1.5]
    source = pd.Series([60.0, 70.0, 80.0], ["a", "b", "c"])
    row = correlations(TaskScores(matrix, source, CONVENTIONS["v2"])).iloc[0]
    assert row["pearson"] == pytest.approx(
        stats.pearsonr(logit(source / 100), logit(np.array([3.0, 6.0, 1.5]) / 100)).statistic
    )
    raw = correlations(TaskScores(matrix, source, CONVENTIONS["v1"])).iloc[0]
    assert raw["pearson"] == pytest.approx(stats.pearsonr(source, [3.0, 6.0, 1.5]).statistic)


def test_correlations_within_families_by_hand():
    results = suite_results(published_scores("v2"), published_models(), LABELS, {}, "v2")
    families = {row["model"]: row["family"] for row in published_models()}
    found = family_correlations(results.tasks, families)
    assert set(found["family"]) == {"contrastive", "clustering"}  # there is one supervised model
    row = found.query("panel == 'linear' and family == 'clustering'").iloc[0]
    own = [model for model in results.tasks.matrix.index if families[model] == "clustering"]
    tasks = list(next(panel for panel in results.tasks.panels if panel.name == "linear").tasks)
    percent = results.tasks.matrix.loc[own, tasks] / 100
    y = np.log(percent / (1 - percent)).mean(axis=1)
    source = np.array([float(r["source_accuracy"]) / 100 for r in published_models() if r["model"] in own])
    assert row["n"] == 5 and row["pearson"] == pytest.approx(np.corrcoef(np.log(source / (1 - source)), y)[0, 1])
    table = family_correlation_table(results, suite_labels(results))
    assert len(table.cells) == len(found) and table.row_labels[0] == "Many-shot linear"
    assert table.cells["Family"].tolist()[:2] == ["contrastive", "clustering"]
    few = suite_results(published_scores("v2"), published_models()[:8], LABELS, {}, "v2")
    assert family_correlation_table(few, suite_labels(few)) is None

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
    bootstrap_indices,
    correlate,
    correlations,
    kendall,
    pearson,
    permutation_indices,
    spearman,
)
from ssltransfer.analysis.scale import CLIP, logit, to_analysis_scale
from ssltransfer.analysis.tasks import CONVENTIONS, TaskScores, panels, task_matrix, tasks_of
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
    assert len(permutation_indices(5)) == 120
    assert sorted(permutation_indices(14)[7]) == list(range(14))


def test_p_value_agrees_with_scipy():
    rng = np.random.default_rng(3)
    x = rng.normal(size=14)
    y = 0.5 * x + rng.normal(size=14)
    assert correlate(x, y)["pearson_p"] == pytest.approx(stats.pearsonr(x, y).pvalue, abs=0.02)


def test_bootstrap_interval_agrees_with_scipy():
    rng = np.random.default_rng(4)
    x = rng.normal(size=14)
    y = x + rng.normal(size=14)
    result = correlate(x, y, resamples=5000)
    theirs = stats.bootstrap(
        (x, y),
        lambda x, y, axis: pearson(x, y),
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=5000,
        rng=0,
    ).confidence_interval
    assert (result["pearson_low"], result["pearson_high"]) == pytest.approx(theirs, abs=0.03)
    assert bootstrap_indices(14).shape == (2000, 14)


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

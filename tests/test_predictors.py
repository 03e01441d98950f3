"""Predictors of transfer: coefficients, regret, paired differences with their coverage, and tables of a suite."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ssltransfer.analysis.predictors import (
    OTHERS,
    SOURCE,
    _standardised_mean,
    best_predictor,
    dependent_difference,
    half_width,
    judge,
    panel_predictors,
    predictor_table,
)
from ssltransfer.analysis.published import LABELS, published_models, published_scores
from ssltransfer.analysis.suite_results import suite_results
from ssltransfer.report.drawing import FigureContext
from ssltransfer.report.labels import suite_labels
from ssltransfer.report.predictor_report import (
    estimator_tables,
    predictor_figure,
    predictor_figure_note,
    predictor_finding,
    predictor_scatters,
    predictor_tables,
    transfer_figures,
)
from ssltransfer.results.scores import AVERAGE

PUBLISHED = published_scores("v2")


def with_estimates(scores=PUBLISHED, datasets=("dtd", "pets", "cars", "flowers"), metric="log-me"):
    """Published scores and an estimator that is the published linear score, or its negative for CDNV."""
    linear = scores[scores["kind"].eq("linear") & scores["dataset"].isin(datasets)]
    sign = -1 if metric.startswith("cdnv") else 1
    own = linear.assign(protocol="estimators", kind="estimators", metric=metric, value=100 + sign * linear["value"])
    return pd.concat([scores, own.assign(setting="", source="measured", low=np.nan, high=np.nan)], ignore_index=True)


def results_of(scores, models=None):
    return suite_results(scores, models or published_models(), LABELS, {}, "v2")


def test_coefficients_and_regret_are_those_of_scipy():
    rng = np.random.default_rng(0)
    names = [f"m{k}" for k in range(12)]
    x, y = pd.Series(rng.normal(size=12), names), pd.Series(rng.normal(size=12), names)
    found = judge(x, y, 50 + y, 1, 1)
    assert found["pearson"] == pytest.approx(stats.pearsonr(x, y)[0])
    assert found["kendall"] == pytest.approx(stats.kendalltau(x, y)[0])
    assert found["weighted_kendall"] == pytest.approx(stats.weightedtau(x, y)[0])
    assert found["picked"] == x.idxmax() and found["regret"] == pytest.approx(y.max() - y[x.idxmax()])
    assert found["kendall_low"] < found["kendall"] < found["kendall_high"]
    tied = judge(pd.Series(np.r_[1.0, 1.0, np.zeros(10)], names), y, y, 1, 1)
    assert tied["picked"] == "" and tied["regret"] == pytest.approx(y.max() - y.iloc[:2].mean())
    assert "regret" not in judge(x, y, y, 1, 0)


def test_few_models_and_constant_predictors_are_said():
    x = pd.Series([1.0, 2.0], ["a", "b"])
    assert judge(x, x, x, 1, 1) == {"n": 2, "note": "fewer than 3 models"}
    three = pd.Series([1.0, 1.0, 1.0], ["a", "b", "c"])
    assert "constant" in judge(three, pd.Series([1.0, 2, 3], three.index), three, 1, 1)["note"]
    rounded = judge(1e3 + three * [0, 1e-13, 2e-13], pd.Series([1.0, 2, 3], three.index), three, 1, 1)
    assert "kendall" not in rounded and "constant" in rounded["note"]
    four = judge(*[pd.Series([1.0, 2, 3, 5], list("abcd"))] * 3, 1, 1)
    assert "no interval" in four["note"] and "kendall_low" not in four


def test_differences_of_dependent_correlations_are_covered():
    rng = np.random.default_rng(0)
    covariance = np.array([[1, 0.6, 0.7], [0.6, 1, 0.4], [0.7, 0.4, 1]])
    covered = []
    for _ in range(1000):
        first, second, y = rng.multivariate_normal(np.zeros(3), covariance, 14).T
        difference, low, high = dependent_difference(first, second, y)
        assert low <= difference <= high
        covered.append(low <= 0.3 <= high)
    assert 0.93 <= np.mean(covered) <= 0.985
    assert dependent_difference(y, second, y) is None


def test_published_scores_have_the_static_predictors():
    found = predictor_table(results_of(PUBLISHED))
    assert set(found["predictor"]) == {SOURCE, OTHERS}
    row = found[found["dataset"].eq("cifar10") & found["kind"].eq("linear") & found["predictor"].eq(SOURCE)].iloc[0]
    tasks = results_of(PUBLISHED).tasks
    column = next(task for task in tasks.counted if (task.kind, task.dataset) == ("linear", "cifar10"))
    both = pd.DataFrame({"x": tasks.x(), "y": tasks.values[column]}).dropna()
    assert row["n"] == len(both) == 14
    assert row["kendall"] == pytest.approx(stats.kendalltau(both["x"], both["y"])[0])


@pytest.mark.parametrize("metric", ["log-me", "cdnv-median"])
def test_a_perfect_estimator_ranks_perfectly_whatever_its_direction(metric):
    results = results_of(with_estimates(metric=metric))
    found = predictor_table(results)
    own = found[found["predictor"].eq(f"estimators:{metric}") & found["kind"].eq("linear")]
    assert set(own["dataset"]) == {"dtd", "pets", "cars", "flowers"}
    assert own["kendall"].tolist() == pytest.approx([1] * 4) and own["regret"].eq(0).all()
    assert (own["pearson_difference"].dropna() > 0).all()
    means = panel_predictors(found).set_index(["panel", "predictor"])
    mean = means.loc[("linear", f"estimators:{metric}")]
    assert mean["datasets"] == 4 and mean["kendall"] == pytest.approx(1) and mean["regret"] == 0
    source = means.loc[("linear", SOURCE)]
    of_source = found[found["kind"].eq("linear") & found["predictor"].eq(SOURCE)].set_index("dataset")["kendall"]
    values = of_source.drop(AVERAGE)
    assert source["average"] == of_source[AVERAGE] and np.isnan(mean["average"])  # not all datasets have the estimator
    interval = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
    assert (source["kendall_low"], source["kendall_high"]) == pytest.approx(interval)
    assert source["without_low"] <= source["kendall"] <= source["without_high"]
    assert mean["p"] <= mean["p_adjusted"] <= 1
    assert np.isnan(mean["kendall_low"])  # 1 on every dataset, which does not say that it is 1 on others
    same = found.assign(kendall_difference=np.where(found["predictor"].eq(SOURCE), np.nan, 0.1))
    same = panel_predictors(same).set_index(["panel", "predictor"]).loc[("linear", f"estimators:{metric}")]
    assert same["kendall_difference"] == pytest.approx(0.1)
    assert same[["kendall_difference_low", "kendall_difference_high", "p", "p_adjusted"]].isna().all()
    two = panel_predictors(found[found["dataset"].isin(["dtd", "pets"])])
    assert two["datasets"].max() == 2 and two[
        ["kendall_low", "kendall_high", "kendall_difference_low", "p"]
    ].isna().all(axis=None)


def test_a_predictor_of_some_models_is_compared_with_source_accuracy_on_these():
    scores = with_estimates()
    some = sorted(scores["model"].unique())[:9]
    scores = scores[scores["kind"].ne("estimators") | scores["model"].isin(some)]
    results = results_of(scores)
    found = predictor_table(results)
    own = found[found["predictor"].eq("estimators:log-me") & found["panel"].eq("linear")].set_index("dataset")
    for task in results.tasks.counted:
        if task.kind == "linear" and task.dataset in own.index:
            row, y, x = own.loc[task.dataset], results.tasks.values[task], results.tasks.x()
            kept = [model for model in some if pd.notna(x.get(model)) and pd.notna(y.get(model))]
            assert row["common"] == len(kept) < 14
            assert row["source_kendall"] == pytest.approx(stats.kendalltau(x[kept], y[kept])[0])
            assert row["kendall_difference"] == pytest.approx(1 - row["source_kendall"])
            r = stats.pearsonr(x[kept], y[kept])[0]
            assert row["pearson_difference"] == pytest.approx(row["pearson"] - r)
            points = results.tasks.matrix.loc[kept, task]
            assert row["regret_difference"] == pytest.approx(points[x[kept].idxmax()] - points.max())
    mean = panel_predictors(found).set_index(["panel", "predictor"]).loc[("linear", "estimators:log-me")]
    differences = own["kendall_difference"]
    assert mean["kendall_difference"] == pytest.approx(differences.mean())
    assert mean["p"] == pytest.approx(stats.ttest_1samp(differences, 0).pvalue)
    assert mean["fewest_models"] == own["n"].min() and mean["most_models"] == own["n"].max() < 14
    (table,) = (table for table in predictor_tables(results, suite_labels(results)) if table.name == "predictors")
    assert table.cells["Models"].nunique() > 1
    fewest = int(own["n"].min())
    assert f"± {half_width(fewest):.2f} with {fewest} models and ± 0.41 with 14 models" in table.caption


def test_the_average_of_a_panel_is_predicted_by_the_mean_of_an_estimator():
    datasets = tuple(PUBLISHED.loc[PUBLISHED["kind"].eq("linear"), "dataset"].unique())
    results = results_of(with_estimates(datasets=datasets))
    found = predictor_table(results)
    rows = found[found["panel"].eq("linear") & found["dataset"].eq(AVERAGE)].set_index("predictor")
    tasks = [task for task in results.tasks.counted if task.kind == "linear"]
    scores = results.tasks.values[tasks].mean(axis=1)
    assert rows.loc[SOURCE, "kendall"] == pytest.approx(stats.kendalltau(results.tasks.x(), scores)[0])
    raw = results.tasks.matrix[tasks]
    x = ((raw - raw.mean()) / raw.std(ddof=0)).mean(axis=1)
    row = rows.loc["estimators:log-me"]
    assert row["kendall"] == pytest.approx(stats.kendalltau(x, scores)[0])
    points = raw.mean(axis=1)
    assert row["picked"] == x.idxmax() and row["regret"] == pytest.approx(points.max() - points[x.idxmax()])
    means = panel_predictors(found).set_index(["panel", "predictor"])
    assert means.loc[("linear", "estimators:log-me"), "average"] == row["kendall"]
    assert means.loc[("linear", "estimators:log-me"), "datasets"] == len(datasets)


def test_linear_and_neighbour_scores_on_the_source_are_predictors_where_they_are_measured():
    models = [row | {"source_accuracy": "measured:linear/cars"} for row in published_models()]
    other = PUBLISHED[PUBLISHED["kind"].eq("linear")].assign(protocol="linear-other", value=lambda t: t["value"] / 2)
    knn = other.assign(protocol="knn", kind="knn", setting="20-nn")
    found = predictor_table(results_of(pd.concat([PUBLISHED, other, knn], ignore_index=True), models))
    # The linear score that is the source accuracy is not a second predictor.
    assert set(found["predictor"]) == {SOURCE, OTHERS, "linear-other:cars", "knn:cars"}
    assert "cars" not in set(found["dataset"])


def test_estimates_stand_in_tables_of_their_own_alone():
    plain, both = results_of(PUBLISHED), results_of(with_estimates())
    pd.testing.assert_frame_equal(plain.shown, both.shown)
    pd.testing.assert_frame_equal(plain.correlations, both.correlations)
    labels = suite_labels(both)
    tables = {table.name: table for table in [*predictor_tables(both, labels), *estimator_tables(both, labels, True)]}
    assert {"predictors", "predictors-by-dataset", "estimators-estimators-dtd"} <= set(tables)
    assert "on one dataset is ± 0.41 with 14 models, so" in tables["predictors"].caption
    assert "LogME has no maximum where features fit a class" in tables["predictors"].caption
    assert not any("LogME" in table.caption for table in predictor_tables(plain, labels))
    assert "another sample of models would move all datasets together" in tables["predictors"].caption
    assert not any("Estimators are those" in table.caption for table in predictor_tables(plain, labels))
    assert len(estimator_tables(plain, labels, True)) == 0
    shown = PUBLISHED[PUBLISHED["kind"].eq("linear") & PUBLISHED["dataset"].isin(["dtd", "pets"])]
    few = predictor_tables(results_of(shown), labels)[0].caption
    assert "Means over fewer than 3 datasets have no interval" in few and "Student's t" not in few


def test_the_report_names_the_best_predictor_and_how_surely():
    both, labels = results_of(with_estimates(datasets=("dtd",))), suite_labels(results_of(PUBLISHED))
    table = predictor_table(both)
    average = best_predictor(results_of(PUBLISHED), predictor_table(results_of(PUBLISHED)))
    assert (average.task.dataset, average.name, average.judged) == (AVERAGE, OTHERS, 2)
    best = best_predictor(both, table)
    assert (best.task.dataset, best.name, best.models, best.kendall) == ("dtd", "estimators:log-me", 14, 1)
    assert best.judged == 3 and 1 <= best.separable <= 3
    source = table[table["predictor"].eq(SOURCE) & table["dataset"].eq("dtd") & table["kind"].eq("linear")].iloc[0]
    assert best.source[0] == source["kendall"] and best.low < 1
    said = predictor_finding(both, labels, table)
    assert "Many-shot linear · DTD, over 14 models, the best of 3 predictors is LogME" in said
    assert "not adjusted for the choice" in said and "No transferability estimator" not in said


def test_the_report_says_which_predictors_are_missing():
    few = [row["model"] for row in published_models()][:4]
    measured = with_estimates().assign(source="measured")
    some = results_of(measured[measured["model"].isin(few)])
    labels = suite_labels(some)
    assert "at least 5 models" in predictor_finding(some, labels, predictor_table(some))
    plain = measured[measured["kind"].ne("estimators")]
    assert "`estimators` under `tasks`" in predictor_finding(results_of(plain), labels, None)
    assert "`estimators`" not in predictor_finding(results_of(PUBLISHED), labels, None)
    shown = estimator_tables(some, labels, judged=False)[0].caption
    assert "The table of predictors" not in shown and "too few models" in shown


@pytest.mark.slow
def test_noise_is_separable_from_chance_in_few_cases():
    """Holm's adjustment over the predictors of the target; without it, one of ten would be in 40 % of suites."""
    rng, hits = np.random.default_rng(0), 0
    base = PUBLISHED[PUBLISHED["kind"].eq("linear") & PUBLISHED["dataset"].eq("dtd")]
    for _ in range(60):
        noise = [
            base.assign(protocol="estimators", kind="estimators", metric=m, value=rng.normal(size=len(base)))
            for m in ("h-score", "h-score-shrunk", "log-me", "gbc", "trans-rate", "rank-me", "stable-rank", "two-nn")
        ]
        scores = pd.concat([base.assign(value=rng.uniform(20, 80, len(base))), *noise], ignore_index=True)
        results = results_of(scores)
        hits += best_predictor(results, predictor_table(results)).separable > 0
    assert hits <= 8  # 5 % of 60 are 3


def test_the_mean_of_cdnv_which_the_worst_models_lack_is_no_predictor():
    found = predictor_table(results_of(with_estimates(datasets=("dtd",), metric="cdnv")))
    assert set(found["predictor"]) == {SOURCE, OTHERS}


def test_estimators_do_not_predict_few_shot_scores_of_their_dataset():
    datasets = ("cifar10", "eurosat", "dtd")
    found = predictor_table(results_of(with_estimates(datasets=datasets)))
    kinds = set(found.loc[found["predictor"].eq("estimators:log-me"), "kind"])
    assert "linear" in kinds and "fewshot" not in kinds
    few = found[found["kind"].eq("fewshot")]
    assert set(few["predictor"]) == {SOURCE, OTHERS} and {"cifar10", "eurosat"} & set(few["dataset"])


def test_constant_predictors_are_no_part_of_means_and_said_in_scatters():
    values = pd.DataFrame({"a": [1e6, 1e6 + 1e-5, 1e6], "b": [1e-15, 2e-15, 4e-15]})
    alone = values["b"]
    expected = (alone - alone.mean()) / alone.std(ddof=0)
    assert _standardised_mean(values).to_numpy() == pytest.approx(expected.to_numpy())
    scores = with_estimates(datasets=("dtd",))
    scores.loc[scores["kind"].eq("estimators"), "value"] = 3.0
    ((_, figure, _, _),) = predictor_scatters(FigureContext(results_of(scores)))
    titles = [ax.get_title() for ax in figure.axes]
    assert any("constant" in title for title in titles) and not any("nan" in title for title in titles)


def test_too_few_models_have_no_table_and_figures_need_estimators():
    few = results_of(PUBLISHED[PUBLISHED["model"].isin(["byol", "swav"])], published_models())
    assert predictor_tables(few, suite_labels(few)) == []
    assert predictor_figure(FigureContext(results_of(PUBLISHED))) is None
    context = FigureContext(results_of(with_estimates(datasets=("dtd",))))
    assert predictor_figure(context) is not None
    ((name, _, _, (shown,)),) = predictor_scatters(context)
    assert (name, shown.kind, shown.dataset) == ("predictors-scatter-dtd", "linear", "dtd")
    assert list(transfer_figures(FigureContext(results_of(PUBLISHED)))) == []
    found = list(transfer_figures(context))
    drawn, said, shown = ({name: row[number] for name, *row in found} for number in (0, 1, 2))
    assert said["predictors-transfer-estimators-log-me"] == "Predictor: LogME." and len(set(said.values())) == len(said)
    note = predictor_figure_note(context)
    assert "Datasets with estimators: DTD" in note and "Grey" not in note and "Blue" in note
    assert "Grey" in predictor_figure_note(FigureContext(results_of(with_estimates())))
    assert {task.dataset for task in shown["predictors-transfer-estimators-log-me"]} == {"dtd"}
    assert set(drawn) == {"predictors-transfer-other-tasks", "predictors-transfer-estimators-log-me"}
    axes = [ax for ax in drawn["predictors-transfer-estimators-log-me"].axes if ax.get_visible()]
    titles = [ax.get_title().splitlines()[:2] for ax in axes]
    assert titles[:2] == [["Many-shot linear", "(1 of 11 tasks)"], ["Many-shot finetuning", "(1 of 11 tasks)"]]
    linear = next(task for task in context.results.tasks.counted if (task.kind, task.dataset) == ("linear", "dtd"))
    y = context.results.tasks.values[linear]
    points = {round(line.get_ydata()[0], 6) for line in axes[0].lines if line.get_linestyle() == "None"}
    assert points == set(y.round(6)) and axes[0].get_title().splitlines()[2] == "τ = 1.00"

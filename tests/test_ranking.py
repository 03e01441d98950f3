import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ssltransfer.analysis.noise import average_error, on_analysis_scale, task_noise
from ssltransfer.analysis.published import published_models, published_scores, sizes_of_test_parts
from ssltransfer.analysis.ranking import (
    MIN_DATASETS,
    Order,
    by_dataset,
    datasets_like_these,
    datasets_needed,
    mean_ranks,
    task_ranks,
    these_datasets,
)
from ssltransfer.analysis.scale import logit, to_analysis_scale
from ssltransfer.analysis.tasks import task_matrix
from ssltransfer.results.scores import Task, tidy

#: Mean ranks of linear v2 and their standard deviations over the eleven datasets.
LINEAR_V2 = {
    "deepcluster-v2": (1.27, 0.47), "swav": (2.27, 0.79), "byol": (3.77, 2.34), "simclr-v2": (4.64, 1.21),
    "supervised": (5.91, 2.51), "sela-v2": (6.55, 2.21), "infomin": (6.73, 1.79), "moco-v2": (7.00, 1.00),
    "simclr-v1": (7.45, 2.16), "pcl-v2": (9.50, 1.16), "pirl": (11.36, 0.81), "insdis": (12.73, 1.01),
    "moco-v1": (12.82, 0.60), "pcl-v1": (13.00, 1.41),
}  # fmt: skip


def matrix(values, metrics=None, datasets=None):
    values = np.asarray(values, float)
    metrics = metrics or ["top1"] * values.shape[1]
    datasets = datasets or [f"d{i}" for i in range(values.shape[1])]
    tasks = [Task("p", "linear", d, str(i), m) for i, (d, m) in enumerate(zip(datasets, metrics, strict=True))]
    return pd.DataFrame(values, [f"m{i}" for i in range(len(values))], pd.MultiIndex.from_tuples(tasks))


def printed(kind):
    scores = published_scores("v2")
    return task_matrix(scores[scores["kind"] == kind], [row["model"] for row in published_models()])


def on_log_odds(scores):
    return pd.DataFrame({task: to_analysis_scale(scores[task], task[-1]) for task in scores}, scores.index).set_axis(
        scores.columns, axis=1
    )


@given(st.integers(2, 8), st.integers(1, 6), st.integers(0, 1000))
def test_ranks_of_a_task_sum_to_those_of_a_full_order(models, tasks, seed):
    scores = np.random.default_rng(seed).integers(0, 5, (models, tasks))
    ranks = task_ranks(matrix(scores))
    assert np.allclose(ranks.sum(), models * (models + 1) / 2)
    assert mean_ranks(matrix(scores))["mean_rank"].mean() == pytest.approx((models + 1) / 2)


def test_lower_is_better_for_errors():
    ranks = mean_ranks(matrix([[30.0, 80.0], [25.0, 90.0]], ["mean-angle", "top1"]))
    assert list(ranks.index) == ["m1", "m0"]
    assert ranks.loc["m1", "best_on"] == 2
    assert ranks["mean_rank"].tolist() == [1.0, 2.0]


def test_only_tasks_that_all_models_have_are_ranked():
    scores = [[90.0, np.nan, 60.0], [80.0, 50.0, 70.0], [70.0, np.nan, 80.0], [np.nan] * 3]
    ranks = mean_ranks(matrix(scores))
    assert sorted(ranks.index) == ["m0", "m1", "m2"]
    assert ranks["tasks"].tolist() == [2, 2, 2]
    assert ranks["mean_rank"].tolist() == [2.0, 2.0, 2.0]
    assert mean_ranks(matrix([[90.0, np.nan], [np.nan, 50.0]])).empty


def test_a_dataset_counts_once_however_many_tasks_it_has():
    scores = [[90.0, 80.0, 70.0, 10.0], [80.0, 70.0, 60.0, 20.0]]
    ranks = mean_ranks(matrix(scores, datasets=["a", "a", "a", "b"]))
    assert ranks[["tasks", "datasets"]].iloc[0].tolist() == [4, 2]
    assert ranks["mean_rank"].tolist() == [1.5, 1.5]


def test_mean_ranks_have_t_intervals_over_datasets():
    scores = matrix(np.random.default_rng(0).normal(size=(6, 9)))
    ranks, own = mean_ranks(scores), task_ranks(scores)
    for model, row in ranks.iterrows():
        low, high = stats.t.interval(0.95, 8, own.loc[model].mean(), stats.sem(own.loc[model]))
        assert (row["low"], row["high"]) == pytest.approx((max(low, 1), min(high, 6)))
    assert (ranks["low"] >= 1).all() and (ranks["high"] <= 6).all()


def test_few_datasets_say_nothing_on_others():
    few = matrix(np.random.default_rng(0).normal(size=(3, MIN_DATASETS - 1)))
    assert mean_ranks(few)[["low", "high"]].isna().all(axis=None)
    assert datasets_like_these(few) is None
    assert mean_ranks(matrix([[1.0], [2.0]])).shape == (2, 6)
    assert mean_ranks(matrix([[1.0] * 6]))[["low", "high"]].to_numpy().tolist() == [[1.0, 1.0]]


def test_published_mean_ranks_and_their_scatter():
    ranks = mean_ranks(printed("linear"))
    scatter = task_ranks(printed("linear")).std(axis=1, ddof=1)
    assert ranks["mean_rank"].round(2).to_dict() == {model: mean for model, (mean, _) in LINEAR_V2.items()}
    assert scatter.round(2).to_dict() == {model: spread for model, (_, spread) in LINEAR_V2.items()}
    half = 0.672 * scatter[ranks.index]
    assert (ranks["high"] - ranks["mean_rank"]).iloc[3:].to_numpy() == pytest.approx(
        np.minimum(half, 14 - ranks["mean_rank"]).iloc[3:].to_numpy(), abs=2e-3
    )


@pytest.mark.parametrize(("kind", "separated"), [("linear", 52), ("finetune", 51)])
def test_published_pairs_that_are_told_apart(kind, separated):
    order = datasets_like_these(on_log_odds(printed(kind)))
    assert order.separated == separated and len(order.datasets) == 11
    values, wins = on_log_odds(printed(kind)), 0
    p = [stats.ttest_rel(values.loc[a], values.loc[b]).pvalue for i, a in enumerate(values.index)
         for b in values.index[:i]]  # fmt: skip
    for step, smallest in enumerate(sorted(p)):
        if smallest * (91 - step) >= 0.05:
            break
        wins += 1
    assert wins == separated


def test_published_numbers_of_datasets_that_neighbours_need():
    needed = {
        "linear": [5, 17, 32, 31, 155, 766, 293, 153, 12, 5, 5, 789, 301],
        "finetune": [11, 45, 145, 167, 58, 7, 541, 74, 185, 96, 12, 5, 16],
    }
    for kind, expected in needed.items():
        ranks = by_dataset(task_ranks(printed(kind)))
        found = datasets_needed(ranks.loc[ranks.mean(axis=1).sort_values(kind="stable").index])
        assert found.iloc[:-1].tolist() == expected and np.isnan(found.iloc[-1])


def order(better, count=4):
    matrix = np.zeros((count, count), bool)
    for i, j in better:
        matrix[i, j] = True
    return Order(tuple("abcdef"[:count]), ("d",), matrix)


def test_ranks_follow_from_the_pairs_that_are_told_apart():
    found = order([(0, 2), (0, 3), (1, 3)])
    assert found.rank_sets().to_dict("index") == {
        "a": {"low": 1, "high": 2}, "b": {"low": 1, "high": 3}, "c": {"low": 2, "high": 4}, "d": {"low": 3, "high": 4},
    }  # fmt: skip
    assert found.separated == 3
    assert found.neighbours("abcd") == 0 and found.neighbours("acbd") == 2


def test_cliques_are_the_longest_stretches_without_a_separated_pair():
    assert order([]).cliques("abcd") == [(0, 3)]
    assert order([(0, 2), (0, 3), (1, 3)]).cliques("abcd") == [(0, 1), (1, 2), (2, 3)]
    assert order([(0, 3)]).cliques("abcd") == [(0, 2), (1, 3)]
    assert order([(0, 1)], 2).cliques("ab") == []
    # b and d could be one clique, but c lies between them and is told from both.
    assert order([(1, 2), (2, 3)]).cliques("abcd") == [(0, 1)]


@given(st.integers(0, 200))
def test_rank_sets_hold_the_order_found(seed):
    values = matrix(np.random.default_rng(seed).normal(size=(5, 8)) + np.arange(5)[:, None])
    sets = datasets_like_these(values).rank_sets()
    ranks = values.mean(axis=1).rank(ascending=False)
    assert ((sets["low"] <= ranks) & (ranks <= sets["high"])).all()


def test_models_that_are_equal_everywhere_are_not_told_apart():
    values = matrix(np.tile(np.random.default_rng(0).normal(size=8), (3, 1)))
    assert datasets_like_these(values).separated == 0
    noise = {Task(*task): pd.DataFrame(np.zeros((3, 3)), values.index, values.index) for task in values}
    assert these_datasets(values, noise).separated == 0
    assert datasets_needed(values).isna().all()


def test_noise_of_these_datasets_is_averaged():
    values = matrix([[1.0, 3.0, 0.0], [0.0, 1.0, 9.0]], datasets=["a", "b", "c"])
    tasks = [Task(*task) for task in values]
    covariance = np.array([[0.5, 0.1], [0.1, 0.3]])
    noise = {task: pd.DataFrame(covariance, values.index, values.index) for task in tasks[:2]}
    # The mean difference over two of the datasets is 1.5, its standard error sqrt(2 * 0.6) / 2 = 0.548: z = 2.74.
    found = these_datasets(values, noise)
    assert found.datasets == ("a", "b") and found.better.tolist() == [[False, True], [False, False]]
    twice = matrix([[1.0, 3.0], [0.0, 1.0]], datasets=["a", "a"])
    # Two tasks of one dataset count as fully correlated: its standard error is sqrt(0.6) = 0.775, z = 1.94.
    noise = {Task(*task): pd.DataFrame(covariance, values.index, values.index) for task in twice}
    assert these_datasets(twice, noise).separated == 0
    assert these_datasets(values, {}) is None


def cell(model, task, value, **more):
    return task._asdict() | {"model": model, "value": value, "source": "measured"} | more


def test_noise_of_scores_comes_from_outcomes_intervals_or_test_sets():
    cars, voc = Task("linear", "linear", "cars", "", "top1"), Task("linear", "linear", "voc2007", "", "map11")
    few = Task("few", "fewshot", "cars", "5-shot", "accuracy")
    rows = [
        cell("a", cars, 60.0), cell("b", cars, 50.0), cell("c", cars, 40.0, source="published-v2"),
        cell("c", voc, 80.0, source="published-v2"), cell("a", few, 50.0, low=48.0, high=52.0), cell("b", few, 50.0),
    ]  # fmt: skip
    scores = tidy(rows)
    scores_of = task_matrix(scores, ["a", "b", "c"])
    known = pd.DataFrame([[0.3, 0.2], [0.2, 0.3]], ["a", "b"], ["a", "b"])
    noise = task_noise(scores, scores_of, {cars: known})
    assert noise[cars].to_numpy() == pytest.approx(
        np.array([[0.3, 0.2, 0], [0.2, 0.3, 0], [0, 0, 1e4 * 0.4 * 0.6 / 8041]])
    )
    assert np.diagonal(noise[few]) == pytest.approx([(2 / 1.959964) ** 2, np.nan, np.nan], nan_ok=True)
    assert voc not in noise
    assert average_error(noise, [cars, voc]) is None
    assert average_error(noise, [cars, few])["a"] == pytest.approx(np.sqrt(0.3 + (2 / 1.959964) ** 2) / 2)
    # The slope of the log-odds of 60 %, by a difference.
    slope = (logit(0.6001) - logit(0.5999)) / 0.02
    scaled = on_analysis_scale({cars: noise[cars]}, scores_of)[cars]
    assert scaled.loc["a", "a"] == pytest.approx(0.3 * slope**2, rel=1e-4)


def test_test_sets_have_the_sizes_of_the_table_of_datasets():
    sizes = sizes_of_test_parts()
    assert sizes["cars"] == 8041 and sizes["food101"] == 25250 and "eurosat" not in sizes

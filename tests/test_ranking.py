import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssltransfer.analysis.ranking import mean_ranks, paired_differences, survivors, task_ranks
from ssltransfer.errors import InputError


def matrix(values, metrics=None):
    values = np.asarray(values, float)
    metrics = metrics or ["top1"] * values.shape[1]
    columns = pd.MultiIndex.from_tuples([("p", "linear", f"d{i}", "", m) for i, m in enumerate(metrics)])
    return pd.DataFrame(values, [f"m{i}" for i in range(len(values))], columns)


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
    assert ranks.loc["m1", ["low", "high"]].tolist() == [1.0, 1.0]


def test_only_tasks_that_all_models_have_are_ranked():
    scores = [[90.0, np.nan, 60.0], [80.0, 50.0, 70.0], [70.0, np.nan, 80.0], [np.nan] * 3]
    ranks = mean_ranks(matrix(scores))
    assert sorted(ranks.index) == ["m0", "m1", "m2"]
    assert ranks["tasks"].tolist() == [2, 2, 2]
    assert ranks["mean_rank"].tolist() == [2.0, 2.0, 2.0]
    assert mean_ranks(matrix([[90.0, np.nan], [np.nan, 50.0]])).empty


def test_intervals_hold_the_mean_rank_and_repeat():
    scores = np.random.default_rng(0).normal(size=(5, 12))
    ranks = mean_ranks(matrix(scores))
    assert (ranks["low"] <= ranks["mean_rank"]).all()
    assert (ranks["mean_rank"] <= ranks["high"]).all()
    pd.testing.assert_frame_equal(ranks, mean_ranks(matrix(scores)))


def episodes(model, correct, dataset="d"):
    return {"model": model, "protocol": "p", "dataset": dataset, "setting": "5-shot", "queries": 10, "correct": correct}


def test_paired_intervals_see_what_unpaired_ones_do_not():
    rng = np.random.default_rng(0)
    hard = rng.integers(2, 9, 200)
    better = hard + (rng.random(200) < 0.2)
    pairs = paired_differences([episodes("a", better), episodes("b", hard)])
    row = pairs.iloc[0]
    assert row["difference"] == pytest.approx(10 * (better - hard).mean())
    assert row["low"] < row["difference"] < row["high"]
    assert row["survives"]
    assert 10 * hard.std() > 5 * row["difference"]


def test_equal_models_do_not_differ():
    row = paired_differences([episodes("a", [5, 6, 7]), episodes("b", [5, 6, 7])]).iloc[0]
    assert (row["difference"], row["p"], row["survives"]) == (0, 1, False)
    row = paired_differences([episodes("a", [6, 7, 8]), episodes("b", [5, 6, 7])]).iloc[0]
    assert (row["difference"], row["survives"]) == (10, True)


def test_survivors_count_cells():
    found = paired_differences(
        [
            *(episodes(m, c, "x") for m, c in (("a", [9, 9, 8, 9]), ("b", [1, 2, 1, 1]))),
            *(episodes(m, c, "y") for m, c in (("a", [5, 4, 5, 4]), ("b", [4, 5, 4, 5]))),
        ]
    )
    row = survivors(found).iloc[0]
    assert row.to_dict() == {
        "model": "a", "other": "b", "cells": 2, "model_better": 1, "other_better": 0, "undecided": 1,
    }  # fmt: skip


def test_different_numbers_of_episodes_are_refused():
    with pytest.raises(InputError, match=r"p d 5-shot: models have \[2, 3\] episodes"):
        paired_differences([episodes("a", [1, 2]), episodes("b", [1, 2, 3])])


def test_without_episodes_there_are_no_pairs():
    assert paired_differences([]).empty
    assert paired_differences([episodes("a", [1, 2])]).empty

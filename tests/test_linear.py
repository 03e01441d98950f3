import os
import subprocess
import sys
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.optimize import brentq
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from ssltransfer import device
from ssltransfer.array_backend import NUMPY, Arrays
from ssltransfer.datasets.index import Index
from ssltransfer.datasets.splits import Split
from ssltransfer.errors import InputError
from ssltransfer.models.feature_file import Features
from ssltransfer.protocols.input_norms import BIASED
from ssltransfer.protocols.linear import (
    certificate,
    classification_metrics,
    design_matrix,
    evaluation,
    logistic,
    losses,
    official,
)
from ssltransfer.protocols.linear.design_matrix import Design
from ssltransfer.protocols.linear.settings import LinearSettings
from ssltransfer.settings import read_settings
from workflow import REPOSITORY


def sample(n=80, d=12, k=4, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % k
    centres = rng.normal(size=(k, d))
    features = (centres[labels] + rng.normal(size=(n, d))).astype(np.float32) + 3
    return features, labels


def only(features, labels, penalty, classes):
    return next(logistic.fit_path(features, labels, np.array([penalty]), classes))


def reference_objective(features, labels, penalty, classes):
    """Objective at scikit-learn's optimum, evaluated independently of the solver under test."""
    x = features.astype(np.float64)
    model = LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=20000).fit(x, labels)
    return objective(x, labels, model.coef_.T, model.intercept_, penalty), model


def objective(x, labels, weights, bias, penalty):
    logits = x @ weights + bias
    logits = logits - logits.max(axis=1, keepdims=True)
    loss = np.sum(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(x)), labels])
    return loss + 0.5 * penalty * np.sum(weights**2)


@pytest.mark.parametrize("penalty", [1e3, 1.0, 1e-2, 1e-4])
@pytest.mark.parametrize("shape", [(80, 12), (30, 50)], ids=["tall", "wide"])
def test_optimum_equals_scikit_learn(penalty, shape):
    features, labels = sample(*shape)
    fit = only(features, labels, penalty, 4)
    expected, model = reference_objective(features, labels, penalty, 4)
    assert fit.converged
    assert fit.objective == pytest.approx(expected, rel=1e-5 if penalty >= 1e-2 else 2e-4)
    own = objective(features.astype(np.float64), labels, fit.weights, fit.bias, penalty)
    assert own == pytest.approx(fit.objective, rel=1e-8)
    if penalty >= 1:
        np.testing.assert_allclose(fit.weights, model.coef_.T, atol=1e-3)


def test_path_points_are_independent_of_the_path():
    features, labels = sample()
    path = {fit.penalty: fit for fit in logistic.fit_path(features, labels, np.logspace(-6, 5, 12), 4)}
    assert list(path) == sorted(path, reverse=True)
    for fit in path.values():
        assert fit.converged
        cold = only(features, labels, fit.penalty, 4)
        assert fit.objective == pytest.approx(cold.objective, rel=2e-6 if fit.penalty >= 1e-2 else 2e-4)


def test_gradient_and_hessian_match_finite_differences():
    features, labels = sample(20, 5, 3)
    rng = np.random.default_rng(0)
    for link in [
        losses.Softmax(labels, np.arange(3), NUMPY),
        losses.Sigmoid(rng.random((20, 3)) < 0.5, NUMPY),
        losses.Sigmoid(rng.integers(-1, 2, (20, 3)), NUMPY),
    ]:
        problem = logistic._Problem(Design(features, 3, NUMPY), link, NUMPY)
        params, direction = rng.normal(size=(2, problem.design.columns, 3)) * 0.3
        probabilities = problem.probabilities(problem.point(params))
        gradient = problem.gradient(params, probabilities, 0.7)
        step = 1e-5

        def value(length, problem=problem, params=params, direction=direction):
            point = problem.point(params + length * direction)
            return problem.objective(point.params, problem.logits(point), 0.7)

        slope = (value(step) - value(-step)) / (2 * step)
        assert np.sum(gradient * direction) == pytest.approx(slope, rel=1e-6)

        def gradient_at(length, problem=problem, params=params, direction=direction):
            moved = params + length * direction
            return problem.gradient(moved, problem.probabilities(problem.point(moved)), 0.7)

        curvature = (gradient_at(step) - gradient_at(-step)) / (2 * step)
        _, diagonals = problem.curvature(probabilities, 0.7)
        weighing = [link.weighing(block) for block in probabilities]
        product = problem.hessian_times(weighing, direction, 0.7, "float64")
        np.testing.assert_allclose(product, curvature, rtol=1e-5, atol=1e-6)
        basis = np.zeros_like(params)
        basis[2, 1] = 1
        assert diagonals[2, 1] == pytest.approx(problem.hessian_times(weighing, basis, 0.7, "float64")[2, 1], rel=1e-5)


def test_multi_label_is_independent_binary_problems():
    features, _ = sample()
    rng = np.random.default_rng(1)
    labels = rng.random((80, 3)) < [0.5, 0.2, 0.1]
    fit = only(features, labels, 0.5, 3)
    for k in range(3):
        model = LogisticRegression(C=2.0, tol=1e-10, max_iter=20000).fit(features.astype(float), labels[:, k])
        np.testing.assert_allclose(fit.weights[:, k], model.coef_[0], atol=1e-3)
        assert fit.bias[k] == pytest.approx(model.intercept_[0], abs=1e-2)


def with_ignored_pairs(seed=2):
    features, _ = sample()
    rng = np.random.default_rng(seed)
    labels = np.where(rng.random((80, 3)) < [0.5, 0.3, 0.2], 1, 0).astype(np.int8)
    labels[rng.random((80, 3)) < 0.2] = -1
    return features, labels


@pytest.mark.parametrize("solver", evaluation.SOLVERS)
def test_pairs_that_do_not_count_are_left_out(solver):
    features, labels = with_ignored_pairs()
    half = 2 if solver == "official" else 1  # of the penalty: a two-class softmax
    fit = next(evaluation.SOLVERS[solver](features, labels, np.array([0.5 * half]), 3))
    for k in range(3):
        rows = labels[:, k] >= 0
        model = LogisticRegression(C=2.0, tol=1e-10, max_iter=20000)
        model.fit(features[rows].astype(float), labels[rows, k])
        np.testing.assert_allclose(fit.weights[:, k], model.coef_[0], atol=1e-2 if half == 2 else 1e-3)
        assert fit.bias[k] == pytest.approx(model.intercept_[0], abs=0.1 if half == 2 else 1e-2)


def test_pairs_that_do_not_count_change_nothing_when_there_are_none():
    features, labels = with_ignored_pairs()
    plain, marked = only(features, labels > 0, 0.5, 3), only(features, (labels > 0).astype(np.int8), 0.5, 3)
    assert (plain.weights == marked.weights).all()
    assert plain.objective == marked.objective


def test_class_without_a_pair_that_counts_is_never_predicted():
    features, labels = with_ignored_pairs()
    labels[:, 1] = np.where(labels[:, 1] == 0, -1, labels[:, 1])  # no negative left
    labels[:, 2] = -1
    assert only(features, labels, 0.5, 3).bias[1:].tolist() == [np.inf, -np.inf]


def test_pairs_that_do_not_count_neither_select_nor_test():
    features, labels = with_ignored_pairs()
    split = Split(np.arange(40), np.arange(40, 60), np.arange(60, 80))
    result = evaluation.evaluate_linear(features, labels, split, 3, "map11", np.array([0.1, 1.0, 10.0]), "converged")

    def by_hand(rows, scores):
        precisions = []
        for label, score in zip(labels[rows].T, scores.T, strict=True):
            counted = label >= 0
            precisions.append(classification_metrics.average_precision_11_point(label[counted] == 1, score[counted]))
        return np.mean(precisions)

    assert result.test == pytest.approx(by_hand(split.test, result.test_scores))
    assert result.validation == pytest.approx(by_hand(split.val, result.validation_scores))
    flipped = np.where(labels < 0, 1, labels)
    other = evaluation.evaluate_linear(features, flipped, split, 3, "map11", np.array([1.0]), "converged")
    assert other.test != result.test


def test_two_class_softmax_is_a_sigmoid_with_half_the_penalty():
    features, labels = sample(k=2)
    softmax = only(features, labels, 0.6, 2)
    sigmoid = only(features, (labels == 1)[:, None], 0.3, 1)
    difference = softmax.scores(features)[:, 1] - softmax.scores(features)[:, 0]
    np.testing.assert_allclose(difference, sigmoid.scores(features)[:, 0], atol=1e-3)


def test_order_of_samples_and_features_does_not_matter():
    features, labels = sample()
    rng = np.random.default_rng(0)
    rows, columns = rng.permutation(80), rng.permutation(12)
    fit, moved = only(features, labels, 0.1, 4), only(features[rows][:, columns], labels[rows], 0.1, 4)
    # The certificate bounds the distance to the optimum by 1e-3 of the weights' norm.
    assert np.linalg.norm(moved.weights - fit.weights[columns]) <= 2e-3 * np.linalg.norm(fit.weights)


def test_separable_data_at_the_weakest_penalty():
    features, labels = sample(40, 60, 4)
    fit = only(features, labels, 1e-6, 4)
    assert fit.converged
    assert np.isfinite(fit.weights).all()
    assert (fit.scores(features).argmax(axis=1) == labels).all()


def test_constant_and_duplicate_features():
    features, labels = sample()
    plain = only(features, labels, 1.0, 4)
    constant = only(np.column_stack([features, np.full(80, 7, np.float32)]), labels, 1.0, 4)
    assert np.abs(constant.weights[-1]).max() < 1e-8
    np.testing.assert_allclose(constant.weights[:-1], plain.weights, atol=1e-4)
    double = only(np.column_stack([features, features[:, :1]]), labels, 1.0, 4)
    np.testing.assert_allclose(double.weights[0], double.weights[-1], atol=1e-8)


def test_missing_class_is_never_predicted():
    features, labels = sample()
    fit = only(features, np.where(labels == 2, 0, labels), 1.0, 6)
    scores = fit.scores(features)
    assert not np.isin(scores.argmax(axis=1), [2, 4, 5]).any()
    always = np.column_stack([np.ones(80, bool), np.zeros(80, bool), labels == 1])
    assert only(features, always, 1.0, 3).bias[:2].tolist() == [np.inf, -np.inf]


def test_one_sample_a_class():
    features, labels = sample(4, 12, 4)
    assert only(features, labels, 1e-3, 4).converged


def test_identical_samples():
    fit = only(np.ones((6, 3), np.float32), np.array([0, 1, 0, 1, 0, 0]), 1.0, 2)
    assert fit.weights.tolist() == np.zeros((3, 2)).tolist()
    assert fit.bias[0] - fit.bias[1] == pytest.approx(np.log(2))


def test_half_precision_features():
    features, labels = sample()
    half = only(features.astype(np.float16), labels, 1.0, 4)
    np.testing.assert_allclose(half.weights, only(features, labels, 1.0, 4).weights, atol=1e-2)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(value):
    features, labels = sample()
    features[3, 2] = value
    with pytest.raises(InputError, match="not finite"):
        only(features, labels, 1.0, 4)


def test_labels_and_penalties_outside_their_range_are_refused():
    features, labels = sample()
    with pytest.raises(InputError, match=r"labels must be in 0\.\.2"):
        only(features, labels, 1.0, 3)
    for solver in evaluation.SOLVERS.values():
        for penalty in (0.0, -1.0, np.nan, np.inf):
            with pytest.raises(InputError, match="positive"):
                next(solver(features, labels, np.array([1.0, penalty]), 4))


def test_selection_takes_the_smallest_penalty_of_the_best():
    rng = np.random.default_rng(0)
    features = np.concatenate([rng.normal(size=(60, 4)) + 20, rng.normal(size=(60, 4)) - 20]).astype(np.float32)
    labels = np.repeat([0, 1], 60)  # so far apart that every penalty is perfect
    rows = rng.permutation(120)
    split = Split(rows[:60], rows[60:90], rows[90:])
    for solver in evaluation.SOLVERS:
        result = evaluation.evaluate_linear(features, labels, split, 2, "top1", np.array([10.0, 0.1, 1.0]), solver)
        assert {point["validation"] for point in result.curve} == {100.0}
        assert result.penalty == 0.1


def test_scores_are_those_of_the_fits():
    features, labels = sample(120)
    split = Split(np.arange(60), np.arange(60, 90), np.arange(90, 120))
    grid = evaluation.lambda_grid(1e-2, 1e2, 5)
    result = evaluation.evaluate_linear(features, labels, split, 4, "top1", grid, "converged")
    chosen = only(features[:60], labels[:60], result.penalty, 4)
    np.testing.assert_allclose(result.validation_scores, chosen.scores(features[60:90]), atol=1e-2)
    np.testing.assert_allclose(result.test_scores, result.final.scores(features[90:120]))


def test_fits_without_their_certificate_are_warnings_of_either_normalisation(monkeypatch):
    features, labels = sample(120)
    index = Index(["x"] * 120, ["train"] * 80 + ["test"] * 40, labels, list("abcd"))
    both = {
        norm: Features(features + np.float32(number) * labels[:, None].astype(np.float32), {})
        for number, norm in enumerate(("imagenet", "none"))
    }
    exact = evaluation.evaluate_linear

    def missing(*arguments):
        result = exact(*arguments)
        curve = [point | {"converged": point["lambda"] > 1} for point in result.curve]
        return replace(result, curve=curve, final=replace(result.final, converged=False))

    monkeypatch.setattr(evaluation, "evaluate_linear", missing)
    settings = linear_settings(lambdas={"first": 0.1, "last": 10, "count": 3})
    measurement, _ = evaluation.measure_linear(both, index, "d", "top1", settings)
    assert [warning for warning in measurement.warnings if "converged" in warning] == [
        f"not converged under input normalisation {norm}: some of 3 penalties, the final fit"
        for norm in ("imagenet", "none")
    ]


def linear_settings(**changes):
    block = {
        "kind": "linear", "normalisation": "per-model", "transform": "resize16", "validation_fraction": 0.2, "seed": 0,
        "lambdas": {"first": 0.1, "last": 10, "count": 3},
    }  # fmt: skip
    return read_settings(LinearSettings, block | changes)


def warnings_of(features, index, metric="top1", **changes):
    one = {"none": Features(features, {})}
    return evaluation.measure_linear(one, index, "d", metric, linear_settings(**changes))[0]


@pytest.mark.parametrize("metric", ["top1", "mean-per-class", "map11"])
def test_classes_that_a_part_lacks_are_named(metric):
    """The score is that of the other classes, whose numbers stay those of the index."""
    rng = np.random.default_rng(0)
    labels = np.arange(800) % 4
    split = np.where(np.arange(800) < 600, "train", "test")
    kept = ~((labels == 1) & (split == "test")) & ~((labels == 3) & (split == "train"))
    labels, split = np.concatenate([labels[kept], [4]]), [*split[kept], "train"]
    features = (rng.normal(size=(5, 6))[labels] * 4 + rng.normal(size=(len(labels), 6))).astype(np.float32)
    names = ["ant", "bee", "cat", "dog", "emu"]
    target = labels.tolist() if metric != "map11" else [[label] for label in labels.tolist()]
    found = warnings_of(features, Index(["x"] * len(labels), split, target, names), metric)
    absent, untrained, single = [warning for warning in found.warnings if "classes have" in warning]
    assert "2 of 5" in absent and metric in absent and absent.endswith("bee, emu")
    assert "1 of 5" in untrained and untrained.endswith("dog")
    assert "1 of 5" in single and single.endswith("emu")
    assert found.coverage["classes"] == {"used": 3, "promised": None, "left_out": ["bee", "emu"]}
    tested = labels[np.array(split) == "test"]
    if metric == "top1":
        assert found.values[0]["value"] > 90 * np.mean(tested != 3)


def test_doubtful_penalties_are_named():
    features, labels = sample(160)
    index = Index(["x"] * 160, ["train"] * 100 + ["test"] * 60, labels.tolist(), list("abcd"))
    found = warnings_of(features + 20 * np.eye(12, dtype=np.float32)[labels], index, validation_fraction=0.11)
    edge, few = found.warnings
    assert "0.1" in edge and "smallest" in edge
    assert "11 validation images" in few and "3 of 3 penalties" in few
    one = warnings_of(features, index, lambdas={"first": 1, "last": 1, "count": 1}).warnings
    assert not any("of the grid" in warning for warning in one)
    curve = [{"lambda": penalty, "validation": 50.0 + penalty} for penalty in (10.0, 1.0, 0.1)]
    split = Split(np.arange(60), np.arange(60, 90), np.arange(90, 160))
    result = evaluation.evaluate_linear(features, labels, split, 4, "top1", np.array([1.0]), "converged")
    for penalty, expected in ((10.0, ["largest"]), (1.0, []), (0.1, ["smallest"])):
        lines = evaluation.selection_warnings(replace(result, penalty=penalty, curve=curve), 100)
        assert [line.split(" of the grid")[0].split()[-1] for line in lines] == expected


@pytest.mark.parametrize("normalisation", ["per-model", "validation-max"])
def test_draws_of_the_validation_part_are_runs_with_further_seeds(normalisation):
    features, labels = sample(160)
    index = Index(["x"] * 160, ["train"] * 100 + ["test"] * 60, labels.tolist(), list("abcd"))
    weak, noise = np.random.default_rng(1).normal(size=(2, *features.shape)).astype(np.float32)
    both = {"imagenet": Features(features + 3 * weak, {}), "none": Features(features + 3 * noise, {})}
    found = both if normalisation == "validation-max" else {"none": both["none"]}
    changes = {"normalisation": normalisation, "lambdas": {"first": 1e-4, "last": 1e4, "count": 17}}

    def measure(**more):
        return evaluation.measure_linear(found, index, "d", "top1", linear_settings(**changes, **more))

    drawn, predictions = measure(validation_draws=3, seed=4)
    runs = [measure(seed=seed) for seed in (4, 5, 6)]
    values = [measurement.values[0]["value"] for measurement, _ in runs]
    details = dict(drawn.details)
    draws = details.pop("validation_draws")
    assert draws["values"] == values
    assert len(set(values)) > 1
    assert draws["mean"] == pytest.approx(np.mean(values))
    assert draws["standard_deviation"] == pytest.approx(stats.tstd(values))
    assert draws["seeds"] == [4, 5, 6]
    assert draws["lambdas"] == [run.more["selected"]["lambda"] for run, _ in runs]
    assert draws["validation"] == [run.more["selected"]["validation"] for run, _ in runs]
    assert draws["norms"] == [run.preprocessing["norm"] for run, _ in runs]
    warnings = [text for text in drawn.warnings if "3 draws" not in text]
    own, first = (replace(m, outcomes=[]) for m in (replace(drawn, details=details, warnings=warnings), runs[0][0]))
    assert own == first
    assert [o.interval for o in drawn.outcomes] == [o.interval for o in runs[0][0].outcomes]
    assert len(warnings) == len(drawn.warnings) - 1
    for name, array in vars(runs[0][1]).items():
        assert np.array_equal(getattr(predictions, name), array)


def test_draws_share_the_final_fit_of_a_penalty(monkeypatch):
    features, labels = sample(160)
    index = Index(["x"] * 160, ["train"] * 100 + ["test"] * 60, labels.tolist(), list("abcd"))
    fitted = []

    def counted(features, labels, lambdas, *arguments):
        fitted.append(len(features))
        return logistic.fit_path(features, labels, lambdas, *arguments)

    monkeypatch.setitem(evaluation.SOLVERS, "converged", counted)
    found = warnings_of(features, index, validation_draws=8)
    penalties = found.details["validation_draws"]["lambdas"]
    assert fitted.count(80) == 8
    assert fitted.count(100) == len(set(penalties)) < 8


def test_draws_have_no_effect_beside_an_official_validation_part():
    features, labels = sample(160)
    index = Index(["x"] * 160, ["train"] * 60 + ["val"] * 40 + ["test"] * 60, labels.tolist(), list("abcd"))
    once, drawn = (warnings_of(features, index, validation_draws=count) for count in (1, 5))
    assert drawn.details == once.details
    [added] = [text for text in drawn.warnings if text not in once.warnings]
    assert "validation_draws" in added


@pytest.mark.parametrize("normalisation", ["test-max", "validation-max"])
def test_the_input_normalisation_is_selected_by_what_the_settings_say(normalisation, monkeypatch):
    """One normalisation is better on validation, the other on test; only the biased choice is warned of."""
    index = Index(["x"] * 12, ["train"] * 4 + ["val"] * 4 + ["test"] * 4, [0, 1] * 6, ["a", "b"])
    both = {norm: Features(np.full((12, 1), number, np.float32), {"n": number}) for number, norm in enumerate("pq")}
    exact = evaluation.evaluate_linear

    def scored(features, *arguments):
        number = int(features[0, 0])
        result = exact(np.random.default_rng(0).normal(size=(12, 2)).astype(np.float32), *arguments)
        return replace(result, test=(80.0, 60.0)[number], validation=(50.0, 70.0)[number])

    monkeypatch.setattr(evaluation, "evaluate_linear", scored)
    settings = linear_settings(normalisation=normalisation)
    measurement, _ = evaluation.measure_linear(both, index, "d", "top1", settings)
    by_test = normalisation == "test-max"
    assert measurement.values[0]["value"] == (80.0 if by_test else 60.0)
    assert measurement.preprocessing["norm"] == ("p" if by_test else "q")
    assert measurement.checkpoint == {"n": 0 if by_test else 1}
    assert (BIASED in measurement.warnings) == by_test


@pytest.mark.parametrize("case", ["single", "multi", "ignored"])
def test_certificate_is_recomputed_from_the_features(case):
    features, labels = with_ignored_pairs() if case == "ignored" else sample()
    if case == "multi":
        labels = labels[:, None] == np.arange(3)
    for fit in logistic.fit_path(features, labels, np.array([10, 0.1, 1e-3]), 5 if case == "single" else 3):
        objective, gap, converged = certificate.certify(features, labels, fit.penalty, fit.weights, fit.bias)
        assert converged
        assert objective == pytest.approx(fit.objective, rel=1e-9)
        assert gap == pytest.approx(fit.gap, rel=1e-3, abs=1e-12)


@pytest.mark.parametrize("multi", [False, True])
def test_certificate_bounds_the_distance_of_any_solution(multi):
    features, labels = sample()
    labels = labels[:, None] == np.arange(4) if multi else labels
    rng = np.random.default_rng(0)
    for penalty in PATH:
        fit = only(features, labels, penalty, 4)
        for weights, bias in [
            (fit.weights, fit.bias + [1, 0, 0, 0]),
            (fit.weights + 0.1 * rng.normal(size=fit.weights.shape), fit.bias),
            (0 * fit.weights, 0 * fit.bias),
        ]:
            objective, gap, converged = certificate.certify(features, labels, penalty, weights, bias)
            assert not converged
            assert objective - fit.objective <= gap * objective
        assert certificate.certify(features, labels, penalty, fit.weights, fit.bias)[2]


def test_official_path_is_scikit_learns_hundred_iterations():
    features, labels = sample(300, 40, 4)
    ours = {fit.penalty: fit for fit in logistic.fit_path(features, labels, np.array([10.0, 1e-5]), 4)}
    for fit in official.official_path(features, labels, np.array([10.0, 1e-5]), 4):
        assert fit.objective >= ours[fit.penalty].objective * (1 - 1e-4)
        assert fit.newton_steps <= 100
        if fit.penalty == 10.0:
            assert fit.objective == pytest.approx(ours[10.0].objective, rel=1e-3)
    multi = labels[:, None] == np.arange(4)
    halved = next(official.official_path(features, multi, np.array([2.0]), 4))
    exact = only(features, multi, 1.0, 4)
    at_half, gap, converged = certificate.certify(features, multi, 1.0, halved.weights, halved.bias)
    assert (halved.objective, halved.gap, halved.converged) == (at_half, gap, converged)
    at_full, _, _ = certificate.certify(features, multi, 2.0, halved.weights, halved.bias)
    assert at_half == pytest.approx(exact.objective, rel=1e-2)
    assert at_full > 1.01 * only(features, multi, 2.0, 4).objective


def test_official_fits_of_several_labels_are_certified_for_what_they_minimise():
    """Their penalty is halved; against the whole one, no converged fit meets the certificate."""
    features, labels = with_ignored_pairs()
    for binary in (labels > 0, labels):
        for fit in official.official_path(features, binary, np.array([1e3, 10.0, 1.0]), 3):
            exact = only(features, binary, fit.penalty / 2, 3)
            assert fit.converged and fit.gap < 1e-6
            assert fit.objective == pytest.approx(exact.objective, rel=1e-6)
    two = (labels[:, 0] > 0).astype(int)
    softmax = next(official.official_path(features, two, np.array([10.0]), 2))
    sigmoid = next(official.official_path(features, two[:, None] == 1, np.array([10.0]), 1))
    assert softmax.converged and softmax.objective == pytest.approx(sigmoid.objective, rel=1e-6)


@pytest.mark.parametrize("scale", [1e5, 1e8, 1e25])
@pytest.mark.parametrize("shape", [(80, 12), (30, 50)], ids=["tall", "wide"])
def test_features_of_a_huge_scale_are_fitted_or_said_not_to_be(scale, shape):
    """All probabilities are 0 or 1 in float64, so that no direction has curvature."""
    features, labels = sample(*shape)
    with np.errstate(all="ignore"):
        fits = list(logistic.fit_path(features * np.float32(scale), labels, np.array([1.0, 1e-4]), 4))
    assert np.isfinite([fit.weights for fit in fits]).all()
    assert all(fit.gap < 1e-3 for fit in fits if fit.converged)
    assert scale == 1e5 or not any(fit.converged for fit in fits)


def test_evaluate_linear_refits_on_training_and_validation():
    features, labels = sample(120)
    split = Split(np.arange(60), np.arange(60, 90), np.arange(90, 120))
    grid = evaluation.lambda_grid(1e-2, 1e2, 5)
    result = evaluation.evaluate_linear(features, labels, split, 4, "top1", grid, "converged")
    refit = only(features[:90], labels[:90], result.penalty, 4)
    expected = 100 * np.mean(refit.scores(features[90:]).argmax(axis=1) == labels[90:])
    assert result.test == pytest.approx(expected)
    assert len(result.curve) == 5
    assert result.validation == max(point["validation"] for point in result.curve)


def test_grid_of_the_paper():
    grid = evaluation.lambda_grid(1e-6, 1e5, 45)
    assert len(grid) == 45
    assert grid[0] == pytest.approx(1e-6)
    assert grid[-1] == pytest.approx(1e5)
    np.testing.assert_allclose(np.diff(np.log10(grid)), 0.25)


def problems():
    """Single-label (tall, wide) and multi-label data, with a name each."""
    yield "tall", *sample(), 4
    yield "wide", *sample(30, 50), 4
    yield "missing-class", sample()[0], np.where(sample()[1] == 2, 0, sample()[1]), 5
    yield "binary", *with_ignored_pairs(), 3


PROBLEMS = [pytest.param(*values, id=name) for name, *values in problems()]
PATH = np.array([1e3, 1.0, 1e-2, 1e-6])


def agree(fits, others):
    """Both certified, so objectives agree to the gap and weights to twice the tolerance."""
    for fit, other in zip(fits, others, strict=True):
        assert fit.converged
        assert other.converged
        assert fit.penalty == other.penalty
        assert fit.objective == pytest.approx(other.objective, rel=1e-6 if fit.penalty >= 1e-2 else 1e-4)
        distance = np.linalg.norm(fit.weights - other.weights)
        assert distance <= 2 * certificate.tolerance(fit.penalty) * np.linalg.norm(fit.weights)
        infinite = ~np.isfinite(fit.bias)
        assert (fit.bias[infinite] == other.bias[infinite]).all()


@pytest.mark.parametrize(("features", "labels", "classes"), PROBLEMS)
def test_torch_agrees_with_numpy(features, labels, classes):
    on_torch = Arrays(torch, torch.device("cpu"))
    numpy_fits = list(logistic.fit_path(features, labels, PATH, classes))
    torch_fits = list(logistic.fit_path(features, labels, PATH, classes, on_torch))
    agree(torch_fits, numpy_fits)
    assert isinstance(torch_fits[0].weights, np.ndarray)
    assert torch_fits[0].weights.dtype == np.float64


@pytest.mark.parametrize(("features", "labels", "classes"), PROBLEMS)
@pytest.mark.parametrize("share", [0.25, 0.0], ids=["resident", "streamed"])
def test_gpu_agrees_with_cpu(features, labels, classes, share, monkeypatch, any_gpu):
    monkeypatch.setattr(design_matrix, "RESIDENT_SHARE", share)
    on_gpu = logistic.fit_path(features, labels, PATH, classes, Arrays(torch, any_gpu))
    agree(on_gpu, logistic.fit_path(features, labels, PATH, classes))


@pytest.mark.parametrize(("features", "labels", "classes"), PROBLEMS)
@pytest.mark.parametrize("module", [np, torch], ids=["numpy", "torch"])
def test_streamed_path_equals_the_one_in_memory(features, labels, classes, module, monkeypatch, tmp_path):
    np.save(tmp_path / "features.npy", features)
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    arrays = Arrays(module, torch.device("cpu"))
    in_memory = list(logistic.fit_path(features, labels, PATH, classes, arrays))
    monkeypatch.setattr(design_matrix, "RESIDENT_SHARE", 0.0)
    monkeypatch.setattr(design_matrix, "BLOCK", 7 * features.shape[1])  # blocks of seven rows
    assert Design(mapped, classes, arrays).streamed
    agree(logistic.fit_path(mapped, labels, PATH, classes, arrays), in_memory)


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("shape", [(80, 12), (30, 50)], ids=["tall", "wide"])
def test_products_in_blocks_are_those_of_the_explicit_matrix(precision, shape, monkeypatch):
    features, _ = sample(*shape)
    matrices = [Design(features, 3, NUMPY)]
    monkeypatch.setattr(design_matrix, "BLOCK", 7 * features.shape[1])
    monkeypatch.setattr(design_matrix, "PRODUCT_BYTES", 1e15)
    matrices.append(Design(features, 3, NUMPY))
    monkeypatch.setattr(design_matrix, "RESIDENT_SHARE", 0.0)
    matrices.append(Design(features, 3, NUMPY))
    assert [(matrix.streamed, matrix.keeps_products, len(matrix.rows) > 1) for matrix in matrices] == [
        (False, True, False),
        (False, False, True),
        (True, False, True),
    ]
    basis = matrices[0].basis
    assert np.abs(basis.T @ basis - np.eye(basis.shape[1])).max() < 1e-10
    explicit = np.column_stack([(features - features.mean(axis=0, dtype=float)) @ basis, np.ones(len(features))])
    rng = np.random.default_rng(0)
    params = rng.normal(size=(explicit.shape[1], 3)).astype(precision)
    values = rng.normal(size=(len(features), 3)).astype(precision)
    close = {"rtol": 0, "atol": 1e-9 if precision == "float64" else 1e-3}
    for matrix in matrices:
        parts = [values[rows] for rows in matrix.rows]
        products = np.concatenate(list(matrix.products(params, precision)))
        np.testing.assert_allclose(products, explicit @ params, **close)
        np.testing.assert_allclose(matrix.transposed_times(parts, precision), explicit.T @ values, **close)
        gram = matrix.weighted_gram_times(params, lambda number, block, parts=parts: parts[number] * block, precision)
        np.testing.assert_allclose(gram, explicit.T @ (values * (explicit @ params)), **close)
        squares = matrix.squared_transposed_times([part.astype(np.float32) for part in parts])
        np.testing.assert_allclose(squares, (explicit**2).T @ values, rtol=0, atol=1e-3)


@pytest.mark.parametrize(("features", "labels", "classes"), PROBLEMS)
@pytest.mark.parametrize("module", [np, torch], ids=["numpy", "torch"])
def test_products_in_blocks_give_the_same_fits(features, labels, classes, module, monkeypatch):
    arrays = Arrays(module, torch.device("cpu"))
    whole = list(logistic.fit_path(features, labels, PATH, classes, arrays))
    certificates = [certificate.certify(features, labels, f.penalty, f.weights, f.bias) for f in whole]
    monkeypatch.setattr(design_matrix, "PRODUCT_BYTES", 1e15)
    monkeypatch.setattr(design_matrix, "BLOCK", 7 * features.shape[1])
    assert len(Design(features, classes, arrays).rows) > 1
    agree(logistic.fit_path(features, labels, PATH, classes, arrays), whole)
    for fit, (objective, gap, converged) in zip(whole, certificates, strict=True):
        found = certificate.certify(features, labels, fit.penalty, fit.weights, fit.bias)
        assert found == (pytest.approx(objective, rel=1e-12), pytest.approx(gap, rel=1e-6, abs=1e-15), converged)


@pytest.mark.parametrize(("features", "labels", "classes"), PROBLEMS)
def test_blocks_give_the_objective_and_its_derivatives_of_the_whole(features, labels, classes, monkeypatch):
    """In float64 to rounding: a step along the path takes the same sums in another order."""
    decided = losses.decided_classes(labels, classes)
    rng = np.random.default_rng(0)
    found = []
    for size in (1e15, 56):
        monkeypatch.setattr(design_matrix, "PRODUCT_BYTES", size)
        monkeypatch.setattr(design_matrix, "BLOCK", 7 * features.shape[1])
        design = Design(features, len(decided), NUMPY)
        problem = logistic._Problem(design, losses.make_loss(labels, decided, NUMPY), NUMPY)
        if not found:
            params, step = 0.1 * rng.normal(size=(2, design.columns, len(decided)))
        point = problem.optimise_bias(problem.point(params), 0.1)
        probabilities = problem.probabilities(point)
        value = problem.objective(point.params, problem.logits(point), 0.1)
        gradient = problem.gradient(point.params, probabilities, 0.1)
        weighing, diagonal = problem.curvature(probabilities, 0.1)
        product = problem.hessian_times(weighing, step, 0.1, "float64")
        downhill = -gradient / np.linalg.norm(gradient)
        moved = problem.line_search(point, downhill, value, np.sum(gradient * downhill), 0.1)
        found.append((value, gradient, diagonal, product, moved.params, np.concatenate(moved.logits)))
        assert len(design.rows) == (1 if size == 56 else len(design_matrix.row_blocks(*features.shape)))
    for one, other, digits in zip(*found, (1e-13, 1e-11, 1e-5, 1e-5, 1e-12, 1e-11), strict=True):
        np.testing.assert_allclose(one, other, rtol=digits, atol=digits * np.abs(other).max())


@pytest.mark.parametrize("kept", [True, False])
def test_memory_of_a_path_is_what_the_limits_promise(kept, monkeypatch, tmp_path):
    """Three penalties, of which the continuation holds most: seven arrays of float64, or one and one of float32."""
    n, d, classes = 4000, 16, 200
    features, labels = sample(n, d, classes)
    np.save(tmp_path / "features.npy", features)
    features = np.load(tmp_path / "features.npy", mmap_mode="r")
    monkeypatch.setattr(design_matrix, "BLOCK", 50 * classes)
    if not kept:
        monkeypatch.setattr(design_matrix, "RESIDENT_SHARE", 0.0)
    tracemalloc.start()
    fits = list(logistic.fit_path(features, labels, np.array([1e3, 3e2, 1e2]), classes))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert all(fit.converged and fit.newton_steps for fit in fits)
    fixed = 12 * n * d + 6 * 8 * classes**2 + 8 * 8 * 50 * classes + 2**20
    assert (design_matrix.PRODUCT_BYTES if kept else 12) * n * classes / 1.3 < peak
    assert peak < (design_matrix.PRODUCT_BYTES if kept else 12) * n * classes + fixed


def test_evaluation_from_a_memory_map_in_blocks(monkeypatch, tmp_path):
    features, labels = sample(120)
    split = Split(np.arange(60), np.arange(60, 90), np.arange(90, 120))
    grid = evaluation.lambda_grid(1e-2, 1e2, 5)
    expected = evaluation.evaluate_linear(features, labels, split, 4, "top1", grid, "converged")
    np.save(tmp_path / "features.npy", features)
    monkeypatch.setattr(design_matrix, "RESIDENT_SHARE", 0.0)
    monkeypatch.setattr(design_matrix, "BLOCK", 7 * 12)
    found = evaluation.evaluate_linear(
        np.load(tmp_path / "features.npy", mmap_mode="r"), labels, split, 4, "top1", grid, "converged"
    )
    assert (found.penalty, found.test, found.validation) == (expected.penalty, expected.test, expected.validation)
    np.testing.assert_allclose(found.test_scores, expected.test_scores, atol=1e-2)


def test_large_matrices_are_streamed():
    class Small(Arrays):
        def memory(self):
            return 12 * 80 * 12 * 4 - 1  # a quarter of it is one byte too little

    features, _ = sample()
    assert Design(features, 1, Small()).streamed
    assert not Design(features, 1, NUMPY).streamed
    assert Design(features, 2, Small()).keeps_products  # 56 * 2 bytes for each sample, of 12 * 12
    assert not Design(features, 3, Small()).keeps_products
    assert 0 < NUMPY.memory() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_number_of_threads_does_not_matter():
    features, labels = sample(300, 200, 5)
    paths = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            paths.append(list(logistic.fit_path(features, labels, PATH, 5)))
    agree(*paths)


def test_known_optimum():
    """Samples at -1 and 1 of two classes: by symmetry b = 0, W = (-w, w), F = 2 log(1 + exp(-2 w)) + w^2."""
    fit = only(np.array([[-1.0], [1.0]]), np.array([0, 1]), 1.0, 2)
    w = brentq(lambda w: 2 * w - 4 / (1 + np.exp(2 * w)), 0, 1, xtol=1e-14)
    np.testing.assert_allclose(fit.weights, [[-w, w]], rtol=2e-3)
    np.testing.assert_allclose(fit.bias, 0, atol=1e-3)
    assert fit.objective == pytest.approx(2 * np.log1p(np.exp(-2 * w)) + w**2, rel=1e-6)


def test_one_penalty_equals_the_same_point_of_a_path():
    features, labels = sample()
    agree(
        [only(features, labels, 1e-2, 4)],
        [f for f in logistic.fit_path(features, labels, PATH, 4) if f.penalty == 1e-2],
    )
    split = Split(np.arange(40), np.arange(40, 60), np.arange(60, 80))
    result = evaluation.evaluate_linear(features, labels, split, 4, "top1", np.array([1.0]), "converged")
    assert result.penalty == 1.0
    assert len(result.curve) == 1


@pytest.mark.parametrize("absent_from", ["train", "val"])
@pytest.mark.parametrize("metric", ["top1", "mean-per-class", "map11"])
def test_class_missing_from_a_part(absent_from, metric):
    features, labels = sample(160)
    rows = np.arange(160)
    split = Split(rows[:80], rows[80:120], rows[120:])
    part = getattr(split, absent_from)
    split = Split(**{**vars(split), absent_from: part[labels[part] != 2]})
    target = labels[:, None] == np.arange(4) if metric == "map11" else labels
    for solver in evaluation.SOLVERS:
        result = evaluation.evaluate_linear(features, target, split, 4, metric, np.array([0.1, 1.0]), solver)
        assert np.isfinite([result.test, result.validation]).all()
        assert np.isfinite(result.final.weights).all()
        if absent_from == "train" and metric != "map11":
            assert not (result.validation_scores.argmax(axis=1) == 2).any()


def test_one_sample_a_class_of_each_problem():
    features, _ = sample(5, 12, 5)
    assert only(features, np.eye(5, dtype=bool), 1e-3, 5).converged
    fit = only(features, np.arange(5), 1e-6, 5)
    assert fit.converged
    assert (fit.scores(features).argmax(axis=1) == np.arange(5)).all()


def test_evaluation_on_cached_features_imports_no_torch_without_gpu():
    code = (
        "import sys; import ssltransfer.protocols.linear.evaluation; "
        "from ssltransfer import device; device.has_gpu = lambda: False; "
        "assert device.choose_arrays().xp.__name__ == 'numpy'; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY / "scripts")


def test_a_driver_without_a_usable_gpu_means_numpy(monkeypatch):
    monkeypatch.setattr(device, "has_gpu", lambda: True)
    monkeypatch.setattr(device, "choose_device", lambda: torch.device("cpu"))
    assert device.choose_arrays() is NUMPY
    monkeypatch.setattr(device, "choose_device", lambda: torch.device("cuda"))
    assert device.choose_arrays() == Arrays(torch, torch.device("cuda"))

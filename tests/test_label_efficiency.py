"""Label-efficiency curves: nested subsets, penalties chosen among the labelled images alone, and label equivalence."""

import json
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from test_knn import dataset

from ssltransfer.analysis.label_curves import collect_curves, label_equivalence, labels_needed
from ssltransfer.analysis.pairs import compare_models
from ssltransfer.array_backend import Arrays
from ssltransfer.datasets.index import Index
from ssltransfer.errors import InputError
from ssltransfer.models.feature_file import Features
from ssltransfer.protocols.label_efficiency import evaluation
from ssltransfer.protocols.label_efficiency.evaluation import measure_label_efficiency
from ssltransfer.protocols.label_efficiency.selection import FIXED, choose_and_fit, log_losses
from ssltransfer.protocols.label_efficiency.settings import LabelEfficiencySettings
from ssltransfer.protocols.label_efficiency.subset_lists import SUBSET_LISTS, read_subset_list
from ssltransfer.protocols.label_efficiency.subsets import (
    Point,
    curve_points,
    draw_order,
    draw_subset,
    find_listed,
    rank_in_class,
)
from ssltransfer.protocols.linear import design_matrix
from ssltransfer.protocols.linear.evaluation import measure_linear
from ssltransfer.protocols.linear.settings import LinearSettings
from ssltransfer.protocols.stored_outcomes import derive_outcomes
from ssltransfer.report.label_tables import label_tables
from ssltransfer.report.labels import Labels
from ssltransfer.results import score_file
from ssltransfer.results.outcome_file import identity, load_outcomes
from ssltransfer.results.outcome_header import outcome_path
from ssltransfer.settings import complete, read_settings

LINEAR = complete({"kind": "linear", "lambdas": {"first": 1e-2, "last": 1e2, "count": 5}})
BLOCK = complete({"kind": "label-efficiency", "of": "linear", "images_per_class": [1, 2, 5, 200], "percent": [1, 50]})


def test_points_that_the_classes_are_too_small_for_are_left_out_and_smaller_classes_named():
    labels = np.repeat(np.arange(5), [40, 40, 40, 40, 10])
    points, notes = curve_points(labels, [32, 1, 64], [1, 10], draws=5, draws_above=3)
    assert points == [
        Point("1-per-class", 5, per_class=1),
        Point("32-per-class", 3, per_class=32),
        Point("10-percent", 5, share=0.1),
    ]
    assert notes == [
        "32 per class: 1 of 5 classes are smaller and are taken whole",
        "64 per class is left out: the median class has 40 images",
        "1 % is left out: less than one image of a class of 40",
    ]


def test_subsets_are_balanced_nested_and_depend_on_dataset_and_seed_alone():
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(6), 30))
    position = draw_order(labels, "x", 0)
    subsets = [draw_subset(labels, position, Point("", 1, per_class=n)) for n in (1, 2, 8)]
    for number, subset in zip((1, 2, 8), subsets, strict=True):
        assert (np.bincount(labels[subset]) == number).all()
    assert set(subsets[0]) < set(subsets[1]) < set(subsets[2])
    assert (np.bincount(labels[draw_subset(labels, position, Point("", 1, share=0.1))]) == 3).all()
    assert (np.bincount(labels[draw_subset(labels, position, Point("", 1, share=0.001))]) == 1).all()
    assert np.array_equal(position, draw_order(labels, "x", 0))
    assert not np.array_equal(position, draw_order(labels, "y", 0))
    assert not np.array_equal(position, draw_order(labels, "x", 1))


def test_every_image_is_drawn_with_the_same_frequency():
    labels = np.repeat(np.arange(3), 10)
    counts = sum(draw_order(labels, "x", seed) < 2 for seed in range(2000))
    assert abs(counts - 400).max() < 4.5 * np.sqrt(2000 * 0.2 * 0.8)


def test_several_labels_are_drawn_as_a_share_of_all_images():
    labels = np.random.default_rng(0).random((80, 4)) < 0.4
    points, notes = curve_points(labels, [1, 2], [1, 10], 5, 3)
    assert [point.setting for point in points] == ["10-percent"]
    assert "1 % is left out" in notes[1] and "shares of all images" in notes[0]
    assert len(draw_subset(labels, draw_order(labels, "x", 0), points[0])) == 8


def few(per_class, seed=0, d=12):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(3), per_class)
    features = rng.normal(size=(len(labels), d)) + 1.5 * np.eye(3, d)[labels]
    return features, labels, draw_order(labels, "x", seed)


@pytest.mark.parametrize(("per_class", "folds"), [(2, 2), (4, 4), (12, 5)])
def test_the_strongest_penalty_within_a_standard_error_of_the_best_held_out_loss(per_class, folds):
    features, labels, position = few(per_class)
    grid = np.logspace(-1, 2, 4)
    chosen = choose_and_fit(features, labels, position, 3, grid)
    losses = []
    for penalty in grid[::-1]:
        found = np.empty(len(labels))
        for k in range(folds):
            held = position % folds == k
            model = LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=5000).fit(features[~held], labels[~held])
            probabilities = model.predict_proba(features[held])
            found[held] = [
                log_loss([y], [p], labels=[0, 1, 2]) for y, p in zip(labels[held], probabilities, strict=True)
            ]
        losses.append((found.mean(), found.std(ddof=1) / np.sqrt(len(found))))
    best = min(losses)
    expected = next(p for p, (mean, _) in zip(grid[::-1], losses, strict=True) if mean <= sum(best))
    assert chosen.folds == folds and chosen.fit.penalty == expected and chosen.converged
    assert chosen.edge == (expected in (grid[0], grid[-1]))


def test_the_folds_share_the_memory(monkeypatch):
    """All paths are held at once: one of them would fit as a whole, but not five."""

    class Small(Arrays):
        def _memory(self):
            return 100 * 2**20

    classes, per_class, d = 200, 10, 16
    labels = np.repeat(np.arange(classes), per_class)
    features = np.random.default_rng(0).normal(size=(len(labels), d)) + 3 * np.eye(classes, d)[labels]
    position = draw_order(labels, "x", 0)
    grid = np.array([1e3, 3e2, 1e2])
    expected = choose_and_fit(features, labels, position, classes, grid)
    monkeypatch.setattr(design_matrix, "BLOCK", 50 * classes)
    tracemalloc.start()
    found = choose_and_fit(features, labels, position, classes, grid, Small())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    one = 0.8 * len(labels) * classes
    assert design_matrix.PRODUCT_BYTES * one < 0.25 * Small()._memory()
    assert peak < 5 * 12 * one + 8 * 2**20 < design_matrix.PRODUCT_BYTES * 2 * one
    assert found.fit.penalty == expected.fit.penalty and found.converged
    assert np.allclose(found.fit.scores(features), expected.fit.scores(features), atol=1e-2)


def test_one_image_per_class_has_a_fixed_penalty_for_features_of_norm_one():
    features, labels, position = few(1)
    found = choose_and_fit(features, labels, position, 3, np.array([1.0]))
    spread = ((features - features.mean(axis=0)) ** 2).sum(axis=1).mean()
    assert found.folds == 0 and found.fit.penalty == pytest.approx(FIXED * spread)
    scaled = choose_and_fit(100 * features, labels, position, 3, np.array([1.0]))
    assert np.allclose(found.fit.scores(features), scaled.fit.scores(100 * features), atol=5e-2)


def test_log_losses_of_one_and_of_several_labels():
    scores = np.array([[0.0, np.log(3)], [-np.inf, 0.0]])
    assert log_losses(scores, np.array([1, 0])) == pytest.approx([np.log(4 / 3), -np.log(1e-6)])
    several = log_losses(np.array([[0.0, 0.0, 5.0]]), np.array([[1, 0, -1]], np.int8))
    assert several == pytest.approx([2 * np.log(2)])


def curve(index, features, metric="top1", block=BLOCK, **more):
    given, linear = Features(features, {"source": "x"}, "bfloat16"), read_settings(LinearSettings, LINEAR)
    many = measure_linear({"none": given}, index, "x", metric, linear)[0]
    whole = {"values": score_file.with_intervals(many)[0], "warnings": [], "preprocessing": many.preprocessing}
    settings = read_settings(LabelEfficiencySettings, block)
    return measure_label_efficiency(given, index, "x", metric, settings, linear, whole, **more), whole


def test_a_curve_and_its_last_point_which_is_the_many_shot_score():
    index, features = dataset(n=400)
    score, whole = curve(index, features)
    settings = [value["setting"] for value in score.values]
    points = ["1-per-class", "2-per-class", "5-per-class", "50-percent"]
    assert settings == [*points, *(f"knn-{point}" for point in points), "area", "all"]
    assert score.values[-1]["value"] == whole["values"][0]["value"]
    assert score.precision == "bfloat16"
    assert score.outcomes[-1].interval.low == whole["values"][0]["low"]
    assert score.details["labelled"]["all"] == (np.array(index.split) == "train").sum()
    draws = score.details["draws"]
    assert [len(draws[point]) for point in points] == [5, 5, 5, 3]
    assert score.values[1]["value"] == pytest.approx(np.mean(draws["2-per-class"]))
    heights = [np.mean(draws[point]) for point in points] + [score.values[-1]["value"]]
    assert min(heights) < score.values[-2]["value"] < max(heights)
    assert any("200 per class is left out" in text for text in score.warnings)


def test_nothing_is_chosen_on_test_labels():
    index, features = dataset(n=300)
    score, _ = curve(index, features)
    labels = np.array(index.label)
    labels[np.array(index.split) == "test"] = 0
    index.label = labels.tolist()
    other, _ = curve(index, features)
    assert other.details["penalties"] == score.details["penalties"]
    assert other.details["subsets"] == score.details["subsets"]


def test_fits_in_the_span_of_the_labelled_images_are_those_of_all_features(monkeypatch):
    rng = np.random.default_rng(0)
    index, features = dataset(n=300)
    features = np.concatenate([features, rng.normal(size=(300, 60))], axis=1).astype(np.float32)
    rotated, _ = curve(index, features)
    monkeypatch.setattr(evaluation, "rotatable", lambda subsets, width: np.empty(0, int))
    plain, _ = curve(index, features)
    for name, penalties in rotated.details["penalties"].items():
        assert penalties == pytest.approx(plain.details["penalties"][name])
    for one, other in zip(rotated.values, plain.values, strict=True):
        assert one["value"] == pytest.approx(other["value"], abs=0.5)


def test_rotation_takes_the_smallest_subsets_that_fit_together():
    subsets = [np.array([0, 1, 2, 3]), np.array([0, 4]), np.array([0, 1])]
    assert evaluation.rotatable(subsets, 3).tolist() == [0, 1, 4]
    assert evaluation.rotatable(subsets, 5).tolist() == [0, 1, 2, 3, 4]
    assert evaluation.rotatable(subsets, 1).tolist() == []


def test_a_published_list_is_a_point_of_one_draw_without_an_interval():
    index, features = dataset(n=400)
    training = np.flatnonzero(np.array(index.split) == "train")
    listed = {"simclr-1-percent": [index.image[row].rpartition("/")[2] for row in training[:60]]}
    plain, _ = curve(index, features)
    score, _ = curve(index, features, lists=listed)
    (value,) = [value for value in score.values if value["setting"] == "simclr-1-percent"]
    assert "low" not in value or value["low"] is None
    assert score.details["labelled"]["simclr-1-percent"] == 60
    assert score.details["subsets"]["simclr-1-percent"] == [identity(training[:60])]
    assert len(score.details["draws"]["knn-simclr-1-percent"]) == 1
    assert any("simclr-1-percent: a published list" in text for text in score.warnings)
    assert plain.details["draws"].items() <= score.details["draws"].items()  # the area among them


def test_images_of_a_list_are_found_by_name_among_the_training_images():
    index = Index(
        ["train/a/1.JPEG", "train/b/2.JPEG", "val/b/3.JPEG"], ["train", "train", "test"], [0, 1, 1], ["a", "b"]
    )
    pool = np.array([0, 1])
    assert find_listed(index, pool, ["2.JPEG", "1.JPEG"], "list", "x").tolist() == [0, 1]
    with pytest.raises(
        InputError, match="^x: 1 of the 2 images of list are not among the 2 training images, such as 3"
    ):
        find_listed(index, pool, ["1.JPEG", "3.JPEG"], "list", "x")


def test_a_list_has_the_published_number_of_images_each_once(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("b.JPEG\na.JPEG\n")
    assert read_subset_list(path, 2) == ["b.JPEG", "a.JPEG"]
    with pytest.raises(InputError, match="found 2 images, expected 12811"):
        read_subset_list(path, SUBSET_LISTS["simclr-1-percent"].images)
    path.write_text("b.JPEG\na.JPEG\nb.JPEG\n")
    with pytest.raises(InputError, match="'b.JPEG' is there twice"):
        read_subset_list(path, 3)


def test_images_of_a_list_are_dealt_to_the_folds_class_by_class():
    labels, position = np.array([1, 0, 1, 1, 0]), np.array([9, 4, 2, 5, 7])
    assert rank_in_class(labels, position).tolist() == [2, 0, 0, 1, 1]
    labels = np.repeat(np.arange(4), 25)
    order = draw_order(labels, "x", 0)
    subset = draw_subset(labels, order, Point("5-per-class", 1, per_class=5))
    assert rank_in_class(labels[subset], order[subset]).tolist() == order[subset].tolist()


def test_several_labels_have_a_curve():
    index, features = dataset(n=300, multi=True)
    score, _ = curve(index, features, "map11")
    settings = [value["setting"] for value in score.values]
    assert settings == ["50-percent", "knn-50-percent", "area", "all"]


def test_two_models_are_compared_over_the_draws_they_share():
    index, features = dataset(n=300)
    noise = np.random.default_rng(1).normal(size=features.shape).astype(np.float32)
    models = {name: curve(index, given)[0] for name, given in (("good", features), ("bad", features + 2 * noise))}
    outcomes = {name: score.outcomes[2] for name, score in models.items()}
    (pair,) = compare_models(outcomes).pairs.to_dict("records")
    differences = np.subtract(*(score.details["draws"]["5-per-class"] for score in models.values()))
    assert pair["difference"] == pytest.approx(differences.mean()) and pair["method"].startswith("paired t")


def test_outcomes_are_derived_from_the_score(tmp_path):
    index, features = dataset(n=300)
    score, _ = curve(index, features)
    file = tmp_path / "scores/curve/net/x.json"
    cell = {"model": "net", "protocol": "curve", "dataset": "x"}
    score_file.write(file, cell, score, BLOCK, {"protocol": 1}, {})
    expected = load_outcomes(outcome_path(file))
    outcome_path(file).unlink()
    derive_outcomes(tmp_path / "list.json", [file])
    derived = load_outcomes(outcome_path(file))
    assert list(derived) == list(expected)
    for name, outcome in derived.items():
        assert outcome.interval == expected[name].interval and outcome.identity == expected[name].identity
    curves = collect_curves([file])
    linear = curves[curves["classifier"] == "linear"]
    assert linear["images"].is_monotonic_increasing and linear["setting"].iloc[-1] == "all"
    assert len(json.loads(file.read_text())["values"]) == len(curves) + 1  # the area is no point


def test_labels_needed_between_two_points_before_the_first_and_never():
    images, scores = np.array([10.0, 40.0, 160.0]), np.array([20.0, 40.0, 30.0])
    assert labels_needed(images, scores, 30) == pytest.approx(20)
    assert labels_needed(images, scores, 10) == 10
    assert labels_needed(images, scores, 20) == 10
    assert labels_needed(images, scores, 41) == np.inf


def test_tables_of_curves_and_label_equivalence():
    rows = [
        ("curve", "x", "top1", "linear", model, setting, images, value, value - 1, value + 1)
        for model, values in (("a", (50, 70, 90)), ("b", (20, 30, 60)))
        for (setting, images), value in zip(
            (("1-per-class", 10), ("4-per-class", 40), ("all", 160)), values, strict=True
        )
    ]
    columns = ["protocol", "dataset", "metric", "classifier", "model", "setting", "images", "value", "low", "high"]
    curves = pd.DataFrame(rows, columns=columns)
    found = label_equivalence(curves).set_index(["model", "reference"])
    assert found.loc[("a", "b"), "share"] == pytest.approx(20 / 160) and found.loc[("a", "b"), "reached"] == "yes"
    assert found.loc[("b", "a"), "reached"] == "no" and np.isnan(found.loc[("b", "a"), "images"])
    points, equivalence = label_tables(curves, Labels({"a": "A", "b": "B"}, {}, {"curve": ""}))
    assert list(points.cells.columns) == ["1 per class", "4 per class", "all"]
    assert equivalence.cells.to_numpy().tolist() == [["", "0.125"], ["not reached", ""]]

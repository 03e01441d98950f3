import json
import os
import shutil

import numpy as np
import pytest
from detection_cases import random_case
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ssltransfer.analysis import uncertainty
from ssltransfer.analysis.resampling import required_hits
from ssltransfer.errors import InputError
from ssltransfer.protocols import calibration, fewshot
from ssltransfer.protocols.dense.normals.angles import AngularErrors
from ssltransfer.protocols.dense.normals.outcomes import histogram_medians, normals_outcomes
from ssltransfer.protocols.detection.average_precision import evaluate, match_detections, round_like_detectron2
from ssltransfer.protocols.detection.boxes import Detections, GroundTruth
from ssltransfer.protocols.detection.outcomes import average_precisions, detection_outcomes
from ssltransfer.protocols.image_means import image_mean_outcomes
from ssltransfer.protocols.linear.classification_metrics import mean_average_precision_11_point
from ssltransfer.protocols.linear.outcomes import classification_outcomes, mean_average_precisions
from ssltransfer.protocols.stored_outcomes import derive_outcomes
from ssltransfer.results import score_file
from ssltransfer.results.outcome_file import Outcome, assign_values, load_outcomes, save_outcomes
from ssltransfer.results.outcome_header import has_outcomes, list_missing, outcome_path, read_intervals
from ssltransfer.results.prediction_file import Predictions, save_predictions
from ssltransfer.results.scores import collect_scores

SIZES = st.integers(1, 40)


@given(st.integers(0, 300), st.integers(1, 300))
def test_wilson_is_scipys(right, wrong):
    found = uncertainty.wilson_interval(np.arange(right + wrong) < right, scale=1.0)
    expected = stats.binomtest(right, right + wrong).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


@given(st.lists(st.tuples(SIZES, SIZES), min_size=1, max_size=8))
def test_stratified_intervals_contain_their_value_and_are_never_points(classes):
    strata = np.repeat(np.arange(len(classes)), [sum(each) for each in classes])
    right = np.concatenate([np.arange(sum(each)) < each[0] for each in classes])
    found = uncertainty.stratified_interval(right, strata)
    value = 100 * np.mean([a / (a + b) for a, b in classes])
    assert 0 <= found.low < value < found.high <= 100


@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize("strata", [[0], [0, 1, 2], [0, 0, 0, 1]])
def test_all_right_and_all_wrong_have_an_interval_on_one_side(right, strata):
    found = uncertainty.stratified_interval(np.full(len(strata), right), np.array(strata))
    assert (found.high == 100 and 0 < found.low < 100) if right else (found.low == 0 and 0 < found.high < 100)


def test_strata_of_one_class_come_close_to_wilson():
    right = np.arange(200) < 150
    one, plain = uncertainty.stratified_interval(right, np.zeros(200, int)), uncertainty.wilson_interval(right)
    assert (one.low, one.high) == pytest.approx((plain.low, plain.high), abs=0.1)


def test_an_easy_class_does_not_hide_a_hard_one():
    strata = np.repeat([0, 1], [1000, 10])
    found = uncertainty.stratified_interval(np.r_[np.ones(1000, bool), np.arange(10) < 5], strata)
    alone = uncertainty.wilson_interval(np.arange(10) < 5)
    assert found.high - found.low > 0.4 * (alone.high - alone.low)


@given(st.lists(st.floats(0, 5), min_size=2, max_size=20).filter(lambda values: np.ptp(values) > 1e-3))
def test_t_is_scipys(values):
    found = uncertainty.t_interval(np.array(values), "lpips-alexnet", "images")
    low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    assert (found.low, found.high) == pytest.approx((max(low, 0), high))


def test_resamples_depend_on_the_number_of_units_alone():
    counts = uncertainty.resample_counts(30).copy()
    uncertainty.resample_counts.cache_clear()
    assert np.array_equal(uncertainty.resample_counts(30), counts)
    assert (counts.sum(axis=1) == 30).all() and len(np.unique(counts, axis=0)) > 900
    legacy = np.random.RandomState(0).randint(30, size=30)
    assert np.array_equal(counts[0], np.bincount(legacy, minlength=30)), "a stream that no version of numpy changes"


def test_levels_are_what_simulations_support():
    few, many = np.linspace(0, 1, 15), np.linspace(0, 1, 30)
    assert uncertainty.t_interval(few, "ssim", "images").level < 0.95
    assert uncertainty.t_interval(many, "ssim", "images").level == 0.95
    right = np.arange(20) < 12
    assert uncertainty.stratified_interval(right, np.arange(20) % 4).level == 0.95
    assert uncertainty.stratified_interval(right, np.arange(20).clip(0, 3)).level < 0.95


@given(st.integers(0, 60), st.floats(0, 1))
def test_required_hits_are_the_fewest(to_find, recall):
    (hits,) = required_hits(np.array([recall]), np.array([to_find]))[0]
    if to_find:
        assert hits / to_find >= recall and (hits == 0 or (hits - 1) / to_find < recall)
    else:
        assert hits == 0


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6))
def test_weights_and_repeated_images_give_the_same_map(seed):
    rng = np.random.default_rng(seed)
    n, classes = int(rng.integers(1, 25)), int(rng.integers(1, 4))
    labels = rng.choice(np.array([-1, 0, 0, 1], np.int8), (n, classes))
    labels[0, 0] = 1
    scores = rng.choice([rng.normal(size=(n, classes)), rng.integers(0, 4, (n, classes)).astype(float)])
    draws = [np.arange(n), *(rng.integers(n, size=n) for _ in range(5))]
    counts = np.stack([np.bincount(draw, minlength=n) for draw in draws]).astype(np.uint8)
    found = mean_average_precisions(labels, scores, counts)
    for value, draw in zip(found, draws, strict=True):
        if (labels[draw] > 0).any():
            assert value == pytest.approx(mean_average_precision_11_point(labels[draw], scores[draw]), rel=1e-5)
        else:
            assert np.isnan(value)


def repeated(columns, draw):
    """The rows of the drawn images, each copy of an image as an image of its own."""
    rows = [np.flatnonzero(columns["image"] == image) for image in draw]
    image = np.repeat(np.arange(len(draw)), [len(some) for some in rows])
    every = np.concatenate([np.empty(0, int), *rows])
    return {name: column[every] for name, column in columns.items()} | {"image": image}


@pytest.mark.parametrize("rule", ["11-point", "area"])
@pytest.mark.parametrize("seed", range(25))
def test_weights_and_repeated_images_give_the_same_ap(seed, rule):
    detections, objects, images = random_case(seed)
    rng = np.random.default_rng(seed)
    detections["score"] = rng.permutation(len(detections["score"])).astype(np.float32)  # ties of images have no order
    matches = match_detections(Detections(**detections), GroundTruth(**objects), 3)
    draws = [np.arange(images), *(rng.integers(images, size=images) for _ in range(6))]
    counts = np.stack([np.bincount(draw, minlength=images) for draw in draws]).astype(np.uint8)
    found = average_precisions(matches, GroundTruth(**objects), np.arange(images), rule, counts)
    for column, draw in zip(found.T, draws, strict=True):
        drawn = Detections(**repeated(detections, draw)), GroundTruth(**repeated(objects, draw))
        np.testing.assert_allclose(column, evaluate(*drawn, 3, rule).per_class.mean(axis=1), rtol=1e-10)


def test_detections_have_the_values_of_the_score_and_one_identity():
    detections, objects, images = random_case(3)
    rounded, truth = round_like_detectron2(Detections(**detections)), GroundTruth(**objects)
    outcomes = detection_outcomes(match_detections(rounded, truth, 3), truth, np.arange(images), "11-point")
    whole = evaluate(rounded, truth, 3, "11-point")
    assert {outcome.metric: outcome.value for outcome in outcomes} == pytest.approx(
        {"ap": whole.ap, "ap50": whole.ap50, "ap75": whole.ap75}
    )
    assert len({outcome.identity for outcome in outcomes}) == 1
    assert all(len(outcome.replicates) == uncertainty.RESAMPLES for outcome in outcomes)


def confidences(rng, n, too_sure=0.0):
    sure = rng.uniform(0.3, 1, n)
    return calibration.Confidences(np.arange(n), sure, rng.random(n) < sure - too_sure)


def test_calibration_errors_of_resamples_are_those_of_repeated_images():
    rng = np.random.default_rng(0)
    part = confidences(rng, 50)
    fold = calibration.Confidences(np.arange(10, 40), *(x[10:40] for x in (part.confidence, part.right)))
    draw = rng.integers(50, size=50)
    (found,) = calibration.ece_replicates([part, fold], np.bincount(draw, minlength=50)[None])
    errors = []
    for some in (draw, draw[(draw >= 10) & (draw < 40)]):
        gaps = (part.right - part.confidence)[some]
        bins = calibration.bin_numbers(part.confidence[some])
        errors.append(100 * sum(abs(gaps[bins == b].sum()) for b in range(15)) / len(some))
    assert found == pytest.approx(np.mean(errors))


def test_the_noise_floor_covers_calibrated_models_and_not_others():
    rng = np.random.default_rng(1)
    floor = calibration.noise_floor([confidences(rng, 400)], 400)
    inside = [calibration._ece(p, p.right - p.confidence) <= floor for p in (confidences(rng, 400) for _ in range(400))]
    assert 0.91 < np.mean(inside) < 0.985
    wrong = confidences(rng, 400, too_sure=0.2)
    assert calibration._ece(wrong, wrong.right - wrong.confidence) > floor


def test_the_debiased_squared_error_has_no_bias():
    rng = np.random.default_rng(2)
    found = []
    for _ in range(600):
        right = rng.random(60) < 0.7
        diagram = calibration.ReliabilityDiagram(np.array([60, 0]), np.array([0.8, 0]), np.array([right.mean(), 0]))
        found.append(calibration.debiased_squared_ece(diagram))
    assert np.mean(found) == pytest.approx(0.01, abs=4 * np.std(found) / np.sqrt(600))


def measured_normals(seed=0, images=12):
    rng, errors = np.random.default_rng(seed), AngularErrors()
    every = [rng.gamma(3, 8, int(rng.integers(0, 400))).clip(0, 180) for _ in range(images)]
    for some in every:
        errors.add(some)
    return errors, every


def test_normals_of_resamples_are_those_of_repeated_images():
    errors, every = measured_normals()
    names = [f"{number}.png" for number in range(len(every))]
    outcomes = normals_outcomes(names, None, errors.images, errors.median(), np.array(errors.histograms))
    found = {outcome.metric: outcome for outcome in outcomes}
    shares = dict(zip(("within-11.25", "within-22.5", "within-30"), errors.within(), strict=True))
    expected = {"mean-angle": errors.mean(), "median-angle": errors.median()} | shares
    assert {metric: outcome.value for metric, outcome in found.items()} == pytest.approx(expected)
    for number, counts in enumerate(uncertainty.resample_counts(len(every))[:20]):
        drawn = np.concatenate([errors for errors, count in zip(every, counts, strict=True) for _ in range(count)])
        assert found["mean-angle"].replicates[number] == pytest.approx(drawn.mean(), rel=1e-5)
        assert found["within-22.5"].replicates[number] == pytest.approx(100 * np.mean(drawn < 22.5), rel=1e-5)
        assert found["median-angle"].replicates[number] == pytest.approx(np.median(drawn), abs=0.26)


def test_the_median_of_a_histogram_is_within_its_bin():
    rng = np.random.default_rng(0)
    for n in (1, 2, 999, 10_000):
        angles, errors = rng.gamma(3, 8, n).clip(0, 179), AngularErrors()
        errors.add(angles)
        assert histogram_medians(errors.histograms[0][None])[0] == pytest.approx(
            np.median(angles), abs=0.13 if n > 2 else 9
        )


def test_scenes_are_resampled_whole():
    errors, every = measured_normals()
    scenes = [f"room {number // 4}" for number in range(len(every))]
    outcome = normals_outcomes(scenes, scenes, errors.images, errors.median(), np.array(errors.histograms))[0]
    assert outcome.units == "scenes" and outcome.parts["sums"].shape == (3, 5)
    assert outcome.interval.method.endswith("over scenes")


@pytest.mark.parametrize("units", [1, 3])
def test_means_over_images_need_two(units):
    (outcome,) = image_mean_outcomes([str(k) for k in range(units)], {"ssim": np.linspace(0.2, 0.4, units)})
    assert outcome.value == pytest.approx(0.2 if units == 1 else 0.3)
    assert (outcome.interval is None) == (units == 1) == bool(outcome.note)


def predictions(n=60, classes=3, seed=0, multi_label=False):
    rng = np.random.default_rng(seed)
    labels = rng.random((n, classes)) < 0.4 if multi_label else rng.integers(0, classes, n)
    if multi_label:
        labels[0] = True
    scores = rng.normal(size=(n, classes)).astype(np.float32)
    scores += 1.5 * (labels if multi_label else np.eye(classes)[labels]).astype(np.float32)
    return Predictions(scores, labels, scores[:20], labels[:20])


@pytest.mark.parametrize("metric", ["top1", "mean-per-class"])
def test_one_test_image_has_an_interval_of_nearly_everything(metric):
    (outcome,) = classification_outcomes(metric, predictions(n=1))
    assert outcome.interval.high - outcome.interval.low > 75
    assert outcome.interval.low <= outcome.value <= outcome.interval.high


def test_few_images_of_many_labels_say_why_there_is_no_interval():
    (outcome,) = classification_outcomes("map11", predictions(n=1, multi_label=True))
    assert outcome.interval is None and outcome.note
    (outcome,) = classification_outcomes("map11", predictions(multi_label=True))
    assert outcome.interval.low < outcome.value < outcome.interval.high and outcome.interval.level < 0.95


def test_outcomes_survive_the_file(tmp_path):
    outcomes = calibration.calibration_outcomes(predictions(), 0) + classification_outcomes(
        "mean-per-class", predictions()
    )
    save_outcomes(tmp_path / "a.npz", outcomes)
    found, headers = load_outcomes(tmp_path / "a.npz"), read_intervals(tmp_path / "a.npz")
    assert list(found) == list(headers) == [outcome.name for outcome in outcomes]
    for outcome in outcomes:
        again = found[outcome.name]
        for name in ("values", "strata", "replicates"):
            assert np.array_equal(getattr(again, name), getattr(outcome, name))
        assert again.interval == outcome.interval
        assert headers[outcome.name]["interval"]["low"] == outcome.interval.low


@pytest.mark.parametrize("content", [b"", b"PK", b"no zip at all"])
def test_another_file_is_no_outcomes(tmp_path, content):
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    for read in (read_intervals, load_outcomes):
        with pytest.raises(InputError, match=r"a\.npz"):
            read(path)


def test_outcomes_of_another_value_are_refused():
    outcome = Outcome("top1", "", 50.0, "test images", "id")
    entry = {"metric": "top1", "setting": "", "unit": "percent"}
    assert assign_values([entry | {"value": 50.0001}], [outcome])[0].value == 50.0001
    with pytest.raises(InputError, match="50"):
        assign_values([entry | {"value": 51.0}], [outcome])
    with pytest.raises(InputError, match="no outcomes of 5-shot top1"):
        assign_values([entry | {"value": 50.0, "setting": "5-shot"}], [outcome])


FEWSHOT = {"kind": "fewshot", "transform": "resize32", "normalisation": "per-model", "ways": 5, "shots": [5],
           "queries": 15, "episodes": 40, "seed": 0}  # fmt: skip


def write_score(folder, protocol, kind, values, outcomes, settings=None, **parts):
    path = folder / f"results/scores/{protocol}/m/digits.json"
    measurement = score_file.Measurement(
        kind, values, {}, {}, outcomes=outcomes, warnings=[], **{"details": {}} | parts
    )
    cell = {"model": "m", "protocol": protocol, "dataset": "digits"}
    score_file.write(path, cell, measurement, settings or {}, {}, {})
    return path


@pytest.fixture
def tree(tmp_path):
    """Scores of four kinds as their jobs write them, with what they store."""
    made, percent = predictions(), score_file.percent
    save_predictions(tmp_path / "results/predictions/linear/m/digits.npz", made)
    (right,) = classification_outcomes("top1", made)
    errors = calibration.calibration_outcomes(made, 0)
    settings = fewshot.FewShotSettings(**{key: value for key, value in FEWSHOT.items() if key != "kind"})
    correct = np.random.default_rng(0).binomial(75, 0.6, 40)
    episodes = fewshot.episode_outcome("digits", 300, settings, "5-shot", 75, correct)
    diffusion = {"cat": 40.0, "dog": 50.0, "owl": 47.0}
    (spread,) = image_mean_outcomes(list(diffusion), {"attentive-diffusion": list(diffusion.values())})
    return [
        write_score(tmp_path, "linear", "linear", [percent("top1", right.value)], [right]),
        write_score(
            tmp_path, "calibration", "calibration",
            [percent("ece", outcome.value, outcome.setting) for outcome in errors], errors,
            {"kind": "calibration", "of": "linear", "seed": 0},
        ),
        write_score(
            tmp_path, "fewshot", "fewshot", [percent("accuracy", episodes.value, "5-shot")], [episodes], FEWSHOT,
            details={"images": 300}, more={"episodes": {"5-shot": {"queries": 75, "correct": correct.tolist()}}},
        ),
        write_score(
            tmp_path, "attention", "attention", [percent("attentive-diffusion", spread.value)], [spread],
            details={"diffusion": diffusion},
        ),
    ]  # fmt: skip


def test_derived_outcomes_are_those_of_the_job(tree, tmp_path):
    written = {path: load_outcomes(outcome_path(path)) for path in tree}
    shutil.rmtree(tmp_path / "results/outcomes")
    derive_outcomes(tmp_path / "derived.json", tree)
    assert json.loads((tmp_path / "derived.json").read_text())["without"] == {}
    for path, expected in written.items():
        found = load_outcomes(outcome_path(path))
        assert found.keys() == expected.keys()
        for name, outcome in expected.items():
            assert found[name].interval == outcome.interval and found[name].identity == outcome.identity
            assert found[name].value == outcome.value
            for array in ("values", "strata", "replicates"):
                assert np.array_equal(getattr(found[name], array), getattr(outcome, array))


@pytest.mark.parametrize("damage", ["missing", "cut", "other"])
def test_a_damaged_file_costs_its_own_cells(tree, tmp_path, damage):
    stored = tmp_path / "results/predictions/linear/m/digits.npz"
    if damage == "missing":
        stored.unlink()
    elif damage == "cut":
        stored.write_bytes(stored.read_bytes()[:200])
    else:
        save_predictions(stored, predictions(seed=5))
    shutil.rmtree(tmp_path / "results/outcomes")
    derive_outcomes(tmp_path / "derived.json", tree)
    without = json.loads((tmp_path / "derived.json").read_text())["without"]
    assert set(without) == {str(tree[0]), str(tree[1])}
    scores = collect_scores(tree)
    assert scores[scores["kind"].isin(["linear", "calibration"])]["low"].isna().all()
    assert scores[~scores["kind"].isin(["linear", "calibration"])]["low"].notna().all()
    assert not list_missing(tmp_path / "missing.json", tree, tmp_path / "derived.json"), "not tried again each time"


def test_a_damaged_score_is_left_to_the_summary(tree, tmp_path):
    shutil.rmtree(tmp_path / "results/outcomes")
    tree[0].write_text("{")
    derive_outcomes(tmp_path / "derived.json", tree)
    assert [outcome_path(path).is_file() for path in tree] == [False, True, True, True]
    with pytest.raises(InputError, match=r"digits\.json"):
        collect_scores(tree)


def test_outcomes_belong_to_one_score(tree):
    path = tree[0]
    assert has_outcomes(path)
    os.utime(outcome_path(path), (1, 1))
    assert has_outcomes(path), "older, as after a copy, but of the same value"
    score = json.loads(path.read_text())
    score.pop("crc32")
    score["values"][0] = score["values"][0] | {"value": 1.0, "low": 0.5, "high": 2.0}
    path.write_text(json.dumps(score))
    os.utime(outcome_path(path), (1, 1))
    assert not has_outcomes(path)
    (row,) = collect_scores([path]).to_dict("records")
    assert (row["low"], row["high"]) == (0.5, 2.0), "of the score itself"


def test_intervals_of_outcomes_come_into_the_table(tree):
    scores = collect_scores(tree).set_index("kind")
    outcome = read_intervals(outcome_path(tree[0]))["", "top1"]["interval"]
    assert (scores.loc["linear", "low"], scores.loc["linear", "high"]) == (outcome["low"], outcome["high"])
    assert scores.loc["linear", "interval"] == "Wilson, over test images"
    assert json.loads(tree[0].read_text())["values"][0]["method"] == "Wilson, over test images"


def test_missing_outcomes_are_listed_once(tree, tmp_path):
    missing, derived = tmp_path / "missing.json", tmp_path / "derived.json"
    assert not list_missing(missing, tree, derived) and not missing.exists()
    outcome_path(tree[2]).unlink()
    assert list_missing(missing, tree, derived)
    assert json.loads(missing.read_text())["scores"] == [str(tree[2])]
    os.utime(missing, (1, 1))
    assert list_missing(missing, tree, derived) and missing.stat().st_mtime == 1, "no news"
    derived.write_text("{}")
    assert list_missing(missing, tree, derived) and missing.stat().st_mtime > 1, "derived before, and missing again"

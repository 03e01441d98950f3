"""The evaluator: by hand, against an independent implementation, and its rounding."""

import numpy as np
import pytest
from detection_cases import random_case
from hypothesis import given
from hypothesis import strategies as st
from mean_average_precision import MetricBuilder

from ssltransfer.protocols.detection.average_precision import THRESHOLDS, evaluate, round_like_detectron2
from ssltransfer.protocols.detection.boxes import Detections, GroundTruth


def objects(*rows):
    """Objects from (image, label, box, difficult)."""
    image, label, box, difficult = zip(*rows, strict=True) if rows else ((), (), np.empty((0, 4)), ())
    return GroundTruth(np.array(image, int), np.array(label, int), np.array(box, float), np.array(difficult, bool))


def found(*rows):
    """Detections, already in VOC's convention, from (image, label, box, score)."""
    image, label, box, score = zip(*rows, strict=True) if rows else ((), (), np.empty((0, 4)), ())
    return Detections(np.array(image, int), np.array(label, int), np.array(box, float), np.array(score, float))


A, B, FAR = (1, 1, 10, 10), (21, 21, 30, 30), (51, 51, 60, 60)


def test_four_detections_by_hand():
    # Right, wrong, right, right: precision 1, 1/2, 2/3, 3/4 at recall 1/4, 1/4, 2/4, 3/4 of four objects.
    truth = objects((0, 0, A, 0), (0, 0, B, 0), (1, 0, A, 0), (1, 0, B, 0))
    answers = found((0, 0, A, 0.9), (0, 0, FAR, 0.8), (1, 0, A, 0.7), (1, 0, B, 0.6))
    result = evaluate(answers, truth, 1, "11-point")
    # Recalls 0, .1, .2: 1; .3, .4, .5: 3/4; .6, .7: 3/4; .8, .9, 1: 0.
    assert [result.ap, result.ap50, result.ap75] == pytest.approx([100 * (3 * 1 + 5 * 0.75) / 11] * 3)
    assert evaluate(answers, truth, 1, "area").ap50 == pytest.approx(100 * (0.25 * 1 + 0.5 * 0.75))


def test_difficult_duplicate_and_other_classes_by_hand():
    truth = objects((0, 0, A, 0), (0, 0, B, 1), (0, 1, FAR, 0))
    # The difficult object counts for nothing, twice; the second answer for A is wrong; FAR is of another class.
    answers = found((0, 0, B, 0.99), (0, 0, B, 0.98), (0, 0, A, 0.9), (0, 0, A, 0.8), (0, 0, FAR, 0.7))
    result = evaluate(answers, truth, 2, "area")
    assert result.per_class[0].tolist() == [100, 0] and result.ap == 50
    late = evaluate(found((0, 0, FAR, 0.99), (0, 0, A, 0.9)), truth, 2, "area")
    assert late.per_class[0].tolist() == [50, 0]


def test_overlap_counts_pixels_and_has_to_exceed_the_threshold():
    # 10 x 10 and 10 x 20 pixels, the last ones included: overlap exactly 100 / 200.
    truth = objects((0, 0, (1, 1, 10, 20), 0))
    half = found((0, 0, (1, 1, 10, 10), 0.9))
    assert evaluate(half, truth, 1, "11-point").ap50 == 0
    assert evaluate(half, truth, 1, "11-point", thresholds=(0.4999,)).at(0.4999) == 100
    # Half-open the overlap would be 9 * 9 / (9 * 19).
    assert evaluate(half, truth, 1, "11-point", thresholds=(0.48,)).at(0.48) == 100


def test_a_detection_is_compared_with_its_best_object_only():
    truth = objects((0, 0, (1, 1, 10, 10), 0), (0, 0, (1, 1, 10, 12), 0))
    answers = found((0, 0, (1, 1, 10, 10), 0.9), (0, 0, (1, 1, 10, 10), 0.8))
    # The second one overlaps the free object by 100 / 120, but its best is taken.
    assert evaluate(answers, truth, 1, "area").ap50 == 50


def test_thresholds_are_averaged():
    truth = objects((0, 0, (1, 1, 10, 10), 0))
    result = evaluate(found((0, 0, (1, 1, 10, 7), 0.5)), truth, 1, "11-point")  # overlap 0.7
    assert result.per_class[:, 0].tolist() == [100] * 4 + [0] * 6
    assert (result.ap, result.ap50, result.ap75) == (40, 100, 0)
    assert THRESHOLDS == (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


def test_nothing_found_nothing_there_and_absent_classes():
    truth = objects((0, 0, A, 0), (1, 2, A, 1))
    assert evaluate(found(), truth, 3, "11-point").ap == 0
    assert evaluate(found((0, 0, A, 0.9)), objects(), 3, "11-point").ap == 0
    one = found((0, 0, A, 0.9), (1, 2, A, 0.9))
    # As detectron2 counts classes without an object.
    assert evaluate(one, truth, 3, "11-point").ap50 == pytest.approx(100 / 3)
    assert evaluate(one, truth, 3, "11-point", absent=np.nan).ap50 == 100
    with pytest.raises(ValueError, match="unknown rule"):
        evaluate(one, truth, 3, "coco")


def test_ties_keep_their_order():
    truth = objects(*[(image, 0, A, 0) for image in range(40)])
    right, wrong = [(image, 0, A, 0.5) for image in range(40)], [(image, 0, FAR, 0.5) for image in range(40)]
    assert evaluate(found(*right, *wrong), truth, 1, "area").ap50 == 100
    assert evaluate(found(*wrong, *right), truth, 1, "area").ap50 == 50


@given(
    box=st.lists(st.floats(-2000, 2000, width=32), min_size=4, max_size=4),
    score=st.floats(0, 1, width=32),
)
def test_rounding_is_what_python_prints(box, score):
    detections = Detections(np.zeros(1, int), np.zeros(1, int), np.array([box], np.float32), np.float32([score]))
    result = round_like_detectron2(detections)
    corner = np.array(box, np.float32)
    corner[:2] += 1
    assert result.box[0].tolist() == [float(f"{value:.1f}") for value in corner]
    assert result.score.tolist() == [float(f"{np.float32(score):.3f}")]


def test_rounding_rounds_halves_to_even():
    box = np.array([[0.25, 0.75, 0.25, 0.35]], np.float32)
    result = round_like_detectron2(
        Detections(np.zeros(2, int), np.zeros(2, int), box.repeat(2, 0), np.float32([0.0625, 0.9375]))
    )
    assert result.box[0].tolist() == [1.2, 1.8, 0.2, 0.3]
    assert result.score.tolist() == [0.062, 0.938]


def independent(detections, objects, classes):
    """The same numbers by the package mean-average-precision (area rule, pixels counted, greedy matching).

    Three things in which it differs from PASCAL's rules are taken out of its way: it counts difficult objects as
    missed, it mixes up their flags where several objects and detections meet, and it leaves the order of ties, and
    which of two equal overlaps is the best, to an unstable sort from behind.
    """
    metric = MetricBuilder.build_evaluation_metric("map_2d", async_mode=False, num_classes=classes)
    inner = metric.metric_fn
    rank = np.empty(len(detections))
    rank[np.argsort(-detections.score, kind="stable")] = np.arange(len(detections), 0, -1)
    for image in np.unique(np.concatenate([detections.image, objects.image])):
        mine, here = detections.image == image, np.flatnonzero(objects.image == image)[::-1]
        answers = np.column_stack([detections.box[mine], detections.label[mine], rank[mine]])
        truth = np.column_stack([objects.box[here], objects.label[here], objects.difficult[here], np.zeros(len(here))])
        before = [len(table) for table in inner.match_table]
        inner.add(answers, truth)
        for k in range(classes):
            flags = truth[truth[:, 4] == k, 5].tolist()
            new = len(inner.match_table[k]) - before[k]
            column = inner.match_table[k]["difficult"].tolist()[: before[k]] + [flags] * new
            inner.match_table[k] = inner.match_table[k].assign(difficult=column)
    counted = objects.label[~objects.difficult]
    inner.class_counter = np.bincount(counted, minlength=classes)[None]
    return inner


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("seeds", [range(100), pytest.param(range(100, 1000), marks=pytest.mark.slow)], ids=str)
def test_agreement_with_an_independent_implementation_on_a_thousand_cases(seeds):
    seen = {"difficult": 0, "ties": 0, "duplicates": 0, "empty": 0}
    thresholds = (0.5, 0.75)
    for seed in seeds:
        case, truth, images = random_case(seed)
        detections = round_like_detectron2(Detections(**case))
        truth = GroundTruth(**truth | {"difficult": truth["difficult"].astype(bool)})
        ours = evaluate(detections, truth, 3, "area", thresholds).per_class / 100
        reference = independent(detections, truth, 3)
        for row, threshold in zip(ours, thresholds, strict=True):
            theirs = [reference._evaluate_class(k, threshold, None)[0] for k in range(3)]
            assert row == pytest.approx(theirs, abs=1e-6), (seed, threshold)
        keys = [tuple(row) for row in np.column_stack([detections.image, detections.label, detections.box])]
        seen["difficult"] += truth.difficult.any()
        seen["ties"] += len(set(detections.score)) < len(detections)
        seen["duplicates"] += len(set(keys)) < len(keys)
        seen["empty"] += len(set(detections.image) | set(truth.image)) < images
    assert all(count > len(seeds) / 10 for count in seen.values()), seen

"""Average precision of detections, as detectron2's `PascalVOCDetectionEvaluator` defines it (v1 Table 3, v2 Table 4).

Per class, detections are ranked by score over all images. Each is compared with the object of its image and class that
it overlaps most: above the threshold and not yet found by a higher one, it is correct; found already, it is wrong; an
object marked difficult leaves it out of the count; anything else is wrong. Difficult objects do not count as missed.
"""

from dataclasses import dataclass

import numpy as np

from ssltransfer.protocols.detection.boxes import Detections, GroundTruth

THRESHOLDS = tuple(percent / 100 for percent in range(50, 100, 5))
"""Overlaps over which AP is averaged."""
RULES = ("11-point", "area")
# Written with this step the levels 0.3, 0.6 and 0.7 lie 1e-16 above a recall of exactly 3/10, 6/10 or 7/10: the
# reference's rounding, kept because its numbers are compared with.
LEVELS = np.arange(0.0, 1.1, 0.1)


@dataclass(frozen=True)
class Evaluation:
    """Average precision in percent.

    Attributes
    ----------
    per_class : ndarray, shape (thresholds, classes)
    thresholds : tuple of float
    """

    per_class: np.ndarray
    thresholds: tuple[float, ...]

    @property
    def ap(self) -> float:
        """Mean over all thresholds and classes."""
        return float(np.nanmean(np.nanmean(self.per_class, axis=1)))

    @property
    def ap50(self) -> float:
        """Mean over the classes at an overlap of 0.5."""
        return self.at(0.5)

    @property
    def ap75(self) -> float:
        """Mean over the classes at an overlap of 0.75."""
        return self.at(0.75)

    def at(self, threshold: float) -> float:
        """Mean over the classes at one of the thresholds."""
        return float(np.nanmean(self.per_class[self.thresholds.index(threshold)]))


def round_like_detectron2(detections: Detections) -> Detections:
    """Round detections as detectron2 does by writing them to text files.

    The corners of 0-based half-open boxes become VOC's 1-based inclusive ones (the lower corner moves by one), with one
    decimal; scores have three, so that ties arise. In float32 values the products are exact in float64: the result is
    that of Python's formatting, to the bit.
    """
    box = np.asarray(detections.box, np.float32) + np.array([1, 1, 0, 0], np.float32)
    return Detections(
        detections.image,
        detections.label,
        _decimals(box, 10.0),
        _decimals(np.asarray(detections.score, np.float32), 1000.0),
    )


def _decimals(values: np.ndarray, scale: float) -> np.ndarray:
    return np.rint(values.astype(np.float64) * scale) / scale


def evaluate(
    detections: Detections,
    objects: GroundTruth,
    classes: int,
    rule: str,
    thresholds: tuple[float, ...] = THRESHOLDS,
    absent: float = 0.0,
    sort: str = "stable",
) -> Evaluation:
    """Average precision of each class at each threshold.

    Parameters
    ----------
    detections : Detections
        In VOC's convention, as `round_like_detectron2` returns them; equal scores keep their order.
    objects : GroundTruth
        In VOC's convention (1-based, the last pixel included).
    classes : int
    rule : {'11-point', 'area'}
        Mean of the highest precision at 11 recalls (VOC2007), or the area below the envelope of precision.
    thresholds : tuple of float
        An overlap (intersection over union, widths counted as xmax - xmin + 1) has to be above it.
    absent : float
        Percentage of a class of which there is no object to find; NaN leaves it out of the means.
    sort : str
        Kind of `numpy.argsort`. The reference uses numpy's default, whose order of ties depends on the processor.

    Returns
    -------
    Evaluation
    """
    return accumulate(match_detections(detections, objects, classes, thresholds, sort), rule, absent)


@dataclass(frozen=True)
class Matches:
    """Ranked detections, compared with the objects of their images.

    Attributes
    ----------
    image : ndarray of int, shape (n,)
        Row of the image of each detection; class by class, higher scores first.
    edges : ndarray of int, shape (classes + 1,)
        Where the detections of each class begin and end.
    correct, wrong : ndarray of bool, shape (thresholds, n)
        Neither where a difficult object leaves the detection out.
    to_find : ndarray of int, shape (classes,)
        Number of objects that are not difficult.
    thresholds : tuple of float
    """

    image: np.ndarray
    edges: np.ndarray
    correct: np.ndarray
    wrong: np.ndarray
    to_find: np.ndarray
    thresholds: tuple[float, ...]


def match_detections(
    detections: Detections,
    objects: GroundTruth,
    classes: int,
    thresholds: tuple[float, ...] = THRESHOLDS,
    sort: str = "stable",
) -> Matches:
    """Compare detections with objects; the parameters are those of `evaluate`."""
    order = _ranking(detections, classes, sort)
    found, overlap = _best_objects(detections, objects, order)
    difficult = np.append(objects.difficult.astype(bool), False)[found]
    correct, wrong = (np.zeros((len(thresholds), len(order)), bool) for _ in range(2))
    for row, threshold in enumerate(thresholds):
        above = overlap > threshold
        correct[row] = _first_of_each(np.where(above & ~difficult, found, -1))
        wrong[row] = ~correct[row] & ~(above & difficult)
    edges = np.searchsorted(detections.label[order], np.arange(classes + 1))
    to_find = np.bincount(objects.label[~objects.difficult.astype(bool)], minlength=classes)
    return Matches(detections.image[order], edges, correct, wrong, to_find, tuple(thresholds))


def accumulate(matches: Matches, rule: str, absent: float = 0.0) -> Evaluation:
    """Average precision of matched detections; the parameters are those of `evaluate`."""
    table = np.full((len(matches.thresholds), len(matches.to_find)), absent, dtype=np.float64)
    for k in np.flatnonzero(matches.to_find):
        mine = slice(matches.edges[k], matches.edges[k + 1])
        for row in range(len(table)):
            correct, wrong = matches.correct[row, mine], matches.wrong[row, mine]
            table[row, k] = 100 * _average_precision(correct, wrong, matches.to_find[k], rule)
    return Evaluation(table, matches.thresholds)


def _ranking(detections: Detections, classes: int, sort: str) -> np.ndarray:
    """Rows of the detections: class by class, higher scores first."""
    ranked = [np.empty(0, np.int64)]
    for k in range(classes):
        rows = np.flatnonzero(detections.label == k)
        ranked.append(rows[np.argsort(-detections.score[rows], kind=sort)])
    return np.concatenate(ranked)


def _best_objects(detections: Detections, objects: GroundTruth, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row of the object that each ranked detection overlaps most (the first of equals), and by how much.

    Where image and class have no object, the row is -1 and the overlap 0.
    """
    found, overlap = np.full(len(order), -1), np.zeros(len(order))
    if not len(order) or not len(objects):
        return found, overlap
    pages = max(detections.image.max(), objects.image.max()) + 1
    key = objects.label.astype(np.int64) * pages + objects.image
    rows = np.argsort(key, kind="stable")
    wanted = detections.label[order].astype(np.int64) * pages + detections.image[order]
    start = np.searchsorted(key[rows], wanted, "left")
    count = np.searchsorted(key[rows], wanted, "right") - start
    some = np.flatnonzero(count)
    start, count = start[some], count[some]
    first = np.cumsum(count) - count
    pair = np.repeat(np.arange(len(some)), count)
    candidate = rows[np.arange(count.sum()) - np.repeat(first - start, count)]
    overlaps = _overlap(detections.box[order[some]][pair], objects.box[candidate])
    if len(some):
        highest = np.maximum.reduceat(overlaps, first)
        best = np.flatnonzero(overlaps == highest[pair])
        _, position = np.unique(pair[best], return_index=True)
        found[some], overlap[some] = candidate[best[position]], highest
    return found, overlap


def _overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes row by row, the last pixel included."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    width = np.maximum(np.minimum(a[:, 2], b[:, 2]) - np.maximum(a[:, 0], b[:, 0]) + 1.0, 0.0)
    height = np.maximum(np.minimum(a[:, 3], b[:, 3]) - np.maximum(a[:, 1], b[:, 1]) + 1.0, 0.0)
    common = width * height
    return common / np.maximum(_area(a) + _area(b) - common, 1e-9)


def _area(box: np.ndarray) -> np.ndarray:
    return (box[:, 2] - box[:, 0] + 1.0) * (box[:, 3] - box[:, 1] + 1.0)


def _first_of_each(values: np.ndarray) -> np.ndarray:
    """Mask of the first occurrence of each value but -1."""
    distinct, position = np.unique(values, return_index=True)
    mask = np.zeros(len(values), bool)
    mask[position[distinct >= 0]] = True
    return mask


def _average_precision(correct: np.ndarray, wrong: np.ndarray, to_find: int, rule: str) -> float:
    """Average precision, as a fraction, of one class's ranked detections."""
    hits = np.cumsum(correct)
    recall = hits / to_find
    precision = hits / np.maximum(hits + np.cumsum(wrong), 1)
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    if rule == "11-point":
        return float(envelope[np.searchsorted(recall, LEVELS, "left")].sum() / len(LEVELS))
    if rule == "area":
        return float((np.diff(recall, prepend=0.0) * envelope[:-1]).sum())
    raise ValueError(f"unknown rule {rule!r}; write one of {', '.join(RULES)}")

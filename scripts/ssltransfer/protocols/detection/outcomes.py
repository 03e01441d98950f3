"""Outcomes of detections: average precision on resamples of the test images, with one matching for all of them."""

import numpy as np

from ssltransfer.analysis.resampling import precision_at_recalls, precision_envelope, required_hits
from ssltransfer.analysis.uncertainty import bootstrap_interval, resample_counts
from ssltransfer.protocols.detection.average_precision import LEVELS, Matches, accumulate
from ssltransfer.protocols.detection.boxes import GroundTruth
from ssltransfer.results.outcome_file import Outcome, identity

UNITS = "test images"
NOTE = "covers the test images alone, with one training seed"
BLOCK = 50
"""Number of resamples at a time, which bounds memory: 40 MB for 100,000 detections of one class."""


def detection_outcomes(matches: Matches, objects: GroundTruth, rows: np.ndarray, rule: str) -> list[Outcome]:
    """Return the outcomes of AP, AP50 and AP75.

    Parameters
    ----------
    matches : Matches
    objects : GroundTruth
        Of the test images.
    rows : ndarray of int
        Rows of the test images in the index.
    rule : str
        See `average_precision.evaluate`.
    """
    found = accumulate(matches, rule)
    table = average_precisions(matches, objects, rows, rule, resample_counts(len(rows)))
    at = matches.thresholds.index
    metrics = {
        "ap": (found.ap, table.mean(axis=0)),
        "ap50": (found.ap50, table[at(0.5)]),
        "ap75": (found.ap75, table[at(0.75)]),
    }
    units = identity(rows, objects.image, objects.label, objects.box, objects.difficult)
    outcomes = []
    for metric, (value, replicates) in metrics.items():
        interval = bootstrap_interval(value, replicates, metric, len(rows), UNITS)
        note = NOTE if interval else "no interval: too few test images, or the same value on every resample of them"
        replicates = replicates.astype(np.float32)
        outcomes.append(Outcome(metric, "", value, UNITS, units, replicates=replicates, interval=interval, note=note))
    return outcomes


def average_precisions(
    matches: Matches, objects: GroundTruth, rows: np.ndarray, rule: str, counts: np.ndarray
) -> np.ndarray:
    """Mean over the classes of AP on test sets in which images occur several times or not at all.

    Detections keep their matches, because they are matched within their image. A class without an object to find in a
    resample counts as 0, as in the score.

    Parameters
    ----------
    matches, objects, rows, rule
        See `detection_outcomes`.
    counts : ndarray of int, shape (resamples, images)
        How often each test image occurs.

    Returns
    -------
    ndarray of float64, shape (thresholds, resamples)
        Percent.
    """
    easy, classes = ~objects.difficult.astype(bool), len(matches.to_find)
    here = np.zeros((len(rows), classes))
    np.add.at(here, (np.searchsorted(rows, objects.image[easy]), objects.label[easy]), 1)
    image = np.searchsorted(rows, matches.image)
    table = np.zeros((len(matches.thresholds), len(counts)))
    for start in range(0, len(counts), BLOCK):
        block = counts[start : start + BLOCK].astype(np.int32)  # once, because sums of bytes are slow
        to_find = np.rint(block @ here).astype(np.int64)
        for k in np.flatnonzero(matches.to_find):
            mine = slice(matches.edges[k], matches.edges[k + 1])
            ranked = np.cumsum(block[:, image[mine]], axis=1, dtype=np.int32)
            for row in range(len(table)):
                hit = np.flatnonzero(matches.correct[row, mine])
                if len(hit):
                    ignored = np.flatnonzero(~(matches.correct[row, mine] | matches.wrong[row, mine]))
                    hits = np.cumsum(block[:, image[mine][hit]], axis=1, dtype=np.int32)
                    left_out = np.cumsum(block[:, image[mine][ignored]], axis=1, dtype=np.int32)
                    left_out = np.pad(left_out, ((0, 0), (1, 0)))[:, np.searchsorted(ignored, hit)]
                    values = _average_precisions(hits, ranked[:, hit] - left_out, to_find[:, k], rule)
                    table[row, start : start + BLOCK] += values
    return 100 * table / classes


def _average_precisions(hits: np.ndarray, ranked: np.ndarray, to_find: np.ndarray, rule: str) -> np.ndarray:
    """Average precision of one class as fractions, 0 where there is nothing to find: float64 (resamples,).

    The precision is highest behind a correct detection, so that the thresholds behind these are enough.
    """
    if rule == "11-point":
        found = precision_at_recalls(hits, ranked, required_hits(LEVELS, to_find)).mean(axis=1)
    else:
        steps = np.diff(hits, axis=1, prepend=0) / np.maximum(to_find, 1)[:, None]
        found = (steps * precision_envelope(hits, ranked)).sum(axis=1)
    return np.where(to_find > 0, found, 0.0)

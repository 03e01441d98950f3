"""Interpolated precision of many resamples at once, for average precision of classifiers and detectors."""

import numpy as np


def required_hits(recalls: np.ndarray, to_find: np.ndarray) -> np.ndarray:
    """Smallest number of hits h with h / to_find >= recall, in float64 arithmetic: int64 (resamples, recalls).

    Parameters
    ----------
    recalls : ndarray of float, shape (recalls,)
    to_find : ndarray of int, shape (resamples,)
        Number of positives; where it is 0, the result is 0.
    """
    found = np.maximum(to_find, 1)[:, None]
    hits = np.maximum(np.ceil(recalls * found), 0)
    hits -= (hits >= 1) & ((hits - 1) / found >= recalls)
    hits += hits / found < recalls
    return np.where(to_find[:, None] > 0, hits, 0).astype(np.int64)


def precision_at_recalls(hits: np.ndarray, ranked: np.ndarray, required: np.ndarray) -> np.ndarray:
    """Highest precision with at least a number of hits, 0 where it is not reached: float64 (resamples, recalls).

    Parameters
    ----------
    hits, ranked : ndarray of int, shape (resamples, thresholds)
        Correct and all counted items at or above each threshold; both ascend along a row.
    required : ndarray of int, shape (resamples, recalls)
        See `required_hits`.
    """
    best = precision_envelope(hits, ranked)
    # One search for all rows: the hits of each row are lifted above those of the row before.
    step = max(int(hits.max(initial=0)), int(required.max(initial=0))) + 1
    lift = np.arange(len(hits), dtype=np.int64)[:, None] * step
    place = np.searchsorted((hits + lift).ravel(), (required + lift).ravel()).reshape(required.shape)
    place -= np.arange(len(hits))[:, None] * hits.shape[1]
    padded = np.concatenate([best, np.zeros((len(best), 1))], axis=1)
    return np.take_along_axis(padded, place, axis=1)


def precision_envelope(hits: np.ndarray, ranked: np.ndarray) -> np.ndarray:
    """Highest precision at or behind each threshold (see `precision_at_recalls`)."""
    precision = hits / np.maximum(ranked, 1)
    return np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]

"""Angular errors pooled over the pixels of all images (v1 Table 4, v2 Table 5), without storing them.

A mean over images would be another metric, because images have different numbers of valid pixels. The errors of the
official test set would take gigabytes, so they are counted in a histogram, from which the median is read.
"""

import numpy as np

from ssltransfer.errors import InputError

THRESHOLDS = (11.25, 22.5, 30.0)
BINS = 180_000
MEDIAN_TOLERANCE = 180 / BINS / 2
"""Largest difference in degrees between the median of the histogram and the exact one: half a bin."""
COARSE_BINS = 1440
"""Number of bins of 0.125 degrees, for one histogram per image."""


def angles(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Angles between vectors in degrees, float64 (n,).

    Parameters
    ----------
    predicted, truth : ndarray, shape (n, 3)
        Vectors of any length; one of length zero is at 90 degrees to every other.

    Raises
    ------
    InputError
        If a component is not finite.
    """
    predicted, truth = (_unit(np.asarray(vectors, np.float64)) for vectors in (predicted, truth))
    cosine = (predicted * truth).sum(axis=-1)
    if not np.isfinite(cosine).all():
        raise InputError("surface normals that are not finite; is the checkpoint sound?")
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def _unit(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(length > 0, length, 1)


class AngularErrors:
    """Angular errors of the valid pixels of a test set, added image by image.

    Mean and shares are exact; the median is within `MEDIAN_TOLERANCE` of the exact one. Memory does not depend on the
    number of pixels.

    Attributes
    ----------
    images : list of dict
        For each image in turn ``pixels``, the number of valid ones, and, if there are any, ``mean`` and ``median``
        (degrees, exact) and ``within`` (percent below each of `THRESHOLDS`).
    histograms : list of ndarray of uint32, shape (COARSE_BINS,)
        Errors of each image, counted in bins whose edges contain `THRESHOLDS`.
    """

    def __init__(self) -> None:
        self._counts = np.zeros(BINS, np.int64)
        self._below = np.zeros(len(THRESHOLDS), np.int64)
        self._sum = 0.0
        self.images: list[dict] = []
        self.histograms: list[np.ndarray] = []

    @property
    def pixels(self) -> int:
        """Number of valid pixels so far."""
        return int(self._counts.sum())

    def add(self, errors: np.ndarray) -> None:
        """Add the errors of one image's valid pixels, in degrees from 0 to 180, shape (n,); n may be 0."""
        coarse = np.minimum((errors * (COARSE_BINS / 180)).astype(np.int64), COARSE_BINS - 1)
        self.histograms.append(np.bincount(coarse, minlength=COARSE_BINS).astype(np.uint32))
        if len(errors) == 0:
            self.images.append({"pixels": 0})
            return
        bins = np.minimum((errors * (BINS / 180)).astype(np.int64), BINS - 1)
        self._counts += np.bincount(bins, minlength=BINS)
        below = np.array([np.count_nonzero(errors < threshold) for threshold in THRESHOLDS])
        self._below += below
        self._sum += float(errors.sum())
        self.images.append(
            {
                "pixels": len(errors),
                "mean": float(errors.mean()),
                "median": float(np.median(errors)),
                "within": (100 * below / len(errors)).tolist(),
            }
        )

    def mean(self) -> float:
        """Mean error in degrees."""
        return self._sum / self._total()

    def median(self) -> float:
        """Median error in degrees, as `numpy.median` of the errors moved to the middles of their bins."""
        total = self._total()
        ranks = np.array([(total - 1) // 2, total // 2])
        middle = np.searchsorted(np.cumsum(self._counts), ranks, side="right")
        return float((middle + 0.5).mean() * 180 / BINS)

    def within(self) -> tuple[float, ...]:
        """Percentage of errors strictly below each of `THRESHOLDS`."""
        return tuple((100 * self._below / self._total()).tolist())

    def _total(self) -> int:
        if not (total := self.pixels):
            raise InputError("no test image has a pixel with a known surface normal")
        return total

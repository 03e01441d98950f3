"""Prediction files: decision values of a classifier on the test images, and on the images that selected it."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ssltransfer.errors import InputError
from ssltransfer.files import replacing
from ssltransfer.row_file import load_arrays


@dataclass(frozen=True)
class Predictions:
    """Decision values and labels.

    Attributes
    ----------
    test_scores : ndarray of float32, shape (test, classes)
        Decision values of the final fit.
    test_labels : ndarray, shape (test,), or (test, classes) where images have several labels
    validation_scores : ndarray of float32, shape (validation, classes)
        Decision values of the selected fit, which has not seen these images.
    validation_labels : ndarray
    """

    test_scores: np.ndarray
    test_labels: np.ndarray
    validation_scores: np.ndarray
    validation_labels: np.ndarray


def save_predictions(path: str | Path, predictions: Predictions) -> None:
    """Write predictions as an npz file."""
    with replacing(path) as temporary:
        np.savez(temporary, **asdict(predictions))


def load_predictions(path: str | Path) -> Predictions:
    """Read what `save_predictions` wrote; InputError if the file is something else."""
    arrays = load_arrays(path, "decision values")
    try:
        return Predictions(**arrays)
    except TypeError:
        raise InputError(f"{path} holds no decision values of this workflow; delete it to make it anew") from None

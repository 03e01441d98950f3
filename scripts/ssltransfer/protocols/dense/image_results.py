"""Results by image of dense protocols: a table of the test images, and which of them are drawn."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from ssltransfer.files import atomic_write


def save_table(
    path: str | Path, metrics: Sequence[str], images: Sequence[str], results: Iterable[tuple[int, Sequence[float]]]
) -> None:
    """Write a CSV table with one row per test image: its pixels that count, and its metrics if it has any.

    Parameters
    ----------
    path : str or Path
    metrics : sequence of str
        Names of the metrics.
    images : sequence of str
        References of the images.
    results : iterable of (int, sequence of float)
        Number of pixels of each image, and its metrics, which count only with pixels.
    """
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["image", "pixels", *metrics])
        for name, (pixels, values) in zip(images, results, strict=True):
            table.writerow([name, pixels, *(values if pixels else [""] * len(metrics))])


def spread(rows: np.ndarray, count: int) -> np.ndarray:
    """Take up to `count` rows, spread evenly, the first and the last among them."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int))]

"""Preparing the known normals of a dataset: read each file once, check its size, write ``normals.npy``."""

import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from ssltransfer.datasets.dataset import Dataset
from ssltransfer.datasets.masks import check_size
from ssltransfer.datasets.nyuv2 import read_normals
from ssltransfer.protocols.dense.normals.ground_truth import write_normals

log = logging.getLogger(__name__)


def prepare_normals(dataset: Dataset, output: Path, progress: Callable[[Iterable], Iterable] = iter) -> None:
    """Write the normals of all images of a dataset and log the counts of their pixels.

    Parameters
    ----------
    dataset : Dataset
        Its index has the column ``normals`` (see `nyuv2.read_normals`).
    output : Path
        Becomes int16 (images, h, w, 3), see `ground_truth`.
    progress : callable
        Wraps the sequence of rows.

    Raises
    ------
    InputError
        If a file is missing or damaged, or normals and image differ in size.
    """
    count = len(dataset.index)
    counts = write_normals(_read(dataset, progress(range(count))), count, output)
    log.info("%d images: %s", count, ", ".join(f"{value} {name}" for name, value in counts.items()))
    if counts["zero"]:
        log.warning("%d pixels are marked valid but have no normal; they are left out", counts["zero"])


def _read(dataset: Dataset, rows: Iterable[int]) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield path, normals and mask of valid pixels of each image."""
    for row in rows:
        reference = dataset.index.extra["normals"][row]
        normals, valid = read_normals(dataset.root, reference)
        path, image = str(dataset.root / reference), str(dataset.root / dataset.index.image[row])
        check_size(path, valid, image, dataset.read_image(row).size)
        yield path, normals, valid

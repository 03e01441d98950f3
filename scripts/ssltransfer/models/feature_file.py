"""Cached features, read without torch."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssltransfer.errors import InputError
from ssltransfer.files import read_json
from ssltransfer.results.score_file import computed_precision
from ssltransfer.row_file import ArrayFile


@dataclass(frozen=True)
class Features:
    """The features of one dataset under one input normalisation.

    Attributes
    ----------
    values : ndarray of float32, shape (n, d)
        A memory map; row i belongs to row i of the index.
    checkpoint : dict
        Source and hash of the checkpoint they were computed with.
    precision : str
        In which the network computed.
    """

    values: np.ndarray
    checkpoint: dict
    precision: str = "float32"


def read_features(paths: list[str], rows: int) -> dict[str, Features]:
    """Read feature files and the provenance beside them.

    Parameters
    ----------
    paths : list of str
        One file for each input normalisation.
    rows : int
        Rows of the index.

    Returns
    -------
    dict of Features
        By input normalisation.
    """
    read = {}
    for path in paths:
        provenance = read_json(Path(path).with_suffix(".json"))
        precision = computed_precision(provenance.get("precision", "float32"), provenance.get("device"))
        read[provenance["norm"]] = Features(load_features(path, rows), provenance["checkpoint"], precision)
    return read


def load_features(path: str | Path, rows: int) -> np.ndarray:
    """Memory-map a feature file, float32 (rows, d).

    Raises
    ------
    InputError
        If the file is damaged, or has another number of rows than the index, another type, or values that
        are not finite.
    """
    features = ArrayFile(path)
    if features.dtype != np.float32 or len(features.shape) != 2:
        raise InputError(f"{path}: found {features.dtype} {features.shape}, expected float32 (rows, features)")
    if len(features) != rows:
        raise InputError(f"{path}: {len(features)} rows, but the index has {rows}; delete the file to make it anew")
    for start in range(0, rows, 8192):
        if not np.isfinite(features[start : start + 8192]).all():
            raise InputError(f"{path}: values that are not finite from row {start} on")
    return np.load(path, mmap_mode="r", allow_pickle=False)

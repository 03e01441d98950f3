"""Read cached features. Separate from `features`, so that protocols need not import torch."""

from pathlib import Path

import numpy as np

from ssltransfer.errors import InputError


def load_features(path: str | Path, rows: int) -> np.ndarray:
    """Memory-map a feature file, float32 (rows, d).

    Raises
    ------
    InputError
        If the file has another number of rows than the index, another type, or values that are not finite.
    """
    features = np.load(path, mmap_mode="r", allow_pickle=False)
    if features.dtype != np.float32 or features.ndim != 2:
        raise InputError(f"{path}: found {features.dtype} {features.shape}, expected float32 (rows, features)")
    if len(features) != rows:
        raise InputError(f"{path}: {len(features)} rows, but the index has {rows}; delete the file to make it anew")
    for start in range(0, rows, 8192):
        if not np.isfinite(features[start : start + 8192]).all():
            raise InputError(f"{path}: values that are not finite from row {start} on")
    return features

"""The file of a detector's detections, from which it is evaluated again without training."""

from pathlib import Path

import numpy as np

from ssltransfer.errors import InputError
from ssltransfer.files import atomic_write
from ssltransfer.protocols.detection.boxes import Detections
from ssltransfer.row_file import load_arrays

TYPES = {"image": np.int32, "label": np.int16, "box": np.float32, "score": np.float32}


def save_detections(path: str | Path, detections: Detections) -> None:
    """Write detections as a compressed npz file of `TYPES`."""
    with atomic_write(path) as temporary:
        np.savez_compressed(temporary, **{name: getattr(detections, name).astype(t) for name, t in TYPES.items()})


def load_detections(path: str | Path) -> Detections:
    """Read what `save_detections` wrote; InputError if the file is something else."""
    file = load_arrays(path, "detections")
    if absent := TYPES.keys() - file.keys():
        raise InputError(f"{path} holds no detections of this workflow ({min(absent)!r} is missing); delete it")
    return Detections(**{name: file[name] for name in TYPES})

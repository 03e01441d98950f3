"""The file of a detector's detections, from which it is evaluated again without training."""

from pathlib import Path

import numpy as np

from ssltransfer.detection.evaluation import Detections
from ssltransfer.errors import InputError
from ssltransfer.files import replacing

TYPES = {"image": np.int32, "label": np.int16, "box": np.float32, "score": np.float32}


def save_detections(path: str | Path, detections: Detections) -> None:
    """Write detections as a compressed npz file of `TYPES`."""
    with replacing(path) as temporary:
        np.savez_compressed(temporary, **{name: getattr(detections, name).astype(t) for name, t in TYPES.items()})


def load_detections(path: str | Path) -> Detections:
    """Read what `save_detections` wrote; InputError if the file is something else."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return Detections(**{name: file[name] for name in TYPES})
    except (KeyError, ValueError, OSError) as error:
        raise InputError(f"{path} holds no detections of this workflow ({error}); delete it") from None

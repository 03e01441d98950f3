"""Reconstructed images on disk: one npz file per model and dataset, with the names of the images and the provenance."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssltransfer.files import atomic_write
from ssltransfer.row_file import load_arrays


@dataclass(frozen=True)
class Inverted:
    """Reconstructions of the images of a dataset.

    Attributes
    ----------
    images : ndarray of float, shape (n, h, w, 3)
        Pixels from 0 to 1.
    names : list of str
        Names of the images.
    provenance : dict
        See `results.tensor_header.describe_training`.
    """

    images: np.ndarray
    names: list[str]
    provenance: dict


def save_inverted(path: str | Path, inverted: Inverted) -> None:
    """Write reconstructions, atomically."""
    with atomic_write(path) as temporary:
        np.savez(
            temporary,
            images=inverted.images,
            names=np.array(inverted.names),
            provenance=np.array(json.dumps(inverted.provenance)),
        )


def load_inverted(path: str | Path) -> Inverted:
    """Read what `save_inverted` wrote; InputError if the file is damaged."""
    stored = load_arrays(path, "inverted images")
    return Inverted(stored["images"], stored["names"].tolist(), json.loads(str(stored["provenance"])))

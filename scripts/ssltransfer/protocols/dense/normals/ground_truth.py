"""Ground truth: the normals of a dataset in one array of integers, and the labels that a network is trained on.

``normals.npy`` holds (n, h, w, 3) signed integers, row i for row i of the index: the unit normal times the largest
value of the type (127 or 32767, that is 0.3 or 0.002 degrees at worst); zero where no normal is known.
"""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from ssltransfer.datasets.masks import IGNORE, size
from ssltransfer.errors import InputError
from ssltransfer.files import atomic_write
from ssltransfer.protocols.dense.normals.codebook import SAMPLES, check_codebook, fit_codebook, nearest
from ssltransfer.protocols.dense.normals.settings import NormalsSettings
from ssltransfer.row_file import ArrayFile, open_array

log = logging.getLogger("ssltransfer")

LENGTHS = (0.9, 1.1)
"""A normal whose length is between these was rounded, and is scaled to length 1."""


def write_normals(frames: Iterable[tuple[str, np.ndarray, np.ndarray]], count: int, output: Path) -> dict[str, int]:
    """Write ``normals.npy``, int16.

    Parameters
    ----------
    frames : iterable of (str, ndarray, ndarray)
        For each image where it comes from (for messages), the normals (h, w, 3) and the mask of valid pixels (h, w).
    count : int
        Number of frames.
    output : Path

    Returns
    -------
    dict of str to int
        ``pixels``, ``valid``, ``zero`` (in the mask, but without a normal: taken out) and ``empty`` (images).

    Raises
    ------
    InputError
        If shapes differ, or a valid normal is neither zero nor of length 1.
    """
    counts = dict.fromkeys(("pixels", "valid", "zero", "empty"), 0)
    with atomic_write(output) as temporary:
        array = None
        for row, (where, normals, valid) in enumerate(frames):
            packed, zero = pack_normals(where, normals, valid)
            if array is None:
                array = ArrayFile.create(temporary, (count, *packed.shape), np.int16)
            if packed.shape != array.shape[1:]:
                raise InputError(f"{where}: {size(packed)} pixels; the images before it have {size(array[0:1][0])}")
            array.write(row, packed[None])
            known = int(packed.any(axis=-1).sum())
            for name, value in zip(counts, (valid.size, known, zero, known == 0), strict=True):
                counts[name] += int(value)
            if known == 0:
                log.warning("%s: no pixel has a known normal", where)
        if array is None:
            raise InputError(f"{output}: no images")
        array.finish()
    return counts


def pack_normals(where: str, normals: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, int]:
    """Turn one image's normals into int16 (h, w, 3); also the number of valid pixels whose normal is zero."""
    if normals.ndim != 3 or normals.shape[2] != 3 or valid.shape != normals.shape[:2]:
        raise InputError(f"{where}: normals {normals.shape} and mask {valid.shape}; expected (h, w, 3) and (h, w)")
    # Values outside the mask have no meaning and may be NaN.
    normals = np.where(valid[..., None], normals, 0).astype(np.float64)
    length = np.linalg.norm(normals, axis=-1)
    zero = valid & (length == 0)
    wrong = valid & ~zero & ~((length > LENGTHS[0]) & (length < LENGTHS[1]))
    if wrong.any():
        y, x = np.argwhere(wrong)[0]
        raise InputError(
            f"{where}: the normal of row {y}, column {x} has length {length[y, x]:.3g} ({int(wrong.sum())} such "
            "pixels); expected unit vectors, or zero where nothing is known"
        )
    unit = normals / np.where(length > 0, length, 1)[..., None]
    return np.round(unit * np.iinfo(np.int16).max).astype(np.int16), int(zero.sum())


def unpack_normals(packed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn signed integers (..., 3) into unit normals, float32 (..., 3), and the mask of known ones, bool (...)."""
    normals = np.asarray(packed, np.float32)
    length = np.sqrt((normals**2).sum(axis=-1))
    known = length > 0
    return normals / np.where(known, length, 1)[..., None], known


def open_normals(path: str | Path, images: int) -> np.ndarray:
    """Memory-map ``normals.npy``; InputError unless it holds signed integers (images, h, w, 3)."""
    array = open_array(path)
    if array.ndim != 4 or array.shape[3] != 3 or array.dtype not in (np.int8, np.int16):
        raise InputError(f"{path}: found {array.dtype} {array.shape}; expected int8 or int16 (images, h, w, 3)")
    if len(array) != images:
        raise InputError(f"{path}: {len(array)} images, but the index has {images}; delete the file to make it anew")
    return array


def make_codebook(
    settings: NormalsSettings, normals: np.ndarray, rows: np.ndarray, read: Callable[[], np.ndarray], config_path: str
) -> np.ndarray:
    """Fit the codebook of a settings block to training normals, or read that of the dataset: float64 (codes, 3).

    Parameters
    ----------
    settings : NormalsSettings
        With ``targets`` ``vocabulary`` or ``images`` the codebook is the dataset's own.
    normals : ndarray
        See `open_normals`.
    rows : ndarray of int
        Rows of the training images.
    read : callable
        Reads the dataset's own codebook.
    config_path : str
        Place of the settings, for error messages.

    Raises
    ------
    InputError
        If the dataset's own codebook has not ``codes`` code words, or they are not unit vectors.
    """
    if settings.targets == "kmeans":
        return fit_codebook(sample_normals(normals, rows, settings.seed, SAMPLES), settings.codes, settings.seed)
    codebook = read()
    check_codebook(codebook, f"{config_path}, targets: {settings.targets}")
    if len(codebook) != settings.codes:
        raise InputError(f"{config_path}.codes: found {settings.codes}; the dataset has {len(codebook)} code words")
    return codebook


def sample_normals(array: np.ndarray, rows: np.ndarray, seed: int, most: int) -> np.ndarray:
    """Draw at most about `most` known normals of these rows, equally many of each image; float32 (n, 3)."""
    rng = np.random.default_rng(seed)
    share = max(1, -(-most // len(rows)))
    drawn = []
    for row in rows:
        normals, known = unpack_normals(array[row])
        found = normals[known]
        drawn.append(found if len(found) <= share else found[rng.choice(len(found), share, replace=False)])
    drawn = np.concatenate(drawn)
    if len(drawn) == 0:
        raise InputError("no training image has a pixel with a known surface normal")
    return drawn


def label_normals(packed: np.ndarray, codebook: np.ndarray) -> np.ndarray:
    """Label of each normal of `packed` (..., 3): the nearest code word, or `IGNORE` where no normal is known."""
    normals, known = unpack_normals(packed)
    return np.where(known, nearest(normals, codebook), IGNORE)

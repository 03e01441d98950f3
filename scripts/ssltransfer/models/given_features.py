"""Features that a user gives instead of a network (``arch none``): one npz file per dataset, joined by image name."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssltransfer.errors import InputError, first_line
from ssltransfer.files import file_hash
from ssltransfer.jobs import JobUsage, package_versions
from ssltransfer.row_file import open_arrays

log = logging.getLogger(__name__)

MAX_NAME = 4096
"""Characters of the name of an image, as of a path."""


def read_given_features(path: Path, images: Sequence[str]) -> np.ndarray:
    """Read given features in the order of an index.

    Parameters
    ----------
    path : Path
        An npz file of the arrays ``names``, text (k,), and ``features``, floating-point numbers (k, d).
    images : sequence of str
        Names of the images of the index; one that the index lists several times needs one row of features.

    Returns
    -------
    ndarray of float32, shape (n, d)
        Row i belongs to row i of the index. Numbers of another precision are rounded.

    Raises
    ------
    InputError
        If the file or an array is missing or of another shape or type, a name is there twice, an image of the index has
        no features, or a feature is not finite in float32.
    """
    names, features = _read_arrays(path)
    rows = {name: row for row, name in enumerate(names)}
    if len(rows) < len(names):
        twice = next(name for row, name in enumerate(names) if rows[name] != row)
        raise InputError(f"{path}: names has {twice!r} twice; keep one row for each image")
    if missing := [image for image in images if image not in rows]:
        raise InputError(
            f"{path}: {len(missing)} of {len(images)} images of the index have no row, first {missing[0]!r} (the first "
            f"name here is {names[0]!r}); write the names of the column image of the index"
        )
    if others := len(rows) - len(set(images)):
        log.info("%d rows left out, of images that the index does not have", others)
    with np.errstate(over="ignore"):
        values = features[[rows[image] for image in images]].astype(np.float32)
    if len(wrong := np.flatnonzero(~np.isfinite(values).all(axis=1))):
        raise InputError(
            f"{path}: features of {len(wrong)} images are not finite in float32, first those of {images[wrong[0]]!r}; "
            "compute them again"
        )
    return values


def _read_arrays(path: Path) -> tuple[list[str], np.ndarray]:
    if not path.is_file():
        raise InputError(f"{path} is not a file; save the arrays names and features of the images there (numpy.savez)")
    try:
        with open_arrays(path) as content:
            arrays = {name: content[name] for name in ("names", "features") if name in content}
            found = ", ".join(content) or "none"
    except Exception as error:  # a file that numpy cannot read can raise nearly anything
        raise InputError(
            f"{path} is not an npz file of plain arrays ({first_line(error)}); write it with numpy.savez(FILE, "
            "names=..., features=...), names as text"
        ) from None
    if len(arrays) < 2:
        raise InputError(f"{path}: found the arrays {found}; expected names and features")
    names, features = arrays["names"], arrays["features"]
    if names.ndim != 1 or names.dtype.kind != "U" or names.dtype.itemsize > 4 * MAX_NAME:
        raise InputError(
            f"{path}: names is {names.dtype} {names.shape}, expected text (images,) of at most {MAX_NAME} characters"
        )
    if features.ndim != 2 or features.dtype.kind != "f" or not features.size:
        raise InputError(
            f"{path}: features is {features.dtype} {features.shape}, expected floating-point numbers (images, features)"
        )
    if len(names) != len(features):
        raise InputError(f"{path}: found {len(names)} names and {len(features)} rows of features; write one of each")
    try:
        return names.tolist(), features
    except (ValueError, SystemError):
        raise InputError(f"{path}: names holds numbers that no character has; write them as text of Python") from None


def describe_given_features(
    cell: Mapping[str, str], images: int, source: str, path: Path, usage: JobUsage
) -> dict[str, Any]:
    """Return the provenance of imported features, as `features.describe_features` does of computed ones.

    Parameters
    ----------
    cell : mapping
        ``model``, ``dataset``, ``transform`` and ``norm``: the wildcards of the job.
    images : int
        Number of images.
    source : str
        Of the model.
    path : Path
        The file of the user.
    usage : JobUsage
        Of the job so far.
    """
    return dict(cell.items()) | {
        "images": images,
        "checkpoint": {"source": source, "arch": "none", "features": {path.name: file_hash(path)}},
        "device": "none",
        "versions": package_versions("numpy"),
        "cost": usage.report(),
    }

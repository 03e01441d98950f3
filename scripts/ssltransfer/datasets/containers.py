"""Readers of files with many images (.npy, MATLAB 7.3, CIFAR batches) and of pickles, without running code."""

import math
import os
from functools import lru_cache
from pathlib import Path

import numpy as np

from ssltransfer.datasets.index import Index, concatenate
from ssltransfer.datasets.layout import missing
from ssltransfer.errors import InputError
from ssltransfer.row_file import open_array
from ssltransfer.safe_pickle import PickledArray, load_inert


def read_pickle(path: Path, what: str) -> dict:
    """Read a pickled dict of plain data and arrays, gzipped or not, without being able to run code from it.

    Parameters
    ----------
    path : Path
    what : str
        Description of the expected file, for messages.

    Returns
    -------
    dict
        String keys, also where Python 2 wrote bytes.

    Raises
    ------
    InputError
        If the file is missing, damaged or names anything but arrays and plain values.
    """
    try:
        content = load_inert(path, lambda name: False, encoding="bytes")
    except FileNotFoundError:
        raise missing(path) from None
    except InputError as error:
        raise InputError(f"{path} is not {what}: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} is not {what}: found a {type(content).__name__}, expected a dict")
    names = (key.decode("latin1") if isinstance(key, bytes) else key for key in content)
    values = (value.array if isinstance(value, PickledArray) else value for value in content.values())
    return dict(zip(names, values, strict=True))


def read_cifar_batch(path: str | Path) -> dict:
    """Read one CIFAR batch (a Python 2 pickle); ``data`` is uint8 (n, 3072)."""
    return read_pickle(Path(path), "a CIFAR batch")


def cifar_index(folder: Path, files: dict[str, list[str]], meta: str, label_key: str, name_key: str) -> Index:
    """Index CIFAR batches.

    Parameters
    ----------
    folder : Path
        Folder of the batches, directly below the folder of the dataset.
    files : dict of str to list of str
        The batches of each split, in order.
    meta : str
        File with the class names.
    label_key, name_key : str
        Keys of the labels in a batch and of the class names in `meta`.
    """

    def entry(file: str, key: str) -> list:
        content = read_cifar_batch(folder / file)
        if not isinstance(content.get(key), list):
            raise InputError(f"{folder / file}: key {key!r} is missing; found {', '.join(map(str, content))}")
        return content[key]

    parts = {}
    for split, names in files.items():
        labels = {name: entry(name, label_key) for name in names}
        images = [f"{folder.name}/{name}#{row}" for name in names for row in range(len(labels[name]))]
        parts[split] = images, [label for name in names for label in labels[name]]
    classes = [name.decode() if isinstance(name, bytes) else name for name in entry(meta, name_key)]
    return concatenate(parts, classes)


MAX_ROW = 2**28
"""Bytes of a row or a chunk of a MATLAB 7.3 file; frames of NYUv2 have a thousandth of it."""


class MatlabRows:
    """An array of a MATLAB 7.3 file (HDF5) along its last axis, read row by row.

    Parameters
    ----------
    path : Path
    name : str
        Name of the variable.

    Raises
    ------
    InputError
        If the file is missing or damaged, or has no such variable.
    """

    def __init__(self, path: Path, name: str) -> None:
        import h5py

        try:
            file = h5py.File(path, "r")
        except FileNotFoundError:
            raise missing(path) from None
        except OSError as error:
            raise InputError(f"{path} is not a MATLAB 7.3 file that can be read: {error}") from None
        if name not in file:
            raise InputError(f"{path}: variable {name!r} is missing; found {', '.join(file) or 'none'}")
        array = file[name] if isinstance(file.get(name, getlink=True), h5py.HardLink) else None
        # HDF5 can take the values from any other file of the machine.
        if not isinstance(array, h5py.Dataset) or array.external or array.is_virtual or array.ndim == 0:
            raise InputError(f"{path}: variable {name!r} is not an array within this file")
        # HDF5 unpacks whole chunks.
        sizes = [math.prod(shape) * array.dtype.itemsize for shape in (array.shape[1:], array.chunks or ())]
        if array.dtype.kind not in "biuf" or max(sizes) > MAX_ROW:
            raise InputError(
                f"{path}: variable {name!r} is {array.dtype} in rows or chunks of {max(sizes)} bytes; expected "
                f"numbers, at most {MAX_ROW} bytes"
            )
        self._array = array

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, row: int) -> np.ndarray:
        """One row; its axes are in MATLAB's order, (h, w) or (h, w, 3)."""
        return self._array[row].T


def matlab_rows(path: Path, name: str) -> MatlabRows:
    """Open an array of a MATLAB 7.3 file once per process: HDF5 files cannot be shared between them."""
    return _matlab_rows(path, name, os.getpid())


@lru_cache(maxsize=8)
def _matlab_rows(path: Path, name: str, process: int) -> MatlabRows:
    return MatlabRows(path, name)


def matlab_texts(path: Path, name: str) -> list[str] | None:
    """Read a cell array of texts of a MATLAB 7.3 file; None if the file has no such variable, or another kind."""
    import h5py

    with h5py.File(path, "r") as file:
        cells = file[name] if isinstance(file.get(name, getlink=True), h5py.HardLink) else None
        if not isinstance(cells, h5py.Dataset) or h5py.check_dtype(ref=cells.dtype) is not h5py.Reference:
            return None
        texts = [file[reference] for reference in np.ravel(cells[()])]
        if not all(isinstance(text, h5py.Dataset) and text.dtype == np.uint16 and text.size < 1000 for text in texts):
            return None
        return ["".join(map(chr, np.ravel(text[()]))) for text in texts]


def open_rows(path: Path) -> np.ndarray | MatlabRows:
    """Open a container as uint8 (n, h, w, 3), or (n, h, w) if grey.

    Files that end with .npy are memory-mapped; the variable ``images`` of MATLAB files is read row by row.
    """
    return matlab_rows(path, "images") if path.suffix == ".mat" else _open_rows(path)


@lru_cache(maxsize=8)
def _open_rows(path: Path) -> np.ndarray:
    if path.suffix == ".npy":
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        return open_array(path) if array.flags.c_contiguous else array  # a user's own, or verified
    data = read_cifar_batch(path).get("data")
    if not isinstance(data, np.ndarray) or data.ndim != 2 or data.shape[1] != 3072 or data.dtype != np.uint8:
        raise InputError(f"{path}: 'data' must be uint8 of shape (n, 3072)")
    return data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)

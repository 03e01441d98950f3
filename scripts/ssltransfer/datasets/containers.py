"""Files that hold many images: arrays (.npy, MATLAB 7.3) and CIFAR's batches; and pickles read without running code."""

import gzip
import io
import os
import pickle
from functools import lru_cache
from pathlib import Path

import numpy as np

from ssltransfer.datasets.index import Index, concatenate
from ssltransfer.datasets.layout import missing
from ssltransfer.errors import InputError

# What numpy arrays are pickled with, in all its versions. None of these runs code of the file.
_ARRAY_GLOBALS = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


class _ArrayUnpickler(pickle.Unpickler):
    """Reads plain containers, numbers, strings and numpy arrays; refuses every other global."""

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in _ARRAY_GLOBALS:
            raise pickle.UnpicklingError(f"{module}.{name} is neither plain data nor an array")
        return super().find_class(module, name)


def read_pickle(path: Path, what: str) -> dict:
    """Read a pickled dict of plain data and arrays, gzipped or not, without being able to run code from it.

    Parameters
    ----------
    path : Path
    what : str
        What the file should be, for error messages.

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
        content = path.read_bytes()
        if content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
        found = _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
    except FileNotFoundError:
        raise missing(path) from None
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise InputError(f"{path} is not {what}: {error}") from None
    if not isinstance(found, dict):
        raise InputError(f"{path} is not {what}: found a {type(found).__name__}, expected a dict")
    return {key.decode() if isinstance(key, bytes) else key: value for key, value in found.items()}


def read_cifar_batch(path: str | Path) -> dict:
    """Read one CIFAR batch (a Python 2 pickle); ``data`` is uint8 (n, 3072)."""
    return read_pickle(Path(path), "a CIFAR batch")


def cifar_index(folder: Path, files: dict[str, list[str]], meta: str, label_key: str, name_key: str) -> Index:
    """Index CIFAR batches.

    Parameters
    ----------
    folder : Path
        Folder of the batches, directly below the data set's.
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


class MatlabRows:
    """An array of a MATLAB 7.3 file (HDF5) along its last axis there, read a row at a time.

    Parameters
    ----------
    path : Path
    name : str
        Of the variable.

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
        self._array = file[name]

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, row: int) -> np.ndarray:
        """One row; its axes are in MATLAB's order, (h, w) or (h, w, 3)."""
        return self._array[row].T


def matlab_rows(path: Path, name: str) -> MatlabRows:
    """Open an array of a MATLAB 7.3 file once a process: HDF5 files cannot be shared between them."""
    return _matlab_rows(path, name, os.getpid())


@lru_cache(maxsize=8)
def _matlab_rows(path: Path, name: str, process: int) -> MatlabRows:
    return MatlabRows(path, name)


def open_rows(path: Path) -> np.ndarray | MatlabRows:
    """Open a container as uint8 (n, h, w, 3), or (n, h, w) if grey.

    Files that end with .npy are memory-mapped; of MATLAB files the variable ``images`` is read a row at a time.
    """
    return matlab_rows(path, "images") if path.suffix == ".mat" else _open_rows(path)


@lru_cache(maxsize=8)
def _open_rows(path: Path) -> np.ndarray:
    if path.suffix == ".npy":
        return np.load(path, mmap_mode="r", allow_pickle=False)
    data = read_cifar_batch(path).get("data")
    if not isinstance(data, np.ndarray) or data.ndim != 2 or data.shape[1] != 3072 or data.dtype != np.uint8:
        raise InputError(f"{path}: 'data' must be uint8 of shape (n, 3072)")
    return data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)

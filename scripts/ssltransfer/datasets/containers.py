"""Files that hold many images: arrays (.npy) and CIFAR's pickled batches."""

import io
import pickle
from functools import lru_cache
from pathlib import Path

import numpy as np

from ssltransfer.errors import InputError

_CIFAR_GLOBALS = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


class _CifarUnpickler(pickle.Unpickler):
    """Reads plain containers, numbers, strings and numpy arrays; refuses every other global."""

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in _CIFAR_GLOBALS:
            raise pickle.UnpicklingError(f"{module}.{name} does not belong into a CIFAR batch")
        return super().find_class(module, name)


def read_cifar_batch(path: str | Path) -> dict:
    """Read one CIFAR batch (a Python 2 pickle) without being able to run code from it.

    Returns
    -------
    dict
        String keys; ``data`` is uint8 (n, 3072).

    Raises
    ------
    InputError
        If the file is missing, damaged or names anything but arrays and plain values.
    """
    path = Path(path)
    try:
        batch = _CifarUnpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    except FileNotFoundError:
        raise InputError(f"{path} is missing; it belongs to the original layout of the data set") from None
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise InputError(f"{path} is not a CIFAR batch: {error}") from None
    if not isinstance(batch, dict):
        raise InputError(f"{path} is not a CIFAR batch: found a {type(batch).__name__}, expected a dict")
    return {key.decode() if isinstance(key, bytes) else key: value for key, value in batch.items()}


@lru_cache(maxsize=8)
def open_rows(path: Path) -> np.ndarray:
    """Open a container as uint8 (n, h, w, 3), or (n, h, w) if grey; .npy files are memory-mapped."""
    if path.suffix == ".npy":
        return np.load(path, mmap_mode="r", allow_pickle=False)
    data = read_cifar_batch(path).get("data")
    if not isinstance(data, np.ndarray) or data.ndim != 2 or data.shape[1] != 3072 or data.dtype != np.uint8:
        raise InputError(f"{path}: 'data' must be uint8 of shape (n, 3072)")
    return data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)

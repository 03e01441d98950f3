"""Large .npy files, read and written by blocks of rows.

Plain reads and writes instead of a memory map: the memory of a job does not grow with the file, and a full disk is
an error that Python sees, where a map would end the process.
"""

import os
import weakref
from pathlib import Path

import numpy as np

from ssltransfer.errors import InputError, first_line
from ssltransfer.files import atomic_write


def load_arrays(path: str | Path, what: str) -> dict[str, np.ndarray]:
    """Read all arrays of an npz file; InputError if it is missing, damaged or holds other objects."""
    try:
        with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except Exception as error:  # a damaged file can raise nearly anything
        raise InputError(f"{path} holds no {what} of this workflow ({first_line(error)}); delete it") from None


def save_array(path: str | Path, array: np.ndarray) -> None:
    """Write an array to a .npy file, atomically."""
    with atomic_write(path) as temporary:
        np.save(temporary, array)


class ArrayFile:
    """A .npy file as rows of bytes; any number of threads may read and write different rows.

    Parameters
    ----------
    path : path
    mode : {'r', 'r+'}
        Read only, or read and write.

    Attributes
    ----------
    shape : tuple of int
    dtype : np.dtype

    Raises
    ------
    InputError
        If the file is not a .npy file in C order, or shorter than its header says.
    """

    def __init__(self, path: str | Path, mode: str = "r") -> None:
        self.path = Path(path)
        try:
            with self.path.open("rb") as file:
                major, _ = np.lib.format.read_magic(file)
                read_header = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
                self.shape, fortran, self.dtype = read_header(file)
                self._offset = file.tell()
        except ValueError as error:
            raise InputError(f"{path} is not a .npy file ({error}); delete it to make it anew") from None
        if fortran or self.dtype.hasobject or not self.shape:
            raise InputError(f"{path} is not a plain array of rows; delete it to make it anew")
        self._row_shape = self.shape[1:]
        self._row_bytes = self.dtype.itemsize * int(np.prod(self._row_shape))
        expected, found = self._offset + len(self) * self._row_bytes, self.path.stat().st_size
        if found < expected:
            raise InputError(f"{path}: found {found} bytes, expected {expected}; delete it to make it anew")
        self._file = os.open(path, os.O_RDONLY if mode == "r" else os.O_RDWR)
        weakref.finalize(self, os.close, self._file)

    @classmethod
    def create(cls, path: str | Path, shape: tuple[int, ...], dtype: type) -> "ArrayFile":
        """Make a file of zeros (a sparse one, where the file system can)."""
        with Path(path).open("wb") as file:
            header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            file.truncate(file.tell() + int(np.prod(shape)) * np.dtype(dtype).itemsize)
        return cls(path, "r+")

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Read consecutive rows into a new array."""
        start, stop, _ = rows.indices(len(self))
        array = np.empty((max(stop - start, 0), *self._row_shape), self.dtype)
        left, position = array.reshape(-1).view(np.uint8).data, self._offset + start * self._row_bytes
        while left:
            count = os.preadv(self._file, [left], position)
            if count == 0:
                raise InputError(f"{self.path} ends before row {stop}; delete it to make it anew")
            left, position = left[count:], position + count
        return array

    def write(self, start: int, values: np.ndarray) -> None:
        """Write consecutive rows from row `start` on."""
        array = np.ascontiguousarray(values, self.dtype)
        if array.shape[1:] != self._row_shape or not 0 <= start <= len(self) - len(array):
            raise ValueError(f"{self.path}: rows {start}.. of shape {array.shape} do not fit {self.shape}")
        left, position = array.reshape(-1).view(np.uint8).data, self._offset + start * self._row_bytes
        while left:
            count = os.pwritev(self._file, [left], position)
            left, position = left[count:], position + count

    def flush(self) -> None:
        """Wait until everything written is on the disk."""
        os.fsync(self._file)

"""Large .npy files, read and written by blocks of rows, with a checksum for every row.

Plain reads and writes instead of a memory map: the memory of a job does not grow with the file, and a full disk is
an error that Python sees, where a map would end the process.

The checksums are a second array, uint32 (rows,), in the same file, behind the first: what ``numpy.save`` writes to an
open file twice. ``numpy.load`` returns the first array. The checksum of a row that was never written is 0.
"""

import os
import weakref
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ssltransfer.errors import InputError, damaged, first_line
from ssltransfer.files import atomic_write

CHECKED_BYTES = 2**24
"""Bytes read at a time where a whole file is verified."""


MAX_UNPACKED, MAX_UNPACKING = 2**28, 100
"""Bytes that an npz file may unpack to, and the ratio to its size that counts where it allows more."""


@contextmanager
def open_arrays(path: str | Path) -> Iterator[Any]:
    """Open an npz file as `numpy.load`, without objects; ValueError if it would unpack to far more than its size."""
    with Path(path).open("rb") as file:
        with zipfile.ZipFile(file) as archive:
            check_unpacked(archive)
        file.seek(0)
        with np.load(file, allow_pickle=False) as arrays:
            yield arrays


def check_unpacked(archive: zipfile.ZipFile) -> None:
    """Refuse (ValueError) a zip archive that would unpack to more than `MAX_UNPACKED` and `MAX_UNPACKING` allow."""
    unpacked = sum(info.file_size for info in archive.infolist())
    packed = sum(info.compress_size for info in archive.infolist())
    if unpacked > (most := max(MAX_UNPACKED, MAX_UNPACKING * packed)):
        raise ValueError(f"it would unpack to {unpacked} bytes, expected at most {most}")


def load_arrays(path: str | Path, what: str) -> dict[str, np.ndarray]:
    """Read all arrays of an npz file; InputError if it is missing, damaged or holds other objects."""
    try:
        with open_arrays(path) as arrays:
            return dict(arrays)
    except Exception as error:  # a damaged file can raise nearly anything
        raise InputError(f"{path} holds no {what} of this workflow ({first_line(error)}); delete it") from None


def save_array(path: str | Path, array: np.ndarray) -> None:
    """Write an array of at least one dimension to a .npy file, atomically and with checksums."""
    with atomic_write(path) as temporary:
        ArrayFile.create(temporary, array.shape, array.dtype).write(0, array)


def read_array(path: str | Path) -> np.ndarray:
    """Read a .npy file into memory, verified; InputError as `ArrayFile`."""
    return ArrayFile(path)[:]


def open_array(path: str | Path) -> np.ndarray:
    """Memory-map a .npy file, verified once from beginning to end; InputError as `ArrayFile`."""
    ArrayFile(path).verify()
    return np.load(path, mmap_mode="r", allow_pickle=False)


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
        If the file is not a .npy file in C order, or of another length than its header says. When rows are read:
        if they do not match their checksums, or were never written. Files without checksums are read unverified.
    """

    def __init__(self, path: str | Path, mode: str = "r") -> None:
        self.path = Path(path)
        with self.path.open("rb") as file:
            self.shape, fortran, self.dtype = self._read_header(file)
            self._offset = file.tell()
            file.seek(0)
            # Part of every checksum, so that a damaged header is noticed as well.
            self._seed = zlib.crc32(file.read(self._offset))
            if fortran or self.dtype.hasobject or not self.shape:
                raise InputError(f"{path} is not a plain array of rows; delete it to make it anew")
            self._row_shape = self.shape[1:]
            self._row_bytes = self.dtype.itemsize * int(np.prod(self._row_shape))
            expected, found = self._offset + len(self) * self._row_bytes, self.path.stat().st_size
            if found < expected:
                raise InputError(f"{path}: found {found} bytes, expected {expected}; delete it to make it anew")
            self._checksums = self._read_checksums(file, expected) if found > expected else None
            self._checksum_offset = file.tell() - 4 * len(self)
        self._file = os.open(path, os.O_RDONLY if mode == "r" else os.O_RDWR)
        weakref.finalize(self, os.close, self._file)

    def _read_header(self, file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
        try:
            major, _ = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
            return read(file)
        except Exception as error:  # a damaged header can raise nearly anything
            reason = first_line(error)
            raise InputError(f"{self.path} is not a .npy file ({reason}); delete it to make it anew") from None

    def _read_checksums(self, file: BinaryIO, offset: int) -> np.ndarray:
        file.seek(offset)
        shape, _, dtype = self._read_header(file)
        content = file.read()
        if shape != (len(self),) or dtype != np.dtype("<u4") or len(content) != 4 * len(self):
            raise damaged(self.path, "its end holds no checksums of its rows")
        return np.frombuffer(content, dtype).copy()

    @classmethod
    def create(cls, path: str | Path, shape: tuple[int, ...], dtype: type | np.dtype) -> "ArrayFile":
        """Make a file of rows to be written (a sparse one, where the file system can)."""
        with Path(path).open("wb") as file:
            for array_shape, array_dtype in ((shape, np.dtype(dtype)), (shape[:1], np.dtype("<u4"))):
                descr = np.lib.format.dtype_to_descr(array_dtype)
                header = {"descr": descr, "fortran_order": False, "shape": array_shape}
                np.lib.format.write_array_header_1_0(file, header)
                file.seek(int(np.prod(array_shape)) * array_dtype.itemsize, os.SEEK_CUR)
            file.truncate()
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
        if self._checksums is not None:
            self._check(start, array)
        return array

    def _check(self, start: int, array: np.ndarray) -> None:
        assert self._checksums is not None
        wrong = np.flatnonzero(self._checksum(array) != self._checksums[start : start + len(array)])
        if len(wrong):
            row = start + int(wrong[0])
            reason = "does not match its checksum" if self._checksums[row] else "was never written"
            raise damaged(self.path, f"row {row} {reason}")

    def _checksum(self, array: np.ndarray) -> np.ndarray:
        """Checksums of rows, never 0."""
        content, size = array.reshape(-1).view(np.uint8).data, self._row_bytes
        sums = (zlib.crc32(content[row * size : (row + 1) * size], self._seed) or 1 for row in range(len(array)))
        return np.fromiter(sums, "<u4", len(array))

    def write(self, start: int, values: np.ndarray) -> None:
        """Write consecutive rows from row `start` on."""
        array = np.ascontiguousarray(values, self.dtype)
        if array.shape[1:] != self._row_shape or not 0 <= start <= len(self) - len(array):
            raise ValueError(f"{self.path}: rows {start}.. of shape {array.shape} do not fit {self.shape}")
        self._write_bytes(array, self._offset + start * self._row_bytes)
        if self._checksums is not None:
            self._checksums[start : start + len(array)] = sums = self._checksum(array)
            self._write_bytes(sums, self._checksum_offset + 4 * start)

    def _write_bytes(self, array: np.ndarray, position: int) -> None:
        left = array.reshape(-1).view(np.uint8).data
        while left:
            count = os.pwritev(self._file, [left], position)
            left, position = left[count:], position + count

    def verify(self) -> None:
        """Read all rows and compare them with their checksums, where the file has any; InputError otherwise."""
        step = max(1, CHECKED_BYTES // max(1, self._row_bytes))
        for start in range(0, len(self) if self._checksums is not None else 0, step):
            self[start : start + step]

    def flush(self) -> None:
        """Wait until everything written is on the disk."""
        os.fsync(self._file)

    def finish(self) -> None:
        """Flush a complete file; InputError if a row was never written (which is not the same as a row of zeros)."""
        if self._checksums is not None and len(missing := np.flatnonzero(self._checksums == 0)):
            raise damaged(self.path, f"{len(missing)} of {len(self)} rows were never written, first {missing[0]}")
        self.flush()

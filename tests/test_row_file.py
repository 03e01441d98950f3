"""Array files: numpy's bytes, read and written a few rows at a time."""

import resource
import subprocess
import sys

import numpy as np
import pytest

from ssltransfer.errors import InputError
from ssltransfer.row_file import ArrayFile
from workflow import REPOSITORY

VALUES = np.arange(42, dtype=np.float32).reshape(7, 2, 3)


def test_what_is_written_is_numpys_file(tmp_path):
    file = ArrayFile.create(tmp_path / "a.npy", VALUES.shape, np.float32)
    file.write(4, VALUES[4:])
    file.write(0, VALUES[:4])
    file.flush()
    found = np.load(tmp_path / "a.npy")
    assert found.dtype == np.float32 and np.array_equal(found, VALUES)
    assert not np.load(ArrayFile.create(tmp_path / "b.npy", (3, 2), np.uint8).path).any()


@pytest.mark.parametrize("rows", [slice(0, 7), slice(2, 5), slice(5, 99), slice(7, 9), slice(None, -3)])
def test_slices_are_numpys(tmp_path, rows):
    np.save(tmp_path / "a.npy", VALUES)
    file = ArrayFile(tmp_path / "a.npy")
    assert (len(file), file.shape, file.dtype) == (7, (7, 2, 3), np.float32)
    assert np.array_equal(file[rows], VALUES[rows]) and file[rows].shape == VALUES[rows].shape


def test_a_file_may_be_changed(tmp_path):
    np.save(tmp_path / "a.npy", VALUES)
    ArrayFile(tmp_path / "a.npy", "r+").write(2, np.zeros((1, 2, 3)))
    assert np.load(tmp_path / "a.npy")[:, 0, 0].tolist() == [0, 6, 0, 18, 24, 30, 36]


@pytest.mark.parametrize("rows", [(6, VALUES[:2]), (-1, VALUES[:1]), (0, VALUES[:, 0])])
def test_rows_that_do_not_fit_are_refused(tmp_path, rows):
    np.save(tmp_path / "a.npy", VALUES)
    with pytest.raises(ValueError, match="do not fit"):
        ArrayFile(tmp_path / "a.npy", "r+").write(*rows)


def test_other_files_are_one_line(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, VALUES)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(InputError, match=r"a\.npy: found 291 bytes, expected 296; delete it"):
        ArrayFile(path)
    for array in (np.asfortranarray(VALUES), np.array([{}]), np.float32(3)):
        np.save(path, array, allow_pickle=True)
        with pytest.raises(InputError, match="not a plain array of rows"):
            ArrayFile(path)
    path.write_bytes(b"not an array")
    with pytest.raises(InputError, match=r"a\.npy is not a \.npy file"):
        ArrayFile(path)


def test_a_full_disk_is_an_error_and_not_the_end_of_the_process(tmp_path):
    """A limit on the size of files stands in for the disk; SIGXFSZ is ignored by Python."""
    file = ArrayFile.create(tmp_path / "a.npy", (1000,), np.float64)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            file.write(500, np.ones(100))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_memory_does_not_grow_with_the_file(tmp_path):
    """Reads 400 MB in a process whose peak stays far below."""
    file = ArrayFile.create(tmp_path / "a.npy", (400, 1_000_000), np.uint8)
    for row in range(400):
        file.write(row, np.zeros((1, 1_000_000)))
    code = (
        "import re, sys; sys.path.append('scripts'); from ssltransfer.row_file import ArrayFile\n"
        f"file = ArrayFile({str(tmp_path / 'a.npy')!r})\n"
        "for start in range(400): file[start:start + 1]\n"
        "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert int(run.stdout) < 100 * 1024

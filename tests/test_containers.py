"""Files of many images: pickles that run no code, MATLAB arrays, and damaged CIFAR batches."""

import gzip
import os
import pickle
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from ssltransfer.datasets import containers, nyuv2
from ssltransfer.datasets.containers import read_cifar_batch
from ssltransfer.errors import InputError


class Hostile:
    def __reduce__(self):
        return os.system, ("touch pwned",)


def test_pickles_run_no_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("batch").write_bytes(pickle.dumps({b"data": Hostile()}, protocol=2))
    with pytest.raises(InputError, match=r"batch is not a CIFAR batch: .*system"):
        read_cifar_batch("batch")
    shutil.copy("batch", "all_normals.pklz")
    with pytest.raises(InputError, match=r"is not a pickle of surface normals: .*system"):
        nyuv2.read_normals(tmp_path, "all_normals.pklz#1")
    assert not Path("pwned").exists()


class Crafted:
    """An array of a type that claims eight plain bytes to be the address of an object: numpy would follow it."""

    def __init__(self, *kind):
        self.kind = kind

    def __reduce__(self):
        kind = Reduced(np.dtype, self.kind[:3], self.kind[3])
        return np.zeros(0).__reduce__()[0], (np.ndarray, (0,), b"b"), (1, (1,), kind, False, b"AAAAAAAA")


class Reduced:
    def __init__(self, *parts):
        self.parts = parts

    def __reduce__(self):
        return self.parts


@pytest.mark.parametrize(
    "value",
    [
        Crafted("O8", False, True, (3, "|", None, None, None, 8, 8, 0)),
        Crafted("V8", False, True, (3, "|", None, ("f",), {"f": (np.dtype("O"), 0)}, 8, 1, 0)),
        np.array([{}]),
    ],
)
def test_pickled_arrays_are_numbers_and_text_only(tmp_path, value):
    (tmp_path / "batch").write_bytes(pickle.dumps({"data": value}, protocol=2))
    assert containers.read_pickle(tmp_path / "batch", "a batch") == {"data": None}


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_arrays_are_read_from_every_protocol(tmp_path, protocol):
    arrays = {
        "uint8": np.arange(6, dtype=np.uint8).reshape(2, 3),
        "float": np.asfortranarray(np.ones((2, 3), ">f4")),
        "bool": np.array([True, False]),
        "text": np.array(["ab", "c"]),
        "bytes": np.array([b"ab", b"c"]),
        "objects": np.array(["ab", "c"], dtype=object),
    }
    (tmp_path / "a.pklz").write_bytes(gzip.compress(pickle.dumps(arrays, protocol=protocol)))
    found = containers.read_pickle(tmp_path / "a.pklz", "a pickle")
    assert all(np.array_equal(found[name], array) for name, array in arrays.items())


def test_pickles_of_python_2(tmp_path):
    """Its memo counts from 1, and its strings are bytes."""
    array = b"cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85U\x01bq\x05\x87Rq\x06"
    kind = b"cnumpy\ndtype\nq\x07U\x02u2q\x08K\x00K\x01\x87Rq\x09(K\x03U\x01>q\x0aNNNK\x00K\x00K\x00tb"
    state = b"(K\x01K\x02\x85" + kind + b"\x89U\x04\0\1\1\0q\x0btb"
    (tmp_path / "a").write_bytes(b"\x80\x02}q\x01U\x04dataq\x02" + array + state + b"s.")
    assert containers.read_pickle(tmp_path / "a", "a pickle")["data"].tolist() == [1, 256]


def test_a_key_that_would_crash_is_refused(tmp_path):
    (tmp_path / "batch").write_bytes(b"\x80\x02})" + b"\x85" * 300_000 + b"K\x01s.")
    with pytest.raises(InputError, match="is not a CIFAR batch: .*tuple of tuples"):
        read_cifar_batch(tmp_path / "batch")


def test_a_high_memo_index_takes_no_memory(tmp_path):
    (tmp_path / "batch").write_bytes(b"\x80\x02}r\0\0\0\x10.")
    assert read_cifar_batch(tmp_path / "batch") == {}


def test_matlab_arrays_from_other_files_are_refused(tmp_path):
    (tmp_path / "secret").write_bytes(bytes(48))
    with h5py.File(tmp_path / "a.mat", "w") as file:
        file.create_dataset("outside", (1, 3, 4, 4), dtype="u1", external=[(str(tmp_path / "secret"), 0, 48)])
        file["linked"] = h5py.ExternalLink(str(tmp_path / "secret"), "x")
        file.create_group("group")
    for name in ("outside", "linked", "group"):
        with pytest.raises(InputError, match=f"a.mat: variable '{name}' is (not an array|missing)"):
            containers.MatlabRows(tmp_path / "a.mat", name)


@pytest.mark.parametrize("content", [b"", b"garbage", pickle.dumps([1, 2]), b"\x1f\x8bgarbage"])
def test_damaged_cifar_batches(tmp_path, content):
    (tmp_path / "batch").write_bytes(content)
    with pytest.raises(InputError, match="is not a CIFAR batch"):
        read_cifar_batch(tmp_path / "batch")

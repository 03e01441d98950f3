"""Indexers of original layouts, on small fixtures in the official formats and on real samples where present."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssltransfer.datasets import cifar10, dtd, eurosat, pets
from ssltransfer.datasets.containers import read_cifar_batch
from ssltransfer.datasets.index import check_index
from ssltransfer.errors import InputError
from ssltransfer.images import read_image

INDEXERS = {"cifar10": cifar10, "dtd": dtd, "eurosat": eurosat, "pets": pets}


def contract(index, root):
    """What holds for every data set: a usable index, disjoint splits, images that exist."""
    check_index(index, "x")
    assert len(set(index.image)) == len(index)
    assert len(set(index.classes)) == len(index.classes)
    for reference in (index.image[0], index.image[-1]):
        assert read_image(root, reference).mode == "RGB"


@pytest.mark.parametrize(
    ("name", "classes", "counts"),
    [
        ("cifar10", 10, (1400, 0, 500)),
        ("dtd", 10, (200, 200, 200)),
        ("eurosat", 10, (700, 0, 0)),
        ("pets", 3, (150, 0, 120)),
    ],
)
def test_real_samples(samples, name, classes, counts):
    root = samples / name
    index = INDEXERS[name].index(root)
    contract(index, root)
    assert len(index.classes) == classes
    assert tuple(index.split.count(part) for part in ("train", "val", "test")) == counts


def write_cifar(folder: Path) -> np.ndarray:
    """Write two images a batch as Python 2 would: byte keys, protocol 2."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    for i, name in enumerate([f"data_batch_{n}" for n in range(1, 6)] + ["test_batch"]):
        data = images[2 * i : 2 * i + 2].transpose(0, 3, 1, 2).reshape(2, 3072)
        batch = {
            b"data": np.ascontiguousarray(data),
            b"labels": [0, 1],
            b"batch_label": b"x",
            b"filenames": [b"a", b"b"],
        }
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": [b"airplane", b"automobile"]}, protocol=2))
    return images


def test_cifar10(tmp_path):
    images = write_cifar(tmp_path / "cifar-10-batches-py")
    index = cifar10.index(tmp_path)
    contract(index, tmp_path)
    assert index.classes == ["airplane", "automobile"]
    assert index.split == ["train"] * 10 + ["test"] * 2
    assert index.label == [0, 1] * 6
    for row in (0, 5, 11):
        assert np.array_equal(np.asarray(read_image(tmp_path, index.image[row])), images[row])


class Hostile:
    def __reduce__(self):
        return os.system, ("touch pwned",)


def test_cifar_batches_run_no_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "batch").write_bytes(pickle.dumps({b"data": Hostile()}, protocol=2))
    with pytest.raises(InputError, match=r"batch is not a CIFAR batch: .*system"):
        read_cifar_batch(tmp_path / "batch")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("content", [b"", b"garbage", pickle.dumps([1, 2])])
def test_damaged_cifar_batches(tmp_path, content):
    (tmp_path / "batch").write_bytes(content)
    with pytest.raises(InputError, match="is not a CIFAR batch"):
        read_cifar_batch(tmp_path / "batch")


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (9, 7), 100).save(path)


def test_dtd(tmp_path):
    (tmp_path / "labels").mkdir()
    lists = {
        "train": ["zigzag/z_1.jpg", "banded/b_1.jpg"],
        "val": ["banded/b_2.jpg"],
        "test": ["zigzag/z_2.jpg"],
    }
    for split, lines in lists.items():
        # A byte-order mark and Windows line ends, as editors leave them.
        (tmp_path / "labels" / f"{split}1.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode() + b"\r\n\r\n")
        for line in lines:
            picture(tmp_path / "images" / line)
    index = dtd.index(tmp_path)
    contract(index, tmp_path)
    assert index.classes == ["banded", "zigzag"]
    assert index.label == [1, 0, 0, 1]
    assert index.split == ["train", "train", "val", "test"]


def test_pets(tmp_path):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "trainval.txt").write_text("Maine_Coon_5 2 1 2\nAbyssinian_1 1 1 1\n")
    (tmp_path / "annotations" / "test.txt").write_text("#Image CLASS-ID\nAbyssinian_2 1 1 1\n")
    for name in ("Maine_Coon_5", "Abyssinian_1", "Abyssinian_2"):
        picture(tmp_path / "images" / f"{name}.jpg")
    index = pets.index(tmp_path)
    contract(index, tmp_path)
    assert index.classes == ["Abyssinian", "Maine_Coon"]
    assert index.label == [1, 0, 0]
    (tmp_path / "annotations" / "test.txt").write_text("Abyssinian_2 1 1 1\nAbyssinian_3 cat\n")
    with pytest.raises(InputError, match=r"test\.txt, line 2: found 'Abyssinian_3 cat', expected 'NAME CLASS"):
        pets.index(tmp_path)


def test_eurosat(tmp_path):
    for name in ("River/River_2.jpg", "River/River_10.jpg", "Forest/Forest 1.JPG", "Forest/thumbs.db"):
        picture(tmp_path / "2750" / name) if not name.endswith("db") else (tmp_path / "2750" / name).touch()
    index = eurosat.index(tmp_path)
    contract(index, tmp_path)
    assert index.image == ["2750/Forest/Forest 1.JPG", "2750/River/River_10.jpg", "2750/River/River_2.jpg"]
    assert index.label == [0, 1, 1]


@pytest.mark.parametrize("indexer", INDEXERS.values(), ids=INDEXERS)
def test_missing_layout_is_one_line(tmp_path, indexer):
    with pytest.raises(InputError, match="is missing; it belongs to the original layout"):
        indexer.index(tmp_path)

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ssltransfer.datasets import Source, image_root, location, parse_dataset_source
from ssltransfer.datasets.coverage import coverage
from ssltransfer.datasets.dataset import Dataset
from ssltransfer.datasets.index import SPLITS, Index, read_index, select, short_name, write_index
from ssltransfer.datasets.index_checks import check_classes, check_counts, check_files, check_index
from ssltransfer.datasets.indexing import index_source, relabel
from ssltransfer.errors import InputError


def index(**changes):
    fields = {
        "image": ["a.png", "b c.png", "é.png"],
        "split": ["train", "train", "test"],
        "label": [0, 1, 1],
        "classes": ["cat", "dog"],
    }
    return Index(**(fields | changes))


@pytest.mark.parametrize(
    "original",
    [
        index(),
        index(extra={"boxes": [[[0, 1, 2, 3, 4]], [], [[1, 0, 0, 5, 5], [0, 1, 1, 2, 2]]]}),
        index(label=[[0, 1], [], [1]]),
        index(promised={"classes": 2, "train": 2, "val": 0, "test": 4}, skipped={"test": 3}),
    ],
    ids=["single-label", "boxes", "multi-label", "counts"],
)
def test_round_trip(tmp_path, original):
    write_index(tmp_path / "index.parquet", original)
    assert read_index(tmp_path / "index.parquet") == original


def test_an_index_of_an_older_version_promises_nothing(tmp_path):
    write_index(tmp_path / "index.parquet", index())
    table = pq.read_table(tmp_path / "index.parquet")
    pq.write_table(table.replace_schema_metadata({"classes": '["cat", "dog"]'}), tmp_path / "old.parquet")
    assert read_index(tmp_path / "old.parquet") == index()
    assert coverage(index()) == {
        "images": {"used": 1, "promised": None},
        "skipped": None,
        "classes": {"used": 1, "promised": None, "left_out": ["cat"]},
    }


def test_coverage_counts_images_and_classes_of_the_parts_used():
    counts = {"classes": 3, "train": 2, "val": 0, "test": 4}
    partial = index(promised=counts, skipped={"test": 2, "train": 1})
    assert coverage(partial) == {
        "images": {"used": 1, "promised": 4},
        "skipped": 2,
        "classes": {"used": 1, "promised": 3, "left_out": ["cat"]},
    }
    whole = coverage(partial, SPLITS)
    assert whole["images"] == {"used": 3, "promised": 6} and whole["skipped"] == 3
    assert whole["classes"] == {"used": 2, "promised": 3, "left_out": []}
    chosen = coverage(partial, SPLITS, np.array([True, False]))
    assert chosen["classes"] == {"used": 1, "promised": 3, "left_out": ["dog"]}
    shown = coverage(index(label=[[0, 1], [], [0, 1]]))
    assert shown["classes"]["used"] == 2
    many = Index(["a"], ["train"], [0], [str(k) for k in range(50)])
    assert len(coverage(many)["classes"]["left_out"]) == 20


def test_label_arrays():
    assert index().label_array().tolist() == [0, 1, 1]
    multi = index(label=[[0, 1], [], [1]]).label_array()
    assert multi.dtype == bool
    assert np.array_equal(multi, [[True, True], [False, False], [False, True]])


def test_labels_that_do_not_count():
    marked = index(label=[[0], [], [1]], extra={"difficult": [[1], [], [0, 1]]})
    assert marked.label_array().dtype == bool
    array = marked.label_array(ignored="difficult")
    assert array.dtype == np.int8
    assert array.tolist() == [[1, -1], [0, 0], [-1, 1]]  # shown wins
    assert index(label=[[0], [], [1]]).label_array(ignored="difficult").dtype == bool
    assert index(extra={"difficult": [[1], [], [0]]}).label_array(ignored="difficult").tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": [0, 1, 2]}, r"row 2 \(é.png\) has label 2; expected 0..1"),
        ({"label": [0, -1, 1]}, r"row 1 \(b c.png\) has label -1"),
        ({"label": [[0], [1], [1, 7]]}, "row 2 .* has label 7"),
        ({"classes": ["cat", "cat"]}, "class 'cat' is there twice"),
        ({"image": ["a.png", "b c.png", "a.png"]}, "image a.png is in train and in test"),
        ({"extra": {"boxes": [[]]}}, "columns must have the same length"),
        ({"split": ["train", "train", "exam"]}, "split 'exam' is unknown"),
        ({"image": ["a.png"]}, "columns must have the same length"),
        ({"image": [], "split": [], "label": []}, "at least 1"),
        ({"image": ["a\udcff.png", "b", "c"]}, r"the name 'a\\udcff.png' is not UTF-8"),
    ],
)
def test_unusable_indices_are_refused(changes, message):
    with pytest.raises(InputError, match=message) as error:
        check_index(index(**changes), "animals")
    assert str(error.value).startswith("animals: ")


def test_counts():
    counts = {"classes": 2, "train": 2, "val": 0, "test": 1}
    check_counts(index(), "animals", counts)
    with pytest.raises(
        InputError, match=r"config/datasets.tsv says train 5, found 2 \(-3\); test 0, found 1 \(\+1\); is"
    ):
        check_counts(index(), "animals", counts | {"train": 5, "test": 0})


def test_classes_without_training_images_are_refused():
    with pytest.raises(InputError, match="class 'dog' .1 in test. has no training image"):
        check_classes(index(label=[0, 0, 1]), "animals")
    check_classes(index(), "animals")
    check_classes(index(label=[[], [0, 1], []]), "animals")
    check_classes(index(split=["test"] * 3, label=[0, 0, 0]), "animals")


@pytest.mark.parametrize("spelling", ["a.png", "./a.png", "b/../a.png", ".//a.png", "/data/own/a.png", "../own/a.png"])
def test_one_image_is_one_image_however_it_is_spelled(spelling):
    root = Path("/data/own")
    images = ["a.png", "b c.png", spelling]
    with pytest.raises(InputError, match=r"a\.png is in train and in test"):
        check_index(index(image=images), "animals", root)
    with pytest.raises(InputError, match=r"a\.png is there twice, with label 'cat' and with label 'dog'"):
        check_index(index(image=images, split=["train"] * 3), "animals", root)
    with pytest.raises(InputError, match=r"with label 'cat\|dog' and with label ''"):
        check_index(index(image=images, split=["train"] * 3, label=[[0, 1], [], []]), "animals", root)
    check_index(index(image=images, split=["train"] * 3, label=[1, 0, 1]), "animals", root)  # drawn with replacement
    check_index(index(image=["many.npy#1", "many.npy#2", "many.npy#11"]), "animals", root)


def test_files(tmp_path):
    for name in ("a.png", "b c.png", "é.png"):
        (tmp_path / name).touch()
    check_files(index(), "animals", tmp_path)
    np.save(tmp_path / "many.npy", np.zeros(3))
    check_files(index(image=["many.npy#0", "many.npy#1", "a.png"]), "animals", tmp_path)
    (tmp_path / "dir.png").mkdir()
    for image in ("none.png", "dir.png", "few.npy#1", "deep/a.png", "a.png/b.png"):
        with pytest.raises(InputError, match=rf"{image} is not a file \(1 of 3 images are missing\)"):
            check_files(index(image=["a.png", "b c.png", image]), "animals", tmp_path)


def test_select():
    chosen = select(index(extra={"boxes": [[1], [2], [3]]}), [0, 2])
    assert chosen == index(image=["a.png", "é.png"], split=["train", "test"], label=[0, 1], extra={"boxes": [[1], [3]]})


@pytest.mark.parametrize(
    ("source", "parsed"),
    [
        ("original:dtd", Source("original", "dtd")),
        ("original:caltech101/official", Source("original", "caltech101", "official")),
        ("column:shapes/objects", Source("column", "shapes", "objects")),
        ("folder:/data/my birds", Source("folder", "/data/my birds")),
        ("csv:own/table.csv", Source("csv", "own/table.csv")),
    ],
)
def test_sources(source, parsed):
    assert parse_dataset_source(source) == parsed


def test_places(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dtd = Source("original", "dtd")
    assert location(dtd, "/data") == Path("/data/dtd")
    (tmp_path / "resources/datasets/dtd").mkdir(parents=True)
    assert location(dtd, "/data") == Path("resources/datasets/dtd")
    (tmp_path / "data/dtd").mkdir(parents=True)
    assert location(dtd, tmp_path / "data") == tmp_path / "data/dtd"
    assert image_root(Source("csv", "own/table.csv"), "/data", "x/index.parquet") == Path("/data/own")
    assert image_root(Source("folder", "/birds"), "/data", "x/index.parquet") == Path("/birds")
    assert image_root(Source("generated", "digits"), "/data", "x/index.parquet") == Path("x")


def test_a_dataset_knows_its_images(tmp_path):
    (tmp_path / "birds").mkdir()
    Image.new("RGB", (3, 2), (1, 2, 3)).save(tmp_path / "birds/b c.png")
    write_index(tmp_path / "index.parquet", index())
    dataset = Dataset(["folder", "birds", ""], tmp_path, tmp_path / "index.parquet")
    assert dataset.root == tmp_path / "birds" and dataset.source == Source("folder", "birds")
    assert dataset.index == index() and dataset.read_image(1).getpixel((0, 0)) == (1, 2, 3)


def index_params(**changes):
    counts = {"classes": 2, "train": 2, "val": 0, "test": 0}
    params = {"dataset": "birds", "task": "single-label", "source": ["folder", "birds", ""], "counts": counts}
    return params | {"allow_subset": False, "on_error": "fail"} | changes


def test_a_source_is_indexed_with_its_checks(tmp_path):
    with pytest.raises(InputError, match=r"birds: .*birds is missing; .*; correct the source"):
        index_source(index_params(), tmp_path, "index.parquet")
    for name in ("robin/1.png", "robin/2.png", "wren/1.png"):
        (tmp_path / "birds/train" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (3, 2)).save(tmp_path / "birds/train" / name)
    with pytest.raises(InputError, match=r"birds: .*train 2, found 3 \(\+1\)"):
        index_source(index_params(), tmp_path, "index.parquet")
    assert len(index_source(index_params(allow_subset=True), tmp_path, "index.parquet")) == 3
    (tmp_path / "birds/train/robin/2.png").write_bytes(b"")
    skipped = index_source(index_params(allow_subset=True, on_error="skip"), tmp_path, "index.parquet")
    assert skipped.image == ["train/robin/1.png", "train/wren/1.png"]
    assert skipped.promised == index_params()["counts"] and skipped.skipped == {"train": 1}


def test_classes_without_training_images_are_named_however_few_images_there_are(tmp_path, caplog):
    """Counts that differ do not hide them, and skipped images are not in the way of the check."""
    for name in ("train/robin/1.png", "train/wren/1.png", "test/wren/2.png", "test/kiwi/1.png"):
        (tmp_path / "birds" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (3, 2)).save(tmp_path / "birds" / name)
    exact = {"counts": {"classes": 3, "train": 2, "val": 0, "test": 2}}
    with pytest.raises(InputError, match=r"class 'kiwi' \(1 in test\) has no training image"):
        index_source(index_params(**exact), tmp_path, "index.parquet")
    for changes in ({}, exact, {"on_error": "skip"}):
        caplog.clear()
        index_source(index_params(allow_subset=True, **changes), tmp_path, "index.parquet")
        assert any("allow_subset" in line and "kiwi" in line for line in caplog.messages)
    (tmp_path / "birds/test/kiwi/1.png").rename(tmp_path / "birds/test/wren/1.png")
    (tmp_path / "birds/test/kiwi").rmdir()
    (tmp_path / "birds/train/robin/1.png").write_bytes(b"")
    caplog.clear()
    counts = {"classes": 2, "train": 2, "val": 0, "test": 2}
    index_source(index_params(on_error="skip", counts=counts), tmp_path, "index.parquet")
    assert any("on_error" in line and "'robin' has no training image" in line for line in caplog.messages)


def test_another_column_becomes_the_label():
    boxes = index(extra={"pose": [[0, 1], [], [1]]})
    params = index_params(source=["column", "birds", "pose"], counts={"classes": 2, "train": 2, "val": 0, "test": 1})
    relabelled = relabel(boxes, params)
    assert relabelled.promised == params["counts"]
    assert relabelled.multi_label and relabelled.label == boxes.extra["pose"] and not relabelled.extra
    with pytest.raises(InputError, match=r"birds has no column 'size'; found pose"):
        relabel(boxes, params | {"source": ["column", "birds", "size"]})


@pytest.mark.parametrize(
    "source",
    ["original:nothing", "original:dtd/2", "original:dtd/", "generated:cifar10", "column:shapes", "folder:", "", "dtd"],
)
def test_unknown_sources_are_refused(source):
    with pytest.raises(InputError, match="is unknown; write original:NAME"):
        parse_dataset_source(source)


def test_short_names():
    assert [short_name(name) for name in ("originals.npy#31", "VOC2007/JPEGImages/000004.jpg")] == ["#31", "000004"]

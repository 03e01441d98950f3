import numpy as np
import pytest

from ssltransfer.datasets import parse_source
from ssltransfer.datasets.index import Index, check_counts, check_index, read_index, write_index
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
    ],
    ids=["single-label", "boxes", "multi-label"],
)
def test_round_trip(tmp_path, original):
    write_index(tmp_path / "index.parquet", original)
    assert read_index(tmp_path / "index.parquet") == original


def test_label_arrays():
    assert index().label_array().tolist() == [0, 1, 1]
    multi = index(label=[[0, 1], [], [1]]).label_array()
    assert multi.dtype == bool
    assert np.array_equal(multi, [[True, True], [False, False], [False, True]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": [0, 1, 2]}, r"row 2 \(é.png\) has label 2; expected 0..1"),
        ({"label": [0, -1, 1]}, r"row 1 \(b c.png\) has label -1"),
        ({"label": [[0], [1], [1, 7]]}, "row 2 .* has label 7"),
        ({"label": [0, 0, 1]}, "class 'dog' has no training image"),
        ({"split": ["train", "train", "exam"]}, "split 'exam' is unknown"),
        ({"image": ["a.png"]}, "columns must have the same length"),
        ({"image": [], "split": [], "label": []}, "at least 1"),
    ],
)
def test_unusable_indices_are_refused(changes, message):
    with pytest.raises(InputError, match=message) as error:
        check_index(index(**changes), "animals")
    assert str(error.value).startswith("animals: ")


def test_counts():
    counts = {"classes": 2, "train": 2, "val": 0, "test": 1}
    check_counts(index(), "animals", counts)
    with pytest.raises(InputError, match=r"train is 2, config/datasets.tsv says 5 \(-3\)"):
        check_counts(index(), "animals", counts | {"train": 5})


@pytest.mark.parametrize("source", ["original:nothing", "generated:cifar10", "column:shapes", "", "dtd"])
def test_unknown_sources_are_refused(source):
    with pytest.raises(InputError, match="is unknown; write original:NAME"):
        parse_source(source)

"""A user's own images, without code: class folders and csv tables."""

import pytest
from layouts import picture, table

from ssltransfer.datasets import folder
from ssltransfer.datasets import table as csv_table
from ssltransfer.datasets.index import check_files, check_index
from ssltransfer.errors import InputError

ROWS = [
    ("one/größer als.png", "dog", "train"),
    ("two, three.jpg", "cat", "train"),
    ("#4.jpg", "cat", "val"),
    ("5.jpg", "dog", "test"),
]


def test_folder(tmp_path):
    for name in ("train/dog/b 1.jpg", "train/cat/ü.JPG", "train/cat/deep/er/x.png", "test/dog/1.jpg", "test/emu/1.jpg"):
        picture(tmp_path / name)
    (tmp_path / "train/dog/notes.txt").touch()
    (tmp_path / "train/.cache").mkdir()
    index = folder.index(tmp_path)
    check_index(index, "own")
    check_files(index, "own", tmp_path)
    assert index.classes == ["cat", "dog", "emu"]
    assert index.image[:3] == ["train/cat/deep/er/x.png", "train/cat/ü.JPG", "train/dog/b 1.jpg"]
    assert index.label == [0, 0, 1, 1, 2]
    assert index.split == ["train"] * 3 + ["test"] * 2


@pytest.mark.parametrize(
    ("made", "message"), [([], "none of the folders train, val, test is there"), (["train"], "has no sub-folders")]
)
def test_unusable_folders(tmp_path, made, message):
    for name in made:
        (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=message):
        folder.index(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_table(tmp_path, newline, encoding):
    index = csv_table.index(table(tmp_path / "own.csv", ROWS, newline, encoding))
    check_index(index, "own")
    check_files(index, "own", tmp_path)
    assert index.image == [image for image, _, _ in ROWS]
    assert index.classes == ["cat", "dog"]
    assert index.label == [1, 0, 0, 1]
    assert index.split == ["train", "train", "val", "test"]


def test_table_with_several_labels(tmp_path):
    rows = [("1.jpg", "dog|cat", "train"), ("2.jpg", "", "train"), ("3.jpg", " emu | dog ", "test")]
    index = csv_table.index(table(tmp_path / "own.csv", rows), multi_label=True)
    check_index(index, "own")
    assert index.classes == ["cat", "dog", "emu"]
    assert index.label == [[0, 1], [], [1, 2]]
    assert csv_table.index(table(tmp_path / "one.csv", ROWS), multi_label=True).label == [[1], [0], [0], [1]]


def test_columns_in_any_order(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text("Split,id,Label,Image\ntrain,7,cat,a.jpg\n")
    index = csv_table.index(path)
    assert (index.image, index.split, index.label, index.classes) == (["a.jpg"], ["train"], [0], ["cat"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "column 'image' is missing; the first line must be image,label,split"),
        ("image;label;split\n", "own.csv has a header and no rows"),
        ("image,label\na.jpg,cat\n", "column 'split' is missing"),
        ("image,label,split\na.jpg,cat,train\nb.jpg,cat\n", "own.csv, line 3: 2 cells, the header has 3"),
        ("image,label,split\na.jpg,cat,exam\n", "line 2: found 'a.jpg', 'cat', 'exam'; write an image, a label, train"),
        ("image,label,split\na.jpg,,train\n", "line 2: found 'a.jpg', '', 'train'"),
        ("image,label,split\n,cat,train\n", "line 2: found '', 'cat', 'train'"),
        ("image,label,split\na.jpg,cat|dog,train\n", "label 'cat|dog' names several classes; the task of the row is"),
        ('image,label,split\na.jpg,"cat,train\n', "own.csv, line 2: unexpected end of data"),
    ],
)
def test_unusable_tables(tmp_path, content, message):
    (tmp_path / "own.csv").write_text(content)
    with pytest.raises(InputError, match=message.replace("|", r"\|")) as error:
        csv_table.index(tmp_path / "own.csv")
    assert "\n" not in str(error.value)

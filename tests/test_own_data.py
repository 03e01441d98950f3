"""A user's own images, without code: class folders and csv tables."""

import logging
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import picture, table

from ssltransfer.datasets import folder
from ssltransfer.datasets import table as csv_table
from ssltransfer.datasets.index import Index, read_index, write_index
from ssltransfer.datasets.index_checks import check_files, check_index, duplicate_images
from ssltransfer.datasets.indexing import index_source
from ssltransfer.datasets.parts import is_hidden
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


# Folders as people have them.

SYSTEM = (
    ".ipynb_checkpoints", ".AppleDouble", ".thumbnails", "__MACOSX", "#recycle", "@eaDir", "$RECYCLE.BIN", ".@__thumb",
    "lost+found", "System Volume Information",
)  # fmt: skip


def pictures(root, *names):
    for seed, name in enumerate(names):
        picture(root / name, seed)


def index_own(root, kind="folder", name="own", counts=None, **changes):
    """Index as the job does, with all checks."""
    params = {"dataset": "own", "task": "single-label", "source": [kind, name, ""], "counts": counts or {}}
    return index_source(params | {"allow_subset": False, "on_error": "fail"} | changes, root, "index.parquet")


@pytest.mark.parametrize("name", SYSTEM)
def test_hidden_and_system_folders_are_left_out_at_any_depth(tmp_path, name, caplog):
    kept = ("train/cat/1.jpg", "train/dog/deep/2.jpg", "test/cat/3.jpg")
    pictures(tmp_path, *kept)
    expected = folder.index(tmp_path)
    for place in ("", "train/", "test/", "train/cat/", "train/dog/deep/"):
        pictures(tmp_path, f"{place}{name}/copy.jpg", f"{place}{name}/inner/copy.jpg")
    with caplog.at_level(logging.INFO):
        assert folder.index(tmp_path) == expected
    assert set(expected.image) == set(kept) and expected.classes == ["cat", "dog"]
    assert any("left out 4 hidden" in line for line in caplog.messages)


def test_names_that_are_data_are_not_hidden():
    for name in ("cat", "a.b", "_x", "#1", "@home", "$x", "macosx", "Thumbs.dbx", "~cat"):
        assert not is_hidden(name)


def test_suffixes_and_what_is_left_out_are_in_the_log(tmp_path, caplog):
    suffixes = ("jpg", "JPEG", "jpe", "jfif", "png", "bmp", "gif", "tif", "tiff", "webp", "ppm", "pgm", "pnm")
    pictures(tmp_path, *(f"train/cat/{k}.{suffix}" for k, suffix in enumerate(suffixes)))
    for name in ("a.heic", "b.HEIC", "notes.txt", "README", ".hidden.jpg", "Thumbs.db"):
        (tmp_path / "train/cat" / name).touch()
    (tmp_path / "train/dog").mkdir()
    (tmp_path / "train/dog/c.heic").touch()
    (tmp_path / "extra/cat").mkdir(parents=True)
    with caplog.at_level(logging.INFO):
        assert len(folder.index(tmp_path)) == len(suffixes)
    text = " | ".join(caplog.messages)
    for said in (
        "3 .heic",
        "1 .txt",
        "2 hidden",
        "1 without suffix",
        "train/dog has no image: left out 1 .heic",
        "extra",
    ):
        assert said in text


@pytest.mark.parametrize("name", ["valid", "validation", "Val", "dev"])
def test_other_names_of_parts(tmp_path, name):
    pictures(tmp_path, "Training/cat/1.jpg", f"{name}/cat/2.jpg", "TEST/cat/3.jpg")
    index = folder.index(tmp_path)
    assert index.split == ["train", "val", "test"]
    assert index.image[1] == f"{name}/cat/2.jpg"
    check_files(index, "own", tmp_path)
    pictures(tmp_path, "val/cat/4.jpg")
    with pytest.raises(InputError, match=rf"the folders ({name} and val|val and {name}) are both the part val"):
        folder.index(tmp_path)


def test_folders_that_archives_bring_along(tmp_path):
    pictures(tmp_path / "food/food-v2", "train/pie/1.jpg", "test/pie/2.jpg")
    pictures(tmp_path / "food", "__MACOSX/food-v2/train/pie/1.jpg")
    (tmp_path / "food/README.txt").touch()
    index = folder.index(tmp_path)
    assert index.image == ["food/food-v2/train/pie/1.jpg", "food/food-v2/test/pie/2.jpg"]


def test_folders_without_parts_are_one_line(tmp_path):
    for names, found in (
        (["cat/1.jpg", "dog/2.jpg"], "found cat/, dog/;"),
        (["a/b/cat/1.jpg"], "found 1.jpg;"),
    ):
        pictures(tmp_path / names[0][0], *names)
        with pytest.raises(InputError, match=f"none of the folders train, val, test is there; {found} write") as error:
            folder.index(tmp_path / names[0][0])
        assert "\n" not in str(error.value)
    (tmp_path / "loop").mkdir()
    (tmp_path / "loop/again").symlink_to(tmp_path / "loop")
    with pytest.raises(InputError, match="none of the folders train, val, test is there"):
        folder.index(tmp_path / "loop")


def test_two_unicode_forms_of_a_class_are_one_class(tmp_path):
    composed, decomposed = unicodedata.normalize("NFC", "Café"), unicodedata.normalize("NFD", "Café")
    pictures(tmp_path, f"train/{decomposed}/1.jpg", "train/Bar/2.jpg", f"test/{composed}/3.jpg")
    if len({path.name for path in tmp_path.glob("*/C*")}) < 2:
        pytest.skip("this file system keeps one Unicode form")
    index = folder.index(tmp_path)
    assert (index.classes, index.label) == (["Bar", decomposed], [0, 1, 1])
    check_files(index, "own", tmp_path)
    rows = [("1.jpg", decomposed, "train"), ("2.jpg", composed, "test")]
    assert csv_table.index(table(tmp_path / "own.csv", rows)).label == [0, 0]
    pictures(tmp_path, f"train/{composed}/4.jpg")
    with pytest.raises(InputError, match="train: two class folders are called 'Café'"):
        folder.index(tmp_path)


# Tables as spreadsheets save them.


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("hint", ["", "sep={}\r\n"])
def test_tables_of_spreadsheets(tmp_path, encoding, delimiter, hint):
    expected = csv_table.index(table(tmp_path / "plain.csv", ROWS))
    lines = [("Image", "LABEL", "split", ""), *((f'"{image}"', *rest, "") for image, *rest in ROWS), ("", "", "", "")]
    text = hint.format(delimiter) + "".join(delimiter.join(line) + "\r\n" for line in lines)
    (tmp_path / "saved.csv").write_bytes(text.encode(encoding))
    assert csv_table.index(tmp_path / "saved.csv") == expected


def test_a_table_in_no_known_encoding_is_one_line(tmp_path):
    (tmp_path / "own.csv").write_bytes(b"image,label,split\na.jpg,\x81\x8d,train\n")
    with pytest.raises(InputError, match=r"own\.csv cannot be read: .*UTF-8"):
        csv_table.index(tmp_path / "own.csv")


def test_backslashes_and_other_names_of_parts_in_tables(tmp_path):
    rows = [(r"sub\dog\1.jpg", "dog", "Train"), (r".\sub\2.jpg", "cat", "valid"), ("sub/3.jpg", "cat", "TEST")]
    pictures(tmp_path, "sub/dog/1.jpg", "sub/2.jpg", "sub/3.jpg")
    path = tmp_path / "own.csv"
    path.write_text("image,label,split\n" + "".join(",".join(row) + "\n" for row in rows))
    index = csv_table.index(path)
    assert index.image == ["sub/dog/1.jpg", "./sub/2.jpg", "sub/3.jpg"]
    assert index.split == ["train", "val", "test"]
    check_files(index, "own", tmp_path)
    path.write_text(path.read_text() + "sub\\3.jpg,cat,train\n")
    with pytest.raises(InputError, match=r"own: image sub/3\.jpg is in test and in train"):
        check_index(csv_table.index(path), "own", tmp_path)
    pictures(tmp_path, r"a\b.jpg")  # a name on Linux
    path.write_text("image,label,split\na\\b.jpg,cat,train\n")
    assert csv_table.index(path).image == [r"a\b.jpg"]


def test_images_of_a_table_that_are_not_there(tmp_path):
    table(tmp_path / "own.csv", [("Größe.jpg", "cat", "train"), ("B.JPG", "cat", "test")])
    (tmp_path / "B.JPG").rename(tmp_path / "b.jpg")
    with pytest.raises(
        InputError, match=r"B\.JPG is not a file \(1 of 2 images are missing\); 'b\.jpg' is there"
    ) as error:
        index_own(tmp_path, "csv", "own.csv")
    assert "start from its folder" in str(error.value)


# Counts, which a row may leave to the index.


def test_counts_that_are_not_given_are_taken_from_the_images(tmp_path):
    pictures(tmp_path / "own", "train/cat/1.jpg", "train/dog/2.jpg", "test/dog/3.jpg")
    found = {"classes": 2, "train": 2, "val": 0, "test": 1}
    assert index_own(tmp_path).promised == found
    assert index_own(tmp_path, counts={"train": 2}).promised == found
    with pytest.raises(InputError, match=r"train 5, found 2 \(-3\)"):
        index_own(tmp_path, counts={"train": 5})


@pytest.mark.parametrize(
    ("names", "counts", "said"),
    [
        # The same class by another name in test: by its case, by a blank, by a sign.
        (("test/Dog/3.jpg",), None, ["'Dog'", "1 in test", "train has 'dog'"]),
        (("test/dog /3.jpg",), {"classes": 2}, ["classes 2, found 3 (+1)", "'dog '", "1 in test", "train has 'dog'"]),
        (("val/hot-dog/3.jpg", "train/hot_dog/4.jpg"), None, ["'hot-dog'", "1 in val", "train has 'hot_dog'"]),
        (("test/emu/3.jpg", "test/emu/4.jpg"), None, ["'emu'", "2 in test"]),
        (("test/dog/3.jpg",), {"test": 2}, ["test 2, found 1 (-1)", "0 ('cat') to 1 ('dog') images in test"]),
    ],
)
def test_mismatches_name_classes_and_parts(tmp_path, names, counts, said):
    pictures(tmp_path / "own", "train/cat/1.jpg", "train/dog/2.jpg", *names)
    with pytest.raises(InputError) as error:
        index_own(tmp_path, counts=counts)
    assert all(text in str(error.value) for text in said), str(error.value)
    assert "\n" not in str(error.value)


def test_an_empty_class_is_named(tmp_path):
    pictures(tmp_path / "own", "train/cat/1.jpg", "test/cat/2.jpg")
    (tmp_path / "own/train/dog").mkdir()
    with pytest.raises(InputError, match="class 'dog' has no training image"):
        index_own(tmp_path)


# The same image in two parts.


def test_identical_files_in_two_parts_are_a_warning_of_the_index(tmp_path, caplog):
    pictures(tmp_path / "own", "train/cat/1.jpg", "train/dog/2.jpg", "val/cat/3.jpg", "test/dog/4.jpg")
    assert index_own(tmp_path).warnings == []
    for copy, original in (("test/dog/copy.jpg", "train/cat/1.jpg"), ("val/dog/copy.jpg", "train/dog/2.jpg")):
        (tmp_path / "own" / copy).parent.mkdir(exist_ok=True)
        (tmp_path / "own" / copy).write_bytes((tmp_path / "own" / original).read_bytes())
    index = index_own(tmp_path)
    of_test, of_val = index.warnings
    assert of_test.startswith("1 test image ") and "test/dog/copy.jpg = train/cat/1.jpg" in of_test
    assert of_val.startswith("1 val image ") and "val/dog/copy.jpg = train/dog/2.jpg" in of_val
    assert all(warning in caplog.messages for warning in index.warnings)
    write_index(tmp_path / "index.parquet", index)
    assert read_index(tmp_path / "index.parquet") == index


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["train", "val", "test"]), st.integers(0, 5)), min_size=1, max_size=12))
def test_duplicates_are_those_of_a_comparison_of_all_pairs(tmp_path_factory, files):
    """Contents 0 to 3 differ after their first 4 KiB alone, 4 and 5 have other sizes."""
    root = tmp_path_factory.mktemp("files")
    content = [bytes(5000) + bytes([k]) for k in range(4)] + [b"", b"x"]
    for row, (_, kind) in enumerate(files):
        (root / f"{row}.jpg").write_bytes(content[kind])
    parts = [part for part, _ in files]
    index = Index([f"{row}.jpg" for row in range(len(files))], parts, [0] * len(files), ["a"])
    expected = []
    for part, others in (("test", ("train", "val")), ("val", ("train",))):
        count = sum(p == part and any((o, kind) in files for o in others) for p, kind in files)
        expected += [f"{count} {part}"] if count else []
    assert [" ".join(text.split()[:2]) for text in duplicate_images(index, root)] == expected


def test_skipped_images_that_empty_a_class_are_a_warning_of_the_index(tmp_path):
    pictures(tmp_path / "own", "train/cat/1.jpg", "train/dog/2.jpg", "test/dog/3.jpg")
    (tmp_path / "own/train/dog/2.jpg").write_bytes(b"no image")
    index = index_own(tmp_path, on_error="skip")
    assert index.skipped == {"train": 1} and index.promised["train"] == 2
    assert len(index.warnings) == 1 and "'dog'" in index.warnings[0] and "1 in test" in index.warnings[0]
    pictures(tmp_path / "own", "train/dog/4.jpg")
    assert index_own(tmp_path, on_error="skip").warnings == []


def test_a_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PHOTOS", "own")
    pictures(tmp_path / "own", "train/cat/1.jpg")
    for name in ("~/own", "$HOME/own", "${HOME}/$PHOTOS"):
        index = index_own(Path("/nowhere"), name=name)
        assert index.image == ["train/cat/1.jpg"]

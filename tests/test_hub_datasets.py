"""Datasets of the hub: the same images, labels and order as in their original layout, from files without a network."""

import io
import json
import shutil
import tarfile

import huggingface_hub
import huggingface_hub.constants
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ssltransfer.commands.rows import dataset_row
from ssltransfer.config.table_file import read_table
from ssltransfer.datasets import Source, hub_shards, load, location, parse_dataset_source
from ssltransfer.datasets.dataset import Dataset
from ssltransfer.datasets.hub_shards import index, obtain_hub_dataset, unpack_shards
from ssltransfer.datasets.index import write_index
from ssltransfer.datasets.indexing import index_source
from ssltransfer.errors import InputError
from ssltransfer.hub import HubOptions, parse_hub_source
from workflow import REPOSITORY

REVISION = "0123456789abcdef0123456789abcdef01234567"
SOURCE = f"hf:owner/name@{REVISION}"
CLASSES = ["cat", "dog", "emu"]


def picture(number, kind="JPEG"):
    """The bytes of a small image file."""
    file = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), number * 7 % 256, np.uint8)).save(file, kind)
    return file.getvalue()


def write_parquet(path, rows, classes=CLASSES, image="image", label="label", **columns):
    """A parquet file as `datasets` writes it: structs of bytes and path, class names in the metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = [{"bytes": content, "path": f"{i}.jpg"} for i, (content, _) in enumerate(rows)]
    table = pa.table({image: cells, label: [number for _, number in rows], "other": ["x"] * len(rows), **columns})
    features = {image: {"_type": "Image"}, label: {"names": classes, "_type": "ClassLabel"}}
    if classes:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path, row_group_size=3)


def write_tar(path, rows):
    """A tar file of webdataset."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for i, (content, label) in enumerate(rows):
            for suffix, data in (("cls", str(label).encode()), ("jpg", content), ("json", b"{}")):
                member = tarfile.TarInfo(f"s{i:04d}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


@pytest.fixture
def rows():
    kinds = ["JPEG", "PNG"]
    return [(picture(i, kinds[i % 2]), i % 3) for i in range(10)]


def contents(folder):
    """Bytes, part and label of each row of an index."""
    found = index(folder)
    return [((folder / i).read_bytes(), s, n) for i, s, n in zip(found.image, found.split, found.label, strict=True)]


def test_parquet_files_keep_bytes_order_and_class_names(tmp_path, rows):
    write_parquet(tmp_path / "hub/data/train-00001-of-00002.parquet", rows[4:7])
    write_parquet(tmp_path / "hub/data/train-00000-of-00002.parquet", rows[:4])
    write_parquet(tmp_path / "hub/data/test-00000-of-00001.parquet", rows[7:])
    unpack_shards(tmp_path / "hub", tmp_path / "data")
    parts = ["train"] * 7 + ["test"] * 3
    assert contents(tmp_path / "data") == [(c, part, n) for (c, n), part in zip(rows, parts, strict=True)]
    assert list(index(tmp_path / "data").classes) == CLASSES
    assert index(tmp_path / "data").image[1].endswith(".png")


def test_tar_files_keep_bytes_order_and_class_names(tmp_path, rows):
    write_tar(tmp_path / "hub/train/0.tar", rows[:6])
    write_tar(tmp_path / "hub/test/0.tar", rows[6:])
    (tmp_path / "hub/classnames.txt").write_text("\n".join(CLASSES) + "\n")
    unpack_shards(tmp_path / "hub", tmp_path / "data")
    parts = ["train"] * 6 + ["test"] * 4
    assert contents(tmp_path / "data") == [(c, part, n) for (c, n), part in zip(rows, parts, strict=True)]
    assert list(index(tmp_path / "data").classes) == CLASSES


def test_several_labels_and_names_as_labels(tmp_path, rows):
    write_parquet(tmp_path / "a/train.parquet", [(c, [0, 2]) for c, _ in rows], None, label="labels")
    unpack_shards(tmp_path / "a", tmp_path / "multi")
    assert list(index(tmp_path / "multi").label) == [[0, 2]] * 10 and index(tmp_path / "multi").multi_label
    write_parquet(tmp_path / "b/train.parquet", [(c, CLASSES[2 - n]) for c, n in rows], None)
    unpack_shards(tmp_path / "b", tmp_path / "names")
    assert list(index(tmp_path / "names").classes) == CLASSES
    assert list(index(tmp_path / "names").label) == [2 - n for _, n in rows]


def bare_parquet(path, labels, info=None, name="label"):
    """A parquet file of one image again and again, with labels and features that `datasets` would not write."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"image": [picture(0)] * len(labels), name: labels})
    about = {"huggingface": json.dumps({"info": {"features": info}})} if info is not None else None
    pq.write_table(table.replace_schema_metadata(about), path)


@pytest.mark.parametrize(
    ("labels", "names", "found"),
    [
        ([0, 2**40], None, "found label 1099511627776, expected 0 to 99999"),
        ([0, 10**6], None, "found label 1000000, expected 0 to 99999"),
        ([0, 2**40], ["a", "b"], "found label 1099511627776, expected 0 to 1"),
        ([0, -1], None, "found label -1, expected 0 to"),
        ([0.5, 1.0], None, "found label '0.5', a float"),
        ([0.0, float("nan")], None, "found label 'nan', a float"),
        ([b"a", b"b"], None, "a bytes"),
        ([{"a": 1}, {"a": 2}], None, "a dict"),
        ([[[1]], [[2]]], None, "a list"),
        ([[0], [None]], None, "found label 'None', a NoneType"),
        (["a" * 1001, "b"], None, "a str"),
        ([0, 1], "ab", "its class names are ab, expected a list"),
        ([0, 1], {"0": "a", "1": "b"}, "expected a list"),
        ([0, 1], 5, "expected a list"),
        ([0, 1], [1, 2], "name of class 0 is '1', expected text"),
        ([0, 1], ["a", None], "name of class 1 is 'None', expected text"),
        ([0, 1], [["a"], ["b"]], "name of class 0"),
    ],
)
def test_labels_that_name_no_class_are_one_line_and_leave_nothing(tmp_path, labels, names, found):
    info = None if names is None else {"label": {"_type": "ClassLabel", "names": names}}
    bare_parquet(tmp_path / "hub/train.parquet", labels, info)
    with pytest.raises(InputError, match=found) as error:
        unpack_shards(tmp_path / "hub", tmp_path / "data")
    assert "train.parquet" in str(error.value) and len(str(error.value)) < 400
    assert [path.name for path in tmp_path.iterdir()] == ["hub"]


def test_true_and_false_are_labels(tmp_path):
    bare_parquet(tmp_path / "hub/train.parquet", [True, False])
    unpack_shards(tmp_path / "hub", tmp_path / "data")
    assert list(index(tmp_path / "data").label) == [1, 0] and list(index(tmp_path / "data").classes) == ["0", "1"]


def test_a_number_without_bounds_beside_an_image_in_a_tar_file_is_one_line(tmp_path):
    write_tar(tmp_path / "hub/train.tar", [(picture(0), 99999999999)])
    with pytest.raises(InputError, match="train.tar: found label 99999999999, expected 0 to 99999"):
        unpack_shards(tmp_path / "hub", tmp_path / "data")


def offline_hub(monkeypatch, cache, files):
    """Put files into the cache of the hub, as a download leaves them, and forbid the network."""
    folder = cache / "datasets--owner--name"
    snapshot = folder / "snapshots" / REVISION
    snapshot.mkdir(parents=True)
    files(snapshot)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    original = huggingface_hub.snapshot_download
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **k: original(*a, cache_dir=cache, **k))


def test_a_dataset_is_replayed_from_the_cache_and_checked_by_its_counts(tmp_path, monkeypatch, rows):
    monkeypatch.chdir(tmp_path)
    offline_hub(monkeypatch, tmp_path / "cache", lambda folder: write_parquet(folder / "train.parquet", rows))
    source = parse_dataset_source(SOURCE)
    assert obtain_hub_dataset(source, "data")["images"] == {"train": 10, "val": 0, "test": 0}
    params = {
        "dataset": "mirror",
        "task": "single-label",
        "source": list(source),
        "counts": {"classes": 3, "train": 10, "val": 0, "test": 0},
        "allow_subset": False,
        "on_error": "fail",
    }
    found = index_source(params, "data", "results/datasets/mirror/index.parquet")
    write_index("results/datasets/mirror/index.parquet", found)
    dataset = Dataset(source, "data", "results/datasets/mirror/index.parquet")
    assert np.asarray(dataset.read_image(3))[0, 0].tolist() == [21, 21, 21]
    own = tmp_path / "data/hub" / location(source, "data").name
    own.mkdir(parents=True)
    (own / "image.png").touch()
    with pytest.raises(InputError, match=r"has no index\.parquet; copy the whole folder"):
        obtain_hub_dataset(source, "data")
    assert (own / "image.png").exists(), "nothing of the user is removed"
    shutil.rmtree(own)
    params["counts"]["train"] = 11
    with pytest.raises(InputError, match="train 11, found 10"):
        index_source(params, "data", "results/datasets/mirror/index.parquet")


def test_a_row_is_written_with_the_counts_of_the_copy(tmp_path, monkeypatch, rows):
    monkeypatch.chdir(tmp_path)
    offline_hub(monkeypatch, tmp_path / "cache", lambda folder: write_parquet(folder / "test.parquet", rows))
    row = dataset_row("copy", f"{SOURCE}?pool=train", "data", {})
    assert row["source"] == f"{SOURCE}?pool=train"
    assert [row[count] for count in ("classes", "train", "val", "test")] == ["3", "10", "0", "0"]


def test_what_is_not_in_the_cache_without_a_network_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    offline_hub(monkeypatch, tmp_path / "cache", lambda folder: None)
    with pytest.raises(InputError, match=r"holds neither .parquet nor .tar files|cannot be fetched"):
        obtain_hub_dataset(parse_dataset_source(SOURCE), "data")
    assert not location(parse_dataset_source(SOURCE), "data").exists()
    with pytest.raises(InputError, match="cannot be fetched .*check the name and the network"):
        obtain_hub_dataset(Source("hf", f"owner/other@{REVISION}"), "data")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda folder, rows: None, "holds neither .parquet nor .tar files"),
        (lambda folder, rows: write_parquet(folder / "x.parquet", rows), "its name tells no part"),
        (lambda folder, rows: write_parquet(folder / "test.parquet", rows, image="pixels"), "no column of images"),
        (lambda folder, rows: write_parquet(folder / "test.parquet", rows, None, label="y"), "no column of labels"),
        (lambda folder, rows: write_parquet(folder / "test.parquet", [(b"text", 0)]), "begins with b'text'"),
        (lambda folder, rows: (folder / "test.parquet").write_bytes(b"PAR1 broken"), "cannot be read"),
        (lambda folder, rows: write_tar(folder / "test.tar", [(b"\xff\xd8\xff", "")]), "label '' is none of|label"),
        (lambda folder, rows: (folder / "test.tar").write_bytes(b"broken"), "cannot be read"),
    ],
)
def test_other_files_are_one_line_and_leave_nothing(tmp_path, rows, write, message):
    (tmp_path / "hub").mkdir()
    write(tmp_path / "hub", rows)
    (tmp_path / "hub/classnames.txt").write_text("cat\n")
    with pytest.raises(InputError, match=message) as error:
        unpack_shards(tmp_path / "hub", tmp_path / "data")
    assert "\n" not in str(error.value) and [path.name for path in tmp_path.iterdir()] == ["hub"]


def test_columns_that_are_not_read_may_unpack_to_more(tmp_path, monkeypatch):
    monkeypatch.setattr(hub_shards, "MAX_UNPACKED", 5000)
    (tmp_path / "hub").mkdir()
    rows = [(picture(number), number) for number in range(2)]
    write_parquet(tmp_path / "hub/test.parquet", rows, depth=[bytes(200_000)] * 2)
    unpack_shards(tmp_path / "hub", tmp_path / "data")
    assert contents(tmp_path / "data") == [(picture(0), "test", 0), (picture(1), "test", 1)]
    write_parquet(tmp_path / "hub/test.parquet", [(picture(0) + bytes(200_000), 0)])
    with pytest.raises(InputError, match=r"would unpack to \d+ bytes, expected at most"):
        unpack_shards(tmp_path / "hub", tmp_path / "data2")


def test_a_tar_file_reads_nothing_large_or_linked_and_writes_nowhere_else(tmp_path, monkeypatch):
    file = tmp_path / "hub/train/0.tar"
    write_tar(file, [(picture(0), 0)])
    with tarfile.open(file, "a") as tar:
        for name, content in (("../../up.cls", b"1"), ("../../up.jpg", picture(1)), ("../../up.npy", bytes(10_000))):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(link)
    monkeypatch.setattr(hub_shards, "MAX_BYTES", 5000)
    unpack_shards(tmp_path / "hub", tmp_path / "data")
    assert contents(tmp_path / "data") == [(picture(0), "train", 0), (picture(1), "train", 1)]
    assert {path.name for path in tmp_path.iterdir()} == {"hub", "data"}
    monkeypatch.setattr(hub_shards, "MAX_BYTES", 100)
    with pytest.raises(InputError, match=r"s0000.jpg has \d+ bytes, expected at most 100"):
        unpack_shards(tmp_path / "hub", tmp_path / "again")


def test_a_source_of_the_hub_needs_a_commit():
    assert parse_dataset_source(SOURCE) == Source("hf", f"owner/name@{REVISION}")
    for text in ("hf:owner/name", "hf:owner/name@main", "hf:name@" + REVISION):
        with pytest.raises(InputError, match="expected hf:OWNER/NAME@REVISION with the 40 digits"):
            parse_dataset_source(text)


ISIC = "label=dx&unique=image_id&pool=train"


def test_an_image_that_is_listed_twice_is_read_once_and_parts_are_joined(tmp_path, rows, caplog):
    names = [f"ISIC_{i}" for i in range(10)]
    labels = [(content, CLASSES[number]) for content, number in rows]
    hub = tmp_path / "hub/data"
    write_parquet(hub / "train-0.parquet", labels[:6], None, label="dx", image_id=names[:6])
    write_parquet(hub / "validation-0.parquet", labels[4:8], None, label="dx", image_id=names[4:8])
    write_parquet(hub / "test-0.parquet", labels[7:] + labels[:1], None, label="dx", image_id=names[7:] + names[:1])
    options = parse_hub_source(f"owner/name@{REVISION}?{ISIC}")[1]
    with caplog.at_level("INFO"):
        unpack_shards(tmp_path / "hub", tmp_path / "data", options)
    assert contents(tmp_path / "data") == [(content, "train", number) for content, number in rows]
    assert list(index(tmp_path / "data").classes) == CLASSES and "4 rows are of an image" in caplog.text
    write_parquet(hub / "test-0.parquet", [(rows[0][0], "emu")], None, label="dx", image_id=names[:1])
    with pytest.raises(InputError, match=r"test-0\.parquet: image ISIC_0 has the labels cat and emu"):
        unpack_shards(tmp_path / "hub", tmp_path / "again", options)
    for nothing in (None, ""):
        write_parquet(hub / "test-0.parquet", labels[:2], None, label="dx", image_id=["ISIC_9", nothing])
        with pytest.raises(InputError, match=r"test-0\.parquet: row 1 has nothing in column 'image_id', expected"):
            unpack_shards(tmp_path / "hub", tmp_path / "again", options)
    write_parquet(hub / "test-0.parquet", labels[:1], None, label="dx")
    with pytest.raises(InputError, match=r"test-0\.parquet: no column 'image_id'; found image, dx, other"):
        unpack_shards(tmp_path / "hub", tmp_path / "again", options)


def test_options_of_a_source_are_known_and_fit_the_files(tmp_path, rows):
    source = parse_dataset_source(f"{SOURCE}?{ISIC}")
    assert location(source, "data").name == f"owner--name@{REVISION},label=dx,unique=image_id,pool=train"
    (tmp_path / "hub" / location(source, tmp_path).name).mkdir(parents=True)
    assert location(source, tmp_path).parent == tmp_path / "hub", "one that is unpacked below the data root is used"
    for query in ("labels=dx", "label=", "label", "label=a&label=b", "pool=test", "pool=yes"):
        with pytest.raises(InputError, match=r"expected (label|each option once)"):
            parse_dataset_source(f"{SOURCE}?{query}")
    write_tar(tmp_path / "hub/train/0.tar", rows)
    with pytest.raises(InputError, match="label and unique name columns of parquet files"):
        unpack_shards(tmp_path / "hub", tmp_path / "data", HubOptions(unique="key"))


MIRRORED = (
    "caltech101",
    "cars",
    "chestx",
    "cropdiseases",
    "dtd",
    "eurosat",
    "flowers",
    "food101",
    "isic",
    "pets",
    "sun397",
)
MIRRORED += ("voc2007",)
"""Datasets with a file for each image, of which real samples exist."""


@pytest.mark.parametrize("name", MIRRORED)
@pytest.mark.parametrize("form", ["parquet", "tar"])
def test_a_mirror_of_a_real_sample_is_the_same_row_by_row(tmp_path, samples, name, form):
    if (name, form) == ("voc2007", "tar"):
        pytest.skip("a .cls file holds one label")
    root = samples / name
    original = load(Source("original", name)).index(root)
    rows = [((root / image).read_bytes(), label) for image, label in zip(original.image, original.label, strict=True)]
    hub = tmp_path / "hub"
    for part in dict.fromkeys(original.split):
        own = [row for row, split in zip(rows, original.split, strict=True) if split == part]
        if form == "parquet":
            write_parquet(hub / f"data/{part}-00000-of-00001.parquet", own, list(original.classes))
        else:
            write_tar(hub / f"{part}/0.tar", own)
    if form == "tar":
        (hub / "classnames.txt").write_text("\n".join(original.classes) + "\n")
    unpack_shards(hub, tmp_path / "data")
    found = index(tmp_path / "data")
    assert list(found.classes) == list(original.classes) and list(found.label) == list(original.label)
    assert list(found.split) == list(original.split)
    assert [content for content, _, _ in contents(tmp_path / "data")] == [content for content, _ in rows]


def test_the_copy_of_isic_with_repeated_rows_is_its_real_sample_image_by_image(tmp_path, samples):
    root = samples / "isic"
    original = load(Source("original", "isic")).index(root)
    names = [original.classes[label].lower() for label in original.label]
    rows = [((root / image).read_bytes(), name) for image, name in zip(original.image, names, strict=True)]
    ids = list(original.image)
    parts = {"train": slice(0, 60), "validation": slice(50, 80), "test": slice(80, None)}
    for part, own in parts.items():
        write_parquet(tmp_path / f"hub/{part}.parquet", rows[own], None, label="dx", image_id=ids[own])
    row = next(row for row in read_table(REPOSITORY / "config/datasets.tsv") if row["dataset"] == "isic-hub")
    _, options = parse_hub_source(row["source"].partition(":")[2])
    unpack_shards(tmp_path / "hub", tmp_path / "data", options)
    found = index(tmp_path / "data")
    assert [(content, found.classes[n]) for content, _, n in contents(tmp_path / "data")] == rows
    assert set(found.split) == {"train"} and len(found.image) == len(rows) > 80

"""Indexers of original layouts: one contract for all, on layouts written here and on real samples where present."""

import hashlib
import json
import shutil
from pathlib import Path

import layouts
import numpy as np
import pytest
from layouts import LAYOUTS, annotation, text
from scipy.io import savemat

from ssltransfer.datasets import ORIGINAL, Source, caltech101, load, voc
from ssltransfer.datasets.downloads import DOWNLOADS
from ssltransfer.datasets.images import read_image
from ssltransfer.datasets.index import SPLITS, read_index, write_index
from ssltransfer.datasets.index_checks import check_files, check_index
from ssltransfer.datasets.indexing import index_source
from ssltransfer.errors import InputError

VARIANTS = [(name, variant) for name, variants in ORIGINAL.items() for variant in ("", *variants)]


def build(name, root, variant=""):
    """Index a dataset, and require what holds for every one: a usable index of files that exist, and a round trip."""
    module = load(Source("original", name))
    index = module.index(root, variant=variant) if variant else module.index(root)
    check_index(index, name)
    check_files(index, name, root)
    assert variant or len(set(index.image)) == len(index)
    for reference in (index.image[0], index.image[-1]):
        assert read_image(root, reference).mode == "RGB"
    return index


def counts(index):
    return tuple(index.split.count(part) for part in SPLITS)


def test_every_original_has_a_layout_here():
    assert set(LAYOUTS) == set(ORIGINAL)


@pytest.mark.parametrize("name", LAYOUTS)
def test_contract(tmp_path, name, monkeypatch):
    write, classes, expected = LAYOUTS[name]
    write(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    index = build(name, tmp_path)
    assert index.classes == classes
    assert counts(index) == expected
    assert sorted(tmp_path.rglob("*")) == before, "the data root is only read"
    write_index(tmp_path / "index.parquet", index)
    assert read_index(tmp_path / "index.parquet") == index
    (tmp_path / "index.parquet").unlink()
    # The order must not be the file system's.
    iterdir, rglob = Path.iterdir, Path.rglob
    monkeypatch.setattr(Path, "iterdir", lambda path: reversed(list(iterdir(path))))
    monkeypatch.setattr(Path, "rglob", lambda path, pattern: reversed(list(rglob(path, pattern))))
    assert build(name, tmp_path) == index


@pytest.mark.parametrize(
    ("name", "folder"),
    [("aircraft", "fgvc-aircraft-2013b"), ("caltech101", "caltech-101"), ("dtd", "dtd"), ("food101", "food-101")],
)
def test_folder_of_the_archive_may_stay(tmp_path, name, folder):
    write, classes, expected = LAYOUTS[name]
    write(tmp_path / folder)
    index = build(name, tmp_path)
    assert (index.classes, counts(index)) == (classes, expected)


@pytest.mark.parametrize("name", LAYOUTS)
def test_byte_order_marks_and_windows_line_ends(tmp_path, name):
    write, _, _ = LAYOUTS[name]
    write(tmp_path / "plain")
    write(tmp_path / "windows")
    for path in [p for p in (tmp_path / "windows").rglob("*") if p.suffix in (".txt", ".csv", ".json", ".xml")]:
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert build(name, tmp_path / "windows") == build(name, tmp_path / "plain")


REAL = {  # classes and (train, val, test), counted independently of the indexers (see the samples' README)
    ("ade20k", ""): (150, (4, 0, 27)),
    ("caltech101", ""): (11, (330, 0, 330)),
    ("caltech101", "official"): (11, (330, 0, 402)),
    ("cars", ""): (10, (300, 0, 149)),
    ("chestx", ""): (7, (231, 0, 0)),
    ("cifar10", ""): (10, (1400, 0, 500)),
    ("cifar100", ""): (100, (1400, 0, 500)),
    ("cropdiseases", ""): (15, (1050, 0, 0)),
    ("dtd", ""): (10, (200, 200, 200)),
    ("eurosat", ""): (10, (700, 0, 0)),
    ("flowers", ""): (12, (120, 120, 285)),
    ("food101", ""): (10, (400, 0, 200)),
    ("isic", ""): (7, (436, 0, 0)),
    ("nyuv2", ""): (0, (4, 0, 3)),
    ("pets", ""): (3, (150, 0, 120)),
    ("sun397", ""): (8, (320, 0, 160)),
    ("voc2007", ""): (20, (50, 52, 45)),
    ("voc_detection", ""): (20, (168, 0, 45)),
}


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_real_samples(samples, name, variant):
    if not (samples / name).is_dir() or (name, variant) not in REAL:
        pytest.skip(f"no sample of {name} {variant}")
    index = build(name, samples / name, variant)
    assert (len(index.classes), counts(index)) == REAL[name, variant]


# What each layout's labels mean.


def labels_by_file(index):
    return {Path(image).name: label for image, label in zip(index.image, index.label, strict=True)}


def test_labels(tmp_path):
    expected = {
        "aircraft": {"1.jpg": 0, "2.jpg": 1, "3.jpg": 1, "4.jpg": 0, "5.jpg": 1},
        "chestx": {"00000000_000.png": 4, "00000004_000.png": 0, "00000006_000.png": 6, "00000007_000.png": 4},
        "dtd": {"z_1.jpg": 1, "b_1.jpg": 0, "b_2.jpg": 0, "z_2.jpg": 1},
        "eurosat": {"Forest 1.JPG": 0, "River_10.jpg": 1, "River_2.jpg": 1},
        "flowers": {f"image_{i:05}.jpg": label for i, label in zip(range(1, 7), [1, 0, 0, 1, 0, 1], strict=True)},
        "food101": {"1.jpg": 0, "2.jpg": 1, "3.jpg": 1},
        "isic": {"ISIC_1.jpg": 1, "ISIC_2.jpg": 0, "ISIC_3.jpg": 2},
        "pets": {"Maine_Coon_5.jpg": 1, "Abyssinian_1.jpg": 0, "Abyssinian_2.jpg": 0},
        "sun397": {"sun_a.jpg": 0, "sun_b.jpg": 2, "sun_c.jpg": 1, "sun_d.jpg": 1},
        "voc2007": {"000001.jpg": [7], "000002.jpg": [11, 14], "000003.jpg": [7], "000004.jpg": []},
        "voc_detection": {"000001.jpg": [11, 14], "2008_000001.jpg": [7], "000002.jpg": []},
    }
    for name, labels in expected.items():
        LAYOUTS[name][0](tmp_path / name)
        assert labels_by_file(build(name, tmp_path / name)) == labels, name


def test_cars_keep_train_and_test_apart(tmp_path):
    layouts.cars(tmp_path)
    index = build("cars", tmp_path)
    assert index.image[0] == "cars_train/00001.jpg" and index.image[3] == "cars_test/00001.jpg"
    assert index.label == [1, 0, 1, 0, 1]
    # torchvision has the test labels beside the devkit, Kaggle's copy has the folders twice.
    (tmp_path / "devkit/cars_test_annos_withlabels.mat").rename(tmp_path / "cars_test_annos_withlabels.mat")
    for part in ("cars_train", "cars_test"):
        (tmp_path / part).rename(tmp_path / "moved")
        (tmp_path / part).mkdir()
        (tmp_path / "moved").rename(tmp_path / part / part)
    moved = build("cars", tmp_path)
    assert moved.label == index.label and moved.image[0] == "cars_train/cars_train/00001.jpg"


def test_imagenet_of_kaggle_has_the_validation_images_in_one_folder(tmp_path):
    layouts.imagenet(tmp_path / "plain")
    plain = build("imagenet", tmp_path / "plain")
    folder = tmp_path / "kaggle/ILSVRC/Data/CLS-LOC"
    layouts.imagenet(folder)
    (folder / "val/n01443537/val_0.JPEG").rename(folder / "val/val_0.JPEG")
    (folder / "val/n01443537").rmdir()
    (folder / "test").mkdir()
    table = text(tmp_path / "kaggle/LOC_val_solution.csv", "ImageId,PredictionString", "val_0,n01443537 1 1 9 9 ")
    index = build("imagenet", tmp_path / "kaggle")
    assert (index.label, index.split, index.classes) == (plain.label, plain.split, plain.classes)
    assert index.image[-1] == "ILSVRC/Data/CLS-LOC/val/val_0.JPEG"
    text(table, "ImageId,PredictionString", "val_1,n01443537 1 1 9 9")
    with pytest.raises(InputError, match=r"val_0.JPEG: this image is not in .*LOC_val_solution.csv$"):
        build("imagenet", tmp_path / "kaggle")
    text(table, "ImageId,PredictionString", "val_0,goldfish")
    with pytest.raises(InputError, match=r"line 2: found 'val_0,goldfish', expected IMAGE,SYNSET"):
        build("imagenet", tmp_path / "kaggle")


@pytest.mark.parametrize("part", ["train", "val"])
def test_imagenet_in_another_class_order_is_refused(tmp_path, part):
    layouts.imagenet(tmp_path)
    move(tmp_path, (f"{part}/n01443537", f"{part}/goldfish"))
    with pytest.raises(InputError, match=rf"{part}: class folder 'goldfish' found, expected identifiers of WordNet"):
        build("imagenet", tmp_path)
    move(tmp_path, (f"{part}/goldfish", f"{part}/n01530575"))
    if part == "val":
        with pytest.raises(InputError, match=r"val: class folder 'n01530575' is not in .*train$"):
            build("imagenet", tmp_path)


def test_sun397_in_the_folder_of_its_archive(tmp_path):
    layouts.sun397(tmp_path / "SUN397")
    inside = build("sun397", tmp_path)
    (tmp_path / "Partitions").mkdir()
    for name in ("ClassName", "Training_01", "Testing_01"):
        (tmp_path / "SUN397" / f"{name}.txt").rename(tmp_path / "Partitions" / f"{name}.txt")
    assert build("sun397", tmp_path) == inside
    assert inside.image[0] == "SUN397/a/abbey/sun_a.jpg"


def test_cifar_pixels(tmp_path):
    layouts.cifar10(tmp_path)
    index = build("cifar10", tmp_path)
    batch = layouts.cifar_data(2, seed=5)  # test_batch
    assert index.image[-1] == "cifar-10-batches-py/test_batch#1"
    pixels = np.asarray(read_image(tmp_path, index.image[-1]))
    assert np.array_equal(pixels, batch[1].reshape(3, 32, 32).transpose(1, 2, 0))


# Class sizes of the whole of Caltech-101, in alphabetical order.
CALTECH = [
    467, 435, 435, 200, 798, 55, 800, 42, 42, 47, 54, 46, 33, 128, 98, 43, 85, 91, 50, 43, 123, 47, 59, 62, 107, 47,
    69, 73, 70, 50, 51, 57, 67, 52, 65, 68, 75, 64, 53, 64, 85, 67, 67, 45, 34, 34, 51, 99, 100, 42, 54, 88, 80, 31,
    64, 86, 114, 61, 81, 78, 41, 66, 43, 40, 87, 32, 76, 55, 35, 39, 47, 38, 45, 53, 34, 57, 82, 59, 49, 40, 63, 39,
    84, 57, 35, 64, 45, 86, 59, 64, 35, 85, 49, 86, 75, 239, 37, 59, 34, 56, 39, 60,
]  # fmt: skip


def test_caltech_official_draw_is_the_published_list():
    """The authors' first train.txt, without class names: a line an image, ``CLASS NUMBER`` (both counted)."""
    sizes = np.array(CALTECH)
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    rows = caltech101.draw_training(sizes, repeats=True)
    assert len(rows) == 3060 and len(set(rows)) == 2416
    labels = np.searchsorted(first, rows, side="right") - 1
    lines = "".join(f"{label} {row - first[label] + 1}\n" for label, row in zip(labels, rows, strict=True))
    assert hashlib.sha256(lines.encode()).hexdigest() == PUBLISHED_DRAW


PUBLISHED_DRAW = "00b6dfb21f7a797465258aff22e6dd58d8fea262a58db289b1010e1a388b5581"


def test_caltech_default_draw_is_distinct(tmp_path):
    rows = caltech101.draw_training(np.array(CALTECH), repeats=False)
    assert len(set(rows)) == len(rows) == 3060
    layouts.caltech101(tmp_path)
    official = build("caltech101", tmp_path, "official")
    train = [image for image, split in zip(official.image, official.split, strict=True) if split == "train"]
    assert len(train) == 90 > len(set(train))
    assert len(set(official.image)) == 96
    small = caltech101.draw_training(np.array([1, 5, 0, 31]), repeats=False)
    assert [np.sum((small >= a) & (small < b)) for a, b in ((0, 1), (1, 6), (6, 37))] == [1, 4, 30]


def test_voc_difficult_only_is_kept_apart(tmp_path):
    layouts.voc2007(tmp_path)
    assert build("voc2007", tmp_path).extra["difficult"] == [[11], [], [], [11]]


def test_voc_boxes_stay_one_based_until_converted(tmp_path):
    layouts.voc_detection(tmp_path)
    index = build("voc_detection", tmp_path)
    assert index.extra["voc_boxes"] == [
        [[11, 1, 1, 12, 9], [14, 2, 3, 4, 5], [11, 1, 1, 12, 9]],
        [[7, 0, 1.5, 7.25, 9]],
        [],
    ]
    assert index.extra["difficult"] == [[0, 1, 0], [0], []]
    boxes = voc.half_open(np.array(index.extra["voc_boxes"][0])[:, 1:])
    assert boxes.tolist() == [[0, 0, 12, 9], [1, 2, 4, 5], [0, 0, 12, 9]]
    assert voc.half_open(np.empty((0, 4))).shape == (0, 4)


def test_voc_boxes_of_real_samples_agree_with_the_class_lists(samples):
    boxes = build("voc_detection", samples / "voc_detection")
    lists = build("voc2007", samples / "voc2007")
    shown = {Path(image).stem: set(label) for image, label in zip(boxes.image, boxes.label, strict=True)}
    for image, label, difficult in zip(lists.image, lists.label, lists.extra["difficult"], strict=True):
        assert shown[Path(image).stem] == set(label) | set(difficult)


@pytest.mark.parametrize(
    ("written", "flag"), [("", 0), (" ", 0), ("Unspecified", 0), ("0.0", 0), ("1.0", 1), ("1", 1), ("True", 1)]
)
def test_annotations_of_labelling_tools(tmp_path, written, flag):
    annotation(tmp_path / "a.xml", ("dog", (1, 1, 4, 9), written))
    assert voc.read_objects(tmp_path / "a.xml").difficult == [flag]
    text = (tmp_path / "a.xml").read_text().replace(f"<difficult>{written}</difficult>", "")
    (tmp_path / "a.xml").write_text(text)
    assert voc.read_objects(tmp_path / "a.xml").difficult == [0]


# Later editions of the original datasets: the same labels in the same order as from the original layout.


def move(root, *pairs):
    """Move parts of a layout; a part moved into itself takes its place one folder deeper."""
    for old, new in pairs:
        (root / old).rename(root / "moving")
        (root / new).parent.mkdir(parents=True, exist_ok=True)
        (root / "moving").rename(root / new)


def ham10000(root):
    """The table and folders of HAM10000, in another order than the official table."""
    name = "ISIC2018_Task3_Training"
    shutil.rmtree(root / f"{name}_GroundTruth")
    text(root / "HAM10000_metadata.csv", "lesion_id,image_id,dx", "H3,ISIC_3,bcc", "H1,ISIC_1,nv", "H2,ISIC_2,mel")
    move(
        root,
        (f"{name}_Input/ISIC_3.jpg", "HAM10000_images_part_2/ISIC_3.jpg"),
        (f"{name}_Input", "HAM10000_images_part_1"),
    )


def kaggle_cars(root):
    """Class folders below train and test with the same file names in both, and the devkit in its own archive."""
    for part in ("train", "test"):
        for path in sorted((root / f"cars_{part}").iterdir()):
            move(root, (f"cars_{part}/{path.name}", f"car_data/car_data/{part}/Class {path.stem}/{path.name}"))
        (root / f"cars_{part}").rmdir()
    test = "cars_test_annos_withlabels"
    move(root, (f"devkit/{test}.mat", f"devkit/{test} (1).mat"), ("devkit", "car_devkit/devkit"))


def kaggle_sun(root):
    """Folders train and test with flattened class names; one file name is there in two classes."""
    places = {
        "a/abbey/sun_a.jpg": "train/abbey/sun_a.jpg",
        "l/library/outdoor/sun_b.jpg": "train/library_outdoor/sun_b.jpg",
        "l/library/indoor/sun_c.jpg": "test/library_indoor/sun_c.jpg",
        "l/library/indoor/sun_d.jpg": "test/library_indoor/sun_d.jpg",
    }
    move(root, *places.items())
    layouts.picture(root / "train/library_outdoor/sun_c.jpg")
    for letter in ("a", "l"):
        shutil.rmtree(root / letter)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("eurosat", lambda root: move(root, ("2750", "EuroSAT_RGB"))),
        ("eurosat", lambda root: move(root, ("2750", "EuroSAT_RGB/EuroSAT_RGB"))),
        ("eurosat", lambda root: move(root, ("2750/River", "River"), ("2750/Forest", "Forest"), ("2750", ".old"))),
        ("eurosat", lambda root: move(root, ("2750", "EuroSAT"))),
        ("chestx", lambda root: move(root, ("images", "images_001/images"))),
        ("isic", ham10000),
        ("isic", lambda root: move(root, (f"{TABLE}", "ISIC2018_Task3_Training_GroundTruth.csv"))),
        ("cars", kaggle_cars),
        ("sun397", kaggle_sun),
        ("cropdiseases", lambda root: move(root, ("dataset/train", "train"))),
    ],
)
def test_later_editions_have_the_same_labels_in_the_same_order(tmp_path, name, change):
    LAYOUTS[name][0](tmp_path)
    original = build(name, tmp_path)
    change(tmp_path)
    later = build(name, tmp_path)
    assert later.warnings == []
    assert [Path(image).name for image in later.image] == [Path(image).name for image in original.image]
    assert [later.classes[k] for k in later.label] == [original.classes[k] for k in original.label]
    assert later.split == original.split
    if name == "sun397":
        assert later.image[2] == "test/library_indoor/sun_c.jpg"


def test_sun397_twice_in_its_folder(tmp_path):
    layouts.sun397(tmp_path / "SUN397/SUN397")
    assert build("sun397", tmp_path).image[0] == "SUN397/SUN397/a/abbey/sun_a.jpg"


def test_two_files_that_may_be_one_image_of_sun397(tmp_path):
    layouts.sun397(tmp_path)
    kaggle_sun(tmp_path)
    layouts.picture(tmp_path / "copy/library_indoor/sun_d.jpg")
    with pytest.raises(InputError, match="copy/library_indoor/sun_d.jpg and test/library_indoor/sun_d.jpg may both"):
        build("sun397", tmp_path)


def test_an_image_that_is_in_two_other_folders_is_one_line(tmp_path):
    layouts.chestx(tmp_path)
    move(tmp_path, ("images", "images_001/images"))
    build("chestx", tmp_path)
    layouts.picture(tmp_path / "images_224/00000006_000.png")
    with pytest.raises(InputError, match="images_001/images/00000006_000.png and .*images_224/00000006_000.png may"):
        build("chestx", tmp_path)


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("chestx", "Data_Entry_2017.csv", "Data_Entry_2017_v2020.csv", "Data_Entry_2017_v2020.csv"),
        ("cropdiseases", "dataset/train", "raw/color", "43,456"),
    ],
)
def test_editions_with_other_labels_or_images_say_so(tmp_path, name, old, new, said):
    LAYOUTS[name][0](tmp_path)
    expected = build(name, tmp_path)
    assert expected.warnings == []
    move(tmp_path, (old, new))
    index = build(name, tmp_path)
    assert index.label == expected.label
    assert len(index.warnings) == 1 and said in index.warnings[0]


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_missing_layout_says_what_is_there_what_is_expected_and_where_to_get_it(tmp_path, name):
    (tmp_path / name / "elsewhere").mkdir(parents=True)
    (tmp_path / name / "notes.txt").touch()
    (tmp_path / name / ".DS_Store").touch()
    params = {"dataset": name, "task": "single-label", "source": ["original", name, ""], "counts": {}}
    params |= {"allow_subset": False, "on_error": "fail"}
    with pytest.raises(InputError) as error:
        index_source(params, tmp_path, tmp_path / "index.parquet")
    message = str(error.value)
    assert f"{tmp_path / name} holds elsewhere/, notes.txt;" in message
    assert DOWNLOADS[name].tree in message and DOWNLOADS[name].page in message
    assert "\n" not in message


# Bad input: one line that names the file, what was found and what to write instead.


@pytest.mark.parametrize("name", LAYOUTS)
def test_missing_layout_is_one_line(tmp_path, name):
    with pytest.raises(InputError, match="is missing; .* holds "):
        build(name, tmp_path)


def edit(file, old, new):
    def change(root):
        content = (root / file).read_text()
        assert old in content
        (root / file).write_text(content.replace(old, new))

    return change


def remove(file):
    return lambda root: (root / file).unlink()


def folder_instead(file):
    def change(root):
        (root / file).unlink()
        (root / file).mkdir()

    return change


def mat(file, **content):
    return lambda root: savemat(root / file, content)


def voc_xml(*objects, **options):
    return lambda root: annotation(root / "VOCdevkit/VOC2007/Annotations/000001.xml", *objects, **options)


SETS, TABLE = "VOCdevkit/VOC2007/ImageSets/Main", "ISIC2018_Task3_Training_GroundTruth"
TABLE = f"{TABLE}/{TABLE}.csv"
ENTITY = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
META = "surfacenormal_metadata"
NORMAL = f"{META}/000007.mat"


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("dtd", remove("labels/val1.txt"), r"val1\.txt is missing; .* holds test1.txt, train1.txt"),
        ("dtd", folder_instead("labels/val1.txt"), r"val1\.txt cannot be read: .*directory"),
        ("dtd", edit("labels/val1.txt", "b_2", "b_9"), r"b_9\.jpg is not a file \(1 of 4 images are missing\)"),
        ("dtd", folder_instead("images/banded/b_2.jpg"), r"b_2\.jpg is not a file \(1 of 4"),
        ("dtd", edit("labels/test1.txt", "zigzag/z_2", "banded/b_2"), r"images/banded/b_2\.jpg is in val and in test"),
        ("aircraft", edit("data/images_variant_val.txt", " A330 200", ""), "line 1: found '3', expected 'ID VARIANT'"),
        ("pets", edit("annotations/test.txt", "1 1 1", "cat"), r"test\.txt, line 2: .* expected 'NAME CLASS SPECIES"),
        ("food101", edit("meta/test.txt", "waffles/3", "wafers/3"), "found 'wafers/3', expected CLASS/ID"),
        ("sun397", edit("Testing_01.txt", "library/indoor", "library"), "expected /LETTER/CLASS/FILE with a class"),
        ("isic", edit(TABLE, "1,0.0,1.0", "1,1.0,1.0"), r"csv, line 2: found 1\.0, 1\.0, 0\.0; expected 3 values, one"),
        ("isic", edit(TABLE, "ISIC_3", '"ISIC_3'), "GroundTruth.csv, line 4: unexpected end of data"),
        ("isic", edit(TABLE, "ISIC_3,0.0,", "ISIC_3,"), r"line 4: found 0\.0, 1\.0; expected 3 values"),
        ("chestx", edit("Data_Entry_2017.csv", "Image Index", "Image"), "the header must begin with 'Image Index,"),
        ("flowers", mat("setid.mat", trnid=[[1]], valid=[[2]], tstid=[[7]]), "tstid names image 7, imagelabels.mat"),
        ("flowers", mat("setid.mat", trnid=[[1]]), "variable 'valid' is missing; found trnid"),
        ("flowers", mat("imagelabels.mat", labels=np.ones((3, 2))), r"'labels' is float64 \(3, 2\), expected numbers"),
        ("flowers", lambda root: (root / "setid.mat").write_bytes(b""), "setid.mat is not a MATLAB file"),
        ("cars", mat("devkit/cars_meta.mat", class_names=np.array([["x"]], object)), r"class 3 is outside 1\.\.1"),
        (
            "cars",
            lambda root: shutil.copy(
                root / "devkit/cars_test_annos.mat", root / "devkit/cars_test_annos_withlabels.mat"
            ),
            "'annotations' must be a struct array with the fields class and fname",
        ),
        ("cars", mat("devkit/cars_train_annos.mat", annotations=np.ones((1, 2))), "must be a struct array"),
        (
            "voc_detection",
            lambda root: text(
                root / "VOCdevkit/VOC2007/Annotations/000001.xml", '<?xml version="1.0" encoding="none"?><annotation/>'
            ),
            "000001.xml is not an annotation: unknown encoding",
        ),
        ("voc2007", edit(f"{SETS}/cat_val.txt", " 1", " 2"), "cat_val.txt: found flag '2', expected 1, 0 or -1"),
        ("voc2007", edit(f"{SETS}/cat_val.txt", "000003", "000009"), "cat_val.txt: image 000003 is not in all class"),
        ("voc2007", remove(f"{SETS}/cow_test.txt"), "cow_test.txt is missing"),
        ("voc_detection", edit(f"{SETS}/test.txt", "000002", "000009"), "000009.xml is missing"),
        ("voc_detection", voc_xml(("dog", (1, 1, 14, 9), 0)), r"box \(1, 1, 14, 9\) is empty or leaves the image \(12"),
        ("voc_detection", voc_xml(("dog", (-1, 1, 4, 9), 0)), "box .* is empty or leaves"),
        ("voc_detection", voc_xml(("dog", (5, 1, 4, 9), 0)), "box .* is empty or leaves"),
        ("voc_detection", voc_xml(("dog", ("nan", 1, 4, 9), 0)), "box .* is empty or leaves"),
        ("voc_detection", voc_xml(("dog", (1, 1, 99, 9), 0), size=(0, 0)), None),  # a size of 0 is unknown
        (
            "voc_detection",
            voc_xml(("cow", (1, 1, 4, 9), 0), ("unicorn", (1, 1, 4, 9), 0)),
            "000001.xml, object 2: class 'unicorn' is unknown; the classes of VOC are aeroplane, .*, tvmonitor",
        ),
        ("voc_detection", voc_xml(("dog", ("", 1, 4, 9), 0)), "000001.xml, object 1: bndbox/xmin is ''"),
        ("voc_detection", voc_xml(("dog", (1, 1, 4, 9), "maybe")), "000001.xml, object 1: difficult is 'maybe'"),
        ("voc_detection", voc_xml(("dog", (1, 1, 4, 9), 0), size=("wide", 9)), "size/width is 'wide'"),
        ("voc_detection", voc_xml(head=ENTITY), "000001.xml is not an annotation: document type 'a' found"),
        ("voc_detection", edit("VOCdevkit/VOC2007/Annotations/000001.xml", "</annot", "<x"), "is not an annotation"),
        (
            "nyuv2",
            edit(f"{META}/test_SN40.json", '"img"', '"image"'),
            r"is not a list of objects with the key 'img'",
        ),
        ("nyuv2", edit(f"{META}/test_SN40.json", "[{", "{"), "is not a list of objects"),
        ("nyuv2", remove(f"{META}/all_normals.pklz"), "all_normals.pklz is missing"),
        ("cifar10", lambda root: layouts.cifar_batch(root / "cifar-10-batches-py/data_batch_2"), "'labels' is missing"),
        ("eurosat", lambda root: shutil.rmtree(root / "2750/River"), None),
        ("eurosat", lambda root: [shutil.rmtree(p) for p in (root / "2750").glob("[FR]*")], "has no sub-folders"),
    ],
)
def test_bad_input_is_one_line(tmp_path, name, change, message):
    LAYOUTS[name][0](tmp_path)
    change(tmp_path)
    if message is None:
        build(name, tmp_path)
        return
    with pytest.raises(InputError, match=message) as error:
        build(name, tmp_path)
    assert "\n" not in str(error.value)


def test_text_that_is_not_utf8(tmp_path):
    layouts.food101(tmp_path)
    (tmp_path / "meta/classes.txt").write_bytes("cr\xe8me\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"classes\.txt cannot be read: .*utf-8"):
        build("food101", tmp_path)


def test_list_of_images_with_other_letters(tmp_path):
    layouts.nyuv2(tmp_path)
    text(tmp_path / META / "test_SN40.json", json.dumps([{"img": "Zürich 1_rgb.jpg"}]))
    layouts.picture(tmp_path / "all_images/Zürich 1_rgb.jpg")
    assert build("nyuv2", tmp_path).extra["normals"][-1].endswith("#Zürich 1")

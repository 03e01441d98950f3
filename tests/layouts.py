"""Small datasets in the official layout of each original one, written from scratch."""

import csv
import gzip
import json
import pickle
from pathlib import Path

import h5py
import numpy as np
from PIL import Image
from scipy.io import savemat

VOC_CLASSES = (
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant "
    "sheep sofa train tvmonitor"
)
VOC_CLASSES = VOC_CLASSES.split(" ")


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (12, 9)) -> Path:
    """Write a small image of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, format="PNG" if path.suffix == ".png" else "JPEG")
    return path


def text(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def aircraft(root):
    parts = {"train": ["1 707-320", "2 A330 200"], "val": ["3 A330 200"], "test": ["4 707-320", "5 A330 200"]}
    for split, lines in parts.items():
        text(root / "data" / f"images_variant_{split}.txt", *lines)
        for line in lines:
            picture(root / "data" / "images" / f"{line.split()[0]}.jpg")


def caltech101(root):
    for name in ("BACKGROUND_Google", "Faces_easy", "ant"):
        for i in range(1, 33):
            picture(root / "101_ObjectCategories" / name / f"image_{i:04}.jpg", seed=i)
    (root / "101_ObjectCategories" / "BACKGROUND_Google" / "tmp").touch()


def annotations(numbers, names, labelled=True):
    fields = [f"bbox_{side}" for side in ("x1", "y1", "x2", "y2")] + (["class"] if labelled else []) + ["fname"]
    rows = np.empty((1, len(names)), dtype=[(field, object) for field in fields])
    for i, (number, name) in enumerate(zip(numbers, names, strict=True)):
        box = tuple(np.array([[side]], np.uint16) for side in (1, 1, 12, 9))
        rows[0, i] = (*box, *([np.array([[number]], np.uint8)] if labelled else []), name)
    return {"annotations": rows}


def cars(root):
    (root / "devkit").mkdir(parents=True)
    names = np.empty((1, 3), object)
    names[0, :] = ["AM General Hummer SUV 2000", "Acura RL Sedan 2012", "Audi S6 Sedan 2011"]
    savemat(root / "devkit/cars_meta.mat", {"class_names": names})
    train, test = ["00001.jpg", "00002.jpg", "00003.jpg"], ["00001.jpg", "00002.jpg"]
    savemat(root / "devkit/cars_train_annos.mat", annotations([3, 1, 3], train))
    savemat(root / "devkit/cars_test_annos.mat", annotations([1, 3], test, labelled=False))
    savemat(root / "devkit/cars_test_annos_withlabels.mat", annotations([1, 3], test))
    for part, files in (("train", train), ("test", test)):
        for name in files:
            picture(root / f"cars_{part}" / name)


def chestx(root):
    found = ["Mass", "Mass|Nodule", "No Finding", "Pneumonia", "Atelectasis", "Hernia", "Pneumothorax", "Mass"]
    rows = [f"{i:08}_000.png,{name},0,1,57,M,PA,2682,2749,0.143,0.143" for i, name in enumerate(found)]
    header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position"
    text(root / "Data_Entry_2017.csv", header + ",OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]", *rows)
    for i in range(len(found)):
        picture(root / "images" / f"{i:08}_000.png", seed=i)


def cifar_batch(path, **content):
    """Write as Python 2 would: byte keys, protocol 2."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps({key.encode(): value for key, value in content.items()}, protocol=2))


def cifar_data(count, seed):
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)


def cifar10(root):
    for i, name in enumerate([f"data_batch_{n}" for n in range(1, 6)] + ["test_batch"]):
        cifar_batch(root / "cifar-10-batches-py" / name, data=cifar_data(2, i), labels=[0, 1], batch_label=b"x")
    cifar_batch(root / "cifar-10-batches-py" / "batches.meta", label_names=[b"airplane", b"automobile"])


def cifar100(root):
    folder = root / "cifar-100-python"
    cifar_batch(folder / "train", data=cifar_data(3, 0), fine_labels=[1, 0, 1], coarse_labels=[0, 0, 0])
    cifar_batch(folder / "test", data=cifar_data(1, 1), fine_labels=[1], coarse_labels=[0])
    cifar_batch(folder / "meta", fine_label_names=[b"apple", b"bear"], coarse_label_names=[b"thing"])


def cropdiseases(root):
    for name in ("dataset/train/Corn_(maize)___healthy/a b___1.JPG", "dataset/train/Apple___scab, black/c.jpg"):
        picture(root / name)
    picture(root / "dataset/test/Apple___scab, black/d.jpg")


def dtd(root):
    lists = {"train": ["zigzag/z_1.jpg", "banded/b_1.jpg"], "val": ["banded/b_2.jpg"], "test": ["zigzag/z_2.jpg"]}
    for split, lines in lists.items():
        text(root / "labels" / f"{split}1.txt", *lines)
        for line in lines:
            picture(root / "images" / line)


def eurosat(root):
    for name in ("River/River_2.jpg", "River/River_10.jpg", "Forest/Forest 1.JPG"):
        picture(root / "2750" / name)
    (root / "2750/Forest/thumbs.db").touch()
    (root / "2750/Forest/._Forest 1.JPG").touch()  # what macOS leaves on other disks
    (root / "2750/.DS_Store").touch()


def flowers(root):
    # Classes 7 and 21 only; the last image is used.
    root.mkdir(parents=True, exist_ok=True)
    savemat(root / "imagelabels.mat", {"labels": np.array([[21, 7, 7, 21, 7, 21]], np.uint8)})
    sets = {"trnid": [1, 2], "valid": [3, 4], "tstid": [5, 6]}
    savemat(root / "setid.mat", {key: np.array([numbers], np.uint16) for key, numbers in sets.items()})
    for i in range(1, 7):
        picture(root / "jpg" / f"image_{i:05}.jpg")


def food101(root):
    text(root / "meta/classes.txt", "apple_pie", "waffles")
    text(root / "meta/train.txt", "apple_pie/1", "waffles/2")
    text(root / "meta/test.txt", "waffles/3")
    for name in ("apple_pie/1", "waffles/2", "waffles/3"):
        picture(root / "images" / f"{name}.jpg")


def imagenet(root):
    for part, names in {"train": ("n01440764", "n01443537"), "val": ("n01443537",)}.items():
        for number in range(2 if part == "train" else 1):
            for name in names:
                picture(root / part / name / f"{name if part == 'train' else part}_{number}.JPEG", seed=number)


def isic(root):
    name = "ISIC2018_Task3_Training"
    lines = ["image,MEL,NV,BCC", "ISIC_1,0.0,1.0,0.0", "ISIC_2,1.0,0.0,0.0", "ISIC_3,0.0,0.0,1.0"]
    text(root / f"{name}_GroundTruth" / f"{name}_GroundTruth.csv", *lines)
    for i in (1, 2, 3):
        picture(root / f"{name}_Input" / f"ISIC_{i}.jpg")


def normals(root, name, size=(6, 4), single=False):
    """One frame's normals: all towards the camera, the first column unknown."""
    width, height = size
    frame = np.zeros((height, width, 3), np.float32)
    frame[:, 1:, 2] = 1
    valid = (frame[..., 2] > 0).astype(np.float32)
    if single:
        axes = {f"n{axis}": frame[..., i] for i, axis in enumerate("xyz")}
        savemat(root / "surfacenormal_metadata" / f"{name}.mat", axes | {"depthValid": valid.astype(np.uint8)})
    return frame, valid


def nyuv2(root):
    metadata = root / "surfacenormal_metadata"
    for split, names in {"train": ["000003", "000007"], "test": ["000433"]}.items():
        records = [{"img": f"{n}_rgb.jpg", "segm": f"{n}_SN40.png", "width": 6, "height": 4} for n in names]
        text(metadata / f"{split}_SN40.json", json.dumps(records))
        for name in names:
            picture(root / "all_images" / f"{name}_rgb.jpg", size=(6, 4))
    normals(root, "000007", single=True)
    frames = [normals(root, name) for name in ("000003", "000433")]
    content = {
        "all_normals": np.stack([frame for frame, _ in frames]),
        "all_valid_depth_masks": np.stack([valid for _, valid in frames]),
        "all_filenames": ["000003", "000433"],
    }
    (metadata / "all_normals.pklz").write_bytes(gzip.compress(pickle.dumps(content, protocol=4)))
    words = np.tile([[0.0, 0.0, 1.0]], (40, 1))
    savemat(metadata / "vocab40.mat", {"vocabs": np.array([[{"normals": np.array([[words]], object)}]], object)})
    nyuv2_labelled(root)


def nyuv2_labelled(root):
    """Frames 1 to 3 of the labelled file; 2 and 3 train. All normals point right; one pixel has no depth, one NaN."""
    frames = np.random.default_rng(0).integers(0, 256, (3, 4, 6, 3), dtype=np.uint8)
    depth = np.full((3, 4, 6), 2.5, np.float32)
    depth[:, 0, 0], depth[:, 1, 2] = 0, np.nan
    with h5py.File(root / "nyu_depth_v2_labeled.mat", "w") as file:
        file["images"] = frames.transpose(0, 3, 2, 1)
        file["rawDepths"] = depth.transpose(0, 2, 1)
        names = ["study_0001", "study_0001", "bedroom_0002"]
        letters = [np.array([[ord(letter)] for letter in name], np.uint16) for name in names]
        texts = [file.create_dataset(f"#refs#/{number}", data=text) for number, text in enumerate(letters)]
        file["scenes"] = np.array([[text.ref for text in texts]], h5py.ref_dtype)
    savemat(root / "splits.mat", {"trainNdxs": np.array([[2], [3]]), "testNdxs": np.array([[1]])})
    for split, number in (("train", 2), ("train", 3), ("test", 1)):
        path = root / "nyu_normals_gt" / split / f"{number:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 4), (128, 127, 255)).save(path)


def pets(root):
    text(root / "annotations/trainval.txt", "Maine_Coon_5 20 1 2", "Abyssinian_1 1 1 1")
    text(root / "annotations/test.txt", "#Image CLASS-ID SPECIES BREED", "Abyssinian_2 1 1 1")
    for name in ("Maine_Coon_5", "Abyssinian_1", "Abyssinian_2"):
        picture(root / "images" / f"{name}.jpg")


def sun397(root):
    text(root / "ClassName.txt", "/l/library/indoor", "/a/abbey", "/l/library/outdoor")
    lists = {
        "Training": ["/a/abbey/sun_a.jpg", "/l/library/outdoor/sun_b.jpg", "/l/library/indoor/sun_c.jpg"],
        "Testing": ["/l/library/indoor/sun_d.jpg"],
    }
    for part, lines in lists.items():
        text(root / f"{part}_01.txt", *lines)
        for line in lines:
            picture(root / line[1:])


def voc_lists(folder, split, rows):
    """Write the list of a split and the list of each class; `rows` is image -> {class: flag}."""
    main = folder / "ImageSets/Main"
    text(main / f"{split}.txt", *rows)
    for name in VOC_CLASSES:
        text(main / f"{name}_{split}.txt", *(f"{image} {flags.get(name, -1):2}" for image, flags in rows.items()))


def voc2007(root):
    folder = root / "VOCdevkit/VOC2007"
    sets = {
        "train": {"000001": {"cat": 1, "dog": 0}, "000002": {"dog": 1, "person": 1}},
        "val": {"000003": {"cat": 1}},
        "test": {"000004": {"dog": 0}},
    }
    for split, rows in sets.items():
        voc_lists(folder, split, rows)
        for name in rows:
            picture(folder / "JPEGImages" / f"{name}.jpg")


def annotation(path, *objects, size=(12, 9), head=""):
    """Write an annotation; objects are (class, (xmin, ymin, xmax, ymax), difficult)."""
    items = "".join(
        f"<object><name>{name}</name><difficult>{difficult}</difficult>"
        f"<part><name>head</name><bndbox><xmin>90</xmin><ymin>90</ymin><xmax>99</xmax><ymax>99</ymax></bndbox></part>"
        f"<bndbox><xmax>{box[2]}</xmax><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><ymax>{box[3]}</ymax></bndbox></object>"
        for name, box, difficult in objects
    )
    sides = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
    return text(path, f"{head}<annotation><filename>x.jpg</filename>{sides}{items}</annotation>")


def voc_detection(root):
    devkit = root / "VOCdevkit"
    for year, split, name in [
        ("VOC2007", "trainval", "000001"),
        ("VOC2012", "trainval", "2008_000001"),
        ("VOC2007", "test", "000002"),
    ]:
        text(devkit / year / "ImageSets/Main" / f"{split}.txt", name)
        picture(devkit / year / "JPEGImages" / f"{name}.jpg")
    dog, person = ("dog", (1, 1, 12, 9), 0), ("person", (2, 3, 4, 5), 1)
    annotation(devkit / "VOC2007/Annotations/000001.xml", dog, person, dog)
    annotation(devkit / "VOC2012/Annotations/2008_000001.xml", ("cat", (0, 1.5, 7.25, 9), 0))
    annotation(devkit / "VOC2007/Annotations/000002.xml")


def mask(path, values, size=(12, 9)):
    """Write a mask with this value everywhere but for one pixel each of the values after the first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full(size[::-1], values[0], np.uint8)
    pixels[0, 1 : len(values)] = values[1:]
    Image.fromarray(pixels).save(path)


def ade20k(root):
    base = root / "ADEChallengeData2016"
    text(base / "objectInfo150.txt", "Idx\tRatio\tTrain\tVal\tName", "1\t0.5\t1\t1\twall", "2\t0.1\t1\t1\tsky, air")
    for part, name, values in [("training", "ADE_train_1", (0, 1, 2)), ("validation", "ADE_val_1", (1, 0))]:
        picture(base / "images" / part / f"{name}.jpg")
        mask(base / "annotations" / part / f"{name}.png", values)


def voc_segmentation(root):
    base = root / "VOCdevkit/VOC2012"
    for split, name in [("train", "2007_000001"), ("val", "2007_000002")]:
        text(base / "ImageSets/Segmentation" / f"{split}.txt", name)
        picture(base / "JPEGImages" / f"{name}.jpg")
        mask(base / "SegmentationClass" / f"{name}.png", tuple(range(21)) if split == "train" else (0, 255), (24, 9))
        Image.new("RGB", (24, 9)).save(base / "JPEGImages" / f"{name}.jpg")


def table(path, rows, newline="\n", encoding="utf-8"):
    """Write a csv of image,label,split and its images."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file, lineterminator=newline).writerows([("image", "label", "split"), *rows])
    for i, (image, _, _) in enumerate(rows):
        picture(path.parent / image, seed=i)
    return path


#: Writer of each layout, with the classes and the (train, val, test) counts of what it writes.
LAYOUTS = {
    "aircraft": (aircraft, ["707-320", "A330 200"], (2, 1, 2)),
    "caltech101": (caltech101, ["BACKGROUND_Google", "Faces_easy", "ant"], (90, 0, 6)),
    "cars": (cars, ["AM General Hummer SUV 2000", "Audi S6 Sedan 2011"], (3, 0, 2)),
    "chestx": (
        chestx,
        ["Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumothorax"],
        (4, 0, 0),
    ),
    "cifar10": (cifar10, ["airplane", "automobile"], (10, 0, 2)),
    "cifar100": (cifar100, ["apple", "bear"], (3, 0, 1)),
    "cropdiseases": (cropdiseases, ["Apple___scab, black", "Corn_(maize)___healthy"], (2, 0, 0)),
    "dtd": (dtd, ["banded", "zigzag"], (2, 1, 1)),
    "eurosat": (eurosat, ["Forest", "River"], (3, 0, 0)),
    "flowers": (flowers, ["7", "21"], (2, 2, 2)),
    "food101": (food101, ["apple_pie", "waffles"], (2, 0, 1)),
    "imagenet": (imagenet, ["n01440764", "n01443537"], (4, 0, 1)),
    "isic": (isic, ["MEL", "NV", "BCC"], (3, 0, 0)),
    "nyuv2": (nyuv2, [], (2, 0, 1)),
    "pets": (pets, ["Abyssinian", "Maine_Coon"], (2, 0, 1)),
    "sun397": (sun397, ["abbey", "library/indoor", "library/outdoor"], (3, 0, 1)),
    "voc2007": (voc2007, VOC_CLASSES, (2, 1, 1)),
    "voc_detection": (voc_detection, VOC_CLASSES, (2, 0, 1)),
    "ade20k": (ade20k, ["wall", "sky"], (1, 0, 1)),
    "voc_segmentation": (voc_segmentation, ["background", *VOC_CLASSES], (1, 0, 1)),
}

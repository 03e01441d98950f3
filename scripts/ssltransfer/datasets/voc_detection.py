"""PASCAL VOC detection: train on VOC2007 + VOC2012 trainval, test on VOC2007 test.

Both years lie in one ``VOCdevkit``. Objects marked "difficult" are kept: they train, and the evaluation ignores them.
"""

from pathlib import Path

from ssltransfer.datasets.index import Index, concatenate
from ssltransfer.datasets.layout import inner_folder, read_lines
from ssltransfer.datasets.voc import CLASSES, read_objects

SETS = (("train", "VOC2007", "trainval"), ("train", "VOC2012", "trainval"), ("test", "VOC2007", "test"))


def index(root: Path) -> Index:
    """Index the images of all sets with the objects of their annotations.

    `label` lists the classes an image shows. Extra columns, one entry per object: ``voc_boxes``, ``[class, xmin, ymin,
    xmax, ymax]`` in VOC's convention (1-based, inclusive; see `ssltransfer.datasets.voc.half_open`), and
    ``difficult``, 0 or 1.
    """
    devkit = inner_folder(root, "VOCdevkit")
    parts: dict[str, tuple[list, list]] = {"train": ([], []), "test": ([], [])}
    for split, year, name in SETS:
        for image in read_lines(devkit / year / "ImageSets" / "Main" / f"{name}.txt"):
            path = devkit / year / "JPEGImages" / f"{image}.jpg"
            parts[split][0].append(path.relative_to(root).as_posix())
            parts[split][1].append(read_objects(devkit / year / "Annotations" / f"{image}.xml"))
    objects = [found for _, part in parts.values() for found in part]
    index = concatenate(
        {split: (images, [sorted(set(found.label)) for found in part]) for split, (images, part) in parts.items()},
        CLASSES,
    )
    index.extra["voc_boxes"] = [
        [[float(label), *box] for label, box in zip(found.label, found.box, strict=True)] for found in objects
    ]
    index.extra["difficult"] = [found.difficult for found in objects]
    return index

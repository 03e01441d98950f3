"""PASCAL VOC2012 segmentation: background and 20 classes, 1,464 training and 1,449 validation images.

``ImageSets/Segmentation/{train,val}.txt`` name the images; ``SegmentationClass/*.png`` hold the classes as a palette,
255 at the edges of objects and where they are hard to tell. The labels of the test part are not public, so that the
validation part is the test part here, as in the papers of DINOv2 and DINOv3.
"""

from pathlib import Path

from ssltransfer.datasets.index import Index
from ssltransfer.datasets.layout import inner_folder, read_lines
from ssltransfer.datasets.mask_classes import BACKGROUND
from ssltransfer.datasets.masks import IGNORE, index_pairs
from ssltransfer.datasets.voc import CLASSES

PARTS = {"train": "train", "test": "val"}


def index(root: Path) -> Index:
    """Index both parts with their masks (see `masks.index_pairs`)."""
    base = inner_folder(root, "VOCdevkit") / "VOC2012"
    parts = {}
    for split, name in PARTS.items():
        names = read_lines(base / "ImageSets" / "Segmentation" / f"{name}.txt")
        folders = (("JPEGImages", ".jpg"), ("SegmentationClass", ".png"))
        parts[split] = [
            tuple((base / folder / f"{image}{suffix}").relative_to(root).as_posix() for folder, suffix in folders)
            for image in names
        ]
    return index_pairs(root, parts, [BACKGROUND, *CLASSES], unlabelled=IGNORE)

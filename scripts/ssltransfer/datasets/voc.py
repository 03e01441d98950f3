"""Shared parts of the PASCAL VOC layouts: class lists, annotations, and the convention of their boxes."""

import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ssltransfer.datasets.layout import missing, read_pairs
from ssltransfer.errors import InputError

CLASSES = [
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
]  # fmt: skip

# Coordinates of 0, one pixel outside the 1-based image, are met in copies of VOC2012; more is an error.
TOLERANCE = 1.0


@dataclass
class VocObjects:
    """The objects of an image, in the order of its annotation.

    Attributes
    ----------
    label : list of int
    box : list of list of float
        ``[xmin, ymin, xmax, ymax]``, VOC's convention: pixels counted from 1, the last one included.
    difficult : list of int
        1 where the object is marked as hard to recognise: trained on, but ignored by the evaluation.
    """

    label: list[int] = field(default_factory=list)
    box: list[list[float]] = field(default_factory=list)
    difficult: list[int] = field(default_factory=list)


def half_open(boxes: np.ndarray) -> np.ndarray:
    """Convert boxes from VOC's convention to 0-based half-open corners: the one place where that is done.

    A box over a whole image of width w is (1, .., w, ..) in VOC's convention and (0, .., w, ..) afterwards, so that
    ``xmax - xmin`` is the width. A coordinate of 0 becomes -1, as in detectron2.

    Parameters
    ----------
    boxes : ndarray of float, shape (n, 4)
        ``xmin, ymin, xmax, ymax``.
    """
    return np.asarray(boxes, dtype=np.float64).reshape(-1, 4) - (1.0, 1.0, 0.0, 0.0)


def read_class_lists(folder: Path, split: str) -> dict[str, list[int]]:
    """Read the 20 lists of a split: image name to a flag (1, 0, -1) for each class, in the order of the first list."""
    rows: dict[str, list[int]] = {}
    for name in CLASSES:
        path = folder / "ImageSets" / "Main" / f"{name}_{split}.txt"
        flags = dict(read_pairs(path, "NAME FLAG"))
        if wrong := [flag for flag in flags.values() if flag not in ("1", "0", "-1")]:
            raise InputError(f"{path}: found flag {wrong[0]!r}, expected 1, 0 or -1")
        if name != CLASSES[0] and (other := sorted(rows.keys() ^ flags.keys())):
            raise InputError(f"{path}: image {other[0]} is not in all class lists of {split!r}")
        for image, flag in flags.items():
            rows.setdefault(image, []).append(int(flag))
    return rows


class _WithoutDoctype(ET.TreeBuilder):
    """Refuses document types, and with them entities; annotations have none."""

    def doctype(self, name: str, *_: object) -> None:
        raise InputError(f"document type {name!r} found; annotations have none")


def _number(item: ET.Element, tag: str, where: str, default: str = "") -> float:
    """Read the number of an element; `default` stands for an empty or missing one."""
    text = (item.findtext(tag) or "").strip() or default
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{where}: {tag} is {text!r}; expected a number") from None


def _flag(item: ET.Element, tag: str, where: str) -> int:
    """Read a flag as 0 or 1; labelling tools leave it out, empty or ``Unspecified`` where it is 0, or write ``0.0``."""
    text = (item.findtext(tag) or "").strip()
    values = {"": 0, "unspecified": 0, "0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}
    if text.lower() not in values:
        raise InputError(f"{where}: {tag} is {text!r}; expected 0 or 1")
    return values[text.lower()]


def read_objects(path: Path) -> VocObjects:
    """Read an annotation; an image without objects is fine.

    Only ``object/bndbox`` itself is read: persons of VOC2012 have parts with boxes of their own.

    Raises
    ------
    InputError
        If the file is missing or malformed, an object has an unknown class, or a box is empty or leaves the image.
    """
    try:
        root = ET.fromstring(path.read_bytes(), ET.XMLParser(target=_WithoutDoctype()))
    except FileNotFoundError:
        raise missing(path) from None
    except (ET.ParseError, OSError, ValueError, LookupError) as error:  # LookupError: an unknown encoding
        raise InputError(f"{path} is not an annotation: {error}") from None
    objects = VocObjects()
    # Without a size (or with 0) nothing is known of the right and lower border.
    width, height = (_number(root, f"size/{side}", str(path), "0") or np.inf for side in ("width", "height"))
    for number, item in enumerate(root.findall("object"), start=1):
        where = f"{path}, object {number}"
        name = (item.findtext("name") or "").strip()
        if name not in CLASSES:
            raise InputError(f"{where}: class {name!r} is unknown; the classes of VOC are {', '.join(CLASSES)}")
        objects.label.append(CLASSES.index(name))
        objects.box.append([_number(item, f"bndbox/{side}", where) for side in ("xmin", "ymin", "xmax", "ymax")])
        objects.difficult.append(_flag(item, "difficult", where))
    for xmin, ymin, xmax, ymax in objects.box:
        inside = min(xmin, ymin) >= 1 - TOLERANCE and xmax <= width + TOLERANCE and ymax <= height + TOLERANCE
        if not (inside and xmin <= xmax and ymin <= ymax):
            raise InputError(
                f"{path}: box ({xmin:g}, {ymin:g}, {xmax:g}, {ymax:g}) is empty or leaves the image "
                f"({width:g} x {height:g})"
            )
    return objects

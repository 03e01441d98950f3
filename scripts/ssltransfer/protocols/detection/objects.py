"""Annotated objects of an index, image by image, with 0-based half-open corners."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ssltransfer.datasets.index import Index
from ssltransfer.datasets.voc import TOLERANCE, half_open
from ssltransfer.errors import InputError
from ssltransfer.protocols.detection.boxes import GroundTruth


@dataclass(frozen=True)
class Annotations:
    """The objects of every image.

    Attributes
    ----------
    box : list of ndarray, shape (k, 4)
        ``xmin, ymin, xmax, ymax``, 0-based, half-open: ``xmax - xmin`` is the width.
    label : list of ndarray of int, shape (k,)
    difficult : list of ndarray of bool, shape (k,)
    """

    box: list[np.ndarray]
    label: list[np.ndarray]
    difficult: list[np.ndarray]


def read_annotations(index: Index, name: str) -> Annotations:
    """Read the boxes of an index: column ``voc_boxes`` (VOC's convention) or ``boxes`` (0-based, half-open).

    Raises
    ------
    InputError
        If there is no such column, a box has no area, or a label is not a class.
    """
    column = next((column for column in ("voc_boxes", "boxes") if column in index.extra), None)
    if column is None:
        raise InputError(f"{name}: its index has no boxes; detection needs a dataset with task detection")
    box, label = [], []
    for row, objects in enumerate(index.extra[column]):
        table = np.asarray(objects, dtype=np.float64).reshape(-1, 5)
        corners = half_open(table[:, 1:]) if column == "voc_boxes" else table[:, 1:]
        where = f"{name}: row {row} ({index.image[row]})"
        empty = ~((corners[:, 2:] > corners[:, :2]).all(axis=1) & np.isfinite(corners).all(axis=1))
        if empty.any():
            raise InputError(f"{where}: box {_text(table[empty][0, 1:])} has no area")
        if outside := [k for k in table[:, 0] if not (0 <= k < len(index.classes) and k == int(k))]:
            raise InputError(f"{where}: class {outside[0]:g} found, expected 0..{len(index.classes) - 1}")
        box.append(corners)
        label.append(table[:, 0].astype(np.int64))
    flags = index.extra.get("difficult", [[0] * len(k) for k in label])
    return Annotations(box, label, [np.asarray(f, dtype=bool) for f in flags])


def check_inside(annotations: Annotations, sizes: np.ndarray, rows: Sequence[int], index: Index, name: str) -> None:
    """Refuse boxes that leave their image (n, 2: width, height) by more than VOC's own slips of a pixel."""
    for row, (width, height) in zip(rows, sizes, strict=True):
        box = annotations.box[row]
        outside = (box[:, :2] < -TOLERANCE).any(axis=1) | (box[:, 2:] > (width + TOLERANCE, height + TOLERANCE)).any(
            axis=1
        )
        if outside.any():
            raise InputError(
                f"{name}: row {row} ({index.image[row]}): box {_text(box[outside][0])} leaves the image "
                f"({width} x {height})"
            )


def _text(box: np.ndarray) -> str:
    return "(" + ", ".join(f"{value:g}" for value in box) + ")"


def voc_objects(annotations: Annotations, rows: Sequence[int]) -> GroundTruth:
    """Return the objects of some images in VOC's convention (1-based, the last pixel included), for the evaluation."""
    counts = [len(annotations.label[row]) for row in rows]
    return GroundTruth(
        image=np.repeat(np.asarray(rows, dtype=np.int64), counts),
        label=np.concatenate([np.empty(0, np.int64), *(annotations.label[row] for row in rows)]),
        box=np.concatenate([np.empty((0, 4)), *(annotations.box[row] + (1, 1, 0, 0) for row in rows)]),
        difficult=np.concatenate([np.empty(0, bool), *(annotations.difficult[row] for row in rows)]),
    )

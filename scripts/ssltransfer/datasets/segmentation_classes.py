"""Where the masks of a dataset of semantic segmentation are, and what their values mean."""

from collections.abc import Sequence
from pathlib import Path

from ssltransfer.datasets.index import Index
from ssltransfer.datasets.sources import Source
from ssltransfer.errors import InputError

BACKGROUND = "background"
"""Class of the pixels of a generated dataset that show no object."""
VOID = 255
"""Value of unlabelled pixels where 0 is a class."""


def segmentation_classes(source: Source, classes: Sequence[str]) -> list[str]:
    """Names of the classes of pixels, in the order of their labels."""
    return [BACKGROUND, *classes] if source.kind == "generated" else list(classes)


def mask_references(index: Index, masks: str | Path | None) -> tuple[Sequence[str], int]:
    """References of the masks of all images, and the value of unlabelled pixels: 0, or 255 where 0 is a class.

    Parameters
    ----------
    index : Index
        With the columns ``mask`` and ``unlabelled``, unless there is an array.
    masks : path or None
        Array of the masks of a generated dataset.

    Raises
    ------
    InputError
        If there is neither.
    """
    if masks:
        return [f"{Path(masks).name}#{row}" for row in range(len(index))], VOID
    if "mask" not in index.extra:
        raise InputError("the index has no column 'mask'; delete the index of the dataset to make it anew")
    return index.extra["mask"], int(index.extra["unlabelled"][0])

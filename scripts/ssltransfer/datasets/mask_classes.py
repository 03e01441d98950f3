"""Classes of pixels of a segmentation dataset; reads no masks, because planning has no numpy."""

from collections.abc import Sequence

from ssltransfer.datasets.sources import Source

BACKGROUND = "background"
"""Class of the pixels of a generated dataset that show no object."""


def segmentation_classes(source: Source, classes: Sequence[str]) -> list[str]:
    """Names of the classes of pixels, in the order of their labels."""
    return [BACKGROUND, *classes] if source.kind == "generated" else list(classes)

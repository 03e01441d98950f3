"""The dataset of a job: its index and the folder of its images."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from PIL import Image

from ssltransfer.datasets.images import read_image
from ssltransfer.datasets.index import Index, read_index
from ssltransfer.datasets.sources import Source, image_root


class Dataset:
    """A dataset with its index file.

    Parameters
    ----------
    source : Source
        Or the same fields in a list, as the params of a rule hold them.
    data_root : path
        Folder of the original datasets and of users' images.
    index_file : path

    Attributes
    ----------
    index : Index
        Read when it is first used.
    root : Path
        Folder that the image references of the index start from.
    """

    def __init__(self, source: Sequence[str], data_root: str | Path, index_file: str | Path) -> None:
        self.source = Source(*source)
        self.root = image_root(self.source, data_root, index_file)
        self._index_file = index_file

    @cached_property
    def index(self) -> Index:
        """The index of the dataset."""
        return read_index(self._index_file)

    def read_image(self, row: int) -> Image.Image:
        """Read the image of a row of the index as RGB; InputError as `images.read_image`."""
        return read_image(self.root, self.index.image[row])

"""Published lists of labelled images: ImageNet's subsets of 1 % and 10 % of SimCLR (Chen et al., 2020).

Most papers on semi-supervised learning since then use them. The smaller list is part of the larger one.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from ssltransfer.errors import InputError

SIMCLR = (
    "https://raw.githubusercontent.com/google-research/simclr/383d4143fd8cf7879ae10f1046a9baeb753ff438/imagenet_subsets"
)


@dataclass(frozen=True)
class SubsetList:
    """A published list: a name of an image (``n04235860_14959.JPEG``) in each line.

    Attributes
    ----------
    url, sha256 : str
    images : int
        Number of lines.
    """

    url: str
    sha256: str
    images: int

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.url.rpartition("/")[2]


SUBSET_LISTS = {
    "simclr-1-percent": SubsetList(
        f"{SIMCLR}/1percent.txt", "71e82a48ba78252683ae334c4d019ebd5c6e855b9599c1389fbe83eb9549cf17", 12_811
    ),
    "simclr-10-percent": SubsetList(
        f"{SIMCLR}/10percent.txt", "6d09de11e7bdaf5b1f3b1f249b6183695f97310cdd20f0c03e7235b6b9392091", 128_116
    ),
}
"""Name in a settings block -> the list."""


def read_subset_list(path: str | Path, images: int) -> list[str]:
    """Return the names of a list; InputError if one is there twice, or there are not as many as `images`."""
    names = Path(path).read_text(encoding="utf-8").split()
    if len(set(names)) != len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise InputError(f"{path}: image {twice!r} is there twice")
    if len(names) != images:
        raise InputError(f"{path}: found {len(names)} images, expected {images}; delete the file to fetch it anew")
    return names

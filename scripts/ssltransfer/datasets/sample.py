"""Sample one image of each of several datasets, for experiments on few images (paper section 4.4: fifteen images).

Source ``one-of:NAME,NAME=IMAGE,...``, and ``@SEED`` behind it for another draw than that of seed 0. Without ``=IMAGE``
the image is drawn evenly from the test part of the dataset, or from all of it if there is no such part; the draw
depends on the seed and the name alone, so that a further dataset changes no other image. IMAGE is a reference of
the dataset's index.
"""

import logging
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ssltransfer.datasets.dataset import Dataset
from ssltransfer.datasets.index import Index
from ssltransfer.datasets.index_checks import check_classes, check_counts, check_index
from ssltransfer.datasets.indexing import IndexParams
from ssltransfer.datasets.sources import Member, parse_members
from ssltransfer.errors import InputError

log = logging.getLogger(__name__)


def sample_row(member: Member, index: Index, seed: int) -> int:
    """Return the row of a member's image in the index of its dataset; InputError if the named image is not there."""
    if member.image:
        if member.image not in index.image:
            raise InputError(
                f"one-of: {member.dataset} has no image {member.image!r}; write one as in its index, such as "
                f"{index.image[0]!r}"
            )
        return list(index.image).index(member.image)
    split = index.split_array()
    rows = np.flatnonzero(split == "test") if (split == "test").any() else np.arange(len(index))
    return int(np.random.default_rng([seed, zlib.crc32(member.dataset.encode())]).choice(rows))


def sample_images(params: IndexParams, datasets: Sequence[Dataset], folder: Path) -> Index:
    """Copy one image of each dataset into `folder` and index the copies.

    Parameters
    ----------
    params : IndexParams
        Of the new dataset.
    datasets : sequence of Dataset
        One per member of the source, in its order.
    folder : Path
        Beside the index; made if it does not exist. The copies are called ``NAME.png``.

    Returns
    -------
    Index
        One class per dataset, all images in the test split. Extra column: ``origin``, the references of the originals.

    Raises
    ------
    InputError
        If an image is missing or unreadable, or their number is not that of `datasets.tsv`.
    """
    members, seed = parse_members(params["source"][1])
    names = [member.dataset for member in members]
    folder.mkdir(parents=True, exist_ok=True)
    originals = []
    for member, dataset in zip(members, datasets, strict=True):
        row = sample_row(member, dataset.index, seed)
        dataset.read_image(row).save(folder / f"{member.dataset}.png")
        originals.append(dataset.index.image[row])
        log.info("%s: %s", member.dataset, originals[-1])
    index = Index(
        image=[f"{folder.name}/{name}.png" for name in names],
        split=["test"] * len(names),
        label=list(range(len(names))),
        classes=names,
        extra={"origin": originals},
        promised=dict(params["counts"]),
    )
    check_index(index, params["dataset"])
    check_counts(index, params["dataset"], params["counts"])
    check_classes(index, params["dataset"])
    return index

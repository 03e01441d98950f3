"""One image of each of several data sets, for experiments that look at few images (paper section 4.4: fifteen images).

Source ``one-of:NAME,NAME=IMAGE,...``, and ``@SEED`` behind it for another draw than that of seed 0. Without ``=IMAGE``
the image is drawn evenly from the test part of the data set, or from all of it if there is no such part; the draw
depends on the seed and the name alone, so that a further data set changes no other image. IMAGE is a reference of
the data set's index.
"""

import zlib

import numpy as np

from ssltransfer.datasets import Member
from ssltransfer.datasets.index import Index
from ssltransfer.errors import InputError


def choose(member: Member, index: Index, seed: int) -> int:
    """Row of a member's image in the index of its data set; InputError if the image wanted is not there."""
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

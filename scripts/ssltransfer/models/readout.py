"""Readouts: the vector that is taken from a network (column `pool` of the model table), parsed without torch."""

import re
from typing import NamedTuple

from ssltransfer.errors import InputError

_PATTERN = re.compile(r"(cls|mean|cls-mean)|(?:(token)-(\d+))|(?:(layers)-([1-9]\d*))")


class Pool(NamedTuple):
    """A readout.

    Attributes
    ----------
    kind : {'', 'cls', 'mean', 'cls-mean', 'token', 'layers'}
        The network's own; class token; mean of the patch tokens; both, one after the other; another token beside the
        patches; class tokens (mean patches where there are none) of the last blocks, one after the other.
    number : int
        Of the token, from 0, or of blocks.
    text : str
        As written.
    """

    kind: str
    number: int
    text: str


def parse_pool(text: str) -> Pool:
    """Parse a cell of the column `pool`.

    Raises
    ------
    InputError
        If it is not empty, ``cls``, ``mean``, ``cls-mean``, ``token-K`` or ``layers-N``.
    """
    match = _PATTERN.fullmatch(text)
    if text and match is None:
        raise InputError(
            f"pool: found {text!r}, expected cls, mean, cls-mean, token-K, layers-N, or nothing for the network's own "
            "readout"
        )
    if not text or match is None:
        return Pool("", 0, "")
    kind = match[1] or match[2] or match[4]
    return Pool(kind, int(match[3] or match[5] or 0), text)

"""The result of reading a published checkpoint, shared by the readers of all formats."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReadCheckpoint:
    """Tensors of a published checkpoint, in the names and layout of the network.

    Attributes
    ----------
    state : dict of str to Tensor
        The backbone.
    head : tuple of Tensor, optional
        Weight (classes, features) and bias (classes,) of a linear ImageNet classifier in the same file.
    dropped : list of str
        Original names of everything that was left out on purpose.
    prefix : str
        Beginning of the names of the backbone, where format ``auto`` found it.
    precision : str
        Type of tensors that were widened to float32; empty if none were.
    """

    state: dict[str, Tensor]
    head: tuple[Tensor, Tensor] | None
    dropped: list[str]
    prefix: str = ""
    precision: str = ""


def log_dropped(names: Iterable[str], group: Callable[[str], str]) -> None:
    """Log what was left out, counted by group."""
    for name, count in sorted(Counter(map(group, names)).items()):
        log.info("left out: %s (%d entries)", name, count)

"""The settings block of a k-nearest-neighbour protocol."""

from collections.abc import Iterable
from dataclasses import dataclass

SIMILARITY = {"weighted": "cosine", "uniform": "cosine", "euclidean": "euclidean"}
"""Value of `vote` in a settings block -> the similarity of its neighbours."""
STORED = 200
"""Number of neighbours that are stored, unless a settings block needs more: any fewer are the first of these."""


@dataclass(frozen=True)
class KnnSettings:
    """A settings block of kind ``knn``; the keys are described in workflow/schemas/config.schema.yaml."""

    transform: str
    vote: str
    neighbours: tuple[int, ...]
    temperature: float
    selection: str
    difficult: str


def stored_neighbours(neighbours: Iterable[int]) -> int:
    """Return how many neighbours have to be found for these numbers of voting ones."""
    return max(STORED, *neighbours)

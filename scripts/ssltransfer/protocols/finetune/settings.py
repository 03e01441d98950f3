"""The settings block of a finetune protocol, and the grid that it spans."""

from dataclasses import dataclass
from itertools import product
from typing import NamedTuple


@dataclass(frozen=True)
class Grid:
    """Values of the hyper-parameters that are selected on validation; ties keep the earliest."""

    augmentations: tuple[str, ...]
    learning_rates: tuple[float, ...]
    weight_decays: tuple[float, ...]
    layer_decays: tuple[float, ...]


@dataclass(frozen=True)
class Schedule:
    """Training of a run by SGD or AdamW, without the values of the grid (see `network.make_optimiser`)."""

    optimiser: str
    batch_size: int
    steps: int
    momentum: float
    clip: float
    warmup: int


@dataclass(frozen=True)
class FinetuneSettings:
    """A settings block of kind ``finetune``; the keys are described in workflow/schemas/config.schema.yaml."""

    transform: str
    schedule: Schedule
    grid: Grid
    validation_fraction: float
    difficult: str
    precision: str
    seed: int


class Trial(NamedTuple):
    """One point of the grid.

    Attributes
    ----------
    augmentation : {'crop-flip', 'centre'}
    learning_rate : float
        Peak of the schedule.
    weight_decay : float
        Base value: SGD is handed this divided by the learning rate, AdamW this.
    layer_decay : float
        Factor on the learning rate from each part of the network to the one before it; 1 in the paper.
    """

    augmentation: str
    learning_rate: float
    weight_decay: float
    layer_decay: float


def trials(grid: Grid) -> list[Trial]:
    """All points of a grid in the order of the official code, which decides between ties.

    Rates are scanned outside decays, and augmentations, which that code does not search, outside both.
    """
    values = (grid.augmentations, grid.learning_rates, grid.layer_decays, grid.weight_decays)
    return [Trial(view, rate, decay, layer) for view, rate, layer, decay in product(*values)]

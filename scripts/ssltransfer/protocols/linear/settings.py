"""The settings block of a linear protocol."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Penalties:
    """Log-spaced penalties on the summed loss: the first, the last, and how many in all."""

    first: float
    last: float
    count: int


@dataclass(frozen=True)
class LinearSettings:
    """A settings block of kind ``linear``; the keys are described in workflow/schemas/config.schema.yaml."""

    transform: str
    normalisation: str
    lambdas: Penalties
    validation_fraction: float
    seed: int
    validation_draws: int
    solver: str
    difficult: str

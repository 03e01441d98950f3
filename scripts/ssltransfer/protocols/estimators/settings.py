"""The settings block of transferability estimators."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EstimatorSettings:
    """A settings block of kind ``estimators``; the keys are described in workflow/schemas/config.schema.yaml."""

    transform: str
    neighbours: int
    neighbour_images: int
    geometry_images: int
    geometry_draws: int
    seed: int

"""The settings block of a label-efficiency protocol."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LabelEfficiencySettings:
    """A settings block of kind ``label-efficiency``; the keys are in workflow/schemas/config.schema.yaml."""

    of: str
    images_per_class: tuple[int, ...]
    percent: tuple[float, ...]
    draws: int
    draws_above: int
    seed: int
    lists: tuple[str, ...]

"""The settings block of an attention protocol."""

from dataclasses import dataclass


@dataclass(frozen=True)
class AttentionSettings:
    """A settings block of kind ``attention``; the keys are described in workflow/schemas/config.schema.yaml."""

    size: int
    mask: int
    stride: int
    fill: str
    view: str
    feature: str

"""The settings block of a protocol of surface normals."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Training by SGD with a polynomial decay of the learning rate (see `training.timetable`)."""

    batch_size: int
    epochs: int
    epoch_steps: int
    learning_rate: float
    momentum: float
    weight_decay: float
    power: float
    decay: str


@dataclass(frozen=True)
class Sides:
    """Sizes of images in pixels: shorter sides in training and testing, and the limit of the longer side."""

    train: tuple[int, ...]
    test: int
    longest: int


@dataclass(frozen=True)
class Network:
    """Channels, dropout and batch-norm momentum of the pyramid pooling head."""

    channels: int
    dropout: float
    norm_momentum: float


@dataclass(frozen=True)
class NormalsSettings:
    """A settings block of kind ``normals``; the keys are described in workflow/schemas/config.schema.yaml."""

    normalisation: str
    frozen: str
    targets: str
    codes: int
    schedule: Schedule
    sides: Sides
    network: Network
    precision: str
    seed: int

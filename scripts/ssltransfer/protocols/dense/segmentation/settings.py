"""The settings block of a protocol of semantic segmentation."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Training by SGD or AdamW (see `training.rate`)."""

    optimiser: str
    batch_size: int
    steps: int
    learning_rate: float
    momentum: float
    weight_decay: float
    annealing: str
    power: float
    warmup: int


@dataclass(frozen=True)
class Sides:
    """Sizes of images in pixels.

    Attributes
    ----------
    train : tuple of int
        Shorter sides, one of which is drawn for each training batch.
    jitter : tuple of float
        Limits of a factor on it, drawn for each training image.
    crop : int
        Side of a random square of the resized training image; 0 for all of it.
    test : tuple of int
        Shorter sides whose predictions are averaged.
    longest : int
        Limit of the longer side.
    window, window_step : int
        Side of the square windows in which a test image is predicted, and the pixels between them; 0 for all of it at
        once.
    """

    train: tuple[int, ...]
    jitter: tuple[float, float]
    crop: int
    test: tuple[int, ...]
    longest: int
    window: int
    window_step: int


@dataclass(frozen=True)
class Augmentation:
    """Changes of the training images beside their size."""

    flip: float
    colours: bool
    largest_share: float


@dataclass(frozen=True)
class Network:
    """Channels, dropout and batch-norm momentum of the decoder."""

    channels: int
    dropout: float
    norm_momentum: float


@dataclass(frozen=True)
class SegmentationSettings:
    """A settings block of kind ``segmentation``; the keys are described in workflow/schemas/config.schema.yaml."""

    normalisation: str
    head: str
    frozen: str
    labels: str
    padding_label: str
    test_size: str
    absent_classes: str
    schedule: Schedule
    sides: Sides
    augmentation: Augmentation
    network: Network
    precision: str
    seed: int

"""The settings block of a detection protocol, and the schedule that follows from it."""

import math
from bisect import bisect_right
from dataclasses import asdict, dataclass, field

FROZEN = {"first-four": 4, "none": 0, "first-two": 2}
"""What stays as it is -> its stages, the stem among them: all but res5, none, or (v1's tables) stem and res2."""


@dataclass(frozen=True)
class Schedule:
    """Steps with a linear warm-up and drops to a tenth (paper appendix; detectron2's VOC schedule).

    Attributes
    ----------
    batch_size : int
        Images a step.
    steps : int
    learning_rate : float
    milestones : tuple of int
        Steps at which the rate falls to a tenth.
    warmup : int
        Steps of the warm-up, which starts at a thousandth of the rate.
    """

    batch_size: int = 2
    steps: int = 144_000
    learning_rate: float = 0.0025
    milestones: tuple[int, ...] = (96_000, 128_000)
    warmup: int = 100

    def factor(self, step: int) -> float:
        """Fraction of the learning rate at a step, counted from 0."""
        if step < self.warmup:
            return 0.001 + 0.999 * step / self.warmup
        return 0.1 ** bisect_right(self.milestones, step)

    def scaled(self, batch_size: int, length: float) -> "Schedule":
        """Return the schedule of another batch size (linear rule) and another number of passes over the images.

        The rate grows with the batch, and as many images are seen in fewer steps; `length` stretches the whole
        but the warm-up.
        """
        ratio = batch_size / self.batch_size
        stretch = length / ratio
        steps = max(1, round(self.steps * stretch))
        return Schedule(
            batch_size,
            steps,
            self.learning_rate * ratio,
            tuple(max(1, round(step * stretch)) for step in self.milestones),
            min(math.ceil(self.warmup / ratio), steps),
        )


@dataclass(frozen=True)
class Sides:
    """Sizes that images are scaled to: the shorter side, or less where the longer one would exceed `longest`.

    Attributes
    ----------
    train : tuple of int
        Shorter sides that a training image's is drawn from.
    test, longest : int
    """

    train: tuple[int, ...] = tuple(range(480, 801, 32))
    test: int = 800
    longest: int = 1333


@dataclass(frozen=True)
class Network:
    """Sizes of what stands behind the backbone; detectron2's defaults.

    Attributes
    ----------
    channels : int
        Of the feature pyramid.
    hidden : int
        Units of the two layers of the box head.
    anchors : tuple of int
        Side of the anchors on each level, p2 to p6; three aspect ratios each.
    proposals : tuple of int
        Kept per level before suppression in training and in testing, and kept in all after it.
    samples : tuple of int
        Anchors and boxes an image that the losses are computed on.
    canonical : int
        Side of a box that is pooled from p4; boxes of half the side from p3, and so on.
    """

    channels: int = 256
    hidden: int = 1024
    anchors: tuple[int, int, int, int, int] = (32, 64, 128, 256, 512)
    proposals: tuple[int, int, int] = (2000, 1000, 1000)
    samples: tuple[int, int] = (256, 512)
    canonical: int = 224


@dataclass(frozen=True)
class Settings:
    """A settings block of kind ``detection``; every key is described in workflow/schemas/config.schema.yaml."""

    frozen: str
    seed: int
    backend: str = "torchvision"
    schedule: Schedule = field(default_factory=Schedule)
    batch_size: int | None = None
    length: float = 1.0
    sides: Sides = field(default_factory=Sides)
    network: Network = field(default_factory=Network)
    precision: str = "float32"
    rule: str = "11-point"

    @property
    def used(self) -> Schedule:
        """The schedule that is trained by."""
        return self.schedule.scaled(self.batch_size or self.schedule.batch_size, self.length)

    @property
    def scaling(self) -> str:
        """One line that says how the schedule was scaled; empty if it was not."""
        used = self.used
        if used == self.schedule:
            return ""
        before, after = (
            f"batch {s.batch_size}, {s.steps} steps, rate {s.learning_rate:g}, milestones {list(s.milestones)}, "
            f"warm-up {s.warmup}"
            for s in (self.schedule, used)
        )
        return f"schedule scaled from {before} to {after}"


def read_settings(block: dict) -> Settings:
    """Build the settings from a validated block of the suite."""

    def part(kind: type, name: str):
        given = {key: tuple(v) if isinstance(v, list) else v for key, v in block.get(name, {}).items()}
        return kind(**given)

    plain = {key: value for key, value in block.items() if key not in ("kind", "schedule", "sides", "network")}
    return Settings(
        schedule=part(Schedule, "schedule"), sides=part(Sides, "sides"), network=part(Network, "network"), **plain
    )


def describe(settings: Settings) -> dict:
    """Return all settings, defaults included, as JSON can hold them."""
    return asdict(settings)

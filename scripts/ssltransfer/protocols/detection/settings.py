"""The settings block of a detection protocol, and the schedule that follows from it."""

import math
from bisect import bisect_right
from dataclasses import dataclass

FROZEN = {"first-four": 4, "none": 0, "first-two": 2}
"""Number of frozen stages, counting the stem (detectron2's FREEZE_AT): 4 freezes all but res5, 2 freezes stem and res2
(tables of v1), 0 nothing."""


@dataclass(frozen=True)
class Schedule:
    """Steps with a linear warm-up and drops to a tenth (paper appendix; detectron2's VOC schedule).

    Attributes
    ----------
    batch_size : int
        Number of images per step.
    steps : int
        Length of the training.
    learning_rate : float
        After the warm-up.
    milestones : tuple of int
        Steps at which the rate falls to a tenth.
    warmup : int
        Steps of the warm-up, which starts at a thousandth of the rate.
    """

    batch_size: int
    steps: int
    learning_rate: float
    milestones: tuple[int, ...]
    warmup: int

    def factor(self, step: int) -> float:
        """Fraction of the learning rate at a step, counted from 0."""
        if step < self.warmup:
            return 0.001 + 0.999 * step / self.warmup
        return 0.1 ** bisect_right(self.milestones, step)

    def scaled(self, batch_size: int, length: float) -> "Schedule":
        """Return the schedule for another batch size (linear scaling rule) and another number of passes.

        The learning rate is proportional to the batch size, and the number of images seen stays the same. `length` is a
        factor on steps and milestones, not on the warm-up.
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
        Shorter sides, one of which is drawn for each training image.
    test : int
        Shorter side of test images.
    longest : int
        Limit of the longer side.
    """

    train: tuple[int, ...]
    test: int
    longest: int


@dataclass(frozen=True)
class Network:
    """Sizes of the layers behind the backbone.

    Attributes
    ----------
    channels : int
        Channels of the feature pyramid.
    hidden : int
        Units of the two layers of the box head.
    anchors : tuple of float
        Side of the anchors on each level, p2 to p6; three aspect ratios each.
    proposals : tuple of int
        Number of proposals kept per level before suppression in training and in testing, and kept in all after it.
    samples : tuple of int
        Number of anchors and of boxes per image that the losses are computed on.
    canonical : float
        Side of a box that is pooled from p4 (detectron2's canonical box size); boxes of half the side are pooled from
        p3, and so on.
    """

    channels: int
    hidden: int
    anchors: tuple[float, ...]
    proposals: tuple[int, int, int]
    samples: tuple[int, int]
    canonical: float


@dataclass(frozen=True)
class DetectionSettings:
    """A settings block of kind ``detection``; the keys are described in workflow/schemas/config.schema.yaml."""

    frozen: str
    seed: int
    backend: str
    schedule: Schedule
    batch_size: int | None
    length: float
    sides: Sides
    network: Network
    precision: str
    rule: str

    @property
    def effective_schedule(self) -> Schedule:
        """The schedule that is trained with: the block's, scaled to `batch_size` and `length`."""
        return self.schedule.scaled(self.batch_size or self.schedule.batch_size, self.length)

    @property
    def scaling(self) -> str:
        """One line that says how the schedule was scaled; empty if it was not."""
        effective = self.effective_schedule
        if effective == self.schedule:
            return ""
        before, after = (
            f"batch {s.batch_size}, {s.steps} steps, rate {s.learning_rate:g}, milestones {list(s.milestones)}, "
            f"warm-up {s.warmup}"
            for s in (self.schedule, effective)
        )
        return f"schedule scaled from {before} to {after}"

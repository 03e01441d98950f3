"""Training of a detector, and detection with it, for all backends.

A backend is a module with ``build(backbone, arch, classes, norm, settings)``, whose result has ``losses(batch)`` and
``detect(images)`` as documented in `torchvision_backend`. Images, their order, the optimiser and the schedule are the
same for all backends.
"""

import json
import logging
import zlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ssltransfer.datasets.index import Index
from ssltransfer.device import choose_device
from ssltransfer.errors import InputError
from ssltransfer.models.backbone import Backbone
from ssltransfer.precision import computing_in
from ssltransfer.protocols.detection.boxes import Detections
from ssltransfer.protocols.detection.inputs import (
    TrainingImages,
    collate,
    image_sizes,
    oriented_batches,
    scaled_images,
    uniform_batches,
)
from ssltransfer.protocols.detection.objects import Annotations, check_inside
from ssltransfer.protocols.detection.settings import DetectionSettings
from ssltransfer.settings import resume_settings
from ssltransfer.training import seed_step, train
from ssltransfer.training_batches import iterate_batches
from ssltransfer.training_state import Curve, Run

log = logging.getLogger("ssltransfer")

MOMENTUM, WEIGHT_DECAY, TEST_BATCH = 0.9, 1e-4, 8
CURVE_LENGTH = 100
"""Approximate number of losses recorded in a run."""


def build_detector(backbone: Backbone, arch: str, classes: int, norm: str, settings: DetectionSettings) -> nn.Module:
    """Put a detector of the chosen backend on a backbone.

    Raises
    ------
    InputError
        If the backend is not installed, or does not build detectors on this backbone.
    """
    # Each backend is imported only where it is used: detectron2 has an environment of its own.
    if settings.backend == "detectron2":
        from ssltransfer.protocols.detection import detectron2_backend as backend
    else:
        from ssltransfer.protocols.detection import torchvision_backend as backend
    return backend.build(backbone, arch, classes, norm, settings)


def train_detector(
    detector: nn.Module,
    index: Index,
    annotations: Annotations,
    root: Path,
    settings: DetectionSettings,
    run: Run,
) -> Curve:
    """Train a detector on the training images, or resume an interrupted run with the same arguments.

    Parameters
    ----------
    detector : nn.Module
        See `build_detector`; is moved to the device.
    index : Index
    annotations : Annotations
        Objects of all rows of the index. Training images without objects are left out, as detectron2 does.
    root : Path
        Folder that the references of the index start from.
    settings : DetectionSettings
    run : Run
        Its key describes everything that the run depends on, apart from images, boxes and settings.

    Raises
    ------
    InputError
        If no training image shows an object, an image cannot be read, a box leaves its image, or the loss stops being
        finite.
    """
    schedule = settings.effective_schedule
    if settings.scaling:
        log.warning("%s", settings.scaling)
    all_rows = np.flatnonzero(index.split_array() == "train")
    rows = np.array([row for row in all_rows if len(annotations.label[row])], dtype=np.int64)
    if not len(rows):
        raise InputError(
            f"{run.config_path}: none of {len(all_rows)} training images shows an object; there is nothing to learn"
        )
    if len(rows) < len(all_rows):
        log.info("%d of %d training images show no object and are left out", len(all_rows) - len(rows), len(all_rows))
    sizes = image_sizes(root, [index.image[row] for row in rows])
    check_inside(annotations, sizes, rows, index, run.config_path)
    device = choose_device()
    detector.to(device).train()
    trained = [parameter for parameter in detector.parameters() if parameter.requires_grad]
    optimiser = torch.optim.SGD(trained, lr=schedule.learning_rate, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    example = TrainingImages(root, index.image, annotations, settings.sides)
    interval = max(1, schedule.steps // CURVE_LENGTH)

    def loss(batch, step):
        seed_step(settings.seed, step)  # samples of anchors and boxes are drawn from the global generators
        return sum(detector.losses(batch).values())

    def batches(first):
        order = oriented_batches(
            rows, sizes[:, 0] > sizes[:, 1], schedule.batch_size, settings.seed, first, schedule.steps
        )
        return iterate_batches(example, order, seed=settings.seed, workers=run.workers, collate=collate, device=device)

    return train(
        detector,
        loss,
        batches,
        optimiser,
        schedule.factor,
        schedule.steps,
        replace(run, key=_fingerprint(index, annotations, rows, settings, run.key)),
        interval=interval,
        precision=settings.precision,
    )


def _fingerprint(
    index: Index, annotations: Annotations, rows: np.ndarray, settings: DetectionSettings, key: str
) -> str:
    """Describe a run by its settings, images and boxes, and by the key of its other inputs."""
    described = resume_settings("detection", settings)
    del described["kind"]
    boxes = [np.column_stack([annotations.label[row], annotations.box[row]]) for row in rows]
    data = zlib.crc32(np.ascontiguousarray(np.concatenate(boxes)).data)
    return json.dumps([described, key, zlib.crc32("\n".join(index.image[row] for row in rows).encode()), data])


@torch.inference_mode()
def detect(
    detector: nn.Module,
    index: Index,
    root: Path,
    settings: DetectionSettings,
    progress: Callable[[Iterable, int], Iterable] = lambda batches, total: batches,
) -> Detections:
    """Detect the objects of the test images.

    Parameters
    ----------
    detector : nn.Module
        On its device.
    index, root, settings
        See `train_detector`.
    progress : callable
        Wraps (batches, number of batches).

    Returns
    -------
    Detections
        `image` is the row of the index; boxes are 0-based and half-open, in pixels of the original image, float32;
        image by image, in each with falling scores.
    """
    rows = np.flatnonzero(index.split_array() == "test")
    sizes = image_sizes(root, [index.image[row] for row in rows])
    device = next(detector.parameters()).device
    detector.eval()
    batches = list(uniform_batches(sizes, settings.sides, TEST_BATCH))
    parts: dict[str, list[np.ndarray]] = {
        "image": [np.empty(0, np.int64)],
        "label": [np.empty(0, np.int64)],
        "box": [np.empty((0, 4), np.float32)],
        "score": [np.empty(0, np.float32)],
    }
    references = [index.image[row] for row in rows]
    for places, scaled, images in progress(scaled_images(root, references, batches), len(batches)):
        tensors = [image.to(device, non_blocking=True) for image in images]
        with computing_in(settings.precision, device):
            found = detector.detect(tensors)
        for place, (box, score, label) in zip(places, found, strict=True):
            width, height = map(int, sizes[place])
            box = box.float() * torch.tensor([width / scaled[0], height / scaled[1]], device=device).repeat(2)
            box = torch.stack([box[:, i].clamp(0, (width, height)[i % 2]) for i in range(4)], dim=1)
            some = (box[:, 2:] > box[:, :2]).all(dim=1)
            parts["image"].append(np.full(int(some.sum()), rows[place]))
            for name, values in (("label", label), ("box", box), ("score", score.float())):
                parts[name].append(values[some].cpu().numpy())
    return Detections(**{name: np.concatenate(values) for name, values in parts.items()})

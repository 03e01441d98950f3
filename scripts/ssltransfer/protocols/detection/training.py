"""Training a detector and detecting with it; the backends differ in the network alone.

A backend is a module with ``build(backbone, arch, classes, norm, settings)``, whose result has ``losses(batch)`` and
``detect(images)`` as documented in `torchvision_backend`. Images, their order, the optimiser and the schedule are the
same for all.
"""

import json
import logging
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ssltransfer.datasets.index import Index
from ssltransfer.device import choose_device
from ssltransfer.errors import InputError
from ssltransfer.models.resnet import ResNet
from ssltransfer.protocols.detection.boxes import Detections
from ssltransfer.protocols.detection.inputs import (
    TrainingImages,
    collate,
    image_sizes,
    oriented_stream,
    scaled_images,
    uniform_batches,
)
from ssltransfer.protocols.detection.objects import Annotations, check_inside
from ssltransfer.protocols.detection.settings import Settings, describe
from ssltransfer.training import PRECISIONS, load, seed_step, train

log = logging.getLogger("ssltransfer")

MOMENTUM, WEIGHT_DECAY = 0.9, 1e-4
LOSSES = 100  # recorded in a run, about
TEST_BATCH = 8


def build_detector(backbone: ResNet, arch: str, classes: int, norm: str, settings: Settings) -> nn.Module:
    """Put a detector of the chosen backend on a backbone.

    Raises
    ------
    InputError
        If the backend is not installed.
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
    settings: Settings,
    part: Path,
    key: str,
    where: str,
    workers: int = 0,
    progress: Callable[[Iterable, int], Iterable] = lambda batches, total: batches,
    save_seconds: float = 60.0,
) -> tuple[int, list[float]]:
    """Train a detector on the training images, or go on where an interrupted run with the same arguments stopped.

    Parameters
    ----------
    detector : nn.Module
        See `build_detector`; is moved to the device.
    index : Index
    annotations : Annotations
        Of all rows of the index. Training images without objects are left out, as detectron2 does.
    root : Path
        Folder that the references of the index start from.
    settings : Settings
    part : Path
        Folder for the state of the unfinished run; the caller removes it once the result is safe.
    key : str
        What the run depends on beside images, boxes and settings.
    where : str
        Place of the settings, for error messages.
    workers : int
        Processes that load images; they change no number.
    progress : callable
        Wraps (batches, number of batches).
    save_seconds : float
        Time between two states.

    Returns
    -------
    interval : int
    losses : list of float
        Mean loss of every `interval` steps.

    Raises
    ------
    InputError
        If no training image shows an object, an image cannot be read, a box leaves its image, or the loss stops being
        finite.
    """
    used = settings.used
    if settings.scaling:
        log.warning("%s", settings.scaling)
    all_rows = np.flatnonzero(index.split_array() == "train")
    rows = np.array([row for row in all_rows if len(annotations.label[row])], dtype=np.int64)
    if not len(rows):
        raise InputError(f"{where}: none of {len(all_rows)} training images shows an object; there is nothing to learn")
    if len(rows) < len(all_rows):
        log.info("%d of %d training images show no object and are left out", len(all_rows) - len(rows), len(all_rows))
    sizes = image_sizes(root, [index.image[row] for row in rows])
    check_inside(annotations, sizes, rows, index, where)
    device = choose_device()
    detector.to(device).train()
    trained = [parameter for parameter in detector.parameters() if parameter.requires_grad]
    optimiser = torch.optim.SGD(trained, lr=used.learning_rate, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    example = TrainingImages(root, index.image, annotations, settings.sides)
    interval = max(1, used.steps // LOSSES)

    def loss(batch, step):
        seed_step(settings.seed, step)  # samples of anchors and boxes are drawn from the global generators
        return sum(detector.losses(batch).values())

    def batches(first):
        order = oriented_stream(rows, sizes[:, 0] > sizes[:, 1], used.batch_size, settings.seed, first, used.steps)
        return load(example, order, seed=settings.seed, workers=workers, collate=collate, device=device)

    losses = train(
        detector,
        loss,
        batches,
        optimiser,
        used.factor,
        used.steps,
        part,
        _fingerprint(index, annotations, rows, settings, key),
        where=where,
        interval=interval,
        precision=settings.precision,
        progress=progress,
        save_seconds=save_seconds,
    )
    return interval, losses


def _fingerprint(index: Index, annotations: Annotations, rows: np.ndarray, settings: Settings, key: str) -> str:
    """Describe a run so that its state is known again: settings, images, boxes, and what it starts from."""
    boxes = [np.column_stack([annotations.label[row], annotations.box[row]]) for row in rows]
    data = zlib.crc32(np.ascontiguousarray(np.concatenate(boxes)).data)
    return json.dumps([describe(settings), key, zlib.crc32("\n".join(index.image[row] for row in rows).encode()), data])


@torch.inference_mode()
def detect(
    detector: nn.Module,
    index: Index,
    root: Path,
    settings: Settings,
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
    autocast = PRECISIONS[settings.precision]
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
        with torch.autocast(device.type, autocast, enabled=autocast is not None):
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

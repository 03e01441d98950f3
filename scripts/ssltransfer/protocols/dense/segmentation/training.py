"""Training of a network for semantic segmentation (v2 section 4.4 and appendix)."""

import json
import math
import zlib
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ssltransfer.datasets.masks import IGNORE
from ssltransfer.errors import InputError
from ssltransfer.protocols.dense.batches import grouped_rows
from ssltransfer.protocols.dense.heads import cell_loss, enlarge, parameter_groups
from ssltransfer.protocols.dense.padded_batches import collate, network_input
from ssltransfer.protocols.dense.segmentation.dataset import SegmentationDataset
from ssltransfer.protocols.dense.segmentation.network import SegmentationNetwork
from ssltransfer.protocols.dense.segmentation.settings import Schedule, SegmentationSettings
from ssltransfer.settings import resume_settings
from ssltransfer.training import seed_step, train
from ssltransfer.training_batches import iterate_batches
from ssltransfer.training_state import Curve, Run

STAIR_STEPS, STAIR_FACTOR = 500, 0.9
"""The text of the paper: the learning rate is multiplied by 0.9 every 500 steps."""
WARMUP_START = 1e-6
"""Factor on the learning rate at the first step of a warm-up (DINOv3)."""
INTERVALS = 200
"""Number of losses that are recorded of a run."""
FIRST_CLASS = 0


def rate(schedule: Schedule, step: int) -> float:
    """Factor on the learning rate at a step.

    ``polynomial``: (1 - t / T) ** power, the official code; ``stairs``: 0.9 ** (t // 500), the text of the paper;
    ``cosine``: (1 + cos(pi (t + 1) / T)) / 2, so that the last step has 0. During the warm-up the factor rises linearly
    instead, times (1 - t / T). Both are DINOv3's ``WarmupOneCycleLR``.
    """
    done = step / schedule.steps
    if step < schedule.warmup:
        missing = (1 - step / schedule.warmup) * (1 - WARMUP_START)
        return (1 - missing) * (1 - done)
    if schedule.annealing == "stairs":
        return STAIR_FACTOR ** (step // STAIR_STEPS)
    if schedule.annealing == "cosine":
        return 0.5 * (1 + math.cos(math.pi * (step + 1) / schedule.steps))
    return (1 - done) ** schedule.power


def make_optimiser(network: SegmentationNetwork, schedule: Schedule) -> torch.optim.Optimizer:
    """SGD with decay of convolution and linear weights alone (the paper), or AdamW with decay of all (DINOv3)."""
    if schedule.optimiser == "adamw":
        return torch.optim.AdamW(
            network.trained.parameters(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay
        )
    groups = parameter_groups(network.trained, schedule.learning_rate, schedule.weight_decay)
    return torch.optim.SGD([group for group in groups if group["params"]], momentum=schedule.momentum)


def label_stride(network: SegmentationNetwork, settings: SegmentationSettings) -> int:
    """Pixels of the resized image between the labels that a network is trained on."""
    return network.stride if settings.labels == "cells" else 1


def orientations(dataset: SegmentationDataset, rows: np.ndarray) -> np.ndarray:
    """1 for images that are higher than wide, 0 for others and where all images have one size."""
    if dataset.sizes is None:
        return np.zeros(len(rows), np.int64)
    return np.array([dataset.sizes[row][1] > dataset.sizes[row][0] for row in rows], np.int64)


def train_network(
    network: SegmentationNetwork,
    dataset: SegmentationDataset,
    rows: np.ndarray,
    settings: SegmentationSettings,
    norm: str,
    run: Run,
    device: torch.device,
) -> Curve:
    """Train the network's `trained` modules in place, or resume an interrupted run.

    Parameters
    ----------
    network : SegmentationNetwork
    dataset : SegmentationDataset
    rows : ndarray of int
        Rows of the training images.
    settings : SegmentationSettings
    norm : str
        Input normalisation.
    run : Run
        Its key describes everything that the run depends on, apart from images, masks and settings.
    device : torch.device

    Raises
    ------
    InputError
        If there are fewer images than one batch, a mask is not as expected, or the loss stops being finite.
    """
    schedule, sides, seed = settings.schedule, settings.sides, settings.seed
    if len(rows) < schedule.batch_size:
        raise InputError(
            f"{run.config_path}.schedule: batch_size is {schedule.batch_size}; "
            f"write at most {len(rows)}, the training images"
        )
    spacing = label_stride(network, settings)
    padding_label = FIRST_CLASS if settings.padding_label == "first-class" else IGNORE
    # Crops are squares, so that nothing is gained by batches of images that lie alike.
    groups = np.zeros(len(rows), np.int64) if sides.crop else orientations(dataset, rows)
    network.to(device, memory_format=torch.channels_last).train()

    def example(row: int, step: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        # All images of a batch have the same scale, but for the jitter.
        shorter = sides.train[np.random.default_rng([seed, step]).integers(len(sides.train))]
        return dataset.example(row, shorter, sides.jitter, sides.crop, spacing, settings.augmentation, rng)

    def batches(first: int) -> Iterator:
        order = grouped_rows(rows, groups, schedule.batch_size, seed, first, schedule.steps)
        join = partial(
            collate,
            stride=network.multiple,
            label_stride=spacing,
            padding_label=padding_label,
            smallest=sides.crop,
        )
        return iterate_batches(example, order, seed=seed, workers=run.workers, collate=join, device=device)

    def loss(batch: tuple[Tensor, list[tuple[int, int]], Tensor], step: int) -> Tensor:
        images, sizes, labels = batch
        seed_step(seed, step)  # dropout draws from the global generators
        logits = network(network_input(images, sizes, norm))
        return cell_loss(logits if spacing == network.stride else enlarge(logits, labels[:, None]), labels)

    return train(
        network.trained,
        loss,
        batches,
        make_optimiser(network, schedule),
        partial(rate, schedule),
        schedule.steps,
        replace(run, key=fingerprint(dataset, rows, settings, run.key)),
        interval=max(1, schedule.steps // INTERVALS),
        precision=settings.precision,
    )


def fingerprint(dataset: SegmentationDataset, rows: np.ndarray, settings: SegmentationSettings, key: str) -> str:
    """Describe a run by its settings, its rows with their images and masks by name, and the key of its other inputs."""
    names = "\n".join(f"{dataset.images[row]} {dataset.masks[row]}" for row in rows)
    described = resume_settings("segmentation", settings)
    return json.dumps([described, key, len(dataset.classes), zlib.crc32(names.encode())], sort_keys=True)

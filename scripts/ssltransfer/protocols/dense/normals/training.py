"""Training of a network for surface normals (v1 section 4.4, v2 section 4.4 and appendix)."""

import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ssltransfer.errors import InputError
from ssltransfer.protocols.dense.heads import cell_loss, parameter_groups
from ssltransfer.protocols.dense.normals.dataset import NormalsDataset
from ssltransfer.protocols.dense.normals.network import NormalsNetwork
from ssltransfer.protocols.dense.normals.settings import NormalsSettings, Schedule
from ssltransfer.protocols.dense.padded_batches import collate, network_input
from ssltransfer.settings import resume_settings
from ssltransfer.training import seed_step, train
from ssltransfer.training_batches import batch_rows, iterate_batches
from ssltransfer.training_state import Curve, Run


def timetable(schedule: Schedule, images: int) -> tuple[int, int, Callable[[int], float]]:
    """Number of steps, steps per epoch, and the factor (1 - t / T) ** power on the learning rate at a step.

    Parameters
    ----------
    schedule : Schedule
        With ``epoch_steps`` 0, an epoch is one pass over the images. t counts ``epoch``s (text of v1 and v2) or
        ``step``s (the official code), as ``decay`` says.
    images : int
        Number of training images.
    """
    epochs = schedule.epochs
    steps = epochs * schedule.epoch_steps or max(1, epochs * images // schedule.batch_size)

    def rate(step: int) -> float:
        done = step / steps if schedule.decay == "step" else step * epochs // steps / epochs
        return (1 - done) ** schedule.power

    return steps, -(-steps // epochs), rate


def train_network(
    network: NormalsNetwork,
    dataset: NormalsDataset,
    rows: np.ndarray,
    settings: NormalsSettings,
    norm: str,
    run: Run,
    device: torch.device,
) -> Curve:
    """Train the network's `trained` modules in place, or resume an interrupted run.

    Parameters
    ----------
    network : NormalsNetwork
    dataset : NormalsDataset
    rows : ndarray of int
        Rows of the training images.
    settings : NormalsSettings
    norm : str
        Input normalisation.
    run : Run
        Its key describes everything that the run depends on, apart from images, normals and settings.
    device : torch.device

    Raises
    ------
    InputError
        If there are fewer images than one batch, an image has no labels, or the loss stops being finite.
    """
    schedule, sides, seed = settings.schedule, settings.sides.train, settings.seed
    if len(rows) < schedule.batch_size:
        raise InputError(
            f"{run.config_path}.schedule: batch_size is {schedule.batch_size}; "
            f"write at most {len(rows)}, the training images"
        )
    if unlabelled := [row for row in rows if dataset.label_images and not dataset.label_images[row]]:
        raise InputError(
            f"{run.config_path}.targets: images, but {dataset.images[unlabelled[0]]} has no image of labels "
            f"({len(unlabelled)} of {len(rows)} training images); write vocabulary"
        )
    steps, interval, rate = timetable(schedule, len(rows))
    network.to(device, memory_format=torch.channels_last).train()
    optimiser = torch.optim.SGD(
        parameter_groups(network.trained, schedule.learning_rate, schedule.weight_decay), momentum=schedule.momentum
    )

    def example(row: int, step: int, _: np.random.Generator) -> tuple[Tensor, Tensor]:
        # All images of a batch have the same scale.
        return dataset.example(row, sides[np.random.default_rng([seed, step]).integers(len(sides))])

    def batches(first: int) -> Iterator:
        order = batch_rows(rows, schedule.batch_size, seed, first, steps)
        join = partial(collate, stride=network.stride)
        return iterate_batches(example, order, seed=seed, workers=run.workers, collate=join, device=device)

    def loss(batch: tuple[Tensor, list[tuple[int, int]], Tensor], step: int) -> Tensor:
        images, sizes, labels = batch
        seed_step(seed, step)  # dropout draws from the global generators
        return cell_loss(network(network_input(images, sizes, norm)), labels)

    return train(
        network.trained,
        loss,
        batches,
        optimiser,
        rate,
        steps,
        replace(run, key=fingerprint(dataset, rows, settings, run.key)),
        interval=interval,
        precision=settings.precision,
    )


def fingerprint(dataset: NormalsDataset, rows: np.ndarray, settings: NormalsSettings, key: str) -> str:
    """Describe a run by its settings, rows, codebook and some normals, and by the key of its other inputs."""
    some = dataset.normals[rows[:: max(1, len(rows) // 16)], ::8, ::8]
    checksums = [zlib.crc32(np.ascontiguousarray(array).data) for array in (rows, dataset.codebook, some)]
    described = resume_settings("normals", settings)
    return json.dumps([described, key, list(dataset.label_images[:1]), checksums], sort_keys=True)

"""Training of a network for surface normals (v1 section 4.4, v2 section 4.4 and appendix)."""

import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ssltransfer import training
from ssltransfer.errors import InputError
from ssltransfer.protocols.dense.normals.codebook import IGNORE
from ssltransfer.protocols.dense.normals.frames import Frames, collate, network_input
from ssltransfer.protocols.dense.normals.network import NormalsNetwork, parameter_groups

EPOCHS = 150
"""Of the paper."""


def timetable(schedule: dict, images: int) -> tuple[int, int, Callable[[int], float]]:
    """Number of steps, steps of an epoch, and the factor (1 - t / T) ** power on the learning rate at a step.

    Parameters
    ----------
    schedule : dict
        ``epochs``, ``batch_size``, ``power``; ``epoch_steps`` (0: an epoch is one pass over the images) and ``decay``:
        t counts ``epoch``s (text of v1 and v2) or ``step``s (the official code).
    images : int
        Training images.
    """
    epochs, per_epoch = schedule["epochs"], schedule["epoch_steps"]
    steps = epochs * per_epoch or max(1, epochs * images // schedule["batch_size"])

    def rate(step: int) -> float:
        done = step / steps if schedule["decay"] == "step" else step * epochs // steps / epochs
        return (1 - done) ** schedule["power"]

    return steps, -(-steps // epochs), rate


def cell_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy over the cells with a label; 0 if there are none."""
    total = functional.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum")
    return total / (labels != IGNORE).sum().clamp(min=1)


def train_network(
    network: NormalsNetwork,
    frames: Frames,
    rows: np.ndarray,
    settings: dict,
    norm: str,
    part: Path,
    key: str,
    *,
    where: str,
    workers: int,
    device: torch.device,
    progress: Callable[[Iterable, int], Iterable] = lambda batches, total: batches,
    save_seconds: float = 60.0,
) -> tuple[int, list[float]]:
    """Train the network's `trained` part in place, or go on where an interrupted run stopped.

    Parameters
    ----------
    network : NormalsNetwork
    frames : Frames
    rows : ndarray of int
        The images to train on.
    settings : dict
        The settings block (see the schema of the configuration).
    norm : str
        Input normalisation.
    part : Path
        Folder for the state of the unfinished run.
    key : str
        What the run depends on beside frames, rows and settings.
    where : str
        Place of the settings, for error messages.
    workers : int
        Processes that read images; does not change the result.
    device : torch.device
    progress : callable
        Wraps (batches, number of batches).
    save_seconds : float
        Time between two states.

    Returns
    -------
    interval : int
    losses : list of float
        Mean loss of every `interval` steps.
    """
    schedule, sides, seed = settings["schedule"], settings["sides"]["train"], settings["seed"]
    if len(rows) < schedule["batch_size"]:
        raise InputError(
            f"{where}.schedule: batch_size is {schedule['batch_size']}; write at most {len(rows)}, the training images"
        )
    if unlabelled := [row for row in rows if frames.codes and not frames.codes[row]]:
        raise InputError(
            f"{where}.targets: images, but {frames.images[unlabelled[0]]} has no image of labels ({len(unlabelled)} of "
            f"{len(rows)} training images); write vocabulary"
        )
    steps, interval, rate = timetable(schedule, len(rows))
    network.to(device, memory_format=torch.channels_last).train()
    optimiser = torch.optim.SGD(
        parameter_groups(network.trained, schedule["learning_rate"], schedule["weight_decay"]),
        momentum=schedule["momentum"],
    )

    def example(row: int, step: int, _: np.random.Generator) -> tuple[Tensor, Tensor]:
        # All images of a batch have the same scale.
        return frames.example(row, sides[np.random.default_rng([seed, step]).integers(len(sides))])

    def batches(first: int) -> Iterator:
        stream = training.stream(rows, schedule["batch_size"], seed, first, steps)
        return training.load(example, stream, seed=seed, workers=workers, collate=collate, device=device)

    def loss(batch: tuple[Tensor, list[tuple[int, int]], Tensor], step: int) -> Tensor:
        images, sizes, labels = batch
        training.seed_step(seed, step)  # dropout draws from the global generators
        return cell_loss(network(network_input(images, sizes, norm)), labels)

    return interval, training.train(
        network.trained,
        loss,
        batches,
        optimiser,
        rate,
        steps,
        part,
        fingerprint(frames, rows, settings, key),
        where=where,
        interval=interval,
        precision=settings["precision"],
        progress=progress,
        save_seconds=save_seconds,
    )


def fingerprint(frames: Frames, rows: np.ndarray, settings: dict, key: str) -> str:
    """Describe a run so that its state is known again: settings, key, rows, words and some normals."""
    some = frames.normals[rows[:: max(1, len(rows) // 16)], ::8, ::8]
    checksums = [zlib.crc32(np.ascontiguousarray(array).data) for array in (rows, frames.words, some)]
    return json.dumps([settings, key, list(frames.codes[:1]), checksums], sort_keys=True)

"""Training and testing of a network for surface normals (v1 section 4.4, v2 section 4.4 and appendix)."""

import json
import logging
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ssltransfer import training
from ssltransfer.datasets.index import short_name
from ssltransfer.errors import InputError
from ssltransfer.images import read_image
from ssltransfer.normals.angles import AngularErrors, angles
from ssltransfer.normals.codes import IGNORE
from ssltransfer.normals.frames import Frames, collate, network_input, resized
from ssltransfer.normals.network import NormalsNetwork, decode, parameter_groups
from ssltransfer.normals.pictures import error_colours, normal_colours, thin
from ssltransfer.normals.truth import decode as decode_truth

log = logging.getLogger("ssltransfer")

PIXELS_AT_ONCE = 300_000
"""Pixels of a batch in testing; full probabilities take 160 bytes a pixel at 40 code words."""


def schedule(settings: dict, images: int) -> tuple[int, int, Callable[[int], float]]:
    """Number of steps, steps of an epoch, and the factor (1 - t / T) ** power on the learning rate at a step.

    Parameters
    ----------
    settings : dict
        ``epochs``, ``batch_size``, ``power``; ``epoch_steps`` (0: an epoch is one pass over the images) and ``decay``:
        t counts ``epoch``s (text of v1 and v2) or ``step``s (the official code).
    images : int
        Training images.
    """
    epochs, per_epoch = settings["epochs"], settings["epoch_steps"]
    steps = epochs * per_epoch or max(1, epochs * images // settings["batch_size"])

    def rate(step: int) -> float:
        done = step / steps if settings["decay"] == "step" else step * epochs // steps / epochs
        return (1 - done) ** settings["power"]

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
    identity: str,
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
    identity : str
        Describes the backbone.
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
    if len(rows) < settings["batch_size"]:
        raise InputError(
            f"{where}: batch_size is {settings['batch_size']}; write at most {len(rows)}, the training images"
        )
    if unlabelled := [row for row in rows if frames.codes and not frames.codes[row]]:
        raise InputError(
            f"{where}.targets: images, but {frames.images[unlabelled[0]]} has no image of labels ({len(unlabelled)} of "
            f"{len(rows)} training images); write vocabulary"
        )
    steps, interval, rate = schedule(settings, len(rows))
    seed, sides = settings["seed"], settings["sizes"]
    network.to(device, memory_format=torch.channels_last).train()
    optimiser = torch.optim.SGD(
        parameter_groups(network.trained, settings["learning_rate"], settings["weight_decay"]),
        momentum=settings["momentum"],
    )

    def example(row: int, step: int, _: np.random.Generator) -> tuple[Tensor, Tensor]:
        # All images of a batch have the same scale.
        return frames.example(row, sides[np.random.default_rng([seed, step]).integers(len(sides))])

    def batches(first: int) -> Iterator:
        stream = training.stream(rows, settings["batch_size"], seed, first, steps)
        return training.load(example, stream, seed=seed, workers=workers, collate=collate, device=device)

    def loss(batch: tuple[Tensor, Tensor, Tensor], step: int) -> Tensor:
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
        fingerprint(frames, rows, settings, norm, identity),
        where=where,
        interval=interval,
        precision=settings["precision"],
        progress=progress,
        save_seconds=save_seconds,
    )


def fingerprint(frames: Frames, rows: np.ndarray, settings: dict, norm: str, identity: str) -> str:
    """Describe a run so that its state is known again: settings, backbone, rows, words and some normals."""
    some = frames.normals[rows[:: max(1, len(rows) // 16)], ::8, ::8]
    checksums = [zlib.crc32(np.ascontiguousarray(array).data) for array in (rows, frames.words, some)]
    return json.dumps([settings, norm, identity, list(frames.codes[:1]), checksums], sort_keys=True)


@torch.inference_mode()
def predict(
    network: NormalsNetwork, frames: Frames, rows: np.ndarray, shorter: int, norm: str, device: torch.device
) -> Tensor:
    """Predict the normals of images, float32 (n, h, w, 3), at the size of the originals."""
    images = [torch.from_numpy(frames.image(row, shorter)) for row in rows]
    batch, sizes, _ = collate([(image, torch.empty(0, 0)) for image in images])
    logits = network(network_input(batch.to(device), sizes, norm))
    words = torch.from_numpy(frames.words).to(device)
    return decode(logits, words, tuple(sizes[0].tolist()), frames.normals.shape[1:3])


def evaluate(
    network: NormalsNetwork,
    frames: Frames,
    rows: np.ndarray,
    shorter: int,
    norm: str,
    device: torch.device,
    progress: Callable[[Iterable, int], Iterable] = lambda batches, total: batches,
) -> AngularErrors:
    """Angular errors of the predicted normals at all pixels of these images with a known one.

    Parameters
    ----------
    network : NormalsNetwork
    frames : Frames
    rows : ndarray of int
    shorter : int
        Shorter side of the network's input, in pixels.
    norm : str
    device : torch.device
    progress : callable
        Wraps (batches, number of batches).
    """
    network.to(device, memory_format=torch.channels_last).eval()
    height, width = frames.normals.shape[1:3]
    new = resized(width, height, shorter, frames.longest)
    at_once = max(1, PIXELS_AT_ONCE // max(height * width, new[0] * new[1]))
    starts = range(0, len(rows), at_once)
    errors = AngularErrors()
    for start in progress(starts, len(starts)):
        some = rows[start : start + at_once]
        predicted = predict(network, frames, some, shorter, norm, device).cpu().numpy()
        for row, normals in zip(some, predicted, strict=True):
            truth, known = decode_truth(frames.normals[row])
            errors.add(angles(normals[known], truth[known]))
    return errors


def draw(
    network: NormalsNetwork,
    frames: Frames,
    rows: np.ndarray,
    shorter: int,
    norm: str,
    device: torch.device,
    count: int = 8,
    side: int = 256,
) -> tuple[list[str], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Draw images, known and predicted normals and angular errors.

    Parameters
    ----------
    network, frames, rows, shorter, norm, device
        See `evaluate`.
    count : int
        Number of images, spread evenly over `rows`.
    side : int
        Most pixels of a panel's longer side.

    Returns
    -------
    columns : list of str
        Names of the images.
    reference, panels : dict of str to ndarray of uint8, shape (count, h, w, 3)
        Image and known normals; predicted normals and errors.
    """
    network.to(device, memory_format=torch.channels_last).eval()
    some = rows[np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int))]
    predicted = np.concatenate([predict(network, frames, [row], shorter, norm, device).cpu().numpy() for row in some])
    truth, known = decode_truth(frames.normals[some])
    errors = np.full(known.shape, np.nan)
    errors[known] = angles(predicted[known], truth[known])
    images = np.stack([np.asarray(read_image(frames.root, frames.images[row])) for row in some])
    reference = {"Image": images, "Ground truth": normal_colours(truth, known)}
    panels = {"Prediction": normal_colours(predicted), "Error": error_colours(errors)}
    columns = [short_name(frames.images[row]) for row in some]
    return columns, *({title: thin(panel, side) for title, panel in some.items()} for some in (reference, panels))

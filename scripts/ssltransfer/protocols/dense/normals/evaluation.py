"""Testing of a network for surface normals: its angular errors and pictures of its predictions."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from ssltransfer.datasets.images import read_image
from ssltransfer.datasets.index import short_name
from ssltransfer.protocols.dense.normals.angles import AngularErrors, angles
from ssltransfer.protocols.dense.normals.frames import Frames, collate, network_input, resized
from ssltransfer.protocols.dense.normals.ground_truth import decode as decode_truth
from ssltransfer.protocols.dense.normals.network import NormalsNetwork, decode
from ssltransfer.protocols.dense.normals.pictures import error_colours, normal_colours, thin

PIXELS_AT_ONCE = 300_000
"""Pixels of a batch; full probabilities take 160 bytes a pixel at 40 code words."""


@torch.inference_mode()
def predict(
    network: NormalsNetwork, frames: Frames, rows: np.ndarray, shorter: int, norm: str, device: torch.device
) -> Tensor:
    """Predict the normals of images, float32 (n, h, w, 3), at the size of the originals."""
    images = [torch.from_numpy(frames.image(row, shorter)) for row in rows]
    batch, sizes, _ = collate([(image, torch.empty(0, 0)) for image in images])
    logits = network(network_input(batch.to(device), sizes, norm))
    words = torch.from_numpy(frames.words).to(device)
    return decode(logits, words, sizes[0], frames.normals.shape[1:3])


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

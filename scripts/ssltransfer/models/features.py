"""Extract frozen features (paper section 3.1): one pass of a backbone over prepared images."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ssltransfer.errors import InputError
from ssltransfer.files import atomic_write
from ssltransfer.jobs import JobUsage, network_packages, package_versions
from ssltransfer.models.backbone import Backbone
from ssltransfer.models.fusion import inference_form
from ssltransfer.models.input_norm import normalise
from ssltransfer.precision import computing_in
from ssltransfer.results.tensor_header import decode_metadata, read_provenance
from ssltransfer.row_file import ArrayFile

BATCH = 64
"""Number of images that a network sees at a time."""


@torch.inference_mode()
def extract_features(
    backbone: Backbone,
    images: np.ndarray,
    norm: str,
    output: Path,
    device: torch.device,
    precision: str = "float32",
    batch_size: int = BATCH,
    progress: Callable[[Iterable], Iterable] = iter,
) -> None:
    """Write the pooled features of all images to a .npy file.

    Memory is bounded by the batch. While the device computes a batch, the next one is read and the last one written.

    Parameters
    ----------
    backbone : Backbone
        Used in evaluation mode (running batch-norm statistics).
    images : array of uint8, shape (n, h, w, 3)
        Anything with a length whose slices are arrays: an `ArrayFile`, `images.DecodedImages`, an ndarray.
    norm : str
        See `norm_table.mean_and_std`.
    output : Path
        Becomes float32 (n, d), row i from image i.
    device : torch.device
    precision : str
        See `precision.computing_in`.
    batch_size : int
        Does not change the result beyond rounding.
    progress : callable
        Wraps the iterable of batch starts.

    Raises
    ------
    InputError
        If a weight or a feature is not finite.
    """
    check_weights(backbone, str(output))
    network = inference_form(backbone, device, precision)
    with computing_in(precision, device), atomic_write(output) as temporary, ThreadPoolExecutor(1) as writer:
        file = ArrayFile.create(temporary, (len(images), backbone.width), np.float32)

        def write(start: int, features: torch.Tensor) -> None:
            file.write(start, finite_features(features, start, str(output)))

        written: Future | None = None
        for start, features in feature_batches(network, images, norm, device, batch_size, progress):
            if written is not None:
                written.result()
            written = writer.submit(write, start, features)
        if written is not None:
            written.result()
        file.finish()


def check_weights(network: nn.Module, name: str) -> None:
    """Require finite weights; InputError otherwise. Checked before, because some kernels turn NaN into zero."""
    for key, tensor in network.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise InputError(f"{name}: values of {key} are not finite; is the checkpoint sound?")


def finite_features(features: torch.Tensor, start: int, name: str) -> np.ndarray:
    """Bring the features of a batch to the CPU; InputError if one is not finite."""
    values = features.cpu().numpy()
    if not np.isfinite(values).all():
        raise InputError(f"{name}: features of rows {start}.. are not finite; is the checkpoint sound?")
    return values


def feature_batches(
    network: Callable[[torch.Tensor], torch.Tensor],
    images: np.ndarray,
    norm: str,
    device: torch.device,
    batch_size: int = BATCH,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Iterator[tuple[int, torch.Tensor]]:
    """Pass images through a network in batches, and read the next batch meanwhile.

    Parameters
    ----------
    network : callable
        Maps normalised images (k, 3, h, w) to features (k, d).
    images, norm, device, batch_size, progress
        See `extract_features`.

    Yields
    ------
    start : int
        Row of the first image of the batch.
    features : Tensor
        On the device.
    """

    def read(start: int) -> torch.Tensor:
        batch = torch.from_numpy(np.asarray(images[start : start + batch_size]))
        return batch.pin_memory() if device.type == "cuda" else batch

    with ThreadPoolExecutor(1) as reader:
        ahead = reader.submit(read, 0)
        for start in progress(range(0, len(images), batch_size)):
            batch = ahead.result().to(device, non_blocking=True)
            ahead = reader.submit(read, start + batch_size)
            yield start, network(normalise(batch, norm)).float()


def describe_features(
    cell: Mapping[str, str], images: int, checkpoint: str | Path, device: torch.device, usage: JobUsage
) -> dict:
    """Return the provenance of a feature file, to be written beside it.

    Parameters
    ----------
    cell : mapping
        ``model``, ``dataset``, ``transform``, ``norm``, and ``pool`` and ``precision`` where they are not the default.
    images : int
        Number of images.
    checkpoint : path
        Converted checkpoint, whose header is repeated.
    device : torch.device
        The device that computed the features.
    usage : JobUsage
        Of the job so far.
    """
    readout = {key: cell[key] for key in ("pool", "precision") if key in cell}
    return dict(cell) | {
        "images": images,
        "checkpoint": decode_metadata(read_provenance(checkpoint)) | readout,
        "device": device.type,
        "versions": package_versions("torch", "numpy", *network_packages()),
        "cost": usage.report(),
    }

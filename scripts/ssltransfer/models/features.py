"""Extract frozen features (paper section 3.1): one pass of a backbone over prepared images."""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from ssltransfer.errors import InputError
from ssltransfer.files import atomic_write
from ssltransfer.jobs import JobUsage, package_versions
from ssltransfer.models.fusion import optimise_for_inference
from ssltransfer.models.resnet import ResNet, normalise
from ssltransfer.results.tensor_header import decode_metadata, read_provenance
from ssltransfer.row_file import ArrayFile


@torch.inference_mode()
def extract_features(
    backbone: ResNet,
    images: np.ndarray,
    norm: str,
    output: Path,
    device: torch.device,
    batch_size: int = 64,
    progress: Callable[[Iterable], Iterable] = iter,
) -> None:
    """Write the pooled features of all images to a .npy file.

    Memory is bounded by the batch. While the device computes a batch, the next one is read and the last one written.

    Parameters
    ----------
    backbone : ResNet
        Used in evaluation mode (running batch-norm statistics).
    images : array of uint8, shape (n, h, w, 3)
        Anything with a length whose slices are arrays: an `ArrayFile`, `images.DecodedImages`, an ndarray.
    norm : {'imagenet', 'none'}
    output : Path
        Becomes float32 (n, d), row i from image i.
    device : torch.device
    batch_size : int
        Does not change the result beyond rounding.
    progress : callable
        Wraps the iterable of batch starts.

    Raises
    ------
    InputError
        If a weight or a feature is not finite.
    """
    # Checked before, because some kernels turn NaN into zero.
    for name, tensor in backbone.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise InputError(f"{output}: values of {name} are not finite; is the checkpoint sound?")
    network = optimise_for_inference(backbone, device)
    on_gpu = device.type == "cuda"

    def read(start: int) -> torch.Tensor:
        batch = torch.from_numpy(np.asarray(images[start : start + batch_size]))
        return batch.pin_memory() if on_gpu else batch

    with atomic_write(output) as temporary, ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        file = ArrayFile.create(temporary, (len(images), backbone.num_features), np.float32)

        def write(start: int, features: torch.Tensor) -> None:
            values = features.cpu().numpy()
            if not np.isfinite(values).all():
                raise InputError(f"{output}: features of rows {start}.. are not finite; is the checkpoint sound?")
            file.write(start, values)

        starts = range(0, len(images), batch_size)
        ahead = reader.submit(read, 0)
        written: Future | None = None
        for start in progress(starts):
            batch = ahead.result().to(device, non_blocking=True)
            ahead = reader.submit(read, start + batch_size)
            features = network(normalise(batch, norm))
            if written is not None:
                written.result()
            written = writer.submit(write, start, features)
        if written is not None:
            written.result()
        file.finish()


def describe_features(
    cell: Mapping[str, str], images: int, checkpoint: str | Path, device: torch.device, usage: JobUsage
) -> dict:
    """Return the provenance of a feature file, to be written beside it.

    Parameters
    ----------
    cell : mapping
        ``model``, ``dataset``, ``transform`` and ``norm``: the wildcards of the job.
    images : int
        Number of images.
    checkpoint : path
        Converted checkpoint, whose header is repeated.
    device : torch.device
        The device that computed the features.
    usage : JobUsage
        Of the job so far.
    """
    return dict(cell.items()) | {
        "images": images,
        "checkpoint": decode_metadata(read_provenance(checkpoint)),
        "device": device.type,
        "versions": package_versions("torch", "numpy"),
        "cost": usage.report(),
    }

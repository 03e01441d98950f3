"""Proof of a conversion on the real weights: ImageNet accuracy with the authors' own linear classifier."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ssltransfer.datasets.images import read_image
from ssltransfer.errors import InputError
from ssltransfer.models.resnet import ResNet, normalise


def _evaluation_crop(path: Path) -> np.ndarray:
    """Shorter side 256 (bilinear), centre crop 224: the usual evaluation input of the published classifiers."""
    image = read_image(path.parent, path.name)
    scale = 256 / min(image.size)
    image = image.resize([int(side * scale) if side != min(image.size) else 256 for side in image.size], Image.BILINEAR)
    left, top = (round((side - 224) / 2) for side in image.size)
    return np.asarray(image.crop((left, top, left + 224, top + 224)))


@torch.inference_mode()
def imagenet_top1(
    backbone: ResNet,
    head: tuple[Tensor, Tensor],
    folder: Path,
    norm: str,
    device: torch.device,
    workers: int = 1,
    batch_size: int = 64,
    progress: Callable[[Iterable], Iterable] = iter,
) -> tuple[float, int]:
    """Top-1 accuracy of backbone and classifier on a folder of validation images.

    Parameters
    ----------
    backbone : ResNet
        In evaluation mode.
    head : tuple of Tensor
        Weight (classes, features) and bias (classes,).
    folder : Path
        One sub-folder a class, in the classifier's order when sorted by name (ImageNet: n01440764, ...).
    norm : str
        See `backbones.normalise`.
    device : torch.device
    workers : int
        Threads that decode.
    batch_size : int
    progress : callable
        Wraps the iterable of batch starts.

    Returns
    -------
    float
        Percent.
    int
        Number of images.

    Raises
    ------
    InputError
        If the folder is missing, has another number of classes than the classifier, or holds no images.
    """
    weight, bias = (tensor.float().to(device) for tensor in head)
    classes = sorted(entry for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []
    if len(classes) != len(weight):
        raise InputError(
            f"imagenet_val: {folder} has {len(classes)} class folders, the classifier {len(weight)} classes"
        )
    images = [(path, label) for label, entry in enumerate(classes) for path in sorted(entry.iterdir())]
    if not images:
        raise InputError(f"imagenet_val: the class folders of {folder} hold no images")
    backbone = backbone.to(device, memory_format=torch.channels_last)
    correct = 0
    with ThreadPoolExecutor(workers) as pool:
        for start in progress(range(0, len(images), batch_size)):
            paths, labels = zip(*images[start : start + batch_size], strict=True)
            batch = torch.from_numpy(np.stack(list(pool.map(_evaluation_crop, paths)))).to(device)
            logits = backbone(normalise(batch, norm)) @ weight.T + bias
            correct += int((logits.argmax(dim=1).cpu() == torch.tensor(labels)).sum())
    return 100.0 * correct / len(images), len(images)

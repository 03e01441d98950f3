"""Verify converted checkpoints by their ImageNet accuracy with the linear classifiers that their authors published."""

import logging
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ssltransfer.checkpoints.convert import read_published
from ssltransfer.checkpoints.torch_file import read_classifier
from ssltransfer.datasets.images import read_image
from ssltransfer.datasets.parts import is_hidden, visible_folders
from ssltransfer.errors import InputError
from ssltransfer.models.backbone_file import load_backbone
from ssltransfer.models.input_norm import normalise
from ssltransfer.models.resnet import ResNet

log = logging.getLogger(__name__)


def read_head(files: list[Path], embedded: bool, format: str, arch: str, model: str) -> tuple[Tensor, Tensor]:
    """Read the linear classifier of a model.

    Parameters
    ----------
    files : list of Path
        Published files of the model if its classifier is embedded there, else the file of the classifier.
    embedded : bool
    format, arch : str
        See `convert.read_published`; used only for embedded classifiers.
    model : str
        Id of the model, for messages.

    Returns
    -------
    weight : Tensor, shape (classes, features)
    bias : Tensor, shape (classes,)

    Raises
    ------
    InputError
        If the files hold no classifier, or see `read_published` and `read_classifier`.
    """
    if not embedded:
        return read_classifier(files[0])
    head = read_published(files, format, arch).head
    if head is None:
        raise InputError(f"{model}: config/heads.tsv says inside, but the file holds no classifier")
    return head


def near_chance(top1: float, published: float) -> bool:
    """Whether a top-1 accuracy is below a tenth of the published one, as with classes in another order."""
    return top1 < published / 10


def verify(
    model: str,
    checkpoint: str | Path,
    arch: str,
    head: tuple[Tensor, Tensor],
    published: float,
    folder: Path,
    norm: str,
    device: torch.device,
    workers: int = 1,
    progress: Callable[[Iterable], Iterable] = iter,
) -> dict:
    """Compare the ImageNet accuracy of a converted checkpoint with the published one.

    Parameters
    ----------
    model : str
    checkpoint : path
        Converted checkpoint.
    arch : str
    head, folder, norm, device, workers, progress
        See `imagenet_top1`.
    published : float
        Published top-1 accuracy in percent.

    Returns
    -------
    dict
        ``model``, ``top1``, ``published`` and their ``difference`` in percent, and the number of ``images``.

    Raises
    ------
    InputError
        See `load_backbone` and `imagenet_top1`.
    """
    top1, images = imagenet_top1(
        load_backbone(checkpoint, arch), head, folder, norm, device, workers, progress=progress
    )
    if near_chance(top1, published):
        log.warning(
            "%s: %.2f %% is near chance, %.2f %% is published; is the order of the class folders of %s that of the "
            "classifier (ImageNet's classes sorted by WordNet's identifiers)?",
            model,
            top1,
            published,
            folder,
        )
    return {
        "model": model,
        "top1": top1,
        "published": published,
        "images": images,
        "difference": top1 - published,
    }


def class_folders(folder: Path) -> list[Path]:
    """Class folders in the order of the published classifiers, which is that of WordNet's identifiers; no hidden ones.

    Raises
    ------
    InputError
        If they are named neither by these (``n01440764``) nor by the number of the class (``0``, ``1``, ...).
    """
    folders = visible_folders(folder) if folder.is_dir() else []
    for form, order in ((r"n\d+", str), (r"\d+", int)):
        if all(re.fullmatch(form, entry.name, re.ASCII) for entry in folders):
            return sorted(folders, key=lambda entry: order(entry.name))
    raise InputError(f"imagenet_val: the class folders of {folder} must be named n01440764, ... or 0, 1, ...")


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
        One sub-folder per class; see `class_folders`.
    norm : str
        See `resnet.normalise`.
    device : torch.device
    workers : int
        Threads that decode.
    batch_size : int
    progress : callable
        Wraps the iterable of batch starts.

    Returns
    -------
    top1 : float
        Percent.
    images : int
        Number of images.

    Raises
    ------
    InputError
        If the folder is missing, has another number of classes than the classifier or names of unknown order, or holds
        no images.
    """
    weight, bias = (tensor.float().to(device) for tensor in head)
    classes = class_folders(folder)
    if len(classes) != len(weight):
        raise InputError(
            f"imagenet_val: {folder} has {len(classes)} class folders, the classifier {len(weight)} classes"
        )
    images = [
        (path, label)
        for label, entry in enumerate(classes)
        for path in sorted(entry.iterdir())
        if not is_hidden(path.name)
    ]
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

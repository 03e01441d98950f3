"""Pretraining of a backbone by a recipe: method, optimiser, schedule and batches for the training loop.

The order of an epoch depends on (seed, epoch) only, the views of a step on (seed, step).
"""

import inspect
import json
import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn

from ssltransfer.device import choose_device
from ssltransfer.errors import InputError
from ssltransfer.models.resnet import build_backbone, normalise
from ssltransfer.pretraining.augmentation import Augmentation, augment
from ssltransfer.pretraining.methods import METHODS
from ssltransfer.training import Run, seed_step, train


@dataclass(frozen=True)
class Recipe:
    """One named settings block of config/pretraining.yaml.

    Attributes
    ----------
    name : str
        Key of the block.
    method : str
        A key of `methods.METHODS`, or ``none``: random initialisation, for which only `seed` counts.
    seed : int
        Seed of the initialisation, the order of the images and their views.
    dataset, transform : str
        Images: the training part of this dataset, prepared by this transform.
    epochs : int
        Number of passes over the images.
    batch_size : int
        Number of images per step; the last, incomplete batch of an epoch is left out.
    learning_rate : float
        Peak learning rate of AdamW: linear warm-up, then half a cosine down to zero.
    warmup : float
        Fraction of the steps in the warm-up, in [0, 1).
    weight_decay : float
        Weight decay of matrices and filters; biases and batch-norm parameters have none.
    augmentation : dict
        Fields of `augmentation.Augmentation`.
    head : dict
        Settings of the method itself.
    """

    name: str
    method: str
    seed: int
    dataset: str = ""
    transform: str = ""
    epochs: int = 0
    batch_size: int = 0
    learning_rate: float = 0.0
    warmup: float = 0.0
    weight_decay: float = 0.0
    augmentation: dict = field(default_factory=dict)
    head: dict = field(default_factory=dict)

    @property
    def config_path(self) -> str:
        """Place of the recipe, for error messages."""
        return f"config/pretraining.yaml, {self.name}"


def pretrain(
    images: np.ndarray,
    labels: np.ndarray,
    rows: np.ndarray,
    recipe: Recipe,
    arch: str,
    norm: str,
    run: Run,
) -> tuple[dict[str, Tensor], list[float]]:
    """Train a backbone, or resume an interrupted run with the same arguments.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, s, s, 3)
        May be memory-mapped; one batch is read at a time.
    labels : ndarray of int, shape (n,)
        Used by method ``supervised`` alone.
    rows : ndarray of int
        Rows of the training images.
    recipe : Recipe
    arch : str
        See `resnet.build_backbone`.
    norm : str
        See `resnet.normalise`.
    run : Run
        Its key describes everything that the run depends on, apart from images and recipe.

    Returns
    -------
    state : dict of Tensor
        Tensors of the backbone, on the CPU.
    losses : list of float
        Mean loss of every epoch.

    Raises
    ------
    InputError
        If the recipe names an unknown method or setting, there are fewer images than one batch, ``supervised``
        is given several labels per image, or the loss stops being finite.
    """
    if recipe.method == "none":
        return build_backbone(arch, recipe.seed).state_dict(), []
    check(recipe, labels, rows)
    strength = settings(recipe, "augmentation", Augmentation, **recipe.augmentation)
    method = build_method(recipe, arch, labels[rows])
    steps_per_epoch = len(rows) // recipe.batch_size
    steps = steps_per_epoch * recipe.epochs
    device = choose_device()
    method.to(device, memory_format=torch.channels_last)

    def loss(batch: np.ndarray, step: int) -> Tensor:
        views = torch.from_numpy(images[batch]).to(device).repeat(method.views, 1, 1, 1)
        views = normalise(augment(views, strength, seed_step(recipe.seed, step)), norm)
        return method(views, torch.from_numpy(labels[batch]).to(device))

    curve = train(
        method,
        loss,
        lambda first: batches(rows, recipe, first),
        build_optimiser(method, recipe),
        lambda step: schedule((step + 0.5) / steps, recipe.warmup),
        steps,
        replace(run, key=fingerprint(images, labels, rows, recipe, run.key)),
        interval=steps_per_epoch,
        after_step=lambda step: method.after_step(step / steps),
    )
    return {name: tensor.cpu() for name, tensor in method.backbone.state_dict().items()}, curve.losses


def check(recipe: Recipe, labels: np.ndarray, rows: np.ndarray) -> None:
    """Refuse an unknown method, and images that the recipe cannot train on."""
    if recipe.method not in METHODS:
        raise InputError(
            f"{recipe.config_path}: method is {recipe.method!r}; write none or one of {', '.join(METHODS)}"
        )
    if len(rows) < recipe.batch_size:
        raise InputError(
            f"{recipe.config_path}: batch_size is {recipe.batch_size}; "
            f"write at most {len(rows)}, the training images of {recipe.dataset}"
        )
    if recipe.method == "supervised" and labels.ndim > 1:
        raise InputError(
            f"{recipe.config_path}: dataset {recipe.dataset} has several labels per image; "
            "method supervised needs a dataset with one"
        )


def settings(recipe: Recipe, block: str, build: Callable, *arguments, **named):
    """Call `build` with the settings of a block of the recipe; a missing or unknown one is an InputError."""
    try:
        inspect.signature(build).bind(*arguments, **named)
    except TypeError as error:
        raise InputError(f"{recipe.config_path}: {block} of method {recipe.method}: {error}") from None
    return build(*arguments, **named)


def build_method(recipe: Recipe, arch: str, labels: np.ndarray) -> nn.Module:
    """Build the method of a recipe around a new backbone, both initialised from the recipe's seed."""
    head = dict(recipe.head)
    if recipe.method == "supervised":
        head["classes"] = int(labels.max()) + 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return settings(recipe, "head", METHODS[recipe.method], build_backbone(arch, recipe.seed), **head)


def build_optimiser(method: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW, without weight decay for biases and batch-norm parameters."""
    trained = [p for p in method.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, fused=True)


def schedule(progress: float, warmup: float) -> float:
    """Fraction of the peak learning rate: linear warm-up, then half a cosine; `progress` is in [0, 1)."""
    if progress < warmup:
        return progress / warmup
    return (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup))) / 2


def batches(rows: np.ndarray, recipe: Recipe, first: int) -> Iterator[np.ndarray]:
    """Yield the rows of every step from `first` on; each epoch has its own permutation."""
    size = recipe.batch_size
    steps = len(rows) // size
    for epoch in range(first // steps, recipe.epochs):
        order = np.random.default_rng([recipe.seed, epoch]).permutation(rows)
        for start in range((first - epoch * steps if epoch == first // steps else 0), steps):
            # Ascending rows read a memory-mapped file in one direction.
            yield np.sort(order[start * size : (start + 1) * size])


def fingerprint(images: np.ndarray, labels: np.ndarray, rows: np.ndarray, recipe: Recipe, key: str) -> str:
    """Describe a run by its recipe, its labels and some images, and by the key of its other inputs."""
    sample = rows[:: max(1, len(rows) // 256)]
    checksums = [zlib.crc32(np.ascontiguousarray(a).data) for a in (rows, labels[rows], images[sample])]
    return json.dumps([asdict(recipe), key, checksums])

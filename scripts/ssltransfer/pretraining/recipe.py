"""Pretraining of a backbone by a recipe: method, optimiser, schedule and batches for the training loop.

The order of an epoch depends on (seed, epoch) only, the views of a step on (seed, step).
"""

import json
import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ssltransfer.datasets.images import parse_transform
from ssltransfer.datasets.index import read_index
from ssltransfer.device import choose_device
from ssltransfer.errors import InputError
from ssltransfer.models.architecture import is_resnet
from ssltransfer.models.backbone import Backbone
from ssltransfer.models.backbone_file import build_backbone
from ssltransfer.models.input_norm import normalise
from ssltransfer.pretraining.augmentation import Augmentation, augment
from ssltransfer.pretraining.methods import METHODS
from ssltransfer.row_file import open_array
from ssltransfer.settings import complete_recipe, pretraining_schema, read_form
from ssltransfer.training import seed_step, train
from ssltransfer.training_state import Run


@dataclass(frozen=True)
class Recipe:
    """One named settings block of config/pretraining.yaml.

    The keys are described in workflow/schemas/pretraining.schema.yaml; those that method ``none`` leaves out are None.

    Attributes
    ----------
    name : str
        Key of the block.
    written : dict
        The block as a job's params hold it: without defaults (see `settings.job_recipe`).
    """

    name: str
    written: dict
    method: str
    seed: int
    dataset: str
    transform: str
    epochs: int
    batch_size: int
    learning_rate: float
    warmup: float
    weight_decay: float
    augmentation: Augmentation
    precision: str
    head: dict

    @property
    def config_path(self) -> str:
        """Place of the recipe, for error messages."""
        return f"config/pretraining.yaml, {self.name}"

    @property
    def size(self) -> int | None:
        """Side of the images in pixels; None for a recipe without images."""
        return None if self.transform is None else parse_transform(self.transform)[0]

    @property
    def resume_settings(self) -> dict:
        """The recipe as the key of an unfinished run holds it: as written, in the order of the schema."""
        keys = pretraining_schema()["additionalProperties"]["properties"]
        blocks = {"augmentation": {}, "head": {}}
        written = blocks | self.written
        return {"name": self.name} | {key: written[key] for key in keys if key in written}


def read_recipe(name: str, written: Mapping) -> Recipe:
    """Read a valid recipe; keys that it leaves out have their default."""
    return read_form(Recipe, complete_recipe(written) | {"name": name, "written": dict(written)})


@dataclass(frozen=True)
class TrainingData:
    """Images and labels of a dataset, and the rows that a recipe trains on.

    Attributes
    ----------
    images : ndarray of uint8, shape (n, s, s, 3)
        May be memory-mapped; one batch is read at a time.
    labels : ndarray of int, shape (n,)
        Used by method ``supervised`` alone.
    rows : ndarray of int
        Rows of the training images.
    """

    images: np.ndarray
    labels: np.ndarray
    rows: np.ndarray


def read_training_data(index: str | Path | None = None, images: str | Path | None = None) -> TrainingData:
    """Read the training part of a dataset from its index and its prepared images; empty without files."""
    if index is None or images is None:
        return TrainingData(np.empty(0), np.empty(0), np.empty(0))
    found = read_index(index)
    return TrainingData(open_array(images), found.label_array(), np.flatnonzero(found.split_array() == "train"))


def pretrain(
    data: TrainingData, recipe: Recipe, arch: str, norm: str, run: Run
) -> tuple[dict[str, Tensor], list[float]]:
    """Train a backbone, or resume an interrupted run with the same arguments.

    Parameters
    ----------
    data : TrainingData
        Not used by method ``none``.
    recipe : Recipe
    arch : str
        See `backbone_file.build_backbone`; networks that are built for one size are built for the recipe's images.
    norm : str
        See `norm_table.mean_and_std`.
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
        If there are fewer images than one batch, ``supervised`` is given several labels per image, or the loss stops
        being finite.
    """
    if recipe.method == "none":
        return new_backbone(recipe, arch).tensors(), []
    images, labels, rows = data.images, data.labels, data.rows
    check(recipe, data)
    method = build_method(recipe, arch, labels[rows])
    steps_per_epoch = len(rows) // recipe.batch_size
    steps = steps_per_epoch * recipe.epochs
    device = choose_device()
    method.train().to(device, memory_format=torch.channels_last)

    def examples(first: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield views and labels, made outside of the loss so that no pixel is rounded to the precision."""
        for step, batch in enumerate(batches(rows, recipe, first), first):
            views = torch.from_numpy(images[batch]).to(device).repeat(method.views, 1, 1, 1)
            views = normalise(augment(views, recipe.augmentation, seed_step(recipe.seed, step)), norm)
            yield views, torch.from_numpy(labels[batch]).to(device)

    curve = train(
        method,
        lambda example, step: method(*example),
        examples,
        build_optimiser(method, recipe),
        lambda step: schedule((step + 0.5) / steps, recipe.warmup),
        steps,
        replace(run, key=fingerprint(data, recipe, run.key)),
        interval=steps_per_epoch,
        precision=recipe.precision,
        after_step=lambda step: method.after_step(step / steps),
    )
    return {name: tensor.cpu() for name, tensor in method.backbone.tensors().items()}, curve.losses


def check(recipe: Recipe, data: TrainingData) -> None:
    """Refuse images that the recipe cannot train on."""
    if len(data.rows) < recipe.batch_size:
        raise InputError(
            f"{recipe.config_path}: batch_size is {recipe.batch_size}; "
            f"write at most {len(data.rows)}, the training images of {recipe.dataset}"
        )
    if recipe.method == "supervised" and data.labels.ndim > 1:
        raise InputError(
            f"{recipe.config_path}: dataset {recipe.dataset} has several labels per image; "
            "method supervised needs a dataset with one"
        )


def build_method(recipe: Recipe, arch: str, labels: np.ndarray) -> nn.Module:
    """Build the method of a recipe around a new backbone, both initialised from the recipe's seed."""
    head = dict(recipe.head)
    if recipe.method == "supervised":
        head["classes"] = int(labels.max()) + 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return METHODS[recipe.method](new_backbone(recipe, arch), **head)


def new_backbone(recipe: Recipe, arch: str) -> Backbone:
    """Build a backbone for images of the recipe's size, initialised from the recipe's seed."""
    return build_backbone(arch, size=recipe.size, seed=recipe.seed)


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


def describe_pretraining(recipe: Recipe, arch: str, losses: list[float], version: int | list, usage: dict) -> dict:
    """Describe where a pretrained backbone comes from, and for which images its network was built.

    Parameters
    ----------
    recipe : Recipe
    arch : str
    losses : list of float
        See `pretrain`.
    version : int or list of int
        Of the component ``pretraining``, and where others build the network theirs.
    usage : dict
        Time and memory of the job.
    """
    # Residual networks are the same for all sizes, and their headers stay as they were.
    size = {} if recipe.size is None or is_resnet(arch) else {"size": recipe.size}
    return {
        "source": f"pretrain:{recipe.name}",
        "version": version,
        **size,
        "recipe": recipe.written,
        "losses": [round(loss, 5) for loss in losses],
        "cost": usage,
    }


def fingerprint(data: TrainingData, recipe: Recipe, key: str) -> str:
    """Describe a run by its recipe, its labels and some images, and by the key of its other inputs."""
    rows = data.rows
    sample = rows[:: max(1, len(rows) // 256)]
    checksums = [zlib.crc32(np.ascontiguousarray(a).data) for a in (rows, data.labels[rows], data.images[sample])]
    return json.dumps([recipe.resume_settings, key, checksums])

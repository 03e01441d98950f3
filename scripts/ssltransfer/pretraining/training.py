"""The training loop that all methods share: seeded, resumable, on a GPU or on one CPU thread.

No random state is carried from step to step: the order of an epoch depends on (seed, epoch) only, the views
of a step on (seed, step). So an interrupted run needs only its weights to end as if nothing had happened.
"""

import inspect
import json
import logging
import math
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ssltransfer.backbones import build_backbone, normalise
from ssltransfer.device import choose_device
from ssltransfer.errors import InputError
from ssltransfer.files import replacing
from ssltransfer.pretraining.augmentation import Augmentation, augment
from ssltransfer.pretraining.methods import METHODS

log = logging.getLogger("ssltransfer")

LOG_SECONDS = 10


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
        Of the initialisation, the order of the images and their views.
    dataset, transform : str
        Images: the training part of this data set, prepared by this transform.
    epochs : int
    batch_size : int
        Images a step; the last, incomplete batch of an epoch is left out.
    learning_rate : float
        Peak of AdamW's rate: linear warm-up, then half a cosine down to zero.
    warmup : float
        Fraction of the steps that the warm-up takes, in [0, 1).
    weight_decay : float
        Of matrices and filters; biases and batch-norm parameters have none.
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
    def where(self) -> str:
        """Place of the recipe, for error messages."""
        return f"config/pretraining.yaml, {self.name}"


def pretrain(
    images: np.ndarray,
    labels: np.ndarray,
    rows: np.ndarray,
    recipe: Recipe,
    arch: str,
    norm: str,
    part: Path,
    progress: Callable[[Iterable, int], Iterable] = lambda steps, total: steps,
    save_seconds: float = 60.0,
) -> tuple[dict[str, Tensor], list[float]]:
    """Train a backbone, or go on where an interrupted run with the same arguments stopped.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, s, s, 3)
        May be memory-mapped: a batch is read at a time.
    labels : ndarray of int, shape (n,)
        Only method ``supervised`` looks at them.
    rows : ndarray of int
        The images to train on.
    recipe : Recipe
    arch : str
        See `backbones.build_backbone`.
    norm : str
        See `backbones.normalise`.
    part : Path
        Folder for the state of the unfinished run; the caller removes it once the result is safe.
    progress : callable
        Wraps (steps, number of steps).
    save_seconds : float
        Time between two states.

    Returns
    -------
    state : dict of Tensor
        The backbone, on the CPU.
    losses : list of float
        Mean loss of every epoch.

    Raises
    ------
    InputError
        If the recipe names an unknown method or setting, there are fewer images than one batch, ``supervised``
        meets several labels an image, or the loss stops being finite.
    """
    if recipe.method == "none":
        return build_backbone(arch, recipe.seed).state_dict(), []
    check(recipe, labels, rows)
    strength = settings(recipe, "augmentation", Augmentation, **recipe.augmentation)
    run = Run(recipe, arch, labels[rows])
    state_file = part / "state.pt"
    key = fingerprint(images, labels, rows, recipe, arch, norm)
    run.resume(state_file, key)

    steps_per_epoch = len(rows) // recipe.batch_size
    steps = steps_per_epoch * recipe.epochs
    saved = logged = time.monotonic()
    for batch in progress(batches(rows, recipe, run.step), steps - run.step):
        views = torch.from_numpy(images[batch]).to(run.device).repeat(run.method.views, 1, 1, 1)
        views = normalise(augment(views, strength, generator(recipe.seed, run.step)), norm)
        run.train(views, torch.from_numpy(labels[batch]).to(run.device), steps)
        now = time.monotonic()
        if run.step % steps_per_epoch == 0:
            run.end_epoch(steps_per_epoch)
            if now - logged > LOG_SECONDS or run.step == steps:
                log.info("loss %.4f in epoch %d of %d", run.losses[-1], len(run.losses), recipe.epochs)
                logged = now
        if now - saved > save_seconds:
            run.save(state_file, key)
            saved = now
    return {name: tensor.cpu() for name, tensor in run.method.backbone.state_dict().items()}, run.losses


def check(recipe: Recipe, labels: np.ndarray, rows: np.ndarray) -> None:
    """Refuse an unknown method, and images that the recipe cannot train on."""
    if recipe.method not in METHODS:
        raise InputError(f"{recipe.where}: method is {recipe.method!r}; write none or one of {', '.join(METHODS)}")
    if len(rows) < recipe.batch_size:
        raise InputError(
            f"{recipe.where}: batch_size is {recipe.batch_size}; "
            f"write at most {len(rows)}, the training images of {recipe.dataset}"
        )
    if recipe.method == "supervised" and labels.ndim > 1:
        raise InputError(
            f"{recipe.where}: dataset {recipe.dataset} has several labels an image; "
            "method supervised needs a dataset with one"
        )


def settings(recipe: Recipe, block: str, build: Callable, *arguments, **named):
    """Call `build` with the settings of a block of the recipe; a missing or unknown one is an InputError."""
    try:
        inspect.signature(build).bind(*arguments, **named)
    except TypeError as error:
        raise InputError(f"{recipe.where}: {block} of method {recipe.method}: {error}") from None
    return build(*arguments, **named)


class Run:
    """Everything that changes while a recipe trains."""

    def __init__(self, recipe: Recipe, arch: str, labels: np.ndarray) -> None:
        self.recipe = recipe
        self.device = choose_device()
        head = dict(recipe.head)
        if recipe.method == "supervised":
            head["classes"] = int(labels.max()) + 1
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self.method = settings(recipe, "head", METHODS[recipe.method], build_backbone(arch, recipe.seed), **head)
        self.method.to(self.device, memory_format=torch.channels_last)
        trained = [p for p in self.method.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": recipe.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW(groups, lr=recipe.learning_rate, fused=True)
        self.step = 0
        self.losses: list[float] = []
        self.epoch_loss = torch.zeros((), device=self.device)

    def train(self, views: Tensor, labels: Tensor, steps: int) -> None:
        """Take one of `steps` steps."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.learning_rate * schedule((self.step + 0.5) / steps, self.recipe.warmup)
        loss = self.method(views, labels)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.step += 1
        self.method.after_step(self.step / steps)
        self.epoch_loss += loss.detach()

    def end_epoch(self, steps: int) -> None:
        """Note the mean loss of an epoch of `steps` steps."""
        self.check_loss()
        self.losses.append(self.epoch_loss.item() / steps)
        self.epoch_loss.zero_()

    def check_loss(self) -> None:
        """Raise an InputError if a loss of this epoch was not finite."""
        if not math.isfinite(loss := self.epoch_loss.item()):
            raise InputError(
                f"{self.recipe.where}: the loss is {loss} in epoch {len(self.losses) + 1} of {self.recipe.epochs}; "
                f"write a learning_rate below {self.recipe.learning_rate}"
            )

    def save(self, path: Path, key: str) -> None:
        """Write the state; `key` names the run it belongs to."""
        self.check_loss()
        state = {
            "key": key,
            "method": self.method.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "losses": self.losses,
            "epoch_loss": self.epoch_loss,
        }
        with replacing(path) as temporary:
            torch.save(state, temporary)

    def resume(self, path: Path, key: str) -> None:
        """Read the state if there is one and it belongs to `key`."""
        if not path.exists():
            return
        state = torch.load(path, map_location=self.device, weights_only=True)
        if state["key"] != key:
            log.info("%s is of other settings or images: starting from the beginning", path)
            return
        self.method.load_state_dict(state["method"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.losses, self.epoch_loss = state["step"], state["losses"], state["epoch_loss"]
        log.info("resuming at step %d", self.step)


def schedule(progress: float, warmup: float) -> float:
    """Fraction of the peak learning rate: linear warm-up, then half a cosine; `progress` is in [0, 1)."""
    if progress < warmup:
        return progress / warmup
    return (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup))) / 2


def batches(rows: np.ndarray, recipe: Recipe, first: int) -> Iterator[np.ndarray]:
    """Yield the rows of every step from `first` on; each epoch is a permutation of its own."""
    size = recipe.batch_size
    steps = len(rows) // size
    for epoch in range(first // steps, recipe.epochs):
        order = np.random.default_rng([recipe.seed, epoch]).permutation(rows)
        for start in range((first - epoch * steps if epoch == first // steps else 0), steps):
            # Ascending rows read a memory-mapped file in one direction.
            yield np.sort(order[start * size : (start + 1) * size])


def generator(seed: int, step: int) -> torch.Generator:
    """Return the generator of the views of one step."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence([seed, step]).generate_state(1)[0]))


def fingerprint(images: np.ndarray, labels: np.ndarray, rows: np.ndarray, recipe: Recipe, arch: str, norm: str) -> str:
    """Describe a run so that its state is known again: settings, checksums of labels and of some images."""
    sample = rows[:: max(1, len(rows) // 256)]
    checksums = [zlib.crc32(np.ascontiguousarray(a).data) for a in (rows, labels[rows], images[sample])]
    return json.dumps([asdict(recipe), arch, norm, checksums])

"""Finetuning runs: the grid, whose members share the images of each step, and the refit of the selected one."""

import json
import logging
import math
import resource
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import default_collate

from ssltransfer.datasets.images import parse_transform
from ssltransfer.errors import InputError, first_line
from ssltransfer.jobs import progress
from ssltransfer.models.input_norm import normalise
from ssltransfer.precision import computing_in
from ssltransfer.protocols.finetune.inputs import make_views
from ssltransfer.protocols.finetune.network import Classifier, classification_loss, make_optimiser
from ssltransfer.protocols.finetune.settings import FinetuneSettings, Trial
from ssltransfer.settings import resume_settings
from ssltransfer.training import seed_step, train_members
from ssltransfer.training_batches import batch_rows, iterate_batches
from ssltransfer.training_state import Curve, DivergedError, FinishedRuns, Member, Run

log = logging.getLogger(__name__)

LOSSES = 50
"""Least number of losses that are recorded of a run, where it has so many steps."""
RESERVE = 0.1
"""Part of the free memory that is left to fragments and libraries."""
STATES = {"sgd": 1, "adamw": 2}
"""Tensors of the size of the weights that an optimiser keeps."""
CENTRE = ("centre",)


@dataclass(frozen=True)
class FinetuneData:
    """Labelled images.

    Attributes
    ----------
    read : callable
        Row -> the original image as RGB.
    names : sequence of str
        Names of the images.
    labels : ndarray
        (n,) of int64; (n, classes) of bool or int8 (-1 for pairs that do not count) for several labels per image.
    classes : int
    norm : str
        Input normalisation.
    """

    read: Callable[[int], Image.Image]
    names: Sequence[str]
    labels: np.ndarray
    classes: int
    norm: str


@dataclass(frozen=True)
class Finished:
    """The result of one trial.

    Attributes
    ----------
    trial : Trial
    logits : ndarray of float32, shape (images, classes), or None
        Of the images that it was tested on; None if it diverged.
    losses : list of float
        Training losses (see `training.Curve`).
    """

    trial: Trial
    logits: np.ndarray | None
    losses: list[float]


class Finetuning:
    """The runs of one model on one dataset.

    Parameters
    ----------
    network : Classifier
        The pretrained backbone with its new layer; every run starts from a copy.
    data : FinetuneData
    settings : FinetuneSettings
    run : Run
        Its key describes everything that the result depends on, apart from images, labels and settings.
    device : torch.device
    memory_mib : int, optional
        Memory that the job may use on a CPU; by default all that the grid needs.
    """

    def __init__(
        self,
        network: Classifier,
        data: FinetuneData,
        settings: FinetuneSettings,
        run: Run,
        device: torch.device,
        memory_mib: int | None = None,
    ) -> None:
        self.network, self.data, self.settings, self.device = network, data, settings, device
        self.memory_mib = memory_mib
        self.side, self._centre = parse_transform(settings.transform)
        checksums = [zlib.crc32(np.ascontiguousarray(data.labels).data), zlib.crc32("\n".join(data.names).encode())]
        described = resume_settings("finetune", settings)
        self.run = replace(run, key=json.dumps([described, run.key, data.norm, checksums], sort_keys=True))

    def search(self, trials: Sequence[Trial], train: np.ndarray, validation: np.ndarray) -> list[Finished]:
        """Train all trials on some rows, and test them on others.

        Finished trials are recorded in the resume folder. As many of the others as fit into memory are trained
        together; the rest follow in further passes over the images. A pass that was interrupted goes on first.

        Parameters
        ----------
        trials : sequence of Trial
        train, validation : ndarray of int
            Rows.
        """
        finished = FinishedRuns(self.run.resume_dir, self._key(train, validation))
        names = {trial: "-".join(map(str, trial)) for trial in trials}
        results = {trial: found for trial in trials if (found := _read(finished, trial, names[trial]))}
        todo = [trial for trial in trials if trial not in results]
        if results:
            log.info("%d of %d members have finished before", len(results), len(trials))
        at_once = self._members_at_once(len(todo)) if len(todo) > 1 else 1
        interrupted = finished.begun()
        begun = [trial for trial in trials if names[trial] in interrupted]
        for together in _passes(todo, at_once, begun):
            finished.begin([names[trial] for trial in together])
            label = f"member {len(results) + 1} of {len(trials)}"
            if len(together) > 1:
                label = f"members {len(results) + 1} to {len(results) + len(together)} of {len(trials)}"
            for result in self._train(together, train, validation, label):
                results[result.trial] = result
                arrays = {} if result.logits is None else {"logits": result.logits}
                finished.record(names[result.trial], losses=np.array(result.losses), **arrays)
            finished.end()
        return [results[trial] for trial in trials]

    def refit(self, trial: Trial, train: np.ndarray, test: np.ndarray) -> Finished:
        """Train one trial on some rows from the start, and test it on others.

        Raises
        ------
        InputError
            If it diverges.
        """
        (result,) = self._train([trial], train, test, "refit")
        if result.logits is None:
            raise InputError(
                f"{self.run.config_path}: the refit on training and validation images diverged at the selected "
                f"learning rate {trial.learning_rate:g}; write grid.learning_rates below it"
            )
        return result

    def _train(self, trials: Sequence[Trial], rows: np.ndarray, tested: np.ndarray, label: str) -> list[Finished]:
        settings, data, schedule = self.settings, self.data, self.settings.schedule
        steps, seed = schedule.steps, settings.seed
        networks = [self._start() for _ in trials]
        views = tuple(dict.fromkeys(trial.augmentation for trial in trials))
        log.info("%s: %d steps of %d images", label, steps, min(schedule.batch_size, len(rows)))

        def batches(first: int) -> Iterator:
            order = batch_rows(rows, schedule.batch_size, seed, first, steps, partial=True)
            return self._iterate(order, views)

        def loss(network: Classifier, view: str, batch: tuple[dict[str, Tensor], Tensor], step: int) -> Tensor:
            images, labels = batch
            seed_step(seed, step)  # dropout draws from the global generators
            return classification_loss(network(normalise(images[view], data.norm)), labels)

        members = [
            Member(network, partial(loss, network, trial.augmentation), make_optimiser(network, schedule, trial))
            for network, trial in zip(networks, trials, strict=True)
        ]
        key = json.dumps([self._key(rows, tested), [list(trial) for trial in trials]])
        with naming_batch(schedule.batch_size, self.side, self.run.config_path):
            results = train_members(
                members,
                batches,
                rate_factor(steps, schedule.warmup),
                steps,
                replace(self.run, key=key, progress=lambda made, total: progress(made, f"{label}, steps", total)),
                interval=loss_interval(steps),
                precision=settings.precision,
            )
            sound = [number for number, result in enumerate(results) if isinstance(result, Curve)]
            logits = dict(zip(sound, self.predict([networks[number] for number in sound], tested), strict=True))
        finished = []
        for number, (trial, result) in enumerate(zip(trials, results, strict=True)):
            found = logits.get(number)
            if found is None or not np.isfinite(found).all():
                log.warning("%s: diverged", describe_trial(trial))
                found = None
            finished.append(Finished(trial, found, [] if isinstance(result, DivergedError) else result.losses))
        return finished

    @torch.inference_mode()
    def predict(self, networks: Sequence[Classifier], rows: np.ndarray) -> list[np.ndarray]:
        """Logits of several networks for the centre crops of images, each float32 (rows, classes)."""
        if not networks:
            return []
        for network in networks:
            network.eval()
        size = self.settings.schedule.batch_size
        order = ((number, rows[start : start + size]) for number, start in enumerate(range(0, len(rows), size)))
        logits: list[list[np.ndarray]] = [[] for _ in networks]
        for views, _ in progress(self._iterate(order, CENTRE), "test batches", -(-len(rows) // size)):
            images = normalise(views["centre"], self.data.norm)
            for found, network in zip(logits, networks, strict=True):
                found.append(network(images).float().cpu().numpy())
        return [np.concatenate(found) for found in logits]

    def _iterate(self, order: Iterable[tuple[int, np.ndarray]], views: tuple[str, ...]) -> Iterator:
        """Yield batches: uint8 images by view, and labels."""

        def example(row: int, step: int, generator: np.random.Generator) -> tuple[dict[str, np.ndarray], Any]:
            made = make_views(self.data.read(row), views, self.side, self._centre, generator)
            return made, torch.as_tensor(self.data.labels[row])

        return iterate_batches(
            example,
            order,
            seed=self.settings.seed,
            workers=self.run.workers,
            collate=default_collate,
            device=self.device,
        )

    def _start(self) -> Classifier:
        return self.network.copied().to(self.device, memory_format=torch.channels_last).train()

    def _key(self, *rows: np.ndarray) -> str:
        return json.dumps([self.run.key, [zlib.crc32(np.ascontiguousarray(some).data) for some in rows]])

    def _members_at_once(self, wanted: int) -> int:
        """Number of networks that can be trained together in the free memory, at least 1."""
        if self.device.type == "cpu" and self.memory_mib is None:
            return wanted
        weights = sum(tensor.nbytes for tensor in self.network.state_dict().values())
        each = weights * (1 + STATES[self.settings.schedule.optimiser])
        with naming_batch(self.settings.schedule.batch_size, self.side, self.run.config_path):
            free = self._free_after_step()
        fitting = max(1, min(wanted, int((1 - RESERVE) * free // each)))
        if fitting < wanted:
            log.info(
                "%.1f GiB of memory are free, a network takes %.2f: %d of %d are trained together, the others in "
                "further passes over the images",
                free / 2**30, each / 2**30, fitting, wanted,
            )  # fmt: skip
        return fitting

    def _free_after_step(self) -> int:
        """Bytes of memory beside what one training step takes, which is tried out."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        network = self._start()
        images = torch.zeros(
            self.settings.schedule.batch_size, self.side, self.side, 3, dtype=torch.uint8, device=self.device
        )
        with computing_in(self.settings.precision, self.device):
            network(normalise(images, self.data.norm)).sum().backward()
        if self.device.type == "cpu":
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 2**10)
            return max(0, self.memory_mib * 2**20 - peak) if self.memory_mib else 0
        peak = torch.cuda.max_memory_allocated(self.device)
        del network, images
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info(self.device)
        return free + torch.cuda.memory_reserved(self.device) - peak


def rate_factor(steps: int, warmup: int) -> Callable[[int], float]:
    """Factor on the learning rate at each step: a linear warm-up, then a cosine from 1 to 0.

    Without warm-up it is that of ``CosineAnnealingLR``, stepped after every optimiser step: (1 + cos(pi t / T)) / 2.

    Parameters
    ----------
    steps : int
    warmup : int
        Steps of the warm-up, fewer than all.
    """

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))

    return factor


def loss_interval(steps: int) -> int:
    """Number of steps that are averaged into one recorded loss."""
    return max(1, steps // LOSSES)


def describe_trial(trial: Trial) -> str:
    """Name a trial in messages."""
    layers = f", layer decay {trial.layer_decay:g}" if trial.layer_decay != 1 else ""
    return f"{trial.augmentation}, learning rate {trial.learning_rate:g}, weight decay {trial.weight_decay:g}{layers}"


def _read(finished: FinishedRuns, trial: Trial, name: str) -> Finished | None:
    arrays = finished.read(name)
    return None if arrays is None else Finished(trial, arrays.get("logits"), arrays["losses"].tolist())


def _passes(trials: Sequence[Trial], at_once: int, begun: Sequence[Trial] = ()) -> list[list[Trial]]:
    """Split trials evenly; those of an interrupted pass stay together, unless they do not fit even into the reserve."""
    first: list[list[Trial]] = []
    if begun and set(begun) <= set(trials) and (1 - RESERVE) * len(begun) <= at_once:
        first, trials = [list(begun)], [trial for trial in trials if trial not in begun]
    count = -(-len(trials) // at_once)
    bounds = np.linspace(0, len(trials), count + 1).round().astype(int)
    return first + [list(trials[start:end]) for start, end in pairwise(bounds)]


@contextmanager
def naming_batch(batch_size: int, side: int, config_path: str) -> Iterator[None]:
    """Turn an error for want of memory into one line that names the batch."""
    try:
        yield
    except RuntimeError as error:  # torch's OutOfMemoryError is one; that of a CPU has no class of its own
        if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        raise InputError(
            f"{config_path}: a batch of {batch_size} images of {side} pixels does not fit into memory "
            f"({first_line(error)}); write a settings block with a smaller schedule.batch_size, or use a larger machine"
        ) from None

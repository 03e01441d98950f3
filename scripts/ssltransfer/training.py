"""The training engine of pretraining, detection, normals and inversion: seeded, resumable, on a GPU or one CPU thread.

No random state is carried from step to step: the order of a pass over the data depends on (seed, pass) only, an
example on (seed, step, position). So the state of an unfinished run is its weights, its optimiser and its losses,
and an interrupted run ends as if nothing had happened: to the bit on a CPU.
"""

import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ssltransfer.errors import InputError, first_line
from ssltransfer.files import atomic_write, write_json

log = logging.getLogger("ssltransfer")

LOG_SECONDS = 10.0
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}
"""Precision of the forward pass -> type that `torch.autocast` computes in; weights stay float32."""


def train(
    module: nn.Module,
    loss: Callable[[Any, int], Tensor],
    batches: Callable[[int], Iterable],
    optimiser: torch.optim.Optimizer,
    rate: Callable[[int], float],
    steps: int,
    part: Path,
    key: str,
    *,
    where: str,
    interval: int,
    precision: str = "float32",
    progress: Callable[[Iterable, int], Iterable] = lambda batches, total: batches,
    save_seconds: float = 60.0,
    after_step: Callable[[int], None] = lambda step: None,
) -> list[float]:
    """Train a module, or go on where an interrupted run with the same key stopped.

    Parameters
    ----------
    module : nn.Module
        On its device, its layers in the mode they are to train in.
    loss : callable
        (batch, step) -> scalar Tensor.
    batches : callable
        First step -> the batches from that step on.
    optimiser : torch.optim.Optimizer
        Each parameter group trains at its own learning rate times `rate`.
    rate : callable
        Step -> factor on the learning rates.
    steps : int
        Length of the whole run.
    part : Path
        Folder for the state of the unfinished run; the caller removes it once the result is safe.
    key : str
        Describes everything that the run depends on; the state of another key is left alone.
    where : str
        Place of the settings, for error messages.
    interval : int
        Steps that one recorded loss is the mean of.
    precision : str
        A key of `PRECISIONS`.
    progress : callable
        Wraps (batches, number of batches).
    save_seconds : float
        Time between two states.
    after_step : callable
        Called with the number of steps taken.

    Returns
    -------
    list of float
        Mean loss of every `interval` steps (of the remaining ones at the end).

    Raises
    ------
    InputError
        If the loss stops being finite; after a state is saved, if the job is asked to end (Ctrl-C, SIGTERM, or the end
        of a SLURM job is near).
    """
    run = _Run(module, optimiser, interval, where, part / "state.pt", key)
    run.resume()
    peaks = [group.setdefault("initial_lr", group["lr"]) for group in optimiser.param_groups]
    autocast = PRECISIONS[precision]
    saved = logged = time.monotonic()
    with _asked_to_end() as asked:
        for batch in progress(batches(run.step), steps - run.step):
            for group, peak in zip(optimiser.param_groups, peaks, strict=True):
                group["lr"] = peak * rate(run.step)
            with torch.autocast(run.total.device.type, autocast, enabled=autocast is not None):
                value = loss(batch, run.step)
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
            run.advance(value.detach(), steps)
            after_step(run.step)
            now = time.monotonic()
            if run.losses and (now - logged > LOG_SECONDS or run.step == steps):
                log.info("step %d of %d: loss %.4f", run.step, steps, run.losses[-1])
                logged = now
            if run.step < steps and asked():
                run.save()
                raise InputError(f"{where}: asked to end at step {run.step} of {steps}; run again to go on from there")
            if now - saved > save_seconds:
                run.save()
                saved = time.monotonic()
    return run.losses


def seed_step(seed: int, step: int) -> torch.Generator:
    """Seed the global generators of all devices from (seed, step) alone, and return that of the CPU."""
    return torch.manual_seed(int(np.random.SeedSequence([seed, step]).generate_state(1)[0]))


class _Run:
    """What changes while a module trains."""

    def __init__(self, module, optimiser, interval, where, path, key) -> None:
        self.module, self.optimiser, self.interval = module, optimiser, interval
        self.where, self.path, self.key = where, path, key
        self.step = 0
        self.losses: list[float] = []
        self.total = torch.zeros((), device=next(module.parameters()).device)

    def advance(self, loss: Tensor, steps: int) -> None:
        """Count a step, and note the mean loss when an interval or the run ends."""
        self.total += loss
        self.step += 1
        if self.step % self.interval == 0 or self.step == steps:
            self.check()
            self.losses.append(self.total.item() / (self.step - len(self.losses) * self.interval))
            self.total.zero_()

    def check(self) -> None:
        """Raise an InputError if a loss since the last recorded one was not finite."""
        if not math.isfinite(value := self.total.item()):
            peak = max(group["initial_lr"] for group in self.optimiser.param_groups)
            first = len(self.losses) * self.interval + 1
            raise InputError(
                f"{self.where}: the loss is {value} between steps {first} and {self.step}; "
                f"write a learning_rate below {peak}"
            )

    def save(self) -> None:
        """Write the state."""
        self.check()
        state = {
            "key": self.key,
            "module": self.module.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "losses": self.losses,
            "total": self.total,
        }
        with atomic_write(self.path) as temporary:
            torch.save(state, temporary)

    def resume(self) -> None:
        """Read the state if there is one and it belongs to this run."""
        if not self.path.exists():
            return
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            key = state["key"]
        except Exception as error:  # a damaged file can raise nearly anything
            raise InputError(f"{self.path} is no saved state ({first_line(error)}); delete it to begin anew") from None
        if key != self.key:
            log.info("%s is of other settings or images: starting from the beginning", self.path)
            return
        self.module.load_state_dict(state["module"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.losses = state["step"], state["losses"]
        self.total.copy_(state["total"])
        log.info("resuming at step %d", self.step)


@contextmanager
def _asked_to_end() -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether the job has to end: after a signal, or a minute before its SLURM job does."""
    end = float(os.environ.get("SLURM_JOB_END_TIME", "inf")) - 60.0
    asked = threading.Event()
    in_main = threading.current_thread() is threading.main_thread()
    caught = (signal.SIGTERM, signal.SIGINT) if in_main else ()
    previous = [signal.signal(number, lambda *_: asked.set()) for number in caught]
    try:
        yield lambda: asked.is_set() or time.time() > end
    finally:
        for number, handler in zip(caught, previous, strict=True):
            signal.signal(number, handler)


def stream(rows: np.ndarray, batch_size: int, seed: int, first: int, steps: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (step, rows of its batch) from step `first` on: endless passes over the rows, each in an order of its own.

    Batches run across the ends of passes, so that every batch is full.
    """

    @lru_cache(maxsize=2)
    def order(number: int) -> np.ndarray:
        return np.random.default_rng([seed, number]).permutation(rows)

    for step in range(first, steps):
        places = np.arange(step * batch_size, (step + 1) * batch_size)
        yield step, np.array([order(place // len(rows))[place % len(rows)] for place in places])


class _Examples(Dataset):
    """Examples by (step, position in the batch, row), each with a random generator of its own."""

    def __init__(self, example: Callable, seed: int) -> None:
        self.example, self.seed = example, seed

    def __getitem__(self, place: tuple[int, int, int]):
        step, position, row = place
        return self.example(row, step, np.random.default_rng([self.seed, step, position]))


def _ignore_signals(_: int) -> None:
    """Outlive a signal to the whole job, so that the main process can save its state and end the workers itself."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def load(
    example: Callable[[int, int, np.random.Generator], Any],
    stream: Iterable[tuple[int, np.ndarray]],
    *,
    seed: int,
    workers: int,
    collate: Callable[[list], Any],
    device: torch.device,
) -> Iterator:
    """Yield the batches of a stream, made by worker processes and moved to the device.

    Parameters
    ----------
    example : callable
        (row, step, generator) -> example. The generator depends on (seed, step, position in the batch) only, so that
        the number of workers changes nothing; what a whole batch has to draw alike follows from the step.
    stream : iterable
        See `stream`.
    seed : int
    workers : int
        Processes; 0 makes the examples in this one.
    collate : callable
        List of examples -> batch of tensors in lists, tuples and dicts.
    device : torch.device
    """
    places = ([(step, position, int(row)) for position, row in enumerate(rows)] for step, rows in stream)
    loader = DataLoader(
        _Examples(example, seed),
        batch_sampler=places,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=device.type == "cuda",
        worker_init_fn=_ignore_signals,
    )
    for batch in loader:
        yield to_device(batch, device)


def to_device(batch: Any, device: torch.device) -> Any:
    """Move all tensors of a batch (nested lists, tuples and dicts) to a device."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, list | tuple):
        return type(batch)(to_device(value, device) for value in batch)
    return batch


def save_curve(path: str | Path, interval: int, losses: list[float]) -> None:
    """Write the losses of a run for the report: one value is the mean of `interval` steps."""
    write_json(path, {"interval": interval, "losses": [float(f"{loss:.6g}") for loss in losses]})

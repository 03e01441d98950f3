"""Batches of training examples: their rows, the processes that make them, and their transfer to the device.

The order of a pass over the data depends on (seed, pass) only, an example on (seed, step, position).
"""

import logging
import multiprocessing
import shutil
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ssltransfer.errors import InputError, first_line

log = logging.getLogger("ssltransfer")

LOADER_SECONDS = 300
"""Time after which processes that make no batch are given up."""
SHARED_MEMORY = Path("/dev/shm")  # Linux hands tensors from process to process there


def batch_rows(
    rows: np.ndarray, batch_size: int, seed: int, first: int, steps: int, *, partial: bool = False
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (step, rows of its batch) for the steps `first` to `steps` - 1.

    The rows are passed over again and again, each time in another order. Batches run across the ends of passes, so
    every batch is full; with `partial`, each pass begins a batch of its own and ends with one of those that remain,
    unless that is a single row, which is left out of this pass (batch norm has no statistics of a single row).
    """

    @lru_cache(maxsize=2)
    def order(number: int) -> np.ndarray:
        return np.random.default_rng([seed, number]).permutation(rows)

    if partial:
        batches = max(1, -(-len(rows) // batch_size) - (len(rows) % batch_size == 1))
        for step in range(first, steps):
            number, batch = divmod(step, batches)
            yield step, order(number)[batch * batch_size : (batch + 1) * batch_size]
        return
    for step in range(first, steps):
        places = np.arange(step * batch_size, (step + 1) * batch_size)
        yield step, np.array([order(place // len(rows))[place % len(rows)] for place in places])


class _Examples(Dataset):
    """Examples by (step, position in the batch, row), each with a random generator of its own."""

    def __init__(self, example: Callable, seed: int) -> None:
        self.example, self.seed = example, seed

    def __getitem__(self, place: tuple[int, int, int]) -> Any:
        step, position, row = place
        return self.example(row, step, np.random.default_rng([self.seed, step, position]))


def _ignore_signals(_: int) -> None:
    """Outlive a signal to the whole job, so that the main process can save its state and end the workers itself."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def iterate_batches(
    example: Callable[[int, int, np.random.Generator], Any],
    rows: Iterable[tuple[int, np.ndarray]],
    *,
    seed: int,
    workers: int,
    collate: Callable[[list], Any],
    device: torch.device,
) -> Iterator:
    """Yield batches of examples, made by worker processes and moved to the device.

    Parameters
    ----------
    example : callable
        (row, step, generator) -> example. The generator depends on (seed, step, position in the batch) only, so the
        number of workers does not change the examples; a draw that is common to a batch has to follow from the step.
    rows : iterable
        (step, rows of its batch), see `batch_rows`.
    seed : int
    workers : int
        Number of processes; 0 makes the examples in this one.
    collate : callable
        List of examples -> batch of tensors in lists, tuples and dicts.
    device : torch.device

    Raises
    ------
    InputError
        If the processes fail (most often for want of shared memory), or make no batch for `LOADER_SECONDS`.
    """
    places = ([(step, position, int(row)) for position, row in enumerate(batch)] for step, batch in rows)
    examples = _Examples(example, seed)
    if workers:
        # The first batch is made here, because its size tells for how many processes there is memory.
        first = next(places, None)
        if first is None:
            return
        batch = collate([examples[place] for place in first])
        workers = fitting_workers(workers, batch)
        yield to_device(batch, device)
    loader = DataLoader(
        examples,
        batch_sampler=places,
        num_workers=workers,
        collate_fn=collate,
        worker_init_fn=_ignore_signals,
        timeout=LOADER_SECONDS if workers else 0,
    )
    others = multiprocessing.active_children()
    try:
        for batch in loader:
            yield to_device(batch, device)
    except (RuntimeError, OSError) as error:
        # An error of the example itself names its process and traceback.
        if not workers or isinstance(error, torch.OutOfMemoryError) or str(error).startswith("Caught "):
            raise
        raise InputError(
            f"the {workers} processes that make the training examples failed ({first_line(error)}); is "
            f"{SHARED_MEMORY} too small? A container gets more by --shm-size"
        ) from None
    finally:
        _kill(set(multiprocessing.active_children()) - set(others))


def _kill(processes: Iterable[BaseProcess]) -> None:
    """End loading processes: they ignore a friendly request, so that the interpreter would wait for them for ever."""
    in_main = threading.current_thread() is threading.main_thread()
    # The handler that DataLoader installs takes their end for an error.
    previous = signal.signal(signal.SIGCHLD, signal.SIG_DFL) if in_main else None
    for process in processes:
        process.kill()
        process.join()
    if in_main:
        signal.signal(signal.SIGCHLD, previous)


def fitting_workers(workers: int, batch: Any) -> int:
    """Return how many of so many processes the shared memory can hold the batches of; 0 makes them in the main process.

    Containers often have 64 MiB (docker's default). Each process has up to three batches under way.

    Parameters
    ----------
    workers : int
    batch
        A batch of usual size: tensors in nested lists, tuples and dicts.
    """
    if not SHARED_MEMORY.is_dir():
        return workers
    free, size = shutil.disk_usage(SHARED_MEMORY).free, max(1, _tensor_bytes(batch))
    fitting = max(0, min(workers, (free - 2**20) // (3 * size)))
    if fitting < workers:
        log.warning(
            "%s has %d MiB free, a batch takes %.1f MiB: %d processes make the training examples instead of %d",
            SHARED_MEMORY, free >> 20, size / 2**20, fitting, workers,
        )  # fmt: skip
    return fitting


def _tensor_bytes(batch: Any) -> int:
    if isinstance(batch, Tensor):
        return batch.nbytes
    parts = batch.values() if isinstance(batch, dict) else batch if isinstance(batch, list | tuple) else ()
    return sum(map(_tensor_bytes, parts))


def to_device(batch: Any, device: torch.device) -> Any:
    """Move all tensors of a batch (nested lists, tuples and dicts) from the CPU to a device.

    A copy from memory that is not pinned waits until the GPU has done all its work so far. The loader's own thread for
    pinning would report the end of loading processes that are stopped.
    """
    if isinstance(batch, Tensor):
        return (batch.pin_memory() if device.type == "cuda" else batch).to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, list | tuple):
        return type(batch)(to_device(value, device) for value in batch)
    return batch

"""Training loop of pretraining, finetuning, detection, surface normals and inversion: seeded and resumable.

No random state is carried from step to step: the order of a pass over the data depends on (seed, pass) only, an
example on (seed, step, position). The saved state of an unfinished run is therefore its weights, its optimiser and
its losses, and a resumed run gives the result of an uninterrupted one, on a CPU bit for bit.
"""

import json
import logging
import math
import multiprocessing
import os
import shutil
import signal
import threading
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ssltransfer.errors import InputError, first_line
from ssltransfer.files import atomic_write, read_json, write_json
from ssltransfer.jobs import progress
from ssltransfer.part_folder import part_folder
from ssltransfer.precision import computing_in
from ssltransfer.row_file import load_arrays
from ssltransfer.safe_pickle import check_archive

log = logging.getLogger("ssltransfer")

LOG_SECONDS = 10.0
QUICK_SECONDS = 2.0
"""A state that takes longer to write is written less often, so that writing takes a thirtieth of the time at most."""
END_SECONDS = 60.0
"""Time left to a job at the end of its SLURM job, beside that of writing its state."""
LOADER_SECONDS = 300
"""Time after which processes that make no batch are given up."""
STATE = "state.pt"
"""Name of the saved state in the resume folder."""
SHARED_MEMORY = Path("/dev/shm")  # Linux hands tensors from process to process there


@dataclass(frozen=True)
class Run:
    """Circumstances of a training run; none of them changes a number.

    Attributes
    ----------
    resume_dir : Path
        Folder for the state of the unfinished run.
    key : str
        Describes everything that the result depends on. A saved state with another key is not resumed.
    config_path : str
        Place of the settings in the configuration, for error messages.
    workers : int
        Processes that make the training examples; 0 makes them in this one.
    progress : callable
        Wraps (batches, number of batches).
    save_seconds : float
        Time between two saved states, unless they take long to write (see `QUICK_SECONDS`).
    """

    resume_dir: Path
    key: str
    config_path: str
    workers: int = 0
    progress: Callable[[Iterable, int], Iterable] = lambda batches, total: batches
    save_seconds: float = 60.0


@contextmanager
def resumable(
    output: str | Path, key: str, config_path: str, *, label: str = "steps", workers: int = 0
) -> Iterator[Run]:
    """Yield the run of a job, which holds its resume folder until the block ends (see `part_folder`).

    The outputs have to be written inside the block.

    Parameters
    ----------
    output : str or Path
        The job's main output. The resume folder is ``{output}.part``.
    key, config_path, workers
        See `Run` and `run_key`.
    label : str
        Name of the progress bar.
    """
    with part_folder(output) as part:
        yield Run(part.path, key, config_path, workers, lambda batches, total: progress(batches, label, total))


def run_key(params: Any, *inputs: Any) -> str:
    """Describe what a job's result depends on, apart from its images and settings.

    Parameters
    ----------
    params
        The job's params: ``arch``, ``norm`` and ``version``.
    inputs
        Values that JSON can hold, such as the header of the checkpoint.
    """
    return json.dumps([params.arch, params.norm, params.version, *inputs])


class Curve(NamedTuple):
    """Training losses: each is the mean over `interval` steps (the last over those that remain)."""

    interval: int
    losses: list[float]

    def save(self, path: str | Path) -> None:
        """Write the curve as JSON, for the report."""
        write_json(path, {"interval": self.interval, "losses": [float(f"{loss:.6g}") for loss in self.losses]})


class DivergedError(InputError):
    """A training loss that is not finite."""


class Member(NamedTuple):
    """A module that is trained, alone or beside others on the same batches.

    Attributes
    ----------
    module : nn.Module
        On its device, each layer in the mode it is trained in.
    loss : callable
        (batch, step) -> scalar Tensor.
    optimiser : torch.optim.Optimizer
        The learning rate of each parameter group is multiplied by the common schedule.
    """

    module: nn.Module
    loss: Callable[[Any, int], Tensor]
    optimiser: torch.optim.Optimizer


def train(
    module: nn.Module,
    loss: Callable[[Any, int], Tensor],
    batches: Callable[[int], Iterable],
    optimiser: torch.optim.Optimizer,
    rate: Callable[[int], float],
    steps: int,
    run: Run,
    *,
    interval: int,
    precision: str,
    after_step: Callable[[int], None] = lambda step: None,
) -> Curve:
    """Train a module, or resume an interrupted run with the same key.

    Parameters
    ----------
    module, loss, optimiser
        See `Member`.
    batches, rate, steps, run, interval, precision, after_step
        See `train_members`.

    Raises
    ------
    DivergedError
        If the loss stops being finite.
    InputError
        As `train_members`.
    """
    member = Member(module, loss, optimiser)
    (result,) = train_members(
        [member], batches, rate, steps, run, interval=interval, precision=precision, after_step=after_step
    )
    if isinstance(result, DivergedError):
        raise result
    return result


def train_members(
    members: Sequence[Member],
    batches: Callable[[int], Iterable],
    rate: Callable[[int], float],
    steps: int,
    run: Run,
    *,
    interval: int,
    precision: str,
    after_step: Callable[[int], None] = lambda step: None,
) -> list[Curve | DivergedError]:
    """Train several modules in turn on each batch, or resume an interrupted run with the same key.

    A batch is made once for all. The result of each member is that of the same member trained alone, on a CPU bit for
    bit, as long as its loss seeds what it draws (see `seed_step`).

    Parameters
    ----------
    members : sequence of Member
    batches : callable
        First step -> the batches from that step on.
    rate : callable
        Step -> factor on the learning rates.
    steps : int
        Length of the whole run.
    run : Run
        The caller removes `run.resume_dir` once the result is written (see `resumable`).
    interval : int
        Number of steps averaged into one recorded loss.
    precision : str
        See `precision.computing_in`.
    after_step : callable
        Called with the number of steps taken.

    Returns
    -------
    list of Curve or DivergedError
        For each member its losses, or the error of one whose loss stopped being finite, which is trained no further.

    Raises
    ------
    InputError
        After a state is saved, if the job is asked to end (Ctrl-C, SIGTERM, or the end of a SLURM job is near).
    """
    state = _State(members, interval, run)
    state.resume()
    peaks = [
        [group.setdefault("initial_lr", group["lr"]) for group in member.optimiser.param_groups] for member in members
    ]
    saved = logged = time.monotonic()
    interval_seconds, writing = run.save_seconds, 0.0
    with _asked_to_end() as asked:
        for batch in run.progress(batches(state.step), steps - state.step):
            for number in state.training:
                _, loss, optimiser = members[number]
                for group, peak in zip(optimiser.param_groups, peaks[number], strict=True):
                    group["lr"] = peak * rate(state.step)
                with computing_in(precision, state.device):
                    value = loss(batch, state.step)
                # Autocast chose the types of the backward pass in the forward one already; tf32 is chosen for each.
                with computing_in("float32" if precision == "bfloat16" else precision, state.device):
                    value.backward()
                optimiser.step()
                optimiser.zero_grad()  # here, so that only one member holds gradients
                state.totals[number] += value.detach()
            state.advance(steps)
            if not state.training:
                break
            after_step(state.step)
            now = time.monotonic()
            if now - logged > LOG_SECONDS or state.step == steps:
                state.log(steps)
                logged = now
            ending = state.step < steps and asked(writing)
            if ending or now - saved > interval_seconds:
                state.save()
                saved = time.monotonic()
                writing = saved - now
                interval_seconds = run.save_seconds * max(1.0, writing / QUICK_SECONDS)
            if not state.training:
                break
            if ending:
                raise InputError(
                    f"{run.config_path}: asked to end at step {state.step} of {steps}; run again to go on from there"
                )
    return [state.diverged[number] or Curve(interval, state.losses[number]) for number in range(len(members))]


def seed_step(seed: int, step: int) -> torch.Generator:
    """Seed the global generators of all devices from (seed, step) alone, and return that of the CPU."""
    return torch.manual_seed(int(np.random.SeedSequence([seed, step]).generate_state(1)[0]))


class _State:
    """What changes while modules train."""

    def __init__(self, members: Sequence[Member], interval: int, run: Run) -> None:
        self.members, self.interval = members, interval
        self.path, self.key, self.config_path = run.resume_dir / STATE, run.key, run.config_path
        self.device = next(members[0].module.parameters()).device
        self.step = 0
        self.losses: list[list[float]] = [[] for _ in members]
        self.totals = [torch.zeros((), device=self.device) for _ in members]
        self.diverged: list[DivergedError | None] = [None] * len(members)

    @property
    def training(self) -> list[int]:
        """Numbers of the members that have not diverged."""
        return [number for number, error in enumerate(self.diverged) if error is None]

    def advance(self, steps: int) -> None:
        """Count a step, and note the mean losses when an interval or the run ends."""
        self.step += 1
        if self.step % self.interval and self.step != steps:
            return
        self.check()
        for number in self.training:
            losses, total = self.losses[number], self.totals[number]
            losses.append(total.item() / (self.step - len(losses) * self.interval))
            total.zero_()

    def check(self) -> None:
        """Take out members of which a loss since the last recorded one was not finite."""
        for number in self.training:
            if math.isfinite(value := self.totals[number].item()):
                continue
            peak = max(group["initial_lr"] for group in self.members[number].optimiser.param_groups)
            first = len(self.losses[number]) * self.interval + 1
            self.diverged[number] = DivergedError(
                f"{self.config_path}: the loss is {value} between steps {first} and {self.step}; "
                f"write a learning_rate below {peak}"
            )

    def log(self, steps: int) -> None:
        """Log the mean losses since the last recorded ones, and take out members of which one was not finite."""
        self.check()
        recent = [self._recent(number) for number in self.training]
        if recent:
            ends = f"{min(recent):.4f}" + (f" to {max(recent):.4f}" if len(self.members) > 1 else "")
            log.info("step %d of %d: loss %s", self.step, steps, ends)

    def _recent(self, number: int) -> float:
        losses = self.losses[number]
        steps = self.step - len(losses) * self.interval
        return self.totals[number].item() / steps if steps > 0 else losses[-1]

    def save(self) -> None:
        """Write the state, unless all members have diverged.

        That of a single member has the form of release 0.1.0, which had no others.
        """
        self.check()
        if not self.training:
            return
        first, *others = [self._describe(number) for number in range(len(self.members))]
        state = {"key": self.key, "step": self.step, **first} | ({"others": others} if others else {})
        with atomic_write(self.path) as temporary:
            torch.save(state, temporary)

    def _describe(self, number: int) -> dict:
        member, losses, total = self.members[number], self.losses[number], self.totals[number]
        if error := self.diverged[number]:
            return {"diverged": str(error), "losses": losses}
        tensors = {"module": member.module.state_dict(), "optimiser": member.optimiser.state_dict()}
        return tensors | {"losses": losses, "total": total}

    def resume(self) -> None:
        """Read the state if there is one and it belongs to this run."""
        if not self.path.exists():
            return
        try:
            with zipfile.ZipFile(self.path) as archive:
                check_archive(archive)
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            key = state["key"]
        except Exception as error:  # a damaged file can raise nearly anything
            raise InputError(f"{self.path} is not a valid state ({first_line(error)}); delete it to restart") from None
        if key != self.key:
            log.info("%s is of other settings or images: starting from the beginning", self.path)
            return
        self.step = state["step"]
        for number, found in enumerate([state, *state.get("others", ())]):
            self.losses[number] = found["losses"]
            if "diverged" in found:
                self.diverged[number] = DivergedError(found["diverged"])
                continue
            self.members[number].module.load_state_dict(found["module"])
            self.members[number].optimiser.load_state_dict(found["optimiser"])
            self.totals[number].copy_(found["total"])
        log.info("resuming at step %d", self.step)


class FinishedRuns:
    """Records of the runs that a job of several has finished, each a file of arrays beside the state of others.

    Parameters
    ----------
    folder : Path
        The resume folder of the job (see `resumable`).
    key : str
        Describes everything that the results depend on. A record with another key is not used.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self.key = folder, key

    def record(self, name: str, **arrays: np.ndarray) -> None:
        """Write the result of a finished run."""
        content: dict[str, Any] = {"key": np.array(self.key), **arrays}
        with atomic_write(self._path(name)) as temporary:
            np.savez(temporary, **content)

    def read(self, name: str) -> dict[str, np.ndarray] | None:
        """Return the result of a run; None if it has not finished, or did so with another key.

        Raises
        ------
        InputError
            If the record is damaged.
        """
        path = self._path(name)
        if not path.exists():
            return None
        arrays = load_arrays(path, "the result of a finished run")
        return arrays if str(arrays.pop("key", "")) == self.key else None

    def begin(self, names: Sequence[str]) -> None:
        """Note the runs that are trained together from now on, to which the state belongs."""
        write_json(self._begun, {"key": self.key, "names": list(names)})

    def begun(self) -> list[str]:
        """Names of the runs that were under way when the job was interrupted."""
        if not self._begun.exists():
            return []
        content = read_json(self._begun)
        return content["names"] if content["key"] == self.key else []

    def end(self) -> None:
        """Remove the state of runs whose results are recorded."""
        for path in (self.folder / STATE, self._begun):
            path.unlink(missing_ok=True)

    @property
    def _begun(self) -> Path:
        return self.folder / "begun.json"

    def _path(self, name: str) -> Path:
        return self.folder / f"finished-{name}.npz"


@contextmanager
def _asked_to_end() -> Iterator[Callable[[float], bool]]:
    """Yield a function that says whether the job has to end: after a signal, or shortly before its SLURM job does.

    Its argument are the seconds that writing a state takes. Twice as many and `END_SECONDS` are left.
    """
    end = float(os.environ.get("SLURM_JOB_END_TIME", "inf")) - END_SECONDS
    asked = threading.Event()
    in_main = threading.current_thread() is threading.main_thread()
    caught = (signal.SIGTERM, signal.SIGINT) if in_main else ()
    previous = [signal.signal(number, lambda *_: asked.set()) for number in caught]
    try:
        yield lambda writing: asked.is_set() or time.time() > end - 2 * writing
    finally:
        for number, handler in zip(caught, previous, strict=True):
            signal.signal(number, handler)


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
        pin_memory=device.type == "cuda",
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
    """Move all tensors of a batch (nested lists, tuples and dicts) to a device."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, list | tuple):
        return type(batch)(to_device(value, device) for value in batch)
    return batch

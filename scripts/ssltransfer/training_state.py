"""State of training runs: circumstances, losses, saved state of the unfinished and records of the finished ones."""

import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ssltransfer.errors import InputError, first_line
from ssltransfer.files import atomic_write, read_json, write_json
from ssltransfer.jobs import progress
from ssltransfer.part_folder import part_folder
from ssltransfer.row_file import load_arrays
from ssltransfer.torch_reader import read_torch_file

log = logging.getLogger("ssltransfer")

STATE = "state.pt"
"""Name of the saved state in the resume folder."""


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
        Least time between two saved states, which is longer where they are large or take long to write (see
        `training.train_members`); key ``save_seconds`` of a suite. At 0, a state is saved after each step.
    """

    resume_dir: Path
    key: str
    config_path: str
    workers: int = 0
    progress: Callable[[Iterable, int], Iterable] = lambda batches, total: batches
    save_seconds: float = 60.0


@contextmanager
def resumable(
    output: str | Path,
    key: str,
    config_path: str,
    *,
    label: str = "steps",
    workers: int = 0,
    save_seconds: float = Run.save_seconds,
) -> Iterator[Run]:
    """Yield the run of a job, which holds its resume folder until the block ends (see `part_folder`).

    The outputs have to be written inside the block.

    Parameters
    ----------
    output : str or Path
        The job's main output. The resume folder is ``{output}.part``.
    key, config_path, workers, save_seconds
        See `Run` and `run_key`.
    label : str
        Name of the progress bar.
    """
    with part_folder(output) as part:
        yield Run(part.path, key, config_path, workers, lambda made, total: progress(made, label, total), save_seconds)


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
        write_json(path, {"interval": self.interval, "losses": rounded(self.losses)})


def rounded(losses: Iterable[float]) -> list[float]:
    """Losses with six digits, as files hold them."""
    return [float(f"{loss:.6g}") for loss in losses]


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


class State:
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
            first = len(self.losses[number]) * self.interval + 1
            self._take_out(number, f"the loss is {value} between steps {first} and {self.step}")

    def check_weights(self) -> None:
        """Take out members with weights that are not finite; after the last step no further loss shows them."""
        for number in self.training:
            groups = self.members[number].optimiser.param_groups
            if not all(torch.isfinite(weight).all() for group in groups for weight in group["params"]):
                self._take_out(number, f"weights are not finite after step {self.step}")

    def _take_out(self, number: int, found: str) -> None:
        peak = max(group["initial_lr"] for group in self.members[number].optimiser.param_groups)
        self.diverged[number] = DivergedError(f"{self.config_path}: {found}; write a learning_rate below {peak}")

    def log(self, steps: int) -> None:
        """Log the mean losses since the last recorded ones, and take out members of which one was not finite."""
        self.check()
        recent = [self._recent(number) for number in self.training]
        if recent:
            ends = f"{min(recent):.4f}" + (f" to {max(recent):.4f}" if len(self.members) > 1 else "")
            log.info("step %d of %d: loss %s", self.step, steps, ends)

    def log_member(self, number: int, loss: float, steps: int) -> None:
        """Log the loss of one of several members within a step that takes long."""
        log.info(
            "step %d of %d, network %d of %d: loss %.4f", self.step + 1, steps, number + 1, len(self.members), loss
        )

    def size(self) -> int:
        """Bytes of the saved state; 0 if there is none."""
        return self.path.stat().st_size if self.path.exists() else 0

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
            state = read_torch_file(self.path)
            key = state["key"]
        except Exception as error:  # a damaged file can raise nearly anything
            raise InputError(f"{self.path} is not a valid state ({first_line(error)}); delete it to restart") from None
        if key != self.key:
            log.info("%s belongs to other settings or images: starting from the beginning", self.path)
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

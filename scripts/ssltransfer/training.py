"""Training loop of all protocols that train a network, and of pretraining: seeded and resumable.

No random state is carried from step to step: the order of a pass over the data depends on (seed, pass) only, an
example on (seed, step, position). The saved state of an unfinished run is therefore its weights, its optimiser and
its losses, and a resumed run gives the result of an uninterrupted one, on a CPU bit for bit.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ssltransfer.errors import InputError
from ssltransfer.precision import computing_in
from ssltransfer.training_state import Curve, DivergedError, Member, Run, State

LOG_SECONDS = 10.0
FIRST_SECONDS = 60.0
"""The first state is written after this time at the latest: it tells how long and how large the others are."""
SHARE = 1 / 30
"""Writing states takes this part of the time at most."""
SMALL_BYTES = 60_000_000
"""A larger state is written less often, so that a megabyte is written a second at most, up to `LARGEST` times."""
LARGEST = 15.0
END_SECONDS = 60.0
"""Time left to a job at the end of its SLURM job, beside that of a step and of writing its state."""


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
        If the loss stops being finite, or the weights are not finite at the end.
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
    state = State(members, interval, run)
    state.resume()
    peaks = [
        [group.setdefault("initial_lr", group["lr"]) for group in member.optimiser.param_groups] for member in members
    ]
    saved = logged = shown = began = time.monotonic()
    often = min(run.save_seconds, FIRST_SECONDS)
    interval_seconds, writing = often, 0.0
    with _asked_to_end() as asked:
        for batch in run.progress(batches(state.step), steps - state.step):
            for number in (training := state.training):
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
                # A step of many networks can take minutes; that of the last one is followed by the line of the step.
                if number != training[-1] and time.monotonic() - shown > LOG_SECONDS:
                    state.log_member(number, value.item(), steps)
                    shown = time.monotonic()
            state.advance(steps)
            if not state.training:
                break
            after_step(state.step)
            now = time.monotonic()
            if now - logged > LOG_SECONDS or state.step == steps:
                state.log(steps)
                logged = shown = now
            ending = state.step < steps and asked(now - began + 2 * writing)
            if ending or now - saved > interval_seconds:
                state.save()
                saved = time.monotonic()
                writing = saved - now
                rarer = min(state.size() / SMALL_BYTES, LARGEST)
                interval_seconds = max(run.save_seconds, often * rarer, writing / SHARE) if often > 0 else 0.0
            if not state.training:
                break
            if ending:
                raise InputError(
                    f"{run.config_path}: asked to end at step {state.step} of {steps}; run again to go on from there"
                )
            began = time.monotonic()
    state.check_weights()
    return [state.diverged[number] or Curve(interval, state.losses[number]) for number in range(len(members))]


def seed_step(seed: int, step: int) -> torch.Generator:
    """Seed the global generators of all devices from (seed, step) alone, and return that of the CPU."""
    return torch.manual_seed(int(np.random.SeedSequence([seed, step]).generate_state(1)[0]))


@contextmanager
def _asked_to_end() -> Iterator[Callable[[float], bool]]:
    """Yield a function that says whether the job has to end: after a signal, or shortly before its SLURM job does.

    Its argument are the seconds that a further step and writing its state may take. These and `END_SECONDS` are left.
    """
    end = float(os.environ.get("SLURM_JOB_END_TIME", "inf")) - END_SECONDS
    asked = threading.Event()
    in_main = threading.current_thread() is threading.main_thread()
    caught = (signal.SIGTERM, signal.SIGINT) if in_main else ()
    previous = [signal.signal(number, lambda *_: asked.set()) for number in caught]
    try:
        yield lambda needed: asked.is_set() or time.time() > end - needed
    finally:
        for number, handler in zip(caught, previous, strict=True):
            signal.signal(number, handler)

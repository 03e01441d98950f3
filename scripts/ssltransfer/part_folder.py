"""Folders for the state of unfinished jobs, each held by one job at a time.

Snakemake's own lock ends with Snakemake, but its jobs can outlive it (a lost login on a cluster), so that a rerun
starts a second job for the same output. A file `lock` in the folder names the job that holds it.
"""

import json
import logging
import os
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from ssltransfer.errors import InputError

log = logging.getLogger("ssltransfer")

HEARTBEAT = 30.0
"""Seconds between two signs of life: the time of the lock is set anew."""

PATIENCE = 300.0
"""Seconds without a sign of life after which the lock of another machine's job is taken over."""


class PartFolder(NamedTuple):
    """A folder held by this job.

    Attributes
    ----------
    path : Path
    token : str
        Random name of this hold. Files that are written piece by piece carry it in their names, so that no other job
        can take them for its own, even if both believe that they hold the folder.
    """

    path: Path
    token: str


@dataclass(frozen=True)
class _Holder:
    """The content of a lock.

    Attributes
    ----------
    token : str
    host : str
    machine : str
        Host, boot and process namespace: process numbers can be compared where it is the same.
    pid : int
    started : str
        Start time of the process, because process numbers are used again.
    job : str
        SLURM's number of the job, empty without SLURM.
    """

    token: str = ""
    host: str = "an unknown machine"
    machine: str = ""
    pid: int = 0
    started: str = ""
    job: str = ""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}" + (f", SLURM job {self.job}" if self.job else "")


@contextmanager
def part_folder(output: str | Path) -> Iterator[PartFolder]:
    """Hold the folder ``{output}.part``, which Snakemake does not know of and therefore does not delete.

    The folder is removed when the block ends without an error, so the output has to be written inside the block.
    After an error its content stays, for the next job.

    Raises
    ------
    InputError
        If another job that is alive holds the folder. A job of this machine is alive if its process is; a job of
        another machine if it gave a sign of life within `PATIENCE`, which may have to be waited for.
    """
    folder = Path(f"{output}.part")
    lock = folder / "lock"
    me = _this_job()
    _take(lock, me)
    ended = threading.Event()
    threading.Thread(target=_beat, args=(lock, me, ended), daemon=True).start()
    try:
        yield PartFolder(folder, me.token)
        if _read(lock) == me:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        ended.set()
        if _read(lock) == me:
            lock.unlink(missing_ok=True)
        with suppress(OSError):  # of a folder with content
            folder.rmdir()


def _this_job() -> _Holder:
    parts = [socket.gethostname()]
    with suppress(OSError):  # other systems than Linux
        parts += [
            Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            str(Path("/proc/self/ns/pid").readlink()),
        ]
    pid = os.getpid()
    job = os.environ.get("SLURM_JOB_ID", "")
    return _Holder(secrets.token_hex(8), parts[0], " ".join(parts), pid, _start_time(pid), job)


def _start_time(pid: int) -> str:
    """Start time of a process in ticks since the start of the machine, empty if there is no such process."""
    if Path("/proc/self/stat").exists():
        try:
            state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return ""
        return "" if state in "ZX" else fields[18]
    try:
        os.kill(pid, 0)
    except OSError as error:
        return "" if isinstance(error, ProcessLookupError) else "unknown"
    return "unknown"


def _take(lock: Path, me: _Holder) -> None:
    while True:
        lock.parent.mkdir(parents=True, exist_ok=True)
        try:
            with lock.open("x") as file:
                json.dump(asdict(me), file)
            return
        except FileNotFoundError:  # the folder was removed just now
            continue
        except FileExistsError:
            holder = _read(lock)
        if holder is None:
            continue
        if _alive(lock, holder, me):
            raise InputError(
                f"{lock.parent}: another job ({holder}) is making this output; wait for it or end it, and run again "
                f"(delete {lock} if you are sure that it is gone)"
            )
        log.info("%s was left by a job that is gone (%s)", lock, holder)
        _remove(lock, holder, me)


def _read(lock: Path) -> _Holder | None:
    """Read who holds a folder; None if nobody does, an unknown holder if the lock is still empty or damaged."""
    try:
        return _Holder(**json.loads(lock.read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        return _Holder()


def _alive(lock: Path, holder: _Holder, me: _Holder) -> bool:
    if holder.machine == me.machine:
        return bool(holder.started) and _start_time(holder.pid) == holder.started
    if holder.job and holder.job == me.job:  # requeued by SLURM, on another machine
        return False
    return _gives_signs(lock, me)


def _gives_signs(lock: Path, me: _Holder) -> bool:
    """Watch whether the time of a lock changes before it is older than `PATIENCE`, by the clock of the file system."""
    probe = lock.with_name(f"probe.{me.token}")
    probe.touch()
    now = probe.stat().st_mtime
    probe.unlink()
    first = _time(lock)
    until = time.monotonic() + PATIENCE - max(0.0, now - first)
    while time.monotonic() < until:
        log.info("%s is held by another machine; looking for a sign of life", lock)
        time.sleep(min(HEARTBEAT / 3, max(0.0, until - time.monotonic())))
        if _time(lock) not in (first, 0.0):
            return True
    return False


def _time(lock: Path) -> float:
    """Time of the last change, 0 for a lock that is gone; opened, or a network file system may tell an old one."""
    try:
        with lock.open("rb") as file:
            return os.fstat(file.fileno()).st_mtime
    except FileNotFoundError:
        return 0.0


def _remove(lock: Path, holder: _Holder, me: _Holder) -> None:
    """Remove a lock, unless another job has taken its place meanwhile."""
    aside = lock.with_name(f"lock.{me.token}")
    try:
        lock.rename(aside)
    except FileNotFoundError:
        return
    if _read(aside) != holder:
        with suppress(OSError):
            os.link(aside, lock)
    aside.unlink()


def _beat(lock: Path, me: _Holder, ended: threading.Event) -> None:
    while not ended.wait(HEARTBEAT):
        with suppress(OSError):
            if _read(lock) == me:
                os.utime(lock)

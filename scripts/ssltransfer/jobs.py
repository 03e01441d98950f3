"""Job wrapper: one-line errors, log file, progress, resource usage."""

import contextlib
import errno
import json
import logging
import os
import platform
import resource
import sys
import textwrap
import threading
import time
import traceback
import uuid
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from operator import length_hint
from pathlib import Path
from typing import NoReturn

from ssltransfer.errors import InputError, first_line, one_line

log = logging.getLogger("ssltransfer")

RUN = uuid.uuid4().hex
"""Token of this run of this job: two runs of one job never have the same."""

GPU_UNUSED = "the GPU is not used: "
"""Beginning of the line in a log that says why a job computed on the CPU although there is a GPU."""

LOG_INTERVAL = 30.0
"""Seconds between two lines of progress in a log."""

MEMORY_INTERVAL = 2.0
"""Seconds between two looks at the memory of a job that has several processes."""
MEMORY_EFFORT = 0.005
"""Largest part of a core that these looks may take: a process of many gigabytes takes a tenth of a second."""

#: Errors of the machine, reported without traceback.
MACHINE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}


@contextlib.contextmanager
def job(log_file: str) -> Iterator[None]:
    """Run a job: log to a file, and turn an error into one line on stderr and exit code 1.

    The traceback of anything but an `InputError`, a full disk, a missing permission or a full GPU goes to the log.
    The last line of the log of a finished job is its cost (see `ssltransfer.report.provenance`).
    """
    cost = JobUsage()
    logging.raiseExceptions = False  # logging must not raise on a full disk
    try:
        logging.basicConfig(
            format="%(asctime)s %(message)s",
            level=logging.INFO,
            filename=log_file,
            filemode="w",
            encoding="utf-8",
        )
        with _watching_memory():
            yield
        log.info("cost %s", json.dumps(cost.report()))
    except KeyboardInterrupt:
        log.error("interrupted")
        raise
    except InputError as error:
        _end(one_line(error))
    except Exception as error:
        if _machine(error):
            _end(f"{first_line(error)}; check free space and write permission")
        if type(error).__name__ == "OutOfMemoryError":  # torch's, which most jobs do not import
            _end(f"{first_line(error)}; GPU memory is exhausted: stop other jobs on it or use a larger GPU")
        log.error("%s", textwrap.indent(traceback.format_exc(), " "))
        _end(f"{type(error).__name__}: {one_line(error)}", f" (traceback in {log_file})")


ERROR = "Error: "
"""Beginning of the last line of the log of a job that failed."""


def _end(text: str, where: str = "") -> NoReturn:
    """End the job with an error, in the log and on stderr."""
    log.error("%s", ERROR + text)
    sys.exit(f"{ERROR}{text}{where}")


def _machine(error: Exception) -> bool:
    """Whether an error is one of the machine; some libraries give no errno, only a message (the last is numpy's)."""
    words = ("No space left on device", "Disk quota exceeded", "requested and")
    return (isinstance(error, OSError) and error.errno in MACHINE_ERRORS) or any(word in str(error) for word in words)


def progress(iterable: Iterable, label: str, total: int | None = None) -> Iterator:
    """Iterate with a bar on a terminal, and with a line in the log every `LOG_INTERVAL` seconds."""
    from tqdm import tqdm  # this module is read by the workflow too, which needs no more than Snakemake brings

    total = length_hint(iterable) if total is None else total
    last = time.monotonic()
    bar = tqdm(iterable, desc=label, total=total, disable=not sys.stderr.isatty(), leave=False)
    for count, item in enumerate(bar, start=1):
        yield item
        if time.monotonic() - last > LOG_INTERVAL:
            last = time.monotonic()
            log.info("%s: %d of %d", label, count, total)


class JobUsage:
    """Seconds and peak memory of a job, from creation to `report`."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def report(self) -> dict:
        """Return wall seconds, peak memory of the job and of the GPU in MiB, the machine, and the device used.

        The memory of the job is that of its process, or where it was seen to be more, that of all its processes (see
        `_tree_memory`).
        """
        return {
            "seconds": round(time.perf_counter() - self._start, 3),
            "peak_memory_mib": _peak_memory_mib(),
            "machine": machine(),
            "device": "cuda" if _gpu_used() else "cpu",
            **_device_memory(),
        }


def _peak_memory_mib() -> int:
    """Peak memory of this job.

    Of this process Linux says it itself: getrusage gives that of the program which started it, if that was larger.
    """
    peak = _process_memory("self", "status", "VmHWM")
    if not peak:  # macOS counts in bytes, other systems in KiB
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 2**10)
    return round(max([peak, *_SEEN]) / 2**20)


_SEEN: list[int] = []
"""Largest memory of all processes of this job that was seen so far, in bytes; empty if it had a single one."""


@contextlib.contextmanager
def _watching_memory() -> Iterator[None]:
    """Look at the memory of all processes of this job from time to time."""
    ended = threading.Event()

    def watch() -> None:
        pause = MEMORY_INTERVAL
        while not ended.wait(pause):
            start = time.thread_time()
            if memory := _tree_memory():
                _SEEN[:] = [max([memory, *_SEEN])]
            pause = max(MEMORY_INTERVAL, (time.thread_time() - start) / MEMORY_EFFORT)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _tree_memory() -> int:
    """Bytes of this process and those that it started, a page that they share counted once.

    0 where it started none, or where there is no ``/proc/PID/smaps_rollup`` (other systems than Linux).
    """
    started = _descendants("self")
    return sum(_process_memory(process, "smaps_rollup", "Pss") for process in ["self", *started]) if started else 0


def _descendants(process: str) -> list[str]:
    children: list[str] = []
    with contextlib.suppress(OSError):  # of a process that has just ended
        for path in Path(f"/proc/{process}/task").glob("*/children"):
            children += path.read_text().split()
    return children + [further for child in children for further in _descendants(child)]


def _process_memory(process: str, file: str, key: str) -> int:
    """Bytes that a file in /proc names; 0 where it or the process is not there."""
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{process}/{file}").read_text().splitlines()
        return next((int(line.split()[1]) << 10 for line in lines if line.startswith(f"{key}:")), 0)
    return 0


def _device_memory() -> dict[str, int]:
    """Peak memory that torch held on the GPU, in MiB; empty without a GPU."""
    return {"device_memory_mib": sys.modules["torch"].cuda.max_memory_reserved() >> 20} if _gpu_used() else {}


def machine() -> str:
    """Describe the machine: processor, cores, memory, and the GPU if this job used one."""
    names = []
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    parts = [next(iter(names), platform.machine()), f"{os.cpu_count()} cores", f"{memory:.0f} GiB"]
    if _gpu_used():
        parts.append(sys.modules["torch"].cuda.get_device_name())
    return ", ".join(parts)


def _gpu_used() -> bool:
    """Whether this job used a GPU; asked without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and torch.cuda.is_initialized()


def package_versions(*packages: str) -> dict[str, str]:
    """Return the versions of Python and of the named packages, where installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def network_packages() -> list[str]:
    """Return the package that built the network of this process, where that is not torch alone: timm or nothing."""
    return ["timm"] if "timm" in sys.modules else []

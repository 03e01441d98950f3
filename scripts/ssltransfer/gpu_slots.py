"""Jobs share the GPUs of a machine: each takes the one on which fewest of the user's jobs run.

How many jobs run side by side is Snakemake's decision; it counts GPUs, but does not say which one a job is to use.
"""

import fcntl
import os
import tempfile
from collections.abc import Sequence
from itertools import count
from pathlib import Path

_held: list[int] = []
"""Descriptors of the slots of this process. The kernel frees a slot when its process ends, in whatever way."""


def slots_folder() -> Path:
    """Return the folder of the slots, one for each user, on a disk of this machine."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    base = runtime if os.access(runtime or "/nonexistent", os.W_OK) else tempfile.gettempdir()
    return Path(base) / f"ssltransfer-gpus-{os.getuid()}"


def take_slot(gpus: Sequence[str]) -> str:
    """Take a free slot of a GPU until this process ends: the first of any GPU, else the second of any, and so on.

    Parameters
    ----------
    gpus : sequence of str
        Names of the GPUs.

    Returns
    -------
    str
        The name of the GPU.
    """
    folder = slots_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for number in count(1):
        for gpu in gpus:
            descriptor = os.open(folder / f"{gpu.replace('/', '_')}.{number}", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                continue
            _held.append(descriptor)
            return gpu
    raise AssertionError("unreachable")

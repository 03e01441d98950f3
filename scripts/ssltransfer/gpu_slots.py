"""Jobs share the GPUs of a machine: each takes the one on which fewest of the user's jobs run.

How many jobs run side by side is Snakemake's decision; it counts GPUs, but does not say which one a job is to use.
"""

import contextlib
import fcntl
import os
import stat
import tempfile
from collections.abc import Mapping
from itertools import count
from pathlib import Path

from ssltransfer.errors import InputError

_held: list[int] = []
"""Descriptors of the slots of this process. The kernel frees a slot when its process ends, in whatever way."""


def _leave_to_parent() -> None:
    """Close the slots in a forked process (one that loads images), which may outlive its parent; the parent's stay."""
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_leave_to_parent)


def slots_folder() -> Path:
    """Return the folder of this user's slots on this machine; it is made where it is missing.

    Not in XDG_RUNTIME_DIR, which is removed when the user logs out although jobs may go on.

    Raises
    ------
    InputError
        If others may write into what has its name.
    """
    folder = Path(tempfile.gettempdir()) / f"ssltransfer-gpus-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise InputError(
            f"{folder}: expected a folder that only you can open (mode 0700), to take one of several GPUs; remove it, "
            "or set TMPDIR to another folder"
        )
    return folder


def take_slot(gpus: Mapping[str, str]) -> str:
    """Take a free slot of a GPU until this process ends: the first of any GPU, else the second of any, and so on.

    Parameters
    ----------
    gpus : mapping of str to str
        Name of each GPU -> name of its lock, which is the same in all runs on this machine.

    Returns
    -------
    str
        The name of the GPU.

    Raises
    ------
    InputError
        If there is no safe folder for the locks.
    """
    folder = slots_folder()
    for number in count(1):
        for gpu, lock in gpus.items():
            descriptor = os.open(folder / f"{lock.replace('/', '_')}.{number}", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                continue
            _held.append(descriptor)
            return gpu
    raise AssertionError("unreachable")

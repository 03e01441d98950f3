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
    """Take a slot of the GPU with the fewest taken ones, of several the first, until this process ends.

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
        If there is no safe folder for the locks, or its file system has none.
    """
    folder = slots_folder()
    turn = _lock(folder / "turn", wait=True)  # one process looks at a time
    try:
        slots = {gpu: _find_slot(folder, lock.replace("/", "_")) for gpu, lock in gpus.items()}
        chosen = min(slots, key=lambda gpu: slots[gpu][0])
        _held.append(slots.pop(chosen)[1])
        for _, descriptor in slots.values():
            os.close(descriptor)
    finally:
        os.close(turn)
    return chosen


def _find_slot(folder: Path, name: str) -> tuple[int, int]:
    """Return how many slots of a GPU are taken, and the descriptor of a free one, locked for this process."""
    taken, free = 0, -1
    for number in count(1):
        path = folder / f"{name}.{number}"
        if free >= 0 and not path.exists():  # only a GPU without a free slot gets another one
            break
        if (descriptor := _lock(path)) < 0:
            taken += 1
        elif free < 0:
            free = descriptor
        else:
            os.close(descriptor)
    return taken, free


def _lock(path: Path, wait: bool = False) -> int:
    """Lock a file, and return its descriptor; -1 if another process has it, unless this one is to wait for it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(descriptor)
        return -1
    except OSError as error:
        os.close(descriptor)
        raise InputError(
            f"{path}: cannot be locked, to take one of several GPUs ({error.strerror}); set TMPDIR to a folder of a "
            "local disk"
        ) from None
    return descriptor

"""The one place that chooses between GPU and CPU.

torch is imported only where it is needed: on a machine without GPU, a job on cached features starts 2 s earlier
without it. The workflow's rules ask for a GPU by `has_gpu`, so this module is light.
"""

import ctypes
import os
import re
import shutil
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from ssltransfer.errors import InputError, first_line
from ssltransfer.gpu_slots import take_slot
from ssltransfer.jobs import GPU_UNUSED, log

if TYPE_CHECKING:
    import torch

    from ssltransfer.array_backend import Arrays


DRIVER = Path("/dev/nvidiactl")
HIDDEN = ("", "-1", "NoDevFiles")
"""Values of CUDA_VISIBLE_DEVICES that keep GPUs from a process; the last is SLURM's."""
SLURM_GRANTS = ("SLURM_JOB_GPUS", "SLURM_STEP_GPUS")
GRANTS = ("CUDA_VISIBLE_DEVICES", *SLURM_GRANTS)
"""Environment variables that name the GPUs which a process was given."""
DRIVER_SECONDS = 60
"""On a machine of many GPUs without persistence mode, the driver takes tens of seconds for its first answer."""
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of mallopt (malloc.h)."""


def has_gpu() -> bool:
    """Whether this machine has a GPU that jobs may use, asked without torch; CUDA_VISIBLE_DEVICES= forbids it.

    One that was granted is believed to be there, whatever the driver's program says.
    """
    driver = shutil.which("nvidia-smi") is not None or DRIVER.exists()
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES") not in HIDDEN
    return driver and allowed and (bool(granted_gpu()) or not driver_problem())


def list_gpus() -> list[str]:
    """Return the GPUs that jobs on this machine may use, as CUDA_VISIBLE_DEVICES names them; empty if there is none.

    These are the entries of CUDA_VISIBLE_DEVICES, otherwise the identifiers that the driver gives (of the parts, where
    a GPU is divided). Where no program tells them, there is one GPU, ``0``.
    """
    if not has_gpu():
        return []
    if visible := os.environ.get("CUDA_VISIBLE_DEVICES"):
        return [name.strip() for name in visible.split(",") if name.strip()]
    devices = dict.fromkeys(_identifiers().values())
    return sorted(devices, key=lambda name: name.startswith("MIG-")) or ["0"]


def _identifiers() -> dict[str, str]:
    """Return each name that CUDA may be given for a device -> the driver's identifier.

    CUDA computes on the first part of a divided GPU, where the index or identifier of the GPU is given.
    """
    names: dict[str, str] = {}
    for gpu in re.split(r"\n(?=GPU )", _ask_driver()[1]):
        if whole := re.match(r"GPU (\d+): .*UUID: (GPU-[^)\s]+)", gpu):
            parts = re.findall(r"UUID: (MIG-[^)\s]+)", gpu)
            names |= dict.fromkeys(whole.groups(), (parts or [whole[2]])[0]) | {part: part for part in parts}
    return names


def lock_name(gpu: str) -> str:
    """Return a name of a GPU that all runs on this machine share, whichever name CUDA_VISIBLE_DEVICES has for it.

    Identifiers may be abbreviated there. An index that the driver does not tell has a meaning within its SLURM job
    only.
    """
    names = _identifiers()
    known = gpu if gpu.isdigit() else next((name for name in names if name.startswith(gpu)), gpu)
    return names.get(known) or ".".join(filter(None, (os.environ.get("SLURM_JOB_ID"), gpu)))


def driver_problem() -> str:
    """Return the reason why the NVIDIA driver does not answer; empty if it does, or without a program to ask it."""
    return _ask_driver()[0]


@lru_cache(maxsize=1)
def _ask_driver() -> tuple[str, str]:
    """Return the reason why the driver does not answer, and its list of GPUs."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return "", ""
    try:
        done = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=DRIVER_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"nvidia-smi does not answer within {DRIVER_SECONDS} seconds", ""
    except OSError as error:
        return f"nvidia-smi cannot be run: {first_line(error)}", ""
    if done.returncode == 0 and "GPU" in done.stdout:
        return "", done.stdout
    said = (done.stdout + done.stderr).strip().splitlines()
    return (f"nvidia-smi says: {said[0]}" if said else f"nvidia-smi ends with exit code {done.returncode}"), ""


def granted_gpu() -> str:
    """Return the setting by which this process was given a GPU, as ``NAME=VALUE``; empty if it was given none."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in HIDDEN:
        return ""
    return next((f"{name}={value}" for name in GRANTS if (value := os.environ.get(name))), "")


def choose_device(threads: int = 1) -> "torch.device":
    """Return the GPU if there is one, otherwise the CPU with `threads` threads.

    Training leaves `threads` at 1: on a CPU its result depends on the number of threads (sums are split
    differently and the difference grows from step to step). Inference may use as many as its job was given.

    Of several GPUs, each job takes one (see `take_gpu`). Convolutions are deterministic there and all products are
    computed in full float32, so that the features of CPU and GPU differ by rounding only. Training draws other random
    numbers on each.

    Raises
    ------
    InputError
        If there is a GPU that does not compute, or none that torch can use although one was granted.
    """
    import torch

    grant = granted_gpu()
    take_gpu()
    # Snakemake counts no GPU where the driver does not answer, and would start as many jobs on it as there are cores.
    if torch.cuda.is_available() and (grant or not driver_problem() or torch.cuda.is_initialized()):
        try:
            torch.ones(1, device="cuda").add(1).item()
        except RuntimeError as error:
            raise InputError(
                f"the GPU does not compute ({first_line(error)}); is it busy or full, or not one that torch "
                f"{torch.__version__} was built for? CUDA_VISIBLE_DEVICES= computes on the CPU"
            ) from None
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
        log.info("on the GPU (%s)", torch.cuda.get_device_name())
        return torch.device("cuda")
    if grant:
        raise InputError(
            f"{grant} grants a GPU, but torch {torch.__version__} finds none that it can use (nvidia-smi shows whether "
            "the driver answers, and its version: README.md names the one that is needed); CUDA_VISIBLE_DEVICES= "
            "computes on the CPU"
        )
    if problem := driver_problem():
        log.warning("%s%s", GPU_UNUSED, problem)
    elif has_gpu():
        log.warning("%storch %s cannot use it (driver? build without CUDA?)", GPU_UNUSED, torch.__version__)
    keep_freed_memory()
    torch.set_num_threads(threads)
    log.info("on the CPU (threads: %d)", threads)
    return torch.device("cpu")


def take_gpu() -> None:
    """Show this process one of several GPUs only, the one with the fewest of this user's jobs, until it ends.

    A single GPU stays as it was assigned, and so does the GPU of a process that computes on one already.
    """
    torch = sys.modules.get("torch")
    computing = torch is not None and torch.cuda.is_initialized()
    gpus = list_gpus()
    if len(gpus) > 1 and not computing:
        os.environ["CUDA_VISIBLE_DEVICES"] = taken = take_slot({gpu: lock_name(gpu) for gpu in gpus})
        log.info("takes GPU %s, one of %d", taken, len(gpus))


def keep_freed_memory() -> None:
    """Make glibc's malloc reuse large blocks instead of handing them back to the system; nothing on other systems.

    By default every activation of a ResNet-50 is a new mapping, whose pages the kernel clears again for each batch:
    about a quarter of the processor time of extracting features.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def choose_arrays() -> "Arrays":
    """Return torch's arrays on the GPU if there is one, otherwise numpy's."""
    from ssltransfer.array_backend import NUMPY, Arrays

    if not granted_gpu() and not has_gpu():  # spares the import of torch
        if problem := driver_problem():
            log.warning("%s%s", GPU_UNUSED, problem)
        return NUMPY
    device = choose_device()
    if device.type == "cpu":
        return NUMPY
    import torch

    return Arrays(torch, device)

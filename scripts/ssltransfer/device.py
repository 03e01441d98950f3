"""The one place that chooses between GPU and CPU.

torch is imported only where it is needed: on a machine without GPU, a job on cached features starts 2 s earlier
without it.
"""

import shutil
from typing import TYPE_CHECKING

from ssltransfer.arrays import NUMPY, Arrays

if TYPE_CHECKING:
    import torch


def choose_device(threads: int = 1) -> "torch.device":
    """Return the GPU if there is one, otherwise the CPU with `threads` threads.

    Training leaves `threads` at 1: on a CPU its result depends on the number of threads (sums are split
    differently and the difference grows from step to step). Inference may use as many as its job was given.

    On a GPU, convolutions are deterministic and all products are computed in full float32, so that CPU and
    GPU differ by rounding only.
    """
    import torch

    if torch.cuda.is_available():
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
        return torch.device("cuda")
    torch.set_num_threads(threads)
    return torch.device("cpu")


def choose_arrays() -> Arrays:
    """Return torch's arrays on the GPU if there is one, otherwise numpy's."""
    if shutil.which("nvidia-smi") is None:  # no driver, no GPU: spares the import of torch
        return NUMPY
    device = choose_device()
    if device.type == "cpu":
        return NUMPY
    import torch

    return Arrays(torch, device)

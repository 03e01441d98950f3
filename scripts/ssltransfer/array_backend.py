"""Array backend: numpy, or torch on a GPU, for code that runs on either.

Functions with the same name in both are called through `xp`, the module; `Arrays` wraps the few that differ. torch is
not imported here: `ssltransfer.device` passes it in where there is a GPU.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

Array = Any
"""An array of numpy, or a tensor of torch."""


@dataclass(frozen=True)
class Arrays:
    """A module for arrays and the device that holds them.

    Attributes
    ----------
    xp : module
        numpy or torch.
    device : torch.device, optional
    part : float
        Part of the memory that this computation may use, beside others that are held at the same time.
    """

    xp: ModuleType = np
    device: object = None
    part: float = 1.0

    def place(self, values: np.ndarray, dtype: str = "float64") -> Array:
        """Bring a numpy array to the device."""
        if self.xp is np:
            return np.asarray(values, dtype)
        return self.xp.tensor(values, device=self.device).to(getattr(self.xp, dtype))

    def cast(self, array: Array, dtype: str) -> Array:
        """Change the type of an array where it is."""
        return self.xp.asarray(array, dtype=getattr(self.xp, dtype))

    def empty(self, shape: tuple[int, ...]) -> Array:
        """Return an uninitialised float64 array."""
        return np.empty(shape) if self.xp is np else self.xp.empty(shape, dtype=self.xp.float64, device=self.device)

    def largest(self, values: Array, count: int) -> tuple[Array, Array]:
        """Return the `count` largest values of each row of a matrix, in no order, and their columns."""
        if self.xp is not np:
            return tuple(self.xp.topk(values, count, dim=1, sorted=False))
        columns = np.argpartition(values, values.shape[1] - count, axis=1)[:, values.shape[1] - count :]
        return self.take(values, columns), columns

    def take(self, values: Array, columns: Array) -> Array:
        """Return the values of each row of a matrix in these columns (m, c)."""
        return np.take_along_axis(values, columns, 1) if self.xp is np else self.xp.take_along_dim(values, columns, 1)

    def numpy(self, array: Array) -> np.ndarray:
        """Bring an array back."""
        return array if self.xp is np else array.cpu().numpy()

    def memory(self) -> int:
        """Bytes that this computation may use: of the GPU's free ones, else of the machine's or its control group's."""
        return int(self.part * self._memory())

    def _memory(self) -> int:
        if getattr(self.device, "type", "cpu") == "cuda":
            cuda = self.xp.cuda
            cached = cuda.memory_reserved(self.device) - cuda.memory_allocated(self.device)
            return cuda.mem_get_info(self.device)[0] + cached  # memory that torch freed but keeps reserved
        return min([os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *_group_limits()])


def _group_limits() -> list[int]:
    """Memory limits of the control groups (version 2) that this process is in; schedulers and containers set them."""
    try:
        group = next(line[4:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line[:3] == "0::")
    except (OSError, StopIteration):
        return []
    root = Path("/sys/fs/cgroup")
    lowest = root / group
    files = [folder / "memory.max" for folder in (lowest, *lowest.parents) if folder.is_relative_to(root)]
    limits = [file.read_text().strip() for file in files if file.is_file()]
    return [int(limit) for limit in limits if limit.isdigit()]


NUMPY = Arrays()

"""Batches of images of the same orientation, so that little of a batch is padding."""

from collections.abc import Iterator
from functools import lru_cache
from itertools import count

import numpy as np


def grouped_rows(
    rows: np.ndarray, groups: np.ndarray, batch_size: int, seed: int, first: int, steps: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (step, rows of its batch) for the steps `first` to `steps` - 1, all rows of a batch from one group.

    The rows are passed over again and again, each time in another order, and wait in the queue of their group; the
    next batch is of the group that first has enough. This follows from the seed alone, so that a run that begins at
    `first` meets the batches of an uninterrupted one. With one group these are the batches of
    `training_batches.batch_rows`.

    Parameters
    ----------
    rows : ndarray of int
    groups : ndarray of int
        Group of each row, such as portrait or landscape.
    batch_size, seed, first, steps : int
    """

    @lru_cache(maxsize=1)
    def order(number: int) -> np.ndarray:
        return np.random.default_rng([seed, number]).permutation(len(rows))

    queues: dict[int, list[int]] = {}
    step = 0
    for place in count():
        if step >= steps:
            return
        number = order(place // len(rows))[place % len(rows)]
        queue = queues.setdefault(int(groups[number]), [])
        queue.append(int(rows[number]))
        if len(queue) == batch_size:
            if step >= first:
                yield step, np.array(queue)
            queue.clear()
            step += 1

"""Input images of the detector: scaling, flipping and order, with the arithmetic of detectron2."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ssltransfer.datasets.images import image_size, read_image
from ssltransfer.jobs import progress
from ssltransfer.protocols.detection.objects import Annotations
from ssltransfer.protocols.detection.settings import Sides

AHEAD = 2
"""Number of test batches that are decoded in advance."""
#: Threads that read the headers of images, and that decode test images.
HEADER_THREADS, DECODING_THREADS = 8, 2


def image_sizes(root: Path, references: Sequence[str]) -> np.ndarray:
    """Read the (width, height) of images from their headers: int (n, 2). InputError if one cannot be read."""
    with ThreadPoolExecutor(HEADER_THREADS) as pool:
        sizes = progress(pool.map(partial(image_size, root), references), "sizes of images", len(references))
        return np.array(list(sizes), dtype=np.int64).reshape(-1, 2)


def scaled_size(width: int, height: int, short: int, longest: int) -> tuple[int, int]:
    """Return the (width, height) whose shorter side is `short`, or less where the longer one would exceed `longest`.

    Parameters
    ----------
    width, height, short, longest : int
        Pixels.
    """
    scale = short / min(width, height)
    # The shorter side is set, not computed, which decides some roundings.
    new = (scale * width, float(short)) if height < width else (float(short), scale * height)
    if max(new) > longest:
        shrink = longest / max(new)
        new = (new[0] * shrink, new[1] * shrink)
    return int(new[0] + 0.5), int(new[1] + 0.5)


def as_tensor(image: Image.Image) -> Tensor:
    """Convert an RGB image to uint8 (3, h, w)."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


@dataclass(frozen=True)
class TrainingImages:
    """Makes training examples; called by the workers of the loader.

    Attributes
    ----------
    root : Path
        Folder that the references start from.
    references : sequence of str
    annotations : Annotations
    sides : Sides
    """

    root: Path
    references: Sequence[str]
    annotations: Annotations
    sides: Sides

    def __call__(self, row: int, step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """Return ``image`` uint8 (3, h, w), ``boxes`` float32 (k, 4) and ``labels`` int64 (k,) of a row.

        The size is drawn, and whether the image is flipped; difficult objects train like all others.
        """
        image = read_image(self.root, self.references[row])
        short = self.sides.train[rng.integers(len(self.sides.train))]
        new = scaled_size(*image.size, short, self.sides.longest)
        scale = np.divide(new, image.size)
        box = self.annotations.box[row] * np.tile(scale, 2)
        if new != image.size:
            image = image.resize(new, Image.Resampling.BILINEAR)
        if rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            box = np.stack([new[0] - box[:, 2], box[:, 1], new[0] - box[:, 0], box[:, 3]], axis=1)
        box = np.clip(box, 0, np.tile(new, 2))
        some = (box[:, 2:] - box[:, :2] > 1e-5).all(axis=1)
        return {
            "image": as_tensor(image),
            "boxes": torch.from_numpy(box[some].astype(np.float32)),
            "labels": torch.from_numpy(self.annotations.label[row][some]),
        }


def collate(examples: list[dict[str, Tensor]]) -> dict[str, list[Tensor]]:
    """Make a batch: images differ in size, so they stay in a list."""
    return {name: [example[name] for example in examples] for name in examples[0]}


def oriented_batches(
    rows: np.ndarray, wide: np.ndarray, batch_size: int, seed: int, first: int, steps: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (step, rows of its batch) for the steps `first` to `steps` - 1, with one orientation per batch.

    Shuffled passes over the rows fill one queue of wide and one of tall images; a full queue becomes a batch. So
    batches need little padding.

    Parameters
    ----------
    rows : ndarray of int
    wide : ndarray of bool
        Whether each of `rows` is wider than high.
    batch_size, seed, first, steps : int
        The order depends on the seed only; a later `first` skips the beginning.
    """
    step, number = 0, 0
    queues: tuple[list[int], list[int]] = ([], [])
    while step < steps:
        for place in np.random.default_rng([seed, number]).permutation(len(rows)):
            queue = queues[int(wide[place])]
            queue.append(rows[place])
            if len(queue) == batch_size:
                if first <= step < steps:
                    yield step, np.array(queue)
                queue.clear()
                step += 1
        number += 1


def uniform_batches(sizes: np.ndarray, sides: Sides, most: int) -> Iterator[tuple[range, tuple[int, int]]]:
    """Yield (range of places, their scaled size): runs of at most `most` images that need no padding together.

    Parameters
    ----------
    sizes : ndarray of int, shape (n, 2)
        Width and height of each image.
    sides : Sides
    most : int
    """
    scaled = [scaled_size(*map(int, size), sides.test, sides.longest) for size in sizes]
    start = 0
    for place in range(1, len(scaled) + 1):
        if place == len(scaled) or scaled[place] != scaled[start] or place - start == most:
            yield range(start, place), scaled[start]
            start = place


def scaled_images(
    root: Path, references: Sequence[str], batches: Sequence[tuple[range, tuple[int, int]]]
) -> Iterator[tuple[range, tuple[int, int], list[Tensor]]]:
    """Yield the batches of `uniform_batches` with their images, uint8 (3, h, w); the next ones are made meanwhile."""

    def make(place: int, size: tuple[int, int]) -> Tensor:
        image = read_image(root, references[place])
        return as_tensor(image if image.size == size else image.resize(size, Image.Resampling.BILINEAR))

    with ThreadPoolExecutor(DECODING_THREADS) as pool:
        ahead: deque[list] = deque()
        for number in range(len(batches) + AHEAD):
            if number < len(batches):
                places, size = batches[number]
                ahead.append([pool.submit(make, place, size) for place in places])
            if number >= AHEAD:
                yield *batches[number - AHEAD], [image.result() for image in ahead.popleft()]

"""Predicted classes of the pixels of images: several sizes, sliding windows, and bounded memory."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ssltransfer.protocols.dense.frames import padded, resized
from ssltransfer.protocols.dense.heads import enlarge
from ssltransfer.protocols.dense.padded_batches import padded_logits, upsample
from ssltransfer.protocols.dense.segmentation.dataset import SegmentationDataset
from ssltransfer.protocols.dense.segmentation.network import SegmentationNetwork
from ssltransfer.protocols.dense.segmentation.settings import SegmentationSettings

BAND_VALUES = 2**24
"""Logits of the original size that are held at a time: 64 MiB of float32."""
BATCH_PIXELS = 2**18
"""Pixels of the images that are predicted together, as the network sees them: many small ones, or one photograph."""


@dataclass(frozen=True)
class SizeLogits:
    """Logits of images at one size, of the resolution at which the network gives them.

    Attributes
    ----------
    values : Tensor of float32, shape (n, classes, h, w)
    seen : tuple of int
        Height and width of the images as the network saw it, without padding.
    stride : int
        Pixels of them between neighbouring values.
    """

    values: Tensor
    seen: tuple[int, int]
    stride: int


@dataclass(frozen=True)
class Predictor:
    """A trained network and the images that it is tested on.

    Attributes
    ----------
    network : SegmentationNetwork
        Moved to the device, and used in evaluation mode.
    dataset : SegmentationDataset
    settings : SegmentationSettings
    norm : str
        Input normalisation.
    device : torch.device
    band_values : int
        See `BAND_VALUES`.
    """

    network: SegmentationNetwork
    dataset: SegmentationDataset
    settings: SegmentationSettings
    norm: str
    device: torch.device
    band_values: int = BAND_VALUES

    def __post_init__(self) -> None:
        self.network.to(self.device, memory_format=torch.channels_last).eval()

    @torch.inference_mode()
    def predict(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Predict the class of each pixel: the largest mean probability over the sizes.

        The logits of each size are brought to the original size in bands of rows.

        Parameters
        ----------
        images : sequence of Image
            Of one size.

        Returns
        -------
        ndarray of uint8, shape (n, h, w)
        """
        width, height = images[0].size
        sizes = [
            self.size_logits([self.resize(image, shorter) for image in images]) for shorter in self.settings.sides.test
        ]
        rows = max(1, self.band_values // (len(images) * len(self.dataset.classes) * width))
        labels = np.empty((len(images), height, width), np.uint8)
        for start in range(0, height, rows):
            band = slice(start, start + rows)
            # On a CPU `max` takes a quarter of the time of `argmax`.
            labels[:, band] = mean_probabilities(sizes, (height, width), band).max(dim=1).indices.cpu().numpy()
        return labels

    def at_once(self, original: tuple[int, int]) -> int:
        """Images of this width and height that are predicted together: of `BATCH_PIXELS` at their largest, or one."""
        multiple = self.network.multiple
        seen = (self.seen(original, shorter) for shorter in self.settings.sides.test)
        areas = (padded(width, multiple) * padded(height, multiple) for width, height in seen)
        return max(1, BATCH_PIXELS // max(original[0] * original[1], *areas))

    def seen(self, original: tuple[int, int], shorter: int) -> tuple[int, int]:
        """Width and height at this shorter side; with ``stretched``, each is then raised to a multiple."""
        longest = self.dataset.longest
        if self.settings.test_size != "stretched":
            return resized(*original, shorter, longest)
        # The official code rounds down first, and resizes once.
        scale = min(shorter / min(original), longest / max(original))
        width, height = (padded(max(1, int(side * scale)), self.network.multiple) for side in original)
        return width, height

    def resize(self, image: Image.Image, shorter: int) -> Image.Image:
        """Resize an image bilinearly (antialiased) to `seen`."""
        return image.resize(self.seen(image.size, shorter), Image.Resampling.BILINEAR)

    def size_logits(self, images: Sequence[Image.Image]) -> SizeLogits:
        """Logits of resized images: of all of them at once, or the means of those of overlapping windows."""
        pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
        height, width = pixels.shape[1:3]
        side, stride = self.settings.sides.window, self.network.stride
        if not side or side >= max(height, width):
            return SizeLogits(self._logits(pixels), (height, width), stride)
        total = torch.zeros(len(images), len(self.dataset.classes), height, width, device=self.device)
        count = torch.zeros(height, width, device=self.device)
        for top, left in windows(height, width, side, self.settings.sides.window_step):
            rows, columns = slice(top, top + side), slice(left, left + side)
            part = pixels[:, rows, columns]
            logits = self._logits(part)
            # Of a padded window, the map covers more than its pixels.
            whole = enlarge(logits, logits.new_empty(1, 1, logits.shape[2] * stride, logits.shape[3] * stride))
            total[:, :, rows, columns] += whole[:, :, : part.shape[1], : part.shape[2]]
            count[rows, columns] += 1
        return SizeLogits(total / count, (height, width), 1)

    def _logits(self, pixels: Tensor) -> Tensor:
        """Logits of pixels (n, h, w, 3), padded to the multiple of the network: float32 (n, classes, h', w')."""
        return padded_logits(self.network, pixels, self.network.multiple, self.norm, self.device)[0].float()


def mean_probabilities(sizes: list[SizeLogits], original: tuple[int, int], rows: slice) -> Tensor:
    """Mean over the sizes of the class probabilities of some rows at the original size, (n, classes, rows, width).

    It is not divided by their number, and of one size these are the logits: the largest are the same.
    """
    total: Tensor | float = 0.0
    for size in sizes:
        logits = upsample(size.values, size.seen, original, size.stride, rows)
        if len(sizes) == 1:
            return logits
        total = total + logits.softmax(dim=1)
    return total  # type: ignore[return-value]


def alike(
    rows: Iterable[int],
    read: Callable[[int], tuple[Image.Image, np.ndarray]],
    at_once: Callable[[tuple[int, int]], int],
) -> Iterator[tuple[list[Image.Image], list[np.ndarray]]]:
    """Read images and masks, and yield neighbours of one size together, up to `at_once` of that width and height."""
    for size, group in groupby(map(read, rows), key=lambda pair: pair[0].size):
        while batch := list(islice(group, at_once(size))):
            images, masks = zip(*batch, strict=True)
            yield list(images), list(masks)


def windows(height: int, width: int, side: int, step: int) -> Iterator[tuple[int, int]]:
    """Yield the top and left of square windows `step` apart that cover an image; the last ones end at its edges."""
    for top in _starts(height, side, step):
        for left in _starts(width, side, step):
            yield top, left


def _starts(length: int, side: int, step: int) -> list[int]:
    last = max(length - side, 0)
    return [min(number * step, last) for number in range(-(-last // step) + 1)]

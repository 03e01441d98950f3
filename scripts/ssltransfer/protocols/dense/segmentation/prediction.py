"""Predicted classes of the pixels of an image: several sizes, sliding windows, and bounded memory."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ssltransfer.protocols.dense.frames import collate, network_input, padded, upsample
from ssltransfer.protocols.dense.heads import enlarge
from ssltransfer.protocols.dense.segmentation.dataset import SegmentationDataset
from ssltransfer.protocols.dense.segmentation.network import SegmentationNetwork
from ssltransfer.protocols.dense.segmentation.settings import SegmentationSettings

BAND_VALUES = 2**24
"""Logits of the original size that are held at a time: 64 MiB of float32."""


@dataclass(frozen=True)
class SizeLogits:
    """Logits of an image at one size, of the resolution at which the network gives them.

    Attributes
    ----------
    values : Tensor of float32, shape (classes, h, w)
    seen : tuple of int
        Height and width of the image as the network saw it, without padding.
    stride : int
        Pixels of it between neighbouring values.
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
    def predict(self, image: Image.Image) -> np.ndarray:
        """Predict the class of each pixel: the largest mean probability over the sizes, uint8 (h, w).

        The logits of each size are brought to the original size in bands of rows.
        """
        sizes = [self.size_logits(self.resize(image, shorter)) for shorter in self.settings.sides.test]
        original = image.height, image.width
        rows = max(1, self.band_values // (len(self.dataset.classes) * image.width))
        labels = np.empty(original, np.uint8)
        for start in range(0, image.height, rows):
            band = slice(start, start + rows)
            labels[band] = mean_probabilities(sizes, original, band).argmax(dim=0).cpu().numpy()
        return labels

    def resize(self, image: Image.Image, shorter: int) -> Image.Image:
        """Resize an image to this shorter side; with ``stretched``, then each side up to a multiple as well."""
        small = self.dataset.shrink(image, shorter)
        if self.settings.test_size == "stretched":
            # The official code rounds down first, and resizes once.
            scale = min(shorter / min(image.size), self.dataset.longest / max(image.size))
            sides = [padded(max(1, int(side * scale)), self.network.multiple) for side in image.size]
            return image.resize((sides[0], sides[1]), Image.Resampling.BILINEAR)
        return small

    def size_logits(self, image: Image.Image) -> SizeLogits:
        """Logits of a resized image: of all of it at once, or the means of those of overlapping windows."""
        pixels = torch.from_numpy(np.array(image))
        side = self.settings.sides.window
        if not side or side >= max(image.size):
            return SizeLogits(self._logits(pixels)[0], (image.height, image.width), self.network.stride)
        total = torch.zeros(len(self.dataset.classes), image.height, image.width, device=self.device)
        count = torch.zeros(image.height, image.width, device=self.device)
        for top, left in windows(image.height, image.width, side, self.settings.sides.window_step):
            here = slice(top, top + side), slice(left, left + side)
            part = pixels[here]
            height, width = part.shape[:2]
            whole = self._logits(part)
            stride = self.network.stride
            # Of a padded window, the map covers more than its pixels.
            whole = enlarge(whole, whole.new_empty(1, 1, whole.shape[2] * stride, whole.shape[3] * stride))
            total[:, here[0], here[1]] += whole[0, :, :height, :width]
            count[here] += 1
        return SizeLogits(total / count, (image.height, image.width), 1)

    def _logits(self, pixels: Tensor) -> Tensor:
        """Logits of pixels (h, w, 3), padded to the multiple of the network: float32 (1, classes, h', w')."""
        batch, seen, _ = collate([(pixels, torch.empty(0, 0))], self.network.multiple, self.network.stride)
        return self.network(network_input(batch.to(self.device), seen, self.norm)).float()


def mean_probabilities(sizes: list[SizeLogits], original: tuple[int, int], rows: slice) -> Tensor:
    """Mean over the sizes of the class probabilities of some rows at the original size, (classes, rows, width)."""
    total: Tensor | float = 0.0
    for size in sizes:
        logits = upsample(size.values[None], size.seen, original, size.stride, rows)[0]
        if len(sizes) == 1:  # the largest logit has the largest probability
            return logits
        total = total + logits.softmax(dim=0)
    return total  # type: ignore[return-value]


def windows(height: int, width: int, side: int, step: int) -> Iterator[tuple[int, int]]:
    """Yield the top and left of square windows `step` apart that cover an image; the last ones end at its edges."""
    for top in _starts(height, side, step):
        for left in _starts(width, side, step):
            yield top, left


def _starts(length: int, side: int, step: int) -> list[int]:
    last = max(length - side, 0)
    return [min(number * step, last) for number in range(-(-last // step) + 1)]

"""Classes of pixels as colours."""

import numpy as np
from PIL import Image

from ssltransfer.datasets.masks import IGNORE

UNLABELLED = (0, 0, 0)  # no class has this colour
WRONG, RIGHT = (203, 24, 29), (222, 235, 247)
CAPTION = "Black pixels have no known class. Errors: red where another class was predicted."
MAX_LEGEND = 24
"""Number of classes that a legend names: those with the most known pixels in the images shown."""


def class_colours(classes: int) -> np.ndarray:
    """Colour of each class as uint8 (256, 3), that of `IGNORE` last: PASCAL VOC's palette, moved on by one.

    The bits of the number are spread over the highest bits of red, green and blue, so that small numbers differ most.
    """
    numbers = np.arange(1, 257)
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (((numbers >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    colours[classes:] = 0
    colours[IGNORE] = UNLABELLED
    return colours


def error_colours(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Colour right, wrong and unlabelled pixels, uint8 (h, w, 3)."""
    right = (predicted == truth)[..., None]
    colours = np.where(right, np.uint8(RIGHT), np.uint8(WRONG))
    return np.where((truth == IGNORE)[..., None], np.uint8(UNLABELLED), colours)


def square(image: Image.Image, side: int, resampling: Image.Resampling) -> np.ndarray:
    """Fit an image into a white square, uint8 (side, side, 3)."""
    scale = side / max(image.size)
    width, height = (max(1, round(length * scale)) for length in image.size)
    canvas = Image.new("RGB", (side, side), "white")
    canvas.paste(image.resize((width, height), resampling), ((side - width) // 2, (side - height) // 2))
    return np.asarray(canvas)

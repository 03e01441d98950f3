"""Training and test inputs of finetuning: random resized crops with flips, and centre crops, of the original images."""

import math
from collections.abc import Callable

import numpy as np
from PIL import Image

AREA = (0.08, 1.0)
LOG_ASPECT = math.log(4 / 3)
ATTEMPTS = 10
"""Ranges of torchvision's RandomResizedCrop, and the number of rectangles that it draws before it gives up."""


def crop_rectangle(width: int, height: int, generator: np.random.Generator) -> tuple[int, int, int, int]:
    """Draw the rectangle of torchvision's ``RandomResizedCrop``: left, top, width and height in pixels.

    Its area is uniform in [0.08, 1] of the image, its aspect ratio log-uniform in [3/4, 4/3]. Where ten such rectangles
    do not fit, it is the largest one in the centre whose aspect ratio lies in that range.
    """
    for _ in range(ATTEMPTS):
        area = width * height * generator.uniform(*AREA)
        aspect = math.exp(generator.uniform(-LOG_ASPECT, LOG_ASPECT))
        wide, high = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < wide <= width and 0 < high <= height:
            top = int(generator.integers(height - high + 1))
            return int(generator.integers(width - wide + 1)), top, wide, high
    wide, high = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
    return (width - wide) // 2, (height - high) // 2, wide, high


def crop_flip(image: Image.Image, side: int, generator: np.random.Generator) -> np.ndarray:
    """Resize a random rectangle of an image (bicubic), flipped in half of the cases: uint8 (side, side, 3)."""
    left, top, wide, high = crop_rectangle(*image.size, generator)
    # Cropped first: with the argument `box`, Pillow's filter reaches over the edge of the rectangle.
    part = image.crop((left, top, left + wide, top + high)).resize((side, side), Image.Resampling.BICUBIC)
    return np.array(part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if generator.random() < 0.5 else part)


def make_views(
    image: Image.Image,
    names: tuple[str, ...],
    side: int,
    centre: Callable[[Image.Image], Image.Image],
    generator: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Make the views of one decoded image, each uint8 (side, side, 3), by augmentation.

    Parameters
    ----------
    image : Image
        RGB, of any size.
    names : tuple of {'crop-flip', 'centre'}
    side : int
    centre : callable
        The transform of test images (see `datasets.images.parse_transform`).
    generator : Generator
        Of this example. The centre crop draws nothing, so each view is the same with or without the other.
    """
    makers = {
        "crop-flip": lambda: crop_flip(image, side, generator),
        "centre": lambda: np.array(centre(image)),
    }
    return {name: makers[name]() for name in names}

"""Boxes drawn into images."""

import colorsys
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

LOWEST_SCORE = 0.5
"""Lowest score of a box that is drawn."""


def palette(classes: int) -> list[tuple[int, int, int]]:
    """Return a colour for each class."""
    hues = [colorsys.hsv_to_rgb((i * 0.618034) % 1, 0.85 - 0.25 * (i % 2), 1.0) for i in range(classes)]
    return [tuple(round(255 * value) for value in hue) for hue in hues]


def draw(
    image: Image.Image,
    boxes: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    side: int,
    scores: np.ndarray | None = None,
) -> np.ndarray:
    """Draw boxes and class names into an image that fills a square.

    Parameters
    ----------
    image : Image
        RGB.
    boxes : ndarray, shape (n, 4)
        0-based, half-open, in pixels of the image.
    labels : ndarray of int, shape (n,)
    classes : sequence of str
    side : int
        Pixels of the square; the image is centred, bars are white.
    scores : ndarray, optional, shape (n,)
        Printed in percent behind the names.

    Returns
    -------
    ndarray of uint8, shape (side, side, 3)
    """
    scale = side / max(image.size)
    size = tuple(max(1, round(length * scale)) for length in image.size)
    square = Image.new("RGB", (side, side), "white")
    left, top = (side - size[0]) // 2, (side - size[1]) // 2
    square.paste(image.resize(size, Image.Resampling.BICUBIC), (left, top))
    pen, font, colours = ImageDraw.Draw(square), ImageFont.load_default(side // 14 + 2), palette(len(classes))
    width = max(1, side // 64)
    for number in range(len(boxes)):
        box = boxes[number] * scale + (left, top, left, top)
        colour = colours[labels[number]]
        pen.rectangle([*box[:2], *(box[2:] - 1)], outline=colour, width=width)
        text = classes[labels[number]] + (f" {100 * scores[number]:.0f}" if scores is not None else "")
        x, y = box[0] + width, box[1] + width - 1
        frame = pen.textbbox((x, y), text, font=font)
        x -= max(0, frame[2] - side)
        pen.rectangle(pen.textbbox((x, y), text, font=font), fill="black")
        pen.text((x, y), text, fill=colour, font=font)
    return np.asarray(square)


def choose_examples(rows: np.ndarray, counts: np.ndarray, number: int) -> np.ndarray:
    """Choose test images with objects, spread evenly over the dataset.

    Parameters
    ----------
    rows : ndarray of int, shape (n,)
    counts : ndarray of int, shape (n,)
        Number of objects in each.
    number : int
    """
    some = rows[counts > 0]
    return some[np.linspace(0, len(some) - 1, min(number, len(some))).round().astype(int)]

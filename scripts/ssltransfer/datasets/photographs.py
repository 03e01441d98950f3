"""Six of the photographs bundled with scikit-image, uncropped, for feature inversion and attention."""

import numpy as np
from PIL import Image

from ssltransfer.datasets.generated import Generated
from ssltransfer.datasets.textures import load_photograph

NAMES = ("astronaut", "cat", "coffee", "motorcycle", "retina", "rocket")
SIZE = 256


def generate() -> Generated:
    """Cut the central square out of each photograph and resize it to 256 x 256 (bicubic); all are test images."""
    images = [np.asarray(_central_square(load_photograph(name))) for name in NAMES]
    return Generated(np.stack(images), ["test"] * len(NAMES), list(range(len(NAMES))), list(NAMES))


def _central_square(photograph: Image.Image) -> Image.Image:
    width, height = photograph.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return photograph.resize((SIZE, SIZE), Image.Resampling.BICUBIC, (left, top, left + side, top + side))

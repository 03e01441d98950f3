"""Small crops of 16 photographs bundled with scikit-image, whose class is the photograph they come from.

Each picture is cut into tiles; some tiles feed the training crops, the others the test crops, so no pixel
is seen in both. Colour, brightness and contrast of every crop are jittered, so that they alone do not tell
the class.
"""

from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from ssltransfer.datasets.generated import Generated

PHOTOGRAPHS = {
    "astronaut": "astronaut.png",
    "brick": "brick.png",
    "camera": "camera.png",
    "cat": "chelsea.png",
    "coffee": "coffee.png",
    "coins": "coins.png",
    "galaxies": "hubble_deep_field.jpg",
    "grass": "grass.png",
    "gravel": "gravel.png",
    "moon": "moon.png",
    "motorcycle": "motorcycle_left.png",
    "page": "page.png",
    "retina": "retina.jpg",
    "rocket": "rocket.jpg",
    "text": "text.png",
    "tissue": "ihc.png",
}
SIZE = 64
LONGEST_SIDE = 640
SMALLEST_WINDOW, LARGEST_WINDOW = 40, 96
TILE = 112
MARGIN = 4
MINIMUM_CONTRAST = 10.0  # standard deviation of the grey values; sky has less
ATTEMPTS = 20


def generate(seed: int = 0, train: int = 2400, test: int = 1200) -> Generated:
    """Cut `train` training and `test` test crops, equally many of each photograph.

    Parameters
    ----------
    seed : int
        Seed of every random choice.
    train, test : int
        Number of crops; multiples of 16, the number of classes.

    Returns
    -------
    Generated
        64x64 crops. Extra columns: ``left``, ``top`` and ``window`` (side of the square), in pixels of
        `load_photograph`; the crop covers ``[left, left + window) x [top, top + window)``.

    Raises
    ------
    ValueError
        If `train` or `test` is not a positive multiple of the number of classes.
    """
    if train < 1 or test < 1 or train % len(PHOTOGRAPHS) or test % len(PHOTOGRAPHS):
        raise ValueError(f"train is {train}, test is {test}; write positive multiples of {len(PHOTOGRAPHS)}")
    rng = np.random.default_rng(seed)
    images, split, label = [], [], []
    extra = {"left": [], "top": [], "window": []}
    for number, name in enumerate(PHOTOGRAPHS):
        photograph = load_photograph(name)
        parts = split_tiles(photograph.size)
        for part, count in (("train", train), ("test", test)):
            for _ in range(count // len(PHOTOGRAPHS)):
                crop, left, top, window = _informative_crop(photograph, parts[part], rng)
                images.append(_jitter(crop, rng))
                split.append(part)
                label.append(number)
                for key, value in zip(extra, (left, top, window), strict=True):
                    extra[key].append(value)
    order = rng.permutation(len(images))
    return Generated(
        images=np.stack(images)[order],
        split=[split[i] for i in order],
        label=[label[i] for i in order],
        classes=list(PHOTOGRAPHS),
        extra={key: [column[i] for i in order] for key, column in extra.items()},
    )


def load_photograph(name: str) -> Image.Image:
    """Read one of `PHOTOGRAPHS` as RGB, at most 640 pixels wide and high; the retina without its black rim."""
    folder = Path(find_spec("skimage").submodule_search_locations[0]) / "data"
    with Image.open(folder / PHOTOGRAPHS[name]) as file:
        photograph = file.convert("RGB")
    if name == "retina":
        width, height = photograph.size
        photograph = photograph.crop((width // 6, height // 6, width - width // 6, height - height // 6))
    photograph.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.BICUBIC)
    return photograph


def split_tiles(size: tuple[int, int]) -> dict[str, list[tuple[int, int, int, int]]]:
    """Cut a picture of `size` (width, height) into tiles for training and, a third of them, for testing.

    Tiles are (left, top, right, bottom), half open, and lie 4 pixels apart, so that crops of two tiles share no
    pixel.
    """
    xs, ys = (_cut(length) for length in size)
    parts = {"train": [], "test": []}
    for row, (top, bottom) in enumerate(ys):
        for column, (left, right) in enumerate(xs):
            part = "test" if (row + column) % 3 == 1 else "train"
            parts[part].append((left, top, right, bottom))
    return parts


def _cut(length: int) -> list[tuple[int, int]]:
    count = max(1, round(length / TILE))
    edges = np.linspace(0, length + MARGIN, count + 1).astype(int).tolist()
    return [(start, end - MARGIN) for start, end in pairwise(edges)]


def _informative_crop(photograph, tiles, rng) -> tuple[np.ndarray, int, int, int]:
    """Draw until a crop is not flat; return its pixels, left, top and window."""
    for _ in range(ATTEMPTS):
        left, top, right, bottom = tiles[rng.integers(len(tiles))]
        window = int(rng.integers(SMALLEST_WINDOW, min(LARGEST_WINDOW, right - left, bottom - top) + 1))
        x = int(rng.integers(left, right - window + 1))
        y = int(rng.integers(top, bottom - window + 1))
        crop = photograph.crop((x, y, x + window, y + window)).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        pixels = np.asarray(crop, np.float32)
        if pixels.mean(axis=2).std() >= MINIMUM_CONTRAST:
            break
    return pixels, x, y, window


def _jitter(crop: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turn and mirror the crop; change brightness, contrast and cast; swap the channels' colours or drop them."""
    crop = np.rot90(crop, rng.integers(4))
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    grey = crop.mean(axis=2, keepdims=True)
    colour = (crop - grey)[..., rng.permutation(3)] * (rng.uniform(0, 1) * (rng.random() < 0.6))
    pixels = grey.mean() + rng.uniform(-30, 30) + (grey - grey.mean()) * np.exp(rng.uniform(-0.3, 0.3)) + colour
    pixels = pixels * (1 + rng.normal(0, 0.07, 3)) + rng.normal(0, rng.uniform(0, 5), crop.shape)
    return np.clip(np.round(pixels), 0, 255).astype(np.uint8)

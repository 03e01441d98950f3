"""Decoding, resizing and cropping (paper section 4: shorter side 224, bicubic, centre crop).

Done once per data set and transform; all models share the result. The arithmetic is that of torchvision's
``Resize`` and ``CenterCrop`` on PIL images (a test compares the bytes), without the seconds of importing it.
"""

import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ssltransfer.datasets.containers import open_rows
from ssltransfer.errors import InputError
from ssltransfer.files import replacing

TRANSFORM_PATTERN = re.compile(r"resize(\d+)|square257")


def read_image(root: Path, reference: str) -> Image.Image:
    """Read one image of an index as RGB.

    Grey and palette images are expanded, an alpha channel is dropped, CMYK is converted, 16-bit values keep their
    upper 8 bits. EXIF orientation is ignored, as torchvision's loader does.

    Raises
    ------
    InputError
        If the file is missing, no image, or truncated.
    """
    path = root / reference
    container, _, row = reference.rpartition("#")
    if row.isdigit() and container and not path.is_file():
        return Image.fromarray(np.ascontiguousarray(open_rows(root / container)[int(row)])).convert("RGB")
    try:
        with Image.open(path) as image:
            if image.mode == "F":
                raise ValueError("floating-point pixels have no defined range")
            if image.mode.startswith("I"):
                return _sixteen_bit_to_rgb(image)
            return image.convert("RGB")
    except FileNotFoundError:
        raise InputError(f"image {path} is missing") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise InputError(f"image {path} cannot be read: {error}") from None


def _sixteen_bit_to_rgb(image: Image.Image) -> Image.Image:
    # PIL's own conversion clips at 255, which turns nearly every 16-bit image white.
    upper = np.clip(np.asarray(image, dtype=np.int64) >> 8, 0, 255).astype(np.uint8)
    return Image.fromarray(upper).convert("RGB")


def _resize_shorter_side(image: Image.Image, size: int) -> Image.Image:
    width, height = image.size
    if width <= height:
        new = (size, int(size * height / width))
    else:
        new = (int(size * width / height), size)
    return image if new == image.size else image.resize(new, Image.Resampling.BICUBIC)


def _centre_crop(image: Image.Image, size: int) -> Image.Image:
    width, height = image.size
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.crop((left, top, left + size, top + size))


def parse_transform(transform: str) -> tuple[int, Callable[[Image.Image], Image.Image]]:
    """Return the side of the result and the function for the name of a transform.

    ``resizeN``: shorter side N (bicubic, antialiased), centre crop N x N.
    ``square257``: the official few-shot code's 257 x 257 square (bilinear, aspect ratio lost), centre crop 224.
    """
    match = TRANSFORM_PATTERN.fullmatch(transform)
    if match is None:
        raise InputError(f"transform {transform!r} is unknown; write resizeN or square257")
    if transform == "square257":
        return 224, lambda image: _centre_crop(image.resize((257, 257), Image.Resampling.BILINEAR), 224)
    size = int(match.group(1))
    return size, lambda image: _centre_crop(_resize_shorter_side(image, size), size)


def prepare_images(
    root: Path,
    references: list[str],
    transform: str,
    output: Path,
    workers: int = 1,
    progress: Callable[[Iterable, int], Iterable] = lambda iterable, total: iterable,
) -> None:
    """Decode and transform the images of an index into one uint8 array file.

    Parameters
    ----------
    root : Path
        Folder that the references start from.
    references : list of str
        Column `image` of the index.
    transform : str
        See `parse_transform`.
    output : Path
        Becomes a .npy file of uint8 (n, size, size, 3), row i from reference i.
    workers : int
        Threads; PIL releases the interpreter lock while it decodes and resizes.
    progress : callable
        Wraps (iterable, total).

    Raises
    ------
    InputError
        After the whole pass, naming the first unreadable image and how many there are.
    """
    size, apply = parse_transform(transform)

    def prepare(row: int) -> str | None:
        try:
            array[row] = np.asarray(apply(read_image(root, references[row])))
        except InputError as error:
            return str(error)
        return None

    shape = (len(references), size, size, 3)
    with replacing(output) as temporary, ThreadPoolExecutor(workers) as pool:
        array = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
        rows = progress(pool.map(prepare, range(len(references))), len(references))
        if problems := [problem for problem in rows if problem]:
            raise InputError(f"{problems[0]} ({len(problems)} of {len(references)} images are unreadable)")
        array.flush()

"""Masks of semantic segmentation: the class of each pixel of an image, and the index of images with their masks."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ssltransfer.datasets.containers import open_rows
from ssltransfer.datasets.images import image_size, open_image
from ssltransfer.datasets.index import Index, MissingError, concatenate, split_reference
from ssltransfer.datasets.layout import missing
from ssltransfer.errors import InputError
from ssltransfer.jobs import progress

IGNORE = 255
"""Label of a pixel that neither trains nor counts; the value of unlabelled pixels in masks whose 0 is a class."""


LARGEST_GREY = {"L;2": 3, "L;4": 15}
"""Storage of grey values of less than 8 bit -> the largest value, which becomes 255 when the image is decoded."""


def read_labels(path: Path) -> np.ndarray:
    """Read an image of labels, of up to 8 bit and of one channel; InputError if it is something else."""
    try:
        with open_image(path) as image:
            if image.mode not in ("L", "P"):
                raise ValueError(f"mode {image.mode}, expected one channel of 8 bit")
            if image.format in ("JPEG", "MPO"):
                raise ValueError("a JPEG, which changes values near edges; save it in a format without loss, as PNG")
            largest = _largest_grey(image)
            labels = np.array(image)
            return labels if largest == 255 else np.rint(labels * (largest / 255)).astype(np.uint8)
    except FileNotFoundError:
        raise InputError(f"labels {path} are missing") from None
    except Exception as error:  # a damaged file can raise nearly anything
        raise InputError(f"labels {path} cannot be read: {error}") from None


def _largest_grey(image: Image.Image) -> int:
    """Return the stored value that decoding makes 255: programs that shrink PNG files store few labels in 4 bit."""
    storage = image.tile[0].args if image.mode == "L" and image.tile else None
    form, *more = storage if isinstance(storage, tuple) and storage else (storage,)
    if image.format == "PPM" and more:
        return int(more[0])
    return LARGEST_GREY.get(str(form), 255)


def read_mask(root: Path, reference: str, classes: int, unlabelled: int) -> np.ndarray:
    """Read the labels of an image.

    Parameters
    ----------
    root : Path
    reference : str
        Image of one channel, grey or with a palette, or a row of an array (``masks.npy#0``).
    classes : int
        Number of classes.
    unlabelled : int
        Value of unlabelled pixels: 0, with classes counted from 1, or 255, with classes counted from 0.

    Returns
    -------
    ndarray of uint8, shape (h, w)
        0 to `classes` - 1, or `IGNORE`.

    Raises
    ------
    InputError
        If the file is missing or damaged, has several channels, or holds another value.
    """
    container, row = split_reference(reference)
    path = root / reference
    if row is not None and not path.is_file():
        values = np.asarray(open_rows(root / container)[row])
    else:
        values = read_labels(path)
    first = 1 if unlabelled == 0 else 0
    known = values != unlabelled
    wrong = known & (values >= first + classes)
    if wrong.any():
        raise InputError(
            f"{path}: value {values[wrong].max()} found, expected {first} to {classes - 1 + first}, or {unlabelled} "
            "where no class is known; masks hold numbers of classes, not the colours or grey values that show them"
        )
    return np.where(known, values - np.uint8(first), np.uint8(IGNORE))


def index_pairs(
    root: Path, parts: Mapping[str, Sequence[tuple[str, str]]], classes: Sequence[str], unlabelled: int
) -> Index:
    """Index images with their masks, each of which is read once.

    `label` lists the classes that a mask shows. Extra columns: ``mask``, its reference; ``size``, width and height of
    the image; ``unlabelled``, see `read_mask`.

    Parameters
    ----------
    root : Path
    parts : mapping of str to sequence of (str, str)
        Images and masks of each split, relative to `root`.
    classes : sequence of str
    unlabelled : int

    Raises
    ------
    InputError
        If there are more classes than labels, a mask is not as `read_mask` expects, has not the size of its image, or
        no mask of a split has a labelled pixel. Unlabelled images are a warning of the index.
    """
    if not 1 <= len(classes) <= IGNORE:
        raise InputError(f"{root}: {len(classes)} classes found, expected 1 to {IGNORE}")
    sizes, labels, warnings = [], {}, []
    for split, pairs in parts.items():
        labels[split] = []
        for image, mask in progress(pairs, f"masks, {split}"):
            found = read_mask(root, mask, len(classes), unlabelled)
            if not (root / image).is_file():
                raise missing(root / image)
            sizes.append(image_size(root, image))
            check_size(str(root / mask), found, str(root / image), sizes[-1])
            labels[split].append([int(label) for label in np.unique(found) if label != IGNORE])
        empty = [image for (image, _), shown in zip(pairs, labels[split], strict=True) if not shown]
        if pairs and len(empty) == len(pairs):
            raise InputError(
                f"{root}: no mask of the {split} part has a labelled pixel; all have the value {unlabelled}, which "
                "stands for unlabelled"
            )
        if empty:
            warnings.append(f"{len(empty)} of {len(pairs)} images of {split} have no labelled pixel, first {empty[0]}")
    index = concatenate(
        {split: ([image for image, _ in pairs], labels[split]) for split, pairs in parts.items()}, classes
    )
    index.extra |= {
        "mask": [mask for pairs in parts.values() for _, mask in pairs],
        "size": [list(size) for size in sizes],
        "unlabelled": [unlabelled] * len(index),
    }
    index.warnings.extend(warnings)
    return index


def check_size(where: str, mask: np.ndarray, image: str, size_of_image: tuple[int, int]) -> None:
    """Require a mask of the size (width, height) of its image; InputError otherwise."""
    if mask.shape != size_of_image[::-1]:
        width, height = size_of_image
        raise InputError(f"{where}: mask of {size(mask)} pixels; its image {image} has {width}x{height}")


def size(array: np.ndarray) -> str:
    """Width x height of an image."""
    return f"{array.shape[1]}x{array.shape[0]}"


def pair_by_name(root: Path, images: Path, names: Sequence[str], masks: Path, mask_names: Sequence[str]) -> list:
    """Pair images and masks whose paths are the same up to the suffix; both relative to `root`.

    Parameters
    ----------
    root, images, masks : Path
        Folder of the dataset, of the images and of the masks.
    names, mask_names : sequence of str
        Files in the folders.

    Raises
    ------
    InputError
        If an image has no mask or several, or two images would have one.
    """
    found: dict[str, list[str]] = {}
    for name in mask_names:
        found.setdefault(_stem(name), []).append(name)
    taken: dict[str, str] = {}
    pairs, without = [], []
    for name in names:
        stem = _stem(name)
        if stem in taken:
            raise InputError(f"{images}: {taken[stem]} and {name} would have the same mask; rename one of them")
        taken[stem] = name
        if stem not in found:
            without.append(name)
            continue
        if len(found[stem]) > 1:
            raise InputError(f"{masks}: {' and '.join(found[stem])} are masks of one image; remove all but one")
        pairs.append(
            ((images / name).relative_to(root).as_posix(), (masks / found[stem][0]).relative_to(root).as_posix())
        )
    if without:
        raise MissingError(
            f"{images / without[0]} has no mask in {masks} ({len(without)} of {len(names)} images have none); a mask "
            "has the name of its image, with the suffix of a format without loss such as .png"
        )
    return pairs


def _stem(name: str) -> str:
    return str(Path(name).with_suffix(""))


def mask_references(index: Index, masks: str | Path | None) -> tuple[Sequence[str], int]:
    """References of the masks of all images, and the value of unlabelled pixels.

    Parameters
    ----------
    index : Index
        With the columns ``mask`` and ``unlabelled``, unless there is an array.
    masks : path or None
        Array of the masks of a generated dataset.

    Raises
    ------
    InputError
        If there is neither.
    """
    if masks:
        return [f"{Path(masks).name}#{row}" for row in range(len(index))], IGNORE
    if "mask" not in index.extra:
        raise InputError("the index has no column 'mask'; delete the index of the dataset to make it anew")
    return index.extra["mask"], int(index.extra["unlabelled"][0])

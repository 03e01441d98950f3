"""NYU Depth v2, surface normals: the layout of FAIR's self-supervision benchmark, which the official code uses.

- ``all_images/NNNNNN_rgb.jpg``: the frames; beside each, if made already, ``NNNNNN_SN40.png``: the number of the
  nearest of 40 code words, 255 where nothing is known. Where there are no such files, frames are read from
  ``nyu_depth_v2_labeled.mat``, which is what is published: frame NNNNNN is its frame of that number.
- ``surfacenormal_metadata/{train,test}_SN40.json``: a list of ``{"img", "segm", "width", "height"}``.
- ``surfacenormal_metadata/vocab40.mat``: the code words.
- ``surfacenormal_metadata/all_normals.pklz``, or a file ``NNNNNN.mat`` a frame: normals and valid pixels.

Variant ``labelled`` reads the files that the authors of the dataset and of the normals published:

- ``nyu_depth_v2_labeled.mat`` (MATLAB 7.3): the frames and their raw depth, in metres.
- ``splits.mat``: numbers of the training and test frames, from 1.
- ``nyu_normals_gt/{train,test}/NNNNN.png``: normals as colours. They are dense; a pixel counts where the raw depth is
  known and the usual crop of the dataset lets it.

Normals point right (x), up (y) and towards the camera (z), with length 1; they are 0 where nothing is known.
"""

import json
from functools import lru_cache
from pathlib import Path

import numpy as np

from ssltransfer.datasets.containers import matlab_rows, matlab_texts, read_pickle
from ssltransfer.datasets.images import open_image
from ssltransfer.datasets.index import Index, concatenate
from ssltransfer.datasets.layout import missing, read_mat, read_text
from ssltransfer.errors import InputError

METADATA = "surfacenormal_metadata"
ALL_NORMALS = f"{METADATA}/all_normals.pklz"
CODES = 40
LABELLED = "nyu_depth_v2_labeled.mat"
COLOURS = "nyu_normals_gt"
FULL = (480, 640)
MAX_PIXELS = 2**22
"""Of an image of normals, which take 30 bytes each; frames have a tenth of it."""
CROP = (slice(44, 471), slice(40, 601))
"""Rows and columns of a full frame in which depth and image overlap (the dataset's toolbox)."""


def index(root: Path, variant: str = "") -> Index:
    """Index the official train and test lists.

    An image has no label. Extra columns: ``normals``, what `read_normals` reads, and ``codes``, the image of code
    words ("" if there is none). With variant ``labelled`` also ``scene``, the scene that a frame was taken in, if the
    file tells.
    """
    if variant == "labelled":
        return _index_labelled(root)
    parts, normals, codes = {}, [], []
    lists = {split: root / METADATA / f"{split}_SN{CODES}.json" for split in ("train", "test")}
    frames = {split: _frames(path) for split, path in lists.items()}
    images = _frame_references(root, [name for records in frames.values() for name, _ in records])
    for split, records in frames.items():
        for name, labels in records:
            number = name.split("_")[0]
            single, code = f"{METADATA}/{number}.mat", f"all_images/{labels}"
            normals.append(single if (root / single).is_file() else f"{ALL_NORMALS}#{number}")
            codes.append(code if (root / code).is_file() else "")
        parts[split] = [images[name] for name, _ in records], [[] for _ in records]
    if any(reference.startswith(ALL_NORMALS) for reference in normals) and not (root / ALL_NORMALS).is_file():
        raise missing(root / ALL_NORMALS)
    index = concatenate(parts, classes=[])
    index.extra |= {"normals": normals, "codes": codes}
    return index


def _index_labelled(root: Path) -> Index:
    count = len(matlab_rows(root / LABELLED, "images"))
    parts, normals = {}, []
    for split in ("train", "test"):
        numbers = read_mat(root / "splits.mat", f"{split}Ndxs").ravel().astype(int).tolist()
        if wrong := [number for number in numbers if not 1 <= number <= count]:
            raise InputError(f"{root / 'splits.mat'}: {split}Ndxs holds {wrong[0]}; {LABELLED} has {count} frames")
        for number in numbers:
            normals.append(f"{COLOURS}/{split}/{number:05d}.png")
            if not (root / normals[-1]).is_file():
                raise missing(root / normals[-1])
        parts[split] = [f"{LABELLED}#{number - 1}" for number in numbers], [[] for _ in numbers]
    index = concatenate(parts, classes=[])
    index.extra |= {"normals": normals, "codes": [""] * len(normals)}
    scenes = matlab_texts(root / LABELLED, "scenes")
    if scenes is not None and len(scenes) == count:
        index.extra["scene"] = [scenes[int(image.rpartition("#")[2])] for image in index.image]
    return index


def _frame_references(root: Path, names: list[str]) -> dict[str, str]:
    """Return the reference of each frame by its name in the lists, such as ``000003_rgb.jpg``.

    The lists count all frames of the labelled file, from 0 or from 1: the first number that occurs tells.
    """
    if not names or (root / "all_images" / names[0]).is_file() or not (root / LABELLED).is_file():
        return {name: f"all_images/{name}" for name in names}
    numbers = {name: name.split("_")[0] for name in names}
    if wrong := [name for name, number in numbers.items() if not (number.isascii() and number.isdigit())]:
        raise InputError(f"{root / METADATA}: frame {wrong[0]!r} has no number; expected names such as 000003_rgb.jpg")
    count = len(matlab_rows(root / LABELLED, "images"))
    first = 0 if any(int(number) == 0 for number in numbers.values()) else 1
    rows = {name: int(number) - first for name, number in numbers.items()}
    if outside := [name for name, row in rows.items() if row >= count]:
        raise InputError(f"{root / METADATA}: frame {outside[0]!r} is listed; {LABELLED} has {count} frames")
    return {name: f"{LABELLED}#{row}" for name, row in rows.items()}


def _frames(path: Path) -> list[tuple[str, str]]:
    """Image and image of labels ("" if the list names none) of each frame."""
    try:
        return [(str(record["img"]), str(record.get("segm", ""))) for record in json.loads(read_text(path))]
    except (json.JSONDecodeError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path} is not a list of objects with the key 'img': {error!r}") from None


def read_code_words(root: Path) -> np.ndarray:
    """Read the code words as float64 (40, 3), unit length."""
    path = root / METADATA / f"vocab{CODES}.mat"
    try:
        words = np.asarray(read_mat(path, "vocabs")[0][0]["normals"][0][0], dtype=np.float64)
    except (IndexError, ValueError, TypeError) as error:
        raise InputError(f"{path}: vocabs[0][0]['normals'][0][0] is missing: {error}") from None
    if words.shape != (CODES, 3):
        raise InputError(f"{path}: found code words of shape {words.shape}, expected ({CODES}, 3)")
    return words


def read_normals(root: Path, reference: str) -> tuple[np.ndarray, np.ndarray]:
    """Read the ground truth of a frame.

    Parameters
    ----------
    root : Path
    reference : str
        An entry of the index's column ``normals``.

    Returns
    -------
    normals : ndarray of float32, shape (h, w, 3)
    valid : ndarray of bool, shape (h, w)
        Where the depth, and with it the normal, is known.

    Raises
    ------
    InputError
        If the file is missing or its arrays have other shapes.
    """
    file, _, number = reference.partition("#")
    path = root / file
    if path.suffix == ".png":
        return decode_colours(path), _depth_mask(root / LABELLED, int(path.stem) - 1)
    if number:
        normals, valid, rows = _all_normals(path)
        if number not in rows:
            raise InputError(f"{path}: frame {number} is missing")
        return normals[rows[number]], valid[rows[number]] > 0
    normals = np.stack([np.asarray(read_mat(path, key), dtype=np.float32) for key in ("nx", "ny", "nz")], axis=-1)
    valid = read_mat(path, "depthValid")
    if normals.ndim != 3 or valid.shape != normals.shape[:2]:
        raise InputError(f"{path}: nx {normals.shape[:-1]} and depthValid {valid.shape} must be images of one size")
    return normals, valid > 0


def decode_colours(path: Path) -> np.ndarray:
    """Decode an image of ``nyu_normals_gt``, float32 (h, w, 3): red is away from the camera, green down, blue right.

    Zero where a colour is not a unit vector.
    """
    try:
        with open_image(path, MAX_PIXELS, ("PNG",)) as image:
            if image.mode != "RGB":
                raise ValueError(f"mode {image.mode}, expected RGB")
            red, green, blue = np.moveaxis(np.asarray(image, np.float32) / 127.5 - 1, -1, 0)
    except FileNotFoundError:
        raise missing(path) from None
    except Exception as error:  # a damaged file can raise nearly anything
        raise InputError(f"normals {path} cannot be read: {error}") from None
    normals = np.stack([blue, -green, -red], axis=-1)
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    # Eight bits a component leave lengths near 1; plain grey or black is a place without a normal.
    return np.where(np.abs(length - 1) < 0.2, normals / np.maximum(length, 0.8), 0)


def _depth_mask(path: Path, row: int) -> np.ndarray:
    """Mask of the pixels with a depth, within the crop."""
    depth = matlab_rows(path, "rawDepths")[row]
    mask = np.isfinite(depth) & (depth > 0)
    if mask.shape == FULL:
        inside = np.zeros(FULL, bool)
        inside[CROP] = True
        mask &= inside
    return mask


@lru_cache(maxsize=1)
def _all_normals(path: Path) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    # The official file holds 1449 frames: about 7 GB once it is read.
    content = read_pickle(path, "a pickle of surface normals")
    arrays = [content.get(key) for key in ("all_normals", "all_valid_depth_masks")]
    names = content.get("all_filenames")
    if not all(isinstance(array, np.ndarray) for array in arrays) or not isinstance(names, list | np.ndarray):
        raise InputError(f"{path}: all_normals, all_valid_depth_masks and all_filenames are needed")
    normals, valid = arrays
    if normals.ndim != 4 or normals.shape[3] != 3 or valid.shape != normals.shape[:3] or len(names) != len(normals):
        raise InputError(
            f"{path}: found {normals.shape}, {valid.shape} and {len(names)} names; expected (n, h, w, 3), (n, h, w), n"
        )
    keys = [name.decode() if isinstance(name, bytes) else str(name) for name in names]
    return normals, valid, {key: row for row, key in enumerate(keys)}

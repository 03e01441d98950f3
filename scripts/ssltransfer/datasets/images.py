"""Decode, resize and crop images (paper section 4: shorter side 224, bicubic, centre crop).

Done once per dataset and transform; all models share the result. The arithmetic is that of torchvision's
``Resize`` and ``CenterCrop`` on PIL images (a test compares the bytes), without the seconds of importing it.

Images are read as the reference read them, by PIL through torchvision's loader: an EXIF orientation is ignored, for
all datasets.
"""

import hashlib
import json
import logging
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from ssltransfer.datasets.containers import open_rows
from ssltransfer.datasets.index import split_reference
from ssltransfer.datasets.sources import TRANSFORM
from ssltransfer.errors import InputError
from ssltransfer.files import read_json, write_json
from ssltransfer.part_folder import PartFolder, part_folder
from ssltransfer.row_file import ArrayFile
from ssltransfer.versions import version

log = logging.getLogger(__name__)


# The official few-shot code reads the images of this dataset as squares, before any transform.
SQUARE_FIRST = {"chestx": 256}

# PIL reads many more formats, some through other programs (Ghostscript for EPS, under any file name).
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "PPM", "GIF")

# An image of one pixel by a million is a small file; with the shorter side resized it would fill the memory.
MAX_RATIO = 200

# A small file can hold as many pixels as fill the memory, as PIL takes up to 16 bytes for each. Photographs have 3 to 7
# pixels a byte, so large files may have more, up to the 179 million at which PIL refuses an image.
MAX_PIXELS = 50_000_000
PIXELS_PER_BYTE = 16

# A progressive JPEG has about ten; each further one costs the decoder a pass over all pixels, and the file a few bytes.
MAX_SCANS = 100
# The header of a scan of one to four components; its marker alone is in every 64 KiB of a film behind a photograph.
SCAN = re.compile(rb"\xff\xda\x00[\x08\x0a\x0c\x0e][\x01-\x04]")

# PIL refuses PNG files with a colour profile (or text) above 1 MiB, although the profile is not used here.
PngImagePlugin.MAX_TEXT_CHUNK = 64 * 2**20

# Key of PIL's dictionary `info` for the largest value of a 16-bit image, and the largest one of 12 bits.
MAXIMUM = "sixteen_bit_maximum"
TWELVE_BITS = 4095

# Rows between two records of how far a pass has come, and rows that a worker takes at a time.
BLOCK = 2048
CHUNK = 16


@contextmanager
def open_image(path: Path, most: int | None = None, formats: Sequence[str] = FORMATS) -> Iterator[Image.Image]:
    """Open an image that its reader can afford, before its pixels are decoded.

    Parameters
    ----------
    path : Path
    most : int, optional
        Pixels that it may have; by default `MAX_PIXELS`, or `PIXELS_PER_BYTE` of its file if these are more.
    formats : sequence of str
        Decoders that are tried.

    Raises
    ------
    ValueError
        If it has over `most` pixels, one side is over `MAX_RATIO` times the other, or it is a JPEG of over `MAX_SCANS`
        scans.
    OSError
        If it is missing, damaged or of another format.
    """
    most = most or max(MAX_PIXELS, PIXELS_PER_BYTE * _file_size(path))
    with Image.open(path, formats=formats) as image:
        if image.width * image.height > most:
            raise ValueError(f"{image.width} x {image.height} pixels, expected at most {most:,}; make it smaller")
        if max(image.size) > MAX_RATIO * min(image.size):
            raise ValueError(f"{image.width} x {image.height} pixels; one side is over {MAX_RATIO} times the other")
        if image.format in ("JPEG", "MPO") and (scans := len(SCAN.findall(path.read_bytes()))) > MAX_SCANS:
            raise ValueError(f"a JPEG of {scans} scans, expected at most {MAX_SCANS}; save it anew")
        yield image


def _file_size(path: Path) -> int:
    """Bytes of a file; OSError if it is missing or something else, such as a pipe, which would be waited for."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError("it is not a file")
    return status.st_size


def image_size(root: Path, reference: str) -> tuple[int, int]:
    """Read the width and height of an image of an index from its header; InputError if it cannot be read."""
    container, row = split_reference(reference)
    if row is not None and not (root / reference).is_file():
        return open_rows(root / container)[row].shape[1::-1]
    try:
        _file_size(root / reference)
        with Image.open(root / reference, formats=FORMATS) as image:
            return image.size
    except FileNotFoundError:
        raise InputError(f"image {root / reference} is missing") from None
    except Exception as error:  # a damaged file can raise nearly anything
        raise InputError(f"image {root / reference} cannot be read: {error}") from None


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
    container, row = split_reference(reference)
    try:
        if row is not None and not path.is_file():
            return Image.fromarray(np.ascontiguousarray(open_rows(root / container)[row])).convert("RGB")
        with open_image(path) as image:
            if image.mode == "F":
                raise ValueError("floating-point pixels have no defined range")
            if image.mode.startswith("I"):
                return _sixteen_bit_to_rgb(image)
            image.load()
            # Converting RGB to RGB would copy all pixels.
            return image if image.mode == "RGB" else image.convert("RGB")
    except InputError:  # of the container
        raise
    except FileNotFoundError:
        raise InputError(f"image {path} is missing") from None
    except Exception as error:  # a damaged file can raise nearly anything
        raise InputError(f"image {path} cannot be read: {error}") from None


def _sixteen_bit_to_rgb(image: Image.Image) -> Image.Image:
    # PIL's own conversion clips at 255, which turns nearly every 16-bit image white.
    values = np.asarray(image)
    high = values >> 8
    rgb = Image.fromarray((high if high.dtype == np.uint16 else high.clip(0, 255)).astype(np.uint8)).convert("RGB")
    rgb.info[MAXIMUM] = int(values.max())
    return rgb


def _resize_and_crop(image: Image.Image, size: int) -> Image.Image:
    """Resize the shorter side to `size`, crop the centre: what torchvision's ``Resize`` and ``CenterCrop`` give."""
    width, height = image.size
    if width <= height:
        new = (size, int(size * height / width))
    else:
        new = (int(size * width / height), size)
        # Pillow resizes rows first, columns second: columns that are cropped need no second pass.
        left = round((new[0] - size) / 2)
        if image.height != size:
            image = image.resize((new[0], height), Image.Resampling.BICUBIC).crop((left, 0, left + size, height))
            new = (size, size)
    return _centre_crop(image if new == image.size else image.resize(new, Image.Resampling.BICUBIC), size)


def _centre_crop(image: Image.Image, size: int) -> Image.Image:
    width, height = image.size
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.crop((left, top, left + size, top + size))


def _square257(image: Image.Image, first: int | None) -> Image.Image:
    if first is not None:
        image = image.resize((first, first), Image.Resampling.BICUBIC)
    return _centre_crop(image.resize((257, 257), Image.Resampling.BILINEAR), 224)


def parse_transform(transform: str, source: str = "") -> tuple[int, Callable[[Image.Image], Image.Image]]:
    """Return the side of the result and the function for the name of a transform.

    ``resizeN``: shorter side N (bicubic, antialiased), centre crop N x N.
    ``stretchN``: N x N (bicubic, antialiased, aspect ratio lost), no crop.
    ``square257``: the official few-shot code's 257 x 257 square (bilinear, aspect ratio lost), centre crop 224.
    That code reads ChestX as a square of 256 pixels first (bicubic, Pillow's default since version 7).

    Parameters
    ----------
    transform : str
    source : str
        Name of the original dataset; matters for ``square257`` only.
    """
    match = re.fullmatch(TRANSFORM, transform)
    if match is None:
        raise InputError(f"transform {transform!r} is unknown; write resizeN, stretchN or square257")
    if transform == "square257":
        return 224, lambda image: _square257(image, SQUARE_FIRST.get(source))
    size = int(match[2])
    if match[1] == "stretch":
        return size, lambda image: image.resize((size, size), Image.Resampling.BICUBIC)
    return size, lambda image: _resize_and_crop(image, size)


class DecodedImages:
    """The images of an index, decoded on access; replaces the array that `prepare_images` writes.

    Meant for one pass in order: while one slice is used, the next one of the same length is decoded.

    Parameters
    ----------
    root : Path
        Folder that the references start from.
    references : sequence of str
        Column `image` of the index.
    transform, source : str
        See `parse_transform`.
    workers : int
        Threads.

    Attributes
    ----------
    shape : tuple of int
        Of one image.
    """

    def __init__(self, root: Path, references: Sequence[str], transform: str, source: str = "", workers: int = 1):
        self.root = root
        self.references = references
        size, self._apply = parse_transform(transform, source)
        self.shape = (size, size, 3)
        self._pool = ThreadPoolExecutor(workers)
        # Pillow would give the memory of each image back and have it cleared again for the next: a fifth of the time.
        Image.core.set_blocks_max(4 * workers)
        self._ahead: dict[int, Future[np.ndarray]] = {}
        self._maxima: list[int] = []

    def __len__(self) -> int:
        return len(self.references)

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Decode a slice: uint8 (k, size, size, 3). InputError at the first image that cannot be read."""
        wanted = range(*rows.indices(len(self)))
        for row in range(wanted.start, min(wanted.stop + len(wanted), len(self))):
            if row not in self._ahead:
                self._ahead[row] = self._pool.submit(self.decode, row)
        if not wanted:
            return np.empty((0, *self.shape), np.uint8)
        return np.stack([self._ahead.pop(row).result() for row in wanted])

    def decode(self, row: int) -> np.ndarray:
        """Decode one image: uint8 (size, size, 3)."""
        image = read_image(self.root, self.references[row])
        if MAXIMUM in image.info:
            self._maxima.append(image.info[MAXIMUM])
        return np.asarray(self._apply(image))

    def warn_of_dark_images(self) -> None:
        """Log a warning if there are 16-bit images and none of those decoded so far uses the upper four bits."""
        if self._maxima and max(self._maxima) <= TWELVE_BITS:
            log.warning(
                "the largest value of %d 16-bit images is %d: only the upper 8 bits are used, so that these images are "
                "nearly black; scale images of 12 bits to 16, or convert them to 8",
                len(self._maxima),
                max(self._maxima),
            )


def find_unreadable(
    root: Path,
    references: Sequence[str],
    workers: int = 1,
    progress: Callable[[Iterable, int], Iterable] = lambda iterable, total: iterable,
) -> dict[int, str]:
    """Decode all images once and return the error messages of unreadable ones by row."""

    def problem(reference: str) -> str | None:
        try:
            read_image(root, reference)
        except InputError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(workers) as pool:
        problems = progress(pool.map(problem, references), len(references))
        return {row: text for row, text in enumerate(problems) if text is not None}


def prepare_images(
    root: Path,
    references: Sequence[str],
    transform: str,
    output: Path,
    source: str = "",
    workers: int = 1,
    progress: Callable[[Iterable, int], Iterable] = lambda iterable, total: iterable,
) -> None:
    """Decode and transform the images of an index into one uint8 array file.

    A killed pass resumes at its last record (in the folder ``OUTPUT.part``). A pass that meets unreadable images ends
    with an error; the next one reads only these again.

    Parameters
    ----------
    root, references, transform, source, workers
        See `DecodedImages`. PIL releases the interpreter lock while it decodes and resizes.
    output : Path
        Becomes a .npy file of uint8 (n, size, size, 3), row i from reference i.
    progress : callable
        Wraps (iterable, total).

    Raises
    ------
    InputError
        If another job is making the same file (see `part_folder`). After the whole pass, if images are unreadable:
        their number and the first ones; the log has all of them.
    """
    images = DecodedImages(root, references, transform, source, workers)
    with part_folder(output) as part:
        record, array = _begin_pass(part, images, [list(references), transform, source, version("images")])
        _decode_all(images, part, record, array, output, workers, progress)


def _decode_all(
    images: DecodedImages,
    part: PartFolder,
    record: dict,
    array: ArrayFile,
    output: Path,
    workers: int,
    progress: Callable[[Iterable, int], Iterable],
) -> None:
    """Decode the images that are not recorded as done, and rename the finished array to `output`."""
    problems: dict[int, str] = {}

    def prepare(rows: list[int]) -> int:
        for row in rows:
            try:
                array.write(row, images.decode(row)[None])
            except InputError as error:
                problems[row] = str(error)
        return len(rows)

    def save(state: dict) -> None:
        array.flush()
        _check_own(array)
        write_json(part.path / "record.json", record | state)

    def passes(todo: list[int]) -> Iterator[None]:
        for start in range(0, len(todo), BLOCK):
            block = todo[start : start + BLOCK]
            for count in pool.map(prepare, (block[i : i + CHUNK] for i in range(0, len(block), CHUNK))):
                yield from [None] * count
            again = set(record["unreadable"]) - set(todo[: start + BLOCK]) | set(problems)
            state = {"done": max(record["done"], block[-1] + 1), "unreadable": sorted(again)}
            # Beside the next block, because it waits for the disk; nobody needs it after the last one.
            if problems or start + BLOCK < len(todo):
                saved.append(saver.submit(save, state))

    todo = [*record["unreadable"], *range(record["done"], len(images))]
    saved: list[Future] = []
    with ThreadPoolExecutor(workers) as pool, ThreadPoolExecutor(1) as saver:
        for _ in progress(passes(todo), len(todo)):
            pass
    for record_written in saved:
        record_written.result()
    images.warn_of_dark_images()
    if problems:
        array.flush()
        texts = [problems[row] for row in sorted(problems)]
        for text in texts:
            log.error("%s", text)
        first = "; ".join(texts[:5]) + ("; ..." if len(problems) > 5 else "")
        what = f"{len(problems)} of {len(images)} images cannot be used: {first}"
        raise InputError(f"{what}; replace or delete them, or set on_error: skip")
    array.finish()
    _check_own(array)
    array.path.replace(output)


def _begin_pass(part: PartFolder, images: DecodedImages, work: list) -> tuple[dict, ArrayFile]:
    """Take up an earlier pass over the same images, or begin a new one in place of any other.

    Both the name of the array and the record carry the token of the job that writes them. An earlier array is renamed:
    a job that was taken for dead can then neither record progress nor finish, and a record never describes an array
    that another job wrote.
    """
    fingerprint = hashlib.sha256(json.dumps(work).encode()).hexdigest()
    own, record_file = part.path / f"images.{part.token}.npy", part.path / "record.json"
    record = read_json(record_file) if record_file.is_file() else {}
    # A pass of release 0.1.0 has no token; two jobs may have shared its array.
    earlier = part.path / f"images.{record.get('token')}.npy"
    if record.get("fingerprint") == fingerprint and earlier.is_file():
        earlier.rename(own)
        record["token"] = part.token
        write_json(record_file, record)
        return record, ArrayFile(own, "r+")
    for path in (record_file, *part.path.glob("images*.npy")):
        path.unlink(missing_ok=True)
    record = {"fingerprint": fingerprint, "token": part.token, "done": 0, "unreadable": []}
    return record, ArrayFile.create(own, (len(images), *images.shape), np.uint8)


def _check_own(array: ArrayFile) -> None:
    """Stop a job whose array another job took over or removed."""
    if not array.path.is_file():
        raise InputError(f"{array.path.parent}: another job has taken over; run again when it has ended")

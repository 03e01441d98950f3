"""Small readers shared by the indexers of original layouts."""

from pathlib import Path

from ssltransfer.errors import InputError

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}


def read_lines(path: Path) -> list[str]:
    """Non-empty lines of a split file; a byte-order mark and Windows line ends are taken off."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path} is missing; it belongs to the original layout of the data set") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def class_folders(folder: Path) -> list[str]:
    """Names of the sub-folders in alphabetical (code point) order, whatever the file system's."""
    if not folder.is_dir():
        raise InputError(f"{folder} is missing; it belongs to the original layout of the data set")
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir())


def image_files(folder: Path) -> list[str]:
    """Names of the image files directly in a folder, in alphabetical order."""
    return sorted(entry.name for entry in folder.iterdir() if entry.suffix.lower() in IMAGE_SUFFIXES)

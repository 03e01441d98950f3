"""Bring the published files into one folder and verify them."""

import shutil
from pathlib import Path

import pooch

from ssltransfer.checkpoints.convert import sha256_of
from ssltransfer.errors import InputError
from ssltransfer.files import replacing


def resolve(source: str) -> str:
    """Return the URL or ``file:`` path behind a source; ``torchvision:NAME`` is looked up in torchvision."""
    kind, _, name = source.partition(":")
    if kind != "torchvision":
        return source
    from torchvision.models import get_weight  # seconds of import that no other source needs

    try:
        return get_weight(name).url
    except (ValueError, AttributeError):
        raise InputError(f"source {source!r}: torchvision has no weights of that name") from None


def fetch(source: str, sha256: str, folder: Path) -> None:
    """Copy or download `source` into `folder` and check its SHA-256 (unless `sha256` is empty).

    Raises
    ------
    InputError
        If it cannot be had (with what to place where), or if the checksum differs (with both).
    """
    location = resolve(source)
    target = folder / Path(location).name
    if location.startswith("file:"):
        original = Path(location.removeprefix("file:"))
        if not original.is_file():
            raise InputError(f"source {source!r}: {original} is no file")
        with replacing(target) as temporary:
            shutil.copyfile(original, temporary)
    elif not target.is_file():
        try:
            pooch.retrieve(location, known_hash=None, fname=target.name, path=folder, progressbar=True)
        except Exception as error:  # the network has many ways to fail
            reason = str(error).splitlines()[0]
            raise InputError(f"{location} cannot be fetched ({reason}); place it at {target}") from None
    if sha256 and (found := sha256_of(target)) != sha256:
        target.unlink()
        raise InputError(f"{target}: sha256 is {found}, config/models.tsv says {sha256}")

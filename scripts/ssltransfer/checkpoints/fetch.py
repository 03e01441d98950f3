"""Bring the published files of a model into one folder and verify them.

A file whose checksum nobody published is trusted on first use: its hash is written to a pin, a small file for the user
to commit, and a later difference is an error.
"""

import logging
import shutil
from datetime import UTC, datetime
from pathlib import Path

from ssltransfer.checkpoints.sources import Location, parse_source
from ssltransfer.download import check_file, download, file_hash
from ssltransfer.errors import InputError
from ssltransfer.files import read_json, replacing, write_json

log = logging.getLogger(__name__)


def fetch(source: str, checksum: str, folder: Path, pin: Path) -> dict:
    """Fetch the files of the first alternative of `source` that can be had whole.

    Parameters
    ----------
    source : str
        See `sources.parse_source`.
    checksum : str
        Published SHA-256 of a single file, or its first digits, or ``md5:`` and digits; empty if none is known.
    folder : Path
        Where the files go. Files already there are verified and kept, so that they can be placed by hand.
    pin : Path
        The pin; written if it does not exist.

    Returns
    -------
    dict
        ``files``: for each its ``name``, ``sha256``, ``size`` and ``source``.

    Raises
    ------
    InputError
        If no alternative can be had (with what to place where), or a file differs from its checksum or pin.
    """
    pins = {file["name"]: file for file in read_json(pin)["files"]} if pin.is_file() else {}
    failures = []
    for locations in parse_source(source):
        try:
            files = [_fetch_file(location, checksum, folder, pins.get(location.name)) for location in locations]
        except InputError as error:
            failures.append(str(error))
            continue
        manifest = {"files": files}
        if not pin.is_file():
            write_json(pin, manifest)
            log.info("first use: hashes written to %s; commit it to notice any later change", pin)
        elif changed := [file["name"] for file in files if file["name"] not in pins]:
            raise InputError(
                f"{pin} has no entry for {changed[0]}; delete the pin to trust the files that are there now"
            )
        return manifest
    raise InputError(" | ".join(failures))


def _fetch_file(location: Location, checksum: str, folder: Path, pin: dict | None) -> dict:
    target = folder / location.name
    kind, _, digits = checksum.rpartition(":")
    known = {"md5" if kind == "md5" else "sha256": digits}
    folder.mkdir(parents=True, exist_ok=True)
    if location.address.startswith("file:"):
        _copy(Path(location.address.removeprefix("file:")), target)
        check_file(target, **known)
        address = location.address
    else:
        address = download([location.address], target, **known) or "placed by hand"
    found = {"name": location.name, "sha256": file_hash(target), "size": target.stat().st_size}
    if pin is not None and (found["sha256"], found["size"]) != (pin["sha256"], pin["size"]):
        raise InputError(
            f"{target}: sha256 is {found['sha256']}, it was {pin['sha256']} when first fetched ({pin['date']}); "
            "if the change is intended, delete the model's file in resources/checkpoint-pins"
        )
    date = datetime.now(UTC).date().isoformat()
    return found | {"source": address, "date": date}


def _copy(original: Path, target: Path) -> None:
    if not original.is_file():
        raise InputError(f"source file:{original}: there is no such file")
    with replacing(target) as temporary:
        shutil.copyfile(original, temporary)


def manifest_files(manifest: dict, folder: Path) -> list[Path]:
    """Return the files of a manifest, once their hashes are what it says.

    Raises
    ------
    InputError
        If a file is missing or has changed since it was fetched.
    """
    files = []
    for file in manifest["files"]:
        path = folder / file["name"]
        if not path.is_file():
            raise InputError(f"{path} is missing; place it there, or delete the manifest to fetch it again")
        check_file(path, size=file["size"], sha256=file["sha256"])
        files.append(path)
    return files

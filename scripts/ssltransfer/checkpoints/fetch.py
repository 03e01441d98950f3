"""Fetch the published files of a model into one folder and verify them.

A file whose checksum nobody published is trusted on first use: once it has been read as what it is meant to be,
its hash is written to a pin, a small file for the user to commit, and a later difference is an error. Files on this
machine are the user's own to replace: they are pinned only where the row has a checksum.
"""

import logging
import re
import shutil
import zipfile
from datetime import UTC, datetime
from pathlib import Path

from ssltransfer.checkpoints.file_kind import refuse_pages
from ssltransfer.checkpoints.sources import Location, local_state, parse_checkpoint_source
from ssltransfer.download import check_file, download
from ssltransfer.errors import InputError, first_line
from ssltransfer.files import atomic_write, file_hash, read_json, write_json
from ssltransfer.safe_pickle import check_archive

log = logging.getLogger(__name__)


def fetch(source: str, checksum: str, folder: Path, pin: Path) -> dict:
    """Fetch the files of the first alternative of `source` that is completely available.

    Parameters
    ----------
    source : str
        See `sources.parse_checkpoint_source`.
    checksum : str
        Published SHA-256 of a single file, or its first digits, or ``md5:`` and digits; empty if none is known.
    folder : Path
        Where the files go. Files already there are verified and kept, so that they can be placed by hand.
    pin : Path
        The pin; its hashes hold if it exists.

    Returns
    -------
    dict
        ``files``: for each its ``name``, ``sha256``, ``size`` and ``source``. ``local``, where the source names files
        on this machine: their size and time before they were copied. ``pin``, where there is none yet: the path to
        which `write_pin` writes one.

    Raises
    ------
    InputError
        If no alternative is available (with what to place where), or a file differs from its checksum or pin, stands
        for another (`file_kind.refuse_pages`), or is an archive that differs from the checksums within it.
    """
    pins = _read_pins(pin)
    state = local_state(source)
    failures = []
    for locations in parse_checkpoint_source(source):
        if pins and (unpinned := [location.name for location in locations if location.name not in pins]):
            failures.append(f"{pin} has no entry for {unpinned[0]}")
            continue
        try:
            files = [_fetch_file(location, checksum, folder, pins.get(location.name)) for location in locations]
        except InputError as error:
            failures.append(str(error))
            continue
        own = all(location.address.startswith("file:") for location in locations)
        return (
            {"files": files}
            | ({"local": state} if state else {})
            | ({"pin": str(pin)} if not pins and (checksum or not own) else {})
        )
    hint = f"; if another file is meant, delete {pin} and the file in {folder}" if pins else ""
    raise InputError(" | ".join(failures) + hint)


def write_pin(manifest: dict) -> None:
    """Write the pin of a manifest, if it names one that does not exist: its files have been read as they should be."""
    pin = Path(manifest.get("pin", ""))
    if "pin" in manifest and not pin.exists():
        write_json(pin, {"files": manifest["files"]})
        log.info("first use: hashes written to %s; commit it to notice any later change", pin)


def fetch_if_possible(source: str, checksum: str, folder: Path, pin: Path) -> dict:
    """Fetch as `fetch`; on failure return a manifest without files, with the error message as ``absent``."""
    try:
        return fetch(source, checksum, folder, pin)
    except InputError as error:
        return {"files": [], "absent": str(error)}


def _read_pins(pin: Path) -> dict[str, dict]:
    """Entries of a pin by file name, empty if there is none; InputError if it is damaged."""
    if not pin.is_file():
        return {}
    try:
        pins = {file["name"]: file for file in read_json(pin)["files"]}
        whole = all(re.fullmatch("[0-9a-f]{64}", file["sha256"]) for file in pins.values())
        if pins and whole and all({"size", "source", "date"} <= set(file) for file in pins.values()):
            return pins
    except (ValueError, KeyError, TypeError):
        pass
    raise InputError(f"{pin} is not a pin that this workflow wrote; restore it, or delete it to trust the files anew")


def _fetch_file(location: Location, checksum: str, folder: Path, pin: dict | None) -> dict:
    target = folder / location.name
    kind, _, digits = checksum.rpartition(":")
    known = {"md5" if kind == "md5" else "sha256": digits}
    pinned = {} if pin is None else {"sha256": pin["sha256"]}
    folder.mkdir(parents=True, exist_ok=True)
    if location.address.startswith("file:"):
        address = location.address
        _copy(Path(address.removeprefix("file:")), target, known | pinned)
    else:
        address = download([location.address], target, **known | pinned) or "placed by hand"
    check_file(target, **known)
    refuse_pages(target)
    _check_archive(target)
    if pin is not None:
        return pin  # with the address and date of the first fetch, also if the file was brought again
    found = {"name": location.name, "sha256": file_hash(target), "size": target.stat().st_size}
    return found | {"source": address, "date": datetime.now(UTC).date().isoformat()}


def _check_archive(path: Path) -> None:
    """Require a zip archive to match the checksums that it holds; other files hold none that could be checked here."""
    with path.open("rb") as file:
        zipped = file.read(4) == b"PK\x03\x04"
    if not zipped:
        return
    try:
        with zipfile.ZipFile(path) as archive:
            check_archive(archive)
    except Exception as error:  # a damaged file can raise nearly anything
        raise InputError(f"{path} is damaged ({first_line(error)}); delete it to fetch it again") from None


def _copy(original: Path, target: Path, known: dict[str, str]) -> None:
    """Copy a file once it is the right one; a copy whose original is gone is checked and kept."""
    if not original.is_file():
        if not target.is_file():
            kind = "it is a folder" if original.is_dir() else f"there is no such file, nor {target}"
            raise InputError(f"source file:{original}: {kind}; write the path of the file of weights")
        original = target
    refuse_pages(original)
    check_file(original, **known)
    if original != target:
        with atomic_write(target) as temporary:
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
            raise InputError(
                f"{path} is missing; place it there, or delete the manifest in results (MODEL.manifest.json, "
                "lpips/NETWORK.json) to fetch it again"
            )
        check_file(path, size=file["size"], sha256=file["sha256"])
        files.append(path)
    return files

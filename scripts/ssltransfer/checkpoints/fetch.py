"""Fetch the published files of a model into one folder and verify them.

A file whose checksum nobody published is trusted on first use: once it has been read as what it is meant to be,
its hash is written to a pin, a small file for the user to commit, and a later difference is an error. Files on this
machine are the user's own to replace: they are pinned only where the row has a checksum.

The pin also holds a hash of the converted tensors. It is what a copy of the weights in another format, with other
bytes, is compared with.
"""

import logging
import re
import shutil
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from ssltransfer.checkpoints.file_kind import refuse_pages
from ssltransfer.checkpoints.sources import (
    Alternative,
    Location,
    local_state,
    parse_alternatives,
    parse_checkpoint_source,
)
from ssltransfer.download import check_file, download
from ssltransfer.errors import InputError, first_line
from ssltransfer.files import atomic_write, file_hash, read_json, write_json
from ssltransfer.safe_pickle import check_archive

log = logging.getLogger(__name__)


class Pin(NamedTuple):
    """Content of a pin: the entry of each file by its name, and the hash of the converted tensors (or nothing)."""

    files: dict[str, dict]
    tensors: str


def fetch(source: str, checksum: str, folder: Path, pin: Path, alternatives: str = "") -> dict:
    """Fetch the files of the first alternative of `source`, then of `alternatives`, that is completely available.

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
    alternatives : str
        See `sources.parse_alternatives`; `checksum` is none of theirs. Where a pin exists that does not know their
        files, they are taken only if it has a hash of tensors, which `pin_tensors` compares after the conversion; the
        same holds for the source where the pin was written for one of them.

    Returns
    -------
    dict
        ``files``: for each its ``name``, ``sha256``, ``size`` and ``source``. ``local``, where the source names files
        on this machine: their size and time before they were copied. ``pin``, where there is none yet: the path to
        which `write_pin` writes one. ``format``, of files of `alternatives`: their format.

    Raises
    ------
    InputError
        If no alternative is available (with what to place where), or a file differs from its checksum or pin, stands
        for another (`file_kind.refuse_pages`), or is an archive that differs from the checksums within it.
    """
    pins, tensors = _read_pin(pin)
    of_copy = any("/" in name for name in pins)  # the source is then what has to be compared
    state = local_state(source)
    failures = []
    options = [Alternative("", files) for files in parse_checkpoint_source(source)]
    for format_, locations in [*options, *parse_alternatives(alternatives)]:
        unpinned = [location.name for location in locations if location.name not in pins]
        if pins and unpinned and not (tensors and (format_ or of_copy)):
            hashes = "" if not format_ else ", nor a hash of tensors to compare it with"
            failures.append(f"{pin} has no entry for {unpinned[0]}{hashes}")
            continue
        known = "" if format_ else checksum
        try:
            files = [_fetch_file(location, known, folder, pins.get(location.name)) for location in locations]
        except InputError as error:
            failures.append(str(error))
            continue
        if failures:
            log.warning("%s; taken instead: %s", " | ".join(failures), " ".join(file["source"] for file in files))
        own = all(location.address.startswith("file:") for location in locations)
        return (
            {"files": files}
            | ({"local": state} if state else {})
            | ({"pin": str(pin)} if not pins and (checksum or not own) else {})
            | ({"format": format_} if format_ else {})
        )
    hint = f"; if another file is meant, delete {pin} and the file in {folder}" if pins else ""
    raise InputError(" | ".join(failures) + hint)


def write_pin(manifest: dict) -> None:
    """Write the pin of a manifest, if it names one that does not exist: its files have been read as they should be."""
    pin = Path(manifest.get("pin", ""))
    if "pin" in manifest and not pin.exists():
        write_json(pin, {"files": manifest["files"]})
        log.info("first use: hashes written to %s; commit it to notice any later change", pin)


def pin_tensors(manifest: dict, pin: Path, tensors: str) -> None:
    """Record the hash of converted tensors in the pin of a model, or compare it with what other files gave.

    Parameters
    ----------
    manifest : dict
        Result of `fetch`.
    pin : Path
        Nothing is done where there is none, or where the manifest has no files, as that of a user's own module.
    tensors : str
        See `tensor_file.tensor_hash`.

    Raises
    ------
    InputError
        If the files are not those of the pin and their tensors differ from those that it was written for.
    """
    pinned = _read_pin(pin)
    if not pinned.files or not manifest["files"] or tensors == pinned.tensors:
        return
    if all(pinned.files.get(file["name"], {}).get("sha256") == file["sha256"] for file in manifest["files"]):
        write_json(pin, read_json(pin) | {"tensors": tensors})
        log.info("hash of the tensors written to %s; commit it to compare copies in other formats", pin)
        return
    advice = "take it out of the column alternatives" if "format" in manifest else f"if it is meant, delete {pin}"
    raise InputError(
        f"{manifest['files'][0]['source']}: its tensors (sha256 {tensors[:12]}) differ from those of {pin} "
        f"({pinned.tensors[:12] or 'none'}), so it holds other weights; {advice} and delete the model's manifest in "
        "results/checkpoints"
    )


def fetch_if_possible(source: str, checksum: str, folder: Path, pin: Path) -> dict:
    """Fetch as `fetch`; on failure return a manifest without files, with the error message as ``absent``."""
    try:
        return fetch(source, checksum, folder, pin)
    except InputError as error:
        return {"files": [], "absent": str(error)}


def _read_pin(pin: Path) -> Pin:
    """Read a pin, empty if there is none; InputError if it is damaged."""
    if not pin.is_file():
        return Pin({}, "")
    try:
        content = read_json(pin)
        pins, tensors = {file["name"]: file for file in content["files"]}, content.get("tensors", "")
        whole = all(re.fullmatch("[0-9a-f]{64}", file["sha256"]) for file in pins.values())
        whole &= re.fullmatch("([0-9a-f]{64})?", tensors) is not None
        if pins and whole and all({"size", "source", "date"} <= set(file) for file in pins.values()):
            return Pin(pins, tensors)
    except (ValueError, KeyError, TypeError):
        pass
    raise InputError(f"{pin} is not a pin that this workflow wrote; restore it, or delete it to trust the files anew")


def _fetch_file(location: Location, checksum: str, folder: Path, pin: dict | None) -> dict:
    target = folder / location.name
    kind, _, digits = checksum.rpartition(":")
    known = {"md5" if kind == "md5" else "sha256": digits}
    pinned = {} if pin is None else {"sha256": pin["sha256"]}
    target.parent.mkdir(parents=True, exist_ok=True)
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

"""Tell files of weights from what is often found in their place: pointers, web pages, archives of other programs."""

import json
import re
import zipfile
from pathlib import Path

from ssltransfer.errors import InputError
from ssltransfer.safe_pickle import shown

SAVE_STATE_DICT = "torch.save(model.state_dict(), 'weights.pth')"
"""The line that saves a file that can be read."""

_SIGNATURES = (
    (b"\x89HDF\r\n", 0, "an HDF5 file"),
    (b"\x1f\x8b", 0, "a gzip file"),
    (b"BZh", 0, "a bzip2 file"),
    (b"\xfd7zXZ", 0, "an xz file"),
    (b"\x28\xb5\x2f\xfd", 0, "a zstandard file"),
    (b"7z\xbc\xaf", 0, "a 7z archive"),
    (b"Rar!", 0, "a rar archive"),
    (b"ustar", 257, "a tar archive"),
    (b"\x93NUMPY", 0, "a numpy array"),
    (b"GGUF", 0, "a GGUF file"),
)
"""First bytes, their position, and the kind of file."""

_UNPACKED = ("gzip", "bzip2", "xz ", "zstandard", "7z", "rar", "tar")


def refuse_pages(path: Path) -> None:
    """Refuse (InputError) files that stand for another: empty ones, git-lfs pointers, web pages and error answers."""
    size = path.stat().st_size
    if size == 0:
        raise InputError(f"{path} is empty; delete it and fetch it again")
    with path.open("rb") as file:
        start = file.read(4096)
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n")
    if start.startswith(b"version https://git-lfs.github.com/spec/"):
        found = re.search(rb"^size (\d+)", start, re.MULTILINE)
        whole = f" of {int(found[1]):,} bytes" if found else ""
        raise InputError(
            f"{path} is a git-lfs pointer to a file{whole}, not the file; run `git lfs pull` in its repository, or "
            "download the file itself"
        )
    if re.match(rb"<(!doctype html|html|head|body)", text, re.IGNORECASE):
        raise InputError(
            f"{path} is a web page (a login form or an error?), not weights; delete it and write the address of the "
            "file itself"
        )
    if text.startswith(b"<?xml") or re.match(rb"<\w+>", text):
        code = re.search(rb"<Code>(\w{1,40})</Code>", start)
        reason = f" ({code[1].decode()})" if code else ""
        raise InputError(
            f"{path} is an XML page{reason}, not weights; delete it and write the address of the file itself"
        )
    if text[:1] in (b"{", b"[") and _is_json(path, size):
        raise InputError(
            f"{path} is JSON text, {shown([text[:60].decode(errors='replace')])}, not weights; delete it and write the "
            "address of the file itself"
        )


def _is_json(path: Path, size: int) -> bool:
    if size > 1 << 24:
        return False
    try:
        json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return False
    return True


def is_safetensors(path: Path) -> bool:
    """Whether a file is, by its name or its first bytes, a safetensors file."""
    with path.open("rb") as file:
        start = file.read(9)
    return path.suffix == ".safetensors" or (
        start[8:] == b"{" and 2 <= int.from_bytes(start[:8], "little") <= path.stat().st_size - 8
    )


def file_kind(path: Path) -> str:
    """Name the kind of a file, by its first bytes.

    Returns
    -------
    str
        ``safetensors``, ``torch`` (the zip archive), ``old torch``, or another kind with its article, as in "an HDF5
        file"; ``pickle`` for pickles that torch did not write, empty if nothing is known.
    """
    with path.open("rb") as file:
        start = file.read(512)
    if start.startswith(b"PK\x03\x04"):
        return _archive_kind(path)
    if b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19." in start:  # the magic number of torch, pickled
        return "old torch"
    for signature, position, kind in _SIGNATURES:
        if start[position : position + len(signature)] == signature:
            return kind
    if is_safetensors(path):
        return "safetensors"
    if path.suffix == ".onnx":
        return "an ONNX file"
    if start[:1] == b"\x80" and start[1:2] <= b"\x05":
        return "pickle"
    return ""


def _archive_kind(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError):
        return "a cut zip archive"
    last = {name.rpartition("/")[2] for name in names}
    if "constants.pkl" in last:
        return "a TorchScript archive"
    if "data.pkl" in last:
        return "torch"
    if names and all(name.endswith(".npy") for name in names):
        return "an archive of numpy arrays"
    if any(name.endswith(".index") for name in names):
        return "an archive of a TensorFlow checkpoint"
    return "a zip archive"


def refuse_other_files(path: Path) -> None:
    """Refuse (InputError) a file that is neither a torch file nor a safetensors file, with what to do instead."""
    refuse_pages(path)
    kind = file_kind(path)
    if kind == "a cut zip archive":
        raise InputError(
            f"{path} cannot be read as a torch file: it is cut ({path.stat().st_size:,} bytes); fetch it again"
        )
    if kind == "a TorchScript archive":
        raise InputError(
            f"{path} is {kind}, which holds code; save its weights where it can be loaded: "
            "torch.save(torch.jit.load('file').state_dict(), 'weights.pth')"
        )
    if kind == "pickle":
        raise InputError(
            f"{path} cannot be read as a torch file: it is a pickle that torch did not write; write format byol, if "
            f"it is BYOL's, or load it where it was made and save its tensors: {SAVE_STATE_DICT}"
        )
    if kind.startswith(("a ", "an ")):
        advice = (
            "unpack it and name the file of weights in it"
            if any(word in kind for word in (*_UNPACKED, "a zip"))
            else "write format simclr, if it is SimCLR's"
            if "TensorFlow" in kind
            else f"load it where it was made and save its tensors, as {SAVE_STATE_DICT} does"
        )
        raise InputError(f"{path} cannot be read as a torch file: it is {kind}; {advice}")

"""The `source` column of `models.tsv`: where the published files of a model are."""

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from ssltransfer.errors import InputError
from ssltransfer.files import expand_path, file_state, read_json
from ssltransfer.models.timm_catalog import find_weights

OWN_WEIGHTS = "module:own"
"""Source of a user's module that has its weights when its function returns it."""

FEATURES = "features:"
"""Beginning of the source of features that are given instead of a network; their folder follows."""

_HUB_FILE = re.compile(r"([^/@\s]+/[^/@\s]+)(?:@([^/\s]+))?/(\S+)")
_BRACES = re.compile(r"(.*)\{([^{}]+)\}(.*)")


class Location(NamedTuple):
    """One file of a source: its address (a URL, or ``file:PATH``) and the name it is kept under."""

    address: str
    name: str


def parse_checkpoint_source(source: str) -> list[list[Location]]:
    """Parse a source into its alternatives, each a list of files.

    Alternatives are separated by blanks and tried in order. ``https://host/model.{index,data}`` names several files;
    ``hf:OWNER/REPOSITORY/FILE`` is on the Hugging Face hub, with ``@REVISION`` behind the repository if not the newest
    is meant; ``timm:NAME.TAG`` is the hub's file of weights that timm publishes, else its authors';
    ``torchvision:NAME`` is looked up in torchvision. What ``module:own`` names, the weights of a user's
    module, has no files.

    Raises
    ------
    InputError
        If an alternative has none of these forms.
    """
    if source == OWN_WEIGHTS:
        return [[]]
    alternatives = [[_locate(address) for address in _expand(text)] for text in source.split()]
    for locations in alternatives:
        names = [location.name for location in locations]
        if wrong := [name for name in names if name in ("", "..") or not name.isprintable() or names.count(name) > 1]:
            raise InputError(
                f"source {source!r}: the file name {wrong[0]!r} is invalid or occurs twice; name another file"
            )
    return alternatives


class Alternative(NamedTuple):
    """Files that hold the weights of a model in another format than its source, and that format."""

    format: str
    files: list[Location]


def parse_alternatives(text: str) -> list[Alternative]:
    """Parse the column `alternatives`: ``FORMAT=SOURCE``, separated by blanks and tried in order.

    Their files are kept in a folder of their format, apart from those of the source, which may have the same names.

    Raises
    ------
    InputError
        If one has no format, names a file of this machine, or two would be kept under one name.
    """
    found: list[Alternative] = []
    for word in text.split():
        format_, _, source = word.partition("=")
        if not source or format_ in ("", ".", "..") or "/" in format_:
            raise InputError(f"alternatives: found {word!r}, expected FORMAT=SOURCE, such as torchvision=https://...")
        if source.startswith(("file:", "torchvision:", "module:")):  # which planning could not look up, or no file
            raise InputError(f"alternatives: found {word!r}, expected an address (https://, hf: or timm:)")
        files = [Location(address, f"{format_}/{name}") for address, name in parse_checkpoint_source(source)[0]]
        if same := {file.name for file in files} & {file.name for other in found for file in other.files}:
            raise InputError(f"alternatives: two files would be kept as {min(same)}; keep one of them")
        found.append(Alternative(format_, files))
    return found


def all_sources(row: Mapping[str, str]) -> str:
    """Return the source of a row and those of its alternatives, separated by blanks."""
    return " ".join([row["source"], *(word.partition("=")[2] for word in row.get("alternatives", "").split())])


def local_files(source: str) -> list[str]:
    """Paths of the files of a source that are said to be on this machine."""
    addresses = [address for text in source.split() for address in _expand(text)]
    return [expand_path(address.removeprefix("file:")) for address in addresses if address.startswith("file:")]


def given_file(source: str, dataset: str) -> Path:
    """Return the path of the given features of a dataset below the folder of a source ``features:FOLDER``."""
    return Path(expand_path(source.removeprefix(FEATURES)), f"{dataset}.npz")


def local_state(source: str) -> dict[str, list[int]]:
    """Size and time (seconds) of the files of a source that are on this machine, by path."""
    return {path: file_state(path) for path in local_files(source) if Path(path).is_file()}


def source_with_state(source: str, manifest: str | Path) -> str | list:
    """Return a source, in a list with the `local_state` of its files where there are any: a parameter of a rule.

    Snakemake runs a job again for an input that is newer than its output. A file replaced by an older one is noticed
    by this parameter. It is the source alone where the manifest was written by release 0.1.0, which did not record
    the state, and the sizes are still the same.
    """
    state = local_state(source)
    try:
        fetched = read_json(manifest)
        sizes = {file["name"]: file["size"] for file in fetched["files"]}
        earlier = "local" not in fetched and sizes
    except (OSError, InputError, KeyError, TypeError):
        earlier = False
    if not state or (earlier and all(sizes.get(PurePosixPath(p).name, size) == size for p, (size, _) in state.items())):
        return source
    return [source, state]


def _expand(text: str) -> list[str]:
    match = _BRACES.fullmatch(text)
    return [match[1] + part + match[3] for part in match[2].split(",")] if match else [text]


def _locate(text: str) -> Location:
    kind, _, rest = text.partition(":")
    if kind == "hf":
        match = _HUB_FILE.fullmatch(rest)
        if match is None or ".." in rest.split("/"):
            raise InputError(f"source {text!r}: write hf:OWNER/REPOSITORY/FILE, or hf:OWNER/REPOSITORY@REVISION/FILE")
        text = _hub_url(match[1], match[3], match[2] or "main")
    elif kind == "timm":
        weights = find_weights(rest)
        text = _hub_url(weights.repository, "model.safetensors") if weights.repository else weights.url
    elif kind == "torchvision":
        text = _torchvision_url(rest, text)
    elif kind == "file":
        return Location(f"file:{expand_path(rest)}", PurePosixPath(rest).name)
    elif kind not in ("http", "https"):
        raise InputError(
            f"source {text!r}: write a URL, file:PATH, hf:OWNER/REPOSITORY/FILE, timm:NAME.TAG or torchvision:NAME"
        )
    try:
        name = PurePosixPath(unquote(urlsplit(text).path)).name
    except ValueError as error:
        raise InputError(f"source {text!r}: {error}") from None
    if not name:
        raise InputError(f"source {text!r}: the address ends in no file name; write that of a file")
    return Location(text, name)


def _hub_url(repository: str, file: str, revision: str = "main") -> str:
    return f"https://huggingface.co/{repository}/resolve/{revision}/{file}"


def _torchvision_url(name: str, text: str) -> str:
    from torchvision.models import get_weight  # seconds of import that no other source needs

    try:
        return get_weight(name).url
    except (ValueError, AttributeError, KeyError):
        raise InputError(
            f"source {text!r}: torchvision has no weights of that name; write one like ResNet50_Weights.IMAGENET1K_V1"
        ) from None

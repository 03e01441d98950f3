"""Bundles: folders of published scores with what they were measured with, and checksums of all files."""

import json
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path

from ssltransfer.config.suite import Cell
from ssltransfer.config.validation import check_schema
from ssltransfer.errors import InputError
from ssltransfer.files import check_depth, expand_path, file_hash, read_json, write_json
from ssltransfer.hub import PREFIX, parse_hub_dataset
from ssltransfer.hub_download import fetch_hub_dataset
from ssltransfer.results.outcome_header import outcome_path
from ssltransfer.results.score_reader import read_score
from ssltransfer.settings import read_schema

MANIFEST = "bundle.json"
CHECKSUMS = "SHA256SUMS"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Bundle:
    """A folder of published scores.

    Attributes
    ----------
    source : str
        As a suite names it: a folder, or ``hf:OWNER/NAME@REVISION``.
    folder : Path
    manifest : dict
        Content of `MANIFEST`: ``models`` (rows of the model table), ``datasets`` (label, licence and the hash of the
        index), ``recipes``, ``norms`` and ``components`` (versions of the code); see the schema ``bundle``.
    checksums : dict of str to str
        File -> its SHA-256.
    """

    source: str
    folder: Path
    manifest: dict
    checksums: dict[str, str]

    def cells(self) -> list[Cell]:
        """Return the cells whose scores are in the bundle."""
        paths = [Path(name) for name in self.checksums if name.startswith("scores/") and name.endswith(".json")]
        return [Cell(*path.with_suffix("").parts[1:]) for path in paths if len(path.parts) == 4]

    def score_file(self, cell: Cell) -> Path:
        """Return the path of a score, in `folder`."""
        return self.folder / "scores" / cell.protocol / cell.model / f"{cell.dataset}.json"

    def read_score(self, cell: Cell) -> dict:
        """Read the score of a cell.

        Raises
        ------
        InputError
            The score or its outcomes have changed, are missing or are not listed, the score is damaged or of another
            cell, or the manifest lacks its model.
        """
        path = self.score_file(cell)
        if cell.model not in self.manifest["models"]:
            raise InputError(f"{self.folder / MANIFEST}: models: {cell.model} is missing; its publisher has to add it")
        self._verify_file(f"scores/{'/'.join(path.parts[-3:])}")
        outcomes = outcome_path(path)
        name = f"outcomes/{'/'.join(outcomes.parts[-3:])}"
        if name in self.checksums or outcomes.is_file():
            self._verify_file(name)
        check_depth(path, read_json(path))
        score = read_score(path)
        if (found := Cell(score["protocol"], score["model"], score["dataset"])) != cell:
            raise InputError(f"{path}: holds the score of {'/'.join(astuple(found))}; its publisher has to correct it")
        return score

    def _verify_file(self, name: str) -> None:
        path = self.folder / name
        if name not in self.checksums:
            raise InputError(f"{path} is not listed in {CHECKSUMS}; fetch the bundle again")
        if not path.is_file():
            raise InputError(f"{path} is missing, but {CHECKSUMS} lists it; fetch the bundle again")
        if (found := file_hash(path)) != (expected := self.checksums[name]):
            raise InputError(f"{path}: found sha256 {found}, {CHECKSUMS} says {expected}; fetch the bundle again")


def read_bundle(source: str) -> Bundle:
    """Read the manifest and checksums of a bundle.

    Parameters
    ----------
    source : str
        A folder, or ``hf:OWNER/NAME@REVISION``, which is downloaded once.

    Raises
    ------
    InputError
        The folder is no bundle, its manifest is damaged, or it is of a later version of this project.
    """
    folder = _hub_folder(source) if source.startswith(PREFIX) else Path(expand_path(source))
    for name in (MANIFEST, CHECKSUMS):
        if not (folder / name).is_file():
            raise InputError(f"adopt: {source}: {name} is missing; name a folder that ssltransfer publish has written")
    checksums = read_checksums(folder / CHECKSUMS)
    bundle = Bundle(source, folder, read_json(folder / MANIFEST), checksums)
    check_depth(folder / MANIFEST, bundle.manifest)
    if isinstance(bundle.manifest, dict) and (version := bundle.manifest.get("schema")) != SCHEMA_VERSION:
        raise InputError(
            f"{folder / MANIFEST}: schema: {version!r} found, this version of ssltransfer reads {SCHEMA_VERSION}; "
            "update ssltransfer"
        )
    check_schema(bundle.manifest, read_schema("bundle"), str(folder / MANIFEST))
    bundle._verify_file(MANIFEST)
    return bundle


def _hub_folder(source: str) -> Path:
    """Return the folder of a bundle on the hub; its features and predictions are left there."""
    dataset = parse_hub_dataset(source.removeprefix(PREFIX))
    patterns = [MANIFEST, CHECKSUMS, "scores/*", "outcomes/*"]
    try:
        folder = fetch_hub_dataset(dataset, patterns, cached=True)
        listed = [name for name in read_checksums(folder / CHECKSUMS) if name.startswith(("scores/", "outcomes/"))]
        if all((folder / name).is_file() for name in listed):
            return folder
    except (InputError, OSError):
        pass
    return fetch_hub_dataset(dataset, patterns)


@contextmanager
def new_folder(folder: str | Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `folder` on success; InputError if something is there already."""
    folder = Path(folder)
    if folder.exists():
        raise InputError(f"{folder} is there already; name a folder that is not")
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read_checksums(path: Path) -> dict[str, str]:
    """Read a file of ``sha256sum``; InputError if a line has another form or names a file outside of the folder."""
    checksums = {}
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        digest, _, name = line.partition("  ")
        if len(digest) != 64 or not name or Path(name).is_absolute() or ".." in Path(name).parts:
            raise InputError(f"{path}, line {number}: found {line!r}, expected a SHA-256, two spaces and a file below")
        checksums[name] = digest
    return checksums


def write_manifest(folder: Path, manifest: dict) -> None:
    """Write the manifest of a bundle; InputError if it does not fit its schema, by which others read it."""
    content = json.loads(json.dumps({"schema": SCHEMA_VERSION, **manifest}))
    check_schema(content, read_schema("bundle"), MANIFEST)
    write_json(folder / MANIFEST, content)


def write_checksums(folder: Path) -> None:
    """Write the checksums of all files of a folder, as ``sha256sum --check`` reads them."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != CHECKSUMS)
    lines = [f"{file_hash(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    (folder / CHECKSUMS).write_text("".join(lines), encoding="utf-8")

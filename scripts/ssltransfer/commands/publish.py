"""Publishing of a suite: its scores in one folder, with what others need to read, check, cite and adopt them."""

import json
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from ssltransfer.commands.suite import ChosenSuite
from ssltransfer.config.suite import Cell
from ssltransfer.datasets.index_hash import index_hash
from ssltransfer.errors import InputError
from ssltransfer.files import read_json
from ssltransfer.jobs import package_versions
from ssltransfer.report.bundle import CHECKSUMS, new_folder, write_checksums, write_manifest
from ssltransfer.report.provenance import PACKAGES
from ssltransfer.report.public_names import public_names, rename_in_files, renamed
from ssltransfer.report.score_check import check_scores
from ssltransfer.versions import COMPONENTS

NOT_MEASURING = ("summary", "figures", "report")
"""Components that compute no score."""
SECRETS = re.compile(
    r"https?://[^/\s\"'<>@]*:[^/\s\"'<>@]+@"
    r"|[?&](?:X-Amz-Signature|X-Goog-Signature|signature|sig|token|access_token|api_?key|password|secret)=[^&\s\"'<>]{4,}"
    r"|\bhf_[A-Za-z0-9]{30,}",
    re.IGNORECASE,
)
"""Passwords and tokens in addresses, and tokens of the hub."""
TEXTS = (".json", ".csv", ".html", ".md")
"""Suffixes of files that are searched for `SECRETS`."""
README_TABLES = 30
"""Largest number of columns of a table in the README; wider ones are in the folder ``tables`` alone."""


@dataclass(frozen=True)
class Published:
    """What was published: the folder, its scores, and scores that were left out with the reason."""

    folder: Path
    scores: int
    left_out: list[str]


def publish(
    chosen: ChosenSuite,
    folder: str | Path,
    authors: Iterable[str] = (),
    predictions: bool = False,
    features: bool = False,
) -> Published:
    """Write the scores of a suite that were measured here, and all that belongs to them, into a new folder.

    Parameters
    ----------
    chosen : ChosenSuite
    folder : path
        Made; nothing may be there.
    authors : iterable of str
        Names for the metadata.
    predictions, features : bool
        Whether to add the predictions of each test image, and the features with the indexes of their datasets.

    Raises
    ------
    InputError
        The folder is there, no score was measured as the suite says, a file is a link to another folder than those of
        this clone, or an address has a password or token.
    """
    folder, suite = Path(folder), chosen.suite
    with new_folder(folder) as temporary:
        paths = {Path("results/scores", c.protocol, c.model, f"{c.dataset}.json"): c for c in suite.cells()}
        check = check_scores([path for path in paths if path.is_file()], suite)
        hashes = {
            d: index_hash(path)
            for d in dict.fromkeys(c.dataset for c in paths.values())
            if (path := _index(d)).is_file()
        }
        shown = [path for path in map(Path, check.shown) if paths[path].dataset in hashes]
        left_out = [f"{d.file}: {d.key}: found {d.found}, expected {d.expected}" for d in check.differences]
        left_out += [
            f"{path}: {_index(paths[path].dataset)} is missing; make it, so that others can compare their images"
            for path in map(Path, check.shown)
            if path not in shown
        ]
        if not shown:
            raise InputError(
                f"no score of suite {suite.name!r} can be published{f', such as {left_out[0]}' if left_out else ''}"
            )
        cells = [paths[path] for path in shown]
        manifest = _manifest(chosen, cells, hashes)
        for path in _files(chosen, shown, cells, predictions, features):
            _copy(path, temporary / path.relative_to("results" if path.is_relative_to("results") else "resources"))
        for path in Path("results", suite.name).glob("tables/*.csv"):
            _copy(path, temporary / "tables" / path.name)
        for name in ("report.html", "provenance.json"):
            if (path := Path("results", suite.name, name)).is_file():
                _copy(path, temporary / name)
        names = public_names(suite)
        manifest = renamed(manifest, names)
        rename_in_files(temporary, names)
        write_manifest(temporary, manifest)
        (temporary / "README.md").write_text(_readme(manifest, temporary), encoding="utf-8")
        metadata = json.dumps(_zenodo(manifest, authors), indent=2) + "\n"
        (temporary / ".zenodo.json").write_text(metadata, encoding="utf-8")
        _refuse_secrets(temporary)
        write_checksums(temporary)
    return Published(folder, len(shown), left_out)


def _index(dataset: str) -> Path:
    return Path("results/datasets", dataset, "index.parquet")


def _copy(source: Path, target: Path) -> None:
    """Copy a file; InputError if it is a link to another place than this clone, its results and its resources."""
    roots = [folder.resolve() for folder in (Path(), Path("results"), Path("resources"))]
    found = source.resolve()
    if source.is_symlink() and not any(found.is_relative_to(root) for root in roots):
        raise InputError(f"{source} is a link to {found}, which is not of this clone; put the file itself there")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)


def _refuse_secrets(folder: Path) -> None:
    """Refuse (InputError) to publish addresses with a password or token; the message does not repeat it."""
    for path in sorted(path for path in folder.rglob("*") if path.suffix in TEXTS):
        if found := SECRETS.search(path.read_text(encoding="utf-8", errors="replace")):
            start = re.match(r"https?://|[?&][\w-]+=|hf_", found[0], re.IGNORECASE)
            raise InputError(
                f"{path.relative_to(folder)}: found a password or token ({start and start[0]}...); take it out of "
                "the tables or the configuration, measure or summarise again, and publish then"
            )


def _files(chosen: ChosenSuite, scores: list[Path], cells: list[Cell], predictions: bool, features: bool) -> list[Path]:
    """Return the files of a suite that are copied as they are: scores, outcomes, pins and what was asked for."""
    suite, found = chosen.suite, list(scores)
    kinds = ["outcomes", *(["predictions"] if predictions else [])]
    found += [Path("results", kind, c.protocol, c.model, f"{c.dataset}.npz") for kind in kinds for c in cells]
    found += [Path("resources/checkpoint-pins", f"{model}.json") for model in dict.fromkeys(c.model for c in cells)]
    if features:
        with_features = [c for c in cells if "transform" in suite.settings(c.protocol)]
        found += [Path(path) for c in with_features for path in suite.feature_files(c)]
        found += [_index(suite.image_dataset(c.dataset)) for c in with_features]
    return [path for path in dict.fromkeys(found) if path.is_file()]


def _manifest(chosen: ChosenSuite, cells: list[Cell], hashes: Mapping[str, str]) -> dict:
    """Return what the scores were measured with (see the schema ``bundle``)."""
    suite = chosen.suite
    models = {c.model: suite.models[c.model] for c in cells}
    datasets = {c.dataset: suite.datasets[c.dataset] for c in cells}
    recipes = {row["source"].partition(":")[2]: suite.recipe(m) for m, row in models.items() if suite.recipe(m)}
    return {
        "name": suite.name,
        "title": " ".join(suite.config.get("title", suite.name).split()),
        "date": datetime.now(UTC).date().isoformat(),
        "models": {m: {key: str(value) for key, value in row.items() if key != "suites"} for m, row in models.items()},
        "datasets": {
            d: {key: row.get(key) or "" for key in ("label", "source", "licence", "reference")} | {"index": hashes[d]}
            for d, row in datasets.items()
        },
        "protocols": {c.protocol: suite.settings(c.protocol) for c in cells},
        "recipes": recipes,
        "norms": suite.input_norms,
        "components": {name: each.version for name, each in COMPONENTS.items() if name not in NOT_MEASURING},
        "versions": package_versions(*PACKAGES, "ssltransfer"),
    }


def _readme(manifest: dict, folder: Path) -> str:
    """Return the README of a bundle, which on the hub is the card of the dataset."""
    licences = [
        ["Model", "Licence of the weights", "Source"],
        *([row.get("label", m), row.get("licence", ""), row["source"]] for m, row in manifest["models"].items()),
    ]
    images = [
        ["Dataset", "Licence of the images", "Reference"],
        *([row["label"], row.get("licence", ""), row.get("reference", "")] for row in manifest["datasets"].values()),
    ]
    tables = folder / "tables" / "scores.csv"
    configs = ["configs:", "- config_name: scores", "  data_files: tables/scores.csv"] if tables.is_file() else []
    return "\n".join(
        [
            *("---", "license: cc-by-4.0", "tags: [transfer-learning, benchmark, ssltransfer]", *configs, "---", ""),
            f"# {_plain(manifest['title'])}",
            "",
            f"Scores of {len(manifest['models'])} models on {len(manifest['datasets'])} datasets, measured with "
            f"ssltransfer {manifest['versions'].get('ssltransfer', '')} and published on {manifest['date']}.",
            "",
            "- `scores/`, `outcomes/`: one file for each protocol, model and dataset",
            "- `tables/`, `report.html`: what was made of them",
            "- `bundle.json`, `provenance.json`: settings, versions, machines, hashes of the datasets",
            f"- `{CHECKSUMS}`: checksums of all files (`sha256sum --check {CHECKSUMS}`)",
            "",
            "To show these scores beside your own, name this folder (or `hf:OWNER/NAME@REVISION`) in the key `adopt` "
            "of a suite of ssltransfer.",
            "",
            *(line for name, title in _score_tables(folder) for line in _table_lines(folder, name, title)),
            "## Licences",
            "",
            "The scores are published under CC BY 4.0. Weights and images are not part of this folder.",
            "",
            *_markdown(licences),
            "",
            *_markdown(images),
            "",
        ]
    )


def _score_tables(folder: Path) -> list[tuple[str, str]]:
    """Return name and title of the tables of models x tasks."""
    file = Path("results", read_json(folder / "bundle.json")["name"], "tables", "suite.json")
    entries = read_json(file)["tables"] if file.is_file() else []
    return [
        (entry["name"], entry["title"]) for entry in entries if (folder / "tables" / f"{entry['name']}.csv").is_file()
    ]


def _table_lines(folder: Path, name: str, title: str) -> list[str]:
    """Return a table of models x tasks for the README; nothing for other tables and for wide ones."""
    frame = pd.read_csv(folder / "tables" / f"{name}.csv", dtype=str, keep_default_na=False)
    numbers = [column for column in frame if not column.endswith((" remark", " ci95"))]
    if frame.columns[0] != "row" or not 1 < len(numbers) <= README_TABLES:
        return []
    return [
        f"## {_plain(title)}",
        "",
        *_markdown([["Model", *numbers[1:]], *frame[numbers].map(_rounded).to_numpy().tolist()]),
        "",
    ]


def _rounded(text: str) -> str:
    """Return a number of a table with one decimal, other text as it is."""
    try:
        return f"{float(text):.1f}"
    except ValueError:
        return text


def _plain(text: object) -> str:
    """Return text as Markdown that shows it as it is: labels, also those of others, make no cell, link or element."""
    return re.sub(r"([\\|<`\[])", r"\\\1", " ".join(str(text).split()))


def _markdown(rows: list[list[str]]) -> list[str]:
    lines = ["| " + " | ".join(map(_plain, row)) + " |" for row in rows]
    return [lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]]


def _zenodo(manifest: dict, authors: Iterable[str]) -> dict:
    """Return the metadata that Zenodo reads."""
    return {
        "title": manifest["title"],
        "upload_type": "dataset",
        "description": f"Transfer scores of {len(manifest['models'])} pretrained models on {len(manifest['datasets'])} "
        "datasets, with settings, versions and checksums.",
        "creators": [{"name": name} for name in authors],
        "license": "cc-by-4.0",
        "keywords": ["transfer learning", "benchmark", "ssltransfer"],
    }

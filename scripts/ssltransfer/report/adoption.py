"""Scores that were measured elsewhere: which cells of published bundles a suite may show as if measured here."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from ssltransfer.checkpoints.sources import parse_alternatives, parse_checkpoint_source
from ssltransfer.config.suite import Cell, Suite
from ssltransfer.config.validation import check_schema
from ssltransfer.datasets import parse_dataset_source
from ssltransfer.errors import InputError, printable
from ssltransfer.models.architecture import parse_architecture
from ssltransfer.models.model_row import check_network
from ssltransfer.models.readout import parse_pool
from ssltransfer.models.timm_catalog import is_network, is_published
from ssltransfer.report.bundle import Bundle, read_bundle
from ssltransfer.report.public_names import public_name
from ssltransfer.report.score_check import score_differences
from ssltransfer.results.metric_info import measured_cell
from ssltransfer.settings import read_schema
from ssltransfer.versions import COMPONENTS

LOCAL_SOURCES = ("file:", "features:", "module:")
"""Beginnings of sources of models that are on the publisher's machine, so that their text does not identify them."""
PARSED = ("size", "source_accuracy", "run", "epoch")
"""Columns that tables and figures read as more than text."""
DIGITS = 12
"""Digits of a hash in messages."""


class Refusal(NamedTuple):
    """A published score that does not fit the suite, and the entry that differs."""

    file: str
    key: str
    found: str
    expected: str

    def __str__(self) -> str:
        return printable(f"{self.file}: {self.key}: found {self.found}, expected {self.expected}; not adopted")


@dataclass(frozen=True)
class Adoption:
    """The scores of a suite that were measured elsewhere.

    Attributes
    ----------
    scores : dict of Cell to Path
        Score files, in bundles.
    sources : dict of Cell to str
        Bundle of each, as the suite names it.
    models : dict of str to dict
        Rows of the models that only bundles have.
    refused : list of Refusal
        Scores of the suite's tasks that do not fit it.
    """

    scores: dict[Cell, Path] = field(default_factory=dict)
    sources: dict[Cell, str] = field(default_factory=dict)
    models: dict[str, dict] = field(default_factory=dict)
    refused: list[Refusal] = field(default_factory=list)

    def refused_cells(self) -> list[Cell]:
        """Return the cells of the refused scores."""
        parts = (Path(refusal.file).with_suffix("").parts[-3:] for refusal in self.refused)
        return [Cell(*names) for names in parts]


def adopt_scores(suite: Suite, is_measured: Callable[[Cell], bool]) -> Adoption:
    """Find the scores that a suite adopts from the bundles which its key `adopt` names.

    A score of the suite's tasks is adopted if it was not measured here, and if its settings block, the images and
    labels of its dataset (compared once the dataset has an index here), input normalisation, metric, checkpoint and
    versions agree with the suite; of two bundles, the first counts. Models that the suite does not have are added.

    Parameters
    ----------
    suite : Suite
    is_measured : function of Cell
        Whether a score was measured here.

    Raises
    ------
    InputError
        A bundle or one of its scores is missing or damaged.
    """
    adoption = Adoption()
    own, hashes = set(suite.cells()), _IndexHashes()
    for source in suite.config["adopt"]:
        bundle = read_bundle(source)
        foreign = {
            model: _model_row(model, row)
            for model, row in bundle.manifest["models"].items()
            if model not in suite.models
        }
        extended = replace(suite, models=suite.models | foreign, recipes=bundle.manifest["recipes"] | suite.recipes)
        for cell in bundle.cells():
            asked = cell in own or (
                cell.model in foreign and cell.dataset in suite.config["tasks"].get(cell.protocol, ())
            )
            if not asked or cell in adoption.scores or is_measured(cell):
                continue
            refusal = next(_differences(bundle, cell, extended, cell.model in foreign, hashes), None)
            if refusal:
                adoption.refused.append(refusal)
                continue
            adoption.scores[cell], adoption.sources[cell] = bundle.score_file(cell), source
            if cell.model in foreign:
                adoption.models.setdefault(cell.model, foreign[cell.model])
    return adoption


class _IndexHashes(dict):
    """Dataset -> the hash of its index here; empty where it has none yet."""

    def __missing__(self, dataset: str) -> str:
        try:  # here, because planning has no pyarrow; that of a suite which adopts scores reads indexes and needs it
            from ssltransfer.datasets.index_hash import index_hash
        except ImportError as error:
            raise InputError(
                f"adopt: the images of {dataset} cannot be compared with those of a bundle, because where Snakemake "
                f"runs a package is missing ({error}); install pyarrow there, or take adopt out of the suite"
            ) from None

        path = Path("results/datasets", dataset, "index.parquet")
        self[dataset] = index_hash(path) if path.is_file() else ""
        return self[dataset]


def _model_row(model: str, row: dict[str, str]) -> dict:
    """Return the row of a model that only a bundle has, with empty cells for the columns that it lacks."""
    columns = read_schema("models")["properties"]
    known = {column: cell for column, cell in row.items() if column in columns}
    return {**dict.fromkeys(columns, ""), **known, "label": row.get("label") or model, "model": model, "suites": []}


def _problem(row: dict, recipes: Mapping[str, dict]) -> str:
    """Say what is wrong with the row of a model that only a bundle has; empty where tables can describe it.

    Networks and weights of a later timm than the tables here are shown by their names, because nothing is computed.
    """
    try:
        known = {**row, "source": " ".join(filter(_is_known, row["source"].split()))}
        architecture = parse_architecture(row["arch"])
        if architecture.kind != "timm" or is_network(architecture.name):
            check_network(known)
        else:
            parse_pool(row["pool"])
            int(row["size"] or 1)
        parse_alternatives(row["alternatives"])
        cells = {column: row[column] for column in PARSED if row[column]}
        check_schema(cells, {"properties": read_schema("models")["properties"]}, "cell")
        kind, _, recipe = row["source"].partition(":")
        if kind == "pretrain" and recipe not in recipes:
            return f"source {row['source']!r}, whose recipe the bundle does not have"
        if not row["source"].startswith(("pretrain:", *LOCAL_SOURCES)):
            parse_checkpoint_source(known["source"])
    except (InputError, ValueError) as error:
        return str(error)
    return ""


def _is_known(source: str) -> bool:
    """Whether a source can be looked up here: all but weights that only a later timm lists."""
    return not source.startswith("timm:") or is_published(source.removeprefix("timm:"))


def _differences(bundle: Bundle, cell: Cell, suite: Suite, is_foreign: bool, hashes: _IndexHashes) -> Iterator[Refusal]:
    """Yield what speaks against adopting a score."""
    path, manifest = bundle.score_file(cell), bundle.manifest
    file = str(path)
    if is_foreign and (problem := _problem(suite.models[cell.model], suite.recipes)):
        yield Refusal(file, f"model {cell.model}", problem, "a row that a table of models could have")
        return
    score = bundle.read_score(cell)
    kind = suite.kind(cell.protocol)
    if score["kind"] != kind and not (kind == "detection" and score["kind"].startswith("detection-")):
        yield Refusal(file, "kind", score["kind"], kind)
    if absent := [key for key in ("settings", "preprocessing", "checkpoint", "versions") if key not in score]:
        yield Refusal(file, absent[0], "nothing", "what it was measured with")
        return
    for difference in score_differences(path, score, suite, cell):
        # A bundle names local files without their folders; whether they are the same is told by their checksum.
        named = public_name(difference.found) == public_name(difference.expected)
        if not difference.key.startswith("checkpoint.") or not (is_foreign or named):
            yield Refusal(file, difference.key, difference.found, difference.expected)
    for norm in suite.norms(suite.settings(cell.protocol).get("of", cell.protocol), cell.model):
        found, expected = manifest["norms"].get(norm, "nothing"), suite.input_norms.get(norm, "nothing")
        if found != expected:
            yield Refusal(file, f"preprocessing.norm {norm}", found, expected)
    dataset = manifest["datasets"].get(cell.dataset)
    if dataset is None:
        yield Refusal(file, "dataset", "no hash of the index", "one of its images and labels")
    elif (own := hashes[cell.dataset]) and own != dataset["index"]:
        yield Refusal(file, "index", dataset["index"][:DIGITS], own[:DIGITS])
    for name in _components(suite, cell):
        found, expected = manifest["components"].get(name), COMPONENTS[name].version
        if found != expected:
            yield Refusal(file, f"version of {name}", "nothing" if found is None else str(found), str(expected))
    if not is_foreign:
        yield from _unknown_weights(file, score, suite.models[cell.model])


def _components(suite: Suite, cell: Cell) -> list[str]:
    """Components before the protocol's own whose versions a score depends on."""
    source = parse_dataset_source(suite.datasets[cell.dataset]["source"])
    indexers = [] if source.kind == "column" else [source.indexer]
    features = {"transform", "of"} & suite.settings(cell.protocol).keys()
    return [*indexers, "index", "images", "checkpoints", *(["features"] if features else [])]


def _unknown_weights(file: str, score: dict, row: dict) -> Iterator[Refusal]:
    """Yield a refusal where weights were a file on another machine, and no checksum says that they are this model's."""
    if row["source"].startswith(LOCAL_SOURCES) or row["arch"].startswith("python:"):
        files = score["checkpoint"].get("files", "")
        if not (row["sha256"] and row["sha256"] in str(files)):
            yield Refusal(
                file,
                "checkpoint",
                "weights that were a local file",
                f"the sha256 of {row['source']} in the row of the model, to compare them",
            )


def adopted_models(adoption: Adoption, measured: set[str]) -> list[dict]:
    """Return the rows of the models that only bundles have, as the tables need them.

    Parameters
    ----------
    adoption : Adoption
    measured : set of str
        Datasets with a linear or k-nearest-neighbour score; a source accuracy on another dataset is left out.
    """
    rows = []
    for row in adoption.models.values():
        accuracy = row["source_accuracy"]
        known = not accuracy.startswith("measured:") or measured_cell(accuracy)[1] in measured
        rows.append(
            {key: row[key] for key in ("model", "label", "family")} | {"source_accuracy": accuracy if known else ""}
        )
    return rows

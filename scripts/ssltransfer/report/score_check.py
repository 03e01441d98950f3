"""Comparison of score files with the suite that shows them.

Snakemake reruns a job whose settings changed, but knows nothing of score files that were copied here without its
records, nor of a job that read the configuration while it was being edited. So the summary asks every score file
itself: what it was measured with has to be what the suite says now.
"""

import contextlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ssltransfer.checkpoints.sources import FEATURES, all_sources, parse_checkpoint_source
from ssltransfer.config.suite import Cell, Suite
from ssltransfer.datasets.mask_classes import segmentation_classes
from ssltransfer.datasets.sources import parse_dataset_source
from ssltransfer.errors import InputError
from ssltransfer.files import read_json, write_json
from ssltransfer.results.marks import PARTS, TRAINING_IMAGES, counted_parts, total_images
from ssltransfer.settings import defaults
from ssltransfer.versions import network_version

COMPONENTS = {
    "linear": ("linear",),
    "knn": ("neighbours", "knn"),
    "fewshot": ("fewshot",),
    "finetune": ("finetune",),
    "calibration": ("calibration",),
    "label-efficiency": ("label-efficiency",),
    "estimators": ("estimators",),
    "inversion": ("inverted-images", "inversion"),
    "attention": ("attention",),
    "normals": ("normals-network", "normals"),
    "segmentation": ("segmentation-network", "segmentation"),
    "detection": ("detection-network", "detection"),
}
"""Kind of a settings block -> the components whose versions its scores carry, training first."""
TRAINED = {
    "knn": "results/neighbours/{model}/{dataset}/{features}.{similarity}{number}.npz",
    "inversion": "results/inverted/{protocol}/{model}/{dataset}.npz",
    "normals": "results/trained/{protocol}/{model}/{dataset}.safetensors",
    "segmentation": "results/trained/{protocol}/{model}/{dataset}.safetensors",
    "detection": "results/trained/{protocol}/{model}/{dataset}.safetensors",
}
"""Kind of a settings block -> the file that the job before the evaluation leaves, where one trains or searches."""
REQUIRED = ("settings", "preprocessing", "checkpoint", "versions")
"""Entries of a score file without which it cannot be compared; files written by hand may lack them."""

MAX_SHOWN = 300
"""Characters of an entry in a message."""

LEFT_OUT = "left out, not measured as this suite says (see the table of scores that were left out)"


class Difference(NamedTuple):
    """One entry of a score file that differs from the suite, and the file to make again (``--forcerun``)."""

    file: str
    key: str
    found: str
    expected: str
    remake: str

    def __str__(self) -> str:
        return (
            f"{self.file}: {self.key}: found {self.found}, expected {self.expected}; left out, "
            f"measure again with --forcerun {self.remake}"
        )


@dataclass(frozen=True)
class ScoreCheck:
    """Outcome of the comparison of all score files of a suite.

    Attributes
    ----------
    shown : list of str
        Score files that the suite may show, in the order given.
    differences : list of Difference
        Of all others.
    unknown : dict of str to list of str
        Score file that is shown -> the entries that it does not have, so that they could not be compared.
    """

    shown: list[str] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    unknown: dict[str, list[str]] = field(default_factory=dict)

    @property
    def remarks(self) -> dict[str, str]:
        """Score file -> what the captions of its protocol have to say about it."""
        left_out = {difference.file: LEFT_OUT for difference in self.differences}
        return left_out | {
            file: f"not compared with this suite, because the score file does not state its {', '.join(missing)}"
            for file, missing in self.unknown.items()
        }


def check_scores(paths: Iterable[str | Path], suite: Suite) -> ScoreCheck:
    """Compare score files ``.../{protocol}/{model}/{dataset}.json`` with a suite.

    Compared are the cell, the settings block (what a file lacks has its default), input normalisation, source of the
    checkpoint, version of the protocol, metric and numbers of images; of a calibration also the score of its
    classifiers.
    """
    check = ScoreCheck()
    own = list(suite.cells())
    cells = {astuple(cell): cell for cell in [*own, *filter(None, map(suite.shown_instead, own))]}
    for path in map(Path, paths):
        cell = cells.get((*path.parts[-3:-1], path.stem))
        if cell is None:
            name = "/".join((*path.parts[-3:-1], path.stem))
            found = [Difference(str(path), "tasks", name, f"a score of suite {suite.name}", str(path))]
        else:
            score = read_json(path)
            found = score_differences(path, score, suite, cell)
            if missing := [key for key in REQUIRED if key not in score]:
                check.unknown[str(path)] = missing
        check.differences.extend(found)
        if not found:
            check.shown.append(str(path))
    for file in {difference.file for difference in check.differences}:
        check.unknown.pop(file, None)
    return check


def score_differences(path: Path, score: dict, suite: Suite, cell: Cell) -> list[Difference]:
    """Compare one score file with its cell of a suite (see `check_scores`)."""
    expected, found = expected_entries(suite, cell), found_entries(score, suite.kind(cell.protocol))
    extra = {key: None for key in found if key.startswith("settings.") and key not in expected}
    differences = [
        Difference(str(path), key, _text(found[key]), _text(value), _to_remake(path, key, suite, cell))
        for key, value in (expected | extra).items()
        if key in found and not _agrees(key, found[key], value)
    ]
    if suite.kind(cell.protocol) in ("calibration", "label-efficiency"):
        differences += _of_classifiers(path, suite, cell)
    return differences


def _of_classifiers(path: Path, suite: Suite, cell: Cell) -> list[Difference]:
    """Differences of the linear score that a calibration was made from."""
    of = suite.settings(cell.protocol)["of"]
    linear = path.parents[2] / of / cell.model / path.name
    if not linear.is_file():
        return []
    found = score_differences(linear, read_json(linear), suite, Cell(of, cell.model, cell.dataset))
    return [d._replace(file=str(path), key=f"{of}: {d.key}") for d in found]


def expected_entries(suite: Suite, cell: Cell) -> dict[str, Any]:
    """Return what the score file of a cell has to say, by key; see `found_entries`."""
    kind, row, model = suite.kind(cell.protocol), suite.datasets[cell.dataset], suite.models[cell.model]
    settings = suite.settings(cell.protocol, cell.model)
    norms = suite.norms(settings.get("of", cell.protocol), cell.model)
    several = kind in ("linear", "fewshot", "calibration")
    entries = {
        "model": cell.model,
        "protocol": cell.protocol,
        "dataset": cell.dataset,
        **{f"settings.{key}": value for key, value in _flat(settings).items()},
        **{f"trained.{key}": value for key, value in _flat(settings).items()},
        "preprocessing.norm": sorted(norms if several else norms[:1]),
        "checkpoint.source": all_sources(model),
        "checkpoint.recipe": suite.recipe(cell.model),
        "checkpoint.arch": model["arch"],
        "checkpoint.pool": model["pool"],
        "versions.protocol": ".".join(str(network_version(name, model["arch"])) for name in COMPONENTS[kind]),
    }
    if kind in ("linear", "finetune"):
        entries["values.metric"] = [row["metric"]]
    whole = kind in ("fewshot", "inversion", "attention") or (kind == "knn" and row["test"] == 0)
    parts = PARTS["images" if whole else "training images" if kind in TRAINING_IMAGES else "test images"]
    images = {"test": total_images(row, parts)}
    entries["coverage.images.promised"] = images["test"]
    entries["coverage.classes.promised"] = row["classes"]
    if kind == "segmentation":  # classes of pixels: the background of generated scenes is one more
        source = parse_dataset_source(row["source"])
        entries["coverage.classes.promised"] = len(segmentation_classes(source, range(row["classes"])))
    if not suite.config["allow_subset"] and suite.config["on_error"] == "fail":
        images["train"] = total_images(
            row, ("train", "val") if kind in ("linear", "finetune", "knn", "label-efficiency") else ("train",)
        )
        entries |= {f"images.{part}": count for part, count in images.items()}
    counted = ("coverage.", "images.")
    return {key: value for key, value in entries.items() if value is not None or not key.startswith(counted)}


def found_entries(score: dict, kind: str) -> dict[str, Any]:
    """Return what a score file says of how it was measured, by key; without the keys that it does not tell.

    ``settings`` are filled up with the defaults of their kind; ``trained`` are those of the training before the
    evaluation, ``images`` the numbers that were used.
    """
    entries = {key: score[key] for key in ("model", "protocol", "dataset") if key in score}
    if "settings" in score:
        settings = _flat(defaults(kind)) | _flat(score["settings"])
        entries |= {f"settings.{key}": value for key, value in settings.items()}
    details = score.get("details", {})
    trained = _flat(details.get("trained_settings") or {})
    entries |= {f"trained.{key}": value for key, value in trained.items() if value is not None}
    given = score.get("preprocessing", {})
    norm = given.get("candidates", given.get("norm"))
    if norm is not None:
        entries["preprocessing.norm"] = [norm] if isinstance(norm, str) else sorted(norm)
    checkpoint = score.get("checkpoint", {})
    entries |= {
        f"checkpoint.{key}": checkpoint[key] for key in ("source", "recipe", "arch", "pool") if key in checkpoint
    }
    if "protocol" in score.get("versions", {}):
        entries["versions.protocol"] = str(score["versions"]["protocol"])
    entries["values.metric"] = sorted({value["metric"] for value in score.get("values", ())})
    for part in ("images", "classes"):
        promised = ((score.get("coverage") or {}).get(part) or {}).get("promised")
        if promised is not None:
            entries[f"coverage.{part}.promised"] = promised
    return entries | {f"images.{part}": count for part, count in _images(details.get("images")).items()}


def _images(found: Any) -> dict[str, int]:
    """Numbers of images from the details of a score: of each part, or of all (few-shot); others name theirs."""
    if isinstance(found, int):
        return {"test": found}
    parts = counted_parts(found)
    return {"train": parts["train"] + parts["val"], "test": parts["test"]} if parts else {}


def _agrees(key: str, found: Any, expected: Any) -> bool:
    return found == expected or (key == "checkpoint.source" and found in _addresses(expected, found))


def _addresses(source: str, found: str) -> list[str]:
    """Return what the checkpoint of a published model may name as its source: the addresses of one alternative."""
    if source.startswith(("pretrain:", FEATURES)):
        return []
    try:
        return [" ".join(place.address for place in places) for places in parse_checkpoint_source(source)]
    except (ImportError, InputError):  # torchvision is not in every environment, nor each release of timm in its tables
        return [found]


def _flat(block: Mapping) -> dict[str, Any]:
    """Return a nested block as {'schedule.steps': ...}."""
    flat = {}
    for key, value in block.items():
        inner = _flat(value) if isinstance(value, Mapping) else {"": value}
        flat |= {f"{key}.{below}".rstrip("."): each for below, each in inner.items()}
    return flat


def _text(value: Any) -> str:
    text = str(value) if isinstance(value, str) else "nothing" if value is None else json.dumps(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _to_remake(path: Path, key: str, suite: Suite, cell: Cell) -> str:
    """Return the file whose making set a wrong entry; what follows from it is made again, too."""
    part, kind = key.partition(".")[0], suite.kind(cell.protocol)
    if part == "checkpoint":
        return f"results/checkpoints/{cell.model}.safetensors"
    if part in ("images", "coverage"):
        return f"results/datasets/{cell.dataset}/index.parquet"
    if kind in TRAINED and part in ("trained", "preprocessing", "versions"):
        if kind == "knn":  # found among the features of a dataset that may have another name
            neighbours = read_json(path).get("details", {}).get("neighbours")
            return f"results/neighbours/{neighbours}" if neighbours else str(path)
        return TRAINED[kind].format(protocol=cell.protocol, model=cell.model, dataset=cell.dataset)
    return str(path)


def list_differences(list_file: str | Path, paths: Iterable[str | Path], suite: Suite) -> bool:
    """Write what differs in score files as JSON, if that is news: a later file makes the summary again.

    Returns
    -------
    bool
        Whether anything differs. Files that cannot be read are the summary's to report.
    """
    found = []
    for path in paths:
        with contextlib.suppress(ValueError):
            found += check_scores([path], suite).differences
    content = {"differences": [list(difference) for difference in found]}
    if found and not (Path(list_file).is_file() and read_json(list_file) == content):
        write_json(list_file, content)
    return bool(found)

"""Gallery: a static site of the scores of several bundles, with the published scores of the paper as its first entry.

Scores stand side by side only where they can be compared: measured under the same settings block and version, on the
same images and labels (by the hash of the index), with the same metric.
"""

import contextlib
import json
import re
import shutil
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ssltransfer.analysis.cell_outcomes import NO_OUTCOMES
from ssltransfer.analysis.pairs import compare_cells
from ssltransfer.analysis.published import LABELS, published_models, published_scores
from ssltransfer.config.suite import Cell
from ssltransfer.errors import InputError
from ssltransfer.files import json_checksum, package_data
from ssltransfer.hub import PREFIX
from ssltransfer.report.bundle import Bundle, new_folder
from ssltransfer.report.labels import joined, setting_label
from ssltransfer.report.public_names import public_name
from ssltransfer.results.metric_info import KINDS, METRICS
from ssltransfer.results.outcome_file import Outcome, load_outcomes
from ssltransfer.results.outcome_header import outcome_path
from ssltransfer.results.scores import AVERAGE, Task, collect_scores
from ssltransfer.settings import complete

TEMPLATES = package_data("workflow/report/gallery")
ASSETS = ("gallery.css", "gallery.js")
PAPER_ENTRY = "paper"
PAPER_ARCH = "resnet50"
PAPER_DATA = "ImageNet-1k"
UNKNOWN = "not stated"


@dataclass(frozen=True)
class GalleryModel:
    """A model of an entry.

    Attributes
    ----------
    id : str
        Unique in the gallery: name of the entry and of the model.
    label, family, arch, data, source, licence, entry, bundle : str
        ``data`` is what it was pretrained on, where its source tells; ``entry`` the title of the bundle, and ``bundle``
        its name, with a number if it is not the first of that name.
    """

    id: str
    label: str
    family: str
    arch: str
    data: str
    source: str
    licence: str
    entry: str
    bundle: str


@dataclass
class Column:
    """Comparable scores: one protocol, dataset, setting and metric.

    Attributes
    ----------
    block : str
        Label of the protocol and its settings block.
    dataset, kind, setting, metric : str
    values : dict of str to tuple
        Model -> value and ends of its interval, None without one.
    tied : frozenset of str
        Models that a paired test does not tell apart from the best one.
    tested : frozenset of str
        Models that took part in these tests.
    remarks : dict of str to str
        Model -> what is not complete about its score (see `results.marks`).
    images : str
        Names the images and labels where several bundles have others under the same name; empty for the first ones.
    """

    block: str
    dataset: str
    kind: str
    setting: str
    metric: str
    values: dict[str, tuple[float, float | None, float | None]] = field(default_factory=dict)
    tied: frozenset[str] = frozenset()
    tested: frozenset[str] = frozenset()
    remarks: dict[str, str] = field(default_factory=dict)
    images: str = ""

    @cached_property
    def best(self) -> str:
        """The model with the best complete score; empty if the metric has no better direction."""
        better = METRICS[self.metric].better
        values = {model: better * value[0] for model, value in self.values.items() if model not in self.remarks}
        return max(values, key=values.__getitem__) if better and values else ""

    @property
    def name(self) -> str:
        """Images, setting and metric."""
        return joined(self.images, setting_label(self.setting), METRICS[self.metric].label, by=", ")

    def text(self, model: str) -> str:
        """Return a score with its interval."""
        value, low, high = self.values[model]
        digits = METRICS[self.metric].decimals
        interval = "" if low is None or high is None else f" [{low:.{digits}f}, {high:.{digits}f}]"
        return f"{value:.{digits}f}{interval}"

    def mark(self, model: str) -> str:
        """Return ``best``, ``tied`` (not told apart from the best), or nothing."""
        return "best" if model == self.best else "tied" if model in self.tied else ""

    def ranked(self) -> list[str]:
        """Return the models, the best first; those with incomplete scores last."""
        better = METRICS[self.metric].better or 1
        return sorted(self.values, key=lambda model: (model in self.remarks, -better * self.values[model][0], model))


@dataclass
class Gallery:
    """All entries: models, comparable scores, labels of datasets, and titles of the entries with what they say."""

    models: dict[str, GalleryModel] = field(default_factory=dict)
    columns: list[Column] = field(default_factory=list)
    datasets: dict[str, str] = field(default_factory=dict)
    entries: list[tuple[str, str]] = field(default_factory=list)


def collect_gallery(bundles: Sequence[Bundle]) -> Gallery:
    """Collect the published scores of the paper and the scores of bundles.

    Raises
    ------
    InputError
        A score is missing, damaged, or of a later version.
    """
    gallery = Gallery()
    _add_paper(gallery)
    columns: dict[tuple, Column] = {}
    outcomes: dict[tuple, dict[str, Outcome | str]] = {}
    variants: dict[str, list[str]] = {}  # protocol or dataset -> its settings, or indexes, in the order found
    for prefix, bundle in zip(_prefixes(bundles), bundles, strict=True):
        title = bundle.manifest["title"]
        # A folder on the machine of the one who writes the site says nothing to those who read it.
        place = bundle.source if bundle.source.startswith(PREFIX) else Path(bundle.source).name
        gallery.entries.append((title, f"{place}, {bundle.manifest.get('date', '')}"))
        ids: dict[str, str] = {}  # of the models of this bundle
        for model, row in bundle.manifest["models"].items():
            own = _model(prefix, _free_id(f"{prefix}-{model}", gallery.models), row, bundle)
            gallery.models[own.id], ids[model] = own, own.id
        for name, row in bundle.manifest["datasets"].items():
            gallery.datasets.setdefault(name, row["label"])
        settings = {cell: _settings_checksum(bundle.read_score(cell)) for cell in bundle.cells()}
        scores = collect_scores(map(bundle.score_file, settings))
        for (protocol, model, dataset), rows in scores.groupby(["protocol", "model", "dataset"], sort=False):
            cell = Cell(protocol, model, dataset)
            gallery.datasets.setdefault(dataset, dataset)
            index = bundle.manifest["datasets"].get(dataset, {}).get("index", bundle.source)
            block = f"{protocol}{_variant(variants, f'protocol {protocol}', settings[cell])}"
            images = f"images{_variant(variants, f'dataset {dataset}', index)}"
            found = _outcomes(bundle.score_file(cell))
            for row in rows.itertuples():
                key = (block, dataset, images, row.kind, row.setting, row.metric)
                if key not in columns:
                    label = f"{KINDS[row.kind].label} ({block})"
                    columns[key] = Column(label, dataset, row.kind, row.setting, row.metric)
                    columns[key].images = images if images != "images" else ""
                name = ids[model]
                columns[key].values[name] = _value(row)
                if remark := joined(row.partial, row.shortened, by="; "):
                    columns[key].remarks[name] = remark
                outcome = found if isinstance(found, str) else found.get((row.setting, row.metric), NO_OUTCOMES)
                outcomes.setdefault(key, {})[name] = outcome
    for key, column in columns.items():
        _mark_ties(column, outcomes[key])
    gallery.columns += columns.values()
    _tell_apart(gallery)
    gallery.columns.sort(key=lambda column: list(KINDS).index(column.kind))
    return gallery


def _tell_apart(gallery: Gallery) -> None:
    """Add to labels that several models have the name of their bundle, and the id where that is the same, too."""
    for name in ("bundle", "id"):
        labels = Counter(model.label for model in gallery.models.values())
        gallery.models = {
            key: replace(model, label=f"{model.label} ({getattr(model, name)})") if labels[model.label] > 1 else model
            for key, model in gallery.models.items()
        }


def _prefixes(bundles: Iterable[Bundle]) -> Iterator[str]:
    """Name each bundle; a later one of the same name gets a number."""
    seen = Counter([PAPER_ENTRY])
    for bundle in bundles:
        name = bundle.manifest["name"]
        seen[name] += 1
        yield f"{name}-{seen[name]}" if seen[name] > 1 else name


def _free_id(name: str, taken: Container[str]) -> str:
    """Return an id that no model has: suite ``a`` with ``b-c`` and suite ``a-b`` with ``c`` would share one."""
    numbers = (f"{name}-{number}" for number in count(2))
    return name if name not in taken else next(other for other in numbers if other not in taken)


def _add_paper(gallery: Gallery) -> None:
    """Add the paper's published scores; they are comparable among themselves."""
    title = "How Well Do Self-Supervised Models Transfer? (published)"
    gallery.entries.append((title, "Ericsson, Gouk and Hospedales, CVPR 2021"))
    for row in published_models():
        name = f"{PAPER_ENTRY}-{row['model']}"
        gallery.models[name] = GalleryModel(
            name, row["label"], row["family"], PAPER_ARCH, PAPER_DATA, "published scores", "", title, PAPER_ENTRY
        )
    gallery.datasets |= LABELS | {AVERAGE: "Average over datasets"}
    columns: dict[tuple, Column] = {}
    for row in published_scores("v2").itertuples():
        label = f"{KINDS[row.kind].label} (published)"
        column = columns.setdefault(
            (row.kind, row.dataset, row.setting, row.metric),
            Column(label, row.dataset, row.kind, row.setting, row.metric),
        )
        column.values[f"{PAPER_ENTRY}-{row.model}"] = _value(row)
    gallery.columns += columns.values()


def _value(row: Any) -> tuple[float, float | None, float | None]:
    """Return value and interval of a row of the tidy table."""
    low, high = (None if pd.isna(end) else float(end) for end in (row.low, row.high))
    return float(row.value), low, high


def _model(prefix: str, name: str, row: Mapping[str, str], bundle: Bundle) -> GalleryModel:
    title = bundle.manifest["title"]
    kind, _, rest = row["source"].partition(":")
    data = UNKNOWN
    if kind == "pretrain":
        data = bundle.manifest["recipes"].get(rest, {}).get("dataset", "nothing (random weights)")
    elif kind == "timm":
        data = rest.partition(".")[2] or UNKNOWN
    family = row.get("family", "") or UNKNOWN
    return GalleryModel(
        name,
        row.get("label") or name,
        family,
        public_name(row["arch"]),
        data,
        public_name(row["source"]),
        row.get("licence", ""),
        title,
        prefix,
    )


def _variant(variants: dict[str, list[str]], name: str, content: str) -> str:
    """Return nothing for the first content of a name, and ``, variant 2`` for the second."""
    known = variants.setdefault(name, [])
    if content not in known:
        known.append(content)
    number = known.index(content) + 1
    return f", variant {number}" if number > 1 else ""


def _settings_checksum(score: dict) -> str:
    """Return a checksum of the settings block, defaults included, and the version of the protocol of a score."""
    settings = score.get("settings", {})
    with contextlib.suppress(InputError):  # of another version; comparable with its like
        settings = complete(settings)
    return json_checksum([settings, str(score.get("versions", {}).get("protocol", ""))])


def _outcomes(score_file: Path) -> dict[tuple[str, str], Outcome] | str:
    path = outcome_path(score_file)
    try:
        return load_outcomes(path) if path.is_file() else NO_OUTCOMES
    except InputError as error:
        return str(error)


def _mark_ties(column: Column, outcomes: Mapping[str, Outcome | str]) -> None:
    """Find the models that are not told apart from the best one, by the paired tests of a suite's tables."""
    whole = {model: outcome for model, outcome in outcomes.items() if model not in column.remarks}
    if not column.best:
        return
    task = Task(column.block, column.kind, column.dataset, column.setting, column.metric)
    better = compare_cells([(task, whole)]).better.get(task)
    if better is None or column.best not in better:
        return
    column.tested = frozenset(better.index)
    column.tied = frozenset(better.index[~(better.loc[column.best] | better[column.best])]) - {column.best}


def write_gallery(gallery: Gallery, folder: str | Path) -> None:
    """Write the site: the leaderboard (``index.html``), and one page for each model and dataset.

    Parameters
    ----------
    gallery : Gallery
    folder : path
        Made; nothing may be there.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    with new_folder(folder) as temporary:
        for name in ("models", "datasets"):
            (temporary / name).mkdir()
        for name in ASSETS:
            shutil.copy(TEMPLATES / name, temporary / name)
        _write(environment, "index.html.jinja", temporary / "index.html", gallery=gallery, data=_data(gallery))
        for model in gallery.models.values():
            columns = [column for column in gallery.columns if model.id in column.values]
            path = temporary / "models" / f"{model.id}.html"
            _write(environment, "model.html.jinja", path, gallery=gallery, model=model, columns=columns)
        for name, label in gallery.datasets.items():
            columns = [column for column in gallery.columns if column.dataset == name]
            path = temporary / "datasets" / f"{name}.html"
            _write(environment, "dataset.html.jinja", path, gallery=gallery, label=label, columns=columns)


def _write(environment: Environment, template: str, path: Path, **values: object) -> None:
    text = environment.get_template(template).render(**values)
    path.write_text(re.sub(r"\n\s+", "\n", text), encoding="utf-8")


def _data(gallery: Gallery) -> str:
    """Return the data of the leaderboard as JSON that may stand in a script element."""
    number = {model: i for i, model in enumerate(gallery.models)}
    data = {
        "models": [[m.id, m.label, m.family, m.arch, m.data] for m in gallery.models.values()],
        "datasets": gallery.datasets,
        "columns": [
            {
                "block": column.block,
                "dataset": column.dataset,
                "name": column.name,
                "better": METRICS[column.metric].better,
                "digits": METRICS[column.metric].decimals,
                "tested": len(column.tested),
                "values": [
                    [number[model], *_rounded(values, METRICS[column.metric].decimals), column.mark(model)]
                    + ([column.remarks[model]] if model in column.remarks else [])
                    for model, values in column.values.items()
                ],
            }
            for column in gallery.columns
        ],
    }
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")


def _rounded(values: tuple[float, float | None, float | None], digits: int) -> list[float | None]:
    return [None if value is None else round(value, digits) for value in values]

"""The figures of a suite, and the folder that holds them."""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from ssltransfer.analysis.marks import as_tasks
from ssltransfer.analysis.suite_results import SHOWN_MODELS, SuiteResults
from ssltransfer.files import read_json, write_json
from ssltransfer.report.correlation_figures import correlation_figure, pairs_figure
from ssltransfer.report.drawing import FigureContext, save_figure
from ssltransfer.report.epoch_figure import epoch_figure
from ssltransfer.report.grid_figure import GRID_CAPTION, MOST_GRIDS, grid_figure
from ssltransfer.report.interactive_scatter import scatter_data
from ssltransfer.report.intervals import interval_note
from ssltransfer.report.label_figure import label_figure, with_interval
from ssltransfer.report.labels import doubtful_note, joined, shown_note, source_note, without_source_note
from ssltransfer.report.loss_figure import loss_figure
from ssltransfer.report.marks import analysis_note, unsigned_note
from ssltransfer.report.model_figures import domain_figure, model_pairs_figure, radar_figure, rank_figure
from ssltransfer.report.picture_figures import picture_grid
from ssltransfer.report.predictor_report import (
    predictor_figure,
    predictor_figure_note,
    predictor_scatters,
    transfer_figures,
)
from ssltransfer.report.property_figure import GROUPS, properties_figure, properties_note
from ssltransfer.report.scatter_figures import (
    cut_note,
    leverage_note,
    panel_scores,
    panels_note,
    scatter_figure,
    transfer_figure,
)
from ssltransfer.report.similarity_report import AGREEMENT, similarity_figures
from ssltransfer.report.table_folder import read_results
from ssltransfer.results.metric_info import KINDS
from ssltransfer.results.picture_file import load_pictures
from ssltransfer.results.scores import TASK

#: Figures of one scatter per task: name -> the kinds of protocols that they show.
SCATTERS = {
    "calibration": ("calibration",),
    "scatter-linear": ("linear",),
    "scatter-knn": ("knn",),
    "scatter-finetune": ("finetune",),
    "scatter-fewshot": ("fewshot",),
    "scatter-detection": ("detection-frozen", "detection-finetune"),
    "scatter-normals": ("normals",),
    "scatter-segmentation": ("segmentation",),
}

PANEL_KINDS = tuple(name for name, kind in KINDS.items() if kind.performance)

FIGURES = {
    "transfer": transfer_figure,
    "epochs": epoch_figure,
    "correlations": correlation_figure,
    "domain-vs-transfer": domain_figure,
    "radar": radar_figure,
    "mean-ranks": rank_figure,
    "model-pairs": model_pairs_figure,
    "pairs": pairs_figure,
    "properties": properties_figure,
    "predictors": predictor_figure,
} | {name: partial(scatter_figure, kinds=kinds) for name, kinds in SCATTERS.items()}
"""Figure -> the function that draws it, or returns None where the scores do not allow it."""

AGAINST_SOURCE = ("transfer", "correlations", "radar", "pairs")
"""Figures with source accuracies beside those of `SCATTERS`."""

KINDS_SHOWN = SCATTERS | {"properties": ("inversion", "attention"), "label-efficiency": ("label-efficiency",)}
"""Figure -> the kinds whose warnings its caption repeats, for the figures that do not show all kinds."""

WITH_INTERVALS = KINDS_SHOWN | {"transfer": PANEL_KINDS, "epochs": PANEL_KINDS, "domain-vs-transfer": ("linear",)}
"""Figure -> the kinds whose intervals it shows."""

WITHOUT_MODELS = ("correlations", "pairs", "predictors", "epochs")
"""Figures that show numbers over all models, or training runs."""
WITH_POINTS = ("transfer", *SCATTERS, "predictors-", "properties", "similarity-map-")
"""Beginnings of the names of figures in which all models are points."""


def suite_figures(context: FigureContext) -> Iterator[tuple[str, Figure]]:
    """Draw every figure that the scores of a suite allow, as (file name, figure), one at a time."""
    for name, draw in FIGURES.items():
        figure = draw(context)
        if figure is not None:
            yield name, figure


def plot_figures(
    folder: str | Path,
    tables: str | Path,
    pictures: Sequence[str | Path],
    curves: Sequence[str | Path],
    kinds: dict[str, str],
) -> None:
    """Draw the figures of a suite, and write them with their captions and the data of the interactive scatter.

    Parameters
    ----------
    folder : path
        Made if missing.
    tables : path
        Table folder of the suite.
    pictures, curves : sequence of path
        Example images and training losses that jobs left, in ``.../{protocol}/{model}/{dataset}.*``; the losses of
        finetune protocols are in their score files.
    kinds : dict
        Protocol -> the kind of its settings block, for the names of picture files.
    """
    tables, folder = Path(tables), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    results = read_results(tables)
    left_out = _left_out(tables)
    context = FigureContext(results)
    cut = {}
    for name, figure in suite_figures(context):
        cut[name] = cut_note(figure)
        save_figure(figure, folder, name)
    captions = _warnings(tables)
    for name in WITH_INTERVALS:
        note = joined(interval_note(interval_cells(results, name), "Thin lines:"), cut.get(name, ""))
        captions[name] = joined(note, captions.get(name, ""))
    captions["properties"] = joined(properties_note(context), captions["properties"])
    captions |= {
        name: joined(captions.get(name, ""), analysis_note(results, KINDS_SHOWN.get(name, KINDS))) for name in FIGURES
    }
    captions["transfer"] = joined(captions.get("transfer", ""), panels_note(results), leverage_note(results))
    captions["predictors"] = joined(predictor_figure_note(context), captions["predictors"])
    if note := source_note(results):
        shown = [*AGAINST_SOURCE, *SCATTERS]
        captions |= {name: joined(captions.get(name, ""), note) for name in shown}
    if note := without_source_note(results):
        captions |= {name: joined(captions.get(name, ""), note) for name in ("transfer", *SCATTERS)}
    if note := doubtful_note(results):
        shown = ["transfer", "correlations", "scatter-segmentation"]
        captions |= {name: joined(captions.get(name, ""), note) for name in shown}
    for (protocol, dataset), files in _by_cell(pictures, left_out).items():
        images = {model: load_pictures(files[model]) for model in results.shown_of(files)}
        name = f"{kinds[protocol]}-pictures-{protocol}-{dataset}"
        captions[name] = f"{_title(context, protocol, dataset)}: {next(iter(images.values())).caption}"
        save_figure(picture_grid(context, images), folder, name)
    losses = {}
    for (protocol, dataset), files in _by_cell(curves, left_out).items():
        title, found = (
            _title(context, protocol, dataset),
            {model: read_json(files[model]) for model in results.shown_of(files)},
        )
        if kinds[protocol] == "finetune":
            name = f"finetune-grid-{protocol}-{dataset}"
            captions[name] = f"{title}: {GRID_CAPTION}"
            save_figure(grid_figure(context, found), folder, name)
            found = {model: score["details"]["refit"] for model, score in found.items()}
        losses[title] = found
    if losses:
        save_figure(loss_figure(context, losses), folder, "losses")
    points = tables / "label-efficiency.csv"
    if points.exists():
        rows = results.scores[results.scores["kind"].eq("label-efficiency")]
        captions["label-efficiency"] = joined(captions["label-efficiency"], unsigned_note(rows, context.labels))
        save_figure(label_figure(context, pd.read_csv(points)), folder, "label-efficiency")
    for name, figure, note, tasks in chain(transfer_figures(context), predictor_scatters(context)):
        cells = results.analysed[pd.MultiIndex.from_frame(results.analysed[TASK]).isin(tasks)]
        estimated = unsigned_note(results.estimates, context.labels)
        captions[name] = joined(
            note, interval_note(cells, "Thin lines:"), cut_note(figure), analysis_note(results), estimated
        )
        save_figure(figure, folder, name)
    similarities = read_similarities(tables)
    if len(similarities):
        for name, figure in similarity_figures(context, similarities):
            save_figure(figure, folder, name)
    drawn = {path.stem for path in folder.glob("*.svg")} - {*WITHOUT_MODELS}
    captions |= {name: joined(captions.get(name, ""), note) for name in drawn if (note := models_note(results, name))}
    write_json(folder / "captions.json", captions)
    data = scatter_data(context)
    if data:
        write_json(folder / "explorer.json", data)


def interval_cells(results: SuiteResults, name: str) -> pd.DataFrame:
    """Analysed scores whose intervals a figure of `WITH_INTERVALS` shows, or joins to that of an average."""
    cells, kinds = as_tasks(results.analysed), WITH_INTERVALS[name]
    if name in ("transfer", "epochs"):
        shown = [task for panel in results.tasks.figure_panels for task in panel_scores(results, panel).tasks]
    elif name in SCATTERS:
        shown = results.tasks.figure_tasks(kinds)
    elif name == "domain-vs-transfer":
        linear = [task for task in results.tasks.tasks if task.kind in kinds]
        domains = results.domain_scores.columns
        shown = [task for task in linear if task.protocol == linear[0].protocol and task.dataset in domains]
    else:
        shown = [task for task in results.tasks.tasks if task.kind in kinds]
        shown = [
            task for task in shown if name != "properties" or any(task.metric in metrics for _, metrics, _ in GROUPS)
        ]
        shown = [task for task in shown if name != "label-efficiency" or with_interval(task.setting)]
    return results.analysed[pd.MultiIndex.from_frame(cells[TASK]).isin(shown)]


def models_note(results: SuiteResults, name: str) -> str:
    """Sentences for the caption of a figure about the models that it shows by name; empty where these are all."""
    with_scores, most = ", of the models with such scores", SHOWN_MODELS
    if name.startswith("similarity-map-"):
        subject, choice = "Rows, pairs and markers of their own:", with_scores
    elif name.startswith(WITH_POINTS):
        subject, choice = "Markers or bars of their own:", ""
    elif name.startswith("finetune-grid-"):
        subject, choice, most = "Panels:", with_scores, MOST_GRIDS
    else:
        subject, choice = "Rows, lines or panels:", with_scores
    note = shown_note(results, subject, choice, most)
    others = "are grey points" if name.startswith(WITH_POINTS) else "are not drawn"
    return note and f"{note} Others {others}; ranks, lines and coefficients are of all."


def _warnings(tables: Path) -> dict[str, str]:
    """Figure -> warnings of the protocols that it shows."""
    notes = read_json(tables / "notes.json").values()
    return {
        name: " ".join(note["text"] for note in notes if note["kind"] in kinds) for name, kinds in KINDS_SHOWN.items()
    }


def read_similarities(tables: Path) -> pd.DataFrame:
    """Read the similarities of all datasets (see `similarity.collect_similarities`) from a table folder."""
    frames = [pd.read_csv(path) for path in sorted(tables.glob("similarity-*.csv")) if path.stem != AGREEMENT]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _left_out(tables: Path) -> set[tuple[str, ...]]:
    """Protocol, model and dataset of the scores that were left out."""
    path = tables / "left-out.csv"
    return set(map(_cell, pd.read_csv(path)["file"])) if path.exists() else set()


def _cell(path: str | Path) -> tuple[str, ...]:
    return (*Path(path).parts[-3:-1], Path(path).stem)


def _by_cell(paths: Sequence[str | Path], left_out: set[tuple[str, ...]]) -> dict[tuple[str, str], dict[str, Path]]:
    """Sort ``.../{protocol}/{model}/{dataset}.*`` into (protocol, dataset) -> model -> path."""
    cells: dict[tuple[str, str], dict[str, Path]] = {}
    for path in (path for path in map(Path, paths) if _cell(path) not in left_out):
        cells.setdefault((path.parts[-3], path.stem), {})[path.parts[-2]] = path
    return cells


def _title(context: FigureContext, protocol: str, dataset: str) -> str:
    return f"{protocol}, {context.labels.dataset(dataset)}"

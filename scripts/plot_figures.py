"""Draw the figures of a suite from its tables, and from the pictures and losses that its jobs left."""

from pathlib import Path

from ssltransfer.files import read_json, write_json
from ssltransfer.jobs import job
from ssltransfer.report.figures import SCATTERS, Canvas, save_figure, suite_figures
from ssltransfer.report.interactive_scatter import explorer_data
from ssltransfer.report.picture_figures import loss_figure, picture_grid
from ssltransfer.report.table_folder import read_correlations, read_summary
from ssltransfer.results.picture_file import load_pictures

SHOWING = SCATTERS | {"properties": ("inversion", "attention")}
"""Figure -> the kinds of protocols that it shows, for those that do not show all."""


def by_task(paths: list[str]) -> dict[tuple[str, str], dict[str, Path]]:
    """Sort .../{protocol}/{model}/{dataset}.* into (protocol, data set) -> model -> path."""
    found: dict[tuple[str, str], dict[str, Path]] = {}
    for path in map(Path, paths):
        found.setdefault((path.parts[-3], path.stem), {})[path.parts[-2]] = path
    return found


with job(snakemake.log[0]):
    tables, folder = Path(snakemake.input.tables), Path(snakemake.output.figures)
    folder.mkdir(parents=True, exist_ok=True)
    summary, correlations = read_summary(tables), read_correlations(tables)
    for name, figure in suite_figures(summary, correlations):
        save_figure(figure, folder, name)
    canvas, notes = Canvas(summary), read_json(tables / "notes.json").values()
    captions = {
        name: " ".join(note["text"] for note in notes if note["kind"] in kinds) for name, kinds in SHOWING.items()
    }
    for (protocol, dataset), files in by_task(snakemake.input.pictures).items():
        pictures = {model: load_pictures(path) for model, path in files.items()}
        name = f"{snakemake.params.kinds[protocol]}-pictures-{protocol}-{dataset}"
        where = f"{protocol}, {summary.datasets.get(dataset, dataset)}"
        captions[name] = f"{where}: {next(iter(pictures.values())).caption}"
        save_figure(picture_grid(canvas, pictures), folder, name)
    curves = {
        f"{protocol}, {summary.datasets.get(dataset, dataset)}": {
            model: read_json(path) for model, path in files.items()
        }
        for (protocol, dataset), files in by_task(snakemake.input.curves).items()
    }
    if curves:
        save_figure(loss_figure(canvas, curves), folder, "losses")
    write_json(folder / "captions.json", captions)
    explorer = explorer_data(summary, correlations)
    if explorer:
        write_json(folder / "explorer.json", explorer)

"""Draw the figures of a suite from its tables."""

from pathlib import Path

from ssltransfer.explorer import explorer_data
from ssltransfer.files import write_json
from ssltransfer.jobs import job
from ssltransfer.plots import save_figure, suite_figures
from ssltransfer.summary import read_correlations, read_summary

with job(snakemake.log[0]):
    tables, folder = Path(snakemake.input.tables), Path(snakemake.output[0])
    folder.mkdir(parents=True, exist_ok=True)
    summary, correlations = read_summary(tables), read_correlations(tables)
    for name, figure in suite_figures(summary, correlations):
        save_figure(figure, folder, name)
    explorer = explorer_data(summary, correlations)
    if explorer:
        write_json(folder / "explorer.json", explorer)

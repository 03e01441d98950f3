"""Draw the figures of a suite from its tables."""

from pathlib import Path

from ssltransfer.jobs import job
from ssltransfer.plots import save_figure, suite_figures
from ssltransfer.summary import read_correlations, read_summary

with job(snakemake.log[0]):
    tables, folder = Path(snakemake.input.tables), Path(snakemake.output[0])
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in suite_figures(read_summary(tables), read_correlations(tables)):
        save_figure(figure, folder, name)

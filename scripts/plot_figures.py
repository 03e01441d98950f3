"""Draw the figures of a suite from its tables, and from the pictures and losses that its jobs left."""

from ssltransfer.jobs import job
from ssltransfer.report.figures import plot_figures

with job(snakemake.log[0]):
    plot_figures(
        snakemake.output.figures,
        snakemake.input.tables,
        snakemake.input.pictures,
        snakemake.input.curves,
        snakemake.params.kinds,
    )

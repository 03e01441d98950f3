"""Collect the scores of a suite, with published ones where it asks for them, and make its tables."""

from ssltransfer.jobs import job
from ssltransfer.report.table_folder import make_tables

with job(snakemake.log[0]):
    params = snakemake.params
    make_tables(
        snakemake.output.tables,
        snakemake.input.scores,
        params.models,
        params.datasets,
        params.pretrained_on,
        params.conventions,
        params.relabelled,
        params.published,
        # Not a parameter, so that it is never the reason to run this again.
        snakemake.config,
    )

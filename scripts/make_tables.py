"""Collect the scores of a suite, with published ones where it asks for them, and make its tables."""

from ssltransfer.config.load import load_suite
from ssltransfer.files import package_data
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
        # Read here and not passed as a parameter, so that no edit of the suite is a reason to run this again.
        load_suite(snakemake.config, package_data("workflow/schemas"), package_data(".")) if params.models else None,
        next(iter(snakemake.input.missing), None),
        snakemake.input.get("similarity", []),
    )

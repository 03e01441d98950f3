"""Write the provenance of the numbers of a suite."""

from pathlib import Path

from ssltransfer.jobs import job
from ssltransfer.report.provenance import write_provenance

with job(snakemake.log[0]):
    tables = snakemake.input.tables
    # What was brought from a storage lies below the folder of results/SUITE/tables.
    root = Path(tables).parents[2]
    # The configuration is read here and not passed as a parameter, so that it is never the reason to run this again.
    write_provenance(snakemake.output.provenance, snakemake.wildcards.suite, tables, snakemake.config, root)

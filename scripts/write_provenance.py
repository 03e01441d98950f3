"""Write the provenance of the numbers of a suite."""

from ssltransfer.jobs import job
from ssltransfer.report.provenance import write_provenance

with job(snakemake.log[0]):
    # The configuration is read here and not passed as a parameter, so that it is never the reason to run this again.
    write_provenance(snakemake.output.provenance, snakemake.wildcards.suite, snakemake.input.tables, snakemake.config)

"""Write the self-contained report of a suite."""

from ssltransfer.jobs import job
from ssltransfer.report.html import write_report

with job(snakemake.log[0]):
    write_report(
        snakemake.output.report,
        snakemake.wildcards.suite,
        snakemake.params.title,
        snakemake.input.tables,
        snakemake.input.figures,
        snakemake.input.provenance,
    )

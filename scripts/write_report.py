"""Write the self-contained report of a suite."""

from ssltransfer.files import read_json
from ssltransfer.jobs import job
from ssltransfer.report.html import write_report
from ssltransfer.report.provenance import summarise

with job(snakemake.log[0]):
    write_report(
        snakemake.output.report,
        snakemake.wildcards.suite,
        snakemake.params.title,
        snakemake.input.tables,
        snakemake.input.figures,
        summarise(read_json(snakemake.input.provenance)),
    )

"""Write the self-contained report of a suite."""

from ssltransfer.jobs import job, package_versions
from ssltransfer.report import write_report

PACKAGES = ("numpy", "scipy", "pandas", "matplotlib", "torch", "torchvision", "snakemake")

with job(snakemake.log[0]):
    write_report(
        snakemake.output[0],
        snakemake.wildcards.suite,
        snakemake.params.title,
        snakemake.input.tables,
        snakemake.input.figures,
        package_versions(*PACKAGES),
    )

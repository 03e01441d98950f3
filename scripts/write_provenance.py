"""Write down where the numbers of a suite come from."""

import csv
from pathlib import Path

from ssltransfer.files import write_json
from ssltransfer.jobs import job, package_versions
from ssltransfer.report.provenance import collect

PACKAGES = ("numpy", "scipy", "scikit-learn", "pandas", "matplotlib", "torch", "torchvision", "snakemake")

with job(snakemake.log[0]):
    with Path(snakemake.input.tables, "scores.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["source"] == "measured"]
    cells = {(row["protocol"], row["model"], row["dataset"]) for row in rows}
    # The configuration is read here and not passed as a parameter: it is never the reason to run this again.
    suite = snakemake.wildcards.suite
    write_json(snakemake.output.provenance, collect(suite, cells, snakemake.config, package_versions(*PACKAGES)))

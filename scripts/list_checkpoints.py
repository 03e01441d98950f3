"""List the converted checkpoints of a suite and what is known of each."""

from pathlib import Path

from ssltransfer.checkpoints.listing import list_checkpoints, write_listing
from ssltransfer.files import read_json
from ssltransfer.jobs import job

with job(snakemake.log[0]):
    verified = {Path(path).stem: read_json(path) for path in snakemake.input.verifications}
    table = list_checkpoints(map(Path, snakemake.input.checkpoints), verified, snakemake.params.heads)
    write_listing(table, Path(snakemake.output.table))

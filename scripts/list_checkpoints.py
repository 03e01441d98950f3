"""List the converted checkpoints of a suite and what is known of each."""

import sys
from pathlib import Path

from ssltransfer.checkpoints.listing import list_checkpoints
from ssltransfer.files import read_json, replacing
from ssltransfer.jobs import job

with job(snakemake.log[0]):
    verified = {Path(path).stem: read_json(path) for path in snakemake.input.verifications}
    table = list_checkpoints(map(Path, snakemake.input.checkpoints), verified, snakemake.params.heads)
    with replacing(snakemake.output[0]) as temporary:
        temporary.write_text("".join("\t".join(row) + "\n" for row in table), encoding="utf-8")
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)), file=sys.stderr)

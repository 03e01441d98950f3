"""Fetch and verify the published files of a model."""

from pathlib import Path

from ssltransfer.checkpoints.fetch import fetch
from ssltransfer.files import write_json
from ssltransfer.jobs import job

with job(snakemake.log[0]):
    params = snakemake.params
    source = params.source if isinstance(params.source, str) else params.source[0]
    alternatives = snakemake.resources.alternatives
    manifest = fetch(source, params.checksum, Path(params.folder), Path(params.pin), alternatives)
    write_json(snakemake.output.manifest, manifest)

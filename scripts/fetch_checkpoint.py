"""Fetch and verify the published weights of a model."""

from pathlib import Path

from ssltransfer.checkpoints.fetch import fetch
from ssltransfer.jobs import job

with job(snakemake.log[0]):
    fetch(snakemake.params.source, snakemake.params.sha256, Path(snakemake.output[0]))

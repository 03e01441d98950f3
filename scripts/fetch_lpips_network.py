"""Fetch and verify the network of an LPIPS distance; a failure is noted, so that other jobs can run without it."""

from pathlib import Path

from ssltransfer.checkpoints.fetch import fetch_if_possible
from ssltransfer.files import write_json
from ssltransfer.jobs import job, log

with job(snakemake.log[0]):
    params = snakemake.params
    source = params.source if isinstance(params.source, str) else params.source[0]
    manifest = fetch_if_possible(source, params.checksum, Path(params.folder), Path(params.pin))
    if "absent" in manifest:
        log.warning("%s; to try again: --forcerun fetch_lpips_network", manifest["absent"])
    write_json(snakemake.output.manifest, manifest)

"""Fetch and verify the network under an LPIPS distance; what went wrong is noted, so that the rest can run without."""

from pathlib import Path

from ssltransfer.checkpoints.fetch import fetch
from ssltransfer.errors import InputError
from ssltransfer.files import write_json
from ssltransfer.jobs import job, log

with job(snakemake.log[0]):
    params = snakemake.params
    try:
        manifest = fetch(params.source, params.checksum, Path(params.folder), Path(params.pin))
    except InputError as error:
        log.warning("%s; to try again: --forcerun fetch_lpips_network", error)
        manifest = {"files": [], "absent": str(error)}
    write_json(snakemake.output.manifest, manifest)

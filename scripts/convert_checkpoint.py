"""Convert the published files of a model to a plain ResNet backbone."""

import json
from pathlib import Path

from ssltransfer.checkpoints.convert import read_published
from ssltransfer.checkpoints.fetch import manifest_files
from ssltransfer.files import read_json
from ssltransfer.jobs import job, log
from ssltransfer.models.backbone_file import forward_check
from ssltransfer.results.tensor_file import save_state

with job(snakemake.log[0]):
    params = snakemake.params.checkpoint
    manifest = read_json(snakemake.input.manifest)
    published = read_published(
        manifest_files(manifest, Path(snakemake.params.folder)), params["format"], params["arch"]
    )
    log.info("%d tensors set, %d entries left out", len(published.state), len(published.dropped))
    provenance = {
        "source": " ".join(file["source"] for file in manifest["files"]),
        "files": json.dumps({file["name"]: file["sha256"] for file in manifest["files"]}),
        "arch": params["arch"],
        "converter": f"{params['format']} {params['version']}",
        "left_out": str(len(published.dropped)),
        "forward": json.dumps(forward_check(published.state, params["arch"], snakemake.wildcards.model)),
    }
    save_state(published.state, snakemake.output.checkpoint, provenance)

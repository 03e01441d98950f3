"""Convert the published weights of a model to a plain ResNet backbone."""

from pathlib import Path

from ssltransfer.checkpoints.convert import convert
from ssltransfer.jobs import job

with job(snakemake.log[0]):
    params = snakemake.params.checkpoint
    convert(
        # Snakemake leaves a hidden file in folders that are outputs.
        sorted(path for path in Path(snakemake.input[0]).iterdir() if not path.name.startswith(".")),
        params["format"],
        params["arch"],
        Path(snakemake.output[0]),
        {"source": params["source"], "converter": f"{params['format']} {params['version']}"},
    )

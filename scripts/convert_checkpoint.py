"""Convert the published files of a model to one safetensors file of its backbone."""

from pathlib import Path

from ssltransfer.checkpoints.convert import convert
from ssltransfer.checkpoints.fetch import pin_tensors, write_pin
from ssltransfer.files import read_json
from ssltransfer.jobs import job
from ssltransfer.results.tensor_file import save_tensors, tensor_hash

with job(snakemake.log[0]):
    params = snakemake.params
    manifest = read_json(snakemake.input.manifest)
    state, provenance = convert(manifest, Path(params.folder), params.checkpoint, snakemake.wildcards.model)
    write_pin(manifest)
    pin_tensors(manifest, Path("resources/checkpoint-pins", f"{snakemake.wildcards.model}.json"), tensor_hash(state))
    save_tensors(state, snakemake.output.checkpoint, provenance)

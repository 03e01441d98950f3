"""Pretrain the backbone of a model whose source is `pretrain:RECIPE`."""

from ssltransfer.jobs import JobUsage, job
from ssltransfer.pretraining.recipe import describe_pretraining, pretrain, read_recipe, read_training_data
from ssltransfer.results.tensor_file import save_tensors
from ssltransfer.results.tensor_header import encode_metadata
from ssltransfer.training_state import resumable, run_key

with job(snakemake.log[0]):
    usage = JobUsage()
    params, output = snakemake.params, snakemake.output.checkpoint
    recipe = read_recipe(params.recipe_name, params.recipe)
    data = read_training_data(snakemake.input.get("index"), snakemake.input.get("images"))
    key, save_seconds = run_key(params), snakemake.resources.save_seconds
    with resumable(output, key, recipe.config_path, label=recipe.name, save_seconds=save_seconds) as run:
        state, losses = pretrain(data, recipe, params.arch, params.norm, run)
        provenance = describe_pretraining(recipe, params.arch, losses, params.version, usage.report())
        save_tensors(state, output, encode_metadata(provenance))

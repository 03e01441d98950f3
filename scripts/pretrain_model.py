"""Pretrain the backbone of a model whose source is `pretrain:RECIPE`."""

import numpy as np

from ssltransfer.datasets.index import read_index
from ssltransfer.jobs import JobUsage, job
from ssltransfer.pretraining.recipe import Recipe, pretrain
from ssltransfer.results.tensor_file import save_tensors
from ssltransfer.results.tensor_header import encode_metadata
from ssltransfer.row_file import open_array
from ssltransfer.training import resumable, run_key

with job(snakemake.log[0]):
    usage = JobUsage()
    params, output = snakemake.params, snakemake.output.checkpoint
    recipe = Recipe(params.recipe_name, **params.recipe)
    images = labels = rows = np.empty(0)
    if recipe.method != "none":
        index = read_index(snakemake.input.index)
        images = open_array(snakemake.input.images)
        labels, rows = index.label_array(), np.flatnonzero(index.split_array() == "train")
    with resumable(output, run_key(params), recipe.config_path, label=recipe.name) as run:
        state, losses = pretrain(images, labels, rows, recipe, params.arch, params.norm, run)
        provenance = {
            "source": f"pretrain:{recipe.name}",
            "version": params.version,
            "recipe": params.recipe,
            "losses": [round(loss, 5) for loss in losses],
            "cost": usage.report(),
        }
        save_tensors(state, output, encode_metadata(provenance))

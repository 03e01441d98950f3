"""Pretrain the backbone of a model whose source is `pretrain:RECIPE`."""

import json
import shutil
from pathlib import Path

import numpy as np

from ssltransfer.datasets.index import read_index
from ssltransfer.jobs import JobUsage, job, progress
from ssltransfer.pretraining.recipe import Recipe, pretrain
from ssltransfer.results.tensor_file import save_tensors

with job(snakemake.log[0]):
    cost = JobUsage()
    params, output = snakemake.params, Path(snakemake.output.checkpoint)
    part = output.with_name(f"{output.name}.part")
    recipe = Recipe(params.recipe_name, **params.recipe)
    images = labels = rows = np.empty(0)
    if recipe.method != "none":
        index = read_index(snakemake.input.index)
        images = np.load(snakemake.input.images, mmap_mode="r", allow_pickle=False)
        labels, rows = index.label_array(), np.flatnonzero(index.split_array() == "train")
    key = json.dumps([params.arch, params.norm, params.version])
    state, losses = pretrain(
        images,
        labels,
        rows,
        recipe,
        params.arch,
        params.norm,
        part,
        key,
        progress=lambda steps, total: progress(steps, recipe.name, total),
    )
    provenance = {
        "source": f"pretrain:{recipe.name}",
        "version": str(params.version),
        "recipe": json.dumps(params.recipe),
        "losses": json.dumps([round(loss, 5) for loss in losses]),
        "cost": json.dumps(cost.report()),
    }
    save_tensors(state, output, provenance)
    shutil.rmtree(part, ignore_errors=True)

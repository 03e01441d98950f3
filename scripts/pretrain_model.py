"""Pretrain the backbone of a model whose source is `pretrain:RECIPE`."""

import json
import shutil
import time
from pathlib import Path

import numpy as np
from ssltransfer.checkpoints.backbone_file import save_backbone
from ssltransfer.datasets.index import read_index
from ssltransfer.pretraining.training import Recipe, pretrain

started = time.monotonic()
params, output = snakemake.params, Path(snakemake.output[0])
part = output.with_name(f"{output.name}.part")
recipe = Recipe(params.recipe_name, **params.recipe)
if recipe.method == "none":
    images = labels = rows = np.empty(0)
else:
    index = read_index(snakemake.input.index)
    images = np.load(snakemake.input.images, mmap_mode="r")
    labels, rows = index.label_array(), np.flatnonzero(index.split_array() == "train")
state, losses = pretrain(images, labels, rows, recipe, params.arch, params.norm, part)
provenance = {
    "source": f"pretrain:{recipe.name}",
    "recipe": json.dumps(params.recipe),
    "version": str(params.version),
    "seconds": f"{time.monotonic() - started:.1f}",
    "losses": json.dumps([round(loss, 5) for loss in losses]),
}
save_backbone(state, output, provenance)
shutil.rmtree(part, ignore_errors=True)

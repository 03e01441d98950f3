"""Reconstruct the images of a data set from the features of a model."""

import json
import shutil
from pathlib import Path

import numpy as np

from ssltransfer.datasets.index import image_names, read_index
from ssltransfer.device import choose_device
from ssltransfer.files import atomic_write
from ssltransfer.jobs import JobUsage, job, package_versions, progress
from ssltransfer.models.backbone_file import load_backbone
from ssltransfer.models.fusion import fuse_conv_bn
from ssltransfer.protocols.inversion.inversion import batch_size, invert, read_settings
from ssltransfer.results.score_file import decode
from ssltransfer.results.tensor_file import read_provenance
from ssltransfer.training import save_curve

with job(snakemake.log[0]):
    cost = JobUsage()
    params, output = snakemake.params, snakemake.output
    part = Path(f"{output.images}.part")
    device = choose_device()
    index = read_index(snakemake.input.index)
    settings = read_settings(params.settings)
    key = json.dumps([params.arch, params.norm, params.version, read_provenance(snakemake.input.checkpoint)])
    images, interval, losses = invert(
        fuse_conv_bn(load_backbone(snakemake.input.checkpoint, params.arch), device),
        np.load(snakemake.input.images, allow_pickle=False),
        image_names(index),
        params.norm,
        settings,
        device,
        part,
        key,
        where=f"protocols.{snakemake.wildcards.protocol}",
        batch_size=batch_size(settings, device),
        progress=lambda steps, total: progress(steps, "steps", total),
    )
    save_curve(output.curve, interval, losses)
    provenance = {
        "checkpoint": decode(read_provenance(snakemake.input.checkpoint)),
        "norm": params.norm,
        "versions": package_versions("torch", "numpy") | {"protocol": params.version},
        "cost": cost.report(),
    }
    with atomic_write(output.images) as temporary:
        np.savez(
            temporary, images=images, names=np.array(image_names(index)), provenance=np.array(json.dumps(provenance))
        )
    shutil.rmtree(part, ignore_errors=True)

"""Extract the features of a data set with a model."""

from pathlib import Path

import numpy as np

from ssltransfer.checkpoints.backbone_file import load_backbone, read_provenance
from ssltransfer.device import choose_device
from ssltransfer.features import extract_features
from ssltransfer.files import write_json
from ssltransfer.jobs import Cost, job, package_versions, progress
from ssltransfer.score_file import decode

with job(snakemake.log[0]):
    cost = Cost()
    device = choose_device(snakemake.threads)
    images = np.load(snakemake.input.images, mmap_mode="r", allow_pickle=False)
    extract_features(
        load_backbone(snakemake.input.checkpoint, snakemake.params.arch),
        images,
        snakemake.wildcards.norm,
        Path(snakemake.output.features),
        device,
        progress=lambda batches: progress(batches, "batches"),
    )
    write_json(
        snakemake.output.provenance,
        dict(snakemake.wildcards.items())
        | {
            "images": len(images),
            "checkpoint": decode(read_provenance(snakemake.input.checkpoint)),
            "device": device.type,
            "versions": package_versions("torch", "numpy"),
            "cost": cost.report(),
        },
    )

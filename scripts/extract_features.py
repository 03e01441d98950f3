"""Extract the features of a data set with a model."""

from pathlib import Path

from ssltransfer.device import choose_device
from ssltransfer.files import write_json
from ssltransfer.jobs import Cost, job, package_versions, progress
from ssltransfer.models.backbone_file import load_backbone
from ssltransfer.models.features import extract_features
from ssltransfer.results.score_file import decode
from ssltransfer.results.tensor_header import read_provenance
from ssltransfer.row_file import ArrayFile

with job(snakemake.log[0]):
    cost = Cost()
    device = choose_device(snakemake.threads)
    params = snakemake.params.features
    if prepared := snakemake.input.get("images"):
        images = ArrayFile(prepared)
    else:
        # Readers of the original images, which most jobs do without.
        from ssltransfer.datasets import Source, image_root
        from ssltransfer.datasets.images import DecodedImages
        from ssltransfer.datasets.index import read_index

        source = Source(*params["source"])
        images = DecodedImages(
            image_root(source, snakemake.resources.data_root, snakemake.input.index),
            read_index(snakemake.input.index).image,
            snakemake.wildcards.transform,
            source.name,
            workers=snakemake.threads,
        )
    extract_features(
        load_backbone(snakemake.input.checkpoint, params["arch"]),
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

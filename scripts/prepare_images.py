"""Decode, resize and crop the images of a dataset once for all models."""

from pathlib import Path

from ssltransfer.datasets.dataset import Dataset
from ssltransfer.datasets.images import prepare_images
from ssltransfer.jobs import job, progress

with job(snakemake.log[0]):
    dataset = Dataset(snakemake.params.images["source"], snakemake.resources.data_root, snakemake.input.index)
    prepare_images(
        dataset.root,
        dataset.index.image,
        snakemake.wildcards.transform,
        Path(snakemake.output.images),
        source=dataset.source.name,
        workers=snakemake.threads,
        progress=lambda rows, total: progress(rows, "images", total),
    )

"""Decode, resize and crop the images of a data set once for all models."""

from pathlib import Path

from ssltransfer.datasets import Source, image_root
from ssltransfer.datasets.images import prepare_images
from ssltransfer.datasets.index import read_index
from ssltransfer.jobs import job, progress

with job(snakemake.log[0]):
    source = Source(*snakemake.params.images["source"])
    prepare_images(
        root=image_root(source, snakemake.resources.data_root, snakemake.input.index),
        references=read_index(snakemake.input.index).image,
        transform=snakemake.wildcards.transform,
        output=Path(snakemake.output.images),
        source=source.name,
        workers=snakemake.threads,
        progress=lambda rows, total: progress(rows, "images", total),
    )

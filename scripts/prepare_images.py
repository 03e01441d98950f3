"""Decode, resize and crop the images of a data set once for all models."""

from pathlib import Path

from ssltransfer.datasets import Source
from ssltransfer.datasets.index import read_index
from ssltransfer.images import prepare_images
from ssltransfer.jobs import job, progress

with job(snakemake.log[0]):
    index_file = Path(snakemake.input.index)
    source = Source(*snakemake.params.images["source"])
    original = source.kind == "original"
    prepare_images(
        root=Path(snakemake.resources.data_root) / source.name if original else index_file.parent,
        references=read_index(index_file).image,
        transform=snakemake.wildcards.transform,
        output=Path(snakemake.output.images),
        workers=snakemake.threads,
        progress=lambda rows, total: progress(rows, "images", total),
    )

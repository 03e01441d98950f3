"""Sample one image of each of several datasets, and keep copies with an index of their own."""

from pathlib import Path

from ssltransfer.datasets.dataset import Dataset
from ssltransfer.datasets.index import write_index
from ssltransfer.datasets.sample import sample_images
from ssltransfer.jobs import job

with job(snakemake.log[0]):
    params = snakemake.params.index
    datasets = [
        Dataset(source, snakemake.resources.data_root, index_file)
        for source, index_file in zip(params["sources"], snakemake.input.indexes, strict=True)
    ]
    index = sample_images(params, datasets, Path(snakemake.output.originals))
    write_index(snakemake.output.index, index)

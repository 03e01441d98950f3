"""Read the known surface normals of a dataset and the masks of valid pixels into one array."""

from pathlib import Path

from ssltransfer.datasets.dataset import Dataset
from ssltransfer.jobs import job, progress
from ssltransfer.protocols.dense.normals.known_normals import prepare_normals

with job(snakemake.log[0]):
    dataset = Dataset(snakemake.params.normals["source"], snakemake.resources.data_root, snakemake.input[0])
    prepare_normals(dataset, Path(snakemake.output.normals), lambda rows: progress(rows, "images"))

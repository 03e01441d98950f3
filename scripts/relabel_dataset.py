"""Index the images of a dataset under another column of its index."""

from ssltransfer.datasets.index import read_index, write_index
from ssltransfer.datasets.indexing import relabel
from ssltransfer.jobs import job

with job(snakemake.log[0]):
    write_index(snakemake.output.index, relabel(read_index(snakemake.input[0]), snakemake.params.index))

"""Read the original layout of a dataset, or a user's own images, into an index."""

from ssltransfer.datasets.index import write_index
from ssltransfer.datasets.indexing import index_source
from ssltransfer.jobs import job, progress

with job(snakemake.log[0]):
    index = index_source(
        snakemake.params.index,
        data_root=snakemake.resources.data_root,
        index_file=snakemake.output.index,
        workers=snakemake.threads,
        progress=lambda rows, total: progress(rows, "images", total),
    )
    write_index(snakemake.output.index, index)

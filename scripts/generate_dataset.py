"""Generate a dataset and its index."""

from ssltransfer.datasets.index import write_index
from ssltransfer.datasets.indexing import generate_dataset
from ssltransfer.jobs import job
from ssltransfer.row_file import save_array

with job(snakemake.log[0]):
    generated = generate_dataset(snakemake.params.index)
    for name, path in snakemake.output.items():
        if name != "index":
            save_array(path, generated.files[name])
    write_index(snakemake.output.index, generated.index)

"""Generate a data set and its index."""

import numpy as np

from ssltransfer.datasets import Source, load
from ssltransfer.datasets.index import check_counts, check_index, write_index
from ssltransfer.files import atomic_write
from ssltransfer.jobs import job

with job(snakemake.log[0]):
    params = snakemake.params.index
    generated = load(Source(*params["source"])).generate()
    check_index(generated.index, params["dataset"])
    check_counts(generated.index, params["dataset"], params["counts"])
    arrays = {"originals": generated.images} | generated.arrays
    for name, path in snakemake.output.items():
        if name != "index":
            with atomic_write(path) as temporary:
                np.save(temporary, arrays[name])
    write_index(snakemake.output.index, generated.index)

"""Index the images of a data set under another column of its index."""

from dataclasses import replace

from ssltransfer.datasets import Source
from ssltransfer.datasets.index import check_counts, check_index, read_index, write_index
from ssltransfer.errors import InputError
from ssltransfer.jobs import job

with job(snakemake.log[0]):
    params = snakemake.params.index
    source = Source(*params["source"])
    index = read_index(snakemake.input[0])
    if source.variant not in index.extra:
        raise InputError(
            f"{params['dataset']}: data set {source.name} has no column {source.variant!r}; "
            f"found {', '.join(index.extra) or 'none'}"
        )
    index = replace(index, label=index.extra[source.variant], extra={})
    check_index(index, params["dataset"])
    check_counts(index, params["dataset"], params["counts"])
    write_index(snakemake.output.index, index)

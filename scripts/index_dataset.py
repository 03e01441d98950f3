"""Read the original layout of a data set into an index."""

from pathlib import Path

from ssltransfer.datasets import Source, load
from ssltransfer.datasets.index import check_counts, check_index, write_index
from ssltransfer.errors import InputError
from ssltransfer.jobs import job, log

with job(snakemake.log[0]):
    params = snakemake.params.index
    source = Source(*params["source"])
    root = Path(snakemake.resources.data_root) / source.name
    if not root.is_dir():
        raise InputError(
            f"{params['dataset']}: folder {root} is missing; place the data set there in its original layout "
            "(see the column reference of config/datasets.tsv), or set data_root"
        )
    index = load(source).index(root)
    check_index(index, params["dataset"])
    try:
        check_counts(index, params["dataset"], params["counts"])
    except InputError as error:
        if not params["allow_subset"]:
            raise
        log.warning("allow_subset: %s", error)
    write_index(snakemake.output.index, index)

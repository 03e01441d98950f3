"""Read the original layout of a dataset, or a user's own images, into an index."""

from pathlib import Path

from ssltransfer.datasets.index import write_index
from ssltransfer.datasets.indexing import index_source
from ssltransfer.files import write_json
from ssltransfer.jobs import job, progress

with job(snakemake.log[0]):
    index = index_source(
        snakemake.params.index,
        data_root=snakemake.resources.data_root,
        index_file=snakemake.output.index,
        workers=snakemake.threads,
        progress=lambda rows, total: progress(rows, "images", total),
    )
    if table := snakemake.params.index.get("table"):  # see `table_state` in workflow/rules/inputs.smk
        write_json(Path(snakemake.output.index).with_name("table.json"), {"table": table})
    write_index(snakemake.output.index, index)

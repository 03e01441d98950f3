"""Draw the masks of a generated dataset."""

from ssltransfer.datasets.sources import Source, load
from ssltransfer.jobs import job
from ssltransfer.row_file import save_array

with job(snakemake.log[0]):
    save_array(snakemake.output.masks, load(Source(*snakemake.params.source)).draw_masks())

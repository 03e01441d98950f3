"""Find an original dataset below the data root, or download it."""

from ssltransfer.datasets.obtain import find_or_obtain
from ssltransfer.files import write_json
from ssltransfer.jobs import job

with job(snakemake.log[0]):
    write_json(snakemake.output.record, find_or_obtain(snakemake.wildcards.original, snakemake.resources.data_root))

"""Find an original data set below the data root, or download it."""

from datetime import UTC, datetime

from ssltransfer.datasets import DOWNLOADS, Source, location
from ssltransfer.datasets.obtain import obtain
from ssltransfer.files import write_json
from ssltransfer.jobs import job

with job(snakemake.log[0]):
    name = snakemake.wildcards.original
    place = location(Source("original", name), snakemake.resources.data_root)
    files = {} if place.exists() else obtain(name, DOWNLOADS / name, place)
    # Which place it is may change (data_root); that there was one is what this file records.
    write_json(snakemake.output.record, {"dataset": name, "date": datetime.now(UTC).date().isoformat(), "files": files})

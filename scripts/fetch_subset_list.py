"""Fetch and verify a published list of labelled images."""

import shutil
from pathlib import Path

from ssltransfer.download import download
from ssltransfer.jobs import job
from ssltransfer.protocols.label_efficiency.subset_lists import SUBSET_LISTS, read_subset_list

with job(snakemake.log[0]):
    subset = SUBSET_LISTS[snakemake.wildcards.subset]
    file = Path(snakemake.params.folder, subset.name)  # where it may have been placed by hand
    file.parent.mkdir(parents=True, exist_ok=True)
    download([subset.url], file, sha256=subset.sha256)
    read_subset_list(file, subset.images)
    shutil.copyfile(file, snakemake.output.subset)

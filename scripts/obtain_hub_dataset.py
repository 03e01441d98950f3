"""Download a dataset of the Hugging Face hub and unpack its images, as they are."""

from ssltransfer.datasets import Source
from ssltransfer.datasets.hub_shards import obtain_hub_dataset
from ssltransfer.files import write_json
from ssltransfer.jobs import job

with job(snakemake.log[0]):
    source = Source(*snakemake.params.source)
    write_json(snakemake.output.record, obtain_hub_dataset(source, snakemake.resources.data_root))

"""Import the given features of a model, in the order of the index of their dataset."""

from ssltransfer.checkpoints.sources import given_file
from ssltransfer.datasets.index import read_index
from ssltransfer.files import write_json
from ssltransfer.jobs import JobUsage, job
from ssltransfer.models.given_features import describe_given_features, read_given_features
from ssltransfer.row_file import save_array

with job(snakemake.log[0]):
    usage = JobUsage()
    source, wildcards = snakemake.params.features["source"], snakemake.wildcards
    images = read_index(snakemake.input.index).image
    path = given_file(source, wildcards.dataset)
    save_array(snakemake.output.features, read_given_features(path, images))
    record = describe_given_features(wildcards, len(images), source, path, usage)
    write_json(snakemake.output.provenance, record)

"""Compare the representations of all models of a suite on the images of a dataset."""

from ssltransfer.datasets.index import read_index
from ssltransfer.device import choose_arrays
from ssltransfer.jobs import job, progress
from ssltransfer.protocols.representations.comparison import compare_representations

with job(snakemake.log[0]):
    compare_representations(
        snakemake.output.similarity,
        snakemake.params.store,
        snakemake.params.features,
        read_index(snakemake.input.index),
        snakemake.wildcards.dataset,
        snakemake.wildcards.protocol,
        snakemake.params.version,
        choose_arrays(),
        lambda pairs: progress(pairs, "pairs"),
        snakemake.params.scores,
    )

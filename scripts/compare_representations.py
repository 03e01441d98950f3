"""Compare the representations of all models of a suite on the images of a dataset."""

from ssltransfer.datasets.index import read_index
from ssltransfer.device import choose_arrays
from ssltransfer.jobs import job, progress
from ssltransfer.protocols.similarity.comparison import compare_representations

with job(snakemake.log[0]):
    params = snakemake.params
    # An input that was brought from a storage lies below another folder than the parameter says.
    brought = {
        model: next((there for there in snakemake.input.features if there.endswith(path)), path)
        for model, path in params.features.items()
    }
    compare_representations(
        snakemake.output.similarity,
        params.store,
        brought,
        read_index(snakemake.input.index),
        snakemake.wildcards.dataset,
        snakemake.wildcards.protocol,
        params.version,
        choose_arrays(),
        lambda pairs: progress(pairs, "pairs"),
        params.scores,
    )

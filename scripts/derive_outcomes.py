"""Derive the outcomes of scores that were measured without them."""

from ssltransfer.jobs import job, progress
from ssltransfer.protocols.stored_outcomes import derive_outcomes

with job(snakemake.log[0]):
    derive_outcomes(
        snakemake.output.derived, snakemake.input.scores, lambda files: progress(files, "scores", len(files))
    )

"""Collect the scores of a suite and make its tables."""

from pathlib import Path

from ssltransfer.jobs import job
from ssltransfer.scores import collect_scores
from ssltransfer.summary import summarise, write_summary

with job(snakemake.log[0]):
    params = snakemake.params
    scores = collect_scores(snakemake.input.scores)
    summary = summarise(scores, params.models, params.datasets, params.pretrained_on, params.conventions)
    folder = Path(snakemake.output[0])
    folder.mkdir(parents=True, exist_ok=True)
    write_summary(summary, folder)

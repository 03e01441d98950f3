"""Collect the scores of a suite, published ones beside them where it asks for them, and make its tables."""

from pathlib import Path

import pandas as pd

from ssltransfer.analysis.published import FOLDER, LABELS, merge_models, published_models, published_scores
from ssltransfer.analysis.suite_results import correlate_summary, summarise
from ssltransfer.files import write_json
from ssltransfer.jobs import job
from ssltransfer.report.table_folder import write_summary
from ssltransfer.report.tables import add_notes, all_tables
from ssltransfer.results.scores import collect_scores, read_episodes, read_notes

with job(snakemake.log[0]):
    params, paths = snakemake.params, snakemake.input.scores
    scores, models, datasets = collect_scores(paths), params.models, params.datasets
    if params.published:
        scores = pd.concat([scores, published_scores(FOLDER, params.published)], ignore_index=True)
        models = merge_models(published_models(FOLDER), models)
        datasets = LABELS | datasets
    published = FOLDER if params.published else None
    summary = summarise(scores, models, datasets, params.pretrained_on, params.conventions, params.relabelled)
    tables = all_tables(summary, correlate_summary(summary), read_episodes(paths), published)
    notes = read_notes(paths)
    add_notes(tables, notes)
    folder = Path(snakemake.output.tables)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "notes.json", notes)
    write_summary(summary, tables, folder)

"""The claims of the paper, checked against its own tables and against measured scores."""

from collections.abc import Callable

import pandas as pd

from ssltransfer.analysis.claim_answers import ANSWERS, STATED, Answer
from ssltransfer.analysis.comparison import on_paper_datasets
from ssltransfer.analysis.evidence import Evidence
from ssltransfer.analysis.marks import marked
from ssltransfer.analysis.published import PAPER_SPLITS, VERSIONS, published_models, published_scores, text_claims
from ssltransfer.results.scores import CELL

VERDICTS = {True: "holds", False: "fails", None: "cannot be checked"}


def check_claims(measured: pd.DataFrame) -> pd.DataFrame:
    """Check every statement against the published tables and, where all cells are there, against measured scores.

    Parameters
    ----------
    measured : pd.DataFrame
        Tidy table; only rows with source ``measured`` and without marks count, of properties those of the paper's
        datasets. Where a dataset with the paper's split was measured, it counts instead of another split.

    Returns
    -------
    pd.DataFrame
        ``statement, version, where, published, recomputed, verdict, measured, measured_verdict``. The verdict of
        statements about anything but scores (numbers of images, bins) is "not a score".
    """
    models = published_models()
    evidence = {version: Evidence(published_scores(version), models, version) for version in VERSIONS}
    own = measured[(measured["source"] == "measured") & measured["model"].isin([row["model"] for row in models])]
    own = own[on_paper_datasets(own) & ~marked(own)]
    own = own.sort_values("dataset", key=lambda names: ~names.isin(list(PAPER_SPLITS)), kind="stable")
    own = own.assign(protocol=own["kind"], dataset=own["dataset"].replace(PAPER_SPLITS)).drop_duplicates(CELL)
    ours = {version: _measured(own, models, published) for version, published in evidence.items()}
    questions = [
        (row.version, row.where, row.claim, row.value, STATED.get((row.version[-2:], row.claim)), row.note)
        for row in text_claims().rename(columns={"recomputed_from_tables": "note"}).itertuples()
    ]
    questions += [(*answer, "") for answer in ANSWERS]
    rows = []
    for version, where, statement, printed, answer, note in questions:
        row = {"statement": statement, "version": version, "where": where, "published": printed}
        rows.append(row | _judge(answer, evidence[version[-2:]], ours[version[-2:]], note))
    return pd.DataFrame(rows)


def _measured(own: pd.DataFrame, models: list[dict], published: Evidence) -> Evidence | None:
    """Evidence from measured scores of the tasks that are published; None where no task is complete."""
    try:
        return Evidence(own, models, published.version, published.expected)
    except KeyError:
        return None


def _judge(answer: Callable[[Evidence], Answer] | None, published: Evidence, own: Evidence | None, note: str) -> dict:
    if answer is None:
        return {"recomputed": note, "verdict": "not a score", "measured": "", "measured_verdict": ""}
    text, holds = answer(published)
    row = {"recomputed": text, "verdict": VERDICTS[holds], "measured": "", "measured_verdict": ""}
    if own is None:
        return row
    try:
        text, holds = answer(own)
    except KeyError:
        return row
    return row | {"measured": text, "measured_verdict": VERDICTS[holds]}

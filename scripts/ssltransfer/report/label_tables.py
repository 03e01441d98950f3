"""Tables of label efficiency: the points of all curves, and the labels that a model needs to reach another one."""

import pandas as pd

from ssltransfer.analysis.label_curves import CURVE, label_equivalence
from ssltransfer.report.labels import Labels, joined
from ssltransfer.report.table import Table, records_table

WORDS = {"no": "not reached", "at most": "≤ "}


def label_tables(curves: pd.DataFrame, labels: Labels, remark: str = "") -> list[Table]:
    """Return a table of the curves and, of several models, one of their label equivalence.

    Parameters
    ----------
    curves : pd.DataFrame
        See `label_curves.collect_curves`; at least one row.
    labels : Labels
    remark : str
        Sentences for both captions, such as `marks.unsigned_note`.
    """
    caption = (
        "Test score in percent with few labelled images, mean over draws of these images, which are the same for all "
        "models. Penalties are chosen by cross-validation among the labelled images, or fixed where a class has a "
        "single one. all: the many-shot score. The csv has the numbers of images and the intervals: Student's t over "
        "draws, for this test set (nominally 95 %, in simulations of skewed values 91 %); that of all is over test "
        "images."
    )
    wide = curves.pivot_table(index=CURVE, columns="setting", values="value", sort=False)
    wide = wide[list(curves.groupby("setting")["images"].mean().sort_values().index)]
    names = {key: _name(key, labels, curves) for key in wide.index}
    wide.index = pd.Index(list(wide.index), tupleize_cols=False)
    wide.columns = [setting.replace("-percent", " %").replace("-", " ") for setting in wide.columns]
    caption, section = joined(caption, remark), {"section": "label-efficiency"}
    tables = [
        records_table("label-efficiency", "Label efficiency", caption, wide, row_labels=names, data=curves, **section)
    ]
    found = label_equivalence(curves)
    if found.empty:
        return tables
    texts = {}
    for row in found.itertuples():
        cell = texts.setdefault((row.protocol, row.dataset, row.metric, "", row.model), {})
        number = "" if row.reached == "no" else f"{row.share:.3g}"
        cell[labels.model(row.reference)] = WORDS.get(row.reached, "") + number
    records = pd.DataFrame.from_dict(texts, orient="index").fillna("")
    records = records[
        [name for name in dict.fromkeys(labels.model(model) for model in curves["model"]) if name in records]
    ]
    names = {key: _name(key, labels, curves) for key in texts}
    records.index = pd.Index(list(texts), tupleize_cols=False)
    caption = (
        "Share of all labels with which the linear classifier of the model of the row reaches the score that the model "
        "of the column has with all labels (linear in the logarithm of the number of images, mean over draws). "
        "≤: reached with the smallest number of labels that was measured."
    )
    caption, more = joined(caption, remark), {"row_labels": names, "data": found, **section}
    return [*tables, records_table("label-equivalence", "Label equivalence", caption, records, **more)]


def _name(key: tuple, labels: Labels, curves: pd.DataFrame) -> str:
    protocol, dataset, _, classifier, model = key
    parts = [labels.model(model), classifier, labels.dataset(dataset), protocol]
    several = [curves["model"], curves["classifier"], curves["dataset"], curves["protocol"]]
    kept = [part for part, values in zip(parts, several, strict=True) if values.nunique() > 1 or part == parts[0]]
    return joined(*kept, by=" · ")

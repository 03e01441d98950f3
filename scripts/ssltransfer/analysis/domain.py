"""Scores of models on the dataset they were pretrained on, beside those of models pretrained elsewhere."""

import pandas as pd


def domain_scores(cells: pd.DataFrame, pretrained_on: dict[str, str]) -> pd.DataFrame:
    """Linear scores on the datasets that models were pretrained on: models grouped by their own dataset x datasets.

    Parameters
    ----------
    cells : pd.DataFrame
        Tidy table with one row per cell; the first linear protocol is used.
    pretrained_on : dict
        Model -> dataset of the suite it was pretrained on; other models are left out.

    Returns
    -------
    pd.DataFrame
        Empty unless two or more such datasets have linear scores.
    """
    linear = cells[cells["kind"] == "linear"]
    linear = linear[linear["protocol"] == linear["protocol"].iloc[0]] if len(linear) else linear
    domains = [d for d in dict.fromkeys(linear["dataset"]) if d in set(pretrained_on.values())]
    if len(domains) < 2:
        return pd.DataFrame()
    models = [m for d in domains for m, own in pretrained_on.items() if own == d]
    wide = linear.pivot(index="model", columns="dataset", values="value")
    return wide.reindex(index=models, columns=domains).dropna(how="all")

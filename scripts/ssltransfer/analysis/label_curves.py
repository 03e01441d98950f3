"""Label-efficiency curves of models, and the labels that one model needs to reach the score of another."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from ssltransfer.files import read_json

KIND = "label-efficiency"
LINEAR, NEAREST = "linear", "k-NN"
CURVE = ["protocol", "dataset", "metric", "classifier", "model"]
COLUMNS = [*CURVE, "setting", "images", "value", "low", "high"]


def collect_curves(score_files: Iterable[str | Path]) -> pd.DataFrame:
    """Collect the points of label-efficiency scores.

    Returns
    -------
    pd.DataFrame
        One row per point: `CURVE`, ``setting``, ``images`` (mean number of labelled images of all classes), ``value``
        in percent, ``low`` and ``high`` (NaN without an interval); each curve by rising numbers of images.
    """
    rows = []
    for score in map(read_json, score_files):
        if score.get("kind") != KIND:
            continue
        for value in score["values"]:
            name = value["setting"].removeprefix("knn-")
            if name not in score["details"]["labelled"]:
                continue
            rows.append(
                {key: score.get(key) for key in ("protocol", "dataset", "model")}
                | {key: value.get(key) for key in ("metric", "value", "low", "high")}
                | {"classifier": LINEAR if name == value["setting"] else NEAREST, "setting": name}
                | {"images": score["details"]["labelled"][name]}
            )
    frame = pd.DataFrame(rows, columns=COLUMNS).astype({"value": float, "low": float, "high": float, "images": float})
    order = {name: number for number, name in enumerate(dict.fromkeys(frame["model"]))}
    return frame.sort_values(
        [*CURVE, "images"], key=lambda column: column.map(order) if column.name == "model" else column, kind="stable"
    ).reset_index(drop=True)


def labels_needed(images: np.ndarray, scores: np.ndarray, score: float) -> float:
    """Number of labelled images at which a curve first reaches a score, linear in the logarithm of the number.

    Parameters
    ----------
    images, scores : ndarray of float, shape (points,)
        Rising numbers of labelled images, and scores in percent.
    score : float

    Returns
    -------
    float
        The first number of the curve where it starts at the score or above; infinite where it does not reach it.
    """
    reached = np.flatnonzero(scores >= score)
    if not len(reached):
        return np.inf
    last = int(reached[0])
    if last == 0:
        return float(images[0])
    x, y = np.log2(images[last - 1 : last + 1]), scores[last - 1 : last + 1]
    return float(2 ** (x[0] + (score - y[0]) / (y[1] - y[0]) * (x[1] - x[0])))


def label_equivalence(curves: pd.DataFrame) -> pd.DataFrame:
    """Labels with which each model reaches the linear score of each other one with all labels.

    Parameters
    ----------
    curves : pd.DataFrame
        See `collect_curves`.

    Returns
    -------
    pd.DataFrame
        ``protocol``, ``dataset``, ``metric``, ``model``, ``reference``, ``images`` (NaN where the score is not
        reached), ``share`` of all images, and ``reached``: ``yes``, ``no``, or ``at most`` where the first point of the
        curve is there already.
    """
    rows = []
    for key, own in curves[curves["classifier"] == LINEAR].groupby(["protocol", "dataset", "metric"], sort=False):
        by_model = {
            model: (points["images"].to_numpy(), points["value"].to_numpy())
            for model, points in own.groupby("model", sort=False)
        }
        for model, (images, scores) in by_model.items():
            for reference, (_, others) in by_model.items():
                if model == reference:
                    continue
                number = labels_needed(images, scores, others[-1])
                reached = "no" if np.isinf(number) else "at most" if number == images[0] else "yes"
                number = np.nan if np.isinf(number) else number
                rows.append((*key, model, reference, number, number / images[-1], reached))
    columns = ["protocol", "dataset", "metric", "model", "reference", "images", "share", "reached"]
    return pd.DataFrame(rows, columns=columns)

"""Outcomes of metrics that are means over a few images: inversion and attention."""

from collections.abc import Mapping, Sequence

import numpy as np

from ssltransfer.analysis.uncertainty import t_interval
from ssltransfer.results.outcome_file import Outcome, identity


def image_mean_outcomes(names: Sequence[str], values: Mapping[str, Sequence[float]]) -> list[Outcome]:
    """Return one outcome per metric, with its value for each image.

    Parameters
    ----------
    names : sequence of str
        Names of the images, which identify them.
    values : mapping
        Metric -> its value for each image.
    """
    units = identity(np.array(names))
    return [
        Outcome(
            metric=metric,
            setting="",
            value=float(np.mean(numbers)),
            units="images",
            identity=units,
            values=np.asarray(numbers, np.float64),
            interval=t_interval(np.asarray(numbers, np.float64), metric, "images"),
            note="" if len(names) > 1 else "no interval: a single image",
        )
        for metric, numbers in values.items()
    ]

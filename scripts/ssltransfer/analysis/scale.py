"""The analysis scale: log-odds of bounded scores, other scores as they are (v2 section A.7)."""

import numpy as np
import pandas as pd

from ssltransfer.results.metric_info import METRICS

#: The logit is infinite at 0 and 100 %. Scores are printed to 0.01 %, so they are clipped by half a digit (0.005 %).
CLIP = 5e-5


def logit(fraction):
    """Log-odds ln(p / (1 - p)).

    Parameters
    ----------
    fraction : array_like
        Values from 0 to 1. 0 and 1 count as `CLIP` and 1 - `CLIP`; NaN stays NaN.

    Raises
    ------
    ValueError
        A value lies outside 0 to 1.
    """
    p = np.asarray(fraction, float)
    if np.any((p < 0) | (p > 1)):
        raise ValueError("the logit is defined from 0 to 1")
    p = np.clip(p, CLIP, 1 - CLIP)
    return np.log(p / (1 - p))


def is_logit(metric: str, raw: bool = False) -> bool:
    """Whether `to_analysis_scale` takes the logit."""
    return METRICS[metric].logit and not raw


def to_analysis_scale(values, metric: str, raw: bool = False):
    """Transform scores of one metric as correlations and averages use them: logits where the metric is bounded.

    LPIPS is a distance, but the paper takes its logit as well; values above 1 are clipped.

    Parameters
    ----------
    values : array_like
        Scores in the unit of the metric.
    metric : str
        A key of `METRICS`.
    raw : bool
        Leave the scores as they are, whatever the metric.
    """
    values = np.asarray(values, float)
    if not is_logit(metric, raw):
        return values
    return logit(np.minimum(values / METRICS[metric].scale, 1.0))


def slope(values, metric: str):
    """Derivative of `to_analysis_scale`, by which small errors of scores become errors on the analysis scale."""
    values = np.asarray(values, float)
    if not is_logit(metric):
        return np.ones_like(values)
    scale = METRICS[metric].scale
    fraction = np.clip(values / scale, CLIP, 1 - CLIP)
    return 1 / (scale * fraction * (1 - fraction))


def is_clipped(values: pd.Series, metric: str) -> pd.Series:
    """Mark scores whose logit would be infinite or lie outside that of `CLIP`."""
    fraction = values / METRICS[metric].scale
    return (fraction < CLIP) | (fraction > 1 - CLIP)


def higher_is_better(values: pd.DataFrame) -> pd.DataFrame:
    """Negate the columns in which lower is better and zero those without a direction (columns are tasks)."""
    return values * np.array([METRICS[metric].better for *_, metric in values.columns])

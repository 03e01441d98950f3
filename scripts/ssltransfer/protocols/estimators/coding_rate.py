"""TransRate: the coding rate of features less that of the features within classes."""

import numpy as np

from ssltransfer.protocols.estimators.feature_moments import FeatureMoments

DISTORTION = 1e-4
"""Squared error per image of the code, with features of mean squared norm 1."""


def trans_rate(values: np.ndarray, labels: np.ndarray, moments: FeatureMoments) -> float:
    """TransRate in nats, of features that are scaled to a mean squared norm of 1.

    Without scaling, larger features have larger values. Classes are weighted by their numbers of images, as in the
    paper.

    Parameters
    ----------
    values : ndarray, shape (n, r)
        Rows that `moments` are of.
    labels : ndarray of int, shape (n,)
        Positions of the classes in `moments`.

    Notes
    -----
    L.-K. Huang et al., "Frustratingly easy transferability estimation", ICML 2022.
    """
    spectrum = moments.centred.values
    scale = spectrum.sum() / moments.count  # mean squared norm
    whole = 0.5 * np.log1p(spectrum / (moments.count * DISTORTION * scale)).sum()
    order = np.argsort(labels, kind="stable")
    within = 0.0
    for rows in np.split(order, np.cumsum(moments.class_counts)[:-1]):
        block = np.asarray(values[np.sort(rows)], np.float64) - moments.mean
        gram = block @ block.T if len(block) < block.shape[1] else block.T @ block
        _, log_determinant = np.linalg.slogdet(np.eye(len(gram)) + gram / (len(rows) * DISTORTION * scale))
        within += len(rows) / moments.count * 0.5 * log_determinant
    return float(whole - within)

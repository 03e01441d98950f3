"""Handwritten digits: the 1797 real 8x8 scans that scikit-learn carries."""

import numpy as np

from ssltransfer.datasets.generated import Generated

ENLARGEMENT = 4


def generate(seed: int = 0, train: int = 1000) -> Generated:
    """Split the digits at random into `train` training and 1797 - `train` test images.

    The scans (17 grey levels) become RGB images of 32x32 pixels by repeating each pixel 4x4 times.

    Raises
    ------
    ValueError
        If `train` leaves no test image or is not positive.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    if not 0 < train < len(digits.target):
        raise ValueError(f"train is {train}; write a number from 1 to {len(digits.target) - 1}")
    order = np.random.default_rng(seed).permutation(len(digits.target))
    grey = np.round(digits.images[order] * (255 / 16)).astype(np.uint8)
    large = grey.repeat(ENLARGEMENT, axis=1).repeat(ENLARGEMENT, axis=2)
    return Generated(
        images=np.repeat(large[..., None], 3, axis=-1),
        split=["train"] * train + ["test"] * (len(order) - train),
        label=digits.target[order].tolist(),
        classes=[str(digit) for digit in range(10)],
    )

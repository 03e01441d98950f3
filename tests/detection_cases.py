"""Random detections and objects with everything that an evaluator can trip over; needs numpy alone."""

import numpy as np

SIZE = 60


def boxes(rng, n):
    """Boxes of whole pixels, 1-based and inclusive; some are a single pixel."""
    low = rng.integers(1, SIZE, (n, 2))
    high = np.minimum(low + rng.integers(0, 25, (n, 2)) * rng.integers(0, 2, (n, 1)), SIZE)
    return np.concatenate([low, high], axis=1).astype(float)


def random_case(seed, classes=3):
    """Return (detections, objects) as dicts of columns: few or many, with ties, duplicates, empty images.

    Detections have 0-based half-open boxes and scores in float32, as detectors give them; objects are in VOC's
    convention. Every class has an object to find, and images may have objects, detections, both or neither.
    """
    rng = np.random.default_rng(seed)
    images = int(rng.integers(1, 9))
    n = int(rng.integers(classes, 30))
    objects = {
        "image": rng.integers(0, images, n),
        "label": np.concatenate([np.arange(classes), rng.integers(0, classes, n - classes)]),
        "box": boxes(rng, n),
        "difficult": np.concatenate([np.zeros(classes, int), rng.integers(0, 2, n - classes)]),
    }
    twins = rng.integers(0, n, int(rng.integers(0, 3)))  # the same object annotated twice
    objects = {name: np.concatenate([column, column[twins]]) for name, column in objects.items()}
    n = len(objects["image"])

    near = rng.integers(0, n, int(rng.integers(0, 40)))
    stray = int(rng.integers(0, 15))
    corner = objects["box"][near] - (1, 1, 0, 0) + rng.normal(0, rng.choice([0.2, 1.0, 3.0]), (len(near), 4))
    corner[:, 2:] = np.maximum(corner[:, 2:], corner[:, :2] + 0.1)  # detectors give no empty boxes
    detections = {
        "image": np.concatenate([objects["image"][near], rng.integers(0, images, stray)]),
        "label": np.concatenate([objects["label"][near], rng.integers(0, classes, stray)]),
        "box": np.concatenate([corner, boxes(rng, stray) - (1, 1, 0, 0)]).astype(np.float32),
    }
    again = rng.integers(0, len(near) + stray, int(rng.integers(0, 8))) if len(near) + stray else np.empty(0, int)
    detections = {name: np.concatenate([column, column[again]]) for name, column in detections.items()}
    # A coarse grid of scores makes ties, also after rounding to three decimals.
    scores = rng.random(len(detections["image"]))
    coarse = rng.integers(1, 20, len(scores)) / 20
    detections["score"] = np.where(rng.random(len(scores)) < 0.5, coarse, scores).astype(np.float32)
    order = np.argsort(detections["image"], kind="stable")  # detectors work image by image
    return {name: column[order] for name, column in detections.items()}, objects, images

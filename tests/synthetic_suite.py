"""A small suite with synthetic scores, for the tests of tables, figures and report."""

import numpy as np

from ssltransfer.analysis.suite_results import SuiteResults, suite_results
from ssltransfer.results.scores import tidy

MODELS = [
    {"model": "random", "label": "Random", "family": "none", "source_accuracy": "measured:shapes"},
    {"model": "supervised", "label": "Supervised", "family": "supervised", "source_accuracy": "measured:shapes"},
    {"model": "simclr", "label": "SimCLR", "family": "contrastive", "source_accuracy": "measured:shapes"},
    {"model": "simclr-textures", "label": "<b>&", "family": "contrastive", "source_accuracy": "measured:shapes"},
    {"model": "swav", "label": "SwAV_2", "family": "clustering", "source_accuracy": "measured:shapes"},
]
DATASETS = {"digits": "Digits", "textures": "Textures", "shapes": "Shapes"}
PRETRAINED_ON = {"supervised": "shapes", "simclr": "shapes", "simclr-textures": "textures", "swav": "shapes"}


def scores(models=MODELS):
    rng = np.random.default_rng(0)
    ability = rng.normal(0, 0.7, len(models))
    rows = []
    for dataset, base in (("digits", 2.0), ("textures", 0.5), ("shapes", 0.0)):
        for row, a in zip(models, ability, strict=True):
            head = {"model": row["model"], "dataset": dataset, "source": "measured"}
            value = 100 / (1 + np.exp(-a - base - rng.normal(0, 0.2)))
            linear = {"protocol": "linear-r32", "kind": "linear", "setting": "", "metric": "top1", "value": value}
            rows.append(head | linear)
            for shot in (5, 20):
                value = 100 / (1 + np.exp(-a - base / 2 - rng.normal(0, 0.2)))
                few = {"protocol": "fewshot-r32", "kind": "fewshot", "setting": f"{shot}-shot", "metric": "accuracy"}
                rows.append(head | few | {"value": value, "low": value - 0.5, "high": value + 0.5})
    return tidy(rows)


def suite(models=MODELS, conventions="v2") -> SuiteResults:
    return suite_results(scores(models), models, DATASETS, PRETRAINED_ON, conventions)

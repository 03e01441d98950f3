"""Scores of a torch module or of features in memory, by the code of the workflow's jobs.

For notebooks and scripts; nothing is written below the working directory. `ssltransfer` itself has the
names of this module.
"""

import html
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from ssltransfer.array_backend import NUMPY
from ssltransfer.config.norms import BOTH_NORMS, evaluated_norms, read_norms
from ssltransfer.datasets import DOWNLOAD_FOLDER
from ssltransfer.datasets.images import DecodedImages
from ssltransfer.errors import InputError
from ssltransfer.evaluation.given_data import array_index, checked_metric, feature_array, open_dataset, read_given_data
from ssltransfer.evaluation.measuring import (
    KINDS,
    MODULE_KINDS,
    Protocols,
    compute_features,
    computing_as_jobs,
    finetune,
    measure,
    possible_blocks,
    settings_blocks,
    with_side,
)
from ssltransfer.files import package_data
from ssltransfer.models.feature_file import Features
from ssltransfer.results.score_file import Measurement, with_intervals

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

PROTOCOLS = ("linear", "fewshot")
"""Settings blocks that are evaluated if none are named."""
COLUMNS = ["protocol", "dataset", "setting", "metric", "value", "low", "high", "method"]


@dataclass(frozen=True, repr=False)
class Evaluation:
    """Scores of one model on one dataset.

    Attributes
    ----------
    table : DataFrame
        One row per score: ``protocol``, ``dataset``, ``setting``, ``metric``, ``value`` in percent, the ends ``low``
        and ``high`` of its confidence interval (NaN where there is none), and how that was computed (``method``).
    warnings : tuple of str
        Caveats of the scores, and the reasons for which a protocol was not measured, each with its protocol.
    measurements : dict of str to Measurement
        The content of the score files, by protocol.
    """

    table: "pd.DataFrame"
    warnings: tuple[str, ...]
    measurements: dict[str, Measurement]

    def __repr__(self) -> str:
        """Show the table and the warnings as text."""
        lines = [self.table.round(2).to_string(index=False, na_rep="")]
        return "\n".join(lines + [f"- {warning}" for warning in self.warnings])

    def _repr_html_(self) -> str:
        """Show the table and the warnings in a notebook."""
        items = "".join(f"<li>{html.escape(warning)}</li>" for warning in self.warnings)
        return self.table.round(2).to_html(index=False, na_rep="") + (f"<ul>{items}</ul>" if items else "")


def evaluate(
    module: "nn.Module",
    data: str | Path | Mapping[str, Any],
    protocols: Protocols = PROTOCOLS,
    *,
    norm: str = "imagenet",
    size: int | None = None,
    metric: str = "",
    dataset: str = "",
    data_root: str | Path = DOWNLOAD_FOLDER,
    batch_size: int = 64,
    workers: int | None = None,
) -> Evaluation:
    """Measure how well the features of a module transfer to a dataset, frozen or (``finetune``) trained in a copy.

    The module computes where it is: move it to a GPU before (``module.cuda()``). The scores are those of
    the workflow's jobs.

    Parameters
    ----------
    module : torch.nn.Module
        In evaluation mode; maps normalised images (n, 3, size, size) to features (n, d), both float32.
    data : str, Path or mapping
        Folder with ``train/CLASS/*`` and ``test/CLASS/*`` (and maybe ``val/``), a csv file with the columns
        ``image,label,split``, or a `source` of ``config/datasets.tsv`` such as ``generated:digits``,
        ``original:cifar10`` or ``hf:OWNER/NAME@REVISION`` (read from the cache of the hub, and downloaded to it); or a
        row of that table: a mapping with ``source`` and maybe ``dataset``, ``task``, ``metric`` and the counts, which
        are then checked.
    protocols : sequence of str or mapping
        Names of settings blocks of ``config/protocols.yaml`` of the kinds ``linear``, ``knn``, ``fewshot``,
        ``estimators`` and ``finetune`` (hours for the paper's grid), or own blocks by name.
    norm : str
        Input normalisation, a row of ``config/norms.tsv``: ``imagenet``, ``none`` (plain pixel / 255), ``half``,
        ``clip``, ...
    size : int, optional
        Side of the images in pixels; by default that of the settings block (224).
    metric : {'top1', 'mean-per-class', 'map11'}, optional
        Metric of linear and finetune protocols; by default that of the row, else top1. With map11, a cell ``label`` of
        a csv file may hold several classes.
    dataset : str
        Id of the dataset, which few-shot episodes are drawn by; by default that of the row, or the name of the folder,
        file or repository.
    data_root : path
        Folder of the original datasets, and of those of the hub that the workflow has unpacked.
    batch_size : int
        Number of images that the module sees at a time; does not change the result beyond rounding.
    workers : int, optional
        Number of threads that decode images; by default one per processor.

    Returns
    -------
    Evaluation

    Raises
    ------
    InputError
        If the module is not in evaluation mode, its features are not finite or not one vector per image, or the same in
        two passes; if the data cannot be read; or if no protocol can be measured.
    """
    from ssltransfer.models.module_check import check_state, head_of_classes, module_device

    blocks = settings_blocks(protocols, MODULE_KINDS)
    transforms = {protocol: with_side(block["transform"], size) for protocol, block in blocks.items()}
    norms = read_norms(package_data("config/norms.tsv"))
    if norm not in norms:
        raise InputError(f"norm: found {norm!r}, expected one of {', '.join(norms)}")
    given = read_given_data(data, metric, dataset)
    name, metric = given.name, given.metric
    workers = workers or os.cpu_count() or 1
    check_state(module)
    with TemporaryDirectory() as folder:
        found = open_dataset(Path(folder), given, data_root, workers)
        possible, warnings = possible_blocks(blocks, found.index, name)
        device = module_device(module)
        computed: dict[tuple[str, str, str], Features] = {}
        measurements = {}
        for protocol, block in possible.items():
            transform, precision, features = transforms[protocol], block.get("precision", ""), {}
            settings = {**block, "transform": transform}
            if block["kind"] == "finetune":
                from ssltransfer.training_state import Run

                run = Run(Path(folder) / protocol, "", protocol, workers - 1)
                measurements[protocol] = finetune(module, found, name, metric, settings, norms[norm], run, device)
                continue
            for used in evaluated_norms(block.get("normalisation", ""), norm):
                if (transform, used, precision) not in computed:
                    images = DecodedImages(found.root, found.index.image, transform, given.source.name, workers)
                    values = compute_features(module, images, norms[used], device, precision, batch_size)
                    images.warn_of_dark_images()
                    computed[transform, used, precision] = Features(values, {"source": type(module).__name__})
                features[used] = computed[transform, used, precision]
            with computing_as_jobs(device) as arrays:
                measurements[protocol] = measure(features, found.index, name, metric, settings, arrays)
    width = max((features.values.shape[1] for features in computed.values()), default=0)
    if head := head_of_classes(module, width):
        warnings.append(
            f"the features are the {width} outputs of {head!r}; if that is a classifier, replace it by "
            "torch.nn.Identity() (timm: num_classes=0)"
        )
    return _evaluation(measurements, name, warnings)


def evaluate_features(
    features: Any,
    labels: Any,
    split: Any = None,
    protocols: Protocols = PROTOCOLS,
    *,
    metric: str = "",
    dataset: str = "features",
) -> Evaluation:
    """Measure how well given features transfer to a dataset.

    Parameters
    ----------
    features : array, shape (n, d)
        One row per image; rounded to float32, as the workflow keeps features.
    labels : array, shape (n,) or (n, k)
        Class of each image, text or numbers; or, of a multi-label dataset, whether it shows each of k classes.
    split : array of str, shape (n,), optional
        ``train``, ``val`` or ``test``; without it, all images are one pool for few-shot episodes.
    protocols, metric, dataset
        See `evaluate`; a multi-label dataset has the metric map11.

    Returns
    -------
    Evaluation

    Raises
    ------
    InputError
        If the arrays do not fit each other, a feature is not finite, or no protocol can be measured.
    """
    blocks = settings_blocks(protocols, KINDS)
    if both := [name for name, block in blocks.items() if block.get("normalisation") in BOTH_NORMS]:
        raise InputError(
            f"protocols: {both[0]!r} compares two input normalisations, but given features have one; name another"
        )
    values = feature_array(features)
    index = array_index(np.asarray(labels), split, len(values), dataset)
    metric = checked_metric(metric or ("map11" if index.multi_label else ""))
    if (metric == "map11") != index.multi_label:
        raise InputError(f"metric: {metric!r} does not fit labels of shape {np.shape(labels)}")
    possible, warnings = possible_blocks(blocks, index, dataset)
    given = {"given": Features(values, {"source": "array"})}
    measurements = {name: measure(given, index, dataset, metric, block, NUMPY) for name, block in possible.items()}
    return _evaluation(measurements, dataset, warnings)


def _evaluation(measurements: dict[str, Measurement], dataset: str, warnings: Iterable[str]) -> Evaluation:
    import pandas as pd

    rows = [
        {"protocol": protocol, "dataset": dataset, **value}
        for protocol, measurement in measurements.items()
        for value in with_intervals(measurement)[0]
    ]
    table = pd.DataFrame(rows, columns=COLUMNS).astype({"value": float, "low": float, "high": float})
    found = [f"{protocol}: {text}" for protocol, measurement in measurements.items() for text in measurement.warnings]
    return Evaluation(table, (*warnings, *found), measurements)

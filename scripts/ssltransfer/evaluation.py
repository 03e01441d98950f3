"""Scores of a torch module or of features in memory, by the code of the workflow's jobs.

For notebooks and scripts; nothing is written below the working directory. `ssltransfer.evaluate` and
`ssltransfer.evaluate_features` are the functions of this module.
"""

import copy
import html
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from ssltransfer.array_backend import NUMPY, Arrays
from ssltransfer.config.blocks import read_blocks
from ssltransfer.config.dataset_rows import COUNTS, METRICS_OF_TASK
from ssltransfer.config.norms import BOTH_NORMS, evaluated_norms, read_norms
from ssltransfer.datasets import DOWNLOAD_FOLDER, READ_KINDS, Source, hub_folder, location, parse_dataset_source
from ssltransfer.datasets.dataset import Dataset
from ssltransfer.datasets.images import DecodedImages, parse_transform
from ssltransfer.datasets.index import Index, check_classes, check_index, count_parts, write_index
from ssltransfer.datasets.indexing import IndexParams, generate_dataset, index_source
from ssltransfer.datasets.splits import make_split
from ssltransfer.errors import InputError
from ssltransfer.files import package_data
from ssltransfer.hub import parse_hub_source
from ssltransfer.hub_download import fetch_hub_dataset
from ssltransfer.models.feature_file import Features
from ssltransfer.protocols.estimators.evaluation import check_training_images, measure_estimators
from ssltransfer.protocols.estimators.settings import EstimatorSettings
from ssltransfer.protocols.fewshot import FewShotSettings, measure_fewshot, possible_shots
from ssltransfer.protocols.knn.evaluation import measure_knn
from ssltransfer.protocols.knn.neighbour_file import find_neighbours, searches
from ssltransfer.protocols.knn.settings import SIMILARITY, KnnSettings, stored_neighbours
from ssltransfer.protocols.linear.evaluation import measure_linear
from ssltransfer.protocols.linear.settings import LinearSettings
from ssltransfer.results.score_file import Measurement, with_intervals
from ssltransfer.row_file import save_array
from ssltransfer.settings import read_settings

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from torch import nn

    from ssltransfer.training_state import Run

KINDS = ("linear", "knn", "fewshot", "estimators")
"""Kinds of protocols that features in memory can be evaluated by."""
MODULE_KINDS = (*KINDS, "finetune")
"""Kinds of protocols that a module can be evaluated by."""
PROTOCOLS = ("linear", "fewshot")
"""Settings blocks that are evaluated if none are named."""
COLUMNS = ["protocol", "dataset", "setting", "metric", "value", "low", "high", "method"]

Protocols = Sequence[str] | Mapping[str, Mapping]
"""Names of settings blocks of `config/protocols.yaml`, or own blocks by name."""


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
    from ssltransfer.models.module_check import check_state, module_device

    blocks = _blocks(protocols, MODULE_KINDS)
    transforms = {protocol: _transform(block["transform"], size) for protocol, block in blocks.items()}
    norms = read_norms(package_data("config/norms.tsv"))
    if norm not in norms:
        raise InputError(f"norm: found {norm!r}, expected one of {', '.join(norms)}")
    row = data if isinstance(data, Mapping) else {"source": data}
    if not row.get("source"):
        raise InputError(f"data: found a row with {', '.join(row) or 'no keys'}, expected source among them")
    source = _source(row["source"])
    name = dataset or row.get("dataset") or _name(source)
    workers = workers or os.cpu_count() or 1
    metric = _metric(metric or _row_metric(row))
    counts = _counts(row)
    check_state(module)
    with TemporaryDirectory() as folder:
        found = _open_dataset(Path(folder), source, name, metric, counts, data_root, workers)
        possible, warnings = _possible(blocks, found.index, name)
        device = module_device(module)
        computed: dict[tuple[str, str, str], Features] = {}
        measurements = {}
        for protocol, block in possible.items():
            transform, precision, features = transforms[protocol], block.get("precision", ""), {}
            settings = {**block, "transform": transform}
            if block["kind"] == "finetune":
                from ssltransfer.training_state import Run

                run = Run(Path(folder) / protocol, "", protocol, workers - 1)
                measurements[protocol] = _finetune(module, found, name, metric, settings, norms[norm], run, device)
                continue
            for used in evaluated_norms(block.get("normalisation", ""), norm):
                if (transform, used, precision) not in computed:
                    images = DecodedImages(found.root, found.index.image, transform, source.name, workers)
                    values = _extract(module, images, norms[used], device, precision, batch_size)
                    images.warn_of_dark_images()
                    computed[transform, used, precision] = Features(values, {"source": type(module).__name__})
                features[used] = computed[transform, used, precision]
            with _computing(device) as arrays:
                measurements[protocol] = _measure(features, found.index, name, metric, settings, arrays)
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
    blocks = _blocks(protocols, KINDS)
    if both := [name for name, block in blocks.items() if block.get("normalisation") in BOTH_NORMS]:
        raise InputError(
            f"protocols: {both[0]!r} compares two input normalisations, but given features have one; name another"
        )
    values = _feature_array(features)
    index = _array_index(np.asarray(labels), split, len(values), dataset)
    metric = _metric(metric or ("map11" if index.multi_label else ""))
    if (metric == "map11") != index.multi_label:
        raise InputError(f"metric: {metric!r} does not fit labels of shape {np.shape(labels)}")
    possible, warnings = _possible(blocks, index, dataset)
    given = {"given": Features(values, {"source": "array"})}
    measurements = {name: _measure(given, index, dataset, metric, block, NUMPY) for name, block in possible.items()}
    return _evaluation(measurements, dataset, warnings)


def _blocks(protocols: Protocols, kinds: Sequence[str]) -> dict[str, dict]:
    """Return the complete settings blocks of the protocols; InputError if one is unknown or of another kind."""
    if isinstance(protocols, str):
        raise InputError(f"protocols: found the text {protocols!r}, expected a list of names")
    own = protocols if isinstance(protocols, Mapping) else {}
    known = read_blocks(own)
    usable = [name for name, block in known.items() if block["kind"] in kinds]
    if not protocols:
        raise InputError(f"protocols: found none; name some of {', '.join(usable)}")
    for name in protocols:
        if name not in usable:
            raise InputError(f"protocols: found {name!r}, expected some of {', '.join(usable)}")
    return {name: known[name] for name in protocols}


def _metric(metric: str) -> str:
    known = [name for names in METRICS_OF_TASK.values() for name in names if name]
    if metric and metric not in known:
        raise InputError(f"metric: found {metric!r}, expected one of {', '.join(known)}")
    return metric or known[0]


def _source(data: str | Path) -> Source:
    """Return the source that `data` names; a path stands for the folder or csv file there."""
    text = str(data)
    path = Path(text).expanduser()
    if path.is_dir():
        return Source("folder", str(path.resolve()))
    if path.suffix.lower() == ".csv" and path.is_file():
        return Source("csv", str(path.resolve()))
    if ":" not in text:
        raise InputError(f"{path}: no folder of images and no csv file is there; write PART/CLASS/IMAGE below a folder")
    source = parse_dataset_source(text)
    if source.kind not in (*READ_KINDS, "generated"):
        raise InputError(
            f"source {text!r}: datasets made from others are the workflow's; write a folder, csv:, original:"
        )
    return source


def _name(source: Source) -> str:
    """Return the name of the folder, file or repository of a source."""
    name = parse_hub_source(source.name)[0].repository if source.kind == "hf" else source.name
    return Path(name).stem if source.kind == "csv" else Path(name).name


def _row_metric(row: Mapping[str, Any]) -> str:
    """Return the metric of a row, or the first one that fits its task; empty if it names neither."""
    task = row.get("task") or ""
    metrics = METRICS_OF_TASK.get(task, ("",))
    if task and not metrics[0]:
        known = ", ".join(name for name, fitting in METRICS_OF_TASK.items() if fitting[0])
        raise InputError(f"data: found task {task!r}, expected one of {known}")
    return row.get("metric") or metrics[0]


def _counts(row: Mapping[str, Any]) -> dict[str, int]:
    """Return the counts that a row promises."""
    counts = {name: row[name] for name in COUNTS if row.get(name) not in (None, "")}
    if wrong := [name for name, count in counts.items() if not str(count).isdecimal()]:
        raise InputError(f"data: found {wrong[0]} {counts[wrong[0]]!r}, expected a number")
    return {name: int(count) for name, count in counts.items()}


def _transform(transform: str, size: int | None) -> str:
    """Return the name of a transform with another side."""
    if size is None:
        return transform
    if not transform.startswith("resize"):
        raise InputError(f"size: {transform} has a fixed size; leave size out")
    return f"resize{size}"


def _open_dataset(
    folder: Path,
    source: Source,
    name: str,
    metric: str,
    counts: dict[str, int],
    data_root: str | Path,
    workers: int,
) -> Dataset:
    """Index a dataset, with its index (and images that are generated or unpacked) in a temporary folder."""
    task = next(task for task, metrics in METRICS_OF_TASK.items() if metric in metrics)
    params = IndexParams(dataset=name, task=task, source=source, counts=counts, allow_subset=False, on_error="fail")
    index_file = folder / "index.parquet"
    if source.kind == "generated":
        generated = generate_dataset(params)
        save_array(folder / "originals.npy", generated.images)
        index = generated.index
    else:
        if source.kind == "hf" and not location(source, data_root).exists():
            from ssltransfer.datasets.hub_shards import PATTERNS, unpack_shards

            repository, options = parse_hub_source(source.name)
            unpack_shards(fetch_hub_dataset(repository, PATTERNS), hub_folder(folder, source), options)
            data_root = folder
        index = index_source(params, data_root, index_file, workers)
    if index.multi_label != (task == "multi-label"):
        raise InputError(f"metric: {metric!r} does not fit the labels of {name}; write top1 or mean-per-class")
    write_index(index_file, _with_counts(index))
    return Dataset(source, data_root, index_file)


def _with_counts(index: Index) -> Index:
    """Return an index that promises what it holds."""
    return replace(index, promised=count_parts(index))


def _possible(blocks: dict[str, dict], index: Index, name: str) -> tuple[dict[str, dict], list[str]]:
    """Return the blocks that the dataset is large enough for, and the reasons against the others.

    Raises
    ------
    InputError
        If no block is left: the first reason.
    """
    possible, reasons = {}, {}
    for protocol, block in blocks.items():
        try:
            _check_block(block, index, name)
            possible[protocol] = block
        except InputError as error:
            reasons[protocol] = str(error)
    if not possible:
        protocol, reason = next(iter(reasons.items()))
        raise InputError(f"{protocol}: {reason}")
    return possible, [f"{protocol} was not measured: {reason}" for protocol, reason in reasons.items()]


def _check_block(block: dict, index: Index, name: str) -> None:
    if block["kind"] in ("linear", "finetune"):
        make_split(index.split_array(), block["validation_fraction"], block["seed"], name)
    elif block["kind"] == "knn":
        if block["selection"] == "validation" and "test" not in index.split:
            raise InputError(f"{name} has no test image; selection: validation needs some")
        searches(index, name)
    elif block["kind"] == "estimators":
        check_training_images(index, name)
    elif index.multi_label:
        raise InputError(f"{name} has several labels per image; few-shot episodes need one")
    else:
        settings = read_settings(FewShotSettings, block)
        shots, notes = possible_shots(index.label_array(), settings.shots, settings.queries, settings.ways)
        if not shots:
            raise InputError(f"{name}: {notes[0]}")


def _extract(
    module: "nn.Module", images: DecodedImages, norm: str, device: "torch.device", precision: str, batch_size: int
) -> np.ndarray:
    """Compute the features of all images: float32 (n, d)."""
    import torch
    from tqdm import tqdm

    from ssltransfer.models.backbone import Backbone
    from ssltransfer.models.features import feature_batches, finite_features
    from ssltransfer.models.fusion import inference_form
    from ssltransfer.models.input_norm import normalise
    from ssltransfer.models.module_check import CHECKED, check_features
    from ssltransfer.precision import computing_in

    name = type(module).__name__
    with torch.inference_mode(), _computing(device):
        width = check_features(module, normalise(torch.from_numpy(images[:CHECKED]).to(device), norm))
        values = np.empty((len(images), width), np.float32)
        network = inference_form(module, device, precision) if isinstance(module, Backbone) else module
        bar = partial(tqdm, desc="features, batches", delay=2, leave=False)
        with computing_in(precision, device):
            for start, features in feature_batches(network, images, norm, device, batch_size, bar):
                values[start : start + batch_size] = finite_features(features, start, name)
    return values


@contextmanager
def _computing(device: "torch.device") -> Iterator[Arrays]:
    """Compute on a GPU as jobs do (see `device.choose_device`), and undo it after; yields where linear fits compute."""
    if device.type != "cuda":
        yield NUMPY
        return
    import torch

    from ssltransfer.precision import tf32_allowed

    flags = torch.backends.cudnn.flags
    with tf32_allowed(False), flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield Arrays(torch, device)


def _measure(
    features: dict[str, Features], index: Index, name: str, metric: str, block: dict, arrays: Arrays
) -> Measurement:
    if block["kind"] == "linear":
        # Jobs have one thread; with more, products are rounded otherwise, which can change the answer of a test image.
        with threadpool_limits(1):
            return measure_linear(features, index, name, metric, read_settings(LinearSettings, block), arrays)[0]
    if block["kind"] == "knn":
        return _measure_knn(features, index, name, metric, read_settings(KnnSettings, block), arrays)
    if block["kind"] == "estimators":
        ((norm, given),) = features.items()
        return measure_estimators(given, norm, index, name, metric, read_settings(EstimatorSettings, block), arrays)
    return measure_fewshot(features, index, name, read_settings(FewShotSettings, block))


def _finetune(
    module: "nn.Module",
    dataset: Dataset,
    name: str,
    metric: str,
    block: dict,
    norm: str,
    run: "Run",
    device: "torch.device",
) -> Measurement:
    from ssltransfer.models.backbone import Backbone
    from ssltransfer.models.module_backbone import ModuleBackbone
    from ssltransfer.protocols.finetune.evaluation import finetune_labels, measure_finetune
    from ssltransfer.protocols.finetune.network import Classifier
    from ssltransfer.protocols.finetune.settings import FinetuneSettings
    from ssltransfer.protocols.finetune.training import FinetuneData, Finetuning

    settings, index = read_settings(FinetuneSettings, block), dataset.index
    own = copy.deepcopy(module).cpu()
    backbone = own if isinstance(own, Backbone) else ModuleBackbone(own, size=parse_transform(settings.transform)[0])
    data = FinetuneData(dataset.read_image, index.image, finetune_labels(index, settings), len(index.classes), norm)
    with _computing(device), threadpool_limits(1):
        finetuning = Finetuning(Classifier(backbone, data.classes, settings.seed), data, settings, run, device)
        return measure_finetune(finetuning, index, name, metric, {"source": type(module).__name__})[0]


def _measure_knn(
    features: dict[str, Features], index: Index, name: str, metric: str, settings: KnnSettings, arrays: Arrays
) -> Measurement:
    ((norm, given),) = features.items()
    count, similarity = stored_neighbours(settings.neighbours), SIMILARITY[settings.vote]
    found = find_neighbours(given.values, index, name, count, similarity, arrays)
    return measure_knn(found, {"checkpoint": given.checkpoint, "norm": norm}, index, name, metric, settings)[0]


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


def _feature_array(features: Any) -> np.ndarray:
    """Return features as finite float32 (n, d)."""
    values = np.asarray(features.detach().cpu() if hasattr(features, "detach") else features)
    if values.ndim != 2 or not np.issubdtype(values.dtype, np.floating) or not values.size:
        raise InputError(
            f"features: found {values.dtype} {values.shape}, expected floating-point numbers (images, features)"
        )
    values = np.ascontiguousarray(values, dtype=np.float32)
    if len(wrong := np.flatnonzero(~np.isfinite(values).all(axis=1))):
        raise InputError(f"features: {len(wrong)} rows hold values that are not finite in float32, first {wrong[0]}")
    return values


def _array_index(labels: np.ndarray, split: Any, images: int, name: str) -> Index:
    """Make the index of labels and splits in memory."""
    parts = np.full(images, "train") if split is None else np.asarray(split)
    if len(labels) != images or parts.shape != (images,) or labels.ndim not in (1, 2):
        raise InputError(
            f"{name}: found {images} rows of features, labels {labels.shape} and split {parts.shape}; expected one of "
            "each per image"
        )
    if labels.ndim == 1:
        classes, numbers = np.unique(labels, return_inverse=True)
        label: list = numbers.tolist()
        names = [str(value) for value in classes]
    else:
        if not np.isin(labels, (0, 1)).all():
            raise InputError(f"{name}: labels of several classes per image must be 0 or 1")
        label, names = [np.flatnonzero(row).tolist() for row in labels], [str(k) for k in range(labels.shape[1])]
    index = Index([f"row {row}" for row in range(images)], [str(part) for part in parts], label, names)
    check_index(index, name)
    check_classes(index, name)
    return _with_counts(index)

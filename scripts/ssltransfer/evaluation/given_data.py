"""Data that the caller of an evaluation gives: folders, tables, sources and arrays, as indexed datasets."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ssltransfer.config.dataset_rows import COUNTS, METRICS_OF_TASK
from ssltransfer.datasets import READ_KINDS, Source, hub_folder, location, parse_dataset_source
from ssltransfer.datasets.dataset import Dataset
from ssltransfer.datasets.index import Index, count_parts, write_index
from ssltransfer.datasets.index_checks import check_classes, check_index
from ssltransfer.datasets.indexing import IndexParams, generate_dataset, index_source
from ssltransfer.errors import InputError
from ssltransfer.hub import parse_hub_source
from ssltransfer.hub_download import fetch_hub_dataset
from ssltransfer.row_file import save_array


class GivenData(NamedTuple):
    """What is known of a dataset before it is indexed."""

    source: Source
    name: str
    metric: str
    counts: dict[str, int]


def read_given_data(data: str | Path | Mapping[str, Any], metric: str = "", name: str = "") -> GivenData:
    """Read what the caller of `evaluate.evaluate` says of a dataset; the metric and the name go before the row's."""
    row = data if isinstance(data, Mapping) else {"source": data}
    if not row.get("source"):
        raise InputError(f"data: found a row with {', '.join(row) or 'no keys'}, expected source among them")
    source = _read_source(row["source"])
    name = name or row.get("dataset") or _source_name(source)
    return GivenData(source, name, checked_metric(metric or _row_metric(row)), _row_counts(row))


def _read_source(data: str | Path) -> Source:
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


def _source_name(source: Source) -> str:
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


def checked_metric(metric: str) -> str:
    """Return a metric of classification, by default the first; InputError if there is no such metric."""
    known = [name for names in METRICS_OF_TASK.values() for name in names if name]
    if metric and metric not in known:
        raise InputError(f"metric: found {metric!r}, expected one of {', '.join(known)}")
    return metric or known[0]


def _row_counts(row: Mapping[str, Any]) -> dict[str, int]:
    """Return the counts that a row promises."""
    counts = {name: row[name] for name in COUNTS if row.get(name) not in (None, "")}
    if wrong := [name for name, count in counts.items() if not str(count).isdecimal()]:
        raise InputError(f"data: found {wrong[0]} {counts[wrong[0]]!r}, expected a number")
    return {name: int(count) for name, count in counts.items()}


def open_dataset(folder: Path, given: GivenData, data_root: str | Path, workers: int) -> Dataset:
    """Index a dataset, with its index (and images that are generated or unpacked) in a temporary folder."""
    source, name, metric, counts = given
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


def feature_array(features: Any) -> np.ndarray:
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


def array_index(labels: np.ndarray, split: Any, images: int, name: str) -> Index:
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


def _with_counts(index: Index) -> Index:
    """Return an index that promises what it holds."""
    return replace(index, promised=count_parts(index))

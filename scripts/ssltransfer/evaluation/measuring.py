"""Measurement of settings blocks on the features of a module or of an array, as the workflow's jobs make it."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from ssltransfer.array_backend import NUMPY, Arrays
from ssltransfer.config.blocks import read_blocks
from ssltransfer.datasets.dataset import Dataset
from ssltransfer.datasets.images import DecodedImages, parse_transform
from ssltransfer.datasets.index import Index
from ssltransfer.datasets.splits import make_split
from ssltransfer.errors import InputError, known_names
from ssltransfer.models.feature_file import Features
from ssltransfer.protocols.estimators.evaluation import check_training_images, measure_estimators
from ssltransfer.protocols.estimators.settings import EstimatorSettings
from ssltransfer.protocols.fewshot import FewShotSettings, measure_fewshot, possible_shots
from ssltransfer.protocols.knn.evaluation import measure_knn
from ssltransfer.protocols.knn.neighbour_file import find_neighbours, searches
from ssltransfer.protocols.knn.settings import SIMILARITY, KnnSettings, stored_neighbours
from ssltransfer.protocols.linear.evaluation import measure_linear
from ssltransfer.protocols.linear.settings import LinearSettings
from ssltransfer.results.score_file import Measurement
from ssltransfer.settings import read_settings

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ssltransfer.training_state import Run

KINDS = ("linear", "knn", "fewshot", "estimators")
"""Kinds of protocols that features in memory can be evaluated by."""
MODULE_KINDS = (*KINDS, "finetune")
"""Kinds of protocols that a module can be evaluated by."""

Protocols = Sequence[str] | Mapping[str, Mapping]
"""Names of settings blocks of `config/protocols.yaml`, or own blocks by name."""


def settings_blocks(protocols: Protocols, kinds: Sequence[str]) -> dict[str, dict]:
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
            raise InputError(f"protocols: found {name!r}; {known_names(name, usable, 'possible')}")
    return {name: known[name] for name in protocols}


def with_side(transform: str, size: int | None) -> str:
    """Return the name of a transform with another side."""
    if size is None:
        return transform
    if not transform.startswith("resize"):
        raise InputError(f"size: {transform} has a fixed size; leave size out")
    return f"resize{size}"


def possible_blocks(blocks: dict[str, dict], index: Index, name: str) -> tuple[dict[str, dict], list[str]]:
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
            fewer = "; give a block with fewer ways" if index.classes and len(index.classes) < settings.ways else ""
            raise InputError(f"{name}: {notes[0]}{fewer}")


def compute_features(
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
    with torch.inference_mode(), computing_as_jobs(device):
        width = check_features(module, normalise(torch.from_numpy(images[:CHECKED]).to(device), norm))
        values = np.empty((len(images), width), np.float32)
        network = inference_form(module, device, precision) if isinstance(module, Backbone) else module
        bar = partial(tqdm, desc="features, batches", delay=2, leave=False)
        with computing_in(precision, device):
            for start, features in feature_batches(network, images, norm, device, batch_size, bar):
                values[start : start + batch_size] = finite_features(features, start, name)
    return values


def measure(
    features: dict[str, Features], index: Index, name: str, metric: str, block: dict, arrays: Arrays
) -> Measurement:
    """Measure a settings block on features, one array for each input normalisation that it evaluates."""
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


def _measure_knn(
    features: dict[str, Features], index: Index, name: str, metric: str, settings: KnnSettings, arrays: Arrays
) -> Measurement:
    ((norm, given),) = features.items()
    count, similarity = stored_neighbours(settings.neighbours), SIMILARITY[settings.vote]
    found = find_neighbours(given.values, index, name, count, similarity, arrays)
    about = {"checkpoint": given.checkpoint, "norm": norm, "precision": given.precision}
    return measure_knn(found, about, index, name, metric, settings)[0]


def finetune(
    module: "nn.Module",
    dataset: Dataset,
    name: str,
    metric: str,
    block: dict,
    norm: str,
    run: "Run",
    device: "torch.device",
) -> Measurement:
    """Finetune a copy of a module on a dataset and measure it."""
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
    with computing_as_jobs(device), threadpool_limits(1):
        finetuning = Finetuning(Classifier(backbone, data.classes, settings.seed), data, settings, run, device)
        return measure_finetune(finetuning, index, name, metric, {"source": type(module).__name__})[0]


@contextmanager
def computing_as_jobs(device: "torch.device") -> Iterator[Arrays]:
    """Compute on a GPU as jobs do (see `device.choose_device`), and undo it after; yields where linear fits compute."""
    if device.type != "cuda":
        yield NUMPY
        return
    import torch

    from ssltransfer.precision import tf32_allowed

    flags = torch.backends.cudnn.flags
    with tf32_allowed(False), flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield Arrays(torch, device)

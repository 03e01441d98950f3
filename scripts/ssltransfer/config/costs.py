"""Costs of scores: hours and bytes, from one table of measured unit costs.

An estimate of what is to come, to tell minutes from weeks; Snakemake alone decides which jobs run. It is proportional
to images, pixels, masks or steps, and to the operations of the backbone; for the paper's ResNet-50 it is what
``docs/performance.md`` extrapolates. For the small networks of the demo suite the sum was within a factor of two,
single stages within a factor of six.
"""

import csv
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

from ssltransfer.config.suite import Cell, Suite, side_of
from ssltransfer.files import package_data
from ssltransfer.models.architecture import forward_operations, is_resnet, parse_architecture
from ssltransfer.models.model_row import row_width
from ssltransfer.models.timm_catalog import find_network

GIVEN = "none"
"""`arch` of models whose features are given."""
TABLE = "resources/unit-costs.csv"
MACHINE = "one core of an AMD EPYC (2 cores, no GPU)"
"""Machine that processor seconds were measured on."""
GPU_RATE = 10e12
"""Operations per second of the GPU, an assumption (benchmarks/operations.md): none was timed."""
WIDTH, CLASSES, SAMPLES, PENALTIES = 2048, 100, 2668, 45
"""Features, classes, samples and penalties of the path of linear fits in the table."""
FIXED_CLASSES = 22
"""Classes that take as long as the part of a path that does not depend on their number."""
LARGE_PRODUCT, IN_BLOCKS = 70_000_000, 2.5
"""Decision values of the training images above which a job of 16 GB computes them in blocks, and how many times as long
a path then takes, at the size of ImageNet (benchmarks/linear_imagenet.md)."""
FREE = ("calibration",)
"""Kinds whose scores follow from the predictions of others within the start of a job."""
FOLDS = 5
"""Paths of fits of a subset of a label-efficiency curve."""
GRID = 16
"""Side in pixels of the part of an image that a position of the last map stands for in dense protocols."""
ASPECT = 4 / 3
"""Longer side of photographs, as a multiple of the shorter one."""
HEAD_CHANNELS = {"normals": 512, "detection": 256, "segmentation": 512}
"""Channels of the heads in the table, to which the time of a smaller head is proportional."""
TRAINED_KINDS = tuple(HEAD_CHANNELS)
"""Kinds of scores with a job that trains and one that tests."""


class UnitCost(NamedTuple):
    """One row of the table of unit costs.

    Attributes
    ----------
    unit : str
        What is counted: an image, a mask, a megapixel, ...
    arch : str
        Network that was measured; empty where none takes part.
    side : int
        Side of its input in pixels; 0 where the unit is not an image of one size.
    cpu_seconds : float
        Processor seconds of one core.
    gpu_operations : float
        Operations of the network; 0 where the work is not the GPU's or was not counted.
    size : float
        Bytes that are kept.
    """

    unit: str
    arch: str
    side: int
    cpu_seconds: float
    gpu_operations: float
    size: float


@dataclass
class Cost:
    """Work of one stage.

    Attributes
    ----------
    stage : str
        Row of the table of unit costs.
    jobs : int
        Number of jobs.
    core_hours : float
        On a CPU alone, without the start of the jobs.
    gpu_hours : float
        On a GPU; 0 where the stage stays on the CPU.
    size : float
        Bytes that are kept.
    """

    stage: str
    jobs: int = 0
    core_hours: float = 0.0
    gpu_hours: float = 0.0
    size: float = 0.0


class Work(NamedTuple):
    """Work of one job: its stage, and how many of the stage's units it is, in time and in bytes."""

    stage: str
    amount: float
    kept: float = 0.0


@cache
def read_unit_costs() -> dict[str, UnitCost]:
    """Read the table of unit costs, by stage."""
    with package_data(TABLE).open(encoding="utf-8", newline="") as file:
        return {
            row["stage"]: UnitCost(
                row["unit"],
                row["arch"],
                int(row["side"] or 0),
                float(row["cpu_seconds"]),
                1e15 * float(row["gpu_petaflop"] or 0),
                float(row["bytes"] or 0),
            )
            for row in csv.DictReader(file)
        }


def estimate_costs(suite: Suite, missing: Iterable[Cell]) -> list[Cost]:
    """Estimate the work that missing scores need; features, images and checkpoints that exist cost nothing.

    Parameters
    ----------
    suite : Suite
    missing : iterable of Cell
        Cells without a score.

    Returns
    -------
    list of Cost
        One for each stage with work, in the order of the table of unit costs; the first is the start of all jobs.
    """
    units = read_unit_costs()
    costs = {stage: Cost(stage) for stage in units}
    jobs: dict[tuple, list[Work]] = {}
    for cell in missing:
        for key, work in _jobs(suite, cell, units):
            jobs[key] = work
    for works in jobs.values():
        costs["job"].jobs += 1
        costs["job"].core_hours += units["job"].cpu_seconds / 3600
        for stage, amount, kept in works:
            cost, unit = costs[stage], units[stage]
            cost.jobs += 1
            cost.core_hours += amount * unit.cpu_seconds / 3600
            cost.gpu_hours += amount * unit.gpu_operations / GPU_RATE / 3600
            cost.size += kept * unit.size
    return [cost for cost in costs.values() if cost.jobs]


def job_hours(suite: Suite, cell: Cell, part: str, gpu: bool) -> float:
    """Hours that the work of a job is estimated to take, from the unit costs.

    Parameters
    ----------
    suite : Suite
    cell : Cell
        The score that the job is made for.
    part : str
        ``score`` for a kind with one job; ``training`` or ``test`` for one that trains in a job and tests in another.
    gpu : bool
        Whether the job has a GPU; what only a CPU does takes as long there.
    """
    units = read_unit_costs()
    settings, kind = suite.settings(cell.protocol, cell.model), suite.kind(cell.protocol)
    work = {"score": _score, "training": _training, "test": _test}[part]
    return _hours(work(suite, cell, settings, kind, suite.models[cell.model]["arch"], units), units, gpu)


def feature_hours(suite: Suite, model: str, dataset: str, transform: str, gpu: bool) -> float:
    """Hours that extracting the features of a model on a dataset is estimated to take."""
    units = read_unit_costs()
    relative = _relative(units["features"], suite.models[model]["arch"], side_of(transform))
    return _hours([Work("features", _count(suite, dataset) * relative)], units, gpu)


def neighbour_hours(suite: Suite, model: str, dataset: str, gpu: bool) -> float:
    """Hours that finding the nearest neighbours of the images of a dataset is estimated to take."""
    return _hours([_neighbours(suite, model, dataset)], read_unit_costs(), gpu)


def pretraining_hours(suite: Suite, model: str, gpu: bool) -> float:
    """Hours that pretraining a model is estimated to take."""
    units = read_unit_costs()
    recipe = suite.recipe(model)
    works = [_pretraining(suite, recipe, suite.models[model]["arch"], units)] if recipe and "epochs" in recipe else []
    return _hours(works, units, gpu)


def _hours(works: Iterable[Work], units: dict[str, UnitCost], gpu: bool) -> float:
    return sum(
        amount * (units[stage].gpu_operations / GPU_RATE * gpu or units[stage].cpu_seconds) / 3600
        for stage, amount, _ in works
    )


def _jobs(suite: Suite, cell: Cell, units: dict[str, UnitCost]) -> Iterator[tuple[tuple, list[Work]]]:
    """Yield the jobs that a score needs and that have not run, each with a key that tells it from others."""
    settings, kind = suite.settings(cell.protocol, cell.model), suite.kind(cell.protocol)
    arch = suite.models[cell.model]["arch"]
    recipe = suite.recipe(cell.model)
    if arch != GIVEN and not Path(f"results/checkpoints/{cell.model}.safetensors").exists():
        work = [_pretraining(suite, recipe, arch, units)] if recipe and "epochs" in recipe else []
        yield ("checkpoint", cell.model), work
        if work and recipe:
            yield from _images(suite, recipe["dataset"], recipe["transform"], units)
    if kind in ("linear", "knn", "fewshot", "label-efficiency", "estimators"):
        of = replace(cell, protocol=settings["of"]) if kind == "label-efficiency" else cell
        yield from _features(suite, of, arch, units)
    elif kind == "inversion":
        yield from _images(suite, cell.dataset, settings["transform"], units)
    elif kind == "attention":
        yield from _images(suite, cell.dataset, f"stretch{settings['size'] + 2 * (settings['mask'] - 1)}", units)
    elif kind == "normals" and not Path(f"results/datasets/{cell.dataset}/normals.npy").exists():
        photographs = 0 if _is_generated(suite, cell.dataset) else _count(suite, cell.dataset)
        yield ("normals", cell.dataset), [Work("normals-data", photographs, photographs)]
    yield ("score", cell), list(_score(suite, cell, settings, kind, arch, units))
    if kind == "estimators":
        images = _count(suite, cell.dataset, ("test",)) or _count(suite, cell.dataset)
        pairs = _pairs_to_compare(suite, cell) * images * _relative_width(suite, cell.model) ** 2
        yield ("similarity", cell.protocol, cell.dataset), [Work("similarity", pairs)]


def _pairs_to_compare(suite: Suite, cell: Cell) -> int:
    """Pairs of models on the dataset of a cell, without those of which both have a score."""
    models = suite.models_of(cell.protocol)
    scored = [m for m in models if Path(f"results/scores/{cell.protocol}/{m}/{cell.dataset}.json").exists()]
    return math.comb(len(models), 2) - math.comb(len(scored), 2)


def _score(
    suite: Suite, cell: Cell, settings: dict, kind: str, arch: str, units: dict[str, UnitCost]
) -> Iterator[Work]:
    """Yield the work of a protocol itself."""
    row = suite.datasets[cell.dataset]
    train = _count(suite, cell.dataset, ("train", "val"))
    norms = len(suite.norms(cell.protocol, cell.model))
    width = _relative_width(suite, cell.model)
    if kind == "linear":
        path = train / SAMPLES * width * _relative_path(row["classes"], settings)
        if train * (row["classes"] or CLASSES) > LARGE_PRODUCT:
            path *= IN_BLOCKS
        yield Work("linear", norms * settings["validation_draws"] * path)
    elif kind == "knn":
        yield _neighbours(suite, cell.model, cell.dataset)
    elif kind == "finetune":
        grid, schedule = settings["grid"].values(), settings["schedule"]
        # The refit is one more run. Tests are a small part; the images of a step are decoded once for all runs.
        images = (math.prod(map(len, grid)) + 1) * schedule["steps"] * schedule["batch_size"]
        yield Work("finetune", images * _relative(units["finetune"], arch, side_of(settings["transform"])))
    elif kind == "label-efficiency":
        yield Work("label-efficiency", _curve_paths(settings, suite.settings(settings["of"]), row, train, width))
    elif kind == "estimators":
        yield Work("estimators", width * train)
    elif kind == "fewshot":
        yield Work("fewshot", norms * width * settings["episodes"] * len(settings["shots"]))
    elif kind == "inversion":
        area = (settings["canvas"] / units["inversion"].side) ** 2 * _relative_dense(units, arch, kind)
        yield Work("inversion", _count(suite, cell.dataset) * settings["steps"] * area)
    elif kind == "attention":
        masks = math.ceil((settings["size"] + settings["mask"] - 1) / settings["stride"]) ** 2
        # Only residual networks recompute the windows that a mask changes.
        stage = "attention" if is_resnet(arch) else "attention-plain"
        yield Work(stage, _count(suite, cell.dataset) * masks * _relative(units[stage], arch, settings["size"]))
    elif kind in TRAINED_KINDS:
        yield from _training(suite, cell, settings, kind, arch, units)
        yield from _test(suite, cell, settings, kind, arch, units)
    elif kind not in FREE:
        raise ValueError(f"kind {kind!r} has no costs")


def _neighbours(suite: Suite, model: str, dataset: str) -> Work:
    """Work of the distances between the images of a dataset."""
    train, test = _count(suite, dataset, ("train", "val")), _count(suite, dataset, ("test",))
    validation = _count(suite, dataset, ("val",)) or train / 5
    pairs = train * test + validation * (train - validation) if test else train**2
    return Work("knn", _relative_width(suite, model) * pairs / 1e6, test or train)


def _training(
    suite: Suite, cell: Cell, settings: dict, kind: str, arch: str, units: dict[str, UnitCost]
) -> Iterator[Work]:
    """Yield the work of the job that trains the network of a score; that of a detector detects as well."""
    schedule, sides = settings["schedule"], settings["sides"]
    if kind == "segmentation":
        seen = sides["crop"] ** 2 / 1e6 if sides["crop"] else _megapixels(sides["train"])
        images = schedule["steps"] * schedule["batch_size"]
        # Without gradients in the backbone, training is mostly a pass.
        stage = _segmentation_stage(settings, "test" if settings["frozen"] == "all" else "training")
        yield Work(stage, _relative_head(units, arch, settings, stage) * images * seen)
        if settings["head"] != "linear":
            yield Work("segmentation-network", 0, 1)
        return
    dense = _relative_head(units, arch, settings, kind)
    test = _count(suite, cell.dataset, ("test",))
    if kind == "normals":
        train = _count(suite, cell.dataset, ("train", "val"))
        images = schedule["epochs"] * (schedule["epoch_steps"] * schedule["batch_size"] or train)
        yield Work("normals-training", dense * images * _megapixels(sides["train"]))
        yield Work("normals-network", 0, settings["network"]["channels"] / HEAD_CHANNELS[kind])
    else:
        images = schedule["steps"] * schedule["batch_size"] * settings["length"]
        stage = "detection-frozen" if settings["frozen"] == "first-four" else "detection-finetune"
        # A test image is one pass of the three that training takes.
        yield Work(stage, dense * (images * _megapixels(sides["train"]) + test * _megapixels([sides["test"]]) / 3))
        yield Work("detection-network", 0, settings["network"]["channels"] / HEAD_CHANNELS[kind])


def _test(suite: Suite, cell: Cell, settings: dict, kind: str, arch: str, units: dict[str, UnitCost]) -> Iterator[Work]:
    """Yield the work of the job that tests such a network."""
    test, sides = _count(suite, cell.dataset, ("test",)), settings["sides"]
    if kind == "normals":
        pixels = test * _megapixels([sides["test"]])
        yield Work("normals-test", _relative_head(units, arch, settings, kind) * pixels)
    elif kind == "segmentation":
        stage = _segmentation_stage(settings, "test")
        pixels = test * len(sides["test"]) * _megapixels(sides["test"])
        yield Work(stage, _relative_head(units, arch, settings, stage) * pixels)


def _segmentation_stage(settings: dict, part: str) -> str:
    return "segmentation-linear" if settings["head"] == "linear" else f"segmentation-{part}"


def _curve_paths(settings: dict, linear: dict, row: dict, train: int, width: float) -> float:
    """Paths of linear fits of the size in the table that a label-efficiency curve is: the folds of all draws.

    Fits of fewer images than features have as many columns as images.
    """
    classes = row["classes"] or CLASSES
    sizes = (
        [n * classes for n in settings["images_per_class"] if n * classes < train]
        if row["task"] != "multi-label"
        else []
    )
    sizes += [share / 100 * train for share in settings["percent"]]
    one = FOLDS * _relative_path(classes, linear)
    return settings["draws"] * sum(size / SAMPLES * min(width, size / WIDTH) * one for size in sizes)


def _relative_path(classes: int | None, linear: dict) -> float:
    """Time of a path of linear fits by its classes and penalties, relative to the one that was measured.

    What grows with the classes is proportional to them, beside what `FIXED_CLASSES` would take
    (benchmarks/linear_scaling.md, which has the exponent of the penalties, too).
    """
    penalties = linear["lambdas"]["count"]
    return (FIXED_CLASSES + (classes or CLASSES)) / (FIXED_CLASSES + CLASSES) * (penalties / PENALTIES) ** 0.32


def _features(suite: Suite, cell: Cell, arch: str, units: dict[str, UnitCost]) -> Iterator[tuple[tuple, list[Work]]]:
    dataset, transform = suite.image_dataset(cell.dataset), suite.settings(cell.protocol, cell.model)["transform"]
    count, side = _count(suite, dataset), side_of(transform)
    kept = _relative_width(suite, cell.model)
    missing = [path for path in suite.feature_files(cell) if not Path(path).exists()]
    if arch == GIVEN:
        yield from ((("features", path), [Work("features", 0, count * kept)]) for path in missing)
        return
    for path in missing:
        work = [Work("features", count * _relative(units["features"], arch, side), count * kept)]
        if not suite.config["keep_images"]:
            work.append(Work("images", count))
        yield ("features", path), work
    if missing and suite.config["keep_images"]:
        yield from _images(suite, dataset, transform, units)


def _images(
    suite: Suite, dataset: str, transform: str, units: dict[str, UnitCost]
) -> Iterator[tuple[tuple, list[Work]]]:
    dataset = suite.image_dataset(dataset)
    if not Path(f"results/datasets/{dataset}/{transform}.npy").exists():
        count = _count(suite, dataset)
        area = (side_of(transform) / units["images"].side) ** 2
        # Generated images are small, and are there before: making them takes seconds.
        decoded = 0 if _is_generated(suite, dataset) else count
        yield ("images", dataset, transform), [Work("images", decoded, count * area)]


def _pretraining(suite: Suite, recipe: dict, arch: str, units: dict[str, UnitCost]) -> Work:
    views = recipe["epochs"] * _count(suite, recipe["dataset"], ("train",)) * (1 + (recipe["method"] != "supervised"))
    return Work("pretraining", views * _relative(units["pretraining"], arch, side_of(recipe["transform"])))


def _relative_width(suite: Suite, model: str) -> float:
    """Elements of a model's feature, relative to those that were measured; 1 where only jobs know."""
    return (row_width(suite.models[model]) or WIDTH) / WIDTH


def _relative(unit: UnitCost, arch: str, side: int) -> float:
    """Operations of a network on an image, relative to those of the one that was measured; 1 for unknown networks.

    Of a plain transformer, every weight is used once for each token, with one multiplication and one addition; of a
    hierarchical network about once for `GRID` x `GRID` pixels (a ResNet-50 comes out 1.2 times too large).
    """
    kind = parse_architecture(arch).kind
    if kind == "resnet":
        return forward_operations(arch, side) / forward_operations(unit.arch, unit.side)
    if kind in ("timm", "torchvision"):
        network = find_network(arch)
        operations = 2.0 * network.parameters * (side / (network.patch or GRID)) ** 2
        return operations / forward_operations(unit.arch, unit.side)
    return 1.0


def _relative_dense(units: dict[str, UnitCost], arch: str, kind: str) -> float:
    """Operations of a network on a photograph, relative to those of a ResNet-50; 1 for the ResNets of this project.

    The images of other networks are resized so that the last map has a position for `GRID` x `GRID` pixels; those of a
    hierarchical network are not for a detector, which takes all its maps.
    """
    if parse_architecture(arch).kind not in ("timm", "torchvision"):
        return 1.0
    network, unit = find_network(arch), units["features"]
    resized = kind in ("normals", "segmentation-linear") or len(network.strides) == 1
    return _relative(unit, arch, round(unit.side * (network.strides[-1] / GRID if resized else 1)))


def _relative_head(units: dict[str, UnitCost], arch: str, settings: dict, kind: str) -> float:
    """Operations of a network with its head on a photograph, relative to those that were measured."""
    dense = _relative_dense(units, arch, kind)
    if kind == "segmentation-linear":
        return dense
    return dense * settings["network"]["channels"] / HEAD_CHANNELS[kind.partition("-")[0]]


def _megapixels(sides: Iterable[int]) -> float:
    areas = [ASPECT * side**2 / 1e6 for side in sides]
    return sum(areas) / len(areas)


def _is_generated(suite: Suite, dataset: str) -> bool:
    return suite.datasets[dataset]["source"].startswith("generated:")


def _count(suite: Suite, dataset: str, parts: Iterable[str] = ("train", "val", "test")) -> int:
    return sum(suite.datasets[dataset][part] or 0 for part in parts)

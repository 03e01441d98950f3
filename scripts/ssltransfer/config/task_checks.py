"""Checks of a suite's tasks: against the datasets, the models and the settings blocks that they name."""

from pathlib import Path

from ssltransfer import datasets as dataset_sources
from ssltransfer.config.norms import BOTH_NORMS
from ssltransfer.config.suite import Suite, side_of
from ssltransfer.errors import InputError, known_names
from ssltransfer.models.model_row import check_size
from ssltransfer.models.protocol_fit import misfit
from ssltransfer.results.metric_info import SOURCE_KINDS, measured_cell

REQUIREMENTS = {
    "linear": (("single-label", "multi-label"), ("train", "test")),
    "knn": (("single-label", "multi-label"), ("train",)),
    "fewshot": (("single-label",), ()),
    "finetune": (("single-label", "multi-label"), ("train", "test")),
    "calibration": (("single-label",), ("train", "test")),
    "label-efficiency": (("single-label", "multi-label"), ("train", "test")),
    "estimators": (("single-label", "multi-label"), ("train",)),
    "inversion": (("images",), ()),
    "attention": (("images",), ()),
    "normals": (("normals",), ("train", "test")),
    "segmentation": (("segmentation",), ("train", "test")),
    "detection": (("detection",), ("train", "test")),
}
"""Kind of protocol -> tasks of its datasets, and the parts that they must have."""
EXTRA_PROTOCOLS = {"generated:shapes": ("detection", "normals", "segmentation")}
"""Source -> kinds that its datasets serve besides those of their task."""
FROZEN_KINDS = ("linear", "fewshot", "calibration", "knn", "label-efficiency", "estimators")
"""Kinds of protocols that need the features of a model alone."""
REPEATED_IMAGES = {"original:caltech101/official": "original:caltech101"}
"""Source whose index has one image in several rows -> the source of the same images without repeats."""


def check_tasks(suite: Suite) -> None:
    """Require settings blocks and datasets that fit each other in every task; InputError otherwise."""
    for protocol, names in suite.config["tasks"].items():
        if protocol not in suite.config["protocols"]:
            known = known_names(protocol, suite.config["protocols"])
            raise InputError(f"config: tasks.{protocol} has no settings block in protocols; {known}")
        for name in names:
            if name not in suite.datasets:
                known = known_names(name, suite.datasets)
                raise InputError(f"config: tasks.{protocol} names dataset {name!r}; {known}")
            row, kind = suite.datasets[name], suite.kind(protocol)
            tasks, parts = REQUIREMENTS[kind]
            if row["task"] not in tasks and kind not in EXTRA_PROTOCOLS.get(row["source"], ()):
                others = [f"source {source}" for source, kinds in EXTRA_PROTOCOLS.items() if kind in kinds]
                raise InputError(
                    f"config: tasks.{protocol}: {name!r} is {row['task']}; {kind} needs a dataset of task "
                    f"{' or '.join([*tasks, *others])}"
                )
            for part in parts:
                if row[part] == 0 or _lacks_part(row, part, suite.config["data_root"]):
                    raise InputError(f"config: tasks.{protocol}: {name!r} has no {part} part; {kind} needs one")
            if kind in PROTOCOL_CHECKS:
                PROTOCOL_CHECKS[kind](suite, protocol, row)


def _lacks_part(row: dict, part: str, data_root: str) -> bool:
    """Whether a folder that the row does not count has no such part; the index tells of folders that are not there."""
    source = dataset_sources.parse_dataset_source(row["source"])
    folder = dataset_sources.location(source, data_root)
    if row[part] is not None or source.kind != "folder" or not folder.is_dir():
        return False
    return part not in dataset_sources.find_parts(folder)


def check_models_of(suite: Suite) -> None:
    """Require tasks and models of the suite under `models_of`; InputError otherwise."""
    for protocol, models in suite.config["models_of"].items():
        if protocol not in suite.config["tasks"]:
            tasks = known_names(protocol, suite.config["tasks"], "these")
            raise InputError(f"config: models_of.{protocol} is not among the tasks; {tasks}")
        for model in models:
            if model not in suite.models:
                known = known_names(model, suite.models, f"models of suite {suite.name!r}")
                raise InputError(f"config: models_of.{protocol} names model {model!r}; {known}")


def check_networks(suite: Suite) -> None:
    """Require networks that fit the protocols they are evaluated with."""
    for protocol in suite.config["tasks"]:
        for model in suite.models_of(protocol):
            arch = suite.models[model]["arch"]
            if reason := misfit(arch, suite.kind(protocol), suite.settings(protocol, model)):
                raise InputError(
                    f"config: tasks.{protocol}: model {model!r} ({arch}): {reason}, or name the other models in "
                    f"models_of.{protocol}"
                )


def check_given_features(row: dict, config: dict) -> None:
    """Require that a model without a network is evaluated by protocols of features alone, of which there is one set."""
    if row["arch"] != "none" or config["suite"] not in row["suites"]:
        return
    suite = Suite(config, {row["model"]: row}, {}, {})
    for protocol in config["tasks"]:
        settings = suite.settings(protocol)
        kind = suite.kind(settings.get("of", protocol))  # classifiers of a calibration may be finetuned networks
        if row["model"] not in suite.models_of(protocol):
            continue
        if kind not in FROZEN_KINDS:
            reason = f"and {kind} needs a network"
        elif settings.get("normalisation") in BOTH_NORMS:
            reason = f"and normalisation {settings['normalisation']} needs those of two inputs"
        elif settings.get("precision", "float32") != "float32":
            reason = f"and precision {settings['precision']} needs a network"
        else:
            continue
        raise InputError(
            f"config: tasks.{protocol}: of model {row['model']!r} only features are given (arch none), {reason}; list "
            f"the other models under models_of.{protocol}"
        )


def check_source_accuracy(row: dict, config: dict, path: Path) -> None:
    """Check the source accuracy of a model of the suite, which may be the score of one of the suite's tasks."""
    kind, _, cell = row["source_accuracy"].partition(":")
    protocol, dataset = measured_cell(row["source_accuracy"])
    if kind not in ("", "measured") and not 1 <= float(kind) < 100:
        raise InputError(
            f"{path}, row {row['model']!r}: source_accuracy is {kind}; write a percentage from 1 to below 100, "
            "measured:DATASET, or nothing"
        )
    if kind != "measured" or config["suite"] not in row["suites"]:
        return
    blocks = config["protocols"]
    kinds = {
        task: blocks.get(task, {}).get("kind") for task, names in config["tasks"].items()
        if dataset in names and protocol in ("", task)
    }  # fmt: skip
    tasks = next((own for each in SOURCE_KINDS if (own := [task for task in kinds if kinds[task] == each])), [])
    where = f"{path}, row {row['model']!r}: source_accuracy is measured:{cell}, but suite {config['suite']!r} has"
    if not tasks:
        missing = f"no linear or knn task {f'of {protocol!r} ' if protocol else ''}on {dataset!r}"
        raise InputError(f"{where} {missing}; add one to its tasks, or write a percentage or nothing into the row")
    own = [task for task in tasks if row["model"] in config["models_of"].get(task, [row["model"]])]
    if own and own[0] != tasks[0]:
        raise InputError(
            f"{where} the tasks {' and '.join(tasks)} on it, and this model lacks the first, which others have; write "
            f"measured:{own[0]}/{dataset} for all of them"
        )


def check_sizes(row: dict, config: dict, path: Path) -> None:
    """Require that a model of the suite takes images of the side of every protocol that resizes them to one."""
    if config["suite"] not in row["suites"]:
        return
    suite = Suite(config, {row["model"]: row}, {}, {})
    for protocol in config["tasks"]:
        transform = suite.settings(protocol, row["model"]).get("transform")
        if transform and row["model"] in config["models_of"].get(protocol, [row["model"]]):
            try:
                check_size(row, side_of(transform))
            except InputError as error:
                where = f"{path}, row {row['model']!r}, protocol {protocol!r}"
                raise InputError(f"{where}: {error} into the cell") from None


def _check_calibration(suite: Suite, protocol: str, row: dict) -> None:
    of = suite.settings(protocol)["of"]
    if suite.config["protocols"].get(of, {}).get("kind") not in ("linear", "knn", "finetune"):
        raise InputError(
            f"config: protocols.{protocol}.of: {of!r} is not a linear, knn or finetune protocol of this suite"
        )


def _check_label_efficiency(suite: Suite, protocol: str, row: dict) -> None:
    of, where = suite.settings(protocol)["of"], f"config: protocols.{protocol}.of"
    block = suite.config["protocols"].get(of, {})
    if block.get("kind") != "linear" or block["normalisation"] != "per-model" or block["solver"] != "converged":
        raise InputError(
            f"{where}: {of!r} is not a linear protocol of this suite with normalisation: per-model and "
            "solver: converged; name one, such as linear"
        )
    if suite.settings(protocol)["lists"] and row["source"] != "original:imagenet":
        raise InputError(
            f"config: protocols.{protocol}.lists: the lists are of images of ImageNet, found dataset "
            f"{row['dataset']!r} ({row['source']}) in its tasks; name one of source "
            "original:imagenet, or leave lists out"
        )


def _check_knn(suite: Suite, protocol: str, row: dict) -> None:
    if suite.settings(protocol)["selection"] == "validation" and row["test"] == 0:
        raise InputError(
            f"config: protocols.{protocol}.selection: {row['dataset']!r} has no test part, so that its images would be "
            "both selected and tested on; write none"
        )


def _check_attention(suite: Suite, protocol: str, row: dict) -> None:
    stride, mask = (suite.settings(protocol)[key] for key in ("stride", "mask"))
    if stride > mask:
        raise InputError(f"config: protocols.{protocol}.stride: found {stride}, expected at most the mask {mask}")


def _check_inversion(suite: Suite, protocol: str, row: dict) -> None:
    settings, where = suite.settings(protocol), f"config: protocols.{protocol}"
    channels, kernels = settings["network"]["channels"], settings["network"]["kernels"]
    canvas, factor = settings["canvas"], 2 ** len(channels)
    size = int(settings["transform"].removeprefix("resize"))
    if len(kernels) != len(channels) or any(kernel % 2 == 0 for kernel in kernels):
        raise InputError(
            f"{where}.network.kernels: found {kernels}, expected an odd size for each of the {len(channels)} channels"
        )
    if canvas % factor or canvas == factor or canvas < size:
        raise InputError(
            f"{where}.canvas: found {canvas}, expected a multiple of {factor} (halved at every scale) above {factor}, "
            f"and no less than the image's {size}"
        )


def _check_normals(suite: Suite, protocol: str, row: dict) -> None:
    original, generated = row["source"].startswith("original:nyuv2"), row["source"] == "generated:shapes"
    if not original and not generated:
        raise InputError(
            f"config: tasks.{protocol}: {row['dataset']!r} has no surface normals; write a dataset with source "
            "original:nyuv2, original:nyuv2/labelled or generated:shapes"
        )
    if not row["source"] == "original:nyuv2" and suite.settings(protocol)["targets"] != "kmeans":
        raise InputError(f"config: protocols.{protocol}.targets: {row['dataset']!r} has no code words; write kmeans")


def _check_finetune(suite: Suite, protocol: str, row: dict) -> None:
    _check_warmup(suite.settings(protocol)["schedule"], f"config: protocols.{protocol}")


def _check_warmup(schedule: dict, where: str) -> None:
    if schedule["warmup"] >= schedule["steps"]:
        raise InputError(
            f"{where}.schedule.warmup (as written, or the default): found {schedule['warmup']}, expected less than the "
            f"{schedule['steps']} steps"
        )


def _check_segmentation(suite: Suite, protocol: str, row: dict) -> None:
    settings, where = suite.settings(protocol), f"config: protocols.{protocol}"
    schedule, sides = settings["schedule"], settings["sides"]
    if settings["head"] == "linear" and settings["frozen"] != "all":
        raise InputError(f"{where}.frozen: found {settings['frozen']}, expected all with head: linear")
    _check_warmup(schedule, where)
    if sides["jitter"][0] > sides["jitter"][1]:
        raise InputError(f"{where}.sides.jitter: found {sides['jitter']}, expected the lower factor first")
    if sides["window_step"] > max(1, sides["window"]):
        raise InputError(
            f"{where}.sides.window_step: found {sides['window_step']}, expected at most the window of {sides['window']}"
        )
    share = settings["augmentation"]["largest_share"]
    if share < 1 and not sides["crop"]:
        raise InputError(
            f"{where}.augmentation.largest_share: found {share}, expected 1 without crops (sides.crop: 0); write a crop"
        )


def _check_detection(suite: Suite, protocol: str, row: dict) -> None:
    schedule, where = suite.settings(protocol)["schedule"], f"config: protocols.{protocol}"
    steps, milestones = schedule["steps"], schedule["milestones"]
    if milestones != sorted(set(milestones)) or max(milestones, default=0) >= steps:
        raise InputError(
            f"{where}.schedule.milestones (as written, or the default): found {milestones}, expected rising steps "
            f"below {steps}"
        )
    _check_warmup(schedule, where)


def _check_fewshot(suite: Suite, protocol: str, row: dict) -> None:
    if row["source"] in REPEATED_IMAGES:
        raise InputError(
            f"config: tasks.{protocol}: {row['dataset']!r} lists images several times ({row['source']} draws with "
            "replacement), so that one image would be both support and query; write a dataset without repeats, such "
            f"as {REPEATED_IMAGES[row['source']]}"
        )
    ways = suite.settings(protocol)["ways"]
    if row["classes"] is not None and row["classes"] < ways:
        raise InputError(
            f"config: tasks.{protocol}: {row['dataset']!r} has {row['classes']} classes, an episode needs {ways}; name "
            f"a settings block with at most as many ways, such as {{kind: fewshot, ways: {row['classes']}}}"
        )


PROTOCOL_CHECKS = {
    "fewshot": _check_fewshot,
    "knn": _check_knn,
    "label-efficiency": _check_label_efficiency,
    "detection": _check_detection,
    "calibration": _check_calibration,
    "inversion": _check_inversion,
    "attention": _check_attention,
    "normals": _check_normals,
    "segmentation": _check_segmentation,
    "finetune": _check_finetune,
}

"""Failures of jobs that are no longer current: what the job makes is there by now, or what it was told has changed."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from ssltransfer.checkpoints.sources import local_files
from ssltransfer.config.suite import Suite
from ssltransfer.datasets import location, parse_dataset_source
from ssltransfer.models.user_code import code_file

CHECKPOINT = "results/checkpoints/{}.safetensors"
INDEX = "results/datasets/{}/index.parquet"
FEATURES = "results/features/{}.npy"
TRAINED = "results/trained/{}.safetensors"
SCORE = "results/scores/{}.json"
PRODUCTS = {
    # A file that was fetched is there to be converted.
    "fetch_checkpoint": CHECKPOINT,
    "convert_checkpoint": CHECKPOINT,
    "pretrain_model": CHECKPOINT,
    "obtain_dataset": "results/originals/{}.json",
    "obtain_hub_dataset": "results/hub/{}.json",
    "index_dataset": INDEX,
    "generate_dataset": INDEX,
    "generate_shapes": INDEX,
    "relabel_dataset": INDEX,
    "sample_images": INDEX,
    "prepare_images": "results/datasets/{}.npy",
    "prepare_normals": "results/datasets/{}/normals.npy",
    "draw_masks": "results/datasets/{}/masks.npy",
    "extract_features": FEATURES,
    "import_features": FEATURES,
    "find_neighbours": "results/neighbours/{}.npz",
    "fetch_subset_list": "results/subset-lists/{}.txt",
    "fetch_lpips_network": "results/lpips/{}.json",
    "invert_features": "results/inverted/{}.npz",
    "train_detector": TRAINED,
    "train_detectron2": TRAINED,
    "train_normals": TRAINED,
    "train_segmentation": TRAINED,
    "evaluate_linear": SCORE,
    "evaluate_knn": SCORE,
    "evaluate_fewshot": SCORE,
    "evaluate_finetune": SCORE,
    "evaluate_calibration": SCORE,
    "evaluate_label_efficiency": SCORE,
    "evaluate_estimators": SCORE,
    "evaluate_inversion": SCORE,
    "evaluate_attention": SCORE,
    "evaluate_normals": SCORE,
    "evaluate_segmentation": SCORE,
    "evaluate_detection": SCORE,
}
"""Rule -> the file that a score needs of it; what its log is called below the folder of the rule fills the braces."""


def superseded(log: Path, folder: str | Path = "logs") -> bool:
    """Whether the job of a log that tells of a failure has left what a score needs of it since then.

    A job that is run again writes its log anew; such a file was restored, or another rule makes it by now.
    """
    rule, *names = log.relative_to(folder).parts
    product = Path(PRODUCTS.get(rule, "").format(str(Path(*names).with_suffix(""))))
    return rule in PRODUCTS and product.is_file() and _time(product) > _time(log)


def changed_since(suite: Suite, names: Collection[str], log: Path, files: Sequence[str | Path] = ()) -> str:
    """Return a file that was changed after a failure and tells its job what to do; empty if there is none.

    Parameters
    ----------
    suite : Suite
    names : collection of str
        The model, the datasets and the protocol of the job.
    log : Path
        The log that tells of the failure.
    files : sequence of path
        Files of the suite.
    """
    told = dict.fromkeys([*map(Path, files), *_told(suite, names)])
    newer = [path for path in told if path.is_file() and _time(path) > _time(log)]
    return str(max(newer, key=_time)) if newer else ""


def _told(suite: Suite, names: Collection[str]) -> Iterator[Path]:
    """Files that say what a job about some models, datasets and protocols does, and those that the user gives it."""
    config = suite.config
    yield Path(config["blocks"])
    for name in names:
        if model := suite.models.get(name):
            yield from (Path(config[key]) for key in ("models", "norms", "pretraining"))
            yield from map(Path, local_files(model["source"]))
            if model["arch"].startswith("python:"):
                yield code_file(model["arch"].removeprefix("python:"))
        if dataset := suite.datasets.get(name):
            yield Path(config["datasets"])
            source = parse_dataset_source(dataset["source"])
            if source.kind == "csv":
                yield location(source, config["data_root"])


def _time(path: Path) -> float:
    return path.stat().st_mtime

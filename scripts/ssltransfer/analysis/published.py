"""The published numbers of the paper, and of others under its protocols, as rows of the tidy table."""

from pathlib import Path

import pandas as pd

from ssltransfer.files import package_data
from ssltransfer.results.scores import AVERAGE, tidy

FOLDER = package_data("resources/published")
VERSIONS = ("v1", "v2")
"""Of the paper; other values of a suite's key `published` are tables of others under its linear protocol."""
PAPER_SOURCES = tuple(f"published-{version}" for version in VERSIONS)
"""Values of the column `source` for scores of the paper."""

#: Name in the files -> (id of the dataset, label).
DATASETS = {
    "Aircraft": ("aircraft", "Aircraft"),
    "Caltech101": ("caltech101", "Caltech-101"),
    "Cars": ("cars", "Cars"),
    "CIFAR10": ("cifar10", "CIFAR-10"),
    "CIFAR100": ("cifar100", "CIFAR-100"),
    "DTD": ("dtd", "DTD"),
    "Flowers": ("flowers", "Flowers"),
    "Food": ("food101", "Food-101"),
    "Pets": ("pets", "Pets"),
    "SUN397": ("sun397", "SUN397"),
    "VOC2007": ("voc2007", "VOC2007"),
    "CropDiseases": ("cropdiseases", "CropDiseases"),
    "EuroSAT": ("eurosat", "EuroSAT"),
    "ISIC": ("isic", "ISIC"),
    "ChestX": ("chestx", "ChestX"),
    "VOC detection": ("voc-detection", "VOC detection"),
    "NYUv2": ("nyuv2", "NYUv2"),
    "ADE20K": ("ade20k", "ADE20K"),
}
LABELS = dict(DATASETS.values())
MEAN_PER_CLASS = {"Aircraft", "Caltech101", "Flowers", "Pets"}

NORMALS = {
    "mean": "mean-angle",
    "median": "median-angle",
    "within_11.25": "within-11.25",
    "within_22.5": "within-22.5",
    "within_30": "within-30",
}

#: Datasets that the published means of the properties are over.
PROPERTY_DATASETS = {
    "calibration": frozenset(
        ("aircraft", "caltech101", "cars", "cifar10", "cifar100", "dtd", "flowers", "food101", "pets", "sun397")
    ),
    "inversion": frozenset(["fifteen-images"]),
    "attention": frozenset(["fifteen-images"]),
}

#: Datasets with the paper's split of training and test images -> the dataset whose published scores these are. The
#: dataset with the paper's name has another split.
PAPER_SPLITS = {"caltech101-official": "caltech101"}

#: Column of v2 Table 9 -> (kind, setting, metric).
TABLE9 = {
    "ece_linear_unscaled_pct": ("calibration", "linear", "ece"),
    "ece_linear_scaled_pct": ("calibration", "linear-scaled", "ece"),
    "ece_finetune_unscaled_pct": ("calibration", "finetune", "ece"),
    "ece_finetune_scaled_pct": ("calibration", "finetune-scaled", "ece"),
    "lpips_alexnet": ("inversion", "", "lpips-alexnet"),
    "lpips_vgg": ("inversion", "", "lpips-vgg"),
    "lpips_squeezenet": ("inversion", "", "lpips-squeezenet"),
    "mse_red": ("inversion", "", "mse-red"),
    "mse_green": ("inversion", "", "mse-green"),
    "mse_blue": ("inversion", "", "mse-blue"),
    "attentive_diffusion_pct": ("attention", "", "attentive-diffusion"),
}


def model_id(label: str) -> str:
    """Id of a published model: its name in lower case."""
    return label.lower()


def published_models() -> list[dict]:
    """Rows of the model table (model, label, family, source_accuracy) of the 14 models, in the paper's order."""
    frame = pd.read_csv(FOLDER / "models.csv")
    return [
        {"model": model_id(label), "label": label, "family": family, "source_accuracy": str(top1)}
        for label, family, top1 in zip(frame["model"], frame["family"], frame["imagenet_top1"], strict=True)
    ]


def merge_models(own: list[dict]) -> list[dict]:
    """Rows of the published models, replaced by the suite's own where it has one, then the suite's other models."""
    rows = {row["model"]: row for row in published_models()} | {row["model"]: row for row in own}
    return list(rows.values())


def training_details() -> pd.DataFrame:
    """How the models were trained (v2 Table 10), indexed by label, with readable headings."""
    frame = pd.read_csv(FOLDER / "models.csv", keep_default_na=False).set_index("model")
    columns = [name for name in frame if name not in ("family", "imagenet_top1", "source", "table5_vs_table10")]
    heads = {name: name.replace("_", " ").capitalize() for name in columns}
    return frame[columns].replace({"yes": "✓", "no": ""}).astype(str).rename(columns=heads)


def printed_averages(version: str) -> pd.DataFrame:
    """The printed ``Avg.`` columns of Table 1: kind, model, printed."""
    frame = pd.read_csv(FOLDER / "manyshot_averages.csv")
    frame[["kind", "version"]] = frame["table"].str.split("_", expand=True)
    frame = frame[frame["version"] == version].assign(model=frame["model"].map(model_id))
    return frame.rename(columns={"avg_published": "printed"})[["kind", "model", "printed"]].reset_index(drop=True)


def printed_correlations() -> dict[tuple[str, str, str], float]:
    """The last row of v2 Table 9: (kind, setting, metric) -> printed correlation with ImageNet top-1."""
    frame = pd.read_csv(FOLDER / "table9_correlations_v2.csv")
    return {TABLE9[m]: r for m, r in zip(frame["measure"], frame["pearson_to_imagenet"], strict=True)}


def sizes_of_test_parts() -> dict[str, int]:
    """Dataset -> images of its test part in the paper, for datasets that have one."""
    frame = pd.read_csv(package_data("config/datasets.tsv"), sep="\t").set_index("dataset")
    names = [name for name, _ in DATASETS.values()]
    counts = frame.loc[frame.index.isin([*names, *PAPER_SPLITS]), "test"].astype(int)
    return {name: count for name, count in counts.to_dict().items() if count}


def rerun_changes() -> dict[str, float]:
    """95th percentile over models of what linear scores changed between v1 and v2: dataset -> percentage points.

    The authors ran the linear protocol twice, but not with the same protocol: v1 reports the better of two input
    normalisations on the test part. So these are no intervals, but they show what to expect of another run.
    """
    first, second = (
        pd.read_csv(FOLDER / f"manyshot_linear_{version}.csv").set_index(["model", "dataset"])["value"]
        for version in VERSIONS
    )
    changes = (first - second).abs().groupby("dataset").quantile(0.95)
    return {DATASETS[name][0]: float(change) for name, change in changes.items()}


def text_claims() -> pd.DataFrame:
    """Quantitative statements of the text: claim, value, version, where, recomputed_from_tables."""
    return pd.read_csv(FOLDER / "text_claims.csv", keep_default_na=False)


def published_scores(version: str) -> pd.DataFrame:
    """Read the tables of one version of the paper, or the linear scores of another one, as tidy rows.

    v1 never printed its values of calibration, perceptual distance, colour and attention; its rows are those of v2
    (``source`` says so).

    Parameters
    ----------
    version : str
        ``v1`` or ``v2``, or ``dinov2`` (M. Oquab et al., DINOv2, Table 8; models by their id in ``config/models.tsv``).
    """
    if version not in VERSIONS:
        others = _manyshot(FOLDER / f"linear_{version}.csv", "linear")
        return tidy([row | {"source": f"published-{version}"} for row in others])
    rows = _manyshot(FOLDER / f"manyshot_linear_{version}.csv", "linear")
    if version == "v2":
        rows += _manyshot(FOLDER / "manyshot_finetune_v2.csv", "finetune")
    rows += _fewshot(FOLDER / "fewshot.csv", version)
    rows += _detection(FOLDER / f"detection_{version}.csv")
    rows += _dense(FOLDER / "normals.csv", "normals", "NYUv2", NORMALS)
    if version == "v2":
        metrics = {"mean_iou_fraction": "mean-iou", "pixel_accuracy_pct": "pixel-accuracy"}
        rows += _dense(FOLDER / "segmentation_v2.csv", "segmentation", "ADE20K", metrics)
    rows = [row | {"source": f"published-{version}"} for row in rows]
    return tidy(rows + [row | {"source": "published-v2"} for row in _properties(FOLDER / "table9_v2.csv")])


def _row(model: str, kind: str, dataset: str, setting: str, metric: str, value: float, **more) -> dict:
    return {
        "model": model_id(model),
        "protocol": kind,
        "kind": kind,
        "dataset": dataset,
        "setting": setting,
        "metric": metric,
        "value": value,
    } | more


def _manyshot(path: Path, kind: str) -> list[dict]:
    rows = []
    for model, name, value in pd.read_csv(path)[["model", "dataset", "value"]].itertuples(index=False):
        metric = "map11" if name == "VOC2007" else "mean-per-class" if name in MEAN_PER_CLASS else "top1"
        rows.append(_row(model, kind, DATASETS[name][0], "", metric, value))
    return rows


def _fewshot(path: Path, version: str) -> list[dict]:
    frame = pd.read_csv(path)
    frame = frame[frame["version"].str.contains(version)]
    return [
        _row(model, "fewshot", DATASETS[name][0], f"{shot}-shot", "accuracy", mean, low=mean - half, high=mean + half)
        for model, name, shot, mean, half in frame.drop(columns="version").itertuples(index=False)
    ]


def _detection(path: Path) -> list[dict]:
    return [
        _row(model, f"detection-{setting}", "voc-detection", "", metric.lower(), value)
        for model, setting, metric, value in pd.read_csv(path).itertuples(index=False)
    ]


def _dense(path: Path, kind: str, dataset: str, metrics: dict[str, str]) -> list[dict]:
    frame = pd.read_csv(path)[["model", "metric", "value"]]
    return [
        _row(model, kind, DATASETS[dataset][0], "", metrics[metric], value)
        for model, metric, value in frame.itertuples(index=False)
    ]


def _properties(path: Path) -> list[dict]:
    rows = []
    for model, measure, value in pd.read_csv(path).itertuples(index=False):
        kind, setting, metric = TABLE9[measure]
        rows.append(_row(model, kind, AVERAGE, setting, metric, value))
    return rows

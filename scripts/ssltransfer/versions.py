"""Version numbers of everything that computes a number.

Snakemake does not see edits in imported modules, so each rule passes the version of the code it calls as a
parameter: raising a version reruns exactly the jobs of that component. A test follows the imports of each component
from its entry and compares the code found with what was recorded, so that nobody changes one without deciding whether
its numbers change.
"""

from typing import NamedTuple


class Component(NamedTuple):
    """A version, and the file below `scripts/` that the component's code is imported from."""

    version: int
    entry: str


DATASETS = "ssltransfer/datasets"

COMPONENTS = {
    "digits": Component(1, f"{DATASETS}/digits.py"),
    "photographs": Component(1, f"{DATASETS}/photographs.py"),
    "shapes": Component(1, f"{DATASETS}/shapes.py"),
    "textures": Component(1, f"{DATASETS}/textures.py"),
    "ade20k": Component(1, f"{DATASETS}/ade20k.py"),
    "aircraft": Component(1, f"{DATASETS}/aircraft.py"),
    "caltech101": Component(1, f"{DATASETS}/caltech101.py"),
    "cars": Component(1, f"{DATASETS}/cars.py"),
    "chestx": Component(1, f"{DATASETS}/chestx.py"),
    "cifar10": Component(1, f"{DATASETS}/cifar10.py"),
    "cifar100": Component(1, f"{DATASETS}/cifar100.py"),
    "cropdiseases": Component(1, f"{DATASETS}/cropdiseases.py"),
    "dtd": Component(1, f"{DATASETS}/dtd.py"),
    "eurosat": Component(1, f"{DATASETS}/eurosat.py"),
    "flowers": Component(1, f"{DATASETS}/flowers.py"),
    "food101": Component(1, f"{DATASETS}/food101.py"),
    "imagenet": Component(1, f"{DATASETS}/imagenet.py"),
    "isic": Component(1, f"{DATASETS}/isic.py"),
    "nyuv2": Component(1, f"{DATASETS}/nyuv2.py"),
    "pets": Component(1, f"{DATASETS}/pets.py"),
    "sun397": Component(1, f"{DATASETS}/sun397.py"),
    "voc2007": Component(1, f"{DATASETS}/voc2007.py"),
    "voc_detection": Component(1, f"{DATASETS}/voc_detection.py"),
    "voc_segmentation": Component(1, f"{DATASETS}/voc_segmentation.py"),
    "hub_shards": Component(1, f"{DATASETS}/hub_shards.py"),
    "folder": Component(1, f"{DATASETS}/folder.py"),
    "table": Component(1, f"{DATASETS}/table.py"),
    "image_masks": Component(1, f"{DATASETS}/image_masks.py"),
    "sample": Component(1, "sample_images.py"),
    "index": Component(1, "index_dataset.py"),
    "images": Component(1, "prepare_images.py"),
    "checkpoints": Component(1, "convert_checkpoint.py"),
    "verification": Component(1, "verify_checkpoint.py"),
    "pretraining": Component(1, "pretrain_model.py"),
    "features": Component(2, "extract_features.py"),
    "given-features": Component(1, "import_features.py"),
    "timm": Component(1, "ssltransfer/models/timm_backbone.py"),
    "linear": Component(2, "evaluate_linear.py"),
    "neighbours": Component(1, "find_neighbours.py"),
    "knn": Component(1, "evaluate_knn.py"),
    "label-efficiency": Component(1, "evaluate_label_efficiency.py"),
    "estimators": Component(1, "evaluate_estimators.py"),
    "similarity": Component(1, "compare_representations.py"),
    "calibration": Component(2, "evaluate_calibration.py"),
    "finetune": Component(1, "evaluate_finetune.py"),
    "fewshot": Component(3, "evaluate_fewshot.py"),
    "inverted-images": Component(2, "invert_features.py"),
    "inversion": Component(2, "evaluate_inversion.py"),
    "attention": Component(1, "evaluate_attention.py"),
    "known-normals": Component(1, "prepare_normals.py"),
    "normals-network": Component(1, "train_normals.py"),
    "normals": Component(1, "evaluate_normals.py"),
    "masks": Component(1, "draw_masks.py"),
    "segmentation-network": Component(1, "train_segmentation.py"),
    "segmentation": Component(1, "evaluate_segmentation.py"),
    "detection-network": Component(1, "train_detector.py"),
    "detection": Component(1, "evaluate_detection.py"),
    "summary": Component(8, "make_tables.py"),
    "figures": Component(13, "plot_figures.py"),
    "report": Component(7, "write_report.py"),
}


WITH_NETWORK = (
    "pretraining",
    "finetune",
    "inverted-images",
    "attention",
    "normals-network",
    "normals",
    "segmentation-network",
    "segmentation",
    "detection-network",
)
"""Components that pass images through the network of a model and have one version as parameter."""


def version(component: str) -> int:
    """Return the version number of a component."""
    return COMPONENTS[component].version


def network_version(component: str, arch: str) -> int | str:
    """Return the version of a component, and for networks of timm behind it that of the code which reads them out."""
    if component in WITH_NETWORK and arch.startswith(("timm:", "torchvision:")):
        return f"{version(component)}+{version('timm')}"
    return version(component)

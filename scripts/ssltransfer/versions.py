"""Version numbers of everything that computes a number.

Snakemake does not see edits in imported modules, so each rule passes the version of the code it calls as a
parameter: raising a version reruns exactly the jobs of that component. A test compares the source of each
component with a recorded hash, so that nobody changes one without deciding whether its numbers change.
"""

from typing import NamedTuple


class Component(NamedTuple):
    """A version and the modules it covers (paths below this package; a folder means all files in it)."""

    version: int
    modules: tuple[str, ...]


CONTAINERS = ("datasets/containers.py", "checkpoints/untrusted.py")
NORMALS = ("normals/network.py", "normals/frames.py", "normals/truth.py", "backbones.py", "images.py")

COMPONENTS = {
    "digits": Component(1, ("datasets/digits.py", "datasets/generated.py")),
    "photographs": Component(1, ("datasets/photographs.py", "datasets/textures.py", "datasets/generated.py")),
    "shapes": Component(1, ("datasets/shapes.py", "datasets/solids.py", "datasets/generated.py")),
    "textures": Component(1, ("datasets/textures.py", "datasets/generated.py")),
    "aircraft": Component(1, ("datasets/aircraft.py", "datasets/layout.py")),
    "caltech101": Component(1, ("datasets/caltech101.py", "datasets/layout.py")),
    "cars": Component(1, ("datasets/cars.py", "datasets/layout.py")),
    "chestx": Component(1, ("datasets/chestx.py", "datasets/layout.py")),
    "cifar10": Component(1, ("datasets/cifar10.py", *CONTAINERS)),
    "cifar100": Component(1, ("datasets/cifar100.py", *CONTAINERS)),
    "cropdiseases": Component(1, ("datasets/cropdiseases.py", "datasets/layout.py")),
    "dtd": Component(1, ("datasets/dtd.py", "datasets/layout.py")),
    "eurosat": Component(1, ("datasets/eurosat.py", "datasets/layout.py")),
    "flowers": Component(1, ("datasets/flowers.py", "datasets/layout.py")),
    "food101": Component(1, ("datasets/food101.py", "datasets/layout.py")),
    "isic": Component(1, ("datasets/isic.py", "datasets/layout.py")),
    "nyuv2": Component(1, ("datasets/nyuv2.py", *CONTAINERS, "datasets/layout.py")),
    "pets": Component(1, ("datasets/pets.py", "datasets/layout.py")),
    "sun397": Component(1, ("datasets/sun397.py", "datasets/layout.py")),
    "voc2007": Component(1, ("datasets/voc2007.py", "datasets/voc.py", "datasets/layout.py")),
    "voc_detection": Component(1, ("datasets/voc_detection.py", "datasets/voc.py", "datasets/layout.py")),
    "folder": Component(1, ("datasets/folder.py", "datasets/layout.py")),
    "table": Component(1, ("datasets/table.py", "datasets/layout.py")),
    "one_of": Component(1, ("datasets/one_of.py",)),
    "index": Component(1, ("datasets/index.py",)),
    "images": Component(1, ("images.py", "array_file.py", *CONTAINERS)),
    "checkpoints": Component(1, ("checkpoints",)),
    "verification": Component(1, ("verification.py", "backbones.py", "images.py")),
    "pretraining": Component(1, ("pretraining", "training.py", "backbones.py")),
    "features": Component(2, ("features.py", "fused.py", "backbones.py")),
    "linear": Component(2, ("linear.py", "logistic.py", "design.py", "arrays.py", "metrics.py", "splits.py")),
    "calibration": Component(2, ("calibration.py",)),
    "fewshot": Component(3, ("fewshot.py",)),
    "inversion": Component(2, ("inversion.py", "fused.py", "training.py", "backbones.py")),
    "likeness": Component(2, ("likeness.py",)),
    "attention": Component(1, ("attention.py", "fused.py", "backbones.py")),
    "known-normals": Component(1, ("normals/truth.py",)),
    "normals-network": Component(1, (*NORMALS, "normals/codes.py", "normals/training.py", "training.py")),
    "normals": Component(1, (*NORMALS, "normals/evaluation.py", "normals/angles.py", "normals/pictures.py")),
    "detector": Component(
        1,
        (
            *("detection/objects.py", "detection/inputs.py", "detection/settings.py", "detection/training.py"),
            *("detection/torchvision_backend.py", "detection/detectron2_backend.py", "detection/detection_file.py"),
            *("training.py", "backbones.py", "images.py", "checkpoints/detectron2.py"),
        ),
    ),
    "detection": Component(1, ("detection/evaluation.py", "detection/pictures.py")),
    "summary": Component(
        5,
        (
            *("scores.py", "correlation.py", "published.py", "ranking.py", "comparison.py", "claims.py"),
            *("tables.py", "summary.py", "suite_tables.py"),
        ),
    ),
    "figures": Component(9, ("plots.py", "galleries.py", "explorer.py")),
    "report": Component(4, ("report.py",)),
}


def version(component: str) -> int:
    """Return the version number of a component."""
    return COMPONENTS[component].version

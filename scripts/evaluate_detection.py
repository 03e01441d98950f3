"""Evaluate the detections of a model on a data set."""

import numpy as np
from safetensors import safe_open

from ssltransfer.datasets import Source, image_root
from ssltransfer.datasets.images import read_image
from ssltransfer.datasets.index import read_index, short_name
from ssltransfer.jobs import JobUsage, job, package_versions
from ssltransfer.protocols.detection.detection_file import load_detections
from ssltransfer.protocols.detection.evaluation import THRESHOLDS, evaluate, written
from ssltransfer.protocols.detection.objects import read_annotations, voc_objects
from ssltransfer.protocols.detection.pictures import SHOWN, draw, examples
from ssltransfer.protocols.detection.settings import Schedule, describe, read_settings
from ssltransfer.results import score_file
from ssltransfer.results.picture_file import save_pictures

COLUMNS, SIDE = 8, 192

with job(snakemake.log[0]):
    cost = JobUsage()
    settings = read_settings(snakemake.params.settings)
    index = read_index(snakemake.input.index)
    annotations = read_annotations(index, snakemake.wildcards.dataset)
    rows = np.flatnonzero(index.split_array() == "test")
    detections = load_detections(snakemake.input.predictions)
    objects = voc_objects(annotations, rows)
    result = evaluate(written(detections), objects, len(index.classes), settings.rule)
    with safe_open(snakemake.input.trained, framework="numpy") as file:
        trained = score_file.decode(file.metadata())

    to_find = np.bincount(objects.label[~objects.difficult], minlength=len(index.classes))
    warnings, used, paper = [trained["scaling"]] if trained["scaling"] else [], settings.used, Schedule()
    if used.steps * used.batch_size != paper.steps * paper.batch_size:
        warnings.append(
            f"{used.steps} steps of {used.batch_size} images, where the paper has {paper.steps} of {paper.batch_size}"
        )
    if absent := [index.classes[k] for k in np.flatnonzero(to_find == 0)]:
        warnings.append(f"no test image shows an object of {', '.join(absent)}; counted as 0, as detectron2 does")

    shown = examples(rows, np.array([len(annotations.label[row]) for row in rows]), COLUMNS)
    root = image_root(Source(*snakemake.params.source), snakemake.resources.data_root, snakemake.input.index)
    truth, found = [], []
    for row in shown:
        image = read_image(root, index.image[row])
        truth.append(draw(image, annotations.box[row], annotations.label[row], index.classes, SIDE))
        sure = (detections.image == row) & (detections.score > SHOWN)
        boxes, labels, scores = (column[sure] for column in (detections.box, detections.label, detections.score))
        found.append(draw(image, boxes, labels, index.classes, SIDE, scores))
    empty = np.empty((0, SIDE, SIDE, 3), np.uint8)
    save_pictures(
        snakemake.output.pictures,
        [short_name(index.image[row]) for row in shown],
        {"Ground truth": np.array(truth) if truth else empty},
        {"Detections": np.array(found) if found else empty},
        f"Boxes with scores above {SHOWN}, in percent.",
    )
    metrics = {"ap": result.ap, "ap50": result.ap50, "ap75": result.ap75}
    score_file.write(
        snakemake.output.score,
        snakemake.wildcards,
        "detection-frozen" if settings.frozen == "first-four" else "detection-finetune",
        [score_file.percent(metric, value) for metric, value in metrics.items()],
        snakemake.params.settings,
        checkpoint=trained["checkpoint"],
        preprocessing={"norm": trained["norm"], "sides": describe(settings.sides)},
        warnings=warnings,
        details={
            "images": {"train": index.split.count("train"), "test": len(rows)},
            "objects": int(to_find.sum()),
            "detections": len(detections),
            "schedule": trained["schedule"],
            "per_class": {
                name: {"objects": int(to_find[k]), "ap": float(result.per_class[:, k].mean())}
                | {f"ap{t:.0%}"[:-1]: float(result.per_class[THRESHOLDS.index(t), k]) for t in (0.5, 0.75)}
                for k, name in enumerate(index.classes)
            },
            "training_cost": trained["cost"],
        },
        versions=score_file.join_versions(
            trained["versions"], package_versions("numpy") | {"protocol": snakemake.params.version}
        ),
        cost=cost.report(),
    )

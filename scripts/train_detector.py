"""Train a detector on a model's backbone and detect the objects of the test images."""

import json
import shutil
from pathlib import Path

from ssltransfer.datasets import Source, image_root
from ssltransfer.datasets.index import read_index
from ssltransfer.jobs import JobUsage, job, package_versions, progress
from ssltransfer.models.backbone_file import load_backbone
from ssltransfer.protocols.detection.detection_file import save_detections
from ssltransfer.protocols.detection.objects import read_annotations
from ssltransfer.protocols.detection.settings import describe, read_settings
from ssltransfer.protocols.detection.training import build_detector, detect, train_detector
from ssltransfer.results.score_file import decode
from ssltransfer.results.tensor_file import read_provenance, save_tensors
from ssltransfer.training import save_curve

with job(snakemake.log[0]):
    cost = JobUsage()
    params, output = snakemake.params, snakemake.output
    where = f"protocols.{snakemake.wildcards.protocol}, {snakemake.wildcards.dataset}"
    part = Path(f"{output.trained}.part")
    settings = read_settings(params.settings)
    index = read_index(snakemake.input.index)
    annotations = read_annotations(index, snakemake.wildcards.dataset)
    root = image_root(Source(*params.source), snakemake.resources.data_root, snakemake.input.index)
    backbone = load_backbone(snakemake.input.checkpoint, params.arch)
    detector = build_detector(backbone, params.arch, len(index.classes), params.norm, settings)
    key = json.dumps([params.arch, params.norm, params.version, read_provenance(snakemake.input.checkpoint)])
    interval, losses = train_detector(
        detector,
        index,
        annotations,
        root,
        settings,
        part,
        key,
        where=where,
        workers=snakemake.threads - 1,
        progress=lambda batches, total: progress(batches, "training", total),
    )
    detections = detect(detector, index, root, settings, lambda batches, total: progress(batches, "detecting", total))
    save_detections(output.predictions, detections)
    save_curve(output.curve, interval, losses)
    about = {
        "checkpoint": json.dumps(decode(read_provenance(snakemake.input.checkpoint))),
        "norm": params.norm,
        "settings": json.dumps(describe(settings)),
        "schedule": json.dumps(describe(settings.used)),
        "scaling": settings.scaling,
        "versions": json.dumps(package_versions("torch", "torchvision", "detectron2") | {"protocol": params.version}),
        "cost": json.dumps(cost.report()),
    }
    save_tensors(detector.state_dict(), output.trained, about)
    shutil.rmtree(part, ignore_errors=True)

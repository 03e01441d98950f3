"""Train a detector on a model's backbone and detect the objects of the test images."""

import json
from dataclasses import asdict

from ssltransfer.datasets import Source, image_root
from ssltransfer.datasets.index import read_index
from ssltransfer.jobs import Cost, job, package_versions, progress
from ssltransfer.models.backbone_file import load_backbone
from ssltransfer.protocols.detection.detection_file import save_detections
from ssltransfer.protocols.detection.objects import read_annotations
from ssltransfer.protocols.detection.settings import DetectionSettings
from ssltransfer.protocols.detection.training import build_detector, detect, train_detector
from ssltransfer.results.score_file import decode
from ssltransfer.results.tensor_file import save_state
from ssltransfer.results.tensor_header import read_provenance
from ssltransfer.settings import read_settings
from ssltransfer.training import resumable, run_key

with job(snakemake.log[0]):
    cost = Cost()
    params, output, wildcards = snakemake.params, snakemake.output, snakemake.wildcards
    settings = read_settings(DetectionSettings, params.settings)
    index = read_index(snakemake.input.index)
    annotations = read_annotations(index, wildcards.dataset)
    root = image_root(Source(*params.source), snakemake.resources.data_root, snakemake.input.index)
    checkpoint = read_provenance(snakemake.input.checkpoint)
    backbone = load_backbone(snakemake.input.checkpoint, params.arch)
    detector = build_detector(backbone, params.arch, len(index.classes), params.norm, settings)
    with resumable(
        output.trained,
        run_key(params, checkpoint),
        f"protocols.{wildcards.protocol}, {wildcards.dataset}",
        label="training",
        workers=snakemake.threads - 1,
    ) as run:
        curve = train_detector(detector, index, annotations, root, settings, run)
        found = detect(detector, index, root, settings, lambda batches, total: progress(batches, "detecting", total))
        save_detections(output.predictions, found)
        curve.save(output.curve)
        about = {
            "checkpoint": json.dumps(decode(checkpoint)),
            "norm": params.norm,
            "settings": json.dumps(asdict(settings)),
            "schedule": json.dumps(asdict(settings.effective_schedule)),
            "scaling": settings.scaling,
            "versions": json.dumps(
                package_versions("torch", "torchvision", "detectron2") | {"protocol": params.version}
            ),
            "cost": json.dumps(cost.report()),
        }
        save_state(detector.state_dict(), output.trained, about)

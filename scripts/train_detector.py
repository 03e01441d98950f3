"""Train a detector on a model's backbone and detect the objects of the test images."""

from dataclasses import asdict

from ssltransfer.datasets.dataset import Dataset
from ssltransfer.jobs import JobUsage, job, progress
from ssltransfer.models.backbone import ANY_SIZE
from ssltransfer.models.backbone_file import load_backbone
from ssltransfer.protocols.detection.detection_file import save_detections
from ssltransfer.protocols.detection.objects import read_annotations
from ssltransfer.protocols.detection.settings import DetectionSettings
from ssltransfer.protocols.detection.training import build_detector, detect, train_detector
from ssltransfer.results.tensor_file import save_tensors
from ssltransfer.results.tensor_header import describe_training, encode_metadata, read_provenance
from ssltransfer.settings import config_path, read_settings
from ssltransfer.training_state import resumable, run_key

with job(snakemake.log[0]):
    usage = JobUsage()
    params, output, wildcards = snakemake.params, snakemake.output, snakemake.wildcards
    settings = read_settings(DetectionSettings, params.settings)
    dataset = Dataset(params.source, snakemake.resources.data_root, snakemake.input.index)
    index = dataset.index
    annotations = read_annotations(index, wildcards.dataset)
    checkpoint = read_provenance(snakemake.input.checkpoint)
    backbone = load_backbone(snakemake.input.checkpoint, params.arch, size=ANY_SIZE)
    detector = build_detector(backbone, params.arch, len(index.classes), params.norm, settings)
    with resumable(
        output.trained,
        run_key(params, checkpoint),
        config_path(wildcards),
        label="training",
        workers=snakemake.threads - 1,
        save_seconds=snakemake.resources.save_seconds,
    ) as run:
        curve = train_detector(detector, index, annotations, dataset.root, settings, run)
        found = detect(
            detector, index, dataset.root, settings, lambda batches, total: progress(batches, "detecting", total)
        )
        save_detections(output.predictions, found)
        curve.save(output.curve)
        provenance = describe_training(checkpoint, params, ("torch", "torchvision", "detectron2"), usage) | {
            "settings": asdict(settings),
            "schedule": asdict(settings.effective_schedule),
            "scaling": settings.scaling,
        }
        if deviation := getattr(detector, "deviation", ""):
            provenance["deviation"] = deviation
        save_tensors(detector.state_dict(), output.trained, encode_metadata(provenance))

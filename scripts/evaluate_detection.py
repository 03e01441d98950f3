"""Evaluate the detections of a model on a dataset."""

from ssltransfer.datasets.dataset import Dataset
from ssltransfer.jobs import JobUsage, job, package_versions
from ssltransfer.protocols.detection.detection_file import load_detections
from ssltransfer.protocols.detection.evaluation import draw_detections, measure_detections
from ssltransfer.protocols.detection.objects import read_annotations
from ssltransfer.protocols.detection.settings import DetectionSettings
from ssltransfer.results import score_file
from ssltransfer.results.picture_file import save_pictures
from ssltransfer.results.tensor_header import decode_metadata, read_provenance
from ssltransfer.settings import complete, read_settings

with job(snakemake.log[0]):
    usage = JobUsage()
    params, wildcards = snakemake.params, snakemake.wildcards
    dataset = Dataset(params.source, snakemake.resources.data_root, snakemake.input.index)
    index = dataset.index
    annotations = read_annotations(index, wildcards.dataset)
    detections = load_detections(snakemake.input.predictions)
    trained = decode_metadata(read_provenance(snakemake.input.trained))
    settings = read_settings(DetectionSettings, params.settings)
    measurement = measure_detections(index, annotations, detections, trained, settings)
    save_pictures(snakemake.output.pictures, draw_detections(index, annotations, detections, dataset.root))
    score_file.write(
        snakemake.output.score,
        wildcards,
        measurement,
        complete(params.settings),
        score_file.join_versions(trained["versions"], package_versions("numpy") | {"protocol": params.version}),
        usage.report(),
    )

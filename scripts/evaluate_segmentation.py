"""Measure the mean intersection over union of the predicted classes of pixels of a model."""

import numpy as np

from ssltransfer.datasets.dataset import Dataset
from ssltransfer.device import choose_device
from ssltransfer.jobs import JobUsage, job, package_versions, progress
from ssltransfer.protocols.dense.segmentation.dataset import open_dataset
from ssltransfer.protocols.dense.segmentation.evaluation import (
    count_classes,
    draw_predictions,
    measure_segmentation,
    write_image_table,
)
from ssltransfer.protocols.dense.segmentation.metrics import save_counts
from ssltransfer.protocols.dense.segmentation.network import load_network
from ssltransfer.protocols.dense.segmentation.prediction import Predictor
from ssltransfer.protocols.dense.segmentation.settings import SegmentationSettings
from ssltransfer.results import score_file
from ssltransfer.results.picture_file import save_pictures
from ssltransfer.results.tensor_header import decode_metadata, read_provenance
from ssltransfer.settings import complete, read_settings

with job(snakemake.log[0]):
    usage = JobUsage()
    params, output, files = snakemake.params, snakemake.output, snakemake.input
    settings = read_settings(SegmentationSettings, params.settings)
    device = choose_device(snakemake.threads)
    source = Dataset(params.source, snakemake.resources.data_root, files.index)
    dataset = open_dataset(source, files.masks or None, settings.sides.longest)
    rows = np.flatnonzero(source.index.split_array() == "test")
    network = load_network(files.checkpoint, params.arch, len(dataset.classes), files.trained, settings)
    trained = decode_metadata(read_provenance(files.trained))
    predictor = Predictor(network, dataset, settings, params.norm, device)
    table = count_classes(predictor, rows, lambda images, total: progress(images, "images", total))
    measurement = measure_segmentation(table, dataset, source.index, trained, params.norm, settings, network)
    names = [dataset.images[row] for row in rows]
    save_counts(output.predictions, names, table)
    write_image_table(output.images, names, table)
    save_pictures(output.pictures, draw_predictions(predictor, rows))
    score_file.write(
        output.score,
        snakemake.wildcards,
        measurement,
        complete(params.settings),
        score_file.join_versions(
            trained["versions"], package_versions("torch", "numpy") | {"protocol": params.version}
        ),
        usage.report(),
    )

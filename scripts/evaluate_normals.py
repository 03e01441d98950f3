"""Measure the angular errors of the predicted surface normals of a model."""

import numpy as np

from ssltransfer.datasets import Source, image_root
from ssltransfer.datasets.index import read_index
from ssltransfer.device import choose_device
from ssltransfer.jobs import Cost, job, package_versions, progress
from ssltransfer.protocols.dense.normals.dataset import NormalsDataset
from ssltransfer.protocols.dense.normals.evaluation import (
    angular_errors,
    draw_predictions,
    measure_normals,
    write_image_table,
)
from ssltransfer.protocols.dense.normals.ground_truth import open_normals
from ssltransfer.protocols.dense.normals.network import load_network
from ssltransfer.protocols.dense.normals.settings import NormalsSettings
from ssltransfer.results import score_file
from ssltransfer.results.picture_file import save_pictures
from ssltransfer.results.tensor_header import read_provenance
from ssltransfer.settings import complete, read_settings

with job(snakemake.log[0]):
    cost = Cost()
    params, output = snakemake.params, snakemake.output
    settings = read_settings(NormalsSettings, params.settings)
    device = choose_device(snakemake.threads)
    root = image_root(Source(*params.source), snakemake.resources.data_root, snakemake.input.index)
    index = read_index(snakemake.input.index)
    network, codebook = load_network(snakemake.input.checkpoint, params.arch, snakemake.input.trained, settings)
    normals = open_normals(snakemake.input.normals, len(index))
    dataset = NormalsDataset(root, index.image, normals, codebook, settings.sides.longest)
    test = np.flatnonzero(index.split_array() == "test")
    trained = score_file.decode(read_provenance(snakemake.input.trained))
    inputs = network, dataset, test, settings.sides.test, params.norm, device
    errors = angular_errors(*inputs, lambda batches, total: progress(batches, "batches", total))
    write_image_table(output.images, [index.image[row] for row in test], errors)
    save_pictures(output.pictures, draw_predictions(*inputs))
    score_file.write(
        output.score,
        snakemake.wildcards,
        measure_normals(errors, index, trained, params.norm, settings),
        complete(params.settings),
        score_file.join_versions(
            trained["versions"], package_versions("torch", "numpy") | {"protocol": params.version}
        ),
        cost.report(),
    )

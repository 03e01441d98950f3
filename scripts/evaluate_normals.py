"""Measure the angular errors of the predicted surface normals of a model."""

from ssltransfer.datasets.dataset import Dataset
from ssltransfer.device import choose_device
from ssltransfer.jobs import JobUsage, job, package_versions, progress
from ssltransfer.protocols.dense.normals.dataset import evaluation_data
from ssltransfer.protocols.dense.normals.evaluation import (
    Predictor,
    angular_errors,
    draw_predictions,
    measure_normals,
    write_image_table,
)
from ssltransfer.protocols.dense.normals.network import load_network
from ssltransfer.protocols.dense.normals.settings import NormalsSettings
from ssltransfer.results import score_file
from ssltransfer.results.picture_file import save_pictures
from ssltransfer.results.tensor_header import decode_metadata, read_provenance
from ssltransfer.settings import complete, read_settings

with job(snakemake.log[0]):
    usage = JobUsage()
    params, output = snakemake.params, snakemake.output
    settings = read_settings(NormalsSettings, params.settings)
    device = choose_device(snakemake.threads)
    source = Dataset(params.source, snakemake.resources.data_root, snakemake.input.index)
    network, codebook = load_network(snakemake.input.checkpoint, params.arch, snakemake.input.trained, settings)
    dataset, rows = evaluation_data(source, snakemake.input.normals, settings, codebook)
    trained = decode_metadata(read_provenance(snakemake.input.trained))
    predictor = Predictor(network, dataset, settings.sides.test, params.norm, device)
    errors = angular_errors(predictor, rows, lambda batches, total: progress(batches, "batches", total))
    write_image_table(output.images, [dataset.images[row] for row in rows], errors)
    save_pictures(output.pictures, draw_predictions(predictor, rows))
    score_file.write(
        output.score,
        snakemake.wildcards,
        measure_normals(errors, source.index, trained, params.norm, settings, network.stride),
        complete(params.settings),
        score_file.join_versions(
            trained["versions"], package_versions("torch", "numpy") | {"protocol": params.version}
        ),
        usage.report(),
    )

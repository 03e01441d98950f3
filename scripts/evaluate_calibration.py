"""Calibration of the linear classifiers of a model on a dataset."""

from ssltransfer.files import read_json
from ssltransfer.jobs import Cost, job, package_versions
from ssltransfer.protocols.calibration import measure_calibration
from ssltransfer.results import score_file
from ssltransfer.results.prediction_file import load_predictions
from ssltransfer.settings import complete

with job(snakemake.log[0]):
    cost = Cost()
    settings = complete(snakemake.params.settings)
    measurement = measure_calibration(
        load_predictions(snakemake.input.predictions), read_json(snakemake.input.score), settings["seed"]
    )
    score_file.write(
        snakemake.output[0],
        snakemake.wildcards,
        measurement,
        settings,
        package_versions("numpy", "scipy") | {"protocol": snakemake.params.version},
        cost.report(),
    )

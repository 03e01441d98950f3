"""Calibration of the classifiers of a model on a dataset."""

from ssltransfer.files import read_json
from ssltransfer.jobs import JobUsage, job, package_versions
from ssltransfer.protocols.calibration import CalibrationSettings, measure_calibration
from ssltransfer.results import score_file
from ssltransfer.results.prediction_file import load_predictions
from ssltransfer.settings import complete, read_settings

with job(snakemake.log[0]):
    usage = JobUsage()
    measurement = measure_calibration(
        load_predictions(snakemake.input.predictions),
        read_json(snakemake.input.score),
        read_settings(CalibrationSettings, snakemake.params.settings),
    )
    score_file.write(
        snakemake.output.score,
        snakemake.wildcards,
        measurement,
        complete(snakemake.params.settings),
        package_versions("numpy", "scipy") | {"protocol": snakemake.params.version},
        usage.report(),
    )

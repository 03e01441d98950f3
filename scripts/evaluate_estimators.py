"""Compute the transferability estimators of a model on a dataset."""

from ssltransfer.datasets.index import read_index
from ssltransfer.device import choose_arrays
from ssltransfer.jobs import JobUsage, job, package_versions
from ssltransfer.models.feature_file import read_features
from ssltransfer.protocols.estimators.evaluation import measure_estimators
from ssltransfer.protocols.estimators.settings import EstimatorSettings
from ssltransfer.results import score_file
from ssltransfer.settings import complete, read_settings

with job(snakemake.log[0]):
    usage = JobUsage()
    index = read_index(snakemake.input.index)
    ((norm, features),) = read_features(snakemake.input.features, len(index)).items()
    measurement = measure_estimators(
        features,
        norm,
        index,
        snakemake.wildcards.dataset,
        snakemake.params.metric,
        read_settings(EstimatorSettings, snakemake.params.settings),
        choose_arrays(),
    )
    score_file.write(
        snakemake.output.score,
        snakemake.wildcards,
        measurement,
        complete(snakemake.params.settings),
        package_versions("numpy", "scipy", "torch") | {"protocol": snakemake.params.version},
        usage.report(),
    )

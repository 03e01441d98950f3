"""Many-shot linear evaluation of a model on a dataset."""

from ssltransfer.datasets.index import read_index
from ssltransfer.device import choose_arrays
from ssltransfer.jobs import JobUsage, job, package_versions
from ssltransfer.models.feature_file import read_features
from ssltransfer.protocols.linear.evaluation import measure_linear
from ssltransfer.protocols.linear.settings import LinearSettings
from ssltransfer.results import score_file
from ssltransfer.results.prediction_file import save_predictions
from ssltransfer.settings import complete, read_settings

with job(snakemake.log[0]):
    usage = JobUsage()
    index = read_index(snakemake.input.index)
    measurement, predictions = measure_linear(
        read_features(snakemake.input.features, len(index)),
        index,
        snakemake.wildcards.dataset,
        snakemake.params.metric,
        read_settings(LinearSettings, snakemake.params.settings),
        choose_arrays(),
    )
    save_predictions(snakemake.output.predictions, predictions)
    score_file.write(
        snakemake.output.score,
        snakemake.wildcards,
        measurement,
        complete(snakemake.params.settings),
        package_versions("numpy", "scipy", "scikit-learn", "torch") | {"protocol": snakemake.params.version},
        usage.report(),
    )

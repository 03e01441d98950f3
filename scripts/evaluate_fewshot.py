"""Few-shot evaluation of a model on a dataset."""

from ssltransfer.datasets.index import read_index
from ssltransfer.jobs import JobUsage, job, package_versions
from ssltransfer.models.feature_file import read_features
from ssltransfer.protocols.fewshot import FewShotSettings, measure_fewshot
from ssltransfer.results import score_file
from ssltransfer.settings import complete, read_settings

with job(snakemake.log[0]):
    usage = JobUsage()
    index = read_index(snakemake.input.index)
    measurement = measure_fewshot(
        read_features(snakemake.input.features, len(index)),
        index,
        snakemake.wildcards.dataset,
        read_settings(FewShotSettings, snakemake.params.settings),
    )
    score_file.write(
        snakemake.output.score,
        snakemake.wildcards,
        measurement,
        complete(snakemake.params.settings),
        package_versions("numpy") | {"protocol": snakemake.params.version},
        usage.report(),
    )

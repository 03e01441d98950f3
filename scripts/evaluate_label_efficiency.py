"""Label-efficiency curves of a model on a dataset."""

from ssltransfer.datasets.index import read_index
from ssltransfer.device import choose_arrays
from ssltransfer.files import read_json
from ssltransfer.jobs import JobUsage, job, package_versions
from ssltransfer.models.feature_file import read_features
from ssltransfer.protocols.label_efficiency.evaluation import measure_label_efficiency
from ssltransfer.protocols.label_efficiency.settings import LabelEfficiencySettings
from ssltransfer.protocols.label_efficiency.subset_lists import SUBSET_LISTS, read_subset_list
from ssltransfer.protocols.linear.settings import LinearSettings
from ssltransfer.results import score_file
from ssltransfer.settings import complete, read_settings

with job(snakemake.log[0]):
    usage = JobUsage()
    index = read_index(snakemake.input.index)
    settings = read_settings(LabelEfficiencySettings, snakemake.params.settings)
    lists = zip(settings.lists, snakemake.input.lists, strict=True)
    (features,) = read_features(snakemake.input.features, len(index)).values()
    measurement = measure_label_efficiency(
        features,
        index,
        snakemake.wildcards.dataset,
        snakemake.params.metric,
        settings,
        read_settings(LinearSettings, snakemake.params.linear),
        read_json(snakemake.input.score),
        {name: read_subset_list(path, SUBSET_LISTS[name].images) for name, path in lists},
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

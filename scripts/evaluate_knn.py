"""k-nearest-neighbour evaluation of a model on a dataset."""

from ssltransfer.datasets.index import read_index
from ssltransfer.jobs import JobUsage, job, package_versions
from ssltransfer.protocols.knn.evaluation import measure_knn
from ssltransfer.protocols.knn.neighbour_file import load_neighbours
from ssltransfer.protocols.knn.settings import KnnSettings
from ssltransfer.results import score_file
from ssltransfer.results.prediction_file import save_predictions
from ssltransfer.settings import complete, read_settings

with job(snakemake.log[0]):
    usage = JobUsage()
    neighbours, about = load_neighbours(snakemake.input.neighbours)
    measurement, predictions = measure_knn(
        neighbours,
        about | {"file": "/".join(snakemake.input.neighbours.split("/")[-3:])},
        read_index(snakemake.input.index),
        snakemake.wildcards.dataset,
        snakemake.params.metric,
        read_settings(KnnSettings, snakemake.params.settings),
    )
    save_predictions(snakemake.output.predictions, predictions)
    own = package_versions("numpy", "scipy") | {"protocol": str(snakemake.params.version)}
    score_file.write(
        snakemake.output.score,
        snakemake.wildcards,
        measurement,
        complete(snakemake.params.settings),
        score_file.join_versions(about["versions"], own),
        usage.report(),
    )

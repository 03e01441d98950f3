"""Find the nearest neighbours of the test and validation images of a dataset."""

from ssltransfer.datasets.index import read_index
from ssltransfer.device import choose_arrays
from ssltransfer.jobs import job, package_versions
from ssltransfer.models.feature_file import read_features
from ssltransfer.protocols.knn.neighbour_file import find_neighbours, save_neighbours

with job(snakemake.log[0]):
    index, dataset = read_index(snakemake.input.index), snakemake.wildcards.dataset
    ((norm, features),) = read_features([snakemake.input.features], len(index)).items()
    count, similarity = int(snakemake.wildcards.number), snakemake.wildcards.similarity
    found = find_neighbours(features.values, index, dataset, count, similarity, choose_arrays())
    versions = package_versions("numpy", "torch") | {"protocol": str(snakemake.params.version)}
    about = {"checkpoint": features.checkpoint, "norm": norm, "precision": features.precision, "versions": versions}
    save_neighbours(snakemake.output.neighbours, found, about)

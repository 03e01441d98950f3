"""Train a network that predicts surface normals from the features of a model."""

import numpy as np

from ssltransfer.datasets.dataset import Dataset
from ssltransfer.datasets.nyuv2 import read_code_words
from ssltransfer.device import choose_device
from ssltransfer.jobs import JobUsage, job
from ssltransfer.protocols.dense.normals.dataset import NormalsDataset
from ssltransfer.protocols.dense.normals.ground_truth import make_codebook, open_normals
from ssltransfer.protocols.dense.normals.network import build_network
from ssltransfer.protocols.dense.normals.settings import NormalsSettings
from ssltransfer.protocols.dense.normals.training import train_network
from ssltransfer.results.tensor_file import save_tensors
from ssltransfer.results.tensor_header import describe_training, encode_metadata, read_provenance
from ssltransfer.settings import complete, config_path, read_settings
from ssltransfer.training import resumable, run_key

with job(snakemake.log[0]):
    usage = JobUsage()
    params, output = snakemake.params, snakemake.output
    settings = read_settings(NormalsSettings, params.settings)
    place = config_path(snakemake.wildcards)
    device = choose_device()
    source = Dataset(params.source, snakemake.resources.data_root, snakemake.input.index)
    index = source.index
    normals = open_normals(snakemake.input.normals, len(index))
    train = np.flatnonzero(index.split_array() == "train")
    codebook = make_codebook(settings, normals, train, lambda: read_code_words(source.root), place)
    label_images = index.extra.get("codes", ()) if settings.targets == "images" else ()
    dataset = NormalsDataset(source.root, index.image, normals, codebook, settings.sides.longest, label_images)
    checkpoint = read_provenance(snakemake.input.checkpoint)
    network = build_network(snakemake.input.checkpoint, params.arch, len(codebook), settings)
    with resumable(output.trained, run_key(params, checkpoint), place, workers=snakemake.threads - 1) as run:
        curve = train_network(network, dataset, train, settings, params.norm, run, device)
        provenance = describe_training(checkpoint, params, ("torch",), usage) | {"settings": complete(params.settings)}
        save_tensors(network.trained_tensors(codebook), output.trained, encode_metadata(provenance))
        curve.save(output.curve)

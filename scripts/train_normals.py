"""Train a network that predicts surface normals from the features of a model."""

import json

import numpy as np

from ssltransfer.datasets import Source, image_root
from ssltransfer.datasets.index import read_index
from ssltransfer.datasets.nyuv2 import read_code_words
from ssltransfer.device import choose_device
from ssltransfer.jobs import Cost, job, package_versions
from ssltransfer.protocols.dense.normals.dataset import NormalsDataset
from ssltransfer.protocols.dense.normals.ground_truth import make_codebook, open_normals
from ssltransfer.protocols.dense.normals.network import build_network
from ssltransfer.protocols.dense.normals.settings import NormalsSettings
from ssltransfer.protocols.dense.normals.training import train_network
from ssltransfer.results.score_file import decode
from ssltransfer.results.tensor_file import save_state
from ssltransfer.results.tensor_header import read_provenance
from ssltransfer.settings import complete, read_settings
from ssltransfer.training import resumable, run_key

with job(snakemake.log[0]):
    cost = Cost()
    params, output = snakemake.params, snakemake.output
    settings = read_settings(NormalsSettings, params.settings)
    config_path = f"protocols.{snakemake.wildcards.protocol}"
    device = choose_device()
    root = image_root(Source(*params.source), snakemake.resources.data_root, snakemake.input.index)
    index = read_index(snakemake.input.index)
    normals = open_normals(snakemake.input.normals, len(index))
    train = np.flatnonzero(index.split_array() == "train")
    codebook = make_codebook(settings, normals, train, lambda: read_code_words(root), config_path)
    label_images = index.extra.get("codes", ()) if settings.targets == "images" else ()
    dataset = NormalsDataset(root, index.image, normals, codebook, settings.sides.longest, label_images)
    checkpoint = read_provenance(snakemake.input.checkpoint)
    network = build_network(snakemake.input.checkpoint, params.arch, len(codebook), settings)
    with resumable(output.trained, run_key(params, checkpoint), config_path, workers=snakemake.threads - 1) as run:
        curve = train_network(network, dataset, train, settings, params.norm, run, device)
        about = {
            "checkpoint": json.dumps(decode(checkpoint)),
            "norm": params.norm,
            "settings": json.dumps(complete(params.settings)),
            "versions": json.dumps(package_versions("torch") | {"protocol": params.version}),
            "cost": json.dumps(cost.report()),
        }
        save_state(network.trained_tensors(codebook), output.trained, about)
        curve.save(output.curve)

"""Train a network that predicts surface normals from the features of a model."""

import json
import shutil
from pathlib import Path

import numpy as np

from ssltransfer.datasets import Source, image_root
from ssltransfer.datasets.index import read_index
from ssltransfer.datasets.nyuv2 import read_code_words
from ssltransfer.device import choose_device
from ssltransfer.jobs import JobUsage, job, package_versions, progress
from ssltransfer.protocols.dense.normals.frames import Frames
from ssltransfer.protocols.dense.normals.ground_truth import code_words, open_normals
from ssltransfer.protocols.dense.normals.network import build_network
from ssltransfer.protocols.dense.normals.training import train_network
from ssltransfer.results.score_file import decode
from ssltransfer.results.tensor_file import read_provenance, save_tensors
from ssltransfer.training import save_curve

with job(snakemake.log[0]):
    cost = JobUsage()
    settings, params = snakemake.params.settings, snakemake.params
    where = f"protocols.{snakemake.wildcards.protocol}"
    output = Path(snakemake.output.trained)
    part = output.with_name(f"{output.name}.part")
    device = choose_device()
    root = image_root(Source(*params.source), snakemake.resources.data_root, snakemake.input.index)
    index = read_index(snakemake.input.index)
    normals = open_normals(snakemake.input.normals, len(index))
    train = np.flatnonzero(index.split_array() == "train")
    words = code_words(settings, normals, train, lambda: read_code_words(root), where)
    codes = index.extra.get("codes", ()) if settings["targets"] == "images" else ()
    network = build_network(snakemake.input.checkpoint, params.arch, len(words), settings)
    key = json.dumps([params.arch, params.norm, params.version, read_provenance(snakemake.input.checkpoint)])
    interval, losses = train_network(
        network,
        Frames(root, index.image, normals, words, settings["sides"]["longest"], codes),
        train,
        settings,
        params.norm,
        part,
        key,
        where=where,
        workers=snakemake.threads - 1,
        device=device,
        progress=lambda batches, total: progress(batches, "steps", total),
    )
    provenance = {
        "checkpoint": json.dumps(decode(read_provenance(snakemake.input.checkpoint))),
        "norm": params.norm,
        "settings": json.dumps(settings),
        "versions": json.dumps(package_versions("torch") | {"protocol": params.version}),
        "cost": json.dumps(cost.report()),
    }
    save_tensors(network.learnt(words), output, provenance)
    save_curve(snakemake.output.curve, interval, losses)
    shutil.rmtree(part, ignore_errors=True)

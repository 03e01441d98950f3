"""Train a network that predicts the class of each pixel from the features of a model."""

import numpy as np

from ssltransfer.datasets.dataset import Dataset
from ssltransfer.device import choose_device
from ssltransfer.jobs import JobUsage, job
from ssltransfer.protocols.dense.segmentation.dataset import open_dataset
from ssltransfer.protocols.dense.segmentation.network import build_network
from ssltransfer.protocols.dense.segmentation.settings import SegmentationSettings
from ssltransfer.protocols.dense.segmentation.training import train_network
from ssltransfer.results.tensor_file import save_tensors
from ssltransfer.results.tensor_header import describe_training, encode_metadata, read_provenance
from ssltransfer.settings import complete, config_path, read_settings
from ssltransfer.training_state import resumable, run_key

with job(snakemake.log[0]):
    usage = JobUsage()
    params, output = snakemake.params, snakemake.output
    settings = read_settings(SegmentationSettings, params.settings)
    place = config_path(snakemake.wildcards)
    device = choose_device()
    source = Dataset(params.source, snakemake.resources.data_root, snakemake.input.index)
    dataset = open_dataset(source, snakemake.input.masks or None, settings.sides.longest)
    rows = np.flatnonzero(source.index.split_array() == "train")
    checkpoint = read_provenance(snakemake.input.checkpoint)
    network = build_network(snakemake.input.checkpoint, params.arch, len(dataset.classes), settings)
    with resumable(
        output.trained,
        run_key(params, checkpoint),
        place,
        workers=snakemake.threads - 1,
        save_seconds=snakemake.resources.save_seconds,
    ) as run:
        curve = train_network(network, dataset, rows, settings, params.norm, run, device)
        provenance = describe_training(checkpoint, params, ("torch",), usage) | {"settings": complete(params.settings)}
        save_tensors(network.trained.state_dict(), output.trained, encode_metadata(provenance))
        curve.save(output.curve)

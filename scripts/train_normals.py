"""Train a network that predicts surface normals from the features of a model."""

from ssltransfer.datasets.dataset import Dataset
from ssltransfer.device import choose_device
from ssltransfer.jobs import JobUsage, job
from ssltransfer.protocols.dense.normals.dataset import training_data
from ssltransfer.protocols.dense.normals.network import build_network, output_stride
from ssltransfer.protocols.dense.normals.settings import NormalsSettings
from ssltransfer.protocols.dense.normals.training import train_network
from ssltransfer.results.tensor_file import save_tensors
from ssltransfer.results.tensor_header import describe_training, encode_metadata, read_provenance
from ssltransfer.settings import complete, config_path, read_settings
from ssltransfer.training_state import resumable, run_key

with job(snakemake.log[0]):
    usage = JobUsage()
    params, output = snakemake.params, snakemake.output
    settings = read_settings(NormalsSettings, params.settings)
    place = config_path(snakemake.wildcards)
    device = choose_device()
    source = Dataset(params.source, snakemake.resources.data_root, snakemake.input.index)
    stride = output_stride(params.arch)
    dataset, rows = training_data(source, snakemake.input.normals, settings, place, stride)
    checkpoint = read_provenance(snakemake.input.checkpoint)
    network = build_network(snakemake.input.checkpoint, params.arch, len(dataset.codebook), settings)
    with resumable(
        output.trained,
        run_key(params, checkpoint),
        place,
        workers=snakemake.threads - 1,
        save_seconds=snakemake.resources.save_seconds,
    ) as run:
        curve = train_network(network, dataset, rows, settings, params.norm, run, device)
        provenance = describe_training(checkpoint, params, ("torch",), usage) | {"settings": complete(params.settings)}
        save_tensors(network.trained_tensors(dataset.codebook), output.trained, encode_metadata(provenance))
        curve.save(output.curve)

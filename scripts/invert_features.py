"""Reconstruct the images of a dataset from the features of a model."""

from ssltransfer.datasets.coverage import coverage
from ssltransfer.datasets.index import SPLITS, image_names, read_index
from ssltransfer.device import choose_device
from ssltransfer.jobs import JobUsage, job
from ssltransfer.models.backbone_file import load_backbone
from ssltransfer.models.fusion import freeze
from ssltransfer.protocols.inversion.inversion import choose_batch_size, invert
from ssltransfer.protocols.inversion.inverted_file import Inverted, save_inverted
from ssltransfer.protocols.inversion.settings import InversionSettings
from ssltransfer.results.tensor_header import describe_training, read_provenance
from ssltransfer.row_file import read_array
from ssltransfer.settings import config_path, read_settings
from ssltransfer.training_state import resumable, run_key

with job(snakemake.log[0]):
    usage = JobUsage()
    params, output = snakemake.params, snakemake.output
    device = choose_device()
    settings = read_settings(InversionSettings, params.settings)
    images = read_array(snakemake.input.images)
    index = read_index(snakemake.input.index)
    names = image_names(index)
    checkpoint = read_provenance(snakemake.input.checkpoint)
    backbone = freeze(load_backbone(snakemake.input.checkpoint, params.arch, size=images.shape[1]), device)
    batch_size = choose_batch_size(settings, device)
    key, place = run_key(params, checkpoint), config_path(snakemake.wildcards)
    with resumable(output.images, key, place, save_seconds=snakemake.resources.save_seconds) as run:
        found, curve = invert(backbone, images, names, params.norm, settings, device, run, batch_size)
        curve.save(output.curve)
        provenance = describe_training(checkpoint, params, ("torch", "numpy"), usage)
        provenance["settings"] = dict(params.settings)
        provenance["coverage"] = coverage(index, SPLITS)
        save_inverted(output.images, Inverted(found, names, provenance))

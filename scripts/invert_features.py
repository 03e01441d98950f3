"""Reconstruct the images of a dataset from the features of a model."""

import json

import numpy as np

from ssltransfer.datasets.coverage import coverage
from ssltransfer.datasets.index import SPLITS, image_names, read_index
from ssltransfer.device import choose_device
from ssltransfer.files import atomic_write
from ssltransfer.jobs import JobUsage, job, package_versions
from ssltransfer.models.backbone_file import load_backbone
from ssltransfer.models.fusion import fuse_conv_bn
from ssltransfer.protocols.inversion.inversion import choose_batch_size, invert
from ssltransfer.protocols.inversion.settings import InversionSettings
from ssltransfer.results.tensor_header import decode_metadata, read_provenance
from ssltransfer.row_file import read_array
from ssltransfer.settings import read_settings
from ssltransfer.training import resumable, run_key

with job(snakemake.log[0]):
    usage = JobUsage()
    params, output = snakemake.params, snakemake.output
    device = choose_device()
    settings = read_settings(InversionSettings, params.settings)
    images = read_array(snakemake.input.images)
    index = read_index(snakemake.input.index)
    names = image_names(index)
    checkpoint = read_provenance(snakemake.input.checkpoint)
    backbone = fuse_conv_bn(load_backbone(snakemake.input.checkpoint, params.arch), device)
    batch_size = choose_batch_size(settings, device)
    config_path = f"protocols.{snakemake.wildcards.protocol}"
    with resumable(output.images, run_key(params, checkpoint), config_path) as run:
        found, curve = invert(backbone, images, names, params.norm, settings, device, run, batch_size)
        curve.save(output.curve)
        about = {
            "checkpoint": decode_metadata(checkpoint),
            "norm": params.norm,
            "settings": dict(params.settings),
            "coverage": coverage(index, SPLITS),
            "versions": package_versions("torch", "numpy") | {"protocol": params.version},
            "cost": usage.report(),
        }
        with atomic_write(output.images) as temporary:
            np.savez(temporary, images=found, names=np.array(names), provenance=np.array(json.dumps(about)))

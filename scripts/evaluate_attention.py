"""Occlusion attention of a model on the images of a data set."""

import json
import shutil
from pathlib import Path

import numpy as np

from ssltransfer.datasets.index import image_names, read_index
from ssltransfer.device import choose_device
from ssltransfer.files import atomic_write
from ssltransfer.jobs import JobUsage, job, package_versions, progress
from ssltransfer.models.backbone_file import load_backbone
from ssltransfer.models.fusion import fuse_conv_bn
from ssltransfer.protocols.attention.occlusion import Occluder, Scan, attention_map, diffusion, overlay, scan_images
from ssltransfer.results import score_file
from ssltransfer.results.picture_file import save_pictures
from ssltransfer.results.tensor_file import read_provenance

with job(snakemake.log[0]):
    cost = JobUsage()
    params, output = snakemake.params, snakemake.output
    settings, part = params.settings, Path(f"{output.score}.part")
    device = choose_device(snakemake.threads)
    scan = Scan(settings["size"], settings["mask"], settings["stride"])
    options = {name: settings[name] for name in ("fill", "view", "feature")}
    names = image_names(read_index(snakemake.input.index))
    images = np.load(snakemake.input.images, allow_pickle=False)
    backbone = fuse_conv_bn(load_backbone(snakemake.input.checkpoint, params.arch), device)
    checkpoint = read_provenance(snakemake.input.checkpoint)
    key = json.dumps([params.arch, params.norm, params.version, checkpoint, dict(settings)])
    errors = scan_images(
        lambda image: Occluder(backbone, image, params.norm, scan, **options),
        images,
        part,
        key,
        16 if device.type == "cuda" else 8,
        lambda groups, total: progress(groups, "groups of masks", total),
    )
    maps = np.stack([attention_map(values, scan) for values in errors])
    values = [diffusion(attention) for attention in maps]
    approximation = f"approximation: masks in steps of {scan.stride}, not at every position"
    with atomic_write(output.maps) as temporary:
        np.savez(temporary, images=np.array(names), attention=maps.astype(np.float32))
    seen = images[:, scan.margin : scan.margin + scan.size, scan.margin : scan.margin + scan.size]
    coloured = np.stack([overlay(image, attention) for image, attention in zip(seen, maps, strict=True)])
    steps = "at every position" if scan.stride == 1 else f"in steps of {scan.stride} pixels, an approximation"
    save_pictures(
        output.pictures,
        names,
        {"image": seen},
        {"attention": coloured},
        f"Mask of {scan.mask} x {scan.mask} pixels {steps}, on images of {scan.size} pixels (centres of {scan.frame}).",
    )
    score_file.write(
        output.score,
        snakemake.wildcards,
        "attention",
        [score_file.percent("attentive-diffusion", float(np.mean(values)))],
        settings,
        checkpoint=score_file.decode(checkpoint),
        preprocessing={"transform": f"stretch{scan.frame}", "norm": params.norm},
        warnings=[approximation] if scan.stride > 1 else [],
        details={"masks": len(scan.starts) ** 2, "diffusion": dict(zip(names, values, strict=True))},
        versions=package_versions("torch", "numpy") | {"protocol": params.version},
        cost=cost.report(),
    )
    shutil.rmtree(part, ignore_errors=True)

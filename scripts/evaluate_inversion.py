"""Compare images reconstructed from the features of a model with the originals."""

import json
from pathlib import Path

import numpy as np

from ssltransfer.checkpoints.fetch import manifest_files
from ssltransfer.device import choose_device
from ssltransfer.files import read_json
from ssltransfer.jobs import JobUsage, job, package_versions
from ssltransfer.protocols.inversion import similarity
from ssltransfer.protocols.inversion.inversion import Inversion
from ssltransfer.results import score_file
from ssltransfer.results.picture_file import save_pictures
from ssltransfer.row_file import load_arrays

with job(snakemake.log[0]):
    cost = JobUsage()
    params, settings = snakemake.params, snakemake.params.settings
    device = choose_device(snakemake.threads)
    stored = load_arrays(snakemake.input.inverted, "inverted images")
    images, names = stored["images"], stored["names"].tolist()
    trained = json.loads(str(stored["provenance"]))
    pixels = np.load(snakemake.input.originals, allow_pickle=False)
    originals = pixels / 255
    found, warnings = {}, []
    if settings["steps"] < Inversion.steps:
        warnings.append(f"{settings['steps']} iterations, where the paper has {Inversion.steps}")
    if not settings["lpips"]:
        warnings.append("LPIPS is not measured: its networks would have to be downloaded")
    for trunk, path in zip(settings["lpips"], snakemake.input.get("trunks", []), strict=True):
        manifest = read_json(path)
        if reason := manifest.get("absent"):
            warnings.append(f"lpips-{trunk} is missing, its network cannot be had: {reason}")
            continue
        (weights,) = manifest_files(manifest, Path(f"resources/lpips/{trunk}"))
        found[f"lpips-{trunk}"] = "distance", similarity.Perceptual(trunk, weights, device)(images, originals)
    colours = similarity.colour_errors(images, originals)
    for channel, values in zip(("red", "green", "blue"), colours.T, strict=True):
        found[f"mse-{channel}"] = "levels^2", values
    found["psnr"] = "decibels", similarity.signal_to_noise(images, originals)
    found["ssim"] = "similarity", similarity.structural_similarity(images, originals)
    outputs = "a sigmoid" if settings["network"]["output"] == "sigmoid" else "clipping"
    save_pictures(
        snakemake.output.pictures,
        names,
        {"image": pixels},
        {"reconstruction": np.rint(255 * images).astype(np.uint8)},
        f"{settings['steps']} iterations, images of {pixels.shape[1]} pixels, bounded by {outputs}.",
    )
    score_file.write(
        snakemake.output.score,
        snakemake.wildcards,
        "inversion",
        [
            {"metric": metric, "setting": "", "value": float(values.mean()), "unit": unit}
            for metric, (unit, values) in found.items()
        ],
        settings,
        checkpoint=trained["checkpoint"],
        preprocessing={"transform": settings["transform"], "norm": trained["norm"]},
        warnings=warnings,
        details={
            "images": {
                name: {metric: float(values[row]) for metric, (_, values) in found.items()}
                for row, name in enumerate(names)
            },
            "training_cost": trained["cost"],
        },
        versions=score_file.join_versions(
            trained["versions"],
            package_versions("torch", "numpy", "scikit-image", "lpips") | {"protocol": params.version},
        ),
        cost=cost.report(),
    )

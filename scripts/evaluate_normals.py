"""Measure the angular errors of the predicted surface normals of a model."""

import csv

import numpy as np

from ssltransfer.datasets import Source, image_root
from ssltransfer.datasets.index import read_index
from ssltransfer.device import choose_device
from ssltransfer.files import atomic_write
from ssltransfer.jobs import JobUsage, job, package_versions, progress
from ssltransfer.protocols.dense.normals.angles import MEDIAN_TOLERANCE, THRESHOLDS
from ssltransfer.protocols.dense.normals.evaluation import draw, evaluate
from ssltransfer.protocols.dense.normals.frames import Frames
from ssltransfer.protocols.dense.normals.ground_truth import open_normals
from ssltransfer.protocols.dense.normals.network import load_network
from ssltransfer.protocols.dense.normals.pictures import CAPTION
from ssltransfer.protocols.dense.normals.training import EPOCHS
from ssltransfer.results import score_file
from ssltransfer.results.picture_file import save_pictures
from ssltransfer.results.tensor_file import read_provenance

with job(snakemake.log[0]):
    cost = JobUsage()
    settings, params = snakemake.params.settings, snakemake.params
    sides = settings["sides"]
    device = choose_device(snakemake.threads)
    root = image_root(Source(*params.source), snakemake.resources.data_root, snakemake.input.index)
    index = read_index(snakemake.input.index)
    network, words = load_network(snakemake.input.checkpoint, params.arch, snakemake.input.trained, settings)
    normals = open_normals(snakemake.input.normals, len(index))
    frames = Frames(root, index.image, normals, words, sides["longest"])
    test = np.flatnonzero(index.split_array() == "test")
    errors = evaluate(
        network,
        frames,
        test,
        sides["test"],
        params.norm,
        device,
        lambda batches, total: progress(batches, "batches", total),
    )
    shares = [f"within-{threshold:g}" for threshold in THRESHOLDS]
    with atomic_write(snakemake.output.images) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["image", "pixels", "mean-angle", "median-angle", *shares])
        for row, image in zip(test, errors.images, strict=True):
            known = [image["mean"], image["median"], *image["within"]] if image["pixels"] else [""] * (2 + len(shares))
            table.writerow([index.image[row], image["pixels"], *known])
    columns, reference, panels = draw(network, frames, test, sides["test"], params.norm, device)
    save_pictures(snakemake.output.pictures, columns, reference, panels, CAPTION)
    empty = sum(image["pixels"] == 0 for image in errors.images)
    trained, epochs = score_file.decode(read_provenance(snakemake.input.trained)), settings["schedule"]["epochs"]
    warnings = [f"{empty} of {len(test)} test images have no known normal"] if empty else []
    if epochs != EPOCHS:
        warnings.append(f"{epochs} epochs, where the paper has {EPOCHS}")
    score_file.write(
        snakemake.output.score,
        snakemake.wildcards,
        "normals",
        [
            {"metric": "mean-angle", "setting": "", "value": errors.mean(), "unit": "degrees"},
            {"metric": "median-angle", "setting": "", "value": errors.median(), "unit": "degrees"},
            *(score_file.percent(name, value) for name, value in zip(shares, errors.within(), strict=True)),
        ],
        settings,
        checkpoint=trained["checkpoint"],
        preprocessing={
            "shorter_side": sides["test"],
            "interpolation": "bilinear",
            "norm": params.norm,
            "normalisation": settings["normalisation"],
        },
        warnings=warnings,
        details={
            "images": {"train": index.split.count("train"), "test": len(test)},
            "pixels": errors.pixels,
            "empty_images": empty,
            "median_tolerance": MEDIAN_TOLERANCE,
            "training_cost": trained["cost"],
        },
        versions=score_file.join_versions(
            trained["versions"], package_versions("torch", "numpy") | {"protocol": params.version}
        ),
        cost=cost.report(),
    )

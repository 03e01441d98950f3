"""Extract the features of a dataset with a model."""

from pathlib import Path

from ssltransfer.datasets.dataset import Dataset
from ssltransfer.datasets.images import DecodedImages, parse_transform
from ssltransfer.device import choose_device
from ssltransfer.files import write_json
from ssltransfer.jobs import JobUsage, job, progress
from ssltransfer.models.backbone_file import load_backbone
from ssltransfer.models.features import describe_features, extract_features
from ssltransfer.row_file import ArrayFile

with job(snakemake.log[0]):
    usage = JobUsage()
    device = choose_device(snakemake.threads)
    params, wildcards = snakemake.params.features, snakemake.wildcards
    if prepared := snakemake.input.get("images"):
        images = ArrayFile(prepared)
    else:
        dataset = Dataset(params["source"], snakemake.resources.data_root, snakemake.input.index)
        images = DecodedImages(
            dataset.root, dataset.index.image, wildcards.transform, dataset.source.name, snakemake.threads
        )
    # Both are empty or begin with the dot that separates them in the name of the file.
    given = {key: wildcards[key].removeprefix(".") for key in ("pool", "precision")}
    side = parse_transform(wildcards.transform)[0]
    extract_features(
        load_backbone(snakemake.input.checkpoint, params["arch"], given["pool"], side),
        images,
        params.get("norm", wildcards.norm),
        Path(snakemake.output.features),
        device,
        given["precision"] or "float32",
        progress=lambda batches: progress(batches, "batches"),
    )
    if not prepared:
        images.warn_of_dark_images()
    cell = {key: wildcards[key] for key in ("model", "dataset", "transform", "norm")}
    cell |= {key: value for key, value in given.items() if value}
    record = describe_features(cell, len(images), snakemake.input.checkpoint, device, usage)
    write_json(snakemake.output.provenance, record)

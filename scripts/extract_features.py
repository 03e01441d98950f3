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
    pool, side = wildcards.get("pool", ""), parse_transform(wildcards.transform)[0]
    extract_features(
        load_backbone(snakemake.input.checkpoint, params["arch"], pool, side),
        images,
        params.get("norm", wildcards.norm),
        Path(snakemake.output.features),
        device,
        progress=lambda batches: progress(batches, "batches"),
    )
    if not prepared:
        images.warn_of_dark_images()
    record = describe_features(wildcards, len(images), snakemake.input.checkpoint, device, usage)
    write_json(snakemake.output.provenance, record)

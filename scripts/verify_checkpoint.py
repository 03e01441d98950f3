"""Measure a converted checkpoint on ImageNet with the linear classifier that its authors published."""

from pathlib import Path

from ssltransfer.checkpoints.convert import read_published
from ssltransfer.checkpoints.fetch import manifest_files
from ssltransfer.checkpoints.imagenet_head import imagenet_top1
from ssltransfer.checkpoints.torch_file import read_classifier
from ssltransfer.device import choose_device
from ssltransfer.errors import InputError
from ssltransfer.files import read_json, write_json
from ssltransfer.jobs import job, progress
from ssltransfer.models.backbone_file import load_backbone

with job(snakemake.log[0]):
    params = snakemake.params
    files = manifest_files(read_json(snakemake.input.manifest), Path(params.folder))
    if params.inside:
        head = read_published(files, params.format, params.arch).head
        if head is None:
            raise InputError(
                f"{snakemake.wildcards.model}: config/heads.tsv says inside, but the file holds no classifier"
            )
    else:
        head = read_classifier(files[0])
    top1, images = imagenet_top1(
        load_backbone(snakemake.input.checkpoint, params.arch),
        head,
        Path(snakemake.resources.imagenet_val),
        params.norm,
        choose_device(snakemake.threads),
        workers=snakemake.threads,
        progress=lambda batches: progress(batches, "batches"),
    )
    result = {"model": snakemake.wildcards.model, "top1": top1, "published": params.published, "images": images}
    write_json(snakemake.output.verification, result | {"difference": top1 - params.published})

"""Measure a converted checkpoint on ImageNet with the linear classifier that its authors published."""

from pathlib import Path

from ssltransfer.checkpoints.fetch import manifest_files, write_pin
from ssltransfer.checkpoints.imagenet_head import read_head, verify
from ssltransfer.device import choose_device
from ssltransfer.files import read_json, write_json
from ssltransfer.jobs import job, progress

with job(snakemake.log[0]):
    params, model = snakemake.params, snakemake.wildcards.model
    manifest = read_json(snakemake.input.manifest)
    files = manifest_files(manifest, Path(params.folder))
    result = verify(
        model,
        snakemake.input.checkpoint,
        params.arch,
        read_head(files, params.inside, manifest.get("format", params.format), params.arch, model),
        params.published,
        Path(snakemake.resources.imagenet_val),
        params.norm,
        choose_device(snakemake.threads),
        workers=snakemake.threads,
        progress=lambda batches: progress(batches, "batches"),
    )
    write_json(snakemake.output.verification, result)
    write_pin(manifest)

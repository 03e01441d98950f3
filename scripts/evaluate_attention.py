"""Measure the occlusion attention of a model on the images of a dataset."""

from ssltransfer.datasets.coverage import coverage
from ssltransfer.datasets.index import SPLITS, image_names, read_index
from ssltransfer.device import choose_device
from ssltransfer.jobs import JobUsage, job, network_packages, package_versions
from ssltransfer.models.backbone_file import load_backbone
from ssltransfer.models.fusion import freeze
from ssltransfer.protocols.attention.evaluation import (
    attention_maps,
    draw_attention,
    make_grid,
    measure_attention,
    save_maps,
)
from ssltransfer.protocols.attention.occlusion import input_side
from ssltransfer.protocols.attention.settings import AttentionSettings
from ssltransfer.results import score_file
from ssltransfer.results.picture_file import save_pictures
from ssltransfer.results.tensor_header import decode_metadata, read_provenance
from ssltransfer.row_file import read_array
from ssltransfer.settings import complete, config_path, read_settings, resume_settings
from ssltransfer.training_state import resumable, run_key

with job(snakemake.log[0]):
    usage = JobUsage()
    params, output = snakemake.params, snakemake.output
    settings = read_settings(AttentionSettings, params.settings)
    device = choose_device(snakemake.threads)
    index = read_index(snakemake.input.index)
    names = image_names(index)
    images = read_array(snakemake.input.images)
    # Another readout than the network's own stands behind its architecture.
    arch, pool = (params.arch, "") if isinstance(params.arch, str) else params.arch
    side = input_side(make_grid(settings), settings.view)
    backbone = freeze(load_backbone(snakemake.input.checkpoint, arch, pool, side), device)
    checkpoint = read_provenance(snakemake.input.checkpoint)
    described = decode_metadata(checkpoint) | ({"pool": pool} if pool else {})
    key = run_key(params, checkpoint, resume_settings("attention", settings))
    with resumable(output.score, key, config_path(snakemake.wildcards), label="groups of masks") as run:
        maps = attention_maps(backbone, images, params.norm, settings, device, run)
        save_maps(output.maps, maps, names)
        save_pictures(output.pictures, draw_attention(images, maps, names, settings))
        score_file.write(
            output.score,
            snakemake.wildcards,
            measure_attention(maps, names, described, params.norm, settings, coverage(index, SPLITS)),
            complete(params.settings),
            package_versions("torch", "numpy", *network_packages()) | {"protocol": params.version},
            usage.report(),
        )

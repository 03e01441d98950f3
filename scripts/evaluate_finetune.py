"""Many-shot finetuning of a model on a dataset."""

from ssltransfer.datasets.images import parse_transform, read_image
from ssltransfer.datasets.index import read_index
from ssltransfer.datasets.sources import Source, image_root
from ssltransfer.device import choose_device
from ssltransfer.jobs import JobUsage, job, network_packages, package_versions
from ssltransfer.models.backbone_file import load_backbone
from ssltransfer.protocols.finetune.evaluation import finetune_labels, measure_finetune
from ssltransfer.protocols.finetune.network import Classifier
from ssltransfer.protocols.finetune.settings import FinetuneSettings
from ssltransfer.protocols.finetune.training import FinetuneData, Finetuning
from ssltransfer.results import score_file
from ssltransfer.results.prediction_file import save_predictions
from ssltransfer.results.tensor_header import decode_metadata, read_provenance
from ssltransfer.settings import complete, config_path, read_settings
from ssltransfer.training_state import resumable, run_key

with job(snakemake.log[0]):
    usage = JobUsage()
    params, given, output, wildcards = snakemake.params, snakemake.input, snakemake.output, snakemake.wildcards
    settings = read_settings(FinetuneSettings, params.settings)
    device = choose_device()
    index = read_index(given.index)
    root = image_root(Source(*params.source), snakemake.resources.data_root, given.originals or given.index)
    data = FinetuneData(
        lambda row: read_image(root, index.image[row]),
        index.image,
        finetune_labels(index, settings),
        len(index.classes),
        params.norm,
    )
    # Another readout than the network's own stands behind its architecture.
    arch, pool = (params.arch, "") if isinstance(params.arch, str) else params.arch
    backbone = load_backbone(given.checkpoint, arch, pool, parse_transform(settings.transform)[0])
    checkpoint = read_provenance(given.checkpoint)
    key, place = run_key(params, checkpoint), config_path(wildcards)
    save_seconds = snakemake.resources.save_seconds
    with resumable(output.score, key, place, workers=snakemake.threads - 1, save_seconds=save_seconds) as run:
        network = Classifier(backbone, data.classes, settings.seed)
        finetuning = Finetuning(network, data, settings, run, device, snakemake.resources.mem_mb)
        described = decode_metadata(checkpoint) | ({"pool": pool} if pool else {})
        measurement, predictions = measure_finetune(finetuning, index, wildcards.dataset, params.metric, described)
        save_predictions(output.predictions, predictions)
        score_file.write(
            output.score,
            wildcards,
            measurement,
            complete(params.settings),
            package_versions("torch", "numpy", "pillow", *network_packages()) | {"protocol": params.version},
            usage.report(),
        )

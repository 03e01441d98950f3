"""Compare images reconstructed from the features of a model with the originals."""

from ssltransfer.device import choose_device
from ssltransfer.jobs import JobUsage, job, package_versions
from ssltransfer.protocols.inversion.evaluation import draw_inversion, measure_inversion
from ssltransfer.protocols.inversion.image_similarity import load_distances
from ssltransfer.protocols.inversion.inverted_file import load_inverted
from ssltransfer.protocols.inversion.settings import EvaluationSettings
from ssltransfer.results import score_file
from ssltransfer.results.picture_file import save_pictures
from ssltransfer.row_file import read_array
from ssltransfer.settings import complete, read_settings

with job(snakemake.log[0]):
    usage = JobUsage()
    params, output = snakemake.params, snakemake.output
    settings = read_settings(EvaluationSettings, params.settings)
    device = choose_device(snakemake.threads)
    inverted = load_inverted(snakemake.input.inverted)
    originals = read_array(snakemake.input.originals)
    distances, missing = load_distances(settings.lpips, snakemake.input.get("trunks", []), device)
    save_pictures(output.pictures, draw_inversion(inverted, originals, settings))
    versions = package_versions("torch", "numpy", "scikit-image", "lpips") | {"protocol": params.version}
    score_file.write(
        output.score,
        snakemake.wildcards,
        measure_inversion(inverted, originals, distances, missing, settings),
        complete(params.settings),
        score_file.join_versions(inverted.provenance["versions"], versions),
        usage.report(),
    )

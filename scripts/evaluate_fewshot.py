"""Few-shot evaluation of a model on a data set."""

from ssltransfer.datasets.index import read_index
from ssltransfer.errors import InputError
from ssltransfer.jobs import Cost, job, package_versions
from ssltransfer.models.feature_file import load_features
from ssltransfer.protocols.fewshot import evaluate_fewshot, possible_shots
from ssltransfer.results import score_file

with job(snakemake.log[0]):
    cost = Cost()
    settings = snakemake.params.settings
    index = read_index(snakemake.input.index)
    labels = index.label_array()
    episode = {key: settings[key] for key in ("queries", "ways")}
    shots, warnings = possible_shots(labels, settings["shots"], **episode)
    if not shots:
        raise InputError(f"{snakemake.wildcards.dataset}: {warnings[0]}; no shot is possible")
    provenance = score_file.feature_provenance(snakemake.input.features)
    features = {
        norm: load_features(path, len(index)) for norm, path in zip(provenance, snakemake.input.features, strict=True)
    }
    chosen = {}
    for shot in shots:
        results = {
            norm: evaluate_fewshot(
                features[norm],
                labels,
                snakemake.wildcards.dataset,
                shot,
                episodes=settings["episodes"],
                seed=settings["seed"],
                **episode,
            )
            for norm in features
        }
        norm = max(results, key=lambda norm: results[norm].accuracy)
        chosen[f"{shot}-shot"] = norm, results[norm]
    if settings["normalisation"] == "test-max":
        warnings.append(score_file.BIASED)
    norms = {setting: norm for setting, (norm, _) in chosen.items()}
    score_file.write(
        snakemake.output.score,
        snakemake.wildcards,
        "fewshot",
        [
            score_file.percent("accuracy", result.accuracy, setting, result.half_width)
            for setting, (_, result) in chosen.items()
        ],
        settings,
        checkpoint=score_file.checkpoint(provenance),
        preprocessing=score_file.preprocessing(
            settings, provenance, norms if len(set(norms.values())) > 1 else next(iter(norms.values()))
        ),
        warnings=warnings,
        details={"images": len(index), "classes": len(index.classes)},
        versions=package_versions("numpy") | {"protocol": snakemake.params.version},
        cost=cost.report(),
        episodes={
            setting: {"queries": result.queries, "correct": result.correct.tolist()}
            for setting, (_, result) in chosen.items()
        },
    )

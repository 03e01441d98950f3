"""Many-shot linear evaluation of a model on a data set."""

import numpy as np

from ssltransfer.datasets.index import read_index
from ssltransfer.datasets.splits import make_split
from ssltransfer.device import choose_arrays
from ssltransfer.files import atomic_write
from ssltransfer.jobs import JobUsage, job, package_versions
from ssltransfer.models.feature_file import load_features
from ssltransfer.protocols.linear.evaluation import evaluate_linear, lambda_grid
from ssltransfer.results import score_file

with job(snakemake.log[0]):
    cost = JobUsage()
    settings = snakemake.params.settings
    index = read_index(snakemake.input.index)
    labels = index.label_array(ignored="difficult" if settings["difficult"] == "ignore" else None)
    split = make_split(
        index.split_array(), settings["validation_fraction"], settings["seed"], snakemake.wildcards.dataset
    )
    arrays = choose_arrays()
    provenance = score_file.feature_provenance(snakemake.input.features)
    results = {
        norm: evaluate_linear(
            load_features(path, len(index)),
            labels,
            split,
            len(index.classes),
            snakemake.params.metric,
            lambda_grid(**settings["lambdas"]),
            settings["solver"],
            arrays,
        )
        for norm, path in zip(provenance, snakemake.input.features, strict=True)
    }
    by_test = settings["normalisation"] == "test-max"
    norm = max(results, key=lambda norm: results[norm].test if by_test else results[norm].validation)
    result = results[norm]
    warnings = [score_file.BIASED] if by_test else []
    for name, found in results.items():
        if found.missed:
            warnings.append(f"not converged under input normalisation {name}: {', '.join(found.missed)}")
    with atomic_write(snakemake.output.predictions) as temporary:
        np.savez(
            temporary,
            test_scores=result.test_scores.astype(np.float32),
            test_labels=labels[split.test],
            validation_scores=result.validation_scores.astype(np.float32),
            validation_labels=labels[split.val],
        )
    score_file.write(
        snakemake.output.score,
        snakemake.wildcards,
        "linear",
        [score_file.percent(snakemake.params.metric, result.test)],
        settings,
        checkpoint=score_file.checkpoint(provenance),
        preprocessing=score_file.preprocessing(settings, provenance, norm),
        warnings=warnings,
        details={
            "images": {"train": len(split.train), "val": len(split.val), "test": len(split.test)},
            "final_fit": {"gap": result.final.gap, "converged": result.final.converged},
        },
        versions=package_versions("numpy", "scipy", "scikit-learn", "torch") | {"protocol": snakemake.params.version},
        cost=cost.report(),
        selected={"lambda": result.penalty, "validation": result.validation},
        curve={norm: results[norm].curve for norm in results},
    )

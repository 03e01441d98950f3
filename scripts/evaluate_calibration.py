"""Calibration of the linear classifiers of a model on a data set."""

import numpy as np
from scipy.special import softmax

from ssltransfer.files import read_json
from ssltransfer.jobs import Cost, job, package_versions
from ssltransfer.protocols import calibration
from ssltransfer.results import score_file
from ssltransfer.row_file import load_arrays

with job(snakemake.log[0]):
    cost = Cost()
    settings = snakemake.params.settings
    stored = load_arrays(snakemake.input.predictions, "decision values")
    linear = read_json(snakemake.input.score)
    scores, labels = stored["test_scores"].astype(np.float64), stored["test_labels"]
    validation = stored["validation_scores"].astype(np.float64), stored["validation_labels"]
    probabilities = softmax(scores, axis=1)
    validated, temperature = calibration.validated_ece(scores, labels, *validation)
    likelihood = calibration.negative_log_likelihood(scores, labels)
    warnings = [f"of the classifiers: {warning}" for warning in linear["warnings"]]
    if not np.isfinite(likelihood):
        likelihood = None
        warnings.append(
            "the negative log-likelihood is infinite: some test images are of a class without training images"
        )
    diagram = calibration.reliability_diagram(probabilities, labels)
    score_file.write(
        snakemake.output.score,
        snakemake.wildcards,
        "calibration",
        [
            score_file.percent("ece", calibration.expected_calibration_error(probabilities, labels), "linear"),
            score_file.percent("ece", calibration.folded_ece(scores, labels, settings["seed"]), "linear-scaled"),
            score_file.percent("ece", validated, "linear-scaled-validation"),
        ],
        settings,
        checkpoint=linear["checkpoint"],
        preprocessing=linear["preprocessing"],
        warnings=warnings,
        details={
            "brier": calibration.brier_score(probabilities, labels),
            "negative_log_likelihood": likelihood,
            "temperature": temperature,
            "reliability": {
                "counts": diagram.counts.tolist(),
                "confidence": diagram.confidence.tolist(),
                "accuracy": diagram.accuracy.tolist(),
            },
        },
        versions=package_versions("numpy", "scipy") | {"protocol": snakemake.params.version},
        cost=cost.report(),
    )

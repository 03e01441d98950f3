# Needs: the decision values of a linear protocol, and its score, which says what they were computed from.
# Makes: results/scores/{protocol}/{model}/{dataset}.json with calibration errors of its classifiers.


rule evaluate_calibration:
    """Measure the calibration of the linear classifiers of a model on a data set."""
    input:
        predictions=lambda w: f"results/predictions/{SUITE.settings(w.protocol)['of']}/{w.model}/{w.dataset}.npz",
        score=lambda w: f"results/scores/{SUITE.settings(w.protocol)['of']}/{w.model}/{w.dataset}.json",
    output:
        "results/scores/{protocol}/{model}/{dataset}.json",
    log:
        "logs/evaluate_calibration/{protocol}/{model}/{dataset}.log",
    wildcard_constraints:
        protocol=names(protocols_of_kind("calibration")),
    conda:
        "../../envs/analysis.yaml"
    params:
        settings=lambda w: SUITE.settings(w.protocol),
        version=version("calibration"),
    script:
        "../../scripts/evaluate_calibration.py"

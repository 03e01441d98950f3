# Needs: the decision values of a linear, knn or finetune protocol, and its score, which says what they were computed from.
# Makes: results/scores/{protocol}/{model}/{dataset}.json with calibration errors of its classifiers.


rule evaluate_calibration:
    """Measure the calibration of the classifiers of a model on a dataset."""
    input:
        predictions=lambda w: f"results/predictions/{SUITE.settings(w.protocol)['of']}/{w.model}/{w.dataset}.npz",
        score=lambda w: f"results/scores/{SUITE.settings(w.protocol)['of']}/{w.model}/{w.dataset}.json",
    output:
        **OUTCOMES,
        score="results/scores/{protocol}/{model}/{dataset}.json",
    log:
        "logs/evaluate_calibration/{protocol}/{model}/{dataset}.log",
    wildcard_constraints:
        protocol=any_of(protocols_of_kind("calibration")),
    priority: FIRST
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=megabytes(2000),
        runtime=minutes(15),
    params:
        settings=protocol_settings,
        version=version("calibration"),
    script:
        "../../scripts/evaluate_calibration.py"

# Needs: the features of a dataset.
# Makes: results/scores/{protocol}/{model}/{dataset}.json of transferability estimators.


rule evaluate_estimators:
    """Compute transferability estimators from the features of the training images of a dataset."""
    input:
        index=index_file,
        features=feature_files,
        provenance=beside_features(feature_files),
    output:
        **OUTCOMES,
        score="results/scores/{protocol}/{model}/{dataset}.json",
    log:
        "logs/evaluate_estimators/{protocol}/{model}/{dataset}.log",
    wildcard_constraints:
        protocol=any_of(protocols_of_kind("estimators")),
    priority: FIRST
    conda:
        "../../envs/torch.yaml"
    resources:
        gpu=GPU_HERE,
        mem_mb=megabytes(4000, per_mb=3),
        runtime=minutes(30, per_mb=1 / 20, hours=hours_of("score")),
    params:
        settings=protocol_settings,
        metric=lambda w: SUITE.datasets[w.dataset]["metric"],
        version=version("estimators"),
    script:
        "../../scripts/evaluate_estimators.py"

# Needs: the features of a dataset under each input normalisation that the protocol evaluates.
# Makes: results/scores/{protocol}/{model}/{dataset}.json of the many-shot linear protocol, and the decision values.


rule evaluate_linear:
    """Fit and test linear classifiers on the features of a model on a dataset."""
    input:
        index=index_file,
        features=feature_files,
        provenance=beside_features(feature_files),
    output:
        **OUTCOMES,
        score="results/scores/{protocol}/{model}/{dataset}.json",
        predictions="results/predictions/{protocol}/{model}/{dataset}.npz",
    log:
        "logs/evaluate_linear/{protocol}/{model}/{dataset}.log",
    wildcard_constraints:
        protocol=any_of(protocols_of_kind("linear")),
    priority: FIRST
    conda:
        "../../envs/torch.yaml"
    resources:
        gpu=GPU_HERE,
        mem_mb=megabytes(4000, per_mb=6, limits=linear_memory),
        runtime=minutes(30, per_mb=1 / 2, repeats=validation_draws, hours=hours_of("score")),
    params:
        settings=protocol_settings,
        metric=lambda w: SUITE.datasets[w.dataset]["metric"],
        version=version("linear"),
    script:
        "../../scripts/evaluate_linear.py"

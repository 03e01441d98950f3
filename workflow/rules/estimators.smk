# Needs: the features of a dataset.
# Makes: results/scores/{protocol}/{model}/{dataset}.json of transferability estimators, and for each dataset of such a
# protocol results/similarity/{dataset}/{protocol}.{suite}.json, the similarities of the models of the suite. All pairs
# that were ever compared are in results/similarity/{dataset}/pairs.json, so that a new model costs its own pairs.


rule evaluate_estimators:
    """Compute transferability estimators from the features of the training images of a dataset."""
    input:
        index=index_file,
        features=feature_files,
    output:
        score="results/scores/{protocol}/{model}/{dataset}.json",
    log:
        "logs/evaluate_estimators/{protocol}/{model}/{dataset}.log",
    wildcard_constraints:
        protocol=any_of(protocols_of_kind("estimators")),
    conda:
        "../../envs/torch.yaml"
    resources:
        gpu=GPU_HERE,
        mem_mb=attempt_times(4000, per_mb=3),
        runtime=attempt_times(30, per_mb=1 / 20),
    params:
        settings=protocol_settings,
        metric=lambda w: SUITE.datasets[w.dataset]["metric"],
        version=version("estimators"),
    script:
        "../../scripts/evaluate_estimators.py"


rule compare_representations:
    """Compare the features of all models on the test images of a dataset."""
    input:
        index=index_file,
        features=features_to_compare,
    output:
        similarity="results/similarity/{dataset}/{protocol}.{suite}.json",
    log:
        "logs/compare_representations/{dataset}/{protocol}.{suite}.log",
    wildcard_constraints:
        protocol=any_of(protocols_of_kind("estimators")),
    conda:
        "../../envs/torch.yaml"
    resources:
        gpu=GPU_HERE,
        mem_mb=attempt_times(6000, per_mb=1),
        runtime=attempt_times(60, per_mb=1 / 20),
    params:
        features=compared_features,
        store=lambda w: f"results/similarity/{w.dataset}/pairs.json",
        version=version("representations"),
    script:
        "../../scripts/compare_representations.py"

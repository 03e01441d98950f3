# Needs: the features of a dataset, of two models or more.
# Makes: for each dataset of a protocol of estimators results/similarity/{dataset}/{protocol}.{suite}.json, the similarities
# of the models of the suite. All pairs that were ever compared are in results/similarity/{dataset}/pairs/{protocol}.json, so
# that a new model costs its own pairs.


rule compare_representations:
    """Compare the features of all models on the test images of a dataset."""
    input:
        index=index_file,
        features=features_to_compare,
        provenance=beside_features(features_to_compare),
    output:
        similarity="results/similarity/{dataset}/{protocol}.{suite}.json",
    log:
        "logs/compare_representations/{dataset}/{protocol}.{suite}.log",
    wildcard_constraints:
        protocol=any_of(protocols_of_kind("estimators")),
    priority: FIRST
    conda:
        "../../envs/torch.yaml"
    resources:
        gpu=GPU_HERE,
        mem_mb=megabytes(6000, per_mb=1),
        runtime=minutes(60, per_mb=1 / 20),
    params:
        features=lambda w: compared_features(w.protocol, w.dataset),
        scores=lambda w: compared_scores(w.protocol, w.dataset),
        store=lambda w: f"results/similarity/{w.dataset}/pairs/{w.protocol}.json",
        version=version("similarity"),
    script:
        "../../scripts/compare_representations.py"

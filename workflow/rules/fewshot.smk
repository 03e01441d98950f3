# Needs: the features of a dataset under each input normalisation that the protocol evaluates.
# Makes: results/scores/{protocol}/{model}/{dataset}.json of the few-shot protocol.


rule evaluate_fewshot:
    """Classify few-shot episodes on the features of a model on a dataset."""
    input:
        index=index_file,
        features=feature_files,
        provenance=beside_features(feature_files),
    output:
        **OUTCOMES,
        score="results/scores/{protocol}/{model}/{dataset}.json",
    log:
        "logs/evaluate_fewshot/{protocol}/{model}/{dataset}.log",
    wildcard_constraints:
        protocol=any_of(protocols_of_kind("fewshot")),
    priority: FIRST
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=megabytes(2000, per_mb=3),
        runtime=minutes(30, per_mb=1 / 4),
    params:
        settings=protocol_settings,
        version=version("fewshot"),
    script:
        "../../scripts/evaluate_fewshot.py"

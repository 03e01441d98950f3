# Needs: the features of a dataset, and the score of the many-shot linear protocol on it.
# Makes: results/scores/{protocol}/{model}/{dataset}.json of the label-efficiency protocol; for it, published lists of
# labelled images in results/subset-lists/.


rule fetch_subset_list:
    """Fetch and verify a published list of labelled images."""
    output:
        subset="results/subset-lists/{subset}.txt",
    log:
        "logs/fetch_subset_list/{subset}.log",
    wildcard_constraints:
        subset=any_of(SUBSET_LISTS),
    localrule: True
    conda:
        "../../envs/torch.yaml"
    params:
        folder="resources/subset-lists",
        sha256=lambda w: SUBSET_LISTS[w.subset].sha256,
    script:
        "../../scripts/fetch_subset_list.py"


rule evaluate_label_efficiency:
    """Fit and test classifiers on nested subsets of the labelled images of a dataset."""
    input:
        index=index_file,
        features=many_shot_features,
        provenance=beside_features(many_shot_features),
        lists=subset_lists,
        score=lambda w: f"results/scores/{SUITE.settings(w.protocol)['of']}/{w.model}/{w.dataset}.json",
    output:
        **OUTCOMES,
        score="results/scores/{protocol}/{model}/{dataset}.json",
    log:
        "logs/evaluate_label_efficiency/{protocol}/{model}/{dataset}.log",
    wildcard_constraints:
        protocol=any_of(protocols_of_kind("label-efficiency")),
    priority: FIRST
    conda:
        "../../envs/torch.yaml"
    resources:
        gpu=GPU_HERE,
        mem_mb=megabytes(4000, per_mb=6, limits=label_efficiency_memory),
        runtime=minutes(60, per_mb=1 / 2, hours=hours_of("score")),
    params:
        settings=protocol_settings,
        linear=lambda w: SUITE.job_settings(SUITE.settings(w.protocol)["of"], w.model),
        metric=lambda w: SUITE.datasets[w.dataset]["metric"],
        version=version("label-efficiency"),
    script:
        "../../scripts/evaluate_label_efficiency.py"

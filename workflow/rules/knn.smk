# Needs: the features of a dataset.
# Makes: results/neighbours/{model}/{dataset}/{features}.{similarity}{number}.npz, and from these neighbours
# results/scores/{protocol}/{model}/{dataset}.json of k-nearest-neighbour protocols, and their predictions. Another
# temperature, vote or number of neighbours takes the same neighbours.


rule find_neighbours:
    """Find the nearest training images of all test and validation images of a dataset."""
    input:
        index=index_file,
        features="results/features/{model}/{dataset}/{features}.npy",
        provenance=beside_features(lambda w: [f"results/features/{w.model}/{w.dataset}/{w.features}.npy"]),
    output:
        neighbours="results/neighbours/{model}/{dataset}/{features}.{similarity}{number}.npz",
    log:
        "logs/find_neighbours/{model}/{dataset}/{features}.{similarity}{number}.log",
    wildcard_constraints:
        features=r"[\w.-]+",
        similarity="cosine|euclidean",
        number=r"\d+",
    priority: FIRST
    conda:
        "../../envs/torch.yaml"
    resources:
        gpu=GPU_HERE,
        mem_mb=megabytes(4000),
        runtime=minutes(30, per_mb=1 / 40, hours=hours_of_neighbours),
    params:
        version=version("neighbours"),
    script:
        "../../scripts/find_neighbours.py"


rule evaluate_knn:
    """Classify the test images of a dataset by the votes of their nearest neighbours."""
    input:
        index=index_file,
        neighbours=neighbour_file,
    output:
        **OUTCOMES,
        score="results/scores/{protocol}/{model}/{dataset}.json",
        predictions="results/predictions/{protocol}/{model}/{dataset}.npz",
    log:
        "logs/evaluate_knn/{protocol}/{model}/{dataset}.log",
    wildcard_constraints:
        protocol=any_of(protocols_of_kind("knn")),
    priority: FIRST
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=megabytes(4000, per_mb=12),
        runtime=minutes(30),
    params:
        settings=protocol_settings,
        metric=lambda w: SUITE.datasets[w.dataset]["metric"],
        version=version("knn"),
    script:
        "../../scripts/evaluate_knn.py"

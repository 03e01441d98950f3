# Needs: the original data sets below data_root (none for the generated ones).
# Makes: results/datasets/{dataset}/index.parquet and {transform}.npy, decoded and resized once for all models.


def expected_counts(wildcards):
    row = SUITE.datasets[wildcards.dataset]
    return {count: row[count] for count in ("classes", "train", "val", "test")}


def index_params(wildcards):
    source = source_of(wildcards)
    return {
        "dataset": wildcards.dataset,
        "source": list(source),
        "counts": expected_counts(wildcards),
        "allow_subset": SUITE.config["allow_subset"],
        "versions": [version("index")]
        + ([version(source.name)] if source.kind != "column" else []),
    }


rule index_dataset:
    """Read the original layout of a data set into its index."""
    output:
        index="results/datasets/{dataset}/index.parquet",
    log:
        "logs/index_dataset/{dataset}.log",
    wildcard_constraints:
        dataset=names(datasets_of_kind("original")),
    conda:
        "../../envs/analysis.yaml"
    resources:
        # A resource and not a parameter: the same data elsewhere is no reason to run again.
        data_root=SUITE.config["data_root"],
    params:
        index=index_params,
    script:
        "../../scripts/index_dataset.py"


rule generate_dataset:
    """Generate a data set and its index."""
    output:
        index="results/datasets/{dataset}/index.parquet",
        originals="results/datasets/{dataset}/originals.npy",
    log:
        "logs/generate_dataset/{dataset}.log",
    wildcard_constraints:
        dataset=names(set(datasets_of_kind("generated")) - {"shapes"}),
    conda:
        "../../envs/analysis.yaml"
    params:
        index=index_params,
    script:
        "../../scripts/generate_dataset.py"


use rule generate_dataset as generate_shapes with:
    output:
        index="results/datasets/{dataset}/index.parquet",
        originals="results/datasets/{dataset}/originals.npy",
        normals="results/datasets/{dataset}/normals.npy",
    log:
        "logs/generate_shapes/{dataset}.log",
    wildcard_constraints:
        dataset=names({"shapes"} & set(SUITE.datasets)),


rule relabel_dataset:
    """Index the images of another data set under another column of its index."""
    input:
        lambda wildcards: f"results/datasets/{source_of(wildcards).name}/index.parquet",
    output:
        index="results/datasets/{dataset}/index.parquet",
    log:
        "logs/relabel_dataset/{dataset}.log",
    wildcard_constraints:
        dataset=names(datasets_of_kind("column")),
    conda:
        "../../envs/analysis.yaml"
    params:
        index=index_params,
    script:
        "../../scripts/relabel_dataset.py"


rule prepare_images:
    """Decode, resize and crop the images of a data set once for all models."""
    input:
        index=index_file,
    output:
        images="results/datasets/{dataset}/{transform}.npy",
    log:
        "logs/prepare_images/{dataset}/{transform}.log",
    conda:
        "../../envs/analysis.yaml"
    threads: 4
    resources:
        data_root=SUITE.config["data_root"],
    params:
        images=lambda w: {"source": list(source_of(w)), "version": version("images")},
    script:
        "../../scripts/prepare_images.py"

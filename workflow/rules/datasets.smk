# Needs: the original datasets and users' own images below data_root (nothing for the generated ones).
# Makes: results/datasets/{dataset}/index.parquet and {transform}.npy, decoded and resized once for all models.
# What is not below data_root is downloaded to resources/datasets, where that is possible.


rule obtain_dataset:
    """Find an original dataset below the data root, or download it."""
    output:
        record="results/originals/{original}.json",
    log:
        "logs/obtain_dataset/{original}.log",
    wildcard_constraints:
        original=any_of(ORIGINAL),
    # Compute nodes often have no way out to the internet.
    localrule: True
    conda:
        "../../envs/torch.yaml"
    resources:
        data_root=SUITE.config["data_root"],
    script:
        "../../scripts/obtain_dataset.py"


rule obtain_hub_dataset:
    """Download a dataset of the Hugging Face hub and unpack its images, as they are."""
    output:
        record="results/hub/{dataset}.json",
    log:
        "logs/obtain_hub_dataset/{dataset}.log",
    wildcard_constraints:
        dataset=any_of(datasets_of_kind("hf")),
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    resources:
        data_root=SUITE.config["data_root"],
    params:
        source=source_list,
    script:
        "../../scripts/obtain_hub_dataset.py"


rule index_dataset:
    """Read the original layout of a dataset, or a user's own images, into an index."""
    input:
        index_input,
    output:
        index="results/datasets/{dataset}/index.parquet",
    log:
        "logs/index_dataset/{dataset}.log",
    wildcard_constraints:
        dataset=any_of(d for kind in READ_KINDS for d in datasets_of_kind(kind)),
    localrule: not SHARED
    conda:
        "../../envs/analysis.yaml"
    # Only a pass over all images (on_error: skip) has work for more than one.
    threads: 4 if SUITE.config["on_error"] == "skip" else 1
    resources:
        # A resource and not a parameter: moving the data reruns nothing.
        data_root=SUITE.config["data_root"],
        # A pass over the original images.
        mem_mb=megabytes(4000),
        runtime=minutes(60),
    params:
        index=index_params,
    script:
        "../../scripts/index_dataset.py"


rule generate_dataset:
    """Generate a dataset and its index."""
    output:
        index="results/datasets/{dataset}/index.parquet",
        originals="results/datasets/{dataset}/originals.npy",
    log:
        "logs/generate_dataset/{dataset}.log",
    wildcard_constraints:
        dataset=any_of(set(datasets_of_kind("generated")) - set(datasets_of_source("generated:shapes"))),
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=megabytes(2000),
        runtime=minutes(15),
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
        dataset=any_of(datasets_of_source("generated:shapes")),


rule relabel_dataset:
    """Index the images of another dataset under another column of its index."""
    input:
        relabelled_index,
    output:
        index="results/datasets/{dataset}/index.parquet",
    log:
        "logs/relabel_dataset/{dataset}.log",
    wildcard_constraints:
        dataset=any_of(datasets_of_kind("column")),
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=megabytes(2000),
        runtime=minutes(15),
    params:
        index=index_params,
    script:
        "../../scripts/relabel_dataset.py"


rule sample_images:
    """Choose one image of each of several datasets."""
    input:
        indexes=sampled_indexes,
        originals=unless_shared(sampled_images),
    output:
        index="results/datasets/{dataset}/index.parquet",
        originals=directory("results/datasets/{dataset}/originals"),
    log:
        "logs/sample_images/{dataset}.log",
    wildcard_constraints:
        dataset=any_of(datasets_of_kind("one-of")),
    localrule: not SHARED
    conda:
        "../../envs/analysis.yaml"
    resources:
        data_root=SUITE.config["data_root"],
        mem_mb=megabytes(2000),
        runtime=minutes(15),
    params:
        index=sample_params,
    script:
        "../../scripts/sample_images.py"


rule prepare_images:
    """Decode, resize and crop the images of a dataset once for all models."""
    input:
        index=index_file,
        originals=unless_shared(generated_images),
    output:
        images="results/datasets/{dataset}/{transform}.npy",
    log:
        "logs/prepare_images/{dataset}/{transform}.log",
    priority: FIRST
    localrule: not SHARED
    conda:
        "../../envs/analysis.yaml"
    threads: 4
    resources:
        data_root=SUITE.config["data_root"],
        mem_mb=megabytes(4000),
        # The input is only an index, of some 20 bytes per image.
        runtime=minutes(30, per_mb=30, resumes=True),
    params:
        images=image_params,
    script:
        "../../scripts/prepare_images.py"

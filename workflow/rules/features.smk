# Needs: results/checkpoints/{model}.safetensors and results/datasets/{dataset}/{transform}.npy (with keep_images:
# false the original images, which are then decoded for each model).
# Or the arrays of a source features:FOLDER, for models without a network.
# Makes: results/features/{model}/{dataset}/{transform}.{norm}[.{pool}][.{precision}].npy, with {pool} for another readout
# than the network's own and {precision} for another one than float32, and beside it where they come from.


rule extract_features:
    """Extract the features of a dataset with a model."""
    input:
        unpack(feature_input),
        checkpoint="results/checkpoints/{model}.safetensors",
    output:
        features="results/features/{model}/{dataset}/{transform}.{norm}{pool}{precision}.npy",
        provenance="results/features/{model}/{dataset}/{transform}.{norm}{pool}{precision}.json",
    log:
        "logs/extract_features/{model}/{dataset}/{transform}.{norm}{pool}{precision}.log",
    wildcard_constraints:
        model=any_of(NETWORK_MODELS),
        pool=optional({row["pool"] for row in SUITE.models.values()} - {""}),
        precision=optional({"tf32", "bfloat16"}),
    priority: FIRST
    conda:
        "../../envs/torch.yaml"
    threads: feature_threads
    resources:
        gpu=GPU_HERE,
        data_root=SUITE.config["data_root"],
        mem_mb=megabytes(8000),
        runtime=minutes(30, per_mb=1 / 500, hours=hours_of_features),
    params:
        features=feature_params,
    script:
        "../../scripts/extract_features.py"


rule import_features:
    """Bring features that the user gives into the order of the index of their dataset."""
    input:
        index=index_file,
        given=given_features,
    output:
        features="results/features/{model}/{dataset}/{transform}.{norm}.npy",
        provenance="results/features/{model}/{dataset}/{transform}.{norm}.json",
    log:
        "logs/import_features/{model}/{dataset}/{transform}.{norm}.log",
    wildcard_constraints:
        model=any_of(set(SUITE.models) - set(NETWORK_MODELS)),
    priority: FIRST
    localrule: not SHARED
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=megabytes(2000, per_mb=4),
        runtime=minutes(10),
    params:
        features=given_params,
    script:
        "../../scripts/import_features.py"

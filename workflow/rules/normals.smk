# Needs: the converted checkpoint of a model, images with surface normals (results/datasets/{dataset}/normals.npy).
# Makes: results/trained/{protocol}/{model}/{dataset}.safetensors, the curve of its losses, and from it
# results/scores/{protocol}/{model}/{dataset}.json, the errors of each image and pictures.


rule prepare_normals:
    """Read the known surface normals of a dataset and the masks of valid pixels into one array."""
    input:
        index_file,
    output:
        normals="results/datasets/{dataset}/normals.npy",
    log:
        "logs/prepare_normals/{dataset}.log",
    wildcard_constraints:
        dataset=any_of(datasets_of_task("normals")),
    localrule: not SHARED
    conda:
        "../../envs/analysis.yaml"
    resources:
        data_root=SUITE.config["data_root"],
        # The official file is one pickle of 7 GB, unpacked in memory.
        mem_mb=megabytes(24000),
        runtime=minutes(60),
    params:
        normals=normals_params,
    script:
        "../../scripts/prepare_normals.py"


rule train_normals:
    """Train a network that predicts surface normals from the features of a model."""
    input:
        index=index_file,
        normals="results/datasets/{dataset}/normals.npy",
        originals=generated_images,
        checkpoint="results/checkpoints/{model}.safetensors",
    output:
        trained="results/trained/{protocol}/{model}/{dataset}.safetensors",
        curve="results/curves/{protocol}/{model}/{dataset}.json",
    log:
        "logs/train_normals/{protocol}/{model}/{dataset}.log",
    wildcard_constraints:
        protocol=any_of(protocols_of_kind("normals")),
    conda:
        "../../envs/torch.yaml"
    threads: training_threads
    resources:
        gpu=GPU_HERE,
        save_seconds=SUITE.config["save_seconds"],
        data_root=SUITE.config["data_root"],
        # Stopped by the limit, the next attempt goes on from the saved state.
        mem_mb=megabytes(16000),
        runtime=minutes(60, hours=hours_of("training"), resumes=True),
    params:
        settings=protocol_settings,
        arch=of_model("arch"),
        norm=evaluated_norm,
        source=source_list,
        version=version_with_network("normals-network"),
    script:
        "../../scripts/train_normals.py"


rule evaluate_normals:
    """Measure the angular errors of the predicted surface normals of a model."""
    input:
        index=index_file,
        normals="results/datasets/{dataset}/normals.npy",
        originals=generated_images,
        checkpoint="results/checkpoints/{model}.safetensors",
        trained="results/trained/{protocol}/{model}/{dataset}.safetensors",
    output:
        **OUTCOMES,
        score="results/scores/{protocol}/{model}/{dataset}.json",
        images="results/per-image/{protocol}/{model}/{dataset}.csv",
        pictures="results/pictures/{protocol}/{model}/{dataset}.npz",
    log:
        "logs/evaluate_normals/{protocol}/{model}/{dataset}.log",
    wildcard_constraints:
        protocol=any_of(protocols_of_kind("normals")),
    conda:
        "../../envs/torch.yaml"
    resources:
        gpu=GPU_HERE,
        data_root=SUITE.config["data_root"],
        mem_mb=megabytes(8000),
        runtime=minutes(30, hours=hours_of("test")),
    params:
        settings=protocol_settings,
        arch=of_model("arch"),
        norm=evaluated_norm,
        source=source_list,
        version=version_with_network("normals"),
    script:
        "../../scripts/evaluate_normals.py"

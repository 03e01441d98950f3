# Needs: the converted checkpoint of a model, images with surface normals (results/datasets/{dataset}/normals.npy).
# Makes: results/trained/{protocol}/{model}/{dataset}.safetensors, the curve of its losses, and from it
# results/scores/{protocol}/{model}/{dataset}.json, the errors of each image and pictures.


rule prepare_normals:
    """Read the known surface normals of a data set and the masks of valid pixels into one array."""
    input:
        index_file,
    output:
        "results/datasets/{dataset}/normals.npy",
    log:
        "logs/prepare_normals/{dataset}.log",
    wildcard_constraints:
        dataset=names(datasets_of_task("normals")),
    conda:
        "../../envs/analysis.yaml"
    resources:
        data_root=SUITE.config["data_root"],
    params:
        normals=normals_params,
    script:
        "../../scripts/prepare_normals.py"


rule train_normals:
    """Train a network that predicts surface normals from the features of a model."""
    input:
        unpack(normals_input),
        checkpoint="results/checkpoints/{model}.safetensors",
    output:
        trained="results/trained/{protocol}/{model}/{dataset}.safetensors",
        curve="results/curves/{protocol}/{model}/{dataset}.json",
    log:
        "logs/train_normals/{protocol}/{model}/{dataset}.log",
    wildcard_constraints:
        protocol=names(protocols_of_kind("normals")),
    conda:
        "../../envs/torch.yaml"
    # Threads beyond the first read images; training on a CPU takes one.
    threads: 8 if LOCAL_GPU else 1
    resources:
        gpu=LOCAL_GPU,
        data_root=SUITE.config["data_root"],
    params:
        settings=lambda w: SUITE.settings(w.protocol),
        arch=lambda w: SUITE.models[w.model]["arch"],
        norm=lambda w: SUITE.norms(w.protocol, w.model)[0],
        source=lambda w: list(source_of(w)),
        version=version("normals-network"),
    script:
        "../../scripts/train_normals.py"


rule evaluate_normals:
    """Measure the angular errors of the predicted surface normals of a model."""
    input:
        unpack(normals_input),
        checkpoint="results/checkpoints/{model}.safetensors",
        trained="results/trained/{protocol}/{model}/{dataset}.safetensors",
    output:
        score="results/scores/{protocol}/{model}/{dataset}.json",
        images="results/per-image/{protocol}/{model}/{dataset}.csv",
        pictures="results/pictures/{protocol}/{model}/{dataset}.npz",
    log:
        "logs/evaluate_normals/{protocol}/{model}/{dataset}.log",
    wildcard_constraints:
        protocol=names(protocols_of_kind("normals")),
    conda:
        "../../envs/torch.yaml"
    resources:
        gpu=LOCAL_GPU,
        data_root=SUITE.config["data_root"],
    params:
        settings=lambda w: SUITE.settings(w.protocol),
        arch=lambda w: SUITE.models[w.model]["arch"],
        norm=lambda w: SUITE.norms(w.protocol, w.model)[0],
        source=lambda w: list(source_of(w)),
        version=version("normals"),
    script:
        "../../scripts/evaluate_normals.py"

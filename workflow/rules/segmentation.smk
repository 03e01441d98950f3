# Needs: the converted checkpoint of a model, and an index that names the masks of the images (a generated dataset: an
# array of masks, results/datasets/{dataset}/masks.npy).
# Makes: results/trained/{protocol}/{model}/{dataset}.safetensors, the curve of its losses, and from it
# results/scores/{protocol}/{model}/{dataset}.json, the counts of pixels of each image and pictures.


rule draw_masks:
    """Draw the masks of a generated dataset."""
    output:
        masks="results/datasets/{dataset}/masks.npy",
    log:
        "logs/draw_masks/{dataset}.log",
    wildcard_constraints:
        dataset=any_of(datasets_of_source("generated:shapes")),
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=megabytes(2000),
        runtime=minutes(15),
    params:
        source=source_list,
        version=version("masks"),
    script:
        "../../scripts/draw_masks.py"


rule train_segmentation:
    """Train a network that predicts the class of each pixel from the features of a model."""
    input:
        index=index_file,
        masks=drawn_masks,
        originals=generated_images,
        checkpoint="results/checkpoints/{model}.safetensors",
    output:
        trained="results/trained/{protocol}/{model}/{dataset}.safetensors",
        curve="results/curves/{protocol}/{model}/{dataset}.json",
    log:
        "logs/train_segmentation/{protocol}/{model}/{dataset}.log",
    wildcard_constraints:
        protocol=any_of(protocols_of_kind("segmentation")),
    conda:
        "../../envs/torch.yaml"
    threads: training_threads
    resources:
        gpu=GPU_HERE,
        save_seconds=SUITE.config["save_seconds"],
        data_root=SUITE.config["data_root"],
        # Stopped by the limit, the next attempt goes on from the saved state.
        mem_mb=megabytes(24000),
        runtime=minutes(60, hours=hours_of("training"), resumes=True),
    params:
        settings=protocol_settings,
        arch=of_model("arch"),
        norm=evaluated_norm,
        source=source_list,
        version=version_with_network("segmentation-network"),
    script:
        "../../scripts/train_segmentation.py"


rule evaluate_segmentation:
    """Measure the mean intersection over union of the predicted classes of pixels of a model."""
    input:
        index=index_file,
        masks=drawn_masks,
        originals=generated_images,
        checkpoint="results/checkpoints/{model}.safetensors",
        trained="results/trained/{protocol}/{model}/{dataset}.safetensors",
    output:
        **OUTCOMES,
        score="results/scores/{protocol}/{model}/{dataset}.json",
        predictions="results/predictions/{protocol}/{model}/{dataset}.npz",
        images="results/per-image/{protocol}/{model}/{dataset}.csv",
        pictures="results/pictures/{protocol}/{model}/{dataset}.npz",
    log:
        "logs/evaluate_segmentation/{protocol}/{model}/{dataset}.log",
    wildcard_constraints:
        protocol=any_of(protocols_of_kind("segmentation")),
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
        version=version_with_network("segmentation"),
    script:
        "../../scripts/evaluate_segmentation.py"

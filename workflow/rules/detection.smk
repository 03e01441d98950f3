# Needs: results/checkpoints/{model}.safetensors, the index of a dataset with boxes, and its original images.
# Makes: results/trained/{protocol}/{model}/{dataset}.safetensors (the detector), its detections on the test images
# (results/predictions), its losses (results/curves); from the detections score and pictures.


rule train_detector:
    """Train a detector on a model's backbone and detect the objects of the test images."""
    input:
        index=index_file,
        originals=unless_shared(generated_images),
        checkpoint="results/checkpoints/{model}.safetensors",
    output:
        trained="results/trained/{protocol}/{model}/{dataset}.safetensors",
        predictions="results/predictions/{protocol}/{model}/{dataset}.npz",
        curve="results/curves/{protocol}/{model}/{dataset}.json",
    log:
        "logs/train_detector/{protocol}/{model}/{dataset}.log",
    wildcard_constraints:
        protocol=any_of(detection_protocols("torchvision")),
    conda:
        "../../envs/torch.yaml"
    threads: training_threads
    resources:
        gpu=GPU_HERE,
        save_seconds=SUITE.config["save_seconds"],
        data_root=SUITE.config["data_root"],
        # A ResNet-50 detector trains for hours; stopped by the limit, the next attempt goes on.
        mem_mb=megabytes(16000),
        runtime=minutes(60, hours=hours_of("training"), resumes=True),
    params:
        settings=protocol_settings,
        arch=of_model("arch"),
        norm=evaluated_norm,
        source=source_list,
        version=version_with_network("detection-network"),
    script:
        "../../scripts/train_detector.py"


use rule train_detector as train_detectron2 with:
    input:
        index=detectron2_index,
        originals=unless_shared(generated_images),
        checkpoint="results/checkpoints/{model}.safetensors",
    log:
        "logs/train_detectron2/{protocol}/{model}/{dataset}.log",
    wildcard_constraints:
        protocol=any_of(detection_protocols("detectron2")),
    conda:
        "../../envs/detectron2.yaml"


rule evaluate_detection:
    """Evaluate the detections of a model on a dataset."""
    input:
        index=index_file,
        originals=unless_shared(generated_images),
        predictions="results/predictions/{protocol}/{model}/{dataset}.npz",
        trained="results/trained/{protocol}/{model}/{dataset}.safetensors",
    output:
        **OUTCOMES,
        score="results/scores/{protocol}/{model}/{dataset}.json",
        pictures="results/pictures/{protocol}/{model}/{dataset}.npz",
    log:
        "logs/evaluate_detection/{protocol}/{model}/{dataset}.log",
    wildcard_constraints:
        protocol=any_of(protocols_of_kind("detection")),
    conda:
        "../../envs/analysis.yaml"
    resources:
        data_root=SUITE.config["data_root"],
        mem_mb=megabytes(3000),
        runtime=minutes(15),
    params:
        settings=protocol_settings,
        source=source_list,
        version=version("detection"),
    script:
        "../../scripts/evaluate_detection.py"

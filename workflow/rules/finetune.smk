# Needs: the converted checkpoint of a model, the index of a dataset, and its original images.
# Makes: results/scores/{protocol}/{model}/{dataset}.json of the many-shot finetune protocol, and the decision values.


rule evaluate_finetune:
    """Finetune a model on a dataset for all members of a grid, refit the selected one and test it."""
    input:
        index=index_file,
        originals=generated_images,
        checkpoint="results/checkpoints/{model}.safetensors",
    output:
        **OUTCOMES,
        score="results/scores/{protocol}/{model}/{dataset}.json",
        predictions="results/predictions/{protocol}/{model}/{dataset}.npz",
    log:
        "logs/evaluate_finetune/{protocol}/{model}/{dataset}.log",
    wildcard_constraints:
        protocol=any_of(protocols_of_kind("finetune")),
    conda:
        "../../envs/torch.yaml"
    threads: training_threads
    resources:
        gpu=GPU_HERE,
        save_seconds=SUITE.config["save_seconds"],
        data_root=SUITE.config["data_root"],
        # 41 runs of a ResNet-50 take hours; stopped by the limit, the next attempt goes on.
        mem_mb=megabytes(24000),
        runtime=minutes(60, hours=hours_of("score"), resumes=True),
    params:
        settings=protocol_settings,
        arch=network_with_readout,
        norm=evaluated_norm,
        source=image_source,
        metric=lambda w: SUITE.datasets[w.dataset]["metric"],
        version=version_with_network("finetune"),
    script:
        "../../scripts/evaluate_finetune.py"

# Needs: the images of a few-image dataset, resized to the frame that the masks slide over, and a backbone.
# Makes: results/scores/{protocol}/{model}/{dataset}.json of occlusion attention, its maps and pictures of them.


rule evaluate_attention:
    """Measure where occlusion changes the features of a model, on all images of a dataset."""
    input:
        index=index_file,
        images=attention_images,
        checkpoint="results/checkpoints/{model}.safetensors",
    output:
        **OUTCOMES,
        score="results/scores/{protocol}/{model}/{dataset}.json",
        maps="results/attention/{protocol}/{model}/{dataset}.npz",
        pictures="results/pictures/{protocol}/{model}/{dataset}.npz",
    log:
        "logs/evaluate_attention/{protocol}/{model}/{dataset}.log",
    wildcard_constraints:
        protocol=any_of(protocols_of_kind("attention")),
    conda:
        "../../envs/torch.yaml"
    # Keeps every image that is done; the next attempt goes on from there.
    resources:
        gpu=GPU_HERE,
        mem_mb=megabytes(8000),
        runtime=minutes(60, hours=hours_of("score"), resumes=True),
    params:
        settings=protocol_settings,
        arch=network_with_readout,
        norm=evaluated_norm,
        version=version_with_network("attention"),
    script:
        "../../scripts/evaluate_attention.py"

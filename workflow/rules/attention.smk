# Needs: the images of a few-image data set, resized to the frame that the masks slide over, and a backbone.
# Makes: results/scores/{protocol}/{model}/{dataset}.json of occlusion attention, its maps and pictures of them.


rule evaluate_attention:
    """Measure where occlusion changes the features of a model, on all images of a data set."""
    input:
        index=index_file,
        images=attention_images,
        checkpoint="results/checkpoints/{model}.safetensors",
    output:
        score="results/scores/{protocol}/{model}/{dataset}.json",
        maps="results/attention/{protocol}/{model}/{dataset}.npz",
        pictures="results/pictures/{protocol}/{model}/{dataset}.npz",
    log:
        "logs/evaluate_attention/{protocol}/{model}/{dataset}.log",
    wildcard_constraints:
        protocol=names(protocols_of_kind("attention")),
    conda:
        "../../envs/torch.yaml"
    resources:
        gpu=LOCAL_GPU,
    params:
        settings=lambda w: SUITE.settings(w.protocol),
        arch=lambda w: SUITE.models[w.model]["arch"],
        norm=lambda w: SUITE.norms(w.protocol, w.model)[0],
        version=version("attention"),
    script:
        "../../scripts/evaluate_attention.py"

# Needs: results/checkpoints/{model}.safetensors and results/datasets/{dataset}/{transform}.npy.
# Makes: results/features/{model}/{dataset}/{transform}.{norm}.npy, and beside it where they come from.


rule extract_features:
    """Extract the features of a data set with a model."""
    input:
        checkpoint="results/checkpoints/{model}.safetensors",
        images="results/datasets/{dataset}/{transform}.npy",
    output:
        features="results/features/{model}/{dataset}/{transform}.{norm}.npy",
        provenance="results/features/{model}/{dataset}/{transform}.{norm}.json",
    log:
        "logs/extract_features/{model}/{dataset}/{transform}.{norm}.log",
    conda:
        "../../envs/torch.yaml"
    resources:
        gpu=LOCAL_GPU,
    params:
        arch=lambda w: SUITE.models[w.model]["arch"],
        version=version("features"),
    script:
        "../../scripts/extract_features.py"

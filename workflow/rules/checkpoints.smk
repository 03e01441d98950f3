# Needs: the `source` of each model with published weights.
# Makes: results/checkpoints/{model}.safetensors.


rule fetch_checkpoint:
    """Fetch and verify the published weights of a model."""
    output:
        directory("resources/checkpoints/{model}"),
    log:
        "logs/fetch_checkpoint/{model}.log",
    wildcard_constraints:
        model=names(models_pretrained(here=False)),
    retries: 2
    conda:
        "../../envs/torch.yaml"
    params:
        source=lambda w: SUITE.models[w.model]["source"],
        sha256=lambda w: SUITE.models[w.model]["sha256"],
    script:
        "../../scripts/fetch_checkpoint.py"


rule convert_checkpoint:
    """Convert the published weights of a model to a plain ResNet backbone."""
    input:
        "resources/checkpoints/{model}",
    output:
        "results/checkpoints/{model}.safetensors",
    log:
        "logs/convert_checkpoint/{model}.log",
    wildcard_constraints:
        model=names(models_pretrained(here=False)),
    conda:
        "../../envs/torch.yaml"
    params:
        checkpoint=lambda w: {
            "arch": SUITE.models[w.model]["arch"],
            "format": SUITE.models[w.model]["format"],
            "source": SUITE.models[w.model]["source"],
            "version": version("checkpoints"),
        },
    script:
        "../../scripts/convert_checkpoint.py"

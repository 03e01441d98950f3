# Needs: the `source` of each model with published weights; imagenet_val for the head check.
# Makes: results/checkpoints/{model}.safetensors, and the table of the `checkpoints` target.
# Fetching runs where Snakemake runs (localrule): compute nodes often have no way out to the internet.


rule fetch_checkpoint:
    """Fetch and verify the published files of a model."""
    input:
        local_checkpoint_files,
    output:
        manifest="results/checkpoints/{model}.manifest.json",
    log:
        "logs/fetch_checkpoint/{model}.log",
    wildcard_constraints:
        model=any_of(PUBLISHED_MODELS),
    localrule: True
    conda:
        "../../envs/torch.yaml"
    resources:
        # A resource and not a parameter: another way to the same weights reruns nothing.
        alternatives=of_model("alternatives"),
    params:
        source=checkpoint_source,
        checksum=of_model("sha256"),
        # Not an output, so that Snakemake never deletes a download.
        folder="resources/checkpoints/{model}",
        pin="resources/checkpoint-pins/{model}.json",
    script:
        "../../scripts/fetch_checkpoint.py"


use rule fetch_checkpoint as fetch_head with:
    input:
        lambda w: present_files(HEADS[w.model]["source"]),
    output:
        manifest="results/heads/{model}.manifest.json",
    log:
        "logs/fetch_head/{model}.log",
    resources:
        alternatives="",
    params:
        source=head_source,
        checksum="",
        folder="resources/heads/{model}",
        pin="resources/checkpoint-pins/{model}-head.json",


rule convert_checkpoint:
    """Convert the published files of a model to a plain ResNet backbone."""
    input:
        manifest="results/checkpoints/{model}.manifest.json",
        # Snakemake does not look behind a manifest that is missing, as after a failed fetch.
        originals=local_checkpoint_files,
    output:
        checkpoint="results/checkpoints/{model}.safetensors",
    log:
        "logs/convert_checkpoint/{model}.log",
    wildcard_constraints:
        model=any_of(PUBLISHED_MODELS),
    localrule: not SHARED
    conda:
        "../../envs/torch.yaml"
    resources:
        mem_mb=megabytes(6000),
        runtime=minutes(15),
    params:
        checkpoint=conversion_params,
        folder="resources/checkpoints/{model}",
    script:
        "../../scripts/convert_checkpoint.py"


rule verify_checkpoint:
    """Measure a checkpoint on ImageNet with the classifier that its authors published."""
    input:
        checkpoint="results/checkpoints/{model}.safetensors",
        manifest=head_manifest,
    output:
        verification="results/verification/{model}.json",
    log:
        "logs/verify_checkpoint/{model}.log",
    priority: FIRST
    localrule: not SHARED
    conda:
        "../../envs/torch.yaml"
    threads: 4
    resources:
        gpu=GPU_HERE,
        mem_mb=megabytes(8000),
        runtime=minutes(60),
        imagenet_val=SUITE.config["imagenet_val"],
    params:
        inside=has_embedded_head,
        folder=head_folder,
        format=of_model("format"),
        arch=of_model("arch"),
        norm=of_model("norm"),
        published=lambda w: float(HEADS[w.model]["top1"]),
        version=version("verification"),
    script:
        "../../scripts/verify_checkpoint.py"


CHECKPOINTS = [f"results/checkpoints/{model}.safetensors" for model in NETWORK_MODELS]
VERIFICATIONS = [
    f"results/verification/{model}.json"
    for model in PUBLISHED_MODELS
    if model in HEADS and SUITE.config["imagenet_val"]
]


rule list_checkpoints:
    """List the converted checkpoints of the suite and what is known of each."""
    input:
        checkpoints=CHECKPOINTS,
        verifications=VERIFICATIONS,
    output:
        table="results/{suite}/checkpoints.tsv",
    log:
        "logs/list_checkpoints/{suite}.log",
    localrule: True
    conda:
        "../../envs/torch.yaml"
    params:
        heads=[model for model in PUBLISHED_MODELS if model in HEADS],
        version=version("checkpoints"),
    script:
        "../../scripts/list_checkpoints.py"


rule checkpoints:
    """Fetch, convert and list all checkpoints of the suite."""
    input:
        f"results/{SUITE.name}/checkpoints.tsv",
    conda:
        "../../envs/torch.yaml"

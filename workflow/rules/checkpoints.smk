# Needs: the `source` of each model with published weights; imagenet_val for the head check.
# Makes: results/checkpoints/{model}.safetensors, and the table of the `checkpoints` target.
# Fetching runs where Snakemake runs (localrule): compute nodes often have no way out to the internet.


rule fetch_checkpoint:
    """Fetch and verify the published files of a model."""
    input:
        lambda w: present_files(SUITE.models[w.model]["source"]),
    output:
        "results/checkpoints/{model}.manifest.json",
    log:
        "logs/fetch_checkpoint/{model}.log",
    wildcard_constraints:
        model=names(PUBLISHED_MODELS),
    localrule: True
    conda:
        "../../envs/torch.yaml"
    params:
        source=lambda w: SUITE.models[w.model]["source"],
        checksum=lambda w: SUITE.models[w.model]["sha256"],
        folder=files_folder,
        pin=lambda w: f"resources/checkpoint-pins/{w.model}.json",
    script:
        "../../scripts/fetch_checkpoint.py"


use rule fetch_checkpoint as fetch_head with:
    input:
        lambda w: present_files(HEADS[w.model]["source"]),
    output:
        "results/heads/{model}.manifest.json",
    log:
        "logs/fetch_head/{model}.log",
    params:
        source=lambda w: HEADS[w.model]["source"],
        checksum="",
        folder=lambda w: f"resources/heads/{w.model}",
        pin=lambda w: f"resources/checkpoint-pins/{w.model}-head.json",


rule convert_checkpoint:
    """Convert the published files of a model to a plain ResNet backbone."""
    input:
        manifest="results/checkpoints/{model}.manifest.json",
        # Snakemake does not look behind a manifest that is missing, as after a failed fetch.
        originals=lambda w: present_files(SUITE.models[w.model]["source"]),
    output:
        "results/checkpoints/{model}.safetensors",
    log:
        "logs/convert_checkpoint/{model}.log",
    wildcard_constraints:
        model=names(PUBLISHED_MODELS),
    conda:
        "../../envs/torch.yaml"
    params:
        checkpoint=lambda w: {
            "arch": SUITE.models[w.model]["arch"],
            "format": SUITE.models[w.model]["format"],
            "source": SUITE.models[w.model]["source"],
            "version": version("checkpoints"),
        },
        folder=files_folder,
    script:
        "../../scripts/convert_checkpoint.py"


rule verify_checkpoint:
    """Measure a checkpoint on ImageNet with the classifier that its authors published."""
    input:
        checkpoint="results/checkpoints/{model}.safetensors",
        manifest=lambda w: (f"results/{'checkpoints' if head_inside(w.model) else 'heads'}/{w.model}.manifest.json"),
    output:
        "results/verification/{model}.json",
    log:
        "logs/verify_checkpoint/{model}.log",
    conda:
        "../../envs/torch.yaml"
    threads: 4
    resources:
        gpu=LOCAL_GPU,
        imagenet_val=SUITE.config["imagenet_val"],
    params:
        inside=lambda w: head_inside(w.model),
        folder=lambda w: (files_folder(w) if head_inside(w.model) else f"resources/heads/{w.model}"),
        format=lambda w: SUITE.models[w.model]["format"],
        arch=lambda w: SUITE.models[w.model]["arch"],
        norm=lambda w: SUITE.models[w.model]["norm"],
        published=lambda w: float(HEADS[w.model]["top1"]),
        version=version("verification"),
    script:
        "../../scripts/verify_checkpoint.py"


CHECKPOINTS = [f"results/checkpoints/{model}.safetensors" for model in SUITE.models]
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
        "results/{suite}/checkpoints.tsv",
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

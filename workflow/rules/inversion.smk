# Needs: the images of a few-image data set and a backbone; for the LPIPS distances the networks under them.
# Makes: results/inverted/{protocol}/{model}/{dataset}.npz, the images reconstructed from features, with the curve of
# their losses, and from them the score and pictures.


rule invert_features:
    """Reconstruct the images of a data set from the features of a model."""
    input:
        index=index_file,
        images=inversion_images,
        checkpoint="results/checkpoints/{model}.safetensors",
    output:
        images="results/inverted/{protocol}/{model}/{dataset}.npz",
        curve="results/curves/{protocol}/{model}/{dataset}.json",
    log:
        "logs/invert_features/{protocol}/{model}/{dataset}.log",
    wildcard_constraints:
        protocol=names(protocols_of_kind("inversion")),
    conda:
        "../../envs/torch.yaml"
    resources:
        gpu=LOCAL_GPU,
    params:
        settings=lambda w: {k: v for k, v in SUITE.settings(w.protocol).items() if k != "lpips"},
        arch=lambda w: SUITE.models[w.model]["arch"],
        norm=lambda w: SUITE.norms(w.protocol, w.model)[0],
        version=version("inversion"),
    script:
        "../../scripts/invert_features.py"


rule fetch_trunk:
    """Fetch and verify the network under an LPIPS distance."""
    input:
        lambda w: present_files(trunk_source(w)),
    output:
        "results/lpips/{trunk}.json",
    log:
        "logs/fetch_trunk/{trunk}.log",
    wildcard_constraints:
        trunk=names(LPIPS_NETWORKS),
    localrule: True
    conda:
        "../../envs/torch.yaml"
    params:
        source=trunk_source,
        checksum=lambda w: LPIPS_NETWORKS[w.trunk].sha256,
        folder="resources/lpips/{trunk}",
        pin="resources/checkpoint-pins/lpips-{trunk}.json",
    script:
        "../../scripts/fetch_trunk.py"


rule evaluate_inversion:
    """Compare reconstructed images with the originals."""
    input:
        inverted="results/inverted/{protocol}/{model}/{dataset}.npz",
        originals=inversion_images,
        trunks=trunk_manifests,
    output:
        score="results/scores/{protocol}/{model}/{dataset}.json",
        pictures="results/pictures/{protocol}/{model}/{dataset}.npz",
    log:
        "logs/evaluate_inversion/{protocol}/{model}/{dataset}.log",
    wildcard_constraints:
        protocol=names(protocols_of_kind("inversion")),
    conda:
        "../../envs/torch.yaml"
    resources:
        gpu=LOCAL_GPU,
    params:
        settings=lambda w: SUITE.settings(w.protocol),
        version=version("similarity"),
    script:
        "../../scripts/evaluate_inversion.py"

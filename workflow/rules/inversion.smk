# Needs: the images of a few-image dataset and a backbone; for the LPIPS distances the networks under them.
# Makes: results/inverted/{protocol}/{model}/{dataset}.npz, the images reconstructed from features, with the curve of
# their losses, and from them the score and pictures.


rule invert_features:
    """Reconstruct the images of a dataset from the features of a model."""
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
        protocol=any_of(protocols_of_kind("inversion")),
    conda:
        "../../envs/torch.yaml"
    resources:
        gpu=GPU_HERE,
        save_seconds=SUITE.config["save_seconds"],
        # Stops with its state saved shortly before the time is over; the next attempt goes on from there.
        mem_mb=megabytes(8000),
        runtime=minutes(60, hours=hours_of("score"), resumes=True),
    params:
        settings=inversion_settings,
        arch=of_model("arch"),
        norm=evaluated_norm,
        version=version_with_network("inverted-images"),
    script:
        "../../scripts/invert_features.py"


rule fetch_lpips_network:
    """Fetch and verify the network under an LPIPS distance."""
    input:
        lambda w: present_files(lpips_source(w)),
    output:
        manifest="results/lpips/{network}.json",
    log:
        "logs/fetch_lpips_network/{network}.log",
    wildcard_constraints:
        network=any_of(LPIPS_NETWORKS),
    localrule: True
    conda:
        "../../envs/torch.yaml"
    params:
        source=lpips_source_with_state,
        checksum=lambda w: LPIPS_NETWORKS[w.network].sha256,
        folder="resources/lpips/{network}",
        pin="resources/checkpoint-pins/lpips-{network}.json",
    script:
        "../../scripts/fetch_lpips_network.py"


rule evaluate_inversion:
    """Compare reconstructed images with the originals."""
    input:
        inverted="results/inverted/{protocol}/{model}/{dataset}.npz",
        originals=inversion_images,
        trunks=lpips_manifests,
    output:
        **OUTCOMES,
        score="results/scores/{protocol}/{model}/{dataset}.json",
        pictures="results/pictures/{protocol}/{model}/{dataset}.npz",
    log:
        "logs/evaluate_inversion/{protocol}/{model}/{dataset}.log",
    wildcard_constraints:
        protocol=any_of(protocols_of_kind("inversion")),
    # The networks of the distances are downloads.
    localrule: not SHARED
    conda:
        "../../envs/torch.yaml"
    resources:
        gpu=GPU_HERE,
        mem_mb=megabytes(8000),
        runtime=minutes(30),
    params:
        settings=protocol_settings,
        version=version("inversion"),
    script:
        "../../scripts/evaluate_inversion.py"

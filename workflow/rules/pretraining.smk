# Needs: the images of the recipe's dataset (config/pretraining.yaml).
# Makes: results/checkpoints/{model}.safetensors for models with source pretrain:RECIPE.


rule pretrain_model:
    """Pretrain a model from scratch."""
    input:
        unpack(recipe_files),
    output:
        checkpoint="results/checkpoints/{model}.safetensors",
    log:
        "logs/pretrain_model/{model}.log",
    wildcard_constraints:
        model=any_of(models_pretrained(here=True)),
    # Above the protocols in the queue: all of a model's other jobs wait for it.
    priority: 10
    conda:
        "../../envs/torch.yaml"
    resources:
        gpu=GPU_HERE,
        save_seconds=SUITE.config["save_seconds"],
        # Stops with its state saved shortly before the time is over; the next attempt goes on from there.
        mem_mb=megabytes(6000, per_mb=1 / 4),
        runtime=minutes(60, hours=hours_to_pretrain, resumes=True),
    params:
        recipe_name=lambda w: SUITE.models[w.model]["source"].removeprefix("pretrain:"),
        recipe=lambda w: job_recipe(SUITE.recipe(w.model)),
        arch=of_model("arch"),
        norm=lambda w: SUITE.input_norms[SUITE.models[w.model]["norm"]],
        version=version_with_network("pretraining"),
    script:
        "../../scripts/pretrain_model.py"

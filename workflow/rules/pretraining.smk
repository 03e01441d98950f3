# Needs: the images of the recipe's data set (config/pretraining.yaml).
# Makes: results/checkpoints/{model}.safetensors for models with source pretrain:RECIPE.


rule pretrain_model:
    """Pretrain a model from scratch."""
    input:
        unpack(recipe_files),
    output:
        "results/checkpoints/{model}.safetensors",
    log:
        "logs/pretrain_model/{model}.log",
    wildcard_constraints:
        model=names(models_pretrained(here=True)),
    # Above the protocols in the queue: all of a model's other jobs wait for it.
    priority: 10
    conda:
        "../../envs/torch.yaml"
    resources:
        gpu=LOCAL_GPU,
    params:
        recipe_name=lambda w: SUITE.models[w.model]["source"].removeprefix("pretrain:"),
        recipe=lambda w: SUITE.recipe(w.model),
        arch=lambda w: SUITE.models[w.model]["arch"],
        norm=lambda w: SUITE.models[w.model]["norm"],
        version=version("pretraining"),
    script:
        "../../scripts/pretrain_model.py"

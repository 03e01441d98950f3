# Needs: common.smk.
# Makes: input and parameter functions of single rule files; Snakemake's linter forbids functions among rules.
from ssltransfer.checkpoints.sources import given_file, source_with_state
from ssltransfer.config.dataset_rows import COUNTS
from ssltransfer.datasets import location, parse_members
from ssltransfer.files import file_state
from ssltransfer.models.user_code import code_hash
from ssltransfer.protocols.inversion.lpips_networks import LPIPS_NETWORKS
from ssltransfer.protocols.label_efficiency.subset_lists import SUBSET_LISTS
from ssltransfer.protocols.knn.settings import SIMILARITY, stored_neighbours

# datasets.smk


def expected_counts(wildcards):
    """Expected counts from the table of datasets, without empty cells."""
    row = SUITE.datasets[wildcards.dataset]
    return {count: row[count] for count in COUNTS if row[count] is not None}


def index_params(wildcards):
    """What an index depends on, beside the data."""
    source = source_of(wildcards)
    return {
        "dataset": wildcards.dataset,
        "task": SUITE.datasets[wildcards.dataset]["task"],
        "source": list(source),
        "counts": expected_counts(wildcards),
        "allow_subset": SUITE.config["allow_subset"],
        "on_error": SUITE.config["on_error"],
        "versions": [version("index")] + ([version(source.indexer)] if source.kind != "column" else []),
    } | table_state(wildcards)


def table_state(wildcards):
    """Size and time of a user's table, so that one replaced by an older file is noticed as well.

    Left out where the index is of release 0.1.0, which left no record that its params held them.
    """
    source, folder = source_of(wildcards), Path(f"results/datasets/{wildcards.dataset}")
    table = location(source, SUITE.config["data_root"])
    known = (folder / "table.json").exists() or not (folder / "index.parquet").exists()
    return {"table": file_state(table)} if source.kind == "csv" and table.is_file() and known else {}


def index_input(wildcards):
    """The record of an original dataset, or a user's table (so that changes are noticed)."""
    source = source_of(wildcards)
    if source.kind == "original":
        return f"results/originals/{source.name}.json"
    if source.kind == "hf":
        return f"results/hub/{wildcards.dataset}.json"
    table = location(source, SUITE.config["data_root"])
    return local(str(table)) if source.kind == "csv" and table.exists() else []


def relabelled_index(wildcards):
    return f"results/datasets/{source_of(wildcards).name}/index.parquet"


def sampled_datasets(wildcards):
    """The datasets that the images of a one-of dataset are chosen from."""
    return [member.dataset for member in parse_members(source_of(wildcards).name)[0]]


def sampled_indexes(wildcards):
    return [f"results/datasets/{name}/index.parquet" for name in sampled_datasets(wildcards)]


def sampled_images(wildcards):
    return [image for name in sampled_datasets(wildcards) if (image := images_made_of(name))]


def sample_params(wildcards):
    """As `index_params`, with the sources of the datasets that are chosen from."""
    sources = [list(parse_dataset_source(SUITE.datasets[name]["source"])) for name in sampled_datasets(wildcards)]
    return index_params(wildcards) | {"sources": sources, "images": version("images")}


def image_params(wildcards):
    """What prepared images depend on, beside the index."""
    return {"source": source_list(wildcards), "version": version("images")}


# checkpoints.smk


def local_checkpoint_files(wildcards):
    return present_files(SUITE.models[wildcards.model]["source"])


def checkpoint_source(wildcards):
    manifest = f"results/checkpoints/{wildcards.model}.manifest.json"
    return source_with_state(SUITE.models[wildcards.model]["source"], manifest)


def head_source(wildcards):
    return source_with_state(HEADS[wildcards.model]["source"], f"results/heads/{wildcards.model}.manifest.json")


def conversion_params(wildcards):
    """What a converted checkpoint depends on, beside its files."""
    row = SUITE.models[wildcards.model]
    params = {key: row[key] for key in ("arch", "format", "source")} | {"version": version("checkpoints")}
    kind, _, name = row["arch"].partition(":")
    if kind == "python":
        params |= {"pool": row["pool"], "size": row["size"], "code": code_hash(name)}
    return params


def has_embedded_head(wildcards):
    """Whether the model's own file holds the classifier."""
    return HEADS[wildcards.model]["source"] == "inside"


def head_manifest(wildcards):
    return f"results/{'checkpoints' if has_embedded_head(wildcards) else 'heads'}/{wildcards.model}.manifest.json"


def head_folder(wildcards):
    return f"resources/{'checkpoints' if has_embedded_head(wildcards) else 'heads'}/{wildcards.model}"


# pretraining.smk


def recipe_files(wildcards):
    """Index and images that a recipe trains on."""
    recipe = SUITE.recipe(wildcards.model)
    if recipe["method"] == "none":
        return {}
    folder = f"results/datasets/{recipe['dataset']}"
    images = f"results/datasets/{SUITE.image_dataset(recipe['dataset'])}"
    return {
        "index": f"{folder}/index.parquet",
        "images": f"{images}/{recipe['transform']}.npy",
    }


def hours_to_pretrain(wildcards, gpu):
    return pretraining_hours(SUITE, wildcards.model, gpu)


# features.smk


def feature_input(wildcards):
    """The prepared images, or with keep_images: false the index of the original ones."""
    folder = f"results/datasets/{wildcards.dataset}"
    if SUITE.config["keep_images"]:
        return {"images": f"{folder}/{wildcards.transform}.npy"}
    return {"index": f"{folder}/index.parquet", "originals": unless_shared(generated_images)(wildcards)}


def feature_threads(wildcards):
    """The cores that each model of the suite can have; on a GPU, at most its share of them.

    Where no images are kept, several are decoded at a time, by all cores that a GPU can have.
    """
    each = max(1, (workflow.resource_settings.cores or 1) // len(SUITE.models))
    if SUITE.config["keep_images"]:
        return min(each, cores_per_gpu())
    return cores_per_gpu() if GPU_JOBS else max(4, each)


def feature_params(wildcards):
    """What features depend on, beside their inputs."""
    params = {
        "arch": SUITE.models[wildcards.model]["arch"],
        "versions": [version("features")],
    }
    norm = SUITE.input_norms[wildcards.norm]
    if norm != wildcards.norm:
        params["norm"] = norm
    if params["arch"].startswith(("timm:", "torchvision:")):
        params["versions"].append(version("timm"))
    if not SUITE.config["keep_images"]:
        params["source"] = source_list(wildcards)
        params["versions"].append(version("images"))
    return params


def hours_of_neighbours(wildcards, gpu):
    return neighbour_hours(SUITE, wildcards.model, wildcards.dataset, gpu)


def hours_of_features(wildcards, gpu):
    return feature_hours(SUITE, wildcards.model, wildcards.dataset, wildcards.transform, gpu)


def given_features(wildcards):
    """The file of features that the user gives for a dataset; the job reports a missing one."""
    path = given_file(SUITE.models[wildcards.model]["source"], wildcards.dataset)
    return local(str(path)) if path.is_file() else []


def given_params(wildcards):
    """What imported features depend on; with the state of the file, a replacement by an older one is noticed as well."""
    path = given_features(wildcards)
    params = {"source": SUITE.models[wildcards.model]["source"], "version": version("given-features")}
    return params | ({"state": file_state(path)} if path else {})


# linear.smk


def validation_draws(wildcards):
    """How often a linear job fits the whole path: for each draw of the validation part."""
    return SUITE.settings(wildcards.protocol)["validation_draws"]


def linear_memory(wildcards):
    """Megabytes that a linear job needs at least and at most.

    At least 12 bytes for each training image and class (one array of logits in float64, one of probabilities in float32), 4
    more where an image may show several classes (three arrays of labels in int8 and their selection), and 8 for each image of
    the validation and the test part, under each input normalisation. At most 16 GB for features, which are streamed if they
    are large, but by the official solver, which is scikit-learn's.
    """
    settings, row = SUITE.settings(wildcards.protocol), SUITE.datasets[wildcards.dataset]
    if settings["solver"] != "converged":
        return 0, float("inf")
    train, validation, test, classes = (row[count] or 0 for count in ("train", "val", "test", "classes"))
    scored = test + (validation or settings["validation_fraction"] * train)
    each = 16 if row["task"] == "multi-label" else 12
    norms = len(SUITE.norms(wildcards.protocol, wildcards.model))
    least = 4000 + int(classes * (each * (train + validation) + 8 * norms * scored) / 1e6)
    return least, max(least, 16_000)


# knn.smk


def neighbour_file(wildcards):
    """The neighbours that a vote is over, found among the features of the dataset whose images it has."""
    settings, (features,) = SUITE.settings(wildcards.protocol), map(Path, feature_files(wildcards))
    similarity, count = SIMILARITY[settings["vote"]], stored_neighbours(settings["neighbours"])
    return f"results/neighbours/{'/'.join(features.parts[-3:-1])}/{features.stem}.{similarity}{count}.npz"


# similarity.smk


def compared_features(protocol, dataset):
    """Model -> the features that it is compared by."""
    models = SUITE.models_of(protocol) if dataset in SUITE.config["tasks"].get(protocol, ()) else []
    return {model: SUITE.feature_files(Cell(protocol, model, dataset))[0] for model in models}


def compared_scores(protocol, dataset):
    """Model -> its score of the protocol that compares it."""
    return {model: score_file(Cell(protocol, model, dataset)) for model in compared_features(protocol, dataset)}


def features_to_compare(wildcards):
    """Features that exist, or that this run makes for a score; those of an old score may have been deleted."""
    models = compared_features(wildcards.protocol, wildcards.dataset)
    scores = compared_scores(wildcards.protocol, wildcards.dataset)
    made = [] if SUITE.config["available"] else [model for model in models if not Path(scores[model]).exists()]
    return [path for model, path in models.items() if model in made or Path(path).exists()]


# label_efficiency.smk


def many_shot_features(wildcards):
    """The features of the many-shot protocol that a label-efficiency protocol names."""
    return SUITE.feature_files(Cell(SUITE.settings(wildcards.protocol)["of"], wildcards.model, wildcards.dataset))


def label_efficiency_memory(wildcards):
    """Megabytes that a label-efficiency job needs at least and at most.

    At least 12 bytes for each image of the folds of the largest subset and each class, as a linear job for its training
    images, and 16 for each test image and class. At most 4 GB more, or 16 GB: features of the folds are streamed if they are
    large.
    """
    settings, row = SUITE.settings(wildcards.protocol), SUITE.datasets[wildcards.dataset]
    train, validation, test, classes = (row[count] or 0 for count in ("train", "val", "test", "classes"))
    percent = [*settings["percent"], *(int(name.split("-")[1]) for name in settings["lists"]), 0]
    images = max(max(percent) / 100 * (train + validation), *(n * classes for n in settings["images_per_class"]))
    in_folds = 4 * min(images, train + validation)  # five folds of four fifths
    least = 4000 + int(classes * (12 * in_folds + 16 * test) / 1e6)
    return least, max(least + 4000, 16_000)


def subset_lists(wildcards):
    """The published lists of labelled images that a label-efficiency protocol names."""
    return [f"results/subset-lists/{name}.txt" for name in SUITE.settings(wildcards.protocol)["lists"]]


# finetune.smk


def image_source(wildcards):
    """The source of the images, which is another dataset's where a dataset relabels it."""
    return list(parse_dataset_source(SUITE.datasets[SUITE.image_dataset(wildcards.dataset)]["source"]))


# inversion.smk, attention.smk and finetune.smk


def inversion_images(wildcards):
    transform = SUITE.settings(wildcards.protocol, wildcards.model)["transform"]
    return f"results/datasets/{wildcards.dataset}/{transform}.npy"


def inversion_settings(wildcards):
    """The settings of a reconstruction; the choice of distances does not affect it."""
    return {key: value for key, value in protocol_settings(wildcards).items() if key != "lpips"}


def lpips_manifests(wildcards):
    """Manifests of the networks of a protocol's LPIPS distances."""
    return [f"results/lpips/{network}.json" for network in SUITE.settings(wildcards.protocol)["lpips"]]


def lpips_source(wildcards):
    return SUITE.config["lpips_trunks"].get(wildcards.network, LPIPS_NETWORKS[wildcards.network].source)


def lpips_source_with_state(wildcards):
    return source_with_state(lpips_source(wildcards), f"results/lpips/{wildcards.network}.json")


def network_with_readout(wildcards):
    """The architecture of a model; where it is read out in another way than its own, both."""
    row = SUITE.models[wildcards.model]
    return [row["arch"], row["pool"]] if row["pool"] else row["arch"]


def attention_images(wildcards):
    """The images in the square frame that the masks of an attention protocol slide over."""
    settings = SUITE.settings(wildcards.protocol)
    frame = settings["size"] + 2 * (settings["mask"] - 1)
    return f"results/datasets/{wildcards.dataset}/stretch{frame}.npy"


# detection.smk


def detectron2_index(wildcards):
    """The index of the dataset; a job that would need detectron2 but cannot get it is refused while jobs are planned."""
    score = score_file(Cell(**wildcards))
    if not (DETECTRON2 or Path(score).exists()):
        raise WorkflowError(
            f"{score} needs detectron2, which this environment does not have: add --sdm conda, or measure with "
            "--config detection=torchvision"
        )
    return index_file(wildcards)


# normals.smk


def normals_params(wildcards):
    """What the array of normals depends on, beside the data."""
    source = source_of(wildcards)
    return {"source": list(source), "versions": [version("known-normals"), version(source.indexer)]}


# segmentation.smk


def drawn_masks(wildcards):
    """The masks of a generated dataset; the index of another one names its own."""
    return f"results/datasets/{wildcards.dataset}/masks.npy" if source_of(wildcards).kind == "generated" else []

# Needs: the merged config and the tables in config/.
# Makes: SUITE (the validated suite), wildcard constraints, and the functions that answer the rules' questions.
from pathlib import Path

from snakemake.exceptions import WorkflowError

from ssltransfer.checkpoints.sources import local_files
from ssltransfer.config import load_suite, read_table
from ssltransfer.datasets import ORIGINAL, READ, parse_members, parse_source
from ssltransfer.device import has_gpu
from ssltransfer.errors import InputError
from ssltransfer.files import read_json
from ssltransfer.protocols.inversion.lpips_networks import LPIPS_NETWORKS
from ssltransfer.versions import version

# Not workflow.basedir, which is the other workflow's where this one is used as a module.
BASE = Path(workflow.current_basedir.get_path_or_uri(secret_free=True)).parents[1]

try:
    SUITE = load_suite(config, BASE / "workflow" / "schemas", BASE)
except InputError as error:
    raise WorkflowError(str(error)) from None

# Linear ImageNet classifiers that authors published for their models: proof of a conversion.
HEADS = {row["model"]: row for row in read_table(BASE / "config" / "heads.tsv")}

SUITE_REPORT = f"results/{SUITE.name}/report.html"

# A local GPU is a resource that jobs take in turn; without one, they run side by side on the cores. On a cluster
# a profile requests the GPU (set-resources), because the submitting machine often has none.
LOCAL_GPU = int(has_gpu())


def names(values):
    """A regular expression that matches exactly these ids (nothing, if there are none)."""
    return "|".join(sorted(values)) or "(?!)"


def datasets_of_kind(kind):
    return [d for d, row in SUITE.datasets.items() if parse_source(row["source"]).kind == kind]


def datasets_of_source(source):
    return [d for d, row in SUITE.datasets.items() if row["source"] == source]


def datasets_of_task(task):
    return [d for d, row in SUITE.datasets.items() if row["task"] == task]


def models_pretrained(here):
    return [model for model in SUITE.models if (SUITE.recipe(model) is not None) == here]


def protocols_of_kind(kind):
    return [protocol for protocol in SUITE.config["protocols"] if SUITE.kind(protocol) == kind]


def detection_protocols(backend):
    return [p for p in protocols_of_kind("detection") if SUITE.settings(p)["backend"] == backend]


wildcard_constraints:
    model=names(SUITE.models),
    dataset=names(SUITE.datasets),
    protocol=names(SUITE.config["protocols"]),
    transform=r"(resize|stretch)\d+|square257",
    norm="imagenet|none",
    suite=SUITE.name,


def source_of(wildcards):
    return parse_source(SUITE.datasets[wildcards.dataset]["source"])


def index_file(wildcards):
    return f"results/datasets/{wildcards.dataset}/index.parquet"


def expected_counts(wildcards):
    """The counts that the table of data sets promises."""
    row = SUITE.datasets[wildcards.dataset]
    return {count: row[count] for count in ("classes", "train", "val", "test")}


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
    }


def sampled_datasets(wildcards):
    """The data sets that the images of a one-of data set are chosen from."""
    return [member.dataset for member in parse_members(source_of(wildcards).name)[0]]


def sample_params(wildcards):
    """As `index_params`, with the sources of the data sets that are chosen from."""
    sources = [list(parse_source(SUITE.datasets[name]["source"])) for name in sampled_datasets(wildcards)]
    return index_params(wildcards) | {"sources": sources, "images": version("images")}


def index_input(wildcards):
    """The record that the original data set is there, or a user's table, whose changes are to be seen."""
    source = source_of(wildcards)
    if source.kind == "original":
        return f"results/originals/{source.name}.json"
    table = Path(SUITE.config["data_root"]) / source.name
    return str(table) if source.kind == "csv" and table.exists() else []


def feature_input(wildcards):
    """The prepared images, or with keep_images: false the index of the original ones."""
    folder = f"results/datasets/{wildcards.dataset}"
    if SUITE.config["keep_images"]:
        return {"images": f"{folder}/{wildcards.transform}.npy"}
    return {"index": f"{folder}/index.parquet"}


def feature_params(wildcards):
    """What features depend on, beside their inputs."""
    params = {
        "arch": SUITE.models[wildcards.model]["arch"],
        "versions": [version("features")],
    }
    if not SUITE.config["keep_images"]:
        params["source"] = list(source_of(wildcards))
        params["versions"].append(version("images"))
    return params


def feature_files(wildcards):
    """One feature file for each input normalisation that the protocol evaluates."""
    dataset = SUITE.image_dataset(wildcards.dataset)
    transform = SUITE.settings(wildcards.protocol)["transform"]
    return [
        f"results/features/{wildcards.model}/{dataset}/{transform}.{norm}.npy"
        for norm in SUITE.norms(wildcards.protocol, wildcards.model)
    ]


def inversion_images(wildcards):
    return f"results/datasets/{wildcards.dataset}/{SUITE.settings(wildcards.protocol)['transform']}.npy"


def trunk_manifests(wildcards):
    """The fetched networks of the LPIPS distances that a protocol asks for."""
    return [f"results/lpips/{trunk}.json" for trunk in SUITE.settings(wildcards.protocol)["lpips"]]


def trunk_source(wildcards):
    return SUITE.config["lpips_trunks"].get(wildcards.trunk, LPIPS_NETWORKS[wildcards.trunk].source)


def attention_images(wildcards):
    """The images in the square frame that the masks of an attention protocol slide over."""
    settings = SUITE.settings(wildcards.protocol)
    frame = settings["size"] + 2 * (settings["mask"] - 1)
    return f"results/datasets/{wildcards.dataset}/stretch{frame}.npy"


def normals_params(wildcards):
    """What the array of normals depends on, beside the data."""
    source = source_of(wildcards)
    return {"source": list(source), "versions": [version("known-normals"), version(source.indexer)]}


def normals_input(wildcards):
    """Index, known normals, and the images of a generated data set (others are read where they lie)."""
    folder = f"results/datasets/{wildcards.dataset}"
    files = {"index": f"{folder}/index.parquet", "normals": f"{folder}/normals.npy"}
    if source_of(wildcards).kind == "generated":
        files["originals"] = f"{folder}/originals.npy"
    return files


def suite_scores(wildcards):
    """All score files of the suite."""
    return [f"results/scores/{c.protocol}/{c.model}/{c.dataset}.json" for c in SUITE.cells()]


# Kinds of protocols whose jobs write pictures of their results, and kinds whose jobs train and write their losses.
PICTURED = ("detection", "normals", "inversion", "attention")
TRAINED = ("detection", "normals", "inversion")


def suite_pictures(wildcards):
    """The pictures that jobs of the suite made of their results."""
    cells = [c for c in SUITE.cells() if SUITE.kind(c.protocol) in PICTURED and wildcards.suite == SUITE.name]
    return [f"results/pictures/{c.protocol}/{c.model}/{c.dataset}.npz" for c in cells]


def suite_curves(wildcards):
    """The training losses of the suite's jobs."""
    cells = [c for c in SUITE.cells() if SUITE.kind(c.protocol) in TRAINED and wildcards.suite == SUITE.name]
    return [f"results/curves/{c.protocol}/{c.model}/{c.dataset}.json" for c in cells]


PUBLISHED_MODELS = models_pretrained(here=False)


def files_folder(wildcards):
    """Where the published files of a model lie: not an output, so that Snakemake never deletes a download."""
    return f"resources/checkpoints/{wildcards.model}"


def present_files(source):
    """Local files of a source, so that a change of one is noticed; a missing one is the job's to report."""
    return [path for path in local_files(source) if Path(path).is_file()]


def head_inside(model):
    return HEADS[model]["source"] == "inside"


def recipe_files(wildcards):
    recipe = SUITE.recipe(wildcards.model)
    if recipe["method"] == "none":
        return {}
    folder = f"results/datasets/{recipe['dataset']}"
    images = f"results/datasets/{SUITE.image_dataset(recipe['dataset'])}"
    return {
        "index": f"{folder}/index.parquet",
        "images": f"{images}/{recipe['transform']}.npy",
    }


def list_what_is_there():
    """Write the list of checkpoints though some are missing."""
    from ssltransfer.checkpoints.listing import list_checkpoints, write_listing

    verified = {Path(path).stem: read_json(path) for path in VERIFICATIONS if Path(path).is_file()}
    heads = [model for model in PUBLISHED_MODELS if model in HEADS]
    table = list_checkpoints(map(Path, CHECKPOINTS), verified, heads)
    write_listing(table, Path(f"results/{SUITE.name}/checkpoints.tsv"))

# Needs: the merged config and the tables in config/.
# Makes: SUITE (the validated suite), wildcard constraints, and the input and parameter functions of the rules.
import atexit
import os
import re
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.io import IOFile
from snakemake.logging import logger
from snakemake.settings.types import DeploymentMethod

from ssltransfer.checkpoints.sources import given_file, local_files, source_with_state
from ssltransfer.config import COUNTS, Cell, load_suite, read_table, repeated_option
from ssltransfer.datasets import ORIGINAL, READ_KINDS, TRANSFORM, location, parse_members, parse_dataset_source
from ssltransfer.device import driver_problem, has_gpu
from ssltransfer.errors import InputError
from ssltransfer.files import file_state, package_data, read_json
from ssltransfer.models.user_code import code_hash
from ssltransfer.protocols.inversion.lpips_networks import LPIPS_NETWORKS
from ssltransfer.protocols.knn.settings import SIMILARITY, stored_neighbours
from ssltransfer.interrupts import QuietStop
from ssltransfer.report.missing import FailedJob, failed_job_lines, missing_lines, missing_scores, write_missing
from ssltransfer.report.score_check import list_differences
from ssltransfer.results.outcome_header import list_missing
from ssltransfer.settings import job_recipe
from ssltransfer.targets import target_problem
from ssltransfer.versions import network_version, version

if not LIBRARY.is_dir() and DeploymentMethod.CONDA in workflow.deployment_settings.deployment_method:
    raise WorkflowError(
        "--sdm conda needs a clone: a remote module's jobs import the library installed beside Snakemake"
    )

if workflow.is_main_process and (repeated := repeated_option(sys.argv[1:], "--config", "--configfile")):
    raise WorkflowError(
        f"{repeated} is given twice, and Snakemake reads the last one only; write everything behind one {repeated}"
    )

try:
    SUITE = load_suite(config, package_data("workflow/schemas"), package_data("."))
    if workflow.is_main_process and not SUITE.config["available"]:
        SUITE.check_data_root()
except InputError as error:
    raise WorkflowError(str(error)) from None

if workflow.is_main_process:
    for problem in {*SUITE.invalid.values()}.difference(SUITE.left_out.values()):
        logger.warning(f"{problem} (this suite does not use the row)")

# Linear ImageNet classifiers that authors published for their models: they verify a conversion.
HEADS = {row["model"]: row for row in read_table(package_data("config/heads.tsv"))}

# Checked here, because Snakemake's own message names neither the suite nor the ids that it knows.
# As a module, other suites are other modules' to make.
if workflow.is_main_process and Path(workflow.main_snakefile).resolve().is_relative_to(LIBRARY.parent):
    for problem in filter(None, (target_problem(word, SUITE) for word in sys.argv[1:])):
        raise WorkflowError(problem)

SUITE_REPORT = f"results/{SUITE.name}/report.html"

# With `available`, the list of the scores that do not exist.
MISSING = f"results/missing/{SUITE.name}.json"

# Ctrl-C ends a run with one line. Jobs are processes of their own.
STOP = QuietStop(logger) if workflow.is_main_process else None

# A local GPU is a resource: one job at a time uses it; without a GPU, jobs run side by side on the cores. On a cluster
# a profile requests the GPU (set-resources), because the submitting machine often has none.
GPU_HERE = int(has_gpu())
if workflow.is_main_process and not workflow.non_local_exec and driver_problem():
    logger.warning(f"The GPU is not used, jobs run on the processor: {driver_problem()}")

# Whether jobs can have detectron2: from an environment of their own, or installed beside Snakemake.
DETECTRON2 = bool(workflow.deployment_settings.deployment_method) or find_spec("detectron2") is not None

# Kinds of protocols whose jobs write pictures of their results, and kinds whose jobs train and write their losses.
KINDS_WITH_PICTURES = ("detection", "normals", "inversion", "attention")
KINDS_WITH_LOSSES = ("detection", "normals", "inversion")


# Which models, datasets and protocols a rule serves (wildcard constraints)


def any_of(values):
    """A regular expression that matches exactly these ids (nothing, if there are none)."""
    return "|".join(sorted(values)) or "(?!)"


def datasets_of_kind(kind):
    return [d for d, row in SUITE.datasets.items() if parse_dataset_source(row["source"]).kind == kind]


def datasets_of_source(source):
    return [d for d, row in SUITE.datasets.items() if row["source"] == source]


def datasets_of_task(task):
    return [d for d, row in SUITE.datasets.items() if row["task"] == task]


def models_pretrained(here):
    return [model for model in NETWORK_MODELS if (SUITE.recipe(model) is not None) == here]


def protocols_of_kind(kind):
    return [protocol for protocol in SUITE.config["protocols"] if SUITE.kind(protocol) == kind]


def detection_protocols(backend):
    return [p for p in protocols_of_kind("detection") if SUITE.settings(p)["backend"] == backend]


# Of the others, features are given.
NETWORK_MODELS = [model for model, row in SUITE.models.items() if row["arch"] != "none"]
PUBLISHED_MODELS = models_pretrained(here=False)


wildcard_constraints:
    model=any_of(SUITE.models),
    dataset=any_of(SUITE.datasets),
    protocol=any_of(SUITE.config["protocols"]),
    transform=TRANSFORM,
    norm=any_of(SUITE.input_norms),
    pool=any_of({row["pool"] for row in SUITE.models.values()} - {""}),
    suite=SUITE.name,


# What a run says at its end


LAST_LINES = {}


@atexit.register
def say_at_the_end():
    """Print lines on the terminal after Snakemake's own last ones: the missing scores, then how the run ended."""
    lines = [
        *(missing_lines(LAST_LINES["missing"], SUITE) if "missing" in LAST_LINES else []),
        *LAST_LINES.get("end", []),
    ]
    if lines:
        print(*lines, sep="\n", file=sys.stderr)


def success_lines():
    """The reports that were asked for."""
    reports = {str(path) for job in workflow.dag.jobs for path in job.output if Path(path).name == "report.html"}
    return [f"Report: {', '.join(sorted(reports))}"] if reports else []


def failure_lines():
    """Each job that failed, why, and how to go on without it; nothing after Ctrl-C."""
    if STOP.stopped:
        return []
    jobs = [single for job in workflow.scheduler.failed for single in getattr(job, "jobs", [job])]
    failed = [FailedJob(job.rule.name, tuple(job.wildcards_dict.values()), next(iter(job.log), "")) for job in jobs]
    return [*failed_job_lines(failed), *without_failed()]


def without_failed():
    """How a report is made without the scores that failed, and what the one that is there was made of."""
    if SUITE.config["available"] or not any(Path(score_file(cell)).exists() for cell in SUITE.cells()):
        return []
    old = "; the one that is there is older" if Path(SUITE_REPORT).exists() else ""
    options = shlex.split(command_options())
    options = [*options, "available=true"] if "--config" in options else [*options, "--config", "available=true"]
    return [f"Report of the scores that exist{old}: uv run snakemake {shlex.join(options)}"]


# Resources


def attempt_times(base, per_mb=0, most=None, repeats=lambda wildcards: 1):
    """A resource that grows with each attempt, and by `per_mb` with each megabyte of a job's input, up to `most`.

    `repeats` is a function of wildcards that says how often the job does the same work.
    """

    def amount(wildcards, input, attempt):
        needed = base + int(per_mb * input.size_mb) if per_mb else base
        return attempt * repeats(wildcards) * (needed if most is None else min(needed, most))

    return amount


def training_threads(wildcards):
    """Threads beyond the first load images, which keeps a GPU busy; training on a CPU takes one."""
    return 8 if GPU_HERE or workflow.non_local_exec else 1


# Input and parameter functions of several rule files


def of_model(column):
    """A function of wildcards: this column of the model's row."""
    return lambda w: SUITE.models[w.model][column]


def protocol_settings(wildcards):
    return SUITE.job_settings(wildcards.protocol, wildcards.model)


def evaluated_norm(wildcards):
    """The input normalisation of protocols that evaluate one only, as jobs read it."""
    return SUITE.input_norms[SUITE.norms(wildcards.protocol, wildcards.model)[0]]


def version_with_network(component):
    """A function of wildcards: the version of a component that uses the network of a model."""
    return lambda w: network_version(component, SUITE.models[w.model]["arch"])


def source_of(wildcards):
    return parse_dataset_source(SUITE.datasets[wildcards.dataset]["source"])


def source_list(wildcards):
    return list(source_of(wildcards))


def index_file(wildcards):
    return f"results/datasets/{wildcards.dataset}/index.parquet"


def feature_files(wildcards):
    """One feature file for each input normalisation that the protocol evaluates."""
    return SUITE.feature_files(Cell(**wildcards))


def present_files(source):
    """Local files of a source, so that changes are noticed; the job reports missing files."""
    return [path for path in local_files(source) if Path(path).is_file()]


# Input and parameter functions of single rule files; Snakemake's linter forbids functions among rules.

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
    table = location(source, SUITE.config["data_root"])
    return str(table) if source.kind == "csv" and table.exists() else []


def relabelled_index(wildcards):
    return f"results/datasets/{source_of(wildcards).name}/index.parquet"


def sampled_datasets(wildcards):
    """The datasets that the images of a one-of dataset are chosen from."""
    return [member.dataset for member in parse_members(source_of(wildcards).name)[0]]


def sampled_indexes(wildcards):
    return [f"results/datasets/{name}/index.parquet" for name in sampled_datasets(wildcards)]


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


# features.smk


def feature_input(wildcards):
    """The prepared images, or with keep_images: false the index of the original ones."""
    folder = f"results/datasets/{wildcards.dataset}"
    if SUITE.config["keep_images"]:
        return {"images": f"{folder}/{wildcards.transform}.npy"}
    return {"index": f"{folder}/index.parquet"}


def feature_threads(wildcards):
    """The cores that each model of the suite can have; several images are decoded at a time where none are kept."""
    cores = workflow.resource_settings.cores or 1
    return max(1 if SUITE.config["keep_images"] else 4, cores // len(SUITE.models))


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


def given_features(wildcards):
    """The file of features that the user gives for a dataset; the job reports a missing one."""
    path = given_file(SUITE.models[wildcards.model]["source"], wildcards.dataset)
    return str(path) if path.is_file() else []


def given_params(wildcards):
    """What imported features depend on; with the state of the file, a replacement by an older one is noticed as well."""
    path = given_features(wildcards)
    params = {"source": SUITE.models[wildcards.model]["source"], "version": version("given-features")}
    return params | ({"state": file_state(path)} if path else {})


# linear.smk


def validation_draws(wildcards):
    """How often a linear job fits the whole path: for each draw of the validation part."""
    return SUITE.settings(wildcards.protocol)["validation_draws"]


# knn.smk


def neighbour_file(wildcards):
    """The neighbours that a vote is over, found among the features of the dataset whose images it has."""
    settings, (features,) = SUITE.settings(wildcards.protocol), map(Path, feature_files(wildcards))
    similarity, count = SIMILARITY[settings["vote"]], stored_neighbours(settings["neighbours"])
    return f"results/neighbours/{'/'.join(features.parts[-3:-1])}/{features.stem}.{similarity}{count}.npz"


# label_efficiency.smk


def many_shot_features(wildcards):
    """The features of the many-shot protocol that a label-efficiency protocol names."""
    return SUITE.feature_files(Cell(SUITE.settings(wildcards.protocol)["of"], wildcards.model, wildcards.dataset))


# inversion.smk and attention.smk


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


def normals_input(wildcards):
    """Index, known normals, and the images of a generated dataset (others are read where they lie)."""
    folder = f"results/datasets/{wildcards.dataset}"
    files = {"index": f"{folder}/index.parquet", "normals": f"{folder}/normals.npy"}
    if source_of(wildcards).kind == "generated":
        files["originals"] = f"{folder}/originals.npy"
    return files


# summary.smk


def score_file(cell):
    return f"results/scores/{cell.protocol}/{cell.model}/{cell.dataset}.json"


def shown_cell(cell):
    """The cell, or the one whose score is shown instead; with `available` None if there is no score."""
    other = SUITE.shown_instead(cell)
    if Path(score_file(cell)).exists():
        return cell
    if other and Path(score_file(other)).exists():
        return other
    return None if SUITE.config["available"] else cell


def shown_cells():
    return [shown for shown in map(shown_cell, SUITE.cells()) if shown]


def made_files(paths):
    """Files that belong to the scores of a suite; with `available` those that exist."""
    return [path for path in paths if Path(path).exists() or not SUITE.config["available"]]


def suite_scores(wildcards):
    """All score files of the suite."""
    return [score_file(cell) for cell in shown_cells()]


def unrecorded_differences(wildcards):
    """A list of the scores that Snakemake has no record of (copied here) and that differ from the suite, if any do.

    Nothing else would make the summary again: Snakemake compares the settings only of jobs that it has a record of. The
    list has a folder of its own, because Snakemake may have looked into the folders of its outputs before.
    """
    scores = [path for path in suite_scores(wildcards) if Path(path).is_file()]
    unrecorded = [path for path in scores if not workflow.persistence.metadata(IOFile(path, rule=None))]
    listed = f"results/differing/{wildcards.suite}.json"
    return [listed] if list_differences(listed, unrecorded, SUITE) else []


def missing_list(wildcards):
    """With `available` a list of the scores that the suite lacks; what is news there makes the summary again."""
    cells = [*(cell for cell in SUITE.cells() if not shown_cell(cell)), *SUITE.left_out]
    missing = missing_scores(SUITE, cells, command_options()) if cells else []
    if missing:
        write_missing(MISSING, missing)
    if SUITE.config["available"] and workflow.is_main_process:
        LAST_LINES["missing"] = missing
    return [MISSING] if missing else []


def command_options():
    """The options that name this suite on the command line."""
    files = [os.path.relpath(path) for path in workflow.overwrite_configfiles]
    settings = [f"{key}={value}" for key, value in workflow.config_settings.config.items() if key != "available"]
    return shlex.join((["--configfile", *files] if files else []) + (["--config", *settings] if settings else []))


def derived_outcomes(wildcards):
    """A list of the scores whose outcomes were derived from what their jobs stored, if any were or have to be.

    Nothing asks for the outcomes themselves, so that scores which were measured without them are not measured again.
    Once it exists the list stays an input of the summary, which therefore is not made again for its absence.
    """
    scores = [path for path in suite_scores(wildcards) if Path(path).is_file()]
    derived = f"results/outcomes/{wildcards.suite}.json"
    return [derived] if list_missing(missing_outcomes(wildcards), scores, derived) or Path(derived).is_file() else []


def missing_outcomes(wildcards):
    return f"results/missing-outcomes/{wildcards.suite}.json"


def scores_without_outcomes(wildcards):
    """The listed scores that are still part of the suite."""
    scores = set(suite_scores(wildcards))
    listed = Path(missing_outcomes(wildcards))
    return [path for path in read_json(listed)["scores"] if path in scores] if listed.is_file() else []


def suite_pictures(wildcards):
    """The pictures that jobs of the suite made of their results."""
    cells = [c for c in shown_cells() if SUITE.kind(c.protocol) in KINDS_WITH_PICTURES]
    paths = [f"results/pictures/{c.protocol}/{c.model}/{c.dataset}.npz" for c in cells]
    return made_files(paths) if wildcards.suite == SUITE.name else []


def suite_curves(wildcards):
    """The training losses of the suite's jobs."""
    cells = [c for c in shown_cells() if SUITE.kind(c.protocol) in KINDS_WITH_LOSSES]
    paths = [f"results/curves/{c.protocol}/{c.model}/{c.dataset}.json" for c in cells]
    return made_files(paths) if wildcards.suite == SUITE.name else []


def protocol_kinds(wildcards):
    """Protocol -> kind; the suites of published numbers have no protocols of their own."""
    return {c.protocol: SUITE.kind(c.protocol) for c in shown_cells()} if wildcards.suite == SUITE.name else {}


def published_version(wildcards):
    return wildcards.suite.removeprefix("published-")

# Needs: the merged config and the tables in config/.
# Makes: SUITE (the validated suite), wildcard constraints, lists of ids, the last lines of a run, and the input and
# parameter functions of several rule files.
import atexit
import math
import os
import re
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger
from snakemake.settings.types import DeploymentMethod, SharedFSUsage

from ssltransfer.checkpoints.sources import local_files
from ssltransfer.config.config_files import naming_config_files
from ssltransfer.config.costs import feature_hours, job_hours, neighbour_hours, pretraining_hours
from ssltransfer.config.load import load_suite
from ssltransfer.config.suite import Cell
from ssltransfer.config.table_file import read_table
from ssltransfer.datasets import ORIGINAL, READ_KINDS, TRANSFORM, parse_dataset_source
from ssltransfer.device import driver_problem, granted_gpu, list_gpus
from ssltransfer.errors import InputError
from ssltransfer.files import package_data
from ssltransfer.interrupts import QuietStop
from ssltransfer.report.missing import FailedJob, failed_job_lines, missing_lines
from ssltransfer.settings import job_recipe
from ssltransfer.targets import repeated_option, target_problem
from ssltransfer.versions import network_version, version

if not LIBRARY.is_dir() and DeploymentMethod.CONDA in workflow.deployment_settings.deployment_method:
    raise WorkflowError(
        "--sdm conda needs a clone: a remote module's jobs import the library installed beside Snakemake"
    )

if workflow.is_main_process and (repeated := repeated_option(sys.argv[1:], "--config", "--configfile")):
    raise WorkflowError(
        f"{repeated} is given twice, and Snakemake reads the last one only; write everything behind one {repeated}"
    )

# As a module, the configuration is the other workflow's, and its files may hold more than that.
OWN_RUN = Path(workflow.main_snakefile).resolve().is_relative_to(LIBRARY.parent)
try:
    with naming_config_files(workflow.configfiles if OWN_RUN else [], workflow.config_settings.config):
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
if workflow.is_main_process and OWN_RUN:
    for problem in filter(None, (target_problem(word, SUITE) for word in sys.argv[1:])):
        raise WorkflowError(problem)

SUITE_REPORT = f"results/{SUITE.name}/report.html"

# With `available`, the list of the scores that do not exist.
MISSING = f"results/missing/{SUITE.name}.json"

# Ctrl-C ends a run with one line. Jobs are processes of their own.
STOP = QuietStop(logger) if workflow.is_main_process else None

# Local GPUs are a resource: one job at a time uses each, unless the command line gives another number (--resources gpu=N);
# without a GPU, jobs run side by side on the cores. On a cluster a profile requests the GPU (set-resources), because the
# submitting machine often has none.
GPUS = len(list_gpus())
GPU_HERE = min(GPUS, 1)
LOCAL = workflow.is_main_process and not workflow.non_local_exec
if GPUS and LOCAL and "gpu" not in workflow.global_resources:
    workflow.register_resource("gpu", GPUS)
# How many jobs of this run have a GPU of this machine at a time.
GPU_JOBS = workflow.global_resources["gpu"].value if GPUS and LOCAL else 0
# Of the jobs that could start at a moment, features and what is cheap on them go before trainings of hours. A training whose
# inputs are there earlier still starts earlier: an input that features are waited for would plan finished trainings anew.
FIRST = 5
if LOCAL and driver_problem() and not granted_gpu():
    logger.warning(f"The GPU is not used, jobs run on the processor: {driver_problem()}")

# Whether jobs can have detectron2: from an environment of their own, or installed beside Snakemake.
DETECTRON2 = bool(workflow.deployment_settings.deployment_method) or find_spec("detectron2") is not None

# Whether all jobs see the folder of this run. Where they do not, Snakemake brings a job the files that its rule names and no
# others; jobs that read originals below data_root or downloads then run where Snakemake runs.
SHARED = SharedFSUsage.INPUT_OUTPUT in workflow.storage_settings.shared_fs_usage
if not SHARED and (SUITE.config["available"] or SUITE.config["adopt"]):
    raise WorkflowError(
        "available and adopt look for scores in results/, where without a shared file system are none: copy the results "
        "of the storage here, and run without --shared-fs-usage"
    )
# What each test image contributes to a score lies beside it. It is named only where it must be: Snakemake would measure
# again what was measured before there were outcomes.
OUTCOMES = {} if SHARED else {"outcomes": "results/outcomes/{protocol}/{model}/{dataset}.npz"}

# Kinds of protocols whose jobs write pictures of their results, and kinds whose jobs train and write their losses.
KINDS_WITH_PICTURES = ("detection", "normals", "segmentation", "inversion", "attention")
KINDS_WITH_LOSSES = ("detection", "normals", "segmentation", "inversion")


# Which models, datasets and protocols a rule serves (wildcard constraints)


def any_of(values):
    """A regular expression that matches exactly these ids (nothing, if there are none)."""
    return "|".join(sorted(values)) or "(?!)"


def optional(values):
    """A regular expression that matches one of these parts of a file name with the dot before it, or nothing."""
    return rf"(\.({any_of(values)}))?"


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
    suite=SUITE.name,


# What a run says at its end


LAST_LINES = {}


@atexit.register
def say_at_the_end():
    """Print lines on the terminal after Snakemake's own last ones: missing scores, manual steps, how the run ended."""
    lines = [
        *(missing_lines(LAST_LINES["missing"], SUITE) if "missing" in LAST_LINES else []),
        *LAST_LINES.get("steps", []),
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


def megabytes(base, per_mb=0, limits=None):
    """The memory of a job: `base`, and `per_mb` for each megabyte of its input; up to three times as much after failures.

    It is at most `max_memory`.
    `limits` is a function of wildcards that returns what it needs at least and at most.
    """

    def amount(wildcards, input, attempt):
        needed = base + int(per_mb * input.size_mb) if per_mb else base
        lowest, highest = limits(wildcards) if limits else (0, needed)
        # A long training is submitted more often than that, because its time was over and not its memory.
        return min(min(attempt, 3) * max(lowest, min(needed, highest)), SUITE.config["max_memory"])

    return amount


def minutes(base, per_mb=0, repeats=lambda wildcards: 1, hours=None, resumes=False):
    """The time of a job: `base`, and `per_mb` for each megabyte of its input, but at most `max_runtime`.

    `repeats` is a function of wildcards that says how often the job does the same work; `hours`, one of wildcards and
    whether there is a GPU that estimates its work, of which it gets three times as much. A job that `resumes` its work
    asks for the same time at each attempt, where it finds its state again; others ask for more.
    """

    def amount(wildcards, input, attempt, rulename):
        most, gpu = SUITE.config["max_runtime"], hours is not None and asks_gpu(rulename)
        estimate = 60 * hours(wildcards, gpu) if hours else 0
        # Without a shared file system, states of trainings are lost with the node.
        goes_on = resumes and SHARED
        if estimate > most and not goes_on and not gpu:
            warn_of_limit(rulename, estimate)
        # After the warning, because Snakemake asks again later where an input does not exist yet.
        needed = repeats(wildcards) * (base + int(per_mb * input.size_mb) if per_mb else base)
        needed = max(needed, math.ceil(3 * estimate))
        return min(needed if goes_on else attempt * needed, most)

    return amount


WARNED = set()


def warn_of_limit(rulename, estimate):
    """Say once, where jobs are or would be submitted, that one of a rule will not end in time; `estimate` is in minutes."""
    submits = workflow.non_local_exec or (workflow.dryrun and workflow.resource_settings.nodes)
    if submits and workflow.is_main_process and rulename not in WARNED:
        WARNED.add(rulename)
        logger.warning(
            f"{rulename}: a job is estimated to take {estimate:.0f} minutes on a core, more than max_runtime "
            f"({SUITE.config['max_runtime']}), and would begin anew after it was stopped: ask for a GPU, or raise "
            "max_runtime (docs/clusters.md)"
        )


def asks_gpu(rulename):
    """Whether jobs get a GPU of this machine, or one that the profile asks a cluster for."""
    asked = workflow.get_rule(rulename).resources
    return "gres" in asked or "nvidia_gpu" in asked or bool(asked["gpu"].value)


def hours_of(part):
    """A function for `minutes`: hours of the job that makes, trains or tests the network of a score (`job_hours`)."""
    return lambda w, gpu: job_hours(SUITE, Cell(w.protocol, w.model, w.dataset), part, gpu)


def cores_per_gpu():
    """The cores that each job with a GPU of this machine can have if all GPUs are to be busy; elsewhere without limit."""
    return max(1, (workflow.resource_settings.cores or 1) // GPU_JOBS) if GPU_JOBS else float("inf")


def training_threads(wildcards):
    """Threads beyond the first load images, which keeps a GPU busy; training on a CPU takes one."""
    return min(8, cores_per_gpu()) if GPU_HERE or workflow.non_local_exec else 1


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


def images_made_of(dataset):
    """The images of a dataset if the workflow itself makes them, beside its index; others lie below data_root."""
    names = {"generated": "originals.npy", "one-of": "originals"}
    kind = parse_dataset_source(SUITE.datasets[dataset]["source"]).kind
    return f"results/datasets/{dataset}/{names[kind]}" if kind in names else []


def generated_images(wildcards):
    """As `images_made_of`, of the dataset or the one that it relabels."""
    return images_made_of(SUITE.image_dataset(wildcards.dataset))


def unless_shared(files):
    """A function of wildcards: these files, for jobs that without a shared file system see only what their rule names."""
    return lambda w: [] if SHARED else files(w)


def feature_files(wildcards):
    """One feature file for each input normalisation that the protocol evaluates."""
    return SUITE.feature_files(Cell(**wildcards))


def beside_features(files):
    """A function of wildcards: what says where the features of these files come from, for jobs that must name it."""
    return unless_shared(lambda w: [str(Path(path).with_suffix(".json")) for path in files(w)])


def present_files(source):
    """Local files of a source, so that changes are noticed; the job reports missing files."""
    return [local(path) for path in local_files(source) if Path(path).is_file()]

# Needs: the merged config and the tables in config/.
# Makes: SUITE (the validated suite), wildcard constraints, and the functions that answer the rules' questions.
import os
import shutil
from pathlib import Path

from snakemake.exceptions import WorkflowError

from ssltransfer.config import load_suite, read_table
from ssltransfer.datasets import ORIGINAL, READ, parse_source
from ssltransfer.errors import InputError
from ssltransfer.versions import version

BASE = Path(workflow.basedir)

try:
    SUITE = load_suite(config, BASE / "workflow" / "schemas", BASE)
except InputError as error:
    raise WorkflowError(str(error)) from None

# Linear ImageNet classifiers that authors published for their models: proof of a conversion.
HEADS = {row["model"]: row for row in read_table(BASE / "config" / "heads.tsv")}

SUITE_REPORT = f"results/{SUITE.name}/report.html"

# A local GPU is a resource that jobs take in turn; without one, they run side by side on the cores. On a cluster
# the profile requests the GPU (profiles/slurm), because the submitting machine often has none.
LOCAL_GPU = 1 if shutil.which("nvidia-smi") else 0


def names(values):
    """A regular expression that matches exactly these ids (nothing, if there are none)."""
    return "|".join(sorted(values)) or "(?!)"


def datasets_of_kind(kind):
    return [
        d
        for d, row in SUITE.datasets.items()
        if parse_source(row["source"]).kind == kind
    ]


def models_pretrained(here):
    return [
        model for model in SUITE.models if (SUITE.recipe(model) is not None) == here
    ]


def protocols_of_kind(kind):
    return [
        protocol
        for protocol in SUITE.config["protocols"]
        if SUITE.kind(protocol) == kind
    ]


wildcard_constraints:
    model=names(SUITE.models),
    dataset=names(SUITE.datasets),
    protocol=names(SUITE.config["protocols"]),
    transform=r"resize\d+|square257",
    norm="imagenet|none",
    suite=SUITE.name,


def source_of(wildcards):
    return parse_source(SUITE.datasets[wildcards.dataset]["source"])


def index_file(wildcards):
    return f"results/datasets/{wildcards.dataset}/index.parquet"


def feature_files(wildcards):
    """One feature file for each input normalisation that the protocol evaluates."""
    dataset = SUITE.image_dataset(wildcards.dataset)
    transform = SUITE.settings(wildcards.protocol)["transform"]
    return [
        f"results/features/{wildcards.model}/{dataset}/{transform}.{norm}.npy"
        for norm in SUITE.norms(wildcards.protocol, wildcards.model)
    ]


def suite_scores(wildcards):
    """All score files of the suite."""
    return [
        f"results/scores/{c.protocol}/{c.model}/{c.dataset}.json" for c in SUITE.cells()
    ]

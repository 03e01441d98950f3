"""Targets of the command line: a misspelt id is one line with the nearest one, and everything else is left alone."""

from dataclasses import replace

import pytest

from ssltransfer.config.load import load_suite
from ssltransfer.config.validation import read_yaml
from ssltransfer.targets import target_problem
from workflow import REPOSITORY, snakemake, workspace


@pytest.fixture(scope="module")
def suite():
    path = REPOSITORY / "config/config.yaml"
    return load_suite(read_yaml(path), REPOSITORY / "workflow/schemas", REPOSITORY)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("results/scores/linear-r23/tiny-supervised/digits.json", ["no protocol 'linear-r23'", "'linear-r32'"]),
        ("results/scores/linear-r32/tiny-supervized/digits.json", ["no model 'tiny-supervized'", "'tiny-supervised'"]),
        ("results/scores/linear-r32/tiny-supervised/digitts.json", ["no dataset 'digitts'", "'digits'"]),
        (
            "results/features/tiny-supervized/digits/resize32.imagenet.npy",
            ["no model 'tiny-supervized'", "'tiny-supervised'"],
        ),
        ("results/datasets/digitts/index.parquet", ["no dataset 'digitts'", "'digits'"]),
        ("results/checkpoints/tiny-supervized.safetensors", ["no model 'tiny-supervized'", "'tiny-supervised'"]),
        ("results/verification/zzz.json", ["no model 'zzz'", "known are tiny-random, tiny-simclr-short"]),
        ("results/other/report.html", ["'demo'", "'other'", "--configfile"]),
    ],
)
def test_an_unknown_id_is_one_line_with_the_nearest(suite, target, words):
    problem = target_problem(target, suite)
    assert problem.startswith(f"{target}: ") and "\n" not in problem
    assert all(word in problem for word in words), problem


@pytest.mark.parametrize(
    "target",
    [
        *("all", "published", "--configfile", "config/config.yaml", "results", "results/scores", "/results/scores/a"),
        *("results/demo/report.html", "results/demo/tables/", "results/published-v1/report.html"),
        "results/scores/linear-r32/tiny-supervised/digits.json",
        "results/features/tiny-supervised/digits/resize32.imagenet.npy",
        "results/datasets/cifar10/index.parquet",  # which the suite does not use, but could be made
        "results/checkpoints/tiny-supervised.manifest.json",
        "results/originals/cifar10.json",
    ],
)
def test_other_targets_are_left_to_snakemake(suite, target):
    assert target_problem(target, suite) == ""


def test_a_row_that_is_not_valid_says_why(suite):
    suite = replace(suite, invalid={"birds": "datasets.tsv, row 'birds': metric"})
    assert target_problem("results/datasets/birds/index.parquet", suite).endswith("datasets.tsv, row 'birds': metric")


@pytest.mark.slow
def test_the_workflow_says_it(tmp_path):
    folder = workspace(tmp_path / "toy")
    for target, word in (
        ("results/scores/toy-linear/toy-randon/digits.json", "'toy-random'"),
        ("results/elsewhere/report.html", "--configfile"),
    ):
        done = snakemake(folder, target, "--dry-run")
        (line,) = [line for line in done.stdout.splitlines() if target in line]
        assert done.returncode == 1 and word in line and "Traceback" not in done.stdout

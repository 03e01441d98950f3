"""The real workflow on toy data: it runs, reruns only what changed, and says in one line what is wrong."""

import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import yaml

from ssltransfer.results.metric_info import METRICS
from ssltransfer.results.outcome_file import load_outcomes
from workflow import REPOSITORY, command, numbers, planned, snakemake, succeed, workspace

pytestmark = pytest.mark.slow

SUMMARY = {(rule, ""): 1 for rule in ("make_tables", "plot_figures", "write_provenance", "write_report", "all")}
COMPARISON = {("compare_representations", ""): 1}
SCALED = ("", "-scaled", "-scaled-validation")


@pytest.fixture
def copy(finished, tmp_path):
    """A copy of the finished directory to change; times are kept."""
    return shutil.copytree(finished, tmp_path / "copy", copy_function=shutil.copy2)


def test_generated_data_sets_may_have_any_name(tmp_path):
    folder = workspace(tmp_path / "toy")
    with (folder / "config/datasets.tsv").open("a") as table:
        table.write("scenes\tScenes\tsingle-label\ttop1\tgenerated:shapes\t10\t3000\t0\t1000\t\t\n")
    plan = succeed(folder, "results/datasets/scenes/normals.npy", "--dry-run")
    assert "rule generate_shapes:" in plan and "rule generate_dataset:" not in plan


def test_the_features_of_a_single_model_are_extracted_on_all_cores(tmp_path):
    folder = workspace(tmp_path / "toy")
    rows = (folder / "config/models.tsv").read_text().splitlines()
    target = f"results/features/{rows[1].split(chr(9))[0]}/digits/resize32.imagenet.npy"
    several = succeed(folder, target, "--dry-run", "--cores", "4")
    (folder / "config/models.tsv").write_text("\n".join(rows[:2]) + "\n")
    replace(folder / "config/config.yaml", "[toy-random, toy-simclr, toy-supervised]", "[toy-random]")
    alone = succeed(folder, target, "--dry-run", "--cores", "4")
    block = re.compile(r"rule extract_features:.*?resources:", re.DOTALL)
    threads = [re.findall(r"threads: (\d+)", block.search(plan)[0]) for plan in (several, alone)]
    assert threads == [[], ["4"]]


def test_folders_may_have_any_name(tmp_path):
    folder = workspace(tmp_path / "räum lich")
    # The environment, too, is usually in such a folder then.
    (tmp_path / "räum lich/.venv").symlink_to(sys.prefix)
    _, *words = command("results/datasets/digits/index.parquet", "--directory", str(folder))
    words = [folder / ".venv/bin/python", *words]
    words[words.index("config/config.yaml")] = folder / "config/config.yaml"
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (folder / "results/datasets/digits/index.parquet").exists()


def test_everything_is_there(finished):
    scores = pd.read_csv(finished / "results/toy/tables/scores.csv", keep_default_na=False)
    cells = set(zip(scores["model"], scores["dataset"], scores["setting"], strict=True))
    models = ("toy-random", "toy-simclr", "toy-supervised")
    tasks = [("digits", ""), ("textures", ""), ("digits", "5-shot")]
    tasks += [("digits", "5-nn"), ("digits", "20-nn")]
    tasks += [("digits", f"{begin}{n}-per-class") for begin in ("", "knn-") for n in (1, 2)]
    tasks += [("digits", "area"), ("digits", "all")]
    tasks += [("digits", f"{kind}{scaled}") for kind in ("linear", "finetune") for scaled in SCALED]
    assert cells == {(model, dataset, setting) for model in models for dataset, setting in tasks}
    percentages = [METRICS[metric].unit == "percent" for metric in scores["metric"]]
    assert scores.loc[percentages, "value"].astype(float).between(0, 100).all()
    estimators = scores[scores["kind"].eq("estimators")]
    assert set(estimators["model"]) == set(models) and {"log-me", "h-score-shrunk", "two-nn"} <= set(
        estimators["metric"]
    )
    score = json.loads((finished / "results/scores/toy-fewshot/toy-simclr/digits.json").read_text())
    assert score["warnings"][0].startswith("500-shot is left out: 10 of 10 classes have fewer than 500 + 15")
    assert score["preprocessing"]["norm"] == "none"
    score = json.loads((finished / "results/scores/toy-linear/toy-simclr/digits.json").read_text())
    assert {"numpy", "scipy", "scikit-learn", "torch"} <= set(score["versions"])
    common = {"checkpoint", "preprocessing", "warnings", "details", "versions", "cost"}
    for path in finished.glob("results/scores/*/toy-simclr/digits.json"):
        score = json.loads(path.read_text())
        assert common <= set(score)
        assert score["checkpoint"]["source"] == "pretrain:toy-simclr" and score["preprocessing"]["norm"] == "none"
        assert score["cost"]["device"] in ("cpu", "cuda") and "cores" in score["cost"]["machine"]
    features = np.load(finished / "results/features/toy-simclr/digits/resize16.none.npy")
    assert features.shape == (1797, 128)
    assert not list(finished.glob("results/**/*.tmp*"))
    report = (finished / "results/toy/report.html").read_text()
    for table in (finished / "results/toy/tables").glob("toy-*.html"):
        assert f'id="table-{table.stem}"' in report  # protocols with names of the user's own, too


def test_second_run_plans_nothing(finished):
    assert "Nothing to be done" in succeed(finished)
    assert not planned(finished)


def test_how_often_states_are_saved_plans_nothing(finished):
    assert not planned(finished, "--config", "save_seconds=7")


def test_touching_files_plans_nothing(copy):
    code = [REPOSITORY / "Snakefile", REPOSITORY / "workflow/Snakefile", *REPOSITORY.glob("scripts/**/*.py")]
    for path in [*copy.glob("config/*"), *code]:
        os.utime(path)
    assert not planned(copy)


def test_a_new_model_plans_its_jobs_and_the_summary(copy):
    table = copy / "config/models.tsv"
    row = "new\tNew\tnone\tresnet-1x1x1x1-w4\tpretrain:toy-random\t\t\timagenet\tmeasured:digits\ttoy\tMIT\t\n"
    table.write_text(table.read_text() + row)
    own = {
        "pretrain_model": 1,
        "extract_features": 2,
        "evaluate_linear": 2,
        "find_neighbours": 1,
        "evaluate_knn": 1,
        "evaluate_label_efficiency": 1,
        "evaluate_estimators": 1,
        "evaluate_fewshot": 1,
        "evaluate_calibration": 1,
    }
    assert planned(copy) == {(rule, "new"): count for rule, count in own.items()} | COMPARISON | SUMMARY


def test_a_changed_setting_plans_its_protocol_and_the_summary(copy):
    suite = copy / "config/config.yaml"
    suite.write_text(suite.read_text().replace("episodes: 50", "episodes: 60"))
    models = ("toy-random", "toy-simclr", "toy-supervised")
    assert planned(copy) == {("evaluate_fewshot", model): 1 for model in models} | SUMMARY


def test_scores_without_outcomes_are_not_measured_again(copy):
    written = {path: load_outcomes(path) for path in (copy / "results/outcomes").rglob("*.npz")}
    assert len(written) == len(list((copy / "results/scores").rglob("*.json")))
    shutil.rmtree(copy / "results/outcomes")
    assert planned(copy) == {("derive_outcomes", ""): 1} | SUMMARY
    succeed(copy)
    assert not planned(copy)
    for path, outcomes in written.items():
        assert [outcome.interval for outcome in load_outcomes(path).values()] == [
            outcome.interval for outcome in outcomes.values()
        ]
    os.utime(next(iter(written)), (1, 1))  # as copies may leave them
    assert not planned(copy)


@pytest.fixture
def next_release(tmp_path):
    """A copy of the workflow whose schemas have gained keys for few-shot and linear protocols, recipes and heads."""
    repository = tmp_path / "next release"
    for name in ("Snakefile", "workflow", "scripts", "config", "profiles", "envs"):
        copy = shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copy
        repository.mkdir(exist_ok=True)
        copy(REPOSITORY / name, repository / name)
    (repository / "resources").mkdir()
    shutil.copy(REPOSITORY / "resources/unit-costs.csv", repository / "resources")
    later = {"type": "integer", "default": 3, "since": "9.9"}
    suites, recipes = (repository / f"workflow/schemas/{name}.schema.yaml" for name in ("config", "pretraining"))
    schema = yaml.safe_load(suites.read_text())
    for block in (schema["$defs"]["fewshot"], schema["$defs"]["linear"]["properties"]["lambdas"]):
        block["properties"]["later"] = later
    suites.write_text(yaml.safe_dump(schema, sort_keys=False))
    schema = yaml.safe_load(recipes.read_text())
    for block in (schema["additionalProperties"], schema["$defs"]["simclr"]):
        block["properties"]["later"] = later
    recipes.write_text(yaml.safe_dump(schema, sort_keys=False))
    return repository


def test_a_key_that_a_release_adds_plans_nothing_at_its_default(copy, next_release):
    assert not planned(copy, repository=next_release)
    suite, recipes = copy / "config/config.yaml", copy / "config/pretraining.yaml"
    written, models = suite.read_text(), ("toy-random", "toy-simclr", "toy-supervised")
    suite.write_text(written.replace("episodes: 50", "episodes: 50\n    later: 3"))
    assert not planned(copy, repository=next_release)
    suite.write_text(written.replace("episodes: 50", "episodes: 50\n    later: 4"))
    assert planned(copy, repository=next_release) == {("evaluate_fewshot", model): 1 for model in models} | SUMMARY
    suite.write_text(written.replace("count: 3", "count: 3, later: 4"))
    linear = {("evaluate_linear", model): 2 for model in models}
    linear |= {("evaluate_label_efficiency", model): 1 for model in models}
    calibration = {("evaluate_calibration", model): 1 for model in models}
    assert planned(copy, repository=next_release) == linear | calibration | SUMMARY
    suite.write_text(written)
    recipes.write_text(recipes.read_text().replace("hidden: 32", "hidden: 32, later: 4"))
    found = planned(copy, repository=next_release)
    assert {model for rule, model in found if rule == "pretrain_model"} == {"toy-simclr"}
    assert {model for _, model in found} == {"toy-simclr", ""}


def test_switching_between_suites_plans_nothing(copy):
    succeed(copy, suite="v1.yaml")
    score = json.loads((copy / "results/scores/toy-linear-v1/toy-random/digits.json").read_text())
    assert any("chosen on the test score" in warning for warning in score["warnings"])
    assert set(score["curve"]) == {"imagenet", "none"}
    report = (copy / "results/toy-v1/report.html").read_text()
    assert "toy-linear-v1: the input normalisation was chosen on the test score" in report
    assert not planned(copy)
    assert not planned(copy, suite="v1.yaml")


def test_number_of_cores_does_not_matter(finished, copy, tmp_path):
    """Images, and everything from the training of a model on, are made once more on one core."""
    one, images = workspace(tmp_path / "one core"), "results/datasets/digits/resize16.npy"
    succeed(one, "--cores", "1", images)
    assert (one / images).read_bytes() == (finished / images).read_bytes()
    for path in [copy / "results/toy", *copy.glob("results/**/toy-simclr*")]:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    output = succeed(copy, "--cores", "1", "results/toy/tables")
    assert "rule pretrain_model:" in output and "rule extract_features:" in output
    assert "scores.csv" in numbers(copy) and numbers(copy) == numbers(finished)


def replace(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (
            "config.yaml",
            "suite: toy\n",
            "suite: toy\nbatch_sise: 3\n",
            "config/config.yaml: top level: unknown key 'batch_sise'",
        ),
        ("config.yaml", "ways: 5", "ways: five", "protocols.toy-fewshot.ways: found 'five', expected a whole number"),
        (
            "config.yaml",
            "[digits, textures]",
            "[digits, cars]",
            "config/config.yaml: tasks.toy-linear names dataset 'cars'; known are",
        ),
        ("datasets.tsv", "mean-per-class\tgen", "map11\tgen", "row 'textures': metric 'map11' does not fit task"),
    ],
)
def test_bad_configuration_is_one_line(tmp_path, file, old, new, message):
    folder = workspace(tmp_path / "bad")
    replace(folder / "config" / file, old, new)
    done = snakemake(folder, "--dry-run")
    assert done.returncode == 1
    assert any(message in line for line in done.stdout.splitlines()), done.stdout


def test_damaged_features_are_one_line(copy):
    features = copy / "results/features/toy-random/digits/resize16.imagenet.npy"
    np.save(features, np.load(features)[:-1])
    done = snakemake(copy, "results/scores/toy-linear/toy-random/digits.json")
    assert done.returncode == 1
    assert "resize16.imagenet.npy: 1796 rows, but the index has 1797" in done.stdout
    assert "Traceback" not in done.stdout

"""Failed jobs and missing scores: their reasons and commands, and the report of the scores that exist."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from ssltransfer.config.load import load_suite
from ssltransfer.config.suite import Cell
from ssltransfer.config.validation import read_yaml
from ssltransfer.report.missing import (
    NOT_MEASURED,
    SHOWN_FAILURES,
    FailedJob,
    by_reason,
    failed_job_lines,
    failure,
    missing_lines,
    missing_scores,
    read_missing,
    write_missing,
)
from ssltransfer.report.old_failures import PRODUCTS
from ssltransfer.report.tables import missing_table
from workflow import REPOSITORY, environment, planned, snakemake, succeed, workspace

FINISHED = '2026-11-28 20:00:00,000 on the CPU\n2026-11-28 20:00:01,000 cost {"seconds": 1.0}\n'
FAILED = "2026-11-28 20:00:00,000 starts\n2026-11-28 20:00:01,000 Error: {}\n"
NOW = time.time() + 3600
"""Time of the logs, which is behind every change of the configuration."""
CELLS = [Cell("toy-linear", "toy-random", name) for name in ("digits", "textures")]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(workspace(tmp_path / "toy"))
    return tmp_path / "toy"


def suite(name="config.yaml", **changes):
    written = read_yaml(REPOSITORY / "tests/config" / name) | changes
    return load_suite(written, REPOSITORY / "workflow/schemas", REPOSITORY)


def write_log(name, text, age=0):
    path = Path("logs", f"{name}.log")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (NOW - age, NOW - age))
    return str(path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (FINISHED, None),
        (FAILED.format("no.pth is missing"), "no.pth is missing"),
        (FAILED.format("Error: in the text"), "Error: in the text"),
        ("2026-11-28 20:00:01,000  Traceback\n   line\n ValueError: wrong\n \n", "ValueError: wrong"),
        (
            "2026-11-28 20:00:01,000 images: 20 of 180\n",
            "ended without an error, so something stopped it; run again (its last line: images: 20 of 180)",
        ),
        ("", "ended without a message"),
    ],
)
def test_the_reason_of_a_failure_is_the_error_at_the_end_of_its_log(folder, text, reason):
    assert failure(write_log("evaluate_linear/a/b/c", text)) == reason


def test_a_job_without_a_log_has_a_reason(folder):
    assert failure("logs/none.log") == "ended without a message"


@pytest.mark.parametrize(
    ("log", "concerned"),
    [
        ("fetch_checkpoint/toy-random", (True, True)),
        ("fetch_checkpoint/toy-simclr", (False, False)),
        ("fetch_head/toy-random", (False, False)),
        ("index_dataset/digits", (True, False)),
        ("prepare_images/digits/resize16", (True, False)),
        ("extract_features/toy-random/textures/resize16.none", (False, True)),
        ("extract_features/toy-simclr/textures/resize16.none", (False, False)),
        ("evaluate_linear/toy-linear/toy-random/digits", (True, False)),
        ("evaluate_linear/other/toy-random/digits", (False, False)),
        ("make_tables/toy", (False, False)),
    ],
)
def test_a_failed_job_is_the_reason_of_the_scores_that_need_it(folder, log, concerned):
    path = write_log(log, FAILED.format("wrong"))
    rule = log.partition("/")[0]
    for score, expected in zip(missing_scores(suite(), CELLS), concerned, strict=True):
        assert (score.reason.startswith(rule) and score.reason.endswith(": wrong")) == expected
        assert score.log == (path if expected else "")
        assert (score.reason == NOT_MEASURED) != expected


def test_the_jobs_of_other_names_are_known_too(folder):
    cells = [Cell("toy-calibration", "toy-random", "digits")]
    write_log("evaluate_linear/toy-linear/toy-random/digits", FAILED.format("wrong"))
    assert missing_scores(suite(), cells)[0].reason.endswith("wrong")
    # What a model was pretrained on stops all its scores, but no other job of that dataset does.
    (score,) = missing_scores(suite(), [Cell("toy-linear", "toy-simclr", "textures")])
    assert score.reason == NOT_MEASURED
    write_log("index_dataset/digits", FAILED.format("gone"))
    (score,) = missing_scores(suite(), [Cell("toy-linear", "toy-simclr", "textures")])
    assert score.reason == "index_dataset, digits: gone"
    # An original dataset has its name in the job that obtains it.
    own = suite(datasets=str(REPOSITORY / "config/datasets.tsv"), tasks={"toy-linear": ["digits"]}, models_of={})
    assert "cifar10" in own.datasets
    write_log("obtain_dataset/cifar10", FAILED.format("no address answers"), age=-9)
    (score,) = missing_scores(own, [Cell("toy-linear", "toy-random", "cifar10")])
    assert score.reason == "obtain_dataset, cifar10: no address answers"


def test_the_latest_failure_counts_and_finished_jobs_do_not(folder):
    write_log("fetch_checkpoint/toy-random", FAILED.format("first"), age=20)
    latest = write_log("index_dataset/digits", FAILED.format("second"), age=10)
    write_log("evaluate_linear/toy-linear/toy-random/digits", FINISHED)
    assert missing_scores(suite(), CELLS)[0].log == latest


def test_a_failure_whose_job_has_left_its_result_since_is_none(folder):
    write_log("fetch_checkpoint/toy-random", FAILED.format("no address answers"))
    write_log("evaluate_linear/toy-linear/toy-random/digits", FAILED.format("the disk is gone"))
    assert missing_scores(suite(), [CELLS[1]])[0].failed
    result(Path("results/checkpoints/toy-random.safetensors"), age=1)
    assert missing_scores(suite(), [CELLS[1]])[0].failed  # made before the failure
    result(Path("results/checkpoints/toy-random.safetensors"), age=-1)
    assert [score.reason for score in missing_scores(suite(), [CELLS[1]])] == [NOT_MEASURED]
    calibration = [Cell("toy-calibration", "toy-random", "digits")]
    assert missing_scores(suite(), calibration)[0].reason.endswith("the disk is gone")
    result(Path("results/scores/toy-linear/toy-random/digits.json"), age=-1)
    assert missing_scores(suite(), calibration)[0].reason == NOT_MEASURED


def result(path, age):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (NOW - age, NOW - age))


def test_the_files_that_scores_need_are_those_that_the_rules_make():
    """A log and the result of the same job differ in their folder and suffix alone."""
    rules = {}
    for path in (REPOSITORY / "workflow/rules").glob("*.smk"):
        for block in re.split(r"\n(?=\S)", path.read_text()):
            if head := re.match(r"(?:rule|use rule (\w+) as) (\w+)(?: with)?:\n", block):
                rules[head[2]] = block + (rules[head[1]] if head[1] else "")
    assert set(PRODUCTS) < set(rules)
    for rule, product in PRODUCTS.items():
        log = re.search(rf'"logs/{rule}/(.+)\.log"', rules[rule])[1]
        maker = rules["convert_checkpoint" if rule == "fetch_checkpoint" else rule]
        found = product.format(log)
        assert f'="{found}"' in maker, rule


@pytest.mark.parametrize(
    ("changed", "log"),
    [
        ("config/models.tsv", "fetch_checkpoint/toy-random"),
        ("config/config.yaml", "index_dataset/digits"),
        ("config/datasets.tsv", "index_dataset/digits"),
        ("config/datasets.tsv", "evaluate_linear/toy-linear/toy-random/digits"),
    ],
)
def test_a_failure_before_a_change_is_told_as_such(folder, changed, log):
    write_log(log, FAILED.format("wrong"))
    (before,) = missing_scores(suite(), CELLS[:1], files=["config/config.yaml"])
    os.utime(changed, (NOW + 60, NOW + 60))
    (after,) = missing_scores(suite(), CELLS[:1], files=["config/config.yaml"])
    assert before.failed and not after.failed and after.log == before.log
    assert after.reason == f"failed before a change of {changed}: {before.reason}"
    write_log(log, FAILED.format("wrong"), age=-120)  # run again
    assert missing_scores(suite(), CELLS[:1], files=["config/config.yaml"])[0].failed


def test_a_change_of_what_another_job_is_told_says_nothing(folder):
    write_log("index_dataset/digits", FAILED.format("wrong"))
    os.utime("config/models.tsv", (NOW + 60, NOW + 60))
    assert missing_scores(suite(), CELLS[:1])[0].failed


def test_files_that_the_user_gives_count_as_changes(folder):
    own = suite()
    Path("mine.pth").touch()
    Path("net.py").touch()
    own.models["toy-random"].update(source="file:mine.pth", arch="python:net.py:build")
    for name in ("mine.pth", "net.py"):
        write_log("convert_checkpoint/toy-random", FAILED.format("wrong"), age=-60 * (name == "net.py"))
        assert missing_scores(own, CELLS[:1])[0].failed
        os.utime(name, (NOW + 70, NOW + 70) if name == "net.py" else (NOW + 10, NOW + 10))
        assert missing_scores(own, CELLS[:1])[0].reason.startswith(f"failed before a change of {name}: ")


def test_each_missing_score_has_the_command_that_measures_it(folder):
    scores = missing_scores(suite(), CELLS, "--configfile config/x.yaml")
    assert [score.command for score in scores] == [
        f"uv run snakemake results/scores/toy-linear/toy-random/{name}.json --configfile config/x.yaml"
        for name in ("digits", "textures")
    ]


def test_missing_scores_are_grouped_and_written_only_when_they_change(folder):
    write_log("index_dataset/digits", FAILED.format("no such folder"))
    cells = list(suite().cells())
    scores = missing_scores(suite(), cells)
    count = len(cells)
    assert [len(group) for group in by_reason(scores)] == [count - 1, 1]
    write_missing("missing.json", scores)
    assert read_missing("missing.json") == scores
    os.utime("missing.json", (1, 1))
    write_missing("missing.json", scores)
    assert Path("missing.json").stat().st_mtime == 1
    write_missing("missing.json", scores[1:])
    assert Path("missing.json").stat().st_mtime > 1
    lines = missing_lines(read_missing("missing.json"), suite())
    assert f"{count - 1} of {count}" in lines[0] and len(lines) == 3 and "logs/index_dataset/digits.log" in lines[1]
    assert missing_lines([], suite()) == []
    tables = Path("results/toy/tables")
    tables.mkdir(parents=True)
    # Two entries of one score differ.
    (tables / "left-out.csv").write_text("file,key,found\na.json,metric,x\na.json,versions,1\nb.json,metric,x\n")
    lines = missing_lines(scores[1:], suite())
    assert f"{count + 1} of {count}" in lines[0] and lines[-1].startswith("  2: left out") and str(tables) in lines[-1]
    table = missing_table(scores, {"digits": "Digits"})
    assert table.cells["Scores"].tolist() == [count - 1, 1] and table.cells["Datasets"].tolist() == [
        "Digits, textures",
        "textures",
    ]
    assert len(table.data) == count and table.data["command"].str.startswith("uv run snakemake results/scores/").all()


def test_failed_jobs_are_listed_briefly(folder):
    log = write_log("fetch_checkpoint/net", FAILED.format("no.pth is missing"))
    (_, line) = failed_job_lines([FailedJob("fetch_checkpoint", ("net",), log)])
    assert line.split() == f"fetch_checkpoint, net: no.pth is missing ({log})".split()
    lines = failed_job_lines([FailedJob("evaluate_linear", ("a", str(i)), "") for i in range(SHOWN_FAILURES + 5)])
    assert len(lines) == SHOWN_FAILURES + 2 and " 5 " in lines[-1]


def with_failures():
    """Number of scores of the toy suite, of four models on the new dataset, and of the new model on the others."""
    with contextlib.chdir(REPOSITORY / "tests"):
        return len(list(suite().cells())) + 4 + 7


@pytest.fixture(scope="module")
def failed(tmp_path_factory, finished):
    """A finished toy suite that gains a dataset whose folder is missing and a model without a checkpoint."""
    folder = shutil.copytree(finished, tmp_path_factory.mktemp("failed") / "toy", copy_function=shutil.copy2)
    (folder / "net.pth").write_text("<html>not found</html>")
    with (folder / "config/models.tsv").open("a") as table:
        table.write("net\tNet\tnone\tresnet50\tfile:net.pth\ttorchvision\t\timagenet\t\ttoy\tMIT\t\n")
    with (folder / "config/datasets.tsv").open("a") as table:
        table.write("birds\tBirds\tsingle-label\ttop1\tfolder:birds\t3\t30\t0\t6\t\t\n")
    config = folder / "config/config.yaml"
    config.write_text(config.read_text().replace("[digits, textures]", "[digits, textures, birds]"))
    done = snakemake(folder)  # the default profile goes on with everything else
    assert done.returncode == 1
    return folder, done.stdout


def test_a_failed_run_ends_with_its_failures(failed):
    _, output = failed
    last = output.rstrip().splitlines()[-4:]
    assert last[0].endswith("2 jobs")
    assert {line.split(":")[0].strip() for line in last[1:3]} == {"fetch_checkpoint, net", "index_dataset, birds"}
    assert "(logs/index_dataset/birds.log)" in "".join(last)
    # The report of before is named as such, not left in place without a word.
    assert "older" in last[3] and "--configfile config/config.yaml --config available=true" in last[3]


def test_a_report_is_made_of_the_scores_that_exist(failed):
    folder, _ = failed
    missing = {(m, "birds") for m in ("toy-random", "toy-simclr", "toy-supervised", "net")}
    missing |= {("net", "digits"), ("net", "textures")}
    output = succeed(folder, "--config", "available=true")
    assert "compare_representations" in output  # of the models that have features
    last = output.rstrip().splitlines()
    assert last[-1] == "Report: results/toy/report.html" and last[-4].endswith(f"11 of {with_failures()} scores")
    table = pd.read_csv(folder / "results/toy/tables/missing.csv", keep_default_na=False)
    assert set(zip(table["model"], table["dataset"], strict=True)) == missing and len(table) == 11
    of_net = table[(table["model"] == "net") & (table["dataset"] != "birds")]
    assert of_net["log"].eq("logs/fetch_checkpoint/net.log").all()
    assert (
        table.loc[table["dataset"] == "birds", "log"]
        .isin(["logs/index_dataset/birds.log", "logs/fetch_checkpoint/net.log"])
        .all()
    )
    assert table["command"].str.endswith("--configfile config/config.yaml").all()
    scores = pd.read_csv(folder / "results/toy/tables/scores.csv", keep_default_na=False)
    assert set(scores["model"]) == {"toy-random", "toy-simclr", "toy-supervised"}
    report = (folder / "results/toy/report.html").read_text()
    assert 'id="table-missing"' in report and "logs/index_dataset/birds.log" in report
    assert "Without Net: its features are not there" in report
    # Nothing is news, so nothing is made again, but said again; measuring is still planned without the key.
    again = succeed(folder, "--config", "available=true")
    assert "Nothing to be done" in again and again.rstrip().splitlines()[-3:] == last[-4:-1]
    assert planned(folder)["evaluate_linear", "net"] == 3


def test_a_new_reason_makes_the_report_again(failed, tmp_path):
    folder = shutil.copytree(failed[0], tmp_path / "copy", copy_function=shutil.copy2)
    succeed(folder, "--config", "available=true")
    (folder / "logs/index_dataset/birds.log").write_text(FAILED.format("the disk is full"))
    succeed(folder, "--config", "available=true")
    assert "the disk is full" in (folder / "results/toy/report.html").read_text()


def test_a_row_that_is_wrong_costs_its_own_scores(failed, tmp_path):
    folder = shutil.copytree(failed[0], tmp_path / "copy", copy_function=shutil.copy2)
    table = folder / "config/models.tsv"
    table.write_text(table.read_text().replace("file:net.pth\ttorchvision", "file:net.pth\tmocco"))
    with (folder / "config/datasets.tsv").open("a") as file:
        file.write("unused\tUnused\tsingle-label\tmap11\tfolder:x\t3\t30\t0\t6\t\t\n")
    done = snakemake(folder, "--dry-run")
    (line,) = [line for line in done.stdout.splitlines() if "mocco" in line]
    assert done.returncode == 1 and "row 'net': format" in line
    output = succeed(folder, "--config", "available=true")
    last = output.rstrip().splitlines()
    assert last[-4].endswith(f"11 of {with_failures()} scores")
    assert last[-3].startswith("  8: config/models.tsv, row 'net': format")
    assert "config/datasets.tsv, row 'unused': metric" in output
    missing = pd.read_csv(folder / "results/toy/tables/missing.csv", keep_default_na=False)
    assert missing["reason"].str.contains("'mocco'").sum() == 8 and len(missing) == 11
    assert "mocco" in (folder / "results/toy/report.html").read_text()


def test_a_complete_suite_has_no_list_and_no_score_is_one_line(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "copy", copy_function=shutil.copy2)
    assert "Nothing to be done" in succeed(folder, "--config", "available=true")
    shutil.rmtree(folder / "results/scores")
    done = snakemake(folder, "--config", "available=true")
    assert done.returncode == 1 and "Error: suite 'toy' has no score yet" in done.stdout
    assert "Traceback" not in done.stdout


DETECTOR = {"kind": "detection", "frozen": "first-four", "schedule": {"steps": 2, "milestones": []}}
NEEDED = "needs detectron2"


@pytest.fixture
def detection(tmp_path):
    """A toy suite with a detection task, whose block has an equal one of the other backend."""
    folder = workspace(tmp_path / "detection")
    path = folder / "config/config.yaml"
    written = read_yaml(path)
    written |= {"tasks": {"toy-det-torchvision": ["boxes"]}, "models_of": {}}
    written["protocols"] = {
        name: DETECTOR | {"backend": backend, "schedule": DETECTOR["schedule"] | {"warmup": 1}}
        for name, backend in (("toy-det", "detectron2"), ("toy-det-torchvision", "torchvision"))
    }
    path.write_text(json.dumps(written))
    with (folder / "config/datasets.tsv").open("a") as table:
        table.write("boxes\tBoxes\tsingle-label\ttop1\tgenerated:shapes\t10\t3000\t0\t1000\t\t\n")
    text = (folder / "config/models.tsv").read_text().replace("measured:digits", "")
    (folder / "config/models.tsv").write_text(text)
    return folder


@pytest.mark.slow
def test_detectron2_is_asked_for_while_jobs_are_planned(detection):
    assert planned(detection)["train_detector", "toy-random"] == 1
    done = snakemake(detection, "--dry-run", "--config", "detection=detectron2")
    (line,) = [line for line in done.stdout.splitlines() if NEEDED in line]
    assert done.returncode == 1 and "--sdm conda" in line and "detection=torchvision" in line


@pytest.mark.slow
def test_a_finished_score_of_detectron2_is_shown_and_not_measured_again(detection):
    names = [f"datasets/{of}/{name}" for of in ("digits", "boxes") for name in ("index.parquet", "originals.npy")]
    names += [
        "datasets/digits/resize16.npy",
        *(f"checkpoints/{model}.safetensors" for model in ("toy-random", "toy-simclr")),
    ]
    for cell in ("toy-det/toy-random/boxes", "toy-det/toy-simclr/boxes"):
        names += [f"trained/{cell}.safetensors", f"predictions/{cell}.npz", f"curves/{cell}.json"]
        names += [f"pictures/{cell}.npz", f"scores/{cell}.json"]
    for age, name in enumerate(names):
        path = detection / "results" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
        os.utime(path, (1e9 + age, 1e9 + age))
    jobs = planned(detection)
    assert {model for rule, model in jobs if rule in ("train_detector", "train_detectron2")} == {"toy-supervised"}


@pytest.mark.slow
def test_options_that_snakemake_would_not_read_are_one_line(tmp_path):
    folder = workspace(tmp_path / "toy")
    for option, value in (("--config", "allow_subset=true"), ("--configfile", "config/v1.yaml")):
        done = snakemake(
            folder, "--dry-run", option, value, *(["--config", "data_root=x"] if option == "--config" else [])
        )
        (line,) = [line for line in done.stdout.splitlines() if "is given twice" in line]
        assert done.returncode == 1 and option in line


@pytest.mark.slow
def test_the_default_profile_needs_no_options_and_any_directory(tmp_path):
    """All cores, the demo suite of the repository, and a key of the command line that changes nothing else."""
    words = [sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile")]
    words += ["results/datasets/digits/index.parquet", "--dry-run", "--config", "on_error=skip"]
    done = subprocess.run(words, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "rule generate_dataset:" in done.stdout + done.stderr

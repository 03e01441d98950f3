"""A score file is compared with the suite that shows it; what differs is left out and listed."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from test_profiles import RULES

from ssltransfer.config.load import load_suite
from ssltransfer.config.suite import Cell
from ssltransfer.config.validation import read_yaml
from ssltransfer.errors import InputError
from ssltransfer.files import read_json, write_json
from ssltransfer.report.score_check import COMPONENTS, TRAINED, check_scores, expected_entries
from ssltransfer.report.table_folder import make_tables
from ssltransfer.settings import config_schema
from ssltransfer.versions import WITH_NETWORK, version
from workflow import REPOSITORY, numbers, planned, succeed, workspace

SUMMARY = {(rule, ""): 1 for rule in ("make_tables", "plot_figures", "write_provenance", "write_report", "all")}
MODELS = ("toy-random", "toy-simclr", "toy-supervised")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(workspace(tmp_path / "toy"))
    return tmp_path / "toy"


def suite():
    return load_suite(read_yaml(REPOSITORY / "tests/config/config.yaml"), REPOSITORY / "workflow/schemas", REPOSITORY)


def score(cell, **changes):
    """A score file's content, as the toy suite expects it."""
    kind = suite().kind(cell.protocol)
    metric, setting = {"linear": ("top1", ""), "fewshot": ("accuracy", "5-shot"), "calibration": ("ece", "linear")}[
        kind
    ]
    model = suite().models[cell.model]
    images = {"linear": {"train": 800, "val": 200, "test": 797}, "fewshot": 1797}
    return {
        **vars(cell),
        "kind": kind,
        "values": [{"metric": metric, "setting": setting, "value": 50.0, "unit": "percent"}],
        "settings": suite().settings(cell.protocol) | changes.pop("settings", {}),
        "preprocessing": {"norm": model["norm"]},
        "checkpoint": {"source": model["source"], "recipe": suite().recipe(cell.model)},
        "details": {"images": images[kind]} if kind in images else {},
        "versions": {"protocol": version(kind)},
    } | changes


def write(cell, **changes):
    path = Path("results/scores", cell.protocol, cell.model, f"{cell.dataset}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(score(cell, **changes)))
    return str(path)


LINEAR = Cell("toy-linear", "toy-simclr", "digits")
FEWSHOT = Cell("toy-fewshot", "toy-simclr", "digits")
CALIBRATION = Cell("toy-calibration", "toy-simclr", "digits")


def test_scores_of_this_suite_are_shown(folder):
    paths = [write(cell) for cell in (LINEAR, FEWSHOT, CALIBRATION)]
    check = check_scores(paths, suite())
    assert check.shown == paths and not check.differences and not check.unknown


@pytest.mark.parametrize(
    ("cell", "changes", "key", "remake"),
    [
        (FEWSHOT, {"settings": {"episodes": 51}}, "settings.episodes", "scores/"),
        (FEWSHOT, {"settings": {"added": 1}}, "settings.added", "scores/"),
        (FEWSHOT, {"preprocessing": {"norm": {"5-shot": "imagenet"}}}, "preprocessing.norm", "scores/"),
        (LINEAR, {"preprocessing": {"norm": "none", "candidates": ["none", "imagenet"]}}, "preprocessing.norm", ""),
        (LINEAR, {"checkpoint": {"source": "pretrain:other"}}, "checkpoint.source", "checkpoints/toy-simclr"),
        (LINEAR, {"checkpoint": {"recipe": {"method": "none"}}}, "checkpoint.recipe", "checkpoints/toy-simclr"),
        (LINEAR, {"versions": {"protocol": version("linear") - 1}}, "versions.protocol", "scores/"),
        (LINEAR, {"details": {"images": {"train": 80, "val": 20, "test": 797}}}, "images.train", "datasets/digits"),
        (FEWSHOT, {"details": {"images": 99}}, "images.test", "datasets/digits"),
        (LINEAR, {"model": "toy-random"}, "model", "scores/"),
        (LINEAR, {"values": [{"metric": "mean-per-class"}]}, "values.metric", "scores/"),
        (
            LINEAR,
            {"coverage": {"images": {"used": 797, "promised": 800}, "classes": {"promised": 10}}},
            "coverage.images.promised",
            "datasets/digits",
        ),
    ],
)
def test_what_differs_is_named_with_the_file_to_make_again(folder, cell, changes, key, remake):
    path = write(cell, **changes)
    check = check_scores([path], suite())
    assert [(d.file, d.key) for d in check.differences] == [(path, key)] and not check.shown
    line = str(check.differences[0])
    assert line.startswith(f"{path}: {key}: found ") and "\n" not in line
    assert check.differences[0].remake.startswith(f"results/{remake}")


def test_a_calibration_follows_the_score_of_its_classifiers(folder):
    write(LINEAR, settings={"seed": 1})
    calibration = write(CALIBRATION)
    (difference,) = check_scores([calibration], suite()).differences
    assert difference.file == calibration and difference.key == "toy-linear: settings.seed"
    assert difference.remake == "results/scores/toy-linear/toy-simclr/digits.json"


def test_subsets_are_compared_with_what_was_promised_alone(folder):
    config = read_yaml(REPOSITORY / "tests/config/config.yaml") | {"allow_subset": True}
    subset = load_suite(config, REPOSITORY / "workflow/schemas", REPOSITORY)
    path = write(FEWSHOT, details={"images": 99})
    assert check_scores([path], subset).shown == [path]


def test_later_settings_have_their_default_and_missing_entries_are_remarked(folder):
    content = score(LINEAR)
    del content["settings"]["solver"], content["settings"]["difficult"]
    path = write(LINEAR)
    Path(path).write_text(json.dumps(content))
    assert check_scores([path], suite()).shown == [path]
    content = score(FEWSHOT)
    by_hand = write(FEWSHOT)
    kept = ("model", "protocol", "dataset", "kind", "values", "settings")
    Path(by_hand).write_text(json.dumps({key: content[key] for key in kept}))
    check = check_scores([by_hand], suite())
    assert check.shown == [by_hand] and check.unknown == {by_hand: ["preprocessing", "checkpoint", "versions"]}
    assert "preprocessing, checkpoint, versions" in check.remarks[by_hand]


def test_a_score_of_no_cell_is_left_out(folder):
    path = write(LINEAR)
    (folder / path).rename(folder / path.replace("digits.json", "shapes.json"))
    (difference,) = check_scores([path.replace("digits.json", "shapes.json")], suite()).differences
    assert difference.key == "tasks"


def test_the_classes_of_pixels_have_a_background_in_generated_scenes():
    for name, dataset, classes in (("config", "shapes", 11), ("paper-v2", "ade20k", 150)):
        config = read_yaml(REPOSITORY / f"config/{name}.yaml")
        loaded = load_suite(config, REPOSITORY / "workflow/schemas", REPOSITORY)
        cell = next(cell for cell in loaded.cells() if loaded.kind(cell.protocol) == "segmentation")
        assert cell.dataset == dataset
        assert expected_entries(loaded, cell)["coverage.classes.promised"] == classes


def test_a_network_trained_with_other_settings_is_noticed(tmp_path):
    config = read_yaml(REPOSITORY / "config/config.yaml")
    demo = load_suite(config, REPOSITORY / "workflow/schemas", REPOSITORY)
    cell = next(cell for cell in demo.cells() if demo.kind(cell.protocol) == "normals")
    assert expected_entries(demo, cell)["trained.seed"] == demo.settings(cell.protocol)["seed"]
    values = [{"metric": "mean-angle", "setting": "", "value": 50.0, "unit": "degrees"}]
    trained = demo.settings(cell.protocol) | {"seed": 7}
    content = {**vars(cell), "kind": "normals", "values": values, "details": {"trained_settings": trained}}
    path = tmp_path / f"results/scores/{cell.protocol}/{cell.model}/{cell.dataset}.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(content))
    (difference,) = check_scores([path], demo).differences
    assert difference.key == "trained.seed" and difference.remake.startswith("results/trained/")


def test_every_kind_has_its_versions_and_its_trained_file():
    blocks = {name for name, block in config_schema()["$defs"].items() if "kind" in block.get("properties", {})}
    assert set(COMPONENTS) == blocks
    rules = "".join(RULES.values())
    for kind, components in COMPONENTS.items():
        assert (len(components) == 2) == (kind in TRAINED)
        for name in components:
            assert f'version{"_with_network" * (name in WITH_NETWORK)}("{name}")' in rules
    assert all(f'"{path}"' in rules for path in TRAINED.values())


def test_tables_without_what_differs(folder, caplog):
    cells = [Cell("toy-linear", model, "digits") for model in MODELS]
    paths = [write(cell) for cell in cells[:2]] + [write(cells[2], versions={"protocol": 1})]
    models = [suite().models[model] for model in MODELS]
    tables = folder / "tables"
    make_tables(tables, paths, models, {"digits": "Digits"}, {}, "v2", {}, "", suite())
    shown = pd.read_csv(tables / "scores.csv")
    assert set(shown["model"]) == set(MODELS[:2])
    (row,) = pd.read_csv(tables / "left-out.csv", dtype=str).to_dict("records")
    assert (row["file"], row["key"], row["found"]) == (paths[2], "versions.protocol", "1")
    assert f"{paths[2]}: versions.protocol: found 1" in caplog.text
    captions = {table["name"]: table["caption"] for table in json.loads((tables / "suite.json").read_text())["tables"]}
    assert "1 of 3 scores" in captions["toy-linear"]


def test_nothing_is_left(folder):
    """A suite all of whose scores differ is refused in one line."""
    paths = [write(Cell("toy-linear", model, "digits"), versions={"protocol": 1}) for model in MODELS]
    models = [suite().models[model] for model in MODELS]
    with pytest.raises(InputError, match="versions.protocol: found 1") as caught:
        make_tables(folder / "tables", paths, models, {"digits": "Digits"}, {}, "v2", {}, "", suite())
    assert "\n" not in str(caught.value)


def replace(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.slow
def test_restored_scores_of_another_configuration_are_left_out(finished, tmp_path):
    """Without Snakemake's records, edits of the configuration plan no job; the summary finds out."""
    folder = tmp_path / "restored"
    shutil.copytree(finished, folder, copy_function=shutil.copy2, ignore=shutil.ignore_patterns(".snakemake"))
    assert not planned(folder)
    config, models = folder / "config/config.yaml", folder / "config/models.tsv"
    before = config.read_text(), models.read_text()
    replace(config, "episodes: 50", "episodes: 51")
    assert planned(folder) == SUMMARY
    output = succeed(folder)
    report = (folder / "results/toy/report.html").read_text()
    assert "Scores that were left out" in report and 'id="table-toy-fewshot' not in report, output
    left_out = pd.read_csv(folder / "results/toy/tables/left-out.csv", dtype=str)
    assert set(left_out["key"]) == {"settings.episodes"} and len(left_out) == 3
    assert set(left_out["found"]) == {"50"} and set(left_out["expected"]) == {"51"}
    assert not planned(folder)
    config.write_text(before[0])
    replace(config, "count: 3", "count: 4")
    replace(config, "    seed: 0\n  toy-knn", "    seed: 3\n  toy-knn")
    replace(models, "\tnone\tmeasured", "\timagenet\tmeasured")
    assert planned(folder) == SUMMARY
    succeed(folder)
    left_out = pd.read_csv(folder / "results/toy/tables/left-out.csv")
    assert {"settings.lambdas.count", "settings.seed", "preprocessing.norm", "toy-linear: settings.seed"} <= set(
        left_out["key"]
    )
    shown = pd.read_csv(folder / "results/toy/tables/scores.csv")
    # All but the linear scores and what was made from them, of the models whose norm is as before.
    unchanged = ("toy-knn", "toy-estimators", "toy-fewshot", "toy-finetune", "toy-finetune-calibration")
    assert set(shown["protocol"]) == set(unchanged) and set(shown["model"]) == {"toy-random", "toy-supervised"}
    assert not planned(folder)
    config.write_text(before[0])
    models.write_text(before[1])
    assert planned(folder) == SUMMARY
    succeed(folder)
    assert numbers(folder) == numbers(finished)
    assert not planned(folder)


@pytest.mark.slow
def test_a_job_that_read_an_edited_configuration_is_left_out(finished, tmp_path):
    """A job waits in a queue, the configuration is edited and put back: Snakemake's records hold the old settings."""
    folder = shutil.copytree(finished, tmp_path / "copy", copy_function=shutil.copy2)
    path = folder / "results/scores/toy-fewshot/toy-random/digits.json"
    score = read_json(path)
    score["settings"]["episodes"] = 51
    score["values"][0] |= {"value": 59.01, "low": 58.0, "high": 60.0}
    write_json(path, score)
    succeed(folder)
    (row,) = pd.read_csv(folder / "results/toy/tables/left-out.csv", dtype=str).to_dict("records")
    assert row["file"].endswith("toy-fewshot/toy-random/digits.json") and row["key"] == "settings.episodes"
    scores = pd.read_csv(folder / "results/toy/tables/scores.csv")
    assert not len(scores.query("kind == 'fewshot' and model == 'toy-random'"))
    assert "59.01" not in (folder / "results/toy/tables/toy-fewshot-5-shot.csv").read_text()
    assert not planned(folder)
    succeed(folder, "--forcerun", row["forcerun"])
    assert numbers(folder) == numbers(finished)

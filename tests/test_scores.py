import json
import re
from pathlib import Path

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from ssltransfer.errors import InputError
from ssltransfer.report.table import Column, Table
from ssltransfer.report.table_folder import make_tables
from ssltransfer.report.tables import add_notes
from ssltransfer.results import score_file
from ssltransfer.results.metric_info import KINDS, METRICS, UNITS
from ssltransfer.results.score_reader import MAX_BYTES, read_score
from ssltransfer.results.scores import (
    COLUMNS,
    FIXED_COLUMNS,
    collect_scores,
    read_notes,
    read_scores,
    source_accuracy,
    source_datasets,
    tidy,
    without_empty_columns,
)

VALUE = {"metric": "top1", "setting": "", "value": 71.5, "unit": "percent"}
SCORE = {"model": "m", "dataset": "digits", "protocol": "linear-r32", "kind": "linear", "values": [VALUE]}


def write(folder, name="a.json", **changes):
    path = folder / name
    content = SCORE | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    return path


def test_collected_in_the_order_given(tmp_path):
    few = [
        {"metric": "accuracy", "setting": "5-shot", "value": 40.0, "unit": "percent", "low": 39.0, "high": 41.0},
        {"metric": "accuracy", "setting": "20-shot", "value": 50.0, "unit": "percent", "low": None, "high": None},
    ]
    paths = [
        write(tmp_path, "b.json", kind="fewshot", protocol="fewshot", values=few),
        write(tmp_path, "a.json"),
    ]
    frame = collect_scores(paths)
    assert list(frame.columns) == COLUMNS
    assert list(frame["setting"]) == ["5-shot", "20-shot", ""]
    assert frame["low"].isna().tolist() == [False, True, True]
    assert set(frame["source"]) == {"measured"}


@pytest.mark.parametrize("more", [{}, {"low": 61.0, "high": 63.0, "method": "Wilson", "level": 0.9}])
def test_tidy_table_survives_the_csv(tmp_path, more):
    value = {"metric": "top1", "setting": "", "value": 62.0, "unit": "percent"} | more
    frame = collect_scores([write(tmp_path, values=[value])])
    assert list(frame["interval"]) == ["Wilson; 0.9" if more else ""]
    frame = without_empty_columns(frame)
    assert list(frame.columns)[len(FIXED_COLUMNS) :] == (["interval"] if more else [])
    frame.to_csv(tmp_path / "scores.csv", index=False)
    assert_frame_equal(without_empty_columns(read_scores(tmp_path / "scores.csv")), frame)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"values": None}, "'values' is a required property"),
        ({"extra": 1}, "'extra' was unexpected"),
        ({"model": "No Good"}, "model"),
        ({"kind": "magic"}, "kind: 'magic' is unknown, write one of linear"),
        ({"values": []}, "values"),
        ({"values": [VALUE | {"value": None}]}, r"values\[0\].value"),
        ({"values": [VALUE | {"value": "71"}]}, r"values\[0\].value"),
        ({"values": [VALUE | {"value": 171.0}]}, r"values\[0\].value: 171.0 found, percent lies within 0 to 100"),
        ({"values": [{"metric": "psnr", "setting": "", "unit": "decibels", "value": 10**400}]}, "lies within 0 to inf"),
        ({"values": [VALUE | {"unit": "fraction"}]}, r"values\[0\].unit: 'fraction' found, top1 is in percent"),
        ({"values": [VALUE | {"metric": "f1"}]}, r"values\[0\].metric: 'f1' is unknown"),
        ({"values": [VALUE | {"low": 1.0}]}, "low and high come together"),
        ({"values": [VALUE | {"low": 80.0, "high": 90.0}]}, "does not contain the value"),
        ({"values": [VALUE, VALUE]}, "occur twice"),
    ],
)
def test_wrong_file_gives_one_line_with_file_and_key(tmp_path, changes, message):
    path = write(tmp_path, **changes)
    with pytest.raises(InputError, match=message) as caught:
        read_score(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["{", "", '{"model": NaN}', '{"model": Infinity}', "[" * 100_000])
def test_broken_json_and_nan_are_refused(tmp_path, text):
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"broken\.json"):
        read_score(path)


def test_a_file_too_large_for_a_score_is_refused(tmp_path):
    path = write(tmp_path, "large.json")
    path.write_text(path.read_text() + " " * MAX_BYTES)
    with pytest.raises(InputError, match=rf"large\.json: has \d+ bytes, expected at most {MAX_BYTES}"):
        read_score(path)


def test_missing_file_and_double_cell(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_score(tmp_path / "none.json")
    paths = [write(tmp_path, "a.json"), write(tmp_path, "b.json")]
    with pytest.raises(InputError, match="same model, protocol and dataset"):
        collect_scores(paths)


def test_every_metric_has_a_known_unit_and_every_headline_exists():
    assert all(metric.unit in UNITS for metric in METRICS.values())
    assert all(kind.headline in METRICS for kind in KINDS.values() if kind.headline)


def row(model, value):
    task = {"protocol": "linear", "kind": "linear", "dataset": "cars", "setting": "", "metric": "top1"}
    return {"model": model, "value": value, "source": "measured"} | task


def test_source_accuracy_is_a_number_a_measured_cell_or_missing():
    scores = tidy([row("a", 60.0), row("b", 70.0)])
    models = [
        {"model": "a", "source_accuracy": "measured:cars"},
        {"model": "b", "source_accuracy": "75.3"},
        {"model": "c", "source_accuracy": ""},
        {"model": "d", "source_accuracy": "measured:cars"},
    ]
    x = source_accuracy(models, scores)
    assert x.loc[["a", "b"], "source_accuracy"].to_dict() == {"a": 60.0, "b": 75.3}
    assert x.loc[["c", "d"], "source_accuracy"].isna().all()
    assert x["measured"].to_dict() == {"a": "linear", "b": "", "c": "", "d": ""}


def vote(model, setting, value, metric="top1"):
    return row(model, value) | {"protocol": "knn", "kind": "knn", "setting": setting, "metric": metric}


def test_source_accuracy_by_nearest_neighbours_where_there_is_no_linear_score():
    models = [{"model": name, "source_accuracy": "measured:cars"} for name in ("a", "b")]
    votes = [
        vote("a", "10-nn", 50.0), vote("a", "20-nn", 80.0, "top5"), vote("a", "20-nn", 55.0), vote("b", "20-nn", 40.0)
    ]  # fmt: skip
    x = source_accuracy(models, tidy(votes))
    assert x["source_accuracy"].to_dict() == {"a": 55.0, "b": 40.0}
    assert x["measured"].to_dict() == {"a": "20-nn", "b": "20-nn"}
    alone = source_accuracy(models, tidy([vote("a", "", 50.0)]))
    assert alone["measured"].to_dict() == {"a": "k-nn", "b": ""}
    # One kind for all models of a dataset: no vote takes the place of a linear score that is missing or was left out.
    x = source_accuracy(models, tidy([*votes, row("b", 60.0)]))
    assert x["measured"].to_dict() == {"a": "", "b": "linear"} and x["source_accuracy"].isna().to_list() == [
        True,
        False,
    ]
    assert source_accuracy(models, tidy(votes), {("linear", "cars")})["source_accuracy"].isna().all()


def test_source_accuracy_is_of_one_protocol_and_setting():
    models = [{"model": name, "source_accuracy": "measured:cars"} for name in ("a", "b")]
    both = tidy([row("a", 60.0), row("b", 50.0), row("b", 40.0) | {"protocol": "linear-r32"}])
    first = source_accuracy(models, both)  # that all models have it, as in release 0.1.0
    assert first["source_accuracy"].to_dict() == {"a": 60.0, "b": 50.0} and set(first["protocol"]) == {"linear"}
    mixed = tidy([row("a", 60.0), row("b", 40.0) | {"protocol": "linear-r32"}])
    with pytest.raises(InputError, match="scores of linear and linear-r32, because .* write measured:linear/cars or"):
        source_accuracy(models, mixed)
    # Models that name it do not mix where others have another protocol, or none.
    assert source_accuracy(models[:1], mixed)["source_accuracy"].to_dict() == {"a": 60.0}
    alone = source_accuracy(models, tidy([row("a", 60.0), row("a", 40.0) | {"protocol": "linear-r32"}]))
    assert alone["source_accuracy"].fillna(0).to_dict() == {"a": 60.0, "b": 0}
    assert alone["protocol"].to_dict() == {"a": "linear", "b": ""}
    named = [one | {"source_accuracy": "measured:linear-r32/cars"} for one in models]
    assert source_accuracy(named, both)["source_accuracy"].fillna(0).to_dict() == {"a": 0, "b": 40.0}
    assert source_datasets(named) == ["cars"]
    published = tidy([row("a", 60.0) | {"source": "published-v2"}, row("b", 40.0) | {"protocol": "linear-r32"}])
    assert source_accuracy(models, published)["source_accuracy"].fillna(0).to_dict() == {"a": 0, "b": 40.0}
    adopted = tidy([row("a", 60.0), row("b", 50.0) | {"source": "elsewhere:c.zip"}])
    assert source_accuracy(models, adopted)["source_accuracy"].to_dict() == {"a": 60.0, "b": 50.0}
    with pytest.raises(InputError, match="names the votes 10-nn, 50-nn of knn; measure 20-nn as well"):
        source_accuracy(models, tidy([vote("a", "10-nn", 60.0), vote("b", "50-nn", 50.0)]))
    with pytest.raises(InputError, match="'measured:other/cars' names a dataset without"):
        source_accuracy([{"model": "a", "source_accuracy": "measured:other/cars"}], both)


@pytest.mark.parametrize("text", ["measured:pets", "seventy", "0", "0.74", "100", "-3"])
def test_wrong_source_accuracy(text):
    with pytest.raises(InputError, match=f"row a, source_accuracy: '{text}'"):
        source_accuracy([{"model": "a", "source_accuracy": text}], tidy([row("a", 60.0)]))


def test_wrong_tidy_table(tmp_path):
    path = tmp_path / "scores.csv"
    pd.DataFrame({"a": [1]}).to_csv(path, index=False)
    with pytest.raises(InputError, match="columns a found"):
        read_scores(path)
    tidy([row("a", float("nan"))]).to_csv(path, index=False)
    with pytest.raises(InputError, match="row 2"):
        read_scores(path)


def test_a_score_is_written_whole_and_its_warnings_to_the_log(tmp_path, caplog):
    cell = {"model": "m", "protocol": "p", "dataset": "d"}
    value = score_file.percent("top1", 50.0)
    measurement = score_file.Measurement("linear", [value], {}, {}, {}, ["look twice"], {"curve": {}})
    score_file.write(tmp_path / "a.json", cell, measurement, {"seed": 0}, {}, {})
    head = cell | {"kind": "linear", "values": [value], "settings": {"seed": 0}, "warnings": ["look twice"]}
    parts = {key: {} for key in ("checkpoint", "preprocessing", "details", "versions", "cost", "curve")}
    found = read_score(tmp_path / "a.json")
    assert re.fullmatch("[0-9a-f]{32}", found.pop("run"))
    new = {"schema": 2, "coverage": None, "schedule": None, "precision": "float32", "device_memory_mib": None}
    assert found == head | parts | new
    assert "look twice" in caplog.text


COVERAGE = {
    "images": {"used": 5, "promised": 10},
    "skipped": 1,
    "classes": {"used": 1, "promised": 2, "left_out": ["cat"]},
}


def test_coverage_schedule_precision_and_device_memory_are_in_the_file(tmp_path):
    cell = {"model": "m", "protocol": "p", "dataset": "d"}
    schedule = score_file.training_schedule("5 epochs, where the paper has 150")
    measurement = score_file.Measurement("normals", [VALUE], {}, {}, {}, [], coverage=COVERAGE, schedule=schedule)
    score_file.write(tmp_path / "a.json", cell, measurement, {"precision": "mixed"}, {}, {"device_memory_mib": 12})
    found = read_score(tmp_path / "a.json")
    assert found["coverage"] == COVERAGE
    assert found["schedule"] == {"shortened": "5 epochs, where the paper has 150"}
    assert (found["precision"], found["device_memory_mib"]) == ("mixed", 12)
    assert score_file.training_schedule("") == "full"


@pytest.mark.parametrize(("trained", "own", "expected"), [(900, 40, 900), (40, 900, 900), (900, None, 900)])
def test_the_memory_of_the_gpu_is_that_of_training_or_evaluation(tmp_path, trained, own, expected):
    """Detections are evaluated on a CPU, the other networks with less memory than their training takes."""
    cell = {"model": "m", "protocol": "p", "dataset": "d"}
    details = {"training_cost": {"device": "cuda", "device_memory_mib": trained}}
    usage = {"device": "cpu"} if own is None else {"device": "cuda", "device_memory_mib": own}
    measurement = score_file.Measurement("normals", [VALUE], {}, {}, details, [])
    score_file.write(tmp_path / "a.json", cell, measurement, {"precision": "tf32"}, {}, usage)
    found = read_score(tmp_path / "a.json")
    assert (found["device_memory_mib"], found["precision"]) == (expected, "tf32")


@pytest.mark.parametrize(
    ("settings", "device", "used", "expected"),
    [
        ({}, "cpu", "", "float32"),
        ({"precision": "bfloat16"}, "cpu", "", "bfloat16"),
        ({"precision": "tf32"}, "cpu", "", "float32"),  # no CPU has it
        ({"precision": "tf32"}, "cuda", "", "tf32"),
        ({"precision": "tf32"}, "cpu", "tf32", "tf32"),  # features of a GPU, classified on a CPU
        ({"of": "linear-bfloat16"}, "cpu", "bfloat16", "bfloat16"),
    ],
)
def test_the_precision_is_the_one_that_was_computed_in(tmp_path, settings, device, used, expected):
    cell = {"model": "m", "protocol": "p", "dataset": "d"}
    measurement = score_file.Measurement("linear", [VALUE], {}, {}, {}, [], precision=used)
    score_file.write(tmp_path / "a.json", cell, measurement, settings, {}, {"device": device})
    assert read_score(tmp_path / "a.json")["precision"] == expected


NEW = {
    "schema": 2,
    "coverage": COVERAGE,
    "schedule": "full",
    "precision": "float32",
    "device_memory_mib": 0,
    "run": "0" * 32,
    "values": [VALUE | {"low": 70.0, "high": 73.0, "method": "Wilson", "level": 0.95}],
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, ""),
        ({"schema": 3}, "schema: 3 found"),
        ({"schema": "2"}, "schema: '2' found"),
        ({"run": None}, "'run' is a required property"),
        ({"coverage": None}, "'coverage' is a required property"),
        ({"coverage": {"images": {"used": 1, "promised": None}}}, "coverage"),
        ({"coverage": COVERAGE | {"images": {"used": -1, "promised": None}}}, "coverage.images.used"),
        ({"schedule": "short"}, "schedule"),
        ({"values": [VALUE | {"low": 70.0, "high": 73.0, "level": 95}]}, r"values\[0\].level"),
    ],
)
def test_form_of_new_score_files(tmp_path, changes, message):
    path = write(tmp_path, **(NEW | changes))
    if not message:
        assert read_score(path)["run"] == "0" * 32
        return
    with pytest.raises(InputError, match=message) as caught:
        read_score(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_versions_of_training_and_evaluation_are_both_named():
    trained = {"python": "3.12", "torch": "2.8", "protocol": 3}
    own = {"python": "3.12", "torch": "2.9", "numpy": "2.0", "protocol": 1}
    expected = {"python": "3.12", "torch": "2.8, 2.9", "numpy": "2.0", "protocol": "3.1"}
    assert score_file.join_versions(trained, own) == expected


def test_captions_name_few_warnings_and_how_far_they_go(tmp_path):
    given = {
        ("few", "m"): {"digits": ["a", "b", "f"], "pets": ["b"], "cars": ["b", "c", "d", "e"]},
        ("few", "n"): {"digits": ["a", "b"], "pets": ["b"], "cars": ["b", "c"]},
        ("large", "m"): {"digits": [], "pets": ["f"], "cars": ["h"]},
        ("large", "n"): {"digits": ["g"], "pets": ["h"], "cars": ["g"]},
    }
    paths = [
        write(tmp_path, f"{cell}-{dataset}.json", protocol=cell[0], model=cell[1], dataset=dataset, warnings=warnings)
        for cell, found in given.items()
        for dataset, warnings in found.items()
    ]
    notes = read_notes(paths)
    text = "few: a (digits); b; f (digits; 1 of 2 scores); and 3 more in the score files."
    assert notes["few"] == {"kind": "linear", "text": text}
    assert (
        notes.pop("large")["text"]
        == "large: f (pets; 1 of 2 scores); h (cars, pets; 2 of 4 scores); g (cars, digits; 2 of 4 scores)."
    )
    cells = pd.DataFrame(columns=["x"])
    protocols = {"few": "few", "few-20-shot": "few", "few-cd-fsl": "few", "few-large": "few-large", "properties": ""}
    tables = [Table(name, "", "Percent.", cells, [Column("x")], protocol=p) for name, p in protocols.items()]
    add_notes(tables, notes)
    assert [table.caption == "Percent." for table in tables] == [False, False, False, True, True]
    add_notes(tables, {"other": {"kind": "inversion", "text": "other: f."}})
    assert [table.caption.endswith("other: f.") for table in tables] == [False, False, False, False, True]


FIRST_RELEASE = sorted((Path(__file__).parent / "scores-0.1.0").rglob("*.json"))
"""Scores of the demo that release 0.1.0 measured, one of each kind."""


def test_scores_of_the_first_release_are_read_and_shown(tmp_path):
    scores = [read_score(path) for path in FIRST_RELEASE]
    kinds = {"attention", "calibration", "detection-frozen", "fewshot", "inversion", "linear", "normals"}
    assert {score["kind"] for score in scores} == kinds and not any("schema" in score for score in scores)
    models = [{"model": "tiny-simclr", "label": "SimCLR", "family": "contrastive", "source_accuracy": ""}]
    make_tables(tmp_path / "tables", FIRST_RELEASE, models, {}, {}, "v2", {}, "")
    shown = pd.read_csv(tmp_path / "tables/scores.csv", keep_default_na=False)
    keys = ["protocol", "dataset", "setting", "metric"]
    found = {tuple(row[key] for key in keys): float(row["value"]) for row in shown.to_dict("records")}
    assert found == {
        (score["protocol"], score["dataset"], value["setting"], value["metric"]): pytest.approx(value["value"])
        for score in scores
        for value in score["values"]
    }


def test_a_score_of_a_later_release_is_one_line(tmp_path):
    path = tmp_path / "linear-r32/tiny-simclr/digits.json"
    path.parent.mkdir(parents=True)
    (old,) = (path for path in FIRST_RELEASE if path.parent.parent.name == "linear-r32")
    path.write_text(json.dumps(json.loads(old.read_text()) | {"schema": 3, "key of tomorrow": 1}))
    with pytest.raises(InputError, match=r"digits\.json: schema: 3 found, .* reads 2 .*update ssltransfer") as caught:
        make_tables(tmp_path / "tables", [path], [], {}, {}, "v2", {}, "")
    assert "\n" not in str(caught.value)

"""Bundles of strangers: what their files claim changes neither values nor names, stops nothing, and is one line."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_adoption import LINEAR, SCORE, adopt, edit, published, rows, suite  # noqa: F401 - a fixture

from ssltransfer.errors import InputError
from ssltransfer.files import MAX_DEPTH, read_json, write_json
from ssltransfer.report.bundle import MANIFEST, read_bundle, write_checksums
from ssltransfer.report.table_folder import make_tables
from ssltransfer.results.marks import partial
from ssltransfer.results.outcome_file import Outcome, load_outcomes, save_outcomes
from ssltransfer.results.outcome_header import read_intervals

OUTCOMES = "outcomes/toy-linear/toy-simclr/digits.npz"


def without_own_model():
    """Take the model out of the user's table, so that only the bundle has it."""
    table = Path("config/models.tsv")
    table.write_text("".join(line for line in table.read_text().splitlines(True) if "toy-simclr" not in line))


def tables():
    make_tables("tables", [], rows(), {}, {}, "v2", {}, "", suite())
    return pd.read_csv("tables/scores.csv").set_index(["model", "dataset"])


def header(**changes):
    interval = {"low": 50.0, "high": 52.0, "method": "Wilson", "level": 0.95}
    texts = {"metric": "top1", "setting": "", "units": "test images", "identity": "a", "note": ""}
    return texts | {"value": 51.0, "scale": 100.0, "interval": interval} | changes


def write_outcomes(path, *entries, text=None, **arrays):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"schema": 1, "outcomes": list(entries)}) if text is None else text
    np.savez(path, header=np.frombuffer(text.encode(), np.uint8), **arrays)


INTERVAL = header()["interval"]
VALUE = {"metric": "top1", "setting": "", "value": 51.0, "unit": "percent"}


@pytest.mark.parametrize(
    "entry",
    [
        header(interval=INTERVAL | {"value": 99.0, "source": "measured", "model": "toy-random"}),
        header(interval=INTERVAL | {"low": "<b>"}),
        header(interval=INTERVAL | {"low": 51.5}),
        header(interval=INTERVAL | {"high": float("inf")}),
        header(interval=INTERVAL | {"level": 2}),
        header(interval=INTERVAL | {"method": "Wilson; surely"}),
        header(interval=[50.0, 52.0]),
        header(value=float("nan")),
        header(value=10**400),
        header(value=True),
        header(scale="100"),
        header(setting=["a"]),
        header(more=1),
        {"metric": "top1"},
        "top1",
    ],
)
def test_an_entry_of_a_header_has_its_keys_and_types_alone(tmp_path, entry):
    write_outcomes(tmp_path / "a.npz", header(), entry)
    for read in (read_intervals, load_outcomes):
        with pytest.raises(InputError, match="entry 1 of its header"):
            read(tmp_path / "a.npz")


def test_outcomes_change_nothing_of_a_score_but_its_interval(published):  # noqa: F811
    lies = {"value": 99.0, "source": "measured", "model": "toy-random"}
    write_outcomes(published / OUTCOMES, header(interval=INTERVAL | lies))
    write_checksums(published)
    score = tables().loc[("toy-simclr", "digits")]
    assert score["value"] == 51.0 and score["source"] == f"elsewhere:{published}"
    assert "interval" not in score or pd.isna(score["interval"])


@pytest.mark.parametrize("text", ["[" * 100_000, '{"schema": 1, "outcomes": {"a": 1}}', '{"schema": 1}', "[]", "\x00"])
def test_a_header_of_another_form_is_one_line(tmp_path, text):
    write_outcomes(tmp_path / "a.npz", text=text)
    for read in (read_intervals, load_outcomes):
        with pytest.raises(InputError, match="its header is not of this version"):
            read(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("arrays", "found"),
    [
        ({"0.values": np.array(["a", "b"])}, "values of outcome 0 is <U1"),
        ({"0.values": np.zeros((2, 2))}, r"values of outcome 0 is float64 \(2, 2\)"),
        ({"0.values": np.array(0.5)}, r"values of outcome 0 is float64 \(\)"),
        ({"0.values": np.zeros(2, complex)}, "values of outcome 0 is complex128"),
        ({"0.values": np.zeros(2, "M8[s]")}, "values of outcome 0 is datetime64"),
        ({"0.replicates": np.zeros((2, 2))}, "replicates of outcome 0 is float64"),
        ({"0.values": np.zeros(2), "0.strata": np.zeros(2)}, "strata of outcome 0 is float64"),
        ({"0.values": np.zeros(2), "0.strata": np.zeros(3, int)}, "2 values and 3 strata"),
        ({"0.strata": np.zeros(3, int)}, "0 values and 3 strata"),
        ({"0.ranks": np.array(["a"])}, "ranks of outcome 0 is <U1"),
    ],
)
def test_arrays_of_outcomes_are_numbers_of_their_units(tmp_path, arrays, found):
    write_outcomes(tmp_path / "a.npz", header(), **arrays)
    with pytest.raises(InputError, match=found) as error:
        load_outcomes(tmp_path / "a.npz")
    assert "\n" not in str(error.value)


def test_outcomes_that_are_as_they_should_be_are_read(tmp_path):
    outcome = Outcome("top1", "", 50.0, "test images", "a", np.array([True, False]), 100.0, np.array([0, 1]))
    save_outcomes(tmp_path / "a.npz", [outcome])
    assert load_outcomes(tmp_path / "a.npz")["", "top1"].values.tolist() == [True, False]


def nested(levels):
    return json.loads('{"a":' * levels + "1" + "}" * levels)


TYPES = [
    ({"preprocessing": {"norm": 5}}, "preprocessing.norm: 5"),
    ({"preprocessing": {"candidates": [1, "imagenet"]}}, r"preprocessing.candidates\[0\]: 1"),
    ({"checkpoint": {"files": ["a"]}}, "checkpoint.files"),
    ({"checkpoint": {"files": {"a": 1}}}, "checkpoint.files.a: 1"),
    ({"checkpoint": {"network": "wide"}}, "checkpoint.network: 'wide'"),
    ({"checkpoint": {"source": ["a"]}}, "checkpoint.source"),
    ({"versions": {"protocol": [1]}}, "versions.protocol"),
    ({"details": {"trained_settings": [1]}}, "details.trained_settings"),
    ({"details": {"labelled": {"10-percent": "many"}}}, "details.labelled"),
    ({"warnings": ["a" * 20_000]}, r"warnings\[0\]"),
    ({"settings": nested(MAX_DEPTH)}, f"over {MAX_DEPTH} levels"),
    ({"model": "toy-simclr\n"}, "model: 'toy-simclr"),
    ({"values": [VALUE | {"setting": "a" * 200}]}, r"values\[0\].setting"),
    ({"values": [VALUE | {"setting": "a\x00"}]}, r"values\[0\].setting"),
    ({"values": [VALUE | {"low": 50.0, "high": 52.0, "method": "Wilson; surely"}]}, r"values\[0\].method"),
]


def test_entries_of_another_type_are_one_line(published):  # noqa: F811
    original = (published / SCORE).read_bytes()
    for change, found in TYPES:
        edit(published, SCORE, lambda content, change=change: content.update(change))
        with pytest.raises(InputError, match=found) as error:
            adopt()
        assert "digits.json" in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 500
        (published / SCORE).write_bytes(original)


def test_numbers_of_images_that_are_none_are_not_counted(published):  # noqa: F811
    for images in ({"train": "a", "test": 30}, {"test": 30}, {"train": [], "test": {}}):
        edit(published, SCORE, lambda content, images=images: content.update(details={"images": images}))
        assert LINEAR in adopt().scores
        assert partial(read_json(published / SCORE), {"train": 1, "val": 1, "test": 1}) == ""


def test_ends_of_an_interval_are_finite(published):  # noqa: F811
    path = published / SCORE
    content = {key: value for key, value in read_json(path).items() if key != "crc32"}
    content["values"][0] |= {"low": 50.0, "high": 777}
    path.write_text(json.dumps(content).replace("777", "1e999"))
    write_checksums(published)
    with pytest.raises(InputError, match="50.0 to inf .* is not finite"):
        adopt()


def test_text_that_cannot_be_written_is_one_line(published):  # noqa: F811
    text = (published / MANIFEST).read_text()
    (published / MANIFEST).write_text(text.replace('"SimCLR"', '"\\ud800"'))
    write_checksums(published)
    with pytest.raises(InputError, match="bundle.json is damaged .*surrogates"):
        read_bundle(str(published))


LINES = [
    ({"label": "a\u202eb"}, "label"),
    ({"label": "a" * 81}, "label"),
    ({"family": "\x1b]0;title\x07"}, "family"),
    ({"reference": "a\x00"}, "reference"),
]


def test_rows_of_models_hold_one_line_of_text(published):  # noqa: F811
    original = (published / MANIFEST).read_bytes()
    for change, found in LINES:
        edit(published, MANIFEST, lambda content, change=change: content["models"]["toy-simclr"].update(change))
        with pytest.raises(InputError, match=f"models.toy-simclr.{found}: found") as error:
            read_bundle(str(published))
        assert str(error.value).isprintable() and len(str(error.value)) < 1000
        (published / MANIFEST).write_bytes(original)


CELLS = [
    {"run": "a", "epoch": "last"},
    {"run": "a", "epoch": "1e999"},
    {"source_accuracy": "inf"},
    {"source_accuracy": "measured:"},
    {"size": "-1"},
    {"source": "pretrain:unheard"},
    {"alternatives": "=https://example.org/a.pth"},
    {"alternatives": "..=https://example.org/a.pth"},
]


def test_a_row_that_figures_cannot_read_is_refused_and_stops_nothing(published):  # noqa: F811
    original = (published / MANIFEST).read_bytes()
    without_own_model()
    for change in CELLS:
        (published / MANIFEST).write_bytes(original)
        edit(published, MANIFEST, lambda content, change=change: content["models"]["toy-simclr"].update(change))
        adoption = adopt()
        assert len(adoption.refused) == 2 and {refusal.key for refusal in adoption.refused} == {"model toy-simclr"}
    assert len(tables()) == 4


def test_what_a_bundle_says_cannot_control_the_terminal(published):  # noqa: F811
    edit(published, MANIFEST, lambda content: content["norms"].update(none="\x1b]0;title\x07"))
    adoption = adopt()
    assert adoption.refused and all(str(refusal).isprintable() for refusal in adoption.refused)


def test_a_score_of_another_kind_is_not_adopted(published):  # noqa: F811
    edit(published, SCORE, lambda content: content.update(kind="calibration"))
    adoption = adopt()
    assert LINEAR not in adoption.scores
    assert [refusal.key for refusal in adoption.refused if "toy-simclr/digits" in refusal.file] == ["kind"]


def test_the_model_of_a_stranger_is_not_the_users_own(published):  # noqa: F811
    edit(published, MANIFEST, lambda content: content["models"]["toy-simclr"].update(source="file:/weights.pth"))
    without_own_model()
    tables()
    models = pd.read_csv("tables/models.csv").set_index("model")
    assert "toy-simclr" in models.index and not models["highlight"].any()


def test_code_that_a_bundle_names_is_not_run(published, tmp_path):  # noqa: F811
    code = tmp_path / "code.py"
    code.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\ndef f(): pass\n")
    changed = {"arch": f"python:{code}:f", "source": "module:own"}
    edit(published, MANIFEST, lambda content: content["models"]["toy-simclr"].update(changed))
    without_own_model()
    assert len(tables()) == 6 and not (tmp_path / "ran").exists()


def test_a_manifest_that_others_could_not_read_is_not_written(tmp_path):
    from ssltransfer.report.bundle import write_manifest

    with pytest.raises(InputError, match="bundle.json: top level: key 'title' is missing"):
        write_manifest(tmp_path, {"name": "a"})
    assert not list(tmp_path.iterdir())


def test_a_json_file_may_have_text_of_all_languages(tmp_path):
    write_json(tmp_path / "a.json", {"a": "\U0001f600 é"})
    assert "\\ud83d" in (tmp_path / "a.json").read_text() and read_json(tmp_path / "a.json") == {"a": "\U0001f600 é"}

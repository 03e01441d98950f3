"""Many models, and data sets of a million images: what grows with them, and by how much."""

import hashlib
import itertools
import json
import tracemalloc
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml
from synthetic_suite import DATASETS, scores

from ssltransfer.analysis.correlation import COEFFICIENTS, leave_one_out
from ssltransfer.analysis.pairs import MANY_MODELS, MOST_OWN, compare_cells, compare_models
from ssltransfer.analysis.suite_results import SHOWN_MODELS, suite_results
from ssltransfer.datasets import index_column, table
from ssltransfer.datasets.index import Index, read_index, write_index
from ssltransfer.datasets.index_checks import check_index
from ssltransfer.datasets.index_hash import index_hash
from ssltransfer.errors import InputError
from ssltransfer.files import json_checksum
from ssltransfer.report.drawing import FigureContext, save_figure
from ssltransfer.report.figures import models_note
from ssltransfer.report.labels import shown_note, suite_labels
from ssltransfer.report.model_figures import model_pairs_figure, radar_figure, rank_figure
from ssltransfer.report.scatter_figures import transfer_figure
from ssltransfer.report.statistics_tables import model_pair_table
from ssltransfer.report.table_folder import read_results, write_results
from ssltransfer.results.outcome_file import Outcome, identity
from ssltransfer.results.score_reader import NUMBERS
from ssltransfer.results.score_schema import SCHEMA
from ssltransfer.results.scores import Task

MANY = 70
TASK = Task("linear-r32", "linear", "digits", "", "top1")
OWN = ["model-41", "model-68"]


def answers(models: int, images: int = 120) -> dict[str, Outcome]:
    rng = np.random.default_rng(0)
    found = {}
    for number in range(models):
        right = rng.random(images) < 0.3 + 0.6 * ((7 * number) % models) / models
        units = {"units": "test images", "identity": identity(np.arange(images)), "values": right, "scale": 100.0}
        found[f"model-{number}"] = Outcome("top1", "", 100 * right.mean(), **units)
    return found


@pytest.fixture(scope="module")
def large():
    """A suite of many models, two of them the user's own."""
    names = [f"model-{number}" for number in range(MANY)]
    rng = np.random.default_rng(1)
    models = [
        {"model": name, "label": name.upper(), "family": f"f{i % 5}", "source_accuracy": f"{rng.uniform(60, 80):.2f}"}
        for i, name in enumerate(names)
    ]
    results = suite_results(scores(models), models, DATASETS, {}, "v2", own=OWN)
    return replace(results, compared=compare_cells([(TASK, answers(MANY))], OWN))


def test_figures_show_the_users_models_and_the_leading_ones(large):
    shown = large.shown_of(large.models["model"])
    assert len(shown) == SHOWN_MODELS and set(OWN) <= set(shown)
    best = [model for model in large.mean_ranks.index if model not in OWN][: SHOWN_MODELS - len(OWN)]
    assert set(shown) == {*OWN, *best}
    assert f"{SHOWN_MODELS} of {MANY} models (the user's own first" in shown_note(large, "Shown:")
    assert "at most 8 of 70 models" in models_note(large, "finetune-grid-finetune-digits")
    for name, others in (
        ("calibration", "grey points"),
        ("similarity-map-a-b", "grey points"),
        ("losses", "not drawn"),
    ):
        assert f"at most {SHOWN_MODELS} of" in models_note(large, name) and others in models_note(large, name)
    few = large.models["model"][:5]  # a figure of models of which none leads shows these
    assert large.shown_of(few) == list(few)


def test_suites_of_usual_size_show_all_models(large):
    kept = large.models.iloc[:MANY_MODELS]
    usual = replace(large, models=kept, scores=large.scores[large.scores["model"].isin(kept["model"])])
    assert usual.shown_of(kept["model"]) == list(kept["model"]) and not models_note(usual, "transfer")


def test_figures_of_many_models_stay_small(large, tmp_path):
    context = FigureContext(large)
    for draw in (rank_figure, radar_figure, model_pairs_figure, transfer_figure):
        assert draw(context).get_figheight() < 9, draw
    drawn = transfer_figure(context)
    (legend,) = drawn.legends
    assert len(legend.get_texts()) == SHOWN_MODELS + 1 and legend.get_texts()[-1].get_text() == "other models"
    points = sum(len(line.get_xdata()) for line in drawn.axes[0].lines if line.get_linestyle() == "None")
    assert points == MANY + len(OWN)  # with the rings of the user's models
    save_figure(drawn, tmp_path, "transfer")
    assert (tmp_path / "transfer.svg").stat().st_size < 250_000


def test_listed_pairs_grow_with_the_models_and_not_with_their_square():
    outcomes = answers(MANY)
    whole = compare_models(outcomes).pairs
    found = compare_cells([(TASK, outcomes)], list(outcomes))
    listed = found.pairs
    assert len(listed) < (2 + MOST_OWN) * MANY < len(whole) == found.compared
    values = pd.Series({model: outcome.value for model, outcome in outcomes.items()})
    order = list(values.sort_values(ascending=False, kind="stable").index)
    pair = {frozenset(names) for names in zip(listed["model"], listed["other"], strict=True)}
    assert {frozenset([order[0], model]) for model in order[1:]} <= pair
    assert {frozenset(names) for names in itertools.pairwise(order)} <= pair
    same = whole.merge(listed, on=["model", "other"], suffixes=("", "_listed"))
    assert len(same) == len(listed) and (same["p_adjusted"] == same["p_adjusted_listed"]).all()
    assert found.decided == whole["better"].ne("").sum()
    few = {model: outcomes[model] for model in order[:MANY_MODELS]}
    assert len(compare_cells([(TASK, few)]).pairs) == MANY_MODELS * (MANY_MODELS - 1) // 2


def test_wins_of_all_pairs_survive_the_table_folder(large, tmp_path):
    table_of_pairs = model_pair_table(large, suite_labels(large))
    assert "pairs-won.csv counts the wins of all pairs" in table_of_pairs.caption
    write_results(large, [table_of_pairs], tmp_path)
    (tmp_path / "correlations.csv").write_text(",".join(["panel", *Task._fields, "note"]) + "\n")
    for written, read in zip(large.wins, read_results(tmp_path).wins, strict=True):
        pd.testing.assert_frame_equal(written, read, check_names=False)


@pytest.mark.parametrize("name", COEFFICIENTS)
def test_leaving_one_model_out_is_the_coefficient_of_the_others(name):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 6, (2, 12)).astype(float)  # with ties
    found = leave_one_out(name, x, y)
    assert found.tolist() == [float(COEFFICIENTS[name](np.delete(x, i), np.delete(y, i))) for i in range(12)]


def test_the_schema_asks_nothing_of_numbers_that_are_not_compared():
    entries = yaml.safe_load(SCHEMA.read_text())["properties"]["values"]["items"]["properties"]
    for name in NUMBERS:
        assert entries[name].keys() <= {"type", "description"}
        assert "number" in entries[name]["type"]


def index_of(count: int) -> Index:
    rows = range(count)
    classes = [f"class {number}" for number in range(50)]
    images = [f"train/{row % 50:03}/n{row % 50:08}_{row:08}.JPEG" for row in rows]
    return Index(images, ["test" if row % 10 == 0 else "train" for row in rows], [row % 50 for row in rows], classes)


def test_labels_are_read_without_the_names_of_the_images(tmp_path):
    count = 100_000
    write_index(tmp_path / "index.parquet", index_of(count))
    read_index(tmp_path / "index.parquet")  # what is imported on the way does not count
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    index = read_index(tmp_path / "index.parquet")
    labels, split = index.label_array(), index.split_array()
    arrow, (_, python) = pa.total_allocated_bytes() - before, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert labels.nbytes + split.nbytes == 28 * count
    # Of 1.3 million images, 36 MB for the arrays, 5 for the labels in the file and a few for the block at hand.
    assert python - labels.nbytes - split.nbytes < 6e6 and arrow < 1e6
    assert (len(index), index.repeated_images, index.image[count - 1]) == (count, 0, index_of(count).image[-1])
    assert index.rows_of(["test"]).tolist() == list(range(0, count, 10))


def test_checksum_and_hash_are_those_of_the_whole_content(tmp_path, monkeypatch):
    monkeypatch.setattr(index_column, "BLOCK", 7)
    index = replace(index_of(50), extra={"box": [[0.5, float(row)] for row in range(50)], "a": ["ü"] * 50})
    write_index(tmp_path / "index.parquet", index)
    read = read_index(tmp_path / "index.parquet")
    columns = {"image": index.image, "split": index.split, "label": index.label, **index.extra}
    metadata = pa.parquet.read_schema(tmp_path / "index.parquet").metadata
    about = {name: metadata[name.encode()].decode() for name in ("classes", "promised", "skipped")}
    assert metadata[b"crc32"].decode() == json_checksum([columns, about])
    assert read == index
    written = json.dumps(
        [index.image, index.split, index.label, index.classes, index.extra], sort_keys=True, separators=(",", ":")
    )
    assert index_hash(tmp_path / "index.parquet") == hashlib.sha256(written.encode()).hexdigest()


def test_a_table_of_many_classes_is_indexed_at_once(tmp_path):
    rows = [(f"{row}.jpg", f"class {(7 * row) % 3000:05}", ("train", "test")[row % 2]) for row in range(6000)]
    text = "\n".join(",".join(row) for row in [("image", "label", "split"), *rows])
    (tmp_path / "table.csv").write_text(text)
    index = table.index(tmp_path / "table.csv")
    assert [index.classes[label] for label in index.label] == [label for _, label, _ in rows]


@pytest.mark.parametrize("other", ["./1.jpg", "a/../1.jpg", ".//1.jpg", "{root}/1.jpg"])
def test_an_image_under_two_spellings_is_found(tmp_path, other):
    images = ["1.jpg", "2.jpg", other.format(root=tmp_path)]
    with pytest.raises(InputError, match="is in train and in test"):
        check_index(Index(images, ["train", "train", "test"], [0, 0, 0], ["c"]), "made", tmp_path)

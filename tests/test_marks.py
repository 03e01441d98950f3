"""Scores of part of the data and of shortened trainings: marked, and out of everything that is derived from scores."""

import io
import json
from dataclasses import replace

import pandas as pd
import pytest
from synthetic_suite import DATASETS, MODELS, scores, suite

from ssltransfer.analysis.comparison import compare, measured_or_published
from ssltransfer.analysis.paper_claims import check_claims
from ssltransfer.analysis.published import LABELS, PROPERTY_DATASETS, merge_models, published_models, published_scores
from ssltransfer.analysis.suite_results import suite_results
from ssltransfer.report.figures import plot_figures
from ssltransfer.report.label_tables import label_tables
from ssltransfer.report.labels import suite_labels
from ssltransfer.report.marks import unsigned_note
from ssltransfer.report.model_table import model_table
from ssltransfer.report.table import marks as best
from ssltransfer.report.table import to_csv, to_html, to_latex
from ssltransfer.report.table_folder import read_results, write_results
from ssltransfer.report.tables import all_tables
from ssltransfer.results.marks import partial, shortened
from ssltransfer.results.scores import CELL, Task, collect_scores, tidy

PROMISED = {"train": 900, "val": 100, "test": 200}
LINEAR = Task("linear-r32", "linear", "digits", "", "top1")


def score(kind="linear", images=None, **more):
    return {"kind": kind, "details": {"images": images}, **more}


def covered(used, promised, skipped=0, left_out=()):
    classes = {"used": 2, "promised": 2, "left_out": list(left_out)}
    return {"images": {"used": used, "promised": promised}, "skipped": skipped, "classes": classes}


@pytest.mark.parametrize(
    ("entry", "promised", "text"),
    [
        (score(coverage=covered(200, 200)), None, ""),
        (score(coverage=covered(20, 200)), None, "20 of 200 test images"),
        (score("fewshot", coverage=covered(20, 1200)), None, "20 of 1200 images"),
        (score(coverage=covered(199, 200, 1)), None, "199 of 200 test images, 1 unreadable images skipped"),
        (score(coverage=covered(9, 200, left_out=["b"])), None, "9 of 200 test images, without classes b"),
        # Few-shot leaves out small classes of complete data, as the paper does.
        (score("fewshot", coverage=covered(1200, 1200, left_out=["b"])), None, ""),
        # An index of an older version does not tell what was promised; the table of datasets does.
        (score(images={"train": 900, "val": 100, "test": 20}, coverage=covered(20, None)), PROMISED,
         "20 of 200 test images"),
        (score(images={"train": 80, "val": 20, "test": 200}, coverage=covered(200, 200)), PROMISED,
         "100 of 1000 training images"),
        (score(coverage=None), PROMISED, ""),
        # Version 0.1.0.
        (score(images={"train": 900, "val": 100, "test": 20}), PROMISED, "20 of 200 test images"),
        (score(images={"train": 1000, "test": 200}), PROMISED, ""),
        (score("fewshot", 120), PROMISED, "120 of 1200 images"),
        (score("inversion", {"cat.png": {"psnr": 9.0}}), PROMISED, ""),
        (score(images={"train": 1, "val": 0, "test": 1}), None, ""),
        # A row that leaves counts to the index.
        (score(images={"train": 1, "val": 0, "test": 1}), dict.fromkeys(PROMISED), ""),
        (score(images={"train": 80, "val": 20, "test": 9}), PROMISED | {"test": None}, "100 of 1000 training images"),
        (score("fewshot", 120), PROMISED | {"val": None}, ""),
    ],
)  # fmt: skip
def test_what_is_missing_is_said_in_words(entry, promised, text):
    assert partial(entry, promised) == text


def test_a_shortened_schedule_is_said_in_words():
    assert shortened({"schedule": {"shortened": "5 epochs"}}) == "5 epochs"
    assert shortened({"schedule": "full"}) == shortened({"schedule": None}) == shortened({}) == ""


def test_marks_reach_the_tidy_table(tmp_path):
    entry = {
        "model": "a", "protocol": "p", "dataset": "d", "kind": "linear", "details": {"images": {"test": 2, "train": 1}},
        "values": [{"metric": "top1", "setting": "", "value": 1.0, "unit": "percent"}],
    }  # fmt: skip
    (tmp_path / "score.json").write_text(json.dumps(entry))
    table = collect_scores([tmp_path / "score.json"], {"d": {"train": 1, "val": 0, "test": 20}})
    assert table["partial"].tolist() == ["2 of 20 test images"]
    assert collect_scores([tmp_path / "score.json"])["partial"].tolist() == [""]


def marked_suite(mark="partial", which="dataset == 'digits' and kind == 'linear' and model == 'swav'", text="2 of 9"):
    table = scores()
    table.loc[table.eval(which), mark] = text
    return suite_results(table, MODELS, {"digits": "Digits", "textures": "Textures"}, {}, "v2")


def made(results, with_paper=False):
    return {table.name: table for table in all_tables(results, with_paper)}


def test_a_partial_score_is_shown_with_a_sign_and_enters_nothing():
    results = marked_suite()
    tables, whole = made(results), made(suite())
    table = tables["linear-r32"]
    assert table.cells.loc["swav", LINEAR] == whole["linear-r32"].cells.loc["swav", LINEAR]
    assert table.flags["swav", LINEAR] == "partial" and "2 of 9" in table.caption and "‡" in table.caption
    assert "<sup>‡</sup>" in to_html(table) and r"\ddagger" in to_latex(table)
    assert pd.read_csv(io.StringIO(to_csv(table)), index_col=0)["Digits remark"].dropna().tolist() == ["2 of 9"]
    averages = table.cells.iloc[:, -1]
    assert averages.index[averages.isna()].tolist() == ["swav"]
    row = results.correlations.set_index(["protocol", "dataset"]).loc["linear-r32"]
    assert row["n"].to_dict() == {"digits": 4, "textures": 5, "average": 4}
    assert tables["mean-ranks"].cells["Tasks"].eq(3).all() and whole["mean-ranks"].cells["Tasks"].eq(4).all()
    for name in ("correlations", "mean-ranks", "pairs-pearson"):
        assert "1 of 45 scores" in tables[name].caption
    assert all("remark" not in to_csv(t) and "‡" not in t.caption for t in whole.values())


def test_tables_without_signs_say_which_scores_are_no_full_measurements():
    """Curves of few labels and estimators are no tables of models x tasks."""
    table = marked_suite(which="dataset == 'digits'").scores
    table.loc[(table["dataset"] == "textures") & (table["model"] == "swav"), "shortened"] = "5 epochs"
    labels = suite_labels(marked_suite())
    note = unsigned_note(table, labels)
    assert (
        note
        == "Measured on part of the data: Digits (2 of 9). After a shortened training: SwAV_2 on Textures (5 epochs)."
    )
    assert unsigned_note(scores(), labels) == ""
    curves = pd.DataFrame(
        {
            "protocol": "labels",
            "dataset": "digits",
            "metric": "top1",
            "classifier": "linear",
            "model": ["swav", "simclr"],
        }
        | {"setting": "all", "images": 9.0, "value": [1.0, 2.0], "low": 0.0, "high": 3.0}
    )
    assert all(note in table.caption for table in label_tables(curves, labels, note))
    estimates = table[table["kind"].eq("linear")].assign(kind="estimators", protocol="estimators", metric="log-me")
    results = suite_results(pd.concat([scores(), estimates]), MODELS, DATASETS, {}, "v2")
    captions = {table.name: table.caption for table in made(results).values()}
    assert "Measured on part of the data: Digits (2 of 9)" in captions["estimators-estimators-digits"]
    assert "Measured on part" not in captions["estimators-estimators-shapes"]
    assert "Measured on part of the data: Digits (2 of 9)" in captions["predictors"]


def test_a_partial_score_is_neither_best_nor_second():
    results = marked_suite(which="dataset == 'digits' and kind == 'linear'")
    assert best(made(results)["linear-r32"])[LINEAR].eq("").all()


def test_a_partial_source_score_is_no_source_accuracy():
    results = marked_suite(which="dataset == 'shapes' and kind == 'linear' and model == 'swav'")
    assert results.models.set_index("model")["source_accuracy"].isna().to_dict() == {
        row["model"]: row["model"] == "swav" for row in MODELS
    }


def test_without_a_full_score_there_are_tables_of_scores_and_figures_of_nothing(tmp_path):
    results = marked_suite(which="kind == kind")
    tables = made(results)
    assert "mean-ranks" not in tables and results.correlations["pearson"].isna().all()
    assert len(tables["linear-r32"].cells) == 5 and tables["linear-r32"].cells.iloc[:, -1].isna().all()
    write_results(results, list(tables.values()), tmp_path / "tables")
    (tmp_path / "tables/notes.json").write_text("{}")
    again = read_results(tmp_path / "tables")
    pd.testing.assert_frame_equal(again.scores, results.scores)
    plot_figures(tmp_path / "figures", tmp_path / "tables", [], [], {})
    assert [path.name for path in (tmp_path / "figures").glob("*.svg")] == []


def test_columns_of_marks_are_written_only_where_a_score_has_one(tmp_path):
    write_results(suite(), [], tmp_path)
    assert (tmp_path / "scores.csv").read_text().splitlines()[0].endswith(",source")
    write_results(marked_suite(), [], tmp_path)
    assert (tmp_path / "scores.csv").read_text().splitlines()[0].endswith(",source,partial")


def byol_again(kind, mark="", **changes):
    """BYOL measured again in all published tasks of a kind, one of them marked."""
    published = published_scores("v2")
    own = published[(published["model"] == "byol") & (published["kind"] == kind)].reset_index(drop=True)
    own = own.assign(source="measured", **changes)
    if mark:
        own.loc[0, mark] = "a part"
    return pd.concat([own, published], ignore_index=True), own


@pytest.mark.parametrize("mark", ["partial", "shortened"])
@pytest.mark.parametrize("kind", [pytest.param("fewshot", marks=pytest.mark.slow), "normals"])
def test_a_marked_score_is_compared_without_a_verdict(kind, mark):
    table, own = byol_again(kind, mark)
    found = compare(table)
    first = (found[CELL[2:]] == own.loc[0, CELL[2:]].tolist()).all(axis=1)
    assert found.loc[first, "verdict"].tolist() == ["not judged"] and found.loc[first, mark].tolist() == ["a part"]
    assert set(found.loc[~first, "verdict"]) == {"agrees" if kind == "fewshot" else "not stated"}
    results = suite_results(table, merge_models([]), LABELS, {}, "v2")
    assert results.shown.loc["byol", tuple(own.loc[0, CELL[1:]])] == own.loc[0, "value"]
    assert pd.isna(results.tasks.matrix.loc["byol", tuple(own.loc[0, CELL[1:]])])
    assert results.tasks.matrix.notna().sum().sum() == results.shown.notna().sum().sum() - 1
    beside = [t for name, t in made(results, with_paper=True).items() if name.startswith("comparison-")]
    assert sum(mark in flag for t in beside for flag in t.flags.values()) == 1
    assert any("a part" in t.caption for t in beside)


def test_shortened_scores_stay_among_others_that_were_measured_here():
    results = marked_suite("shortened", "dataset == 'digits' and kind == 'linear'")
    assert results.tasks.matrix.notna().all(axis=None)
    tables = made(results)
    assert "<sup>§</sup>" in to_html(tables["linear-r32"]) and "‡" not in to_html(tables["linear-r32"])
    assert set(best(tables["linear-r32"])[LINEAR]) == {"best", "second", ""}
    assert "shortened alike for all models: Many-shot linear" in tables["correlations"].caption


def test_an_average_with_a_partial_score_is_partial():
    published = published_scores("v2")
    own = published[(published["kind"] == "calibration") & (published["model"] == "byol")]
    parts = [own.assign(dataset=dataset, source="measured") for dataset in sorted(PROPERTY_DATASETS["calibration"])]
    table = pd.concat([*parts, published], ignore_index=True)
    table.loc[0, "partial"] = "a part"
    results = suite_results(table, merge_models([]), LABELS, {}, "v2")
    unequal = results.shown.loc["byol"].notna() & results.tasks.matrix.loc["byol"].isna()
    assert [(task.dataset, task.setting) for task in map(Task._make, unequal.index[unequal])] == [
        ("average", table.loc[0, "setting"])
    ]
    found = compare(table)
    assert found.loc[found["verdict"] == "not judged", "partial"].tolist() == ["aircraft: a part"]


@pytest.mark.parametrize("mark", ["partial", "shortened"])
def test_a_claim_with_a_marked_score_is_not_judged(mark):
    statement = "Q3: DeepCluster-v2, BYOL and SwAV lead the linear tasks"
    measured = published_scores("v2").assign(source="measured")
    assert judged(measured, statement) == "holds"
    cell = (measured["kind"] == "linear") & (measured["model"] == "byol") & (measured["dataset"] == "cars")
    measured.loc[cell, mark] = "a part"
    assert judged(measured, statement) == ""


def judged(measured, statement):
    claims = check_claims(measured)
    rows = claims[(claims["statement"] == statement) & claims["version"].str.endswith("v2")]
    return rows["measured_verdict"].iloc[0]


def caltech(*datasets, protocol="linear"):
    """A suite that measures BYOL and an own model on datasets of Caltech-101, beside published scores."""
    rows = [
        {"model": model, "protocol": protocol, "kind": "linear", "dataset": dataset, "setting": "",
         "metric": "mean-per-class", "value": 90.0 + len(dataset), "source": "measured"}
        for dataset in datasets for model in ("byol", "mine")
    ]  # fmt: skip
    published = published_scores("v2")
    return pd.concat([tidy(rows), published[published["kind"] == "linear"]], ignore_index=True)


def test_the_official_split_of_caltech_is_compared_with_the_published_scores():
    found = compare(caltech("caltech101-official", "caltech101")).set_index("dataset")
    assert set(found.index) == {"caltech101-official", "caltech101"}
    assert set(found["verdict"]) == {"not judged"} and found["published"].nunique() == 1
    assert found.loc["caltech101-official", "note"] == ""
    assert "caltech101-official" in found.loc["caltech101", "note"]
    assert found["rerun"].tolist() == pytest.approx([0.93, 0.93], abs=0.002)


def test_both_splits_of_caltech_leave_the_averages_as_they_are():
    own = {"model": "mine", "label": "Mine", "family": "own", "source_accuracy": "70"}
    both = suite_results(caltech("caltech101-official", "caltech101"), merge_models([own]), LABELS, {}, "v2")
    one = suite_results(caltech("caltech101"), merge_models([own]), LABELS, {}, "v2")
    assert both.tasks.panel_means["linear"].notna().sum() == one.tasks.panel_means["linear"].notna().sum() == 14
    table = made(both)["linear"]
    heads = list(table.labelled(table.cells).columns)
    assert ("Other split", "Caltech-101") in heads and ("", "caltech101-official") in heads
    assert table.cells.iloc[:, -1].notna().sum() == 14
    assert len(both.tasks.counted) == 11
    cells = measured_or_published(caltech("caltech101-official"))
    assert cells[cells["dataset"].str.startswith("caltech")].groupby("dataset").size().to_dict() == {
        "caltech101-official": 15
    }


def test_the_official_split_counts_as_the_papers_dataset_in_claims_and_means():
    statement = "Q3: DeepCluster-v2, BYOL and SwAV lead the linear tasks"
    measured = published_scores("v2").assign(source="measured")
    rename = {"caltech101": "caltech101-official"}
    official = measured.assign(dataset=measured["dataset"].replace(rename).where(measured["kind"] == "linear"))
    assert judged(official.fillna({"dataset": measured["dataset"]}), statement) == "holds"
    published = published_scores("v2")
    own = published[(published["kind"] == "calibration") & (published["model"] == "byol")]
    datasets = [rename.get(name, name) for name in PROPERTY_DATASETS["calibration"]]
    for names, count in ((datasets, 4), ([*datasets, "caltech101"], 0)):
        parts = [own.assign(dataset=name, source="measured") for name in names]
        assert len(compare(pd.concat([*parts, published]))) == count


def test_the_models_of_a_suite_are_described():
    rows = {
        "mine": {"arch": "resnet-1x1x1x1-w4", "source": "pretrain:none", "sha256": "", "licence": "MIT"},
        "swav": {"arch": "resnet50-same", "source": "https://a/b.pth", "sha256": "md5:0", "licence": ""},
        "pirl": {"arch": "python:net.py:build", "source": "=x", "sha256": "md5:1", "licence": ""},
    }
    own = {"model": "mine", "label": "Mine", "family": "own", "source_accuracy": "70"}
    results = suite_results(published_scores("v2"), merge_models([own]), LABELS, {}, "v2")
    rows["swav"]["alternatives"] = "torchvision=https://c/c.pth"
    swav = {"files": {"b.pth": "abc", "c.pth": "def"}, "source": "https://a/b.pth"}
    copied = model_table(results, rows, {"swav": swav | {"source": "https://c/c.pth"}})
    assert (copied.cells.loc["swav", "source"], copied.cells.loc["mine", "source"]) == (
        "https://c/c.pth",
        "pretrain:none",
    )
    table = model_table(results, rows, {"swav": swav})
    assert table.cells.loc["swav", "source"] == "https://a/b.pth"
    found = pd.read_csv(io.StringIO(to_csv(table)), index_col="model", keep_default_na=False)
    paper = dict.fromkeys((row["model"] for row in published_models()), "2048")
    assert found["width"].to_dict() == paper | {"mine": "128", "pirl": "–"}
    assert found["architecture"].to_dict() == {
        model: rows.get(model, {"arch": "resnet50"})["arch"] for model in found.index
    }
    assert found["checksum"].to_dict() == dict.fromkeys(found.index, "") | {"swav": "abc def", "pirl": "md5:1"}
    assert found.loc["mine", ["label", "family", "licence"]].tolist() == ["Mine", "own", "MIT"]
    assert found.loc["pirl", "source"] == "'=x" and found.loc["byol", "source"].startswith("published")


FORMULAS = ["=1+1", "+cmd|' /C calc'!A0", "-Mine", "@SUM(1)", "\tTab", "'=quoted", "'plain", "-0.5", "Mine"]


def test_no_cell_of_a_csv_is_a_formula_and_labels_survive(tmp_path):
    models = [
        row | {"label": label, "family": label}
        for row, label in zip([*MODELS, *({**MODELS[0], "model": f"m{i}"} for i in range(4))], FORMULAS, strict=True)
    ]
    results = suite_results(scores(models), models, {"digits": "=Digits", "textures": "@t", "shapes": "-S"}, {}, "v2")
    write_results(results, list(made(results).values()), tmp_path)
    assert read_results(tmp_path).models["label"].tolist() == FORMULAS
    assert read_results(tmp_path).models["family"].tolist() == FORMULAS
    for path in tmp_path.glob("*.csv"):
        cells = pd.read_csv(path, header=None, dtype=str, keep_default_na=False).to_numpy().ravel()
        risky = [cell for cell in cells if cell[:1] in ("=", "+", "-", "@", "\t", "\r")]
        assert all(pd.notna(pd.to_numeric(cell, errors="coerce")) for cell in risky), (path.name, risky)
    assert replace(results).models["label"].tolist() == FORMULAS  # writing changes nothing

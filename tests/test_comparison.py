import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from ssltransfer.analysis.comparison import agreement, compare, measured_or_published
from ssltransfer.analysis.paper_claims import check_claims
from ssltransfer.analysis.published import (
    LABELS,
    PROPERTY_DATASETS,
    merge_models,
    published_models,
    published_scores,
)
from ssltransfer.analysis.suite_results import suite_results
from ssltransfer.report.table import to_html
from ssltransfer.report.tables import all_tables
from ssltransfer.results.scores import Task, tidy

CELLS = {"cells": 0, "agrees": 0, "differs": 0, "not stated": 0, "not judged": 0}
OWN = {"model": "mine", "label": "Mine", "family": "own", "source_accuracy": "70"}


@pytest.fixture(scope="module")
def suite():
    """BYOL measured again on the linear and few-shot tasks, and a model of the user's own."""
    published = published_scores("v2")
    byol = published[(published["model"] == "byol") & published["kind"].isin(["linear", "fewshot"])]
    again = byol.assign(source="measured", protocol=byol["kind"] + "-again", value=byol["value"] + 0.5)
    again.loc[again["kind"] == "linear", ["low", "high"]] = np.nan
    shift = {"low": again["value"] - 0.6, "high": again["value"] + 0.6}
    again = again.assign(**{k: v.where(again["kind"] == "fewshot") for k, v in shift.items()})
    far = (again["dataset"] == "cars") & (again["kind"] == "linear")
    again.loc[far, "value"] += 5
    mine = again.assign(model="mine")
    scores = pd.concat([again, mine, published], ignore_index=True)
    return suite_results(scores, merge_models([OWN]), LABELS, {}, "v2")


@pytest.fixture(scope="module")
def tables(suite):
    return {table.name: table for table in all_tables(suite, with_paper=True)}


def test_properties_of_a_few_images_stand_beside_the_papers_averages():
    published = published_scores("v2")
    published = published[published["kind"].isin(["inversion", "attention"])]
    own = published[published["model"] == "byol"]
    own = own.assign(source="measured", dataset="fifteen-images", value=own["value"] + 0.01)
    scores = pd.concat([own, published], ignore_index=True)
    found = compare(scores)
    assert len(found) == 7 and set(found["verdict"]) == {"not stated"}
    np.testing.assert_allclose(found["difference"], 0.01)
    suite = suite_results(scores, published_models(), LABELS, {}, "v2")
    table = next(t for t in all_tables(suite, with_paper=True) if t.name == "properties")
    assert (table.cells.shape[0], len(table.footer.columns)) == (14, table.cells.shape[1])
    assert table.flags["insdis", table.cells.columns[-1]] == "published"
    assert ("byol", table.cells.columns[-1]) not in table.flags
    assert table.footer.iloc[0, -1] == pytest.approx(0.09, abs=0.02)  # attentive diffusion, as printed


def test_cells_agree_inside_the_stated_interval(suite):
    found = compare(suite.scores)
    assert set(found["model"]) == {"byol"}
    assert len(found) == 11 + 39
    few = found[found["kind"] == "fewshot"]
    assert (few["half_width"] > 0.6).all()
    assert few["verdict"].eq("agrees").all()


def test_without_any_interval_nothing_is_judged(suite):
    normals = suite.scores[suite.scores["kind"] == "normals"]
    both = pd.concat([normals, normals.assign(source="measured")])
    assert compare(both)["verdict"].eq("not stated").all()


def test_measured_properties_are_compared_as_means_over_data_sets(suite):
    published = suite.scores[(suite.scores["kind"] == "calibration") & (suite.scores["model"] == "byol")]
    cells = [
        published.assign(dataset=d, source="measured", value=published["value"] + i)
        for i, d in enumerate(PROPERTY_DATASETS["calibration"])
    ]
    found = compare(pd.concat([*cells, published]))
    assert found["difference"].tolist() == pytest.approx([4.5] * 4)


@pytest.mark.parametrize(
    ("kind", "datasets"),
    [
        ("calibration", sorted(PROPERTY_DATASETS["calibration"])[1:]),
        ("calibration", [*PROPERTY_DATASETS["calibration"], "mine"]),
        ("attention", ["my-images"]),
    ],
)
def test_properties_of_other_data_sets_stand_alone(kind, datasets):
    published = published_scores("v2")
    rows = published[published["kind"] == kind]
    own = pd.concat([rows.assign(dataset=d, source="measured", value=rows["value"] + 1) for d in datasets])
    byol = own[own["model"] == "byol"]
    suite = suite_results(pd.concat([byol, rows]), published_models(), LABELS, {}, "v2")
    assert suite.tasks.matrix.xs(kind, axis=1, level="kind").dropna(how="all").index.tolist() == ["byol"]
    assert compare(suite.scores).empty
    assert "comparison" in {table.name for table in all_tables(suite, with_paper=True)}
    claims = check_claims(own)
    assert set(claims["measured_verdict"]) == {""}
    paper = [rows.assign(dataset=d, source="measured") for d in PROPERTY_DATASETS[kind]]
    assert set(check_claims(pd.concat(paper))["measured_verdict"]) > {""}


def row(model, source, value, protocol="linear"):
    return {
        "model": model, "protocol": protocol, "kind": "linear", "dataset": "cars", "setting": "", "metric": "top1",
        "value": value, "source": source,
    }  # fmt: skip


def test_measured_comes_before_published_and_published_fills_every_protocol():
    rows = [
        row("mine", "measured", 60.0, "linear-official"),
        row("byol", "measured", 57.0, "linear-official"),
        row("byol", "published-v2", 56.0),
        row("swav", "published-v2", 58.0),
    ]
    both = measured_or_published(tidy(rows)).set_index("model")
    assert both["value"].to_dict() == {"mine": 60.0, "byol": 57.0, "swav": 58.0}
    assert set(both["protocol"]) == {"linear-official"}


def test_measured_or_published_with_one_source_changes_nothing():
    for source in ("measured", "published-v1"):
        frame = tidy([row("a", source, 1.0), row("b", source, 2.0)])
        assert_frame_equal(measured_or_published(frame), frame)
    assert measured_or_published(tidy([])).empty


def test_counts(suite):
    counts = agreement(compare(suite.scores))
    assert counts.loc["fewshot-again"].to_dict() == dict(CELLS, cells=39, agrees=39)
    assert counts.loc["linear-again"].to_dict() == dict(CELLS, cells=11) | {"not judged": 11}


def test_a_measured_interval_alone_gives_no_verdict():
    """The paper states none for detection, so the noise of its own number is unknown."""
    published = published_scores("v2")
    row = published[(published["kind"] == "detection-frozen") & (published["metric"] == "ap50")].iloc[:1]
    value = row["value"].iloc[0] + 5
    ours = row.assign(source="measured", protocol="frozen", value=value, low=value - 1, high=value + 1)
    compared = compare(pd.concat([published, ours], ignore_index=True)).iloc[0]
    assert compared["difference"] == pytest.approx(5)
    assert compared["verdict"] == "not stated" and np.isnan(compared["half_width"])


def test_tables_show_both_and_colour_the_difference(tables):
    names = [name for name in tables if name.startswith("comparison")]
    assert names == [
        "comparison", "comparison-linear-again", "comparison-fewshot-again-5-shot", "comparison-fewshot-again-20-shot",
        "comparison-fewshot-again-50-shot",
    ]  # fmt: skip
    html = to_html(tables["comparison-fewshot-again-5-shot"])
    assert html.count('class="agrees"') == 14
    html = to_html(tables["comparison-linear-again"])
    assert "agrees" not in html and "differs" not in html


def test_linear_scores_are_not_judged_but_stand_beside_the_change_of_the_authors_rerun(suite, tables):
    found = compare(suite.scores)
    linear = found[found["kind"] == "linear"].set_index("dataset")
    assert set(linear["verdict"]) == {"not judged"}
    assert linear.loc["cars", ["difference", "rerun"]].tolist() == pytest.approx([5.5, 3.19], abs=0.005)
    assert found.loc[found["kind"] != "linear", "rerun"].isna().all()
    table = tables["comparison-linear-again"].labelled(tables["comparison-linear-again"].cells)
    assert table["Cars"].columns.tolist() == ["published", "measured", "difference", "rerun"]


def test_a_model_of_the_users_own_is_a_highlighted_row(suite, tables):
    assert suite.models.set_index("model")["highlight"].to_dict()["mine"]
    assert suite.models["highlight"].sum() == 1
    linear = tables["linear-again"]
    assert list(linear.labelled(linear.cells).index)[-1] == "Mine"
    cars = Task("linear-again", "linear", "cars", "", "top1")
    assert linear.flags["swav", cars] == "published"
    assert ("byol", cars) not in linear.flags
    assert suite.tasks.matrix.loc["mine"].notna().sum() == 50


def test_detection_stands_next_to_the_published_tables():
    # A protocol of any name: its kind decides which columns of Table 3 (v1) or Table 4 (v2) it belongs to.
    for version in ("v1", "v2"):
        published = published_scores(version)
        published = published[published["kind"].str.startswith("detection")]
        rows = published[published["model"] == "swav"]
        own = rows.assign(source="measured", protocol=rows["kind"] + "-torchvision", value=rows["value"] + 1)
        scores = pd.concat([own, own.assign(model="mine"), published], ignore_index=True)
        found = suite_results(scores, merge_models([OWN]), LABELS, {}, version)
        tables = {table.name: table for table in all_tables(found, with_paper=True)}
        table = tables["detection"].labelled(tables["detection"].cells)
        assert list(table.columns) == [
            (f"Detection ({trained})", metric)
            for trained in ("frozen", "finetune")
            for metric in ("AP", "AP50", "AP75")
        ]
        assert len(table) == 14 + 1 and table.loc["SwAV"].equals(table.loc["Mine"].rename("SwAV"))
        for trained in ("frozen", "finetune"):
            beside = tables[f"comparison-detection-{trained}-torchvision"]
            beside = beside.labelled(beside.cells)
            assert beside.index.tolist() == ["SwAV"]
            assert beside.xs("difference", axis=1, level=1).to_numpy() == pytest.approx(np.ones((1, 3)))
            assert beside["AP50"].loc["SwAV", "measured"] == table.loc["SwAV", (f"Detection ({trained})", "AP50")]

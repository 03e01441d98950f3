import io
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from synthetic_suite import DATASETS, MODELS, PRETRAINED_ON, scores, suite

from ssltransfer.analysis.suite_results import suite_results
from ssltransfer.report.labels import suite_labels
from ssltransfer.report.table import Column, Table, latex_text, marks, to_csv, to_html, to_latex
from ssltransfer.report.table_folder import read_results, write_results
from ssltransfer.report.tables import all_tables, domain_table, score_tables

EPISODES = [
    {"model": model, "protocol": "few", "dataset": "digits", "setting": "5-shot", "queries": 75, "correct": correct}
    for model, correct in (("random", [30, 31, 29]), ("simclr", [60, 62, 59]), ("swav", [60, 61, 60]))
]


def made(results, episodes=()):
    return {table.name: table for table in all_tables(results, list(episodes), with_paper=False)}


def write(results, folder):
    write_results(results, list(made(results).values()), folder)


def table(values: dict, better=1):
    cells = pd.DataFrame(values, index=[f"m{i}" for i in range(len(next(iter(values.values()))))])
    return Table("t", "T", "c", cells, [Column(name, better=better) for name in values])


@pytest.fixture
def tables():
    return made(suite(), EPISODES)


def test_ties_after_rounding_share_a_mark():
    marked = marks(table({"a": [1.001, 3.0, 2.0, 2.004, np.nan]}))
    assert marked.iloc[:, 0].tolist() == ["", "best", "second", "second", ""]


def test_a_table_without_rows_is_written():
    empty = table({"a": []})
    assert marks(empty).empty and "<tbody>" in to_html(empty) and to_csv(empty).strip() == "row,a"


def test_lower_is_better():
    assert marks(table({"a": [1.0, 3.0, 2.0]}, better=-1)).iloc[:, 0].tolist() == ["best", "", "second"]


def test_a_table_without_rows_has_no_marks():
    assert marks(table({"a": []})).empty


def test_one_table_for_each_protocol_and_shot(tables):
    assert list(tables) == [
        "linear-r32", "fewshot-r32-5-shot", "fewshot-r32-20-shot", "domain-vs-transfer", "correlations", "mean-ranks",
        "pairs-pearson", "pairs-spearman", "fewshot-pairs",
    ]  # fmt: skip


def test_average_leaves_the_source_data_set_out(tables):
    cells = tables["linear-r32"].labelled(tables["linear-r32"].cells)
    assert list(cells.columns) == [("Source", "Shapes"), ("", "Digits"), ("", "Textures"), ("", "Avg.")]
    assert np.allclose(cells["", "Avg."], (cells["", "Digits"] + cells["", "Textures"]) / 2)


def test_intervals_are_printed_and_in_the_csv(tables):
    assert "± 0.50" in to_html(tables["fewshot-r32-5-shot"])
    csv = pd.read_csv(io.StringIO(to_csv(tables["fewshot-r32-5-shot"])), index_col=0)
    assert np.allclose(csv["Digits ci95"], 0.5)
    assert "Avg. ci95" not in csv


def test_missing_cell_leaves_its_average_empty():
    results = replace(suite(), scores=suite().scores.drop(0))
    linear = next(table for table in score_tables(results, suite_labels(results)) if table.name == "linear-r32")
    assert linear.cells.loc["random"].isna().sum() == 2
    assert to_html(linear).count("–") == 2


def test_markup_in_names_is_escaped(tables):
    html = to_html(tables["linear-r32"])
    assert "&lt;b&gt;&amp;" in html
    assert "<b>" not in html
    latex = to_latex(tables["linear-r32"])
    assert r"SwAV\_2" in latex
    assert r"$<$b$>$\&" in latex


def test_latex_text():
    assert latex_text("50% ± 2_a ~{x}") == r"50\% $\pm$ 2\_a \textasciitilde{}\{x\}"


def test_latex_takes_no_label_for_an_argument():
    assert latex_text("[5mm] *mine*") == "{[}5mm] {*}mine{*}"


def test_latex_marks_and_shape():
    lines = to_latex(table({"a": [1.0, 2.0], "b": [4.0, 3.0]})).splitlines()
    assert lines[0] == r"\begin{tabular}{lrr}"
    assert lines[4] == r"m0 & \underline{1.00} & \textbf{4.00} \\"


def test_domain_table_compares_own_and_other_domains():
    results = suite()
    domains = domain_table(results, suite_labels(results))
    assert list(domains.cells.index) == ["simclr-textures", "supervised", "simclr", "swav"]
    assert "†" in to_html(domains)
    textures = domains.cells.iloc[:, 0]
    assert domains.footer.iloc[0, 0] == pytest.approx(textures["simclr-textures"])
    assert domains.footer.iloc[1, 0] == pytest.approx(textures.drop("simclr-textures").mean())
    assert domain_table(replace(results, pretrained_on={"simclr": "shapes"}), suite_labels(results)) is None


def test_without_a_score_of_a_pretrained_model_no_domain_is_compared():
    results = replace(suite(), scores=suite().scores.query("model == 'random'"))
    assert domain_table(results, suite_labels(results)) is None


def test_models_with_one_label_are_told_apart():
    """By the same names in all tables, also in tables of some models only."""
    models = [row | {"label": "Random" if row["model"] == "random" else "Twin"} for row in MODELS]
    texts = [to_html(table) for table in made(suite(models), EPISODES).values()]
    found = {text for html in texts for text in re.findall(r"\b(?:Random|Twin)\b(?: \([\w-]+\))?", html)}
    assert found == {"Random", *(f"Twin ({row['model']})" for row in MODELS[1:])}
    assert sum("without Twin (" in html for html in texts) == 1


def test_datasets_with_one_label_are_told_apart():
    names = DATASETS | {"digits": "Same", "textures": "Same", "unused": "Shapes"}
    tables = made(suite_results(scores(), MODELS, names, PRETRAINED_ON, "v2"))
    headings = [column.heading for column in tables["linear-r32"].columns]
    assert {"Same (digits)", "Same (textures)", "Shapes"} <= set(headings)


def test_results_survive_the_folder(tmp_path):
    results = suite()
    write(results, tmp_path)
    again = read_results(tmp_path)
    pd.testing.assert_frame_equal(again.scores, results.scores)
    pd.testing.assert_frame_equal(again.models, results.models)
    assert again.leave_out == results.leave_out
    assert again.saved_correlations is not None
    pd.testing.assert_frame_equal(again.correlations, results.correlations, check_dtype=False)
    for name in ("scores", "models", "correlations", "linear-r32"):
        assert (tmp_path / f"{name}.csv").exists()


def test_two_models_only_give_tables_and_no_correlation(tmp_path):
    write(suite(MODELS[:2]), tmp_path)
    rows = read_results(tmp_path).correlations
    assert set(rows["note"]) == {"fewer than 3 models"}
    assert rows["pearson"].isna().all()


def test_images_of_the_source_under_other_labels_are_no_target():
    found = suite_results(scores(), MODELS, DATASETS, PRETRAINED_ON, "v2", {"digits": "shapes", "textures": "digits"})
    assert found.leave_out == ("shapes", "digits")
    assert found.source_label == "Linear accuracy on Shapes (%)"
    assert set(found.correlations["dataset"]) == {"textures"}


def test_ranks_and_pairs_say_which_tasks_they_leave_out():
    kept = ~((scores()["dataset"] == "digits") & scores()["model"].isin(["random", "swav"]))
    tables = made(suite_results(scores()[kept], MODELS, DATASETS, PRETRAINED_ON, "v2"))
    assert tables["mean-ranks"].data["tasks"].tolist() == [2] * 5
    assert "some models have them: 2 tasks (Many-shot linear, Few-shot)" in tables["mean-ranks"].caption
    labels = " ".join(tables["pairs-pearson"].row_labels.values())
    assert "Textures" in labels and "Digits" not in labels


def test_a_protocol_has_the_same_suffix_in_all_tables():
    """Also in those that show no other protocol of its kind."""
    official = scores().query("kind == 'linear' and dataset == 'shapes'").assign(protocol="linear-official")
    tables = made(suite_results(pd.concat([scores(), official]), MODELS, DATASETS, PRETRAINED_ON, "v2"))
    assert tables["linear-r32"].title == "Many-shot linear [r32]"
    labels = tables["correlations"].row_labels.values()
    assert {label for label in labels if label.startswith("Many-shot")} == {
        f"Many-shot linear [r32] · {name}" for name in ("Digits", "Textures", "average")
    }

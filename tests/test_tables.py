import io
import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from synthetic_suite import DATASETS, MODELS, PRETRAINED_ON, scores, suite

from ssltransfer.analysis.pairs import SuitePairs, compare_cells
from ssltransfer.analysis.predictors import predictor_table
from ssltransfer.analysis.suite_results import suite_results
from ssltransfer.report.drawing import FigureContext
from ssltransfer.report.interactive_scatter import scatter_data
from ssltransfer.report.labels import source_note, suite_labels, without_source_note
from ssltransfer.report.model_table import model_table
from ssltransfer.report.overview import findings
from ssltransfer.report.table import Column, Table, latex_text, marks, to_csv, to_html, to_latex
from ssltransfer.report.table_folder import make_tables, read_results, write_results
from ssltransfer.report.tables import all_tables, domain_table, score_tables
from ssltransfer.results.metric_info import METRICS
from ssltransfer.results.outcome_file import Outcome, save_outcomes
from ssltransfer.results.outcome_header import outcome_path
from ssltransfer.results.scores import AVERAGE, Task, tidy

FEW = Task("fewshot-r32", "fewshot", "digits", "5-shot", "accuracy")
LINEAR = Task("linear-r32", "linear", "digits", "", "top1")


def compared(tasks=(FEW, LINEAR), models=("random", "supervised", "simclr", "swav")):
    """Outcomes of some models: supervised and swav are nearly equal on all tasks, the others are told apart."""
    rates = {"random": 0.2, "supervised": 0.7, "simclr": 0.5, "swav": 0.7}
    positions = np.random.default_rng(0).permutation(400) / 400  # so that the shares are exact
    cells = []
    for task in tasks:
        values = {m: np.roll(positions, m == "swav") < rates[m] for m in models}
        own = {"metric": task.metric, "setting": task.setting, "units": "images", "identity": "a", "scale": 100.0}
        cells.append((task, {m: Outcome(**own, value=float(100 * v.mean()), values=v) for m, v in values.items()}))
    return compare_cells(cells)


def compared_suite(**more):
    """The small suite with scores that are those of its outcomes."""
    results, found = suite(), compared(**more)
    values = {("random", 0): 20.0, ("supervised", 0): 70.0, ("simclr", 0): 50.0, ("swav", 0): 70.0}
    scores = results.scores.copy()
    for (model, _), value in values.items():
        scores.loc[(scores["model"] == model) & (scores["dataset"] == "digits"), ["value", "low", "high"]] = [
            value, np.nan, np.nan,
        ]  # fmt: skip
    scores.loc[(scores["model"] == "simclr-textures") & (scores["dataset"] == "digits"), "value"] = 10.0
    scores.loc[scores["dataset"] == "digits", ["low", "high"]] = np.nan
    return replace(results, scores=scores, compared=found)


def made(results):
    return {table.name: table for table in all_tables(results, with_paper=False)}


def write(results, folder):
    write_results(results, list(made(results).values()), folder)


def table(values: dict, better=1):
    cells = pd.DataFrame(values, index=[f"m{i}" for i in range(len(next(iter(values.values()))))])
    return Table("t", "T", "c", cells, [Column(name, better=better) for name in values])


@pytest.fixture
def tables():
    return made(suite())


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
        "overview", "linear-r32", "fewshot-r32-5-shot", "fewshot-r32-20-shot", "domain-vs-transfer", "correlations",
        "mean-ranks", "pairs-pearson", "pairs-spearman", "predictors", "predictors-by-dataset",
    ]  # fmt: skip


def test_average_leaves_the_source_data_set_out(tables):
    cells = tables["linear-r32"].labelled(tables["linear-r32"].cells)
    assert list(cells.columns) == [("Source", "Shapes"), ("", "Digits"), ("", "Textures"), ("", "Avg.")]
    assert np.allclose(cells["", "Avg."], (cells["", "Digits"] + cells["", "Textures"]) / 2)


def test_intervals_are_printed_and_in_the_csv(tables):
    assert "± 0.50" in to_html(tables["fewshot-r32-5-shot"])
    csv = pd.read_csv(io.StringIO(to_csv(tables["fewshot-r32-5-shot"])), index_col=0)
    assert np.allclose(csv["Digits ci95"], 0.5)
    assert np.allclose(csv["Avg. ci95"], np.sqrt(2) * 0.5 / 2)
    assert "ci95" not in to_csv(tables["linear-r32"])


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
    texts = [to_html(table) for table in made(suite(models)).values()]
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
    judged = predictor_table(results).fillna({"picked": "", "note": ""})
    assert judged["kendall"].notna().any()
    pd.testing.assert_frame_equal(again.saved_predictors, judged, check_dtype=False)
    for name in ("scores", "models", "correlations", "linear-r32"):
        assert (tmp_path / f"{name}.csv").exists()


def test_two_models_only_give_tables_and_no_correlation(tmp_path):
    write(suite(MODELS[:2]), tmp_path)
    again = read_results(tmp_path)
    rows = again.correlations
    assert again.saved_predictors is None and set(rows["note"]) == {"fewer than 3 models"}
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
    results = suite_results(pd.concat([scores(), official]), MODELS, DATASETS, PRETRAINED_ON, "v2")
    tables = made(results)
    assert tables["linear-r32"].title == "Many-shot linear [r32]"
    labels = tables["correlations"].row_labels.values()
    assert {label for label in labels if label.startswith("Many-shot")} == {
        f"Many-shot linear [r32] · {name}" for name in ("Digits", "Textures", "average")
    }
    # Of two protocols on the source dataset the first is the source accuracy of all models, which captions say.
    pd.testing.assert_frame_equal(results.correlations, suite().correlations)
    assert results.source_label == "Linear [linear-r32] accuracy on Shapes (%)"
    note = "Source accuracy: linear [linear-r32] on Shapes, one of several protocols on it."
    assert tables["correlations"].caption.endswith(note) and source_note(suite()) == ""


def test_models_that_are_not_told_from_the_best_have_a_sign():
    results = compared_suite()
    assert results.not_separable == {FEW: {"supervised", "swav"}, LINEAR: {"supervised", "swav"}}
    table = made(results)["linear-r32"]
    best = table.cells[LINEAR].idxmax()
    assert table.tied == {({"supervised", "swav"} - {best}).pop(): LINEAR}.items()
    html, latex, csv = to_html(table), to_latex(table), to_csv(table)
    assert html.count("<sup>≈</sup>") == 1 and latex.count(r"$^\approx$") == 1 and "≈" not in csv
    assert "≈" in table.caption and "No such test: Shapes, Textures" in table.caption
    assert "≈" not in made(suite())["linear-r32"].caption


def test_it_is_unknown_who_is_not_told_from_a_best_model_without_outcomes():
    results = compared_suite()
    results.scores.loc[results.scores["model"] == "simclr-textures", "value"] = 99.0
    assert results.not_separable == {}


def test_the_average_of_a_table_has_the_noise_of_these_data_sets():
    tasks = (LINEAR, LINEAR._replace(dataset="textures"))
    table = made(compared_suite(tasks=tasks))["linear-r32"]
    halves = table.half_widths.iloc[:, -1]
    assert halves.notna().to_dict() == {
        "random": True, "supervised": True, "simclr": True, "simclr-textures": False, "swav": True,
    }  # fmt: skip
    share = 0.7
    assert halves["swav"] == pytest.approx(1.96 * 100 * np.sqrt(2 * share * (1 - share) / 400) / 2, rel=0.01)


def test_pairs_are_counted_for_each_model_and_written_in_full(tmp_path):
    results = compared_suite()
    tables = made(results)
    table = tables["pairs"]
    assert table.cells.sum().to_dict() == {"Comparisons": 12, "Better": 5, "Worse": 5, "Undecided": 2}
    assert table.cells.loc["random"].tolist() == [3, 0, 3, 0]
    assert len(tables["fewshot-pairs"].data) == 6
    assert list(tables["fewshot-pairs"].data) == [
        "protocol", "dataset", "setting", "model", "other", "difference", "low", "high", "p", "survives",
        "survives_all",
    ]  # fmt: skip
    write(results, tmp_path)
    again = read_results(tmp_path)
    pd.testing.assert_frame_equal(again.pairs, results.pairs, check_dtype=False)
    pd.testing.assert_frame_equal(again.mean_ranks, results.mean_ranks, check_dtype=False)
    assert again.wins[0].equals(results.wins[0]) and again.not_separable == results.not_separable


def test_cells_without_pairs_are_named_with_the_reason():
    found = replace(compared(), missing={LINEAR: "a and b have 3 and 4 images", FEW: "no outcomes"})
    caption = made(replace(suite(), compared=found))["pairs"].caption
    assert "Many-shot linear on Digits (a and b have 3 and 4 images)" in caption
    assert "Few-shot on Digits (no outcomes)" in caption
    only = made(replace(suite(), compared=SuitePairs(missing={LINEAR: "no outcomes"})))
    assert "pairs" not in only


def test_pairs_say_what_they_were_compared_on_and_which_settings_have_none():
    labelled = Task("labels", "label-efficiency", "digits", "1-per-class", "top1")
    whole, errors = labelled._replace(setting="all"), Task("calibration", "calibration", "digits", "linear", "ece")
    found = replace(compared((LINEAR, FEW, labelled)), missing={whole: "compared there", errors: "biased"})
    more = [scores().iloc[:5].assign(**task._asdict()) for task in (labelled, whole, errors)]
    caption = made(replace(suite(), scores=pd.concat([scores(), *more]), compared=found))["pairs"].caption
    units = "of the test images, of the episodes (Few-shot), of the draws of the labelled images (Label efficiency)"
    assert f"account for the noise {units}, but not for that of training again." in caption
    assert "Label efficiency on Digits, all, Top-1 accuracy (compared there)" in caption
    assert "Calibration on Digits (biased)" in caption  # all of it
    alone = made(replace(suite(), compared=compared((LINEAR,))))["pairs"].caption
    assert "the noise of the test images, but not" in alone


def test_metrics_beside_that_of_a_dataset_have_names_of_their_own():
    """Top-5 accuracy would have the name of the accuracy that it stands beside."""
    head = {"protocol": "knn", "kind": "knn", "dataset": "digits", "setting": "20-nn", "source": "measured"}
    votes = [
        {"model": row["model"], "metric": metric, "value": value + number} | head
        for number, row in enumerate(MODELS)
        for metric, value in (("top1", 50.0), ("top5", 90.0))
    ]
    results = suite_results(pd.concat([scores(), tidy(votes)]), MODELS, DATASETS, PRETRAINED_ON, "v2")
    names = list(made(results)["correlations"].row_labels.values())
    assert "k-nearest neighbours · Digits · k = 20" in names and len(names) == len(set(names))
    views = [view["label"] for view in scatter_data(FigureContext(results))["views"]]
    assert len(views) == len(set(views)) and any("Top-5" in view for view in views)


def test_tasks_without_log_odds_are_said_to_be_in_mean_ranks_alone():
    head = {"protocol": "normals", "kind": "normals", "dataset": "rooms", "setting": "", "metric": "mean-angle"}
    angles = [{"model": row["model"], "value": 20.0 + n, "source": "measured"} | head for n, row in enumerate(MODELS)]
    for found, said in ((scores(), False), (pd.concat([scores(), tidy(angles)]), True)):
        results = suite_results(found, MODELS, DATASETS | {"rooms": "Rooms"}, PRETRAINED_ON, "v1")
        caption = made(results)["mean-ranks"].caption
        assert ("Tasks without log-odds (Surface normals) are in the mean ranks alone" in caption) == said
        assert ("without Rooms" in caption) == said
        (about, *_) = findings(results, suite_labels(results))[0]["statements"]
        assert ("Rooms" in about["about"]) == said


NUMBERED = [row | {"source_accuracy": str(60 + i)} for i, row in enumerate(MODELS)]


def test_the_average_of_one_dataset_is_no_column():
    one = scores()[lambda t: t["dataset"].eq("digits") | t["kind"].ne("linear")]
    tables = made(suite_results(one, NUMBERED, DATASETS, PRETRAINED_ON, "v2"))
    heads = {name: [column.heading for column in tables[name].columns] for name in ("linear-r32", "fewshot-r32-5-shot")}
    assert "Avg." not in heads["linear-r32"] and "Avg." in heads["fewshot-r32-5-shot"]


def test_correlations_quote_families_and_have_no_negative_zero():
    results = suite_results(scores(), NUMBERED, DATASETS, {}, "v2")
    found = results.correlations.assign(pearson=-0.001, pearson_low=-0.003, pearson_lofo_low_without="none")
    table = made(replace(results, saved_correlations=found))["correlations"]
    text = table.cells.to_string()
    assert "without family “none”" in text and "-0.00" not in text and "0.00 to" in text


def test_correlations_of_no_task_are_a_file_alone():
    two = scores()[lambda t: t["model"].isin(["swav", "simclr"])]
    assert made(suite_results(two, MODELS, DATASETS, {}, "v2"))["correlations"].section == "file"
    assert made(suite())["correlations"].section == ""


def test_units_are_words():
    rows = [
        {"protocol": "seg", "kind": "segmentation", "dataset": "d", "setting": "", "source": "measured"}
        | {"model": row["model"], "metric": metric, "value": value}
        for row in MODELS
        for metric, value in (("mean-iou", 0.3), ("pixel-accuracy", 60.0))
    ]
    caption = made(suite_results(tidy(rows), NUMBERED, {}, {}, "v2"))["segmentation"].caption
    assert caption.startswith("Mean IoU as a fraction. All other numbers in percent. ")


def test_a_property_measured_on_several_data_sets_has_no_best():
    task = Task("inv", "inversion", "digits", "", "mse-red")
    frame = scores().iloc[:5].assign(value=range(1, 6), low=np.nan, high=np.nan, **task._asdict())
    one = replace(suite(), scores=pd.concat([scores(), frame]), compared=compared((task,)))
    assert METRICS["mse-red"].better < 0
    assert one.not_separable == {task._replace(dataset=AVERAGE): {"random"}}
    several = replace(one, scores=pd.concat([scores(), frame, frame.assign(dataset="textures")]))
    assert several.not_separable == {}


def test_outcomes_beside_scores_reach_the_tables(tmp_path):
    right = {"a": np.arange(200) < 150, "b": np.arange(200) < 120}
    paths = []
    for model, own in right.items():
        value = {"metric": "top1", "setting": "", "value": 100 * own.mean(), "unit": "percent"}
        paths.append(tmp_path / "scores/linear-r32" / model / "digits.json")
        paths[-1].parent.mkdir(parents=True)
        head = {"model": model, "protocol": "linear-r32", "kind": "linear", "dataset": "digits"}
        paths[-1].write_text(json.dumps(head | {"values": [value], "details": {}}))
        units = {"units": "test images", "identity": "i", "values": own, "scale": 100.0}
        save_outcomes(outcome_path(paths[-1]), [Outcome("top1", "", value["value"], **units)])
    models = [{"model": model, "label": model, "family": "", "source_accuracy": ""} for model in right]
    make_tables(tmp_path / "tables", paths, models, DATASETS, {}, "v2", {}, "")
    (row,) = read_results(tmp_path / "tables").pairs.to_dict("records")
    assert (row["model"], row["other"], row["better"]) == ("a", "b", "a")
    assert row["difference"] == pytest.approx(15)
    outcome_path(paths[1]).unlink()
    make_tables(tmp_path / "again", paths, models, DATASETS, {}, "v2", {}, "")
    assert read_results(tmp_path / "again").pairs.empty


def test_models_without_a_test_are_named():
    def caption(**more):
        results = compared_suite(**more)
        shown = next(table for table in made(results).values() if LINEAR in table.cells.columns)
        names = re.findall(r"Not tested in every column: (.*?)\.", shown.caption)
        return set(names[0].split(", ")) if names else set()

    label = dict(zip(suite().models["model"], suite().models["label"], strict=True))["random"]
    assert label not in caption()
    assert label in caption(models=("supervised", "simclr", "swav"))


def test_captions_say_which_source_accuracies_were_measured_and_how():
    votes = [
        {"model": row["model"], "protocol": "knn", "kind": "knn", "dataset": "imagenet", "setting": "20-nn"}
        | {"metric": "top1", "value": 50.0 + number, "source": "measured"}
        for number, row in enumerate(MODELS)
    ]
    models = [row | {"source_accuracy": str(60 + number)} for number, row in enumerate(MODELS)]
    models[0] |= {"source_accuracy": "measured:imagenet"}
    table, names = pd.concat([scores(), tidy(votes)]), DATASETS | {"imagenet": "ImageNet"}
    results = suite_results(table, models, names, {}, "v2")
    assert results.source_label == "Source accuracy (%)" and results.leave_out == ("imagenet",)
    note = (
        "Source accuracy: measured here (20-NN on ImageNet) for Random; for the others a number of the table of "
        "models. Nearest neighbours score lower than linear classifiers."
    )
    assert source_note(results) == note and made(results)["correlations"].caption.endswith(note)
    shown = model_table(results, {}, {}).cells["source_accuracy"]
    assert shown.iloc[:2].to_list() == ["50.0 (20-NN on ImageNet)", "61.0"]
    alike = suite_results(table, [row | {"source_accuracy": "measured:imagenet"} for row in MODELS], names, {}, "v2")
    assert alike.source_label == "20-NN accuracy on ImageNet (%)" and source_note(alike) == ""


def test_models_that_no_figure_against_source_accuracy_can_show_are_named():
    lacking = suite([row | ({"source_accuracy": ""} if row["model"] in ("simclr", "swav") else {}) for row in MODELS])
    note = "Not drawn, because the table of models has no source accuracy of theirs: SimCLR, SwAV_2."
    assert without_source_note(lacking) == note and without_source_note(suite()) == ""
    assert without_source_note(lacking, most=1).endswith("SimCLR, 1 more.")

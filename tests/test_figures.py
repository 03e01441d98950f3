from dataclasses import replace
from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from synthetic_suite import DATASETS, MODELS, PRETRAINED_ON, scores, suite

from ssltransfer.analysis.pairs import COLUMNS, SuitePairs, read_better
from ssltransfer.analysis.published import LABELS, published_models, published_scores
from ssltransfer.analysis.scale import to_analysis_scale
from ssltransfer.analysis.suite_results import suite_results
from ssltransfer.report.drawing import (
    STYLE,
    FigureContext,
    label_axes,
    model_styles,
    panel_grid,
    panel_title,
    save_figure,
)
from ssltransfer.report.figures import WITH_INTERVALS, interval_cells, suite_figures
from ssltransfer.report.interactive_scatter import scatter_data
from ssltransfer.report.intervals import interval_note
from ssltransfer.report.model_figures import model_pairs_figure, radar_heads, radar_values, rank_figure
from ssltransfer.report.scatter_figures import CUT, cut_note, leverage_note, panel_scores, panels_note
from ssltransfer.report.table_folder import read_results, write_results
from ssltransfer.report.tables import all_tables
from ssltransfer.results.scores import tidy


def figures(results):
    return dict(suite_figures(FigureContext(results)))


@pytest.mark.slow
def test_every_figure_of_a_small_suite_is_drawn_and_repeats_byte_for_byte(tmp_path):
    for folder in ("a", "b"):
        for name, figure in figures(suite()).items():
            save_figure(figure, tmp_path / folder, name)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert [name for name in names if name.endswith("svg")] == [
        "correlations.svg", "domain-vs-transfer.svg", "mean-ranks.svg", "pairs.svg", "radar.svg",
        "scatter-fewshot.svg", "scatter-linear.svg", "transfer.svg",
    ]  # fmt: skip
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_a_model_keeps_its_style_when_rows_are_added():
    models = suite().models
    extra = models.iloc[[2]].assign(model="new")
    before, after = model_styles(models), model_styles(pd.concat([models, extra]))
    assert all(after[model] == style for model, style in before.items())


def test_styles_are_told_apart():
    models = suite().models
    many = models.iloc[[2] * 14].assign(model=[f"m{i}" for i in range(14)], family="contrastive")
    styles = [(s["marker"], s["color"]) for s in model_styles(many).values()]
    assert len(set(styles)) == 14
    families = models.iloc[[2] * 10].assign(
        model=[f"m{i}" for i in range(10)], family=[f"f{i // 2}" for i in range(10)]
    )
    styles = [(s["marker"], s["color"]) for s in model_styles(families).values()]
    assert len(set(styles)) == 10


def test_a_wide_confidence_band_does_not_press_the_points_together():
    drawn = figures(suite(MODELS[:3]))
    for ax in (ax for name in ("transfer", "scatter-linear") for ax in drawn[name].axes):
        heights = [line.get_ydata()[0] for line in ax.lines if line.get_linestyle() == "None"]
        assert len(heights) == 3
        bottom, top = ax.get_ylim()
        assert bottom < min(heights) and max(heights) < top
        assert top - bottom < 2.3 * np.ptp(heights)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_few_models_are_drawn_without_a_line(count):
    drawn = figures(suite(MODELS[:count]))
    assert "transfer" in drawn
    assert "correlations" not in drawn
    for name in ("transfer", "scatter-linear"):
        for ax in filter(lambda ax: ax.get_visible(), drawn[name].axes):
            assert not any(len(line.get_xdata()) > 2 for line in ax.lines) and not ax.collections
            assert "r =" not in ax.get_title() and ("too few" in ax.get_title() or count < 3)


def test_without_source_accuracy_there_is_nothing_to_scatter():
    models = [row | {"source_accuracy": ""} for row in MODELS]
    assert set(figures(suite(models))) == {"domain-vs-transfer", "mean-ranks", "pairs"}


def test_equal_scores_are_drawn():
    results = suite()
    results.scores["value"] = np.where(results.scores["dataset"] == "digits", 50.0, results.scores["value"])
    results.scores[["low", "high"]] = np.nan
    assert "transfer" in figures(results)


@pytest.mark.parametrize(
    ("protocol", "datasets", "cd_fsl"),
    [("fewshot-cd-fsl-x", {}, False), ("few", {"digits": "eurosat", "textures": "isic"}, True)],
)
def test_cd_fsl_is_told_from_its_data_sets(tmp_path, protocol, datasets, cd_fsl):
    models = [row | {"source_accuracy": str(60 + i)} for i, row in enumerate(MODELS)]
    few = scores().replace({"protocol": {"fewshot-r32": protocol}, "dataset": datasets})
    results = suite_results(few, models, {}, {}, "v2")
    tables = {table.name: table for table in all_tables(results, with_paper=False)}
    write_results(results, list(tables.values()), tmp_path)
    drawn = figures(read_results(tmp_path))
    bars = {ax.get_title(loc="left") for ax in drawn["correlations"].axes}
    spokes = {text.get_text() for ax in drawn["radar"].axes for text in ax.get_xticklabels()}
    rows = set(tables["correlations"].row_labels.values())
    assert ("Few-shot CD-FSL (20-shot)" in bars) is cd_fsl
    assert ("Few-shot CD" in spokes) is cd_fsl
    assert ("Few-shot · average · CD-FSL · 20-shot" in rows) is cd_fsl


def test_titles_of_narrow_panels_do_not_overlap():
    models = [row | {"source_accuracy": str(60 + i)} for i, row in enumerate(MODELS)]
    one = scores().query("dataset == 'digits'")
    figure = figures(suite_results(one, models, {}, {}, "v2"))["correlations"]
    figure.draw_without_rendering()
    extents = sorted(
        (axes.get_window_extent().y0, text.get_window_extent().x0, text.get_window_extent().x1)
        for axes in figure.axes
        for text in [axes._left_title]
        if text.get_text()
    )
    assert len(extents) > 1
    for (line, _, end), (next_line, start, _) in pairwise(extents):
        assert line != next_line or end < start


def title_extents(figure):
    """Bottom, left and right of the title of each panel, line by line."""
    figure.draw_without_rendering()
    renderer = figure._get_renderer()
    for axes in (axes for axes in figure.axes if axes.get_title()):
        box = axes.title.get_window_extent(renderer)
        yield axes.get_position().y0, box.x0, box.x1


@pytest.mark.parametrize("name", ["transfer", "scatter-linear", "scatter-fewshot"])
def test_titles_of_scatters_do_not_overlap(name):
    """Where models lack tasks, panels have long names, and one's own model is named with its rank."""
    table = scores()
    lacking = table["model"].eq("simclr") & table["dataset"].eq("digits")
    models = [row | {"source_accuracy": str(60 + i)} for i, row in enumerate(MODELS)]
    models[0] |= {"label": "A model with a long name of its own"}
    names = {"digits": "Digits that people wrote by hand", "textures": "Textures of many materials"}
    results = suite_results(table[~lacking], models, names, {}, "v2")
    context = FigureContext(results)
    context.highlighted = {models[0]["model"]}
    figure = dict(suite_figures(context))[name]
    extents = sorted(title_extents(figure))
    assert len(extents) > 1
    for (row, _, end), (next_row, start, _) in pairwise(extents):
        assert row != next_row or end < start
    if name == "transfer":
        titles = [axes.get_title() for axes in figure.axes]
        assert all("(2 of 3 tasks)" in title.split("\n") for title in titles), titles


def test_long_lines_of_titles_are_broken_between_words():
    assert panel_title("Few-shot (20-shot)", "", "r = 0.32   ρ = 0.37   n = 8", "\nMine: 1 of 9") == (
        "Few-shot (20-shot)\nr = 0.32   ρ = 0.37   n = 8\nMine: 1 of 9"
    )
    broken = panel_title("k-nearest neighbours (k = 20) of a-protocol-with-a-long-name", "τ = 0.5").split("\n")
    assert broken[0] == "k-nearest neighbours (k = 20)" and broken[-1] == "τ = 0.5"
    assert panel_title("one-word-that-is-wider-than-any-panel-of-a-figure-can-be").count("\n") == 0


def calibration_suite(conventions):
    rows = [
        {"model": row["model"], "protocol": "cal", "kind": "calibration", "dataset": dataset, "setting": setting}
        | {"metric": "ece", "value": error + i + 2 * (setting == "linear"), "source": "measured"}
        for i, row in enumerate(MODELS)
        for dataset, error in (("digits", 1.0), ("textures", 9.0))
        for setting in ("linear", "linear-scaled")
    ]
    names = {"digits": "Digits", "textures": "Textures", "shapes": "Shapes"}
    return suite_results(pd.concat([scores(), tidy(rows)]), MODELS, names, {}, conventions)


@pytest.mark.parametrize(("panels", "models"), [(1, 3), (2, 9), (7, 14)])
def test_shared_labels_stay_within_the_figure(panels, models):
    with mpl.rc_context(STYLE):
        figure, _ = panel_grid(panels, 1.65, models)
        long = "Mean per-class accuracy (percent, logit scale)"
        label_axes(figure, f"{long} of a classifier with a description that does not end", long)
        figure.draw_without_rendering()
        for label in (figure._supxlabel, figure._supylabel):
            found = label.get_window_extent()
            assert found.x0 >= 0 and found.y0 >= 0 and found.x1 <= figure.bbox.x1 and found.y1 <= figure.bbox.y1
            assert label.get_text().replace("\n", " ").startswith(long)
        # The label of one line of panels needs a second one.
        assert ("\n" in figure._supylabel.get_text()) == (panels < 7)


def test_measured_calibration_is_drawn_as_the_mean_over_data_sets():
    """Figure 3 of the paper: plain mean of the ECE of all datasets, a panel for each way to scale."""
    figure = figures(calibration_suite("v2"))["calibration"]
    drawn = {axes.get_title().split("\n")[0]: axes for axes in figure.axes if axes.get_title()}
    assert sorted(drawn) == ["ECE Linear", "ECE Linear, scaled"]
    for title, shift in (("ECE Linear", 2), ("ECE Linear, scaled", 0)):
        heights = [line.get_ydata()[0] for line in drawn[title].lines if len(line.get_ydata()) == 1]
        means = np.array([5.0 + i + shift for i in range(len(MODELS))])
        assert sorted(heights) == pytest.approx(np.log(means / (100 - means)))


def tick_texts(axis):
    places = axis.get_major_locator()()
    return dict(zip(places, axis.get_major_formatter().format_ticks(places), strict=True))


def test_what_is_correlated_raw_is_drawn_raw():
    results = calibration_suite("v1")
    drawn = figures(results)
    for ax in drawn["calibration"].axes:
        x, y = zip(*(line.get_xydata()[0] for line in ax.lines if line.get_linestyle() == "None"), strict=True)
        assert sorted(x) == pytest.approx(sorted(results.tasks.source))
        assert f"r = {np.corrcoef(x, y)[0, 1]:.2f}".replace("-", "−") in ax.get_title()
        for axis in (ax.xaxis, ax.yaxis):
            assert all(float(text) == pytest.approx(place) for place, text in tick_texts(axis).items())
    for place, text in tick_texts(drawn["scatter-linear"].axes[0].xaxis).items():
        assert place == pytest.approx(to_analysis_scale(float(text), "top1"))


def test_explorer_shows_raw_what_is_correlated_raw():
    results = calibration_suite("v1")
    views = scatter_data(FigureContext(results))["views"]
    view = next(view for view in views if view["label"].startswith("Calibration"))
    (source,) = view["predictors"]
    x, y = ([point[1] for point in points] for points in (source["points"], view["points"]))
    assert x == pytest.approx(list(results.tasks.source), abs=1e-4)
    assert f"Pearson {np.corrcoef(x, y)[0, 1]:.2f} (" in source["note"]
    assert all(float(text) == pytest.approx(place) for place, text in source["xticks"] + view["yticks"])


def with_pairs(*better):
    """The small suite with pairs of which the better models are given: (dataset, model, other, better)."""
    head = {"protocol": "linear-r32", "kind": "linear", "setting": "", "metric": "top1"}
    rows = [head | dict(zip(("dataset", "model", "other", "better"), row, strict=True)) for row in better]
    pairs = pd.DataFrame(rows, columns=COLUMNS)
    return replace(suite(), compared=SuitePairs(pairs, read_better(pairs)))


def test_the_matrix_counts_who_is_better_than_whom():
    results = with_pairs(
        ("digits", "random", "swav", "swav"), ("textures", "random", "swav", "swav"),
        ("digits", "simclr", "swav", ""), ("shapes", "simclr", "swav", "simclr"),
    )  # fmt: skip
    figure = model_pairs_figure(FigureContext(results))
    ax = figure.axes[0]
    names = [text.get_text() for text in ax.get_yticklabels()]
    assert sorted(names) == ["Random", "SimCLR", "SwAV_2"]
    cells = {(names[int(t.get_position()[1])], names[int(t.get_position()[0])]): t.get_text() for t in ax.texts}
    # Shapes are the source. All models of a cell are compared with each other.
    assert cells == {
        ("Random", "SwAV_2"): "0/2", ("SwAV_2", "Random"): "2/2", ("SimCLR", "SwAV_2"): "0/1",
        ("SwAV_2", "SimCLR"): "0/1", ("Random", "SimCLR"): "0/1", ("SimCLR", "Random"): "0/1",
    }  # fmt: skip
    same = model_pairs_figure(FigureContext(with_pairs(("digits", "random", "swav", "swav"))))
    assert sorted(text.get_text() for text in same.axes[0].texts) == ["0", "1"]
    assert model_pairs_figure(FigureContext(suite())) is None


def test_captions_speak_of_intervals_of_the_panels_that_are_there():
    """Votes on shapes alone have no panel: shapes are what source accuracies were measured on."""
    votes = [
        {"model": row["model"], "protocol": "knn", "kind": "knn", "dataset": "shapes", "setting": "20-nn"}
        | {"metric": "top1", "value": 50.0, "source": "measured"}
        for row in MODELS
    ]
    results = suite_results(pd.concat([scores(), tidy(votes)]), MODELS, DATASETS, PRETRAINED_ON, "v2")
    assert interval_cells(results, "scatter-knn").empty  # there is no such figure either
    assert set(interval_cells(results, "transfer")["kind"]) == {"linear", "fewshot"}


def test_captions_speak_of_intervals_of_the_scores_that_are_there():
    """Not of the source images under other labels, of metrics without a bar, nor of curves without intervals."""

    def rows(kind, dataset, setting, metric, interval):
        head = {"protocol": kind, "kind": kind, "dataset": dataset, "setting": setting, "metric": metric}
        head |= {"value": 50.0, "low": 49.0, "high": 51.0, "interval": interval, "source": "measured"}
        return [{"model": row["model"]} | head for row in MODELS]

    more = [
        *rows("linear", "shapes-multilabel", "", "map11", "bootstrap, over test images; 0.92"),
        *rows("inversion", "photographs", "", "mse-red", "t, over images; 0.91"),
        *rows("inversion", "photographs", "", "psnr", "t, over images; 0.9"),
        *rows("label-efficiency", "digits", "1-per-class", "top1", "t, over draws of the labelled images; 0.91"),
        *rows("label-efficiency", "digits", "knn-1-per-class", "top1", "t, over draws of the labelled images; 0.9"),
        *rows("label-efficiency", "digits", "area", "top1", "t, over draws of the labelled images; 0.8"),
        *rows("label-efficiency", "digits", "all", "top1", "Wilson, over test images"),
    ]
    linear = scores().assign(interval="Wilson, over test images")
    linear[["low", "high"]] = np.column_stack([linear["value"] - 1, linear["value"]])
    linear["protocol"] = linear["protocol"].replace("linear-r32", "linear")
    found = pd.concat([linear, tidy(more)])
    results = suite_results(found, MODELS, DATASETS, PRETRAINED_ON, "v2", {"shapes-multilabel": "shapes"})
    assert "shapes-multilabel" in results.leave_out
    captions = {name: interval_note(interval_cells(results, name), "Thin lines:") for name in WITH_INTERVALS}
    for name in ("transfer", "scatter-linear", "domain-vs-transfer"):
        assert "test images" in captions[name] and "mAP" not in captions[name]
    assert captions["properties"] == "Thin lines: 95 % intervals over images (91 % for MSE red)."
    over = "over draws of the labelled images, over test images (91 % for some of Top-1 accuracy)"
    assert captions["label-efficiency"] == f"Thin lines: 95 % intervals {over}."


def test_bars_join_models_that_are_not_told_apart():
    published = suite_results(published_scores("v2"), published_models(), LABELS, {}, "v2")
    order, ranks = published.order_like_these, published.mean_ranks
    bars = [line for line in rank_figure(FigureContext(published)).axes[0].lines if not line.get_clip_on()]
    cliques = order.cliques(list(ranks.index))
    assert [(round(a + 0.25), round(b - 0.25)) for a, b in (bar.get_ydata() for bar in bars)] == cliques
    assert 3 < len(cliques) < 14
    few = rank_figure(FigureContext(suite())).axes[0].lines
    assert all(line.get_clip_on() and np.isnan(line.get_xdata()).all() for line in few)


def with_my_net(datasets):
    """The published scores, and those of one more model on some datasets of the linear protocol."""
    published = published_scores("v2")
    like = published[(published["kind"] == "linear") & (published["model"] == "byol")]
    own = like[like["dataset"].isin(datasets)].assign(model="my-net", source="measured", value=like["value"] - 1)
    mine = {"model": "my-net", "label": "My net", "family": "", "source_accuracy": "70.0"}
    scores = pd.concat([published, own], ignore_index=True) if datasets else published
    return suite_results(scores, [*published_models(), mine], LABELS, {}, "v2")


@pytest.mark.slow
def test_figure_1_averages_over_the_datasets_that_all_models_have():
    results = with_my_net(["dtd", "pets"])
    panel = next(panel for panel in results.tasks.figure_panels if panel.kind == "linear")
    drawn = panel_scores(results, panel)
    assert {task.dataset for task in drawn.tasks} == {"dtd", "pets"} and len(panel.tasks) == 11
    scores = results.scores[results.scores["dataset"].isin(["dtd", "pets"]) & (results.scores["kind"] == "linear")]
    logits = np.log(scores["value"] / (100 - scores["value"]))
    expected = logits.groupby(scores["model"]).mean()
    pd.testing.assert_series_equal(drawn.mean.sort_index(), expected, check_names=False)
    x = results.models.set_index("model")["source_accuracy"][expected.index] / 100
    assert drawn.row["pearson"] == pytest.approx(np.corrcoef(np.log(x / (1 - x)), expected)[0, 1])
    note = panels_note(results)
    assert "(DTD, Pets)" in note and note.count(":") == 1
    titles = [ax.get_title() for ax in figures(results)["transfer"].axes]
    assert sum("2 of 11" in title and "My net: " in title for title in titles) == 1
    # The averages of tables and correlations stay the paper's.
    own = results.tasks.panel_means[panel.name]
    assert np.isnan(own["my-net"]) and own.notna().sum() == 14


@pytest.mark.parametrize(("datasets", "note"), [((), ""), (("dtd",), "DTD")])
def test_a_panel_whose_models_have_all_its_tasks_is_drawn_as_it_is(datasets, note):
    results = with_my_net(datasets)
    for panel in results.tasks.figure_panels:
        drawn = panel_scores(results, panel)
        if panel.kind != "linear" or not datasets:
            assert drawn.tasks == list(panel.tasks)
            pd.testing.assert_series_equal(drawn.mean, results.tasks.panel_means[panel.name], check_names=False)
    assert (note in panels_note(results)) and bool(panels_note(results)) == bool(note)


def test_models_without_a_common_task_are_left_out_of_figure_1_and_named():
    results = with_my_net(["dtd"])
    scores = results.scores[~((results.scores["model"] == "byol") & (results.scores["dataset"] == "dtd"))]
    other = replace(results, scores=scores)
    panel = next(panel for panel in other.tasks.figure_panels if panel.kind == "linear")
    assert not other.tasks.shared(panel)
    assert np.isnan(panel_scores(other, panel).mean[["byol", "my-net"]]).all()
    assert "My net" in panels_note(other) and "BYOL" in panels_note(other)


def test_a_model_that_makes_the_correlation_is_named_in_the_caption():
    """Of two clusters that do not correlate within, one far model decides the coefficient."""
    models = [
        {"model": f"m{i}", "label": f"M{i}", "family": "", "source_accuracy": str(x)}
        for i, x in enumerate((70, 71, 72, 73, 74, 10))
    ]
    head = {"protocol": "linear", "kind": "linear", "setting": "", "metric": "top1", "source": "measured"}
    for last, said in ((5.0, True), (71.0, True), (None, False)):
        line = [60 + i for i in range(6)]
        values = line if last is None else [70.0, 69.0, 72.0, 69.0, 70.0, last]
        sources = [str(50 + 2 * i) for i in range(6)] if last is None else [row["source_accuracy"] for row in models]
        rows = [row | {"source_accuracy": x} for row, x in zip(models, sources, strict=True)]
        cells = [head | {"model": f"m{i}", "dataset": "d", "value": value} for i, value in enumerate(values)]
        note = leverage_note(suite_results(tidy(cells), rows, {}, {}, "v2"))
        assert ("(without M5)" in note) == said, (last, note)
        assert bool(note) == said


def test_axes_of_the_radar_chart_name_the_setting_where_there_are_several():
    few = scores()[lambda t: t["kind"].ne("fewshot") | t["setting"].eq("5-shot")]
    both = scores().assign(setting=lambda t: t["setting"].replace("20-shot", "1-shot"))
    for found, heads in ((few, ["Few-shot"]), (both, ["Few-shot 5-shot", "Few-shot 1-shot"])):
        context = FigureContext(suite_results(found, MODELS, DATASETS, PRETRAINED_ON, "v2"))
        shown = radar_heads(context, radar_values(context).columns)
        assert sorted(head for head in shown if head.startswith("Few")) == sorted(heads)


def test_intervals_that_leave_the_axes_have_arrowheads_and_a_sentence():
    results = suite()
    assert not any(cut_note(figure) for figure in figures(results).values())
    wide = results.scores.assign(low=lambda t: t["low"].mask(t["low"].notna(), 0.0))
    drawn = figures(replace(results, scores=wide))
    assert "beyond the axis" in cut_note(drawn["scatter-fewshot"]) and not cut_note(drawn["scatter-linear"])
    ax = drawn["scatter-fewshot"].axes[0]
    (heads,) = (line for line in ax.lines if line.get_label() == CUT)
    assert set(heads.get_ydata()) == {ax.get_ylim()[0]} and len(heads.get_xdata()) == 5

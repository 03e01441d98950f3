"""How the intervals of scores reach tables, figures and captions."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from synthetic_suite import MODELS, PRETRAINED_ON, scores

from ssltransfer.analysis.scale import logit
from ssltransfer.analysis.suite_results import suite_results
from ssltransfer.analysis.tasks import interval_ends, task_matrix, tasks_of
from ssltransfer.report.drawing import FigureContext
from ssltransfer.report.figures import interval_cells
from ssltransfer.report.interactive_scatter import scatter_data
from ssltransfer.report.intervals import interval_note
from ssltransfer.report.labels import suite_labels
from ssltransfer.report.marks import analysis_note
from ssltransfer.report.model_figures import domain_figure
from ssltransfer.report.property_figure import properties_figure, properties_note
from ssltransfer.report.scatter_figures import scatter_figure, transfer_figure
from ssltransfer.report.table import to_csv, to_html, to_latex
from ssltransfer.report.tables import score_tables
from ssltransfer.results.scores import INTERVAL, describe_interval, interval_level, tidy


def with_intervals(kind="linear", below=2.0, above=1.0):
    """The synthetic suite with intervals for one kind and none for the other."""
    table = scores()
    chosen = table["kind"] == kind
    table[["low", "high"]] = math.nan
    table.loc[chosen, "low"] = table["value"] - below
    table.loc[chosen, "high"] = np.minimum(table["value"] + above, 100)
    table.loc[chosen, "interval"] = "Wilson"
    return suite_results(table, MODELS, {}, PRETRAINED_ON, "v2")


def properties(values, dataset_of=("a", "b")):
    """Colour errors of one model on several datasets, each (value, low, high)."""
    head = {"model": "m", "protocol": "inv", "kind": "inversion", "setting": "", "metric": "mse-red"}
    rows = [
        head | {"dataset": name, "source": "measured", "value": value, "low": low, "high": high}
        for name, (value, low, high) in zip(dataset_of, values, strict=True)
    ]
    return tidy(rows)


def test_ends_of_single_cells_are_those_of_the_table():
    results = with_intervals()
    low, high = interval_ends(results.cells, [row["model"] for row in MODELS])
    for task in results.tasks.tasks:
        own = results.cells[(results.cells["dataset"] == task.dataset) & (results.cells["setting"] == task.setting)]
        own = own[own["kind"] == task.kind].set_index("model")
        if task.kind == "linear":
            assert low[task].to_dict() == pytest.approx(own["low"].to_dict())
            assert high[task].to_dict() == pytest.approx(own["high"].to_dict())
        else:
            assert low[task].isna().all() and high[task].isna().all()


def test_ends_of_a_mean_over_datasets_join_those_of_its_datasets():
    low, high = interval_ends(properties([(10.0, 7.0, 14.0), (20.0, 16.0, 23.0)]), ["m"])
    assert low.iloc[0, 0] == pytest.approx(15 - math.hypot(3, 4) / 2)
    assert high.iloc[0, 0] == pytest.approx(15 + math.hypot(4, 3) / 2)
    low, high = interval_ends(properties([(10.0, 7.0, 14.0), (20.0, math.nan, math.nan)]), ["m"])
    assert low.isna().all(axis=None) and high.isna().all(axis=None)


def test_a_joined_interval_covers_the_mean():
    rng = np.random.default_rng(0)
    values = (rng.normal(size=(5000, 3)) * [1, 2, 5]).ravel()
    models, half = np.repeat([f"m{i}" for i in range(5000)], 3), 1.96 * np.tile([1, 2, 5], 5000)
    table = pd.concat([properties([(0.0, 0.0, 0.0)] * 3, "abc")] * 5000, ignore_index=True)
    table = table.assign(model=models, value=values, low=values - half, high=values + half)
    low, high = interval_ends(table, list(dict.fromkeys(models)))
    assert ((low < 0) & (high > 0)).to_numpy().mean() == pytest.approx(0.95, abs=0.012)


def test_panel_ends_are_joined_on_the_analysis_scale():
    results = with_intervals()
    tasks = results.tasks
    panel = next(panel for panel in tasks.panels if panel.kind == "linear")
    low, high = (ends[panel.name] for ends in tasks.panel_ends)
    matrix = task_matrix(results.cells, [row["model"] for row in MODELS])[list(panel.tasks)]
    for end, sign, shift in ((low, -1, -2.0), (high, 1, 1.0)):
        distance = logit(np.minimum(matrix + shift, 100) / 100) - logit(matrix / 100)
        expected = logit(matrix / 100).mean(axis=1) + sign * np.sqrt((distance**2).sum(axis=1)) / len(panel.tasks)
        assert end.to_numpy() == pytest.approx(expected)
    few = next(panel for panel in tasks.panels if panel.kind == "fewshot")
    assert tasks.panel_ends[0][few.name].isna().all()


def test_left_out_scores_have_no_whisker_but_a_half_width():
    results = with_intervals()
    table = results.scores.copy()
    table.loc[(table["kind"] == "linear") & (table["model"] == "simclr"), "partial"] = "5 of 9 test images"
    partial = replace(results, scores=table)
    linear = [task for task in partial.tasks.tasks if task.kind == "linear"]
    assert partial.tasks.ends[0].loc["simclr", linear].isna().all()
    assert partial.shown_ends[0].loc["simclr", linear].notna().all()


def whiskers(ax):
    """(x, low, high) of the vertical lines of an axes."""
    lines = [line.get_xydata() for line in ax.lines if line.get_linestyle() == "-" and len(line.get_xydata()) == 2]
    return sorted((a[0], a[1], b[1]) for a, b in lines if a[0] == b[0])


def test_whiskers_of_scatters_are_the_intervals():
    results = with_intervals()
    context = FigureContext(results)
    tasks = results.tasks
    for ax, dataset in zip(scatter_figure(context, ("linear",)).axes, ("digits", "textures"), strict=False):
        task = next(task for task in tasks.tasks if (task.kind, task.dataset) == ("linear", dataset))
        ends = (logit(end[task] / 100) for end in tasks.ends)
        assert np.array(whiskers(ax)) == pytest.approx(np.array(sorted(zip(tasks.x(), *ends, strict=True))))
    assert not any(whiskers(ax) for ax in scatter_figure(context, ("fewshot",)).axes)
    linear, few, *_ = transfer_figure(context).axes
    assert len(whiskers(linear)) == len(MODELS) and not whiskers(few)


def test_an_interval_of_many_times_the_range_is_cut():
    results = with_intervals(below=40.0)
    y = results.tasks.values[next(task for task in results.tasks.tasks if task.dataset == "textures")]
    axes = scatter_figure(FigureContext(results), ("linear",)).axes
    bottom, top = axes[1].get_ylim()
    assert bottom < y.min() and top > y.max()
    assert top - bottom <= 4.1 * np.ptp(y)


def test_whiskers_of_domains_and_properties():
    results = with_intervals()
    figure = domain_figure(FigureContext(results))
    drawn = [line.get_xdata() for ax in figure.axes for line in ax.lines if line.get_linewidth() == 0.7]
    widths = sorted(float(np.ptp(ends)) for ends in drawn)
    assert widths == pytest.approx([3.0] * len(widths)) and len(widths) == 2 * len(PRETRAINED_ON)
    table = pd.concat([scores(), properties([(10.0, 7.0, 14.0)], "a").assign(model="simclr")])
    figure = properties_figure(FigureContext(suite_results(table, MODELS, {}, {}, "v2")))
    [lines] = figure.axes[0].collections
    assert [path.vertices[:, 1].tolist() for path in lines.get_paths()] == [pytest.approx([7, 14])]


def test_the_caption_of_properties_speaks_of_what_is_drawn():
    rows = [
        properties([(value, value - 1, value + 1)], "a").assign(model=row["model"], kind=kind, metric=metric)
        for kind, metric in (("inversion", "mse-red"), ("inversion", "psnr"), ("inversion", "lpips-vgg"))
        for row, value in zip(MODELS, (10.0, 11.0, 12.0, 13.0, 14.0), strict=True)
    ]
    learnt = {"simclr", "simclr-textures", "swav"}

    def note(*metrics, models=None):
        table = pd.concat([scores(), *(r for r in rows if set(r["metric"]) <= {*metrics})])
        table = table[table["kind"].ne("inversion") | table["model"].isin(models or table["model"])]
        results = suite_results(table, MODELS, {}, {}, "v2")
        return properties_note(FigureContext(results)), set(interval_cells(results, "properties")["metric"])

    text, metrics = note("mse-red", "psnr")
    assert "colour error" in text and "Bars" in text and metrics == {"mse-red"}
    assert not any(word in text for word in ("LPIPS", "attentive", "Boxes", "Markers"))
    text, _ = note("lpips-vgg", models=learnt)
    assert "LPIPS" in text and "Boxes" in text and "Markers" in text and "Bars" not in text
    assert "Boxes" not in note("lpips-vgg", models=learnt - {"swav"})[0]
    assert note() == ("", set())


def test_figures_of_one_kind_speak_of_shortened_trainings_of_that_kind_alone():
    table = pd.concat([scores(), properties([(10.0, 9.0, 11.0)], "a").assign(model="simclr")])
    table["shortened"] = ["100 steps" if kind == "inversion" else "" for kind in table["kind"]]
    results = suite_results(table, MODELS, {}, {}, "v2")
    assert "Feature inversion" in analysis_note(results) and analysis_note(results, ("linear",)) == ""
    assert "Feature inversion" in analysis_note(results, ("inversion", "attention"))


def test_tips_of_the_interactive_scatter_have_the_interval():
    results = with_intervals()
    view = next(v for v in scatter_data(FigureContext(results))["views"] if v["label"] == "Many-shot linear · digits")
    number, y, low, high, lines = view["points"][0]
    row = results.cells[(results.cells["kind"] == "linear") & (results.cells["dataset"] == "digits")].iloc[number]
    assert f"{row['value']:.2f} ({row['low']:.2f} to {row['high']:.2f})" in lines[0]
    logits = np.log(row[["low", "value", "high"]].astype(float) / (100 - row[["low", "value", "high"]].astype(float)))
    assert [low, y, high] == pytest.approx(list(logits), abs=1e-3)


def test_half_widths_are_printed_small_and_are_numbers_in_the_csv():
    tables = {table.name: table for table in score_tables(with_intervals(), suite_labels(with_intervals()))}
    linear, few = tables["linear-r32"], tables["fewshot-r32-5-shot"]
    assert few.half_widths is None and "±" not in few.caption + to_html(few)
    assert "test images" in linear.caption
    assert "<small> ± 1.50</small></td>" in to_html(linear)
    assert r"{\scriptsize  $\pm$ 1.50}" in to_latex(linear)
    header, first, *_ = to_csv(linear).splitlines()
    columns = header.split(",")
    assert columns[:5] == ["row", "Source shapes", "digits", "textures", "Avg."]
    assert float(first.split(",")[columns.index("digits ci95")]) == pytest.approx(1.5)


def test_captions_name_the_units_and_lower_levels():
    table = with_intervals().cells
    assert interval_note(table, "±").count("test images") == 1
    assert "episodes" not in interval_note(table, "±")
    few = table["kind"] == "fewshot"
    table.loc[few, ["low", "high"]] = 0.0, 100.0
    table.loc[few, "interval"] = "basic bootstrap; 0.9"
    note = interval_note(table, "±")
    assert "test images (Many-shot linear)" in note and "episodes (Few-shot)" in note and "90 % for Accuracy" in note
    assert interval_note(table[table["low"].isna()], "±") == ""


@pytest.mark.parametrize(
    ("value", "text", "level"),
    [
        ({"method": "Wilson", "level": 0.95}, "Wilson", 0.95),
        ({"method": "Wilson"}, "Wilson", 0.95),
        ({"method": "basic bootstrap", "level": 0.9}, "basic bootstrap; 0.9", 0.9),
        ({}, "", 0.95),
    ],
)
def test_the_column_interval_holds_method_and_level(value, text, level):
    assert describe_interval(value) == text
    assert interval_level(text) == level


def test_tasks_keep_their_order_beside_their_ends():
    results = with_intervals()
    assert tasks_of(results.tasks.ends[0].columns) == results.tasks.tasks


def test_captions_name_the_units_of_the_intervals_and_their_limits():
    def row(kind, metric, interval):
        return {"kind": kind, "metric": metric, "low": 1.0, "high": 2.0, INTERVAL: interval}

    scenes = interval_note(pd.DataFrame([row("normals", "mean-angle", "bootstrap, over scenes")]), "±")
    assert "over scenes, for one training run" in scenes and "test images" not in scenes
    linear = interval_note(pd.DataFrame([row("linear", "map11", "bootstrap, over test images; 0.92")]), "±")
    assert "validation_draws" in linear and "expected value" in linear and "92 %" in linear
    assert "expected value" not in interval_note(pd.DataFrame([row("linear", "top1", "Wilson, over test images")]), "±")

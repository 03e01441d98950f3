import base64
import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from browser import CHROMIUM, browser
from scipy import stats
from synthetic_suite import DATASETS, MODELS, PRETRAINED_ON, scores, suite

from ssltransfer.analysis.pairs import SuitePairs
from ssltransfer.analysis.suite_results import suite_results
from ssltransfer.files import write_json
from ssltransfer.report.drawing import MARKERS, FigureContext, save_figure
from ssltransfer.report.epoch_figure import epoch_figure, training_runs
from ssltransfer.report.figures import suite_figures
from ssltransfer.report.html import SECTIONS, _drop_repeats, caption, render_report, without_legend
from ssltransfer.report.interactive_scatter import marker_path, regression_ends, scatter_data
from ssltransfer.report.labels import suite_labels
from ssltransfer.report.overview import findings, overview_table, remarks
from ssltransfer.report.statistics_tables import rank_tables
from ssltransfer.report.table_folder import read_results, write_results
from ssltransfer.report.tables import all_tables
from ssltransfer.results.scores import TASK, Task, tidy

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def report_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    models = suite().models.assign(highlight=[model == "simclr-textures" for model in suite().models["model"]])
    runs = {"simclr": ("run-1", 100.0), "simclr-textures": ("run-1", 200.0), "swav": ("run-2", 5.0)}
    results = replace(suite(), models=models, training_runs=runs)
    write_results(results, all_tables(results, with_paper=False), folder / "tables")
    write_json(folder / "tables" / "notes.json", {"linear-r32": {"kind": "linear", "text": "A warning."}})
    context = FigureContext(read_results(folder / "tables"))
    for name, figure in suite_figures(context):
        save_figure(figure, folder / "figures", name)
    captions = {"transfer": "With <notes>.", "scatter-linear": "A warning.", "scatter-fewshot": "A warning."}
    write_json(folder / "figures" / "captions.json", captions)
    write_json(folder / "figures" / "explorer.json", scatter_data(context))
    provenance = {"python": "3.12", "evil": "<script>alert(1)</script>"}
    text = render_report("demo", "Demo", folder / "tables", folder / "figures", provenance, "../../docs")
    (folder / "report.html").write_text(text)
    return folder / "report.html"


@pytest.fixture(scope="module")
def report(report_file):
    return report_file.read_text()


@pytest.fixture(scope="module")
def page(report):
    """The body of the report as an element tree."""
    body = re.search(r"<body>.*</body>", report, re.DOTALL)[0]
    body = re.sub(r"<script.*?</script>", "", body, flags=re.DOTALL)
    return ET.fromstring(re.sub(r"<(img[^>]*)>", r"<\1/>", body))


def test_loads_nothing(report):
    assert not re.search(r"""src\s*=\s*["'](?!data:)""", report)
    assert not re.search(r"""<(?!a )[^>]*href\s*=\s*["'](?!data:)""", report)
    assert not re.search(r"url\((?!#|['\"]?data:)|@import|<link(?! rel=\"icon\" href=\"data:)", report)


def test_everything_from_outside_is_escaped(report):
    assert "<script>alert" not in report
    assert "&lt;script&gt;alert" in report
    assert "<b>&" not in report


def test_a_figure_has_its_own_caption_too(report):
    assert "With &lt;notes&gt;." in report


def test_links_lead_to_files_of_the_suite_and_sections_of_the_documentation(page, report_file):
    ids = {element.get("id") for element in page.iter() if element.get("id")}
    links = {link.get("href") for link in page.iter("a")}
    assert {"tables/scores.csv", "tables/mean-ranks.tex", "figures/transfer.png", "../../docs/glossary.md"} <= links
    for link in links:
        if link.startswith("#"):
            assert link[1:] in ids
        elif link.startswith("../../docs/"):
            name, _, anchor = link.removeprefix("../../docs/").partition("#")
            headings = re.findall(r"^#+ (.*)$", (DOCS / name).read_text(encoding="utf-8"), re.MULTILINE)
            anchors = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert not anchor or anchor in anchors, link
        elif not link.startswith("https:"):
            assert (report_file.parent / link).is_file(), link
    linked = {section.explained.partition("#")[0] for section in SECTIONS.values() if section.explained}
    assert all((DOCS / name).is_file() for name in linked)


def test_sections_with_intervals_lead_to_their_page(page):
    """And no other section does."""
    linked = {
        section.get("id"): any(link.get("href").endswith("docs/intervals.md") for link in section.iter("a"))
        for section in page.iter("section")
    }
    with_intervals = {
        section.get("id"): any(
            "95 % interval" in "".join(text.itertext()) for tag in ("p", "figcaption") for text in section.iter(tag)
        )
        for section in page.iter("section")
        if section.get("id") not in ("glossary", "provenance")
    }
    assert any(with_intervals.values()) and not all(with_intervals.values())
    assert linked == with_intervals | {"glossary": False, "provenance": False}


def test_without_documentation_beside_it_the_report_names_its_pages(report_file):
    folder = report_file.parent
    text = render_report("demo", "Demo", folder / "tables", folder / "figures", {})
    assert "docs/analysis.md#correlations" in text
    assert 'docs/analysis.md#correlations"' not in text


def test_ids_are_unique(page):
    ids = [element.get("id") for element in page.iter() if element.get("id")]
    assert len(ids) == len(set(ids))


def test_own_models_are_findings_and_marked_in_tables(page):
    header = " ".join(page.find("header").itertext())
    assert "<b>&" in header
    assert re.search(r"rank \d of 5", header)
    table = page.find(".//div[@id='table-mean-ranks']")
    marked = [row.find("th").text for row in table.iter("tr") if row.get("class") == "own"]
    assert marked == ["<b>&"]


def test_tables_have_heads_and_can_be_focused(page):
    for div in page.iter("div"):
        if div.get("class") == "scroll":
            assert div.get("tabindex") == "0"
            assert div.get("aria-label")
            assert all(head.get("scope") and "".join(head.itertext()) for head in div.iter("th"))
            assert list(div.iter("td"))


def test_images_have_short_alternatives(page):
    images = list(page.iter("img"))
    assert images
    assert all(0 < len(image.get("alt")) < 200 for image in images)


def test_a_warning_is_said_once_per_section(page):
    for key in ("linear", "fewshot"):
        assert " ".join(page.find(f".//section[@id='{key}']").itertext()).count("A warning.") == 1


def test_the_legend_of_models_is_shown_once(page, report_file):
    (legend,) = (element for element in page.iter("ul") if element.get("class") == "legend")
    assert len(legend) == 5
    image = page.find(".//figure[@id='figure-transfer']/img").get("src")
    shown = base64.b64decode(image.partition(",")[2]).decode()
    whole = (report_file.parent / "figures" / "transfer.svg").read_text()
    assert 'id="model-legend"' in whole
    assert 'id="model-legend"' not in shown
    widths = [float(re.search(r'width="([\d.]+)pt"', text)[1]) for text in (whole, shown)]
    right = max(float(x) for x in re.findall(r"<use\b[^>]*? x=\"([\d.]+)\"", shown))
    assert right < widths[1] < widths[0]
    ET.fromstring(shown)


def test_a_figure_without_models_keeps_its_legend():
    assert without_legend('<svg width="9pt"><g id="legend_1"/></svg>') == '<svg width="9pt"><g id="legend_1"/></svg>'


def test_checkpoints_of_one_run_are_drawn_in_the_order_of_their_epochs(report_file):
    context = FigureContext(read_results(report_file.parent / "tables"))
    assert training_runs(context) == {"run-1": ["simclr", "simclr-textures"]}
    axes = epoch_figure(context).axes
    means = context.results.tasks.panel_means
    for ax, panel in zip(axes, context.results.tasks.figure_panels, strict=True):
        line = ax.lines[0]
        assert list(line.get_xdata()) == [100, 200]
        assert list(line.get_ydata()) == list(means.loc[["simclr", "simclr-textures"], panel.name])


def test_no_epochs_without_two_checkpoints_of_one_run():
    runs = {"simclr": ("run-1", 100.0), "swav": ("run-2", 200.0)}
    assert epoch_figure(FigureContext(replace(suite(), training_runs=runs))) is None


def finding(models, values, noise, own):
    """Finding on one model with one score per dataset, top-1 with the same error everywhere; None for no intervals."""
    rows = [{"model": m, "label": m.upper(), "family": "a", "source_accuracy": ""} for m in models]
    cells = tidy(
        {"protocol": "linear-r32", "kind": "linear", "setting": "", "metric": "top1", "source": "measured"}
        | {"model": m, "dataset": f"d{i}", "value": value}
        | ({} if noise is None else {"low": value - noise, "high": value + noise})
        for m, row in zip(models, values, strict=True)
        for i, value in enumerate(row)
    )
    results = suite_results(cells, rows, {}, {}, "v2", own={own})
    (found,) = findings(results, suite_labels(results))
    return found["rank"], [each["text"] for each in found["statements"]]


def test_findings_say_who_is_told_apart():
    # Errors of 0.5 points: 70 and 70.1 are alike, 60 is far below.
    rank, (these, others) = finding(["a", "b", "c"], [[70.0], [70.1], [60.0]], 1.0, "a")
    assert rank.startswith("rank 2 of 3;")
    assert these == "rank 1 to 2 by mean log-odds; better than C; not separable from B."
    assert "fewer than 5" in others


def few_shot_and_linear(wins):
    """Finding on a model that is better by the mean of two datasets, and has `wins` and losses in the paired tests."""
    rows = [{"model": m, "label": m.upper(), "family": "", "source_accuracy": ""} for m in "ab"]
    linear = {"protocol": "linear", "kind": "linear", "setting": "", "metric": "top1", "dataset": "d"}
    few = {"protocol": "few", "kind": "fewshot", "setting": "5-shot", "metric": "accuracy", "dataset": "d"}
    values = [("a", linear, 80.0), ("b", linear, 60.0), ("a", few, 50.0), ("b", few, 52.0)]
    cells = tidy(
        {"model": m, "source": "measured", "value": v, "low": v - 3, "high": v + 3} | head for m, head, v in values
    )
    told = {"linear": [[False, wins], [False, False]], "few": [[False, False], [True, False]]}
    better = {
        Task(*(head[name] for name in TASK)): pd.DataFrame(told[head["protocol"]], [*"ab"], [*"ab"])
        for head in (linear, few)
    }
    results = suite_results(cells, rows, {}, {}, "v2", own={"a"})
    results = replace(results, compared=SuitePairs(better=better, twins=[("d", "e")]))
    (found,) = findings(results, suite_labels(results))
    return results, {each["about"]: each["text"] for each in found["statements"]}


@pytest.mark.parametrize(("wins", "said"), [(False, True), (True, False)])
def test_findings_say_why_the_mean_and_the_paired_tests_disagree(wins, said):
    _, found = few_shot_and_linear(wins)
    assert any("better than B" in text for text in found.values())
    assert ("Against B these tests and the order by mean log-odds disagree" in " ".join(found.values())) == said


def test_findings_say_what_few_shot_intervals_are_over():
    _, found = few_shot_and_linear(True)
    assert "On these datasets, with other test images (few-shot: other episodes of the same images)" in found


def test_datasets_with_the_same_test_images_are_a_remark():
    results, _ = few_shot_and_linear(True)
    labels = suite_labels(results)
    first, *_ = remarks(results, labels, None)
    assert "d and e" in first["text"] and "count twice" in first["text"]
    (ranks,) = rank_tables(results, labels)
    assert "d and e" in ranks.caption


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"partial": "9 of 20 test images"}, "part of the data"), ({"model": "other"}, "it has no score")],
)
def test_a_model_without_a_rank_has_the_reason(change, reason):
    cells = scores().assign(**{"partial": "", "shortened": ""}).assign(**change)
    results = suite_results(cells, MODELS, DATASETS, PRETRAINED_ON, "v2", own={"swav"})
    (found,) = findings(results, suite_labels(results))
    assert found["rank"].startswith("no rank") and reason in found["rank"]


def test_possible_ranks_say_what_they_are_ranks_by():
    results, _ = few_shot_and_linear(True)
    (table,) = rank_tables(results, suite_labels(results))
    assert list(table.cells["Rank by log-odds, these datasets"]) == ["1", "2"]
    assert "not of the mean ranks" in table.caption


def test_findings_on_datasets_like_these():
    low, high = [40.0, 50.0, 60.0, 70.0, 80.0, 85.0], [50.1, 59.9, 69.0, 78.0, 86.0, 89.5]
    rank, (these, others) = finding(["a", "b", "c"], [low, high, low], None, "b")
    assert rank.startswith("rank 1 of 3;")
    assert these.startswith("unknown")
    assert others == "rank 1 by mean log-odds; better than all others."


def test_a_shared_rank_is_said_and_no_finding_without_scores():
    rank, _ = finding(["a", "b"], [[70.0], [70.0]], 1.0, "b")
    assert rank.startswith("rank 1 of 2, shared;")


def test_a_section_says_a_sentence_once_but_each_caption_begins_with_its_own():
    parts = [{"caption": "One thing here. All lines are the same. Short one."}, {"caption": "Two of it. Short one."}]
    parts += [{"caption": "All lines are the same. All lines are the same. New it is (§). ≈ not separable at all."}]
    _drop_repeats(parts)
    assert [part["caption"] for part in parts] == [
        "One thing here. All lines are the same. Short one.",
        "Two of it. Short one.",
        "All lines are the same. New it is (§). ≈ not separable at all.",
    ]


def test_overview_counts_estimators_too():
    estimates = scores()[lambda t: t["kind"].eq("linear")]
    estimates = estimates.assign(protocol="estimators", kind="estimators", metric="log-me")
    results = suite_results(pd.concat([scores(), estimates]), MODELS, DATASETS, PRETRAINED_ON, "v2")
    assert overview_table(results, suite_labels(results)).data["scores"].sum() == len(results.scores)


def test_overview_counts_what_was_measured():
    results = suite()
    table = overview_table(results, suite_labels(results))
    assert list(table.data["settings_block"]) == ["linear-r32", "fewshot-r32"]
    assert list(table.data["models"]) == [5, 5]
    assert list(table.data["scores"]) == [15, 30]
    assert table.data["settings"][1] == "5-shot, 20-shot"
    assert "Of these published" not in table.cells


def test_own_weights_are_highlighted_where_nothing_is_published():
    names = suite_results(scores(), MODELS, DATASETS, PRETRAINED_ON, "v2", own={"swav"}).models
    assert list(names.loc[names["highlight"], "model"]) == ["swav"]
    assert not suite().models["highlight"].any()


def test_line_of_the_explorer_is_least_squares():
    x, y = pd.Series([0.0, 1.0, 1.0, 2.0, 3.0]), pd.Series([1.0, 2.0, 3.0, 2.0, 2.0])
    fit = stats.linregress(x, y)
    assert regression_ends(x, y) == pytest.approx([0, fit.intercept, 3, fit.intercept + 3 * fit.slope], abs=1e-4)
    assert regression_ends(x[:4], y[:4]) == []
    assert regression_ends(x * 0, y) == []


def test_every_figure_and_table_is_shown(report):
    for name in ("transfer", "correlations", "mean-ranks", "radar", "epochs", "domain-vs-transfer", "pairs"):
        assert f'id="figure-{name}"' in report
    for name in ("linear-r32", "fewshot-r32-5-shot", "domain-vs-transfer", "mean-ranks", "correlations"):
        assert report.count(f'id="table-{name}"') == 1


def test_every_figure_has_a_caption():
    for section in SECTIONS.values():
        assert all(caption(name, "demo") for name in section.figures)
    assert "Table 9 of the second version" in caption("calibration", "published-v1")
    assert "Table 9" not in caption("calibration", "published-v2")


def test_explorer_has_every_task_and_its_points():
    data = scatter_data(FigureContext(suite()))
    labels = [view["label"] for view in data["views"]]
    assert labels[:2] == ["Many-shot linear", "Few-shot (5-shot)"]
    assert "Many-shot linear · Digits" in labels
    assert not any("Shapes" in label for label in labels)
    for view in data["views"]:
        assert len(view["points"]) == 5
        source = view["predictors"][0]
        assert source["label"].startswith("Linear accuracy on")
        assert all(
            sorted(point[0] for point in points) == [0, 1, 2, 3, 4] for points in (view["points"], source["points"])
        )
    json.dumps(data, allow_nan=False)


def test_explorer_shows_the_models_that_have_scores_against_the_predictors_that_they_have():
    models = suite().models.to_dict("records")
    last = models[-1]["model"]
    models[0] |= {"source_accuracy": ""}
    some = scores()[lambda t: t["model"].ne(last) | t["kind"].ne("linear")]
    data = scatter_data(FigureContext(suite_results(some, models, DATASETS, PRETRAINED_ON, "v2")))
    views = {view["label"]: view for view in data["views"]}
    panel, task = views["Many-shot linear"], views["Many-shot linear · Digits"]
    for view in (panel, task):
        assert [point[0] for point in view["points"]] == [0, 1, 2, 3]
        assert [point[0] for point in view["predictors"][0]["points"]] == [1, 2, 3]
    other = task["predictors"][1]
    assert other["label"] == "Mean score on other datasets (↑ better)" and "too few" in other["note"]
    assert {point[0] for point in other["points"]} <= {0, 1, 2, 3} and not other["line"]
    whole = {view["label"]: view for view in scatter_data(FigureContext(suite()))["views"]}
    other = whole["Many-shot linear · Digits"]["predictors"][1]
    assert "Kendall" in other["note"] and other["line"]


def test_explorer_is_empty_without_source_accuracy():
    models = [row | {"source_accuracy": ""} for row in suite().models.to_dict("records")]
    assert scatter_data(FigureContext(suite(models))) == {}


def test_every_marker_has_a_path():
    paths = {marker_path(marker) for marker in MARKERS}
    assert len(paths) == len(MARKERS)
    assert all(re.fullmatch(r"(M[-\d. L]+ Z ?)+", path) for path in paths)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_interactive_scatter_in_a_browser(report_file, tmp_path):
    with browser(tmp_path) as page:
        page.open(report_file.as_uri())
        assert page.evaluate("document.querySelectorAll('#explorer .point').length") == 5
        assert page.evaluate("document.querySelector('#explorer .tip').hidden")

        page.evaluate("document.querySelector('#explorer').scrollIntoView()")
        find = (
            "(() => {const r = document.querySelectorAll('#explorer .point')[3].getBoundingClientRect(); return %s})()"
        )
        page.hover(page.evaluate(find % "r.x + r.width / 2"), page.evaluate(find % "r.y + r.height / 2"))
        text = page.evaluate("document.querySelector('#explorer .tip').innerText")
        covered = page.evaluate(
            "(() => {const t = document.querySelector('#explorer .tip').getBoundingClientRect();"
            "const p = document.querySelectorAll('#explorer .point')[3].getBoundingClientRect();"
            "return t.left < p.right && p.left < t.right && t.top < p.bottom && p.top < t.bottom})()"
        )
        assert not covered
        assert page.evaluate("document.querySelectorAll('.legend li.active').length") == 1
        assert page.evaluate("document.querySelectorAll('#explorer .fit').length") == 1
        assert "<b>&" in page.evaluate("document.querySelector('#explorer text.own').textContent")
        assert not page.evaluate("document.querySelector('#explorer .tip').hidden")
        assert text.splitlines()[0] == "<b>&"
        assert re.search(r"rank \d of 5", text)
        page.hover(2, 2)
        assert page.evaluate("document.querySelector('#explorer .tip').hidden")

        # The other menu has the predictors of the view; the choice stays when the view changes.
        page.evaluate("const [m, x] = document.querySelectorAll('#explorer select');"
                      "const views = Array.from(m.options, (o) => o.textContent);"
                      "const choose = (s, i) => { s.value = i; s.dispatchEvent(new Event('change')); };")  # fmt: skip
        page.evaluate("choose(m, views.indexOf('Many-shot linear · Digits')); choose(x, 1)")
        page.evaluate("choose(m, views.indexOf('Many-shot linear · Textures'))")
        assert page.evaluate("x.selectedOptions[0].textContent").startswith("Mean score on other datasets")
        axes = page.evaluate("Array.from(document.querySelectorAll('#explorer svg > text'), (t) => t.textContent)")
        assert any(text.startswith("Mean score on other datasets") for text in axes)
        assert "Kendall" in page.evaluate("document.querySelector('#explorer .note').textContent")
        assert page.evaluate("document.querySelectorAll('#explorer .point').length") == 5
        requests = [event["params"]["request"]["url"] for event in page.named("Network.requestWillBeSent")]
        assert [url for url in requests if not url.startswith(("data:", "file:"))] == []
        assert sum(url.startswith("file:") for url in requests) == 1
        assert page.named("Network.loadingFailed", "Runtime.exceptionThrown", "Log.entryAdded") == []
        assert page.named("Runtime.consoleAPICalled") == []

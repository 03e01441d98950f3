import json
import re
import xml.etree.ElementTree as ET

import pytest
from browser import CHROMIUM, browser
from synthetic_suite import suite

from ssltransfer.files import write_json
from ssltransfer.report.drawing import MARKERS, FigureContext, save_figure
from ssltransfer.report.figures import suite_figures
from ssltransfer.report.html import SECTIONS, caption, render_report
from ssltransfer.report.interactive_scatter import marker_path, scatter_data
from ssltransfer.report.table_folder import write_results
from ssltransfer.report.tables import all_tables


@pytest.fixture(scope="module")
def report_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    results = suite()
    context = FigureContext(results)
    write_results(results, all_tables(results, with_paper=False), folder / "tables")
    for name, figure in suite_figures(context):
        save_figure(figure, folder / "figures", name)
    write_json(folder / "figures" / "captions.json", {"transfer": "With <notes>."})
    write_json(folder / "figures" / "explorer.json", scatter_data(context))
    provenance = {"python": "3.12", "evil": "<script>alert(1)</script>"}
    text = render_report("demo", "Demo", folder / "tables", folder / "figures", provenance)
    (folder / "report.html").write_text(text)
    return folder / "report.html"


@pytest.fixture(scope="module")
def report(report_file):
    return report_file.read_text()


def test_loads_nothing(report):
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:|#)""", report)
    assert not re.search(r"url\((?!#|['\"]?data:)|@import|<link(?! rel=\"icon\" href=\"data:)", report)


def test_everything_from_outside_is_escaped(report):
    assert "<script>alert" not in report
    assert "&lt;script&gt;alert" in report
    assert "<b>&" not in report


def test_a_figure_has_its_own_caption_too(report):
    assert "With &lt;notes&gt;." in report


def test_is_well_formed(report):
    body = re.search(r"<body>.*</body>", report, re.DOTALL)[0]
    body = re.sub(r"<script.*?</script>", "", body, flags=re.DOTALL)
    ET.fromstring(re.sub(r"<(img[^>]*)>", r"<\1/>", body))


def test_every_figure_and_table_is_shown(report):
    for name in ("transfer", "correlations", "mean-ranks", "radar", "domain-vs-transfer", "scatter-linear", "pairs"):
        assert f'id="figure-{name}"' in report
    for name in ("linear-r32", "fewshot-r32-5-shot", "domain-vs-transfer", "mean-ranks", "correlations"):
        assert report.count(f'id="table-{name}"') == 1


def test_every_figure_has_a_caption():
    for _, names, _ in SECTIONS.values():
        assert all(caption(name, "demo") for name in names)
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
        assert sorted(point[0] for point in view["points"]) == [0, 1, 2, 3, 4]
    json.dumps(data, allow_nan=False)


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
        assert not page.evaluate("document.querySelector('#explorer .tip').hidden")
        assert text.splitlines()[0] == "<b>&"
        assert re.search(r"rank \d of 5", text)
        page.hover(2, 2)
        assert page.evaluate("document.querySelector('#explorer .tip').hidden")

        page.evaluate("const m = document.querySelector('#explorer select'); m.value = 3;"
                      "m.dispatchEvent(new Event('change'))")  # fmt: skip
        assert page.evaluate("document.querySelectorAll('#explorer .point').length") == 5
        requests = [event["params"]["request"]["url"] for event in page.named("Network.requestWillBeSent")]
        assert [url for url in requests if not url.startswith(("data:", "file:"))] == []
        assert sum(url.startswith("file:") for url in requests) == 1
        assert page.named("Network.loadingFailed", "Runtime.exceptionThrown", "Log.entryAdded") == []
        assert page.named("Runtime.consoleAPICalled") == []

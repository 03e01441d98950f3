import re
import xml.etree.ElementTree as ET

import pytest
from synthetic_suite import suite

from ssltransfer.plots import save_figure, suite_figures
from ssltransfer.report import SECTIONS, caption, render_report
from ssltransfer.summary import read_correlations, write_summary


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    summary = suite()
    write_summary(summary, folder / "tables")
    for name, figure in suite_figures(summary, read_correlations(folder / "tables")):
        save_figure(figure, folder / "figures", name)
    provenance = {"python": "3.12", "evil": "<script>alert(1)</script>"}
    return render_report("demo", folder / "tables", folder / "figures", provenance)


def test_loads_nothing(report):
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:|#)""", report)
    assert not re.search(r"url\((?!#|['\"]?data:)|@import|<link(?! rel=\"icon\" href=\"data:)", report)


def test_everything_from_outside_is_escaped(report):
    assert "<script>alert" not in report
    assert "&lt;script&gt;alert" in report
    assert "<b>&" not in report


def test_is_well_formed(report):
    body = re.search(r"<body>.*</body>", report, re.DOTALL)[0]
    ET.fromstring(re.sub(r"<(img[^>]*)>", r"<\1/>", body))


def test_every_figure_and_table_is_shown_with_a_caption(report):
    for name in ("transfer", "correlations", "domain-vs-transfer", "scatter-linear", "scatter-fewshot"):
        assert f'id="figure-{name}"' in report
    for name in ("linear-r32", "fewshot-r32-5-shot", "domain-vs-transfer", "correlations"):
        assert f'id="table-{name}"' in report


def test_every_figure_has_a_caption():
    for _, names, _ in SECTIONS.values():
        assert all(caption(name) for name in names)

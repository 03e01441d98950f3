"""The report of a suite: one html file that holds all figures and tables and loads nothing."""

import base64
import json
import re
from pathlib import Path
from types import SimpleNamespace

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from ssltransfer.files import atomic_write, package_data, read_json
from ssltransfer.report.marks import analysis_note
from ssltransfer.report.provenance import report_lines
from ssltransfer.report.table_folder import read_results

TEMPLATES = package_data("workflow/report")

#: Section -> (title, figures, beginnings of table names), in reading order. The name of a figure is also that of all
#: figures that begin with it: ``normals-pictures`` for the pictures of all protocols of that kind.
SECTIONS = {
    "missing": ("Scores that are missing", [], ["missing"]),
    "left-out": ("Scores that were left out", [], ["left-out"]),
    "transfer": ("Transfer and source accuracy", ["transfer", "correlations"], []),
    "models": ("Which model?", ["mean-ranks", "model-pairs", "radar"], ["mean-ranks"]),
    "domain": ("Domain or transfer?", ["domain-vs-transfer"], ["domain-vs-transfer"]),
    "comparison": ("Measured and published", [], ["comparison"]),
    "claims": ("Claims", [], ["claims"]),
    "linear": ("Many-shot linear", ["scatter-linear"], []),
    "finetune": ("Many-shot finetuning", ["scatter-finetune"], []),
    "fewshot": ("Few-shot", ["scatter-fewshot"], []),
    "detection": ("Detection", ["scatter-detection", "detection-pictures"], ["detection"]),
    "normals": ("Surface normals", ["scatter-normals", "normals-pictures"], ["normals"]),
    "segmentation": ("Segmentation", ["scatter-segmentation"], ["segmentation"]),
    "properties": (
        "Properties of the features",
        ["calibration", "properties", "inversion-pictures", "attention-pictures"],
        ["properties", "table9-correlations"],
    ),
    "statistics": ("Statistics", ["pairs"], ["correlations", "averages-check"]),
    "training": ("Training", ["losses"], ["training-details"]),
}


def caption(name: str, suite: str) -> str:
    """Caption of a figure, from the template that Snakemake's own report also uses."""
    text = (TEMPLATES / "figure.rst").read_text(encoding="utf-8")
    wildcards = SimpleNamespace(wildcards=SimpleNamespace(name=name, suite=suite))
    return Environment(autoescape=False).from_string(text).render(snakemake=wildcards).strip()


def _named(folder: Path, name: str) -> list[str]:
    """Names of the figures of an entry of `SECTIONS`."""
    return sorted(path.stem for pattern in (f"{name}.svg", f"{name}-*.svg") for path in folder.glob(pattern))


def _figure(folder: Path, name: str, suite: str) -> dict:
    """Read a figure for inlining, as an image, so that its ids cannot clash with those of another."""
    svg = (folder / f"{name}.svg").read_text(encoding="utf-8")
    points = float(re.search(r'width="([\d.]+)pt"', svg)[1])
    uri = "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
    own = read_json(folder / "captions.json").get(name, "")
    return {"name": name, "caption": f"{caption(name, suite)} {own}".strip(), "uri": uri, "width": round(points * 1.75)}


def _section_of(table: str) -> str | None:
    """Section of a table by its name; None for tables that are only files, because a figure shows them."""
    for key, (*_, names) in SECTIONS.items():
        if any(re.match(rf"{name}(-|$)", table) for name in names):
            return key
    return None


def _sections(tables: Path, figures: Path, suite: str) -> list[dict]:
    written = read_json(tables / "suite.json")["tables"]
    for table in written:
        table["html"] = Markup((tables / f"{table['name']}.html").read_text(encoding="utf-8"))
    sections = []
    for key, (title, figure_names, _) in SECTIONS.items():
        section = {
            "id": key,
            "title": title,
            "figures": [_figure(figures, name, suite) for entry in figure_names for name in _named(figures, entry)],
            "tables": [t for t in written if (t["section"] or _section_of(t["name"])) == key],
        }
        if section["figures"] or section["tables"]:
            sections.append(section)
    return sections


def _inline_json(path: Path) -> Markup:
    """Read a JSON file and escape what could end the script element that it is inlined into."""
    return Markup(json.dumps(read_json(path), indent=1).replace("&", "\\u0026").replace("<", "\\u003c"))


def render_report(suite: str, title: str, tables: str | Path, figures: str | Path, provenance: dict[str, str]) -> str:
    """Render the report.

    Parameters
    ----------
    suite, title : str
        Its id and heading.
    tables, figures : path
        Folders written by `make_tables` and `plot_figures`.
    provenance : dict of str
        Lines to list at the end, after suite and conventions (see `provenance.report_lines`).

    Returns
    -------
    str
        A complete html document. All text from files and configuration is escaped.
    """
    tables, figures = Path(tables), Path(figures)
    results = read_results(tables)
    matrix = results.shown
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template = environment.from_string((TEMPLATES / "report.html.jinja").read_text(encoding="utf-8"))
    counts = {
        "models": int(matrix.notna().any(axis=1).sum()),
        "tasks": matrix.shape[1],
        "scores": len(results.scores),
    }
    data = figures / "explorer.json"
    return template.render(
        title=title,
        counts=counts,
        sections=_sections(tables, figures, suite),
        note=analysis_note(results),
        provenance={"suite": suite, "conventions": results.conventions_name, **provenance},
        explorer=_inline_json(data) if data.exists() else "",
        script=Markup((TEMPLATES / "explorer.js").read_text(encoding="utf-8")),
    )


def write_report(
    path: str | Path, suite: str, title: str, tables: str | Path, figures: str | Path, provenance: str | Path
) -> None:
    """Render (see `render_report`) and write the report; `provenance` is the file that `write_provenance` wrote."""
    text = render_report(suite, title, tables, figures, report_lines(read_json(provenance)))
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")

"""The report of a suite: one html file that holds all figures and tables and loads nothing."""

import base64
import io
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from PIL import Image

from ssltransfer.analysis.pairs import MANY_MODELS
from ssltransfer.files import atomic_write, package_data, read_json
from ssltransfer.report.drawing import MODEL_LEGEND, PALE
from ssltransfer.report.marks import analysis_note
from ssltransfer.report.provenance import report_lines
from ssltransfer.report.table_folder import read_results

TEMPLATES = package_data("workflow/report")
SCALE = 1.75
"""Pixels of the report for a point of a figure."""
WIDE = 900
"""Pixels above which a figure is scrolled on a phone, because its text would be too small on the screen."""
#: Between two sentences of a caption.
SENTENCE_END = re.compile(r"(?<=[.)]) (?=[A-ZÀ-Þ±≈§‡◇])")
REPEATED = 4
"""Fewest words of a sentence that a section says once."""
SYMBOL = 8.0
"""Points from the middle of a legend's symbols to its left edge."""


class Section(NamedTuple):
    """A section of the report.

    Attributes
    ----------
    title : str
    figures : tuple of str
        Names of figures. Each is also that of all figures that begin with it: ``normals-pictures`` for the pictures of
        all protocols of that kind.
    tables : tuple of str
        Beginnings of the names of tables.
    explained : str
        Page and anchor in ``docs/`` that says how the numbers are computed.
    """

    title: str
    figures: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    explained: str = ""


#: Sections in reading order.
SECTIONS = {
    "missing": Section("Scores that are missing", (), ("missing",), "interruptions.md#jobs-that-fail"),
    "left-out": Section(
        "Scores that were left out", (), ("left-out",), "analysis.md#scores-that-are-not-full-measurements"
    ),
    "adopted": Section("Measured elsewhere", (), ("adopted",), "publishing.md#adopt-scores-of-others"),
    "overview": Section("Models and measurements", (), (), "protocols.md#protocols-as-implemented"),
    "transfer": Section("Transfer and source accuracy", ("transfer", "correlations"), (), "analysis.md#correlations"),
    "models": Section(
        "Which model?", ("mean-ranks", "model-pairs", "radar"), ("mean-ranks",), "analysis.md#comparing-models"
    ),
    "epochs": Section("Scores along a training run", ("epochs",), (), "analysis.md#figures"),
    "domain": Section("Domain or transfer?", ("domain-vs-transfer",), ("domain-vs-transfer",), "analysis.md#tables"),
    "comparison": Section("Measured and published", (), ("comparison",), "analysis.md#measured-next-to-published"),
    "claims": Section("Claims", (), ("claims",), "analysis.md#claims"),
    "linear": Section(
        "Many-shot linear", ("scatter-linear",), (), "protocols.md#many-shot-linear-v1-table-1-v2-table-1-top"
    ),
    "knn": Section("k-nearest neighbours", ("scatter-knn",), (), "protocols.md#k-nearest-neighbours"),
    "finetune": Section("Many-shot finetuning", ("scatter-finetune", "finetune-grid"), (), "finetuning.md"),
    "fewshot": Section("Few-shot", ("scatter-fewshot",), (), "protocols.md#few-shot-v1-table-2-v2-tables-2-3-6-7-8"),
    "label-efficiency": Section(
        "Label efficiency",
        ("label-efficiency",),
        ("label-efficiency", "label-equivalence"),
        "protocols.md#label-efficiency",
    ),
    "detection": Section("Detection", ("scatter-detection", "detection-pictures"), ("detection",), "detection.md"),
    "normals": Section("Surface normals", ("scatter-normals", "normals-pictures"), ("normals",), "normals.md"),
    "segmentation": Section(
        "Segmentation", ("scatter-segmentation", "segmentation-pictures"), ("segmentation",), "segmentation.md"
    ),
    "properties": Section(
        "Properties of the features",
        ("calibration", "properties", "inversion-pictures", "attention-pictures"),
        ("properties", "table9-correlations"),
        "inversion-and-attention.md",
    ),
    "predictors": Section(
        "What predicts transfer?", ("predictors",), ("predictors", "estimators"), "analysis.md#predictors-of-transfer"
    ),
    "similarity": Section(
        "How alike are the models?", ("similarity-map",), ("similarity",), "analysis.md#similarity-of-representations"
    ),
    "statistics": Section(
        "Statistics", ("pairs",), ("correlations", "family-correlations", "averages-check"), "analysis.md#correlations"
    ),
    "training": Section("Training", ("losses",), ("training-details",)),
}

PAPER = {
    "title": "How Well Do Self-Supervised Models Transfer?",
    "authors": "Linus Ericsson, Henry Gouk and Timothy M. Hospedales",
    "venue": "CVPR 2021",
    "url": "https://arxiv.org/abs/2011.13377",
}

GLOSSARY = {
    "Source accuracy": "Accuracy of a model on the data that it was pretrained on; the x axis of the scatter plots.",
    "Task": "One thing that models are compared on: a protocol, a dataset and a metric (for few-shot, also the shots).",
    "Panel": "Tasks that are averaged and drawn together, such as all many-shot linear ones.",
    "Settings block": "All settings of a protocol under one name, which is part of the names of files.",
    "Log-odds": "Logarithm of p / (1 − p) for a score p between 0 and 1: 50 % is 0, 90 % is 2.2. Scores near "
    "100 % are spread out on this scale, on which bounded scores are averaged and correlated.",
    "Mean rank": "Ranks of a model within each counted task that all models have, averaged over datasets; 1 is best.",
    "Counted tasks": "Those of the panels of transfer against source accuracy: the tasks that the paper counts, and "
    "nearest neighbours (k = 20 where it is measured).",
    "Rank 2 to 4": "Ranks by mean log-odds that a model can have; with 95 % confidence, those of all models hold "
    "together.",
    "Better, not separable": "A model is better than another one where a test finds a difference at the 5 % level, "
    "adjusted for all pairs compared. Other pairs are not separable, which does not mean that they are equal.",
    "These datasets, datasets like these": "Two questions: would the order hold with other test images of the same "
    "datasets (few-shot: other episodes of the same images), or on other datasets? The second has the larger noise.",
    "r, ρ": "Pearson's correlation of the values drawn, and Spearman's correlation of their ranks.",
    "±": "Half the width of an interval of 95 %, or of the lower level that the caption says; it also says what would "
    "be drawn anew.",
}
"""Words of the report; those of the configuration are in docs/glossary.md."""


def caption(name: str, suite: str) -> str:
    """Caption of a figure, from the template that Snakemake's own report also uses."""
    text = (TEMPLATES / "figure.rst").read_text(encoding="utf-8")
    wildcards = SimpleNamespace(wildcards=SimpleNamespace(name=name, suite=suite))
    return Environment(autoescape=False).from_string(text).render(snakemake=wildcards).strip()


def _named(folder: Path, name: str) -> list[str]:
    """Names of the figures of an entry of `SECTIONS`."""
    return sorted(path.stem for pattern in (f"{name}.svg", f"{name}-*.svg") for path in folder.glob(pattern))


def without_legend(svg: str) -> str:
    """Cut the legend of models off the right side of a figure; other figures stay as they are.

    Parameters
    ----------
    svg : str
        A file that `drawing.save_figure` wrote.
    """
    start = svg.find(f'<g id="{MODEL_LEGEND}">')
    if start < 0:
        return svg
    end, depth = start, 0
    for tag in re.finditer(r"<g\b|</g>", svg[start:]):
        depth += 1 if tag[0] == "<g" else -1
        end = start + tag.end()
        if depth == 0:
            break
    # The symbols are the leftmost parts of the legend.
    left = min(float(x) for x in re.findall(r'<use\b[^>]*? x="([\d.]+)"', svg[start:end])) - SYMBOL
    svg = svg[:start] + svg[end:]
    svg = re.sub(r'width="[\d.]+pt"', f'width="{left:.6g}pt"', svg, count=1)
    return re.sub(r'viewBox="0 0 [\d.]+ ', f'viewBox="0 0 {left:.6g} ', svg, count=1)


def _figure(folder: Path, name: str, suite: str, many: bool) -> dict:
    """Read a figure for inlining, as an image, so that its ids cannot clash with those of another.

    With so `many` models that its vectors would take megabytes, it is a picture with the pixels of the report.
    """
    svg = (folder / f"{name}.svg").read_text(encoding="utf-8")
    svg = svg if many else without_legend(svg)
    width = round(SCALE * float(re.search(r'width="([\d.]+)pt"', svg)[1]))
    content = _picture(folder / f"{name}.png", width) if many else svg.encode()
    uri = f"data:image/{'webp' if many else 'svg+xml'};base64,{base64.b64encode(content).decode()}"
    general = caption(name, suite)
    own = read_json(folder / "captions.json").get(name, "")
    return {
        "name": name,
        "alt": general.split(". ")[0].rstrip("."),
        "caption": f"{general} {own}".strip(),
        "uri": uri,
        "width": width,
        "wide": width > WIDE,
    }


def _picture(path: Path, width: int) -> bytes:
    """Return a picture of this width (pixels) as WebP."""
    content = io.BytesIO()
    with Image.open(path) as image:
        resized = image.convert("RGB").resize((width, round(image.height * width / image.width)))
    resized.save(content, "WEBP", quality=75, method=4)
    return content.getvalue()


def _section_of(table: str) -> str | None:
    """Section of a table by its name; None for tables that are only files, because a figure shows them."""
    for key, section in SECTIONS.items():
        if any(re.match(rf"{name}(-|$)", table) for name in section.tables):
            return key
    return None


def _sections(tables: Path, figures: Path, suite: str, note: str, many: bool) -> list[dict]:
    """Sections that have figures or tables; captions without `note`, which the header says once."""
    written = read_json(tables / "suite.json")["tables"]
    warnings = [warning["text"] for warning in read_json(tables / "notes.json").values()]
    for table in written:
        table["html"] = Markup((tables / f"{table['name']}.html").read_text(encoding="utf-8"))
    written = [table for table in written if "<td" in table["html"].partition("<tbody>")[2]]
    sections = []
    for key, section in SECTIONS.items():
        shown = {
            "id": key,
            "title": section.title,
            "figures": [
                _figure(figures, name, suite, many) for entry in section.figures for name in _named(figures, entry)
            ],
            "tables": [t for t in written if (t["section"] or _section_of(t["name"])) == key],
        }
        if shown["figures"] or shown["tables"]:
            parts = [*shown["figures"], *shown["tables"]]
            intervals = any("95 % interval" in part["caption"] for part in parts)
            shown["explained"] = [section.explained] * bool(section.explained) + ["intervals.md"] * intervals
            _say_once(parts, note, warnings)
            _drop_repeats(parts)
            sections.append(shown)
    return sections


def _say_once(parts: list[dict], note: str, warnings: list[str]) -> None:
    """Take the note from the captions of a section, and each warning from all captions but the first that has it."""
    said = {note}
    for part in parts:
        for text in [note, *warnings]:
            if text and text in part["caption"]:
                if text in said:
                    part["caption"] = " ".join(part["caption"].replace(text, "").split())
                said.add(text)


def _drop_repeats(parts: list[dict]) -> None:
    """Take sentences that an earlier caption of the section has from the captions after it, but not their first one.

    So the sentences that explain all figures or tables of a section do not hide those of a single one.
    """
    said: set[str] = set()
    for part in parts:
        first, *rest = SENTENCE_END.split(part["caption"])
        part["caption"] = " ".join([first, *(text for text in rest if text not in said)])
        said |= {text for text in (first, *rest) if len(text.split()) >= REPEATED}


def _inline_json(path: Path) -> Markup:
    """Read a JSON file and escape what could end the script element that it is inlined into."""
    return Markup(json.dumps(read_json(path), separators=(",", ":")).replace("&", "\\u0026").replace("<", "\\u003c"))


def _legend(data: Path) -> list[dict]:
    """Models of the interactive scatter, and of each whether it is another grey point in figures."""
    models = read_json(data)["models"] if data.exists() else []
    return [{"other": False} | model for model in models]


def render_report(
    suite: str,
    title: str,
    tables: str | Path,
    figures: str | Path,
    provenance: dict[str, str],
    docs: str = "",
) -> str:
    """Render the report.

    Parameters
    ----------
    suite, title : str
        Its id and heading.
    tables, figures : path
        Folders written by `make_tables` and `plot_figures`.
    provenance : dict of str
        Lines to list at the end, after suite and conventions (see `provenance.report_lines`).
    docs : str
        Where the documentation is, as a link from the report; empty names its pages without links.

    Returns
    -------
    str
        A complete html document. All text from files and configuration is escaped.
    """
    tables, figures = Path(tables), Path(figures)
    results = read_results(tables)
    matrix, written = results.shown, read_json(tables / "suite.json")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template = environment.from_string((TEMPLATES / "report.html.jinja").read_text(encoding="utf-8"))
    counts = {
        "models": int(matrix.notna().any(axis=1).sum()),
        "tasks": matrix.shape[1],
        "scores": len(results.scores),
    }
    note = analysis_note(results)
    sections = _sections(tables, figures, suite, note, many=len(results.models) > MANY_MODELS)
    data = figures / "explorer.json"
    return template.render(
        title=title,
        counts=counts,
        paper=PAPER,
        findings=written["findings"],
        remarks=written["remarks"],
        sections=sections,
        note=note,
        glossary=GLOSSARY,
        docs=docs,
        provenance={"suite": suite, "conventions": results.conventions_name, **provenance},
        legend=(legend := _legend(data)),
        others=PALE if any(model["other"] for model in legend) else "",
        explorer=_inline_json(data) if data.exists() else "",
        explorer_section=next(
            (s["id"] for s in sections if s["id"] == "transfer"), sections[-1]["id"] if sections else ""
        ),
        script=Markup((TEMPLATES / "explorer.js").read_text(encoding="utf-8")),
    )


def write_report(
    path: str | Path, suite: str, title: str, tables: str | Path, figures: str | Path, provenance: str | Path
) -> None:
    """Render (see `render_report`) and write the report; `provenance` is the file that `write_provenance` wrote."""
    docs = "../../docs" if (Path(path).parent / "../../docs/analysis.md").is_file() else ""
    text = render_report(suite, title, tables, figures, report_lines(read_json(provenance)), docs)
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")

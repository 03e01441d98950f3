"""The example notebook: its cells run, and show what it says."""

import json
import re
import runpy

import nbformat
import pytest

import ssltransfer
from workflow import REPOSITORY

NOTEBOOK = REPOSITORY / "docs/evaluate.ipynb"


def test_the_notebook_runs(tmp_path):
    run = runpy.run_path(str(REPOSITORY / "docs/run_notebook.py"))["run"]
    content = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    nbformat.validate(nbformat.from_dict(content))
    now, kept = outputs(run(content["cells"], tmp_path)), outputs(content["cells"])
    # Numbers are those of a machine; everything else is as it is kept.
    assert [without_numbers(text) for text in now] == [without_numbers(text) for text in kept]
    (scores, selected, arrays) = [texts[0] for texts in now if texts]
    assert "20-shot" in scores and "lambda" in selected and "one-shot" in arrays
    values = [float(value) for value in re.findall(r"<td>(\d+\.\d+)</td>", scores)]
    assert len(values) == 4 * 3 and values[0] > 50, "far above chance, with intervals"


def outputs(cells):
    """What each cell shows, in the form that a notebook prefers."""
    data = ([output["data"] for output in cell.get("outputs", [])] for cell in cells)
    return [["".join(shown.get("text/html", shown["text/plain"])) for shown in found] for found in data]


def without_numbers(texts):
    return re.sub(r"\d+(\.\d+)?(e[-+]\d+)?", "0", " ".join(texts))


def test_a_score_in_a_notebook_takes_few_lines():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    own = [text for text in code if "load_digits" not in text and "evaluate_features" not in text]
    lines = [line for text in own for line in text.splitlines() if line.strip()]
    assert "ssltransfer.evaluate(" in "".join(lines) and len(lines) < 15


@pytest.mark.parametrize("name", ssltransfer.__all__)
def test_the_page_names_what_can_be_imported(name):
    assert f"`{name}" in (REPOSITORY / "docs/evaluate-in-python.md").read_text().replace("ssltransfer.", "")

"""Run docs/evaluate.ipynb in a temporary folder and keep its outputs: `uv run python docs/run_notebook.py`."""

import ast
import contextlib
import json
import os
import tempfile
from pathlib import Path

NOTEBOOK = Path(__file__).with_name("evaluate.ipynb")


def run(cells: list[dict], folder: Path) -> list[dict]:
    """Run the code cells in one namespace and return all cells with the values of their last expressions.

    Parameters
    ----------
    cells : list of dict
        As in a notebook file.
    folder : Path
        Working directory.
    """
    namespace: dict = {}
    done = []
    with contextlib.chdir(folder):
        for cell in cells:
            if cell["cell_type"] == "code":
                value = last_value("".join(cell["source"]), namespace)
                cell = cell | {"outputs": [output(value)] if value is not None else []}
            done.append(cell)
    return done


def last_value(source: str, namespace: dict) -> object:
    """Run code; return the value of its last statement if that is an expression."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), namespace)
    return None if last is None else eval(compile(ast.Expression(last.value), "cell", "eval"), namespace)


def output(value: object) -> dict:
    """Return the output of a cell as a notebook file holds it."""
    data = {"text/plain": repr(value).splitlines(keepends=True)}
    if hasattr(value, "_repr_html_"):
        data["text/html"] = value._repr_html_().splitlines(keepends=True)
    return {"data": data, "execution_count": None, "metadata": {}, "output_type": "execute_result"}


if __name__ == "__main__":
    content = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as temporary:
        content["cells"] = run(content["cells"], Path(temporary))
    NOTEBOOK.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

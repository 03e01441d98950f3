"""docs/protocols.md goes through every kind, settings block and task, with names that exist."""

import ast
import re

import pytest
import yaml

from ssltransfer.settings import config_schema
from workflow import REPOSITORY

LIBRARY = REPOSITORY / "scripts/ssltransfer"
TEXT = (REPOSITORY / "docs/protocols.md").read_text()
BLOCKS = yaml.safe_load((REPOSITORY / "config/protocols.yaml").read_text())
RULES = "".join(path.read_text() for path in (REPOSITORY / "workflow/rules").glob("*.smk"))
KINDS = config_schema()["properties"]["protocols"]["additionalProperties"]["properties"]["kind"]["enum"]


def table(heading):
    """Rows of the first table below a heading, as dictionaries by column."""
    section = TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line.startswith("|")]
    return [dict(zip(lines[0], cells, strict=True)) for cells in lines[2:]]


PAPER, BEYOND = table("The paper, table by table"), table("Beyond the paper")
ROWS = [pytest.param(row, id=re.sub(r"\W+", "-", f"{row.get('v2', '')} {row['Shows']}")) for row in PAPER + BEYOND]


def named(rows, column):
    return {name for row in rows for name in re.findall(r"`(.+?)`", row[column])}


@pytest.mark.parametrize("row", ROWS)
def test_rules_modules_blocks_and_tests_of_a_row_exist(row):
    for name in re.findall(r"\w+_\w+", row["Rule"]):
        assert f"rule {name}:" in RULES, name
        assert (REPOSITORY / f"scripts/{name}.py").exists(), name
    for name in re.findall(r"`(.+?)`", row["Module"]):
        assert (LIBRARY / name).exists(), name
    for name in re.findall(r"`(.+?)`", row["Settings blocks"]):
        assert name in BLOCKS, name
    tests = re.findall(r"`(test_\w+\.py)::(\w+)`", row["How it was verified"])
    assert tests or row["How it was verified"] in ("as above", "as for Fig. 5")
    for file, name in tests:
        tree = ast.parse((REPOSITORY / "tests" / file).read_text())
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, (file, name)


def test_every_kind_and_every_settings_block_has_a_row():
    rules = {rule for row in PAPER + BEYOND for rule in row["Rule"].split(", ")}
    assert {f"evaluate_{kind.replace('-', '_')}" for kind in KINDS} <= rules
    assert named(PAPER + BEYOND, "Settings blocks") == set(BLOCKS)
    packages = {path.stem for path in (LIBRARY / "protocols").iterdir() if path.is_dir()} - {"__pycache__"}
    assert packages <= {name.split("/")[1] for name in named(PAPER + BEYOND, "Module") if name.startswith("protocols/")}


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_the_papers_suite_is_gone_through(version):
    """Each task of the suite has a row in which the paper's table or figure of that version is named."""
    tasks = yaml.safe_load((REPOSITORY / f"config/paper-{version}.yaml").read_text())["tasks"]
    assert set(tasks) <= named([row for row in PAPER if row[version]], "Settings blocks")


def test_every_table_and_figure_of_the_paper_has_a_row():
    """Five tables and eight figures in the first version, ten tables and nine figures in the second."""
    for version, tables, figures in (("v1", 5, 8), ("v2", 10, 9)):
        text = "; ".join(row[version] for row in PAPER)
        for word, count in (("Table", tables), ("Fig", figures)):
            found = set()
            for part in re.findall(rf"{word}s?\.?((?:,? \d+\b)+)", text):
                found |= {int(number) for number in re.findall(r"\d+", part)}
            assert found == set(range(1, count + 1)), (version, word)


def keys(schema):
    for name, spec in schema["properties"].items():
        yield name, spec
        if "properties" in spec:
            yield from keys(spec)


def test_settings_that_the_page_names_are_settings():
    """`key: value` in the text is a key of some kind, and a value that this kind allows."""
    allowed = {}
    for kind in KINDS:
        for name, spec in keys(config_schema()["$defs"][kind]):
            if "$ref" in spec:
                spec = config_schema()["$defs"][spec["$ref"].rpartition("/")[2]]
            allowed.setdefault(name, []).append(spec)
    found = re.findall(r"`(\w+): (\[.*?\]|[\w-]+)`", TEXT)
    assert len(found) > 10
    for key, text in found:
        assert key in allowed, key
        values = yaml.safe_load(text)
        for value in values if isinstance(values, list) else [values]:
            specs = [spec.get("items", spec) for spec in allowed[key]]
            assert any("enum" not in spec or value in spec["enum"] for spec in specs), (key, value)

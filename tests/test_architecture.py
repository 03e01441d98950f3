"""Promises about the code itself: data flows one way, and nobody changes a number without deciding so."""

import ast
import hashlib
import json
import re
import runpy

import pytest
import yaml

from ssltransfer.versions import COMPONENTS
from workflow import REPOSITORY

PACKAGE = REPOSITORY / "scripts" / "ssltransfer"
HASHES = REPOSITORY / "tests" / "source_hashes.json"

# Each line may import from its own and earlier lines only (design: data flows one way).
ORDER = [
    {
        "errors",
        "files",
        "versions",
        "jobs",
        "arrays",
        "device",
        "download",
        "array_file",
        "backbones",
        "fused",
        "trunks",
    },
    {"checkpoints", "datasets"},
    {"config", "images", "splits", "metrics"},
    {"verification"},
    {"training"},
    {"pretraining"},
    {"features", "feature_file"},
    {"design"},
    {"logistic"},
    {"linear", "fewshot", "calibration", "normals", "detection"},
    {"attention"},
    {"inversion", "likeness"},
    {"score_file", "picture_file"},
    {"scores"},
    {"correlation"},
    {"published", "ranking", "comparison"},
    {"claims"},
    {"tables"},
    {"summary"},
    {"suite_tables"},
    {"plots"},
    {"galleries"},
    {"explorer"},
    {"report", "provenance"},
]
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}
MODULES = sorted(PACKAGE.rglob("*.py"))


def imports(path):
    """Dotted names that a module imports anywhere in its body."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module
            if node.module == "ssltransfer":
                yield from (f"ssltransfer.{alias.name}" for alias in node.names)


def room(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_library_knows_no_snakemake_and_flows_one_way(path):
    names = list(imports(path))
    assert not any(re.match(r"snakemake\b", name) for name in names)
    if room(path) == "__init__":
        return
    for name in names:
        if name.startswith("ssltransfer."):
            other = name.split(".")[1]
            assert RANK[other] <= RANK[room(path)], f"{room(path)} must not import {other}"


def test_every_rule_has_its_script_and_every_script_its_rule():
    rules = "".join(path.read_text() for path in (REPOSITORY / "workflow/rules").glob("*.smk"))
    used = set(re.findall(r'"\.\./\.\./scripts/(\w+\.py)"', rules))
    assert used == {path.name for path in (REPOSITORY / "scripts").glob("*.py")}
    for name in used:
        assert f"rule {name.removesuffix('.py')}:" in rules


def canonical(node):
    """A syntax tree as tuples, equal under every Python; what `ast.unparse` and `ast.dump` give differs."""
    if isinstance(node, ast.AST):
        fields = ((name, value) for name, value in ast.iter_fields(node) if value not in (None, []))
        return (type(node).__name__, *((name, canonical(value)) for name, value in fields))
    return [canonical(item) for item in node] if isinstance(node, list) else repr(node)


def source_hash(modules):
    """Hash of the code without comments, docstrings and layout."""
    digest = hashlib.sha256()
    for module in modules:
        path = PACKAGE / module
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            tree = ast.parse(file.read_text(encoding="utf-8"))
            for node in ast.walk(tree):
                if (
                    isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
                    and ast.get_docstring(node) is not None
                ):
                    node.body = node.body[1:]
            digest.update(repr(canonical(tree)).encode())
    return digest.hexdigest()[:16]


def current():
    return {name: [c.version, source_hash(c.modules)] for name, c in COMPONENTS.items()}


def test_changed_code_has_a_decided_version(request):
    now = current()
    if request.config.getoption("--record-versions"):
        HASHES.write_text(json.dumps(now, indent=1) + "\n")
    recorded = json.loads(HASHES.read_text())
    changed = sorted(name for name in now if recorded.get(name) != now[name]) + sorted(set(recorded) - set(now))
    assert not changed, (
        f"code of {', '.join(changed)} changed. If it can change a number, raise the version in "
        "scripts/ssltransfer/versions.py; then record the decision with: "
        "uv run pytest tests/test_architecture.py --record-versions"
    )


@pytest.mark.parametrize("name", sorted(set(COMPONENTS) - {"checkpoints"}))  # converts only
def test_a_component_names_the_networks_and_the_engine_it_computes_with(name):
    files = [PACKAGE / module for module in COMPONENTS[name].modules]
    files = [file for path in files for file in (path.rglob("*.py") if path.is_dir() else [path])]
    used = {module for file in files for module in imports(file)}
    shared = {f"{module}.py" for module in ("backbones", "fused", "training") if f"ssltransfer.{module}" in used}
    assert shared <= set(COMPONENTS[name].modules)


def test_unfinished_work_is_continued_by_the_same_code_only():
    scripts = [path.read_text() for path in (REPOSITORY / "scripts").glob("*.py")]
    keeping = [text for text in scripts if '.part"' in text]
    assert len(keeping) == 5
    for text in keeping:
        assert re.search(r"    key = json\.dumps\(\s*\[params\.arch, params\.norm, params\.version\b", text)


def test_another_way_to_draw_or_to_measure_trains_nothing_again():
    for training, evaluation in (("normals-network", "normals"), ("detector", "detection"), ("inversion", "likeness")):
        alone = set(COMPONENTS[evaluation].modules) - set(COMPONENTS[training].modules)
        assert any("evaluation" in module or "likeness" in module for module in alone)
        assert not any("pictures" in module for module in COMPONENTS[training].modules)


def test_the_paper_is_gone_through_with_names_that_exist():
    text = (REPOSITORY / "docs/protocols.md").read_text().partition("## Inputs")[0]
    rows = [line.split("|") for line in text.splitlines() if line.startswith("|")][2:]
    assert len(rows) == 18
    rules = "".join(path.read_text() for path in (REPOSITORY / "workflow/rules").glob("*.smk"))
    blocks = [yaml.safe_load((REPOSITORY / f"config/paper-{v}.yaml").read_text())["protocols"] for v in ("v1", "v2")]
    for row in rows:
        for name in re.findall(r"\w+_\w+", row[4]):
            assert f"rule {name}:" in rules
        for name in re.findall(r"`(.+?)`", row[5]):
            assert (PACKAGE / name).exists()
        for name in re.findall(r"`(.+?)`", row[6]):
            assert any(name in block for block in blocks), name
        for name in re.findall(r"`(test_.+?)`", row[8]):
            assert (REPOSITORY / "tests" / name).exists()


def test_the_graphs_are_drawn_from_the_code():
    page = runpy.run_path(str(REPOSITORY / "docs/draw_structure.py"))["page"]()
    assert (REPOSITORY / "docs/structure.md").read_text() == page, "run: python docs/draw_structure.py"

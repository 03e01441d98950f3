"""Promises about the code itself: data flows one way, and nobody changes a number without deciding so."""

import ast
import hashlib
import json
import re
import runpy
from functools import cache
from graphlib import TopologicalSorter

import pytest
from source_imports import LIBRARY, SCRIPTS, imports, library_files, reached

from ssltransfer.versions import COMPONENTS
from workflow import REPOSITORY

HASHES = REPOSITORY / "tests" / "source_hashes.json"

# Packages and modules may import from their own floor and the floors below it (before it in this list).
FLOORS = (
    {"errors", "files", "hub", "interrupts", "versions", "array_backend", "gpu_slots"},
    {
        "jobs",
        "download",
        "hub_download",
        "row_file",
        "part_folder",
        "precision",
        "safe_pickle",
        "settings",
        "json_schema",
    }
    | {"training", "training_batches", "training_state", "torch_reader"},
    {"datasets", "device", "models", "results"},
    {"config", "checkpoints", "pretraining", "analysis"},
    {"protocols", "report", "targets"},
    {"commands", "evaluation"},
)
FLOOR = {package: number for number, packages in enumerate(FLOORS) for package in packages}
MODULES = sorted(LIBRARY.rglob("*.py"))


def package(path):
    return path.relative_to(LIBRARY).with_suffix("").parts[0]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(LIBRARY)))
def test_library_knows_no_snakemake_and_imports_only_from_its_floor_and_below(path):
    names = imports(path)
    assert not any(re.match(r"snakemake\b", name) for name in names)
    if package(path) == "__init__":
        return
    for name in names:
        if name.startswith("ssltransfer."):
            other = name.split(".")[1]
            assert FLOOR[other] <= FLOOR[package(path)], f"{package(path)} must not import {other}"


def test_packages_do_not_import_in_a_circle():
    arrows = {}
    for path in MODULES:
        others = {name.split(".")[1] for name in imports(path) if name.startswith("ssltransfer.")}
        arrows.setdefault(package(path), set()).update(others - {package(path)})
    assert list(TopologicalSorter(arrows).static_order())


def test_every_rule_has_its_script_and_every_script_its_rule():
    rules = "".join(path.read_text() for path in (REPOSITORY / "workflow/rules").glob("*.smk"))
    used = set(re.findall(r'"\.\./\.\./scripts/(\w+\.py)"', rules))
    assert used == {path.name for path in SCRIPTS.glob("*.py")}
    for name in used:
        assert f"rule {name.removesuffix('.py')}:" in rules


DATA = {"summary": "resources/published/*.csv", "report": "workflow/report/*.j*"}
"""Component -> files beside the code that its results depend on."""


def canonical(node):
    """A syntax tree as tuples, equal under every Python; what `ast.unparse` and `ast.dump` give differs."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return ("imports", *sorted(imported(node)))
    if isinstance(node, ast.AST):
        fields = ((name, value) for name, value in ast.iter_fields(node) if value not in (None, []))
        return (type(node).__name__, *((name, canonical(value)) for name, value in fields))
    return [canonical(item) for item in node] if isinstance(node, list) else repr(node)


@cache
def code_of(entry):
    """All files that a component consists of: its entry and what that imports, directly or not."""
    return reached([SCRIPTS / entry])


def imported(node):
    """What an import takes, and from where: of a module of the library the name alone, so that it can be moved."""
    for alias in node.names:
        if isinstance(node, ast.Import):
            yield f"{alias.name} as {alias.asname}"
        elif any(library_files(node.module)):
            is_module = (SCRIPTS / node.module.replace(".", "/") / f"{alias.name}.py").is_file()
            yield f"{'' if is_module else node.module.split('.')[-1]}.{alias.name} as {alias.asname}"
        else:
            yield f"{node.module}.{alias.name} as {alias.asname}"


@cache
def source_hash(path):
    """Hash of a file's code: neither comments, docstrings and layout nor the order of definitions count.

    A module can be moved, and what it imports can move to other packages, without a new hash; a function of the same
    name from another module is another function.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    parts = [name for node in imports for name in imported(node)]
    parts += [repr(canonical(node)) for node in tree.body if node not in imports]
    return hashlib.sha256("".join(sorted(parts)).encode()).hexdigest()[:16]


def data_files():
    """Data files of components -> the component."""
    return {path: name for name, pattern in DATA.items() for path in sorted(REPOSITORY.glob(pattern))}


@cache
def current():
    files = sorted({path for c in COMPONENTS.values() for path in code_of(c.entry)} - {LIBRARY / "versions.py"})
    return {
        "versions": {name: c.version for name, c in COMPONENTS.items()},
        "code": {str(path.relative_to(SCRIPTS)): source_hash(path) for path in files},
        "data": {
            str(path.relative_to(REPOSITORY)): hashlib.sha256(path.read_bytes()).hexdigest()[:16]
            for path in data_files()
        },
    }


def undecided(now, recorded):
    """Lines that name changed code, and the components with an unchanged version that use it."""
    known = set(recorded["code"].values())
    lines = []
    for file, digest in now["code"].items():
        if digest not in known:  # a file that was only moved has a known one
            users = [n for n, c in COMPONENTS.items() if SCRIPTS / file in code_of(c.entry)]
            lines.append(f"{file}: used by {', '.join(users)}")
    for path, component in data_files().items():
        file = str(path.relative_to(REPOSITORY))
        if now["data"][file] != recorded["data"].get(file):
            lines.append(f"{file}: used by {component}")
    return lines


def test_changed_code_has_a_decided_version(request):
    now = current()
    if request.config.getoption("--record-versions"):
        HASHES.write_text(json.dumps(now, indent=1) + "\n")
    recorded = json.loads(HASHES.read_text())
    changed = undecided(now, recorded)
    assert not changed and now["versions"] == recorded["versions"], (
        f"changed code: {'; '.join(changed) or 'none'}. Raise the version of each component whose numbers it can "
        "change in scripts/ssltransfer/versions.py; then record the decision with: "
        "uv run pytest tests/test_architecture.py --record-versions"
    )


def test_the_code_of_a_component_is_found_by_its_imports():
    linear = {str(path.relative_to(SCRIPTS)) for path in code_of(COMPONENTS["linear"].entry)}
    assert {
        "evaluate_linear.py",
        "ssltransfer/device.py",
        "ssltransfer/results/score_file.py",
        "ssltransfer/protocols/linear/logistic.py",
    } <= linear
    assert not any("detection" in name for name in linear)


def test_a_moved_module_needs_no_new_record_but_a_changed_one_does():
    now = current()
    moved = now | {"code": {f"elsewhere/{name}": digest for name, digest in now["code"].items()}}
    assert not undecided(now, moved)
    name = "ssltransfer/protocols/linear/logistic.py"
    (line,) = undecided(now, now | {"code": {k: v for k, v in now["code"].items() if k != name}})
    assert line.startswith(f"{name}: used by") and "linear" in line


def test_a_function_of_the_same_name_from_another_module_is_other_code(tmp_path):
    def digest(text):
        source_hash.cache_clear()
        (tmp_path / "a.py").write_text(text)
        return source_hash(tmp_path / "a.py")

    call = "\n\nprint(check)\n"
    first = digest(f"from ssltransfer.pretraining.recipe import check{call}")
    assert first != digest(f"from ssltransfer.models.resnet import check{call}")
    assert first != digest(f"from ssltransfer.pretraining.recipe import fingerprint as check{call}")
    assert digest("from numpy import linalg") != digest("from scipy import linalg")
    inside = "def f():\n    from ssltransfer.{} import check\n"
    assert digest(inside.format("pretraining.recipe")) != digest(inside.format("models.resnet"))


def test_changed_tables_and_templates_need_a_decision():
    now = current()
    for file, component in (
        ("resources/published/normals.csv", "summary"),
        ("workflow/report/report.html.jinja", "report"),
    ):
        changed = now | {"data": now["data"] | {file: "other"}}
        assert undecided(changed, now) == [f"{file}: used by {component}"]


def test_another_way_to_draw_or_to_measure_trains_nothing_again():
    for training, evaluation in (
        ("normals-network", "normals"),
        ("detection-network", "detection"),
        ("inverted-images", "inversion"),
    ):
        alone = {path.stem for path in code_of(COMPONENTS[evaluation].entry) - code_of(COMPONENTS[training].entry)}
        assert alone & {"evaluation", "image_similarity"}
        assert not any("picture" in path.stem for path in code_of(COMPONENTS[training].entry))


@pytest.mark.slow
def test_the_graphs_are_drawn_from_the_code():
    page = runpy.run_path(str(REPOSITORY / "docs/draw_structure.py"))["page"]()
    assert (REPOSITORY / "docs/structure.md").read_text() == page, "run: python docs/draw_structure.py"

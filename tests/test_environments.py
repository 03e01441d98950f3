"""The conda environments carry the versions of uv.lock and everything that their rules' scripts import."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from source_imports import SCRIPTS, imports, reached
from test_profiles import RULES

from ssltransfer.datasets import GENERATED, ORIGINAL
from workflow import REPOSITORY

ENVIRONMENTS = sorted((REPOSITORY / "envs").glob("*.yaml"))
#: Scripts that load the module of one dataset by its name, and so may load any.
ANY_DATASET = {"generate_dataset.py", "index_dataset.py"}
DATASETS = [*ORIGINAL, *GENERATED, "folder", "table"]


def dependencies(path):
    """The versions of Python and of the packages that an environment pins."""
    entries = yaml.safe_load(path.read_text())["dependencies"]
    pins = next(entry["pip"] for entry in entries if isinstance(entry, dict))
    python = next(entry.partition("=")[2] for entry in entries if str(entry).startswith("python="))
    return python, dict(pin.split("==") for pin in pins)


def from_conda(path):
    """Packages, by their names on the index, that an environment takes from conda beside Python and pip."""
    entries = [
        re.split("[=>]", entry)[0] for entry in yaml.safe_load(path.read_text())["dependencies"] if str(entry) == entry
    ]
    return {"torch" if name == "pytorch" else name for name in entries} - {"python", "pip"}


def scripts_of(path):
    """Scripts of the rules that name an environment."""
    uses = [body for body in RULES.values() if f"envs/{path.name}" in body]
    return sorted({name for body in uses for name in re.findall(r'scripts/(\w+\.py)"', body)})


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda path: path.stem)
def test_pins_are_those_of_the_lock_file(path):
    lock = tomllib.loads((REPOSITORY / "uv.lock").read_text())
    locked = {(package["name"], package.get("version")) for package in lock["package"]}
    python, pins = dependencies(path)
    assert re.fullmatch(r"3\.\d+", python) and pins
    assert set(pins.items()) <= locked


def test_torch_of_conda_is_as_recent_as_that_of_the_package():
    needed = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["dependencies"]
    bound = next(entry.removeprefix("torch") for entry in needed if entry.startswith("torch>"))
    assert f"pytorch{bound}" in yaml.safe_load((REPOSITORY / "envs/detectron2.yaml").read_text())["dependencies"]


def test_every_rule_names_an_environment_that_exists():
    named = {name: re.findall(r"envs/(\w+\.yaml)", body)[:1] for name, body in RULES.items()}
    assert all(named.values()), [name for name, found in named.items() if not found]
    assert {found for (found,) in named.values()} == {path.name for path in ENVIRONMENTS}


def foreign(script):
    """Top-level names of everything outside Python and the library that a script imports, the library's imports too."""
    entries = [SCRIPTS / script]
    if script in ANY_DATASET:
        entries += [SCRIPTS / "ssltransfer" / "datasets" / f"{name}.py" for name in DATASETS]
    names = {name.split(".")[0]: path.relative_to(SCRIPTS) for path in reached(entries) for name in imports(path)}
    return {name: path for name, path in names.items() if name not in {"ssltransfer", *sys.stdlib_module_names}}


WITHOUT = {
    ("timm", "detectron2"),  # detectron2 builds residual networks only
    ("timm", "analysis"),  # imported in jobs of timm networks only
    ("detectron2", "torch"),  # a backend with an environment of its own, imported there only
    ("torchvision", "analysis"),  # knows addresses of weights; the check of scores does without (report/score_check.py)
}
"""Packages that scripts of an environment import where they are, and do without where they are not."""


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda path: path.stem)
def test_environments_list_what_their_scripts_import(path):
    _, pins = dependencies(path)
    listed = set(pins) | from_conda(path)
    distributions = packages_distributions()
    missing = [
        f"{script}: {name} (imported by {where})"
        for script in scripts_of(path)
        for name, where in foreign(script).items()
        if not {re.sub(r"[-_.]+", "-", d).lower() for d in distributions.get(name, [name])} & listed
        and (name, path.stem) not in WITHOUT
    ]
    assert not missing, f"{path.name} lacks what these scripts import: {'; '.join(missing)}"


PROBE = """
import ast, importlib, json, sys
from pathlib import Path
scripts, modules, names = Path(sys.argv[1]), sys.argv[2].split(), sys.argv[3:]
sys.path.append(str(scripts))
for name in names:
    for node in ast.walk(ast.parse((scripts / name).read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            exec(compile(ast.Module([node], []), name, "exec"), {})
for module in modules:
    importlib.import_module(f"ssltransfer.datasets.{module}")
files = [Path(getattr(module, "__file__", None) or "-") for module in list(sys.modules.values())]
files = [file.resolve() for file in files if file.is_file()]
allowed = [Path(p).resolve() for p in (sys.prefix, sys.base_prefix, scripts)]
print(json.dumps([str(f) for f in files if not any(f.is_relative_to(a) for a in allowed)]))
"""


def interpreter(version):
    """A Python of this version, or None: uv's, or one that pyenv keeps."""
    find = ["uv", "python", "find", "--no-python-downloads", version]
    done = subprocess.run(find, capture_output=True, text=True, check=False)
    kept = sorted(Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob(f"versions/{version}.*/bin/python"))
    return done.stdout.strip() if done.returncode == 0 else next(map(str, kept), None)


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda path: path.stem)
@pytest.mark.slow
def test_scripts_import_in_their_environment(path, request, tmp_path):
    if not request.config.getoption("--environments") or not shutil.which("uv"):
        pytest.skip("needs uv and the option --environments, which installs every environment anew")
    if conda := from_conda(path):
        pytest.skip(f"{', '.join(sorted(conda))}: from conda alone")
    version, pins = dependencies(path)
    if (python := interpreter(version)) is None:
        pytest.skip(f"no Python {version} on this machine")
    new = tmp_path / "environment"
    subprocess.run(["uv", "venv", "--quiet", "--python", python, str(new)], check=True)
    install = ["uv", "pip", "install", "--quiet", "--python", str(new / "bin" / "python")]
    try:
        subprocess.run([*install, *(f"{name}=={pin}" for name, pin in pins.items())], check=True)
        scripts = scripts_of(path)
        modules = " ".join(DATASETS) if ANY_DATASET & set(scripts) else ""
        probe = [str(new / "bin" / "python"), "-s", "-c", PROBE, str(SCRIPTS), modules, *scripts]
        done = subprocess.run(probe, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        assert json.loads(done.stdout.splitlines()[-1]) == [], "imported from outside the environment"
    finally:
        shutil.rmtree(new)  # gigabytes

"""The workflow where it is not at home: from other folders, as a remote module, as a package, with Snakemake alone."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from test_newcomer import blocks, clone

from workflow import REPOSITORY, environment, workspace

SNAKEFILES = ("Snakefile", "workflow/Snakefile")


def run(*words, folder, **variables):
    """Run a command and require success; returns all it prints."""
    done = subprocess.run(
        list(map(str, words)), cwd=folder, env=environment() | variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout + done.stderr


def snakemake(*words, folder, **variables):
    return run(sys.executable, "-m", "snakemake", *words, folder=folder, **variables)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The library, built and installed in a folder of its own."""
    if not shutil.which("uv"):
        pytest.skip("needs uv, which builds the package")
    folder = tmp_path_factory.mktemp("wheel")
    build = ["uv", "build", "--wheel", "--quiet", "--out-dir", folder, clone(folder / "clone")]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    if done.returncode and "fetch" in done.stderr:
        pytest.skip("hatchling cannot be had: no package index")
    assert done.returncode == 0, done.stderr
    target = folder / "installed"
    run("uv", "pip", "install", "--quiet", "--no-deps", "--target", target, *folder.glob("*.whl"), folder=folder)
    return target


@pytest.mark.slow
@pytest.mark.parametrize("snakefile", SNAKEFILES)
def test_edited_scripts_plan_nothing_from_any_folder(finished, tmp_path, snakefile):
    home, folder = clone(tmp_path / "clone"), tmp_path / "elsewhere"
    shutil.copytree(finished, folder, copy_function=shutil.copy2)
    for script in (home / "scripts").glob("*.py"):
        script.write_text(script.read_text() + "\n# edited\n")
        os.utime(script)
    assert "Nothing to be done" in snakemake("--dry-run", "--snakefile", home / snakefile, folder=folder)


@pytest.mark.slow
@pytest.mark.parametrize("snakefile", SNAKEFILES)
def test_the_demo_is_planned_in_an_empty_folder(tmp_path, snakefile):
    plan = snakemake("--dry-run", "--snakefile", REPOSITORY / snakefile, folder=tmp_path)
    assert "results/demo/report.html" in plan and "write_report" in plan


@pytest.mark.slow
def test_the_library_beside_the_workflow_is_used(tmp_path):
    folder = clone(tmp_path / "clone")
    jobs = folder / "scripts/ssltransfer/datasets/digits.py"
    jobs.write_text(f"{jobs.read_text()}\n\nraise RuntimeError('the copy')\n")
    command = [sys.executable, "-m", "snakemake", "results/datasets/digits/index.parquet", "--cores", "1"]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "the copy" in done.stdout + done.stderr


@pytest.mark.slow
def test_local_jobs_are_limited_by_cores_and_not_by_memory(tmp_path):
    folder = workspace(tmp_path / "toy")
    options = ("--cores", "2", "--snakefile", REPOSITORY / "Snakefile")
    output = snakemake(
        *(f"results/datasets/{d}/index.parquet" for d in ("digits", "textures")), *options, folder=folder
    )
    assert "Execute 2 jobs" in output


@pytest.mark.slow
def test_snakemakes_own_report_is_made(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "copy", copy_function=shutil.copy2)
    snakemake("--report", "report.zip", "--snakefile", REPOSITORY / "Snakefile", folder=folder)
    shutil.unpack_archive(folder / "report.zip", folder)
    (page,) = folder.glob("report/report.html")
    assert "Transfer of pretrained visual representations" in page.read_text()


@pytest.mark.slow
def test_snakemake_alone_is_enough_to_plan_and_to_lint(tmp_path):
    if not shutil.which("uv"):
        pytest.skip("needs uv, which makes the environment")
    new = tmp_path / "environment"
    run("uv", "venv", "--quiet", "--python", sys.executable, new, folder=tmp_path)
    install = ["uv", "pip", "install", "--quiet", "--python", str(new / "bin/python"), "snakemake>=9.27,<10"]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"Snakemake cannot be installed: {' '.join(done.stderr.split())[-200:]}")
    for words in (["--lint"], ["--dry-run"]):
        run(new / "bin/snakemake", *words, "--snakefile", REPOSITORY / "Snakefile", folder=tmp_path)


@pytest.mark.slow
def test_the_package_carries_its_data(wheel, tmp_path):
    program = (
        "from ssltransfer.files import package_data\n"
        "from ssltransfer.analysis import published\n"
        "from ssltransfer.report import html\n"
        "from ssltransfer.results import score_schema\n"
        "print(score_schema.SCHEMA, html.TEMPLATES / 'figure.rst', published.FOLDER / 'models.csv', "
        "package_data('config/heads.tsv'), sep='\\n')"
    )
    paths = run(sys.executable, "-c", program, folder=tmp_path, PYTHONPATH=str(wheel)).splitlines()
    assert len(paths) == 4
    assert all(Path(path).is_file() and Path(path).is_relative_to(wheel) for path in paths), paths


@pytest.fixture
def project(finished, tmp_path):
    """Another workflow that uses this one from a git repository, as docs/use-as-a-module.md prints it."""
    origin = clone(tmp_path / "origin")
    git = ("git", "-C", origin, "-c", "user.name=test", "-c", "user.email=test@localhost")
    for words in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "all"], ["tag", "v1"]):
        run(*git, *words, folder=tmp_path)
    folder = shutil.copytree(finished, tmp_path / "project", copy_function=shutil.copy2)
    text = next(text for kind, text in blocks("use-as-a-module", tmp_path) if kind == "python" and "git+file" in text)
    assert text.count("/path/to/ssltransfer/") == 1
    (folder / "Snakefile").write_text(text.replace("/path/to/ssltransfer/", f"{origin}/"))
    shutil.copytree(REPOSITORY / "profiles", folder / "profiles")
    return folder


@pytest.mark.slow
def test_another_workflow_uses_this_one_from_a_repository(project, wheel):
    score = project / "results/scores/toy-fewshot/toy-random/digits.json"
    before = score.read_text()
    score.unlink()
    shutil.rmtree(project / "results/toy")
    output = snakemake("--cores", "2", folder=project, PYTHONPATH=str(wheel))
    assert "rule transfer_evaluate_fewshot" in output and "rule transfer_extract_features" not in output
    assert yaml.safe_load(score.read_text())["values"] == yaml.safe_load(before)["values"]
    assert (project / "best-model.txt").read_text().startswith("model,protocol,kind\ntoy-")


@pytest.mark.slow
def test_conda_is_refused_there_in_one_line(project, wheel):
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--sdm", "conda"]
    variables = environment() | {"PYTHONPATH": str(wheel)}
    done = subprocess.run(command, cwd=project, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    output = done.stdout + done.stderr
    assert any(line.startswith("--sdm conda needs a clone") for line in output.splitlines()), output


@pytest.mark.slow
def test_the_catalog_finds_a_standard_workflow(tmp_path):
    """What the catalog of Snakemake workflows asks for: places, usage, format, no lints, and a graph of the rules."""
    for name in ("README.md", "LICENSE", "workflow/Snakefile", "workflow/rules", "config/config.yaml"):
        assert (REPOSITORY / name).exists()
    assert (REPOSITORY / "config/README.md").read_text().strip()
    usage = yaml.safe_load((REPOSITORY / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert {"mandatory-flags", "software-stack-deployment", "report"} <= set(usage)
    assert usage["software-stack-deployment"]["conda"] is True
    snakefile = ("--snakefile", REPOSITORY / "workflow/Snakefile")
    assert "good condition" in snakemake("--lint", *snakefile, folder=tmp_path)
    assert "digraph" in snakemake("--rulegraph", "--forceall", *snakefile, folder=tmp_path)
    check = ("snakefmt", "--check", REPOSITORY / "Snakefile", REPOSITORY / "workflow")
    run(sys.executable, "-m", *check, folder=REPOSITORY)

"""Running the real workflow from tests: a working directory with its own config, and what a dry run plans."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]


def command(
    *arguments: str, suite: str = "config.yaml", profile: str = "default", repository: Path = REPOSITORY
) -> list[str]:
    """Return the command that runs a repository's workflow on config/`suite`; `arguments` may give --cores, --jobs."""
    given = {"--cores", "--jobs"} & set(arguments)
    return [
        # The arguments first: a target that follows --configfile would be taken for another file.
        *(sys.executable, "-m", "snakemake", *arguments, "--snakefile", str(repository / "Snakefile")),
        *([] if given else ["--cores", "2"]),
        *("--workflow-profile", str(repository / "profiles" / profile), "--configfile", f"config/{suite}"),
    ]


def environment() -> dict[str, str]:
    """Return the variables that a run gets; compiled modules are kept, or every job would take twice as long."""
    return {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


def snakemake(folder: Path, *arguments: str, **options) -> subprocess.CompletedProcess:
    """Run Snakemake in `folder`; output is captured. `options` are those of `command`."""
    words = command(*arguments, **options)
    out = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.run(words, cwd=folder, env=environment(), text=True, check=False, **out)


def succeed(folder: Path, *arguments: str, **options) -> str:
    """Run Snakemake and require success; returns its output."""
    done = snakemake(folder, *arguments, **options)
    assert done.returncode == 0, done.stdout[-5000:]
    return done.stdout


def planned(folder: Path, *arguments: str, **options) -> Counter:
    """Jobs that a dry run plans, as a counter of (rule, model or '')."""
    output = succeed(folder, "--dry-run", *arguments, **options)
    jobs = Counter()
    for block in re.split(r"\n(?=\[)", output):
        if rule := re.search(r"^(?:local)?rule (\w+):", block, re.MULTILINE):
            model = re.search(r"wildcards: .*?\bmodel=([\w-]+)", block)
            jobs[rule.group(1), model.group(1) if model else ""] += 1
    return jobs


def put_driver(folder: Path, gpus: int) -> Path:
    """Write a stand-in for nvidia-smi that lists GPUs (GPU-a, GPU-b, ...) and return the folder it is in."""
    folder.mkdir(exist_ok=True)
    lines = [f"GPU {number}: stand-in (UUID: GPU-{chr(ord('a') + number)})" for number in range(gpus)]
    program = folder / "nvidia-smi"
    program.write_text("\n".join(["#!/bin/sh", *(f"echo '{line}'" for line in lines), ""]))
    program.chmod(0o755)
    return folder


def workspace(folder: Path) -> Path:
    """Make `folder` a working directory with a copy of the toy configuration."""
    shutil.copytree(REPOSITORY / "tests" / "config", folder / "config")
    return folder


def numbers(folder: Path, suite: str = "toy") -> dict[str, object]:
    """Return all that two runs must have in common: the suite's tables as text, and the values of every score."""
    tables = {path.name: path.read_text() for path in (folder / "results" / suite / "tables").glob("*.csv")}
    scores = sorted((folder / "results" / "scores").rglob("*.json"))
    assert scores
    return tables | {str(path.relative_to(folder)): json.loads(path.read_text())["values"] for path in scores}

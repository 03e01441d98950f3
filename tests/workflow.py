"""Running the real workflow from tests: a working directory with its own config, and what a dry run plans."""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]


def snakemake(folder: Path, *arguments: str, suite: str = "config.yaml") -> subprocess.CompletedProcess:
    """Run Snakemake in `folder` on its config/`suite`; output is captured. `arguments` may give --cores."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    # The arguments first: a target that follows --configfile would be taken for another file.
    command = [
        *(
            sys.executable,
            "-m",
            "snakemake",
            *arguments,
            "--snakefile",
            str(REPOSITORY / "Snakefile"),
            *([] if "--cores" in arguments else ["--cores", "2"]),
        ),
        *("--workflow-profile", str(REPOSITORY / "profiles" / "default"), "--configfile", f"config/{suite}"),
    ]
    return subprocess.run(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )


def succeed(folder: Path, *arguments: str, suite: str = "config.yaml") -> str:
    """Run Snakemake and require success; returns its output."""
    done = snakemake(folder, *arguments, suite=suite)
    assert done.returncode == 0, done.stdout[-5000:]
    return done.stdout


def planned(folder: Path, suite: str = "config.yaml") -> Counter:
    """Jobs that a dry run plans, as a counter of (rule, model or '')."""
    output = succeed(folder, "--dry-run", suite=suite)
    jobs = Counter()
    for block in re.split(r"\n(?=\[)", output):
        if rule := re.search(r"^(?:local)?rule (\w+):", block, re.MULTILINE):
            model = re.search(r"wildcards: .*?\bmodel=([\w-]+)", block)
            jobs[rule.group(1), model.group(1) if model else ""] += 1
    return jobs


def workspace(folder: Path) -> Path:
    """Make `folder` a working directory with a copy of the toy configuration."""
    shutil.copytree(REPOSITORY / "tests" / "config", folder / "config")
    return folder

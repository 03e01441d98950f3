"""Seconds of a dry run, before anything ran and after everything did: `uv run python benchmarks/dag.py`.

The paper's suites as they are, and larger ones with its cells in their proportions. After everything did: all
outputs are there, as empty files, and so are the records that a real run leaves (Snakemake's `--touch` writes them).
"""

import csv
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import yaml

REPOSITORY = Path(__file__).parents[1]
SUITES = ("paper-v1", "paper-v2")
SIZES = [(50, 40), (100, 40)]
REPEATS = 2
# Snakemake rests a tenth of a second at each output that it touches.
QUICK_TOUCH = (
    "-c",
    "import snakemake.cli, snakemake.executors.touch as t; t.Executor.SLEEPING_TIME = 0; snakemake.cli.main()",
)


class Seconds(NamedTuple):
    """Of the clock, and of processor time, which other work on the machine does not lengthen as much."""

    wall: float
    processor: float


def processor_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def snakemake(
    folder: Path, suite: Path, *arguments: str, program: tuple[str, ...] = ("-m", "snakemake")
) -> tuple[str, Seconds]:
    """Run Snakemake in `folder`; return what it printed and what it took."""
    command = [sys.executable, *program, *arguments, "--snakefile", str(REPOSITORY / "Snakefile")]
    command += [
        "--cores",
        "1000" if "--touch" in arguments else "2",
        "--workflow-profile",
        str(REPOSITORY / "profiles/default"),
    ]
    start, used = time.perf_counter(), processor_seconds()
    done = subprocess.run(
        [*command, "--configfile", str(suite)], cwd=folder, text=True, stdout=-1, stderr=-2, check=False
    )
    if done.returncode:
        sys.exit(done.stdout[-3000:])
    return done.stdout, Seconds(time.perf_counter() - start, processor_seconds() - used)


def write_suite(folder: Path, models: int, tasks: int) -> None:
    """Write a suite with settings blocks of paper-v2 for this many models and tasks, and as many calibrations."""
    linear, few = ([f"set-{kind}{i}" for i in range(tasks // 2)] for kind in ("linear", "fewshot"))
    names = {"linear": linear, "fewshot": few, "calibration": linear}
    suite = {"suite": "large", "tasks": names, "models": "models.tsv", "datasets": "datasets.tsv"}
    (folder / "large.yaml").write_text(yaml.safe_dump(suite, sort_keys=False))
    for table, ids, changes in (
        ("models", [f"model-{i}" for i in range(models)], {"suites": "large", "source": "https://example.org/net.pth"}),
        ("datasets", linear + few, {"metric": "top1", "test": "100"}),
    ):
        with (REPOSITORY / "config" / f"{table}.tsv").open() as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        pattern = next(row for row in rows if row.get("dataset") == "dtd" or row.get("model") == "swav")
        with (folder / f"{table}.tsv").open("w") as file:
            writer = csv.DictWriter(file, list(pattern), delimiter="\t")
            writer.writeheader()
            for name in ids:
                source = {} if table == "models" else {"source": f"folder:{name}"}
                writer.writerow(pattern | changes | source | {table.removesuffix("s"): name})


def finish(folder: Path, suite: Path) -> None:
    """Make every output, empty, and let Snakemake record it as made."""
    plan, _ = snakemake(folder, suite, "--dry-run")
    for outputs in re.findall(r"^    output: (.*)$", plan, re.MULTILINE):
        for output in outputs.split(", "):
            path = folder / output
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch() if path.suffix else path.mkdir(exist_ok=True)
    options = ("--touch", "--forceall", "--quiet", "all", "--scheduler", "greedy")
    snakemake(folder, suite, *options, program=QUICK_TOUCH)


def measure(folder: Path, suite: Path) -> tuple[int, Seconds, Seconds]:
    """Return the number of jobs and the smallest times of both dry runs."""
    empty = [snakemake(folder, suite, "--dry-run", "--quiet", "rules") for _ in range(REPEATS)]
    jobs = int(re.search(r"^total\s+(\d+)", empty[0][0], re.MULTILINE)[1]) - 1  # without the target itself
    finish(folder, suite)
    finished = [snakemake(folder, suite, "--dry-run") for _ in range(REPEATS)]
    assert all("Nothing to be done" in text for text, _ in finished)
    return jobs, *(Seconds(*map(min, zip(*(took for _, took in runs), strict=True))) for runs in (empty, finished))


def main() -> None:
    """Print the table."""
    print("| suite | jobs | nothing there, s (processor) | everything there, s (processor) |")
    print("| --- | --- | --- | --- |")
    for case in (*SUITES, *SIZES):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            if isinstance(case, str):
                title, suite = f"{case}, 14 models", REPOSITORY / "config" / f"{case}.yaml"
            else:
                title, suite = f"{case[0]} models, {case[1]} tasks, {case[1] // 2} calibrations", Path("large.yaml")
                write_suite(folder, *case)
            jobs, *both = measure(folder, suite)
        times = " | ".join(f"{took.wall:.1f} ({took.processor:.1f})" for took in both)
        print(f"| {title} | {jobs:,} | {times} |", flush=True)


if __name__ == "__main__":
    main()

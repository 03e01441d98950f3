"""Kill a run with all its jobs again and again, and compare what it makes at last with a run that nobody touched.

`uv run python benchmarks/faults.py` does so with the demo suite; `--folder tests/config` with the toy suite,
`--models tiny-random,tiny-simclr` with some of the models. `--single` compares with a run on one core, too.
"""

import argparse
import csv
import shutil
import sys
import tempfile
import time
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).parents[1]
sys.path.append(str(REPOSITORY / "tests"))

from interruptions import interrupt  # noqa: E402

from workflow import command, numbers, succeed  # noqa: E402


def workspace(folder: Path, source: Path, models: list[str]) -> Path:
    """Make a working directory with the configuration in `source`, for these models (all, if none are named)."""
    shutil.copytree(source, folder / "config")
    if models:
        path = folder / "config/config.yaml"
        suite = yaml.safe_load(path.read_text())
        chosen = {name: [m for m in of if m in models] for name, of in suite.get("models_of", {}).items()}
        path.write_text(yaml.safe_dump(suite | ({"models_of": chosen} if chosen else {}), sort_keys=False))
        table = folder / "config/models.tsv"
        rows = list(csv.reader(table.read_text().splitlines(), delimiter="\t"))
        kept = [rows[0], *(row for row in rows[1:] if row[0] in models)]
        table.write_text("".join("\t".join(row) + "\n" for row in kept))
    return folder


def compare(expected: dict, found: dict) -> str:
    """Say that two runs have the same numbers; end the benchmark if they do not."""
    different = sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
    if different:
        sys.exit(f"These differ: {', '.join(different)}")
    return "identical tables and scores"


def main() -> None:
    """Print a row for each kill, and whether the numbers are the same."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, default=REPOSITORY / "config")
    parser.add_argument("--models", default="")
    parser.add_argument("--single", action="store_true")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    models = [model for model in given.models.split(",") if model]
    suite = yaml.safe_load((given.folder / "config.yaml").read_text())["suite"]
    with tempfile.TemporaryDirectory() as name:
        untouched = workspace(Path(name) / "untouched", given.folder, models)
        began = time.monotonic()
        succeed(untouched)
        seconds = time.monotonic() - began
        expected = numbers(untouched, suite)
        print(f"Not interrupted: {seconds:.0f} s. {len(expected)} tables and scores.\n")
        if given.single:
            folder = workspace(Path(name) / "one core", given.folder, models)
            succeed(folder, "--cores", "1")
            print(f"On one core: {compare(expected, numbers(folder, suite))}.\n", flush=True)
        print("| kill | seconds after a start | jobs that ran | results there, all of them whole |")
        print("| --- | --- | --- | --- |")
        count = turn = 0
        while count < given.kills:
            turn += 1
            folder = workspace(Path(name) / f"killed-{turn}", given.folder, models)
            left = given.kills - count
            for kill in interrupt(command(), folder, left, 2 * seconds / left, given.seed + turn):
                count += 1
                ran = ", ".join(kill.rules) or "none: planning, or between two jobs"
                print(f"| {count} | {kill.seconds:.1f} | {ran} | {kill.files} |", flush=True)
            print(f"| | completed: {compare(expected, numbers(folder, suite))} | | |")


if __name__ == "__main__":
    main()

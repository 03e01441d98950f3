"""Runs that are killed at random moments and started again; used by test_faults.py and benchmarks/faults.py."""

import json
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
from safetensors import safe_open

from workflow import environment


class Kill(NamedTuple):
    """What a killed run left.

    Attributes
    ----------
    seconds : float
        Since the run was started.
    rules : list of str
        Rules of the jobs that were running.
    files : int
        Results that were there under their own names; each was opened and whole.
    """

    seconds: float
    rules: list[str]
    files: int


def start(command: list[str], folder: Path) -> subprocess.Popen:
    """Start a run as the leader of a process group of its own; its output goes to FOLDER/output."""
    with (folder / "output").open("w") as output:
        return subprocess.Popen(
            command, cwd=folder, env=environment(), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )


def kill(run: subprocess.Popen) -> None:
    """End a run with all its jobs, as a power failure would."""
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()


def running(output: str) -> list[str]:
    """Rules of the jobs that a run started and did not finish."""
    jobs = {job: rule for rule, job in re.findall(r"rule (\w+):\n(?:    .*\n)*?    jobid: (\d+)\n", output)}
    finished = set(re.findall(r"Finished jobid: (\d+)", output))
    return sorted(rule for job, rule in jobs.items() if job not in finished)


def whole_files(results: Path) -> int:
    """Open every result that stands under its own name; return how many there are."""
    count = 0
    for path in results.rglob("*.*"):
        if path.name.startswith(".") or any(part.endswith(".part") for part in path.parts) or not path.is_file():
            continue
        if path.suffix == ".npy":
            np.load(path, mmap_mode="r", allow_pickle=False)
        elif path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                assert all(arrays[name] is not None for name in arrays)
        elif path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".parquet":
            pq.read_table(path)
        elif path.suffix == ".safetensors":
            with safe_open(path, "numpy") as file:
                assert all(file.get_tensor(name) is not None for name in file.keys())  # noqa: SIM118
        count += 1
    return count


def interrupt(command: list[str], folder: Path, kills: int, longest: float, seed: int) -> Iterator[Kill]:
    """Kill a run again and again, each time somewhere within `longest` seconds, and let it end at last.

    Ends early when the run was quicker. Between two runs the lock is removed, as Snakemake's message says.
    """
    moments = random.Random(seed)
    for _ in range(kills):
        began = time.monotonic()
        run = start(command, folder)
        try:
            run.wait(moments.uniform(1.5, longest))
            assert run.returncode == 0, (folder / "output").read_text()[-3000:]
            return
        except subprocess.TimeoutExpired:
            kill(run)
        left = (folder / "output").read_text()
        yield Kill(time.monotonic() - began, running(left), whole_files(folder / "results"))
        unlock(command, folder)
    run = start(command, folder)
    assert run.wait() == 0, (folder / "output").read_text()[-3000:]


def unlock(command: list[str], folder: Path) -> None:
    subprocess.run([*command, "--unlock"], cwd=folder, env=environment(), capture_output=True, check=True)

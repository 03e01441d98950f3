"""The toy suite through a real SLURM of two nodes, one of which breaks down while it works."""

import re
import subprocess
import time
from datetime import datetime
from itertools import pairwise

import pytest
from installation import UnavailableError, install_plugins
from slurm import NODES, cluster

from workflow import command, environment, numbers, workspace

pytestmark = pytest.mark.slow

#: What a cluster without accounting needs, and one whose jobs take seconds.
OPTIONS = [
    *("--slurm-no-account", "--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "1"),
    *("--latency-wait", "10", "--jobs", "6"),
]
PLUGINS = ("snakemake-executor-plugin-slurm", "snakemake-executor-plugin-slurm-jobstep", "throttler")
GPU_RULES = {"pretrain_model", "extract_features", "evaluate_linear", "find_neighbours", "evaluate_label_efficiency"}
GPU_RULES |= {"evaluate_estimators", "compare_representations", "evaluate_finetune"}
#: Jobs that go on where the lost attempt stood, and so need no more time at the next one.
RESUMING_RULES = {"pretrain_model", "evaluate_finetune"}
BROKEN = NODES[0]


def rule(job):
    return re.sub(r"^rule_|_wildcards_.*", "", job["Comment"])


def wait_for(condition, run, seconds):
    """Wait until `condition` holds; fail if the run ends or time is over."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert run.poll() is None, "the run ended early"
        assert time.monotonic() < deadline, "the run takes too long"
        time.sleep(0.3)
    return found


@pytest.fixture(scope="module")
def run(request, tmp_path_factory):
    """Run the toy suite, break a node down in the middle, and keep what SLURM knows of all jobs."""
    if not request.config.getoption("--slurm"):
        pytest.skip("needs the option --slurm: as root, it may install Debian's SLURM and writes /etc/slurm")
    variables = environment()
    folder = workspace(tmp_path_factory.mktemp("cluster run"))
    words = command(*OPTIONS, profile="slurm")
    try:
        variables |= install_plugins(tmp_path_factory.mktemp("plugins"), *PLUGINS)
        with cluster(tmp_path_factory.mktemp("slurm") / "cluster") as slurm, (folder / "output").open("w") as output:
            variables |= slurm.environment | {k: v for k, v in variables.items() if k == "PYTHONPATH"}
            started = subprocess.Popen(words, cwd=folder, env=variables, stdout=output, stderr=subprocess.STDOUT)
            try:

                def victim():
                    """A job in its middle, once both nodes have finished one."""
                    jobs = slurm.jobs()
                    both = {job["NodeList"] for job in jobs if job["JobState"] == "COMPLETED"} == set(NODES)
                    running = [job for job in jobs if job["JobState"] == "RUNNING" and job["NodeList"] == BROKEN]
                    return both and next((job for job in running if rule(job) in GPU_RULES), None)

                def lose():
                    """Break the node down; the job that went with it, or None if it was done in that moment."""
                    chosen = wait_for(victim, started, 300)
                    time.sleep(1)
                    slurm.break_down(BROKEN)
                    state = next(job["JobState"] for job in slurm.jobs() if job["JobId"] == chosen["JobId"])
                    if state == "NODE_FAIL":
                        return chosen
                    slurm.repair(BROKEN)
                    return None

                lost = wait_for(lose, started, 600)

                def retried():
                    again = [job for job in slurm.jobs() if job["Comment"] == lost["Comment"]]
                    return any(job["JobState"] in ("RUNNING", "COMPLETED") for job in again)

                wait_for(retried, started, 300)
                slurm.repair(BROKEN)
                started.wait(timeout=900)
                jobs = slurm.jobs()
            finally:
                started.kill()
                started.wait()
    except UnavailableError as reason:
        pytest.skip(str(reason))
    text = (folder / "output").read_text()
    assert started.returncode == 0, text[-5000:]
    print(summary(jobs))
    return folder, jobs, lost, text


def summary(jobs):
    """A table of what ran where; shown with pytest -s."""
    lines = ["| rule | jobs on n1 | jobs on n2 | lost | GPU | memory | time limit |", "| --- " * 7 + "|"]
    for name in sorted({rule(job) for job in jobs}):
        own = [job for job in jobs if rule(job) == name]
        done = [sum(job["NodeList"] == node and job["JobState"] == "COMPLETED" for job in own) for node in NODES]
        gpu = "1" if "TresPerJob" in own[0] else ""
        lost = sum(job["JobState"] == "NODE_FAIL" for job in own) or ""
        lines.append(
            f"| {name} | {done[0]} | {done[1]} | {lost} | {gpu} | {own[0]['MinMemoryNode']} | {own[0]['TimeLimit']} |"
        )
    return "\n".join(lines)


def test_jobs_ran_on_both_nodes(run):
    _, jobs, _, _ = run
    completed = [job for job in jobs if job["JobState"] == "COMPLETED"]
    assert {job["NodeList"] for job in completed} == set(NODES)


def test_gpus_are_asked_for_where_they_are_used_and_never_shared(run):
    _, jobs, _, _ = run
    spans = {node: [] for node in NODES}
    for job in jobs:
        assert (job.get("TresPerJob") == "gres:gpu:1") == (rule(job) in GPU_RULES), job
        if rule(job) in GPU_RULES:
            spans[job["NodeList"]].append([datetime.fromisoformat(job[key]) for key in ("StartTime", "EndTime")])
    for used in map(sorted, spans.values()):
        assert used
        assert all(first[1] <= second[0] for first, second in pairwise(used))


def test_every_job_has_its_memory_and_time(run):
    _, jobs, _, _ = run
    for job in jobs:
        assert job["TimeLimit"] != "UNLIMITED"
        assert job["MinMemoryNode"] not in ("0", ""), job


def minutes(limit):
    hours, rest, _ = limit.split(":")
    return 60 * int(hours) + int(rest)


def test_a_lost_node_loses_nothing(run, finished):
    folder, jobs, lost, _ = run
    again = [job for job in jobs if job["Comment"] == lost["Comment"]]
    assert [job["JobState"] for job in again] == ["NODE_FAIL", "COMPLETED"]
    assert [job["NodeList"] for job in again] == list(NODES)  # the other one
    first, second = ((int(job["MinMemoryNode"].removesuffix("M")), minutes(job["TimeLimit"])) for job in again)
    assert second == (2 * first[0], first[1] if rule(lost) in RESUMING_RULES else 2 * first[1])
    assert "scores.csv" in numbers(folder) and numbers(folder) == numbers(finished)


def test_nothing_is_left_to_do_here(run):
    """The local profile agrees that everything is done, so a report can be redrawn without the cluster."""
    folder, _, _, _ = run
    done = subprocess.run(
        command("--dry-run"), cwd=folder, env=environment(), capture_output=True, text=True, check=True
    )
    assert "Nothing to be done" in done.stdout + done.stderr

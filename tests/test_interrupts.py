"""Ctrl-C: one line on the terminal, everything in the log file, no traceback of a job."""

import logging
import os
import pty
import select
import signal
import subprocess
import sys

import pytest

from ssltransfer import interrupts
from workflow import REPOSITORY, command, environment, workspace


@pytest.fixture(autouse=True)
def handlers():
    """Handler and hooks as they were."""
    before = signal.getsignal(signal.SIGINT), sys.excepthook
    yield
    signal.signal(signal.SIGINT, before[0])
    sys.excepthook = before[1]


def run(code):
    words = [sys.executable, "-c", code]
    return subprocess.run(
        words,
        env=environment() | {"PYTHONPATH": str(REPOSITORY / "scripts")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_after_ctrl_c_only_log_files_get_messages(tmp_path):
    code = f"""
import logging, os, signal, sys, time
from ssltransfer.interrupts import QuietStop
log = logging.getLogger("run")
log.addHandler(logging.StreamHandler())
log.addHandler(logging.FileHandler({str(tmp_path / "log")!r}))
stop = QuietStop(log)
log.error("before")
assert not stop.stopped
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)
except KeyboardInterrupt:
    log.error("after")
assert stop.stopped
raise KeyboardInterrupt
"""
    done = run(code)
    assert done.stderr.split("\n") == ["before", "", interrupts.STOPPED, ""]
    assert (tmp_path / "log").read_text() == "before\nafter\n"
    assert done.returncode != 0


def test_a_second_ctrl_c_still_ends_the_run():
    stop = interrupts.QuietStop(logging.getLogger("second"))
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert stop.stopped


@pytest.mark.parametrize(("error", "text"), [("KeyboardInterrupt", ""), ("ValueError('x')", "ValueError: x")])
def test_a_job_ends_without_a_traceback_of_ctrl_c_alone(error, text):
    done = run(f"import sys; sys.modules['__main__'].snakemake = None; import ssltransfer; raise {error}")
    assert done.returncode != 0 and (text in done.stderr) and bool(done.stderr) == bool(text)
    # In a notebook the hook is Python's own.
    assert "Traceback" in run(f"import ssltransfer; raise {error}").stderr


def test_the_log_of_a_job_says_that_it_was_interrupted(tmp_path):
    code = f"from ssltransfer.jobs import job\nwith job({str(tmp_path / 'log')!r}):\n    raise KeyboardInterrupt"
    assert run(code).returncode != 0
    assert (tmp_path / "log").read_text().rstrip().endswith(" interrupted")


@pytest.mark.slow
def test_ctrl_c_ends_a_run_with_one_line(tmp_path):
    """On a terminal, which sends the signal to the run and to its jobs, here two that train."""
    folder = workspace(tmp_path / "toy")
    recipes = folder / "config" / "pretraining.yaml"
    recipes.write_text(recipes.read_text().replace("epochs: 1", "epochs: 10000"))
    models = ("toy-simclr", "toy-supervised")
    logs = [folder / "logs" / "pretrain_model" / f"{model}.log" for model in models]
    number, terminal = pty.fork()
    if number == 0:
        os.chdir(folder)
        words = command(*(f"results/checkpoints/{model}.safetensors" for model in models))
        os.execvpe(words[0], words, environment())
    after = None
    while True:
        # While Python itself starts, a job has no handler yet: wait until both have begun to log.
        if after is None and all(log.exists() and log.stat().st_size for log in logs):
            os.write(terminal, b"\x03")
            after = b""
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                part = os.read(terminal, 65536)
            except OSError:
                break
            if not part:
                break
            after = None if after is None else after + part
    _, status = os.waitpid(number, 0)
    lines = (after or b"").decode().replace("\r", "").split("^C")[-1].strip().splitlines()
    assert lines == [interrupts.STOPPED]
    assert os.waitstatus_to_exitcode(status) == 1
    assert all("interrupted" in log.read_text() for log in logs)

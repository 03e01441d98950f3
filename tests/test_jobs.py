"""What a job says when it fails."""

import logging
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from ssltransfer import jobs
from ssltransfer.errors import InputError
from ssltransfer.jobs import JobUsage, job


@pytest.mark.parametrize("error", [InputError, ValueError])
def test_a_file_name_cannot_write_lines_of_its_own(error, tmp_path, caplog):
    """A line end in a name would otherwise fake further errors, or the cost at the end of the log."""
    with pytest.raises(SystemExit) as ended, job(str(tmp_path / "job.log")):
        raise error('image a\n2026-01-01 00:00:00,000 cost {"seconds": 1}\n.jpg is missing')
    assert str(ended.value).startswith("Error: ") and "\n" not in str(ended.value)
    assert not any(line.startswith("2026-01-01") for text in caplog.messages for line in text.splitlines())
    if error is InputError:
        assert caplog.messages == [str(ended.value)]


def test_a_file_name_cannot_control_the_terminal(tmp_path, caplog):
    with pytest.raises(SystemExit) as ended, job(str(tmp_path / "job.log")):
        raise InputError("\x1b]0;title\x07\u202egpj.a é\u4e2d is missing")
    assert ended.value.code == "Error: \\x1b]0;title\\x07\\u202egpj.a é\u4e2d is missing"
    assert "\x1b" not in caplog.text


def test_a_full_gpu_is_one_line(tmp_path, caplog):
    with (
        caplog.at_level(logging.INFO),
        pytest.raises(SystemExit, match=r"^Error: CUDA out of memory\. Tried [^\n]*GPU[^\n]*$"),
        job(str(tmp_path / "job.log")),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB.\nGPU 0 has")
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize(("platform", "unit"), [("linux", 2**10), ("darwin", 2**20)])
def test_peak_memory_is_in_the_unit_of_the_system(monkeypatch, platform, unit):
    monkeypatch.setattr(jobs.sys, "platform", platform)
    monkeypatch.setattr(jobs.resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=300 * unit))
    monkeypatch.setattr(jobs, "_SEEN", [])
    monkeypatch.setattr(jobs, "_process_memory", lambda *_: 0)
    assert JobUsage().report()["peak_memory_mib"] == 300


PROCESSES = """
import multiprocessing, sys, time
from ssltransfer import jobs

OWN, EACH, COUNT = map(int, sys.argv[1:])

def load(pages):
    block = bytearray(EACH << 20)
    block[::4096] = bytes(1 for _ in block[::4096])
    time.sleep(3)

jobs.MEMORY_INTERVAL, jobs.MEMORY_EFFORT = 0.05, 1
with jobs.job("job.log"):
    alone = jobs.JobUsage().report()["peak_memory_mib"]
    pages = bytearray(OWN << 20)
    pages[::4096] = bytes(1 for _ in pages[::4096])
    context = multiprocessing.get_context("fork")
    loaders = [context.Process(target=load, args=(pages,)) for _ in range(COUNT)]
    [loader.start() for loader in loaders]
    [loader.join() for loader in loaders]
    print(jobs.JobUsage().report()["peak_memory_mib"] - alone)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell what processes share")
@pytest.mark.parametrize(("own", "each", "count", "expected"), [(0, 200, 2, 400), (300, 0, 3, 300), (300, 0, 0, 300)])
def test_peak_memory_counts_loading_processes_and_what_they_share_once(tmp_path, own, each, count, expected):
    """What is loaded before they start is theirs as well, and not copied. The memory of this process, which started the
    job, is not the job's.
    """
    command = [sys.executable, "-c", PROCESSES, *map(str, (own, each, count))]
    found = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert expected - 10 < int(found.stdout) < expected + 90

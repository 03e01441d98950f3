"""The choice of a device, where there is no GPU, one, and one that torch cannot use."""

import errno
import logging
import os
import platform
import re
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from ssltransfer import device, gpu_slots
from ssltransfer.array_backend import NUMPY
from ssltransfer.errors import InputError
from workflow import put_driver


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path):
    """A machine without a GPU."""
    monkeypatch.setattr(device.shutil, "which", lambda name: None)
    monkeypatch.setattr(device, "DRIVER", tmp_path / "nvidiactl")
    for name in device.GRANTS:
        monkeypatch.delenv(name, raising=False)
    device._ask_driver.cache_clear()
    yield
    device._ask_driver.cache_clear()


def put_program(monkeypatch, folder, script):
    """Put a stand-in for nvidia-smi where `which` finds it."""
    path = folder / "nvidia-smi"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setattr(device.shutil, "which", lambda name: str(path))
    device._ask_driver.cache_clear()


@pytest.fixture
def driver(machine):
    device.DRIVER.touch()


def test_a_gpu_is_there_if_a_program_or_a_driver_says_so(monkeypatch, tmp_path):
    assert not device.has_gpu()
    with monkeypatch.context() as there:
        put_program(there, tmp_path, "echo 'GPU 0: NVIDIA H200 (UUID: GPU-1)'")
        assert device.has_gpu()
    device._ask_driver.cache_clear()
    assert not device.has_gpu()
    device.DRIVER.touch()
    assert device.has_gpu()


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18", "version mismatch"),
        ("echo 'No devices were found'", "No devices were found"),
        ("exit 9", "exit code 9"),
        ("exec sleep 600", "does not answer within 1 seconds"),
    ],
)
@pytest.mark.parametrize("available", [False, True])  # torch may well compute
def test_a_driver_that_does_not_answer_is_no_gpu(monkeypatch, tmp_path, driver, script, reason, available, caplog):
    if "sleep" in script:
        monkeypatch.setattr(device, "DRIVER_SECONDS", 1)
    put_program(monkeypatch, tmp_path, script)
    assert not device.has_gpu()
    assert reason in device.driver_problem()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)  # whatever other tests did
    assert device.choose_device(torch.get_num_threads()) == torch.device("cpu")
    assert reason in caplog.text
    caplog.clear()
    assert device.choose_arrays() is NUMPY
    assert reason in caplog.text

    # One that was granted is not replaced by the processor.
    monkeypatch.setenv("SLURM_JOB_GPUS", "0")
    assert device.has_gpu() and device.list_gpus() == ["0"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for choose in (device.choose_device, device.choose_arrays):
        with pytest.raises(InputError, match="^SLURM_JOB_GPUS=0 "):
            choose()


@pytest.mark.parametrize(
    ("visible", "expected"), [("0", True), ("1,2", True), ("", False), ("-1", False), ("NoDevFiles", False)]
)
def test_a_gpu_may_be_hidden(monkeypatch, driver, visible, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert device.has_gpu() == expected


TWO_GPUS = """GPU 0: NVIDIA H200 (UUID: GPU-1f)
GPU 1: NVIDIA H200 (UUID: GPU-2f)
"""
DIVIDED = """GPU 0: NVIDIA A100 (UUID: GPU-1f)
  MIG 3g.20gb     Device  0: (UUID: MIG-7a)
  MIG 3g.20gb     Device  1: (UUID: MIG-7b)
GPU 1: NVIDIA A100 (UUID: GPU-2f)
"""


@pytest.mark.parametrize(
    ("said", "visible", "gpus"),
    [
        (TWO_GPUS, None, ["GPU-1f", "GPU-2f"]),
        (TWO_GPUS, "1", ["1"]),
        (TWO_GPUS, "1, GPU-1f", ["1", "GPU-1f"]),
        (TWO_GPUS, "", []),
        (DIVIDED, None, ["GPU-2f", "MIG-7a", "MIG-7b"]),
    ],
)
def test_gpus_are_those_of_the_driver_or_of_the_environment(monkeypatch, tmp_path, said, visible, gpus):
    (tmp_path / "said").write_text(said)
    put_program(monkeypatch, tmp_path, f"cat {tmp_path}/said")
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert device.list_gpus() == gpus


def test_a_driver_without_a_program_has_one_gpu(driver):
    assert device.list_gpus() == ["0"]


@pytest.mark.parametrize(
    ("said", "name", "lock"),
    [
        (TWO_GPUS, "1", "GPU-2f"),
        (TWO_GPUS, "GPU-2", "GPU-2f"),
        (TWO_GPUS, "7", "815.7"),
        (DIVIDED, "MIG-7b", "MIG-7b"),
        (DIVIDED, "0", "MIG-7a"),
        (DIVIDED, "GPU-1f", "MIG-7a"),
        (DIVIDED, "1", "GPU-2f"),
        ("exit 1", "0", "815.0"),
    ],
)
def test_all_runs_have_the_same_name_for_a_gpu(monkeypatch, tmp_path, said, name, lock):
    (tmp_path / "said").write_text(said)
    put_program(monkeypatch, tmp_path, f"cat {tmp_path}/said")
    monkeypatch.setenv("SLURM_JOB_ID", "815")
    assert device.lock_name(name) == lock


TAKE = """
import os, sys, time
from ssltransfer import device
device.take_gpu()
print(os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
if "fork" in sys.argv:
    child = os.fork()
    if child:
        print(child, flush=True)
    else:
        time.sleep(600)
sys.stdin.read()
"""


@pytest.fixture
def start_job(tmp_path):
    """Start processes that take one of three GPUs each and end with the test."""
    put_driver(tmp_path, 3)
    jobs = []

    def start(*arguments, **variables):
        environment = {name: text for name, text in os.environ.items() if name not in device.GRANTS}
        paths = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)}
        job = subprocess.Popen(
            [sys.executable, "-c", TAKE, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment | paths | variables,
        )
        jobs.append(job)
        return job

    yield start
    for job in jobs:
        job.kill()
        job.communicate()


def taken(*jobs):
    """The GPUs that processes say they took."""
    return [job.stdout.readline().strip() for job in jobs]


def test_each_job_takes_a_gpu_of_its_own(start_job):
    jobs = [start_job() for _ in range(3)]
    gpus = taken(*jobs)
    assert sorted(gpus) == ["GPU-a", "GPU-b", "GPU-c"]

    # With more jobs than GPUs, none has three jobs before each has two.
    more = [start_job() for _ in range(3)]
    assert sorted(taken(*more)) == sorted(gpus)
    for job in more:
        job.kill()
        job.wait()

    # The GPU of a job that was killed is free at once.
    jobs[1].kill()
    jobs[1].wait()
    assert taken(start_job()) == [gpus[1]]


def test_a_job_takes_the_gpu_with_fewest_jobs(start_job):
    jobs = []
    for _ in range(6):
        jobs.append((job := start_job(), *taken(job)))
    assert [gpu for _, gpu in jobs] == 2 * ["GPU-a", "GPU-b", "GPU-c"]
    for job, _ in jobs[:3] + jobs[4:]:
        job.kill()
        job.wait()
    # The second job of the first GPU is left.
    assert sorted(taken(*(start_job() for _ in range(2)))) == ["GPU-b", "GPU-c"]


def test_jobs_one_after_another_share_the_slots(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu_slots.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(gpu_slots, "_held", [])
    for _ in range(20):
        assert gpu_slots.take_slot({"0": "GPU-a", "1": "GPU-b"}) == "0"
        os.close(gpu_slots._held.pop())
    assert sorted(path.name for path in gpu_slots.slots_folder().iterdir()) == ["GPU-a.1", "GPU-b.1", "turn"]


def test_a_folder_without_locks_is_one_line(monkeypatch, tmp_path):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(gpu_slots.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(gpu_slots.fcntl, "flock", refuse)
    with pytest.raises(InputError, match=f"^{tmp_path}.*cannot be locked.*No locks available.*TMPDIR"):
        gpu_slots.take_slot({"0": "GPU-a", "1": "GPU-b"})


def test_the_gpu_of_a_killed_job_is_free_although_a_process_that_it_forked_lives_on(start_job):
    job = start_job("fork")
    (gpu,), child = taken(job), int(job.stdout.readline())
    try:
        job.kill()
        job.wait()
        os.kill(child, 0)
        assert taken(start_job()) == [gpu]
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_forked_process_that_ends_frees_no_gpu(start_job):
    job = start_job("fork")
    (gpu,), child = taken(job), int(job.stdout.readline())
    os.kill(child, signal.SIGKILL)
    assert taken(start_job()) != [gpu]


def test_what_was_assigned_is_kept(start_job):
    one = start_job(SLURM_JOB_GPUS="1", CUDA_VISIBLE_DEVICES="0")
    hidden = start_job(CUDA_VISIBLE_DEVICES="")
    assert taken(one, hidden) == ["0", ""]


@pytest.mark.parametrize("slurm", [{}, {"SLURM_JOB_GPUS": "1,2"}, {"SLURM_STEP_GPUS": "1,2"}])
def test_each_job_takes_one_of_the_gpus_that_were_assigned(start_job, slurm):
    chosen = [start_job(CUDA_VISIBLE_DEVICES="1,2", **slurm) for _ in range(2)]
    assert sorted(taken(*chosen)) == ["1", "2"]


def test_parts_of_a_divided_gpu_are_taken_one_by_one(start_job):
    parts = "MIG-7a", "MIG-GPU-1f/3/0"
    assert sorted(taken(*(start_job(CUDA_VISIBLE_DEVICES=",".join(parts)) for _ in range(2)))) == sorted(parts)


def test_runs_that_name_gpus_differently_share_none(start_job):
    assert taken(start_job(CUDA_VISIBLE_DEVICES="1,0")) == ["1"]
    assert taken(start_job(CUDA_VISIBLE_DEVICES="GPU-b,GPU-c")) == ["GPU-c"]
    assert taken(start_job()) == ["GPU-a"]


def test_slots_outlive_a_logout_and_are_the_user_s_own(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu_slots.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "session"))
    user = os.getuid()
    folder = tmp_path / f"ssltransfer-gpus-{user}"
    assert gpu_slots.slots_folder() == folder == gpu_slots.slots_folder()
    assert folder.stat().st_mode & 0o777 == 0o700

    # Open to others, a link to elsewhere, or another user's.
    folder.chmod(0o755)
    with pytest.raises(InputError, match=re.escape(str(folder))):
        gpu_slots.slots_folder()
    folder.rename(other := tmp_path / f"ssltransfer-gpus-{user + 1}")
    other.chmod(0o700)
    folder.symlink_to(other)
    with pytest.raises(InputError, match=re.escape(str(folder))):
        gpu_slots.slots_folder()
    monkeypatch.setattr(gpu_slots.os, "getuid", lambda: user + 1)
    with pytest.raises(InputError, match=re.escape(str(other))):
        gpu_slots.slots_folder()


@pytest.mark.parametrize("present", [True, False])
def test_a_job_says_what_it_runs_on(monkeypatch, caplog, present):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    if present:
        device.DRIVER.touch()
    with caplog.at_level(logging.INFO):
        assert device.choose_device(torch.get_num_threads()) == torch.device("cpu")
    assert "on the CPU" in caplog.text
    assert ("the GPU is not used: torch" in caplog.text) == present


@pytest.mark.parametrize("name", device.GRANTS)
@pytest.mark.parametrize("choose", [device.choose_device, device.choose_arrays])
def test_a_granted_gpu_that_cannot_be_used_is_an_error(monkeypatch, name, choose):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv(name, "0")
    with pytest.raises(InputError, match=f"^{name}=0 .*CUDA_VISIBLE_DEVICES= "):
        choose()


@pytest.mark.parametrize("hidden", device.HIDDEN)
def test_a_granted_gpu_may_be_hidden(monkeypatch, hidden):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("SLURM_JOB_GPUS", "0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert device.choose_device(torch.get_num_threads()) == torch.device("cpu")
    assert device.choose_arrays() is NUMPY


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: no kernel image is available for execution on the device\nMore follows"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB."),
    ],
)
def test_a_gpu_that_does_not_compute_is_one_line(monkeypatch, error):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "ones", refuse)
    with pytest.raises(InputError, match=re.escape(str(error).partition("\n")[0].rstrip("."))):
        device.choose_device()


def test_large_blocks_of_memory_are_kept(monkeypatch):
    calls = []
    library = SimpleNamespace(mallopt=lambda *arguments: calls.append(arguments))
    monkeypatch.setattr(device.ctypes, "CDLL", lambda name: library)
    monkeypatch.setattr(device.sys, "platform", "linux")
    device.keep_freed_memory()
    assert calls == [(device.M_MMAP_MAX, 0), (device.M_TRIM_THRESHOLD, 2**31 - 1)]
    for system, other in (("darwin", library), ("linux", SimpleNamespace())):
        monkeypatch.setattr(device.sys, "platform", system)
        monkeypatch.setattr(device.ctypes, "CDLL", lambda name, other=other: other)
        device.keep_freed_memory()
    assert len(calls) == 2


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_freed_memory_is_not_handed_back():
    code = (
        "import resource, sys; from ssltransfer.device import keep_freed_memory\n"
        "if sys.argv[1] == 'keep': keep_freed_memory()\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for _ in range(10): bytearray(2**26)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)"
    )
    kept, released = (
        int(subprocess.run([sys.executable, "-c", code, word], capture_output=True, text=True, check=True).stdout)
        for word in ("keep", "release")
    )
    assert 2 * kept < released

"""The choice of a device, where there is no GPU, one, and one that torch cannot use."""

import logging
import platform
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from ssltransfer import device
from ssltransfer.array_backend import NUMPY
from ssltransfer.errors import InputError


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path):
    """A machine without a GPU."""
    monkeypatch.setattr(device.shutil, "which", lambda name: None)
    monkeypatch.setattr(device, "DRIVER", tmp_path / "nvidiactl")
    for name in device.GRANTS:
        monkeypatch.delenv(name, raising=False)
    device.driver_problem.cache_clear()
    yield
    device.driver_problem.cache_clear()


def put_program(monkeypatch, folder, script):
    """Put a stand-in for nvidia-smi where `which` finds it."""
    path = folder / "nvidia-smi"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setattr(device.shutil, "which", lambda name: str(path))
    device.driver_problem.cache_clear()


@pytest.fixture
def driver(machine):
    device.DRIVER.touch()


def test_a_gpu_is_there_if_a_program_or_a_driver_says_so(monkeypatch, tmp_path):
    assert not device.has_gpu()
    with monkeypatch.context() as there:
        put_program(there, tmp_path, "echo 'GPU 0: NVIDIA H200 (UUID: GPU-1)'")
        assert device.has_gpu()
    device.driver_problem.cache_clear()
    assert not device.has_gpu()
    device.DRIVER.touch()
    assert device.has_gpu()


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18", "version mismatch"),
        ("echo 'No devices were found'", "No devices were found"),
        ("exit 9", "exit code 9"),
        ("exec sleep 60", "does not answer within 1 seconds"),
    ],
)
def test_a_driver_that_does_not_answer_is_no_gpu(monkeypatch, tmp_path, driver, script, reason, caplog):
    monkeypatch.setattr(device, "DRIVER_SECONDS", 1)
    put_program(monkeypatch, tmp_path, script)
    assert not device.has_gpu()
    assert reason in device.driver_problem()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    device.choose_device(torch.get_num_threads())
    assert reason in caplog.text


@pytest.mark.parametrize(
    ("visible", "expected"), [("0", True), ("1,2", True), ("", False), ("-1", False), ("NoDevFiles", False)]
)
def test_a_gpu_may_be_hidden(monkeypatch, driver, visible, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert device.has_gpu() == expected


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

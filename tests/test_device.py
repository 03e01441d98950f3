"""The choice of a device, where there is no GPU, one, and one that torch cannot use."""

import logging
import re

import pytest
import torch

from ssltransfer import device
from ssltransfer.errors import InputError


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path):
    """A machine without a GPU."""
    monkeypatch.setattr(device.shutil, "which", lambda name: None)
    monkeypatch.setattr(device, "DRIVER", tmp_path / "nvidiactl")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture
def driver(machine):
    device.DRIVER.touch()


def test_a_gpu_is_there_if_a_program_or_a_driver_says_so(monkeypatch):
    assert not device.has_gpu()
    with monkeypatch.context() as there:
        there.setattr(device.shutil, "which", lambda name: f"/usr/bin/{name}")
        assert device.has_gpu()
    assert not device.has_gpu()
    device.DRIVER.touch()
    assert device.has_gpu()


@pytest.mark.parametrize(("visible", "expected"), [("0", True), ("1,2", True), ("", False), ("-1", False)])
def test_a_gpu_may_be_hidden(monkeypatch, driver, visible, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert device.has_gpu() == expected


@pytest.mark.parametrize("granted", [True, False])
def test_a_job_says_what_it_runs_on(monkeypatch, caplog, granted):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    if granted:
        device.DRIVER.touch()
    with caplog.at_level(logging.INFO):
        assert device.choose_device(torch.get_num_threads()) == torch.device("cpu")
    assert "on the CPU" in caplog.text
    assert ("there is a GPU that torch" in caplog.text) == granted


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

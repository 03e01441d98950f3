"""The choice of a device, where there is no GPU, one, and one that torch cannot use."""

import logging

import pytest
import torch

from ssltransfer import device
from ssltransfer.errors import InputError


@pytest.mark.parametrize(
    ("driver", "visible", "expected"),
    [(False, None, False), (True, None, True), (True, "0", True), (True, "", False), (False, "0", False)],
)
def test_a_gpu_is_there_if_it_has_a_driver_and_may_be_used(monkeypatch, driver, visible, expected):
    monkeypatch.setattr(device.shutil, "which", lambda name: "/usr/bin/nvidia-smi" if driver else None)
    monkeypatch.setattr(device.Path, "exists", lambda path: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert device.has_gpu() == expected


@pytest.mark.parametrize("granted", [True, False])
def test_a_job_says_what_it_runs_on(monkeypatch, caplog, granted):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(device, "has_gpu", lambda: False)
    monkeypatch.delenv("SLURM_JOB_GPUS", raising=False)
    if granted:
        monkeypatch.setenv("SLURM_JOB_GPUS", "0")
    before = torch.get_num_threads()
    with caplog.at_level(logging.INFO):
        assert device.choose_device(before) == torch.device("cpu")
    assert "on the CPU" in caplog.text
    assert ("there is a GPU that torch" in caplog.text) == granted


def test_a_gpu_that_torch_has_no_code_for_is_one_line(monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nCUDA kernel errors")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "ones", refuse)
    with pytest.raises(InputError, match=r"cannot use this GPU \(.*no kernel image.*device\); install a build for it"):
        device.choose_device()

"""Every protocol on a pretended GPU, which refuses what CUDA refuses (tests/pretend_gpu): no GPU is needed."""

import copy
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
import yaml

from ssltransfer import device
from workflow import succeed, workspace

FOLDER = Path(__file__).parent / "pretend_gpu"


@pytest.fixture
def gpu(monkeypatch):
    """Torch with a pretended GPU."""
    monkeypatch.syspath_prepend(FOLDER)
    from pretend_cuda import pretend_cuda

    with pretend_cuda() as mode:
        yield mode


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (lambda there, here: there + here, RuntimeError, "same device"),
        (lambda there, here: here.mul_(there), RuntimeError, "same device"),
        (lambda there, here: torch.cat([there, here]), RuntimeError, "same device"),
        (lambda there, here: here[there.long()], RuntimeError, "same device"),
        (lambda there, here: torch.nn.functional.mse_loss(there, here), RuntimeError, "same device"),
        (lambda there, here: torch.nn.Linear(3, 2)(there), RuntimeError, "same device"),
        (lambda there, here: torchvision.ops.nms(there.expand(2, 4), here[:2], 0.5), RuntimeError, "same device"),
        (lambda there, here: there.numpy(), TypeError, "to numpy"),
        (lambda there, here: np.asarray(there), TypeError, "to numpy"),
        (lambda there, here: torch.rand(3, device="cuda", generator=torch.Generator()), RuntimeError, "generator"),
    ],
)
def test_what_cuda_refuses_is_refused(gpu, wrong, error, message):
    with pytest.raises(error, match=message):
        wrong(torch.zeros(1, device="cuda"), torch.zeros(3))


def test_tensors_say_where_they_are(gpu):
    there = torch.ones(3, device="cuda")
    assert there.is_cuda and there.device == (there + 1).device == torch.device("cuda", 0)
    assert there.cpu().device == there.to("cpu").device == torch.zeros(3).device == torch.device("cpu")
    assert there[torch.tensor([True, False, True])].is_cuda, "an index may lie on the CPU"
    network = torchvision.models.resnet18(num_classes=2).to("cuda")
    for one in (network, copy.deepcopy(network)):
        assert {value.device.type for value in one.state_dict().values()} == {"cuda"}
        optimiser = torch.optim.AdamW(one.parameters())
        with torch.autocast("cuda", torch.bfloat16):
            output = one(torch.rand(2, 3, 32, 32).cuda())
        assert output.dtype == torch.bfloat16
        output.float().square().sum().backward()
        optimiser.step()
        assert {state["exp_avg"].device.type for state in optimiser.state.values()} == {"cuda"}
    network.cpu()
    assert {value.device.type for value in network.state_dict().values()} == {"cpu"}


# A job of every kind on one model, at the smallest sizes.
SUITE = {
    "suite": "device",
    "models": "config/models.tsv",
    "datasets": "config/datasets.tsv",
    "pretraining": "config/pretraining.yaml",
    "tasks": {
        **dict.fromkeys(["toy-linear", "toy-knn", "toy-labels", "toy-fewshot", "toy-calibration"], ["digits"]),
        **dict.fromkeys(["gpu-linear-bf16", "gpu-linear-tf32"], ["digits"]),
        **dict.fromkeys(["gpu-inversion", "gpu-attention"], ["photographs"]),
        **dict.fromkeys(["gpu-normals", "gpu-normals-bf16", "gpu-detection", "gpu-detection-bf16"], ["shapes"]),
    },
    "protocols": {
        "gpu-linear-bf16": {"kind": "linear", "transform": "resize16", "precision": "bfloat16"},
        "gpu-linear-tf32": {"kind": "linear", "transform": "resize16", "precision": "tf32"},
        "gpu-inversion": {
            "kind": "inversion", "transform": "resize32", "canvas": 32, "steps": 4, "lpips": [],
            "network": {"channels": [4, 4], "kernels": [3, 3], "skip": 2, "inputs": 4},
        },
        "gpu-attention": {"kind": "attention", "size": 32, "mask": 8, "stride": 8},
        "gpu-normals": {
            "kind": "normals", "targets": "kmeans", "sides": {"train": [48], "test": 64}, "network": {"channels": 8},
            "schedule": {"batch_size": 4, "epochs": 1, "epoch_steps": 4},
        },
        "gpu-detection": {
            "kind": "detection", "backend": "torchvision", "frozen": "none", "sides": {"train": [64], "test": 64, "longest": 64},
            "schedule": {"batch_size": 4, "steps": 4, "milestones": [3], "warmup": 1},
            "network": {"channels": 8, "hidden": 8, "anchors": [12, 20, 32, 44, 60], "proposals": [20, 20, 10]},
        },
    },
}  # fmt: skip
for name in ("gpu-normals", "gpu-detection"):
    SUITE["protocols"][f"{name}-bf16"] = copy.deepcopy(SUITE["protocols"][name])
    SUITE["protocols"][f"{name}-bf16"]["precision"] = "bfloat16"


def prepare(folder):
    """A working directory with this suite, for one model."""
    workspace(folder)
    toy = yaml.safe_load((folder / "config/config.yaml").read_text())
    (folder / "config/config.yaml").write_text(
        yaml.safe_dump(SUITE | {"protocols": {**toy["protocols"], **SUITE["protocols"]}}, sort_keys=False)
    )
    head, *rows = (folder / "config/models.tsv").read_text().splitlines()
    row = next(row for row in rows if row.startswith("toy-simclr\t"))
    (folder / "config/models.tsv").write_text(f"{head}\n{row.replace('toy,toy-v1', 'device')}\n")
    with (folder / "config/datasets.tsv").open("a") as table:
        table.write("photographs\tPhotographs\timages\t\tgenerated:photographs\t6\t0\t0\t6\t\t\n")
    return folder


@pytest.mark.slow
def test_every_protocol_runs_on_a_gpu_and_finds_the_same_features(tmp_path, monkeypatch):
    for name in device.GRANTS:
        monkeypatch.delenv(name, raising=False)
    cpu, gpu = prepare(tmp_path / "cpu"), prepare(tmp_path / "gpu")
    program = tmp_path / "bin/nvidia-smi"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "GPU 0: pretended (UUID: GPU-a)"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    monkeypatch.setenv("PYTHONPATH", str(FOLDER))
    succeed(gpu, "--keep-going")
    scores = sorted((gpu / "results/scores").rglob("*.json"))
    assert {path.parts[-3] for path in scores} == set(SUITE["tasks"])
    for path in scores:
        assert json.loads(path.read_text())["cost"]["device"] == "cuda", path

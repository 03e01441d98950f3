"""Every protocol on a pretended GPU, which refuses what CUDA refuses (tests/pretend_gpu): no GPU is needed."""

import copy
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
import yaml
from PIL import Image

from ssltransfer import device
from ssltransfer.checkpoints.imagenet_head import imagenet_top1
from ssltransfer.models.resnet import build_resnet
from ssltransfer.precision import computing_in
from ssltransfer.protocols.inversion.image_similarity import LpipsDistance
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


def test_gradients_of_narrow_maps_are_not_unset_memory_there(gpu):
    """As they would be in bfloat16 on a CPU, which computes for the pretended GPU."""
    torch.manual_seed(0)
    convolution, images = torch.nn.Conv2d(32, 32, 3, 2, 1).to("cuda"), torch.randn(32, 32, 1, 1).to("cuda")
    gradients = {}
    for _ in range(5):
        junk = [torch.full((10**power,), torch.nan) for power in range(3, 7)]
        del junk
        for precision in ("float32", "bfloat16"):
            with computing_in(precision, torch.device("cuda")):
                output = convolution(images)
            output.float().square().sum().backward()
            gradients[precision], convolution.weight.grad = convolution.weight.grad.cpu(), None
        assert (gradients["bfloat16"] - gradients["float32"]).norm() < 0.02 * gradients["float32"].norm()


def test_the_accuracy_of_a_published_classifier_is_the_same_there(gpu, tmp_path):
    random = np.random.default_rng(0)
    for name in ("n01", "n02"):
        (tmp_path / name).mkdir()
        Image.fromarray(random.integers(0, 256, (260, 280, 3), np.uint8)).save(tmp_path / name / "a.png")
    head = torch.randn(2, 128, generator=torch.Generator().manual_seed(0)), torch.zeros(2)
    backbone = build_resnet("resnet-1x1x1x1-w4", seed=0).eval()
    here, there = (
        imagenet_top1(backbone, head, tmp_path, "imagenet", torch.device(name), 1, 2) for name in ("cpu", "cuda")
    )
    assert here == there and gpu.calls > 10


def test_lpips_distances_are_the_same_there(gpu, tmp_path):
    torch.manual_seed(0)
    features = torchvision.models.squeezenet1_1(weights=None).features.state_dict()
    torch.save({f"features.{name}": value for name, value in features.items()}, tmp_path / "trunk.pth")
    images = np.random.default_rng(0).random((2, 1, 64, 64, 3))
    here, there = (LpipsDistance("squeezenet", tmp_path / "trunk.pth", name)(*images) for name in ("cpu", "cuda"))
    np.testing.assert_allclose(here, there, rtol=1e-5)
    assert gpu.calls > 10


@pytest.mark.slow
def test_the_benchmark_runs_to_its_end(tmp_path):
    """At its smallest size, with each table."""
    script = Path(__file__).parents[1] / "benchmarks/gpu.py"
    words = "--small", "--seconds", "3600", "--output", tmp_path / "gpu.md"
    subprocess.run([sys.executable, script, *words], check=True)
    page = (tmp_path / "gpu.md").read_text()
    assert re.findall(r"^## (\w+)", page, re.MULTILINE) == [
        "Frozen",
        "Training",
        "Properties",
        "Linear",
        "Repeatability",
        "Tests",
    ]
    assert not re.search("nan|inf", page.partition("Linear")[2])
    assert not re.search("left out|does not fit|failed|error", page) and re.search(r"`: \d+ passed", page)


# Every kind that computes with a network, at the smallest sizes; each runs in float32 and in bfloat16.
NETWORKS = {
    "linear": {"transform": "resize16"},
    "knn": {"transform": "resize16", "neighbours": [5]},
    "estimators": {"transform": "resize16", "neighbour_images": 300, "geometry_images": 200, "geometry_draws": 2},
    "finetune": {
        "transform": "resize16", "schedule": {"steps": 4, "batch_size": 32},
        "grid": {"augmentations": ["crop-flip"], "learning_rates": [0.1, 0.01], "weight_decays": [0]},
    },
    "normals": {
        "targets": "kmeans", "sides": {"train": [48], "test": 64}, "network": {"channels": 8},
        "schedule": {"batch_size": 4, "epochs": 1, "epoch_steps": 4},
    },
    "segmentation": {
        "sides": {"train": [64], "test": [64]}, "network": {"channels": 8}, "schedule": {"batch_size": 4, "steps": 4},
    },
    "detection": {
        "backend": "torchvision", "frozen": "none", "sides": {"train": [64], "test": 64, "longest": 64},
        "schedule": {"batch_size": 4, "steps": 4, "milestones": [3], "warmup": 1},
        "network": {"channels": 8, "hidden": 8, "anchors": [12, 20, 32, 44, 60], "proposals": [20, 20, 10]},
    },
}  # fmt: skip
DENSE = ("normals", "segmentation", "detection")
FEW_IMAGES = ("inversion", "attention")
PROTOCOLS = {
    f"gpu-{kind}-{precision}": {"kind": kind, "precision": precision, **settings}
    for kind, settings in NETWORKS.items()
    for precision in ("float32", "bfloat16")
} | {
    "gpu-linear-tf32": {"kind": "linear", "precision": "tf32", **NETWORKS["linear"]},
    "gpu-finetune-tf32": {"kind": "finetune", "precision": "tf32", **NETWORKS["finetune"]},
    **{
        f"gpu-inversion-{precision}": {
            "kind": "inversion", "transform": "resize32", "canvas": 32, "steps": 4, "lpips": [], "precision": precision,
            "network": {"channels": [4, 4], "kernels": [3, 3], "skip": 2, "inputs": 4},
        }
        for precision in ("float32", "bfloat16")
    },
    "gpu-attention": {"kind": "attention", "size": 32, "mask": 8, "stride": 8},
}  # fmt: skip
# A vision transformer of timm, and where its way through the library is another than a ResNet's.
VIT = "timm:vit_tiny_patch16_224(depth=2,embed_dim=48,num_heads=3)"
VIT_TASKS = ("linear-float32", "finetune-bfloat16", "normals-bfloat16", "segmentation-bfloat16", "detection-bfloat16")
VIT_TASKS = (*(f"gpu-{task}" for task in VIT_TASKS), "gpu-attention")
# A job of every kind on one model.
SUITE = {
    "suite": "device",
    "models": "config/models.tsv",
    "datasets": "config/datasets.tsv",
    "pretraining": "config/pretraining.yaml",
    "tasks": {task: ["digits"] for task in ("toy-labels", "toy-fewshot", "toy-calibration", "toy-finetune-calibration")}
    | {
        name: ["shapes" if protocol["kind"] in DENSE else "photographs" if protocol["kind"] in FEW_IMAGES else "digits"]
        for name, protocol in PROTOCOLS.items()
    },
    "protocols": PROTOCOLS,
}


def prepare(folder):
    """A working directory with this suite, for a model, a transformer, and a model that is pretrained in bfloat16."""
    workspace(folder)
    toy = yaml.safe_load((folder / "config/config.yaml").read_text())
    (folder / "config/config.yaml").write_text(
        yaml.safe_dump(SUITE | {"protocols": {**toy["protocols"], **SUITE["protocols"]}}, sort_keys=False)
    )
    head, *rows = (folder / "config/models.tsv").read_text().splitlines()
    models = "\n".join([head, *(row for row in rows if not row.startswith("toy-supervised"))])
    models = models.replace("toy,toy-v1", "device").replace("measured:", "measured:gpu-linear-float32/")
    models = models.replace("pretrain:toy-random", "pretrain:toy-bfloat16")
    vit = f"vit\tViT\tnone\t{VIT}\tpretrain:toy-random\t\t\timagenet\t\tdevice\tMIT\t"
    (folder / "config/models.tsv").write_text(f"{models}\n{vit}\n")
    with (folder / "config/pretraining.yaml").open("a") as recipes:
        recipes.write("\ntoy-bfloat16:\n  <<: *toy\n  method: byol\n  precision: bfloat16\n")
        recipes.write("  head: {hidden: 32, output: 16, momentum: 0.9}\n")
    with (folder / "config/datasets.tsv").open("a") as table:
        table.write("photographs\tPhotographs\timages\t\tgenerated:photographs\t6\t0\t0\t6\t\t\n")
    return folder


@pytest.mark.gpu
@pytest.mark.slow
def test_every_protocol_runs_on_a_gpu(tmp_path, monkeypatch):
    folder = prepare(tmp_path)
    if not torch.cuda.is_available():  # otherwise on the real one
        program = tmp_path / "bin/nvidia-smi"
        program.parent.mkdir()
        program.write_text('#!/bin/sh\necho "GPU 0: pretended (UUID: GPU-a)"\n')
        program.chmod(0o755)
        for name in device.GRANTS:
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("PATH", str(program.parent), prepend=":")
        monkeypatch.setenv("PYTHONPATH", str(FOLDER))
    scores = [f"results/scores/{task}/toy-simclr/{sets[0]}.json" for task, sets in SUITE["tasks"].items()]
    succeed(
        folder,
        *scores,
        *(f"results/scores/{task}/vit/{SUITE['tasks'][task][0]}.json" for task in VIT_TASKS),
        *(f"results/similarity/digits/gpu-estimators-{name}.device.json" for name in ("float32", "bfloat16")),
        "--keep-going",
    )
    used = {}
    for path in sorted((folder / "logs").rglob("*.log")):
        if devices := re.findall(r"on the (CPU|GPU)", path.read_text()):
            used[path.relative_to(folder / "logs").parts[0]] = set(devices)
    assert set(used) == {
        "pretrain_model", "extract_features", "find_neighbours", "compare_representations", "evaluate_linear",
        "evaluate_label_efficiency", "evaluate_finetune", "evaluate_estimators", "invert_features",
        "evaluate_inversion", "evaluate_attention", "train_normals", "evaluate_normals", "train_segmentation",
        "evaluate_segmentation", "train_detector",
    }  # fmt: skip
    assert set().union(*used.values()) == {"GPU"}

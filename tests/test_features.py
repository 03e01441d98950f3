import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from ssltransfer.array_backend import NUMPY
from ssltransfer.datasets.index import Index
from ssltransfer.errors import InputError
from ssltransfer.evaluation.measuring import measure
from ssltransfer.files import write_json
from ssltransfer.jobs import JobUsage
from ssltransfer.models.backbone_file import build_backbone
from ssltransfer.models.feature_file import Features, load_features, read_features
from ssltransfer.models.features import describe_features, extract_features
from ssltransfer.models.fusion import fuse_conv_bn, optimise_for_inference
from ssltransfer.models.input_norm import normalise
from ssltransfer.models.resnet import ResNet, build_resnet
from ssltransfer.results.tensor_file import save_tensors
from ssltransfer.settings import complete

ARCH = "resnet-1x1x1x1-w4"
CPU = torch.device("cpu")


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (11, 32, 32, 3), dtype=np.uint8)


def backbone():
    return build_resnet(ARCH, seed=0).eval()


def test_features_equal_the_plain_forward_pass(tmp_path, images):
    extract_features(backbone(), images, "imagenet", tmp_path / "f.npy", CPU)
    features = load_features(tmp_path / "f.npy", 11)
    with torch.inference_mode():
        expected = backbone()(normalise(torch.from_numpy(images), "imagenet"))
    np.testing.assert_allclose(features, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_features_say_where_they_come_from(tmp_path):
    save_tensors(backbone().state_dict(), tmp_path / "m.safetensors", {"source": "x", "files": '{"a": "0"}'})
    cell = {"model": "m", "dataset": "d", "transform": "resize32", "norm": "none"}
    found = describe_features(cell, 11, tmp_path / "m.safetensors", CPU, JobUsage())
    assert list(found) == [*cell, "images", "checkpoint", "device", "versions", "cost"]
    assert found["checkpoint"] == {"source": "x", "files": {"a": "0"}} and found["images"] == 11
    assert "precision" not in found
    reduced = describe_features(cell | {"precision": "bfloat16"}, 11, tmp_path / "m.safetensors", CPU, JobUsage())
    assert reduced["precision"] == reduced["checkpoint"]["precision"] == "bfloat16"
    used = set(found["versions"]) - {"timm"}  # which tests before may have imported
    assert used == {"python", "torch", "numpy"} and "seconds" in found["cost"]


@pytest.mark.parametrize("network", ["resnet", "timm:vit_tiny_patch16_224"])
def test_reduced_precision_is_close_and_none_changes_the_global_state(tmp_path, images, network):
    model = backbone() if network == "resnet" else build_backbone(network, size=32).eval()
    for precision in ("float32", "tf32", "bfloat16"):
        extract_features(model, images, "imagenet", tmp_path / f"{precision}.npy", CPU, precision)
    exact, same, near = (load_features(tmp_path / f"{p}.npy", 11) for p in ("float32", "tf32", "bfloat16"))
    np.testing.assert_allclose(same, exact, rtol=1e-5, atol=1e-6 * np.abs(exact).max())  # a CPU knows no tf32
    difference = np.linalg.norm(near - exact, axis=1) / np.linalg.norm(exact, axis=1)
    assert (difference > 1e-5).all() and (difference < 0.02).all()
    assert not torch.is_autocast_enabled("cpu") and not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize(
    ("named", "device", "expected"),
    [("bfloat16", "cpu", "bfloat16"), ("tf32", "cuda", "tf32"), ("tf32", "cpu", "float32"), (None, "cpu", "float32")],
)
def test_features_that_are_read_have_the_precision_they_were_computed_in(tmp_path, images, named, device, expected):
    extract_features(backbone(), images, "imagenet", tmp_path / "f.npy", CPU)
    about = {"norm": "imagenet", "checkpoint": {}, "device": device} | ({"precision": named} if named else {})
    write_json(tmp_path / "f.json", about)
    assert read_features([str(tmp_path / "f.npy")], 11)["imagenet"].precision == expected


@pytest.mark.parametrize("kind", ["linear", "knn", "fewshot", "estimators"])
def test_scores_have_the_precision_of_their_features(kind):
    labels = [0, 1] * 40
    index = Index([f"{row}" for row in range(80)], ["train"] * 60 + ["test"] * 20, labels, ["a", "b"])
    values = np.random.default_rng(0).normal(size=(80, 4)).astype(np.float32)
    block = complete({"kind": kind, "precision": "bfloat16"} | ({"shots": [1], "ways": 2} if kind == "fewshot" else {}))
    features = {"imagenet": Features(values, {"source": "x"}, "bfloat16")}
    assert measure(features, index, "x", "top1", block, NUMPY).precision == "bfloat16"


def test_a_precision_that_the_caller_has_set_is_no_error_and_comes_back():
    """In a process of its own, because torch's two interfaces cannot be unmixed."""
    program = """
import torch
from ssltransfer.evaluation.measuring import computing_as_jobs
from ssltransfer.precision import computing_in
cuda = torch.device("cuda")
matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
plain = matmul.allow_tf32, cudnn.allow_tf32, matmul.fp32_precision, cudnn.conv.fp32_precision
for context in (lambda: computing_in("tf32", cuda), lambda: computing_as_jobs(cuda)):
    with context():
        pass
    assert plain == (matmul.allow_tf32, cudnn.allow_tf32, matmul.fp32_precision, cudnn.conv.fp32_precision)
matmul.fp32_precision, cudnn.conv.fp32_precision = "tf32", "ieee"
for context, inside in ((lambda: computing_in("tf32", cuda), True), (lambda: computing_as_jobs(cuda), False)):
    with context():
        assert matmul.allow_tf32 == cudnn.allow_tf32 == inside
    assert (matmul.fp32_precision, cudnn.conv.fp32_precision) == ("tf32", "ieee")
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_float32_is_float32_whatever_a_network_asks_for():
    """Also where its code asks while it computes, for all that comes after."""
    program = """
import torch
from ssltransfer.precision import computing_in
cuda = torch.device("cuda")
matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
torch.set_float32_matmul_precision("high")
cudnn.allow_tf32 = True
for precision in ("float32", "bfloat16"):
    with computing_in(precision, cuda):
        assert not matmul.allow_tf32 and not cudnn.allow_tf32 and torch.get_float32_matmul_precision() == "highest"
        assert "tf32" not in (matmul.fp32_precision, cudnn.conv.fp32_precision)
        torch.set_float32_matmul_precision("high")
    assert matmul.allow_tf32 and cudnn.allow_tf32 and torch.get_float32_matmul_precision() == "high"
    assert matmul.fp32_precision == cudnn.conv.fp32_precision == "tf32"
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("ask", ["torch.backends", "torch.backends.cudnn", "torch.backends.cudnn.conv"])
def test_float32_is_float32_whatever_is_asked_for_by_the_newer_interface(ask):
    program = f"""
import torch
from ssltransfer.precision import computing_in
cudnn = torch.backends.cudnn
parts = torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn
torch.backends.cuda.matmul.allow_tf32 = cudnn.allow_tf32 = False  # as `choose_device`
{ask}.fp32_precision = "tf32"
before = [part.fp32_precision for part in parts]
assert "tf32" in before
for precision, inside in (("float32", "ieee"), ("bfloat16", "ieee"), ("tf32", "tf32")):
    with computing_in(precision, torch.device("cuda")):
        assert [part.fp32_precision for part in parts] == 3 * [inside]
        torch.backends.fp32_precision = "bf16"
    assert [part.fp32_precision for part in parts] == before
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("arch", [ARCH, "resnet-1x2x1x1-w8", f"{ARCH}-same", f"{ARCH}-samepool"])
@pytest.mark.parametrize("faster", [fuse_conv_bn, optimise_for_inference])
def test_faster_forms_compute_the_same(faster, arch):
    plain = build_resnet(arch, seed=0).eval()
    generator = torch.Generator().manual_seed(0)
    for module in plain.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            nn.init.uniform_(module.weight, 0.5, 2, generator=generator)
            nn.init.normal_(module.bias, generator=generator)
    state = {name: tensor.clone() for name, tensor in plain.state_dict().items()}
    for size in (32, 49):
        x = torch.rand(3, 3, size, size, generator=generator)
        with torch.inference_mode():
            torch.testing.assert_close(faster(plain)(x), plain(x), rtol=1e-4, atol=1e-4)
    assert all(torch.equal(state[name], tensor) for name, tensor in plain.state_dict().items())


def test_a_cpu_uses_its_own_layout():
    if not torch.backends.mkldnn.is_available():
        pytest.skip("torch was built without oneDNN")
    assert not isinstance(optimise_for_inference(backbone()), ResNet)
    assert isinstance(optimise_for_inference(build_resnet(f"{ARCH}-same")), ResNet)


@pytest.mark.parametrize("batch_size", [1, 4, 11])
def test_batch_size_does_not_matter(tmp_path, images, batch_size):
    extract_features(backbone(), images, "none", tmp_path / "a.npy", CPU)
    extract_features(backbone(), images, "none", tmp_path / "b.npy", CPU, batch_size=batch_size)
    np.testing.assert_allclose(np.load(tmp_path / "a.npy"), np.load(tmp_path / "b.npy"), rtol=1e-4, atol=1e-5)


def test_gpu_equals_cpu(tmp_path, images, any_gpu):
    extract_features(backbone(), images, "imagenet", tmp_path / "cpu.npy", CPU)
    extract_features(backbone(), images, "imagenet", tmp_path / "gpu.npy", any_gpu)
    np.testing.assert_allclose(np.load(tmp_path / "gpu.npy"), np.load(tmp_path / "cpu.npy"), rtol=1e-3, atol=1e-4)


def test_features_that_are_not_finite_are_refused(tmp_path, images):
    broken = backbone()
    broken.bn1.weight.data[0] = float("nan")
    with pytest.raises(InputError, match="not finite; is the checkpoint sound"):
        extract_features(broken, images, "none", tmp_path / "f.npy", CPU)
    assert not list(tmp_path.iterdir())


def test_unfit_feature_files_are_refused(tmp_path):
    path = tmp_path / "f.npy"
    np.save(path, np.zeros((5, 3), np.float32))
    with pytest.raises(InputError, match=r"f\.npy: 5 rows, but the index has 6"):
        load_features(path, 6)
    np.save(path, np.zeros((5, 3)))
    with pytest.raises(InputError, match="found float64"):
        load_features(path, 5)
    np.save(path, np.full((5, 3), np.nan, np.float32))
    with pytest.raises(InputError, match="not finite"):
        load_features(path, 5)

import pickle

import pytest
import torch
from safetensors.torch import save_file

from ssltransfer.backbones import build_backbone
from ssltransfer.checkpoints.backbone_file import load_backbone, read_provenance, save_backbone
from ssltransfer.checkpoints.convert import convert, sha256_of
from ssltransfer.checkpoints.fetch import fetch, resolve
from ssltransfer.errors import InputError

ARCH = "resnet-1x1x1x1-w4"


@pytest.fixture
def published(tmp_path):
    """A file as torchvision publishes it: a flat state dict with a classifier."""
    state = build_backbone(ARCH, seed=0).state_dict()
    path = tmp_path / "published.pth"
    torch.save(state | {"fc.weight": torch.zeros(10, 128), "fc.bias": torch.zeros(10)}, path)
    return path


def test_convert_keeps_the_forward_pass(tmp_path, published):
    output = tmp_path / "out.safetensors"
    convert([published], "torchvision", ARCH, output, {"source": "here"})
    x = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(load_backbone(output, ARCH)(x), build_backbone(ARCH, seed=0).eval()(x))
    assert read_provenance(output) == {"source": "here", "sha256": sha256_of(published)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: s.pop("layer3.0.conv2.weight"),
            "1 tensors of .* are missing, first layer3.0.conv2.weight",
        ),
        (lambda s: s.update({"layer5.weight": torch.zeros(1)}), "do not belong .* first layer5.weight"),
        (lambda s: s.update({"bn1.bias": torch.zeros(7)}), r"bn1.bias has shape \(7,\)"),
        (lambda s: s["bn1.bias"].fill_(float("inf")), "bn1.bias holds values that are not finite"),
        (lambda s: [s.pop(k) for k in list(s)] and s.update({"state_dict": {}}), "expected a flat dict"),
    ],
)
def test_unfit_state_dicts_are_refused(tmp_path, published, change, message):
    state = torch.load(published, weights_only=True)
    change(state)
    torch.save(state, published)
    with pytest.raises(InputError, match=message):
        convert([published], "torchvision", ARCH, tmp_path / "out.safetensors", {})
    assert not (tmp_path / "out.safetensors").exists()


class Hostile:
    def __reduce__(self):
        return open, ("pwned", "w")


def test_files_run_no_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, write in {
        "zip.pth": lambda path: torch.save({"a": Hostile()}, path),
        "plain.pth": lambda path: path.write_bytes(pickle.dumps(Hostile())),
        "cut.pth": lambda path: path.write_bytes(b"PK\x03\x04 cut"),
    }.items():
        write(tmp_path / name)
        with pytest.raises(InputError, match="cannot be read as a torch file of plain tensors"):
            convert([tmp_path / name], "torchvision", ARCH, tmp_path / "out", {})
    assert not (tmp_path / "pwned").exists()


def test_damaged_or_foreign_backbone_files_are_refused(tmp_path):
    path = tmp_path / "b.safetensors"
    save_backbone(build_backbone(ARCH).state_dict(), path, {})
    with pytest.raises(InputError, match="layer1.0.bn1.bias has shape|conv1.weight has shape|has shape"):
        load_backbone(path, "resnet-1x1x1x1-w8")
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InputError, match="not a readable safetensors file"):
        load_backbone(path, ARCH)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="are missing"):
        load_backbone(path, ARCH)


def test_fetch_a_local_file(tmp_path, published):
    fetch(f"file:{published}", sha256_of(published), tmp_path / "folder")
    assert (tmp_path / "folder" / "published.pth").read_bytes() == published.read_bytes()
    with pytest.raises(InputError, match="sha256 is .*, config/models.tsv says 0000"):
        fetch(f"file:{published}", "0" * 64, tmp_path / "folder")
    assert not list((tmp_path / "folder").iterdir())
    with pytest.raises(InputError, match="is no file"):
        fetch(f"file:{tmp_path}/none.pth", "", tmp_path / "folder")


def test_fetch_without_network_says_where_to_place_the_file(tmp_path):
    with pytest.raises(InputError, match=r"http://127\.0\.0\.1:9/w\.pth cannot be fetched .*place it at .*w\.pth"):
        fetch("http://127.0.0.1:9/w.pth", "", tmp_path)
    (tmp_path / "w.pth").write_bytes(b"weights")
    fetch("http://127.0.0.1:9/w.pth", sha256_of(tmp_path / "w.pth"), tmp_path)


def test_torchvision_names():
    assert resolve("torchvision:ResNet50_Weights.IMAGENET1K_V1").startswith("https://")
    with pytest.raises(InputError, match="torchvision has no weights of that name"):
        resolve("torchvision:ResNet51_Weights.V1")

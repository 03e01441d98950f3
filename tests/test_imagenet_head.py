import numpy as np
import pytest
import torch
from PIL import Image

from ssltransfer.checkpoints.imagenet_head import _evaluation_crop, class_folders, imagenet_top1, read_head, verify
from ssltransfer.checkpoints.listing import list_checkpoints
from ssltransfer.checkpoints.torch_file import read_classifier
from ssltransfer.errors import InputError
from ssltransfer.models.input_norm import normalise
from ssltransfer.models.resnet import build_resnet
from ssltransfer.results.tensor_file import save_tensors

ARCH = "resnet-1x1x1x1-w4"


@pytest.fixture
def folder(tmp_path):
    """Three classes of two images each."""
    rng = np.random.default_rng(0)
    for name in ("n01", "n02", "n03"):
        (tmp_path / "val" / name).mkdir(parents=True)
        for i in range(2):
            pixels = rng.integers(0, 256, (260 + 20 * i, 280, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "val" / name / f"{i}.png")
    return tmp_path / "val"


def test_crop_is_torchvisions(folder):
    from torchvision.transforms import CenterCrop, Compose, Resize

    path = folder / "n01" / "1.png"
    expected = Compose([Resize(256), CenterCrop(224)])(Image.open(path))
    assert np.array_equal(_evaluation_crop(path), np.asarray(expected))


def test_top1(folder):
    backbone = build_resnet(ARCH, seed=0).eval()
    head = torch.randn(3, 128, generator=torch.Generator().manual_seed(0)), torch.zeros(3)
    crops = np.stack([_evaluation_crop(path) for path in sorted(folder.rglob("*.png"))])
    with torch.inference_mode():
        predictions = (backbone(normalise(torch.from_numpy(crops), "imagenet")) @ head[0].T).argmax(dim=1).numpy()
    expected = 100 * np.mean(predictions == [0, 0, 1, 1, 2, 2])
    for batch_size in (1, 4):
        top1, count = imagenet_top1(backbone, head, folder, "imagenet", torch.device("cpu"), 2, batch_size)
        assert (top1, count) == (pytest.approx(expected), 6)


def test_numbered_class_folders_are_in_the_order_of_their_numbers(tmp_path):
    """Sorted as text, 10 comes before 2: every class but a few has another label, and the accuracy is near 0."""
    for names in ([str(k) for k in range(12)], [f"{k:04}" for k in range(12)], [f"n{k:08}" for k in range(0, 120, 10)]):
        root = tmp_path / names[1]
        for name in names:
            (root / name).mkdir(parents=True)
        assert [entry.name for entry in class_folders(root)] == names
    (root / ".ipynb_checkpoints").mkdir()
    assert [entry.name for entry in class_folders(root)] == names
    (root / "tench").mkdir()
    with pytest.raises(InputError, match="must be named n01440764"):
        class_folders(root)


def test_a_checkpoint_is_verified_with_an_embedded_or_a_separate_classifier(folder, tmp_path, caplog):
    state = build_resnet(ARCH, seed=0).state_dict()
    weight, bias = torch.randn(3, 128, generator=torch.Generator().manual_seed(0)), torch.zeros(3)
    torch.save(state | {"fc.weight": weight, "fc.bias": bias}, tmp_path / "whole.pth")
    torch.save({"weight": weight, "bias": bias}, tmp_path / "head.pth")
    torch.save(state, tmp_path / "plain.pth")
    save_tensors(state, tmp_path / "m.safetensors", {})
    results = [
        verify("m", tmp_path / "m.safetensors", ARCH, head, 40.0, folder, "imagenet", torch.device("cpu"))
        for head in (
            read_head([tmp_path / "whole.pth"], True, "torchvision", ARCH, "m"),
            read_head([tmp_path / "head.pth"], False, "torchvision", ARCH, "m"),
        )
    ]
    assert results[0] == results[1] and results[0]["images"] == 6
    assert results[0]["difference"] == pytest.approx(results[0]["top1"] - 40)
    assert "order" not in caplog.text
    head = (weight[:, :], torch.tensor([0.0, 0.0, 1e9]))  # always the last class
    (folder / "n03").rename(folder / "n00")
    verify("m", tmp_path / "m.safetensors", ARCH, head, 90.0, folder, "imagenet", torch.device("cpu"))
    assert "order" not in caplog.text
    for path in (folder / "n02").iterdir():
        path.unlink()
    verify("m", tmp_path / "m.safetensors", ARCH, head, 90.0, folder, "imagenet", torch.device("cpu"))
    assert "the order of the class folders" in caplog.text and str(folder) in caplog.text
    with pytest.raises(InputError, match=r"m: .*heads\.tsv"):
        read_head([tmp_path / "plain.pth"], True, "torchvision", ARCH, "m")


def test_wrong_folders_are_one_line(folder):
    backbone, head = build_resnet(ARCH).eval(), (torch.zeros(5, 128), torch.zeros(5))
    with pytest.raises(InputError, match="has 3 class folders, the classifier 5 classes"):
        imagenet_top1(backbone, head, folder, "none", torch.device("cpu"))
    with pytest.raises(InputError, match="has 0 class folders"):
        imagenet_top1(backbone, head, folder / "none", "none", torch.device("cpu"))
    (folder.parent / "empty" / "n01").mkdir(parents=True)
    with pytest.raises(InputError, match="hold no images"):
        imagenet_top1(backbone, (head[0][:1], head[1][:1]), folder.parent / "empty", "none", torch.device("cpu"))


def test_only_decoders_of_usual_formats_are_used(folder):
    Image.new("RGB", (300, 300)).save(folder / "n02" / "9.png", "EPS")
    backbone, head = build_resnet(ARCH).eval(), (torch.zeros(3, 128), torch.zeros(3))
    with pytest.raises(InputError, match=r"n02/9\.png"):
        imagenet_top1(backbone, head, folder, "none", torch.device("cpu"))


def test_classifiers_published_apart(tmp_path):
    weight, bias = torch.randn(10, 128), torch.randn(10)
    swav = {"epoch": 100, "state_dict": {"module.linear.weight": weight, "module.linear.bias": bias}}
    pycontrast = {"classifier": {"module.fc.weight": weight, "module.fc.bias": bias}, "epoch": 60}
    for content in (swav, pycontrast, {"weight": weight, "bias": bias}):
        torch.save(content, tmp_path / "head.pth")
        found = read_classifier(tmp_path / "head.pth")
        assert torch.equal(found[0], weight)
        assert torch.equal(found[1], bias)
    torch.save({"a.weight": weight, "a.bias": bias, "b.weight": weight, "b.bias": bias}, tmp_path / "head.pth")
    with pytest.raises(InputError, match="found 2 pairs"):
        read_classifier(tmp_path / "head.pth")


def test_listing(tmp_path):
    path = tmp_path / "swav.safetensors"
    provenance = {"source": "https://a/b https://c/d", "files": '{"b": "0123456789abcdef"}', "left_out": "9"}
    save_tensors(build_resnet(ARCH).state_dict(), path, provenance | {"forward": '{"mean": 0.5, "std": 1.0}'})
    row = ["swav", "https://a/b", "0123456789ab", "102", "9", "finite, mean 0.500"]
    assert list_checkpoints([path], {}, [])[1] == [*row, "no published classifier"]
    assert list_checkpoints([path], {}, ["swav"])[1][-1] == "not measured: imagenet_val is not set"
    verified = {"swav": {"top1": 75.21, "published": 75.3}}
    assert list_checkpoints([path], verified, ["swav"])[1][-1] == "75.21 (published 75.3)"
    shuffled = {"swav": {"top1": 0.11, "published": 75.3}}
    assert list_checkpoints([path], shuffled, ["swav"])[1][-1] == (
        "0.11 (published 75.3, near chance: order of the classes?)"
    )

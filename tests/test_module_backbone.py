"""Networks of a user's own code: what their output means, how they are converted, and what is refused in one line."""

import json
import textwrap

import numpy as np
import pytest
import torch
from torch import nn

from ssltransfer.checkpoints.convert import convert
from ssltransfer.checkpoints.fetch import fetch
from ssltransfer.errors import InputError
from ssltransfer.models.backbone_file import build_backbone, expected_state, load_backbone
from ssltransfer.models.module_backbone import ModuleBackbone
from ssltransfer.models.user_code import code_hash
from ssltransfer.results.tensor_file import save_tensors
from ssltransfer.results.tensor_header import decode_metadata, read_provenance

SIDE = 16
IMAGES = torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))

CODE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.stem = nn.Conv2d(3, 4, 4, stride=4)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, images):
        return self.norm(self.stem(images)).mean(dim=(2, 3))

def make():
    return Net()
"""


class Grid(nn.Module):
    """A convolution whose output is a map, or patch tokens behind some others."""

    def __init__(self, prefix=None):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 4, stride=4)
        if prefix is not None:
            self.prefix_tokens = prefix
            self.tokens = nn.Parameter(torch.randn(1, prefix, 5))

    def forward(self, images):
        output = self.conv(images)
        if not hasattr(self, "prefix_tokens"):
            return output
        patches = output.flatten(2).transpose(1, 2)
        return torch.cat([self.tokens.expand(len(images), -1, -1), patches], dim=1)


class Pyramid(Grid):
    """A module with the whole interface."""

    strides = (4, 8)

    def pooled(self, images):
        return self.conv(images).amax(dim=(2, 3))

    def maps(self, images):
        fine = self.conv(images)
        return [fine, nn.functional.avg_pool2d(fine, 2)]


class Output(nn.Module):
    """A module with a given output."""

    def __init__(self, function, **attributes):
        super().__init__()
        self.function = function
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, images):
        return self.function(images)


@pytest.fixture
def code(tmp_path, monkeypatch):
    """A function that writes a user's file and returns the `arch` of its function `make`; paths are relative."""
    monkeypatch.chdir(tmp_path)

    def write(text=CODE):
        (tmp_path / "net.py").write_text(textwrap.dedent(text))
        return "python:net.py:make"

    return write


def params(arch, source_format="", **row):
    hashed = {"code": code_hash(arch.removeprefix("python:"))}
    return {"arch": arch, "format": source_format, "version": 1, "pool": "", "size": str(SIDE)} | hashed | row


def converted(tmp_path, arch, source="module:own", **row):
    """Fetch and convert as the jobs do; returns the path of the converted checkpoint."""
    manifest = fetch(source, "", tmp_path / "fetched", tmp_path / "pin.json")
    own = source == "module:own"
    state, provenance = convert(manifest, tmp_path / "fetched", params(arch, "" if own else "auto", **row), "my-net")
    save_tensors(state, tmp_path / "my-net.safetensors", provenance)
    return tmp_path / "my-net.safetensors"


def test_vectors_are_taken_as_they_are():
    backbone = ModuleBackbone(nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE**2, 7)).eval(), size=SIDE)
    assert (backbone.width, backbone.strides, backbone.channels) == (7, (), ())
    assert torch.equal(backbone.pooled(IMAGES), backbone.network(IMAGES))
    with pytest.raises(InputError, match=r"Sequential has no maps: .*leave the model out of this protocol"):
        backbone.maps(IMAGES)


def test_a_map_gives_its_mean():
    network = Grid().eval()
    backbone = ModuleBackbone(network, size=SIDE)
    assert (backbone.width, backbone.strides, backbone.channels) == (5, (4,), (5,))
    assert torch.equal(backbone(IMAGES), network(IMAGES).mean(dim=(2, 3)))
    assert torch.equal(backbone.maps(IMAGES)[0], network(IMAGES))


@pytest.mark.parametrize("prefix", [0, 1, 3])
def test_tokens_are_read_by_pool(prefix):
    network = Grid(prefix).eval()
    tokens = network(IMAGES)
    mean = tokens[:, prefix:].mean(dim=1)
    expected = {"mean": mean}
    if prefix:
        expected |= {"cls": tokens[:, 0], "cls-mean": torch.cat([tokens[:, 0], mean], dim=1)}
        expected[f"token-{prefix - 1}"] = tokens[:, prefix - 1]
    for pool, vectors in expected.items():
        backbone = ModuleBackbone(network, pool, SIDE)
        assert backbone.width == vectors.shape[1] and torch.equal(backbone(IMAGES), vectors)
        assert torch.equal(backbone.maps(IMAGES)[0], network.conv(IMAGES)) and backbone.strides == (4,)
    with pytest.raises(InputError, match=f"has {prefix} tokens before its patches"):
        ModuleBackbone(network, f"token-{prefix}", SIDE)


def test_methods_of_the_interface_come_before_the_output():
    network = Pyramid().eval()
    backbone = ModuleBackbone(network, size=SIDE)
    assert torch.equal(backbone(IMAGES), network.pooled(IMAGES))
    assert (backbone.width, backbone.strides, backbone.channels) == (5, (4, 8), (5, 5))
    assert [tuple(found.shape) for found in backbone.maps(IMAGES)] == [(3, 5, 4, 4), (3, 5, 2, 2)]


def test_a_map_without_a_whole_stride_is_none():
    assert ModuleBackbone(nn.Conv2d(3, 5, 4, stride=3).eval(), size=SIDE).strides == ()


@pytest.mark.parametrize(
    ("network", "pool", "message"),
    [
        (Output(lambda x: (x.mean((2, 3)),)), "", r"the output is a tuple for 2 images, expected one tensor"),
        (Output(lambda x: {"x": x}), "", "the output is a dict"),
        (Output(lambda x: x.mean()), "", r"the output is \(\) for 2 images"),
        (Output(lambda x: x[:1].mean((2, 3))), "", r"the output is \(1, 3\) for 2 images"),
        (nn.Conv2d(4, 5, 3), "", r"Conv2d cannot process images \(2, 3, 16, 16\): RuntimeError: .*have 3 channels"),
        (nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), "", "one size only, write its side into the column size"),
        (Grid(1), "", r"pool: found '', but Grid gives the tokens \(2, 17, 5\)"),
        (Grid(1), "layers-2", "pool: found 'layers-2'"),
        (Grid(), "cls", r"pool: found 'cls', but Grid gives \(2, 5, 4, 4\), no tokens"),
        (Pyramid(), "mean", "expected .* an empty pool"),
        (Output(lambda x: x.flatten(2)), "mean", "prefix_tokens is None; set it to the number of tokens"),
        (Output(lambda x: x.flatten(2), prefix_tokens=3), "mean", "prefix_tokens is 3"),
        (Output(lambda x: x.mean((2, 3)), maps=lambda x: [x]), "", "strides is None for the maps .2, 3, 16, 16."),
        (Output(lambda x: x.mean((2, 3)), maps=lambda x: [x], strides=[2]), "", r"strides is \[2\] for the maps"),
    ],
)
def test_other_outputs_are_refused(network, pool, message):
    with pytest.raises(InputError, match=message) as error:
        ModuleBackbone(network.eval(), pool, SIDE)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def other(): pass", "net.py has no make; write the name of a function without arguments"),
        ("def make(): return 3", "returned a int, expected a torch.nn.Module"),
        ("def make(size): pass", "TypeError: make.* missing 1 required positional argument"),
        ("import nothing_of_this_name", "ModuleNotFoundError: No module named"),
        ("def make(:", "SyntaxError: "),
        ("raise SystemExit(0)", "SystemExit: 0"),
        ("import argparse; argparse.ArgumentParser().parse_args(['--epochs', '3'])", "SystemExit: 2"),
    ],
)
def test_code_that_makes_no_module_is_refused(code, caplog, text, message):
    with pytest.raises(InputError, match=f"^arch python:net.py:make: {message}") as error:
        build_backbone(code(text))
    assert "\n" not in str(error.value)
    assert "Error" not in message or "Traceback" in caplog.text


def test_a_missing_file_is_named(code):
    code()
    with pytest.raises(InputError, match=r"arch python:nets.py:make: nets.py is not a file; paths start in the folder"):
        build_backbone("python:nets.py:make")


@pytest.mark.parametrize(
    "ask", ["torch.set_float32_matmul_precision('medium')", "torch.backends.fp32_precision = 'bf16'"]
)
@pytest.mark.parametrize("when", ["read", "called"])
def test_code_does_not_choose_the_precision_of_float32(code, when, ask):
    arch = code(f"import torch\ndef make():\n    {ask}\n    return torch.nn.Conv2d(3, 6, 4, stride=4)\n")
    if when == "read":
        arch = code(f"import torch\n{ask}\ndef make(): return torch.nn.Conv2d(3, 6, 4, stride=4)\n")
    parts = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)
    before = [part.fp32_precision for part in parts]
    build_backbone(arch, size=SIDE)
    assert [part.fp32_precision for part in parts] == before
    assert torch.get_float32_matmul_precision() == "highest"


def test_code_finds_what_lies_beside_it(code, tmp_path):
    (tmp_path / "layers_of_mine.py").write_text("from torch import nn\nWIDTH = 6\n")
    arch = code(
        "from torch import nn\nfrom layers_of_mine import WIDTH\ndef make(): return nn.Conv2d(3, WIDTH, 4, stride=4)\n"
    )
    assert build_backbone(arch, size=SIDE).width == 6


def test_a_module_with_its_own_weights_is_converted_and_loaded(code, tmp_path):
    arch = code()
    plain = build_backbone(arch, size=SIDE)
    path = converted(tmp_path, arch)
    header = decode_metadata(read_provenance(path))
    assert header["source"] == "module:own" and header["files"] == {} and header["code"] == code_hash("net.py:make")
    assert header["network"] == {"width": 4, "strides": [], "channels": []}
    loaded = load_backbone(path, arch, size=SIDE)
    assert torch.equal(loaded(IMAGES), plain.eval()(IMAGES)) and not loaded.training
    assert list(expected_state(arch)) == list(loaded.tensors())


@pytest.mark.parametrize("prefix", ["", "module.backbone."])
def test_weights_of_a_file_are_read_strictly(code, tmp_path, prefix):
    arch = code()
    state = build_backbone(arch, size=SIDE).tensors()
    trained = {key: value + 1 for key, value in state.items()}
    file = tmp_path / "trained.pth"
    more = {"fc.weight": torch.zeros(2, 4), "epoch": 3}
    torch.save({prefix + key: value for key, value in trained.items()} | more, file)
    path = converted(tmp_path, arch, f"file:{file}")
    loaded = load_backbone(path, arch, size=SIDE)
    assert all(torch.equal(loaded.tensors()[key], value) for key, value in trained.items())
    header = read_provenance(path)
    assert header["prefix"] == prefix and header["left_out"] == "1" and json.loads(header["files"])


def test_weights_that_do_not_fit_are_refused(code, tmp_path):
    arch, file = code(), tmp_path / "trained.pth"
    state = build_backbone(arch, size=SIDE).tensors()
    for wrong, message in (
        ({"other.weight": torch.zeros(3)}, "no tensors look like python:net.py:make; found 'other.weight'"),
        ({k: v for k, v in state.items() if k != "norm.bias"}, "1 tensors of .* are missing, first norm.bias"),
        (state | {"stem.bias": torch.zeros(9)}, r"stem.bias has shape \(9,\), .* needs \(4,\)"),
        (state | {"stem.bias": torch.zeros(4, dtype=torch.float64)}, "stem.bias is torch.float64"),
        (state | {"stem.bias": torch.full((4,), torch.nan)}, "stem.bias holds values that are not finite"),
        ({f"a.{k}": v for k, v in state.items()} | {f"b.{k}": v + 1 for k, v in state.items()}, "auto:a. or auto:b."),
    ):
        torch.save(wrong, file)
        with pytest.raises(InputError, match=f"trained.pth.*{message}"):
            converted(tmp_path, arch, f"file:{file}")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("mean(dim=(2, 3))", "mean(dim=(2, 3)) + torch.rand(1)", "Net: two passes over the same images"),
        (
            "self.norm(",
            "nn.functional.batch_norm(training=True, running_mean=None, running_var=None, input=",
            "depend on",
        ),
        ("mean(dim=(2, 3))", "mean(dim=(2, 3)) / 0", "Net: features are not finite"),
        ("mean(dim=(2, 3))", "mean(dim=(2, 3)) * 0 + 1", "noise and a flat colour have the same features"),
        (
            "self.stem = nn.Conv2d(3, 4, 4, stride=4)",
            "self.stem = nn.Conv2d(3, 4, 4, stride=4).double()",
            "RuntimeError",
        ),
        ("return Net()", "net = Net(); net.train = lambda mode=True: net; return net", "modules are in training mode"),
        ("mean(dim=(2, 3))", "mean(dim=(2, 3)).double()", "Net: the output is torch.float64"),
        ("torch.manual_seed(1)", "torch.manual_seed(1); self.x = nn.Parameter(torch.tensor(torch.nan))", "not finite"),
    ],
)
def test_networks_that_are_not_frozen_are_refused(code, tmp_path, old, new, message):
    assert old in CODE
    with pytest.raises(InputError, match=message) as error:
        converted(tmp_path, code(CODE.replace(old, new)))
    assert "\n" not in str(error.value)


def test_one_tensor_may_have_two_names(code, tmp_path):
    arch = code(CODE.replace("self.norm =", "self.alias = self.stem\n        self.norm ="))
    path = converted(tmp_path, arch)
    assert torch.equal(load_backbone(path, arch, size=SIDE)(IMAGES), build_backbone(arch, size=SIDE).eval()(IMAGES))


def test_code_that_changed_since_the_conversion_is_refused(code, tmp_path):
    arch = code()
    path = converted(tmp_path, arch)
    old = params(arch)
    code(CODE + "\n# another line\n")
    with pytest.raises(InputError, match=r"net.py has changed since .*my-net.safetensors was made with it; restore it"):
        load_backbone(path, arch, size=SIDE)
    with pytest.raises(InputError, match="the file has changed while jobs ran"):
        convert({"files": []}, tmp_path, old, "my-net")


def test_random_weights_are_random_by_seed(code):
    arch = code("from torch import nn\ndef make(): return nn.Conv2d(3, 4, 4, stride=4)\n")
    one, same, other = (build_backbone(arch, size=SIDE, seed=seed)(IMAGES).detach().numpy() for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)

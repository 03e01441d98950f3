"""Checkpoints of unknown layout, as strangers save them: format `auto` reads them or says what to do."""

import argparse
import collections
import datetime
import gzip
import os
import pathlib
import pickle
import tarfile
import types
import zipfile

import numpy as np
import published_files as published
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from ssltransfer import safe_pickle
from ssltransfer.checkpoints.auto import find_places, flatten
from ssltransfer.checkpoints.convert import read_published
from ssltransfer.checkpoints.file_kind import file_kind
from ssltransfer.checkpoints.inspection import inspect_checkpoint
from ssltransfer.checkpoints.recognition import NUMBERED, recognise
from ssltransfer.checkpoints.torch_file import load_content
from ssltransfer.errors import InputError
from ssltransfer.models.architecture import backbone_shapes
from ssltransfer.models.resnet import build_resnet
from ssltransfer.safe_pickle import Foreign, InertUnpickler, is_foreign
from ssltransfer.torch_reader import read_torch_file

ARCH, FEATURES = "resnet-1x2x1x1-w4", 128
STATE = build_resnet(ARCH, seed=0).state_dict()
OTHER = build_resnet(ARCH, seed=1).state_dict()
P, LINEAR = published.prefixed, published.linear


def copied(state):
    return {name: tensor.clone() for name, tensor in state.items()}


def numbered(state):
    """As an `nn.Sequential` of the network's children names them."""
    children = [(name.partition("."), tensor) for name, tensor in state.items()]
    return {f"{NUMBERED[module]}.{rest}": tensor for (module, _, rest), tensor in children}


def lightning():
    class AttributeDict(dict):
        pass

    names = {"lightning.fabric.utilities.data.AttributeDict": AttributeDict}
    tensors = (
        P(STATE, "backbone.") | LINEAR("projection_head.0", 8, FEATURES) | LINEAR("online_classifier", 3, FEATURES)
    )
    return names, lambda: {
        "state_dict": tensors,
        "pytorch-lightning_version": "2.5",
        "hyper_parameters": AttributeDict(lr=0.1, root=pathlib.PosixPath("/data")),
        "optimizer_states": [published.trainer_extras(STATE)["optimizer"]],
        "callbacks": {"ModelCheckpoint{'monitor': 'loss'}": {"best_model_path": "x.ckpt"}},
    }


def configurations():
    class CfgNode(dict):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.frozen = True

    class DictConfig:
        def __init__(self):
            self._metadata, self._content = types.SimpleNamespace(ref_type=int), {"lr": 0.1}

    class Settings:
        __slots__ = ("epochs",)

        def __init__(self):
            self.epochs = 3

    class Meter(list):
        pass

    names = {
        "yacs.config.CfgNode": CfgNode,
        "omegaconf.dictconfig.DictConfig": DictConfig,
        "training.Settings": Settings,
        "training.Meter": Meter,
    }
    return names, lambda: {
        "model": STATE,
        "cfg": CfgNode({"model": CfgNode({"name": "r50"})}),
        "config": DictConfig(),
        "settings": Settings(),
        "meter": Meter([1, 2]),
        "history": collections.defaultdict(list, {"loss": [0.1]}),
    }


PLAIN = {
    "the state dict": (lambda: STATE, ""),
    "with a classifier": (lambda: STATE | LINEAR("fc", 10, FEATURES), ""),
    "in state_dict": (lambda: {"state_dict": STATE, "epoch": 3}, "state_dict."),
    "in model, with the optimizer": (lambda: published.trainer_extras(STATE) | {"model": STATE}, "model."),
    "in network": (lambda: {"network": STATE}, "network."),
    "in ema": (lambda: {"ema": STATE}, "ema."),
    "in teacher": (lambda: {"teacher": P(STATE, "backbone.")}, "teacher.backbone."),
    "deep": (lambda: {"a": {"b": [{"c": {"d": STATE}}]}}, "a.b.0.c.d."),
    "module.": (lambda: P(STATE | LINEAR("fc", 10, FEATURES), "module."), "module."),
    "_orig_mod.": (lambda: P(STATE, "_orig_mod."), "_orig_mod."),
    "module._orig_mod.": (lambda: {"model": P(STATE, "module._orig_mod.")}, "model.module._orig_mod."),
    "encoder. with a predictor": (lambda: P(STATE, "encoder.") | LINEAR("predictor.0", 8, 8), "encoder."),
    "numbered children": (lambda: numbered(STATE), ""),
    "numbered children behind a name": (
        lambda: P(numbered(STATE), "backbone.") | LINEAR("backbone.9", 8, FEATURES),
        "backbone.",
    ),
    "Namespace with a path": (
        lambda: {"state_dict": STATE, "args": argparse.Namespace(root=pathlib.PosixPath("/x"))},
        "state_dict.",
    ),
    "arrays, numbers and dates": (
        lambda: {
            "state_dict": STATE,
            "mean": np.zeros(3),
            "best": np.float32(0.5),
            "at": datetime.datetime.now(datetime.UTC),
            "ids": {1, 2},
            "slice": slice(3),
        },
        "state_dict.",
    ),
    "twice the same values": (lambda: {"model": STATE, "model_ema": copied(STATE)}, "model."),
    "parameters": (
        lambda: {
            name: torch.nn.Parameter(tensor, requires_grad=tensor.is_floating_point()) for name, tensor in STATE.items()
        },
        "",
    ),
    "without step counters": (lambda: {name: t for name, t in STATE.items() if "num_batches" not in name}, ""),
    "a norm of features beside": (lambda: STATE | {"bn.running_mean": torch.zeros(FEATURES)}, ""),
    "momentum of an optimizer beside": (
        lambda: {"model": STATE, "optimizer": {"state": {i: {"exp_avg": torch.zeros(3)} for i in range(9)}}},
        "model.",
    ),
}


def assert_read(path, prefix, format="auto"):
    result = read_published([path], format, ARCH)
    assert result.prefix == prefix
    assert set(result.state) == set(STATE)
    for name, tensor in result.state.items():
        assert "num_batches" in name or torch.equal(tensor, STATE[name])
    return result


@pytest.mark.parametrize("old", [False, True], ids=["zip", "old serialisation"])
@pytest.mark.parametrize("name", PLAIN)
def test_layouts_that_are_read(tmp_path, name, old):
    make, prefix = PLAIN[name]
    torch.save(make(), tmp_path / "f.pth", _use_new_zipfile_serialization=not old)
    assert_read(tmp_path / "f.pth", prefix)
    found = inspect_checkpoint(tmp_path / "f.pth")
    assert found.loads and (found.arch, found.format) == (ARCH, "auto")


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("make", [lightning, configurations])
def test_objects_beside_the_weights_do_nothing(tmp_path, make, protocol):
    names, content = make()
    with published.foreign_modules(**names):
        torch.save(content(), tmp_path / "f.ckpt", pickle_protocol=protocol)
    result = assert_read(tmp_path / "f.ckpt", "state_dict.backbone." if make is lightning else "model.")
    assert [name for name in result.dropped if "projection_head" in name] == (
        ["state_dict.projection_head.0.weight", "state_dict.projection_head.0.bias"] if make is lightning else []
    )


def test_safetensors_are_known_by_their_content(tmp_path):
    save_file(P(STATE, "backbone."), tmp_path / "pytorch_model.bin")
    assert file_kind(tmp_path / "pytorch_model.bin") == "safetensors"
    assert_read(tmp_path / "pytorch_model.bin", "backbone.")


def test_the_classifier_is_told_from_a_projection(tmp_path):
    torch.save(STATE | LINEAR("fc", 10, FEATURES), tmp_path / "f.pth")
    weight, bias = read_published([tmp_path / "f.pth"], "auto", ARCH).head
    assert weight.shape == (10, FEATURES) and bias.shape == (10,)
    torch.save(STATE | LINEAR("fc.0", 10, FEATURES), tmp_path / "f.pth")
    assert read_published([tmp_path / "f.pth"], "auto", ARCH).head is None


def test_left_out_tensors_are_logged_by_group(tmp_path, caplog):
    content = {"state_dict": P(STATE, "net.") | LINEAR("net.fc", 5, FEATURES) | LINEAR("head.mlp", 3, 3), "epoch": 3}
    torch.save(content, tmp_path / "f.pth")
    with caplog.at_level("INFO"):
        read_published([tmp_path / "f.pth"], "auto", ARCH)
    assert "'state_dict.net.'" in caplog.text and "'epoch'" in caplog.text
    assert "state_dict.head (2 entries)" in caplog.text


def test_a_normalisation_in_the_file_is_a_warning(tmp_path, caplog):
    own = {"normalize.mean": torch.tensor([0.5, 0.25, 0.5]).reshape(1, 3, 1, 1), "head.bias": torch.zeros(3)}
    torch.save(P(STATE, "net.") | own, tmp_path / "f.pth")
    read_published([tmp_path / "f.pth"], "auto", ARCH)
    [warning] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "normalize.mean" in warning and "0.5, 0.25, 0.5" in warning


TWO = {
    "query and key": (
        {"state_dict": P(STATE, "module.encoder_q.") | P(OTHER, "module.encoder_k.")},
        ["state_dict.module.encoder_q.", "state_dict.module.encoder_k."],
    ),
    "student and teacher": (
        {"student": P(OTHER, "backbone."), "teacher": P(STATE, "backbone.")},
        ["teacher.backbone.", "student.backbone."],
    ),
    "weights and their average": ({"model": STATE, "ema": OTHER}, ["model.", "ema."]),
    "at the top and below": (STATE | {"ema": OTHER}, ["", "ema."]),
}


@pytest.mark.parametrize("name", TWO)
def test_two_sets_of_weights_are_named_with_the_cells_that_choose(tmp_path, name):
    content, (wanted, other) = TWO[name]
    torch.save(content, tmp_path / "f.pth")
    cells = [f"auto:{prefix or '.'}" for prefix in (wanted, other)]
    with pytest.raises(InputError) as error:
        read_published([tmp_path / "f.pth"], "auto", ARCH)
    assert "\n" not in str(error.value) and all(cell in str(error.value) for cell in cells)
    assert_read(tmp_path / "f.pth", wanted, cells[0])
    assert_read(tmp_path / "f.pth", wanted, cells[0].rstrip(".") if wanted else cells[0])
    found = inspect_checkpoint(tmp_path / "f.pth")
    assert not found.loads and cells[1] in found.problem
    assert inspect_checkpoint(tmp_path / "f.pth", format=cells[0]).loads
    with pytest.raises(InputError, match=r"'nothing\.'") as error:
        read_published([tmp_path / "f.pth"], "auto:nothing.", ARCH)
    assert cells[0] in str(error.value)


def test_the_beginning_of_a_prefix_chooses(tmp_path):
    torch.save({"student": P(OTHER, "net.backbone."), "teacher": P(STATE, "net.backbone.")}, tmp_path / "f.pth")
    assert_read(tmp_path / "f.pth", "teacher.net.backbone.", "auto:teacher")


def without(name):
    return {key: tensor for key, tensor in STATE.items() if key != name}


MISFITS = {
    "half precision": (lambda: {name: tensor.half() for name, tensor in STATE.items()}, ["float16", "full precision"]),
    "a tensor is missing": (lambda: P(without("layer2.1.bn2.bias"), "net."), ["net.", "layer2.1.bn2.bias"]),
    "some step counters are missing": (lambda: without("bn1.num_batches_tracked"), ["bn1.num_batches_tracked"]),
    "another shape": (lambda: STATE | {"layer1.0.bn2.bias": torch.zeros(7)}, ["layer1.0.bn2.bias", "(7,)"]),
    "a tensor too many": (lambda: STATE | {"layer1.0.conv1.bias": torch.zeros(7)}, ["layer1.0.conv1.bias"]),
    "a fifth stage": (lambda: STATE | {"layer5.0.conv1.weight": torch.zeros(7)}, ["layer5.0.conv1.weight"]),
    "a deeper network": (lambda: build_resnet("resnet-2x2x1x1-w4").state_dict(), ["arch resnet-2x2x1x1-w4"]),
    "a wider network": (lambda: {"m": build_resnet("resnet-1x2x1x1-w8").state_dict()}, ["arch resnet-1x2x1x1-w8"]),
    "nothing alike": (lambda: {"w": torch.zeros(3), "b": torch.zeros(3)}, ["'w'", "arch"]),
    "no tensors": (lambda: {"epoch": 3}, ["'epoch'", "state_dict()"]),
    "the same name twice": (lambda: {"a": {"b.c": torch.zeros(1)}, "a.b": {"c": torch.zeros(1)}}, ["a.b.c"]),
    "not finite": (lambda: STATE | {"bn1.bias": torch.full((4,), torch.nan)}, ["bn1.bias", "finite"]),
    "without values": (lambda: STATE | {"bn1.bias": torch.empty(4, device="meta")}, ["bn1.bias"]),
    "repeated values": (lambda: STATE | {"bn1.bias": torch.zeros(1).expand(4)}, ["bn1.bias"]),
    "a whole module": (lambda: torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)), ["Sequential", "state_dict()"]),
    "a whole module in an entry": (
        lambda: {"model": torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)), "epoch": 2},
        ["'model'", "Sequential", "state_dict()"],
    ),
    "a list of numbers": (lambda: [1, 2], ["state_dict()"]),
}


@pytest.mark.parametrize("name", MISFITS)
def test_misfits_are_one_line_with_the_next_step(tmp_path, name):
    make, words = MISFITS[name]
    torch.save(make(), tmp_path / "f.pth")
    with pytest.raises(InputError) as error:
        read_published([tmp_path / "f.pth"], "auto", ARCH)
    text = str(error.value)
    assert text.startswith(f"{tmp_path}/f.pth") and "\n" not in text and len(text) < 600 + len(str(tmp_path))
    assert all(word in text for word in words), text
    assert ";" in text.partition("f.pth")[2], "the next step"
    found = inspect_checkpoint(tmp_path / "f.pth", ARCH)
    assert found.problem == text and str(found).splitlines()[-1].endswith(text.removeprefix(f"{tmp_path}/f.pth: "))


def archive(path, members):
    with zipfile.ZipFile(path, "w") as file:
        for name in members:
            file.writestr(name, b"x")


def legacy_tar(path):
    (path.parent / "storages").write_bytes(b"x")
    with tarfile.open(path, "w") as file:
        file.add(path.parent / "storages", "storages")


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 102540417\n"
FOREIGN_FILES = {
    "empty": (lambda p: p.write_bytes(b""), ["empty"]),
    "git-lfs pointer": (lambda p: p.write_bytes(POINTER), ["git-lfs", "102,540,417", "git lfs pull"]),
    "web page": (lambda p: p.write_bytes(b"\n<!DOCTYPE html><html>login</html>"), ["web page", "address"]),
    "XML page": (
        lambda p: p.write_bytes(b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>'),
        ["XML", "AccessDenied"],
    ),
    "JSON": (lambda p: p.write_bytes(b'{"error": "not found"}'), ["JSON", "not found"]),
    "cut archive": (lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]), ["cut", "fetch it again"]),
    "gzip": (lambda p: p.write_bytes(gzip.compress(p.read_bytes())), ["gzip", "unpack"]),
    "legacy tar": (legacy_tar, ["tar archive"]),
    "numpy archive": (lambda p: archive(p, ["w.npy"]), ["numpy"]),
    "HDF5": (lambda p: p.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99)), ["HDF5", "state_dict()"]),
    "TorchScript": (
        lambda p: archive(p, ["m/data.pkl", "m/constants.pkl", "m/code/x.py"]),
        ["TorchScript", "jit.load"],
    ),
    "pictures": (lambda p: archive(p, ["a.jpg"]), ["zip", "unpack"]),
    "pickle": (lambda p: p.write_bytes(pickle.dumps({"w": 3})), ["torch file", "byol", "state_dict()"]),
    "text": (lambda p: p.write_bytes(b"Hello, these are my weights"), ["torch file"]),
}


@pytest.mark.parametrize("name", FOREIGN_FILES)
def test_files_that_hold_no_weights_are_named(tmp_path, name):
    make, words = FOREIGN_FILES[name]
    path = tmp_path / "f.pth"
    torch.save(STATE, path)
    make(path)
    for format in ("auto", "torchvision"):
        with pytest.raises(InputError) as error:
            read_published([path], format, ARCH)
        text = str(error.value)
        assert text.startswith(str(path)) and "\n" not in text and all(word in text for word in words), text
        assert "; " in text
    assert inspect_checkpoint(path).problem and inspect_checkpoint(tmp_path / "no.pth").problem
    assert inspect_checkpoint(tmp_path).problem


def test_code_beside_the_weights_is_refused(tmp_path):
    class Gadget:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/canary",)

    for old in (False, True):
        torch.save({"state_dict": STATE, "x": Gadget()}, tmp_path / "f.pth", _use_new_zipfile_serialization=not old)
        with pytest.raises(InputError, match=r"f\.pth.*system"):
            read_published([tmp_path / "f.pth"], "auto", ARCH)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    ("name", "harmless"),
    [
        ("__main__.Config", True),
        ("timm.utils.AverageMeter", True),
        ("pathlib.PosixPath", True),
        ("pathlib._local.PosixPath", True),
        ("torch.optim.lr_scheduler.CosineAnnealingLR", True),
        ("torch.device", True),
        ("os.system", False),
        ("posix.system", False),
        ("builtins.eval", False),
        ("__builtin__.eval", False),
        ("builtins.getattr", False),
        ("subprocess.Popen", False),
        ("importlib.import_module", False),
        ("torch.storage._load_from_bytes", False),
        ("torch.hub.load", False),
        ("numpy.testing._private.utils.runstring", False),
        ("dill._dill._create_type", False),
        ("pathlib.os.system", False),
        ("functools.reduce", False),
    ],
)
def test_names_that_may_stand_in_a_file(name, harmless):
    assert is_foreign(name) == harmless


SPECIMENS = {
    "float32": torch.arange(6.0).reshape(2, 3).T,
    "float64": torch.arange(3, dtype=torch.float64)[1:],
    "bfloat16": torch.ones(3, dtype=torch.bfloat16),
    "float16": torch.ones(3, dtype=torch.float16),
    "int64": torch.tensor(7),
    "int32": torch.arange(3, dtype=torch.int32),
    "int8": torch.arange(-3, 0, dtype=torch.int8),
    "uint8": torch.arange(3, dtype=torch.uint8),
    "bool": torch.tensor([True, False]),
    "complex64": torch.ones(2, dtype=torch.complex64),
    "empty": torch.empty(0, 3),
}


@pytest.mark.parametrize("old", [False, True], ids=["zip", "old serialisation"])
def test_tensors_are_those_that_torch_reads(tmp_path, old):
    shared = torch.arange(10.0)
    content = SPECIMENS | {"whole": shared, "view": shared[2:8:2], "nested": [(SPECIMENS["int8"],)]}
    torch.save(content, tmp_path / "f.pt", _use_new_zipfile_serialization=not old)
    found, expected = read_torch_file(tmp_path / "f.pt"), torch.load(tmp_path / "f.pt", weights_only=True)
    assert found.keys() == expected.keys()
    for name in (*SPECIMENS, "whole", "view"):
        assert found[name].dtype == expected[name].dtype and torch.equal(found[name], expected[name])
        assert found[name].stride() == expected[name].stride()
    assert found["view"].untyped_storage().data_ptr() == found["whole"].untyped_storage().data_ptr()
    assert torch.equal(found["nested"][0][0], SPECIMENS["int8"])


def test_an_old_file_lacks_no_values(tmp_path):
    """A list of storages that is shorter than what the tensors refer to would leave memory that was never written."""
    path = tmp_path / "f.pt"
    torch.save({"a": torch.ones(2), "b": torch.ones(3)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    with path.open("rb") as file:
        for _ in range(4):
            InertUnpickler(file, lambda name: Foreign, 0, lambda identifier: None).load()
        start = file.tell()
        keys = pickle.load(file)  # written by ourselves, lines above
        end = file.tell()
    assert len(keys) == 2
    values = content[end : end + 8 + 8] if content[end] == 2 else content[end : end + 8 + 12]
    path.write_bytes(content[:start] + pickle.dumps(keys[:1], protocol=2) + values)
    with pytest.raises(InputError, match="1 storages"):
        load_content(path)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_damaged_torch_files_are_read_alike_or_refused(tmp_path_factory, data):
    """No flipped byte gives other tensors than torch would read, nor anything but an InputError."""
    path = tmp_path_factory.getbasetemp() / "flipped.pt"
    old = data.draw(st.booleans())
    torch.save({"w": torch.arange(4.0), "n": 3}, path, _use_new_zipfile_serialization=not old)
    content = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, 9999))  # not up to the length, which differs: old files hold addresses
    content[position % len(content)] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        found = flatten(read_torch_file(path), path).tensors
    except Exception:  # what `load_content` turns into an InputError
        return
    try:
        expected = torch.load(path, weights_only=True)
    except Exception:
        return
    if isinstance(expected, dict) and "w" in expected and "w" in found and isinstance(expected["w"], torch.Tensor):
        assert torch.equal(found["w"], expected["w"])


OPCODES = [
    b"c__builtin__\neval\n", b"cos\nsystem\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"cargparse\nNamespace\n",
    b"cx\nY\n", b"ctorch\nSize\n", b"ccollections\nOrderedDict\n", b"ctorch.nn.parameter\nParameter\n",
    b"I999999999\n", b"R", b"b", b"o",
    b"\x81", b"\x92", b"Q", b"s", b"u", b"e", b"a", b"(", b"\x85", b"\x87", b"2", b"0", b"}", b"]", b")", b"N",
]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(changes=st.lists(st.tuples(st.integers(0, 9999), st.sampled_from(OPCODES)), min_size=1, max_size=6))
def test_pickles_with_other_instructions_end_in_one_line(tmp_path_factory, changes):
    """Calls, states and items where none belong build nothing that matters, and run nothing."""
    path = tmp_path_factory.getbasetemp() / "instructions.pth"
    torch.save({"w": torch.ones(3), "args": argparse.Namespace(lr=1), "m": np.zeros(2)}, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            if name.endswith("data.pkl"):
                for position, opcode in changes:
                    position %= len(content)
                    content = content[:position] + opcode + content[position:]
            archive.writestr(name, content)
    try:
        load_content(path)
    except InputError as error:
        assert "\n" not in str(error)


WORDS = st.text("abcdefghij_.", min_size=1, max_size=8).filter(
    lambda text: not text.startswith(".") and ".." not in text
)


@settings(max_examples=40, deadline=None)
@given(
    keys=st.lists(WORDS, max_size=4),
    prefix=st.lists(st.sampled_from(["module", "_orig_mod", "model", "backbone", "encoder", "0"]), max_size=4),
    head=st.sampled_from(["fc", "head", "projector.0", "classifier"]),
    children=st.booleans(),
)
def test_any_nesting_and_prefix_is_found(tmp_path_factory, keys, prefix, head, children):
    keys = [key.rstrip(".") or "x" for key in keys]
    start = "".join(f"{part}." for part in prefix)
    content = P((numbered(STATE) if children else STATE) | LINEAR(head, 3, FEATURES), start)
    for key in reversed(keys):
        content = {key: content, f"{key}_epoch": 3}
    path = tmp_path_factory.getbasetemp() / "nested.pth"
    torch.save(content, path)
    assert_read(path, "".join(f"{key}." for key in keys) + start)


@settings(max_examples=100, deadline=None)
@given(name=st.sampled_from(sorted(name for name in STATE if "num_batches" not in name)), children=st.booleans())
def test_every_tensor_counts(name, children):
    """Without any one of its tensors, or with another shape of it, no place fits."""
    shapes = {key: tuple(tensor.shape) for key, tensor in (numbered(STATE) if children else STATE).items()}
    expected = backbone_shapes(ARCH)
    assert [place.fits for place in find_places(shapes, expected)] == [True]
    module, _, rest = name.partition(".")
    name = f"{NUMBERED[module]}.{rest}" if children else name
    assert not any(place.fits for place in find_places({k: s for k, s in shapes.items() if k != name}, expected))
    assert not any(place.fits for place in find_places(shapes | {name: (*shapes[name], 1)}, expected))


@pytest.mark.parametrize("arch", ["resnet50", ARCH, "resnet-2x1x3x1-w8-same"])
def test_shapes_are_those_of_the_network(arch):
    state = build_resnet(arch).state_dict()
    assert backbone_shapes(arch) == {name: tuple(tensor.shape) for name, tensor in state.items()}


NETWORKS = {
    "resnet18": ("ResNet-18", "timm:resnet18"),
    "resnet34": ("ResNet-34", "timm:resnet34"),
    "resnet50": ("ResNet-50", "resnet50"),
    "resnet101": ("ResNet-101", "resnet-3x4x23x3-w64"),
    "resnet152": ("ResNet-152", "resnet-3x8x36x3-w64"),
    "wide_resnet50_2": ("Wide ResNet-50-2", "timm:wide_resnet50_2"),
    "resnext50_32x4d": ("ResNeXt-50 32x4d", "timm:resnext50_32x4d"),
    "resnext101_64x4d": ("ResNeXt-101 64x4d", "timm:resnext101_64x4d"),
    "vit_b_16": ("ViT-B/16", ""),
    "vit_l_32": ("ViT-L/32", ""),
    "convnext_tiny": ("ConvNeXt", ""),
    "swin_t": ("Swin", ""),
    "vgg16": ("VGG", ""),
    "alexnet": ("AlexNet", ""),
    "densenet121": ("DenseNet", ""),
    "efficientnet_b0": ("EfficientNet or MobileNet", ""),
}


@pytest.fixture(scope="module")
def torchvision_shapes():
    from torchvision import models

    with torch.device("meta"):
        return {
            name: {key: tuple(t.shape) for key, t in getattr(models, name)(weights=None).state_dict().items()}
            for name in NETWORKS
        }


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_torchvision_are_recognised(torchvision_shapes, name):
    title, arch = NETWORKS[name]
    for prefix in ("", "state_dict.module."):
        [found] = recognise(P(torchvision_shapes[name], prefix))
        assert found.prefix == prefix and found.title.startswith(title) and found.arch == arch


def vit(width, patch, depth):
    names = {"patch_embed.proj.weight": (width, 3, patch, patch), "cls_token": (1, 1, width)}
    return names | {f"blocks.{i}.attn.qkv.weight": (3 * width, width) for i in range(depth)}


@pytest.mark.parametrize(
    ("shapes", "title"),
    [
        (vit(384, 16, 12), "ViT-S/16"),
        (vit(768, 14, 12), "ViT-B/14"),
        (vit(1024, 16, 24), "ViT-L/16"),
        (vit(384, 16, 3), "ViT-S/16 of 3 blocks"),
        (
            {"downsample_layers.0.0.weight": (96, 3, 4, 4)}
            | {f"stages.{s}.{b}.dwconv.weight": (1,) for s, n in enumerate((3, 3, 9, 3)) for b in range(n)},
            "ConvNeXt-T",
        ),
        (
            {"patch_embed.proj.weight": (96, 3, 4, 4)}
            | {f"layers.{s}.blocks.{b}.norm1.weight": (1,) for s, n in enumerate((2, 2, 6, 2)) for b in range(n)},
            "Swin-T",
        ),
        ({"conv1.weight": (64, 3, 3, 3), "layer1.0.conv1.weight": (64, 64, 3, 3)}, "ResNet of basic blocks 1x0x0x0"),
    ],
)
def test_networks_of_other_projects_are_recognised(shapes, title):
    assert [found.title.partition(" (")[0] for found in recognise(P(shapes, "model."))] == [title]


def test_an_inspection_ends_in_the_row_to_write(tmp_path):
    torch.save({"state_dict": P(STATE, "module.")}, tmp_path / "f.pth")
    found = inspect_checkpoint(tmp_path / "f.pth")
    row = found.row("mine").split("\t")
    assert row == ["mine", "", "", ARCH, f"file:{tmp_path}/f.pth"]
    assert found.tensors == len(STATE) and [network.prefix for network in found.networks] == ["state_dict.module."]
    assert repr(found.row()) in str(found).splitlines()[-2]
    assert str(found).endswith(f"add model my-net {tmp_path}/f.pth --arch {ARCH} --suites mine")
    assert not inspect_checkpoint(tmp_path / "f.pth", "resnet18").loads
    assert inspect_checkpoint(tmp_path / "f.pth", ARCH, "data-parallel").format == "data-parallel"


def test_a_classifier_without_values_is_left_out(tmp_path):
    """One value can stand for 10^11 rows."""
    rows = torch.zeros(1)
    torch.save(STATE | {"fc.weight": rows.expand(10**11, FEATURES), "fc.bias": rows.expand(10**11)}, tmp_path / "f.pth")
    assert assert_read(tmp_path / "f.pth", "").head is None


def test_large_files_may_hold_the_losses_of_all_steps(tmp_path, monkeypatch):
    """Two objects and 14 instructions a step, in front of the megabytes of a network."""
    monkeypatch.setattr(safe_pickle, "MAX_INSTRUCTIONS", 10_000)
    monkeypatch.setattr(safe_pickle, "MAX_CALLS", 1000)
    losses = [np.float64(step) for step in range(1000)]
    torch.save({"weight": torch.zeros(200_000), "losses": losses}, tmp_path / "large.pth")
    assert len(read_torch_file(tmp_path / "large.pth")["losses"]) == 1000
    torch.save({"losses": losses}, tmp_path / "small.pth")
    with pytest.raises(ValueError, match="more than 10,000 instructions"):
        read_torch_file(tmp_path / "small.pth")
    monkeypatch.setattr(safe_pickle, "MAX_INSTRUCTIONS", 100_000)
    with pytest.raises(pickle.UnpicklingError, match="more than 1,000 objects"):
        read_torch_file(tmp_path / "small.pth")

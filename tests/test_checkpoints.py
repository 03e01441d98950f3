"""Published files in every format, written as their authors write them, become the network they were."""

import builtins
import json
import os
import pickle
import zipfile

import numpy as np
import published_files as published
import pytest
import torch
from reference_network import Network
from safetensors.torch import save_file

from ssltransfer.checkpoints import torch_file
from ssltransfer.checkpoints.convert import FORMATS, convert, read_published
from ssltransfer.checkpoints.detectron2 import save_detectron2, to_detectron2
from ssltransfer.checkpoints.fetch import fetch
from ssltransfer.errors import InputError
from ssltransfer.files import file_hash
from ssltransfer.models.backbone_file import forward_check, load_backbone
from ssltransfer.models.resnet import build_resnet
from ssltransfer.results.tensor_file import save_tensors
from ssltransfer.results.tensor_header import read_provenance
from ssltransfer.safe_pickle import load_inert

ARCH, WIDTH, BLOCKS, FEATURES = "resnet-2x1x1x2-w4", 4, (2, 1, 1, 2), 128


@pytest.fixture
def state():
    return build_resnet(ARCH, seed=0).state_dict()


def features_of(state, images, arch=ARCH):
    backbone = build_resnet(arch)
    backbone.load_state_dict(state)
    with torch.inference_mode():
        return backbone.eval()(images)


# --- PyTorch ---


@pytest.mark.parametrize("old", [False, True], ids=["zip", "old serialisation"])
@pytest.mark.parametrize("format", torch_file.FORMATS)
def test_torch_formats(tmp_path, state, format, old):
    path = tmp_path / "file.pth.tar"
    torch.save(published.torch_content(format, state, FEATURES), path, _use_new_zipfile_serialization=not old)
    result = read_published([path], format, ARCH)
    assert set(result.state) == set(state)
    assert all(torch.equal(result.state[name], state[name]) for name in state)
    images = torch.randn(2, 3, 48, 48)
    assert torch.equal(features_of(result.state, images), features_of(state, images))
    assert (result.head is not None) == (format in ("torchvision", "state-dict", "data-parallel"))


def test_every_format_is_tested():
    assert set(FORMATS) == {"auto", *torch_file.FORMATS, "simclr", "simclr-ema", "byol"}


def test_dropped_entries_are_logged_by_group(tmp_path, state, caplog):
    torch.save(published.torch_content("moco", state, FEATURES), tmp_path / "f.pth")
    with caplog.at_level("INFO"):
        read_published([tmp_path / "f.pth"], "moco", ARCH)
    assert "left out: module.queue (2 entries)" in caplog.text
    assert f"left out: module.encoder_k. ({len(state)} entries)" in caplog.text


@pytest.mark.parametrize(
    ("format", "change", "message"),
    [
        ("torchvision", lambda s: s.pop("layer3.0.conv2.weight"), r"1 tensors of .* missing, first layer3\.0\.conv2"),
        ("torchvision", lambda s: s.update({"layer5.0.x": torch.zeros(1)}), r"first 'layer5\.0\.x'; nearest names"),
        (
            "torchvision",
            lambda s: s.update({"bn1.bias": torch.zeros(7)}),
            r"bn1\.bias has shape \(7,\), .* needs",
        ),
        ("torchvision", lambda s: s["bn1.bias"].fill_(np.inf), r"bn1\.bias holds values that are not finite"),
        (
            "torchvision",
            lambda s: s.update({"bn1.bias": s["bn1.bias"].half()}),
            r"is torch\.float16, expected torch\.float32",
        ),
        ("torchvision", lambda s: s.update({"args": 3}), "found 'args', expected a dict of tensors"),
        ("torchvision", lambda s: s.update({5: torch.zeros(1)}), "found 5, expected a dict of tensors"),
        (
            "torchvision",
            lambda s: s.update({"bn1.bias": s["bn1.bias"].to("meta")}),
            r"'bn1\.bias' is a torch\.strided meta tensor, expected values",
        ),
        (
            "torchvision",
            lambda s: s.update({"fc.weight": torch.zeros(9, FEATURES).half(), "fc.bias": torch.zeros(9)}),
            r"classifier is torch\.float16 and torch\.float32, expected torch\.float32",
        ),
        ("torchvision", lambda s: s.update({"fc.bias": torch.zeros(9)}), r"'fc\.' has entries 'bias', expected weight"),
        ("torchvision", lambda s: s.update({"x\n" + 9999 * "y": torch.zeros(9)}), r"first 'x\\nyy.*\.\.\..*y';"),
        ("swav", lambda s: None, "names begin with '', this format expects 'module.'; use another format"),
        ("moco", lambda s: None, "entry 'state_dict' is missing; found 'conv1.weight'"),
    ],
)
def test_unfit_state_dicts_are_refused(tmp_path, state, format, change, message):
    change(state)
    torch.save(state, tmp_path / "f.pth")
    with pytest.raises(InputError, match=message) as error:
        read_published([tmp_path / "f.pth"], format, ARCH)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500 + len(str(tmp_path))


def test_safetensors_are_read_as_well(tmp_path, state):
    save_file(published.torch_content("torchvision", state, FEATURES), tmp_path / "model.safetensors")
    result = read_published([tmp_path / "model.safetensors"], "torchvision", ARCH)
    assert all(torch.equal(result.state[name], state[name]) for name in state)
    assert result.head is not None
    for header in (b"{{{{", b'{"w":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}', b"[" * 9999):
        (tmp_path / "f.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
        with pytest.raises(InputError, match="cannot be read as a torch file"):
            read_published([tmp_path / "f.safetensors"], "torchvision", ARCH)


def test_another_format_is_suggested_by_its_prefix(tmp_path, state):
    torch.save(published.torch_content("moco", state, FEATURES), tmp_path / "f.pth")
    with pytest.raises(InputError, match=r"'module\.encoder_q\.'.*'module\.encoder\.'"):
        read_published([tmp_path / "f.pth"], "simsiam", ARCH)


def test_resnet18_is_recognised(tmp_path):
    from torchvision.models import resnet18

    torch.save(resnet18(weights=None).state_dict(), tmp_path / "f.pth")
    with pytest.raises(InputError, match=r"f\.pth.*ResNet-18.*conv3.*resnet50"):
        read_published([tmp_path / "f.pth"], "torchvision", "resnet50")


# --- SimCLR ---


@pytest.fixture(scope="module")
def network():
    return Network(BLOCKS, WIDTH, seed=1)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((2, 64, 64, 3)).astype(np.float32)


def as_torch(images):
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def assert_features(state, images, arch, expected):
    np.testing.assert_allclose(features_of(state, as_torch(images), arch).numpy(), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("arch", "pool"), [(ARCH, "torch"), (f"{ARCH}-samepool", "same")], ids=["as in the paper", "as trained"]
)
@pytest.mark.parametrize("version", ["v1", "v2", "v2-ema"])
def test_simclr(tmp_path, network, images, version, arch, pool):
    if version == "v1":
        files, reference = [tmp_path / "ResNet50_1x.zip"], network
        published.write_simclr_zip(files[0], published.simclr_v1_variables(network, FEATURES))
    else:
        average = Network(BLOCKS, WIDTH, seed=2)
        prefix = tmp_path / "model.ckpt-250228"
        published.write_bundle(prefix, published.simclr_v2_variables(network, average, FEATURES))
        files, reference = sorted(tmp_path.iterdir()), network if version == "v2" else average
    result = read_published(files, "simclr-ema" if version == "v2-ema" else "simclr", arch)
    assert_features(result.state, images, arch, reference.features(images, "fixed", pool))
    if version != "v2-ema":
        weight, bias = result.head
        assert weight.shape == (1000, FEATURES)
        assert bias[7] == 7


def test_the_paddings_differ(network, images):
    # Otherwise the tests of the exact variants would prove nothing.
    plain = network.features(images, "fixed", "torch")
    for other in (network.features(images, "fixed", "same"), network.features(images, "same", "same")):
        assert np.abs(plain - other).max() > 1e-2


@pytest.mark.parametrize("size", [63, 64, 65])
def test_exact_padding_follows_the_input_size(tmp_path, network, size):
    images = np.random.default_rng(1).random((1, size, size, 3)).astype(np.float32)
    published.write_byol(tmp_path / "p.pkl", *network.haiku_parameters(), FEATURES)
    state = read_published([tmp_path / "p.pkl"], "byol", f"{ARCH}-same").state
    assert_features(state, images, f"{ARCH}-same", network.features(images, "same", "same"))


def bundle(tmp_path, variables):
    published.write_bundle(tmp_path / "model.ckpt-1", variables)
    return sorted(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda v: v.update({"base_model/conv2d_99/kernel": np.zeros((1, 1, 4, 4), np.float32)}),
            "conv2d_99/kernel' does not",
        ),
        (lambda v: v.pop("base_model/conv2d_3/kernel"), "1 tensors of .* are missing"),
        (lambda v: v.update({"resnet/conv": np.zeros(3, np.float32)}), "variable 'resnet/conv' is unexplained"),
    ],
)
def test_unfit_simclr_files_are_refused(tmp_path, network, change, message):
    variables = published.simclr_v1_variables(network, FEATURES)
    change(variables)
    with pytest.raises(InputError, match=message):
        read_published(bundle(tmp_path, variables), "simclr", ARCH)


def test_damaged_tensorflow_files_are_refused(tmp_path, network):
    data, index = bundle(tmp_path, published.simclr_v1_variables(network, FEATURES))
    good = data.read_bytes()
    data.write_bytes(good[:100] + b"\xff" + good[101:])
    with pytest.raises(InputError, match="fails its checksum; the file is damaged or cut"):
        read_published([data, index], "simclr", ARCH)
    data.write_bytes(good[:-50])
    with pytest.raises(InputError, match="fails its checksum"):
        read_published([data, index], "simclr", ARCH)
    content = index.read_bytes()
    for damaged in (b"", content[:60], content[:-1], content[:20] + b"\x00\x01" + content[22:], b"<html>" * 20):
        index.write_bytes(damaged)
        with pytest.raises(InputError, match="is not the index of a TensorFlow checkpoint, or is damaged"):
            read_published([data, index], "simclr", ARCH)
    index.write_bytes(content)
    data.unlink()
    with pytest.raises(InputError, match="data-00000-of-00001 is missing"):
        read_published([index], "simclr", ARCH)


def entry(size=4, shape=b"\x12\x02\x08\x01", place=b"\x20\x00", crc=0):
    """A bundle entry of float32; by default of one number at the data's beginning."""
    return (
        b"\x08\x01\x12" + published.varint(len(shape)) + shape + place + b"\x28" + published.varint(size)
        + b"\x35" + crc.to_bytes(4, "little")
    )  # fmt: skip


def axis(size):
    number = b"\x08" + published.varint(size)
    return b"\x12" + published.varint(len(number)) + number


def hostile_indices():
    """Blocks of index files that once hung, crashed or ended in a traceback."""
    one = lambda value: [published.table_block([(b"a", value)])]  # noqa: E731
    shared = lambda key, *tails: b"".join(  # noqa: E731
        [published.varint(0) + published.varint(len(key)) + b"\x00" + key]
        + [published.varint(len(key)) + published.varint(len(t)) + b"\x00" + t for t in tails]
    )
    restarts = b"\x00\x00\x00\x00\x01\x00\x00\x00"
    return {
        "endless integer": one(b"\x08" + b"\xff" * 300_000),
        "negative axis": one(entry(shape=axis(2**64 - 1))),
        "product that wraps": one(entry(0, axis(2**32) * 2)),
        "empty and endless axis": one(entry(0, axis(0) + axis(2**64 - 1), crc=published.masked(b""))),
        "more bytes than memory": one(entry(2**50, axis(2**48))),
        "beyond the file": one(entry(place=b"\x20" + published.varint(2**62))),
        "shape as number": one(b"\x08\x01\x10\x05\x28\x04"),
        "axis as text": one(b"\x08\x01\x12\x05\x12\x03\x0a\x01a\x28\x04"),
        "shard as text": one(b"\x08\x01\x1a\x01a\x28\x04"),
        "many axes": one(entry(shape=axis(1) * 9999)),
        "endless name": [shared(b"b" * 2000, b"") + restarts],
        "name twice": [shared(b"b", b"", b"") + restarts],
        "too large": [published.table_block([(b"a", bytes(5 << 20))])],
        "block again and again": [published.table_block([(b"a", b"")])] * 2,
    }


@pytest.mark.parametrize("name", hostile_indices())
def test_hostile_indices_are_refused(tmp_path, name):
    published.write_table(tmp_path / "m.index", hostile_indices()[name])
    (tmp_path / "m.data-00000-of-00001").write_bytes(bytes(64))
    with pytest.raises(InputError, match=r"is damaged|fails its checksum|needs another number") as error:
        read_published(sorted(tmp_path.iterdir()), "simclr", ARCH)
    assert len(str(error.value)) < 500 + len(str(tmp_path))


def test_variables_that_share_their_data_are_refused(tmp_path):
    content = bytes(64)
    value = entry(64, axis(16), crc=published.masked(content))
    published.write_table(tmp_path / "m.index", [published.table_block([(b"a", value), (b"b", value)])])
    (tmp_path / "m.data-00000-of-00001").write_bytes(content)
    with pytest.raises(InputError, match="its variables overlap"):
        read_published(sorted(tmp_path.iterdir()), "simclr", ARCH)


def test_numbers_have_one_spelling(tmp_path, network):
    variables = published.simclr_v1_variables(network, FEATURES)
    variables["base_model/conv2d_0/kernel"] = variables["base_model/conv2d/kernel"]
    with pytest.raises(InputError, match="conv2d_0/kernel' does not belong"):
        read_published(bundle(tmp_path, variables), "simclr", ARCH)


def test_archives_cannot_write_outside(tmp_path, network):
    archive = tmp_path / "inner" / "a.zip"
    archive.parent.mkdir()
    variables = published.simclr_v1_variables(network, FEATURES)
    published.write_simclr_zip(archive, variables, folder=f"../{'../' * 8}{tmp_path}/escaped/")
    assert read_published([archive], "simclr", ARCH).state
    assert [path.name for path in tmp_path.rglob("*")] == ["inner", "a.zip"]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"<html>"])
def test_damaged_archives_are_refused(tmp_path, content):
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(InputError, match="is not a whole zip archive"):
        read_published([tmp_path / "a.zip"], "simclr", ARCH)


@pytest.mark.parametrize(
    ("members", "damage", "message"),
    [
        ({"readme.txt": b"nothing"}, None, "found no index file"),
        ({"a/m.index": b"1", "b/n.index": b"2"}, None, "holds more than one"),
        ({"m.index": bytes(9 << 20)}, None, "would unpack to 9437184 bytes, over 10 times its size"),
        ({"m.index": bytes(range(256)) * 9}, (60, b"\xff" * 40), "not a whole zip archive: Error -3"),
        ({"m" * 300 + ".index": b"1"}, None, r"a\.zip/checkpoint\.index is not the index"),
    ],
    ids=["no checkpoint", "two checkpoints", "bomb", "damaged", "long name"],
)
def test_unfit_archives_are_refused(tmp_path, members, damage, message):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    if damage:
        at, new = damage
        content = path.read_bytes()
        path.write_bytes(content[:at] + new + content[at + len(new) :])
    with pytest.raises(InputError, match=message):
        read_published([path], "simclr", ARCH)


# --- BYOL ---


@pytest.mark.parametrize(
    ("arch", "paddings"),
    [(ARCH, ("fixed", "torch")), (f"{ARCH}-same", ("same", "same"))],
    ids=["as in the paper", "as trained"],
)
def test_byol(tmp_path, network, images, arch, paddings):
    published.write_byol(tmp_path / "p.pkl", *network.haiku_parameters(), FEATURES)
    result = read_published([tmp_path / "p.pkl"], "byol", arch)
    assert_features(result.state, images, arch, network.features(images, *paddings))
    assert result.head[0].shape == (1000, FEATURES)
    assert result.head[1][7] == 7
    assert "opt_state" in result.dropped


@pytest.mark.parametrize(
    ("module", "entries", "message"),
    [
        ("res_net50/~/initial_conv_1", {"w": np.zeros((7, 7, 3, 4), np.float32)}, r"sets conv1\.weight twice"),
        ("res_net50/~/initial_conv", {"w": np.zeros((7, 7, 3, 4))}, r"is torch\.float64, expected torch\.float32"),
        ("res_net50/~/initial_conv", {"w": np.zeros((7, 7, 3, 4), ">f2")}, r"is torch\.float16, expected"),
        ("res_net50/~/initial_conv", {"w": np.zeros((7, 7, 3, 4), int)}, "where floats should be"),
        ("res_net50/~/block_group_" + "9" * 5000, {"w": np.zeros(1)}, "which does not belong to this network"),
        ("foreign", {"counter": np.zeros(3)}, "foreign/counter', which does not belong"),
        (5, {}, "online_params has 5, expected modules with entries"),
        ("res_net50/~/initial_conv", {5: np.zeros(3)}, "with 5, expected an entry's name"),
    ],
)
def test_unfit_byol_entries_are_refused(tmp_path, network, module, entries, message):
    parameters, state = network.haiku_parameters()
    published.write_byol(tmp_path / "p.pkl", parameters | {module: entries}, state, FEATURES)
    with pytest.raises(InputError, match=message) as error:
        read_published([tmp_path / "p.pkl"], "byol", ARCH)
    assert len(str(error.value)) < 500 + len(str(tmp_path))


def test_arrays_of_jax_and_dill(tmp_path):
    """Both pickle an array as a call with numpy's function, its arguments and state."""
    value = np.arange(6, dtype=np.float32).reshape(2, 3).T  # column-major
    function, arguments, state = value.__reduce__()
    for module, name in [
        ("jax._src.device_array", "reconstruct_device_array"),
        ("jax._src.array", "_reconstruct_array"),
        ("dill._dill", "_create_array"),
    ]:

        def rebuild(*_):
            pass

        with published.foreign_modules(**{f"{module}.{name}": rebuild}):
            call = Reduce(rebuild, (function, arguments, state, {"weak_type": False}))
            (tmp_path / "a.pkl").write_bytes(pickle.dumps(call, protocol=2))
        found = load_inert(tmp_path / "a.pkl", lambda name: False).array
        assert found.dtype == np.float32
        assert np.array_equal(found, value)


def test_unfit_byol_files_are_refused(tmp_path, network):
    parameters, state = network.haiku_parameters()
    path = tmp_path / "p.pkl"
    published.write_byol(path, parameters | {"res_net50/~/extra": {"w": np.zeros(3, np.float32)}}, state, FEATURES)
    with pytest.raises(InputError, match="res_net50/~/extra/w', which does not belong"):
        read_published([path], "byol", ARCH)
    del parameters["res_net50/~/block_group_1/~/block_0/~/conv_1"]
    published.write_byol(path, parameters, state, FEATURES)
    with pytest.raises(InputError, match=r"1 tensors of .* are missing, first layer2\.0\.conv2\.weight"):
        read_published([path], "byol", ARCH)
    for content in ({"step": 3}, [1, 2], {"experiment_state": 5}):
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(InputError, match="experiment_state"):
            read_published([path], "byol", ARCH)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(InputError, match="cannot be read as a pickle of plain data"):
        read_published([path], "byol", ARCH)


# --- Files that try to run code ---


class Reduce:
    """Pickles as a call."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


def gadgets(canary):
    """Pickle streams that would create the file `canary`, or reach for something that could."""
    touch = f"open({canary!r}, 'w').close()"
    protocol0 = f"cos\nsystem\n(S'touch {canary}'\ntR.".encode()
    inst = f"(S'touch {canary}'\nios\nsystem\n.".encode()
    obj = b"(cos\nsystem\nX" + len(f"touch {canary}").to_bytes(4, "little") + f"touch {canary}".encode() + b"o."
    stack_global = b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c" + bytes([len(f"touch {canary}")])
    stack_global += f"touch {canary}".encode() + b"\x85R."
    dotted = b"\x80\x04\x8c\x05numpy\x8c\x0edtype.__class__\x93."
    dill_type = b"\x80\x02cdill._dill\n_create_type\n."
    pointers = (
        b"\x80\x02cnumpy\ndtype\nX\x02\x00\x00\x00V8\x85R(K\x03X\x01\x00\x00\x00|NX\x01\x00\x00\x00a\x85}X\x01\x00"
    )
    pointers += b"\x00\x00acnumpy\ndtype\nX\x01\x00\x00\x00O\x85RK\x00\x86sK\x08K\x01K\x05tb0"
    pointers += b"cnumpy.core.multiarray\n_reconstruct\n)R(K\x01K\x01\x85h\x00\x89X\x08\x00\x00\x00AAAAAAAAtb."
    return {
        "os.system": pickle.dumps(Reduce(os.system, (f"touch {canary}",))),
        "eval": pickle.dumps(Reduce(eval, (touch,))),
        "exec": pickle.dumps(Reduce(exec, (touch,))),
        "open": pickle.dumps(Reduce(builtins.open, (canary, "w"))),
        "getattr": b"cbuiltins\ngetattr\n.",
        "import": b"cbuiltins\n__import__\n(S'os'\ntR.",
        "nested in a dict": pickle.dumps({"experiment_state": Reduce(os.system, (f"touch {canary}",))}),
        "as dictionary state": pickle.dumps({"state_dict": {"w": Reduce(os.system, (f"touch {canary}",))}}),
        "protocol 0": protocol0,
        "INST": inst,
        "OBJ": obj,
        "STACK_GLOBAL": stack_global,
        "dotted name": dotted,
        "dill type factory": dill_type,
        "numpy runstring": b"cnumpy.testing._private.utils\nrunstring\n(S'1'\n(dtR.",
        "torch storage loader": b"ctorch.storage\n_load_from_bytes\n(S'x'\ntR.",
        "zip codec": b"c_codecs\nencode\n(S'x'\nS'zip'\ntR.",
        "extension registry": b"\x80\x02\x82\x01.",
        "persistent id": b"Pos.system\n.",
        "a foreign State class": b"cos\nSystemState\n.",
        "array rebuilt by a call": b"cdill._dill\n_create_array\n(cos\nsystem\n(S'x'\nttR.",
        "array rebuilt by a record": b"cdill._dill\n_create_array\n(c__main__\nBYOLState\n(S'x'\ntNtR.",
        "raw pointers in a numpy array": pointers,
        "deep key": b"\x80\x02}N" + b"\x85" * 200_000 + b"Ns.",
        "allocation": b"\x80\x02cbuiltins\nbytearray\n\x8a\x05\x00\x00\x00\x00\x02\x85R.",
        "subprocess": b"csubprocess\nPopen\n(S'touch'\ntR.",
    }


GADGETS = sorted(gadgets("canary"))


@pytest.mark.parametrize("name", GADGETS)
def test_pickles_run_no_code(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    canary = str(tmp_path / "canary")
    path = tmp_path / "f.pth"
    path.write_bytes(gadgets(canary)[name])
    with pytest.raises(InputError, match="cannot be read as a pickle of plain data"):
        read_published([path], "byol", ARCH)
    with pytest.raises(InputError, match="cannot be read as a torch file"):
        read_published([path], "moco", ARCH)
    # The same stream as the pickle inside a torch archive.
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", gadgets(canary)[name])
        archive.writestr("archive/version", "3")
    with pytest.raises(InputError, match="cannot be read as a torch file"):
        read_published([path], "moco", ARCH)
    assert [entry.name for entry in tmp_path.iterdir()] == ["f.pth"]


def test_torch_files_that_unfold_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "f.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(9 << 20))
    with pytest.raises(InputError, match="would unpack to 9437184 bytes"):
        read_published([tmp_path / "f.pth"], "moco", ARCH)


@pytest.mark.parametrize("cut", [10, 1000])
def test_truncated_torch_files_are_refused(tmp_path, state, cut):
    torch.save(state, tmp_path / "f.pth")
    (tmp_path / "f.pth").write_bytes((tmp_path / "f.pth").read_bytes()[:cut])
    with pytest.raises(InputError, match="cannot be read as a torch file"):
        read_published([tmp_path / "f.pth"], "torchvision", ARCH)


# --- The converted file ---


def test_backbone_file_round_trip(tmp_path, state):
    save_tensors(state, tmp_path / "b.safetensors", {"source": "here"})
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(load_backbone(tmp_path / "b.safetensors", ARCH)(images), features_of(state, images))
    assert read_provenance(tmp_path / "b.safetensors") == {"source": "here"}


def test_a_conversion_says_where_it_comes_from(tmp_path, state):
    torch.save(
        state | {"fc.weight": torch.ones(5, state["layer4.1.bn3.bias"].numel()), "fc.bias": torch.ones(5)},
        tmp_path / "a.pth",
    )
    manifest = fetch(f"file:{tmp_path}/a.pth", "", tmp_path / "folder", tmp_path / "pin.json")
    params = {"format": "torchvision", "arch": ARCH, "version": 1}
    found, provenance = convert(manifest, tmp_path / "folder", params, "m")
    assert set(found) == set(state) and all(torch.equal(found[name], state[name]) for name in state)
    assert provenance["source"] == f"file:{tmp_path}/a.pth" and provenance["converter"] == "torchvision 1"
    assert json.loads(provenance["files"]) == {"a.pth": file_hash(tmp_path / "a.pth")}
    assert set(json.loads(provenance["forward"])) == {"mean", "std"} and provenance["left_out"] == "0"


def test_provenance_has_one_order(tmp_path, state):
    """safetensors shuffles it in every process; the keys of unfinished runs are made from it."""
    names = [f"key{number}" for number in range(20)]
    save_tensors(state, tmp_path / "b.safetensors", dict.fromkeys(names[::-1], "x"))
    assert list(read_provenance(tmp_path / "b.safetensors")) == sorted(names)


def test_damaged_or_foreign_backbone_files_are_refused(tmp_path, state):
    path = tmp_path / "b.safetensors"
    save_tensors(state, path, {})
    with pytest.raises(InputError, match="has shape"):
        load_backbone(path, "resnet-2x1x1x2-w8")
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InputError, match="not a readable safetensors file"):
        load_backbone(path, ARCH)
    with pytest.raises(InputError, match="not a readable safetensors file"):
        read_provenance(path)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="are missing"):
        load_backbone(path, ARCH)


def test_a_dead_network_is_noticed(state):
    assert forward_check(state, ARCH, "x")["std"] > 0
    dead = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    with pytest.raises(InputError, match="x: the converted network gives no usable features"):
        forward_check(dead, ARCH, "x")


def test_detectron2_names(tmp_path, state):
    renamed = to_detectron2(state)
    assert {"stem.conv1.weight", "stem.conv1.norm.running_var", "res2.0.shortcut.norm.bias"} <= set(renamed)
    assert {"res2.1.conv3.weight", "res5.1.conv2.norm.weight"} <= set(renamed)
    kept = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    assert len(renamed) == len(kept)
    assert renamed["res5.0.shortcut.weight"] is state["layer4.0.downsample.0.weight"]
    assert renamed["res5.0.shortcut.norm.running_mean"] is state["layer4.0.downsample.1.running_mean"]
    assert renamed["res2.1.conv3.norm.bias"] is state["layer1.1.bn3.bias"]
    save_detectron2(state, tmp_path / "d2.pkl")
    content = pickle.loads((tmp_path / "d2.pkl").read_bytes())  # written by ourselves, one line above
    assert np.array_equal(content["model"]["res3.0.conv2.weight"], state["layer2.0.conv2.weight"].numpy())
    assert content["matching_heuristics"] is True

"""Writers of checkpoints as their authors publish them: nesting, extra objects, serialisation."""

import argparse
import collections
import pickle
import struct
import sys
import types
import zipfile
from contextlib import contextmanager

import google_crc32c
import numpy as np
import torch


def trainer_extras(state):
    """What training scripts store beside the weights."""
    optimizer = torch.optim.SGD([torch.zeros(2, requires_grad=True)], lr=0.1, momentum=0.9).state_dict()
    return {
        "epoch": 200,
        "arch": "resnet50",
        "optimizer": optimizer,
        "best_acc1": np.float64(60.6),
        "args": argparse.Namespace(lr=0.03, dist_url="tcp://localhost"),
        "scaler": {"scale": 65536.0},
    }


def prefixed(state, prefix):
    return {prefix + name: tensor for name, tensor in state.items()}


def linear(name, outputs, inputs):
    return {f"{name}.weight": torch.zeros(outputs, inputs), f"{name}.bias": torch.zeros(outputs)}


def torch_content(format, state, features):
    """The object that `format` saves, for the backbone `state`."""
    momentum = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    if format == "torchvision":
        return collections.OrderedDict(state | linear("fc", 1000, features))
    if format == "state-dict":
        return {"state_dict": state | linear("fc", 1000, features)}
    if format == "data-parallel":
        return trainer_extras(state) | {"state_dict": prefixed(state | linear("fc", 1000, features), "module.")}
    if format == "moco":
        tensors = prefixed(state, "module.encoder_q.") | linear("module.encoder_q.fc.0", 16, features)
        tensors |= linear("module.encoder_q.fc.2", 8, 16) | prefixed(momentum, "module.encoder_k.")
        tensors |= {"module.queue": torch.zeros(8, 32), "module.queue_ptr": torch.zeros(1, dtype=torch.long)}
        return trainer_extras(state) | {"state_dict": tensors}
    if format == "moco-v3":
        tensors = prefixed(state, "module.base_encoder.") | linear("module.base_encoder.fc.0", 16, features)
        tensors |= prefixed(momentum, "module.momentum_encoder.") | linear("module.predictor.0", 8, 8)
        return trainer_extras(state) | {"state_dict": tensors}
    if format == "simsiam":
        tensors = prefixed(state, "module.encoder.") | linear("module.encoder.fc.0", 16, features)
        return trainer_extras(state) | {"state_dict": tensors | linear("module.predictor.0", 8, 8)}
    if format == "pycontrast":
        tensors = prefixed(state, "module.encoder.") | linear("module.head.0", 16, features)
        tensors |= linear("module.head_jig.fc1", 16, features) | linear("module.head_jig.fc2", 8, 16)
        return {"model": tensors, "contrast": {"memory": torch.zeros(50, 8)}, "optimizer": {}, "epoch": 200}
    if format == "swav":
        tensors = prefixed(state, "module.") | linear("module.projection_head.0", 16, features)
        tensors |= {f"module.projection_head.1.{e}": torch.zeros(16) for e in ("weight", "bias", "running_mean")}
        tensors |= {
            "module.prototypes.weight": torch.zeros(30, 8),
            "module.prototypes.prototypes0.weight": torch.ones(3, 8),
        }
        return collections.OrderedDict(tensors)
    if format == "dino-full":
        head = linear("module.head.mlp.0", 16, features) | {"module.head.last_layer.weight_g": torch.ones(8, 1)}
        teacher = prefixed(state, "module.backbone.") | head
        return trainer_extras(state) | {"teacher": teacher, "student": prefixed(momentum, "module.backbone.")}
    if format == "mmselfsup":
        tensors = prefixed(state, "backbone.") | linear("neck.fc0", 16, features) | linear("head.fc", 8, 8)
        return {"meta": {"mmcls_version": "0.1"}, "state_dict": tensors | {"queue": torch.zeros(4, 4)}}
    if format == "vissl":
        trunk = prefixed(state, "_feature_blocks.")
        return {"classy_state_dict": {"base_model": {"model": {"trunk": trunk, "heads": {}}}}, "phase": 3}
    raise KeyError(format)


# --- TensorFlow ---


def varint(value):
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def masked(content):
    crc = google_crc32c.value(content)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def table_block(entries, restart_interval=16):
    """A LevelDB block with prefix-compressed keys."""
    content, restarts, last = bytearray(), [], b""
    for number, (key, value) in enumerate(entries):
        shared = 0
        if number % restart_interval == 0:
            restarts.append(len(content))
        else:
            while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                shared += 1
        content += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    return bytes(content) + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))


def write_bundle(prefix, variables, per_block=40):
    """Write PREFIX.index and PREFIX.data-00000-of-00001 as TensorFlow's Saver does."""
    numbers = {"float32": 1, "float64": 2, "int32": 3, "int64": 9, "float16": 19}
    data, entries = bytearray(), [(b"", b"\x08\x01\x1a\x02\x08\x01")]
    for name, value in sorted(variables.items()):
        value = np.asarray(value)
        content = value.tobytes()
        shape = b"".join(b"\x12" + varint(len(d)) + d for d in (b"\x08" + varint(size) for size in value.shape))
        entry = b"\x08" + varint(numbers[value.dtype.name]) + b"\x12" + varint(len(shape)) + shape
        entry += (b"\x20" + varint(len(data)) if data else b"") + b"\x28" + varint(len(content))
        entries.append((name.encode(), entry + b"\x35" + struct.pack("<I", masked(content))))
        data += content
    chunks = [entries[start : start + per_block] for start in range(0, len(entries), per_block)]
    write_table(
        prefix.with_name(prefix.name + ".index"), [table_block(c) for c in chunks], [c[-1][0] + b"~" for c in chunks]
    )
    prefix.with_name(prefix.name + ".data-00000-of-00001").write_bytes(data)


def write_table(path, blocks, last_keys=None):
    """Write a LevelDB table of these blocks."""
    file = bytearray()

    def add(block):
        handle = varint(len(file)) + varint(len(block))
        file.extend(block + b"\x00" + struct.pack("<I", masked(block + b"\x00")))
        return handle

    keys = last_keys or [b"%d" % number for number in range(len(blocks))]
    index = [(key, add(block)) for key, block in zip(keys, blocks, strict=True)]
    footer = add(table_block([])) + add(table_block(index, restart_interval=1))
    path.write_bytes(file + footer.ljust(40, b"\x00") + struct.pack("<Q", 0xDB4775248B80FB57))


def simclr_v1_variables(network, features):
    head = {"head_supervised/linear_layer/dense/kernel": np.full((features, 1000), 0.5, np.float32)}
    head["head_supervised/linear_layer/dense/bias"] = np.arange(1000, dtype=np.float32)
    return network.simclr_variables() | head | {"global_step": np.array(225206, np.int64)}


def simclr_v2_variables(network, average, features):
    variables = simclr_v1_variables(network, features) | average.simclr_variables("ema_model/base_model")
    variables["head_contrastive/nl_0/dense/kernel"] = np.zeros((features, 8), np.float32)
    variables["head_contrastive/nl_0/batch_normalization/gamma"] = np.ones(8, np.float32)
    trained = [name for name in variables if name.startswith("base_model/") and "moving" not in name]
    return variables | {f"{name}/Momentum": np.zeros_like(variables[name]) for name in trained}


def write_simclr_zip(path, variables, folder="ResNet50_1x/"):
    prefix = path.with_name("model.ckpt-225206")
    write_bundle(prefix, variables)
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(path.parent.glob("model.ckpt-225206.*")):
            archive.write(file, folder + file.name)
            file.unlink()
        archive.writestr(folder + "hub/variables/variables.index", b"a TF-Hub module's own")
        archive.writestr(folder + "model.ckpt-225206.meta", b"graph")


# --- haiku ---


@contextmanager
def foreign_modules(**classes):
    """Make classes importable under the names that a foreign pickle would give them."""
    added = []
    for path, value in classes.items():
        name, _, attribute = path.rpartition(".")
        parts = name.split(".")
        for package in (".".join(parts[: i + 1]) for i in range(len(parts))):
            if package not in sys.modules:
                sys.modules[package] = types.ModuleType(package)
                added.append(package)
        setattr(sys.modules[name], attribute, value)
        value.__module__, value.__qualname__ = name, attribute
    try:
        yield
    finally:
        for name in added:
            del sys.modules[name]


class FlatMapping(dict):
    """Pickles as haiku's immutable mapping does: a constructor call with a plain dict."""

    def __reduce__(self):
        return type(self), (dict(self),)


def write_byol(path, parameters, state, features):
    """Write the published pickle: protocol 2, named tuples rebuilt by name, haiku's mappings, an rng key."""
    fields = ["online_params", "target_params", "online_state", "target_state", "opt_state"]
    experiment = collections.namedtuple("BYOLState", fields)
    lars = collections.namedtuple("ScaleByLarsState", ["mu"])
    heads = {f"{part}/linear": {"w": np.zeros((features, 8), np.float32)} for part in ("projector", "predictor")}
    heads["projector/batch_norm"] = {"scale": np.ones((1, 8), np.float32)}
    heads["classifier"] = {"w": np.full((features, 1000), 0.25, np.float32), "b": np.arange(1000, dtype=np.float32)}
    averages = {"projector/batch_norm/~/mean_ema": {"average": np.zeros((1, 8), np.float32)}}
    mapping = lambda content: FlatMapping({k: FlatMapping(v) for k, v in content.items()})  # noqa: E731
    online, target = mapping(parameters | heads), mapping(parameters)
    module = "google3.learning.deepmind.research.nbr.pbl_jax.clean_jaxline.utils.optimizers"
    names = {"byol_experiment._ByolExperimentState": experiment, f"{module}.ScaleByLarsState": lars}
    names["haiku._src.data_structures.FlatMapping"] = FlatMapping
    with foreign_modules(**names):
        # Not the test runner's __main__: the name stands in a module of its own, and is renamed in the stream.
        record = experiment(online, target, mapping(state | averages), mapping(state), (lars(target),))
        content = {"experiment_state": record, "step": 300000, "rng": np.array([0, 1], np.uint32)}
        stream = pickle.dumps(content, protocol=2)
    old, new = b"cbyol_experiment\n_ByolExperimentState\n", b"c__main__\nBYOLState\n"
    assert old in stream
    path.write_bytes(stream.replace(old, new))

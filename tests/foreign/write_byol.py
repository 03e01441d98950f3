"""Write a BYOL checkpoint with haiku and dill themselves: `python write_byol.py FOLDER`.

Saves pretrain.pkl as BYOL's checkpointing does (a dill pickle, protocol 2), and expected.npz with images and features.
"""

import sys
from pathlib import Path
from typing import Any, NamedTuple

import dill
import haiku as hk
import jax
import numpy as np

WIDTH = 4


class BYOLState(NamedTuple):
    online_params: Any
    target_params: Any
    online_state: Any
    target_state: Any
    opt_state: Any


@hk.transform_with_state
def network(images, training):
    resnet = hk.nets.ResNet(
        blocks_per_group=(2, 1, 1, 2),
        num_classes=1000,
        bn_config={"decay_rate": 0.9, "eps": 1e-5, "create_scale": True, "create_offset": True},
        bottleneck=True,
        channels_per_group=tuple(4 * WIDTH * 2**stage for stage in range(4)),
        initial_conv_config={"output_channels": WIDTH, "kernel_shape": 7, "stride": 2, "with_bias": False},
        resnet_v2=False,
        name="res_net50",
    )
    resnet.logits = lambda pooled: pooled  # the classifier of BYOL stands apart from the network
    return resnet(images, is_training=training)


rng = np.random.default_rng(0)
images = rng.random((2, 64, 64, 3)).astype(np.float32)
parameters, state = network.init(jax.random.PRNGKey(0), images, True)


def uniform(tree):
    return jax.tree_util.tree_map(lambda array: rng.uniform(0.5, 1.5, array.shape).astype(np.float32), tree)


def average(values):
    return {"average": values, "hidden": values, "counter": np.int32(9)}


parameters = {name: uniform(p) if "batchnorm" in name else jax.device_get(p) for name, p in parameters.items()}
state = {name: average(uniform(entries["average"])) for name, entries in state.items()}
features, _ = network.apply(parameters, state, None, images, False)
frozen = hk.data_structures.to_immutable_dict
content = {
    "experiment_state": BYOLState(frozen(parameters), frozen(parameters), frozen(state), frozen(state), ()),
    "step": 9,
    "rng": np.array([0, 1], np.uint32),
}
folder = Path(sys.argv[1])
(folder / "pretrain.pkl").write_bytes(dill.dumps(content, protocol=2))
np.savez(folder / "expected.npz", images=images, features=np.asarray(features))

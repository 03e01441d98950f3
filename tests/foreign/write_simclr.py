"""Write a SimCLR v2 checkpoint with TensorFlow itself: `python write_simclr.py FOLDER`.

Layers are written from google-research/simclr's description: explicit symmetric padding for strided convolutions, a
SAME max pool, shortcut first. Saves model.ckpt-1.*, and expected.npz with images and pooled features.
"""

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

BLOCKS, WIDTH = (2, 1, 1, 2), 4
tf1 = tf.compat.v1
tf1.disable_eager_execution()
rng = np.random.default_rng(0)
counts = {"conv2d": 0, "batch_normalization": 0}


def variable(kind, entry, value):
    number = counts[kind]
    name = f"base_model/{kind}{f'_{number}' if number else ''}/{entry}"
    return tf1.get_variable(name, initializer=tf.constant(value.astype(np.float32)))


def conv_norm(x, outputs, kernel, stride, relu=True):
    inputs = x.shape[-1]
    weights = variable(
        "conv2d", "kernel", rng.normal(0, np.sqrt(2 / (kernel**2 * inputs)), (kernel, kernel, inputs, outputs))
    )
    counts["conv2d"] += 1
    if stride > 1:
        total = kernel - 1
        x = tf.pad(x, [[0, 0], [total // 2, total - total // 2], [total // 2, total - total // 2], [0, 0]])
    x = tf1.nn.conv2d(x, weights, stride, "SAME" if stride == 1 else "VALID")
    norm = "batch_normalization"
    gamma, variance = (variable(norm, entry, rng.uniform(0.5, 1.5, outputs)) for entry in ("gamma", "moving_variance"))
    beta, mean = (variable(norm, entry, rng.normal(0, 0.1, outputs)) for entry in ("beta", "moving_mean"))
    counts["batch_normalization"] += 1
    x = tf.nn.batch_normalization(x, mean, variance, beta, gamma, 1e-5)
    return tf.nn.relu(x) if relu else x


images = rng.random((2, 64, 64, 3)).astype(np.float32)
x = tf.constant(images)
x = tf1.nn.max_pool(conv_norm(x, WIDTH, 7, 2), 3, 2, "SAME")
for stage, count in enumerate(BLOCKS):
    for block in range(count):
        stride = 2 if stage > 0 and block == 0 else 1
        planes = WIDTH * 2**stage
        shortcut = conv_norm(x, 4 * planes, 1, stride, relu=False) if block == 0 else x
        y = conv_norm(conv_norm(x, planes, 1, 1), planes, 3, stride)
        x = tf.nn.relu(conv_norm(y, 4 * planes, 1, 1, relu=False) + shortcut)
features = tf.reduce_mean(x, [1, 2])
tf1.get_variable("global_step", initializer=tf.constant(7, tf.int64))
tf1.get_variable("head_supervised/linear_layer/dense/kernel", initializer=tf.zeros([128, 1000]))
tf1.get_variable("head_supervised/linear_layer/dense/bias", initializer=tf.zeros([1000]))
tf1.get_variable("base_model/conv2d/kernel/Momentum", initializer=tf.zeros([7, 7, 3, WIDTH]))
with tf1.Session() as session:
    session.run(tf1.global_variables_initializer())
    folder = Path(sys.argv[1])
    tf1.train.Saver().save(session, str(folder / "model.ckpt-1"))
    np.savez(folder / "expected.npz", images=images, features=session.run(features))

"""The residual network of SimCLR (TensorFlow) and BYOL (haiku), written again from their conventions in NumPy.

Images are NHWC, kernels HWIO, layers are numbered in order of creation: the shortcut of a block comes first in SimCLR
and last in haiku's sorted dictionaries. Nothing here is shared with the code under test.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

EPSILON = 1e-5


def pad(x, before, after, value=0.0):
    return np.pad(x, ((0, 0), (before, after), (before, after), (0, 0)), constant_values=value)


def same(size, kernel, stride):
    """TensorFlow's rule: (before, after) so that the output has ceil(size / stride) positions."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def conv(x, kernel, stride, padding):
    """Convolve with padding 'same', or 'fixed': symmetric, independent of the input size."""
    k = kernel.shape[0]
    before, after = same(x.shape[1], k, stride) if padding == "same" else ((k - 1) // 2, k - 1 - (k - 1) // 2)
    windows = sliding_window_view(pad(x, before, after), (k, k), axis=(1, 2))[:, ::stride, ::stride]
    return np.einsum("nhwcij,ijco->nhwo", windows, kernel, optimize=True)


def max_pool(x, padding):
    before, after = same(x.shape[1], 3, 2) if padding == "same" else (1, 1)
    return sliding_window_view(pad(x, before, after, -np.inf), (3, 3), axis=(1, 2))[:, ::2, ::2].max(axis=(4, 5))


class Network:
    """Random weights of a bottleneck network; `layers` lists (block, role, kernel, norm) in order of creation."""

    def __init__(self, blocks, width, seed=0):
        self.blocks, self.rng, self.layers = blocks, np.random.default_rng(seed), {}
        self._add("stem", 7, 3, width)
        inplanes = width
        for stage, count in enumerate(blocks):
            planes = width * 2**stage
            for block in range(count):
                if block == 0:
                    self._add((stage, block, "shortcut"), 1, inplanes, 4 * planes)
                for role, k, a, b in [(0, 1, inplanes, planes), (1, 3, planes, planes), (2, 1, planes, 4 * planes)]:
                    self._add((stage, block, role), k, a, b)
                inplanes = 4 * planes

    def _add(self, name, k, inputs, outputs):
        kernel = self.rng.normal(0, np.sqrt(2 / (k * k * inputs)), (k, k, inputs, outputs)).astype(np.float32)
        gamma, variance = self.rng.uniform(0.5, 1.5, (2, outputs)).astype(np.float32)
        beta, mean = self.rng.normal(0, 0.1, (2, outputs)).astype(np.float32)
        self.layers[name] = kernel, {"gamma": gamma, "beta": beta, "moving_mean": mean, "moving_variance": variance}

    def _conv_norm(self, x, name, stride, padding):
        kernel, norm = self.layers[name]
        x = conv(x, kernel.astype(np.float64), stride, padding)
        scale = norm["gamma"] / np.sqrt(norm["moving_variance"].astype(np.float64) + EPSILON)
        return (x - norm["moving_mean"]) * scale + norm["beta"]

    def features(self, images, conv_padding, pool_padding):
        """Pooled features of float images (n, h, w, 3)."""
        x = np.maximum(self._conv_norm(images, "stem", 2, conv_padding), 0)
        x = max_pool(x, pool_padding)
        for stage, count in enumerate(self.blocks):
            for block in range(count):
                stride = 2 if stage > 0 and block == 0 else 1
                at = lambda role, s=stage, b=block: (s, b, role)  # noqa: E731
                shortcut = self._conv_norm(x, at("shortcut"), stride, conv_padding) if block == 0 else x
                x = np.maximum(self._conv_norm(x, at(0), 1, conv_padding), 0)
                x = np.maximum(self._conv_norm(x, at(1), stride, conv_padding), 0)
                x = np.maximum(self._conv_norm(x, at(2), 1, conv_padding) + shortcut, 0)
        return x.mean(axis=(1, 2))

    def simclr_variables(self, scope="base_model"):
        """Variables by TensorFlow's names: numbered in order of creation, the first without a number."""
        variables = {}
        for number, (kernel, norm) in enumerate(self.layers.values()):
            suffix = f"_{number}" if number else ""
            variables[f"{scope}/conv2d{suffix}/kernel"] = kernel
            variables |= {f"{scope}/batch_normalization{suffix}/{entry}": value for entry, value in norm.items()}
        return variables

    def haiku_parameters(self):
        """Parameters and state by haiku's module names; arrays of batch norms have leading singleton axes."""
        parameters, state = {}, {}
        for name, (kernel, norm) in self.layers.items():
            if name == "stem":
                conv_name, norm_name = "res_net50/~/initial_conv", "res_net50/~/initial_batchnorm"
            else:
                stage, block, role = name
                at = f"res_net50/~/block_group_{stage}/~/block_{block}/~/"
                conv_name = at + ("shortcut_conv" if role == "shortcut" else f"conv_{role}")
                norm_name = at + ("shortcut_batchnorm" if role == "shortcut" else f"batchnorm_{role}")
            wide = {entry: value.reshape(1, 1, 1, -1) for entry, value in norm.items()}
            parameters[conv_name] = {"w": kernel}
            parameters[norm_name] = {"scale": wide["gamma"], "offset": wide["beta"]}
            for average, entry in [("mean_ema", "moving_mean"), ("var_ema", "moving_variance")]:
                values = {"average": wide[entry], "hidden": wide[entry], "counter": np.array(1000, np.int32)}
                state[f"{norm_name}/~/{average}"] = values
        return parameters, state

"""Feature inversion: the deep image prior, batches that share nothing, resuming, and what a reconstruction is worth."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from ssltransfer.datasets.index import Index, write_index
from ssltransfer.models.fusion import fuse_conv_bn
from ssltransfer.models.resnet import build_resnet
from ssltransfer.protocols.inversion.deep_image_prior import (
    Convolution,
    DeepImagePrior,
    DownConv,
    UpConv,
    side_by_side,
)
from ssltransfer.protocols.inversion.inversion import PixelRange, _describe, choose_batch_size, invert
from ssltransfer.protocols.inversion.settings import InversionSettings
from ssltransfer.results.tensor_file import save_tensors
from ssltransfer.settings import complete, job_settings, read_settings
from ssltransfer.training_state import Run
from workflow import REPOSITORY

torch.set_num_threads(1)
CPU = torch.device("cpu")


def settings_of(network=None, **changes):
    """The paper's settings with changes."""
    block = {"kind": "inversion", "transform": "resize32", "seed": 0, "network": network or {}}
    return read_settings(InversionSettings, block | changes)


TINY = settings_of(
    {"channels": [6, 8], "kernels": [5, 3], "skip": 2, "inputs": 4}, canvas=32, steps=12, learning_rate=1e-2
)
NAMES = ["cat", "rocket", "moon"]


def pictures(count=3, size=32):
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def run(tmp_path, names=NAMES, images=None, settings=TINY, backbone=None, batch_size=3, device=CPU, **more):
    backbone = backbone or fuse_conv_bn(build_resnet("resnet-1x1x1x1-w4", 0), device)
    images = pictures(len(names)) if images is None else images
    run = Run(tmp_path, "key", "protocol p", **more)
    found, curve = invert(backbone, images, names, "imagenet", settings, device, run, batch_size)
    return found, *curve


class Reference(nn.Module):
    """The network as Ulyanov et al. describe it, for one image, one layer after another."""

    def __init__(self, channels, kernels, skip, inputs):
        super().__init__()

        def block(*layers, width):
            return nn.Sequential(*layers, nn.BatchNorm2d(width), nn.LeakyReLU(0.2))

        self.scales = nn.ModuleList()
        for number, (width, kernel) in enumerate(zip(channels, kernels, strict=True)):
            before = channels[number - 1] if number else inputs
            behind = channels[number + 1] if number + 1 < len(channels) else width
            half = kernel // 2
            scale = nn.Module()
            scale.skip = block(nn.Conv2d(before, skip, 1), width=skip)
            scale.first = block(nn.Conv2d(before, width, kernel, padding=half), nn.AvgPool2d(2), width=width)
            scale.second = block(nn.Conv2d(width, width, kernel, padding=half), width=width)
            scale.joined = nn.BatchNorm2d(skip + behind)
            scale.up = block(nn.Conv2d(skip + behind, width, kernel, padding=half), width=width)
            scale.last = block(nn.Conv2d(width, width, 1), width=width)
            self.scales.append(scale)
        self.last = nn.Conv2d(channels[0], 3, 1)

    def forward(self, x, number=0):
        if number == len(self.scales):
            return x
        scale = self.scales[number]
        deep = self.forward(scale.second(scale.first(x)), number + 1)
        joined = torch.cat([scale.skip(x), nn.Upsample(scale_factor=2, mode="nearest")(deep)], dim=1)
        x = scale.last(scale.up(scale.joined(joined)))
        return self.last(x) if number == 0 else x


def convolutions(module):
    """Convolutions in the order in which they run."""
    found = []

    def visit(scales, number):
        scale = scales[number]
        found.extend([scale.skip[0], scale.first[0], scale.second[0]])
        if number + 1 < len(scales):
            visit(scales, number + 1)
        found.extend([scale.up[0], scale.last[0]])

    visit(module.scales, 0)
    return [*found, module.last]


def test_the_network_is_the_deep_image_prior_layer_by_layer():
    """Values and gradients, for each of two images beside each other."""
    settings = settings_of({"channels": [6, 8, 5], "kernels": [7, 5, 3], "skip": 2, "inputs": 4}, canvas=32)
    prior = DeepImagePrior(["a", "b"], settings)
    found = prior()
    weights = torch.randn(2, 3, 32, 32)
    (found * weights).sum().backward()
    ours = [module for module in prior.modules() if isinstance(module, Convolution)]
    for image in range(2):
        reference = Reference(settings.network.channels, settings.network.kernels, 2, 4)
        theirs = convolutions(reference)
        assert len(theirs) == len(ours)
        for own, other in zip(ours, theirs, strict=True):
            other.weight.data = own.weight.data.chunk(2)[image].clone()
            other.bias.data = own.bias.data.chunk(2)[image].clone()
        expected = reference(prior.noise.chunk(2, dim=1)[image])
        torch.testing.assert_close(found[image : image + 1], expected, rtol=1e-3, atol=1e-5)
        (expected * weights[image]).sum().backward()
        for own, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(own.weight.grad.chunk(2)[image], other.weight.grad, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("kernel", [1, 3, 7])
def test_down_convolution_is_a_convolution_and_the_mean_of_its_results(kernel):
    ours = DownConv(1, 3, 5, kernel)
    x = torch.randn(1, 3, 16, 16)
    expected = nn.functional.avg_pool2d(nn.functional.conv2d(x, ours.weight, ours.bias, padding=kernel // 2), 2)
    torch.testing.assert_close(ours(x), expected)


def test_one_after_another_is_what_a_gpu_does_at_once():
    x, weight, bias = torch.randn(1, 6, 8, 8), torch.randn(9, 2, 3, 3), torch.randn(9)
    expected = nn.functional.conv2d(x, weight, bias, 2, 1, groups=3)
    torch.testing.assert_close(side_by_side(x, weight, bias, 3, 1, stride=2), expected)


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
def test_up_convolution_is_a_convolution_of_the_joined_maps(kernel):
    ours = UpConv(1, 2, 3, 5, kernel)
    fine, coarse = torch.randn(1, 2, 12, 12), torch.randn(1, 3, 6, 6)
    joined = torch.cat([fine, nn.functional.interpolate(coarse, scale_factor=2.0, mode="nearest")], dim=1)
    expected = nn.functional.conv2d(joined, ours.weight, ours.bias, padding=kernel // 2)
    torch.testing.assert_close(ours(fine, coarse), expected)


def test_the_papers_network_has_the_size_of_the_original():
    """Parameters of `skip` with the paper's settings, counted by hand over its layers."""
    settings = settings_of(canvas=128).network
    expected, before = 16 * 3 + 3, 32
    for number, (width, kernel) in enumerate(zip(settings.channels, settings.kernels, strict=True)):
        joined = 4 + (settings.channels[number + 1] if number < 5 else width)
        for inputs, outputs, size in [
            (before, 4, 1), (before, width, kernel), (width, width, kernel), (joined, width, kernel), (width, width, 1),
        ]:  # fmt: skip
            expected += inputs * outputs * size**2 + outputs + 2 * outputs
        expected += 2 * joined
        before = width
    prior = DeepImagePrior(["a"], settings_of(canvas=128))
    assert sum(parameter.numel() for parameter in prior.parameters()) == expected


def test_noise_and_weights_are_those_of_the_protocol():
    prior = DeepImagePrior(["a", "b"], settings_of(canvas=128))
    assert prior.noise.shape == (1, 64, 128, 128)
    assert prior.noise.min() >= 0 and 0.0999 < prior.noise.max() < 0.1
    assert not torch.equal(*prior.noise.chunk(2, dim=1))
    first = prior.body.down[0][0]
    for part in first.weight.data.chunk(2):
        bound = (32 * 49) ** -0.5
        assert part.abs().max() < bound
        assert part.std() == pytest.approx(bound / 3**0.5, rel=0.02)


def test_an_image_does_not_depend_on_its_company(tmp_path):
    """On a CPU to the bit: alone, in another order, beside others, in batches of other sizes."""
    together, _, _ = run(tmp_path / "together")
    for batch in (1, 2):
        again, _, _ = run(tmp_path / f"by {batch}", batch_size=batch)
        np.testing.assert_array_equal(again, together)
    alone, _, _ = run(tmp_path / "alone", names=["rocket"], images=pictures()[1:2])
    np.testing.assert_array_equal(alone[0], together[1])
    other, _, _ = run(tmp_path / "turned", names=NAMES[::-1], images=pictures()[::-1].copy())
    np.testing.assert_array_equal(other, together[::-1])


def test_the_loss_falls(tmp_path):
    network = {"channels": [8, 8], "kernels": [5, 3], "skip": 2, "inputs": 8}
    settings = settings_of(network, canvas=32, steps=60, learning_rate=1e-2)
    images, interval, losses = run(tmp_path, settings=settings)
    assert len(losses) == 60 // interval
    assert losses[-1] < 0.2 * losses[0]
    assert images.shape == (3, 32, 32, 3) and images.dtype == np.float32
    assert images.min() >= 0 and images.max() <= 1


def test_the_loss_falls_alike_on_a_gpu(tmp_path, any_gpu):
    here, there = (run(tmp_path / device.type, device=device)[2] for device in (CPU, any_gpu))
    assert there == pytest.approx(here, rel=0.05)


class Linear(nn.Module):
    """A backbone that keeps everything: an invertible linear map of the pixels."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(
            torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)))[0][:, :, None, None],
            requires_grad=False,
        )

    def feature_map(self, x):
        return nn.functional.conv2d(x, self.weight)


@pytest.mark.slow
@pytest.mark.parametrize("output", ["sigmoid", "linear"])
def test_a_linear_backbone_gives_the_image_back(tmp_path, output):
    ramp = np.linspace(30, 220, 16)
    image = np.stack([np.add.outer(ramp, ramp) / 2, np.tile(ramp, (16, 1)), np.tile(ramp[::-1], (16, 1)).T], axis=-1)
    network = {"channels": [16, 16], "kernels": [3, 3], "skip": 4, "inputs": 16, "output": output}
    settings = settings_of(network, canvas=16, steps=600, learning_rate=1e-2)
    found, _, losses = run(
        tmp_path, names=["ramp"], images=image[None].astype(np.uint8), settings=settings, backbone=Linear()
    )
    assert losses[-1] < 1e-3 * losses[0]
    levels = np.abs(255 * found[0] - image.astype(np.uint8))
    assert levels.mean() < 0.5 and levels.max() < 4  # that is, to the grey level


def test_an_interrupted_run_ends_as_if_nothing_had_happened(tmp_path):
    whole, _, losses = run(tmp_path / "whole", batch_size=2)
    steps = []

    def stop(iterable, total):
        for step in iterable:
            steps.append(step)
            if len(steps) == TINY.steps + 5:  # in the second batch
                raise KeyboardInterrupt
            yield step

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "part", batch_size=2, progress=stop)
    assert len(list((tmp_path / "part").glob("*.npz"))) == 1
    counted = []
    again, _, same = run(tmp_path / "part", batch_size=2, progress=lambda steps, total: counted.append(total) or steps)
    assert counted == [TINY.steps]  # the first batch was not inverted again
    np.testing.assert_array_equal(again, whole)
    assert same == losses


def test_pixels_are_bounded_and_normalised_as_asked():
    output = 4 * torch.randn(2, 3, 8, 8)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    bounded = PixelRange("imagenet", "sigmoid", 6, CPU)
    image = torch.sigmoid(output)[:, :, :6, :6]
    torch.testing.assert_close(bounded.network_input(output), (image - mean) / std)
    torch.testing.assert_close(bounded.image(output), image.permute(0, 2, 3, 1))
    free = PixelRange("imagenet", "linear", 8, CPU)
    assert free.network_input(output) is not None
    torch.testing.assert_close(free.network_input(output), output)
    torch.testing.assert_close(free.image(output), (output * std + mean).clamp(0, 1).permute(0, 2, 3, 1))
    torch.testing.assert_close(
        PixelRange("none", "linear", 8, CPU).image(output), output.clamp(0, 1).permute(0, 2, 3, 1)
    )


def test_an_inversion_in_bfloat16_is_as_good_as_that_in_float32(tmp_path):
    """Its images are others, because many images have nearly these features."""
    exact, _, losses = run(tmp_path / "float32")
    found, _, rounded = run(tmp_path / "bfloat16", settings=replace(TINY, precision="bfloat16"))
    assert found.dtype == np.float32 and not np.array_equal(found, exact)
    error, best = (np.abs(images - pictures() / 255).mean() for images in (found, exact))
    assert error == pytest.approx(best, rel=0.03)
    assert rounded[0] == pytest.approx(losses[0], rel=0.03) and rounded[-1] < 0.1 * rounded[0]


def test_the_precision_at_its_default_is_in_no_params_and_no_resume_key():
    block = complete({"kind": "inversion", "transform": "resize32"})
    assert block["precision"] == "float32" and "precision" not in job_settings(block)
    assert "precision" not in _describe(NAMES, TINY)
    assert "'bfloat16'" in _describe(NAMES, replace(TINY, precision="bfloat16"))


def test_batches_are_small_on_a_cpu():
    assert choose_batch_size(settings_of(), CPU) == 4
    assert choose_batch_size(settings_of(), torch.device("cuda")) >= 15


JOB = """
import os, runpy, signal, sys
from types import SimpleNamespace
import torch
folder, stop, version = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
steps, step = [], torch.optim.Adam.step
def counted(self, *arguments):
    steps.append(1)
    if len(steps) == stop:
        os.kill(os.getpid(), signal.SIGTERM)
    return step(self, *arguments)
torch.optim.Adam.step = counted
network = {"channels": [4, 4], "kernels": [3, 3], "skip": 2, "inputs": 4, "noise": 0.1, "output": "sigmoid"}
settings = {"kind": "inversion", "transform": "resize32", "canvas": 32, "steps": 12, "learning_rate": 0.01}
settings |= {"network": network, "seed": 0}
snakemake = SimpleNamespace(
    input=SimpleNamespace(**{name: f"{folder}/{name}" for name in ("index", "images", "checkpoint")}),
    output=SimpleNamespace(images=f"{folder}/inverted.npz", curve=f"{folder}/curve.json"),
    log=[f"{folder}/log{stop}"],
    params=SimpleNamespace(settings=settings, arch="resnet-1x1x1x1-w4", norm="imagenet", version=version),
    wildcards={"protocol": "p", "dataset": "d"},
    resources=SimpleNamespace(save_seconds=60),
)
runpy.run_path("invert_features.py", init_globals={"snakemake": snakemake})
"""


@pytest.mark.slow
def test_a_job_goes_on_where_one_in_another_process_stopped(tmp_path):
    about = {f"key{number}": "x" for number in range(8)}  # which every process reads in another order
    save_tensors(build_resnet("resnet-1x1x1x1-w4", 0).state_dict(), tmp_path / "checkpoint", about)
    write_index(tmp_path / "index", Index(["a.png"], ["test"], [0], ["a"]))
    with (tmp_path / "images").open("wb") as file:
        np.save(file, pictures(1))

    def job(stop, version):
        words = [sys.executable, "-c", JOB, str(tmp_path), str(stop), str(version)]
        return subprocess.run(words, cwd=REPOSITORY / "scripts", capture_output=True, text=True, check=False)

    for version in (1, 2):  # code of another version starts anew
        stopped = job(5, version)
        assert stopped.returncode == 1 and "step 5 of 12" in stopped.stderr
    assert job(0, 2).returncode == 0
    assert "resuming at step 5" in (tmp_path / "log0").read_text()

"""Colour error, PSNR, SSIM and LPIPS of reconstructions."""

import json
import warnings

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio

from ssltransfer.errors import InputError
from ssltransfer.protocols.inversion.evaluation import draw_inversion, measure_inversion
from ssltransfer.protocols.inversion.image_similarity import (
    LpipsDistance,
    colour_errors,
    load_distances,
    signal_to_noise,
    structural_similarity,
)
from ssltransfer.protocols.inversion.inverted_file import Inverted
from ssltransfer.protocols.inversion.lpips_networks import LPIPS_NETWORKS
from ssltransfer.protocols.inversion.settings import EvaluationSettings
from ssltransfer.settings import read_settings


def images(size=16, count=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((count, size, size, 3)), rng.random((count, size, size, 3))


def test_colour_error_is_on_the_scale_of_grey_levels():
    original = np.full((1, 4, 4, 3), 100 / 255)
    found = np.stack([np.full((4, 4), level / 255) for level in (90, 100, 150)], axis=-1)[None]
    np.testing.assert_allclose(colour_errors(found, original), [[100, 0, 2500]], atol=1e-9)


def test_psnr_is_scikit_images():
    a, b = images()
    expected = [peak_signal_noise_ratio(y, x, data_range=1) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(signal_to_noise(a, b), expected)
    assert signal_to_noise(a, a)[0] == 100


def test_ssim_is_one_for_equal_images_and_less_for_others():
    a, b = images()
    np.testing.assert_allclose(structural_similarity(a, a), 1)
    assert (np.abs(structural_similarity(a, b)) < 0.2).all()


LARGE = pytest.param("vgg", marks=pytest.mark.slow)


@pytest.fixture(scope="module", params=[LARGE if name == "vgg" else name for name in LPIPS_NETWORKS])
def trunk(request, tmp_path_factory):
    """Random weights in the layout of torchvision's file, without the classifier."""
    import torchvision

    name = {"alexnet": "alexnet", "vgg": "vgg16", "squeezenet": "squeezenet1_1"}[request.param]
    path = tmp_path_factory.mktemp("trunk") / "weights.pth"
    torch.manual_seed(0)
    options = {"init_weights": False} if name == "vgg16" else {}
    features = getattr(torchvision.models, name)(weights=None, **options).features
    torch.save({f"features.{key}": value for key, value in features.state_dict().items()}, path)
    return request.param, path


def test_distances_are_those_of_the_package(trunk):
    """Called as its authors do, on the same trunk, with inputs from -1 to 1."""
    import lpips

    name, path = trunk
    a, b = images(size=64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        package = lpips.LPIPS(net=LPIPS_NETWORKS[name].net, pnet_rand=True, verbose=False)
    weights = torch.load(path, weights_only=True)
    for key, value in package.net.state_dict().items():
        value.copy_(weights[f"features.{key.split('.', 1)[1]}"])
    tensors = [torch.tensor(x, dtype=torch.float32).permute(0, 3, 1, 2) for x in (a, b)]
    with torch.no_grad():
        expected = package(*tensors, normalize=True).flatten().numpy()
    distance = LpipsDistance(name, path)
    np.testing.assert_allclose(distance(a, b), expected, rtol=1e-5)
    assert (distance(a, a) == 0).all() and (expected > 0).all()


def test_the_heads_are_the_learned_ones(trunk):
    """A trunk without its heads gives other distances; the package brings them along."""
    model = LpipsDistance(*trunk).model
    assert model.lpips and model.version == "0.1"
    for head in model.lins:
        weight = head.model[-1].weight
        assert (weight >= 0).all() and weight.std() > 0  # learned under a constraint that random ones do not meet


def test_weights_of_something_else_are_one_line(tmp_path):
    name = "alexnet"
    path = tmp_path / "x.pth"
    torch.save({"features.0.weight": torch.zeros(1)}, path)
    with pytest.raises(InputError, match=f"x.pth holds no weights of {name}: .*; delete it"):
        LpipsDistance(name, path)
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="holds no weights"):
        LpipsDistance(name, path)


def settings_of(**changes):
    return read_settings(EvaluationSettings, {"kind": "inversion", "transform": "resize16", "seed": 0} | changes)


HEADER = {"checkpoint": {"source": "x"}, "norm": "none", "cost": {}}


def test_a_score_has_means_over_images_and_the_values_of_each():
    originals = np.full((2, 16, 16, 3), 100, np.uint8)
    found = np.full((2, 16, 16, 3), 110 / 255)
    found[1, ..., 0] = 130 / 255
    distances = {"vgg": lambda a, b: np.abs(a - b).sum(axis=(1, 2, 3))}
    measured = measure_inversion(
        Inverted(found, ["a", "b"], HEADER), originals, distances, {}, settings_of(lpips=["vgg"])
    )
    values = {value["metric"]: value["value"] for value in measured.values}
    assert list(values) == ["lpips-vgg", "mse-red", "mse-green", "mse-blue", "psnr", "ssim"]
    assert values["mse-red"] == pytest.approx(500) and values["mse-blue"] == pytest.approx(100)
    assert measured.details["images"]["b"]["mse-red"] == pytest.approx(900)
    assert measured.preprocessing == {"transform": "resize16", "norm": "none"} and measured.warnings == []


def test_warnings_name_fewer_iterations_and_missing_distances():
    originals, found = np.zeros((1, 16, 16, 3), np.uint8), np.zeros((1, 16, 16, 3))

    def warnings(missing, **changes):
        return measure_inversion(
            Inverted(found, ["a"], HEADER), originals, {}, missing, settings_of(**changes)
        ).warnings

    (line,) = warnings({}, steps=10, lpips=["vgg"])
    assert "10" in line and "3000" in line
    (line,) = warnings({}, lpips=[])
    assert "LPIPS" in line
    (line,) = warnings({"vgg": "no network"}, lpips=["vgg"])
    assert "lpips-vgg" in line and "no network" in line


def test_distances_whose_weights_were_not_fetched_are_missing(tmp_path):
    (tmp_path / "alexnet.json").write_text(json.dumps({"absent": "no route to host"}))
    assert load_distances(["alexnet"], [tmp_path / "alexnet.json"], "cpu") == ({}, {"alexnet": "no route to host"})
    with pytest.raises(ValueError, match="zip"):
        load_distances(["alexnet", "vgg"], [tmp_path / "alexnet.json"], "cpu")


def test_pictures_say_how_pixels_are_bounded():
    originals = np.zeros((1, 16, 16, 3), np.uint8)
    for output, word in (("sigmoid", "a sigmoid"), ("linear", "clipping")):
        drawn = draw_inversion(
            Inverted(originals + 0.5, ["a"], HEADER), originals, settings_of(network={"output": output})
        )
        assert word in drawn.caption and "3000" in drawn.caption and (drawn.panels["reconstruction"] == 128).all()

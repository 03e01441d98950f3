"""Surface normals: angles against their definitions, the network against torchvision, the whole loop on tiny scenes."""

import logging
import os
import re
import runpy
import signal
import time
from dataclasses import replace
from pathlib import Path

import layouts
import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from torch.nn import functional
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.models.resnet import Bottleneck, ResNet

from ssltransfer.datasets import nyuv2
from ssltransfer.datasets.index import Index
from ssltransfer.datasets.masks import check_size, read_labels
from ssltransfer.errors import InputError
from ssltransfer.models.resnet import build_resnet
from ssltransfer.protocols.dense import frames
from ssltransfer.protocols.dense.frames import resized
from ssltransfer.protocols.dense.heads import PyramidPooling, cell_loss, parameter_groups
from ssltransfer.protocols.dense.normals import codebook, ground_truth, pictures
from ssltransfer.protocols.dense.normals.angles import MEDIAN_TOLERANCE, THRESHOLDS, AngularErrors, angles
from ssltransfer.protocols.dense.normals.dataset import NormalsDataset
from ssltransfer.protocols.dense.normals.evaluation import (
    Predictor,
    angular_errors,
    draw_predictions,
    measure_normals,
    write_image_table,
)
from ssltransfer.protocols.dense.normals.network import (
    NormalsNetwork,
    dilate,
    load_network,
    logits_to_normals,
)
from ssltransfer.protocols.dense.normals.settings import NormalsSettings
from ssltransfer.protocols.dense.normals.training import timetable, train_network
from ssltransfer.protocols.dense.padded_batches import collate, network_input
from ssltransfer.results.tensor_file import save_tensors
from ssltransfer.settings import read_settings
from ssltransfer.training_state import Run
from workflow import REPOSITORY

ARCH = "resnet-1x1x1x1-w4"
CPU = torch.device("cpu")
BLOCK = {
    "kind": "normals",
    "normalisation": "per-model",
    "frozen": "all",
    "targets": "kmeans",
    "codes": 8,
    "schedule": {"epochs": 4, "learning_rate": 0.05},
    "sides": {"train": [24, 32], "test": 32},
    "network": {"channels": 8},
    "seed": 0,
}


def changed(**values):
    """The settings of BLOCK with other values; those of a part are merged."""
    block = BLOCK | {key: BLOCK[key] | v if isinstance(v, dict) else v for key, v in values.items()}
    return read_settings(NormalsSettings, block)


SETTINGS = changed()


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def network(settings=SETTINGS, words=8):
    return NormalsNetwork(build_resnet(ARCH, 0), words, settings.network, settings.frozen, settings.seed)


@pytest.fixture
def scenes(tmp_path):
    """Twelve spheres of 40 x 32 pixels before an unknown ground, coloured by their normals."""
    y, x = np.mgrid[:32, :40].astype(np.float64)
    images, normals = [], []
    for number in range(12):
        u, v = (x + 0.5 - 14 - number) / 11, (16 - y - 0.5) / 11
        inside = u * u + v * v < 1
        z = np.sqrt(np.where(inside, 1 - u * u - v * v, 0))
        normal = np.where(inside[..., None], np.stack([u, v, z], axis=-1), 0)
        normals.append(np.round(normal * 127).astype(np.int8))
        images.append(pictures.normal_colours(normal, inside))
        Image.fromarray(images[-1]).save(tmp_path / f"{number}.png")
    normals = np.stack(normals)
    words = codebook.fit_codebook(ground_truth.unpack_normals(normals)[0][normals.any(axis=-1)], 8, 0)
    return NormalsDataset(tmp_path, [f"{number}.png" for number in range(12)], normals, words, 1000)


def train(scenes, part, changes=None, key="backbone", device=CPU, **options):
    chosen = changed(**(changes or {}))
    trained = network(chosen)
    run = Run(part, key, "protocols.test", **options)
    return trained, train_network(trained, scenes, np.arange(10), chosen, "none", run, device).losses


def same(found, expected):
    states = found[0].trained.state_dict(), expected[0].trained.state_dict()
    return found[1] == expected[1] and all(torch.equal(states[0][k], states[1][k]) for k in states[0])


# Metrics

ERRORS = hnp.arrays(np.float64, st.integers(1, 60), elements=st.floats(0, 180))


@given(st.lists(ERRORS, min_size=1, max_size=4))
@settings(deadline=None, max_examples=60)
def test_streamed_errors_are_those_of_all_pixels_at_once(images):
    streamed, pooled = AngularErrors(), np.concatenate(images)
    for image in images:
        streamed.add(image)
    assert streamed.pixels == len(pooled)
    assert streamed.mean() == pytest.approx(pooled.mean(), rel=1e-12)
    assert streamed.within() == tuple(100 * np.count_nonzero(pooled < t) / len(pooled) for t in THRESHOLDS)
    assert abs(streamed.median() - np.median(pooled)) <= MEDIAN_TOLERANCE * (1 + 1e-9)
    for image, kept in zip(images, streamed.images, strict=True):
        assert kept["pixels"] == len(image) and kept["median"] == np.median(image)
        assert kept["within"] == [100 * np.count_nonzero(image < t) / len(image) for t in THRESHOLDS]


def test_the_median_is_exact_to_its_tolerance_on_many_pixels():
    rng = np.random.default_rng(0)
    streamed, pooled = AngularErrors(), []
    for scale in (5, 20, 60):
        pooled.append(np.minimum(np.abs(rng.normal(0, scale, 200_001)), 180))
        streamed.add(pooled[-1])
    difference = abs(streamed.median() - np.median(np.concatenate(pooled)))
    assert difference <= MEDIAN_TOLERANCE == 0.0005


@given(hnp.arrays(np.float64, 5, elements=st.sampled_from(THRESHOLDS)))
@settings(deadline=None)
def test_an_error_at_the_threshold_is_not_within_it(errors):
    streamed = AngularErrors()
    streamed.add(errors)
    assert streamed.within() == tuple(100 * np.count_nonzero(errors < t) / len(errors) for t in THRESHOLDS)


def test_pooling_counts_pixels_and_not_images():
    streamed = AngularErrors()
    streamed.add(np.zeros(9))
    streamed.add(np.full(1, 100.0))
    streamed.add(np.empty(0))
    assert streamed.mean() == pytest.approx(10) and streamed.images[2] == {"pixels": 0}


def test_no_known_pixel_at_all_is_one_line():
    streamed = AngularErrors()
    streamed.add(np.empty(0))
    for value in (streamed.mean, streamed.median, streamed.within):
        with pytest.raises(InputError, match="no test image has a pixel with a known surface normal"):
            value()


VECTORS = hnp.arrays(np.float64, (7, 3), elements=st.floats(-1, 1)).filter(lambda a: (abs(a).max(axis=-1) > 0.01).all())


@given(VECTORS, VECTORS, st.floats(0.01, 100))
@settings(deadline=None)
def test_angles_are_symmetric_and_know_no_length(first, second, scale):
    found = angles(first, second)
    assert ((found >= 0) & (found <= 180)).all()
    np.testing.assert_allclose(found, angles(second, first))
    np.testing.assert_allclose(found, angles(first * scale, second), atol=1e-5)
    np.testing.assert_allclose(found + angles(-first, second), 180, atol=1e-5)


def test_angles_of_known_vectors():
    x, y, z = np.eye(3)
    found = angles(np.array([x, x, x, x, 0 * x]), np.array([x, y, -x, x + z, z]))
    np.testing.assert_allclose(found, [0, 90, 180, 45, 90], atol=1e-12)
    with pytest.raises(InputError, match="not finite"):
        angles(np.full((1, 3), np.nan), x[None])


# Code words


def test_nearest_is_the_euclidean_one():
    rng = np.random.default_rng(0)
    normals, words = unit(rng.normal(size=(50, 3))), rng.normal(size=(9, 3))
    expected = np.linalg.norm(normals[:, None] - words, axis=-1).argmin(axis=1)
    assert np.array_equal(codebook.nearest(normals, words), expected)


def test_words_are_fitted_to_clusters_and_depend_on_the_seed_alone():
    rng = np.random.default_rng(0)
    centres = unit(rng.normal(size=(5, 3)))
    normals = unit(np.repeat(centres, 200, axis=0) + 0.02 * rng.normal(size=(1000, 3)))
    words = codebook.fit_codebook(normals, 5, 3)
    assert np.array_equal(words, codebook.fit_codebook(normals, 5, 3))
    np.testing.assert_allclose(np.linalg.norm(words, axis=1), 1)
    assert angles(words, centres[codebook.nearest(words, centres)]).max() < 1
    assert len(set(codebook.nearest(words, centres))) == 5


def test_more_words_leave_smaller_angles():
    normals = unit(np.random.default_rng(0).normal(size=(4000, 3)))
    left = []
    for count in (4, 12, 40):
        words = codebook.fit_codebook(normals, count, 0)
        left.append(angles(normals, words[codebook.nearest(normals, words)]).mean())
    assert left[0] > left[1] > left[2] and left[2] < 15


def test_impossible_words_are_one_line():
    with pytest.raises(InputError, match="codes is 3; the training images have 2 different normals"):
        codebook.fit_codebook(np.eye(3)[[0, 1, 0, 1]], 3, 0)
    with pytest.raises(InputError, match=r"here: code word 1 has length 2; expected unit vectors"):
        codebook.check_codebook(np.diag([1.0, 2.0, 1.0]), "here")
    with pytest.raises(InputError, match=r"here: code word 0 has length nan"):
        codebook.check_codebook(np.full((2, 3), np.nan), "here")
    with pytest.raises(InputError, match=r"code words of shape \(1, 3\)"):
        codebook.check_codebook(np.eye(3)[:1], "here")
    normals = np.zeros((1, 2, 2, 3), np.int8)
    with pytest.raises(InputError, match="no training image has a pixel with a known surface normal"):
        ground_truth.make_codebook(SETTINGS, normals, np.array([0]), None, "here")
    with pytest.raises(InputError, match=r"here.codes: found 8; the dataset has 3 code words"):
        ground_truth.make_codebook(changed(targets="vocabulary"), normals, np.array([0]), lambda: np.eye(3), "here")


# Known normals


@given(hnp.arrays(np.float64, (3, 4, 3), elements=st.floats(-1, 1)).filter(lambda a: (abs(a).max(-1) > 0.1).all()))
@settings(deadline=None)
def test_stored_normals_are_within_two_thousandths_of_a_degree(vectors):
    normals = unit(vectors)
    encoded, zero = ground_truth.pack_normals("a", normals, np.ones((3, 4), bool))
    found, known = ground_truth.unpack_normals(encoded)
    assert known.all() and zero == 0 and found.dtype == np.float32
    # float64 again: the cosine of so small an angle is 1 in float32.
    assert angles(encoded, normals).max() < 0.002


def test_the_mask_takes_out_whatever_stands_there():
    normals = np.zeros((2, 3, 3))
    normals[..., 2] = 1
    normals[0, 0], normals[0, 1] = np.nan, 0.3
    valid = np.ones((2, 3), bool)
    valid[0, :2] = False
    encoded, _ = ground_truth.pack_normals("a", normals, valid)
    assert np.array_equal(ground_truth.unpack_normals(encoded)[1], valid)


def test_lengths_near_one_are_rounding_and_zeros_are_taken_out():
    normals = np.zeros((1, 3, 3))
    normals[0, 0, 2], normals[0, 1, 0] = 1.01, 0.99
    encoded, zero = ground_truth.pack_normals("a", normals, np.ones((1, 3), bool))
    assert zero == 1 and ground_truth.unpack_normals(encoded)[1].tolist() == [[True, True, False]]


@pytest.mark.parametrize(
    ("value", "length"), [((0, 0, 0.5), "0.5"), ((2, 0, 0), "2"), ((np.nan, 0, 1), "nan"), ((np.inf, 0, 0), "inf")]
)
def test_normals_of_other_lengths_are_one_line(value, length):
    normals = np.tile([0.0, 0.0, 1.0], (2, 2, 1))
    normals[1, 0] = value
    with pytest.raises(InputError, match=rf"frame 3: the normal of row 1, column 0 has length {length} \(1 such"):
        ground_truth.pack_normals("frame 3", normals, np.ones((2, 2), bool))


def test_masks_and_images_of_other_sizes_are_one_line(tmp_path, scenes):
    normals = np.tile([0.0, 0.0, 1.0], (2, 3, 1))
    with pytest.raises(InputError, match=r"a: normals \(2, 3, 3\) and mask \(3, 2\)"):
        ground_truth.pack_normals("a", normals, np.ones((3, 2), bool))
    with pytest.raises(InputError, match=r"a: mask of 3x2 pixels; its image b has 2x3"):
        check_size("a", np.ones((2, 3), bool), "b", (2, 3))
    dataset = [("a", normals, np.ones((2, 3), bool)), ("b", normals[:1], np.ones((1, 3), bool))]
    with pytest.raises(InputError, match="b: 3x1 pixels; the images before it have 3x2"):
        ground_truth.write_normals(dataset, 2, tmp_path / "normals.npy")
    assert not list(tmp_path.glob("*normals*"))
    Image.new("RGB", (41, 32)).save(tmp_path / "3.png")
    with pytest.raises(InputError, match=r"3.png: 41x32 pixels, its normals and mask have 40x32"):
        scenes.image(3, 32)


def test_an_image_without_a_valid_pixel_is_counted_and_named(tmp_path, caplog):
    normals = np.tile([0.0, 0.0, 1.0], (2, 3, 1))
    dataset = [("a", normals, np.ones((2, 3), bool)), ("b", normals, np.zeros((2, 3), bool))]
    counts = ground_truth.write_normals(dataset, 2, tmp_path / "normals.npy")
    assert counts == {"pixels": 12, "valid": 6, "zero": 0, "empty": 1}
    assert "b: no pixel has a known normal" in caplog.text
    array = ground_truth.open_normals(tmp_path / "normals.npy", 2)
    assert array.dtype == np.int16 and not array[1].any()
    with pytest.raises(InputError, match="2 images, but the index has 3"):
        ground_truth.open_normals(tmp_path / "normals.npy", 3)
    np.save(tmp_path / "other.npy", normals)
    with pytest.raises(InputError, match="found float64"):
        ground_truth.open_normals(tmp_path / "other.npy", 2)


def test_samples_are_known_normals_of_all_images(scenes):
    drawn = ground_truth.sample_normals(scenes.normals, np.arange(10), 0, 500)
    assert len(drawn) == 500
    np.testing.assert_allclose(np.linalg.norm(drawn, axis=1), 1, atol=1e-5)
    assert np.array_equal(drawn, ground_truth.sample_normals(scenes.normals, np.arange(10), 0, 500))


# Labels


@given(st.integers(1, 200), st.integers(1, 200))
def test_cells_cover_the_image_in_order_and_leave_the_padding_out(side, original):
    found = frames.cells(side, original, 8)
    assert len(found) == -(-side // 8)
    inside = found[found >= 0]
    assert (np.diff(inside) >= 0).all() and (inside < original).all()
    # Only a last cell whose middle lies behind the edge has no pixel.
    assert (found[:-1] >= 0).all() and (found[-1] >= 0) == (side % 8 == 0 or side % 8 > 4)


@pytest.mark.parametrize("size", [(48, 64), (24, 32), (72, 96), (40, 56), (600, 800)])
def test_cells_are_those_of_two_nearest_neighbour_resizes(size):
    """As the official code makes them: to the size of the image, then to an eighth (Pillow's nearest neighbour)."""
    place = np.stack(np.mgrid[:48, :64], axis=-1).astype(np.int32)
    found = (
        frames.label_cells(place[..., 0], *size, 8, lambda v: v),
        frames.label_cells(place[..., 1], *size, 8, lambda v: v),
    )
    for axis in range(2):
        large = Image.fromarray(place[..., axis]).resize(size[::-1], Image.Resampling.NEAREST)
        expected = np.asarray(large.resize((size[1] // 8, size[0] // 8), Image.Resampling.NEAREST))
        # Where a cell's middle falls between two pixels, rounding decides.
        assert np.abs(found[axis] - expected).max() <= 1


def test_padding_and_unknown_pixels_are_ignored(scenes):
    """Label 0 is a code word: cells of the padding must not carry it."""
    words = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    facing = np.zeros((30, 30, 3), np.int8)
    facing[..., 2] = 127
    facing[:, 20:] = 0
    labels = frames.label_cells(facing, 30, 33, 8, lambda n: ground_truth.label_normals(n, words))
    assert labels.shape == (4, 5)
    assert (labels[:, :3] == 0).all() and (labels[:, 3:] == codebook.IGNORE).all()
    image, label = scenes.example(0, 20)
    _, _, stacked = collate([(image, label), scenes.example(1, 32)], 8)
    assert (stacked[0, label.shape[0] :] == codebook.IGNORE).all()
    assert (stacked[0, :, label.shape[1] :] == codebook.IGNORE).all()


def test_images_of_labels_give_the_labels_of_the_nearest_word(tmp_path, scenes):
    labels = ground_truth.label_normals(scenes.normals[0], scenes.codebook).astype(np.uint8)
    Image.fromarray(labels).save(tmp_path / "labels.png")
    drawn = NormalsDataset(tmp_path, scenes.images, scenes.normals, scenes.codebook, 1000, ["labels.png"])
    for size in ((32, 40), (24, 30), (50, 63)):
        assert np.array_equal(drawn.labels(0, *size), scenes.labels(0, *size))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.fromarray(np.full((32, 40), 8, np.uint8)), "labels.png: label 8; expected 0 to 7, or 255 where unknown"),
        (Image.fromarray(np.zeros((32, 41), np.uint8)), "labels.png: 41x32 pixels, its image has another size"),
        (Image.new("RGB", (40, 32)), "labels.png cannot be read: mode RGB, expected one channel of 8 bit"),
    ],
)
def test_wrong_images_of_labels_are_one_line(tmp_path, scenes, image, message):
    image.save(tmp_path / "labels.png")
    drawn = NormalsDataset(tmp_path, scenes.images, scenes.normals, scenes.codebook, 1000, ["labels.png"])
    with pytest.raises(InputError, match=re.escape(message)):
        drawn.labels(0, 32, 40)


def test_missing_images_of_labels_are_one_line(tmp_path, scenes):
    with pytest.raises(InputError, match="labels .*none.png are missing"):
        read_labels(tmp_path / "none.png")
    drawn = replace(scenes, label_images=["labels.png"] * 7 + [""] * 5)
    with pytest.raises(InputError, match=r"test.targets: images, but 7.png has no image of labels \(3 of 10 training"):
        train(drawn, tmp_path / "part")


# Images


def test_sizes_follow_the_shorter_side_unless_the_longer_one_gets_too_long():
    assert [resized(640, 480, side, 1000) for side in (300, 450, 525)] == [(400, 300), (600, 450), (700, 525)]
    assert resized(480, 640, 600, 1000) == (600, 800)
    assert resized(640, 480, 600, 700) == (700, 525)
    assert resized(1000, 1, 8, 1000) == (1000, 1)


def test_the_padding_has_the_mean_colour(scenes):
    images, sizes, _ = collate([scenes.example(0, 20), scenes.example(1, 32)], 8)
    assert images.shape == (2, 32, 40, 3) and sizes == [(20, 25), (32, 40)]
    x = network_input(images, sizes, "imagenet")
    assert not x[0, :, 20:].any() and not x[0, :, :, 25:].any()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = ((images[1] / 255 - mean) / std).permute(2, 0, 1)
    torch.testing.assert_close(x[1], expected, atol=1e-5, rtol=1e-5)


# Network


@torch.inference_mode()
def test_dilation_is_torchvisions():
    reference = ResNet(Bottleneck, [1, 1, 3, 2], replace_stride_with_dilation=[False, True, True]).eval()
    backbone = build_resnet("resnet-1x1x3x2-w64")
    backbone.load_state_dict({k: v for k, v in reference.state_dict().items() if not k.startswith("fc.")})
    names = list(backbone.state_dict())
    assert list(dilate(backbone).state_dict()) == names
    x = torch.randn(1, 3, 40, 56)
    expected = create_feature_extractor(reference, ["layer4"])(x)["layer4"]
    found = backbone.eval().feature_map(x)
    assert found.shape == (1, 2048, 5, 7)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("padding", ["-same", "-samepool"])
def test_padding_as_tensorflow_does_dilates_too(padding):
    plain, other = (dilate(build_resnet(f"resnet-1x1x2x2-w4{p}", 0)).eval() for p in ("", padding))
    assert other.feature_map(torch.randn(1, 3, 64, 48)).shape == (1, 128, 8, 6)
    for stage in ("layer3", "layer4"):
        x = torch.randn(1, {"layer3": 32, "layer4": 64}[stage], 8, 6)
        torch.testing.assert_close(getattr(other, stage)(x), getattr(plain, stage)(x))


def test_the_head_is_that_of_the_protocol():
    head = PyramidPooling(2048, 40, channels=512, dropout=0.1, norm_momentum=0.1)
    shapes = {tuple(p.shape) for name, p in head.named_parameters() if "weight" in name and p.ndim == 4}
    assert shapes == {(512, 2048, 1, 1), (512, 2048 + 4 * 512, 3, 3), (40, 512, 1, 1)}
    for module in head.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert (module.weight == 1).all() and (module.bias == 1e-4).all()
    weight = head.last[0].weight
    assert weight.std().item() == pytest.approx(np.sqrt(2 / (4096 * 9)), rel=0.01)
    assert head.last[3].p == 0.1 and isinstance(head.last[3], torch.nn.Dropout2d)
    biases = [name for name, _ in head.named_parameters() if name.endswith("bias") and "last.4" in name]
    assert biases == ["last.4.bias"] and head.last[0].bias is None


@pytest.mark.parametrize("momentum", [0.1, 0.001])
def test_the_heads_running_statistics_have_the_momentum_of_the_settings(momentum, tmp_path, scenes):
    """The official code's is 0.001, and nothing but the head's batch norm has it."""
    settings = changed(frozen="first-four", network={"norm_momentum": momentum} if momentum != 0.1 else {})
    net = network(settings)
    norms = {name: module for name, module in net.named_modules() if isinstance(module, torch.nn.BatchNorm2d)}
    inside = {name for name in norms if ".head." in name}
    assert len(inside) == 5
    assert {norms[name].momentum for name in inside} == {momentum}
    assert {norms[name].momentum for name in norms if name not in inside} == {0.1}
    branch = net.trained["head"].bins[0].train()
    x = torch.randn(4, net.backbone.width, 6, 6)
    branch(x)
    seen = branch[1](branch[0](x)).flatten(1)
    torch.testing.assert_close(branch[2].running_var, 1 - momentum + momentum * seen.var(dim=0))


@torch.inference_mode()
def test_the_head_pools_in_a_pyramid():
    head = PyramidPooling(3, 2, channels=4, dropout=0.1, norm_momentum=0.1).eval()
    x = torch.randn(2, 3, 12, 18)
    stacked = [x]
    for side, branch in zip((1, 2, 3, 6), head.bins, strict=True):
        means = x.reshape(2, 3, side, 12 // side, side, 18 // side).mean(dim=(3, 5))
        stacked.append(functional.interpolate(branch[1:](means), (12, 18), mode="bilinear"))
    torch.testing.assert_close(head(x), head.last(torch.cat(stacked, dim=1)))


def test_decoding_without_padding_is_interpolation_softmax_and_mean():
    logits, words = torch.randn(2, 5, 3, 4), torch.from_numpy(unit(np.random.default_rng(0).normal(size=(5, 3))))
    found = logits_to_normals(logits, words, (24, 32), (48, 64))
    odds = functional.interpolate(logits, (48, 64), mode="bilinear", align_corners=False).softmax(dim=1)
    expected = functional.normalize(odds.permute(0, 2, 3, 1) @ words.float(), dim=-1)
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(2, 48, 64))


def test_decoding_keeps_pixels_in_place_when_the_map_reaches_into_the_padding():
    """Logits that grow evenly to the right: wherever the image ends, a pixel has the value of its place."""
    height, width = 20, 27  # padded to 24 x 32
    middle = torch.arange(4) * 8 + 4.0
    logits = torch.stack([middle.expand(3, 4) / 10, torch.zeros(3, 4)])[None]
    words = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    for original in ((20, 27), (40, 54), (33, 19)):
        found = logits_to_normals(logits, words, (height, width), original)[0]
        place = (torch.arange(original[1]) + 0.5) / original[1] * width
        expected = torch.sigmoid(place.clamp(4, 28) / 10)
        odds = found[..., 0] / (found[..., 0] + found[..., 1])
        torch.testing.assert_close(odds, expected.expand(original), atol=1e-4, rtol=1e-4)


def test_frozen_parts_stay_as_they_are_and_others_do_not(tmp_path, scenes):
    start = build_resnet(ARCH, 0).state_dict()
    for frozen, moved in (("all", set()), ("first-four", {"layer4"})):
        trained, _ = train(scenes, tmp_path / frozen, {"frozen": frozen})
        after = trained.backbone.state_dict()
        changed = {name.partition(".")[0] for name in start if not torch.equal(start[name], after[name])}
        assert changed == moved
        assert {name.partition(".")[0] for name in trained.trained.state_dict()} == {"head"} | moved


@pytest.mark.parametrize("frozen", ["all", "first-four"])
def test_a_written_network_predicts_as_before(tmp_path, scenes, frozen):
    chosen = changed(frozen=frozen)
    save_tensors(build_resnet(ARCH, 0).state_dict(), tmp_path / "backbone.safetensors", {})
    trained, _ = train(scenes, tmp_path / "part", {"frozen": frozen})
    save_tensors(trained.trained_tensors(scenes.codebook), tmp_path / "learnt.safetensors", {})
    files = tmp_path / "backbone.safetensors", ARCH, tmp_path / "learnt.safetensors"
    loaded, words = load_network(*files, chosen)
    assert np.array_equal(words, scenes.codebook)
    found, expected = (Predictor(n, scenes, 32, "none", CPU).predict(np.arange(3)) for n in (loaded, trained))
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)  # the memory is laid out differently
    with pytest.raises(InputError, match=r"learnt.safetensors is not a network of these settings"):
        load_network(*files, changed(frozen=frozen, network={"channels": 9}))


def test_training_mode_reaches_what_is_trained_alone():
    for frozen in ("all", "first-four"):
        net = network(changed(frozen=frozen)).train()
        modes = {name: m.training for name, m in net.named_modules() if isinstance(m, torch.nn.BatchNorm2d)}
        expected = ("trained",) if frozen == "all" else ("trained", "backbone.layer4")
        assert all(mode == name.startswith(expected) for name, mode in modes.items())
        assert not any(m.training for m in net.eval().modules())


def test_only_weights_of_convolutions_decay():
    net = network(changed(frozen="first-four"))
    decaying, rest = parameter_groups(net.trained, 0.02, 1e-4)
    assert all(p.ndim == 4 for p in decaying["params"]) and all(p.ndim == 1 for p in rest["params"])
    assert (decaying["weight_decay"], rest["weight_decay"]) == (1e-4, 0)
    assert len(decaying["params"]) + len(rest["params"]) == len(list(net.trained.parameters()))


# Training


@pytest.mark.parametrize(
    ("changes", "steps", "interval"),
    [
        ({"epochs": 150, "batch_size": 4}, 29_812, 199),
        ({"epochs": 150, "batch_size": 2, "epoch_steps": 90, "decay": "step"}, 13_500, 90),
    ],
)
def test_schedules_are_those_of_the_text_and_of_the_official_code(changes, steps, interval):
    found, per_epoch, rate = timetable(changed(schedule=changes).schedule, 795)
    assert (found, per_epoch) == (steps, interval)
    rates = np.array([rate(step) for step in range(steps)])
    assert rates[0] == 1 and rates[-1] > 0 and (np.diff(rates) <= 0).all()
    if changes.get("decay") == "step":
        np.testing.assert_allclose(rates, (1 - np.arange(steps) / steps) ** 0.9)
    else:
        assert len(np.unique(rates)) == 150
        np.testing.assert_allclose(np.unique(rates), (np.arange(1, 151) / 150) ** 0.9)


def test_ignored_cells_do_not_count():
    logits, labels = torch.randn(2, 5, 3, 4), torch.randint(0, 5, (2, 3, 4))
    labels[0, 0] = codebook.IGNORE
    kept = labels != codebook.IGNORE
    expected = functional.cross_entropy(logits.permute(0, 2, 3, 1)[kept], labels[kept])
    torch.testing.assert_close(cell_loss(logits, labels), expected)
    nothing = cell_loss(logits.requires_grad_(), torch.full_like(labels, codebook.IGNORE))
    nothing.backward()
    assert nothing.item() == 0 and not logits.grad.any()


def test_an_interrupted_run_ends_as_if_nothing_had_happened(tmp_path, scenes, caplog):
    whole = train(scenes, tmp_path / "whole")
    assert whole[1][-1] < whole[1][0]

    def interrupted(batches, total):
        for number, batch in enumerate(batches):
            if number == 6:
                raise KeyboardInterrupt
            yield batch

    with pytest.raises(KeyboardInterrupt):
        train(scenes, tmp_path / "part", progress=interrupted, save_seconds=0)
    assert (tmp_path / "part/state.pt").exists()
    with caplog.at_level(logging.INFO):
        for key, said in (("another backbone", "starting from the beginning"), ("backbone", "resuming at step")):
            caplog.clear()
            assert same(train(scenes, tmp_path / "part", key=key), whole)
            assert said in caplog.text


def test_a_gpu_learns_and_predicts_alike(tmp_path, scenes, any_gpu):
    changes = {"network": {"channels": 8, "dropout": 0.0}}  # whose numbers differ between devices
    (here, losses), (there, others) = (train(scenes, tmp_path / d.type, changes, device=d) for d in (CPU, any_gpu))
    assert others == pytest.approx(losses, rel=0.02)
    found, expected = (
        angular_errors(Predictor(trained, scenes, 32, "none", device), np.arange(10)).mean()
        for trained, device in ((there, any_gpu), (here, CPU))
    )
    assert found == pytest.approx(expected, rel=0.02)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # fork beside threads
def test_a_killed_run_resumes_to_the_same_network(tmp_path, scenes):
    changes = {"schedule": {"epochs": 30}}
    whole = train(scenes, tmp_path / "whole", changes)
    child = os.fork()
    if child == 0:

        def slowly(batches, total):
            for number, batch in enumerate(batches):
                time.sleep(60 if number == 40 else 0)
                yield batch

        train(scenes, tmp_path / "part", changes, progress=slowly, save_seconds=0)
        os._exit(0)
    while not (tmp_path / "part/state.pt").exists():
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    assert 0 < torch.load(tmp_path / "part/state.pt")["step"] < 75
    assert same(train(scenes, tmp_path / "part", changes), whole)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_loading_processes_and_other_settings(tmp_path, scenes):
    whole = train(scenes, tmp_path / "a")
    assert same(train(scenes, tmp_path / "b", workers=2), whole)
    assert not same(train(scenes, tmp_path / "c", {"seed": 1}), whole)
    half = train(scenes, tmp_path / "d", {"precision": "bfloat16"})
    assert {p.dtype for p in half[0].trained.parameters()} == {torch.float32}
    np.testing.assert_allclose(half[1], whole[1], rtol=0.1)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_dataset_of_the_labelled_file_train_with_loading_processes(tmp_path):
    """HDF5 files cannot be shared with a forked process; each opens its own."""
    layouts.nyuv2_labelled(tmp_path)
    index = nyuv2.index(tmp_path, "labelled")
    known = ((name, *nyuv2.read_normals(tmp_path, name)) for name in index.extra["normals"])
    assert ground_truth.write_normals(known, 3, tmp_path / "normals.npy") == {
        "pixels": 72,
        "valid": 66,
        "zero": 0,
        "empty": 0,
    }
    dataset = NormalsDataset(
        tmp_path, index.image, ground_truth.open_normals(tmp_path / "normals.npy", 3), np.eye(3), 1000
    )
    chosen = changed(schedule={"batch_size": 2, "epochs": 2, "epoch_steps": 2})
    runs = [Run(tmp_path / str(workers), "x", "here", workers) for workers in (0, 2)]
    losses = [train_network(network(chosen, 3), dataset, np.arange(2), chosen, "none", run, CPU) for run in runs]
    assert losses[0] == losses[1]
    assert angular_errors(Predictor(network(chosen, 3), dataset, 16, "none", CPU), np.array([2])).pixels == 22


def test_too_few_images_are_one_line(tmp_path, scenes):
    with pytest.raises(InputError, match="protocols.test.schedule: batch_size is 11; write at most 10"):
        train(scenes, tmp_path, {"schedule": {"batch_size": 11}})


@pytest.mark.parametrize("size", [(53, 37), (8, 9), (7, 5), (64, 31)])
def test_images_of_odd_sizes_train_and_test(tmp_path, size):
    width, height = size
    normals = np.zeros((3, height, width, 3), np.int8)
    normals[..., 2] = 127
    normals[1, :, : width // 2] = (90, 90, 0)
    normals[2] = 0  # nothing known
    for number in range(3):
        Image.new("RGB", size, (number * 80, 0, 99)).save(tmp_path / f"{number}.png")
    dataset = NormalsDataset(tmp_path, ["0.png", "1.png", "2.png"], normals, np.eye(3), 1000)
    chosen = changed(schedule={"batch_size": 2, "epochs": 1}, sides={"train": [19, 32]})
    net = network(chosen, words=3)
    train_network(net, dataset, np.arange(3), chosen, "imagenet", Run(tmp_path / "part", "x", "here"), CPU)
    errors = angular_errors(Predictor(net, dataset, 17, "imagenet", CPU), np.arange(3))
    assert [image["pixels"] for image in errors.images] == [width * height, width * height, 0]
    assert 0 <= errors.median() <= 180


def test_predictions_do_not_depend_on_the_batch(scenes):
    predictor = Predictor(network(), scenes, 20, "none", CPU)
    together = predictor.predict(np.arange(4))
    alone = np.concatenate([predictor.predict([row]) for row in range(4)])
    assert together.shape == (4, 32, 40, 3)
    np.testing.assert_allclose(together, alone, atol=1e-5, rtol=1e-5)


def test_pixels_outside_the_mask_do_not_count(scenes):
    predictor = Predictor(network(), scenes, 32, "none", CPU)
    before = angular_errors(predictor, np.arange(3))
    assert before.pixels == np.count_nonzero(scenes.normals[:3].any(axis=-1))
    predicted = predictor.predict(np.arange(3))
    known = scenes.normals[:3].any(axis=-1)
    assert before.mean() == pytest.approx(angles(predicted[known], scenes.normals[:3][known]).mean())


def test_learning_reaches_small_errors(tmp_path, scenes):
    changes = {"schedule": {"epochs": 40}, "sides": {"train": [32]}, "network": {"channels": 16, "dropout": 0.0}}
    trained, _ = train(scenes, tmp_path, changes)
    found = angular_errors(Predictor(trained, scenes, 32, "none", CPU), np.arange(10))
    fresh = angular_errors(Predictor(network(), scenes, 32, "none", CPU), np.arange(10))
    assert found.mean() < 0.75 * fresh.mean()


# Evaluation


def test_a_score_pools_pixels_and_names_what_is_not_the_papers(tmp_path):
    index = Index(["a", "b", "c"], ["train", "test", "test"], [0] * 3, ["x"])
    errors = AngularErrors()
    errors.add(np.array([0.0, 10.0, 25.0, 85.0]))
    header = {"checkpoint": {"source": "x"}, "cost": {"seconds": 1}}
    errors.add(np.empty(0))
    measured = measure_normals(errors, index, header, "none", SETTINGS)
    values = {value["metric"]: (value["value"], value["unit"]) for value in measured.values}
    assert values["mean-angle"] == (30, "degrees") and values["median-angle"][0] == pytest.approx(17.5, abs=0.001)
    assert [values[name] for name in ("within-11.25", "within-22.5", "within-30")] == [
        (50, "percent"), (50, "percent"), (75, "percent"),
    ]  # fmt: skip
    assert measured.details["images"] == {"train": 1, "test": 2} and measured.details["empty_images"] == 1
    assert ["1 of 2 test images" in measured.warnings[0], "4 epochs" in measured.warnings[1]] == [True, True]
    papers = changed(schedule={"epochs": 150, "epoch_steps": 1})
    assert len(measure_normals(errors, index, header, "none", papers).warnings) == 1
    slow = {"network": {"norm_momentum": 0.001}}
    for epoch_steps, warned in ((90, False), (9, True)):
        schedule = {"epochs": 150, "epoch_steps": epoch_steps}
        found = measure_normals(errors, index, header, "none", changed(schedule=schedule, **slow)).warnings
        assert any("norm_momentum" in warning and "26 %" in warning for warning in found) == warned
    write_image_table(tmp_path / "images.csv", ["b", "c"], errors)
    assert (tmp_path / "images.csv").read_text().splitlines()[1:] == ["b,4,30.0,17.5,50.0,50.0,75.0", "c,0,,,,,"]


# Pictures


def test_colours_of_normals_and_errors():
    axes = np.concatenate([np.eye(3), -np.eye(3)])
    assert pictures.normal_colours(axes)[:4].tolist() == [
        [255, 128, 128],
        [128, 255, 128],
        [128, 128, 255],
        [0, 128, 128],
    ]
    assert pictures.normal_colours(axes[:1], np.array([False])).tolist() == [[128, 128, 128]]
    colours = pictures.error_colours(np.array([0, 30, pictures.MAX_ERROR, 180, np.nan])).astype(int)
    assert colours.sum(axis=1)[0] < colours.sum(axis=1)[1] < 765 and colours[2:].tolist() == [
        [255] * 3,
        [255] * 3,
        [128] * 3,
    ]
    assert pictures.subsample(np.zeros((2, 480, 640, 3)), 256).shape == (2, 160, 213, 3)


def test_panels_fit_together(scenes):
    drawn = draw_predictions(Predictor(network(), scenes, 32, "none", CPU), np.arange(12), count=3)
    assert drawn.columns == ["0", "5", "11"]
    for panel in (drawn.reference | drawn.panels).values():
        assert panel.dtype == np.uint8 and panel.shape == (3, 32, 40, 3)
    unknown = ~scenes.normals[[0, 5, 11]].any(axis=-1)
    for panel in (drawn.reference["Ground truth"], drawn.panels["Error"]):
        assert (panel[unknown] == 128).all() and not (panel[~unknown] == 128).all()
    assert Path(scenes.images[0]).suffix == ".png"


@pytest.mark.slow
def test_the_operations_of_the_documentation_are_counted():
    """One step at every size in training, with the backward pass of what is trained; a test image besides."""
    counts = runpy.run_path(str(REPOSITORY / "benchmarks/operations.py"))
    assert counts["features"]() == pytest.approx(8.2e9, rel=0.01)  # 4.1 billion multiplications
    table = (REPOSITORY / "benchmarks/operations.md").read_text()
    blocks = yaml.safe_load((REPOSITORY / "config/protocols.yaml").read_text())
    for name, expected in (("normals", 87), ("normals-v1", 116)):
        settings = read_settings(NormalsSettings, blocks[name])
        training, testing = counts["normals"](settings, {"train": 795, "test": 654})
        assert f"| `{name}` | {training / 1e15:.1f} | {testing / 1e15:.1f} |" in table
        assert round(training / 1e15) == expected
        assert f"{expected} " in (REPOSITORY / "docs/performance.md").read_text()

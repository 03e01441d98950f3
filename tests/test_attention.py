"""Occlusion attention: the border, the error, the maps, and windows that give the values of the plain loop."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from ssltransfer.errors import InputError
from ssltransfer.models.fusion import fuse_conv_bn
from ssltransfer.models.resnet import SameConv2d, SameMaxPool2d, build_resnet
from ssltransfer.protocols.attention.evaluation import (
    attention_maps,
    draw_attention,
    measure_attention,
    occlude_images,
    overlay,
)
from ssltransfer.protocols.attention.mask_grid import MaskGrid, attention_map, diffusion
from ssltransfer.protocols.attention.occlusion import Occluder, WindowOccluder, relative_error
from ssltransfer.protocols.attention.receptive_field import layer
from ssltransfer.protocols.attention.settings import AttentionSettings
from ssltransfer.settings import read_settings
from ssltransfer.training_state import Run

torch.set_num_threads(1)


def network(arch, seed=0):
    """A random network whose normalisation layers do something."""
    backbone = build_resnet(arch, seed).eval()
    generator = torch.Generator().manual_seed(seed)
    for module in backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            shape = module.weight.shape
            module.weight.data = torch.rand(shape, generator=generator) + 0.5
            module.bias.data = torch.randn(shape, generator=generator)
            module.running_mean = 0.3 * torch.randn(shape, generator=generator)
            module.running_var = torch.rand(shape, generator=generator) + 0.5
    return backbone


def picture(grid, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (grid.bordered_size, grid.bordered_size, 3), dtype=np.uint8)


def test_every_pixel_of_the_paper_is_covered_by_100_of_54289_masks():
    grid = MaskGrid(224, 10, 1)
    assert (grid.bordered_size, len(grid.starts) ** 2) == (242, 54_289)
    covers = grid.coverage()
    counts = np.outer(covers.sum(1), covers.sum(1))
    assert counts.shape == (224, 224)
    assert (counts == 100).all()


@given(size=st.integers(5, 40), mask=st.integers(1, 12), data=st.data())
@hypothesis_settings(max_examples=30, deadline=None)
def test_no_pixel_stays_bare(size, mask, data):
    grid = MaskGrid(size, mask, data.draw(st.integers(1, mask)))
    assert grid.coverage().sum(1).min() >= 1
    constant = attention_map(np.full((len(grid.starts),) * 2, 0.25), grid)
    np.testing.assert_allclose(constant, 0.25, rtol=1e-12)


def test_a_stride_that_leaves_pixels_bare_is_refused():
    with pytest.raises(InputError, match="stride 11 of the mask: write 1 to 10"):
        MaskGrid(64, 10, 11)


def test_a_map_is_the_mean_over_the_masks_that_cover_a_pixel():
    grid = MaskGrid(7, 3, 1)
    errors = np.random.default_rng(0).random((len(grid.starts),) * 2)
    found = attention_map(errors, grid)
    for row in range(7):
        for column in range(7):
            expected = np.mean([errors[r, c] for r in range(row, row + 3) for c in range(column, column + 3)])
            assert found[row, column] == pytest.approx(expected, rel=1e-12)


def test_diffusion_of_known_maps():
    half = np.zeros((10, 10))
    half[:, :5] = 1
    assert diffusion(half) == 50
    assert diffusion(np.eye(10)) == 10
    assert diffusion(1 - np.eye(10)) == 90
    assert diffusion(np.full((8, 8), 0.5)) == 0
    assert diffusion(7 * half + 3) == 50


def test_the_error_knows_neither_scale_nor_offset():
    clean, changed = torch.randn(2048), torch.randn(5, 2048)
    error = relative_error(changed - clean, clean)
    by_hand = ((changed - clean) ** 2).sum(1) / ((clean - clean.mean()) ** 2).sum()
    torch.testing.assert_close(error, by_hand.sqrt().double(), rtol=1e-5, atol=0)
    for scale in (1e-3, 7.0, 1e4):
        torch.testing.assert_close(relative_error(scale * (changed - clean), scale * clean), error, rtol=1e-5, atol=0)
        torch.testing.assert_close(relative_error(changed - clean, clean + scale), error, rtol=1e-2, atol=0)
    assert relative_error(torch.zeros(1, 2048), clean) == 0


@pytest.mark.parametrize(
    ("module", "size"),
    [
        (torch.nn.Conv2d(1, 1, 7, 2, 3), 31),
        (torch.nn.Conv2d(1, 1, 3, 2, 1), 14),
        (torch.nn.Conv2d(1, 1, 1, 2), 9),
        (torch.nn.MaxPool2d(3, 2, 1), 12),
        (SameConv2d(1, 1, 3, 2), 14),
        (SameConv2d(1, 1, 7, 2), 30),
        (SameMaxPool2d(3, 2), 13),
    ],
)
def test_affected_and_needed_rows_are_those_that_a_layer_shows(module, size):
    geometry = layer(module, size)
    if isinstance(module, torch.nn.Conv2d):
        torch.nn.init.ones_(module.weight)
        torch.nn.init.zeros_(module.bias)
    for low in range(size):
        for high in range(low + 1, min(low + 4, size) + 1):
            x = torch.zeros(1, 1, size, size)
            x[0, 0, low:high] = 1
            seen = np.flatnonzero(module(x)[0, 0].sum(1).detach().numpy())
            first, behind = geometry.affected((low, high))
            assert list(seen) == list(range(first, behind))
            if len(seen):
                start, stop = geometry.needed((first, behind))
                assert stop - start == (len(seen) - 1) * geometry.stride + geometry.kernel
                # A window lies within what its outputs see, unless the layer skips rows.
                assert start <= low < high <= stop or geometry.kernel < geometry.stride


@pytest.mark.parametrize(
    ("arch", "size", "mask", "stride", "view", "feature"),
    [
        ("resnet-1x1x1x1-w4", 33, 5, 1, "crop", "pooled"),
        ("resnet-3x4x6x3-w2", 64, 10, 3, "crop", "pooled"),
        ("resnet-2x1x3x1-w4", 96, 10, 6, "crop", "map"),
        ("resnet-1x2x1x2-w4", 50, 7, 2, "frame", "pooled"),
        ("resnet-1x2x2x1-w4-same", 61, 7, 3, "crop", "pooled"),
        ("resnet-2x1x1x2-w4-samepool", 64, 10, 5, "frame", "map"),
        ("resnet50", 64, 10, 10, "crop", "pooled"),
    ],
)
@pytest.mark.parametrize("run", [3, 8])
def test_windows_give_the_values_of_the_plain_loop(arch, size, mask, stride, view, feature, run):
    grid = MaskGrid(size, mask, stride)
    arguments = fuse_conv_bn(network(arch)), picture(grid), "imagenet", grid, "grey", view, feature
    plain = Occluder(*arguments).errors()
    assert plain.max() > 1e-3
    np.testing.assert_allclose(WindowOccluder(*arguments).errors(run), plain, rtol=1e-4, atol=2e-6)


def test_the_plain_loop_is_the_networks_own_answer_on_covered_images():
    """Cover the image with its border, crop, normalise, and pass it through the unfused network."""
    grid, backbone = MaskGrid(40, 6, 4), network("resnet-1x1x1x1-w4")
    bordered = picture(grid).astype(np.float64)
    occluder = Occluder(fuse_conv_bn(backbone), picture(grid), "imagenet", grid, "white", "crop", "pooled")
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])

    def feature(pixels):
        seen = (pixels[5:45, 5:45] / 255 - mean) / std
        with torch.inference_mode():
            return backbone(torch.tensor(seen, dtype=torch.float32).permute(2, 0, 1)[None])

    clean = feature(bordered)[0]
    found = occluder.errors()
    for row, top in enumerate(grid.starts):
        for column, left in enumerate(grid.starts):
            covered = bordered.copy()
            covered[top : top + 6, left : left + 6] = 255
            expected = relative_error(feature(covered) - clean, clean)
            assert found[row, column] == pytest.approx(float(expected), rel=1e-3, abs=2e-6)


def test_the_mean_colour_is_zero_to_the_network():
    grid = MaskGrid(32, 4, 1)
    backbone = fuse_conv_bn(network("resnet-1x1x1x1-w4"))
    occluder = Occluder(backbone, picture(grid), "imagenet", grid, "mean", "crop", "pooled")
    torch.testing.assert_close(occluder.fill, torch.zeros(1, 3, 1, 1), rtol=0, atol=1e-6)
    plain = Occluder(backbone, picture(grid), "none", grid, "mean", "crop", "pooled")
    torch.testing.assert_close(plain.fill.flatten(), torch.tensor([0.485, 0.456, 0.406]))


def test_fusing_changes_nothing_but_rounding():
    backbone = network("resnet-1x2x1x1-w8-same")
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(fuse_conv_bn(backbone)(images), backbone(images), rtol=1e-4, atol=1e-5)
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in backbone.modules())


def test_finished_images_are_not_measured_again(tmp_path):
    grid = MaskGrid(32, 8, 8)
    images = np.stack([picture(grid, seed) for seed in range(2)])
    backbone, asked = fuse_conv_bn(network("resnet-1x1x1x1-w4")), []

    def occluder(image):
        asked.append(image[0, 0, 0])
        if len(asked) == 2:
            raise KeyboardInterrupt
        return WindowOccluder(backbone, image, "imagenet", grid, "mean", "crop", "pooled")

    def scanned(key):
        return occlude_images(occluder, images, 8, Run(tmp_path, key, "here"))

    with pytest.raises(KeyboardInterrupt):
        scanned("key")
    assert scanned("key").shape == (2, len(grid.starts), len(grid.starts))
    assert len(asked) == 3  # the first image was not measured again
    scanned("another")
    assert len(asked) == 5


def test_overlay_is_dark_where_attention_is_low():
    image = np.full((4, 4, 3), 128, np.uint8)
    attention = np.arange(16.0).reshape(4, 4)
    drawn = overlay(image, attention)
    assert drawn.dtype == np.uint8
    assert (np.diff(drawn.mean(axis=2).ravel()) >= 0).all()
    assert overlay(image, np.zeros((4, 4))).shape == (4, 4, 3)


@pytest.mark.parametrize("arch", ["resnet-1x1x1x1-w4", "resnet-1x1x1x1-w4-same"])
def test_a_gpu_draws_the_same_maps(arch, tmp_path, any_gpu):
    chosen = read_settings(AttentionSettings, {"kind": "attention", "size": 32, "mask": 8, "stride": 4})
    images = np.stack([picture(MaskGrid(32, 8, 4), seed) for seed in range(2)])
    here, there = (
        attention_maps(
            fuse_conv_bn(network(arch), device), images, "imagenet", chosen, device, Run(folder, "key", "here")
        )
        for device, folder in ((torch.device("cpu"), tmp_path / "cpu"), (any_gpu, tmp_path / "gpu"))
    )
    np.testing.assert_allclose(there, here, rtol=1e-3, atol=1e-4)


def test_maps_score_and_pictures_of_a_settings_block(tmp_path):
    block = {"kind": "attention", "size": 32, "mask": 8, "stride": 4}
    chosen = read_settings(AttentionSettings, block)
    images = np.stack([picture(MaskGrid(32, 8, 4), seed) for seed in range(2)])
    backbone = fuse_conv_bn(network("resnet-1x1x1x1-w4"))
    maps = attention_maps(backbone, images, "imagenet", chosen, torch.device("cpu"), Run(tmp_path, "key", "here"))
    assert maps.shape == (2, 32, 32)
    measured = measure_attention(maps, ["a", "b"], {"source": "x"}, "imagenet", chosen)
    assert measured.kind == "attention" and measured.preprocessing == {"transform": "stretch46", "norm": "imagenet"}
    assert measured.values[0]["value"] == pytest.approx(np.mean([diffusion(maps[0]), diffusion(maps[1])]))
    assert measured.details["masks"] == 100 and list(measured.details["diffusion"]) == ["a", "b"]
    assert len(measured.warnings) == 1 and "4" in measured.warnings[0]
    exact = read_settings(AttentionSettings, block | {"stride": 1})
    assert measure_attention(maps, ["a", "b"], {}, "imagenet", exact).warnings == []
    drawn = draw_attention(images, maps, ["a", "b"], chosen)
    assert np.array_equal(drawn.reference["image"], images[:, 7:39, 7:39])
    assert drawn.panels["attention"].shape == (2, 32, 32, 3) and "approximation" in drawn.caption

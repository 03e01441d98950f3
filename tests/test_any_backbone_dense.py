"""Detection, surface normals, inversion and attention on networks that are not ResNets of this project."""

import json
import runpy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

import test_detection
import test_inversion
import test_normals
from ssltransfer.datasets.index import Index, write_index
from ssltransfer.errors import InputError
from ssltransfer.models.backbone import ANY_SIZE, Backbone
from ssltransfer.models.backbone_file import build_backbone, load_backbone
from ssltransfer.models.fusion import freeze
from ssltransfer.models.grid_map import grid_map
from ssltransfer.models.resnet import build_resnet
from ssltransfer.protocols.attention.evaluation import attention_maps, measure_attention
from ssltransfer.protocols.attention.mask_grid import MaskGrid
from ssltransfer.protocols.attention.occlusion import Occluder, relative_error
from ssltransfer.protocols.attention.settings import AttentionSettings
from ssltransfer.protocols.dense.normals.evaluation import Predictor
from ssltransfer.protocols.dense.normals.network import NormalsNetwork, load_network, output_stride
from ssltransfer.protocols.dense.normals.training import train_network
from ssltransfer.protocols.detection.objects import read_annotations
from ssltransfer.protocols.detection.pyramid import SimplePyramid, build_pyramid
from ssltransfer.protocols.detection.training import build_detector, detect, train_detector
from ssltransfer.protocols.inversion.inversion import invert
from ssltransfer.results.tensor_file import save_tensors
from ssltransfer.settings import read_settings
from ssltransfer.training import Run
from workflow import REPOSITORY

torch.set_num_threads(1)
CPU = torch.device("cpu")
VIT = "timm:vit_tiny_patch16_224(depth=2,embed_dim=48,num_heads=3)"
PATCH14 = "timm:vit_small_patch14_reg4_dinov2(depth=1,embed_dim=48,num_heads=3)"
RESNET, CONVNEXT, EFFICIENTNET = "timm:test_resnet", "timm:test_convnext", "timm:test_efficientnet"
images = test_detection.images
scenes = test_normals.scenes


def build(arch, size=ANY_SIZE):
    return build_backbone(arch, size=size, seed=0).eval()


class Maps(Backbone):
    """A network of a user with maps of the given strides."""

    def __init__(self, *strides, padding=2):
        super().__init__()
        self.strides, self.channels, self.width = strides, (4,) * len(strides), 4
        self.convs = nn.ModuleList(nn.Conv2d(3, 4, 5, stride, padding) for stride in strides)

    def pooled(self, images):
        return images.mean(dim=(2, 3))

    def maps(self, images):
        return [conv(images) for conv in self.convs]

    def stages(self):
        return [list(self.parameters())]


# The common grid


@pytest.mark.parametrize(("arch", "factor"), [(VIT, 1), (PATCH14, 14 / 16), (CONVNEXT, 2)])
def test_every_network_has_a_position_for_16_pixels(arch, factor):
    backbone, x, seen = build(arch), torch.rand(1, 3, 48, 80), []
    original = backbone.maps
    backbone.maps = lambda images: seen.append(images) or original(images)
    with torch.inference_mode():
        found = grid_map(backbone, x)
    assert found.shape == (1, backbone.channels[-1], 3, 5)
    assert tuple(seen[0].shape[2:]) == (48 * factor, 80 * factor)
    if factor == 1:
        assert seen[0] is x


def test_a_bright_corner_stays_in_its_corner():
    """Resizing by the patch must not move anything: the map changes most where the image does."""
    backbone, x = build(PATCH14), torch.zeros(1, 3, 64, 96)
    changed = x.clone()
    changed[:, :, 48:, :16] = 3
    with torch.inference_mode():
        change = (grid_map(backbone, changed) - grid_map(backbone, x)).square().sum(dim=1)[0]
    assert divmod(int(change.argmax()), 6) == (3, 0)


def test_networks_without_fitting_maps_are_one_line():
    with pytest.raises(InputError, match="vectors only.*models_of"):
        build_pyramid(Maps(), 8, "none")
    with pytest.raises(InputError, match="strides 8, 16, expected 4, 8, 16 and 32 or a single one"):
        build_pyramid(Maps(8, 16), 8, "none")
    with pytest.raises(InputError, match="map of stride 4 has 31x31 positions, expected 32x32"):
        build_pyramid(Maps(4, 8, 16, 32, padding=0), 8, "none")
    with pytest.raises(InputError, match="vectors only"):
        NormalsNetwork(Maps(), 8, test_normals.SETTINGS.network, "all", 0)
    with pytest.raises(InputError, match="first-four, expected all"):
        NormalsNetwork(Maps(16), 8, test_normals.SETTINGS.network, "first-four", 0)


def test_resampling_as_dino_is_for_images_of_one_size():
    with pytest.raises(InputError, match="argument resample.*add a row without it"):
        build_backbone("timm:vit_tiny_patch16_224(depth=1,resample=dino)", size=ANY_SIZE)
    with pytest.raises(InputError, match=r"beit_base_patch16_224: timm cannot build it with dynamic_img_size=True"):
        build_backbone("timm:beit_base_patch16_224(depth=1)", size=ANY_SIZE)


# Detection


@pytest.mark.parametrize("arch", [VIT, PATCH14, RESNET, CONVNEXT])
def test_levels_have_the_strides_of_the_anchors(arch):
    levels = build_pyramid(build(arch), 8, "first-four")(torch.rand(1, 3, 64, 96))
    assert list(levels) == ["p2", "p3", "p4", "p5", "pool"]
    assert [tuple(level.shape[1:]) for level in levels.values()] == [
        (8, 16, 24), (8, 8, 12), (8, 4, 6), (8, 2, 3), (8, 1, 2)
    ]  # fmt: skip


@pytest.mark.parametrize(("width", "millions"), [(384, 3.3), (768, 5.6), (1024, 7.8)])
def test_the_simple_pyramid_has_the_size_of_vitdets(width, millions):
    with torch.device("meta"):
        backbone = Maps(16)
        backbone.channels = (width,)
        pyramid = SimplePyramid(backbone, 256, "none")
    assert sum(p.numel() for p in pyramid.branches.parameters()) / 1e6 == pytest.approx(millions, abs=0.06)
    norms = [module for module in pyramid.branches.modules() if isinstance(module, nn.LayerNorm)]
    assert len(norms) == 9 and all(norm.eps == 1e-6 for norm in norms)
    assert not any(m.bias is not None for m in pyramid.branches.modules() if type(m) is nn.Conv2d)


@pytest.mark.parametrize(
    ("arch", "frozen", "trained"),
    [
        (VIT, "first-four", set()),
        (VIT, "first-two", {"blocks.0", "blocks.1", "norm"}),
        (VIT, "none", {"blocks.0", "blocks.1", "norm", "patch_embed.proj", "pos_embed", "cls_token"}),
        (RESNET, "first-four", {"layer4.0"}),
        (RESNET, "first-two", {"layer2.0", "layer3.0", "layer4.0"}),
        (CONVNEXT, "first-four", {"stages.3"}),
        (CONVNEXT, "first-two", {"stages.1", "stages.2", "stages.3"}),
        (EFFICIENTNET, "first-four", {"blocks.4"}),
    ],
)
def test_only_what_is_not_frozen_gets_gradients(arch, frozen, trained):
    backbone = build(arch)
    norms = [name for name, module in backbone.network.named_modules() if isinstance(module, _BatchNorm)]
    batch_norms = {f"{name}.{part}" for name in norms for part in ("weight", "bias")}
    assert bool(norms) == (arch in (RESNET, EFFICIENTNET))
    state = {name: value.clone() for name, value in backbone.network.state_dict().items()}
    pyramid = build_pyramid(backbone, 8, frozen).train()
    sum(level.square().sum() for level in pyramid(torch.rand(2, 3, 64, 64)).values()).backward()
    found = {n for n, p in backbone.network.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert {".".join(name.split(".")[:2]).removesuffix(".weight").removesuffix(".bias") for name in found} == trained
    assert not found & batch_norms
    assert all(parameter.grad is not None for name, parameter in pyramid.named_parameters() if "backbone" not in name)
    # In training mode, too, no running statistic moves.
    after = backbone.network.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in state.items() if name in after)


@pytest.mark.parametrize("frozen", ["first-four", "first-two", "none"])
def test_a_residual_network_is_frozen_by_its_stages(frozen):
    backbone = build_resnet("resnet-1x2x1x1-w4", 0)
    kept = {"first-four": 4, "first-two": 2, "none": 0}[frozen]
    build_pyramid(backbone, 8, frozen)
    assert [any(p.requires_grad for p in stage) for stage in backbone.stages()] == [i >= kept for i in range(5)]


def train_on(images, arch, part, **keywords):
    folder, index = images
    settings = test_detection.settings_with()
    detector = build_detector(build(arch), arch, 3, "imagenet", settings)
    run = Run(part, arch, "block, set", **keywords)
    curve = train_detector(detector, index, read_annotations(index, "set"), folder, settings, run)
    return detector, curve.losses


@pytest.mark.parametrize("arch", [PATCH14, RESNET])
def test_a_stopped_detector_goes_on_to_the_same_losses(images, tmp_path, arch):
    def stop(batches, total):
        for number, batch in enumerate(batches):
            if number == 5:
                raise KeyboardInterrupt
            yield batch

    expected, losses = train_on(images, arch, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train_on(images, arch, tmp_path / "part", save_seconds=0.0, progress=stop)
    resumed, again = train_on(images, arch, tmp_path / "part")
    assert again == losses and np.isfinite(losses).all()
    state = expected.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in resumed.state_dict().items())
    found = detect(resumed, images[1], images[0], test_detection.settings_with())
    assert len(found.image) and np.isfinite(found.box).all()


# Surface normals


@pytest.mark.parametrize("arch", [PATCH14, CONVNEXT])
def test_normals_are_learnt_and_the_backbone_stays(arch, tmp_path, scenes):
    settings = test_normals.changed(schedule={"epochs": 30}, sides={"train": [32], "test": 32})
    scenes = test_normals.replace(scenes, stride=output_stride(arch))
    backbone = build(arch)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    network = NormalsNetwork(backbone, 8, settings.network, "all", 0)
    assert network.stride == 16 and network(torch.rand(1, 3, 32, 48)).shape == (1, 8, 2, 3)
    run = Run(tmp_path / "part", arch, "protocols.test")
    losses = train_network(network, scenes, np.arange(10), settings, "none", run, CPU).losses
    assert losses[-1] < 0.8 * losses[0]
    assert all(torch.equal(value, before[name]) for name, value in network.backbone.state_dict().items())
    assert all(parameter.grad is None for parameter in network.backbone.parameters())
    # A network that is read back predicts the same.
    save_tensors(backbone.tensors(), tmp_path / "checkpoint.safetensors", {})
    save_tensors(network.trained_tensors(scenes.codebook), tmp_path / "trained", {})
    loaded, words = load_network(tmp_path / "checkpoint.safetensors", arch, tmp_path / "trained", settings)
    assert np.array_equal(words, scenes.codebook)
    first, second = (Predictor(n, scenes, 32, "none", CPU).predict([10, 11]) for n in (network, loaded))
    assert first.shape == (2, 32, 40, 3) and np.array_equal(first, second)
    np.testing.assert_allclose(np.linalg.norm(first, axis=-1), 1, rtol=1e-5)


# Inversion


def test_the_last_map_of_a_transformer_is_inverted(tmp_path):
    backbone = freeze(build(VIT, 32))
    settings = test_inversion.settings_of(
        {"channels": [6, 8], "kernels": [5, 3], "skip": 2, "inputs": 4}, canvas=32, steps=60, learning_rate=1e-2
    )
    found, _, losses = test_inversion.run(tmp_path, backbone=backbone, settings=settings)
    assert found.shape == (3, 32, 32, 3) and losses[-1] < 0.7 * losses[0]


def test_the_map_is_normed_and_without_the_tokens_beside_it():
    backbone = build(PATCH14, 56)
    x = torch.rand(2, 3, 56, 56)
    with torch.inference_mode():
        tokens = backbone.network.forward_features(x)[:, 5:]
        torch.testing.assert_close(backbone.feature_map(x).flatten(2).transpose(1, 2), tokens, rtol=0, atol=1e-5)


# Attention


@pytest.mark.parametrize(("arch", "pool", "feature"), [(VIT, "", "pooled"), (VIT, "mean", "pooled"), (CONVNEXT, "", "map")])
def test_attention_is_the_answer_of_the_network_on_covered_images(arch, pool, feature):
    grid = MaskGrid(32, 8, 6)
    backbone = freeze(build_backbone(arch, pool, 32, seed=0))
    picture = np.random.default_rng(0).integers(0, 256, (grid.bordered_size,) * 2 + (3,), dtype=np.uint8)
    found = Occluder(backbone, picture, "none", grid, "black", "crop", feature).errors(2)

    def answer(pixels):
        x = torch.tensor(pixels[7:39, 7:39] / 255, dtype=torch.float32).permute(2, 0, 1)[None]
        with torch.inference_mode():
            return backbone.pooled(x) if feature == "pooled" else backbone.feature_map(x).flatten(1)

    clean = answer(picture)[0]
    for row, top in enumerate(grid.starts):
        for column, left in enumerate(grid.starts):
            covered = picture.copy()
            covered[top : top + 8, left : left + 8] = 0
            expected = float(relative_error(answer(covered) - clean, clean))
            assert found[row, column] == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_the_readout_is_part_of_an_attention_score(tmp_path):
    settings = read_settings(AttentionSettings, {"kind": "attention", "size": 32, "mask": 8, "stride": 8})
    pictures = np.random.default_rng(0).integers(0, 256, (1, 46, 46, 3), dtype=np.uint8)
    found = {}
    for pool in ("", "mean"):
        backbone = freeze(build_backbone(VIT, pool, 32, seed=0))
        run = Run(tmp_path / f"part{pool}", "key", "here")
        found[pool] = attention_maps(backbone, pictures, "none", settings, CPU, run)
        measured = measure_attention(found[pool], ["a"], {}, "none", settings, pool=pool)
        assert measured.preprocessing.get("pool", "") == pool
    assert np.abs(found[""] - found["mean"]).max() > 1e-4


# Whole jobs

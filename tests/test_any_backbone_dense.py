"""Detection, surface normals, inversion and attention on networks that are not ResNets of this project."""

import json
import re
import runpy
from types import SimpleNamespace

import numpy as np
import pytest
import test_detection
import test_inversion
import test_normals
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ssltransfer.config.costs import _relative_dense, read_unit_costs
from ssltransfer.config.suite import Suite
from ssltransfer.config.task_checks import check_networks
from ssltransfer.datasets.index import Index, write_index
from ssltransfer.errors import InputError
from ssltransfer.models.backbone import ANY_SIZE, Backbone
from ssltransfer.models.backbone_file import build_backbone
from ssltransfer.models.fusion import freeze
from ssltransfer.models.grid_map import grid_map
from ssltransfer.models.protocol_fit import misfit
from ssltransfer.models.resnet import build_resnet
from ssltransfer.models.timm_catalog import find_network
from ssltransfer.protocols.attention.evaluation import attention_maps
from ssltransfer.protocols.attention.mask_grid import MaskGrid
from ssltransfer.protocols.attention.occlusion import Occluder, relative_error
from ssltransfer.protocols.attention.settings import AttentionSettings
from ssltransfer.protocols.dense.normals.evaluation import Predictor
from ssltransfer.protocols.dense.normals.network import NormalsNetwork, load_network, output_stride
from ssltransfer.protocols.dense.normals.training import train_network
from ssltransfer.protocols.detection.objects import read_annotations
from ssltransfer.protocols.detection.pyramid import SimplePyramid, build_pyramid
from ssltransfer.protocols.detection.training import build_detector, detect, train_detector
from ssltransfer.results.tensor_file import save_tensors
from ssltransfer.settings import complete, read_settings
from ssltransfer.training_state import Run
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


@pytest.mark.parametrize(
    ("arch", "pool", "feature"), [(VIT, "", "pooled"), (VIT, "mean", "pooled"), (CONVNEXT, "", "map")]
)
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


def test_an_interrupted_image_goes_on_with_its_next_row(tmp_path):
    settings = read_settings(AttentionSettings, {"kind": "attention", "size": 32, "mask": 8, "stride": 8})
    pictures = np.random.default_rng(0).integers(0, 256, (1, 46, 46, 3), dtype=np.uint8)
    backbone, lengths = freeze(build(CONVNEXT, None)), []

    def measure(part, stop=99):
        def progress(rows, total):
            lengths.append(total)
            for number, row in enumerate(rows):
                if number == stop:
                    raise KeyboardInterrupt
                yield row

        return attention_maps(backbone, pictures, "none", settings, CPU, Run(part, "key", "here", progress=progress))

    expected = measure(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        measure(tmp_path / "part", stop=2)
    assert np.array_equal(measure(tmp_path / "part"), expected)
    assert lengths == [5, 5, 3] and len(list((tmp_path / "part").iterdir())) == 1


def test_another_readout_gives_another_map(tmp_path):
    settings = read_settings(AttentionSettings, {"kind": "attention", "size": 32, "mask": 8, "stride": 8})
    pictures = np.random.default_rng(0).integers(0, 256, (1, 46, 46, 3), dtype=np.uint8)
    first, second = (
        attention_maps(
            freeze(build_backbone(VIT, pool, 32, seed=0)), pictures, "none", settings, CPU, Run(tmp_path, pool, "here")
        )
        for pool in ("", "mean")
    )
    assert np.abs(first - second).max() > 1e-4


# Whole jobs


def run_script(name, folder, inputs, outputs, params):
    """Run a rule's script as Snakemake does."""

    class Named(dict):
        __getattr__ = dict.__getitem__

    snakemake = SimpleNamespace(
        input=Named({key: str(folder / value) for key, value in inputs.items()}),
        output=Named({key: str(folder / value) for key, value in outputs.items()}),
        params=SimpleNamespace(**params),
        resources=SimpleNamespace(data_root=str(folder), save_seconds=60),
        wildcards=Named(protocol="p", model="m", dataset="d"),
        threads=1,
        log=[str(folder / f"{name}.log")],
    )
    runpy.run_path(str(REPOSITORY / f"scripts/{name}.py"), init_globals={"snakemake": snakemake})


def checkpoint_of(arch, folder):
    """A converted checkpoint of a network with random weights."""
    provenance = {"source": "timm:x", "arch": arch}
    save_tensors(build_backbone(arch, seed=0).tensors(), folder / "checkpoint.safetensors", provenance)


def read_score(folder):
    return json.loads((folder / "score.json").read_text())


@pytest.mark.parametrize("arch", [PATCH14, RESNET])
def test_a_detector_of_another_network_is_trained_and_evaluated(tmp_path, arch):
    write_index(tmp_path / "index", test_detection.make_images(tmp_path, train=6, test=4))
    checkpoint_of(arch, tmp_path)
    block = test_detection.BLOCK | {"schedule": {"batch_size": 2, "steps": 3, "milestones": [2], "warmup": 1}}
    source = ["folder", str(tmp_path), ""]
    params = {"settings": block, "norm": "half=0.5/0.5/0.5:0.5/0.5/0.5", "source": source}
    inputs = {"index": "index", "checkpoint": "checkpoint.safetensors"}
    outputs = {"trained": "trained.safetensors", "predictions": "predictions.npz", "curve": "curve.json"}
    run_script("train_detector", tmp_path, inputs, outputs, params | {"arch": arch, "version": "1+1"})
    given = {"index": "index", "predictions": "predictions.npz", "trained": "trained.safetensors"}
    outputs = {"score": "score.json", "pictures": "pictures.npz"}
    run_script("evaluate_detection", tmp_path, given, outputs, params | {"version": 1})
    score = read_score(tmp_path)
    assert {value["metric"] for value in score["values"]} == {"ap", "ap50", "ap75"}
    assert score["preprocessing"]["norm"] == "half" and score["versions"]["protocol"] == "1+1.1"
    assert any("whole backbone is frozen" in warning for warning in score["warnings"]) == (arch == PATCH14)


def test_normals_of_another_network_are_trained_and_evaluated(tmp_path, scenes):
    checkpoint_of(PATCH14, tmp_path)
    splits = ["train"] * 8 + ["test"] * 4
    (tmp_path / "set").mkdir()
    for path in scenes.images:
        (scenes.root / path).rename(tmp_path / "set" / path)
    write_index(tmp_path / "index", Index(list(scenes.images), splits, [0] * 12, ["all"]))
    np.save(tmp_path / "normals.npy", scenes.normals)
    block = test_normals.BLOCK | {"schedule": {"epochs": 1, "learning_rate": 0.05}}
    params = {"settings": block, "arch": PATCH14, "norm": "none", "source": ["folder", str(tmp_path / "set"), ""]}
    inputs = {"index": "index", "normals": "normals.npy", "checkpoint": "checkpoint.safetensors"}
    outputs = {"trained": "trained.safetensors", "curve": "curve.json"}
    run_script("train_normals", tmp_path, inputs, outputs, params | {"version": "1+1"})
    outputs = {"score": "score.json", "images": "images.csv", "pictures": "pictures.npz"}
    inputs |= {"trained": "trained.safetensors"}
    run_script("evaluate_normals", tmp_path, inputs, outputs, params | {"version": "1+1"})
    score = read_score(tmp_path)
    assert score["preprocessing"]["stride"] == 16 and score["versions"]["protocol"] == "1+1.1+1"
    assert "labels and logits every 16 pixels, those of ResNets every 8" in score["warnings"]


def test_images_are_reconstructed_from_another_network(tmp_path):
    checkpoint_of(VIT, tmp_path)
    write_index(tmp_path / "index", Index(["a.png"], ["test"], [0], ["a"]))
    np.save(tmp_path / "images.npy", test_inversion.pictures(1))
    network = {"channels": [4, 4], "kernels": [3, 3], "skip": 2, "inputs": 4}
    block = {"kind": "inversion", "transform": "resize32", "canvas": 32, "steps": 5, "network": network, "lpips": []}
    given = {key: value for key, value in block.items() if key != "lpips"}
    inputs = {"index": "index", "images": "images.npy", "checkpoint": "checkpoint.safetensors"}
    params = {"settings": given, "arch": VIT, "norm": "imagenet", "version": "2+1"}
    run_script("invert_features", tmp_path, inputs, {"images": "inverted.npz", "curve": "curve.json"}, params)
    inputs = {"inverted": "inverted.npz", "originals": "images.npy"}
    outputs = {"score": "score.json", "pictures": "pictures.npz"}
    run_script("evaluate_inversion", tmp_path, inputs, outputs, {"settings": block, "version": 2})
    score = read_score(tmp_path)
    assert score["versions"]["protocol"] == "2+1.2" and score["preprocessing"]["norm"] == "imagenet"


@pytest.mark.parametrize("pool", ["", "mean"])
def test_attention_of_another_network_is_measured(tmp_path, pool):
    checkpoint_of(VIT, tmp_path)
    write_index(tmp_path / "index", Index(["a.png"], ["test"], [0], ["a"]))
    np.save(tmp_path / "images.npy", test_inversion.pictures(1, 46))
    inputs = {"index": "index", "images": "images.npy", "checkpoint": "checkpoint.safetensors"}
    outputs = {"score": "score.json", "maps": "maps.npz", "pictures": "pictures.npz"}
    block = {"kind": "attention", "size": 32, "mask": 8, "stride": 8}
    arch = [VIT, pool] if pool else VIT
    params = {"settings": block, "arch": arch, "norm": "imagenet", "version": "1+1"}
    run_script("evaluate_attention", tmp_path, inputs, outputs, params)
    score = read_score(tmp_path)
    assert score["checkpoint"].get("pool", "") == pool and 0 < score["values"][0]["value"] < 100
    assert "timm" in score["versions"]


# Suites


def refusal(arch, kind, **settings):
    return misfit(arch, kind, complete({"kind": kind, **settings}))


DETECTION = {"backend": "torchvision", "frozen": "first-four"}


@pytest.mark.parametrize(
    ("arch", "kind", "settings", "message"),
    [
        ("none", "detection", DETECTION, "needs a network, found given features"),
        (VIT, "detection", DETECTION | {"backend": "detectron2"}, "builds ResNets only; write .* backend: torchvision"),
        ("timm:beit_base_patch16_224", "detection", DETECTION, "images of several sizes, this one takes 224 pixels"),
        ("timm:hiera_tiny_224", "normals", {}, "images of several sizes"),
        ("timm:vit_small_patch14_dinov2(resample=dino)", "normals", {}, "add a row without resample"),
        ("timm:resnet18", "normals", {"frozen": "first-four"}, "write a settings block with frozen: all"),
        ("timm:vit_small_patch14_dinov2", "attention", {"view": "frame"}, "242 pixels .* multiple of its patch of 14"),
        ("resnet50", "inversion", {"transform": "resize512"}, "512 pixels, expected at most the canvas of 256"),
    ],
)
def test_pairs_that_cannot_work_are_one_line(arch, kind, settings, message):
    assert re.search(message, refusal(arch, kind, **settings))


def test_detection_needs_all_strides_or_one(monkeypatch):
    network = find_network("timm:resnet18")._replace(strides=(8, 16, 32))
    monkeypatch.setattr("ssltransfer.models.protocol_fit.find_network", lambda arch: network)
    assert "4, 8, 16 and 32 or a single one, found 8, 16, 32" in refusal("timm:resnet18", "detection", **DETECTION)
    monkeypatch.setattr("ssltransfer.models.protocol_fit.find_network", lambda arch: network._replace(strides=()))
    assert "needs feature maps" in refusal("timm:resnet18", "inversion")
    assert refusal("timm:resnet18", "attention") == ""
    assert "needs feature maps" in refusal("timm:resnet18", "attention", feature="map")


@pytest.mark.parametrize(
    "arch", ["resnet50", VIT, PATCH14, "timm:resnet18", "timm:convnext_atto", "torchvision:resnet18"]
)
def test_what_can_work_is_not_refused(arch):
    assert not any(
        refusal(arch, kind, **(DETECTION if kind == "detection" else {}))
        for kind in ("detection", "normals", "inversion", "attention", "linear")
    )


def test_a_suite_names_task_and_model_that_do_not_fit():
    config = {"tasks": {"detect": ["d"]}, "models_of": {}, "protocols": {}}
    config["protocols"]["detect"] = complete({"kind": "detection", "backend": "detectron2", "frozen": "none"})
    rows = {name: {"arch": arch, "size": ""} for name, arch in (("good", "resnet50"), ("vit", VIT))}
    with pytest.raises(InputError, match=r"^config: tasks\.detect: model 'vit' \(timm:vit_tiny.*models_of\.detect$"):
        check_networks(Suite(config, rows, {}, {}))
    check_networks(Suite(config | {"models_of": {"detect": ["good"]}}, rows, {}, {}))


# Costs


def test_other_networks_cost_by_their_weights_and_the_plain_loop():
    units = read_unit_costs()
    small, base = "timm:vit_small_patch16_224", "timm:vit_base_patch16_224"
    assert _relative_dense(units, "resnet50", "normals") == 1
    assert _relative_dense(units, base, "detection") / _relative_dense(units, small, "detection") == pytest.approx(
        4, 0.03
    )
    # A patch of 14 on an image resized by 14/16 has as many tokens as one of 16.
    ratio = _relative_dense(units, "timm:vit_small_patch14_dinov2", "normals") / _relative_dense(
        units, small, "normals"
    )
    assert ratio == pytest.approx(1, rel=0.03)
    assert _relative_dense(units, "timm:resnet18", "normals") == 4 * _relative_dense(
        units, "timm:resnet18", "detection"
    )
    assert units["attention-plain"].cpu_seconds / units["attention"].cpu_seconds == pytest.approx(3.39, rel=0.01)

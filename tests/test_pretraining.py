"""Pretraining: losses against independent formulas, views, and the loop (seeded, resumable)."""

import copy
import logging
import math
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch.nn import functional
from torchvision.transforms import functional as reference

from ssltransfer.datasets.index import Index, write_index
from ssltransfer.errors import InputError
from ssltransfer.models.backbone_file import build_backbone, load_backbone
from ssltransfer.models.resnet import build_resnet
from ssltransfer.pretraining import methods
from ssltransfer.pretraining import recipe as recipes
from ssltransfer.pretraining.augmentation import Augmentation, augment, crop, recolour, rotate_hue
from ssltransfer.pretraining.recipe import (
    TrainingData,
    batches,
    describe_pretraining,
    pretrain,
    read_recipe,
    schedule,
)
from ssltransfer.results.tensor_file import save_tensors
from ssltransfer.results.tensor_header import encode_metadata, read_provenance
from ssltransfer.settings import job_recipe
from ssltransfer.training_state import Run

ROOT = Path(__file__).parent.parent
ARCH = "resnet-1x1x1x1-w2"
VIT = "timm:vit_tiny_patch16_224(depth=1,embed_dim=16,num_heads=2)"
HEADS = {
    "supervised": {},
    "simclr": {"hidden": 16, "output": 8, "temperature": 0.2},
    "byol": {"hidden": 16, "output": 8, "momentum": 0.9},
    "barlow-twins": {"hidden": 16, "output": 8, "redundancy": 0.01},
    "vicreg": {"hidden": 16, "output": 8, "invariance": 25, "variance": 25, "covariance": 1},
    "swav": {"hidden": 16, "output": 8, "prototypes": 6, "temperature": 0.1, "epsilon": 0.05},
    "dino": {"hidden": 16, "output": 8, "prototypes": 6, "temperature": 0.1, "epsilon": 0.05, "momentum": 0.9},
}
RECIPE = {
    "seed": 1,
    "dataset": "shapes",
    "transform": "resize32",
    "epochs": 3,
    "batch_size": 8,
    "learning_rate": 1e-3,
    "warmup": 0.1,
    "weight_decay": 0.01,
    "augmentation": {"crop": [0.3, 1.0], "flip": 0.5},
}


@pytest.fixture
def embeddings():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(7, 5, generator=generator), torch.randn(7, 5, generator=generator) + 0.5


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (44, 32, 32, 3), dtype=np.uint8)


@pytest.fixture
def labels():
    return np.arange(44) % 4


def recipe(method="simclr", **changes):
    return read_recipe("test", {"method": method, **RECIPE, "head": HEADS.get(method, {}), **changes})


def strength(**changes):
    return read_recipe("test", {"method": "none", "seed": 0, "augmentation": changes}).augmentation


STRONG = Augmentation((0.2, 1.0), 0.5, 0.8, 0.4, 0.4, 0.4, 0.1, 0.2)


def train(images, labels, part, chosen, key="1", arch=ARCH, **options):
    run = Run(part, key, chosen.config_path, **options)
    return pretrain(TrainingData(images, labels, np.arange(40)), chosen, arch, "imagenet", run)


# Losses


def test_nt_xent_is_equation_1_of_simclr(embeddings):
    z = [v / v.norm() for v in torch.cat(embeddings)]
    n = len(z)
    total = 0.0
    for i in range(n):
        partner = (i + n // 2) % n
        scores = {k: math.exp(float(z[i] @ z[k]) / 0.3) for k in range(n) if k != i}
        total -= math.log(scores[partner] / sum(scores.values()))
    assert methods.nt_xent(*embeddings, 0.3).item() == pytest.approx(total / n, rel=1e-5)


def test_barlow_twins_is_equation_1_with_numpy(embeddings):
    a, b = ((z - z.mean(0)) / np.sqrt(z.var(0) + 1e-5) for z in (v.double().numpy() for v in embeddings))
    correlation = a.T @ b / len(a)
    diagonal = np.diag(correlation)
    expected = ((1 - diagonal) ** 2).sum() + 0.02 * ((correlation**2).sum() - (diagonal**2).sum())
    assert methods.barlow_twins(*embeddings, 0.02).item() == pytest.approx(expected, rel=1e-4)


def test_vicreg_terms_with_numpy(embeddings):
    a, b = (v.double().numpy() for v in embeddings)
    invariance, variance, covariance = methods.vicreg_terms(*embeddings)
    assert invariance.item() == pytest.approx(((a - b) ** 2).mean(), rel=1e-5)
    hinge = [np.maximum(0, 1 - np.sqrt(z.var(0, ddof=1) + 1e-4)).mean() for z in (a, b)]
    assert variance.item() == pytest.approx(np.mean(hinge), rel=1e-4)
    matrices = [np.cov(z.T) for z in (a, b)]
    expected = sum(((m - np.diag(np.diag(m))) ** 2).sum() / len(m) for m in matrices)
    assert covariance.item() == pytest.approx(expected, rel=1e-4)


def test_sinkhorn_gives_every_cluster_the_same_weight():
    scores = torch.randn(24, 6, generator=torch.Generator().manual_seed(0))
    assignment = methods.sinkhorn(scores, 0.5, iterations=100)
    torch.testing.assert_close(assignment.sum(1), torch.ones(24))
    torch.testing.assert_close(assignment.sum(0), torch.full((6,), 4.0))
    # The optimum is diag(u) exp(scores / epsilon) diag(v): cross-ratios are those of the scores.
    log = assignment.log() - scores / 0.5
    cross = log[:-1, :-1] + log[1:, 1:] - log[1:, :-1] - log[:-1, 1:]
    torch.testing.assert_close(cross, torch.zeros_like(cross), atol=1e-4, rtol=0)


def test_byol_target_follows_slowly_and_stops_at_the_end():
    torch.manual_seed(0)
    method = methods.BYOL(build_resnet(ARCH, 0), hidden=16, output=8, momentum=0.9)
    online, target = method.projector[0].weight, method.target[1][0].weight
    before = target.clone()
    with torch.no_grad():
        online += 1
    method.after_step(0.5)  # momentum 1 - 0.1 * (cos(pi / 2) + 1) / 2 = 0.95
    torch.testing.assert_close(target, before + 0.05)
    method.after_step(1.0)
    torch.testing.assert_close(target, before + 0.05)
    assert not any(p.requires_grad for p in method.target.parameters())


def test_byol_compares_each_view_with_the_target_of_the_other():
    torch.manual_seed(0)
    method = methods.BYOL(build_resnet(ARCH, 0), hidden=16, output=8, momentum=0.9).eval()
    views, labels = torch.rand(6, 3, 32, 32), torch.zeros(3, dtype=torch.long)
    p = functional.normalize(method.predictor(method.projector(method.backbone(views))))
    t = functional.normalize(method.target(views))
    expected = sum((p[i] - t[(i + 3) % 6]).square().sum() for i in range(6)) / 6
    torch.testing.assert_close(method(views, labels), expected)


def test_dino_is_equation_3_with_the_teacher_of_the_other_view():
    torch.manual_seed(0)
    method = methods.DINO(build_backbone(ARCH, seed=0), **HEADS["dino"] | {"momentum": 0.5})
    with torch.no_grad():
        method.prototypes.weight += 1
        method.backbone.conv1.weight *= 1.5
    method.after_step(0.0)  # the teacher is half way between the networks before and after the change
    views, labels = torch.rand(8, 3, 32, 32), torch.zeros(4, dtype=torch.long)

    student, teacher = copy.deepcopy(method.student()), copy.deepcopy(method.teacher)
    p, t = (head(trunk(views)) for trunk, head, _ in (student, teacher))
    total = 0.0
    for i in range(8):
        j = (i + 4) % 8
        other = slice(0, 4) if j < 4 else slice(4, 8)
        taught = functional.cosine_similarity(t[other, None], teacher[2].weight[None], dim=-1)
        assigned = methods.sinkhorn(taught, 0.05)[j % 4]
        scores = functional.cosine_similarity(p[i], student[2].weight, dim=-1) / 0.1
        total -= (assigned * (scores - scores.logsumexp(0))).sum()
    found = method(views, labels)
    torch.testing.assert_close(found, total / 8)
    found.backward()
    assert method.backbone.conv1.weight.grad.abs().sum() > 0
    assert all(q.grad is None and not q.requires_grad for q in method.teacher.parameters())


def test_the_teacher_of_dino_follows_the_student():
    torch.manual_seed(0)
    method = methods.DINO(build_backbone(VIT, size=32, seed=0), **HEADS["dino"])
    before = [p.clone() for p in method.teacher.parameters()]
    with torch.no_grad():
        for parameter in method.student().parameters():
            parameter += 1
    method.after_step(0.0)
    for old, new in zip(before, method.teacher.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.1)


# Views


def test_no_augmentation_leaves_images_as_they_are(images):
    views = augment(torch.from_numpy(images), strength(), torch.Generator().manual_seed(0))
    torch.testing.assert_close(views, torch.from_numpy(images).float(), atol=1e-2, rtol=0)


def test_views_are_seeded_and_stay_in_range(images):
    first, second, other = (
        augment(torch.from_numpy(images), STRONG, torch.Generator().manual_seed(s)) for s in (0, 0, 1)
    )
    assert torch.equal(first, second) and not torch.equal(first, other)
    assert first.min() >= 0 and first.max() <= 255


def test_crop_is_torchvisions_resized_crop(images):
    """Area 1/4 in the upper left corner, resized back; the interior, where edges play no part."""
    pixels = torch.from_numpy(images).float()
    draws = torch.tensor([[0.0, 0.5, 0.0, 0.0, 0.9]]).repeat(len(pixels), 1)
    found = crop(pixels, strength(crop=(0.25, 0.25)), draws).permute(0, 3, 1, 2)
    expected = reference.resized_crop(pixels.permute(0, 3, 1, 2), 0, 0, 16, 16, [32, 32], antialias=False)
    torch.testing.assert_close(found[..., 2:-2, 2:-2], expected[..., 2:-2, 2:-2], atol=1e-2, rtol=0)


def test_flip_mirrors(images):
    pixels = torch.from_numpy(images).float()
    found = crop(pixels, strength(flip=1.0), torch.full((len(pixels), 5), 0.5))
    torch.testing.assert_close(found, pixels.flip(2), atol=1e-2, rtol=0)


@pytest.mark.parametrize(
    ("changes", "position", "expected"),
    [
        (strength(jitter=1, brightness=0.3), 1, lambda x: reference.adjust_brightness(x, 0.7)),
        (strength(jitter=1, contrast=0.3), 2, lambda x: reference.adjust_contrast(x, 0.7)),
        (strength(jitter=1, saturation=0.3), 3, lambda x: reference.adjust_saturation(x, 0.7)),
        (strength(grey=1), 0, lambda x: reference.rgb_to_grayscale(x, 3)),
    ],
)
def test_colour_operations_are_torchvisions(images, changes, position, expected):
    pixels = torch.from_numpy(images).float()
    draws = torch.full((len(pixels), 6), 0.5)
    draws[:, 0] = 0
    draws[:, position] = 0  # the lower end of the range
    expected = expected(pixels.permute(0, 3, 1, 2) / 255).permute(0, 2, 3, 1) * 255
    torch.testing.assert_close(recolour(pixels, changes, draws), expected, atol=0.1, rtol=0)


def test_a_third_of_a_hue_turn_exchanges_the_channels():
    matrix = rotate_hue(torch.tensor([2 * math.pi / 3]))[0]
    torch.testing.assert_close(matrix, torch.eye(3).roll(1, 0), atol=1e-6, rtol=0)


# The loop


def test_every_step_has_its_own_images_and_each_epoch_all_of_them():
    chosen = recipe()
    rows = np.arange(100, 140)
    steps = list(batches(rows, chosen, 0))
    assert len(steps) == 15
    for epoch in range(3):
        assert sorted(np.concatenate(steps[epoch * 5 : epoch * 5 + 5])) == list(rows)
    assert not np.array_equal(steps[0], steps[5])
    for found, expected in zip(batches(rows, chosen, 7), steps[7:], strict=True):
        assert np.array_equal(found, expected)


def test_schedule():
    assert schedule(0.05, 0.1) == pytest.approx(0.5)
    assert schedule(0.1, 0.1) == 1
    assert schedule(0.55, 0.1) == pytest.approx(0.5)
    assert schedule(0.999999, 0.0) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("method", HEADS)
def test_every_method_trains_and_repeats(method, images, labels, tmp_path):
    chosen = recipe(method, learning_rate=3e-3, epochs=8)
    state, losses = train(images, labels, tmp_path, chosen)
    again, _ = train(images, labels, tmp_path, chosen)
    assert len(losses) == 8 and losses[-1] < max(losses)
    build_resnet(ARCH).load_state_dict(state)
    assert all(torch.equal(state[name], again[name]) for name in state)
    initial = build_resnet(ARCH, 1).state_dict()
    assert not torch.equal(state["conv1.weight"], initial["conv1.weight"])


@pytest.mark.parametrize("method", HEADS)
def test_every_method_trains_in_bfloat16(method, images, labels, tmp_path, monkeypatch):
    """Near the float32 run; losses and views are not rounded, and defaults are in no params."""
    types, build = set(), recipes.build_method

    def watched(*arguments):
        built = build(*arguments)
        built.register_forward_hook(lambda _, inputs, loss: types.add(("views and loss", inputs[0].dtype, loss.dtype)))
        built.backbone.conv1.register_forward_hook(lambda *found: types.add(("map", found[-1].dtype)))
        return built

    monkeypatch.setattr(recipes, "build_method", watched)
    chosen = recipe(method, precision="bfloat16")
    state, losses = train(images, labels, tmp_path, chosen)
    assert types == {("views and loss", torch.float32, torch.float32), ("map", torch.bfloat16)}
    assert all(tensor.dtype != torch.bfloat16 for tensor in state.values())
    monkeypatch.undo()
    _, exact = train(images, labels, tmp_path / "exact", recipe(method))
    assert losses[0] == pytest.approx(exact[0], rel=0.05) and losses != exact


def test_the_precision_at_its_default_is_in_no_params():
    written = {"method": "simclr", **RECIPE, "head": HEADS["simclr"]}
    assert job_recipe(written | {"precision": "float32"}) == written
    assert job_recipe(written | {"precision": "bfloat16"})["precision"] == "bfloat16"
    assert "precision" not in recipe().resume_settings


@pytest.mark.parametrize("loss", ["nt_xent", "barlow_twins", "vicreg_terms"])
def test_losses_of_lower_precision_are_those_of_the_embeddings(loss, embeddings):
    a, b = (z.bfloat16() for z in embeddings)
    settings = () if loss == "vicreg_terms" else (0.1,)
    with torch.autocast("cpu", torch.bfloat16):
        found = getattr(methods, loss)(a, b, *settings)
    expected = getattr(methods, loss)(a.float(), b.float(), *settings)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_no_method_is_the_seeded_initialisation(tmp_path):
    state, losses = train(None, None, tmp_path, recipe("none"))
    expected = build_resnet(ARCH, 1).state_dict()
    assert losses == [] and all(torch.equal(state[name], expected[name]) for name in expected)


def test_a_transformer_is_built_for_the_images_of_its_recipe(images, labels, tmp_path):
    """It starts from the seeded initialisation, and its checkpoint is read at any size."""
    chosen = recipe("dino", epochs=1)
    state, losses = train(images, labels, tmp_path / "part", chosen, arch=VIT)
    initial = build_backbone(VIT, size=32, seed=1).tensors()
    assert len(losses) == 1 and state["pos_embed"].shape == (1, 1 + 2 * 2, 16)
    assert not any(torch.equal(state[name], initial[name]) for name in ("patch_embed.proj.weight", "pos_embed"))

    path = tmp_path / "model.safetensors"
    save_tensors(state, path, encode_metadata(describe_pretraining(chosen, VIT, losses, [1, 1], {})))
    pixels = torch.rand(2, 3, 32, 32)
    network = build_backbone(VIT, size=32)
    network.load_tensors(state)
    torch.testing.assert_close(load_backbone(path, VIT, size=32)(pixels), network.eval()(pixels), rtol=0, atol=0)
    assert load_backbone(path, VIT, "mean", 64)(torch.rand(2, 3, 64, 64)).shape == (2, 16)


def test_headers_of_residual_networks_name_no_size():
    chosen = recipe()
    assert "size" not in describe_pretraining(chosen, ARCH, [1.0], 1, {})
    assert describe_pretraining(chosen, VIT, [1.0], [1, 1], {})["size"] == 32


@pytest.mark.parametrize(("method", "arch"), [("byol", ARCH), ("swav", ARCH), ("dino", VIT)])
def test_an_interrupted_run_ends_with_the_same_weights(method, arch, images, labels, tmp_path, monkeypatch, caplog):
    chosen = recipe(method)
    whole, losses = train(images, labels, tmp_path / "whole", chosen, arch=arch)

    calls = iter(range(7))  # interrupted in the middle of the second epoch

    def interrupted(*args):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return augment(*args)

    monkeypatch.setattr(recipes, "augment", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(images, labels, tmp_path / "parts", chosen, arch=arch, save_seconds=0)
    monkeypatch.undo()
    with caplog.at_level(logging.INFO):
        resumed, resumed_losses = train(images, labels, tmp_path / "parts", chosen, arch=arch)
    assert "resuming at step 7" in caplog.text
    assert resumed_losses == losses
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize("other", [{"chosen": recipe(seed=2)}, {"chosen": recipe(), "key": "2"}])
def test_the_state_of_another_run_is_left_alone(other, images, labels, tmp_path, caplog):
    expected, _ = train(images, labels, tmp_path / "clean", recipe())
    train(images, labels, tmp_path / "part", **other, save_seconds=0)
    with caplog.at_level(logging.INFO):
        found, _ = train(images, labels, tmp_path / "part", recipe())
    assert "starting from the beginning" in caplog.text
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 41}, "test: batch_size is 41; write at most 40, the training images of shapes"),
        ({"learning_rate": 1e30}, "the loss is (nan|inf) between steps 1 and 5; write a learning_rate below 1e"),
    ],
)
def test_impossible_recipes_are_one_line(changes, message, images, labels, tmp_path):
    with pytest.raises(InputError, match=message) as error:
        train(images, labels, tmp_path, recipe(**changes))
    assert "\n" not in str(error.value)


def test_supervised_needs_one_label_an_image(images, labels, tmp_path):
    many = labels[:, None] == np.arange(4)
    with pytest.raises(InputError, match="several labels"):
        train(images, many, tmp_path, recipe("supervised"))


def test_a_cpu_trains_with_one_thread(images, labels, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("a GPU is here")
    torch.set_num_threads(2)
    train(images, labels, tmp_path, recipe(epochs=1))
    assert torch.get_num_threads() == 1


def test_short_training_leaves_usable_batch_norm_statistics(images, labels, tmp_path):
    """In evaluation mode the features are neither vanishing nor exploding."""
    state, _ = train(images, labels, tmp_path, recipe(epochs=1))
    backbone = build_resnet(ARCH)
    backbone.load_state_dict(state)
    features = backbone.eval()(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127 - 1)
    assert torch.isfinite(features).all() and 0.01 < features.std() < 100


# The product


@pytest.mark.parametrize(("method", "arch"), [*((method, ARCH) for method in HEADS), ("dino", VIT)])
def test_a_gpu_learns_alike(method, arch, images, labels, tmp_path, any_gpu, monkeypatch):
    means = []
    for device in (torch.device("cpu"), any_gpu):
        monkeypatch.setattr(recipes, "choose_device", lambda device=device: device)
        means.append(np.mean(train(images, labels, tmp_path / device.type, recipe(method), arch=arch)[1]))
    assert means[1] == pytest.approx(means[0], rel=0.02)


def test_recipes_name_their_settings_and_agree_with_the_methods():
    for name, settings in yaml.safe_load((ROOT / "config/pretraining.yaml").read_text()).items():
        chosen = read_recipe(name, settings)
        if chosen.method != "none":
            head = chosen.head | ({"classes": 2} if chosen.method == "supervised" else {})
            methods.METHODS[chosen.method](build_resnet(ARCH, 0), **head)


def test_script_writes_a_backbone_and_removes_the_state(images, labels, tmp_path):
    np.save(tmp_path / "images.npy", images)
    splits = ["train"] * 40 + ["test"] * 4
    write_index(tmp_path / "index.parquet", Index([f"{i}" for i in range(44)], splits, labels, list("abcd")))
    chosen = {"method": "simclr", **RECIPE, "epochs": 1, "head": HEADS["simclr"]}
    job = SimpleNamespace(
        input={"images": tmp_path / "images.npy", "index": tmp_path / "index.parquet"},
        output=SimpleNamespace(checkpoint=str(tmp_path / "model.safetensors")),
        log=[str(tmp_path / "log")],
        resources=SimpleNamespace(save_seconds=60),
        params=SimpleNamespace(recipe_name="tiny", recipe=chosen, arch=ARCH, norm="none", version=1),
    )
    (tmp_path / "model.safetensors.part").mkdir()
    runpy.run_path(str(ROOT / "scripts/pretrain_model.py"), init_globals={"snakemake": job})
    load_backbone(tmp_path / "model.safetensors", ARCH)
    assert not (tmp_path / "model.safetensors.part").exists()
    provenance = read_provenance(tmp_path / "model.safetensors")
    assert provenance["source"] == "pretrain:tiny" and provenance["version"] == "1"
    assert load_file(tmp_path / "model.safetensors")["conv1.weight"].dtype == torch.float32

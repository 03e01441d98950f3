"""Finetuning: views, schedule and optimisers against torchvision and torch; shared runs, interruptions, selection."""

import json
import math
from dataclasses import replace
from itertools import chain, pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from timm.optim import param_groups_weight_decay
from torch.nn import functional

from ssltransfer.datasets.images import parse_transform
from ssltransfer.datasets.index import Index
from ssltransfer.errors import InputError
from ssltransfer.models.backbone_file import build_backbone
from ssltransfer.models.module_backbone import ModuleBackbone
from ssltransfer.protocols.finetune import training as finetune_training
from ssltransfer.protocols.finetune.evaluation import finetune_labels, measure_finetune, selection_warnings
from ssltransfer.protocols.finetune.inputs import crop_flip, crop_rectangle, make_views
from ssltransfer.protocols.finetune.network import Classifier, classification_loss, make_optimiser
from ssltransfer.protocols.finetune.settings import FinetuneSettings, Schedule, Trial, trials
from ssltransfer.protocols.finetune.training import FinetuneData, Finetuning, rate_factor
from ssltransfer.settings import defaults, read_settings
from ssltransfer.training_batches import batch_rows
from ssltransfer.training_state import Run

ARCH, SIDE, CLASSES = "resnet-1x1x1x1-w4", 16, 3
CPU = torch.device("cpu")
SMALL = {
    "kind": "finetune",
    "transform": f"resize{SIDE}",
    "schedule": {"steps": 6, "batch_size": 8},
    "grid": {"augmentations": ["crop-flip", "centre"], "learning_rates": [0.1, 0.01], "weight_decays": [0, 1e-3]},
}
ADAMW = Schedule("adamw", batch_size=8, steps=6, momentum=0.9, clip=1.0, warmup=0)


def photograph(row):
    """A noisy image of a size of its own, whose brightness tells its class."""
    random = np.random.default_rng(row)
    pixels = random.integers(0, 120, (20 + row % 5, 26 - row % 3, 3)) + 60 * (row % CLASSES)
    return Image.fromarray(pixels.astype(np.uint8))


def an_index(parts=(20, 10, 10), multi_label=False):
    split = [name for name, count in zip(("train", "val", "test"), parts, strict=True) for _ in range(count)]
    labels = [[row % CLASSES] if multi_label else row % CLASSES for row in range(len(split))]
    return Index([f"{row}.png" for row in range(len(split))], split, labels, [str(k) for k in range(CLASSES)])


def finetuning(folder, block=SMALL, index=None, workers=0, device=CPU, save_seconds=60.0, read=photograph, **options):
    index = index or an_index()
    settings = read_settings(FinetuneSettings, block)
    network = Classifier(build_backbone(ARCH, seed=0), CLASSES, settings.seed)
    data = FinetuneData(read, index.image, finetune_labels(index, settings), CLASSES, "imagenet")
    run = Run(folder, "key", "protocols.test, dataset", workers, save_seconds=save_seconds)
    return Finetuning(network, data, settings, run, device, **options)


def measured(folder, block=SMALL, index=None, metric="top1", **options):
    index = index or an_index()
    return measure_finetune(finetuning(folder, block, index, **options), index, "dataset", metric, {"source": "x"})


def same(found, expected):
    return found.trial == expected.trial and found.losses == expected.losses and np.array_equal(
        found.logits, expected.logits
    )  # fmt: skip


# Inputs


class FromTorch:
    """A generator that draws what torchvision draws, from torch's global generator."""

    def uniform(self, low, high):
        return torch.empty(1).uniform_(low, high).item()

    def integers(self, limit):
        return torch.randint(0, limit, size=(1,)).item()

    def random(self):
        return torch.rand(1).item()


@pytest.mark.parametrize("size", [(64, 48), (20, 30), (200, 10), (10, 300), (7, 7)])
def test_views_are_the_pixels_of_torchvision(size):
    """With the same draws: random resized crop and flip, and resize and centre crop."""
    transforms = pytest.importorskip("torchvision.transforms")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8))
    bicubic = transforms.InterpolationMode.BICUBIC
    official = transforms.Compose(
        [transforms.RandomResizedCrop(32, interpolation=bicubic), transforms.RandomHorizontalFlip()]
    )
    flipped = set()
    for seed in range(20):
        torch.manual_seed(seed)
        expected = np.asarray(official(image))
        torch.manual_seed(seed)
        found = crop_flip(image, 32, FromTorch())
        torch.manual_seed(seed)
        transforms.RandomResizedCrop.get_params(image, (0.08, 1.0), (3 / 4, 4 / 3))
        flipped.add(bool(torch.rand(1) < 0.5))
        assert np.array_equal(found, expected)
    assert flipped == {True, False}
    centre = transforms.Compose([transforms.Resize(32, interpolation=bicubic), transforms.CenterCrop(32)])
    views = make_views(image, ("centre",), 32, parse_transform("resize32")[1], np.random.default_rng(0))
    assert np.array_equal(views["centre"], np.asarray(centre(image)))


def test_rectangles_have_the_stated_distribution():
    random, (width, height) = np.random.default_rng(0), (600, 500)
    found = np.array([crop_rectangle(width, height, random) for _ in range(3000)])
    left, top, wide, high = found.T
    assert (left >= 0).all() and (left + wide <= width).all() and (top >= 0).all() and (top + high <= height).all()
    area, aspect = wide * high / (width * height), wide / high
    assert 0.079 < area.min() < 0.09 and area.max() > 0.95
    assert 0.74 < aspect.min() < 0.76 and 1.32 < aspect.max() < 1.35
    small = area < 0.5  # rectangles of nearly the whole image are rejected for some aspects
    assert abs(np.log(aspect[small]).mean()) < 0.02 and abs(area[small].mean() - 0.29) < 0.02


def test_the_two_views_share_the_decoded_image_and_not_the_draws():
    image, centre = photograph(3), parse_transform("resize16")[1]
    both = make_views(image, ("centre", "crop-flip"), 16, centre, np.random.default_rng(5))
    for name, pixels in both.items():
        (alone,) = make_views(image, (name,), 16, centre, np.random.default_rng(5)).values()
        assert np.array_equal(pixels, alone) and pixels.shape == (16, 16, 3)


# Schedule, loss and optimisers


def test_learning_rates_are_those_of_the_official_schedule():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([parameter], lr=0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=5000)
    factor, found, expected = rate_factor(5000, 0), [], []
    for step in range(5000):
        expected.append(optimiser.param_groups[0]["lr"])
        found.append(0.1 * factor(step))
        optimiser.step()
        scheduler.step()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-12)
    assert found[0] == 0.1 and 0 < found[-1] < 1e-7


def test_a_warm_up_rises_to_the_peak_and_the_cosine_falls_from_it():
    factor = rate_factor(100, 5)
    rates = [factor(step) for step in range(100)]
    assert rates[:6] == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1]) and np.argmax(rates) == 5
    assert (np.diff(rates[5:]) < 0).all() and rates[-1] == pytest.approx(0.5 * (1 + math.cos(math.pi * 94 / 95)))


def test_losses_are_the_official_ones():
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 2, 1, 1, 0])
    assert classification_loss(logits, labels) == functional.cross_entropy(logits, labels)
    several = functional.one_hot(labels, 3)
    expected = torch.nn.BCEWithLogitsLoss()(logits, several.float())
    assert classification_loss(logits, several.bool()).item() == pytest.approx(expected.item(), rel=1e-6)
    ignored = several.to(torch.int8)
    ignored[0, 1] = ignored[4, 2] = -1
    counted = functional.binary_cross_entropy_with_logits(logits, several.float(), reduction="none")[ignored >= 0]
    assert classification_loss(logits, ignored).item() == pytest.approx(counted.mean().item(), rel=1e-6)


def test_steps_are_those_of_the_official_optimiser():
    """Three steps of SGD on a fixed batch: zero_grad, backward, optimiser, then scheduler; everything decays."""
    images = torch.randn(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    labels, trial = torch.tensor([0, 1, 2, 0]), Trial("centre", 0.05, 1e-3, 1)
    ours = Classifier(build_backbone(ARCH, seed=0), CLASSES, 0).train()
    theirs = ours.copied()
    optimiser = make_optimiser(ours, read_settings(FinetuneSettings, SMALL).schedule, trial)
    factor = rate_factor(3, 0)
    official = torch.optim.SGD(theirs.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-3 / 0.05)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(official, 3)
    for step in range(3):
        for group in optimiser.param_groups:
            group["lr"] = 0.05 * factor(step)
        loss = classification_loss(ours(images), labels)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        official.zero_grad()
        expected = functional.cross_entropy(theirs(images), labels)
        expected.backward()
        official.step()
        scheduler.step()
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-5, atol=1e-6)


def test_adamw_has_layer_wise_rates_and_decays_matrices_alone():
    network = Classifier(build_backbone(ARCH, seed=0), CLASSES, 0)
    optimiser = make_optimiser(network, ADAMW, Trial("centre", 1e-3, 0.05, 0.5))
    assert isinstance(optimiser, torch.optim.AdamW)
    rates = {id(p): group["lr"] for group in optimiser.param_groups for p in group["params"]}
    decays = {id(p): group["weight_decay"] for group in optimiser.param_groups for p in group["params"]}
    assert len(rates) == len(list(network.parameters()))
    parts = [*network.backbone.stages(), list(network.head.parameters())]
    for depth, part in enumerate(reversed(parts)):
        assert {rates[id(p)] for p in part} == {1e-3 * 0.5**depth}
    assert {decays[id(p)] for p in network.parameters() if p.ndim > 1} == {0.05}
    assert {decays[id(p)] for p in network.parameters() if p.ndim <= 1} == {0.0}


def test_adamw_does_not_decay_what_the_network_names():
    """As timm's and MAE's optimisers: class token and position embedding, which are no vectors in shape."""
    network = Classifier(build_backbone("timm:vit_tiny_patch16_224", size=32, seed=0), CLASSES, 0)
    vit = network.backbone.network
    for layer_decay in (1, 0.5):
        optimiser = make_optimiser(network, ADAMW, Trial("centre", 1.0, 0.05, layer_decay))
        decays = {id(p): group["weight_decay"] for group in optimiser.param_groups for p in group["params"]}
        assert len(decays) == len(list(network.parameters()))
        assert decays[id(vit.cls_token)] == decays[id(vit.pos_embed)] == 0
        assert decays[id(vit.patch_embed.proj.weight)] == decays[id(network.head.weight)] == 0.05
    groups = param_groups_weight_decay(vit, 0.05, no_weight_decay_list=vit.no_weight_decay())
    expected = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert expected.items() <= decays.items()


def test_gradients_are_clipped_before_the_step():
    network = Classifier(build_backbone(ARCH, seed=0), CLASSES, 0)
    optimiser = make_optimiser(
        network, replace(ADAMW, optimiser="sgd", momentum=0.0, clip=0.5), Trial("centre", 1.0, 0, 1)
    )
    before = [p.detach().clone() for p in network.parameters()]
    (1000 * network(torch.randn(4, 3, SIDE, SIDE)).sum()).backward()
    optimiser.step()
    moved = torch.cat([(p - b).flatten() for p, b in zip(network.parameters(), before, strict=True)])
    assert moved.norm().item() == pytest.approx(0.5, rel=1e-3)


def test_a_vision_transformer_has_a_part_for_each_block():
    network = Classifier(build_backbone("timm:vit_tiny_patch16_224", size=32, seed=0), CLASSES, 0)
    optimiser = make_optimiser(network, ADAMW, Trial("centre", 1.0, 0.05, 0.5))
    rates = {id(p): group["lr"] for group in optimiser.param_groups for p in group["params"]}
    assert len(rates) == len(list(network.parameters()))
    blocks = [rates[id(block.norm1.weight)] for block in network.backbone.network.blocks]
    assert all(after == 2 * before for before, after in pairwise(blocks))
    assert rates[id(network.backbone.network.patch_embed.proj.weight)] < blocks[0]
    assert blocks[-1] < rates[id(network.head.weight)] == 1.0


def test_the_head_depends_on_the_seed_alone():
    backbone = build_backbone(ARCH, seed=0)
    heads = []
    for seed in (0, 0, 1):
        torch.rand(3)
        heads.append(Classifier(backbone, CLASSES, seed).head.weight)
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])
    bound = 1 / math.sqrt(backbone.width)
    assert heads[0].abs().max() <= bound and heads[0].std().item() == pytest.approx(bound / math.sqrt(3), rel=0.15)


# Shared runs


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """All members of the grid trained together, without interruption, with the score."""
    folder = tmp_path_factory.mktemp("whole")
    return search(finetuning(folder)), measured(folder)


def search(runs, chosen=None):
    index = an_index()
    rows = [np.flatnonzero(index.split_array() == part) for part in ("train", "val")]
    return runs.search(trials(runs.settings.grid) if chosen is None else chosen, *rows)


def test_bfloat16_learns_from_images_whose_last_maps_are_one_pixel(tmp_path):
    """Where oneDNN loses the gradients of kernels with a stride (see `precision`), so that the run would diverge."""
    block, rows = SMALL | {"schedule": {"steps": 12, "batch_size": 32}, "precision": "bfloat16"}, np.arange(40)
    result = finetuning(tmp_path, block).refit(Trial("centre", 0.01, 0.0, 1.0), rows, rows)
    assert np.isfinite(result.logits).all() and np.mean(result.losses[-3:]) < 0.6 * result.losses[0]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_gpu_learns_alike(precision, tmp_path, any_gpu):
    """The case is one in which rounding stays small: maps of four pixels, large batches and small steps."""
    schedule = {"steps": 6, "batch_size": 20}
    rows, block = np.arange(40), SMALL | {"precision": precision, "transform": "resize64", "schedule": schedule}
    here, there = (
        finetuning(tmp_path / device.type, block, device=device).refit(Trial("centre", 1e-4, 0.0, 1.0), rows, rows)
        for device in (CPU, any_gpu)
    )
    assert there.losses == pytest.approx(here.losses, rel=3e-4 if precision == "float32" else 0.02)
    assert np.isfinite(there.logits).all()


def test_each_member_is_what_it_is_alone(tmp_path, whole):
    """To the bit: weights are the same, so are losses and logits."""
    grid = trials(read_settings(FinetuneSettings, SMALL).grid)
    assert len(grid) == 8
    for number, trial in enumerate(grid):
        (alone,) = search(finetuning(tmp_path / str(number)), [trial])
        assert same(alone, whole[0][number])
    assert len({result.logits.tobytes() for result in whole[0]}) == 8


def test_passes_and_loading_processes_change_nothing(tmp_path, whole, monkeypatch):
    monkeypatch.setattr(Finetuning, "_members_at_once", lambda self, wanted: 3)
    found = search(finetuning(tmp_path, workers=2))
    assert all(map(same, found, whole[0]))


def test_free_memory_decides_how_many_are_trained_together(tmp_path, whole, monkeypatch, caplog):
    """A stand-in for the free memory, which holds three and a half networks with their momentum."""
    caplog.set_level("INFO")
    runs = finetuning(tmp_path, memory_mib=1)
    each = 2 * sum(tensor.nbytes for tensor in runs.network.state_dict().values())
    monkeypatch.setattr(Finetuning, "_free_after_step", lambda self: int(3.5 * each / 0.9))
    assert all(map(same, search(runs), whole[0]))
    started = [record.getMessage() for record in caplog.records if " of 8: 6 steps" in record.getMessage()]
    assert started == [f"members {first} of 8: 6 steps of 8 images" for first in ("1 to 3", "4 to 5", "6 to 8")]
    assert "3 of 8 are trained together, the others in further passes over the images" in caplog.text


def test_each_image_is_decoded_once_for_all_members(tmp_path):
    reads = []

    def read(row):
        reads.append(row)
        return photograph(row)

    search(finetuning(tmp_path, read=read))
    # 6 steps of passes of 8, 8 and 4 images, and 10 validation images.
    assert len(reads) == 2 * 20 + 10


def test_an_interrupted_job_ends_as_if_nothing_had_happened(tmp_path, whole, monkeypatch):
    """Stopped in the first pass, between two passes and in the refit."""
    monkeypatch.setattr(Finetuning, "_members_at_once", lambda self, wanted: 4)
    real, calls, stops = classification_loss, [], {3 * 4 + 1, 40, 55}

    def loss(*arguments):
        calls.append(len(calls))
        if len(calls) in stops:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(finetune_training, "classification_loss", loss)
    for _ in stops:
        with pytest.raises(KeyboardInterrupt):
            measured(tmp_path, save_seconds=0)
    measurement, predictions = measured(tmp_path, save_seconds=0)
    expected, expected_predictions = whole[1]
    assert np.array_equal(predictions.test_scores, expected_predictions.test_scores)
    assert measurement.values == expected.values and measurement.more == expected.more
    # 8 members and a refit of 6 steps each; what was not saved of a step of all 4 is taken again.
    assert 9 * 6 + 3 <= len(calls) <= 9 * 6 + 4 + 4 + 1


def test_finished_members_of_other_settings_are_not_taken(tmp_path):
    search(finetuning(tmp_path))
    other = search(finetuning(tmp_path, SMALL | {"seed": 1}))
    assert all(map(same, other, search(finetuning(tmp_path / "clean", SMALL | {"seed": 1}))))


def test_members_are_as_many_as_memory_holds(tmp_path, caplog):
    caplog.set_level("INFO")
    runs = finetuning(tmp_path, memory_mib=1)  # less than the process has already
    assert runs._members_at_once(8) == 1
    assert "1 of 8 are trained together, the others in further passes" in caplog.text
    assert finetuning(tmp_path, memory_mib=10**6)._members_at_once(8) == 8
    assert finetuning(tmp_path)._members_at_once(8) == 8
    assert [len(part) for part in finetune_training._passes(range(40), 15)] == [13, 14, 13]


def test_a_pass_that_is_resumed_is_the_same_one():
    """For every number of members and of those at once: after each pass, in the middle of the next one."""
    for members in range(1, 60):
        for at_once in range(1, members + 1):
            passes = finetune_training._passes(range(members), at_once)
            assert list(chain(*passes)) == list(range(members)) and max(map(len, passes)) <= at_once
            for number, begun in enumerate(passes):
                todo = list(chain(*passes[number:]))
                for later in (at_once, at_once + 1, 60):
                    first, *others = finetune_training._passes(todo, later, begun)
                    assert first == begun and list(chain(*others)) == todo[len(begun) :]


def test_an_interrupted_pass_is_split_only_where_memory_is_much_smaller():
    passes, todo = finetune_training._passes, list(range(20))
    assert passes(todo, 9, todo[:10])[0] == todo[:10]
    assert [len(part) for part in passes(todo, 8, todo[:10])] == [7, 6, 7]
    assert passes(todo[1:], 10, todo[:10])[0] == todo[1:11]  # one of them was recorded before


def test_an_interrupted_pass_goes_on_whatever_the_memory(tmp_path, monkeypatch, caplog):
    """Two of eight members are trained at once, after the interruption all that remain."""
    expected = search(finetuning(tmp_path / "whole"))
    real, calls, at_once = classification_loss, [], 2

    def loss(*arguments):
        calls.append(len(calls))
        if len(calls) == 2 * 6 + 2 * 4 + 1:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(Finetuning, "_members_at_once", lambda self, wanted: min(wanted, at_once))
    monkeypatch.setattr(finetune_training, "classification_loss", loss)
    with pytest.raises(KeyboardInterrupt):
        search(finetuning(tmp_path / "part", save_seconds=-1))
    caplog.set_level("INFO")
    at_once = 8
    found = search(finetuning(tmp_path / "part", save_seconds=-1))
    assert all(map(same, found, expected))
    assert "resuming at step 4" in caplog.text and "of other settings" not in caplog.text
    assert len(calls) == 8 * 6 + 1


def test_the_state_of_a_finished_pass_is_removed(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(Finetuning, "_members_at_once", lambda self, wanted: 3)
    search(finetuning(tmp_path, save_seconds=-1))
    assert "of other settings" not in caplog.text
    assert {path.suffix for path in tmp_path.iterdir()} == {".npz"}


# Divergence and selection


def test_a_member_that_diverges_is_the_worst_of_the_grid(tmp_path):
    block = SMALL | {"grid": {"augmentations": ["centre"], "learning_rates": [1e30, 0.01], "weight_decays": [0]}}
    measurement, _ = measured(tmp_path, block)
    lost, sound = measurement.more["curve"]
    assert lost["validation"] is None and sound["validation"] is not None
    assert measurement.more["selected"]["learning_rate"] == 0.01
    assert "1 of 2 members of the grid diverged" in measurement.warnings
    (alone,) = search(finetuning(tmp_path / "alone", block), [Trial("centre", 0.01, 0, 1)])
    assert [float(f"{loss:.6g}") for loss in alone.losses] == sound["losses"]


def test_a_grid_that_diverges_everywhere_is_one_line(tmp_path):
    block = SMALL | {"grid": {"augmentations": ["centre"], "learning_rates": [1e30, 1e20], "weight_decays": [0]}}
    with pytest.raises(InputError, match=r"protocols.test, dataset: all 2 members of the grid diverged; write smaller"):
        measured(tmp_path, block)


def test_a_refit_that_diverges_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(Finetuning, "predict", lambda self, networks, rows: [np.full((len(rows), 3), np.nan)])
    runs = finetuning(tmp_path)
    with pytest.raises(InputError, match=r"the refit .* diverged at the selected learning rate 0.1; write"):
        runs.refit(Trial("centre", 0.1, 0, 1), np.arange(30), np.arange(30, 40))


def test_the_grid_is_scanned_in_the_official_order():
    grid = trials(read_settings(FinetuneSettings, {"kind": "finetune"}).grid)
    assert len(grid) == 40 and grid[0] == Trial("crop-flip", 0.1, 0, 1)
    rates = [trial.learning_rate for trial in grid[:20]]
    assert rates == [rate for rate in (0.1, 0.01, 0.001, 0.0001) for _ in range(5)]
    assert [trial.weight_decay for trial in grid[:5]] == [0, 1e-6, 1e-5, 1e-4, 1e-3]
    assert {trial.augmentation for trial in grid[20:]} == {"centre"}


def test_ties_keep_the_earliest_member(tmp_path, monkeypatch):
    monkeypatch.setattr(
        Finetuning, "predict", lambda self, networks, rows: [np.eye(3)[[0] * len(rows)]] * len(networks)
    )
    measurement, _ = measured(tmp_path)
    selected = measurement.more["selected"]
    assert (selected["augmentation"], selected["learning_rate"], selected["weight_decay"]) == ("crop-flip", 0.1, 0)


def test_the_score_says_how_it_was_made(whole):
    measurement, predictions = whole[1]
    curve, selected = measurement.more["curve"], measurement.more["selected"]
    assert len(curve) == 8 and selected["validation"] == max(point["validation"] for point in curve)
    assert all(len(point["losses"]) == 6 for point in curve)
    assert measurement.details["refit"]["interval"] == 1 and len(measurement.details["refit"]["losses"]) == 6
    right = predictions.test_scores.argmax(1) == predictions.test_labels
    assert measurement.values[0]["value"] == pytest.approx(100 * right.mean())
    assert measurement.outcomes[0].value == measurement.values[0]["value"]
    assert predictions.validation_scores.shape == (10, CLASSES) and predictions.test_scores.shape == (10, CLASSES)
    assert measurement.schedule == {"shortened": "6 steps of 8 images, where the paper has 5000 of 64"}
    assert measurement.preprocessing["augmentation"] == selected["augmentation"]
    json.dumps(measurement.more)


def test_the_paper_has_its_own_schedule_and_no_warning_of_a_short_one():
    assert defaults("finetune")["transform"] == "resize224"
    assert defaults("finetune")["schedule"] == {
        "optimiser": "sgd", "batch_size": 64, "steps": 5000, "momentum": 0.9, "clip": 0, "warmup": 0,
    }  # fmt: skip


def test_edges_of_the_grid_and_few_validation_images_are_warned_of():
    settings = read_settings(FinetuneSettings, {"kind": "finetune"})
    found = selection_warnings(settings, Trial("centre", 0.1, 1e-3, 1), [50.0, 50.0, -np.inf], 500)
    assert found == [
        "1 of 3 members of the grid diverged",
        "the selected learning rate 0.1 is the largest of the grid",
        "the selected weight decay 0.001 is the largest of the grid",
    ]
    adamw = {"kind": "finetune", "grid": {"layer_decays": [1, 0.75, 0.65]}}
    layers = read_settings(FinetuneSettings, adamw)
    for decay, edge in ((1, "largest"), (0.75, ""), (0.65, "smallest")):
        found = selection_warnings(layers, Trial("centre", 0.01, 1e-4, decay), [50.0, 40.0], 500)
        assert found == ([f"the selected layer decay {decay:g} is the {edge} of the grid"] if edge else [])
    (few,) = selection_warnings(settings, Trial("centre", 0.01, 0, 1), [50.0, 50.0], 10)
    assert few.endswith("was selected on 10 validation images, with the same result for 2 of 2 members of the grid")


# Data


def test_several_labels_are_measured_by_average_precision(tmp_path):
    measurement, predictions = measured(tmp_path, index=an_index(multi_label=True), metric="map11")
    assert measurement.values[0]["metric"] == "map11" and 0 <= measurement.values[0]["value"] <= 100
    assert predictions.test_labels.shape == (10, CLASSES)


def test_pairs_that_do_not_count_change_the_result(tmp_path):
    index = an_index(multi_label=True)
    index = replace(index, extra={"difficult": [[(row + 1) % CLASSES] for row in range(len(index))]})
    block = SMALL | {"difficult": "ignore"}
    labels = finetune_labels(index, read_settings(FinetuneSettings, block))
    assert set(labels.ravel()) == {-1, 0, 1}
    found = measured(tmp_path / "ignored", block, index, "map11")[1]
    expected = measured(tmp_path / "negative", SMALL, index, "map11")[1]
    assert not np.array_equal(found.test_scores, expected.test_scores)


def test_a_class_without_training_image_is_named(tmp_path):
    index = an_index()
    labels = [
        1 if part != "test" and label == 2 else label for part, label in zip(index.split, index.label, strict=True)
    ]
    measurement, _ = measured(tmp_path, index=replace(index, label=labels))
    assert any("have no training image" in text and text.endswith(": 2") for text in measurement.warnings)


def test_one_image_per_class_is_measured_with_a_warning(tmp_path):
    measurement, _ = measured(tmp_path, index=an_index((3, 3, 3)))
    assert any("was selected on 3 validation images" in text for text in measurement.warnings)
    assert "a batch of 8 holds all 3 training images of the selection" in measurement.warnings


def test_too_few_images_to_draw_a_validation_part_from_is_one_line(tmp_path):
    with pytest.raises(InputError, match="dataset: 3 training images are too few to draw a validation part"):
        measured(tmp_path, index=an_index((3, 0, 3)))


def test_a_backbone_without_gradients_is_one_line_and_frozen_weights_are_trained(tmp_path):
    class Detached(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Conv2d(3, 4, 3)

        def forward(self, images):
            return self.layer(images).detach()

    runs = finetuning(tmp_path)
    runs.network = Classifier(ModuleBackbone(Detached(), size=SIDE), CLASSES, 0)
    with pytest.raises(InputError, match="dataset: no gradient reaches the 2 weights of the backbone; remove torch.no"):
        measure_finetune(runs, an_index(), "dataset", "top1", {})
    frozen = build_backbone(ARCH, seed=0).requires_grad_(False)
    assert all(weight.requires_grad for weight in Classifier(frozen, CLASSES, 0).parameters())


def test_images_smaller_than_the_crop_are_enlarged(tmp_path):
    measurement, _ = measured(tmp_path, read=lambda row: photograph(row).resize((5, 4)))
    assert math.isfinite(measurement.values[0]["value"])


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory")])
def test_too_little_memory_is_one_line_that_names_the_batch(tmp_path, monkeypatch, error):
    def fail(*arguments):
        raise error

    monkeypatch.setattr(finetune_training, "classification_loss", fail)
    with pytest.raises(InputError, match="a batch of 8 images of 16 pixels does not fit into memory") as raised:
        measured(tmp_path)
    assert "\n" not in str(raised.value) and "smaller schedule.batch_size" in str(raised.value)


def test_partial_batches_end_each_pass():
    rows = np.arange(100, 121)
    steps = list(batch_rows(rows, 8, 1, 0, 6, partial=True))
    assert [len(some) for _, some in steps] == [8, 8, 5, 8, 8, 5]
    for first in (0, 3):
        assert sorted(np.concatenate([some for _, some in steps[first : first + 3]])) == list(rows)
    assert not np.array_equal(steps[0][1], steps[3][1])
    for (step, some), (expected, wanted) in zip(batch_rows(rows, 8, 1, 4, 6, partial=True), steps[4:], strict=True):
        assert step == expected and np.array_equal(some, wanted)
    # 5,000 steps of the paper on Pets, whose training images are a multiple of 64, and a single row that remains.
    assert {len(some) for _, some in batch_rows(np.arange(2944), 64, 0, 0, 92, partial=True)} == {64}
    assert [len(some) for _, some in batch_rows(np.arange(17), 8, 0, 0, 4, partial=True)] == [8, 8, 8, 8]
    assert [len(some) for _, some in batch_rows(np.arange(1), 8, 0, 0, 2, partial=True)] == [1, 1]

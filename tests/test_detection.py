"""Object detection: settings, images, the detector, training that survives a kill, and bad input."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import nn

from ssltransfer import jobs
from ssltransfer.datasets.index import Index
from ssltransfer.errors import InputError
from ssltransfer.models.backbone_file import load_backbone
from ssltransfer.models.resnet import build_resnet
from ssltransfer.protocols.detection import torchvision_backend
from ssltransfer.protocols.detection import training as detection_training
from ssltransfer.protocols.detection.average_precision import evaluate, round_like_detectron2
from ssltransfer.protocols.detection.boxes import Detections
from ssltransfer.protocols.detection.detection_file import load_detections, save_detections
from ssltransfer.protocols.detection.evaluation import EXAMPLES, draw_detections, measure_detections
from ssltransfer.protocols.detection.inputs import (
    TrainingImages,
    image_sizes,
    oriented_batches,
    scaled_size,
    uniform_batches,
)
from ssltransfer.protocols.detection.objects import check_inside, read_annotations, voc_objects
from ssltransfer.protocols.detection.pictures import choose_examples, draw
from ssltransfer.protocols.detection.settings import DetectionSettings, Schedule, Sides
from ssltransfer.protocols.detection.training import build_detector, detect, train_detector
from ssltransfer.results.tensor_file import save_tensors
from ssltransfer.settings import read_settings
from ssltransfer.training_state import Run
from workflow import REPOSITORY

ARCH = "resnet-1x1x1x1-w4"
CLASSES = ["red", "green", "blue"]
BLOCK = {
    "kind": "detection",
    "backend": "torchvision",
    "frozen": "first-four",
    "seed": 0,
    "schedule": {"batch_size": 4, "steps": 12, "learning_rate": 0.01, "milestones": [10], "warmup": 3},
    "sides": {"train": [40, 48], "test": 48, "longest": 64},
    "network": {
        "channels": 8,
        "hidden": 16,
        "anchors": [10, 16, 24, 32, 40],
        "proposals": [50, 50, 20],
        "samples": [32, 16],
        "canonical": 32,
    },
}


def make_images(folder, train=10, test=5):
    """An index of images with one or two coloured boxes; the last image of each part is empty."""
    rng = np.random.default_rng(0)
    index = Index([], [], [], CLASSES, {"boxes": [], "difficult": []})
    for split, count in (("train", train), ("test", test)):
        for number in range(count):
            width, height = ((48, 64), (64, 48))[number % 2]
            pixels = rng.integers(0, 60, (height, width, 3), dtype=np.uint8)
            boxes = []
            for _ in range(0 if number == count - 1 else 1 + number % 2):
                left, top = rng.integers(0, 20, 2)
                right, bottom = (left, top) + rng.integers(12, 26, 2)
                kind = int(rng.integers(3))
                pixels[top:bottom, left:right, kind] += 180
                boxes.append([kind, *map(float, (left, top, right, bottom))])
            name = f"{split}{number}.png"
            Image.fromarray(pixels).save(folder / name)
            index.image.append(name)
            index.split.append(split)
            index.label.append(sorted({int(box[0]) for box in boxes}))
            index.extra["boxes"].append(boxes)
            index.extra["difficult"].append([int(k == 1) for k in range(len(boxes))])
    return index


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    return folder, make_images(folder)


def settings_with(**changes):
    return read_settings(DetectionSettings, BLOCK | changes)


def trained(images, part, changes=None, arch=ARCH, seed=1, **keywords):
    folder, index = images
    settings = settings_with(**changes or {})
    detector = build_detector(build_resnet(arch, seed), arch, len(CLASSES), "imagenet", settings)
    annotations = read_annotations(index, "set")
    run = Run(part, f"{arch} {seed}", "block, set", **keywords)
    return detector, *train_detector(detector, index, annotations, folder, settings, run)


# Settings

PAPER = settings_with(schedule={}).schedule


def test_the_default_schedule_is_the_papers():
    assert Schedule(2, 144_000, 0.0025, (96_000, 128_000), 100) == PAPER
    assert PAPER.steps * PAPER.batch_size / 16_551 == pytest.approx(17.4, abs=0.01)
    assert len(settings_with(sides={}).sides.train) == 11


def test_the_papers_blocks_use_the_defaults():
    blocks = yaml.safe_load((REPOSITORY / "config/protocols.yaml").read_text())
    for version, tasks in (("v1", ["first-four", "first-two"]), ("v2", ["first-four", "none"])):
        suite = yaml.safe_load((REPOSITORY / f"config/paper-{version}.yaml").read_text())
        names = [name for name in suite["tasks"] if blocks[name]["kind"] == "detection"]
        assert [blocks[name]["frozen"] for name in names] == tasks
        for name in names:
            used = read_settings(DetectionSettings, blocks[name])
            assert used.effective_schedule == PAPER and used.scaling == "" and used.backend == "torchvision"
            assert blocks[name.removesuffix("-torchvision")] == blocks[name] | {"backend": "detectron2"}


def test_schedule_warms_up_and_falls():
    schedule = PAPER
    moments = (0, 50, 99, 100, 95_999, 96_000, 127_999, 128_000, 143_999)
    assert [schedule.factor(i) for i in moments] == pytest.approx(
        [0.001, 0.5005, 0.99001, 1, 1, 0.1, 0.1, 0.01, 0.01], rel=1e-9
    )


def test_schedule_scales_with_batch_and_length():
    assert PAPER.scaled(16, 1) == Schedule(16, 18_000, 0.02, (12_000, 16_000), 13)
    assert PAPER.scaled(2, 0.5) == Schedule(2, 72_000, 0.0025, (48_000, 64_000), 100)
    assert PAPER.scaled(1, 0.001) == Schedule(1, 288, 0.00125, (192, 256), 200)
    assert settings_with(batch_size=4).scaling == ""
    scaled = settings_with(batch_size=2, length=0.5)
    assert scaled.effective_schedule.steps == 12 and scaled.effective_schedule.batch_size == 2
    assert "scaled from batch 4, 12 steps, rate 0.01, milestones [10], warm-up 3 to batch 2, 12" in scaled.scaling


# Images


def test_scaled_sizes():
    assert scaled_size(500, 375, 800, 1333) == (1067, 800)
    assert scaled_size(375, 500, 480, 1333) == (480, 640)
    assert scaled_size(500, 200, 800, 1333) == (1333, 533)
    assert scaled_size(64, 64, 64, 64) == (64, 64)


def test_boxes_follow_their_image(images, tmp_path):
    # The dark box in a bright image is found again after scaling and flipping.
    pixels = np.full((100, 200, 3), 255, np.uint8)
    pixels[20:60, 30:80] = 0
    Image.fromarray(pixels).save(tmp_path / "a.png")
    index = Index(["a.png"], ["train"], [0], CLASSES, {"voc_boxes": [[[1, 31, 21, 80, 60]]]})
    annotations = read_annotations(index, "set")
    assert annotations.box[0].tolist() == [[30, 20, 80, 60]]
    make = TrainingImages(tmp_path, ["a.png"], annotations, Sides((50, 200), 100, 500))
    sides, lefts = set(), set()
    for seed in range(12):
        example = make(0, 0, np.random.default_rng(seed))
        dark = (example["image"][0] < 128).numpy()
        rows, columns = np.flatnonzero(dark.any(axis=1)), np.flatnonzero(dark.any(axis=0))
        seen = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        np.testing.assert_allclose(example["boxes"][0], seen, atol=1)
        assert example["labels"].tolist() == [1] and example["image"].dtype == torch.uint8
        sides.add(min(dark.shape))
        lefts.add(round(seen[0] / dark.shape[1], 1))
    assert sides == {50, 200} and len(lefts) == 2


def test_batches_are_of_one_orientation_and_a_later_start_cuts_the_beginning_off():
    rows, wide = np.arange(100, 121), np.arange(21) % 3 == 0
    whole = list(oriented_batches(rows, wide, 4, seed=1, first=0, steps=30))
    assert [step for step, _ in whole] == list(range(30))
    assert all(len({bool(wide[row - 100]) for row in batch}) == 1 for _, batch in whole)
    counts = np.bincount(np.concatenate([batch for _, batch in whole]) - 100)
    assert counts.min() >= 120 // 21 - 1 and counts.max() <= 120 // 21 + 2
    later = list(oriented_batches(rows, wide, 4, seed=1, first=17, steps=30))
    assert [(s, b.tolist()) for s, b in later] == [(s, b.tolist()) for s, b in whole[17:]]


def test_test_batches_need_no_padding():
    sizes = np.array([[500, 375]] * 5 + [[375, 500]] + [[500, 375]] * 2)
    batches = list(uniform_batches(sizes, Sides((800,), 800, 1333), most=3))
    assert [list(places) for places, _ in batches] == [[0, 1, 2], [3, 4], [5], [6, 7]]
    assert batches[2][1] == (800, 1067)


# The detector


def small(changes=None, classes=3):
    return settings_with(**changes or {}), build_resnet(ARCH, 1), classes


@pytest.mark.parametrize(
    ("what", "kept"),
    [
        ("first-four", ["conv1", "layer1", "layer2", "layer3"]),
        ("none", []),
        ("first-two", ["conv1", "layer1"]),
    ],
)
def test_what_trains(what, kept):
    settings, backbone, classes = small({"frozen": what})
    detector = build_detector(backbone, ARCH, classes, "none", settings)
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    optimiser = torch.optim.SGD([p for p in detector.parameters() if p.requires_grad], lr=0.1)
    generator = torch.Generator().manual_seed(0)
    batch = {
        "image": [torch.randint(0, 256, (3, 40, 50), generator=generator, dtype=torch.uint8)],
        "boxes": [torch.tensor([[5.0, 5, 30, 30]])],
        "labels": [torch.tensor([1])],
    }
    sum(detector.train().losses(batch).values()).backward()
    optimiser.step()
    changed = {name for name, value in detector.state_dict().items() if not torch.equal(value, before[name])}
    stages = {name.split(".")[2] for name in changed if name.startswith("pyramid.backbone")}
    assert stages == {"conv1", "layer1", "layer2", "layer3", "layer4"} - set(kept)
    assert not any("bn" in name or "downsample.1" in name for name in changed)  # batch norm is constant
    assert not any(isinstance(module, nn.BatchNorm2d) for module in detector.modules())
    assert any("fpn" in name for name in changed) and any("box_predictor" in name for name in changed)


def test_backbone_maps_are_those_of_the_network_in_evaluation_mode():
    settings, backbone, classes = small()
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.weight)
    x = torch.rand(2, 3, 64, 96)
    with torch.inference_mode():
        expected = backbone.eval().feature_map(x)
        detector = build_detector(backbone, ARCH, classes, "none", settings).train()
        maps = {}
        detector.pyramid.backbone.layer4.register_forward_hook(lambda *args: maps.update(last=args[2]))
        levels = detector.pyramid(x)
    torch.testing.assert_close(maps["last"], expected)
    assert [tuple(level.shape[-2:]) for level in levels.values()] == [(16, 24), (8, 12), (4, 6), (2, 3), (1, 2)]


def test_anchors_stand_on_the_grid_of_their_stride():
    anchors = torchvision_backend.Anchors(((32,), (64,), (128,), (256,), (512,)), ((0.5, 1.0, 2.0),) * 5)
    images = torchvision_backend.ImageList(torch.zeros(1, 3, 800, 1344), [(800, 1333)])
    maps = [torch.zeros(1, 1, -(-800 // s), 1344 // s) for s in torchvision_backend.STRIDES]
    (found,) = anchors(images, maps)
    assert len(found) == 3 * sum(m.shape[2] * m.shape[3] for m in maps)
    last = found[-3:]  # of p6, whose 13 rows torchvision would place 61 pixels apart
    centre = (last[:, :2] + last[:, 2:]) / 2
    torch.testing.assert_close(centre, torch.tensor([[1280.0, 768.0]]).repeat(3, 1))
    size = last[:, 2:] - last[:, :2]
    torch.testing.assert_close(size.prod(dim=1), torch.full((3,), 512.0**2))
    torch.testing.assert_close(size[:, 1] / size[:, 0], torch.tensor([0.5, 1.0, 2.0]))


def test_images_are_normalised_as_the_model_wants_and_padded_with_zeros():
    settings, backbone, classes = small()
    image = torch.full((3, 40, 50), 100, dtype=torch.uint8)
    for norm, expected in (("none", [100 / 255] * 3), ("imagenet", [(100 - 123.675) / 58.395])):
        detector = build_detector(backbone, ARCH, classes, norm, settings)
        batch = detector._batch([image, image[:, :33, :64]])
        assert batch.tensors.shape == (2, 3, 64, 64) and batch.image_sizes == [(40, 50), (33, 50)]
        assert batch.tensors[0, : len(expected), 0, 0].tolist() == pytest.approx(expected, rel=1e-5)
        assert batch.tensors[0, :, 40:].abs().max() == batch.tensors[0, :, :, 50:].abs().max() == 0


def test_pooling_takes_the_level_that_fits():
    pooler = torchvision_backend.Pooler(224)
    maps = {f"p{i + 2}": torch.full((1, 1, 512 // s, 512 // s), float(i + 2)) for i, s in enumerate((4, 8, 16, 32))}
    boxes = [torch.tensor([[0.0, 0, side, side]]) for side in (10, 111, 112, 223, 224, 447, 448, 500)]
    pooled = pooler(maps, [torch.cat(boxes)], [(512, 512)])
    assert pooled.shape == (8, 1, 7, 7)
    assert pooled[:, 0, 3, 3].tolist() == [2, 2, 3, 3, 4, 4, 5, 5]


# Training


def test_a_run_is_repeatable_and_workers_change_nothing(images, tmp_path):
    first, interval, losses = trained(images, tmp_path / "a")
    assert interval == 1 and len(losses) == 12 and losses[-1] < losses[0]
    second, _, again = trained(images, tmp_path / "b", workers=2)
    assert again == losses
    state = second.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in first.state_dict().items())
    _, _, other = trained(images, tmp_path / "c", {"seed": 1})
    assert other != losses


def test_mixed_precision_is_close(images, tmp_path):
    _, _, losses = trained(images, tmp_path / "a")
    _, _, mixed = trained(images, tmp_path / "b", {"precision": "bfloat16"})
    assert mixed != losses
    # Rounding decides which boxes are sampled, so single steps differ.
    assert mixed[0] == pytest.approx(losses[0], rel=0.01)
    assert np.mean(mixed) == pytest.approx(np.mean(losses), rel=0.1)


def test_a_gpu_learns_and_detects_alike(images, tmp_path, any_gpu, monkeypatch):
    means = []
    for device in (torch.device("cpu"), any_gpu):
        monkeypatch.setattr(detection_training, "choose_device", lambda device=device: device)
        _, _, losses = trained(images, tmp_path / device.type)
        means.append(np.mean(losses))
    # Other proposals are sampled on each.
    assert means[1] == pytest.approx(means[0], rel=0.1)


CHILD = """
import sys, time
from pathlib import Path
sys.path[:0] = sys.argv[1:3]
import torch
import test_detection as t
torch.set_num_threads(1)
folder, part = map(Path, sys.argv[3:5])
images = folder, t.make_images(folder)
def slowly(batches, total):
    for number, batch in enumerate(batches):
        yield batch
        print("step", number, flush=True)
        time.sleep(0.2)
t.trained(images, part, save_seconds=0.0, progress=slowly)
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_losses(images, tmp_path):
    part = tmp_path / "part"
    child = [sys.executable, "-c", CHILD, str(REPOSITORY / "scripts"), str(Path(__file__).parent)]
    with subprocess.Popen([*child, str(images[0]), str(part)], stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.startswith("step 5"):
                os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    started = []

    def counted(batches, total):
        started.append(total)
        yield from batches

    detector, _, losses = trained(images, part, progress=counted)
    assert 0 < started[0] < 12
    whole, _, expected = trained(images, tmp_path / "whole")
    assert losses == expected
    state = whole.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in detector.state_dict().items())


def test_the_state_of_another_run_is_left_alone(images, tmp_path, caplog):
    class StoppedError(Exception):
        pass

    def stop(batches, total):
        for number, batch in enumerate(batches):
            if number == 4:
                raise StoppedError
            yield batch

    for name, changes, arch, seed in (
        ("settings", {"frozen": "none"}, ARCH, 1),
        ("model", {}, ARCH, 2),
        ("architecture", {}, "resnet-1x1x1x1-w8", 1),
    ):
        part = tmp_path / name
        with pytest.raises(StoppedError):
            trained(images, part, save_seconds=0.0, progress=stop)
        assert list(part.iterdir())
        caplog.clear()
        with caplog.at_level("INFO"):
            _, _, losses = trained(images, part, changes, arch, seed)
        assert "belongs to other settings or images" in caplog.text and len(losses) == 12
        _, _, expected = trained(images, tmp_path / f"{name} anew", changes, arch, seed)
        assert losses == expected


def test_reading_the_sizes_of_images_says_how_far_it_is(images, monkeypatch, caplog):
    folder, index = images
    caplog.set_level("INFO")
    monkeypatch.setattr(jobs, "LOG_INTERVAL", -1.0)
    assert len(image_sizes(folder, index.image)) == len(index.image)
    count = len(index.image)
    assert f"sizes of images: {count} of {count}" in caplog.text


def test_detections_are_in_pixels_of_the_image_and_saved(images, tmp_path):
    folder, index = images
    changes = {"schedule": BLOCK["schedule"] | {"steps": 60, "milestones": [50]}, "frozen": "none"}
    settings = settings_with(**changes)
    detector, interval, losses = trained(images, tmp_path, changes)
    assert len(losses) == 60 and interval == 1
    found = detect(detector, index, folder, settings)
    sizes = image_sizes(folder, index.image)
    assert len(found) and set(found.image) <= set(np.flatnonzero(index.split_array() == "test"))
    assert (found.box >= 0).all() and (found.box <= np.tile(sizes[found.image], 2)).all()
    assert (np.diff(found.image) >= 0).all()
    assert (np.diff(found.score)[np.diff(found.image) == 0] <= 0).all()
    save_detections(tmp_path / "found.npz", found)
    again = load_detections(tmp_path / "found.npz")
    rows = np.flatnonzero(index.split_array() == "test")
    objects = voc_objects(read_annotations(index, "set"), rows)
    first, second = (evaluate(round_like_detectron2(d), objects, 3, "11-point").ap for d in (again, found))
    assert first == second
    with pytest.raises(InputError, match="holds no detections"):
        load_detections(folder / "train0.png")


# Evaluation


def perfect(index, annotations):
    """The annotated objects of the test images, found with full certainty."""
    rows = np.flatnonzero(index.split_array() == "test")
    image = np.repeat(rows, [len(annotations.label[row]) for row in rows])
    label, box = (np.concatenate([column[row] for row in rows]) for column in (annotations.label, annotations.box))
    return Detections(image, label, box.astype(np.float32), np.ones(len(image), np.float32))


HEADER = {"checkpoint": {"source": "x"}, "norm": "none", "scaling": "", "schedule": {"steps": 12}, "cost": {}}


@pytest.mark.parametrize(
    ("frozen", "kind"),
    [("first-four", "detection-frozen"), ("none", "detection-finetune"), ("first-two", "detection-finetune")],
)
def test_a_score_says_what_was_measured(images, frozen, kind):
    index = images[1]
    annotations = read_annotations(index, "set")
    found = perfect(index, annotations)
    measured = measure_detections(index, annotations, found, HEADER, settings_with(frozen=frozen))
    assert measured.kind == kind
    counts = {name: entry["objects"] for name, entry in measured.details["per_class"].items()}
    present = [name for name, count in counts.items() if count]
    for name, entry in measured.details["per_class"].items():
        assert entry["ap"] == entry["ap50"] == entry["ap75"] == (100 if name in present else 0)
    assert {v["metric"]: v["value"] for v in measured.values} == pytest.approx(
        dict.fromkeys(("ap", "ap50", "ap75"), 100 * len(present) / 3)
    )
    assert measured.details["images"] == {"train": 10, "test": 5}
    assert measured.details["objects"] == sum(counts.values()) <= measured.details["detections"] == len(found)
    assert measured.preprocessing["sides"] == {"train": (40, 48), "test": 48, "longest": 64}


def test_warnings_name_the_scaling_the_schedule_and_classes_without_objects(images):
    index = images[1]
    annotations, nobody = (
        read_annotations(index, "set"),
        Detections(*(np.empty(0, int),) * 2, np.empty((0, 4)), np.empty(0)),
    )

    def warnings(header=HEADER, source=annotations, **changes):
        return measure_detections(index, source, nobody, header, settings_with(**changes)).warnings

    paper = {"schedule": {}}
    absent = warnings(**paper)
    assert not any("steps" in line for line in absent)
    assert warnings(HEADER | {"scaling": "scaled"}, **paper) == ["scaled", *absent]
    assert warnings(schedule={}, batch_size=16) == absent  # as many images in fewer steps
    short = [line for line in warnings() if "12 steps of 4 images" in line]
    assert len(short) == 1 and "144000 of 2" in short[0]
    nothing = read_annotations(
        Index(index.image, index.split, index.label, CLASSES, {"boxes": [[] for _ in index.image]}), "set"
    )
    assert "red, green, blue" in warnings(source=nothing, **paper)[0]


def test_examples_show_ground_truth_and_sure_detections(images):
    folder, index = images
    annotations = read_annotations(index, "set")
    found = perfect(index, annotations)
    drawn = draw_detections(index, annotations, found, folder)
    assert drawn.columns == ["test0", "test1", "test2", "test3"] and len(drawn.columns) <= EXAMPLES
    unsure = Detections(found.image, found.label, found.box, np.full(len(found), 0.4, np.float32))
    nothing = draw_detections(index, annotations, unsure, folder)
    assert np.array_equal(nothing.reference["Ground truth"], drawn.reference["Ground truth"])
    assert not np.array_equal(nothing.panels["Detections"], drawn.panels["Detections"])
    empty = Index(index.image, index.split, index.label, CLASSES, {"boxes": [[] for _ in index.image]})
    assert draw_detections(empty, read_annotations(empty, "set"), unsure, folder).columns == []


# Pictures


def test_boxes_are_drawn():
    image = Image.new("RGB", (50, 25))
    picture = draw(image, np.array([[10.0, 5, 40, 20]]), np.array([1]), CLASSES, 100, np.array([0.93]))
    assert picture.shape == (100, 100, 3) and picture.dtype == np.uint8
    assert (picture[:25] == 255).all()  # the bar above
    assert (picture[60, [20, 79]] != 0).any(axis=1).all() and (picture[60, [19, 21, 78, 80]] == 0).all()
    assert choose_examples(np.arange(10), np.arange(10) % 2, 3).tolist() == [1, 5, 9]
    assert choose_examples(np.arange(2), np.zeros(2, int), 3).tolist() == []


# Bad input


def with_boxes(boxes, column="boxes"):
    return Index(["a.png"], ["train"], [[0]], CLASSES, {column: [boxes]})


@pytest.mark.parametrize(
    ("boxes", "column", "message"),
    [
        ([[0, 5, 5, 5, 20]], "boxes", r"set: row 0 \(a.png\): box \(5, 5, 5, 20\) has no area"),
        ([[0, 5, 5, 4, 20]], "voc_boxes", r"box \(5, 5, 4, 20\) has no area"),
        ([[0, 5, 5, float("nan"), 20]], "boxes", "has no area"),
        ([[3, 5, 5, 15, 20]], "boxes", r"row 0 \(a.png\): class 3 found, expected 0..2"),
        ([[0, 5, 5, 15, 20]], "other", "its index has no boxes"),
    ],
)
def test_bad_boxes_are_named(boxes, column, message):
    with pytest.raises(InputError, match=message):
        read_annotations(with_boxes(boxes, column), "set")


def test_a_box_of_one_pixel_is_a_box():
    assert read_annotations(with_boxes([[0, 5, 5, 5, 5]], "voc_boxes"), "set").box[0].tolist() == [[4, 4, 5, 5]]


def test_a_box_outside_its_image_is_named():
    index = with_boxes([[0, 5, 5, 15, 20], [1, 5, 5, 15, 49]])
    annotations = read_annotations(index, "set")
    check_inside(annotations, np.array([[15, 49]]), [0], index, "set")
    with pytest.raises(InputError, match=r"row 0 \(a.png\): box \(5, 5, 15, 49\) leaves the image \(20 x 40\)"):
        check_inside(annotations, np.array([[20, 40]]), [0], index, "set")


def test_missing_and_damaged_images_are_named(images, tmp_path):
    folder, index = images
    for damage, message in ((Path.unlink, "train3.png is missing"), (lambda p: p.write_bytes(b"x"), "cannot be read")):
        copy = tmp_path / message.split()[0]
        copy.mkdir()
        for path in folder.glob("*.png"):
            (copy / path.name).write_bytes(path.read_bytes())
        damage(copy / "train3.png")
        with pytest.raises(InputError, match=message):
            trained((copy, index), tmp_path / "part")


def test_training_needs_an_object_and_testing_does_not(images, tmp_path, caplog):
    folder, index = images
    with caplog.at_level("INFO"):
        trained(images, tmp_path / "a")
    assert "1 of 10 training images show no object and are left out" in caplog.text
    nothing = Index(index.image, index.split, index.label, CLASSES, {"boxes": [[] for _ in index.image]})
    with pytest.raises(InputError, match="block, set: none of 10 training images shows an object"):
        trained((folder, nothing), tmp_path / "b")
    objects = voc_objects(read_annotations(nothing, "set"), range(len(index)))
    empty = np.empty(0, int)
    nobody = Detections(empty, empty, np.empty((0, 4), np.float32), np.empty(0, np.float32))
    assert len(objects) == 0 and evaluate(round_like_detectron2(nobody), objects, 3, "11-point").ap == 0


def test_a_loss_that_explodes_is_one_line(images, tmp_path):
    with pytest.raises(InputError, match="block, set: the loss is .* write a learning_rate below 1000"):
        trained(images, tmp_path, {"schedule": {"batch_size": 4, "steps": 12, "learning_rate": 1e12, "warmup": 0}})


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path):
    save_tensors(build_resnet(ARCH, 0).state_dict(), tmp_path / "a.safetensors", {})
    with pytest.raises(InputError, match=r"bn1.bias has shape \(4,\), resnet-1x1x1x1-w8 needs \(8,\)"):
        load_backbone(tmp_path / "a.safetensors", "resnet-1x1x1x1-w8")


def test_a_missing_detectron2_is_one_line():
    try:
        import detectron2  # noqa: F401
    except ImportError:
        settings, backbone, classes = small({"backend": "detectron2"})
        with pytest.raises(InputError, match="backend detectron2 cannot be used .* backend: torchvision"):
            build_detector(backbone, ARCH, classes, "none", settings)
    else:
        pytest.skip("detectron2 is installed")

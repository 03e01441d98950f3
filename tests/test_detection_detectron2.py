"""Evaluator, detector, images and schedule against detectron2 itself, where it is installed.

Everything that a comparison starts from is built without detectron2 too, so that it cannot break unseen.
"""

import json
import warnings

import numpy as np
import pytest
import torch
from detection_cases import random_case
from PIL import Image

from ssltransfer.models.resnet import build_resnet
from ssltransfer.protocols.detection.average_precision import evaluate, round_like_detectron2
from ssltransfer.protocols.detection.boxes import Detections, GroundTruth
from ssltransfer.protocols.detection.inputs import TrainingImages, scaled_size
from ssltransfer.protocols.detection.objects import Annotations
from ssltransfer.protocols.detection.settings import DetectionSettings, Schedule, Sides
from ssltransfer.protocols.detection.training import build_detector
from ssltransfer.settings import defaults, read_settings

pytestmark = pytest.mark.filterwarnings("ignore")
ARCH = "resnet-1x2x1x1-w8"
CLASSES = ["cube", "ball", "cone"]
SIDES = ("xmin", "ymin", "xmax", "ymax")


@pytest.fixture
def detectron2():
    """The reference; tests that compare with it are skipped where it is missing."""
    return pytest.importorskip("detectron2", reason="detectron2 is not on the package index; envs/detectron2.yaml")


def reference_values(seed, year, folder):
    """AP, AP50 and AP75 of detectron2's evaluator on a random case, through its files and annotations."""
    from detectron2.data import MetadataCatalog
    from detectron2.evaluation import PascalVOCDetectionEvaluator
    from detectron2.evaluation.pascal_voc_evaluation import parse_rec
    from detectron2.structures import Boxes, Instances

    found, objects, images = random_case(seed)
    (folder / "Annotations").mkdir(exist_ok=True)
    (folder / "ImageSets/Main").mkdir(parents=True, exist_ok=True)
    (folder / "ImageSets/Main/test.txt").write_text("".join(f"{i:06d}\n" for i in range(images)))
    for i in range(images):
        text = "".join(
            f"<object><name>{CLASSES[objects['label'][k]]}</name><pose></pose><truncated>0</truncated>"
            f"<difficult>{objects['difficult'][k]}</difficult><bndbox>"
            + "".join(f"<{n}>{v:.0f}</{n}>" for n, v in zip(SIDES, objects["box"][k], strict=True))
            + "</bndbox></object>"
            for k in np.flatnonzero(objects["image"] == i)
        )
        (folder / "Annotations" / f"{i:06d}.xml").write_text(f"<annotation>{text}</annotation>")
    name = f"case-{seed}-{year}-{folder.name}"
    MetadataCatalog.get(name).set(thing_classes=CLASSES, dirname=str(folder), year=year, split="test")
    parse_rec.cache_clear()
    evaluator = PascalVOCDetectionEvaluator(name)
    evaluator.reset()
    for i in range(images):
        rows = np.flatnonzero(found["image"] == i)
        output = Instances((100, 100), pred_boxes=Boxes(torch.from_numpy(found["box"][rows].reshape(-1, 4))))
        output.scores, output.pred_classes = (torch.from_numpy(found[c][rows]) for c in ("score", "label"))
        evaluator.process([{"image_id": f"{i:06d}"}], [{"instances": output}])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return evaluator.evaluate()["bbox"], found, objects


@pytest.mark.parametrize(("year", "rule"), [(2007, "11-point"), (2012, "area")])
def test_the_evaluator_agrees_with_detectron2s(detectron2, year, rule, tmp_path):
    for seed in range(1000):
        expected, found, objects = reference_values(seed, year, tmp_path)
        # The same sort as the reference, whose order of ties depends on numpy and the processor.
        ours = evaluate(
            round_like_detectron2(Detections(**found)), GroundTruth(**objects), len(CLASSES), rule, sort="quicksort"
        )
        values = {"AP": ours.ap, "AP50": ours.ap50, "AP75": ours.ap75}
        assert values == pytest.approx(expected, abs=1e-6), seed


def settings(backend, **network):
    net = {"channels": 16, "hidden": 24, "anchors": (8, 16, 32, 64, 128), "canonical": 224} | network
    block = {"kind": "detection", "frozen": "first-four", "seed": 3, "backend": backend, "network": net}
    return read_settings(DetectionSettings, block)


def transplanted(state):
    """The weights of our detector by detectron2's names, the background class last instead of first."""
    moved = {}
    for i in range(4):
        for kind, name in (("lateral", "inner"), ("output", "layer")):
            for part in ("weight", "bias"):
                moved[f"backbone.fpn_{kind}{i + 2}.{part}"] = state[f"pyramid.fpn.{name}_blocks.{i}.0.{part}"]
    for part in ("weight", "bias"):
        head = "proposal_generator.rpn_head."
        moved[f"{head}conv.{part}"] = state[f"rpn.head.conv.0.0.{part}"]
        moved[f"{head}objectness_logits.{part}"] = state[f"rpn.head.cls_logits.{part}"]
        moved[f"{head}anchor_deltas.{part}"] = state[f"rpn.head.bbox_pred.{part}"]
        for number, name in ((1, "fc6"), (2, "fc7")):
            moved[f"roi_heads.box_head.fc{number}.{part}"] = state[f"heads.box_head.{name}.{part}"]
        score = state[f"heads.box_predictor.cls_score.{part}"]
        moved[f"roi_heads.box_predictor.cls_score.{part}"] = torch.cat([score[1:], score[:1]])
        moved[f"roi_heads.box_predictor.bbox_pred.{part}"] = state[f"heads.box_predictor.bbox_pred.{part}"][4:]
    return moved


def build(backend):
    # As many samples as there can be: nothing is left to chance.
    chosen = settings(backend, samples=(100_000, 100_000))
    return build_detector(build_resnet(ARCH, 1), ARCH, 3, "imagenet", chosen)


@pytest.fixture
def ours():
    """A detector as after training: proposals and classes differ."""
    detector = build("torchvision")
    with torch.no_grad():
        for name, parameter in detector.named_parameters():
            if "backbone" not in name:
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)) * 0.05)
    return detector


@pytest.fixture
def detectors(detectron2, ours):
    """Our detector and detectron2's, with the same weights."""
    theirs = build("detectron2")
    target, moved = theirs.network.state_dict(), transplanted(ours.state_dict())
    assert {k for k in target if "bottom_up" not in k and "anchor_generator" not in k} == moved.keys()
    theirs.network.load_state_dict(target | moved)
    return ours, theirs


def test_the_comparison_can_be_built_without_detectron2(ours):
    """The weights to compare with, the losses and the detections of our side, and the settings of both."""
    moved = transplanted(ours.state_dict())
    assert sum(value.numel() for value in moved.values()) > 0.5 * sum(
        value.numel() for name, value in ours.state_dict().items() if "backbone" not in name
    )
    assert settings("detectron2").network == settings("torchvision").network
    losses = ours.train().losses(random_batch())
    assert set(losses) == {"loss_objectness", "loss_rpn_box_reg", "loss_cls", "loss_box_reg"}
    assert all(torch.isfinite(value) for value in losses.values())
    with torch.inference_mode():
        assert all(len(found[0]) > 10 for found in ours.eval().detect(random_batch()["image"]))


def random_batch():
    generator = torch.Generator().manual_seed(0)
    shapes = [(97, 160), (128, 131)]
    images = [torch.randint(0, 256, (3, *shape), generator=generator, dtype=torch.uint8) for shape in shapes]
    boxes = [torch.tensor([[5.0, 6, 40, 50], [60, 10, 144, 80]]), torch.tensor([[20.0, 30, 90, 70]])]
    return {"image": images, "boxes": boxes, "labels": [torch.tensor([1, 2]), torch.tensor([0])]}


def test_both_backends_have_the_same_losses_and_gradients(detectors):
    names = {"loss_objectness": "loss_rpn_cls", "loss_rpn_box_reg": "loss_rpn_loc"}
    ours, theirs = (detector.train().losses(random_batch()) for detector in detectors)
    ours = {names.get(name, name): value for name, value in ours.items()}
    assert {k: v.item() for k, v in ours.items()} == pytest.approx({k: v.item() for k, v in theirs.items()}, rel=1e-4)
    for losses in (ours, theirs):
        sum(losses.values()).backward()
    for mine, other in (
        ("pyramid.backbone.layer4.0.conv1.weight", "network.backbone.bottom_up.res5.0.conv1.weight"),
        ("pyramid.fpn.inner_blocks.0.0.weight", "network.backbone.fpn_lateral2.weight"),
        ("heads.box_head.fc6.weight", "network.roi_heads.box_head.fc1.weight"),
    ):
        a, b = detectors[0].get_parameter(mine).grad, detectors[1].get_parameter(other).grad
        assert torch.linalg.norm(a - b) < 1e-3 * torch.linalg.norm(b), mine
    for detector in detectors:
        frozen = {name for name, p in detector.named_parameters() if not p.requires_grad}
        assert frozen and not any("layer4" in name or "res5" in name for name in frozen)
    trained = [sum(p.numel() for p in d.parameters() if p.requires_grad) for d in detectors]
    assert trained[0] - trained[1] == 4 * (24 + 1)  # the boxes of torchvision's background class


def test_both_backends_detect_the_same(detectors):
    images = random_batch()["image"]
    with torch.inference_mode():
        ours, theirs = (detector.eval().detect(images) for detector in detectors)
    for a, b in zip(ours, theirs, strict=True):
        assert len(a[0]) == len(b[0]) > 10
        for mine, other in zip(a, b, strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-3)


def test_images_and_boxes_are_those_of_detectron2(detectron2, tmp_path):
    from detectron2.data import transforms

    rng = np.random.default_rng(0)
    for number in range(20):
        width, height = map(int, rng.integers(30, 700, 2))
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "image.png")
        short, longest = int(rng.integers(50, 300)), int(rng.integers(200, 400))
        box = np.array([[3.0, 4, 20, 25]])
        annotations = Annotations([box], [np.array([0])], [np.array([False])])
        sides = Sides((short,), short, longest)
        ours = TrainingImages(tmp_path, ["image.png"], annotations, sides)(0, 0, np.random.default_rng(number))
        generator = np.random.default_rng(number)
        generator.integers(1)  # the size is drawn first
        flip = generator.random() < 0.5
        theirs = transforms.AugInput(pixels, boxes=box)
        resize = transforms.ResizeShortestEdge(short, longest)
        done = transforms.AugmentationList([resize, transforms.RandomFlip(1.0 if flip else 0.0)])(theirs)
        assert ours["image"].shape[2:0:-1] == scaled_size(width, height, short, longest)
        assert np.array_equal(ours["image"].permute(1, 2, 0).numpy(), theirs.image), done
        np.testing.assert_allclose(ours["boxes"], theirs.boxes, rtol=1e-5)


PAPER = Schedule(**defaults("detection")["schedule"])


@pytest.mark.parametrize("schedule", [PAPER, Schedule(2, 300, 0.01, (200, 250), 30), PAPER.scaled(16, 1)])
def test_learning_rates_are_those_of_detectron2(detectron2, schedule):
    from detectron2.config import get_cfg
    from detectron2.solver import build_lr_scheduler

    config = get_cfg()
    config.SOLVER.merge_from_list(
        [
            *("STEPS", schedule.milestones, "MAX_ITER", schedule.steps, "WARMUP_ITERS", schedule.warmup),
            *("BASE_LR", schedule.learning_rate, "WARMUP_FACTOR", 0.001),
        ]
    )
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=schedule.learning_rate)
    multiplier = build_lr_scheduler(config, optimiser)._multiplier
    moments = {*range(200), *schedule.milestones, *(step - 1 for step in schedule.milestones), schedule.steps - 1}
    ours = {i: schedule.factor(i) for i in moments}
    assert ours == pytest.approx({i: multiplier(i / schedule.steps) for i in moments}, rel=1e-6), json.dumps(
        schedule.milestones
    )

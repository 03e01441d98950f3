"""Semantic segmentation: counts against an independent evaluator, bands, labels, resuming, and masks that are wrong."""

import re
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from ssltransfer.config.validation import read_yaml
from ssltransfer.datasets import image_masks, shapes
from ssltransfer.datasets.masks import read_mask
from ssltransfer.errors import InputError
from ssltransfer.models.backbone import ANY_SIZE
from ssltransfer.models.backbone_file import build_backbone
from ssltransfer.models.resnet import build_resnet
from ssltransfer.protocols.dense.batches import grouped_rows
from ssltransfer.protocols.dense.heads import parameter_groups
from ssltransfer.protocols.dense.padded_batches import collate
from ssltransfer.protocols.dense.segmentation import prediction
from ssltransfer.protocols.dense.segmentation.dataset import SegmentationDataset
from ssltransfer.protocols.dense.segmentation.evaluation import _shortened
from ssltransfer.protocols.dense.segmentation.metrics import ClassCounts, mean_iou, pixel_accuracy
from ssltransfer.protocols.dense.segmentation.network import SegmentationNetwork
from ssltransfer.protocols.dense.segmentation.outcomes import images_of_rarest_class, segmentation_outcomes
from ssltransfer.protocols.dense.segmentation.prediction import Predictor, alike, windows
from ssltransfer.protocols.dense.segmentation.settings import SegmentationSettings
from ssltransfer.protocols.dense.segmentation.training import rate, train_network
from ssltransfer.settings import read_settings
from ssltransfer.training_batches import batch_rows
from ssltransfer.training_state import Run
from workflow import REPOSITORY

CPU = torch.device("cpu")
HEADS = {
    "upernet": {"network": {"channels": 8}, "sides": {"train": [32, 48], "test": [32, 48]}},
    "linear": {
        "head": "linear",
        "frozen": "all",
        "labels": "pixels",
        "schedule": {"optimiser": "adamw", "annealing": "cosine", "learning_rate": 0.01, "steps": 6, "warmup": 2},
        "sides": {"train": [32], "jitter": [0.5, 2], "crop": 32, "test": [48], "window": 32, "window_step": 16},
        "augmentation": {"colours": True, "largest_share": 0.75},
        "network": {"dropout": 0.1},
    },
}


def block(head, **changes):
    values = {"kind": "segmentation", "schedule": {"steps": 6, "learning_rate": 0.05}} | HEADS[head]
    return read_settings(SegmentationSettings, values | changes)


def network(settings, classes=3):
    return SegmentationNetwork(build_resnet("resnet-1x1x1x1-w4", 0), classes, settings)


@pytest.fixture
def scenes(tmp_path):
    """Eight images of two sizes, whose left, middle and right are three classes; a column is unlabelled."""
    images, masks, sizes = [], [], []
    for number in range(8):
        width, height = (48, 35) if number % 2 else (35, 48)
        mask = np.broadcast_to(np.arange(width) * 3 // width, (height, width)).astype(np.uint8).copy()
        mask[:, number] = 255
        Image.fromarray(np.repeat(mask[..., None] * 80, 3, axis=2)).save(tmp_path / f"{number}.png")
        Image.fromarray(mask).save(tmp_path / f"mask{number}.png")
        images.append(f"{number}.png")
        masks.append(f"mask{number}.png")
        sizes.append((width, height))
    return SegmentationDataset(tmp_path, tmp_path, images, masks, ["a", "b", "c"], 255, 1000, sizes)


def confusion_metrics(pairs, classes):
    """Mean IoU and accuracy from one confusion matrix, pixel by pixel."""
    matrix = np.zeros((classes, classes), np.int64)
    for predicted, truth in pairs:
        for p, t in zip(predicted.ravel().tolist(), truth.ravel().tolist(), strict=True):
            if t != 255:
                matrix[t, p] += 1
    present = [k for k in range(classes) if matrix[k].sum()]
    iou = {k: matrix[k, k] / (matrix[k].sum() + matrix[:, k].sum() - matrix[k, k]) for k in present}
    return sum(iou.values()) / len(iou), sum(iou.values()) / classes, 100 * np.trace(matrix) / matrix.sum()


def test_the_metrics_are_those_of_an_independent_evaluator_on_1000_random_cases():
    rng = np.random.default_rng(0)
    for _ in range(1000):
        classes = int(rng.integers(1, 9))
        counts, pairs = ClassCounts(classes), []
        for _ in range(int(rng.integers(1, 4))):
            shape = tuple(rng.integers(1, 7, 2))
            truth = np.where(rng.random(shape) < 0.3, 255, rng.integers(classes, size=shape))
            truth[0, 0] = 0
            pairs.append((rng.integers(classes, size=shape), truth))
            counts.add(*pairs[-1])
        totals = counts.table.sum(axis=0)
        expected = confusion_metrics(pairs, classes)
        found = mean_iou(totals, "left-out"), mean_iou(totals, "zero"), pixel_accuracy(totals)
        assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("head", HEADS)
def test_bands_of_rows_do_not_change_a_prediction(head, scenes):
    settings = block(head)
    image, _ = scenes.read(0)
    predictors = [Predictor(network(settings), scenes, settings, "none", CPU, values) for values in (1, 500, 2**24)]
    first, *others = (predictor.predict([image])[0] for predictor in predictors)
    assert first.shape == (48, 35) and len(np.unique(first)) > 1
    assert all(np.array_equal(first, other) for other in others)


def test_the_logits_of_a_large_image_are_never_held_at_once(scenes, monkeypatch):
    """2,000 x 1,500 pixels and 150 classes are 1.8 GB of logits; a band of rows is at most 64 MiB."""
    settings = block("linear", sides={"train": [32], "test": [32]})
    made, upsample = [], prediction.upsample

    def recorded(*arguments):
        found = upsample(*arguments)
        made.append(found.numel())
        return found

    monkeypatch.setattr(prediction, "upsample", recorded)
    wide = replace(scenes, classes=[str(number) for number in range(150)])
    predictor = Predictor(network(settings, 150), wide, settings, "none", CPU)
    image = Image.effect_noise((2000, 1500), 100).convert("RGB")
    assert predictor.predict([image]).shape == (1, 1500, 2000)
    assert sum(made) == 150 * 2000 * 1500 and max(made) <= prediction.BAND_VALUES


def test_images_predicted_together_are_predicted_as_alone(scenes):
    settings = block("upernet")
    predictor = Predictor(network(settings), scenes, settings, "none", CPU)
    batches = list(alike([1, 3, 5, 0, 2, 7], scenes.read, predictor.at_once))
    assert [len(images) for images, _ in batches] == [3, 2, 1]
    images, masks = batches[0]
    assert all(np.array_equal(mask, scenes.mask(row)) for mask, row in zip(masks, (1, 3, 5), strict=True))
    alone = np.concatenate([predictor.predict([image]) for image in images])
    assert (predictor.predict(images) == alone).mean() > 0.999  # sums of a batch may be rounded otherwise
    assert [len(images) for images, _ in alike([1, 3, 5], scenes.read, lambda size: 2)] == [2, 1]


@pytest.mark.parametrize("changes", [{}, {"test_size": "stretched"}, {"window": 512, "window_step": 341}])
def test_images_are_predicted_together_by_what_the_network_sees_of_them(changes, scenes):
    """64 images of 64 pixels fit at that size; at 600 they would be 24 megapixels, so each is predicted alone."""

    def predictor(test):
        sides = {"train": [32], "test": test, "longest": 1000} | {k: v for k, v in changes.items() if k != "test_size"}
        more = {k: v for k, v in changes.items() if k == "test_size"}
        settings = block("upernet", sides=sides, **more)
        return Predictor(network(settings), replace(scenes, longest=1000), settings, "none", CPU)

    assert predictor([64]).at_once((64, 64)) == 64
    assert predictor([64, 600]).at_once((64, 64)) == predictor([300, 600, 450]).at_once((640, 480)) == 1
    assert predictor([100]).at_once((200, 100)) == 2**18 // (224 * 128)
    for size in ((500, 375), (2000, 1500), (64, 48), (7, 90)):
        found, image = predictor([90]), Image.new("RGB", size)
        height, width = found.size_logits([found.resize(image, 90)]).values.shape[2:]
        seen = max(height * width * 16 if not found.settings.sides.window else 0, size[0] * size[1])
        assert found.at_once(size) == 1 or found.at_once(size) * seen <= 2**18


def test_windows_cover_an_image_and_end_at_its_edges():
    covered = np.zeros((50, 33), int)
    for top, left in windows(50, 33, 32, 20):
        covered[top : top + 32, left : left + 32] += 1
        assert top + 32 <= 50 and left + 32 <= 33
    assert covered.min() == 1


@pytest.mark.parametrize("head", HEADS)
def test_a_resumed_training_is_that_of_an_uninterrupted_one(head, scenes, tmp_path):
    settings = block(head)

    def train(folder, **options):
        trained = network(settings)
        curve = train_network(trained, scenes, np.arange(8), settings, "none", Run(folder, "key", "p", **options), CPU)
        return trained.trained.state_dict(), curve.losses

    def stop_after_three(batches, total):
        for number, batch in enumerate(batches):
            if number == 3:
                raise KeyboardInterrupt
            yield batch

    whole, losses = train(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "part", progress=stop_after_three, save_seconds=-1)
    assert (tmp_path / "part" / "state.pt").exists()
    resumed, resumed_losses = train(tmp_path / "part")
    assert losses == resumed_losses
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


@pytest.mark.parametrize("head", HEADS)
def test_a_gpu_learns_and_predicts_alike(head, scenes, tmp_path, any_gpu):
    settings, losses = block(head), []
    for device in (CPU, any_gpu):
        trained = network(settings).to(device)
        run = Run(tmp_path / device.type, "key", "p")
        losses.append(train_network(trained, scenes, np.arange(8), settings, "none", run, device).losses)
        assert len(Predictor(trained, scenes, settings, "none", device).predict([Image.new("RGB", (40, 30))])) == 1
    # Dropout draws other numbers on each.
    assert np.mean(losses[1]) == pytest.approx(np.mean(losses[0]), rel=0.1)


def test_a_frozen_backbone_stays_and_a_trained_one_moves(scenes, tmp_path):
    for frozen in ("all", "none"):
        settings = block("upernet", frozen=frozen)
        trained = network(settings)
        before = {key: value.clone() for key, value in trained.backbone.state_dict().items()}
        train_network(trained, scenes, np.arange(8), settings, "none", Run(tmp_path / frozen, "key", "p"), CPU)
        same = [torch.equal(value, before[key]) for key, value in trained.backbone.state_dict().items()]
        assert all(same) if frozen == "all" else not any(same)


def test_padding_is_ignored_or_as_in_the_official_code_the_first_class():
    image, labels = torch.zeros(30, 20, 3, dtype=torch.uint8), torch.ones(8, 5, dtype=torch.int64)
    for value in (255, 0):
        _, _, found = collate([(image, labels)], 32, 4, value)
        assert found.shape == (1, 8, 8)
        assert (found[0, :, :5] == 1).all() and (found[0, :, 5:] == value).all()


def test_padding_as_in_the_official_code_trains_the_first_class(scenes, tmp_path):
    """Of images of two shapes in one batch, so that a good part of it is padding."""

    def share(padding_label):
        settings = block("upernet", padding_label=padding_label, sides={"train": [32], "test": [32]})
        examples = [
            scenes.example(row, 32, (1, 1), 0, 4, settings.augmentation, np.random.default_rng(row)) for row in (0, 1)
        ]
        _, _, labels = collate(examples, 32, 4, 0 if padding_label == "first-class" else 255)
        return [(labels == value).float().mean().item() for value in (0, 255)]

    (wall, unlabelled), (more, less) = share("ignore"), share("first-class")
    assert more - wall == pytest.approx(unlabelled - less) and more > 1.5 * wall


@pytest.mark.parametrize("size", [(33, 47), (1, 40), (64, 64)])
def test_a_plain_transformer_gets_four_maps_and_odd_sizes_are_predicted(size, scenes, tmp_path):
    settings = block("upernet", sides={"train": [48], "test": [48]}, schedule={"steps": 2, "learning_rate": 0.01})
    backbone = build_backbone("timm:vit_tiny_patch16_224(depth=1,embed_dim=24,num_heads=2)", size=ANY_SIZE, seed=0)
    vit = SegmentationNetwork(backbone, 3, settings)
    train_network(vit, scenes, np.arange(8), settings, "none", Run(tmp_path, "key", "p"), CPU)
    (found,) = Predictor(vit, scenes, settings, "none", CPU).predict([Image.new("RGB", size, "red")])
    assert vit.plain and vit.stride == 4 and found.shape == size[::-1] and found.max() < 3


def test_weights_of_convolutions_and_linear_layers_decay_alone():
    """Those of a transformer, of the layers that make its four maps, and of the decoder."""
    backbone = build_backbone("timm:vit_tiny_patch16_224(depth=1,embed_dim=24,num_heads=2)", size=ANY_SIZE, seed=0)
    trained = SegmentationNetwork(backbone, 3, block("upernet")).trained
    decaying, rest = ({id(p) for p in group["params"]} for group in parameter_groups(trained, 0.02, 1e-4))
    names = {name for name, parameter in trained.named_parameters() if id(parameter) in decaying}
    expected = {name for name, p in trained.named_parameters() if name.endswith(".weight") and p.ndim > 1}
    assert names == expected and len(decaying) + len(rest) == len(list(trained.parameters()))
    assert {"backbone.network.blocks.0.mlp.fc1.weight", "scales.1.0.weight", "head.last.4.weight"} <= names
    assert not names & {"backbone.network.pos_embed", "backbone.network.norm.weight"}


def test_batches_are_of_one_group_and_do_not_depend_on_the_first_step():
    rows, groups = np.arange(10, 21), np.arange(11) % 3 == 0
    whole = [(step, batch.tolist()) for step, batch in grouped_rows(rows, groups, 2, 1, 0, 30)]
    assert [step for step, _ in whole] == list(range(30))
    assert all(len({bool(groups[row - 10]) for row in batch}) == 1 for _, batch in whole)
    assert [(s, b.tolist()) for s, b in grouped_rows(rows, groups, 2, 1, 17, 30)] == whole[17:]
    one = [batch.tolist() for _, batch in grouped_rows(rows, np.zeros(11), 2, 1, 0, 30)]
    assert one == [batch.tolist() for _, batch in batch_rows(rows, 2, 1, 0, 30)]


def test_learning_rates_are_those_of_code_and_text():
    schedule = read_settings(SegmentationSettings, {"kind": "segmentation"}).schedule
    assert rate(schedule, 0) == 1 and rate(schedule, 75_000) == pytest.approx(0.5**0.9)
    stairs = read_settings(SegmentationSettings, {"kind": "segmentation", "schedule": {"annealing": "stairs"}}).schedule
    assert rate(stairs, 499) == 1 and rate(stairs, 1000) == pytest.approx(0.81)


def test_the_linear_recipe_has_the_learning_rates_of_its_code():
    """DINOv3: a warm-up from a millionth, then the cosine that a scheduler gives which is one step ahead."""
    settings = read_settings(
        SegmentationSettings, read_yaml(REPOSITORY / "config/protocols.yaml")["segmentation-linear"]
    )
    schedule = settings.schedule
    assert (schedule.steps, schedule.warmup) == (40_000, 1500)
    assert rate(schedule, 0) == pytest.approx(1e-6)
    assert rate(schedule, 750) == pytest.approx((0.5 + 0.5e-6) * (1 - 750 / 40_000))
    assert rate(schedule, 1499) == pytest.approx((1 - (1 - 1e-6) / 1500) * (1 - 1499 / 40_000))
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    official = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 40_000)
    for step in (1500, 1501, 19_999, 39_998, 39_999):
        official.last_epoch = step + 1
        assert rate(schedule, step) == pytest.approx(official._get_closed_form_lr()[0], abs=1e-12)
    assert rate(schedule, 39_999) == 0


@pytest.mark.parametrize(
    ("name", "steps", "batch", "text"),
    [
        ("segmentation", 150_000, 2, ""),
        ("segmentation", 75_000, 4, ""),
        ("segmentation", 149_999, 2, "149999 steps of 2 images, where the paper has 150000 of 2"),
        ("segmentation-official", 150_000, 4, ""),
        ("segmentation-linear", 40_000, 16, ""),
        ("segmentation-linear", 40_000, 8, "40000 steps of 8 images, where DINOv3's recipe has 40000 of 16"),
    ],
)
def test_a_schedule_is_short_by_its_images(name, steps, batch, text):
    settings = read_settings(SegmentationSettings, read_yaml(REPOSITORY / "config/protocols.yaml")[name])
    schedule = replace(settings.schedule, steps=steps, batch_size=batch)
    assert _shortened(replace(settings, schedule=schedule)) == text


def test_masks_of_shapes_show_the_solids_of_the_scenes():
    scenes, masks = shapes.generate(0, 20, 10), shapes.draw_masks(0, 20, 10)
    # Normals are rounded to bytes, and are nowhere zero on a solid.
    assert np.array_equal(masks > 0, scenes.arrays["normals"].any(axis=-1))
    for mask, objects in zip(masks, scenes.extra["objects"], strict=True):
        assert sorted(set((mask[mask > 0] - 1).tolist())) == objects


def pairs(root, masks, names=("train", "test"), classes="a\nb\n"):
    for part, mask in zip(names, masks, strict=True):
        for folder, image in (("images", Image.new("RGB", (7, 5))), ("masks", mask)):
            (root / folder / part).mkdir(parents=True)
            if image is not None:
                image.save(root / folder / part / "x.png")
    (root / "classes.txt").write_text(classes)


GOOD = Image.fromarray(np.array([[0, 1, 255, 0, 0, 0, 1]] * 5, np.uint8))


def test_a_folder_of_images_and_masks_is_indexed(tmp_path):
    pairs(tmp_path, (GOOD, GOOD))
    index = image_masks.index(tmp_path)
    assert index.classes == ["a", "b"] and index.label == [[0, 1], [0, 1]] and index.split == ["train", "test"]
    assert index.extra["size"] == [[7, 5]] * 2 and index.extra["mask"][0] == "masks/train/x.png"


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (Image.new("L", (7, 6)), "mask of 7x6 pixels; its image"),
        (Image.new("L", (7, 5), 38), "value 38 found, expected 0 to 1, or 255"),
        (Image.new("RGB", (7, 5)), "mode RGB, expected one channel of 8 bit"),
        (Image.new("L", (7, 5), 255), "no mask of the train part has a labelled pixel"),
        (None, "has no mask in"),
    ],
)
def test_wrong_masks_are_one_line(mask, message, tmp_path):
    pairs(tmp_path, (mask, GOOD))
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        image_masks.index(tmp_path)
    assert "\n" not in str(caught.value)


def small_png(path, bits, rows):
    """Write a grey PNG file of less than 8 bit, as programs that shrink files do; PIL writes none."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    lines = ["".join(format(value, f"0{bits}b") for value in row) for row in rows]
    packed = [np.packbits(np.array(list(line), np.uint8)).tobytes() for line in lines]
    content = b"".join(b"\0" + line for line in packed)
    header = struct.pack(">2I5B", len(rows[0]), len(rows), bits, 0, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(content)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_grey_values_of_few_bits_are_the_numbers_that_were_stored(tmp_path, bits):
    rows = np.arange(2 ** min(bits, 4), dtype=np.uint8).reshape(2, -1)
    small_png(tmp_path / "a.png", bits, rows.tolist())
    assert np.array_equal(read_mask(tmp_path, "a.png", 150, 255), rows)


@pytest.mark.parametrize("largest", [3, 20, 254, 255])
def test_a_pgm_of_another_largest_value_holds_the_numbers_that_were_stored(tmp_path, largest):
    (tmp_path / "a.pgm").write_bytes(b"P5 4 1 %d\n" % largest + bytes([0, 1, largest - 1, min(largest, 254)]))
    assert read_mask(tmp_path, "a.pgm", 255, 255).tolist() == [[0, 1, largest - 1, min(largest, 254)]]


def test_masks_that_lost_their_values_are_one_line(tmp_path):
    GOOD.save(tmp_path / "a.jpg")
    with pytest.raises(InputError, match=r"a.jpg cannot be read: a JPEG, which changes values .* as PNG"):
        read_mask(tmp_path, "a.jpg", 2, 255)


def test_masks_with_a_palette_are_read_by_their_numbers(tmp_path):
    paletted = GOOD.copy()
    paletted.putpalette([7, 8, 9] * 256)
    assert paletted.mode == "P"
    pairs(tmp_path, (paletted, GOOD))
    assert image_masks.index(tmp_path).label[0] == [0, 1]


def test_the_interval_of_mean_iou_claims_less_where_a_class_is_rare():
    random = np.random.default_rng(0)
    truth = random.multinomial(1000, [0.5, 0.3, 0.2], 100)
    right = random.binomial(truth, 0.7)
    table = np.stack([right, truth, truth], axis=1)
    names = [str(number) for number in range(len(table))]
    assert images_of_rarest_class(table) > 90
    assert [outcome.interval.level for outcome in segmentation_outcomes(names, table, "left-out")] == [0.93, 0.93]
    table[5:, :, 2] = 0
    assert images_of_rarest_class(table) == pytest.approx(5, abs=0.1)
    assert [outcome.interval.level for outcome in segmentation_outcomes(names, table, "left-out")] == [0.90, 0.93]

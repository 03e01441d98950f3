import numpy as np
import pytest

from ssltransfer.datasets import digits, shapes, textures
from ssltransfer.datasets.index import read_index, write_index
from ssltransfer.datasets.index_checks import check_counts, check_index
from ssltransfer.datasets.solids import SOLIDS, cast

SMALL = {
    "digits": lambda seed: digits.generate(seed),
    "textures": lambda seed: textures.generate(seed, train=96, test=48),
    "shapes": lambda seed: shapes.generate(seed, train=60, test=30),
}
COUNTS = {
    "digits": {"classes": 10, "train": 1000, "test": 797},
    "textures": {"classes": 16, "train": 96, "test": 48},
    "shapes": {"classes": 10, "train": 60, "test": 30},
}
SIDES = {"digits": 32, "textures": 64, "shapes": 64}


@pytest.fixture(scope="module", params=SMALL)
def generated(request):
    return request.param, SMALL[request.param](0)


@pytest.fixture(scope="module")
def scenes():
    return shapes.generate(3, train=80, test=20)


def test_fulfils_the_contract_of_an_index(generated, tmp_path):
    name, data = generated
    check_index(data.index, name)
    check_counts(data.index, name, COUNTS[name])
    write_index(tmp_path / "index.parquet", data.index)
    assert read_index(tmp_path / "index.parquet") == data.index


def test_images_are_rgb_and_referenced_in_order(generated):
    name, data = generated
    assert data.images.dtype == np.uint8
    assert data.images.shape == (len(data.label), SIDES[name], SIDES[name], 3)
    assert data.index.image[5] == "originals.npy#5"
    assert {len(column) for column in [*data.extra.values(), *data.arrays.values()]} <= {len(data.label)}


def test_every_class_is_in_both_splits(generated):
    _, data = generated
    for part in ("train", "test"):
        labels = {label for label, split in zip(data.label, data.split, strict=True) if split == part}
        assert labels == set(range(len(data.classes)))


def test_same_seed_same_data_and_other_seed_other_data(generated):
    name, data = generated
    again, other = SMALL[name](0), SMALL[name](1)
    assert np.array_equal(again.images, data.images)
    assert again.index == data.index
    assert all(np.array_equal(again.arrays[key], data.arrays[key]) for key in data.arrays)
    assert not np.array_equal(other.images, data.images)


def test_digits_use_the_whole_range_of_grey():
    images = digits.generate().images
    assert images.min() == 0
    assert images.max() == 255
    assert (images[..., 0] == images[..., 2]).all()


def test_digits_need_a_test_part():
    with pytest.raises(ValueError, match="train is 1797"):
        digits.generate(train=1797)


def test_texture_splits_share_no_pixel():
    data = textures.generate(0, train=320, test=160)
    for number, name in enumerate(data.classes):
        width, height = textures.load_photograph(name).size
        seen = {part: np.zeros((height, width), bool) for part in ("train", "test")}
        for row, label in enumerate(data.label):
            if label == number:
                left, top, window = (data.extra[key][row] for key in ("left", "top", "window"))
                assert left >= 0 and top >= 0 and left + window <= width and top + window <= height
                seen[data.split[row]][top : top + window, left : left + window] = True
        assert not (seen["train"] & seen["test"]).any()


def test_tiles_keep_their_distance():
    for name in textures.PHOTOGRAPHS:
        parts = textures.split_tiles(textures.load_photograph(name).size)
        assert parts["train"] and parts["test"]
        tiles = [tile for part in parts.values() for tile in part]
        for a in tiles:
            assert min(a[2] - a[0], a[3] - a[1]) >= textures.SMALLEST_WINDOW
            for b in tiles:
                gap = max(b[0] - a[2], a[0] - b[2], b[1] - a[3], a[1] - b[3])
                assert a == b or gap >= textures.MARGIN


def test_textures_are_balanced():
    with pytest.raises(ValueError, match="multiples of 16"):
        textures.generate(train=100, test=48)


@pytest.mark.parametrize(
    ("solid", "x", "y", "point", "normal"),
    [
        ("sphere", 0.51, 0.0, (0.51, 0, 0.68), (0.6, 0, 0.8)),
        ("sphere", 0.0, -0.68, (0, -0.68, 0.51), (0, -0.8, 0.6)),
        ("ellipsoid", 0.0, 0.0, (0, 0, 1), (0, 0, 1)),
        ("hemisphere", 0.54, 0.0, (0.54, 0, 0.32), (0.6, 0, 0.8)),
        ("cube", 0.3, -0.5, (0.3, -0.5, 0.57), (0, 0, 1)),
        ("octahedron", 0.2, -0.3, (0.2, -0.3, 0.5), (3**-0.5, -(3**-0.5), 3**-0.5)),
        ("cylinder", 0.3, 0.3, (0.3, 0.3, 0.75), (0, 0, 1)),
        ("cone", 0.0, 0.5, (0, 0.5, -0.05), (0, 0.8**0.5, 0.2**0.5)),
        ("capsule", 0.252, 0.0, (0.252, 0, 0.886), (0.6, 0, 0.8)),
        ("torus", 0.0, 0.68, (0, 0.68, 0.31), (0, 0, 1)),
        ("torus", -0.68 - 0.186, 0.0, (-0.866, 0, 0.248), (-0.6, 0, 0.8)),
    ],
)
def test_rays_along_the_axis_meet_solids_where_computed_by_hand(solid, x, y, point, normal):
    upright = np.eye(3, dtype=np.float32)[None]
    hit, points, normals = cast(solid, upright, np.array([[x]], np.float32), np.array([[y]], np.float32))
    assert hit.all()
    np.testing.assert_allclose(points[0], point, atol=2e-3)
    np.testing.assert_allclose(normals[0], normal, atol=5e-3)


@pytest.mark.parametrize(("solid", "x"), [("sphere", 0.86), ("cube", 0.58), ("cone", 0.8), ("torus", 0.36)])
def test_rays_beside_solids_miss(solid, x):
    upright = np.eye(3, dtype=np.float32)[None]
    hit, *_ = cast(solid, upright, np.array([[x]], np.float32), np.zeros((1, 1), np.float32))
    assert not hit.any()


@pytest.mark.parametrize("solid", SOLIDS)
def test_normals_are_those_of_the_depth_in_any_pose(solid):
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.normal(size=(30, 3, 3)))[0]
    rotation = (rotation * np.linalg.det(rotation)[:, None, None]).astype(np.float32)
    side = 81
    line = np.linspace(-1, 1, side, dtype=np.float32)
    x, y = (np.tile(axis.ravel(), (30, 1)) for axis in np.meshgrid(line, line))
    hit, point, normal = cast(solid, rotation, x, y)
    assert (np.linalg.norm(point, axis=1) < 1 + 2e-3).all()
    np.testing.assert_allclose(np.linalg.norm(normal, axis=1), 1, atol=1e-4)
    assert (normal[:, 2] > -1e-2).all()
    depth, normals = np.full(hit.shape, np.nan, np.float32), np.full((*hit.shape, 3), np.nan, np.float32)
    depth[hit], normals[hit] = point[:, 2], normal
    depth, normals = depth.reshape(30, side, side), normals.reshape(30, side, side, 3)
    slope = np.gradient(depth, 2 / (side - 1), axis=(2, 1))
    measured = np.stack([-slope[0], -slope[1], np.ones_like(depth)], axis=-1)
    measured /= np.linalg.norm(measured, axis=-1, keepdims=True)
    cosine = (measured * normals).sum(axis=-1)
    inner = np.isfinite(cosine) & (normals[..., 2] > 0.3)
    assert (cosine[inner] > 0.99).mean() > 0.9  # the rest lies on edges


def test_label_is_the_largest_of_the_objects(scenes):
    for label, boxes, objects in zip(scenes.label, scenes.extra["boxes"], scenes.extra["objects"], strict=True):
        assert 1 <= len(boxes) <= 3
        assert label in objects
        assert objects == sorted({box[0] for box in boxes})
    assert set(map(len, scenes.extra["boxes"])) == {1, 2, 3}


def test_boxes_are_tight_around_the_visible_pixels(scenes):
    for boxes, normals in zip(scenes.extra["boxes"], scenes.arrays["normals"], strict=True):
        mask = normals.any(axis=-1)
        union = np.zeros_like(mask)
        for _, xmin, ymin, xmax, ymax in boxes:
            assert 0 <= xmin < xmax <= 64
            assert 0 <= ymin < ymax <= 64
            inside = mask[ymin:ymax, xmin:xmax]
            assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()
            assert inside.sum() >= shapes.MINIMUM_VISIBLE
            union[ymin:ymax, xmin:xmax] = True
        assert not (mask & ~union).any()


def test_main_solid_covers_a_place_near_the_middle(scenes):
    for label, boxes in zip(scenes.label, scenes.extra["boxes"], strict=True):
        centres = [((x0 + x1) / 2, (y0 + y1) / 2) for kind, x0, y0, x1, y1 in boxes if kind == label]
        assert min(max(abs(x - 32), abs(y - 32)) for x, y in centres) < 20


def test_normals_are_units_facing_the_camera(scenes):
    normals = scenes.arrays["normals"]
    assert normals.dtype == np.int8
    seen = normals[normals.any(axis=-1)] / 127
    np.testing.assert_allclose(np.linalg.norm(seen, axis=1), 1, atol=0.01)
    assert (seen[:, 2] > -0.01).all()


def test_normals_of_a_sphere_in_a_scene_point_away_from_its_centre(scenes):
    alone = [
        row
        for row, boxes in enumerate(scenes.extra["boxes"])
        if len(boxes) == 1 and scenes.classes[boxes[0][0]] == "sphere"
    ]
    assert alone
    for row in alone:
        _, xmin, ymin, xmax, ymax = scenes.extra["boxes"][row][0]
        radius = (xmax - xmin + ymax - ymin) / 4
        rows, columns = np.nonzero(scenes.arrays["normals"][row].any(axis=-1))
        right = (columns + 0.5 - (xmin + xmax) / 2) / radius
        up = ((ymin + ymax) / 2 - rows - 0.5) / radius
        expected = np.stack([right, up], axis=1)
        found = scenes.arrays["normals"][row][rows, columns, :2] / 127
        np.testing.assert_allclose(found, expected, atol=0.09)


def test_hidden_solids_are_taken_out():
    covered = np.zeros((1, 3, 64, 64), bool)
    covered[0, 0, 10:40, 10:40] = True
    covered[0, 1, 12:20, 12:20] = True
    covered[0, 2, 38:44, 20:30] = True
    order = np.array([[1, 2, 0]])
    front = shapes._visible(covered, order)
    assert set(np.unique(front)) == {shapes.NOTHING, 0, 2}
    assert (front == 2).sum() == 40

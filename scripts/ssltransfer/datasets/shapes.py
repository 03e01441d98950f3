"""Rendered scenes: shaded, patterned solids before clutter, with classes, boxes and surface normals.

One to three solids, more or less upright, under a lamp somewhere above; one of them is large and near the
middle. Light, colours, patterns and ground are drawn without regard to the class.
"""

import numpy as np

from ssltransfer.datasets.generated import Generated
from ssltransfer.datasets.solids import SOLIDS, cast

SIZE = 64  # pixels, as all lengths here
CLASSES = list(SOLIDS)
COUNT_ODDS = (0.55, 0.3, 0.15)  # of one, two and three solids
SLOTS = len(COUNT_ODDS)  # slot 0 holds the main solid
NOTHING = -1
MAIN_RADIUS, OTHER_RADIUS = (19.0, 26.0), (8.0, 12.0)
MAIN_WINDOW, OTHER_WINDOW = 54, 26  # side of a square that holds the solid
MAIN_SHIFT = 4.0
MINIMUM_VISIBLE = 25  # pixels; a solid that shows less is taken out of the scene
ELEVATION = (0.35, 0.85)  # radians by which the camera looks down
LEAN = 0.2  # radians, standard deviation
FIGURES = 3
PATTERNS, PATTERN_SIZE = 60, 128
BLOCK = 250  # scenes rendered together, which bounds the memory


def generate(seed: int = 0, train: int = 3000, test: int = 1000) -> Generated:
    """Render `train` + `test` scenes of 64x64 pixels.

    Parameters
    ----------
    seed : int
        Seed of every random choice.
    train, test : int
        Number of scenes.

    Returns
    -------
    Generated
        `label` is the class of the solid with the most visible pixels. Extra columns: ``objects``, the sorted
        classes present (the multi-label target), and ``boxes``, a ``[class, xmin, ymin, xmax, ymax]`` around
        the visible pixels of each solid, 0-based and half open (``xmax - xmin`` is the width). Array
        ``normals``, int8 (n, 64, 64, 3): 127 times the outward unit normal, x to the right, y up, z towards
        the camera; zero where no solid is seen.
    """
    images = np.empty((train + test, SIZE, SIZE, 3), np.uint8)
    normals = np.empty((train + test, SIZE, SIZE, 3), np.int8)
    label, boxes = [], []
    for rows, kinds, front, normal, painted in _render(seed, train, test):
        images[rows] = painted
        seen = front != NOTHING
        normals[rows] = 0
        normals[rows][seen] = np.round(normal * 127)
        for scene_kinds, scene_front in zip(kinds, front, strict=True):
            found = _boxes(scene_kinds, scene_front)
            label.append(max(found)[1])
            boxes.append([box for _, *box in found])
    return Generated(
        images=images,
        split=["train"] * train + ["test"] * test,
        label=label,
        classes=CLASSES,
        extra={"objects": [sorted({kind for kind, *_ in scene}) for scene in boxes], "boxes": boxes},
        arrays={"normals": normals},
    )


def draw_masks(seed: int = 0, train: int = 3000, test: int = 1000) -> np.ndarray:
    """Draw the masks of the scenes that `generate` renders, uint8 (n, 64, 64): 0, or 1 + class of the solid seen.

    The scenes are rendered again, because how they are painted decides about the random numbers of those after them.
    """
    masks = np.zeros((train + test, SIZE, SIZE), np.uint8)
    for rows, kinds, front, _, _ in _render(seed, train, test):
        scene = np.arange(len(kinds))[:, None, None]
        masks[rows] = np.where(front != NOTHING, kinds[scene, front] + 1, 0)
    return masks


def _render(seed, train, test):
    """Render scenes by the block.

    Yields its rows, the class in each slot, the slot that each pixel sees, the normals of the pixels that see a solid,
    and the images.
    """
    rng = np.random.default_rng(seed)
    patterns = make_patterns(rng)
    main = np.concatenate([rng.permutation(np.arange(count) % len(CLASSES)) for count in (train, test)])
    for start in range(0, len(main), BLOCK):
        rows = slice(start, start + BLOCK)
        kinds, front, point, normal = _trace(main[rows], rng)
        yield rows, kinds, front, normal, _paint(front, point, normal, patterns, rng)


def make_patterns(rng: np.random.Generator) -> np.ndarray:
    """Draw periodic clouds, ridges, stripes, patches, checks, dots: float32 (patterns, 128, 128) in [0, 1]."""
    frequency = np.fft.fftfreq(PATTERN_SIZE, 1 / PATTERN_SIZE)
    distance = np.hypot(frequency[:, None], frequency)
    y, x = np.mgrid[:PATTERN_SIZE, :PATTERN_SIZE] * (2 * np.pi / PATTERN_SIZE)
    patterns = np.empty((PATTERNS, PATTERN_SIZE, PATTERN_SIZE), np.float32)
    for number in range(PATTERNS):
        noise = np.fft.fft2(rng.normal(size=distance.shape))
        cloud = np.fft.ifft2(noise * np.exp(-((distance / rng.uniform(3, 14)) ** 2))).real
        cloud /= cloud.std()
        fx, fy = rng.integers(2, 9, 2)
        kind = (
            0.5 + 0.25 * cloud,
            0.7 * np.abs(cloud),
            0.5 + 0.5 * np.sin(fx * x + fy * y + 0.6 * cloud),
            0.5 + 2 * cloud,
            0.5 + 3 * np.sin(fx * x + 0.3 * cloud) * np.sin(fy * y),
            3 * np.sin(fx * x) ** 2 * np.sin(fx * y) ** 2 - 0.8,
        )
        patterns[number] = np.clip(kind[number % len(kind)], 0, 1)
    return patterns


def _trace(main, rng):
    """Arrange scenes and find what each pixel sees.

    Returns the class in each slot (n, slots), the slot that each pixel sees (n, 64, 64) and, of the pixels that
    see a solid, the point, in radii from its centre, and the normal (k, 3).
    """
    kinds, centre, radius, order = _arrange(main, rng)
    rotation = _poses(kinds.shape, rng)
    covered = np.zeros((*kinds.shape, SIZE, SIZE), bool)
    points = np.zeros((*kinds.shape, SIZE, SIZE, 3), np.float32)
    normals = np.zeros_like(points)
    for kind, name in enumerate(CLASSES):
        for slots, width in ((slice(0, 1), MAIN_WINDOW), (slice(1, SLOTS), OTHER_WINDOW)):
            scene, slot = np.nonzero(kinds[:, slots] == kind)
            slot += slots.start
            column, row = _window(centre[scene, slot], width)
            x = (column + 0.5 - centre[scene, slot, 0, None]) / radius[scene, slot, None]
            y = (centre[scene, slot, 1, None] - row - 0.5) / radius[scene, slot, None]
            hit, point, normal = cast(name, rotation[scene, slot], x.astype(np.float32), y.astype(np.float32))
            item, ray = np.nonzero(hit)
            i, j = row[item, ray], column[item, ray]
            inside = (i >= 0) & (i < SIZE) & (j >= 0) & (j < SIZE)
            target = scene[item[inside]], slot[item[inside]], i[inside], j[inside]
            covered[target] = True
            points[target] = point[inside]
            normals[target] = normal[inside]
    front = _visible(covered, order)
    scene, i, j = np.nonzero(front != NOTHING)
    seen = scene, front[scene, i, j], i, j
    return kinds, front, points[seen], normals[seen]


def _arrange(main, rng):
    """Choose class, centre (x, y) and radius of the solids in each scene, and their order from back to front."""
    n = len(main)
    kinds = rng.integers(len(CLASSES), size=(n, SLOTS))
    kinds[:, 0] = main
    count = 1 + rng.choice(SLOTS, n, p=COUNT_ODDS)
    kinds[np.arange(SLOTS) >= count[:, None]] = NOTHING
    radius = rng.uniform(*OTHER_RADIUS, (n, SLOTS))
    radius[:, 0] = rng.uniform(*MAIN_RADIUS, n)
    centre = np.empty((n, SLOTS, 2))
    centre[:, 0] = SIZE / 2 + rng.uniform(-MAIN_SHIFT, MAIN_SHIFT, (n, 2))
    angle = rng.uniform(0, 2 * np.pi, (n, SLOTS - 1))
    distance = rng.uniform(0.75, 1.2, angle.shape) * (radius[:, :1] + radius[:, 1:])
    direction = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    centre[:, 1:] = np.clip(centre[:, :1] + distance[..., None] * direction, 4, SIZE - 4)
    return kinds, centre, radius, rng.permuted(np.tile(np.arange(SLOTS), (n, 1)), axis=1)


def _poses(shape, rng):
    """Draw rotations (*shape, 3, 3): the object's z axis up and towards the camera, any turn about it."""
    up = rng.uniform(*ELEVATION, shape)
    lean = rng.normal(0, LEAN, shape)
    turn = rng.uniform(0, 2 * np.pi, shape)
    axis = np.stack([-np.cos(up) * np.sin(lean), np.cos(up) * np.cos(lean), np.sin(up)], axis=-1)
    side = np.stack([np.cos(lean), np.sin(lean), np.zeros(shape)], axis=-1)
    first = np.cos(turn)[..., None] * side + np.sin(turn)[..., None] * np.cross(axis, side)
    return np.stack([first, np.cross(axis, first), axis], axis=-1).astype(np.float32)


def _window(centre, width):
    """Columns and rows (n, width * width) of the pixels around each centre."""
    corner = np.floor(centre).astype(np.int32) - width // 2
    row, column = (axis.ravel() for axis in np.mgrid[:width, :width].astype(np.int32))
    return corner[:, :1] + column, corner[:, 1:] + row


def _visible(covered, order):
    """Slot that each pixel sees, once the solids that show too little are taken out."""
    front = _front(covered, order)
    for slot in range(SLOTS):
        covered[:, slot] &= ((front == slot).sum(axis=(1, 2)) >= MINIMUM_VISIBLE)[:, None, None]
    return _front(covered, order)


def _front(covered, order):
    front = np.full((len(covered), SIZE, SIZE), NOTHING, np.int8)
    for slot in order.T.astype(np.int8):
        here = covered[np.arange(len(covered)), slot]
        np.copyto(front, slot[:, None, None], where=here)
    return front


def _boxes(kinds, front):
    """List [visible pixels, class, xmin, ymin, xmax, ymax] of the solids that show."""
    boxes = []
    for slot, kind in enumerate(kinds):
        here = front == slot
        columns, rows = np.flatnonzero(here.any(axis=0)), np.flatnonzero(here.any(axis=1))
        if len(rows):
            box = [np.count_nonzero(here), kind, columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            boxes.append([int(value) for value in box])
    return boxes


def _paint(front, point, normal, patterns, rng):
    """Colour the pixels: ground, solids, then exposure and noise of the camera; uint8."""
    images = _ground(len(front), patterns, rng)
    seen = front != NOTHING
    images[seen] = _shade(np.nonzero(seen)[0], front[seen], point, normal, len(front), patterns, rng)
    gain = rng.uniform(0.7, 1.2, (len(front), 1, 1, 1)) * (1 + rng.normal(0, 0.08, (len(front), 1, 1, 3)))
    noise = rng.uniform(0, 0.04, (len(front), 1, 1, 1)).astype(np.float32)
    images *= gain.astype(np.float32)
    images += noise * rng.standard_normal(images.shape, np.float32)
    return np.clip(np.round(images * 255), 0, 255).astype(np.uint8)


def _ground(n, patterns, rng):
    """Patterned, unevenly lit grounds with flat figures, float32 (n, 64, 64, 3)."""
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32) - (SIZE - 1) / 2
    figure = np.zeros((n, SIZE, SIZE), np.int8)
    for number in range(1, FIGURES + 1):
        figure[_flat_figure(n, x, y, rng)] = number
    cos, sin, left, top = _placement(n, rng)
    zoom = rng.uniform(0.5, 2.0, (n, 1, 1)).astype(np.float32)
    mix = _lookup(
        patterns,
        rng.integers(len(patterns), size=(n, 1, 1)),
        zoom * (cos * x + sin * y) + 4 * left,
        zoom * (cos * y - sin * x) + 4 * top,
    )
    first, second = _colours((2, n, FIGURES + 1), 0.1, 0.6, rng)
    second = (second - first) * rng.uniform(0, 0.5, (n, FIGURES + 1, 1)).astype(np.float32)
    scene = np.arange(n)[:, None, None]
    slope = rng.normal(0, 0.008, (2, n, 1, 1)).astype(np.float32)
    light = np.clip(1 + slope[0] * x + slope[1] * y, 0.3, 1.7)
    return (first[scene, figure] + mix[..., None] * second[scene, figure]) * light[..., None]


def _flat_figure(n, x, y, rng):
    """Mask of a random ellipse, diamond, box, bar or ring in each scene; four in ten have none."""
    cos, sin, left, top = _placement(n, rng)
    width, height = np.exp(rng.uniform(np.log(1.0), np.log(18.0), (2, n, 1, 1))).astype(np.float32)
    u = np.abs(cos * (x - left) + sin * (y - top)) / width
    v = np.abs(cos * (y - top) - sin * (x - left)) / height
    kind = rng.integers(3, size=(n, 1, 1))
    level = np.where(kind == 0, u + v, np.where(kind == 1, u * u + v * v, np.maximum(u, v)))
    hole = rng.choice([0.0, 0.0, 0.6], (n, 1, 1))
    return (level < 1) & (level >= hole) & (rng.random((n, 1, 1)) < 0.6)


def _placement(n, rng):
    """Cosine and sine of a random angle, random position within 30 pixels of the middle; each (n, 1, 1)."""
    angle = rng.uniform(0, 2 * np.pi, (n, 1, 1))
    left, top = rng.uniform(-30, 30, (2, n, 1, 1))
    return (value.astype(np.float32) for value in (np.cos(angle), np.sin(angle), left, top))


def _lookup(patterns, number, u, v):
    wrap = PATTERN_SIZE - 1
    return patterns[number, np.floor(v).astype(np.int32) & wrap, np.floor(u).astype(np.int32) & wrap]


def _colours(shape, darkest, lightest, rng):
    """Draw colours of any hue and saturation, float32 (*shape, 3)."""
    hue = rng.uniform(0, 1, (*shape, 1)) + np.array([0, 1 / 3, 2 / 3])
    tint = 0.5 + 0.5 * np.cos(2 * np.pi * hue)
    saturation = rng.uniform(0, 1, (*shape, 1))
    return (rng.uniform(darkest, lightest, (*shape, 1)) * (1 - saturation * (1 - tint))).astype(np.float32)


def _shade(scene, slot, point, normal, n, patterns, rng):
    """Colour visible points: patterned material, ambient light, one lamp (Lambert), its highlight (Blinn)."""
    material = (n, SLOTS)
    number = rng.integers(len(patterns), size=material)
    grain = rng.normal(0, 20, (*material, 2, 3)).astype(np.float32)
    u, v = np.einsum("kij,kj->ik", grain[scene, slot], point)
    mix = _lookup(patterns, number[scene, slot], u, v)[:, None]
    first, second = _colours((2, *material), 0.5, 1.0, rng)
    second = (second - first) * rng.uniform(0, 0.5, (*material, 1)).astype(np.float32)
    albedo = first[scene, slot] + mix * second[scene, slot]
    lamp = rng.normal((0, 1.5, 0), 1, (n, 3))
    lamp[:, 2] = np.abs(lamp[:, 2]) + 0.3
    diffuse = _cosine(lamp, scene, normal)
    highlight = _cosine(lamp / np.linalg.norm(lamp, axis=1, keepdims=True) + np.array([0, 0, 1]), scene, normal) ** 24
    ambient = rng.uniform(0.15, 0.5, (n, 1)).astype(np.float32)[scene]
    gloss = np.maximum(rng.uniform(-0.4, 0.6, (*material, 1)), 0).astype(np.float32)[scene, slot]
    return albedo * (ambient + (1.15 - ambient) * diffuse) + gloss * highlight


def _cosine(direction, scene, normal):
    unit = (direction / np.linalg.norm(direction, axis=1, keepdims=True)).astype(np.float32)
    return np.maximum(np.einsum("ki,ki->k", unit[scene], normal), 0)[:, None]

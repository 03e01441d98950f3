"""Rendered scenes: shaded, textured solids before clutter, with classes, boxes and surface normals.

One to three solids of random pose, size, colour, pattern and light are seen by an orthographic camera.
A solid is the intersection of quadrics and half-spaces (a union of such, for the capsule), so a ray along the
viewing direction enters and leaves each part at a closed-form depth; the torus is sphere-traced.

Camera frame: x to the right, y up, z towards the camera.
"""

from dataclasses import dataclass

import numpy as np

from ssltransfer.datasets.generated import Generated

SIZE = 64
MAX_OBJECTS = 3
MINIMUM_VISIBLE = 25  # pixels; a solid that shows less is taken out of the scene
MAIN_RADIUS = (13.0, 18.5)
OTHER_RADIUS = (7.0, 10.5)
WINDOW = 40  # pixels; holds the largest solid
BLOCK = 250  # scenes rendered together
TORUS_RADII = (0.68, 0.32)
TORUS_STEPS = 40
BACKGROUND = -1


@dataclass(frozen=True)
class Part:
    """A convex solid, in the frame of the object.

    Quadrics (A, b, c) hold the points p with ``A . p**2 + 2 b . p + c <= 0``; half-spaces (n, h) those with
    ``n . p <= h``.
    """

    quadrics: tuple = ()
    planes: tuple = ()


def _ellipsoid(a, b, c, z=0.0):
    """Ellipsoid with these half-axes, its centre moved along z."""
    return ((a**-2, b**-2, c**-2), (0.0, 0.0, -z * c**-2), (z / c) ** 2 - 1)


def _tube(radius):
    return ((radius**-2, radius**-2, 0.0), (0.0, 0.0, 0.0), -1.0)


def _double_cone(slope, apex):
    """Points nearer to the z axis than `slope` times their distance below (or above) the apex."""
    return ((1.0, 1.0, -(slope**2)), (0.0, 0.0, slope**2 * apex), -((slope * apex) ** 2))


def _slab(low, high):
    return (((0, 0, 1), high), ((0, 0, -1), -low))


def _signs(*axes):
    return [np.array(s) for s in np.ndindex(*axes)]


CUBE = tuple((tuple(sign * row), 0.6) for row in np.eye(3) for sign in (1, -1))
OCTAHEDRON = tuple((tuple(2 * np.array(corner) - 1), 1.0) for corner in np.ndindex(2, 2, 2))
PYRAMID = (
    ((0, 0, -1), 0.55),
    *((tuple(side), 0.9) for side in ((2.1, 0, 1), (-2.1, 0, 1), (0, 2.1, 1), (0, -2.1, 1))),
)

SOLIDS = {
    "sphere": (Part((_ellipsoid(0.85, 0.85, 0.85),)),),
    "ellipsoid": (Part((_ellipsoid(0.5, 0.6, 1.0),)),),
    "hemisphere": (Part((_ellipsoid(0.95, 0.95, 0.95, -0.4),), _slab(-0.4, 1.0)),),
    "cube": (Part((), CUBE),),
    "octahedron": (Part((), OCTAHEDRON),),
    "pyramid": (Part((), PYRAMID),),
    "cylinder": (Part((_tube(0.6),), _slab(-0.75, 0.75)),),
    "cone": (Part((_double_cone(0.5, 0.95),), _slab(-0.6, 0.95)),),
    "capsule": (
        Part((_tube(0.42),), _slab(-0.55, 0.55)),
        Part((_ellipsoid(0.42, 0.42, 0.42, 0.55),)),
        Part((_ellipsoid(0.42, 0.42, 0.42, -0.55),)),
    ),
    "torus": (),
}
CLASSES = list(SOLIDS)


def generate(seed: int = 0, train: int = 3000, test: int = 1000) -> Generated:
    """Render `train` + `test` scenes of 64x64 pixels.

    Parameters
    ----------
    seed : int
        Seed of every random choice.
    train, test : int
        Number of scenes, at least 10 each so that every class occurs.

    Returns
    -------
    Generated
        `label` is the class of the solid with the most visible pixels. Extra columns: ``objects``, the sorted classes
        present (multi-label target), and ``boxes``, a list of ``[class, xmin, ymin, xmax, ymax]`` over the visible pixels
        of each solid, 0-based and half open (``xmax - xmin`` is the width). Array ``normals``, int8, shape
        (n, 64, 64, 3): 127 times the unit normal in the camera frame, 0 where there is no solid.
    """
    rng = np.random.default_rng(seed)
    atlas = make_atlas(rng)
    n = train + test
    main = np.concatenate([_balanced(train, rng), _balanced(test, rng)])
    images = np.empty((n, SIZE, SIZE, 3), np.uint8)
    normals = np.empty((n, SIZE, SIZE, 3), np.int8)
    boxes = []
    for start in range(0, n, BLOCK):
        rows = slice(start, min(start + BLOCK, n))
        images[rows], normals[rows], more = _render(main[rows], atlas, rng)
        boxes += more
    labels = [max(scene, key=lambda item: item[0])[1][0] for scene in boxes]
    boxes = [[box for _, box in scene] for scene in boxes]
    return Generated(
        images=images,
        split=["train"] * train + ["test"] * test,
        label=labels,
        classes=CLASSES,
        extra={"objects": [sorted({box[0] for box in scene}) for scene in boxes], "boxes": boxes},
        arrays={"normals": normals},
    )


def _balanced(count: int, rng: np.random.Generator) -> np.ndarray:
    return rng.permutation(np.arange(count) % len(CLASSES))


def make_atlas(rng: np.random.Generator, count: int = 60, size: int = 128) -> np.ndarray:
    """Periodic patterns with values in [0, 1], float32 (count, size, size): clouds, ridges, stripes, patches, checks, dots."""
    frequency = np.fft.fftfreq(size)
    distance = np.hypot(frequency[:, None], frequency[None, :]) * size
    y, x = np.mgrid[:size, :size] * (2 * np.pi / size)
    patterns = []
    for number in range(count):
        bandwidth = rng.uniform(3, 14)
        spectrum = np.fft.fft2(rng.normal(size=(size, size))) * np.exp(-((distance / bandwidth) ** 2))
        cloud = np.fft.ifft2(spectrum).real
        cloud /= cloud.std()
        fx, fy = rng.integers(2, 9, 2)
        pattern = (
            0.5 + 0.25 * cloud,
            np.abs(cloud) * 0.7,
            0.5 + 0.5 * np.sin(fx * x + fy * y + 0.6 * cloud),
            0.5 + 2 * cloud,
            0.5 + 3 * np.sin(fx * x + 0.3 * cloud) * np.sin(fy * y),
            3 * np.sin(fx * x) ** 2 * np.sin(fx * y) ** 2 - 0.8,
        )[number % 6]
        patterns.append(np.clip(pattern, 0, 1))
    return np.stack(patterns).astype(np.float32)


def cast(
    solid: str, rotation: np.ndarray, x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Intersect rays along the viewing direction with solids at the origin.

    Parameters
    ----------
    solid : str
        One of `CLASSES`.
    rotation : ndarray, shape (n, 3, 3)
        Columns are the axes of the object in the camera frame.
    x, y : ndarray, shape (n, m)
        Where the rays meet the image plane, in units of the solid's bounding radius.

    Returns
    -------
    hit : ndarray of bool, shape (n, m)
    depth : ndarray, shape (n, m)
        z of the visible point; meaningless without a hit.
    normal : ndarray, shape (n, m, 3)
        Outward unit normal in the camera frame; meaningless without a hit.
    """
    if solid == "torus":
        return _cast_torus(rotation, x, y)
    hit = np.zeros(x.shape, bool)
    depth = np.full(x.shape, -np.inf, np.float32)
    normal = np.zeros((*x.shape, 3), np.float32)
    for part in SOLIDS[solid]:
        part_hit, part_depth, part_normal = _cast_part(part, rotation, x, y)
        nearer = part_hit & (part_depth > depth)
        hit |= part_hit
        depth = np.where(nearer, part_depth, depth)
        normal[nearer] = part_normal[nearer]
    return hit, depth, normal


def _cast_part(part, rotation, x, y):
    upper = np.full(x.shape, np.inf, np.float32)
    lower = np.full(x.shape, -np.inf, np.float32)
    normal = np.zeros((*x.shape, 3), np.float32)
    for plane, offset in part.planes:
        direction = rotation @ (np.array(plane, np.float32) / np.float32(np.linalg.norm(plane)))
        nx, ny, nz = (direction[:, i, None] for i in range(3))
        crossing = (np.float32(offset / np.linalg.norm(plane)) - nx * x - ny * y) / _away_from_zero(nz)
        facing = nz > 0
        first = facing & (crossing < upper)
        upper = np.where(first, crossing, upper)
        lower = np.where(~facing, np.maximum(lower, crossing), lower)
        normal = np.where(first[..., None], direction[:, None, :], normal)
    for diagonal, linear, constant in part.quadrics:
        matrix = np.einsum("nik,k,njk->nij", rotation, np.array(diagonal, np.float32), rotation)
        vector = rotation @ np.array(linear, np.float32)
        (xx, xy, xz), (_, yy, yz), (_, _, zz) = matrix.transpose(1, 2, 0)[..., None]
        vx, vy, vz = (vector[:, i, None] for i in range(3))
        a = _away_from_zero(zz)
        b = xz * x + yz * y + vz
        c = xx * x * x + 2 * xy * x * y + yy * y * y + 2 * (vx * x + vy * y) + np.float32(constant)
        discriminant = b * b - a * c
        root = np.sqrt(np.maximum(discriminant, 0))
        far, near = (-b - root) / a, (-b + root) / a
        # A cone seen steeply from the side of its axis: the ray stays inside beyond one root (see `_double_cone`).
        steep, towards = a < 0, rotation[:, 2, 2, None] > 0
        near = np.where(steep & ~towards, np.inf, near)
        far = np.where(steep & towards, -np.inf, far)
        near = np.where(discriminant < 0, -np.inf, near)
        first = (near < upper) & np.isfinite(near)
        upper = np.minimum(upper, near)
        lower = np.maximum(lower, far)
        point = np.stack([x, y, upper], axis=-1)
        gradient = (
            np.einsum("nij,nmj->nmi", matrix, np.where(first[..., None], point, 0)) + vector[:, None, :]
        )
        gradient /= np.linalg.norm(gradient, axis=-1, keepdims=True) + 1e-12
        normal = np.where(first[..., None], gradient, normal)
    return (upper > lower) & np.isfinite(upper), upper, normal


def _away_from_zero(value):
    return np.where(np.abs(value) < 1e-4, np.float32(1e-4), value)


def _cast_torus(rotation, x, y):
    """Walk every ray towards the torus by the distance that is certainly free."""
    ring, tube = TORUS_RADII
    hit = np.zeros(x.shape, bool)
    depth = np.zeros(x.shape, np.float32)
    normal = np.zeros((*x.shape, 3), np.float32)
    row, column = np.nonzero(x * x + y * y < 1)
    axes = rotation.transpose(0, 2, 1)[row]
    start = axes[..., 0] * x[row, column, None] + axes[..., 1] * y[row, column, None]
    view = axes[..., 2]
    z = np.ones(len(row), np.float32)
    active = np.arange(len(row))
    for _ in range(TORUS_STEPS):
        point = start[active] + view[active] * z[active, None]
        radial = np.hypot(point[:, 0], point[:, 1])
        distance = np.hypot(radial - ring, point[:, 2]) - tube
        z[active] -= distance
        active = active[(distance > 1e-3) & (z[active] > -1)]
    reached = np.ones(len(row), bool)
    reached[active] = False
    reached &= z > -1
    row, column, z = row[reached], column[reached], z[reached]
    point = start[reached] + view[reached] * z[:, None]
    radial = np.hypot(point[:, 0], point[:, 1])
    outward = point.copy()
    outward[:, :2] *= (1 - ring / radial)[:, None]
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    hit[row, column] = True
    depth[row, column] = z
    normal[row, column] = np.einsum("nij,nj->ni", rotation[row], outward)
    return hit, depth, normal


def _poses(count: int, rng: np.random.Generator) -> np.ndarray:
    """Random rotations (count, 3, 3) that show a solid neither along its axis nor exactly from the side."""
    cosine = rng.uniform(0.2, 0.85, count) * rng.choice([-1, 1], count)
    azimuth, roll = rng.uniform(0, 2 * np.pi, (2, count))
    sine = np.sqrt(1 - cosine**2)
    axis = np.stack([sine * np.cos(azimuth), sine * np.sin(azimuth), cosine], axis=1)
    side = np.stack([-np.sin(azimuth), np.cos(azimuth), np.zeros(count)], axis=1)
    other = np.cross(axis, side)
    first = np.cos(roll)[:, None] * side + np.sin(roll)[:, None] * other
    return np.stack([first, np.cross(axis, first), axis], axis=2).astype(np.float32)


def _arrange(main: np.ndarray, rng: np.random.Generator):
    """Choose class (-1 = none), centre (x, y) and radius in pixels of up to three solids a scene, back to front."""
    n = len(main)
    kinds = rng.integers(len(CLASSES), size=(n, MAX_OBJECTS))
    kinds[:, 0] = main
    count = rng.choice([1, 2, 3], n, p=[0.4, 0.35, 0.25])
    kinds[np.arange(MAX_OBJECTS) >= count[:, None]] = BACKGROUND
    radius = rng.uniform(*OTHER_RADIUS, (n, MAX_OBJECTS))
    radius[:, 0] = rng.uniform(*MAIN_RADIUS, n)
    centre = np.empty((n, MAX_OBJECTS, 2))
    centre[:, 0] = SIZE / 2 + rng.uniform(-8, 8, (n, 2))
    angle = rng.uniform(0, 2 * np.pi, (n, MAX_OBJECTS - 1))
    distance = rng.uniform(0.75, 1.2, angle.shape) * (radius[:, :1] + radius[:, 1:])
    offset = np.stack([np.cos(angle), np.sin(angle)], axis=-1) * distance[..., None]
    centre[:, 1:] = np.clip(centre[:, :1] + offset, 3, SIZE - 3)
    order = rng.permuted(np.tile(np.arange(MAX_OBJECTS), (n, 1)), axis=1)
    pick = np.arange(n)[:, None], order
    return kinds[pick], centre[pick], radius[pick]


def _render(main, atlas, rng):
    n = len(main)
    kinds, centre, radius = _arrange(main, rng)
    rotation = _poses(n * MAX_OBJECTS, rng).reshape(n, MAX_OBJECTS, 3, 3)
    covered = np.zeros((n, MAX_OBJECTS, SIZE, SIZE), bool)
    points = np.zeros((n, MAX_OBJECTS, SIZE, SIZE, 3), np.float32)
    normals = np.zeros_like(points)
    for kind, name in enumerate(CLASSES):
        scene, slot = np.nonzero(kinds == kind)
        corner = np.floor(centre[scene, slot] - WINDOW / 2).astype(int)
        columns = corner[:, 0, None, None] + np.arange(WINDOW)[None, None, :]
        rows = corner[:, 1, None, None] + np.arange(WINDOW)[None, :, None]
        columns, rows = np.broadcast_arrays(columns, rows)
        scale = radius[scene, slot, None, None]
        x = ((columns + 0.5 - centre[scene, slot, 0, None, None]) / scale).astype(np.float32)
        y = ((centre[scene, slot, 1, None, None] - rows - 0.5) / scale).astype(np.float32)
        m = len(scene)
        hit, depth, normal = cast(name, rotation[scene, slot], x.reshape(m, -1), y.reshape(m, -1))
        inside = (columns >= 0) & (columns < SIZE) & (rows >= 0) & (rows < SIZE)
        item, i, j = np.nonzero(hit.reshape(m, WINDOW, WINDOW) & inside)
        flat = i * WINDOW + j
        target = scene[item], slot[item], rows[item, i, j], columns[item, i, j]
        covered[target] = True
        normals[target] = normal[item, flat]
        points[target] = np.stack(
            [x.reshape(m, -1)[item, flat], y.reshape(m, -1)[item, flat], depth[item, flat]], -1
        )
    front = _front(covered)
    for slot in range(MAX_OBJECTS):
        covered[:, slot] &= ((front == slot).sum(axis=(1, 2)) >= MINIMUM_VISIBLE)[:, None, None]
    front = _front(covered)
    images = _background(n, atlas, rng)
    scene, i, j = np.nonzero(front != BACKGROUND)
    slot = front[scene, i, j]
    normal = normals[scene, slot, i, j]
    images[scene, i, j] = _shade(points[scene, slot, i, j], normal, scene, slot, n, atlas, rng)
    targets = np.zeros((n, SIZE, SIZE, 3), np.int8)
    targets[scene, i, j] = np.round(normal * 127)
    return _expose(images, rng), targets, [_boxes(front[k], kinds[k]) for k in range(n)]


def _front(covered: np.ndarray) -> np.ndarray:
    """Number of the frontmost solid of each pixel; the last slot is in front."""
    front = np.full((len(covered), SIZE, SIZE), BACKGROUND, np.int8)
    for slot in range(MAX_OBJECTS):
        front[covered[:, slot]] = slot
    return front


def _boxes(front: np.ndarray, kinds: np.ndarray) -> list[tuple[int, list[int]]]:
    """Visible pixels and box of each solid that shows."""
    boxes = []
    for slot, kind in enumerate(kinds):
        rows, columns = np.nonzero(front == slot)
        if len(rows):
            box = [kind, columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            boxes.append((len(rows), [int(value) for value in box]))
    return boxes


def _colours(shape, rng):
    """Random light or dark, grey or strong colours, float32 (*shape, 3) in [0, 1]."""
    hue = rng.uniform(0, 1, (*shape, 1)) + np.array([0, 1 / 3, 2 / 3])
    tint = 0.5 + 0.5 * np.cos(2 * np.pi * hue)
    value = rng.uniform(0.15, 1.0, (*shape, 1))
    return (value * (1 - rng.uniform(0, 1, (*shape, 1)) * (1 - tint))).astype(np.float32)


def _lookup(atlas, pattern, u, v):
    size = atlas.shape[1]
    return atlas[pattern, np.floor(v).astype(np.int32) % size, np.floor(u).astype(np.int32) % size]


def _background(n, atlas, rng):
    """Patterned, unevenly lit grounds with up to five flat figures, float32 (n, 64, 64, 3)."""
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32) - SIZE / 2
    image = _patterned(n, x, y, atlas, rng)
    for _ in range(5):
        centre = rng.uniform(-30, 30, (2, n, 1, 1)).astype(np.float32)
        angle = rng.uniform(0, np.pi, (n, 1, 1)).astype(np.float32)
        size = np.exp(rng.uniform(np.log(1.0), np.log(18), (2, n, 1, 1))).astype(np.float32)
        power = rng.choice([1, 2, 8], (n, 1, 1)).astype(np.float32)
        hole = rng.choice([0.0, 0.0, 0.6], (n, 1, 1))
        u = np.abs(np.cos(angle) * (x - centre[0]) + np.sin(angle) * (y - centre[1])) / size[0]
        v = np.abs(np.cos(angle) * (y - centre[1]) - np.sin(angle) * (x - centre[0])) / size[1]
        level = u**power + v**power
        figure = (level < 1) & (level >= hole) & (rng.random((n, 1, 1)) < 0.6)
        colour = _patterned(n, x, y, atlas, rng)
        image = np.where(figure[..., None], colour, image)
    slope = rng.normal(0, 0.008, (2, n, 1, 1)).astype(np.float32)
    return image * np.clip(1 + slope[0] * x + slope[1] * y, 0.3, 1.7)[..., None]


def _patterned(n, x, y, atlas, rng):
    angle = rng.uniform(0, 2 * np.pi, (n, 1, 1))
    zoom = rng.uniform(0.5, 2.0, (n, 1, 1))
    shift = rng.uniform(0, 128, (2, n, 1, 1))
    c, s = (zoom * np.cos(angle)).astype(np.float32), (zoom * np.sin(angle)).astype(np.float32)
    pattern = rng.integers(len(atlas), size=(n, 1, 1))
    mix = _lookup(atlas, pattern, c * x + s * y + shift[0], c * y - s * x + shift[1])[..., None]
    first, second = _colours((2, n, 1, 1), rng)
    return first + mix * rng.uniform(0, 1, (n, 1, 1, 1)).astype(np.float32) * (second - first)


def _shade(point, normal, scene, slot, n, atlas, rng):
    """Colour of visible points: patterned material, one lamp a scene, ambient light and a highlight."""
    material = (n, MAX_OBJECTS)
    pattern = rng.integers(len(atlas), size=material)[scene, slot]
    project = rng.normal(0, 20, (*material, 2, 3)).astype(np.float32)[scene, slot]
    u, v = np.einsum("kij,kj->ik", project, point)
    mix = _lookup(atlas, pattern, u, v) * rng.uniform(0, 1, material)[scene, slot]
    first, second = _colours((2, *material), rng)[:, scene, slot]
    albedo = first + mix[:, None].astype(np.float32) * (second - first)
    lamp = rng.normal(0, 1, (n, 3))
    lamp[:, 2] = np.abs(lamp[:, 2]) + 0.3
    lamp /= np.linalg.norm(lamp, axis=1, keepdims=True)
    lamp = lamp.astype(np.float32)
    ambient = rng.uniform(0.15, 0.5, n).astype(np.float32)[scene, None]
    half = lamp + np.array([0, 0, 1], np.float32)
    half /= np.linalg.norm(half, axis=1, keepdims=True)
    diffuse = np.maximum((normal * lamp[scene]).sum(axis=1, keepdims=True), 0)
    gloss = rng.uniform(-0.4, 0.6, material).clip(0).astype(np.float32)[scene, slot, None]
    highlight = np.maximum((normal * half[scene]).sum(axis=1, keepdims=True), 0) ** 24
    return albedo * (ambient + (1.15 - ambient) * diffuse) + gloss * highlight


def _expose(images, rng):
    """Random gain, colour cast and noise; to uint8."""
    n = len(images)
    gain = rng.uniform(0.7, 1.2, (n, 1, 1, 1)) * (1 + rng.normal(0, 0.08, (n, 1, 1, 3)))
    noise = rng.normal(0, 1, images.shape).astype(np.float32)
    noise *= rng.uniform(0, 0.04, (n, 1, 1, 1)).astype(np.float32)
    return np.clip(np.round((images * gain.astype(np.float32) + noise) * 255), 0, 255).astype(np.uint8)

"""Ray casting of ten solids with an orthographic camera.

A solid is a union of convex parts. A part is the common inside of surfaces ``a . p**2 + 2 b . p + c <= 0``
(quadrics, planes where a = 0), written (a, b, c) in the frame of the object, whose z axis is the upright one. A
ray is inside a part between the largest lower and the smallest upper root. The torus is sphere-traced.
All solids fit the unit ball.

Camera frame: x to the right, y up, z towards the camera.
"""

import numpy as np

TORUS_RING, TORUS_TUBE = 0.68, 0.31
TORUS_STEPS = 40
TORUS_TOLERANCE = 1e-3


def _ellipsoid(a, b, c, z=0.0):
    """Half-axes a, b, c, the centre at height z."""
    return ((a**-2, b**-2, c**-2), (0, 0, -z / c**2), (z / c) ** 2 - 1)


def _tube(radius):
    return ((radius**-2, radius**-2, 0), (0, 0, 0), -1)


def _double_cone(slope, apex):
    """Double cone: points nearer to the axis than `slope` times their height below or above the apex."""
    return ((1, 1, -(slope**2)), (0, 0, slope**2 * apex), -((slope * apex) ** 2))


def _plane(normal, offset):
    """Half-space ``normal . p <= offset``."""
    return ((0, 0, 0), tuple(normal), -2 * offset)


def _slab(low, high):
    return _plane((0, 0, 1), high), _plane((0, 0, -1), -low)


SOLIDS = {
    "sphere": [(_ellipsoid(0.85, 0.85, 0.85),)],
    "ellipsoid": [(_ellipsoid(0.5, 0.6, 1.0),)],
    "hemisphere": [(_ellipsoid(0.9, 0.9, 0.9, -0.4), *_slab(-0.4, 1))],
    "cube": [tuple(_plane(sign * axis, 0.57) for axis in np.eye(3) for sign in (1, -1))],
    "octahedron": [tuple(_plane(1 - 2 * np.array(corner), 1) for corner in np.ndindex(2, 2, 2))],
    "pyramid": [
        (
            _plane((0, 0, -1), 0.55),
            *(_plane((*side, 1), 0.95) for side in ((2.6, 0), (-2.6, 0), (0, 2.6), (0, -2.6))),
        )
    ],
    "cylinder": [(_tube(0.6), *_slab(-0.75, 0.75))],
    "cone": [(_double_cone(0.5, 0.95), *_slab(-0.6, 0.95))],
    "capsule": [
        (_tube(0.42), *_slab(-0.55, 0.55)),
        (_ellipsoid(0.42, 0.42, 0.42, 0.55),),
        (_ellipsoid(0.42, 0.42, 0.42, -0.55),),
    ],
    "torus": [],
}


def cast(solid: str, rotation: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find where rays along the viewing direction first meet solids centred at the origin.

    Parameters
    ----------
    solid : str
        A key of `SOLIDS`.
    rotation : ndarray of float32, shape (n, 3, 3)
        Columns are the axes of each object in the camera frame.
    x, y : ndarray of float32, shape (n, m)
        Where the rays of each object pierce the image plane; the solids lie in the unit ball.

    Returns
    -------
    hit : ndarray of bool, shape (n, m)
    point, normal : ndarray of float32, shape (hits, 3)
        Visible point and outward unit normal in the camera frame, in the order of ``np.nonzero(hit)``.
    """
    if solid == "torus":
        depth = _torus_depth(rotation, x, y)
    else:
        depth, face = _depth(SOLIDS[solid], rotation, x, y)
    hit = depth > -np.inf
    row, column = np.nonzero(hit)
    point = np.stack([x[row, column], y[row, column], depth[row, column]], axis=1)
    if solid == "torus":
        normal = _torus_normal(rotation, row, point)
    else:
        surfaces = [surface for part in SOLIDS[solid] for surface in part]
        normal = _normal(surfaces, face[row, column], rotation, row, point)
    return hit, point, normal


def _depth(parts, rotation, x, y):
    """Z of the visible point (-inf without one) and number of the surface it lies on."""
    depth = np.full(x.shape, -np.inf, np.float32)
    face = np.zeros(x.shape, np.int8)
    number = 0
    for part in parts:
        upper, lower = np.full_like(x, np.inf), np.full_like(x, -np.inf)
        here = np.zeros(x.shape, np.int8)
        for surface in part:
            low, high = _inside(surface, rotation, x, y)
            here[high < upper] = number
            upper = np.minimum(upper, high)
            lower = np.maximum(lower, low)
            number += 1
        nearer = (lower < upper) & (upper > depth)
        depth[nearer] = upper[nearer]
        face[nearer] = here[nearer]
    return depth, face


def _inside(surface, rotation, x, y):
    """Interval of z in which rays are inside a surface; empty is (inf, -inf)."""
    matrix, vector, constant = _to_camera(surface, rotation)
    bx, by, bz = vector.T[..., None]
    infinity = np.float32(np.inf)
    if not any(surface[0]):
        bz = _away_from_zero(bz)
        crossing = -(bx * x + by * y + constant / 2) / bz
        return np.where(bz > 0, -infinity, crossing), np.where(bz > 0, crossing, infinity)
    (xx, xy, xz), (_, yy, yz), (_, _, zz) = matrix.transpose(1, 2, 0)[..., None]
    a = _away_from_zero(zz)
    half = (xz * x + yz * y + bz) / a
    rest = (x * (xx * x + 2 * (xy * y + bx)) + y * (yy * y + 2 * by) + constant) / a
    discriminant = half * half - rest
    root = np.sqrt(np.maximum(discriminant, 0))
    low, high = -half - root, root - half
    # A ray steeper than a cone's side is inside below the lower and above the upper root; the nappe that is
    # part of the solid lies on the side of the object's negative axis.
    steep, rising = a < 0, rotation[:, 2, 2, None] > 0
    low, high = (
        np.where(steep, np.where(rising, -infinity, high), low),
        np.where(steep, np.where(rising, low, infinity), high),
    )
    missed = (discriminant < 0) & ~steep
    return np.where(missed, infinity, low), np.where(missed, -infinity, high)


def _to_camera(surface, rotation):
    """Turn (a, b, c) into the camera frame: matrices (n, 3, 3), vectors (n, 3), constant."""
    diagonal, linear, constant = surface
    matrix = np.einsum("nik,k,njk->nij", rotation, np.array(diagonal, np.float32), rotation)
    vector = np.einsum("nik,k->ni", rotation, np.array(linear, np.float32))
    return matrix, vector, np.float32(constant)


def _away_from_zero(value):
    return np.where(np.abs(value) < 1e-4, np.float32(1e-4), value)


def _normal(surfaces, face, rotation, row, point):
    """Gradient of the surface that each point lies on."""
    normal = np.empty_like(point)
    for number, surface in enumerate(surfaces):
        here = face == number
        matrix, vector, _ = _to_camera(surface, rotation)
        normal[here] = vector[row[here]]
        if any(surface[0]):
            normal[here] += np.einsum("kij,kj->ki", matrix[row[here]], point[here])
    return normal / np.linalg.norm(normal, axis=1, keepdims=True)


def _torus_depth(rotation, x, y):
    """Sphere tracing of the torus, from the unit ball on."""
    depth = np.full(x.shape, -np.inf, np.float32)
    square = x * x + y * y
    row, column = np.nonzero(square < 1)
    z = np.sqrt(1 - square[row, column])
    view = rotation[row, 2]
    point = np.einsum("kji,kj->ki", rotation[row], np.stack([x[row, column], y[row, column], z], axis=1))
    for _ in range(TORUS_STEPS):
        ring = np.sqrt(point[:, 0] ** 2 + point[:, 1] ** 2) - TORUS_RING
        free = np.sqrt(ring * ring + point[:, 2] ** 2) - TORUS_TUBE
        arrived = free < TORUS_TOLERANCE
        depth[row[arrived], column[arrived]] = z[arrived]
        z = z - free
        going = ~arrived & (z > -1)
        row, column, z, view = row[going], column[going], z[going], view[going]
        point = point[going] - view * free[going, None]
    return depth


def _torus_normal(rotation, row, point):
    local = np.einsum("kji,kj->ki", rotation[row], point)
    local[:, :2] *= 1 - TORUS_RING / np.sqrt(local[:, :1] ** 2 + local[:, 1:2] ** 2)
    local /= np.linalg.norm(local, axis=1, keepdims=True)
    return np.einsum("kij,kj->ki", rotation[row], local)

"""Flow across the epipolar lines: what is left when parallax is taken out, too.

Once the camera's rotation and the motion of a plane are out of the flow (`stabilize`), what stands still off
that plane moves along lines through one point of the image, the epipole, the more the nearer or farther it is
(plane and parallax: Irani and Anandan, "A unified approach to moving object detection in 2D and 3D scenes",
1998). Motion across these lines is motion of its own. An object that moves along them cannot be told from
depth, and is lost here: see `dattt_jax.parallax`.

The epipole is fitted to the whole frame by random pairs of vectors (Fischler and Bolles, "Random sample
consensus", 1981) and then, like the camera's motion, by iteratively reweighted least squares.
"""

import numpy as np

from input_pipeline.flow.grid import MAD_TO_SIGMA, sparse_places

_CANDIDATES = 200
_ITERATIONS = 8
_LEAST_SCALE = 0.05  # pixels
_NARROW = 0.5  # of the spread of all vectors: what lies farther from its line does not follow
_LEAST = 1e-6


def across_epipolar_lines(flow: np.ndarray) -> np.ndarray:
    """The part of every vector that is perpendicular to the line from its place to the epipole.

    Args:
        flow: `[H, W, 2]` float32, (dx, dy) in pixels, without the camera's rotation and a plane's motion.

    Returns:
        `[H, W, 2]` float32, pixels; the flow as it is where it has no two vectors that stand out.
    """
    columns, rows, x, y = sparse_places(*flow.shape[:2])
    own = flow[rows, columns].reshape(-1, 2).astype(np.float64)
    grid_x, grid_y = (g.ravel().astype(np.float64) for g in np.broadcast_arrays(x[columns], y[rows]))
    epipole = _epipole(grid_x, grid_y, own)
    if epipole is None:
        return flow
    normal = _normals(epipole.astype(np.float32), x, y)
    return np.sum(flow * normal, axis=-1, keepdims=True) * normal


def _epipole(x: np.ndarray, y: np.ndarray, own: np.ndarray) -> np.ndarray | None:
    """Homogeneous coordinates, of length 1, of the point that most vectors `own` [n, 2] lead to or from.

    None where fewer than two vectors are longer than half of them are.
    """
    speed = np.hypot(*own.T)
    fast = np.flatnonzero(speed > np.median(speed))
    if len(fast) < 2:
        return None
    scale = max(_NARROW * MAD_TO_SIGMA * float(np.median(speed)), _LEAST_SCALE)
    # The line along the vector of a place; the epipole is on it: line · epipole = 0.
    lines = np.stack([-own[:, 1], own[:, 0], own[:, 1] * x - own[:, 0] * y], axis=-1)
    first, second = lines[np.random.default_rng(0).choice(fast, (2, _CANDIDATES))]
    candidates = np.cross(first, second)
    length = np.linalg.norm(candidates, axis=-1, keepdims=True)
    candidates = (candidates / np.maximum(length, _LEAST))[length[:, 0] > _LEAST]
    if not len(candidates):
        return None
    costs = [np.sum(np.minimum((_across(each, x, y, own) / scale) ** 2, 1)) for each in candidates]
    epipole = candidates[np.argmin(costs)]
    for _ in range(_ITERATIONS):
        weights = 1 / (1 + (_across(epipole, x, y, own) / scale) ** 2) ** 2
        # line · epipole is the distance in pixels times that to the epipole.
        weights /= np.maximum(np.hypot(*_towards(epipole, x, y)), 1e-3) ** 2
        epipole = np.linalg.eigh((lines * weights[:, None]).T @ lines)[1][:, 0]
    return epipole


def _towards(epipole: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """From the places to the epipole, of any length and sign."""
    return np.broadcast_arrays(epipole[0] - epipole[2] * x, epipole[1] - epipole[2] * y)


def _normals(epipole: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Unit vectors [..., 2] across the lines to the epipole; shorter in it."""
    dx, dy = _towards(epipole, x, y)
    length = np.maximum(np.hypot(dx, dy), _LEAST)
    return np.stack([-dy / length, dx / length], axis=-1)


def _across(epipole: np.ndarray, x: np.ndarray, y: np.ndarray, own: np.ndarray) -> np.ndarray:
    """How far, in pixels, the vectors lead off the lines to the epipole."""
    return np.sum(own * _normals(epipole, x, y), axis=-1)

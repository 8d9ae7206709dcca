"""Flow without the camera's part in it: what is left is what moves by itself, and what stands out in depth.

A camera that turns, and a plane seen by any camera, move the image by a quadratic polynomial with eight
parameters (Longuet-Higgins, "The visual ambiguity of a moving plane", 1984). It is fitted to the whole
frame by iteratively reweighted least squares, with weights that let go of what does not follow (Geman and
McClure's, as in Black and Anandan, "The robust estimation of multiple motions", 1996).
"""

import numpy as np

from input_pipeline.flow.epipolar import across_epipolar_lines
from input_pipeline.flow.grid import MAD_TO_SIGMA, sparse_places

_ITERATIONS = 12
_LEAST_SCALE = 0.02  # pixels; noise below it is not told from the fit
_LARGEST = 99.5  # percentile of the speed that the rendering's full saturation stands for


def stabilized(flow: np.ndarray, *, parallax: bool = True) -> np.ndarray:
    """Takes the camera's motion out of a flow field, and what is left above the 99.5th percentile of speed.

    The cut keeps a few wrong vectors, frequent where the image enters or leaves the frame, from setting the
    scale of the rendering, see `flow_to_rgb`.

    Args:
        flow: `[H, W, 2]` float32, (dx, dy) in pixels.
        parallax: keep what stands out in depth; False takes it out, too, see `across_epipolar_lines`.

    Returns:
        `[H, W, 2]` float32, pixels.
    """
    columns, rows, x, y = sparse_places(*flow.shape[:2])
    camera = _fit(x[columns], y[rows], flow[rows, columns].astype(np.float64))
    own = flow - _motion(camera.astype(np.float32), x, y)
    if not parallax:
        own = across_epipolar_lines(own)
    speed = np.hypot(own[..., 0], own[..., 1])
    largest = np.percentile(speed[::2, ::2], _LARGEST)
    return own * np.minimum(1, largest / np.maximum(speed, 1e-6))[..., None].astype(np.float32)


def _motion(camera: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The polynomial at columns x [W] and rows y [H, 1] -> [H, W, 2]."""
    a, b, c, d, e, f, g, h = camera
    bend = g * x + h * y
    return np.stack([a + b * x + c * y + x * bend, d + e * x + f * y + y * bend], axis=-1)


def _fit(x: np.ndarray, y: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """The eight parameters, float64, of the motion that most of `flow` [h, w, 2] follows."""
    grid_x, grid_y = (g.ravel().astype(np.float64) for g in np.broadcast_arrays(x, y))
    one, zero = np.ones_like(grid_x), np.zeros_like(grid_x)
    basis = np.stack([
        np.stack([one, grid_x, grid_y, zero, zero, zero, grid_x**2, grid_x * grid_y]),
        np.stack([zero, zero, zero, one, grid_x, grid_y, grid_x * grid_y, grid_y**2])])  # [2, 8, points]
    target = flow.reshape(-1, 2).T
    weights, camera = one, np.zeros(8)
    for _ in range(_ITERATIONS):
        weighted = (basis * weights).transpose(1, 0, 2).reshape(8, -1)
        plain = basis.transpose(1, 0, 2).reshape(8, -1)
        # A frame with fewer points than parameters has many solutions; this is the smallest.
        camera = np.linalg.lstsq(weighted @ plain.T, weighted @ target.ravel(), rcond=1e-9)[0]
        error = np.hypot(*(target - np.tensordot(camera, basis, (0, 1))))
        scale = max(MAD_TO_SIGMA * float(np.median(error)), _LEAST_SCALE)
        weights = 1 / (1 + (error / scale) ** 2) ** 2
    return camera

"""Masks of many kinds, and an independent NumPy + scikit-image reference of the boundary measure."""

import math
import warnings
from pathlib import Path

import cv2
import numpy as np
from skimage.morphology import binary_dilation, disk

GOLDEN = Path(__file__).parent / "golden"


def reference_boundary_map(mask):
    """The toolkit's definition, pixel differences written out with its special cases."""
    mask = mask.astype(bool)
    edge = np.zeros(mask.shape, bool)
    inner = mask[:-1, :-1]
    edge[:-1, :-1] = ((inner != mask[:-1, 1:]) | (inner != mask[1:, :-1])
                      | (inner != mask[1:, 1:]))
    edge[-1, :-1] = mask[-1, :-1] != mask[-1, 1:]
    edge[:-1, -1] = mask[:-1, -1] != mask[1:, -1]
    return edge


def reference_dilation(edge, radius):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # scikit-image 0.26 renames it
        return binary_dilation(edge, disk(radius))


def reference_boundary_f(prediction, target):
    radius = math.ceil(0.008 * np.linalg.norm(prediction.shape))
    found, wanted = reference_boundary_map(prediction), reference_boundary_map(target)
    if not found.any() and not wanted.any():
        return 1.0
    if not found.any() or not wanted.any():
        return 0.0
    precision = (found & reference_dilation(wanted, radius)).sum() / found.sum()
    recall = (wanted & reference_dilation(found, radius)).sum() / wanted.sum()
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


def random_mask(rng, height, width):
    """One of many kinds: empty, full, noise, blobs, thin lines, single pixels, border bands."""
    mask = np.zeros((height, width), np.uint8)
    kind = rng.integers(0, 8)
    if kind == 1:
        mask[:] = 1
    elif kind == 2:
        mask[:] = rng.random((height, width)) < rng.random()
    elif kind == 3:
        noise = cv2.GaussianBlur(rng.standard_normal((height, width)), (0, 0), 4)
        mask[:] = noise > np.quantile(noise, rng.uniform(0.3, 0.98))
    elif kind == 4:
        ends = rng.integers(-5, max(height, width) + 5, (3, 4)).tolist()
        for x0, y0, x1, y1 in ends:
            cv2.line(mask, (x0, y0), (x1, y1), 1, 1)
    elif kind == 5:
        mask[rng.integers(0, height, 3), rng.integers(0, width, 3)] = 1
        mask[[0, -1], [-1, -1]] = rng.integers(0, 2, 2)
    elif kind == 6:
        band = [np.s_[:1], np.s_[-1:], np.s_[:, :1], np.s_[:, -1:], np.s_[-3:, -3:]]
        mask[band[rng.integers(0, 5)]] = 1
    elif kind == 7:
        top, left = rng.integers(0, height), rng.integers(0, width)
        mask[top: top + 1 + height // 3, left: left + 1 + width // 3] = 1
    return mask.astype(bool)


def golden_pairs():
    with np.load(GOLDEN / "metrics.npz") as data:
        for name, j, f in zip(data["names"], data["J"], data["F"], strict=True):
            shape = data[f"shape_{name}"]
            count = int(np.prod(shape))
            masks = [np.unpackbits(data[f"{part}_{name}"])[:count].reshape(shape).astype(bool)
                     for part in ("pred", "gt")]
            yield str(name), *masks, float(j), float(f)

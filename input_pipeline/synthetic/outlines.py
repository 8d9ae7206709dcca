"""Closed outlines of body parts, float32 [N, 2] polygons in the part's own frame.

A part's frame has its joint at the origin and its length along +x; y points down, as in images.
"""

import numpy as np

_CIRCLE = np.linspace(0, 2 * np.pi, 24, endpoint=False)
_CAP = np.linspace(-np.pi / 2, np.pi / 2, 7)
_CAP = np.stack([np.cos(_CAP), np.sin(_CAP)], 1).astype(np.float32) / 2
_COS, _SIN = np.cos(_CIRCLE).astype(np.float32), np.sin(_CIRCLE).astype(np.float32)
_QUARTERS = np.array([0, 0.25, 0.5, 0.75], np.float32)[:, None]


def polygon(*points: tuple[float, float]) -> np.ndarray:
    """Returns the polygon through `points`."""
    return np.array(points, np.float32)


def ellipse(radius_x: float, radius_y: float, x: float = 0.0, y: float = 0.0) -> np.ndarray:
    """Returns an axis-aligned ellipse around (x, y)."""
    return np.stack([x + radius_x * _COS, y + radius_y * _SIN], 1)


def limb(length: float, start: float, end: float) -> np.ndarray:
    """Returns a tapered capsule from the joint along +x, `start` and `end` thick at its ends."""
    points = np.concatenate([end * _CAP, -start * _CAP])
    points[:len(_CAP), 0] += length
    return points


def blob(rng: np.random.Generator, radius_x: float, radius_y: float, wobble: float) -> np.ndarray:
    """Returns an ellipse whose radius varies by about `wobble` (a fraction) in smooth lobes."""
    order = np.arange(2, 6)[:, None]
    waves = rng.normal(0, wobble, (4, 1)) * np.cos(order * _CIRCLE + rng.uniform(0, 6.3, (4, 1)))
    radius = np.maximum(1 + (waves / np.sqrt(order)).sum(0), 0.25).astype(np.float32)
    return np.stack([radius_x * radius * _COS, radius_y * radius * _SIN], 1)


def spine(length: float, thickness: np.ndarray) -> np.ndarray:
    """Returns a body along +x, centred on the origin, with `thickness` [N] from tail to head."""
    x = np.linspace(-length / 2, length / 2, len(thickness))
    upper = np.stack([x, -thickness / 2], 1)
    return np.concatenate([upper, upper[::-1] * (1, -1)]).astype(np.float32)


def wheel(rng: np.random.Generator, radius: float) -> list[np.ndarray]:
    """Returns a wheel: a disc with holes between its spokes (even-odd filling)."""
    spokes = int(rng.integers(3, 9))
    inner, outer = radius * rng.uniform(0.15, 0.3), radius * rng.uniform(0.65, 0.88)
    contours = [ellipse(radius, radius)]
    for spoke in range(spokes):
        angle = 2 * np.pi * (spoke + np.linspace(0.12, 0.88, 6)) / spokes
        arc = np.stack([np.cos(angle), np.sin(angle)], 1)
        contours.append(np.concatenate([inner * arc, outer * arc[::-1]]).astype(np.float32))
    return contours


def roughened(rng: np.random.Generator, outline: np.ndarray, amount: float) -> np.ndarray:
    """Returns `outline` with its edge subdivided and jittered by about `amount`: fur, leaves."""
    following = np.roll(outline, -1, 0)
    dense = outline[:, None] + _QUARTERS * (following - outline)[:, None]
    dense = dense.reshape(-1, 2)
    return (dense + rng.normal(0, amount, dense.shape)).astype(np.float32)

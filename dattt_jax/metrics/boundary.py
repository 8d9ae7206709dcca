"""Boundary F-measure of the DAVIS toolkit, exact and about a hundred times as fast.

Definition: Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object
Segmentation" (CVPR 2016), and the `seg2bmap` boundary map of Martin et al. that its toolkit uses.
"""

import functools
import math

import cv2
import numpy as np

from dattt_jax.metrics.region import check_pair

_WINDOW = np.ones((2, 2), np.uint8)


def boundary_map(mask: np.ndarray) -> np.ndarray:
    """Boundary pixels: those that differ from their right, lower or lower-right neighbour.

    A neighbour outside the image counts as equal, so the last row looks right only, the last column
    down only, and the last corner is never boundary. That is the range (maximum minus minimum) of
    the 2×2 window that starts at the pixel, clipped to the image.

    Args:
        mask: `[H, W]` bool.

    Returns:
        `[H, W]` uint8, 0 or 1.
    """
    levels = np.ascontiguousarray(mask).view(np.uint8)
    highest = cv2.dilate(levels, _WINDOW, anchor=(0, 0))
    lowest = cv2.erode(levels, _WINDOW, anchor=(0, 0))
    return cv2.bitwise_xor(highest, lowest)


def tolerance_radius(size: tuple[int, int], tolerance: float = 0.008) -> int:
    """Distance in whole pixels at which two boundary pixels still match.

    Args:
        size: `(height, width)` in pixels.
        tolerance: Share of the image diagonal if below 1 (rounded up to whole pixels), else pixels.

    Returns:
        The radius: 8 at 480×854, 6 at 512×512.
    """
    return int(tolerance) if tolerance >= 1 else math.ceil(tolerance * math.hypot(*size))


@functools.cache
def _disk_as_rectangles(radius: int) -> tuple[np.ndarray, ...]:
    """All-ones kernels whose union is the disk x² + y² <= radius², one per distinct row width."""
    kernels, widest = [], -1
    for y in range(radius, -1, -1):
        x = math.isqrt(radius * radius - y * y)
        if x > widest:
            kernels.append(np.ones((2 * y + 1, 2 * x + 1), np.uint8))
            widest = x
    return tuple(kernels)


def dilate_disk(image: np.ndarray, radius: int) -> np.ndarray:
    """Dilation by the disk x² + y² <= radius² (scikit-image's `disk`), exactly.

    A disk is the union of one rectangle per distinct row width, and dilation by a union is the
    union of the dilations. OpenCV dilates by a rectangle in two one-dimensional passes, so this
    costs O(radius) per pixel instead of O(radius²).

    Args:
        image: `[H, W]` uint8, 0 or 1.
        radius: In pixels, 0 or more.

    Returns:
        `[H, W]` uint8, 0 or 1.
    """
    result = np.zeros(image.shape, np.uint8)
    for kernel in _disk_as_rectangles(radius):
        cv2.bitwise_or(result, cv2.dilate(image, kernel), result)
    return result


def boundary_f(prediction: np.ndarray, target: np.ndarray, tolerance: float = 0.008) -> float:
    """F: harmonic mean of boundary precision and recall within a tolerance, as the DAVIS toolkit.

    Args:
        prediction: `[H, W]` bool.
        target: `[H, W]` bool.
        tolerance: Share of the image diagonal if below 1, else pixels; see `tolerance_radius`.

    Returns:
        F in 0..1. A mask that is empty or fills the frame has no boundary: 1 when neither mask has
        one, 0 when only one has.

    Raises:
        ValueError: The arguments are not two bool masks of one size.
    """
    check_pair(prediction, target)
    found, wanted = boundary_map(prediction), boundary_map(target)
    n_found, n_wanted = cv2.countNonZero(found), cv2.countNonZero(wanted)
    if n_found == 0 or n_wanted == 0:
        return 1.0 if n_found == n_wanted else 0.0
    # Dilations are looked at on boundary pixels only, so all that matters lies in this box.
    left, top, width, height = cv2.boundingRect(cv2.bitwise_or(found, wanted))
    box = np.s_[top:top + height, left:left + width]
    found, wanted = found[box], wanted[box]
    radius = tolerance_radius(prediction.shape, tolerance)
    precision = cv2.countNonZero(found & dilate_disk(wanted, radius)) / n_found
    recall = cv2.countNonZero(wanted & dilate_disk(found, radius)) / n_wanted
    if precision + recall == 0:
        return 0.0
    return 2 * precision * recall / (precision + recall)

"""Forward and backward flow, where they agree, and what follows the flow through time."""

import cv2
import numpy as np

from input_pipeline.flow import FlowMethod

# Sundaram et al., "Dense Point Trajectories by GPU-accelerated Large Displacement Optical Flow" (ECCV 2010):
# how far the way there and back may miss, as a share of the squared lengths and in square pixels.
_SHARE, _SQUARE_PIXELS = 0.01, 0.5


def forward_backward(method: FlowMethod, image0: np.ndarray,
                     image1: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flow from `image0` to `image1` and from `image1` to `image0`, each as `FlowMethod` gives it."""
    return method(image0, image1), method(image1, image0)


def warp(values: np.ndarray, flow: np.ndarray, *, smooth: bool = False) -> np.ndarray:
    """Fetches what a map shows where each pixel moves to.

    Args:
        values: `[H, W]` or `[H, W, C]`, uint8 or float32, on the grid of the second frame; C at most 4.
        flow: `[H, W, 2]` from the first frame to the second, pixels.
        smooth: interpolate bicubically, which blurs less when done again and again, but for what would go
            beyond the 3×3 pixels around; else bilinearly.

    Returns:
        The same shape and type, on the grid of the first frame; 0 beyond the border.
    """
    height, width = flow.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    x, y = x + flow[..., 0], y + flow[..., 1]
    if not smooth:
        return cv2.remap(values, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    around = np.ones((3, 3), np.uint8)
    least, most = (cv2.remap(extreme(values, around), x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT)
                   for extreme in (cv2.erode, cv2.dilate))
    return np.clip(cv2.remap(values, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_CONSTANT), least, most)


def consistent(forward: np.ndarray, backward: np.ndarray) -> np.ndarray:
    """Pixels whose way forward and back ends where it began: seen in both frames, as far as the flow knows.

    |f + b|² < 0.01 (|f|² + |b|²) + 0.5 with b the backward flow where f leads (Sundaram et al., 2010).

    Args:
        forward: `[H, W, 2]` float32, from the first frame to the second, pixels; not finite where unknown.
        backward: `[H, W, 2]` float32, from the second to the first.

    Returns:
        `[H, W]` bool, on the grid of the first frame; False where a flow is not known.
    """
    height, width = forward.shape[:2]
    known = np.isfinite(forward).all(-1)
    forward = np.where(known[..., None], forward, 0).astype(np.float32)
    x, y = np.arange(width) + forward[..., 0], np.arange(height)[:, None] + forward[..., 1]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    back = warp(backward, forward)
    miss = np.square(forward + back).sum(-1)
    allowed = _SHARE * (np.square(forward).sum(-1) + np.square(back).sum(-1)) + _SQUARE_PIXELS
    with np.errstate(invalid="ignore"):
        return known & inside & (miss < allowed)

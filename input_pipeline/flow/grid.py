"""Places of a frame, as fits of motion to flow see them."""

import numpy as np

_POINTS = 3000  # about as many places of the flow are fitted
MAD_TO_SIGMA = 1.4826  # of a normal distribution: its standard deviation by its median absolute deviation


def sparse_places(height: int, width: int) -> tuple[slice, slice, np.ndarray, np.ndarray]:
    """Where places are, from the middle of the frame in halves of its width, and which of them are fitted.

    Args:
        height: of the frame, pixels.
        width: of the frame, pixels.

    Returns:
        Columns and rows of those that are fitted; x float32 [W] and y float32 [H, 1] of all.
    """
    x = (np.arange(width, dtype=np.float32) * 2 + 1 - width) / width
    y = ((np.arange(height, dtype=np.float32) * 2 + 1 - height) / width)[:, None]
    step = max(1, round((height * width / _POINTS) ** 0.5))
    # A frame hardly larger than the step keeps its middle.
    rows, columns = (slice(min(step, side) // 2, None, step) for side in (height, width))
    return columns, rows, x, y

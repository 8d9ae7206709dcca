"""How sure a network is of the object that it sees, and which frames tell it of a video. Not in the paper."""

from collections.abc import Sequence

import numpy as np


def probed_frames(indices: Sequence[int], count: int) -> set[int]:
    """At most `count` of the frames `indices` of a video, ascending numbers, spread evenly over them."""
    count = min(count, len(indices))
    return {indices[(2 * i + 1) * len(indices) // (2 * count)] for i in range(count)}


def sureness(probability: np.ndarray) -> float:
    """Σ p · max(2p - 1, 0) / Σ p over the probabilities p of a frame.

    Args:
        probability: float, any shape.

    Returns:
        0, where nothing is more likely than not, to 1.
    """
    p = probability.astype(np.float64)
    return float(np.sum(p * np.maximum(2 * p - 1, 0)) / max(np.sum(p), np.finfo(float).tiny))

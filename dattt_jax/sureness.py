"""How sure a network is of the object that it sees in a frame. Not in the paper."""

import numpy as np


def sureness(probability: np.ndarray) -> float:
    """Σ p · max(2p - 1, 0) / Σ p over the probabilities p of a frame.

    Args:
        probability: float, any shape.

    Returns:
        0, where nothing is more likely than not, to 1.
    """
    p = probability.astype(np.float64)
    return float(np.sum(p * np.maximum(2 * p - 1, 0)) / max(np.sum(p), np.finfo(float).tiny))

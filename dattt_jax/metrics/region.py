"""Region similarity of two masks: J (Jaccard) and the region F of the paper's equation 6 (Dice)."""

import numpy as np


def check_pair(prediction: np.ndarray, target: np.ndarray) -> None:
    """Refuses what is not a pair of masks.

    Args:
        prediction: `[H, W]` bool, H and W at least 1.
        target: `[H, W]` bool, the same size.

    Raises:
        ValueError: A mask is not bool, not two-dimensional or has no pixels, or the sizes differ.
    """
    for name, mask in (("prediction", prediction), ("target", target)):
        if mask.dtype != np.bool_ or mask.ndim != 2 or mask.size == 0:
            raise ValueError(f"{name} must be a bool mask [H, W], got {mask.dtype} {mask.shape}")
    if prediction.shape != target.shape:
        raise ValueError(f"prediction {prediction.shape} and target {target.shape} differ in size")


def jaccard(prediction: np.ndarray, target: np.ndarray) -> float:
    """J: intersection over union, as in the DAVIS toolkit.

    Args:
        prediction: `[H, W]` bool.
        target: `[H, W]` bool.

    Returns:
        J in 0..1; 1 when both masks are empty.

    Raises:
        ValueError: The arguments are not two bool masks of one size.
    """
    check_pair(prediction, target)
    union = np.count_nonzero(prediction | target)
    return float(np.count_nonzero(prediction & target) / union) if union else 1.0


def region_f(prediction: np.ndarray, target: np.ndarray) -> float:
    """The F that the paper prints: harmonic mean of region precision and recall (equation 6), Dice.

    The numbers in the paper's tables are the boundary F (`boundary.boundary_f`), not this one.

    Args:
        prediction: `[H, W]` bool.
        target: `[H, W]` bool.

    Returns:
        F in 0..1; 1 when both masks are empty.

    Raises:
        ValueError: The arguments are not two bool masks of one size.
    """
    check_pair(prediction, target)
    total = np.count_nonzero(prediction) + np.count_nonzero(target)
    return float(2 * np.count_nonzero(prediction & target) / total) if total else 1.0

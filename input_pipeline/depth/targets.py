"""From what a depth method says to what training reads: relative inverse depth, 16 bits."""

import numpy as np

from dattt_jax.errors import UserError

DEPTH_KINDS = ("inverse", "relative", "metric")
# How `depth_target` normalises, for the metadata of stored depth.
NORMALISATION = "inverse depth divided by its largest value in the frame; 65535 = nearest, 0 = unknown"

_FULL = 65535


def depth_target(depth: np.ndarray, kind: str) -> np.ndarray:
    """Turns depth of any kind into the training target: inverse depth, 1 at the frame's nearest point.

    The same convention as the synthetic data's. The factor that is lost matters little to SILog (DATTT,
    equation 4), and inverse depth is what MonoDepth2 and Lite-Mono predict, the paper's sources of targets
    (section 4.1).

    Args:
        depth: `[H, W]` float.
        kind: what it is, one of `DEPTH_KINDS`.

    Returns:
        `[H, W]` float32 in [0, 1]; 0 where the depth is unknown: not finite, or (of a depth) not positive.
        Known values are above 0.

    Raises:
        UserError: there is no such kind.
    """
    if kind not in DEPTH_KINDS:
        raise UserError(f"unknown kind of depth {kind!r}: use one of {', '.join(DEPTH_KINDS)}")
    depth = np.asarray(depth, np.float32)
    known = np.isfinite(depth)
    if kind != "inverse":
        known &= depth > 0
    # A shift that a method leaves open can make its farthest points negative: they are far, not unknown.
    values = np.where(known, depth, 1)
    inverse = np.maximum(values, 0) if kind == "inverse" else 1 / values
    largest = np.max(inverse, where=known, initial=0)
    if largest == 0:
        return np.zeros_like(depth)
    return np.where(known, np.maximum(inverse / largest, np.float32(1 / _FULL)), 0).astype(np.float32)


def to_uint16(target: np.ndarray) -> np.ndarray:
    """Rounds a target in [0, 1] to 16 bits: `[H, W]` float -> `[H, W]` uint16, 65535 times it.

    Known values (above 0) of `depth_target` stay above 0.
    """
    return np.rint(np.asarray(target) * _FULL).astype(np.uint16)

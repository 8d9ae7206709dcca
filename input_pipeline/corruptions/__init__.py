"""Corrupted video for measuring robustness: the Robust-VOS benchmark and the native part of DAVIS-C.

`frame_ops` and `clip_ops` hold the operators, `registry` says which levels they have, and `corrupt_video`
wraps an `EvalVideo`. Masks stay as they are, every frame is corrupted, and whatever is computed from the
frames (optical flow, depth) sees the corrupted ones, since the clean ones are not reachable any more.
"""

from input_pipeline.corruptions.registry import (
    CORRUPTIONS,
    SUITES,
    Corruption,
    parse_corruptions,
)
from input_pipeline.corruptions.video import corrupt_video, corruption_rng

__all__ = ["CORRUPTIONS", "SUITES", "Corruption", "corrupt_video", "corruption_rng", "parse_corruptions"]

"""How a video moves from frame to frame: on a grid, with how far the motion can be trusted."""

import itertools
from collections.abc import Iterable, Iterator

import cv2
import numpy as np

from input_pipeline.flow.consistency import consistent, forward_backward, warp
from input_pipeline.flow.dis import SAFE_SIDE, DisFlow

_LONGEST = 854  # pixels of a frame's longer side, in which flow is estimated
_CUT = 0.1  # mean trust below which two frames are of different scenes; of one, it was never below 0.2
_SAME_COLOUR = 35.0  # distance of colours, of 255 per channel, at which trust falls to 1/e


def neighbour_motion(frames: Iterable[np.ndarray], grid: tuple[int, int]) -> Iterator[np.ndarray]:
    """Motion between each frame and the next, both ways, by DIS on frames of at most 854 pixels a side.

    Trust is the share of a place's pixels whose way there and back ends where it began
    (`flow.consistency.consistent`), times exp(-d² / 35²), d the distance of the colours where it begins
    and where it leads. Where the mean of that is below 0.1, there is a cut, and no trust at all.

    Args:
        frames: uint8 [H, W, 3] RGB of one size, in order.
        grid: (h, w), of the result.

    Yields:
        float32 [2, h, w, 3], one fewer than frames: of the first frame to the second, then of the second to
        the first: (dx, dy) in places of the grid, and trust in 0..1.
    """
    method = DisFlow()

    def reduced(frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        height, width = frame.shape[:2]
        scale = min(1.0, max(_LONGEST / max(height, width), SAFE_SIDE / min(height, width)))
        small = _resize(frame, (round(height * scale), round(width * scale)))
        return small, _resize(small, grid).astype(np.float32)

    for (small0, colours0), (small1, colours1) in itertools.pairwise(map(reduced, frames)):
        onward, back = forward_backward(method, small0, small1)
        yield np.stack([_on_grid(onward, back, colours0, colours1),
                        _on_grid(back, onward, colours1, colours0)])


def _resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)


def _on_grid(flow: np.ndarray, reverse: np.ndarray, colours: np.ndarray, others: np.ndarray) -> np.ndarray:
    """One way of `neighbour_motion`: [h, w, 3] of flow [H, W, 2] and colours [h, w, 3] at both ends."""
    grid = colours.shape[:2]
    scale = np.divide(grid[::-1], flow.shape[1::-1], dtype=np.float32)
    coarse = _resize(flow, grid) * scale
    trust = _resize(consistent(flow, reverse).astype(np.float32), grid)
    distance = np.square(warp(others, coarse) - colours).sum(-1)
    trust = trust * np.exp(-distance / _SAME_COLOUR**2)
    return np.dstack([coarse, trust if trust.mean() >= _CUT else np.zeros_like(trust)])

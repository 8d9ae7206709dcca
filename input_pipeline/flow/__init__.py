"""Optical flow from two frames, and its RGB rendering.

A method is a function of two frames. To add one (a network, precomputed files), write a module with
a constructor that takes no argument and name it in `_METHODS`; modules load on first use, so that
an unused method costs no import.

    method = create_flow("dis")
    for frame, rendering in flow_renderings(video, method, last_frame="repeat"):
        ...
"""

import importlib
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import numpy as np

from dattt_jax.errors import UserError
from input_pipeline.flow.colorwheel import flow_to_rgb

__all__ = ["LAST_FRAME_RULES", "FlowMethod", "create_flow", "flow_renderings", "flow_to_rgb"]

# name: "module:constructor"
_METHODS = {
    "dis": "input_pipeline.flow.dis:DisFlow",
}

LAST_FRAME_RULES = ("repeat", "backward", "drop")


class FlowMethod(Protocol):
    """Estimates the forward optical flow of a pair of frames."""

    def __call__(self, image0: np.ndarray, image1: np.ndarray) -> np.ndarray:
        """Computes the motion from `image0` to `image1`.

        Args:
            image0: `[H, W, 3]` uint8 RGB.
            image1: `[H, W, 3]` uint8 RGB, of the same size.

        Returns:
            `[H, W, 2]` float32, (dx, dy) in pixels, on the grid of `image0`: what `image0` shows at
            (x, y) is in `image1` at (x + dx, y + dy).
        """
        ...


def create_flow(method: str = "dis") -> FlowMethod:
    """Creates the optical flow method of that name.

    Args:
        method: "dis" (dense inverse search, on the CPU).

    Returns:
        The method.

    Raises:
        UserError: there is no such method; the message lists the valid names.
    """
    if method not in _METHODS:
        raise UserError(f"unknown flow method {method!r}: use one of {', '.join(sorted(_METHODS))}")
    module, constructor = _METHODS[method].split(":")
    create: Callable[[], FlowMethod] = getattr(importlib.import_module(module), constructor)
    return create()


def flow_renderings(frames: Iterable[np.ndarray], method: FlowMethod,
                    last_frame: str = "repeat") -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs every frame of a stream with the RGB rendering of its forward flow.

    N frames have N - 1 forward flows, so the last frame needs a rule. The stream is read once and
    two frames are held at a time.

    Args:
        frames: `[H, W, 3]` uint8 RGB frames of one size, in order.
        method: the flow method, see `create_flow`.
        last_frame: "repeat" gives the last frame the rendering of the frame before it; "backward"
            renders its flow to the frame before it; "drop" leaves the last frame out.

    Yields:
        (frame, rendering), both `[H, W, 3]` uint8 RGB.

    Raises:
        UserError: `last_frame` is no such rule (at the call), or the stream has fewer than two
            frames (while iterating).
    """
    if last_frame not in LAST_FRAME_RULES:
        raise UserError(f"unknown last_frame rule {last_frame!r}: use one of "
                        f"{', '.join(LAST_FRAME_RULES)}")
    return _flow_renderings(frames, method, last_frame)


def _flow_renderings(frames: Iterable[np.ndarray], method: FlowMethod,
                     last_frame: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    previous = current = rendering = None
    for frame in frames:
        previous, current = current, frame
        if previous is not None:
            rendering = flow_to_rgb(method(previous, current))
            yield previous, rendering
    if rendering is None:
        raise UserError("at least two frames are needed: a single frame shows no motion")
    if last_frame == "repeat":
        yield current, rendering
    elif last_frame == "backward":
        yield current, flow_to_rgb(method(current, previous))

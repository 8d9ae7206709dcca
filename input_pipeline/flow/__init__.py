"""Optical flow: one interface to every method, and the rendering of a video's flow.

A method is a function of two frames with a name for what it computes. To add one, write a module
with a constructor whose keyword arguments are its options and name it in `_METHODS`; modules load
on first use, so that an unused method costs no import.

    method = create_flow("raft_small", weights="raft_small.safetensors")
    for frame, rendering in flow_renderings(video, method, last_frame="repeat"):
        ...
"""

import importlib
import inspect
import itertools
from collections.abc import Callable, Container, Iterable, Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np

from dattt_jax.errors import UserError
from input_pipeline.flow.colorwheel import flow_to_rgb

__all__ = ["LAST_FRAME_RULES", "BatchFlowMethod", "FlowMethod", "RenderingMethod", "RenderingSource",
           "create_flow", "flow_options", "flow_renderings", "flow_to_rgb", "pair_renderings"]

# name: "module:constructor"
_METHODS = {
    "dis": "input_pipeline.flow.dis:DisFlow",
    "raft_small": "input_pipeline.flow.raft_flow:raft_small",
    "raft_large": "input_pipeline.flow.raft_flow:raft_large",
    "files": "input_pipeline.flow.files:FlowFiles",
}

LAST_FRAME_RULES = ("repeat", "backward", "drop")


class FlowMethod(Protocol):
    """Estimates the forward optical flow of a pair of frames.

    Attributes:
        identity: what the flow depends on beside the two frames: the method, its parameters and a
            hash of its weights. Equal identities give equal flow on one machine.
    """

    identity: str

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


@runtime_checkable
class BatchFlowMethod(Protocol):
    """A flow method that is faster on several pairs at once.

    Attributes:
        identity: see `FlowMethod`.
        batch_size: how many pairs `batch` is best given.
    """

    identity: str
    batch_size: int

    def batch(self, images0: np.ndarray, images1: np.ndarray) -> np.ndarray:
        """Computes the motion of pairs: uint8 `[N, H, W, 3]` twice -> float32 `[N, H, W, 2]`."""
        ...


@runtime_checkable
class RenderingMethod(FlowMethod, Protocol):
    """A flow method with a way of its own to the rendering of its flow, such as a cache."""

    def rendering(self, image0: np.ndarray, image1: np.ndarray) -> np.ndarray:
        """Gives `flow_to_rgb` of the motion from `image0` to `image1`: uint8 `[H, W, 3]` RGB."""
        ...


@runtime_checkable
class RenderingSource(Protocol):
    """Flow of a video in a way of its own: looked up in files, or estimated to several frames.

    See `input_pipeline.flow.files` and `input_pipeline.flow.nearby`.

    Attributes:
        identity: see `FlowMethod`.
    """

    identity: str

    def renderings(self, frames: Iterable[np.ndarray], last_frame: str, wanted: Container[int] | None = None
                   ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """As `flow_renderings`, of those of the video's `frames` whose number is in `wanted` (None: of all).

        A rendering may also be several, uint8 `[N, H, W, 3]`.
        """
        ...


def create_flow(method: str = "dis", **options: Any) -> FlowMethod:
    """Creates the optical flow method of that name.

    Args:
        method: "dis" (dense inverse search, on the CPU, without weights), "raft_small",
            "raft_large" (networks, on the accelerator, with weights), or "files" (flow that other
            programs wrote; to be bound to a video, see `FlowFiles`).
        **options: of the method, see its constructor; `flow_options` lists their names.

    Returns:
        The method.

    Raises:
        UserError: there is no such method or option (the message lists the valid names), or what an
            option names cannot be used.
    """
    known = flow_options(method)
    for name in options:
        if name not in known:
            takes = ", ".join(known) or "none"
            raise UserError(f"flow method {method!r} has no option {name!r}; its options: {takes}")
    return _constructor(method)(**options)


def flow_options(method: str) -> tuple[str, ...]:
    """The names of the options that `create_flow` takes for a method.

    Raises:
        UserError: there is no such method; the message lists the valid names.
    """
    return tuple(inspect.signature(_constructor(method)).parameters)


def _constructor(method: str) -> Callable[..., FlowMethod]:
    if method not in _METHODS:
        raise UserError(f"unknown flow method {method!r}: use one of {', '.join(_METHODS)}")
    module, constructor = _METHODS[method].split(":")
    return getattr(importlib.import_module(module), constructor)


def flow_renderings(frames: Iterable[np.ndarray], method: FlowMethod | RenderingSource,
                    last_frame: str = "repeat") -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs every frame of a stream with the RGB rendering of its forward flow.

    N frames have N - 1 forward flows, so the last frame needs a rule. The stream is read once and
    two frames are held at a time; with a `BatchFlowMethod`, one more than its batch size.

    Args:
        frames: `[H, W, 3]` uint8 RGB frames of one size, in order.
        method: the flow method, see `create_flow`, or the files of this video.
        last_frame: "repeat" gives the last frame the rendering of the frame before it; "backward"
            renders its flow to the frame before it; "drop" leaves the last frame out.

    Yields:
        (frame, rendering), both `[H, W, 3]` uint8 RGB; several renderings `[N, H, W, 3]` from a
        `RenderingSource` that has several.

    Raises:
        UserError: `last_frame` is no such rule (at the call), or the stream has fewer than two
            frames (while iterating).
    """
    if last_frame not in LAST_FRAME_RULES:
        raise UserError(f"unknown last_frame rule {last_frame!r}: use one of "
                        f"{', '.join(LAST_FRAME_RULES)}")
    if isinstance(method, RenderingSource):
        return method.renderings(frames, last_frame)
    return _flow_renderings(frames, method, last_frame)


def _flow_renderings(frames: Iterable[np.ndarray], method: FlowMethod,
                     last_frame: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    pair = rendering = None
    for pair, rendering in pair_renderings(itertools.pairwise(frames), method):
        yield pair[0], rendering
    if pair is None:
        raise UserError("at least two frames are needed: a single frame shows no motion")
    if last_frame == "repeat":
        yield pair[1], rendering
    elif last_frame == "backward":
        yield pair[1], _rendering(method, pair[1], pair[0])


def pair_renderings(pairs: Iterable[tuple[np.ndarray, np.ndarray]], method: FlowMethod
                    ) -> Iterator[tuple[tuple[np.ndarray, np.ndarray], np.ndarray]]:
    """Every pair of frames, and the rendering of the flow from its first to its second frame.

    In the method's own way if it has one, and in its batches.
    """
    pairs = iter(pairs)
    if not isinstance(method, BatchFlowMethod):
        for pair in pairs:
            yield pair, _rendering(method, *pair)
        return
    while group := list(itertools.islice(pairs, method.batch_size)):
        images0, images1 = map(np.stack, zip(*group, strict=True))
        for pair, flow in zip(group, method.batch(images0, images1), strict=True):
            yield pair, flow_to_rgb(flow)


def _rendering(method: FlowMethod, image0: np.ndarray, image1: np.ndarray) -> np.ndarray:
    if isinstance(method, RenderingMethod):
        return method.rendering(image0, image1)
    return flow_to_rgb(method(image0, image1))

"""Depth: one interface to every method, and what training takes from it.

A method is a function of a frame that says what its numbers are. To add one, write a module with a
constructor whose keyword arguments are its options and name it in `_METHODS`; modules load on first use.

    method = create_depth("lite_mono", weights="lite_mono.safetensors")
    target = depth_target(method(frame), method.kind)
"""

import importlib
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import numpy as np

from dattt_jax.errors import UserError
from input_pipeline.depth.targets import DEPTH_KINDS, depth_target, to_uint16

__all__ = ["DEPTH_KINDS", "DepthMethod", "create_depth", "depth_options", "depth_target", "to_uint16"]

_NETWORK = "input_pipeline.depth.network_depth:network_depth"
# name: "module:constructor"; a constructor of several networks takes the name as its only positional
# argument.
_METHODS = {
    "lite_mono": _NETWORK,
    "lite_mono_small": _NETWORK,
    "lite_mono_tiny": _NETWORK,
    "lite_mono_8m": _NETWORK,
    "monodepth2": _NETWORK,
    "transformers": "input_pipeline.depth.transformers_depth:TransformersDepth",
}


class DepthMethod(Protocol):
    """Estimates the depth of a single frame.

    Attributes:
        identity: what the depth depends on beside the frame: the method, its parameters and a hash of its
            weights.
        kind: what the numbers are, one of `DEPTH_KINDS`: "inverse" (inverse depth up to an unknown factor,
            perhaps also an unknown shift), "relative" (depth up to an unknown factor) or "metric" (depth in
            metres).
    """

    identity: str
    kind: str

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """Computes the depth of a frame.

        Args:
            frame: `[H, W, 3]` uint8 RGB.

        Returns:
            `[H, W]` float32, see `kind`.
        """
        ...


def create_depth(method: str, **options: Any) -> DepthMethod:
    """Creates the depth method of that name.

    Args:
        method: "lite_mono", "lite_mono_small", "lite_mono_tiny", "lite_mono_8m", "monodepth2" (weights
            converted by `--mode=convert`), or "transformers" (any depth-estimation model of that library, on
            PyTorch).
        **options: of the method, see its constructor; `depth_options` lists their names.

    Returns:
        The method.

    Raises:
        UserError: there is no such method or option (the message lists the valid names), or what an option
            names cannot be used.
    """
    known = depth_options(method)
    for name in options:
        if name not in known:
            options = ", ".join(known)
            raise UserError(f"depth method {method!r} has no option {name!r}; its options: {options}")
    return _constructor(method)(**options)


def depth_options(method: str) -> tuple[str, ...]:
    """The names of the options that `create_depth` takes for a method.

    Raises:
        UserError: there is no such method; the message lists the valid names.
    """
    return tuple(inspect.signature(_constructor(method)).parameters)


def _constructor(method: str) -> Callable[..., DepthMethod]:
    if method not in _METHODS:
        raise UserError(f"unknown depth method {method!r}: use one of {', '.join(_METHODS)}")
    module, name = _METHODS[method].split(":")
    constructor = getattr(importlib.import_module(module), name)
    return partial(constructor, method) if _METHODS[method] == _NETWORK else constructor

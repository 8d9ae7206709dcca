"""Depth targets on disk, so that no frame is estimated twice."""

from collections.abc import Callable

import numpy as np

from input_pipeline.depth import DepthMethod, depth_target, to_uint16
from input_pipeline.depth.targets import NORMALISATION
from input_pipeline.image_cache import ImageCache


class DepthCache:
    """Depth targets by a depth method; safe to use from several threads.

    Args:
        images: where they are kept.
        method: the depth method, safe to call from several threads; its `identity` names the entries.
    """

    def __init__(self, images: ImageCache, method: DepthMethod) -> None:
        self._images, self._method = images, method

    def target(self, content: bytes, decode: Callable[[], np.ndarray]) -> bytes:
        """Gives the depth target of a frame.

        Args:
            content: the frame's file, as bytes.
            decode: gives the frame as uint8 [H, W, 3] RGB; called only if there is no entry.

        Returns:
            16-bit grey PNG of the target, see `depth_target`.

        Raises:
            UserError: the entry cannot be written; or what `decode` or the method raise.
        """
        def compute() -> np.ndarray:
            return to_uint16(depth_target(self._method(decode()), self._method.kind))

        stored = f"depth: {NORMALISATION}".encode()
        return self._images.entry((stored, self._method.identity.encode(), content), compute)

"""Flow renderings on disk, so that no pair of frames is estimated twice.

The same frames under another path, in another data set or after an interrupted run find their flow.
"""

from collections.abc import Callable

import cv2
import numpy as np

from input_pipeline.flow import FlowMethod
from input_pipeline.flow.colorwheel import flow_to_rgb
from input_pipeline.image_cache import ImageCache

_RENDERING = b"flow: colour wheel of the frame's own maximum, 1"  # to be changed with `flow_to_rgb`


class FlowCache:
    """Colour-wheel renderings of a flow method; safe to use from several threads.

    Pairs are estimated one by one also where the method would take several: how many are missing, after an
    interruption, would otherwise change the last bits of the flow.

    Args:
        images: where they are kept.
        method: the flow method, safe to call from several threads; its `identity` names the entries.
    """

    def __init__(self, images: ImageCache, method: FlowMethod) -> None:
        self._images, self._method = images, method

    def rendering(self, content0: bytes, content1: bytes,
                  decode: Callable[[], tuple[np.ndarray, np.ndarray]]) -> bytes:
        """Gives the rendering of the flow from one frame to another.

        Args:
            content0: the file of the frame whose flow it is, as bytes.
            content1: that of the other frame.
            decode: gives both as uint8 [H, W, 3] RGB; called only if there is no entry.

        Returns:
            PNG of the uint8 [H, W, 3] RGB rendering, see `flow_to_rgb`.

        Raises:
            UserError: the entry cannot be written; or what `decode` or the method raise.
        """
        return self._images.entry((_RENDERING, self._method.identity.encode(), content0, content1),
                                  lambda: flow_to_rgb(self._method(*decode())))


class CachedFlow:
    """A flow method that keeps its renderings on disk; a `RenderingMethod`, for videos in memory.

    Args:
        images: where they are kept.
        method: as of `FlowCache`.

    Attributes:
        identity: the method's.
    """

    def __init__(self, images: ImageCache, method: FlowMethod) -> None:
        self._cache, self._method = FlowCache(images, method), method
        self.identity = method.identity

    def __call__(self, image0: np.ndarray, image1: np.ndarray) -> np.ndarray:
        """The flow itself, which is not kept; see `FlowMethod`."""
        return self._method(image0, image1)

    def rendering(self, image0: np.ndarray, image1: np.ndarray) -> np.ndarray:
        """See `RenderingMethod`."""
        size = repr(image0.shape).encode()  # the same bytes may be two images
        contents = (size + image.tobytes() for image in (image0, image1))
        png = self._cache.rendering(*contents, lambda: (image0, image1))
        return cv2.cvtColor(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)

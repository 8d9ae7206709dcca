"""Optical flow by dense inverse search, through OpenCV, on the CPU."""

import cv2
import numpy as np

from dattt_jax.errors import UserError
from input_pipeline.flow.stabilize import stabilized as without_camera

SAFE_SIDE = 16
"""Pixels on both sides from which on OpenCV takes frames of any shape.

Where the height is less and the width 40 or more, it halves frames until no patch fits, and reads beyond them
(tried with heights from 12 and widths to 4,000 pixels).
"""

_MIN_SIDE = 12
_WIDE = 40
_LONGEST = 4  # times as long as the shorter one may the longer side be made


class DisFlow:
    """Dense inverse search (Kroeger et al., "Fast Optical Flow using Dense Inverse Search", 2016).

    OpenCV's preset "medium". Carrying on to the finest scale costs four times as much and is not
    better: further from RAFT's flow on real frames, and it separates moving objects no better.

    Args:
        stabilized: take the camera's motion out, see `stabilize.stabilized`.
        side: shorter side, pixels, of the frames that flow is estimated from, which are enlarged or reduced
            to it (the longer one to at most four times as much, neither to less than 16); 0: as they come.
        parallax: of stabilized flow, keep what stands out in depth, see `stabilize.stabilized`.

    Attributes:
        identity: the preset, the version of OpenCV, whether the flow is stabilized and has parallax, and the
            side.
    """

    def __init__(self, stabilized: bool = False, side: int = 0, parallax: bool = True) -> None:
        self._stabilized, self._side, self._parallax = stabilized, side, parallax
        self.identity = (f"dis(preset=medium, opencv={cv2.__version__}"
                         f"{', stabilized=planar 8, 1' if stabilized else ''}"
                         f"{', across epipolar lines, 1' if stabilized and not parallax else ''}"
                         f"{f', side={side}' if side else ''})")

    def __call__(self, image0: np.ndarray, image1: np.ndarray) -> np.ndarray:
        """Computes the motion from `image0` to `image1`; see `FlowMethod`.

        Raises:
            UserError: a side of the frames is below 12 pixels, or they are lower than 16 and 40 wide or more.
        """
        size = f"{image0.shape[1]}x{image0.shape[0]} (width x height)"
        if min(image0.shape[:2]) < _MIN_SIDE:
            raise UserError(f"frames of {size} are too small for flow 'dis'; it needs {_MIN_SIDE} pixels on "
                            "both sides")
        grays = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (image0, image1)]
        scale = min(self._side / min(grays[0].shape), _LONGEST * self._side / max(grays[0].shape)) or 1.0
        if scale != 1:
            grays = [_resized(gray, scale) for gray in grays]
        height, width = grays[0].shape
        if height < SAFE_SIDE and width >= _WIDE:
            raise UserError(f"frames of {size} are too low for flow 'dis': crop their width to below {_WIDE} "
                            "pixels, or name another config.flow.method")
        # A new object each time: OpenCV's own changes its settings for good when it meets a frame
        # that is small, so results would depend on what was computed before.
        flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(*grays, None)
        if self._stabilized:
            flow = without_camera(flow, parallax=self._parallax)
        return flow if scale == 1 else _flow_of_size(flow, image0.shape[:2])


def _resized(gray: np.ndarray, scale: float) -> np.ndarray:
    size = [max(SAFE_SIDE, round(side * scale)) for side in gray.shape[::-1]]
    return cv2.resize(gray, size, interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)


def _flow_of_size(flow: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The same motion on frames of that (height, width)."""
    (height, width), reduces = size, size[0] < flow.shape[0]
    ratios = np.array([width / flow.shape[1], height / flow.shape[0]], np.float32)
    way = cv2.INTER_AREA if reduces else cv2.INTER_LINEAR
    return cv2.resize(flow, (width, height), interpolation=way) * ratios

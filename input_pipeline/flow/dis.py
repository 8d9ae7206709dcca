"""Optical flow by dense inverse search, through OpenCV, on the CPU."""

import math

import cv2
import numpy as np

from dattt_jax.errors import UserError
from input_pipeline.flow.stabilize import stabilized as without_camera

MIN_SIDE = 12
SAFE_HEIGHT = 32  # from here on, frames may be as wide as they like; less can be too flat, see `_is_too_flat`
_PATCH = 8  # pixels a side, of the preset
_LONGEST = 4  # times as long as the shorter one may the longer side be made


class DisFlow:
    """Dense inverse search (Kroeger et al., "Fast Optical Flow using Dense Inverse Search", 2016).

    OpenCV's preset "medium". Carrying on to the finest scale costs four times as much and is not
    better: further from RAFT's flow on real frames, and it separates moving objects no better.

    Args:
        stabilized: take the camera's motion out, see `stabilize.stabilized`.
        side: shorter side, pixels, of the frames that flow is estimated from, which are enlarged or reduced
            to it (the longer one to at most four times as much); 0: as they come.
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
            UserError: a side of the frames is below 12 pixels, or far shorter than the other.
        """
        size = f"{image0.shape[1]}x{image0.shape[0]} (width x height)"
        if min(image0.shape[:2]) < MIN_SIDE:
            raise UserError(f"frames of {size} are too small for flow 'dis'; it needs {MIN_SIDE} pixels on "
                            "both sides")
        grays = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (image0, image1)]
        scale = self._scale(*grays[0].shape)
        if scale != 1:
            grays = [_resized(gray, scale) for gray in grays]
        if _is_too_flat(*grays[0].shape):
            raise UserError(f"frames of {size} are too narrow for flow 'dis': crop them, or name another "
                            "config.flow.method")
        # A new object each time: OpenCV's own changes its settings for good when it meets a frame
        # that is small, so results would depend on what was computed before.
        flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(*grays, None)
        if self._stabilized:
            flow = without_camera(flow, parallax=self._parallax)
        return flow if scale == 1 else _flow_of_size(flow, image0.shape[:2])

    def _scale(self, height: int, width: int) -> float:
        if not self._side:
            return 1.0
        shorter, longer = sorted((height, width))
        scale = min(self._side / shorter, _LONGEST * self._side / longer)
        return max(scale, min(1.0, SAFE_HEIGHT / shorter))


def _is_too_flat(height: int, width: int) -> bool:
    """Whether OpenCV, which halves a small frame as often as its width allows, leaves a patch too few rows.

    It reads beyond the frame then. Tried with heights from 12 and widths to 4,000 pixels.
    """
    return height < SAFE_HEIGHT and height >> max(0, int(math.log2(width / 20))) < _PATCH <= width / 5


def _resized(gray: np.ndarray, scale: float) -> np.ndarray:
    size = [max(MIN_SIDE, round(side * scale)) for side in gray.shape[::-1]]
    return cv2.resize(gray, size, interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)


def _flow_of_size(flow: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The same motion on frames of that (height, width)."""
    (height, width), reduces = size, size[0] < flow.shape[0]
    ratios = np.array([width / flow.shape[1], height / flow.shape[0]], np.float32)
    way = cv2.INTER_AREA if reduces else cv2.INTER_LINEAR
    return cv2.resize(flow, (width, height), interpolation=way) * ratios

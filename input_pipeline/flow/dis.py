"""Optical flow by dense inverse search, through OpenCV, on the CPU."""

import cv2
import numpy as np

from dattt_jax.errors import UserError
from input_pipeline.flow.stabilize import stabilized as without_camera

MIN_SIDE = 12


class DisFlow:
    """Dense inverse search (Kroeger et al., "Fast Optical Flow using Dense Inverse Search", 2016).

    OpenCV's preset "medium". Carrying on to the finest scale costs four times as much and is not
    better: further from RAFT's flow on real frames, and it separates moving objects no better.

    Args:
        stabilized: take the camera's motion out, see `stabilize.stabilized`.

    Attributes:
        identity: the preset, the version of OpenCV, and whether the flow is stabilized.
    """

    def __init__(self, stabilized: bool = False) -> None:
        self._stabilized = stabilized
        self.identity = (f"dis(preset=medium, opencv={cv2.__version__}"
                         f"{', stabilized=planar 8, 1' if stabilized else ''})")

    def __call__(self, image0: np.ndarray, image1: np.ndarray) -> np.ndarray:
        """Computes the motion from `image0` to `image1`; see `FlowMethod`.

        Raises:
            UserError: a side of the frames is below 12 pixels, or far shorter than the other.
        """
        size = f"{image0.shape[1]}x{image0.shape[0]} (width x height)"
        if min(image0.shape[:2]) < MIN_SIDE:
            raise UserError(f"frames of {size} are too small for flow 'dis'; it needs {MIN_SIDE} pixels on "
                            "both sides")
        # A new object each time: OpenCV's own changes its settings for good when it meets a frame
        # that is small, so results would depend on what was computed before.
        dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        gray0, gray1 = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (image0, image1))
        try:
            flow = dis.calc(gray0, gray1, None)
        except cv2.error as error:
            if error.code != cv2.Error.StsAssert:
                raise
            # Halved until the width is a few pixels, nothing is left of the height.
            raise UserError(f"frames of {size} are too narrow for flow 'dis': crop them, or name another "
                            "config.flow.method") from error
        return without_camera(flow) if self._stabilized else flow

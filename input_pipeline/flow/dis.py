"""Optical flow by dense inverse search, through OpenCV, on the CPU."""

import cv2
import numpy as np


class DisFlow:
    """Dense inverse search (Kroeger et al., "Fast Optical Flow using Dense Inverse Search", 2016)."""

    def __init__(self) -> None:
        self._dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def __call__(self, image0: np.ndarray, image1: np.ndarray) -> np.ndarray:
        """Computes the motion from `image0` to `image1`; see `FlowMethod`."""
        gray0, gray1 = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (image0, image1))
        return self._dis.calc(gray0, gray1, None)

"""A pinhole camera on a closed-form path, with the option to follow a moving point.

World axes: x right, y down, z forward. The camera starts near the origin and looks along z, the
first object is at depth 1. A plane of the scene then appears through a homography, which makes
flow and inverse depth exact and cheap.
"""

import dataclasses
from collections.abc import Callable

import cv2
import numpy as np


def inverse(matrix: np.ndarray) -> np.ndarray:
    """Returns the inverse of a float64 [3, 3] matrix; five times as fast as np.linalg.inv."""
    return cv2.invert(matrix)[1]


@dataclasses.dataclass(frozen=True)
class Camera:
    """A moving camera; every motion is relative to time `reference`.

    Attributes:
        focal: focal length, pixels.
        centre: principal point (x, y), pixels.
        reference: time at which the camera is at the origin looking along z, frames.
        pan: yaw and pitch rates, radians per frame.
        travel: velocity, world units per frame, [3].
        roll: radians per frame.
        zoom: relative growth of the focal length per frame.
        shake: amplitude of yaw and pitch shake, radians.
        shake_phase: its two phases, radians.
        target: position in the world [3] at a time, of what is followed; None follows nothing.
        gain: share of the target's apparent motion that is cancelled.
        travel_share: share of the target's way that the camera travels along; the rest is turned.
    """

    focal: float
    centre: tuple[float, float]
    reference: float
    pan: tuple[float, float]
    travel: np.ndarray
    roll: float
    zoom: float
    shake: float
    shake_phase: tuple[float, float]
    target: Callable[[float], np.ndarray] | None
    gain: float
    travel_share: float

    def view(self, time: float) -> tuple[np.ndarray, np.ndarray]:
        """Returns (matrix, position): a world point X is seen at pixel ~ matrix @ (X - position).

        The third homogeneous coordinate is the point's depth.
        """
        elapsed = time - self.reference
        position = self.travel * elapsed
        yaw, pitch = self.pan[0] * elapsed, self.pan[1] * elapsed
        if self.shake:
            yaw += self._shake(time, 0.13, self.shake_phase[0])
            pitch += self._shake(time, 0.17, self.shake_phase[1])
        if self.target is not None:
            start, now = self.target(self.reference), self.target(time)
            position = position + self.travel_share * self.gain * (now - start)
            seen = now - position
            yaw += self.gain * (np.arctan2(seen[0], seen[2]) - np.arctan2(start[0], start[2]))
            pitch += self.gain * (np.arctan2(seen[1], seen[2]) - np.arctan2(start[1], start[2]))
        focal = self.focal * np.exp(self.zoom * elapsed)
        intrinsics = np.array([[focal, 0, self.centre[0]], [0, focal, self.centre[1]], [0, 0, 1]])
        return intrinsics @ _rotation(yaw, pitch, self.roll * elapsed), position

    def _shake(self, time: float, frequency: float, phase: float) -> float:
        slow = np.sin(2 * np.pi * frequency * time + phase)
        fast = np.sin(2 * np.pi * 2.3 * frequency * time + 2 * phase)
        return self.shake * (slow + 0.4 * fast)


def _rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """World-to-camera rotation: turn right by yaw, then down by pitch, then roll."""
    cy, sy, cp, sp, cr, sr = (f(a) for a in (yaw, pitch, roll) for f in (np.cos, np.sin))
    turn = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
    nod = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    return np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]]) @ nod @ turn

"""What is printed on the frames of real video: black bars, a logo, a line of text.

They stand still in the image whatever the camera does, so that once the camera's motion is taken out of the
flow they seem to move the other way, and a network that trusts flow takes them for objects.
"""

import dataclasses

import cv2
import numpy as np

from input_pipeline.synthetic.config import SyntheticConfig

_LETTERS = np.array(list("ABCDEFGHIKLMNOPRSTUVWXYZabcdefghiklmnoprstuvwxyz0123456789:.- "))
_FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX,
          cv2.FONT_HERSHEY_TRIPLEX, cv2.FONT_HERSHEY_SCRIPT_SIMPLEX)


@dataclasses.dataclass(frozen=True)
class Graphics:
    """What lies over every frame of a clip.

    Attributes:
        colour: uint8 [H, W, 3] RGB.
        opacity: float32 [H, W] in 0..1.
    """

    colour: np.ndarray
    opacity: np.ndarray

    def over(self, image: np.ndarray) -> np.ndarray:
        """Returns `image`, uint8 [H, W, 3], with the graphics on it."""
        return cv2.blendLinear(self.colour, image, self.opacity, 1 - self.opacity)

    @property
    def hidden(self) -> np.ndarray:
        """Where nothing of the scene is seen: bool [H, W]."""
        return self.opacity == 1


def draw_graphics(config: SyntheticConfig, rng: np.random.Generator) -> Graphics | None:
    """Draws the graphics of one clip; None where there are none (`config.graphics_probability`)."""
    if rng.random() >= config.graphics_probability:
        return None
    height, width = config.size
    graphics = Graphics(np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.float32))
    bars, logo, text = rng.random(3) < (0.4, 0.5, 0.5)
    if logo or not (bars or text):
        _draw_logo(graphics, rng)
    if text:
        _draw_text(graphics, rng)
    if bars:
        _draw_bars(graphics, rng)
    return graphics


def _draw_bars(graphics: Graphics, rng: np.random.Generator) -> None:
    """Bars left and right, or above and below, sometimes of two sizes; black, or nearly."""
    axis = 1 if rng.random() < 0.5 else 0
    length = graphics.opacity.shape[axis]
    first, last = np.round(rng.uniform(0.01, 0.14) * length * rng.choice([1.0, 1.0, 0.4], 2)).astype(int)
    black = rng.integers(0, 20)
    for array, value in ((graphics.opacity, 1), (graphics.colour, black)):
        along = array.swapaxes(0, axis)  # a view
        along[:first] = along[length - last:] = value


def _draw_logo(graphics: Graphics, rng: np.random.Generator) -> None:
    """A frame, disc or box in one of the corners."""
    height, width = graphics.opacity.shape
    size = rng.uniform(0.03, 0.1, 2) * height * (1.5, 1.0)
    center = _corner(rng, height, width, size)
    low, high = (tuple(np.round(center + sign * size / 2).astype(int).tolist()) for sign in (-1, 1))
    thickness = -1 if rng.random() < 0.5 else max(1, round(height / 120))
    paint = tuple(rng.integers(0, 256, 3).tolist())
    stencil = np.zeros_like(graphics.opacity)
    if rng.random() < 0.5:
        cv2.rectangle(stencil, low, high, 1, thickness, cv2.LINE_AA)
    else:
        axes = tuple(np.maximum(size / 2, 1).round().astype(int).tolist())
        cv2.ellipse(stencil, tuple(center.round().astype(int).tolist()), axes, 0, 0, 360, 1, thickness)
    _lay(graphics, stencil, paint, rng.choice([0.5, 0.8, 1.0]))


def _draw_text(graphics: Graphics, rng: np.random.Generator) -> None:
    """A line of letters, white or of a light colour, along the upper or lower edge."""
    height, width = graphics.opacity.shape
    text = "".join(rng.choice(_LETTERS, rng.integers(3, 24)))
    font, scale = int(rng.choice(_FONTS)), height * rng.uniform(0.025, 0.06) / 22
    thickness = max(1, round(scale * rng.uniform(1, 3)))
    (across, down), _ = cv2.getTextSize(text, font, scale, thickness)
    center = _corner(rng, height, width, np.array([across, down]))
    start = (round(center[0] - across / 2), round(center[1] + down / 2))
    stencil = np.zeros_like(graphics.opacity)
    cv2.putText(stencil, text, start, font, scale, 1, thickness, cv2.LINE_AA)
    _lay(graphics, stencil, tuple(rng.integers(150, 256, 3).tolist()), rng.choice([0.6, 0.9, 1.0]))


def _corner(rng: np.random.Generator, height: int, width: int, size: np.ndarray) -> np.ndarray:
    """Centre (x, y) of a thing of `size` (x, y) near the frame's edges."""
    margin = rng.uniform(0.02, 0.08, 2) * height + size / 2
    across = rng.choice([margin[0], width - margin[0], width / 2], p=[0.4, 0.4, 0.2])
    return np.array([across, rng.choice([margin[1], height - margin[1]])])


def _lay(graphics: Graphics, stencil: np.ndarray, paint: tuple[int, ...], opacity: float) -> None:
    drawn = stencil > 0
    graphics.colour[drawn] = paint
    graphics.opacity[drawn] = np.maximum(graphics.opacity, np.float32(opacity) * stencil)[drawn]

"""The way from a clean rendering to a frame of real video: haze, defocus, exposure, print, noise, JPEG."""

import dataclasses
import functools

import cv2
import numpy as np

from input_pipeline.synthetic.config import SyntheticConfig
from input_pipeline.synthetic.graphics import Graphics, draw_graphics

_POOL = 1 << 20


@dataclasses.dataclass(frozen=True)
class Effects:
    """The camera's state in one clip.

    Attributes:
        shutter: exposure time in frames, 0 for a sharp instant.
        background_blur: defocus behind the first object, sigma in pixels.
        blur: defocus of the whole frame, sigma in pixels.
        haze: extinction per world unit of depth.
        airlight: colour of the haze, RGB 0..255, [3].
        exposure: exposure value at frame 0.
        exposure_change: exposure value per frame.
        gamma: exponent of the tone curve.
        cast: gain per channel, [3].
        noise: standard deviation, 0..255.
        jpeg_quality: 1..100, or None.
        graphics: what is printed on the frames, or None.
    """

    shutter: float
    background_blur: float
    blur: float
    haze: float
    airlight: np.ndarray
    exposure: float
    exposure_change: float
    gamma: float
    cast: np.ndarray
    noise: float
    jpeg_quality: int | None
    graphics: Graphics | None


def draw_effects(config: SyntheticConfig, rng: np.random.Generator) -> Effects:
    """Draws the camera's state of one clip."""
    height = config.size[0]
    blurred, compressed = rng.random(2) < (config.motion_blur_probability, config.jpeg_probability)
    shutter, quality = rng.uniform(*config.shutter), int(rng.integers(*config.jpeg_quality, endpoint=True))
    return Effects(
        shutter=shutter if blurred else 0.0,
        background_blur=height * rng.uniform(*config.background_defocus),
        blur=height * rng.uniform(*config.defocus),
        haze=rng.uniform(*config.haze),
        airlight=rng.uniform(150, 230) + rng.uniform(-12, 12, 3),
        exposure=rng.uniform(*config.exposure),
        exposure_change=rng.uniform(*config.exposure_change),
        gamma=rng.uniform(*config.gamma),
        cast=1 + rng.uniform(*config.colour_cast) * rng.uniform(-1, 1, 3),
        noise=rng.uniform(*config.noise_std),
        jpeg_quality=quality if compressed else None,
        graphics=draw_graphics(config, rng))


def apply_effects(effects: Effects, image: np.ndarray, inverse_depth: np.ndarray, frame: int,
                  rng: np.random.Generator) -> np.ndarray:
    """Returns the recorded frame uint8 [H, W, 3].

    Args:
        effects: the camera's state.
        image: uint8 [H, W, 3] RGB.
        inverse_depth: float32 [H, W], 1 / world units.
        frame: number of the frame, for what changes over time.
        rng: source of this frame's noise.
    """
    if effects.haze > 0:
        clear = np.exp(np.float32(-effects.haze) / np.maximum(inverse_depth, 1e-3))
        airlight = np.broadcast_to(effects.airlight.astype(np.uint8), image.shape)
        image = cv2.blendLinear(image, np.ascontiguousarray(airlight), clear, 1 - clear)
    if effects.blur > 0.2:  # less than that changes nothing
        image = cv2.GaussianBlur(image, (0, 0), effects.blur)
    recorded = cv2.LUT(image, _tone_curve(effects, frame))
    if effects.graphics is not None:
        recorded = effects.graphics.over(recorded)
    if effects.noise > 0:
        recorded = cv2.add(recorded, _noise(rng, recorded.shape) * np.float32(effects.noise),
                           dtype=cv2.CV_8U)
    if effects.jpeg_quality is not None:
        coded = cv2.imencode(".jpg", recorded, [cv2.IMWRITE_JPEG_QUALITY, effects.jpeg_quality])[1]
        recorded = cv2.imdecode(coded, cv2.IMREAD_COLOR)
    return recorded


def _tone_curve(effects: Effects, frame: int) -> np.ndarray:
    """Look-up table uint8 [1, 256, 3]."""
    gain = 2 ** (effects.exposure + effects.exposure_change * frame) * effects.cast
    level = np.clip(np.arange(256)[:, None] / 255 * gain, 0, 1) ** effects.gamma
    return np.round(255 * level).astype(np.uint8)[None]


@functools.lru_cache(maxsize=1)
def _noise_pool() -> np.ndarray:
    pool = np.random.default_rng(0x401E).standard_normal(_POOL, dtype=np.float32)
    return np.concatenate([pool, pool])  # a stretch may start anywhere in the first half


def _noise(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Unit Gaussian noise: a random stretch of a fixed pool, which is far cheaper than drawing."""
    count, start = int(np.prod(shape)), int(rng.integers(_POOL))
    stretch = _noise_pool()[start:start + min(count, _POOL)]
    return np.resize(stretch, shape) if count > _POOL else stretch.reshape(shape)

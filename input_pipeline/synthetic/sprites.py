"""Sprites: the painted RGBA images of body parts and of whole static things."""

import dataclasses

import cv2
import numpy as np

from input_pipeline.synthetic.bodies import Body, Part, pose_body
from input_pipeline.synthetic.camera import inverse
from input_pipeline.synthetic.outlines import roughened

_MARGIN = 2  # transparent texels around the shape
_LARGEST = 768  # side of a sprite, texels


@dataclasses.dataclass(frozen=True)
class Sprite:
    """An image on a plane.

    Attributes:
        image: uint8 [h, w, 4] RGBA; the colour goes on beyond the edge of the opaque shape, so
            that interpolation there mixes in nothing else.
        to_texel: float64 [3, 3] affine from the plane's coordinates to texel centres.
    """

    image: np.ndarray
    to_texel: np.ndarray

    def corners(self) -> tuple[float, float, float, float]:
        """Returns (left, top, right, bottom) of the image in the plane's coordinates."""
        height, width = self.image.shape[:2]
        density, offset_x, offset_y = self.to_texel[0, 0], self.to_texel[0, 2], self.to_texel[1, 2]
        return (-offset_x / density, -offset_y / density,
                (width - 1 - offset_x) / density, (height - 1 - offset_y) / density)


def _raster_frame(points: np.ndarray, density: float) -> tuple[float, np.ndarray, tuple[int, int]]:
    """Returns (density, low corner, (height, width)) of the raster that holds `points` [N, 2]."""
    low, high = points.min(0), points.max(0)
    density = min(density, (_LARGEST - 2 * _MARGIN - 1) / max(high - low))
    width, height = np.ceil((high - low) * density).astype(int) + 2 * _MARGIN + 1
    return density, low - _MARGIN / density, (int(height), int(width))


def _affine(density: float, low: np.ndarray) -> np.ndarray:
    return np.array([[density, 0, -density * low[0]], [0, density, -density * low[1]], [0, 0, 1]])


def _crop(rng: np.random.Generator, texture: np.ndarray, height: int, width: int) -> np.ndarray:
    """A random window of `texture`, which repeats where it is too small."""
    rows, columns = texture.shape[:2]
    row, column = int(rng.integers(rows)), int(rng.integers(columns))
    if height <= rows and width <= columns:
        row, column = min(row, rows - height), min(column, columns - width)
        return texture[row:row + height, column:column + width]
    return texture.take(range(row, row + height), 0, mode="wrap").take(
        range(column, column + width), 1, mode="wrap")


def paint_part(rng: np.random.Generator, part: Part, texture: np.ndarray, density: float,
               roughness: float) -> Sprite:
    """Paints one part.

    Args:
        rng: source of the texture's place and of the rough edge.
        part: the part; it has at least one contour.
        texture: uint8 [h, w, 4].
        density: texels per body unit.
        roughness: edge noise as a fraction of the part's thickness.
    """
    contours = part.contours
    if roughness > 0:
        thickness = min(float(np.ptp(contours[0], axis=0).min()), 0.5)
        contours = [roughened(rng, contour, roughness * thickness) for contour in contours]
    density, low, (height, width) = _raster_frame(contours[0], density)
    alpha = np.zeros((height, width), np.uint8)
    fixed_point = [np.round((contour - low) * density * 16).astype(np.int32)
                   for contour in contours]
    cv2.fillPoly(alpha, fixed_point, 255, cv2.LINE_AA, 4)
    # Darker towards the edge, as round things are under a diffuse light.
    depth = cv2.distanceTransform(alpha, cv2.DIST_L2, 3)
    light = part.shade * (0.65 + 0.35 * np.minimum(depth / (0.6 * depth.max() + 1e-6), 1))
    colour = _crop(rng, texture, height, width)
    image = cv2.blendLinear(colour, np.zeros_like(colour), light, 1 - light)
    image[..., 3] = alpha
    return Sprite(image, _affine(density, low))


def paint_body(rng: np.random.Generator, body: Body, textures: list[np.ndarray], density: float,
               roughness: float) -> list[Sprite | None]:
    """Paints every part of `body`; a bare joint gives None. See `paint_part`."""
    return [paint_part(rng, part, textures[part.material % len(textures)], density, roughness)
            if part.contours else None for part in body.parts]


def body_points(body: Body, cycles: float = 0.0) -> np.ndarray:
    """Returns the outlines of `body` posed at `cycles`, float64 [N, 2] in body units."""
    clouds = []
    for part, (position, rotation) in zip(body.parts, pose_body(body, cycles, 0.0, 1.0),
                                          strict=True):
        if part.contours:
            points = position + rotation * (part.contours[0] @ np.array([1, 1j]))
            clouds.append(np.stack([points.real, points.imag], 1))
    return np.concatenate(clouds)


def body_area(body: Body) -> float:
    """Returns the approximate silhouette area of `body`, body units squared."""
    # Parts overlap by about a fifth.
    return 0.8 * sum(cv2.contourArea(part.contours[0]) for part in body.parts if part.contours)


def part_affine(position: complex, rotation: complex) -> np.ndarray:
    """Returns the [3, 3] affine from a part's frame to the body's; see `pose_body`."""
    return np.array([[rotation.real, -rotation.imag, position.real],
                     [rotation.imag, rotation.real, position.imag], [0, 0, 1]])


def flatten_body(body: Body, sprites: list[Sprite | None], cycles: float,
                 density: float) -> Sprite:
    """Merges a painted body, frozen at `cycles`, into one sprite in the body's coordinates."""
    density, low, (height, width) = _raster_frame(body_points(body, cycles), density)
    to_texel = _affine(density, low)
    colour = np.zeros((height, width, 4), np.uint8)
    clear = np.ones((height, width), np.float32)
    frames = pose_body(body, cycles, 0.0, 1.0)
    for index in sorted(range(len(sprites)), key=lambda i: body.parts[i].layer):
        sprite = sprites[index]
        if sprite is None:
            continue
        matrix = to_texel @ part_affine(*frames[index]) @ inverse(sprite.to_texel)
        drawn = cv2.warpAffine(sprite.image, matrix[:2], (width, height))
        opacity = drawn[..., 3] * np.float32(1 / 255)
        # Over nothing yet, the colour is the part's own however thin the part is there.
        share = opacity / np.maximum(opacity + (1 - opacity) * (1 - clear), 1e-6)
        colour = cv2.blendLinear(colour, drawn, 1 - share, share)
        clear *= 1 - opacity
    beyond = cv2.dilate(colour, np.ones((3, 3), np.uint8))
    cv2.copyTo(beyond, (clear == 1).astype(np.uint8), colour)
    colour[..., 3] = np.round(255 * (1 - clear))
    return Sprite(colour, to_texel)

"""Painter's algorithm over the placements of a scene: colour, mask, inverse depth, exact flow."""

import dataclasses

import cv2
import numpy as np

from input_pipeline.synthetic.camera import inverse
from input_pipeline.synthetic.scene import Backdrop, Placement, Scene, Wave
from input_pipeline.synthetic.sprites import Sprite

_INVERSE_LINEAR = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP


@dataclasses.dataclass
class Rendering:
    """A rendered instant.

    Attributes:
        image: uint8 [H, W, 3] RGB, before any effect of the camera.
        mask: uint8 [H, W], 1 on visible primary objects; None without labels.
        inverse_depth: float32 [H, W], 1 / depth in world units; None without labels.
        flow: float32 [H, W, 2], (dx, dy) in pixels to the next time; None if not asked for.
    """

    image: np.ndarray
    mask: np.ndarray | None = None
    inverse_depth: np.ndarray | None = None
    flow: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class _Window:
    """A part of the pixel grid; linear forms over it."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.top, self.bottom), slice(self.left, self.right)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height), as OpenCV wants it."""
        return self.right - self.left, self.bottom - self.top

    def form(self, row: np.ndarray) -> np.ndarray:
        """Evaluates row @ (x, y, 1) at each pixel: float32 [h, w]."""
        x = row[0] * np.arange(self.left, self.right)
        y = row[1] * np.arange(self.top, self.bottom) + row[2]
        return np.add(x[None], y[:, None], dtype=np.float32, casting="same_kind")

    def warp(self, image: np.ndarray, from_pixel: np.ndarray, border: int) -> np.ndarray:
        """Samples `image` at from_pixel @ (x, y, 1) for each pixel of the window."""
        shift = np.array([[1, 0, self.left], [0, 1, self.top], [0, 0, 1.0]])
        return cv2.warpPerspective(image, from_pixel @ shift, self.size, flags=_INVERSE_LINEAR,
                                   borderMode=border)


def render(scene: Scene, time: float, *, labels: bool = True, next_time: float | None = None,
           background_blur: float = 0.0) -> Rendering:
    """Renders `scene` at `time`.

    Args:
        scene: the scene.
        time: frames; any real number.
        labels: whether to make mask and inverse depth too.
        next_time: time the flow leads to, frames; None leaves the flow out. Needs `labels`.
        background_blur: sigma of the defocus of what lies behind the first object, pixels.
    """
    height, width = scene.size
    frame = _Window(0, 0, width, height)
    # RGBA like the sprites, so that OpenCV blends whole pixels; alpha is meaningless here.
    result = Rendering(np.full((height, width, 4), 128, np.uint8))
    if labels:
        result.mask = np.zeros((height, width), np.uint8)
        result.inverse_depth = np.full((height, width), 1e-3, np.float32)
    following: dict[tuple[int, int], Placement] = {}
    if next_time is not None:
        result.flow = np.zeros((height, width, 2), np.float32)
        following = {placement.key: placement for placement in scene.place(next_time)}
    for placement in scene.place(time):
        if background_blur > 0.2 and placement.primary:  # less than that changes nothing
            result.image = cv2.GaussianBlur(result.image, (0, 0), background_blur)
            background_blur = 0.0
        after = following.get(placement.key)
        if isinstance(placement.surface, Backdrop):
            _draw_backdrop(result, frame, placement, after)
        else:
            _draw_sprite(result, frame, placement, after)
    result.image = cv2.cvtColor(result.image, cv2.COLOR_RGBA2RGB)
    return result


def _draw_backdrop(result: Rendering, frame: _Window, placement: Placement,
                   after: Placement | None) -> None:
    backdrop = placement.surface
    from_pixel = inverse(placement.to_image)
    frame = _backdrop_window(frame, backdrop, from_pixel)
    if frame is None:
        return
    inverse_depth = frame.form(from_pixel[2])
    image = result.image[frame.slices]
    colour = frame.warp(backdrop.texture, backdrop.to_texel @ from_pixel, cv2.BORDER_REFLECT)
    if backdrop.coarse is not None:
        far = frame.warp(backdrop.coarse, backdrop.to_texel @ from_pixel, cv2.BORDER_REFLECT)
        nearness = backdrop.coarse_depth * inverse_depth
        weight = np.clip(2 * nearness - 1, 0, 1)  # all coarse from twice that depth on
        colour = cv2.blendLinear(colour, far, weight, 1 - weight)
    alpha = _backdrop_alpha(frame, backdrop, from_pixel, inverse_depth)
    if alpha is None:
        image[:] = colour
    else:
        image[:] = cv2.blendLinear(colour, image, alpha, 1 - alpha)
    if result.mask is None:
        return
    flow = _plane_flow(frame, from_pixel, after) if result.flow is not None else None
    _own(result, frame, placement, None if alpha is None else alpha >= 0.5, inverse_depth, flow)


def _backdrop_window(frame: _Window, backdrop: Backdrop,
                     from_pixel: np.ndarray) -> _Window | None:
    """The rows of `frame` on the near side of the backdrop's bottom, or None if there are none."""
    if backdrop.bottom is None or backdrop.skyline is not None:
        return frame
    # v < bottom, times the positive inverse depth: a linear form, so the frame's sides bound it.
    row = from_pixel[1] - backdrop.bottom * from_pixel[2]
    sides = np.array([[frame.left, 1], [frame.right - 1, 1]]) @ row[[0, 2]]
    rows = np.arange(frame.top, frame.bottom)
    inside = np.flatnonzero(row[1] * rows + sides.min() < 0)
    if not inside.size:
        return None
    return _Window(frame.left, int(rows[inside[0]]), frame.right, int(rows[inside[-1]]) + 1)


def _backdrop_alpha(frame: _Window, backdrop: Backdrop, from_pixel: np.ndarray,
                    inverse_depth: np.ndarray) -> np.ndarray | None:
    """Coverage float32 [H, W] in 0..1 of a backdrop, or None where it covers everything."""
    if backdrop.skyline is None and backdrop.bottom is None and inverse_depth.min() > 1e-3:
        return None
    # In front of the camera where positive; the rest is beyond the horizon.
    depth = 1 / np.maximum(inverse_depth, 1e-3)
    v = frame.form(from_pixel[1]) * depth
    alpha = (inverse_depth > 1e-3).astype(np.float32)
    if backdrop.bottom is not None:
        alpha *= v < backdrop.bottom
    if backdrop.skyline is not None:
        u = frame.form(from_pixel[0]) * depth * backdrop.skyline_density
        skyline = backdrop.skyline.take(u.astype(np.int32), mode="wrap")
        # Half a pixel of softness: v grows by about depth / focal length per pixel.
        pixels = abs(from_pixel[1, 1]) * depth
        alpha *= np.clip((v - skyline) / pixels + 0.5, 0, 1)
    return alpha


def _draw_sprite(result: Rendering, frame: _Window, placement: Placement,
                 after: Placement | None) -> None:
    sprite, wave = placement.surface, placement.wave
    window = _sprite_window(frame, sprite, wave, placement.to_image)
    if window is None:
        return
    from_pixel = inverse(placement.to_image)
    on_plane = None
    if wave is None:
        rgba = window.warp(sprite.image, sprite.to_texel @ from_pixel, cv2.BORDER_CONSTANT)
    else:
        inverse_depth = window.form(from_pixel[2])
        x = window.form(from_pixel[0]) / inverse_depth
        y = window.form(from_pixel[1]) / inverse_depth - wave.offset(x)
        on_plane = (x, y)
        scale = sprite.to_texel
        rgba = cv2.remap(sprite.image, (scale[0, 0] * x + scale[0, 2]).astype(np.float32),
                         (scale[1, 1] * y + scale[1, 2]).astype(np.float32), cv2.INTER_LINEAR)
    opacity = rgba[..., 3] * np.float32(1 / 255)
    image = result.image[window.slices]
    image[:] = cv2.blendLinear(rgba, image, opacity, 1 - opacity)
    if placement.solid and result.mask is not None:
        flow = None
        if result.flow is not None:
            flow = (_plane_flow(window, from_pixel, after) if on_plane is None
                    else _wave_flow(window, on_plane, after))
        _own(result, window, placement, opacity >= 0.5, window.form(from_pixel[2]), flow)


def _sprite_window(frame: _Window, sprite: Sprite, wave: Wave | None,
                   to_image: np.ndarray) -> _Window | None:
    """The pixels that the sprite can touch, or None if there are none."""
    left, top, right, bottom = sprite.corners()
    if wave is not None:
        margin = abs(wave.slope) * max(abs(left - wave.start), abs(right - wave.start))
        top, bottom = top - margin, bottom + margin
    corners = to_image @ np.array([[left, right, right, left], [top, top, bottom, bottom],
                                   [1, 1, 1, 1]])
    if corners[2].min() < 0.05:  # at or behind the camera
        return None
    x, y = corners[:2] / corners[2]
    window = _Window(max(int(x.min()) - 1, frame.left), max(int(y.min()) - 1, frame.top),
                     min(int(x.max()) + 2, frame.right), min(int(y.max()) + 2, frame.bottom))
    return window if window.right > window.left and window.bottom > window.top else None


def _plane_flow(window: _Window, from_pixel: np.ndarray, after: Placement | None) -> np.ndarray:
    """Flow of the points of a plane, float32 [h, w, 2]."""
    if after is None:  # passed behind the camera
        return np.zeros((window.size[1], window.size[0], 2), np.float32)
    motion = after.to_image @ from_pixel
    motion = motion / motion[2, 2]
    # x' - x with the identity taken out first, for the sake of float32.
    depth = window.form(motion[2])
    columns = np.arange(window.left, window.right, dtype=np.float32)
    rows = np.arange(window.top, window.bottom, dtype=np.float32)[:, None]
    drift = motion - np.eye(3)
    away = window.form(drift[2])
    return np.stack([(window.form(drift[0]) - away * columns) / depth,
                     (window.form(drift[1]) - away * rows) / depth], -1)


def _wave_flow(window: _Window, on_plane: tuple[np.ndarray, np.ndarray],
               after: Placement) -> np.ndarray:
    """Flow of the points of a bending part, float32 [h, w, 2]."""
    x, y = on_plane
    y = y + after.wave.offset(x)
    rows = [a * x + b * y + c for a, b, c in after.to_image]
    columns = np.arange(window.left, window.right)
    return np.stack([rows[0] / rows[2] - columns,
                     rows[1] / rows[2] - np.arange(window.top, window.bottom)[:, None]],
                    -1).astype(np.float32)


def largest_motion(scene: Scene, start: float, end: float) -> float:
    """Returns how far any surface of `scene` moves in the image from `start` to `end`, pixels.

    Measured at the corners of sprites and, for backdrops, in the middle of the image.
    """
    height, width = scene.size
    after = {placement.key: placement.to_image for placement in scene.place(end)}
    most = 0.0
    for placement in scene.place(start):
        if placement.key not in after:
            continue
        if isinstance(placement.surface, Backdrop):
            middle = np.array([[width / 2], [height / 2], [1.0]])
            points = inverse(placement.to_image) @ middle
        else:
            left, top, right, bottom = placement.surface.corners()
            points = np.array([[left, right, right, left], [top, top, bottom, bottom],
                               [1, 1, 1, 1]])
        before, moved = placement.to_image @ points, after[placement.key] @ points
        if min(before[2].min(), moved[2].min()) > 0.05:
            way = before[:2] / before[2] - moved[:2] / moved[2]
            most = max(most, float(np.abs(way).max()))
    return most


def _own(result: Rendering, window: _Window, placement: Placement, where: np.ndarray | None,
         inverse_depth: np.ndarray, flow: np.ndarray | None) -> None:
    """Gives the pixels `where` (all if None) to the placement in mask, depth and flow."""
    where = True if where is None else where
    np.copyto(result.mask[window.slices], np.uint8(placement.primary), where=where)
    np.copyto(result.inverse_depth[window.slices], inverse_depth, where=where)
    if flow is not None:
        np.copyto(result.flow[window.slices], flow, where=where if where is True
                  else where[..., None])

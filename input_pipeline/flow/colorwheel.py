"""RGB rendering of optical flow: the Middlebury colour wheel.

Hue shows the direction of motion, saturation its speed, and no motion is white. Baker et al., "A
Database and Evaluation Methodology for Optical Flow" (ICCV 2007, IJCV 2011), define the wheel. As
in RAFT's visualisation, which the flow inputs of this field come from, each image is scaled by its
own largest speed, so absolute speed is not in the rendering.
"""

import numpy as np

# Hues between neighbouring primary and secondary colours, red to red. The wheel has more of them
# where the eye tells hues apart better.
_RAMPS = (
    ((255, 0, 0), (255, 255, 0), 15),  # red to yellow
    ((255, 255, 0), (0, 255, 0), 6),   # yellow to green
    ((0, 255, 0), (0, 255, 255), 4),   # green to cyan
    ((0, 255, 255), (0, 0, 255), 11),  # cyan to blue
    ((0, 0, 255), (255, 0, 255), 13),  # blue to magenta
    ((255, 0, 255), (255, 0, 0), 6),   # magenta to red
)


def _colorwheel() -> np.ndarray:
    """Builds the wheel: `[55, 3]` uint8 RGB, from pure red on."""
    ramps = []
    for start, end, count in _RAMPS:
        start, end = np.array(start), np.array(end)
        # Whole numbers: the step is rounded down before its sign is applied.
        step = 255 * np.arange(count)[:, None] // count
        ramps.append(start + np.sign(end - start) * step)
    return np.concatenate(ramps).astype(np.uint8)


COLORWHEEL = _colorwheel()


def flow_to_rgb(flow: np.ndarray) -> np.ndarray:
    """Renders optical flow as colours, scaled by the largest speed in this image.

    Motion to the right is red, down is yellow, left is cyan-blue, up is violet.

    Args:
        flow: `[H, W, 2]` float, (dx, dy) in pixels, y pointing down. A pixel with a value that is
            not finite is drawn as not moving.

    Returns:
        `[H, W, 3]` uint8 RGB; white where nothing moves.
    """
    # Channel by channel: NumPy is slow along a last axis of three.
    dx, dy = (np.ascontiguousarray(part, np.float32) for part in np.moveaxis(np.asarray(flow), -1, 0))
    finite = np.isfinite(dx) & np.isfinite(dy)
    dx, dy = np.where(finite, dx, np.float32(0)), np.where(finite, dy, np.float32(0))
    largest = np.hypot(dx, dy).max() + np.float32(1e-5)
    # Adding zero makes -0.0 positive, which is on the other side of the wheel's seam.
    dx, dy = dx / largest, dy / largest + np.float32(0)
    # Rounding may pass 1, and a colour below zero would wrap around.
    speed = np.minimum(np.sqrt(dx * dx + dy * dy), 1)

    # The direction as a place on the wheel, 0 to 54, from right over down, left and up.
    hues = len(COLORWHEEL)
    place = (np.arctan2(-dy, -dx) / np.float32(np.pi) + 1) / 2 * (hues - 1)
    lower = np.floor(place).astype(np.int32)
    upper, weight = (lower + 1) % hues, place - lower
    rendering = np.empty((*speed.shape, 3), np.uint8)
    for channel, wheel in enumerate(COLORWHEEL.T.astype(np.float32) / 255):
        color = (1 - weight) * wheel.take(lower) + weight * wheel.take(upper)
        rendering[..., channel] = 255 * (1 - speed * (1 - color))  # rounds down
    return rendering

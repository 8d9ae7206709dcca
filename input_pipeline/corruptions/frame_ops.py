"""Corruptions of single frames: pure functions of (frame, random generator, parameters).

A frame is float32 `[H, W, 3]` RGB in 0..255, and so is the result; the frame is not changed. Nothing is
rounded or clipped here unless the operator says so: that happens once, when frames become uint8 again.
All take the generator, also those that draw nothing, so that they can be called alike.

Sources: `gaussian_noise`, `box_blur` and `salt_pepper` follow the definitions of the Robust-VOS benchmark
(YouTube-VOS-P, arXiv 2207.00887); the others those of ImageNet-C (Hendrycks and Dietterich, ICLR 2019),
which DAVIS-C applies to video. ImageNet-C cuts values off to integers where these keep them.
"""

import cv2
import numpy as np
from PIL import Image


def identity(frame: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The frame itself, so that clean scores come out of the same code.

    Args:
        frame: float32 [H, W, 3], 0..255.
        rng: not used.

    Returns:
        `frame`.
    """
    return frame


def gaussian_noise(frame: np.ndarray, rng: np.random.Generator, sigma: float) -> np.ndarray:
    """Adds N(0, σ²), drawn for every pixel and channel; values may leave 0..255.

    Args:
        frame: float32 [H, W, 3], 0..255.
        rng: of the noise.
        sigma: standard deviation in grey levels (of 255).

    Returns:
        float32 [H, W, 3], not clipped.
    """
    return frame + np.float32(sigma) * rng.standard_normal(frame.shape, np.float32)


def box_blur(frame: np.ndarray, rng: np.random.Generator, kernel: int) -> np.ndarray:
    """Mean of kernel × kernel pixels, reflected at the border (without doubling its pixels).

    Robust-VOS calls it Gaussian blur; its variance is that of a Gaussian of σ = √((kernel² - 1) / 12).

    Args:
        frame: float32 [H, W, 3], 0..255.
        rng: not used.
        kernel: side in pixels, odd.

    Returns:
        float32 [H, W, 3].
    """
    return cv2.blur(frame, (kernel, kernel))


def salt_pepper(frame: np.ndarray, rng: np.random.Generator, points: int) -> np.ndarray:
    """Blackens and whitens pixels at random places, see `put_salt_pepper`.

    The number is absolute, whatever the size of the frame: 5000 points are 1.2% of 480 × 854.

    Args:
        frame: float32 [H, W, 3], 0..255.
        rng: of the places, with replacement; all rows are drawn before the columns.
        points: how many pixels are visited.

    Returns:
        float32 [H, W, 3].
    """
    height, width = frame.shape[:2]
    return put_salt_pepper(frame, rng.integers(0, height, points), rng.integers(0, width, points))


def put_salt_pepper(frame: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Visits pixels in order and makes them black, white, black, …; the last visit counts.

    Args:
        frame: float32 [H, W, 3], 0..255.
        rows: int [n], rows of the pixels.
        columns: int [n], their columns.

    Returns:
        float32 [H, W, 3], all channels of the visited pixels 0 or 255.
    """
    height, width = frame.shape[:2]
    places = rows * width + columns
    # NumPy does not promise which of several assignments to one place wins, so only the last is kept.
    places, from_end = np.unique(places[::-1], return_index=True)
    visit = len(rows) - 1 - from_end
    pixels = frame.reshape(height * width, 3).copy()
    pixels[places] = np.where(visit % 2, np.float32(255), np.float32(0))[:, None]
    return pixels.reshape(frame.shape)


def contrast(frame: np.ndarray, rng: np.random.Generator, factor: float) -> np.ndarray:
    """Pulls each channel towards its mean over the frame.

    Args:
        frame: float32 [H, W, 3], 0..255.
        rng: not used.
        factor: of the distance to the mean, 1 keeps the frame.

    Returns:
        float32 [H, W, 3].
    """
    means = frame.mean((0, 1), dtype=np.float64).astype(np.float32)
    return (frame - means) * np.float32(factor) + means


def brightness(frame: np.ndarray, rng: np.random.Generator, shift: float) -> np.ndarray:
    """Raises the value of HSV, at most to 1; hue and saturation stay.

    Args:
        frame: float32 [H, W, 3], 0..255.
        rng: not used.
        shift: of the value, where 1 is white.

    Returns:
        float32 [H, W, 3] in 0..255.
    """
    hsv = cv2.cvtColor(frame / np.float32(255), cv2.COLOR_RGB2HSV)
    hsv[..., 2] = np.clip(hsv[..., 2] + np.float32(shift), 0, 1)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * np.float32(255)


def saturate(frame: np.ndarray, rng: np.random.Generator, factor: float, shift: float) -> np.ndarray:
    """Scales and shifts the saturation of HSV within 0..1; hue and value stay.

    Grey has the hue of red, so that a shift reddens it, in ImageNet-C too.

    Args:
        frame: float32 [H, W, 3], 0..255.
        rng: not used.
        factor: of the saturation.
        shift: added to it afterwards.

    Returns:
        float32 [H, W, 3] in 0..255.
    """
    hsv = cv2.cvtColor(frame / np.float32(255), cv2.COLOR_RGB2HSV)
    hsv[..., 1] = np.clip(hsv[..., 1] * np.float32(factor) + np.float32(shift), 0, 1)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * np.float32(255)


def defocus_blur(frame: np.ndarray, rng: np.random.Generator, radius: int, smooth: float) -> np.ndarray:
    """Convolves with a disc, as a lens out of focus does; reflected at the border.

    As in ImageNet-C, softening discs that fill their grid (radius 8 and more) makes the frame 1% brighter.

    Args:
        frame: float32 [H, W, 3], 0..255.
        rng: not used.
        radius: of the disc in pixels.
        smooth: σ in pixels of the Gaussian that softens the rim of the disc.

    Returns:
        float32 [H, W, 3].
    """
    # The grid has no room for what the Gaussian moves beyond it, and OpenCV reflects the disc instead.
    side = np.arange(-max(radius, 8), max(radius, 8) + 1)
    disc = (side[:, None] ** 2 + side ** 2 <= radius ** 2).astype(np.float32)
    window = 3 if radius <= 8 else 5
    disc = cv2.GaussianBlur(disc / disc.sum(), (window, window), smooth)
    return cv2.filter2D(frame, -1, disc)


def glass_blur(frame: np.ndarray, rng: np.random.Generator, sigma: float, distance: int,
               iterations: int) -> np.ndarray:
    """Blurs, scatters pixels over small distances, and blurs again: a textured window.

    Args:
        frame: float32 [H, W, 3], 0..255.
        rng: of the scattering.
        sigma: of the two Gaussian blurs, in pixels.
        distance: a pixel comes from -distance..distance - 1 pixels away, in x and in y.
        iterations: how often pixels are scattered.

    Returns:
        float32 [H, W, 3].
    """
    height, width = frame.shape[:2]
    frame = _gaussian_blur(frame, sigma)
    for _ in range(iterations):
        frame = scatter(frame, rng.integers(-distance, distance, dtype=np.int32,
                                            size=(height - 2 * distance, width - 2 * distance, 2)))
    return _gaussian_blur(frame, sigma)


def scatter(frame: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Goes through the pixels from the last to the first; each becomes the pixel at its offset.

    An offset to a pixel that had its turn finds what that has become. The same as ImageNet-C's loop, which
    means to swap two pixels but copies one to the other (NumPy's views), without the loop.

    Args:
        frame: float32 [H, W, 3].
        offsets: int32 [H - 2d, W - 2d, 2], (x, y) in -d..d - 1 pixels; for the rows d + 1..H - d and columns
            d + 1..W - d. The others stay.

    Returns:
        float32 [H, W, 3].
    """
    height, width = frame.shape[:2]
    margin = (height - offsets.shape[0]) // 2
    inner = (slice(margin + 1, height - margin + 1), slice(margin + 1, width - margin + 1))
    index = np.arange(height * width, dtype=np.int32).reshape(height, width)
    target = index.copy()
    target[inner] += offsets[..., 1] * np.int32(width) + offsets[..., 0]
    # Later in the frame means earlier in turn. Pixels outside `inner` are targets of themselves.
    following = np.where(target > index, target, index).ravel()
    while True:  # twice as far along the chain each time, to its end
        further = following[following]
        if np.array_equal(further, following):
            break
        following = further
    return frame.reshape(-1, 3)[target.ravel()[following]].reshape(frame.shape)


def pixelate(frame: np.ndarray, rng: np.random.Generator, factor: float) -> np.ndarray:
    """Shrinks and enlarges again, both with Pillow's box filter.

    Args:
        frame: float32 [H, W, 3], 0..255.
        rng: not used.
        factor: the small size over the size; cut off to pixels.

    Returns:
        float32 [H, W, 3].
    """
    height, width = frame.shape[:2]
    small = int(width * factor), int(height * factor)
    channels = [Image.fromarray(np.ascontiguousarray(frame[..., i])) for i in range(3)]
    blocks = [channel.resize(small, Image.Resampling.BOX).resize((width, height), Image.Resampling.BOX)
              for channel in channels]
    return np.stack([np.asarray(block) for block in blocks], axis=-1)


def _gaussian_blur(frame: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian of σ pixels, cut off at 4 σ, the border repeated: skimage's and SciPy's choice."""
    window = 2 * int(4 * sigma + 0.5) + 1
    return cv2.GaussianBlur(frame, (window, window), sigma, borderType=cv2.BORDER_REPLICATE)

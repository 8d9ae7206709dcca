"""Single image files: frames and ground truth masks."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, ImageOps

from dattt_jax.errors import UserError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")

# Pillow turns a TIFF upright by itself, and looking for an orientation in a PNG decodes all of it.
_EXIF_FORMATS = ("JPEG", "MPO", "WEBP")
_ORIENTATION_TAG = 0x0112

# What Pillow raises for broken and for far too large files; SyntaxError is its word for a broken PNG or TIFF.
DAMAGED = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)

# Grey levels below this are object numbers, not brightness.
_MAX_OBJECTS = 32

T = TypeVar("T")


def size_text(size: tuple[int, ...]) -> str:
    """What people call an image of `size` (height, width, …): "854x480 (width x height)"."""
    return f"{size[1]}x{size[0]} (width x height)"


def read_image(path: Path | str) -> np.ndarray:
    """Reads an image file as RGB.

    Grey is repeated over the channels, a palette is looked up, transparent pixels are shown over
    black, 16-bit values keep their high byte (a 16-bit PPM is rounded), and a photograph is turned
    upright as its EXIF orientation says.

    Args:
        path: a file of one of `IMAGE_SUFFIXES`.

    Returns:
        `[H, W, 3]` uint8 RGB.

    Raises:
        UserError: the file is missing, damaged, or has no 8-bit or 16-bit pixels.
    """
    return _with_image(path, lambda image: image_to_rgb(_upright(image)))


def read_image_size(path: Path | str) -> tuple[int, int]:
    """Reads the (height, width) that `read_image` would give, from the header alone.

    Args:
        path: a file of one of `IMAGE_SUFFIXES`.

    Returns:
        (height, width) in pixels.

    Raises:
        UserError: the file is missing, or its header cannot be read.
    """
    def size(image: Image.Image) -> tuple[int, int]:
        width, height = image.size
        if image.format in _EXIF_FORMATS and image.getexif().get(_ORIENTATION_TAG, 1) >= 5:
            return width, height
        return height, width

    return _with_image(path, size)


def read_mask(path: Path | str) -> np.ndarray:
    """Reads a ground truth mask, all of its objects united.

    What counts as object depends on how the file stores it:
    - a palette or 1-bit file: every index but 0 (DAVIS; opened as grey, its first three objects
      are 38, 75 and 113, and no threshold on brightness finds them);
    - grey whose values all are below 32: every value but 0 (0/1 masks, object numbers);
    - other grey, also stored as RGB: brightness above 128 (16 bits with all values below 256 are 8 bits);
    - colours, one for each object: any channel from 64 on.
    Transparent pixels count as black.

    Args:
        path: a file of one of `IMAGE_SUFFIXES`.

    Returns:
        `[H, W]` bool, True on an object.

    Raises:
        UserError: the file is missing or damaged, or it is grey and its brightest pixel is neither
            an object number nor above 128, so that nobody can tell object from background.
    """
    def decode(image: Image.Image) -> np.ndarray:
        if image.mode in ("P", "1"):
            return np.asarray(image) != 0
        if image.mode.startswith("I") and np.min(image) >= 0 and np.max(image) <= 255:
            image = Image.fromarray(np.asarray(image).astype(np.uint8))  # all is in the low byte
        rgb = image_to_rgb(image)
        gray = rgb[..., 0]
        if (rgb != gray[..., None]).any():
            return (rgb >= 64).any(axis=-1)
        brightest = gray.max()
        if brightest < _MAX_OBJECTS:
            return gray != 0
        if brightest <= 128:
            raise UserError(f"{path}: a grey mask whose brightest value is {brightest} is neither "
                            "0/255 nor numbers of objects; save it as 0/255 or with its palette")
        return gray > 128

    return _with_image(path, decode)


def image_to_rgb(image: Image.Image) -> np.ndarray:
    """Converts a Pillow image of any mode to RGB, by the rules of `read_image`.

    Args:
        image: the image.

    Returns:
        `[H, W, 3]` uint8 RGB.

    Raises:
        ValueError: the pixels are neither 8-bit nor 16-bit.
    """
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise ValueError("more than 16 bits a pixel")
        return np.repeat((values >> 8).astype(np.uint8)[..., None], 3, axis=-1)
    if image.mode == "F":
        raise ValueError("floating point pixels")
    if image.has_transparency_data:
        return over_black(np.asarray(image.convert("RGBA")))
    return np.array(image.convert("RGB"))


def over_black(rgba: np.ndarray) -> np.ndarray:
    """Shows a partly transparent image over black.

    Args:
        rgba: `[H, W, 4]` uint8, not premultiplied.

    Returns:
        `[H, W, 3]` uint8 RGB.
    """
    color, alpha = rgba[..., :3].astype(np.uint16), rgba[..., 3:].astype(np.uint16)
    return ((color * alpha + 127) // 255).astype(np.uint8)


def _upright(image: Image.Image) -> Image.Image:
    return ImageOps.exif_transpose(image) if image.format in _EXIF_FORMATS else image


def _with_image(path: Path | str, read: Callable[[Image.Image], T]) -> T:
    """Calls `read` on the opened image; what is wrong with the file becomes a UserError."""
    try:
        with Image.open(path) as image:
            return read(image)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except DAMAGED as error:
        raise UserError(f"{path}: cannot be read as an image ({error}); replace it") from error

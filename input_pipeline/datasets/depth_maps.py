"""Depth maps as files, and as prepared data stores them: 16 bits, relative, 0 where unknown."""

from pathlib import Path

import numpy as np
from PIL import Image

from dattt_jax.errors import UserError
from input_pipeline.images import DAMAGED, image_to_rgb

FULL = 65535  # the stored value of 1.0


def read_depth(path: Path) -> np.ndarray:
    """Reads the depth target of a frame.

    The scale of a target hardly matters (SILog forgives most of it, DATTT section 3.2), but its range
    does: the network's depth is a sigmoid. So everything becomes a fraction of 1:
    - 8-bit grey: value / 255, as in the authors' code;
    - 16-bit grey: value / 65535;
    - .npy of uint8 or uint16: like the image of these bits;
    - .npy of floats within [0, 1]: taken as they are, to 16 bits;
    - .npy of other floats, such as metres or disparities: divided by the map's own largest value.
    0 means unknown, and so do NaN and infinity: the loss leaves these pixels out.

    Args:
        path: a grey image (also stored as RGB) or a .npy array of shape [H, W], [H, W, 1] or [1, H, W].

    Returns:
        [H, W] uint16, 65535 times the depth in [0, 1].

    Raises:
        UserError: the file is missing or damaged, has colours, a negative value, or another shape.
    """
    values = _read_npy(path) if path.suffix.lower() == ".npy" else _read_image(path)
    if values.dtype == np.uint8:
        return values.astype(np.uint16) * 257  # 255 · 257 = 65535
    if values.dtype == np.uint16:
        return values
    values = np.where(np.isfinite(values), values, 0)
    if values.min() < 0:
        raise UserError(f"{path}: a depth map with negative values (down to {values.min():.4g}); "
                        "give depth or disparity, 0 where it is unknown")
    return np.rint(values / max(values.max(), 1.0) * FULL).astype(np.uint16)


def _read_npy(path: Path) -> np.ndarray:
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: cannot be read as a .npy array ({error}); replace it") from error
    shape = values.shape
    if values.ndim == 3 and 1 in (shape[0], shape[-1]):
        values = values.squeeze(0 if shape[0] == 1 else -1)
    if values.ndim != 2 or not values.size:
        raise UserError(f"{path}: a depth map of shape {shape}; give [H, W]")
    if values.dtype in (np.uint8, np.uint16):
        return values
    if values.dtype.kind != "f":
        raise UserError(f"{path}: a depth map of type {values.dtype}; give uint8, uint16 or float")
    return values.astype(np.float64)


def _read_image(path: Path) -> np.ndarray:
    """[H, W] uint8 or uint16."""
    try:
        with Image.open(path) as image:
            if image.mode.startswith("I"):
                return np.asarray(image).astype(np.uint16)
            rgb = image_to_rgb(image)
    except DAMAGED as error:
        raise UserError(f"{path}: cannot be read as a depth map ({error}); replace it") from error
    if (rgb != rgb[..., :1]).any():
        raise UserError(f"{path}: a depth map in colours; give the values as grey, or as .npy")
    return rgb[..., 0]

"""Ground truth in a data set's own colour convention."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dattt_jax.errors import UserError
from input_pipeline.images import read_image, read_mask


def decode_masks(paths: Sequence[Path], dataset: str = "") -> np.ndarray:
    """Reads the masks of one frame and unites their objects by logical OR.

    Args:
        paths: mask files of one frame, at least one.
        dataset: name in `DATASETS`, or ''; where it has no convention of its own (`own_convention`), files
            are read by the rules of `read_mask`.

    Returns:
        bool [H, W], True on an object.

    Raises:
        UserError: a file is missing or damaged, or they differ in size.
    """
    union = _read(paths[0], dataset)
    for path in paths[1:]:
        mask = _read(path, dataset)
        if mask.shape != union.shape:
            raise UserError(f"{path} is {mask.shape[1]}x{mask.shape[0]} (width x height), {paths[0]} of the "
                            f"same frame {union.shape[1]}x{union.shape[0]}")
        union = union | mask
    return union


def own_convention(path: Path, dataset: str) -> np.ndarray | None:
    """Reads a mask that the rules for all files would read wrongly.

    FBMS-59: in colour files (`.ppm`, one colour for each object) white is the background; the `.pgm` files
    of the older BMS-26 videos have a grey level for each object and 0 for the background.

    Args:
        path: a mask file.
        dataset: name in `DATASETS`, or ''.

    Returns:
        bool [H, W], or None if the file follows the rules of `read_mask`.

    Raises:
        UserError: the file is missing or damaged.
    """
    suffix = path.suffix.lower()
    if dataset != "fbms" or suffix not in (".ppm", ".pgm"):
        return None
    image = read_image(path)
    return (image < 255).any(axis=-1) if suffix == ".ppm" else image[..., 0] > 0


def _read(path: Path, dataset: str) -> np.ndarray:
    mask = own_convention(path, dataset)
    return read_mask(path) if mask is None else mask

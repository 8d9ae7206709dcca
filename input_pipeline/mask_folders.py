"""Folders of masks, ours or anyone's: which file is which frame of which video, and its pixels.

Two layouts, told apart file by file: `<root>/<video>/<frame>.png` and `<root>/<video>_<frame>.png`.
"""

import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from dattt_jax.errors import UserError
from input_pipeline.images import DAMAGED, IMAGE_SUFFIXES, image_to_rgb, read_mask

SUFFIXES = frozenset({*IMAGE_SUFFIXES, ".pbm"})
# The last number of the name is the frame and what stands before it the video, so that
# bird_of_paradise_00001 is frame 1 of bird_of_paradise.
_FLAT_NAME = re.compile(r"(?P<video>.+)[_-](?P<frame>\d+)\D*")
_LOSSY = (".jpg", ".jpeg", ".webp")
_MAX_OBJECTS = 32  # values below are object numbers in 16-bit files and in ground truth

FrameKey = int | str


@dataclasses.dataclass(frozen=True)
class MaskFolder:
    """The masks under one root.

    Attributes:
        root: The folder.
        videos: Files by video name, then by frame key (`frame_key`).
        flat: At least one file lies in the root itself (`<video>_<frame>.png`).
        problems: Files that were left out, one line for each.
    """

    root: Path
    videos: dict[str, dict[FrameKey, Path]]
    flat: bool
    problems: tuple[str, ...]


def frame_key(stem: str) -> FrameKey:
    """What a frame is paired by: its number, whatever the zero padding, else its name.

    Args:
        stem: File name without suffix.

    Returns:
        An int if the stem consists of digits only (`1` and `00001` are the same frame), else the
        stem itself.
    """
    return int(stem) if stem.isdecimal() else stem


def _locate(path: Path, root: Path) -> tuple[str, FrameKey] | None:
    """Video and frame key of a file, or None if the name of a flat file has no frame number."""
    if path.parent != root:
        return path.parent.name, frame_key(path.stem)
    match = _FLAT_NAME.fullmatch(path.stem)
    return (match["video"], int(match["frame"])) if match else None


def list_masks(root: str | Path) -> MaskFolder:
    """Finds the mask files under a folder.

    FBMS's `PROB` files, hidden files and files that are no images are passed over.

    Args:
        root: Folder with `<video>/<frame>.png` or `<video>_<frame>.png` (any of `SUFFIXES`).

    Returns:
        The files by video and frame.

    Raises:
        UserError: The folder does not exist or holds no masks in either layout.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"{root}: no such folder")
    files = [path for pattern in ("*", "*/*") for path in sorted(root.glob(pattern))
             if path.suffix.lower() in SUFFIXES and path.is_file()
             and not path.name.startswith(".") and "PROB" not in path.stem]
    videos: dict[str, dict[FrameKey, Path]] = {}
    problems = []
    for path in files:
        place = _locate(path, root)
        if place is None:
            problems.append(f"{path}: the name is not <video>_<frame>, and it is in no video's "
                            "folder")
            continue
        frames = videos.setdefault(place[0], {})
        if place[1] in frames:
            problems.append(f"{path}: the same frame as {frames[place[1]]}, which is used")
        else:
            frames[place[1]] = path
    if not videos:
        deeper = next((path.parent.parent for path in sorted(root.glob("*/*/*"))
                       if path.suffix.lower() in SUFFIXES), None)
        hint = f"did you mean {deeper}?" if deeper else "masks of a single clip go into a folder of its name"
        raise UserError(f"{root}: holds no masks named <video>/<frame>.png or <video>_<frame>.png; {hint}")
    flat = any(path.parent == root for frames in videos.values() for path in frames.values())
    return MaskFolder(root, videos, flat, tuple(problems))


def read_mask_file(path: Path) -> tuple[np.ndarray, bool]:
    """Reads a mask file as it is stored, so that a protocol can decide what counts as object.

    Args:
        path: An image file.

    Returns:
        The image and whether it holds object numbers (a palette file, or 16 bits with values below
        32). The image is `[H, W]` uint8 numbers, `[H, W]` uint8 grey levels, `[H, W]` bool (1 bit),
        `[H, W, 3]` uint8 RGB (transparent pixels over black), or `[H, W]` float32 0..1 (16 bits:
        the value over 65535).

    Raises:
        UserError: The file cannot be read as an image.
    """
    try:
        with Image.open(path) as image:
            if image.mode == "P":
                return np.array(image), True
            if image.mode.startswith("I"):
                values = np.array(image)
                if values.max(initial=0) < _MAX_OBJECTS:
                    return values.astype(np.uint8), True
                return values.astype(np.float32) / np.float32(65535), False
            if image.mode in ("L", "1"):
                return np.array(image), False
            return image_to_rgb(image), False
    except DAMAGED as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{path}: cannot be read as an image ({reason})") from error


def read_target_file(path: Path) -> tuple[np.ndarray, bool]:
    """Reads a ground truth mask as `read_mask_file`, with two exceptions.

    A lossy file (JPEG, WebP) has levels around 0 and 255 that nobody drew: it becomes bool, as
    `images.read_mask` decodes it. And 16 bits with all values below 256 are 8 bits.

    Raises:
        UserError: as `read_mask_file` and `read_mask`.
    """
    if path.suffix.lower() in _LOSSY:
        return read_mask(path), False
    image, is_palette = read_mask_file(path)
    if image.dtype == np.float32 and image.max() <= 255 / 65535:
        return np.rint(image * 65535).astype(np.uint8), is_palette
    return image, is_palette


def holds_numbers(paths: Iterable[Path], highest: int) -> bool:
    """Whether 8-bit files without a palette hold object numbers instead of grey levels.

    One file cannot tell: a soft map that is dark all over may have 1 as its highest level. So all
    files of a folder are asked, up to the first with a higher level: one or a few where masks are 0
    and 255, every file where they are numbers.

    Args:
        paths: Mask files. Files with a palette and files that cannot be read say nothing.
        highest: Largest value that can be a number.

    Returns:
        True if no value above `highest` occurs.
    """
    for path in paths:
        try:
            image, is_palette = read_mask_file(path)
        except UserError:
            continue
        if not is_palette and (image.dtype != np.uint8 or image.max(initial=0) > highest):
            return False
    return True

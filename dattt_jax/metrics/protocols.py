"""The field's evaluation protocols as data, and the functions that read them.

Most failures to reproduce a number are protocol mismatches, so every choice has a name here. The
table and its sources: the tools of DAVIS-2016, DATTT (CVPR 2024), MTNet, TMO and the usual practice
on YouTube-Objects. Where those are silent the choices are: the prediction is thresholded the
same way everywhere; a missing prediction counts as 0; palette files hold object numbers, so any
number but 0 is object in every protocol; colour is turned to grey as Pillow does.
"""

import dataclasses
import re
from collections.abc import Iterable

import cv2
import numpy as np

from dattt_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How a folder of predictions is scored.

    Attributes:
        name: Key in `PROTOCOLS`.
        drop_first: Leave out the first annotated frame of every video.
        drop_last: Leave out the last annotated frame of every video.
        drop_empty_target: Leave out frames whose ground truth has no object.
        target_above: Ground truth is object above this grey level (0..255). 0: anything but
            black; 128: strictly above 128; 127: above 0.5 of 1, that is 127.5. Object numbers
            (palette files, files of 0 and 1) are object above 0 whatever this says, and lossy files come
            decoded (`mask_folders.read_target_file`).
        resolution: `native`: scored at the size of the ground truth, and a prediction of another
            size is a fault; `prediction`: ground truth is resized (nearest) to the prediction.
        threshold: Prediction is object where 255 · p > threshold, strictly.
        aggregation: `video`: mean over frames, then videos; `class`: then classes (10 in
            YouTube-Objects) instead of videos at once.
        missing: What a missing prediction counts as: `zero` (J = F = 0) or `skip` (not scored).
        metrics: Those that the protocol reports, of `J` and `F`.
    """

    name: str
    drop_first: bool = False
    drop_last: bool = False
    drop_empty_target: bool = False
    target_above: int = 0
    resolution: str = "native"
    threshold: int = 128
    aggregation: str = "video"
    missing: str = "zero"
    metrics: tuple[str, ...] = ("J", "F")


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol("davis16", drop_first=True, drop_last=True),
        Protocol("dattt", target_above=128),
        Protocol("all"),
        Protocol("mtnet-davis", drop_first=True),
        Protocol("mtnet-fbms", drop_first=True, drop_last=True, target_above=128,
                 resolution="prediction"),
        Protocol("mtnet-longvideos", drop_last=True),
        Protocol("tmo-fbms", drop_empty_target=True, target_above=127, metrics=("J",)),
        Protocol("youtube-objects", aggregation="class"),
    )
}


def get_protocol(name: str) -> Protocol:
    """The protocol called `name`.

    Args:
        name: A key of `PROTOCOLS`.

    Returns:
        The protocol.

    Raises:
        UserError: There is none of that name.
    """
    if name not in PROTOCOLS:
        raise UserError(f"unknown protocol '{name}'; choose one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def frame_order(name: str) -> tuple:
    """Sorting key that puts frame names in order of time: digits compare as numbers.

    Args:
        name: A frame name without suffix, for example `frame_12`.

    Returns:
        A key under which `frame_2` comes before `frame_12`, whatever the zero padding.
    """
    parts = re.split(r"(\d+)", name)
    return tuple(int(part) if part.isdecimal() else part for part in parts)


def kept_frames(protocol: Protocol, annotated_names: list[str]) -> list[str]:
    """The annotated frames of one video that the protocol scores.

    `drop_empty_target` needs the masks themselves: `scoring.summarize` sees to it.

    Args:
        protocol: The protocol.
        annotated_names: Names of all frames of the video that have ground truth, in any order.

    Returns:
        The names that are kept, in order of time.
    """
    names = sorted(annotated_names, key=frame_order)
    return names[int(protocol.drop_first): len(names) - int(protocol.drop_last)]


def grey_levels(image: np.ndarray) -> np.ndarray:
    """Grey levels 0..255 of any image.

    Args:
        image: `[H, W]` or `[H, W, 3]` (RGB); uint8 0..255, bool, or float 0..1. A fourth channel
            (alpha) is ignored.

    Returns:
        `[H, W]`: uint8, or for float images 255 times the image in its own type. Colour becomes
        grey by the ITU-R 601 weights in 16-bit fixed point, equal to Pillow's mode L.

    Raises:
        ValueError: The image is of another type.
    """
    if image.dtype == np.bool_:
        image = image.astype(np.uint8) * np.uint8(255)
    elif np.issubdtype(image.dtype, np.floating):
        image = image * 255
    elif image.dtype != np.uint8:
        raise ValueError(f"image must be uint8, bool or float, got {image.dtype}")
    if image.ndim == 2:
        return image
    if image.dtype != np.uint8:
        return image[..., :3] @ np.array([0.299, 0.587, 0.114], image.dtype)
    weighted = image[..., :3].astype(np.uint32) @ np.array([19595, 38470, 7471], np.uint32)
    return ((weighted + 0x8000) >> 16).astype(np.uint8)


def binarize(probability: np.ndarray, protocol: Protocol) -> np.ndarray:
    """Mask of a soft prediction: 255 · p > threshold, strictly.

    Args:
        probability: `[H, W]` or `[H, W, 3]`: float 0..1, or uint8 0..255 holding 255 · p; a bool
            mask stays as it is.
        protocol: The protocol.

    Returns:
        `[H, W]` bool.
    """
    return grey_levels(probability) > protocol.threshold


def decode_target(image: np.ndarray, is_palette: bool, protocol: Protocol) -> np.ndarray:
    """Ground-truth mask: the union of all objects.

    Args:
        image: `[H, W]` or `[H, W, 3]` uint8 (or float 0..1) grey levels or RGB; or object numbers.
        is_palette: `image` holds object numbers (the indices of a palette file), not grey levels.
            Opened as grey, objects 1, 2, 3 of DAVIS would be 38, 75, 113: all below 128.
        protocol: The protocol.

    Returns:
        `[H, W]` bool.
    """
    if is_palette or protocol.target_above == 0:  # a dark colour is grey level 0, yet an object
        return (image[..., :3] != 0).any(axis=-1) if image.ndim == 3 else image != 0
    return grey_levels(image) > protocol.target_above


def decode_union(files: Iterable[tuple[np.ndarray, bool]], protocol: Protocol) -> np.ndarray:
    """Ground-truth mask of a frame whose objects are in several files: their union.

    Args:
        files: (image, is_palette) of each file, as of `decode_target`; at least one, all of one size.
        protocol: The protocol.

    Returns:
        `[H, W]` bool.

    Raises:
        ValueError: The files differ in size.
    """
    masks = [decode_target(image, is_palette, protocol) for image, is_palette in files]
    if len({mask.shape for mask in masks}) > 1:
        raise ValueError("the masks of one frame differ in size: "
                         + ", ".join(f"{mask.shape[0]}x{mask.shape[1]}" for mask in masks))
    return np.logical_or.reduce(masks)


def fit_target(target: np.ndarray, size: tuple[int, int], protocol: Protocol) -> np.ndarray:
    """Brings ground truth to the size at which the protocol compares.

    Args:
        target: `[H, W]` bool.
        size: `(height, width)` of the prediction.
        protocol: The protocol.

    Returns:
        `[h, w]` bool of the prediction's size, nearest neighbour (half-pixel centres, as Pillow).

    Raises:
        ValueError: The sizes differ and the protocol compares at native size.
    """
    if target.shape == tuple(size):
        return target
    if protocol.resolution == "native":
        raise ValueError(f"prediction is {size[0]}x{size[1]}, ground truth "
                         f"{target.shape[0]}x{target.shape[1]} (height x width)")
    resized = cv2.resize(target.view(np.uint8), (size[1], size[0]),
                         interpolation=cv2.INTER_NEAREST_EXACT)
    return resized.view(np.bool_)

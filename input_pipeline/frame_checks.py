"""What `--mode=doctor` finds out about one frame: everything is really decoded."""

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from dattt_jax.errors import UserError
from input_pipeline.datasets import VideoFiles, decode_masks
from input_pipeline.datasets.depth_maps import read_depth
from input_pipeline.flow.files import read_rendering
from input_pipeline.images import DAMAGED, read_image, read_image_size, size_text

_UNREADABLE = "unreadable"
_ALMOST_ALL = 0.95  # share of a frame that no moving object covers

Problem = tuple[str, str]  # (finding, line): a key of `doctor.FINDINGS`, and what is wrong with which file


@dataclasses.dataclass(frozen=True)
class FrameCheck:
    """What is known of a frame.

    Attributes:
        name: of the frame.
        size: (height, width) in pixels, or None if it cannot be read.
        digest: of its decoded pixels, so that the same picture in another format is found.
        mask: how its masks are stored: palette, binary, grey levels, colours, unreadable; '' without any.
        has_flow: it has a flow rendering.
        has_depth: it has a depth map.
        problems: what is wrong.
    """

    name: str
    size: tuple[int, int] | None
    digest: bytes
    mask: str
    has_flow: bool
    has_depth: bool
    problems: tuple[Problem, ...]


def check_files(video: VideoFiles, name: str) -> FrameCheck:
    """Decodes all files of a frame.

    Args:
        video: the files.
        name: of the frame.
    """
    problems: list[Problem] = []
    image = _try(problems, "unreadable", lambda: read_image(video.frames[name]))
    size = None if image is None else image.shape[:2]
    paths = video.masks.get(name, ())
    kind = _check_mask(problems, paths, video.dataset, size) if paths else ""
    if name in video.flows:
        flow = _try(problems, "unreadable_flow", lambda: read_rendering(video.flows[name]))
        if flow is not None and size is not None and flow.shape[:2] != size:
            problems.append(("flow_size",
                             f"{video.flows[name]} is {size_text(flow.shape)}, its frame {size_text(size)}"))
    if name in video.depths:
        _try(problems, "unreadable_depth", lambda: read_depth(video.depths[name]))
    return FrameCheck(name, size, _digest(image), kind, name in video.flows, name in video.depths,
                      tuple(problems))


def _check_mask(problems: list[Problem], paths: tuple[Path, ...], dataset: str,
                size: tuple[int, int] | None) -> str:
    """Adds what is wrong with a frame's masks to `problems`; returns how they are stored."""
    for path in paths:
        found = _try(problems, "unreadable", lambda path=path: read_image_size(path))
        if found is None:
            return _UNREADABLE
        if size is not None and found != size:
            problems.append(("mask_size", f"{path} is {size_text(found)}, its frame {size_text(size)}"))
            return mask_kind(path)
    mask = _try(problems, "unreadable", lambda: decode_masks(paths, dataset))
    if mask is None:
        return _UNREADABLE
    problems.extend(mask_problems(mask, str(paths[0])))
    return mask_kind(paths[0])


def mask_problems(mask: np.ndarray, name: str) -> list[Problem]:
    """Findings about a decoded mask, bool [H, W], called `name`."""
    if not mask.any():
        return [("empty_masks", name)]
    share = float(mask.mean())
    return [("full_masks", f"{name} ({100 * share:.0f} % of the frame)")] if share > _ALMOST_ALL else []


def mask_kind(path: Path) -> str:
    """How a mask file stores its objects: palette, binary, grey levels or colours."""
    try:
        with Image.open(path) as image:
            if image.mode == "P":
                return "palette"
            values = np.asarray(image)
    except DAMAGED:
        return _UNREADABLE
    if values.ndim == 3 and (values[..., :3] != values[..., :1]).any():
        return "colours"
    plane = values if values.ndim == 2 else values[..., 0]
    levels = np.count_nonzero(np.bincount(plane.ravel().astype(np.int64)))
    return "binary" if levels <= 2 else "grey levels"


class DecodedFrame(Protocol):
    """A frame whose parts are decoded by methods, None where there is none; they may raise a UserError."""

    def image(self) -> np.ndarray: ...  # noqa: D102
    def mask(self) -> np.ndarray | None: ...  # noqa: D102
    def flow(self) -> np.ndarray | None: ...  # noqa: D102
    def depth(self) -> np.ndarray | None: ...  # noqa: D102


def check_decoded(name: str, frame: DecodedFrame) -> FrameCheck:
    """Decodes the parts of a prepared frame.

    Args:
        name: of the frame.
        frame: for example a `PreparedFrame`.
    """
    problems: list[Problem] = []
    picture = _try(problems, "unreadable", frame.image)
    size = None if picture is None else picture.shape[:2]
    union = _try(problems, "unreadable", frame.mask)
    if union is not None:
        problems.extend(mask_problems(union, name))
    has_flow = _try(problems, "unreadable_flow", frame.flow) is not None
    has_depth = _try(problems, "unreadable_depth", frame.depth) is not None
    return FrameCheck(name, size, _digest(picture), "" if union is None else "binary", has_flow, has_depth,
                      tuple(problems))


def _try(problems: list[Problem], finding: str, read: Callable[[], object]) -> object:
    """The result, or None and a problem."""
    try:
        return read()
    except UserError as error:
        problems.append((finding, str(error)))
        return None


def _digest(image: np.ndarray | None) -> bytes:
    return b"" if image is None else hashlib.blake2b(
        str(image.shape).encode() + image.tobytes(), digest_size=16).digest()

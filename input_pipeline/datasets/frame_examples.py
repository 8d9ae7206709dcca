"""From the files of a video to the examples of prepared data."""

import functools
from pathlib import Path
from typing import Any

import numpy as np

from dattt_jax.errors import UserError
from input_pipeline.datasets.depth_maps import read_depth
from input_pipeline.datasets.masks import decode_masks
from input_pipeline.datasets.video_files import VideoFiles
from input_pipeline.depth.cache import DepthCache
from input_pipeline.flow.cache import FlowCache
from input_pipeline.flow.files import read_rendering
from input_pipeline.image_cache import encode_png
from input_pipeline.images import read_image, read_image_size, size_text

# How the files begin.
_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_AS_THEY_ARE = (_JPEG, _PNG)


class FrameExamples:
    """Makes the examples of one video (see `builder.FEATURES`); for one thread.

    A frame that the data set has flow for gets that. All other flow is estimated: forward, to the next frame
    of the video. The last frame of N has no next one and follows the rule: "repeat" gives it what the frame
    before it has, "backward" the flow to the frame before it, "drop" nothing.

    Depth is a target of training, so it is estimated for annotated frames only, where the data set has none.

    Args:
        video: the files.
        flow: estimates flow that is missing.
        last_frame: "repeat", "backward" or "drop".
        depth: estimates depth that is missing; None leaves it out.
    """

    def __init__(self, video: VideoFiles, flow: FlowCache, last_frame: str, depth: DepthCache | None) -> None:
        self._video, self._flow_cache, self._last_frame = video, flow, last_frame
        self._depth_cache = depth
        self._names = list(video.frames)
        # A frame is read as the first and as the second of a pair, one after the other.
        self._content = functools.lru_cache(maxsize=3)(self._read_content)
        self._pixels = functools.lru_cache(maxsize=3)(self._read_pixels)

    @functools.cached_property
    def size(self) -> tuple[int, int]:
        """(height, width) of the video, that of its first frame."""
        return read_image_size(self._path(0))

    def make(self, index: int) -> dict[str, Any]:
        """Makes the example of a frame.

        Args:
            index: of the frame in its video, 0 and up; fastest in this order.

        Raises:
            UserError: a file is missing or damaged, or its size is not the video's.
        """
        name = self._names[index]
        self._check_frame(index, read_image_size(self._path(index)))
        return {"image": self._encoded(self._path(index), self._content(index)), "flow": self._flow(index),
                "mask": self._mask(name), "depth": self._depth(index), "video": self._video.name,
                "frame": name, "index": index}

    def _path(self, index: int) -> Path:
        return self._video.frames[self._names[index]]

    def _read_content(self, index: int) -> bytes:
        return _read(self._path(index))

    def _read_pixels(self, index: int) -> np.ndarray:
        pixels = read_image(self._path(index))
        self._check_frame(index, pixels.shape[:2])
        return pixels

    def _encoded(self, path: Path, content: bytes) -> bytes:
        return content if content.startswith(_AS_THEY_ARE) else encode_png(read_image(path))

    def _flow(self, index: int) -> bytes:
        if self._names[index] in self._video.flows:
            self._pixels(index)  # no estimation that would meet a damaged frame
            return self._given_flow(self._video.flows[self._names[index]])
        if index + 1 < len(self._names):
            return self._estimated_flow(index, index + 1)
        if self._last_frame == "drop":
            return b""
        if index == 0:
            raise UserError(f"{self._path(0)} is the only frame of video {self._video.name!r}: motion needs "
                            "two; remove the video or set config.flow.last_frame='drop'")
        if self._last_frame == "repeat":
            return self._flow(index - 1)
        return self._estimated_flow(index, index - 1)

    def _estimated_flow(self, index0: int, index1: int) -> bytes:
        def decode() -> tuple[np.ndarray, np.ndarray]:
            return self._pixels(index0), self._pixels(index1)

        return self._flow_cache.rendering(self._content(index0), self._content(index1), decode)

    def _given_flow(self, path: Path) -> bytes:
        rendering = read_rendering(path)
        self._check_size(path, rendering)
        content = _read(path)
        # A PNG of 16 bits (said by byte 24, in the header) is flow itself, which `read_rendering` rendered.
        is_flow = content.startswith(_PNG) and content[24] == 16
        return content if content.startswith(_AS_THEY_ARE) and not is_flow else encode_png(rendering)

    def _mask(self, name: str) -> bytes:
        paths = self._video.masks.get(name, ())
        if not paths:
            return b""
        union = decode_masks(paths, self._video.dataset)
        self._check_size(paths[0], union)
        return encode_png(np.where(union, np.uint8(255), np.uint8(0)))

    def _depth(self, index: int) -> bytes:
        """Of any size: it is resized on its own, and estimators rarely give the frame's."""
        name = self._names[index]
        if name in self._video.depths:
            return encode_png(read_depth(self._video.depths[name]))
        if self._depth_cache is None or not self._video.masks.get(name):
            return b""
        return self._depth_cache.target(self._content(index), lambda: self._pixels(index))

    def _check_frame(self, index: int, size: tuple[int, int]) -> None:
        if size != self.size:
            raise UserError(f"{self._path(index)} is {size_text(size)}, the video's first frame "
                            f"{size_text(self.size)}; all frames of a video need one size")

    def _check_size(self, path: Path, image: np.ndarray) -> None:
        if image.shape[:2] != self.size:
            raise UserError(f"{path} is {size_text(image.shape[:2])}, its frame {size_text(self.size)}; "
                            "masks and flow renderings need the size of their frame")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error

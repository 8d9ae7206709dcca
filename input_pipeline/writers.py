"""Files out: masks, probabilities, images, JSON and videos, each written whole or not at all."""

import contextlib
import errno
import glob
import io
import itertools
import json
import os
import uuid
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from PIL import Image

from dattt_jax.errors import UserError

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_CANNOT_WRITE = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.EROFS,
                 errno.ENAMETOOLONG, errno.EIO)
_SHOWN = 200  # bytes of a file's name in its temporary one, which must not be too long for the disk


def is_disk_full(error: BaseException) -> bool:
    """Tells whether an error of Python or FFmpeg says that no space is left.

    Args:
        error: the error.

    Returns:
        True where the disk or the quota is full.
    """
    return getattr(error, "errno", None) in _DISK_FULL


@contextlib.contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Gives a temporary path that becomes `path` when the block ends without an error.

    The temporary file is in the same folder (which is made), hidden, and removed on an error, so
    that `path` is either the old file or the new one and never a part of it.

    Args:
        path: the file to write.

    Yields:
        The path to write to.

    Raises:
        UserError: the disk is full, or the folder or the file cannot be made or written to.
    """
    path = Path(path)
    # Not by the process's number: hosts that share a folder may have the same ones.
    temporary = path.with_name(f".{_shown(path.name)}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if is_disk_full(error):
            raise UserError(f"{path}: the disk is full; make space and run again (files written "
                            "before this one are complete)") from error
        if isinstance(error, OSError) and error.errno in _CANNOT_WRITE:
            raise UserError(f"{path}: cannot be written ({error.strerror}); give another folder") from error
        raise


def remove_leftovers(folder: Path, *files: Path) -> None:
    """Removes the temporary files that a killed process left in a folder and beside files."""
    stale = [folder.glob(".*.tmp"),
             *(file.parent.glob(f".{glob.escape(_shown(file.name))}.*.tmp") for file in files)]
    for path in itertools.chain(*stale):
        path.unlink(missing_ok=True)


def _shown(name: str) -> str:
    return name.encode(errors="surrogateescape")[:_SHOWN].decode(errors="ignore")  # some are no UTF-8


def write_bytes(path: Path | str, content: bytes) -> None:
    """Writes a file atomically.

    Args:
        path: the file; its folder is made.
        content: what to write.

    Raises:
        UserError: the disk is full.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path | str, content: dict[str, Any]) -> None:
    """Writes a dictionary as indented JSON, atomically.

    Args:
        path: the file.
        content: the dictionary, of plain Python values.

    Raises:
        UserError: the disk is full.
        ValueError: there is a NaN or an infinity in it, which JSON does not know.
    """
    write_bytes(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def write_image(path: Path | str, image: np.ndarray) -> None:
    """Writes an image in the format of the file's suffix, atomically.

    Args:
        path: the file, for example `.png` or `.jpg`.
        image: `[H, W, 3]` uint8 RGB or `[H, W]` uint8 grey.

    Raises:
        UserError: the disk is full.
    """
    suffix = Path(path).suffix.lower()
    encoded = io.BytesIO()
    Image.fromarray(image).save(encoded, Image.registered_extensions()[suffix])
    write_bytes(path, encoded.getvalue())


def write_mask(path: Path | str, mask: np.ndarray) -> None:
    """Writes a mask as a one-channel PNG of 0 (background) and 255 (object), atomically.

    Args:
        path: the `.png` file.
        mask: `[H, W]` bool.

    Raises:
        UserError: the disk is full.
    """
    write_image(path, np.where(mask, np.uint8(255), np.uint8(0)))


def write_probability(path: Path | str, probability: np.ndarray) -> None:
    """Writes a probability map as a one-channel PNG of round(255 p), atomically.

    Args:
        path: the `.png` file.
        probability: `[H, W]` float in [0, 1].

    Raises:
        UserError: the disk is full.
    """
    write_image(path, np.rint(np.asarray(probability) * 255).astype(np.uint8))


class VideoWriter:
    """Writes frames to an H.264 mp4 that every player shows; use as a context manager.

    The file appears when the block ends without an error. The format needs even sides, so the last
    row or column of an odd frame is doubled. Colours are tagged BT.709, as players expect.

        with VideoWriter("overlay.mp4", fps=24, frame_size=(480, 854)) as writer:
            writer.write(frame)

    Raises:
        UserError: the disk is full.
    """

    def __init__(self, path: Path | str, fps: float, frame_size: tuple[int, int]) -> None:
        """Prepares the writer; nothing is written before the block is entered.

        Args:
            path: the `.mp4` file.
            fps: frames a second.
            frame_size: (height, width) in pixels.
        """
        self._path, self._frame_size = path, frame_size
        # Decimals such as 29.97 become the fraction they stand for, within what H.264 can store.
        self._rate = Fraction(fps).limit_denominator(1001)

    def __enter__(self) -> "VideoWriter":
        height, width = self._frame_size
        with contextlib.ExitStack() as stack:
            temporary = stack.enter_context(atomic_path(self._path))
            self._container = stack.enter_context(av.open(
                str(temporary), "w", format="mp4", options={"movflags": "faststart"}))
            stream = self._container.add_stream("libx264", rate=self._rate, options={"crf": "18"})
            stream.height, stream.width = height + height % 2, width + width % 2
            stream.pix_fmt = "yuv420p"
            context = stream.codec_context
            context.colorspace = context.color_primaries = context.color_trc = Colorspace.ITU709
            context.color_range = ColorRange.MPEG
            self._stream = stream
            stack.push(self._finish)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self._stack.__exit__(exc_type, exc, traceback)

    def write(self, frame: np.ndarray) -> None:
        """Appends a frame.

        Args:
            frame: `[H, W, 3]` uint8 RGB of the size given at the start.

        Raises:
            ValueError: the frame has another size.
        """
        if frame.shape != (*self._frame_size, 3):
            raise ValueError(f"frame of shape {frame.shape} in a video of {self._frame_size}")
        height, width = self._frame_size
        frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(
            format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)
        self._container.mux(self._stream.encode(picture))

    def _finish(self, exc_type: type[BaseException] | None, exc: BaseException | None,
                traceback: TracebackType | None) -> None:
        if exc_type is None:
            self._container.mux(self._stream.encode(None))

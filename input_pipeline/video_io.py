"""Videos in: a video file or a folder of frames, read in order and as often as wanted."""

import dataclasses
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
from av.sidedata.sidedata import Type as SideDataType
from PIL import Image, ImageSequence

from dattt_jax.errors import UserError
from input_pipeline.images import (
    IMAGE_SUFFIXES,
    image_to_rgb,
    over_black,
    read_image,
    read_image_size,
    size_text,
)

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".gif")
MIN_FRAME_SIDE = 32
_DEFAULT_FPS = 24.0
_DEFAULT_GIF_MS = 100  # what browsers show for a frame with no duration


@dataclasses.dataclass(frozen=True)
class Video:
    """A video whose frames can be read in order, as often as wanted.

    Iterating yields `[H, W, 3]` uint8 RGB frames and holds one of them at a time.

    Attributes:
        name: the file's stem or the folder's name.
        frame_names: one unique name a frame, in order: the stems of a folder's files, or the frame
            number with five digits or more, from 00000 on.
        fps: frames a second; the mean where it varies, 24 where it is unknown.
        frame_size: (height, width) in pixels, as shown: a phone's rotation is applied.
    """

    name: str
    frame_names: list[str]
    fps: float
    frame_size: tuple[int, int]
    _read: Callable[[], Iterator[np.ndarray]] = dataclasses.field(repr=False)

    def __len__(self) -> int:
        return len(self.frame_names)

    def __iter__(self) -> Iterator[np.ndarray]:
        return self._read()


def open_video(path: Path | str) -> Video:
    """Opens a video file or a folder of frames.

    A video file is decoded once here (without keeping its frames): no header tells the number of
    frames reliably, and a damaged file is told before hours of work, not after. Of a folder only
    the headers of the images are read. A folder's frames are in natural order (frame2 before
    frame10); files of other types and hidden files in it are ignored.

    Args:
        path: a file of one of `VIDEO_SUFFIXES`, or a folder with files of `IMAGE_SUFFIXES`.

    Returns:
        The video.

    Raises:
        UserError: the path is missing or of another type, there is no video stream or no frame, a
            file is damaged, frames differ in size, share a name, or have a side below 32 pixels.
            A damaged image in a folder is told when iterating reaches it.
    """
    path = Path(path)
    if path.is_dir():
        video = _open_folder(path)
    elif not path.exists():
        raise UserError(f"{path}: no such file or folder")
    elif path.suffix.lower() not in VIDEO_SUFFIXES:
        raise UserError(f"{path}: not a known type of video; use {' '.join(VIDEO_SUFFIXES)} or a "
                        "folder of frames")
    elif path.suffix.lower() == ".gif":
        video = _open_gif(path)
    else:
        video = _open_container(path)
    if min(video.frame_size) < MIN_FRAME_SIDE:
        raise UserError(f"{path}: frames of {size_text(video.frame_size)} are too small; both sides "
                        f"need at least {MIN_FRAME_SIDE} pixels")
    return video


def _open_folder(folder: Path) -> Video:
    """Opens a folder of frames, see `open_video`."""
    files = sorted((file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES
                    and not file.name.startswith(".")), key=natural_key)
    if not files:
        raise UserError(f"{folder}: no frames in this folder; it needs files of type "
                        f"{' '.join(IMAGE_SUFFIXES)}")
    first_of_stem: dict[str, Path] = {}
    for file in files:
        if file.stem in first_of_stem:
            raise UserError(f"{folder}: {first_of_stem[file.stem].name} and {file.name} share a "
                            "name; frames need names of their own, remove or rename one")
        first_of_stem[file.stem] = file
    frame_size = read_image_size(files[0])
    for file in files:
        _check_size(file, read_image_size(file), frame_size, files[0].name)

    def read() -> Iterator[np.ndarray]:
        for file in files:
            frame = read_image(file)
            _check_size(file, frame.shape[:2], frame_size, files[0].name)
            yield frame

    return Video(folder.resolve().name, list(first_of_stem), _DEFAULT_FPS, frame_size, read)


def _check_size(file: Path, size: tuple[int, int], expected: tuple[int, int], first: str) -> None:
    if size != expected:
        raise UserError(f"{file}: this frame is {size_text(size)} but {first} is {size_text(expected)}; "
                        "all frames of a video need one size")


def natural_key(file: Path) -> tuple[list[str | int], str]:
    """Orders runs of digits by their value; the name itself breaks ties such as 1 and 01."""
    pieces = re.split(r"(\d+)", file.stem.casefold())
    return [int(piece) if i % 2 else piece for i, piece in enumerate(pieces)], file.name


def _numbered(count: int) -> list[str]:
    digits = max(5, len(str(count - 1)))
    return [f"{index:0{digits}d}" for index in range(count)]


def _open_gif(path: Path) -> Video:
    """Opens an animated GIF, see `open_video`."""
    def images() -> Iterator[Image.Image]:
        count = 0
        try:
            with Image.open(path) as gif:
                for image in ImageSequence.Iterator(gif):
                    image.load()
                    yield image
                    count += 1
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            raise _decoding_failed(path, count, error) from error

    count, duration_ms, frame_size = 0, 0, (0, 0)
    for image in images():
        count += 1
        duration_ms += image.info.get("duration", 0) or _DEFAULT_GIF_MS
        frame_size = (image.height, image.width)

    def read() -> Iterator[np.ndarray]:
        return map(image_to_rgb, images())

    return Video(path.stem, _numbered(count), 1000 * count / duration_ms, frame_size, read)


def _open_container(path: Path) -> Video:
    """Opens a file through FFmpeg, see `open_video`."""
    frame_size, count = None, 0
    for frame in _decode(path):
        if frame_size is None:
            frame_size = _to_rgb(frame).shape[:2]
        count += 1
    if frame_size is None:
        raise UserError(f"{path}: there is no frame in this video")
    with av.open(str(path)) as container:
        stream = _video_stream(path, container)
        fps = float(stream.average_rate or stream.guessed_rate or _DEFAULT_FPS)

    def read() -> Iterator[np.ndarray]:
        return map(_to_rgb, _decode(path))

    return Video(path.stem, _numbered(count), fps, frame_size, read)


def _decode(path: Path) -> Iterator[av.VideoFrame]:
    """Decodes the video stream; a file that is damaged, cut off or changes size is refused."""
    count, first, packets, end = 0, None, 0, 0
    try:
        with av.open(str(path)) as container:
            stream = _video_stream(path, container)
            stream.thread_type = "AUTO"
            for packet in container.demux(stream):
                if packet.pts is not None:
                    packets += 1
                    end = max(end, packet.pts + (packet.duration or 0))
                for frame in packet.decode():
                    first = first or frame
                    if (frame.height, frame.width) != (first.height, first.width):
                        raise UserError(
                            f"{path}: the frame size changes at frame {count}; re-encode the video")
                    yield frame
                    count += 1
            promised = _promised_seconds(stream)
            if packets < stream.frames or (end * (stream.time_base or 0) < promised - 1):
                raise UserError(f"{path}: the file is cut off after {count} frames; get a complete "
                                "copy, or re-encode it to keep these frames")
    except av.FFmpegError as error:
        raise _decoding_failed(path, count, error) from error


def _promised_seconds(stream: av.VideoStream) -> float:
    """Returns where the stream ends by its header, or 0; Matroska has no number of frames."""
    match = re.fullmatch(r"(\d+):(\d+):([\d.]+)", stream.metadata.get("DURATION", ""))
    if match is None:
        return 0.0
    hours, minutes, seconds = map(float, match.groups())
    return 3600 * hours + 60 * minutes + seconds


def _video_stream(path: Path, container: av.container.InputContainer) -> av.VideoStream:
    for stream in container.streams.video:
        # The cover of an audio file is a video stream of one picture.
        if not stream.disposition & av.stream.Disposition.attached_pic:
            return stream
    raise UserError(f"{path}: there is no video stream in this file")


def _decoding_failed(path: Path, count: int, error: Exception) -> UserError:
    reason = getattr(error, "strerror", None) or error
    if count == 0:
        return UserError(f"{path}: cannot be read as a video ({reason}); is it complete?")
    return UserError(f"{path}: decoding failed at frame {count} ({reason}); re-encode the video")


def _to_rgb(frame: av.VideoFrame) -> np.ndarray:
    """Converts a decoded frame to upright `[H, W, 3]` uint8 RGB; transparency is over black."""
    if any(component.is_alpha for component in frame.format.components):
        image = over_black(frame.to_ndarray(format="rgba"))
    else:
        image = frame.to_ndarray(format="rgb24")
    matrix = frame.side_data.get(SideDataType.DISPLAYMATRIX)
    if matrix is None:
        return np.ascontiguousarray(image)
    # Phones store the picture as the sensor sees it and say how to show it: (x, y) of a pixel
    # becomes (a x + c y, b x + d y) in ISO 14496-12's matrix a b u c d v x y w. Turns by 90 degrees
    # and mirrors are all that occurs.
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5]
    if abs(b) > abs(a):
        image, a, d = image.swapaxes(0, 1), c, b
    return np.ascontiguousarray(image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])

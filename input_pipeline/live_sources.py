"""Frames as they come: from a camera, a pipe, or a folder in which files appear."""

import contextlib
import os
import re
import select
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from absl import logging

from dattt_jax.errors import UserError
from input_pipeline.images import IMAGE_SUFFIXES, read_image
from input_pipeline.video_io import natural_key

_POLL_S = 0.02  # how often a folder, a pipe and a stop are looked at
_SETTLE_S = 2.0  # a file that has not changed for so long and still cannot be decoded is damaged
_WARNINGS = 3  # of files that come too late; all others would be so, too
_PIPE_READ = 1 << 20  # bytes
_PPM_GAP = rb"(?:\s|#[^\n]*\n)+"  # white space and comments
_PPM_HEADER = re.compile(rb"\s*P6" + 3 * (_PPM_GAP + rb"(\d{1,6})") + rb"\s")
_PPM_LONGEST_HEADER = 1024  # bytes

Named = tuple[str, np.ndarray]
# (stopped) -> the frames; it ends soon after `stopped` is set.
Source = Callable[[threading.Event], Iterator[Named]]


def open_source(text: str) -> Source:
    """The source of frames that `config.live.source` names.

    Args:
        text: 'camera:N' (OpenCV's number of the camera); '-', or the path of a named pipe, with binary PPM
            images one after the other, as `ffmpeg … -f image2pipe -c:v ppm -` writes them; or a folder.

    Returns:
        A function that yields (name, uint8 [H, W, 3] RGB): names are numbers from 000000 on, or the stems of
        the folder's files.

    Raises:
        UserError: there is no such source, at once or when its frames are asked for.
    """
    if text.startswith("camera:"):
        number = text.removeprefix("camera:")
        if not number.isdecimal():
            raise UserError(f"config.live.source={text}: give the camera's number, as in camera:0")
        return lambda stopped: _camera(int(number), stopped)
    if text == "-":
        _check_open_standard_input()
        return lambda stopped: _piped("standard input", 0, stopped)
    path = Path(text)
    if text and path.is_dir():
        return lambda stopped: _growing_folder(path, stopped)
    if text and path.exists() and stat.S_ISFIFO(path.stat().st_mode):
        return lambda stopped: _named_pipe(path, stopped)
    raise UserError(f"config.live.source={text!r}: give camera:0, '-' (standard input), a named pipe or a "
                    "folder in which frames appear; video files are for --mode=segment")


def _check_open_standard_input() -> None:
    try:
        os.fstat(0)
    except OSError as error:
        raise UserError("config.live.source='-': standard input is closed; write frames to it, as in "
                        "`ffmpeg -i … -f image2pipe -c:v ppm - | python main.py …`") from error


def _camera(number: int, stopped: threading.Event) -> Iterator[Named]:
    capture = cv2.VideoCapture(min(number, 2**31 - 1))  # OpenCV takes no larger numbers
    try:
        if not capture.isOpened():
            raise UserError(f"config.live.source=camera:{number}: there is no such camera, or another "
                            "program has it")
        count = 0
        while not stopped.is_set():
            there, image = capture.read()
            if not there:
                return
            yield f"{count:06d}", cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
            count += 1
    finally:
        capture.release()


def _named_pipe(path: Path, stopped: threading.Event) -> Iterator[Named]:
    # Without O_NONBLOCK, opening would wait for a writer and notice no stop.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        yield from _piped(str(path), descriptor, stopped)
    finally:
        os.close(descriptor)


def _piped(name: str, descriptor: int, stopped: threading.Event) -> Iterator[Named]:
    """PPM images from a file descriptor; a last one that was cut off is left out, with a warning."""
    content, count = bytearray(), 0

    def more() -> bool:
        """Reads on; False at the end of the pipe or of the run."""
        while not stopped.is_set():
            if select.select([descriptor], [], [], _POLL_S)[0]:
                # Not sys.stdin: a thread that holds its lock keeps Python from ending.
                piece = os.read(descriptor, _PIPE_READ)
                content.extend(piece)
                return bool(piece)
        return False

    while True:
        header = _PPM_HEADER.match(content)
        while header is None and len(content) < _PPM_LONGEST_HEADER and more():
            header = _PPM_HEADER.match(content)
        if header is None:
            if content.strip() and not stopped.is_set():
                raise UserError(f"{name}: frame {count} is no whole binary PPM (P6) image; write them one "
                                "after the other, as in `ffmpeg -i … -f image2pipe -c:v ppm -`")
            return
        width, height, largest = map(int, header.groups())
        if largest != 255:
            raise UserError(f"{name}: frame {count} has values up to {largest}; give PPM with 8 bits (255)")
        start, end = header.end(), header.end() + 3 * width * height
        while len(content) < end:
            if not more():
                if not stopped.is_set():
                    logging.warning("%s: ends within frame %d, which is left out", name, count)
                return
        pixels = np.frombuffer(content[start:end], np.uint8)
        del content[:end]
        yield f"{count:06d}", pixels.reshape(height, width, 3)
        count += 1


def _growing_folder(folder: Path, stopped: threading.Event) -> Iterator[Named]:
    """Images of a folder in natural order, each when it is whole.

    A file is read when its size and time stay the same from one look to the next and all of it can be
    decoded. One that cannot holds up those after it, until it has not changed for two seconds: then it is
    left out with a warning. So is a file whose place in the order is before one that was read.
    """
    before: dict[Path, tuple[int, int]] = {}  # (size, time) at the last look of files still to be read
    done: set[str] = set()  # stems
    last = None
    while not stopped.is_set():
        now = _new_images(folder, done)
        for file, state in now.items():
            if file.stem in done:  # another type of the frame before
                continue
            if last is not None and natural_key(file) < last:
                logging.log_first_n(logging.WARNING, "%s: left out, it comes before %s by name, and that has "
                                    "been read", _WARNINGS, file, last[1])
                done.add(file.stem)
                continue
            if before.get(file) != state:
                break
            image = _whole_image(file)
            if image is None:
                if time.time_ns() - state[1] < _SETTLE_S * 1e9:
                    break
                logging.warning("%s: cannot be read as an image; it is left out", file)
            done.add(file.stem)
            if image is not None:
                last = natural_key(file)
                yield file.stem, image
        before = now
        stopped.wait(_POLL_S)


def _new_images(folder: Path, done: set[str]) -> dict[Path, tuple[int, int]]:
    """(size, time) of the images whose stem is not in `done`, in natural order."""
    found = {}
    try:
        for file in folder.iterdir():
            if (file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")
                    and file.stem not in done):
                with contextlib.suppress(FileNotFoundError):  # taken away again
                    about = file.stat()
                    found[file] = (about.st_size, about.st_mtime_ns)
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror})") from error
    return {file: found[file] for file in sorted(found, key=natural_key)}


def _whole_image(file: Path) -> np.ndarray | None:
    try:
        return read_image(file)
    except UserError:
        return None

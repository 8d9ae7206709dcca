"""Frames of a live source, read beside the work on them: the newest one, or every one."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

import numpy as np

from dattt_jax.errors import UserError
from input_pipeline.images import size_text
from input_pipeline.live_sources import Source
from input_pipeline.video_io import MIN_FRAME_SIDE

_POLL_S = 0.02  # how often a stop is looked at
_LEAVE_S = 2.0  # how long the reader of a camera may take to notice that it is to end


@dataclass(frozen=True)
class LiveFrame:
    """A frame that came.

    Attributes:
        name: unique in its source.
        image: uint8 [H, W, 3] RGB.
        arrived: when it was there, seconds of `time.monotonic`.
    """

    name: str
    image: np.ndarray
    arrived: float


class LiveFrames:
    """The frames of a source, read in a thread beside the work on them; iterate inside `with`.

    Args:
        source: see `open_source`.
        drop: a frame that comes while another still waits takes its place; else reading waits (a pipe's
            writer then, too, and a camera drops frames by itself).
        idle_s: seconds of waiting without a frame after which the stream has ended; 0 for never.
        stopped: asked while waiting; True ends the stream.

    Attributes:
        received: frames read so far.
        dropped: those that another took the place of.
        ended: why iteration ended; '' before.
        waited_s: seconds of waiting for a frame that did not come; 0 before the end.

    Raises:
        UserError: as the source does, while iterating; or frames differ in size.
    """

    def __init__(self, source: Source, *, drop: bool, idle_s: float, stopped: Callable[[], bool]) -> None:
        self._source, self._drop, self._idle_s, self._stopped = source, drop, idle_s, stopped
        self.received, self.dropped, self.ended, self.waited_s = 0, 0, "", 0.0
        self._waiting: LiveFrame | None = None
        self._size: tuple[int, ...] | None = None
        self._finished, self._error = False, None
        self._changed, self._leave = threading.Condition(), threading.Event()
        self._thread = threading.Thread(target=self._read, name="live source", daemon=True)

    def __enter__(self) -> "LiveFrames":
        self._thread.start()
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self._leave.set()
        self._thread.join(_LEAVE_S)

    def __iter__(self) -> "LiveFrames":
        return self

    def __next__(self) -> LiveFrame:
        since = time.monotonic()
        with self._changed:
            while not (self._over(since) or self._waiting):
                self._changed.wait(_POLL_S)
            if self.ended:
                self.waited_s = time.monotonic() - since
                raise StopIteration
            frame, self._waiting = self._waiting, None
            self._changed.notify_all()
        return frame

    def _over(self, since: float) -> bool:
        """Whether iteration ends, which has waited since then; notes why."""
        if self._stopped():
            self.ended = "stopped"
        elif self._waiting is None and self._finished:
            if self._error is not None:
                raise self._error
            self.ended = "the source ended"
        elif self._waiting is None and self._idle_s and time.monotonic() - since > self._idle_s:
            self.ended = f"no frame for {self._idle_s:g} s"
        return bool(self.ended)

    def _read(self) -> None:
        try:
            for name, image in self._source(self._leave):
                if not self._put(LiveFrame(name, image, time.monotonic())):
                    return
        except Exception as error:  # raised again where the frames are taken
            self._error = error
        finally:
            with self._changed:
                self._finished = True
                self._changed.notify_all()

    def _put(self, frame: LiveFrame) -> bool:
        """Hands a frame over; False when nobody takes frames any more."""
        self._size = self._size or frame.image.shape
        if min(self._size[:2]) < MIN_FRAME_SIDE:
            raise UserError(f"frames of {size_text(self._size)} are too small; both sides need at least "
                            f"{MIN_FRAME_SIDE} pixels")
        if frame.image.shape != self._size:
            raise UserError(f"frame {frame.name} is {size_text(frame.image.shape)}, and the first was "
                            f"{size_text(self._size)}: a stream needs one size")
        with self._changed:
            self.received += 1
            while self._waiting is not None and not self._drop:
                if self._leave.is_set():
                    return False
                self._changed.wait(_POLL_S)
            self.dropped += self._waiting is not None
            self._waiting = frame
            self._changed.notify_all()
        return not self._leave.is_set()

"""Scoring in background threads, while the network works on the next frames."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from dattt_jax.metrics.scoring import FrameScore


class FrameScorer:
    """Scores frames in background threads while the network works on the next ones.

    OpenCV, NumPy and Pillow let go of Python's lock, so threads are enough. Use as a context manager, or
    call `close`. At most `pending` frames wait at a time; `submit` blocks beyond that, so memory
    stays bounded when scoring is slower than the network.
    """

    def __init__(self, threads: int = 2, pending: int = 32) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="score")
        self._slots = threading.BoundedSemaphore(pending)
        self._futures: dict[str, dict[str, Future[FrameScore]]] = {}

    def __enter__(self) -> "FrameScorer":
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self.close()

    def submit(self, group: str, frame_name: str, score: Callable[[], FrameScore]) -> None:
        """Takes one frame.

        Args:
            group: What the frame belongs to, for example its video.
            frame_name: Name of the frame; a second submission of the same frame replaces the first.
            score: Reads the ground truth and scores the frame; called in another thread. What it
                holds must not be changed afterwards.
        """
        self._slots.acquire()
        future = self._pool.submit(score)
        future.add_done_callback(lambda _: self._slots.release())
        self._futures.setdefault(group, {})[frame_name] = future

    def result(self) -> dict[str, dict[str, FrameScore]]:
        """Waits for all frames taken so far.

        Returns:
            `{group: {frame: score}}` in the order of submission.

        Raises:
            Exception: What scoring a frame raised; here, not in `submit`.
        """
        return {group: {name: future.result() for name, future in frames.items()}
                for group, frames in self._futures.items()}

    def close(self) -> None:
        """Ends the threads; frames not yet begun are dropped."""
        self._pool.shutdown(cancel_futures=True)

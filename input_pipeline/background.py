"""Work beside the main thread: items made ahead of their use, and jobs done behind it.

NumPy, OpenCV, FFmpeg and zlib let go of Python's lock, so threads are enough to decode frames, estimate flow
and write PNG files while the network works. Both classes are bounded, keep the order, and raise what went
wrong in the main thread as the exception it was.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import jax
import numpy as np

Item = TypeVar("Item")

_MAX_BYTES = 128 * 2**20  # 50 pairs of frame and flow at 854×480, 10 at 1920×1080
_MAX_JOBS = 16


class Prefetcher(Generic[Item], Iterator[Item]):
    """The items of an iterable, made in a thread of their own ahead of the time they are asked for.

    Use as a context manager: the thread works from the start of the block, and has ended after it. What the
    iterable raises is raised where its item would have been.

    Args:
        items: an iterable of arrays or tuples of arrays; it is used by the thread alone.
        max_bytes: arrays that may wait to be taken; the last one made may go beyond.
    """

    def __init__(self, items: Iterable[Item], max_bytes: int = _MAX_BYTES) -> None:
        self._items, self._max_bytes = items, max_bytes
        self._ready: deque[tuple[Item, int]] = deque()
        self._bytes = 0
        self._ended: BaseException | None = None
        self._closed = False
        self._changed = threading.Condition()
        # What JAX computes here (RAFT) belongs on the device of the thread that asks for it.
        self._device = jax.config.jax_default_device
        self._thread = threading.Thread(target=self._work, name="prefetch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None,
                 traceback: TracebackType | None) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        self._ready.clear()

    def __next__(self) -> Item:
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._ended)
            if not self._ready:
                raise self._ended
            item, size = self._ready.popleft()
            self._bytes -= size
            self._changed.notify_all()
        return item

    def _work(self) -> None:
        try:
            with jax.default_device(self._device):
                for item in self._items:
                    if not self._put(item):
                        return
            ended = StopIteration()
        except BaseException as error:
            ended = error
        with self._changed:
            self._ended = ended
            self._changed.notify_all()

    def _put(self, item: Item) -> bool:
        """Waits for room and adds the item; whether there is more to do."""
        size = sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(item))
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._bytes < self._max_bytes)
            self._ready.append((item, size))
            self._bytes += size
            self._changed.notify_all()
            return not self._closed


class BackgroundWorker:
    """Jobs done one after the other in a thread of their own; use as a context manager.

    The block ends when all jobs are done, also where it ends by an error or by Ctrl-C: what was submitted is
    written. After a job that failed no other is begun, and its exception is raised by the next `submit` or by
    the end of the block.

    Args:
        max_jobs: jobs that may wait; `submit` waits where there are more.
    """

    def __init__(self, max_jobs: int = _MAX_JOBS) -> None:
        self._jobs: queue.Queue[Callable[[], None] | None] = queue.Queue(max_jobs)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="write", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self._jobs.put(None)
        self._thread.join()
        if exc is None and self._failure:
            raise self._failure

    def submit(self, function: Callable[..., None], *arguments: Any) -> None:
        """Hands a job over; what its arguments hold must not be changed afterwards.

        Raises:
            BaseException: what an earlier job raised.
        """
        if self._failure:
            raise self._failure
        self._jobs.put(lambda: function(*arguments))

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            if self._failure:
                continue  # taken, so that nobody waits for room
            try:
                job()
            except BaseException as error:
                self._failure = error

"""Samples made in processes of their own, where Python's lock keeps threads from it."""

import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Any, Self

import cv2
import numpy as np

from dattt_jax.errors import UserError
from input_pipeline.loader import SampleSource

_source: Any = None  # of a worker process


class InProcesses:
    """A source whose samples are made by worker processes; a context manager that ends them.

    A sample is the same wherever it is made. Threads that ask at the same time are served at the same time.
    The processes start with the first samples, and end with the one that asks, however that ends.

    Args:
        source: the samples; picklable.
        count: processes, 1 or more.
    """

    def __init__(self, source: SampleSource, count: int) -> None:
        self._source, self._count = source, count
        self._pool = ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"),
                                         initializer=_begin, initargs=(source,))

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Sample `index` of the source.

        Raises:
            UserError: a worker process died.
        """
        try:
            return self._pool.submit(_sample, int(index)).result()
        except BrokenProcessPool as error:
            raise UserError("a process that makes training samples was killed, perhaps for want of memory: "
                            "lower config.train.threads, or set config.train.processes=False") from error

    def name(self, index: int) -> str:
        """What a person calls sample `index`."""
        return self._source.name(index)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def _begin(source: SampleSource) -> None:
    global _source
    _source = source
    for number in (signal.SIGINT, signal.SIGTERM):  # they may reach the whole group: the parent decides
        signal.signal(number, signal.SIG_IGN)
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def _sample(index: int) -> dict[str, np.ndarray]:
    return _source[index]

"""Where the time of a run goes."""

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import TypeVar

import numpy as np

from dattt_jax.ttt import Frames
from dattt_jax.ttt.steps import Batch

Item = TypeVar("Item")


class Stopwatch:
    """Adds up seconds under names; each name belongs to one thread at a time."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextlib.contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Counts the block's time under `name`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start

    def iterate(self, name: str, items: Iterable[Item]) -> Iterator[Item]:
        """Yields `items` and counts the time spent waiting for them under `name`."""
        iterator = iter(items)
        while True:
            with self.measure(name):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item


class TimedClip:
    """A clip, and under `wait_input` how long its reader waits for it."""

    def __init__(self, clip: Frames, watch: Stopwatch) -> None:
        self._clip, self._watch = clip, watch

    def __len__(self) -> int:
        return len(self._clip)

    def read(self, indices: np.ndarray) -> Batch:
        """As the clip."""
        with self._watch.measure("wait_input"):
            return self._clip.read(indices)

"""Where the time of a run goes."""

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TypeVar

import jax

Item = TypeVar("Item")

_COMPILE_EVENT = "/jax/core/compile/backend_compile_duration"


class Stopwatch:
    """Adds up seconds under names; inside `with`, those of compilation under 'compile' by itself."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def __enter__(self) -> "Stopwatch":
        jax.monitoring.register_event_duration_secs_listener(self._on_event)
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None,
                 traceback: TracebackType | None) -> None:
        jax.monitoring.unregister_event_duration_listener(self._on_event)

    def _on_event(self, event: str, duration: float, **_: object) -> None:
        if event == _COMPILE_EVENT:
            self.seconds["compile"] += duration

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

"""A video as test-time training reads it: frames and flow renderings by index."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from input_pipeline.array_file import ArrayFile
from input_pipeline.background import Prefetcher

Pair = tuple[np.ndarray, np.ndarray]


class PairClip:
    """Pairs of frame and flow rendering, made once, in a thread of their own ahead of their use.

    Use as a context manager: the thread works from the start of the block on. Without a spool folder, indices
    must be read in order and once. With one, they may be read in any order and again: frames and renderings
    go to temporary files there.

    Args:
        pairs: (frame, rendering), uint8 [H, W, 3] RGB each, all frames of one size.
        length: how many there are.
        spool_folder: where the temporary files go; None streams.
        first: index of the first of `pairs`, those before it are not asked for.
    """

    def __init__(self, pairs: Iterable[Pair], length: int, spool_folder: Path | None = None, *,
                 first: int = 0) -> None:
        self._pairs = Prefetcher(pairs)
        self._length = length
        self._next = first
        self._spool_folder = spool_folder
        self._spools: tuple[ArrayFile, ...] = ()  # of frames and of renderings, made for the first pair

    def __enter__(self) -> Self:
        self._open = ExitStack()
        self._open.enter_context(self._pairs)
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self._open.close()

    def __len__(self) -> int:
        return self._length

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Frames and flow renderings of those indices.

        Args:
            indices: frame numbers, int [n], ascending.

        Returns:
            {'image': uint8 [n, H, W, 3], 'flow': uint8 [n, H, W, 3]}, both RGB.

        Raises:
            UserError: the disk is full.
        """
        if self._spool_folder is None:
            if indices[0] != self._next or len(indices) != indices[-1] - indices[0] + 1:
                raise ValueError(f"a streamed clip is read in order: {indices} after {self._next}")
            image, flow = zip(*self._take(len(indices)), strict=True)
            return {"image": np.stack(image), "flow": np.stack(flow)}
        first = self._next
        for index, pair in enumerate(self._take(int(indices[-1]) + 1 - first), first):
            if not self._spools:
                self._spools = tuple(self._open.enter_context(
                    ArrayFile(self._spool_folder, self._length, array.shape, np.uint8)) for array in pair)
            for spool, array in zip(self._spools, pair, strict=True):
                spool[index] = array
        image, flow = (np.stack([spool[index] for index in indices]) for spool in self._spools)
        return {"image": image, "flow": flow}

    def _take(self, count: int) -> Iterator[Pair]:
        for _ in range(count):
            self._next += 1
            yield next(self._pairs)


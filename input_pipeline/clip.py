"""A video as test-time training reads it: frames and flow renderings by index."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from input_pipeline.flow import FlowMethod, flow_renderings
from input_pipeline.frame_spool import FrameSpool

Pair = tuple[np.ndarray, np.ndarray]


class PairClip:
    """Pairs of frame and flow rendering, made once, when they are first asked for.

    Without a spool folder, indices must be read in order and once, and memory holds two frames. With one,
    they may be read in any order and again: frames and renderings go to temporary files there.

    Args:
        pairs: (frame, rendering), uint8 [H, W, 3] RGB each, all frames of one size.
        length: how many there are.
        spool_folder: where the temporary files go; None streams.
    """

    def __init__(self, pairs: Iterator[Pair], length: int, spool_folder: Path | None = None) -> None:
        self._pairs = pairs
        self._length = length
        self._next = 0
        self._spools = None
        if spool_folder is not None:
            self._spools = (FrameSpool(spool_folder), FrameSpool(spool_folder))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None,
                 traceback: TracebackType | None) -> None:
        for spool in self._spools or ():
            spool.close()

    def __len__(self) -> int:
        return self._length

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Frames and flow renderings of those indices.

        Args:
            indices: frame numbers, int [n], ascending.

        Returns:
            {'image': uint8 [n, H, W, 3], 'flow': uint8 [n, H, W, 3]}, both RGB.
        """
        if self._spools is None:
            if indices[0] != self._next or len(indices) != indices[-1] - indices[0] + 1:
                raise ValueError(f"a streamed clip is read in order: {indices} after {self._next}")
            image, flow = zip(*self._take(len(indices)), strict=True)
            return {"image": np.stack(image), "flow": np.stack(flow)}
        for pair in self._take(int(indices[-1]) + 1 - self._next):
            for spool, array in zip(self._spools, pair, strict=True):
                spool.append(array)
        return {"image": self._spools[0][indices], "flow": self._spools[1][indices]}

    def _take(self, count: int) -> Iterator[Pair]:
        for _ in range(count):
            self._next += 1
            yield next(self._pairs)


class FlowClip(PairClip):
    """Frames with the flow between them, computed once, when they are first asked for.

    Args:
        frames: uint8 [H, W, 3] RGB frames of one size, in order.
        num_frames: how many there are.
        method: the flow method.
        last_frame: the rule for the flow of the last frame, see `flow_renderings`; 'drop' makes the clip
            one frame shorter.
        spool_folder: see `PairClip`.
    """

    def __init__(self, frames: Iterable[np.ndarray], num_frames: int, method: FlowMethod, last_frame: str,
                 spool_folder: Path | None = None) -> None:
        super().__init__(flow_renderings(frames, method, last_frame), num_frames - (last_frame == "drop"),
                         spool_folder)

"""Flow from each frame to several others near it, before and after.

Where a pair of neighbours shows too little motion to tell an object from noise, or an occlusion hides it,
another pair shows it: layered models of motion look at several pairs at once, for example OCLR (Xie et al.,
"Segmenting Moving Objects via an Object-Centric Layered Representation", NeurIPS 2022), whose input are
flows of the gaps 1, -1, 2 and -2.
"""

import collections
from collections.abc import Container, Iterable, Iterator, Sequence

import numpy as np

from dattt_jax.errors import UserError
from input_pipeline.flow import FlowMethod, pair_renderings


class NearbyFlow:
    """Renderings of the flow from a frame to those `gaps` later (negative: earlier); a `RenderingSource`.

    At an end of the video, where there is no such frame, the flow leads to the one nearest to it, and from
    the outermost frame itself the other way.

    Args:
        methods: estimate flow; one of them, or one for each gap.
        gaps: how many frames away; none is 0.

    Attributes:
        identity: the methods', and the gaps.
        gaps: as given.
    """

    def __init__(self, methods: Sequence[FlowMethod], gaps: tuple[int, ...]) -> None:
        self._methods, self.gaps = methods, gaps
        if len(methods) == 1:
            self.identity = f"{methods[0].identity} to frames {', '.join(f'{gap:+d}' for gap in gaps)}"
        else:
            self.identity = "; ".join(f"{method.identity} to frame {gap:+d}"
                                      for method, gap in zip(methods, gaps, strict=True))

    def renderings(self, frames: Iterable[np.ndarray], last_frame: str, wanted: Container[int] | None = None
                   ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """See `RenderingSource`; a rendering is uint8 [number of gaps, H, W, 3].

        The stream is read once; twice the largest gap and one more frames are held. The rules 'repeat' and
        'backward' are one here: the last frame has flow to frames before it.

        Raises:
            UserError: the stream has fewer than two frames (while iterating).
        """
        reach = max(abs(gap) for gap in self.gaps)
        held: dict[int, np.ndarray] = {}
        waiting: collections.deque[int] = collections.deque()
        for index, frame in enumerate(frames):
            held[index] = frame
            waiting.append(index)
            if index - waiting[0] >= reach:
                yield from self._one(waiting.popleft(), held, wanted)
                held.pop(waiting[0] - 1 - reach, None)
        if len(held) < 2:
            raise UserError("at least two frames are needed: a single frame shows no motion")
        if last_frame == "drop":
            waiting.pop()
        for index in waiting:
            yield from self._one(index, held, wanted)

    def _one(self, index: int, held: dict[int, np.ndarray], wanted: Container[int] | None
             ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        if wanted is not None and index not in wanted:
            return
        first, last = min(held), max(held)
        pairs = []
        for gap in self.gaps:
            other = min(max(index + gap, first), last)
            if other == index:
                other = min(max(index - gap, first), last)
            pairs.append((held[index], held[other]))
        # One method may take the pairs together.
        groups = [pairs] if len(self._methods) == 1 else [[pair] for pair in pairs]
        yield held[index], np.stack([rendering for group, method in zip(groups, self._methods, strict=True)
                                     for _, rendering in pair_renderings(group, method)])

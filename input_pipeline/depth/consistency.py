"""How steady the depth of a video is: the same point should keep its depth from frame to frame."""

from collections.abc import Iterable

import numpy as np

from input_pipeline.flow.consistency import consistent, warp


class WarpedDifference:
    """Mean difference between a frame's depth target and the next one's, fetched along the flow.

    Only pixels count whose flow is consistent and whose depth is known in both frames. 0 is perfectly steady;
    camera motion along the line of sight changes depth rightly, so compare methods on the same video.
    """

    def __init__(self) -> None:
        self._sum, self._count = 0.0, 0

    def add(self, target0: np.ndarray, target1: np.ndarray, forward: np.ndarray,
            backward: np.ndarray) -> None:
        """Counts a pair of neighbouring frames.

        Args:
            target0: `[H, W]` float32, see `depth_target`.
            target1: as `target0`, of the next frame.
            forward: `[H, W, 2]` float32 flow from the first frame to the next.
            backward: `[H, W, 2]` float32 flow back.
        """
        counted = consistent(forward, backward) & (target0 > 0)
        flow = np.where(counted[..., None], forward, 0).astype(np.float32)
        # Interpolated with an unknown neighbour, a value would be of neither.
        counted &= warp((target1 > 0).astype(np.float32), flow) > 1 - 1e-3
        difference = np.abs(target0 - warp(np.asarray(target1, np.float32), flow))
        self._sum += float(difference.sum(where=counted, dtype=np.float64))
        self._count += int(counted.sum())

    def result(self) -> float | None:
        """The mean over all pixels of all pairs, in units of the target; None without any."""
        return self._sum / self._count if self._count else None


def warped_difference(targets: Iterable[np.ndarray],
                      flows: Iterable[tuple[np.ndarray, np.ndarray]]) -> float | None:
    """`WarpedDifference` of a video.

    Args:
        targets: depth targets `[H, W]` of its N frames, in order.
        flows: (forward, backward) flow of its N - 1 pairs of neighbours.

    Returns:
        The mean difference; None if no pixel counts.
    """
    measure, previous = WarpedDifference(), None
    targets = iter(targets)
    previous = next(targets, None)
    for target, (forward, backward) in zip(targets, flows, strict=True):
        measure.add(previous, target, forward, backward)
        previous = target
    return measure.result()

"""Strategies: in which order frames are visited, and from which weights (DATTT, section 3.3).

A strategy is data. `schedule` turns it into visits; the engine executes visits and knows no names.

    base            no adaptation
    n               every frame from the source weights, `steps` steps each (TTT-N)
    mwi             weights and optimiser carried from frame to frame, `steps` steps each (TTT-MWI)
    ltv             `steps` passes over the video, one step per frame and pass, all carried (TTT-LTV)
    grouped_mwi     frames i, i + groups, i + 2·groups, … form a video of their own, adapted by mwi
    grouped_ltv     the same, adapted by ltv
    window          as mwi, but each step is on a frame drawn from the last `window` ones, this one among them
                    (Wang et al., "Test-Time Training on Video Streams", 2023); `reset_every` frames the
                    weights, the optimiser and the window start afresh
"""

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np

from dattt_jax.errors import UserError

STRATEGIES = ("base", "n", "mwi", "ltv", "grouped_mwi", "grouped_ltv", "window")


@dataclasses.dataclass(frozen=True)
class Visit:
    """One dispatch: consecutive frames of a schedule, at most a chunk of them.

    Attributes:
        indices: frame numbers of the video, int [n].
        fresh: start this frame from the source weights and a fresh optimiser, bool [n].
        first_step: number of the first gradient step these frames take now; earlier passes took those before.
        final: the frames are predicted now, after this visit's steps.
    """

    indices: np.ndarray
    fresh: np.ndarray
    first_step: int
    final: bool

    def part(self, start: int, count: int) -> "Visit":
        """The visit of the frames from `start` on, at most `count` of them."""
        chosen = slice(start, start + count)
        return dataclasses.replace(self, indices=self.indices[chosen], fresh=self.fresh[chosen])


@dataclasses.dataclass(frozen=True)
class Strategy:
    """How a video is adapted to.

    Attributes:
        steps_per_visit: gradient steps each time a frame is visited.
        passes: times the video (or group) is gone through.
        carry: weights and optimiser go on from frame to frame; otherwise each frame starts fresh.
        groups: interleaved groups, each adapted on its own from the source weights.
        window: frames a step is drawn from, the visited one and those visited before it.
        reset_every: frames after which everything starts from the source again; 0 for never.
    """

    steps_per_visit: int
    passes: int = 1
    carry: bool = True
    groups: int = 1
    window: int = 1
    reset_every: int = 0

    @property
    def steps(self) -> int:
        """Gradient steps a frame receives altogether."""
        return self.steps_per_visit * self.passes

    @property
    def streams(self) -> bool:
        """Whether frames are visited once and in order, so that a video need not be kept."""
        return self.passes == 1 and self.groups == 1

    def schedule(self, num_frames: int, chunk: int) -> Iterator[Visit]:
        """Visits of a video of `num_frames` frames, each of at most `chunk` frames."""
        for group in range(min(self.groups, num_frames)):
            members = np.arange(group, num_frames, self.groups)
            for pass_number in range(self.passes):
                for start in range(0, len(members), chunk):
                    yield self._visit(members[start : start + chunk], start, pass_number)

    def stream(self, counts: Iterable[int]) -> Iterator[Visit]:
        """Visits of a video of unknown length, of so many frames each, in order and once.

        Raises:
            ValueError: the strategy does not stream.
        """
        if not self.streams:
            raise ValueError("this strategy goes through a video more than once")
        start = 0
        for count in counts:
            yield self._visit(np.arange(start, start + count), start, 0)
            start += count

    def _visit(self, indices: np.ndarray, start: int, pass_number: int) -> Visit:
        """The visit of members start, start + 1, … of a group."""
        position = start + np.arange(len(indices))
        fresh = np.full(len(indices), not self.carry)
        if pass_number == 0:
            fresh |= position == 0
        if self.reset_every:
            fresh |= position % self.reset_every == 0
        return Visit(indices, fresh, pass_number * self.steps_per_visit, final=pass_number == self.passes - 1)


SOURCE = Strategy(steps_per_visit=0)
"""The strategy `base`."""


def create_strategy(name: str, *, steps: int, groups: int, window: int = 1, reset_every: int = 0,
                    field: str = "config.ttt.strategy") -> Strategy:
    """The strategy of that name.

    Args:
        name: one of `STRATEGIES`.
        steps: gradient steps per frame; for ltv, passes over the video.
        groups: interleaved groups of the grouped strategies.
        window: frames of the strategy window; with 1 it is mwi.
        reset_every: frames after which the strategy window starts afresh; 0 for never.
        field: where the name comes from, for the error.

    Raises:
        UserError: the name is not one of `STRATEGIES`, or a number is out of range.
    """
    if name not in STRATEGIES:
        raise UserError(f"{field}: {name!r} is not one of {', '.join(STRATEGIES)}")
    if steps < 1 or groups < 1:
        raise UserError(f"config.ttt.steps ({steps}) and config.ttt.groups ({groups}) must be at least 1")
    if window < 1 or reset_every < 0:
        raise UserError(f"config.ttt.window ({window}) must be at least 1 and config.ttt.reset_every "
                        f"({reset_every}) at least 0")
    if name == "base":
        return SOURCE
    if name == "window":
        return Strategy(steps_per_visit=steps, window=window, reset_every=reset_every)
    groups = groups if name.startswith("grouped_") else 1
    if name.endswith("ltv"):
        return Strategy(steps_per_visit=1, passes=steps, groups=groups)
    return Strategy(steps_per_visit=steps, carry=name != "n", groups=groups)

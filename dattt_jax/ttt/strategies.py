"""Strategies: in which order frames are visited, and from which weights (DATTT, section 3.3).

A strategy is data. `schedule` turns it into visits; the engine executes visits and knows no names.

    base            no adaptation
    n               every frame from the source weights, `steps` steps each (TTT-N)
    mwi             weights and optimiser carried from frame to frame, `steps` steps each (TTT-MWI)
    ltv             `steps` passes over the video, one step per frame and pass, all carried (TTT-LTV)
    grouped_mwi     frames i, i + groups, i + 2·groups, … form a video of their own, adapted by mwi
    grouped_ltv     the same, adapted by ltv
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

from dattt_jax.errors import UserError

STRATEGIES = ("base", "n", "mwi", "ltv", "grouped_mwi", "grouped_ltv")


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


@dataclasses.dataclass(frozen=True)
class Strategy:
    """How a video is adapted to.

    Attributes:
        steps_per_visit: gradient steps each time a frame is visited.
        passes: times the video (or group) is gone through.
        carry: weights and optimiser go on from frame to frame; otherwise each frame starts fresh.
        groups: interleaved groups, each adapted on its own from the source weights.
    """

    steps_per_visit: int
    passes: int = 1
    carry: bool = True
    groups: int = 1

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
                    indices = members[start : start + chunk]
                    fresh = np.full(len(indices), not self.carry)
                    fresh[0] |= pass_number == 0 and start == 0
                    yield Visit(indices, fresh, pass_number * self.steps_per_visit,
                                final=pass_number == self.passes - 1)


def create_strategy(name: str, *, steps: int, groups: int, field: str = "config.ttt.strategy") -> Strategy:
    """The strategy of that name.

    Args:
        name: one of `STRATEGIES`.
        steps: gradient steps per frame; for ltv, passes over the video.
        groups: interleaved groups of the grouped strategies.
        field: where the name comes from, for the error.

    Raises:
        UserError: the name is not one of `STRATEGIES`, or a number is out of range.
    """
    if name not in STRATEGIES:
        raise UserError(f"{field}: {name!r} is not one of {', '.join(STRATEGIES)}")
    if steps < 1 or groups < 1:
        raise UserError(f"config.ttt.steps ({steps}) and config.ttt.groups ({groups}) must be at least 1")
    if name == "base":
        return Strategy(steps_per_visit=0)
    groups = groups if name.startswith("grouped_") else 1
    if name.endswith("ltv"):
        return Strategy(steps_per_visit=1, passes=steps, groups=groups)
    return Strategy(steps_per_visit=steps, carry=name != "n", groups=groups)

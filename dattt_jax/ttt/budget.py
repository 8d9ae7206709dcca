"""Gradient steps by the clock: as many on a frame as a latency budget leaves time for."""

import time
from collections import deque
from collections.abc import Callable

_RECENT = 20  # measurements that an estimate is made of
_QUANTILE = 0.9  # of them that the estimate is not below


class StepBudget:
    """Decides, step by step, whether a frame has time for another one.

    A step is taken if it and what follows the steps (prediction, mask) will by the last measurements be over
    within the budget. Nothing is measured of steps that are not taken: each frame without one makes the
    estimate forget its longest measurement, so that one slow moment does not end adaptation for good.

    For each frame call `begin`, then `stepped` after each step while `another()`, then `done`.

    Args:
        seconds: for a frame, from `begin`'s moment to `done`; 0 for no limit.
        steps: most steps of a frame.
        clock: gives the time, seconds.
    """

    def __init__(self, seconds: float, steps: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._steps, self._clock = seconds, steps, clock
        self._step, self._rest = _Estimate(), _Estimate()

    def begin(self, since: float) -> None:
        """The steps of a frame can begin; the work on it began at `since`, seconds of the clock."""
        self._since, self._taken, self._mark = since, 0, self._clock()

    def another(self) -> bool:
        """Whether there is time for another step."""
        end = self._clock() - self._since + self._step.seconds() + self._rest.seconds()
        return self._taken < self._steps and (not self._seconds or end <= self._seconds)

    def stepped(self) -> None:
        """A step is over."""
        now = self._clock()
        self._step.add(now - self._mark)
        self._taken, self._mark = self._taken + 1, now

    def done(self) -> float:
        """The frame is done; returns the seconds it took."""
        now = self._clock()
        self._rest.add(now - self._mark)
        if not self._taken:
            self._step.forget_longest()
        return now - self._since


class _Estimate:
    """A duration, from its last measurements."""

    def __init__(self) -> None:
        self._measured: deque[float] = deque(maxlen=_RECENT)

    def add(self, seconds: float) -> None:
        self._measured.append(seconds)

    def forget_longest(self) -> None:
        if len(self._measured) > 1:
            self._measured.remove(max(self._measured))

    def seconds(self) -> float:
        """0 before the first measurement."""
        if not self._measured:
            return 0.0
        return sorted(self._measured)[int(_QUANTILE * (len(self._measured) - 1) + 0.5)]

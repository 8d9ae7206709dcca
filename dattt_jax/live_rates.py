"""What `--mode=live` achieves: frames per second, steps per frame, latency."""

import collections
import time
from typing import Any

import numpy as np

from input_pipeline.live_frames import LiveFrame, LiveFrames

_RECENT = 10_000  # frames that percentiles are of, so that memory does not grow
_LOG_EVERY_S = 10.0


class Rates:
    """Counts and times the frames of a live run.

    Args:
        budget_ms: milliseconds there are for a frame; 0 for no limit.
        frames: the source, for what it received and dropped.
    """

    def __init__(self, budget_ms: float, frames: LiveFrames) -> None:
        self._budget_ms, self._frames = budget_ms, frames
        self._made = self._ready = self._logged = time.monotonic()
        self._first: float | None = None  # when the first frame could be worked on
        self._dropped_before = self._unused = self._late = self._skipped = 0
        self._steps: collections.Counter[int] = collections.Counter()
        self._work_ms: collections.deque[float] = collections.deque(maxlen=_RECENT)
        self._latency_ms: collections.deque[float] = collections.deque(maxlen=_RECENT)
        self._warm_up_s = 0.0

    def warm(self, unused: int) -> None:
        """Programs are compiled now: rates count from here; so many frames went into it."""
        now = time.monotonic()
        self._warm_up_s, self._ready, self._logged = now - self._ready, now, now
        self._dropped_before, self._unused = self._frames.dropped, unused

    def add(self, frame: LiveFrame, work_s: float, steps: int, skipped: int) -> None:
        """A mask is written.

        Args:
            frame: whose it is.
            work_s: seconds of work on it: flow, steps, prediction, mask.
            steps: gradient steps that were taken on it.
            skipped: those of them that changed nothing (zero or non-finite loss).
        """
        self._made = time.monotonic()
        if self._first is None:
            self._first = max(self._ready, frame.arrived)
        self._work_ms.append(1000 * work_s)
        self._latency_ms.append(1000 * (self._made - frame.arrived))
        self._steps[steps] += 1
        self._skipped += skipped
        self._late += 0 < self._budget_ms < 1000 * work_s

    def due(self) -> bool:
        """Whether it is time for another line in the log."""
        if self._made - self._logged < _LOG_EVERY_S:
            return False
        self._logged = self._made
        return True

    def line(self) -> str:
        """What was achieved so far, for people."""
        s = self.summary()
        if not s["masks"]:
            return f"no masks; {s['received']} frames received"
        work, latency, late = s["work_ms"], s["latency_ms"], ""
        if self._budget_ms:
            late = f", {100 * s['late'] / s['masks']:.3g} % over the budget of {self._budget_ms:g}"
        return (f"{s['masks']} masks, {s['frames_per_second']:.3g} frames/s, {s['steps_per_frame']:.3g} "
                f"steps/frame, {s['dropped']} frames dropped; median (95 %) in ms: work {work['median']:.0f} "
                f"({work['95%']:.0f}){late}, latency {latency['median']:.0f} ({latency['95%']:.0f})")

    def summary(self) -> dict[str, Any]:
        """What was achieved so far, for JSON.

        Returns:
            received: frames that came.
            dropped_in_warm_up: frames that came before programs were compiled and have no mask.
            dropped: frames that came later and were dropped for newer ones.
            masks: frames that have a mask.
            frames_per_second: masks per second from the first frame after the warm-up to the last mask; the
                wait at the end for a frame that does not come is left out.
            steps_per_frame: mean number of gradient steps.
            frames_by_steps: number of frames by their number of gradient steps.
            skipped_steps: steps that changed nothing.
            late: frames that took longer than the budget.
            work_ms: per frame, flow to mask, median and 95 % quantile of the last 10,000 frames.
            latency_ms: the same from a frame's arrival to its mask, which waits for the next frame.
            warm_up_s: seconds until then: the first frame, compilation, first measurements.
        """
        masks = self._steps.total()
        seconds = self._made - self._first - self._frames.waited_s if masks else 0.0
        return {
            "received": self._frames.received, "dropped_in_warm_up": self._dropped_before + self._unused,
            "dropped": self._frames.dropped - self._dropped_before, "masks": masks,
            "frames_per_second": round(masks / max(seconds, 1e-6), 3),
            "steps_per_frame": round(sum(n * count for n, count in self._steps.items()) / max(masks, 1), 3),
            "frames_by_steps": {str(n): self._steps[n] for n in sorted(self._steps)},
            "skipped_steps": self._skipped, "late": self._late,
            "work_ms": _quantiles(self._work_ms), "latency_ms": _quantiles(self._latency_ms),
            "warm_up_s": round(self._warm_up_s, 3),
        }


def _quantiles(values: collections.deque[float]) -> dict[str, float] | None:
    if not values:
        return None
    median, high = np.quantile(values, (0.5, 0.95))
    return {"median": round(float(median), 1), "95%": round(float(high), 1)}

"""From masks to scores: one frame, one video, many videos in the background, and their summary."""

import dataclasses
import math
import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

import numpy as np

from dattt_jax.metrics.boundary import boundary_f
from dattt_jax.metrics.protocols import Protocol, fit_target, kept_frames
from dattt_jax.metrics.region import jaccard
from dattt_jax.metrics.statistics import Statistics, dataset_statistics, video_statistics


@dataclasses.dataclass(frozen=True)
class FrameScore:
    """Scores of one frame, 0..1; NaN: the frame was not scored.

    Attributes:
        J: Region similarity.
        F: Boundary F-measure.
        empty_target: The ground truth has no object; some protocols leave such frames out.
    """

    J: float
    F: float
    empty_target: bool = False

    @property
    def JF(self) -> float:
        """Mean of J and F."""
        return (self.J + self.F) / 2


def score_frame(prediction: np.ndarray, target: np.ndarray) -> FrameScore:
    """J and boundary F of one frame.

    Args:
        prediction: `[H, W]` bool.
        target: `[H, W]` bool.

    Returns:
        The scores.

    Raises:
        ValueError: The arguments are not two bool masks of one size.
    """
    return FrameScore(jaccard(prediction, target), boundary_f(prediction, target),
                      empty_target=not target.any())


def missing_score(target: np.ndarray | None, protocol: Protocol) -> FrameScore:
    """What a frame without a usable prediction counts as.

    Args:
        target: `[H, W]` bool, or None if the ground truth cannot be used either.
        protocol: The protocol; see `Protocol.missing`.

    Returns:
        Zeros, or NaN where the frame is not to be scored.
    """
    if target is None or protocol.missing == "skip":
        return FrameScore(math.nan, math.nan)
    return FrameScore(0.0, 0.0, empty_target=not target.any())


def score_video(predictions: Mapping[str, np.ndarray], targets: Mapping[str, np.ndarray],
                protocol: Protocol) -> dict[str, FrameScore]:
    """Scores of the annotated frames of one video, paired by name.

    Args:
        predictions: `[h, w]` bool by frame name; those without a target are ignored.
        targets: `[H, W]` bool by frame name.
        protocol: Says what a missing prediction counts as, and at which size to compare.

    Returns:
        Scores of all annotated frames by name. `summarize` leaves out those that the protocol
        drops: it needs to see them all to know which are the first and the last.

    Raises:
        ValueError: A prediction has another size than its target and the protocol does not resize.
    """
    scores = {}
    for name, target in targets.items():
        if name not in predictions:
            scores[name] = missing_score(target, protocol)
            continue
        prediction = predictions[name]
        scores[name] = score_frame(prediction, fit_target(target, prediction.shape, protocol))
    return scores


def summarize(scores: Mapping[str, Mapping[str, FrameScore]], protocol: Protocol) -> dict[str, Any]:
    """Statistics of every video and of the data set under one protocol, ready for JSON.

    Args:
        scores: Scores of all annotated frames: `{video: {frame: score}}`.
        protocol: Says which frames count and how videos are averaged.

    Returns:
        `protocol` (its name); `frames` (number of frames scored); `J`, `F` and `JF`, each
        `{"mean", "recall", "decay"}` with fractions (not percent), None where nothing was scored;
        and `videos`, by name, with the same three and `frames`. JF is the mean of J and F of each
        frame. Under a protocol without F, `F` and `JF` are None.
    """
    measures = [name for name in ("J", "F") if name in protocol.metrics]
    if len(measures) == 2:
        measures.append("JF")
    per_video: dict[str, dict[str, Statistics]] = {}
    videos: dict[str, dict[str, Any]] = {}
    for video, frames in scores.items():
        kept = [frames[name] for name in kept_frames(protocol, list(frames))]
        if protocol.drop_empty_target:
            kept = [score for score in kept if not score.empty_target]
        per_video[video] = {measure: video_statistics([getattr(score, measure) for score in kept])
                            for measure in measures}
        videos[video] = {"frames": sum(not math.isnan(score.J) for score in kept)}
        videos[video] |= _as_json(per_video[video])
    overall = {
        measure: dataset_statistics({video: each[measure] for video, each in per_video.items()},
                                    by_class=protocol.aggregation == "class")
        for measure in measures
    }
    frames_scored = sum(video["frames"] for video in videos.values())
    return {"protocol": protocol.name, "frames": frames_scored, **_as_json(overall),
            "videos": videos}


def _as_json(statistics: Mapping[str, Statistics]) -> dict[str, dict[str, float | None] | None]:
    """The statistics of `J`, `F` and `JF` as plain dicts; NaN and absent measures become None."""
    return {
        measure: None if measure not in statistics else {
            key: None if math.isnan(value) else value
            for key, value in dataclasses.asdict(statistics[measure]).items()
        }
        for measure in ("J", "F", "JF")
    }


class FrameScorer:
    """Scores frames in background threads while the network works on the next ones.

    OpenCV and NumPy let go of Python's lock, so threads are enough. Use as a context manager, or
    call `close`. At most `pending` frames wait at a time; `submit` blocks beyond that, so memory
    stays bounded when scoring is slower than the network.
    """

    def __init__(self, threads: int = 2, pending: int = 32) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="score")
        self._slots = threading.BoundedSemaphore(pending)
        self._futures: dict[str, dict[str, Future[FrameScore]]] = {}

    def __enter__(self) -> "FrameScorer":
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self.close()

    def submit(self, video: str, frame_name: str, prediction: np.ndarray,
               target: np.ndarray) -> None:
        """Takes one frame. The arrays must not be changed afterwards.

        Args:
            video: Name of the video.
            frame_name: Name of the frame; a second submission of the same frame replaces the first.
            prediction: `[H, W]` bool.
            target: `[H, W]` bool.
        """
        self._slots.acquire()
        future = self._pool.submit(score_frame, prediction, target)
        future.add_done_callback(lambda _: self._slots.release())
        self._futures.setdefault(video, {})[frame_name] = future

    def result(self) -> dict[str, dict[str, FrameScore]]:
        """Waits for all frames taken so far.

        Returns:
            `{video: {frame: score}}` in the order of submission.

        Raises:
            ValueError: A pair of masks was not one (types or sizes); raised here, not in `submit`.
        """
        return {video: {name: future.result() for name, future in frames.items()}
                for video, frames in self._futures.items()}

    def close(self) -> None:
        """Ends the threads; frames not yet begun are dropped."""
        self._pool.shutdown(cancel_futures=True)

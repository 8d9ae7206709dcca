"""From masks to scores: one frame, one video, and the summary of many videos."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dattt_jax.errors import UserError
from dattt_jax.metrics.boundary import boundary_f
from dattt_jax.metrics.protocols import Protocol, fit_target, kept_frames
from dattt_jax.metrics.region import jaccard
from dattt_jax.metrics.saliency import describe_profile, frame_profile, require_pysodmetrics
from dattt_jax.metrics.statistics import (
    Statistics,
    dataset_statistics,
    mean_over_videos,
    video_statistics,
)

EXTRA_MEASURES = ("region_F", "saliency")
"""What may be measured beside J and F: the paper's equation 6, and `metrics.saliency`."""


def check_measures(measures: Sequence[str], field: str) -> None:
    """Checks what a config wants measured beside J and F.

    Args:
        measures: names of `EXTRA_MEASURES`.
        field: where they come from, for the error.

    Raises:
        UserError: a name is unknown, or what measures it is not installed.
    """
    for name in measures:
        if name not in EXTRA_MEASURES:
            raise UserError(f"{field}: {name!r} is not one of {', '.join(EXTRA_MEASURES)}; J and F are "
                            "always measured")
    if "saliency" in measures:
        require_pysodmetrics()


@dataclasses.dataclass(frozen=True)
class FrameScore:
    """Scores of one frame, 0..1; NaN: the frame was not scored.

    Attributes:
        J: Region similarity.
        F: Boundary F-measure.
        empty_target: The ground truth has no object; some protocols leave such frames out.
        saliency: `metrics.saliency.frame_profile` of the soft map; None where it was not asked for.
    """

    J: float
    F: float
    empty_target: bool = False
    saliency: np.ndarray | None = dataclasses.field(default=None, compare=False, repr=False)

    @property
    def JF(self) -> float:
        """Mean of J and F."""
        return (self.J + self.F) / 2

    @property
    def region_F(self) -> float:
        """The F of the paper's equation 6 (`region.region_f`), which J determines: 2 J / (1 + J)."""
        return 2 * self.J / (1 + self.J)


def score_frame(prediction: np.ndarray, target: np.ndarray,
                probability: np.ndarray | None = None) -> FrameScore:
    """J and boundary F of one frame, and its saliency profile if there is a soft map.

    Args:
        prediction: `[H, W]` bool.
        target: `[H, W]` bool.
        probability: `[H, W]` float 0..1 or uint8 holding 255 · p; None measures no saliency.

    Returns:
        The scores.

    Raises:
        ValueError: The arguments are not two bool masks of one size.
    """
    return FrameScore(jaccard(prediction, target), boundary_f(prediction, target),
                      empty_target=not target.any(),
                      saliency=None if probability is None else frame_profile(probability, target))


def missing_score(target: np.ndarray | None, protocol: Protocol, *, saliency: bool = False) -> FrameScore:
    """What a frame without a usable prediction counts as.

    Args:
        target: `[H, W]` bool, or None if the ground truth cannot be used either.
        protocol: The protocol; see `Protocol.missing`.
        saliency: Measure the saliency of a black map, too.

    Returns:
        Zeros, or NaN where the frame is not to be scored.
    """
    if target is None or protocol.missing == "skip":
        return FrameScore(math.nan, math.nan)
    black = frame_profile(np.zeros(target.shape, np.uint8), target) if saliency else None
    return FrameScore(0.0, 0.0, empty_target=not target.any(), saliency=black)


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


def kept_scores(frames: Mapping[str, FrameScore], protocol: Protocol) -> list[FrameScore]:
    """The scores of one video that the protocol counts, in order of time.

    Args:
        frames: Scores of all annotated frames by name.
        protocol: The protocol.
    """
    kept = [frames[name] for name in kept_frames(protocol, list(frames))]
    return [score for score in kept if not (protocol.drop_empty_target and score.empty_target)]


def video_saliency(frames: Mapping[str, FrameScore], protocol: Protocol) -> np.ndarray | None:
    """Mean saliency profile of the frames of one video that the protocol counts.

    Args:
        frames: Scores of all annotated frames by name.
        protocol: The protocol.

    Returns:
        As of `frame_profile`; None if there is none.
    """
    profiles = [score.saliency for score in kept_scores(frames, protocol) if score.saliency is not None]
    return np.mean(profiles, axis=0) if profiles else None


def summarize(scores: Mapping[str, Mapping[str, FrameScore]], protocol: Protocol, *,
              measures: Sequence[str] = (), saliency: Mapping[str, np.ndarray | None] | None = None,
              categories: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Statistics of every video and of the data set under one protocol, ready for JSON.

    Args:
        scores: Scores of all annotated frames: `{video: {frame: score}}`.
        protocol: Says which frames count and how videos are averaged.
        measures: What to report beside J and F, of `EXTRA_MEASURES`.
        saliency: `video_saliency` by video, if that is among the measures; None takes it from `scores`.
        categories: Classes by video, for protocols that average over them; the name of a video that is
            not among them tells its class (`video_class`).

    Returns:
        `protocol` (its name); `frames` (number of frames scored); `J`, `F` and `JF`, each
        `{"mean", "recall", "decay"}` with fractions (not percent), None where nothing was scored;
        and `videos`, by name, with the same three and `frames`. JF is the mean of J and F of each
        frame. Under a protocol without F, `F` and `JF` are None. With the further measures also
        `region_F` (as J) and `saliency` (`describe_profile`, None where nothing was scored), of the
        data set and of each video.
    """
    names = [name for name in ("J", "F") if name in protocol.metrics]
    names += ["JF"] if len(names) == 2 else []
    names += ["region_F"] if "region_F" in measures else []
    shown = ("J", "F", "JF", *(["region_F"] if "region_F" in measures else []))
    by_class = protocol.aggregation == "class"
    per_video: dict[str, dict[str, Statistics]] = {}
    videos: dict[str, dict[str, Any]] = {}
    for video, frames in scores.items():
        kept = kept_scores(frames, protocol)
        per_video[video] = {measure: video_statistics([getattr(score, measure) for score in kept])
                            for measure in names}
        videos[video] = {"frames": sum(not math.isnan(score.J) for score in kept),
                         **_as_json(per_video[video], shown)}
    overall = _as_json({
        measure: dataset_statistics({video: each[measure] for video, each in per_video.items()},
                                    by_class=by_class, categories=categories)
        for measure in names
    }, shown)
    if "saliency" in measures:
        if saliency is None:
            saliency = {video: video_saliency(frames, protocol) for video, frames in scores.items()}
        profiles = {video: profile for video, profile in saliency.items() if profile is not None}
        mean = mean_over_videos(profiles, by_class=by_class, categories=categories)
        overall["saliency"] = describe_profile(mean)
        for video, summary in videos.items():
            summary["saliency"] = describe_profile(profiles.get(video))
    frames_scored = sum(video["frames"] for video in videos.values())
    return {"protocol": protocol.name, "frames": frames_scored, **overall, "videos": videos}


def _as_json(statistics: Mapping[str, Statistics],
             names: Sequence[str]) -> dict[str, dict[str, float | None] | None]:
    """Statistics as plain dicts; NaN and absent measures become None."""
    return {
        measure: None if measure not in statistics else {
            key: None if math.isnan(value) else value
            for key, value in dataclasses.asdict(statistics[measure]).items()
        }
        for measure in names
    }

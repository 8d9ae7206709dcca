"""Statistics of per-frame scores over a video, and of videos over a data set."""

import dataclasses
import re
from collections.abc import Mapping, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Statistics:
    """The DAVIS statistics of one measure. All are NaN when no frame was scored.

    Attributes:
        mean: Mean over frames, 0..1.
        recall: Share of frames that score above 0.5, 0..1.
        decay: Mean of the first quarter of the video minus mean of the last, -1..1.
    """

    mean: float
    recall: float
    decay: float


NOT_SCORED = Statistics(float("nan"), float("nan"), float("nan"))


def video_statistics(values: Sequence[float]) -> Statistics:
    """Mean, recall and decay of one video.

    The quarters are the DAVIS toolkit's: edges at round(linspace(1, n, 5)), both ends included, so
    neighbouring quarters share a frame. The toolkit casts the edges to uint8, which is wrong above
    256 frames; here they are right for any length, and equal to the toolkit's up to 256.

    Args:
        values: One score per frame in order of time; NaN marks a frame that was not scored. Such
            frames are taken out first: they count in no mean, in no share and in no quarter.

    Returns:
        The statistics; `NOT_SCORED` if no frame is left.
    """
    scores = np.asarray(values, np.float64)
    scores = scores[~np.isnan(scores)]
    if scores.size == 0:
        return NOT_SCORED
    # The small number makes exact halves round up, as in the toolkit.
    edges = np.round(np.linspace(1, scores.size, 5) + 1e-10).astype(int) - 1
    first, last = scores[: edges[1] + 1], scores[edges[3]:]
    return Statistics(
        mean=float(scores.mean()),
        recall=float((scores > 0.5).mean()),
        decay=float(first.mean() - last.mean()),
    )


def video_class(video: str) -> str:
    """Class of a YouTube-Objects video: its name without the numbers at the end.

    Args:
        video: For example `aeroplane_0001`, `aeroplane0001` or `aeroplane_0001_003`.

    Returns:
        For example `aeroplane`; the whole name if nothing would be left.
    """
    return re.sub(r"(?:[_-]?\d+)+$", "", video) or video


def dataset_statistics(videos: Mapping[str, Statistics], by_class: bool = False,
                       categories: Mapping[str, str] | None = None) -> Statistics:
    """Mean of the statistics over videos.

    Args:
        videos: Statistics by video name. Videos without any scored frame (NaN) are left out.
        by_class: See `mean_over_videos`.
        categories: See `mean_over_videos`.

    Returns:
        The mean of each statistic; `NOT_SCORED` if no video is left.
    """
    mean = mean_over_videos({video: np.asarray(dataclasses.astuple(statistics))
                             for video, statistics in videos.items()
                             if not np.isnan(statistics.mean)}, by_class, categories)
    return NOT_SCORED if mean is None else Statistics(*mean.tolist())


def mean_over_videos(videos: Mapping[str, np.ndarray], by_class: bool = False,
                     categories: Mapping[str, str] | None = None) -> np.ndarray | None:
    """Mean over videos.

    Args:
        videos: Values of each video by its name, float [n].
        by_class: Take the mean over the videos of each class first, then over the classes:
            YouTube-Objects. Otherwise every video weighs the same.
        categories: Classes by video; `video_class` of those that are not among them.

    Returns:
        float64 [n]; None if there is no video.
    """
    groups: dict[str, list[np.ndarray]] = {}
    for video, values in videos.items():
        category = (categories or {}).get(video) or video_class(video)
        groups.setdefault(category if by_class else video, []).append(values)
    if not groups:
        return None
    return np.mean([np.mean(group, axis=0) for group in groups.values()], axis=0)

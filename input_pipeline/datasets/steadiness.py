"""How steady the depth targets of prepared data are, clip by clip."""

import cv2
import numpy as np

from input_pipeline.datasets.prepared import PreparedData, VideoEntry
from input_pipeline.depth.consistency import WarpedDifference
from input_pipeline.flow import FlowMethod

_PAIRS = 8  # of neighbouring frames, spread evenly over a clip


def depth_steadiness(data: PreparedData, flow: FlowMethod) -> dict[str, float | None]:
    """Warped difference of each clip's depth targets, over up to 8 pairs of neighbouring frames.

    Args:
        data: prepared data.
        flow: estimates the flow between them, both ways.

    Returns:
        Video name -> mean difference along the flow, in units of the target (0..1), see
        `WarpedDifference`; None where no two neighbours have depth.
    """
    return {video.name: _steadiness(data, video, flow) for video in data.videos}


def _steadiness(data: PreparedData, video: VideoEntry, flow: FlowMethod) -> float | None:
    neighbours = [index for index in video.depth if index + 1 in set(video.depth)]
    places = np.linspace(0, len(neighbours) - 1, min(_PAIRS, len(neighbours))).round().astype(int)
    measure = WarpedDifference()
    for index in (neighbours[place] for place in places):
        first, second = data[video.first + index], data[video.first + index + 1]
        images = first.image(), second.image()
        size = images[0].shape[1::-1]
        targets = [cv2.resize(frame.depth(), size, interpolation=cv2.INTER_NEAREST)
                   for frame in (first, second)]
        measure.add(*targets, flow(*images), flow(*images[::-1]))
    return measure.result()

"""Some frames of a video with the flow from each to the frame after it: what is evaluated."""

import itertools
from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from dattt_jax.errors import UserError
from input_pipeline.eval_videos import EvalVideo
from input_pipeline.flow import FlowMethod, RenderingSource, flow_renderings
from input_pipeline.flow.files import FlowFiles, VideoFlowFiles

Pair = tuple[np.ndarray, np.ndarray]

FRAMES = ("all", "annotated")
"""Which frames of a video may be evaluated."""


def evaluated_frames(video: EvalVideo, last_frame: str, annotated_only: bool) -> list[int]:
    """Numbers of the frames that are adapted on and predicted, in order.

    Args:
        video: the video.
        last_frame: 'drop' leaves out the last frame, which has no forward flow.
        annotated_only: the authors' protocol: frames without ground truth are passed over.
    """
    count = len(video.frame_names) - (last_frame == "drop")
    annotated = set(video.annotated)
    return [i for i in range(count) if not annotated_only or video.frame_names[i] in annotated]


def uses_stored_flow(video: EvalVideo, method: FlowMethod | RenderingSource) -> bool:
    """Whether a video's flow is that of its data set: if it has any, and no other files are named."""
    return video.flow is not None and not isinstance(method, RenderingSource | FlowFiles)


def frame_pairs(video: EvalVideo, wanted: Sequence[int], method: FlowMethod | RenderingSource,
                last_frame: str) -> Iterator[Pair]:
    """Frames with renderings of their forward flow, which is that between neighbours in the whole video.

    The data set's stored flow is used where the video has it, made as large as the frames. Else only the flow
    of the frames that are wanted is computed.

    Args:
        video: the video.
        wanted: numbers of the frames, ascending.
        method: computes flow that is not stored; or the flow files of this video, which come first.
        last_frame: the rule for the flow of the last frame, see `flow_renderings`.

    Yields:
        (frame, rendering), both uint8 [H, W, 3] RGB; the renderings of a `RenderingSource` that has several
        for a frame [N, H, W, 3].

    Raises:
        UserError: the video has a single frame, whose flow would have to be estimated; or (while iterating)
            its stored flow has none for the last frame, and the rule asks for it.
    """
    estimates = not (uses_stored_flow(video, method) or isinstance(method, VideoFlowFiles))
    if estimates and len(video.frame_names) < 2:
        raise UserError(f"{video.name}: a video of one frame shows no motion; leave it out (--mode=doctor "
                        "lists all of them)")
    if isinstance(method, RenderingSource):
        return method.renderings(video.frames, last_frame, set(wanted))
    if uses_stored_flow(video, method):
        return _stored_pairs(video, wanted, last_frame)
    if list(wanted) == list(range(len(video.frame_names) - (last_frame == "drop"))):
        return iter(flow_renderings(video.frames, method, last_frame))
    return _computed_pairs(video, set(wanted), method, last_frame)


def _stored_pairs(video: EvalVideo, wanted: Sequence[int], last_frame: str) -> Iterator[Pair]:
    chosen, flow = set(wanted), None
    for index, (frame, stored) in enumerate(itertools.zip_longest(video.frames, video.flow)):
        if stored is None and last_frame == "backward" and index in chosen:
            raise UserError(f"{video.name}: there is no stored flow of its last frame, and "
                            "config.flow.last_frame='backward' would need flow to the frame before it: use "
                            "'repeat' or 'drop'")
        flow = flow if stored is None else stored
        if index in chosen:
            yield frame, _of_size(flow, frame.shape[:2])


def _of_size(rendering: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Data sets may bring flow renderings smaller or larger than the frames."""
    return rendering if rendering.shape[:2] == size else cv2.resize(rendering, size[::-1])


def _computed_pairs(video: EvalVideo, wanted: set[int], method: FlowMethod,
                    last_frame: str) -> Iterator[Pair]:
    last = len(video.frame_names) - 1
    for (index, frame), (_, following) in itertools.pairwise(enumerate(video.frames)):
        here = (index, last) if index + 1 == last else (index,)
        if wanted.isdisjoint(here):
            continue
        pairs = flow_renderings([frame, following], method, last_frame)
        for number, pair in zip(here, pairs, strict=False):
            if number in wanted:
                yield pair

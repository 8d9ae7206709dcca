"""Masks that agree over time: logits go along optical flow, forward and backward. Not in the paper.

A frame's flow shows what moves just then; who stands still for a moment, or moves one arm, shows in other
frames. On the way forward each place takes over what its place in the frame before gathered,

    f_t = (1 - s · trust) · l_t + s · trust · f_{t-1} where the flow leads,

l the network's logits and s `config.propagation`. The same is done on the way back, and the mean of both is
the frame's. Where the flow is not to be trusted (`input_pipeline.flow.neighbours`), a place keeps its own.

The idea is that of temporal filtering along motion trajectories, as in Lang et al., "Practical Temporal
Consistency for Image-Based Graphics Applications", SIGGRAPH 2012.

With `config.primary_share` what is not the primary object is then left out of the masks (`dattt_jax.tubes`).

Where test-time training learns from predictions, those of the unadapted network are propagated before it and
teach it (`Propagation.predicted`), and those of the adapted network are propagated after it.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np

from dattt_jax.ttt import FrameResult, Frames
from dattt_jax.tubes import Tubes
from input_pipeline.array_file import ArrayFile
from input_pipeline.flow.consistency import warp
from input_pipeline.flow.neighbours import neighbour_motion

_LEAST = 1e-3  # probability, where a logit is taken of it


def follow(own: np.ndarray, before: np.ndarray, motion: np.ndarray, share: float) -> np.ndarray:
    """One frame of one way.

    Args:
        own: logits of the frame, float32 [h, w].
        before: what the neighbour has gathered, float32 [h, w].
        motion: from the frame to the neighbour, [h, w, 3], see `neighbour_motion`.
        share: of the neighbour where the motion is trusted, in 0..1.

    Returns:
        What the frame has gathered, float32 [h, w].
    """
    weight = share * motion[..., 2]
    return (1 - weight) * own + weight * warp(before, motion[..., :2])


@dataclasses.dataclass(frozen=True)
class Propagation:
    """How masks of videos are made to agree over time.

    Attributes:
        share: of the neighbouring frame, at least 0 (masks of frames stay their own) and below 1.
        grid: (h, w) of the network's logits.
        upsample: (frame uint8 [H, W, 3], logits float32 [h, w]) -> probability float32 [H, W].
        primary_share: of the largest object below which one is left out, see `Tubes`; 0 keeps all.
    """

    share: float
    grid: tuple[int, int]
    upsample: Callable[[np.ndarray, np.ndarray], np.ndarray]
    primary_share: float = 0.0

    @contextlib.contextmanager
    def of_video(self, count: int, folder: Path, name: str = "") -> "Iterator[VideoPropagation]":
        """What gathers the predictions of a video.

        Args:
            count: of its frames.
            folder: of its files.
            name: of the file of what it takes, to go on with after a crash; '' if it need not stay.

        Raises:
            UserError: the disk is full.
        """
        with ArrayFile(folder, count, self.grid, name=name) as logits:
            yield VideoPropagation(self, logits, count, folder)

    @contextlib.contextmanager
    def predicted(self, clip: Frames, results: Iterable[FrameResult],
                  frames: Callable[[], Iterable[np.ndarray]], folder: Path) -> "Iterator[PredictedClip]":
        """A clip that says of each frame what the unadapted network makes of it.

        Args:
            clip: of the video.
            results: its frames as the unadapted network predicts them.
            frames: gives the frames, uint8 [H, W, 3] RGB in order.
            folder: of temporary files.

        Raises:
            UserError: the disk is full.
        """
        with ArrayFile(folder, len(clip), self.grid) as known:
            with self.of_video(len(clip), folder) as gathered:
                for result in results:
                    gathered.take(result.index, result.probability)
                for t, logits in enumerate(gathered.logits(frames)):
                    known[t] = logits
            yield PredictedClip(clip, known)


class PredictedClip:
    """A clip whose frames have a 'prediction', see `Objective.learns_predictions`."""

    def __init__(self, clip: Frames, logits: ArrayFile) -> None:
        self._clip, self._logits = clip, logits

    def __len__(self) -> int:
        return len(self._clip)

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """As the clip, and 'prediction' float32 [n, h, w]."""
        known = np.stack([self._logits[index] for index in indices])
        return self._clip.read(indices) | {"prediction": known.astype(np.float32)}


class VideoPropagation:
    """Takes the predictions of a video's frames in any order, and gives them back when all are there.

    Memory does not depend on the number of frames: the rest is in files. Made by `Propagation.of_video`.
    """

    def __init__(self, propagation: Propagation, logits: ArrayFile, count: int, folder: Path) -> None:
        self._propagation, self._logits, self._count, self._folder = propagation, logits, count, folder

    def take(self, index: int, probability: np.ndarray) -> None:
        """Remembers the prediction float32 [H, W] of a frame."""
        small = cv2.resize(probability, self._propagation.grid[::-1], interpolation=cv2.INTER_AREA)
        small = np.clip(small, _LEAST, 1 - _LEAST)
        self._logits[index] = np.log(small / (1 - small))

    def results(self, frames: Callable[[], Iterable[np.ndarray]]) -> Iterator[np.ndarray]:
        """Probabilities float32 [H, W] of all frames, in order.

        Args:
            frames: gives the frames, uint8 [H, W, 3] RGB in order; called twice.

        Raises:
            UserError: the disk is full.
        """
        for logits, frame in zip(self.logits(frames), frames(), strict=True):
            yield self._propagation.upsample(frame, logits)

    def logits(self, frames: Callable[[], Iterable[np.ndarray]]) -> Iterator[np.ndarray]:
        """Logits float32 [h, w] of all frames, in order; as `results`, but `frames` is called once."""
        count, grid, share = self._count, self._propagation.grid, self._propagation.share
        if not count:
            return
        with contextlib.ExitStack() as stack:
            motion, agreed = (stack.enter_context(ArrayFile(self._folder, count, shape))
                              for shape in ((2, *grid, 3), grid))
            for t, pair in enumerate(neighbour_motion(frames(), grid)):
                motion[t] = pair
            gathered = self._own(count - 1)
            agreed[count - 1] = gathered
            for t in range(count - 2, -1, -1):
                gathered = follow(self._own(t), gathered, motion[t][0].astype(np.float32), share)
                agreed[t] = gathered
            tubes = Tubes(self._propagation.primary_share)
            for t in range(count):
                own = self._own(t)
                gathered = follow(own, gathered, motion[t - 1][1].astype(np.float32), share) if t else own
                agreed[t] = (gathered + agreed[t]) / 2
                tubes.add(agreed[t], motion[t - 1][0] if t else None)
            for t in range(count):
                yield tubes.primary(t, agreed[t].astype(np.float32))

    def _own(self, t: int) -> np.ndarray:
        return self._logits[t].astype(np.float32)

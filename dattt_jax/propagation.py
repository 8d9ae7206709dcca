"""Masks that agree over time: logits go along optical flow, forward and backward. Not in the paper.

A frame's flow shows what moves just then; who stands still for a moment, or moves one arm, shows in other
frames. On the way forward each place takes over what its place in the frame before gathered, logits f of a
weight w, which are the mean of the frames' logits l of weights c:

    w_t       = c_t       + s · trust · w_{t-1}             where the flow leads,
    w_t · f_t = c_t · l_t + s · trust · w_{t-1} · f_{t-1}   where the flow leads,

s `config.propagation` and c_t the fourth power of how sure the network is of the object in the frame
(`dattt_jax.sureness`). The same is done on the way back. A frame's logits are the mean of both ways by their
weights, its own counted once. Where the flow is not to be trusted (`input_pipeline.flow.neighbours`), nothing
is taken over. All this on twice as many places a side as the network's logits have, for small objects.

The idea is that of temporal filtering along motion trajectories, as in Lang et al., "Practical Temporal
Consistency for Image-Based Graphics Applications", SIGGRAPH 2012.

With `config.primary_share` what is not the primary object is then left out of the masks (`dattt_jax.tubes`).

Where test-time training learns from predictions, those of the unadapted network are propagated before it and
teach it (`Propagation.predicted`), and those of the adapted network are propagated after it.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np

from dattt_jax.errors import UserError
from dattt_jax.sureness import sureness
from dattt_jax.ttt import FrameResult, Frames
from dattt_jax.tubes import Tubes
from input_pipeline.array_file import ArrayFile
from input_pipeline.flow.consistency import warp
from input_pipeline.flow.neighbours import neighbour_motion

_FINER = 2  # places a side on which masks propagate, for one of the network's logits
_LEAST = 1e-3  # probability, where a logit is taken of it
_LEAST_SURE = 0.3  # of a frame in which the network sees nothing: it still speaks against what comes to it
_NO_TRUST = 0.2  # of a motion, at and below which nothing is taken over: nothing passes a cut


def follow(own: np.ndarray, before: np.ndarray, motion: np.ndarray, share: float) -> np.ndarray:
    """One frame of one way.

    Args:
        own: the frame's logits and their weight, float32 [h, w, 2].
        before: what the neighbour has gathered, as `own`.
        motion: from the frame to the neighbour, [h, w, 3], see `neighbour_motion`.
        share: of the neighbour's weight that the frame takes over where the motion is trusted, in 0..1.

    Returns:
        What the frame has gathered, as `own`: means of logits, and the sum of weights.
    """
    trust = np.maximum(motion[..., 2] - _NO_TRUST, 0) / (1 - _NO_TRUST)
    logits = warp(before[..., 0], motion[..., :2], smooth=True)  # or small objects would blur away
    weight = share * trust * warp(before[..., 1], motion[..., :2])
    total = own[..., 1] + weight
    return np.stack([(own[..., 1] * own[..., 0] + weight * logits) / total, total], axis=-1)


@dataclasses.dataclass(frozen=True)
class Propagation:
    """How masks of videos are made to agree over time.

    Attributes:
        share: of what the neighbour gathered, at least 0 (masks of frames stay their own) and below 1.
        grid: (h, w) of the network's logits.
        upsample: (frame uint8 [H, W, 3], logits float32 [h, w]) -> probability float32 [H, W].
        primary_share: of the largest object below which one is left out, see `Tubes`; 0 keeps all.
    """

    share: float
    grid: tuple[int, int]
    upsample: Callable[[np.ndarray, np.ndarray], np.ndarray]
    primary_share: float = 0.0

    @property
    def finer(self) -> tuple[int, int]:
        """(h, w) of the places on which masks propagate."""
        return self.grid[0] * _FINER, self.grid[1] * _FINER

    @contextlib.contextmanager
    def of_video(self, count: int, folder: Path, name: str = "") -> "Iterator[VideoPropagation]":
        """What gathers the predictions of a video.

        Its room on disk is taken at once: 680 kB a frame for a grid of 96×96.

        Args:
            count: of its frames.
            folder: of its files.
            name: of the file of what it takes, to go on with after a crash; '' if it need not stay.

        Raises:
            UserError: the disk is full.
        """
        shapes = {"motion": (2, *self.finer, 3), "gathered": (*self.finer, 2), "agreed": self.grid,
                  "logits": self.finer}
        with contextlib.ExitStack() as stack:
            try:
                files = {what: stack.enter_context(ArrayFile(folder, count, shape,
                                                             name=name if what == "logits" else ""))
                         for what, shape in shapes.items()}
            except UserError as error:
                room = count * sum(map(math.prod, shapes.values())) * np.dtype(np.float16).itemsize
                raise UserError(f"{folder}: the disk is full; make space here for {room / 2**20:.0f} MiB, in "
                                "which masks are made to agree over time") from error
            yield VideoPropagation(self, count, **files)

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

    Args:
        propagation: what made it.
        count: of frames; each has an item, float16, in every file:
        logits: of its prediction, [2h, 2w], (h, w) being the network's grid.
        motion: to the next frame and back, [2, 2h, 2w, 3], see `neighbour_motion`.
        gathered: on the way back, [2h, 2w, 2], see `follow`.
        agreed: logits of both ways, [h, w].
    """

    def __init__(self, propagation: Propagation, count: int, logits: ArrayFile, motion: ArrayFile,
                 gathered: ArrayFile, agreed: ArrayFile) -> None:
        self._propagation, self._count, self._logits = propagation, count, logits
        self._motion, self._gathered, self._agreed = motion, gathered, agreed

    def take(self, index: int, probability: np.ndarray) -> None:
        """Remembers the prediction float32 [H, W] of a frame."""
        self._logits[index] = _logit(_reduced(probability, self._propagation.finer))

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
        count, grid, finer = self._count, self._propagation.grid, self._propagation.finer
        if not count:
            return
        for t, pair in enumerate(neighbour_motion(frames(), finer)):
            self._motion[t] = pair
        for t, backward in self._one_way(reversed(range(count))):
            self._gathered[t] = backward
        tubes = Tubes(self._propagation.primary_share)
        for t, forward in self._one_way(range(count)):
            backward = self._gathered[t].astype(np.float32)
            self._agreed[t] = _reduced(_both(forward, backward, self._own(t)), grid)
            onward = _reduced(self._motion[t - 1][0], grid) / (_FINER, _FINER, 1) if t else None
            tubes.add(self._agreed[t], onward)
        for t in range(count):
            yield tubes.primary(t, self._agreed[t].astype(np.float32))

    def _one_way(self, order: Iterable[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Every frame's number, in that order, and what it gathers."""
        gathered, before = None, None
        for t in order:
            own = self._own(t)
            if before is None:
                gathered = own
            else:  # a pair's motion is with its earlier frame: from that to the later one, and back
                to_before = self._motion[min(t, before)][int(before < t)].astype(np.float32)
                gathered = follow(own, gathered, to_before, self._propagation.share)
            before = t
            yield t, gathered

    def _own(self, t: int) -> np.ndarray:
        """A frame's logits and their weight: float32 [h, w, 2]."""
        logits = self._logits[t].astype(np.float32)
        probability = 1 / (1 + np.exp(-logits))
        probability[probability < 2 * _LEAST] = 0  # what was raised to the least, and in all is no object
        weight = max(sureness(probability), _LEAST_SURE) ** 4
        return np.stack([logits, np.full_like(logits, weight)], axis=-1)


def _both(forward: np.ndarray, backward: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Logits [h, w] of what was gathered on both ways, each [h, w, 2], with the frame's own counted once."""
    (logits1, weight1), (logits2, weight2), (logits, weight) = (
        np.moveaxis(part, -1, 0) for part in (forward, backward, own))
    return (weight1 * logits1 + weight2 * logits2 - weight * logits) / (weight1 + weight2 - weight)


def _reduced(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Means of [H, W] or [H, W, C] over what lies in each of the places [h, w], float32."""
    return cv2.resize(values.astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA)


def _logit(probability: np.ndarray | float) -> np.ndarray:
    """Logits of probabilities, which stay `_LEAST` away from 0 and 1."""
    inside = np.clip(probability, _LEAST, 1 - _LEAST)
    return np.log(inside / (1 - inside))

"""A corrupted view of a video with ground truth."""

import dataclasses
import hashlib
from collections.abc import Iterator

import numpy as np

from input_pipeline.corruptions.registry import find_corruption
from input_pipeline.eval_videos import EvalVideo


def corrupt_video(video: EvalVideo, name: str, level: int, seed: int, temporally_consistent: bool,
                  dataset: str = "") -> EvalVideo:
    """The video with every frame corrupted, the same masks, and no stored flow: it is to be computed anew.

    Frames are corrupted when they are read, one at a time and at their own size, and come out the same
    every time they are read. They are rounded to the nearest integer and clipped to 0..255: Robust-VOS
    keeps fractions and values outside, which no image file and no uint8 pipeline can.

    Args:
        video: the clean video; it is not changed.
        name: key of `CORRUPTIONS`.
        level: 1 (weakest) to the number of levels, 3 in most.
        seed: of the random numbers.
        temporally_consistent: one draw for all frames of the video, so that noise stands still; else a new
            draw for each frame, as the published benchmarks have it. The same for what draws nothing.
        dataset: name of the data set, so that videos of equal name differ between data sets.

    Returns:
        The corrupted video; its frames are uint8 [H, W, 3] as before.

    Raises:
        UserError: there is no such name or level; lists those there are.
    """
    find_corruption(name, level)
    return dataclasses.replace(video, flow=None, frames=_CorruptedFrames(
        video, name, level, seed, temporally_consistent, dataset))


def corruption_rng(seed: int, name: str, level: int, dataset: str, video: str,
                   frame_name: str | None) -> np.random.Generator:
    """Random numbers that belong to a frame, whatever was read before it and by which process.

    Args:
        seed: of the run.
        name: of the corruption.
        level: of the corruption.
        dataset: name of the data set.
        video: name of the video.
        frame_name: name of the frame; None for the numbers that all frames of the video share.

    Returns:
        A new generator, the same for the same arguments on every machine.
    """
    # repr() marks where one part ends, so that no two lists of parts read alike.
    key = repr((seed, name, level, dataset, video, frame_name)).encode()
    digest = hashlib.blake2b(key, digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))


@dataclasses.dataclass(frozen=True)
class _CorruptedFrames:
    """Frames of a video, corrupted whenever they are iterated over; fields as in `corrupt_video`."""

    video: EvalVideo
    name: str
    level: int
    seed: int
    temporally_consistent: bool
    dataset: str

    def __iter__(self) -> Iterator[np.ndarray]:
        corruption, parameters = find_corruption(self.name, self.level)
        frames = (np.asarray(frame, np.float32) for frame in self.video.frames)
        if corruption.on_clip:
            corrupted = corruption.apply(frames, **parameters)
        else:
            corrupted = (corruption.apply(frame, self._rng(frame_name), **parameters)
                         for frame, frame_name in zip(frames, self.video.frame_names, strict=True))
        for frame in corrupted:
            yield np.clip(np.rint(frame), 0, 255).astype(np.uint8)

    def _rng(self, frame_name: str) -> np.random.Generator:
        return corruption_rng(self.seed, self.name, self.level, self.dataset, self.video.name,
                              None if self.temporally_consistent else frame_name)

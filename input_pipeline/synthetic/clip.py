"""Clips of synthetic video with exact labels, reproducible from (config, seed, index)."""

import dataclasses

import cv2
import numpy as np

from input_pipeline.synthetic.build import build_scene
from input_pipeline.synthetic.config import SyntheticConfig
from input_pipeline.synthetic.effects import Effects, apply_effects, draw_effects
from input_pipeline.synthetic.render import Rendering, largest_motion, render
from input_pipeline.synthetic.scene import Scene

# Streams of randomness of one clip, so that (say) noise never depends on the scene's draws.
_SCENE, _EFFECTS, _NOISE = range(3)


@dataclasses.dataclass(frozen=True)
class SyntheticClip:
    """A clip of T frames with what is true about them.

    Attributes:
        frames: uint8 [T, H, W, 3] RGB.
        mask: uint8 [T, H, W], 1 where a primary moving object is visible.
        flow: float32 [T, H, W, 2], exact motion (dx, dy) in pixels of what is visible at a pixel
            of frame t to frame t + 1; the last frame's leads to the frame that would follow.
        depth: float32 [T, H, W] in (0, 1], inverse depth relative to the nearest visible point of
            the same frame: near 1, far towards 0.
    """

    frames: np.ndarray
    mask: np.ndarray
    flow: np.ndarray
    depth: np.ndarray


class ClipRenderer:
    """Renders single frames of one clip, in any order.

    Args:
        config: the factors.
        seed: of the data set, 0 or more.
        index: of the clip, 0 or more.
    """

    def __init__(self, config: SyntheticConfig, seed: int, index: int) -> None:
        self._config, self._key = config, (seed, index)
        self._scene: Scene = build_scene(config, self._rng(_SCENE))
        self._effects: Effects = draw_effects(config, self._rng(_EFFECTS))

    def _rng(self, *stream: int) -> np.random.Generator:
        return np.random.default_rng([*self._key, *stream])

    def frame(self, frame: int, *, flow_to: int | None = None) -> tuple[np.ndarray, Rendering]:
        """Returns (recorded frame uint8 [H, W, 3], its clean rendering) of frame number `frame`.

        The rendering has the exact flow to frame number `flow_to`, if that is given. Numbers from the
        clip's length on are frames after it. Where graphics hide the scene, its mask and flow are 0.
        """
        effects = self._effects
        rendering = render(self._scene, frame, next_time=flow_to,
                           background_blur=effects.background_blur)
        if effects.graphics is not None:
            rendering.mask[effects.graphics.hidden] = 0
            if rendering.flow is not None:
                rendering.flow[effects.graphics.hidden] = 0
        image = rendering.image
        if effects.shutter > 0:
            image = self._exposed(frame, image)
        recorded = apply_effects(effects, image, rendering.inverse_depth, frame,
                                 self._rng(_NOISE, frame))
        return recorded, rendering

    def _exposed(self, frame: int, sharp: np.ndarray) -> np.ndarray:
        """Returns the mean image while the shutter is open around `frame`; `sharp` is in it."""
        half = self._effects.shutter / 2
        motion = largest_motion(self._scene, frame - half, frame + half)
        # An instant every 1.5 pixels is enough; an odd number, to have `sharp` in the middle.
        pairs = min(int(np.ceil(motion / 3)), (self._config.motion_blur_samples - 1) // 2)
        if not pairs:
            return sharp
        offsets = np.arange(1, pairs + 1) * half / pairs
        total = sharp.astype(np.float32)
        for offset in (*-offsets, *offsets):
            cv2.accumulate(render(self._scene, frame + offset, labels=False,
                                  background_blur=self._effects.background_blur).image, total)
        return cv2.convertScaleAbs(total, alpha=1 / (2 * pairs + 1))


def relative_depth(rendering: Rendering) -> np.ndarray:
    """Returns inverse depth scaled to a maximum of 1: float32 [H, W] in (0, 1]."""
    return rendering.inverse_depth / rendering.inverse_depth.max()


def generate_clip(config: SyntheticConfig, seed: int, index: int) -> SyntheticClip:
    """Returns clip `index` of the endless data set that (config, seed) names.

    The same arguments give the same bits in every process (with the same versions of NumPy and
    OpenCV on the same kind of machine).
    """
    renderer = ClipRenderer(config, seed, index)
    shots = [renderer.frame(frame, flow_to=frame + 1) for frame in range(config.num_frames)]
    return SyntheticClip(
        frames=np.stack([recorded for recorded, _ in shots]),
        mask=np.stack([rendering.mask for _, rendering in shots]),
        flow=np.stack([rendering.flow for _, rendering in shots]),
        depth=np.stack([relative_depth(rendering) for _, rendering in shots]))


class SyntheticVideos:
    """A sequence of `num_clips` clips for evaluation, generated when asked for.

    Args:
        config: the factors.
        seed: of the data set; a seed other than the training source's makes it held out.
        num_clips: length.
    """

    def __init__(self, config: SyntheticConfig, seed: int, num_clips: int) -> None:
        self._config, self._seed, self._num_clips = config, seed, num_clips

    def __len__(self) -> int:
        return self._num_clips

    def __getitem__(self, index: int) -> SyntheticClip:
        if not 0 <= index < self._num_clips:
            raise IndexError(f"clip {index} of {self._num_clips}")
        return generate_clip(self._config, self._seed, index)

    def name(self, index: int) -> str:
        """Returns a name for clip `index`, fit for a folder: "synthetic_00003"."""
        return f"synthetic_{index:05d}"

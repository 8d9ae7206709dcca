"""Training samples from synthetic clips, generated on the fly."""

import dataclasses
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from input_pipeline.flow import FlowMethod, create_flow, flow_to_rgb
from input_pipeline.synthetic.clip import ClipRenderer, relative_depth
from input_pipeline.synthetic.config import Range, SyntheticConfig


class SyntheticTrainSource:
    """A random-access source of `length` training samples, fit for Grain.

    Sample i is one frame of clip i; the frame's number is drawn too. Only that frame and, where
    the flow is estimated, the one it leads to are rendered. Safe to call from several threads.

    Frames larger than the samples make the flow as sharp at the object's border as that of real video,
    which is estimated at the video's own size: blurred flow teaches blurred masks. How much the network's
    input reduces a video depends on the video, and differs between its two sides.

    Args:
        config: the factors; its `size` is that of the samples.
        seed: of the data set; (config, seed, index) fixes the sample.
        length: number of samples.
        flow_method: "exact" for the rendered scene's own motion, or a name that
            `input_pipeline.flow.create_flow` knows, to see the flow that inference sees.
        flow_options: of that method, for all gaps or for each of them.
        render_scale: (low, high), 1 or more: each side of a sample's frames is `size` times a number drawn
            from it. The flow is rendered in colours and then reduced, both plainly bilinear, as at inference.
        gaps: how many frames later (or, negative, earlier) the frame is that the flow leads to; a
            sample draws one of them.

    Raises:
        UserError: there is no such flow method or option, or it cannot be used.
    """

    def __init__(self, config: SyntheticConfig, seed: int, length: int, flow_method: str,
                 flow_options: Sequence[Mapping[str, Any]] = ({},), render_scale: Range = (1.0, 1.0),
                 gaps: Sequence[int] = (1,)) -> None:
        self._config, self._seed, self._length = config, seed, length
        self._flow_method, self._flow_options = flow_method, tuple(map(dict, flow_options))
        self._render_scale, self._gaps = tuple(render_scale), tuple(gaps)
        self._local = threading.local()  # a flow method may keep buffers: one per thread
        if flow_method != "exact":
            self._flow(0)  # fails now rather than in a worker

    def __len__(self) -> int:
        return self._length

    def __getstate__(self) -> tuple:
        return (self._config, self._seed, self._length, self._flow_method, self._flow_options,
                self._render_scale, self._gaps)

    def __setstate__(self, state: tuple) -> None:
        self.__init__(*state)

    def __repr__(self) -> str:
        return (f"SyntheticTrainSource({self._config}, seed={self._seed}, length={self._length}, "
                f"flow_method={self._flow_method!r}, flow_options={self._flow_options}, "
                f"render_scale={self._render_scale}, gaps={self._gaps})")

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Returns sample `index`.

        Returns:
            image: uint8 [H, W, 3] RGB; flow: uint8 [H, W, 3], colour-wheel rendering of the flow
            to the frame of the drawn gap; mask: uint8 [H, W, 1] in {0, 1}; depth: float32 [H, W, 1]
            in (0, 1].
        """
        index = int(index)
        if not 0 <= index < self._length:
            raise IndexError(f"sample {index} of {self._length}")
        frame, gap, size = self._draw(index)
        other = frame + self._gaps[gap]
        renderer = ClipRenderer(dataclasses.replace(self._config, size=size), self._seed, index)
        image, rendering = renderer.frame(frame, flow_to=other if self._flow_method == "exact" else None)
        flow = rendering.flow
        if flow is None:
            flow = self._flow(gap)(image, renderer.frame(other)[0])
        sample = {"image": image, "flow": flow_to_rgb(flow), "mask": rendering.mask,
                  "depth": relative_depth(rendering)}
        if size != self._config.size:
            sample = {name: self._reduced(array, name) for name, array in sample.items()}
        return sample | {name: sample[name][..., None] for name in ("mask", "depth")}

    def _reduced(self, array: np.ndarray, name: str) -> np.ndarray:
        way = cv2.INTER_NEAREST_EXACT if name == "mask" else cv2.INTER_LINEAR
        return cv2.resize(array, self._config.size[::-1], interpolation=way)

    def name(self, index: int) -> str:
        """`<clip>/<frame>` of sample `index`, for people."""
        return f"synthetic_{index:05d}/{self._draw(index)[0]:05d}"

    def _draw(self, index: int) -> tuple[int, int, tuple[int, int]]:
        """The numbers of the sample's frame and of its gap, and the frames' size."""
        rng = np.random.default_rng([self._seed, index])
        # Far enough from the clip's start that no number is negative.
        frame = int(rng.integers(self._config.num_frames)) + max(0, -min(self._gaps))
        gap = int(rng.integers(len(self._gaps)))
        height, width = np.round(rng.uniform(*self._render_scale, 2) * self._config.size).astype(int).tolist()
        return frame, gap, (height, width)

    def _flow(self, gap: int) -> FlowMethod:
        """The method for the gap of that number."""
        if not hasattr(self._local, "flows"):
            self._local.flows = [create_flow(self._flow_method, **options) for options in self._flow_options]
        return self._local.flows[gap % len(self._local.flows)]

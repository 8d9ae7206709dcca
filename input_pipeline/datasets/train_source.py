"""Training samples from prepared data, fit for Grain."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from dattt_jax.errors import UserError
from input_pipeline.datasets.prepared import PreparedData


class PreparedTrainSource:
    """A random-access source of the frames that have a mask and flow, one sample each.

    Frames are resized to the network's input without keeping their aspect, as in the authors' code
    (section 4.1): image and flow by Pillow's antialiased bilinear, the mask by its nearest, depth
    bicubically without antialias and without clamping, so that it may leave [0, 1] a little at edges.
    On the host these are Pillow and OpenCV themselves: `dattt_jax.image_ops` has the same arithmetic for
    the device, to which whole frames of varying sizes would have to be copied and compiled for. Both
    release the interpreter lock. Safe to call from several threads.

    Args:
        root: the `--workdir` of `--mode=prepare`.
        input_size: (height, width) of the samples in pixels.
        require_depth: every sample has a depth target; without it samples have no depth.

    Raises:
        UserError: the data cannot be read (see `PreparedData`), no frame has both mask and flow, or one of
            them has no depth target though it is required.
    """

    def __init__(self, root: str | Path, input_size: tuple[int, int], require_depth: bool) -> None:
        self._data, self._input_size = PreparedData(root), tuple(input_size)
        self._require_depth = require_depth
        self._samples: list[int] = []  # indices into the data
        self._names: list[str] = []
        for video in self._data.videos:
            with_depth = set(video.depth)
            for index in sorted(set(video.annotated) & set(video.flow)):
                self._samples.append(video.first + index)
                self._names.append(f"{video.name}/{video.frame_names[index]}")
                if require_depth and index not in with_depth:
                    raise UserError(
                        f"{root}: {self._names[-1]} has no depth map: run --mode=prepare in another "
                        "--workdir with depth maps in the data set or config.depth.method set, or train "
                        "without depth targets: config.train.depth_weight=0")
        if not self._samples:
            raise UserError(f"{root}: no frame has both a mask and flow, so there is nothing to train on")

    def __len__(self) -> int:
        return len(self._samples)

    def __getstate__(self) -> tuple:
        return self._data.root, self._input_size, self._require_depth

    def __setstate__(self, state: tuple) -> None:
        self.__init__(*state)

    @property
    def identity(self) -> str:
        """A hash of what was prepared, wherever it lies."""
        return self._data.metadata["identity"]

    @property
    def stabilized(self) -> bool:
        """See `PreparedData`."""
        return self._data.stabilized

    def name(self, index: int) -> str:
        """`<video>/<frame>` of sample `index`, for people."""
        return self._names[index]

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Returns sample `index`.

        Returns:
            image: uint8 [H, W, 3] RGB; flow: uint8 [H, W, 3], colour-wheel rendering of the flow to the next
            frame; mask: uint8 [H, W, 1] in {0, 1}; depth, if required: float32 [H, W, 1], about 0..1, not
            above 0 where unknown.
        """
        index = int(index)
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        frame = self._data[self._samples[index]]
        height, width = self._input_size
        sample = {name: np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
                  for name, image in (("image", frame.image()), ("flow", frame.flow()))}
        mask = Image.fromarray(frame.mask().astype(np.uint8))
        sample["mask"] = np.asarray(mask.resize((width, height), Image.Resampling.NEAREST))[..., None]
        if self._require_depth:
            depth = cv2.resize(frame.depth(), (width, height), interpolation=cv2.INTER_CUBIC)
            sample["depth"] = depth[..., None]
        return sample

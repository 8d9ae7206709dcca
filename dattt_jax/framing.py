"""Frames of many sizes in a few programs: padded to buckets, their sizes and resizing given as data.

A program is compiled for the shapes of its arrays. So frames are padded at the bottom and right to multiples
of 256, and what depends on their own size (where they end, which pixels a resized pixel mixes) comes with
them in a `Framing`. The numbers are those of the plain form in `dattt_jax.forward` and `dattt_jax.augment`,
which reads the size from the shape; `tests/test_framing.py` compares.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dattt_jax.image_ops import Array, Taps, resample, resize_taps

Size = tuple[int, int]
Batch = dict[str, Any]

_BUCKET = 256  # 854×480 and 848×480 become 1024×512; most sizes of a data set fall into one or two
STRIDE = 4  # of the network's logits

OUTSIDE = -1.0  # the probability where a padded frame has no pixel


class Framing(NamedTuple):
    """Where a frame is in a larger array, and how it is resized.

    Attributes:
        size: int32 [2], (height, width) of the frame, which is at the top left.
        to_input: taps of the rows and of the columns that resize the frame to the network's input.
        to_frame: taps of the array's rows and columns that resize logits to the frame; weights 0 outside it.
    """

    size: Array
    to_input: tuple[Taps, Taps]
    to_frame: tuple[Taps, Taps]

    def resize_to_input(self, image: jax.Array) -> jax.Array:
        """Images float [B, H, W, C] that hold the frame -> [B, h, w, C], bilinear without antialias."""
        return _resample_both(image, self.to_input)

    def resize_to_frame(self, logits: jax.Array) -> jax.Array:
        """Logits float [B, h/4, w/4, C] -> [B, H, W, C], bilinear; 0 outside the frame."""
        return _resample_both(logits, self.to_frame)

    def inside(self) -> jax.Array:
        """Which pixels of the array are the frame's: bool [H, W]."""
        rows, columns = (jnp.arange(taps[0].shape[0]) < size
                         for taps, size in zip(self.to_frame, self.size, strict=True))
        return rows[:, None] & columns


def _resample_both(image: jax.Array, taps: tuple[Taps, Taps]) -> jax.Array:
    """Resamples rows and columns of [B, H, W, C], the smaller intermediate first."""
    axes = sorted(enumerate(taps, 1), key=lambda item: item[1][0].shape[0] / image.shape[item[0]])
    for axis, axis_taps in axes:
        image = resample(image, axis_taps, axis)
    return image


@dataclasses.dataclass(frozen=True)
class Buckets:
    """Pads frames for programs that resize them to `input_size`."""

    input_size: Size

    def pack(self, batch: Batch) -> tuple[Batch, Callable[[np.ndarray], np.ndarray]]:
        """Makes of frames what the programs take; see `Problem.pack`.

        Args:
            batch: {'image': uint8 [n, H, W, 3], 'flow': uint8 [n, H, W, 3] or [n, N, H, W, 3], …} of one
                size; other arrays are left as they are.

        Returns:
            (the batch with 'image' and 'flow' padded and 'framing' added, whose arrays have the first axis n;
            a function that cuts maps [..., padded H, padded W] to [..., H, W]).
        """
        count, height, width = batch["image"].shape[:3]
        framing = framing_of((height, width), self.input_size)
        rows, columns = (taps[0].shape[0] for taps in framing.to_frame)
        margin = ((0, rows - height), (0, columns - width), (0, 0))
        padded = {name: np.pad(batch[name], [(0, 0)] * (batch[name].ndim - 3) + list(margin))
                  for name in ("image", "flow") if name in batch}
        framings = jax.tree.map(lambda x: np.broadcast_to(x, (count, *x.shape)), framing)
        return batch | padded | {"framing": framings}, lambda maps: maps[..., :height, :width]


@functools.lru_cache(maxsize=64)
def framing_of(size: Size, input_size: Size) -> Framing:
    """The framing of frames of `size` padded to their bucket, NumPy arrays."""
    def to_frame(side: int, input_side: int) -> Taps:
        taps = resize_taps(side, -(-input_side // STRIDE))
        return tuple(np.pad(x, ((0, -side % _BUCKET), (0, 0))) for x in taps)

    sides = list(zip(size, input_size, strict=True))
    return Framing(np.asarray(size, np.int32),
                   tuple(resize_taps(input_side, side) for side, input_side in sides),
                   tuple(to_frame(*side) for side in sides))

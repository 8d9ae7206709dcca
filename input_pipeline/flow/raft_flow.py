"""RAFT as a flow method: weights, padding, batches, and how much of the correlation is in memory."""

from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dattt_jax.errors import UserError
from dattt_jax.network_files import flat_shapes, read_network
from input_pipeline.flow.correlation import volume_bytes
from input_pipeline.flow.raft import RAFT_SIZES, STRIDE, Raft

MIN_SIDE = 128  # below, the coarsest correlation map has a side of one cell
_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
_ACCELERATOR_BATCH = 4
_PART_BYTES = 256 * 2**20  # of correlation at once where the whole is not held
_GIB = 2**30


@cache
def raft_shapes(network: str) -> dict[str, tuple[int, ...]]:
    """Shapes of the network's variables by their paths, see `flat_shapes`."""
    image = jax.ShapeDtypeStruct((1, MIN_SIDE, MIN_SIDE, 3), jnp.float32)
    init = partial(Raft(RAFT_SIZES[network]).init, iterations=1)
    return flat_shapes(jax.eval_shape(init, jax.random.key(0), image, image))


class RaftFlow:
    """Flow by RAFT; see `input_pipeline.flow.raft`. Compiled once per padded size and batch.

    Frames are padded to multiples of 8 by repeating their edges, as the authors' inference does: half above
    and half below, half left and half right, what is odd below and right.

    Args:
        network: "raft_small" or "raft_large".
        variables: its weights.
        weights_digest: a hash of them.
        iterations: refinements of the flow; the authors use 12 in training, 20 to 32 in tests.
        dtype: compute type of the encoders and the update: "float32", with products in full precision, or
            "bfloat16". The correlation is float32 in both.
        batch_size: pairs at once in `batch`; 0 = 4 on an accelerator, 1 on a CPU.
        volume_gib: largest correlation of a batch that is held in memory, GiB; batches are made smaller for
            it, and where one pair's is above, it is computed in parts, anew in each iteration. One pair of
            1920x1080 needs 5.3.

    Attributes:
        identity: network, parameters and hash of the weights.
        batch_size: see above.

    Raises:
        UserError: a parameter is out of range.
    """

    def __init__(self, network: str, variables: Any, weights_digest: str, *, iterations: int, dtype: str,
                 batch_size: int, volume_gib: float) -> None:
        if iterations < 1:
            raise UserError(f"config.flow.iterations={iterations}: give 1 or more")
        if dtype not in _DTYPES:
            raise UserError(f"config.flow.dtype={dtype!r}: use one of {', '.join(_DTYPES)}")
        if batch_size < 0:
            raise UserError(f"config.flow.batch_size={batch_size}: give 0 or more")
        if volume_gib < 0:
            raise UserError(f"config.flow.volume_gib={volume_gib}: give 0 or more")
        self.identity = f"{network}(iterations={iterations}, dtype={dtype}, weights={weights_digest})"
        self.batch_size = batch_size or (1 if jax.default_backend() == "cpu" else _ACCELERATOR_BATCH)
        self._network, self._volume_bytes = network, volume_gib * _GIB
        self._variables = jax.device_put(variables)
        model = Raft(RAFT_SIZES[network], _DTYPES[dtype])
        precision = "highest" if dtype == "float32" else "default"

        def estimate(variables: Any, images0: jax.Array, images1: jax.Array, part: int) -> jax.Array:
            with jax.default_matmul_precision(precision):
                return model.apply(variables, images0, images1, iterations=iterations, part=part)[1]

        self._estimate = jax.jit(estimate, static_argnums=3)

    def __call__(self, image0: np.ndarray, image1: np.ndarray) -> np.ndarray:
        """Computes the motion from `image0` to `image1`; see `FlowMethod`.

        Raises:
            UserError: a side of the frames is below 128 pixels, or they differ in size.
        """
        if image0.shape != image1.shape:
            sizes = " and ".join(f"{image.shape[1]}x{image.shape[0]}" for image in (image0, image1))
            raise UserError(f"two frames of different size, {sizes} (width x height): flow needs frames of "
                            "one size")
        return self._flow(image0[None], image1[None])[0]

    def batch(self, images0: np.ndarray, images1: np.ndarray) -> np.ndarray:
        """Computes the motion of several pairs; see `BatchFlowMethod`.

        Raises:
            UserError: a side of the frames is below 128 pixels.
        """
        fitting = int(self._volume_bytes // _pair_bytes(images0.shape[1:3]))
        size = max(1, min(self.batch_size, fitting))
        flows = []
        for start in range(0, len(images0), size):
            group = slice(start, start + size)
            count = len(images0[group])
            # The last group is filled up: a size of its own would be compiled for it.
            filled = [np.concatenate([images[group], np.repeat(images[-1:], size - count, 0)])
                      for images in (images0, images1)]
            flows.append(self._flow(*filled)[:count])
        return np.concatenate(flows)

    def _flow(self, images0: np.ndarray, images1: np.ndarray) -> np.ndarray:
        """One program's run: uint8 `[N, H, W, 3]` twice -> float32 `[N, H, W, 2]`."""
        height, width = images0.shape[1:3]
        if min(height, width) < MIN_SIDE:
            raise UserError(f"frames of {width}x{height} (width x height) are too small for flow "
                            f"{self._network!r}; it needs {MIN_SIDE} pixels on both sides: use larger frames "
                            "or config.flow.method=dis")
        margins = _margins(height), _margins(width)
        padded = [np.pad(images, ((0, 0), *margins, (0, 0)), mode="edge") for images in (images0, images1)]
        part = 0
        if _pair_bytes((height, width)) > self._volume_bytes:
            cells = padded[0].shape[1] // STRIDE * (padded[0].shape[2] // STRIDE)
            part = max(1, int(_PART_BYTES * cells // _pair_bytes((height, width))))
        flow = np.asarray(self._estimate(self._variables, *padded, part))
        top, left = margins[0][0], margins[1][0]
        return flow[:, top : top + height, left : left + width]


def _margins(size: int) -> tuple[int, int]:
    """Pixels added before and after, to a multiple of the stride."""
    missing = -size % STRIDE
    return missing // 2, missing - missing // 2


def _pair_bytes(size: tuple[int, int]) -> int:
    return volume_bytes(*(-(-side // STRIDE) for side in size))


def raft_small(*, weights: str = "", iterations: int = 12, dtype: str = "float32", batch_size: int = 0,
               volume_gib: float = 6.0) -> RaftFlow:
    """RAFT-small (1 M parameters) as a flow method.

    Args:
        weights: the file that `--mode=convert` made of `raft-small.pth` or torchvision's `raft_small_*.pth`.
        iterations: see `RaftFlow`.
        dtype: see `RaftFlow`.
        batch_size: see `RaftFlow`.
        volume_gib: see `RaftFlow`.

    Raises:
        UserError: the weights cannot be used, or a parameter is out of range.
    """
    return _create("raft_small", weights, iterations=iterations, dtype=dtype, batch_size=batch_size,
                   volume_gib=volume_gib)


def raft_large(*, weights: str = "", iterations: int = 12, dtype: str = "float32", batch_size: int = 0,
               volume_gib: float = 6.0) -> RaftFlow:
    """RAFT (5.3 M parameters) as a flow method.

    Args:
        weights: the file that `--mode=convert` made of `raft-things.pth`, `raft-sintel.pth`, … or
            torchvision's `raft_large_*.pth`.
        iterations: see `RaftFlow`.
        dtype: see `RaftFlow`.
        batch_size: see `RaftFlow`.
        volume_gib: see `RaftFlow`.

    Raises:
        UserError: the weights cannot be used, or a parameter is out of range.
    """
    return _create("raft_large", weights, iterations=iterations, dtype=dtype, batch_size=batch_size,
                   volume_gib=volume_gib)


def _create(network: str, weights: str, **options: Any) -> RaftFlow:
    stored = read_network(weights, network, raft_shapes(network), field="config.flow.weights")
    return RaftFlow(network, stored.variables, stored.digest, **options)

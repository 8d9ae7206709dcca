"""Convolution forms, chosen per backend by measurement, equal to the plain convolution up to rounding.

XLA's CPU backend runs grouped convolutions at below 1 GFLOP/s and the gradients of strided ones at a few
percent of a matrix product, so there the same sums are written as shifted multiply-adds and as matrix
products. GPU and TPU have good kernels for the plain forms. `tests/test_ops.py` holds the equality tests,
`tests/benchmarks/` the timings.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Array = jax.Array

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def _on_cpu() -> bool:
    return jax.default_backend() == "cpu"


def conv(x: Array, kernel: Array, *, stride: int, padding: int) -> Array:
    """Plain convolution: x [B, H, W, C], kernel [k, k, C, D] -> [B, h, w, D], torch's explicit padding."""
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), ((padding, padding), (padding, padding)),
        dimension_numbers=_DIMENSIONS,
    )


def patch_conv(x: Array, kernel: Array, *, stride: int, padding: int) -> Array:
    """Overlapping strided convolution of the patch embeddings; same contract as `conv`.

    On the CPU as a sum over the kernel's offsets of strided slices, gathered into one matrix product:
    its gradients are matrix products too.
    """
    if not _on_cpu():
        return conv(x, kernel, stride=stride, padding=padding)
    size = kernel.shape[0]
    height = (x.shape[1] + 2 * padding - size) // stride + 1
    width = (x.shape[2] + 2 * padding - size) // stride + 1
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    taps = [
        x[:, i : i + stride * (height - 1) + 1 : stride, j : j + stride * (width - 1) + 1 : stride]
        for i in range(size)
        for j in range(size)
    ]
    columns = jnp.concatenate(taps, axis=-1)
    return columns @ kernel.reshape(-1, kernel.shape[-1])


def block_conv(x: Array, kernel: Array) -> Array:
    """Convolution whose stride equals its kernel size r, without padding: one matrix product.

    x [B, H, W, C], kernel [r, r, C, D] -> [B, H // r, W // r, D]. Rows and columns that do not fill a
    block are dropped, as torch's floor does.
    """
    r = kernel.shape[0]
    batch, height, width, channels = x.shape
    h, w = height // r, width // r
    x = x[:, : h * r, : w * r].reshape(batch, h, r, w, r, channels)
    x = x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, h, w, r * r * channels)
    return x @ kernel.reshape(-1, kernel.shape[-1])


def depthwise_conv3x3(x: Array, kernel: Array) -> Array:
    """Depthwise 3×3 convolution, stride 1, zero padding 1: x [B, H, W, C], kernel [3, 3, 1, C]."""
    if _on_cpu():
        return _shifted_depthwise(x, kernel[:, :, 0])
    return lax.conv_general_dilated(
        x, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=_DIMENSIONS,
        feature_group_count=x.shape[-1],
    )


def _shifts(x: Array) -> list[tuple[int, int, Array]]:
    """The nine views of x, zero-padded by one pixel, that a 3×3 kernel sees."""
    height, width = x.shape[1:3]
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return [(i, j, x[:, i : i + height, j : j + width]) for i in range(3) for j in range(3)]


@jax.custom_vjp
def _shifted_depthwise(x: Array, kernel: Array) -> Array:
    """Nine shifted multiply-adds; kernel [3, 3, C]."""
    return sum(view * kernel[i, j] for i, j, view in _shifts(x))


def _shifted_depthwise_fwd(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _shifted_depthwise(x, kernel), (x, kernel)


def _shifted_depthwise_bwd(saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    # The input gradient is the same convolution with the flipped kernel; the kernel gradient is nine
    # reductions. JAX's own transpose of the padded slices is several times slower on the CPU.
    x, kernel = saved
    dx = _shifted_depthwise(g, kernel[::-1, ::-1])
    dkernel = jnp.stack(_sums([view * g for _, _, view in _shifts(x)]))
    return dx, dkernel.reshape(kernel.shape).astype(kernel.dtype)


def _sums(maps: list[Array]) -> list[Array]:
    """The sum of each map over all axes but the last: [B, H, W, C] -> [C].

    All at once, and rows before columns: one loop reads what the maps have in common once, and keeps W·C
    partial sums. Two to four times as fast, with the gradient of a depthwise convolution, as one reduction
    after the other, and closer to the exact sum.
    """
    zeros = (np.zeros((), maps[0].dtype),) * len(maps)
    by_column = lax.reduce(tuple(maps), zeros, lambda a, b: tuple(map(lax.add, a, b)), (0, 1))
    return [jnp.sum(x, axis=0) for x in by_column]


_shifted_depthwise.defvjp(_shifted_depthwise_fwd, _shifted_depthwise_bwd)

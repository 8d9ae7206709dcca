"""Layers that the flow and depth networks share. Inference only; images and features are NHWC.

Parameters carry the names of the published PyTorch files (see `dattt_jax.convert_networks`): `kernel` [kh,
kw, in, out], `scale`, `bias`, and `mean`, `var` in the collection `batch_stats`. They are float32; `dtype` is
the compute type.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

Array = jax.Array
Dtype = Any

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")
_INSTANCE_NORM_EPSILON = 1e-5


def convolve(x: Array, kernel: Array, *, stride: int = 1, pad: bool = True) -> Array:
    """Convolution with zero padding of half the (odd) kernel on both sides of each axis.

    At stride 2 this is not XLA's "SAME", which pads even sizes at the end only.

    Args:
        x: `[B, H, W, C]`.
        kernel: `[kh, kw, C, D]`, both sizes odd.
        stride: of both axes.
        pad: whether to pad.

    Returns:
        `[B, ceil(H / stride), ceil(W / stride), D]` with padding.
    """
    padding = [(size // 2 * pad,) * 2 for size in kernel.shape[:2]]
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=_DIMENSIONS)


def depthwise_conv(x: Array, kernel: Array, *, dilation: int) -> Array:
    """Depthwise 3×3 convolution, zero padding, stride 1: `[B, H, W, C]` and kernel `[3, 3, 1, C]`.

    On the CPU as nine shifted multiply-adds: XLA's grouped convolution runs at below 1 GFLOP/s there.
    """
    if jax.default_backend() != "cpu":
        return lax.conv_general_dilated(x, kernel, (1, 1), ((dilation, dilation),) * 2,
                                        rhs_dilation=(dilation, dilation), dimension_numbers=_DIMENSIONS,
                                        feature_group_count=x.shape[-1])
    height, width = x.shape[1:3]
    x = jnp.pad(x, ((0, 0), (dilation, dilation), (dilation, dilation), (0, 0)))
    taps = [(i, j, x[:, i * dilation : i * dilation + height, j * dilation : j * dilation + width])
            for i in range(3) for j in range(3)]
    return sum(tap * kernel[i, j, 0] for i, j, tap in taps)


class ConvWeights(nn.Module):
    """The weights of a convolution, for callers that apply them in parts."""

    in_features: int
    features: int
    kernel_size: tuple[int, int]

    @nn.compact
    def __call__(self) -> tuple[Array, Array]:
        """Returns (kernel `[kh, kw, in, out]`, bias `[out]`), float32."""
        kernel = self.param("kernel", nn.initializers.he_normal(),
                            (*self.kernel_size, self.in_features, self.features))
        return kernel, self.param("bias", nn.initializers.zeros, (self.features,))


class Conv(nn.Module):
    """`convolve` with weights of its own. `reflect` pads 3×3 kernels by reflection instead of zeros."""

    features: int
    kernel_size: int
    stride: int = 1
    use_bias: bool = True
    reflect: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """X `[B, H, W, C]` -> `[B, h, w, features]`."""
        size = self.kernel_size
        kernel = self.param("kernel", nn.initializers.he_normal(), (size, size, x.shape[-1], self.features))
        x = x.astype(self.dtype)
        if self.reflect:
            x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
        x = convolve(x, kernel.astype(self.dtype), stride=self.stride, pad=not self.reflect)
        if self.use_bias:
            x = x + self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
        return x


def decoder_conv(number: int, features: int, dtype: Dtype) -> Conv:
    """Convolution `number` of MonoDepth2's decoder, which Lite-Mono took over: 3×3, padded by reflection.

    To be called in a module, whose child it becomes.
    """
    return Conv(features, 3, reflect=True, dtype=dtype, name=f"decoder_{number}")


def instance_norm(x: Array) -> Array:
    """Normalises each channel of each image by its own mean and biased variance; ε = 1e-5.

    X `[B, H, W, C]` -> the same shape and type.
    """
    wide = x.astype(jnp.float32)
    wide = wide - jnp.mean(wide, axis=(1, 2), keepdims=True)
    variance = jnp.mean(jnp.square(wide), axis=(1, 2), keepdims=True)
    return (wide * lax.rsqrt(variance + _INSTANCE_NORM_EPSILON)).astype(x.dtype)


def upsampling_matrix(size: int, factor: int, *, align_corners: bool) -> np.ndarray:
    """Bilinear interpolation of `size` samples to `factor` · `size`: float32 `[factor · size, size]`.

    With `align_corners` the first and last samples stay first and last (sample X is at
    X · (size - 1) / (factor · size - 1)); without, pixel centres are at half-integers, and what lies outside
    the outermost ones takes their values.
    """
    samples = np.arange(factor * size)
    if align_corners:
        places = samples * (size - 1) / (factor * size - 1)
    else:
        places = np.clip((samples + 0.5) / factor - 0.5, 0, size - 1)
    return np.maximum(0, 1 - np.abs(places[:, None] - np.arange(size))).astype(np.float32)


def upsample(x: Array, factor: int, *, align_corners: bool = False) -> Array:
    """Bilinear upsampling: `[B, H, W, C]` -> `[B, factor · H, factor · W, C]`, see `upsampling_matrix`."""
    rows, columns = (jnp.asarray(upsampling_matrix(size, factor, align_corners=align_corners), x.dtype)
                     for size in x.shape[1:3])
    return jnp.einsum("yh,bhwc,xw->byxc", rows, x, columns)

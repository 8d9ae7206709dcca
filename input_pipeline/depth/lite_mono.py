"""Lite-Mono: convolutions and attention, light, for self-supervised depth (Zhang et al., CVPR 2023).

Modules and parameters have the names of the authors' checkpoints, without the `.conv` and `.bn_gelu` of their
wrappers. Inference only.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from dattt_jax.models.layers import BatchNorm, LayerNorm, Linear
from dattt_jax.models.ops import gelu
from input_pipeline.nets import Conv, Dtype, decoder_conv, depthwise_conv, upsample

Array = jax.Array

_HEADS = 8
_EXPANSION = 6
_POSITION_CHANNELS = 64
_NORM_EPSILON = 1e-6
_LARGE_SIZE = (320, 1024)  # the other size that the authors trained at, with dilations of its own


@dataclasses.dataclass(frozen=True)
class LiteMonoSizes:
    """One variant.

    Attributes:
        widths: channels of the three stages.
        blocks: blocks of the stages; the last of each is the one with attention.
        wide_at_large_size: whether the variant made for 320x1024 has wider dilations.
    """

    widths: tuple[int, int, int]
    blocks: tuple[int, int, int]
    wide_at_large_size: bool

    def dilations(self, trained_at: tuple[int, int]) -> tuple[tuple[int, ...], ...]:
        """Dilations of each stage's blocks but the last; weights do not tell them.

        Args:
            trained_at: (height, width) of the training images.
        """
        wide = self.wide_at_large_size and tuple(trained_at) == _LARGE_SIZE
        first = (1, 2, 5) if wide else (1, 2, 3)
        last = (2, 4, 10) if wide else (2, 4, 6)
        return first, first, first * ((self.blocks[2] - 4) // 3) + last


LITE_MONO_SIZES = {
    "lite_mono": LiteMonoSizes((48, 80, 128), (4, 4, 10), True),
    "lite_mono_small": LiteMonoSizes((48, 80, 128), (4, 4, 7), True),
    "lite_mono_tiny": LiteMonoSizes((32, 64, 128), (4, 4, 7), True),
    "lite_mono_8m": LiteMonoSizes((64, 128, 224), (4, 4, 10), False),
}


class _ConvNormGelu(nn.Module):
    """3×3 convolution, batch normalisation, GELU."""

    features: int
    stride: int
    dtype: Dtype

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = Conv(self.features, 3, self.stride, use_bias=False, dtype=self.dtype, name="conv")(x)
        return gelu(BatchNorm(dtype=self.dtype, name="bn")(x, train=False))


class _DilatedBlock(nn.Module):
    """Depthwise 3×3 convolution with dilation, batch normalisation, a pixelwise network; residual."""

    features: int
    dilation: int
    dtype: Dtype

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("ddwconv", nn.initializers.he_normal(), (3, 3, 1, self.features))
        y = depthwise_conv(x, kernel.astype(self.dtype), dilation=self.dilation)
        y = BatchNorm(dtype=self.dtype, name="bn1")(y, train=False)
        y = Linear(self.features, _EXPANSION * self.features, dtype=self.dtype, name="pwconv1")(y)
        y = Linear(_EXPANSION * self.features, self.features, dtype=self.dtype, name="pwconv2")(gelu(y))
        gamma = self.param("gamma", nn.initializers.constant(1e-6), (self.features,))
        return x + gamma.astype(self.dtype) * y


class _CrossCovarianceAttention(nn.Module):
    """Attention among channels: softmax of the correlations of queries and keys over all pixels."""

    features: int
    dtype: Dtype

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """X `[B, N, C]` -> the same."""
        batch, tokens, channels = x.shape
        x = Linear(channels, 3 * channels, dtype=self.dtype, name="qkv")(x)
        q, k, v = jnp.moveaxis(x.reshape(batch, tokens, 3, _HEADS, channels // _HEADS), 2, 0)
        q, k = (y / jnp.maximum(jnp.linalg.norm(y, axis=1, keepdims=True), 1e-12)
                for y in (q.astype(jnp.float32), k.astype(jnp.float32)))
        temperature = self.param("temperature", nn.initializers.ones, (_HEADS, 1, 1))
        weights = nn.softmax(jnp.einsum("bnhd,bnhe->bhde", q, k) * temperature, axis=-1)
        x = jnp.einsum("bhde,bnhe->bnhd", weights.astype(self.dtype), v).reshape(batch, tokens, channels)
        return Linear(channels, channels, dtype=self.dtype, name="proj")(x)


class _AttentionBlock(nn.Module):
    """Attention, then a pixelwise network, whose result alone is added to the block's input."""

    features: int
    positions: bool
    dtype: Dtype

    @nn.compact
    def __call__(self, x: Array) -> Array:
        channels = self.features
        attended = x
        if self.positions:
            attended = attended + _Positions(channels, self.dtype, name="pos_embd")(x.shape[1:3])
        attended = attended.reshape(x.shape[0], -1, channels)
        y = LayerNorm(_NORM_EPSILON, dtype=self.dtype, name="norm_xca")(attended)
        y = _CrossCovarianceAttention(channels, self.dtype, name="xca")(y)
        attended = attended + self._factor("gamma_xca") * y
        y = LayerNorm(_NORM_EPSILON, dtype=self.dtype, name="norm")(attended)
        y = Linear(channels, _EXPANSION * channels, dtype=self.dtype, name="pwconv1")(y)
        y = Linear(_EXPANSION * channels, channels, dtype=self.dtype, name="pwconv2")(gelu(y))
        return x + (self._factor("gamma") * y).reshape(x.shape)

    def _factor(self, name: str) -> Array:
        return self.param(name, nn.initializers.constant(1e-6), (self.features,)).astype(self.dtype)


class _Positions(nn.Module):
    """Fourier features of rows and columns, through a 1×1 convolution: (h, w) -> `[1, h, w, features]`."""

    features: int
    dtype: Dtype

    @nn.compact
    def __call__(self, size: tuple[int, int]) -> Array:
        encoding = jnp.asarray(position_features(*size))[None]
        return Conv(self.features, 1, dtype=self.dtype, name="token_projection")(encoding)


def position_features(height: int, width: int) -> np.ndarray:
    """Sines and cosines of rows (32 channels) and columns (32): float32 `[height, width, 64]`."""
    half = _POSITION_CHANNELS // 2
    channel = np.arange(half)
    divisor = 10000.0 ** (2 * (channel // 2) / half)

    def waves(count: int) -> np.ndarray:
        angle = 2 * np.pi * np.arange(1, count + 1) / (count + 1e-6)
        angle = angle[:, None] / divisor
        return np.where(channel % 2 == 0, np.sin(angle), np.cos(angle))

    rows = np.broadcast_to(waves(height)[:, None], (height, width, half))
    columns = np.broadcast_to(waves(width)[None], (height, width, half))
    return np.concatenate([rows, columns], -1).astype(np.float32)


def _pool(x: Array) -> Array:
    """3×3 average pooling of stride 2, the padding counted as zeros."""
    return nn.avg_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)), count_include_pad=True)


class LiteMono(nn.Module):
    """The whole network: image to inverse depth.

    Args:
        sizes: the variant.
        trained_at: (height, width) of the training images, which decides the dilations.
        dtype: compute type.
    """

    sizes: LiteMonoSizes
    trained_at: tuple[int, int]
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, images: Array) -> list[Array]:
        """Inverse depth at three scales.

        Args:
            images: float `[B, H, W, 3]` RGB in [0, 1]; sides multiples of 32.

        Returns:
            Three arrays in (0, 1), float32: `[B, H, W, 1]`, then halves and quarters of the size.
        """
        widths, dtype = self.sizes.widths, self.dtype
        x = ((images - 0.45) / 0.225).astype(dtype)
        pooled = [_pool(x)]
        for _ in range(2):
            pooled.append(_pool(pooled[-1]))
        for number, stride in enumerate((2, 1, 1)):
            x = _ConvNormGelu(widths[0], stride, dtype, name=f"downsample_layers_0_{number}")(x)
        inputs, features = [x, pooled[0]], []
        all_dilations = self.sizes.dilations(self.trained_at)
        for stage, (width, dilations) in enumerate(zip(widths, all_dilations, strict=True)):
            name = "stem2_0" if stage == 0 else f"downsample_layers_{stage}_0"
            start = Conv(width, 3, 2, use_bias=False, dtype=dtype, name=name)(jnp.concatenate(inputs, -1))
            x = start
            for block, dilation in enumerate(dilations):
                x = _DilatedBlock(width, dilation, dtype, name=f"stages_{stage}_{block}")(x)
            x = _AttentionBlock(width, stage == 0, dtype, name=f"stages_{stage}_{len(dilations)}")(x)
            features.append(x)
            inputs = [start, x, *pooled[stage + 1 : stage + 2]]
        return self._decode(features)

    def _decode(self, features: list[Array]) -> list[Array]:
        x, result = features[2], []
        for number, level in enumerate((2, 1, 0)):
            width = self.sizes.widths[level] // 2
            x = nn.elu(decoder_conv(2 * number, width, self.dtype)(x))
            x = upsample(x, 2)
            if level > 0:
                x = jnp.concatenate([x, features[level - 1]], -1)
            x = nn.elu(decoder_conv(2 * number + 1, width, self.dtype)(x))
            disparity = decoder_conv(6 + level, 1, self.dtype)(x).astype(jnp.float32)
            result.insert(0, nn.sigmoid(upsample(disparity, 2)))
        return result

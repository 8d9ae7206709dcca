"""Layers both backbones and the decoder share. Parameters are float32; `dtype` is the compute type."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from dattt_jax.models import ops

Array = jax.Array
Dtype = Any


class Linear(nn.Module):
    """y = x W + b over the last axis; `kernel` [in, out], `bias` [out].

    A 1×1 convolution is this layer too.
    """

    in_features: int
    features: int
    use_bias: bool = True
    dtype: Dtype = jnp.float32

    def setup(self) -> None:
        """Creates the layers."""
        shape = (self.in_features, self.features)
        self.kernel = self.param("kernel", nn.initializers.normal(0.02), shape)
        if self.use_bias:
            self.bias = self.param("bias", nn.initializers.zeros, (self.features,))

    def __call__(self, x: Array) -> Array:
        """X [..., in] -> [..., out] in `dtype`."""
        y = ops.matmul(x.astype(self.dtype), self.kernel)
        return y + self.bias.astype(self.dtype) if self.use_bias else y

    def folded(self, kernel: Array) -> tuple[Array, Array]:
        """This layer followed by a linear map `kernel` [out, D]: one (kernel [in, D], bias [D]), float32."""
        product = jax.lax.Precision.HIGHEST
        return (jnp.matmul(self.kernel, kernel, precision=product),
                jnp.matmul(self.bias, kernel, precision=product))


class Conv(nn.Module):
    """Square convolution with torch's explicit padding; the form is chosen by `models.ops`.

    `kind`: 'patch' (overlapping, strided), 'block' (stride = kernel size, no padding) or 'depthwise'
    (3×3, one kernel per channel).
    """

    features: int
    kernel_size: int
    kind: str
    stride: int = 1
    padding: int = 0
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """X [B, H, W, C] -> [B, h, w, features]."""
        size = self.kernel_size
        in_features = 1 if self.kind == "depthwise" else x.shape[-1]
        # SegFormer's initialisation: normal with variance 2 / fan_out (fan_out counted per group).
        groups = x.shape[-1] if self.kind == "depthwise" else 1
        scale = (2.0 * groups / (size * size * self.features)) ** 0.5
        kernel = self.param("kernel", nn.initializers.normal(scale),
                            (size, size, in_features, self.features)).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
        x = x.astype(self.dtype)
        if self.kind == "patch":
            y = ops.patch_conv(x, kernel, stride=self.stride, padding=self.padding)
        elif self.kind == "block":
            y = ops.block_conv(x, kernel)
        elif self.kind == "depthwise":
            y = ops.depthwise_conv3x3(x, kernel)
        else:
            raise ValueError(f"unknown convolution kind {self.kind!r}")
        return y + bias


class LayerNorm(nn.Module):
    """Layer normalisation over the last axis; statistics in float32, two-pass variance."""

    epsilon: float
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """X [..., C] -> [..., C] in `dtype`."""
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        return ops.layer_norm(x.astype(jnp.float32), scale, bias, self.epsilon).astype(self.dtype)


class BatchNorm(nn.Module):
    """Batch normalisation with torch's running statistics.

    Normalises with the biased batch variance and keeps the *unbiased* one in `batch_stats/var`
    (Flax's own layer keeps the biased one), running = 0.9 · running + 0.1 · batch. The running statistics
    change only where the caller made `batch_stats` mutable, so test-time training leaves them alone.
    `axis_name` synchronises the statistics over the devices of a pmap.
    """

    epsilon: float = 1e-5
    momentum: float = 0.9
    axis_name: str | None = None
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """X [B, h, w, C] -> [B, h, w, C]."""
        channels = x.shape[-1]
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        running_var = self.variable("batch_stats", "var", jnp.ones, (channels,))
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        x = x.astype(jnp.float32)
        if not train:
            factor = jax.lax.rsqrt(running_var.value + self.epsilon) * scale
            return ((x - running_mean.value) * factor + bias).astype(self.dtype)
        axis_name = None if self.is_initializing() else self.axis_name
        y, mean, variance = ops.batch_norm(x, scale, bias, self.epsilon, axis_name)
        if self.is_mutable_collection("batch_stats") and not self.is_initializing():
            count = x.size // channels * (1 if axis_name is None else jax.lax.axis_size(axis_name))
            unbiased = variance * (count / max(count - 1, 1))
            blend = lambda old, new: self.momentum * old + (1 - self.momentum) * new  # noqa: E731
            running_mean.value = blend(running_mean.value, mean)
            running_var.value = blend(running_var.value, unbiased)
        return y.astype(self.dtype)


class DropPath(nn.Module):
    """Stochastic depth: drops a sample's residual branch with probability `rate`, else scales it by 1/keep.

    Draws one coin per sample from the rng stream `drop_path`.
    """

    rate: float

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """X [B, ...] -> [B, ...]."""
        if not train or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        shape = (x.shape[0],) + (1,) * (x.ndim - 1)
        coin = jax.random.bernoulli(self.make_rng("drop_path"), keep, shape)
        return x * (coin / keep).astype(x.dtype)

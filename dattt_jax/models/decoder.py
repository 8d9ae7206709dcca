"""The SegFormer decoder (Xie et al., NeurIPS 2021, section 3.2), with its 1×1 convolution run per scale.

The published form upsamples four 256-channel maps to stride 4, concatenates them (c4, c3, c2, c1) and
applies a 1×1 convolution to the 1024 channels. A per-pixel linear map commutes with bilinear upsampling
(its weights sum to one), so the convolution is split by input block and runs at each scale's own
resolution; where nothing stands between the per-scale linear layer and it, the two fold into one matrix.
`tests/test_decoder.py` compares with the plain form.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from dattt_jax.image_ops import upsample_bilinear
from dattt_jax.models import ops
from dattt_jax.models.layers import BatchNorm, Linear

Array = jax.Array
Dtype = Any


class Projection(nn.Module):
    """Per-scale linear layer (torch nests it as `linear_c1.proj`)."""

    in_features: int
    features: int
    dtype: Dtype = jnp.float32

    def setup(self) -> None:
        """Creates the layers."""
        self.proj = Linear(self.in_features, self.features, dtype=self.dtype)

    def __call__(self, x: Array) -> Array:
        """X [B, h, w, C] -> [B, h, w, features]."""
        return self.proj(x)


class Fuse(nn.Module):
    """1×1 convolution without bias over the concatenated scales -> BatchNorm -> ReLU."""

    features: int
    axis_name: str | None = None
    dtype: Dtype = jnp.float32

    def setup(self) -> None:
        """Creates the layers."""
        self.conv = Linear(4 * self.features, self.features, use_bias=False, dtype=self.dtype)
        self.bn = BatchNorm(axis_name=self.axis_name, dtype=self.dtype)

    def kernels(self) -> list[Array]:
        """The convolution's blocks for scales c1, …, c4: four [features, features] arrays."""
        return list(reversed(jnp.split(self.conv.kernel, 4)))

    def __call__(self, fused: Array, *, train: bool) -> Array:
        """Fused [B, h, w, features], the convolution's output -> activations of the same shape."""
        return nn.relu(self.bn(fused, train=train))


class SegFormerHead(nn.Module):
    """All-MLP decoder: features at four scales -> one logit map at stride 4.

    `in_features` are the channels of the scales; `features` is the embedding width (256 in the paper).
    """

    in_features: Sequence[int]
    features: int = 256
    axis_name: str | None = None
    dtype: Dtype = jnp.float32

    def setup(self) -> None:
        """Creates the layers."""
        c1, c2, c3, c4 = self.in_features
        self.linear_c1 = Projection(c1, self.features, self.dtype)
        self.linear_c2 = Projection(c2, self.features, self.dtype)
        self.linear_c3 = Projection(c3, self.features, self.dtype)
        self.linear_c4 = Projection(c4, self.features, self.dtype)
        self.linear_fuse = Fuse(self.features, self.axis_name, self.dtype)
        self.linear_pred = Linear(self.features, 1, dtype=self.dtype)

    def _projections(self) -> list[Projection]:
        return [self.linear_c1, self.linear_c2, self.linear_c3, self.linear_c4]

    def project(self, features: Sequence[Array]) -> list[Array]:
        """Four maps [B, h_i, w_i, C_i] -> four maps [B, h_i, w_i, features]."""
        return [layer(x) for layer, x in zip(self._projections(), features, strict=True)]

    def folded(self, scale: int, kernel: Array) -> tuple[Array, Array]:
        """The linear layer of scale 1, …, 4 and then `kernel` [features, D]; returns as `Linear.folded`."""
        return self._projections()[scale - 1].proj.folded(kernel)

    def combine(self, mixed: Sequence[Array]) -> Array:
        """Sums the scales at stride 4: four [B, h_i, w_i, features] -> [B, h_1, w_1, features]."""
        size = mixed[0].shape[1:3]
        return mixed[0] + sum(upsample_bilinear(x, size) for x in mixed[1:])

    def fuse(self, projected: Sequence[Array]) -> Array:
        """The fuse convolution of projected (and perhaps modulated) maps [B, h_i, w_i, features].

        Returns:
            [B, h_1, w_1, features].
        """
        kernels = self.linear_fuse.kernels()
        return self.combine([ops.matmul(x, kernel) for x, kernel in zip(projected, kernels, strict=True)])

    def fuse_features(self, features: Sequence[Array]) -> Array:
        """The fuse convolution of four maps [B, h_i, w_i, C_i], linear layers folded; returns as `fuse`."""
        mixed, biases = [], []
        for scale, (x, kernel) in enumerate(zip(features, self.linear_fuse.kernels(), strict=True), 1):
            folded, bias = self.folded(scale, kernel)
            mixed.append(ops.matmul(x.astype(self.dtype), folded))
            biases.append(bias)
        return self.combine(mixed) + sum(biases).astype(self.dtype)

    def predict(self, fused: Array, *, train: bool) -> Array:
        """What `fuse` gave -> logits [B, h_1, w_1, 1], float32."""
        return self.linear_pred(self.linear_fuse(fused, train=train)).astype(jnp.float32)

    def __call__(self, features: Sequence[Array], *, train: bool) -> Array:
        """Four maps [B, h_i, w_i, C_i] -> logits [B, h_1, w_1, 1], float32."""
        return self.predict(self.fuse_features(features), train=train)

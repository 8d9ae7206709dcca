"""Heads of self-supervised tasks on the image encoder, trained jointly and minimised at test time.

`rotation` is the head of TTT-Rot (Sun et al., ICML 2020): which of four rotations was the image given?
`reconstruction` is the decoder of TTT-MAE (Gandelsman et al., NeurIPS 2022), made for a hierarchical encoder,
which cannot drop tokens: it sees the features of an image with hidden blocks and predicts all pixels.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from dattt_jax.image_ops import upsample_bilinear
from dattt_jax.models.layers import Linear
from dattt_jax.models.ops import gelu

Array = jax.Array
Dtype = Any

HEADS = ("rotation", "reconstruction")

_PATCH = 4  # pixels per side that a position at stride 4 stands for


class RotationHead(nn.Module):
    """Global average pool of the last feature map -> linear -> 4 classes."""

    in_features: int
    dtype: Dtype = jnp.float32

    def setup(self) -> None:
        """Creates the layers."""
        self.linear = Linear(self.in_features, 4, dtype=self.dtype)

    def __call__(self, features: Sequence[Array]) -> Array:
        """Four maps [B, h_i, w_i, C_i] -> logits [B, 4], float32."""
        return self.linear(jnp.mean(features[-1].astype(jnp.float32), axis=(1, 2))).astype(jnp.float32)


class ReconstructionHead(nn.Module):
    """Linear per scale, summed at stride 4 -> GELU -> linear to the 4×4 pixels of each position."""

    in_features: Sequence[int]
    features: int = 64
    dtype: Dtype = jnp.float32

    def setup(self) -> None:
        """Creates the layers."""
        self.scales = [Linear(channels, self.features, dtype=self.dtype) for channels in self.in_features]
        self.pixels = Linear(self.features, 3 * _PATCH**2, dtype=self.dtype)

    def __call__(self, features: Sequence[Array]) -> Array:
        """Four maps [B, h_i, w_i, C_i] -> normalised pixels [B, 4·h_1, 4·w_1, 3], float32."""
        size = features[0].shape[1:3]
        mixed = sum(upsample_bilinear(layer(x), size) for layer, x in zip(self.scales, features, strict=True))
        pixels = self.pixels(gelu(mixed)).astype(jnp.float32)
        pixels = pixels.reshape(-1, *size, _PATCH, _PATCH, 3).transpose(0, 1, 3, 2, 4, 5)
        return pixels.reshape(-1, size[0] * _PATCH, size[1] * _PATCH, 3)

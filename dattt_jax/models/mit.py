"""Mix Transformer (MiT) b0-b5: the SegFormer encoder (Xie et al., NeurIPS 2021, section 3.1).

Submodule names mirror the keys of the published PyTorch checkpoints: `patch_embed1.proj`, `block1_0.attn.q`
(torch `block1.0.attn.q`), `norm1`, …
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from dattt_jax.models.layers import Conv, DropPath, LayerNorm, Linear
from dattt_jax.models.ops import attention, gelu

Array = jax.Array
Dtype = Any

# LayerNorm epsilons of the authors' code: inside the patch embeddings and the attention, and elsewhere.
_EPS_INNER, _EPS_BLOCK = 1e-5, 1e-6


@dataclasses.dataclass(frozen=True)
class MiTSizes:
    """The numbers that tell the MiT sizes apart."""

    dims: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]


_WIDE = (64, 128, 320, 512)
MIT_SIZES = {
    "mit_b0": MiTSizes((32, 64, 160, 256), (2, 2, 2, 2)),
    "mit_b1": MiTSizes(_WIDE, (2, 2, 2, 2)),
    "mit_b2": MiTSizes(_WIDE, (3, 4, 6, 3)),
    "mit_b3": MiTSizes(_WIDE, (3, 4, 18, 3)),
    "mit_b4": MiTSizes(_WIDE, (3, 8, 27, 3)),
    "mit_b5": MiTSizes(_WIDE, (3, 6, 40, 3)),
}
_HEADS = (1, 2, 5, 8)
_REDUCTION = (8, 4, 2, 1)
_MLP_RATIO = 4


class EfficientAttention(nn.Module):
    """Self-attention whose keys and values come from a map reduced `reduction` times per side."""

    heads: int
    reduction: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """X [B, H, W, C] -> [B, H, W, C]."""
        batch, height, width, dim = x.shape
        q = Linear(dim, dim, dtype=self.dtype, name="q")(x)
        reduced = x
        if self.reduction > 1:
            reduced = Conv(dim, self.reduction, "block", stride=self.reduction, dtype=self.dtype,
                           name="sr")(x)
            reduced = LayerNorm(_EPS_INNER, dtype=self.dtype, name="norm")(reduced)
        kv = Linear(dim, 2 * dim, dtype=self.dtype, name="kv")(reduced)
        kv = kv.reshape(batch, -1, 2, self.heads, dim // self.heads)
        q = q.reshape(batch, height * width, self.heads, dim // self.heads)
        y = attention(q, kv[:, :, 0], kv[:, :, 1])
        return Linear(dim, dim, dtype=self.dtype, name="proj")(y.reshape(x.shape))


class DepthwiseConv(nn.Module):
    """The 3×3 depthwise convolution inside the Mix-FFN (torch nests it as `dwconv.dwconv`)."""

    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """X [B, H, W, C] -> [B, H, W, C]."""
        return Conv(x.shape[-1], 3, "depthwise", padding=1, dtype=self.dtype, name="dwconv")(x)


class MixFFN(nn.Module):
    """Linear -> depthwise 3×3 -> GELU -> linear."""

    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """X [B, H, W, C] -> [B, H, W, C]."""
        dim = x.shape[-1]
        y = Linear(dim, _MLP_RATIO * dim, dtype=self.dtype, name="fc1")(x)
        y = gelu(DepthwiseConv(dtype=self.dtype, name="dwconv")(y))
        return Linear(_MLP_RATIO * dim, dim, dtype=self.dtype, name="fc2")(y)


class Block(nn.Module):
    """Pre-norm transformer block: attention and Mix-FFN, each behind a drop-path."""

    heads: int
    reduction: int
    drop_path: float
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """X [B, H, W, C] -> [B, H, W, C]."""
        drop = DropPath(self.drop_path, name="drop_path")
        y = LayerNorm(_EPS_BLOCK, dtype=self.dtype, name="norm1")(x)
        y = EfficientAttention(self.heads, self.reduction, dtype=self.dtype, name="attn")(y)
        x = x + drop(y, train=train)
        y = LayerNorm(_EPS_BLOCK, dtype=self.dtype, name="norm2")(x)
        return x + drop(MixFFN(dtype=self.dtype, name="mlp")(y), train=train)


class PatchEmbed(nn.Module):
    """Overlapping patches: strided convolution with padding k // 2, then LayerNorm."""

    features: int
    kernel_size: int
    stride: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """X [B, H, W, C] -> [B, ceil(H / stride), ceil(W / stride), features]."""
        x = Conv(self.features, self.kernel_size, "patch", stride=self.stride,
                 padding=self.kernel_size // 2, dtype=self.dtype, name="proj")(x)
        return LayerNorm(_EPS_INNER, dtype=self.dtype, name="norm")(x)


class MixTransformer(nn.Module):
    """Hierarchical encoder: features at strides 4, 8, 16 and 32.

    `drop_path` is the rate of the last block; it grows linearly from 0. `remat` recomputes each block in
    the backward pass instead of keeping its inner activations.
    """

    dims: Sequence[int]
    depths: Sequence[int]
    drop_path: float = 0.1
    remat: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False) -> tuple[Array, Array, Array, Array]:
        """X [B, H, W, 3] normalised -> ([B, H/4, W/4, C1], …, [B, H/32, W/32, C4]), sizes rounded up."""
        block_class = nn.remat(Block, static_argnums=(2,)) if self.remat else Block
        rates = iter(np.linspace(0.0, self.drop_path, sum(self.depths)))
        features = []
        for i, (dim, depth) in enumerate(zip(self.dims, self.depths, strict=True)):
            kernel_size, stride = (7, 4) if i == 0 else (3, 2)
            x = PatchEmbed(dim, kernel_size, stride, dtype=self.dtype, name=f"patch_embed{i + 1}")(x)
            for j in range(depth):
                x = block_class(_HEADS[i], _REDUCTION[i], float(next(rates)), dtype=self.dtype,
                                name=f"block{i + 1}_{j}")(x, train)
            x = LayerNorm(_EPS_BLOCK, dtype=self.dtype, name=f"norm{i + 1}")(x)
            features.append(x)
        return tuple(features)

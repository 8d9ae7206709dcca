"""Swin Transformer, tiny (Liu et al., ICCV 2021), as the feature pyramid of DATTT.

Submodule names mirror the published PyTorch keys (`layers_0.blocks_1.attn.qkv` for torch
`layers.0.blocks.1.attn.qkv`). There is no output norm: a stage's feature is its raw residual stream,
before patch merging (the authors' code; `norm{0..3}` and `head` of published backbones are unused).
"""

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

_EPS = 1e-5
_WINDOW = 7
_SHIFT = _WINDOW // 2
_MASKED = -100.0  # added to logits between regions that only the cyclic shift made neighbours
_MLP_RATIO = 4
SWIN_T = {"dim": 96, "depths": (2, 2, 6, 2), "heads": (3, 6, 12, 24)}


def _pad_to_multiple(x: Array, multiple: int) -> Array:
    """Zero-pads x [B, H, W, C] at the bottom and right."""
    pad_h, pad_w = -x.shape[1] % multiple, -x.shape[2] % multiple
    return jnp.pad(x, ((0, 0), (0, pad_h), (0, pad_w), (0, 0))) if pad_h or pad_w else x


def _to_windows(x: Array) -> Array:
    """[B, H, W, C] -> [B, windows, 49, C], windows in row-major order."""
    batch, height, width, dim = x.shape
    x = x.reshape(batch, height // _WINDOW, _WINDOW, width // _WINDOW, _WINDOW, dim)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, -1, _WINDOW * _WINDOW, dim)


def _from_windows(x: Array, height: int, width: int) -> Array:
    """Inverse of `_to_windows`."""
    batch, _, _, dim = x.shape
    x = x.reshape(batch, height // _WINDOW, width // _WINDOW, _WINDOW, _WINDOW, dim)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height, width, dim)


def relative_position_index() -> np.ndarray:
    """Row of the bias table for each (query, key) pair of a window: int [49, 49]."""
    row, col = np.divmod(np.arange(_WINDOW * _WINDOW), _WINDOW)
    d_row = row[:, None] - row[None, :] + _WINDOW - 1
    d_col = col[:, None] - col[None, :] + _WINDOW - 1
    return d_row * (2 * _WINDOW - 1) + d_col


def shift_mask(height: int, width: int) -> np.ndarray:
    """Logit offsets of shifted windows: float32 [windows, 49, 49], 0 or −100.

    `height` and `width` are the padded sizes. After the cyclic shift the last window row and column hold
    pixels from opposite sides of the map; only pixels of the same region may attend to each other.
    """
    def bands(size: int) -> np.ndarray:
        position = np.arange(size)
        return (position >= size - _WINDOW).astype(int) + (position >= size - _SHIFT)

    region = bands(height)[:, None] * 3 + bands(width)[None, :]
    region = region.reshape(height // _WINDOW, _WINDOW, width // _WINDOW, _WINDOW)
    region = region.transpose(0, 2, 1, 3).reshape(-1, _WINDOW * _WINDOW)
    same = region[:, :, None] == region[:, None, :]
    return np.where(same, 0.0, _MASKED).astype(np.float32)


class WindowAttention(nn.Module):
    """Multi-head attention inside windows, with a learnt bias per relative position."""

    heads: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, mask: np.ndarray | None) -> Array:
        """X [B, windows, 49, C], mask [windows, 49, 49] or None -> [B, windows, 49, C]."""
        batch, windows, tokens, dim = x.shape
        table = self.param("relative_position_bias_table", nn.initializers.normal(0.02),
                           ((2 * _WINDOW - 1) ** 2, self.heads))
        bias = table[relative_position_index().reshape(-1)].reshape(tokens, tokens, self.heads)
        bias = bias.transpose(2, 0, 1)
        if mask is not None:
            bias = bias + mask[:, None]
        qkv = Linear(dim, 3 * dim, dtype=self.dtype, name="qkv")(x)
        qkv = qkv.reshape(batch, windows, tokens, 3, self.heads, dim // self.heads)
        y = attention(qkv[..., 0, :, :], qkv[..., 1, :, :], qkv[..., 2, :, :], bias)
        return Linear(dim, dim, dtype=self.dtype, name="proj")(y.reshape(x.shape))


class MLP(nn.Module):
    """Linear -> GELU -> linear."""

    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """X [..., C] -> [..., C]."""
        dim = x.shape[-1]
        y = gelu(Linear(dim, _MLP_RATIO * dim, dtype=self.dtype, name="fc1")(x))
        return Linear(_MLP_RATIO * dim, dim, dtype=self.dtype, name="fc2")(y)


class Block(nn.Module):
    """Swin block; `shifted` blocks move the windows by half their size, also on maps below 7×7."""

    heads: int
    shifted: bool
    drop_path: float
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """X [B, H, W, C] -> [B, H, W, C]."""
        height, width = x.shape[1:3]
        drop = DropPath(self.drop_path, name="drop_path")
        y = LayerNorm(_EPS, dtype=self.dtype, name="norm1")(x)
        y = _pad_to_multiple(y, _WINDOW)  # after the norm, so that padded tokens attend as zeros
        padded_h, padded_w = y.shape[1:3]
        mask = None
        if self.shifted:
            y = jnp.roll(y, (-_SHIFT, -_SHIFT), axis=(1, 2))
            mask = shift_mask(padded_h, padded_w)
        y = WindowAttention(self.heads, dtype=self.dtype, name="attn")(_to_windows(y), mask)
        y = _from_windows(y, padded_h, padded_w)
        if self.shifted:
            y = jnp.roll(y, (_SHIFT, _SHIFT), axis=(1, 2))
        x = x + drop(y[:, :height, :width], train=train)
        y = LayerNorm(_EPS, dtype=self.dtype, name="norm2")(x)
        return x + drop(MLP(dtype=self.dtype, name="mlp")(y), train=train)


class PatchMerging(nn.Module):
    """Halves the map: the four pixels of a 2×2 block are concatenated, normalised and mixed."""

    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """X [B, H, W, C] -> [B, ceil(H/2), ceil(W/2), 2C]; order (0,0), (1,0), (0,1), (1,1) in (row, col)."""
        dim = x.shape[-1]
        x = _pad_to_multiple(x, 2)
        x = jnp.concatenate([x[:, row::2, col::2] for col in (0, 1) for row in (0, 1)], axis=-1)
        x = LayerNorm(_EPS, dtype=self.dtype, name="norm")(x)
        return Linear(4 * dim, 2 * dim, use_bias=False, dtype=self.dtype, name="reduction")(x)


class PatchEmbed(nn.Module):
    """4×4 patches (input zero-padded to a multiple of 4), then LayerNorm."""

    features: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """X [B, H, W, 3] -> [B, ceil(H/4), ceil(W/4), features]."""
        x = Conv(self.features, 4, "block", stride=4, dtype=self.dtype, name="proj")(
            _pad_to_multiple(x, 4))
        return LayerNorm(_EPS, dtype=self.dtype, name="norm")(x)


class Stage(nn.Module):
    """The blocks of one resolution and the patch merging that follows them (but for the last)."""

    heads: int
    drop_path: Sequence[float]
    merge: bool
    remat: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> tuple[Array, Array]:
        """X [B, H, W, C] -> (feature [B, H, W, C], input of the next stage)."""
        block_class = nn.remat(Block, static_argnums=(2,)) if self.remat else Block
        for i, rate in enumerate(self.drop_path):
            x = block_class(self.heads, i % 2 == 1, rate, dtype=self.dtype, name=f"blocks_{i}")(x, train)
        return x, PatchMerging(dtype=self.dtype, name="downsample")(x) if self.merge else x


class SwinTransformer(nn.Module):
    """Hierarchical encoder: raw features at strides 4, 8, 16 and 32.

    `drop_path` is the rate of the last block; it grows linearly from 0.
    """

    dim: int
    depths: Sequence[int]
    heads: Sequence[int]
    drop_path: float = 0.2
    remat: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False) -> tuple[Array, Array, Array, Array]:
        """X [B, H, W, 3] normalised -> ([B, H/4, W/4, dim], …, [B, H/32, W/32, 8·dim]), rounded up."""
        rates = np.split(np.linspace(0.0, self.drop_path, sum(self.depths)), np.cumsum(self.depths)[:-1])
        x = PatchEmbed(self.dim, dtype=self.dtype, name="patch_embed")(x)
        features = []
        for i, heads in enumerate(self.heads):
            feature, x = Stage(heads, tuple(float(r) for r in rates[i]), i < len(self.heads) - 1,
                               remat=self.remat, dtype=self.dtype, name=f"layers_{i}")(x, train=train)
            features.append(feature)
        return tuple(features)

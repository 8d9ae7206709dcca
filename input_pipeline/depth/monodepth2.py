"""MonoDepth2's depth network: a ResNet-18 and a decoder (Godard et al., ICCV 2019, arXiv:1806.01260).

Written from the papers. Modules and parameters have the names of the published checkpoints, without the
`.conv` of their wrappers, so that weights a user brings fit; those are for non-commercial use only.
Inference.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from dattt_jax.models.layers import BatchNorm
from input_pipeline.nets import Conv, Dtype, decoder_conv

Array = jax.Array

_STAGES = (64, 128, 256, 512)
_DECODER = (16, 32, 64, 128, 256)  # widths by scale, finest first
_SCALES = 4  # disparities come out at these many scales
_HEADS_START = 10  # number of the first head among the decoder's convolutions


class _Block(nn.Module):
    """ResNet's basic block."""

    features: int
    stride: int
    dtype: Dtype

    @nn.compact
    def __call__(self, x: Array) -> Array:
        y = nn.relu(_conv_norm(self.features, 3, self.stride, self.dtype, "conv1", "bn1", x))
        y = _conv_norm(self.features, 3, 1, self.dtype, "conv2", "bn2", y)
        if self.stride > 1:
            x = _conv_norm(self.features, 1, self.stride, self.dtype, "downsample_0", "downsample_1", x)
        return nn.relu(x + y)


def _conv_norm(features: int, size: int, stride: int, dtype: Dtype, conv: str, norm: str, x: Array) -> Array:
    """Convolution `conv` without bias and batch normalisation `norm` in the calling module."""
    x = Conv(features, size, stride, use_bias=False, dtype=dtype, name=conv)(x)
    return BatchNorm(dtype=dtype, name=norm)(x, train=False)


class _Encoder(nn.Module):
    """ResNet-18 without its classifier: features at 1/2, 1/4, 1/8, 1/16 and 1/32 of the size."""

    dtype: Dtype

    @nn.compact
    def __call__(self, x: Array) -> list[Array]:
        x = nn.relu(_conv_norm(64, 7, 2, self.dtype, "conv1", "bn1", x))
        features = [x]
        x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        for stage, width in enumerate(_STAGES, 1):
            for block in range(2):
                stride = 2 if stage > 1 and block == 0 else 1
                x = _Block(width, stride, self.dtype, name=f"layer{stage}_{block}")(x)
            features.append(x)
        return features


class MonoDepth2(nn.Module):
    """The whole network: image to inverse depth."""

    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, images: Array) -> list[Array]:
        """Inverse depth at four scales.

        Args:
            images: float `[B, H, W, 3]` RGB in [0, 1]; sides multiples of 32.

        Returns:
            Four arrays in (0, 1), float32: `[B, H, W, 1]`, then each of half the size.
        """
        features = _Encoder(self.dtype, name="encoder")(((images - 0.45) / 0.225).astype(self.dtype))
        x, result = features[-1], []
        for number, scale in enumerate(reversed(range(len(_DECODER)))):
            x = nn.elu(decoder_conv(2 * number, _DECODER[scale], self.dtype)(x))
            x = x.repeat(2, axis=1).repeat(2, axis=2)
            if scale > 0:
                x = jnp.concatenate([x, features[scale - 1]], -1)
            x = nn.elu(decoder_conv(2 * number + 1, _DECODER[scale], self.dtype)(x))
            if scale < _SCALES:
                disparity = decoder_conv(_HEADS_START + scale, 1, self.dtype)(x)
                result.insert(0, nn.sigmoid(disparity.astype(jnp.float32)))
        return result

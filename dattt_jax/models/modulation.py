"""The depth-aware decode head: two decoders with modulation between them (DATTT, section 3.2, Table 1).

At each scale the mask branch v is changed by the depth branch d, both [B, h, w, C]; x = [d, v] is their
concatenation, depth first:

    alpha+beta   s = ReLU(shared(x)); v' = alpha(s) · v + beta(s)
    alpha        v' = alpha(x) · v
    beta         v' = v + beta(x)
    basic        v' = v (no layer at all)
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from dattt_jax.models import ops
from dattt_jax.models.decoder import SegFormerHead
from dattt_jax.models.layers import Linear

Array = jax.Array
Dtype = Any

MODULATIONS = ("alpha+beta", "alpha", "beta", "basic")


class DepthAwareHead(nn.Module):
    """Depth decoder on image features, mask decoder on image + flow features, modulated by the first.

    `modulation` is one of `MODULATIONS`. The modulation's layers are named `shared1_0`, `alpha1`, `beta1`, …
    after the keys of published checkpoints, which hold them beside the two heads.
    """

    in_features: Sequence[int]
    modulation: str
    features: int = 256
    axis_name: str | None = None
    dtype: Dtype = jnp.float32

    def setup(self) -> None:
        """Creates the layers."""
        head = {"in_features": self.in_features, "features": self.features,
                "axis_name": self.axis_name, "dtype": self.dtype}
        self.depth_head = SegFormerHead(**head)
        self.vos_head = SegFormerHead(**head)
        double = 2 * self.features
        inner = self.features if self.modulation == "alpha+beta" else double
        for scale in range(1, 5):
            if self.modulation == "alpha+beta":
                setattr(self, f"shared{scale}_0", Linear(double, self.features, dtype=self.dtype))
            if "alpha" in self.modulation:
                setattr(self, f"alpha{scale}", Linear(inner, self.features, dtype=self.dtype))
            if "beta" in self.modulation:
                setattr(self, f"beta{scale}", Linear(inner, self.features, dtype=self.dtype))

    def _of_both(self, name: str, scale: int, image: Array, fused: Array, mask: Array) -> Array:
        """The layer `name` of the concatenation [depth, mask]: [B, h, w, features].

        The depth branch is a linear map of the image features, with which the layer's half of it folds to one
        kernel [C_i, features]; so is the mask branch of `fused`, where those have fewer channels.
        """
        layer = getattr(self, name)
        of_depth, of_mask = jnp.split(layer.kernel, 2)
        of_image, bias = self.depth_head.folded(scale, of_depth)
        bias = layer.bias + bias
        if fused.shape[-1] < self.features:
            mask = fused.astype(self.dtype)
            of_mask, mask_bias = self.vos_head.folded(scale, of_mask)
            bias = bias + mask_bias
        return (ops.matmul(image.astype(self.dtype), of_image) + ops.matmul(mask, of_mask)
                + bias.astype(self.dtype))

    def _modulate(self, scale: int, image: Array, fused: Array, mask: Array) -> Array:
        """The mask branch [B, h, w, features] modulated, with the features that the branches are made of."""
        if self.modulation == "alpha+beta":
            x = nn.relu(self._of_both(f"shared{scale}_0", scale, image, fused, mask))
            return getattr(self, f"alpha{scale}")(x) * mask + getattr(self, f"beta{scale}")(x)
        if self.modulation == "alpha":
            return self._of_both(f"alpha{scale}", scale, image, fused, mask) * mask
        return mask + self._of_both(f"beta{scale}", scale, image, fused, mask)

    def fuse_depth(self, image_features: Sequence[Array]) -> Array:
        """What the depth is predicted from, image by image: [B, h_1, w_1, features]."""
        return self.depth_head.fuse_features(image_features)

    def fuse_mask(self, image_features: Sequence[Array], fused: Sequence[Array]) -> Array:
        """What the mask is predicted from, image by image; `fused` are sums of image and flow features."""
        if self.modulation == "basic":
            return self.vos_head.fuse_features(fused)
        scales = zip(image_features, fused, self.vos_head.project(fused), strict=True)
        return self.vos_head.fuse([self._modulate(scale, *maps) for scale, maps in enumerate(scales, 1)])

    def predict_depth(self, fused: Array, *, train: bool) -> Array:
        """Depth logits [B, h_1, w_1, 1] of what `fuse_depth` gave."""
        return self.depth_head.predict(fused, train=train)

    def predict_mask(self, fused: Array, *, train: bool) -> Array:
        """Mask logits [B, h_1, w_1, 1] of what `fuse_mask` gave."""
        return self.vos_head.predict(fused, train=train)
